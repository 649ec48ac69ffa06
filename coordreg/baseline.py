"""The network that does not look: the same pose for every image, the mean of the training labels.

What it scores says how much of a score is owed to the data set and its crop rule, and how much to a method.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coordreg.coords import Labels, Points
from coordreg.method import Method, Vectors


class Blind(nn.Module):
    """A backbone that passes on the number of images and nothing else: (B, 3, H, W) -> (B, 0)."""

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 0"]:
        """Normalised images -> an empty feature vector each."""
        return images.new_zeros(len(images), 0)


class OnePose(nn.Module):
    """A head with one trainable pose: (B, 0) -> (B, J, d), the same for all."""

    produces = Vectors

    def __init__(self, joints: int, dims: int = 2) -> None:
        super().__init__()
        self.pose = nn.Parameter(torch.zeros(joints, dims))

    def forward(self, features: Float[Tensor, "B 0"]) -> Float[Tensor, "B J d"]:
        """Features -> the pose, once an image."""
        return self.pose.expand(len(features), -1, -1)


class MeanPose(Method):
    """Squared error on the coordinates: with `Blind` and `OnePose` its minimum is the mean pose."""

    reads = Vectors

    def encode(self, labels: Labels, size: Sequence[int]) -> Tensor:
        """The coordinates themselves."""
        return labels.coords

    def loss(self, output: Tensor, labels: Labels) -> dict[str, Tensor]:
        """Mean squared error over the labelled axes, in normalised units."""
        known = labels.weight > 0
        error = (output.float() - torch.where(known, labels.coords, 0)).square() * labels.weight
        loss = torch.where(known, error, 0).sum() / labels.weight.sum().clamp_min(1)
        return {"squared": loss, "loss": loss}

    def decode(self, output: Any) -> Points:
        """The pose, with score 1."""
        return Points(output.float(), torch.ones_like(output[..., 0]))
