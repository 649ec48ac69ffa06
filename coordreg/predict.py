"""Predict joints in pictures of the reader's own, from a checkpoint that a run has left."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.models.detection import fasterrcnn_resnet50_fpn_v2

from coordreg.backbones.weights import published
from coordreg.coords import apply_affine, crop, crop_affine
from coordreg.data.coco import COCO, WIDER
from coordreg.data.flic import FLIC
from coordreg.data.flic_formats import FLIC11
from coordreg.data.lsp import LSP
from coordreg.data.mpii import MPII
from coordreg.data.noisy import Noisy
from coordreg.data.skeletons import COCO17, LSP14, MPII16, Skeleton
from coordreg.ensemble import Ensemble
from coordreg.experiments.ensemble import trained
from coordreg.method import Estimator
from coordreg.metrics.coco_ap import JOINT, person_scores, suppress
from coordreg.spec import rebuild
from coordreg.train import CheckpointError

#: Data sets whose configuration does not name its joints.
SKELETON_OF: dict[type, Skeleton] = {LSP: LSP14, MPII: MPII16, COCO: COCO17, FLIC: FLIC11}


@dataclass(frozen=True)
class Predictor:
    """A trained estimator with what it needs to know of pictures: the crop's side, or (H, W), and the skeleton."""

    estimator: Estimator
    size: int | tuple[int, int]
    skeleton: Skeleton

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the crop."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def __call__(
        self, image: Float[Tensor, "3 H W"], box: tuple[float, float, float, float] | None = None, flip: bool = True
    ) -> tuple[Float[Tensor, "J 2"], Float[Tensor, " J"]]:
        """Joints in index pixels of the image and their scores.

        box: (x, y, width, height) of one person in index pixels; the whole image by default. It grows to the crop's
        aspect and then 1.25 times, as in training.
        """
        height, width = image.shape[-2:]
        x, y, w, h = box or (-0.5, -0.5, float(width), float(height))
        if not (w > 0 and h > 0 and all(map(math.isfinite, (x, y, w, h)))):
            raise ValueError(f"predict: got a box {box} without area, expected (x, y, width, height) in pixels")
        aspect = self.shape[1] / self.shape[0]
        sides = [factor * (WIDER if box else 1.0) for factor in (max(w, aspect * h), max(h, w / aspect))]
        affine = crop_affine(torch.tensor([[x + w / 2, y + h / 2]]), torch.tensor([sides]))
        shrink = max(1, round(sides[1] / self.shape[0]))
        picture = crop(image.unsqueeze(0), affine, self.shape, oversample=min(shrink, 8))
        points = self.estimator.predict(picture, flip=self.skeleton.pairs if flip else None)
        return apply_affine(affine, points.coords)[0], points.score[0]


Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Person:
    """One person found in a picture: the box (x, y, width, height) and its score, joints (J, 2) and their scores (J,).

    All in index pixels. score: the box's times the mean of the joint scores above 0.2, as COCO's tables have it; of all
    joint scores where none is above 0.2, as the probabilities of single cells are not.
    """

    box: Box
    points: Float[Tensor, "J 2"]
    joint_scores: Float[Tensor, " J"]
    score: float


def predict_people(
    predictor: Predictor, image: Float[Tensor, "3 H W"], boxes: Sequence[tuple[Box, float]], flip: bool = True
) -> list[Person]:
    """Top-down: one crop a box, best person first. boxes: (x, y, width, height) in index pixels, each with its score.

    With COCO's joints, of two people who are nearly the same (OKS above 0.9) the better one stays. Other skeletons have
    no published sigmas, and everybody stays.
    """
    found = []
    for box, certain in boxes:
        points, scores = predictor(image, box, flip)
        least = JOINT if bool((scores > JOINT).any()) else -math.inf
        total = person_scores(scores[None], torch.tensor([certain]), least)
        found.append(Person(box, points, scores, float(total[0])))
    found.sort(key=lambda person: -person.score)
    if predictor.skeleton == COCO17 and found:
        points = torch.stack([person.points for person in found])
        area = torch.tensor([(WIDER * max(person.box[2:])) ** 2 for person in found])  # of the crop, as published
        scores = torch.tensor([person.score for person in found])
        found = [found[i] for i in suppress(points, scores, area)]
    return found


def read_boxes(path: Path) -> dict[str, list[tuple[Box, float]]]:
    """Boxes by the name of the picture: {"a.jpg": [[x, y, width, height, score], ...]}, the score 1 if left out."""
    try:
        stored = json.loads(path.read_text())
        named = {str(name): [_box(row) for row in boxes] for name, boxes in stored.items()}
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file of boxes") from None
    except (json.JSONDecodeError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f'{path}: not a file of boxes ({error}); expected {{"picture.jpg": [[x, y, width, height, score], ...]}}'
        ) from error
    return named


def _box(row: object) -> tuple[Box, float]:
    """One row of such a file. ValueError for anything but four or five finite numbers with a width and a height."""
    numbers = [float(v) for v in row if isinstance(v, int | float)] if isinstance(row, list) else []
    if not isinstance(row, list) or len(numbers) not in (4, 5) or len(numbers) != len(row):
        raise ValueError(f"got {row!r}, four or five numbers are wanted")
    x, y, width, height, score = (*numbers, 1.0)[:5]
    if not all(map(math.isfinite, numbers)) or width <= 0 or height <= 0:
        raise ValueError(f"got {row!r}, which has no area")
    return (x, y, width, height), score


#: Torchvision's detector of people and other things, and the number that a person has in it.
DETECTOR, PERSON = "FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1", 1


