"""Verdicts on the rows of the papers: computed from records, never typed.

Experiments declare claims (`claims(profile)`), live checks (`exact()`) and which part of a row these cover (`SCOPE`). A
row is judged from the records of one profile, the highest that is complete for every experiment its claims need.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from coordreg import experiments
from coordreg.experiments.claims import (
    Claim,
    Judgement,
    Observation,
    Pairs,
    Side,
    Widening,
    interval,
    judge_all,
    observe,
    paired,
)
from coordreg.experiments.exact import Exact
from coordreg.experiments.recipes import doubt, needs
from coordreg.experiments.table import PUBLISHED
from coordreg.papers import PAPERS, ROWS, Row
from coordreg.records import Record, RecordError, Run, check_profile, find, root

#: What a row may say, from the best to the emptiest, with its meaning.
STATUSES = {
    "reproduced": "every declared claim holds",
    "matches": "an exact figure comes out as printed",
    "misprint": "an honest count does not give the printed figure",
    "partly": "some claims hold, or the claims that hold cover a part of the row",
    "inconclusive": "no claim holds and none is contradicted",
    "not reproduced": "a claim is contradicted and none holds",
    "not run": "no profile has all the records the row needs",
}


@dataclass(frozen=True)
class Entry:
    """A row with its verdict.

    profile: the one all its records come from. ours: our figures in words, built from records. missing: what to run.
    stale: definitions of the library that have changed since the records were made. note: scope, refusals, remarks.
    """

    row: Row
    status: str
    profile: str | None = None
    ours: str = ""
    claims: tuple[Judgement, ...] = ()
    records: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    note: str = ""
    missing: str = ""


def verdict(verdicts: Sequence[str]) -> str:
    """The status of a row from the verdicts of its claims: "holds", "contradicted" or "open"."""
    if not verdicts:
        return "not run"
    if "holds" in verdicts:
        return "reproduced" if set(verdicts) == {"holds"} else "partly"
    return "not reproduced" if "contradicted" in verdicts else "inconclusive"


# -- what the experiments declare -------------------------------------------------------------------------------------


def modules() -> list[Any]:
    """The modules of `coordreg.experiments`."""
    return [
        importlib.import_module(f"{experiments.__name__}.{m.name}") for m in pkgutil.iter_modules(experiments.__path__)
    ]


def known(name: str) -> Row:
    """The row with this id. ValueError lists the nearest ones."""
    by_id = {row.id: row for row in ROWS}
    if name not in by_id:
        near = difflib.get_close_matches(name, by_id, n=4, cutoff=0.5) or list(PAPERS)
        raise ValueError(f"ledger: got row {name!r}, expected an id of the papers; nearest: {', '.join(near)}")
    return by_id[name]


def declared(profile: str) -> dict[str, list[Claim]]:
    """Claims by row, from all modules that have this profile."""
    found: dict[str, list[Claim]] = {}
    for module in modules():
        if not hasattr(module, "claims") or not callable(module.claims):
            continue
        try:
            claims = module.claims(profile)
        except ValueError:  # these experiments have no such profile
            continue
        for claim in claims:
            found.setdefault(known(claim.row).id, []).append(claim)
    return found


def scopes() -> dict[str, str]:
    """By row: the part that its claims and checks cover, where that is not the whole row."""
    return {known(row).id: text for m in modules() for row, text in getattr(m, "SCOPE", {}).items()}


def exacts() -> dict[str, Exact]:
    """By row: live checks, computed now."""
    checks = [m.exact() for m in modules() if callable(getattr(m, "exact", None))]
    return {known(row).id: check for found in checks for row, check in found.items()}


def recipes() -> dict[str, str]:
    """By row: the command that runs the paper's own recipe, where there is one."""
    found = {known(row).id: name for m in modules() for row, name in getattr(m, "RECIPES", {}).items()}
    sets = {name: needs(experiments.runs(name, "paper"))[0] for name in dict.fromkeys(found.values())}
    return {
        row: f"python -m coordreg run {name} --profile paper --data {sets[name]} --root DIR"
        for row, name in found.items()
    }


# -- records ----------------------------------------------------------------------------------------------------------


