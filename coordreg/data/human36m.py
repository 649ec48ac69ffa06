"""Human3.6M: people in a laboratory before four cameras, 17 joints in three dimensions (chapter 5).

Crops. The box is a square of 2000 mm in the plane through the pelvis parallel to the image, seen by the camera: the
pelvis is at the middle of the crop and what lies 1000 mm to its left at its depth, at x = -1. A millimetre is as long
in x as in y, so that the box is a few pixels in a thousand from square. Depth is (Z - Z of the pelvis) / 1000 mm.

Labels are the joints' projections without the lens's distortion, in every format, which is what back-projection by f
and c undoes. The picture itself is bent, and not by little: of places within 1.5 m of the room's middle up to 1.8 m
high, half are off by more than 1.8 px of 1000 and a tenth by more than 7.7 px. Joints may lie outside the crop (a
raised hand does). Their weight stays 1 when tested, as in integral regression's own code; an augmentation that turns or
widens the crop gives them weight 0 in training, which that code does not.

Back-projection. To turn a prediction into millimetres takes the depth of the pelvis and the camera, and both are the
true ones here, as in the papers: their errors, MPJPE included, suppose that the distance of the person is known.

Memory. Every fifth frame of five subjects is about 312,000 crops: 61 GB at 256 px, 96 GB with the margin that
augmentation wants. They go into one file, are read as they are used, and stay on the host; `count` takes fewer.

Sources: Ionescu et al., PAMI 2014; the protocols and the box: Sun et al., ECCV 2018, section 5.3 and its code.
"""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from coordreg.coords import apply_affine
from coordreg.data import pack
from coordreg.data.augment import Augment
from coordreg.data.h36m_formats import READERS, read
from coordreg.data.h36m_records import HOME, Records, with_images
from coordreg.data.hosted import HostStore
from coordreg.data.skeletons import H36M17

#: Subjects that are trained on and tested on. Protocol 1 reports PA-MPJPE, protocol 2 MPJPE with the pelvises together.
PROTOCOLS = {1: {"train": (1, 5, 6, 7, 8, 9), "test": (11,)}, 2: {"train": (1, 5, 6, 7, 8), "test": (9, 11)}}
#: Every how many frames of the 50 a second; h36m-fetch has left out what hardly moves before we see it.
EVERY = {"train": 5, "test": 64}
#: Columns of tables 10 to 12 of Sun et al., for the actions 2 to 16.
COLUMNS = (
    "Dir.", "Dis.", "Eat", "Gre.", "Phon.", "Pose", "Pur.", "Sit", "SitD.", "Smo.", "Phot.", "Wait", "Walk", "WalkD.",
    "WalkP.",
)  # fmt: skip
#: A stored crop's side over the box's where it is to be augmented: see "Memory".
CANVAS = 5 / 4


class Meta(NamedTuple):
    """What back-projection needs. affine: (N, 3, 4) of the crops. focal, centre: (N, 2) px. depth: (N,) mm of the
    pelvis. half: mm that depth 1 stands for.
    """

    affine: Tensor
    focal: Tensor
    centre: Tensor
    depth: Tensor
    half: float


def to_camera_mm(points: Float[Tensor, "N J 3"], meta: Meta) -> Float[Tensor, "N J 3"]:
    """Normalised points of the crops -> millimetres in the camera's frame, in double precision.

    X = (u - c) Z / f with Z = depth of the pelvis + half z: the true depth of the pelvis and the true camera are used,
    as the papers do (3DMPPE, integral regression), so that an error in millimetres supposes both known.
    """
    points, affine = points.double(), meta.affine.to(points.device).double()
    focal, centre, depth = (v.to(points.device).double() for v in (meta.focal, meta.centre, meta.depth))
    if len(points) != len(depth):
        raise ValueError(f"to_camera_mm: got {len(points)} poses and what is known of {len(depth)}, expected equal")
    pixel = apply_affine(torch.cat([affine[:, :2, :2], affine[:, :2, 3:]], -1), points[..., :2])
    z = depth.unsqueeze(-1) + meta.half * points[..., 2]
    plane = (pixel - centre.unsqueeze(1)) / focal.unsqueeze(1)
    return torch.cat([plane * z.unsqueeze(-1), z.unsqueeze(-1)], -1)


def by_action(errors: Float[Tensor, " N"], action: Int[Tensor, " N"]) -> dict[str, float]:
    """The mean error of each action (2 to 16) by its printed column, absent ones left out; "Avg" is that of all frames.

    The last column of tables 10 and 11 (40.6, 49.6) is not the mean of their 15 others either (40.5, 49.7).
    """
    found = {name: errors[action == i + 2] for i, name in enumerate(COLUMNS)}
    return {name: float(e.mean()) for name, e in found.items() if len(e)} | {"Avg": float(errors.mean())}


