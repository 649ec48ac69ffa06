"""Executing runs: train, measure, write the record; one after the other or several side by side."""

import contextlib
import json
import os
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from filelock import FileLock
from lightning.fabric import Fabric
from numpy.typing import NDArray
from tqdm import tqdm

from coordreg.coords import Points, flip_coords, swap
from coordreg.data.places import is_fixture
from coordreg.data.store import Store
from coordreg.fingerprint import changed, fingerprint
from coordreg.method import Staged
from coordreg.metrics.pck import image_distances, pck
from coordreg.metrics.scoring import score
from coordreg.poseur import Poseur, traced
from coordreg.provenance import commit, made, peak_memory
from coordreg.records import (
    FORMAT,
    Reading,
    Record,
    RecordError,
    Run,
    check_profile,
    checkpoint_of,
    find,
    load,
    path_of,
    reached,
    root,
    save,
)
from coordreg.spec import describe
from coordreg.train import CheckpointError, fit, load_checkpoint, predict


@runtime_checkable
class Measured(Protocol):
    """What scoring gives: a summary for the record, numbers by image, and the points if pages may draw them."""

    @property
    def points(self) -> torch.Tensor | None:
        """(N, J, d) normalised, or None."""

    def summary(self) -> dict[str, Any]:
        """Numbers of the whole test set, as JSON holds them."""

    def images(self) -> dict[str, NDArray[Any]]:
        """By metric and "count": (N,), a number for each test image."""


def execute(
    run: Run,
    profile: str,
    *,
    progress: bool = True,
    fabric: Fabric | None = None,
    every: int = 200,
    checkpoint_needed: bool = False,
    refresh: bool = False,
) -> Record:
    """Train one run (or resume it), measure it and write its record; returns it at once if it is there already.

    Two processes may be asked for the same run: the second waits for the first and reads its record.
    checkpoint_needed: train again where the record is there but the weights are not. refresh: train again where the
    code has changed since.
    """
    check_profile(profile)
    path, checkpoint = path_of(run, profile), checkpoint_of(run, profile)
    commit()  # this and the fingerprint: of the code as it was loaded, not as it may be when the run ends
    code = fingerprint(*reached(run))
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(checkpoint.with_suffix(".lock")):
        found = find(run, profile)
        wanted = (checkpoint_needed and not checkpoint.exists()) or (refresh and found is not None and found.stale)
        if found is not None and not wanted:
            return found
        fabric = fabric or Fabric(accelerator=os.environ.get("COORDREG_DEVICE", "auto"), devices=1)
        train, test = run.train.open(), run.test.open()
        torch.manual_seed(run.seed)
        estimator = run.estimator.build()
        before = (time.perf_counter(), time.process_time())
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        config = json.dumps({**run.config, "code": code}, sort_keys=True)
        theirs = _usable(checkpoint, config, run)
        resumed, config = theirs is not None, theirs or config
        losses = fit(
            estimator, train, run.training, run.seed,
            fabric=fabric, checkpoint=checkpoint, every=every, config=config, progress=progress,
            validate=_glance(run, test) if progress else None,
        )  # fmt: skip
        wall, cpu = time.perf_counter() - before[0], time.process_time() - before[1]
        if found is not None and not found.stale:  # the weights were wanted; the record stays as it is
            return found
        scores = {reading.name: read(estimator, run, reading, test) for reading in run.readings}
        seen = run.training.steps * run.training.batch
        fixture = {"fixture": True} if is_fixture(run.train, run.test) else {}
        data: dict[str, Any] = {
            "format": FORMAT,
            "key": run.key,
            "label": run.label,
            "profile": profile,
            "config": run.config,
            "readings": {
                r.name: {
                    "decoder": describe(r.decoder),
                    "flip": r.flip,
                    "code": fingerprint(r.decoder),
                    **scores[r.name].summary(),
                }
                for r in run.readings
            },
            "loss": [round(float(np.mean(part)), 6) for part in np.array_split(losses, min(100, len(losses)))],
            "images_seen": seen,
            "resumed": resumed,  # the times below then cover the last part only
            "wall_s": round(wall, 1),
            "cpu_s": round(cpu, 1),
            "images_per_s": None if resumed else round(seen / wall, 1),
            "peak_memory_mb": peak_memory(fabric.device),
            "data": {"train": train.fingerprint, "test": test.fingerprint, "test_images": len(test), **fixture},
            "code": code,
            "made": made(fabric),
        }
        arrays = {f"{n}/{k}": v for n, s in scores.items() for k, v in s.images().items()}
        arrays |= _kept(estimator, run, test, scores)
        old = load(path, run) if path.exists() else None
        same = old is not None and all(old[k] == data[k] for k in ("loss", "data"))
        if old is not None and same and not changed(old["code"], *reached(run)):
            # the same weights, read again: how they were made stays, and when they were read is added
            data["readings"] = {**old["readings"], **data["readings"]}
            data["reread"] = data["made"]
            kept = ("code", "made", "resumed", "wall_s", "cpu_s", "images_per_s", "peak_memory_mb")
            data |= {k: old[k] for k in kept}
            with contextlib.suppress(RecordError):  # a kill fell between the two files
                arrays = {**old.arrays(), **arrays}
        save(path, data, arrays)
        return load(path, run)


