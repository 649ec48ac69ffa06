"""COCO's score for records: AP and its nine companions, and the OKS of each person, which paired intervals need."""

from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from coordreg.coords import Points, apply_affine
from coordreg.data.coco import COCO, COCOStore
from coordreg.data.store import Store
from coordreg.metrics.coco_ap import JOINT, evaluate, person_scores, results
from coordreg.metrics.oks import oks
from coordreg.metrics.pck import steps

STEPS = 50


@dataclass(frozen=True, eq=False)
class ScoresCOCO:
    """The numbers of `coco_ap.evaluate`, and OKS by person (N,), NaN for people without labels."""

    ap: dict[str, float]
    each: Tensor
    points: Tensor | None = None

    def summary(self) -> dict[str, Any]:
        """In percent: AP and the others (those without people left out), and the mean OKS of labelled people."""
        known = {name: round(100 * value, 2) for name, value in self.ap.items() if value == value}
        mean = self.each.nanmean()
        return {"at": {**known, **({} if mean.isnan() else {"oks": round(100 * float(mean), 3)})}}

    def images(self) -> dict[str, NDArray[Any]]:
        """By person: OKS (float16), and 1 where there are labels (int8)."""
        labelled = ~self.each.isnan()
        return {"oks": self.each.nan_to_num().half().numpy(), "count": labelled.to(torch.int8).numpy()}


class ByOKS:
    """What COCO's protocols say to claims and to the progress bar; limit: of the bar's curve."""

    limit: float

    @property
    def metrics(self) -> tuple[str, ...]:
        """What claims may name: the OKS. AP is no mean over images, and has no paired interval."""
        return ("oks",)

    @property
    def thresholds(self) -> Tensor:
        """The 51 thresholds of a curve, for the progress bar."""
        return steps(self.limit, STEPS)


@dataclass(frozen=True)
class ScoringCOCO(ByOKS):
    """COCO's protocol on a split whose labels are public: rescoring, OKS-NMS, AP.

    root, split: of the COCO that is scored, whose annotations are read again. least: joint scores above it enter a
    person's score; 0.2 is the published codes', for maps of peak 1; where the score is a cell's probability, which a
    larger map makes smaller, 0. at, limit and exclude are here for the progress bar alone.
    """

    root: str = "coco"
    split: str = "val2017"
    least: float = JOINT
    at: tuple[float, ...] = (0.1,)
    limit: float = 0.5
    exclude: tuple[int, ...] = ()

    def score(self, points: Points, data: Store) -> ScoresCOCO:
        """Score predictions, one for each box of `data` in order. ValueError for other numbers or another data set."""
        if not isinstance(data, COCOStore) or len(points.coords) != len(data):
            raise ValueError(
                f"ScoringCOCO: got {len(points.coords)} predictions for {len(data)} images of a "
                f"{type(data).__name__}, expected one for each box of a COCOStore"
            )
        affine = data.affine.double()
        pixels, truth = (apply_affine(affine, c.double()) for c in (points.coords, data.coords))
        own = person_scores(points.score.double(), data.box_scores, self.least)
        # the person's score is made here, by `least`; with joint scores of 1 it is taken as it is
        found = results(pixels, torch.ones_like(points.score), own, data.image_ids, data.crop_area)
        ap = evaluate(COCO(root=self.root, split=self.split).annotations(), found)
        each = oks(pixels, truth, data.area.double(), weight=data.weight[..., 0])
        return ScoresCOCO(ap, each, points.coords)


__all__ = ["ScoresCOCO", "ScoringCOCO"]