@dataclass(frozen=True, eq=False)
class H36MStore(HostStore):
    """A `HostStore` that knows its millimetres.

    truth: (N, 17, 3) mm in the camera's frame. focal, centre: (N, 2) px. subject, action (2 to 16), take, camera,
    frame: (N,). half: mm that depth 1 stands for. skipped: reason and number of frames that were left out.
    """

    truth: Float[Tensor, "N J 3"] = field(kw_only=True)
    focal: Float[Tensor, "N 2"] = field(kw_only=True)
    centre: Float[Tensor, "N 2"] = field(kw_only=True)
    subject: Int[Tensor, " N"] = field(kw_only=True)
    action: Int[Tensor, " N"] = field(kw_only=True)
    take: Int[Tensor, " N"] = field(kw_only=True)
    camera: Int[Tensor, " N"] = field(kw_only=True)
    frame: Int[Tensor, " N"] = field(kw_only=True)
    half: float = field(kw_only=True)
    skipped: tuple[tuple[str, int], ...] = field(kw_only=True, default=())

    def meta(self, index: Int[Tensor, " B"] | None = None) -> Meta:
        """What `to_camera_mm` needs, of these images or of all."""
        columns = (self.affine, self.focal, self.centre, self.truth[:, 0, 2])
        affine, focal, centre, depth = (v if index is None else v[index.to(v.device)] for v in columns)
        return Meta(affine, focal, centre, depth, self.half)

    def to_mm(self, coords: Float[Tensor, "N J 3"]) -> Float[Tensor, "N J 3"]:
        """Points of all images in order -> mm in the camera's frame: `to_camera_mm` with this store's `meta`."""
        return to_camera_mm(coords, self.meta())


