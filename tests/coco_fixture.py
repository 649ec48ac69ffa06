"""COCO's key points in miniature: drawn pictures, annotations with the file's oddities, detected boxes."""

import json
from pathlib import Path
from typing import NamedTuple

import drawing_fixture
import numpy as np

from coordreg.data.skeletons import COCO17

WIDTH, HEIGHT = 400, 300


class Truth(NamedTuple):
    """As annotated: image and annotation ids (N,), box (N, 4) x, y, w, h, keypoints (N, 17, 3), area (N,)."""

    image_ids: np.ndarray
    ids: np.ndarray
    box: np.ndarray
    keypoints: np.ndarray
    area: np.ndarray


def people(count: int, seed: int) -> Truth:
    """A medium and a large person (in COCO's sense) a picture; joint 3 of every second one is unlabelled."""
    rng = np.random.default_rng(seed)
    sides = np.where(np.arange(count)[:, None] % 2, [[130.0, 150.0]], [[60.0, 80.0]])
    low = np.stack([np.where(np.arange(count) % 2, 200, 60), np.full(count, 90)], -1) + rng.integers(0, 20, (count, 2))
    box = np.concatenate([low, sides], -1)
    flags = rng.integers(1, 3, (count, 17))
    flags[::2, 3] = 0
    xy = (low[:, None] + rng.uniform(0.05, 0.9, (count, 17, 2)) * sides[:, None]).round()
    keypoints = np.concatenate([xy, flags[..., None]], -1) * (flags > 0)[..., None]
    area = (0.6 * sides.prod(-1)).round(2)
    return Truth(10 + np.arange(count) // 2, 100 + np.arange(count), box, keypoints, area)


def draw(path: Path, keypoints: np.ndarray) -> None:
    """Grey bones of everybody on black; the nose of the first is a soft white dot."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = drawing_fixture.picture(keypoints[..., :2], keypoints[..., 2], COCO17.bones, 0, (WIDTH, HEIGHT))
    made.save(path, quality=95)


def write(root: Path, count: int, split: str = "val2017", seed: int = 0) -> Truth:
    """Write `count` people, two a picture; also a crowd, somebody without labels, and a picture without anybody.

    The file root/detections.json holds every box with the score 0.9, one of them twice (0.5), and a dog.
    """
    root.mkdir(parents=True, exist_ok=True)
    (root / "FIXTURE").write_text("drawn pictures and invented labels\n")
    truth = people(count, seed)
    images = [*dict.fromkeys(truth.image_ids.tolist()), 9999]
    for image in images:
        found = truth.keypoints[truth.image_ids == image]
        draw(root / split / f"{image:012d}.jpg", found if len(found) else np.zeros((1, 17, 3)))
    common = {"category_id": 1, "iscrowd": 0, "segmentation": []}
    annotations = [
        {
            **common,
            **{"id": int(truth.ids[i]), "image_id": int(truth.image_ids[i]), "bbox": truth.box[i].tolist()},
            **{"area": float(truth.area[i]), "num_keypoints": int((truth.keypoints[i, :, 2] > 0).sum())},
            "keypoints": truth.keypoints[i].astype(int).flatten().tolist(),
        }
        for i in range(count)
    ]
    odd = {**annotations[0], "bbox": [5, 5, 40, 30], "area": 700.0, "num_keypoints": 0, "keypoints": [0] * 51}
    crowd = {**annotations[0], "id": 7, "iscrowd": 1, "segmentation": {"counts": [0, 9], "size": [3, 3]}}
    document = {
        "info": {"description": "drawn"},
        "licenses": [],
        "images": [
            {"id": image, "file_name": f"{image:012d}.jpg", "width": WIDTH, "height": HEIGHT} for image in images
        ],
        "annotations": [crowd, {**odd, "id": 8}, *annotations],
        "categories": [
            {
                **{"id": 1, "name": "person", "supercategory": "person", "keypoints": list(COCO17.joints)},
                "skeleton": [[a + 1, b + 1] for a, b in COCO17.bones],
            }
        ],
    }
    path = root / "annotations" / f"person_keypoints_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    found = [
        {"image_id": int(image), "category_id": 1, "bbox": box, "score": 0.9}
        for image, box in zip(truth.image_ids, truth.box.tolist(), strict=True)
    ]
    dog = {**found[0], "category_id": 18}
    (root / "detections.json").write_text(json.dumps([*found, dog, {**found[0], "score": 0.5}]))
    return truth
