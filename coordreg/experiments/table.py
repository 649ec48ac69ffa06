"""Results as pages and the ledger read them: the records of one experiment, of one profile, by label and reading."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coordreg.experiments import runs
from coordreg.experiments.recipes import doubt, here
from coordreg.records import PROFILES, Record, RecordError, Run, complete, find
from coordreg.running import run_all
from coordreg.spec import digest

#: What readers see, from the best to the cheapest; smoke runs are tests and are never published.
PUBLISHED = ("paper", "gpu", "cpu")


@dataclass(frozen=True)
class Results:
    """The records of an experiment. profile: the one they come from, or None where none is shown (then state, why).

    note: what a reader must be told beside the numbers, such as that they come from a fixture.
    """

    experiment: str
    profile: str | None
    records: tuple[Record, ...]
    why: str = ""
    note: str = ""
    state: str = "not run"

    @property
    def labels(self) -> list[str]:
        """Labels in the order of the experiment."""
        return list(dict.fromkeys(r.run.label for r in self.records if r.run is not None))

    def of(self, label: str) -> list[Record]:
        """The records of one label, a seed each."""
        found = [r for r in self.records if r.run is not None and r.run.label == label]
        if not found:
            raise ValueError(
                f"{self.experiment}: got label {label!r}, expected one of {', '.join(self.labels) or 'none'}"
            )
        return found

    def values(self, label: str, reading: str, metric: str) -> list[float]:
        """One number a seed: `metric` is "auc", "mean_distance" or a named threshold such as "0.5"."""
        found = [r.reading(reading) for r in self.of(label)]
        return [float(r[metric] if metric in r else r["at"][metric]) for r in found]

    def mean(self, label: str, reading: str, metric: str) -> float:
        """The mean over seeds."""
        return float(np.mean(self.values(label, reading, metric)))

    def curves(self, label: str, reading: str) -> NDArray[Any]:
        """(seeds, 51) curve of the mean PCK in percent."""
        return np.array([r.reading(reading)["curve"] for r in self.of(label)])

    def thresholds(self) -> NDArray[Any]:
        """The 51 thresholds of the curves."""
        run = self.records[0].run
        return run.scoring.thresholds.numpy() if run is not None else np.empty(0)

    def frame(self, readings: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
        """Means over seeds: a row a label, a column for each reading and metric."""
        columns = {(r, m): [self.mean(label, r, m) for label in self.labels] for r in readings for m in metrics}
        return pd.DataFrame(columns, index=pd.Index(self.labels, name=""))

    @property
    def caption(self) -> str:
        """Where the numbers come from, in words."""
        if self.profile is None:
            return f"{self.experiment}: {self.state}. {self.why}"
        first = self.records[0]
        seeds = len({r["config"]["seed"] for r in self.records})
        stale = sum(bool(r.stale) for r in self.records)
        text = (
            f"{self.experiment}, {self.profile} profile: {seeds} seed{'s' * (seeds > 1)}, "
            f"{first['images_seen']:,} images seen, {first['data']['test_images']:,} test images."
        )
        text += f" {stale} of {len(self.records)} records are stale: the code has changed since." if stale else ""
        return text + (f" {self.note}" if self.note else "")


def results(name: str, profile: str = "published", *, workers: int | None = None, smoke: bool = True) -> Results:
    """Records of an experiment.

    "published": the highest profile for which every run and seed is recorded; trains nothing. Any other profile: its
    records, training what is missing; an experiment whose data are not on this machine comes back as not run. Records
    that are no evidence, made from a fixture or from a part of the data, are never published; elsewhere a warning and
    the caption say what they are. smoke: False leaves the experiment out of the smoke profile, so that the test of a
    page need not train every table of it.
    """
    if profile == "smoke" and not smoke:
        return Results(name, None, (), "Left out of the smoke profile.")
    if profile == "published":
        for candidate in PUBLISHED:
            if found := _published(name, candidate):
                return found
        return Results(name, None, (), "No profile has all its records.", state=_state(name))
    declared = wanted = runs(name, profile)
    workers = workers or int(os.environ.get("COORDREG_WORKERS", "1"))
    try:
        if profile == "paper" and not complete(declared, profile):
            wanted = here(declared)
        made = run_all(wanted, profile, workers=workers, progress=False, report=_report)
    except (FileNotFoundError, ValueError) as error:
        if isinstance(error, ValueError) and "no pack of photographs" not in str(error):
            raise
        return Results(name, None, (), str(error).splitlines()[0])
    note = _note(declared, made)
    if note:
        warnings.warn(f"{name}, {profile} profile: {note}", stacklevel=2)
    return Results(name, profile, _one_data_set(made), note=note)


def together(*names: str, profile: str = "published", smoke: bool = True) -> list[Results]:
    """Results of experiments that are compared with each other, all from one profile.

    "published": the highest profile that all of them have complete; without one, none of them is shown. smoke: as for
    `results`.
    """
    if profile != "published":
        return [results(name, profile, smoke=smoke) for name in names]
    for candidate in PUBLISHED:
        found = [_published(name, candidate) for name in names]
        if all(found):
            return [one for one in found if one]
    why = "No profile has all the records of this comparison."
    return [Results(name, None, (), why, state=_state(name)) for name in names]


def _published(name: str, profile: str) -> Results | None:
    """An experiment's records of one profile, if all are there and each is evidence."""
    try:
        wanted = runs(name, profile)
    except ValueError:  # the experiment has no such profile
        return None
    if not complete(wanted, profile):
        return None
    found = run_all(wanted, profile)
    return None if any(map(doubt, found)) else Results(name, profile, _one_data_set(found))


