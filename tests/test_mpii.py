"""MPII: three forms of labels that must agree, each parser trap, crops, PCKh, messages; the real files."""

import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import mpii_fixture as fixture
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from real_data import real
from scipy.io import loadmat

from coordreg.coords import Points, apply_affine, invert_affine, to_pixels
from coordreg.data import mpii, pack
from coordreg.data.augment import Augment
from coordreg.data.mpii import MPII, adjust, find, read, read_h5, read_json, read_mat
from coordreg.data.skeletons import MPII16
from coordreg.metrics.pck import MPII_EXCLUDE, head_size, image_distances, pck
from coordreg.spec import describe, rebuild

FORMS = ("json", "h5", "mat")
MAT = "mpii_human_pose_v1_u12_2/mpii_human_pose_v1_u12_1.mat"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, fixture.Truth, fixture.Truth]:
    """Seven people to train on and four to test on; not to be changed."""
    root = tmp_path_factory.mktemp("mpii")
    return root, *fixture.write(root, 7)


@pytest.fixture
def own(made: tuple[Path, Any, Any], tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(made[0], tmp_path / "copy"))


# -- reading ----------------------------------------------------------------------------------------------------------


def test_adjustment_by_hand() -> None:
    centre, scale = adjust(np.array([[100.0, 200.0], [-1.0, -1.0]]), np.array([2.0, 3.0]))
    assert centre.tolist() == [[100, 230], [-1, -1]]
    assert scale.tolist() == [2.5, 3]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("split", ["train", "valid"])
def test_every_form_says_the_truth(made: Any, form: str, split: str) -> None:
    """From 0, lower by 15 scales, 250 px a scale: once, whatever the form has done already."""
    root, truth = made[0], made[1 if split == "train" else 2]
    found = read(root, form, split)
    assert found.names == truth.names
    np.testing.assert_allclose(found.centre[:, 0], truth.centre[:, 0] - 1)
    np.testing.assert_allclose(found.centre[:, 1], truth.centre[:, 1] + 15 * truth.scale - 1)
    np.testing.assert_allclose(found.side, 250 * truth.scale)
    np.testing.assert_allclose(found.joints, np.where(truth.labelled[..., None], truth.joints - 1, np.nan))
    np.testing.assert_allclose(found.head, 25 * truth.scale)
    hidden = truth.labelled if form == "json" else truth.visible  # the lists do not know
    np.testing.assert_array_equal(found.visible, hidden)
    assert not truth.visible.all()


def test_zeros_of_the_arrays(tmp_path: Path) -> None:
    """(0, 0) is missing; one 0 is a label at the border, and a negative number one beyond it."""
    truth = fixture.people(2, 1, 3)
    truth.joints[0, 4], truth.joints[0, 5], truth.joints[1, 6] = (0, 0), (0, 17), (-30, 0)
    fixture.write_h5(tmp_path / "a.h5", truth)
    found = read_h5(tmp_path / "a.h5")
    assert np.isnan(found.joints[0, 4]).all()
    assert not found.visible[0, 4]
    assert found.joints[0, 5].tolist() == [-1, 16]
    assert found.joints[1, 6].tolist() == [-31, -1]


def test_names_as_rows_of_codes(tmp_path: Path) -> None:
    """Older files hold the names as numbers, padded with 0."""
    truth = fixture.people(2, 1, 3)
    fixture.write_h5(tmp_path / "a.h5", truth)
    codes = np.array([[*name.encode(), 0, 0, 0] for name in truth.names], float)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["imgname"]
        file["imgname"] = codes
    assert read_h5(tmp_path / "a.h5").names == truth.names


