"""COCO's AP and AR for key points: from crops' predictions to the ten numbers of the papers' tables.

Three steps lie between a network's points and AP, and all published top-down numbers contain them: a person's score is
the box's score times the mean score of the joints above 0.2; of two people in one picture who are nearly the same
(OKS above 0.9) the lower-scored one goes; and pycocotools does the rest.

Sources: Lin et al., ECCV 2014; Papandreou et al., CVPR 2017 (OKS-NMS).
"""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coordreg.metrics.oks import COCO_SIGMAS, oks

#: Joint scores above this enter a person's score; people with a greater OKS than this are one person.
JOINT, SAME = 0.2, 0.9
#: The ten numbers, in pycocotools' order.
NAMES = ("AP", "AP50", "AP75", "AP_M", "AP_L", "AR", "AR50", "AR75", "AR_M", "AR_L")


def person_scores(
    scores: Float[Tensor, "N J"], box_scores: Float[Tensor, " N"], least: float = JOINT
) -> Float[Tensor, " N"]:
    """Box score times the mean of the joint scores above `least`; 0 where no joint has more."""
    high = scores > least
    mean = torch.where(high, scores, 0).sum(-1) / high.sum(-1).clamp_min(1)
    return box_scores.to(mean) * mean


def suppress(
    points: Float[Tensor, "N J 2"],
    scores: Float[Tensor, " N"],
    area: Float[Tensor, " N"],
    threshold: float = SAME,
    sigmas: Sequence[float] = COCO_SIGMAS,
) -> list[int]:
    """Greedy OKS-NMS among the people of one picture: the rows that stay, best score first.

    Whoever is more than `threshold` like a better one who stays is dropped. All joints count; a pair's area is the mean
    of the two. Of equal scores the earlier row wins.
    """
    left = torch.argsort(scores, descending=True, stable=True)
    kept: list[int] = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(int(best))
        like = oks(points[left], points[best].expand(len(left), -1, -1), (area[left] + area[best]) / 2, sigmas)
        left = left[like <= threshold]
    return kept


def soften(
    points: Float[Tensor, "N J 2"],
    scores: Float[Tensor, " N"],
    area: Float[Tensor, " N"],
    threshold: float = SAME,
    most: int = 20,
    sigmas: Sequence[float] = COCO_SIGMAS,
) -> tuple[list[int], Float[Tensor, " n"]]:
    """Soft OKS-NMS: nobody is dropped for being like another, but scores less for it. Rows and their new scores.

    In turn the best of those left is kept, and every other one's score is multiplied by exp(-OKS^2 / threshold); at
    most `most` people stay. Of equal scores the earlier row wins.
    """
    left, value = torch.arange(len(scores)), scores.clone()
    kept: list[int] = []
    while len(left) and len(kept) < most:
        at = int(value[left].argmax())
        best, left = left[at], torch.cat([left[:at], left[at + 1 :]])
        kept.append(int(best))
        like = oks(points[left], points[best].expand(len(left), -1, -1), (area[left] + area[best]) / 2, sigmas)
        value[left] = value[left] * torch.exp(-like.square() / threshold).to(value)
    return kept, value[kept]


def results(
    points: Float[Tensor, "N J 2"],
    scores: Float[Tensor, "N J"],
    box_scores: Float[Tensor, " N"],
    image_ids: Int[Tensor, " N"],
    area: Float[Tensor, " N"],
    threshold: float | None = SAME,
    sigmas: Sequence[float] = COCO_SIGMAS,
    soft: bool = False,
) -> list[dict[str, Any]]:
    """COCO's list of results, one entry a person who survives OKS-NMS, the hard one (`suppress`) or soft (`soften`).

    points: index pixels of the pictures. scores: of the joints. area: (N,) square pixels; published codes take the
    crop's, 1.25 times the box either way (`COCOStore.crop_area`). threshold: None switches OKS-NMS off. Raises
    ValueError for a point or score that is not finite.
    """
    for name, value in (("points", points), ("scores", scores), ("box_scores", box_scores)):
        if not bool(value.isfinite().all()):
            row = int((~value.isfinite()).reshape(len(value), -1).any(-1).nonzero()[0])
            raise ValueError(f"results: {name} of person {row} are not finite; did the network diverge?")
    points, scores = points.detach().cpu().double(), scores.detach().cpu().double()
    image_ids, area = image_ids.cpu(), area.cpu().double()
    total = person_scores(scores, box_scores.cpu().double())
    found: list[dict[str, Any]] = []
    order = torch.argsort(image_ids, stable=True)
    _, counts = image_ids[order].unique_consecutive(return_counts=True)
    for rows in order.split(counts.tolist()):
        kept, value = list(range(len(rows))), total[rows]
        if threshold is not None and soft:
            kept, value = soften(points[rows], total[rows], area[rows], threshold, sigmas=sigmas)
        elif threshold is not None:
            kept = suppress(points[rows], total[rows], area[rows], threshold, sigmas)
            value = total[rows[kept]]
        for i, score in zip(rows[kept].tolist(), value.tolist(), strict=True):
            joints = torch.cat([points[i], scores[i].unsqueeze(-1)], -1).flatten().tolist()
            found.append({"image_id": int(image_ids[i]), "category_id": 1, "keypoints": joints, "score": score})
    return found


def evaluate(
    truth: Path | str, found: Sequence[dict[str, Any]], image_ids: Sequence[int] | None = None
) -> dict[str, float]:
    """The ten numbers, from 0 to 1, by pycocotools; NaN where the pictures hold no such person (no medium one, say).

    truth: a file person_keypoints_*.json. found: what `results` gives. image_ids: the pictures that count; None: all of
    the file's, so that people in pictures that were never looked at are missed. Raises ImportError without pycocotools,
    FileNotFoundError without the file, ValueError for results of pictures that the file does not have.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise ImportError("AP needs pycocotools: pip install 'coordreg[book]', or pip install pycocotools") from error
    if not Path(truth).is_file():
        raise FileNotFoundError(f"evaluate: there is no file {truth}; give COCO's person_keypoints_val2017.json")
    with contextlib.redirect_stdout(io.StringIO()):
        labelled = COCO(str(truth))
        strange = {r["image_id"] for r in found} - set(labelled.imgs)
        if strange:
            raise ValueError(
                f"evaluate: {len(strange)} pictures of the results, such as {min(strange)}, are not in {truth}; "
                "give the annotations of the split that was predicted"
            )
        detected = labelled.loadRes([dict(r) for r in found]) if found else _nobody(labelled)
        run = COCOeval(labelled, detected, "keypoints")
        if image_ids is not None:
            run.params.imgIds = sorted({int(i) for i in image_ids})
        run.evaluate()
        run.accumulate()
        run.summarize()
    values = (float(v) for v in run.stats)
    return {name: value if value >= 0 else float("nan") for name, value in zip(NAMES, values, strict=True)}


def _nobody(labelled: Any) -> Any:
    """Results without anybody, which pycocotools' loadRes cannot read."""
    empty = type(labelled)()
    empty.dataset = {k: labelled.dataset[k] for k in ("images", "categories")} | {"annotations": []}
    empty.createIndex()
    return empty
