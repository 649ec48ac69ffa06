"""COCO's key points: boxes by hand, who is in, crops square and not, augmentation, detections; the real files."""

import json
import shutil
from pathlib import Path
from typing import Any

import coco_fixture as fixture
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from real_data import real

from coordreg.coords import Labels, apply_affine, to_pixels
from coordreg.data import coco, pack
from coordreg.data.augment import Augment
from coordreg.data.coco import COCO, Window, clean, frame
from coordreg.data.skeletons import COCO17
from coordreg.data.store import Store
from coordreg.spec import describe, rebuild

pytest.importorskip("pycocotools", reason="COCO is read through pycocotools")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, fixture.Truth]:
    """Seven people of train2017; not to be changed."""
    root = tmp_path_factory.mktemp("coco")
    return root, fixture.write(root, 7, "train2017")


@pytest.fixture
def own(made: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(made[0], tmp_path / "copy"))


# -- boxes ------------------------------------------------------------------------------------------------------------


def test_cleaning_by_hand() -> None:
    boxes = [[10, 20, 31, 41], [-5, -7, 31, 41], [90, 70, 31, 41], [10, 20, 0.5, 1], [120, 20, 30, 30]]
    found = clean(np.array(boxes, float), np.full(5, 100), np.full(5, 80))
    # One less; moved in with its size kept; cut at 99 and 79; nothing but a point; outside: below 0.
    assert found.tolist() == [[10, 20, 30, 40], [0, 0, 30, 40], [90, 70, 9, 9], [10, 20, 0, 0], [120, 20, -21, 29]]


def test_frames_by_hand() -> None:
    boxes = np.array([[10.0, 20, 30, 80], [10, 20, 90, 80], [10, 20, 60, 80], [4, 5, 0, 0]])
    centre, sides = frame(boxes, (256, 192))
    assert centre.tolist() == [[25, 60], [55, 60], [40, 60], [4, 5]]
    np.testing.assert_allclose(sides, [[75, 100], [112.5, 150], [75, 100], [1.25, 1.25 / 0.75]])
    assert frame(boxes, (64, 64))[1][0].tolist() == [100, 100]


@settings(max_examples=50, deadline=None)
@given(
    box=st.tuples(st.floats(-20, 400), st.floats(-20, 300), st.floats(1, 400), st.floats(1, 300)),
    size=st.tuples(st.integers(8, 400), st.integers(8, 400)),
)
def test_frames_hold_their_boxes(box: tuple[float, ...], size: tuple[int, int]) -> None:
    """The crop has the network's aspect, the box's middle, and exactly 1.25 of one of its sides."""
    centre, sides = frame(np.array([box]), size)
    np.testing.assert_allclose(sides[0, 0] / sides[0, 1], size[1] / size[0])
    np.testing.assert_allclose(centre[0], [box[0] + box[2] / 2, box[1] + box[3] / 2])
    over = sides[0] / np.array(box[2:])
    np.testing.assert_allclose(over.min(), 1.25)


# -- the data set -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 48), (48, 64), 40])
def test_store(made: Any, size: Any) -> None:
    root, truth = made
    config = COCO(str(root), size=size)
    store = config.open()
    assert store.images.shape == (7, 3, *config.shape)
    assert store.annotation_ids.tolist() == truth.ids.tolist()  # no crowd, nobody without labels
    assert store.image_ids.tolist() == truth.image_ids.tolist()
    assert store.box_scores.tolist() == [1] * 7
    np.testing.assert_allclose(store.area.numpy(), truth.area, rtol=1e-6)
    np.testing.assert_allclose(store.normaliser.numpy(), np.sqrt(truth.area), rtol=1e-6)
    flags = torch.from_numpy(truth.keypoints[..., 2])
    assert torch.equal(store.weight[..., 1] > 0, flags > 0)
    assert torch.equal(store.visible, flags == 2)
    assert (flags == 1).any()
    back = apply_affine(store.affine, store.coords).numpy()
    np.testing.assert_allclose(back[flags > 0], truth.keypoints[flags > 0][:, :2], atol=1e-3)
    # All joints lie in their boxes, so in the crop.
    assert store.coords[flags > 0].abs().max() < 1
    # By hand: the first box, 60 x 80, is 59 x 79 after the cleaning.
    aspect = config.shape[1] / config.shape[0]
    width = 1.25 * max(59, 79 * aspect)
    np.testing.assert_allclose(float(store.crop_area[0]), width * width / aspect, rtol=1e-5)
    middle = apply_affine(store.affine, torch.zeros(7, 1, 2))[0, 0].numpy()
    np.testing.assert_allclose(middle, truth.box[0, :2] + [29.5, 39.5], atol=1e-3)


