"""Drawings of chapter 7: what queries look at, on the picture and among each other."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from coordreg.plots.look import COLOURS, HEAT, INK, MUTED, PAPER, SIDES
from coordreg.plots.pictures import Array, Bones, array, picture
from coordreg.plots.stages import Sheet, arrow, columns, needs, sheet

#: Area of a dot, in square points, that has all of a query's attention; width of such a line, in points.
DOT, LINE = 220.0, 36.0
#: White lines and marks keep a thin dark rim on light ground.
RIM: list[patheffects.AbstractPathEffect] = [patheffects.withStroke(linewidth=2.6, foreground="#10141a", alpha=0.55)]


def spelt(joint: str) -> str:
    """A joint's name as figures write it: "l_wrist" is "left wrist"."""
    side, _, rest = joint.partition("_")
    words = {"l": "left", "r": "right"}
    return f"{words[side]} {rest}".replace("_", " ") if side in words and rest else joint.replace("_", " ")


def attention(ax: Axes, shares: Array, joints: Sequence[str], title: str, most: float, names: bool = True) -> Axes:
    """Attention between joints (J, J) as a matrix: row q, looked at by the query of joint q, sums to one.

    most: the share of the strongest colour, so that several matrices compare. names: whether rows are named as well.
    ValueError unless there is a row and a column for each joint.
    """
    value = array(shares).astype(float)
    if value.shape != (len(joints), len(joints)):
        raise ValueError(
            f"attention: got shares of shape {value.shape} for {len(joints)} joints, expected one row and one column "
            "for each; average over heads and images first"
        )
    ax.imshow(value, cmap=HEAT, vmin=0, vmax=most)
    told, every = [spelt(joint) for joint in joints], range(len(joints))
    ax.set_xticks(every, told, rotation=90, fontsize=6)
    ax.set_yticks(every, told if names else [""] * len(joints), fontsize=6)
    ax.tick_params(length=0, pad=2)
    ax.set_title(title)
    return ax


def between(ax: Axes, image: Array, points: Array, shares: Array, joint: int, skeleton: Bones) -> Axes:
    """A picture with a line from one joint to each other, the wider the more it looks there.

    image: (3, H, W). points: (J, 2), index pixels. shares: (J,), the row of the joint in a matrix of attention.
    ValueError for other numbers of joints than the skeleton's, and for a joint that it does not have.
    """
    places, wide = array(points).astype(float), array(shares).astype(float)
    if places.shape != (len(skeleton.joints), 2) or wide.shape != (len(places),):
        raise ValueError(
            f"between: got points of shape {places.shape} and shares of shape {wide.shape}, expected "
            f"({len(skeleton.joints)}, 2) and ({len(skeleton.joints)},) for this skeleton"
        )
    if not 0 <= joint < len(places):
        raise ValueError(
            f"between: got joint {joint}, expected one from 0 to {len(places) - 1}; give its place in the skeleton"
        )
    picture(ax, image)
    limits = ax.get_xlim(), ax.get_ylim()
    for other in (k for k in range(len(places)) if k != joint):
        pair = places[[joint, other]]
        ax.plot(*pair.T, color=SIDES["middle"], lw=LINE * wide[other], alpha=0.85, solid_capstyle="round", zorder=2)
    ax.plot(*places.T, "o", color="white", mec="#10141a", mew=0.6, ms=3, zorder=3)
    ax.plot(*places[joint], "o", color=COLOURS["dark"], mec="white", mew=1.0, ms=6.5, zorder=4)
    ax.set(xlim=limits[0], ylim=limits[1])
    return ax


