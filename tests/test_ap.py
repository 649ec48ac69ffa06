"""AP from arrays against pycocotools, in all ten numbers, with everything that makes COCO's matching hard."""

import contextlib
import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coordreg.metrics import ap as fast
from coordreg.metrics.coco_ap import NAMES
from coordreg.metrics.oks import COCO_SIGMAS, oks

pytest.importorskip("pycocotools", reason="pycocotools is the peer")

Dicts = list[dict[str, Any]]


def crowd_scene(seed: int, pictures: int, most: int = 5, detected: int = 8, ties: bool = False) -> tuple[Dicts, Dicts]:
    """Annotations and results: crowds, people without labels, all sizes, false people, doubles, empty pictures."""
    g = np.random.default_rng(seed)
    truth: Dicts = []
    results: Dicts = []
    for picture in range(1, pictures + 1):
        here: Dicts = []
        for _ in range(g.integers(0, most + 1)):
            side = float(g.choice([25, 60, 90, 120, 200]))
            corner = g.uniform(0, 400, 2)
            flags = g.integers(0, 3, 17) * (g.random() > 0.15)
            xy = corner + g.uniform(0, side, (17, 2))
            joints = np.concatenate([xy.round(2), flags[:, None]], 1) * (flags > 0)[:, None]
            here.append({"id": len(truth) + len(here) + 1, "image_id": picture, "category_id": 1,
                         "iscrowd": int(g.random() < 0.12), "area": round(0.6 * side**2, 2),
                         "bbox": [*corner.tolist(), side, side], "keypoints": joints.flatten().tolist(),
                         "num_keypoints": int((flags > 0).sum())})  # fmt: skip
        for _ in range(g.integers(0, detected + 1)):
            joints = np.concatenate([g.uniform(0, 600, (17, 2)), np.ones((17, 1))], 1)
            if here and g.random() < 0.85:
                chosen = here[g.integers(len(here))]
                labelled = np.array(chosen["keypoints"]).reshape(17, 3)
                joints[:, :2] = np.where(labelled[:, 2:] > 0, labelled[:, :2], np.array(chosen["bbox"][:2]))
                joints[:, :2] += g.normal(0, g.choice([0, 2, 6, 15]), (17, 2))
            score = round(float(g.random()), 1 if ties else 6)
            results.append({"image_id": picture, "category_id": 1, "keypoints": joints.flatten().tolist(),
                            "score": score})  # fmt: skip
        truth += here
    g.shuffle(results)  # type: ignore[arg-type]
    return truth, results


