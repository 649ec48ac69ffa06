"""COCO's score for pictures of several people who are found as well: AP, and how well each picture is done.

AP is that of `ap.py`, which gives pycocotools' ten numbers and needs nothing else installed.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from coordreg.coords import Points, apply_affine
from coordreg.data.crowds import CrowdStore, people
from coordreg.data.store import Store
from coordreg.metrics import ap
from coordreg.metrics.oks import oks
from coordreg.metrics.scoring_coco import ByOKS


def truth(data: CrowdStore) -> dict[str, Any]:
    """The scenes as a COCO file of persons: joints in index pixels, boxes, areas of the pixels in which people show."""
    joints, corners = people(apply_affine(data.affine.double(), data.coords.double()), data.places)
    known, _ = people(data.weight, data.places)
    seen, _ = people(data.visible.unsqueeze(-1).float(), data.places)
    annotations: list[dict[str, Any]] = []
    for i, p in data.area.nonzero().tolist():
        marks = (known[i, p, :, 0] > 0).long() * (1 + seen[i, p, :, 0].long())
        (x0, y0), (x1, y1) = corners[i, p].tolist()
        annotations.append({
            "id": len(annotations) + 1, "image_id": i, "category_id": 1, "iscrowd": 0, "area": float(data.area[i, p]),
            "bbox": [x0, y0, x1 - x0, y1 - y0], "num_keypoints": int((marks > 0).sum()),
            "keypoints": torch.cat([joints[i, p], marks[:, None].double()], -1).flatten().tolist(),
        })  # fmt: skip
    pictures = [{"id": i, "width": data.images.shape[3], "height": data.images.shape[2]} for i in range(len(data))]
    category = {"id": 1, "name": "person", "keypoints": [], "skeleton": []}
    return {"images": pictures, "categories": [category], "annotations": annotations}


def found(points: Points, data: CrowdStore) -> list[dict[str, Any]]:
    """COCO's list of results: everybody whose person's score, that of the box's corners, is above 0."""
    joints, _ = people(apply_affine(data.affine.double(), points.coords.double()), data.places)
    each, person = people(points.score.unsqueeze(-1).double(), data.places)
    rows = torch.cat([joints, each], -1)
    return [
        {"image_id": i, "category_id": 1, "keypoints": rows[i, p].flatten().tolist(), "score": float(person[i, p, 0])}
        for i, p in (person[:, :, 0, 0] > 0).nonzero().tolist()
    ]


def told(points: Points, data: CrowdStore) -> Float[Tensor, "N P"]:
    """The OKS of each person with the best of as many answers as there are people, the surest ones; NaN for nobody.

    A picture is thus done well if those the network is surest of are those who are there. Without an answer it is 0.
    """
    affine = data.affine.double()
    answers, _ = people(apply_affine(affine, points.coords.double()), data.places)
    labels, _ = people(apply_affine(affine, data.coords.double()), data.places)
    _, person = people(points.score.unsqueeze(-1), data.places)
    known, _ = people(data.weight, data.places)
    here = data.area > 0
    rank = person[:, :, 0, 0].argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    counted = (rank < here.sum(1, keepdim=True)) & (person[:, :, 0, 0] > 0)
    p = data.places
    pairs = oks(
        answers.unsqueeze(1).expand(-1, p, -1, -1, -1).flatten(0, 2),
        labels.unsqueeze(2).expand(-1, -1, p, -1, -1).flatten(0, 2),
        data.area.double().clamp_min(1).unsqueeze(2).expand(-1, -1, p).flatten(),
        weight=known.amin(-1).unsqueeze(2).expand(-1, -1, p, -1).flatten(0, 2),
    ).view(-1, p, p)
    best = torch.where(counted.unsqueeze(1), pairs, 0).amax(-1)
    return torch.where(here, best, torch.nan)


@dataclass(frozen=True, eq=False)
class ScoresPeople:
    """COCO's ten numbers, and the OKS by picture and person (N, P), NaN where nobody is."""

    ap: dict[str, float]
    each: Tensor
    points: Tensor | None = None

    def summary(self) -> dict[str, Any]:
        """In percent: AP and the others (those without people left out), and the mean OKS of the people."""
        known = {name: round(100 * value, 2) for name, value in self.ap.items() if value == value}
        return {"at": {**known, "oks": round(100 * float(self.each.nanmean()), 3)}}

    def images(self) -> dict[str, NDArray[Any]]:
        """By picture: mean OKS of its people (float16), and how many there are (int8)."""
        count = (~self.each.isnan()).sum(1)
        mean = self.each.nan_to_num().sum(1) / count.clamp_min(1)
        return {"oks": mean.half().numpy(), "count": count.to(torch.int8).numpy()}


@dataclass(frozen=True)
class ScoringPeople(ByOKS):
    """COCO's protocol on a `CrowdStore`, which must have COCO's 17 joints. No rescoring: the network's person scores.

    at, limit and exclude are here for the progress bar alone, whose figure compares place by place, whoever is there,
    and says little.
    """

    at: tuple[float, ...] = (0.5,)
    limit: float = 0.5
    exclude: tuple[int, ...] = ()

    def score(self, points: Points, data: Store) -> ScoresPeople:
        """Score predictions, one for each picture of `data` in order. ValueError for another data set or shape."""
        if not isinstance(data, CrowdStore) or points.coords.shape != data.coords.shape:
            raise ValueError(
                f"ScoringPeople: got predictions of shape {tuple(points.coords.shape)} for a {type(data).__name__} of "
                f"{tuple(data.coords.shape)}, expected the shape of a CrowdStore; give the network its `places`"
            )
        labelled, answers = ap.people(truth(data)["annotations"]), ap.found(found(points, data))
        values = ap.average_precision(labelled, answers, range(len(data)))
        return ScoresPeople(values, told(points, data), points.coords)


__all__ = ["ScoresPeople", "ScoringPeople", "found", "told", "truth"]
