"""COCO 2017 key points: everyday photographs with several people each, 17 joints a person; judged by OKS and AP.

A joint's flag v is 0 (unlabelled), 1 (labelled but hidden) or 2 (visible); hidden joints count in losses and scores.
Coordinates start at 0.

Crops, as SimpleBaseline, HRNet, DARK and Poseur make them. A labelled box is first clipped to the picture by a rule
that takes 1 off its width and height (x2 = x + w - 1). Then, for labelled and detected boxes: the shorter side grows to
the network's aspect, and both sides are taken 1.25 times. (Their codes divide by pixel_std = 200 px and multiply by it
again: MPII's unit, which changes nothing here.) Their crop has the box's middle at pixel W/2; ours has it in the middle
of the crop, half a pixel up and to the left, as everywhere in this library.

Detected boxes carry no labels: all weights are 0, and the store serves prediction and AP only (`metrics.coco_ap`).

Source: Lin et al., ECCV 2014.
"""

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from coordreg.coords import Labels, apply_affine, crop_affine, invert_affine
from coordreg.data.augment import Augment, jitter, turn
from coordreg.data.halfbody import HalfBody
from coordreg.data.pack import canvas_size, cut, key, locate, pack_crops, pack_path, present, read_picture
from coordreg.data.skeletons import COCO17
from coordreg.data.store import Augment as Augmentation
from coordreg.data.store import Store

HOME = "https://cocodataset.org/#download"
#: How much wider than the box, grown to the network's aspect, the crop is.
WIDER = 1.25


@dataclass(frozen=True, eq=False, kw_only=True)
class COCOStore(Store):
    """A store that also knows what COCO's evaluation asks for.

    image_ids: (N,). annotation_ids: (N,), 0 for detected boxes. box_scores: (N,), 1 for labelled boxes. area: (N,) of
    the person's mask, or of the detected box, in square pixels.
    """

    image_ids: Int[Tensor, " N"]
    annotation_ids: Int[Tensor, " N"]
    box_scores: Float[Tensor, " N"]
    area: Float[Tensor, " N"]

    @property
    def crop_area(self) -> Float[Tensor, " N"]:
        """Square pixels of the source picture that each image shows, (N,): what the codes use as area in OKS-NMS."""
        return 4 * torch.linalg.det(self.affine[:, :, :2]).abs()


@dataclass(frozen=True)
class Window:
    """`Augment` for crops that are not square: the whole stored canvas is turned, then its middle cut out.

    augment: with pairs filled in and no size of its own. size: (H, W) of the middle. Called as `store.Augment` says; it
    draws the same random numbers as `augment` does. `HalfBody` cuts its own rectangles.
    """

    augment: Augment
    size: tuple[int, int]

    def __call__(
        self,
        images: Float[Tensor, "B 3 H W"],
        labels: Labels,
        visible: Bool[Tensor, "B J"],
        generator: torch.Generator,
    ) -> tuple[Tensor, Labels, Tensor]:
        """Augment a batch. Joints that leave the middle get weight 0 and are no longer visible."""
        own, (height, width) = self.augment, images.shape[-2:]
        top, left = (height - self.size[0]) // 2, (width - self.size[1]) // 2
        if min(top, left) < 0 or (height - self.size[0]) % 2 or (width - self.size[1]) % 2:
            raise ValueError(
                f"Window: got images of {height} x {width} px for a middle of {self.size[0]} x {self.size[1]}, "
                "expected them larger by an even number of pixels"
            )
        if isinstance(own, HalfBody):
            return own.cut(images, labels, visible, generator, self.size)
        drawn = torch.rand(len(images), 6, generator=generator, device=generator.device)
        flips, spread = (drawn[:, 0] < own.flip).to(images.device), 2 * drawn - 1
        degrees, zoom = spread[:, 1] * own.rotation, 1 + spread[:, 2] * own.scale
        images, labels, visible = turn(images, labels, visible, flips, degrees, zoom, own.pairs or ())
        images = images[..., top : top + self.size[0], left : left + self.size[1]].contiguous()
        if own.colour:
            images = jitter(images, (1 + own.colour * spread[:, 3:]).to(images.device))
        coords = labels.coords * labels.coords.new_tensor([width / self.size[1], height / self.size[0]])
        inside = (coords.abs() <= 1).all(-1)
        return images, Labels(coords, labels.weight * inside.unsqueeze(-1)), visible & inside


# -- boxes ------------------------------------------------------------------------------------------------------------


