"""Feature pyramids and what is cut out of them: maps of one picture at several sizes, and the features of boxes.

Boxes are x0 y0 x1 y1 in torchvision's pixels, whose centres lie at 1/2: the picture's edges are 0 and its size.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign, roi_align
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from coordreg.backbones.levels import STRIDES, MultiScale
from coordreg.coords import crop_affine

#: The pyramid's levels that are pooled and looked at, by torchvision's names, with the strides of `STRIDES`.
NAMES = ("0", "1", "2", "3")
Features = Mapping[str, Tensor]


class Pyramid(nn.Module):
    """A trunk with torchvision's feature pyramid: (B, 3, H, W) -> maps "0" to "3" and "pool", `out_channels` each.

    trunk: as for `MultiScale`. frozen: the trunk's normalisation and its first stage do not learn, as is usual with
    published weights (give the trunk its `weights`) and small batches.
    """

    def __init__(self, trunk: nn.Module, channels: int = 256, frozen: bool = False) -> None:
        super().__init__()
        self.levels, self.frozen, self.out_channels = MultiScale(trunk), frozen, channels
        self.pyramid = FeaturePyramidNetwork(list(self.levels.channels), channels, LastLevelMaxPool())
        if frozen:
            for name, part in trunk.named_modules():
                if isinstance(part, nn.BatchNorm2d) or name in ("conv1", "layer1"):
                    part.requires_grad_(False)

    def train(self, mode: bool = True) -> "Pyramid":
        """As every module's; frozen normalisation stays in evaluation mode."""
        super().train(mode)
        for part in self.levels.modules() if self.frozen else ():
            if isinstance(part, nn.BatchNorm2d):
                part.eval()
        return self

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> OrderedDict[str, Tensor]:
        """Normalised pictures -> features by level, finest first."""
        return self.pyramid(OrderedDict(zip(NAMES, self.levels(x), strict=True)))


def pyramid_levels(features: Features, names: Sequence[str] = NAMES) -> list[Tensor]:
    """The maps of these names. ValueError where one is missing, or is not half as wide and high as the one before."""
    missing = [name for name in names if name not in features]
    if missing:
        raise ValueError(
            f"end to end: no feature level {', '.join(missing)} among {', '.join(features) or 'none'}; give a trunk "
            "whose pyramid delivers all of them, such as Pyramid"
        )
    found = [features[name] for name in names]
    sizes = [tuple(m.shape[-2:]) for m in found]
    if any((h, w) != (2 * i, 2 * j) for (h, w), (i, j) in pairwise(sizes)):
        told = ", ".join(f"{h}x{w}" for h, w in sizes)
        raise ValueError(f"end to end: got feature levels of {told}, expected each half as large as the one before")
    return found


def box_affine(boxes: Float[Tensor, "R 4"]) -> Float[Tensor, "R 2 3"]:
    """From normalised coordinates of boxes x0 y0 x1 y1 to those of the picture. ValueError for a box without area."""
    side = boxes[:, 2:] - boxes[:, :2]
    bad = (~(side > 0)).any(-1).nonzero()
    if len(bad):
        row = int(bad[0])
        told = ", ".join(f"{v:g}" for v in boxes[row].tolist())
        raise ValueError(f"end to end: box {row}, ({told}), has no area; expected x0 < x1 and y0 < y1, in pixels")
    return crop_affine((boxes[:, :2] + boxes[:, 2:]) / 2, side)


class Aligned(MultiScaleRoIAlign):
    """RoIAlign with pixel centres at 1/2, from the level whose cells suit a box: features, boxes -> (R, C, size, size).

    canonical: a box of this side is pooled from the third level, half as large ones from the one below, and so on.
    """

    def __init__(self, size: int, canonical: int = 224, sampling: int = 2) -> None:
        super().__init__(list(NAMES), size, sampling, canonical_scale=canonical)

    def forward(self, x: Features, boxes: list[Tensor], image_shapes: Sequence[tuple[int, int]]) -> Tensor:
        """x: by level. boxes: one (R, 4) a picture, in pixels of the picture. image_shapes: torchvision's, not used."""
        maps, every = pyramid_levels(x, self.featmap_names), torch.cat(boxes)
        image = torch.repeat_interleave(torch.tensor([len(b) for b in boxes], device=every.device))
        rois = torch.cat([image.to(every).unsqueeze(-1), every], -1)
        side = (every[:, 2:] - every[:, :2]).prod(-1).sqrt()
        level = (2 + torch.log2(side / self.canonical_scale) + 1e-6).floor().clamp(0, len(maps) - 1)
        found = maps[0].new_zeros(len(rois), maps[0].shape[1], *self.output_size)
        for i, each in enumerate(maps):
            at = (level == i).nonzero()[:, 0]
            pooled = roi_align(each, rois[at], self.output_size, 1 / STRIDES[i], self.sampling_ratio, aligned=True)
            found = found.index_copy(0, at, pooled.to(found))
        return found


__all__ = ["NAMES", "Aligned", "Features", "Pyramid", "box_affine", "pyramid_levels"]
