"""MPJPE, N-MPJPE and PA-MPJPE: values by hand, an independent solver, invariances, reflections, messages."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from coordreg.metrics.mpjpe import joint_errors, mpjpe, n_mpjpe, pa_mpjpe, procrustes


def poses(seed: int, b: int = 4, j: int = 7, d: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    gt = 300 * torch.randn(b, j, d, generator=g, dtype=torch.float64)
    return gt + 40 * torch.randn(b, j, d, generator=g, dtype=torch.float64), gt


def rotations(seed: int, b: int) -> torch.Tensor:
    return torch.from_numpy(Rotation.random(b, random_state=seed).as_matrix())


def test_by_hand() -> None:
    gt = torch.zeros(1, 3, 3)
    pred = torch.tensor([[[0.0, 0.0, 0.0], [3.0, 4.0, 0.0], [0.0, 0.0, 2.0]]])
    assert mpjpe(pred, gt).tolist() == pytest.approx([7 / 3])
    assert joint_errors(pred, gt, root=1)[0].tolist() == pytest.approx([5.0, 0.0, math.sqrt(29)])
    assert mpjpe(pred, gt, root=0).tolist() == pytest.approx([7 / 3])
    assert mpjpe(pred, gt, root=0, count_root=False).tolist() == pytest.approx([7 / 2])


def test_counting_the_root_of_seventeen_joints_flatters_by_a_sixteenth() -> None:
    pred, gt = poses(0, j=17)
    ratio = mpjpe(pred, gt, root=0) / mpjpe(pred, gt, root=0, count_root=False)
    torch.testing.assert_close(ratio, torch.full_like(ratio, 16 / 17))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 20))
def test_each_protocol_forgives_what_it_says(seed: int, factor: float) -> None:
    pred, gt = poses(seed)
    shift = 100 * torch.randn(4, 1, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    turned = pred @ rotations(seed, 4).mT
    close = {"rtol": 1e-8, "atol": 1e-6}
    torch.testing.assert_close(mpjpe(pred + shift, gt, root=2), mpjpe(pred, gt, root=2), **close)
    torch.testing.assert_close(n_mpjpe(factor * pred + shift, gt, root=2), n_mpjpe(pred, gt, root=2), **close)
    torch.testing.assert_close(pa_mpjpe(factor * turned + shift, gt), pa_mpjpe(pred, gt), **close)
    torch.testing.assert_close(pa_mpjpe(turned + shift, gt, scale=False), pa_mpjpe(pred, gt, scale=False), **close)
    assert bool((pa_mpjpe(turned, gt) < mpjpe(turned, gt, root=2)).all())


@pytest.mark.parametrize("scale", [True, False])
def test_procrustes_is_the_least_squares_solution(scale: bool) -> None:
    pred, gt = poses(5, b=2)
    pred = pred @ rotations(3, 2).mT * 1.7 + 50
    aligned = procrustes(pred, gt, scale)
    for i in range(2):
        p, g = pred[i].numpy(), gt[i].numpy()

        def cost(v: np.ndarray, p: np.ndarray = p, g: np.ndarray = g) -> float:
            factor = np.exp(v[6]) if scale else 1.0
            return float(((factor * (p @ Rotation.from_rotvec(v[:3]).as_matrix().T) + 100 * v[3:6] - g) ** 2).sum())

        starts = Rotation.random(6, random_state=1).as_rotvec()
        best = min(minimize(cost, np.r_[s, np.zeros(4)], method="BFGS").fun for s in starts)
        ours = float((aligned[i] - gt[i]).square().sum())
        assert ours == pytest.approx(best, rel=1e-5)


def test_a_mirrored_pose_stays_wrong() -> None:
    _, gt = poses(1)
    mirrored = gt * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    assert bool((pa_mpjpe(mirrored, gt) > 20).all())
    assert bool((pa_mpjpe(mirrored, gt, scale=False) > 20).all())
    flat = gt * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)  # mirrored flat poses are rotations of each other
    assert bool((pa_mpjpe(flat * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64), flat) < 1e-6).all())


def test_two_dimensions_and_degenerate_poses() -> None:
    pred, gt = poses(2, d=2)
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(pa_mpjpe(2 * gt @ turn + 3, gt), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-9)
    assert bool((pa_mpjpe(gt * torch.tensor([1.0, -1.0], dtype=torch.float64), gt) > 1).all())
    point = torch.ones_like(pred)
    centred = (gt - gt.mean(1, keepdim=True)).norm(dim=-1).mean(-1)
    torch.testing.assert_close(pa_mpjpe(point, gt), centred)
    torch.testing.assert_close(n_mpjpe(point, gt, root=0), mpjpe(point, gt, root=0))


def test_n_mpjpe_takes_the_best_scale() -> None:
    pred, gt = poses(3)
    torch.testing.assert_close(n_mpjpe(0.3 * gt, gt), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-9)
    p, g = pred[:1] - pred[:1, :1], gt[:1] - gt[:1, :1]
    factors = torch.linspace(0.2, 2.0, 20_001, dtype=torch.float64)
    squared = (factors.view(-1, 1, 1) * p - g).square().sum((1, 2))
    best = factors[squared.argmin()]
    torch.testing.assert_close(n_mpjpe(pred[:1], gt[:1], root=0), mpjpe(best * p, g), rtol=1e-3, atol=0)


def test_single_precision_is_kept() -> None:
    pred, gt = (x.float() for x in poses(4))
    assert pa_mpjpe(pred, gt).dtype == torch.float32
    torch.testing.assert_close(pa_mpjpe(pred, gt).double(), pa_mpjpe(*poses(4)), rtol=1e-5, atol=1e-4)


def test_messages() -> None:
    pred, gt = poses(0)
    with pytest.raises(ValueError, match="root=9, expected a joint from 0 to 6"):
        mpjpe(pred, gt, root=9)
    with pytest.raises(ValueError, match="needs a root"):
        mpjpe(pred, gt, count_root=False)
    with pytest.raises(ValueError, match="nothing left"):
        mpjpe(pred[:, :1], gt[:, :1], root=0, count_root=False)
    gt[2, 3, 1] = torch.nan
    with pytest.raises(ValueError, match="truth of pose 2 is not finite"):
        pa_mpjpe(pred, gt)
