"""Pictures of chapters that read maps by their mean: where gradients pull, blobs counted, mode beside mean, and flows.

Axes show index pixels, as in `pictures`: cell i has its centre at i.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import Tensor
from torch.nn import functional as F

from coordreg.plots.look import COLOURS, INK, MUTED, PAPER, RULE, axes
from coordreg.plots.pictures import Array, _bare, _extent, _mark, array
from coordreg.plots.widgets import widget

#: Blue: pushed down. Red: pushed up. Paper: left alone.
PULL = LinearSegmentedColormap.from_list("coordreg-pull", ["#14408f", "#6f93cf", PAPER, "#e08468", "#9c2013"])
#: Arrows of inference and of the gradient.
FORWARD, BACKWARD = INK, COLOURS["argmax"]


def maxima(maps: Float[Tensor, "*batch H W"], share: float = 0.5) -> Int[Tensor, " *batch"]:
    """How many local maxima a map has that are above `share` of its largest value.

    A local maximum is at least as large as its up to eight neighbours; of equal neighbours the first in reading order
    counts. A map whose largest value is not above 0 has none. Raises ValueError for a share outside [0, 1).
    """
    if not 0 <= share < 1:
        raise ValueError(f"maxima: got share={share}, expected a share of the peak from 0 up to, not including, 1")
    height, width = maps.shape[-2:]
    found = (maps > share * maps.amax((-2, -1), keepdim=True)) & (maps > 0)
    padded = F.pad(maps, (1, 1, 1, 1), value=-torch.inf)
    for dy, dx in ((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)):
        other = padded[..., 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
        found &= maps > other if (dy, dx) < (0, 0) else maps >= other
    return found.sum((-2, -1))


def pull(ax: Axes | None, gradient: Array, truth: Array | None = None, at: Array | None = None) -> Axes:
    """Where a loss pushes a map: red cells up, blue ones down, by its gradient (H, W), which gradient descent negates.

    truth: (x, y) in cells, a cross. at: (x, y) in cells, the map's mean, a dot. The colours span the largest absolute
    value; a gradient of zeros leaves the paper bare. Raises ValueError for another shape.
    """
    ax, value = axes(ax), -array(gradient).astype(float)
    if value.ndim != 2:
        raise ValueError(f"pull: got a gradient of shape {value.shape}, expected (H, W); choose one image and joint")
    top = float(np.abs(value).max()) or 1.0
    ax.imshow(value, cmap=PULL, vmin=-top, vmax=top, extent=_extent(*value.shape), interpolation="nearest")
    _bare(ax)
    for spine in ax.spines.values():
        spine.set(visible=True, color=RULE)
    if at is not None:
        dot(ax, at)
    if truth is not None:
        _mark(ax, truth, "+")
    return ax


def dot(ax: Axes, place: Array, size: float = 6.5) -> None:
    """Mark the mean of a map at (x, y) in cells: a white dot. The mode is a ring and the joint a cross."""
    x, y = (float(v) for v in place)
    ax.plot([x], [y], "o", ms=size, color="#ffffff", mec=INK, mew=1.2, zorder=5)


def mode_and_mean(ax: Axes | None, p: Array, truth: float | None = None) -> Axes:
    """A map of one row (W,) as bars, its mode and its mean marked below; truth: a dashed line, in cells.

    Raises ValueError for values below 0 or for a map that holds nothing.
    """
    ax, value = axes(ax), array(p).astype(float)
    if value.ndim != 1 or (value < 0).any() or not value.sum() > 0:
        raise ValueError(f"mode_and_mean: got {value.shape} values, expected (W,) values, none below 0, not all 0")
    mode, mean = int(value.argmax()), float((value * np.arange(len(value))).sum() / value.sum())
    ax.bar(np.arange(len(value)), value, width=0.86, color="#ef8a2f", alpha=0.85, zorder=2)
    low = -0.11 * value.max()
    ax.plot([mode], [low], "s", ms=8, color=COLOURS["argmax"], label="mode", clip_on=False, zorder=4)
    ax.plot([mean], [low], "o", ms=8, color=COLOURS["dsnt"], label="mean", clip_on=False, zorder=5)
    if truth is not None:
        ax.axvline(truth, color=MUTED, linewidth=1.3, linestyle=(0, (3, 2)), zorder=3)
    ax.set(xlim=(-0.6, len(value) - 0.4), ylim=(1.9 * low, 1.08 * value.max()), yticks=[])
    ax.spines["left"].set_visible(False)
    return ax


def flow(ax: Axes | None, steps: Sequence[str], reached: Sequence[bool], loss: str, at: int, title: str = "") -> Axes:
    """A network as boxes from top to bottom, black arrows for inference, dashed red ones where gradients flow.

    steps: the boxes' texts. reached: for each of them, did a gradient arrive? loss: the text of the box beside step
    `at`, where the loss reads. A red arrow joins two neighbours that a gradient both reached. Raises ValueError where
    lengths or places disagree, or where the step that the loss reads was not reached.
    """
    if len(steps) != len(reached) or not 0 <= at < len(steps):
        raise ValueError(f"flow: got {len(steps)} steps, {len(reached)} in reached and at={at}; at must name a step")
    if not reached[at]:
        raise ValueError(f"flow: the loss reads step {at}, {steps[at]!r}, but reached says no gradient arrives there")
    ax, n = axes(ax), len(steps)
    for i, text in enumerate(steps):
        _box(ax, 0.0, -i, 1.12, text, INK)
        if i + 1 < n:
            _arrow(ax, (-0.2, -i - 0.29), (-0.2, -i - 0.71), FORWARD, "-")
            if reached[i] and reached[i + 1]:
                _arrow(ax, (0.2, -i - 0.71), (0.2, -i - 0.29), BACKWARD, (0, (3, 1.6)))
    _box(ax, 1.28, -at, 0.74, loss, BACKWARD)
    _arrow(ax, (0.58, -at + 0.1), (0.9, -at + 0.1), FORWARD, "-")
    _arrow(ax, (0.9, -at - 0.1), (0.58, -at - 0.1), BACKWARD, (0, (3, 1.6)))
    ax.set(xlim=(-0.62, 1.7), ylim=(-n + 0.6, 0.4), title=title)
    return _bare(ax)


def _box(ax: Axes, x: float, y: float, width: float, text: str, edge: Any) -> None:
    style = "round,pad=0,rounding_size=0.06"
    ax.add_patch(
        FancyBboxPatch((x - width / 2, y - 0.28), width, 0.56, boxstyle=style, facecolor=PAPER, edgecolor=edge, lw=1.2)
    )
    ax.text(x, y, text, ha="center", va="center", fontsize=7.5, color=INK, linespacing=1.25)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], colour: str, dashes: Any) -> None:
    ax.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=9, color=colour, linestyle=dashes, lw=1.4, zorder=3
        )
    )


def not_run(found: Any, *panels: Axes) -> bool:
    """Is there nothing to draw? Then the panels say so. found: `Results`; its profile is None where nothing was run."""
    absent = found is None or found.profile is None
    for ax in panels if absent else ():
        ax.set(xticks=[], yticks=[])
        ax.text(0.5, 0.5, "not run", transform=ax.transAxes, ha="center", va="center", color=MUTED, style="italic")
    return bool(absent)


# -- a figure to play with ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TwoBumps:
    """A row of cells under two Gaussians, the second to be dragged; its mode and mean follow. Offline, no library.

    joint: the middle of the first bump, in cells. place, share, width: where the second begins, its share of the mass,
    and the width of both in cells. On a page and in a notebook it is live; elsewhere it prints one line.
    """

    joint: float = 6.4
    place: float = 17.0
    share: float = 0.3
    width: float = 1.2
    cells: int = 24

    def __post_init__(self) -> None:
        last = self.cells - 1
        if not (0 <= self.joint <= last and 0 <= self.place <= last and 0 <= self.share <= 1 and self.width > 0):
            raise ValueError(
                f"TwoBumps: got joint={self.joint}, place={self.place}, share={self.share}, width={self.width}; "
                f"expected places from 0 to {last} cells, a share from 0 to 1 and a width above 0"
            )

    def read(self) -> tuple[int, float]:
        """Mode and mean of the row as it begins, in cells."""
        at = np.arange(self.cells)
        bumps = [np.exp(-0.5 * ((at - middle) / self.width) ** 2) for middle in (self.joint, self.place)]
        p = (1 - self.share) * bumps[0] / bumps[0].sum() + self.share * bumps[1] / bumps[1].sum()
        return int(p.argmax()), float(p @ at)

    def __repr__(self) -> str:
        mode, mean = self.read()
        return f"two bumps at {self.joint:g} and {self.place:g}: mode {mode}, mean {mean:.2f}; live on the page"

    def _repr_html_(self) -> str:
        names = ("joint", "place", "share", "width", "cells")
        return widget("bumps", {name: getattr(self, name) for name in names}, repr(self), _CSS, _SCRIPT)


_CSS = """
.bumps svg { display: block; width: 100%; height: auto; touch-action: none; cursor: ew-resize; user-select: none; }
.bumps .cell { fill: var(--hot, #e8711a); }
.bumps text { fill: var(--ink, #1b2430); font-size: 14px; text-anchor: middle; }
.bumps line { stroke: var(--pst-color-text-muted, #57616f); stroke-width: 1.5; stroke-dasharray: 5 4; }
.bumps .mode { fill: var(--c-argmax, #b2352b); }
.bumps .mean { fill: var(--c-sign, #1a49b9); }
.bumps p { margin: 0.5rem 0 0; }
"""

_SCRIPT = """
  const U = 30, H = 150;
  function bump(n, at, s) {
    const g = Array.from({ length: n }, (_, i) => Math.exp(-0.5 * ((i - at) / s) ** 2));
    const sum = g.reduce((a, b) => a + b);
    return g.map((v) => v / sum);
  }
  function read(n, joint, s) {
    const a = bump(n, joint, s.width), b = bump(n, s.place, s.width);
    const p = a.map((v, i) => (1 - s.share) * v + s.share * b[i]);
    return { p, mode: p.indexOf(Math.max(...p)), mean: p.reduce((sum, v, i) => sum + i * v, 0) };
  }
  function build(root, number) {
    const n = Number(root.dataset.cells), joint = Number(root.dataset.joint), state = {};
    for (const key of ["place", "share", "width"]) state[key] = Number(root.dataset[key]);
    root.dataset.ready = "yes";
    root.replaceChildren();
    const svg = make(root, "svg", { viewBox: `0 0 ${n * U} ${H + 48}`, role: "img" }, undefined, true);
    const cell = (i) => make(svg, "rect", { class: "cell", x: i * U + 2, width: U - 4 }, undefined, true);
    const bars = Array.from({ length: n }, (_, i) => cell(i)), x = (joint + 0.5) * U;
    make(svg, "line", { x1: x, x2: x, y1: 4, y2: H + 6 }, undefined, true);
    const mode = make(svg, "rect", { class: "mode", width: 16, height: 16, y: H + 6 }, undefined, true);
    const mean = make(svg, "circle", { class: "mean", r: 8, cy: H + 14 }, undefined, true);
    const names = ["mode", "mean"].map((name) => make(svg, "text", { y: H + 42 }, name, true));
    const knobs = [["place", "Second bump at", 0, n - 1, 0.1], ["share", "Its share of the mass", 0, 1, 0.01],
      ["width", "Width, \u03c3", 0.6, 4, 0.1]];
    const inputs = sliders(root, `bumps-${number}`, knobs, state, draw);
    const said = make(root, "p", {});
    function draw() {
      const found = read(n, joint, state), top = Math.max(...found.p);
      bars.forEach((bar, i) => {
        const tall = (found.p[i] / top) * (H - 8);
        bar.setAttribute("y", H - tall);
        bar.setAttribute("height", tall);
      });
      mode.setAttribute("x", (found.mode + 0.5) * U - 8);
      mean.setAttribute("cx", (found.mean + 0.5) * U);
      const apart = Math.abs(found.mode - found.mean) < 1.6 ? 22 : 0, side = found.mode <= found.mean ? 1 : -1;
      names[0].setAttribute("x", (found.mode + 0.5) * U - apart * side);
      names[1].setAttribute("x", (found.mean + 0.5) * U + apart * side);
      for (const name in inputs) inputs[name].output.textContent = state[name].toFixed(name === "share" ? 2 : 1);
      const error = (v) => Math.abs(v - joint).toFixed(2);
      const text = `Joint at ${joint.toFixed(1)}. Mode ${found.mode}, error ${error(found.mode)}. ` +
        `Mean ${found.mean.toFixed(2)}, error ${error(found.mean)}.`;
      said.textContent = text;
      svg.setAttribute("aria-label", `A row of ${n} cells with two bumps, read in two ways. ` + text);
      root.bumps = { ...state, joint, ...found };
    }
    function follow(event) {
      const box = svg.getBoundingClientRect();
      inputs.place.value = ((event.clientX - box.left) / box.width) * n - 0.5;
      state.place = Number(inputs.place.value);
      draw();
    }
    svg.addEventListener("pointerdown", (e) => { svg.setPointerCapture(e.pointerId); follow(e); e.preventDefault(); });
    svg.addEventListener("pointermove", (e) => { if (svg.hasPointerCapture(e.pointerId)) follow(e); });
    draw();
  }
  document.querySelectorAll("div.bumps:not([data-ready])").forEach(build);
"""

__all__ = ["PULL", "TwoBumps", "flow", "maxima", "mode_and_mean", "not_run", "pull"]
