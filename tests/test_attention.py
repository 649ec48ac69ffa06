"""Deformable attention: a double loop with bilinear interpolation by hand, both orders of the sum, the border, cost."""

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from coordreg.attention import (
    DeformableAttention,
    SlowLinear,
    attention_macs,
    check_maps,
    emsda,
    msda,
    places,
    ring,
    sample,
)
from coordreg.backbones.cost import macs
from coordreg.coords import from_pixels, to_pixels

B, Q, C, M, S = 2, 5, 6, 3, 4
SIZES = ((7, 9), (4, 5))
F64 = torch.float64


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def problem(
    reach: float, seed: int = 0, dtype: torch.dtype = F64
) -> tuple[list[Tensor], Tensor, Tensor, Tensor, Tensor]:
    """Maps, places in [-reach, reach], shares that sum to 1, weight and bias of the values."""
    maps = [noise(B, C, h, w, seed=seed + i, dtype=dtype) for i, (h, w) in enumerate(SIZES)]
    draw = torch.Generator().manual_seed(seed + 10)
    at = (2 * torch.rand(B, Q, M, len(SIZES), S, 2, generator=draw, dtype=dtype) - 1) * reach
    share = noise(B, Q, M, len(SIZES) * S, seed=seed + 11, dtype=dtype).softmax(-1).unflatten(-1, (len(SIZES), S))
    return maps, at, share, noise(C, C, seed=seed + 12, dtype=dtype), noise(C, seed=seed + 13, dtype=dtype)


def inner() -> float:
    """How far a place may lie from the middle so that all four cells about it exist on every level and axis."""
    return min(1 - 1 / n for size in SIZES for n in size)


def corners(x: float, y: float, h: int, w: int) -> list[tuple[int, int, float]]:
    """(row, column, weight) of the cells about a normalised place, by hand; cells outside are left out."""
    column, row = ((x + 1) * w - 1) / 2, ((y + 1) * h - 1) / 2
    found = []
    for r, c in itertools.product((math.floor(row), math.floor(row) + 1), (math.floor(column), math.floor(column) + 1)):
        if 0 <= r < h and 0 <= c < w:
            found.append((r, c, (1 - abs(row - r)) * (1 - abs(column - c))))
    return found


def slow(maps: list[Tensor], at: Tensor, share: Tensor, weight: Tensor, bias: Tensor, project_first: bool) -> Tensor:
    """Equations (7.12) and (7.13) one place after the other."""
    out = torch.zeros(B, Q, C, dtype=F64)
    rows = C // M
    for b, q, m in itertools.product(range(B), range(Q), range(M)):
        own = slice(m * rows, (m + 1) * rows)
        total = torch.zeros(rows if project_first else C, dtype=F64)
        for i, s in itertools.product(range(len(maps)), range(S)):
            x, y = at[b, q, m, i, s].tolist()
            for r, c, part in corners(x, y, *maps[i].shape[2:]):
                cell = maps[i][b, :, r, c]
                value = weight[own] @ cell + bias[own] if project_first else cell
                total = total + share[b, q, m, i, s] * part * value
        out[b, q, own] = total if project_first else weight[own] @ total + bias[own]
    return out


# -- places ------------------------------------------------------------------------------------------------------------


def test_ring_by_hand() -> None:
    """Four heads look right, down, left and up (y grows downwards); eight also diagonally, on a square."""
    found = ring(4, 2, 3)
    assert found.shape == (4, 2, 3, 2)
    expected = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    for level, k in itertools.product(range(2), range(3)):
        torch.testing.assert_close(found[:, level, k], expected * (k + 1), atol=1e-6, rtol=0)
    torch.testing.assert_close(ring(8, 1, 2)[1, 0], torch.tensor([[1.0, 1], [2, 2]]))
    torch.testing.assert_close(ring(8, 1, 1)[3, 0], torch.tensor([[-1.0, 1]]))


def test_an_offset_of_one_is_one_cell_of_its_level() -> None:
    reference = from_pixels(torch.tensor([[[2.0, 1.0]]]), SIZES[0])
    offsets = torch.zeros(1, 1, 1, 2, 2, 2)
    offsets[..., 1, :] = torch.tensor([1.0, -2.0])
    at = places(reference, offsets, SIZES)
    torch.testing.assert_close(to_pixels(at[0, 0, 0, 0], SIZES[0]), torch.tensor([[2.0, 1.0], [3.0, -1.0]]))
    step = to_pixels(at[0, 0, 0, 1, 1], SIZES[1]) - to_pixels(at[0, 0, 0, 1, 0], SIZES[1])
    torch.testing.assert_close(step, torch.tensor([1.0, -2.0]))


