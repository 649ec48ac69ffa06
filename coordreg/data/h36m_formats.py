"""Human3.6M as others hand it on: four formats, one table of frames in millimetres and pixels.

    3dmppe         annotations/Human36M_subject1_{data,camera,joint_3d}.json and images/: joints of the world, mm
    h36m-fetch     processed/S1/Directions-1/annot.h5 and imageSequence/: joints of the camera, mm, 32 of them
    videopose3d    data_3d_h36m.npz, data_2d_h36m_gt.npz: joints of the world, METRES, 32 of them, no images;
                   cameras from camera-parameters.json
    mmpose         annotation_body3d/fps50/h36m_train.npz, cameras.pkl and images/: joints of the camera, METRES

The unit belongs to the format and is never guessed; a pose that cannot be in it is an error. Frames are numbered from
0 as in the official videos (50 a second), whatever a format calls them. Pixels are taken as the set has them.
"""

import json
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from coordreg.data.cameras import CAMERAS, Camera, camera_of, metric_cameras, read_parameters
from coordreg.data.h36m_records import HOME, Records, Table, need, parse_sequence, pick
from coordreg.data.pickles import load_pickle, read_objects

# -- 3DMPPE: JSON -----------------------------------------------------------------------------------------------------


def read_3dmppe(root: Path, subjects: Sequence[int], every: int) -> Records:
    """Three JSON files a subject: images, cameras (R, t in mm) and joints of the world in mm."""
    base = need(root / "annotations")
    table = Table("3dmppe", base, every)
    for subject in subjects:
        files = {kind: base / f"Human36M_subject{subject}_{kind}.json" for kind in ("data", "camera", "joint_3d")}
        loaded = {kind: _json(need(path)) for kind, path in files.items()}
        lenses = {int(k): Camera(*(np.array(v[key]) for key in "Rtfc")) for k, v in loaded["camera"].items()}
        sequences: dict[tuple[int, int, int], dict[int, Path]] = {}
        for image in loaded["data"]["images"]:
            if int(image["frame_idx"]) % every == 0:
                key = int(image["action_idx"]), int(image["subaction_idx"]), int(image["cam_idx"])
                sequences.setdefault(key, {})[int(image["frame_idx"])] = root / "images" / image["file_name"]
        for (action, take, number), images in sequences.items():
            if number not in lenses:
                raise ValueError(
                    f"Human3.6M: {files['camera']} has no camera {number} of subject S{subject}, only its cameras "
                    f"{sorted(lenses)}; get the whole file"
                )
            frames = sorted(images)
            try:
                poses = loaded["joint_3d"][str(action)][str(take)]
                world = np.array([poses[str(frame)] for frame in frames], dtype=np.float64)
            except (KeyError, ValueError) as error:
                raise ValueError(
                    f"Human3.6M: {files['joint_3d']} has no joints, or not equally many, of action {action}, take "
                    f"{take}, which {files['data'].name} lists (entry {error}); get both files from one place"
                ) from error
            lens, sequence = lenses[number], (subject, action, take, CAMERAS[number - 1])
            table.source = files["joint_3d"]
            camera = world if world.shape[1:] != (17, 3) else lens.to_camera(world)
            table.add(sequence, frames, camera, lens.f, lens.c, paths=[images[frame] for frame in frames])
    return table.done()


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"Human3.6M: {path} is no JSON or cut short ({error}); get it again") from error


# -- h36m-fetch: HDF5 -------------------------------------------------------------------------------------------------


