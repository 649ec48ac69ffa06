"""MobileNet-V2 as a trunk: torchvision's features without its classifier (Sandler et al. 2018)."""

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import mobilenet_v2

from coordreg.backbones.weights import published


class MobileNetV2(nn.Module):
    """The trunk of MobileNet-V2: (B, 3, H, W) -> (B, channels, H/32, W/32), 1280 channels at width 1.

    width: torchvision's `width_mult`, a factor on all channels; the last layer keeps 1280 unless it is above 1.
    weights: name of torchvision weights such as "MobileNet_V2_Weights.IMAGENET1K_V1" (width 1 only), or None.
    """

    def __init__(self, width: float = 1.0, weights: str | None = None) -> None:
        super().__init__()
        if not width > 0:
            raise ValueError(f"MobileNetV2: got width={width}, expected a factor above 0")
        made = mobilenet_v2(width_mult=width)
        if weights is not None:
            if width != 1:
                raise ValueError(
                    f"MobileNetV2: torchvision's weights are for width 1, got width={width}; leave weights out"
                )
            try:
                made.load_state_dict(published(weights, "MobileNet_V2_Weights.IMAGENET1K_V1"))
            except RuntimeError as error:
                raise ValueError(f"MobileNetV2: the weights {weights} are those of another network") from error
        self.features, self.channels = made.features, made.last_channel

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Normalised images -> features of the last layer."""
        return self.features(x)


__all__ = ["MobileNetV2"]
