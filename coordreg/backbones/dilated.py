"""Dilated ResNets: finer maps from the same weights, by dilation where the trunk would step (DSNT, section 6.1).

A stage that halves the map is told not to. Its convolutions, and those of later stages, then read every second cell, or
every fourth or eighth, so that each weight meets the same neighbours as before. Nothing is added to the network: the
undilated trunk's answer is found in the dilated one's, in every second, fourth or eighth row and column.
"""

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from coordreg.backbones.resnet import ResNet

#: Output stride -> the stages that stop halving the map, always the last ones.
MODIFIED: dict[int, tuple[str, ...]] = {
    32: (),
    16: ("layer4",),
    8: ("layer3", "layer4"),
    4: ("layer2", "layer3", "layer4"),
}


class DilatedResNet(ResNet):
    """The trunk of a ResNet at a finer stride: (B, 3, H, W) -> (B, channels, H/stride, W/stride), rounded up.

    depth, width, weights: as for ResNet; all depths, and weights can be exchanged with the undilated trunk.
    stride: 32 (undilated), 16, 8 or 4 input pixels a cell; 7, 14, 28 or 56 px at an input of 224.

    Which convolution takes which dilation. Say that the map enters a modified stage with dilation d: 1 for the first
    such stage, then 2, then 4. In the stage's first block, the 3x3 convolution that had the stride 2 takes the stride 1
    and the dilation d, for its input is still laid out as before; the 1x1 convolution on its skip path only loses the
    stride. Every 3x3 convolution after it, in that block and the others of the stage, takes the dilation 2d, and so
    does the first one of the next stage. Zero padding grows with the dilation. A last stage at stride 16, 8 or 4 thus
    ends with dilations 2, 4 or 8.

    In evaluation mode `DilatedResNet(...)(x)[..., ::k, ::k]` with k = 32 / stride is what `ResNet(...)` gives for
    the same weights, for any input size and up to the borders.
    Source: Nibali et al. 2018, section 6.1, after Yu and Koltun 2016; which stages it changes is our reading.
    """

    def __init__(self, depth: int = 34, width: int = 64, stride: int = 8, weights: str | None = None) -> None:
        if stride not in MODIFIED:
            raise ValueError(
                f"DilatedResNet: got stride={stride}, expected one of {', '.join(map(str, MODIFIED))} input pixels a "
                "cell of the map"
            )
        super().__init__(depth, width, weights)
        self.stride = stride
        dilation = 1
        for name in MODIFIED[stride]:
            _dilate(getattr(self, name), dilation)
            dilation *= 2


def _dilate(stage: nn.Sequential, dilation: int) -> None:
    """Change a stage of stride 2 in place to stride 1; its input is laid out with `dilation`, its output with twice."""
    for block in stage:
        assert isinstance(block, BasicBlock | Bottleneck)
        # torchvision refuses to build a BasicBlock with a dilation, so blocks of both kinds are changed after it
        spatial = [block.conv2] if isinstance(block, Bottleneck) else [block.conv1, block.conv2]
        for conv in spatial:
            before = dilation
            if conv.stride == (2, 2):
                dilation, conv.stride = dilation * 2, (1, 1)
            conv.dilation = conv.padding = (before, before)
        if block.downsample is not None:
            block.downsample[0].stride = (1, 1)


__all__ = ["MODIFIED", "DilatedResNet"]