def _glance(run: Run, test: Store) -> Callable[[Any], float]:
    """PCK on a few test images, for the progress bar only."""
    few = test.batch(torch.arange(min(128, len(test))))

    def value(estimator: Any) -> float:
        device = next(estimator.parameters()).device
        hint = None if few.hint is None else few.hint.to(device)
        points: Points = estimator.predict(few.images.to(device), hint)
        distances = image_distances(Points(points.coords.cpu(), points.score.cpu()), few)
        return float(pck(distances, run.scoring.at[0], run.scoring.exclude).mean)

    return value


def _usable(checkpoint: Path, config: str, run: Run) -> str | None:
    """The configuration of the checkpoint there is, if it is this run's, of code that gives the same results.

    A checkpoint of another code is removed.
    """
    if not checkpoint.exists():
        return None
    try:
        found = load_checkpoint(checkpoint)["config"]
        parts, ours = json.loads(found), json.loads(config)
        if changed(parts.get("code", {}), *reached(run)) or {**parts, "code": {}} != {**ours, "code": {}}:
            load_checkpoint(checkpoint, config)  # says how they differ
    except CheckpointError as error:
        warnings.warn(f"starting afresh: {error}", stacklevel=2)
        checkpoint.unlink()
        return None
    return str(found)


@torch.no_grad()
def _kept(estimator: Any, run: Run, test: Store, scores: dict[str, Measured]) -> dict[str, NDArray[Any]]:
    """The network's output for the first `keep` test images, and the points of up to 1,024 by the first reading.

    Of Poseur, beside the output, what its layers looked at: see `poseur.traced`.
    """
    if not run.keep:
        return {}
    points = scores[run.readings[0].name].points
    few = {"points": points[:1024].half().numpy() if points is not None else np.empty(0, np.float16)}
    if isinstance(estimator, Poseur):
        return {**traced(estimator, test, run.keep), **few}
    device = next(estimator.parameters()).device
    estimator.eval()
    output = estimator(test.batch(torch.arange(min(run.keep, len(test)))).images.to(device))
    output = output[-1] if isinstance(output, list) else output  # of several stages, the one that is decoded
    output = getattr(output, "coarse", output)  # of a cascade, the map that covers the image
    return {"output": output.cpu().half().numpy(), **few}