def test_traps_of_the_official_file(tmp_path: Path) -> None:
    """Whoever lacks something is left out and nobody else; one joint alone is a structure, not an array."""
    truth = fixture.people(1, 1, 0)
    good = fixture.rect(truth, 0)
    empty = np.zeros((0, 0))
    lone = {**good, "annopoints": {"point": {"x": 11.0, "y": 21.0, "id": 9.0, "is_visible": empty}}}
    nameless = {**good, "annopoints": {"point": {"x": 11.0, "y": 21.0, "id": 9.0}}}
    fields = [{k: v for k, v in good.items() if k != name} for name in ("scale", "objpos", "annopoints", "x1")]
    voids = [{**good, name: empty} for name in ("scale", "objpos", "annopoints", "y2")]
    rows = [
        ("1.jpg", [], 1),
        *((f"{2 + i}.jpg", [person], 1) for i, person in enumerate(fields)),
        ("6.jpg", [*voids, good, *fields], 1),
        ("7.jpg", [lone], 1),
        ("8.jpg", [nameless], 1),
        ("9.jpg", [good], 0),
        ("10.jpg", [{"objpos": good["objpos"], "scale": 1.0}], 0),
    ]
    fixture.write_mat(tmp_path / "a.mat", rows)
    found = read_mat(tmp_path / "a.mat")
    assert found.names == ["6.jpg", "7.jpg", "8.jpg"]
    np.testing.assert_allclose(found.joints[1:, 9], [[10, 20]] * 2)
    assert (~np.isnan(found.joints[1:])).sum(0).max() == 2
    assert (~np.isnan(found.joints[1:, :, 0])).sum() == 2
    assert found.visible[1:, 9].all()


@pytest.mark.parametrize(
    ("flag", "hidden"),
    [
        *[(np.uint8(0), True), (np.uint8(1), False), ("0", True), ("1", False), (0.0, True), (1.0, False)],
        *[(np.zeros((0, 0)), False), ("", False), (np.array(["0"]), True), (np.array([1], np.uint8), False)],
    ],
)
def test_visibility_however_written(flag: Any, hidden: bool) -> None:
    assert mpii._hidden(SimpleNamespace(is_visible=flag)) is hidden
    assert mpii._hidden(SimpleNamespace()) is False


def test_a_single_picture_and_a_single_person(tmp_path: Path) -> None:
    """squeeze_me makes a lone structure of an array of one."""
    truth = fixture.people(1, 1, 5)
    fixture.write_mat(tmp_path / "a.mat", fixture.pictures(truth))
    assert read_mat(tmp_path / "a.mat").names == truth.names


def test_the_official_file_needs_to_be_told_the_split(own: Path) -> None:
    (own / "annot" / "valid.json").unlink()
    assert len(read(own, "mat", "valid").names) == 4  # valid.h5 does as well
    (own / "annot" / "valid.h5").unlink()
    with pytest.raises(FileNotFoundError, match=r"form='mat' needs .*annot/valid\.json or valid\.h5"):
        read(own, "mat", "train")
    fixture.write_json(own / "annot" / "valid.json", fixture.people(2, 50, 9))
    with pytest.raises(ValueError, match="leave nobody for the split 'valid'"):
        read(own, "mat", "valid")


def test_mmpose_places(own: Path) -> None:
    (own / "annotations").mkdir()
    (own / "annot" / "valid.json").rename(own / "annotations" / "mpii_val.json")
    assert find(own, "json", "valid").name == "mpii_val.json"


# -- the data set -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_store(made: Any, form: str) -> None:
    root, _, truth = made
    store = MPII(str(root), form, "valid", size=48).open()
    assert store.images.shape == (4, 3, 48, 48)
    assert store.joints == MPII16.joints
    assert store.hint is None
    assert torch.equal(store.weight[..., 0] > 0, torch.from_numpy(truth.labelled))
    assert store.weight[0, 2].tolist() == [0, 0]
    back = apply_affine(store.affine, store.coords).numpy()
    np.testing.assert_allclose(back[truth.labelled], truth.joints[truth.labelled] - 1, atol=1e-3)
    # The crop's corners by hand: 250 px a scale about the lowered centre.
    corner = apply_affine(store.affine, torch.tensor([[[-1.0, -1.0]]]).expand(4, -1, -1))[:, 0].numpy()
    low = truth.centre + np.stack([0 * truth.scale, 15 * truth.scale], -1) - 1 - 125 * truth.scale[:, None]
    np.testing.assert_allclose(corner, low, atol=1e-3)
    np.testing.assert_allclose(store.normaliser.numpy(), 25 * truth.scale, rtol=1e-6)


