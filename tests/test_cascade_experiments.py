"""Chapter 3's experiments: rivals alike in all but what is compared."""

from pathlib import Path

import pytest

from coordreg.backbones.resnet import parameters
from coordreg.experiments import runs
from coordreg.experiments.cascade import EXTRA, NOISE, SIZES, coarse, larger, noisy, ratio, shared, smaller, standard
from coordreg.records import Record, Run
from coordreg.train import Restarts
from coordreg.windows import equal_width


@pytest.mark.parametrize("profile", ["smoke", "cpu", "gpu"])
def test_the_standard_cascade_has_as_many_parameters(profile: str) -> None:
    ours, theirs = (parameters(make(profile, 4).build()) for make in (shared, standard))
    assert abs(ours - theirs) < 0.01 * ours
    fine = standard(profile, 4).build().head.fine[0]
    assert equal_width(fine, parameters(shared(profile, 4).build().head.fine[0])) == EXTRA[profile]
    counts = {by: parameters(shared(profile, by).build()) for by in (4, 8, 16)}
    assert len(set(counts.values())) == 1  # pooling changes no number of features
    assert {parameters(coarse(profile, 8, name).build()) for name in ("spatial", "standard", "none")} == {
        parameters(coarse(profile, 8).build())
    }


def seen(run: Run) -> tuple[object, ...]:
    """What rivals must share."""
    return run.train, run.test, run.training.steps, run.training.batch, run.seed, run.scoring


def test_rivals_see_the_same_images() -> None:
    every = [run for name in ("pooling", "refinement", "sharing") for run in runs(f"cascade-{name}", "cpu")]
    assert len({seen(run) for run in every}) == 3  # one a seed
    assert all(run.train.label_noise == run.test.data.label_noise == NOISE for run in every)
    search = runs("cascade-rates", "cpu")
    assert len({seen(run) for run in search}) == 1
    assert {run.test.data.split for run in search} == {"val"}
    tried: dict[str, list[float]] = {}
    for run in search:
        tried.setdefault(run.label.split()[0], []).append(run.training.lr)
    assert tried["coarse"] == tried["shared"] == tried["standard"]


def test_the_rate_restarts_where_the_phases_do() -> None:
    for run in runs("cascade-sharing", "cpu"):
        steps = SIZES["cpu"].steps
        assert isinstance(run.training.schedule, Restarts)
        edges = [round(share * run.training.steps) for share in run.training.schedule.starts]
        phases = run.estimator["method"]["phases"]
        assert edges[1:] == [n for n in (phases[0], sum(phases)) if n < run.training.steps]
        assert edges[1] == steps[0]
    shares = {run.key for run in runs("cascade-sharing", "cpu")} & {r.key for r in runs("cascade-refinement", "cpu")}
    assert len(shares) == 3


def test_ratios_are_of_the_refined_to_the_coarse_spread() -> None:
    def pixels(head: float, right: float, left: float) -> dict[str, object]:
        rows = {"head_top": head, "r_shoulder": right, "l_shoulder": left}
        return {"pixels": {"labels": {name: {"x": value} for name, value in rows.items()}}}

    data = {"key": "k", "readings": {"refined": pixels(1.0, 1.0, 2.0), "coarse": pixels(2.5, 2.0, 2.0)}}
    record = Record(data, Path("k.json"))
    assert ratio(record, "head") == pytest.approx(0.4)
    assert ratio(record, "shoulder") == pytest.approx(0.75)
    assert (smaller(record), larger(record)) == (pytest.approx(0.4), pytest.approx(0.75))
    assert noisy(record, 96) == pytest.approx(1.0 / (0.65 / 240 * 96))
    data["readings"]["coarse"]["pixels"]["labels"]["head_top"]["x"] = None  # type: ignore[index]
    with pytest.raises(ValueError, match="record k: no head lies near its label"):
        ratio(record, "head")
