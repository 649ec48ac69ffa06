"""Chapter 3, the windows: cut out of features about each joint, and the fine network that looks into them.

`cascade.py` says about which points and how both networks are trained. Windows that reach beyond the border are filled
with zeros; where a window's edge falls inside a cell of a coarser bank, the nearest cell is taken ("integer") or values
are interpolated ("bilinear"). Equation numbers are the chapter's. Source: Tompson et al., CVPR 2015, section 4.1.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from coordreg.backbones.multires import Banks
from coordreg.coords import Labels, Points, from_pixels, to_pixels


def cut(
    features: Float[Tensor, "B C H W"], start: Int[Tensor, "B J 2"], cells: int
) -> Float[Tensor, "B J C cells cells"]:
    """Windows of whole cells, equation (3.5), one a joint, from `start` = (column, row); zeros beyond the border.

    A cell's gradient is the sum of those of its copies: what autograd makes of it, and the paper's rule for the crop.
    """
    b, c, height, width = features.shape
    reach = torch.arange(cells, device=start.device)
    columns, rows = start[..., :1] + reach, start[..., 1:] + reach  # (B, J, n)
    inside = ((rows >= 0) & (rows < height)).unsqueeze(-1) & ((columns >= 0) & (columns < width)).unsqueeze(-2)
    cell = rows.clamp(0, height - 1).unsqueeze(-1) * width + columns.clamp(0, width - 1).unsqueeze(-2)
    cell = cell + height * width * torch.arange(b, device=start.device).view(b, 1, 1, 1)
    flat = features.permute(0, 2, 3, 1).reshape(b * height * width, c)
    found = flat.index_select(0, cell.flatten()) * inside.flatten().unsqueeze(-1)
    return found.view(*cell.shape, c).permute(0, 1, 4, 2, 3)


def sample(
    features: Float[Tensor, "B C H W"], middle: Float[Tensor, "B J 2"], cells: int
) -> Float[Tensor, "B J C cells cells"]:
    """The same about any point, by bilinear interpolation. middle: normalised coordinates of the window's middle."""
    b, c, height, width = features.shape
    steps = torch.arange(cells, device=middle.device, dtype=middle.dtype) - (cells - 1) / 2
    columns = middle[..., :1] + steps * (2 / width)
    rows = middle[..., 1:] + steps * (2 / height)
    j = middle.shape[1]
    grid = torch.stack(
        [columns.unsqueeze(-2).expand(b, j, cells, cells), rows.unsqueeze(-1).expand(b, j, cells, cells)], -1
    )
    at = grid.flatten(1, 2)  # in its own precision: places in bfloat16 are half a pixel off
    found = F.grid_sample(features.to(at.dtype), at, padding_mode="zeros", align_corners=False)
    return found.to(features.dtype).view(b, c, j, cells, cells).transpose(1, 2)


class Window(NamedTuple):
    """What one level of refinement saw and said.

    middle: (B, J, 2) normalised. half: (2,) half of the window's side along x and y, normalised: a point at `local` in
    [-1, 1] of the window lies at middle + half * local. maps: (B, J, n, n), one cell an input pixel.
    """

    middle: Tensor
    half: Tensor
    maps: Tensor


def locate(window: Window, found: Points) -> Float[Tensor, "B J 2"]:
    """A point of the window -> normalised coordinates of the image."""
    return window.middle + window.half * found.coords


def local(window: Window, labels: Labels) -> Labels:
    """Labels in the window's own coordinates; weight 0 where the joint lies outside it, equation (3.6)."""
    coords = (labels.coords - window.middle) / window.half
    inside = (coords.abs() <= 1).all(-1, keepdim=True)
    return Labels(torch.where(inside, coords, 0.0), labels.weight * inside)


# -- the fine network --------------------------------------------------------------------------------------------------


class Own(nn.Module):
    """A 1 x 1 convolution with one output for each joint by itself: (B, J, n, C) -> (B, J, n). As torch's initialised.

    What a grouped `nn.Conv1d` of (B, J C, n) computes, in the order in which the cells' features already lie.
    """

    def __init__(self, joints: int, channels: int) -> None:
        super().__init__()
        reach = channels**-0.5
        self.weight = nn.Parameter(torch.empty(joints, channels).uniform_(-reach, reach))
        self.bias = nn.Parameter(torch.empty(joints).uniform_(-reach, reach))

    def forward(self, x: Float[Tensor, "B J n C"]) -> Float[Tensor, "B J n"]:
        """Features of each joint's window -> its map."""
        return (x @ self.weight.unsqueeze(-1)).squeeze(-1) + self.bias.unsqueeze(-1)


