"""Chapter 4's application: DSNT as the localisation network of a Spatial Transformer (Jaderberg et al. 2015).

A network that must say what is in an image first decides where to look: a localisation network gives the centre of a
glimpse, `grid_sample` cuts it out, and a classifier sees nothing else. Only the class is supervised; the place is
learnt because the gradient of the classifier's loss passes through the sampler into the coordinates, and through them
into the map. Heatmap matching has no place here, as nobody knows the target of the map (DSNT, section 2.2).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from coordreg.coords import Labels, Pairs, Points, crop, crop_affine, to_pixels
from coordreg.expectation import soft_argmax
from coordreg.method import Maps, Method, Vectors

# -- the sampler -------------------------------------------------------------------------------------------------------


def glimpse(images: Float[Tensor, "B C H W"], at: Float[Tensor, "B 2"], side: int) -> Float[Tensor, "B C side side"]:
    """Squares of `side` pixels about the points `at` (normalised), at the image's own scale; 0 beyond its border.

    Bilinear, so that the gradient with respect to `at` is the difference of neighbouring pixels, summed over the
    glimpse: it says nothing about what lies more than a pixel outside. Raises ValueError for a side that does not fit.
    """
    if not 1 <= side <= min(images.shape[-2:]):
        raise ValueError(f"glimpse: got side={side} for images of {tuple(images.shape[-2:])} pixels; it must fit in")
    centre = to_pixels(at, images.shape[-2:])
    return crop(images, crop_affine(centre, torch.full_like(centre, side)), (side, side))


# -- where to look: layers with one interface, features -> (B, 1, 2) ---------------------------------------------


class Expected(nn.Module):
    """DSNT as a layer: the mean of one softmax map. No parameters of its own beyond the head's that makes the map.

    maps: a head that makes maps (B, J, H, W). Its rival with the same interface is `coordreg.dsnt.FullyConnected`.
    """

    produces = Vectors

    def __init__(self, maps: nn.Module) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, features: Tensor) -> Float[Tensor, "B J 2"]:
        """Features -> coordinates."""
        _, mean = soft_argmax(self.maps(features))
        return mean


class Middle(nn.Module):
    """No transformer: always the middle of the image."""

    produces = Vectors

    def forward(self, features: Tensor) -> Float[Tensor, "B 1 2"]:
        """Features -> zeros."""
        return features.new_zeros(len(features), 1, 2)


# -- the network -------------------------------------------------------------------------------------------------------


class Look(NamedTuple):
    """at: (B, 2) normalised, where the network looks. glimpse: (B, 3, side, side), what it sees there."""

    at: Tensor
    glimpse: Tensor


def trunk(width: int = 16) -> nn.Sequential:
    """A small convolutional network for the localiser, stride 4: (B, 3, H, W) -> (B, 2 width, H/4, W/4).

    Each cell sees 23 pixels of the image and, but for the border, is computed in the same way wherever it lies.
    """
    layers: list[nn.Module] = []
    channels = 3
    for out, stride in ((width, 2), (2 * width, 2), (2 * width, 1), (2 * width, 1)):
        layers += [nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
        channels = out
    return nn.Sequential(*layers)


class Transformer(nn.Module):
    """A Spatial Transformer that translates: localisation network, then sampler. The backbone of an Estimator.

    trunk: images -> features. locate: features -> (B, 1, 2), one of `Expected`, `FullyConnected`, `Middle`.
    side: of the glimpse in pixels.
    """

    def __init__(self, trunk: nn.Module, locate: nn.Module, side: int = 28) -> None:
        super().__init__()
        if getattr(locate, "produces", None) is not Vectors:
            raise ValueError(
                f"Transformer: {type(locate).__name__} does not produce Vectors; a map needs `Expected` or "
                "`FullyConnected` around it to become coordinates"
            )
        self.trunk, self.locate, self.side = trunk, locate, side

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Look:
        """Images -> where the network looks and what it sees. Raises ValueError for more than one point an image."""
        at = self.locate(self.trunk(images))
        if tuple(at.shape) != (len(images), 1, 2):
            raise ValueError(
                f"Transformer: got points of shape {tuple(at.shape)}, expected {(len(images), 1, 2)}: one (x, y) an "
                "image; give the localiser a head with one map"
            )
        return Look(at[:, 0], glimpse(images, at[:, 0], self.side))


class Sightings(Maps):
    """For each class, where it would be and how likely it is: (B, J, 3) with x, y and a logit; x and y are shared."""

    ndim = 3


class Classifier(nn.Module):
    """Two convolutions and a linear layer over the glimpse. The head of an Estimator: Look -> (B, J, 3)."""

    produces = Sightings

    def __init__(self, classes: int, side: int = 28, width: int = 16) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU(inplace=True),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2 * width * (side // 4) ** 2, classes),
        )  # fmt: skip

    def forward(self, look: Look) -> Float[Tensor, "B J 3"]:
        """A glimpse and its place -> for each class x, y and a logit."""
        logits: Tensor = self.net(look.glimpse)
        at = look.at.unsqueeze(1).expand(-1, logits.shape[1], -1)
        return torch.cat([at.to(logits.dtype), logits.unsqueeze(-1)], -1)


# -- the method --------------------------------------------------------------------------------------------------------


class Recognise(Method):
    """Cross-entropy on the class alone. A data set has a "joint" for each class, and labels the one that is there.

    Of the labels only the weights are read, never a coordinate: these may be NaN.
    """

    reads = Sightings

    def encode(self, labels: Labels, size: Sequence[int] = ()) -> Int[Tensor, " B"]:
        """The number of the class that is there. Raises ValueError for an image with none or several."""
        there = labels.weight.amin(-1) > 0
        count = there.sum(1)
        if bool((count != 1).any()):
            bad = int((count != 1).nonzero()[0])
            raise ValueError(
                f"Recognise: image {bad} has {int(count[bad])} classes with a weight above 0, expected exactly 1; "
                "give the weight 1 to the class that is there and 0 to the others"
            )
        return there.long().argmax(1)

    def loss(self, output: Tensor, labels: Labels) -> dict[str, Tensor]:
        """The mean cross-entropy of the logits."""
        self._check(output)
        if output.shape[:2] != labels.weight.shape[:2]:
            raise ValueError(
                f"Recognise: got an output of shape {tuple(output.shape)} for labels of {tuple(labels.weight.shape)}; "
                "the classifier's classes and the data set's must agree"
            )
        loss = F.cross_entropy(output[..., 2].float(), self.encode(labels))
        return {"class": loss, "loss": loss}

    def decode(self, output: Tensor) -> Points:
        """Where the network looked, the same for all classes, and the probability of each."""
        self._check(output)
        output = output.float()
        return Points(output[..., :2], output[..., 2].softmax(1))

    def unflip(self, output: Tensor, pairs: Pairs) -> Tensor:
        """Refused with ValueError: a mirrored letter is another sign."""
        raise ValueError("Recognise: a flip test needs classes that survive a mirror; read it without one")

    def _check(self, output: Tensor) -> None:
        if output.ndim != 3 or output.shape[-1] != 3:
            raise ValueError(
                f"Recognise: got an output of shape {tuple(output.shape)}, expected (B, J, 3): x, y and a logit for "
                "each of J classes, as `Classifier` gives it"
            )
