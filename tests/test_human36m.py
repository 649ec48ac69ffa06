"""Human3.6M in four formats written here in miniature; cameras in two spellings; crops, labels, millimetres again."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import h5py
import numpy as np
import pytest
import torch
from h36m_fixture import (
    LISTED,
    NUMBERS,
    SEQUENCES,
    World,
    make_lens,
    make_world,
    write_3dmppe,
    write_fetch,
    write_mmpose,
    write_parameters,
    write_videopose3d,
)  # fmt: skip
from hypothesis import given
from hypothesis import strategies as st
from real_data import real

from coordreg.coords import apply_affine, flip_coords
from coordreg.data import pack, places
from coordreg.data.augment import Augment
from coordreg.data.cameras import CAMERAS, Camera, camera_of, from_metres, metric_cameras, read_parameters
from coordreg.data.h36m_formats import read
from coordreg.data.h36m_records import ACTIONS, JOINTS, Records, parse_sequence, with_images
from coordreg.data.human36m import COLUMNS, H36MStore, Human36M, boxes, by_action, labels, to_camera_mm
from coordreg.data.pickles import load_pickle, read_objects
from coordreg.data.skeletons import H36M17
from coordreg.metrics.mpjpe import joint_errors, mpjpe
from coordreg.spec import describe, rebuild

WRITERS: dict[str, Callable[..., None]] = {"3dmppe": write_3dmppe, "h36m-fetch": write_fetch, "mmpose": write_mmpose}
EVERYBODY = (1, 5, 6, 7, 8, 9, 11)


@pytest.fixture(scope="session")
def world() -> World:
    return make_world()


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, world: World) -> dict[str, Path]:
    """Every format in its folder, the same poses in all; not to be changed."""
    roots = {form: tmp_path_factory.mktemp(form) for form in [*WRITERS, "videopose3d"]}
    for form, write in WRITERS.items():
        write(roots[form], world)
    write_videopose3d(roots["videopose3d"], world)
    return roots


@pytest.fixture
def small(tmp_path: Path, world: World) -> tuple[Path, World]:
    """Subjects 1 and 5 alone, to be written without images and spoilt."""
    poses = {key: value.copy() for key, value in world.poses.items() if key[0] in (1, 5)}
    return tmp_path, World(poses, {key: lens for key, lens in world.lenses.items() if key[0] in (1, 5)})


def camera(subject: int = 9, i: int = 2, **changes: Any) -> Camera:
    lens = make_lens(subject, i)
    return Camera(**({"R": lens.R, "t": lens.t, "f": lens.f, "c": lens.c} | changes))


# -- cameras ----------------------------------------------------------------------------------------------------------


def test_a_point_by_hand() -> None:
    """A quarter turn about z, then 4 m forward: world (10, 20, 30) is at (-20, 10, 4030) before the camera."""
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    own = Camera(turn, np.array([0, 0, 4000.0]), np.array([403.0, 806.0]), np.array([50.0, 60.0]))
    np.testing.assert_allclose(own.to_camera(np.array([10.0, 20, 30])), [-20, 10, 4030])
    np.testing.assert_allclose(own.project(np.array([-20.0, 10, 4030])), [48, 62])
    np.testing.assert_allclose(own.unproject(np.array([48.0, 62]), np.array(4030.0)), [-20, 10, 4030])


@given(st.integers(1, 11), st.integers(0, 3), st.integers(0, 10**6))
def test_there_and_back(subject: int, i: int, seed: int) -> None:
    own = camera(subject, i)
    points = np.random.default_rng(seed).uniform([-2000, -2000, 500], [2000, 2000, 9000], (5, 3, 3))
    np.testing.assert_allclose(own.to_camera(own.to_world(points)), points, atol=1e-8)
    np.testing.assert_allclose(own.unproject(own.project(points), points[..., 2]), points, atol=1e-8)


def test_distortion_by_hand() -> None:
    """At (0.2, -0.1), r^2 = 0.05, one number at a time; f = 1 and c = 0."""
    point = np.array([200.0, -100.0, 1000.0])
    for position, shift in enumerate(
        [(0.05 * 0.2, 0.05 * -0.1), (0.0025 * 0.2, 0.0025 * -0.1), (0.000125 * 0.2, 0.000125 * -0.1),
         (2 * 0.2 * -0.1, 0.05 + 2 * 0.01), (0.05 + 2 * 0.04, 2 * 0.2 * -0.1)]
    ):  # fmt: skip
        five = np.eye(5)[position]
        own = camera(f=np.ones(2), c=np.zeros(2), k=five[:3], p=five[3:])
        np.testing.assert_allclose(own.project(point, distort=True) - own.project(point), shift, atol=1e-12)


def test_both_spellings_are_one_camera(tmp_path: Path, world: World) -> None:
    """R and its transpose, millimetres and metres, five numbers in two orders."""
    write_parameters(tmp_path / "camera-parameters.json", world)
    first = read_parameters(tmp_path / "camera-parameters.json")
    content = {
        (f"S{s}", str(n)): {
            "R": v.R.T, "T": -(v.R.T @ v.t).reshape(3, 1) / 1000, "f": v.f, "c": v.c, "k": v.k[:, None], "p": v.p,
        }
        for (s, n), v in world.lenses.items()
    }  # fmt: skip
    second = metric_cameras(content)
    assert sorted(first) == sorted(second) == sorted(world.lenses)
    points = np.random.default_rng(0).uniform(-500, 500, (6, 17, 3))
    for key, lens in world.lenses.items():
        for own in (first[key], second[key]):
            np.testing.assert_allclose(own.to_camera(points), lens.look(points), atol=1e-6)
            np.testing.assert_allclose(own.project(lens.look(points)), lens.flat(lens.look(points)), atol=1e-8)
            np.testing.assert_allclose(np.concatenate([own.k, own.p]), np.concatenate([lens.k, lens.p]))
    wrong = from_metres(world.lenses[1, NUMBERS[0]].R, np.zeros(3), np.ones(2), np.zeros(2))
    assert np.abs(wrong.R - world.lenses[1, NUMBERS[0]].R).max() > 0.1


def test_cameras_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not a rotation"):
        camera(R=2 * np.eye(3))
    with pytest.raises(ValueError, match=r"not a rotation"):
        camera(R=np.diag([1.0, 1, -1]))
    with pytest.raises(ValueError, match=r"got f of shape \(3,\), expected 2 finite numbers"):
        camera(f=np.ones(3))
    with pytest.raises(ValueError, match="one of k and p"):
        camera(k=np.zeros(3))
    with pytest.raises(ValueError, match=r"depth -5 mm.*R transposed"):
        camera().project(np.array([[1.0, 1, 10], [1, 1, -5]]))
    with pytest.raises(ValueError, match="no k and p"):
        camera().project(np.array([1.0, 1, 10]), distort=True)
    with pytest.raises(
        ValueError, match=r"nowhere\.json are not there; get camera-parameters\.json from https://github"
    ):
        read_parameters(tmp_path / "nowhere.json")
    (tmp_path / "a.json").write_text('{"intrinsics": {}}')
    with pytest.raises(ValueError, match=r"a\.json does not have the form"):
        read_parameters(tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"form of cameras\.pkl"):
        metric_cameras({("S1", "54138969"): {"R": np.eye(3)}})
    with pytest.raises(ValueError, match=r"no camera 60457274 of subject S1, only its cameras \[54138969\]"):
        camera_of({(1, 54138969): camera()}, 1, 60457274, Path("x"))
    with pytest.raises(ValueError, match=r"of subject S7, the subjects \['S1'\]"):
        camera_of({(1, 54138969): camera()}, 7, 60457274, Path("x"))


# -- formats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [*WRITERS, "videopose3d"])
def test_each_format_gives_the_same_poses(form: str, whole: dict[str, Path], world: World) -> None:
    records = read(whole[form], form, EVERYBODY)
    frames = range(130) if form == "videopose3d" else LISTED
    assert len(records.frame) == (len(SEQUENCES) * 4 - 1) * len(frames)
    assert set(records.frame.tolist()) == set(frames)
    assert records.skipped == {"known gap": len(frames)}
    rows = range(0, len(records.frame), 1 if form != "videopose3d" else 37)
    for row in rows:
        who, action, take, number, frame = (
            int(v[row]) for v in (records.subject, records.action, records.take, records.camera, records.frame)
        )
        expected = world.joints(who, action, take, number, frame)
        np.testing.assert_allclose(records.joints[row], expected, atol=2e-3 if form == "videopose3d" else 1e-6)
        lens = world.lenses[who, number]
        shift = 0.1 if form == "h36m-fetch" else 0  # this form's own points, see the fixture
        np.testing.assert_allclose(records.pixels[row], lens.flat(expected) + shift, atol=1e-4)
        np.testing.assert_allclose([records.focal[row], records.centre[row]], [lens.f, lens.c])
        assert (records.paths[row] is None) == (form == "videopose3d")
    sequences = zip(records.subject.tolist(), records.action.tolist(), records.take.tolist(), strict=True)
    assert set(sequences) == set(SEQUENCES)


def test_the_gap_is_that_one_camera(whole: dict[str, Path]) -> None:
    records = read(whole["mmpose"], "mmpose", (11,))
    seen = {(int(t), int(c)) for t, c in zip(records.take, records.camera, strict=True)}
    assert seen == {(t, c) for t in (1, 2) for c in NUMBERS} - {(2, 54138969)}


def test_every_64th_frame(whole: dict[str, Path]) -> None:
    for form in WRITERS:
        assert sorted(set(read(whole[form], form, (9,), 64).frame.tolist())) == [0, 64, 128]
        assert sorted(set(read(whole[form], form, (9,), 5).frame.tolist())) == [0, 5]
    assert sorted(set(read(whole["videopose3d"], "videopose3d", (9,), 50).frame.tolist())) == [0, 50, 100]


def test_fps10(small: tuple[Path, World]) -> None:
    root, few = small
    write_mmpose(root, few, listed=(0, 5, 10), images=False, fps=10)
    assert sorted(set(read(root, "mmpose", (1, 5), 5).frame.tolist())) == [0, 5, 10]
    named = places.files(Human36M(root, "mmpose"))
    assert named[0] == root / "annotation_body3d" / "fps10" / "h36m_train.npz"
    assert named[0].is_file()
    with pytest.raises(ValueError, match=r"every=64, but .*fps10 has only every 5th frame"):
        read(root, "mmpose", (1,), 64)


def test_without_the_flat_points_they_are_projected(small: tuple[Path, World]) -> None:
    root, few = small
    write_videopose3d(root, few, flat=False)
    records = read(root, "videopose3d", (5,), 60)
    expected = few.lenses[5, NUMBERS[0]].flat(few.joints(5, 2, 2, NUMBERS[0], 60))
    np.testing.assert_allclose(records.pixels[1], expected, atol=1e-4)


def test_names_of_sequences() -> None:
    assert [parse_sequence(name, key[0]) for key, name in SEQUENCES.items()] == [key[1:] for key in SEQUENCES]
    assert parse_sequence("SittingDown_1", 9) == (10, 2)
    assert parse_sequence("WalkingDog", 1) == parse_sequence("WalkDog", 7) == (15, 2)
    for name in ("Dancing 1", "Eating 1", "Eating 7"):
        with pytest.raises(ValueError, match=f"got the sequence '{name}' of S1, expected one of Directions"):
            parse_sequence(name, 1)


def test_names_of_all_sequences_against_the_official_list() -> None:
    rows = [
        [cell.text or "" for cell in row]
        for row in ElementTree.parse(real("h36m-meta/metadata.xml")).find("mapping") or []
    ]
    rows = [row for row in rows[1:33] if row[0] != "1"]
    assert len(rows) == 30
    for action, take, *names in rows:
        for subject in EVERYBODY:
            assert parse_sequence(names[subject - 1], subject) == (int(action), int(take)), names[subject - 1]


def test_the_real_cameras() -> None:
    """Four cameras for each of 11 subjects; all stand 4 to 7 m from the origin, above a person's waist, and see it."""
    cameras = read_parameters(real("h36m-meta/camera-parameters.json"))
    assert len(cameras) == 44
    waist = np.array([[0.0, 0, 900]])
    for own in cameras.values():
        assert 4000 < np.linalg.norm(own.to_world(np.zeros(3))) < 7000
        assert own.to_world(np.zeros(3))[2] > 1000
        pixel = own.project(own.to_camera(waist))[0]
        assert ((pixel > 200) & (pixel < 800)).all()
        away = own.to_camera(np.array([[300.0, 300, 1700]]))
        assert 0.01 < np.abs(own.project(away, distort=True) - own.project(away)).max() < 8


