"""Chapter 4, what is trained: distances, regularisers, the method and its rival, by hand and against dsntnn, kornia."""

import math

import dsntnn  # type: ignore[import-untyped]
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from coordreg.backbones.resnet import ConvHead, ResNet
from coordreg.coords import UNIT, Labels, flip_coords, flip_images, to_pixels
from coordreg.dsnt import (
    DSNT,
    JS,
    KL,
    Euclidean,
    FullyConnected,
    Mean,
    Part,
    Power,
    Regression,
    Regularises,
    Variance,
    known,
    log_gaussian,
    shares,
)
from coordreg.expectation import Rectified, Softmax, expectation
from coordreg.heatmap import Argmax
from coordreg.integral import PooledHead, VolumeHead
from coordreg.method import Estimator, Maps, Method, Vectors, Volumes
from coordreg.spec import describe, rebuild, spec

B, J, D, H, W = 2, 3, 4, 9, 7
PAIRS = ((0, 2),)
NAN = math.nan
REGULARISERS = (Variance(1.5), Variance(1.5, "cells"), KL(1.5), JS(1.5))
EACH = pytest.mark.parametrize("regulariser", REGULARISERS, ids=str)
BOTH = pytest.mark.parametrize("size", [(H, W), (D, H, W)], ids=["maps", "volumes"])
F64 = torch.float64


def logits(size: tuple[int, ...], seed: int = 0, sharp: float = 2.0) -> Tensor:
    return sharp * torch.randn(B, J, *size, generator=torch.Generator().manual_seed(seed), dtype=F64)


def labels(d: int, seed: int = 1) -> Labels:
    g = torch.Generator().manual_seed(seed)
    return Labels(1.6 * torch.rand(B, J, d, generator=g, dtype=F64) - 0.8, torch.ones(B, J, d, dtype=F64))


def one(coords: list[float], weight: list[float] | None = None) -> Labels:
    return Labels(torch.tensor([[coords]], dtype=F64), torch.tensor([[weight or [1.0] * len(coords)]], dtype=F64))


def gaussian(coords: Tensor, size: tuple[int, ...], sigma: float) -> Tensor:
    """Cell by cell from the definition, summing to 1."""
    out = torch.zeros(*coords.shape[:2], *size, dtype=F64)
    at = to_pixels(coords, size)
    for b in range(coords.shape[0]):
        for j in range(coords.shape[1]):
            for cell in torch.ones(size).nonzero().tolist():
                squared = sum((c - float(x)) ** 2 for c, x in zip(cell[::-1], at[b, j], strict=True))
                out[(b, j, *cell)] = math.exp(-squared / (2 * sigma**2))
    return out / out.flatten(2).sum(-1).view(*out.shape[:2], *(1,) * len(size))


def judged(regulariser: Regularises, p: Tensor, y: Labels) -> Tensor:
    return regulariser(p, p, y).value


def loss(method: Method, z: Tensor, y: Labels, part: str = "loss") -> tuple[Tensor, Tensor]:
    """A part of the loss and its gradient."""
    z = z.clone().requires_grad_()
    value = method.loss(z, y)[part]
    (slope,) = torch.autograd.grad(value, z)
    return value.detach(), slope


# -- parts and weights -------------------------------------------------------------------------------------------------


