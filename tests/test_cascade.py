"""The cascade: windows and their gradients by hand, the fine network's printed sizes and geometry, the three phases."""

import itertools
import json
import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F

from coordreg.backbones.multires import Banks, MultiRes, SlidingHead
from coordreg.backbones.resnet import parameters
from coordreg.cascade import Cascade, Cascaded, CascadeHead, CascadeMethod, Coarse, Levels, Refined
from coordreg.coords import Batch, Labels, Points, centres, flip_coords, from_pixels, swap, to_pixels
from coordreg.data.figures import Figures
from coordreg.data.store import Store
from coordreg.experiments.scale import PCKH
from coordreg.heatmap import MSE, Argmax, Gaussian, Heatmap, QuarterSign, SoftmaxCrossEntropy
from coordreg.method import Estimator
from coordreg.records import Reading, Run
from coordreg.running import execute
from coordreg.spec import Spec, describe, rebuild, spec
from coordreg.train import Training, fit, load_checkpoint, predict
from coordreg.windows import FineNet, Window, cut, equal_width, local, locate, sample

B, J, H, W = 2, 3, 32, 48
F64 = torch.float64
PAIRS = ((0, 2),)
CPU = Fabric(accelerator="cpu", devices=1)


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def described(joints: int = J, fine: int = 1, **options: Any) -> Spec:
    """A tiny cascade at 4x pooling with a window of 16 px; a second level, if asked for, has one of 8 px."""
    nets = [spec(FineNet, joints=joints, channels=(4, 5), window=16, levels=2, widths=(3, 6), kernel=3),
            spec(FineNet, joints=joints, channels=(4, 5), window=8, levels=1, widths=(3, 4), kernel=3)]  # fmt: skip
    return spec(
        Cascade,
        backbone=spec(MultiRes, widths=(4, 5, 6), pooling=4, levels=2, kernel=3, contrast=5),
        head=spec(
            CascadeHead,
            coarse=spec(SlidingHead, channels=6, joints=joints, widths=(7, 6), kernel=3),
            fine=tuple(nets[:fine]),
        ),
        method=spec(CascadeMethod, **options),
    )


def model(fine: int = 1, seed: int = 0, **options: Any) -> Cascade:
    torch.manual_seed(seed)
    made = described(fine=fine, **options).build()
    assert isinstance(made, Cascade)
    return made


def batch(seed: int = 0) -> Batch:
    """Noise, and labels anywhere in it."""
    images = noise(B, 3, H, W, seed=seed, dtype=torch.float32).sigmoid()
    coords = torch.rand(B, J, 2, generator=torch.Generator().manual_seed(seed)) * 1.8 - 0.9
    return Batch(
        images, Labels(coords, torch.ones(B, J, 2)), torch.ones(B, J, dtype=torch.bool), torch.ones(B),
        torch.eye(2, 3).repeat(B, 1, 1),
    )  # fmt: skip


def coarse_part(network: Cascade) -> list[nn.Parameter]:
    return [*network.backbone.parameters(), *network.head.coarse.parameters()]


def fine_part(network: Cascade) -> list[nn.Parameter]:
    return list(network.head.fine.parameters())


# -- windows ----------------------------------------------------------------------------------------------------------


def slow_cut(features: Tensor, start: Tensor, cells: int) -> Tensor:
    b, c, height, width = features.shape
    found = torch.zeros(b, start.shape[1], c, cells, cells, dtype=features.dtype)
    for i, j, r, s in itertools.product(range(b), range(start.shape[1]), range(cells), range(cells)):
        x, y = int(start[i, j, 0]) + s, int(start[i, j, 1]) + r
        if 0 <= x < width and 0 <= y < height:
            found[i, j, :, r, s] = features[i, :, y, x]
    return found


def everywhere(height: int, width: int, cells: int) -> Tensor:
    """Every place of a window, from wholly outside on one side to wholly outside on the other; backwards in image 1."""
    starts = [(x, y) for y in range(-cells - 1, height + 2) for x in range(-cells - 1, width + 2)]
    one = torch.tensor(starts)
    return torch.stack([one, one.flip(0)])


@pytest.mark.parametrize("cells", [1, 3, 6])
def test_cut_against_a_slow_loop_over_all_borders(cells: int) -> None:
    features = noise(B, 4, 5, 7)
    start = everywhere(5, 7, cells)
    torch.testing.assert_close(cut(features, start, cells), slow_cut(features, start, cells), atol=0, rtol=0)
    channels_last = features.to(memory_format=torch.channels_last)
    torch.testing.assert_close(cut(channels_last, start, cells), cut(features, start, cells), atol=0, rtol=0)


def test_the_gradient_of_a_cut_is_the_sum_of_its_copies() -> None:
    """By hand: one row of five cells, two joints' windows of two overlap in its middle, a third hangs over the end."""
    features = torch.zeros(1, 1, 1, 5, requires_grad=True)
    start = torch.tensor([[[1, 0], [2, 0], [4, 0]]])
    weights = torch.tensor([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]])
    (cut(features, start, 2)[0, :, 0, 0] * weights).sum().backward()
    assert features.grad is not None
    assert features.grad.flatten().tolist() == [0, 1, 2 + 10, 20, 100]


def test_the_gradient_of_a_cut_against_a_slow_loop() -> None:
    features, start, cells = noise(B, 4, 5, 7).requires_grad_(), everywhere(5, 7, 3), 3
    out = cut(features, start, cells)
    slope = noise(*out.shape, seed=1)
    out.backward(slope)
    expected = torch.zeros(B, 4, 5, 7, dtype=F64)
    for i, j, r, s in itertools.product(range(B), range(start.shape[1]), range(cells), range(cells)):
        x, y = int(start[i, j, 0]) + s, int(start[i, j, 1]) + r
        if 0 <= x < 7 and 0 <= y < 5:
            expected[i, :, y, x] += slope[i, j, :, r, s]
    torch.testing.assert_close(features.grad, expected)
    few = torch.tensor([[[-1, -2], [0, 1], [1, 1], [6, 4]], [[5, 3], [5, 3], [2, -1], [9, 9]]])
    small = noise(B, 2, 5, 7).requires_grad_()
    assert torch.autograd.gradcheck(lambda f: cut(f, few, 3), (small,))
    at = noise(B, 4, 2, seed=2) * 0.6
    assert torch.autograd.gradcheck(lambda f: sample(f, at, 3), (small,))