def slow(truth: Dicts, results: Dicts, pictures: int, only: list[int] | None = None) -> dict[str, float]:
    """pycocotools' ten numbers."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        labelled = COCO()
        labelled.dataset = {"images": [{"id": i + 1} for i in range(pictures)],
                            "categories": [{"id": 1, "name": "person"}], "annotations": truth}  # fmt: skip
        labelled.createIndex()
        run = COCOeval(labelled, labelled.loadRes([dict(r) for r in results]), "keypoints")
        if only is not None:
            run.params.imgIds = only
        run.evaluate()
        run.accumulate()
        run.summarize()
    return dict(zip(NAMES, (float(v) if v >= 0 else math.nan for v in run.stats), strict=True))


def equal(a: dict[str, float], b: dict[str, float]) -> bool:
    assert list(a) == list(b) == list(NAMES)
    return all(a[k] == pytest.approx(b[k], abs=1e-12, nan_ok=True) for k in NAMES)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), ties=st.booleans())
def test_all_ten_numbers_are_pycocotools(seed: int, ties: bool) -> None:
    truth, results = crowd_scene(seed, 12, ties=ties)
    if not truth or not results:
        return
    ours = fast.average_precision(fast.people(truth), fast.found(results))
    assert equal(ours, slow(truth, results, 12)), seed


def test_more_than_twenty_detections_a_picture() -> None:
    truth, results = crowd_scene(5, 6, most=12, detected=60)
    assert max(sum(r["image_id"] == i for r in results) for i in range(7)) > 20
    ours = fast.average_precision(fast.people(truth), fast.found(results))
    assert equal(ours, slow(truth, results, 6))
    assert 0 < ours["AP"] < 1


def test_some_of_the_pictures() -> None:
    truth, results = crowd_scene(6, 20)
    some = [3, 4, 9, 17, 20]
    ours = fast.average_precision(fast.people(truth), fast.found(results), some)
    assert equal(ours, slow(truth, results, 20, some))
    assert not equal(ours, fast.average_precision(fast.people(truth), fast.found(results)))


def test_a_crowd_is_taken_by_many_and_counts_for_nobody() -> None:
    truth, results = crowd_scene(8, 30)
    crowds = [a for a in truth if a["iscrowd"] and a["num_keypoints"]]
    assert crowds
    results += [
        {"image_id": a["image_id"], "category_id": 1, "keypoints": a["keypoints"], "score": 0.999 - 0.001 * i}
        for a in crowds
        for i in range(3)
    ]
    with_crowds = fast.average_precision(fast.people(truth), fast.found(results))
    assert equal(with_crowds, slow(truth, results, 30))
    without = [a for a in truth if a not in crowds]
    assert with_crowds["AP"] > fast.average_precision(fast.people(without), fast.found(results))["AP"]


def test_only_labelled_joints_are_looked_at() -> None:
    """A detection's joint that nobody labelled may be anything, even no number; the rest is `oks`."""
    truth, results = crowd_scene(14, 20)
    labelled = [a for a in truth if 0 < a["num_keypoints"] < 17]
    persons, those = fast.people(labelled), fast.found(results)
    one, other = np.repeat(np.arange(len(results)), len(labelled)), np.tile(np.arange(len(labelled)), len(results))
    seen = persons.keypoints[other, :, 2] > 0
    each = those.take(one)._replace(image=np.arange(len(one)))
    broken = each._replace(keypoints=np.where(seen[..., None], each.keypoints, np.nan))
    got = fast._similarity(broken, persons, np.arange(len(one)), other, COCO_SIGMAS)
    points, labels = torch.from_numpy(each.keypoints), torch.from_numpy(persons.keypoints[other, :, :2])
    area = torch.from_numpy(persons.area[other])
    np.testing.assert_allclose(got, oks(points, labels, area, weight=torch.from_numpy(seen).double()), rtol=1e-12)
    assert len(got) > 100
    assert got.max() > 0.5


def test_two_people_by_hand() -> None:
    """One found exactly, one missed by so much that OKS is 0.7, and a stranger whose score lies between them."""
    k = 2 * np.array(COCO_SIGMAS)
    area = 100.0**2
    joints = np.concatenate([np.arange(34.0).reshape(17, 2) * 5, np.full((17, 1), 2.0)], 1)
    far = joints + np.array([0, 3000, 0])
    shift = np.zeros((17, 3))
    shift[:, 0] = k * 100 * math.sqrt(-2 * math.log(0.7))  # each joint's similarity is 0.7

    def person(p: np.ndarray, i: int) -> dict[str, Any]:
        return {"id": i, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": area, "bbox": [0, 0, 1, 1],
                "keypoints": p.flatten().tolist(), "num_keypoints": 17}  # fmt: skip

    results = [{"image_id": 1, "category_id": 1, "keypoints": p.flatten().tolist(), "score": s}
               for p, s in ((joints, 0.9), (joints + np.array([5000, 0, 0]), 0.8), (far + shift, 0.7))]  # fmt: skip
    found = fast.average_precision(fast.people([person(joints, 1), person(far, 2)]), fast.found(results))
    # thresholds .5 to .65 (0.7 itself is touched by rounding): recalls to 1/2 at precision 1, then 2/3
    low, high = (51 + 50 * 2 / 3) / 101, 51 / 101
    assert found["AP50"] == pytest.approx(low)
    assert found["AP75"] == pytest.approx(high)
    assert found["AP"] in (pytest.approx((4 * low + 6 * high) / 10), pytest.approx((5 * low + 5 * high) / 10))
    assert found["AR75"] == 0.5
    assert math.isnan(found["AP_M"])
    assert found["AP_L"] == pytest.approx(found["AP"])


def test_nobody_found_nobody_there() -> None:
    truth, results = crowd_scene(11, 8)
    nothing = fast.found([])
    assert set(fast.average_precision(fast.people(truth), nothing).values()) == {0.0}
    assert all(map(math.isnan, fast.average_precision(fast.people([]), fast.found(results)).values()))


def test_joints_that_do_not_agree_are_refused() -> None:
    truth, results = crowd_scene(12, 4)
    with pytest.raises(ValueError, match="got 17 labelled joints, 17 detected ones and 16 sigmas"):
        fast.average_precision(fast.people(truth), fast.found(results), sigmas=COCO_SIGMAS[:16])
