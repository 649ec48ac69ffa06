"""How far beyond the image can a method point? PCK of joints outside it, and the error by distance from its border."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from coordreg.coords import Points
from coordreg.data.store import Store
from coordreg.metrics.scoring import Scores, Scoring, score

#: Distances outside the image, as shares of its side, between which joints are put together.
EDGES = (0.0, 0.05, 0.1, 0.2, 0.3)


def beyond(coords: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
    """How far normalised points lie outside the image along the worse axis, as a share of its side; 0 inside."""
    return (0.5 * (coords[..., :2].abs() - 1)).amax(-1).clamp_min(0)


@dataclass(frozen=True)
class Outside(Scoring):
    """`Scoring`, split by where the label lies. least: who counts as outside lies at least so far, a share of the side.

    Two metrics more, at the first threshold of `at`: "outside" and "inside". Each is taken image by image, over images
    that have joints of both kinds; joints that are outside by less than `least` enter neither.
    """

    least: float = 0.1

    def __post_init__(self) -> None:
        if not self.least > 0:
            raise ValueError(f"Outside: got least={self.least}, expected a share of the image's side above 0")

    @property
    def metrics(self) -> tuple[str, ...]:
        """What claims may name beside the thresholds."""
        return ("outside", "inside")

    def score(self, points: Points, data: Store) -> "Sorted":
        """Score predictions, one for each image of `data` in order."""
        found = score(points, data, self)
        return Sorted(found.distances, self, found.joints, found.points, beyond(data.coords).to(found.distances.device))


@dataclass(frozen=True, eq=False)
class Sorted(Scores):
    """Scores, and far: (N, J), how far the label lies outside the image."""

    scoring: Outside
    far: Float[Tensor, "N J"] | None = None

    def _counted(self) -> tuple[Tensor, Tensor]:
        """Distances and `far` of the joints that count."""
        if self.far is None:
            raise ValueError("Sorted: got no distances outside the image; make it with Outside.score")
        counted = [j for j in range(self.distances.shape[1]) if j not in self.scoring.exclude]
        return self.distances[:, counted], self.far[:, counted]

    def _each(self) -> tuple[dict[str, Tensor], Bool[Tensor, " N"]]:
        """By image the shares of hits (N,) outside and inside; are there joints of both kinds?"""
        d, far = self._counted()
        hit, there = d <= self.scoring.at[0], ~d.isnan()
        share, both = dict[str, Tensor](), torch.ones(len(d), dtype=torch.bool, device=d.device)
        for name, chosen in (("outside", far >= self.scoring.least), ("inside", far == 0)):
            n = (there & chosen).sum(1)
            share[name] = (hit & chosen).sum(1).double() / n.clamp_min(1)
            both &= n > 0
        return share, both

    def _by_distance(self) -> list[dict[str, Any]]:
        """Joints inside, then by how far outside: the range, how many, their mean error, and hits in percent."""
        d, far = self._counted()
        rows = []
        for low, high in ((0.0, 0.0), *pairwise((*EDGES, float("inf")))):
            chosen = ((far == 0) if high == 0 else (far > low) & (far <= high)) & ~d.isnan()
            error, n = d[chosen].double(), int(chosen.sum())
            rows.append(
                {
                    "above": low,
                    "to": None if high == float("inf") else high,
                    "joints": n,
                    "error": round(float(error.mean()), 4) if n else None,
                    "hits": round(100 * float((error <= self.scoring.at[0]).double().mean()), 2) if n else None,
                }
            )
        return rows

    def summary(self) -> dict[str, Any]:
        """What `Scores` says, "outside" and "inside" in percent, and "by distance": errors in normalisers, hits.

        ValueError if no image has joints of both kinds.
        """
        share, both = self._each()
        if not bool(both.any()):
            raise ValueError(
                f"Outside: none of {len(both)} images has labelled joints both inside it and {self.scoring.least:g} of "
                "its side outside; cut the figures (truncation) or take more images"
            )
        found = {name: round(100 * float(value[both].mean()), 3) for name, value in share.items()}
        return {**super().summary(), **found, "by distance": self._by_distance()}

    def images(self) -> dict[str, NDArray[Any]]:
        """What `Scores` says by image, the two metrics (float16), and "count": 1 where both kinds of joints are.

        That count serves the two; claims about a threshold would weigh the joints of an image by it as well.
        """
        share, both = self._each()
        extra = {name: value.half().numpy() for name, value in share.items()}
        return {**super().images(), **extra, "count": both.to(torch.int8).numpy()}


__all__ = ["EDGES", "Outside", "Sorted", "beyond"]
