"""A data set in memory: images as bytes, labels as numbers, batches by index."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from coordreg.coords import Batch, Labels, Pairs

#: images (B, 3, H, W) in [0, 1], labels, visible (B, J) and a generator -> the same, augmented.
Augment = Callable[[Tensor, Labels, Tensor, torch.Generator], tuple[Tensor, Labels, Tensor]]


@dataclass(frozen=True, eq=False)
class Store:
    """N images and their labels; see `coords.Batch` for shapes and units.

    images: (N, 3, H, W) bytes. coords, weight: (N, J, d). visible: (N, J). normaliser: (N,). affine: (N, d, d + 1).
    hint: (N, d) or None. pairs: left and right joints. augment: applied where a batch is asked for with a generator.
    """

    images: UInt8[Tensor, "N 3 H W"]
    coords: Float[Tensor, "N J d"]
    weight: Float[Tensor, "N J d"]
    visible: Bool[Tensor, "N J"]
    normaliser: Float[Tensor, " N"]
    affine: Float[Tensor, "N d e"]
    pairs: Pairs
    joints: tuple[str, ...]
    hint: Float[Tensor, "N d"] | None = None
    augment: Augment | None = None

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, index: Int[Tensor, " B"], generator: torch.Generator | None = None) -> Batch:
        """The images with these numbers; augmented if a generator is given and the store has an augmentation."""
        index = index.to(self.images.device)
        images = self.images[index].float() / 255
        labels = Labels(self.coords[index], self.weight[index])
        visible = self.visible[index]
        if generator is not None and self.augment is not None:
            images, labels, visible = self.augment(images, labels, visible, generator)
        hint = None if self.hint is None else self.hint[index]
        return Batch(images, labels, visible, self.normaliser[index], self.affine[index], hint)

    def to(self, device: torch.device | str) -> "Store":
        """The same data on another device."""
        moved: dict[str, Any] = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of every image and label byte."""
        digest = hashlib.sha256()
        for name, value in sorted(vars(self).items()):
            if isinstance(value, Tensor):
                digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
                digest.update(value.detach().cpu().contiguous().numpy().data)
        return digest.hexdigest()[:16]
