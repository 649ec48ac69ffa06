"""Errors along one axis in pixels of the network's image, as Tompson et al. 2015 report them: spread and histogram."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from coordreg.coords import Points
from coordreg.data.store import Store
from coordreg.metrics.scoring import Scores, Scoring, score

#: Errors beyond this share of the image's height are another person's joint, not an error of place: 20 of 240 px.
OUTLIER = 20 / 240
#: Half a histogram's width as a share of the height, 10 of 240 px as in figure 11, and its number of bins.
REACH, BINS = 10 / 240, 41


def spread(errors: Float[Tensor, "N J 2"], known: Bool[Tensor, "N J"], outlier: float) -> Float[Tensor, "J 2"]:
    """Standard deviation by joint and axis of what errs by no more than `outlier`; NaN for a joint without such.

    Along each axis by itself, as the paper has it for x: an error in y does not make one in x an outlier.
    """
    near = known.unsqueeze(-1) & (errors.abs() <= outlier)
    count = near.sum(0)
    held = torch.where(near, errors.double(), 0)
    mean = held.sum(0) / count
    return (torch.where(near, (errors - mean).square(), 0).sum(0) / count).sqrt().to(errors.dtype)


@dataclass(frozen=True, eq=False)
class Offsets:
    """PCK as ever (`scores`), and `errors` (N, J, 2) in pixels by what they are measured against; NaN if unlabelled.

    groups: the joints of each named group, whose AUC is a metric of its own, "auc NAME". window: see `ScoringOffsets`.
    """

    scores: Scores
    errors: dict[str, Tensor]
    height: int
    groups: dict[str, tuple[int, ...]]
    window: int | None = None

    @property
    def points(self) -> Tensor | None:
        """(N, J, 2) normalised."""
        return self.scores.points

    def summary(self) -> dict[str, Any]:
        """PCK's summary; "pixels": by what and joint, sigma along x and y, the share kept, the histogram along x."""
        found = {}
        for name, errors in self.errors.items():
            known = ~errors.isnan().any(-1)
            limit, reach = OUTLIER * self.height, REACH * self.height
            sigma = spread(errors, known, limit)
            rows = {}
            for j, joint in enumerate(self.scores.joints):
                x = errors[known[:, j], j, 0]
                if not len(x):
                    continue
                bins = torch.histc(x.double(), BINS, -reach, reach) / len(x)
                rows[joint] = {
                    "x": _rounded(sigma[j, 0]),
                    "y": _rounded(sigma[j, 1]),
                    "kept": round(float((x.abs() <= limit).double().mean()), 4),
                    "histogram": [round(float(v), 4) for v in bins],
                }
            found[name] = rows
        summary = self.scores.summary()
        summary["at"] |= {f"auc {name}": part.summary()["auc"] for name, part in self._parts().items()}
        if self.window is None:
            return {**summary, "pixels": found}
        missed = self.errors["labels"][~self.errors["labels"].isnan().any(-1)].abs().amax(-1) > self.window / 2
        return {**summary, "pixels": found, "lost": round(float(missed.double().mean()), 5)}

    def images(self) -> dict[str, NDArray[Any]]:
        """Those of PCK, and the AUC of each group."""
        parts = {f"auc {name}": part.images()["auc"] for name, part in self._parts().items()}
        return {**self.scores.images(), **parts}

    def _parts(self) -> dict[str, Scores]:
        """The scores of each group by itself."""
        own, found = self.scores, {}
        for name, group in self.groups.items():
            others = tuple(j for j in range(len(own.joints)) if j not in group)
            found[name] = Scores(own.distances, replace(own.scoring, exclude=others), own.joints)
        return found


def _rounded(value: Tensor) -> float | None:
    """A number as records hold it; None where there is none."""
    return None if value.isnan() else round(float(value), 4)


@dataclass(frozen=True)
class ScoringOffsets(Scoring):
    """`Scoring`, and the errors along each axis against the labels and, where a store has it, the truth.

    groups: (name, joints) whose AUC is a metric of its own. Weights of images in claims are those of all joints, so
    that groups serve data sets in which everybody has all of them. window: side in pixels of a window; given, "lost" is
    the share of joints that do not lie in the window about the answer, which a next level of a cascade cannot find.
    """

    groups: tuple[tuple[str, tuple[int, ...]], ...] = ()
    window: int | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        """What claims may name beside the thresholds."""
        return tuple(f"auc {name}" for name, _ in self.groups)

    def score(self, points: Points, data: Store) -> Offsets:
        """Score predictions, one for each image of `data` in order."""
        height, width = data.images.shape[-2:]
        half = torch.tensor([width, height], dtype=points.coords.dtype) / 2
        known = (data.weight[..., :2] > 0).all(-1, keepdim=True)
        against = {"labels": data.coords[..., :2]}
        if hasattr(data, "exact"):
            against["truth"] = data.exact
        errors = {
            name: torch.where(known, (points.coords[..., :2] - at) * half, torch.nan) for name, at in against.items()
        }
        plain = Scoring(self.at, self.limit, self.exclude)
        return Offsets(score(points, data, plain), errors, height, dict(self.groups), self.window)


__all__ = ["BINS", "OUTLIER", "REACH", "Offsets", "ScoringOffsets", "spread"]
