"""Trunks that deliver their features at several sizes: what a decoder with multi-scale attention reads.

A trunk of ours delivers its last features alone. `MultiScale` runs the same layers and keeps what they hold at 1/4,
1/8, 1/16 and 1/32 of the image: Res2 to Res5 of a ResNet, the four branches of an HRNet, and of MobileNet-V2 the last
features before each halving. The trunk's own file and its weights stay as they are.
"""

from jaxtyping import Float
from torch import Tensor, nn

from coordreg.backbones.hrnet import Exchange, HRNet
from coordreg.backbones.mobilenet import MobileNetV2
from coordreg.backbones.resnet import DEPTHS, ResNet

#: How far each level is below the image: Res2, Res3, Res4, Res5.
STRIDES = (4, 8, 16, 32)
#: MobileNet-V2's last layers at 1/4, 1/8, 1/16 and 1/32 of the image, counted in `features`.
MOBILE = (3, 6, 13, 18)


def _run(trunk: nn.Module, x: Tensor) -> list[Tensor]:
    """Features at 1/4, 1/8, 1/16 and 1/32 of the image; of an HRNet those branches that its last module keeps."""
    found = []
    if isinstance(trunk, ResNet):
        x = trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(x))))
        for stage in (trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4):
            x = stage(x)
            found.append(x)
    elif isinstance(trunk, MobileNetV2):
        for i, layer in enumerate(trunk.features):
            x = layer(x)
            if i in MOBILE:
                found.append(x)
    elif isinstance(trunk, HRNet):
        x = trunk.layer1(trunk.stem(x))
        found = [trunk.enter(x)]
        for i, (start, stage) in enumerate(zip(trunk.open, trunk.stages, strict=True)):
            found = stage([*found, start(x if i == 0 else found[-1])])
    return found


def _channels(trunk: nn.Module) -> tuple[int, ...]:
    """Channels of the four levels of a trunk. Raises ValueError for a trunk whose levels nobody has told us."""
    if isinstance(trunk, ResNet) and hasattr(trunk, "layer4"):
        return tuple(trunk.channels // 2**i for i in (3, 2, 1, 0))
    if isinstance(trunk, MobileNetV2):
        return (*(trunk.features[i].out_channels for i in MOBILE[:-1]), trunk.channels)
    if isinstance(trunk, HRNet):
        return hrnet_channels(trunk.channels)
    raise ValueError(
        f"MultiScale: got a {type(trunk).__name__} as trunk, expected a whole ResNet, an HRNet or a MobileNetV2"
    )


def _widen(trunk: HRNet, levels: int) -> None:
    """Have the last module deliver the slowest `levels` branches, where the trunk alone keeps the finest one."""
    last = trunk.stages[-1]
    assert isinstance(last, nn.Sequential)
    assert isinstance(last[-1], Exchange)
    blocks = len(last[-1].branches[0])  # type: ignore[arg-type]
    made = Exchange([trunk.channels * 2**i for i in range(4)], blocks, 4)
    for m in made.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.normal_(m.weight, std=0.001)
    made.fuse = nn.ModuleList(list(made.fuse)[4 - levels :])
    last[-1] = made


def resnet_channels(depth: int, width: int = 64) -> tuple[int, ...]:
    """Channels of Res2 to Res5 of `ResNet(depth, width)`, without building it."""
    if depth not in DEPTHS:
        raise ValueError(f"resnet_channels: got depth={depth}, expected one of {', '.join(map(str, DEPTHS))}")
    return tuple(width * 2**i * DEPTHS[depth][0].expansion for i in range(4))


def hrnet_channels(width: int = 32) -> tuple[int, ...]:
    """Channels of the four branches of `HRNet(width)`, without building it."""
    return tuple(width * 2**i for i in range(4))


def mobile_channels(width: float = 1.0) -> tuple[int, ...]:
    """Channels of MobileNet-V2 at 1/4 to 1/32 of the image; torchvision rounds a narrower one's to multiples of 8."""
    return (24, 32, 96, 1280) if width == 1 else _channels(MobileNetV2(width))


class MultiScale(nn.Module):
    """A trunk's features at several sizes: (B, 3, H, W) -> a list of (B, C_l, h_l, w_l), the finest first.

    trunk: a ResNet, HRNet or MobileNetV2 of this package. levels: how many, 1 to 4, the coarsest ones: 1 is Res5 alone
    and 4 is Res2 to Res5. `channels` holds theirs, finest first.
    """

    def __init__(self, trunk: nn.Module, levels: int = 4) -> None:
        super().__init__()
        if not 1 <= levels <= len(STRIDES):
            raise ValueError(f"MultiScale: got levels={levels}, expected 1 (Res5 alone) to 4 (Res2 to Res5)")
        channels = _channels(trunk)
        if isinstance(trunk, HRNet):
            _widen(trunk, levels)
        self.trunk, self.levels = trunk, levels
        self.channels = channels[4 - levels :]

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """Normalised images -> features, finest first. Raises ValueError for sides that are not multiples of 32."""
        if any(n % STRIDES[-1] for n in x.shape[-2:]):
            raise ValueError(
                f"MultiScale: got images of {x.shape[-2]} x {x.shape[-1]} px, expected multiples of {STRIDES[-1]}, so "
                "that each level is half as wide and as high as the one before"
            )
        return _run(self.trunk, x)[-self.levels :]


__all__ = ["STRIDES", "MultiScale", "hrnet_channels", "mobile_channels", "resnet_channels"]
