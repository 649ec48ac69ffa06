"""Runs and their records: what was trained, how, from which code, and what came out.

A `Run` is a description; its key is the hash of that description with its seed. `results/<profile>/<key>.json` holds
its record, `<key>.npz` the metrics of each test image, and `code/<hash>.json` a fingerprint of code, once for all
records that name it. Records are written whole or not at all and checked when read.
"""

import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coordreg.fingerprint import changed
from coordreg.metrics.scoring import score
from coordreg.spec import Spec, describe, digest
from coordreg.train import Training, atomic, fit, predict

FORMAT = 1
#: From the cheapest to the dearest; "published" on a page means the last of these that is complete.
PROFILES = ("smoke", "cpu", "gpu", "paper")


class RecordError(ValueError):
    """A record is damaged, was edited, or belongs to another configuration."""


@dataclass(frozen=True)
class Reading:
    """One way to read a trained network: a decoder in place of the method's own, and perhaps the flip test.

    flip: "none"; "plain" averages the outputs for the image and its mirror image, "shift" after the mirrored map was
    moved by one column, "points" the points instead of the outputs.
    """

    name: str
    decoder: Any = None
    flip: str = "none"

    def __post_init__(self) -> None:
        if self.flip not in ("none", "plain", "shift", "points"):
            raise ValueError(f"Reading: got flip={self.flip!r}, expected 'none', 'plain', 'shift' or 'points'")


@dataclass(frozen=True)
class Run:
    """One training run and what is measured on it.

    label: the run's name in tables; runs that differ in the seed alone share it. estimator: spec(Estimator, ...).
    train, test: configurations that `.open()` to a Store. scoring: a `Scoring`, or a value with its attributes and a
    `score(points, data)` of its own, such as `Scoring3D`. Outside the key: readings, all measured on the same weights;
    keep: for how many test images the output is stored beside the record (and as many points), for pages to draw.
    """

    label: str
    estimator: Spec
    train: Any
    test: Any
    training: Training
    scoring: Any
    seed: int = 0
    readings: tuple[Reading, ...] = (Reading("method"),)
    keep: int = 0

    @property
    def config(self) -> dict[str, Any]:
        """Everything that decides the weights and the measurement, seed included, label and readings excluded."""
        parts = ("estimator", "train", "test", "training", "scoring", "seed")
        return {name: describe(getattr(self, name)) for name in parts}

    @cached_property
    def key(self) -> str:
        """The hash of the configuration: the record's name."""
        return digest(self.config)