class Shelf:
    """The records as they lie there, each read once; `refused` holds the reasons for those that cannot be trusted."""

    def __init__(self) -> None:
        self.refused: dict[str, str] = {}
        self._names = experiments.names()
        self._runs: dict[tuple[str, str], list[Run]] = {}
        self._records: dict[Any, Record | None] = {}
        self._empty: dict[str, bool] = {}
        self._stale: dict[str, list[str]] = {}

    def runs(self, experiment: str, profile: str) -> list[Run]:
        """The runs of an experiment; none where it has no such profile."""
        if (experiment, profile) not in self._runs:
            if experiment not in self._names:
                experiments.runs(experiment, profile)  # its message lists what there is
            try:
                self._runs[experiment, profile] = self._names[experiment](profile)
            except ValueError:
                self._runs[experiment, profile] = []
        return self._runs[experiment, profile]

    def record(self, run: Run, profile: str) -> Record | None:
        """The record of a run if it is whole and sound."""
        if profile not in self._empty:  # spares the keys of hundreds of runs that nobody has started
            self._empty[profile] = not any(root().joinpath(profile).glob("*.json"))
        if self._empty[profile]:
            return None
        key = (profile, run.key, tuple(r.name for r in run.readings), run.keep > 0)
        if key not in self._records:
            self._records[key] = None
            try:
                record = find(run, profile)
                if record is not None and (why := doubt(record)):
                    self.refused[run.key] = f"{profile}/{run.key}: {why}, which is no evidence"
                elif record is not None:
                    self._records[key] = record if record.names else None
            except RecordError as error:
                self.refused[run.key] = f"{profile}/{run.key}: {error}".replace(f"{root()}/", "")
        return self._records[key]

    def of(self, side: Side, profile: str) -> list[Record]:
        """The records of one side of a claim, a seed each."""
        runs = self.runs(side.experiment, profile)
        found = [self.record(run, profile) for run in runs if run.label == side.label]
        if not found:
            labels = ", ".join(dict.fromkeys(run.label for run in runs))
            raise ValueError(
                f"claim: {side.experiment} has no label {side.label!r} on profile {profile}; it has {labels}"
            )
        return [record for record in found if record is not None]

    def lacking(self, experiment: str, profile: str) -> tuple[int, int]:
        """How many records of an experiment are missing, and of how many."""
        runs = self.runs(experiment, profile)
        return sum(self.record(run, profile) is None for run in runs), len(runs)

    def stale(self, record: Record) -> list[str]:
        """Definitions that have changed since a record was made."""
        key = str(record.path)
        if key not in self._stale:
            self._stale[key] = record.stale
        return self._stale[key]


# -- rows -------------------------------------------------------------------------------------------------------------


def rows(profile: str = "published", only: str | None = None) -> list[Entry]:
    """Every row with its verdict, in the papers' order. only: a paper of PAPERS, or one row.

    "published": for each row the highest profile (paper, gpu, cpu) that is complete; else that profile alone.
    """
    if profile != "published":
        check_profile(profile)
    wanted = [row for row in ROWS if only in (None, row.paper)] or [known(str(only))]
    shelf, scope, exact, recipe = Shelf(), scopes(), exacts(), recipes()
    claims = {p: declared(p) for p in (PUBLISHED if profile == "published" else (profile,))}
    found = [
        _entry(row, {p: c.get(row.id, []) for p, c in claims.items()}, exact.get(row.id), scope.get(row.id), shelf)
        for row in wanted
    ]
    return [_with_recipe(entry, recipe.get(entry.row.id)) for entry in found]


def _with_recipe(entry: Entry, command: str | None) -> Entry:
    """A row that owes its paper's recipe says how to run it, as long as it is not judged from it."""
    if command is None or "recipe" not in entry.row.parts or entry.profile == "paper":
        return entry
    return replace(entry, missing="; ".join(part for part in (entry.missing, command) if part))


def _entry(row: Row, claims: dict[str, list[Claim]], exact: Exact | None, scope: str | None, shelf: Shelf) -> Entry:
    missing, refused = "", list[str]()
    for profile, wanted in claims.items():
        if not wanted:
            continue
        needed = list(dict.fromkeys(side.experiment for c in wanted for side in c.sides))
        lacking = {name: shelf.lacking(name, profile) for name in needed}
        if shelf.refused:
            keys = {run.key for name in needed for run in shelf.runs(name, profile)}
            refused += [f"refused: {why}" for key, why in shelf.refused.items() if key in keys]
        if all(total and not absent for absent, total in lacking.values()):
            return _judged(row, profile, wanted, exact, scope, refused, shelf)
        if profile == "paper":  # said by the row's recipe
            continue
        missing = "; ".join(
            f"python -m coordreg run {name} --profile {profile} ({absent} of {total} records missing)"
            for name, (absent, total) in lacking.items()
            if absent or not total
        )
    status, notes = _status(row, [], None, exact, scope)
    return Entry(row, status, ours=exact.ours if exact else "", note="; ".join(notes + refused), missing=missing)


