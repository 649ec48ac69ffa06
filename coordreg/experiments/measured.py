"""Numbers that are no training run: measured or scored once, kept as `results/NAME.json`, checked when read."""

import json
from pathlib import Path
from typing import Any

from coordreg.records import RecordError, checksum, root
from coordreg.train import atomic


def path_of(name: str) -> Path:
    """Where a measurement lies."""
    return root() / f"{name}.json"


def write(name: str, data: dict[str, Any]) -> Path:
    """Write a measurement with its checksum, whole or not at all."""
    with atomic(path_of(name)) as part:
        part.write_text(json.dumps({**data, "sum": checksum(data)}, indent=1) + "\n")
    return path_of(name)


def read(name: str) -> dict[str, Any] | None:
    """A measurement, None if there is none. RecordError if it is damaged or was edited."""
    path = path_of(name)
    if not path.exists():
        return None
    try:
        data: dict[str, Any] = json.loads(path.read_text())
        sound = data["sum"] == checksum(data)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{path.name}: not a measurement ({type(error).__name__}); measure again") from error
    if not sound:
        raise RecordError(f"{path.name}: the contents do not match their checksum; measure again")
    return data
