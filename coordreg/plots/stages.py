"""Parts of drawings of a network: tensors as stacks of sheets with their sizes, arrows, columns with heads."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from coordreg.plots.look import INK, MUTED, PAPER

#: The tone of a tensor that is not pointed out.
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


def sheet(ax: Axes, x: float, y: float, size: str, tone: str = GREY) -> Sheet:
    """A stack of three squares with the size below it."""
    half = _half(size)
    for i in (2, 1, 0):
        at = (x - half + 0.045 * i, y - half + 0.045 * i)
        ax.add_patch(Rectangle(at, 2 * half, 2 * half, fc=tone, ec=PAPER, lw=0.8, zorder=3 - 0.1 * i))
    ax.text(x, y - half - 0.06, size.replace("x", " x "), ha="center", va="top", fontsize=6.5, color=INK)
    return Sheet(x, y, half, size)


def arrow(ax: Axes, start: Sheet, end: Sheet) -> None:
    """From the right edge of one to the left edge of the other."""
    shape = {"arrowstyle": "-|>", "color": MUTED, "lw": 0.9, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 8}
    ax.annotate("", (end.x - end.half - 0.08, end.y), (start.x + start.half + 0.16, start.y), arrowprops=shape)


def columns(ax: Axes, heads: Sequence[str], lanes: int) -> NDArray[np.float64]:
    """Prepare the axes, write a head over each column, and say where the columns are."""
    at = np.linspace(0.75, ACROSS - 0.7, len(heads))
    for x, head in zip(at, heads, strict=True):
        ax.text(x, lanes + 0.02, head, ha="center", va="bottom", fontsize=7.5, weight="bold", color=INK)
    ax.set(xlim=(0, ACROSS), ylim=(-0.05, lanes + 0.42), aspect="equal", xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)
    return np.asarray(at)


def needs(sizes: Mapping[str, str], name: str) -> str:
    """The size of a stage. ValueError for one that is not among them."""
    if name not in sizes:
        raise ValueError(f"stages: got no {name!r}, expected the sizes of every stage; there are {', '.join(sizes)}")
    return sizes[name]