class FineNet(nn.Module):
    """The refinement: windows of the first two convolutions of every bank -> one map of `window` x `window` a joint.

    Each window goes through two convolutions (its own for each of the inputs, the same for every joint), is repeated up
    to the window's size in pixels and added to the others; two 1 x 1 convolutions follow, the last with weights of its
    own for each joint. Those are the four layers that the paper counts, and with two levels and a window of 36 px the
    sizes that it prints: 36, 18, 18 and 9 cells a side.

    joints; channels: features of the banks' first two convolutions. window: side in input pixels, a multiple of the
    coarsest input's cell. levels: banks that are cut. widths: features of the two convolutions. cut: "integer" or
    "bilinear". source: "features", or "image": windows of the contrast-normalised pyramid itself, for the standard
    cascade of figure 13; `extra` is then the width of the convolution that comes first, so that both can be given the
    same number of parameters (`equal_width`).
    """

    def __init__(
        self,
        joints: int,
        channels: tuple[int, int] = (128, 128),
        window: int = 36,
        levels: int = 2,
        widths: tuple[int, int] = (64, 128),
        kernel: int = 5,
        cut: str = "integer",
        source: str = "features",
        extra: int = 0,
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"FineNet: got kernel={kernel}, expected an odd number of cells")
        if cut not in ("integer", "bilinear") or source not in ("features", "image"):
            raise ValueError(
                f"FineNet: got cut={cut!r}, source={source!r}, expected 'integer' or 'bilinear', 'features' or 'image'"
            )
        if (source == "image") != (extra > 0):
            raise ValueError(
                f"FineNet: got source={source!r} with extra={extra}; only the standard cascade, source='image', has "
                "a first convolution of its own, and must have one"
            )
        if source == "features":
            self.strides = [2**level * step for level in range(levels) for step in (1, 2)]
            inputs = [channels[i] for _ in range(levels) for i in (0, 1)]
        else:
            self.strides, inputs = [2**level for level in range(levels)], [3] * levels
        if not self.strides or window < 1 or window % self.strides[-1]:
            step = self.strides[-1] if self.strides else 1
            near = max(step, step * round(window / step))
            raise ValueError(
                f"FineNet: got window={window} px for {levels} levels, expected at least one level and a multiple of "
                f"{step} px, the coarsest input's cell; the nearest is {near}"
            )
        self.window, self.levels, self.cut, self.source, self.joints = window, levels, cut, source, joints
        self.inputs = nn.ModuleList()
        for channel in inputs:
            chain = [channel, *([extra] if extra else []), *widths]
            layers: list[nn.Module] = []
            for before, after in pairwise(chain):
                layers += [nn.Conv2d(before, after, kernel, padding=kernel // 2), nn.ReLU(inplace=True)]
            self.inputs.append(nn.Sequential(*layers))
        self.mix = nn.Conv2d(widths[1], widths[1], 1)
        self.last = Own(joints, widths[1])

    def check(self, banks: Banks, joints: int) -> None:
        """ValueError for a window larger than the image, too few banks or another number of joints."""
        height, width = banks.images[0].shape[-2:]
        if joints != self.joints or len(banks.images) < self.levels:
            raise ValueError(
                f"FineNet: got {joints} joints and {len(banks.images)} banks, expected {self.joints} joints and at "
                f"least {self.levels} banks; give FineNet the coarse head's joints and at most the backbone's levels"
            )
        if self.window > min(height, width):
            raise ValueError(
                f"FineNet: got a window of {self.window} px for images of {height} x {width} px, expected one that "
                "fits inside; give a smaller window or larger images"
            )

    def forward(self, banks: Banks, about: Float[Tensor, "B J 2"]) -> Window:
        """Windows about normalised points -> Window. Where a window lies is not differentiated."""
        self.check(banks, about.shape[1])
        height, width = size = banks.images[0].shape[-2:]
        pixel = to_pixels(about.detach(), size) - (self.window - 1) / 2  # of the window's first cell
        first = torch.floor(pixel + 0.5) if self.cut == "integer" else pixel
        middle = from_pixels(first + (self.window - 1) / 2, size)
        pairs = zip(banks.first[: self.levels], banks.second[: self.levels], strict=True)
        sources = banks.images[: self.levels] if self.source == "image" else [x for pair in pairs for x in pair]
        total: Tensor | None = None
        for features, stride, layers in zip(sources, self.strides, self.inputs, strict=True):
            cells = self.window // stride
            if self.cut == "integer":
                window = cut(features, torch.floor(first / stride + 0.5).long(), cells)
            else:
                window = sample(features, middle, cells)
            found = layers(window.flatten(0, 1))
            found = F.interpolate(found, scale_factor=stride, mode="nearest") if stride > 1 else found
            total = found if total is None else total + found
        assert total is not None
        b = len(about)
        mixed = F.relu(self.mix(total)).permute(0, 2, 3, 1).reshape(b, self.joints, self.window**2, -1)
        maps = self.last(mixed).view(b, self.joints, self.window, self.window)
        half = torch.tensor([self.window / width, self.window / height], device=maps.device, dtype=middle.dtype)
        return Window(middle, half, maps)


def equal_width(head: FineNet, target: int) -> int:
    """The width of the standard cascade's first convolution with which it has as nearly as can be `target` parameters.

    head: a standard FineNet of any width, which gives all other sizes. Raises ValueError where none comes near.
    """
    if head.source != "image":
        raise ValueError(
            f"equal_width: got a FineNet of source={head.source!r}, expected 'image'; others have no width"
        )
    count = sum(p.numel() for p in head.parameters())
    own = head.inputs[0][0].out_channels  # type: ignore[index]
    one = sum(p.numel() for layers in head.inputs for p in layers[0].parameters()) // own  # type: ignore[index]
    one += sum(layers[2].weight.numel() for layers in head.inputs) // own  # type: ignore[index]
    width = own + round((target - count) / one)
    if width < 1:
        raise ValueError(f"equal_width: got a target of {target} parameters, which is less than all other layers have")
    return int(width)


__all__ = ["FineNet", "Window", "cut", "equal_width", "local", "locate", "sample"]