# -- pickles ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_come_out_of_a_pickle(protocol: int) -> None:
    held = {"S1": {"a": np.arange(6.0).reshape(2, 3), "b": [np.float32(2), "x", (1, None)]}}
    back = load_pickle(pickle.dumps(held, protocol), Path("x"))
    np.testing.assert_array_equal(back["S1"]["a"], held["S1"]["a"])
    assert back["S1"]["b"] == [2, "x", (1, None)]


class Evil:
    """What a hostile file holds."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    bad = {"S1": Evil(tmp_path / "hit")}
    np.savez(tmp_path / "data_3d_h36m.npz", positions_3d=np.array(bad, dtype=object))
    with pytest.raises(ValueError, match=r"data_3d_h36m\.npz is refused \(it asks for posix\.mkdir"):
        read(tmp_path, "videopose3d", (1,))
    assert not (tmp_path / "hit").exists()
    pickle.loads(pickle.dumps(bad))  # what would have happened
    assert (tmp_path / "hit").exists()
    for other in (pickle.dumps(print), pickle.dumps(np.load), b"\x80\x04cut"):
        with pytest.raises(ValueError, match="is refused"):
            load_pickle(other, tmp_path)


def test_damaged_archives(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", other=np.zeros(3), plain=np.zeros(3))
    with pytest.raises(ValueError, match=r"a\.npz is cut short or has no 'positions_3d'"):
        read_objects(tmp_path / "a.npz", "positions_3d")
    with pytest.raises(ValueError, match=r"'plain' in .* is an array of float64, expected a dict"):
        read_objects(tmp_path / "a.npz", "plain")
    (tmp_path / "a.npz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="is cut short"):
        read_objects(tmp_path / "a.npz", "positions_3d")


# -- what is missing or wrong -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "missing"),
    [
        ("3dmppe", "annotations"), ("h36m-fetch", "S1"), ("videopose3d", "data_3d_h36m.npz"),
        ("mmpose", "annotation_body3d"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_named_with_its_page(form: str, missing: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"{missing} is not there; the set is got from http://vision\.imar\.ro"):
        read(tmp_path, form, (1,))
    with pytest.raises(ValueError, match=r"nowhere is not there.*an account is needed; nothing is downloaded"):
        read(tmp_path / "nowhere", form, (1,))


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("3dmppe", r"Human36M_subject9_data\.json is not there"), ("h36m-fetch", r"S9 is not there"),
        ("videopose3d", r"no subject S9, only \['S1', 'S5'\]"), ("mmpose", r"no subject S9, only \['S1', 'S5'\]"),
    ],
)  # fmt: skip
def test_a_missing_subject_is_named_with_what_was_found(form: str, message: str, small: tuple[Path, World]) -> None:
    root, few = small
    writers = {**WRITERS, "videopose3d": write_videopose3d}
    writers[form](root, few, **({} if form == "videopose3d" else {"images": False}))
    with pytest.raises(ValueError, match=message):
        read(root, form, (1, 9))


def test_a_missing_camera_is_named_with_what_was_found(small: tuple[Path, World]) -> None:
    root, few = small
    for form in ("3dmppe", "h36m-fetch", "mmpose"):
        WRITERS[form](root, few, images=False)
    path = root / "annotations" / "Human36M_subject5_camera.json"
    kept = {key: value for key, value in json.loads(path.read_text()).items() if key != "3"}
    path.write_text(json.dumps(kept))
    with pytest.raises(ValueError, match=r"no camera 3 of subject S5, only its cameras \[1, 2, 4\]"):
        read(root, "3dmppe", (1, 5))
    path = root / "annotation_body3d" / "cameras.pkl"
    cameras = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps({key: v for key, v in cameras.items() if key != ("S1", "55011271")}))
    with pytest.raises(ValueError, match=r"no camera 55011271 of subject S1, only its cameras \[54138969, 58860488"):
        read(root, "mmpose", (1, 5))
    with h5py.File(root / "processed" / "S1" / "Eating-1" / "annot.h5", "a") as file:
        del file["intrinsics/60457274"]
    with pytest.raises(ValueError, match=r"no intrinsics of camera 60457274, only of \[54138969, 55011271, 58860488\]"):
        read(root, "h36m-fetch", (1,))


def test_the_wrong_number_of_joints_is_said(small: tuple[Path, World]) -> None:
    root, few = small
    write_3dmppe(root, few, images=False)
    path = root / "annotations" / "Human36M_subject1_joint_3d.json"
    content = json.loads(path.read_text())
    short = {frame: pose[:16] for frame, pose in content["4"]["1"].items()}
    path.write_text(json.dumps({"4": {"1": short}}))
    with pytest.raises(ValueError, match=r"joint_3d\.json has 16 joints for 5 frames of S1 action 4.*expected 17"):
        read(root, "3dmppe", (1,))
    path.write_text(json.dumps({"4": {"1": content["4"]["1"] | {"5": short["5"]}}}))
    with pytest.raises(ValueError, match="has no joints, or not equally many"):
        read(root, "3dmppe", (1,))
    write_parameters(root / "camera-parameters.json", few)
    poses = {"S1": {"Eating 2": np.zeros((4, 17, 3), np.float32)}}
    np.savez(root / "data_3d_h36m.npz", positions_3d=np.array(poses, dtype=object))
    with pytest.raises(ValueError, match=r"poses of shape \(4, 17, 3\), expected \(frames, 32, coordinates\)"):
        read(root, "videopose3d", (1,))


def test_metres_where_millimetres_belong_are_noticed(small: tuple[Path, World]) -> None:
    """And millimetres where metres do: no unit is guessed, but none is believed that puts a person in the next town."""
    root, few = small
    write_mmpose(root, few, images=False)
    path = root / "annotation_body3d" / "fps50" / "h36m_train.npz"
    arrays = dict(np.load(path))
    np.savez(path, **(arrays | {"S": 1000 * arrays["S"]}))
    with pytest.raises(ValueError, match="the form 'mmpose' has another unit"):
        read(root, "mmpose", (1,))
    write_fetch(root, few, images=False)
    with h5py.File(root / "processed" / "S1" / "Eating-1" / "annot.h5", "a") as file:
        file["pose/3d"][:] = np.asarray(file["pose/3d"]) / 1000
    with pytest.raises(ValueError, match=r"pelvis is 3\.\d+ to 4\.\d+ mm from.*'h36m-fetch' has another unit"):
        read(root, "h36m-fetch", (1,))


def test_poses_that_are_not_finite_are_counted(small: tuple[Path, World]) -> None:
    root, few = small
    few.poses[1, 4, 1][64, 3] = np.nan
    write_mmpose(root, few, images=False)
    records = read(root, "mmpose", (1, 5))
    assert records.skipped == {"not finite": 4}
    assert len(records.frame) == 2 * 4 * 5 - 4
    write_mmpose(root, few, listed=(5, 63), images=False)
    with pytest.raises(ValueError, match=r"no frame that was asked for \(every 64th\)"):
        read(root, "mmpose", (1,), 64)


def test_questions_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="got the form 'h36m', expected one of 3dmppe, h36m-fetch, videopose3d, mmpose"
    ):
        read(tmp_path, "h36m", (1,))
    for every, subjects in ((0, (1,)), (1, ()), (1, (1, 1))):
        with pytest.raises(ValueError, match=f"got every={every}, subjects="):
            read(tmp_path, "mmpose", subjects, every)
    (tmp_path / "annotations").mkdir()
    for kind in ("data", "camera", "joint_3d"):
        (tmp_path / "annotations" / f"Human36M_subject1_{kind}.json").write_text('{"a": ')
    with pytest.raises(ValueError, match="is no JSON or cut short"):
        read(tmp_path, "3dmppe", (1,))
    (tmp_path / "S1" / "Eating-1").mkdir(parents=True)
    (tmp_path / "S1" / "Eating-1" / "annot.h5").write_bytes(b"no hdf5")
    with pytest.raises(ValueError, match="not a whole HDF5 file"):
        read(tmp_path, "h36m-fetch", (1,))
    with h5py.File(tmp_path / "S1" / "Eating-1" / "annot.h5", "w") as file:
        file["pose/2d"] = 0
    with pytest.raises(ValueError, match=r"has no 'pose/3d', only \['pose'\]; it is of an old h36m-fetch"):
        read(tmp_path, "h36m-fetch", (1,))


# -- the data set -----------------------------------------------------------------------------------------------------


def config(root: Path, form: str = "3dmppe", **changes: Any) -> Human36M:
    return Human36M(root, form, **({"split": "test", "size": 32} | changes))


@pytest.fixture(scope="session")
def store(whole: dict[str, Path]) -> H36MStore:
    return config(whole["3dmppe"]).open()


@pytest.mark.parametrize(
    ("protocol", "split", "subjects", "frames"),
    [
        (1, "train", {1, 5, 6, 7, 8, 9}, {0, 5}), (1, "test", {11}, {0, 64, 128}),
        (2, "train", {1, 5, 6, 7, 8}, {0, 5}), (2, "test", {9, 11}, {0, 64, 128}),
    ],
)  # fmt: skip
def test_protocols(whole: dict[str, Path], protocol: int, split: str, subjects: set[int], frames: set[int]) -> None:
    records = config(whole["mmpose"], "mmpose", protocol=protocol, split=split).records()
    assert set(records.subject.tolist()) == subjects
    assert set(records.frame.tolist()) == frames
    own = config(whole["mmpose"], "mmpose", protocol=protocol, split=split, subjects=(7,), every=1).records()
    assert set(own.subject.tolist()) == {7}
    assert set(own.frame.tolist()) == set(LISTED)


def test_what_fetch_kept_for_training_is_all_used(whole: dict[str, Path]) -> None:
    assert set(config(whole["h36m-fetch"], "h36m-fetch", split="train").records().frame.tolist()) == set(LISTED)
    assert set(config(whole["h36m-fetch"], "h36m-fetch").records().frame.tolist()) == {0, 64, 128}


def test_a_store_as_others_want_it(store: H36MStore) -> None:
    count = (4 + 7) * 3
    assert len(store) == count
    assert store.images.shape == (count, 3, 32, 32)
    assert store.images.dtype == torch.uint8
    batch = store.batch(torch.tensor([4, 0, 31]))
    assert batch.images.shape == (3, 3, 32, 32)
    assert 0 <= batch.images.min() < batch.images.max() <= 1
    assert batch.labels.coords.shape == batch.labels.weight.shape == (3, 17, 3)
    assert batch.labels.weight.min() == 1
    assert batch.visible.all()
    assert batch.affine.shape == (3, 3, 4)
    assert batch.normaliser.shape == (3,)
    assert (store.normaliser >= 1).all()
    assert store.pairs == ((1, 4), (2, 5), (3, 6), (11, 14), (12, 15), (13, 16))
    assert store.joints == H36M17.joints
    assert store.skipped == (("known gap", 3),)
    assert set(store.action.tolist()) == {2, 10}
    assert store.to("cpu").fingerprint == store.fingerprint
    assert isinstance(store.to("cpu"), H36MStore)


def test_large_images_stay_on_the_host(store: H36MStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.to("meta").images.device.type == "meta"
    monkeypatch.setattr(pack, "IN_MEMORY", 1000)
    moved = store.to("meta")
    assert moved.images.device.type == "cpu"
    assert moved.coords.device.type == moved.focal.device.type == "meta"
    assert moved.batch(torch.tensor([1, 2])).images.device.type == "meta"


@pytest.mark.parametrize("form", list(WRITERS))
def test_the_pelvis_is_where_the_picture_has_it(form: str, whole: dict[str, Path]) -> None:
    """The dot that was drawn lies at the crop's middle, and the affine takes it to its pixel."""
    opened = config(whole[form], form, size=48).open()
    light = opened.images[:, 0].double().sub(60).clamp_min(0)
    x, y = ((2 * torch.arange(48) + 1) / 48 - 1).expand(48, 48), ((2 * torch.arange(48) + 1) / 48 - 1)
    total = light.sum((1, 2))
    found = torch.stack([(light * x).sum((1, 2)) / total, (light * y[:, None]).sum((1, 2)) / total], -1)
    assert found.abs().max() < 0.02
    assert opened.coords[:, 0].abs().max() < 1e-5
    pixel = apply_affine(opened.affine, opened.coords)[:, 0]
    expected = opened.focal * opened.truth[:, 0, :2] / opened.truth[:, 0, 2:] + opened.centre
    torch.testing.assert_close(pixel[:, :2], expected, atol=1e-4, rtol=0)
    assert pixel[:, 2].abs().max() < 1e-3


