"""Pictures with things on them. Where something is drawn follows chapter 1: pixel i has its centre at i.

Axes show index pixels, so that a picture of H rows and W columns fills -0.5 ... W - 0.5 and H - 0.5 ... -0.5. A heatmap
laid over an image shares its outer edges with it, whatever the two resolutions are.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from matplotlib import patheffects
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from coordreg.coords import to_pixels
from coordreg.plots.look import COLOURS, HEAT, INK, PAPER, RULE, SIDES, WIDTH, axes

#: Tensors and arrays alike.
Array = Any
RIM = "#10141a"


@runtime_checkable
class Bones(Protocol):
    """What a drawing needs to know of a skeleton: joint names ("l_..." is the person's left) and bones."""

    @property
    def joints(self) -> Sequence[str]:
        """The names in order."""
        ...

    @property
    def bones(self) -> Sequence[tuple[int, int]]:
        """Pairs of joints to be connected."""
        ...


def array(value: Array) -> NDArray[Any]:
    """A tensor on any device, an array or a sequence -> an array."""
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def pixels(image: Array) -> NDArray[Any]:
    """An image (3, H, W), (1, H, W), (H, W, 3) or (H, W), bytes or in [0, 1] -> (H, W, 3) in [0, 1]."""
    value = array(image)
    if value.ndim == 2:
        value = np.repeat(value[..., None], 3, -1)
    if value.ndim == 3 and value.shape[-1] != 3 and value.shape[0] in (1, 3):
        value = np.moveaxis(value, 0, -1)
    if value.ndim == 3 and value.shape[-1] == 1:
        value = np.repeat(value, 3, -1)
    if value.ndim != 3 or value.shape[-1] != 3:
        raise ValueError(f"picture: got shape {array(image).shape}, expected (3, H, W), (H, W, 3) or (H, W)")
    if value.dtype == np.uint8:
        return value / 255.0
    if value.size and (np.nanmin(value) < -0.01 or np.nanmax(value) > 1.01):
        raise ValueError(
            f"picture: got values from {np.nanmin(value):g} to {np.nanmax(value):g}, expected [0, 1]; "
            "divide bytes by 255, or undo a normalisation"
        )
    return value.clip(0, 1)


def _extent(height: int, width: int) -> tuple[float, float, float, float]:
    return (-0.5, width - 0.5, height - 0.5, -0.5)


def picture(ax: Axes | None, image: Array, size: tuple[int, int] | None = None) -> Axes:
    """Show an image without ticks. size: (rows, columns) of the index pixels on the axes; its own by default."""
    ax, value = axes(ax), pixels(image)
    ax.imshow(
        value, extent=_extent(*(size or value.shape[:2])), interpolation="nearest" if size is None else "antialiased"
    )
    return _bare(ax)


def _bare(ax: Axes) -> Axes:
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)
    return ax


def _side(name: str) -> str:
    head = name.lower().split("_")[0]
    return {"l": "left", "left": "left", "r": "right", "right": "right"}.get(head, "middle")


