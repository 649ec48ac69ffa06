"""Where the person stands, where the camera is, and which joints it sees."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from coordreg.coords import to_pixels
from coordreg.data.dice import Dice
from coordreg.data.poses import turn
from coordreg.data.render import View, times
from coordreg.data.skeletons import FIGURE

#: A joint is hidden if something lies this many metres before it; the flesh around it does not count.
COVER = {"pelvis": 0.20, "thorax": 0.20, "spine": 0.20, "upper_neck": 0.14, "head_top": 0.16, "l_hip": 0.17,
         "r_hip": 0.17, "l_shoulder": 0.13, "r_shoulder": 0.13, "nose": 0.06, "l_eye": 0.06, "r_eye": 0.06,
         "l_ear": 0.07, "r_ear": 0.07}  # fmt: skip
COVERED = 0.10


class Framing(NamedTuple):
    """How the frame is laid around the person; the knobs of `Figures` of the same names."""

    truncation: float
    shift: float
    offset: tuple[float, float]
    height: tuple[float, float]


def set_up(
    keys: Int[Tensor, " B"], joints: Float[Tensor, "B N 3"], back: float, framing: Framing
) -> tuple[Float[Tensor, "B N 3"], View]:
    """Turn the person (body frame -> world, metres), put up a camera and frame the picture.

    The world's y points up and the camera looks along -z. The picture is a crop: its middle is not the optical axis.
    """
    d = Dice(keys, "turn")
    behind = d.chance(back)
    yaw = (d.uniform(2).mean(-1) * 2 - 1) * 75 + torch.where(behind, 180.0, 0.0)
    joints = times(turn(1, yaw).unsqueeze(1), joints)
    d = Dice(keys, "camera")
    distance, level = d.one(3.2, 6.5), d.one(0.7, 2.2)
    pitch = torch.rad2deg(torch.atan2(level - 0.95, distance)) + d.one(-3, 3)
    position = torch.stack([d.one(-0.2, 0.2), level, distance], -1)
    # rows of the camera at rest: right, down, forward = x, -y, -z of the world
    rest = torch.tensor([1.0, -1.0, -1.0])
    roll = d.one(-3, 3)
    rotation = turn(2, roll) @ (rest[:, None] * turn(0, pitch))
    n = len(keys)
    view = View(rotation, position, torch.ones(n), torch.zeros(n, 2))
    flat = view.project(view.frame(joints))
    low, high = flat.amin(1), flat.amax(1)
    d = Dice(keys, "place in the frame")
    longest = (high - low).amax(-1)
    share = d.one(*framing.height)
    cut = d.chance(framing.truncation)
    share = torch.where(cut, share * d.one(1.3, 2.0), share)
    focal = 2 * share / longest
    extent = (high - low) * (share / longest).unsqueeze(-1)
    room = (0.5 - 0.5 * extent - 0.04).clamp_min(0)
    middle = torch.tensor(framing.offset) + framing.shift * d.uniform(2, -1, 1)
    inside = torch.minimum(torch.maximum(middle, -room), room)
    reach = 0.22 * extent * d.uniform(2, -1, 1)
    where = torch.where(cut.unsqueeze(-1), reach, inside)
    return joints, View(rotation, position, focal, 2 * where - focal.unsqueeze(-1) * (low + high) / 2)


def seen_joints(
    depth: Float[Tensor, "B S S"], flat: Float[Tensor, "B N 2"], z: Float[Tensor, "B N"]
) -> Bool[Tensor, "B N"]:
    """Which joints nothing covers: compare their depth with the nearest surface at their place."""
    size = depth.shape[-1]
    cell = to_pixels(flat, (size, size)).round().long()
    inside = ((cell >= 0) & (cell < size)).all(-1)
    cell = cell.clamp(0, size - 1)
    front = depth.flatten(1).gather(1, cell[..., 1] * size + cell[..., 0])
    slack = torch.tensor([COVER.get(j, COVERED) for j in FIGURE.joints], device=depth.device)
    return inside & (front > z - slack)
