"""Chapter 5: integral regression of Sun et al. (2018), in two and three dimensions.

The same expectation as DSNT's, and the same family of losses: dist(E[x], y) + weight * R. Six rows of the paper are six
values of R. The chapter's equations in order: (5.1) the integral over a volume, (5.2) heat maps as regularisers, (5.3)
and (5.4) the two steps through marginals, (5.5) the bias of a flat background and its removal.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from coordreg.backbones.resnet import head
from coordreg.coords import Labels, Points, from_pixels, to_pixels
from coordreg.dsnt import DSNT, EPS, Mean, Part, Power, Regularises, check_width, shares
from coordreg.expectation import Softmax, expectation, full, marginals
from coordreg.heatmap import Compares, Draws, Target, labelled, peak
from coordreg.method import Vectors, Volumes

# -- heads -------------------------------------------------------------------------------------------------------------


class VolumeHead(nn.Module):
    """SimpleBaseline's head with `bins` maps a joint: (B, channels, h, w) -> volumes (B, J, D, H, W), equation (5.1).

    The channels of the last convolution are joint-major: first all depths of joint 0. widths: of the upsamplings.
    """

    produces = Volumes

    def __init__(self, channels: int, joints: int, bins: int, widths: Sequence[int] = (256, 256, 256)) -> None:
        super().__init__()
        if bins < 1:
            raise ValueError(f"VolumeHead: got bins={bins}, expected at least one cell in depth")
        self.joints, self.bins = joints, bins
        self.maps = head(channels, joints * bins, widths)

    def forward(self, features: Tensor) -> Float[Tensor, "B J D H W"]:
        """Features -> volumes."""
        volume: Tensor = self.maps(features).unflatten(1, (self.joints, self.bins))
        return volume


class PooledHead(nn.Module):
    """R1: average pooling, then one linear layer to all coordinates (B, J, dims)."""

    produces = Vectors

    def __init__(self, channels: int, joints: int, dims: int = 2) -> None:
        super().__init__()
        self.joints, self.dims = joints, dims
        self.linear = nn.Linear(channels, joints * dims)

    def forward(self, features: Tensor) -> Float[Tensor, "B J d"]:
        """Features -> coordinates."""
        return self.linear(features.mean((-2, -1))).unflatten(-1, (self.joints, self.dims))


# -- targets in any number of dimensions ------------------------------------------------------------------------------


def gaussian_lines(coords: Float[Tensor, "B J d"], size: Sequence[int], sigma: float) -> list[Float[Tensor, "B J n"]]:
    """exp(-d^2 / 2 sigma^2) along each axis, x first; sigma in cells. Their outer product is a Gaussian of peak 1."""
    at = to_pixels(coords, size)
    lines = []
    for axis, n in enumerate(reversed(size)):
        square = (torch.arange(n, device=at.device, dtype=at.dtype) - at[..., axis : axis + 1]).square()
        lines.append(torch.exp((square * (-0.5 / sigma**2)).clamp_min(-28)))  # products of three stay normal numbers
    return lines


def outer(lines: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
    """Lines (B, J, W), (B, J, H), (B, J, D) -> their product (B, J, D, H, W); written into `out` if given."""
    total = lines[-1]
    for i, line in enumerate(reversed(lines[:-1]), 1):  # x last, so that the inner loop reads one short row and writes
        line = line.view(*line.shape[:2], *(1,) * i, -1)
        last = i == len(lines) - 1
        total = (
            torch.mul(total.unsqueeze(-1), line, out=out) if last and out is not None else total.unsqueeze(-1) * line
        )
    return total


def _touching(coords: Tensor, size: Sequence[int], reach: float) -> Tensor:
    at = to_pixels(coords, size)
    limits = torch.tensor(list(size)[::-1], device=at.device, dtype=at.dtype) - 1
    return (at >= -reach) & (at <= limits + reach)


@dataclass(frozen=True)
class GaussianVolume:
    """A Gaussian of peak 1 about the joint in a volume: the target of H1 in three dimensions. sigma: in cells."""

    sigma: float = 1.0

    def __post_init__(self) -> None:
        check_width("GaussianVolume", self.sigma)

    def __call__(self, labels: Labels, size: Sequence[int]) -> Target:
        """Labels (B, J, 3) -> Target on a grid of `size` = (D, H, W)."""
        coords, weight = labelled(labels)
        maps = outer(gaussian_lines(coords, size, self.sigma))
        return Target(maps, weight * _touching(coords, size, 3 * self.sigma).all(-1))


@dataclass(frozen=True)
class OneHotVolume:
    """1 in the cell that holds the joint: the target of H2 in three dimensions. A joint outside has weight 0."""

    def __call__(self, labels: Labels, size: Sequence[int]) -> Target:
        """Labels (B, J, 3) -> Target on a grid of `size` = (D, H, W)."""
        coords, weight = labelled(labels)
        cell, held = _cell(coords, size)
        inside = held.all(-1)
        lines = [F.one_hot(cell[..., axis], n).to(coords.dtype) for axis, n in enumerate(reversed(size))]
        return Target(outer(lines) * inside.view(*inside.shape, *(1,) * len(size)), weight * inside)


def _cell(coords: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The cell that holds each coordinate, x first, and whether there is one; 0 where it lies outside the grid."""
    cell = torch.floor(to_pixels(coords, size) + 0.5).long()
    held = (cell >= 0) & (cell < torch.tensor(list(size)[::-1], device=cell.device))
    return torch.where(held, cell, 0), held