def skeleton(
    ax: Axes | None,
    points: Array,
    skeleton: Bones,
    size: tuple[int, int] | None = None,
    visible: Array | None = None,
    colour: str | None = None,
    width: float = 2.0,
    label: str | None = None,
) -> Axes:
    """Draw joints and bones: the person's left orange, right blue, middle cream; or all in one colour.

    points: (J, 2) index pixels; with size = (H, W) normalised coordinates. Joints with NaN are left out.
    visible: (J,) bool; hidden joints are hollow and their bones thin. width: of bones, in points. label: for a legend.
    """
    ax = axes(ax)
    value = array(points).astype(float)
    if value.shape != (len(skeleton.joints), 2):
        raise ValueError(
            f"skeleton: got points of shape {value.shape}, expected ({len(skeleton.joints)}, 2) for this skeleton; "
            "draw one person at a time, x before y"
        )
    if size is not None:
        value = array(to_pixels(torch.from_numpy(value), size))
    shown = np.ones(len(value), dtype=bool) if visible is None else array(visible).astype(bool)
    tint = [colour or SIDES[_side(name)] for name in skeleton.joints]
    known = np.isfinite(value).all(-1)
    rim = [patheffects.Stroke(linewidth=width + 1.6, foreground=RIM, alpha=0.75), patheffects.Normal()]
    for hidden in (True, False):
        bones = [(a, b) for a, b in skeleton.bones if known[a] and known[b] and (shown[a] and shown[b]) != hidden]
        if bones:
            tints = [tint[b] if tint[a] == tint[b] else (colour or _bone(skeleton, a, b)) for a, b in bones]
            thin = width * (0.45 if hidden else 1)
            line = LineCollection(
                [value[[a, b]] for a, b in bones], colors=tints, linewidths=thin, capstyle="round", zorder=3
            )
            line.set_path_effects([] if hidden else rim)
            ax.add_collection(line, autolim=False)
    area = (2.1 * width) ** 2
    for mask, filled in ((known & shown, True), (known & ~shown, False)):
        if mask.any():
            chosen = [t for t, m in zip(tint, mask, strict=True) if m]
            ax.scatter(
                value[mask, 0],
                value[mask, 1],
                s=area if filled else 0.8 * area,
                c=chosen if filled else "none",
                edgecolors=RIM if filled else chosen,
                linewidths=0.7 if filled else 1.2,
                zorder=4,
            )
    if label is not None:
        ax.plot([], [], color=colour or SIDES["middle"], linewidth=width, marker="o", label=label)
    return ax


def _bone(skeleton: Bones, a: int, b: int) -> str:
    sides = {_side(skeleton.joints[j]) for j in (a, b)} - {"middle"}
    return SIDES[sides.pop()] if len(sides) == 1 else SIDES["middle"]


def image_grid(
    images: Array,
    points: Array | None = None,
    skeleton: Bones | None = None,
    titles: Sequence[str] | None = None,
    visible: Array | None = None,
    columns: int = 5,
    width: float = WIDTH,
) -> Figure:
    """A sheet of images, with skeletons if points are given.

    images: (N, 3, H, W), bytes or in [0, 1]. points: (N, J, 2) normalised. visible: (N, J). titles: N of them.
    """
    if not len(images):
        raise ValueError("image_grid: got no images")
    if (points is None) != (skeleton is None):
        raise ValueError("image_grid: points and skeleton come together; got only one of them")
    for name, value in (("points", points), ("titles", titles), ("visible", visible)):
        if value is not None and len(value) != len(images):
            raise ValueError(f"image_grid: got {len(value)} {name} for {len(images)} images")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    shape = pixels(images[0]).shape
    tall = width / columns * shape[0] / shape[1] + (0.22 if titles is not None else 0)
    tight = ConstrainedLayoutEngine(w_pad=0.025, h_pad=0.025, wspace=0, hspace=0)
    figure, grid = plt.subplots(rows, columns, figsize=(width, rows * tall + 0.1), squeeze=False, layout=tight)
    figure.set_facecolor(PAPER)
    for i, ax in enumerate(grid.flat):
        _bare(ax)
        if i >= len(images):
            ax.set_axis_off()
            continue
        picture(ax, images[i])
        if points is not None and skeleton is not None:
            size = (shape[0], shape[1])
            seen = None if visible is None else visible[i]
            _skeleton(ax, points[i], skeleton, size, seen, width=max(0.9, 1.9 - 0.1 * columns))
            ax.set(xlim=(-0.5, shape[1] - 0.5), ylim=(shape[0] - 0.5, -0.5))
        if titles is not None:
            ax.set_title(titles[i], fontsize=9, fontweight="normal", color=INK, pad=4)
    return figure


_skeleton = skeleton


