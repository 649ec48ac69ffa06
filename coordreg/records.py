"""Runs and their records: what was trained, how, from which code, and what came out.

A `Run` is a description; its key is the hash of that description with its seed. `results/<profile>/<key>.json` holds
its record, `<key>.npz` the metrics of each test image. Records are written whole or not at all and checked when read.
"""

import hashlib
import io
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from lightning.fabric import Fabric
from numpy.typing import NDArray
from tqdm import tqdm

from coordreg.coords import Points
from coordreg.data.store import Store
from coordreg.fingerprint import changed, fingerprint
from coordreg.metrics.scoring import Scores, Scoring, score
from coordreg.spec import Spec, describe, digest
from coordreg.train import CheckpointError, Training, atomic, fit, load_checkpoint, predict

FORMAT = 1
#: From the cheapest to the dearest; "published" on a page means the last of these that is complete.
PROFILES = ("smoke", "cpu", "gpu", "paper")


class RecordError(ValueError):
    """A record is damaged, was edited, or belongs to another configuration."""


@dataclass(frozen=True)
class Reading:
    """One way to read a trained network: a decoder in place of the method's own, and perhaps the flip test.

    flip: "none", "plain" or "shift" (the mirrored map moved by one column before it is averaged).
    """

    name: str
    decoder: Any = None
    flip: str = "none"

    def __post_init__(self) -> None:
        if self.flip not in ("none", "plain", "shift"):
            raise ValueError(f"Reading: got flip={self.flip!r}, expected 'none', 'plain' or 'shift'")


@dataclass(frozen=True)
class Run:
    """One training run and what is measured on it.

    label: the run's name in tables; runs that differ in the seed alone share it. estimator: spec(Estimator, ...).
    train, test: configurations that `.open()` to a Store. Outside the key: readings, all measured on the same weights;
    keep: for how many test images the output is stored beside the record (and as many points), for pages to draw.
    """

    label: str
    estimator: Spec
    train: Any
    test: Any
    training: Training
    scoring: Scoring
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
        return "output" in self._arrays()

    def kept(self, name: str) -> NDArray[Any]:
        """An array stored for pages to draw: "output" (keep, ...) or "points" (up to 1,024, J, d), float16."""
        stored = self._arrays()
        if name not in stored:
            raise ValueError(f"record {self.data['key']} keeps no {name!r}; give its Run keep=24 and run it again")
        return stored[name]

    def images(self, name: str) -> dict[str, NDArray[Any]]:
        """Metrics of each test image for one reading, float16 arrays of length N by metric, and joint counts."""
        return {key.split("/", 1)[1]: v for key, v in self._arrays().items() if key.startswith(f"{name}/")}

    def _arrays(self) -> dict[str, NDArray[Any]]:
        """Everything in the .npz beside the record. RecordError if it is not the file the record was written with."""
        path = self.path.with_suffix(".npz")
        found = path.read_bytes() if path.exists() else b""
        if hashlib.sha256(found).hexdigest() != self.data["arrays"]:
            raise RecordError(f"{path}: absent or altered since its record was written; delete both and run again")
        with np.load(io.BytesIO(found), allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}

    @property
    def stale(self) -> list[str]:
        """Definitions of the library that have changed since the run (empty if none has)."""
        if self.run is None:
            return []
        return changed(self.data["code"], *_roots(self.run))


def _roots(run: Run) -> list[Any]:
    return [run.estimator, run.train, run.test, run.training, run.scoring, fit, predict, score]


def root() -> Path:
    """The folder of all records: $COORDREG_RESULTS, else `results` beside the library, else in the working folder."""
    if "COORDREG_RESULTS" in os.environ:
        return Path(os.environ["COORDREG_RESULTS"])
    beside = Path(__file__).parent.parent / "results"
    return beside if beside.is_dir() else Path("results")


def path_of(run: Run, profile: str) -> Path:
    """Where the record of a run lies, finished or not."""
    return root() / profile / f"{run.key}.json"


def check_profile(profile: str) -> None:
    """ValueError for an unknown profile."""
    if profile not in PROFILES:
        raise ValueError(f"profile: got {profile!r}, expected one of {', '.join(PROFILES)}")


def load(path: Path, run: Run | None = None) -> Record:
    """Read a record. Raises RecordError if its hash and its configuration, or its contents and checksum, disagree."""
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
    if stored != _checksum(data):
        raise RecordError(f"{path}: the contents do not match their checksum; it was edited: delete it and run again")
    return Record(data, path, run)