def one(joints: np.ndarray, f: tuple[float, float] = (1100.0, 1000.0)) -> Records:
    """A table of one frame with these 17 joints before a camera with c = (500, 520)."""
    row = np.zeros(1, dtype=np.int64)
    flat = np.zeros((1, 17, 2))
    lens = np.array([f]), np.array([[500.0, 520.0]])
    return Records(row, row, row, row, row, [None], joints[None], flat, *lens, {})


def test_crop_by_hand() -> None:
    """Pelvis 5 m away: 1000 mm to the left at its depth is x = -1, 1000 mm up y = -1, 1000 mm behind it z = 1."""
    joints = np.tile([100.0, -250.0, 5000.0], (17, 1))
    joints[1] += [-1000, 0, 0]
    joints[2] += [0, -1000, 0]
    joints[3] += [0, 0, 1000]
    joints[4] += [500, 250, -500]
    records = one(joints)
    middle, sides = boxes(records, 2000.0)
    np.testing.assert_allclose(middle, [[522, 470]])
    np.testing.assert_allclose(sides, [[440, 400]])
    coords, affine = labels(records, middle, sides, 1000.0)
    np.testing.assert_allclose(coords[0, :3], [[0, 0, 0], [-1, 0, 0], [0, -1, 0]], atol=1e-12)
    # 100/6000 and -250/6000 of the plane, in half boxes of 0.2
    np.testing.assert_allclose(coords[0, 3], [(100 / 6000 - 0.02) / 0.2, (-250 / 6000 + 0.05) / 0.2, 1])
    np.testing.assert_allclose(coords[0, 4], [(600 / 4500 - 0.02) / 0.2, 0.25, -0.5])
    np.testing.assert_allclose(affine[0], [[220, 0, 0, 522], [0, 200, 0, 470], [0, 0, 220, 0]])


