"""The parts of Poseur: encodings by hand and by a slow loop, noisy points, the mask, the encoder, one decoder layer."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from coordreg.attention import SlowLinear
from coordreg.coords import centres
from coordreg.queries import (
    DecoderLayer,
    Jittered,
    KeypointEncoder,
    Layer,
    Seen,
    Uniform,
    apart,
    perceptron,
    placed,
    sines,
)

B, J, C = 2, 3, 8
F64 = torch.float64
PLAIN = Layer(heads=2, points=2, hidden=12, dropout=0.0)


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def layer(seed: int = 0, levels: int = 2, **changes: object) -> DecoderLayer:
    torch.manual_seed(seed)
    return DecoderLayer(C, levels, replace(PLAIN, **changes)).double()  # type: ignore[arg-type]


def maps() -> list[Tensor]:
    return [noise(B, C, 7, 9, seed=5), noise(B, C, 4, 5, seed=6)]


# -- encodings ---------------------------------------------------------------------------------------------------------


def test_sines_by_hand() -> None:
    """Four numbers an axis: the middle of the crop is the angle pi; the second pair turns 100 times slower."""
    found = sines(torch.tensor([0.0, -0.5], dtype=F64), 8)
    x = [math.sin(math.pi), math.cos(math.pi), math.sin(math.pi / 100), math.cos(math.pi / 100)]
    y = [math.sin(math.pi / 2), math.cos(math.pi / 2), math.sin(math.pi / 200), math.cos(math.pi / 200)]
    torch.testing.assert_close(found, torch.tensor(x + y, dtype=F64), atol=1e-12, rtol=0)


def test_sines_against_the_supplements_formula() -> None:
    """PE(pos, 2i) = sin(pos / 10000^(2i/d)), PE(pos, 2i + 1) the cosine, d = 128, pos in [0, 2 pi], x before y."""
    points = noise(B, J, 2).clamp(-1, 1)
    found = sines(points, 256)
    for b, j, axis, i in itertools.product(range(B), range(J), range(2), range(64)):
        pos = (float(points[b, j, axis]) + 1) / 2 * 2 * math.pi
        angle = pos / 10000 ** (2 * i / 128)
        assert float(found[b, j, 128 * axis + 2 * i]) == pytest.approx(math.sin(angle), abs=1e-9)
        assert float(found[b, j, 128 * axis + 2 * i + 1]) == pytest.approx(math.cos(angle), abs=1e-9)


def test_placed_maps_against_a_loop_over_cells() -> None:
    level = noise(2, C, seed=9)
    found = placed(maps(), level)
    for i, m in enumerate(maps()):
        h, w = m.shape[2:]
        for r, c in itertools.product(range(h), range(w)):
            at = torch.stack([centres(h, dtype=F64)[r], centres(w, dtype=F64)[c]])  # rows first, as released
            torch.testing.assert_close(found[i][:, :, r, c], m[:, :, r, c] + sines(at, C) + level[i])


@pytest.mark.parametrize(("width", "axes"), [(6, 2), (2, 2), (8, 3)])
def test_sines_need_pairs_on_every_axis(width: int, axes: int) -> None:
    with pytest.raises(ValueError, match=rf"got width={width} for {axes} axes, expected a multiple of {2 * axes}"):
        sines(torch.zeros(axes), width)


# -- noisy points and the mask -----------------------------------------------------------------------------------------


def test_uniform_points_fill_the_crop_and_do_not_follow_the_proposals() -> None:
    torch.manual_seed(0)
    found = Uniform(2)(torch.full((500, J, 2), 7.0))
    assert found.shape == (500, 2, J, 2)
    assert float(found.abs().max()) < 1
    torch.testing.assert_close(found.mean((0, 1, 2)), torch.zeros(2), atol=0.05, rtol=0)
    torch.testing.assert_close(found.var((0, 1, 2)), torch.full((2,), 1 / 3), atol=0.03, rtol=0)


@settings(max_examples=20, deadline=None)
@given(copies=st.integers(1, 4), data=st.data(), seed=st.integers(0, 1000))
def test_jittered_points_move_as_many_as_they_say_the_same_ones_everywhere(
    copies: int, data: st.DataObject, seed: int
) -> None:
    moved = data.draw(st.integers(0, copies * J))
    torch.manual_seed(seed)
    proposal = noise(B, J, 2, seed=seed).clamp(-1, 1).requires_grad_()
    found = Jittered(copies, moved)(proposal)
    assert found.shape == (B, copies, J, 2)
    assert not found.requires_grad
    changed = (found != proposal.unsqueeze(1)).any(-1)
    assert changed.flatten(1).sum(1).tolist() == [moved] * B
    assert bool((changed[0] == changed[1]).all())
    assert float((found - proposal.unsqueeze(1)).detach().abs().max()) <= 2.0
    assert float(found.abs().max()) <= 2.4


def test_jittered_points_spread_as_released() -> None:
    """In units of the crop's side: variance 0.2, cut at 1, results within -0.7 and 1.7."""
    torch.manual_seed(0)
    found = Jittered(1, J)(torch.zeros(5000, J, 2)).double() / 2
    assert float(found.var()) == pytest.approx(0.2, rel=0.05)  # cut at 2.2 deviations: a little less
    assert float(found.abs().max()) == pytest.approx(1.0)
    far = Jittered(1, J)(torch.full((2000, J, 2), 1.0))
    assert float((far.max() + 1) / 2) == pytest.approx(1.7)


