"""COCO's whole pictures: the file's oddities by hand, canvases, the jitter against pixels, AP with crowds, refusals."""

import json
import math
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import coco_fixture as fixture
import numpy as np
import pytest
import torch
from drawing_fixture import real
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

from coordreg.coords import Batch, Labels, Points, apply_affine, from_pixels, swap
from coordreg.data import pack
from coordreg.data.coco import COCO
from coordreg.data.crowds import CrowdStore, people
from coordreg.data.scenes import ScaleJitter, Scenes, SceneStore, corners, cut_people
from coordreg.data.skeletons import COCO17
from coordreg.metrics.coco_ap import evaluate
from coordreg.metrics.scoring_people import ScoringPeople
from coordreg.metrics.scoring_scenes import ScoringScenes
from coordreg.spec import describe, rebuild

pytest.importorskip("pycocotools", reason="COCO is read through pycocotools")

J = len(COCO17.joints)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven people of train2017 in four pictures, five of val2017 in three; one more picture each without anybody."""
    root = tmp_path_factory.mktemp("coco")
    fixture.write(root, 7, "train2017", seed=1)
    fixture.write(root, 5)
    return root


def opened(root: Path, split: str = "val2017", **options: Any) -> SceneStore:
    return Scenes(COCO(root=str(root), split=split), **{"canvas": 400, "places": 3, **options}).open()


# -- reading -----------------------------------------------------------------------------------------------------------


def annotation(number: int, image: int, box: list[float], area: float, flags: int = 2, **more: Any) -> dict[str, Any]:
    """Joint j of somebody lies at (box's corner + j, box's corner + 1)."""
    points = [[box[0] + j, box[1] + 1, flags] if flags else [0, 0, 0] for j in range(J)]
    labelled = J if flags else 0
    common = {"category_id": 1, "iscrowd": 0, "segmentation": [], "num_keypoints": labelled}
    own = {"id": number, "image_id": image, "bbox": box, "area": area, "keypoints": [v for p in points for v in p]}
    return {**common, **own, **more}


def write(root: Path, split: str = "val2017") -> Path:
    """A picture of 30 x 20 px with five annotations, one of 50 x 40 with a person, one of 12 x 16 with nobody."""
    sizes = {3: (30, 20), 1: (50, 40), 2: (12, 16)}
    pictures = root / split
    pictures.mkdir(parents=True)
    for i, (width, height) in sizes.items():
        rows = np.arange(height)[:, None, None] * 4 + np.arange(width)[:, None] * [1, 2, 3]
        Image.fromarray(rows.astype(np.uint8)).save(pictures / f"{i}.png")
    people = [
        annotation(1, 3, [2, 3, 20, 10], 80.0),
        annotation(2, 3, [1, 2, 25, 16], 90.0, flags=0),  # a box alone
        annotation(3, 3, [4, 4, 9, 9], 500.0, iscrowd=1, segmentation={"counts": [0, 600], "size": [20, 30]}),
        annotation(4, 3, [-5, 15, 60, 60], 20.0, flags=1),  # beyond the edges
        annotation(5, 3, [29.5, 3, 0.4, 6], 30.0),  # less than a pixel
        annotation(6, 1, [10, 20, 30, 15], 300.0),
        annotation(7, 1, [10, 20, 30, 15], 0.0),  # without a mask
    ]
    images = [{"id": i, "file_name": f"{i}.png", "width": w, "height": h} for i, (w, h) in sizes.items()]
    category = {"id": 1, "name": "person", "keypoints": list(COCO17.joints), "skeleton": []}
    path = root / "annotations" / f"person_keypoints_{split}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": people, "categories": [category]}))
    return root


def test_who_is_in_a_picture_by_hand(tmp_path: Path) -> None:
    """Largest first: the box alone (which has no area for scores), the first, the one that is cut at the edges."""
    store = opened(write(tmp_path), canvas=40)
    assert store.image_ids.tolist() == [3, 1, 2]
    assert store.images.shape == (3, 3, 40, 40)
    assert (store.places, store.coords.shape) == (3, (3, 3 * (J + 2), 2))
    torch.testing.assert_close(store.area, torch.tensor([[0.0, 80, 20], [300, 0, 0], [0, 0, 0]]))
    torch.testing.assert_close(store.normaliser, torch.tensor([80.0, 300, 1]).sqrt())
    pixels = apply_affine(store.affine, store.coords)  # of the pictures, also of the one that was made smaller
    joints, box = people(pixels, 3)
    known, framed = (w.amin(-1) > 0 for w in people(store.weight, 3))
    assert framed.all(-1).tolist() == [[True, True, True], [True, False, False], [False] * 3]
    assert torch.equal(framed.any(-1), framed.all(-1))
    assert known.sum(-1).tolist() == [[0, J, J], [J, 0, 0], [0, 0, 0]]
    edges = box + 0.5  # numbers of boxes count from the edge
    wanted = {(0, 0): [1, 2, 26, 18], (0, 1): [2, 3, 22, 13], (0, 2): [0, 15, 30, 20], (1, 0): [10, 20, 40, 35]}
    for (i, p), numbers in wanted.items():
        assert edges[i, p].flatten().tolist() == pytest.approx(numbers, abs=1e-4)
    for i, p, x, y in ((0, 1, 2, 4), (0, 2, -5, 16), (1, 0, 10, 21)):
        assert joints[i, p].tolist() == [pytest.approx([x + j, y], abs=1e-4) for j in range(J)]
    nose, edge = people(store.coords, 3)[0][0, 1, 0], people(store.coords, 3)[1][0, 1, 0]
    torch.testing.assert_close(nose, torch.tensor([2 * 2 + 1, 2 * 4 + 1]) / 40 - 1)  # the middle of pixel (2, 4)
    torch.testing.assert_close(edge, torch.tensor([2 * 2, 2 * 3]) / 40 - 1)  # the edge of pixel (2, 3)
    seen, _ = people(store.visible.unsqueeze(-1).float(), 3)
    assert seen[0, :, :, 0].mean(1).tolist() == [0, 1, 0]  # labelled as hidden is not seen
    assert store.coords[store.weight == 0].eq(0).all()


def test_a_picture_lies_in_the_corner_of_its_canvas(tmp_path: Path) -> None:
    store = opened(write(tmp_path), canvas=40)
    batch = store.batch(torch.tensor([2, 0, 1]))
    assert corners(batch.images, batch.hint) == [(12, 16), (30, 20), (40, 32)]
    for i, (width, height) in enumerate(corners(store.images.float(), store.hint)):
        assert store.images[i, :, height:].eq(0).all()
        assert store.images[i, :, :, width:].eq(0).all()
    for i, name, (width, height) in ((0, "3", (30, 20)), (2, "2", (12, 16))):
        pixels = np.asarray(Image.open(tmp_path / "val2017" / f"{name}.png"))
        assert torch.equal(store.images[i, :, :height, :width], torch.from_numpy(pixels.copy()).permute(2, 0, 1))
    large = np.asarray(Image.open(tmp_path / "val2017" / "1.png").resize((40, 32), Image.Resampling.BICUBIC))
    assert torch.equal(store.images[1, :, :32], torch.from_numpy(large.copy()).permute(2, 0, 1))
    assert torch.equal(batch.images[1], store.images[0] / 255)


def test_one_trains_on_pictures_with_labelled_people_and_is_tested_on_all(tmp_path: Path, drawn: Path) -> None:
    assert opened(write(tmp_path, "train2017"), "train2017", canvas=40).image_ids.tolist() == [3, 1]
    assert opened(drawn).image_ids.tolist() == [10, 11, 12, 9999]
    assert opened(drawn, "train2017").image_ids.tolist() == [10, 11, 12, 13]
    assert opened(drawn, limit=2).image_ids.tolist() == [10, 11]


def test_labels_are_the_fixtures(drawn: Path) -> None:
    truth = fixture.people(5, seed=0)
    store = opened(drawn)
    joints, box = people(apply_affine(store.affine, store.coords), 3)
    for k in range(5):
        i = k // 2
        (p,) = (store.area[i] == float(truth.area[k])).nonzero()[:, 0].tolist()
        known = truth.keypoints[k, :, 2] > 0
        np.testing.assert_allclose(joints[i, p][known], truth.keypoints[k, known, :2], atol=1e-3)
        low, side = truth.box[k, :2], truth.box[k, 2:]
        np.testing.assert_allclose(box[i, p] + 0.5, np.stack([low, low + side]), atol=1e-3)
    assert int((store.area > 0).sum()) == 5
    assert int((people(store.weight, 3)[1].amin((-2, -1)) > 0).sum()) == 6  # and the box without labels


def test_large_sets_stay_on_the_host_and_move_by_batches(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened(drawn)
    root = Path(shutil.copytree(drawn, drawn.parent / "packed"))
    monkeypatch.setattr(pack, "IN_MEMORY", 1000)
    second = opened(root)
    (path,) = (root / "packs").glob("coco-val2017-whole-400-*.u8")
    assert path.stat().st_size == 4 * 3 * 400 * 400
    assert second.fingerprint == first.fingerprint
    moved = second.to("cpu")
    assert isinstance(moved, SceneStore)
    assert torch.equal(moved.area, first.area)
    assert moved.images.data_ptr() == second.images.data_ptr()


# -- the jitter --------------------------------------------------------------------------------------------------------

CANVAS, P = 48, 2


def ramps(sizes: list[tuple[int, int]]) -> torch.Tensor:
    """Red grows to the right and green downwards, from 0 at the left and upper edge to 1 at the canvas's others."""
    middle = (torch.arange(CANVAS) + 0.5) / CANVAS
    found = torch.zeros(len(sizes), 3, CANVAS, CANVAS)
    for i, (width, height) in enumerate(sizes):
        found[i, 0, :height, :width] = middle[:width]
        found[i, 1, :height, :width] = middle[:height, None]
        found[i, 2, :height, :width] = 0.25
    return found


