"""Augmentation: picture and joints stay together; the numbers come from the generator; torchvision agrees."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from coordreg.coords import Labels, from_pixels, to_pixels
from coordreg.data.augment import Augment, jitter, turn
from coordreg.spec import describe, rebuild

PAIRS = ((0, 2), (1, 4))


def dots(points: Tensor, height: int, width: int, sigma: float = 2.0) -> Tensor:
    """Smooth dots at index pixels (B, J, 2): three of the joints, one a colour -> (B, 3, H, W)."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    away = (x - points[..., 0, None, None]) ** 2 + (y - points[..., 1, None, None]) ** 2
    return torch.exp(-away / (2 * sigma**2))


def centroids(images: Tensor) -> Tensor:
    """Centres of mass (B, C, 2) in index pixels."""
    height, width = images.shape[-2:]
    mass = images.sum((-2, -1))
    x = (images * torch.arange(width)).sum((-2, -1)) / mass
    y = (images * torch.arange(height).unsqueeze(-1)).sum((-2, -1)) / mass
    return torch.stack([x, y], -1)


def scene(batch: int, height: int, width: int, seed: int = 0) -> tuple[Tensor, Labels, Tensor]:
    """Three joints near the middle, each a dot of its own colour."""
    g = torch.Generator().manual_seed(seed)
    reach = torch.tensor([width, height]) * 0.3
    points = torch.tensor([width, height]) * 0.35 + torch.rand(batch, 3, 2, generator=g) * reach
    coords = from_pixels(points, (height, width))
    return dots(points, height, width), Labels(coords, torch.ones_like(coords)), torch.ones(batch, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("augment", "shape"),
    [
        (Augment(flip=0.5, pairs=((0, 2),)), (64, 48)),
        (Augment(flip=0, rotation=40), (72, 72)),
        (Augment(flip=0, scale=0.25), (60, 72)),
        (Augment(flip=0.5, rotation=30, scale=0.25, pairs=((0, 2),), size=72), (120, 120)),
        (Augment(flip=0.5, rotation=30, scale=0.2, pairs=((0, 2),), size=73), (120, 121)),
        (Augment(flip=0, size=72), (121, 120)),
    ],
)
def test_dots_and_key_points_stay_together(
    augment: Augment, shape: tuple[int, int], generator: torch.Generator
) -> None:
    images, labels, visible = scene(8, *shape)
    out, moved, _ = augment(images, labels, visible, generator)
    found = centroids(out)
    expected = to_pixels(moved.coords, tuple(out.shape[-2:]))
    # A mirrored person's left hand is labelled right: the dot of channel 0 is then joint 2. Match by the nearest dot.
    distance = (expected.unsqueeze(2) - found.unsqueeze(1)).norm(dim=-1)
    assert moved.weight.min() == 1
    assert distance.min(-1).values.max() < 0.1
    assert distance.min(1).values.max() < 0.1
    if augment.flip > 0:
        swapped = distance.argmin(-1)[:, 0] == 2
        assert 0 < swapped.sum() < 8
        assert (distance.argmin(-1)[:, 1] == 1).all()
    else:
        assert distance.diagonal(dim1=1, dim2=2).max() < 0.1


def test_torchvision_mixes_two_conventions() -> None:
    """Why `turn` hands edge coordinates over: with index pixels torchvision's affine leaves the dot by half a pixel."""
    images, labels, _ = scene(1, 65, 65)
    index = to_pixels(labels.coords, (65, 65))[0]
    move = {"angle": 90.0, "translate": [0.0, 0.0], "scale": 1.0, "shear": [0.0, 0.0]}
    seen = centroids(tv.affine(images, interpolation=InterpolationMode.BILINEAR, **move))[0]

    def through(shift: float) -> Tensor:
        points = tv_tensors.KeyPoints(index + shift, canvas_size=(65, 65))
        return tv.affine(points, **move).as_subclass(Tensor) - shift

    assert (through(0.5) - seen).norm(dim=-1).max() < 0.02
    assert 0.9 < (through(0.0) - seen).norm(dim=-1).max() < 1.1
    mirrored = tv.horizontal_flip(tv_tensors.KeyPoints(index, canvas_size=(65, 65))).as_subclass(Tensor)
    assert (mirrored - centroids(images.flip(-1))[0]).norm(dim=-1).max() < 0.02


