"""Random mirror, rotation, zoom and colour for a batch of crops and its labels.

The numbers that describe a crop's fate come from the generator, one row an image, whatever is switched on: a run that
seeds the generator by its step resumes bit for bit, and switching the colour on leaves the geometry as it was.

Points go through torchvision's `tv_tensors.KeyPoints`, pixels through one batched bilinear sampling (the sampling of
torchvision's `affine`, which takes one matrix for all images of a batch and would need a loop). Careful with
torchvision's own convention: its `affine`, `rotate` and `resize` of key points count from the edge of the first pixel,
its `horizontal_flip` counts from that pixel's centre. Mixed up, joints and picture part by up to half a pixel.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as tv

from coordreg.coords import Labels, Pairs, crop, crop_affine, flip_coords, flip_images, flip_labels, swap


@dataclass(frozen=True)
class Augment:
    """What may happen to a crop; called as the protocol `Augment` of `data.store` says.

    flip: chance of a mirror, with left and right joints exchanged. rotation: degrees, uniform in +-rotation.
    scale: the crop's side is multiplied by a number uniform in 1 +- scale. colour: brightness, contrast and saturation
    are each multiplied by a number uniform in 1 +- colour. pairs: left and right joints; a data set fills it in.
    size: side of the square cut out of the middle of the images, in their pixels; None keeps their size. Data sets
    that deliver larger crops fill it in too, so that a turned or widened crop finds picture in its corners.
    """

    flip: float | int = 0.5
    rotation: float | int = 0.0
    scale: float | int = 0.0
    colour: float | int = 0.0
    pairs: tuple[tuple[int, int], ...] | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        for name, top in (("flip", 1), ("rotation", 180), ("scale", 0.99), ("colour", 1)):
            value = getattr(self, name)
            if not 0 <= value <= top:
                raise ValueError(f"Augment: got {name}={value}, expected a number from 0 to {top}")
            object.__setattr__(self, name, float(value))  # 30 and 30.0 are one configuration with one hash
        if self.size is not None and self.size < 1:
            raise ValueError(f"Augment: got size={self.size}, expected at least one pixel")

    def bind(self, pairs: Pairs, size: int | None = None) -> "Augment":
        """The same augmentation with `pairs` and `size` filled in where they were left open."""
        own = tuple((int(a), int(b)) for a, b in pairs)
        return replace(
            self,
            pairs=own if self.pairs is None else self.pairs,
            size=size if self.size is None else self.size,
        )

    def __call__(
        self,
        images: Float[Tensor, "B 3 H W"],
        labels: Labels,
        visible: Bool[Tensor, "B J"],
        generator: torch.Generator,
    ) -> tuple[Tensor, Labels, Tensor]:
        """Augment a batch. Joints that leave the crop get weight 0 and are no longer visible."""
        if self.pairs is None and self.flip > 0:
            raise ValueError(
                "Augment: got flip > 0 without pairs, expected the pairs of left and right joints; "
                "write augment.bind(skeleton.pairs), or set flip=0"
            )
        drawn = torch.rand(len(images), 6, generator=generator, device=generator.device)
        flips = (drawn[:, 0] < self.flip).to(images.device)
        spread = 2 * drawn - 1
        if self.rotation or self.scale or self.size is not None:
            degrees, zoom = spread[:, 1] * self.rotation, 1 + spread[:, 2] * self.scale
            images, labels, visible = turn(images, labels, visible, flips, degrees, zoom, self.pairs or (), self.size)
        elif self.flip > 0:
            images, labels, visible = mirror(images, labels, visible, flips, self.pairs or ())
        if self.colour:
            images = jitter(images, (1 + self.colour * spread[:, 3:]).to(images.device))
        return images, labels, visible


def mirror(
    images: Float[Tensor, "B C H W"],
    labels: Labels,
    visible: Bool[Tensor, "B J"],
    flips: Bool[Tensor, " B"],
    pairs: Pairs,
) -> tuple[Tensor, Labels, Tensor]:
    """Mirror the images of a batch for which `flips` is true, their labels with them."""
    one = flips.view(-1, 1, 1)
    flipped = flip_labels(labels, pairs)
    coords = torch.where(one, flipped.coords, labels.coords)
    weight = torch.where(one, flipped.weight, labels.weight)
    visible = torch.where(flips.view(-1, 1), swap(visible, pairs), visible)
    return torch.where(one.unsqueeze(-1), flip_images(images), images), Labels(coords, weight), visible


def turn(
    images: Float[Tensor, "B C H W"],
    labels: Labels,
    visible: Bool[Tensor, "B J"],
    flips: Bool[Tensor, " B"],
    degrees: Float[Tensor, " B"],
    zoom: Float[Tensor, " B"],
    pairs: Pairs,
    size: int | None = None,
) -> tuple[Tensor, Labels, Tensor]:
    """Cut a turned and widened square out of the middle of every image, then mirror where `flips` is true.

    degrees: the square turns clockwise on the screen, its content the other way. zoom: side of the square over `size`.
    size: pixels a side of what comes back; None: the images' own height and width. Depth (d = 3) is left alone.
    """
    height, width = images.shape[-2:]
    out = (height, width) if size is None else (size, size)
    if max(out[0] - height, out[1] - width) > 0:
        raise ValueError(
            f"Augment: got images of {height} x {width} px, expected at least the crop of {out[0]} x {out[1]} px; "
            "lower size, or pack larger crops"
        )
    middle = torch.tensor([(width - 1) / 2, (height - 1) / 2]).expand(len(images), 2)
    sides = zoom.cpu().unsqueeze(-1) * torch.tensor([out[1], out[0]])
    affine = crop_affine(middle, sides, degrees.cpu()).to(images)
    # A mirrored crop is the same square with its x axis reversed: no second pass over the pixels.
    affine[..., 0] = torch.where(flips.unsqueeze(-1), -affine[..., 0], affine[..., 0])
    images = crop(images, affine, out)

    coords, weight = labels
    points = _turn_points(coords[..., :2].cpu(), (height, width), out, degrees.tolist(), zoom.tolist())
    coords = torch.cat([points.to(coords), coords[..., 2:]], -1)
    coords = torch.where(flips.view(-1, 1, 1), flip_coords(coords, pairs), coords)
    weight = torch.where(flips.view(-1, 1, 1), swap(weight, pairs), weight)
    visible = torch.where(flips.view(-1, 1), swap(visible, pairs), visible)
    # NaN compares false: an unlabelled joint that holds NaN counts as outside, where its weight is 0 already.
    inside = (coords[..., :2].abs() <= 1).all(-1)
    return images, Labels(coords, weight * inside.unsqueeze(-1)), visible & inside


def _turn_points(
    coords: Tensor, canvas: tuple[int, int], out: tuple[int, int], degrees: list[float], zoom: list[float]
) -> Tensor:
    """Normalised (B, J, 2) in the whole images -> normalised in their turned squares, by way of KeyPoints."""
    whole = torch.tensor(canvas[::-1], dtype=coords.dtype)
    part = torch.tensor(out[::-1], dtype=coords.dtype)
    edges = (coords + 1) * (whole / 2)  # 0 is the left edge of the first pixel, as torchvision's affine has it
    turned = [
        tv.affine(
            tv_tensors.KeyPoints(points, canvas_size=canvas),
            angle=-angle,
            translate=[0.0, 0.0],
            scale=1 / side,
            shear=[0.0, 0.0],
        ).as_subclass(Tensor)
        for points, angle, side in zip(edges, degrees, zoom, strict=True)
    ]
    return (torch.stack(turned) - whole / 2) * (2 / part)


def jitter(images: Float[Tensor, "B 3 H W"], factors: Float[Tensor, "B 3"]) -> Float[Tensor, "B 3 H W"]:
    """Multiply each image's brightness, contrast and saturation, in this order, by its three factors; clamp to [0, 1].

    The definitions are torchvision's: contrast about the mean of the grey picture, saturation about the grey picture.
    """
    brightness, contrast, saturation = (f.view(-1, 1, 1, 1) for f in factors.to(images.dtype).unbind(-1))
    weights = torch.tensor([0.2989, 0.587, 0.114], device=images.device, dtype=images.dtype).view(1, 3, 1, 1)
    images = (images * brightness).clamp(0, 1)
    mean = (images * weights).sum(1, keepdim=True).mean((-2, -1), keepdim=True)
    images = (mean + contrast * (images - mean)).clamp(0, 1)
    grey = (images * weights).sum(1, keepdim=True)
    return (grey + saturation * (images - grey)).clamp(0, 1)
