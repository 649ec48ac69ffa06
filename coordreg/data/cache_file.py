"""Arrays kept in a file between runs: written whole or not at all, and made anew if the file is not as it should be."""

import os
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def folder() -> Path:
    """The user's cache folder: coordreg/ under $XDG_CACHE_HOME, or under ~/.cache."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "coordreg"


def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write beside the target and rename: nobody ever reads half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            whole: dict[str, Any] = dict(arrays)
            np.savez(file, **whole)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def load(path: Path, names: Sequence[str], count: int) -> dict[str, np.ndarray] | None:
    """The arrays of a cache file, None if it is absent, cut short or something else."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {k: file[k] for k in names}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return arrays if all(len(a) == count for a in arrays.values()) else None