@pytest.mark.parametrize("changes", [{}, {"root_box": 1500}, {"split": "train", "augment": Augment(flip=0.0)}])
def test_labels_go_back_to_millimetres(whole: dict[str, Path], changes: dict[str, Any]) -> None:
    opened = config(whole["h36m-fetch"], "h36m-fetch", **changes).open()
    back = to_camera_mm(opened.coords, opened.meta())
    assert float(mpjpe(back, opened.truth.double(), root=0).max()) < 5e-3
    assert float((back - opened.truth).abs().max()) < 5e-3
    # and an error of a hundredth of the depth is 10 mm (7.5 of the smaller box) for a joint on the axis
    wrong = opened.coords.clone()
    wrong[:, 5, 2] += 0.01
    error = joint_errors(to_camera_mm(wrong, opened.meta()), back)
    assert error[:, 5].min() >= 0.01 * opened.half - 1e-3
    assert error[:, 6].max() < 1e-9
    index = torch.tensor([2, 0])
    torch.testing.assert_close(to_camera_mm(opened.coords[index], opened.meta(index)), back[index])
    with pytest.raises(ValueError, match="got 1 poses and what is known of"):
        to_camera_mm(opened.coords[:1], opened.meta())


def test_all_axes_have_one_unit(store: H36MStore) -> None:
    """At the pelvis' depth, the affine makes a step of 1 mm as long in z as in x."""
    steps = store.affine[:, [0, 2], [0, 2]] / store.half
    torch.testing.assert_close(steps[:, 0], steps[:, 1])
    torch.testing.assert_close(steps[:, 0], store.focal[:, 0] / store.truth[:, 0, 2])