def read_fetch(root: Path, subjects: Sequence[int], every: int) -> Records:
    """One annot.h5 a sequence with the joints before each camera in mm; images beside it."""
    base = root / "processed" if (root / "processed").is_dir() else root
    table = Table("h36m-fetch", base, every)
    for subject in subjects:
        files = sorted(need(base / f"S{subject}").glob("*/annot.h5"))
        if not files:
            raise ValueError(f"Human3.6M: {base / f'S{subject}'} has no */annot.h5; the set is got from {HOME}")
        for path in files:
            table.source = path
            names = ("pose/2d", "pose/3d", "frame", "camera", "subject", "action", "subaction")
            try:
                with h5py.File(path) as file:
                    if absent := [n for n in names if n not in file]:
                        raise ValueError(
                            f"Human3.6M: {path} has no {absent[0]!r}, only {sorted(file)}; it is of an old h36m-fetch, "
                            "make it again with the current one"
                        )
                    d = {name: np.asarray(file[name]) for name in names}
                    lenses = {int(name): np.asarray(value) for name, value in file["intrinsics"].items()}
            except (OSError, KeyError) as error:
                raise ValueError(f"Human3.6M: {path} is not a whole HDF5 file ({error}); make it again") from error
            joints, pixels = pick(d["pose/3d"], path), pick(d["pose/2d"], path)
            for camera in np.unique(d["camera"]).tolist():
                if camera not in lenses:
                    raise ValueError(
                        f"Human3.6M: {path} has no intrinsics of camera {camera}, only of {sorted(lenses)}; make it "
                        "again"
                    )
                rows = np.flatnonzero(d["camera"] == camera)
                fx, cx, fy, cy = lenses[camera].reshape(4)
                takes = (int(d[key][rows[0]]) for key in ("subject", "action", "subaction"))
                folder = path.parent / "imageSequence" / str(camera)
                table.add(
                    (*takes, camera),  # type: ignore[arg-type]
                    d["frame"][rows] - 1,  # counted from 1 in this form
                    joints[rows],
                    np.array([fx, fy]),
                    np.array([cx, cy]),
                    pixels[rows],
                    [folder / f"img_{frame:06d}.jpg" for frame in d["frame"][rows].tolist()],
                )
    return table.done()


# -- VideoPose3D: pickled arrays --------------------------------------------------------------------------------------


def read_videopose3d(root: Path, subjects: Sequence[int], every: int) -> Records:
    """World joints in metres by subject and action; no images. The cameras come from camera-parameters.json."""
    path, flat = need(root / "data_3d_h36m.npz"), root / "data_2d_h36m_gt.npz"
    poses = read_objects(path, "positions_3d")
    seen = read_objects(flat, "positions_2d") if flat.is_file() else None
    cameras = read_parameters(root / "camera-parameters.json")
    table = Table("videopose3d", path, every)
    for subject in subjects:
        if f"S{subject}" not in poses:
            raise ValueError(f"Human3.6M: {path} has no subject S{subject}, only {sorted(poses)}; get the whole file")
        for name, metres in poses[f"S{subject}"].items():
            action, take = parse_sequence(name, subject)
            world = 1000 * pick(np.asarray(metres, dtype=np.float64), path)
            for i, number in enumerate(CAMERAS):
                lens = camera_of(cameras, subject, number, root / "camera-parameters.json")
                pixels = None
                if seen is not None:
                    pixels = np.asarray(seen[f"S{subject}"][name][i], dtype=np.float64)[: len(world)]
                    if pixels.shape != (len(world), 17, 2):
                        raise ValueError(
                            f"Human3.6M: {flat} has points of shape {pixels.shape} for {name!r} of S{subject}, camera "
                            f"{number}, expected {(len(world), 17, 2)}; get both files from one place"
                        )
                sequence = (subject, action, take, number)
                table.add(sequence, np.arange(len(world)), lens.to_camera(world), lens.f, lens.c, pixels)
    return table.done()


# -- mmpose: arrays in metres -----------------------------------------------------------------------------------------

_IMGNAME = re.compile(r"S(\d+)/S\d+_(.+)\.(\d{8})/.*_(\d+)\.(?:jpg|png)")


