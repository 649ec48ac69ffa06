"""Chapter 6: DARK's decoder against Gaussians it must read exactly, a slow loop, and where it must not step."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from coordreg.backbones.resnet import ResNet, head, trunk_channels
from coordreg.coords import (
    CENTRE,
    STRIDE,
    UNIT,
    Convention,
    Labels,
    apply_affine,
    crop_affine,
    from_pixels,
    invert_affine,
    to_pixels,
)
from coordreg.dark import (
    CELLS,
    FLOOR,
    MIDDLE,
    Dark,
    DrawnOn,
    ReadOn,
    differences,
    gaussian_kernel,
    modulate,
    newton,
    to_grid,
    window,
)
from coordreg.heatmap import MSE, Argmax, Gaussian, Heatmap, OneHot, QuarterSign, SoftmaxCrossEntropy
from coordreg.method import Estimator
from coordreg.spec import describe, rebuild, spec

H, W = 24, 19


def at(pixels: list[list[float]], size: tuple[int, int] = (H, W)) -> Labels:
    """One image whose joints lie at these index pixels (x, y)."""
    coords = from_pixels(torch.tensor([pixels], dtype=torch.float64), size)
    return Labels(coords, torch.ones_like(coords))


def bump(pixels: list[list[float]], sigma: float = 2.0, size: tuple[int, int] = (H, W)) -> Tensor:
    """Exact Gaussians, without the cut at very small values that the target has."""
    x, y = torch.arange(size[1], dtype=torch.float64), torch.arange(size[0], dtype=torch.float64)
    mu = torch.tensor([pixels], dtype=torch.float64)
    squared = (x - mu[..., None, :1]).square() + (y[:, None] - mu[..., None, 1:]).square()
    return torch.exp(-squared / (2 * sigma**2))


def read(decoder: Dark, maps: Tensor) -> Tensor:
    """Points in index pixels, (J, 2), of one image."""
    return to_pixels(decoder(maps).coords.double(), maps.shape[-2:])[0]


def blurred_slowly(m: NDArray[np.float64], k: NDArray[np.float64]) -> NDArray[np.float64]:
    """One map, blurred cell by cell with zeros beyond the border."""
    r = len(k) // 2
    wide, out = np.pad(m, r), np.zeros_like(m)
    for i in range(m.shape[0]):
        for j in range(m.shape[1]):
            out[i, j] = (wide[i : i + len(k), j : j + len(k)] * np.outer(k, k)).sum()
    return out


def read_slowly(m: NDArray[np.float64], kernel: int, rescale: str = "max") -> tuple[float, float]:
    """The published procedure for one map, written as it is told: blur all, scale, clip, log, one step."""
    y, x = np.unravel_index(int(m.argmax()), m.shape)
    soft = blurred_slowly(m, gaussian_kernel(kernel).numpy())
    if rescale == "range":
        soft = (soft - soft.min()) / (soft.max() - soft.min()) * m.max()
    elif rescale == "max":
        soft = soft * m.max() / soft.max()
    p = np.log(np.maximum(soft, FLOOR))
    if not (1 < x < m.shape[1] - 2 and 1 < y < m.shape[0] - 2):
        return float(x), float(y)
    g = np.array([p[y, x + 1] - p[y, x - 1], p[y + 1, x] - p[y - 1, x]]) / 2
    xy = (p[y + 1, x + 1] - p[y - 1, x + 1] - p[y + 1, x - 1] + p[y - 1, x - 1]) / 4
    hess = np.array([[(p[y, x + 2] - 2 * p[y, x] + p[y, x - 2]) / 4, xy],
                     [xy, (p[y + 2, x] - 2 * p[y, x] + p[y - 2, x]) / 4]])  # fmt: skip
    if np.linalg.det(hess) == 0:
        return float(x), float(y)
    step = -np.linalg.solve(hess, g)
    return float(x + step[0]), float(y + step[1])


# -- exact cases ------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(x=st.floats(8.5, 10.49), y=st.floats(9.5, 12.49), sigma=st.floats(0.7, 3.0))
def test_a_gaussian_is_read_exactly(x: float, y: float, sigma: float) -> None:
    assert read(Dark(1), bump([[x, y]], sigma))[0].tolist() == pytest.approx([x, y], abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(x=st.floats(8.5, 10.49), y=st.floats(9.5, 12.49), kernel=st.sampled_from([3, 5, 7, 9, 11]))
def test_the_blur_leaves_a_gaussian_a_gaussian(x: float, y: float, kernel: int) -> None:
    # nearly: a kernel is cut off at its ends, and the small ones are no Gaussians
    assert read(Dark(kernel), bump([[x, y]], 2.0))[0].tolist() == pytest.approx([x, y], abs=1e-3)


def test_a_covariance_that_is_not_round_is_read_exactly() -> None:
    x, y = torch.arange(W, dtype=torch.float64) - 9.3, torch.arange(H, dtype=torch.float64)[:, None] - 11.8
    maps = torch.exp(-(0.10 * x**2 + 0.08 * x * y + 0.20 * y**2))[None, None]
    assert read(Dark(1), maps)[0].tolist() == pytest.approx([9.3, 11.8], abs=1e-9)


def test_the_step_by_hand_on_a_parabola() -> None:
    # p = -(x - 0.3)^2 - 2 (y + 0.2)^2 + (x - 0.3)(y + 0.2) on x, y = -2 .. 2: g = p'(0), H = p''
    x, y = torch.arange(-2.0, 3.0), torch.arange(-2.0, 3.0)[:, None]
    p = -((x - 0.3) ** 2) - 2 * (y + 0.2) ** 2 + (x - 0.3) * (y + 0.2)
    derivatives = differences(p)
    torch.testing.assert_close(derivatives, torch.tensor([0.6 + 0.2, -0.8 - 0.3, -2.0, -4.0, 1.0]))
    step, determinant = newton(derivatives)
    torch.testing.assert_close(step, torch.tensor([0.3, -0.2]))
    assert float(determinant) == pytest.approx(7.0)


def test_the_order_of_axes_and_the_score() -> None:
    maps = 0.7 * bump([[11.25, 6.4], [4.0, 17.0]])
    points = Dark(1)(maps)
    assert to_pixels(points.coords, (H, W))[0].tolist() == [pytest.approx([11.25, 6.4]), pytest.approx([4.0, 17.0])]
    assert points.score[0].tolist() == pytest.approx(maps.amax((-2, -1))[0].tolist())


# -- kernels and modulation -------------------------------------------------------------------------------------------


def test_kernels_are_opencvs() -> None:
    assert gaussian_kernel(3).tolist() == [0.25, 0.5, 0.25]
    assert gaussian_kernel(7)[:4].tolist() == [1 / 32, 7 / 64, 7 / 32, 9 / 32]
    eleven, offsets = gaussian_kernel(11), torch.arange(-5, 6, dtype=torch.float64)
    wanted = torch.exp(-(offsets**2) / 8)  # 0.3 (5 - 1) + 0.8 = 2
    torch.testing.assert_close(eleven, wanted / wanted.sum())
    ratio = gaussian_kernel(17)[8] / gaussian_kernel(17)[7]
    assert float(ratio) == pytest.approx(math.exp(1 / (2 * 2.9**2)))
    for k in (1, 3, 5, 7, 9, 11, 17):
        assert float(gaussian_kernel(k).sum()) == pytest.approx(1)
        assert gaussian_kernel(k).tolist() == gaussian_kernel(k).flip(0).tolist()
    assert gaussian_kernel(3, 1.0).tolist() != gaussian_kernel(3).tolist()


@pytest.mark.parametrize("rescale", ["none", "max", "range"])
def test_modulation_of_whole_maps_against_loops(rescale: str) -> None:
    maps = torch.rand(2, 3, 8, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.2
    found = modulate(maps, 5, None, rescale)
    for b in range(2):
        for j in range(3):
            m = maps[b, j].numpy()
            soft = blurred_slowly(m, gaussian_kernel(5).numpy())
            if rescale == "max":
                soft = soft / soft.max() * m.max()
            elif rescale == "range":
                soft = (soft - soft.min()) / (soft.max() - soft.min()) * m.max()
            np.testing.assert_allclose(found[b, j].numpy(), soft, atol=1e-12)


def test_a_constant_map_is_not_rescaled_to_nothing() -> None:
    for rescale in ("none", "max", "range"):
        assert bool(modulate(torch.zeros(1, 1, 6, 7), 3, None, rescale).isfinite().all())
    assert modulate(torch.full((1, 1, 6, 7), 0.5), 1, None, "range").unique().tolist() == [0.5]


def test_windows_are_zero_beyond_the_border() -> None:
    maps = torch.arange(1.0, 21).view(1, 1, 4, 5)
    found = window(maps, torch.tensor([[[0, 3]]]), 2)[0, 0]
    assert found.tolist() == [[0, 0, 6, 7, 8], [0, 0, 11, 12, 13], [0, 0, 16, 17, 18], [0] * 5, [0] * 5]


@pytest.mark.parametrize("reach", [0, 1, 3, 7])
def test_windows_of_any_layout_are_cut_from_the_padded_map(reach: int) -> None:
    g = torch.Generator().manual_seed(reach)
    maps, n = torch.rand(2, 3, 6, 5, generator=g), 2 * reach + 1
    cell = torch.stack([torch.randint(0, k, (2, 3), generator=g) for k in (5, 6)], -1)
    wide = torch.nn.functional.pad(maps, (reach,) * 4)
    for given_as in (maps, maps.contiguous(memory_format=torch.channels_last), maps.flip(1).flip(1)):
        found = window(given_as, cell, reach)
        assert found.shape == (2, 3, n, n)
        for b in range(2):
            for j in range(3):
                x, y = cell[b, j].tolist()
                assert torch.equal(found[b, j], wide[b, j, y : y + n, x : x + n])
    assert window(maps[:0], cell[:0], reach).shape == (0, 3, n, n)


def test_thirteen_cells_of_a_window_matter_and_only_they() -> None:
    logs = torch.zeros(25, 5, 5, dtype=torch.float64)
    logs.flatten(1).fill_diagonal_(1)  # one cell at a time
    used = differences(logs).ne(0).any(-1)
    assert used.view(5, 5).int().tolist() == [
        [0, 0, 1, 0, 0],
        [0, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
        [0, 1, 1, 1, 0],
        [0, 0, 1, 0, 0],
    ]
    assert CELLS.tolist() == used.nonzero().flatten().tolist()
    assert CELLS[MIDDLE] == 12


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), kernel=st.sampled_from([1, 3, 7, 11]), rescale=st.sampled_from(["max", "range"]))
def test_any_map_is_read_as_the_published_loop_reads_it(seed: int, kernel: int, rescale: str) -> None:
    g = torch.Generator().manual_seed(seed)
    where = (torch.rand(3, 2, generator=g) * torch.tensor([W + 2, H + 2]) - 1.5).tolist()
    maps = bump(where) + 0.05 * torch.randn(1, 3, H, W, generator=g, dtype=torch.float64).clamp(-1, 1)
    found = read(Dark(kernel, rescale=rescale), maps)
    for j in range(3):
        slow = read_slowly(maps[0, j].numpy(), kernel, rescale)
        # the fast form takes the floor's scale from the largest cell, the loop from the largest blurred value
        assert found[j].tolist() == pytest.approx(slow, rel=1e-4, abs=1e-4), (seed, j)


def test_modulation_repairs_a_peak_that_is_torn() -> None:
    g = torch.Generator().manual_seed(1)
    true = (torch.rand(400, 2, generator=g) * 4 + 8).tolist()
    maps = bump(true) * (1 + 0.15 * torch.randn(1, 400, H, W, generator=g, dtype=torch.float64))
    errors = {k: (read(Dark(k), maps) - torch.tensor(true)).norm(dim=-1).mean() for k in (1, 11)}
    largest = (to_pixels(Argmax()(maps).coords, (H, W))[0] - torch.tensor(true)).norm(dim=-1).mean()
    assert errors[11] < 0.1 < 0.5 * largest
    assert errors[1] > 4 * errors[11]


# -- borders, saddles, flat maps --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("x", "y"), [(1, 9), (0, 9), (W - 2, 9), (9, 1), (9, H - 2), (W - 1, H - 1)])
def test_two_rows_and_columns_at_the_border_are_read_like_argmax(x: int, y: int) -> None:
    maps = bump([[x + 0.3 * (x < 9), y + 0.2 * (y < 9)]])
    for kernel in (1, 11):
        assert torch.equal(Dark(kernel)(maps).coords, Argmax()(maps).coords)


def test_the_third_row_steps_and_the_blur_is_off_there_by_what_is_cut() -> None:
    maps = bump([[2.2, 11.0]], 2.0)
    assert abs(float(read(Dark(1), maps)[0, 0]) - 2.2) < 1e-9
    off = float(read(Dark(11), maps)[0, 0]) - 2.2
    assert 0.1 < off < 0.25  # zeros beyond the border push it inwards


def saddle() -> Tensor:
    """A map whose largest cell is a saddle of its two-cell differences: bright along the diagonal's ends."""
    m = torch.full((1, 1, 9, 9), 0.5)
    m[0, 0, 4, 4] = 1.0
    m[0, 0, 4, 2], m[0, 0, 4, 6] = 0.99, 0.99
    m[0, 0, 3, 3], m[0, 0, 5, 5] = 0.999, 0.999
    m[0, 0, 4, 5] = 0.7
    return m


