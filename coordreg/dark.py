"""Chapter 6, DARK: where a heatmap's peak lies between its cells, by Newton's step on its logarithm.

A heatmap that was trained on Gaussians should be one, and the logarithm of a Gaussian is a parabola. So smooth the map
with a Gaussian (modulation), take logarithms, and step from the largest cell to the top of the parabola through its
neighbours. Encoding is the other half: `heatmap.Gaussian(rounding="none")` draws the target about the joint itself,
`rounding="int"` about the nearest cell. Source: Zhang et al. 2020; equation numbers are the chapter's.

`Dark` blurs the 13 cells of a map that its step uses. `modulate` blurs whole maps, as the paper writes it; it serves
the paper's equation 11, figures, and the tests as an oracle.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from coordreg.coords import Convention, Labels, Points, from_pixels, to_pixels
from coordreg.heatmap import Draws, Target, peak

#: Smaller values are raised to this before the logarithm, as the released code does.
FLOOR = 1e-10
#: OpenCV's kernels of these sizes, which the released code gets by asking for no width.
_TABLED = {
    1: (1.0,),
    3: (0.25, 0.5, 0.25),
    5: (0.0625, 0.25, 0.375, 0.25, 0.0625),
    7: (0.03125, 0.109375, 0.21875, 0.28125, 0.21875, 0.109375, 0.03125),
}
RESCALE = ("none", "max", "range")


def gaussian_kernel(kernel: int, sigma: float | None = None) -> Float[Tensor, " k"]:
    """A Gaussian on `kernel` cells that sums to 1, in double precision; in two dimensions it is used along each axis.

    kernel: odd. sigma: in cells; None is the released code's choice, OpenCV's: its tables up to 7 cells, beyond them
    0.3 (r - 1) + 0.8 with r = (kernel - 1) / 2: 2.0 for 11 cells, 2.9 for 17.
    """
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"Dark: got kernel={kernel}, expected an odd number of cells; 1 does not blur")
    if sigma is None and kernel in _TABLED:
        return torch.tensor(_TABLED[kernel], dtype=torch.float64)
    reach = (kernel - 1) // 2
    sigma = 0.3 * (reach - 1) + 0.8 if sigma is None else sigma
    if not sigma > 0:
        raise ValueError(f"Dark: got sigma={sigma}, expected a width above 0, in heatmap cells")
    weight = torch.exp(-torch.arange(-reach, reach + 1, dtype=torch.float64).square() / (2 * sigma**2))
    return weight / weight.sum()


def modulate(
    maps: Float[Tensor, "B J H W"], kernel: int = 11, sigma: float | None = None, rescale: str = "max"
) -> Float[Tensor, "B J H W"]:
    """Blur whole maps, equation (6.5), with zeros beyond the border, and scale them back to their old maximum.

    rescale: "max" multiplies, as the released code does; "range" subtracts the minimum first, equation (6.6), as the
    paper prints it; "none" leaves the blurred map alone. So do the others where there is nothing to divide by: a
    maximum that is not above 0, or, for "range", a map that is constant after the blur.
    """
    if rescale not in RESCALE:
        raise ValueError(f"Dark: got rescale={rescale!r}, expected one of {', '.join(RESCALE)}")
    k = gaussian_kernel(kernel, sigma).to(maps)
    flat = maps.flatten(0, 1).unsqueeze(1)
    blurred = F.conv2d(F.conv2d(flat, k.view(1, 1, 1, -1), padding=(0, kernel // 2)), k.view(1, 1, -1, 1),
                       padding=(kernel // 2, 0)).view_as(maps)  # fmt: skip
    if rescale == "none":
        return blurred
    before, after = maps.amax((-2, -1), keepdim=True), blurred.amax((-2, -1), keepdim=True)
    low = blurred.amin((-2, -1), keepdim=True) if rescale == "range" else torch.zeros_like(after)
    span = after - low
    return torch.where(span > 0, (blurred - low) * (before / torch.where(span > 0, span, 1)), blurred)


def _stencil(*cells: tuple[int, int, float]) -> list[float]:
    """Weights on a window of 5 x 5 cells, row by row, from (x, y, weight) with the middle at (0, 0)."""
    weights = [0.0] * 25
    for x, y, weight in cells:
        weights[(y + 2) * 5 + x + 2] = weight
    return weights


#: d/dx, d/dy, d2/dx2, d2/dy2, d2/dxdy as central differences; the second ones step two cells, as in the released code.
STENCILS = torch.tensor(
    [
        _stencil((1, 0, 1 / 2), (-1, 0, -1 / 2)),
        _stencil((0, 1, 1 / 2), (0, -1, -1 / 2)),
        _stencil((2, 0, 1 / 4), (0, 0, -1 / 2), (-2, 0, 1 / 4)),
        _stencil((0, 2, 1 / 4), (0, 0, -1 / 2), (0, -2, 1 / 4)),
        _stencil((1, 1, 1 / 4), (-1, 1, -1 / 4), (1, -1, -1 / 4), (-1, -1, 1 / 4)),
    ],
    dtype=torch.float64,
)
#: The 13 of those 25 cells that some difference looks at, row by row; which of the 13 is the middle; their weights.
CELLS = STENCILS.any(0).nonzero().flatten()
MIDDLE = 6
WEIGHTS = STENCILS[:, CELLS]


def differences(logs: Float[Tensor, "*batch 5 5"]) -> Float[Tensor, "*batch 5"]:
    """First and second derivatives of log maps at the middle of windows, in the order of STENCILS, equation (6.4).

    On a parabola, which is what the logarithm of a Gaussian is, differences of any step are exact.
    """
    return logs.flatten(-2) @ STENCILS.T.to(logs)


def newton(derivatives: Float[Tensor, "*batch 5"]) -> tuple[Float[Tensor, "*batch 2"], Float[Tensor, " *batch"]]:
    """Newton's step -H^{-1} g, equation (6.3), x first, and the determinant of H, which is inverted by its formula.

    Where the determinant is 0 (a flat map, a ridge) the step is 0.
    """
    dx, dy, dxx, dyy, dxy = derivatives.unbind(-1)
    determinant = dxx * dyy - dxy.square()
    step = torch.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], -1) / determinant.unsqueeze(-1)
    return torch.where(step.isfinite(), step, 0), determinant


def _squares(maps: Tensor, x: Tensor, y: Tensor, reach: int) -> Tensor:
    """The squares of `window` as (n, n, B J), about the cells x, y (B, J); with the joints last every row is long."""
    height, width = maps.shape[-2:]
    whole = torch.int32 if maps.numel() < 2**31 else torch.int64
    around = torch.arange(-reach, reach + 1, dtype=whole, device=maps.device).unsqueeze(-1)
    first = torch.arange(0, maps.numel(), height * width, dtype=whole, device=maps.device)
    columns, rows = x.flatten().to(whole) + around, y.flatten().to(whole) + around
    column, row = columns.clamp(0, width - 1), rows.clamp(0, height - 1)
    index = (row * width + first).unsqueeze(1) + column
    values = maps.flatten().index_select(0, index.flatten()).view(index.shape)
    return values.mul_((column == columns).to(values)).mul_((row == rows).to(values).unsqueeze(1))


def window(maps: Float[Tensor, "B J H W"], cell: Int[Tensor, "B J 2"], reach: int) -> Float[Tensor, "B J n n"]:
    """Squares of n = 2 reach + 1 cells about `cell` (x, y), with zeros beyond the border."""
    x, y = cell.unbind(-1)
    return _squares(maps, x, y, reach).movedim(-1, 0).unflatten(0, maps.shape[:2])


@dataclass(frozen=True)
class Dark:
    """DARK's decoder, equation (6.3): from the raw map's largest cell by one Newton step on the log of the blurred one.

    kernel, sigma: the blur, see `gaussian_kernel`; kernel 1 leaves modulation out. rescale: see `modulate`; "max" and
    "none" differ in nothing but where the floor of the logarithm lies, "range" needs the whole map.

    Where it does not step, it answers like `Argmax`: in the two outermost rows and columns of a map, in both axes, as
    the released code; where the Hessian's determinant is exactly 0, as on flat maps; on maps whose blurred values are
    all below the floor (nothing above zero). The published code does not look whether its parabola has a top: from a
    saddle it goes to the saddle point, from a valley to the bottom. saddle: "follow" does so too, "stay" steps to
    maxima only. limit: the longest step along each axis, in cells; None sets no bound, like the published code, whose
    step may then leave the map. The score is the raw maximum.
    """

    kernel: int = 11
    sigma: float | None = None
    rescale: str = "max"
    saddle: str = "follow"
    limit: float | None = None

    def __post_init__(self) -> None:
        gaussian_kernel(self.kernel, self.sigma)
        if self.rescale not in RESCALE:
            raise ValueError(f"Dark: got rescale={self.rescale!r}, expected one of {', '.join(RESCALE)}")
        if self.saddle not in ("follow", "stay"):
            raise ValueError(f"Dark: got saddle={self.saddle!r}, expected 'follow' or 'stay'")
        if self.limit is not None and not self.limit > 0:
            raise ValueError(f"Dark: got limit={self.limit}, expected a length above 0 in cells, or None for no bound")

    def __call__(self, maps: Tensor) -> Points:
        """(B, J, H, W) -> Points."""
        height, width = maps.shape[-2:]
        index, score = peak(maps)
        x, y = index % width, index // width
        inside = (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2)
        derivatives = (WEIGHTS.to(maps) @ self._near(maps, x, y, score).log()).T.unflatten(0, index.shape)  # (B, J, 5)
        step, determinant = newton(derivatives)
        if self.saddle == "stay":
            inside = inside & (determinant > 0) & (derivatives[..., 2] < 0)
        if self.limit is not None:
            step = step.clamp(-self.limit, self.limit)
        where = torch.stack([x, y], -1) + torch.where(inside.unsqueeze(-1), step, 0)
        return Points(from_pixels(where, (height, width)), score)

    def _near(self, maps: Tensor, x: Tensor, y: Tensor, score: Tensor) -> Tensor:
        """The modulated map in the CELLS about its largest one (x, y), raised to the floor, (13, B J)."""
        if self.rescale == "range":
            whole = modulate(maps, self.kernel, self.sigma, "range")
            return _squares(whole, x, y, 2).flatten(0, 1)[CELLS].clamp_min(FLOOR)
        raw = _squares(maps, x, y, self.kernel // 2 + 2).flatten(0, 1)
        near = _blur_window(self.kernel, self.sigma).to(maps) @ raw
        if self.rescale == "none":
            return near.clamp_min(FLOOR)
        # raising the scaled map to the floor is raising this one to the floor over the scale
        share = near[MIDDLE] / score.flatten()
        return near.maximum(torch.where(share > 0, FLOOR * share, FLOOR))


@cache
def _blur_window(kernel: int, sigma: float | None) -> Float[Tensor, "13 m"]:
    """What makes of m = (kernel + 4)^2 cells, row by row, the blurred CELLS in their middle."""
    k = gaussian_kernel(kernel, sigma)
    band = torch.stack([F.pad(k, (i, 4 - i)) for i in range(5)])  # row i: the kernel about cell i - 2
    return torch.kron(band, band)[CELLS].contiguous()


# -- the other codes' grids -------------------------------------------------------------------------------------------


def to_grid(
    coords: Float[Tensor, "*batch d"], size: Sequence[int], convention: Convention, stride: int
) -> Float[Tensor, "*batch d"]:
    """Where a code with another convention draws a joint: normalised coordinates -> index pixels of its map.

    size: (H, W) of the map. stride: image pixels a cell; the joint goes through index pixels of the image.
    """
    image = [stride * n for n in size]
    return to_pixels(from_pixels(to_pixels(coords, image), image, convention), size, convention)


def from_grid(
    pixels: Float[Tensor, "*batch d"], size: Sequence[int], convention: Convention, stride: int
) -> Float[Tensor, "*batch d"]:
    """The inverse of `to_grid`: index pixels of such a code's map -> our normalised coordinates."""
    image = [stride * n for n in size]
    return from_pixels(to_pixels(from_pixels(pixels, size, convention), image, convention), image)


@dataclass(frozen=True)
class DrawnOn:
    """A target as a code of another convention draws it. `STRIDE` is HRNet's, `UNIT` what DARK's release turned to.

    With `ReadOn` of the same convention around the decoder nothing is lost; a flip test of `STRIDE` needs its shift.
    """

    target: Draws
    convention: Convention
    stride: int = 4

    def __call__(self, labels: Labels, size: Sequence[int]) -> Target:
        """Labels -> Target on a grid of `size` = (H, W)."""
        moved = from_pixels(to_grid(labels.coords, size, self.convention, self.stride), size)
        return self.target(Labels(moved, labels.weight), size)


@dataclass(frozen=True)
class ReadOn:
    """A decoder whose cells lie where a code of another convention has them; see `DrawnOn`."""

    decoder: Callable[[Tensor], Points]
    convention: Convention
    stride: int = 4

    def __call__(self, maps: Tensor) -> Points:
        """(B, J, H, W) -> Points."""
        found, size = self.decoder(maps), maps.shape[-2:]
        return Points(from_grid(to_pixels(found.coords, size), size, self.convention, self.stride), found.score)