def _state(name: str) -> str:
    """How far an experiment that is not shown has come: "not run", or how many runs its furthest profile has."""
    furthest, state = 0.0, "not run"
    for profile in PUBLISHED:
        try:
            wanted = runs(name, profile)
        except ValueError:  # the experiment has no such profile
            continue
        made = sum(_sound(run, profile) for run in wanted)
        if made > furthest * len(wanted):
            furthest, state = made / len(wanted), f"{made} of {len(wanted)} runs of the {profile} profile are recorded"
    return state


def _sound(run: Run, profile: str) -> bool:
    """Is there a record of it that is whole and evidence?"""
    try:
        record = find(run, profile)
    except RecordError:
        return False
    return record is not None and not doubt(record)


def _note(declared: Sequence[Run], records: Sequence[Record]) -> str:
    """What is to be said of records that are no evidence, or ""."""
    keys = {run.key for run in declared}
    why = [doubt(r) or ("" if r["key"] in keys else "made from a part of the data") for r in records]
    reasons = list(dict.fromkeys(text for text in why if text))
    if not reasons:
        return ""
    return f"NO RESULTS: {sum(map(bool, why))} of {len(why)} records are no evidence ({'; '.join(reasons)})."


def _one_data_set(records: Sequence[Record]) -> tuple[Record, ...]:
    """The records, if all that share a configuration of data saw the same data."""
    for part in ("train", "test"):
        seen: dict[str, str] = {}
        for record in records:
            configured, found = digest(record["config"][part]), record["data"][part]
            if seen.setdefault(configured, found) != found:
                raise ValueError(
                    f"record {record['key']}: its {part} images are not those of the others (another pack?); "
                    "delete it and run it again"
                )
    return tuple(records)


def _report(text: str) -> None:
    """A line of progress for whoever runs the notebook: appended to $COORDREG_PROGRESS, if that names a file."""
    if "COORDREG_PROGRESS" in os.environ:
        with open(os.environ["COORDREG_PROGRESS"], "a") as progress:
            progress.write(text + "\n")


assert set(PUBLISHED) < set(PROFILES)
