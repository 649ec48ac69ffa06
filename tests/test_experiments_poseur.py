"""Chapter 7's experiments: rivals alike but in what is compared, runs shared, counts by another way, two scorings."""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from coordreg import experiments
from coordreg.backbones.cost import macs
from coordreg.backbones.levels import MultiScale
from coordreg.backbones.resnet import DeconvHead, ResNet, parameters
from coordreg.coords import Points, apply_affine
from coordreg.data.figures import Figures
from coordreg.experiments import dark, heatmap, integral, poseur_counted
from coordreg.experiments.poseur import LAYERS, LEVELS
from coordreg.experiments.poseur_claims import EQUAL, Gain, Looks, claims, expected
from coordreg.experiments.poseur_networks import CHOSEN, PROVISIONAL, RATES, SIZES, poseur, rate
from coordreg.metrics.outside import Outside, beyond
from coordreg.metrics.ranked import COVERED, Ranked, ranked, reliability
from coordreg.papers import ROWS
from coordreg.poseur import Poseur, PoseurHead, PoseurMethod
from coordreg.queries import Jittered, Uniform
from coordreg.records import Record, Run
from coordreg.spec import describe, rebuild

NAMES = sorted(name for name in experiments.names() if name.startswith("poseur-"))
runs = cache(experiments.runs)
DRAWN = [name for name in NAMES if name != "poseur-lsp"]
PLAIN = [name for name in DRAWN if name not in ("poseur-rates", "poseur-scores", "poseur-sizes", "poseur-truncated")]


def seen(run: Run) -> tuple[Any, ...]:
    """What rivals must share."""
    return run.train, run.test, run.training.steps, run.training.batch, run.training.schedule, run.seed, run.scoring


def keys(name: str, label: str, profile: str = "cpu") -> list[str]:
    """The keys of the runs with this label, a seed each."""
    found = [run.key for run in runs(f"poseur-{name}", profile) if run.label == label]
    assert found
    return found


# -- what is run ------------------------------------------------------------------------------------------------------


def test_the_tables_are_there() -> None:
    tables = "starts noise scores levels depth trunks sizes attention shared kinds rle truncated lsp rates"
    assert {f"poseur-{name}" for name in tables.split()} == set(NAMES)


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_rivals_see_the_same_images(profile: str) -> None:
    every = [run for name in PLAIN for run in runs(name, profile)]
    assert len({seen(run) for run in every}) == 3  # one a seed
    for name, sets in (("poseur-scores", 3), ("poseur-truncated", 3), ("poseur-rates", 1)):
        assert len({seen(run) for run in runs(name, profile)}) == sets
    for side in dark.SIDES[profile]:
        both = [run for run in runs("poseur-sizes", profile) if run.label.endswith(f" {side} px")]
        assert len({seen(run) for run in both}) == 3
        assert len(both) == 6
        assert {run.train.size for run in both} == {run.test.size for run in both} == {side}
    for run in every + runs("poseur-truncated", profile):
        assert run.train.split == "train"
        assert run.test.split == "test"
    assert all(r.train.truncation == r.test.truncation == 1 for r in runs("poseur-truncated", profile))


def test_one_search_for_all_three() -> None:
    search = runs("poseur-rates", "cpu")
    assert {run.test.split for run in search} == {"val"}
    assert {run.seed for run in search}.isdisjoint(run.seed for run in runs("poseur-rle", "cpu"))
    tried: dict[str, list[float]] = {}
    for run in search:
        kind, lr = run.label.split()
        assert float(lr) == run.training.lr
        tried.setdefault(kind, []).append(run.training.lr)
    assert tried == {kind: list(RATES) for kind in ("heatmap", "RLE", "Poseur")}
    chosen = CHOSEN["cpu"]
    assert set(chosen) <= set(tried)
    for kind in tried:
        assert rate("cpu", kind) == chosen.get(kind, PROVISIONAL["cpu"][kind])
        assert rate("cpu", kind) in RATES
    # what is trained at the rate of a kind is a network of that kind
    for run in runs("poseur-rle", "cpu"):
        assert run.training.lr == rate("cpu", run.label)


