"""Chapter 2, heatmap matching: targets, the losses H1 to H3, and how to read a point off a map.

A network gives one map a joint, (B, J, H, W). Training compares it with a target drawn from the label; testing takes
the cell of the maximum, perhaps moved by a quarter of a cell. Equation numbers are the chapter's.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from coordreg.coords import Labels, Pairs, Points, from_pixels, to_pixels
from coordreg.method import Maps, Method


class Target(NamedTuple):
    """maps: (B, J, H, W); weight: (B, J), 0 where a joint is unlabelled or its target does not touch the map."""

    maps: Tensor
    weight: Tensor


def labelled(labels: Labels) -> tuple[Float[Tensor, "B J d"], Float[Tensor, "B J"]]:
    """Coordinates with unlabelled joints put at 0, and one weight a joint: a map needs all axes of it.

    Raises ValueError for a NaN or infinite coordinate whose weight is not 0; where the weight is 0 anything is ignored.
    """
    if labels.coords.ndim != 3 or labels.coords.shape != labels.weight.shape:
        raise ValueError(
            f"labels: got coords {tuple(labels.coords.shape)} and weight {tuple(labels.weight.shape)}, expected both "
            "(B, J, d); repeat a weight per joint with weight[..., None].expand_as(coords)"
        )
    weight = labels.weight.amin(-1)
    known = weight > 0
    coords = torch.where(known.unsqueeze(-1), labels.coords, 0)
    if not bool(torch.isfinite(coords).all()):
        bad = (~torch.isfinite(coords)).any(-1).nonzero()[0].tolist()
        raise ValueError(
            f"labels: image {bad[0]}, joint {bad[1]} has a coordinate that is not finite but a weight above 0; "
            "give unlabelled joints the weight 0"
        )
    return coords, weight


# -- targets ----------------------------------------------------------------------------------------------------------


def _half_up(x: Tensor) -> Tensor:
    return torch.floor(x + 0.5)


def _int(x: Tensor) -> Tensor:
    return torch.trunc(x + 0.5)


#: What happens to a joint's position before its Gaussian is drawn. "int" is int(x + 0.5) of HRNet and SimpleBaseline,
#: which rounds half up but truncates towards zero left of the map's first centre.
ROUNDING: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "round": _half_up,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "int": _int,
}


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian about the joint, equation (2.2), drawn as an outer product of two 1-D Gaussians.

    sigma: in heatmap cells. rounding: see ROUNDING; "none" is DARK's unbiased encoding. cutoff: zero outside the square
    of 3 sigma, as the published codes draw it. normalise: sum 1 instead of peak 1.
    """

    sigma: float = 2.0
    rounding: str = "none"
    cutoff: bool = False
    normalise: bool = False

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise ValueError(f"Gaussian: got sigma={self.sigma}, expected a width above 0, in heatmap cells")
        if self.rounding not in ROUNDING:
            raise ValueError(f"Gaussian: got rounding={self.rounding!r}, expected one of {', '.join(ROUNDING)}")
        object.__setattr__(self, "sigma", float(self.sigma))  # 2 and 2.0 are one configuration with one hash

    def __call__(self, labels: Labels, size: Sequence[int]) -> Target:
        """Labels -> Target on a grid of `size` = (H, W)."""
        coords, weight = labelled(labels)
        mu = ROUNDING[self.rounding](to_pixels(coords, size))
        columns = self._axis(mu[..., 0], size[1])
        rows = self._axis(mu[..., 1], size[0])
        limits = torch.tensor([size[1] - 1, size[0] - 1], device=mu.device, dtype=mu.dtype)
        touches = ((mu >= -3 * self.sigma) & (mu <= limits + 3 * self.sigma)).all(-1)
        return Target(rows.unsqueeze(-1) * columns.unsqueeze(-2), weight * touches)

    def _axis(self, mu: Tensor, n: int) -> Tensor:
        distance = torch.arange(n, device=mu.device, dtype=mu.dtype) - mu.unsqueeze(-1)
        # exp(-4.5): the height at 3 sigma. 3e-19: products of smaller numbers are subnormal and double the time
        floor = 0.99999 * math.exp(-4.5) if self.cutoff else 3e-19
        g = F.threshold(torch.exp((distance.square() * (-0.5 / self.sigma**2)).clamp_min(-43)), floor, 0.0)
        if self.normalise:
            g = g / g.sum(-1, keepdim=True).clamp_min(torch.finfo(g.dtype).tiny)
        return g


