"""Augmentation as DSNT and integral regression use it: channels scaled one by one, a shifted crop, a zoomed depth."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from coordreg.coords import Labels
from coordreg.data.augment import Augment


@dataclass(frozen=True)
class Varied(Augment):
    """`Augment`, and with it three things that it does not know.

    channels: red, green and blue are each multiplied by a number of their own, uniform in 1 +- channels, and clamped to
    [0, 1] (0.4 is the 60% to 140% of Nibali et al. 2018, section 6.3, after Newell et al. 2016). shift: the crop moves
    by up to this share of its side along each axis, in whole pixels (0.02 is the 2% of Sun et al. 2018, section 5).

    Depth goes with `scale`: in a crop of 1.25 times the side a person is drawn at 1/1.25 of the size, and z is divided
    by 1.25 too, as x and y about the middle are, so that the depth of one bin is as many pixels as before. `Augment`
    leaves z alone. Sun et al.'s own code scales it so. No weight changes where z leaves [-1, 1].
    """

    channels: float | int = 0.0
    shift: float | int = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("channels", "shift"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(f"Varied: got {name}={value}, expected a share from 0 to 1")
            object.__setattr__(self, name, float(value))

    def __call__(
        self,
        images: Float[Tensor, "B 3 H W"],
        labels: Labels,
        visible: Bool[Tensor, "B J"],
        generator: torch.Generator,
    ) -> tuple[Tensor, Labels, Tensor]:
        """Shift, then whatever `Augment` does, then scale the depth by its zoom, and the channels."""
        drawn = torch.rand(len(images), 5, generator=generator, device=generator.device)
        spread = (2 * drawn - 1).to(images.device)
        if self.shift:
            side = self.size or min(images.shape[-2:])
            images, labels = move(images, labels, (spread[:, :2] * self.shift * side).round().long())
        ahead = generator.clone_state()  # the third of the six numbers that Augment draws an image is its zoom
        zoom = 1 + self.scale * (2 * torch.rand(len(images), 6, generator=ahead, device=ahead.device)[:, 2] - 1)
        images, labels, visible = super().__call__(images, labels, visible, generator)
        if self.scale and labels.coords.shape[-1] == 3:
            flat, depth = labels.coords[..., :2], labels.coords[..., 2:]
            labels = Labels(torch.cat([flat, depth / zoom.to(depth).view(-1, 1, 1)], -1), labels.weight)
        if self.channels:
            images = (images * (1 + self.channels * spread[:, 2:]).unsqueeze(-1).unsqueeze(-1)).clamp(0, 1)
        return images, labels, visible


def move(
    images: Float[Tensor, "B C H W"], labels: Labels, pixels: Int[Tensor, "B 2"]
) -> tuple[Float[Tensor, "B C H W"], Labels]:
    """Move each picture by whole pixels (x to the right, y down), joints with it; the border is repeated."""
    height, width = images.shape[-2:]
    rows = (torch.arange(height, device=images.device) - pixels[:, 1:]).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) - pixels[:, :1]).clamp(0, width - 1)
    images = images.gather(2, rows.view(-1, 1, height, 1).expand_as(images))
    images = images.gather(3, columns.view(-1, 1, 1, width).expand_as(images))
    step = 2 * pixels.to(labels.coords) / labels.coords.new_tensor([width, height])
    flat = labels.coords[..., :2] + step.unsqueeze(1)
    return images, Labels(torch.cat([flat, labels.coords[..., 2:]], -1), labels.weight)


__all__ = ["Varied", "move"]
