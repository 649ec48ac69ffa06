"""Chapter 4: DSNT, the differentiable spatial to numerical transform of Nibali et al. (2018).

A heatmap is made a probability distribution and its mean is the prediction: nothing to train, differentiable, and as
fine as the numbers it is computed with. The transform itself is in `coordreg/expectation.py`, equations (4.1) to (4.4);
here is what is trained with it: (4.5) the distance, (4.6) to (4.8) regularisers, the method, and its rival FC.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from coordreg.coords import Labels, Pairs, Points, to_pixels
from coordreg.expectation import Softmax, expectation, full, moments, soft_argmax
from coordreg.method import Maps, Method, Vectors, Volumes

# -- the loss: a distance, equation (4.5) ------------------------------------------------------------------------------


class Part(NamedTuple):
    """One part of a loss. value: (B, J), each joint's; weight: (B, J), 0 where it must not count."""

    value: Tensor
    weight: Tensor

    @property
    def mean(self) -> Tensor:
        """The mean over joints that count; 0 if there is none."""
        total = torch.where(self.weight > 0, self.value * self.weight, 0).sum()
        return total / self.weight.sum().clamp_min(torch.finfo(self.weight.dtype).tiny)


def known(labels: Labels) -> Labels:
    """The labels with 0 in place of what is unlabelled, axis by axis.

    Raises ValueError for shapes that disagree and for a labelled coordinate that is not finite.
    """
    if labels.coords.ndim != 3 or labels.coords.shape != labels.weight.shape:
        raise ValueError(
            f"labels: got coords {tuple(labels.coords.shape)} and weight {tuple(labels.weight.shape)}, expected both "
            "(B, J, d); repeat a weight per joint with weight[..., None].expand_as(coords)"
        )
    coords = torch.where(labels.weight > 0, labels.coords, 0)
    if not bool(torch.isfinite(coords).all()):
        bad = (~torch.isfinite(coords)).nonzero()[0].tolist()
        raise ValueError(
            f"labels: image {bad[0]}, joint {bad[1]}, axis {'xyz'[bad[2]]} is not finite but has a weight above 0; "
            "give unlabelled axes the weight 0"
        )
    return Labels(coords, labels.weight)


def shares(weight: Float[Tensor, "B J d"]) -> tuple[Float[Tensor, "B J d"], Float[Tensor, "B J"]]:
    """Weights of axes as shares of the joint's largest, and that largest: the joint's own weight."""
    joint = weight.amax(-1)
    return weight / torch.where(joint > 0, joint, 1).unsqueeze(-1), joint


@dataclass(frozen=True)
class Euclidean:
    """The length of the error, equation (4.5): not squared, and with gradient 0 where the error is exactly 0."""

    def __call__(self, mean: Tensor, labels: Labels) -> Part:
        """Means (B, J, d) and labels -> Part; over the labelled axes of each joint."""
        share, joint = shares(labels.weight)
        squared = (mean - labels.coords).square().mul(share).sum(-1)
        zero = squared == 0  # NaN is not: a diverged network must not look perfect
        return Part(torch.where(zero, 0, torch.where(zero, 1, squared).sqrt()), joint)


@dataclass(frozen=True)
class Power:
    """The sum over labelled axes of |error|^power: 1 is the L1 of integral regression, 2 its L2."""

    power: int = 1

    def __post_init__(self) -> None:
        if self.power not in (1, 2):
            raise ValueError(f"Power: got power={self.power}, expected 1 (L1) or 2 (L2)")

    def __call__(self, mean: Tensor, labels: Labels) -> Part:
        """Means (B, J, d) and labels -> Part."""
        share, joint = shares(labels.weight)
        error = (mean - labels.coords).abs()
        return Part((error if self.power == 1 else error.square()).mul(share).sum(-1), joint)


# -- regularisers, section 5.1 -----------------------------------------------------------------------------------------

#: The smallest probability whose logarithm is taken, as in the published code; far below float16's smallest number.
EPS = 1e-24


def _cells(sigma: float, size: Sequence[int], p: Tensor) -> Tensor:
    """A width in cells as a length in normalised coordinates, x first."""
    return 2 * sigma / torch.tensor(list(size)[::-1], device=p.device, dtype=p.dtype)


@dataclass(frozen=True)
class Variance:
    """(Var_x - sigma^2)^2 + (Var_y - sigma^2)^2, equation (4.6). sigma: in heatmap cells.

    units: what the variance is measured in. "normalised" is the paper's, whose coefficient is 100; "cells" is the
    published code's. On a map of n cells the second is (n/2)^4 times the first.
    """

    sigma: float = 1.0
    units: str = "normalised"

    def __post_init__(self) -> None:
        check_width("Variance", self.sigma)
        if self.units not in ("normalised", "cells"):
            raise ValueError(f"Variance: got units={self.units!r}, expected 'normalised' or 'cells'")

    def __call__(self, maps: Tensor, p: Tensor, labels: Labels) -> Part:
        """Raw maps, probabilities and labels -> Part; the labels' places do not enter, their weights do."""
        size = p.shape[2:]
        _, variance = moments(p)
        unit = _cells(self.sigma if self.units == "normalised" else 1.0, size, p)
        if self.units == "normalised":
            value = (variance - unit.square()).square()
        else:
            value = (variance / unit.square() - self.sigma**2).square()
        return Part(value.sum(-1), labels.weight.amin(-1))


