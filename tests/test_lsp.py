"""LSP and LSPET in their official layout, written here in miniature; the pack; the data set; the real files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from real_data import real
from scipy.io import savemat

from coordreg.coords import apply_affine, to_pixels
from coordreg.data import lsp
from coordreg.data.augment import Augment
from coordreg.data.lsp import LSP, boxes, find_pack, pack, read, read_joints, read_pack
from coordreg.data.skeletons import LSP14
from coordreg.spec import describe, rebuild

SQUARE = 120  # px a side of the fixtures' photographs


def people(count: int, seed: int = 0) -> np.ndarray:
    """(count, 14, 3): joints in MATLAB coordinates within the photograph, flag 0."""
    xy = np.random.default_rng(seed).uniform(21, 101, (count, 14, 2))
    return np.concatenate([xy, np.zeros((count, 14, 1))], -1)


def photograph(path: Path, joints: np.ndarray, size: int = SQUARE) -> None:
    """A grey picture with a soft white dot centred on joint 0 (MATLAB coordinates)."""
    y, x = np.mgrid[:size, :size]
    dot = np.exp(-((x - joints[0, 0] + 1) ** 2 + (y - joints[0, 1] + 1) ** 2) / (2 * 3.0**2))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((40 + 200 * dot).astype(np.uint8)).save(path, quality=95)


def write_lsp(root: Path, table: np.ndarray, ids: list[int], columns: int = 1004) -> None:
    """LSP's own layout: (3, 14, N), flag 1 = occluded, NaN where there is no label."""
    full = np.full((columns, 14, 3), np.nan)
    full[[i - 1 for i in ids]] = table
    (root / "lsp").mkdir(parents=True, exist_ok=True)
    savemat(root / "lsp" / "joints.mat", {"joints": full.transpose(2, 1, 0)})
    for i, joints in zip(ids, table, strict=True):
        photograph(root / "lsp" / "images" / f"im{i:04d}.jpg", joints)


def write_lspet(root: Path, table: np.ndarray) -> None:
    """LSPET's own layout: (14, 3, N), flag 1 = labelled."""
    (root / "lspet").mkdir(parents=True, exist_ok=True)
    savemat(root / "lspet" / "joints.mat", {"joints": table.transpose(1, 2, 0)})
    for i, joints in enumerate(table):
        photograph(root / "lspet" / "images" / f"im{i + 1:05d}.jpg", joints)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three LSP people (1 and 2 train, 1003 test) and four of LSPET, one of whom has garbage joints."""
    first = people(3)
    first[0, 4, 2] = 1
    write_lsp(tmp_path, first, [1, 2, 1003])
    second = people(4, 1)
    second[..., 2] = 1
    second[1, 6:10] = (-731.0, 1e6, 0)
    write_lspet(tmp_path, second)
    return tmp_path


def test_both_axis_orders_read_alike(tmp_path: Path) -> None:
    table = people(5)
    for order in ((2, 1, 0), (1, 2, 0)):
        savemat(tmp_path / "joints.mat", {"joints": table.transpose(order)})
        np.testing.assert_array_equal(read_joints(tmp_path / "joints.mat"), table)


def test_both_flag_meanings(root: Path) -> None:
    first, second = read(root, "lsp"), read(root, "lspet")
    assert first.weight.min() == 1
    assert not first.visible[0, 4]
    assert first.visible.sum() == 3 * 14 - 1
    assert second.weight[1].tolist() == [1] * 6 + [0] * 4 + [1] * 4
    assert np.array_equal(second.visible, second.weight > 0)
    assert np.isnan(second.joints[1, 6:10]).all()
    assert np.isfinite(second.joints[0]).all()


def test_the_same_flag_in_the_other_axis_order(tmp_path: Path) -> None:
    """The meaning of the flag belongs to the set, not to the order of the axes."""
    table = people(2)
    table[..., 2] = 1
    (tmp_path / "lspet" / "images").mkdir(parents=True)
    savemat(tmp_path / "lspet" / "joints.mat", {"joints": table.transpose(2, 1, 0)})
    for i in (1, 2):
        photograph(tmp_path / "lspet" / "images" / f"im{i:05d}.jpg", table[i - 1])
    assert read(tmp_path, "lspet").weight.min() == 1


def test_matlab_coordinates_lose_one(tmp_path: Path) -> None:
    """A joint at MATLAB's (1, 1), the middle of the first pixel, is at index (0, 0)."""
    table = people(1)
    table[0, 0, :2] = 1
    write_lsp(tmp_path, table, [1])
    records = read(tmp_path, "lsp")
    assert records.joints[0, 0].tolist() == [0, 0]
    np.testing.assert_allclose(records.joints[0, 1:], table[0, 1:, :2] - 1)


