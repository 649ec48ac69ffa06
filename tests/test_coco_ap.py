"""AP: scores and OKS-NMS by hand, against slow loops; the ten numbers of perfect and of worse predictions."""

import json
import math
from pathlib import Path
from typing import Any

import coco_fixture as fixture
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coordreg.coords import apply_affine
from coordreg.data.coco import COCO, COCOStore
from coordreg.metrics.coco_ap import NAMES, evaluate, person_scores, results, soften, suppress
from coordreg.metrics.oks import COCO_SIGMAS

pytest.importorskip("pycocotools", reason="AP is computed by pycocotools")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[COCOStore, Path]:
    """Eight people in four pictures, and the file that judges them."""
    config = COCO(str(tmp_path_factory.mktemp("coco")), "val2017", size=(32, 24))
    fixture.write(Path(config.root), 8)
    return config.open(), config.annotations()


def places(store: COCOStore) -> torch.Tensor:
    """The labelled joints in pixels of the pictures, unlabelled ones at 0."""
    return torch.where(store.weight > 0, apply_affine(store.affine, store.coords), 0)


def ap(store: COCOStore, truth: Path, points: torch.Tensor, scores: torch.Tensor | None = None) -> dict[str, float]:
    joints = torch.ones(points.shape[:2]) if scores is None else scores
    return evaluate(truth, results(points, joints, store.box_scores, store.image_ids, store.crop_area))


# -- scores -----------------------------------------------------------------------------------------------------------


def test_person_scores_by_hand() -> None:
    scores = torch.tensor([[0.8, 0.6, 0.2, 0.1], [0.2, 0.1, 0.0, -1.0], [0.3, 0.3, 0.3, 0.3]])
    found = person_scores(scores, torch.tensor([0.5, 1.0, 1.0]))
    assert found.tolist() == pytest.approx([0.35, 0.0, 0.3])  # 0.2 itself does not count


def test_suppression_by_hand() -> None:
    """sigma 0.05 means k = 0.1; with an area of 100 a joint's Gaussian is 1 px wide."""
    points = torch.zeros(4, 1, 2)
    points[:, 0, 0] = torch.tensor([0.0, 0.4, 0.5, 40.0])
    area = torch.full((4,), 100.0)
    assert math.exp(-0.08) > 0.9 > math.exp(-0.125)
    scores = torch.tensor([0.9, 0.8, 0.7, 0.1])
    assert suppress(points, scores, area, sigmas=(0.05,)) == [0, 2, 3]  # 2 is like 1, but 1 is gone
    assert suppress(points, scores.flip(0), area, sigmas=(0.05,)) == [3, 2, 0]  # 1 is like 2
    assert suppress(points, torch.ones(4), area, sigmas=(0.05,)) == [0, 2, 3]
    # A pair's area is the mean of both: with 100 and 44 the width is 0.85 px, and 0.4 px are as 0.47.
    smaller = torch.tensor([100.0, 44.0, 100.0, 100.0])
    assert suppress(points, scores, smaller, sigmas=(0.05,)) == [0, 1, 3]


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 9), seed=st.integers(0, 999), threshold=st.sampled_from([0.3, 0.9]))
def test_suppression_against_a_slow_loop(count: int, seed: int, threshold: float) -> None:
    g = np.random.default_rng(seed)
    points, area, scores = g.normal(50, 4, (count, 17, 2)), g.uniform(500, 3000, count), g.permutation(count) / 10
    kept: list[int] = []
    for i in sorted(range(count), key=lambda i: -scores[i]):
        likes = []
        for j in kept:
            terms = [
                math.exp(-((points[i, k] - points[j, k]) ** 2).sum() / (4 * s * s * (area[i] + area[j])))
                for k, s in enumerate(COCO_SIGMAS)
            ]
            likes.append(sum(terms) / 17)
        if all(like <= threshold for like in likes):
            kept.append(i)
    found = suppress(torch.from_numpy(points), torch.from_numpy(scores), torch.from_numpy(area), threshold)
    assert found == kept


def test_softening_by_hand() -> None:
    """The second person's OKS with the first is exp(-0.08): its score falls, and the third overtakes it."""
    points = torch.zeros(3, 1, 2)
    points[:, 0, 0] = torch.tensor([0.0, 0.4, 40.0])
    area, scores = torch.full((3,), 100.0), torch.tensor([0.9, 0.8, 0.5])
    kept, found = soften(points, scores, area, sigmas=(0.05,))
    assert kept == [0, 2, 1]
    assert found.tolist() == pytest.approx([0.9, 0.5, 0.8 * math.exp(-math.exp(-0.16) / 0.9)])
    assert scores.tolist() == pytest.approx([0.9, 0.8, 0.5])  # the caller's own are left alone
    assert soften(points, scores, area, most=2, sigmas=(0.05,))[0] == [0, 2]
    assert soften(points, scores, area, threshold=0.1, sigmas=(0.05,))[1][2] < 0.001
    assert soften(points[:0], scores[:0], area[:0])[0] == []


def test_results_by_hand() -> None:
    """Two people of picture 5 are one; the same person in picture 3 is another."""
    points = torch.arange(34.0).view(1, 17, 2).repeat(3, 1, 1)
    scores = torch.full((3, 17), 0.5)
    boxes, images, area = torch.tensor([0.6, 1.0, 0.8]), torch.tensor([5, 5, 3]), torch.full((3,), 900.0)
    found = results(points, scores, boxes, images, area)
    assert [r["image_id"] for r in found] == [3, 5]
    assert [r["score"] for r in found] == pytest.approx([0.4, 0.5])
    assert found[0]["category_id"] == 1
    assert found[0]["keypoints"][:6] == [0, 1, 0.5, 2, 3, 0.5]
    assert len(found[0]["keypoints"]) == 51
    assert [r["image_id"] for r in results(points, scores, boxes, images, area, threshold=None)] == [3, 5, 5]
    softly = results(points, scores, boxes, images, area, soft=True)
    assert [r["image_id"] for r in softly] == [3, 5, 5]
    assert [r["score"] for r in softly] == pytest.approx([0.4, 0.5, 0.3 * math.exp(-1 / 0.9)])
    json.dumps(found)


