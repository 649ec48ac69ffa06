"""Motion capture: BVH files read, run through forward kinematics, and given to the drawn figures as a source of poses.

The joint names, the unit and the added first T-pose are those of B. Hahne's conversion (cgspeed.com, 2010) of the CMU
Graphics Lab Motion Capture Database: y up, and in the T-pose +z to the front and +x to the person's left. That skeleton
was fitted to markers on the skin. Its `Hips` lie about 0.1 m above the line between the hip joints, its `LeftHand` some
centimetres short of the wrist, and its head ends at the level of the ears.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from coordreg.data import cache_file
from coordreg.data.bvh import UNIT, Motion, forward, kinematics, read_bvh
from coordreg.data.dice import Dice
from coordreg.data.poses import LOWEST, PROPORTIONS, proportions, turn
from coordreg.data.skeletons import FIGURE, H36M17

ACKNOWLEDGMENT = (
    "The data used in this project was obtained from mocap.cs.cmu.edu. "
    "The database was created with funding from NSF EIA-0196217."
)
FORMAT, VERSION = "coordreg-mocap-pack", 1
#: A pack's unit in metres: 16-bit integers reach 3.2 m.
STEP = 1e-4


# -- joints ------------------------------------------------------------------------------------------------------------


def _locate(motion: Motion, wanted: Sequence[str]) -> dict[str, int]:
    """Numbers of these joints."""
    missing = [name for name in dict.fromkeys(wanted) if name not in motion.names]
    if missing:
        raise ValueError(
            f"mocap: the BVH has no {', '.join(missing)}; it has {', '.join(motion.names)}. Expected the joint names "
            "of the CMU conversion (Hips, LeftUpLeg, LeftLeg, ...); rename the joints in the file"
        )
    return {name: motion.names.index(name) for name in wanted}


_SIDES = {"l_": "Left", "r_": "Right"}
_LIMBS = {"hip": "UpLeg", "knee": "Leg", "ankle": "Foot", "shoulder": "Arm", "elbow": "ForeArm", "wrist": "Hand"}
_LIMB_JOINTS = {a + joint: side + name for a, side in _SIDES.items() for joint, name in _LIMBS.items()}
_TRUNK = {"pelvis": "Hips", "spine": "Spine", "thorax": "Neck1", "nose": "Head", "head_top": "Head end"}
#: Where the face is, in lengths of the head from the upper neck (x left, y up, z front), as in `poses.articulate`.
_FACE = {"head_top": (0.0, 1.0, 0.08), "nose": (0.0, 0.40, 0.62), "l_eye": (0.16, 0.53, 0.51),
         "r_eye": (-0.16, 0.53, 0.51), "l_ear": (0.345, 0.45, 0.08), "r_ear": (-0.345, 0.45, 0.08)}  # fmt: skip


def to_h36m(motion: Motion, scale: float = UNIT, drop_first: bool = True) -> Float[Tensor, "T 17 3"]:
    """The nearest recorded joints to Human3.6M's 17, in metres, in the file's world.

    pelvis = Hips, thorax = Neck1 (or Neck), nose = Head, head_top = the head's end; see this file's head for how far
    these are from the body's own. drop_first: leave out frame 0, the T-pose that the conversion added. Raises
    ValueError, naming them, for missing joints.
    """
    table = {**_TRUNK, **_LIMB_JOINTS}
    if "Neck1" not in motion.names and "Neck" in motion.names:
        table["thorax"] = "Neck"
    at = _locate(motion, list(table.values()))
    return forward(motion, scale)[int(drop_first) :, [at[table[joint]] for joint in H36M17.joints]]


def head_pitch(motion: Motion, drop_first: bool = True) -> Float[Tensor, " T"]:
    """How far the recorded head looks down from the horizontal, in degrees.

    Its zero is not trustworthy: with the head upright in the T-pose by definition, subjects of the CMU set walk with
    medians from -6 to 47 degrees, which is how their markers sat. `to_figure` takes the zero as `level`.
    """
    at = _locate(motion, ["Head"])["Head"]
    return -torch.rad2deg(kinematics(motion)[1][int(drop_first) :, at, 1, 2].clamp(-1, 1).asin())


def to_figure(
    motion: Motion, scale: float = UNIT, drop_first: bool = True, level: float = 0.0
) -> Float[Tensor, "T 26 3"]:
    """The joints of FIGURE in metres, in the file's world; the bones of limbs as long as recorded.

    pelvis, thorax and spine are the means of hips and shoulders, as in the drawn figures. upper_neck is Head, and the
    face and the crown follow from the head's own turn, raised by `level` degrees. Sizes of head and hands, which are
    not recorded, are their usual shares of the leg. drop_first, errors: as in `to_h36m`.
    """
    ends = {a + "toe": side + "ToeBase end" for a, side in _SIDES.items()}
    tips = {a: side + "HandIndex1" for a, side in _SIDES.items()}
    at = _locate(motion, [*_LIMB_JOINTS.values(), *ends.values(), *tips.values(), "Head"])
    places, turns = (x[int(drop_first) :] for x in kinematics(motion))
    places = scale * places
    named = {joint: places[:, at[name]] for joint, name in {**_LIMB_JOINTS, **ends, "upper_neck": "Head"}.items()}
    legs = [scale * motion.offsets[at[side + bone]].norm() for side in _SIDES.values() for bone in ("Leg", "Foot")]
    stature = torch.stack(legs).sum() / 2 / (PROPORTIONS["thigh"][0] + PROPORTIONS["shin"][0])
    for a, name in tips.items():
        out = places[:, at[name]] - named[a + "wrist"]
        out = out / out.norm(dim=-1, keepdim=True).clamp_min(1e-9)
        named[a + "hand"] = named[a + "wrist"] + PROPORTIONS["hand"][0] * stature * out
    head = turns[:, at["Head"]] @ turn(0, torch.tensor(-level, dtype=torch.float64))
    for joint, where in _FACE.items():
        step = PROPORTIONS["head"][0] * stature * torch.tensor(where, dtype=torch.float64)
        named[joint] = named["upper_neck"] + head @ step
    return _complete(named)


def _complete(named: dict[str, Tensor]) -> Tensor:
    """Add the joints of FIGURE that are means of others, and stack."""
    named["pelvis"] = 0.5 * (named["l_hip"] + named["r_hip"])
    named["thorax"] = 0.5 * (named["l_shoulder"] + named["r_shoulder"])
    named["spine"] = 0.5 * (named["pelvis"] + named["thorax"])
    return torch.stack([named[joint] for joint in FIGURE.joints], -2)


def body_frame(joints: Float[Tensor, "B 26 3"]) -> Float[Tensor, "B 26 3"]:
    """Poses of FIGURE in any upright world -> the body frame of `poses`.

    Turned about the vertical until the line of the hips has no depth, the pelvis moved over the origin, and the lowest
    point of the body (see `poses.LOWEST`) put on y = 0.
    """
    at = FIGURE.joints.index
    across = joints[:, at("l_hip")] - joints[:, at("r_hip")]
    heading = torch.rad2deg(torch.atan2(across[:, 2], across[:, 0]))
    joints = joints - joints[:, at("pelvis"), None]
    joints = (turn(1, heading).unsqueeze(1) @ joints.unsqueeze(-1)).squeeze(-1)
    below = torch.tensor(list(LOWEST.values()), dtype=joints.dtype)
    floor = (joints[:, [at(name) for name in LOWEST], 1] - below).amin(1)
    return joints - floor[:, None, None] * torch.tensor([0, 1, 0], dtype=joints.dtype)


def resize(joints: Float[Tensor, "B 26 3"], sizes: dict[str, Float[Tensor, " B"]]) -> Float[Tensor, "B 26 3"]:
    """The same pose with bones of other lengths: every bone keeps its direction. sizes: see `poses.proportions`."""
    old = {joint: joints[:, j] for j, joint in enumerate(FIGURE.joints)}
    new = {"pelvis": old["pelvis"]}

    def reach(start: str, end: str, length: Tensor) -> None:
        bone = old[end] - old[start]
        new[end] = new[start] + bone * (length / bone.norm(dim=-1).clamp_min(1e-9)).unsqueeze(-1)

    reach("pelvis", "thorax", sizes["trunk"])
    reach("thorax", "upper_neck", sizes["neck"])
    grown = sizes["head"] / (old["head_top"] - old["upper_neck"]).norm(dim=-1).clamp_min(1e-9)
    for joint in _FACE:
        new[joint] = new["upper_neck"] + grown.unsqueeze(-1) * (old[joint] - old["upper_neck"])
    for a in _SIDES:
        for start, end, length in (
            ("pelvis", "hip", sizes["hips"]), ("hip", "knee", sizes["thigh"]), ("knee", "ankle", sizes["shin"]),
            ("ankle", "toe", 0.81 * sizes["foot"]), ("thorax", "shoulder", sizes["shoulders"]),
            ("shoulder", "elbow", sizes["upper_arm"]), ("elbow", "wrist", sizes["forearm"]),
            ("wrist", "hand", sizes["hand"]),
        ):  # fmt: skip
            reach(start if start in new else a + start, a + end, length)
    return _complete(new)


# -- pack -------------------------------------------------------------------------------------------------------------


def pack_mocap(root: Path | str, out: Path | str, every: int = 3, gaze: float = 5.0) -> dict[str, Any]:
    """Write the poses of all BVH files under `root` into one file and return its header.

    Every `every`-th frame after the T-pose is kept, in the body frame. The subject is a file's name up to the "_".
    gaze: how far down a subject looks on the median, in degrees; it fixes the head's zero, see `head_pitch`. The file
    appears whole or not at all. Raises ValueError for no clips, two of one name, a damaged one, or one without frames.
    """
    if every < 1:
        raise ValueError(f"pack_mocap: got every={every}, expected 1 or more frames")
    files: dict[str, Path] = {}
    for path in sorted(Path(root).rglob("*.bvh")):
        if path.stem in files:
            raise ValueError(f"pack_mocap: got {files[path.stem]} and {path}, expected each clip's name once")
        files[path.stem] = path
    if not files:
        raise ValueError(f"pack_mocap: no *.bvh under {root}, expected the clips of the CMU conversion (cgspeed.com)")
    subjects: dict[str, list[str]] = {}
    for name in files:
        subjects.setdefault(name.partition("_")[0], []).append(name)
    poses: list[NDArray[Any]] = []
    header: dict[str, Any] = {"format": FORMAT, "version": VERSION, "every": every, "gaze": gaze, "step": STEP}
    header |= {"acknowledgment": ACKNOWLEDGMENT, "source": "mocap.cs.cmu.edu", "clips": [], "levels": {}}
    for subject, names in subjects.items():
        motions = {name: read_bvh(files[name]) for name in names}
        pitch = torch.cat([head_pitch(motion) for motion in motions.values()])
        level = round(float(pitch.median()) - gaze, 2) if len(pitch) else 0.0
        header["levels"][subject] = level
        for name, motion in motions.items():
            if len(motion.frames) < 2:
                raise ValueError(f"pack_mocap: {files[name]} has no frame after the T-pose; leave the file out")
            joints = body_frame(to_figure(motion, level=level)[::every])
            if joints.abs().max() > 3:
                raise ValueError(f"pack_mocap: {files[name]} reaches {joints.abs().max():.1f} m; not in CMU units")
            poses.append((joints / STEP).round().numpy().astype("<i2"))
            header["clips"].append([name, subject, len(joints)])
    arrays = {"poses": np.concatenate(poses)}
    header["sha256"] = _content(header, arrays)
    cache_file.save(Path(out), {"header": np.array(json.dumps(header, sort_keys=True)), **arrays})
    return header


def _content(header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> str:
    text = json.dumps({k: v for k, v in header.items() if k != "sha256"}, sort_keys=True)
    return hashlib.sha256(text.encode() + np.ascontiguousarray(arrays["poses"]).tobytes()).hexdigest()


def read_pack(path: Path) -> tuple[dict[str, Any], NDArray[Any]]:
    """A pack's header and (N, 26, 3) poses in tenths of a millimetre. ValueError if it is cut short or altered."""
    again = "make it again with coordreg.data.mocap.pack_mocap(ROOT, FILE)"
    try:
        with np.load(path, allow_pickle=False) as file:
            poses, header = file["poses"], json.loads(str(file["header"]))
        found = header["format"], header["version"]
    except (zipfile.BadZipFile, AttributeError, OSError, EOFError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"mocap: {path} is cut short or no pack of poses ({error}); {again}") from error
    if found != (FORMAT, VERSION):
        raise ValueError(f"mocap: {path} is {found[0]} {found[1]}, expected {FORMAT} {VERSION}; {again}")
    if _content(header, {"poses": poses}) != header.get("sha256"):
        raise ValueError(f"mocap: the contents of {path} do not match its hash; {again}")
    return header, poses