@dataclass(frozen=True)
class OneHot:
    """1 in the cell that holds the joint and 0 elsewhere; a joint outside the map has weight 0 (H2)."""

    def __call__(self, labels: Labels, size: Sequence[int]) -> Target:
        """Labels -> Target on a grid of `size` = (H, W)."""
        coords, weight = labelled(labels)
        cell = _half_up(to_pixels(coords, size)).long()
        limits = torch.tensor([size[1], size[0]], device=cell.device)
        inside = ((cell >= 0) & (cell < limits)).all(-1)
        cell = torch.where(inside.unsqueeze(-1), cell, 0)
        flat = torch.zeros(*weight.shape, size[0] * size[1], device=coords.device, dtype=coords.dtype)
        flat.scatter_(-1, (cell[..., 1] * size[1] + cell[..., 0]).unsqueeze(-1), 1.0)
        return Target(flat.unflatten(-1, tuple(size)) * inside[..., None, None], weight * inside)


@dataclass(frozen=True)
class Disk:
    """1 in every cell whose centre lies within `radius` of the joint (H3).

    radius: as a share of the crop's width; the paper's 15 pixels of 256 by default (it does not say of which picture:
    we read input pixels).
    """

    radius: float = 15 / 256

    def __post_init__(self) -> None:
        if not 0 < self.radius < 1:
            raise ValueError(f"Disk: got radius={self.radius}, expected a share of the crop's width between 0 and 1")

    def __call__(self, labels: Labels, size: Sequence[int]) -> Target:
        """Labels -> Target on a grid of `size` = (H, W)."""
        coords, weight = labelled(labels)
        mu = to_pixels(coords, size)
        columns = torch.arange(size[1], device=mu.device, dtype=mu.dtype) - mu[..., :1]
        rows = torch.arange(size[0], device=mu.device, dtype=mu.dtype) - mu[..., 1:]
        squared = rows.square().unsqueeze(-1) + columns.square().unsqueeze(-2)
        maps = (squared <= (self.radius * size[1]) ** 2).to(mu.dtype)
        return Target(maps, weight * maps.flatten(-2).any(-1))


# -- losses -----------------------------------------------------------------------------------------------------------


def _full(maps: Tensor) -> Tensor:
    """Half precision -> float32: sums over thousands of cells need it."""
    return maps.float() if maps.dtype in (torch.float16, torch.bfloat16) else maps


@dataclass(frozen=True)
class MSE:
    """Mean squared error over the cells of a map, equation (2.3); with a Gaussian target the H1 of Sun et al."""

    def __call__(self, maps: Tensor, target: Tensor) -> Tensor:
        """(B, J, H, W) twice -> (B, J)."""
        return (_full(maps) - target).square().mean((-2, -1))

    def activate(self, maps: Tensor) -> Tensor:
        """What the map means at test time: itself."""
        return maps