def test_the_mean_of_a_part() -> None:
    part = Part(torch.tensor([[1.0, NAN], [4.0, 10.0]]), torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    assert float(part.mean) == (1 + 2 + 5) / 2
    value = torch.tensor([[3.0, 2.0]], requires_grad=True)
    nothing = Part(value, torch.zeros(1, 2)).mean
    assert nothing.item() == 0
    nothing.backward()
    assert value.grad is not None
    assert not value.grad.any()
    assert float(Part(torch.tensor([[3.0]]), torch.tensor([[1e-6]])).mean) == pytest.approx(3)


def test_unlabelled_axes_are_put_at_zero() -> None:
    y = Labels(torch.tensor([[[0.5, NAN, 0.25], [math.inf, 0.1, 7.0]]]), torch.tensor([[[1.0, 0, 0.5], [0, 1, 1]]]))
    found = known(y)
    assert found.coords.tolist() == [[[0.5, 0, 0.25], [0, torch.tensor(0.1).item(), 7]]]
    assert found.weight is y.weight


def test_labels_that_cannot_be_used_are_refused() -> None:
    y = labels(3)
    y.coords[1, 2, 2] = NAN
    with pytest.raises(
        ValueError, match=r"labels: image 1, joint 2, axis z is not finite .*give unlabelled axes the w"
    ):
        known(y)
    with pytest.raises(ValueError, match=r"coords \(2, 3, 3\) and weight \(2, 3\), expected both \(B, J, d\); repeat"):
        known(Labels(y.coords, y.weight[..., 0]))
    with pytest.raises(ValueError, match=r"coords \(2, 3\) and weight \(2, 3\), expected both"):
        known(Labels(y.coords[..., 0], y.weight[..., 0]))


def test_shares_of_a_weight() -> None:
    share, joint = shares(torch.tensor([[[1.0, 1, 0], [0.5, 0.25, 0], [0, 0, 0]]]))
    assert share.tolist() == [[[1, 1, 0], [1, 0.5, 0], [0, 0, 0]]]
    assert joint.tolist() == [[1, 0.5, 0]]


# -- distances ---------------------------------------------------------------------------------------------------------


def test_distances_by_hand() -> None:
    mean, y = torch.tensor([[[0.4, -0.1, 0.9]]], dtype=F64), one([0.1, 0.3, 0.0])
    assert float(Euclidean()(mean[..., :2], one([0.1, 0.3])).value) == pytest.approx(0.5)
    assert float(Euclidean()(mean, y).value) == pytest.approx(math.sqrt(0.25 + 0.81))
    assert float(Power(1)(mean, y).value) == pytest.approx(0.3 + 0.4 + 0.9)
    assert float(Power(2)(mean, y).value) == pytest.approx(0.09 + 0.16 + 0.81)
    flat = one([0.1, 0.3, 0.0], [1, 1, 0])  # depth unlabelled
    assert float(Euclidean()(mean, flat).value) == pytest.approx(0.5)
    assert float(Power(1)(mean, flat).value) == pytest.approx(0.7)
    assert float(Power(2)(mean, flat).value) == pytest.approx(0.25)


def test_the_euclidean_loss_is_dsntnns() -> None:
    mean, y = labels(2, 5).coords, labels(2)
    torch.testing.assert_close(Euclidean()(mean, y).value, dsntnn.euclidean_losses(mean, y.coords))


@pytest.mark.parametrize("distance", [Euclidean(), Power(1), Power(2)], ids=str)
def test_distances_have_no_gradient_at_zero_error_and_a_finite_one_next_to_it(distance: Euclidean | Power) -> None:
    y = labels(3)
    mean = y.coords.clone()
    mean[0, 1] += torch.tensor([1e-200, -1e-30, 0.0])
    mean.requires_grad_()
    part = distance(mean, y)
    (found,) = torch.autograd.grad(part.value.sum(), mean)
    assert part.value[1].tolist() == [0.0] * J
    assert not found[1].any()
    assert bool(torch.isfinite(found).all())


def test_the_euclidean_gradient_has_length_one() -> None:
    """Not squared: a joint far away pulls as hard as a close one."""
    mean = labels(2, 5).coords.requires_grad_()
    (found,) = torch.autograd.grad(Euclidean()(mean, labels(2)).value.sum(), mean)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(B, J, dtype=F64))


def test_another_power_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Power: got power=3, expected 1 \(L1\) or 2 \(L2\)"):
        Power(3)


# -- regularisers ------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_the_gaussian_against_a_slow_loop_and_dsntnn(size: tuple[int, ...], sigma: float) -> None:
    y = labels(len(size))
    found = log_gaussian(y.coords, size, sigma).exp()
    torch.testing.assert_close(found, gaussian(y.coords, size, sigma), atol=2e-24, rtol=1e-9)
    torch.testing.assert_close(found, dsntnn.make_gauss(y.coords, size, sigma), atol=2e-24, rtol=1e-9)
    torch.testing.assert_close(found.flatten(2).sum(-1), torch.ones(B, J, dtype=F64))
    assert float(log_gaussian(y.coords, size, 0.1).min()) == pytest.approx(math.log(1e-24))