def test_a_saddle_is_followed_as_published_or_left_alone() -> None:
    _, determinant = newton(differences(window(saddle(), torch.tensor([[[4, 4]]]), 2).log()))
    assert float(determinant) < 0
    assert not torch.equal(Dark(1)(saddle()).coords, Argmax()(saddle()).coords)
    assert torch.equal(Dark(1, saddle="stay")(saddle()).coords, Argmax()(saddle()).coords)
    maps = bump([[9.3, 11.8]])
    assert torch.equal(Dark(3, saddle="stay")(maps).coords, Dark(3)(maps).coords)


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 1e-30])
def test_flat_maps_stay_where_argmax_puts_them(value: float) -> None:
    maps = torch.full((2, 3, 7, 8), value)
    for decoder in (Dark(), Dark(1), Dark(rescale="range"), Dark(rescale="none")):
        points = decoder(maps)
        assert torch.equal(points.coords, Argmax()(maps).coords)
        assert points.score.unique().tolist() == pytest.approx([value])


def test_newton_stays_where_there_is_nothing_to_divide_by() -> None:
    ridge = torch.tensor([0.3, 0.0, -0.5, 0.0, 0.0])  # falls along x alone
    for derivatives in (torch.zeros(5), ridge):
        step, determinant = newton(derivatives)
        assert step.tolist() == [0, 0]
        assert float(determinant) == 0


