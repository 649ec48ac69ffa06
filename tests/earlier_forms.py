"""Earlier forms of rewritten definitions, word for word, for the comparison with those that took their place.

The hash of each must be the one in coordreg/rewritten.py, so nothing here may be edited. A second earlier form of one
name goes into a class of its own, as a scope.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from coordreg.coords import Points, from_pixels
from coordreg.heatmap import _cell, peak


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
        height, width = maps.shape[-2:]
        index, score = peak(maps)
        cell, first = _cell(index, width), int(self.border == "published")
        left_up_right_down = torch.tensor([-1, -width, 1, width], device=index.device)
        around = (index.unsqueeze(-1) + left_up_right_down).clamp(0, height * width - 1)
        values = maps.flatten(-2).gather(-1, around)
        inside = (cell > first) & (cell < torch.tensor([width - 1, height - 1], device=index.device))
        if self.border == "published":
            inside = inside.all(-1, keepdim=True)
        move = (values[..., 2:] - values[..., :2]).sign() * (0.25 * inside)
        return Points(from_pixels(cell + move, maps.shape[-2:]), score)


#: By name and hash, as coordreg/rewritten.py lists them.
FORMS = {("coordreg.heatmap.QuarterSign", "e9c3e65a"): QuarterSign}
