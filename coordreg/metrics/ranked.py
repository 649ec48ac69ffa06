"""Does the score know which answers are wrong? OKS-AP of one person an image, and scores beside what they promise.

AP is made of a ranking: all poses in order of score, those that miss their person counting as false positives. With
one pose an image the points decide AR and the score decides what is left of AP.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from coordreg.coords import Points, apply_affine
from coordreg.data.store import Store
from coordreg.metrics.ap import Found, People, average_precision
from coordreg.metrics.oks import COCO_SIGMAS, oks
from coordreg.metrics.scoring import Scores, Scoring, score

#: Numbers of `average_precision` that are kept; the others go by the size of people in photographs.
KEPT = ("AP", "AP50", "AP75", "AR")
#: A drawn figure covers about this share of the rectangle around its joints; OKS wants its area.
COVERED = 0.55
BINS = 10


def reliability(scores: Float[Tensor, "N J"], hit: Bool[Tensor, "N J"], bins: int = BINS) -> list[list[float]]:
    """Mean score, share of hits and number of joints in bins of equal width from 0 to 1; empty bins are left out.

    A score of probability p that is honest is hit in a share p of the cases. Scores above 1 join the last bin.
    """
    which = (scores * bins).long().clamp(0, bins - 1)
    rows = []
    for i in range(bins):
        chosen = which == i
        if bool(chosen.any()):
            mean, share = (float(v[chosen].double().mean()) for v in (scores, hit))
            rows.append([round(mean, 4), round(share, 4), float(chosen.sum())])
    return rows


@dataclass(frozen=True)
class Ranked(Scoring):
    """`Scoring`, and OKS-AP with one pose an image, whose score is the mean over its joints (equation 7.10, box 1).

    reaches: for each, as a share of the side, the score is compared with how often a joint is so near on both axes.
    The area of a person is COVERED of the rectangle around its joints. sigmas: of OKS, one a joint.
    """

    reaches: tuple[float, ...] = (0.2,)
    sigmas: tuple[float, ...] = COCO_SIGMAS

    @property
    def metrics(self) -> tuple[str, ...]:
        """What claims may name beside the thresholds. AP is no mean over images: `Observation`s read the summary."""
        return ("oks",)

    def score(self, points: Points, data: Store) -> "Ranking":
        """Score predictions, one for each image of `data` in order. ValueError for joints unlike the sigmas."""
        found = score(points, data, self)
        affine = data.affine.double()
        pixels, truth = (apply_affine(affine, c.double()) for c in (points.coords, data.coords))
        if bool((data.weight <= 0).any()):
            raise ValueError("Ranked: got unlabelled joints, expected figures, of which every joint is known")
        box = torch.cat([truth.amin(1), truth.amax(1)], -1)
        area = COVERED * (box[:, 2:] - box[:, :2]).prod(-1)
        apart = 0.5 * (points.coords - data.coords).abs().amax(-1)
        return Ranking(
            found.distances, self, found.joints, found.points,
            ap=ranked(pixels, truth, area, points.score.mean(-1), self.sigmas),
            oks=oks(pixels, truth, area, self.sigmas),
            reliable={f"{r:g}": reliability(points.score, apart <= r) for r in self.reaches},
        )  # fmt: skip


def ranked(
    points: Float[Tensor, "N J 2"],
    truth: Float[Tensor, "N J 2"],
    area: Float[Tensor, " N"],
    scores: Float[Tensor, " N"],
    sigmas: Sequence[float] = COCO_SIGMAS,
) -> dict[str, float]:
    """AP, AP50, AP75 and AR from 0 to 1 of one pose and one person an image; of equal scores the earlier comes first.

    points, truth: index pixels. area: (N,) square pixels.
    """
    n, image = len(points), np.arange(len(points))
    labelled = np.concatenate([truth.numpy(), np.full((*truth.shape[:2], 1), 2.0)], -1)
    corner = truth.amin(1)
    box = torch.cat([corner, truth.amax(1) - corner], -1)
    nobody = np.zeros(n, bool)
    people = People(labelled, area.double().numpy(), box.double().numpy(), image, nobody, nobody)
    found = average_precision(people, Found(points.double().numpy(), scores.double().numpy(), image), sigmas=sigmas)
    return {name: found[name] for name in KEPT}


@dataclass(frozen=True, eq=False, kw_only=True)
class Ranking(Scores):
    """Scores; the numbers of `ranked`; OKS by image (N,); and `reliability` by reach."""

    ap: dict[str, float]
    oks: Tensor
    reliable: dict[str, list[list[float]]]

    def summary(self) -> dict[str, Any]:
        """What `Scores` says, AP, AP50, AP75, AR and the mean OKS in percent, and "reliability" by reach."""
        ap = {name: round(100 * value, 3) for name, value in self.ap.items()}
        return {**super().summary(), **ap, "oks": round(100 * float(self.oks.mean()), 3), "reliability": self.reliable}

    def images(self) -> dict[str, NDArray[Any]]:
        """What `Scores` says by image, and "oks" (float16)."""
        return {**super().images(), "oks": self.oks.half().numpy()}


__all__ = ["BINS", "COVERED", "KEPT", "Ranked", "Ranking", "ranked", "reliability"]