def test_augmented_crops_are_wider_and_mirrored_ones_swap_sides(whole: dict[str, Path]) -> None:
    root = whole["3dmppe"]
    plain = config(root, split="train").open()
    wide = config(root, split="train", canvas=1.5, augment=Augment(flip=1.0)).open()
    assert wide.images.shape[-2:] == (48, 48)
    torch.testing.assert_close(wide.coords[..., :2] * 1.5, plain.coords[..., :2])
    torch.testing.assert_close(wide.coords[..., 2], plain.coords[..., 2])
    index = torch.tensor([3, 1])
    batch = wide.batch(index, torch.Generator().manual_seed(0))
    assert batch.images.shape == (2, 3, 32, 32)
    expected = flip_coords(plain.coords[index], plain.pairs)
    inside = batch.labels.weight > 0
    assert inside.any()
    torch.testing.assert_close(batch.labels.coords[inside], expected[inside], atol=1e-4, rtol=0)
    torch.testing.assert_close(expected[:, 1, 0], -plain.coords[index][:, 4, 0])
    torch.testing.assert_close(expected[:, 1, 1:], plain.coords[index][:, 4, 1:])
    mirrored = plain.batch(index).images.flip(-1)
    assert float((batch.images - mirrored).abs().mean()) < 0.02


