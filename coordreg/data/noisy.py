"""Drawn figures whose labels err by a known amount, with the truth beside them: how good can anybody look?"""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from coordreg.data.figures import Figures
from coordreg.data.store import Store


@dataclass(frozen=True, eq=False, kw_only=True)
class NoisyStore(Store):
    """A store that also knows the truth. exact: (N, J, 2) normalised, without the labels' error."""

    exact: Float[Tensor, "N J 2"]


@dataclass(frozen=True)
class Noisy:
    """Figures with a `label_noise`, as a store that keeps the exact joints too; to test on, so without augmentation."""

    data: Figures

    def __post_init__(self) -> None:
        if self.data.augment is not None:
            raise ValueError("Noisy: got figures with an augmentation, which would move labels and not the truth")

    def open(self) -> NoisyStore:
        """The figures' own store, and the truth."""
        store = self.data.open()
        exact = self.data.scene_labels(torch.arange(len(store))).exact
        return NoisyStore(**{f.name: getattr(store, f.name) for f in fields(Store)}, exact=exact)


__all__ = ["Noisy", "NoisyStore"]
