"""Halves of batches, photographs in another skeleton, images that stay on the host."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from coordreg.coords import apply_affine
from coordreg.data import pack
from coordreg.data.augment import Augment
from coordreg.data.halves import Halves, HalvesStore, InSpace, halves
from coordreg.data.hosted import Hosted, HostStore
from coordreg.data.skeletons import H36M17, MPII16, Skeleton
from coordreg.data.store import Store
from coordreg.train import batches

SIDE = 6


@dataclass(frozen=True)
class Given:
    """A configuration that opens to what it was given."""

    store: Any

    def open(self) -> Store:
        return self.store


def store(n: int, skeleton: Skeleton, d: int, seed: int = 0, augment: Any = None) -> Store:
    """n pictures whose every byte is the picture's number, with random joints."""
    g = torch.Generator().manual_seed(seed)
    j = len(skeleton)
    return Store(
        images=torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 3, SIDE, SIDE).contiguous(),
        coords=torch.rand(n, j, d, generator=g) * 1.8 - 0.9,
        weight=torch.ones(n, j, d),
        visible=torch.ones(n, j, dtype=torch.bool),
        normaliser=torch.ones(n),
        affine=torch.rand(n, d, d + 1, generator=g),
        pairs=skeleton.pairs,
        joints=skeleton.joints,
        augment=augment,
    )


def numbers(images: torch.Tensor) -> list[int]:
    return (images[:, 0, 0, 0] * 255).round().int().tolist()


# -- another skeleton --------------------------------------------------------------------------------------------------


def test_joints_are_mapped_by_name_and_what_is_unknown_weighs_nothing() -> None:
    flat = store(5, MPII16, 2)
    flat.weight[1, 12], flat.visible[1, 12] = 0, False  # MPII's right shoulder
    flat.coords[1, 12] = torch.nan
    found = InSpace(Given(flat)).open()
    assert found.coords.shape == (5, 17, 3)
    assert (found.joints, found.pairs) == (H36M17.joints, H36M17.pairs)
    # pelvis, ankles, a wrist, the thorax and the head top: numbers of both sets, from their papers
    for theirs, ours in ((6, 0), (0, 3), (5, 6), (10, 16), (15, 13), (7, 8), (9, 10)):
        torch.testing.assert_close(found.coords[:, ours, :2], flat.coords[:, theirs])
        assert torch.equal(found.weight[:, ours, :2], flat.weight[:, theirs])
    assert found.weight[..., 2].abs().max() == 0
    assert found.coords[..., 2].isnan().all()
    assert found.weight[:, 9].abs().max() == 0  # MPII has no nose
    assert not found.visible[:, 9].any()
    spine = (flat.coords[0, 2] + flat.coords[0, 3] + flat.coords[0, 12] + flat.coords[0, 13]) / 4
    torch.testing.assert_close(found.coords[0, 7, :2], spine)
    assert found.weight[:, 7, 0].tolist() == [1, 0, 1, 1, 1]  # one of its four is missing
    assert found.weight[:, 14, 0].tolist() == [1, 0, 1, 1, 1]
    assert found.weight[:, 8].amin(0).tolist() == [1, 1, 0]  # the thorax is labelled itself


def test_the_affine_still_leads_to_the_picture() -> None:
    flat = store(4, MPII16, 2)
    found = InSpace(Given(flat)).open()
    there = apply_affine(found.affine, found.coords.nan_to_num())
    torch.testing.assert_close(there[:, 16, :2], apply_affine(flat.affine, flat.coords)[:, 10])


def test_a_mirror_swaps_the_new_joints(generator: torch.Generator) -> None:
    flat = store(3, MPII16, 2, augment=Augment(flip=1.0, pairs=MPII16.pairs))
    found = InSpace(Given(flat)).open()
    batch = found.batch(torch.arange(3), generator)
    torch.testing.assert_close(batch.labels.coords[:, 13, 0], -found.coords[:, 16, 0])  # wrists
    torch.testing.assert_close(batch.labels.coords[:, 13, 1], found.coords[:, 16, 1])


def test_what_cannot_be_mapped_is_refused() -> None:
    with pytest.raises(ValueError, match=r"InSpace: got coordinates with 3 axes, expected 2; WithoutDepth"):
        InSpace(Given(store(2, H36M17, 3))).open()
    odd = replace(store(2, MPII16, 2), joints=("a",) * 16)
    with pytest.raises(ValueError, match="InSpace: no skeleton has the joints a, a"):
        InSpace(Given(odd)).open()
    with pytest.raises(ValueError, match="got function, expected an Augment"):
        InSpace(Given(store(2, MPII16, 2, augment=lambda *a: a))).open()


