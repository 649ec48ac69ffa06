"""ResNets of any depth and width, and the two heads that turn their features into maps.

The blocks are torchvision's. A width-64 trunk takes torchvision's published weights; a width-16 ResNet-18 trains on
small pictures in under a minute on one core.
"""

from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import get_weight
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.resnet import ResNet as TorchvisionResNet

from coordreg.method import Maps

#: Residual blocks in each of the four stages (He et al. 2016, table 1).
DEPTHS: dict[int, tuple[type[BasicBlock | Bottleneck], tuple[int, int, int, int]]] = {
    10: (BasicBlock, (1, 1, 1, 1)),
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


class ResNet(TorchvisionResNet):
    """The trunk of a ResNet: (B, 3, H, W) -> (B, channels, H/32, W/32).

    depth: 18, 34, 50, 101 or 152, or 10 for one block a stage. width: channels of the first stage, 64 in the paper.
    weights: name of torchvision weights such as "ResNet18_Weights.IMAGENET1K_V1" (width 64 only), or None.
    """

    def __init__(self, depth: int = 50, width: int = 64, weights: str | None = None) -> None:
        if depth not in DEPTHS:
            raise ValueError(f"ResNet: got depth={depth}, expected one of {', '.join(map(str, DEPTHS))}")
        if width < 1:
            raise ValueError(f"ResNet: got width={width}, expected at least 1 channel")
        nn.Module.__init__(self)
        self.depth = depth
        block, stages = DEPTHS[depth]
        # torchvision's constructor fixes 64 channels; its _make_layer takes any number
        self._norm_layer, self.groups, self.base_width, self.dilation = nn.BatchNorm2d, 1, 64, 1
        self.inplanes = width
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = self._make_layer(block, width, stages[0])
        self.layer2 = self._make_layer(block, width * 2, stages[1], stride=2)
        self.layer3 = self._make_layer(block, width * 4, stages[2], stride=2)
        self.layer4 = self._make_layer(block, width * 8, stages[3], stride=2)
        self.channels = width * 8 * block.expansion
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
        if weights is not None:
            self._load(weights, width)

    def _load(self, name: str, width: int) -> None:
        if width != 64:
            raise ValueError(f"ResNet: torchvision's weights are for width 64, got width={width}; leave weights out")
        try:
            weights = get_weight(name)
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"ResNet: torchvision has no weights named {name!r}; expected a name such as "
                "ResNet18_Weights.IMAGENET1K_V1"
            ) from error
        try:
            state = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
        except (OSError, HTTPException) as error:  # URLError is an OSError
            raise ValueError(
                f"ResNet: the weights {name} are not in torch's cache and could not be downloaded ({error}); run once "
                "with a network, or copy the file into the folder `hub/checkpoints` of TORCH_HOME"
            ) from error
        except (RuntimeError, EOFError, UnpicklingError) as error:
            raise ValueError(
                f"ResNet: the file of {name} in torch's cache is damaged ({error}); delete "
                f"{Path(weights.url).name} from the folder `hub/checkpoints` of TORCH_HOME and run again"
            ) from error
        try:
            missing, unexpected = self.load_state_dict(state, strict=False)
        except RuntimeError:  # another block, hence other shapes
            missing, unexpected = list(state)[:1], []
        if missing or any(not key.startswith("fc.") for key in unexpected):
            raise ValueError(
                f"ResNet: the weights {name} are those of another depth than {self.depth}; give depth as in their name"
            )

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Normalised images -> features of the last stage."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


def _small_normal(*modules: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """N(0, 0.001) weights and zero biases (SimpleBaseline's initialisation of all that is not pre-trained)."""
    for m in modules:
        nn.init.normal_(m.weight, std=0.001)
        if m.bias is not None:
            nn.init.zeros_(m.bias)


class ConvHead(nn.Module):
    """A 1x1 convolution: (B, channels, h, w) -> maps (B, J, h, w)."""

    produces = Maps

    def __init__(self, channels: int, joints: int) -> None:
        super().__init__()
        self.final = nn.Conv2d(channels, joints, 1)
        _small_normal(self.final)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B J h w"]:
        """Features -> maps of the same size."""
        return self.final(x)


class DeconvHead(nn.Module):
    """SimpleBaseline's head: 4x4 transposed convolutions of stride 2, then 1x1; maps 2, 4 or 8 times the features.

    widths: channels of each transposed convolution, (256, 256, 256) in the paper; one to three of them.
    """

    produces = Maps

    def __init__(self, channels: int, joints: int, widths: Sequence[int] = (256, 256, 256)) -> None:
        super().__init__()
        if not 1 <= len(widths) <= 3:
            raise ValueError(f"DeconvHead: got {len(widths)} upsamplings, expected 1 to 3; use ConvHead for none")
        layers: list[nn.Module] = []
        for width in widths:
            deconv = nn.ConvTranspose2d(channels, width, 4, stride=2, padding=1, bias=False)
            _small_normal(deconv)
            layers += [deconv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
        self.up = nn.Sequential(*layers)
        self.final = nn.Conv2d(channels, joints, 1)
        _small_normal(self.final)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B J H W"]:
        """Features -> maps `2 ** len(widths)` times their size."""
        return self.final(self.up(x))


def head(channels: int, joints: int, widths: Sequence[int] = ()) -> ConvHead | DeconvHead:
    """ConvHead where no upsampling is asked for, else DeconvHead."""
    return DeconvHead(channels, joints, widths) if widths else ConvHead(channels, joints)


def parameters(module: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def trunk_channels(depth: int, width: int = 64) -> int:
    """Channels that `ResNet(depth, width)` delivers, without building it."""
    if depth not in DEPTHS:
        raise ValueError(f"trunk_channels: got depth={depth}, expected one of {', '.join(map(str, DEPTHS))}")
    return width * 8 * DEPTHS[depth][0].expansion


__all__ = ["DEPTHS", "ConvHead", "DeconvHead", "ResNet", "head", "parameters", "trunk_channels"]
