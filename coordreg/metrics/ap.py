"""COCO's AP for key points without loops over people: the ten numbers of pycocotools, from arrays, many times faster.

`coco_ap.evaluate` asks pycocotools and is what tables quote. This one shows what is counted, and a search over many
readings of the same predictions can afford it. Both agree in all ten numbers; the tests see to it.

What is counted. Detections of a picture, the best 20 by score, choose in turn: each takes the free person whose OKS
with it is greatest, if it reaches the threshold. Persons who do not count (crowds, nobody labelled, another size) are
taken only if nobody else fits, and whoever takes one does not count either. Then all detections in order of score make
a curve of precision over recall, which is made monotone and read at 101 recalls.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from coordreg.metrics.coco_ap import NAMES
from coordreg.metrics.oks import COCO_SIGMAS

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Whole = NDArray[np.int64]

#: OKS thresholds, recalls, sizes (all, medium, large, in square pixels), detections a picture: COCO's settings.
THRESHOLDS: Array = np.linspace(0.5, 0.95, 10)
RECALLS: Array = np.linspace(0.0, 1.0, 101)
SIZES: Array = np.array([[0, 1e10], [32**2, 96**2], [96**2, 1e10]])
MOST = 20


class People(NamedTuple):
    """The truth. keypoints: (G, J, 3) x, y, v. area, image: (G,). box: (G, 4) x, y, w, h. crowd, ignored: (G,)."""

    keypoints: Array
    area: Array
    box: Array
    image: Whole
    crowd: Flags
    ignored: Flags

    def take(self, rows: Any) -> "People":
        """The persons of these rows."""
        return People(*(value[rows] for value in cast(tuple[Any, ...], self)))


class Found(NamedTuple):
    """Detections. keypoints: (N, J, 2). score, image: (N,)."""

    keypoints: Array
    score: Array
    image: Whole

    def take(self, rows: Any) -> "Found":
        """The detections of these rows."""
        return Found(*(value[rows] for value in cast(tuple[Any, ...], self)))


def people(annotations: Sequence[dict[str, Any]], joints: int = 17) -> People:
    """COCO's annotations as arrays. A crowd does not count, nor a person without a labelled joint."""
    crowd = np.array([bool(a.get("iscrowd", 0)) for a in annotations], bool)
    return People(
        np.array([a["keypoints"] for a in annotations], float).reshape(len(annotations), joints, 3),
        np.array([a["area"] for a in annotations], float),
        np.array([a["bbox"] for a in annotations], float).reshape(-1, 4),
        np.array([a["image_id"] for a in annotations], np.int64),
        crowd,
        crowd | np.array([a["num_keypoints"] == 0 for a in annotations], bool),
    )


def found(results: Sequence[dict[str, Any]], joints: int = 17) -> Found:
    """COCO's list of results as arrays."""
    points = np.array([r["keypoints"] for r in results], float).reshape(len(results), joints, 3)
    score, image = ([r[name] for r in results] for name in ("score", "image_id"))
    return Found(points[..., :2], np.array(score, float), np.array(image, np.int64))


