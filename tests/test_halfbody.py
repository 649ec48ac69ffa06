"""HRNet's augmentation: half bodies by hand, dots that follow their joints, and the chances, counted."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_augment import centroids, dots
from torch import Tensor

from coordreg.coords import Labels, from_pixels, to_pixels
from coordreg.data.augment import Augment
from coordreg.data.coco import Window
from coordreg.data.halfbody import SLIP, HalfBody, halves, upper_joints
from coordreg.data.mpii import MPII
from coordreg.data.skeletons import COCO17, LSP14, MPII16
from coordreg.spec import describe, digest, rebuild

PAIRS = ((0, 2),)
YES = torch.tensor([True])


def batch(points: Tensor, height: int, width: int) -> tuple[Tensor, Labels, Tensor]:
    """Pictures with a dot of its own colour for each of the first three joints (B, J, 2), all labelled."""
    coords = from_pixels(points, (height, width))
    known = torch.ones(points.shape[:2], dtype=torch.bool)
    return dots(points[:, :3], height, width), Labels(coords, torch.ones_like(coords)), known


def test_halves_of_the_skeletons() -> None:
    """As published: COCO's 0 to 10, MPII's 7 to 15."""
    assert upper_joints(COCO17) == tuple(range(11))
    assert upper_joints(MPII16) == tuple(range(7, 16))
    assert [LSP14.joints[j] for j in range(14) if j not in upper_joints(LSP14)] == list(LSP14.joints[:6])


# -- half bodies by hand ----------------------------------------------------------------------------------------------


def test_half_boxes_by_hand() -> None:
    """Upper: (10, 10), (30, 10), (20, 40), mean (20, 20), 20 x 30; aspect 3:4 makes it 22.5 x 30, and 1.5 times that.

    Lower: (0, 50), (60, 56), (30, 50), mean (30, 52), 60 x 6, grown to 60 x 80.
    """
    points = torch.tensor([[[10.0, 10], [30, 10], [20, 40], [0, 50], [60, 56], [30, 50]]])
    known = torch.ones(1, 6, dtype=torch.bool)
    found, fits = halves(points, known, (0, 1, 2), YES, 0.75)
    assert fits.tolist() == [True]
    assert found.centre.tolist() == [[20, 20]]
    assert found.sides.tolist() == [[33.75, 45]]
    found, fits = halves(points, known, (0, 1, 2), ~YES, 0.75)
    assert fits.tolist() == [True]
    assert found.centre.tolist() == [[30, 52]]
    assert found.sides.tolist() == [[90, 120]]


@pytest.mark.parametrize(
    ("labelled", "first", "half"),
    [
        ([1, 1, 1, 1, 1, 1], True, "upper"),
        ([1, 1, 1, 1, 1, 1], False, "lower"),
        ([1, 1, 0, 1, 1, 1], True, "lower"),  # two joints are no half where the other has three
        ([1, 1, 1, 1, 1, 0], False, "upper"),
        ([1, 1, 0, 1, 1, 0], False, "upper"),  # neither has three: the upper one, whichever was wanted
        ([1, 1, 0, 0, 1, 0], True, "upper"),
        ([1, 0, 0, 1, 1, 0], True, None),
        ([0, 0, 0, 0, 0, 0], False, None),
        ([0, 0, 0, 1, 1, 1], True, "lower"),
    ],
)
def test_which_half(labelled: list[int], first: bool, half: str | None) -> None:
    """By the published rule; unlabelled joints hold NaN and count in no mean and no box."""
    known = torch.tensor([labelled]) > 0
    points = torch.rand(1, 6, 2, generator=torch.Generator().manual_seed(1)) * 50
    found, fits = halves(
        torch.where(known.unsqueeze(-1), points, torch.nan), known, (0, 1, 2), torch.tensor([first]), 1.0
    )
    assert fits.tolist() == [half is not None]
    assert found.sides.isfinite().all()
    assert found.sides.min() > 0
    if half is not None:
        rows = [j for j in range(6) if labelled[j] and (j < 3) == (half == "upper")]
        torch.testing.assert_close(found.centre[0], points[0, rows].mean(0))
        side = float((points[0, rows].amax(0) - points[0, rows].amin(0)).max())
        assert found.sides[0].tolist() == pytest.approx([1.5 * side] * 2)


def test_joints_in_one_place_are_no_half() -> None:
    points, known = torch.full((1, 6, 2), 7.0), torch.ones(1, 6, dtype=torch.bool)
    _, fits = halves(points, known, (0, 1, 2), YES, 1.0)
    assert fits.tolist() == [False]
    points[0, 1, 0] = 9.0  # a box without height is one
    found, fits = halves(points, known, (0, 1, 2), YES, 0.5)
    assert fits.tolist() == [True]
    assert found.sides.tolist() == [[3.0, 6.0]]


def test_the_crop_of_a_half_by_hand() -> None:
    """Nine joints: the upper three span 20 x 30 px about (50, 40); a crop of 60 x 45 px shows 45 x 33.75 of them."""
    points = torch.tensor([[40.0, 30], [60, 30], [50, 60], *[[30.0 + 8 * i, 90.0] for i in range(6)]]).unsqueeze(0)
    images, labels, visible = batch(points, 120, 101)
    half = HalfBody(flip=0, half=1, upper=(0, 1, 2), labelled=8)
    one = next(s for s in range(99) if half.draw(1, torch.Generator().manual_seed(s)).upper[0])
    out, moved, seen = half.cut(images, labels, visible, torch.Generator().manual_seed(one), (60, 45))
    assert out.shape == (1, 3, 60, 45)
    want = [[(x - 50) / (33.75 / 2), (y - 40) / (45 / 2)] for x, y in points[0, :3].tolist()]
    torch.testing.assert_close(moved.coords[0, :3], torch.tensor(want), atol=1e-5, rtol=0)
    assert seen[0].tolist() == [True] * 3 + [False] * 6  # the lower half has left
    assert moved.weight[0, :, 0].tolist() == [1] * 3 + [0] * 6
    found = centroids(out)[0, :2]  # the third dot is cut off by the crop's edge
    assert (found - to_pixels(moved.coords, (60, 45))[0, :2]).norm(dim=-1).max() < 0.1
    whole, kept, _ = HalfBody(flip=0, half=1, upper=(0, 1, 2), labelled=9).cut(
        images, labels, visible, torch.Generator().manual_seed(one), (60, 45)
    )  # nine are not more than nine
    torch.testing.assert_close(whole, images[..., 30:90, 28:73], atol=1e-4, rtol=0)
    torch.testing.assert_close(kept.coords[0, 0], torch.tensor([(40 - 50) / 22.5, (30 - 59.5) / 30]))


# -- picture and joints ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("augment", "canvas", "out"),
    [
        (HalfBody(flip=0.5, pairs=PAIRS, turned=0), (64, 48), None),
        (HalfBody(flip=0, rotation=40, turned=1), (72, 76), None),
        (HalfBody(flip=0.5, rotation=30, scale=0.25, pairs=PAIRS, size=71), (126, 125), None),
        (HalfBody(flip=0.5, rotation=45, scale=0.35, pairs=PAIRS), (148, 147), (84, 63)),
        (HalfBody(flip=0.5, rotation=10, scale=0.35, pairs=PAIRS, half=1, upper=(0, 1, 2), labelled=2), (148, 147),
         (84, 63)),
    ],
)  # fmt: skip
def test_a_dot_follows_its_joint(
    augment: HalfBody, canvas: tuple[int, int], out: tuple[int, int] | None, generator: torch.Generator
) -> None:
    """Within 0.1 px, through Window for crops that are no square; a mirrored left joint is labelled right."""
    g, (height, width) = torch.Generator().manual_seed(3), canvas
    triangle = torch.tensor([[0.35, 0.38], [0.64, 0.42], [0.5, 0.64]]) - 0.05
    points = torch.tensor([width, height]) * (triangle + 0.1 * torch.rand(60, 3, 2, generator=g))
    images, labels, visible = batch(points, height, width)
    cut = augment if out is None else Window(augment, out)  # type: ignore[assignment]
    images, moved, seen = cut(images, labels, visible, generator)
    size = out or (augment.size or height, augment.size or width)
    assert tuple(images.shape[-2:]) == size
    expected, found = to_pixels(moved.coords, size), centroids(images)
    border = torch.tensor([size[1], size[0]]) - 1
    whole = ((expected > 7) & (expected < border - 7)).all(-1).all(-1)  # no dot is cut off by the crop's edge
    assert whole.sum() >= 10
    distance = (expected.unsqueeze(2) - found.unsqueeze(1)).norm(dim=-1)[whole]
    assert distance.min(-1).values.max() < 0.1
    swapped = distance[:, 0].argmin(-1) == 2
    assert (0 < swapped.sum() < whole.sum()) == (augment.flip > 0)
    assert torch.equal(moved.weight[..., 0] > 0, seen)
    assert torch.equal(seen, (moved.coords.abs() <= 1).all(-1))


def test_joints_that_leave_have_no_weight_and_unlabelled_ones_stay_unlabelled(generator: torch.Generator) -> None:
    points = torch.tensor([[[50.0, 50], [5, 50], [torch.nan, torch.nan]]]).expand(4, 3, 2)
    images, *_ = batch(points.nan_to_num(0), 100, 100)
    weight = torch.tensor([1.0, 1, 0]).view(1, 3, 1).expand(4, 3, 2)
    labels = Labels(from_pixels(points, (100, 100)), weight)
    _, moved, seen = HalfBody(flip=0.5, rotation=20, pairs=(), size=50)(images, labels, weight[..., 0] > 0, generator)
    assert moved.weight[..., 0].tolist() == [[1, 0, 0]] * 4
    assert seen.tolist() == [[True, False, False]] * 4
    assert moved.coords[:, 2].isnan().all()


@pytest.mark.parametrize("d", [2, 3])
@settings(max_examples=20)
@given(seed=st.integers(0, 999))
def test_pairs_are_swapped_with_their_flags_and_depth_is_left(d: int, seed: int) -> None:
    coords = torch.rand(5, 4, d, generator=torch.Generator().manual_seed(seed)) - 0.5
    labels = Labels(coords, torch.ones_like(coords))
    visible = torch.tensor([[True, True, False, True]]).expand(5, 4)
    augment, g = HalfBody(flip=0.5, pairs=((1, 2),), turned=0), torch.Generator().manual_seed(seed)
    flips = augment.draw(5, torch.Generator().manual_seed(seed)).flips
    _, moved, seen = augment(torch.zeros(5, 3, 12, 14), labels, visible, g)
    for b in range(5):
        order = [0, 2, 1, 3] if flips[b] else [0, 1, 2, 3]
        sign = -1 if flips[b] else 1
        torch.testing.assert_close(moved.coords[b, :, 0], sign * coords[b, order, 0], atol=1e-5, rtol=0)
        torch.testing.assert_close(moved.coords[b, :, 1:], coords[b, order, 1:], atol=1e-5, rtol=0)
        assert seen[b].tolist() == visible[b, order].tolist()


# -- chances ----------------------------------------------------------------------------------------------------------

N = 20_000


def test_turns_zooms_and_mirrors_as_published(generator: torch.Generator) -> None:
    """N(0, 45) clipped to +-90 in six of ten; N(1, 0.35) clipped to [0.65, 1.35]: 32% of a normal lie beyond 1."""
    drawn = HalfBody(rotation=45, scale=0.35, half=0.3, upper=(0,)).draw(N, generator)
    turned = drawn.degrees != 0
    assert float(turned.float().mean()) == pytest.approx(0.6, abs=0.015)
    angles = drawn.degrees[turned]
    assert float(angles.abs().max()) == 90
    beyond = math.erfc(2 / math.sqrt(2))  # outside two deviations
    assert float((angles.abs() == 90).float().mean()) == pytest.approx(beyond, abs=0.005)
    assert float((angles.abs() < 45).float().mean()) == pytest.approx(1 - math.erfc(1 / math.sqrt(2)), abs=0.015)
    assert float(angles.mean()) == pytest.approx(0, abs=1.5)
    assert (float(drawn.zoom.min()), float(drawn.zoom.max())) == pytest.approx((0.65, 1.35))
    assert float((drawn.zoom >= 1.3499).float().mean()) == pytest.approx(0.1587, abs=0.01)
    assert float(drawn.flips.float().mean()) == pytest.approx(0.5, abs=0.015)
    assert float(drawn.halved.float().mean()) == pytest.approx(0.3, abs=0.015)
    pair = torch.stack([drawn.zoom[turned], angles])
    assert abs(float(torch.corrcoef(pair)[0, 1])) < 0.03


@pytest.mark.parametrize(("slip", "chance"), [(True, 0.6915), (False, 0.5)])
def test_the_slip_of_the_published_codes(slip: bool, chance: float, generator: torch.Generator) -> None:
    """A normal number is below 0.5 in 69 of 100 cases."""
    drawn = HalfBody(half=0.3, upper=(0,), slip=slip).draw(N, generator)
    assert float(drawn.upper.float().mean()) == pytest.approx(chance, abs=0.012)
    assert pytest.approx(float((torch.randn(N, generator=generator) < 0.5).float().mean()), abs=0.012) == SLIP


def test_how_often_bodies_are_halved(generator: torch.Generator) -> None:
    """Three in ten of those with nine joints or more, seven of whose halves in ten are upper; none of the others."""
    points = torch.stack([torch.arange(10) * 4.0 + 30, torch.arange(10) * 5.0 + 25], -1).expand(4000, 10, 2)
    labels = Labels(from_pixels(points, (100, 100)), torch.ones(4000, 10, 2))
    labels.weight[1::2, :2] = 0  # eight labelled joints
    augment = HalfBody(flip=0, turned=0, half=0.3, upper=(0, 1, 2, 3, 4))
    _, moved, _ = augment(torch.zeros(4000, 3, 100, 100), labels, torch.ones(4000, 10, dtype=torch.bool), generator)
    spread = moved.coords[:, 1, 0] - moved.coords[:, 0, 0]
    whole = spread.sub(8 / 100).abs() < 1e-4
    assert whole[1::2].all()
    assert float((~whole[::2]).float().mean()) == pytest.approx(0.3, abs=0.04)
    middle = moved.coords[::2, 2].norm(dim=-1)[~whole[::2]]
    assert float((middle < 0.01).float().mean()) == pytest.approx(SLIP, abs=0.07)


def test_the_generator_decides_and_every_crop_takes_as_many_numbers() -> None:
    """A run that is resumed draws what it would have drawn; what is switched off draws too."""
    points = torch.rand(3, 12, 2, generator=torch.Generator().manual_seed(2)) * 40 + 20
    images, labels, visible = batch(points, 80, 80)
    everything = HalfBody(rotation=45, scale=0.35, half=0.9, upper=(0, 1, 2, 3, 4, 5), colour=0.2, pairs=PAIRS)
    outputs, left = [], set()
    for augment in (everything, everything, HalfBody(flip=0)):
        g = torch.Generator().manual_seed(7)
        outputs.append(augment.cut(images, labels, visible, g, (40, 30))[0])
        left.add(float(torch.rand(1, generator=g)))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    assert len(left) == 1


# -- configuration -----------------------------------------------------------------------------------------------------


def test_it_goes_where_augment_goes() -> None:
    augment = HalfBody(rotation=45, scale=0.35, half=0.3, upper=upper_joints(MPII16))
    bound = augment.bind(PAIRS, 16)
    assert (type(bound), bound.pairs, bound.size) == (HalfBody, PAIRS, 16)
    data = MPII(augment=augment)
    assert rebuild(describe(data)) == data
    assert digest(describe(HalfBody(turned=1))) == digest(describe(HalfBody(turned=1.0)))
    assert isinstance(augment, Augment)


def test_mistakes_are_told(generator: torch.Generator) -> None:
    images, labels, visible = batch(torch.full((1, 3, 2), 10.0), 20, 24)
    with pytest.raises(ValueError, match=r"half=0.3 without upper, expected the joints of the upper half"):
        HalfBody(half=0.3)
    with pytest.raises(ValueError, match=r"turned=1.5, expected a chance from 0 to 1"):
        HalfBody(turned=1.5)
    with pytest.raises(ValueError, match="flip > 0 without pairs"):
        HalfBody()(images, labels, visible, generator)
    with pytest.raises(ValueError, match=r"20 x 24 px, expected at least the crop of 24 x 24"):
        HalfBody(flip=0, size=24)(images, labels, visible, generator)
