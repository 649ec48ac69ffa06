"""Scenes of several people: determinism, boxes and areas against pixels, the store's columns, the cache, errors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coordreg.coords import apply_affine, swap, to_pixels
from coordreg.data import crowds
from coordreg.data.crowds import Crowd, Crowds, CrowdStore, extent, people
from coordreg.data.skeletons import COCO17
from coordreg.spec import describe, digest, rebuild

SIZE = 64
FEW = torch.arange(10)


@pytest.fixture(scope="module")
def scene() -> Crowd:
    return Crowds(split="test", size=SIZE).scene(FEW)


@pytest.fixture(scope="module")
def store(scene: Crowd) -> CrowdStore:
    return Crowds(split="test", size=SIZE, places=4)._store(scene)


def test_a_scene_does_not_depend_on_its_batch(scene: Crowd) -> None:
    rows = torch.tensor([7, 2])
    again = Crowds(split="test", size=SIZE).scene(rows)
    for name, mine, theirs in zip(Crowd._fields, scene, again, strict=True):
        assert torch.equal(mine[rows], theirs), name


def test_splits_and_seeds_differ(scene: Crowd) -> None:
    others: list[dict[str, Any]] = [{"split": "train"}, {"split": "test", "seed": 1}]
    for other in others:
        assert not torch.equal(Crowds(size=SIZE, **other).scene(FEW[:1]).joints, scene.joints[:1])


def test_two_or_three_people_stand_in_the_picture(scene: Crowd) -> None:
    count = scene.present.sum(1)
    assert set(count.tolist()) == {2, 3}
    assert scene.present[:, :2].all()
    assert (scene.joints[scene.present].abs() < 1).all()
    boxes = scene.boxes[scene.present]
    assert (boxes.abs() <= 1).all()
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    from_left = scene.joints[..., 0].mean(-1)
    assert (from_left[:, 0] < from_left[:, 1]).float().mean() > 0.9
    assert (scene.area[scene.present] > 20).all()
    assert (scene.area[~scene.present] == 0).all()


def test_visible_joints_lie_in_the_box_and_hidden_ones_may_not() -> None:
    scene = Crowds(split="val", size=SIZE, occlusion=1.0, spacing=(0.3, 0.5)).scene(torch.arange(12))
    low, high = scene.boxes[:, :, None, :2], scene.boxes[:, :, None, 2:]
    inside = ((scene.joints > low - 3 / SIZE) & (scene.joints < high + 3 / SIZE)).all(-1)
    assert inside[scene.visible].float().mean() > 0.99
    hidden = ~scene.visible & scene.present.unsqueeze(-1)
    assert hidden.float().mean() > 0.1
    assert (~inside)[hidden].any()


def test_occlusion_and_clutter_leave_the_people_alone(scene: Crowd) -> None:
    empty = Crowds(split="test", size=SIZE, occlusion=0.0, clutter=0.0)
    drawn = empty.scene(FEW[:2])
    assert torch.equal(drawn.joints, scene.joints[:2])
    assert (drawn.visible | ~drawn.present.unsqueeze(-1)).float().mean() >= scene.visible[:2].float().mean()
    assert (drawn.area >= scene.area[:2]).all()  # nothing stands in the way


MASKS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(0, 4), st.integers(0, 6)), max_size=8)


@settings(max_examples=30, deadline=None)
@given(MASKS)
def test_extent_is_the_outer_edge_of_the_pixels(cells: list[tuple[int, int, int, int]]) -> None:
    masks = torch.zeros(2, 3, 5, 7, dtype=torch.bool)
    for cell in cells:
        masks[cell] = True
    found = extent(masks)
    for b in range(2):
        for p in range(3):
            mine = [(row, column) for i, q, row, column in cells if (i, q) == (b, p)]
            if not mine:
                assert found[b, p].tolist() == [0, 0, 0, 0]
                continue
            rows, columns = zip(*mine, strict=True)
            edges = [min(columns) / 7, min(rows) / 5, (max(columns) + 1) / 7, (max(rows) + 1) / 5]
            torch.testing.assert_close(found[b, p], 2 * torch.tensor(edges) - 1)


# -- the store --------------------------------------------------------------------------------------------------------


def test_the_columns_are_people_and_their_boxes(scene: Crowd, store: CrowdStore) -> None:
    assert store.coords.shape == (10, 4 * 19, 2)
    assert store.places == 4
    joints, corners = people(store.coords, 4)
    weight, whole = people(store.weight, 4)
    here = store.area > 0
    assert torch.equal(here[:, :3], scene.present)
    assert not here[:, 3].any()
    assert torch.equal(joints[:, :3][scene.present], scene.joints[scene.present])
    assert torch.equal(corners[:, :3].flatten(2)[scene.present], scene.boxes[scene.present])
    assert torch.equal(weight.amin((-2, -1)) > 0, here)
    assert torch.equal(whole.amax((-2, -1)) > 0, here)
    assert store.coords[store.weight == 0].eq(0).all()
    torch.testing.assert_close(store.normaliser, store.area.amax(1).sqrt())
    torch.testing.assert_close(apply_affine(store.affine, store.coords), to_pixels(store.coords, (SIZE, SIZE)))


def test_pairs_are_left_and_right_of_the_same_person(store: CrowdStore) -> None:
    assert len(store.pairs) == 4 * len(COCO17.pairs)
    names = list(store.joints)
    assert names[19] == "1_nose"
    assert names[-1] == "3_box_to"
    for a, b in store.pairs:
        assert {names[a], names[b]} == {names[a].replace("_r_", "_l_"), names[a].replace("_l_", "_r_")}
    assert torch.equal(swap(swap(store.coords, store.pairs), store.pairs), store.coords)


def test_people_asks_for_whole_persons() -> None:
    with pytest.raises(ValueError, match="got 10 points for 4 places"):
        people(torch.zeros(2, 10, 2), 4)


def test_another_device_keeps_the_areas(store: CrowdStore) -> None:
    moved = store.to("cpu")
    assert isinstance(moved, CrowdStore)
    assert torch.equal(moved.area, store.area)


def test_the_cache_is_read_and_a_damaged_file_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Crowds(split="val", size=32, count=1)
    first = data.open(tmp_path)
    draw: Callable[..., Crowd] = Crowds.scene
    drawn: list[int] = []

    def counted(self: Crowds, indices: torch.Tensor, device: torch.device | str = "cpu") -> Crowd:
        drawn.append(len(indices))
        return draw(self, indices, device)

    monkeypatch.setattr(crowds.Crowds, "scene", counted)
    assert data.open(tmp_path).fingerprint == first.fingerprint
    assert drawn == []
    [path] = tmp_path.glob("crowds-*.npz")
    path.write_bytes(path.read_bytes()[:100])
    assert data.open(tmp_path).fingerprint == first.fingerprint
    assert drawn == [1]


def test_a_configuration_comes_back_from_its_description() -> None:
    data = Crowds(people=(1, 4), clutter=0)
    assert rebuild(describe(data)) == data
    assert digest(describe(data)) == digest(describe(Crowds(people=(1, 4), clutter=0.0)))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"split": "dev"}, "got split='dev', expected one of train, val, test"),
        ({"count": 0}, "got count=0"),
        ({"size": 16}, "got size=16, expected 32 to 1024"),
        ({"people": (3, 2)}, r"got people=\(3, 2\)"),
        ({"people": (2, 7)}, r"got people=\(2, 7\) for places=6"),
        ({"back": 1.5}, "got back=1.5"),
        ({"spacing": (1.0, 0.5)}, r"got spacing=\(1.0, 0.5\)"),
        ({"height": (0.5, 1.0)}, "expected two numbers from 0.1 to 0.95"),
        ({"joints": "dog"}, "skeleton: got 'dog'"),
    ],
)
def test_bad_knobs_are_told(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Crowds(**knobs)


def test_indices_out_of_range_are_told() -> None:
    with pytest.raises(ValueError, match="got indices from -1 to 3"):
        Crowds().scene(torch.tensor([-1, 3]))
