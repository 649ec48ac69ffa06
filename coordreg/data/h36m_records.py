"""Human3.6M, whatever format it came in: one table of frames, the names of its sequences, its 17 joints."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from coordreg.data.cameras import CAMERAS

HOME = "http://vision.imar.ro/human3.6m/ (an account is needed; nothing is downloaded for you)"
#: The 17 joints in common use among the 32 of the motion capture, in the order of `skeletons.H36M17`.
JOINTS = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)
#: Actions 2 to 16 (1 is the calibration) by their official names.
ACTIONS = (
    "Directions", "Discussion", "Eating", "Greeting", "Phoning", "Posing", "Purchases", "Sitting", "SittingDown",
    "Smoking", "TakingPhoto", "Waiting", "Walking", "WalkingDog", "WalkTogether",
)  # fmt: skip
_ALIASES = {"Photo": "TakingPhoto", "WalkDog": "WalkingDog", "WalkingTogether": "WalkTogether"}
#: What follows the action's name in the first and second take of a subject, where it is not "1" and nothing.
_TAKES: Mapping[tuple[int, int], tuple[str, str]] = {
    (5, 2): ("1", "2"), (5, 3): ("2", "3"), (9, 3): ("1", "2"), (11, 3): ("1", "2"), (1, 4): ("2", ""),
    (6, 4): ("1", "2"), (5, 5): ("1", "2"), (11, 5): ("2", ""), (7, 6): ("2", ""), (11, 6): ("3", "2"),
    (6, 7): ("2", ""), (1, 9): ("1", "2"), (6, 9): ("1", "2"), (1, 10): ("2", ""), (5, 10): ("", "1"),
    (7, 10): ("", "1"), (8, 10): ("", "1"), (9, 10): ("", "1"), (11, 10): ("", "1"), (11, 11): ("2", ""),
    (5, 12): ("", "2"), (6, 12): ("", "1"), (7, 12): ("", "1"), (5, 13): ("1", "2"), (6, 13): ("3", ""),
    (7, 13): ("1", "2"), (7, 14): ("1", "2"), (8, 16): ("1", "2"),
}  # fmt: skip
#: (subject, action, take, camera) whose video is damaged: "Directions" of S11, s_11_act_02_subact_02_ca_01.
GAPS = {(11, 2, 2, CAMERAS[0])}
#: A root's distance from the camera in mm; in the set it is 3 to 8 m.
NEAR, FAR = 500.0, 50_000.0


class Records(NamedTuple):
    """N frames of one person each.

    subject, action (2 to 16), take (1, 2), camera (official number), frame (from 0): (N,). paths: N image files, None
    where the format has none. joints: (N, 17, 3) in the camera's frame, mm. pixels: (N, 17, 2) as the format states
    them, else projected without distortion. focal, centre: (N, 2) index pixels. skipped: reason -> frames left out.
    """

    subject: Int[np.ndarray, " N"]
    action: Int[np.ndarray, " N"]
    take: Int[np.ndarray, " N"]
    camera: Int[np.ndarray, " N"]
    frame: Int[np.ndarray, " N"]
    paths: list[Path | None]
    joints: Float[np.ndarray, "N 17 3"]
    pixels: Float[np.ndarray, "N 17 2"]
    focal: Float[np.ndarray, "N 2"]
    centre: Float[np.ndarray, "N 2"]
    skipped: dict[str, int]

    def choose(self, rows: NDArray[Any]) -> "Records":
        """The frames with these numbers."""
        columns = {k: v[rows] for k, v in self._asdict().items() if isinstance(v, np.ndarray)}
        return self._replace(paths=[self.paths[int(i)] for i in rows], **columns)


def parse_sequence(name: str, subject: int) -> tuple[int, int]:
    """A sequence's official name such as "SittingDown 1" -> (action, take). Raises ValueError for another."""
    word, _, suffix = name.replace("_", " ").partition(" ")
    word = _ALIASES.get(word, word)
    if word in ACTIONS:
        action = ACTIONS.index(word) + 2
        takes = _TAKES.get((subject, action), ("1", ""))
        if suffix in takes:
            return action, takes.index(suffix) + 1
    raise ValueError(
        f"Human3.6M: got the sequence {name!r} of S{subject}, expected one of {', '.join(ACTIONS)} with its number"
    )