@dataclass(frozen=True)
class Human36M:
    """The set as it is used by the papers; `open()` gives an `H36MStore` of dims 3 and H36M17's joints.

    root: the folder of the files; None: $COORDREG_H36M, or data/human36m. form: 3dmppe, h36m-fetch or mmpose, see
    `h36m_formats` (videopose3d has no images: read it with `h36m_formats.read`). protocol: 1 or 2, see PROTOCOLS.
    split: train or test. every: frames whose number it divides, from 0; None: 64 for test, and for train 5, or all
    that h36m-fetch kept. size: px a side. augment: for train only. canvas: side of the stored crop over the box's
    where there is an augmentation. root_box: the box in mm; depth runs over half of it. count: so many frames, spread
    evenly over all. subjects: others than the protocol's, for partial copies.
    """

    root: str | Path | None = None
    form: str = "3dmppe"
    protocol: int = 2
    split: str = "train"
    every: int | None = None
    size: int = 256
    augment: Augment | None = None
    canvas: float | int = CANVAS
    root_box: float | int = 2000.0
    count: int | None = None
    subjects: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.form not in READERS:
            raise ValueError(f"Human36M: got form={self.form!r}, expected one of {', '.join(READERS)}")
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"Human36M: got protocol={self.protocol!r}, expected 1 or 2")
        if self.split not in EVERY:
            raise ValueError(f"Human36M: got split={self.split!r}, expected train or test")
        if self.split != "train" and self.augment is not None:
            raise ValueError("Human36M: got an augmentation for the split 'test', expected none; augment 'train'")
        if self.augment is not None and self.augment.size not in (None, self.size):
            raise ValueError(
                f"Human36M: got size={self.size} and an Augment of size={self.augment.size}; leave the latter out"
            )
        for name, least in (("size", 2), ("every", 1), ("count", 1), ("root_box", 100)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"Human36M: got {name}={value}, expected at least {least}")
        if self.subjects is not None and not self.subjects:
            raise ValueError("Human36M: got no subjects, expected some, or None for the protocol's")
        object.__setattr__(self, "root", None if self.root is None else str(self.root))
        object.__setattr__(self, "root_box", float(self.root_box))
        object.__setattr__(self, "canvas", float(self.canvas))
        pack.canvas_size((self.size, self.size), self.canvas)  # raises for a factor out of range

    @property
    def place(self) -> Path:
        """The folder the files are looked for in."""
        return Path(self.root or os.environ.get("COORDREG_H36M") or Path("data") / "human36m")

    @property
    def chosen(self) -> tuple[int, ...]:
        """The subjects of this split."""
        return self.subjects or PROTOCOLS[self.protocol][self.split]

    def records(self) -> Records:
        """The frames of this split that have an image; what is left out is counted in `skipped`."""
        train = 1 if self.form == "h36m-fetch" else EVERY["train"]
        every = self.every or (train if self.split == "train" else EVERY["test"])
        if self.form == "videopose3d":
            raise ValueError(
                "Human36M: got form='videopose3d', which has poses and no images, expected 3dmppe, h36m-fetch or "
                "mmpose; `h36m_formats.read(root, 'videopose3d', subjects)` gives its poses"
            )
        found = read(self.place, self.form, self.chosen, every)
        first, found = found.paths[0], with_images(found)
        if not found.paths:
            raise ValueError(
                f"Human36M: none of {found.skipped['no image']} images is there, the first is {first}; they are got "
                f"from {HOME}"
            )
        if self.count is None or self.count >= len(found.paths):
            return found
        return found.choose(np.arange(self.count) * len(found.paths) // self.count)

    def open(self) -> H36MStore:
        """Read the labels, cut the crops (or find them cut), and give both.

        The first time takes about 10 ms a picture and thread. More than 1 GiB of crops goes into a file under
        root/packs, where an interrupted run goes on. Raises ValueError for whatever is missing, with where to get it.
        """
        found = self.records()
        size = (self.size, self.size)
        out = size if self.augment is None else pack.canvas_size(size, self.canvas)
        middle, sides = boxes(found, float(self.root_box))
        stored = sides * (np.array(out[::-1]) / self.size)
        names = [os.path.relpath(str(path), self.place) for path in found.paths]
        name = f"h36m-{self.split}-{pack.key(self.form, names, middle, stored, out)}"
        shape = (3, *out)

        def make(i: int) -> NDArray[Any]:
            path = found.paths[i]
            assert path is not None
            return pack.cut(pack.read_picture(path), middle[i], stored[i], out)

        where = pack.pack_path(self.place, name, len(names), shape)
        images = pack.pack_crops(where, len(names), shape, make, progress=sys.stderr.isatty())

        half = float(self.root_box) / 2
        coords, affine = labels(found, middle, stored, half)
        flat = found.joints[..., :2] / found.joints[..., 2:] * found.focal[:, None] + found.centre[:, None]
        hip, shoulder = H36M17.joints.index("r_hip"), H36M17.joints.index("l_shoulder")
        torso = np.linalg.norm(flat[:, shoulder] - flat[:, hip], axis=-1)

        def tensor(values: NDArray[Any]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))

        return H36MStore(
            images=images,
            coords=tensor(coords),
            weight=torch.ones(coords.shape),
            visible=torch.ones(coords.shape[:2], dtype=torch.bool),
            normaliser=tensor(np.maximum(torso, 1.0)),
            affine=tensor(affine),
            pairs=H36M17.pairs,
            joints=H36M17.joints,
            augment=None if self.augment is None else self.augment.bind(H36M17.pairs, self.size),
            truth=tensor(found.joints),
            focal=tensor(found.focal),
            centre=tensor(found.centre),
            subject=torch.from_numpy(found.subject),
            action=torch.from_numpy(found.action),
            take=torch.from_numpy(found.take),
            camera=torch.from_numpy(found.camera),
            frame=torch.from_numpy(found.frame),
            half=half,
            skipped=tuple(sorted(found.skipped.items())),
        )


def boxes(records: Records, box: float) -> tuple[Float[np.ndarray, "N 2"], Float[np.ndarray, "N 2"]]:
    """The crops of this file's one rule: centres (x, y) and sides (width, height) in index pixels. box: mm."""
    root = records.joints[:, 0]
    return root[:, :2] / root[:, 2:] * records.focal + records.centre, box * records.focal / root[:, 2:]


def labels(
    records: Records, middle: Float[np.ndarray, "N 2"], sides: Float[np.ndarray, "N 2"], half: float
) -> tuple[Float[np.ndarray, "N 17 3"], Float[np.ndarray, "N 3 4"]]:
    """Joints normalised over crops with these centres and sides, and the affine from there to the source image.

    half: mm behind the pelvis that depth 1 stands for; the affine turns depth into pixels as long as those of x at the
    pelvis, so that all three axes have one unit.
    """
    joints, root = records.joints, records.joints[:, :1]
    flat = joints[..., :2] / joints[..., 2:] * records.focal[:, None] + records.centre[:, None]
    coords = np.concatenate([(flat - middle[:, None]) / (sides[:, None] / 2), (joints - root)[..., 2:] / half], -1)
    affine = np.zeros((len(joints), 3, 4))
    affine[:, [0, 1], [0, 1]], affine[:, :2, 3] = sides / 2, middle
    affine[:, 2, 2] = half * records.focal[:, 0] / root[:, 0, 2]
    return coords, affine
