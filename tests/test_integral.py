"""Chapter 5: volumes against slow loops, marginals and mixed labels, pre-training by steps, bias, mirrors, messages."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from coordreg.backbones.resnet import ConvHead, ResNet
from coordreg.coords import Labels, centres, flip_coords, from_pixels, to_pixels
from coordreg.dsnt import DSNT, JS, Euclidean, Mean, Power, Regression, Regularises
from coordreg.expectation import Softmax, expectation, marginals
from coordreg.heatmap import MSE, Argmax, BinaryCrossEntropy, Compares, Disk, Draws, Gaussian, OneHot
from coordreg.heatmap import SoftmaxCrossEntropy as CrossEntropy
from coordreg.integral import (
    Debiased,
    GaussianVolume,
    Integral,
    MarginalArgmax,
    MarginalGaussian,
    MarginalOneHot,
    Matching,
    OneHotVolume,
    PooledHead,
    VolumeArgmax,
    VolumeHead,
    VolumeHeatmap,
    gaussian_lines,
    outer,
    two_step,
)
from coordreg.method import Estimator, Maps, Method, Staged, Vectors, Volumes
from coordreg.spec import describe, rebuild, spec

B, J, D, H, W = 2, 3, 4, 9, 7
PAIRS = ((0, 2),)
NAN = math.nan
F64 = torch.float64
BOTH = pytest.mark.parametrize("size", [(H, W), (D, H, W)], ids=["maps", "volumes"])
IN_PLANE = (
    Matching(Gaussian(1.0), MSE()),
    Matching(OneHot(), CrossEntropy()),
    Matching(Disk(0.3), BinaryCrossEntropy()),
    MarginalGaussian(1.0),
    MarginalOneHot(),
)
IN_SPACE = (
    Matching(GaussianVolume(1.0), MSE()),
    Matching(OneHotVolume(), CrossEntropy()),
    MarginalGaussian(1.0),
    MarginalOneHot(),
)
EVERY = pytest.mark.parametrize(
    ("regulariser", "size"), [(r, (H, W)) for r in IN_PLANE] + [(r, (D, H, W)) for r in IN_SPACE], ids=str
)


def logits(size: tuple[int, ...], seed: int = 0, sharp: float = 2.0) -> Tensor:
    return sharp * torch.randn(B, J, *size, generator=torch.Generator().manual_seed(seed), dtype=F64)


def labels(d: int, seed: int = 1, reach: float = 0.8) -> Labels:
    g = torch.Generator().manual_seed(seed)
    return Labels(reach * (2 * torch.rand(B, J, d, generator=g, dtype=F64) - 1), torch.ones(B, J, d, dtype=F64))


def at(pixels: list[float], size: tuple[int, ...]) -> Labels:
    """One joint at these index pixels, x first."""
    coords = from_pixels(torch.tensor([[pixels]], dtype=F64), size)
    return Labels(coords, torch.ones_like(coords))


def loss(method: Method, z: Tensor, y: Labels, part: str = "loss") -> tuple[Tensor, Tensor]:
    """A part of the loss and its gradient."""
    z = z.clone().requires_grad_()
    value = method.loss(z, y)[part]
    (slope,) = torch.autograd.grad(value, z)
    return value.detach(), slope


# -- heads -------------------------------------------------------------------------------------------------------------


def test_a_volume_head_is_joint_major() -> None:
    net = VolumeHead(5, J, D, ())
    features = torch.rand(B, 5, H, W)
    volume, flat = net(features), net.maps(features)
    assert volume.shape == (B, J, D, H, W)
    assert net.produces is Volumes
    for j in range(J):
        for z in range(D):
            assert torch.equal(volume[:, j, z], flat[:, j * D + z])
    assert VolumeHead(5, J, D, (6, 6))(features).shape == (B, J, D, 4 * H, 4 * W)
    with pytest.raises(ValueError, match=r"VolumeHead: got bins=0, expected at least one cell in depth"):
        VolumeHead(5, J, 0)


@pytest.mark.parametrize("d", [2, 3])
def test_a_pooled_head_is_a_linear_layer_on_the_mean(d: int) -> None:
    net = PooledHead(5, J, d)
    features = torch.rand(B, 5, H, W)
    out = net(features)
    assert out.shape == (B, J, d)
    assert net.produces is Vectors
    expected = features.sum((2, 3)) / (H * W) @ net.linear.weight.T + net.linear.bias
    torch.testing.assert_close(out, expected.view(B, J, d))
    torch.testing.assert_close(net(features.flip(-1)), out)


# -- the two steps -----------------------------------------------------------------------------------------------------


@BOTH
def test_two_steps_are_one_step(size: tuple[int, ...]) -> None:
    """Equations (5) and (6) of the paper against (4): sums in another order, equal to the last bits."""
    p = Softmax()(logits(size))
    plain = torch.zeros(B, J, len(size), dtype=F64)
    for b in range(B):
        for j in range(J):
            for cell in torch.ones(size).nonzero().tolist():
                for axis, (i, n) in enumerate(zip(cell[::-1], size[::-1], strict=True)):
                    plain[b, j, axis] += p[(b, j, *cell)] * ((2 * i + 1) / n - 1)
    torch.testing.assert_close(two_step(p), plain, atol=1e-14, rtol=0)
    torch.testing.assert_close(expectation(p), plain, atol=1e-14, rtol=0)
    torch.testing.assert_close(two_step(p.float()), expectation(p.float()), atol=2e-7, rtol=0)
    by_hand = [(m * centres(m.shape[-1], dtype=F64)).sum(-1) for m in marginals(p)]
    torch.testing.assert_close(two_step(p), torch.stack(by_hand, -1), atol=1e-14, rtol=0)


def test_the_gradients_of_one_and_two_steps_are_equal() -> None:
    z, along = logits((D, H, W)), labels(3).coords
    found: list[Tensor] = []
    for mean in (expectation, two_step):
        x = z.clone().requires_grad_()
        found += torch.autograd.grad((mean(Softmax()(x)) * along).sum(), x)
    torch.testing.assert_close(found[0], found[1])


# -- targets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.7, 1.5])
def test_gaussian_volumes_against_a_slow_loop(sigma: float) -> None:
    size = (D, H, W)
    y = labels(3, reach=2.5)
    found = GaussianVolume(sigma)(y, size)
    inside = 0
    for b in range(B):
        for j in range(J):
            x = to_pixels(y.coords, size)[b, j].tolist()
            touches = all(-3 * sigma <= c <= n - 1 + 3 * sigma for c, n in zip(x, size[::-1], strict=True))
            assert found.weight[b, j] == float(touches)
            inside += touches
            if touches:
                for k, i, m in torch.ones(size).nonzero().tolist():
                    squared = (m - x[0]) ** 2 + (i - x[1]) ** 2 + (k - x[2]) ** 2
                    expected = math.exp(-squared / (2 * sigma**2))
                    assert float(found.maps[b, j, k, i, m]) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert 0 < inside < B * J


def test_one_hot_volumes_against_a_slow_loop() -> None:
    size = (D, H, W)
    y = labels(3, reach=1.4)
    found = OneHotVolume()(y, size)
    inside = 0
    for b in range(B):
        for j in range(J):
            x, v, z = (math.floor(c + 0.5) for c in to_pixels(y.coords, size)[b, j].tolist())
            expected = torch.zeros(size, dtype=F64)
            if 0 <= x < W and 0 <= v < H and 0 <= z < D:
                expected[z, v, x] = 1
            inside += int(expected.sum())
            assert torch.equal(found.maps[b, j], expected)
            assert found.weight[b, j] == expected.sum()
    assert 0 < inside < B * J


def test_volumes_need_all_axes_of_a_joint() -> None:
    y = labels(3)
    y.weight[0, 1, 2], y.coords[0, 1, 2], y.weight[1, 2] = 0, NAN, 0.5
    for target in (GaussianVolume(), OneHotVolume()):
        found = target(y, (D, H, W))
        assert found.weight.tolist() == [[1, 0, 1], [1, 1, 0.5]]
        assert bool(torch.isfinite(found.maps).all())
    y.weight[0, 1, 2] = 1
    with pytest.raises(ValueError, match=r"image 0, joint 1 has a coordinate that is not finite"):
        GaussianVolume()(y, (D, H, W))
    with pytest.raises(ValueError, match=r"GaussianVolume: got sigma=0.0, expected a width above 0"):
        GaussianVolume(0.0)


def test_outer_products_by_hand() -> None:
    x, y, z = (torch.tensor([[v]]) for v in ([1.0, 2, 3], [1.0, 10], [1.0, 100]))
    flat = torch.tensor([[[[1.0, 2, 3], [10, 20, 30]]]])
    assert torch.equal(outer([x]), x)
    assert torch.equal(outer([x, y]), flat)
    assert torch.equal(outer([x, y, z]), torch.stack([flat, 100 * flat], 2))
    place = torch.empty(1, 1, 2, 2, 3)
    assert outer([x, y, z], place) is place
    assert torch.equal(place, outer([x, y, z]))


def test_a_volume_of_one_layer_is_chapter_2s_map() -> None:
    y = labels(2)
    deep = Labels(torch.cat([y.coords, torch.zeros(B, J, 1, dtype=F64)], -1), torch.ones(B, J, 3, dtype=F64))
    for volume, flat in ((GaussianVolume(1.5), Gaussian(1.5)), (OneHotVolume(), OneHot())):
        ours, theirs = volume(deep, (1, H, W)), flat(y, (H, W))
        torch.testing.assert_close(ours.maps.squeeze(2), theirs.maps, atol=1e-11, rtol=1e-9)
        torch.testing.assert_close(ours.weight, theirs.weight)


def test_the_border_of_the_grid_is_half_open_in_the_plane_and_in_space() -> None:
    """-1 is the outer edge of the first cell and in it; +1 is that of the last and outside."""
    for x, inside in ((-1.0, 1.0), (-1.001, 0.0), (0.999, 1.0), (1.0, 0.0)):
        y = Labels(torch.tensor([[[x, 0.1, -0.1]]], dtype=F64), torch.ones(1, 1, 3, dtype=F64))
        assert float(OneHotVolume()(y, (D, H, W)).weight) == inside
        assert float(OneHot()(Labels(y.coords[..., :2], y.weight[..., :2]), (H, W)).weight) == inside
        y.weight[..., 1:] = 0
        z = logits((D, H, W))[:1, :1]
        assert float(MarginalOneHot()(z, Softmax()(z), y).weight) == inside


# -- heat-map losses as regularisers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("compare", [MSE(), CrossEntropy()], ids=str)
@pytest.mark.parametrize("target", [GaussianVolume(1.0), OneHotVolume()], ids=str)
def test_matching_volumes_against_a_slow_loop(compare: Compares, target: Draws) -> None:
    z, y = logits((D, H, W)), labels(3)
    found = Matching(target, compare)(z, Softmax()(z), y)
    t = target(y, (D, H, W)).maps
    for b in range(B):
        for j in range(J):
            cells = list(zip(z[b, j].flatten().tolist(), t[b, j].flatten().tolist(), strict=True))
            if isinstance(compare, MSE):
                expected = sum((u - v) ** 2 for u, v in cells) / len(cells)
            else:
                total = math.log(sum(math.exp(u) for u, _ in cells))
                expected = sum(v * (total - u) for u, v in cells)
            assert float(found.value[b, j]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("target", "compare"), [(Gaussian(1.0), MSE()), (OneHot(), CrossEntropy()), (Disk(0.3), BinaryCrossEntropy())]
)
def test_matching_maps_is_the_loss_of_chapter_2(target: Draws, compare: Compares) -> None:
    z, y = logits((H, W)), labels(2)
    drawn = target(y, (H, W))
    found = Matching(target, compare)(z, Softmax()(z), y)
    torch.testing.assert_close(found.value, compare(z, drawn.maps))
    assert torch.equal(found.weight, drawn.weight)


def test_marginal_losses_by_hand() -> None:
    """A uniform volume of 2 x 4 x 3 cells and a joint in cell (0, 2, 1): minus log 1/3, 1/4 and 1/2."""
    p = torch.full((1, 1, 2, 4, 3), 1 / 24, dtype=F64)
    y = at([0.2, 2.3, 0.9], (2, 4, 3))
    assert float(MarginalOneHot()(p, p, y).value) == pytest.approx(math.log(24))
    total = 0.0
    for x, n in ((0.2, 3), (2.3, 4), (0.9, 2)):
        line = [math.exp(-((i - x) ** 2) / 2) for i in range(n)]
        total += sum((1 / n - v / sum(line)) ** 2 for v in line)
    assert float(MarginalGaussian(1.0)(p, p, y).value) == pytest.approx(total)
    y.weight[..., 2], y.coords[..., 2] = 0, 0  # depth unlabelled
    assert float(MarginalOneHot()(p, p, y).value) == pytest.approx(math.log(12))
    assert float(MarginalGaussian(1.0)(p, p, y).value) < total


@BOTH
def test_marginal_gaussians_are_fitted_at_the_bottom(size: tuple[int, ...]) -> None:
    y = labels(len(size))
    lines = [line / line.sum(-1, keepdim=True) for line in gaussian_lines(y.coords, size, 1.0)]
    p = outer(lines)
    assert float(MarginalGaussian(1.0)(p, p, y).value.max()) < 1e-20
    assert float(MarginalGaussian(2.0)(p, p, y).value.min()) > 1e-3


@pytest.mark.parametrize("regulariser", [MarginalGaussian(1.0), MarginalOneHot()], ids=str)
def test_an_image_without_depth_supervises_x_and_y_of_a_volume(regulariser: Regularises) -> None:
    """Depth is summed away and the two other marginals are judged as those of a map."""
    z, y = logits((D, H, W)), labels(3)
    y.weight[..., 2], y.coords[..., 2] = 0, NAN
    method = Integral(regulariser, dims=3)
    value, slope = loss(method, z, y, "regulariser")
    flat = z.logsumexp(2)
    expected, wanted = loss(Integral(regulariser), flat, Labels(y.coords[..., :2], y.weight[..., :2]), "regulariser")
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(slope, wanted.unsqueeze(2) * (z - flat.unsqueeze(2)).exp())
    assert bool((slope.flatten(2).abs().amax(-1) > 0).all())


def test_a_joint_outside_along_one_axis_is_judged_along_the_others() -> None:
    z, size = logits((D, H, W))[:1, :1], (D, H, W)
    for regulariser, far in ((MarginalGaussian(1.0), W + 3.0), (MarginalOneHot(), W + 0.0)):
        y = at([far, 2.0, 1.0], size)
        part = regulariser(z, Softmax()(z), y)
        y.weight[..., 0] = 0
        alone = regulariser(z, Softmax()(z), y)
        torch.testing.assert_close(part.value, alone.value)
        assert part.weight.tolist() == alone.weight.tolist() == [[1.0]]


@EVERY
def test_half_the_weight_is_half_a_joint(regulariser: Regularises, size: tuple[int, ...]) -> None:
    """Weights average joints: all of them halved change nothing, one of them halved counts half as much."""
    z, y = logits(size), labels(len(size), reach=0.6)
    method = Integral(regulariser, dims=len(size))
    each = regulariser(z, Softmax()(z), y).value
    halves = Labels(y.coords, 0.5 * y.weight)
    for part in ("distance", "regulariser"):
        torch.testing.assert_close(method.loss(z, halves)[part], method.loss(z, y)[part])
    y.weight[1, 2] = 0.5
    expected = (each.sum() - 0.5 * each[1, 2]) / (B * J - 0.5)
    torch.testing.assert_close(method.loss(z, y)["regulariser"], expected)


@EVERY
def test_gradients_of_the_family(regulariser: Regularises, size: tuple[int, ...]) -> None:
    size = tuple(n // 2 for n in size)
    y = labels(len(size))
    y.weight[0, 0], y.weight[1, 1, -1], y.coords[0, 0] = 0, 0.4, NAN
    method = Integral(regulariser, weight=0.7, sharpness=1.5, dims=len(size)).double()
    z = logits(size).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: method.loss(x, y)["loss"], (z,))
    step = 1e-4
    sides = (Integral(regulariser, 0.7, sharpness=1.5 * math.exp(h), dims=len(size)).double() for h in (step, -step))
    above, below = (side.loss(z.detach(), y)["loss"].item() for side in sides)
    (found,) = torch.autograd.grad(method.loss(z.detach(), y)["loss"], method.log_sharpness)
    assert float(found) == pytest.approx((above - below) / (2 * step), rel=1e-2, abs=1e-4)


@EVERY
def test_unlabelled_joints_have_no_gradient(regulariser: Regularises, size: tuple[int, ...]) -> None:
    z, y = logits(size), labels(len(size))
    y.weight[1, 2], y.coords[1, 2] = 0, NAN
    method = Integral(regulariser, dims=len(size))
    value, slope = loss(method, z, y)
    assert math.isfinite(float(value))
    assert not slope[1, 2].any()
    assert int((slope.flatten(2).abs().amax(-1) > 0).sum()) == B * J - 1
    y.weight.zero_()
    value, slope = loss(method, z, Labels(y.coords * NAN, y.weight))
    assert float(value) == 0
    assert not slope.any()


@EVERY
@pytest.mark.parametrize("sharp", [0.0, 1e4])
@pytest.mark.parametrize("far", [0.5, 30.0, -1e4])
def test_regularisers_are_finite_at_the_ends(
    regulariser: Regularises, size: tuple[int, ...], sharp: float, far: float
) -> None:
    coords = torch.full((B, J, len(size)), far)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        z = logits(size, sharp=sharp).to(dtype)
        value, slope = loss(Integral(regulariser, dims=len(size)), z, Labels(coords, torch.ones_like(coords)))
        assert value.dtype == torch.float32
        assert math.isfinite(float(value))
        assert bool(torch.isfinite(slope).all())


@EVERY
def test_half_precision_and_autocast_give_the_loss_of_single(regulariser: Regularises, size: tuple[int, ...]) -> None:
    method = Integral(regulariser, sharpness=3.0, dims=len(size))
    y = Labels(*(t.float() for t in labels(len(size))))
    for dtype in (torch.float16, torch.bfloat16):
        z = logits(size).to(dtype)
        value, slope = loss(method, z, y)
        expected, wanted = loss(method, z.float(), y)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(slope, wanted.to(dtype))
    z = logits(size).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(method, z, y)
    for ours, theirs in zip(found, loss(method, z, y), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_float16_maps_may_be_sharpened_beyond_float16() -> None:
    z = torch.full((1, 1, H, W), 100.0, dtype=torch.float16)
    z[..., 0] = 0
    points = Integral(sharpness=1000.0).decode(z)
    assert bool(torch.isfinite(points.coords).all())


# -- decoders ----------------------------------------------------------------------------------------------------------


def test_the_largest_cell_of_a_volume_by_hand() -> None:
    z = torch.zeros(2, 1, D, H, W)
    z[0, 0, 3, 1, 5] = z[1, 0, 0, 8, 2] = 2.0
    found = VolumeArgmax()(z)
    expected = torch.tensor([[[11 / 7 - 1, 3 / 9 - 1, 7 / 4 - 1]], [[5 / 7 - 1, 17 / 9 - 1, 1 / 4 - 1]]])
    torch.testing.assert_close(found.coords, expected)
    assert found.score.tolist() == [[2.0], [2.0]]
    flat = logits((H, W))
    assert torch.equal(VolumeArgmax()(flat).coords, Argmax()(flat).coords)


def test_the_largest_cell_of_the_marginals_by_hand() -> None:
    """The largest cell lies in none of the largest marginals."""
    p = torch.zeros(1, 1, D, H, W)
    p[0, 0, 0, 2, 1] = 0.38
    p[0, 0, 1, 3, 4], p[0, 0, 1, 5, 4], p[0, 0, 1, 3, 6] = 0.25, 0.2, 0.17
    found = MarginalArgmax()(p)  # x: 0.45 at 4; y: 0.42 at 3; z: 0.62 at 1
    torch.testing.assert_close(to_pixels(found.coords, (D, H, W)), torch.tensor([[[4.0, 3, 1]]]), atol=1e-5, rtol=0)
    assert float(found.score) == pytest.approx(0.42)
    torch.testing.assert_close(
        to_pixels(VolumeArgmax()(p).coords, (D, H, W)), torch.tensor([[[1.0, 2.0, 0.0]]]), atol=1e-5, rtol=0
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**20), st.integers(2, 3))
def test_decoders_find_the_cell_of_a_one_hot_volume(seed: int, d: int) -> None:
    size = (D, H, W)[-d:]
    y = labels(d, seed, reach=0.99)
    p = (OneHot() if d == 2 else OneHotVolume())(y, size).maps
    for decoder in (VolumeArgmax(), MarginalArgmax(), Mean()):
        found = decoder(p)
        assert float((to_pixels(found.coords, size) - to_pixels(y.coords, size)).abs().max()) <= 0.5 + 1e-9
        assert found.score.tolist() == [[1.0] * J] * B


@BOTH
@pytest.mark.parametrize("level", [0.0, -3.0])
def test_the_bias_of_a_flat_background_and_its_removal(size: tuple[int, ...], level: float) -> None:
    """A blob of mass 1 - N/C on N background cells: the plain mean lies nearer to the middle by that share."""
    size = tuple(4 * n for n in size)
    cell = [n - 3 for n in size]  # near the corner: the last centres but two
    z = torch.full((1, 1, *size), level, dtype=F64)
    z[(0, 0, *cell)] = level + math.log(math.prod(size))  # as heavy as the background
    true = from_pixels(torch.tensor([[cell[::-1]]], dtype=F64), size)
    plain = expectation(Softmax()(z))
    torch.testing.assert_close(plain, true / 2, atol=2e-3, rtol=0)
    torch.testing.assert_close(Debiased("median")(z).coords, true)
    if level == 0:
        torch.testing.assert_close(Debiased()(z).coords, true)
        torch.testing.assert_close(Integral(decoder=Debiased(), dims=len(size)).decode(z).coords, true)
    else:  # the paper's zero means nothing once all logits have moved: C < N
        torch.testing.assert_close(Debiased()(z).coords, plain)


def test_debiased_leaves_maps_alone_that_need_nothing() -> None:
    z = torch.zeros(B, J, H, W, dtype=F64)
    assert float(Debiased()(z).coords.abs().max()) < 1e-12
    sharp = 1e3 * OneHot()(labels(2), (H, W)).maps
    torch.testing.assert_close(Debiased()(sharp).coords, expectation(Softmax()(sharp)))
    edge = torch.full((1, 1, H, W), -5.0)
    edge[..., -1] = 6.0
    assert float(Debiased()(edge).coords.abs().max()) <= 1
    torch.testing.assert_close(Debiased()(sharp).score, Mean()(Softmax()(sharp)).score)
    with pytest.raises(ValueError, match=r"Debiased: got background='min', expected 'zero' or 'median'"):
        Debiased("min")


def test_sharpness_multiplies_the_maps_before_the_softmax_and_is_learnt() -> None:
    z, y = logits((H, W)), labels(2)
    method = Integral(sharpness=3.0).double()
    torch.testing.assert_close(method.decode(z).coords, expectation(Softmax()(3 * z)), atol=1e-6, rtol=0)
    method.loss(z, y)["loss"].backward()
    assert method.log_sharpness.grad is not None
    assert float(method.log_sharpness.grad.abs()) > 1e-4
    pair = Integral(Matching(Gaussian(1.0), MSE()), sharpness=3.0)
    torch.testing.assert_close(pair.loss(z, y)["regulariser"], MSE()(z, Gaussian(1.0)(y, (H, W)).maps).mean())


# -- losses and pre-training -------------------------------------------------------------------------------------------


@EVERY
def test_both_losses_from_the_first_step(regulariser: Regularises, size: tuple[int, ...]) -> None:
    z, y = logits(size), labels(len(size))
    found = Integral(regulariser, weight=3.0, dims=len(size)).loss(z, y)
    p = Softmax()(z)
    torch.testing.assert_close(found["distance"], (expectation(p) - y.coords).abs().sum(-1).mean())
    torch.testing.assert_close(found["regulariser"], regulariser(z, p, y).value.mean())
    torch.testing.assert_close(found["loss"], found["distance"] + 3 * found["regulariser"])


@pytest.mark.parametrize("distance", [Power(1), Power(2), Euclidean()], ids=str)
def test_i_star_is_the_distance_alone(distance: Callable[..., object]) -> None:
    z, y = logits((D, H, W)), labels(3)
    found = Integral(distance=distance, dims=3).loss(z, y)  # type: ignore[arg-type]
    assert sorted(found) == ["distance", "loss"]
    torch.testing.assert_close(found["loss"], DSNT(distance, dims=3).loss(z, y)["loss"])  # type: ignore[arg-type]


def phase(method: Method, z: Tensor, y: Labels) -> str:
    """Which part one more training step minimises."""
    found = method.loss(z, y)
    (wanted,) = {name for name in ("distance", "regulariser") if found["loss"] == found[name]}
    return wanted


def test_pretraining_ends_after_exactly_its_steps_and_counts_no_evaluation() -> None:
    z, y = logits((H, W)), labels(2)
    method = Integral(Matching(Gaussian(1.0), MSE()), pretrain=3)
    order = []
    for _ in range(5):
        method.eval()
        assert phase(method, z, y) == phase(method, z, y)
        order.append(phase(method.train(), z, y))
    assert order == ["regulariser"] * 3 + ["distance"] * 2
    assert phase(method.eval(), z, y) == "distance"


def test_pretraining_weighs_its_loss_and_has_its_gradient_alone() -> None:
    z, y = logits((H, W)), labels(2)
    regulariser = Matching(Gaussian(1.0), MSE())
    method = Integral(regulariser, weight=3.0, pretrain=1)
    value, slope = loss(method, z, y)
    expected, wanted = loss(Integral(regulariser), z, y, "regulariser")
    torch.testing.assert_close(value, 3 * expected)
    torch.testing.assert_close(slope, 3 * wanted)
    value, slope = loss(method, z, y)
    expected, wanted = loss(Integral(), z, y)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(slope, wanted)


def test_a_resumed_training_is_in_the_phase_it_was_in() -> None:
    z, y = logits((H, W)), labels(2)
    method = Integral(Matching(Gaussian(1.0), MSE()), pretrain=3)
    for _ in range(2):
        phase(method, z, y)
    again = Integral(Matching(Gaussian(1.0), MSE()), pretrain=3)
    again.load_state_dict(method.state_dict())
    assert [phase(again, z, y) for _ in range(3)] == ["regulariser", "distance", "distance"]


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_all_stages_of_a_step_are_in_one_phase(stages: int) -> None:
    z, y = logits((H, W)), labels(2)
    inner = Integral(Matching(Gaussian(1.0), MSE()), pretrain=2, calls=stages)
    method = Staged(inner)
    alone = Integral(Matching(Gaussian(1.0), MSE())).loss(z, y)
    for step in range(4):
        found = method.loss([z] * stages, y)
        part = alone["regulariser" if step < 2 else "distance"]
        torch.testing.assert_close(found["loss"], stages * part)


def test_a_heatmap_in_a_volume_is_its_loss_alone_and_read_by_its_mode() -> None:
    z, y = logits((D, H, W)), labels(3)
    for regulariser in IN_SPACE:
        method = VolumeHeatmap(regulariser)
        found = method.loss(z, y)
        torch.testing.assert_close(found["loss"], regulariser(z, Softmax()(z), y).value.mean())
        assert sorted(found) == ["heatmap", "loss"]
    assert torch.equal(VolumeHeatmap(IN_SPACE[0]).decode(z).coords, VolumeArgmax()(z).coords)
    points = VolumeHeatmap(MarginalOneHot(), MarginalArgmax()).decode(z).coords
    assert torch.equal(points, MarginalArgmax()(Softmax()(z)).coords)


# -- mirrors -----------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("decoder", [Mean(), VolumeArgmax(), MarginalArgmax(), Debiased()], ids=str)
def test_a_mirrored_output_reads_as_the_mirrored_points(
    size: tuple[int, ...], decoder: Mean | VolumeArgmax | MarginalArgmax | Debiased
) -> None:
    z, method = logits(size), Integral(decoder=decoder, sharpness=1.5, dims=len(size))
    assert method.reads is (Maps if len(size) == 2 else Volumes)
    found = method.decode(method.unflip(z, PAIRS)).coords
    torch.testing.assert_close(found, flip_coords(method.decode(z).coords, PAIRS))


@EVERY
def test_a_mirrored_image_has_the_same_loss(regulariser: Regularises, size: tuple[int, ...]) -> None:
    z, y = logits(size), labels(len(size))
    method = Integral(regulariser, dims=len(size))
    mirrored = Labels(flip_coords(y.coords, PAIRS), y.weight)
    for name, value in method.loss(method.unflip(z, PAIRS), mirrored).items():
        torch.testing.assert_close(value, method.loss(z, y)[name])


# -- messages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [NAN, math.inf], ids=["nan", "inf"])
@BOTH
def test_logits_that_are_not_finite_are_refused_and_named(bad: float, size: tuple[int, ...]) -> None:
    z, y = logits(size), labels(len(size))
    z[(1, 2, *(0 for _ in size))] = bad
    method = Integral(dims=len(size))
    with pytest.raises(ValueError, match=r"Integral: the map of image 1, joint 2 holds NaN or infinity"):
        method.decode(z)
    assert not math.isfinite(method.loss(z, y)["loss"].item())


def test_arguments_that_make_no_sense_are_refused() -> None:
    matching = Matching(Gaussian(1.0), MSE())
    with pytest.raises(
        ValueError, match=r"Integral: got pretrain=5 and regulariser=None, expected 0 or more steps, an"
    ):
        Integral(pretrain=5)
    with pytest.raises(ValueError, match=r"Integral: got pretrain=-1 and regulariser=Matching"):
        Integral(matching, pretrain=-1)
    for sharpness in (0.0, -1.0, NAN):
        with pytest.raises(ValueError, match=rf"Integral: got sharpness={sharpness}, expected a number above 0"):
            Integral(sharpness=sharpness)
    with pytest.raises(ValueError, match=r"Integral: got calls=0, expected at least 1"):
        Integral(matching, pretrain=2, calls=0)
    with pytest.raises(ValueError, match=r"Integral: got dims=1, expected 2 \(maps\) or 3 \(volumes\)"):
        Integral(dims=1)


def test_a_volume_given_to_a_method_in_the_plane_names_both_shapes() -> None:
    with pytest.raises(
        ValueError, match=r"Integral: got an output of shape \(2, 3, 4, 9, 7\), expected \(B, J, H, W\)"
    ):
        Integral().loss(logits((D, H, W)), labels(2))
    with pytest.raises(
        ValueError, match=r"VolumeHeatmap: got an output of shape \(2, 3, 9, 7\), expected \(B, J, D, H"
    ):
        VolumeHeatmap(MarginalOneHot()).decode(logits((H, W)))
    with pytest.raises(ValueError, match=r"size \(4, 9, 7\) has 3 axes but the coordinates have 2"):
        GaussianVolume()(labels(2), (D, H, W))


@pytest.mark.parametrize(
    ("made", "method", "message"),
    [
        (VolumeHead(8, J, D, ()), Integral(), "Integral reads Maps but the head VolumeHead produces Volumes"),
        (ConvHead(8, J), Integral(dims=3), "Integral reads Volumes but the head ConvHead produces Maps"),
        (PooledHead(8, J), VolumeHeatmap(MarginalOneHot()), "VolumeHeatmap reads Volumes but the head PooledHead"),
    ],
)
def test_an_estimator_refuses_a_head_of_another_kind(made: nn.Module, method: Method, message: str) -> None:
    with pytest.raises(ValueError, match="Estimator: " + message):
        Estimator(ResNet(10, 4), made, method)


@pytest.mark.parametrize(
    "made",
    [
        spec(Integral),
        spec(Integral, regulariser=Matching(Gaussian(1.0), MSE()), pretrain=100, sharpness=10.0, decoder=Debiased()),
        spec(Integral, regulariser=MarginalGaussian(1.0), distance=Power(2), weight=0.1, dims=3),
        spec(Integral, regulariser=JS(1.0)),
        spec(VolumeHeatmap, regulariser=Matching(GaussianVolume(1.0), MSE()), decoder=VolumeArgmax()),
        spec(VolumeHeatmap, regulariser=MarginalOneHot(), decoder=MarginalArgmax()),
        spec(Regression, distance=Power(1)),
    ],
    ids=str,
)
def test_methods_can_be_written_down_and_rebuilt(made: object) -> None:
    assert rebuild(describe(made)) == made
