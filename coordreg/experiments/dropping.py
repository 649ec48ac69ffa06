"""Chapter 3, figures 3 and 5 of Tompson et al. 2015, measured: what dropout does to a convolution's weight gradient.

Their argument: neighbouring activations and errors of a convolutional network are alike, so that a dropped cell's
neighbour brings the term that it would have brought. The gradient gets shorter, by the share that stays, and keeps its
direction. Here that is a number: the cosine between the gradients of two draws of the mask.
"""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from coordreg.backbones.multires import SpatialDropout
from coordreg.experiments.exact import Exact
from coordreg.experiments.flows import one_thread

CHANNELS, ERRORS, SIZE, DRAWS, P = 8, 4, 24, 40, 0.5
LAYERS: dict[str, Callable[[], nn.Module]] = {"standard": partial(nn.Dropout, P), "spatial": partial(SpatialDropout, P)}
#: Smoothness in cells at which the check is made, and what it asks for.
SMOOTH, ALIKE, APART, EVEN = 2.0, 0.95, 0.7, 0.05


def smooth(width: float, channels: int = CHANNELS, seed: int = 0) -> Float[Tensor, "1 C H W"]:
    """Random features whose neighbours are alike up to about `width` cells, of standard deviation 1."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(channels, 1, SIZE + 24, SIZE + 24, generator=draw)
    if width > 0:
        line = torch.exp(-torch.arange(-12.0, 13.0).square() / (2 * width**2)).view(1, 1, 1, -1)
        x = F.conv2d(F.conv2d(x, line), line.mT)
    x = x[..., :SIZE, :SIZE].transpose(0, 1)
    return x / x.std()


def gradients(
    x: Float[Tensor, "1 C H W"], errors: Float[Tensor, "1 E H W"], drop: nn.Module, draws: int = DRAWS
) -> Float[Tensor, "draws n"]:
    """Gradients of the weights of a 3 x 3 convolution behind `drop`, one a draw of its mask.

    errors: the derivative of the loss by the convolution's output, of which the part without padding is used.
    """
    weight = torch.zeros(errors.shape[1], x.shape[1], 3, 3, requires_grad=True)
    inner = errors[..., : x.shape[-2] - 2, : x.shape[-1] - 2]
    found = [torch.autograd.grad((F.conv2d(drop(x), weight) * inner).sum(), weight)[0].flatten() for _ in range(draws)]
    return torch.stack(found)


def agreement(width: float) -> dict[str, float]:
    """By layer: the mean cosine between the gradients of two draws, for features and errors of that smoothness."""
    x, errors = smooth(width), smooth(width, ERRORS, seed=1)
    found = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, make in LAYERS.items():
            g = F.normalize(gradients(x, errors, make()), dim=1)
            n = len(g)
            found[name] = float(((g @ g.T).sum() - n) / (n * (n - 1)))
    return found


def lengths(width: float) -> dict[str, tuple[float, float]]:
    """By layer, without torch's division by 1 - p: each draw's gradient along that without dropout, over it.

    Mean and standard deviation over the draws. Every layer's mean is 1 - p; whether each draw has that length is what
    tells a layer that scales the learning rate from one that drops something.
    """
    x, errors = smooth(width), smooth(width, ERRORS, seed=1)
    found = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        (whole,) = gradients(x, errors, nn.Identity(), 1)
        for name, make in LAYERS.items():
            each = (1 - P) * gradients(x, errors, make()) @ whole / whole.square().sum()
            found[name] = float(each.mean()), float(each.std())
    return found


def exact() -> dict[str, Exact]:
    """The check of the row: on smooth features standard dropout scales the gradient and hardly turns it."""
    with one_thread():
        found, rough, share = agreement(SMOOTH), agreement(0.0), lengths(SMOOTH)
    ours = (
        f"cosine of the weight gradients of two masks, features smooth over {SMOOTH:g} cells: standard "
        f"{found['standard']:.2f}, spatial {found['spatial']:.2f}; independent features: {rough['standard']:.2f}, "
        f"{rough['spatial']:.2f}; length along the whole gradient, p = {P:g}: "
        + ", ".join(f"{name} {mean:.2f} +- {spread:.2f}" for name, (mean, spread) in share.items())
    )
    mean, spread = share["standard"]
    holds = found["standard"] > max(ALIKE, rough["standard"]) and found["spatial"] < APART
    holds = holds and abs(mean - (1 - P)) < EVEN and spread < EVEN < share["spatial"][1]
    note = "measured on random features of known smoothness"
    return {"cascade-fig3-5": Exact(ours, holds, note, otherwise="not reproduced")}


__all__ = ["agreement", "exact", "gradients", "lengths", "smooth"]
