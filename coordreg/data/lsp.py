"""Leeds Sports Pose (LSP) and its extension (LSPET): photographs of athletes with 14 joints, labelled person-centric.

Two sets, two layouts of `joints.mat` and two meanings of its third value:

    LSP    (3, 14, 2000)    1 = occluded; every joint has coordinates    images 1-1000 train, 1001-2000 test
    LSPET  (14, 3, 10000)   1 = labelled, 0 = coordinates are garbage    all train

Coordinates. The files come from MATLAB, whose first pixel has its centre at 1. No document says so for these sets; we
take them at MATLAB's word and subtract 1, so that index pixels start at 0 as everywhere in this library.

Boxes. The sets have none. One rule makes them for training and testing and for every method: a square, centred on the
middle of the outermost labelled joints, its side 1.25 times their longer extent and at least 64 px. (People are about
150 px long in both sets; of somebody with four labelled joints the crop would otherwise show little but a shoulder.)

Sources: S. Johnson and M. Everingham, BMVC 2010 and CVPR 2011. Research use; the photographs belong to their authors.
"""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from scipy.io import loadmat
from tqdm import tqdm

from coordreg.coords import apply_affine, crop_affine, invert_affine
from coordreg.data.augment import Augment
from coordreg.data.skeletons import LSP14
from coordreg.data.store import Store

#: A crop's side over the extent of the labelled joints, and the least side in index pixels of the source image.
BOX, FLOOR = 1.25, 64.0
#: A packed crop's side over the box's. Turned by 30 degrees and widened by a quarter, a box wants 1.71 in its corners.
MARGIN = 5 / 3
#: Torso over box side where shoulder or hip is unlabelled; this happens in LSPET only, so no test score depends on it.
TORSO = 0.3
#: Digits in the images' names; the first official test image.
DIGITS, FIRST_TEST = {"lsp": 4, "lspet": 5}, 1001
FORMAT, VERSION, JPEG_QUALITY = "coordreg-lsp-pack", 1, 88
#: What a pack holds of each crop, and how.
COLUMNS = {"joints": "f8", "weight": "f4", "visible": "?", "centre": "f8", "side": "f8", "source": "u1", "ids": "i4"}


class Records(NamedTuple):
    """Labels as the set states them, of the images that are there.

    paths, ids: N image files and their official numbers, from 1. joints: (N, 14, 2) index pixels of the image, NaN
    where unlabelled. weight: (N, 14), 0 where unlabelled. visible: (N, 14). absent: names of labelled images without
    a file. unlabelled: how many columns of joints.mat hold no label.
    """

    paths: list[Path]
    ids: list[int]
    joints: Float[np.ndarray, "N 14 2"]
    weight: Float[np.ndarray, "N 14"]
    visible: Bool[np.ndarray, "N 14"]
    absent: list[str]
    unlabelled: int


def folder(root: Path, name: str) -> Path:
    """The folder under `root` that holds the set "lsp" or "lspet". Raises ValueError if there is none."""
    if name not in DIGITS:
        raise ValueError(f"LSP: got the set {name!r}, expected one of {sorted(DIGITS)}")
    for candidate in (root / name, root / f"{name}_dataset"):
        if (candidate / "joints.mat").is_file():
            return candidate
    raise ValueError(
        f"LSP: {root / name / 'joints.mat'} is not there; run `python -m coordreg data fetch {name} --root {root}`, "
        f"or give as root the folder that contains {name}/joints.mat and {name}/images/"
    )


def read_joints(path: Path) -> Float[np.ndarray, "N 14 3"]:
    """joints.mat in either order of its axes -> (N, 14, 3): x and y from 1, and the set's own flag."""
    try:
        raw = loadmat(path)["joints"]
    except KeyError:
        raise ValueError(f"LSP: {path} holds no variable `joints`; fetch the official joints.mat") from None
    except Exception as error:  # scipy raises many kinds of them
        raise ValueError(f"LSP: {path} cannot be read ({error}); it is damaged, fetch it again") from error
    order = {(3, 14): (2, 1, 0), (14, 3): (2, 0, 1)}.get(raw.shape[:2])
    if raw.ndim != 3 or order is None:
        raise ValueError(f"LSP: `joints` in {path} has the shape {raw.shape}, expected (3, 14, N) or (14, 3, N)")
    return np.ascontiguousarray(raw.transpose(order), dtype=np.float64)


