"""Chapter 3's experiments: rivals alike in all but what is compared."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from coordreg.backbones.resnet import parameters
from coordreg.coords import Labels
from coordreg.data.figures import Figures
from coordreg.data.skeletons import MPII16
from coordreg.experiments import cascade, heatmap, runs
from coordreg.experiments.cascade import EXTRA, NOISE, RATES, SIZES, coarse, shared, standard
from coordreg.experiments.cascade_claims import claims, larger, noisy, ratio, smaller
from coordreg.experiments.selecting import Selecting, Through, Undrawn, both_ways, crowd, selecting
from coordreg.heatmap import Argmax
from coordreg.records import Record, Run
from coordreg.spec import describe, rebuild
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
    for rates in tried.values():  # the same list, which goes on beyond the end that was best
        assert tuple(rates[: len(RATES)]) == RATES
        assert all(rate > max(RATES) or rate < min(RATES) for rate in rates[len(RATES) :])


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


# -- the spatial model ------------------------------------------------------------------------------------------------


def test_the_test_figures_are_the_same_people_twice() -> None:
    store = both_ways(8, 48, 0.0).open()
    assert len(store) == 8
    assert torch.equal(store.coords[:4], store.coords[4:])
    assert store.hint is not None
    assert torch.equal(store.hint[:4], store.hint[4:])
    assert all(not torch.equal(a, b) for a, b in zip(store.images[:4], store.images[4:], strict=True))
    assert torch.equal(store.normaliser[:4], store.normaliser[4:])


def test_undrawn_labels_are_those_of_the_drawn() -> None:
    figures = crowd("train", 5, 32, 0.01, 0.5)
    drawn, known = figures.open(), Undrawn(figures).open()
    assert torch.equal(drawn.coords, known.coords)
    assert torch.equal(drawn.weight, known.weight)
    assert drawn.hint is not None
    assert torch.equal(drawn.hint, known.hint)


def network(count: int = 12) -> Selecting:
    torch.manual_seed(0)
    made = selecting(cascade.coarse("smoke", 4), 12, crowd("train", count, 48, 0.0, 0.5)).build()
    assert isinstance(made, Selecting)
    return made


def test_the_detector_trains_as_if_alone() -> None:
    """Its loss, gradients and weights after a step are those of the coarse network by itself."""
    batch = crowd("train", 6, 48, 0.0, 0.5).open().batch(torch.arange(6))
    ours = network()
    torch.manual_seed(0)
    alone = cascade.coarse("smoke", 4).build()
    for name, value in alone.state_dict().items():
        assert torch.equal(value, ours.state_dict()[name]), name
    parts = []
    for net in (ours, alone):
        torch.manual_seed(5)  # of the dropout
        parts.append(net.loss(batch))
        parts[-1]["loss"].backward()
    assert torch.equal(parts[0]["heatmap"], parts[1]["heatmap"])
    assert set(parts[0]) == {"heatmap", "learnt", "loss"}  # histograms are not trained
    assert parts[0]["loss"].item() == pytest.approx(parts[0]["heatmap"].item() + parts[0]["learnt"].item())
    found = dict(ours.named_parameters())
    for name, parameter in alone.named_parameters():
        assert parameter.grad is not None
        assert (parameter.grad == found[name].grad).all(), name
    kernel = found["spatial.learnt.kernel"].grad
    assert kernel is not None
    assert float(kernel.abs().sum()) > 0
    assert not any(name.startswith(("spatial.tree", "spatial.pairs")) for name, p in found.items() if p.requires_grad)


def test_readings_are_of_the_same_maps() -> None:
    """Two people painted on every map: the maps' maximum is the brighter one, a tree's the one about the torso."""
    figures = crowd("test", 3, 48, 0.0, 0.0)
    known = figures.scene_labels(torch.arange(3))
    move = torch.tensor([0.6, 0.0]) * -known.hint[:, :1].sign()
    there, other = known.exact, known.exact + move.unsqueeze(1)
    net = network(200)

    def painted(images: torch.Tensor) -> torch.Tensor:
        both = [net.method.encode(Labels(c, torch.ones_like(c)), (12, 12)).maps for c in (there, other)]
        return torch.maximum(0.85 * both[0], both[1])

    net.forward = painted  # type: ignore[method-assign]
    images, torso = torch.zeros(3, 3, 48, 48), known.hint
    for name, wanted in (("", other), ("tree", there), ("learnt", there), ("pairs", there)):
        net.method.decoder = Through(name) if name else Argmax()
        off = (net.predict(images, torso).coords - wanted).abs().amax(-1)
        assert float((off < 0.25).double().mean()) > 0.5, name
        if name:
            points = net.predict(images, torso + move).coords
            assert float(((points - other).abs().amax(-1) < 0.25).double().mean()) > 0.5, name
            with pytest.raises(ValueError, match="got no hint"):
                net.predict(images)
    net.method.decoder = Through("tree", blind=True)  # the same answer whatever the picture is
    guess = net.predict(images, torso).coords
    net.forward = lambda images: -painted(images)  # type: ignore[method-assign]
    assert torch.equal(net.predict(images, torso).coords, guess)
    trunk = [MPII16.joints.index(name) for name in ("r_hip", "l_hip", "thorax")]
    assert float((guess - torso.unsqueeze(1))[:, trunk].abs().max()) < 0.6
    net.method.decoder = Through("forest")
    with pytest.raises(ValueError, match="got the model 'forest', expected one of tree, learnt, pairs"):
        net.predict(images, torso)
    with pytest.raises(ValueError, match="maps alone say nothing of the torso"):
        Through("tree")(torch.zeros(1, 16, 12, 12))
    with pytest.raises(ValueError, match=r"got names \('a', 'a'\) for 3 models"):
        Selecting(net.backbone, net.head, net.method, ("a", "a"), tuple(net.spatial.values()))  # type: ignore[arg-type]


def test_the_spatial_experiment_is_one_network_a_seed() -> None:
    found = runs("cascade-mrf", "cpu")
    assert [run.seed for run in found] == list(SIZES["cpu"].seeds)
    assert len({replace(run, seed=0, keep=0) for run in found}) == 1
    run = found[0]
    assert [r.name for r in run.readings] == ["learnt", "argmax", "histograms", "pairs", "torso"]
    assert rebuild(describe(run.estimator)) == run.estimator
    people, alone = run.test.parts
    assert (people.distractor, alone.distractor, run.train.distractor) == (1.0, 0.0, 0.5)
    assert people.count == alone.count == SIZES["cpu"].test // 2
    measured = run.estimator["spatial"][0]["priors"].data
    assert measured == replace(run.train, augment=None)
    assert not any(model["learnt"] for i, model in enumerate(run.estimator["spatial"]) if i != 1 and "learnt" in
                   dict(model.kwargs))  # fmt: skip
    declared = [c for c in claims("cpu") if c.row == "cascade-mrf"]
    assert {c.part for c in declared} == {(0, 1024), (1024, 2048)}
    assert [c.margin for c in declared] == [0, 0, 0, 0, -1, 0, -1]
    assert [c.worse.reading for c in declared] == ["argmax"] * 3 + ["torso", "argmax"] * 2
    assert {c.metric for c in declared} == {"0.5"}


@pytest.mark.parametrize("profile", ["smoke", "cpu", "gpu"])
def test_claims_name_runs_and_readings_that_are_declared(profile: str) -> None:
    names = {side.experiment for claim in claims(profile) for side in claim.sides}
    there = {(name, run.label, r.name) for name in names for run in runs(name, profile) for r in run.readings}
    assert {(s.experiment, s.label, s.reading) for claim in claims(profile) for s in claim.sides} <= there


# -- photographs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["smoke", "cpu", "gpu"])
def test_photographs_are_those_of_chapter_2(profile: str) -> None:
    theirs = [run for run in heatmap.lsp(profile) if run.label == "LSP"]
    found = runs("cascade-lsp", profile)
    assert [run.label for run in found] == ["coarse"] * len(theirs) + ["shared"] * len(theirs)
    for run, base in zip(found, theirs * 2, strict=True):
        assert (run.train, run.test, run.scoring, run.seed) == (base.train, base.test, base.scoring, base.seed)
        assert run.training.batch == base.training.batch
        assert run.training.steps == max(6, base.training.steps // 2)
        assert run.train.size % 8 == 0
    if profile == "cpu":
        phases, steps, schedule = (
            found[-1].estimator["method"]["phases"], found[-1].training.steps, found[-1].training.schedule
        )  # fmt: skip
        assert phases == (1406, 422)  # of 2,250, as 1,000 and 300 are of 1,600
        assert isinstance(schedule, Restarts)
        assert [round(share * steps) for share in schedule.starts] == [0, 1406, 1828]
    if profile == "smoke":
        for run in (found[0], found[-1]):
            net = run.estimator.build()
            images = torch.rand(2, 3, run.train.size, run.train.size)
            assert net.predict(images).coords.shape == (2, 14, 2)


def test_pages_draw_from_the_first_seed_of_one_pooling_alone() -> None:
    kept = {(run.label, run.seed): run.keep for run in runs("cascade-refinement", "cpu") if run.keep}
    assert kept == {("8x", 0): 8}
    assert [run.keep for run in runs("cascade-mrf", "cpu")] == [8, 0, 0]
    assert isinstance(runs("cascade-refinement", "smoke")[0].train, Figures)
