"""Chapter 3, the coarse network of Tompson et al. 2015: a window that slides over several resolutions at once.

The picture is halved twice, each copy is contrast-normalised by itself and goes through a bank of convolutions of its
own. The banks' features are brought to one size and added; convolutions that stand in for fully connected layers turn
them into one map a joint. Equation numbers are the chapter's.

No official code exists and our copy of the paper lost the labels of its figures: the layers here are *consistent with
the sizes that the paper prints*, no more. Printed: three levels, contrast normalisation with the same kernel in each,
128 features in the first two convolutions, 2 x 2 max pooling, 2 x 2 upscaling, addition, dropout before the first 1 x 1
convolution; 7 stages of which the last 4 are "fully connected" (FLIC), 11 and 3 (MPII). Ours where it is silent:
5 x 5 kernels with zeros beyond the border, a 9 x 9 kernel as the first of the last stages with 512 features, then 256
and 256, ReLU throughout, torch's own initialisation.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from coordreg.method import MEAN, STD, Maps

#: Local deviations smaller than this count as this much: nothing is divided by zero on plain walls.
FLOOR = 1e-4


def local_contrast(images: Float[Tensor, "B C H W"], kernel: int = 9) -> Float[Tensor, "B C H W"]:
    """Local contrast normalisation: less the local mean, over the local deviation, equation (3.2).

    Mean and deviation are those of a square of `kernel` cells over all channels; near the border, of the part of the
    square that lies in the image (for the deviation Torch7's code divides by that share where the root of it would be
    right, and so do we: borders come out a little flatter). A constant grey image gives exactly 0; of a coloured
    one the channels' differences stay. Half precision is
    normalised in single. Source: Torch7's SpatialContrastiveNormalization as to what is computed; the paper names the
    operation and prints no kernel.
    """
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"local_contrast: got kernel={kernel}, expected an odd number of cells")
    x = images.float() if images.dtype in (torch.float16, torch.bfloat16) else images
    x = x - x[:, :1, :1, :1].detach()  # no offset matters; without one, rounding makes no contrast on plain walls
    share = _box(torch.ones_like(x[:1, :1]), kernel)
    centred = x - _box(x.mean(1, keepdim=True), kernel) / share
    power = _box(centred.square().mean(1, keepdim=True), kernel)
    spread = power.clamp_min((FLOOR * share).square()).sqrt() / share  # clamped below the root: no NaN in gradients
    return (centred / spread).to(images.dtype)


def _box(x: Float[Tensor, "B 1 H W"], kernel: int) -> Float[Tensor, "B 1 H W"]:
    """The sum over a square of `kernel` cells, over the cells of a whole square; nothing lies beyond the border."""
    beyond = F.pad(x, (kernel // 2,) * 4)
    return _runs(_runs(beyond, kernel, -1), kernel, -2) / kernel**2


def _runs(x: Tensor, n: int, dim: int) -> Tensor:
    """Sums of n neighbours along an axis. Runs of 1, 2, 4, ... cells are added up: log2 n additions instead of n."""
    size = x.shape[dim] - n + 1
    parts, start, power = [], 0, 1
    while True:
        if n & power:  # a run of this length is part of the sum
            parts.append(x.narrow(dim, start, size))
            start += power
        if 2 * power > n:
            return sum(parts[1:], parts[0])
        x = x.narrow(dim, 0, x.shape[dim] - power) + x.narrow(dim, power, x.shape[dim] - power)
        power *= 2


def halve(images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
    """Blur with the kernel (1, 3, 3, 1)/8 along each axis and keep every other sample: half the size, same centres.

    Sums of slices, which autocast leaves in single precision, and many times faster than a convolution of so few cells.
    """
    x = F.pad(images, (1, 1, 1, 1), mode="replicate")
    rows = (x[..., :-2:2, :] + x[..., 3::2, :]).add(x[..., 1:-2:2, :] + x[..., 2:-1:2, :], alpha=3)
    return (rows[..., :-2:2] + rows[..., 3::2]).add(rows[..., 1:-2:2] + rows[..., 2:-1:2], alpha=3) / 64


def pyramid(images: Float[Tensor, "B C H W"], levels: int = 3) -> list[Float[Tensor, "B C h w"]]:
    """A Gaussian pyramid, the images themselves first. Raises ValueError for images too small or of odd sides."""
    height, width = images.shape[-2:]
    step = 2 ** max(0, levels - 1)
    if levels < 1 or height % step or width % step or min(height, width) < 4 * step:
        raise ValueError(
            f"pyramid: got images of {height} x {width} px for {levels} levels, expected at least one level and sides "
            f"that are multiples of {step} and at least {4 * step} px"
        )
    found = [images]
    for _ in range(levels - 1):
        found.append(halve(found[-1]))
    return found


class SpatialDropout(nn.Module):
    """Drop whole feature maps, equation (3.3): one trial a map and image instead of one a cell.

    p: the chance that a map is dropped. rescale: "train" divides what stays by 1 - p while training, as all of torch's
    dropout layers do (`torch.nn.Dropout2d` is this very layer); "test" multiplies by 1 - p at test time, as the paper
    says and Torch7 does. Both have the same mean; in training the second one's outputs are smaller by 1 - p.
    """

    def __init__(self, p: float = 0.5, rescale: str = "train") -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"SpatialDropout: got p={p}, expected a chance from 0 to below 1")
        if rescale not in ("train", "test"):
            raise ValueError(f"SpatialDropout: got rescale={rescale!r}, expected 'train' or 'test'")
        self.p, self.rescale = float(p), rescale

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Features -> features, some of them zero in training."""
        if not self.training:
            return x * (1 - self.p) if self.rescale == "test" else x
        if self.p == 0:
            return x
        kept = (torch.rand(*x.shape[:2], 1, 1, device=x.device) >= self.p).to(x.dtype)
        return x * (kept / (1 - self.p) if self.rescale == "train" else kept)

    def extra_repr(self) -> str:
        """What print shows."""
        return f"p={self.p:g}, rescale={self.rescale!r}"