def find_pack(pack: Path | None = None) -> Path:
    """The pack to read: the argument, else COORDREG_MOCAP, else data/mocap.npz. ValueError if it is not there."""
    place = Path(pack or os.environ.get("COORDREG_MOCAP") or Path("data") / "mocap.npz")
    if not place.is_file():
        raise ValueError(
            f"mocap: there is no pack of poses at {place}. Get BVH clips of the CMU set (cgspeed.com), make the pack "
            "with `python -c \"from coordreg.data.mocap import pack_mocap; pack_mocap('DIR', 'data/mocap.npz')\"`, "
            "or name an existing one in the environment variable COORDREG_MOCAP"
        )
    return place


@lru_cache(maxsize=4)
def _load(path: str, stamp: tuple[int, int]) -> tuple[dict[str, Any], Tensor]:
    header, poses = read_pack(Path(path))
    return header, torch.from_numpy(poses.astype(np.float32)) * header["step"]


def _pack() -> tuple[dict[str, Any], Tensor]:
    """Header and poses in metres of the pack in use, read again only if the file changed."""
    path = find_pack()
    state = path.stat()
    return _load(str(path.resolve()), (state.st_mtime_ns, state.st_size))


@dataclass(frozen=True)
class Mocap:
    """A source of recorded poses for `Figures`: a random frame of a random clip for each key.

    subjects, clips: names to draw from; () means all. Clips are drawn with equal chances, whatever their length.
    resized: bones as long as those of `poses.proportions`, a new body for each key; else as recorded. mirror: chance of
    the mirror image. content: the beginning of the pack's hash that is wanted; "" takes any. Give it wherever the
    configuration is to name the poses exactly. Called with dice of B keys it returns (B, 26, 3) joints of FIGURE in
    metres in the body frame, ground at y = 0. Raises ValueError if there is no pack, another one, or nothing to draw.
    """

    subjects: tuple[str, ...] = ()
    clips: tuple[str, ...] = ()
    resized: bool = True
    mirror: float | int = 0.5
    content: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.mirror <= 1:
            raise ValueError(f"Mocap: got mirror={self.mirror}, expected a number from 0 to 1")
        if isinstance(self.subjects, str) or isinstance(self.clips, str):
            raise ValueError(f"Mocap: got {self.subjects!r}, {self.clips!r}, expected tuples of names such as ('02',)")
        object.__setattr__(self, "mirror", float(self.mirror))

    def __repr__(self) -> str:
        """With the hash of the pack and of this file: the cache of drawn figures goes by it."""
        try:
            pack = _pack()[0]["sha256"][:16]
        except ValueError:
            pack = "none"
        code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
        fields = f"subjects={self.subjects}, clips={self.clips}, resized={self.resized}, mirror={self.mirror}"
        return f"Mocap({fields}, content={self.content!r}; pack {pack}, code {code})"

    def _ranges(self, header: dict[str, Any]) -> list[tuple[int, int]]:
        """First pose and number of poses of each clip drawn from."""
        if not header["sha256"].startswith(self.content):
            raise ValueError(
                f"Mocap: got content={self.content!r}, but the pack has {header['sha256'][:16]}; point COORDREG_MOCAP "
                'to the pack that is meant, or take any with content=""'
            )
        names, people = [name for name, _, _ in header["clips"]], [subject for _, subject, _ in header["clips"]]
        for kind, wanted, there in (("clips", self.clips, names), ("subjects", self.subjects, people)):
            if unknown := sorted(set(wanted) - set(there)):
                raise ValueError(f"Mocap: the pack has no {kind} {unknown}, expected some of {sorted(set(there))}")
        found, first = [], 0
        for name, subject, count in header["clips"]:
            if (not self.clips or name in self.clips) and (not self.subjects or subject in self.subjects):
                found.append((first, count))
            first += count
        if not found:
            raise ValueError(f"Mocap: no clip of {self.clips} is of the subjects {self.subjects}; leave one out")
        return found

    def __call__(self, dice: Dice) -> Float[Tensor, "B 26 3"]:
        """Draw one pose a key."""
        header, poses = _pack()
        ranges = torch.tensor(self._ranges(header))
        first, count = ranges[dice.choice([1.0] * len(ranges))].unbind(-1)
        frame = torch.minimum((dice.one() * count).long(), count - 1)
        joints = poses[first + frame]
        order = list(range(len(FIGURE)))
        for a, b in FIGURE.pairs:
            order[a], order[b] = b, a
        mirrored = joints[:, order] * torch.tensor([-1.0, 1.0, 1.0])
        joints = torch.where(dice.chance(self.mirror)[:, None, None], mirrored, joints)
        return body_frame(resize(joints, proportions(dice)) if self.resized else joints)
