"""The multi-resolution network: contrast normalisation and pyramid by slow loops, whole maps dropped, printed sizes."""

import itertools
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from coordreg.backbones.multires import (
    DROPOUTS,
    FLOOR,
    Banks,
    MultiRes,
    SlidingHead,
    SpatialDropout,
    halve,
    local_contrast,
    pools_of,
    pyramid,
)
from coordreg.backbones.resnet import parameters
from coordreg.coords import centres
from coordreg.method import MEAN, STD
from coordreg.spec import describe, rebuild, spec

B, C, H, W, J = 2, 3, 14, 11, 5
F64 = torch.float64


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# -- local contrast normalisation -------------------------------------------------------------------------------------


def slow_contrast(image: Tensor, kernel: int) -> Tensor:
    """One image (C, H, W), cell by cell: a kernel of ones over its sum times C; /coef, not its root, at the edge."""
    channels, height, width = image.shape
    k, r = 1 / (kernel * kernel * channels), kernel // 2

    def around(y: int, x: int) -> list[tuple[int, int, int]]:
        rows = range(max(0, y - r), min(height, y + r + 1))
        columns = range(max(0, x - r), min(width, x + r + 1))
        return list(itertools.product(range(channels), rows, columns))

    centred, out = torch.empty_like(image), torch.empty_like(image)
    for y, x in itertools.product(range(height), range(width)):
        coef = sum(k for _ in around(y, x))
        centred[:, y, x] = image[:, y, x] - sum(k * float(image[at]) for at in around(y, x)) / coef
    for y, x in itertools.product(range(height), range(width)):
        coef = sum(k for _ in around(y, x))
        adjusted = sum(k * float(centred[at]) ** 2 for at in around(y, x)) ** 0.5 / coef
        out[:, y, x] = centred[:, y, x] / (adjusted if adjusted > 1e-4 else 1e-4)
    return out


@pytest.mark.parametrize("kernel", [1, 3, 9, 13])
@pytest.mark.parametrize("channels", [1, 3])
def test_local_contrast_against_a_slow_loop(kernel: int, channels: int) -> None:
    """Also a kernel wider than the image; half of the second image lies below the floor."""
    images = noise(B, channels, 10, 7)
    images[1, :, :5] *= 1e-6
    found = local_contrast(images, kernel)
    for b in range(B):
        torch.testing.assert_close(found[b], slow_contrast(images[b], kernel), atol=1e-9, rtol=1e-9)
    assert local_contrast(images).equal(local_contrast(images, 9))


def test_local_contrast_by_hand() -> None:
    """A single bright cell of 9 in the middle of 3 x 3: its mean is 1, that of a corner 9/4, its deviation over 4/9."""
    image = torch.zeros(1, 1, 3, 3, dtype=F64)
    image[..., 1, 1] = 9
    mean = torch.tensor([[9 / 4, 9 / 6, 9 / 4], [9 / 6, 1, 9 / 6], [9 / 4, 9 / 6, 9 / 4]], dtype=F64)
    y = image[0, 0] - mean
    square = (4 * (9 / 4) ** 2 + 4 * (9 / 6) ** 2 + 64) / 9
    found = local_contrast(image, 3)[0, 0]
    assert float(found[1, 1]) == pytest.approx(8 / square**0.5)
    corner = ((9 / 4) ** 2 + 2 * (9 / 6) ** 2 + 64) / 9
    assert float(found[0, 0]) == pytest.approx(float(y[0, 0]) / (corner**0.5 / (4 / 9)))


@settings(max_examples=50, deadline=None)
@given(st.floats(-300, 300, width=32), st.sampled_from([1, 5, 9]), st.sampled_from([torch.float32, F64]))
def test_a_constant_image_gives_exactly_nothing(value: float, kernel: int, dtype: torch.dtype) -> None:
    assert bool((local_contrast(torch.full((B, C, H, W), value, dtype=dtype), kernel) == 0).all())


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 50), st.floats(-20, 20), st.booleans())
def test_scale_and_offset_do_not_matter_away_from_the_floor(scale: float, offset: float, negative: bool) -> None:
    images, sign = noise(B, C, H, W), -1 if negative else 1
    found = local_contrast(sign * scale * images + offset, 5)
    torch.testing.assert_close(found, sign * local_contrast(images, 5), atol=1e-9, rtol=1e-9)