def test_tables_share_runs() -> None:
    base = keys("levels", LEVELS[4])
    assert len(base) == 3
    for name, label in (("noise", "on"), ("depth", "3 layers"), ("attention", "on"), ("kinds", "EMSDA"),
                        ("trunks", "Poseur ResNet"), ("rle", "Poseur")):  # fmt: skip
        assert keys(name, label) == base, name
    side = dark.SIDES["cpu"][1]
    assert keys("sizes", f"Poseur {side} px") == base
    assert keys("sizes", f"heatmap {side} px") == keys("trunks", "heatmap ResNet") == keys("rle", "heatmap")
    assert keys("starts", "proposal") == keys("noise", "off")
    assert keys("shared", "own") == keys("depth", "6 layers")
    every = {run.key: run for name in NAMES for run in runs(name, "cpu")}
    named: dict[tuple[str, str], Any] = {}
    for name in NAMES:
        for run in runs(name, "cpu"):
            for reading in run.readings:  # one name, one meaning
                assert named.setdefault((run.key, reading.name), reading) == reading
    assert len(every) < sum(len(runs(name, "cpu")) for name in NAMES)


def differing(a: Run, b: Run) -> set[str]:
    """Arguments of the head in which two networks differ."""
    ours, theirs = (dict(run.estimator["head"].kwargs) for run in (a, b))
    return {name for name in ours.keys() | theirs.keys() if ours.get(name, "unsaid") != theirs.get(name, "unsaid")}


def test_ablations_change_one_thing() -> None:
    base = runs("poseur-levels", "cpu")[-1]
    assert base.label == LEVELS[4]

    def first(name: str, label: str) -> Run:
        return next(run for run in runs(f"poseur-{name}", "cpu") if run.label == label)

    assert differing(first("starts", "learned"), first("starts", "proposal")) == {"initial"}
    assert differing(first("noise", "off"), base) == differing(first("noise", "jittered"), base) == {"noise"}
    assert first("noise", "jittered").estimator["head"]["noise"] == Jittered()
    assert poseur("cpu").build().head.noise == Uniform()
    for n in LAYERS[1:]:
        assert differing(first("depth", f"{n} layers"), base) == {"layers"}
    assert differing(first("shared", "shared"), first("shared", "own")) == {"shared"}
    for name, label, field in (("attention", "off", "self_attention"), ("kinds", "MSDA", "efficient")):
        run = first(name, label)
        assert differing(run, base) == {"layer"}
        assert replace(run.estimator["head"]["layer"], **{field: True}) == base.estimator["head"]["layer"]
    for n, name in LEVELS.items():
        run = first("levels", name)
        assert len(run.estimator["head"]["channels"]) == run.estimator["backbone"]["levels"] == n
    small = first("sizes", f"Poseur {dark.SIDES['cpu'][0]} px")
    assert small.estimator["head"]["layer"].points == 1  # its last map has a single cell


def test_the_neck_normalises_groups_of_channels() -> None:
    """One channel a group would leave of a map of one cell nothing at all."""
    for profile in SIZES:
        norm = poseur(profile).build().head.neck[0][1]
        assert norm.num_channels // norm.num_groups >= 3


def test_every_network_trains_and_predicts() -> None:
    """A step of each different run of the smallest profile on two figures: finite loss, a gradient everywhere."""
    found = {run.key: run for name in DRAWN for run in runs(name, "smoke") if name != "poseur-rates"}
    assert len(found) > 20
    stores: dict[str, Any] = {}
    for run in found.values():
        torch.manual_seed(0)
        net = run.estimator.build()
        few = replace(run.train, count=2)
        store = stores[few.key()] if few.key() in stores else stores.setdefault(few.key(), few.open())
        batch = store.batch(torch.arange(2))
        loss = net.loss(batch)["loss"]
        assert bool(loss.isfinite()), run.label
        loss.backward()
        idle = "method.guess." if run.label == "learned" else "nothing"  # no guess, and nothing for its flow to judge
        bare = [name for name, p in net.named_parameters() if p.grad is None and not name.startswith(idle)]
        assert not bare, (run.label, bare)
        with torch.no_grad():
            output = net.eval()(batch.images)
        for reading in run.readings:
            if reading.decoder is not None:
                net.method.decoder = reading.decoder
            points = net.method.decode(output)
            assert points.coords.shape == store.coords.shape
            assert points.score.shape == store.coords.shape[:2]
        if isinstance(run.scoring, Ranked):
            assert {"AP", "AR", "oks"} <= set(run.scoring.score(points, store).summary())


