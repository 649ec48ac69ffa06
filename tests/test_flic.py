"""FLIC: two forms of labels that must agree, whose left is left, views, the torso point, statistics; the real files."""

import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import flic_fixture as fixture
import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from real_data import real

from coordreg.coords import Points, apply_affine, invert_affine, to_pixels
from coordreg.data import fetch, flic, pack
from coordreg.data.augment import Augment
from coordreg.data.flic import FLIC, FLIC11, behind, displacements, histogram, observer, place, read, statistics
from coordreg.data.flic_formats import People, read_mat
from coordreg.data.skeletons import COCO17, convert
from coordreg.data.store import Store
from coordreg.metrics.pck import PCK, torso
from coordreg.metrics.scoring import Scoring, score
from coordreg.spec import describe, rebuild

FORMS, SPLITS, CENTRICS = ("mat", "h5"), ("train", "test"), ("observer", "person")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, fixture.Truth, fixture.Truth]:
    """Seven people to train on and four to test on; not to be changed."""
    root = tmp_path_factory.mktemp("flic")
    return root, *fixture.write(root, 7)


@pytest.fixture
def own(made: tuple[Path, Any, Any], tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(made[0], tmp_path / "copy"))


# -- the skeleton -----------------------------------------------------------------------------------------------------


def test_skeleton_by_name() -> None:
    names = FLIC11.joints
    other = {"l_": "r_", "r_": "l_"}
    pairs = {(names[a], names[b]) for a, b in FLIC11.pairs}
    assert pairs == {("l_" + part, "r_" + part) for part in ("shoulder", "elbow", "wrist", "hip", "eye")}
    bones = {frozenset((names[a], names[b])) for a, b in FLIC11.bones}
    assert bones == {frozenset(other.get(x[:2], x[:2]) + x[2:] for x in bone) for bone in bones}  # the same, mirrored
    assert frozenset(("l_elbow", "l_wrist")) in bones
    assert frozenset(("nose", "l_eye")) in bones
    groups = {name: tuple(names[j] for j in members) for name, members in FLIC11.groups.items()}
    parts = ("shoulder", "elbow", "wrist", "hip")
    assert groups == {"face": ("nose",), **{part: ("l_" + part, "r_" + part) for part in parts}}


def test_to_another_skeleton() -> None:
    found, known = convert(torch.arange(22.0).view(1, 11, 2), FLIC11, COCO17)
    assert found[0, COCO17.joints.index("r_wrist")].tolist() == [10, 11]
    lacking = {name for name, is_known in zip(COCO17.joints, known.tolist(), strict=True) if not is_known}
    assert lacking == {"l_ear", "r_ear", "l_knee", "r_knee", "l_ankle", "r_ankle"}


# -- whose left is left -----------------------------------------------------------------------------------------------


def sketch(shoulders: float, hips: float) -> np.ndarray:
    """Somebody whose left shoulder and hip are so far right of the right ones; other joints are told apart by y."""
    joints = np.stack([np.full(11, 100.0), np.arange(11.0)], -1)
    joints[0, 0] += shoulders
    joints[6, 0] += hips
    return joints


def test_from_behind_by_hand() -> None:
    """Both shoulders and hips must be exchanged; equal, unlabelled or half exchanged is not."""
    cases = [(20, 10), (-20, -10), (-20, 10), (20, -10), (0, -10), (np.nan, -10), (-20, np.nan)]
    joints = np.stack([sketch(*case) for case in cases])
    assert behind(joints).tolist() == [False, True, False, False, False, False, False]
    found = observer(joints)
    assert found[1, :, 1].tolist() == [3, 4, 5, 0, 1, 2, 7, 6, 9, 8, 10]
    assert found[1, [0, 3, 6, 7], 0].tolist() == [100, 80, 100, 90]
    np.testing.assert_array_equal(np.delete(found, 1, 0), np.delete(joints, 1, 0))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-500, 500), min_size=22, max_size=22))
def test_observer_knows_no_way_back(values: list[float]) -> None:
    """Nobody is behind any more, twice is once, and both ways of naming somebody from behind end in the same labels."""
    joints = np.array(values).reshape(1, 11, 2)
    once = observer(joints)
    assert not behind(once).any()
    np.testing.assert_array_equal(observer(once), once)
    assert sorted(map(tuple, once[0])) == sorted(map(tuple, joints[0]))
    if behind(joints[:, fixture.OTHER]).any():
        np.testing.assert_array_equal(observer(joints[:, fixture.OTHER]), once)


