"""Chapter 7: regression as maximum likelihood, after residual log-likelihood estimation (RLE, Li 2021).

A network that gives a point and a width for each axis gives a density, and learns by making the labels likely: (7.7)
the loss, (7.8) to (7.10) scores; (7.1) to (7.6), what the residual is distributed like, are in `coordreg/flow.py`.
Widths are lengths in normalised coordinates, 2 being the side of the crop; published ones are shares of that side.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from coordreg.coords import Labels, Points
from coordreg.dsnt import Part, known, shares
from coordreg.expectation import full
from coordreg.flow import Base, Laplace, Mixed, RealNVP, log_s
from coordreg.method import Method, Vectors
from coordreg.spec import Spec, spec

#: In the loss log s counts up to this for each axis. (7.6) gives at least ln 2 with the Laplace base and 1.34 where the
#: flow is normal. A sum over a grid can be driven to 0, and the loss to minus infinity, by a flow that moves its mass
#: between the nodes or beyond them; small networks do.
LIMIT = 2.0

# -- the loss ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Terms:
    """What the loss counts, and how often. `Terms()` is the derivation, (7.7), each term once.

    widths: how often log sigma counts on an axis. per_axis: the flow's log-density once a joint, or once for each of
    its axes. constant: whether log s counts, up to LIMIT an axis; nodes: see `log_s`. sign: 1 for (7.1), -1 for its
    mirror image. average: over "labelled" joints, a sum over the joints divided by the number of "images", or by that
    of "all" joints.
    """

    base: Base = field(default_factory=Laplace)
    widths: int = 1
    per_axis: bool = False
    constant: bool = True
    sign: int = 1
    average: str = "labelled"
    nodes: int = 256

    def __post_init__(self) -> None:
        if self.average not in ("labelled", "images", "all"):
            raise ValueError(f"Terms: got average={self.average!r}, expected 'labelled', 'images' or 'all'")
        if self.sign not in (1, -1):
            raise ValueError(f"Terms: got sign={self.sign}, expected 1, (y - mu) / sigma, or -1, (mu - y) / sigma")

    def reduce(self, part: Part) -> Tensor:
        """A part of the loss as one number."""
        if self.average == "labelled":
            return part.mean
        total = torch.where(part.weight > 0, part.value * part.weight, 0).sum()
        return total / max(1, len(part.value) if self.average == "images" else part.value.numel())


#: RLE's release: log sigma and the flow count twice in two dimensions, s not at all; a sum over the joints.
RLE_RELEASE = Terms(Mixed(), widths=2, per_axis=True, constant=False, sign=-1, average="images")
#: Poseur's release: the same terms, a mean over all joints, labelled or not; its flow has prior=0.5 beside.
POSEUR_RELEASE = Terms(Mixed(), widths=2, per_axis=True, constant=False, sign=-1, average="all")


def log_likelihood(
    coords: Float[Tensor, "*batch d"],
    mean: Float[Tensor, "*batch d"],
    width: Float[Tensor, "*batch d"],
    flow: RealNVP | None = None,
    terms: Terms = Terms(),
    nodes: int = 10_000,
) -> Float[Tensor, "*batch"]:
    """The logarithm of the density at `coords`, (7.6): of `terms` only the base and the sign, all terms once.

    In normalised coordinates; it integrates to 1, so that models with different losses can be compared by it. nodes:
    for s, without a limit; more than in training.
    """
    e = terms.sign * (coords - mean) / width
    found = (terms.base(e) - width.log()).sum(-1)
    if flow is None:
        return found - mean.shape[-1] * math.log(terms.base.mass)
    return found + flow.log_prob(e) + log_s(terms.base, flow, nodes)


# -- scores: how a density becomes one number between 0 and 1 ----------------------------------------------------------


@runtime_checkable
class Score(Protocol):
    """A decoder of densities: means and widths (B, J, d), normalised -> Points."""

    def __call__(self, mean: Tensor, width: Tensor) -> Points: ...


@dataclass(frozen=True)
class Sharpness:
    """RLE's score, equation (7.8): 1 minus the mean width over the axes, as a share of the crop's side."""

    def __call__(self, mean: Tensor, width: Tensor) -> Points:
        """Means and widths (B, J, d) -> Points."""
        return Points(mean, 1 - width.mean(-1) / 2)


def keypoint_score(width: Float[Tensor, "B J d"], a: float = 0.2) -> Float[Tensor, "B J"]:
    """Poseur's equation 8, (7.9): the probability of a Laplace density within a of its centre, axis times axis.

    width: its scale b in normalised coordinates. a: a share of the crop's side, as b is in the paper.
    """
    return (-torch.expm1(-2 * a / width)).prod(-1)


@dataclass(frozen=True)
class Within:
    """Poseur's keypoint score (7.9). factor: 1, or the release's 0.7, which multiplies every score."""

    a: float = 0.2
    factor: float = 1.0

    def __post_init__(self) -> None:
        if not (self.a > 0 and self.factor > 0):
            raise ValueError(f"Within: got a={self.a}, factor={self.factor}, expected both above 0")

    def __call__(self, mean: Tensor, width: Tensor) -> Points:
        """Means and widths (B, J, d) -> Points."""
        return Points(mean, self.factor * keypoint_score(width, self.a))


@dataclass(frozen=True)
class Unscored:
    """No score: 1 for every joint."""

    def __call__(self, mean: Tensor, width: Tensor) -> Points:
        """Means and widths (B, J, d) -> Points."""
        return Points(mean, torch.ones_like(mean[..., 0]))


def instance_score(
    scores: Float[Tensor, "N J"], box: Float[Tensor, " N"], rule: str = "product"
) -> Float[Tensor, " N"]:
    """The score of a person from those of joints and box, equation (7.10).

    rule: "product" is Poseur's equation 5, box times the mean over all joints; "sum" that of the releases, box plus
    the mean plus the largest.
    """
    if rule not in ("product", "sum"):
        raise ValueError(f"instance_score: got rule={rule!r}, expected 'product' or 'sum'")
    return box * scores.mean(-1) if rule == "product" else box + scores.mean(-1) + scores.amax(-1)


# -- head and method ---------------------------------------------------------------------------------------------------


class Distributions(Vectors):
    """A centre and a raw width for each axis of a joint: (B, J, 2d), centres first."""

    @staticmethod
    def merge(outputs: Sequence[Any]) -> Any:
        """The mean centre and the raw width whose width is the mean of the widths."""
        found = torch.stack([full(output) for output in outputs])
        d = found.shape[-1] // 2
        return torch.cat([found[..., :d].mean(0), found[..., d:].sigmoid().mean(0).logit(1e-7)], -1)


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    """A linear layer in the precision of `x`, autocast or not: half precision is too coarse for coordinates."""
    if x.is_meta:  # no autocast to switch off, and `backbones.cost.macs` counts layers that are called
        shaped: Tensor = layer(x.to(layer.weight.dtype))
        return shaped.to(x.dtype)
    with torch.autocast(x.device.type, enabled=False):
        return F.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))


class DistributionHead(nn.Module):
    """Average pooling, then one linear layer to the centres and one to the raw widths (B, J, 2 dims), in float32.

    unit: whether the features have length 1 before the first layer, as in RLE's release: y = W x / |x| + b.
    """

    produces = Distributions

    def __init__(self, channels: int, joints: int, dims: int = 2, unit: bool = True) -> None:
        super().__init__()
        self.joints, self.dims, self.unit = joints, dims, unit
        self.centre, self.width = nn.Linear(channels, joints * dims), nn.Linear(channels, joints * dims)
        for layer in (self.centre, self.width):
            nn.init.xavier_uniform_(layer.weight, 0.01)

    def forward(self, features: Tensor) -> Float[Tensor, "B J e"]:
        """Features (B, C, H, W), or pooled ones (B, C), -> centres and raw widths."""
        pooled = full(features) if features.ndim == 2 else full(features).mean((-2, -1))
        centre = linear(F.normalize(pooled, dim=-1) if self.unit else pooled, self.centre)
        found = [y.unflatten(-1, (self.joints, self.dims)) for y in (centre, linear(pooled, self.width))]
        return torch.cat(found, -1)


class RLE(Method):
    """Centres and widths by maximum likelihood: the loss (7.7), read by a score of (7.8) or (7.9).

    flow: a RealNVP, which the loss needs and predicting does not; None: the base density alone, and what a trained
    network is read with (see `without_flow`). terms: what the loss counts. floor: the least width as a share of the
    crop's side, so that no likelihood is infinite: a width is the share floor + (1 - floor) sigmoid(raw) (the releases
    have none). decoder: what makes the score, `Sharpness`, `Within` or `Unscored`. The flow judges joints all of whose
    axes are labelled, the base density takes every labelled axis.
    """

    reads = Distributions

    def __init__(
        self, flow: RealNVP | None = None, terms: Terms = Terms(), floor: float = 1e-3, decoder: Score = Sharpness()
    ) -> None:
        super().__init__()
        if not 0 < floor < 1:
            raise ValueError(f"RLE: got floor={floor}, expected a share of the crop's side above 0 and below 1")
        self.flow, self.terms, self.floor, self.decoder, self.flip_shift = flow, terms, floor, decoder, False

    def encode(self, labels: Labels, size: Sequence[int]) -> Tensor:
        """The target is the label itself."""
        return known(labels).coords

    def read(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Output -> means and widths (B, J, d), normalised. Raises ValueError for a shape it cannot read."""
        if output.ndim != 3 or output.shape[-1] % 2 or not output.shape[-1]:
            raise ValueError(
                f"RLE: got an output of shape {tuple(output.shape)}, expected (B, J, 2d): d centres, then d raw "
                "widths, as `DistributionHead` gives it"
            )
        mean, raw = full(output).chunk(2, -1)
        return mean, 2 * (self.floor + (1 - self.floor) * raw.sigmoid())

    def loss(self, output: Tensor, labels: Labels) -> dict[str, Tensor]:
        """The parts "base", widths and base density, and "flow", flow and constant, and their sum; in float32."""
        mean, width = self.read(output)
        if mean.shape != labels.coords.shape:
            raise ValueError(
                f"RLE: got an output of shape {tuple(output.shape)}, its points {tuple(mean.shape)}, for labels "
                f"of shape {tuple(labels.coords.shape)}; the head's joints and axes and the data set's must agree"
            )
        labels, terms = known(labels), self.terms
        share, joint = shares(labels.weight)
        e = torch.where(labels.weight > 0, terms.sign * (labels.coords - mean) / width, 0)
        value = ((terms.widths * width.log() - terms.base(e)) * share).sum(-1)
        base = terms.reduce(Part(value, joint))
        if self.flow is None:
            return {"base": base, "loss": base}
        value = -self.flow.log_prob(e) * (e.shape[-1] if terms.per_axis else 1)
        if terms.constant:
            value = value - log_s(terms.base, self.flow, terms.nodes).clamp_max(LIMIT * e.shape[-1])
        flow = terms.reduce(Part(value, labels.weight.amin(-1)))
        return {"base": base, "flow": flow, "loss": base + flow}

    def decode(self, output: Tensor) -> Points:
        """The centres with the decoder's score. Raises ValueError for an output that is not finite."""
        mean, width = self.read(output)
        finite = torch.isfinite(mean + width).all(-1)
        if not bool(finite.all()):
            bad = (~finite).nonzero()[0].tolist()
            raise ValueError(
                f"RLE: the output of image {bad[0]}, joint {bad[1]} holds NaN or infinity; the network diverged or its "
                "input was not finite"
            )
        return self.decoder(mean, width)


def without_flow(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of an Estimator with RLE(flow=...) as one with RLE(flow=None) loads them, to predict with."""
    return {name: value for name, value in state.items() if "flow" not in name.split(".")}


#: The loss as derived and as two codes have it, by name. For three axes give the flow dims=3.
VARIANTS: dict[str, Spec] = {
    "derived": spec(RLE, flow=spec(RealNVP)),
    "rle-release": spec(RLE, flow=spec(RealNVP), terms=RLE_RELEASE),
    "poseur-release": spec(RLE, flow=spec(RealNVP, prior=0.5), terms=POSEUR_RELEASE),
}