def clean(box: NDArray[Any], width: NDArray[Any], height: NDArray[Any]) -> NDArray[Any]:
    """Boxes (N, 4) as x, y, w, h clipped to their pictures; 1 px narrower and lower. Sides below 0: nothing is left."""
    low = np.maximum(box[:, :2], 0)
    high = np.minimum(np.stack([width, height], -1) - 1, low + np.maximum(box[:, 2:] - 1, 0))
    return np.concatenate([low, high - low], -1)


def frame(box: NDArray[Any], size: tuple[int, int]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Boxes (N, 4) -> centres and sides (N, 2) of the crops: grown to the aspect of `size` = (H, W), then by 1.25."""
    aspect = size[1] / size[0]
    width, height = np.maximum(box[:, 2:], 1).T  # a box of one pixel has lost its width by the cleaning
    sides = np.stack([np.maximum(width, height * aspect), np.maximum(height, width / aspect)], -1)
    return box[:, :2] + box[:, 2:] / 2, WIDER * sides


class People(NamedTuple):
    """names: N file names. box: (N, 4) x, y, w, h. keypoints: (N, 17, 3) x, y, v. The rest (N,) as in COCOStore."""

    names: list[str]
    box: NDArray[Any]
    keypoints: NDArray[Any]
    image_ids: NDArray[Any]
    annotation_ids: NDArray[Any]
    scores: NDArray[Any]
    area: NDArray[Any]

    def take(self, rows: list[int]) -> "People":
        """The people of these rows."""
        return People([self.names[i] for i in rows], *(value[rows] for value in self[1:]))


def index(path: Path) -> Any:
    """pycocotools' COCO of a file of annotations, without what it prints."""
    try:
        from pycocotools import coco as tools
    except ImportError as error:
        raise ImportError("COCO needs pycocotools: pip install 'coordreg[book]', or pip install pycocotools") from error
    if not path.is_file():
        raise FileNotFoundError(
            f"COCO: {path} is not there; get annotations_trainval2017.zip from {HOME} "
            "(`python -m coordreg data fetch coco --part annotations`), or give the folder that contains annotations/"
        )
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            return tools.COCO(str(path))
        except (ValueError, KeyError, AssertionError) as error:
            raise ValueError(f"COCO: {path} is damaged or no file of annotations ({error})") from error


def read_people(truth: Any) -> People:
    """Labelled people: no crowds; at least one labelled joint, a mask, and a box that reaches into the picture."""
    rows = [
        (truth.imgs[a["image_id"]], a)
        for a in truth.dataset["annotations"]
        if not a["iscrowd"] and a["area"] > 0 and any(a.get("keypoints", ())[2::3])
    ]
    if not rows:
        raise ValueError("COCO: these annotations hold no person with key points; person_keypoints_*.json do")
    box = np.array([a["bbox"] for _, a in rows], float)
    box = clean(box, *(np.array([picture[side] for picture, _ in rows]) for side in ("width", "height")))
    people = People(
        [picture["file_name"] for picture, _ in rows],
        box,
        np.array([a["keypoints"] for _, a in rows], float).reshape(-1, 17, 3),
        np.array([a["image_id"] for _, a in rows]),
        np.array([a["id"] for _, a in rows]),
        np.ones(len(rows)),
        np.array([a["area"] for _, a in rows], float),
    )
    return people.take([int(i) for i in np.flatnonzero((box[:, 2:] >= 0).all(-1))])


def read_detections(path: Path, truth: Any) -> People:
    """Boxes of category 1 in the pictures of `truth`, from a list of {image_id, category_id, bbox, score}."""
    if not path.is_file():
        raise FileNotFoundError(
            f"COCO: the file of detected boxes {path} is not there; HRNet's and SimpleBaseline's pages offer "
            "COCO_val2017_detections_AP_H_56_person.json; boxes='gt' takes the labelled boxes"
        )
    found = json.loads(path.read_text())
    if not isinstance(found, list) or (found and not {"image_id", "category_id", "bbox", "score"} <= set(found[0])):
        raise ValueError(f"COCO: {path} is no list of boxes with image_id, category_id, bbox and score")
    rows = [r for r in found if r["category_id"] == 1 and r["image_id"] in truth.imgs and min(r["bbox"][2:]) > 0]
    if not rows:
        raise ValueError(f"COCO: {path} has no box of a person in one of the {len(truth.imgs)} annotated pictures")
    box = np.array([r["bbox"] for r in rows], float)
    return People(
        [truth.imgs[r["image_id"]]["file_name"] for r in rows],
        box,
        np.zeros((len(rows), 17, 3)),
        np.array([r["image_id"] for r in rows]),
        np.zeros(len(rows), int),
        np.array([r["score"] for r in rows], float),
        box[:, 2] * box[:, 3],
    )


# -- data set ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class COCO:
    """COCO's people as a data set: one crop a box, 17 joints; errors are divided by the root of the mask's area.

    root: the folder with annotations/, train2017/ and val2017/ (see `pack.locate`). split: "train2017" or "val2017".
    boxes: "gt", or a file of detected boxes, in `root` or anywhere. size: (H, W) of what a network sees, or one number
    for a square. augment: for "train2017" only; `Augment` knows squares, `Window` lends it to other shapes. canvas:
    with an augmentation the stored crops are larger, in both directions about canvas times the longer side of `size`,
    so that turning and widening find picture. limit: the first so many boxes.
    """

    root: str = "coco"
    split: str = "train2017"
    boxes: str = "gt"
    size: int | tuple[int, int] = (256, 192)
    augment: Augment | None = None
    canvas: float = 5 / 3
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.split not in ("train2017", "val2017"):
            raise ValueError(f"COCO: got split={self.split!r}, expected one of ['train2017', 'val2017']")
        if self.augment is not None and (self.split != "train2017" or self.boxes != "gt"):
            raise ValueError(
                "COCO: got an augmentation for val2017 or detected boxes; augment train2017 with boxes='gt'"
            )
        if self.augment is not None and self.augment.size is not None:
            raise ValueError(f"COCO: got an Augment of size={self.augment.size}; leave it out, `size` here says it")
        if len(self.shape) != 2 or min(self.shape) < 2 or (self.limit is not None and self.limit < 1):
            raise ValueError(
                f"COCO: got size={self.size}, limit={self.limit}, expected (H, W) of at least 2 px and one box"
            )
        canvas_size(self.shape, self.canvas)

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of what a network sees."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def annotations(self) -> Path:
        """The file of annotations, which `metrics.coco_ap.evaluate` wants too."""
        return locate(self.root) / "annotations" / f"person_keypoints_{self.split}.json"

    def open(self, progress: bool = False) -> COCOStore:
        """Read the labels and cut the crops, or map those cut before (`pack.pack_path` says where).

        Boxes whose picture is not there are left out and counted in a warning. Raises FileNotFoundError if there are
        no annotations, boxes or pictures, ValueError for damaged files, ImportError without pycocotools.
        """
        root = locate(self.root)
        truth = index(self.annotations())
        if self.boxes == "gt":
            people = read_people(truth)
        else:
            inside = root / self.boxes
            people = read_detections(inside if inside.is_file() else Path(self.boxes), truth)
        pictures = next((d for d in (root / self.split, root / "images" / self.split) if d.is_dir()), root / self.split)
        get = f"{pictures.name}.zip from {HOME} (`python -m coordreg data fetch coco --part {pictures.name}`)"
        people = people.take(present(people.names, pictures, "COCO", get))
        people = people.take(list(range(len(people.names)))[: self.limit])
        size = self.shape if self.augment is None else canvas_size(self.shape, self.canvas)
        centre, sides = frame(people.box, self.shape)
        sides = sides * np.array([size[1] / self.shape[1], size[0] / self.shape[0]])

        def make(i: int) -> NDArray[Any]:
            return cut(read_picture(pictures / people.names[i]), centre[i], sides[i], size)

        shape = (3, *size)
        name = f"coco-{self.split}-{size[0]}x{size[1]}-{key(people.names, centre, sides, shape)}"
        path = pack_path(root, name, len(centre), shape)
        return self._store(pack_crops(path, len(centre), shape, make, progress), people, centre, sides)

    def _store(self, images: Tensor, people: People, centre: NDArray[Any], sides: NDArray[Any]) -> COCOStore:
        affine = crop_affine(torch.from_numpy(centre), torch.from_numpy(sides))
        flag = torch.from_numpy(people.keypoints[..., 2])
        joints = torch.from_numpy(people.keypoints[..., :2]).where(flag.unsqueeze(-1) > 0, torch.nan)
        augment: Augmentation | None = None
        if self.augment is not None:
            square = self.shape[0] == self.shape[1]
            augment = self.augment.bind(COCO17.pairs, self.shape[0] if square else None)
            augment = augment if square else Window(augment, self.shape)
        return COCOStore(
            images=images,
            coords=apply_affine(invert_affine(affine), joints).float(),
            weight=(flag > 0).float().unsqueeze(-1).expand(-1, -1, 2).contiguous(),
            visible=flag > 1,
            normaliser=torch.from_numpy(people.area).sqrt().float(),
            affine=affine.float(),
            pairs=COCO17.pairs,
            joints=COCO17.joints,
            augment=augment,
            image_ids=torch.from_numpy(people.image_ids),
            annotation_ids=torch.from_numpy(people.annotation_ids),
            box_scores=torch.from_numpy(people.scores).float(),
            area=torch.from_numpy(people.area).float(),
        )