class Detector:
    """Finds people with torchvision's Faster R-CNN. ValueError if its weights are neither cached nor to be had."""

    def __init__(self, least: float = 0.5) -> None:
        state = published(DETECTOR, DETECTOR)
        self.network = fasterrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None).eval()
        self.network.load_state_dict(state)
        self.least = least

    @torch.no_grad()
    def __call__(self, image: Float[Tensor, "3 H W"]) -> list[tuple[Box, float]]:
        """An image in [0, 1] -> boxes of people with a score of at least `least`, best first."""
        return people_of(self.network([image])[0], self.least)


def people_of(found: dict[str, Tensor], least: float) -> list[tuple[Box, float]]:
    """A detector's answer for one image -> the boxes of people, as x, y, width, height in index pixels, best first.

    Torchvision's corners lie at the edges of pixels, half a pixel before the first centre.
    """
    kept = (found["labels"] == PERSON) & (found["scores"] >= least)
    order = found["scores"][kept].argsort(descending=True)
    boxes: list[tuple[Box, float]] = []
    for (x, y, right, bottom), score in zip(
        found["boxes"][kept][order].tolist(), found["scores"][kept][order].tolist(), strict=True
    ):
        boxes.append(((x - 0.5, y - 0.5, right - x, bottom - y), score))
    return boxes


def load_predictor(checkpoint: Path, *more: Path) -> Predictor:
    """The network of a checkpoint, rebuilt from the configuration stored in it; of several, their `Ensemble`.

    Raises CheckpointError for a file that is no checkpoint, and ValueError for networks of different joints or crops.
    """
    found = [_load(path) for path in (checkpoint, *more)]
    first = found[0]
    for path, other in zip(more, found[1:], strict=True):
        if (other.skeleton, other.shape) != (first.skeleton, first.shape):
            kinds = [f"{p.skeleton.name} in crops of {p.shape[0]} x {p.shape[1]} px" for p in (first, other)]
            raise ValueError(
                f"predict: {checkpoint.name} finds {kinds[0]}, {path.name} {kinds[1]}; maps can be averaged only for "
                "the same joints in the same crop"
            )
    return first if not more else Predictor(Ensemble([p.estimator for p in found]).eval(), first.size, first.skeleton)


def _load(checkpoint: Path) -> Predictor:
    estimator, config = trained(checkpoint)
    try:
        test = rebuild(config["test"])
        test = test.data if isinstance(test, Noisy) else test
    except KeyError as error:
        raise CheckpointError(f"{checkpoint}: its configuration names no test set ({error}); train it again") from error
    skeleton = SKELETON_OF.get(type(test), getattr(test, "skeleton", None))
    if skeleton is None:
        raise CheckpointError(
            f"{checkpoint}: of a network for {type(test).__name__}, which finds no joints of one person in a picture; "
            f"expected one for {', '.join(kind.__name__ for kind in SKELETON_OF)} or Figures"
        )
    return Predictor(estimator, test.size, skeleton)


def read_image(path: Path) -> Float[Tensor, "3 H W"]:
    """A picture file as a tensor in [0, 1]. ValueError that names a missing or corrupt file."""
    try:
        with Image.open(path) as image:
            return torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1).float() / 255
    except FileNotFoundError:
        raise ValueError(f"{path}: no such image") from None
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path}: not a readable image ({error}); convert it to JPEG or PNG") from error


def predict_files(
    predictor: Predictor,
    images: Sequence[Path],
    out: Path,
    *,
    box: Box | None = None,
    flip: bool = True,
    find: Callable[[Path, Tensor], Sequence[tuple[Box, float]]] | None = None,
) -> list[dict[str, Any]]:
    """Predict each image; writes `<name>-joints.json` and `<name>-joints.png` into `out`, returns the JSON objects.

    find: given, it says where the people of a picture are, and the objects hold "people" in the place of "joints".
    """
    if len({path.stem for path in images}) < len(images):
        raise ValueError("predict: two of the images have the same name; give them two --out folders, one call each")
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for path in images:
        image = read_image(path)
        result: dict[str, Any] = {
            "image": path.name,
            "width": image.shape[-1],
            "height": image.shape[-2],
            "unit": "index pixels: the centre of the first pixel is 0",
        }
        if find is None:
            points, score = predictor(image, box, flip)
            drawn = [points]
            result["joints"] = _told(predictor, points, score)
        else:
            people = predict_people(predictor, image, find(path, image), flip)
            drawn = [person.points for person in people]
            result["people"] = [
                {"box": [round(v, 2) for v in person.box], "score": round(person.score, 4),
                 "joints": _told(predictor, person.points, person.joint_scores)}
                for person in people
            ]  # fmt: skip
        (out / f"{path.stem}-joints.json").write_text(json.dumps(result, indent=1) + "\n")
        _overlay(image, drawn, predictor.skeleton, out / f"{path.stem}-joints.png")
        written.append(result)
    return written


def _told(predictor: Predictor, points: Tensor, score: Tensor) -> dict[str, dict[str, float]]:
    """Joints by name."""
    joints = zip(predictor.skeleton.joints, points.tolist(), score.tolist(), strict=True)
    return {name: {"x": round(x, 2), "y": round(y, 2), "score": round(s, 4)} for name, (x, y), s in joints}


def _overlay(image: Tensor, people: Sequence[Tensor], skeleton: Skeleton, path: Path) -> None:
    """The picture with everybody's skeleton on it."""
    import matplotlib.pyplot as plt

    from coordreg import plots

    figure, ax = plt.subplots(figsize=(6, 6 * image.shape[-2] / image.shape[-1]))
    ax.imshow(image.permute(1, 2, 0).numpy())
    ax.set_axis_off()
    for points in people:
        plots.skeleton(ax, points.numpy(), skeleton)
    figure.savefig(path, bbox_inches="tight", dpi=150)
    plt.close(figure)