def batch(sizes: list[tuple[int, int]], generator: torch.Generator) -> Batch:
    """Two people a picture, the second of every other picture absent, joint 3 of the first not labelled."""
    n = len(sizes)
    edge = torch.tensor(sizes).float()[:, None, None]
    low = torch.rand(n, P, 1, 2, generator=generator) * 0.5
    points = (low + 0.5 * torch.rand(n, P, J, 2, generator=generator)) * edge
    box = torch.cat([low, low + 0.2 + 0.3 * torch.rand(n, P, 1, 2, generator=generator)], 2) * edge
    weight = torch.ones(n, P, J + 2, 2)
    weight[::2, 1] = 0
    weight[:, 0, 3] = 0
    coords = torch.cat([points, box], 2) * (2 / CANVAS) - 1
    labels = Labels(torch.where(weight > 0, coords, 0).flatten(1, 2), weight.flatten(1, 2))
    hint = torch.tensor(sizes).float() * (2 / CANVAS) - 1
    visible = labels.weight[..., 0] > 0
    return Batch(ramps(sizes), labels, visible, torch.ones(n), torch.zeros(n, 2, 3), hint)


PAIRS = [(a + p * (J + 2), b + p * (J + 2)) for p in range(P) for a, b in COCO17.pairs]
SIZES = [(48, 30), (20, 48), (40, 41), (48, 48), (33, 17)]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(0.3, 0.9), (0.8, 1.25), (1.5, 2.0)]), st.sampled_from([0.0, 0.5, 1.0]))
def test_labels_follow_the_picture(seed: int, range_: tuple[float, float], flip: float) -> None:
    """The colour at a joint is its place in the picture it came from, whatever was done to it."""
    g = torch.Generator().manual_seed(seed)
    given_ = batch(SIZES, g)
    out = ScaleJitter(40, *range_, flip=flip)(given_, P, PAIRS, torch.Generator().manual_seed(seed))
    assert out.images.shape == (len(SIZES), 3, 40, 40)
    assert out.hint is None
    assert float(out.images.min()) >= 0
    assert float(out.images.max()) <= 1
    grid = out.labels.coords.unsqueeze(2)
    read = F.grid_sample(out.images, grid, align_corners=False, padding_mode="border").squeeze(-1).transpose(1, 2)
    blue = (read[..., 2] - 0.25).abs() < 1e-4  # the picture, and not what lies beyond it
    joints = torch.arange(P * (J + 2)) % (J + 2) < J
    kept = (out.labels.weight[..., 0] > 0) & blue & joints & (out.labels.coords.abs() < 0.93).all(-1)
    assert int(kept.sum()) > 5
    mirrored = torch.rand(len(SIZES), 4, generator=torch.Generator().manual_seed(seed))[:, 3] < flip
    source = torch.where(mirrored[:, None, None], swap(given_.labels.coords, PAIRS), given_.labels.coords)
    assert (read[..., :2] * 2 - 1 - source)[kept].abs().max() < 0.06


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 1.0]))
def test_boxes_are_cut_and_in_order(seed: int, flip: float) -> None:
    """A slow way: each person's box, resized, moved, mirrored and clipped by itself."""
    given_ = batch(SIZES, torch.Generator().manual_seed(seed))
    jitter = ScaleJitter(36, 0.2, 2.0, flip=flip)
    out = jitter(given_, P, PAIRS, torch.Generator().manual_seed(seed))
    drawn = torch.rand(len(SIZES), 4, generator=torch.Generator().manual_seed(seed)).tolist()
    joints, box = people(out.labels.coords, P)
    known, framed = people(out.labels.weight, P)
    for i, (width, height) in enumerate(SIZES):
        factor = (0.2 + 1.8 * drawn[i][0]) * 36 / max(width, height)
        new = [max(1, round(n * factor)) for n in (width, height)]
        first = [math.floor(drawn[i][1 + d] * (max(0, new[d] - 36) + 1)) for d in range(2)]
        source = people(given_.labels.coords, P)[1][i]
        for p in range(P):
            low, high = [], []
            for d, n in enumerate((width, height)):
                a, b = (
                    min(36.0, max(0.0, (float(source[p, c, d]) + 1) * CANVAS / 2 * new[d] / n - first[d]))
                    for c in (0, 1)
                )
                if d == 0 and flip:
                    a, b = 36 - b, 36 - a
                low.append(a)
                high.append(b)
            there = bool(people(given_.labels.weight, P)[1][i, p].all())
            wide = min(h - a for a, h in zip(low, high, strict=True))
            if there and abs(wide - 1) > 1e-3:
                assert bool(framed[i, p].all()) == (wide > 1)
            if not framed[i, p].any():
                assert not known[i, p].any()
                assert people(out.visible.unsqueeze(-1).float(), P)[0][i, p].eq(0).all()
                continue
            found = ((box[i, p] + 1) * 18).tolist()
            assert found == [pytest.approx(low, abs=1e-3), pytest.approx(high, abs=1e-3)]
            assert (joints[i, p][known[i, p, :, 0] > 0].abs() <= 1).all()


