"""PCK, PCKh and AUC: values by hand, MPII's rules, a slow loop, properties, sums over processes, messages."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coordreg.coords import Batch, Labels, Points, apply_affine, crop_affine
from coordreg.data.skeletons import MPII16
from coordreg.metrics.pck import (
    MPII_EXCLUDE,
    PCK,
    SLIP,
    auc,
    curve,
    distances,
    head_size,
    image_distances,
    pck,
    steps,
    torso,
)

NAN = torch.nan


def some_batch(b: int = 7, j: int = 5, d: int = 2, seed: int = 0) -> tuple[Points, Batch]:
    """Predictions near the labels, crops of different places and turns, some joints unlabelled."""
    g = torch.Generator().manual_seed(seed)
    coords = torch.rand(b, j, d, generator=g) * 2 - 1
    weight = (torch.rand(b, j, 1, generator=g) > 0.25).float().expand(b, j, d).clone()
    labels = Labels(torch.where(weight > 0, coords, NAN), weight)
    points = Points(coords + 0.1 * torch.randn(b, j, d, generator=g), torch.ones(b, j))
    side = 50 + 100 * torch.rand(b, 1, generator=g)
    flat = crop_affine(200 * torch.rand(b, 2, generator=g), side.expand(b, 2), 60 * torch.rand(b, generator=g))
    affine = flat
    if d == 3:
        affine = torch.zeros(b, 3, 4)
        affine[:, :2, :2], affine[:, :2, 3], affine[:, 2, 2] = flat[:, :, :2], flat[:, :, 2], 900.0
    images = torch.zeros(b, 3, 8, 6)
    return points, Batch(images, labels, weight[..., 0] > 0, 10 + 5 * torch.rand(b, generator=g), affine)


# -- by hand ----------------------------------------------------------------------------------------------------------


def test_distances_by_hand() -> None:
    labels = torch.tensor([[[10.0, 20.0], [0.0, 0.0], [NAN, NAN]]])
    points = torch.tensor([[[13.0, 24.0], [0.0, 0.0], [1.0, 1.0]]])
    found = distances(points, labels, torch.tensor([10.0]))
    assert found[0, :2].tolist() == [0.5, 0.0]
    assert found[0, 2].isnan()
    masked = distances(points, labels, torch.tensor([10.0]), torch.tensor([[0.0, 1.0, 0.0]]))
    assert masked.isnan().tolist() == [[True, False, True]]


def test_threshold_is_inclusive_and_the_mean_weights_by_counts() -> None:
    d = torch.tensor([[0.5, 0.1], [0.500001, NAN], [0.2, NAN]])
    found = pck(d, 0.5)
    assert found.joints.tolist() == pytest.approx([200 / 3, 100.0])
    assert float(found.mean) == pytest.approx(75.0)  # 3 hits of 4 labels, not the mean of 66.7 and 100
    assert float(pck(d, 0.1).mean) == pytest.approx(25.0)  # 0.1 in single precision is within 0.1
    assert float(pck(d, 0.5, exclude=[0]).mean) == 100.0


def test_a_joint_nobody_labelled_is_nan_and_does_not_spoil_the_mean() -> None:
    found = pck(torch.tensor([[0.1, NAN], [0.9, NAN]]), 0.5)
    assert found.joints[1].isnan()
    assert float(found.mean) == 50.0


def test_an_infinite_prediction_is_a_miss() -> None:
    points = torch.tensor([[[torch.inf, 0.0], [1.0, 0.0]]])
    d = distances(points, torch.zeros(1, 2, 2), torch.tensor([2.0]))
    assert float(pck(d, 0.5).mean) == 50.0


def test_head_size_is_six_tenths_of_the_diagonal() -> None:
    assert head_size(torch.tensor([[10.0, 20.0, 40.0, 60.0]])).tolist() == pytest.approx([30.0])


def test_torso_goes_across() -> None:
    skeleton = SimpleNamespace(joints=("r_hip", "l_hip", "r_shoulder", "l_shoulder"))
    points = torch.tensor([[[0.0, 40.0], [20.0, 40.0], [0.0, 0.0], [30.0, 0.0]]])
    assert torso(points, skeleton).tolist() == [50.0]
    assert torso(points, skeleton, ("r_shoulder", "l_hip")).tolist() == pytest.approx([math.hypot(20, 40)])


def test_auc_by_hand() -> None:
    # A single joint at distance r is found for t >= r: with a step at k of 50 the trapezoids give (50 - k + 1/2)/50.
    for k in (1, 10, 37, 50):
        d = torch.tensor([[k * 0.01]])
        assert float(auc(d).mean) == pytest.approx(100 * (50 - k + 0.5) / 50)
    assert float(auc(torch.zeros(1, 1)).mean) == 100.0
    assert float(auc(torch.ones(1, 1)).mean) == 0.0
    assert float(auc(torch.tensor([[0.1]]), limit=0.2, count=20).mean) == pytest.approx(100 * 10.5 / 20)


def test_steps() -> None:
    assert len(steps()) == 51
    assert float(steps()[10]) == 0.1
    assert float(steps()[11]) == pytest.approx(0.11)
    assert steps(0.2, 4).tolist() == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


def test_the_published_slip_reads_entry_eleven() -> None:
    d = torch.rand(200, 3, generator=torch.Generator().manual_seed(1)) * 0.3
    whole = curve(d, steps())
    slipped = pck(d, 0.1, slip=SLIP)
    assert float(slipped.mean) == float(whole.mean[11])
    assert float(pck(d, 0.1).mean) == float(whole.mean[10])
    assert float(slipped.mean) > float(pck(d, 0.1).mean)


# -- an independent slow loop -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [2, 3])
def test_against_a_slow_loop(d: int) -> None:
    points, batch = some_batch(d=d)
    threshold, exclude = 0.4, (1,)
    hits, count = [0] * 5, [0] * 5
    for b in range(7):
        for j in range(5):
            if float(batch.labels.weight[b, j].min()) == 0:
                continue
            place = [[], []]
            for which, coords in enumerate((points.coords, batch.labels.coords)):
                for row in range(2):
                    m = batch.affine[b, row].tolist()
                    x, y = coords[b, j, 0].item(), coords[b, j, 1].item()
                    place[which].append(m[0] * x + m[1] * y + m[-1])
            error = math.dist(*place) / batch.normaliser[b].item()
            count[j] += 1
            hits[j] += error <= threshold
    assert 0 < sum(hits) < sum(count) < 35
    found = pck(image_distances(points, batch), threshold, exclude)
    assert found.joints.tolist() == pytest.approx([100 * h / c for h, c in zip(hits, count, strict=True)])
    kept = [j for j in range(5) if j not in exclude]
    assert float(found.mean) == pytest.approx(100 * sum(hits[j] for j in kept) / sum(count[j] for j in kept))


def test_image_distances_are_taken_in_source_pixels() -> None:
    # A crop twice as wide as high: the same normalised error means twice the pixels along x.
    affine = crop_affine(torch.tensor([[100.0, 50.0]]), torch.tensor([[80.0, 40.0]]))
    coords = torch.zeros(1, 2, 2)
    moved = coords + torch.tensor([[[0.1, 0.0], [0.0, 0.1]]])
    batch = Batch(torch.zeros(1, 3, 4, 8), Labels(coords, torch.ones(1, 2, 2)), torch.ones(1, 2).bool(),
                  torch.tensor([8.0]), affine)  # fmt: skip
    found = image_distances(Points(moved, torch.ones(1, 2)), batch)
    assert found[0].tolist() == pytest.approx([4 / 8, 2 / 8], rel=1e-5)


# -- properties -------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 50))
def test_scaling_everything_changes_nothing(seed: int, factor: float) -> None:
    g = torch.Generator().manual_seed(seed)
    points, labels = torch.rand(2, 3, 4, 2, generator=g, dtype=torch.float64)
    lengths = torch.rand(3, generator=g, dtype=torch.float64) + 0.1
    once = distances(points, labels, lengths)
    scaled = distances(points * factor, labels * factor, lengths * factor)
    torch.testing.assert_close(once, scaled)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_monotone_in_the_threshold_and_under_larger_errors(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    d = torch.rand(6, 3, generator=g)
    d[torch.rand(6, 3, generator=g) < 0.2] = NAN
    d[0] = 0.3
    values = curve(d, steps(0.9, 30))
    assert bool((values.mean.diff() >= 0).all())
    assert bool((values.joints.diff(dim=0) >= 0).all())
    assert float(auc(d * 1.5).mean) <= float(auc(d).mean)
    assert 0 <= float(auc(d).mean) <= 100


# -- over a data set --------------------------------------------------------------------------------------------------

NAMES = ("a", "b", "c", "e", "f")


def metric() -> PCK:
    return PCK(thresholds=(0.2, 0.5), joints=NAMES, exclude=(3,), groups={"pair": (0, 4)})


def test_two_replicas_make_one_pass() -> None:
    first, second, whole = metric(), metric(), metric()
    for i in range(6):
        points, batch = some_batch(b=3 + i, seed=i)
        (first if i % 2 else second).update(points, batch)
        whole.update(points, batch)
    separate = [float(m.compute()["mean@0.2"]) for m in (first, second)]
    first.merge_state(second)
    merged, once = first.compute(), whole.compute()
    assert {k: float(v) for k, v in merged.items()} == {k: float(v) for k, v in once.items()}
    assert sum(separate) / 2 != pytest.approx(float(once["mean@0.2"]))  # averaging the replicas would be wrong


def test_gathering_over_processes_sums_the_counts() -> None:
    other = metric()
    points, batch = some_batch(seed=3)
    other.update(points, batch)
    states = {tuple(s.shape): s for s in (other.hits, other.count)}
    mine = PCK(
        (0.2, 0.5),
        NAMES,
        exclude=(3,),
        groups={"pair": (0, 4)},
        dist_sync_fn=lambda x, group: [x, states[tuple(x.shape)]],
        distributed_available_fn=lambda: True,
    )
    more = some_batch(b=4, seed=4)
    mine.update(*more)
    whole = metric()
    whole.update(points, batch)
    whole.update(*more)
    assert {k: float(v) for k, v in mine.compute().items()} == {k: float(v) for k, v in whole.compute().items()}


def test_the_metric_agrees_with_the_functions_and_names_what_it_gives() -> None:
    points, batch = some_batch()
    m = metric()
    m.update(points, batch)
    found = m.compute()
    d = image_distances(points, batch)
    assert set(found) == {f"{n}@{t}" for n in (*NAMES, "mean", "pair") for t in ("0.2", "0.5")}
    expected = pck(d, 0.5, exclude=(3,))
    assert float(found["mean@0.5"]) == float(expected.mean)
    assert float(found["c@0.5"]) == float(expected.joints[2])
    assert float(found["pair@0.5"]) == pytest.approx(float(expected.joints[[0, 4]].mean()))
    m.reset()
    assert int(m.count.sum()) == 0


def test_mpii_columns_and_exclusions_come_apart() -> None:
    assert [MPII16.joints[j] for j in MPII_EXCLUDE] == ["pelvis", "thorax"]
    reported = {j for members in MPII16.groups.values() for j in members}
    assert reported.isdisjoint(MPII_EXCLUDE)
    PCK((0.5,), MPII16.joints, exclude=MPII_EXCLUDE, groups=MPII16.groups)


# -- messages ---------------------------------------------------------------------------------------------------------


def test_messages() -> None:
    points, batch = some_batch()
    ones = torch.ones(2, 3)
    with pytest.raises(ValueError, match=r"label of image 0, joint 1 is NaN.*weight 0"):
        distances(
            torch.zeros(2, 3, 2), torch.tensor([[0.0, NAN, 0.0]] * 2)[..., None].expand(2, 3, 2), ones[:, 0], ones
        )
    broken = torch.zeros(2, 3, 2)
    broken[1, 2] = NAN
    with pytest.raises(ValueError, match="prediction of image 1, joint 2 is NaN"):
        distances(broken, torch.zeros(2, 3, 2), ones[:, 0])
    for length in (0.0, -1.0, NAN, torch.inf):
        with pytest.raises(ValueError, match=r"image 1 has the normaliser .* above 0"):
            distances(torch.zeros(2, 3, 2), torch.zeros(2, 3, 2), torch.tensor([1.0, length]))
    unlabelled = distances(
        torch.zeros(2, 3, 2), torch.zeros(2, 3, 2), torch.tensor([1.0, NAN]), ones * torch.tensor([[1.0], [0.0]])
    )
    assert unlabelled.isnan().tolist() == [[False] * 3, [True] * 3]
    with pytest.raises(ValueError, match="images and joints must agree"):
        image_distances(Points(points.coords[:3], points.score[:3]), batch)
    with pytest.raises(ValueError, match=r"no joint l_shoulder, r_hip.*it has a, b"):
        torso(torch.zeros(1, 5, 2), SimpleNamespace(joints=NAMES))
    with pytest.raises(ValueError, match="numbers from 0 to 2"):
        pck(ones, 0.5, exclude=[3])
    with pytest.raises(ValueError, match="no mean"):
        pck(ones, 0.5, exclude=[0, 1, 2])
    with pytest.raises(ValueError, match="one or more"):
        PCK((), NAMES)
    with pytest.raises(ValueError, match="PCK: elbow has joints"):
        PCK((0.5,), NAMES, groups={"elbow": (11,)})
    with pytest.raises(ValueError, match="5 joints, expected 2"):
        PCK((0.5,), ("a", "b")).update(points, batch)
    with pytest.raises(ValueError, match="above 0"):
        steps(0.0)


def test_points_mapped_by_the_affine_are_where_coords_says() -> None:
    points, batch = some_batch()
    perfect = Points(batch.labels.coords.nan_to_num(0.3), points.score)
    assert float(pck(image_distances(perfect, batch), 0.0).mean) == 100.0
    assert apply_affine(batch.affine, points.coords).shape == (7, 5, 2)
