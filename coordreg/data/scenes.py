"""COCO's pictures whole, with everybody in them: what a network that finds people as well as joints learns from.

A picture lies, at its own size, in the upper left corner of a square canvas (no side of COCO's is above 640 px), and
the batch's hint says where it ends. `ScaleJitter` makes training pictures of one size of them.

Who is labelled, as Detectron2 has it: every box that is no crowd, also of people of whom no joint is labelled; but for
boxes that show less than LEAST in the picture, and masks without area. Crowd regions carry no label; pycocotools leaves
answers in them out of its count (`metrics.scoring_scenes`). To train on: pictures with somebody of whom a joint is
labelled. To be tested on: all pictures, as answers count where nobody is.

Boxes are the file's, clipped to the picture; their numbers count from the picture's edge, those of joints from the
middle of the first pixel. Sources: Lin et al., ECCV 2014; for the jitter Ghiasi et al., CVPR 2021.
"""

import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from coordreg.coords import Batch, Labels, Pairs, apply_affine, crop_affine, invert_affine
from coordreg.data.augment import mirror
from coordreg.data.coco import COCO, HOME, index
from coordreg.data.crowds import CrowdStore
from coordreg.data.hosted import HostStore
from coordreg.data.pack import key, locate, pack_crops, pack_path, present, read_picture
from coordreg.data.skeletons import COCO17
from coordreg.method import MEAN

#: Boxes that show fewer pixels than this on either side are no labels.
LEAST = 1.0
#: No picture is made larger than this share of what comes back.
LARGEST = 8
JOINTS = len(COCO17.joints)

# -- pictures of one size ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ScaleJitter:
    """Large-scale jittering: the picture at another size, a random part of it where it is too large, and mirrored.

    size: pixels a side of what comes back. smallest, largest: the picture's longer side as a share of `size`, uniform
    between them; 0.1 and 2 are Ghiasi et al.'s. flip: chance of a mirror. What the picture leaves free has the mean
    colour. People of whom less than a pixel's width is left carry no label, nor do joints that are cut off.
    """

    size: int = 1024
    smallest: float | int = 0.1
    largest: float | int = 2.0
    flip: float | int = 0.5

    def __post_init__(self) -> None:
        if self.size < 2 or not 0 < self.smallest <= self.largest <= LARGEST or not 0 <= self.flip <= 1:
            raise ValueError(
                f"ScaleJitter: got size={self.size}, smallest={self.smallest}, largest={self.largest}, "
                f"flip={self.flip}, expected at least 2 px, shares above 0 and up to {LARGEST}, in order, and a "
                "chance from 0 to 1"
            )
        for name in ("smallest", "largest", "flip"):
            object.__setattr__(self, name, float(getattr(self, name)))

    def __call__(self, batch: Batch, places: int, pairs: Pairs, generator: torch.Generator) -> Batch:
        """A batch of `SceneStore` -> images (B, 3, size, size) and their labels; the hint has done its work.

        places, pairs: the store's. Four numbers a picture are drawn, whatever is switched on. ValueError without
        a hint.
        """
        images, side = batch.images, batch.images.shape[-1]
        drawn = torch.rand(len(images), 4, generator=generator, device=generator.device).tolist()
        found = torch.tensor(MEAN).to(images).view(1, 3, 1, 1).repeat(len(images), 1, self.size, self.size)
        zoom, shift = images.new_empty(2, len(images), 1, 2)
        for i, (width, height) in enumerate(corners(images, batch.hint)):
            factor = (self.smallest + drawn[i][0] * (self.largest - self.smallest)) * self.size / max(width, height)
            wide, high = (max(1, round(n * factor)) for n in (width, height))
            left, top = (int(u * (max(0, n - self.size) + 1)) for u, n in zip(drawn[i][1:3], (wide, high), strict=True))
            whole = F.interpolate(images[i : i + 1, :, :height, :width], (high, wide), mode="bilinear", antialias=True)
            part = whole[0, :, top : top + self.size, left : left + self.size]
            found[i, :, : part.shape[1], : part.shape[2]] = part.clamp(0, 1)
            zoom[i], shift[i] = images.new_tensor([[wide / width, high / height], [left, top]]).unsqueeze(1)
        edges = (batch.labels.coords + 1) * (side / 2)  # from the edge, not from a pixel's middle
        coords = (edges * zoom - shift) * (2 / self.size) - 1
        mirrored = torch.tensor([row[3] < self.flip for row in drawn], device=images.device)
        labels = Labels(coords, batch.labels.weight)
        found, labels, visible = mirror(found, labels, batch.visible, mirrored, pairs)
        labels = cut_people(labels, places, 2 * LEAST / self.size)
        return batch._replace(
            images=found, labels=labels, visible=visible & (labels.weight.amin(-1) > 0), hint=None
        )  # fmt: skip