def test_negative_maps_and_spikes_are_finite() -> None:
    maps = -torch.rand(1, 4, 12, 12, generator=torch.Generator().manual_seed(2))
    maps[0, 1:] = 0
    maps[0, 1, 6, 6], maps[0, 2, 6, 6], maps[0, 3, 6, 7] = 1.0, 1e-38, 3e38
    for decoder in (Dark(), Dark(1), Dark(3, rescale="range"), Dark(3, limit=1.0)):
        assert bool(decoder(maps).coords.isfinite().all())
    assert torch.equal(Dark()(maps[:, :2]).coords, Argmax()(maps[:, :2]).coords)


def test_the_limit_bounds_each_axis() -> None:
    m = torch.full((1, 1, 9, 9), 0.2)
    m[0, 0, 4, 4], m[0, 0, 4, 5], m[0, 0, 4, 2], m[0, 0, 4, 6] = 1.0, 0.999, 0.98, 0.97
    free, bound = read(Dark(1), m)[0], read(Dark(1, limit=1.0), m)[0]
    assert float((free - 4).abs().max()) > 1
    assert float((bound - 4).abs().max()) == pytest.approx(1.0, abs=1e-6)


def test_maps_without_an_inside_are_read_like_argmax() -> None:
    maps = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Dark()(maps).coords, Argmax()(maps).coords)
    assert torch.equal(Dark(3, rescale="range")(maps).coords, Argmax()(maps).coords)