def test_absent_images_are_skipped_and_counted(tmp_path: Path, world: World, whole: dict[str, Path]) -> None:
    shutil.copytree(whole["mmpose"], tmp_path / "copy")
    root = tmp_path / "copy"
    gone = sorted((root / "images" / "S9").rglob("*_000065.jpg"))
    assert len(gone) == 4
    for path in gone:
        path.unlink()
    opened = config(root, "mmpose").open()
    assert len(opened) == 33 - 4
    assert opened.skipped == (("known gap", 3), ("no image", 4))
    whole_one = config(whole["mmpose"], "mmpose").records()
    kept = [i for i, p in enumerate(whole_one.paths) if (root / "images" / str(p).split("images/")[1]).is_file()]
    np.testing.assert_allclose(opened.truth, whole_one.joints[kept], atol=1e-3)
    first = next(iter(with_images(whole_one).paths))
    assert first is not None
    shutil.rmtree(root / "images")
    with pytest.raises(ValueError, match=r"none of 33 images is there, the first is .*_000001\.jpg.*vision\.imar\.ro"):
        config(root, "mmpose").open()


def test_a_damaged_picture_is_named(tmp_path: Path, whole: dict[str, Path]) -> None:
    shutil.copytree(whole["mmpose"], tmp_path / "copy")
    path = next((tmp_path / "copy" / "images" / "S9").rglob("*_000065.jpg"))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match=f"{path.name} is not a whole picture"):
        config(tmp_path / "copy", "mmpose").open()


