"""The rows of COCO's AP: ours from arrays against pycocotools and faster-coco-eval, on drawn scenes.

Measured is what an evaluation costs: from the list of detections to the ten numbers. The annotations are read once,
before the clock starts, as each code wants them.
"""

import contextlib
import io
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.timing import MissingError, Row, Sizes, interleave
from coordreg.metrics.ap import average_precision, found, people
from coordreg.metrics.coco_ap import NAMES

Dicts = list[dict[str, Any]]
JOINTS = 17


def scenes(s: Sizes) -> tuple[Dicts, Dicts]:
    """Annotations and results: about four detections a picture, and everything that makes COCO's matching hard.

    Pictures hold from nobody to a dozen people of all sizes, some of them crowds, some without a labelled joint. Nine
    of ten are found, well or badly, three of ten twice; four of ten detections are of nobody; scores may be equal.
    """
    g = np.random.default_rng(0)
    share = g.gamma(0.8, size=s.pictures)
    picture = np.sort(g.choice(s.pictures, s.people, p=share / share.sum())) + 1
    side = np.exp(g.uniform(np.log(20), np.log(400), s.people)).round(1)
    corner = g.uniform(0, 300, (s.people, 2)).round(1)
    xy = (corner[:, None] + g.uniform(size=(s.people, JOINTS, 2)) * side[:, None, None]).round(1)
    flags = g.choice(3, (s.people, JOINTS), p=(0.3, 0.1, 0.6)) * (g.random((s.people, 1)) > 0.1)
    crowd = g.random(s.people) < 0.02
    truth = [
        {
            "id": i + 1,
            "image_id": int(picture[i]),
            "category_id": 1,
            "iscrowd": int(crowd[i]),
            "area": float(0.5 * side[i] ** 2),
            "bbox": [*corner[i].tolist(), float(side[i]), float(side[i])],
            "keypoints": np.where(flags[i, :, None] > 0, np.c_[xy[i], flags[i]], 0).flatten().tolist(),
            "num_keypoints": int((flags[i] > 0).sum()),
        }
        for i in range(s.people)
    ]
    seen = np.concatenate([np.flatnonzero(g.random(s.people) < rate) for rate in (0.9, 0.3)])
    error = g.choice((0.01, 0.03, 0.06, 0.2), (len(seen), 1, 1)) * side[seen, None, None]
    points = xy[seen] + error * g.standard_normal((len(seen), JOINTS, 2))
    others = int(0.8 * s.people)
    nobody = g.uniform(0, 300, (others, 1, 2)) + g.uniform(0, 150, (others, JOINTS, 2))
    points = np.concatenate([points, nobody]).round(2)
    score = (g.random(len(points)) * np.repeat([0.9, 0.5], [len(seen), others])).round(4)
    where = np.concatenate([picture[seen], g.integers(1, s.pictures + 1, others)])
    joints = np.concatenate([points, np.ones((len(points), JOINTS, 1))], -1).reshape(len(points), -1)
    results = [
        {"image_id": int(where[i]), "category_id": 1, "keypoints": joints[i].tolist(), "score": float(score[i])}
        for i in g.permutation(len(points))
    ]
    return truth, results


def _stats(labelled: Any, evaluation: Callable[..., Any], truth: Dicts, s: Sizes) -> Callable[[Dicts], list[float]]:
    """The ten numbers as both peers give them, -1 where there is nobody; `labelled` is their empty COCO."""
    labelled.dataset = {
        "images": [{"id": i + 1} for i in range(s.pictures)],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [dict(a) for a in truth],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        labelled.createIndex()

    def stats(results: Dicts) -> list[float]:
        with contextlib.redirect_stdout(io.StringIO()):
            run = evaluation(labelled, labelled.loadRes(results), "keypoints")
            run.evaluate()
            run.accumulate()
            run.summarize()
        return [float(v) if v >= 0 else math.nan for v in run.stats[:10]]

    return stats


def _difference(ours: float, theirs: float) -> float:
    """0 where both have no number, infinite where one has none."""
    if math.isnan(ours) or math.isnan(theirs):
        return 0.0 if math.isnan(ours) and math.isnan(theirs) else math.inf
    return abs(ours - theirs)


def _row(
    s: Sizes, against: str, coco: Any, evaluation: Callable[..., Any], targets: tuple[float, float], rounds: int
) -> Row:
    truth, results = scenes(s)
    evaluate, persons, copies = _stats(coco(), evaluation, truth, s), people(truth), [dict(r) for r in results]

    def ours() -> dict[str, float]:
        return average_precision(persons, found(results))

    numbers = ours()
    apart = max(map(_difference, (numbers[name] for name in NAMES), evaluate(copies)))
    quick, slow = interleave([ours, lambda: evaluate(copies)], rounds, warm=1, most=3, clock=time.thread_time)
    name = f"COCO key-point AP, {s.pictures:,} images, {s.people:,} people"
    note = f"{len(results):,} detections, AP {numbers['AP']:.3f}; ten numbers, difference {apart:.0e} to {against}'s"
    return Row(name, against, slow / quick, *targets, quick, slow, apart < 1e-12, note=note)


def against_pycocotools(s: Sizes) -> Row:
    """The code that all papers quote."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return _row(s, "pycocotools", COCO, COCOeval, (10, 16), max(1, s.repeats // 5))


def against_faster(s: Sizes) -> Row:
    """The same in C++."""
    try:
        from faster_coco_eval import COCO, COCOeval_faster  # type: ignore[import-not-found, import-untyped]
    except ImportError:
        raise MissingError("faster-coco-eval is not installed: pip install faster-coco-eval") from None
    return _row(s, "faster-coco-eval", COCO, COCOeval_faster, (3, 5), s.repeats)


AP: dict[str, Callable[[Sizes], Row]] = {"ap": against_pycocotools, "ap-faster": against_faster}