# -- heat-map losses as regularisers, equation (5.2) -------------------------------------------------------------------


def _tall(volume: Tensor) -> Tensor:
    """A volume (B, J, D, H, W) as one tall map (B, J, D H, W): the losses of chapter 2 work on it as they are."""
    return volume if volume.ndim == 4 else volume.flatten(2, 3)


@dataclass(frozen=True)
class Matching:
    """R: a loss of chapter 2 between the raw map and a target. I1, I2, I3 are `Integral(Matching(...))`.

    target, compare: as in `Heatmap`, such as Gaussian(1), MSE(); in a volume GaussianVolume(1), OneHotVolume(). A joint
    counts only where all its axes are labelled.
    """

    target: Draws
    compare: Compares

    def __call__(self, maps: Tensor, p: Tensor, labels: Labels) -> Part:
        """Raw maps, probabilities and labels -> Part."""
        target = self.target(labels, maps.shape[2:])
        return Part(self.compare(_tall(maps), _tall(target.maps)), target.weight)


@dataclass(frozen=True)
class MarginalGaussian:
    """R in two steps, equation (5.4): squared distance between each marginal and a 1-D Gaussian that sums to 1.

    The axes are judged one by one, so that a joint labelled in the image plane alone supervises x and y of a volume.
    """

    sigma: float = 1.0

    def __post_init__(self) -> None:
        check_width("MarginalGaussian", self.sigma)

    def __call__(self, maps: Tensor, p: Tensor, labels: Labels) -> Part:
        """Raw maps, probabilities and labels -> Part."""
        size = p.shape[2:]
        lines = gaussian_lines(labels.coords.to(p.dtype), size, self.sigma)
        pairs = zip(marginals(p), lines, strict=True)
        each = torch.stack([(m - line / line.sum(-1, keepdim=True)).square().sum(-1) for m, line in pairs], -1)
        share, joint = shares(labels.weight * _touching(labels.coords, size, 3 * self.sigma))
        return Part((each * share).sum(-1), joint)


@dataclass(frozen=True)
class MarginalOneHot:
    """R in two steps with H2's loss: minus the logarithm of each marginal at the joint's cell, axis by axis.

    A marginal below 1e-24 at that cell passes no gradient.
    """

    def __call__(self, maps: Tensor, p: Tensor, labels: Labels) -> Part:
        """Raw maps, probabilities and labels -> Part."""
        size = p.shape[2:]
        cell, held = _cell(labels.coords, size)
        at = [m.gather(-1, cell[..., axis : axis + 1]) for axis, m in enumerate(marginals(p))]
        share, joint = shares(labels.weight * held)
        return Part((-torch.cat(at, -1).clamp_min(EPS).log() * share).sum(-1), joint)


# -- decoders ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VolumeArgmax:
    """The centre of the cell with the largest value, in a map or a volume: how H1 and H2 are read."""

    def __call__(self, p: Tensor) -> Points:
        """(B, J, *size) -> Points."""
        size = p.shape[2:]
        index, score = peak(p.flatten(2).unsqueeze(2))
        cell = torch.stack(torch.unravel_index(index, size)[::-1], -1)
        return Points(from_pixels(cell.to(p.dtype), size), score)


@dataclass(frozen=True)
class MarginalArgmax:
    """The largest cell of each marginal, axis by axis: how H1 and H2 are read when they were trained in two steps."""

    def __call__(self, p: Tensor) -> Points:
        """(B, J, *size) -> Points."""
        best = [marginal.max(-1) for marginal in marginals(p)]
        cell = torch.stack([b.indices for b in best], -1).to(p.dtype)
        return Points(from_pixels(cell, p.shape[2:]), torch.stack([b.values for b in best], -1).amin(-1))


