"""Chapter 7: what a residual can be distributed like, a base density or a flow.

The residual of a prediction is what is left of its error once the predicted width is divided out, equation (7.1).
Equations in order: (7.2) and (7.3) base densities, (7.4) and (7.5) the flow of residual log-likelihood estimation (RLE,
Li 2021), (7.6) the constant that makes their product a density. The loss that is made of them is in `coordreg/rle.py`.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from coordreg.expectation import full

# -- base densities of the residual e = (y - mu) / sigma, equation (7.1) -----------------------------------------------


@runtime_checkable
class Base(Protocol):
    """A density of one axis. mass: what it integrates to, 1 if it is one."""

    @property
    def mass(self) -> float: ...

    def __call__(self, e: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Laplace:
    """exp(-|e|) / 2 on each axis, equation (7.2): its likelihood is the L1 loss, and sigma the scale b."""

    mass = 1.0

    def __call__(self, e: Tensor) -> Tensor:
        """Residuals (..., d) -> the logarithm of the density of each."""
        return -e.abs() - math.log(2)


@dataclass(frozen=True)
class Normal:
    """The standard normal density on each axis, equation (7.3): its likelihood is the squared error."""

    mass = 1.0

    def __call__(self, e: Tensor) -> Tensor:
        """Residuals (..., d) -> the logarithm of the density of each."""
        return -0.5 * e.square() - 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class Mixed:
    """What both releases compute: the exponent of a Laplace of scale sqrt 2, the constant of a normal density.

    No density: an axis integrates to 2 / sqrt(pi), 1.128. (They add 1e-9 to the width; ours is bounded below.)
    """

    mass = 2 / math.sqrt(math.pi)

    def __call__(self, e: Tensor) -> Tensor:
        """Residuals (..., d) -> the logarithm of what the releases have in place of a density."""
        return -e.abs() / math.sqrt(2) - 0.5 * math.log(2 * math.pi)


# -- the flow ----------------------------------------------------------------------------------------------------------


class RealNVP(nn.Module):
    """A learnt density of residuals (Dinh 2017): affine couplings between them and a normal distribution.

    Six couplings, networks of two hidden layers of 64: 53,784 parameters in two dimensions, as RLE has it. dims: at
    least 2; masks alternate between the last axis and the others. prior: the mean of the normal distribution on each
    axis, 0, or Poseur's release's 0.5. gain: None leaves torch's initial weights, as the releases do; a number draws
    them by Xavier's rule with that gain and sets biases to 0, so that 0.01 starts close to the identity.
    """

    masks: Tensor

    def __init__(
        self, dims: int = 2, couplings: int = 6, hidden: int = 64, prior: float = 0.0, gain: float | None = None
    ) -> None:
        super().__init__()
        if dims < 2 or couplings < 1 or hidden < 1:
            raise ValueError(
                f"RealNVP: got dims={dims}, couplings={couplings}, hidden={hidden}, expected dims of at least 2 (one "
                "axis has no other to couple with) and at least 1 of the others"
            )
        self.dims, self.prior = dims, prior
        last = torch.zeros(dims)
        last[-1] = 1
        masks = torch.stack([last if i % 2 == 0 else 1 - last for i in range(couplings)])
        self.register_buffer("masks", masks, persistent=False)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for into, out in pairwise((dims, hidden, hidden, dims)):
            bound = into**-0.5 if gain is None else gain * (6 / (into + out)) ** 0.5
            self.weights.append(torch.empty(couplings, 2, into, out).uniform_(-bound, bound))
            self.biases.append(torch.empty(couplings, 2, 1, out).uniform_(-bound, bound) * (gain is None))

    def _couplings(self, dtype: torch.dtype) -> list[tuple[Tensor, ...]]:
        """Of each coupling mask, weights and biases, in the precision of the residuals, whatever that of ours."""
        stacked = [self.masks, *self.weights, *self.biases]
        return list(zip(*(tensor.to(dtype).unbind(0) for tensor in stacked), strict=True))

    def forward(self, z: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Latents -> residuals, equation (7.4), in float32 or better."""
        with torch.autocast(z.device.type, enabled=False):
            x = self._flat(z)
            for coupling in self._couplings(x.dtype):
                s, t = _scale_and_shift(x, coupling)
                x = x * s.exp() + t
        return x.view(z.shape)

    def inverse(self, x: Float[Tensor, "*batch d"]) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "*batch"]]:
        """Residuals -> latents, and the logarithm of |det dz/dx|: the exact inverse of `forward`."""
        with torch.autocast(x.device.type, enabled=False):
            z = self._flat(x)
            log_det = z.new_zeros(len(z))
            for coupling in reversed(self._couplings(z.dtype)):
                s, t = _scale_and_shift(z, coupling)
                z = (z - t) * (-s).exp()
                log_det = log_det - s.sum(-1)
        return z.view(x.shape), log_det.view(x.shape[:-1])

    def log_prob(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """The logarithm of the flow's density, equation (7.5); it integrates to 1, whatever the weights."""
        z, log_det = self.inverse(x)
        return Normal()(z - self.prior).sum(-1) + log_det

    def _flat(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.dims:
            raise ValueError(
                f"RealNVP: got vectors of {x.shape[-1]} axes, expected {self.dims}; make it with dims={x.shape[-1]}"
            )
        return full(x).reshape(-1, self.dims)


def _scale_and_shift(x: Tensor, coupling: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Logarithmic scale and shift of points (N, d) by one coupling, 0 for the axes that its mask lets pass."""
    mask, *layers = coupling
    h = (x * mask).expand(2, *x.shape)  # scale and shift side by side: half the calls
    for k, (weight, bias) in enumerate(zip(layers[:3], layers[3:], strict=True)):
        h = torch.baddbmm(bias, F.leaky_relu(h, 0.01) if k else h, weight)
    s, t = (h * (1 - mask)).unbind(0)
    return s.tanh(), t


def log_s(base: Base, flow: RealNVP, nodes: int = 256) -> Float[Tensor, ""]:
    """The logarithm of the constant s in (7.6), 1 / s being the integral of base times flow, with its gradient.

    That integral is the mean of the base density under the flow, taken over a grid of about `nodes` latents at the
    middles of cells of equal probability. RLE's release leaves s out.
    """
    n = max(2, int(nodes ** (1 / flow.dims) + 1e-6))
    like = full(next(flow.parameters()))
    middle = (torch.arange(n, device=like.device, dtype=like.dtype) + 0.5) / n
    line = torch.special.ndtri(middle) + flow.prior
    z = torch.cartesian_prod(*[line] * flow.dims)
    return math.log(len(z)) - base(flow(z)).sum(-1).logsumexp(0)
