"""The ledger: all rows are there, verdicts follow the rules on fabricated records, nothing damaged is believed."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from coordreg import experiments, ledger, records, verdicts
from coordreg.experiments.claims import Claim, Side
from coordreg.experiments.drawn import exact, falling_loss, quantisation, quantisation_rms
from coordreg.experiments.exact import Exact
from coordreg.fingerprint import fingerprint
from coordreg.metrics.scoring import Scoring
from coordreg.papers import HOW, PAPERS, ROWS, Row
from coordreg.records import Reading, Run
from coordreg.spec import describe, spec
from coordreg.train import Training
from coordreg.verdicts import STATUSES, Entry, verdict

#: Every id of the inventory of the five papers, in its order.
INVENTORY = """
cascade-fig3-5 cascade-fig9 cascade-tab1 cascade-fig11 cascade-tab2 cascade-fig12 cascade-fig14a cascade-fig14b
cascade-tab3 cascade-fig15 cascade-tab4 cascade-fig16 cascade-mrf cascade-drawings
dsnt-tab1 dsnt-tab2 dsnt-fig3 dsnt-fig4 dsnt-fig5 dsnt-tab3 dsnt-fig6 dsnt-fig7 dsnt-fig8 dsnt-fig9 dsnt-fig10
dsnt-fig11 dsnt-tab4 dsnt-boundary dsnt-stn dsnt-drawings
integral-tab1 integral-fig2 integral-tab2 integral-tab3 integral-tab4 integral-tab5 integral-tab6 integral-tab7
integral-tab8 integral-tab9 integral-tab10 integral-tab11 integral-tab12 integral-l1 integral-pretrain integral-eq5-6
integral-drawings
dark-tab1 dark-tab2 dark-tab3 dark-tab4 dark-tab5 dark-tab6 dark-tab7 dark-tab8 dark-tab9 dark-fig3 dark-fig4
dark-speed dark-drawings
poseur-tab1a poseur-tab1b poseur-tab1c poseur-tab1d poseur-tab1e poseur-tab2a poseur-tab2b poseur-tab3 poseur-tab4
poseur-tab5 poseur-tab6 poseur-supp1 poseur-supp2 poseur-supp-fig2 poseur-supp3 poseur-supp4 poseur-supp5 poseur-supp6
poseur-supp-fig1 poseur-drawings
"""
IDS = INVENTORY.split()


# -- the rows ---------------------------------------------------------------------------------------------------------


def test_every_row_is_there_once() -> None:
    assert [row.id for row in ROWS] == IDS
    assert len(set(IDS)) == len(IDS)
    assert list(dict.fromkeys(row.paper for row in ROWS)) == list(PAPERS)


def test_rows_are_filled() -> None:
    for row in ROWS:
        assert row.what, row.id
        assert row.figures, row.id
        assert set(row.parts) <= set(HOW)
    owed = {row.id for row in ROWS if row.chapter == "heatmap"}
    assert owed == {"dsnt-fig4", "dark-fig4"}


def test_rows_refuse_nonsense() -> None:
    with pytest.raises(ValueError, match=r"'dsnt-x'.*how='exact or trend'.*exact, trend, recipe, drawing"):
        Row("dsnt-x", "dsnt", "a", "b", "exact or trend", "dsnt")
    with pytest.raises(ValueError, match="begins with the paper"):
        Row("tab1", "dsnt", "a", "b", "exact", "dsnt")


def test_printed_figures_are_the_papers() -> None:
    """A few of each paper, as printed."""
    figures = {row.id: row.figures for row in ROWS}
    assert "3.13 -> 1.09 px and 4.25 -> 2.43 px" in figures["cascade-fig11"]
    assert (
        "none 86.86; variance (lambda 100) 84.58 / 85.88; KL (1) 84.67 / 84.15; JS (1) 87.59 / 86.71"
        in (figures["dsnt-tab3"])
    )
    assert figures["integral-tab1"].startswith("R1 84.6/25.0/54.1, H1 86.8/17.2/52.9, H2 86.4/17.6/53.1, H3 83.0/12.6")
    assert figures["dark-tab1"] == "61.2, 66.9, 68.4 AP"
    assert "1.25 -> 0.44" in figures["poseur-supp4"]


# -- exact rows -------------------------------------------------------------------------------------------------------


def test_figure_4_of_dsnt_matches() -> None:
    assert falling_loss() == Exact("a lone 8: 100, argmax right; one 5 raised to 9: 16, argmax wrong", True)


def test_quantisation_error_is_that_of_rounding() -> None:
    assert quantisation().matches
    assert quantisation_rms(size=9, steps=32, sigma=2.0).tolist() == pytest.approx([12**-0.5] * 2, rel=2e-3)


def test_exact_rows_are_computed_in_the_ledger() -> None:
    began = time.perf_counter()
    assert set(exact()) == {"dsnt-fig4", "dark-fig4"}
    assert time.perf_counter() - began < 0.5
    found = {e.row.id: e for e in (ledger.rows(only="dsnt-fig4") + ledger.rows(only="dark-fig4"))}
    assert {e.status for e in found.values()} == {"matches"}
    assert "100" in found["dsnt-fig4"].ours


# -- verdicts on fabricated records -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdicts_", "status"),
    [
        ((), "not run"),
        (("holds", "holds"), "reproduced"),
        (("holds", "open"), "partly"),
        (("holds", "contradicted"), "partly"),
        (("open", "contradicted"), "not reproduced"),
        (("open", "open"), "inconclusive"),
    ],
)
def test_rule(verdicts_: tuple[str, ...], status: str) -> None:
    assert verdict(verdicts_) == status


N = 12
STEPS = Training(3, 2, 1e-3)
LEVELS = {"low": 0.25, "mid": 0.5, "high": 0.75}


def fake_runs(profile: str) -> list[Run]:
    """Three networks and two seeds at every profile but paper; they describe no training that could be run."""
    if profile == "paper":
        raise ValueError("no such profile")
    limit = {"smoke": 0.1, "cpu": 0.2, "gpu": 0.3}[profile]
    return [
        Run(
            label, spec(Scoring, limit=limit + level), Scoring(), Scoring(), Training(3, 2, 1e-3), Scoring(), seed, READ
        )
        for label, level in LEVELS.items()
        for seed in (0, 1)
    ]


READ = (Reading("argmax"), Reading("quarter"))


def fake_claims(profile: str) -> list[Claim]:
    """low < mid < high, on rows of different kinds."""
    if profile == "paper":
        raise ValueError("no such profile")

    def claim(row: str, worse: str, better: str, margin: float = 0.0, reading: str = "argmax") -> Claim:
        sides = [Side("fake-a", label, reading) for label in (better, worse)]
        return Claim(row, f"{worse} below {better} ({row})", sides[0], sides[1], "0.5", margin)

    return [
        *(claim("dsnt-fig6", *pair) for pair in (("low", "mid"), ("mid", "high"))),
        *(claim("dsnt-fig7", *pair) for pair in (("low", "mid"), ("high", "mid"))),
        claim("dsnt-tab2", "high", "low"),
        claim("dsnt-tab3", "low", "high", margin=60.0),
        claim("dsnt-fig11", "low", "high", reading="quarter"),
        claim("dsnt-fig5", "low", "mid"),
        claim("dsnt-fig8", "low", "mid"),
        claim("dsnt-boundary", "low", "mid"),
    ]


def write(run: Run, profile: str, level: float | None = None, test: str = "t", **changes: Any) -> Path:
    """A record of a run whose every image scores `level`."""
    level = LEVELS[run.label] if level is None else level
    path = records.path_of(run, profile)
    path.parent.mkdir(parents=True, exist_ok=True)
    data: dict[str, Any] = {
        "format": 1,
        "key": run.key,
        "label": run.label,
        "profile": profile,
        "config": run.config,
        "readings": {
            r.name: {
                "decoder": describe(r.decoder),
                "flip": r.flip,
                "code": fingerprint(r.decoder),
                "at": {"0.5": 100 * level, "0.1": 0.0},
                "auc": 50 * level,
            }
            for r in run.readings
        },
        "data": {"test": test, "test_images": N},
        "code": fingerprint(*records.reached(run)),
        **changes,
    }
    arrays = {f"{r.name}/0.5": np.full(N, level, np.float16) for r in run.readings}
    arrays |= {f"{r.name}/count": np.full(N, 14, np.int8) for r in run.readings}
    np.savez_compressed(path.with_suffix(".npz"), **arrays)  # type: ignore[arg-type]
    data["arrays"] = hashlib.sha256(path.with_suffix(".npz").read_bytes()).hexdigest()
    data["sum"] = records.checksum(data)
    path.write_text(json.dumps(data))
    return path


def fill(profile: str, **changes: Any) -> list[Path]:
    return [write(run, profile, **changes) for run in fake_runs(profile)]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Entry]:
    """One fabricated module of experiments and an empty folder of results; gives the entry of a row."""
    module = SimpleNamespace(
        claims=fake_claims,
        SCOPE={"dsnt-fig5": "the first panel only"},
        exact=lambda: {
            "dsnt-tab1": Exact("5 of 5", True),
            "dsnt-fig3": Exact("7", False, "counted by hand"),
            "dsnt-fig10": Exact("8%", True),
            "dsnt-boundary": Exact("bias 0.1", True),
        },
    )
    monkeypatch.setenv("COORDREG_RESULTS", str(tmp_path))
    monkeypatch.setattr(verdicts, "modules", lambda: [module])
    monkeypatch.setattr(experiments, "names", lambda: {"fake-a": fake_runs})
    return lambda row: ledger.rows(only=row)[0]


def test_statuses(world: Callable[[str], Entry]) -> None:
    fill("cpu")
    found = {e.row.id: e for e in ledger.rows()}
    assert found["dsnt-fig6"].status == "reproduced"
    assert found["dsnt-fig7"].status == "partly"
    assert found["dsnt-tab2"].status == "not reproduced"
    assert found["dsnt-tab3"].status == "not reproduced"  # better by 50 points, which is not 60
    assert found["dsnt-fig9"].status == "not run"
    assert found["dsnt-tab1"].status == "matches"
    assert found["dsnt-fig3"].status == "misprint"
    assert "counted by hand" in found["dsnt-fig3"].note
    assert [e.row.id for e in ledger.rows()] == IDS
    assert [e.row.id for e in ledger.rows(only="integral")] == [i for i in IDS if i.startswith("integral-")]
    assert {e.status for e in found.values()} <= set(STATUSES)


def test_seeds_that_disagree_are_inconclusive(world: Callable[[str], Entry]) -> None:
    levels = {("high", 0): 0.75, ("high", 1): 0.375}
    for run in fake_runs("cpu"):
        write(run, "cpu", level=levels.get((run.label, run.seed), 0.5))
    assert world("dsnt-fig11").status == "inconclusive"
    assert world("dsnt-fig11").claims[0].seeds == pytest.approx((25, -12.5))


def test_ours_has_means_and_seeds(world: Callable[[str], Entry]) -> None:
    for run in fake_runs("cpu"):
        write(run, "cpu", level=LEVELS[run.label] + 0.125 * run.seed)
    entry = world("dsnt-fig6")
    assert entry.ours == "@0.5, argmax: low 31.2 (25.0 to 37.5), mid 56.2 (50.0 to 62.5), high 81.2 (75.0 to 87.5)"
    assert entry.profile == "cpu"
    assert set(entry.records) == {run.key for run in fake_runs("cpu")}
    assert [j.difference for j in entry.claims] == pytest.approx([25, 25])


def test_scope_and_other_owed_parts_make_it_partly(world: Callable[[str], Entry]) -> None:
    fill("cpu")
    assert world("dsnt-fig5").status == "partly"
    assert world("dsnt-fig5").note == "covers the first panel only"
    assert world("dsnt-fig8").status == "partly"  # trend + recipe, and nobody ran the recipe
    assert world("dsnt-fig8").note == "not covered yet: the part by recipe"
    assert world("dsnt-fig10").status == "partly"  # exact + recipe
    assert world("dsnt-boundary").status == "reproduced"  # trend + exact, both there
    assert "bias 0.1; @0.5, argmax: low 25.0" in world("dsnt-boundary").ours


def test_missing_seed_is_not_run(world: Callable[[str], Entry]) -> None:
    paths = fill("cpu")
    paths[-1].unlink()
    entry = world("dsnt-fig6")
    assert (entry.status, entry.profile, entry.ours, entry.claims) == ("not run", None, "", ())
    assert entry.missing == "python -m coordreg run fake-a --profile cpu (1 of 6 records missing)"


def test_missing_reading_is_not_run(world: Callable[[str], Entry], monkeypatch: pytest.MonkeyPatch) -> None:
    fill("cpu")
    monkeypatch.setitem(globals(), "READ", (*READ, Reading("more")))
    assert world("dsnt-fig6").status == "not run"


def test_profiles_are_never_mixed(world: Callable[[str], Entry]) -> None:
    fill("smoke")
    assert world("dsnt-fig6").status == "not run"  # smoke is never published
    for run, level in zip(fake_runs("cpu"), (0.5, 0.5, 0.25, 0.25, 0.0, 0.0), strict=True):
        write(run, "cpu", level=level)
    gpu = fill("gpu")
    gpu[0].rename(gpu[0].with_suffix(".away"))  # one seed short: all of cpu counts, none of gpu
    entry = world("dsnt-fig6")
    assert (entry.profile, entry.status) == ("cpu", "not reproduced")
    assert set(entry.records) == {run.key for run in fake_runs("cpu")}
    gpu[0].with_suffix(".away").rename(gpu[0])
    entry = world("dsnt-fig6")
    assert (entry.profile, entry.status) == ("gpu", "reproduced")
    assert set(entry.records) == {run.key for run in fake_runs("gpu")}
    assert ledger.rows("smoke", "dsnt-fig6")[0].profile == "smoke"
    with pytest.raises(ValueError, match="profile: got 'fast'"):
        ledger.rows("fast")


def test_tampered_record_is_refused_with_its_reason(world: Callable[[str], Entry]) -> None:
    paths = fill("cpu")
    text = paths[0].read_text()
    paths[0].write_text(text.replace('"0.5": 25.0', '"0.5": 99.0', 1))
    assert text != paths[0].read_text()
    entry = world("dsnt-fig6")
    assert entry.status == "not run"
    assert f"refused: cpu/{paths[0].stem}: cpu/{paths[0].name}: the contents do not match their checksum" in entry.note
    assert str(paths[0].parent) not in entry.note
    paths[0].write_text(text)
    npz = paths[1].with_suffix(".npz")
    npz.write_bytes(npz.read_bytes()[:50])
    entry = world("dsnt-fig6")
    assert entry.status == "not run"
    assert f"cpu/{paths[1].stem}.npz: absent or altered" in entry.note


def test_records_of_other_test_images_are_not_compared(world: Callable[[str], Entry]) -> None:
    fill("cpu")
    for run in fake_runs("cpu"):
        if run.label == "high":
            write(run, "cpu", test="u")
    entry = world("dsnt-fig11")
    assert entry.status == "inconclusive"
    assert "test sets u and t" in entry.note
    assert world("dsnt-fig5").status == "partly"


def test_stale_records_are_listed(world: Callable[[str], Entry], capsys: pytest.CaptureFixture[str]) -> None:
    paths = fill("cpu")
    ledger.show(stale=True)
    assert "No record is stale" in capsys.readouterr().out
    run = fake_runs("cpu")[0]
    code = {**fingerprint(*records.reached(run)), "coordreg.train.fit": "00000000"}
    write(run, "cpu", code=code)
    assert world("dsnt-fig6").stale == ("coordreg.train.fit",)
    assert world("dsnt-fig6").status == "reproduced"
    assert "(stale)" in ledger.table(ledger.rows(only="dsnt-fig6"))
    ledger.show(stale=True)
    out = capsys.readouterr().out
    assert out.strip() == f"cpu/{paths[0].stem}  fake-a low, seed 0: coordreg.train.fit"
    ledger.show(json=True, stale=True, row="dsnt-fig6")
    assert json.loads(capsys.readouterr().out)["stale"] == ["coordreg.train.fit"]


def test_mistakes_in_declarations_are_told(world: Callable[[str], Entry], monkeypatch: pytest.MonkeyPatch) -> None:
    fill("cpu")
    lone = Claim("dsnt-fig6", "x", Side("fake-a", "hihg", "argmax"), Side("fake-a", "low", "argmax"), "0.5")
    monkeypatch.setattr(verdicts, "modules", lambda: [SimpleNamespace(claims=lambda profile: [lone])])
    with pytest.raises(ValueError, match=r"fake-a has no label 'hihg'.*it has low, mid, high"):
        world("dsnt-fig6")
    monkeypatch.setattr(verdicts, "modules", lambda: [SimpleNamespace(SCOPE={"dsnt-fig77": "a"})])
    with pytest.raises(ValueError, match=r"got row 'dsnt-fig77'.*dsnt-fig7"):
        world("dsnt-fig6")


# -- showing ----------------------------------------------------------------------------------------------------------


def test_json_is_one_object_a_row(world: Callable[[str], Entry], capsys: pytest.CaptureFixture[str]) -> None:
    fill("cpu")
    ledger.show(json=True)
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["id"] for row in found] == IDS
    for row in found:
        assert {"id", "status", "paper", "ours", "records"} <= set(row)
    row = next(row for row in found if row["id"] == "dsnt-fig6")
    assert row["paper"].startswith("curves; sigma_t")
    assert row["claims"][0]["interval"] == [25.0, 25.0]
    assert row["claims"][0]["verdict"] == "holds"
    assert len(row["records"]) == 6


def test_table_and_detail(world: Callable[[str], Entry], capsys: pytest.CaptureFixture[str]) -> None:
    fill("cpu")
    text = ledger.table(ledger.rows(), width=100)
    assert max(len(line) for line in text.splitlines()) <= 100
    for row in ROWS:
        assert sum(line.startswith(f"{row.id} ") for line in text.splitlines()) == 1
    heads = [line for line in text.splitlines() if line.split(" ")[0] in IDS]
    assert {line[17] + line[33] + line[46] for line in heads} == {"   "}  # columns stay in place
    assert all(line[18:33].strip() in STATUSES for line in heads)
    assert text.splitlines()[-1] == ledger.summary(ledger.rows())
    ledger.show(row="dsnt-fig6")
    out = capsys.readouterr().out
    assert "holds: low below mid (dsnt-fig6); +25.0 points, 95% +25.0 to +25.0; seeds +25.0, +25.0" in out
    assert fake_runs("cpu")[0].key in out
    ledger.show(row="dsnt")
    out = capsys.readouterr().out
    assert all(f"{name}: " in out for name in IDS if name.startswith("dsnt-"))
    with pytest.raises(ValueError, match=r"got row 'dsnt-figg6'.*nearest: dsnt-fig6"):
        ledger.show(row="dsnt-figg6")


def test_html_is_escaped_and_complete(world: Callable[[str], Entry]) -> None:
    fill("cpu")
    entries = ledger.rows()
    html = ledger.html_table(entries, "All <rows>")
    assert html.count("<tr id=") == len(ROWS)
    assert "All &lt;rows&gt;" in html
    assert "3.13 -&gt; 1.09" in html
    assert html.count('<span class="chip not-run"') == sum(entry.status == "not run" for entry in entries) > 50
    assert html.count("<small>not run</small>") == html.count('<span class="chip not-run"')  # an empty cell says so
    assert html.count("<li>holds: low below mid") == 5


def test_the_ledger_of_this_checkout_is_quick() -> None:
    """As users have it, without the type checks of these tests: 3 s of one core for all rows, imports left out.

    One thread, since the process's time counts threads that only wait for each other: on a busy machine as much again.
    """
    code = (
        "import time; from coordreg import ledger; ledger.rows(only='dsnt-fig4'); began = time.process_time(); "
        "print(len(ledger.rows()), time.process_time() - began)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    count, seconds = done.stdout.split()
    assert int(count) == len(IDS)
    assert float(seconds) < 3