#: Dropout before the first 1 x 1 convolution, by name.
DROPOUTS = ("spatial", "standard", "none")


class Banks(NamedTuple):
    """What the banks hold, the finest first.

    images: contrast-normalised, (B, 3, H / 2^l, W / 2^l). first, second: the outputs of the first two convolutions of
    each bank, before the pooling that follows them, (B, C, ...). top: (B, C, h, w), the banks' last features added up.
    stride: input pixels a cell of `top`.
    """

    images: list[Tensor]
    first: list[Tensor]
    second: list[Tensor]
    top: Tensor
    stride: int


def pools_of(pooling: int, convolutions: int) -> tuple[int, ...]:
    """How often each convolution's output is halved so that all are halved `pooling` times together: early ones first.

    Each is halved at most once, except the last, which takes the rest: 16x pooling of three convolutions is 2, 2, 4.
    The number of features is the same whatever the pooling, as in the paper's figure 9.
    """
    halvings = pooling.bit_length() - 1
    if pooling < 4 or 2**halvings != pooling:
        raise ValueError(f"MultiRes: got pooling={pooling}, expected a power of two, 4 or more; the paper has 4, 8, 16")
    found = [int(i < halvings) for i in range(convolutions)]
    found[-1] += max(0, halvings - convolutions)
    return tuple(found)


