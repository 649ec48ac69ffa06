"""HRNet: maps at a quarter of the image's size from the first layer to the last (Sun, Xiao et al., CVPR 2019).

Where a ResNet goes down to 1/32 and a head climbs up again, HRNet never leaves 1/4. Beside that branch it opens slower
ones at 1/8, 1/16 and 1/32, and again and again every branch hears from every other: down by strided convolutions, up by
1x1 convolutions and nearest-neighbour copies. DARK's experiments use it; the last module keeps the finest branch alone.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, relu: bool = True) -> nn.Sequential:
    """Convolution, batch normalisation, and ReLU if asked for."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if relu else []))


def _fuse(inputs: int, outputs: int, channels: Sequence[int]) -> nn.Module:
    """From branch `inputs` to the size and the channels of branch `outputs`."""
    if inputs == outputs:
        return nn.Identity()
    if inputs > outputs:
        up = nn.Upsample(scale_factor=float(2 ** (inputs - outputs)), mode="nearest")
        return nn.Sequential(_conv(channels[inputs], channels[outputs], 1, relu=False), up)
    steps = outputs - inputs
    down = [_conv(channels[inputs], channels[inputs], stride=2) for _ in range(steps - 1)]
    return nn.Sequential(*down, _conv(channels[inputs], channels[outputs], stride=2, relu=False))


class Exchange(nn.Module):
    """One module: residual blocks on every branch, then each branch becomes the sum of all.

    channels: of each branch, finest first. blocks: residual blocks a branch. outputs: how many branches, from the
    finest on, are wanted afterwards.
    """

    def __init__(self, channels: Sequence[int], blocks: int, outputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*(BasicBlock(c, c) for _ in range(blocks))) for c in channels)
        self.fuse = nn.ModuleList(
            nn.ModuleList(_fuse(j, i, channels) for j in range(len(channels))) for i in range(outputs)
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Features of every branch -> features of the branches that are kept."""
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        mixed = []
        for row in self.fuse:
            assert isinstance(row, nn.ModuleList)
            total = row[0](maps[0])
            for convert, x in zip(row[1:], maps[1:], strict=True):
                total = total + convert(x)
            mixed.append(self.relu(total))
        return mixed


class HRNet(nn.Module):
    """The trunk of an HRNet: (B, 3, H, W) -> (B, width, H/4, W/4), H and W multiples of 32; `ConvHead` makes the maps.

    width: channels of the finest branch, 32 and 48 in the papers; the others have 2, 4 and 8 times as many. modules:
    how many `Exchange` modules with two, three and four branches. blocks: residual blocks a branch in each. stem:
    channels of the two strided convolutions at the start. The narrow one of our small profiles has fewer of all.
    """

    def __init__(self, width: int = 32, modules: Sequence[int] = (1, 4, 3), blocks: int = 4, stem: int = 64) -> None:
        super().__init__()
        if width < 1 or blocks < 1 or stem < 1 or len(modules) != 3 or min(modules) < 1:
            raise ValueError(
                f"HRNet: got width={width}, modules={tuple(modules)}, blocks={blocks}, stem={stem}, expected at least "
                "1 of each, and three numbers of modules: with two, three and four branches"
            )
        self.channels = width
        self.stem = nn.Sequential(_conv(3, stem, stride=2), _conv(stem, stem, stride=2))
        first = Bottleneck(stem, stem, downsample=_conv(stem, 4 * stem, 1, relu=False))
        self.layer1 = nn.Sequential(first, *(Bottleneck(4 * stem, stem) for _ in range(blocks - 1)))
        widths = [width * 2**i for i in range(4)]
        self.enter = _conv(4 * stem, width)
        opening = (4 * stem, *widths[1:3])
        self.open = nn.ModuleList(_conv(c, widths[i + 1], stride=2) for i, c in enumerate(opening))
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    Exchange(widths[:branches], blocks, 1 if branches == 4 and m == count - 1 else branches)
                    for m in range(count)
                )
            )
            for branches, count in zip((2, 3, 4), modules, strict=True)
        )
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.normal_(m.weight, std=0.001)

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Normalised images -> features of the finest branch."""
        if any(n % 32 for n in x.shape[-2:]):
            near = tuple(max(32, round(n / 32) * 32) for n in x.shape[-2:])
            raise ValueError(
                f"HRNet: got images of {x.shape[-2]} x {x.shape[-1]} px, expected multiples of 32, since the slowest "
                f"branch halves them five times; the nearest size is {near[0]} x {near[1]}"
            )
        x = self.layer1(self.stem(x))
        maps = [self.enter(x)]
        for i, (start, stage) in enumerate(zip(self.open, self.stages, strict=True)):
            maps = stage([*maps, start(x if i == 0 else maps[-1])])
        return maps[0]


__all__ = ["Exchange", "HRNet"]
