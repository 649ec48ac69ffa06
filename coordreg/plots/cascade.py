"""Drawings of chapter 3: every stage of the cascade with its tensor's size, and where joints lie from each other."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from coordreg.plots.look import COLOURS, INK, MUTED, PAPER

#: A colour for each source that windows are cut from, the finest first; all other tensors are grey.
SOURCES = tuple(COLOURS[name] for name in ("quarter", "integral", "dark", "argmax"))
GREY = "#cfc9bb"
#: Units of a drawing from left to right; one is the height of a lane.
ACROSS = 10.0


class Sheet(NamedTuple):
    """A drawn tensor: its middle, half of its side, and what is written below it."""

    x: float
    y: float
    half: float
    size: str


def _half(size: str) -> float:
    """Half of the side of a drawn tensor: grows with the logarithm of its rows, from 9 to 256."""
    rows = int(size.split("x")[-2])
    return 0.1 + 0.036 * (math.log2(max(rows, 8)) - 3)


def _sheet(ax: Axes, x: float, y: float, size: str, tone: str = GREY) -> Sheet:
    """A stack of three squares with the size below it."""
    half = _half(size)
    for i in (2, 1, 0):
        at = (x - half + 0.045 * i, y - half + 0.045 * i)
        ax.add_patch(Rectangle(at, 2 * half, 2 * half, fc=tone, ec=PAPER, lw=0.8, zorder=3 - 0.1 * i))
    ax.text(x, y - half - 0.06, size.replace("x", " x "), ha="center", va="top", fontsize=6.5, color=INK)
    return Sheet(x, y, half, size)


def _arrow(ax: Axes, start: Sheet, end: Sheet) -> None:
    """From the right edge of one to the left edge of the other."""
    shape = {"arrowstyle": "-|>", "color": MUTED, "lw": 0.9, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 8}
    ax.annotate("", (end.x - end.half - 0.08, end.y), (start.x + start.half + 0.16, start.y), arrowprops=shape)


def _columns(ax: Axes, heads: Sequence[str], lanes: int) -> NDArray[np.float64]:
    """Prepare the axes, write a head over each column, and say where the columns are."""
    at = np.linspace(0.75, ACROSS - 0.7, len(heads))
    for x, head in zip(at, heads, strict=True):
        ax.text(x, lanes + 0.02, head, ha="center", va="bottom", fontsize=7.5, weight="bold", color=INK)
    ax.set(xlim=(0, ACROSS), ylim=(-0.05, lanes + 0.42), aspect="equal", xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)
    return np.asarray(at)


def _needs(sizes: Mapping[str, str], name: str) -> str:
    if name not in sizes:
        raise ValueError(f"stages: got no {name!r}, expected the sizes of every stage; there are {', '.join(sizes)}")
    return sizes[name]


def coarse_stages(ax: Axes, sizes: Mapping[str, str]) -> Axes:
    """The coarse network: a lane for each bank, from the picture to the maps. What windows are cut from is coloured.

    sizes: by stage, "bank 1, image", "bank 1, first", "bank 1, second" and so on, then "sum", "window", "coarse".
    """
    lanes = sum(name.endswith(", image") for name in sizes)
    heads = ("picture,\nnormalised", "first\nconvolution", "second\nconvolution", "sum of\nthe banks", "wide\nkernel",
             "coarse\nmaps")  # fmt: skip
    at = _columns(ax, heads, lanes)
    middle = (lanes - 1) / 2 + 0.55
    stages = enumerate(("sum", "window", "coarse"), 3)
    total, wide, maps = (_sheet(ax, at[i], middle, _needs(sizes, name)) for i, name in stages)
    for level in range(lanes):
        y = lanes - 1 - level + 0.55
        row = []
        for i, name in enumerate(("image", "first", "second")):
            source = 2 * level + i - 1
            tone = SOURCES[source] if i and source < len(SOURCES) else GREY
            row.append(_sheet(ax, at[i], y, _needs(sizes, f"bank {level + 1}, {name}"), tone))
        for a, b in ((row[0], row[1]), (row[1], row[2]), (row[2], total)):
            _arrow(ax, a, b)
    _arrow(ax, total, wide)
    _arrow(ax, wide, maps)
    return ax


def fine_stages(ax: Axes, sizes: Mapping[str, str], tones: Sequence[str] = SOURCES) -> Axes:
    """The fine network: a lane for each input, from its window to the maps of all joints.

    sizes: by stage, "crop 1", "fine 1, first", "fine 1, second", "fine 1, repeated" and so on, then "mixed" and
    "output"; the standard cascade's has a "fine 1, own" before the others. tones: a colour for each lane's window.
    """
    lanes = sum(name.startswith("crop ") for name in sizes)
    names = ["own", "first", "second", "repeated"] if "fine 1, own" in sizes else ["first", "second", "repeated"]
    heads = ["windows about\nthe maxima", *({"own": "one more", "first": "convolution", "second": "convolution",
                           "repeated": "repeated"}[name] for name in names), "sum, 1 x 1", "fine maps"]  # fmt: skip
    at = _columns(ax, heads, lanes)
    middle = (lanes - 1) / 2 + 0.55
    mixed, output = (_sheet(ax, at[i], middle, _needs(sizes, n)) for i, n in ((-2, "mixed"), (-1, "output")))
    for lane in range(lanes):
        y = lanes - 1 - lane + 0.55
        row = [_sheet(ax, at[0], y, _needs(sizes, f"crop {lane + 1}"), tones[lane % len(tones)])]
        row += [_sheet(ax, at[i], y, _needs(sizes, f"fine {lane + 1}, {name}")) for i, name in enumerate(names, 1)]
        for a, b in zip(row, [*row[1:], mixed], strict=True):
            _arrow(ax, a, b)
    _arrow(ax, mixed, output)
    return ax


def displacements(ax: Axes, counts: NDArray[np.int_], reach: float, title: str, shown: float | None = None) -> Axes:
    """Where a joint lies from another: the logarithm of a histogram's counts, the other joint a cross in the middle.

    counts: (n, n), rows from -reach to reach along y, downwards. shown: half of the side that is shown.
    """
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f"displacements: got counts of shape {counts.shape}, expected (n, n), as many rows as columns")
    ax.imshow(np.log1p(counts), extent=(-reach, reach, reach, -reach), vmin=0)
    ax.plot(0, 0, "+", color=COLOURS["quarter"], ms=8, mew=1.5)
    limit = shown or reach
    ax.set(xlim=(-limit, limit), ylim=(limit, -limit), xticks=[-1, 0, 1], yticks=[-1, 0, 1])
    ax.set_title(title, fontsize=8.5)
    ax.tick_params(labelsize=7)
    return ax


__all__ = ["SOURCES", "coarse_stages", "displacements", "fine_stages"]
