"""Where a pixel is: conventions, crops, flips; by hand, by round trips and against slow loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from coordreg.coords import (
    CENTRE,
    STRIDE,
    UNIT,
    Convention,
    Labels,
    apply_affine,
    centres,
    crop,
    crop_affine,
    flip_coords,
    flip_images,
    flip_labels,
    from_pixels,
    invert_affine,
    swap,
    to_pixels,
)

B, J, H, W, D = 2, 3, 5, 4, 6
CONVENTIONS = (CENTRE, STRIDE, UNIT)
sizes = st.integers(2, 300)
pixels = st.floats(-50, 400)


def test_centres_by_hand() -> None:
    assert centres(4).tolist() == [-0.75, -0.25, 0.25, 0.75]
    assert centres(1).tolist() == [0.0]
    assert centres(3, dtype=torch.float64).dtype == torch.float64
    with pytest.raises(ValueError, match="n=0, expected at least one cell"):
        centres(0)


@pytest.mark.parametrize(
    ("convention", "expected"),
    [
        (CENTRE, [-0.75, 0.75, -1.0, 1.0]),  # first and last centre, left and right edge of 4 pixels
        (STRIDE, [-1.0, 0.5, -1.25, 0.75]),
        (UNIT, [-1.0, 1.0, -4 / 3, 4 / 3]),
    ],
)
def test_conventions_by_hand(convention: Convention, expected: list[float]) -> None:
    got = convention.normalise(torch.tensor([0.0, 3.0, -0.5, 3.5], dtype=torch.float64), 4)
    assert got.tolist() == pytest.approx(expected)


def test_a_heatmap_pixel_of_each_code_lies_where_the_code_says() -> None:
    """Image 256, map 64: index pixel 10 of the map is image pixel 41.5, 40 or 10 * 255 / 63."""
    for convention, expected in ((CENTRE, 41.5), (STRIDE, 40.0), (UNIT, 10 * 255 / 63)):
        u = convention.normalise(torch.tensor(10.0, dtype=torch.float64), 64)
        assert float(convention.pixel(u, 256)) == pytest.approx(expected)


@given(st.sampled_from(CONVENTIONS), sizes, pixels)
def test_conventions_round_trip(convention: Convention, size: int, pixel: float) -> None:
    c = torch.tensor(pixel, dtype=torch.float64)
    assert float(convention.pixel(convention.normalise(c, size), size)) == pytest.approx(pixel, abs=1e-9)


@given(st.sampled_from(CONVENTIONS), st.integers(2, 40), st.integers(2, 40), st.integers(2, 40), st.integers(0, 9))
def test_pixels_round_trip_in_2d_and_3d(convention: Convention, d: int, h: int, w: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    for size in ((h, w), (d, h, w)):
        coords = torch.rand(B, J, len(size), generator=g, dtype=torch.float64) * 2.4 - 1.2
        found = to_pixels(coords, size, convention)
        # the order of the coordinates is x, y, z; that of the sizes is the reverse
        for axis, n in enumerate(reversed(size)):
            torch.testing.assert_close(found[..., axis], convention.pixel(coords[..., axis], n))
        torch.testing.assert_close(from_pixels(found, size, convention), coords)


def test_wrong_number_of_sizes_says_what_to_give() -> None:
    with pytest.raises(ValueError, match=r"size \(6, 5, 4\) has 3 axes but the coordinates have 2.*\(H, W\)"):
        to_pixels(torch.zeros(B, J, 2), (D, H, W))


@pytest.mark.parametrize(("convention", "align"), [(CENTRE, False), (UNIT, True)])
def test_conventions_are_those_of_grid_sample(convention: Convention, align: bool) -> None:
    """Sampling an image of its own index pixels at the coordinate of (x, y) gives (x, y) back."""
    y, x = torch.meshgrid(torch.arange(H).double(), torch.arange(W).double(), indexing="ij")
    image = torch.stack([x, y])[None]
    g = torch.Generator().manual_seed(0)
    inside = torch.rand(1, 1, 7, 2, generator=g, dtype=torch.float64) * torch.tensor([W - 1, H - 1])
    coords = from_pixels(inside, (H, W), convention)
    found = F.grid_sample(image, coords, align_corners=align)[0, :, 0].T
    torch.testing.assert_close(found, inside[0, 0])


# -- crops ------------------------------------------------------------------------------------------------------------


def test_crop_affine_by_hand() -> None:
    """A rectangle 8 wide and 4 high about (10, 20): its corners, and turned by a right angle clockwise."""
    centre, side = torch.tensor([[10.0, 20.0]] * 2), torch.tensor([[8.0, 4.0]] * 2)
    affine = crop_affine(centre, side, torch.tensor([0.0, 90.0]))
    torch.testing.assert_close(affine[0], torch.tensor([[4.0, 0, 10], [0, 2, 20]]))
    corners = torch.tensor([[[-1.0, -1], [1, -1], [1, 1], [0, 0]]]).repeat(2, 1, 1)
    found = apply_affine(affine, corners)
    torch.testing.assert_close(found[0], torch.tensor([[6.0, 18], [14, 18], [14, 22], [10, 20]]))
    # clockwise on a screen, where y points down: the upper left corner goes to the upper right
    torch.testing.assert_close(found[1], torch.tensor([[12.0, 16], [12, 24], [8, 24], [10, 20]]))
    torch.testing.assert_close(crop_affine(centre, side)[1], affine[0])


def test_crop_affine_refuses_an_empty_rectangle() -> None:
    with pytest.raises(ValueError, match="got a side of 0 px, expected positive"):
        crop_affine(torch.zeros(1, 2), torch.tensor([[3.0, 0.0]]))


@given(st.floats(-180, 180), st.floats(0.5, 500), st.floats(0.5, 500), st.integers(0, 9))
def test_invert_affine(degrees: float, width: float, height: float, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    centre = torch.rand(B, 2, generator=g, dtype=torch.float64) * 300
    side = torch.tensor([[width, height]] * B, dtype=torch.float64)
    affine = crop_affine(centre, side, torch.full((B,), degrees, dtype=torch.float64))
    points = torch.rand(B, J, 2, generator=g, dtype=torch.float64) * 2 - 1
    torch.testing.assert_close(apply_affine(invert_affine(affine), apply_affine(affine, points)), points)
    # lengths: half a side along each axis of the crop
    edges = affine[..., :2].norm(dim=1)
    torch.testing.assert_close(edges, side / 2)


def slow_crop(image: torch.Tensor, affine: torch.Tensor, size: tuple[int, int], oversample: int) -> torch.Tensor:
    """Bilinear interpolation pixel by pixel, from the definition; black outside, also for half-outside neighbours."""
    batch, channels, height, width = image.shape
    h, w = size[0] * oversample, size[1] * oversample
    out = torch.zeros(batch, channels, *size, dtype=image.dtype)
    for b in range(batch):
        for i in range(h):
            for j in range(w):
                u, v = (2 * j + 1) / w - 1, (2 * i + 1) / h - 1
                x = float(affine[b, 0, 0] * u + affine[b, 0, 1] * v + affine[b, 0, 2])
                y = float(affine[b, 1, 0] * u + affine[b, 1, 1] * v + affine[b, 1, 2])
                for yy in (math.floor(y), math.floor(y) + 1):
                    for xx in (math.floor(x), math.floor(x) + 1):
                        if 0 <= yy < height and 0 <= xx < width:
                            share = (1 - abs(x - xx)) * (1 - abs(y - yy)) / oversample**2
                            out[b, :, i // oversample, j // oversample] += share * image[b, :, yy, xx]
    return out


@pytest.mark.parametrize("oversample", [1, 2])
def test_crop_against_a_pixel_loop(oversample: int, generator: torch.Generator) -> None:
    image = torch.rand(B, 3, 9, 11, generator=generator, dtype=torch.float64)
    affine = crop_affine(
        torch.tensor([[5.2, 3.9], [9.0, 8.0]], dtype=torch.float64),  # the second hangs over the border
        torch.tensor([[6.0, 7.0], [9.0, 5.0]], dtype=torch.float64),
        torch.tensor([0.0, 33.0], dtype=torch.float64),
    )
    found = crop(image, affine, (H, W), oversample)
    torch.testing.assert_close(found, slow_crop(image, affine, (H, W), oversample))
    assert bool((found[1] == 0).any())  # some of it is black


def test_crop_of_whole_pixels_copies_them(generator: torch.Generator) -> None:
    """A rectangle from pixel edge to pixel edge at the same resolution is a slice, exactly."""
    image = torch.rand(1, 2, 9, 11, generator=generator)
    affine = crop_affine(torch.tensor([[4.5, 3.0]]), torch.tensor([[4.0, 5.0]]))
    torch.testing.assert_close(crop(image, affine, (5, 4)), image[:, :, 1:6, 3:7])


def test_a_point_stays_on_its_pixel_through_a_crop() -> None:
    """A bright pixel of the image appears where the inverse affine says."""
    image = torch.zeros(1, 1, 20, 30)
    image[0, 0, 12, 7] = 1
    affine = crop_affine(torch.tensor([[9.0, 11.0]]), torch.tensor([[10.0, 8.0]]), torch.tensor([90.0]))
    cut = crop(image, affine, (8, 10))
    y, x = (cut[0, 0] == cut.max()).nonzero()[0].tolist()
    expected = to_pixels(apply_affine(invert_affine(affine), torch.tensor([[[7.0, 12.0]]])), (8, 10))[0, 0]
    assert abs(x - float(expected[0])) <= 0.5 + 1e-4
    assert abs(y - float(expected[1])) <= 0.5 + 1e-4


# -- flips ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [4, 7])
def test_flips_are_exact(width: int, generator: torch.Generator) -> None:
    """Read the image at a point; mirror both: the same value, for even and odd widths, without a shift."""
    image = torch.rand(1, 2, H, width, generator=generator)
    x, y = 1, 3
    coords = from_pixels(torch.tensor([[[float(x), y]]]), (H, width))
    mirrored = to_pixels(flip_coords(coords, ()), (H, width))[0, 0]
    assert mirrored.tolist() == pytest.approx([width - 1 - x, y], abs=1e-5)
    assert torch.equal(flip_images(image)[0, :, y, width - 1 - x], image[0, :, y, x])


@settings(max_examples=30)
@given(st.integers(0, 1000))
def test_flipping_twice_changes_nothing(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    labels = Labels(torch.randn(B, J, 3, generator=g), torch.rand(B, J, 3, generator=g))
    pairs = ((0, 2),)
    once = flip_labels(labels, pairs)
    assert torch.equal(once.coords[:, 0, 0], -labels.coords[:, 2, 0])
    assert torch.equal(once.coords[:, 0, 1:], labels.coords[:, 2, 1:])
    assert torch.equal(once.weight[:, 2], labels.weight[:, 0])  # weights travel, without a sign
    for got, expected in zip(flip_labels(once, pairs), labels, strict=True):
        assert torch.equal(got, expected)


def test_swap_by_hand_and_foreign_pairs() -> None:
    x = torch.arange(8).view(2, 4)
    assert swap(x, ((0, 3),)).tolist() == [[3, 1, 2, 0], [7, 5, 6, 4]]
    assert swap(x, ((0, 1),), dim=0).tolist() == [[4, 5, 6, 7], [0, 1, 2, 3]]
    with pytest.raises(ValueError, match=r"the pair \(1, 4\) does not fit 4 joints"):
        swap(x, ((1, 4),))
    with pytest.raises(ValueError, match="does not fit"):
        swap(x, ((-1, 2),))
