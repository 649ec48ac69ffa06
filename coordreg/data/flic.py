"""FLIC, frames labelled in cinema: 5,003 people in 4,552 film stills, 11 joints of the upper body, errors by the torso.

`flic_formats` reads the labels and says whose left is left.

Torso point. What the set gives at test time, since a still may show several people: the middle of the box that a
detector found. It becomes the batch's hint. The h5 files hold only its x; its y is then TORSO_Y for everybody.

Frames. 720 x 480 px, 3:2. Tompson et al. halve them, which is 360 x 240, and call their input 320 x 240 elsewhere. Our
default is the whole frame in 320 x 240 with its shape kept, black above and below (view "frame"); "cut" is 320 x 240 at
exactly one half, 40 px of the still lost on either side and 0.4% of the joints with them; size=(240, 360) is both.
"torso" is the crop of the h5 files: 2.2 * 200 px about the torso, at half the height of the still.

Sources: Sapp and Taskar, CVPR 2013; Newell et al., ECCV 2016 (crop); Tompson et al., CVPR 2015 (input).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from coordreg.coords import Batch, Labels, apply_affine, crop_affine, invert_affine
from coordreg.data.augment import Augment
from coordreg.data.coco import Window
from coordreg.data.flic_formats import FILES, FLIC11, HOME, People, behind, observer, read
from coordreg.data.pack import canvas_size, cut, key, locate, pack_crops, pack_path, present, read_picture
from coordreg.data.store import Augment as Augmentation
from coordreg.data.store import Store

VIEWS = ("frame", "cut", "torso")
#: The side of the crop about a torso.
CROP = 2.2 * 200
#: The height of the shoulders' and hips' middle, on average over the training labels (deviation 42 px), from 0.
TORSO_Y = 255.4
_AT = {name: j for j, name in enumerate(FLIC11.joints)}


# -- statistics of the labels -----------------------------------------------------------------------------------------


def place(people: People, name: str) -> Float[np.ndarray, "N 2"]:
    """Where a joint is, or the "torso", the middle of the labelled shoulders and hips; index pixels, NaN unlabelled."""
    if name == "torso":
        four = [_AT[joint] for joint in ("l_shoulder", "r_shoulder", "l_hip", "r_hip")]
        return np.asarray(people.joints[:, four].mean(1))
    if name not in _AT:
        raise ValueError(f"FLIC: got the joint {name!r}, expected torso or one of {', '.join(FLIC11.joints)}")
    return np.asarray(people.joints[:, _AT[name]])


def displacements(people: People, joint: str, given: str, unit: float | None = None) -> Float[np.ndarray, "M 2"]:
    """`joint` minus `given` for all who have both, in each person's torso lengths, or in units of `unit` px."""
    if unit is not None and unit <= 0:
        raise ValueError(f"displacements: got unit={unit}, expected px above 0, or None for the torso's length")
    apart = (place(people, joint) - place(people, given)) / (people.torso[:, None] if unit is None else unit)
    return np.asarray(apart[np.isfinite(apart).all(-1)])


def histogram(points: Float[np.ndarray, "M 2"], bins: int = 61, reach: float = 2.0) -> Float[np.ndarray, "bins bins"]:
    """The share of the displacements in each cell: rows are y from -reach to reach, columns x, cells equally wide.

    An odd number of bins has a cell about 0. What lies beyond the reach is in no cell, and the sum is then below 1.
    """
    if bins < 1 or reach <= 0 or not len(points):
        raise ValueError(
            f"histogram: got {len(points)} displacements, bins={bins}, reach={reach}, expected at least one of each"
        )
    span = (-reach, reach)
    counts, _, _ = np.histogram2d(points[:, 1], points[:, 0], bins=(bins, bins), range=(span, span))
    return np.asarray(counts / len(points))


def statistics(people: People) -> dict[str, Any]:
    """What a chapter says of the labels.

    people, stills, shared (stills with several labelled people), behind (seen from behind; 0 of observer-centric
    labels), outside (labelled joints beyond the still), torso (5, 50 and 95% of the lengths, px), and spread: for each
    joint the mean and the standard deviation (x, y) of its displacement from the torso, in torso lengths.
    """
    stills, counts = np.unique(people.names, return_counts=True)
    edge = (people.joints < -0.5) | (people.joints > people.frame[:, None] - 0.5)
    apart = {name: displacements(people, name, "torso") for name in FLIC11.joints}
    return {
        "people": len(people.names),
        "stills": len(stills),
        "shared": int((counts > 1).sum()),
        "behind": int(behind(people.joints).sum()),
        "outside": int(edge.any(-1).sum()),
        "torso": [float(v) for v in np.percentile(people.torso, [5, 50, 95])],
        "spread": {name: (d.mean(0).tolist(), d.std(0).tolist()) for name, d in apart.items()},
    }


# -- data set ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class FLICStore(Store):
    """A store whose hint goes through the augmentation too, as one more joint, so that it stays on the person."""

    def batch(self, index: Int[Tensor, " B"], generator: torch.Generator | None = None) -> Batch:
        """As `Store.batch`; a hint that the augmentation moves out of the picture is beyond [-1, 1]."""
        if generator is None or self.augment is None or self.hint is None:
            return super().batch(index, generator)
        plain = super().batch(index)
        assert plain.hint is not None
        more = torch.cat([plain.labels.coords, plain.hint.unsqueeze(1)], 1)
        weight = torch.cat([plain.labels.weight, torch.ones_like(plain.hint).unsqueeze(1)], 1)
        seen = torch.cat([plain.visible, torch.ones_like(plain.visible[:, :1])], 1)
        images, (coords, weight), seen = self.augment(plain.images, Labels(more, weight), seen, generator)
        labels = Labels(coords[:, :-1], weight[:, :-1])
        return plain._replace(images=images, labels=labels, visible=seen[:, :-1], hint=coords[:, -1])