# -- halves ------------------------------------------------------------------------------------------------------------


def mixed() -> HalvesStore:
    """Seven in space and three photographs, numbered from 100."""
    photographs = InSpace(Given(store(3, MPII16, 2, seed=1))).open()
    photographs = replace(photographs, images=photographs.images + 100)
    return Halves(Given(store(7, H36M17, 3)), Given(photographs)).open()


def test_a_batch_is_half_and_half() -> None:
    data = mixed()
    assert len(data) == 14
    assert numbers(data.batch(torch.tensor([0, 6, 7, 13, 1, 2])).images) == [0, 6, 0, 101, 101, 102]
    assert numbers(data.batch(torch.tensor([3, 4, 5])).images) == [3, 4, 102]  # the odd one is in space
    one = data.batch(torch.tensor([9]))
    assert numbers(one.images) == [2]
    assert one.labels.coords.shape == (1, 17, 3)


def test_labels_go_with_their_images() -> None:
    data = mixed()
    batch = data.batch(torch.tensor([5, 8, 4, 11]))
    torch.testing.assert_close(batch.labels.coords[0], data.three.coords[5])
    torch.testing.assert_close(batch.labels.coords[2], data.two.coords[1], equal_nan=True)
    assert torch.equal(batch.labels.weight[3], data.two.weight[2])
    torch.testing.assert_close(batch.affine, torch.stack([data.three.affine[5], data.three.affine[1],
                                                          data.two.affine[1], data.two.affine[2]]))  # fmt: skip
    assert batch.visible.shape == (4, 17)
    assert batch.normaliser.shape == (4,)


def test_each_half_is_augmented_by_its_own_rule(generator: torch.Generator) -> None:
    three = store(4, H36M17, 3, augment=Augment(flip=1.0, pairs=H36M17.pairs))
    two = InSpace(Given(store(4, MPII16, 2, augment=Augment(flip=0.0, pairs=MPII16.pairs)))).open()
    batch = halves(three, two).batch(torch.tensor([0, 1]), generator)
    torch.testing.assert_close(batch.labels.coords[0, 16, 0], -three.coords[0, 13, 0])
    torch.testing.assert_close(batch.labels.coords[1, 16], two.coords[1, 16], equal_nan=True)


def test_training_sees_all_images_of_both() -> None:
    data = mixed()
    seen = {n for _, index in batches(len(data), 4, 0, 0, 24) for n in numbers(data.batch(index).images)}
    assert seen == {*range(7), 100, 101, 102}


def test_halves_know_what_they_are_made_of() -> None:
    data = mixed()
    changed = halves(data.three, replace(data.two, normaliser=data.two.normaliser + 1))
    assert data.fingerprint == mixed().fingerprint
    assert changed.fingerprint != data.fingerprint
    assert halves(replace(data.three, normaliser=data.three.normaliser + 1), data.two).fingerprint != data.fingerprint
    moved = data.to("meta")
    assert len(moved) == 14
    assert moved.three.images.device.type == moved.two.coords.device.type == "meta"


def test_halves_that_do_not_fit_are_refused() -> None:
    three = store(2, H36M17, 3)
    with pytest.raises(ValueError, match=r"Halves: got joints .*r_ankle.* expected the same; see InSpace"):
        halves(three, store(2, MPII16, 2))
    with pytest.raises(ValueError, match="Halves: got axes 2 beside 3"):
        halves(three, store(2, H36M17, 2))
    with pytest.raises(ValueError, match=r"Halves: got pairs \(\) beside"):
        halves(three, replace(three, pairs=()))


# -- on the host -------------------------------------------------------------------------------------------------------


def test_a_hosted_store_gives_the_same_batches(generator: torch.Generator) -> None:
    plain = store(5, MPII16, 2, augment=Augment(flip=0.5, rotation=20.0, pairs=MPII16.pairs))
    hosted = Hosted(Given(plain)).open()
    index, other = torch.tensor([4, 0, 2]), torch.Generator().manual_seed(0)
    for mine, there in zip(hosted.batch(index, generator), plain.batch(index, other), strict=True):
        torch.testing.assert_close(mine, there)
    assert hosted.fingerprint == plain.fingerprint


def test_large_images_stay_and_small_ones_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    hosted = Hosted(Given(store(5, MPII16, 2))).open()
    assert hosted.to("meta").images.device.type == "meta"
    monkeypatch.setattr(pack, "IN_MEMORY", 5 * 3 * SIDE * SIDE - 1)
    moved = hosted.to("meta")
    assert isinstance(moved, HostStore)
    assert (moved.images.device.type, moved.coords.device.type) == ("cpu", "meta")
    assert moved.batch(torch.tensor([1, 2])).images.device.type == "meta"
