"""Errors along one axis, and figures with known label noise."""

from dataclasses import replace

import pytest
import torch

from coordreg.coords import Points
from coordreg.data.augment import Augment
from coordreg.data.figures import Figures
from coordreg.data.noisy import Noisy
from coordreg.metrics.offsets import BINS, OUTLIER, REACH, ScoringOffsets, spread
from coordreg.metrics.scoring import Scoring, score

NOISE = 0.65 / 240
FEW = Figures(split="test", count=40, size=64, label_noise=NOISE)


def test_the_spread_leaves_outliers_out_axis_by_axis() -> None:
    errors = torch.tensor([[1.0, 0.0], [-1.0, 2.0], [3.0, 30.0], [50.0, -2.0]]).unsqueeze(1)
    known = torch.ones(4, 1, dtype=torch.bool)
    sigma = spread(errors, known, 10.0)
    x = torch.tensor([1.0, -1.0, 3.0])  # 50 is an outlier along x, 30 along y
    y = torch.tensor([0.0, 2.0, -2.0])
    assert torch.allclose(sigma[0], torch.stack([x.std(correction=0), y.std(correction=0)]))
    known[0] = False
    assert torch.allclose(spread(errors, known, 10.0)[0, 0], torch.tensor(2.0))
    assert spread(errors, torch.zeros_like(known), 10.0).isnan().all()


def test_noisy_figures_know_the_truth() -> None:
    store = Noisy(FEW).open()
    assert len(store) == 40
    error = (store.coords - store.exact) * 64 / 2
    assert error.std() == pytest.approx(NOISE * 64, rel=0.1)
    assert torch.equal(store.exact, replace(FEW, label_noise=0.0).open().coords)
    assert torch.equal(store.coords, FEW.open().coords)
    with pytest.raises(ValueError, match="augmentation"):
        Noisy(replace(FEW, augment=Augment()))


def test_offsets_of_points_that_err_by_known_amounts() -> None:
    store = Noisy(FEW).open()
    draw = torch.Generator().manual_seed(0)
    moved = store.exact + torch.randn(store.exact.shape, generator=draw) * torch.tensor([2.0, 1.0]) * 2 / 64
    groups = (("wrist", (10, 15)), ("all", tuple(range(16))))
    scoring = ScoringOffsets(at=(0.5, 0.1), exclude=(6, 7), groups=groups)
    points = Points(moved, torch.ones(40, 16))
    found = scoring.score(points, store)
    summary = found.summary()
    spreads = {name: [row["x"] for row in rows.values()] for name, rows in summary["pixels"].items()}
    errors = (moved - store.exact)[..., 0] * 32
    errors = torch.where(errors.abs() <= OUTLIER * 64, errors, torch.nan)
    for j, name in enumerate(store.joints):
        own = errors[:, j][~errors[:, j].isnan()]
        row = summary["pixels"]["truth"][name]
        assert row["x"] == pytest.approx(float(own.std(correction=0)), abs=1e-3)
        assert row["kept"] == pytest.approx(len(own) / 40, abs=1e-4)
    mean = {name: sum(values) / len(values) for name, values in spreads.items()}
    assert mean["truth"] == pytest.approx(1.95, abs=0.15)
    y = [row["y"] for row in summary["pixels"]["truth"].values()]
    assert sum(y) / 16 == pytest.approx(1.0, abs=0.1)
    plain = score(points, store, Scoring((0.5, 0.1), 0.5, (6, 7)))
    assert {k: summary["at"][k] for k in ("0.5", "0.1")} == plain.summary()["at"]
    assert summary["auc"] == plain.summary()["auc"]
    wrist = score(points, store, Scoring((0.5, 0.1), 0.5, tuple(j for j in range(16) if j not in (10, 15))))
    assert summary["at"]["auc wrist"] == wrist.summary()["auc"]
    images = found.images()
    assert (images["auc wrist"] == wrist.images()["auc"]).all()
    assert float(images["auc all"].mean()) * 100 == pytest.approx(summary["at"]["auc all"], abs=0.05)


def test_a_perfect_answer_errs_by_the_noise_of_the_labels() -> None:
    store = Noisy(FEW).open()
    pixels = ScoringOffsets().score(Points(store.exact, torch.ones(40, 16)), store).summary()["pixels"]
    assert {row["x"] for row in pixels["truth"].values()} == {0.0}
    mean = sum(row["x"] for row in pixels["labels"].values()) / 16
    assert mean == pytest.approx(NOISE * 64, rel=0.1)


def test_the_histogram_is_of_the_x_error() -> None:
    store = Noisy(replace(FEW, count=4)).open()
    step = 2 * REACH * 64 / BINS  # pixels a bin
    moved = store.coords.clone()
    moved[..., 0] += 3 * step * 2 / 64
    moved[0, 0, 0] += 1.0  # half the image away: outside the histogram
    rows = ScoringOffsets().score(Points(moved, torch.ones(4, 16)), store).summary()["pixels"]["labels"]
    assert rows[store.joints[1]]["histogram"][BINS // 2 + 3] == 1.0
    assert rows[store.joints[0]]["histogram"][BINS // 2 + 3] == 0.75
    assert sum(rows[store.joints[0]]["histogram"]) == 0.75
    assert rows[store.joints[0]]["kept"] == 0.75


def test_unlabelled_joints_are_left_out_and_a_plain_store_has_no_truth() -> None:
    store = replace(FEW, count=3).open()
    weight = store.weight.clone()
    weight[:, 2] = 0
    coords = store.coords.clone()
    coords[:, 2] = torch.nan
    found = ScoringOffsets().score(
        Points(store.coords, torch.ones(3, 16)), replace(store, weight=weight, coords=coords)
    )
    pixels = found.summary()["pixels"]
    assert list(pixels) == ["labels"]
    assert store.joints[2] not in pixels["labels"]
    assert pixels["labels"][store.joints[3]]["x"] == 0.0


def test_the_share_that_a_window_misses() -> None:
    store = Noisy(replace(FEW, count=4)).open()
    moved = store.coords.clone()
    moved[0, :, 0] += 9 * 2 / 64  # nine pixels to the right
    moved[1, :8, 1] -= 7.9 * 2 / 64
    points = Points(moved, torch.ones(4, 16))
    assert ScoringOffsets(window=16).score(points, store).summary()["lost"] == 0.25
    assert ScoringOffsets(window=15).score(points, store).summary()["lost"] == 0.375
    assert "lost" not in ScoringOffsets().score(points, store).summary()