def read(root: Path, name: str) -> Records:
    """Read the labels of "lsp" or "lspet" under `root`; columns without labels and images not there are counted.

    Raises ValueError if the set is not there or damaged.
    """
    base = folder(Path(root), name)
    table = read_joints(base / "joints.mat")
    finite = np.isfinite(table).all(-1)
    flag = table[..., 2] == 1
    labelled = finite if name == "lsp" else finite & flag
    visible = labelled & ~flag if name == "lsp" else labelled
    there = {entry.name for entry in os.scandir(base / "images")} if (base / "images").is_dir() else set()
    files = {int(i): f"im{i + 1:0{DIGITS[name]}d}.jpg" for i in np.flatnonzero(labelled.any(-1))}
    rows = [i for i, file in files.items() if file in there]
    return Records(
        paths=[base / "images" / files[i] for i in rows],
        ids=[i + 1 for i in rows],
        joints=np.where(labelled[..., None], table[..., :2] - 1, np.nan)[rows],
        weight=labelled[rows].astype(np.float32),
        visible=visible[rows],
        absent=[file for file in files.values() if file not in there],
        unlabelled=len(table) - len(files),
    )


def boxes(
    joints: Float[np.ndarray, "N J 2"], weight: Float[np.ndarray, "N J"]
) -> tuple[Float[np.ndarray, "N 2"], Float[np.ndarray, " N"]]:
    """The square crop boxes of this file's one rule: centres (N, 2) and sides (N,) in index pixels of the image."""
    labelled = weight > 0
    if len(bare := np.flatnonzero(~labelled.any(-1))):
        raise ValueError(f"boxes: person {bare[0]} has no labelled joint, expected at least one; leave {len(bare)} out")
    low = np.where(labelled[..., None], joints, np.inf).min(1)
    high = np.where(labelled[..., None], joints, -np.inf).max(1)
    return (low + high) / 2, np.maximum(BOX * (high - low).max(-1), FLOOR)


# -- pack -------------------------------------------------------------------------------------------------------------


def load_image(path: Path) -> Image.Image:
    """The picture in RGB. Raises ValueError, naming the file, if it is damaged or cut short."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        fix = "fetch it again, or skip damaged pictures with skip_corrupt (--skip-corrupt), which counts them"
        raise ValueError(f"{path} is not a whole picture ({error}); {fix}") from error


def cut(image: Image.Image, centre: Float[np.ndarray, "2"], side: float, size: int) -> Image.Image:
    """The square with this centre and side (index pixels) at `size` px, antialiased; black beyond the picture."""
    left, top = (float(c) - side / 2 + 0.5 for c in centre)  # PIL counts from the first pixel's edge
    x, y = int(np.floor(left)), int(np.floor(top))
    right, bottom = int(np.ceil(left + side)), int(np.ceil(top + side))
    area = (left - x, top - y, min(left - x + side, right - x), min(top - y + side, bottom - y))
    return image.crop((x, y, right, bottom)).resize((size, size), Image.Resampling.BICUBIC, box=area)


def pack(
    root: Path,
    out: Path,
    names: Sequence[str] = ("lsp", "lspet"),
    size: int = 160,
    skip_corrupt: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Write the crops of the sets under `root` into one file and return its header.

    A crop has `size` px a side and is 5/3 of the box wide, so that the box itself has 3/5 of `size`. The file appears
    whole or not at all. Raises ValueError for a missing set, an image that cannot be read, or a size under 8.
    """
    if size < 8:
        raise ValueError(f"pack: got size={size}, expected at least 8 px; 160 holds boxes of 96 px")
    if not names or len(set(names)) != len(names):
        raise ValueError(f"pack: got the sets {list(names)}, expected each of {sorted(DIGITS)} at most once")
    crops: list[bytes] = []
    rows: list[tuple[Any, ...]] = []
    counts: dict[str, dict[str, Any]] = {}
    for name in names:
        records = read(root, name)
        centre, side = boxes(records.joints, records.weight)
        corrupt: list[str] = []
        for i, path in enumerate(tqdm(records.paths, desc=name, unit="img", disable=not progress)):
            try:
                image = load_image(path)
            except ValueError:
                if not skip_corrupt:
                    raise
                corrupt.append(path.name)
                continue
            buffer = io.BytesIO()
            crop = cut(image, centre[i], float(side[i]) * MARGIN, size)
            crop.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
            crops.append(buffer.getvalue())
            labels = records.joints[i], records.weight[i], records.visible[i]
            rows.append((*labels, centre[i], side[i], list(DIGITS).index(name), records.ids[i]))
        counts[name] = {"packed": len(records.paths) - len(corrupt), "absent": len(records.absent)}
        counts[name] |= {"unlabelled": records.unlabelled, "corrupt": corrupt}
    if not crops:
        raise ValueError(
            f"pack: {list(names)} under {root} have no image with labels; `data check` says what is missing"
        )
    columns = zip(COLUMNS.items(), zip(*rows, strict=True), strict=True)
    arrays = {key: np.array(values, dtype=kind) for (key, kind), values in columns}
    arrays["jpeg"] = np.frombuffer(b"".join(crops), dtype=np.uint8)
    arrays["offsets"] = np.cumsum([0, *map(len, crops)], dtype=np.int64)
    header: dict[str, Any] = {"format": FORMAT, "version": VERSION, "size": size, "sets": counts}
    header |= {"margin": MARGIN, "box": BOX, "floor": FLOOR}
    header["sha256"] = _content(header, arrays)
    _write(Path(out), {"header": np.array(json.dumps(header, sort_keys=True)), **arrays})
    return header