@dataclass(frozen=True)
class Record:
    """A finished run as it was measured; `images` holds the metrics of each test image by reading."""

    data: dict[str, Any]
    path: Path
    run: Run | None = field(default=None, compare=False)

    def __getitem__(self, name: str) -> Any:
        return self.data[name]

    def reading(self, name: str) -> dict[str, Any]:
        """What one reading gave: percentages, curve, per joint."""
        found: dict[str, Any] = self.data["readings"]
        if name not in found:
            raise ValueError(f"record {self.data['key']} has no reading {name!r}; it has {', '.join(found)}")
        return dict(found[name])

    @property
    def keeps(self) -> bool:
        """Are outputs and points stored for pages to draw?"""
        return "output" in self._stored.files

    def kept(self, name: str) -> NDArray[Any]:
        """An array stored for pages to draw: "output" (keep, ...), "points" (up to 1,024, J, d), float16.

        Of Poseur also what `coordreg.poseur.traced` lists. ValueError for another name.
        """
        if name not in self._stored.files:
            there = ", ".join(file for file in self._stored.files if "/" not in file) or "nothing"
            raise ValueError(
                f"record {self.data['key']} keeps no {name!r}, it keeps {there}; outputs and points are kept by a Run "
                "with keep=24, once it is run again"
            )
        found: NDArray[Any] = self._stored[name]
        return found

    def images(self, name: str) -> dict[str, NDArray[Any]]:
        """Metrics of each test image for one reading, float16 arrays of length N by metric, and joint counts."""
        return {key.split("/", 1)[1]: self._array(key) for key in self._stored.files if key.startswith(f"{name}/")}

    def image(self, name: str, metric: str) -> NDArray[Any]:
        """One metric of each test image for one reading, or their joint counts (metric="count"): (N,)."""
        if f"{name}/{metric}" not in self._stored.files:
            raise ValueError(
                f"record {self.data['key']}: got reading {name!r} and metric {metric!r}, expected a pair of "
                f"{', '.join(self._stored.files)}"
            )
        return self._array(f"{name}/{metric}")

    @property
    def names(self) -> list[str]:
        """What the .npz beside the record holds. RecordError if it is not the file the record was written with."""
        return list(self._stored.files)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything in that .npz."""
        return {key: self._array(key) for key in self._stored.files}

    @cached_property
    def _stored(self) -> Any:
        """The .npz; its arrays are unpacked when they are asked for."""
        return np.load(io.BytesIO(self._bytes), allow_pickle=False)

    @cached_property
    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {}

    def _array(self, key: str) -> NDArray[Any]:
        """An array of the .npz, unpacked once; for everyone who asks, so not to be written to."""
        if key not in self._arrays:
            self._arrays[key] = self._stored[key]
            self._arrays[key].flags.writeable = False
        return self._arrays[key]

    @cached_property
    def _bytes(self) -> bytes:
        """The .npz as it lies there, read and checked once."""
        path = self.path.with_suffix(".npz")
        found = path.read_bytes() if path.exists() else b""
        if hashlib.sha256(found).hexdigest() != self.data["arrays"]:
            raise RecordError(f"{path}: absent or altered since its record was written; delete both and run again")
        return found

    @property
    def stale(self) -> list[str]:
        """Definitions of the library that have changed since the run (empty if none has).

        A reading that the record does not hold has not been measured at all, which is `find`'s to say.
        """
        if self.run is None:
            return []
        found = changed(self.data["code"], *reached(self.run))
        for reading in self.run.readings:
            if reading.name in self.data["readings"]:
                found += changed(self.data["readings"][reading.name]["code"], reading.decoder)
        return sorted(set(found))


def reached(run: Run) -> list[Any]:
    """The objects from which a run's code is reached: what decides its weights and its measurement."""
    return [run.estimator, run.train, run.test, run.training, run.scoring, fit, predict, score]


def root() -> Path:
    """The folder of all records: $COORDREG_RESULTS, else `results` beside the library, else in the working folder."""
    if "COORDREG_RESULTS" in os.environ:
        return Path(os.environ["COORDREG_RESULTS"])
    beside = Path(__file__).parent.parent / "results"
    return beside if beside.is_dir() else Path("results")


def runs_root() -> Path:
    """The folder of checkpoints: $COORDREG_RUNS, else `runs` beside the library, else in the working folder."""
    if "COORDREG_RUNS" in os.environ:
        return Path(os.environ["COORDREG_RUNS"])
    beside = Path(__file__).parent.parent
    return beside / "runs" if (beside / "results").is_dir() else Path("runs")


def path_of(run: Run, profile: str) -> Path:
    """Where the record of a run lies, finished or not."""
    return root() / profile / f"{run.key}.json"


def check_profile(profile: str) -> None:
    """ValueError for an unknown profile."""
    if profile not in PROFILES:
        raise ValueError(f"profile: got {profile!r}, expected one of {', '.join(PROFILES)}")


def load(path: Path, run: Run | None = None) -> Record:
    """Read a record, with the fingerprints in place of their names.

    RecordError if its hash and its configuration, or its contents and checksum, disagree, or a fingerprint is missing.
    """
    try:
        data = json.loads(path.read_text())
        stored, config = data["sum"], data["config"]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise RecordError(f"{path}: not a record ({type(error).__name__}); delete it and run again") from error
    if digest(config) != data["key"] or data["key"] != path.stem:
        raise RecordError(
            f"{path}: the configuration hashes to {digest(config)} but the record says {data['key']} and its file "
            f"{path.stem}; it was edited or renamed: delete it and run again"
        )
    for part in _fingerprinted(data):
        if isinstance(part["code"], str):
            part["code"] = _code(path, part["code"])
    if stored != checksum(data):
        raise RecordError(f"{path}: the contents do not match their checksum; it was edited: delete it and run again")
    return Record(data, path, run)