def test_a_described_network_is_built_again() -> None:
    for run in runs("poseur-noise", "cpu") + runs("poseur-scores", "cpu"):
        assert rebuild(describe(run.estimator)) == run.estimator
        assert rebuild(describe(run.scoring)) == run.scoring


@pytest.mark.parametrize("profile", ["smoke", "cpu", "gpu"])
def test_photographs_are_the_earlier_chapters(profile: str) -> None:
    found = runs("poseur-lsp", profile)
    base = [run for run in heatmap.lsp(profile) if run.label == "LSP"]
    by_label: dict[str, list[Run]] = {}
    for run in found:
        by_label.setdefault(run.label, []).append(run)
    assert list(by_label) == ["heatmap", "DSNTr", "RLE", "Poseur"]
    assert [run.key for run in by_label["heatmap"]] == [run.key for run in base]
    assert [r.key for r in by_label["heatmap"]] == [r.key for r in dark.lsp(profile) if r.label == "unbiased"]
    assert [r.key for r in by_label["DSNTr"]] == [r.key for r in integral.lsp(profile) if r.label == "DSNTr"]
    assert by_label["heatmap"][0].readings == base[0].readings[:2]  # no more than those records have
    for runs_of in by_label.values():
        assert [seen(run) for run in runs_of] == [seen(run) for run in base]
    for kind in ("RLE", "Poseur"):
        run = by_label[kind][0]
        assert run.training == replace(base[0].training, lr=rate(profile, kind))
        inner = run.estimator["backbone"]
        assert (inner["trunk"] if kind == "Poseur" else inner) == base[0].estimator["backbone"]
        if profile == "smoke":
            side = run.train.size
            assert run.estimator.build().predict(torch.rand(2, 3, side, side)).coords.shape == (2, 14, 2)


def test_another_profile_is_refused() -> None:
    for name in NAMES:
        with pytest.raises(ValueError, match="got 'paper'"):
            experiments.names()[name]("paper")
    with pytest.raises(ValueError, match="got 'paper', Poseur's experiments come in smoke, cpu, gpu"):
        claims("paper")


# -- what is claimed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["smoke", "cpu", "gpu"])
def test_claims_name_runs_readings_and_metrics_that_are_declared(profile: str) -> None:
    for claim in claims(profile) + expected(profile):
        for side in claim.sides:
            of = [run for run in runs(side.experiment, profile) if run.label == side.label]
            assert of, claim.text
            for run in of:
                assert side.reading in {r.name for r in run.readings}
                known = {"", "auc", *(f"{t:g}" for t in run.scoring.at), *getattr(run.scoring, "metrics", ())}
                assert claim.metric in known, claim.text


def test_every_trend_of_the_paper_is_claimed_or_owed() -> None:
    trends = {row.id for row in ROWS if row.paper == "poseur" and "trend" in row.parts}
    claimed = {claim.row for claim in claims("cpu")}
    assert trends - claimed == {"poseur-tab3"}  # end to end
    assert claimed - trends == {"poseur-supp4"}  # the accuracy beside its cost


def test_a_gain_is_a_difference_of_readings() -> None:
    data = {"readings": {"a": {"AP": 70.5, "AR": 80.0}, "b": {"AP": 69.0, "AR": 80.0}}}
    record = Record(data, Path("k.json"))
    assert Gain("a", "b")(record) == pytest.approx(1.5)
    assert Gain("b", "a")(record) == pytest.approx(-1.5)
    assert abs(Gain("a", "b", "AR")(record)) <= EQUAL


