"""Chapter 4, its first half: from a heatmap to numbers, and the gradient back.

Equations in order: (4.1) activations make a map a probability distribution, (4.2) its mean is the prediction, (4.3) the
gradient in closed form, (4.4) the variance. Maps are (B, J, H, W) and volumes (B, J, D, H, W); one axis works as well.
Coordinates come out as (x, y) or (x, y, z). Nothing here has parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from coordreg.coords import centres

# -- heatmap activations (section 4.1 of the paper) --------------------------------------------------------------------


def full(maps: Tensor) -> Tensor:
    """Half precision -> float32: sums over thousands of cells need it, and 1e-24 must not become 0."""
    return maps.float() if maps.dtype in (torch.float16, torch.bfloat16) else maps


@dataclass(frozen=True)
class Softmax:
    """exp(z) / sum exp(z) over all cells of a map, equation (4.1)."""

    def __call__(self, maps: Tensor) -> Tensor:
        """(B, J, *size) -> non-negative maps of the same size with sum 1."""
        return F.softmax(full(maps).flatten(2), -1).view_as(maps)


RECTIFIERS: dict[str, Callable[[Tensor], Tensor]] = {"abs": torch.abs, "relu": F.relu, "sigmoid": torch.sigmoid}


@dataclass(frozen=True)
class Rectified:
    """phi(z) / sum phi(z) with phi the absolute value, ReLU or the sigmoid (paper, table 2).

    A map that the rectifier leaves all zero has no shape to normalise: it counts as uniform, so that its mean is the
    middle of the image, and no gradient passes through it. A joint whose ReLU map has died stays dead.
    """

    rectifier: str = "relu"

    def __post_init__(self) -> None:
        if self.rectifier not in RECTIFIERS:
            raise ValueError(f"Rectified: got rectifier={self.rectifier!r}, expected one of {', '.join(RECTIFIERS)}")

    def __call__(self, maps: Tensor) -> Tensor:
        """(B, J, *size) -> non-negative maps of the same size with sum 1."""
        flat = RECTIFIERS[self.rectifier](full(maps).flatten(2))
        mass = flat.sum(-1, keepdim=True)
        empty = mass == 0  # NaN is not: a map that holds NaN must not pass for an empty one
        return torch.where(empty, 1 / flat.shape[-1], flat / torch.where(empty, 1, mass)).view_as(maps)


# -- the transform -----------------------------------------------------------------------------------------------------


def marginals(p: Float[Tensor, "B J *size"]) -> list[Float[Tensor, "B J n"]]:
    """Sums of a map over all axes but one, x first: (B, J, W), (B, J, H) and, for a volume, (B, J, D)."""
    axes = range(2, p.ndim)
    return [p.sum([a for a in axes if a != axis]) if p.ndim > 3 else p for axis in reversed(axes)]


@lru_cache(maxsize=64)
def _grid(n: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Centres of the cells of an axis; kept, since a map of a few cells costs less than making them."""
    with torch.inference_mode(False):  # what is kept must serve training too
        return centres(n, device, dtype)


def _grids(p: Tensor) -> list[Tensor]:
    """Centres of the cells along each axis, x first."""
    return [_grid(n, p.device, p.dtype) for n in reversed(p.shape[2:])]


def _sums(p: Tensor) -> tuple[Tensor, Tensor]:
    """First moments (B, J, d) and mass (B, J, 1). Axis by axis: the moment of the last one, then the sum over it."""
    found, rest = [], p
    for grid in _grids(p):
        moment, rest = rest @ grid, rest.sum(-1)
        found.append(moment.flatten(2).sum(-1) if moment.ndim > 2 else moment)
    return torch.stack(found, -1), rest.unsqueeze(-1)


def _moments(p: Tensor) -> tuple[Tensor, Tensor]:
    """`_sums` outside autocast: a matrix product in half precision would lose the coordinates."""
    if not torch.is_autocast_enabled(p.device.type):
        return _sums(p)
    with torch.autocast(p.device.type, enabled=False):
        return _sums(p)


