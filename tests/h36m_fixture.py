"""Human3.6M in miniature: invented people before invented cameras, written in each of the four formats.

The cameras have a tenth of the real focal length and pictures of 104 x 100 px, so that a folder of them costs nothing.
Every picture is grey with a white dot on the pelvis.
"""

import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

NUMBERS = (54138969, 55011271, 58860488, 60457274)
PICKED = [0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27]
WIDTH, HEIGHT = 104, 100
#: Frames that the formats with images list: 0, 64 and 128 are every 64th.
LISTED = (0, 5, 63, 64, 128)
#: (subject, action, take): official name, one a subject but for S11, whose second take of Directions has the gap.
SEQUENCES = {
    (1, 4, 1): "Eating 2", (5, 2, 2): "Directions 2", (6, 12, 1): "Photo", (7, 15, 1): "WalkDog 1", (8, 16, 2):
    "WalkTogether 2", (9, 10, 1): "SittingDown", (11, 2, 1): "Directions 1", (11, 2, 2): "Directions",
}  # fmt: skip


@dataclass(frozen=True)
class Lens:
    """A camera as plain arrays: X_cam = R X + t in mm; f, c px; k (3,), p (2,) distortion."""

    R: np.ndarray
    t: np.ndarray
    f: np.ndarray
    c: np.ndarray
    k: np.ndarray
    p: np.ndarray

    def look(self, world: np.ndarray) -> np.ndarray:
        """World mm -> camera mm, written as a sum."""
        return np.stack([sum(self.R[i, j] * world[..., j] for j in range(3)) + self.t[i] for i in range(3)], -1)

    def flat(self, points: np.ndarray) -> np.ndarray:
        """Camera mm -> pixels without distortion."""
        return np.stack([self.f[i] * points[..., i] / points[..., 2] + self.c[i] for i in range(2)], -1)


def make_lens(subject: int, i: int) -> Lens:
    """Camera i of a subject: 4 to 5 m from the origin, 1.5 m up, looking at a point 0.9 m above the ground."""
    angle = np.pi / 4 + i * np.pi / 2 + 0.05 * subject
    place = np.array([4000 * np.cos(angle), (4000 + 200 * i) * np.sin(angle), 1500.0 + 10 * subject])
    forward = np.array([0, 0, 900.0]) - place
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    turn = np.stack([right, np.cross(forward, right), forward])
    spread = np.array([-0.2, 0.24, -0.002]), np.array([-0.0009, -0.0014])
    return Lens(turn, -turn @ place, np.array([114.5 + i, 114.3 - i]), np.array([51.2 + i, 50.4 - i]), *spread)


@dataclass(frozen=True)
class World:
    """What the files are written from. poses: (subject, action, take) -> (T, 32, 3) mm; lenses: by subject, camera."""

    poses: dict[tuple[int, int, int], np.ndarray]
    lenses: dict[tuple[int, int], Lens] = field(default_factory=dict)

    def joints(self, subject: int, action: int, take: int, camera: int, frame: int) -> np.ndarray:
        """The 17 joints before a camera, mm."""
        world = self.poses[subject, action, take][frame, PICKED]
        return self.lenses[subject, camera].look(world)


def make_world(length: int = 130, seed: int = 0) -> World:
    """One walk of `length` frames a sequence: a cloud of 32 joints that sways about a pelvis 0.9 m up."""
    rng = np.random.default_rng(seed)
    poses = {}
    for key in SEQUENCES:
        steps = np.linspace(-1, 1, length)[:, None, None]
        pelvis = np.array([0, 0, 900.0]) + steps * rng.uniform(-300, 300, 3) * [1, 1, 0.1]
        offsets = rng.uniform(-450, 450, (32, 3)) * (1 + 0.2 * np.sin(9 * steps))
        offsets[:, 0] = 0
        poses[key] = pelvis + offsets
    subjects = sorted({key[0] for key in SEQUENCES})
    return World(poses, {(s, n): make_lens(s, i) for s in subjects for i, n in enumerate(NUMBERS)})