# -- in the family ----------------------------------------------------------------------------------------------------


def test_half_precision_is_read_like_float() -> None:
    maps = bump([[9.3, 11.8], [6.6, 12.1]]).float()
    method = Heatmap(Gaussian(2.0), MSE(), Dark())
    for dtype in (torch.float16, torch.bfloat16):
        near = to_pixels(method.decode(maps.to(dtype)).coords, (H, W)) - to_pixels(Dark()(maps).coords, (H, W))
        assert float(near.abs().max()) < 0.05


def test_any_heatmap_network_takes_it_as_its_decoder() -> None:
    torch.manual_seed(0)
    maps = head(trunk_channels(10, 4), joints=3, widths=(8, 8, 8))
    images = torch.rand(2, 3, 64, 64)
    for loss, target in ((MSE(), Gaussian(2.0)), (SoftmaxCrossEntropy(), OneHot())):
        network = Estimator(ResNet(10, 4), maps, Heatmap(target, loss, Dark(kernel=11)))
        found = network.predict(images, flip=((0, 2),))
        assert found.coords.shape == (2, 3, 2)
        assert bool(found.coords.isfinite().all())
    assert spec(Dark, kernel=7).build() == Dark(7)


def test_unbiased_targets_lose_nothing_and_biased_ones_a_quarter_of_a_cell() -> None:
    g = torch.Generator().manual_seed(3)
    true = torch.rand(500, 2, generator=g, dtype=torch.float64) * 8 + 6
    labels = at(true.tolist())
    error = {}
    for rounding in ("none", "int"):
        maps = Gaussian(2.0, rounding=rounding)(labels, (H, W)).maps
        for name, decoder in (("argmax", Argmax()), ("quarter", QuarterSign()), ("dark", Dark(1))):
            found = to_pixels(decoder(maps).coords.double(), (H, W))[0]
            error[rounding, name] = float((found - true).abs().mean())
    assert error["none", "dark"] < 1e-6
    assert error["none", "quarter"] == pytest.approx(0.125, abs=0.01)
    assert error["none", "argmax"] == pytest.approx(0.25, abs=0.015)
    assert [error["int", n] for n in ("argmax", "quarter", "dark")] == pytest.approx([0.25] * 3, abs=0.015)


