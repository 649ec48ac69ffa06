"""PCK and PCKh: the percentage of joints whose error is at most a threshold times a length of the person (chapter 1).

The length decides the name: PCKh divides by MPII's head size, PCK by the torso (LSP, FLIC) or whatever is given.
Everything starts from normalised distances (B, J), NaN where a joint is unlabelled; results are percentages.

Sources: Yang and Ramanan, PAMI 2013 (PCK); Andriluka et al., CVPR 2014 (PCKh); MPII's evaluation code for the rules
(inclusive threshold, 0.6 of the head box, joints weighted by how often they are labelled).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric

from coordreg.coords import Batch, Points, apply_affine

#: MPII's head box is larger than the head: PCKh divides by 0.6 of its diagonal.
HEAD = 0.6
#: Pelvis and thorax, which MPII's protocol leaves out of the mean (numbers of MPII's 16 joints).
MPII_EXCLUDE = (6, 7)
#: SimpleBaseline, HRNet and DARK print "Mean@0.1" from entry 11 of a curve with steps of 0.01, which is 0.11.
SLIP = 0.01


@runtime_checkable
class Named(Protocol):
    """Anything with joint names, such as a Skeleton."""

    @property
    def joints(self) -> Sequence[str]:
        """The names in order."""
        ...


class Percent(NamedTuple):
    """joints: (..., J) per cent of each joint, NaN where none is labelled. mean: (...) over the joints that count."""

    joints: Tensor
    mean: Tensor


# -- distances --------------------------------------------------------------------------------------------------------


def distances(
    points: Float[Tensor, "B J d"],
    labels: Float[Tensor, "B J d"],
    normaliser: Float[Tensor, " B"],
    weight: Float[Tensor, "B J"] | None = None,
) -> Float[Tensor, "B J"]:
    """|point - label| / normaliser, NaN where the weight is 0 (or, without a weight, where the label is NaN).

    points, labels, normaliser: in the same pixels. Raises ValueError for a labelled joint whose label or prediction is
    NaN, so that a broken prediction cannot pass as an unlabelled joint (an infinite one is a miss), and for a length
    that is not positive in an image with labels.
    """
    known = ~labels.isnan().any(-1) if weight is None else weight > 0
    for name, value in (("label", labels), ("prediction", points)):
        broken = (value.isnan().any(-1) & known).nonzero()
        if len(broken):
            b, j = broken[0].tolist()
            raise ValueError(
                f"distances: the {name} of image {b}, joint {j} is NaN although the joint is labelled; "
                + ("give it the weight 0" if name == "label" else "did the network diverge? Infinity counts as a miss")
            )
    unfit = (~(normaliser > 0) | normaliser.isinf()) & known.any(-1)
    if bool(unfit.any()):
        b = int(unfit.nonzero()[0])
        raise ValueError(
            f"distances: image {b} has the normaliser {float(normaliser[b]):g}, expected a length above 0 in pixels; "
            "leave the image out (weight 0) or give another length"
        )
    error = (points - labels).norm(dim=-1) / normaliser.unsqueeze(-1)
    return torch.where(known, error, torch.nan)


def image_distances(points: Points, batch: Batch) -> Float[Tensor, "B J"]:
    """Normalised distances in the source image, (B, J), NaN where x or y is unlabelled; depth is not looked at.

    points: normalised, as a method predicts them. Both they and the labels go through `batch.affine`, so that the
    error is in pixels of the source whatever the crop did to it; then it is divided by `batch.normaliser`.
    """
    if points.coords.shape[:2] != batch.labels.coords.shape[:2]:
        raise ValueError(
            f"image_distances: got points of shape {tuple(points.coords.shape)} for labels of shape "
            f"{tuple(batch.labels.coords.shape)}; images and joints must agree"
        )
    affine = torch.cat([batch.affine[:, :2, :2], batch.affine[:, :2, -1:]], -1)
    predicted = apply_affine(affine, points.coords[..., :2].to(affine.dtype))
    labelled = apply_affine(affine, batch.labels.coords[..., :2].to(affine.dtype))
    weight = batch.labels.weight[..., :2].amin(-1)
    return distances(predicted, labelled, batch.normaliser.to(affine.dtype), weight)


def head_size(box: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch"]:
    """PCKh's length: 0.6 times the diagonal of the head box (x1, y1, x2, y2)."""
    return HEAD * (box[..., 2:] - box[..., :2]).norm(dim=-1)


def torso(
    points: Float[Tensor, "B J d"], skeleton: Named, ends: tuple[str, str] = ("l_shoulder", "r_hip")
) -> Float[Tensor, " B"]:
    """Strict PCK's length: from a shoulder to the opposite hip; NaN where one of them is unlabelled (NaN).

    LSP takes the left shoulder and the right hip, FLIC ends=("r_shoulder", "l_hip").
    """
    names = list(skeleton.joints)
    missing = [name for name in ends if name not in names]
    if missing:
        raise ValueError(f"torso: no joint {', '.join(missing)} in this skeleton, it has {', '.join(names)}")
    if points.shape[1] != len(names):
        raise ValueError(f"torso: got {points.shape[1]} joints, expected {len(names)} as the skeleton has")
    return (points[:, names.index(ends[0])] - points[:, names.index(ends[1])]).norm(dim=-1)


# -- percentages ------------------------------------------------------------------------------------------------------


def tally(
    distances: Float[Tensor, "B J"], thresholds: Float[Tensor, " T"]
) -> tuple[Int[Tensor, "T J"], Int[Tensor, " J"]]:
    """How many distances of each joint are at most each threshold, and how many there are. Sums over batches add up."""
    # Compared in the distances' own precision: 0.1 in single precision is a little more than 0.1 in double.
    limits = thresholds.to(distances)
    hits = torch.stack([(distances <= limit).sum(0) for limit in limits])
    return hits, (~distances.isnan()).sum(0)