@pytest.mark.parametrize("cells", [1, 2, 5])
def test_sample_is_cut_where_cells_are_whole(cells: int) -> None:
    features, start = noise(B, 4, 5, 7), everywhere(5, 7, cells)
    middle = from_pixels(start.to(F64) + (cells - 1) / 2, (5, 7))
    torch.testing.assert_close(sample(features, middle, cells), cut(features, start, cells), atol=1e-12, rtol=0)


def test_sample_between_cells_by_hand() -> None:
    """Half a cell to the right, then a quarter down too; zeros beyond the border."""
    features = torch.tensor([[[[1.0, 2, 4], [8, 16, 32]]]])
    at = from_pixels(torch.tensor([[[1.0, 0.0], [2.0, 0.0], [1.0, 0.25]]]), (2, 3))
    found = sample(features, at, 2)[0, :, 0]
    half = from_pixels(torch.tensor([[[1.0, 0.5]]]), (2, 3))
    torch.testing.assert_close(sample(features, half, 2)[0, 0, 0], torch.tensor([[1.5, 3.0], [12.0, 24.0]]))
    torch.testing.assert_close(found[0], torch.tensor([[0.75, 1.5], [6.75, 13.5]]))  # rows -1/2 and 1/2
    torch.testing.assert_close(found[1], torch.tensor([[1.5, 1.0], [13.5, 9.0]]))
    down = torch.tensor([[0.75 * 1.5 + 0.25 * 0, 0.75 * 3.0], [0.25 * 1.5 + 0.75 * 12, 0.25 * 3 + 0.75 * 24]])
    torch.testing.assert_close(found[2], torch.stack([down[0] * 1, down[1]]))


def test_sample_keeps_places_in_their_own_precision() -> None:
    """bfloat16 knows 256 numbers between 1/2 and 1: places there would be a third of a cell off."""
    features = centres(200).expand(1, 1, 4, 200)
    at = from_pixels(torch.tensor([[[177.0, 1.0]]]), (4, 200))
    found = sample(features.to(torch.bfloat16), at, 3)
    assert found.dtype == torch.bfloat16
    expected = features[0, 0, 0, 176:179].to(torch.bfloat16).expand(3, 3)
    torch.testing.assert_close(found[0, 0, 0], expected, atol=0, rtol=0)


# -- the fine network -------------------------------------------------------------------------------------------------


