"""Augmentation as SimpleBaseline and HRNet have it: clipped normal numbers, and sometimes half a body.

`Augment` draws its zoom and its turn from ranges. The published codes draw both from clipped normal distributions, turn
six crops in ten, and, HRNet's for COCO, cut three well-labelled people in ten down to the upper or the lower half of
their joints. This file says how; `experiments.paper_dark` says which recipe takes what.

Crops come out of what a data set has stored, its canvas, and no longer out of the photograph. A square crop of the
whole body, turned by up to 60 degrees and 1.25 times as wide, needs a canvas of 16/9; one of aspect 4:3, turned by up
to 90 degrees and 1.35 times as wide, needs 27/16 times its longer side (at 37 degrees its diagonal is upright; the data
sets' default of 5/3 is 1% short of that). Half bodies lie off the middle and mostly need less, but nothing bounds them:
spread over a whole box, a half needs 1.2 times as much, and its way from the middle. With HRNet's numbers, of 2,160
crops of 72 people of COCO's train2017 one in a thousand had more than 1% of its area beyond a canvas of 5/3, and none
more than 10%. That area is black, as the published codes make what lies beyond the photograph; they would show the
photograph there. And where a person is larger than the network's input, half a body cut out of the canvas is less sharp
than one cut out of the photograph.

Sources: Xiao et al., ECCV 2018; Sun, Xiao et al., CVPR 2019; half bodies after Wang et al. 2018.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from coordreg.coords import (
    Labels,
    apply_affine,
    crop,
    crop_affine,
    invert_affine,
    swap,
    to_pixels,
)
from coordreg.data.augment import Augment, jitter
from coordreg.data.skeletons import Skeleton

#: The chance that a standard normal number lies below 0.5, which the published codes take for a fair coin: 0.69.
SLIP = 0.5 * (1 + math.erf(0.5 / math.sqrt(2)))
#: How much wider than the tight box about the joints of a half, grown to the crop's aspect, the crop is.
WIDER = 1.5
#: Joints by which a half is recognised as the lower one.
LOWER = ("hip", "knee", "ankle", "pelvis")


class Frame(NamedTuple):
    """Rectangles in index pixels of the canvas. centre, sides: (B, 2) as (x, y) and (width, height)."""

    centre: Tensor
    sides: Tensor


class Drawn(NamedTuple):
    """What happens to each crop, (B,) each, and colour (B, 3) in [-1, 1]; see `HalfBody.draw`."""

    flips: Tensor
    degrees: Tensor
    zoom: Tensor
    halved: Tensor
    upper: Tensor
    colour: Tensor


def upper_joints(skeleton: Skeleton) -> tuple[int, ...]:
    """The joints of the upper half, by name: all but hips, knees, ankles and the pelvis. COCO's 0 to 10, MPII's 7 to
    15, as published."""
    return tuple(j for j, name in enumerate(skeleton.joints) if name.removeprefix("l_").removeprefix("r_") not in LOWER)


@dataclass(frozen=True)
class HalfBody(Augment):
    """`Augment` with the published codes' distributions, and half bodies.

    rotation, scale: r and s; the turn is N(0, r) degrees, clipped to +-2r, the crop's side is multiplied by N(1, s),
    clipped to 1 +- s. turned: chance that a crop is turned at all. half: chance that somebody with more than `labelled`
    labelled joints is cut down to a half. upper: the joints of the upper half (`upper_joints`), all others being the
    lower one; needed where `half` is not 0. slip: the upper half is taken with probability SLIP = 0.69, as published,
    where a normal number stands in the place of a uniform one; False makes it 1/2. flip, colour, pairs, size: as in
    `Augment`.

    A half needs more than two labelled joints. The lower one is taken where the upper has fewer, and the upper where
    the lower has; if that leaves fewer than two joints, or all in one place, the whole body stays.

    Published codes keep the weight of a joint that has left the crop as long as its Gaussian touches the map; here it
    is 0, as everywhere in this library.
    """

    turned: float | int = 0.6
    half: float | int = 0.0
    labelled: int = 8
    upper: tuple[int, ...] = ()
    slip: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("turned", "half"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"HalfBody: got {name}={value}, expected a chance from 0 to 1")
            object.__setattr__(self, name, float(value))
        if self.half and not self.upper:
            raise ValueError(
                f"HalfBody: got half={self.half} without upper, expected the joints of the upper half; write "
                "upper=upper_joints(COCO17), or set half=0"
            )

    def __call__(
        self,
        images: Float[Tensor, "B 3 H W"],
        labels: Labels,
        visible: Bool[Tensor, "B J"],
        generator: torch.Generator,
    ) -> tuple[Tensor, Labels, Tensor]:
        """Augment a batch. Joints that leave the crop get weight 0 and are no longer visible."""
        height, width = images.shape[-2:]
        return self.cut(images, labels, visible, generator, (self.size or height, self.size or width))

    def cut(
        self,
        images: Float[Tensor, "B 3 H W"],
        labels: Labels,
        visible: Bool[Tensor, "B J"],
        generator: torch.Generator,
        out: tuple[int, int],
    ) -> tuple[Tensor, Labels, Tensor]:
        """As `__call__`, with crops of out = (H, W), which is also the whole body's rectangle in the canvas' middle."""
        height, width = images.shape[-2:]
        if self.pairs is None and self.flip > 0:
            raise ValueError(
                "HalfBody: got flip > 0 without pairs, expected the pairs of left and right joints; "
                "write augment.bind(skeleton.pairs), or set flip=0"
            )
        if out[0] > height or out[1] > width:
            raise ValueError(
                f"HalfBody: got images of {height} x {width} px, expected at least the crop of {out[0]} x {out[1]} px; "
                "lower size, or pack larger crops"
            )
        drawn = self.draw(len(images), generator)
        points = to_pixels(labels.coords[..., :2], (height, width))
        known = labels.weight[..., :2].amin(-1) > 0
        whole = Frame(points.new_tensor([(width - 1) / 2, (height - 1) / 2]), points.new_tensor([out[1], out[0]]))
        centre, sides = whole.centre.expand(len(images), 2), whole.sides.expand(len(images), 2)
        if self.half:
            found, fits = halves(points, known, self.upper, drawn.upper.to(known.device), out[1] / out[0])
            fits = (fits & drawn.halved.to(known.device) & (known.sum(-1) > self.labelled)).unsqueeze(-1)
            centre, sides = torch.where(fits, found.centre, centre), torch.where(fits, found.sides, sides)
        zoom, degrees = drawn.zoom.to(sides), drawn.degrees.to(sides)
        affine = crop_affine(centre, zoom.unsqueeze(-1) * sides, degrees)
        flips = drawn.flips.to(affine.device)
        # A mirrored crop is the same rectangle with its x axis reversed: pixels and points follow the one matrix.
        affine[..., 0] = torch.where(flips.unsqueeze(-1), -affine[..., 0], affine[..., 0])
        images = crop(images, affine.to(images), out)
        flat = apply_affine(invert_affine(affine), points)
        coords = torch.cat([flat, labels.coords[..., 2:]], -1)
        # NaN compares false: an unlabelled joint that holds NaN counts as outside, where its weight is 0 already.
        inside = (flat.abs() <= 1).all(-1)
        moved = (coords, labels.weight * inside.unsqueeze(-1), visible & inside)
        if self.pairs:
            swapped = [swap(value, self.pairs) for value in moved]
            which = [flips.view(-1, *[1] * (value.ndim - 1)) for value in moved]
            moved = tuple(torch.where(f, s, m) for f, s, m in zip(which, swapped, moved, strict=True))  # type: ignore[assignment]
        if self.colour:
            images = jitter(images, (1 + self.colour * drawn.colour).to(images))
        return images, Labels(moved[0], moved[1]), moved[2]

    def draw(self, count: int, generator: torch.Generator) -> Drawn:
        """The numbers of `count` crops; always seven uniform and two normal ones each, whatever is switched on."""
        uniform = torch.rand(count, 7, generator=generator, device=generator.device)
        normal = torch.randn(count, 2, generator=generator, device=generator.device)
        turns = (self.rotation * normal[:, 0]).clamp(-2 * self.rotation, 2 * self.rotation)
        return Drawn(
            uniform[:, 0] < self.flip,
            torch.where(uniform[:, 1] < self.turned, turns, 0),
            (1 + self.scale * normal[:, 1]).clamp(1 - self.scale, 1 + self.scale),
            uniform[:, 2] < self.half,
            uniform[:, 3] < (SLIP if self.slip else 0.5),
            2 * uniform[:, 4:] - 1,
        )


def halves(
    points: Float[Tensor, "B J 2"],
    known: Bool[Tensor, "B J"],
    upper: tuple[int, ...],
    first: Bool[Tensor, " B"],
    aspect: float,
) -> tuple[Frame, Bool[Tensor, " B"]]:
    """The rectangle of each person's upper or lower half, and whether there is one.

    points: index pixels; known: which are labelled. upper: see `HalfBody`. first: the upper half is wanted. aspect:
    width over height of the crop. About the mean of the half's joints, as large as the tight box about them, grown to
    the aspect, and WIDER. Where there is none the rectangle holds finite numbers without a meaning.
    """
    top = torch.zeros(points.shape[1], dtype=torch.bool, device=points.device)
    top[list(upper)] = True
    above, below = known & top, known & ~top
    many = above.sum(-1) > 2, below.sum(-1) > 2
    wanted = (first & many[0]) | ~many[1]
    chosen = torch.where(wanted.unsqueeze(-1), above, below)
    count, one = chosen.sum(-1), chosen.unsqueeze(-1)
    centre = torch.where(one, points, 0).sum(1) / count.clamp_min(1).unsqueeze(-1)
    low = torch.where(one, points, math.inf).amin(1)
    extent = torch.where(one, points, -math.inf).amax(1) - low
    fits = (count >= 2) & (extent.amax(-1) > 0)
    width, height = torch.where(fits.unsqueeze(-1), extent, 1).unbind(-1)
    sides = WIDER * torch.stack([torch.maximum(width, aspect * height), torch.maximum(height, width / aspect)], -1)
    return Frame(centre, sides), fits


__all__ = ["LOWER", "SLIP", "WIDER", "Drawn", "Frame", "HalfBody", "halves", "upper_joints"]
