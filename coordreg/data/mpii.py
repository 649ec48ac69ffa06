"""MPII Human Pose: photographs of everyday activities, 16 joints a person, errors divided by the head (PCKh).

Three forms of one set of labels are in circulation:

    mat   the official RELEASE structure        from 1    centre and scale as annotated    head boxes
    json  HRNet's and mmpose's lists            from 1    centre and scale as annotated
    h5    the stacked hourglass's arrays        from 1    centre and scale adjusted        0.6 x head diagonal

The adjustment. MPII gives a person's rough middle and a scale, the height over 200 px. Hourglass moved the middle down
by 15 * scale and took 1.25 * scale, so that feet fit in, and everybody does since: the crop is the square of 200 px
times the adjusted scale. Here it is made once, for the forms that do not have it yet, and 1 is subtracted once, since
the labels come from MATLAB, whose first pixel is number 1.

Head size. PCKh divides by 0.6 of the head box's diagonal. MPII's scale was made from that box: in the validation file
0.6 of the diagonal is 25 times the annotated scale, for all 2958 people, to a ten-thousandth of a pixel. Where a form
gives no head box we therefore take 25 * scale.

Splits. The 2958 people that Tompson et al. set aside are "valid" everywhere; MPII's own test labels are not public.

Sources: Andriluka et al., CVPR 2014; Tompson et al., CVPR 2015 (split); Newell et al., ECCV 2016 (crop).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.io import loadmat

from coordreg.coords import apply_affine, crop_affine, invert_affine
from coordreg.data.augment import Augment
from coordreg.data.pack import canvas_size, cut, key, locate, pack_crops, pack_path, present, read_picture
from coordreg.data.skeletons import MPII16
from coordreg.data.store import Store

HOME = "http://human-pose.mpi-inf.mpg.de/"
#: Pixels a unit of scale stands for; head size over the annotated scale.
UNIT, HEAD = 200.0, 25.0
#: How far the centre moves down, in annotated scales, and what the scale is multiplied by.
DOWN, WIDER = 15.0, 1.25
FACTOR = 0.6  # of the head box's diagonal

FILES: Mapping[str, tuple[str, ...]] = {
    "mat": ("mpii_human_pose_v1_u12_2/mpii_human_pose_v1_u12_1.mat", "mpii_human_pose_v1_u12_1.mat"),
    "json": ("annot/{split}.json", "annotations/mpii_{short}.json"),
    "h5": ("annot/{split}.h5", "{split}.h5"),
}


class People(NamedTuple):
    """What the three forms say, in one form.

    names: N file names under images/. centre: (N, 2) and side: (N,) of the crop's square, joints: (N, 16, 2), NaN where
    missing; all in index pixels, from 0. visible: (N, 16), False where hidden or missing. head: (N,) PCKh's length.
    """

    names: list[str]
    centre: NDArray[Any]
    side: NDArray[Any]
    joints: NDArray[Any]
    visible: NDArray[Any]
    head: NDArray[Any]

    def take(self, rows: list[int]) -> "People":
        """The people of these rows."""
        return People([self.names[i] for i in rows], *(value[rows] for value in self[1:]))


def adjust(centre: NDArray[Any], scale: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Annotated centres (N, 2) and scales (N,) -> those of the crop: lower by 15 scales, 1.25 times as large.

    An unknown centre, (-1, -1), is left as it is, and its scale with it.
    """
    known = centre[:, 0] != -1
    moved = centre + np.stack([np.zeros_like(scale), np.where(known, DOWN * scale, 0)], -1)
    return moved, np.where(known, WIDER, 1) * scale


# -- the three forms --------------------------------------------------------------------------------------------------


def find(root: Path, form: str, split: str) -> Path:
    """The file of labels. Raises FileNotFoundError, with its place and the page to get it from, if it is not there."""
    short = {"valid": "val"}.get(split, split)
    places = [root / name.format(split=split, short=short) for name in FILES[form]]
    for place in places:
        if place.is_file():
            return place
    names = {f: [name.format(split=split, short=short) for name in files] for f, files in FILES.items() if f != form}
    others = [f"form={f!r} is there" for f, files in names.items() if any((root / name).is_file() for name in files)]
    raise FileNotFoundError(
        f"MPII: {places[0]} is not there (nor {' nor '.join(str(p) for p in places[1:])}); "
        + "".join(f"{other}; " for other in others)
        + f"the official labels are at {HOME} (`python -m coordreg data fetch mpii`), the lists as JSON come with "
        "HRNet's and mmpose's code, the arrays as h5 with the stacked hourglass's"
    )