@BOTH
def test_variance_in_both_units(size: tuple[int, ...]) -> None:
    """A uniform map of n cells has the variance (n^2 - 1) / 12 squared cells."""
    p = torch.full((B, J, *size), 1 / math.prod(size), dtype=F64)
    cells = sum(((n**2 - 1) / 12 - 4) ** 2 for n in size)
    paper = sum((((n**2 - 1) / 12 - 4) * (2 / n) ** 2) ** 2 for n in size)
    y = labels(len(size))
    torch.testing.assert_close(judged(Variance(2.0, "cells"), p, y), torch.full((B, J), cells, dtype=F64))
    torch.testing.assert_close(judged(Variance(2.0), p, y), torch.full((B, J), paper, dtype=F64))


@pytest.mark.parametrize("n", [4, 28])
def test_the_units_of_the_variance_differ_by_a_fixed_factor(n: int) -> None:
    """(n / 2)^4: the paper's coefficient 100 does not carry over to the published code."""
    p, y = Softmax()(logits((n, n))), labels(2)
    ours, published = judged(Variance(1.0), p, y), judged(Variance(1.0, "cells"), p, y)
    torch.testing.assert_close(published, ours * (n / 2) ** 4)


@BOTH
@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_regularisers_are_dsntnns(size: tuple[int, ...], sigma: float) -> None:
    p, y = Softmax()(logits(size)), labels(len(size))
    theirs: dict[Regularises, Tensor] = {
        Variance(sigma, "cells"): dsntnn.variance_reg_losses(p, sigma),
        KL(sigma): dsntnn.kl_reg_losses(p, y.coords, sigma),
        JS(sigma): dsntnn.js_reg_losses(p, y.coords, sigma),
    }
    for regulariser, expected in theirs.items():
        torch.testing.assert_close(judged(regulariser, p, y), expected, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(Mean()(p).coords, dsntnn.dsnt(p))


def test_the_transform_is_kornias_in_its_own_convention() -> None:
    """Theirs has -1 and 1 at the outermost centres; in cells the two agree."""
    from kornia.geometry.subpix import spatial_expectation2d

    p = Softmax()(logits((H, W)))
    theirs = to_pixels(spatial_expectation2d(p, normalized_coordinates=True), (H, W), UNIT)
    torch.testing.assert_close(to_pixels(expectation(p), (H, W)), theirs)


@BOTH
def test_divergences_against_a_slow_loop(size: tuple[int, ...]) -> None:
    p, y = Softmax()(logits(size)), labels(len(size))
    q = gaussian(y.coords, size, 1.5)
    kl, js = torch.zeros(B, J, dtype=F64), torch.zeros(B, J, dtype=F64)
    for b in range(B):
        for j in range(J):
            for u, v in zip(p[b, j].flatten().tolist(), q[b, j].flatten().tolist(), strict=True):
                m = (u + v) / 2
                kl[b, j] += u * math.log(u / max(v, 1e-24))
                js[b, j] += (u * math.log(u / m) + v * math.log(max(v, 1e-24) / m)) / 2
    torch.testing.assert_close(judged(KL(1.5), p, y), kl)
    torch.testing.assert_close(judged(JS(1.5), p, y), js)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**20), st.floats(1e-2, 1e5), st.floats(0.3, 3), st.floats(-4, 4))
def test_js_lies_between_0_and_ln_2(seed: int, sharp: float, sigma: float, x: float) -> None:
    p, y = Softmax()(logits((H, W), seed, sharp)), labels(2, seed)
    y.coords[..., 0] = x
    value = judged(JS(sigma), p, y)
    assert bool(((value > -1e-12) & (value < math.log(2) + 1e-12)).all())
    assert bool((judged(KL(sigma), p, y) > -1e-9).all())


