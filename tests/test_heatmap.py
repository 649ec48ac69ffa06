"""Chapter 2: targets against slow loops, losses by hand with exact gradients, decoders with ties and borders."""

import math

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from coordreg.coords import Labels, Points, flip_labels, from_pixels, to_pixels
from coordreg.heatmap import (
    MSE,
    ROUNDING,
    Argmax,
    BinaryCrossEntropy,
    Disk,
    Gaussian,
    Heatmap,
    OneHot,
    QuarterSecond,
    QuarterSign,
    SoftmaxCrossEntropy,
    labelled,
)

B, J, H, W = 2, 3, 9, 7
PAIRS = ((0, 2),)
LOSSES = (MSE(), SoftmaxCrossEntropy(), BinaryCrossEntropy())
DECODERS = (Argmax(), Argmax("origin"), QuarterSign(), QuarterSign("published"), QuarterSecond())


def at(pixels: list[list[float]], size: tuple[int, int] = (H, W)) -> Labels:
    """One image whose joints lie at these index pixels (x, y)."""
    coords = from_pixels(torch.tensor([pixels], dtype=torch.float64), size)
    return Labels(coords, torch.ones_like(coords))


def random_labels(seed: int, margin: float = 3.0) -> Labels:
    g = torch.Generator().manual_seed(seed)
    span = torch.tensor([W + 2 * margin, H + 2 * margin], dtype=torch.float64)
    pixels = torch.rand(B, J, 2, generator=g, dtype=torch.float64) * span - margin - 0.5
    return Labels(from_pixels(pixels, (H, W)), torch.ones(B, J, 2, dtype=torch.float64))


def cells(points: Points, size: tuple[int, int]) -> Tensor:
    return to_pixels(points.coords.double(), size)


# -- labels -----------------------------------------------------------------------------------------------------------