def checksum(data: dict[str, Any]) -> str:
    """The hash of everything in a record but this hash, with its fingerprints in full."""
    return digest({k: v for k, v in data.items() if k != "sum"}, 32)


def _fingerprinted(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The parts of a record that hold a fingerprint under "code": itself and its readings."""
    readings = data.get("readings")
    for part in (data, *(readings.values() if isinstance(readings, dict) else ())):
        if isinstance(part, dict) and "code" in part:
            yield part


def code_path(record: Path, name: str) -> Path:
    """Where the fingerprint lies that a record names."""
    return record.parent / "code" / f"{name}.json"


def _code(record: Path, name: str) -> dict[str, str]:
    """The fingerprint that a record names."""
    path = code_path(record, name)
    mend = f"restore it from the repository, or delete {record.name} and run again"
    try:
        found, code = _read_code(path.read_text())
    except FileNotFoundError as error:
        raise RecordError(f"{path}: absent, but {record.name} names it as its code; {mend}") from error
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: not a fingerprint ({type(error).__name__}); {mend}") from error
    if found != name:
        raise RecordError(f"{path}: the contents hash to {found}; it was edited or renamed: {mend}")
    return dict(code)  # nobody's writing to it may reach another record


@lru_cache(maxsize=256)
def _read_code(text: str) -> tuple[str, dict[str, str]]:
    """The name of a fingerprint, and it."""
    code = json.loads(text)
    return digest(code), code


def save(path: Path, data: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
    """Write a record and its arrays: fingerprints first, unless they are there, and the record itself last.

    A key a line and no fingerprint in it, so that it is small and two records can be compared line by line. data:
    without "arrays" and "sum", which are added. Each file is written whole or not at all, by several processes at will.
    """
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]
    data = {**data, "arrays": hashlib.sha256(packed.getvalue()).hexdigest()}
    data["sum"] = checksum(data)
    with atomic(path.with_suffix(".npz")) as part:
        part.write_bytes(packed.getvalue())
    write(path, data)


def write(path: Path, data: dict[str, Any]) -> None:
    """Write the .json of a record, and the fingerprints that it names."""
    data = {**data, "readings": {name: dict(reading) for name, reading in data["readings"].items()}}
    for holder in _fingerprinted(data):
        code, holder["code"] = holder["code"], digest(holder["code"])
        stored, text = code_path(path, holder["code"]), json.dumps(code, indent=0) + "\n"
        if not stored.exists() or stored.read_bytes() != text.encode():
            with atomic(stored) as part:
                part.write_text(text)
    lines = [f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'), allow_nan=False)}" for k, v in data.items()]
    with atomic(path) as part:
        part.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def find(run: Run, profile: str) -> Record | None:
    """The record of a run if it is finished and holds every reading asked for."""
    path = path_of(run, profile)
    if not path.exists():
        return None
    record = load(path, run)
    if not all(_same(record["readings"].get(r.name), r) for r in run.readings):
        return None
    return record if not run.keep or record.keeps else None


def _same(found: dict[str, Any] | None, reading: Reading) -> bool:
    """Was this measured by this reading, and not by another of its name?"""
    wanted = (describe(reading.decoder), reading.flip)
    return found is not None and "code" in found and (found["decoder"], found["flip"]) == wanted


def checkpoint_of(run: Run, profile: str) -> Path:
    """Where a run's weights lie: in a folder that git ignores."""
    return runs_root() / profile / f"{run.key}.pt"


def complete(runs: Sequence[Run], profile: str) -> bool:
    """Is there a record for every run?"""
    return bool(runs) and all(find(run, profile) is not None for run in runs)