def test_looking_more_by_hand() -> None:
    """Four joints, two layers; joint 1 looks at 3 with 0.3 and 0.5, at 0 and 2 with 0.1, at itself with the rest."""
    shares = np.full((2, 4, 4), 0.25)
    shares[0, 1], shares[1, 1] = (0.1, 0.5, 0.1, 0.3), (0.1, 0.3, 0.1, 0.5)

    class Kept(Record):
        def kept(self, name: str) -> np.ndarray[Any, Any]:
            return {"joints": shares.astype(np.float32)}[name]

    record = Kept({}, Path("k.json"))
    assert Looks(1, (3,))(record) == pytest.approx(0.4 * 3 / 0.6)
    assert Looks(1, (0, 3))(record) == pytest.approx(0.25 * 3 / 0.6)
    assert Looks(2, (0, 1, 3))(record) == pytest.approx(1)


# -- counts -----------------------------------------------------------------------------------------------------------


def test_counts_in_parts_are_those_of_the_whole() -> None:
    """Three levels, four layers, 96 x 160 px: trunk in blocks and a decoder of two layers give the whole network's."""
    with torch.device("meta"):
        trunk = MultiScale(ResNet(50), 3)
        network = Poseur(trunk, PoseurHead(trunk.channels, 17, layers=4), PoseurMethod())
        simple = nn.Sequential(ResNet(50), DeconvHead(2048, 17, (256,) * 3))
    size = (96, 160)
    weights, cost = poseur_counted.counted(levels=3, layers=4, size=size)
    assert weights * 1e6 == pytest.approx(parameters(network), abs=0.5)
    assert cost * 1e9 == pytest.approx(macs(network, size), abs=0.5)
    weights, true, way = poseur_counted.simple("ResNet-50", size)
    assert weights * 1e6 == pytest.approx(parameters(simple), abs=0.5)
    assert true * 1e9 == pytest.approx(macs(simple, size), abs=0.5)
    # by hand: three transposed convolutions of 16 weights a pair of channels, once an output cell; 1x1; the trunk
    deconvolutions = 16 * 256 * 256 * sum(3 * 5 * 4**i for i in (1, 2, 3)) + 17 * 256 * 3 * 5 * 64
    assert way * 1e9 == pytest.approx(macs(simple[0], size) + deconvolutions, abs=0.5)
    shared, own = (poseur_counted.counted(layers=6, shared=s)[0] for s in (True, False))
    assert (own - shared) * 1e6 == pytest.approx(5 * (1_020_544 + 396_294), abs=0.5)  # blocks by hand: test_poseur


