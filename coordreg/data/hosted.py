"""Large sets stay where they are: images in memory or in a file on the host, only a batch's images on the device."""

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from coordreg.coords import Batch, Labels
from coordreg.data import pack
from coordreg.data.store import Store

Kind = TypeVar("Kind", bound=Store)


@dataclass(frozen=True, eq=False)
class HostStore(Store):
    """A store of which more than 1 GiB of images stays on the host, whatever the device."""

    def batch(self, index: Int[Tensor, " B"], generator: torch.Generator | None = None) -> Batch:
        """As `Store.batch`, on the device of the labels; bytes travel, and are augmented there."""
        device = self.coords.device
        images = self.images[index.to(self.images.device)].to(device).float() / 255
        index = index.to(device)
        labels, visible = Labels(self.coords[index], self.weight[index]), self.visible[index]
        if generator is not None and self.augment is not None:
            images, labels, visible = self.augment(images, labels, visible, generator)
        hint = None if self.hint is None else self.hint[index]
        return Batch(images, labels, visible, self.normaliser[index], self.affine[index], hint)

    def to(self: Kind, device: torch.device | str) -> Kind:
        """The same data on another device, large images excepted."""
        large = self.images.numel() > pack.IN_MEMORY
        moved: dict[str, Any] = {
            k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor) and not (k == "images" and large)
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class Hosted:
    """A data set to train on whose images do not fit onto a device: MPII with its margin is 12 GB, COCO 82 GB."""

    data: Any

    def open(self) -> HostStore:
        """The store of `data`, without what its own kind of store knows beyond `Store`."""
        store: Store = self.data.open()
        return HostStore(**{f.name: getattr(store, f.name) for f in fields(Store)})


__all__ = ["HostStore", "Hosted"]
