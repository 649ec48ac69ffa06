"""Channels and shifts: what the papers print beside mirror, turn and zoom."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coordreg.coords import Labels
from coordreg.data.augment import Augment
from coordreg.data.channels import Varied, move
from coordreg.data.mpii import MPII
from coordreg.spec import describe, digest, rebuild

B, J, H, W = 3, 2, 20, 28
PAIRS = ((0, 1),)


def batch(d: int = 2) -> tuple[torch.Tensor, Labels, torch.Tensor]:
    """Pictures with one white pixel at joint 0; joint 1 is unlabelled and NaN."""
    images = torch.zeros(B, 3, H, W)
    coords = torch.full((B, J, d), torch.nan)
    weight = torch.zeros(B, J, d)
    for b, (x, y) in enumerate([(9, 7), (14, 12), (20, 10)]):
        images[b, :, y, x] = 1
        coords[b, 0, :2] = torch.tensor([(2 * x + 1) / W - 1, (2 * y + 1) / H - 1])
        coords[b, 0, 2:] = 0.25
        weight[b, 0] = 1
    return images, Labels(coords, weight), weight[..., 0] > 0


def at(coords: torch.Tensor) -> tuple[int, int]:
    """The pixel of a normalised point."""
    x, y = ((coords + 1) * torch.tensor([W, H]) / 2 - 0.5).round().long().tolist()
    return x, y


@given(st.lists(st.integers(-5, 5), min_size=2 * B, max_size=2 * B), st.sampled_from([2, 3]))
def test_a_joint_and_its_pixel_move_together(steps: list[int], d: int) -> None:
    images, labels, _ = batch(d)
    pixels = torch.tensor(steps).view(B, 2)
    moved, there = move(images, labels, pixels)
    for b in range(B):
        x, y = at(there.coords[b, 0, :2])
        assert (x, y) == tuple(a + s for a, s in zip(at(labels.coords[b, 0, :2]), pixels[b].tolist(), strict=True))
        assert float(moved[b, 0, y, x]) == 1
        assert float(moved[b].sum()) == 3
    assert torch.equal(there.coords[:, 0, 2:], labels.coords[:, 0, 2:])  # depth stays
    assert there.coords[:, 1].isnan().all()
    assert torch.equal(there.weight, labels.weight)


def test_the_border_is_repeated() -> None:
    row = torch.arange(4.0).expand(1, 1, 3, 4)
    labels = Labels(torch.zeros(1, 1, 2), torch.ones(1, 1, 2))
    moved, _ = move(row, labels, torch.tensor([[2, -1]]))
    assert moved[0, 0].tolist() == [[0, 0, 0, 1]] * 3
    moved, _ = move(row, labels, torch.tensor([[-1, 0]]))
    assert moved[0, 0, 0].tolist() == [1, 2, 3, 3]


def test_each_channel_has_a_factor_of_its_own(generator: torch.Generator) -> None:
    """Grey of 0.6: factors from 0.6 to 1.4, all different; what exceeds 1 is cut off."""
    labels, visible = Labels(torch.zeros(400, J, 2), torch.ones(400, J, 2)), torch.ones(400, J, dtype=torch.bool)
    images = torch.full((400, 3, 4, 5), 0.6)
    out, same, _ = Varied(flip=0.0, channels=0.4)(images, labels, visible, generator)
    factors = out[:, :, 0, 0] / 0.6
    assert torch.equal(out, out[:, :, :1, :1].expand_as(out))
    assert torch.equal(same.coords, labels.coords)
    assert 0.6 <= float(factors.min()) < 0.62
    assert 1.38 < float(factors.max()) <= 1.4 + 1e-6
    assert factors.mean(0).tolist() == pytest.approx([1, 1, 1], abs=0.05)
    assert abs(float(torch.corrcoef(factors.T)[0, 1])) < 0.15
    bright, _, _ = Varied(flip=0.0, channels=0.4)(images / 0.6, labels, visible, generator)
    assert float(bright.max()) == 1


def test_shifts_stay_within_their_share_of_the_crop(generator: torch.Generator) -> None:
    """2% of a crop of 100 px out of 120: at most 2 px, in both directions, along each axis."""
    n = 200
    coords, visible = torch.zeros(n, 1, 2), torch.ones(n, 1, dtype=torch.bool)
    shifted = Varied(flip=0.0, shift=0.02, size=100)
    out, labels, _ = shifted(torch.zeros(n, 3, 120, 120), Labels(coords, torch.ones(n, 1, 2)), visible, generator)
    assert out.shape == (n, 3, 100, 100)
    pixels = labels.coords[:, 0] * 50
    assert sorted({round(v, 3) for v in pixels.flatten().tolist()}) == [-2, -1, 0, 1, 2]
    assert len({tuple(p) for p in pixels.round().tolist()}) == 25


def test_depth_is_zoomed_with_the_picture_by_hand(generator: torch.Generator) -> None:
    """Two joints apart along x, and one of depth 0.3: what the zoom makes of the distance, it makes of the depth."""
    n = 6
    coords = torch.tensor([[-0.3, 0.1, 0.3], [0.1, 0.1, -0.2]]).expand(n, 2, 3)
    labels, visible = Labels(coords, torch.ones(n, 2, 3)), torch.ones(n, 2, dtype=torch.bool)
    _, there, _ = Varied(flip=0.0, scale=0.25, shift=0.1)(torch.zeros(n, 3, H, H), labels, visible, generator)
    shrunk = (there.coords[:, 1, 0] - there.coords[:, 0, 0]) / 0.4
    assert float(shrunk.max() - shrunk.min()) > 0.1
    for zoomed, (head, foot) in zip(shrunk.tolist(), there.coords[..., 2].tolist(), strict=True):
        assert 1 / 1.25 <= zoomed <= 1 / 0.75
        assert head == pytest.approx(0.3 * zoomed, abs=1e-5)
        assert foot == pytest.approx(-0.2 * zoomed, abs=1e-5)
    torch.testing.assert_close(there.weight, labels.weight)


@pytest.mark.parametrize("size", [None, 16])
@given(rotation=st.sampled_from([0.0, 30.0]), scale=st.sampled_from([0.0, 0.1, 0.5]), seed=st.integers(0, 99))
def test_a_body_keeps_its_proportions(size: int | None, rotation: float, scale: float, seed: int) -> None:
    """Depth over the distance of two joints, both in pixels of the picture, is what it was, whatever was drawn."""
    gen = torch.Generator().manual_seed(seed)
    flat = 0.4 * torch.rand(B, J, 2, generator=gen) - 0.2
    coords = torch.cat([flat, torch.rand(B, J, 1, generator=gen) + 0.1], -1)
    coords[0, 1, 2] = torch.nan  # a photograph: no depth
    augment = Varied(flip=0.5, rotation=rotation, scale=scale, shift=0.05, channels=0.4, pairs=PAIRS, size=size)
    labels = Labels(coords, torch.ones(B, J, 3))
    _, there, _ = augment(torch.zeros(B, 3, H, H), labels, torch.ones(B, J, dtype=torch.bool), gen)

    def ratio(points: torch.Tensor, side: int) -> torch.Tensor:
        apart = (points[:, 0, :2] - points[:, 1, :2]).norm(dim=-1) * side / 2
        return points[..., 2].sort(-1).values / apart.unsqueeze(-1)

    # a depth of 1 is half the side of what is cut out, not of the stored canvas: cutting alone leaves it as it is
    torch.testing.assert_close(ratio(there.coords, size or H), ratio(coords, H), equal_nan=True, rtol=1e-4, atol=1e-5)


def test_it_is_augment_where_nothing_is_added(generator: torch.Generator) -> None:
    images, labels, visible = batch()
    plain = Augment(flip=0.5, rotation=30.0, scale=0.25, pairs=PAIRS, size=16)
    more = Varied(flip=0.5, rotation=30.0, scale=0.25, pairs=PAIRS, size=16)
    other = torch.Generator().manual_seed(0)
    torch.rand(B, 5, generator=other)  # its own numbers come first
    mine, there = more(images, labels, visible, generator), plain(images, labels, visible, other)
    torch.testing.assert_close(mine, there, equal_nan=True)  # flat labels: no depth to scale
    assert torch.equal(torch.rand(1, generator=generator), torch.rand(1, generator=other))


def test_the_generator_decides() -> None:
    images, labels, visible = batch()
    augment = Varied(flip=0.5, rotation=30.0, scale=0.25, shift=0.1, channels=0.4, pairs=PAIRS)
    first, second, other = (
        augment(images, labels, visible, torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_it_goes_where_augment_goes() -> None:
    augment = Varied(flip=0.5, channels=0.4, shift=0)
    bound = augment.bind(PAIRS, 16)
    assert bound == replace(augment, pairs=PAIRS, size=16)
    assert type(bound) is Varied
    data = MPII(augment=augment)
    assert rebuild(describe(data)) == data
    assert digest(describe(Varied(rotation=30))) == digest(describe(Varied(rotation=30.0)))


@pytest.mark.parametrize("name", ["channels", "shift"])
@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_shares_are_checked(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"Varied: got {name}={value}, expected a share from 0 to 1"):
        Varied(**{name: value})