def test_below_the_floor_contrast_is_divided_by_the_floor() -> None:
    images = 1e-6 * noise(B, C, H, W)
    found = local_contrast(images, 5)
    torch.testing.assert_close(local_contrast(10 * images, 5), 10 * found)
    r = 2
    mean = F.unfold(images, 5).view(B, C * 25, H - 2 * r, W - 2 * r).mean(1, keepdim=True)
    torch.testing.assert_close(found[..., r:-r, r:-r], (images[..., r:-r, r:-r] - mean) / FLOOR)


def test_the_gradient_of_contrast_is_right_and_finite_on_plain_walls() -> None:
    x = noise(1, 2, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: local_contrast(a, 3), (x,))
    wall = torch.full((1, C, H, W), 0.3)
    wall[..., 0] = 1.0
    wall.requires_grad_()
    local_contrast(wall, 3).square().sum().backward()
    assert wall.grad is not None
    assert bool(torch.isfinite(wall.grad).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_normalised_in_single(dtype: torch.dtype) -> None:
    """Dim pictures: squares of these numbers do not exist in half precision."""
    images = (1e-3 * noise(B, C, H, W)).to(dtype)
    found = local_contrast(images)
    assert found.dtype == dtype
    assert torch.equal(found, local_contrast(images.float()).to(dtype))


@pytest.mark.parametrize("kernel", [0, 4, -2, -3])
def test_contrast_needs_a_middle_cell(kernel: int) -> None:
    with pytest.raises(ValueError, match=rf"local_contrast: got kernel={kernel}, expected an odd number of cells"):
        local_contrast(torch.zeros(B, C, H, W), kernel)


# -- pyramid ----------------------------------------------------------------------------------------------------------


def test_halving_against_a_slow_loop() -> None:
    """(1, 3, 3, 1)/8 along each axis about the corner that four cells share; the border cell stands for what is out."""
    images, line = noise(B, C, 6, 10), (1 / 8, 3 / 8, 3 / 8, 1 / 8)
    found = halve(images)
    assert found.shape == (B, C, 3, 5)
    for y, x in itertools.product(range(3), range(5)):
        expected = torch.zeros(B, C, dtype=F64)
        for i, j in itertools.product(range(4), range(4)):
            row, column = min(max(2 * y - 1 + i, 0), 5), min(max(2 * x - 1 + j, 0), 9)
            expected += line[i] * line[j] * images[:, :, row, column]
        torch.testing.assert_close(found[:, :, y, x], expected)


@pytest.mark.parametrize("size", [(32, 48), (64, 16)])
def test_centres_stay_where_they_were(size: tuple[int, int]) -> None:
    """A ramp of normalised coordinates is that ramp on every level, but for the outermost cells."""
    height, width = size
    x = centres(width, dtype=F64).expand(height, width)
    y = centres(height, dtype=F64).unsqueeze(-1).expand(height, width)
    levels = pyramid(torch.stack([x, y]).expand(B, 2, height, width), 3)
    assert levels[0].shape == (B, 2, height, width)
    for level in levels[1:]:
        h, w = level.shape[-2:]
        torch.testing.assert_close(level[0, 0, 0, 1:-1], centres(w, dtype=F64)[1:-1])
        torch.testing.assert_close(level[1, 1, 1:-1, 0], centres(h, dtype=F64)[1:-1])
    first = (4 * x[0, 0] + 3 * x[0, 1] + x[0, 2]) / 8  # the border cell counts for the one beyond it too
    torch.testing.assert_close(levels[1][0, 0, 0, 0], first)


def test_a_pyramid_has_as_many_levels_as_it_is_asked_for() -> None:
    images = noise(B, C, 32, 48)
    assert [tuple(p.shape[-2:]) for p in pyramid(images, 4)] == [(32, 48), (16, 24), (8, 12), (4, 6)]
    assert len(pyramid(images)) == 3
    assert torch.equal(pyramid(images, 1)[0], images)


@pytest.mark.parametrize(
    ("size", "levels", "message"),
    [
        ((32, 50), 3, r"got images of 32 x 50 px for 3 levels.*multiples of 4 and at least 16 px"),
        ((30, 48), 3, r"got images of 30 x 48 px"),
        ((12, 48), 3, r"got images of 12 x 48 px"),
        ((2, 2), 1, r"multiples of 1 and at least 4 px"),
        ((32, 48), 0, r"for 0 levels, expected at least one level and sides that are multiples of 1 "),
    ],
)
def test_images_that_give_no_pyramid(size: tuple[int, int], levels: int, message: str) -> None:
    with pytest.raises(ValueError, match="pyramid: .*" + message):
        pyramid(torch.zeros(B, C, *size), levels)


# -- dropout ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rescale", "kept"), [("train", 4.0), ("test", 1.0)])
def test_maps_are_dropped_whole(rescale: str, kept: float) -> None:
    """p = 3/4: what stays is multiplied by 4, or not at all; at test time by 1, or by 1/4."""
    torch.manual_seed(0)
    layer, x = SpatialDropout(0.75, rescale), noise(20, 30, 4, 3).abs() + 1
    ratio = (layer(x) / x).flatten(2)
    assert bool((ratio == ratio[..., :1]).all())
    assert set(ratio.unique().tolist()) == {0.0, kept}
    assert len({tuple(row) for row in ratio[..., 0].tolist()}) == 20  # each image has draws of its own
    layer.eval()
    found = layer(x)
    assert torch.equal(found, x if rescale == "train" else x * 0.25)


@pytest.mark.parametrize("rescale", ["train", "test"])
@pytest.mark.parametrize("p", [0.2, 0.5, 0.75])
def test_the_mean_over_many_draws_is_what_test_time_gives(p: float, rescale: str) -> None:
    torch.manual_seed(0)
    layer, x, n = SpatialDropout(p, rescale), noise(1, 6, 2, 3), 20_000
    mean = layer(x.expand(n, 6, 2, 3)).mean(0, keepdim=True)
    layer.eval()
    bound = 4.5 * (p / (1 - p) / n) ** 0.5  # standard errors of the mean, as a share of the value
    assert bool(((mean / layer(x) - 1).abs() < bound).all())


def test_it_is_torchs_layer_in_distribution() -> None:
    """All 8 patterns of three maps, 20,000 draws each: one distribution by chi-square, and the same values."""
    torch.manual_seed(0)
    p, n = 0.3, 20_000
    x = torch.ones(n, 3, 2, 1)
    ours, theirs = SpatialDropout(p), nn.Dropout2d(p)
    counts = []
    for layer in (ours, theirs):
        out = layer(x)
        torch.testing.assert_close(out.unique(), torch.tensor([0.0, 1 / (1 - p)]))
        pattern = ((out[:, :, 0, 0] > 0) * torch.tensor([4, 2, 1])).sum(1)
        counts.append(pattern.bincount(minlength=8).double())
    chi = ((counts[0] - counts[1]).square() / (counts[0] + counts[1])).sum()
    assert float(chi) < 24.3  # 7 degrees of freedom: exceeded once in 1,000
    kept = torch.tensor([f"{i:03b}".count("1") for i in range(8)])
    expected = n * (1 - p) ** kept * p ** (3 - kept)
    assert float(((counts[0] - expected).square() / expected).sum()) < 24.3
    ours.eval(), theirs.eval()
    assert torch.equal(ours(x), x)
    assert torch.equal(theirs(x), x)


@pytest.mark.parametrize(("rescale", "slope"), [("train", 2.0), ("test", 1.0)])
def test_a_dropped_map_has_no_gradient(rescale: str, slope: float) -> None:
    torch.manual_seed(0)
    x = noise(B, 8, 4, 3).requires_grad_()
    out = SpatialDropout(0.5, rescale)(x)
    out.sum().backward()
    dropped = (out == 0).flatten(2).all(-1)
    assert x.grad is not None
    assert 0 < int(dropped.sum()) < B * 8
    assert bool((x.grad[dropped] == 0).all())
    assert bool((x.grad[~dropped] == slope).all())


@pytest.mark.parametrize(
    ("layer", "correlation", "spread", "nothing"),
    [
        (nn.Dropout(0.5), 0.0, 1 / 3, 0.5**9),
        (SpatialDropout(0.5), 1.0, 1.0, 0.5),
    ],
    ids=["standard", "spatial"],
)
def test_why_standard_dropout_fails_on_correlated_maps(
    layer: nn.Module, correlation: float, spread: float, nothing: float
) -> None:
    """Figures 3 to 5: a weight that nine equal neighbours share, p = 1/2, by hand.

    Each neighbour hands its weight 2 or 0, so that the gradient's mean is 9 either way. Neighbours that are dropped
    one by one do so independently: the deviation is sqrt(9) = 3, a third of the mean, and the weight goes without a
    gradient once in 512 steps. Dropped together they agree: the deviation is 9, and every other step has none at all.
    """
    torch.manual_seed(0)
    draws, cells = 20_000, 9
    weight = torch.ones(draws, 1, 1, 1, requires_grad=True)
    features = weight * torch.ones(1, 1, 1, cells)
    features.retain_grad()
    layer(features).sum().backward()
    assert weight.grad is not None
    assert features.grad is not None
    neighbours = features.grad[:, 0, 0, :]
    assert set(neighbours.unique().tolist()) == {0.0, 2.0}
    found = torch.corrcoef(neighbours.T)
    off = found[~torch.eye(cells, dtype=torch.bool)]
    assert float((off - correlation).abs().max()) < 0.035
    total = weight.grad.flatten()
    assert float(total.mean()) == pytest.approx(cells, rel=0.03)
    assert float(total.std() / total.mean()) == pytest.approx(spread, rel=0.03)
    assert float((total == 0).float().mean()) == pytest.approx(nothing, abs=max(0.0015, 0.03 * nothing))


def test_no_dropout_is_the_identity_and_print_shows_it() -> None:
    x = noise(B, C, 4, 3)
    assert torch.equal(SpatialDropout(0)(x), x)
    assert torch.equal(SpatialDropout(0, "test")(x), x)
    assert repr(SpatialDropout(0.25, "test")) == "SpatialDropout(p=0.25, rescale='test')"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p": 1.0}, r"got p=1\.0, expected a chance from 0 to below 1"),
        ({"p": -0.1}, r"got p=-0\.1"),
        ({"p": float("nan")}, r"got p=nan"),
        ({"rescale": "never"}, r"got rescale='never', expected 'train' or 'test'"),
    ],
)
def test_bad_dropout_is_refused(options: dict[str, float | str], message: str) -> None:
    with pytest.raises(ValueError, match="SpatialDropout: " + message):
        SpatialDropout(**options)  # type: ignore[arg-type]


