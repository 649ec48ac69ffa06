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
    border costs accuracy. Each is taken image by image, and its mean is over the images that have joints of both kinds:
    so a person is compared with the same person, and a summary says what a claim is judged by.
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

    scoring: Borders
    near: Bool[Tensor, "N J"] | None = None

    def _each(self) -> tuple[dict[str, Tensor], Bool[Tensor, " N"]]:
        """By image the shares of hits (N,) near the border and elsewhere and their difference; are there both kinds?"""
        assert self.near is not None
        counted = [j for j in range(self.distances.shape[1]) if j not in self.scoring.exclude]
        d, near = self.distances[:, counted], self.near[:, counted]
        hit, there = d <= self.scoring.at[0], ~d.isnan()
        share, both = dict[str, Tensor](), torch.ones(len(d), dtype=torch.bool, device=d.device)
        for name, chosen in (("edge", near), ("inner", ~near)):
            n = (there & chosen).sum(1)
            share[name] = (hit & chosen).sum(1).double() / n.clamp_min(1)
            both &= n > 0
        return {**share, "gain": share["edge"] - share["inner"]}, both

    def summary(self) -> dict[str, Any]:
        """What `Scores` says, and in percent "edge", "inner" and "gain": means over images with joints of both kinds.

        ValueError if no image has both.
        """
        share, both = self._each()
        if not bool(both.any()):
            raise ValueError(
                f"Borders: none of {len(both)} images has labelled joints both within {self.scoring.within:g} of a "
                "border and elsewhere; change `within` or take more images"
            )
        found = {name: round(100 * float(value[both].mean()), 3) for name, value in share.items()}
        return {**super().summary(), **found}

    def images(self) -> dict[str, NDArray[Any]]:
        """What `Scores` says by image, the three metrics (float16), and "count": 1 where both kinds of joints are.

        That count serves the three; claims about a threshold would weigh the joints of an image by it as well.
        """
        share, both = self._each()
        extra = {name: value.half().numpy() for name, value in share.items()}
        return {**super().images(), **extra, "count": both.to(torch.int8).numpy()}
