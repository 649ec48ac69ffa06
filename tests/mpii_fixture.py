"""MPII in miniature: drawn pictures and the same people in all three forms of labels."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import drawing_fixture
import h5py
import numpy as np
from scipy.io import savemat

from coordreg.data.skeletons import MPII16

WIDTH, HEIGHT = 320, 240


class Truth(NamedTuple):
    """As annotated, from 1: names (N), centre (N, 2), scale (N,), joints (N, 16, 2), labelled and visible (N, 16)."""

    names: list[str]
    centre: np.ndarray
    scale: np.ndarray
    joints: np.ndarray
    labelled: np.ndarray
    visible: np.ndarray


def people(count: int, first: int, seed: int) -> Truth:
    """`count` people, two a picture, the pictures numbered from `first`; joint 2 of every third one is missing."""
    rng = np.random.default_rng(seed)
    centre = np.stack([rng.integers(100, 220, count), rng.integers(90, 140, count)], -1).astype(float)
    joints = centre[:, None] + rng.uniform(-45, 45, (count, 16, 2)).round(3)
    labelled, visible = np.ones((count, 16), bool), rng.random((count, 16)) < 0.7
    labelled[::3, 2] = False
    visible[:, 8:10] = True  # the official file never says so of neck and head top
    names = [f"{first + i // 2:09d}.jpg" for i in range(count)]
    return Truth(names, centre, rng.uniform(0.4, 0.6, count), joints, labelled, visible & labelled)


def draw(folder: Path, truth: Truth) -> None:
    """Grey bones on black; the head top of each picture's first person is a soft white dot."""
    drawing_fixture.draw(folder, truth, MPII16.bones, 9, (WIDTH, HEIGHT))


def write_json(path: Path, truth: Truth) -> None:
    """HRNet's list; a missing joint is at (-1, -1)."""
    rows = [
        {
            "image": name,
            "center": truth.centre[i].tolist(),
            "scale": float(truth.scale[i]),
            "joints": np.where(truth.labelled[i, :, None], truth.joints[i], -1).tolist(),
            "joints_vis": truth.labelled[i].astype(int).tolist(),
        }
        for i, name in enumerate(truth.names)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))


def write_h5(path: Path, truth: Truth) -> None:
    """The hourglass's arrays, adjusted; a missing joint is at (0, 0)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["imgname"] = np.array([name.encode() for name in truth.names])
        file["center"] = truth.centre + np.stack([0 * truth.scale, 15 * truth.scale], -1)
        file["scale"] = 1.25 * truth.scale
        file["part"] = np.where(truth.labelled[..., None], truth.joints, 0)
        file["visible"] = truth.visible.astype(float)
        file["normalize"] = 25 * truth.scale


def struct(rows: Sequence[dict[str, Any]]) -> np.ndarray:
    """MATLAB's structure array: fields that a row lacks are there, but empty."""
    fields = sorted({name for row in rows for name in row})
    array = np.empty((1, len(rows)), dtype=[(name, object) for name in fields])
    for i, row in enumerate(rows):
        for name in fields:
            array[name][0, i] = row.get(name, np.zeros((0, 0)))
    return array


def rect(truth: Truth, i: int) -> dict[str, Any]:
    """One annorect; how visibility is written changes from person to person, and ids 8 and 9 never have it."""
    points = []
    for j in np.flatnonzero(truth.labelled[i]):
        flag = int(truth.visible[i, j])
        written: Any = np.zeros((0, 0)) if j in (8, 9) else str(flag) if i % 2 else np.uint8(flag)
        x, y = truth.joints[i, j].tolist()
        points.append({"x": x, "y": y, "id": float(j), "is_visible": written})
    diagonal = 25 * truth.scale[i] / 0.6
    x, y = truth.centre[i].tolist()
    return {
        **{"x1": 50.0, "y1": 40.0, "x2": 50 + 0.6 * diagonal, "y2": 40 + 0.8 * diagonal},
        "scale": float(truth.scale[i]),
        "objpos": {"x": x, "y": y},
        "annopoints": {"point": struct(points)},
    }


def write_mat(path: Path, pictures: Sequence[tuple[str, Any, int]]) -> None:
    """RELEASE of (file name, annorect: a list of dicts or anything else, img_train)."""
    rows = [
        {"image": {"name": name}, "annorect": struct(rects) if isinstance(rects, list) and rects else np.zeros((0, 0))}
        for name, rects, _ in pictures
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    train = np.array([[used for *_, used in pictures]], np.uint8)
    savemat(path, {"RELEASE": {"annolist": struct(rows), "img_train": train}})


def pictures(truth: Truth) -> list[tuple[str, Any, int]]:
    """What `write_mat` wants of these people."""
    return [
        (name, [rect(truth, i) for i, other in enumerate(truth.names) if other == name], 1)
        for name in dict.fromkeys(truth.names)
    ]


def write(root: Path, count: int, held: int = 4, seed: int = 0) -> tuple[Truth, Truth]:
    """Write a data set of `count` people to train on and `held` to test on, in all three forms; return both."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "FIXTURE").write_text("drawn pictures and invented labels\n")
    train, valid = people(count, 1, seed), people(held, 1 + count, seed + 1)
    for split, truth in (("train", train), ("valid", valid)):
        draw(root / "images", truth)
        write_json(root / "annot" / f"{split}.json", truth)
        write_h5(root / "annot" / f"{split}.h5", truth)
    mat = root / "mpii_human_pose_v1_u12_2" / "mpii_human_pose_v1_u12_1.mat"
    write_mat(mat, [*pictures(train), ("099999999.jpg", [], 0), *pictures(valid)])
    return train, valid