@dataclass(frozen=True)
class SoftmaxCrossEntropy:
    """One choice among H x W cells, equation (2.5); with a one-hot target the H2 of Sun et al."""

    def __call__(self, maps: Tensor, target: Tensor) -> Tensor:
        """(B, J, H, W) twice -> (B, J)."""
        return -(target * F.log_softmax(_full(maps).flatten(-2), -1).view_as(target)).sum((-2, -1))

    def activate(self, maps: Tensor) -> Tensor:
        """What the map means at test time: the probability of each cell."""
        return F.softmax(_full(maps).flatten(-2), -1).view_as(maps)


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """H x W yes-or-no questions, equation (2.6); with a disk target the H3 of Sun et al."""

    def __call__(self, maps: Tensor, target: Tensor) -> Tensor:
        """(B, J, H, W) twice -> (B, J)."""
        return F.binary_cross_entropy_with_logits(_full(maps), target, reduction="none").mean((-2, -1))

    def activate(self, maps: Tensor) -> Tensor:
        """What the map means at test time: the probability that the joint is near each cell."""
        return _full(maps).sigmoid()


# -- decoders ---------------------------------------------------------------------------------------------------------


def peak(maps: Float[Tensor, "B J H W"]) -> tuple[Int[Tensor, "B J"], Float[Tensor, "B J"]]:
    """Index into the flattened map and value of the maximum; of equal maxima the first in row-major order."""
    flat = maps.detach().flatten(-2)
    if flat.device.type == "cpu" and flat.dtype == torch.float32:
        index = torch.from_numpy(flat.numpy().argmax(-1))  # several times faster than torch's on a CPU
    else:
        index = flat.argmax(-1)
    return index, flat.gather(-1, index.unsqueeze(-1)).squeeze(-1)


