"""Where is a pixel? The one file that knows where a pixel's centre lies (chapter 1).

Normalised coordinates run over [-1, 1] across the crop, and cell i of n has its centre at (2i + 1)/n - 1, whatever n
is. A coordinate therefore means the same place in the input image and in every heatmap made from it. Tensors use the
book's letters: B images, J joints, d coordinates in the order (x, y) or (x, y, z), H rows, W columns. "Index pixels"
number the pixels of a grid so that pixel i has its centre at i.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Pairs = Sequence[tuple[int, int]]


class Labels(NamedTuple):
    """What a loss needs: where the joints are and which axes of them are labelled.

    coords: (B, J, d) normalised; entries with weight 0 may hold anything, NaN included.
    weight: (B, J, d), 0 where the axis is not labelled, usually 1 where it is.
    """

    coords: Tensor
    weight: Tensor


class Points(NamedTuple):
    """What a method predicts. coords: (B, J, d) normalised; score: (B, J), comparable within one method only."""

    coords: Tensor
    score: Tensor


class Batch(NamedTuple):
    """What a data set delivers.

    images: (B, 3, H, W) in [0, 1]. labels: see Labels. visible: (B, J) bool, False where the joint is hidden.
    normaliser: (B,) the length errors are divided by (head size or torso), in index pixels of the source image.
    affine: (B, d, d + 1) from normalised crop coordinates to index pixels of the source image.
    hint: (B, d) normalised, what the data set gives at test time (the torso point), or None.
    """

    images: Tensor
    labels: Labels
    visible: Tensor
    normaliser: Tensor
    affine: Tensor
    hint: Tensor | None = None


@dataclass(frozen=True)
class Convention:
    """How a code turns index pixels c of an axis with n pixels into [-1, 1]: u = (2c + shift)/(n - trim) - 1."""

    name: str
    shift: float
    trim: int

    def normalise(self, pixel: Tensor, size: int | Tensor) -> Tensor:
        """Index pixels -> [-1, 1]."""
        return (2 * pixel + self.shift) / (size - self.trim) - 1

    def pixel(self, coord: Tensor, size: int | Tensor) -> Tensor:
        """[-1, 1] -> index pixels."""
        return ((coord + 1) * (size - self.trim) - self.shift) / 2


#: The book's convention and DSNT's; ``grid_sample(align_corners=False)``. Independent of the size of the grid.
CENTRE = Convention("centre", 1.0, 0)
#: HRNet, SimpleBaseline, integral regression, RLE: a heatmap pixel is an image pixel divided by the stride.
STRIDE = Convention("stride", 0.0, 0)
#: DarkPose, UDP, kornia; ``grid_sample(align_corners=True)``: the unit is the distance between the outermost centres.
UNIT = Convention("unit", 0.0, 1)


def centres(n: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Float[Tensor, " n"]:
    """Centres of the n cells of an axis in normalised coordinates: (2i + 1)/n - 1 (DSNT, section 4.1)."""
    if n < 1:
        raise ValueError(f"centres: got n={n}, expected at least one cell")
    return (2 * torch.arange(n, device=device, dtype=dtype or torch.get_default_dtype()) + 1) / n - 1


def _sizes(size: Sequence[int], coords: Tensor) -> Tensor:
    """(rows, columns) or (depth, rows, columns) -> a tensor in the order of the coordinates, x first."""
    if len(size) != coords.shape[-1]:
        raise ValueError(
            f"size {tuple(size)} has {len(size)} axes but the coordinates have {coords.shape[-1]}: "
            "give (H, W) for (x, y) and (D, H, W) for (x, y, z)"
        )
    return torch.tensor(list(size)[::-1], device=coords.device, dtype=coords.dtype)


def to_pixels(
    coords: Float[Tensor, "*batch d"], size: Sequence[int], convention: Convention = CENTRE
) -> Float[Tensor, "*batch d"]:
    """Normalised coordinates -> index pixels of a grid of `size` = (H, W) or (D, H, W)."""
    return convention.pixel(coords, _sizes(size, coords))


def from_pixels(
    pixels: Float[Tensor, "*batch d"], size: Sequence[int], convention: Convention = CENTRE
) -> Float[Tensor, "*batch d"]:
    """Index pixels of a grid of `size` = (H, W) or (D, H, W) -> normalised coordinates."""
    return convention.normalise(pixels, _sizes(size, pixels))


# -- crops ------------------------------------------------------------------------------------------------------------


def crop_affine(
    centre: Float[Tensor, "B 2"], side: Float[Tensor, "B 2"], degrees: Float[Tensor, " B"] | None = None
) -> Float[Tensor, "B 2 3"]:
    """The affine from normalised crop coordinates to index pixels of the image.

    centre, side: (B, 2) of the crop's rectangle as (x, y), (width, height) in index pixels; degrees: (B,) turns the
    rectangle clockwise as seen on the screen (the content of the crop turns the other way).
    """
    if bool((side <= 0).any()):
        raise ValueError(f"crop_affine: got a side of {float(side.min()):g} px, expected positive widths and heights")
    angle = torch.zeros_like(centre[:, 0]) if degrees is None else degrees * (math.pi / 180)
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    return torch.cat([turn * (side / 2).unsqueeze(-2), centre.unsqueeze(-1)], -1)


def apply_affine(affine: Float[Tensor, "B d e"], coords: Float[Tensor, "B J d"]) -> Float[Tensor, "B J d"]:
    """Apply (B, d, d + 1) matrices to (B, J, d) points."""
    return torch.einsum("bde,bje->bjd", affine[..., :-1], coords) + affine[..., -1].unsqueeze(1)


def invert_affine(affine: Float[Tensor, "B d e"]) -> Float[Tensor, "B d e"]:
    """The inverse of (B, d, d + 1) matrices: image -> crop where the argument goes crop -> image."""
    inverse = torch.linalg.inv(affine[..., :-1])
    return torch.cat([inverse, -inverse @ affine[..., -1:]], -1)


def crop(
    image: Float[Tensor, "B C H W"], affine: Float[Tensor, "B 2 3"], size: tuple[int, int], oversample: int = 1
) -> Float[Tensor, "B C h w"]:
    """Cut crops of `size` = (h, w) out of the images by bilinear sampling; zero (black) beyond the border.

    affine: normalised crop coordinates -> index pixels of the image, as `crop_affine` makes it. `oversample`: sample
    that many times finer and average down, against aliasing when the crop shrinks the image by about that factor.
    """
    height, width = image.shape[-2:]
    sizes = torch.tensor([width, height], device=image.device, dtype=affine.dtype)
    theta = affine * (2 / sizes).unsqueeze(-1)
    theta[..., 2] += 1 / sizes - 1
    shape = [len(image), 1, size[0] * oversample, size[1] * oversample]
    grid = F.affine_grid(theta.to(image.dtype), shape, align_corners=False)
    out = F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return F.avg_pool2d(out, oversample) if oversample > 1 else out


# -- flips ------------------------------------------------------------------------------------------------------------


def swap(x: Tensor, pairs: Pairs, dim: int = 1) -> Tensor:
    """Exchange left and right joints along `dim`."""
    joints = x.shape[dim]
    order = list(range(joints))
    for a, b in pairs:
        if not (0 <= a < joints and 0 <= b < joints):
            raise ValueError(f"swap: the pair ({a}, {b}) does not fit {joints} joints; give this skeleton's own pairs")
        order[a], order[b] = b, a
    return x.index_select(dim, torch.tensor(order, device=x.device))


def flip_coords(coords: Float[Tensor, "B J d"], pairs: Pairs) -> Float[Tensor, "B J d"]:
    """Mirror points left to right: x changes sign and left and right joints swap. Exact, with no shift to remember."""
    mirror = torch.ones(coords.shape[-1], device=coords.device, dtype=coords.dtype)
    mirror[0] = -1
    return swap(coords, pairs) * mirror


def flip_labels(labels: Labels, pairs: Pairs) -> Labels:
    """Mirror labels left to right; the weights travel with their joints."""
    return Labels(flip_coords(labels.coords, pairs), swap(labels.weight, pairs))


def flip_images(images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Mirror images left to right."""
    return images.flip(-1)
