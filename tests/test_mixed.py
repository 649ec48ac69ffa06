"""Data sets put together: order, hints, depth taken away, and parts that do not fit."""

from dataclasses import dataclass, replace

import pytest
import torch

from coordreg.data.augment import Augment
from coordreg.data.figures import Figures
from coordreg.data.mixed import Joined, WithoutDepth
from coordreg.data.skeletons import LSP14
from coordreg.data.store import Store
from coordreg.dsnt import JS
from coordreg.integral import Integral, MarginalOneHot
from coordreg.spec import describe, rebuild

S, J = 8, 3


@dataclass(frozen=True)
class Made:
    """A data set of noise."""

    count: int = 2
    size: int = S
    dims: int = 3
    seed: int = 0
    joints: tuple[str, ...] = ("left", "neck", "right")
    augment: Augment | None = None
    hint: bool = True

    def open(self) -> Store:
        g = torch.Generator().manual_seed(self.seed)
        n, j, d = self.count, len(self.joints), self.dims
        return Store(
            images=torch.randint(0, 256, (n, 3, self.size, self.size), generator=g, dtype=torch.uint8),
            coords=torch.rand(n, j, d, generator=g) - 0.5,
            weight=torch.ones(n, j, d),
            visible=torch.rand(n, j, generator=g) < 0.5,
            normaliser=torch.rand(n, generator=g) + 1,
            affine=torch.rand(n, d, d + 1, generator=g),
            pairs=((0, 2),),
            joints=self.joints,
            hint=torch.rand(n, d, generator=g) if self.hint else None,
            augment=self.augment,
        )


def test_joined_holds_the_images_of_all_parts_in_order() -> None:
    a, b, c = Made(2), Made(4, seed=1), Made(1, seed=2)
    whole = Joined((a, b, c)).open()
    assert len(whole) == 7
    for i, (part, k) in enumerate([(a, 0), (a, 1), (b, 0), (b, 1), (b, 2), (b, 3), (c, 0)]):
        one, alone = whole.batch(torch.tensor([i])), part.open().batch(torch.tensor([k]))
        for name in ("images", "visible", "normaliser", "affine"):
            assert torch.equal(getattr(one, name), getattr(alone, name)), name
        assert torch.equal(one.labels.coords, alone.labels.coords)
        assert torch.equal(one.labels.weight, alone.labels.weight)
    assert (whole.pairs, whole.joints) == (((0, 2),), ("left", "neck", "right"))


def test_joined_has_hints_only_if_all_parts_have() -> None:
    assert Joined((Made(), Made(seed=1, hint=False))).open().hint is None
    assert Joined((Made(hint=False), Made(seed=1))).open().hint is None
    hint = Joined((Made(), Made(seed=1))).open().hint
    assert hint is not None
    assert hint.shape == (4, 3)


def test_joined_has_a_fingerprint_of_its_own() -> None:
    a, b = Made(), Made(seed=1)
    prints = [data.open().fingerprint for data in (a, b, Joined((a, b)), Joined((b, a)), Joined((a, WithoutDepth(b))))]
    assert len(set(prints)) == 5
    assert Joined((a,)).open().fingerprint == a.open().fingerprint


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Made(size=4), r"images of part 1 have the shape \(3, 4, 4\) but those of part 0 \(3, 8, 8\); give all parts"),
        (Made(dims=2), r"coords of part 1 have the shape \(3, 2\) but those of part 0 \(3, 3\)"),
        (Made(joints=("left", "right")), r"coords of part 1 have the shape \(2, 3\) but those of part 0 \(3, 3\)"),
        (Made(joints=("right", "neck", "left")), r"part 1 differs from part 0 in its joints or augmentation"),
        (Made(augment=Augment(flip=0.0)), r"part 1 differs from part 0 in its joints or augmentation; give all part"),
    ],
)
def test_parts_that_do_not_fit_are_refused(other: Made, message: str) -> None:
    with pytest.raises(ValueError, match="Joined: " + message):
        Joined((Made(), other)).open()
    with pytest.raises(ValueError, match=r"Joined: .*part 2 "):
        Joined((Made(), Made(), other)).open()