@pytest.mark.parametrize("augmented", [False, True])
@pytest.mark.parametrize("size", [48, 61])
def test_dots_are_where_the_labels_say(made: Any, size: int, augmented: bool) -> None:
    """The first person of every picture has a white head top."""
    config = MPII(str(made[0]), "json", "train", size, Augment(flip=0.0) if augmented else None)
    store = config.open()
    grid = pack.canvas_size((size, size), 5 / 3)[0] if augmented else size
    assert store.images.shape == (7, 3, grid, grid)
    rows = torch.arange(0, 7, 2)
    bright = (store.images[rows, 0].double() - 90).clamp(min=0)
    assert bright.sum((1, 2)).min() > 0
    axis = torch.arange(grid)
    mass = bright.sum((1, 2)).unsqueeze(-1)
    found = torch.stack([(bright.sum(1) * axis).sum(-1), (bright.sum(2) * axis).sum(-1)], -1) / mass
    torch.testing.assert_close(found.float(), to_pixels(store.coords[rows, 9], (grid, grid)), atol=0.25, rtol=0)
    if augmented:
        plain = replace(config, augment=None).open()
        batch = store.batch(torch.arange(7), torch.Generator().manual_seed(0))
        inside = batch.labels.weight > 0
        torch.testing.assert_close(batch.labels.coords[inside], plain.coords[inside], atol=1e-5, rtol=1e-5)
        assert batch.images.shape[-1] == size
        assert (batch.images * 255 - plain.images).abs().max() < 12  # two grids, so not quite the same bytes


@settings(max_examples=20, deadline=None)
@given(
    centre=st.tuples(st.floats(-50, 900), st.floats(-50, 900)),
    scale=st.floats(0.2, 9),
    joint=st.tuples(st.floats(-100, 1300), st.floats(-100, 1300)),
)
def test_joints_survive_the_crop(centre: tuple[float, float], scale: float, joint: tuple[float, float]) -> None:
    joints = np.full((1, 16, 2), np.nan)
    joints[0, 3] = joint
    visible = np.zeros((1, 16), bool)
    side = np.array([250 * scale])
    someone = mpii.People(["a.jpg"], np.array([centre]), side, joints, visible, np.ones(1))
    store = MPII()._store(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), someone, torch.from_numpy(side))
    back = apply_affine(store.affine.double(), store.coords.double())[0, 3]
    np.testing.assert_allclose(back.numpy(), joint, atol=2e-3)
    assert store.weight.sum() == 2


def test_pckh_of_perfect_and_shifted_predictions(made: Any) -> None:
    store = MPII(str(made[0]), "h5", "valid", size=40).open()
    batch = store.batch(torch.arange(4))
    assert pck(image_distances(Points(store.coords, store.weight[..., 0]), batch), 0.5, MPII_EXCLUDE).mean == 100
    places = apply_affine(store.affine, store.coords)
    for heads, expected in ((0.49, 100), (0.51, 0)):
        moved = places + torch.tensor([heads, 0.0]) * store.normaliser.view(-1, 1, 1)
        moved[:, :6] = places[:, :6]  # ankles, knees and hips stay right
        points = apply_affine(invert_affine(store.affine), moved)
        found = pck(image_distances(Points(points, store.weight[..., 0]), batch), 0.5, MPII_EXCLUDE)
        assert found.joints[9] == expected
        assert found.joints[0] == 100
        assert (found.mean == 100) == (heads < 0.5)


def test_partial_copies(own: Path) -> None:
    (own / "images" / "000000001.jpg").unlink()
    with pytest.warns(UserWarning, match=r"MPII: 1 pictures are not in .*images; 2 of 7 people are left out"):
        store = MPII(str(own), size=16).open()
    assert len(store) == 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(MPII(str(own), split="valid", size=16, limit=3).open()) == 3
    shutil.rmtree(own / "images")
    with pytest.raises(FileNotFoundError, match=r"none of the 4 pictures, such as .*images/000000001\.jpg.*human-pose"):
        MPII(str(own), size=16).open()


def test_messages(own: Path, tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"nowhere/annot/train\.json is not there.*human-pose\.mpi-inf\.mpg\.de"
    ):
        MPII(str(tmp_path / "nowhere")).open()
    (own / "annot" / "train.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"form='mat' is there; form='h5' is there; the official"):
        MPII(str(own)).open()
    (own / "annot" / "train.json").write_text('[{"image": "a.jpg", "center": [1, 2], "scale": 1}]')
    with pytest.raises(ValueError, match="no list of people with center, image, joints"):
        MPII(str(own)).open()
    (own / "annot" / "train.h5").write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"train\.h5 is damaged or lacks"):
        MPII(str(own), "h5").open()
    (own / MAT).write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"u12_1\.mat is damaged or holds no RELEASE"):
        MPII(str(own), "mat").open()
    picture = own / "images" / "000000008.jpg"
    picture.write_bytes(picture.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"000000008\.jpg is not a whole picture"):
        MPII(str(own), "h5", "valid", size=16).open()


