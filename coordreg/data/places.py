"""Where the files of a configuration lie: which folders and files it needs, and whether they are a drawn fixture."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from coordreg.data import coco, flic, flic_formats, h36m_formats, human36m, mpii, pack
from coordreg.spec import PLAIN

#: A file of this name in a data set's folder says that the folder holds no real data. Records made from it are none.
MARKER = "FIXTURE"


def sets(data: Any) -> Iterator[Any]:
    """The data sets on disk in a configuration, whatever they are wrapped in."""
    if isinstance(data, mpii.MPII | coco.COCO | flic.FLIC | human36m.Human36M):
        yield data
    elif isinstance(data, tuple | list):
        for part in data:
            if type(part) not in PLAIN:
                yield from sets(part)
    elif is_dataclass(data) and not isinstance(data, type):
        yield from sets([getattr(data, f.name) for f in fields(data)])


def name_of(data: Any) -> str:
    """ "mpii", "coco", "flic" or "human36m" of one data set."""
    return {mpii.MPII: "mpii", coco.COCO: "coco", flic.FLIC: "flic", human36m.Human36M: "human36m"}[type(data)]


def folder(data: Any) -> Path:
    """The folder of one data set, there or not."""
    return data.place if isinstance(data, human36m.Human36M) else pack.locate(data.root)


def is_fixture(*data: Any) -> bool:
    """Does any data set of these configurations lie in a folder with the marker?"""
    return any((folder(one) / MARKER).is_file() for part in data for one in sets(part))


def files(data: Any) -> list[Path]:
    """What one data set needs: files of labels, and folders of pictures (some of which may be absent)."""
    root = folder(data)
    if isinstance(data, mpii.MPII):
        short = {"valid": "val"}.get(data.split, data.split)
        spelled = [root / name.format(split=data.split, short=short) for name in mpii.FILES[data.form]]
        return [next((path for path in spelled if path.is_file()), spelled[0]), root / "images"]
    if isinstance(data, flic.FLIC):
        name = {"test": "valid"}.get(data.split, data.split) + {"person": "_personcentric"}.get(data.centric, "")
        spelled = [root / place.format(name=name) for place in flic_formats.FILES[data.form]]
        return [next((path for path in spelled if path.is_file()), spelled[0]), root / "images"]
    if isinstance(data, coco.COCO):
        pictures = [root / data.split, root / "images" / data.split]
        boxes = [] if data.boxes == "gt" else [root / data.boxes]
        return [data.annotations(), *boxes, next((path for path in pictures if path.is_dir()), pictures[0])]
    if data.form == "3dmppe":
        parts = [f"Human36M_subject{s}_{part}.json" for s in data.chosen for part in ("data", "camera", "joint_3d")]
        return [*(root / "annotations" / part for part in parts), root / "images"]
    if data.form == "h36m-fetch":
        base = root / "processed" if (root / "processed").is_dir() else root
        return [base / f"S{s}" for s in data.chosen]
    assert data.form in h36m_formats.READERS
    base = root / "annotation_body3d"
    rate = next((rate for rate in ("fps50", "fps10") if (base / rate).is_dir()), "fps50")
    return [base / rate / f"h36m_{data.split}.npz", base / "cameras.pkl", root / "images"]


__all__ = ["MARKER", "files", "folder", "is_fixture", "name_of", "sets"]