def test_the_mask_by_hand() -> None:
    rows = ["..##", "..##", "##..", "##.."]
    assert apart(2, 2).tolist() == [[c == "#" for c in row] for row in rows]


def test_bad_noise() -> None:
    with pytest.raises(ValueError, match="got copies=0, expected at least 1; noise=None leaves it out"):
        Uniform(0)
    with pytest.raises(ValueError, match="got moved=12 of 1 x 3 points"):
        Jittered(1)(torch.zeros(B, J, 2))


# -- the encoder -------------------------------------------------------------------------------------------------------


def test_a_query_is_the_joints_vector_plus_the_encoded_place() -> None:
    encoder = KeypointEncoder(J, C).double()
    points = noise(B, 2, J, 2)
    queries, extra = encoder(points)
    assert extra is None
    for b, g, j in itertools.product(range(B), range(2), range(J)):
        expected = encoder.joint.weight[j] + sines(points[b, g, j], C)
        torch.testing.assert_close(queries[b, g * J + j], expected)


def test_the_released_fusion() -> None:
    encoder = KeypointEncoder(J, C, "linear").double()
    points = 2 * noise(B, 1, J, 2)
    queries, extra = encoder(points)
    assert extra is encoder.joint.weight
    both = torch.cat([sines(points, C), sines(points.clamp(-1, 1), C)], -1)
    assert not torch.equal(both[..., :C], both[..., C:])  # some point lies outside
    torch.testing.assert_close(queries.unsqueeze(1), encoder.norm(encoder.mix(both)))
    with pytest.raises(ValueError, match="got fusion='mean', expected 'sum' or 'linear'"):
        KeypointEncoder(J, C, "mean")


# -- one layer ---------------------------------------------------------------------------------------------------------