# -- the banks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pooling", "convolutions", "expected"),
    [
        (4, 3, (1, 1, 0)),
        (8, 3, (1, 1, 1)),
        (16, 3, (1, 1, 2)),
        (16, 2, (1, 3)),
        (16, 8, (1, 1, 1, 1, 0, 0, 0, 0)),
        (32, 4, (1, 1, 1, 2)),
    ],
)
def test_where_the_pools_are(pooling: int, convolutions: int, expected: tuple[int, ...]) -> None:
    assert pools_of(pooling, convolutions) == expected
    assert 2 ** sum(expected) == pooling


@pytest.mark.parametrize("pooling", [0, 1, 2, 6, 12, -4])
def test_other_poolings_are_refused(pooling: int) -> None:
    with pytest.raises(ValueError, match=rf"MultiRes: got pooling={pooling}, expected a power of two, 4 or more"):
        MultiRes(pooling=pooling)


@pytest.mark.parametrize("pooling", [4, 8, 16])
@pytest.mark.parametrize("size", [(256, 256), (240, 320)])
def test_printed_sizes(size: tuple[int, int], pooling: int) -> None:
    """MPII's and FLIC's images: 128 x 256 x 256 after the first convolution, 128 x 128 x 128 after the second."""
    height, width = size
    with torch.device("meta"):
        network = MultiRes(pooling=pooling)
        banks = network(torch.empty(B, 3, height, width))
        maps = SlidingHead(network.channels, 14)(banks)
    for level in range(3):
        h, w = height // 2**level, width // 2**level
        assert banks.images[level].shape == (B, 3, h, w)
        assert banks.first[level].shape == (B, 128, h, w)
        assert banks.second[level].shape == (B, 128, h // 2, w // 2)
    assert banks.top.shape == (B, 128, height // pooling, width // pooling)
    assert maps.shape == (B, 14, height // pooling, width // pooling)
    assert banks.stride == pooling


def test_the_number_of_parameters_is_the_same_for_all_poolings() -> None:
    with torch.device("meta"):
        counts = {parameters(MultiRes(pooling=p)) for p in (4, 8, 16)}
        assert counts == {3 * ((25 * 3 + 1) * 128 + 2 * (25 * 128 + 1) * 128)}
        head = (81 * 128 + 1) * 512 + (512 + 1) * 256 + (256 + 1) * 256 + (256 + 1) * 9
        assert parameters(SlidingHead(128, 9)) == head


def test_the_stages_that_the_paper_counts() -> None:
    """FLIC: 7 stages, the last 4 of them fully connected; MPII: 11 and 3."""
    for convolutions, widths, stages, connected in ((3, (8, 6, 6), 7, 4), (8, (8, 6), 11, 3)):
        network = MultiRes((4,) * convolutions, pooling=8)
        head = SlidingHead(4, J, widths, kernel=3)
        last = [m for m in head.modules() if isinstance(m, nn.Conv2d)]
        assert len(last) == connected
        assert sum(isinstance(m, nn.Conv2d) for m in network.banks[0].modules()) + connected == stages
        assert head(network(torch.zeros(B, 3, 32, 64))).shape == (B, J, 4, 8)


def slow_pool(x: Tensor, size: int) -> Tensor:
    """Maxima of size x size blocks, those cut by the border included."""
    rows = [x[:, :, y : y + size] for y in range(0, x.shape[2], size)]
    return torch.stack(
        [torch.stack([r[..., i : i + size].amax((-2, -1)) for i in range(0, x.shape[3], size)], -1) for r in rows], -2
    )


@pytest.mark.parametrize("pooling", [4, 8, 16])
@pytest.mark.parametrize("size", [(64, 128), (48, 80)])
def test_banks_against_a_slow_network(pooling: int, size: tuple[int, int]) -> None:
    """Cell (r, c) of the top adds up cell (r / 2^l, c / 2^l) of every bank; blocks at the border may be incomplete."""
    torch.manual_seed(0)
    network = MultiRes((4, 3, 5), pooling, kernel=3, contrast=5).double()
    images = noise(B, 3, *size)
    mean, std = (torch.tensor(v, dtype=F64).view(3, 1, 1) for v in (MEAN, STD))
    banks = network((images - mean) / std)
    pools = {4: (2, 2, 1), 8: (2, 2, 2), 16: (2, 2, 4)}[pooling]
    top = torch.zeros(B, 5, size[0] // pooling, size[1] // pooling, dtype=F64)
    level = images
    for i in range(3):
        x = local_contrast(level, 5)
        torch.testing.assert_close(banks.images[i], x)
        for k, convolution in enumerate(network.banks[i]):  # type: ignore[arg-type, var-annotated]
            x = F.conv2d(x, convolution.weight, convolution.bias, padding=1).clamp_min(0)
            if k < 2:
                torch.testing.assert_close((banks.first, banks.second)[k][i], x)
            x = slow_pool(x, pools[k])
        for r, c in itertools.product(range(top.shape[2]), range(top.shape[3])):
            top[:, :, r, c] += x[:, :, r // 2**i, c // 2**i]
        level = halve(level)
    torch.testing.assert_close(banks.top, top)


@pytest.mark.parametrize(("pooling", "levels"), [(4, 2), (8, 1), (4, 3)])
def test_contexts_overlap(pooling: int, levels: int) -> None:
    """The window slides: an image moved by the coarsest cell moves the top by whole cells, away from the border.

    Moved by less than that, the banks' blocks fall otherwise.
    """
    torch.manual_seed(0)
    network = MultiRes((4, 3), pooling, levels, kernel=3, contrast=3).double()
    cells = 2 ** (levels - 1)
    step = pooling * cells
    images = noise(B, 3, 8 * step, 10 * step)
    inner = 3 * cells
    window = (..., slice(inner, -inner), slice(inner, -inner))
    with torch.no_grad():
        top = network(images).top
        right = network(images.roll(step, -1)).top
        down = network(images.roll(step, -2)).top
        torch.testing.assert_close(right.roll(-cells, -1)[window], top[window])
        torch.testing.assert_close(down.roll(-cells, -2)[window], top[window])
        less = network(images.roll(step // 2, -1)).top
        assert not torch.allclose(less.roll(-cells // 2, -1)[window], top[window], atol=1e-2)


def test_every_bank_and_layer_learns() -> None:
    torch.manual_seed(0)
    network = MultiRes((4, 3, 5), 8, kernel=3, contrast=5)
    head = SlidingHead(5, J, (7, 6), kernel=3)
    head(network(noise(B, 3, 32, 64, dtype=torch.float32))).square().sum().backward()
    for name, p in [*network.named_parameters(), *head.named_parameters()]:
        assert p.grad is not None, name
        assert bool((p.grad != 0).any()), name
    kernels = {id(bank[0].weight) for bank in network.banks}  # type: ignore[index]
    assert len(kernels) == 3


@pytest.mark.parametrize(
    ("size", "pooling", "levels", "message"),
    [
        ((250, 250), 8, 3, r"got images of 250 x 250 px, expected multiples of 8 px for 8x pooling.*248 x 248"),
        ((240, 327), 16, 3, r"multiples of 16 px.*the nearest size is 240 x 320"),
        ((66, 64), 4, 4, r"multiples of 8 px.*64 x 64"),
        ((3, 64), 8, 2, r"the nearest size is 8 x 64"),
        ((20, 21), 4, 4, r"the nearest size is 32 x 32"),
    ],
)
def test_sizes_that_do_not_fit(size: tuple[int, int], pooling: int, levels: int, message: str) -> None:
    """The size named instead is one that the network takes."""
    network = MultiRes((2, 2), pooling, levels, kernel=3, contrast=3)
    with pytest.raises(ValueError, match="MultiRes: .*" + message) as caught:
        network(torch.zeros(1, 3, *size))
    near = re.search(r"nearest size is (\d+) x (\d+)", str(caught.value))
    assert near is not None
    assert network(torch.zeros(1, 3, int(near[1]), int(near[2]))).stride == pooling


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": (4,)}, r"got 1 convolutions, 3 levels, kernel=5 and contrast=9"),
        ({"levels": 0}, r"0 levels"),
        ({"kernel": 4}, r"kernel=4"),
        ({"contrast": 8}, r"contrast=8, expected at least two, at least one, and two odd numbers of cells"),
    ],
)
def test_bad_networks_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match="MultiRes: .*" + message):
        MultiRes(**options)  # type: ignore[arg-type]


# -- the sliding head -------------------------------------------------------------------------------------------------


def banks_of(top: Tensor) -> Banks:
    return Banks([], [], [], top, 4)


def test_the_head_is_its_convolutions(generator: torch.Generator) -> None:
    """ReLU between all of them and none after the last; no dropout at test time."""
    torch.manual_seed(0)
    head = SlidingHead(4, J, (7, 6, 5), kernel=3).double().eval()
    top = noise(B, 4, 6, 3)
    x = top
    convolutions = [m for m in head.modules() if isinstance(m, nn.Conv2d)]
    assert [tuple(m.kernel_size) for m in convolutions] == [(3, 3), (1, 1), (1, 1), (1, 1)]
    for i, m in enumerate(convolutions):
        x = F.conv2d(x.clamp_min(0) if i else x, m.weight, m.bias, padding=m.padding)  # type: ignore[arg-type]
    found = head(banks_of(top))
    torch.testing.assert_close(found, x)
    assert bool((found < 0).any())


@pytest.mark.parametrize("dropout", DROPOUTS)
def test_dropout_stands_before_the_first_one_by_one(dropout: str) -> None:
    """What it gets are the rectified features of the window; what it gives goes into the first 1 x 1 convolution."""
    torch.manual_seed(0)
    head = SlidingHead(4, J, (40, 6), kernel=3, dropout=dropout, p=0.5)
    seen: dict[str, Tensor] = {}
    head.dropout.register_forward_hook(lambda m, args, out: seen.update(before=args[0], after=out))
    head.points[0].register_forward_hook(lambda m, args, out: seen.update(into=args[0]))
    top = noise(B, 4, 6, 7, dtype=torch.float32)
    head(banks_of(top))
    torch.testing.assert_close(seen["before"], F.relu(head.window(top)))
    assert torch.equal(seen["into"], seen["after"])
    alive = seen["before"].flatten(2).amax(-1) > 0
    gone = (seen["after"].flatten(2).amax(-1) == 0) & alive
    zeros = ((seen["after"] == 0) & (seen["before"] > 0)).any()
    assert bool(zeros) == (dropout != "none")
    assert (int(gone.sum()) > 10) == (dropout == "spatial")
    head.eval()
    assert torch.equal(head(banks_of(top)), head(banks_of(top)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": "random"}, r"got dropout='random', expected one of spatial, standard, none"),
        ({"widths": ()}, r"got widths=\(\), kernel=9, expected one or more, and odd"),
        ({"kernel": 8}, r"kernel=8"),
    ],
)
def test_bad_heads_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match="SlidingHead: .*" + message):
        SlidingHead(4, J, **options)  # type: ignore[arg-type]


# -- precision, description -------------------------------------------------------------------------------------------


def test_autocast_keeps_the_pictures_and_all_is_finite() -> None:
    torch.manual_seed(0)
    network = MultiRes((4, 3, 5), 8, kernel=3, contrast=5)
    head = SlidingHead(5, J, (7, 6), kernel=3)
    images = 0.01 * noise(B, 3, 32, 64, dtype=torch.float32) + 2
    plain = network(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        banks = network(images)
        maps = head(banks)
    assert maps.dtype == torch.bfloat16
    assert all(torch.equal(a, b) for a, b in zip(banks.images, plain.images, strict=True))
    torch.testing.assert_close(banks.top.float(), plain.top, atol=0.1, rtol=0.05)
    maps.float().square().sum().backward()
    for p in [*network.parameters(), *head.parameters()]:
        assert p.grad is not None
        assert bool(torch.isfinite(p.grad).all())


def test_descriptions_come_back() -> None:
    wanted = spec(MultiRes, widths=(4, 3, 5), pooling=16, levels=2, kernel=3, contrast=7)
    again = rebuild(describe(wanted))
    assert again == wanted
    network = again.build()
    assert (network.pools, network.levels, network.channels, network.contrast) == ((1, 1, 2), 2, 5, 7)
    head = spec(SlidingHead, channels=5, joints=J, widths=(7, 6), kernel=3, dropout="standard", p=0.25)
    assert rebuild(describe(head)) == head
    assert head.build().dropout.p == 0.25


def test_a_grey_wall_is_plain_to_a_whole_estimator() -> None:
    """Estimator shifts and scales the channels apart; the contrast is that of the picture all the same."""
    grey = torch.full((1, 3, 32, 32), 0.5)
    normalised = (grey - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    banks = MultiRes((2, 2, 2))(normalised)
    assert all(float(image.abs().max()) < 1e-2 for image in banks.images)
    assert float(local_contrast(normalised).abs().max()) > 1