def test_nan_columns_and_absent_images_are_counted(root: Path) -> None:
    (root / "lsp" / "images" / "im0002.jpg").unlink()
    records = read(root, "lsp")
    assert records.ids == [1, 1003]
    assert records.absent == ["im0002.jpg"]
    assert records.unlabelled == 1001
    assert len(records.joints) == len(records.weight) == len(records.visible) == len(records.paths) == 2


def test_one_nan_joint_costs_that_joint_only(tmp_path: Path) -> None:
    table = people(1)
    table[0, 3, 1] = np.nan
    write_lsp(tmp_path, table, [7])
    assert read(tmp_path, "lsp").weight[0].tolist() == [1] * 3 + [0] + [1] * 10


def test_boxes_by_hand() -> None:
    joints = np.array([[[10.0, 20], [110, 60], [-999, 9999]], [[50, 50], [60, 45], [np.nan, np.nan]]])
    centre, side = boxes(joints, np.array([[1.0, 1, 0], [1, 1, 0]]))
    np.testing.assert_allclose(centre, [[60, 40], [55, 47.5]])
    np.testing.assert_allclose(side, [125, 64])
    with pytest.raises(ValueError, match="person 1 has no labelled joint"):
        boxes(joints, np.array([[1.0, 1, 0], [0, 0, 0]]))


@pytest.mark.parametrize(("size", "side"), [(96, 60.0), (40, 100.5), (33, 131.0)])
def test_cut_puts_the_dot_where_the_affine_says(tmp_path: Path, size: int, side: float) -> None:
    table = people(1)
    photograph(tmp_path / "a.jpg", table[0])
    centre = table[0, 0, :2] - 1 + [7.3, -4.6]
    crop = np.asarray(lsp.cut(lsp.load_image(tmp_path / "a.jpg"), centre, side, size), dtype=float)[..., 0]
    mass = np.where(crop > 90, crop - 40, 0)
    found = [(mass.sum(axis) * np.arange(size)).sum() / mass.sum() for axis in (0, 1)]
    expected = (table[0, 0, :2] - 1 - centre + side / 2) * size / side - 0.5
    np.testing.assert_allclose(found, expected, atol=0.1)


