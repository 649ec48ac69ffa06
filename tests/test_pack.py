"""Packs of crops: whole or not at all, resumed, shared; the cutting of rectangles."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from coordreg.data import pack
from coordreg.data.pack import canvas_size, cut, key, locate, pack_crops, pack_path, read_picture

SHAPE = (3, 5, 4)


def crop(i: int) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 256, SHAPE, np.uint8)


def test_memory_and_file_hold_the_same(tmp_path: Path) -> None:
    expected = np.stack([crop(i) for i in range(150)])
    held = pack_crops(None, 150, SHAPE, crop)
    mapped = pack_crops(tmp_path / "new" / "a.u8", 150, SHAPE, crop)
    np.testing.assert_array_equal(held.numpy(), expected)
    np.testing.assert_array_equal(mapped.numpy(), expected)
    assert held.dtype == mapped.dtype == torch.uint8
    assert sorted(p.suffix for p in (tmp_path / "new").iterdir() if p.suffix != ".lock") == [".u8"]


def test_an_interrupted_pack_goes_on(tmp_path: Path) -> None:
    calls: list[int] = []

    def failing(i: int) -> np.ndarray:
        calls.append(i)
        if i == 70:
            raise OSError(5, "the disk is gone")
        return crop(i)

    path = tmp_path / "a.u8"
    with pytest.raises(OSError, match="the disk is gone"):
        pack_crops(path, 100, SHAPE, failing)
    assert not path.exists()
    part = tmp_path / "a.u8.part"
    assert part.stat().st_size == 64 * math.prod(SHAPE)
    part.write_bytes(part.read_bytes() + b"half a row")
    calls.clear()

    def counting(i: int) -> np.ndarray:
        calls.append(i)
        return crop(i)

    images = pack_crops(path, 100, SHAPE, counting)
    assert sorted(calls) == list(range(64, 100))
    np.testing.assert_array_equal(images.numpy(), np.stack([crop(i) for i in range(100)]))
    assert not part.exists()
    calls.clear()
    pack_crops(path, 100, SHAPE, counting)
    assert calls == []


def test_pack_messages(tmp_path: Path) -> None:
    pack_crops(tmp_path / "a.u8", 2, SHAPE, crop)
    with pytest.raises(ValueError, match=r"a\.u8 has 120 bytes, expected 180.*delete it"):
        pack_crops(tmp_path / "a.u8", 3, SHAPE, crop)
    with pytest.raises(ValueError, match=r"crop 0 has the shape \(2, 2\) and type uint8, expected \(3, 5, 4\)"):
        pack_crops(None, 1, SHAPE, lambda i: np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match=r"and type float64"):
        pack_crops(None, 1, SHAPE, lambda i: np.zeros(SHAPE))
    with pytest.raises(ValueError, match="count=0"):
        pack_crops(None, 0, SHAPE, crop)


def test_keys_tell_parts_apart() -> None:
    a = np.arange(6.0)
    keys = [key(a), key(a + 1), key(a.reshape(2, 3)), key(a.astype(np.float32)), key("a", "b"), key("ab"), key(("a",))]
    assert len(set(keys)) == len(keys)
    assert key(["x"], a, 3) == key(["x"], a.copy(), 3)


def test_where_packs_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pack_path(tmp_path, "a", 10, (3, 8, 8)) is None
    count = pack.IN_MEMORY // 192
    assert pack_path(tmp_path, "a", count, (3, 8, 8)) is None
    assert pack_path(tmp_path, "a", count + 1, (3, 8, 8)) == tmp_path / "packs" / "a.u8"
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert pack_path(tmp_path, "a", count + 1, (3, 8, 8)) == tmp_path / "cache" / "coordreg" / "packs" / "a.u8"


def test_where_sets_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COORDREG_DATA", raising=False)
    assert locate("mpii") == Path("data/mpii")
    monkeypatch.setenv("COORDREG_DATA", str(tmp_path / "sets"))
    assert locate("mpii") == tmp_path / "sets" / "mpii"
    (tmp_path / "mpii").mkdir()
    assert locate("mpii") == tmp_path / "sets" / "mpii"  # who names a folder means that folder
    monkeypatch.delenv("COORDREG_DATA")
    assert locate("mpii") == Path("mpii")
    assert locate(str(tmp_path)) == tmp_path


def test_a_cut_of_whole_pixels_copies_them() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    image = Image.fromarray(pixels)
    # Index pixels 4..9 across and 7..10 down have their middle at 6.5 and 8.5.
    found = cut(image, np.array([6.5, 8.5]), np.array([6.0, 4.0]), (4, 6))
    np.testing.assert_array_equal(found, pixels[7:11, 4:10].transpose(2, 0, 1))


def test_a_cut_beyond_the_picture_is_black() -> None:
    image = Image.new("RGB", (10, 10), (200, 100, 50))
    found = cut(image, np.array([-0.5, 4.5]), np.array([20.0, 10.0]), (10, 20))
    assert (found[:, :, :10] == 0).all()
    assert (found[:, :, 10:] == np.array([200, 100, 50])[:, None, None]).all()
    assert (cut(image, np.array([500.0, 500.0]), np.array([9.0, 9.0]), (4, 4)) == 0).all()


@pytest.mark.parametrize(
    ("size", "sides"), [((40, 30), (60.0, 80.0)), ((21, 50), (100.0, 42.0)), ((64, 48), (24.0, 32.0))]
)
def test_a_cut_puts_a_dot_where_it_belongs(size: tuple[int, int], sides: tuple[float, float]) -> None:
    y, x = np.mgrid[:120, :160]
    dot = np.array([71.3, 52.8])
    image = Image.fromarray((250 * np.exp(-((x - dot[0]) ** 2 + (y - dot[1]) ** 2) / 18)).astype(np.uint8)).convert(
        "RGB"
    )
    centre = dot + np.array([4.4, -3.7])
    found = cut(image, centre, np.array(sides), size)[0].astype(float)
    place = [(found.sum(axis) * np.arange(n)).sum() / found.sum() for axis, n in ((0, size[1]), (1, size[0]))]
    expected = (dot - centre) * size[::-1] / np.array(sides) + (np.array(size[::-1]) - 1) / 2
    np.testing.assert_allclose(place, expected, atol=0.12)


def test_canvases() -> None:
    assert canvas_size((256, 256), 5 / 3) == (426, 426)
    assert canvas_size((256, 192), 5 / 3) == (426, 426)
    assert canvas_size((61, 61), 5 / 3) == (101, 101)
    assert canvas_size((40, 31), 1.0) == (40, 39)  # the middle 31 of 39
    with pytest.raises(ValueError, match="canvas: got 9"):
        canvas_size((8, 8), 9.0)


def test_damaged_pictures_are_named(tmp_path: Path) -> None:
    Image.new("L", (9, 9)).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").mode == "RGB"
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:30])
    with pytest.raises(ValueError, match=r"a\.png is not a whole picture"):
        read_picture(tmp_path / "a.png")