def test_a_joint_counts_only_if_all_its_axes_are_labelled() -> None:
    coords = torch.tensor([[[0.1, 0.2], [0.3, float("nan")], [float("inf"), 0.0]]])
    weight = torch.tensor([[[1.0, 0.5], [1.0, 0.0], [0.0, 0.0]]])
    found, each = labelled(Labels(coords, weight))
    assert each.tolist() == [[0.5, 0, 0]]
    torch.testing.assert_close(found, torch.tensor([[[0.1, 0.2], [0, 0], [0, 0]]]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("target", [Gaussian(), OneHot(), Disk()], ids=["gaussian", "onehot", "disk"])
def test_bad_labels_with_a_weight_are_refused_and_named(bad: float, target: Gaussian | OneHot | Disk) -> None:
    labels = random_labels(0)
    labels.coords[1, 2, 0] = bad
    with pytest.raises(ValueError, match=r"image 1, joint 2 .*not finite.*give unlabelled joints the weight 0"):
        target(labels, (H, W))
    labels.weight[1, 2] = 0
    ours = target(labels, (H, W))
    assert ours.weight[1, 2] == 0
    assert bool(torch.isfinite(ours.maps).all())


def test_labels_of_different_shapes_are_refused() -> None:
    labels = Labels(torch.zeros(B, J, 2), torch.ones(B, J))
    with pytest.raises(ValueError, match=r"coords \(2, 3, 2\) and weight \(2, 3\), expected both \(B, J, d\); repeat"):
        labelled.__wrapped__(labels)  # type: ignore[attr-defined]


# -- targets ----------------------------------------------------------------------------------------------------------


def slow_round(x: float, rounding: str) -> float:
    if rounding == "none":
        return x
    if rounding == "int":
        return float(int(x + 0.5))  # Python's int truncates towards zero, as the published codes do
    if rounding == "round":
        return float(math.floor(x + 0.5))
    return float(math.floor(x) if rounding == "floor" else math.ceil(x))


def slow_gaussian(x: float, y: float, size: tuple[int, int], sigma: float, cutoff: bool, normalise: bool) -> Tensor:
    """Cell by cell from the definition."""
    rows, columns = size
    out = torch.zeros(rows, columns, dtype=torch.float64)
    for i in range(rows):
        for j in range(columns):
            if not cutoff or (abs(j - x) <= 3 * sigma and abs(i - y) <= 3 * sigma):
                out[i, j] = math.exp(-((j - x) ** 2 + (i - y) ** 2) / (2 * sigma**2))
    return out / out.sum() if normalise and out.sum() > 0 else out


@pytest.mark.parametrize("rounding", ROUNDING)
@pytest.mark.parametrize("cutoff", [False, True])
@pytest.mark.parametrize("normalise", [False, True])
def test_gaussian_against_a_slow_loop(rounding: str, cutoff: bool, normalise: bool) -> None:
    for seed, sigma in ((0, 1.0), (1, 0.75), (2, 2.0)):
        labels = random_labels(seed)
        found = Gaussian(sigma, rounding, cutoff, normalise)(labels, (H, W))
        for b in range(B):
            for j in range(J):
                x, y = (slow_round(float(c), rounding) for c in to_pixels(labels.coords, (H, W))[b, j])
                touches = -3 * sigma <= x <= W - 1 + 3 * sigma and -3 * sigma <= y <= H - 1 + 3 * sigma
                assert bool(found.weight[b, j]) == touches
                if touches:
                    expected = slow_gaussian(x, y, (H, W), sigma, cutoff, normalise)
                    torch.testing.assert_close(found.maps[b, j], expected, atol=1e-12, rtol=1e-9)


def published_patch(x: float, y: float, size: tuple[int, int], sigma: int) -> tuple[Tensor, bool]:
    """A patch of 6 sigma + 1 cells, drawn once with its peak in the middle and laid over the map."""
    rows, columns = size
    reach, out = 3 * sigma, torch.zeros(rows, columns, dtype=torch.float64)
    mx, my = int(x + 0.5), int(y + 0.5)
    side = 2 * reach + 1
    drawn = False
    for i in range(side):
        for j in range(side):
            row, column = my - reach + i, mx - reach + j
            if 0 <= row < rows and 0 <= column < columns:
                out[row, column], drawn = math.exp(-((i - reach) ** 2 + (j - reach) ** 2) / (2 * sigma**2)), True
    return out, drawn


@settings(max_examples=60, deadline=None)
@given(st.floats(-6, 14), st.floats(-6, 16), st.sampled_from([1, 2]))
def test_the_published_target_is_a_patch(x: float, y: float, sigma: int) -> None:
    labels = at([[x, y]])
    found = Gaussian(float(sigma), "int", cutoff=True)(labels, (H, W))
    # what the codes round is the position after the way to [-1, 1] and back
    px, py = (float(v) for v in to_pixels(labels.coords, (H, W))[0, 0])
    expected, drawn = published_patch(px, py, (H, W), sigma)
    assert bool(found.weight[0, 0]) == drawn
    torch.testing.assert_close(found.maps[0, 0] * found.weight[0, 0], expected, atol=1e-12, rtol=1e-9)


def test_roundings_by_hand() -> None:
    x = torch.tensor([-1.2, -0.7, -0.2, 2.5, 2.6], dtype=torch.float64)
    by_hand = {
        "none": [-1.2, -0.7, -0.2, 2.5, 2.6],
        "round": [-1, -1, 0, 3, 3],
        "floor": [-2, -1, -1, 2, 2],
        "ceil": [-1, 0, 0, 3, 3],
        "int": [0, 0, 0, 3, 3],
    }
    assert {name: f(x).tolist() for name, f in ROUNDING.items()} == by_hand


def test_gaussian_by_hand() -> None:
    """Peak 1 on a centre, exp(-1/2) one cell off it, exp(-1) on the diagonal, nothing beyond 3 sigma if cut."""
    maps = Gaussian(1.0)(at([[3.0, 4.0]]), (H, W)).maps[0, 0]
    assert float(maps[4, 3]) == 1
    assert float(maps[4, 2]) == pytest.approx(math.exp(-0.5))
    assert float(maps[3, 4]) == pytest.approx(math.exp(-1))
    cut = Gaussian(1.0, cutoff=True)(at([[0.0, 4.0]]), (H, W)).maps[0, 0]
    assert (cut > 0).sum(0).tolist() == [7, 7, 7, 7, 0, 0, 0]
    assert float(Gaussian(1.3, normalise=True)(at([[0.2, 8.4]]), (H, W)).maps.sum()) == pytest.approx(1)
    half = Gaussian(1.0)(at([[2.5, 4.0]]), (H, W)).maps[0, 0]
    assert float(half.max()) == pytest.approx(math.exp(-0.125))  # unbiased: the peak of the samples is below 1


def test_joints_just_outside() -> None:
    """A joint off the map is supervised by the tail of its Gaussian up to 3 sigma, not by one-hot maps."""
    labels = at([[-2.99, 4.0], [-3.01, 4.0], [W + 1.99, 4.0], [W + 2.01, 4.0], [3.0, H + 1.99], [3.0, -3.01]])
    assert Gaussian(1.0)(labels, (H, W)).weight.tolist() == [[1, 0, 1, 0, 1, 0]]
    # after rounding, 3 sigma itself still counts: the last column of the square lies on the map
    assert Gaussian(1.0, "floor")(at([[-2.9, 4.0], [-3.1, 4.0]]), (H, W)).weight.tolist() == [[1, 0]]
    assert Gaussian(1.0, "ceil")(at([[3.0, H + 1.9], [3.0, H + 2.1]]), (H, W)).weight.tolist() == [[1, 0]]
    edges = at([[-0.49, 0.0], [-0.51, 0.0], [W - 0.51, H - 0.51], [W - 0.49, 0.0], [0.0, H - 0.49]])
    assert OneHot()(edges, (H, W)).weight.tolist() == [[1, 0, 1, 0, 0]]
    assert Disk(1.2 / W)(edges, (H, W)).weight.tolist() == [[1, 1, 1, 1, 1]]
    assert Disk(1.2 / W)(at([[-1.3, 4.0]]), (H, W)).weight.tolist() == [[0]]


def test_gaussian_and_one_hot_by_weight() -> None:
    """The weight of a label is kept, not only whether there is one."""
    labels = at([[3.0, 4.0], [1.0, 1.0]])
    labels = Labels(labels.coords, labels.weight * torch.tensor([0.25, 0.0]).view(1, 2, 1))
    for target in (Gaussian(), OneHot(), Disk(0.2)):
        assert target(labels, (H, W)).weight.tolist() == [[0.25, 0]]


def test_one_hot_by_hand() -> None:
    target = OneHot()(at([[2.4, 7.6], [9.0, 0.0]]), (H, W))
    assert target.maps[0, 0].nonzero().tolist() == [[8, 2]]
    assert float(target.maps[0, 0].sum()) == 1
    assert float(target.maps[0, 1].abs().sum()) == 0


def test_disk_by_hand() -> None:
    """Radius 1 cell about a centre: a plus sign; 1.5 cells: a square of nine; the border belongs to the disk."""
    plus = Disk(1 / 8)(at([[3.0, 4.0]], (H, 8)), (H, 8)).maps[0, 0]
    assert plus.nonzero().tolist() == [[3, 3], [4, 2], [4, 3], [4, 4], [5, 3]]
    assert float(Disk(1.5 / 8)(at([[3.0, 4.0]], (H, 8)), (H, 8)).maps.sum()) == 9
    assert float(Disk(0.8 / 8)(at([[0.5, 0.5]], (H, 8)), (H, 8)).maps.sum()) == 4
    # 15 px of 256 on a map of 64 columns are 3.75 cells
    assert float(Disk()(at([[30.0, 30.0]], (64, 64)), (64, 64)).maps[0, 0, 30].sum()) == 7


@pytest.mark.parametrize("size", [(H, 6), (H, 7)])
@pytest.mark.parametrize(
    "target",
    [Gaussian(), Gaussian(1.0, "none", True, True), OneHot(), Disk(0.2)],
    ids=["gaussian", "cut", "onehot", "disk"],
)
def test_mirrored_labels_give_mirrored_maps(size: tuple[int, int], target: Gaussian | OneHot | Disk) -> None:
    """For even and odd widths, with no shift; rounding breaks this for good reasons (chapter 1)."""
    labels = random_labels(5)
    method = Heatmap(target, MSE(), Argmax())
    straight, mirrored = method.encode(labels, size), method.encode(flip_labels(labels, PAIRS), size)
    torch.testing.assert_close(method.unflip(mirrored.maps, PAIRS), straight.maps)
    assert torch.equal(mirrored.weight[:, [2, 1, 0]], straight.weight)


@settings(max_examples=40, deadline=None)
@given(st.floats(-0.4, 6.4), st.floats(-0.4, 8.4))
def test_what_is_encoded_is_decoded(x: float, y: float) -> None:
    """Argmax is within half a cell; both quarter shifts are within a quarter cell inside the map."""
    labels = at([[x, y]])
    maps = Gaussian(2.0)(labels, (H, W)).maps.float()
    error = (cells(Argmax()(maps), (H, W)) - torch.tensor([x, y], dtype=torch.float64)).abs()
    assert float(error.max()) <= 0.5 + 1e-5
    if 0.5 < x < 5.5 and 0.5 < y < 7.5:
        error = (cells(QuarterSign()(maps), (H, W)) - torch.tensor([x, y], dtype=torch.float64)).abs()
        assert float(error.max()) <= 0.25 + 1e-5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gaussian(sigma=0.0), "got sigma=0.0, expected a width above 0"),
        (lambda: Gaussian(sigma=float("nan")), "got sigma=nan"),
        (lambda: Gaussian(rounding="nearest"), "got rounding='nearest', expected one of none, round, floor, ceil, int"),
        (lambda: Disk(15.0), "got radius=15.0, expected a share of the crop's width"),
        (lambda: Argmax(empty="zero"), "got empty='zero', expected 'keep' or 'origin'"),
        (lambda: QuarterSign(border="hrnet"), "got border='hrnet', expected 'inside' or 'published'"),
    ],
)
def test_bad_options_are_refused(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        make()


def test_equal_widths_are_one_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are found by the hash of the description: 2 and 2.0 must not be two of them."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the shape checks want a float
    assert repr(Gaussian(sigma=2)) == repr(Gaussian(sigma=2.0))


# -- losses -----------------------------------------------------------------------------------------------------------


def test_mse_by_hand() -> None:
    """A 2 x 3 map of zeros but one 2, target one 1 elsewhere: (4 + 1)/6, gradient 2(p - t)/6."""
    maps = torch.tensor([[[[2.0, 0, 0], [0, 0, 0]]]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[[[0.0, 1, 0], [0, 0, 0]]]], dtype=torch.float64)
    loss = MSE()(maps, target)
    assert loss.tolist() == [[pytest.approx(5 / 6)]]
    (gradient,) = torch.autograd.grad(loss.sum(), maps)
    torch.testing.assert_close(gradient, (maps.detach() - target) / 3)


def test_softmax_cross_entropy_by_hand() -> None:
    """Logits 0 and log 3 over two cells: probabilities 1/4 and 3/4; -log of the right one; gradient p - t."""
    maps = torch.tensor([[[[0.0], [math.log(3)]]]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[[[1.0], [0.0]]]], dtype=torch.float64)
    loss = SoftmaxCrossEntropy()(maps, target)
    assert loss.tolist() == [[pytest.approx(math.log(4))]]
    (gradient,) = torch.autograd.grad(loss.sum(), maps)
    torch.testing.assert_close(gradient.flatten(), torch.tensor([-0.75, 0.75], dtype=torch.float64))
    torch.testing.assert_close(SoftmaxCrossEntropy().activate(maps).flatten(), torch.tensor([0.25, 0.75]).double())


def test_binary_cross_entropy_by_hand() -> None:
    """Logits log 3 and 0 against 0 and 1: (log 4 + log 2)/2; gradient (sigmoid - t)/2."""
    maps = torch.tensor([[[[math.log(3), 0.0]]]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[[[0.0, 1.0]]]], dtype=torch.float64)
    loss = BinaryCrossEntropy()(maps, target)
    assert loss.tolist() == [[pytest.approx(math.log(8) / 2)]]
    (gradient,) = torch.autograd.grad(loss.sum(), maps)
    torch.testing.assert_close(gradient.flatten(), torch.tensor([0.375, -0.25], dtype=torch.float64))
    torch.testing.assert_close(BinaryCrossEntropy().activate(maps).flatten(), torch.tensor([0.75, 0.5]).double())
    assert torch.equal(MSE().activate(maps), maps)


METHODS = [
    Heatmap(Gaussian(sigma=1.0), MSE(), Argmax()),
    Heatmap(OneHot(), SoftmaxCrossEntropy(), Argmax()),
    Heatmap(Disk(0.2), BinaryCrossEntropy(), Argmax()),
]
NAMED = pytest.mark.parametrize("method", METHODS, ids=["H1", "H2", "H3"])


@NAMED
def test_loss_is_the_weighted_mean_over_labelled_joints(method: Heatmap, generator: torch.Generator) -> None:
    labels = random_labels(2, margin=-1)
    labels = Labels(labels.coords, torch.rand(B, J, 1, generator=generator).double().expand(B, J, 2).contiguous())
    labels.weight[0, 1] = 0
    maps = torch.randn(B, J, H, W, generator=generator, dtype=torch.float64)
    target, total, mass = method.encode(labels, (H, W)), 0.0, 0.0
    for b in range(B):
        for j in range(J):
            alone = method.compare(maps[b : b + 1, j : j + 1], target.maps[b : b + 1, j : j + 1])
            total += float(labels.weight[b, j, 0]) * float(alone)
            mass += float(labels.weight[b, j, 0])
    found = method.loss(maps, labels)
    assert float(found["loss"]) == pytest.approx(total / mass)
    assert set(found) == {"heatmap", "loss"}
    fainter = Labels(labels.coords, labels.weight / 100)  # a mean does not depend on the unit of the weights
    assert float(method.loss(maps, fainter)["loss"]) == pytest.approx(total / mass)


@NAMED
def test_masked_joints_give_exactly_zero_gradient(method: Heatmap, generator: torch.Generator) -> None:
    labels = random_labels(3, margin=-1)
    labels.weight[0, 1], labels.weight[1, 2, 0] = 0, 0
    labels.coords[0, 1] = float("nan")
    maps = torch.randn(B, J, H, W, generator=generator, requires_grad=True)
    loss = method.loss(maps, labels)["loss"]
    assert bool(torch.isfinite(loss))
    (gradient,) = torch.autograd.grad(loss, maps)
    assert torch.equal(gradient[0, 1], torch.zeros(H, W))
    assert torch.equal(gradient[1, 2], torch.zeros(H, W))
    assert bool((gradient[0, 0].abs() > 0).any())
    broken = maps.detach().clone()
    broken[0, 1] = float("inf")  # whatever the network says there
    torch.testing.assert_close(method.loss(broken, labels)["loss"], loss.detach())
    assert bool(torch.isfinite(gradient).all())


@NAMED
def test_no_labelled_joint_at_all_is_a_loss_of_zero(method: Heatmap) -> None:
    labels = Labels(torch.full((B, J, 2), float("nan")), torch.zeros(B, J, 2))
    maps = torch.ones(B, J, H, W, requires_grad=True)
    loss = method.loss(maps, labels)["loss"]
    assert loss.detach() == 0
    assert torch.equal(torch.autograd.grad(loss, maps)[0], torch.zeros(B, J, H, W))


@NAMED
def test_gradients_by_finite_differences(method: Heatmap, generator: torch.Generator) -> None:
    labels = random_labels(4, margin=-1)
    labels.weight[1, 0] = 0
    maps = torch.randn(B, J, H, W, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: method.loss(m, labels)["loss"], maps)


@NAMED
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_finite_and_close(method: Heatmap, dtype: torch.dtype, generator: torch.Generator) -> None:
    """Maps at the edge of float16's range go through loss and decoding in float32."""
    labels = Labels(*(x.float() for x in random_labels(6, margin=-1)))
    maps = torch.randn(B, J, H, W, generator=generator)
    maps[0, 0, 2, 3], maps[1, 1] = 60000.0, -60000.0
    half = maps.to(dtype).requires_grad_()
    loss = method.loss(half, labels)["loss"]
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert half.grad is not None
    assert bool(torch.isfinite(half.grad).all())
    expected = method.loss(half.detach().float(), labels)["loss"]
    torch.testing.assert_close(loss.detach(), expected)
    for decoder in DECODERS:
        points = Heatmap(method.target, method.compare, decoder).decode(half.detach())
        assert bool(torch.isfinite(points.coords).all())
        assert points.coords.dtype == torch.float32


@NAMED
def test_a_map_equal_to_its_target_is_the_best(method: Heatmap) -> None:
    """Gradient descent from zero maps lowers each loss and moves the maximum to the joint."""
    labels = at([[2.0, 6.0], [5.0, 1.0]])
    maps = torch.zeros(1, 2, H, W, dtype=torch.float64, requires_grad=True)
    first = method.loss(maps, labels)["loss"]
    loss = first
    for _ in range(20):
        (gradient,) = torch.autograd.grad(loss, maps)
        maps = (maps - 5 * gradient).detach().requires_grad_()
        loss = method.loss(maps, labels)["loss"]
    assert bool(loss < 0.9 * first)
    if not isinstance(method.target, Disk):  # a disk does not say which of its cells is the middle
        assert cells(method.decode(maps.detach()), (H, W)).round().tolist() == [[[2, 6], [5, 1]]]


def test_sizes_of_maps_and_labels_must_agree() -> None:
    method, labels = METHODS[0], random_labels(0)
    with pytest.raises(ValueError, match=r"got maps of shape \(2, 4, 9, 7\) for labels of 2 images and 3 joints"):
        method.loss(torch.zeros(B, J + 1, H, W), labels)
    with pytest.raises(ValueError, match=r"expected \(2, 3, H, W\)"):
        method.loss(torch.zeros(B + 1, J, H, W), labels)
    with pytest.raises(ValueError, match=r"expected \(2, 3, H, W\)"):
        method.loss(torch.zeros(B, J, H), labels)
    with pytest.raises(ValueError, match=r"got an output of shape \(2, 3, 2\), expected maps \(B, J, H, W\)"):
        method.decode(torch.zeros(B, J, 2))
