"""One scoring for records: PCK at named thresholds, the curve, its area, joint by joint and image by image."""

from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from coordreg.coords import Points
from coordreg.data.store import Store
from coordreg.metrics.pck import auc, curve, image_distances, steps

STEPS = 50


@dataclass(frozen=True)
class Scoring:
    """What a run is scored by: PCK with the data set's normaliser (head size: PCKh; torso: PCK).

    at: thresholds with a name in tables. limit: end of the curve, whose area is the AUC (51 equal steps from 0).
    exclude: joints that do not enter means (pelvis and thorax in MPII's protocol).
    """

    at: tuple[float, ...] = (0.5, 0.1)
    limit: float = 0.5
    exclude: tuple[int, ...] = ()

    @property
    def thresholds(self) -> Tensor:
        """The 51 thresholds of the curve."""
        return steps(self.limit, STEPS)


@dataclass(frozen=True, eq=False)
class Scores:
    """Distances (N, J) in units of the normaliser, NaN where unlabelled, and what follows from them."""

    distances: Tensor
    scoring: Scoring
    joints: tuple[str, ...]
    points: Tensor | None = None

    def summary(self) -> dict[str, Any]:
        """Percentages: `at` (mean over labelled joints), `auc`, `curve`, and `joints` by name at each threshold."""
        d, exclude = self.distances, self.scoring.exclude
        named = curve(d, torch.tensor(self.scoring.at, dtype=torch.float64), exclude)
        counted = d[:, [j for j in range(d.shape[1]) if j not in exclude]]
        return {
            "at": {f"{t:g}": round(float(m), 3) for t, m in zip(self.scoring.at, named.mean, strict=True)},
            "auc": round(float(auc(d, self.scoring.limit, STEPS, exclude).mean), 3),
            "mean_distance": round(float(counted.nanmean()), 5),
            "curve": [round(float(c), 2) for c in curve(d, self.scoring.thresholds, exclude).mean],
            "joints": {
                f"{t:g}": {j: round(float(v), 2) for j, v in zip(self.joints, row, strict=True) if not v.isnan()}
                for t, row in zip(self.scoring.at, named.joints, strict=True)
            },
        }

    def images(self) -> dict[str, NDArray[Any]]:
        """By image: share of hits at each threshold and of the area (float16), and labelled joints (int8)."""
        counted = [j for j in range(self.distances.shape[1]) if j not in self.scoring.exclude]
        d = self.distances[:, counted]
        count = (~d.isnan()).sum(1)

        def share(threshold: float) -> Tensor:
            return (d <= torch.tensor(threshold, dtype=d.dtype)).sum(1).double() / count.clamp_min(1)

        curves = torch.stack([share(float(t)) for t in self.scoring.thresholds])
        found = {f"{t:g}": share(t).half().numpy() for t in self.scoring.at}
        area = (torch.trapezoid(curves, dim=0) / STEPS).half().numpy()
        return {**found, "auc": area, "count": count.to(torch.int8).numpy()}


def score(points: Points, data: Store, scoring: Scoring) -> Scores:
    """Score predictions, one for each image of `data` in order, in the pixels of the source images."""
    if len(points.coords) != len(data):
        raise ValueError(
            f"score: got {len(points.coords)} predictions for {len(data)} images; predict every image once"
        )
    distances = [
        image_distances(Points(points.coords[i], points.score[i]), data.batch(i))
        for i in torch.arange(len(data)).split(512)
    ]
    return Scores(torch.cat(distances), scoring, data.joints, points.coords)