@pytest.mark.parametrize("size", [96, 90])
def test_pixels_are_those_of_torchvision(size: int, generator: torch.Generator) -> None:
    images = torch.rand(5, 3, 160, 160, generator=generator)
    degrees, zoom = torch.tensor([0.0, 30.0, -17.0, 90.0, 5.0]), torch.tensor([1.0, 0.8, 1.25, 1.0, 1.1])
    flips = torch.tensor([False, True, False, True, False])
    labels = Labels(torch.zeros(5, 2, 2), torch.ones(5, 2, 2))
    ours, _, _ = turn(images, labels, torch.ones(5, 2, dtype=torch.bool), flips, degrees, zoom, (), size)
    for i in range(5):
        theirs = tv.affine(
            tv_tensors.Image(images[i]),
            angle=-float(degrees[i]),
            translate=[0.0, 0.0],
            scale=1 / float(zoom[i]),
            shear=[0.0, 0.0],
            interpolation=InterpolationMode.BILINEAR,
        )
        theirs = tv.center_crop(theirs, [size, size])
        torch.testing.assert_close(ours[i], theirs.flip(-1) if flips[i] else theirs + 0, atol=2e-4, rtol=0)


def test_turn_by_hand() -> None:
    """A square turned clockwise by 90 degrees: what was right of the middle is now above it (content turns back)."""
    labels = Labels(torch.tensor([[[0.5, 0.0], [0.0, 0.25], [0.9, 0.9]]]), torch.ones(1, 3, 2))
    args = torch.rand(1, 3, 40, 40), labels, torch.ones(1, 3, dtype=torch.bool)
    yes, no = torch.tensor([True]), torch.tensor([False])
    _, plain, _ = turn(*args, no, torch.tensor([90.0]), torch.tensor([1.0]), ())
    torch.testing.assert_close(plain.coords, torch.tensor([[[0.0, -0.5], [0.25, 0.0], [0.9, -0.9]]]))
    _, flipped, _ = turn(*args, yes, torch.tensor([90.0]), torch.tensor([1.0]), ((0, 1),))
    torch.testing.assert_close(flipped.coords, torch.tensor([[[-0.25, 0.0], [0.0, -0.5], [-0.9, -0.9]]]))
    _, wide, _ = turn(*args, no, torch.tensor([0.0]), torch.tensor([2.0]), ())
    torch.testing.assert_close(wide.coords, labels.coords / 2)
    _, cropped, seen = turn(*args, no, torch.tensor([0.0]), torch.tensor([1.0]), (), 20)
    torch.testing.assert_close(cropped.coords, labels.coords * 2)
    assert cropped.weight[0].tolist() == [[1, 1], [1, 1], [0, 0]]
    assert seen.tolist() == [[True, True, False]]


def test_flip_swaps_weights_and_visibility(generator: torch.Generator) -> None:
    coords, weight = torch.rand(6, 5, 3) - 0.5, torch.rand(6, 5, 3)
    visible = torch.rand(6, 5) > 0.5
    for augment in (Augment(flip=1, pairs=PAIRS), Augment(flip=1, pairs=PAIRS, size=8)):
        images, labels, seen = augment(torch.rand(6, 3, 8, 8), Labels(coords, weight), visible, generator)
        order = [2, 4, 0, 3, 1]
        torch.testing.assert_close(labels.coords, coords[:, order] * torch.tensor([-1.0, 1.0, 1.0]))
        torch.testing.assert_close(labels.weight, weight[:, order])
        assert torch.equal(seen, visible[:, order])
        assert images.shape == (6, 3, 8, 8)


def test_unlabelled_nan_stays_harmless(generator: torch.Generator) -> None:
    images, labels, visible = scene(4, 48, 48)
    labels.coords[:, 1], labels.weight[:, 1], visible[:, 1] = math.nan, 0, False
    for augment in (Augment(pairs=((0, 2),)), Augment(rotation=20, scale=0.1, colour=0.2, pairs=((0, 2),))):
        out, moved, seen = augment(images, labels, visible, generator)
        assert out.isfinite().all()
        assert moved.coords[:, [0, 2]].isfinite().all()
        assert moved.weight.isfinite().all()
        assert moved.weight[:, 1].eq(0).all()
        assert not seen[:, 1].any()