def banks_of(size: tuple[int, int], channels: tuple[int, int], levels: int = 2, batch: int = B) -> Banks:
    """Banks of noise, of the sizes that MultiRes gives."""

    def maps(c: int, down: int, seed: int) -> Tensor:
        return noise(batch, c, size[0] // down, size[1] // down, seed=seed)

    return Banks(
        [maps(3, 2**i, i) for i in range(levels)],
        [maps(channels[0], 2**i, 10 + i) for i in range(levels)],
        [maps(channels[1], 2 ** (i + 1), 20 + i) for i in range(levels)],
        noise(batch, 6, size[0] // 4, size[1] // 4),
        4,
    )  # fmt: skip


@pytest.mark.parametrize("how", ["integer", "bilinear"])
def test_printed_sizes(how: str) -> None:
    """Figures 4, 7 and 8: 14 joints, windows of 36, 18, 18 and 9 cells of 128 features, then 64 and 128."""
    seen: list[tuple[int, ...]] = []
    with torch.device("meta"):
        fine = FineNet(14, cut=how)
        for layers in fine.inputs:
            layers.register_forward_pre_hook(lambda m, args: seen.append(tuple(args[0].shape)))
            layers[1].register_forward_hook(lambda m, args, out: seen.append(tuple(out.shape)))  # type: ignore[index]
            layers.register_forward_hook(lambda m, args, out: seen.append(tuple(out.shape)))
        banks = MultiRes()(torch.empty(1, 3, 256, 256))
        window = fine(banks, torch.zeros(1, 14, 2))
    for i, cells in enumerate((36, 18, 18, 9)):
        assert seen[3 * i : 3 * i + 3] == [(14, c, cells, cells) for c in (128, 64, 128)]
    assert window.maps.shape == (1, 14, 36, 36)
    assert window.middle.shape == (1, 14, 2)


def test_the_number_of_parameters_by_formula() -> None:
    """Only the last layer knows how many joints there are: 6 + 1 numbers each."""

    def count(joints: int) -> int:
        return parameters(FineNet(joints, (4, 5), 16, 2, (3, 6), kernel=3))

    body = 2 * ((9 * 4 + 1) * 3 + (9 * 5 + 1) * 3 + 2 * (9 * 3 + 1) * 6) + (6 + 1) * 6
    assert count(J) == body + J * (6 + 1)
    assert count(14) - count(J) == (14 - J) * (6 + 1)


@pytest.mark.parametrize("how", ["integer", "bilinear"])
def test_all_joints_share_the_network_but_the_last_layer(how: str) -> None:
    """Joints that exchange their windows exchange their features, not their maps."""
    torch.manual_seed(0)
    fine = FineNet(J, (4, 5), 16, 2, (3, 6), kernel=3, cut=how).double()
    banks, about, order = banks_of((H, W), (4, 5)), noise(B, J, 2) * 0.5, [2, 0, 1]
    seen: list[Tensor] = []
    fine.last.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    with torch.no_grad():
        first, second = fine(banks, about).maps, fine(banks, about[:, order]).maps
        torch.testing.assert_close(seen[1], seen[0][:, order])
        assert not torch.allclose(second, first[:, order], atol=1e-3)
        bias = fine.last.bias
        expected = torch.einsum("bjnc,jc->bjn", seen[0], fine.last.weight) + bias.view(J, 1)
        torch.testing.assert_close(first.flatten(-2), expected)
        fine.last.weight.copy_(fine.last.weight[:1].expand_as(fine.last.weight))
        bias.copy_(bias[:1].expand(J))
        torch.testing.assert_close(fine(banks, about[:, order]).maps, fine(banks, about).maps[:, order])


def test_the_fine_network_against_a_slow_one() -> None:
    """Windows by slow cuts, convolutions joint by joint, repeated cell by cell, added, mixed."""
    torch.manual_seed(0)
    fine = FineNet(J, (4, 5), 16, 2, (3, 6), kernel=3).double()
    banks, about = banks_of((H, W), (4, 5)), noise(B, J, 2) * 0.7
    with torch.no_grad():
        window = fine(banks, about)
        first = torch.floor((about + 1) * torch.tensor([W, H]) / 2 - 0.5 - 7.5 + 0.5)
        sources = [banks.first[0], banks.second[0], banks.first[1], banks.second[1]]
        for b, j in itertools.product(range(B), range(J)):
            total = torch.zeros(6, 16, 16, dtype=F64)
            for source, stride, layers in zip(sources, (1, 2, 2, 4), fine.inputs, strict=True):
                start = torch.floor(first[b : b + 1, j : j + 1] / stride + 0.5)
                found = layers(slow_cut(source[b : b + 1], start, 16 // stride)[0])[0]
                for r, c in itertools.product(range(16), range(16)):
                    total[:, r, c] += found[:, r // stride, c // stride]
            mixed = F.conv2d(total[None], fine.mix.weight, fine.mix.bias).clamp_min(0)[0]
            expected = (mixed * fine.last.weight[j].view(6, 1, 1)).sum(0) + fine.last.bias[j]
            torch.testing.assert_close(window.maps[b, j], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 34}, r"got window=34 px for 2 levels, expected .* multiple of 4 px, .*; the nearest is 32"),
        ({"window": 39}, r"got window=39 px.*the nearest is 40"),
        ({"window": 1}, r"the nearest is 4"),
        ({"window": 0}, r"got window=0 px.*the nearest is 4"),
        ({"window": 36, "levels": 3}, r"multiple of 8 px.*the nearest is (32|40)"),
        ({"levels": 0}, r"for 0 levels, expected at least one level"),
        ({"cut": "nearest"}, r"got cut='nearest', source='features', expected 'integer' or 'bilinear'"),
        ({"source": "pixels"}, r"source='pixels', expected .*'features' or 'image'"),
        ({"extra": 8}, r"got source='features' with extra=8; only the standard cascade"),
        ({"source": "image"}, r"got source='image' with extra=0; only the standard cascade.*must have one"),
        ({"kernel": 4}, r"got kernel=4, expected an odd number"),
    ],
)
def test_bad_fine_networks_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="FineNet: .*" + message):
        FineNet(J, (4, 5), **{"kernel": 3, **options})


def test_the_nearest_window_is_one_that_fits() -> None:
    for window, levels in itertools.product(range(1, 70), (1, 2, 3)):
        try:
            FineNet(J, (1, 1), window, levels, (1, 1), kernel=1)
        except ValueError as error:
            near = int(str(error).rsplit(" ", 1)[1])
            assert abs(near - window) <= 2 ** (levels - 1) or window < 2**levels
            FineNet(J, (1, 1), near, levels, (1, 1), kernel=1)


def test_a_window_larger_than_the_image_and_other_misfits() -> None:
    about = torch.zeros(B, J, 2, dtype=F64)
    fine = FineNet(J, (4, 5), 36, 2, (3, 6), kernel=3).double()
    with pytest.raises(ValueError, match=r"FineNet: got a window of 36 px for images of 32 x 48 px, expected one that"):
        fine(banks_of((32, 48), (4, 5)), about)
    assert fine(banks_of((36, 48), (4, 5)), about).maps.shape == (B, J, 36, 36)
    with pytest.raises(ValueError, match=r"FineNet: got 5 joints and 2 banks, expected 3 joints and at least 2 banks"):
        fine(banks_of((36, 48), (4, 5)), torch.zeros(B, 5, 2, dtype=F64))
    with pytest.raises(ValueError, match=r"got 3 joints and 1 banks.*at most the backbone's levels"):
        fine(banks_of((36, 48), (4, 5), levels=1), about)
    assert fine(banks_of((40, 48), (4, 5), levels=3), about).maps.shape == (B, J, 36, 36)  # the third is not cut


# -- where a window lies ----------------------------------------------------------------------------------------------


def seeing(window: int, source: int, how: str, levels: int = 2) -> FineNet:
    """A fine network whose maps are the first channel of one of its inputs, cell by cell."""
    fine = FineNet(J, (1, 1), window, levels, (1, 1), kernel=1, cut=how).double()
    with torch.no_grad():
        for p in fine.parameters():
            p.zero_()
        for layer in (m for m in fine.inputs[source].modules() if isinstance(m, nn.Conv2d)):
            layer.weight.fill_(1)
        fine.mix.weight.fill_(1)
        fine.last.weight.fill_(1)
    return fine


def plain_banks(first: Tensor, size: tuple[int, int]) -> Banks:
    """One channel each; `first` replaces the finest first convolution's output."""
    banks = banks_of(size, (1, 1), batch=len(first))
    return banks._replace(first=[first, banks.first[1]])


SIZES = [(24, 40), (36, 20)]


@pytest.mark.parametrize("how", ["integer", "bilinear"])
@pytest.mark.parametrize("size", SIZES)
def test_a_bright_pixel_is_found_where_it_is(size: tuple[int, int], how: str) -> None:
    """Anywhere in the image, its corners included, seen in a window about any coarse cell nearby; also beyond it."""
    height, width = size
    fine, n = seeing(12, 0, how), 12
    pixels = [(0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1), (7, 11), (8, 12)]
    for (x, y), (dx, dy) in itertools.product(pixels, [(-5, 4), (0, 0), (3.0, -2.0), (-0.5, 1.5)]):
        image = torch.zeros(1, 1, *size, dtype=F64)
        image[..., y, x] = 1
        about = from_pixels(torch.tensor([[[x + dx, y + dy]]], dtype=F64), size).expand(1, J, 2)
        window = fine(plain_banks(image, size), about)
        found = Refined()(Cascaded(torch.zeros(1, J, 2, 3, dtype=F64), (window,))).coords
        miss = (to_pixels(found, size) - torch.tensor([x, y], dtype=F64)).abs()
        torch.testing.assert_close(window.half, torch.tensor([n / width, n / height], dtype=F64))
        moved = how == "bilinear" and dx % 1 != 0.5  # an even window about a pixel's centre: cells lie between pixels
        assert float(miss.max()) == pytest.approx(0.5 if moved else 0, abs=1e-9)


@pytest.mark.parametrize("how", ["integer", "bilinear"])
@pytest.mark.parametrize("size", SIZES)
def test_a_window_knows_where_each_of_its_cells_lies(size: tuple[int, int], how: str) -> None:
    """Features that hold their own x, or y: maps hold what `locate` says of their cells, and 0 beyond the border."""
    height, width = size
    x = centres(width, dtype=F64).expand(height, width) + 2
    y = centres(height, dtype=F64).unsqueeze(-1).expand(height, width) + 2
    fine, about = seeing(12, 0, how), noise(4, J, 2, seed=3) * 0.7
    cells = centres(12, dtype=F64)
    for axis, values in enumerate((x, y)):
        window = fine(plain_banks(values.expand(4, 1, height, width), size), about)
        grid = torch.stack(torch.meshgrid(cells, cells, indexing="xy"), -1)
        at = window.middle[:, :, None, None] + window.half * grid
        limit = 1 - 1 / torch.tensor([width, height], dtype=F64)
        inside, outside = (at.abs() < limit + 1e-9).all(-1), (at.abs() > 2 - limit - 1e-9).any(-1)
        torch.testing.assert_close(window.maps[inside], at[..., axis][inside] + 2)
        assert bool(outside.any())
        torch.testing.assert_close(window.maps[outside], torch.zeros_like(window.maps[outside]), atol=1e-9, rtol=0)
        near = (window.middle - about).abs() * torch.tensor([width, height]) / 2
        assert float(near.max()) <= (0.5 + 1e-9 if how == "integer" else 1e-9)


@pytest.mark.parametrize("source", [1, 2, 3])
def test_coarser_inputs_lie_on_the_same_place(source: int) -> None:
    """Inputs of 2, 2 and 4 px a cell: exact where a cell begins ("integer") and everywhere ("bilinear"), else near."""
    size, stride = (32, 40), (1, 2, 2, 4)[source]
    coarse = centres(size[1] // stride, dtype=F64).expand(B, 1, size[0] // stride, -1) + 2
    for how, aligned in itertools.product(("integer", "bilinear"), (True, False)):
        fine, banks = seeing(12, source, how), banks_of(size, (1, 1))
        (banks.first if source == 2 else banks.second)[source // 2] = coarse.contiguous()
        first = torch.tensor([[8.0, 4], [12, 16], [20, 8]], dtype=F64) + (0 if aligned else 1)
        window = fine(banks, from_pixels(first + 5.5, size).expand(B, J, 2))
        at = window.middle[0, :, :1] + window.half[0] * centres(12, dtype=F64) + 2  # (J, n)
        blocks = at.unflatten(-1, (-1, stride)).mean(-1).repeat_interleave(stride, -1)
        miss = (window.maps[0, :, 5].detach() - blocks).abs() * size[1] / 2  # in pixels
        if aligned or how == "bilinear":
            assert float(miss.max()) < 1e-9
        else:
            assert 0 < float(miss.max()) <= stride / 2 + 1e-9


def test_the_place_is_not_differentiated() -> None:
    fine = FineNet(J, (4, 5), 16, 2, (3, 6), kernel=3, cut="bilinear").double()
    about = torch.zeros(B, J, 2, dtype=F64, requires_grad=True)
    window = fine(banks_of((H, W), (4, 5)), about)
    window.maps.sum().backward()
    assert about.grad is None
    assert not window.middle.requires_grad


points = st.floats(-2, 2, allow_nan=False)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(points, points), min_size=J, max_size=J), st.integers(2, 40), st.integers(2, 40))
def test_local_and_locate_undo_each_other(found: list[tuple[float, float]], w: int, h: int) -> None:
    coords = torch.tensor([found, found[::-1]], dtype=F64)
    middle, half = noise(2, J, 2) * 0.3, torch.tensor([12 / (w + 12), 12 / (h + 12)], dtype=F64)
    window = Window(middle, half, torch.zeros(2, J, 12, 12))
    weight = torch.full((2, J, 2), 0.5, dtype=F64)
    inner = local(window, Labels(coords, weight))
    inside = ((coords - middle).abs() <= half + 1e-12).all(-1)
    assert torch.equal(inner.weight, weight * inside.unsqueeze(-1))
    back = locate(window, Points(inner.coords, inner.weight[..., 0]))
    torch.testing.assert_close(back[inside], coords[inside])
    assert bool((inner.coords[~inside] == 0).all())


def test_local_ignores_what_is_not_labelled() -> None:
    window = Window(torch.zeros(1, 3, 2), torch.tensor([0.5, 0.25]), torch.zeros(1, 3, 4, 4))
    coords = torch.tensor([[[math.nan, 0.1], [0.25, 0.25], [0.25, 0.251]]])
    weight = torch.tensor([[[0.0, 1.0], [1.0, 1.0], [1.0, 1.0]]])
    inner = local(window, Labels(coords, weight))
    assert inner.coords.tolist() == [[[0, 0], [0.5, 1], [0, 0]]]
    assert inner.weight.tolist() == [[[0, 0], [1, 1], [0, 0]]]


# -- the head ---------------------------------------------------------------------------------------------------------


def test_windows_lie_about_the_coarse_maximum_then_about_the_fine_one() -> None:
    network = model(fine=2).eval()
    images = batch().images
    with torch.no_grad():
        output = network(images)
    assert output.coarse.shape == (B, J, H // 4, W // 4)
    assert [tuple(w.maps.shape[2:]) for w in output.windows] == [(16, 16), (8, 8)]
    about = Argmax()(output.coarse).coords
    for window, n in zip(output.windows, (16, 8), strict=True):
        first = torch.floor(to_pixels(about, (H, W)) - (n - 1) / 2 + 0.5)
        torch.testing.assert_close(to_pixels(window.middle, (H, W)), first + (n - 1) / 2, atol=1e-5, rtol=0)
        about = locate(window, Argmax()(window.maps))
    torch.testing.assert_close(network.predict(images).coords, about)
    assert torch.equal(network.predict(images).score, output.coarse.amax((-2, -1)))
    coarse = to_pixels(Argmax()(output.coarse).coords, (H, W))
    assert bool(((to_pixels(output.windows[0].middle, (H, W)) - coarse).abs() < 1e-4).all())  # 4 i + 3/2: whole cells


def test_a_cascade_needs_a_refinement() -> None:
    with pytest.raises(ValueError, match=r"CascadeHead: got no FineNet, expected at least one; without one"):
        CascadeHead(SlidingHead(6, J, (7,), kernel=3), ())
    with pytest.raises(ValueError, match=r"CascadeMethod reads Levels but the head SlidingHead produces Maps"):
        Estimator(MultiRes((2, 2)), SlidingHead(2, J, (7,)), CascadeMethod())


def test_outputs_of_a_cascade_are_not_averaged() -> None:
    network = model().eval()
    output = network(batch().images)
    with pytest.raises(ValueError, match=r'windows of a mirrored image cannot be averaged.*flip="points"'):
        network.method.unflip(output, PAIRS)
    with pytest.raises(ValueError, match=r"outputs of several networks lie in different windows; average their points"):
        network.method.merge([output, output])
    assert network.method.reads is network.head.produces is Levels


# -- the losses -------------------------------------------------------------------------------------------------------


def slow_mse(found: Tensor, x: float, y: float, sigma: float) -> float:
    """Mean over the cells of (map - Gaussian about index pixel (x, y))^2."""
    total = 0.0
    for r, c in itertools.product(range(found.shape[0]), range(found.shape[1])):
        g = math.exp(-((c - x) ** 2 + (r - y) ** 2) / (2 * sigma**2))
        total += (float(found[r, c]) - g) ** 2
    return total / found.numel()


def by_hand() -> tuple[Cascaded, Labels]:
    """Two joints in their windows, one outside, the fourth not labelled; a second level that has lost one more."""
    size, joints = (H, W), 4
    pixels = torch.tensor([[[10.25, 9.0], [30.0, 20.4], [44.0, 3.0], [math.nan, 5.0]]], dtype=F64)
    weight = torch.ones(1, joints, 2, dtype=F64)
    weight[0, 3] = 0
    about = torch.tensor([[[11.5, 8.5], [27.5, 24.5], [20.5, 20.5], [20.5, 20.5]]], dtype=F64)

    def window(n: int, seed: int) -> Window:
        half = torch.tensor([n / W, n / H], dtype=F64)
        return Window(from_pixels(about, size), half, noise(1, joints, n, n, seed=seed))

    coarse = noise(1, joints, H // 4, W // 4)
    return Cascaded(coarse, (window(16, 1), window(8, 2))), Labels(from_pixels(pixels, size), weight)


@pytest.mark.parametrize("weight", [0.1, 2.0])
def test_the_losses_by_hand(weight: float) -> None:
    """E1 + lambda E2: means over cells and joints; the two levels' E2 add up; 2 of 3 joints leave the last window."""
    output, labels = by_hand()
    method = CascadeMethod(Gaussian(1.25), Gaussian(1.75), weight=weight)
    parts = method.loss(output, labels)
    assert set(parts) == {"coarse", "fine", "lost", "loss"}
    places = [(10.25, 9.0), (30.0, 20.4), (44.0, 3.0)]
    e1 = [slow_mse(output.coarse[0, j], (x - 1.5) / 4, (y - 1.5) / 4, 1.25) for j, (x, y) in enumerate(places)]
    assert float(parts["coarse"]) == pytest.approx(sum(e1) / 3)
    first, second = (w.maps[0] for w in output.windows)  # windows of 16 from pixel (4, 1) and (20, 17), of 8 (8, 5)
    e2 = [slow_mse(first[0], 6.25, 8.0, 1.75), slow_mse(first[1], 10.0, 3.4, 1.75)]
    last = [slow_mse(second[0], 2.25, 4.0, 1.75)]  # the window from (24, 21) begins at y = 20.5: 0.1 px too far
    assert float(parts["fine"]) == pytest.approx(sum(e2) / 2 + last[0])
    assert float(parts["lost"]) == pytest.approx(2 / 3)
    assert float(parts["loss"]) == pytest.approx(float(parts["coarse"] + weight * parts["fine"]))
    alone = method.loss(output._replace(windows=()), labels)
    assert set(alone) == {"coarse", "loss"}
    assert alone["loss"] == parts["coarse"]


def test_each_phase_minimises_its_own() -> None:
    output, labels = by_hand()
    method = CascadeMethod(phases=(2, 3))
    for seen, wanted in enumerate(["coarse", "coarse", "fine", "fine", "fine", "joint", "joint"]):
        method.seen.fill_(seen)
        assert method.phase == wanted
        parts = method.loss(output, labels)
        expected = {"coarse": parts["coarse"], "fine": parts["fine"], "joint": parts["coarse"] + 0.1 * parts["fine"]}
        assert parts["loss"] == expected[wanted]


def test_masked_joints_and_lost_ones_have_no_part_in_it() -> None:
    """No gradient reaches their maps, whatever their coordinates hold; if all are lost the fine loss is 0."""
    output, labels = by_hand()
    output.coarse.requires_grad_()
    maps = [w.maps.requires_grad_() for w in output.windows]
    CascadeMethod().loss(output, labels)["loss"].backward()
    assert output.coarse.grad is not None
    touched = [bool((output.coarse.grad[0, j] != 0).any()) for j in range(4)]
    assert touched == [True, True, True, False]
    for found, wanted in zip(maps, ([True, True, False, False], [True, False, False, False]), strict=True):
        assert found.grad is not None
        assert bool(torch.isfinite(found.grad).all())
        assert [bool((found.grad[0, j] != 0).any()) for j in range(4)] == wanted
    far = labels._replace(coords=torch.where(labels.coords.isnan(), labels.coords, labels.coords * 0 - 0.999))
    parts = CascadeMethod(phases=(0, 9)).loss(output, far)
    assert [float(parts[k].detach()) for k in ("fine", "lost", "loss")] == [0, 1, 0]
    parts["loss"].backward()
    assert all(bool(torch.isfinite(p).all()) for p in maps)
    nothing = CascadeMethod().loss(output, labels._replace(weight=torch.zeros_like(labels.weight)))
    assert [float(v.detach()) for v in nothing.values()] == [0, 0, 0, 0]
    with pytest.raises(ValueError, match=r"image 0, joint 3 has a coordinate that is not finite but a weight above 0"):
        CascadeMethod().loss(output, labels._replace(weight=torch.ones_like(labels.weight)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"phases": (-1, 3)}, r"got phases=\(-1, 3\), weight=0\.1, expected two numbers of steps from 0"),
        ({"weight": 0.0}, r"weight=0\.0, expected .* a weight above 0"),
        ({"weight": math.nan}, r"weight=nan"),
    ],
)
def test_bad_methods_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="CascadeMethod: .*" + message):
        CascadeMethod(**options)