def test_js_is_symmetric_and_kl_is_not() -> None:
    """Of two Gaussians, one is the map and the other the target; near a border, or the two KL would be equal too."""
    a, b = one([-0.8, 0.1]), one([0.0, -0.5])
    p, q = (log_gaussian(y.coords, (H, W), 1.5).exp() for y in (a, b))
    torch.testing.assert_close(judged(JS(1.5), p, b), judged(JS(1.5), q, a))
    assert float((judged(KL(1.5), p, b) - judged(KL(1.5), q, a)).abs()) > 0.1


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
def test_divergences_vanish_at_equality_with_their_gradients(size: tuple[int, ...], dtype: torch.dtype) -> None:
    coords = labels(len(size)).coords.to(dtype)
    y, tiny = Labels(coords, torch.ones_like(coords)), 20 * torch.finfo(dtype).eps
    z = log_gaussian(coords, size, 1.5)
    for regulariser in (KL(1.5), JS(1.5)):
        value, slope = loss(DSNT(regulariser=regulariser, dims=len(size)), z, y, "regulariser")
        assert abs(float(value)) < tiny
        assert float(slope.abs().max()) < tiny


@BOTH
def test_the_variance_of_a_wide_gaussian_is_its_own(size: tuple[int, ...]) -> None:
    """On a grid large enough a Gaussian of width sigma loses nothing to Variance(sigma)."""
    size = tuple(3 * n + 12 for n in size)
    p = log_gaussian(torch.zeros(B, J, len(size), dtype=F64), size, 1.5).exp()
    y = labels(len(size))
    assert float(judged(Variance(1.5, "cells"), p, y).max()) < 1e-10
    assert float(judged(Variance(2.0, "cells"), p, y).min()) > 1


@EACH
@BOTH
@pytest.mark.parametrize("sharp", [0.0, 1e4])
@pytest.mark.parametrize("far", [0.5, 30.0, -1e4])
def test_regularisers_are_finite_at_the_ends(
    regulariser: Regularises, size: tuple[int, ...], sharp: float, far: float
) -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32, F64):
        z = logits(size, sharp=sharp).to(dtype)
        coords = torch.full((B, J, len(size)), far)
        method = DSNT(regulariser=regulariser, dims=len(size))
        value, slope = loss(method, z, Labels(coords, torch.ones_like(coords)))
        assert math.isfinite(float(value))
        assert slope.dtype == dtype
        assert bool(torch.isfinite(slope).all())