# -- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("centric", CENTRICS)
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("form", FORMS)
def test_both_forms_say_the_truth(made: Any, form: str, split: str, centric: str) -> None:
    root, truth = made[0], made[1 if split == "train" else 2]
    found = read(root, form, split, centric)
    joints, labelled = fixture.seen(truth, centric)
    assert found.names == truth.names
    np.testing.assert_allclose(found.joints, np.where(labelled[..., None], joints - 1, np.nan))
    np.testing.assert_array_equal(found.visible, labelled)
    assert not labelled.all()
    assert behind(found.joints).tolist() == [bool(b) and centric == "person" for b in truth.behind]
    assert truth.behind.any()
    # The torso is that of the person-centric joints, whichever are asked for.
    np.testing.assert_allclose(found.torso, np.hypot(*(truth.joints[:, 3] - truth.joints[:, 6]).T))
    middle = (truth.box[:, :2] + truth.box[:, 2:]) / 2 - 1
    np.testing.assert_allclose(found.centre, np.stack([middle[:, 0], np.full(len(middle), 239.0)], -1), atol=1e-4)
    np.testing.assert_allclose(found.point[:, 0], middle[:, 0], atol=1e-4)
    if form == "mat":
        np.testing.assert_allclose(found.point[:, 1], middle[:, 1])
    else:
        assert np.isnan(found.point[:, 1]).all()
    assert found.frame.tolist() == [[720, 480]] * len(truth.names)