def _cell(index: Tensor, width: int) -> Tensor:
    return torch.stack([index % width, index // width], -1)


@dataclass(frozen=True)
class Argmax:
    """The centre of the cell with the largest value, equation (2.7).

    empty: what to do with a map whose maximum is not positive. "keep" reads it like any other; "origin" puts the joint
    into the first cell, as HRNet and SimpleBaseline do. The score is the maximum in both cases.
    """

    empty: str = "keep"

    def __post_init__(self) -> None:
        if self.empty not in ("keep", "origin"):
            raise ValueError(f"Argmax: got empty={self.empty!r}, expected 'keep' or 'origin'")

    def __call__(self, maps: Tensor) -> Points:
        """(B, J, H, W) -> Points."""
        index, score = peak(maps)
        if self.empty == "origin":
            index = torch.where(score > 0, index, 0)
        return Points(from_pixels(_cell(index, maps.shape[-1]).to(score.dtype), maps.shape[-2:]), score)


@lru_cache(maxsize=8)
def _around(size: tuple[int, ...], border: str, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(x, y) of each cell, (HW, 2), and its neighbours left, up, right and down, (HW, 4); itself where no move is."""
    index = torch.arange(size[0] * size[1], device=device)
    cell, first = _cell(index, size[1]), int(border == "published")
    inside = (cell > first) & (cell < torch.tensor([size[1] - 1, size[0] - 1], device=device))
    step = torch.tensor([1, size[1]], device=device) * (inside.all(-1, keepdim=True) if first else inside)
    return cell.to(dtype), torch.cat([index.unsqueeze(-1) - step, index.unsqueeze(-1) + step], -1)


@dataclass(frozen=True)
class QuarterSign:
    """A quarter cell along each axis, towards the larger neighbour, equation (2.10): the rule of the published codes.

    border: "inside" moves along an axis wherever both neighbours exist. "published" is HRNet's guard: no move at all
    unless 1 < x < W - 1 and 1 < y < H - 1, so that cells 0, 1 and the last stay put in both axes.
    """

    border: str = "inside"

    def __post_init__(self) -> None:
        if self.border not in ("inside", "published"):
            raise ValueError(f"QuarterSign: got border={self.border!r}, expected 'inside' or 'published'")

    def __call__(self, maps: Tensor) -> Points:
        """(B, J, H, W) -> Points."""
        index, score = peak(maps)
        dtype = torch.promote_types(maps.dtype, torch.get_default_dtype())  # of half maps float32
        cells, neighbours = _around(maps.shape[-2:], self.border, maps.device, dtype)
        before, after = maps.flatten(-2).gather(-1, F.embedding(index, neighbours)).chunk(2, -1)
        moved = torch.add(F.embedding(index, cells), (after - before).sign(), alpha=0.25)
        return Points(from_pixels(moved, maps.shape[-2:]), score)


@dataclass(frozen=True)
class QuarterSecond:
    """A quarter cell along the straight line to the second largest value, equation (2.9): the rule the papers print.

    The second maximum is sought in the whole map, wherever it lies; of equal values the first in row-major order.
    """

    def __call__(self, maps: Tensor) -> Points:
        """(B, J, H, W) -> Points."""
        width = maps.shape[-1]
        first, score = peak(maps)
        m = _cell(first, width).to(score.dtype)
        if maps.shape[-2] * width == 1:
            return Points(from_pixels(m, maps.shape[-2:]), score)
        rest = maps.detach().flatten(-2).clone().scatter_(-1, first.unsqueeze(-1), -torch.inf)
        second, _ = peak(rest.unflatten(-1, maps.shape[-2:]))
        step = _cell(second, width) - m
        return Points(from_pixels(m + 0.25 * step / step.norm(dim=-1, keepdim=True), maps.shape[-2:]), score)


# -- the method -------------------------------------------------------------------------------------------------------


@runtime_checkable
class Draws(Protocol):
    """A target: labels and a grid size -> Target."""

    def __call__(self, labels: Labels, size: Sequence[int]) -> Target: ...


@runtime_checkable
class Compares(Protocol):
    """A loss on maps, (B, J, H, W) twice -> (B, J), and what a map means at test time."""

    def __call__(self, maps: Tensor, target: Tensor) -> Tensor: ...
    def activate(self, maps: Tensor) -> Tensor: ...


class Heatmap(Method):
    """Heatmap matching: `Heatmap(Gaussian(sigma=2), MSE(), QuarterSign())`, or any other target, loss and decoder.

    flip_shift: in a flip test, move the mirrored map one column to the right before it is averaged. The codes whose
    heatmap pixel is the image pixel over the stride need this patch (chapter 1); ours does not.
    """

    reads = Maps

    def __init__(
        self, target: Draws, loss: Compares, decoder: Callable[[Tensor], Points], flip_shift: bool = False
    ) -> None:
        super().__init__()
        self.target, self.compare, self.decoder, self.flip_shift = target, loss, decoder, flip_shift

    def encode(self, labels: Labels, size: Sequence[int]) -> Target:
        """The target maps on a grid of `size` = (H, W)."""
        return self.target(labels, size)

    def loss(self, output: Tensor, labels: Labels) -> dict[str, Tensor]:
        """The mean over all labelled joints of the batch; 0 if there is none."""
        if output.ndim != 4 or output.shape[:2] != labels.coords.shape[:2]:
            b, j = labels.coords.shape[:2]
            raise ValueError(
                f"Heatmap: got maps of shape {tuple(output.shape)} for labels of {b} images and {j} joints, expected "
                f"({b}, {j}, H, W); the head's number of joints and the data set's must agree"
            )
        target = self.encode(labels, output.shape[-2:])
        each = self.compare(output, target.maps)
        loss = torch.where(target.weight > 0, each, 0).mul(target.weight).sum()
        loss = loss / target.weight.sum().clamp_min(torch.finfo(target.weight.dtype).tiny)
        return {"heatmap": loss, "loss": loss}

    def decode(self, output: Tensor) -> Points:
        """Points by the decoder, from the maps as the loss means them."""
        if output.ndim != 4:
            raise ValueError(f"Heatmap: got an output of shape {tuple(output.shape)}, expected maps (B, J, H, W)")
        return self.decoder(self.compare.activate(_full(output)))

    def unflip(self, output: Any, pairs: Pairs) -> Tensor:
        """Mirror the maps back, with the one-column shift if asked for; the first column is then kept twice."""
        maps = Maps.unflip(output, pairs)
        return torch.cat([maps[..., :1], maps[..., :-1]], -1) if self.flip_shift else maps
