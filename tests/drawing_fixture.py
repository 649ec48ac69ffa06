"""What the data sets in miniature share: how their pictures are drawn, and where there are photographs instead."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw
from real_data import real


class Labelled(Protocol):
    """People with the name of their picture (N), joints (N, J, 2) counted from 1, and which are labelled (N, J)."""

    @property
    def names(self) -> list[str]: ...
    @property
    def joints(self) -> np.ndarray: ...
    @property
    def labelled(self) -> np.ndarray: ...


def picture(
    joints: np.ndarray,
    labelled: np.ndarray,
    bones: Sequence[tuple[int, int]],
    marked: int,
    size: tuple[int, int],
    width: int = 2,
    spread: float = 3.0,
) -> Image.Image:
    """Grey bones of everybody on black; the joint `marked` of the first is a soft white dot. Index pixels; size (W, H).

    joints: (N, J, 2). labelled: (N, J). width: of a bone, in pixels. spread: sigma of the dot.
    """
    image = Image.new("L", size)
    for person, known in zip(joints, labelled, strict=True):
        for a, b in bones:
            if known[[a, b]].all():
                ImageDraw.Draw(image).line([(float(u), float(v)) for u, v in person[[a, b]]], fill=60, width=width)
    y, x = np.mgrid[: size[1], : size[0]]
    u, v = joints[0, marked]
    dot = 255 * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * spread**2))
    return Image.fromarray(np.maximum(np.asarray(image), dot).astype(np.uint8))


def draw(
    folder: Path,
    truth: Labelled,
    bones: Sequence[tuple[int, int]],
    marked: int,
    size: tuple[int, int],
    width: int = 2,
    spread: float = 3.0,
) -> None:
    """One `picture` for each name in `truth`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in dict.fromkeys(truth.names):
        rows = [i for i, other in enumerate(truth.names) if other == name]
        made = picture(truth.joints[rows] - 1, truth.labelled[rows], bones, marked, size, width, spread)
        made.save(folder / name, quality=95)


def link_mpii(folder: Path) -> None:
    """The four real people of MPII as a data set in `folder`, both its training and its validation split."""
    place = real("samples/mpii")
    (folder / "annot").mkdir(parents=True)
    (folder / "images").symlink_to(place / "images")
    for split in ("train", "valid"):
        shutil.copy(place / "annot" / "test_mpii.json", folder / "annot" / f"{split}.json")