def heatmap(
    ax: Axes | None,
    map: Array,
    image: Array | None = None,
    peak: Array | None = None,
    truth: Array | None = None,
    limits: tuple[float, float] | None = None,
    grid: bool = False,
    values: bool = False,
) -> Axes:
    """Show a map (H, W), alone or as a glow over an image of any resolution; the axes are cells, cell i at i.

    peak, truth: (x, y) in cells, drawn as a ring and as a cross. limits: values of the weakest and strongest colour, by
    default 0 (or the minimum, if that is lower) and the maximum. grid: lines between cells. values: a number in each.
    """
    ax, value = axes(ax), array(map).astype(float)
    if value.ndim != 2:
        raise ValueError(f"heatmap: got a map of shape {value.shape}, expected (H, W); choose one image and one joint")
    height, width = value.shape
    low, high = limits or (min(0.0, float(np.nanmin(value))), float(np.nanmax(value)))
    scaled = Normalize(low, high if high > low else low + 1)(value)
    extent = _extent(height, width)
    if image is None:
        ax.imshow(scaled, cmap=HEAT, vmin=0, vmax=1, extent=extent, interpolation="nearest")
    else:
        under = pixels(image)
        grey = under @ np.array([0.299, 0.587, 0.114])
        ax.imshow(np.clip(0.45 * under + 0.3 * grey[..., None], 0, 1), extent=extent, interpolation="antialiased")
        glow = np.empty((height, width, 4))
        glow[..., :3] = _GLOW(scaled)[..., :3]
        glow[..., 3] = np.clip(1.6 * scaled, 0, 0.9)
        ax.imshow(glow, extent=extent, interpolation="nearest")
    _bare(ax)
    if grid:
        pixel_grid(ax, height, width)
    if values:
        for (r, c), v in np.ndenumerate(value):
            tone = "#ffffff" if image is not None or scaled[r, c] > 0.5 else INK
            ax.text(
                c,
                r,
                f"{v:.2f}".replace("0.", ".").replace("-.00", ".00"),
                ha="center",
                va="center",
                fontsize=7,
                color=tone,
            )
    for place, marker in ((peak, "o"), (truth, "+")):
        if place is not None:
            _mark(ax, place, marker)
    ax.set(xlim=extent[:2], ylim=extent[2:])
    return ax


#: From transparent to bright, for maps over pictures.
_GLOW = HEAT.__class__.from_list("coordreg-glow", ["#7a1fa2", "#e8455a", "#ff9d2e", "#fff3b0"])


def _mark(ax: Axes, place: Array, marker: str) -> None:
    x, y = (float(v) for v in place)
    halo = [patheffects.Stroke(linewidth=3.6, foreground="#ffffff"), patheffects.Normal()]
    tone = COLOURS["quarter"] if marker == "o" else RIM
    (drawn,) = ax.plot(
        [x], [y], marker, ms=10 if marker == "o" else 11, mew=1.7, mfc="none", mec=tone, color=tone, zorder=6
    )
    drawn.set_path_effects(halo)


def pixel_grid(ax: Axes | None, height: int, width: int, centres: bool = False, ticks: bool = False) -> Axes:
    """Lines along the edges of an H x W grid of pixels. centres: a dot in each. ticks: number rows and columns."""
    ax = axes(ax)
    if height < 1 or width < 1:
        raise ValueError(f"pixel_grid: got {height} x {width}, expected at least one pixel")
    left, right, bottom, top = _extent(height, width)
    ax.vlines(np.arange(width + 1) - 0.5, top, bottom, color=RULE, linewidth=0.9, zorder=2)
    ax.hlines(np.arange(height + 1) - 0.5, left, right, color=RULE, linewidth=0.9, zorder=2)
    if centres:
        rows, columns = np.mgrid[:height, :width]
        ax.scatter(columns.ravel(), rows.ravel(), s=9, color=to_rgba(INK, 0.7), linewidths=0, zorder=2.5)
    ax.set(xlim=(left - 0.02, right + 0.02), ylim=(bottom + 0.02, top - 0.02), aspect="equal")
    _bare(ax)
    if ticks:
        ax.set(xticks=range(width), yticks=range(height))
        ax.tick_params(length=0)
    return ax