def test_broken_predictions_are_refused() -> None:
    points = torch.zeros(2, 17, 2)
    points[1, 4, 0] = math.nan
    rest = torch.ones(2, 17), torch.ones(2), torch.tensor([1, 2]), torch.ones(2)
    with pytest.raises(ValueError, match="points of person 1 are not finite; did the network diverge"):
        results(points, *rest)


# -- the ten numbers --------------------------------------------------------------------------------------------------


def test_perfect_predictions(made: Any, capsys: pytest.CaptureFixture[str]) -> None:
    store, truth = made
    assert ap(store, truth, places(store)) == dict.fromkeys(NAMES, pytest.approx(1.0))
    assert capsys.readouterr().out == ""


def test_shifted_predictions_by_hand(made: Any) -> None:
    """All joints of a person off by d: OKS is the mean of exp(-d^2 / (8 s^2 area)); a threshold is passed or not."""
    store, truth = made
    shift = 6.0
    found = ap(store, truth, places(store) + torch.tensor([shift, 0.0]))
    known = store.weight[..., 0].numpy() > 0
    s = np.array(COCO_SIGMAS)
    each = np.exp(-(shift**2) / (8 * s**2 * store.area.numpy()[:, None]))
    like = (each * known).sum(1) / known.sum(1)
    thresholds = np.linspace(0.5, 0.95, 10)
    medium = store.area.numpy() < 96**2
    for name, rows in (("AR", slice(None)), ("AR_M", medium), ("AR_L", ~medium)):
        assert found[name] == pytest.approx(np.mean([(like[rows] >= t).mean() for t in thresholds]), abs=1e-9)
    assert found["AR50"] == pytest.approx((like >= 0.5).mean())
    assert found["AR75"] == pytest.approx((like >= 0.75).mean())
    assert 0 < found["AP"] < 1
    assert found["AP_M"] < found["AP_L"]


def test_duplicates_cost_precision_unless_suppressed(made: Any) -> None:
    store, truth = made
    twice = [torch.cat([t, t]) for t in (places(store), store.image_ids, store.crop_area)]
    scores, boxes = torch.ones(16, 17), torch.cat([store.box_scores, store.box_scores])
    clean = results(twice[0], scores, boxes, twice[1], twice[2])
    assert len(clean) == 8
    assert evaluate(truth, clean)["AP"] == pytest.approx(1)
    # The double of the surest person stands above everybody else.
    boxes[[0, 8]] = 1.5
    double = results(twice[0], scores, boxes, twice[1], twice[2], threshold=None)
    assert len(double) == 16
    assert evaluate(truth, double)["AP"] < 1


def test_wrong_order_of_scores_costs_precision(made: Any) -> None:
    """A false person is harmless below the true ones and costs above them."""
    store, truth = made
    points = places(store)
    points[0] += 500
    scores = torch.full((8, 17), 0.9)
    scores[0] = 0.3
    below = ap(store, truth, points, scores)
    scores[0] = 1.0
    above = ap(store, truth, points, scores)
    assert below["AP"] > above["AP"]
    assert below["AR"] == above["AR"] == pytest.approx(7 / 8)


def test_nobody_found_and_pictures_chosen(made: Any) -> None:
    store, truth = made
    assert evaluate(truth, []) == dict.fromkeys(NAMES, 0.0)
    first = store.image_ids == store.image_ids[0]
    rows = [t[first] for t in (places(store), store.weight[..., 0], store.box_scores, store.image_ids, store.crop_area)]
    found = results(*rows)
    assert len(found) == 2
    assert evaluate(truth, found)["AR"] == pytest.approx(1 / 4)
    before = json.dumps(found)
    assert evaluate(truth, found, image_ids=[int(store.image_ids[0])])["AP"] == pytest.approx(1)
    assert json.dumps(found) == before
    with pytest.raises(ValueError, match="1 pictures of the results, such as 77, are not in"):
        evaluate(truth, [{**found[0], "image_id": 77}])
    with pytest.raises(FileNotFoundError, match="there is no file nowhere"):
        evaluate("nowhere.json", found)


def test_no_person_of_a_size_is_nan(tmp_path: Path) -> None:
    config = COCO(str(tmp_path), "val2017", size=16)
    fixture.write(tmp_path, 1)
    found = ap(config.open(), config.annotations(), places(config.open()))
    assert found["AP"] == found["AP_M"] == pytest.approx(1)
    assert math.isnan(found["AP_L"])
    assert math.isnan(found["AR_L"])


def test_detected_boxes_end_to_end(made: Any) -> None:
    """A network that draws perfect points into detected boxes: the double goes, the rest is right."""
    truth = made[1]
    config = COCO(str(truth.parent.parent), "val2017", boxes="detections.json", size=(32, 24))
    store = config.open()
    assert len(store) == 9
    labelled = places(made[0])
    points = torch.cat([labelled, labelled[:1]])
    found = results(points, torch.ones(9, 17), store.box_scores, store.image_ids, store.crop_area)
    assert [round(r["score"], 6) for r in found] == [0.9] * 8
    assert evaluate(truth, found)["AP"] == pytest.approx(1)
