"""Does a method do worse near the border of the image? PCK of the joints there beside that of all others."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from coordreg.coords import Points
from coordreg.data.store import Store
from coordreg.metrics.scoring import Scores, Scoring, score


@dataclass(frozen=True)
class Borders(Scoring):
    """`Scoring`, split by where the label lies. within: distance from the nearest border, in widths of the image.

    Three metrics more, at the first threshold of `at`: "edge", "inner", and "gain" = edge - inner, below 0 where the
    border costs accuracy. By image they are those of images that have joints of both kinds; the others weigh nothing.
    """

    within: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.within < 0.5:
            raise ValueError(f"Borders: got within={self.within}, expected a share of the width between 0 and 0.5")

    @property
    def metrics(self) -> tuple[str, ...]:
        """What claims may name beside the thresholds."""
        return ("edge", "inner", "gain")

    def score(self, points: Points, data: Store) -> "Bordered":
        """Score predictions, one for each image of `data` in order."""
        found = score(points, data, self)
        near = (data.coords[..., :2].abs() > 1 - 2 * self.within).any(-1)
        return Bordered(found.distances, self, found.joints, found.points, near.to(found.distances.device))


@dataclass(frozen=True, eq=False)
class Bordered(Scores):
    """Scores, and near: (N, J), does the label lie close to the border?"""

    near: Bool[Tensor, "N J"] | None = None

    def _split(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Hits and numbers of counted joints of each image, near the border and elsewhere."""
        assert self.near is not None
        counted = [j for j in range(self.distances.shape[1]) if j not in self.scoring.exclude]
        d, near = self.distances[:, counted], self.near[:, counted]
        hit, there = d <= self.scoring.at[0], ~d.isnan()
        return {
            name: ((hit & chosen).sum(1).double(), (there & chosen).sum(1).double())
            for name, chosen in (("edge", near), ("inner", ~near))
        }

    def summary(self) -> dict[str, Any]:
        """What `Scores` says, and in percent over all images "edge", "inner" and "gain"."""
        found = {name: 100 * float(hits.sum() / n.sum().clamp_min(1)) for name, (hits, n) in self._split().items()}
        found["gain"] = found["edge"] - found["inner"]
        return {**super().summary(), **{name: round(value, 3) for name, value in found.items()}}

    def images(self) -> dict[str, NDArray[Any]]:
        """What `Scores` says by image, the three metrics (float16), and "count": 1 where both kinds of joints are."""
        parts = self._split()
        share = {name: hits / n.clamp_min(1) for name, (hits, n) in parts.items()}
        share["gain"] = share["edge"] - share["inner"]
        both = torch.stack([n > 0 for _, n in parts.values()]).all(0)
        extra = {name: value.half().numpy() for name, value in share.items()}
        return {**super().images(), **extra, "count": both.to(torch.int8).numpy()}
