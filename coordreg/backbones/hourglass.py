"""The stacked hourglass: halve the map to the bottom, come back up, and do it again with what was found.

Newell, Yang and Deng 2016. The stem brings an image to a quarter of its size; each hourglass then gives maps, and all
but the last hand their features and their maps on to the next. Every stack is supervised (see `Staged`).
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from coordreg.method import Stages

#: "default" is torch's, as in the original; "normal" is N(0, 0.001) with zero biases, Sun et al. 2018, section 5.
INITS = ("default", "normal")


def _initialise(module: nn.Module, init: str) -> None:
    if init not in INITS:
        raise ValueError(f"{type(module).__name__}: got init={init!r}, expected one of {', '.join(INITS)}")
    if init == "normal":
        for m in module.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.normal_(m.weight, std=0.001)
                if m.bias is not None:
                    nn.init.zeros_(m.bias)


def stage_bins(owner: str, bins: Sequence[int], stages: int) -> tuple[int, ...]:
    """Depth bins of each stage's output, 1 for each stage where `bins` is empty.

    Raises ValueError, in the name of `owner`, unless there is one positive number a stage.
    """
    if stages < 1:
        raise ValueError(f"{owner}: got {stages} stages, expected at least 1")
    if bins and (len(bins) != stages or min(bins) < 1):
        raise ValueError(
            f"{owner}: got bins={tuple(bins)} for {stages} stages, expected one positive number of depth bins a stage, "
            f"such as {(1,) * (stages - 1) + (64,)}, or () for flat maps"
        )
    return tuple(bins) or (1,) * stages


class Residual(nn.Module):
    """The pre-activation bottleneck: (B, into, H, W) -> (B, out, H, W) by 1x1, 3x3 and 1x1 at out/2 channels.

    Batch normalisation and ReLU come before each convolution; convolutions have biases. Where the channels change the
    skip path is a 1x1 convolution, else nothing.
    """

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        half = out // 2
        self.body = nn.Sequential(
            *(nn.BatchNorm2d(into), nn.ReLU(inplace=True), nn.Conv2d(into, half, 1)),
            *(nn.BatchNorm2d(half), nn.ReLU(inplace=True), nn.Conv2d(half, half, 3, padding=1)),
            *(nn.BatchNorm2d(half), nn.ReLU(inplace=True), nn.Conv2d(half, out, 1)),
        )
        self.skip = nn.Identity() if into == out else nn.Conv2d(into, out, 1)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D h w"]:
        """Features -> features of the same size."""
        return self.body(x) + self.skip(x)


class Hourglass(nn.Module):
    """One hourglass: (B, channels, H, W) -> the same shape, by way of maps `2 ** depth` times smaller.

    At each level one residual keeps the map as it is; another path halves it by max pooling, passes a residual, the
    next level (a residual at the bottom) and a residual, and returns by nearest-neighbour upsampling. The two add up.
    """

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.keep, self.down = Residual(channels, channels), Residual(channels, channels)
        self.inner = Hourglass(channels, depth - 1) if depth > 1 else Residual(channels, channels)
        self.up = Residual(channels, channels)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Features -> features of the same size."""
        low = self.up(self.inner(self.down(F.max_pool2d(x, 2))))
        return self.keep(x) + F.interpolate(low, scale_factor=2.0, mode="nearest")