def test_samples_by_hand() -> None:
    """A row of three cells 1, 10, 100: on a centre, between two, and one third of a cell beyond the last centre."""
    maps = torch.tensor([[[[1.0, 10, 100]]]], dtype=F64)
    columns = torch.tensor([1.0, 0.5, 2 + 1 / 3, 3.0], dtype=F64)
    at = from_pixels(torch.stack([columns, torch.zeros_like(columns)], -1), (1, 3))
    found = sample(maps, at.view(1, 1, 4, 2)).flatten()
    torch.testing.assert_close(found, torch.tensor([10.0, 5.5, 200 / 3, 0.0], dtype=F64))


# -- the two orders ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reach", [0.5, 1.4])
@pytest.mark.parametrize("project_first", [True, False])
def test_against_a_double_loop(project_first: bool, reach: float) -> None:
    """Inside, and with a third of the places beyond the border."""
    maps, at, share, weight, bias = problem(reach)
    fast = (msda if project_first else emsda)(maps, at, share, weight, bias)
    torch.testing.assert_close(fast, slow(maps, at, share, weight, bias, project_first), atol=1e-12, rtol=0)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), single=st.booleans())
def test_the_two_orders_agree_away_from_the_border(seed: int, single: bool) -> None:
    dtype, tolerance = (torch.float32, 2e-5) if single else (F64, 1e-12)
    values = problem(inner(), seed, dtype)
    torch.testing.assert_close(emsda(*values), msda(*values), atol=tolerance, rtol=0)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_at_the_border_they_differ_by_the_part_of_the_bias_that_fell_outside(seed: int) -> None:
    """Sampling first sees zeros and adds the whole bias; projecting first sees bias inside and zeros outside."""
    maps, at, share, weight, bias = problem(1.3, seed)
    covered = torch.stack(
        [
            sample(torch.ones(B, 1, h, w, dtype=F64), at[:, :, :, i].flatten(2, 3)).view(B, Q, M, S)
            for i, (h, w) in enumerate(SIZES)
        ],
        3,
    )
    outside = 1 - (share * covered).flatten(3).sum(-1)  # (B, Q, M), 0 for a head that looks inside only
    difference = emsda(maps, at, share, weight, bias) - msda(maps, at, share, weight, bias)
    expected = (outside.unsqueeze(-1) * bias.view(M, -1)).flatten(2)
    torch.testing.assert_close(difference, expected, atol=1e-12, rtol=0)
    assert float(outside.max()) > 0.05
    assert float(difference.abs().max()) > 1e-3
    plain = torch.zeros_like(bias)
    torch.testing.assert_close(
        emsda(maps, at, share, weight, plain), msda(maps, at, share, weight, plain), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize("attend", [msda, emsda])
def test_gradients(attend: object) -> None:
    maps, at, share, weight, bias = problem(1.2)
    inputs = (maps[1][:1], at[:1, :2, :, 1:, :1], share[:1, :2, :, 1:, :1], weight, bias)

    def run(level: Tensor, *rest: Tensor) -> Tensor:
        return attend([level], *rest)  # type: ignore[operator,no-any-return]

    assert torch.autograd.gradcheck(run, tuple(x.detach().clone().requires_grad_() for x in inputs))


def test_moving_map_and_reference_by_a_cell_changes_nothing() -> None:
    torch.manual_seed(0)
    net = DeformableAttention(C, M, levels=1, points=S).double()
    maps, queries = noise(B, C, 15, 17), noise(B, Q, C, seed=1)
    reference = noise(B, Q, 2, seed=2).clamp(-1, 1) * 0.2
    moved = reference + torch.tensor([2 * 2 / 17, -2 / 15], dtype=F64)
    torch.testing.assert_close(
        net(queries, reference, [maps]), net(queries, moved, [maps.roll((-1, 2), (2, 3))]), atol=1e-10, rtol=0
    )


# -- cost --------------------------------------------------------------------------------------------------------------


def counted(efficient: bool) -> dict[str, int]:
    """Multiply-adds of one image by walking the loops and counting."""
    found = dict.fromkeys(("offsets", "weights", "value", "sampling", "output"), 0)
    if not efficient:
        found["value"] += sum(h * w for h, w in SIZES) * C * C
    for _ in range(Q):
        found["output"] += C * C
        for _ in range(M):
            for _ in range(len(SIZES) * S):
                found["offsets"] += 2 * C
                found["weights"] += C
                for _ in range(C if efficient else C // M):
                    found["sampling"] += 4 + 1
            if efficient:
                found["value"] += C * (C // M)
    return found


@pytest.mark.parametrize("efficient", [True, False])
def test_cost_against_a_count_and_against_the_counter_of_networks(efficient: bool) -> None:
    found = attention_macs(Q, C, M, S, SIZES, efficient)
    assert found == counted(efficient)
    net = DeformableAttention(C, M, len(SIZES), S, efficient)

    class Once(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            maps = [F.adaptive_avg_pool2d(x, size) for size in SIZES]
            return self.net(x.new_zeros(1, Q, C), x.new_zeros(1, Q, 2), maps)  # type: ignore[no-any-return]

    seen = macs(Once(), (16, 16), channels=C)
    assert seen == found["offsets"] + found["weights"] + found["output"]
    assert seen + net.unseen_macs(Q, SIZES) == sum(found.values())
    if not efficient:
        assert found["value"] == sum(macs(nn.Conv2d(C, C, 1), size, channels=C) for size in SIZES)


def test_cost_of_the_published_sizes() -> None:
    """17 queries, 4,080 cells: the values cost 240 times less, the sampling 8 times more, all in all 40 times less."""
    sizes = [(64, 48), (32, 24), (16, 12), (8, 6)]
    plain = attention_macs(17, 256, 8, 4, sizes, efficient=False)
    quick = attention_macs(17, 256, 8, 4, sizes)
    assert (plain["value"], quick["value"]) == (4080 * 256**2, 17 * 256**2)
    assert (plain["sampling"], quick["sampling"]) == (348_160, 2_785_280)
    assert sum(quick.values()) == 6_684_672
    assert sum(plain.values()) == 270_520_320


# -- the module --------------------------------------------------------------------------------------------------------


def test_both_modules_take_the_same_weights_and_agree_inside() -> None:
    torch.manual_seed(0)
    quick, plain = (DeformableAttention(C, M, 2, 1, efficient).double() for efficient in (True, False))
    plain.load_state_dict(quick.state_dict())
    nn.init.normal_(quick.value.bias)
    plain.value.bias.data = quick.value.bias.data
    maps = [noise(B, C, 9, 11), noise(B, C, 5, 6)]
    queries, reference = noise(B, Q, C, seed=4), noise(B, Q, 2, seed=5).clamp(-1, 1) * 0.3
    torch.testing.assert_close(quick(queries, reference, maps), plain(queries, reference, maps), atol=1e-12, rtol=0)
    outside = reference + 1
    assert float((quick(queries, outside, maps) - plain(queries, outside, maps)).detach().abs().max()) > 1e-3


def test_first_looks_are_the_ring_with_equal_weights() -> None:
    torch.manual_seed(0)
    net = DeformableAttention(8, 4, 2, 3, rate=0.1)
    reference = noise(B, Q, 2, dtype=torch.float32)
    at, share = net.look(noise(B, Q, 8, dtype=torch.float32), reference, SIZES)
    torch.testing.assert_close(at, places(reference, ring(4, 2, 3).expand(B, Q, 4, 2, 3, 2), SIZES))
    torch.testing.assert_close(share, torch.full_like(share, 1 / 6))
    legacy = DeformableAttention(8, 4, 2, 3, legacy_init=True)
    other, weights = legacy.look(noise(B, Q, 8, dtype=torch.float32), reference, SIZES)
    assert float((other - at).abs().max()) > 0.01
    assert float((weights - share).abs().max()) > 0.01
    torch.testing.assert_close(legacy.offsets.bias, ring(4, 2, 3).flatten())


def test_shares_sum_to_one_and_queries_do_not_hear_each_other() -> None:
    torch.manual_seed(0)
    net = DeformableAttention(C, M, 2, S, legacy_init=True).double()
    maps, queries, reference = problem(1)[0], noise(B, Q, C, seed=3), noise(B, Q, 2, seed=4) * 0.5
    _, share = net.look(queries, reference, SIZES)
    torch.testing.assert_close(share.sum((-1, -2)), torch.ones(B, Q, M, dtype=F64))
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(
        net(queries, reference, maps)[:, order], net(queries[:, order], reference[:, order], maps)
    )
    torch.testing.assert_close(net(queries, reference, maps)[:, :2], net(queries[:, :2], reference[:, :2], maps))


def test_places_stay_precise_in_half_precision() -> None:
    """A place that bfloat16 would round by a cell: the sample is that of the place, to the map's own precision."""
    net = DeformableAttention(4, 2, 1, 1).to(torch.bfloat16)
    with torch.no_grad():
        net.offsets.bias.zero_()
    at, share = net.look(torch.zeros(1, 1, 4, dtype=torch.bfloat16), torch.tensor([[[0.7037, -0.9]]]), [(64, 256)])
    assert at.dtype == share.dtype == torch.float32
    torch.testing.assert_close(at.flatten(0, 4), torch.tensor([[0.7037, -0.9]]).expand(2, 2))
    line = torch.arange(256.0, dtype=torch.bfloat16).expand(1, 4, 64, 256)
    found = sample(line, at.flatten(0, 4).view(1, 1, 2, 2))
    torch.testing.assert_close(found.flatten()[0], to_pixels(at.flatten(0, 4), (64, 256))[0, 0])
    for efficient in (True, False):
        net.efficient = efficient
        seen = net(torch.zeros(1, 1, 4, dtype=torch.bfloat16), torch.zeros(1, 1, 2), [line])
        assert seen.dtype == torch.bfloat16
        assert bool(torch.isfinite(seen).all())


@pytest.mark.parametrize("optimiser", [torch.optim.Adam, torch.optim.AdamW])
def test_a_slow_layer_is_a_layer_with_a_tenth_of_the_learning_rate(optimiser: type[torch.optim.Optimizer]) -> None:
    torch.manual_seed(0)
    plain, slow = nn.Linear(3, 2).double(), SlowLinear(3, 2, 0.1).double()
    slow.put(plain.weight.detach(), plain.bias.detach())
    start = plain.weight.detach().clone()
    x, y = noise(7, 3), noise(7, 2, seed=1)
    torch.testing.assert_close(slow(x), plain(x))
    options: dict[str, Any] = {"weight_decay": 0.0, "eps": 1e-15}
    one = optimiser([{"params": plain.parameters(), "lr": 1e-3}], lr=1.0, **options)  # type: ignore[call-arg]
    two = optimiser(slow.parameters(), lr=1e-2, **options)  # type: ignore[call-arg]
    for _ in range(20):
        for net, opt in ((plain, one), (slow, two)):
            opt.zero_grad()
            (net(x) - y).square().mean().backward()
            opt.step()
    torch.testing.assert_close(slow(x), plain(x), atol=1e-9, rtol=0)
    assert 0.005 < float((plain.weight - start).abs().max()) < 0.021  # 20 steps of about 1e-3 and not of 1e-2


def test_a_slow_layer_starts_as_torchs_own() -> None:
    torch.manual_seed(3)
    plain = nn.Linear(4, 5)
    torch.manual_seed(3)
    slow = SlowLinear(4, 5, 0.1)
    torch.testing.assert_close(slow.weight * 0.1, plain.weight)
    torch.testing.assert_close(slow.bias * 0.1, plain.bias)


# -- bad input ---------------------------------------------------------------------------------------------------------


def maps_of(*sizes: tuple[int, int], channels: int = 8) -> list[Tensor]:
    return [torch.zeros(B, channels, h, w) for h, w in sizes]


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (maps_of((8, 6)), r"got 1 feature levels \(8x8x6\), expected 2"),
        ([], r"got 0 feature levels \(none\), expected 2"),
        (maps_of((4, 3), (8, 6)), r"8x4x3 and 8x8x6, whose sizes do not fall; give the finest first"),
        (maps_of((8, 6), (8, 6)), "whose sizes do not fall"),
        (maps_of((8, 3), (4, 5)), "whose sizes do not fall"),
        (maps_of((8, 6), (3, 1)), r"got 4 points a head and level, more than the 3 cells of the smallest map"),
        (maps_of((8, 6), (4, 3), channels=5), r"expected \(B, 8, h, w\) on every level"),
    ],
)
def test_maps_that_cannot_be_read(maps: list[Tensor], message: str) -> None:
    net = DeformableAttention(8, 2, 2, 4)
    with pytest.raises(ValueError, match=message):
        net(torch.zeros(B, Q, 8), torch.zeros(B, Q, 2), maps)


def test_as_many_points_as_cells_are_enough() -> None:
    check_maps(maps_of((4, 4), (2, 2)), 2, 8, 4)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"width=10, heads=4, .* expected at least 1 of each and a width that is a"):
        DeformableAttention(10, 4)
    with pytest.raises(ValueError, match="points=0"):
        DeformableAttention(8, 4, points=0)
    with pytest.raises(ValueError, match=r"SlowLinear: got rate=0\.0, expected a factor above 0"):
        SlowLinear(2, 2, 0.0)