def test_same_seed_same_batch_and_colour_leaves_geometry(generator: torch.Generator) -> None:
    images, labels, visible = scene(6, 48, 48)
    full = Augment(flip=0.5, rotation=30, scale=0.2, colour=0.3, pairs=((0, 2),), size=40)
    runs = [full(images, labels, visible, torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(runs[0][0], runs[1][0])
    assert torch.equal(runs[0][1].coords, runs[1][1].coords)
    other = full(images, labels, visible, torch.Generator().manual_seed(8))
    assert not torch.equal(runs[0][0], other[0])
    plain = Augment(flip=0.5, rotation=30, scale=0.2, pairs=((0, 2),), size=40)
    _, geometry, _ = plain(images, labels, visible, torch.Generator().manual_seed(7))
    assert torch.equal(geometry.coords, runs[0][1].coords)


def test_the_arguments_are_left_alone(generator: torch.Generator) -> None:
    images, labels, visible = scene(6, 48, 48)
    before = images.clone(), labels.coords.clone(), labels.weight.clone()
    for augment in (Augment(flip=1, pairs=((0, 2),)), Augment(rotation=30, scale=0.5, colour=0.3, pairs=((0, 2),))):
        augment(images, labels, visible, generator)
        assert torch.equal(images, before[0])
        assert torch.equal(labels.coords, before[1])
        assert torch.equal(labels.weight, before[2])


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.floats(0, 180), st.floats(0, 0.5))
def test_weights_follow_the_frame(seed: int, rotation: float, scale: float) -> None:
    """Weight 0 exactly for the joints outside; distances between joints change by the zoom alone."""
    g = torch.Generator().manual_seed(seed)
    coords = torch.rand(3, 7, 2, generator=g) * 2 - 1
    labels, visible = Labels(coords, torch.ones(3, 7, 2)), torch.ones(3, 7, dtype=torch.bool)
    augment = Augment(flip=0.5, rotation=rotation, scale=scale, pairs=((0, 6),), size=10)
    _, moved, seen = augment(torch.rand(3, 3, 16, 16, generator=g), labels, visible, g)
    inside = (moved.coords.abs() <= 1).all(-1)
    assert torch.equal(moved.weight[..., 0] > 0, inside)
    assert torch.equal(seen, inside)
    ratio = (moved.coords[:, 1] - moved.coords[:, 2]).norm(dim=-1) / (coords[:, 1] - coords[:, 2]).norm(dim=-1)
    assert (ratio >= 1.6 / (1 + scale) - 1e-3).all()
    assert (ratio <= 1.6 / (1 - scale) + 1e-3).all()


def test_colour_is_torchvisions() -> None:
    images = torch.rand(4, 3, 9, 11)
    factors = torch.tensor([[1.0, 1.0, 1.0], [0.7, 1.0, 1.3], [1.2, 0.6, 1.0], [1.3, 1.3, 0.0]])
    ours = jitter(images, factors)
    for i, (brightness, contrast, saturation) in enumerate(factors.tolist()):
        theirs = tv.adjust_contrast(tv.adjust_brightness(images[i], brightness), contrast)
        torch.testing.assert_close(ours[i], tv.adjust_saturation(theirs, saturation), atol=2e-3, rtol=0)


def test_configuration_can_be_written_down() -> None:
    augment = Augment(rotation=30, scale=0.25).bind([(0, 2), (1, 4)], 96)
    assert augment.pairs == PAIRS
    assert augment.size == 96
    assert rebuild(describe(augment)) == augment
    assert augment.bind([(0, 1)], 64) == augment


def test_errors_let_the_reader_fix_the_call(generator: torch.Generator) -> None:
    images, labels, visible = scene(2, 20, 20)
    with pytest.raises(ValueError, match=r"flip > 0 without pairs.*bind"):
        Augment()(images, labels, visible, generator)
    with pytest.raises(ValueError, match=r"20 x 20 px, expected at least the crop of 24 x 24"):
        Augment(flip=0, size=24)(images, labels, visible, generator)
    with pytest.raises(ValueError, match=r"flip=1.5, expected a number from 0 to 1"):
        Augment(flip=1.5)
    with pytest.raises(ValueError, match=r"rotation=nan"):
        Augment(rotation=math.nan)
    with pytest.raises(ValueError, match=r"scale=1"):
        Augment(scale=1.0)
    with pytest.raises(ValueError, match=r"size=0"):
        Augment(size=0)
