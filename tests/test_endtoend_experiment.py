"""Table 3: the three heads share everything else, and a run of a few steps leaves a record."""

from dataclasses import replace
from pathlib import Path

import pytest

from coordreg.data.crowds import Crowds
from coordreg.experiments import endtoend as experiment
from coordreg.running import execute
from coordreg.spec import describe, rebuild


def test_the_experiment_changes_the_head_alone() -> None:
    runs = experiment.tab3("cpu")
    assert [run.label for run in runs[::3]] == ["heatmap", "RLE", "Poseur"]
    assert len({str(describe((run.train, run.test, run.training, run.scoring))) for run in runs}) == 1
    assert len({repr(run.estimator["backbone"]) for run in runs}) == 1
    shared = [{k: run.estimator["heads"][k] for k in ("channels", "joints", "find", "convs")} for run in runs]
    assert all(each == shared[0] for each in shared)
    assert rebuild(describe(runs[-1].estimator)) == runs[-1].estimator
    with pytest.raises(ValueError, match="got 'paper', the heads end to end come in smoke, cpu, gpu"):
        experiment.tab3("paper")
    assert [(c.better.label, c.worse.label) for c in experiment.claims("cpu")] == [
        ("Poseur", "heatmap"), ("Poseur", "RLE"), ("RLE", "heatmap")
    ]  # fmt: skip


def test_a_run_of_a_few_steps_leaves_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COORDREG_RESULTS", "COORDREG_RUNS", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    run = experiment.tab3("smoke")[-1]
    run = replace(run, train=Crowds(count=4, size=64), test=Crowds(split="test", count=2, size=64))
    record = execute(run, "smoke", progress=True)
    assert {"AP", "AP50", "AP75", "oks"} <= set(record.reading("method")["at"])
    assert record.image("method", "oks").shape == (2,)
    assert len(record["loss"]) == 2
    assert record.stale == []
