"""The ledger as people and programs read it: a table, one row in full, JSON, HTML. `verdicts` does the judging."""

import shutil
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from json import dumps
from typing import Any

from coordreg import experiments
from coordreg.experiments.claims import LOWER, Judgement, Observation, Widening
from coordreg.experiments.table import PUBLISHED
from coordreg.papers import HOW, PAPERS
from coordreg.verdicts import STATUSES, Entry, Shelf, rows

__all__ = ["STATUSES", "Entry", "detail", "html_table", "rows", "show", "spell", "summary", "table", "to_json"]


def to_json(entry: Entry) -> dict[str, Any]:
    """A row as plain data."""
    row = entry.row
    claims = [
        {
            "text": j.claim.text,
            "metric": j.claim.metric,
            "better": vars(j.claim.better),
            "worse": vars(j.claim.worse),
            **({"than": [vars(side) for side in j.claim.than]} if isinstance(j.claim, Widening) else {}),
            "margin": j.claim.margin,
            "difference": round(j.difference, 3),
            "interval": [round(j.low, 3), round(j.high, 3)],
            "seeds": [round(v, 3) for v in j.seeds],
            "verdict": j.verdict,
        }
        for j in entry.claims
    ]
    return {
        "id": row.id,
        "status": entry.status,
        "paper": row.figures,
        "ours": entry.ours,
        "records": list(entry.records),
        "profile": entry.profile,
        "what": row.what,
        "how": row.how,
        "chapter": row.chapter,
        "claims": claims,
        "stale": list(entry.stale),
        "note": entry.note,
        "missing": entry.missing,
    }


def spell(judgement: Judgement) -> str:
    """A judged claim in one line: verdict, difference, interval, seeds."""
    j, margin = judgement, judgement.claim.margin
    if isinstance(j.claim, Observation):
        seeds = ", ".join(f"{v:g}" for v in j.seeds)
        return f"{j.verdict}: {j.claim.text}; expected {j.claim.low:g} to {j.claim.high:g}; seeds {seeds}"
    unit = "mm" if j.claim.metric in LOWER else "points"
    beyond = f" against a margin of {margin:g}" if margin else ""
    seeds = ", ".join(f"{v:+.1f}" for v in j.seeds)
    found = f"{j.difference:+.1f} {unit}{beyond}, 95% {j.low:+.1f} to {j.high:+.1f}"
    return f"{j.verdict}: {j.claim.text}; {found}; seeds {seeds}"


def summary(entries: Iterable[Entry]) -> str:
    """How many rows have which status, in words."""
    count = Counter(entry.status for entry in entries)
    return f"{sum(count.values())} rows: " + ", ".join(f"{count[s]} {s}" for s in STATUSES if count[s])


def table(entries: Sequence[Entry], width: int | None = None) -> str:
    """Rows for a terminal: status and profile; the figures side by side where there are any of ours."""
    width = width or max(72, min(140, shutil.get_terminal_size().columns))
    lines = [f"{'row':17s} {'status':15s} {'profile':12s} what"]
    for paper, title in PAPERS.items():
        mine = [entry for entry in entries if entry.row.paper == paper]
        lines += ["", title] if mine else []
        for e in mine:
            profile = (e.profile or "-") + (" (stale)" if e.stale else "")
            what = textwrap.shorten(e.row.what, width - 47, placeholder=" ...")
            lines.append(f"{e.row.id:17s} {e.status:15s} {profile:12s} {what}")
            shown = [("paper", e.row.figures), ("ours", e.ours), ("note", e.note)] if e.ours else []
            lines += [part for name, text in shown if text for part in _indented(name, text, width)]
    return "\n".join([*lines, "", summary(entries)])


def _indented(name: str, text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=f"    {name:9s}", subsequent_indent=" " * 13)