def test_pack_round_trip(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "made" / "crops.npz"
    header = pack(root, out, size=80)
    assert header["sets"]["lsp"] == {"packed": 3, "absent": 0, "unlabelled": 1001, "corrupt": []}
    assert [p.name for p in out.parent.iterdir()] == ["crops.npz"]
    again, arrays = read_pack(out)
    assert again == header
    assert arrays["ids"].tolist() == [1, 2, 1003, 1, 2, 3, 4]
    assert pack(root, tmp_path / "b.npz", size=80)["sha256"] == header["sha256"]
    assert out.read_bytes() == (tmp_path / "b.npz").read_bytes()

    for split, extended, count in (("train", True, 6), ("train", False, 2), ("val", True, 1)):
        store = LSP(split, size=48, extended=extended).open(out)
        assert store.images.shape == (count, 3, 48, 48)
        assert store.joints == LSP14.joints
    truth = {s: read(root, s) for s in ("lsp", "lspet")}
    store = LSP("train", size=40).open(out)
    joints = np.concatenate([truth["lsp"].joints[:2], truth["lspet"].joints])
    back = apply_affine(store.affine, store.coords).numpy()
    np.testing.assert_allclose(back, joints, atol=1e-3, equal_nan=True)
    _, side = boxes(joints, store.weight[..., 0].numpy().astype(np.float64))
    extent = np.nanmax(store.coords.numpy(), 1) - np.nanmin(store.coords.numpy(), 1)
    assert side.min() > 64
    np.testing.assert_allclose(extent.max(-1), 2 / 1.25, rtol=1e-4)
    torso = np.linalg.norm(joints[:, 9] - joints[:, 2], axis=-1)
    torso[3] = 0.3 * side[3]  # the shoulder of this one is not labelled
    np.testing.assert_allclose(store.normaliser.numpy(), torso, rtol=1e-5)
    assert store.weight[3, 6:10].eq(0).all()


@pytest.mark.parametrize("augmented", [False, True])
@pytest.mark.parametrize("size", [48, 36])
def test_dots_are_where_the_labels_say(root: Path, tmp_path: Path, size: int, augmented: bool) -> None:
    """Joint 0 carries the dot; 48 px is the packed crops' own grid, 36 px is resampled."""
    pack(root, tmp_path / "p.npz", size=80)
    store = LSP("train", size=size, augment=Augment(flip=0.0) if augmented else None).open(tmp_path / "p.npz")
    grid = size + 2 * (size // 3) if augmented else size
    assert store.images.shape[-2:] == (grid, grid)
    bright = (store.images[:, 0].double() - 90).clamp(min=0)
    axis = torch.arange(grid)
    found = (
        torch.stack([(bright.sum(1) * axis).sum(-1), (bright.sum(2) * axis).sum(-1)], -1) / bright.sum((1, 2))[:, None]
    )
    torch.testing.assert_close(found.float(), to_pixels(store.coords[:, 0], (grid, grid)), atol=0.25, rtol=0)
    if augmented:
        plain = LSP("train", size=size).open(tmp_path / "p.npz")
        batch = store.batch(torch.arange(len(store)), torch.Generator().manual_seed(0))
        torch.testing.assert_close(batch.labels.coords, plain.coords, atol=1e-5, rtol=1e-5, equal_nan=True)
        if size == 48:
            torch.testing.assert_close(batch.images * 255, plain.images.float(), atol=1e-2, rtol=0)


def test_a_turned_crop_finds_picture_in_its_corners(tmp_path: Path) -> None:
    """The photograph is large and bright; no black shows in a crop turned by 30 degrees unless it is widened too."""
    table = people(1)
    write_lsp(tmp_path, table + np.array([200, 200, 0]), [1])
    Image.new("RGB", (520, 520), (200, 200, 200)).save(tmp_path / "lsp" / "images" / "im0001.jpg")
    pack(tmp_path, tmp_path / "p.npz", ["lsp"], size=80)
    store = LSP("train", 48, extended=False, augment=Augment(rotation=30, scale=0.15)).open(tmp_path / "p.npz")
    images = store.batch(torch.zeros(50, dtype=torch.long), torch.Generator().manual_seed(0)).images
    assert images.min() > 0.7


def test_truncated_altered_and_foreign_packs_are_refused(root: Path, tmp_path: Path) -> None:
    good = tmp_path / "good.npz"
    pack(root, good, size=40)
    data = good.read_bytes()
    bad = tmp_path / "bad.npz"
    for cut in (0, 10, len(data) // 2, len(data) - 5):
        bad.write_bytes(data[:cut])
        with pytest.raises(ValueError, match=r"cut short or no pack.*data pack"):
            LSP().open(bad)
    arrays = dict(np.load(good))
    np.savez(bad, **{**arrays, "joints": arrays["joints"] + 1})
    with pytest.raises(ValueError, match="do not match its hash"):
        LSP().open(bad)
    np.savez(bad, **{**arrays, "header": np.array(str(arrays["header"]).replace('"version": 1', '"version": 9'))})
    with pytest.raises(ValueError, match="version 9, expected"):
        LSP().open(bad)
    np.savez(bad, **{**arrays, "header": np.array(str(arrays["header"]).replace('"size": 40', '"size": 80'))})
    with pytest.raises(ValueError, match="do not match its hash"):
        LSP().open(bad)
    np.savez(bad, something=np.zeros(3))
    with pytest.raises(ValueError, match="no pack of crops"):
        LSP().open(bad)


def test_a_failed_pack_leaves_the_old_file(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "o" / "p.npz"
    pack(root, out, size=40)
    before = out.read_bytes()

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(OSError, match="No space"):
        pack(root, out, size=60)
    assert out.read_bytes() == before
    assert [p.name for p in out.parent.iterdir()] == ["p.npz"]


def test_corrupt_image_is_named_and_skipped_only_when_asked(root: Path, tmp_path: Path) -> None:
    victim = root / "lspet" / "images" / "im00003.jpg"
    victim.write_bytes(victim.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"im00003\.jpg is not a whole picture.*skip-corrupt"):
        pack(root, tmp_path / "p.npz", size=40)
    assert not (tmp_path / "p.npz").exists()
    header = pack(root, tmp_path / "p.npz", size=40, skip_corrupt=True)
    assert header["sets"]["lspet"] == {"packed": 3, "absent": 0, "unlabelled": 0, "corrupt": ["im00003.jpg"]}
    assert len(LSP("train", 24).open(tmp_path / "p.npz")) == 5


def test_where_the_pack_is_looked_for(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COORDREG_LSP", raising=False)
    with pytest.raises(
        ValueError, match=r"no pack of photographs at data/lsp.npz.*data fetch.*data pack.*COORDREG_LSP"
    ):
        LSP().open()
    pack(root, Path("data/lsp.npz"), size=40)
    assert find_pack() == Path("data/lsp.npz")
    monkeypatch.setenv("COORDREG_LSP", str(tmp_path / "elsewhere.npz"))
    with pytest.raises(ValueError, match=r"elsewhere\.npz"):
        LSP().open()
    assert find_pack(Path("data/lsp.npz")) == Path("data/lsp.npz")
    assert len(LSP("val", 24).open(Path("data/lsp.npz"))) == 1


def test_bad_input(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"got the set 'lps', expected one of \['lsp', 'lspet'\]"):
        read(root, "lps")
    with pytest.raises(ValueError, match=r"lsp/joints.mat is not there.*data fetch lsp"):
        read(tmp_path / "nowhere", "lsp")
    savemat(root / "lsp" / "joints.mat", {"joints": np.zeros((2, 14, 5))})
    with pytest.raises(ValueError, match=r"shape \(2, 14, 5\), expected \(3, 14, N\) or \(14, 3, N\)"):
        read(root, "lsp")
    savemat(root / "lsp" / "joints.mat", {"other": np.zeros(3)})
    with pytest.raises(ValueError, match="no variable `joints`"):
        read(root, "lsp")
    (root / "lsp" / "joints.mat").write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match="damaged"):
        read(root, "lsp")
    pack(root, tmp_path / "p.npz", ["lspet"], size=40)
    with pytest.raises(ValueError, match="no image of the split 'val'; pack the set lsp"):
        LSP("val", 24).open(tmp_path / "p.npz")
    with pytest.raises(ValueError, match=r"size=96 but .* boxes of 24 px; make a finer pack with --size 160"):
        LSP("train", 96).open(tmp_path / "p.npz")
    with pytest.raises(ValueError, match="expected each of"):
        pack(root, tmp_path / "p.npz", ["lspet", "lspet"])
    with pytest.raises(ValueError, match="size=4"):
        pack(root, tmp_path / "p.npz", size=4)
    with pytest.raises(ValueError, match=r"split='test', expected one of \['train', 'val'\]"):
        LSP("test")
    with pytest.raises(ValueError, match="augmentation for the split 'val'"):
        LSP("val", augment=Augment())
    with pytest.raises(ValueError, match=r"size=96 and an Augment of size=64"):
        LSP("train", augment=Augment(size=64))


def test_missing_lspet_is_said(root: Path, tmp_path: Path) -> None:
    pack(root, tmp_path / "p.npz", ["lsp"], size=40)
    with pytest.raises(ValueError, match=r"no image of LSPET.*extended=False"):
        LSP("train", 24).open(tmp_path / "p.npz")
    store = LSP("train", 24, extended=False, limit=1).open(tmp_path / "p.npz")
    assert len(store) == 1


def test_configuration_can_be_written_down() -> None:
    config = LSP("train", size=96, augment=Augment(rotation=30, scale=0.25))
    assert rebuild(describe(config)) == config


def test_real_files(tmp_path: Path) -> None:
    """Counts, flags and sizes of the real sets, and a pack of LSP alone."""
    place = real("", "lsp/joints.mat", "lspet/joints.mat")
    first, second = read(place, "lsp"), read(place, "lspet")
    for records, most in ((first, 2000), (second, 10000)):
        assert 0 < len(records.paths) <= most
        assert len(records.paths) + len(records.absent) + records.unlabelled == most
    assert first.weight.min() == 1
    assert 0.05 < 1 - first.visible.mean() < 0.10
    assert 0.85 < second.weight.mean() < 0.91
    assert second.weight.sum(-1).min() >= 4
    labelled = second.joints[second.weight > 0]
    assert labelled.min() > -5
    for records in (first, second):
        with Image.open(records.paths[-1]) as image:
            # Labelled joints lie on the picture or just beside it.
            assert (records.joints[-1][records.weight[-1] > 0] <= np.array(image.size) + 10).all()
    # Person-centric and upright on the whole: heads above ankles; for people seen from the front, right is on the left.
    assert np.median(first.joints[:, 13, 1] - first.joints[:, 0, 1]) < -50
    assert np.median(first.joints[:, 8, 0] - first.joints[:, 9, 0]) < 0