def test_a_layer_against_its_parts_one_after_the_other() -> None:
    net, x, reference = layer(), noise(B, J, C), noise(B, J, 2, seed=1) * 0.3
    extra = noise(J, C, seed=2)
    weight, bias = net.between.in_proj_weight, net.between.in_proj_bias
    q, k, v = (
        (x + extra, x + extra, x)[i] @ weight[i * C : (i + 1) * C].T + bias[i * C : (i + 1) * C] for i in range(3)
    )
    heads = []
    for m in range(2):
        own = slice(m * C // 2, (m + 1) * C // 2)
        share = (q[..., own] @ k[..., own].transpose(1, 2) / math.sqrt(C / 2)).softmax(-1)
        heads.append(share @ v[..., own])
    y = net.norm1(x + net.between.out_proj(torch.cat(heads, -1)))
    y = net.norm2(y + net.cross(y + extra, reference, maps()))
    y = net.norm3(y + net.forwards[3](net.forwards[0](y).clamp_min(0)))
    torch.testing.assert_close(net(x, extra, reference, maps(), None), y)
    seen: list[Seen] = []
    torch.testing.assert_close(net(x, extra, reference, maps(), None, seen), y)
    assert seen[0].joints is not None
    torch.testing.assert_close(seen[0].joints[:, 1], share)
    assert seen[0].at.shape == (B, J, 2, 2, 2, 2)


def test_joints_hear_each_other_only_through_self_attention() -> None:
    x, reference = noise(B, J, C), noise(B, J, 2, seed=1) * 0.3
    other = x.clone()
    other[:, 2] += 1
    for between in (True, False):
        net = layer(self_attention=between)
        change = (net(other, None, reference, maps(), None) - net(x, None, reference, maps(), None))[:, :2]
        assert (float(change.detach().abs().max()) > 1e-4) is between


def test_the_mask_keeps_groups_apart_and_without_it_they_are_not() -> None:
    net, x, reference = layer(), noise(B, 2 * J, C), noise(B, 2 * J, 2, seed=1) * 0.3
    alone = net(x[:, :J], None, reference[:, :J], maps(), None)
    torch.testing.assert_close(net(x, None, reference, maps(), apart(2, J))[:, :J], alone)
    assert float((net(x, None, reference, maps(), None)[:, :J] - alone).detach().abs().max()) > 1e-4


def test_the_first_answer_is_the_reference_point() -> None:
    for update in ("logit", "add"):
        net, reference = layer(update=update), noise(B, J, 2).clamp(-0.9, 0.9)
        moved, answer = net.answer(noise(B, J, C, seed=1), reference)
        torch.testing.assert_close(moved, reference)
        torch.testing.assert_close(answer[..., :2], reference)
        assert answer.shape == (B, J, 4)


def test_the_reference_point_moves_by_hand() -> None:
    """From the middle by a logit of log 3 to three quarters of the crop, 0.5; or by log 3 if added. Then the answer."""
    for update, expected in (("logit", 0.5), ("add", math.log(3))):
        net = layer(update=update)
        for part, value in ((net.move, math.log(3)), (net.centre, 2.0), (net.spread, -1.0)):
            last = part[-1]
            assert isinstance(last, SlowLinear)
            last.put(0.0, value)
        moved, answer = net.answer(noise(B, J, C), torch.zeros(B, J, 2, dtype=F64))
        torch.testing.assert_close(moved, torch.full((B, J, 2), expected, dtype=F64))
        torch.testing.assert_close(answer[0, 0], torch.tensor([expected + 2] * 2 + [-1.0] * 2, dtype=F64))


def test_a_reference_outside_the_crop_stays_finite() -> None:
    net = layer()
    reference = torch.tensor([[[-1.5, 2.0]] * J] * B, dtype=F64, requires_grad=True)
    moved, answer = net.answer(noise(B, J, C), reference)
    answer.sum().backward()
    assert float(moved.abs().max().detach()) <= 1
    assert reference.grad is not None
    assert bool(torch.isfinite(reference.grad).all())


def test_perceptrons() -> None:
    assert [type(m).__name__ for m in perceptron(4, 2)] == ["SlowLinear", "ReLU", "SlowLinear", "ReLU", "SlowLinear"]
    straight = perceptron(4, 2, relu=False).double()
    a, b = noise(4), noise(4, seed=1)
    zero = straight(torch.zeros(4, dtype=F64))
    torch.testing.assert_close(straight(a + b) - zero, straight(a) + straight(b) - 2 * zero)
    assert [m.rate for m in perceptron(4, 2, rate=0.1) if isinstance(m, SlowLinear)] == [0.1] * 3
    with pytest.raises(ValueError, match="got layers=0"):
        perceptron(4, 2, 0)


def test_which_layers_are_slow() -> None:
    def rates(net: DecoderLayer) -> set[str]:
        return {n.split(".")[0] for n, m in net.named_modules() if isinstance(m, SlowLinear) and m.rate != 1}

    assert rates(layer()) == {"cross", "move"}
    assert rates(layer(slow_references=False)) == {"cross"}
    with pytest.raises(ValueError, match="got update='jump', expected 'logit' or 'add'"):
        Layer(update="jump")