def _checksum(data: dict[str, Any]) -> str:
    return digest({k: v for k, v in data.items() if k != "sum"}, 32)


def find(run: Run, profile: str) -> Record | None:
    """The record of a run if it is finished and holds every reading asked for."""
    path = path_of(run, profile)
    if not path.exists():
        return None
    record = load(path, run)
    whole = all(r.name in record["readings"] for r in run.readings) and (not run.keep or record.keeps)
    return record if whole else None


# -- running ----------------------------------------------------------------------------------------------------------


def checkpoint_of(run: Run, profile: str) -> Path:
    """Where a run's weights lie: under $COORDREG_RUNS or `runs`, which git ignores."""
    return Path(os.environ.get("COORDREG_RUNS", "runs")) / profile / f"{run.key}.pt"


def execute(
    run: Run,
    profile: str,
    *,
    progress: bool = True,
    fabric: Fabric | None = None,
    every: int = 200,
    checkpoint_needed: bool = False,
) -> Record:
    """Train one run (or resume it), measure it and write its record; returns it at once if it is there already.

    Two processes may be asked for the same run: the second waits for the first and reads its record.
    checkpoint_needed: train again where the record is there but the weights are not.
    """
    check_profile(profile)
    path, checkpoint = path_of(run, profile), checkpoint_of(run, profile)
    _commit()  # of the code as it was loaded, not as it may be when the run ends
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(checkpoint.with_suffix(".lock")):
        found = find(run, profile)
        if found is not None and (checkpoint.exists() or not checkpoint_needed):
            return found
        fabric = fabric or Fabric(accelerator=os.environ.get("COORDREG_DEVICE", "auto"), devices=1)
        train, test = run.train.open(), run.test.open()
        torch.manual_seed(run.seed)
        estimator = run.estimator.build()
        before = (time.perf_counter(), time.process_time())
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        code = fingerprint(*_roots(run))
        config = json.dumps({**run.config, "code": code}, sort_keys=True)
        resumed = _usable(checkpoint, config)
        losses = fit(
            estimator, train, run.training, run.seed,
            fabric=fabric, checkpoint=checkpoint, every=every, config=config, progress=progress,
        )  # fmt: skip
        wall, cpu = time.perf_counter() - before[0], time.process_time() - before[1]
        scores = {reading.name: read(estimator, run, reading, test) for reading in run.readings}
        seen = run.training.steps * run.training.batch
        data: dict[str, Any] = {
            "format": FORMAT,
            "key": run.key,
            "label": run.label,
            "profile": profile,
            "config": run.config,
            "readings": {
                r.name: {"decoder": describe(r.decoder), "flip": r.flip, **scores[r.name].summary()}
                for r in run.readings
            },
            "loss": [round(float(np.mean(part)), 6) for part in np.array_split(losses, min(100, len(losses)))],
            "images_seen": seen,
            "resumed": resumed,  # the times below then cover the last part only
            "wall_s": round(wall, 1),
            "cpu_s": round(cpu, 1),
            "images_per_s": None if resumed else round(seen / wall, 1),
            "peak_memory_mb": _peak_memory(),
            "data": {"train": train.fingerprint, "test": test.fingerprint, "test_images": len(test)},
            "code": code,
            "made": made(fabric),
        }
        arrays = {f"{n}/{k}": v for n, s in scores.items() for k, v in s.images().items()}
        arrays |= _kept(estimator, run, test, scores)
        old = load(path, run) if path.exists() else None
        if old is not None and old["code"] == code:  # the same weights were read in other ways before
            data["readings"] = {**old["readings"], **data["readings"]}
            data |= {k: old[k] for k in ("resumed", "wall_s", "cpu_s", "images_per_s", "peak_memory_mb")}
            arrays = {**old._arrays(), **arrays}
        packed = io.BytesIO()
        np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]
        data["arrays"] = hashlib.sha256(packed.getvalue()).hexdigest()
        data["sum"] = _checksum(data)
        with atomic(path.with_suffix(".npz")) as part:
            part.write_bytes(packed.getvalue())
        with atomic(path) as part:
            part.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n")
        return load(path, run)


def _usable(checkpoint: Path, config: str) -> bool:
    """Is there a checkpoint of this very configuration and code? One of an older code is removed."""
    if not checkpoint.exists():
        return False
    try:
        load_checkpoint(checkpoint, config)
    except CheckpointError:
        checkpoint.unlink()
        return False
    return True