def cut_people(labels: Labels, places: int, least: float) -> Labels:
    """Labels of a `CrowdStore` inside [-1, 1]: boxes clipped and their corners in order, joints outside without weight.

    Whoever has a side shorter than `least` left, in normalised coordinates, has no label. Weightless points are 0.
    """
    coords, weight = (t.unflatten(1, (places, -1)) for t in labels)
    box = coords[:, :, -2:].clamp(-1, 1)
    low, high = box.amin(2, keepdim=True), box.amax(2, keepdim=True)
    here = ((high - low) >= least).all(-1, keepdim=True)
    inside = (coords[:, :, :-2].abs() <= 1).all(-1, keepdim=True)
    weight = weight * torch.cat([inside & here, here.expand(-1, -1, 2, -1)], 2)
    coords = torch.where(weight > 0, torch.cat([coords[:, :, :-2], low, high], 2), 0)
    return Labels(coords.flatten(1, 2), weight.flatten(1, 2))


def corners(images: Float[Tensor, "B 3 H W"], hint: Float[Tensor, "B 2"] | None) -> list[tuple[int, int]]:
    """Width and height of each picture on its canvas, in pixels. ValueError without the hint that tells them."""
    if hint is None:
        raise ValueError("scenes: got pictures without a hint, expected where each of them ends; take a SceneStore's")
    edge = (hint + 1) * hint.new_tensor([n / 2 for n in images.shape[:1:-1]])
    return [(round(x), round(y)) for x, y in edge.tolist()]


@dataclass(frozen=True, eq=False, kw_only=True)
class SceneStore(HostStore, CrowdStore):
    """Canvases with their people, largest first; `area` is 0 for those of whom no joint is labelled.

    hint: (N, 2) normalised, where the picture ends: its lower right corner. image_ids: (N,) the file's. jitter: applied
    where a batch is asked for with a generator.
    """

    image_ids: Int[Tensor, " N"]
    jitter: ScaleJitter | None = None

    def batch(self, index: Int[Tensor, " B"], generator: torch.Generator | None = None) -> Batch:
        """Canvases with these numbers; jittered if a generator is given and the store has a jitter."""
        found = super().batch(index)
        if generator is None or self.jitter is None:
            return found
        return self.jitter(found, self.places, self.pairs, generator)


# -- data set ----------------------------------------------------------------------------------------------------------


class Scene(NamedTuple):
    """A picture as annotated. size: (W, H). boxes: (P, 4) x0 y0 x1 y1. keypoints: (P, 17, 3). area: (P,) of masks."""

    name: str
    image_id: int
    size: tuple[int, int]
    boxes: NDArray[Any]
    keypoints: NDArray[Any]
    area: NDArray[Any]


def read_scenes(truth: Any, empty: bool) -> list[Scene]:
    """All pictures of `coco.index`, in the file's order; with `empty` also those without a labelled joint."""
    found = []
    for picture in truth.dataset["images"]:
        width, height = picture["width"], picture["height"]
        rows = [a for a in truth.imgToAnns[picture["id"]] if a["category_id"] == 1 and not a["iscrowd"]]
        box = np.array([a["bbox"] for a in rows], float).reshape(-1, 4)
        boxes = np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], 1).clip(0, [width, height, width, height])
        area = np.array([a["area"] for a in rows], float)
        points = np.array([a.get("keypoints", [0] * 3 * JOINTS) for a in rows], float).reshape(-1, JOINTS, 3)
        keep = np.flatnonzero((boxes[:, 2:] - boxes[:, :2] >= LEAST).all(1) & (area > 0))
        keep = keep[np.argsort(-area[keep], kind="stable")]
        scene = Scene(picture["file_name"], picture["id"], (width, height), boxes[keep], points[keep], area[keep])
        if empty or (scene.keypoints[..., 2] > 0).any():
            found.append(scene)
    return found


