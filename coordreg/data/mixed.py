"""Data sets put together: one after the other, or with the depth of one of them unknown."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from coordreg.data.store import Store


@dataclass(frozen=True)
class Joined:
    """Several data sets as one, in order. parts: configurations that `.open()` to stores with the same joints."""

    parts: tuple[Any, ...]

    def open(self) -> Store:
        """The images of all parts. Raises ValueError for parts whose joints, axes or image sizes differ."""
        if not self.parts:
            raise ValueError("Joined: got no parts, expected at least one data set")
        stores = [part.open() for part in self.parts]
        first = stores[0]
        for i, other in enumerate(stores[1:], 1):
            for name in ("images", "coords", "affine"):
                mine, theirs = getattr(first, name).shape[1:], getattr(other, name).shape[1:]
                if mine != theirs:
                    raise ValueError(
                        f"Joined: {name} of part {i} have the shape {tuple(theirs)} but those of part 0 {tuple(mine)}; "
                        "give all parts the same size, skeleton and dims"
                    )
            if other.joints != first.joints or other.augment != first.augment:
                raise ValueError(
                    f"Joined: part {i} differs from part 0 in its joints or augmentation; give all parts the same"
                )
        joined = {
            name: torch.cat([getattr(s, name) for s in stores])
            for name in ("images", "coords", "weight", "visible", "normaliser", "affine")
        }
        hint = None if any(s.hint is None for s in stores) else torch.cat([s.hint for s in stores])
        return Store(**joined, pairs=first.pairs, joints=first.joints, hint=hint, augment=first.augment)


@dataclass(frozen=True)
class WithoutDepth:
    """A data set in space of which x and y are labelled, as photographs are: z is NaN, its weight 0, the hint's z 0."""

    data: Any

    def open(self) -> Store:
        """The store with NaN in place of z. Raises ValueError for a data set without z."""
        store: Store = self.data.open()
        if store.coords.shape[-1] != 3:
            raise ValueError(
                f"WithoutDepth: got coordinates with {store.coords.shape[-1]} axes, expected 3; "
                "give the data set dims=3"
            )
        coords, weight = store.coords.clone(), store.weight.clone()
        coords[..., 2], weight[..., 2] = torch.nan, 0.0
        hint = store.hint
        if hint is not None:
            hint = hint.clone()
            hint[..., 2] = 0.0
        return replace(store, coords=coords, weight=weight, hint=hint)
