"""A recipe in small that is interrupted, goes on, and is compared with one that never stopped."""

from pathlib import Path
from typing import Any

import pytest
import test_recipes

from coordreg import running, train
from coordreg.experiments import recipes
from coordreg.records import Record, Run


def execute(run: Run, epochs: int, **options: Any) -> Record:
    """The record of the run in small on what is there."""
    return running.execute(test_recipes.here(run, epochs), "paper", progress=False, **options)


def interrupted(run: Run, epochs: int, store: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    """The record of a run that stopped after two steps and went on: equal to that of one that did not, made elsewhere.

    store, drawn: the fixtures of test_recipes, where the run's data lie and what they were made from.
    """
    batches = train.batches

    def dying(*given: Any) -> Any:
        for step, index in batches(*given):
            if step == 2:
                raise KeyboardInterrupt
            yield step, index

    monkeypatch.setattr(train, "batches", dying)
    with pytest.raises(KeyboardInterrupt):
        execute(run, epochs, every=1)
    assert not list((store / "results").rglob("*.json"))
    (checkpoint,) = (store / "runs").rglob("*.pt")
    assert train.load_checkpoint(checkpoint)["step"] == 2
    monkeypatch.setattr(train, "batches", batches)
    resumed = execute(run, epochs)
    assert resumed["resumed"] is True
    for name, value in test_recipes.stores(store / "other", drawn).items():
        monkeypatch.setenv(name, value)
    whole = execute(run, epochs)
    assert whole["resumed"] is False
    for part in ("loss", "readings", "arrays", "data"):
        assert whole[part] == resumed[part], part
    assert whole["data"]["fixture"] is True
    assert recipes.doubt(whole) == "made from a fixture"
    return resumed