class MultiRes(nn.Module):
    """The banks of convolutions over a pyramid: (B, 3, H, W) -> Banks.

    widths: features of each convolution, three on FLIC and eight on MPII, at least two. pooling: 4, 8 or 16.
    levels: resolutions. kernel: cells a side of every convolution. contrast: cells a side of the normalisation's
    square. Banks share no weights. The coarsest bank is pooled as the others are, so that its map is smaller by
    2^(levels - 1), and upscaled by repeating cells. Its last cells may reach beyond the border, as at 8x and 16x
    pooling of FLIC's 320 x 240 px: what they repeat out there is cut off.
    """

    def __init__(
        self,
        widths: Sequence[int] = (128, 128, 128),
        pooling: int = 4,
        levels: int = 3,
        kernel: int = 5,
        contrast: int = 9,
    ) -> None:
        super().__init__()
        if len(widths) < 2 or levels < 1 or kernel % 2 == 0 or contrast % 2 == 0:
            raise ValueError(
                f"MultiRes: got {len(widths)} convolutions, {levels} levels, kernel={kernel} and contrast={contrast}, "
                "expected at least two, at least one, and two odd numbers of cells"
            )
        self.widths, self.pooling, self.levels, self.contrast = tuple(widths), pooling, levels, contrast
        self.pools = pools_of(pooling, len(widths))
        self.channels = widths[-1]
        self.banks = nn.ModuleList(
            nn.ModuleList(
                nn.Conv2d(before, after, kernel, padding=kernel // 2)
                for before, after in zip((3, *widths[:-1]), widths, strict=True)
            )
            for _ in range(levels)
        )

    def check(self, height: int, width: int) -> None:
        """ValueError, with the nearest sizes that fit, for an image that pooling and pyramid do not divide."""
        step = max(self.pooling, 2 ** (self.levels - 1))
        if height % step or width % step:
            least = max(step, 4 * 2 ** (self.levels - 1))  # of the pyramid
            near = " x ".join(str(max(least, step * round(n / step))) for n in (height, width))
            raise ValueError(
                f"MultiRes: got images of {height} x {width} px, expected multiples of {step} px for {self.pooling}x "
                f"pooling and {self.levels} levels; the nearest size is {near}"
            )

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Banks:
        """Images as `Estimator` gives them -> Banks. Its normalisation is undone: local contrast is of the picture."""
        self.check(*x.shape[-2:])
        x = x * x.new_tensor(STD).view(3, 1, 1) + x.new_tensor(MEAN).view(3, 1, 1)
        images = [local_contrast(level, self.contrast) for level in pyramid(x, self.levels)]
        first: list[Tensor] = []
        second: list[Tensor] = []
        top: Tensor | None = None
        for level, features in enumerate(images):
            bank = self.banks[level]
            for i, halvings in enumerate(self.pools):
                features = F.relu(bank[i](features))  # type: ignore[index]
                if i < 2:
                    (first, second)[i].append(features)
                if halvings:
                    features = F.max_pool2d(features, 2**halvings, ceil_mode=True)
            if top is None:
                top = features
            else:
                features = F.interpolate(features, scale_factor=2**level, mode="nearest")
                top = top + features[..., : top.shape[-2], : top.shape[-1]]
        assert top is not None
        return Banks(images, first, second, top, self.pooling)


class SlidingHead(nn.Module):
    """Convolutions in the place of fully connected layers: Banks -> maps (B, J, h, w).

    channels: features of the banks' top. widths: features of these layers; the first has a `kernel` of its own, all
    others see single cells. dropout: "spatial", "standard" or "none" before the first of those, with chance p.
    """

    produces = Maps

    def __init__(
        self,
        channels: int,
        joints: int,
        widths: Sequence[int] = (512, 256, 256),
        kernel: int = 9,
        dropout: str = "spatial",
        p: float = 0.5,
    ) -> None:
        super().__init__()
        if dropout not in DROPOUTS:
            raise ValueError(f"SlidingHead: got dropout={dropout!r}, expected one of {', '.join(DROPOUTS)}")
        if not widths or kernel % 2 == 0:
            raise ValueError(f"SlidingHead: got widths={tuple(widths)}, kernel={kernel}, expected one or more, and odd")
        self.window = nn.Conv2d(channels, widths[0], kernel, padding=kernel // 2)
        self.dropout = {"spatial": SpatialDropout(p), "standard": nn.Dropout(p), "none": nn.Identity()}[dropout]
        self.points = nn.ModuleList(
            nn.Conv2d(before, after, 1) for before, after in zip(widths, (*widths[1:], joints), strict=True)
        )

    def forward(self, banks: Banks) -> Float[Tensor, "B J h w"]:
        """Banks -> one map a joint, of the size of the banks' top."""
        x = self.dropout(F.relu(self.window(banks.top)))
        for i, convolution in enumerate(self.points):
            x = convolution(F.relu(x) if i else x)
        return x


__all__ = [
    "DROPOUTS", "FLOOR", "Banks", "MultiRes", "SlidingHead", "SpatialDropout", "halve", "local_contrast",
    "pools_of", "pyramid",
]  # fmt: skip
