"""BVH, the motion capture format of Biovision: a hierarchy of joints with offsets, and a row of numbers a frame.

A joint's turn is the product of its channels in their order, the first outermost (Zrotation Yrotation Xrotation is
Rz Ry Rx), in degrees; positions add to OFFSET. The format names no unit; `UNIT` is that of the CMU files.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from coordreg.data.poses import turn

#: Metres a unit of the CMU files: an inch over 0.45.
UNIT = 0.0254 / 0.45
#: Channels and the axis they are about.
_TURNS = {"Xrotation": 0, "Yrotation": 1, "Zrotation": 2}
_MOVES = {"Xposition": 0, "Yposition": 1, "Zposition": 2}


class Motion(NamedTuple):
    """A BVH file. N joints, parents before children, end sites among them as "<parent> end"; angles in degrees.

    parents: -1 for a root. offsets: (N, 3) from the parent, file units. channels: names by joint, in the order in which
    they apply. frames: (T, C) numbers, joint after joint. frame_time: seconds.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: Float[Tensor, "N 3"]
    channels: tuple[tuple[str, ...], ...]
    frames: Float[Tensor, "T C"]
    frame_time: float


# -- reading ----------------------------------------------------------------------------------------------------------


def _numbers(words: Sequence[str], count: int, what: str) -> list[float]:
    try:
        values = [float(w) for w in words]
    except ValueError as error:
        raise ValueError(f"read_bvh: {what}: {error}, expected {count} numbers") from None
    if len(values) != count or not np.isfinite(values).all():
        raise ValueError(f"read_bvh: {what} has {len(values)} numbers, expected {count} finite ones")
    return values


def read_bvh(path: Path) -> Motion:
    """Read a BVH file. Raises ValueError for anything but a whole one, saying which line, joint or frame is wrong."""
    hierarchy, *rest = re.split(r"^\s*MOTION\s*$", Path(path).read_text(errors="replace"), maxsplit=1, flags=re.M)
    if not rest:
        raise ValueError(f"read_bvh: {path} has no line MOTION, expected HIERARCHY and MOTION; is it cut short?")
    names, parents, offsets, channels = _hierarchy(hierarchy, path)
    count = sum(map(len, channels))
    head = re.match(r"\s*Frames:\s*(\d+)\s+Frame\s+Time:\s*(\S+)[ \t]*(?:\n|$)", rest[0])
    if head is None:
        raise ValueError(
            f"read_bvh: {path}: after MOTION came {rest[0][:40].split()}, expected Frames: and Frame Time:"
        )
    frame_time = _numbers([head[2]], 1, f"{path}: Frame Time")[0]
    rows = [row for row in (line.split() for line in rest[0][head.end() :].splitlines()) if row]
    for i, row in enumerate(rows):
        if len(row) != count:
            raise ValueError(
                f"read_bvh: {path}: frame {i} of {head[1]} has {len(row)} numbers, expected {count}, one a channel; "
                "the file is cut short or damaged, fetch it again"
            )
    if len(rows) != int(head[1]):
        raise ValueError(
            f"read_bvh: {path} promises {head[1]} frames and holds {len(rows)}; it is cut short or damaged, "
            "fetch it again"
        )
    values = [_numbers(row, count, f"{path}: frame {i}") for i, row in enumerate(rows)]
    frames = torch.tensor(values, dtype=torch.float64).view(len(rows), count)
    return Motion(names, parents, torch.tensor(offsets, dtype=torch.float64), channels, frames, frame_time)


def _hierarchy(
    text: str, path: Path
) -> tuple[tuple[str, ...], tuple[int, ...], list[list[float]], tuple[tuple[str, ...], ...]]:
    words = text.split()
    if words[:1] != ["HIERARCHY"]:
        raise ValueError(f"read_bvh: {path} begins with {words[:1]}, expected HIERARCHY; it is no BVH file")
    names: list[str] = []
    parents: list[int] = []
    offsets: list[list[float]] = []
    channels: list[tuple[str, ...]] = []
    above: list[int] = []
    i = 1
    while i < len(words):
        word = words[i]
        if word in ("ROOT", "JOINT", "End") and "{" in words[i:]:
            brace = words.index("{", i)
            name = f"{names[above[-1]]} end" if word == "End" and above else " ".join(words[i + 1 : brace])
            if word != "End" and name in names:
                raise ValueError(f"read_bvh: {path} has two joints {name!r}, expected each name once")
            parents.append(above[-1] if above else -1)
            above.append(len(names))
            names.append(name)
            offsets.append([0.0, 0.0, 0.0])
            channels.append(())
            i = brace + 1
        elif word == "OFFSET" and above:
            offsets[above[-1]] = _numbers(words[i + 1 : i + 4], 3, f"{path}: OFFSET of {names[above[-1]]}")
            i += 4
        elif word == "CHANNELS" and above and words[i + 1 : i + 2] and words[i + 1].isdigit():
            end = i + 2 + int(words[i + 1])
            for channel in words[i + 2 : end]:
                if channel not in _TURNS and channel not in _MOVES:
                    raise ValueError(
                        f"read_bvh: {path}: {names[above[-1]]} has the channel {channel!r}, expected "
                        f"{words[i + 1]} of {', '.join([*_MOVES, *_TURNS])}"
                    )
            channels[above[-1]] = tuple(words[i + 2 : end])
            i = end
        elif word == "}" and above:
            above.pop()
            i += 1
        else:
            raise ValueError(f"read_bvh: {path}: the hierarchy has {word!r} after {words[max(0, i - 3) : i]}")
    if above or not names:
        raise ValueError(f"read_bvh: {path}: the hierarchy ends inside {[names[j] for j in above]}, expected every }}")
    return tuple(names), tuple(parents), offsets, tuple(channels)


# -- kinematics -------------------------------------------------------------------------------------------------------


def kinematics(motion: Motion) -> tuple[Float[Tensor, "T N 3"], Float[Tensor, "T N 3 3"]]:
    """Positions (T, N, 3) in file units and the joints' turns in the world (T, N, 3, 3)."""
    places: list[Tensor] = []
    turns: list[Tensor] = []
    eye = torch.eye(3, dtype=torch.float64).expand(len(motion.frames), 3, 3)
    column = 0
    for parent, offset, channels in zip(motion.parents, motion.offsets, motion.channels, strict=True):
        step, local = offset.expand(len(eye), 3).clone(), eye
        for channel in channels:
            value = motion.frames[:, column]
            column += 1
            if channel in _TURNS:
                local = local @ turn(_TURNS[channel], value)
            else:
                step[:, _MOVES[channel]] += value
        places.append(step if parent < 0 else places[parent] + (turns[parent] @ step.unsqueeze(-1)).squeeze(-1))
        turns.append(local if parent < 0 else turns[parent] @ local)
    return torch.stack(places, 1), torch.stack(turns, 1)


def forward(motion: Motion, scale: float = UNIT) -> Float[Tensor, "T N 3"]:
    """Forward kinematics: where the joints are in the file's world, in metres if `scale` is a unit's length."""
    return scale * kinematics(motion)[0]
