"""FLIC in miniature: drawn stills and the same people in both forms of labels."""

from pathlib import Path
from typing import Any, NamedTuple

import drawing_fixture
import h5py
import numpy as np
from scipy.io import savemat

from coordreg.data.flic import FLIC11

WIDTH, HEIGHT = 720, 480
#: The 11 joints as examples.mat numbers its parts, written out.
PARTS = [0, 1, 2, 3, 4, 5, 6, 9, 12, 13, 16]
#: Left and right exchanged, joint by joint.
OTHER = [3, 4, 5, 0, 1, 2, 7, 6, 9, 8, 10]
#: Shoulder, elbow, wrist, hip and eye of somebody's left side who faces us, and the nose; pixels about the torso.
POSE = np.array([[30, -40], [48, 10], [40, 45], [25, 40], [8, -75], [-1, -68]], float)


class Truth(NamedTuple):
    """Person-centric, from 1: names (N), joints (N, 11, 2), labelled (N, 11), box (N, 4) of the torso, behind (N,)."""

    names: list[str]
    joints: np.ndarray
    labelled: np.ndarray
    box: np.ndarray
    behind: np.ndarray


def people(count: int, movie: str, seed: int) -> Truth:
    """`count` people, two a still; of three the second is seen from behind, of four the second lacks a wrist."""
    rng = np.random.default_rng(seed)
    middle = np.stack([rng.uniform(150, 560, count), rng.uniform(180, 300, count)], -1)
    side = POSE[:5] + rng.uniform(-9, 9, (count, 5, 2))
    across = POSE[:5] * [-1, 1] + rng.uniform(-9, 9, (count, 5, 2))
    nose = POSE[5] + rng.uniform(-9, 9, (count, 1, 2))
    joints = np.concatenate(
        [side[:, :3], across[:, :3], side[:, 3:4], across[:, 3:4], side[:, 4:], across[:, 4:], nose], 1
    )
    behind = np.arange(count) % 3 == 1
    joints = np.where(behind[:, None, None], joints[:, OTHER], joints) * rng.uniform(0.8, 1.4, (count, 1, 1))
    labelled = np.ones((count, 11), bool)
    labelled[1::4, 2] = False
    box = np.concatenate([middle - rng.uniform(20, 50, (count, 2)), middle + rng.uniform(20, 50, (count, 2))], -1)
    names = [f"{movie}-{10 * (i // 2) + 1:08d}.jpg" for i in range(count)]
    return Truth(names, joints + middle[:, None], labelled, box, behind)


def torso(truth: Truth) -> np.ndarray:
    """From the right shoulder to the left hip, (N,)."""
    return np.hypot(*(truth.joints[:, 3] - truth.joints[:, 6]).T)


def seen(truth: Truth, centric: str) -> tuple[np.ndarray, np.ndarray]:
    """Joints and which are labelled, "person"-centric or by the "observer"."""
    swap = truth.behind & (centric == "observer")
    joints = np.where(swap[:, None, None], truth.joints[:, OTHER], truth.joints)
    return joints, np.where(swap[:, None], truth.labelled[:, OTHER], truth.labelled)


def draw(folder: Path, truth: Truth) -> None:
    """Grey bones on black; the nose of each still's first person is a soft white dot."""
    drawing_fixture.draw(folder, truth, FLIC11.bones, 10, (WIDTH, HEIGHT), width=3, spread=6.0)


def write_h5(path: Path, truth: Truth, centric: str) -> None:
    """The hourglass's arrays: no box, the centre at half the height; a joint without a label is at (0, 0)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    joints, labelled = seen(truth, centric)
    with h5py.File(path, "w") as file:
        file["imgname"] = np.array([name.encode() for name in truth.names])
        centre = np.stack([(truth.box[:, 0] + truth.box[:, 2]) / 2, np.full(len(joints), HEIGHT / 2)], -1)
        file["center"] = centre.astype(np.float32)
        file["scale"] = np.full(len(joints), 2.2)
        file["part"] = np.where(labelled[..., None], joints, 0)
        file["visible"] = labelled.astype(float)
        file["normalize"] = torso(truth)
        file["index"] = np.arange(len(joints))


def example(truth: Truth, i: int, split: str) -> dict[str, Any]:
    """One structure of examples.mat: 29 parts, NaN where unlabelled."""
    coords = np.full((2, 29), np.nan)
    for j in np.flatnonzero(truth.labelled[i]):
        coords[:, PARTS[j]] = truth.joints[i, j]
    movie, frame = truth.names[i].removesuffix(".jpg").rsplit("-", 1)
    return {
        **{"poselet_hit_idx": np.arange(1.0, 3 + i), "moviename": movie, "coords": coords},
        **{"filepath": truth.names[i], "imgdims": np.array([[HEIGHT, WIDTH, 3]], float), "currframe": float(frame)},
        **{
            "torsobox": truth.box[i : i + 1],
            "istrain": np.uint8(split == "train"),
            "istest": np.uint8(split == "test"),
        },
    }


def write_mat(path: Path, examples: list[dict[str, Any]]) -> None:
    """The structure array `examples`, with the fields of the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.empty((1, len(examples)), dtype=[(name, object) for name in examples[0]])
    for i, fields in enumerate(examples):
        for name in examples[0]:
            array[name][0, i] = fields[name]
    savemat(path, {"examples": array})


def write(root: Path, count: int, held: int = 4, seed: int = 0) -> tuple[Truth, Truth]:
    """Write a data set of `count` people to train on and `held` to test on, in both forms; return both."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "FIXTURE").write_text("drawn stills and invented labels\n")
    train, test = people(count, "a-drawn-film", seed), people(held, "another-2", seed + 1)
    for split, truth in (("train", train), ("valid", test)):
        draw(root / "images", truth)
        for centric, end in (("observer", ""), ("person", "_personcentric")):
            write_h5(root / "annot" / f"{split}{end}.h5", truth, centric)
    rows = [("train", train, i) for i in range(count)] + [("test", test, i) for i in range(held)]
    rows.sort(key=lambda row: row[2])  # the official file mixes the two splits as well
    write_mat(root / "examples.mat", [example(truth, i, split) for split, truth, i in rows])
    return train, test