class HourglassStem(nn.Module):
    """What comes before the first hourglass: (B, 3, H, W) -> (B, width, H/4, W/4).

    7x7 convolution of stride 2, batch normalisation, ReLU; residual; max pooling; two residuals. The channels are
    width/4, width/2, width and width: 64, 128, 256 and 256 at the paper's width. width: a multiple of 8. init: see
    INITS. original: the second residual stays at width/2, as in the authors' Torch code, with 160,512 parameters fewer
    at 256. The paper prints no channels; the default is that of a PyTorch port whose counts later papers quote.
    """

    def __init__(self, width: int = 256, init: str = "default", original: bool = False) -> None:
        super().__init__()
        if width < 8 or width % 8:
            raise ValueError(
                f"HourglassStem: got width={width}, expected a multiple of 8 such as 32 or the paper's 256"
            )
        second = width // 2 if original else width
        self.channels = width
        self.layers = nn.Sequential(
            *(nn.Conv2d(3, width // 4, 7, stride=2, padding=3), nn.BatchNorm2d(width // 4), nn.ReLU(inplace=True)),
            *(Residual(width // 4, width // 2), nn.MaxPool2d(2)),
            *(Residual(width // 2, second), Residual(second, width)),
        )
        _initialise(self, init)

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Normalised images -> features."""
        return self.layers(x)


class Hourglasses(nn.Module):
    """The stacks: features (B, channels, H, W) -> a list of one output a stack, the last being the best.

    channels: those of the stem, an even number. stacks: 8 in the paper. depth: how often each hourglass halves the map;
    H and W must be multiples of `2 ** depth`. bins: () for maps (B, joints, H, W), or one number D a stack for volumes
    (B, joints, D, H, W), joint-major channels; table 8 of Sun et al. 2018 takes (64,) and (1, 64). init: see INITS.

    After each hourglass: a residual, then a 1x1 convolution with batch normalisation and ReLU give its features, and a
    1x1 convolution its maps. The next stack starts from x + 1x1(features) + 1x1(maps), x being where this one started.
    """

    produces = Stages

    def __init__(
        self,
        channels: int,
        joints: int,
        stacks: int = 8,
        depth: int = 4,
        bins: Sequence[int] = (),
        init: str = "default",
    ) -> None:
        super().__init__()
        if channels < 2 or channels % 2:
            raise ValueError(f"Hourglasses: got channels={channels}, expected an even number, those of the stem")
        if joints < 1 or depth < 1:
            raise ValueError(f"Hourglasses: got joints={joints} and depth={depth}, expected at least 1 of each")
        self.channels, self.joints, self.depth, self.flat = channels, joints, depth, not bins
        self.bins = stage_bins("Hourglasses", bins, stacks)
        self.hourglass = nn.ModuleList(Hourglass(channels, depth) for _ in self.bins)
        self.features = nn.ModuleList(
            nn.Sequential(
                Residual(channels, channels),
                *(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)),
            )
            for _ in self.bins
        )
        self.final = nn.ModuleList(nn.Conv2d(channels, joints * d, 1) for d in self.bins)
        self.pass_features = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in self.bins[:-1])
        self.pass_maps = nn.ModuleList(nn.Conv2d(joints * d, channels, 1) for d in self.bins[:-1])
        _initialise(self, init)

    def forward(self, x: Float[Tensor, "B C H W"]) -> list[Tensor]:
        """Features -> maps or volumes of every stack. Raises ValueError for a map that cannot be halved so often."""
        _, channels, height, width = x.shape
        step = 2**self.depth
        if channels != self.channels:
            raise ValueError(
                f"Hourglasses: got features of {channels} channels, expected {self.channels}; give the head the stem's"
                " `channels`"
            )
        if height % step or width % step:
            raise ValueError(
                f"Hourglasses: got a map of {height} x {width} cells, expected multiples of {step} to halve it "
                f"{self.depth} times; use another image size (4 pixels a cell) or a smaller depth"
            )
        outputs: list[Tensor] = []
        for i, (hourglass, features, final) in enumerate(zip(self.hourglass, self.features, self.final, strict=True)):
            found = features(hourglass(x))
            maps = final(found)
            outputs.append(maps if self.flat else maps.unflatten(1, (self.joints, self.bins[i])))
            if i < len(self.pass_maps):
                x = x + self.pass_features[i](found) + self.pass_maps[i](maps)
        return outputs


__all__ = ["INITS", "Hourglass", "HourglassStem", "Hourglasses", "Residual", "stage_bins"]