@pytest.mark.parametrize("centric", CENTRICS)
@pytest.mark.parametrize("split", SPLITS)
def test_the_forms_agree(made: Any, split: str, centric: str) -> None:
    """All but the height of the torso point, which the arrays do not have."""
    mat, arrays = (read(made[0], form, split, centric) for form in FORMS)
    assert mat.names == arrays.names
    arrays.point[:, 1] = mat.point[:, 1]
    for one, other in zip(mat[1:], arrays[1:], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_structures_are_read_by_name(tmp_path: Path) -> None:
    """Other fields, in another order; a lone structure is no array; labels at 0 and below are labels."""
    truth = fixture.people(1, "film", 3)
    truth.joints[0, 1], truth.joints[0, 2] = (0, 0), (-6, 17)
    fields = fixture.example(truth, 0, "train")
    turned = {"isbad": 0.0, **dict(reversed(fields.items()))}
    fixture.write_mat(tmp_path / "a.mat", [turned])
    found = read_mat(tmp_path / "a.mat")
    assert found.names == truth.names
    assert found.joints[0, 1:3].tolist() == [[-1, -1], [-7, 16]]


def test_somebody_without_a_torso_is_left_out(tmp_path: Path) -> None:
    truth = fixture.people(3, "film", 3)
    truth.labelled[0, 3], truth.labelled[1, 2], truth.labelled[2, 6] = False, True, False
    fixture.write_mat(tmp_path / "a.mat", [fixture.example(truth, i, "test") for i in range(3)])
    with pytest.warns(UserWarning, match="2 of 3 people in .*have no torso and are left out"):
        found = read_mat(tmp_path / "a.mat", "test")
    np.testing.assert_allclose(found.joints[0], truth.joints[1] - 1)
    truth.labelled[1, 6] = False
    fixture.write_mat(tmp_path / "a.mat", [fixture.example(truth, i, "test") for i in range(3)])
    with pytest.raises(ValueError, match="holds nobody with a right shoulder and a left hip"):
        read_mat(tmp_path / "a.mat", "test")


def test_a_file_without_anybody_from_behind_is_warned_of(own: Path) -> None:
    truth = fixture.people(1, "film", 3)
    fixture.write_mat(own / "examples.mat", [fixture.example(truth, 0, "train")])
    for centric in CENTRICS:
        with pytest.warns(UserWarning, match="nobody in .*is seen from behind; .*199 to train on and 48"):
            read(own, "mat", "train", centric)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(own, "h5", "train", "observer")


# -- the data set -----------------------------------------------------------------------------------------------------


def test_whole_frame_by_hand(made: Any) -> None:
    """4/9 of the still's 720 x 480 px, 13 1/3 black rows above and below."""
    store = FLIC(str(made[0]), split="test").open()
    assert store.images.shape == (4, 3, 240, 320)
    assert not store.images[:, :, :13].any()
    assert not store.images[:, :, -13:].any()
    assert store.joints == FLIC11.joints
    joints, labelled = fixture.seen(made[2], "observer")
    expected = (joints - 0.5) * 4 / 9 - 0.5 + np.array([0, 40 / 3])
    found = to_pixels(store.coords, (240, 320)).numpy()
    np.testing.assert_allclose(found[labelled], expected[labelled], atol=1e-3)
    np.testing.assert_array_equal(store.weight.numpy(), np.stack([labelled] * 2, -1))
    np.testing.assert_allclose(store.normaliser.numpy(), fixture.torso(made[2]), rtol=1e-6)


def test_cut_by_hand(made: Any) -> None:
    """At 320 x 240, half the still without 40 px on either side; at 360 x 240 nothing is cut or padded."""
    joints, labelled = fixture.seen(made[2], "observer")
    half = (joints - 0.5) / 2 - 0.5
    found = FLIC(str(made[0]), split="test", view="cut").open()
    np.testing.assert_allclose(
        to_pixels(found.coords, (240, 320)).numpy()[labelled], (half - [20, 0])[labelled], atol=1e-3
    )
    whole = [FLIC(str(made[0]), split="test", size=(240, 360), view=view).open() for view in ("frame", "cut")]
    np.testing.assert_allclose(to_pixels(whole[0].coords, (240, 360)).numpy()[labelled], half[labelled], atol=1e-3)
    assert torch.equal(whole[0].images, whole[1].images)
    assert torch.equal(whole[0].images[..., 20:340], found.images)


def test_torso_crop_by_hand(made: Any) -> None:
    """440 px, the shorter side, about the box's middle at half the height."""
    truth = made[2]
    for size, sides in (((64, 64), (440, 440)), ((64, 96), (660, 440)), ((99, 66), (440, 660))):
        store = FLIC(str(made[0]), split="test", size=size, view="torso").open()
        corners = apply_affine(store.affine, torch.tensor([[[-1.0, -1.0], [1.0, 1.0]]]).expand(4, -1, -1)).numpy()
        centre = np.stack([(truth.box[:, 0] + truth.box[:, 2]) / 2 - 1, np.full(4, 239)], -1)
        np.testing.assert_allclose(corners[:, 0], centre - np.array(sides) / 2, atol=1e-3)
        np.testing.assert_allclose(corners[:, 1], centre + np.array(sides) / 2, atol=1e-3)


@pytest.mark.parametrize("augmented", [False, True])
@pytest.mark.parametrize("view", flic.VIEWS)
@pytest.mark.parametrize("size", [(60, 82), (96, 96)])
def test_dots_are_where_the_labels_say(made: Any, size: tuple[int, int], view: str, augmented: bool) -> None:
    """The first person of every still has a white nose."""
    config = FLIC(str(made[0]), size=size, view=view, augment=Augment(flip=0.0) if augmented else None)
    store = config.open()
    grid = pack.canvas_size(size, 5 / 3) if augmented and view != "frame" else size
    assert store.images.shape == (7, 3, *grid)
    rows = torch.arange(0, 7, 2)
    bright = (store.images[rows, 0].double() - 90).clamp(min=0)
    mass = bright.sum((1, 2)).unsqueeze(-1)
    assert mass.min() > 0
    found = (bright.sum(1) * torch.arange(grid[1])).sum(-1), (bright.sum(2) * torch.arange(grid[0])).sum(-1)
    torch.testing.assert_close(
        (torch.stack(found, -1) / mass).float(), to_pixels(store.coords[rows, 10], grid), atol=0.25, rtol=0
    )
    if augmented:
        plain = replace(config, augment=None).open()
        batch = store.batch(torch.arange(7), torch.Generator().manual_seed(0))
        assert batch.images.shape == (7, 3, *size)
        inside = batch.labels.weight > 0
        torch.testing.assert_close(batch.labels.coords[inside], plain.coords[inside], atol=1e-5, rtol=1e-5)
        assert batch.hint is not None
        assert plain.hint is not None
        torch.testing.assert_close(batch.hint, plain.hint, atol=1e-5, rtol=1e-5)
        assert (batch.images * 255 - plain.images).abs().max() < 20  # two grids, so not quite the same bytes


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("view", flic.VIEWS)
def test_hint_is_the_torso_box(made: Any, form: str, view: str) -> None:
    """The arrays have no box and give everybody's at one height."""
    box = made[2].box
    store = FLIC(str(made[0]), form, "test", size=(30, 44), view=view).open()
    assert store.hint is not None
    found = apply_affine(store.affine, store.hint.unsqueeze(1))[:, 0].numpy()
    x, y = (box[:, 0] + box[:, 2]) / 2 - 1, (box[:, 1] + box[:, 3]) / 2 - 1
    np.testing.assert_allclose(found[:, 0], x, atol=1e-3)
    np.testing.assert_allclose(found[:, 1], y if form == "mat" else np.full(4, 255.4), atol=1e-3)


@pytest.mark.parametrize("view", ["frame", "torso"])
@pytest.mark.parametrize("size", [(40, 56), (40, 40)])
def test_hint_moves_with_the_person(made: Any, size: tuple[int, int], view: str) -> None:
    """A hint put on the nose is on the nose of the turned, widened and mirrored picture; the labels are as without."""
    config = FLIC(str(made[0]), size=size, view=view, augment=Augment(rotation=30, scale=0.4))
    store = config.open()
    on_nose = replace(store, hint=store.coords[:, 10].clone())
    index = torch.tensor([5, 0, 3, 2, 6])
    batch = on_nose.batch(index, torch.Generator().manual_seed(4))
    assert batch.hint is not None
    torch.testing.assert_close(batch.hint, batch.labels.coords[:, 10])
    assert (batch.hint - on_nose.batch(index).labels.coords[:, 10]).abs().amax(1).min() > 0.01
    other = Store.batch(store, index, torch.Generator().manual_seed(4))
    assert torch.equal(other.images, batch.images)
    assert torch.equal(other.labels.weight, batch.labels.weight)
    torch.testing.assert_close(other.labels.coords, batch.labels.coords, equal_nan=True)
    assert torch.equal(other.visible, batch.visible)
    still = store.batch(index)
    assert torch.equal(still.hint, store.hint[index])  # type: ignore[arg-type, index]
    bare = replace(store, hint=None).batch(index, torch.Generator().manual_seed(4))
    assert bare.hint is None
    assert torch.equal(bare.images, batch.images)


def test_pck_of_perfect_and_shifted_predictions(made: Any) -> None:
    """In torsos of the source, whatever the view; the groups are the papers' columns."""
    store = FLIC(str(made[0]), split="test", size=(40, 72), view="cut").open()
    scoring = Scoring(at=(0.2, 0.05), limit=0.2)
    places = apply_affine(store.affine, store.coords)
    for torsos, at in ((0.0, (100, 100)), (0.04, (100, 100)), (0.06, (100, 0)), (0.21, (0, 0))):
        moved = places + torch.tensor([0.0, torsos]) * store.normaliser.view(-1, 1, 1)
        moved[:, 10] = places[:, 10]  # the nose stays right
        points = Points(apply_affine(invert_affine(store.affine), moved), store.weight[..., 0])
        found = score(points, store, scoring).summary()["joints"]
        assert [found[f"{t:g}"]["l_elbow"] for t in scoring.at] == list(at)
        assert [found[f"{t:g}"]["nose"] for t in scoring.at] == [100, 100]
        metric = PCK(scoring.at, store.joints, groups=FLIC11.groups)
        metric.update(points, store.batch(torch.arange(4)))
        values = metric.compute()
        assert [float(values[f"wrist@{t:g}"]) for t in scoring.at] == list(at)
        assert float(values["face@0.05"]) == 100


def test_partial_copies(own: Path) -> None:
    (own / "images" / "a-drawn-film-00000001.jpg").unlink()
    with pytest.warns(UserWarning, match=r"FLIC: 1 pictures are not in .*images; 2 of 7 people are left out"):
        store = FLIC(str(own), size=(16, 24)).open()
    assert len(store) == 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(FLIC(str(own), split="test", size=(16, 24), limit=3).open()) == 3
    shutil.rmtree(own / "images")
    with pytest.raises(FileNotFoundError, match=r"none of the 4 pictures, such as .*film-00000001\.jpg.*FLIC\.zip"):
        FLIC(str(own), size=(16, 24)).open()


def test_missing_labels(own: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere/examples\.mat is not there; examples\.mat comes with FLIC"):
        FLIC(str(tmp_path / "nowhere")).open()
    (own / "examples.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"examples\.mat is not there; form='h5' is; .*data fetch flic"):
        FLIC(str(own)).open()
    (own / "annot" / "valid_personcentric.h5").unlink()
    with pytest.raises(FileNotFoundError, match=r"annot/valid_personcentric\.h5 is not there; examples"):
        FLIC(str(own), "h5", "test", "person").open()
    (own / "annot" / "valid.h5").rename(own / "valid.h5")
    assert len(FLIC(str(own), "h5", "test", size=(16, 24)).open()) == 4


def test_damaged_labels(own: Path) -> None:
    path, arrays = own / "examples.mat", own / "annot" / "train.h5"
    rows = [fixture.example(fixture.people(3, "film", 1), i, "train") for i in range(3)]

    def refused(match: str, changed: list[dict[str, Any]]) -> None:
        fixture.write_mat(path, changed)
        with pytest.raises(ValueError, match=match):
            FLIC(str(own)).open()

    bare = [{name: value for name, value in row.items() if name != "coords"} for row in rows]
    refused(r"`examples` in .*examples\.mat has no field coords, but poselet_hit_idx, .*FLIC\.zip again", bare)
    refused(r"example 3 in .* has coords of shape \(0,\)", [*rows[:2], {**rows[2], "coords": np.zeros((0, 0))}])
    refused(r"example 1 in .* has coords of shape \(2, 11\)", [{**rows[0], "coords": np.zeros((2, 11))}, rows[1]])
    refused(r"example 2 in .*expected \(2, 29\), four numbers", [rows[0], {**rows[1], "torsobox": [1, np.nan, 3, 4]}])
    refused(r"holds nobody of the split 'train', whose flag is istrain", [{**row, "istrain": 0.0} for row in rows])
    path.write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"examples\.mat is damaged or holds no structure `examples`"):
        FLIC(str(own)).open()
    with h5py.File(arrays, "a") as file:
        del file["part"]
        file["part"] = np.zeros((7, 16, 2))
    with pytest.raises(ValueError, match=r"`part` in .*train\.h5 has the shape \(7, 16, 2\), expected \(7, 11, 2\)"):
        FLIC(str(own), "h5").open()
    arrays.write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"train\.h5 is damaged or lacks one of imgname, center, part"):
        FLIC(str(own), "h5").open()


def test_damaged_stills(own: Path) -> None:
    still = own / "images" / "another-2-00000011.jpg"
    Image.open(still).resize((360, 240)).save(still)
    with pytest.raises(
        ValueError, match=r"00000011\.jpg has 360 x 240 px, its labels are for 720 x 480; take the stills"
    ):
        FLIC(str(own), split="test", size=(16, 24)).open()
    still.write_bytes(still.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"00000011\.jpg is not a whole picture"):
        FLIC(str(own), split="test", size=(16, 24)).open()


def test_bad_configurations() -> None:
    with pytest.raises(ValueError, match=r"form='json', expected one of \['mat', 'h5'\]"):
        FLIC(form="json")
    with pytest.raises(ValueError, match=r"split='valid', expected one of \['train', 'test'\]"):
        FLIC(split="valid")
    with pytest.raises(ValueError, match=r"centric='own', expected one of \['observer', 'person'\]"):
        FLIC(centric="own")
    with pytest.raises(ValueError, match=r"view='stretch', expected one of \['frame', 'cut', 'torso'\]"):
        FLIC(view="stretch")
    with pytest.raises(ValueError, match="augmentation for the split 'test'"):
        FLIC(split="test", augment=Augment())
    with pytest.raises(ValueError, match=r"an Augment of size=64; leave it out"):
        FLIC(augment=Augment(size=64))
    with pytest.raises(ValueError, match=r"size=\(240, 1\), limit=None"):
        FLIC(size=(240, 1))
    with pytest.raises(ValueError, match=r"limit=0"):
        FLIC(limit=0)
    with pytest.raises(ValueError, match=r"canvas: got 0\.5"):
        FLIC(canvas=0.5)


def test_configuration_can_be_written_down() -> None:
    config = FLIC("flic", "h5", "train", "person", (240, 360), "torso", Augment(rotation=20, scale=0.5), 1.75, 9)
    assert rebuild(describe(config)) == config


def test_large_sets_are_mapped_from_a_file(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = FLIC(str(own), size=(24, 32))
    held = config.open()
    monkeypatch.setattr(pack, "IN_MEMORY", 0)
    mapped = config.open()
    assert torch.equal(mapped.images, held.images)
    assert mapped.fingerprint == held.fingerprint
    FLIC(str(own), size=(24, 32), centric="person").open()  # the same stills
    FLIC(str(own), size=(24, 32), view="cut").open()
    names = sorted(p.name for p in (own / "packs").glob("*.u8"))
    assert len(names) == 2
    assert all(name.startswith("flic-train-24x32-") for name in names)


# -- statistics -------------------------------------------------------------------------------------------------------


def invented(joints: np.ndarray, length: list[float], names: list[str]) -> People:
    n = len(joints)
    still, nothing = np.tile([720, 480], (n, 1)), np.zeros((n, 2))
    return People(names, still, joints, ~np.isnan(joints[..., 0]), np.array(length), nothing, nothing)


def test_displacements_by_hand() -> None:
    joints = np.full((3, 11, 2), np.nan)
    joints[:, 0], joints[:, 1] = (100, 50), (130, 90)
    joints[2, 1] = np.nan
    joints[0, [3, 6, 7]] = (60, 50), (90, 170), (70, 150)
    people = invented(joints, [50, 20, 10], ["a", "a", "b"])
    np.testing.assert_allclose(displacements(people, "l_elbow", "l_shoulder"), [[0.6, 0.8], [1.5, 2]])
    np.testing.assert_allclose(displacements(people, "l_shoulder", "l_elbow", unit=10.0), [[-3, -4], [-3, -4]])
    np.testing.assert_allclose(place(people, "torso")[0], [80, 105])
    np.testing.assert_allclose(displacements(people, "l_elbow", "torso"), [[1, -0.3]])
    with pytest.raises(ValueError, match="got the joint 'neck', expected torso or one of l_shoulder"):
        displacements(people, "nose", "neck")
    with pytest.raises(ValueError, match="got unit=0"):
        displacements(people, "nose", "torso", unit=0.0)


@settings(max_examples=30, deadline=None)
@given(
    points=st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=1, max_size=20),
    bins=st.integers(1, 9),
    reach=st.floats(0.5, 2.5),
)
def test_histogram_against_a_loop(points: list[tuple[float, float]], bins: int, reach: float) -> None:
    edges = np.linspace(-reach, reach, bins + 1)
    expected = np.zeros((bins, bins))
    for x, y in points:
        if max(abs(x), abs(y)) <= reach:  # the last edge belongs to the last cell
            column, row = (min(int(np.searchsorted(edges, v, "right")) - 1, bins - 1) for v in (x, y))
            expected[row, column] += 1 / len(points)
    np.testing.assert_allclose(histogram(np.array(points), bins, reach), expected, atol=1e-12)


def test_histogram_by_hand() -> None:
    """Rows are y, columns x; what is beyond the reach is missing from the sum."""
    found = histogram(np.array([[0.9, 0.1], [0.9, -0.1], [0.0, -0.8], [1.1, 0.0]]), bins=3, reach=1.0)
    assert found.tolist() == [[0, 0.25, 0], [0, 0, 0.5], [0, 0, 0]]
    for points, bins, reach in ((np.zeros((0, 2)), 3, 1.0), (np.zeros((1, 2)), 0, 1.0), (np.zeros((1, 2)), 3, 0.0)):
        with pytest.raises(ValueError, match="histogram: got"):
            histogram(points, bins, reach)


def test_statistics_by_hand() -> None:
    front, back = sketch(40, 30), sketch(-40, -30)
    front[5], back[4] = (-0.6, 20), (719.6, 20)
    people = invented(np.stack([front, back, front]), [10, 20, 40], ["a", "b", "a"])
    found = statistics(people)
    assert (found["people"], found["stills"], found["shared"], found["behind"]) == (3, 2, 1, 1)
    assert found["outside"] == 3
    assert found["torso"] == pytest.approx([11, 20, 38])
    # The nose is at x = 100, the torso at 117.5 or 82.5: -1.75, 0.875 and -0.4375 torsos away.
    away = np.array([-1.75, 0.875, -0.4375])
    mean, deviation = found["spread"]["nose"]
    assert mean[0] == pytest.approx(away.mean())
    assert deviation[0] == pytest.approx(away.std())


# -- the real files ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def labels() -> Path:
    return real("flic", "annot/train_personcentric.h5")


@pytest.mark.parametrize(("split", "count", "backs"), [("train", 3987, 199), ("test", 1016, 48)])
def test_real_pair(labels: Path, split: str, count: int, backs: int) -> None:
    """The rule makes the observer-centric file of the person-centric one, person by person."""
    person, other = (read(labels, "h5", split, centric) for centric in ("person", "observer"))
    assert len(person.names) == len(other.names) == count
    assert person.names == other.names
    differ = (person.joints != other.joints).any((1, 2))
    assert differ.sum() == backs
    np.testing.assert_array_equal(behind(person.joints), differ)
    np.testing.assert_array_equal(observer(person.joints), other.joints)
    assert not behind(other.joints).any()
    # Shoulders and hips are crossed together or not at all, and never nearly so.
    x = person.joints[..., 0]
    np.testing.assert_array_equal(x[:, 0] < x[:, 3], x[:, 6] < x[:, 7])
    assert np.abs(x[:, [0, 6]] - x[:, [3, 7]]).min() > 25
    assert person.visible.all()


@pytest.mark.parametrize("split", SPLITS)
def test_real_torso(labels: Path, split: str) -> None:
    """The files' length is that of the person-centric joints in both of them."""
    person, other = (read(labels, "h5", split, centric) for centric in ("person", "observer"))
    ends = ("r_shoulder", "l_hip")
    found = torso(torch.from_numpy(person.joints), FLIC11, ends).numpy()
    np.testing.assert_allclose(found, person.torso, atol=1e-9)
    np.testing.assert_array_equal(person.torso, other.torso)
    crossed = torso(torch.from_numpy(other.joints), FLIC11, ends).numpy()
    assert ((np.abs(crossed - other.torso) > 1e-9) == behind(person.joints)).mean() > 0.999
    listed = labels / "annot" / f"{'train' if split == 'train' else 'valid'}_images.txt"
    assert person.names == listed.read_text().split()


def test_real_statistics(labels: Path) -> None:
    """What the documentation says: stills, the height of torsos, joints lost by cutting, the torso crop."""
    train, test = (read(labels, "h5", split, "observer") for split in SPLITS)
    stills = set(train.names) | set(test.names)
    assert len(stills) == 4552 == dict(fetch.DATASETS["flic"].expects)["images/*.jpg"]
    assert len(set(train.names) & set(test.names)) == 2
    found = statistics(train)
    assert (found["people"], found["stills"], found["outside"]) == (3987, 3628, 10)
    height = place(train, "torso")[:, 1]
    assert height.mean() == pytest.approx(flic.TORSO_Y, abs=0.05)
    assert height.std() == pytest.approx(42, abs=0.5)
    joints = np.concatenate([train.joints, test.joints])
    assert ((joints[..., 0] < 39.5) | (joints[..., 0] > 679.5)).mean() == pytest.approx(0.004, abs=2e-4)
    assert (train.centre[:, 1] == 239).all()
    # The crop's middle is near the torso's, where a detector saw it.
    assert np.median(np.abs(train.centre[:, 0] - place(train, "torso")[:, 0])) < 8
    # Observer-centric labels make the priors narrow.
    person = statistics(read(labels, "h5", "train", "person"))
    assert found["spread"]["l_shoulder"][1][0] < 0.06 < 0.14 < person["spread"]["l_shoulder"][1][0]
    prior = histogram(displacements(train, "l_shoulder", "torso"), 61, 2.0)
    row, column = np.unravel_index(prior.argmax(), prior.shape)
    assert prior.sum() == pytest.approx(1)
    centre = (2 * np.array([column, row]) + 1) / 61 * 2 - 2
    np.testing.assert_allclose(centre, [0.32, -0.42], atol=0.05)


def test_real_labels_without_stills(labels: Path) -> None:
    if (labels / "images").is_dir():
        pytest.skip("the stills are here")
    with pytest.raises(FileNotFoundError, match=r"none of the 3628 pictures, such as .*get FLIC\.zip \(300 MB\)"):
        FLIC(str(labels), "h5").open()
