"""Object keypoint similarity, COCO's measure: a Gaussian of each joint's error, averaged over the labelled joints.

Lin et al., ECCV 2014, and COCO's evaluation code. Where PCK asks yes or no, OKS grades: a joint contributes
exp(-d^2 / (2 s k^2)) with d its error in pixels, s the person's area in square pixels and k = 2 sigma a constant of
that kind of joint, measured from annotators who labelled the same people twice.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

#: COCO's 17 sigmas, in the order nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles. MPII and LSP have
#: published none: nobody labelled their people twice, so there is no OKS for them.
COCO_SIGMAS = (
    *(0.026, 0.025, 0.025, 0.035, 0.035),
    *(0.079, 0.079, 0.072, 0.072, 0.062, 0.062),
    *(0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
)


def similarity(
    points: Float[Tensor, "B J 2"],
    labels: Float[Tensor, "B J 2"],
    area: Float[Tensor, " B"],
    sigmas: Sequence[float] = COCO_SIGMAS,
) -> Float[Tensor, "B J"]:
    """Similarity of each joint, in [0, 1]: 1 for an exact hit, 0.61 at a distance of k times the root of the area.

    points, labels: index pixels of the source. area: (B,) of the person's mask, in square pixels.
    """
    if len(sigmas) != points.shape[1]:
        raise ValueError(
            f"oks: got {len(sigmas)} sigmas for {points.shape[1]} joints; COCO has published sigmas for its 17 joints, "
            "MPII and LSP none, so give one for each of yours or use PCK"
        )
    if not bool((area > 0).all()):
        raise ValueError(
            f"oks: got an area of {float(area.min()):g}, expected areas above 0 in square pixels of the same picture "
            "as the points; leave people without a mask out"
        )
    k = 2 * torch.tensor(sigmas, device=points.device, dtype=points.dtype)
    squared = (points - labels).square().sum(-1)
    return torch.exp(-squared / (2 * area.unsqueeze(-1) * k.square()))


def oks(
    points: Float[Tensor, "B J 2"],
    labels: Float[Tensor, "B J 2"],
    area: Float[Tensor, " B"],
    sigmas: Sequence[float] = COCO_SIGMAS,
    weight: Float[Tensor, "B J"] | None = None,
) -> Float[Tensor, " B"]:
    """OKS of each person: the mean similarity of the labelled joints, (B,); NaN for a person without any.

    weight: 0 where unlabelled (COCO's v = 0); hidden joints (v = 1) count as much as visible ones. Without a weight
    every joint counts. COCO's own code goes on to compare a person without labels with the box; that belongs to AP.
    """
    known = torch.ones_like(points[..., 0], dtype=torch.bool) if weight is None else weight > 0
    each = similarity(points, torch.where(known.unsqueeze(-1), labels, 0), area, sigmas)
    broken = (each.isnan() & known).nonzero()
    if len(broken):
        b, j = broken[0].tolist()
        raise ValueError(f"oks: image {b}, joint {j} is labelled but NaN; give unlabelled joints the weight 0")
    return torch.where(known, each, 0).sum(-1) / known.sum(-1)