def check_width(name: str, sigma: float) -> None:
    """ValueError for a width that is not above 0."""
    if not sigma > 0:
        raise ValueError(f"{name}: got sigma={sigma}, expected a width above 0, in heatmap cells")


def log_gaussian(coords: Float[Tensor, "B J d"], size: Sequence[int], sigma: float) -> Float[Tensor, "B J *size"]:
    """Logarithm of a Gaussian about each joint that sums to 1 over the cells; at least log(1e-24)."""
    total: Tensor | None = None
    at = to_pixels(coords, size)
    for axis, n in enumerate(reversed(size)):
        square = (torch.arange(n, device=at.device, dtype=at.dtype) - at[..., axis : axis + 1]).square()
        line = F.log_softmax(-square / (2 * sigma**2), -1)
        line = line.view(*line.shape[:2], *(1,) * (len(size) - 1 - axis), n, *(1,) * axis)
        total = line if total is None else total + line
    assert total is not None
    return total.clamp_min(math.log(EPS))


@dataclass(frozen=True)
class KL:
    """Kullback-Leibler divergence of the map from a Gaussian about the label, equation (4.7). sigma: in cells."""

    sigma: float = 1.0

    def __post_init__(self) -> None:
        check_width("KL", self.sigma)

    def __call__(self, maps: Tensor, p: Tensor, labels: Labels) -> Part:
        """Raw maps, probabilities and labels -> Part."""
        log_q = log_gaussian(labels.coords.to(p.dtype), p.shape[2:], self.sigma)
        value = (p * (p.clamp_min(EPS).log() - log_q)).flatten(2).sum(-1)
        return Part(value, labels.weight.amin(-1))


@dataclass(frozen=True)
class JS:
    """Jensen-Shannon divergence of the map and a Gaussian about the label, equation (4.8): from 0 to ln 2.

    sigma: in cells; 1 with coefficient 1 is DSNTr of the paper.
    """

    sigma: float = 1.0

    def __post_init__(self) -> None:
        check_width("JS", self.sigma)

    def __call__(self, maps: Tensor, p: Tensor, labels: Labels) -> Part:
        """Raw maps, probabilities and labels -> Part."""
        log_q = log_gaussian(labels.coords.to(p.dtype), p.shape[2:], self.sigma)
        q = log_q.exp()
        log_m = (0.5 * (p + q)).clamp_min(EPS).log()
        value = 0.5 * (p * (p.clamp_min(EPS).log() - log_m) + q * (log_q - log_m))
        return Part(value.flatten(2).sum(-1), labels.weight.amin(-1))


# -- methods -----------------------------------------------------------------------------------------------------------


@runtime_checkable
class Regularises(Protocol):
    """A regulariser: raw maps, probabilities and labels (unlabelled axes at 0) -> Part."""

    def __call__(self, maps: Tensor, p: Tensor, labels: Labels) -> Part: ...


@dataclass(frozen=True)
class Mean:
    """The decoder of the family: the expectation. Score: the largest probability of a cell."""

    def __call__(self, p: Tensor) -> Points:
        """Probabilities (B, J, *size) -> Points."""
        return Points(expectation(p), p.flatten(2).amax(-1))


