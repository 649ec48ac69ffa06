"""Pickles that hold numbers, read so that they can do nothing else.

A pickle is a small program, and `pickle.load` runs it: `allow_pickle=True` means to trust whoever wrote the file. Some
data sets come as nothing else. Here a pickle gets the few names that an array is made of and is refused at any other.
"""

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


class _Numpy(pickle.Unpickler):
    """Arrays, dicts, lists, tuples, numbers and strings; nothing else is ever looked up, let alone called."""

    def find_class(self, module: str, name: str) -> Any:
        """One of the few things an array is made of. Raises UnpicklingError for any other name."""
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        home, _, part = module.rpartition(".")
        if home in ("numpy.core", "numpy._core") and (part, name) in _MAKERS:
            return _MAKERS[part, name]
        if (module, name) == ("_codecs", "encode"):  # bytes of an old protocol
            return lambda text, codec="latin1": text.encode("latin1")
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, and only numpy arrays, dicts and strings are read")


#: How numpy itself says an array, a number and a buffer are to be made; taken from it, as their modules have moved.
_MAKERS: Mapping[tuple[str, str], Any] = {
    ("multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("multiarray", "scalar"): np.float64(0).__reduce__()[0],
    ("numeric", "_frombuffer"): np.empty(0).__reduce_ex__(5)[0],
}


def load_pickle(data: bytes, source: Path) -> Any:
    """A pickle of numpy arrays, dicts, lists and strings. Raises ValueError, and runs nothing, for any other."""
    try:
        return _Numpy(io.BytesIO(data), encoding="latin1").load()
    except Exception as error:  # a damaged pickle can raise anything
        raise ValueError(
            f"{source} is refused ({error}): a pickle can run code as it is read; get it from its authors"
        ) from error


def read_objects(path: Path, name: str) -> Any:
    """The one object that np.savez put as an object array under `name`, read by `load_pickle`."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            _, _, dtype = read(file)
            data = file.read()
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is cut short or has no {name!r} ({error}); get it again") from error
    if not dtype.hasobject:
        raise ValueError(f"{name!r} in {path} is an array of {dtype}, expected a dict by subject and action")
    held = load_pickle(data, path)
    return held.item() if isinstance(held, np.ndarray) and held.shape == () else held