def _content(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps({k: v for k, v in header.items() if k != "sha256"}, sort_keys=True).encode())
    for name, value in sorted(arrays.items()):
        digest.update(f"{name}{value.shape}{value.dtype.str}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def _write(out: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write beside the target, then rename: a reader sees the old file or the new one, never half of one."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)


def read_pack(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A pack's header and arrays, checked against its hash. Raises ValueError if it is cut short, altered or foreign.

    Crop i is jpeg[offsets[i]:offsets[i + 1]]. joints: index pixels of the source image, NaN where the weight is 0.
    centre, side: the box. source: 0 LSP, 1 LSPET. ids: official numbers.
    """
    again = "make it again with `python -m coordreg data pack lsp lspet --root DIR --out FILE`"
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays.pop("header")))
        found = header["format"], header["version"]
    except (zipfile.BadZipFile, AttributeError, OSError, EOFError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"LSP: {path} is cut short or no pack of crops ({error}); {again}") from error
    if found != (FORMAT, VERSION):
        raise ValueError(f"LSP: {path} is {found[0]} version {found[1]}, expected {FORMAT} version {VERSION}; {again}")
    if _content(header, arrays) != header.get("sha256"):
        raise ValueError(f"LSP: the contents of {path} do not match its hash; {again}")
    return header, arrays


def find_pack(pack: Path | None = None) -> Path:
    """The pack to read: the argument, else COORDREG_LSP, else data/lsp.npz. Raises ValueError if it is not there."""
    place = pack or os.environ.get("COORDREG_LSP") or Path("data") / "lsp.npz"
    if not Path(place).is_file():
        raise ValueError(
            f"LSP: there is no pack of photographs at {place}. Get the sets with `python -m coordreg data fetch lspet "
            "--root DIR` (and lsp), make the pack with `python -m coordreg data pack lsp lspet --root DIR "
            "--out data/lsp.npz`, or name an existing one in the environment variable COORDREG_LSP"
        )
    return Path(place)


# -- data set ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LSP:
    """The photographs as a data set: crops by the box rule above, 14 joints, errors divided by the torso.

    split: "train" is the official 1-1000 and, if `extended`, all of LSPET; "val" is the official test images that are
    there. size: px a side of what a network sees. augment: for "train" only. limit: the first so many images.
    """

    split: str = "train"
    size: int = 96
    extended: bool = True
    augment: Augment | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.split not in ("train", "val"):
            raise ValueError(f"LSP: got split={self.split!r}, expected one of ['train', 'val']")
        if self.split == "val" and self.augment is not None:
            raise ValueError("LSP: got an augmentation for the split 'val', expected none; augment 'train'")
        if self.augment is not None and self.augment.size not in (None, self.size):
            raise ValueError(
                f"LSP: got size={self.size} and an Augment of size={self.augment.size}; leave the latter out"
            )
        if self.size < 2 or (self.limit is not None and self.limit < 1):
            raise ValueError(f"LSP: got size={self.size}, limit={self.limit}, expected at least 2 px and one image")

    def open(self, pack: Path | None = None) -> Store:
        """Decode the crops into memory (77 kB an image with augmentation at 96 px, 28 kB without).

        With an augmentation the store's images are 5/3 as wide as the box, as near as whole pixels come (160 px for a
        size of 96), and the augmentation cuts `size` px out of them; without, they are the boxes at `size` px. The
        store's `affine` is that of its own images. Raises ValueError if there is no pack, or it lacks what is asked.
        """
        path = find_pack(pack)
        header, arrays = read_pack(path)
        if self.size > header["size"] / header["margin"] + 1e-6:
            raise ValueError(
                f"LSP: got size={self.size} but {path} holds boxes of {header['size'] / header['margin']:g} px; make a "
                f"finer pack with --size {int(np.ceil(self.size * header['margin']))}, or ask for less"
            )
        rows = self._rows(arrays, path)
        # The same parity as `size`, so that the box is the middle `size` px exactly.
        out = self.size if self.augment is None else self.size + 2 * (self.size // 3)
        images = np.empty((len(rows), 3, out, out), dtype=np.uint8)
        start = max(0.0, header["size"] * (1 - out / self.size / header["margin"]) / 2)
        area = (start, start, header["size"] - start, header["size"] - start)
        for k, row in enumerate(rows):
            data = arrays["jpeg"][arrays["offsets"][row] : arrays["offsets"][row + 1]].tobytes()
            with Image.open(io.BytesIO(data)) as image:
                # Where `area` lies on whole pixels and has `out` of them, resizing copies them unchanged.
                crop = image.resize((out, out), Image.Resampling.BICUBIC, box=area)
            images[k] = np.asarray(crop).transpose(2, 0, 1)

        centre, side = torch.from_numpy(arrays["centre"][rows]), torch.from_numpy(arrays["side"][rows])
        joints, weight = torch.from_numpy(arrays["joints"][rows]), torch.from_numpy(arrays["weight"][rows])
        affine = crop_affine(centre, (side * out / self.size).unsqueeze(-1).expand(-1, 2))
        hip, shoulder = LSP14.joints.index("r_hip"), LSP14.joints.index("l_shoulder")
        torso = (joints[:, shoulder] - joints[:, hip]).norm(dim=-1)
        return Store(
            images=torch.from_numpy(images),
            coords=apply_affine(invert_affine(affine), joints).float(),
            weight=weight.unsqueeze(-1).expand(-1, -1, 2).contiguous(),
            visible=torch.from_numpy(arrays["visible"][rows]),
            normaliser=torch.where(torso.isfinite(), torso, TORSO * side).float(),
            affine=affine.float(),
            pairs=LSP14.pairs,
            joints=LSP14.joints,
            augment=None if self.augment is None else self.augment.bind(LSP14.pairs, self.size),
        )

    def _rows(self, arrays: dict[str, np.ndarray], path: Path) -> np.ndarray:
        extended, test = arrays["source"] == 1, (arrays["source"] == 0) & (arrays["ids"] >= FIRST_TEST)
        if self.split == "train" and self.extended and not extended.any():
            raise ValueError(
                f"LSP: {path} holds no image of LSPET, which extended=True asks for; pack lsp and lspet together, "
                "or set extended=False"
            )
        chosen = test if self.split == "val" else ~test & (~extended | self.extended)
        rows = np.flatnonzero(chosen)[: self.limit]
        if not len(rows):
            raise ValueError(f"LSP: {path} holds no image of the split {self.split!r}; pack the set lsp")
        return rows