def draw(path: Path, dot: np.ndarray) -> None:
    """A grey picture with a soft white dot."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    light = np.exp(-((x - dot[0]) ** 2 + (y - dot[1]) ** 2) / (2 * 2.0**2))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.repeat((40 + 200 * light).astype(np.uint8)[..., None], 3, 2)).save(path, quality=95)


def mark(root: Path) -> None:
    """The file that says that a folder holds no real data."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "FIXTURE").write_text("invented people before invented cameras\n")


def write_3dmppe(root: Path, world: World, listed: Sequence[int] = LISTED, images: bool = True) -> None:
    """annotations/*.json and images/, joints of the world in mm."""
    mark(root)
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for subject in sorted({key[0] for key in world.poses}):
        entries: list[dict[str, Any]] = []
        joints: dict[str, Any] = {}
        for (who, action, take), poses in world.poses.items():
            if who != subject:
                continue
            frames = {str(frame): poses[frame, PICKED].tolist() for frame in listed}
            joints.setdefault(str(action), {})[str(take)] = frames
            for i, number in enumerate(NUMBERS):
                name = f"s_{who:02d}_act_{action:02d}_subact_{take:02d}_ca_{i + 1:02d}"
                for frame in listed:
                    entry = {"id": len(entries), "file_name": f"{name}/{name}_{frame + 1:06d}.jpg", "subject": who}
                    entry |= {"width": WIDTH, "height": HEIGHT, "action_name": ACTION_NAMES[action]}
                    entry |= {"action_idx": action, "subaction_idx": take, "cam_idx": i + 1, "frame_idx": frame}
                    entries.append(entry)
                    if images:
                        at = world.joints(who, action, take, number, frame)[0]
                        draw(root / "images" / str(entry["file_name"]), world.lenses[who, number].flat(at))
        lenses = {str(i + 1): world.lenses[subject, n] for i, n in enumerate(NUMBERS)}
        camera = {i: {k: getattr(lens, k).tolist() for k in "Rtfc"} for i, lens in lenses.items()}
        boxes = [{"id": e["id"], "image_id": e["id"], "keypoints_vis": [1] * 17, "bbox": [0, 0, 9, 9]} for e in entries]
        files = {"data": {"images": entries, "annotations": boxes}, "camera": camera, "joint_3d": joints}
        for kind, content in files.items():
            (root / "annotations" / f"Human36M_subject{subject}_{kind}.json").write_text(json.dumps(content))


#: As the action's name stands in folders and JSON files.
ACTION_NAMES = {
    2: "Directions", 4: "Eating", 10: "SittingDown", 12: "TakingPhoto", 15: "WalkingDog", 16: "WalkTogether",
}  # fmt: skip


def write_fetch(root: Path, world: World, listed: Sequence[int] = LISTED, images: bool = True) -> None:
    """processed/S1/Eating-1/annot.h5 and imageSequence/, 32 joints of the camera in mm, frames from 1."""
    mark(root)
    for (subject, action, take), poses in world.poses.items():
        base = root / "processed" / f"S{subject}" / f"{ACTION_NAMES[action]}-{take}"
        base.mkdir(parents=True, exist_ok=True)
        columns: dict[str, list[Any]] = {"pose/2d": [], "pose/3d": [], "pose/3d-univ": [], "frame": [], "camera": []}
        with h5py.File(base / "annot.h5", "w") as file:
            for number in NUMBERS:
                lens = world.lenses[subject, number]
                intrinsics = [lens.f[0], lens.c[0], lens.f[1], lens.c[1]]
                file[f"intrinsics/{number}"] = file[f"intrinsics-univ/{number}"] = intrinsics
                for frame in listed:
                    joints = lens.look(poses[frame])
                    columns["pose/3d"].append(joints)
                    columns["pose/3d-univ"].append(1.1 * joints)
                    columns["pose/2d"].append(lens.flat(joints) + 0.1)  # the lens's distortion, more or less
                    columns["frame"].append(frame + 1)
                    columns["camera"].append(number)
                    if images:
                        draw(base / "imageSequence" / str(number) / f"img_{frame + 1:06d}.jpg", lens.flat(joints[0]))
            for name, values in columns.items():
                file[name] = np.array(values)
            for name, value in (("subject", subject), ("action", action), ("subaction", take)):
                file[name] = np.full(len(columns["frame"]), value)


