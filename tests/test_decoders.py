"""Chapter 2, reading a point off a map: ties, borders, empty maps, quarter shifts against slow loops, flip test."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from coordreg.coords import Labels, Points, from_pixels, to_pixels
from coordreg.heatmap import (
    MSE,
    Argmax,
    BinaryCrossEntropy,
    Compares,
    Gaussian,
    Heatmap,
    QuarterSecond,
    QuarterSign,
    SoftmaxCrossEntropy,
    peak,
)

B, J, H, W = 2, 3, 9, 7
DECODERS = (Argmax(), Argmax("origin"), QuarterSign(), QuarterSign("published"), QuarterSecond())


def at(pixels: list[list[float]], size: tuple[int, int] = (H, W)) -> Labels:
    """One image whose joints lie at these index pixels (x, y)."""
    coords = from_pixels(torch.tensor([pixels], dtype=torch.float64), size)
    return Labels(coords, torch.ones_like(coords))


def cells(points: Points, size: tuple[int, int]) -> Tensor:
    return to_pixels(points.coords.double(), size)


# -- decoders ---------------------------------------------------------------------------------------------------------


def maps_of(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows)[None, None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_of_equal_maxima_the_first_in_row_major_order_counts(dtype: torch.dtype) -> None:
    ties = maps_of([[0, 1, 5, 0], [5, 0, 0, 5]]).to(dtype)
    index, score = peak(ties)
    assert index.tolist() == [[2]]
    assert score.tolist() == [[5]]
    assert peak(torch.zeros(B, J, H, W, dtype=dtype))[0].tolist() == [[0] * J] * B


def test_peak_reads_any_memory_layout(generator: torch.Generator) -> None:
    maps = torch.randn(B, J, H, W, generator=generator)
    index, score = peak(maps.to(memory_format=torch.channels_last))
    for b in range(B):
        for j in range(J):
            best = max(range(H * W), key=lambda i: float(maps[b, j].flatten()[i]))
            assert int(index[b, j]) == best
            assert float(score[b, j]) == float(maps[b, j].max())


def test_argmax_by_hand_and_of_empty_maps() -> None:
    rows = [[-3.0, -1, -2], [-4, -5, -6]]
    kept, origin = Argmax()(maps_of(rows)), Argmax("origin")(maps_of(rows))
    assert cells(kept, (2, 3)).tolist() == [[[1, 0]]]
    assert cells(origin, (2, 3)).round().tolist() == [[[0, 0]]]
    assert kept.score.tolist() == origin.score.tolist() == [[-1]]  # the maximum, in both cases
    torch.testing.assert_close(kept.coords, torch.tensor([[[0.0, -0.5]]]))
    zero = maps_of([[0.0, 0, 0], [0, 0, 0]])
    assert cells(Argmax("origin")(zero), (2, 3)).round().tolist() == [[[0, 0]]]
    not_positive = maps_of([[-1.0, -2, -3], [-1, 0, -1]])  # the maximum is 0 and not in the first cell
    assert cells(Argmax("origin")(not_positive), (2, 3)).round().tolist() == [[[0, 0]]]
    assert cells(Argmax()(not_positive), (2, 3)).round().tolist() == [[[1, 1]]]
    last = maps_of([[0.0, 0, 0], [0, 0, 1e-30]])
    assert cells(Argmax("origin")(last), (2, 3)).round().tolist() == [[[2, 1]]]


@pytest.mark.parametrize("value", [0.0, -2.0, 3.0])
@pytest.mark.parametrize("decoder", DECODERS, ids=repr)
def test_constant_maps_are_finite_points(decoder: Argmax, value: float) -> None:
    for size in ((H, W), (1, 1), (1, 4), (3, 1)):
        points = decoder(torch.full((B, J, *size), value))
        assert bool(torch.isfinite(points.coords).all())
        assert points.score.tolist() == [[value] * J] * B
        index = cells(points, size)
        assert float(index.max()) <= 0.25 + 1e-5  # the first cell, or a quarter from it
        assert float(index.min()) >= -1e-5


def slow_quarter_sign(maps: Tensor, published: bool) -> Tensor:
    """Joint by joint; the guard of the published codes, or each axis wherever both neighbours exist."""
    out = torch.zeros(*maps.shape[:2], 2, dtype=torch.float64)
    for b in range(maps.shape[0]):
        for k in range(maps.shape[1]):
            grid = maps[b, k].tolist()
            h, w = len(grid), len(grid[0])
            y, x = max(((i, j) for i in range(h) for j in range(w)), key=lambda c: grid[c[0]][c[1]])
            move_x, move_y = 0.0, 0.0
            inside = 1 < x < w - 1 and 1 < y < h - 1
            if inside if published else 0 < x < w - 1:
                d = grid[y][x + 1] - grid[y][x - 1]
                move_x = 0.25 * ((d > 0) - (d < 0))
            if inside if published else 0 < y < h - 1:
                d = grid[y + 1][x] - grid[y - 1][x]
                move_y = 0.25 * ((d > 0) - (d < 0))
            out[b, k] = torch.tensor([x + move_x, y + move_y])
    return out


def slow_quarter_second(maps: Tensor) -> Tensor:
    """Sort all cells by value, equals in row-major order; a quarter cell along the straight line."""
    out = torch.zeros(*maps.shape[:2], 2, dtype=torch.float64)
    for b in range(maps.shape[0]):
        for k in range(maps.shape[1]):
            grid = maps[b, k].tolist()
            order = sorted(
                ((i, j) for i in range(len(grid)) for j in range(len(grid[0]))),
                key=lambda c: -grid[c[0]][c[1]],
            )
            (y, x), (y2, x2) = order[:2]
            length = math.hypot(x2 - x, y2 - y)
            out[b, k] = torch.tensor([x + 0.25 * (x2 - x) / length, y + 0.25 * (y2 - y) / length])
    return out


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(2, 7), st.integers(0, 10_000), st.sampled_from([2, 4, 1000]))
def test_quarter_shifts_against_slow_loops(h: int, w: int, seed: int, levels: int) -> None:
    """Few levels make ties between maxima and between neighbours common; small maps make borders common."""
    g = torch.Generator().manual_seed(seed)
    maps = torch.randint(-levels, levels, (B, J, h, w), generator=g).float()
    for decoder, expected in (
        (QuarterSign(), slow_quarter_sign(maps, published=False)),
        (QuarterSign("published"), slow_quarter_sign(maps, published=True)),
        (QuarterSecond(), slow_quarter_second(maps)),
    ):
        torch.testing.assert_close(cells(decoder(maps), (h, w)), expected, atol=1e-5, rtol=0)


def test_quarter_sign_at_every_cell_of_the_border() -> None:
    """One peak at each cell in turn with a slope to the lower right: which cells move, by hand."""
    h, w = 5, 6
    slope = torch.arange(h).view(h, 1) * 0.01 + torch.arange(w) * 0.01
    for y in range(h):
        for x in range(w):
            maps = slope.clone()
            maps[y, x] = 1
            moved = cells(QuarterSign("published")(maps[None, None]), (h, w))[0, 0] - torch.tensor([x, y])
            both = x in (2, 3, 4) and y in (2, 3)
            torch.testing.assert_close(moved, torch.full((2,), 0.25 * both, dtype=torch.float64), atol=1e-5, rtol=0)
            moved = cells(QuarterSign()(maps[None, None]), (h, w))[0, 0] - torch.tensor([x, y])
            each = torch.tensor([0.25 * (0 < x < w - 1), 0.25 * (0 < y < h - 1)], dtype=torch.float64)
            torch.testing.assert_close(moved, each, atol=1e-5, rtol=0)


def test_quarter_second_of_a_far_second_peak() -> None:
    """The second largest value may lie anywhere: three right and four down is 0.15 and 0.20 of a cell."""
    maps = torch.zeros(1, 1, H, W)
    maps[0, 0, 2, 1], maps[0, 0, 6, 4], maps[0, 0, 2, 2] = 1.0, 0.9, 0.8
    found = cells(QuarterSecond()(maps), (H, W))[0, 0]
    assert found.tolist() == pytest.approx([1.15, 2.2], abs=1e-5)
    sign = cells(QuarterSign()(maps), (H, W))[0, 0]
    assert sign.tolist() == pytest.approx([1.25, 2.0], abs=1e-5)  # the other rule looks at neighbours alone
    assert float(maps[0, 0, 2, 1]) == 1  # the maps are left as they were


@pytest.mark.parametrize("compare", [MSE(), SoftmaxCrossEntropy(), BinaryCrossEntropy()], ids=repr)
def test_decoding_reads_the_map_as_the_loss_means_it(compare: Compares, generator: torch.Generator) -> None:
    method = Heatmap(Gaussian(), compare, Argmax())
    maps = torch.randn(B, J, H, W, generator=generator)
    maps.requires_grad_()
    points = method.decode(maps)
    assert not points.score.requires_grad
    torch.testing.assert_close(points.score, method.compare.activate(maps.detach()).amax((-2, -1)))
    assert torch.equal(points.coords, Argmax()(maps.detach()).coords)  # each meaning is monotonic


# -- flip test --------------------------------------------------------------------------------------------------------


def test_flip_shift_moves_one_column_and_keeps_the_first_twice() -> None:
    maps = torch.arange(8.0).view(1, 2, 1, 4)
    plain = Heatmap(Gaussian(), MSE(), Argmax()).unflip(maps, ((0, 1),))
    shifted = Heatmap(Gaussian(), MSE(), Argmax(), flip_shift=True).unflip(maps, ((0, 1),))
    assert plain[0, :, 0].tolist() == [[7, 6, 5, 4], [3, 2, 1, 0]]
    assert shifted[0, :, 0].tolist() == [[7, 7, 6, 5], [3, 3, 2, 1]]


def test_the_shift_repairs_the_stride_convention_by_half_a_stride() -> None:
    """A network that learnt x/stride at stride 4: cell c stands for image pixel 4c instead of 4c + 1.5. Mirrored back
    without the shift its map lies 0.75 cells to the left of the plain one; the shift leaves a quarter of a cell."""
    columns, x = 16, 22.0  # image of 64 columns
    for shift, expected in ((False, -0.75), (True, 0.25)):
        plain = Gaussian(1.5)(at([[x / 4, 4.0]], (H, columns)), (H, columns)).maps
        mirror = Gaussian(1.5)(at([[(63 - x) / 4, 4.0]], (H, columns)), (H, columns)).maps
        back = Heatmap(Gaussian(), MSE(), Argmax(), flip_shift=shift).unflip(mirror, ())

        def mean(maps: Tensor) -> float:
            return float((maps.sum(-2) * torch.arange(columns)).sum() / maps.sum())

        assert mean(back) - mean(plain) == pytest.approx(expected, abs=0.02)
