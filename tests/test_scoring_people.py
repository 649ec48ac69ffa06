"""People found in pictures: AP as pycocotools counts it, the OKS of each picture by hand, refusals."""

import json
import math
from pathlib import Path

import pytest
import torch

from coordreg.coords import Points
from coordreg.data.crowds import CrowdStore
from coordreg.metrics.coco_ap import evaluate
from coordreg.metrics.oks import COCO_SIGMAS, oks
from coordreg.metrics.scoring_people import ScoringPeople, found, told, truth

J, P, SIDE = 17, 4, 80
#: How many people each of the pictures shows.
HERE = (2, 3, 1)


@pytest.fixture
def store() -> CrowdStore:
    """Three pictures with 2, 3 and 1 people in 4 places, at random joints."""
    g = torch.Generator().manual_seed(0)
    coords = torch.rand(3, P, J + 2, 2, generator=g) - 0.5 + torch.linspace(-0.4, 0.4, P)[:, None, None]
    there = torch.arange(P) < torch.tensor(HERE)[:, None]
    weight = there[:, :, None, None].float().expand(-1, -1, J + 2, 2).clone()
    weight[0, 0, 3] = 0  # one joint is not labelled
    affine = torch.tensor([[SIDE / 2, 0, (SIDE - 1) / 2], [0, SIDE / 2, (SIDE - 1) / 2]]).expand(3, 2, 3)
    return CrowdStore(
        images=torch.zeros(3, 3, SIDE, SIDE, dtype=torch.uint8), coords=(coords * (weight > 0)).flatten(1, 2),
        weight=weight.flatten(1, 2), visible=(weight[..., 0] > 0).flatten(1, 2), normaliser=torch.ones(3),
        affine=affine, pairs=(), joints=tuple(map(str, range(P * (J + 2)))),
        area=there * torch.tensor([900.0, 400.0, 1500.0, 700.0]),
    )  # fmt: skip


def answers(store: CrowdStore, order: list[int], sure: list[float], off: float = 0.0) -> Points:
    """The labels as predictions: in place k the person `order[k]`, `off` to the right, with the score `sure[k]`."""
    coords = store.coords.unflatten(1, (P, -1))[:, order].clone()
    coords[..., 0] += off
    score = torch.tensor(sure)[None, :, None].expand(3, -1, J + 2).clone()
    return Points(coords.flatten(1, 2), score.flatten(1, 2))


def exact(store: CrowdStore) -> Points:
    """Everybody who is there, surest first, and nobody else."""
    points = answers(store, [0, 1, 2, 3], [0.9, 0.8, 0.7, 0.6])
    return Points(points.coords, points.score * (store.weight.amin(-1).unflatten(1, (P, -1))[..., -1:] > 0)
                  .expand(-1, -1, J + 2).flatten(1))  # fmt: skip


def test_exact_answers_are_perfect(store: CrowdStore) -> None:
    scores = ScoringPeople().score(exact(store), store)
    assert scores.summary()["at"]["AP"] == 100
    assert scores.summary()["at"]["oks"] == 100
    images = scores.images()
    assert images["oks"].tolist() == [1, 1, 1]
    assert images["count"].tolist() == list(HERE)


@pytest.mark.parametrize("off", [0.0, 0.05, 0.12, 0.3])
def test_ap_is_that_of_pycocotools(store: CrowdStore, tmp_path: Path, off: float) -> None:
    pytest.importorskip("pycocotools")
    points = answers(store, [2, 0, 3, 1], [0.3, 0.9, 0.5, 0.7], off)  # also people who are not there
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth(store)))
    theirs = evaluate(path, found(points, store))
    mine = ScoringPeople().score(points, store).ap
    for name, value in theirs.items():
        assert (math.isnan(value) and math.isnan(mine[name])) or mine[name] == pytest.approx(value), name
    if off == 0.05:
        assert 0 < mine["AP"] < 1


def test_the_truth_is_in_index_pixels(store: CrowdStore) -> None:
    made = truth(store)
    assert [a["image_id"] for a in made["annotations"]] == [0, 0, 1, 1, 1, 2]
    first = made["annotations"][0]
    x, y = store.coords[0, 0].tolist()
    assert first["keypoints"][:3] == pytest.approx([(x + 1) * 40 - 0.5, (y + 1) * 40 - 0.5, 2], abs=1e-4)
    assert first["keypoints"][11] == 0
    assert first["num_keypoints"] == 16
    assert (first["area"], made["annotations"][1]["area"]) == (900, 400)


def test_a_picture_is_as_good_as_its_surest_answers(store: CrowdStore) -> None:
    wrong = told(answers(store, [1, 0, 3, 2], [0.9, 0.8, 0.7, 0.6]), store)
    assert wrong[0, :2].tolist() == [1, 1]  # in whatever order
    assert wrong[0, 2:].isnan().all()
    assert wrong[2, 0] < 0.5  # the only person is the second surest answer
    nobody = told(answers(store, [0, 1, 2, 3], [0.0] * 4), store)
    assert nobody[store.area > 0].eq(0).all()
    moved = told(answers(store, [0, 1, 2, 3], [0.9, 0.8, 0.7, 0.6], 0.02), store)
    joints = store.coords.unflatten(1, (P, -1))[1:2, 2, :-2] * SIDE / 2
    expected = oks(joints + torch.tensor([0.02 * SIDE / 2, 0.0]), joints, torch.tensor([1500.0]), COCO_SIGMAS)
    assert float(moved[1, 2]) == pytest.approx(float(expected), abs=1e-4)


def test_an_unlabelled_joint_does_not_count(store: CrowdStore) -> None:
    points = exact(store)
    points.coords[0, 3] += 1
    assert told(points, store)[0, 0] == 1


def test_other_shapes_and_data_sets_are_refused(store: CrowdStore) -> None:
    points = exact(store)
    with pytest.raises(ValueError, match=r"predictions of shape \(3, 57, 2\) for a CrowdStore of \(3, 76, 2\)"):
        ScoringPeople().score(Points(points.coords[:, :57], points.score[:, :57]), store)
