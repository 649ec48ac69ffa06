"""Crops of a whole data set as one file of bytes, mapped into memory: what is too large to hold is read as it is used.

A pack is nothing but N crops of one shape, one after the other, without a header; its name carries a hash of what went
into it. While it is being made it has another name, so that a pack that is there is whole, and an interrupted one goes
on where it stopped. Small sets stay in memory and leave no file.
"""

import hashlib
import math
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from coordreg.data.cache_file import folder

#: Bytes up to which crops are held in memory instead of a file.
IN_MEMORY = 2**30
#: Crops that are made, by several threads, and then written at a time.
CHUNK = 64


def locate(root: str) -> Path:
    """The folder of a data set: an absolute `root` as it is, else $COORDREG_DATA/root, else `root`, else data/root.

    A configuration with a relative root, such as "mpii", is the same on every machine. What comes back need not exist.
    """
    place, base = Path(root), os.environ.get("COORDREG_DATA")
    if place.is_absolute() or (base is None and place.is_dir()):
        return place
    return Path(base or "data") / root


def key(*parts: Any) -> str:
    """A short hash of text, numbers, tuples of them, and arrays: the same parts, the same pack."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"array{part.shape}{part.dtype.str}".encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        else:
            digest.update(f"{part!r}\n".encode())
    return digest.hexdigest()[:16]


def pack_path(root: Path, name: str, count: int, shape: tuple[int, ...]) -> Path | None:
    """Where the pack `name` of a data set under `root` belongs; None where it is small enough for memory.

    That is root/packs, or the user's cache folder if `root` cannot be written to.
    """
    if count * math.prod(shape) <= IN_MEMORY:
        return None
    place = root if os.access(root, os.W_OK) else folder()
    return place / "packs" / f"{name}.u8"


def pack_crops(
    path: Path | None,
    count: int,
    shape: tuple[int, ...],
    make: Callable[[int], NDArray[Any]],
    progress: bool = False,
) -> UInt8[Tensor, "N ..."]:
    """The crops make(0), make(1), ... as one (count, *shape) tensor of bytes, made if `path` is not there yet.

    make: a number -> bytes of `shape`; it is called from several threads. path: None keeps the crops in memory; else
    the tensor is a read-only map of the file, and to write to it is an error. The file appears whole or not at all; an
    interrupted pack is resumed, and of several processes one makes it while the others wait. Raises ValueError for a
    crop of another shape or type, and for a file of another length than count and shape ask for.
    """
    if count < 1 or not shape or min(shape) < 1:
        raise ValueError(f"pack_crops: got count={count}, shape={shape}, expected one crop or more of positive sides")
    if path is None:
        images = np.empty((count, *shape), np.uint8)
        for i, chunk in _chunks(0, count, shape, make, progress, "crops"):
            images[i : i + len(chunk)] = chunk
        return torch.from_numpy(images)
    size = count * math.prod(shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.is_file():
            _write(path, count, shape, make, progress)
    if path.stat().st_size != size:
        raise ValueError(
            f"pack_crops: {path} has {path.stat().st_size} bytes, expected {size} for {count} crops of {shape}; "
            "delete it, and it will be made again"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(np.memmap(path, np.uint8, "r", shape=(count, *shape)))


def _write(path: Path, count: int, shape: tuple[int, ...], make: Callable[[int], NDArray[Any]], progress: bool) -> None:
    """Append to the unfinished file what it lacks, then give it its name."""
    part, row = path.with_name(f"{path.name}.part"), math.prod(shape)
    done = min(part.stat().st_size // row, count) if part.is_file() else 0
    with open(part, "ab") as file:
        file.truncate(done * row)
        for _, chunk in _chunks(done, count, shape, make, progress, path.stem):
            file.write(chunk.tobytes())
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def _chunks(
    start: int, count: int, shape: tuple[int, ...], make: Callable[[int], NDArray[Any]], progress: bool, name: str
) -> Iterator[tuple[int, NDArray[Any]]]:
    """(number of the first crop, crops) in order, a chunk at a time."""
    workers = min(8, os.cpu_count() or 1)
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=count, initial=start, desc=name, unit="img", disable=not progress) as bar,
    ):
        for first in range(start, count, CHUNK):
            crops = list(pool.map(make, range(first, min(first + CHUNK, count))))
            for i, crop in enumerate(crops):
                if crop.shape != shape or crop.dtype != np.uint8:
                    raise ValueError(
                        f"pack_crops: crop {first + i} has the shape {crop.shape} and type {crop.dtype}, expected "
                        f"{shape} and uint8"
                    )
            yield first, np.stack(crops)
            bar.update(len(crops))


# -- pictures ---------------------------------------------------------------------------------------------------------


def read_picture(path: Path) -> Image.Image:
    """The picture in RGB. Raises ValueError, naming the file, if it is damaged or cut short."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} is not a whole picture ({error}); fetch it again, or delete it to skip it") from error


def present(names: list[str], folder: Path, data: str, get: str) -> list[int]:
    """The numbers of those people whose picture, a name each, is in `folder`; a warning counts the others.

    data: the data set, and get: how its pictures are got, for the messages. Raises FileNotFoundError if none is there.
    """
    there = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()
    rows = [i for i, name in enumerate(names) if name in there]
    if not rows:
        raise FileNotFoundError(
            f"{data}: none of the {len(set(names))} pictures, such as {folder / names[0]}, is there; get {get}"
        )
    if absent := len(names) - len(rows):
        warnings.warn(
            f"{data}: {len(set(names) - there)} pictures are not in {folder}; {absent} of {len(names)} people are left "
            "out",
            stacklevel=3,
        )
    return rows


def cut(
    image: Image.Image, centre: NDArray[Any], sides: NDArray[Any], size: tuple[int, int]
) -> UInt8[np.ndarray, "3 H W"]:
    """The rectangle of the picture at `size` = (H, W), antialiased; black beyond the picture.

    centre, sides: (2,) as (x, y) and (width, height), in index pixels.
    """
    left, top = (float(c - s / 2 + 0.5) for c, s in zip(centre, sides, strict=True))  # PIL counts from the edge
    right, bottom = left + float(sides[0]), top + float(sides[1])
    # A margin, so that beyond the rectangle's edge the filter finds the picture and not its own end.
    margin = [math.ceil(2 * max(1.0, float(s) / n)) for s, n in zip(sides, size[::-1], strict=True)]
    x, y = math.floor(left) - margin[0], math.floor(top) - margin[1]
    whole = image.crop((x, y, math.ceil(right) + margin[0], math.ceil(bottom) + margin[1]))
    area = (left - x, top - y, right - x, bottom - y)
    crop = whole.resize(size[::-1], Image.Resampling.BICUBIC, box=area)
    return np.ascontiguousarray(np.asarray(crop).transpose(2, 0, 1))


def canvas_size(size: tuple[int, int], canvas: float) -> tuple[int, int]:
    """(H, W) of what is stored for crops of `size`, so that a turned or widened crop finds picture in its corners.

    Either side is about `canvas` times the longer of `size`, with the parity that makes the crop its middle pixels.
    """
    if not 1 <= canvas <= 4:
        raise ValueError(f"canvas: got {canvas}, expected a factor from 1 (no margin) to 4; 5/3 suits 30 degrees")
    longer = max(size)
    height, width = (n + 2 * round((canvas * longer - n) / 2) for n in size)
    return height, width