@dataclass(frozen=True)
class Debiased:
    """The expectation without the share that a flat background pulls to the middle, equation (5.5) (Gu et al. 2021).

    N cells at the background's logit hold the share N / C of the mass, C = sum exp(z - background); their mean is the
    middle, 0, so that the rest has the mean mu C / (C - N). background: the logit counted as nothing, "zero" as in the
    paper, or "median", the map's own: softmax does not change if all logits do, so that 0 means nothing by itself.
    """

    background: str = "zero"
    reads_logits = True

    def __post_init__(self) -> None:
        if self.background not in ("zero", "median"):
            raise ValueError(f"Debiased: got background={self.background!r}, expected 'zero' or 'median'")

    def __call__(self, z: Tensor) -> Points:
        """Logits (B, J, *size) -> Points; a map that is background to 99.9% is read as it is."""
        p = Softmax()(z)
        flat = z.to(p.dtype).flatten(2)
        if self.background == "median":
            flat = flat - flat.median(-1, keepdim=True).values
        share = (math.log(flat.shape[-1]) - flat.logsumexp(-1, keepdim=True)).exp()
        factor = torch.where(share < 0.999, 1 / (1 - share.clamp_max(0.999)), 1)
        return Points((expectation(p) * factor).clamp(-1, 1), p.flatten(2).amax(-1))


# -- methods -----------------------------------------------------------------------------------------------------------


class Integral(DSNT):
    """I*, I1, I2, I3: L1 distance of the expectation, with or without a heat-map loss.

    regulariser: None is I*; Matching(...) is I1 to I3, Marginal... their two-step form. pretrain: 0 minimises both
    losses from the first step; k > 0 is the paper's way: the heat-map loss alone for k training steps, then the
    distance alone. calls: how often one training step asks for the loss, the number of stages behind `Staged`.
    sharpness: the number, learnt from this value on, that multiplies the maps before the softmax; a map
    trained by squared error has its peak at 1, which softmax would flatten.
    """

    seen: Tensor

    def __init__(
        self,
        regulariser: Regularises | None = None,
        weight: float = 1.0,
        distance: Callable[[Tensor, Labels], Part] = Power(1),
        pretrain: int = 0,
        calls: int = 1,
        sharpness: float = 1.0,
        decoder: Callable[[Tensor], Points] = Mean(),
        dims: int = 2,
    ) -> None:
        super().__init__(distance, regulariser, weight, Softmax(), decoder, dims)
        if pretrain < 0 or (pretrain and regulariser is None):
            raise ValueError(
                f"Integral: got pretrain={pretrain} and regulariser={regulariser}, expected 0 or more steps, and a "
                "heat-map loss to pre-train with"
            )
        if not sharpness > 0:
            raise ValueError(f"Integral: got sharpness={sharpness}, expected a number above 0")
        if calls < 1:
            raise ValueError(f"Integral: got calls={calls}, expected at least 1, the number of stages")
        self.pretrain, self.calls = pretrain, calls
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(sharpness)))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def logits(self, output: Tensor) -> Tensor:
        """The maps, sharpened."""
        return full(output) * self.log_sharpness.exp()

    def loss(self, output: Tensor, labels: Labels) -> dict[str, Tensor]:
        """The parts "distance" and "regulariser", and "loss" by the phase that the training is in."""
        distance, regulariser = self.parts(output, labels)
        if regulariser is None:
            return {"distance": distance, "loss": distance}
        found = {"distance": distance, "regulariser": regulariser}
        if not self.pretrain:
            return {**found, "loss": distance + self.weight * regulariser}
        loss = torch.where(self.seen < self.pretrain * self.calls, self.weight * regulariser, distance)
        if self.training:
            self.seen += 1
        return {**found, "loss": loss}


class VolumeHeatmap(DSNT):
    """Heatmap matching in a volume, H1 and H2 of table 7: the family without the distance, read by an arg max.

    regulariser: Matching(...) with VolumeArgmax(), or a Marginal... loss with MarginalArgmax() for mixed labels.
    """

    def __init__(self, regulariser: Regularises, decoder: Callable[[Tensor], Points] = VolumeArgmax()) -> None:
        super().__init__(Power(1), regulariser, 1.0, Softmax(), decoder, dims=3)

    def loss(self, output: Tensor, labels: Labels) -> dict[str, Tensor]:
        """The heat-map loss alone."""
        _, regulariser = self.parts(output, labels)
        assert regulariser is not None
        return {"heatmap": regulariser, "loss": regulariser}


def two_step(p: Float[Tensor, "B J *size"]) -> Float[Tensor, "B J d"]:
    """The expectation in two steps, equations (5.3) and (5.4): marginals, then the mean of each. Equal to one step."""
    return torch.cat([expectation(marginal) for marginal in marginals(p)], -1)
