"""Chapter 7, what a residual is distributed like: bases and the flow, by hand, on grids and by an independent loop."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from coordreg.flow import Base, Laplace, Mixed, Normal, RealNVP, log_s
from coordreg.spec import describe, rebuild, spec

F64 = torch.float64
BASES: tuple[Base, ...] = (Laplace(), Normal(), Mixed())
EACH = pytest.mark.parametrize("base", BASES, ids=str)


def made(dims: int = 2, seed: int = 0, gain: float | None = 1.0, **more: float) -> RealNVP:
    """A flow with drawn weights; gain 1 bends space visibly."""
    torch.manual_seed(seed)
    flow = RealNVP(dims, gain=gain, **more)  # type: ignore[arg-type]
    for bias in flow.biases:
        nn.init.uniform_(bias, -0.2, 0.2)
    return flow


def points(n: int, dims: int, seed: int = 1, dtype: torch.dtype = F64) -> Tensor:
    return 1.5 * torch.randn(n, dims, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def grid(dims: int, n: int, reach: float) -> tuple[Tensor, float]:
    """The middles of n^dims cells over [-reach, reach], and the volume of a cell."""
    line = (torch.arange(n) + 0.5) * (2 * reach / n) - reach
    return torch.cartesian_prod(*[line] * dims), (2 * reach / n) ** dims


# -- bases -------------------------------------------------------------------------------------------------------------


def test_bases_by_hand() -> None:
    e = torch.tensor([0.0, -2.0, 0.5], dtype=F64)
    expected: dict[Base, list[float]] = {
        Laplace(): [0.5, 0.5 * math.exp(-2), 0.5 * math.exp(-0.5)],
        Normal(): [0.3989422804, 0.3989422804 * math.exp(-2), 0.3989422804 * math.exp(-0.125)],
        Mixed(): [0.3989422804, 0.3989422804 * math.exp(-1.4142135624), 0.3989422804 * math.exp(-0.3535533906)],
    }
    for base, values in expected.items():
        torch.testing.assert_close(base(e).exp(), torch.tensor(values, dtype=F64))
    assert Mixed().mass == pytest.approx(1.1283791671)


@EACH
def test_what_bases_integrate_to(base: Base) -> None:
    cells, volume = grid(1, 200_001, 30.0)
    assert float(base(cells.double()).exp().sum()) * volume == pytest.approx(base.mass, abs=1e-6)


# -- the flow ----------------------------------------------------------------------------------------------------------


def test_the_published_size_and_masks() -> None:
    assert sum(p.numel() for p in RealNVP().parameters()) == 53_784
    assert RealNVP().masks.tolist() == [[0, 1], [1, 0]] * 3
    assert RealNVP(3).masks.tolist() == [[0, 0, 1], [1, 1, 0]] * 3
    assert [tuple(p.shape) for p in RealNVP(3).weights] == [(6, 2, 3, 64), (6, 2, 64, 64), (6, 2, 64, 3)]
    assert len(RealNVP().state_dict()) == 6


def test_initial_weights_are_torchs_own() -> None:
    """Uniform up to 1 / sqrt(inputs), weights and biases, as a linear layer draws them."""
    torch.manual_seed(0)
    flow = RealNVP()
    for k, inputs in enumerate((2, 64, 64)):
        for drawn in (flow.weights[k], flow.biases[k]):
            assert 0.8 * inputs**-0.5 < float(drawn.detach().abs().max()) <= inputs**-0.5
    assert not any(bool(bias.any()) for bias in RealNVP(gain=1.0).biases)


def slow_log_prob(flow: RealNVP, x: list[float]) -> float:
    """One point with lists and math alone, from the definition of a coupling."""

    def network(i: int, which: int, v: list[float]) -> list[float]:
        for k in range(3):
            v = [h if h > 0 or not k else 0.01 * h for h in v]
            weight, bias = flow.weights[k][i, which].T.tolist(), flow.biases[k][i, which, 0].tolist()
            v = [sum(w * h for w, h in zip(row, v, strict=True)) + b for row, b in zip(weight, bias, strict=True)]
        return v

    total, last = 0.0, flow.dims - 1
    for i in range(5, -1, -1):
        passes = [a == last for a in range(flow.dims)] if i % 2 == 0 else [a != last for a in range(flow.dims)]
        seen = [v if p else 0.0 for v, p in zip(x, passes, strict=True)]
        s, t = network(i, 0, seen), network(i, 1, seen)
        for a in range(flow.dims):
            if not passes[a]:
                x = [*x[:a], (x[a] - t[a]) / math.exp(math.tanh(s[a])), *x[a + 1 :]]
                total -= math.tanh(s[a])
    return total - sum((v - flow.prior) ** 2 for v in x) / 2 - flow.dims / 2 * math.log(2 * math.pi)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_density_against_a_slow_loop(dims: int) -> None:
    flow, x = made(dims, prior=0.5).double(), points(7, dims)
    expected = torch.tensor([slow_log_prob(flow, row) for row in x.tolist()], dtype=F64)
    torch.testing.assert_close(flow.log_prob(x), expected)
    torch.testing.assert_close(flow.log_prob(x.view(7, 1, dims)), expected.view(7, 1))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**20), st.integers(2, 4), st.floats(0.01, 2.0))
def test_both_directions_are_inverse(seed: int, dims: int, gain: float) -> None:
    flow, x = made(dims, seed, gain, hidden=8).double(), points(5, dims, seed)
    torch.testing.assert_close(flow(flow.inverse(x)[0]), x)
    torch.testing.assert_close(flow.inverse(flow(x))[0], x)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_log_determinant_is_that_of_the_jacobian(dims: int) -> None:
    flow, x = made(dims).double(), points(6, dims)
    _, found = flow.inverse(x)
    for row, value in zip(x, found, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda v: flow.inverse(v)[0], row)
        assert float(value.detach()) == pytest.approx(float(jacobian.det().abs().log()), abs=1e-9)
    assert float(found.detach().abs().max()) > 0.1


@pytest.mark.parametrize(("gain", "prior"), [(None, 0.0), (0.01, 0.5), (1.0, 0.0), (1.2, 0.5)])
def test_the_density_integrates_to_one(gain: float | None, prior: float) -> None:
    flow = made(2, 3, gain, prior=prior)
    cells, volume = grid(2, 280, 14.0)
    with torch.no_grad():
        assert float(flow.log_prob(cells).exp().sum()) * volume == pytest.approx(1, abs=1e-3)


def test_a_density_in_three_dimensions_integrates_to_one() -> None:
    cells, volume = grid(3, 50, 8.0)
    with torch.no_grad():
        assert float(made(3, 0, 0.8, hidden=16).log_prob(cells).exp().sum()) * volume == pytest.approx(1, abs=1e-3)


def test_a_small_gain_starts_close_to_the_identity() -> None:
    torch.manual_seed(0)
    near, x = RealNVP(gain=0.01), points(9, 2, dtype=torch.float32)
    torch.testing.assert_close(near(x), x, atol=1e-3, rtol=0)
    torch.testing.assert_close(near.log_prob(x), Normal()(x).sum(-1), atol=1e-3, rtol=0)
    assert float((RealNVP()(x) - x).detach().abs().max()) > 0.01


def test_half_precision_and_autocast_compute_in_single() -> None:
    flow, x = made(), points(9, 2, dtype=torch.float32)
    for dtype in (torch.float16, torch.bfloat16):
        found = flow.log_prob(x.to(dtype))
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, flow.log_prob(x.to(dtype).float()), rtol=0, atol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(flow.log_prob(x), made().log_prob(x), rtol=0, atol=0)
        torch.testing.assert_close(flow(x), made()(x), rtol=0, atol=0)
        constant = log_s(Laplace(), flow)
    torch.testing.assert_close(constant, log_s(Laplace(), flow), rtol=0, atol=0)
    halved = made().bfloat16()
    assert halved.log_prob(x).dtype == log_s(Normal(), halved).dtype == torch.float32
    torch.testing.assert_close(halved.log_prob(x), flow.log_prob(x), atol=0.3, rtol=0.05)


def test_far_residuals_are_finite_with_finite_gradients() -> None:
    flow = made()
    x = torch.tensor([[0.0, 0.0], [1e3, -1e3], [-1e4, 0.0], [0.0, 1e5]], requires_grad=True)
    value = flow.log_prob(x)
    value.sum().backward()
    assert x.grad is not None
    for found in (value, x.grad, *(p.grad for p in flow.parameters())):
        assert found is not None
        assert bool(torch.isfinite(found).all())


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"dims": 1}, r"RealNVP: got dims=1, couplings=6, hidden=64, expected dims of at least 2"),
        ({"couplings": 0}, "got dims=2, couplings=0, hidden=64"),
        ({"hidden": 0}, "couplings=6, hidden=0, expected dims of at least 2 .* and at least 1 of the others"),
    ],
)
def test_flows_that_cannot_be_are_refused(knobs: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RealNVP(**knobs)  # type: ignore[arg-type]


def test_vectors_of_other_axes_are_refused() -> None:
    for call in (RealNVP(), RealNVP().inverse, RealNVP().log_prob):
        with pytest.raises(ValueError, match=r"RealNVP: got vectors of 3 axes, expected 2; make it with dims=3"):
            call(torch.zeros(4, 3))


def test_a_flow_can_be_described() -> None:
    described = spec(RealNVP, dims=3, prior=0.5, gain=0.01)
    assert rebuild(describe(described)) == described
    assert described.build().dims == 3


# -- the constant ------------------------------------------------------------------------------------------------------


@EACH
@pytest.mark.parametrize(("gain", "prior"), [(None, 0.0), (1.0, 0.5)])
def test_s_makes_the_product_integrate_to_one(base: Base, gain: float | None, prior: float) -> None:
    flow = made(2, 3, gain, prior=prior)
    cells, volume = grid(2, 280, 14.0)
    with torch.no_grad():
        product = base(cells).sum(-1) + flow.log_prob(cells)
        riemann = -math.log(float(product.exp().sum()) * volume)
        assert float(log_s(base, flow)) == pytest.approx(riemann, abs=0.02)
        assert float(log_s(base, flow, 90**2)) == pytest.approx(riemann, abs=5e-3)


def test_s_of_the_identity_by_hand() -> None:
    """Two normal densities of one axis overlap by 1 / (2 sqrt(pi)); in three dimensions by its cube."""
    flow = RealNVP(3, hidden=4, gain=1e-6)
    for nodes, tolerance in ((1000, 0.1), (27_000, 0.03)):
        assert log_s(Normal(), flow, nodes).item() == pytest.approx(3 * math.log(2 * math.sqrt(math.pi)), abs=tolerance)


def test_the_gradient_of_s_is_that_of_the_integral() -> None:
    flow = made(2, 3, hidden=8).double()
    cells, volume = grid(2, 200, 12.0)
    cells = cells.double()
    riemann = -((Laplace()(cells).sum(-1) + flow.log_prob(cells)).exp().sum() * volume).log()
    names, parameters = zip(*flow.named_parameters(), strict=True)
    expected = torch.autograd.grad(riemann, parameters)
    found = torch.autograd.grad(log_s(Laplace(), flow, 80**2), parameters)
    flat = [torch.cat([g.flatten() for g in gs]) for gs in (found, expected)]
    assert len(names) == 6
    assert float((flat[0] - flat[1]).norm() / flat[1].norm()) < 0.05