@pytest.mark.parametrize("augmented", [False, True])
@pytest.mark.parametrize("size", [(64, 48), (41, 60), (48, 48)])
def test_dots_are_where_the_labels_say(made: Any, size: tuple[int, int], augmented: bool) -> None:
    """The first person of every picture has a white nose; it is also found in batches augmented by nothing."""
    config = COCO(str(made[0]), size=size, augment=Augment(flip=0.0) if augmented else None)
    store = config.open()
    batch = store.batch(torch.arange(0, 7, 2), torch.Generator().manual_seed(0))
    assert batch.images.shape == (4, 3, *size)
    bright = (batch.images[:, 0].double() - 0.35).clamp(min=0)
    mass = bright.sum((1, 2))
    assert mass.min() > 0
    x, y = ((bright.sum(dim) * torch.arange(n)).sum(-1) / mass for dim, n in ((1, size[1]), (2, size[0])))
    found = torch.stack([x, y], -1).float()
    torch.testing.assert_close(found, to_pixels(batch.labels.coords[:, 0], size), atol=0.3, rtol=0)
    if augmented:
        grid = pack.canvas_size(size, 5 / 3)
        assert store.images.shape[-2:] == grid
        plain = COCO(str(made[0]), size=size).open()
        known = plain.weight > 0
        every = store.batch(torch.arange(7), torch.Generator().manual_seed(0))
        torch.testing.assert_close(every.labels.coords[known], plain.coords[known], atol=1e-5, rtol=1e-5)
        assert torch.equal(every.labels.weight, plain.weight)
        assert torch.equal(every.visible, plain.visible)


def spots(count: int, size: tuple[int, int], seed: int) -> tuple[torch.Tensor, Labels, torch.Tensor]:
    """Pictures with a soft dot each, J = 2 labels on it and one beside, and their visibility."""
    g = torch.Generator().manual_seed(seed)
    places = 0.9 * torch.rand(count, 1, 2, generator=g) - 0.45
    x, y = to_pixels(places, size)[:, 0].unbind(-1)
    rows, columns = torch.arange(size[0]).view(1, -1, 1), torch.arange(size[1]).view(1, 1, -1)
    dots = torch.exp(-((columns - x.view(-1, 1, 1)) ** 2 + (rows - y.view(-1, 1, 1)) ** 2) / 8)
    coords = torch.cat([places, places + torch.tensor([0.1, 0.0])], 1)
    return dots.unsqueeze(1).expand(-1, 3, -1, -1), Labels(coords, torch.ones(count, 2, 2)), torch.ones(count, 2).bool()


def test_window_turns_points_with_pixels() -> None:
    """In a crop that is not square, turned, widened and mirrored."""
    canvas, size = (70, 66), (40, 30)
    images, labels, visible = spots(24, canvas, 0)
    window = Window(Augment(flip=0.5, rotation=40, scale=0.3, pairs=()), size)
    out, moved, seen = window(images, labels, visible, torch.Generator().manual_seed(1))
    assert out.shape == (24, 3, *size)
    inside = (moved.coords[:, 0].abs() < 0.55).all(-1)
    assert 5 < inside.sum() < 24
    mass = out[:, 0].double().sum((1, 2))
    x = (out[:, 0].sum(1) * torch.arange(30)).sum(-1) / mass
    y = (out[:, 0].sum(2) * torch.arange(40)).sum(-1) / mass
    found = torch.stack([x, y], -1)[inside].float()
    torch.testing.assert_close(found, to_pixels(moved.coords[:, :1], size)[inside, 0], atol=0.25, rtol=0)
    gone = (moved.coords.abs() > 1).any(-1)
    assert gone.any()
    assert torch.equal(moved.weight[..., 0] == 0, gone)
    assert torch.equal(seen, ~gone)


