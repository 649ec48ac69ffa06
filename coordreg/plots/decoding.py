"""Drawings of chapter 6: decoders' answers on a map, steps in a row, and a peak to be dragged under a grid of cells."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from coordreg.plots.look import COLOURS, INK, MUTED
from coordreg.plots.pictures import _mark
from coordreg.plots.widgets import widget

Array = NDArray[np.float64]


def answers(ax: Axes, places: Mapping[str, Any], truth: Any = None) -> Axes:
    """Mark where decoders put a joint: argmax a ring, the quarter shift a square, DARK a white dot; the joint a cross.

    places: (x, y) on these axes by decoder, any of "argmax", "quarter" and "DARK". ValueError for another name.
    """
    unknown = [name for name in places if name not in ("argmax", "quarter", "DARK")]
    if unknown:
        raise ValueError(f'answers: got {", ".join(unknown)}, expected "argmax", "quarter" or "DARK"')
    if truth is not None:
        _mark(ax, truth, "+")
    if "argmax" in places:
        _mark(ax, places["argmax"], "o")
    if "quarter" in places:
        x, y = (float(v) for v in places["quarter"])
        ax.plot([x], [y], "s", ms=7, color=COLOURS["quarter"], mec="#ffffff", zorder=6)
    if "DARK" in places:
        x, y = (float(v) for v in places["DARK"])
        ax.plot([x], [y], "o", ms=6, color="#ffffff", mec=INK, mew=1.2, zorder=7)
    return ax


def onward(panels: Iterable[Axes], texts: Sequence[str] = ()) -> None:
    """Arrows from each panel of a row to the next, with a short text above each; below it after a line break.

    Raises ValueError where there is not one text for each arrow.
    """
    row = list(panels)
    if texts and len(texts) != len(row) - 1:
        raise ValueError(f"onward: got {len(texts)} texts for {len(row)} panels, expected one fewer than panels")
    for i, (left, right) in enumerate(pairwise(row)):
        arrow = left.annotate(
            "", (-0.04, 0.5), (1.04, 0.5), right.transAxes, left.transAxes, annotation_clip=False,
            arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1.4, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip
        arrow.set_in_layout(False)
        above, _, below = (texts[i] if texts else "").partition("\n")
        for text, offset, side in ((above, 5, "bottom"), (below, -5, "top")):
            if text:
                said = left.annotate(
                    text, (1.04, 0.5), (2, offset), "axes fraction", "offset points", annotation_clip=False,
                    ha="left", va=side, fontsize=7.5, color=MUTED,
                )  # fmt: skip
                said.set_in_layout(False)


@dataclass(frozen=True)
class Peak:
    """A map of cells with a Gaussian that is dragged about, read in four ways as it moves. Offline, no library.

    x, y: where it begins, in cells. sigma: its width. noise: the largest error of a cell beside a peak of 1. second:
    height of another Gaussian, four cells to the right and one down. On a page and in a notebook it is live; elsewhere
    it prints one line. The blur of DARK is as wide as the Gaussian. The browser's tests hold its script to the library.
    """

    x: float = 6.35
    y: float = 5.2
    sigma: float = 1.3
    noise: float = 0.0
    second: float = 0.0
    columns: int = 16
    rows: int = 11

    def __post_init__(self) -> None:
        inside = 0 <= self.x <= self.columns - 1 and 0 <= self.y <= self.rows - 1
        if not (inside and 0.6 <= self.sigma <= 2.5 and 0 <= self.noise <= 0.6 and 0 <= self.second <= 1):
            raise ValueError(
                f"Peak: got x={self.x}, y={self.y}, sigma={self.sigma}, noise={self.noise}, second={self.second}; "
                f"expected a place from 0 to {self.columns - 1} and {self.rows - 1} cells, sigma from 0.6 to 2.5, "
                "noise from 0 to 0.6 and second from 0 to 1, as far as its sliders go"
            )

    def draw(self) -> Array:
        """The map as it begins, (rows, columns)."""
        x, y = np.arange(self.columns), np.arange(self.rows)[:, None]

        def bump(mx: float, my: float) -> Array:
            return np.exp(-((x - mx) ** 2 + (y - my) ** 2) / (2 * self.sigma**2))

        i = y * self.columns + x
        grain = np.sin(i * 12.9898 + 78.233) * 43758.5453
        noise = self.noise * (2 * (grain - np.floor(grain)) - 1)
        return bump(self.x, self.y) + self.second * bump(self.x + 4, self.y + 1) + noise

    def __repr__(self) -> str:
        return f"a peak at ({self.x:g}, {self.y:g}) under {self.columns} x {self.rows} cells; live on the page"

    def _repr_html_(self) -> str:
        names = ("x", "y", "sigma", "noise", "second", "columns", "rows")
        return widget("dragged", {name: getattr(self, name) for name in names}, repr(self), _CSS, _SCRIPT)


_CSS = """
.dragged svg {
  display: block; width: 100%; max-width: 40rem; height: auto; margin: 0 auto;
  touch-action: none; cursor: grab; user-select: none;
}
.dragged .ground { fill: var(--pst-color-surface, #f1eee7); }
.dragged .cell { fill: var(--hot, #e8711a); stroke: var(--card-edge, #e3dfd6); stroke-width: 0.5; }
.dragged .truth { stroke: var(--ink, #1b2430); stroke-width: 2; fill: none; }
.dragged { --largest: var(--c-argmax, #b2352b); --quarter: var(--c-second, #2b8a58); --dark: var(--c-sign, #1a49b9); }
.dragged { --mean: #7a3fb0; }
html[data-theme="dark"] .dragged { --mean: #c3a3f2; }
.dragged circle.argmax { fill: none; stroke: var(--largest); stroke-width: 2.5; }
.dragged rect.quarter { fill: var(--quarter); }
.dragged circle.dark { fill: var(--dark); }
.dragged path.mean { fill: var(--mean); }
.dragged .key.argmax { background: var(--largest); }
.dragged .key.quarter { background: var(--quarter); }
.dragged .key.dark { background: var(--dark); }
.dragged .key.mean { background: var(--mean); }
.dragged table { margin: 0.6rem auto 0; font-variant-numeric: tabular-nums; border-collapse: collapse; }
.dragged td, .dragged th { padding: 0.1rem 0.7rem; text-align: right; border: 0; }
.dragged th:first-child, .dragged td:first-child { text-align: left; }
.dragged .key { display: inline-block; width: 0.8em; height: 0.8em; margin-right: 0.45em; vertical-align: -0.05em; }
"""

_SCRIPT = """
  const U = 30;
  const NAMES = ["argmax", "quarter", "DARK", "mean"];
  const SAID = { argmax: "largest cell", quarter: "quarter shift", DARK: "DARK", mean: "mean" };
  function paint(s) {
    const m = [];
    for (let y = 0; y < s.rows; y++) {
      const line = [];
      for (let x = 0; x < s.columns; x++) {
        const bump = (mx, my) => Math.exp(-((x - mx) ** 2 + (y - my) ** 2) / (2 * s.sigma ** 2));
        const grain = Math.sin((y * s.columns + x) * 12.9898 + 78.233) * 43758.5453;
        const noise = s.noise * (2 * (grain - Math.floor(grain)) - 1);
        line.push(bump(s.x, s.y) + s.second * bump(s.x + 4, s.y + 1) + noise);
      }
      m.push(line);
    }
    return m;
  }
  function blurred(m, s) {
    const r = Math.ceil(3 * s.sigma), k = [];
    for (let i = -r; i <= r; i++) k.push(Math.exp(-(i * i) / (2 * s.sigma ** 2)));
    const sum = k.reduce((a, b) => a + b), at = (y, x) => (m[y] && m[y][x] !== undefined ? m[y][x] : 0);
    return (y, x) => {
      let total = 0;
      for (let i = -r; i <= r; i++) for (let j = -r; j <= r; j++) total += k[i + r] * k[j + r] * at(y + i, x + j);
      return total / (sum * sum);
    };
  }
  function read(s) {
    const m = paint(s);
    let cx = 0, cy = 0, mass = 0, mx = 0, my = 0;
    m.forEach((line, y) => line.forEach((v, x) => {
      if (v > m[cy][cx]) { cx = x; cy = y; }
      const w = Math.max(v, 0);
      mass += w; mx += w * x; my += w * y;
    }));
    const quarter = [cx, cy], dark = [cx, cy];
    if (cx > 0 && cx < s.columns - 1) quarter[0] += 0.25 * Math.sign(m[cy][cx + 1] - m[cy][cx - 1]);
    if (cy > 0 && cy < s.rows - 1) quarter[1] += 0.25 * Math.sign(m[cy + 1][cx] - m[cy - 1][cx]);
    if (cx > 1 && cx < s.columns - 2 && cy > 1 && cy < s.rows - 2) {
      const soft = blurred(m, s), p = (i, j) => Math.log(Math.max(soft(cy + i, cx + j), 1e-10));
      const dx = (p(0, 1) - p(0, -1)) / 2, dy = (p(1, 0) - p(-1, 0)) / 2, c = p(0, 0);
      const dxx = (p(0, 2) - 2 * c + p(0, -2)) / 4, dyy = (p(2, 0) - 2 * c + p(-2, 0)) / 4;
      const dxy = (p(1, 1) - p(1, -1) - p(-1, 1) + p(-1, -1)) / 4, d = dxx * dyy - dxy * dxy;
      if (d !== 0) { dark[0] += (dxy * dy - dyy * dx) / d; dark[1] += (dxy * dx - dxx * dy) / d; }
    }
    return { m, argmax: [cx, cy], quarter, DARK: dark, mean: [mx / mass, my / mass] };
  }
  function build(root, number) {
    const s = {};
    for (const key of ["x", "y", "sigma", "noise", "second", "columns", "rows"]) s[key] = Number(root.dataset[key]);
    root.dataset.ready = "yes";
    root.replaceChildren();
    const wide = s.columns * U, tall = s.rows * U;
    const svg = make(root, "svg", { viewBox: `0 0 ${wide} ${tall}`, role: "img" }, undefined, true);
    make(svg, "rect", { class: "ground", width: wide, height: tall }, undefined, true);
    const cells = [];
    for (let y = 0; y < s.rows; y++) for (let x = 0; x < s.columns; x++)
      cells.push(make(svg, "rect", { class: "cell", x: x * U, y: y * U, width: U, height: U }, undefined, true));
    const truth = make(svg, "path", { class: "truth" }, undefined, true);
    const marks = {
      argmax: make(svg, "circle", { class: "argmax", r: 10 }, undefined, true),
      quarter: make(svg, "rect", { class: "quarter", width: 10, height: 10 }, undefined, true),
      mean: make(svg, "path", { class: "mean" }, undefined, true),
      DARK: make(svg, "circle", { class: "dark", r: 5 }, undefined, true),
    };
    const knobs = [["x", "Joint, across", 0, s.columns - 1, 0.05], ["y", "Joint, down", 0, s.rows - 1, 0.05],
      ["sigma", "Width, \u03c3", 0.6, 2.5, 0.1], ["noise", "Noise", 0, 0.6, 0.02],
      ["second", "Second peak", 0, 1, 0.02]];
    const inputs = sliders(root, `dragged-${number}`, knobs, s, draw);
    const table = make(root, "table", {}), body = make(table, "tbody", {}), row = {};
    const head = make(body, "tr", {});
    for (const title of ["read by", "x", "y", "error, cells"]) make(head, "th", { scope: "col" }, title);
    for (const name of NAMES) {
      const line = make(body, "tr", {}), first = make(line, "td", {});
      make(first, "span", { class: `key ${name.toLowerCase()}` });
      first.append(SAID[name]);
      row[name] = [make(line, "td", {}), make(line, "td", {}), make(line, "td", {})];
    }
    function draw() {
      const found = read(s), top = Math.max(...found.m.flat());
      found.m.flat().forEach((v, i) => cells[i].setAttribute("fill-opacity", Math.max(0, v / top)));
      const put = ([x, y]) => [(x + 0.5) * U, (y + 0.5) * U], [tx, ty] = put([s.x, s.y]);
      truth.setAttribute("d", `M${tx - 12} ${ty}H${tx + 12}M${tx} ${ty - 12}V${ty + 12}`);
      for (const name of NAMES) {
        const [x, y] = put(found[name]), mark = marks[name];
        if (name === "quarter") { mark.setAttribute("x", x - 5); mark.setAttribute("y", y - 5); }
        else if (name === "mean") mark.setAttribute("d", `M${x} ${y - 8}L${x + 7} ${y + 5}H${x - 7}Z`);
        else { mark.setAttribute("cx", x); mark.setAttribute("cy", y); }
        const off = Math.hypot(found[name][0] - s.x, found[name][1] - s.y);
        [found[name][0], found[name][1], off].forEach((v, i) => { row[name][i].textContent = v.toFixed(2); });
      }
      for (const name in inputs) { inputs[name].value = s[name]; inputs[name].output.textContent = s[name].toFixed(2); }
      const error = (name) => Math.hypot(found[name][0] - s.x, found[name][1] - s.y).toFixed(2);
      svg.setAttribute("aria-label", `A map of ${s.rows} by ${s.columns} cells with its joint at ` +
        `${s.x.toFixed(2)}, ${s.y.toFixed(2)}. Errors in cells: ` +
        NAMES.map((name) => `${SAID[name]} ${error(name)}`).join(", ") + ".");
      root.peak = { ...s, read: found };
    }
    function follow(event) {
      const box = svg.getBoundingClientRect(), clip = (v, n) => Math.min(Math.max(v, 0), n - 1);
      s.x = clip(((event.clientX - box.left) / box.width) * s.columns - 0.5, s.columns);
      s.y = clip(((event.clientY - box.top) / box.height) * s.rows - 0.5, s.rows);
      draw();
    }
    svg.addEventListener("pointerdown", (e) => { svg.setPointerCapture(e.pointerId); follow(e); e.preventDefault(); });
    svg.addEventListener("pointermove", (e) => { if (svg.hasPointerCapture(e.pointerId)) follow(e); });
    draw();
  }
  document.querySelectorAll("div.dragged:not([data-ready])").forEach(build);
"""

__all__ = ["Peak", "answers", "onward"]