def test_normalised_values_by_hand() -> None:
    """ResNet-50 at 32 px: 64 maps of 16 cells a side, then 16 blocks of three convolutions and four shortcuts."""
    by_hand = 64 * 16**2
    for i, blocks in enumerate((3, 4, 6, 3)):
        width, cells = 64 * 2**i, (8 // 2**i) ** 2
        entry = width * (cells if i == 0 else 4 * cells) + width * cells + 4 * width * cells  # strides in the 3x3
        by_hand += entry + 4 * width * cells + (blocks - 1) * 6 * width * cells
    assert poseur_counted.trunk("ResNet-50")[1] == by_hand


def test_rows_say_what_matches() -> None:
    found = poseur_counted.exact()
    assert {row for row, check in found.items() if check.matches} == {
        "poseur-tab1d", "poseur-tab1e", "poseur-tab5",
    }  # fmt: skip
    assert {row for row, check in found.items() if not check.matches} == {
        "poseur-tab2a", "poseur-tab2b", "poseur-supp3", "poseur-supp4",
    }  # fmt: skip
    assert all(check.note for check in found.values() if not check.matches)
    assert "0.474 with five layers" in found["poseur-tab2a"].note
    assert "64x64 0.45 (0.49)" in found["poseur-tab2b"].ours
    assert "put it at 0.45" in found["poseur-tab2b"].note
    assert "own weights 33.2 (32.3), shared 26.2 (26.2)" in found["poseur-supp3"].ours
    assert "MSDA 1.250 (1.25), EMSDA 0.458 (0.44)" in found["poseur-supp4"].ours
    five = found["poseur-tab5"]
    assert "MobileNet-V2 0.50 (0.5), ResNet-50 4.54 (4.6), ResNet-152 11.82 (11.9), HRNet-W32 7.39 (7.4)" in five.ours
    assert five.ours.endswith("HRNet-W48 33.59 (33.6)")
    assert "ResNet-50 -1.2%, ResNet-152 -0.7%" in five.note
    assert "ResNet-50's 4.6 is the 4.57 of table 1e, rounded, from which 4.54 is -0.6%" in five.note
    assert "Sun et al. 2018 count (rows integral-tab2, -tab3), it is 4.56" in five.note
    assert poseur_counted.agrees(1.0099, 1.0)
    assert not poseur_counted.agrees(1.011, 1.0)
    assert not poseur_counted.agrees(0.474, 0.52)


def test_table_5_does_not_match_whatever_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """ResNet-50 is held against table 1e's figure, the others against table 5's."""
    with monkeypatch.context() as patch:
        patch.setitem(poseur_counted.PUBLISHED, "ResNet-152", (poseur_counted.SIZE, 11.6))
        assert not poseur_counted.by_backbone().matches
    monkeypatch.setitem(poseur_counted.LAYERED, 6, (33.1, 4.6))
    assert not poseur_counted.by_backbone().matches


def test_counted_figures_are_those_of_the_rows() -> None:
    printed = {row.id: {float(n) for n in re.findall(r"\d+\.\d+", row.figures)} for row in ROWS}
    assert {figure for _, figure in poseur_counted.PUBLISHED.values()} <= printed["poseur-tab5"]
    assert {figure for pair in poseur_counted.LAYERED.values() for figure in pair} <= printed["poseur-tab1e"]
    assert {figure for pair in poseur_counted.INPUTS.values() for figure in pair} <= printed["poseur-tab2b"]


# -- joints outside the image -----------------------------------------------------------------------------------------


def test_beyond_by_hand() -> None:
    points = torch.tensor([[0.5, -0.9], [1.2, 0.0], [-1.4, 1.1], [1.0, -1.0]])
    assert beyond(points).tolist() == pytest.approx([0.0, 0.1, 0.2, 0.0])


@given(st.floats(-3, 3), st.floats(-3, 3))
def test_beyond_is_the_way_to_the_nearest_border(x: float, y: float) -> None:
    far = float(beyond(torch.tensor([x, y], dtype=torch.float64)))
    assert far == pytest.approx(max(abs(x) - 1, abs(y) - 1, 0) / 2)


def test_joints_outside_are_told_from_those_inside() -> None:
    """Labels as predictions hit everything; kept inside the image they miss by their way there. By plain loops."""
    store = Figures(count=7, size=32, truncation=1.0).open()
    scoring = Outside(at=(0.5, 0.1), exclude=(6, 7), least=0.1)
    score = torch.ones(7, 16)
    right = scoring.score(Points(store.coords, score), store)
    assert (right.summary()["outside"], right.summary()["inside"]) == (100, 100)
    kept = scoring.score(Points(store.coords.clamp(-1, 1), score), store)
    outside, inside, both = [], [], []
    rows: dict[float, list[float]] = {}
    for i in range(7):
        hits: dict[str, list[bool]] = {"outside": [], "inside": []}
        for j in set(range(16)) - {6, 7}:
            x, y = store.coords[i, j].tolist()
            far = max(abs(x) - 1, abs(y) - 1, 0) / 2
            error = 16 * ((abs(x) - min(abs(x), 1)) ** 2 + (abs(y) - min(abs(y), 1)) ** 2) ** 0.5
            error /= float(store.normaliser[i])
            if far == 0 or far >= 0.1:
                hits["outside" if far else "inside"].append(error <= 0.5)
            low = -1.0 if far == 0 else max(edge for edge in (0, 0.05, 0.1, 0.2, 0.3) if far > edge)
            rows.setdefault(low, []).append(error)
        if all(hits.values()):
            outside.append(sum(hits["outside"]) / len(hits["outside"]))
            inside.append(sum(hits["inside"]) / len(hits["inside"]))
        both.append(int(all(hits.values())))
    found = kept.summary()
    assert len(outside) > 0
    assert found["outside"] == pytest.approx(100 * sum(outside) / len(outside), abs=2e-3)
    assert found["inside"] == pytest.approx(100 * sum(inside) / len(inside), abs=2e-3)
    assert kept.images()["count"].tolist() == both
    table = found["by distance"]
    assert (table[0]["above"], table[0]["to"], table[-1]["to"]) == (0, 0, None)
    assert sum(row["joints"] for row in table) == 7 * 14
    for row in table[1:]:
        errors = rows.get(row["above"], [])
        assert row["joints"] == len(errors)
        if errors:
            assert row["error"] == pytest.approx(sum(errors) / len(errors), abs=2e-4)


def test_outside_refuses_what_it_cannot_say() -> None:
    with pytest.raises(ValueError, match="got least=0"):
        Outside(least=0.0)
    store = Figures(count=3, size=32).open()
    whole = Outside().score(Points(store.coords, torch.ones(3, 16)), store)
    with pytest.raises(ValueError, match=r"none of 3 images has labelled joints both inside.*truncation"):
        whole.summary()


# -- poses in order of score ------------------------------------------------------------------------------------------


def three(order: list[float]) -> dict[str, float]:
    """Two poses that hit and one, the last, that misses its person."""
    truth = torch.rand(3, 17, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 40
    points = truth.clone()
    points[2] += 1000
    area = torch.full((3,), 800.0, dtype=torch.float64)
    return ranked(points, truth, area, torch.tensor(order, dtype=torch.float64))


def test_ap_by_hand() -> None:
    """67 of the 101 recalls are at most 2/3; with the miss in front the best precision there is 2/3."""
    last, first = three([0.9, 0.8, 0.1]), three([0.8, 0.7, 0.9])
    assert last["AP"] == pytest.approx(67 / 101)
    assert first["AP"] == pytest.approx(67 / 101 * 2 / 3)
    assert last["AR"] == first["AR"] == pytest.approx(2 / 3)


def test_scores_decide_ap_and_not_ar() -> None:
    store = Figures(count=12, size=32, skeleton="coco17").open()
    g = torch.Generator().manual_seed(1)
    size = torch.linspace(0, 0.3, 12).view(-1, 1, 1)
    coords = store.coords + size * torch.randn(store.coords.shape, generator=g)
    scoring = Ranked(reaches=(0.1,))
    score = {"good": 1 - size.view(-1, 1), "none": torch.ones(12, 1), "bad": size.view(-1, 1)}
    found = {k: scoring.score(Points(coords, v.expand(-1, 17)), store).summary() for k, v in score.items()}
    assert found["good"]["AP"] > found["bad"]["AP"] + 5
    assert len({f["AR"] for f in found.values()}) == 1
    assert len({f["oks"] for f in found.values()}) == 1
    assert set(found["good"]["reliability"]) == {"0.1"}
    # OKS of one person by a plain loop
    at, truth = (apply_affine(store.affine.double(), c.double())[5] for c in (coords, store.coords))
    width, height = (truth.amax(0) - truth.amin(0)).tolist()
    total = 0.0
    for p, q, sigma in zip(at.tolist(), truth.tolist(), scoring.sigmas, strict=True):
        squared = (p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2
        total += 2.718281828459045 ** (-squared / (2 * COVERED * width * height * (2 * sigma) ** 2))
    images = scoring.score(Points(coords, torch.ones(12, 17)), store).images()
    assert float(images["oks"][5]) == pytest.approx(total / 17, abs=1e-3)


def test_reliability_by_hand() -> None:
    scores = torch.tensor([[0.05, 0.32], [0.38, 1.0]])
    hit = torch.tensor([[False, True], [False, True]])
    assert reliability(scores, hit) == [[0.05, 0.0, 1.0], [0.35, 0.5, 2.0], [1.0, 1.0, 1.0]]


def test_ranked_wants_every_joint() -> None:
    store = Figures(count=2, size=32, skeleton="coco17").open()
    blank = replace(store, weight=torch.where(torch.arange(17).view(1, -1, 1) == 3, 0.0, store.weight))
    with pytest.raises(ValueError, match="got unlabelled joints"):
        Ranked().score(Points(store.coords, torch.ones(2, 17)), blank)
    other = Figures(count=2, size=32).open()
    with pytest.raises(ValueError, match="sigmas"):
        Ranked().score(Points(other.coords, torch.ones(2, 16)), other)