def test_window_of_a_square_is_augment() -> None:
    """Same random numbers, same picture, same points; the colours too, which are a matter of the middle alone."""
    images, labels, visible = spots(9, (50, 50), 2)
    augment = Augment(flip=0.5, rotation=30, scale=0.25, colour=0.2, pairs=((0, 1),))
    a = Window(augment, (30, 30))(images, labels, visible, torch.Generator().manual_seed(3))
    b = augment.bind((), 30)(images, labels, visible, torch.Generator().manual_seed(3))
    torch.testing.assert_close(a[0], b[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(a[1].coords, b[1].coords, atol=1e-5, rtol=1e-5)
    assert torch.equal(a[1].weight, b[1].weight)
    assert torch.equal(a[2], b[2])
    with pytest.raises(ValueError, match="got images of 50 x 50 px for a middle of 30 x 31"):
        Window(augment, (30, 31))(images, labels, visible, torch.Generator())


def test_augmentation_keeps_sides_apart(made: Any) -> None:
    """A mirrored person's left is on the other side, under its own number."""
    store = COCO(str(made[0]), size=(64, 48), augment=Augment(flip=1.0)).open()
    plain = COCO(str(made[0]), size=(64, 48)).open()
    batch = store.batch(torch.arange(7), torch.Generator().manual_seed(0))
    known = plain.weight[..., 0] > 0
    left, right = COCO17.pairs[3]
    torch.testing.assert_close(batch.labels.coords[:, left, 0], -plain.coords[:, right, 0], atol=1e-5, rtol=0)
    swapped = known.clone()
    swapped[:, [3, 4]] = known[:, [4, 3]]
    assert torch.equal(batch.labels.weight[..., 0] > 0, swapped)


def test_detected_boxes(made: Any) -> None:
    root, truth = made
    store = COCO(str(root), boxes="detections.json", size=(64, 48)).open()
    assert len(store) == 8  # seven people, the first twice, no dog
    assert store.weight.sum() == 0
    assert not store.visible.any()
    assert store.annotation_ids.tolist() == [0] * 8
    assert store.image_ids.tolist() == [*truth.image_ids.tolist(), truth.image_ids[0]]
    np.testing.assert_allclose(store.box_scores.numpy(), [0.9] * 7 + [0.5])
    np.testing.assert_allclose(store.area.numpy()[:7], truth.box[:, 2] * truth.box[:, 3])
    # Detected boxes are not cleaned: 60 x 80 fits 3:4 exactly.
    np.testing.assert_allclose(float(store.crop_area[0]), 75 * 100, rtol=1e-5)
    elsewhere = COCO(str(root), boxes=str(root / "detections.json"), size=(64, 48)).open()
    assert elsewhere.fingerprint == store.fingerprint


def test_a_store_moves_whole(made: Any) -> None:
    store = COCO(str(made[0]), size=16, limit=3).open()
    moved = store.to("cpu")
    assert isinstance(moved, Store)
    assert type(moved) is type(store)
    assert moved.fingerprint == store.fingerprint


def test_who_is_left_out(own: Path) -> None:
    path = own / "annotations" / "person_keypoints_train2017.json"
    data = json.loads(path.read_text())
    people = [a for a in data["annotations"] if a["id"] >= 100]
    people[0]["area"] = 0
    people[1]["bbox"] = [500, 10, 20, 20]  # beside the picture
    people[2]["iscrowd"] = 1
    path.write_text(json.dumps(data))
    assert COCO(str(own), size=16).open().annotation_ids.tolist() == [103, 104, 105, 106]


def test_partial_copies_and_large_ones(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = COCO(str(own), size=(20, 16))
    held = config.open()
    monkeypatch.setattr(pack, "IN_MEMORY", 0)
    mapped = config.open()
    assert mapped.fingerprint == held.fingerprint
    assert [p.name[:21] for p in (own / "packs").glob("*.u8")] == ["coco-train2017-20x16-"]
    (own / "train2017" / "000000000010.jpg").unlink()
    with pytest.warns(UserWarning, match=r"COCO: 1 pictures are not in .*train2017; 2 of 7 people are left out"):
        assert len(config.open()) == 5
    (own / "images").mkdir()
    (own / "train2017").rename(own / "images" / "train2017")  # as HRNet has them
    with pytest.warns(UserWarning, match="left out"):
        assert len(config.open()) == 5
    shutil.rmtree(own / "images")
    with pytest.raises(
        FileNotFoundError, match=r"none of the 4 pictures, such as .*0010\.jpg.*train2017\.zip from http"
    ):
        config.open()


def test_messages(own: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"person_keypoints_train2017\.json is not there.*cocodataset\.org"):
        COCO(str(tmp_path / "nowhere")).open()
    with pytest.raises(FileNotFoundError, match=r"detected boxes nothing\.json is not there.*boxes='gt'"):
        COCO(str(own), boxes="nothing.json").open()
    (own / "detections.json").write_text('{"a": 1}')
    with pytest.raises(ValueError, match="no list of boxes with image_id"):
        COCO(str(own), boxes="detections.json").open()
    (own / "detections.json").write_text("[]")
    with pytest.raises(ValueError, match="no box of a person in one of the 5 annotated pictures"):
        COCO(str(own), boxes="detections.json").open()
    path = own / "annotations" / "person_keypoints_train2017.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "annotations": data["annotations"][:2]}))
    with pytest.raises(ValueError, match=r"no person with key points"):
        COCO(str(own)).open()
    path.write_text("<html>")
    with pytest.raises(ValueError, match=r"train2017\.json is damaged"):
        COCO(str(own)).open()


def test_bad_configurations() -> None:
    with pytest.raises(ValueError, match=r"split='val', expected one of \['train2017', 'val2017'\]"):
        COCO(split="val")
    with pytest.raises(ValueError, match="augmentation for val2017 or detected boxes"):
        COCO(split="val2017", augment=Augment())
    with pytest.raises(ValueError, match="augmentation for val2017 or detected boxes"):
        COCO(boxes="a.json", augment=Augment())
    with pytest.raises(ValueError, match="Augment of size=64; leave it out"):
        COCO(augment=Augment(size=64))
    with pytest.raises(ValueError, match=r"size=\(1, 20\), limit=None"):
        COCO(size=(1, 20))
    with pytest.raises(ValueError, match="canvas: got 7"):
        COCO(canvas=7.0)


def test_configuration_can_be_written_down() -> None:
    for config in (COCO("coco", "val2017", boxes="a.json"), COCO(size=256, augment=Augment(rotation=40, scale=0.3))):
        assert rebuild(describe(config)) == config


def test_nothing_is_printed(made: Any, capsys: pytest.CaptureFixture[str]) -> None:
    COCO(str(made[0]), size=16).open()
    assert capsys.readouterr().out == ""


# -- the real files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "count"), [("train2017", 72), ("val2017", 59)])
def test_real_people(split: str, count: int) -> None:
    place = real("coco-mini", "annotations")
    store = COCO(str(place), split, size=(32, 24)).open()
    assert len(store) == count
    assert store.images.float().std() > 20
    known = store.weight[..., 0] > 0
    truth = coco.index(place / "annotations" / f"person_keypoints_{split}.json")
    labels = np.array([truth.anns[int(i)]["keypoints"] for i in store.annotation_ids]).reshape(-1, 17, 3)
    np.testing.assert_array_equal(known.numpy(), labels[..., 2] > 0)
    back = apply_affine(store.affine.double(), store.coords.double()).numpy()
    np.testing.assert_allclose(back[known], labels[known.numpy()][:, :2], atol=2e-3)
    # Labelled joints lie in the padded box, all but a few.
    assert (store.coords[known].abs() <= 1).all(-1).float().mean() > 0.98


def test_real_detections() -> None:
    samples = real("samples/coco")
    path = samples / "test_coco_det_AP_H_56.json"
    if not path.is_file():
        pytest.skip("no file of detected boxes beside the real COCO")
    truth = coco.index(samples / "test_coco.json")
    people = coco.read_detections(path, truth)
    rows = json.loads(path.read_text())
    assert len(people.names) == sum(r["category_id"] == 1 and r["image_id"] in truth.imgs for r in rows) > 10
    assert 0 < people.scores.min() <= people.scores.max() <= 1
    assert all((samples / name).is_file() for name in people.names)