def read_json(path: Path) -> People:
    """A list of {image, center, scale, joints, joints_vis}. It does not know which joints are hidden."""
    rows = json.loads(path.read_text())
    wanted = {"image", "center", "scale", "joints", "joints_vis"}
    if not isinstance(rows, list) or not rows or not wanted <= set(rows[0]):
        raise ValueError(
            f"MPII: {path} is no list of people with {', '.join(sorted(wanted))}; test lists have no joints"
        )
    raw, scale = np.array([r["center"] for r in rows], float), np.array([r["scale"] for r in rows], float)
    labelled = np.array([r["joints_vis"] for r in rows]) > 0
    joints = np.array([r["joints"] for r in rows], float)
    return _people([r["image"] for r in rows], *adjust(raw, scale), joints, labelled, labelled, HEAD * scale)


def read_h5(path: Path) -> People:
    """Arrays imgname, center, scale, part, visible, normalize; a joint at (0, 0) is missing. Adjusted already."""
    wanted = ("imgname", "center", "scale", "part", "visible", "normalize")
    try:
        with h5py.File(path) as file:
            table = {name: np.asarray(file[name]) for name in wanted}
    except (OSError, KeyError) as error:
        raise ValueError(f"MPII: {path} is damaged or lacks one of {', '.join(wanted)} ({error})") from error
    names = [_text(name) for name in table["imgname"]]
    labelled = (table["part"] != 0).any(-1)
    visible = (table["visible"] > 0) & labelled
    return _people(names, table["center"], table["scale"], table["part"], labelled, visible, table["normalize"])


def read_mat(path: Path) -> People:
    """RELEASE's training pictures: everybody with a centre, a scale, a head box and at least one joint."""
    try:
        release = loadmat(path, struct_as_record=False, squeeze_me=True)["RELEASE"]
    except Exception as error:  # scipy raises many kinds of them
        raise ValueError(
            f"MPII: {path} is damaged or holds no RELEASE ({error}); fetch it again from {HOME}"
        ) from error
    names: list[str] = []
    rows: list[tuple[Any, ...]] = []
    for picture, train in zip(_several(release.annolist), np.atleast_1d(release.img_train), strict=True):
        for person in _several(getattr(picture, "annorect", None)) if train else ():
            found = _person(person)
            if found is not None:
                names.append(str(picture.image.name))
                rows.append(found)
    if not rows:
        raise ValueError(f"MPII: {path} holds nobody with a centre, a scale, a head box and joints")
    raw, scale, joints, labelled, visible, head = (np.array(column) for column in zip(*rows, strict=True))
    return _people(names, *adjust(raw, scale), joints, labelled, visible, head)


def _people(
    names: list[str],
    centre: NDArray[Any],
    scale: NDArray[Any],
    joints: NDArray[Any],
    labelled: NDArray[Any],
    visible: NDArray[Any],
    head: NDArray[Any],
) -> People:
    """Adjusted centre and scale and joints from 1 -> from 0, with the side of the crop."""
    return People(names, centre - 1, UNIT * scale, np.where(labelled[..., None], joints - 1, np.nan), visible, head)


def _text(name: Any) -> str:
    """A file name stored as bytes or as a row of character codes."""
    return (name if isinstance(name, bytes) else bytes(np.asarray(name).astype(np.uint8))).decode().strip("\0 ")


def _several(value: Any) -> list[Any]:
    """MATLAB's nothing, one structure or an array of them -> a list."""
    if value is None or (isinstance(value, np.ndarray) and value.size == 0):
        return []
    return list(value.ravel()) if isinstance(value, np.ndarray) else [value]


def _number(owner: Any, name: str) -> float:
    """A number of a structure; NaN where the field is missing or empty."""
    value = np.asarray(getattr(owner, name, np.nan))
    return float(value.ravel()[0]) if value.size else float("nan")


def _hidden(point: Any) -> bool:
    """Only 0 and "0" hide a joint; nothing at all (always so for neck and head top) does not."""
    flag = np.asarray(getattr(point, "is_visible", "")).ravel()
    return bool(flag.size) and str(flag[0]) in ("0", "0.0", "False")


def _person(rect: Any) -> tuple[Any, ...] | None:
    """(centre, scale, joints, labelled, visible, head) of one annorect, from 1; None if something is missing."""
    middle, points = getattr(rect, "objpos", None), getattr(rect, "annopoints", None)
    centre, scale = [_number(middle, "x"), _number(middle, "y")], _number(rect, "scale")
    x1, y1, x2, y2 = (_number(rect, name) for name in ("x1", "y1", "x2", "y2"))
    head = FACTOR * float(np.hypot(x2 - x1, y2 - y1))
    joints, labelled, visible = np.zeros((16, 2)), np.zeros(16, bool), np.zeros(16, bool)
    for point in _several(getattr(points, "point", None)):
        number, x, y = (_number(point, name) for name in ("id", "x", "y"))
        if np.isfinite([number, x, y]).all() and 0 <= number < 16:
            j = int(number)
            joints[j], labelled[j], visible[j] = (x, y), True, not _hidden(point)
    if not (np.isfinite([*centre, scale, head]).all() and scale > 0 and head > 0 and labelled.any()):
        return None
    return centre, scale, joints, labelled, visible, head