def detail(entry: Entry, width: int = 100) -> str:
    """One row with everything behind its verdict."""
    row, lines = (
        entry.row,
        [f"{entry.row.id}: {entry.status}" + (f" (profile {entry.profile})" if entry.profile else "")],
    )
    parts = [("what", row.what), ("how", f"{row.how}; chapter {row.chapter}"), ("paper", row.figures)]
    parts += [("ours", entry.ours), *(("claim", spell(j)) for j in entry.claims), ("note", entry.note)]
    parts += [("run", entry.missing), ("records", ", ".join(entry.records)), ("stale", ", ".join(entry.stale))]
    for name, text in parts:
        lines += _indented(name, text, width) if text else []
    return "\n".join(lines)


def stale_records(row: str | None = None) -> list[dict[str, Any]]:
    """Records of all profiles whose code has changed since, or of one row or paper; smoke runs are not published."""
    shelf, found = Shelf(), dict[tuple[str, str], dict[str, Any]]()
    wanted = {key for entry in rows(only=row) for key in entry.records} if row else None
    for experiment in experiments.names():
        for profile in PUBLISHED:
            for run in shelf.runs(experiment, profile):
                record = shelf.record(run, profile)
                if record is None or (wanted is not None and run.key not in wanted) or not shelf.stale(record):
                    continue
                made = {"key": run.key, "profile": profile, "experiment": experiment, "label": run.label}
                found.setdefault((profile, run.key), {**made, "seed": run.seed, "stale": shelf.stale(record)})
    return list(found.values())


def html_table(entries: Sequence[Entry], caption: str) -> str:
    """Rows as an HTML table, what the paper prints beside ours; claims and remarks fold out. Styled by the page."""
    body = "".join(_html_row(entry) for entry in entries)
    head = "<tr><th>Row</th><th>What the paper prints</th><th>Ours</th></tr>"
    return (
        f'<div class="ledger-scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table class="ledger">'
        f"<caption>{escape(caption)}</caption><thead>{head}</thead><tbody>{body}</tbody></table></div>"
    )


def _html_row(entry: Entry) -> str:
    row, kind = entry.row, entry.status.replace(" ", "-")
    claims = "".join(f"<li>{escape(spell(j))}</li>" for j in entry.claims)
    behind = [f"<ul>{claims}</ul>" if claims else "", f"<p>{escape(entry.note)}</p>" if entry.note else ""]
    behind += [f"<p>To run: <code>{escape(entry.missing)}</code></p>" if entry.missing else ""]
    behind += [f"<p>Stale, changed since: {escape(', '.join(entry.stale))}</p>" if entry.stale else ""]
    behind += [f"<p>Records: <code>{escape(' '.join(entry.records))}</code></p>" if entry.records else ""]
    title = f"{len(entry.claims)} claims, records" if entry.claims else "more"
    more = f"<details><summary>{title}</summary>{''.join(behind)}</details>" if any(behind) else ""
    source = f"{entry.profile} profile{', stale' if entry.stale else ''}" if entry.profile else ""
    how = escape("; ".join(f"{part}: {HOW[part]}" for part in row.parts))
    return (
        f'<tr id="{row.id}"><th scope="row"><code>{row.id}</code>'
        f'<span class="chip {kind}" title="{escape(STATUSES[entry.status])}">{entry.status}</span>'
        f'<small>{source}</small><small title="{how}">{escape(row.how)}</small></th>'
        f"<td><b>{escape(row.what)}</b><br>{escape(row.figures)}</td>"
        f"<td>{escape(entry.ours) or ('' if entry.claims else '<small>not run</small>')}{more}</td></tr>"
    )


def show(json: bool = False, stale: bool = False, row: str | None = None) -> None:
    """Print the ledger: a table, one JSON object a row, stale records, or one row with its claims."""
    if stale:
        listed = stale_records(row)
        for r in listed:
            text = (
                f"{r['profile']}/{r['key']}  {r['experiment']} {r['label']}, seed {r['seed']}: {', '.join(r['stale'])}"
            )
            print(dumps(r) if json else text)
        if not listed and not json:
            print("No record is stale: the code of every recorded run is the code as it stands.")
        return
    entries = rows(only=row)
    if json:
        for entry in entries:
            print(dumps(to_json(entry), ensure_ascii=False))
    else:
        print("\n\n".join(map(detail, entries)) if row else table(entries))
