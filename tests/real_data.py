"""Where the real data sets lie, for the tests that read them; without a set its tests are skipped."""

import os
from pathlib import Path

import pytest

#: Read before a test sets the variable to a folder of its own.
ROOT = Path(os.environ.get("COORDREG_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def real(part: str, *needed: str) -> Path:
    """The folder or file `part` of the data sets, if what is needed in it is there; without a name, it itself."""
    for name in needed or ("",):
        if not (ROOT / part / name).exists():
            pytest.skip(f"no real data here; set COORDREG_DATA to the folder that contains {Path(part, name)}")
    return ROOT / part