def test_joined_needs_a_part() -> None:
    with pytest.raises(ValueError, match=r"Joined: got no parts, expected at least one data set"):
        Joined(()).open()


def test_without_depth_takes_away_z_and_nothing_else() -> None:
    full, flat = Made().open(), WithoutDepth(Made()).open()
    assert bool(flat.coords[..., 2].isnan().all())
    assert not flat.weight[..., 2].any()
    assert torch.equal(flat.coords[..., :2], full.coords[..., :2])
    assert torch.equal(flat.weight[..., :2], full.weight[..., :2])
    for name in ("images", "visible", "normaliser", "affine"):
        assert torch.equal(getattr(flat, name), getattr(full, name)), name
    assert flat.hint is not None
    assert full.hint is not None
    assert torch.equal(flat.hint[:, :2], full.hint[:, :2])
    assert not flat.hint[:, 2].any()


def test_without_depth_leaves_the_store_it_was_given_alone() -> None:
    @dataclass(frozen=True)
    class Given:
        store: Store

        def open(self) -> Store:
            return self.store

    store = Made().open()
    before = replace(store, coords=store.coords.clone(), weight=store.weight.clone())
    WithoutDepth(Given(store)).open()
    assert torch.equal(store.coords, before.coords)
    assert torch.equal(store.weight, before.weight)


def test_a_data_set_in_the_plane_has_no_depth_to_take_away() -> None:
    with pytest.raises(ValueError, match=r"WithoutDepth: got coordinates with 2 axes, expected 3; .*dims=3"):
        WithoutDepth(Made(dims=2)).open()


def test_augmentation_moves_x_and_y_as_if_depth_were_there() -> None:
    """An unknown z must not spread into x and y when they are turned."""
    data = Made(4, augment=Augment(rotation=30, scale=0.2).bind(((0, 2),)))
    index = torch.arange(4)
    full = data.open().batch(index, torch.Generator().manual_seed(3))
    flat = WithoutDepth(data).open().batch(index, torch.Generator().manual_seed(3))
    assert torch.equal(full.images, flat.images)
    assert torch.equal(full.labels.coords[..., :2], flat.labels.coords[..., :2])
    assert torch.equal(full.labels.weight[..., :2], flat.labels.weight[..., :2])
    assert not flat.labels.weight[..., 2].any()
    assert not torch.equal(full.labels.coords, data.open().coords)


def test_figures_with_and_without_depth_train_one_volume() -> None:
    """The mixed batch of table 7: everything is finite, and the images without depth have a gradient."""
    solid = Figures(count=2, size=32, dims=3)
    data = Joined((solid, WithoutDepth(Figures(count=2, size=32, dims=3, seed=1)))).open()
    assert data.images.shape == (4, 3, 32, 32)
    assert data.weight[:2].all()
    assert data.weight[2:, :, 2].sum() == 0
    labels = data.batch(torch.arange(4)).labels
    for regulariser, judged in ((MarginalOneHot(), 4), (JS(1.0), 4)):
        z = torch.zeros(4, data.coords.shape[1], 4, 6, 5, requires_grad=True)
        loss = Integral(regulariser, dims=3).loss(z, labels)["loss"]
        (slope,) = torch.autograd.grad(loss, z)
        assert bool(torch.isfinite(slope).all())
        assert int((slope.flatten(1).abs().amax(-1) > 0).sum()) == judged
    with pytest.raises(ValueError, match=r"Joined: coords of part 1 have the shape \(14, 3\) but those of part 0 \(16"):
        Joined((solid, Figures(count=1, size=32, dims=3, skeleton=LSP14))).open()


def test_mixtures_can_be_written_down_and_rebuilt() -> None:
    data = Joined((Figures(count=2, dims=3), WithoutDepth(Figures(count=3, dims=3, seed=1))))
    assert rebuild(describe(data)) == data
