"""Errors of poses in three dimensions: MPJPE and what may be taken off before it (chapter 1).

    mpjpe       after a shift that puts the roots together, or no shift at all
    n_mpjpe     after that shift and the best scale
    pa_mpjpe    after the best shift, rotation and scale (Procrustes), or without the scale ("rigid")

Each leaves less of the error in, though not always a smaller mean: the alignments minimise squares, not distances. The
figures do not compare across protocols. Units are those of the
input, usually millimetres. Sources: Ionescu et al., PAMI 2014 (Human3.6M); Umeyama, PAMI 1991 (the alignment);
Rhodin et al., CVPR 2018 (N-MPJPE).
"""

import torch
from jaxtyping import Float
from torch import Tensor


def joint_errors(
    pred: Float[Tensor, "B J d"], gt: Float[Tensor, "B J d"], root: int | None = None
) -> Float[Tensor, "B J"]:
    """Distance of each joint from its truth, after joint `root` of both poses has been moved to the origin."""
    _check(pred, gt, root)
    if root is not None:
        pred, gt = pred - pred[:, root : root + 1], gt - gt[:, root : root + 1]
    return (pred - gt).norm(dim=-1)


def mpjpe(
    pred: Float[Tensor, "B J d"], gt: Float[Tensor, "B J d"], root: int | None = None, count_root: bool = True
) -> Float[Tensor, " B"]:
    """Mean per-joint position error of each pose, (B,).

    root: joint at which the poses are put together, whose error is then 0. count_root=False leaves it out of the mean:
    with 17 joints the figure grows by 17/16. Human3.6M papers count it, mostly without saying so.
    """
    error = joint_errors(pred, gt, root)
    if count_root:
        return error.mean(-1)
    if root is None:
        raise ValueError("mpjpe: count_root=False needs a root; name the joint that is to be left out")
    if error.shape[1] == 1:
        raise ValueError("mpjpe: a pose of one joint has nothing left without its root; use count_root=True")
    return error.sum(-1) / (error.shape[1] - 1)


def n_mpjpe(pred: Float[Tensor, "B J d"], gt: Float[Tensor, "B J d"], root: int | None = None) -> Float[Tensor, " B"]:
    """MPJPE after the scale of each prediction that makes its squared error least; roots together if given."""
    _check(pred, gt, root)
    if root is not None:
        pred, gt = pred - pred[:, root : root + 1], gt - gt[:, root : root + 1]
    length = pred.square().sum((1, 2))
    scale = torch.where(length > 0, (pred * gt).sum((1, 2)) / length.clamp_min(torch.finfo(pred.dtype).tiny), 1)
    return joint_errors(scale[:, None, None] * pred, gt).mean(-1)


def procrustes(pred: Float[Tensor, "B J d"], gt: Float[Tensor, "B J d"], scale: bool = True) -> Float[Tensor, "B J d"]:
    """Move, turn and (unless scale=False) scale each prediction so that its squared distance to the truth is least.

    The rotation is proper, det R = +1: a mirrored pose stays wrong. One batched SVD, in double precision.
    """
    _check(pred, gt, None)
    p, g = pred.double(), gt.double()
    centre = g.mean(1, keepdim=True)
    p, g = p - p.mean(1, keepdim=True), g - centre
    u, s, vh = torch.linalg.svd(p.mT @ g)
    # The last axis is turned over if the best orthogonal matrix were a reflection.
    sign = torch.ones_like(s)
    sign[:, -1] = torch.linalg.det(u @ vh).sign()
    rotation = (u * sign.unsqueeze(1)) @ vh
    aligned = p @ rotation
    if scale:
        length = p.square().sum((1, 2))
        factor = torch.where(length > 0, (s * sign).sum(-1) / length.clamp_min(torch.finfo(p.dtype).tiny), 0)
        aligned = factor[:, None, None] * aligned
    return (aligned + centre).to(pred.dtype)


def pa_mpjpe(pred: Float[Tensor, "B J d"], gt: Float[Tensor, "B J d"], scale: bool = True) -> Float[Tensor, " B"]:
    """MPJPE after Procrustes alignment over all joints, (B,); scale=False is the rigid variant some codes call PA."""
    return joint_errors(procrustes(pred, gt, scale), gt).mean(-1)


def _check(pred: Tensor, gt: Tensor, root: int | None) -> None:
    if pred.shape != gt.shape:
        raise ValueError(
            f"mpjpe: got poses of shape {tuple(pred.shape)} and truths of {tuple(gt.shape)}, expected equal"
        )
    for name, value in (("prediction", pred), ("truth", gt)):
        if not bool(torch.isfinite(value).all()):
            b = int((~torch.isfinite(value)).any(-1).any(-1).nonzero()[0])
            raise ValueError(f"mpjpe: the {name} of pose {b} is not finite; leave poses with missing joints out")
    if root is not None and not 0 <= root < pred.shape[1]:
        raise ValueError(f"mpjpe: got root={root}, expected a joint from 0 to {pred.shape[1] - 1}")
