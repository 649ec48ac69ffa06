"""Which of J things is in the image? The share of right answers, beside how far from it the method looked."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from coordreg.coords import Points
from coordreg.data.store import Store
from coordreg.metrics.scoring import Scores, Scoring, score


def hits(scores: Float[Tensor, "B J"], weight: Float[Tensor, "B J"]) -> Bool[Tensor, " B"]:
    """Does the highest score belong to the thing that is there?

    weight: above 0 for that one thing. Raises ValueError for an image with none or several, and for a NaN score.
    """
    count = (weight > 0).sum(1)
    if bool((count != 1).any()):
        bad = int((count != 1).nonzero()[0])
        raise ValueError(
            f"hits: image {bad} has {int(count[bad])} things with a weight above 0, expected exactly 1: the one there"
        )
    if bool(scores.isnan().any()):
        raise ValueError(f"hits: the scores of image {int(scores.isnan().any(1).nonzero()[0])} hold NaN")
    return scores.argmax(1) == weight.argmax(1)


@dataclass(frozen=True)
class Recognition(Scoring):
    """`Scoring` of the places, and "accuracy": the percentage of images whose highest score is the right one."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """What claims may name beside the thresholds."""
        return ("accuracy",)

    def score(self, points: Points, data: Store) -> "Recognised":
        """Score predictions, one for each image of `data` in order."""
        found = score(points, data, self)
        right = hits(points.score, data.weight.amin(-1).to(points.score.device))
        return Recognised(found.distances, self, found.joints, found.points, right)


@dataclass(frozen=True, eq=False)
class Recognised(Scores):
    """Scores of places, and right: (N,), was the image recognised?"""

    right: Tensor | None = None

    def summary(self) -> dict[str, Any]:
        """What `Scores` says, and "accuracy" in percent."""
        return {**super().summary(), "accuracy": round(100 * float(self._right().double().mean()), 3)}

    def images(self) -> dict[str, NDArray[Any]]:
        """What `Scores` says by image, and "accuracy", 0 or 1 (float16)."""
        return {**super().images(), "accuracy": self._right().half().numpy()}

    def _right(self) -> Tensor:
        if self.right is None:
            raise ValueError("Recognised: got no answers; make it with Recognition.score")
        return self.right