@EACH
@pytest.mark.parametrize("activation", [Softmax(), Rectified("abs"), Rectified("sigmoid")], ids=str)
def test_half_precision_and_autocast_give_the_loss_of_single(regulariser: Regularises, activation: Softmax) -> None:
    method = DSNT(regulariser=regulariser, activation=activation)
    y = Labels(*(t.float() for t in labels(2)))
    for dtype in (torch.float16, torch.bfloat16):
        z = logits((H, W)).to(dtype)
        value, slope = loss(method, z, y)
        expected, wanted = loss(method, z.float(), y)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected, rtol=0, atol=0)
        torch.testing.assert_close(slope, wanted.to(dtype))
    z = logits((H, W)).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(method, z, y)
    for ours, theirs in zip(found, loss(method, z, y), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("make", [Variance, KL, JS])
def test_a_width_of_nothing_is_refused(make: type[Variance | KL | JS]) -> None:
    with pytest.raises(ValueError, match=rf"{make.__name__}: got sigma=0.0, expected a width above 0, in heatmap cell"):
        make(0.0)
    with pytest.raises(ValueError, match=r"got sigma=nan"):
        make(NAN)


def test_unknown_units_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Variance: got units='px', expected 'normalised' or 'cells'"):
        Variance(1.0, "px")


# -- the loss of the method --------------------------------------------------------------------------------------------


@EACH
@BOTH
def test_the_gradient_of_the_loss(regulariser: Regularises, size: tuple[int, ...]) -> None:
    size = tuple(n // 2 for n in size)
    y = labels(len(size))
    y.weight[0, 0], y.weight[1, 1, 0], y.coords[0, 0] = 0, 0.3, NAN
    method = DSNT(regulariser=regulariser, weight=0.7, dims=len(size))
    assert torch.autograd.gradcheck(lambda z: method.loss(z, y)["loss"], (logits(size).requires_grad_(),))


@EACH
def test_the_loss_is_the_distance_and_the_weighted_regulariser(regulariser: Regularises) -> None:
    z, y = logits((H, W)), labels(2)
    y.weight[0, 1], y.weight[1, 2] = 0, 0.5
    p = Softmax()(z)
    share = torch.tensor([[1, 0, 1], [1, 1, 0.5]], dtype=F64) / 4.5
    found = DSNT(regulariser=regulariser, weight=3.0).loss(z, y)
    torch.testing.assert_close(found["distance"], ((expectation(p) - y.coords).norm(dim=-1) * share).sum())
    torch.testing.assert_close(found["regulariser"], (judged(regulariser, p, y) * share).sum())
    torch.testing.assert_close(found["loss"], found["distance"] + 3 * found["regulariser"])
    assert sorted(DSNT().loss(z, y)) == ["distance", "loss"]


@EACH
@BOTH
@pytest.mark.parametrize("activation", [Softmax(), Rectified("sigmoid")], ids=str)
def test_unlabelled_joints_have_no_gradient(
    regulariser: Regularises, size: tuple[int, ...], activation: Softmax
) -> None:
    method = DSNT(regulariser=regulariser, activation=activation, dims=len(size))
    z, y = logits(size), labels(len(size))
    y.weight[1, 2], y.coords[1, 2] = 0, NAN
    value, slope = loss(method, z, y)
    assert math.isfinite(float(value))
    assert not slope[1, 2].any()
    assert bool((slope.flatten(2).abs().amax(-1) > 0).sum() == B * J - 1)
    y.weight.zero_()
    value, slope = loss(method, z, Labels(y.coords * NAN, y.weight))
    assert float(value) == 0
    assert not slope.any()


@EACH
def test_a_joint_without_depth_counts_in_the_distance_alone(regulariser: Regularises) -> None:
    """Its x and y are supervised as those of the map that is left when depth is summed away."""
    z, y = logits((D, H, W)), labels(3)
    y.weight[..., 2], y.coords[..., 2] = 0, NAN
    value, slope = loss(DSNT(regulariser=regulariser, dims=3), z, y)
    flat = Labels(y.coords[..., :2], y.weight[..., :2])
    z2 = z.logsumexp(2)
    expected, wanted = loss(DSNT(), z2, flat)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(slope.sum(2), wanted)
    torch.testing.assert_close(slope, wanted.unsqueeze(2) * (z - z2.unsqueeze(2)).exp())
    y.weight[0, 0, 2], y.coords[0, 0, 2] = 1, 0.2
    found = DSNT(regulariser=regulariser, dims=3).loss(z, y)
    single = Labels(y.coords[:1, :1], y.weight[:1, :1])
    torch.testing.assert_close(found["regulariser"], judged(regulariser, Softmax()(z[:1, :1]), single)[0, 0])


def test_the_loss_does_not_see_the_mean_s_depth_where_it_is_unlabelled() -> None:
    mean = labels(3, 5).coords.requires_grad_()
    y = labels(3)
    y.weight[1, 0, 2] = 0
    for distance in (Euclidean(), Power(1), Power(2)):
        (found,) = torch.autograd.grad(distance(mean, y).mean, mean)
        assert found[1, 0, 2] == 0
        assert int((found != 0).sum()) == B * J * 3 - 1


# -- reading -----------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("activation", [Softmax(), *map(Rectified, ("abs", "relu", "sigmoid"))], ids=str)
def test_decode_is_the_mean_and_its_score_the_largest_probability(size: tuple[int, ...], activation: Softmax) -> None:
    z = logits(size)
    found, p = DSNT(activation=activation, dims=len(size)).decode(z), activation(z)
    torch.testing.assert_close(found.coords, expectation(p))
    torch.testing.assert_close(found.score, p.flatten(2).amax(-1))


def test_another_decoder_reads_the_mode() -> None:
    z = logits((H, W))
    found = DSNT(decoder=Argmax()).decode(z)
    assert torch.equal(found.coords, Argmax()(z).coords)


@pytest.mark.parametrize("bad", [NAN, math.inf], ids=["nan", "inf"])
@pytest.mark.parametrize("activation", [Softmax(), Rectified("relu"), Rectified("abs")], ids=str)
@BOTH
def test_logits_that_are_not_finite_are_refused_and_named(
    bad: float, activation: Softmax, size: tuple[int, ...]
) -> None:
    """And the loss is not finite either: a finite loss with a gradient of NaN would hide that a training diverged."""
    z, method = logits(size), DSNT(activation=activation, dims=len(size))
    z[(1, 2, *(0 for _ in size))] = bad
    with pytest.raises(
        ValueError, match=r"DSNT: the map of image 1, joint 2 holds NaN or infinity; the network diverg"
    ):
        method.decode(z)
    assert not math.isfinite(float(method.loss(z, labels(len(size)))["loss"]))


def test_maps_of_the_wrong_rank_are_refused_with_both_shapes() -> None:
    volume, maps = logits((D, H, W)), logits((H, W))
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 9, 7\), expected \(B, J, H, W\) for dims=2; .*maps, or dims=3"):
        DSNT().decode(volume)
    with pytest.raises(
        ValueError, match=r"DSNT: got an output of shape \(2, 3, 9, 7\), expected \(B, J, D, H, W\) for"
    ):
        DSNT(dims=3).loss(maps, labels(3))
    with pytest.raises(ValueError, match=r"DSNT: got dims=4, expected 2 \(maps\) or 3 \(volumes\)"):
        DSNT(dims=4)


def test_labels_of_the_wrong_shape_are_refused() -> None:
    y = labels(2)
    with pytest.raises(
        ValueError, match=r"maps of shape \(2, 3, 9, 7\), whose points are \(2, 3, 2\), for labels of s"
    ):
        DSNT().loss(logits((H, W)), labels(3))
    with pytest.raises(
        ValueError, match=r"for labels of shape \(2, 2, 2\); the head's joints and axes and the data se"
    ):
        DSNT().loss(logits((H, W)), Labels(y.coords[:, :2], y.weight[:, :2]))
    for weight in (y.weight[..., 0], y.weight[..., :1], y.weight[0]):
        with pytest.raises(ValueError, match=r"labels: got coords \(2, 3, 2\) and weight .*expected both \(B, J, d\)"):
            DSNT(regulariser=JS()).loss(logits((H, W)), Labels(y.coords, weight))


@pytest.mark.parametrize(
    ("made", "method", "message"),
    [
        (VolumeHead(8, J, D, ()), DSNT(), r"DSNT reads Maps but the head VolumeHead produces Volumes"),
        (ConvHead(8, J), DSNT(dims=3), r"DSNT reads Volumes but the head ConvHead produces Maps"),
        (ConvHead(8, J), Regression(), r"Regression reads Vectors but the head ConvHead produces Maps"),
        (PooledHead(8, J), DSNT(), r"DSNT reads Maps but the head PooledHead produces Vectors"),
    ],
)
def test_an_estimator_refuses_a_head_of_another_kind(made: nn.Module, method: Method, message: str) -> None:
    with pytest.raises(ValueError, match="Estimator: " + message + r"; choose a head with `produces = "):
        Estimator(ResNet(10, 4), made, method)


def test_encode_draws_what_the_divergence_compares_with() -> None:
    y = labels(2)
    y.weight[0, 0], y.coords[0, 0] = 0, NAN
    found = DSNT(regulariser=JS(2.0)).encode(y, (H, W))
    torch.testing.assert_close(found, gaussian(known(y).coords, (H, W), 2.0), atol=2e-24, rtol=1e-9)
    torch.testing.assert_close(Regression().encode(y, (H, W)), known(y).coords)


# -- mirrors -----------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("activation", [Softmax(), Rectified("relu")], ids=str)
def test_a_mirrored_output_reads_as_the_mirrored_points(size: tuple[int, ...], activation: Softmax) -> None:
    method, z = DSNT(activation=activation, dims=len(size)), logits(size)
    assert method.reads is (Maps if len(size) == 2 else Volumes)
    found = method.decode(method.unflip(z, PAIRS)).coords
    torch.testing.assert_close(found, flip_coords(method.decode(z).coords, PAIRS))
    vectors = labels(len(size)).coords
    torch.testing.assert_close(Regression().unflip(vectors, PAIRS), flip_coords(vectors, PAIRS))


def test_the_shift_of_one_column() -> None:
    method, z = DSNT(), logits((H, W))
    plain = method.unflip(z, PAIRS)
    method.flip_shift = True
    shifted = method.unflip(z, PAIRS)
    assert torch.equal(shifted[..., 1:], plain[..., :-1])
    assert torch.equal(shifted[..., 0], plain[..., 0])


def heads(kind: str) -> tuple[nn.Module, Method]:
    return {
        "dsnt": (ConvHead(32, J), DSNT(regulariser=JS())),
        "volume": (VolumeHead(32, J, D, ()), DSNT(dims=3)),
        "fc": (FullyConnected(ConvHead(32, J), J, (3, 2)), Regression()),
        "pooled": (PooledHead(32, J, 3), Regression()),
    }[kind]


@pytest.mark.parametrize("kind", ["dsnt", "volume", "fc", "pooled"])
def test_a_flip_test_knows_no_left_and_right(kind: str, generator: torch.Generator) -> None:
    """Whatever the network, its prediction for the mirrored image is the mirrored prediction."""
    torch.manual_seed(0)
    model = Estimator(ResNet(10, 4), *heads(kind))
    images = torch.rand(B, 3, 96, 64, generator=generator)
    found = model.predict(flip_images(images), flip=PAIRS)
    straight = model.predict(images, flip=PAIRS)
    torch.testing.assert_close(found.coords, flip_coords(straight.coords, PAIRS), atol=1e-6, rtol=1e-4)
    assert float((straight.coords - model.predict(images).coords).abs().max()) > 1e-5
    assert straight.coords.shape == (B, J, 3 if kind in ("volume", "pooled") else 2)


# -- the rivals --------------------------------------------------------------------------------------------------------


def test_fully_connected_by_hand() -> None:
    """Two joints on a map of 1 x 2: probabilities 1/4, 3/4 and 1/2, 1/2 into one linear layer."""
    net = FullyConnected(nn.Identity(), 2, (1, 2))
    weight = torch.arange(16.0).view(4, 4)
    net.linear.load_state_dict({"weight": weight, "bias": torch.tensor([0.0, 0, 0, 100])})
    out = net(torch.tensor([[[[0.0, math.log(3)]], [[5.0, 5.0]]]]))
    p = torch.tensor([0.25, 0.75, 0.5, 0.5])
    expected = [float((row * p).sum()) for row in weight]
    expected[3] += 100
    torch.testing.assert_close(out, torch.tensor([[expected[:2], expected[2:]]]))
    assert net.produces is Vectors


def test_fully_connected_works_at_one_size_and_knows_it() -> None:
    net = FullyConnected(ConvHead(8, J), J, (H, W))
    assert net(torch.rand(B, 8, H, W)).shape == (B, J, 2)
    assert net.linear.weight.shape == (J * 2, J * H * W)
    with pytest.raises(
        ValueError, match=r"FullyConnected: got maps of \(7, 9\) cells, expected \(9, 7\); a linear laye"
    ):
        net(torch.rand(B, 8, W, H))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert bool(torch.isfinite(net(torch.rand(B, 8, H, W))).all())


@pytest.mark.parametrize("d", [2, 3])
def test_regression(d: int) -> None:
    vectors, y = labels(d, 5).coords, labels(d)
    y.weight[0, 1], y.coords[0, 1] = 0, NAN
    value, slope = loss(Regression(), vectors, y)
    lengths = (vectors - known(y).coords).norm(dim=-1)
    torch.testing.assert_close(value, (lengths.sum() - lengths[0, 1]) / (B * J - 1))
    assert not slope[0, 1].any()
    assert torch.autograd.gradcheck(lambda v: Regression(Power(2)).loss(v, y)["loss"], (vectors.requires_grad_(),))
    points = Regression().decode(vectors.detach())
    assert torch.equal(points.coords, vectors)
    assert points.score.tolist() == [[1.0] * J] * B
    assert Regression().decode(vectors.detach().half()).coords.dtype == torch.float32
    with pytest.raises(ValueError, match=rf"vectors of shape \(2, 3, {d}\) for labels of shape \(2, 3, {5 - d}\); the"):
        Regression().loss(vectors, labels(5 - d))


@pytest.mark.parametrize(
    "made",
    [
        spec(DSNT),
        spec(DSNT, regulariser=JS(2.0), weight=0.5),
        spec(DSNT, regulariser=Variance(2.0, "cells"), activation=Rectified("relu"), decoder=Argmax("origin"), dims=3),
        spec(Regression, distance=Power(2)),
    ],
    ids=str,
)
def test_methods_can_be_written_down_and_rebuilt(made: object) -> None:
    assert rebuild(describe(made)) == made
