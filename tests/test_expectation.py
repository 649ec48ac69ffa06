"""Chapter 4, the transform: by hand, against a plain implementation with autograd, in half precision, on bad maps."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from coordreg.coords import centres
from coordreg.expectation import RECTIFIERS, Rectified, Softmax, expectation, marginals, moments, soft_argmax

B, J = 2, 3
SIZES = {"1 axis": (6,), "2 axes": (5, 4), "3 axes": (3, 5, 4)}
ANY_SIZE = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])


def logits(size: tuple[int, ...], seed: int = 0, sharp: float = 2.0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return sharp * torch.randn(B, J, *size, generator=g, dtype=torch.float64)


def positive(size: tuple[int, ...], seed: int = 0) -> Tensor:
    """Maps whose mass is anything but 1."""
    return 0.1 + torch.rand(B, J, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mesh(p: Tensor) -> Tensor:
    """Coordinates of every cell, x first: (d, *size)."""
    axes = torch.meshgrid(*[centres(n, dtype=p.dtype) for n in p.shape[2:]], indexing="ij")
    return torch.stack(axes[::-1])


def plain_mean(p: Tensor) -> Tensor:
    """The definition, with a product for every cell and axis."""
    return (p.unsqueeze(2) * mesh(p)).flatten(3).sum(-1) / p.flatten(2).sum(-1, keepdim=True)


def plain_variance(p: Tensor) -> Tensor:
    away = mesh(p) - plain_mean(p).view(*p.shape[:2], -1, *(1,) * (p.ndim - 2))
    return (p.unsqueeze(2) * away.square()).flatten(3).sum(-1) / p.flatten(2).sum(-1, keepdim=True)


def plain_softmax(z: Tensor) -> Tensor:
    e = (z - z.flatten(2).amax(-1).view(*z.shape[:2], *(1,) * (z.ndim - 2))).exp()
    return e / e.flatten(2).sum(-1).view(*z.shape[:2], *(1,) * (z.ndim - 2))


def gradient(f: Callable[[Tensor], Tensor], x: Tensor, along: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (found,) = torch.autograd.grad((f(x) * along).sum(), x)
    return found


# -- by hand ----------------------------------------------------------------------------------------------------------


def test_values_about_the_largest_cell_cancel() -> None:
    """5 x 5 cells have their centres at -0.8, -0.4, 0, 0.4, 0.8; a cross about cell (3, 1) has its mean there."""
    p = torch.zeros(1, 1, 5, 5)
    p[0, 0, 1, 3] = 0.6
    p[0, 0, 0, 3] = p[0, 0, 2, 3] = p[0, 0, 1, 2] = p[0, 0, 1, 4] = 0.1
    torch.testing.assert_close(expectation(p), torch.tensor([[[0.4, -0.4]]]))
    p[0, 0, 1, 4], p[0, 0, 1, 3] = 0.3, 0.4  # 0.2 of the mass one cell to the right: 0.2 * 0.4
    torch.testing.assert_close(expectation(p), torch.tensor([[[0.48, -0.4]]]))


def test_the_gradient_by_hand() -> None:
    """Logits 0 and ln 3: p = 1/4 and 3/4 at -1/2 and 1/2, mean 1/4, gradient p (x - mean) = -+3/16."""
    z = torch.tensor([[[0.0, math.log(3)]]], dtype=torch.float64)
    p, mean = soft_argmax(z)
    torch.testing.assert_close(p, torch.tensor([[[0.25, 0.75]]], dtype=torch.float64))
    torch.testing.assert_close(mean, torch.tensor([[[0.25]]], dtype=torch.float64))
    found = gradient(lambda x: soft_argmax(x)[1], z, torch.ones(1, 1, 1, dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor([[[-3 / 16, 3 / 16]]], dtype=torch.float64))


def test_marginals_by_hand() -> None:
    p = torch.tensor([[[[1.0, 2, 3], [4, 5, 6]]]])
    x, y = marginals(p)
    assert x.tolist() == [[[5, 7, 9]]]
    assert y.tolist() == [[[6, 15]]]
    x, y, z = marginals(torch.stack([p, 10 * p], 2))
    assert (x.tolist(), y.tolist(), z.tolist()) == ([[[55, 77, 99]]], [[[66, 165]]], [[[21, 210]]])
    (line,) = marginals(x)
    assert line.tolist() == [[[55, 77, 99]]]


@pytest.mark.parametrize("n", [1, 2, 7])
def test_mean_and_variance_of_a_uniform_map(n: int) -> None:
    """n equal cells have the variance (n^2 - 1) / 12 cells, times (2 / n)^2."""
    mean, variance = moments(torch.ones(B, J, n, 4, dtype=torch.float64))
    torch.testing.assert_close(mean, torch.zeros(B, J, 2, dtype=torch.float64), atol=1e-15, rtol=0)
    expected = torch.tensor([15 / 48, (n**2 - 1) / (3 * n**2)], dtype=torch.float64)
    torch.testing.assert_close(variance, expected.expand(B, J, 2))


# -- against the definition --------------------------------------------------------------------------------------------


@ANY_SIZE
def test_expectation_and_its_closed_gradient_against_the_definition(size: tuple[int, ...]) -> None:
    p, along = positive(size), logits((len(size),), 1)
    torch.testing.assert_close(expectation(p), plain_mean(p))
    torch.testing.assert_close(gradient(expectation, p, along), gradient(plain_mean, p, along))


@ANY_SIZE
def test_moments_and_their_gradient_against_the_definition(size: tuple[int, ...]) -> None:
    p, along = positive(size), logits((len(size),), 1)
    mean, variance = moments(p)
    torch.testing.assert_close(mean, plain_mean(p))
    torch.testing.assert_close(variance, plain_variance(p))
    torch.testing.assert_close(gradient(lambda x: moments(x)[1], p, along), gradient(plain_variance, p, along))


@ANY_SIZE
@pytest.mark.parametrize("of", ["mean", "maps", "both"])
def test_soft_argmax_and_its_closed_gradient_against_autograd(size: tuple[int, ...], of: str) -> None:
    z, along, weights = logits(size), logits((len(size),), 1), logits(size, 2)

    def total(maps: Tensor, mean: Tensor) -> Tensor:
        first, second = (mean * along).sum(), (maps.square() * weights).sum()
        return {"mean": first, "maps": second, "both": first + second}[of]

    def plain(x: Tensor) -> Tensor:
        return total(plain_softmax(x), plain_mean(plain_softmax(x)))

    one = torch.ones((), dtype=torch.float64)
    p, mean = soft_argmax(z)
    torch.testing.assert_close(p, plain_softmax(z))
    torch.testing.assert_close(mean, plain_mean(plain_softmax(z)))
    found = gradient(lambda x: total(*soft_argmax(x)), z, one)
    torch.testing.assert_close(found, gradient(plain, z, one))
    assert float(found.abs().max()) > 1e-3
    torch.testing.assert_close(found.flatten(2).sum(-1), torch.zeros(B, J, dtype=torch.float64), atol=1e-14, rtol=0)


@ANY_SIZE
def test_gradcheck(size: tuple[int, ...]) -> None:
    z, p = logits(size)[:, :2].requires_grad_(), positive(size)[:, :2].requires_grad_()
    assert torch.autograd.gradcheck(soft_argmax, (z,))
    assert torch.autograd.gradcheck(expectation, (p,))
    assert torch.autograd.gradcheck(moments, (p,))


@ANY_SIZE
@pytest.mark.parametrize("activation", [Softmax(), *map(Rectified, RECTIFIERS)], ids=str)
def test_activations_make_probabilities_with_the_gradient_of_the_definition(
    size: tuple[int, ...], activation: Softmax | Rectified
) -> None:
    z = logits(size)
    p = activation(z)
    assert p.shape == z.shape
    assert float(p.min()) >= 0
    torch.testing.assert_close(p.flatten(2).sum(-1), torch.ones(B, J, dtype=torch.float64))
    z[z.abs() < 0.05] = 0.3  # away from the bend of the rectifiers
    assert torch.autograd.gradcheck(lambda x: expectation(activation(x)), (z[:, :2].clone().requires_grad_(),))


def test_rectifiers_by_hand() -> None:
    z = torch.tensor([[[-1.0, 0.0, 3.0]]], dtype=torch.float64)
    torch.testing.assert_close(Rectified("abs")(z), torch.tensor([[[0.25, 0, 0.75]]], dtype=torch.float64))
    torch.testing.assert_close(Rectified("relu")(z), torch.tensor([[[0.0, 0, 1]]], dtype=torch.float64))
    s = torch.tensor([[[1 / (1 + math.e), 0.5, 1 / (1 + math.exp(-3))]]], dtype=torch.float64)
    torch.testing.assert_close(Rectified("sigmoid")(z), s / s.sum())


def test_an_unknown_rectifier_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Rectified: got rectifier='elu', expected one of abs, relu, sigmoid"):
        Rectified("elu")


def test_the_memory_layout_does_not_matter() -> None:
    z, along = logits((5, 4)), logits((2,), 1)
    last = z.to(memory_format=torch.channels_last)
    assert not last.is_contiguous()
    for ours in (lambda x: soft_argmax(x)[1], lambda x: expectation(x.square()), lambda x: expectation(Softmax()(x))):
        torch.testing.assert_close(ours(last), ours(z))
        torch.testing.assert_close(gradient(ours, last, along), gradient(ours, z, along))


# -- properties --------------------------------------------------------------------------------------------------------

SIZE = st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple)
SEED = st.integers(0, 2**20)


@settings(max_examples=40, deadline=None)
@given(SIZE, SEED, st.floats(0.01, 1e4))
def test_the_mean_lies_among_the_cells(size: tuple[int, ...], seed: int, sharp: float) -> None:
    """DSNT cannot say +-1: the outermost centres are 1/n inside."""
    _, mean = soft_argmax(logits(size, seed, sharp))
    most = 1 - 1 / torch.tensor(size[::-1], dtype=torch.float64)
    assert bool((mean.abs() <= most + 1e-12).all())


@settings(max_examples=40, deadline=None)
@given(SIZE, SEED, st.floats(-1e3, 1e3))
def test_a_constant_added_to_the_logits_changes_nothing(size: tuple[int, ...], seed: int, constant: float) -> None:
    z = logits(size, seed)
    for ours, theirs in zip(soft_argmax(z), soft_argmax(z + constant), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-11, rtol=1e-10)


@settings(max_examples=40, deadline=None)
@given(SEED, st.integers(-3, 3), st.integers(-2, 2), st.integers(-1, 1))
def test_a_blob_away_from_the_border_carries_its_mean_along(seed: int, dx: int, dy: int, dz: int) -> None:
    z = torch.full((B, J, 5, 7, 9), -1e4, dtype=torch.float64)
    z[:, :, 1:4, 2:5, 3:6] = logits((3, 3, 3), seed)
    moved = soft_argmax(z.roll((dz, dy, dx), (2, 3, 4)))[1] - soft_argmax(z)[1]
    expected = torch.tensor([2 * dx / 9, 2 * dy / 7, 2 * dz / 5], dtype=torch.float64)
    torch.testing.assert_close(moved, expected.expand(B, J, 3), atol=1e-12, rtol=0)


@settings(max_examples=30, deadline=None)
@given(SIZE, SEED, st.floats(1e-3, 1e3))
def test_the_mass_does_not_matter(size: tuple[int, ...], seed: int, mass: float) -> None:
    p = positive(size, seed)
    torch.testing.assert_close(expectation(mass * p), expectation(p))
    for ours, theirs in zip(moments(mass * p), moments(p), strict=True):
        torch.testing.assert_close(ours, theirs)


@ANY_SIZE
def test_a_mirrored_map_has_the_mirrored_mean(size: tuple[int, ...]) -> None:
    z = logits(size)
    mirror = torch.tensor([-1.0, *[1.0] * (len(size) - 1)], dtype=torch.float64)
    torch.testing.assert_close(soft_argmax(z.flip(-1))[1], soft_argmax(z)[1] * mirror)


# -- precision ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sharp", [1.0, 5.0])
def test_float32_in_a_volume_of_64_cubed(sharp: float) -> None:
    """Measured 1e-8 to 1e-7; a mean that is not divided by the mass is off by about 3e-6 where logits are sharp."""
    z = sharp * torch.randn(1, 2, 64, 64, 64, generator=torch.Generator().manual_seed(0))
    z[:, :, 50:, 50:, 50:] += 5  # away from the middle, where an error in the mass would not show
    exact = soft_argmax(z.double())[1]
    assert float(exact.abs().max()) > 0.3
    for found in (soft_argmax(z)[1], expectation(Softmax()(z))):
        assert found.dtype == torch.float32
        assert float((found.double() - exact).abs().max()) <= 1e-6


@HALVES
@pytest.mark.parametrize("activation", [Softmax(), *map(Rectified, RECTIFIERS)], ids=str)
def test_half_precision_is_computed_in_single(dtype: torch.dtype, activation: Softmax | Rectified) -> None:
    z = logits((16, 9)).to(dtype)
    p = activation(z)
    assert p.dtype == torch.float32
    torch.testing.assert_close(p, activation(z.float()), rtol=0, atol=0)
    found = gradient(lambda x: expectation(activation(x)), z, torch.ones(B, J, 2))
    assert found.dtype == dtype
    torch.testing.assert_close(
        found, gradient(lambda x: expectation(activation(x)), z.float(), torch.ones(B, J, 2)).to(dtype)
    )


@HALVES
def test_soft_argmax_of_half_precision_is_computed_in_single(dtype: torch.dtype) -> None:
    z = logits((16, 9)).to(dtype)
    for ours, theirs in zip(soft_argmax(z), soft_argmax(z.float()), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@ANY_SIZE
def test_autocast_loses_nothing(size: tuple[int, ...]) -> None:
    z, along = logits(size).float(), logits((len(size),), 1).float()
    p = plain_softmax(z)
    for f, x in ((lambda x: soft_argmax(x)[1], z), (expectation, p), (lambda x: moments(x)[1], p)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert (torch.ones(3, 3) @ torch.ones(3)).dtype == torch.bfloat16  # what it would do to the moments
            found, slope = f(x), gradient(f, x, along)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, f(x), rtol=0, atol=0)
        torch.testing.assert_close(slope, gradient(f, x, along), rtol=0, atol=0)


# -- bad input ---------------------------------------------------------------------------------------------------------


@ANY_SIZE
@pytest.mark.parametrize("rectifier", ["relu", "abs"])
def test_a_dead_map_is_in_the_middle_and_passes_no_gradient(size: tuple[int, ...], rectifier: str) -> None:
    z = logits(size)
    z[1, 2] = 0.0 if rectifier == "abs" else -z[1, 2].abs()
    p = Rectified(rectifier)(z)
    torch.testing.assert_close(p[1, 2], torch.full(size, 1 / math.prod(size), dtype=torch.float64))
    assert expectation(p)[1, 2].abs().max() < 1e-15
    along = torch.ones(B, J, len(size), dtype=torch.float64)
    found = gradient(lambda x: expectation(Rectified(rectifier)(x)), z, along)
    assert bool(torch.isfinite(found).all())
    assert not found[1, 2].any()
    assert found[0].any()


@ANY_SIZE
def test_the_mean_of_zeros(size: tuple[int, ...]) -> None:
    p = positive(size)
    p[0, 1] = 0
    assert expectation(p)[0, 1].tolist() == [0.0] * len(size)
    found = gradient(expectation, p, torch.ones(B, J, len(size), dtype=torch.float64))
    assert not found[0, 1].any()
    torch.testing.assert_close(found[1], gradient(plain_mean, p[1:], torch.ones(1, J, len(size))).squeeze(0))
    mean, variance = moments(p)
    assert not mean[0, 1].any()
    assert not variance[0, 1].any()


@ANY_SIZE
@pytest.mark.parametrize("bad", [math.nan, math.inf], ids=["nan", "inf"])
def test_a_map_that_is_not_finite_has_no_mean(size: tuple[int, ...], bad: float) -> None:
    """It must not pass for a map of zeros: a diverged network would look like one that predicts the middle."""
    z = logits(size)
    z[(1, 2, *(0 for _ in size))] = bad
    fine = torch.ones(B, J, dtype=torch.bool)
    fine[1, 2] = False
    for mean in (
        soft_argmax(z)[1],
        expectation(Softmax()(z)),
        expectation(Rectified("abs")(z)),
        expectation(Rectified("relu")(z)),
        expectation(z.abs()),
        moments(z.abs())[1],
    ):
        assert torch.equal(torch.isfinite(mean).all(-1), fine)


def test_minus_infinity_is_probability_zero() -> None:
    z = logits((5, 4))
    z[..., 2:] = -math.inf
    p, mean = soft_argmax(z)
    torch.testing.assert_close(p[..., :2], plain_softmax(z[..., :2]))
    assert not p[..., 2:].any()
    assert bool((mean[..., 0] < 0).all())
    assert bool(torch.isfinite(gradient(lambda x: soft_argmax(x)[1], z, torch.ones(B, J, 2))).all())


@pytest.mark.parametrize("function", [expectation, soft_argmax, moments])
def test_maps_without_their_axes_are_refused(function: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(
        ValueError, match=r"got a float32 tensor of shape \(5, 4\), expected .*\(B, J, H, W\).*\[None\]"
    ):
        function(torch.zeros(5, 4))
    with pytest.raises(ValueError, match=function.__name__ + r": got a int64 tensor of shape \(1, 2, 5, 4\)"):
        function.__wrapped__(torch.zeros(1, 2, 5, 4, dtype=torch.long))  # type: ignore[attr-defined]
