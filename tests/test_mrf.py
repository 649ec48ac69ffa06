"""Chapter 3's spatial model: messages against loops and enumeration, and which of two people it chooses."""

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from coordreg.coords import Batch, Labels, flip_coords, from_pixels, to_pixels
from coordreg.data.augment import Augment
from coordreg.data.figures import Figures
from coordreg.data.skeletons import H36M17, LSP14, MPII16, SKELETONS, Skeleton
from coordreg.data.store import Store
from coordreg.dsnt import DSNT
from coordreg.heatmap import MSE, Argmax, Gaussian, Heatmap, OneHot, SoftmaxCrossEntropy
from coordreg.messages import (
    TORSO,
    convolve,
    corners,
    histograms,
    infer,
    levels,
    max_message,
    sum_message,
    torso_map,
    tree,
)
from coordreg.method import Estimator, Maps
from coordreg.mrf import AllPairs, SpatialEstimator, SpatialModel
from coordreg.spec import describe, rebuild, spec
from coordreg.train import Training, fit, predict

B, J, H, W = 2, 3, 4, 5
CHAIN, STAR, FORK = (-1, 0, 1), (-1, -1, -1), (2, 2, -1)


def positive(*shape: int, seed: int = 0) -> Tensor:
    """Numbers from 0.05 to 1.05 in double precision."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.05


def labels_at(cells: list[list[list[float]]], size: tuple[int, int]) -> Labels:
    """Joints at these index pixels (x, y) of a map, all labelled."""
    coords = from_pixels(torch.tensor(cells, dtype=torch.float32), size)
    return Labels(coords, torch.ones_like(coords))


def cells(maps: Tensor) -> list[list[list[int]]]:
    """The largest cells (x, y)."""
    return to_pixels(Argmax()(maps.float()).coords, maps.shape[-2:]).round().int().tolist()


# -- trees ------------------------------------------------------------------------------------------------------------


def test_the_tree_of_lsp_by_hand() -> None:
    hangs = {LSP14.joints[j]: "torso" if p == TORSO else LSP14.joints[p] for j, p in enumerate(tree(LSP14))}
    for side in ("l_", "r_"):
        for joint, parent in (("ankle", "knee"), ("knee", "hip"), ("wrist", "elbow"), ("elbow", "shoulder")):
            assert hangs.pop(side + joint) == side + parent
        assert hangs.pop(side + "hip") == hangs.pop(side + "shoulder") == "torso"
    assert hangs == {"neck": "torso", "head_top": "neck"}


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=lambda s: s.name)
def test_every_skeleton_has_a_tree_that_its_mirror_image_shares(skeleton: Skeleton) -> None:
    parents = tree(skeleton)
    assert sorted(j for level in levels(parents) for j in level) == list(range(len(skeleton)))
    bones = {frozenset(bone) for bone in skeleton.bones}
    assert all(p == TORSO or frozenset((j, p)) in bones for j, p in enumerate(parents))
    mirror = {a: b for pair in skeleton.pairs for a, b in (pair, pair[::-1])}
    assert all(mirror.get(p, p) == parents[mirror.get(j, j)] for j, p in enumerate(parents))


def test_joints_that_no_bone_reaches_hang_on_the_torso_those_in_the_middle_first() -> None:
    bones = ((0, 2), (2, 1))
    assert tree(Skeleton("face", ("l_eye", "r_eye", "nose", "l_ear"), bones, ((0, 1),))) == (2, 2, -1, -1)


def test_levels_go_from_the_torso_to_the_leaves() -> None:
    assert levels(FORK) == [[2], [0, 1]]
    assert levels(CHAIN) == [[0], [1], [2]]
    with pytest.raises(ValueError, match=r"joints \[1, 2\] go round in a circle; give one of them the parent -1"):
        levels((-1, 2, 1))
    with pytest.raises(ValueError, match=r"got \(3, -1\), expected one number a joint, -1 \(the torso\) to 1"):
        levels((3, -1))


def test_corners_are_the_figures_torso() -> None:
    truth = Figures(size=64).scene_labels(torch.arange(5))
    torch.testing.assert_close(truth.coords[:, list(corners(MPII16))].mean(1), truth.hint)
    with pytest.raises(ValueError, match=r"corners: eyes has no l_shoulder, r_shoulder, l_hip, r_hip; give the joints"):
        corners(Skeleton("eyes", ("l_eye", "r_eye"), (), ()))


# -- displacements ----------------------------------------------------------------------------------------------------


def test_displacements_are_counted_by_hand() -> None:
    labels = labels_at([[[1, 1], [3, 0]], [[0, 3], [2, 2]], [[4, 2], [0, 2]]], (H, W))
    found = histograms(*labels, [(1, 0), (0, TORSO)], (H, W), from_pixels(torch.tensor([[1.0, 1]] * 3), (H, W)), 0.01)
    n = 7 * 9
    assert found.shape == (2, 7, 9)
    # joint 1 lies 2 to the right and 1 above joint 0, twice, and once 4 to the left; one observation is spread
    assert float(found[0, -1 + 3, 2 + 4]) == pytest.approx((2 + 1 / n) / 4)
    assert float(found[0, 3, -4 + 4]) == pytest.approx((1 + 1 / n) / 4)
    assert float(found[0, 0, 0]) == pytest.approx(1 / n / 4)
    for dx, dy in ((0, 0), (-1, 2), (3, 1)):  # joint 0 from the torso
        assert float(found[1, dy + 3, dx + 4]) == pytest.approx((1 + 1 / n) / 4)


def test_what_is_not_labelled_or_too_far_does_not_count() -> None:
    labels = labels_at([[[1, 1], [2, 1]], [[1, 1], [2, 1]], [[-9, 0], [2, 1]]], (H, W))
    labels.coords[1, 1], labels.weight[1, 1, 1] = torch.nan, 0
    hint = torch.tensor([[0.0, 0], [0, 0], [torch.nan, 0]])
    found = histograms(*labels, [(1, 0), (1, TORSO)], (H, W), hint, 0.01)
    assert float(found[0, 3, 5]) == pytest.approx((1 + 1 / 63) / 2)
    labels.weight[:, 1] = 0
    with pytest.raises(ValueError, match="no image has joint 1 and joint 0 both labelled in reach of each other"):
        histograms(*labels, [(1, 0)], (H, W))
    with pytest.raises(ValueError, match=r"joint 0 and the torso both labelled.* with a hint, or torso joints"):
        histograms(*labels, [(0, TORSO)], (H, W))
    with pytest.raises(ValueError, match=r"histograms: got blur=0, expected a width above 0"):
        histograms(*labels, [(0, 0)], (H, W), blur=0)


def test_the_blur_is_a_gaussian_and_spares_the_joint_itself() -> None:
    labels = labels_at([[[2, 2], [2, 2]]] * 1000, (9, 11))
    pair, own = histograms(*labels, [(1, 0), (0, 0)], (9, 11), blur=1.5)
    torch.testing.assert_close(pair.sum(), torch.tensor(1.0, dtype=torch.float64))
    assert float(pair[8, 12] / pair[8, 10]) == pytest.approx(np.exp(-4 / (2 * 1.5**2)), rel=1e-3)
    assert float(pair[10, 10] / pair[8, 12]) == pytest.approx(1)
    assert float(own[8, 10]) == pytest.approx(1000 / 1001, rel=1e-3)


def test_the_torso_is_drawn_about_its_point() -> None:
    log = torso_map(from_pixels(torch.tensor([[1.0, 2], [40, 2]]), (H, W)), (H, W), 0.5)
    assert log.dtype == torch.float64
    torch.testing.assert_close(log[0, 2, :3].exp(), torch.tensor([np.exp(-2), 1, np.exp(-2)]))
    assert float(log[0, 0, 3]) == pytest.approx(-(4 + 4) / (2 * 0.25))
    assert log[1].argmax() == 2 * W + 4  # beyond the border: the nearest cell
    assert bool(log.isfinite().all())


# -- messages against loops -------------------------------------------------------------------------------------------


def slow_message(q: NDArray[np.float64], k: NDArray[np.float64], back: bool, reduce: str = "sum") -> Any:
    """One map, one edge: every pair of cells in turn."""
    h, w = q.shape
    out = np.zeros((h, w))
    for xy, xx, yy, yx in itertools.product(range(h), range(w), range(h), range(w)):
        dy, dx = (yy - xy, yx - xx) if back else (xy - yy, xx - yx)
        term = k[dy + h - 1, dx + w - 1] * q[yy, yx]
        out[xy, xx] = max(out[xy, xx], term) if reduce == "max" else out[xy, xx] + term
    return out


@settings(deadline=None, max_examples=15)
@given(h=st.integers(1, 4), w=st.integers(1, 5), seed=st.integers(0, 1000), back=st.booleans())
def test_messages_are_sums_and_maxima_over_all_pairs_of_cells(h: int, w: int, seed: int, back: bool) -> None:
    q, k = positive(B, J, h, w, seed=seed), positive(J, 2 * h - 1, 2 * w - 1, seed=seed + 1)
    q[0, 0] *= 1e-200
    for reduce, message in (("sum", sum_message), ("max", max_message)):
        found = message(q.log(), k, back)
        for b, j in itertools.product(range(B), range(J)):
            slow = slow_message(q[b, j].numpy(), k[j].numpy(), back, reduce)
            np.testing.assert_allclose(found[b, j].numpy(), np.log(slow), rtol=1e-12, atol=1e-12)


def test_a_convolution_moves_a_joint_to_where_the_other_one_is() -> None:
    q, k = torch.zeros(1, 1, H, W).double(), torch.zeros(1, 2 * H - 1, 2 * W - 1).double()
    q[0, 0, 1, 3], k[0, 2 + H - 1, -3 + W - 1] = 1.0, 0.5  # the other one is 2 below and 3 to the left
    forth = convolve(q, k)
    torch.testing.assert_close(forth[0, 0, 3, 0], torch.tensor(0.5).double())
    assert float(forth.abs().sum()) == pytest.approx(0.5)
    torch.testing.assert_close(convolve(forth, k, back=True)[0, 0, 1, 3], torch.tensor(0.25).double())
    with pytest.raises(ValueError, match=r"got kernels of \(7, 9\) displacements for maps of 4 x 4 cells, expected"):
        convolve(q[..., :4], k)


@pytest.mark.parametrize("back", [False, True])
def test_gradients_of_messages(back: bool) -> None:
    log = positive(1, 2, 3, 4).log().requires_grad_()
    k = positive(2, 5, 7, seed=1).requires_grad_()
    for message in (sum_message, max_message):
        assert torch.autograd.gradcheck(lambda x, y, f=message: f(x, y, back), (log, k))


# -- the posterior against enumeration --------------------------------------------------------------------------------


def enumerated(u: Any, r: Any, k: Any, parents: tuple[int, ...]) -> tuple[Any, Any, tuple[int, ...]]:
    """Marginals, max-marginals and best pose (cells of the joints) of one image: every pose, every place of the torso.

    A pose's value for the maxima includes the torso's best place.
    """
    h, w = r.shape
    n = h * w

    def factor(j: int, x: int, seen_from: int) -> float:
        return float(k[j, x // w - seen_from // w + h - 1, x % w - seen_from % w + w - 1])

    table = [[[factor(j, x, y) for y in range(n)] for x in range(n)] for j in range(len(parents))]
    total, best = np.zeros((len(parents), n)), np.zeros((len(parents), n))
    top, pose = 0.0, ()
    for places in itertools.product(range(n), repeat=len(parents) + 1):
        value = r.flat[places[-1]]
        for j, p in enumerate(parents):
            value *= u[j].flat[places[j]] * table[j][places[j]][places[p]]
        for j in range(len(parents)):
            total[j, places[j]] += value
            best[j, places[j]] = max(best[j, places[j]], value)
        if value > top:
            top, pose = value, places[:-1]
    shape = (len(parents), h, w)
    return (
        (total / total.sum(1, keepdims=True)).reshape(shape),
        (best / best.sum(1, keepdims=True)).reshape(shape),
        pose,
    )


@pytest.mark.parametrize("parents", [CHAIN, STAR, FORK])
def test_the_posterior_is_that_of_all_poses(parents: tuple[int, ...]) -> None:
    h, w = (3, 4) if parents == FORK else (2, 3)
    u, r, k = positive(1, 3, h, w) ** 4, positive(1, h, w, seed=1) ** 4, positive(3, 2 * h - 1, 2 * w - 1, seed=2) ** 4
    marginals, best, pose = enumerated(u[0].numpy(), r[0].numpy(), k.numpy(), parents)
    for reduce, wanted in (("sum", marginals), ("max", best)):
        found = infer(u.log(), r.log(), k, parents, reduce).exp()
        np.testing.assert_allclose(found[0].numpy(), wanted, rtol=1e-10)
    # with max, each joint's own maximum is its place in the single best pose
    assert tuple(infer(u.log(), r.log(), k, parents, "max")[0].flatten(1).argmax(1).tolist()) == pose


def test_images_do_not_mix_and_the_order_of_joints_does_not_matter() -> None:
    u, r, k = positive(B, J, H, W).log(), positive(B, H, W, seed=1).log(), positive(J, 7, 9, seed=2)
    found = infer(u, r, k, CHAIN)
    torch.testing.assert_close(infer(u[1:], r[1:], k, CHAIN), found[1:])
    order = [2, 0, 1]  # the chain 0 - 1 - 2 under other numbers: new joint i is the old order[i]
    torch.testing.assert_close(infer(u[:, order], r, k[order], (2, -1, 1)), found[:, order])


def test_gradients_of_the_posterior() -> None:
    u, r = positive(1, 3, 2, 3).log().requires_grad_(), positive(1, 2, 3, seed=1).log().requires_grad_()
    k = positive(3, 3, 5, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda *x: infer(*x, FORK), (u, r, k))


def test_infer_refuses_what_does_not_fit() -> None:
    u, r, k = positive(1, 3, H, W), positive(1, H, W), positive(3, 7, 9)
    with pytest.raises(ValueError, match="got maps of 3 joints, 3 kernels and 2 parents"):
        infer(u, r, k, (-1, 0))
    with pytest.raises(ValueError, match=r"got reduce='mean', expected one of sum, max"):
        infer(u, r, k, CHAIN, "mean")


# -- which person? ----------------------------------------------------------------------------------------------------

SIZE = (14, 22)
#: Three joints: a head above the torso, an elbow to its right, a wrist below that, for a torso at (0, 0).
POSE = [[0.0, -4.0], [3.0, 0.0], [4.0, 3.0]]
ARM = (-1, -1, 1)


def person(x: float, y: float) -> Tensor:
    """Cells (1, J, 2) of a person whose torso is there."""
    return torch.tensor([POSE]) + torch.tensor([x, y])


def trained(kind: Callable[..., SpatialModel] = SpatialModel, **options: Any) -> SpatialModel:
    """A model that knows this pose, up to a cell or so."""
    poses = person(8, 6) + torch.randn(400, 3, 2, generator=torch.Generator().manual_seed(0)) * 0.7
    model = kind(ARM, SIZE, **options)
    model.measure(labels_at(poses.tolist(), SIZE), from_pixels(torch.tensor([[8.0, 6]] * 400), SIZE))
    return model


def crowd(left: list[float], right: list[float]) -> tuple[Tensor, Tensor, Tensor]:
    """Maps with the joints of two people at these heights, and their cells."""
    a, b = person(5, 6), person(14, 7)
    drawn = [Gaussian(1.0)(labels_at(p.tolist(), SIZE), SIZE).maps for p in (a, b)]
    heights = [torch.tensor(h).view(1, 3, 1, 1) for h in (left, right)]
    return torch.maximum(drawn[0] * heights[0], drawn[1] * heights[1]), a, b


@pytest.mark.parametrize("model", [trained(), trained(reduce="max"), trained(AllPairs, floor=1e-4)], ids=repr)
def test_the_torso_chooses_the_person(model: SpatialModel) -> None:
    maps, a, b = crowd([0.6, 1.0, 0.5], [1.0, 0.7, 0.9])
    raw = torch.tensor(cells(maps))
    assert raw.tolist() == torch.stack([b[:, 0], a[:, 1], b[:, 2]], 1).tolist()  # a pose of two people
    for own, at in ((a, [5.0, 6.0]), (b, [14.0, 7.0])):
        posterior = model(maps, from_pixels(torch.tensor([at]), SIZE)).detach()
        assert cells(posterior) == own.tolist()
        torch.testing.assert_close(posterior.sum((-2, -1)), torch.ones(1, 3))


def test_without_the_torso_nothing_chooses() -> None:
    """The tree still gives the joints of one person, but of the one with the higher peaks, whoever is meant."""
    model = trained()
    unknown = torch.zeros(1, *SIZE, dtype=torch.float64)

    def blind(maps: Tensor) -> Tensor:
        log = maps.double().clamp_min(model.floor).log()
        return infer(log, unknown, model.kernels().detach(), model.parents).exp()

    def share(p: Tensor, own: Tensor) -> float:
        """Of the head's posterior, the part within 2 cells of this person's head."""
        x, y = own[0, 0].int().tolist()
        return float(p[0, 0, y - 2 : y + 3, x - 2 : x + 3].sum())

    low, high = [0.5, 0.5, 0.5], [1.0, 1.0, 1.0]
    for heights, swapped in (((low, high), False), ((high, low), True)):
        maps, a, b = crowd(*heights)
        strong, weak = (a, b) if swapped else (b, a)
        assert cells(blind(maps)) == strong.tolist()
        meant = from_pixels(weak[:, 0] - torch.tensor(POSE[0]), SIZE)
        assert cells(model(maps, meant).detach()) == weak.tolist()
        assert share(model(maps, meant).detach(), weak) > 0.95
        assert share(blind(maps), weak) < 0.2
    maps, a, b = crowd(high, high)
    assert share(blind(maps), a) == pytest.approx(share(blind(maps), b), rel=0.01)


def test_drawn_people_are_told_apart() -> None:
    n, size = 80, (16, 16)
    train, test = (
        Figures(size=64).scene_labels(torch.arange(600)),
        Figures("test", size=64).scene_labels(torch.arange(n)),
    )
    other = Figures("test", size=64, seed=1).scene_labels(torch.arange(n))
    left = torch.tensor([-0.4, 0.0])
    mine, theirs = 0.5 * test.coords + left, 0.5 * other.coords - left
    g = torch.Generator().manual_seed(0)
    drawn = [Gaussian(1.5)(Labels(c, torch.ones_like(c)), size).maps for c in (mine, theirs)]
    maps = torch.maximum(*(d * (0.3 + 0.7 * torch.rand(n, 16, 1, 1, generator=g)) for d in drawn))
    model = SpatialModel(tree(MPII16), size, learnt=False)
    model.measure(Labels(0.5 * train.coords, torch.ones_like(train.coords)), 0.5 * train.hint)

    def right(found: Tensor) -> float:
        return float(((found - mine).norm(dim=-1) < 2 * 2 / 16).float().mean())

    assert right(Argmax()(maps).coords) < 0.65
    assert right(Argmax()(model(maps, 0.5 * test.hint + left)).coords) > 0.98
    assert right(Argmax()(model(maps, 0.5 * other.hint - left)).coords) < 0.1


def test_a_joint_that_the_detector_missed_is_put_where_it_is_expected() -> None:
    maps, a, _ = crowd([1, 1, 1], [0, 0, 0])
    maps[:, 2] = 0  # no trace of the wrist
    posterior = trained()(maps, from_pixels(torch.tensor([[5.0, 6.0]]), SIZE)).detach()
    assert (torch.tensor(cells(posterior)) - a).abs().max() <= 1
    assert float(posterior[0, 2].max()) < 0.4 * float(posterior[0, 0].max())  # and nobody is sure of it


def test_impossible_places_stay_finite_in_any_precision() -> None:
    model = trained(background=1e-6, floor=1e-8)
    maps = torch.zeros(2, 3, *SIZE)
    maps[0, 0, 13, 0] = maps[0, 1, 0, 21] = maps[0, 2, 13, 21] = 1.0
    maps[1] = -maps[0]
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        found = model(maps.to(dtype), torch.tensor([[0.9, 0.9], [-3.0, 7.0]])).detach()
        assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert bool(found.isfinite().all())
        torch.testing.assert_close(found.sum((-2, -1)).float(), torch.ones(2, 3))
    log = model.log_posterior(maps, torch.zeros(2, 2))
    log.sum().backward()
    assert model.kernel.grad is not None
    assert bool(model.kernel.grad.isfinite().all())


# -- the modules ------------------------------------------------------------------------------------------------------


def test_a_kernel_is_the_histogram_and_a_share_of_anything() -> None:
    model = trained(background=0.1)
    labels = labels_at(person(8, 6).tolist(), SIZE)
    model.measure(labels, from_pixels(torch.tensor([[8.0, 6]]), SIZE))
    seen = histograms(*labels, list(enumerate(ARM)), SIZE, from_pixels(torch.tensor([[8.0, 6]]), SIZE), 1.0)
    torch.testing.assert_close(model.kernels(), 0.9 * seen + 0.1 / (27 * 43), rtol=1e-5, atol=1e-9)
    flat = SpatialModel(ARM, SIZE).kernels()
    torch.testing.assert_close(flat, torch.full_like(flat, 1 / (27 * 43)))


def test_an_image_whose_torso_is_not_labelled_is_in_no_histogram_about_the_torso() -> None:
    labels = labels_at([[[4, 4], [9, 4], [6, 8]], [[5, 9], [12, 3], [7, 7]]], SIZE)
    first = Labels(labels.coords[:1].clone(), labels.weight[:1])
    labels.coords[1, 0], labels.weight[1, 0] = torch.nan, 0
    models = [SpatialModel((-1, -1, -1), SIZE, torso=(0, 1)) for _ in range(2)]
    for model, known in zip(models, (labels, first), strict=True):
        model.measure(known)
    torch.testing.assert_close(models[0].kernel, models[1].kernel)


def test_a_model_without_displacements_does_nothing_but_raise_to_the_floor() -> None:
    maps = positive(B, J, H, W) - 0.4
    raised = maps.maximum(torch.tensor(0.3))
    found = SpatialModel(CHAIN, (H, W), floor=0.3)(maps, torch.zeros(B, 2))
    torch.testing.assert_close(found, raised / raised.sum((-2, -1), keepdim=True))


def test_all_pairs_against_loops() -> None:
    model = AllPairs((-1, 0), (3, 4), floor=0.2, spread=0.7, background=0.5).double()
    gen = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=gen, dtype=torch.float64)
    maps, hint = positive(1, 2, 3, 4) - 0.3, from_pixels(torch.tensor([[1.2, 0.4]]), (3, 4))
    e = [np.maximum(maps[0, v].numpy(), 0.2) for v in range(2)]
    y, x = np.mgrid[:3, :4]
    torso = np.exp(-((x - 1.2) ** 2 + (y - 0.4) ** 2) / (2 * 0.49))
    e.append(np.maximum(torso / torso.max(), 0.2))
    k, bias = (np.log1p(np.exp(p.detach().numpy())) for p in (model.kernel, model.bias))
    assert bias.shape == (2, 3)
    found = model(maps, hint).detach()[0]
    for a in range(2):
        value = np.prod([slow_message(e[v], k[3 * a + v], back=False) + bias[a, v] for v in range(3)], 0)
        np.testing.assert_allclose(found[a].numpy(), value / value.sum(), rtol=1e-5)
    assert torch.autograd.gradcheck(lambda m: model(m, hint), (maps.abs() + 0.3).requires_grad_())


def test_all_pairs_start_from_histograms_and_small_biases() -> None:
    model = trained(AllPairs, background=0.05)
    assert model.edges[:5] == [(0, 0), (0, 1), (0, 2), (0, TORSO), (1, 0)]
    own, elbow_from_torso = model.kernels()[0], model.kernels()[7]
    assert float(own[13, 21].detach()) > 0.99
    assert abs(int(elbow_from_torso.argmax()) - (13 * 43 + 21 + 3)) <= 1
    assert torch.nn.functional.softplus(model.bias).unique().tolist() == [pytest.approx(0.05 / (27 * 43), rel=1e-4)]
    with pytest.raises(ValueError, match="got reduce='max', but it knows no maxima"):
        AllPairs(ARM, SIZE, reduce="max")


def test_the_loss_by_hand() -> None:
    model, maps, hint = SpatialModel(CHAIN, (H, W)), positive(B, J, H, W), torch.zeros(B, 2)
    target, weight = torch.zeros(B, J, H, W), torch.tensor([[1.0, 2, 0], [0, 0, 1]])
    target[0, 0, 1, 2], target[0, 1, 3, 0:2], target[0, 2], target[1, 0, 0, 0] = 3.0, 0.5, torch.nan, 1.0
    p = model(maps, hint).detach()  # joint 2 of image 1 has no target: outside the map
    by_hand = (-p[0, 0, 1, 2].log() - (p[0, 1, 3, 0].log() + p[0, 1, 3, 1].log()) / 2 * 2) / 3
    found = model.loss(maps, target, weight, hint)
    assert float(found.detach()) == pytest.approx(float(by_hand))
    found.backward()
    assert model.kernel.grad is not None
    assert bool(model.kernel.grad.isfinite().all())
    nothing = model.loss(maps, target, torch.zeros(B, J), hint)
    assert float(nothing.detach()) == 0


@pytest.mark.parametrize("kind", [SpatialModel, AllPairs])
def test_displacements_can_be_learnt_from_nothing(kind: type[SpatialModel]) -> None:
    model = kind(ARM, SIZE)
    maps, a, b = crowd([1, 1, 1], [1, 1, 1])
    maps, people = maps.expand(2, -1, -1, -1), torch.cat([a, b])
    target = Gaussian(1.0)(labels_at(people.tolist(), SIZE), SIZE)
    hint = from_pixels(people[:, 0] - torch.tensor(POSE[0]), SIZE)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.2)
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        loss = model.loss(maps, *target, hint)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.5
    assert cells(model(maps, hint).detach()) == people.tolist()


def test_the_torso_in_training() -> None:
    labels = Labels(positive(B, 4, 2).float(), torch.ones(B, 4, 2))
    labels.coords[1, 3], labels.weight[1, 3, 0] = torch.nan, 0
    point, known = SpatialModel((-1, -1, 0, 0), (H, W), torso=(1, 3)).where(labels, None)
    torch.testing.assert_close(point[0], (labels.coords[0, 1] + labels.coords[0, 3]) / 2)
    assert point[1].tolist() == [0, 0]
    assert known.tolist() == [True, False]
    hint = torch.rand(B, 2)
    point, known = SpatialModel((-1, -1, 0, 0), (H, W)).where(labels, hint)
    assert torch.equal(point, hint)
    assert known.tolist() == [True, True]
    with pytest.raises(ValueError, match=r"got torso=\(1, 4\), expected joints from 0 to 3"):
        SpatialModel((-1, -1, 0, 0), (H, W), torso=(1, 4))


def test_bad_input_to_the_model() -> None:
    model = SpatialModel(CHAIN, (H, W))
    maps = positive(B, J, H, W)
    with pytest.raises(ValueError, match=r"got no hint.* predict\(images, hint=\.\.\.\).*torso=corners\(skeleton\)"):
        model(maps, None)
    for hint in (torch.zeros(B, 3), torch.zeros(1, 2), torch.tensor([[0, 0], [0, torch.nan]])):
        with pytest.raises(ValueError, match=r"got a hint of shape .*, expected \(2, 2\): finite normalised \(x, y\)"):
            model.where(Labels(maps, maps), hint)
    with pytest.raises(ValueError, match=r"maps of shape \(2, 3, 4, 4\), expected \(B, 3, 4, 5\); give it the tree"):
        model(maps[..., :4], torch.zeros(B, 2))
    for name in ("spread", "floor", "blur", "background"):
        with pytest.raises(ValueError, match=f"got {name}=0, expected a number between 0 and"):
            SpatialModel(CHAIN, (H, W), **{name: 0})
    with pytest.raises(ValueError, match="got background=1, expected a number between 0 and 1"):
        SpatialModel(CHAIN, (H, W), background=1)
    with pytest.raises(ValueError, match=r"SpatialModel: got reduce='mean', expected one of sum, max"):
        SpatialModel(CHAIN, (H, W), reduce="mean")


# -- data and the estimator -------------------------------------------------------------------------------------------


def store(n: int = 12, augment: Augment | None = None, hint: bool = True) -> Store:
    """Labels of drawn figures; the images are grey."""
    truth = Figures(size=32, skeleton=LSP14).scene_labels(torch.arange(n))
    return Store(
        torch.full((n, 3, 32, 32), 90, dtype=torch.uint8), truth.coords, torch.ones_like(truth.coords),
        torch.ones(n, 14, dtype=torch.bool), truth.normaliser, truth.affine, LSP14.pairs, LSP14.joints,
        truth.hint if hint else None, augment,
    )  # fmt: skip


@dataclass
class Once:
    """A data set that counts how often it is opened."""

    opened: list[int] = field(default_factory=list)

    def open(self) -> Store:
        self.opened.append(1)
        return store()


class Painted(nn.Module):
    """A head with trainable maps, the same for all images."""

    produces = Maps

    def __init__(self, maps: Tensor) -> None:
        super().__init__()
        self.maps = nn.Parameter(maps)
        self.norm = nn.BatchNorm2d(maps.shape[1])

    def forward(self, images: Tensor) -> Tensor:
        return self.maps.expand(len(images), -1, -1, -1)


def test_priors_are_opened_when_first_used_and_never_for_stored_weights() -> None:
    data, maps, hint = Once(), positive(1, 14, 8, 6), torch.zeros(1, 2)
    model = SpatialModel(tree(LSP14), (8, 6), priors=data)
    assert not data.opened
    first = model(maps, hint).detach()
    torch.testing.assert_close(model(maps, hint).detach(), first)
    assert len(data.opened) == 1
    uniform = SpatialModel(tree(LSP14), (8, 6))(maps, hint).detach()
    assert float((first - uniform).abs().max()) > 0.01
    again = SpatialModel(tree(LSP14), (8, 6), priors=data)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(maps, hint).detach(), first)
    assert len(data.opened) == 1


@pytest.mark.parametrize("method", [Heatmap(Gaussian(1.0), MSE(), Argmax()),
                                    Heatmap(OneHot(), SoftmaxCrossEntropy(), Argmax())])  # fmt: skip
def test_an_estimator_reads_the_person_about_the_hint(method: Heatmap) -> None:
    maps, a, b = crowd([0.6, 1.0, 0.5], [1.0, 0.7, 0.9])
    output = maps if isinstance(method.compare, MSE) else (maps + 1e-4).log()
    spatial = trained(floor=1e-3 if isinstance(method.compare, MSE) else 1e-6)
    network = SpatialEstimator(nn.Identity(), Painted(output), method, spatial)
    network.head.norm.eval()
    images = torch.rand(2, 3, 8, 8)
    hint = from_pixels(torch.tensor([[14.0, 7.0], [5.0, 6.0]]), SIZE)
    found = to_pixels(network.predict(images, hint).coords, SIZE)
    torch.testing.assert_close(found, torch.cat([b, a]), atol=1e-4, rtol=0)
    posterior = spatial(method.compare.activate(output).expand(2, -1, -1, -1), hint).detach()
    torch.testing.assert_close(network.predict(images, hint).score, posterior.amax((-2, -1)))
    assert network.training
    assert not network.head.norm.training
    with pytest.raises(ValueError, match="got no hint, expected the torso point"):
        network.predict(images)
    assert network.training


def test_a_flip_test_is_merged_before_the_spatial_model() -> None:
    maps, a, _ = crowd([1.0] * 3, [1.0] * 3)
    network = SpatialEstimator(nn.Identity(), Painted(maps), Heatmap(Gaussian(1.0), MSE(), Argmax()), trained())
    hint = from_pixels(torch.tensor([[5.0, 6.0]]), SIZE)
    both = (maps + maps.flip(-1)[:, [1, 0, 2]]) / 2
    wanted = Argmax()(network.spatial(both, hint).detach())
    found = network.predict(torch.rand(1, 3, 8, 8), hint, flip=((0, 1),))
    torch.testing.assert_close(found.coords, wanted.coords)
    torch.testing.assert_close(found.score, wanted.score)
    torch.testing.assert_close(to_pixels(found.coords, SIZE)[0, 2], a[0, 2], atol=1e-4, rtol=0)


def test_what_each_way_trains() -> None:
    maps, a, _ = crowd([1.0] * 3, [0.8] * 3)
    labels = labels_at(a.tolist(), SIZE)
    hint = from_pixels(torch.tensor([[5.0, 6.0]]), SIZE)
    batch = Batch(torch.rand(1, 3, 8, 8), labels, torch.ones(1, 3) > 0, torch.ones(1), torch.zeros(1, 2, 3), hint)
    method = Heatmap(Gaussian(1.0), MSE(), Argmax())
    alone = Estimator(nn.Identity(), Painted(maps.clone()), method)
    alone.loss(batch)["loss"].backward()
    own = alone.head.maps.grad
    grads = {}
    for detector in ("beside", "joint", "frozen"):
        network = SpatialEstimator(nn.Identity(), Painted(maps.clone()), method, trained(), detector, 0.5)
        parts = network.train().loss(batch)
        assert set(parts) == {"heatmap", "spatial", "loss"}
        whole = 0.5 * parts["spatial"] + (0 if detector == "frozen" else parts["heatmap"])
        torch.testing.assert_close(parts["loss"], whole)
        parts["loss"].backward()
        assert network.head.norm.training == (detector != "frozen")
        assert float(network.spatial.kernel.grad.abs().sum()) > 0
        grads[detector] = network.head.maps.grad
    torch.testing.assert_close(grads["beside"], own)
    assert not torch.allclose(grads["joint"], own)
    assert grads["frozen"] is None
    with pytest.raises(ValueError, match=r"got no hint.*torso=corners"):
        network.loss(batch._replace(hint=None))


def test_an_image_whose_torso_is_not_labelled_does_not_train_the_spatial_model() -> None:
    maps, a, b = crowd([1.0] * 3, [0.8] * 3)
    labels = labels_at(torch.cat([a, b]).tolist(), SIZE)
    labels.coords[1, 2], labels.weight[1, 2] = torch.nan, 0
    batch = Batch(torch.rand(2, 3, 8, 8), labels, torch.ones(2, 3) > 0, torch.ones(2), torch.zeros(2, 2, 3))
    spatial = SpatialModel(ARM, SIZE, torso=(0, 2))
    network = SpatialEstimator(nn.Identity(), Painted(maps), Heatmap(Gaussian(1.0), MSE(), Argmax()), spatial)
    target = network.method.encode(labels, SIZE)
    wanted = spatial.loss(maps, target.maps[:1], target.weight[:1], labels.coords[:1, [0, 2]].mean(1))
    torch.testing.assert_close(network.loss(batch)["spatial"], wanted)
    one = Batch(*(Labels(*(t[1:] for t in v)) if isinstance(v, Labels) else v[1:] for v in batch[:5]))
    assert float(network.loss(one)["spatial"].detach()) == 0


def test_an_estimator_refuses_what_it_cannot_use() -> None:
    with pytest.raises(ValueError, match="SpatialEstimator: got the method DSNT, expected a Heatmap"):
        SpatialEstimator(nn.Identity(), Painted(torch.zeros(1, 3, H, W)), DSNT(), SpatialModel(CHAIN, (H, W)))
    method = Heatmap(Gaussian(1.0), MSE(), Argmax())
    with pytest.raises(ValueError, match="got detector='cold', expected one of beside, joint, frozen"):
        SpatialEstimator(nn.Identity(), Painted(torch.zeros(1, 3, H, W)), method, SpatialModel(CHAIN, (H, W)), "cold")


def test_a_run_trains_it_with_augmentation_and_predict_passes_the_hint() -> None:
    data = store(augment=Augment(flip=0.5, rotation=30).bind(LSP14.pairs))
    spatial = SpatialModel(tree(LSP14), (8, 8), priors=Once(), torso=corners(LSP14))
    network = SpatialEstimator(
        nn.Identity(), Painted(torch.zeros(1, 14, 8, 8)), Heatmap(Gaussian(1.0), MSE(), Argmax()), spatial
    )
    fabric = Fabric(accelerator="cpu", devices=1)
    losses = fit(network, data, Training(steps=6, batch=6, lr=0.01), fabric=fabric, progress=False)
    assert len(losses) == 6
    assert bool(spatial.measured)
    found = predict(network, data)
    # the maps are the same for all images: only the hint can tell the poses apart
    assert float(found.coords.std(0).max()) > 0.01
    with pytest.raises(ValueError, match="got no hint"):
        predict(network, store(hint=False))
    # the mirrored person's torso is the mirrored torso
    mirrored = Labels(flip_coords(data.coords, LSP14.pairs), data.weight)
    assert data.hint is not None
    torch.testing.assert_close(spatial.where(mirrored, None)[0], data.hint * torch.tensor([-1.0, 1.0]))


def test_a_configuration_is_written_down_and_rebuilt() -> None:
    method = spec(Heatmap, target=Gaussian(1.0), loss=MSE(), decoder=Argmax())
    for kind in (SpatialModel, AllPairs):
        spatial = spec(kind, parents=tree(H36M17), size=(5, 4), priors=Figures(count=3), torso=corners(H36M17))
        whole = spec(SpatialEstimator, backbone=spec(nn.Identity), head=spec(nn.Identity), method=method,
                     spatial=spatial, detector="joint")  # fmt: skip
        assert whole["spatial"] == spatial
        back = rebuild(json.loads(json.dumps(describe(spatial))))
        assert back == spatial
        assert back.build().kernel.shape == spatial.build().kernel.shape
