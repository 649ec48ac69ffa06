"""A ResNet in several stages, each correcting the maps of the one before (Sun et al. 2018, section 5, "Training").

conv1 to conv3 are computed once. Each stage has a conv4, a conv5 and a head of its own; from the second on it reads the
shared features together with the previous stage's maps.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coordreg.backbones.hourglass import stage_bins
from coordreg.backbones.resnet import DeconvHead, ResNet
from coordreg.method import Stages


class SharedTrunk(ResNet):
    """conv1 to conv3 of a ResNet: (B, 3, H, W) -> (B, channels, H/8, W/8).

    depth, width, weights: as for ResNet, whose `layer2` is the papers' conv3.
    """

    def __init__(self, depth: int = 50, width: int = 64, weights: str | None = None) -> None:
        super().__init__(depth, width, weights)
        self.channels //= 4
        del self.layer3, self.layer4

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Normalised images -> the features that all stages share."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer2(self.layer1(x))


class MultiStage(nn.Module):
    """The stages: shared features (B, C, H, W) -> a list of one output a stage.

    depth, width: those of the SharedTrunk. widths: channels of the transposed convolutions; with two the maps have the
    shared features' size, which more than one stage needs. bins: () for maps (B, joints, H, W), or one number D a stage
    for volumes (B, joints, D, H, W), joint-major channels. weights: torchvision's, for conv4 and conv5 of every stage.

    The paper leaves open what of the maps is passed on and how the added channels start: we pass the head's output as
    it is, before any softmax and with its gradient, and draw the added weights as torchvision draws the rest.
    With one stage this is the plain ResNet with a DeconvHead.
    """

    produces = Stages

    def __init__(
        self,
        depth: int = 50,
        width: int = 64,
        joints: int = 16,
        stages: int = 2,
        widths: Sequence[int] = (256, 256),
        bins: Sequence[int] = (),
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if joints < 1:
            raise ValueError(f"MultiStage: got joints={joints}, expected at least 1")
        self.bins, self.joints, self.flat = stage_bins("MultiStage", bins, stages), joints, not bins
        if stages > 1 and len(widths) != 2:
            raise ValueError(
                f"MultiStage: got {len(widths)} upsamplings with {stages} stages, expected 2: from 1/32 of the image "
                "they reach the 1/8 of the shared features, beside which the next stage reads the maps"
            )
        self.trunks, self.heads = nn.ModuleList(), nn.ModuleList()
        for i, d in enumerate(self.bins):
            trunk = ResNet(depth, width, weights)
            first = trunk.layer3[0]
            self.channels = first.conv1.in_channels
            if i > 0:
                extra = joints * self.bins[i - 1]
                first.conv1 = _widen(first.conv1, extra)
                first.downsample[0] = _widen(first.downsample[0], extra)
            self.trunks.append(nn.Sequential(trunk.layer3, trunk.layer4))
            self.heads.append(DeconvHead(trunk.channels, joints * d, widths))

    def forward(self, x: Float[Tensor, "B C H W"]) -> list[Tensor]:
        """Shared features -> maps or volumes of every stage. Raises ValueError where the two do not fit together."""
        if x.shape[1] != self.channels:
            raise ValueError(
                f"MultiStage: got features of {x.shape[1]} channels, expected {self.channels}; use it behind a "
                "SharedTrunk of the same depth and width"
            )
        if len(self.bins) > 1 and (x.shape[2] % 4 or x.shape[3] % 4):
            raise ValueError(
                f"MultiStage: got shared features of {x.shape[2]} x {x.shape[3]} cells, expected multiples of 4, so "
                "that maps and features have one size; use images whose sides are multiples of 32"
            )
        outputs: list[Tensor] = []
        maps: Tensor | None = None
        for trunk, head, d in zip(self.trunks, self.heads, self.bins, strict=True):
            maps = head(trunk(x if maps is None else torch.cat([x, maps], 1)))
            outputs.append(maps if self.flat else maps.unflatten(1, (self.joints, d)))
        return outputs


def _widen(conv: nn.Conv2d, extra: int) -> nn.Conv2d:
    """The same convolution with `extra` input channels behind the others, which keep their weights."""
    new = nn.Conv2d(
        conv.in_channels + extra,
        conv.out_channels,
        conv.weight.shape[2],
        stride=conv.stride[0],
        padding=conv.weight.shape[2] // 2,
        bias=False,
        device=conv.weight.device,
    )
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    with torch.no_grad():
        new.weight[:, : conv.in_channels] = conv.weight
    return new


__all__ = ["MultiStage", "SharedTrunk"]
