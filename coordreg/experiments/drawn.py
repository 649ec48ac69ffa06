"""Chapter 2: the rows that are computed, not trained. A module's `exact()` returns its checks by ledger row."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from coordreg.coords import Labels, from_pixels, to_pixels
from coordreg.experiments.exact import Exact
from coordreg.heatmap import Argmax, Gaussian, peak


def falling_loss() -> Exact:
    """DSNT, figure 4: of two maps the one nearer to the target has its peak in the wrong cell."""
    target = torch.zeros(1, 1, 5, 5)
    target[..., [1, 2, 2, 3], [2, 1, 3, 2]] = 5.0
    target[..., 2, 2] = 8.0
    lone = torch.zeros_like(target)
    lone[..., 2, 2] = 8.0
    raised = target.clone()
    raised[..., 2, 3] = 9.0
    true, _ = peak(target)
    said, good = [], []
    for name, maps, printed, should in (("a lone 8", lone, 100, True), ("one 5 raised to 9", raised, 16, False)):
        loss = float((maps - target).square().sum())
        right = bool((peak(maps)[0] == true).all())
        said.append(f"{name}: {loss:g}, argmax {'right' if right else 'wrong'}")
        good.append(loss == printed and right == should)
    return Exact("; ".join(said), all(good))


def quantisation_rms(size: int = 12, steps: int = 50, sigma: float = 1.0) -> Float[Tensor, "2"]:
    """RMS of argmax's error along x and y, in cells, on ideal Gaussians at steps x steps places within one cell."""
    offsets = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps - 0.5 + size // 2
    places = torch.cartesian_prod(offsets, offsets).view(1, -1, 2)
    maps = Gaussian(sigma=sigma)(Labels(from_pixels(places, (size, size)), torch.ones_like(places)), (size, size)).maps
    error = to_pixels(Argmax()(maps).coords, (size, size)) - places
    return error.square().mean((0, 1)).sqrt()


def quantisation() -> Exact:
    """DARK, figure 4: argmax on an ideal map errs like rounding to whole cells, s/sqrt(12) along each axis."""
    x, y = (float(v) for v in quantisation_rms())
    expected = 1 / math.sqrt(12)
    matches = max(abs(x - expected), abs(y - expected)) < 0.01 * expected
    return Exact(
        f"RMS of argmax along (x, y): ({x:.4f}, {y:.4f}) cells; 1/sqrt(12) = {expected:.4f}",
        matches,
        "2,500 ideal Gaussians at places spread evenly over one cell",
    )


def exact() -> dict[str, Exact]:
    """The checks of this chapter by ledger row."""
    return {"dsnt-fig4": falling_loss(), "dark-fig4": quantisation()}