def test_bad_configurations() -> None:
    with pytest.raises(ValueError, match=r"form='csv', expected one of \['mat', 'json', 'h5'\]"):
        MPII(form="csv")
    with pytest.raises(ValueError, match=r"split='test', expected one of"):
        MPII(split="test")
    with pytest.raises(ValueError, match="augmentation for the split 'valid'"):
        MPII(split="valid", augment=Augment())
    with pytest.raises(ValueError, match=r"size=256 and an Augment of size=64"):
        MPII(augment=Augment(size=64))
    with pytest.raises(ValueError, match=r"size=1, limit=None"):
        MPII(size=1)
    with pytest.raises(ValueError, match=r"canvas: got 0\.5"):
        MPII(canvas=0.5)


def test_configuration_can_be_written_down() -> None:
    config = MPII("mpii", "h5", size=224, augment=Augment(rotation=30, scale=0.25), canvas=1.75, limit=9)
    assert rebuild(describe(config)) == config


def test_large_sets_are_mapped_from_a_file(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = MPII(str(own), size=24)
    held = config.open()
    monkeypatch.setattr(pack, "IN_MEMORY", 0)
    mapped = config.open()
    assert torch.equal(mapped.images, held.images)
    assert mapped.fingerprint == held.fingerprint
    (name,) = [p.name for p in (own / "packs").glob("*.u8")]
    assert name.startswith("mpii-train-24-")
    monkeypatch.setattr(mpii, "read_picture", lambda path: pytest.fail(f"{path} was read again"))
    assert torch.equal(config.open().images, held.images)
    monkeypatch.undo()
    monkeypatch.setattr(pack, "IN_MEMORY", 0)
    MPII(str(own), size=25).open()
    (own / "images" / "000000001.jpg").unlink()
    with pytest.warns(UserWarning, match="left out"):
        assert len(config.open()) == 5
    assert len(list((own / "packs").glob("*.u8"))) == 3


# -- the real files ---------------------------------------------------------------------------------------------------


def test_real_arrays_and_list_agree() -> None:
    """mmpose's four people are rows 1 to 4 of the arrays: as annotated in the list, adjusted in the arrays."""
    place = real("", "mpii/annot/valid.h5")
    path = place / "samples" / "mpii" / "annot" / "test_mpii.json"
    if not path.is_file():
        pytest.skip("no list in JSON beside the real arrays")
    arrays, listed = read_h5(place / "mpii" / "annot" / "valid.h5"), read_json(path)
    rows = [arrays.names.index(name) for name in listed.names]
    assert rows == [1, 2, 3, 4]
    np.testing.assert_allclose(arrays.centre[rows], listed.centre, atol=1e-4)
    np.testing.assert_allclose(arrays.side[rows], listed.side, atol=1e-3)
    np.testing.assert_allclose(arrays.head[rows], listed.head, atol=1e-3)
    # The arrays cut the head's joints off to whole pixels.
    np.testing.assert_allclose(arrays.joints[rows], listed.joints, atol=1, equal_nan=True)
    body = [j for j in range(16) if j not in (8, 9)]
    np.testing.assert_allclose(arrays.joints[rows][:, body], listed.joints[:, body], atol=1e-9, equal_nan=True)


def test_real_heads_and_missing_joints() -> None:
    place = real("", "mpii/annot/valid.h5")
    found = read_h5(place / "mpii" / "annot" / "valid.h5")
    assert len(found.names) == 2958
    assert found.names == (place / "mpii" / "annot" / "valid_images.txt").read_text().split()
    truth = loadmat(place / "mpii" / "annot" / "detections_our_format.mat")
    np.testing.assert_array_equal(np.isnan(found.joints).any(-1), truth["jnt_missing"].T > 0)
    boxes = torch.from_numpy(truth["headboxes_src"].transpose(2, 0, 1).reshape(-1, 4).astype(float))
    np.testing.assert_allclose(found.head, head_size(boxes).numpy(), atol=1e-4)
    np.testing.assert_allclose(found.head, found.side / 10, rtol=1e-9)  # 25 scales of 250 px: one tenth of the crop


def test_real_pictures() -> None:
    place = real("", "mpii/annot/valid.h5")
    with pytest.warns(UserWarning, match="of 2958 people are left out"):
        store = MPII(str(place / "mpii"), "h5", "valid", size=64).open()
    assert len(store) >= 1
    assert store.images.float().std() > 20