def read(estimator: Any, run: Run, reading: Reading, test: Store) -> Measured:
    """Measure a trained network under one reading."""
    method = estimator.method
    method = method.method if isinstance(method, Staged) else method  # what reads the last of several stages
    wanted = {} if reading.decoder is None else {"decoder": reading.decoder}
    if reading.flip in ("plain", "shift"):
        wanted["flip_shift"] = reading.flip == "shift"
    missing = [name for name in wanted if not hasattr(method, name)]
    if missing:
        raise ValueError(
            f"reading {reading.name!r}: {type(method).__name__} has no {' and no '.join(missing)} to exchange; "
            'give such a run Reading("method")'
        )
    own = {name: getattr(method, name) for name in wanted}
    try:
        for name, value in wanted.items():
            setattr(method, name, value)
        points: Points = predict(estimator, test, flip=test.pairs if "flip_shift" in wanted else None)
        if reading.flip == "points":
            points = _averaged(points, predict(estimator, _mirrored(test)), test)
    finally:
        for name, value in own.items():
            setattr(method, name, value)
    own_way = getattr(run.scoring, "score", None)
    found: Measured = score(points, test, run.scoring) if own_way is None else own_way(points, test)
    return found


def _mirrored(data: Store) -> Store:
    """The mirror images, with mirrored hints; labels stay as they are, for nothing but the points is asked for."""
    hint = None if data.hint is None else flip_coords(data.hint.unsqueeze(1), ()).squeeze(1)
    return replace(data, images=data.images.flip(-1), hint=hint)


def _averaged(points: Points, mirrored: Points, data: Store) -> Points:
    """The mean of points and of those predicted for the mirror images."""
    coords = 0.5 * (points.coords + flip_coords(mirrored.coords, data.pairs))
    return Points(coords, 0.5 * (points.score + swap(mirrored.score, data.pairs)))


def run_all(
    runs: Sequence[Run],
    profile: str,
    *,
    workers: int = 1,
    progress: bool = True,
    report: Callable[[str], None] = print,
    refresh: bool = False,
) -> list[Record]:
    """Records of all runs in order, training only what is missing; `workers` runs side by side, one thread each.

    refresh: what is stale counts as missing.
    """
    check_profile(profile)
    missing = [run for run in _wanted(runs) if _lacks(run, profile, refresh)]
    if workers <= 1 or len(missing) <= 1:
        for i, run in enumerate(missing):
            report(f"[{i + 1}/{len(missing)}] {run.label}, seed {run.seed} ({run.key})")
            execute(run, profile, progress=progress, refresh=refresh)
    else:
        context = get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread, max_tasks_per_child=1) as pool:
            jobs = {pool.submit(_execute_key, run, profile, refresh): run for run in missing}
            try:
                for done in tqdm(as_completed(jobs), total=len(jobs), unit="run", disable=not progress):
                    done.result()
                    report(f"{jobs[done].label}, seed {jobs[done].seed} ({jobs[done].key}) done")
            except BaseException:
                pool.shutdown(cancel_futures=True)  # tell of a failure now, not when all the others have ended
                raise
    return [_found(run, profile) for run in runs]


def _wanted(runs: Sequence[Run]) -> list[Run]:
    """One run a key, with the readings of all runs that share it."""
    by_key: dict[str, Run] = {}
    for run in runs:
        old = by_key.get(run.key)
        names = {r.name: r for r in old.readings} if old else {}
        for r in run.readings:
            if names.get(r.name, r) != r:
                raise ValueError(
                    f"reading {r.name!r} means two things for one network: {names[r.name]} and {r}; rename one of them"
                )
        extra = tuple(r for r in run.readings if r.name not in names)
        keep = max(run.keep, old.keep) if old else run.keep
        by_key[run.key] = replace(old, readings=old.readings + extra, keep=keep) if old else run
    return list(by_key.values())


def _one_thread() -> None:
    torch.set_num_threads(1)


def _execute_key(run: Run, profile: str, refresh: bool) -> None:
    execute(run, profile, progress=False, refresh=refresh)


def _lacks(run: Run, profile: str, refresh: bool) -> bool:
    record = find(run, profile)
    return record is None or (refresh and bool(record.stale))


def _found(run: Run, profile: str) -> Record:
    record = find(run, profile)
    if record is None:
        raise RecordError(f"{run.label}, seed {run.seed}: no record under {root() / profile} after its run")
    return record


__all__ = ["Measured", "execute", "read", "run_all"]