# -- three phases of training -----------------------------------------------------------------------------------------


def test_phases_follow_the_training_steps() -> None:
    network = model(phases=(2, 3))
    phases = []
    for _ in range(7):
        phases.append(network.method.phase)
        parts = network.loss(batch())
        assert ("fine" in parts) == (phases[-1] != "coarse")
    assert phases == ["coarse", "coarse", "fine", "fine", "fine", "joint", "joint"]
    network.eval()
    network.loss(batch())
    network.predict(batch().images)
    assert int(network.method.seen) == 7  # only training steps count
    assert model().method.phase == "joint"
    assert model(phases=(0, 1)).method.phase == "fine"


@pytest.mark.parametrize("optimiser", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_what_each_phase_trains(optimiser: type[torch.optim.Optimizer]) -> None:
    """Where there is no gradient, momentum and weight decay move nothing either."""
    network = model(phases=(2, 2))
    options: dict[str, Any] = {"momentum": 0.9} if optimiser is torch.optim.SGD else {}
    stepper = optimiser(network.parameters(), lr=0.01, weight_decay=0.1, **options)  # type: ignore[call-arg]
    for phase in ("coarse", "coarse", "fine", "fine", "joint"):
        before = [p.detach().clone() for p in network.parameters()]
        stepper.zero_grad()
        assert network.method.phase == phase
        network.loss(batch())["loss"].backward()
        stepper.step()
        moved = {id(p): not torch.equal(p, q) for p, q in zip(network.parameters(), before, strict=True)}
        for part, still in ((coarse_part(network), "fine"), (fine_part(network), "coarse")):
            assert all((p.grad is None) == (phase == still) for p in part)
            assert all(moved[id(p)] == (phase != still) for p in part)


def test_gradients_come_back_through_the_windows() -> None:
    """In "joint" the banks learn from E1 + 0.1 E2: the sum of both gradients; the third convolution from E1 alone."""
    network, given = model().double().eval(), batch()
    data = given._replace(images=given.images.double(), labels=Labels(*(x.double() for x in given.labels)))
    data = data._replace(labels=Labels(network.predict(data.images).coords, data.labels.weight))  # nobody is lost
    trained = coarse_part(network)

    def slopes(name: str) -> list[Tensor | None]:
        parts = network.loss(data)
        return list(torch.autograd.grad(parts[name], trained, allow_unused=True))

    whole, coarse, fine = slopes("loss"), slopes("coarse"), slopes("fine")
    names = [n for n, _ in network.named_parameters() if not n.startswith("head.fine")]
    for name, all_of_it, one, two in zip(names, whole, coarse, fine, strict=True):
        assert all_of_it is not None, name
        assert one is not None, name
        shared = name.startswith("backbone") and name.split(".")[3] in "01"
        assert (two is not None) == shared, name
        if two is not None:
            assert bool((two != 0).any()), name
        torch.testing.assert_close(all_of_it, one + (0 if two is None else 0.1 * two))


def test_the_standard_cascade_teaches_the_coarse_network_nothing() -> None:
    network, data = model().eval(), batch()
    network.head.fine[0] = FineNet(J, (4, 5), 16, 2, (3, 6), kernel=3, source="image", extra=2)
    data = data._replace(labels=Labels(network.predict(data.images).coords, data.labels.weight))
    network.loss(data)["fine"].backward()
    assert all(p.grad is None for p in coarse_part(network))
    assert all(bool((p.grad != 0).any()) for p in fine_part(network) if p.grad is not None and p.ndim == 4)


def shapes(fine: FineNet) -> list[tuple[int, ...]]:
    return [tuple(layers[0].weight.shape) for layers in fine.inputs]  # type: ignore[index,union-attr]


@pytest.mark.parametrize(
    ("channels", "widths", "window", "levels"),
    [((128, 128), (64, 128), 36, 2), ((32, 32), (16, 32), 36, 2), ((16, 24), (16, 32), 40, 3)],
)
def test_a_standard_cascade_of_equal_size(
    channels: tuple[int, int], widths: tuple[int, int], window: int, levels: int
) -> None:
    """Within 1% of the parameters of the one that shares features; no other width comes nearer."""

    def standard(width: int) -> FineNet:
        return FineNet(9, channels, window, levels, widths, source="image", extra=width)

    with torch.device("meta"):
        target = parameters(FineNet(9, channels, window, levels, widths))
        for guess in (1, 30):
            width = equal_width(standard(guess), target)
            found = parameters(standard(width))
            assert found == pytest.approx(target, rel=0.01)
            assert all(abs(parameters(standard(w)) - target) >= abs(found - target) for w in (width - 1, width + 1))
        assert shapes(standard(width)) == [(width, 3, 5, 5)] * levels
        banks = MultiRes(levels=3)(torch.empty(1, 3, 256, 256))
        assert standard(width)(banks, torch.zeros(1, 9, 2)).maps.shape == (1, 9, window, window)
        with pytest.raises(ValueError, match=r"equal_width: got a target of 10 parameters, which is less than all"):
            equal_width(standard(4), 10)
        with pytest.raises(ValueError, match=r"equal_width: got a FineNet of source='features', expected 'image'"):
            equal_width(FineNet(9, channels, window, levels, widths), target)


# -- reading ----------------------------------------------------------------------------------------------------------


def test_readings_of_one_output() -> None:
    network = model().eval()
    with torch.no_grad():
        output = network(batch().images)
    window = output.windows[-1]
    score = output.coarse.amax((-2, -1))
    for decoder in (Argmax(), QuarterSign()):
        refined, coarse = Refined(decoder)(output), Coarse(decoder)(output)
        torch.testing.assert_close(refined.coords, window.middle + window.half * decoder(window.maps).coords)
        assert torch.equal(coarse.coords, decoder(output.coarse).coords)
        assert torch.equal(refined.score, score)
        network.method.decoder = Coarse(decoder)
        assert torch.equal(network.predict(batch().images).coords, coarse.coords)
    assert not torch.equal(Coarse(QuarterSign())(output).coords, Coarse(Argmax())(output).coords)


def test_maps_are_read_as_the_loss_means_them() -> None:
    """Behind a softmax the decoder sees probabilities."""
    output, _ = by_hand()
    seen: list[Tensor] = []

    def decoder(found: Cascaded) -> Points:
        seen.extend([found.coarse, *(w.maps for w in found.windows)])
        return Refined()(found)

    points = CascadeMethod(loss=SoftmaxCrossEntropy(), decoder=decoder).decode(output)
    for maps, raw in zip(seen, [output.coarse, *(w.maps for w in output.windows)], strict=True):
        torch.testing.assert_close(maps.sum((-2, -1)), torch.ones(1, 4, dtype=F64))
        torch.testing.assert_close(maps, raw.flatten(-2).softmax(-1).view_as(raw))
    torch.testing.assert_close(points.coords, Refined()(output).coords)
    assert len(seen) == 3


def test_flipped_images_average_points(monkeypatch: pytest.MonkeyPatch) -> None:
    network, images = model(), batch().images
    a, b = network.predict(images), network.predict(images.flip(-1))
    found = network.predict(images, flip=PAIRS)
    torch.testing.assert_close(found.coords, (a.coords + flip_coords(b.coords, PAIRS)) / 2)
    torch.testing.assert_close(found.score, (a.score + swap(b.score, PAIRS)) / 2)
    assert not torch.allclose(found.coords, a.coords)
    assert network.training  # the mode is put back
    hints: list[Tensor] = []

    def look(self: Estimator, images: Tensor, hint: Tensor) -> Points:
        hints.append(hint)
        return a

    monkeypatch.setattr(Estimator, "predict", look)
    network.predict(images, torch.tensor([[0.25, -0.5], [-1.0, 0.75]]), PAIRS)
    assert [h.tolist() for h in hints] == [[[0.25, -0.5], [-1.0, 0.75]], [[-0.25, -0.5], [1.0, 0.75]]]


# -- precision --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["integer", "bilinear"])
def test_autocast_is_finite_and_keeps_the_places(how: str) -> None:
    """Windows lie on whole pixels of a wide image; bfloat16 would round normalised places to half a pixel."""
    network = model()
    network.head.fine[0].cut = how  # type: ignore[assignment]
    images = noise(1, 3, 32, 240, dtype=torch.float32).sigmoid()
    labels = Labels(torch.full((1, J, 2), 0.1), torch.ones(1, J, 2))
    data = batch()._replace(images=images, labels=labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        parts = network.loss(data)
        output = network.eval()(images)
        points = network.predict(images)
    assert output.coarse.dtype == torch.bfloat16
    first = to_pixels(output.windows[0].middle, (32, 240)) - 7.5
    torch.testing.assert_close(first, first.round(), atol=1e-3, rtol=0)
    cells = to_pixels(points.coords, (32, 240))
    torch.testing.assert_close(cells, cells.round(), atol=1e-3, rtol=0)
    assert all(bool(torch.isfinite(v)) for v in parts.values())
    parts["loss"].backward()
    for name, p in network.named_parameters():
        assert p.grad is not None, name
        assert bool(torch.isfinite(p.grad).all()), name


def test_a_network_in_half_precision_runs() -> None:
    network = model(fine=2).to(torch.bfloat16).eval()
    points = network.predict(batch().images.to(torch.bfloat16))
    assert bool(torch.isfinite(points.coords).all())
    assert points.coords.dtype == torch.float32


# -- describing, checkpoints, records ---------------------------------------------------------------------------------


def test_a_described_cascade_comes_back() -> None:
    wanted = described(fine=2, phases=(3, 4), weight=0.2, coarse=Gaussian(1.0), decoder=Refined(QuarterSign()))
    again = rebuild(json.loads(json.dumps(describe(wanted))))
    assert again == wanted
    assert pickle.loads(pickle.dumps(wanted)) == wanted
    torch.manual_seed(0)
    a = wanted.build()
    torch.manual_seed(0)
    b = again.build()
    assert b.method.phases == (3, 4)
    assert b.method.decoder == Refined(QuarterSign())
    a.eval(), b.eval()
    images = batch().images
    assert torch.equal(a.predict(images).coords, b.predict(images).coords)


def jitter(
    images: Tensor, labels: Labels, visible: Tensor, generator: torch.Generator
) -> tuple[Tensor, Labels, Tensor]:
    """An augmentation that draws random numbers."""
    return images + 0.1 * torch.randn(images.shape, generator=generator), labels, visible


def store(augment: Any = jitter) -> Store:
    """Seven pictures of noise with a bright square at each joint."""
    g, n = torch.Generator().manual_seed(0), 7
    images = torch.randint(0, 60, (n, 3, H, W), generator=g, dtype=torch.uint8)
    pixels = torch.stack([torch.randint(4, s - 4, (n, J), generator=g) for s in (W, H)], -1)
    for i, j in itertools.product(range(n), range(J)):
        x, y = pixels[i, j].tolist()
        images[i, j, y - 2 : y + 3, x - 2 : x + 3] = 255
    return Store(
        images, from_pixels(pixels.float(), (H, W)), weight=torch.ones(n, J, 2),
        visible=torch.ones(n, J, dtype=torch.bool), normaliser=torch.ones(n), affine=torch.eye(2, 3).repeat(n, 1, 1),
        pairs=PAIRS, joints=("a", "b", "c"), augment=augment,
    )  # fmt: skip


TRAINING = Training(steps=10, batch=3, lr=3e-3)


def trained(data: Store, **options: Any) -> tuple[Cascade, list[float]]:
    network = model(phases=(3, 4))
    return network, fit(network, data, TRAINING, seed=5, fabric=CPU, progress=False, **options)


@pytest.fixture(scope="module")
def uninterrupted() -> tuple[Cascade, list[float]]:
    return trained(store())


class KilledError(Exception):
    """The end of a process."""


@pytest.mark.parametrize(("saved", "phase"), [(2, "coarse"), (3, "fine"), (5, "fine"), (7, "joint"), (9, "joint")])
def test_a_run_killed_in_a_phase_resumes_bit_for_bit(
    saved: int, phase: str, tmp_path: Path, uninterrupted: tuple[Cascade, list[float]]
) -> None:
    """The count of steps is in the checkpoint: a resumed run is in the phase where it died."""
    path, calls = tmp_path / "checkpoint.pt", itertools.count()

    def die(images: Tensor, labels: Labels, visible: Tensor, g: torch.Generator) -> tuple[Tensor, Labels, Tensor]:
        if next(calls) == saved:
            raise KilledError
        return jitter(images, labels, visible, g)

    with pytest.raises(KilledError):
        trained(store(die), checkpoint=path, every=saved, config="c")
    state = load_checkpoint(path, "c")
    assert state["step"] == int(state["model"]["method.seen"]) == saved
    half = model(phases=(3, 4))
    half.load_state_dict(state["model"])
    assert half.method.phase == phase
    resumed, losses = trained(store(), checkpoint=path, every=saved, config="c")
    assert losses == uninterrupted[1]
    for (name, x), y in zip(resumed.state_dict().items(), uninterrupted[0].state_dict().values(), strict=True):
        assert torch.equal(x, y), name
    assert int(resumed.method.seen) == TRAINING.steps


def test_predictions_of_a_trained_one_by_batch_and_flip(uninterrupted: tuple[Cascade, list[float]]) -> None:
    network, data = uninterrupted[0], store()
    found = predict(network, data, flip=PAIRS, batch=4)
    torch.testing.assert_close(found.coords, network.predict(data.images.float() / 255, flip=PAIRS).coords)


READINGS = (
    Reading("refined", Refined(Argmax())),
    Reading("coarse", Coarse(Argmax())),
    Reading("quarter", Coarse(QuarterSign())),
    Reading("flip", Refined(Argmax()), flip="points"),
    Reading("quarter-flip", Coarse(QuarterSign()), flip="points"),
)


def test_a_run_is_executed_and_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the drawn figures at the smoke sizes, through all three phases, with every reading."""
    monkeypatch.setenv("COORDREG_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("COORDREG_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("COORDREG_DEVICE", "cpu")
    run = Run(
        "cascade",
        described(16, phases=(2, 2)),
        Figures(split="train", count=24, size=64),
        Figures(split="test", count=12, size=64),
        Training(6, 8, 5e-3),
        PCKH,
        readings=READINGS,
    )
    assert pickle.loads(pickle.dumps(run)).key == run.key
    assert rebuild(run.config["estimator"]) == run.estimator
    record = execute(run, "smoke", progress=False)
    assert set(record["readings"]) == {r.name for r in READINGS}
    for name in ("coordreg.windows.FineNet", "coordreg.windows.cut", "coordreg.backbones.multires.local_contrast"):
        assert name in record["code"]
    assert len({record.reading(r.name)["mean_distance"] for r in READINGS}) == len(READINGS)
    assert record.stale == []
    assert execute(replace(run, label="again"), "smoke", progress=False)["sum"] == record["sum"]
    plain = replace(run, readings=(Reading("plain", Refined(Argmax()), flip="plain"),))
    with pytest.raises(ValueError, match=r"reading 'plain': CascadeMethod has no flip_shift to exchange"):
        execute(plain, "smoke", progress=False)


def test_the_coarse_network_alone_is_an_estimator_too() -> None:
    """Figure 9's: the same banks and head, read by the method of chapter 2."""
    torch.manual_seed(0)
    network = Estimator(
        MultiRes((4, 5), 8, 2, kernel=3, contrast=5), SlidingHead(5, J, (7,), kernel=3),
        Heatmap(Gaussian(1.5), MSE(), Argmax()),
    )  # fmt: skip
    assert network(batch().images).shape == (B, J, H // 8, W // 8)
    network.loss(batch())["loss"].backward()
    assert network.predict(batch().images, flip=PAIRS).coords.shape == (B, J, 2)