def looks(
    ax: Axes, image: Array, reference: Array, at: Array, share: Array, answer: Array, truth: Array | None = None
) -> Axes:
    """What one query looks at in one layer: dots, the larger the more they count, about a ring; arrow to the answer.

    image: (3, H, W). Index pixels: reference, the ring; answer; truth, a cross: (2,). at: (..., 2) with share (...).
    The picture's frame stays; places outside it are not seen. ValueError unless each share has its place.
    """
    places, counts = array(at).astype(float), array(share).astype(float)
    if places.shape != (*counts.shape, 2):
        raise ValueError(
            f"looks: got places of shape {places.shape} with shares of shape {counts.shape}, expected (..., 2) and "
            "(...): x and y for each share"
        )
    picture(ax, image)
    limits = ax.get_xlim(), ax.get_ylim()
    ring, end = (tuple(array(point).astype(float)) for point in (reference, answer))
    x, y = places.reshape(-1, 2).T
    ax.scatter(x, y, DOT * counts.ravel(), COLOURS["poseur"], edgecolors="white", linewidths=0.4, alpha=0.85, zorder=2)
    arrow = ax.annotate("", end, ring, arrowprops={"arrowstyle": "->", "color": "white", "lw": 1.5, "shrinkB": 0})
    if arrow.arrow_patch is not None:
        arrow.arrow_patch.set_path_effects(RIM)
    (mark,) = ax.plot(*ring, "o", mfc="none", mec="white", ms=9, mew=1.8, zorder=3)
    mark.set_path_effects(RIM)
    if truth is not None:
        (cross,) = ax.plot(*array(truth).astype(float), "x", color="white", ms=6, mew=2, zorder=4)
        cross.set_path_effects(RIM)
    ax.set(xlim=limits[0], ylim=limits[1])
    return ax


__all__ = ["attention", "between", "looks", "spelt"]


def network(ax: Axes, sizes: Mapping[str, str]) -> Axes:
    """Poseur from the picture to its answers: a lane for each level of features, and one for the first guess.

    sizes: by stage, "picture", "level 1" and "map 1" of the finest level and so on, "pooled", "guess", "queries" and
    "answers", each written as "channels x rows x columns" without the blanks. ValueError for a stage without its size.
    """
    levels = max(sum(name.startswith(kind) for name in sizes) for kind in ("level ", "map "))
    heads = ("picture", "levels of\nthe trunk", "maps of\none width", "decoder", "answers")
    at, lanes = columns(ax, heads, levels + 1), range(1, levels + 1)
    middle, low = (levels + 1) / 2 + 0.55, 0.55
    begin, end = (sheet(ax, at[i], middle, needs(sizes, name)) for i, name in ((0, "picture"), (4, "answers")))
    decoder = Sheet(at[3], middle, 0.75, "")
    for lane in lanes:
        y = levels + 1 - lane + 0.55
        level, found = (sheet(ax, at[i], y, needs(sizes, f"{n} {lane}")) for i, n in ((1, "level"), (2, "map")))
        arrow(ax, begin, level)
        arrow(ax, level, found)
        arrow(ax, found, decoder)
    tone = COLOURS["poseur"]
    vectors = [_vector(ax, at[i], low, name, needs(sizes, key)) for i, name, key in (
        (1, "average", "pooled"), (2, "first guess", "guess"), (3, "queries", "queries"))]  # fmt: skip
    for a, b in pairwise(vectors):
        arrow(ax, a, b)
    bent = {"arrowstyle": "-|>", "color": MUTED, "lw": 0.9, "mutation_scale": 8}
    ax.annotate("", (at[1], low + 0.28), (level.x, level.y - level.half - 0.22), arrowprops=bent)
    ax.annotate("", (at[3], middle - 0.75), (at[3], low + 0.28), arrowprops=bent)
    ax.add_patch(Rectangle((at[3] - 0.75, middle - 0.75), 1.5, 1.5, fc=tone, ec=PAPER, alpha=0.25))
    text = "in each layer\nattention\nbetween joints,\nEMSDA, FFN"
    ax.text(at[3], middle, text, ha="center", va="center", fontsize=7, color=INK)
    arrow(ax, decoder, end)
    ax.annotate("", (at[3] + 0.3, middle + 0.77), (at[4], middle + end.half + 0.12),
                arrowprops={**bent, "connectionstyle": "arc3,rad=0.5"})  # fmt: skip
    ax.text((at[3] + at[4]) / 2 + 0.35, middle + 1.3, "where to\nlook next", ha="center", fontsize=7, color=INK)
    return ax


def _vector(ax: Axes, x: float, y: float, name: str, size: str) -> Sheet:
    """Vectors have no rows and columns to draw: a box with a name and the size."""
    wide, high = 1.3, 0.5
    ax.add_patch(Rectangle((x - wide / 2, y - high / 2), wide, high, fc=PAPER, ec=MUTED, lw=0.8))
    ax.text(x, y, f"{name}\n{size.replace('x', ' x ')}", ha="center", va="center", fontsize=6.5, color=INK)
    return Sheet(x, y, wide / 2, size)