def _judged(
    row: Row, profile: str, claims: list[Claim], exact: Exact | None, scope: str | None, notes: list[str], shelf: Shelf
) -> Entry:
    ready: list[tuple[Claim, Pairs]] = []
    seen: dict[Claim, Judgement] = {}
    for claim in claims:
        try:
            better, worse = shelf.of(claim.better, profile), shelf.of(claim.worse, profile)
            than: tuple[list[Record], list[Record]] = ([], [])
            if isinstance(claim, Observation):
                seen[claim] = observe(claim, better)
                continue
            if isinstance(claim, Widening):
                than = (shelf.of(claim.than[0], profile), shelf.of(claim.than[1], profile))
            ready.append((claim, paired(claim, better, worse, than)))
        except ValueError as error:  # other seeds or other test images: no comparison
            notes = [*notes, str(error)]
    seen |= {found.claim: found for found in judge_all(ready)}
    found = [seen[claim] for claim in claims if claim in seen]
    verdicts = [seen[claim].verdict if claim in seen else "open" for claim in claims]
    sides = list(dict.fromkeys(side for c in claims for side in c.sides))
    used = {str(r.path): r for side in sides for r in shelf.of(side, profile)}
    status, remarks = _status(row, verdicts, profile, exact, scope)
    return Entry(
        row,
        status,
        profile,
        "; ".join(([exact.ours] if exact else []) + _figures(claims, profile, shelf)),
        tuple(found),
        tuple(dict.fromkeys(str(r["key"]) for r in used.values())),
        tuple(sorted({name for r in used.values() for name in shelf.stale(r)})),
        "; ".join(remarks + notes),
    )


def _status(
    row: Row, verdicts: Sequence[str], profile: str | None, exact: Exact | None, scope: str | None
) -> tuple[str, list[str]]:
    """The status of a row from its claims and its check, and remarks. Nothing covered in part reads as whole."""
    covered = {"exact", "drawing"} if exact else set[str]()
    covered |= {"trend"} if verdicts else set()
    covered |= {"recipe"} if verdicts and profile == "paper" else set()
    owed = [part for part in row.parts if part not in covered]
    if exact and not verdicts:
        status = "matches" if exact.matches else exact.otherwise
    else:  # an exact figure counts as one more claim
        status = verdict([*verdicts, *(["holds" if exact.matches else "open"] if exact else [])])
    remarks = [exact.note] if exact and exact.note else []
    if row.misprint and not exact:
        remarks.append(f"known misprint, to be shown by a count: {row.misprint}")
    if covered:
        remarks += [f"covers {scope}"] if scope else []
        remarks += [f"not covered yet: the part by {' and '.join(owed)}"] if owed else []
        if (scope or owed) and status in ("reproduced", "matches"):
            status = "partly"
    return status, remarks


def _figures(claims: Sequence[Claim], profile: str, shelf: Shelf) -> list[str]:
    """Metric by metric, the mean over seeds of every side of the claims, with the smallest and the largest seed."""
    said, titles = [], {"auc": "AUC", "mpjpe": "MPJPE in mm", "accuracy": "accuracy", "gain": "edge less inner"}
    titles |= {"pa_rigid": "rigid PA-MPJPE in mm", "oks": "mean OKS"}
    titles |= {name: name for name in ("AP", "AP50", "AP75", "AP_M", "AP_L")}
    for metric in dict.fromkeys(c.metric for c in claims if c.metric):
        sides = list(dict.fromkeys(s for c in claims if c.metric == metric for s in c.sides))
        one_reading, plain = len({s.reading for s in sides}) == 1, len({s.label for s in sides}) == len(sides)
        parts = []
        for side in sides:
            found = [record.reading(side.reading) for record in shelf.of(side, profile)]
            values = [float(r[metric] if metric in r else r["at"][metric]) for r in found]
            low, high = interval(values)
            name = side.label if one_reading and plain else f"{side.label} {side.reading}"
            parts.append(f"{name} {np.mean(values):.1f}" + (f" ({low:.1f} to {high:.1f})" if len(values) > 1 else ""))
        title = titles.get(metric, metric.replace("auc", "AUC") if metric.startswith("auc ") else f"@{metric}")
        said.append(f"{title}{f', {sides[0].reading}' if one_reading else ''}: {', '.join(parts)}")
    return said
