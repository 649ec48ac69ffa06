"""Drawings of chapter 3: every stage of the cascade with its tensor's size, and where joints lie from each other."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from coordreg.plots.look import COLOURS
from coordreg.plots.stages import GREY, arrow, columns, needs, sheet

#: A colour for each source that windows are cut from, the finest first; all other tensors are grey.
SOURCES = tuple(COLOURS[name] for name in ("quarter", "integral", "dark", "argmax"))


def coarse_stages(ax: Axes, sizes: Mapping[str, str]) -> Axes:
    """The coarse network: a lane for each bank, from the picture to the maps. What windows are cut from is coloured.

    sizes: by stage, "bank 1, image", "bank 1, first", "bank 1, second" and so on, then "sum", "window", "coarse".
    """
    lanes = sum(name.endswith(", image") for name in sizes)
    heads = ("picture,\nnormalised", "first\nconvolution", "second\nconvolution", "sum of\nthe banks", "wide\nkernel",
             "coarse\nmaps")  # fmt: skip
    at = columns(ax, heads, lanes)
    middle = (lanes - 1) / 2 + 0.55
    stages = enumerate(("sum", "window", "coarse"), 3)
    total, wide, maps = (sheet(ax, at[i], middle, needs(sizes, name)) for i, name in stages)
    for level in range(lanes):
        y = lanes - 1 - level + 0.55
        row = []
        for i, name in enumerate(("image", "first", "second")):
            source = 2 * level + i - 1
            tone = SOURCES[source] if i and source < len(SOURCES) else GREY
            row.append(sheet(ax, at[i], y, needs(sizes, f"bank {level + 1}, {name}"), tone))
        for a, b in ((row[0], row[1]), (row[1], row[2]), (row[2], total)):
            arrow(ax, a, b)
    arrow(ax, total, wide)
    arrow(ax, wide, maps)
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
    at = columns(ax, heads, lanes)
    middle = (lanes - 1) / 2 + 0.55
    mixed, output = (sheet(ax, at[i], middle, needs(sizes, n)) for i, n in ((-2, "mixed"), (-1, "output")))
    for lane in range(lanes):
        y = lanes - 1 - lane + 0.55
        row = [sheet(ax, at[0], y, needs(sizes, f"crop {lane + 1}"), tones[lane % len(tones)])]
        row += [sheet(ax, at[i], y, needs(sizes, f"fine {lane + 1}, {name}")) for i, name in enumerate(names, 1)]
        for a, b in zip(row, [*row[1:], mixed], strict=True):
            arrow(ax, a, b)
    arrow(ax, mixed, output)
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
