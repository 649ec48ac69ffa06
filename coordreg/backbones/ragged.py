"""The stacked hourglass on maps whose sides halve to odd numbers, such as the 32 x 24 cells of DARK's 128 x 96 images.

Four halvings make 32 x 24 cells 2 x 1, and the way back up would arrive at 32 x 16. Here every level returns to the
size that it started from, by the nearest cell: as in DARK's release, which does so at the level of 4 x 3 cells, and on
maps that halve evenly exactly what `Hourglasses` does.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from coordreg.backbones.hourglass import Hourglass, Hourglasses


class RaggedHourglass(Hourglass):
    """One hourglass, for a map of at least `2 ** depth` cells a side; the same parameters as `Hourglass`."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__(channels, depth)
        if depth > 1:
            self.inner = RaggedHourglass(channels, depth - 1)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Features -> features of the same size."""
        low = self.up(self.inner(self.down(F.max_pool2d(x, 2))))
        return self.keep(x) + F.interpolate(low, size=x.shape[-2:], mode="nearest")


class RaggedHourglasses(Hourglasses):
    """`Hourglasses` for flat maps of any size from `2 ** depth` cells a side on; torch's initial weights."""

    def __init__(self, channels: int, joints: int, stacks: int = 8, depth: int = 4) -> None:
        super().__init__(channels, joints, stacks, depth)
        self.hourglass = nn.ModuleList(RaggedHourglass(channels, depth) for _ in range(stacks))

    def forward(self, x: Float[Tensor, "B C H W"]) -> list[Tensor]:
        """Features -> maps of every stack. Raises ValueError for other channels, or a map that vanishes on the way."""
        least = 2**self.depth
        if x.shape[1] != self.channels or min(x.shape[-2:]) < least:
            raise ValueError(
                f"RaggedHourglasses: got features of {x.shape[1]} channels on {x.shape[-2]} x {x.shape[-1]} cells, "
                f"expected {self.channels} channels, and at least {least} cells a side to halve them {self.depth} times"
            )
        outputs: list[Tensor] = []
        for i, (hourglass, features, final) in enumerate(zip(self.hourglass, self.features, self.final, strict=True)):
            found = features(hourglass(x))
            outputs.append(final(found))
            if i < len(self.pass_maps):
                x = x + self.pass_features[i](found) + self.pass_maps[i](outputs[-1])
        return outputs


__all__ = ["RaggedHourglass", "RaggedHourglasses"]