def test_count_is_spread_evenly(whole: dict[str, Path]) -> None:
    everything = config(whole["3dmppe"]).records()
    few = config(whole["3dmppe"], count=7).records()
    assert len(few.paths) == 7
    assert [everything.paths.index(p) for p in few.paths] == [i * 33 // 7 for i in range(7)]
    assert len(config(whole["3dmppe"], count=1000).records().paths) == 33


def test_a_pack_holds_the_same_images(
    tmp_path: Path, whole: dict[str, Path], store: H36MStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(whole["3dmppe"], tmp_path / "copy")
    monkeypatch.setattr(pack, "IN_MEMORY", 1000)
    packed = config(tmp_path / "copy").open()
    (file,) = (tmp_path / "copy" / "packs").glob("h36m-test-*.u8")
    assert file.stat().st_size == store.images.numel()
    assert torch.equal(packed.images, store.images)
    assert packed.fingerprint == store.fingerprint
    shutil.rmtree(tmp_path / "copy" / "images" / "s_09_act_10_subact_01_ca_03")  # other frames: another pack
    assert len(config(tmp_path / "copy").open()) == 30
    assert len(list((tmp_path / "copy" / "packs").glob("*.u8"))) == 2


def test_errors_by_action() -> None:
    errors, action = torch.tensor([1.0, 3.0, 10.0, 2.0]), torch.tensor([2, 2, 16, 10])
    assert by_action(errors, action) == {"Dir.": 2.0, "SitD.": 2.0, "WalkP.": 10.0, "Avg": 4.0}
    assert len(COLUMNS) == len(ACTIONS) == 15
    assert COLUMNS[ACTIONS.index("TakingPhoto")] == "Phot."
    assert len(JOINTS) == len(H36M17)
    assert CAMERAS == NUMBERS


def test_configurations(whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Human36M(tmp_path, "mmpose", 1, augment=Augment(rotation=30, scale=0.25), count=5, subjects=(1, 5))
    assert rebuild(describe(own)) == own
    monkeypatch.setenv("COORDREG_H36M", str(whole["3dmppe"]))
    assert len(Human36M(split="test", size=16).records().paths) == 33
    monkeypatch.delenv("COORDREG_H36M")
    assert Human36M().place == Path("data/human36m")
    with pytest.raises(ValueError, match="has poses and no images, expected 3dmppe"):
        config(whole["videopose3d"], "videopose3d").open()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"form": "cdf"}, "form='cdf', expected one of 3dmppe"), ({"protocol": 3}, "protocol=3, expected 1 or 2"),
        ({"split": "val"}, "split='val', expected train or test"), ({"every": 0}, "got every=0, expected at least 1"),
        ({"augment": Augment(), "split": "test"}, "expected none; augment 'train'"), ({"count": 0}, "got count=0"),
        ({"augment": Augment(size=9)}, "an Augment of size=9"), ({"canvas": 9}, "expected a factor from 1"),
        ({"root_box": 2}, "got root_box=2, expected at least 100"), ({"subjects": ()}, "got no subjects"),
    ],
)  # fmt: skip
def test_configurations_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Human36M(**changes)