def _ranked(image: Whole, score: Array) -> tuple[Whole, Whole]:
    """Rows by picture and falling score, at most MOST a picture, and the rank of each in its picture."""
    order = np.lexsort((-score, image))
    _, first, count = np.unique(image[order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(first, count)
    return order[rank < MOST], rank[rank < MOST]


def _pairs(image: Whole, owner: Whole) -> tuple[Whole, Whole]:
    """Every (detection, person) of the same picture, by detection; `owner` is sorted, the pictures of the persons."""
    start, stop = np.searchsorted(owner, image, "left"), np.searchsorted(owner, image, "right")
    count = stop - start
    one = np.repeat(np.arange(len(image)), count)
    offset = np.arange(len(one)) - np.repeat(np.cumsum(count) - count, count)
    return one, start[one] + offset


def _similarity(found: Found, truth: People, one: Whole, other: Whole, sigmas: Sequence[float]) -> Array:
    """OKS of each pair. Without a labelled joint the distance is from the person's box, doubled to all sides."""
    variance = (2 * np.asarray(sigmas)) ** 2
    seen: Flags = truth.keypoints[..., 2] > 0
    blank: Flags = np.logical_not(seen.any(-1))
    seen[blank] = True
    apart = found.keypoints[one] - np.ascontiguousarray(truth.keypoints[..., :2])[other]
    boxed = np.flatnonzero(blank[other])
    if len(boxed):
        low, high = truth.box[:, :2] - truth.box[:, 2:], truth.box[:, :2] + 2 * truth.box[:, 2:]
        at, whom = found.keypoints[one[boxed]], other[boxed]
        apart[boxed] = np.maximum(low[whom, None] - at, 0) + np.maximum(at - high[whom, None], 0)
    apart *= apart
    squared = (apart[..., 0] + apart[..., 1]) / variance
    squared /= (truth.area + np.spacing(1))[other, None]
    squared /= -2
    return cast(Array, np.where(seen[other], np.exp(squared), 0).sum(-1) / seen.sum(-1)[other])


def _match(rank: Whole, one: Whole, other: Whole, oks: Array, ignored: Flags, crowd: Flags) -> tuple[Flags, Flags]:
    """Let detections choose. rank: (N,). ignored: (A, G). Gives (A, T, N): matched, and matched to who does not count.

    All detections of one rank choose at once, since no two of them share a picture. Of all pairs few are alike enough
    for the lowest threshold, and only those are looked at.
    """
    alike = oks >= THRESHOLDS[0]
    one, other, oks = one[alike], other[alike], oks[alike]
    sizes, taken = len(ignored), np.zeros((len(ignored), len(THRESHOLDS), len(crowd)), bool)
    matched = np.zeros((sizes, len(THRESHOLDS), len(rank)), bool)
    spared = matched.copy()
    level = np.minimum(THRESHOLDS, 1 - 1e-10)[:, None]
    by_rank = np.argsort(rank[one], kind="stable")
    edges = np.searchsorted(rank[one][by_rank], np.arange(MOST + 1))
    for low, high in pairwise(edges):
        rows = by_rank[low:high]
        if not len(rows):
            continue
        who, whom, value = one[rows], other[rows], oks[rows]
        first = np.flatnonzero(np.r_[True, who[1:] != who[:-1]])
        length = np.diff(np.r_[first, len(who)])
        free = (~taken[:, :, whom] | crowd[whom]) & (value >= level)
        aside = np.broadcast_to(ignored[:, None, whom], free.shape)
        done = np.zeros((sizes, len(THRESHOLDS), len(first)), bool)
        for out_of_count in (False, True):  # first whoever counts
            fits = free & (aside == out_of_count)
            score = np.where(fits, value, -1.0)
            best = np.maximum.reduceat(score, first, -1)
            equal = fits & (score == np.repeat(best, length, -1))
            place = np.maximum.reduceat(np.where(equal, np.arange(len(who)), -1), first, -1)  # of equals the last
            place = np.where(done, -1, place)
            a, t, d = np.nonzero(place >= 0)
            pair = place[a, t, d]
            taken[a, t, whom[pair]] = True
            matched[a, t, who[pair]] = True
            spared[a, t, who[pair]] = out_of_count
            done |= place >= 0
    return matched, spared


def _curve(right: Flags, wrong: Flags, count: int) -> tuple[Array, Array]:
    """Precision at RECALLS (T, 101) and the last recall (T,), of detections in order of score."""
    tp, fp = right.cumsum(-1, dtype=float), wrong.cumsum(-1, dtype=float)
    if not tp.shape[-1]:
        return np.zeros((len(tp), len(RECALLS))), np.zeros(len(tp))
    recall, precision = tp / count, tp / (fp + tp + np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], -1)[:, ::-1]
    read = np.zeros((len(tp), len(RECALLS)))
    for t in range(len(tp)):
        at = np.searchsorted(recall[t], RECALLS, "left")
        inside = at < recall.shape[-1]
        read[t, inside] = precision[t, at[inside]]
    return read, recall[:, -1]


def average_precision(
    truth: People, detections: Found, image_ids: Sequence[int] | None = None, sigmas: Sequence[float] = COCO_SIGMAS
) -> dict[str, float]:
    """The ten numbers of `coco_ap.NAMES`, from 0 to 1; NaN where there is no person of that size.

    image_ids: the pictures that count; None: all that have a person or a detection. Raises ValueError if the number of
    joints differs from that of the sigmas.
    """
    joints = {truth.keypoints.shape[1], detections.keypoints.shape[1], len(sigmas)}
    if len(joints) != 1 and len(truth.keypoints) and len(detections.keypoints):
        raise ValueError(
            f"average_precision: got {truth.keypoints.shape[1]} labelled joints, {detections.keypoints.shape[1]} "
            f"detected ones and {len(sigmas)} sigmas, expected one number"
        )
    if image_ids is not None:
        inside = np.asarray(sorted(set(image_ids)), np.int64)
        truth = truth.take(np.isin(truth.image, inside))
        detections = detections.take(np.isin(detections.image, inside))
    truth = truth.take(np.argsort(truth.image, kind="stable"))
    order, rank = _ranked(detections.image, detections.score)
    detections = detections.take(order)
    one, other = _pairs(detections.image, truth.image)
    oks = _similarity(detections, truth, one, other, sigmas)
    outside = (truth.area < SIZES[:, :1]) | (truth.area > SIZES[:, 1:])
    ignored = truth.ignored | outside
    matched, spared = _match(rank, one, other, oks, ignored, truth.crowd)
    corners = detections.keypoints.transpose(1, 2, 0).copy()  # (J, 2, N): over long rows an extreme is quickly found
    spread = np.ptp(corners, 0).prod(0) if len(rank) else np.zeros(0)
    strange = (spread < SIZES[:, :1]) | (spread > SIZES[:, 1:])
    counts = ~np.where(matched, spared, strange[:, None])
    by_score = np.argsort(-detections.score, kind="stable")
    right, wrong = (matched & counts)[..., by_score], (~matched & counts)[..., by_score]
    values: dict[str, float] = {}
    for a, size in enumerate(("", "_M", "_L")):
        people_of_size = int((~ignored[a]).sum())
        if people_of_size:
            precision, recall = _curve(right[a], wrong[a], people_of_size)
        else:
            precision, recall = np.full((len(THRESHOLDS), len(RECALLS)), np.nan), np.full(len(THRESHOLDS), np.nan)
        values |= {f"AP{size}": float(precision.mean()), f"AR{size}": float(recall.mean())}
        if not size:
            values |= {f"AP{c}": float(precision[t].mean()) for c, t in ((50, 0), (75, 5))}
            values |= {f"AR{c}": float(recall[t]) for c, t in ((50, 0), (75, 5))}
    return {name: values[name] for name in NAMES}


__all__ = ["Found", "People", "average_precision", "found", "people"]