def write_parameters(path: Path, world: World) -> None:
    """camera-parameters.json: R and t of the world -> camera, t in mm; distortion k1 k2 p1 p2 k3."""
    intrinsics: dict[str, Any] = {}
    extrinsics: dict[str, dict[str, Any]] = {}
    for (subject, number), lens in world.lenses.items():
        matrix = [[lens.f[0], 0, lens.c[0]], [0, lens.f[1], lens.c[1]], [0, 0, 1]]
        five = [lens.k[0], lens.k[1], lens.p[0], lens.p[1], lens.k[2]]
        intrinsics[str(number)] = {"calibration_matrix": matrix, "distortion": five}
        entry = {"R": lens.R.tolist(), "t": lens.t[:, None].tolist()}
        extrinsics.setdefault(f"S{subject}", {})[str(number)] = entry
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"intrinsics": intrinsics, "extrinsics": extrinsics}))


def write_videopose3d(root: Path, world: World, flat: bool = True) -> None:
    """data_3d_h36m.npz (world metres, float32), data_2d_h36m_gt.npz with two frames too many, the cameras."""
    mark(root)
    poses: dict[str, dict[str, Any]] = {}
    points: dict[str, dict[str, Any]] = {}
    for (subject, action, take), world_mm in world.poses.items():
        name = SEQUENCES[subject, action, take]
        poses.setdefault(f"S{subject}", {})[name] = (world_mm / 1000).astype(np.float32)
        lenses = [world.lenses[subject, number] for number in NUMBERS]
        seen = [lens.flat(lens.look(world_mm[:, PICKED])) for lens in lenses]
        longer = [np.concatenate([s, s[-2:]]).astype(np.float32) for s in seen]
        points.setdefault(f"S{subject}", {})[name] = longer
    root.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(root / "data_3d_h36m.npz", positions_3d=np.array(poses, dtype=object))
    if flat:
        sides = {"layout_name": "h36m", "num_joints": 17}
        held = {"positions_2d": np.array(points, dtype=object), "metadata": np.array(sides, dtype=object)}
        np.savez_compressed(root / "data_2d_h36m_gt.npz", **held)  # type: ignore[arg-type]
    write_parameters(root / "camera-parameters.json", world)


def write_mmpose(root: Path, world: World, listed: Sequence[int] = LISTED, images: bool = True, fps: int = 50) -> None:
    """annotation_body3d/fps50/h36m_{train,test}.npz in metres, cameras.pkl with R transposed, images/."""
    mark(root)
    base = root / "annotation_body3d"
    (base / f"fps{fps}").mkdir(parents=True, exist_ok=True)
    for split, subjects in (("train", (1, 5, 6, 7, 8)), ("test", (9, 11))):
        names, poses, parts = [], [], []
        for subject, action, take in world.poses:
            for number in NUMBERS:
                if subject not in subjects:
                    continue
                lens = world.lenses[subject, number]
                name = f"S{subject}_{SEQUENCES[subject, action, take].replace(' ', '_')}.{number}"
                for frame in listed:
                    joints = world.joints(subject, action, take, number, frame)
                    names.append(f"S{subject}/{name}/{name}_{frame + 1:06d}.jpg")
                    poses.append(np.concatenate([joints / 1000, np.ones((17, 1))], -1))
                    parts.append(np.concatenate([lens.flat(joints), np.ones((17, 1))], -1))
                    if images:
                        draw(root / "images" / names[-1], lens.flat(joints[0]))
        held = {"imgname": np.array(names), "S": np.array(poses), "part": np.array(parts)}
        held |= {"center": np.zeros((len(names), 2)), "scale": np.ones(len(names))}
        np.savez(base / f"fps{fps}" / f"h36m_{split}.npz", **held)  # type: ignore[arg-type]
    cameras = {
        (f"S{subject}", str(number)): {
            "R": lens.R.T, "T": -(lens.R.T @ lens.t)[:, None] / 1000, "f": lens.f[:, None], "c": lens.c[:, None],
            "k": lens.k[:, None], "p": lens.p[:, None], "w": WIDTH, "h": HEIGHT, "id": str(number),
        }
        for (subject, number), lens in world.lenses.items()
    }  # fmt: skip
    (base / "cameras.pkl").write_bytes(pickle.dumps(cameras))