def _marks(people: People) -> list[tuple[str, int, int]]:
    """Who somebody is, across the forms: the picture and the annotated centre to the pixel."""
    annotated = people.centre[:, 1] - DOWN * people.side / (UNIT * WIDER)
    return [
        (name, round(float(x)), round(float(y)))
        for name, x, y in zip(people.names, people.centre[:, 0], annotated, strict=True)
    ]


def read(root: Path, form: str = "json", split: str = "train") -> People:
    """The people of a split, whether their pictures are there or not.

    form "mat" has no such split of its own: "valid" are those whom valid.json or valid.h5 lists, "train" all others.
    """
    path = find(root, form, split)
    if form != "mat":
        return {"json": read_json, "h5": read_h5}[form](path)
    everybody = read_mat(path)
    for other in ("json", "h5"):
        try:
            listed = find(root, other, "valid")
        except FileNotFoundError:
            continue
        apart = set(_marks({"json": read_json, "h5": read_h5}[other](listed)))
        inside = [mark in apart for mark in _marks(everybody)]
        rows = [i for i, held in enumerate(inside) if held == (split == "valid")]
        if not rows:
            raise ValueError(f"MPII: {path} and {listed} leave nobody for the split {split!r}; are they of one set?")
        return everybody.take(rows)
    raise FileNotFoundError(
        f"MPII: form='mat' needs {root / 'annot/valid.json'} or valid.h5 beside it, which say who belongs to the "
        f"validation split (2958 people; not part of the official files of {HOME})"
    )


# -- data set ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MPII:
    """MPII as a data set: square crops of the adjusted scale, 16 joints, errors divided by the head size.

    root: the folder with images/ and the labels (see `pack.locate`). form: "json", "h5" or "mat". split: "train" or
    "valid". size: px a side of what a network sees. augment: for "train" only. canvas: with an augmentation the stored
    crops are that many times as wide, so that turning and widening find picture. limit: the first so many people.
    """

    root: str = "mpii"
    form: str = "json"
    split: str = "train"
    size: int = 256
    augment: Augment | None = None
    canvas: float = 5 / 3
    limit: int | None = None

    def __post_init__(self) -> None:
        for name, value, known in (("form", self.form, FILES), ("split", self.split, ("train", "valid"))):
            if value not in known:
                raise ValueError(f"MPII: got {name}={value!r}, expected one of {list(known)}")
        if self.split == "valid" and self.augment is not None:
            raise ValueError("MPII: got an augmentation for the split 'valid', expected none; augment 'train'")
        if self.augment is not None and self.augment.size not in (None, self.size):
            raise ValueError(
                f"MPII: got size={self.size} and an Augment of size={self.augment.size}; leave the latter out"
            )
        if self.size < 2 or (self.limit is not None and self.limit < 1):
            raise ValueError(f"MPII: got size={self.size}, limit={self.limit}, expected at least 2 px and one person")
        canvas_size((self.size, self.size), self.canvas)

    def open(self, progress: bool = False) -> Store:
        """Read the labels and cut the crops, or map those cut before (`pack.pack_path` says where).

        People whose picture is not there are left out and counted in a warning. Raises FileNotFoundError if there are
        no labels or no pictures at all, ValueError for damaged files.
        """
        root = locate(self.root)
        people = read(root, self.form, self.split)
        get = f"mpii_human_pose_v1.tar.gz (12.9 GB) from {HOME} and unpack it so that images/ lies in {root}"
        people = people.take(present(people.names, root / "images", "MPII", get))
        people = people.take(list(range(len(people.names)))[: self.limit])
        square = (self.size, self.size)
        size = square if self.augment is None else canvas_size(square, self.canvas)
        side = people.side * size[0] / self.size

        def make(i: int) -> NDArray[Any]:
            picture = read_picture(root / "images" / people.names[i])
            return cut(picture, people.centre[i], side[[i, i]], size)

        shape = (3, *size)
        name = f"mpii-{self.split}-{size[0]}-{key(people.names, people.centre, side, shape)}"
        path = pack_path(root, name, len(side), shape)
        images = pack_crops(path, len(side), shape, make, progress)
        return self._store(images, people, torch.from_numpy(side))

    def _store(self, images: torch.Tensor, people: People, side: torch.Tensor) -> Store:
        affine = crop_affine(torch.from_numpy(people.centre), side.unsqueeze(-1).expand(-1, 2))
        joints = torch.from_numpy(people.joints)
        labelled = ~joints.isnan().any(-1)
        return Store(
            images=images,
            coords=apply_affine(invert_affine(affine), joints).float(),
            weight=labelled.float().unsqueeze(-1).expand(-1, -1, 2).contiguous(),
            visible=torch.from_numpy(people.visible),
            normaliser=torch.from_numpy(people.head).float(),
            affine=affine.float(),
            pairs=MPII16.pairs,
            joints=MPII16.joints,
            augment=None if self.augment is None else self.augment.bind(MPII16.pairs, self.size),
        )