@dataclass(frozen=True)
class Scenes:
    """COCO's whole pictures as a data set. `open()` gives a `SceneStore`.

    data: whose pictures, by its root and split; its crops are not made. canvas: pixels a side of what is stored, in
    which larger pictures are made to fit. places: for how many people there is room; smaller ones are left out, with a
    warning. augment: for "train2017" only. limit: the first so many pictures.
    """

    data: COCO
    canvas: int = 640
    places: int = 20
    augment: ScaleJitter | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        own = [f for f in fields(COCO) if f.name not in ("root", "split")]
        if changed := [f.name for f in own if getattr(self.data, f.name) != f.default]:
            raise ValueError(f"Scenes: got a COCO with {', '.join(changed)} of its own, expected root and split alone")
        if self.augment is not None and self.split != "train2017":
            raise ValueError(f"Scenes: got an augmentation for {self.split}; augment train2017")
        if self.canvas < 2 or self.places < 1 or (self.limit is not None and self.limit < 1):
            raise ValueError(
                f"Scenes: got canvas={self.canvas}, places={self.places}, limit={self.limit}, expected at least 2 px, "
                "one place and one picture"
            )

    @property
    def split(self) -> str:
        """ "train2017" or "val2017"."""
        return self.data.split

    @property
    def size(self) -> int:
        """Pixels a side of what a batch holds."""
        return self.canvas if self.augment is None else self.augment.size

    def open(self, progress: bool = False) -> SceneStore:
        """Read the labels and draw the canvases, or map those drawn before (`pack.pack_path` says where).

        Pictures that are not there are left out, and counted in a warning: those with people, and those without. Raises
        as `COCO.open` does, and ValueError for a picture of another size than annotated.
        """
        root = locate(self.data.root)
        places = (root / self.split, root / "images" / self.split)
        pictures = next((d for d in places if d.is_dir()), places[0])
        scenes = read_scenes(index(self.data.annotations()), empty=self.split != "train2017")
        if not any(len(s.boxes) for s in scenes):
            raise ValueError("Scenes: these annotations hold no person with key points; person_keypoints_*.json do")
        get = f"{pictures.name}.zip from {HOME} (`python -m coordreg data fetch coco --part {pictures.name}`)"
        owners = [s.name for s in scenes for _ in s.boxes]
        there = {owners[i] for i in present(owners, pictures, "COCO", get)}
        bare = {s.name for s in scenes if not len(s.boxes)}
        if absent := {name for name in bare if not (pictures / name).is_file()}:
            warnings.warn(
                f"Scenes: {len(absent)} of {len(bare)} pictures without people are not in {pictures} and are left out",
                stacklevel=2,
            )
        there |= bare - absent
        scenes = [s for s in scenes if s.name in there][: self.limit]
        if dropped := sum(max(0, len(s.boxes) - self.places) for s in scenes):
            warnings.warn(f"Scenes: {dropped} people are beyond {self.places} places; give more places", stacklevel=2)
        shown = np.array([fit(s.size, self.canvas) for s in scenes])

        def make(i: int) -> NDArray[Any]:
            return draw(pictures / scenes[i].name, scenes[i].size, (int(shown[i, 0]), int(shown[i, 1])), self.canvas)

        shape = (3, self.canvas, self.canvas)
        name = f"coco-{self.split}-whole-{self.canvas}-{key([s.name for s in scenes], shown, shape)}"
        images = pack_crops(pack_path(root, name, len(scenes), shape), len(scenes), shape, make, progress)
        return self._store(images, scenes, torch.from_numpy(shown).double())

    def _store(self, images: Tensor, scenes: list[Scene], shown: Float[Tensor, "N 2"]) -> SceneStore:
        n, names = len(scenes), (*COCO17.joints, "box_from", "box_to")
        side = self.canvas * torch.tensor([s.size for s in scenes]) / shown  # of the canvas, in the picture's pixels
        affine = crop_affine(side / 2 - 0.5, side)
        points = torch.zeros(n, self.places, len(names), 2, dtype=torch.double)
        flag, area = torch.zeros(points.shape[:3]), torch.zeros(n, self.places)
        for i, scene in enumerate(scenes):
            count = min(self.places, len(scene.boxes))
            points[i, :count, :-2] = torch.from_numpy(scene.keypoints[:count, :, :2])
            points[i, :count, -2:] = torch.from_numpy(scene.boxes[:count]).unflatten(-1, (2, 2)) - 0.5
            flag[i, :count, :-2] = torch.from_numpy(scene.keypoints[:count, :, 2]).float()
            flag[i, :count, -2:] = 2
            area[i, :count] = torch.from_numpy(scene.area[:count] * (scene.keypoints[:count, :, 2] > 0).any(1)).float()
        flag = flag.flatten(1)
        weight = (flag > 0).float().unsqueeze(-1).expand(-1, -1, 2).contiguous()
        coords = apply_affine(invert_affine(affine), points.flatten(1, 2)).float()
        pairs: Pairs = [(a + p * len(names), b + p * len(names)) for p in range(self.places) for a, b in COCO17.pairs]
        return SceneStore(
            images=images, coords=torch.where(weight > 0, coords, 0), weight=weight, visible=flag > 1,
            normaliser=area.amax(1).sqrt().clamp_min(1.0), affine=affine.float(), pairs=pairs,
            joints=tuple(f"{p}_{name}" for p in range(self.places) for name in names),
            hint=(2 * shown / self.canvas - 1).float(), area=area,
            image_ids=torch.tensor([s.image_id for s in scenes]), jitter=self.augment,
        )  # fmt: skip


def fit(size: tuple[int, int], canvas: int) -> tuple[int, int]:
    """(width, height) of a picture on the canvas: its own, or as large as fits."""
    scale = min(1.0, canvas / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def draw(path: Path, size: tuple[int, int], shown: tuple[int, int], canvas: int) -> NDArray[Any]:
    """The picture at `shown` = (W, H) in the corner of a black canvas, (3, canvas, canvas) bytes."""
    image = read_picture(path)
    if image.size != size:
        raise ValueError(
            f"{path} has {image.size[0]} x {image.size[1]} px, annotated are {size[0]} x {size[1]}; fetch it again"
        )
    image = image if shown == size else image.resize(shown, Image.Resampling.BICUBIC)
    found = np.zeros((3, canvas, canvas), np.uint8)
    found[:, : shown[1], : shown[0]] = np.asarray(image).transpose(2, 0, 1)
    return found


__all__ = ["Scene", "SceneStore", "Scenes", "ScaleJitter", "corners", "cut_people", "read_scenes"]