def percent(hits: Int[Tensor, "*batch J"], count: Int[Tensor, " J"], exclude: Sequence[int] = ()) -> Percent:
    """Counts to percentages. The mean weights each joint by how often it is labelled and leaves `exclude` out."""
    joints = len(count)
    outside = [j for j in exclude if not 0 <= j < joints]
    if outside:
        raise ValueError(f"exclude: got joint {outside[0]}, expected numbers from 0 to {joints - 1}")
    kept = torch.ones(joints, dtype=torch.bool, device=count.device)
    kept[list(exclude)] = False
    if not bool(kept.any()):
        raise ValueError(f"exclude: all {joints} joints are left out, so that there is no mean; leave some in")
    mean = 100 * hits[..., kept].sum(-1).double() / count[kept].sum()
    return Percent(100 * hits.double() / count, mean)


def steps(limit: float = 0.5, count: int = 50) -> Float[Tensor, " T"]:
    """The thresholds of a curve: 0 to `limit` in `count` equal steps, 51 of 0.01 by default as MPII has them."""
    if not (limit > 0 and count > 0):
        raise ValueError(f"steps: got limit={limit} and count={count}, expected both above 0")
    return torch.arange(count + 1, dtype=torch.float64) * limit / count


def curve(distances: Float[Tensor, "B J"], thresholds: Float[Tensor, " T"], exclude: Sequence[int] = ()) -> Percent:
    """PCK at each threshold: joints (T, J), mean (T,)."""
    return percent(*tally(distances, thresholds), exclude)


def pck(distances: Float[Tensor, "B J"], threshold: float, exclude: Sequence[int] = (), slip: float = 0.0) -> Percent:
    """Per cent of the labelled joints within `threshold`, the threshold included: joints (J,), mean ().

    slip: added to the threshold. slip=SLIP gives what published codes print as "Mean@0.1", which is PCK at 0.11.
    """
    found = curve(distances, torch.tensor([threshold + slip], dtype=torch.float64), exclude)
    return Percent(found.joints[0], found.mean[0])


def auc(distances: Float[Tensor, "B J"], limit: float = 0.5, count: int = 50, exclude: Sequence[int] = ()) -> Percent:
    """Area under the curve from 0 to `limit` by the trapezoid rule, divided by `limit`: 100 if all errors are 0.

    This is MPII's rule and, in steps of 0.01 up to 0.5, the AUC of Sun et al.'s tables.
    """
    values = curve(distances, steps(limit, count), exclude)
    return Percent(*(torch.trapezoid(v, dim=0) / count for v in values))


# -- over a data set --------------------------------------------------------------------------------------------------


class PCK(Metric):
    """PCK over a data set, batch by batch and process by process: the states are counts, so that they simply add up.

    thresholds: any number of them. joints: names. exclude: joints outside the mean. groups: name to joints, such as a
    skeleton's `groups`; a group's figure is the plain mean of its joints' percentages, as in MPII's tables.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    hits: Tensor
    count: Tensor

    def __init__(
        self,
        thresholds: Sequence[float],
        joints: Sequence[str],
        exclude: Sequence[int] = (),
        groups: Mapping[str, Sequence[int]] | None = None,
        **kwargs: Any,
    ) -> None:
        # Without its cache, a result asked for before merge_state would be given again after it.
        super().__init__(compute_with_cache=False, **kwargs)
        self.thresholds, self.joints, self.exclude = tuple(thresholds), tuple(joints), tuple(exclude)
        self.groups = {name: tuple(members) for name, members in (groups or {}).items()}
        if not self.thresholds or min(self.thresholds) < 0:
            raise ValueError(f"PCK: got thresholds {self.thresholds}, expected one or more, none below 0")
        for name, members in [("exclude", self.exclude), *self.groups.items()]:
            if any(not 0 <= j < len(self.joints) for j in members):
                raise ValueError(f"PCK: {name} has joints {members}, expected numbers from 0 to {len(self.joints) - 1}")
        self.add_state("hits", torch.zeros(len(self.thresholds), len(self.joints), dtype=torch.long), "sum")
        self.add_state("count", torch.zeros(len(self.joints), dtype=torch.long), "sum")

    def update(self, points: Points, batch: Batch) -> None:
        """Count a batch: normalised predictions against its labels, in pixels of the source images."""
        if points.coords.shape[1] != len(self.joints):
            raise ValueError(f"PCK: got points of {points.coords.shape[1]} joints, expected {len(self.joints)}")
        hits, count = tally(image_distances(points, batch), torch.tensor(self.thresholds, dtype=torch.float64))
        self.hits += hits.to(self.hits.device)
        self.count += count.to(self.count.device)

    def percent(self) -> Percent:
        """joints (T, J) and mean (T,), of what has been counted so far in this process."""
        return percent(self.hits, self.count, self.exclude)

    def compute(self) -> dict[str, Tensor]:
        """Scalars in per cent, named "mean@0.5", "r_ankle@0.5", "shoulder@0.5" and so on."""
        values = self.percent()
        found = {}
        for i, threshold in enumerate(self.thresholds):
            found[f"mean@{threshold:g}"] = values.mean[i]
            for name, members in self.groups.items():
                found[f"{name}@{threshold:g}"] = values.joints[i, list(members)].mean()
            for j, name in enumerate(self.joints):
                found.setdefault(f"{name}@{threshold:g}", values.joints[i, j])
        return found
