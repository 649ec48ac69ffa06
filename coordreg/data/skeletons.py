"""Skeletons: the joints of each data set by name and order, their bones and sides, and how to go from one to another.

Left and right are the person's own. Where two sets mean nearly the same place we treat it as the same: LSP's neck is
MPII's upper neck. FIGURE is what the drawn figures know: enough to make all others complete.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Skeleton:
    """Joint names in order, bones and left-right pairs as joint numbers, and the groups in which results are reported.

    grouping: (name, joint numbers) for each column of the usual table; see `groups` for the mapping.
    """

    name: str
    joints: tuple[str, ...]
    bones: tuple[tuple[int, int], ...]
    pairs: tuple[tuple[int, int], ...]
    grouping: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def __post_init__(self) -> None:
        count = len(self.joints)
        if len(set(self.joints)) != count:
            raise ValueError(f"Skeleton {self.name!r}: a joint's name appears twice in {self.joints}")
        used = [*self.bones, *self.pairs, *(members for _, members in self.grouping)]
        if any(not 0 <= j < count for members in used for j in members):
            raise ValueError(f"Skeleton {self.name!r}: a bone, pair or group names a joint outside 0..{count - 1}")

    def __len__(self) -> int:
        return len(self.joints)

    @property
    def groups(self) -> Mapping[str, tuple[int, ...]]:
        """Name of a column -> the joints it averages."""
        return dict(self.grouping)


def _skeleton(name: str, joints: str, bones: str, groups: str) -> Skeleton:
    """Write a skeleton with names: bones "a-b", groups "head:head_top"; "*" stands for both sides."""
    names = tuple(joints.split())
    number = {joint: j for j, joint in enumerate(names)}

    def both(text: str) -> list[str]:
        return [text.replace("*", side) for side in ("r_", "l_")] if "*" in text else [text]

    lines = [line.split("-") for bone in bones.split() for line in both(bone)]
    columns = [group.split(":") for group in groups.split()]
    sides = [(j, number["r_" + joint[2:]]) for joint, j in number.items() if joint.startswith("l_")]
    return Skeleton(
        name,
        names,
        tuple((number[a], number[b]) for a, b in lines),
        tuple(sorted((min(pair), max(pair)) for pair in sides)),
        tuple((column, tuple(sorted(number[j] for j in both(members)))) for column, members in columns),
    )


_LIMBS = "*hip-*knee *knee-*ankle *shoulder-*elbow *elbow-*wrist "
_GROUPS = "shoulder:*shoulder elbow:*elbow wrist:*wrist hip:*hip knee:*knee ankle:*ankle"
_MPII = (
    "r_ankle r_knee r_hip l_hip l_knee l_ankle pelvis thorax upper_neck head_top "
    "r_wrist r_elbow r_shoulder l_shoulder l_elbow l_wrist"
)
_FACE = "nose l_eye r_eye l_ear r_ear"
_SPINE = _LIMBS + "pelvis-*hip thorax-*shoulder thorax-upper_neck upper_neck-head_top "

#: MPII. Groups are the columns of PCKh tables; pelvis and thorax are in none and stay outside the mean.
MPII16 = _skeleton("mpii16", _MPII, _SPINE + "pelvis-thorax", "head:head_top " + _GROUPS)

#: Leeds Sports Pose and its extension.
LSP14 = _skeleton(
    "lsp14",
    "r_ankle r_knee r_hip l_hip l_knee l_ankle r_wrist r_elbow r_shoulder l_shoulder l_elbow l_wrist neck head_top",
    _LIMBS + "neck-*shoulder neck-head_top r_hip-l_hip *shoulder-*hip",
    "head:head_top " + _GROUPS,
)

#: COCO's person keypoints.
COCO17 = _skeleton(
    "coco17",
    _FACE + " l_shoulder r_shoulder l_elbow r_elbow l_wrist r_wrist l_hip r_hip l_knee r_knee l_ankle r_ankle",
    _LIMBS + "r_hip-l_hip r_shoulder-l_shoulder *shoulder-*hip nose-*eye *eye-*ear *ear-*shoulder",
    "nose:nose eye:*eye ear:*ear " + _GROUPS,
)

#: Human3.6M, the 17 joints in common use; its "Neck/Thorax" is our thorax, its "Head" our head top.
H36M17 = _skeleton(
    "h36m17",
    "pelvis r_hip r_knee r_ankle l_hip l_knee l_ankle spine thorax nose head_top "
    "l_shoulder l_elbow l_wrist r_shoulder r_elbow r_wrist",
    _LIMBS + "pelvis-*hip pelvis-spine spine-thorax thorax-*shoulder thorax-nose nose-head_top",
    "head:head_top nose:nose spine:spine thorax:thorax " + _GROUPS,
)

#: What the drawn figures know: MPII's joints first, then the face, the middle of the spine, tips of feet and hands.
FIGURE = _skeleton(
    "figure",
    f"{_MPII} {_FACE} spine r_toe l_toe r_hand l_hand",
    _SPINE + "pelvis-spine spine-thorax upper_neck-nose nose-*eye *eye-*ear *ankle-*toe *wrist-*hand",
    "head:head_top " + _GROUPS,
)

SKELETONS: Mapping[str, Skeleton] = {s.name: s for s in (MPII16, LSP14, COCO17, H36M17, FIGURE)}

#: Two names of one place, and places that are the mean of others (tried in this order).
_SAME = {"neck": "upper_neck", "upper_neck": "neck"}
_MEANS = {
    "pelvis": ("l_hip", "r_hip"),
    "thorax": ("l_shoulder", "r_shoulder"),
    "spine": ("l_hip", "r_hip", "l_shoulder", "r_shoulder"),
}


def skeleton(name: str) -> Skeleton:
    """The skeleton of this name. ValueError lists those there are."""
    if name not in SKELETONS:
        raise ValueError(f"skeleton: got {name!r}, expected one of {', '.join(SKELETONS)}")
    return SKELETONS[name]


def recipe(source: Skeleton, target: Skeleton) -> list[tuple[int, ...]]:
    """For each target joint the source joints it is the mean of; empty where the source does not determine it."""
    number = {joint: j for j, joint in enumerate(source.joints)}

    def of(joint: str) -> tuple[int, ...]:
        if joint in number:
            return (number[joint],)
        if _SAME.get(joint) in number:
            return (number[_SAME[joint]],)
        parts = _MEANS.get(joint, ())
        return tuple(number[p] for p in parts) if parts and all(p in number for p in parts) else ()

    return [of(joint) for joint in target.joints]


def convert(
    points: Float[Tensor, "*batch J d"], source: Skeleton, target: Skeleton
) -> tuple[Float[Tensor, "*batch K d"], Bool[Tensor, " K"]]:
    """Points of one skeleton as points of another, and which target joints the source determines (others are NaN).

    A joint is taken over by name, or made as a mean: the pelvis of the hips, the thorax of the shoulders, the spine of
    all four. LSP's neck and MPII's upper neck count as one place. Raises ValueError for points of another skeleton.
    """
    if points.shape[-2] != len(source):
        raise ValueError(
            f"convert: got {points.shape[-2]} points, but {source.name} has {len(source)} joints; "
            "give the skeleton that the points belong to as `source`"
        )
    parts = recipe(source, target)
    blank = torch.full_like(points[..., 0, :], torch.nan)
    out = [points[..., list(p), :].mean(-2) if p else blank for p in parts]
    return torch.stack(out, -2), torch.tensor([bool(p) for p in parts], device=points.device)