def read_mmpose(root: Path, subjects: Sequence[int], every: int) -> Records:
    """Joints before the camera in metres, named by image; fps50 if it is there, else every fifth frame of fps10."""
    base = need(root / "annotation_body3d")
    rates = {50: 1, 10: 5}
    rate = next((r for r in rates if (base / f"fps{r}").is_dir()), 50)
    files = [path for path in sorted(need(base / f"fps{rate}").glob("h36m_*.npz")) if path.stem[5:] in _SPLITS]
    if not files:
        raise ValueError(f"Human3.6M: {base / f'fps{rate}'} has neither h36m_train.npz nor h36m_test.npz; see {HOME}")
    if every % rates[rate]:
        raise ValueError(
            f"Human3.6M: got every={every}, but {base / f'fps{rate}'} has only every {rates[rate]}th frame; make "
            f"fps50, or give a multiple of {rates[rate]}"
        )
    place = need(base / "cameras.pkl")
    cameras = metric_cameras(load_pickle(place.read_bytes(), place))
    table = Table("mmpose", base, every)
    found: set[int] = set()
    for path in files:
        table.source = path
        try:
            with np.load(path, allow_pickle=False) as file:
                names, poses, parts = file["imgname"], file["S"], file["part"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"Human3.6M: {path} is cut short or of another form ({error}); get it again") from error
        if not len(names) == len(poses) == len(parts):
            raise ValueError(
                f"Human3.6M: {path} has {len(names)} names, {len(poses)} poses and {len(parts)} sets of points, "
                "expected equal numbers; make it again"
            )
        rows: dict[tuple[int, int, int, int], list[tuple[int, int]]] = {}
        known: dict[tuple[str, str], tuple[int, int]] = {}
        for row, name in enumerate(names.tolist()):
            if (match := _IMGNAME.fullmatch(name)) is None:
                raise ValueError(
                    f"Human3.6M: {path} names {name!r}, expected S1/S1_Directions_1.54138969/..._000001.jpg"
                )
            who, sequence, camera, number = match.groups()
            found.add(int(who))
            if int(who) not in subjects:
                continue
            if (who, sequence) not in known:
                known[who, sequence] = parse_sequence(sequence, int(who))
            key = (int(who), *known[who, sequence], int(camera))
            rows.setdefault(key, []).append((row, int(number) - 1))  # counted from 1 in the names
        for key, pairs in rows.items():
            lens = camera_of(cameras, key[0], key[3], place)
            at = np.array([row for row, _ in pairs])
            paths = [root / "images" / names[row] for row in at]
            joints, pixels = 1000 * poses[at][..., :3].astype(np.float64), parts[at][..., :2].astype(np.float64)
            table.add(key, [frame for _, frame in pairs], joints, lens.f, lens.c, pixels, paths)
    if absent := sorted(set(subjects) - found):
        raise ValueError(
            f"Human3.6M: {[path.name for path in files]} in {files[0].parent} have no subject S{absent[0]}, only "
            f"{[f'S{s}' for s in sorted(found)]}; get both h36m_train.npz and h36m_test.npz"
        )
    return table.done()


_SPLITS = ("train", "test")
READERS: Mapping[str, Callable[[Path, Sequence[int], int], Records]] = {
    "3dmppe": read_3dmppe, "h36m-fetch": read_fetch, "videopose3d": read_videopose3d, "mmpose": read_mmpose,
}  # fmt: skip


def read(root: Path | str, form: str, subjects: Sequence[int], every: int = 1) -> Records:
    """The frames of `subjects` whose number `every` divides, in one of the four formats.

    Raises ValueError for a form, file, subject or camera that is not there, naming it, what was found and where to
    get it.
    """
    if form not in READERS:
        raise ValueError(f"Human3.6M: got the form {form!r}, expected one of {', '.join(READERS)}")
    if every < 1 or not subjects or len(set(subjects)) != len(subjects):
        raise ValueError(f"Human3.6M: got every={every}, subjects={list(subjects)}, expected at least 1, each once")
    return READERS[form](need(Path(root)), subjects, every)
