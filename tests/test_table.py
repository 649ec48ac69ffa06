"""Which records a page shows: the best profile, the best that all of a comparison have, nothing where there is none."""

import pytest

from coordreg.experiments import table
from coordreg.experiments.table import Results, results, together

HAVE = {"both": {"gpu", "cpu"}, "other": {"gpu", "cpu"}, "small": {"cpu"}, "dear": {"gpu"}, "none": set()}


@pytest.fixture(autouse=True)
def _records(monkeypatch: pytest.MonkeyPatch) -> None:
    def published(name: str, profile: str) -> Results | None:
        return Results(name, profile, ()) if profile in HAVE[name] else None

    monkeypatch.setattr(table, "_published", published)


def profiles(*names: str) -> list[str | None]:
    found = together(*names)
    assert [r.experiment for r in found] == list(names)
    return [r.profile for r in found]


def test_a_comparison_takes_the_best_profile_that_all_have() -> None:
    assert profiles("both", "other") == ["gpu", "gpu"]
    assert profiles("both", "small") == ["cpu", "cpu"]
    assert profiles("both") == ["gpu"]


def test_without_a_common_profile_nothing_is_shown() -> None:
    assert profiles("small", "dear") == [None, None]
    assert profiles("both", "none") == [None, None]
    assert "No profile has all the records of this comparison" in together("small", "dear")[0].why


def test_one_experiment_takes_its_own_best() -> None:
    assert results("both").profile == "gpu"
    assert results("small").profile == "cpu"
    assert results("none").profile is None
    assert "No profile has all its records" in results("none").why


def test_what_a_smoke_run_of_a_page_leaves_out() -> None:
    left = [results("both", "smoke", smoke=False), *together("both", "small", profile="smoke", smoke=False)]
    assert [r.profile for r in left] == [None] * 3
    assert {r.why for r in left} == {"Left out of the smoke profile."}
    assert results("both", smoke=False).profile == "gpu"
