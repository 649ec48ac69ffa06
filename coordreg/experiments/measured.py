"""Numbers that are no training run: measured or scored once, kept as `results/NAME.json`, checked when read."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.fabric import Fabric

from coordreg.experiments.exact import Exact
from coordreg.fingerprint import changed, fingerprint
from coordreg.provenance import made
from coordreg.records import RecordError, checksum, root
from coordreg.train import atomic

#: Rounds of the clock that a measurement needs to be judged.
ROUNDS = 9


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


# -- what is timed on a device -----------------------------------------------------------------------------------------


def newest(stem: str) -> tuple[str, dict[str, Any]] | None:
    """The kind of machine, "gpu" before "cpu", and what was measured there; None where nobody has measured."""
    for kind in ("gpu", "cpu"):
        data = read(f"{stem}-{kind}")
        if data is not None:
            return kind, data
    return None


def row(
    stem: str,
    of: Sequence[Any],
    say: Callable[[dict[str, Any], str], Exact],
    refused: str = "misprint",
    few: str = "misprint",
) -> Exact | None:
    """The newest measurement as a row of the ledger, or None where nobody has measured.

    of: what it is a measurement of, whose changes make it stale. say: the row for the data and the machine in words,
    with which its note begins. refused, few: `Exact.otherwise` of damaged files and of fewer than ROUNDS rounds.
    """
    try:
        found = newest(stem)
    except RecordError as error:
        return Exact(f"refused: {error}", False, otherwise=refused)
    if found is None:
        return None
    kind, data = found
    if data["repeats"] < ROUNDS:
        note = f"a measurement of {data['repeats']} rounds is not judged, {ROUNDS} are: measure again"
        return Exact("measured too few times", False, note, otherwise=few)
    judged = say(data, f"measured on {data['made']['device']}{'' if kind == 'gpu' else ', one thread'}")
    stale = changed(data["code"], *of, timed=True)
    return replace(judged, note=f"{judged.note}; stale, changed since: {', '.join(stale)}") if stale else judged


def clock(
    arguments: Sequence[str] | None,
    module: str,
    description: str,
    stem: str,
    of: Sequence[Any],
    measure: Callable[[str, int], dict[str, Any]],
    told: Callable[[dict[str, Any]], Iterable[str]],
) -> int:
    """The command of a module that times something: measure(device, rounds), write, print; the exit code.

    of: as for `row`. told: the lines to print of what was measured.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=15, help=f"rounds of the clock, at least {ROUNDS} to be judged")
    options = parser.parse_args(arguments)
    found = measure(options.device, options.repeats)
    data = {**found, "code": fingerprint(*of), "made": made(Fabric(accelerator=options.device, devices=1))}
    path = write(f"{stem}-{'gpu' if options.device == 'cuda' else 'cpu'}", data)
    print(*told(found), path.name, sep="\n")
    return 0


# -- what is counted in a folder ---------------------------------------------------------------------------------------


def folder(
    arguments: Sequence[str] | None,
    module: str,
    description: str,
    name: str,
    inside: str,
    count: Callable[[Path], dict[str, Any]],
    told: Callable[[dict[str, Any]], str],
) -> int:
    """The command of a module that counts what lies in a folder: count(folder), write `name`, print; the exit code.

    inside: the folder's name, which --root may hold or be. told: what was counted, in words.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    text = f"the folder that contains {inside}/, or {inside}/ itself"
    parser.add_argument("--root", type=Path, required=True, help=text)
    options = parser.parse_args(arguments)
    where = options.root / inside if (options.root / inside).is_dir() else options.root
    try:
        data = {**count(where), "made": made(Fabric(accelerator="cpu"))}
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{write(name, data).name}: {told(data)}")
    return 0