@torch.no_grad()
def _kept(estimator: Any, run: Run, test: Store, scores: dict[str, Scores]) -> dict[str, NDArray[Any]]:
    """The network's output for the first `keep` test images, and the points of up to 1,024 by the first reading."""
    if not run.keep:
        return {}
    device = next(estimator.parameters()).device
    estimator.eval()
    output = estimator(test.batch(torch.arange(min(run.keep, len(test)))).images.to(device))
    points = scores[run.readings[0].name].points
    return {
        "output": output.cpu().half().numpy(),
        "points": points[:1024].half().numpy() if points is not None else np.empty(0, np.float16),
    }


def read(estimator: Any, run: Run, reading: Reading, test: Store) -> Scores:
    """Measure a trained network under one reading."""
    method = estimator.method
    wanted = {} if reading.decoder is None else {"decoder": reading.decoder}
    if reading.flip != "none":
        wanted["flip_shift"] = reading.flip == "shift"
    own = {name: getattr(method, name) for name in wanted}
    try:
        for name, value in wanted.items():
            setattr(method, name, value)
        points: Points = predict(estimator, test, flip=test.pairs if reading.flip != "none" else None)
    finally:
        for name, value in own.items():
            setattr(method, name, value)
    return score(points, test, run.scoring)


def run_all(
    runs: Sequence[Run], profile: str, *, workers: int = 1, progress: bool = True, report: Callable[[str], None] = print
) -> list[Record]:
    """Records of all runs in order, training only what is missing; `workers` runs side by side, one thread each."""
    check_profile(profile)
    missing = list({run.key: run for run in _wanted(runs) if find(run, profile) is None}.values())
    if workers <= 1 or len(missing) <= 1:
        for i, run in enumerate(missing):
            report(f"[{i + 1}/{len(missing)}] {run.label}, seed {run.seed} ({run.key})")
            execute(run, profile, progress=progress)
    else:
        context = get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
            jobs = {pool.submit(_execute_key, run, profile): run for run in missing}
            for done in tqdm(as_completed(jobs), total=len(jobs), unit="run", disable=not progress):
                run = jobs[done]
                done.result()
                report(f"{run.label}, seed {run.seed} ({run.key}) done")
    return [_found(run, profile) for run in runs]


def _wanted(runs: Sequence[Run]) -> list[Run]:
    """One run a key, with the readings of all runs that share it."""
    by_key: dict[str, Run] = {}
    for run in runs:
        old = by_key.get(run.key)
        names = {r.name for r in old.readings} if old else set()
        extra = tuple(r for r in run.readings if r.name not in names)
        keep = max(run.keep, old.keep) if old else run.keep
        by_key[run.key] = replace(old, readings=old.readings + extra, keep=keep) if old else run
    return list(by_key.values())


def _one_thread() -> None:
    torch.set_num_threads(1)


def _execute_key(run: Run, profile: str) -> None:
    execute(run, profile, progress=False)


def _found(run: Run, profile: str) -> Record:
    record = find(run, profile)
    if record is None:
        raise RecordError(f"{run.label}, seed {run.seed}: no record under {root() / profile} after its run")
    return record


def complete(runs: Sequence[Run], profile: str) -> bool:
    """Is there a record for every run?"""
    return bool(runs) and all(find(run, profile) is not None for run in runs)


# -- provenance -------------------------------------------------------------------------------------------------------


def made(fabric: Fabric) -> dict[str, Any]:
    """Where and with what a record is made. `interpreter` is "project" inside the checkout's .venv, else "own"."""
    here = Path(__file__).parent.parent
    own = Path(sys.prefix).resolve() != (here / ".venv").resolve()
    return {
        "device": _device(fabric),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "interpreter": "own" if own else "project",
        "versions": {name: _version(name) for name in ("torch", "torchvision", "lightning", "numpy", "coordreg")},
        "commit": _commit(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "source"


def _device(fabric: Fabric) -> str:
    if fabric.device.type == "cuda":
        return torch.cuda.get_device_name(fabric.device)
    model = ""
    if Path("/proc/cpuinfo").exists():
        lines = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else ""
    return f"cpu, {model or platform.processor() or platform.machine()}, {os.cpu_count()} cores"


@cache
def _commit() -> str:
    """The commit the code came from; "+changes" if tracked code differs from it; "unknown" outside git."""
    try:
        here = Path(__file__).parent.parent
        git = ["git", "-C", str(here)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        dirty = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "coordreg"], check=False).returncode != 0
        return head[:12] + ("+changes" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _peak_memory() -> float:
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10, 1)
