"""Stacked hourglasses: published parameter counts, the recursion by hand, what is handed on, volumes, first weights."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from coordreg.backbones.hourglass import Hourglass, Hourglasses, HourglassStem, Residual
from coordreg.backbones.resnet import parameters
from coordreg.coords import Batch, Labels
from coordreg.heatmap import MSE, Argmax, Gaussian, Heatmap
from coordreg.method import Estimator, Staged, Stages
from coordreg.spec import describe, rebuild, spec

B, J, C = 2, 3, 8
#: (joints, stacks) -> parameters of stem and stacks at width 256.
COUNTS = {
    (16, 1): 3_586_960,
    (16, 2): 6_730_912,
    (16, 4): 13_018_816,
    (17, 4): 13_020_612,
    (16, 8): 25_594_624,
    (17, 8): 25_598_472,
}


def residual_count(into: int, out: int) -> int:
    """Three normalisations, three convolutions with biases, perhaps a fourth."""
    half = out // 2
    body = 2 * into + (into + 1) * half + 2 * half + (9 * half + 1) * half + 2 * half + (half + 1) * out
    return body + ((into + 1) * out if into != out else 0)


# -- counts and sizes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("joints", "stacks"), COUNTS)
def test_published_number_of_parameters(joints: int, stacks: int) -> None:
    with torch.device("meta"):
        stem = HourglassStem()
        found = parameters(stem) + parameters(Hourglasses(stem.channels, joints, stacks))
        assert found == COUNTS[joints, stacks]
        assert parameters(stem) - parameters(HourglassStem(original=True)) == 160_512


@pytest.mark.parametrize("depth", [1, 3])
def test_parameters_of_a_narrow_one_by_formula(depth: int) -> None:
    bins = (2, 5)
    inner = (3 * depth + 1) * residual_count(C, C)
    expected = sum(inner + residual_count(C, C) + (C + 1) * C + 2 * C + (C + 1) * J * d for d in bins)
    expected += (C + 1) * C + (J * 2 + 1) * C  # what the first stack hands on
    assert parameters(Hourglasses(C, J, 2, depth, bins)) == expected
    stem = (3 * 49 + 1) * 4 + 2 * 4 + residual_count(4, 8) + residual_count(8, 16) + residual_count(16, 16)
    assert parameters(HourglassStem(16)) == stem


def test_the_paper_sizes() -> None:
    """256 px in, 64 px maps out, from every stack."""
    with torch.device("meta"):
        outputs = Hourglasses(256, 16, 3)(HourglassStem()(torch.empty(2, 3, 256, 192)))
    assert [tuple(o.shape) for o in outputs] == [(2, 16, 64, 48)] * 3


@pytest.mark.parametrize(("depth", "size"), [(4, (64, 64)), (3, (64, 96)), (2, (48, 16))])
@pytest.mark.parametrize("original", [False, True])
def test_a_narrow_one_on_small_pictures(depth: int, size: tuple[int, int], original: bool) -> None:
    stem = HourglassStem(16, original=original)
    outputs = Hourglasses(stem.channels, J, 3, depth)(stem(torch.zeros(B, 3, *size)))
    assert [tuple(o.shape) for o in outputs] == [(B, J, size[0] // 4, size[1] // 4)] * 3


# -- what it computes -------------------------------------------------------------------------------------------------


def silence(module: nn.Module) -> None:
    """Turn every residual into the identity: its body gives 0."""
    for m in module.modules():
        if isinstance(m, Residual):
            last = m.body[-1]
            assert isinstance(last, nn.Conv2d)
            assert last.bias is not None
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)


def slow(x: Tensor, depth: int) -> Tensor:
    """An hourglass of identities, cell by cell: x plus the maximum of its 2 x 2 block, itself so treated."""
    if depth == 0:
        return x
    height, width = x.shape
    low = torch.empty(height // 2, width // 2)
    for r in range(height // 2):
        for c in range(width // 2):
            low[r, c] = max(float(x[2 * r + i, 2 * c + j]) for i in (0, 1) for j in (0, 1))
    low, out = slow(low, depth - 1), x.clone()
    for r in range(height):
        for c in range(width):
            out[r, c] += low[r // 2, c // 2]
    return out


@pytest.mark.parametrize(("depth", "size"), [(1, (2, 6)), (2, (4, 12)), (3, (8, 16))])
def test_the_recursion_by_hand(depth: int, size: tuple[int, int], generator: torch.Generator) -> None:
    network = Hourglass(4, depth)
    silence(network)
    x = torch.randn(B, 4, *size, generator=generator)
    with torch.no_grad():
        found = network(x)
    for b in range(B):
        for c in range(4):
            torch.testing.assert_close(found[b, c], slow(x[b, c], depth))


def test_a_residual_is_pre_activation(generator: torch.Generator) -> None:
    """x passes with its sign; the body is normalise, rectify, convolve, three times."""
    block = Residual(6, 6).eval()
    x = torch.randn(B, 6, 5, 3, generator=generator)
    n1, _, c1, n2, _, c2, n3, _, c3 = block.body
    with torch.no_grad():
        expected = x + c3(n3(c2(n2(c1(n1(x).relu())).relu())).relu())
        torch.testing.assert_close(block(x), expected)
        assert [c.kernel_size[0] for c in (c1, c2, c3)] == [1, 3, 1]
        assert bool((block(x) < 0).any())
        silence(block)
        assert torch.equal(block(x), x)


def test_what_the_next_stack_starts_from(generator: torch.Generator) -> None:
    """Stack 2 repeats stack 1 when nothing is handed on; then x + 1x1(features) + 1x1(maps), by hand."""
    network = Hourglasses(C, J, 2, 2).eval()
    for parts in (network.hourglass, network.features, network.final):
        parts[1].load_state_dict(parts[0].state_dict())
    x = torch.randn(B, C, 8, 12, generator=generator)
    features, maps = network.pass_features[0], network.pass_maps[0]
    kept = {m: (m.weight.detach().clone(), m.bias.detach().clone()) for m in (features, maps)}

    def only(*on: nn.Module) -> list[Tensor]:
        with torch.no_grad():
            for m, (weight, bias) in kept.items():
                m.weight.copy_(weight if m in on else torch.zeros_like(weight))
                m.bias.copy_(bias if m in on else torch.zeros_like(bias))
            return network(x)

    first, second = only()
    assert torch.equal(first, second)
    with torch.no_grad():
        found = network.features[0](network.hourglass[0](x))
        add = {m: torch.einsum("oi,bihw->bohw", w[:, :, 0, 0], i) + b[:, None, None]
               for (m, (w, b)), i in zip(kept.items(), (found, first), strict=True)}  # fmt: skip
        for on in ((features,), (maps,), (features, maps)):
            start = x + torch.stack([add[m] for m in on]).sum(0)
            expected = network.final[0](network.features[0](network.hourglass[0](start)))
            again, after = only(*on)
            assert torch.equal(again, first)
            torch.testing.assert_close(after, expected)
            assert not torch.allclose(after, first, atol=1e-4)


def test_volumes_are_joint_major(generator: torch.Generator) -> None:
    """The same weights as a flat network of J x D joints; channel j D + d is joint j at depth d."""
    torch.manual_seed(0)
    flat, deep = Hourglasses(C, J * 5, 1, 2).eval(), Hourglasses(C, J, 1, 2, bins=(5,)).eval()
    deep.load_state_dict(flat.state_dict())
    x = torch.randn(B, C, 4, 8, generator=generator)
    with torch.no_grad():
        (maps,), (volumes,) = flat(x), deep(x)
    assert volumes.shape == (B, J, 5, 4, 8)
    for j in range(J):
        for d in range(5):
            assert torch.equal(volumes[:, j, d], maps[:, j * 5 + d])


def test_table_8s_two_stages() -> None:
    """d1 = 1, d2 = 64: a volume of one layer is a volume all the same."""
    outputs = Hourglasses(C, J, 2, 1, bins=(1, 64))(torch.zeros(B, C, 2, 4))
    assert [tuple(o.shape) for o in outputs] == [(B, J, 1, 2, 4), (B, J, 64, 2, 4)]


@pytest.mark.parametrize("bins", [(), (1, 4, 2)])
@pytest.mark.parametrize("init", ["default", "normal"])
def test_gradients_reach_every_parameter(bins: tuple[int, ...], init: str, generator: torch.Generator) -> None:
    """Also in float64 from the very small numbers of the "normal" start."""
    torch.manual_seed(0)
    stem, network = HourglassStem(16, init).double(), Hourglasses(16, J, 3, 2, bins, init).double()
    outputs = network(stem(torch.randn(B, 3, 32, 48, generator=generator, dtype=torch.float64)))
    sum((o - 1).square().mean() for o in outputs).backward()
    for name, p in [*stem.named_parameters(), *network.named_parameters()]:
        assert p.grad is not None, name
        if p.ndim == 4:  # a bias before a normalisation has none: its mean is taken off again
            assert bool((p.grad != 0).any()), name


def test_the_first_stack_learns_from_the_last(generator: torch.Generator) -> None:
    network = Hourglasses(C, J, 2, 2)
    network(torch.randn(B, C, 8, 4, generator=generator))[1].square().mean().backward()
    for module in (network.final[0], network.pass_maps[0], network.pass_features[0], network.hourglass[0].keep.body[2]):
        assert module.weight.grad is not None
        assert bool((module.weight.grad != 0).any())


# -- initialisation ---------------------------------------------------------------------------------------------------


def test_initialisation() -> None:
    """ "normal" is N(0, 0.001) with zero biases; "default" is what a bare torch convolution draws."""
    torch.manual_seed(0)
    for make in (lambda init: HourglassStem(64, init), lambda init: Hourglasses(64, 16, 2, 1, init=init)):
        for init in ("default", "normal"):
            for m in make(init).modules():
                if isinstance(m, nn.BatchNorm2d):
                    assert bool((m.weight == 1).all())
                if not isinstance(m, nn.Conv2d):
                    continue
                assert m.bias is not None
                fan = m.in_channels * m.kernel_size[0] ** 2
                std = 0.001 if init == "normal" else (3 * fan) ** -0.5  # uniform up to 1/sqrt(fan)
                assert float(m.weight.detach().std()) == pytest.approx(std, rel=0.12)
                assert bool((m.bias == 0).all()) == (init == "normal")


# -- in its place -----------------------------------------------------------------------------------------------------


def test_as_an_estimator(generator: torch.Generator) -> None:
    """Stem, stacks and a staged method: loss of every stack, points of the last, flip test, description."""
    described = spec(
        Estimator,
        backbone=spec(HourglassStem, width=16),
        head=spec(Hourglasses, channels=16, joints=J, stacks=2, depth=2),
        method=spec(Staged, method=spec(Heatmap, target=Gaussian(sigma=1.0), loss=MSE(), decoder=Argmax())),
    )
    estimator = rebuild(describe(described)).build()
    assert estimator.head.produces is Stages
    coords = torch.rand(B, J, 2, generator=generator) - 0.5
    images = torch.rand(B, 3, 32, 48, generator=generator)
    visible = torch.ones(B, J, dtype=torch.bool)
    eye = torch.eye(2, 3).repeat(B, 1, 1)
    batch = Batch(images, Labels(coords, torch.ones(B, J, 2)), visible, torch.ones(B), eye, None)
    loss = estimator.loss(batch)
    assert set(loss) == {"stage0", "stage1", "loss"}
    torch.testing.assert_close(loss["loss"], loss["stage0"] + loss["stage1"])
    assert estimator.predict(images, flip=((0, 2),)).coords.shape == (B, J, 2)
    with pytest.raises(ValueError, match="reads Maps but the head Hourglasses produces Stages"):
        Estimator(estimator.backbone, estimator.head, estimator.method.method)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HourglassStem(20), "got width=20, expected a multiple of 8"),
        (lambda: HourglassStem(0), "got width=0"),
        (lambda: HourglassStem(16, "he"), "HourglassStem: got init='he', expected one of default, normal"),
        (lambda: Hourglasses(8, 3, init="zero"), "Hourglasses: got init='zero'"),
        (lambda: Hourglasses(7, 3), "got channels=7, expected an even number"),
        (lambda: Hourglasses(8, 0), "got joints=0 and depth=4"),
        (lambda: Hourglasses(8, 3, depth=0), "got joints=3 and depth=0"),
        (lambda: Hourglasses(8, 3, stacks=0), "got 0 stages, expected at least 1"),
        (
            lambda: Hourglasses(8, 3, 2, bins=(64,)),
            r"bins=\(64,\) for 2 stages, .* such as \(1, 64\), or \(\) for flat",
        ),
        (lambda: Hourglasses(8, 3, 2, bins=(0, 64)), r"bins=\(0, 64\) for 2 stages, expected one positive number"),
        (
            lambda: Hourglasses(8, 3, 1, 3)(torch.zeros(2, 8, 16, 12)),
            r"map of 16 x 12 cells, expected multiples of 8 to halve it 3 times; use another image size",
        ),
        (
            lambda: Hourglasses(8, 3, 1, 1)(torch.zeros(2, 6, 4, 2)),
            "features of 6 channels, expected 8; give the head the stem's `channels`",
        ),
    ],
)
def test_bad_input_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