@dataclass
class Table:
    """A table under construction: blocks of frames of one sequence and camera, and what was left out of them."""

    form: str
    source: Path
    every: int
    blocks: list[dict[str, Any]] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def add(
        self,
        sequence: tuple[int, int, int, int],
        frames: Any,
        joints: NDArray[Any],
        f: NDArray[Any],
        c: NDArray[Any],
        pixels: NDArray[Any] | None = None,
        paths: Sequence[Path] | None = None,
    ) -> None:
        """Frames of (subject, action, take, camera); joints (n, 17, 3) in mm in the camera's frame."""
        frames = np.asarray(frames, dtype=np.int64)
        joints = np.asarray(joints, dtype=np.float64)
        where = "S{} action {} take {} camera {}".format(*sequence)
        if joints.shape != (len(frames), 17, 3):
            raise ValueError(
                f"Human3.6M: {self.source} has {joints.shape[1] if joints.ndim == 3 else joints.shape} joints for "
                f"{len(frames)} frames of {where}, expected 17 of 3 coordinates (of 32, the 17 are picked here)"
            )
        keep = frames % self.every == 0
        if sequence in GAPS:
            self.skipped["known gap"] += int(keep.sum())
            return
        finite = np.isfinite(joints).all((1, 2)) & (True if pixels is None else np.isfinite(pixels).all((1, 2)))
        self.skipped["not finite"] += int((keep & ~finite).sum())
        rows = np.flatnonzero(keep & finite)
        if not len(rows):
            return
        joints, depth = joints[rows], joints[rows, 0, 2]
        if depth.min() < NEAR or depth.max() > FAR:
            raise ValueError(
                f"Human3.6M: in {self.source}, {where}, the pelvis is {depth.min():g} to {depth.max():g} mm from the "
                f"camera, expected {NEAR:g} to {FAR:g}; the form {self.form!r} has another unit or frame of reference"
            )
        numbers = dict(zip(("subject", "action", "take", "camera"), sequence, strict=True))
        self.blocks.append({k: np.full(len(rows), v, dtype=np.int64) for k, v in numbers.items()})
        self.blocks[-1] |= {
            "frame": frames[rows],
            "joints": joints,
            "pixels": joints[..., :2] / joints[..., 2:] * f + c
            if pixels is None
            else np.asarray(pixels, np.float64)[rows],
            "focal": np.broadcast_to(np.asarray(f, np.float64), (len(rows), 2)),
            "centre": np.broadcast_to(np.asarray(c, np.float64), (len(rows), 2)),
            "paths": [None if paths is None else paths[int(i)] for i in rows],
        }

    def done(self) -> Records:
        """All blocks as one table."""
        if not self.blocks:
            raise ValueError(f"Human3.6M: {self.source} has no frame that was asked for (every {self.every}th)")
        columns: dict[str, Any] = {
            k: np.concatenate([b[k] for b in self.blocks]) for k in self.blocks[0] if k != "paths"
        }
        columns["paths"] = [path for b in self.blocks for path in b["paths"]]
        return Records(**columns, skipped={k: v for k, v in self.skipped.items() if v})


def need(path: Path) -> Path:
    """The path itself, of a file or a folder. ValueError, with where the set is got from, if it is not there."""
    if not path.exists():
        raise ValueError(f"Human3.6M: {path} is not there; the set is got from {HOME}, see `Human36M` for the forms")
    return path


def pick(joints: NDArray[Any], source: Path) -> NDArray[Any]:
    """(..., 32, d) -> (..., 17, d)."""
    if joints.ndim != 3 or joints.shape[1] != 32:
        raise ValueError(
            f"Human3.6M: {source} has poses of shape {joints.shape}, expected (frames, 32, coordinates): the 32 joints "
            "of the motion capture, before any are taken out"
        )
    return joints[:, list(JOINTS)]


def with_images(records: Records) -> Records:
    """The frames whose image file is there; the others are counted in `skipped`."""
    folders: dict[Path, set[str]] = {}

    def there(path: Path | None) -> bool:
        if path is None:
            return False
        if path.parent not in folders:
            folders[path.parent] = set(os.listdir(path.parent)) if path.parent.is_dir() else set()
        return path.name in folders[path.parent]

    kept = np.array([there(path) for path in records.paths], dtype=bool)
    absent = {"no image": int((~kept).sum())} if not kept.all() else {}
    return records.choose(np.flatnonzero(kept))._replace(skipped=records.skipped | absent)
