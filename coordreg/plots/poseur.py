"""Drawings of chapter 7: what queries look at, on the picture and among each other."""

from collections.abc import Sequence

from matplotlib import patheffects
from matplotlib.axes import Axes

from coordreg.plots.look import COLOURS, HEAT, SIDES
from coordreg.plots.pictures import Array, Bones, array, picture

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
    """
    places, wide = array(points).astype(float), array(shares).astype(float)
    if places.shape != (len(skeleton.joints), 2) or wide.shape != (len(places),):
        raise ValueError(
            f"between: got points of shape {places.shape} and shares of shape {wide.shape}, expected "
            f"({len(skeleton.joints)}, 2) and ({len(skeleton.joints)},) for this skeleton"
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
    The picture's frame stays; places outside it are not seen.
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