def test_points_come_back_to_the_picture_through_the_crop() -> None:
    affine = crop_affine(torch.tensor([[212.5, 140.0]]).double(), torch.tensor([[96.0, 128.0]]).double())
    joint = torch.tensor([[[201.3, 150.9]]], dtype=torch.float64)
    inside = apply_affine(invert_affine(affine), joint)
    maps = bump(to_pixels(inside, (32, 24))[0].tolist(), 1.5, (32, 24))
    torch.testing.assert_close(apply_affine(affine, Dark(1)(maps).coords), joint, atol=1e-6, rtol=0)


# -- conventions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("convention", [CENTRE, STRIDE, UNIT])
def test_where_other_codes_draw_a_joint_by_hand(convention: Convention) -> None:
    """Image pixel 30 of 96, at stride 4 on 24 cells: 30 / 4, 30 * 23 / 95, or (30 + 1/2) / 4 - 1/2."""
    coords = from_pixels(torch.tensor([[[30.0, 30.0]]], dtype=torch.float64), (96, 96))
    wanted = {"stride": 7.5, "unit": 30 * 23 / 95, "centre": 30.5 / 4 - 0.5}[convention.name]
    assert to_grid(coords, (24, 24), convention, 4)[0, 0].tolist() == pytest.approx([wanted] * 2)


@pytest.mark.parametrize("convention", [CENTRE, STRIDE, UNIT])
def test_one_convention_both_ways_loses_nothing(convention: Convention) -> None:
    labels = at([[9.3, 11.8], [6.45, 12.2]])
    maps = DrawnOn(Gaussian(1.5), convention)(labels, (H, W)).maps
    found = ReadOn(Dark(1), convention)(maps)
    torch.testing.assert_close(found.coords, labels.coords, atol=1e-6, rtol=0)
    mixed = to_pixels(Dark(1)(maps).coords, (H, W)) - to_pixels(labels.coords, (H, W))
    assert (float(mixed.abs().max()) > 0.05) == (convention.name != "centre")


def test_a_mirrored_map_needs_the_shift_under_stride_alone() -> None:
    """Draw the mirrored joint, turn the map round, read it: exact but for STRIDE, which errs by 0.75 cells."""
    labels = at([[8.6, 11.8]])
    mirrored = Labels(labels.coords * torch.tensor([-1.0, 1.0]), labels.weight)
    for convention, off in ((CENTRE, 0.0), (UNIT, 0.0), (STRIDE, 0.75)):
        turned = DrawnOn(Gaussian(1.5), convention)(mirrored, (H, W)).maps.flip(-1)
        found = to_pixels(ReadOn(Dark(1), convention)(turned).coords, (H, W))
        error = (to_pixels(labels.coords, (H, W)) - found)[0, 0]
        assert error.tolist() == pytest.approx([off, 0.0], abs=1e-6)


def test_conventions_are_part_of_a_configuration() -> None:
    made = spec(Heatmap, target=DrawnOn(Gaussian(1.0), STRIDE), loss=MSE(), decoder=ReadOn(Dark(), STRIDE))
    assert describe(made) != describe(made.replace(target=DrawnOn(Gaussian(1.0), UNIT)))
    assert rebuild(describe(made)) == made


def test_bad_settings_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match="got kernel=4, expected an odd number"):
        Dark(kernel=4)
    with pytest.raises(ValueError, match="got sigma=0, expected a width above 0"):
        Dark(kernel=5, sigma=0)
    with pytest.raises(ValueError, match="got rescale='min', expected one of none, max, range"):
        Dark(rescale="min")
    with pytest.raises(ValueError, match="expected 'follow' or 'stay'"):
        Dark(saddle="no")
    with pytest.raises(ValueError, match="expected a length above 0"):
        replace(Dark(), limit=0.0)
    with pytest.raises(ValueError, match="got rescale='all'"):
        modulate(torch.zeros(1, 1, 5, 5), rescale="all")