class DSNT(Method):
    """distance(E[x], y) + weight * R(map, y): `DSNT()` is DSNT, `DSNT(regulariser=JS(1))` is DSNTr.

    regulariser: None, or a value such as Variance, KL, JS. decoder: how a trained map is read, the mean; any decoder of
    chapter 2 in its place shows where the mode lies. dims: 2 reads maps, 3 volumes. Every part is a mean over the
    joints that it can judge: a divergence needs all axes of a joint, a distance takes the labelled ones.
    """

    def __init__(
        self,
        distance: Callable[[Tensor, Labels], Part] = Euclidean(),
        regulariser: Regularises | None = None,
        weight: float = 1.0,
        activation: Callable[[Tensor], Tensor] = Softmax(),
        decoder: Callable[[Tensor], Points] = Mean(),
        dims: int = 2,
    ) -> None:
        super().__init__()
        if dims not in (2, 3):
            raise ValueError(f"{type(self).__name__}: got dims={dims}, expected 2 (maps) or 3 (volumes)")
        self.reads = Maps if dims == 2 else Volumes
        self.distance, self.regulariser, self.weight = distance, regulariser, weight
        self.activation, self.decoder, self.dims, self.flip_shift = activation, decoder, dims, False

    def logits(self, output: Tensor) -> Tensor:
        """The head's output as the activation gets it."""
        return output

    def encode(self, labels: Labels, size: Sequence[int]) -> Tensor:
        """What a perfect map looks like to the regulariser: the Gaussian that divergences compare with."""
        sigma = getattr(self.regulariser, "sigma", 1.0)
        return log_gaussian(known(labels).coords, size, sigma).exp()

    def read(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Output -> probabilities and their means (B, J, d). Raises ValueError for a shape or values it cannot read."""
        if output.ndim != self.dims + 2:
            axes = "(B, J, H, W)" if self.dims == 2 else "(B, J, D, H, W)"
            raise ValueError(
                f"{type(self).__name__}: got an output of shape {tuple(output.shape)}, expected {axes} for "
                f"dims={self.dims}; use a head that makes {self.reads.__name__.lower()}, or dims={output.ndim - 2}"
            )
        z = self.logits(output)
        if isinstance(self.activation, Softmax):
            return soft_argmax(z)
        p = self.activation(z)
        return p, expectation(p)

    def parts(self, output: Tensor, labels: Labels) -> tuple[Tensor, Tensor | None]:
        """The two parts of the loss, each a mean over joints: the distance, and the regulariser or None."""
        p, mean = self.read(output)
        if mean.shape != labels.coords.shape:
            raise ValueError(
                f"{type(self).__name__}: got maps of shape {tuple(output.shape)}, whose points are "
                f"{tuple(mean.shape)}, for labels of shape {tuple(labels.coords.shape)}; the head's joints and axes "
                "and the data set's must agree"
            )
        labels = known(labels)
        distance = self.distance(mean, labels).mean
        return distance, None if self.regulariser is None else self.regulariser(output, p, labels).mean

    def loss(self, output: Tensor, labels: Labels) -> dict[str, Tensor]:
        """The parts "distance" and "regulariser", and their weighted sum."""
        distance, regulariser = self.parts(output, labels)
        if regulariser is None:
            return {"distance": distance, "loss": distance}
        return {"distance": distance, "regulariser": regulariser, "loss": distance + self.weight * regulariser}

    def decode(self, output: Tensor) -> Points:
        """Points by the decoder, from the probabilities (from the logits if the decoder has `reads_logits`).

        Raises ValueError for logits that are not finite.
        """
        p, mean = self.read(output)
        if not bool(torch.isfinite(mean).all()):
            bad = (~torch.isfinite(mean)).any(-1).nonzero()[0].tolist()
            raise ValueError(
                f"{type(self).__name__}: the map of image {bad[0]}, joint {bad[1]} holds NaN or infinity; the network "
                "diverged or its input was not finite"
            )
        return self.decoder(self.logits(output) if getattr(self.decoder, "reads_logits", False) else p)

    def unflip(self, output: Tensor, pairs: Pairs) -> Tensor:
        """Mirror the maps back; flip_shift moves them one column, the patch of chapter 2 for other conventions."""
        maps: Tensor = self.reads.unflip(output, pairs)
        return torch.cat([maps[..., :1], maps[..., :-1]], -1) if self.flip_shift else maps


class FullyConnected(nn.Module):
    """The baseline FC of section 6.2: softmax maps, then one linear layer from all their cells to all coordinates.

    maps: a head that makes maps (B, J, H, W). size: their (H, W), which the linear layer fixes for good. Output:
    (B, J, 2).
    """

    produces = Vectors

    def __init__(self, maps: nn.Module, joints: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.maps, self.joints, self.size = maps, joints, tuple(size)
        self.linear = nn.Linear(joints * size[0] * size[1], joints * 2)

    def forward(self, features: Tensor) -> Float[Tensor, "B J 2"]:
        """Features -> coordinates. Raises ValueError for maps of another size than at construction."""
        maps = self.maps(features)
        if tuple(maps.shape[2:]) != self.size:
            raise ValueError(
                f"FullyConnected: got maps of {tuple(maps.shape[2:])} cells, expected {self.size}; a linear layer "
                "works at one image size only"
            )
        return self.linear(Softmax()(maps).flatten(1).to(self.linear.weight.dtype)).unflatten(-1, (self.joints, 2))


class Regression(Method):
    """Coordinates straight from a layer that makes vectors: FC of the DSNT paper, R1 of integral regression."""

    reads = Vectors

    def __init__(self, distance: Callable[[Tensor, Labels], Part] = Euclidean()) -> None:
        super().__init__()
        self.distance, self.flip_shift = distance, False

    def encode(self, labels: Labels, size: Sequence[int]) -> Tensor:
        """The target is the label itself."""
        return known(labels).coords

    def loss(self, output: Tensor, labels: Labels) -> dict[str, Tensor]:
        """The mean distance over labelled joints."""
        if output.shape != labels.coords.shape:
            raise ValueError(
                f"Regression: got vectors of shape {tuple(output.shape)} for labels of shape "
                f"{tuple(labels.coords.shape)}; the head's joints and axes and the data set's must agree"
            )
        distance = self.distance(full(output), known(labels)).mean
        return {"distance": distance, "loss": distance}

    def decode(self, output: Tensor) -> Points:
        """The output itself; a regression gives no score, so that it is 1 everywhere."""
        output = full(output)
        return Points(output, output.new_ones(output.shape[:2]))
