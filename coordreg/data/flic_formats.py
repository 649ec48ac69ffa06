"""FLIC's labels: two files' forms, and left and right of people seen from behind.

Two forms of one set of labels are in circulation:

    mat   the official examples.mat        29 parts, 11 of them labelled    torso boxes    splits by flag
    h5    the stacked hourglass's arrays   those 11                         no boxes       a file each, twice over

Left and right. Of somebody seen from behind, the person's own left is on the left of the picture. Results on FLIC are
reported "observer-centric": left is the side on which it is of somebody who faces us. The h5 files come both ways, and
one rule turns the one into the other, for all 247 people who differ (199 to train on, 48 to test on) and nobody else:
where the left shoulder and the left hip both lie left of the right ones, exchange left and right, eyes included. The
official file is person-centric: Sapp's code applies this rule to it (to shoulders, elbows, wrists and hips), and the h5
files' torso length is that of person-centric joints. The rule knows no way back, since observer-centric labels all look
alike, and it knows sides, not persons: of somebody twisted, whose shoulders are crossed and hips not, it says nothing
(nobody is so in the 5,003). It was checked on the h5 files, not on examples.mat, so an examples.mat in which nobody is
seen from behind is warned of.

Torso. PCK's length is from the right shoulder to the left hip of the person-centric joints, as the h5 files have it.

Sources: Sapp and Taskar, CVPR 2013 (and their code for the rule); Newell et al., ECCV 2016 (h5).
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy.io import loadmat

from coordreg.data.skeletons import Skeleton

HOME = "https://bensapp.github.io/flic-dataset.html"
#: Width and height of a still.
STILL = (720, 480)
#: Where the 11 joints are among examples.mat's 29 parts.
PARTS = (0, 1, 2, 3, 4, 5, 6, 9, 12, 13, 16)
FIELDS = ("coords", "filepath", "imgdims", "torsobox", "istrain", "istest")
FILES: Mapping[str, tuple[str, ...]] = {"mat": ("examples.mat",), "h5": ("annot/{name}.h5", "{name}.h5")}

#: FLIC's labelled joints. No neck is labelled: the face hangs on the shoulders. The papers' "face" is one joint, which
#: we take to be the nose.
FLIC11 = Skeleton(
    "flic11",
    (
        *("l_shoulder", "l_elbow", "l_wrist", "r_shoulder", "r_elbow", "r_wrist"),
        *("l_hip", "r_hip", "l_eye", "r_eye", "nose"),
    ),
    bones=((3, 4), (0, 1), (4, 5), (1, 2), (3, 0), (7, 6), (3, 7), (0, 6), (10, 9), (10, 8), (10, 3), (10, 0)),
    pairs=((0, 3), (1, 4), (2, 5), (6, 7), (8, 9)),
    grouping=(("face", (10,)), ("shoulder", (0, 3)), ("elbow", (1, 4)), ("wrist", (2, 5)), ("hip", (6, 7))),
)
_MIRRORED = [3, 4, 5, 0, 1, 2, 7, 6, 9, 8, 10]
_AT = {name: j for j, name in enumerate(FLIC11.joints)}


class People(NamedTuple):
    """What the two forms say, in one form.

    names: N file names under images/. frame: (N, 2) width and height of the still. joints: (N, 11, 2), NaN where
    unlabelled. visible: (N, 11), False where unlabelled. torso: (N,) PCK's length. centre: (N, 2) of the torso crop.
    point: (N, 2) the torso box's middle; its y is NaN where the form has none. All in index pixels, from 0.
    """

    names: list[str]
    frame: NDArray[Any]
    joints: NDArray[Any]
    visible: NDArray[Any]
    torso: NDArray[Any]
    centre: NDArray[Any]
    point: NDArray[Any]

    def take(self, rows: list[int]) -> "People":
        """The people of these rows."""
        return People([self.names[i] for i in rows], *(value[rows] for value in self[1:]))


def behind(joints: Float[np.ndarray, "N 11 2"]) -> Bool[np.ndarray, " N"]:
    """Of person-centric joints: who is seen from behind, shoulders and hips both exchanged in the picture."""
    x = joints[..., 0]
    shoulders = x[:, _AT["l_shoulder"]] < x[:, _AT["r_shoulder"]]
    return np.asarray(shoulders & (x[:, _AT["l_hip"]] < x[:, _AT["r_hip"]]))


def observer(joints: Float[np.ndarray, "N 11 2"]) -> Float[np.ndarray, "N 11 2"]:
    """Person-centric joints -> observer-centric; observer-centric ones stay as they are."""
    return np.where(behind(joints)[:, None, None], joints[:, _MIRRORED], joints)


# -- the two forms ----------------------------------------------------------------------------------------------------


def find(root: Path, form: str, split: str, centric: str) -> Path:
    """The file of labels. Raises FileNotFoundError, with its place and the page to get it from, if it is not there."""
    name = {"train": "train", "test": "valid"}[split] + ("_personcentric" if centric == "person" else "")
    places = [root / file.format(name=name) for file in FILES[form]]
    for place in places:
        if place.is_file():
            return place
    spelled = {f: [root / file.format(name=name) for file in files] for f, files in FILES.items() if f != form}
    others = [f for f, files in spelled.items() if any(file.is_file() for file in files)]
    raise FileNotFoundError(
        f"FLIC: {places[0]} is not there; "
        + "".join(f"form={other!r} is; " for other in others)
        + f"examples.mat comes with FLIC.zip (300 MB) from {HOME} (`python -m coordreg data fetch flic` says how), the "
        "arrays as h5 with the stacked hourglass's code"
    )


def read_h5(path: Path) -> People:
    """Arrays imgname, center, part, visible, normalize; a joint at (0, 0) is unlabelled."""
    wanted = ("imgname", "center", "part", "visible", "normalize")
    try:
        with h5py.File(path) as file:
            names, centre, part, flags, torso = (np.asarray(file[name]) for name in wanted)
    except (OSError, KeyError) as error:
        raise ValueError(f"FLIC: {path} is damaged or lacks one of {', '.join(wanted)} ({error})") from error
    if part.shape != (len(names), len(PARTS), 2):
        raise ValueError(f"FLIC: `part` in {path} has the shape {part.shape}, expected ({len(names)}, 11, 2)")
    joints = np.where((part != 0).any(-1, keepdims=True), part - 1, np.nan)
    centre = centre.astype(float) - 1
    point = np.stack([centre[:, 0], np.full(len(names), np.nan)], -1)
    return _people(path, [n.decode() for n in names], joints, flags > 0, torso.ravel().astype(float), centre, point)


def read_mat(path: Path, split: str = "train") -> People:
    """The structures of examples.mat that belong to "train" or "test", person-centric as they are."""
    try:
        examples = np.atleast_1d(loadmat(path, struct_as_record=False, squeeze_me=True)["examples"])
    except Exception as error:  # scipy raises many kinds of them
        raise ValueError(
            f"FLIC: {path} is damaged or holds no structure `examples` ({error}); take it from FLIC.zip again, {HOME}"
        ) from error
    fields = getattr(examples[0], "_fieldnames", []) if examples.size else []
    if lacking := [name for name in FIELDS if name not in fields]:
        raise ValueError(
            f"FLIC: `examples` in {path} has no field {', '.join(lacking)}, but {', '.join(fields) or 'nothing'}; "
            "take the file from FLIC.zip again"
        )
    rows = [(i, e) for i, e in enumerate(examples.ravel()) if np.any(getattr(e, f"is{split}"))]
    if not rows:
        raise ValueError(f"FLIC: {path} holds nobody of the split {split!r}, whose flag is is{split}")
    for i, example in rows:
        shapes = {name: np.shape(getattr(example, name)) for name in ("coords", "torsobox", "imgdims")}
        whole = shapes["coords"] == (2, 29) and shapes["torsobox"] == (4,) and shapes["imgdims"] in ((2,), (3,))
        if not whole or not np.isfinite(example.torsobox).all():
            raise ValueError(
                f"FLIC: example {i + 1} in {path} has coords of shape {shapes['coords']}, a torsobox of "
                f"{shapes['torsobox']} and imgdims of {shapes['imgdims']}, expected (2, 29), four "
                "numbers and (3,); take the file from FLIC.zip again"
            )
    joints = np.array([np.asarray(e.coords, float).T[list(PARTS)] for _, e in rows]) - 1
    box = np.array([e.torsobox for _, e in rows], float) - 1
    frame = np.array([np.asarray(e.imgdims)[[1, 0]] for _, e in rows], int)
    point = (box[:, :2] + box[:, 2:]) / 2
    centre = np.stack([point[:, 0], frame[:, 1] / 2 - 1], -1)
    torso = np.linalg.norm(joints[:, _AT["r_shoulder"]] - joints[:, _AT["l_hip"]], axis=-1)
    names = [str(e.filepath) for _, e in rows]
    return _people(path, names, joints, np.ones(joints.shape[:2], bool), torso, centre, point, frame)


def _people(
    path: Path,
    names: list[str],
    joints: NDArray[Any],
    visible: NDArray[Any],
    torso: NDArray[Any],
    centre: NDArray[Any],
    point: NDArray[Any],
    frame: NDArray[Any] | None = None,
) -> People:
    """Whoever has a torso, without which an error has no unit; the others are counted in a warning."""
    joints = np.where(np.isfinite(joints).all(-1, keepdims=True), joints, np.nan)
    still = np.tile(STILL, (len(names), 1)) if frame is None else frame
    people = People(names, still, joints, visible & ~np.isnan(joints[..., 0]), torso, centre, point)
    rows = [int(i) for i in np.flatnonzero(np.isfinite(torso) & (torso > 0))]
    if not rows:
        raise ValueError(
            f"FLIC: {path} holds nobody with a right shoulder and a left hip, which make the torso's length"
        )
    if absent := len(names) - len(rows):
        warnings.warn(f"FLIC: {absent} of {len(names)} people in {path} have no torso and are left out", stacklevel=3)
    return people.take(rows)


def read(root: Path, form: str = "mat", split: str = "train", centric: str = "observer") -> People:
    """The people of a split, whether their stills are there or not."""
    path = find(root, form, split, centric)
    if form == "h5":
        return read_h5(path)
    people = read_mat(path, split)
    if not behind(people.joints).any():
        warnings.warn(
            f"FLIC: nobody in {path} is seen from behind; of the official people 199 to train on and 48 to test on "
            "are. It may be a copy that is observer-centric already, whose person-centric labels are lost",
            stacklevel=2,
        )
    if centric == "person":
        return people
    joints = observer(people.joints)
    return people._replace(joints=joints, visible=~np.isnan(joints[..., 0]))