@dataclass(frozen=True)
class FLIC:
    """FLIC as a data set: whole stills or crops about the torso, 11 joints, errors divided by the torso.

    root: the folder with images/ and the labels (see `pack.locate`). form: "mat" or "h5". split: "train" or "test".
    centric: "observer" or "person". size: (H, W) of what a network sees. view: "frame", "cut" or "torso", see above;
    the shape of things is kept in all of them. augment: for "train" only. canvas: with an augmentation, crops by "cut"
    and "torso" are stored larger, about canvas times the longer side of `size`, so that turning finds picture; beyond a
    whole still there is none to find. limit: the first so many people.
    """

    root: str = "flic"
    form: str = "mat"
    split: str = "train"
    centric: str = "observer"
    size: tuple[int, int] = (240, 320)
    view: str = "frame"
    augment: Augment | None = None
    canvas: float = 5 / 3
    limit: int | None = None

    def __post_init__(self) -> None:
        choices = {"form": FILES, "split": ("train", "test"), "centric": ("observer", "person"), "view": VIEWS}
        for name, known in choices.items():
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"FLIC: got {name}={value!r}, expected one of {list(known)}")
        if self.split == "test" and self.augment is not None:
            raise ValueError("FLIC: got an augmentation for the split 'test', expected none; augment 'train'")
        if self.augment is not None and self.augment.size is not None:
            raise ValueError(f"FLIC: got an Augment of size={self.augment.size}; leave it out, `size` here says it")
        if min(self.size) < 2 or (self.limit is not None and self.limit < 1):
            raise ValueError(
                f"FLIC: got size={self.size}, limit={self.limit}, expected (H, W) of at least 2 px and one person"
            )
        canvas_size(self.size, self.canvas)

    def rectangle(self, people: People) -> tuple[NDArray[Any], NDArray[Any]]:
        """What of each still the network sees: centre (N, 2) and sides (N, 2) as (width, height), in index pixels."""
        size = np.array(self.size[::-1], float)
        if self.view == "torso":  # the shorter side is 440 px
            return people.centre, np.tile(size * CROP / size.min(), (len(people.names), 1))
        each = people.frame / size
        pixel = each.max(-1) if self.view == "frame" else each.min(-1)
        return (people.frame - 1) / 2, pixel[:, None] * size

    def open(self, progress: bool = False) -> FLICStore:
        """Read the labels and cut the crops, or map those cut before (`pack.pack_path` says where).

        People whose still is not there are left out and counted in a warning. Raises FileNotFoundError if there are no
        labels or no stills at all, ValueError for damaged files and for stills that are not as large as the labels say.
        """
        root = locate(self.root)
        people = read(root, self.form, self.split, self.centric)
        get = f"FLIC.zip (300 MB) from {HOME} and unpack it so that images/ lies in {root}"
        people = people.take(present(people.names, root / "images", "FLIC", get))
        people = people.take(list(range(len(people.names)))[: self.limit])
        margin = self.augment is not None and self.view != "frame"
        size = canvas_size(self.size, self.canvas) if margin else self.size
        centre, sides = self.rectangle(people)
        sides = sides * np.array([size[1] / self.size[1], size[0] / self.size[0]])

        def make(i: int) -> NDArray[Any]:
            still = read_picture(root / "images" / people.names[i])
            if still.size != tuple(people.frame[i]):
                raise ValueError(
                    f"FLIC: {root / 'images' / people.names[i]} has {still.size[0]} x {still.size[1]} px, its labels "
                    f"are for {people.frame[i, 0]} x {people.frame[i, 1]}; take the stills of FLIC.zip as they are"
                )
            return cut(still, centre[i], sides[i], size)

        shape = (3, *size)
        name = f"flic-{self.split}-{size[0]}x{size[1]}-{key(people.names, centre, sides, shape)}"
        path = pack_path(root, name, len(centre), shape)
        images = pack_crops(path, len(centre), shape, make, progress)
        return self._store(images, people, centre, sides)

    def _store(self, images: Tensor, people: People, centre: NDArray[Any], sides: NDArray[Any]) -> FLICStore:
        affine = crop_affine(torch.from_numpy(centre), torch.from_numpy(sides))
        joints = torch.from_numpy(people.joints)
        point = np.where(np.isnan(people.point), [np.nan, TORSO_Y], people.point)
        into = invert_affine(affine)
        return FLICStore(
            images=images,
            coords=apply_affine(into, joints).float(),
            weight=(~joints.isnan()).float(),
            visible=torch.from_numpy(people.visible),
            normaliser=torch.from_numpy(people.torso).float(),
            affine=affine.float(),
            pairs=FLIC11.pairs,
            joints=FLIC11.joints,
            hint=apply_affine(into, torch.from_numpy(point).unsqueeze(1))[:, 0].float(),
            augment=self._augmentation(tuple(images.shape[-2:]) != self.size),
        )

    def _augmentation(self, margin: bool) -> Augmentation | None:
        """The augmentation, cutting the middle out of stored crops that have a margin."""
        if self.augment is None:
            return None
        square = self.size[0] == self.size[1]
        bound = self.augment.bind(FLIC11.pairs, self.size[0] if square else None)
        return Window(bound, self.size) if margin and not square else bound


__all__ = [
    "FLIC", "FLIC11", "FLICStore", "People", "behind", "displacements", "histogram", "observer", "place", "read",
    "statistics",
]  # fmt: skip