def _weights(p: Tensor, mean: Tensor, gradient: Tensor) -> Tensor:
    """g . (x - mean) for every cell, as a sum of one vector an axis: (B, J, *size)."""
    total: Tensor | None = None
    for axis, grid in enumerate(_grids(p)):
        along = gradient[..., axis : axis + 1] * (grid - mean[..., axis : axis + 1])
        along = along.view(*along.shape[:2], *(1,) * (p.ndim - 3 - axis), -1, *(1,) * axis)
        total = along if total is None else total + along
    assert total is not None
    return total


class _Expectation(torch.autograd.Function):
    """Equation (4.2) with the closed form of its gradient: d mean / d p_k = (x_k - mean) / mass."""

    @staticmethod
    def forward(ctx: Any, p: Tensor) -> Tensor:
        moments, mass = _moments(p)
        empty = mass == 0  # NaN is not: it must reach whoever asked
        mean = torch.where(empty, 0, moments / torch.where(empty, 1, mass))
        ctx.save_for_backward(p, mean, mass)
        return mean

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        p, mean, mass = ctx.saved_tensors
        empty = mass == 0
        scaled = torch.where(empty, 0, gradient / torch.where(empty, 1, mass))
        return _weights(p, mean, scaled).expand_as(p)


class _SoftArgmax(torch.autograd.Function):
    """Softmax and expectation in one; backward is p (g . (x - mean)), equation (4.3), and what p itself is asked for.

    float32 softmax over 262,144 cells sums to 1 only within 5e-5, so that the moments are divided by the mass.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        p = F.softmax(z.flatten(2), -1).view_as(z)
        moments, mass = _moments(p)
        mean = moments / mass
        ctx.save_for_backward(p, mean)
        return p, mean

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, wanted: Tensor | None, gradient: Tensor | None) -> Tensor | None:
        p, mean = ctx.saved_tensors
        total = None
        if gradient is not None:
            total = _weights(p, mean, gradient).mul_(p) if p.ndim > 3 else p * _weights(p, mean, gradient)
        if wanted is not None:
            inner = p * wanted
            inner -= p * inner.flatten(2).sum(-1).view(*p.shape[:2], *(1,) * (p.ndim - 2))
            total = inner if total is None else total.add_(inner)
        return total


def _check(maps: Tensor, name: str) -> None:
    if maps.ndim < 3 or not maps.is_floating_point():
        raise ValueError(
            f"{name}: got a {str(maps.dtype).removeprefix('torch.')} tensor of shape {tuple(maps.shape)}, expected "
            "floating-point maps (B, J, W), (B, J, H, W) or (B, J, D, H, W); add the missing axes with [None]"
        )


def expectation(p: Float[Tensor, "B J *size"]) -> Float[Tensor, "B J d"]:
    """DSNT, equation (4.2): the mean of non-negative maps, whatever their mass; 1, 2 or 3 axes.

    A map of zeros has its mean in the middle and passes no gradient.
    """
    _check(p, "expectation")
    found: Tensor = _Expectation.apply(full(p))
    return found


def soft_argmax(maps: Float[Tensor, "B J *size"]) -> tuple[Float[Tensor, "B J *size"], Float[Tensor, "B J d"]]:
    """Softmax maps and their means; the same as `expectation(Softmax()(maps))` in fewer passes over memory.

    Both are NaN where a logit was NaN or +infinity.
    """
    _check(maps, "soft_argmax")
    p, mean = _SoftArgmax.apply(full(maps))
    return p, mean


def moments(p: Float[Tensor, "B J *size"]) -> tuple[Float[Tensor, "B J d"], Float[Tensor, "B J d"]]:
    """Mean and variance along each axis, equation (4.4), from the marginals; an empty map has 0 and no gradient."""
    _check(p, "moments")
    means, variances = [], []
    for marginal, grid in zip(marginals(full(p)), _grids(full(p)), strict=True):
        mass = marginal.sum(-1, keepdim=True)
        empty = mass == 0
        share = torch.where(empty, 0, marginal / torch.where(empty, 1, mass))
        mean = (share * grid).sum(-1, keepdim=True)
        means.append(mean)
        variances.append((share * (grid - mean).square()).sum(-1, keepdim=True))
    return torch.cat(means, -1), torch.cat(variances, -1)