def test_a_small_picture_lies_on_the_mean_colour() -> None:
    given_ = batch([(48, 24)], torch.Generator().manual_seed(0))
    out = ScaleJitter(40, 0.5, 0.5, flip=0.0)(given_, P, PAIRS, torch.Generator().manual_seed(1))
    assert out.images[0, 2, :10, :20].sub(0.25).abs().max() < 1e-5
    mean = torch.tensor([0.485, 0.456, 0.406])
    assert torch.equal(out.images[0, :, 10:], mean[:, None, None].expand(3, 30, 40))
    assert torch.equal(out.images[0, :, :, 20:], mean[:, None, None].expand(3, 40, 20))
    assert (out.labels.weight.sum(), out.visible.sum()) == (given_.labels.weight.sum(), given_.visible.sum())
    mirrored = ScaleJitter(40, 0.5, 0.5, flip=1.0)(given_, P, PAIRS, torch.Generator().manual_seed(1))
    assert torch.equal(mirrored.images, out.images.flip(-1))


def test_the_part_that_is_kept_may_lie_anywhere() -> None:
    """Of a picture at twice the size: red at the left edge is 0 to 1/2, where the picture is as wide as its canvas."""
    given_ = batch([(48, 48)] * 200, torch.Generator().manual_seed(0))
    out = ScaleJitter(24, 2.0, 2.0, flip=0.0)(given_, P, PAIRS, torch.Generator().manual_seed(1))
    for colour, edge in ((0, out.images[:, 0, :, 0]), (1, out.images[:, 1, 0, :])):
        values = edge[:, 12]
        assert float(values.min()) < 0.03, colour
        assert 0.47 < float(values.max()) < 0.53, colour
        assert 0.2 < float(values.median()) < 0.3, colour


