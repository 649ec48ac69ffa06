"""Two data sets in every batch: half of it people in space, half of it photographs of which x and y are labelled.

`Joined` puts small sets together in memory. Here are a set too large for that and another fourteen times smaller, and
the rule of Sun et al. 2018 (section 5.3): each mini-batch is one half of the one and one half of the other.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from coordreg.coords import Batch, Labels
from coordreg.data.augment import Augment
from coordreg.data.skeletons import SKELETONS, Skeleton, recipe, skeleton
from coordreg.data.store import Store


@dataclass(frozen=True)
class InSpace:
    """A flat data set as one of another skeleton in space: z unlabelled, and joints that it does not determine too.

    data: opens to a store with two axes, whose joints say which skeleton it has. target: the name of the one to take
    on. A joint that is the mean of several counts only where all of them are labelled.
    """

    data: Any
    target: str = "h36m17"

    def open(self) -> Store:
        """The store with NaN and weight 0 in place of what is not known. ValueError for a store that has a depth."""
        store: Store = self.data.open()
        if store.coords.shape[-1] != 2:
            raise ValueError(
                f"InSpace: got coordinates with {store.coords.shape[-1]} axes, expected 2; WithoutDepth hides a depth"
            )
        source, target = _named(store.joints), skeleton(self.target)
        parts = recipe(source, target)
        n = len(store)
        coords, weight = torch.full((n, len(target), 3), torch.nan), torch.zeros(n, len(target), 3)
        visible = torch.zeros(n, len(target), dtype=torch.bool)
        for j, part in enumerate(parts):
            if part:
                coords[:, j, :2] = store.coords[:, list(part)].mean(1)
                weight[:, j, :2] = store.weight[:, list(part)].amin(1)
                visible[:, j] = store.visible[:, list(part)].all(1)
        affine = torch.zeros(n, 3, 4)
        affine[:, :2, :2], affine[:, :2, 3] = store.affine[..., :2], store.affine[..., 2]
        affine[:, 2, 2] = store.affine[:, 0, 0]
        augment = store.augment
        if isinstance(augment, Augment):
            augment = replace(augment, pairs=target.pairs)
        elif augment is not None:
            raise ValueError(f"InSpace: got {type(augment).__name__}, expected an Augment, whose pairs can be replaced")
        return replace(
            store, coords=coords, weight=weight, visible=visible, affine=affine, pairs=target.pairs,
            joints=target.joints, hint=None, augment=augment,
        )  # fmt: skip


def _named(joints: tuple[str, ...]) -> Skeleton:
    """The skeleton with these joints."""
    for known in SKELETONS.values():
        if known.joints == joints:
            return known
    raise ValueError(f"InSpace: no skeleton has the joints {', '.join(joints)}")


@dataclass(frozen=True, eq=False)
class HalvesStore(Store):
    """Batches of which the first half comes from `three` and the second from `two`; twice as long as `three`.

    What a store is asked for besides batches, such as its joints, is that of `three`. Numbers beyond the end of a part
    begin again at its first image, so that permutations of the whole length give random images of both.
    """

    three: Store = field(kw_only=True)
    two: Store = field(kw_only=True)

    def __len__(self) -> int:
        return 2 * len(self.three)

    def batch(self, index: Int[Tensor, " B"], generator: torch.Generator | None = None) -> Batch:
        """(B + 1) // 2 images of `three`, then B // 2 of `two`, each augmented by its own set's rule."""
        here = (len(index) + 1) // 2
        parts = [
            store.batch(rows % len(store), generator)
            for store, rows in ((self.three, index[:here]), (self.two, index[here:]))
            if len(rows)
        ]
        first = parts[0]

        def both(name: str) -> Tensor:
            return torch.cat([getattr(part, name) for part in parts])

        labels = Labels(*(torch.cat(column) for column in zip(*(part.labels for part in parts), strict=True)))
        hint = None if first.hint is None or parts[-1].hint is None else both("hint")
        return Batch(both("images"), labels, both("visible"), both("normaliser"), both("affine"), hint)

    def to(self, device: torch.device | str) -> "HalvesStore":
        """Both halves on another device."""
        return halves(self.three.to(device), self.two.to(device))

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        """The hashes of both halves."""
        return self.three.fingerprint[:8] + self.two.fingerprint[:8]


def halves(three: Store, two: Store) -> HalvesStore:
    """Two stores as one. Raises ValueError where their joints, axes or pairs differ."""
    for name, mine, theirs in (
        ("joints", three.joints, two.joints),
        ("pairs", three.pairs, two.pairs),
        ("axes", three.coords.shape[-1], two.coords.shape[-1]),
    ):
        if mine != theirs:
            raise ValueError(f"Halves: got {name} {theirs} beside {mine}, expected the same; see InSpace")
    return HalvesStore(**{f.name: getattr(three, f.name) for f in fields(Store)}, three=three, two=two)


@dataclass(frozen=True)
class Halves:
    """The configuration: what gives the first half of a batch, and what gives the second."""

    three: Any
    two: Any

    def open(self) -> HalvesStore:
        """Both, opened."""
        return halves(self.three.open(), self.two.open())


__all__ = ["Halves", "HalvesStore", "InSpace", "halves"]