def test_a_store_jitters_only_for_training(drawn: Path) -> None:
    store = opened(drawn, "train2017", augment=ScaleJitter(32))
    index = torch.tensor([3, 1])
    plain = store.batch(index)
    assert plain.images.shape == (2, 3, 400, 400)
    one, two, other = (store.batch(index, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert one.images.shape == (2, 3, 32, 32)
    assert torch.equal(one.images, two.images)
    assert torch.equal(one.labels.coords, two.labels.coords)
    assert not torch.equal(one.images, other.images)
    before = torch.Generator().manual_seed(5)
    after = torch.Generator().manual_seed(5)
    store.batch(index, before)
    ScaleJitter(32, 1.0, 1.0, flip=0.0)(plain, store.places, store.pairs, after)
    assert torch.equal(before.get_state(), after.get_state())  # as many numbers, whatever is switched on


def test_cut_people_by_hand() -> None:
    """Of three: one whole, one of whom a corner is left, one outside; a joint outside loses its weight."""
    box = torch.tensor([[[-0.5, -0.5], [0.5, 0.5]], [[0.8, 2.0], [3.0, -0.9]], [[1.2, 0.0], [1.9, 0.5]]])
    joints = torch.tensor([[0.0, 1.1], [0.9, 0.9], [1.5, 0.1]]).unsqueeze(1)
    labels = Labels(torch.cat([joints, box], 1).flatten(0, 1)[None], torch.ones(1, 9, 2))
    coords, weight = cut_people(labels, 3, 0.1)
    assert weight[0, :, 0].tolist() == [0, 1, 1, 1, 1, 1, 0, 0, 0]
    expected = [[0, 0], [-0.5, -0.5], [0.5, 0.5], [0.9, 0.9], [0.8, -0.9], [1, 1], [0, 0], [0, 0], [0, 0]]
    torch.testing.assert_close(coords[0], torch.tensor(expected).float())
    assert cut_people(labels, 3, 0.25).weight[0, 3:6].eq(0).all()  # a fifth of the width is less


# -- scores ------------------------------------------------------------------------------------------------------------


def answers(store: SceneStore, off: float = 0.0) -> Points:
    """Everybody with labels, the larger the surer, and nobody else."""
    score = torch.where(store.area > 0, 0.2 + store.area / 2 / store.area.max(), 0)
    return Points(store.coords + torch.tensor([off, 0.0]), score.repeat_interleave(J + 2, 1))


def test_exact_answers_are_perfect(drawn: Path) -> None:
    store = opened(drawn)
    scores = ScoringScenes(root=str(drawn)).score(answers(store), store)
    at = scores.summary()["at"]
    assert (at["AP"], at["AP75"], at["AR"], at["oks"]) == (100, 100, 100, 100)
    images = scores.images()
    assert images["count"].tolist() == [2, 2, 1, 0]
    assert images["oks"].tolist() == [1, 1, 1, 0]


def test_answers_are_in_pixels_of_the_file(drawn: Path) -> None:
    """AP of moved answers is that of the file's own numbers, moved by as many pixels."""
    store = opened(drawn, canvas=500)
    truth = fixture.people(5, seed=0)
    score = 0.2 + truth.area / 2 / truth.area.max()
    typed = []
    for k in range(5):
        points = truth.keypoints[k].copy()
        points[:, 0] += 0.03 * 250
        typed.append({
            "image_id": int(truth.image_ids[k]), "category_id": 1, "keypoints": points.flatten().tolist(),
            "score": float(score[k]),
        })  # fmt: skip
    wanted = evaluate(drawn / "annotations" / "person_keypoints_val2017.json", typed)
    found = ScoringScenes(root=str(drawn)).score(answers(store, 0.03), store).ap
    assert found == pytest.approx(wanted, nan_ok=True)
    assert 0 < found["AP"] < 1


def twice(store: SceneStore, points: Points) -> Points:
    """The first picture's first labelled person told of again, with the surest score of all."""
    coords, score = (t.unflatten(1, (store.places, -1)).clone() for t in (points.coords, points.score))
    person = int((store.area[0] == 0.6 * 60 * 80).nonzero()[0])
    (free,) = (store.area[0] == 0).nonzero()[:, 0].tolist()
    coords[0, free] = coords[0, person]
    score[0, free] = 0.95
    return Points(coords.flatten(1, 2), score.flatten(1, 2))


def test_answers_in_a_crowd_do_not_count(drawn: Path, tmp_path: Path) -> None:
    """The fixture's crowd lies where its first person is: a second answer there is no mistake, without it it is."""
    store = opened(drawn)
    points = twice(store, answers(store))
    assert ScoringScenes(root=str(drawn)).score(points, store).summary()["at"]["AP"] == 100
    bare = Path(shutil.copytree(drawn, tmp_path / "bare"))
    path = bare / "annotations" / "person_keypoints_val2017.json"
    data = json.loads(path.read_text())
    data["annotations"] = [a for a in data["annotations"] if not a["iscrowd"]]
    path.write_text(json.dumps(data))
    assert ScoringScenes(root=str(bare)).score(points, store).summary()["at"]["AP"] < 95
    assert ScoringPeople().score(points, store).summary()["at"]["AP"] < 95  # which knows of no crowds


def test_answers_where_nobody_is_count(drawn: Path) -> None:
    store = opened(drawn)
    points = answers(store)
    points.score[3] = 0.9
    assert ScoringScenes(root=str(drawn)).score(points, store).summary()["at"]["AP"] < 95
    part = opened(drawn, limit=3)  # pictures that are not looked at do not
    cut = Points(points.coords[:3], points.score[:3])
    assert ScoringScenes(root=str(drawn)).score(cut, part).summary()["at"]["AP"] == 100


def test_other_shapes_and_stores_are_refused(drawn: Path) -> None:
    store = opened(drawn)
    points = answers(store)
    with pytest.raises(ValueError, match=r"predictions of shape \(4, 19, 2\) for a SceneStore of \(4, 57, 2\)"):
        ScoringScenes(root=str(drawn)).score(Points(points.coords[:, :19], points.score[:, :19]), store)
    plain = CrowdStore(**{f.name: getattr(store, f.name) for f in fields(CrowdStore)})
    with pytest.raises(ValueError, match=r"predictions of shape \(4, 57, 2\) for a CrowdStore of \(4, 57, 2\)"):
        ScoringScenes(root=str(drawn)).score(points, plain)


# -- the real files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_real_pictures(split: str) -> None:
    """People and pictures counted from the file by a loop of its own; every box in its picture."""
    root = real("coco-mini")
    store = opened(root, split, canvas=640, places=14)
    data = json.loads((root / "annotations" / f"person_keypoints_{split}.json").read_text())
    wanted: dict[int, list[Any]] = {picture["id"]: [] for picture in data["images"]}
    for a in data["annotations"]:
        if not a["iscrowd"] and min(a["bbox"][2:]) >= 1:
            wanted[a["image_id"]].append(a)
    if split == "train2017":
        wanted = {i: rows for i, rows in wanted.items() if any(a["num_keypoints"] for a in rows)}
    assert store.image_ids.tolist() == list(wanted)
    framed = people(store.weight, 14)[1].amin((-2, -1)) > 0
    assert framed.sum(1).tolist() == [len(rows) for rows in wanted.values()]
    labelled = [sum(a["num_keypoints"] > 0 for a in rows) for rows in wanted.values()]
    assert (store.area > 0).sum(1).tolist() == labelled
    assert store.hint is not None
    low, high = (people(store.coords, 14)[1][:, :, c] for c in (0, 1))
    assert (high <= store.hint.unsqueeze(1) + 1e-5)[framed].all()
    assert (low < high)[framed].all()
    sizes = {p["id"]: (p["width"], p["height"]) for p in data["images"]}
    assert corners(torch.zeros(1).expand(len(store), 3, 640, 640), store.hint) == [sizes[i] for i in wanted]


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_a_configuration_comes_back_from_its_description() -> None:
    data = Scenes(COCO(split="train2017"), augment=ScaleJitter(64, 1, 2, flip=0))
    assert rebuild(describe(data)) == data
    assert data.size == 64
    assert (Scenes(COCO(split="val2017")).size, Scenes(COCO(split="val2017")).split) == (640, "val2017")


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"size": 1}, "got size=1, smallest=0.1"),
        ({"smallest": 0.0}, "got size=1024, smallest=0.0"),
        ({"smallest": 1.5, "largest": 1.0}, "smallest=1.5, largest=1.0"),
        ({"flip": 1.5}, "flip=1.5, expected at least 2 px"),
        ({"largest": 9}, "largest=9, flip=0.5, expected .* shares above 0 and up to 8, in order, and a chance"),
    ],
)
def test_bad_jitter_is_told(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScaleJitter(**knobs)


@pytest.mark.parametrize(
    ("data", "knobs", "message"),
    [
        (COCO(split="val2017", limit=3), {}, "got a COCO with limit of its own"),
        (COCO(split="val2017", boxes="a.json"), {}, "got a COCO with boxes of its own"),
        (COCO(size=(64, 48), canvas=2.0), {}, "got a COCO with size, canvas of its own, expected root and split alone"),
        (COCO(split="val2017"), {"augment": ScaleJitter()}, "got an augmentation for val2017"),
        (COCO(), {"places": 0}, "got canvas=640, places=0, limit=None"),
        (COCO(), {"canvas": 1}, "got canvas=1"),
        (COCO(), {"limit": 0}, "limit=0, expected at least 2 px"),
    ],
)
def test_bad_configurations_are_told(data: COCO, knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scenes(data, **knobs)


def test_bad_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"get annotations_trainval2017\.zip"):
        opened(tmp_path / "none")
    root = write(tmp_path / "some")
    with pytest.warns(UserWarning, match="Scenes: 2 people are beyond 1 places; give more places"):
        opened(root, canvas=40, places=1)
    Image.new("RGB", (20, 30)).save(root / "val2017" / "3.png")
    with pytest.raises(ValueError, match=r"3\.png has 20 x 30 px, annotated are 30 x 20; fetch it again"):
        opened(root, canvas=40)
    (root / "val2017" / "3.png").unlink()
    with pytest.warns(UserWarning, match=r"1 pictures are not in .*val2017; 3 of 4 people are left out"):
        assert opened(root, canvas=40).image_ids.tolist() == [1, 2]
    (root / "val2017" / "2.png").unlink()
    with (
        pytest.warns(UserWarning, match="3 of 4 people"),
        pytest.warns(UserWarning, match=r"1 of 1 pictures without people are not in .*val2017 and are left out"),
    ):
        assert opened(root, canvas=40).image_ids.tolist() == [1]
    path = root / "annotations" / "person_keypoints_val2017.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "annotations": [a for a in data["annotations"] if a["iscrowd"]]}))
    with pytest.raises(ValueError, match="these annotations hold no person with key points"):
        opened(root, canvas=40)


def test_pictures_without_their_ends_are_told() -> None:
    with pytest.raises(ValueError, match="got pictures without a hint"):
        corners(torch.zeros(1, 3, 8, 8), None)
    given_ = batch([(48, 24)], torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="got pictures without a hint"):
        ScaleJitter(40)(given_._replace(hint=None), P, PAIRS, torch.Generator())
    assert corners(torch.zeros(1, 3, 20, 40), from_pixels(torch.tensor([[9.5, 4.5]]), (20, 40))) == [(10, 5)]
