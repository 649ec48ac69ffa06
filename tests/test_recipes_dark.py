"""DARK's recipes: every printed number against a literal, every network counted, and two of them trained in small."""

import json
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import coco_fixture
import mpii_fixture
import numpy as np
import pytest
from drawing_fixture import link_mpii
from real_data import real
from test_recipes import arguments, coordreg, of, only, tiny

from coordreg import experiments, running
from coordreg.backbones.cost import giga, macs
from coordreg.backbones.hourglass import HourglassStem
from coordreg.backbones.hrnet import HRNet
from coordreg.backbones.ragged import RaggedHourglasses
from coordreg.backbones.resnet import ConvHead, ResNet, head, parameters
from coordreg.dark import Dark, gaussian_kernel
from coordreg.data.coco import COCO
from coordreg.data.halfbody import HalfBody
from coordreg.data.hosted import Hosted
from coordreg.data.mpii import MPII
from coordreg.dsnt import DSNT
from coordreg.experiments import ensemble, measured, paper_dark, planning, recipes
from coordreg.experiments.claims import Observation, Side, Widening
from coordreg.heatmap import MSE, Argmax, Gaussian, Heatmap, QuarterSecond, QuarterSign
from coordreg.integral import Integral, Matching
from coordreg.method import Staged
from coordreg.metrics.scoring_coco import ScoringCOCO
from coordreg.papers import ROWS
from coordreg.records import Record, Run
from coordreg.spec import Spec

TABLES = [f"dark-tab{i}" for i in range(1, 10)]
SIGMA = {(128, 96): 1.0, (256, 192): 2.0, (384, 288): 3.0, (256, 256): 2.0}
#: Parameters with 17 joints.
COUNTED = {
    "Hourglass-4": 13_020_612, "Hourglass-8": 25_598_472, "SimpleBaseline-R50": 33_999_697,
    "SimpleBaseline-R101": 52_991_825, "SimpleBaseline-R152": 68_635_473, "HRNet-W32": 28_536_113,
    "HRNet-W48": 63_595_745,
}  # fmt: skip
#: Multiply-adds in G as published codes count, of hourglasses on maps of 32 x 24; test_cost.py has the others.
COST = {"Hourglass-4": 2.68, "Hourglass-8": 4.90}


def taken_apart(label: str) -> tuple[str, tuple[int, int], str]:
    """ "HRNet-W32 128x96 biased" -> its three parts."""
    network, size, encoding = label.split()
    height, width = map(int, size.split("x"))
    return network, (height, width), encoding


def every() -> dict[str, Run]:
    """All networks on heat maps by label, and no label with two meanings."""
    found: dict[str, Run] = {}
    for table in TABLES:
        for label, run in of(table).items():
            assert found.setdefault(label, run).key == run.key, label
    return {label: run for label, run in found.items() if label not in ("DSNT", "IPR")}


# -- what is printed ---------------------------------------------------------------------------------------------------


def test_dark_trains_as_printed() -> None:
    """Section 4: Adam; hourglasses 2.5e-4, 90 and 120 of 140; HRNet 170 and 200 of 210; SimpleBaseline 90 and 120."""
    for label, run in every().items():
        network, size, _ = taken_apart(label)
        training, schedule = run.training, run.training.schedule
        kind = network.split("-")[0]
        lr, epochs, falls = {
            "Hourglass": (2.5e-4, 140, [90, 120]),
            "SimpleBaseline": (1e-3, 140, [90, 120]),
            "HRNet": (1e-3, 210, [170, 200]),
        }[kind]
        assert (training.optimiser, training.lr) == ("adam", lr), label
        assert (training.weight_decay, training.clip) == (0.0, None)
        batch = 8 if kind == "Hourglass" else 128
        batch = {("HRNet-W32", 384): 112, ("HRNet-W48", 384): 72}.get((network, size[0]), batch)
        images = 22_246 if size == (256, 256) else 149_813
        assert (training.batch, training.steps) == (batch, epochs * (images // batch)), label
        assert recipes.epochs_of(run) == epochs
        epoch = images // batch
        at = (0, *(fall * epoch + side for fall in falls for side in (-1, 1)), training.steps - 1)
        factors = [schedule(step, training.steps) for step in at]
        assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01]), label
        assert run.seed == 0


def test_dark_sees_what_hrnet_sees() -> None:
    """Scale 0.35, rotation 45, half bodies 0.3; others and MPII less; mirrors in one of two, turns in six of ten."""
    plain = {
        "flip": 0.5, "turned": 0.6, "colour": 0.0, "labelled": 8, "slip": True, "pairs": None, "size": None,
        "half": 0.0, "upper": (),
    }  # fmt: skip
    for label, run in every().items():
        network, size, _ = taken_apart(label)
        one = only(run.train)
        if size == (256, 256):
            wanted = {**plain, "rotation": 30.0, "scale": 0.25}
            assert (type(one), one.split, one.form, one.size) == (MPII, "train", "json", 256)
            assert one.canvas >= 1.25 * np.sqrt(2)  # a square that much wider, at 45 degrees
            assert run.test == MPII(split="valid", size=256)
            assert (run.scoring.at, run.scoring.exclude) == ((0.5, 0.1, 0.11), (6, 7))
        else:
            half = {"half": 0.3, "upper": tuple(range(11)), "rotation": 45.0, "scale": 0.35}
            wanted = {**plain, **(half if network.startswith("HRNet") else {"rotation": 40.0, "scale": 0.3})}
            assert (type(one), one.split, one.boxes, one.shape) == (COCO, "train2017", "gt", size)
            assert run.test == COCO(split="val2017", size=size)
            assert run.scoring == ScoringCOCO(least=0.2)
        assert isinstance(run.train, Hosted)
        assert type(one.augment) is HalfBody
        assert vars(one.augment) == wanted, label


def test_targets_and_readings() -> None:
    """Biased: int(x + 0.5), cut off, quarter shift. Unbiased: the joint itself, DARK with the target's own width."""
    for label, run in every().items():
        network, size, encoding = taken_apart(label)
        method, sigma = run.estimator["method"], SIGMA[size]
        if network.startswith("Hourglass"):
            assert method.make is Staged
            method = method["method"]
        dark = Dark({1.0: 7, 2.0: 13, 3.0: 19}[sigma], sigma)
        assert (method.make, method["loss"]) == (Heatmap, MSE())
        biased = encoding == "biased"
        assert method["target"] == Gaussian(sigma, rounding="int" if biased else "none", cutoff=biased)
        quarter = QuarterSign("published")
        assert method["decoder"] == (quarter if biased else dark)
        found = {reading.name: (reading.decoder, reading.flip) for reading in run.readings}
        assert found == {
            "argmax": (Argmax(), "plain"), "quarter": (quarter, "plain"), "quarter-second": (QuarterSecond(), "plain"),
            "dark": (dark, "plain"), "dark-raw": (Dark(1), "plain"),
            "dark-range": (replace(dark, rescale="range"), "plain"),
            "dark-k3": (Dark(3), "plain"), "dark-k11": (Dark(11), "plain"),
            "quarter-once": (quarter, "none"), "dark-once": (dark, "none"),
        }  # fmt: skip
        assert run.readings[0].name == ("quarter" if biased else "dark")
    assert gaussian_kernel(3).tolist() == [0.25, 0.5, 0.25]  # what the release gets from OpenCV
    assert len({run.key for run in every().values()}) == 21


def test_networks() -> None:
    """Their parts, parameters and multiply-adds: 2.7 and 4.9 G in table 5."""
    found, joints = every(), 17
    for network, count in COUNTED.items():
        run = found[f"{network} 128x96 unbiased"]
        backbone, maps = run.estimator["backbone"], run.estimator["head"]
        kind, number = network.split("-")
        if kind == "HRNet":
            width = int(number[1:])
            assert (backbone.make, arguments(backbone)) == (HRNet, {"width": width})
            assert (maps.make, arguments(maps)) == (ConvHead, {"channels": width, "joints": joints})
        elif kind == "Hourglass":
            assert (backbone.make, arguments(backbone)) == (HourglassStem, {"width": 256})
            wanted = {"channels": 256, "joints": joints, "stacks": int(number), "depth": 4}
            assert (maps.make, arguments(maps)) == (RaggedHourglasses, wanted)
        else:
            weights = {"depth": int(number[1:]), "width": 64, "weights": f"ResNet{number[1:]}_Weights.IMAGENET1K_V1"}
            assert (backbone.make, arguments(backbone)) == (ResNet, weights)
            assert (maps.make, arguments(maps)) == (
                head, {"channels": 2048, "joints": joints, "widths": (256, 256, 256)}
            )  # fmt: skip
        built = planning.on_meta(run.estimator)
        assert parameters(built) == count
        if network in COST:
            assert round(giga(macs(built, (128, 96), "published"), "published"), 2) == COST[network]
    mpii = of("dark-tab8")["HRNet-W32 256x256 unbiased"].estimator
    assert arguments(mpii["head"]) == {"channels": 32, "joints": 16}


def test_tables_share_their_networks() -> None:
    """The four readings of table 3 are two trainings, and tables 1 and 2 read the first of them."""
    small = {encoding: f"HRNet-W32 128x96 {encoding}" for encoding in ("biased", "unbiased")}
    labels = {table: set(of(table)) for table in TABLES}
    assert labels["dark-tab1"] == labels["dark-tab2"] == {small["biased"]}
    assert labels["dark-tab3"] == set(small.values())
    sizes = ("128x96", "256x192", "384x288")
    assert labels["dark-tab4"] == {f"HRNet-W32 {size} {e}" for size in sizes for e in small}
    assert labels["dark-tab5"] == {f"{network} 128x96 {e}" for network in COUNTED for e in small}
    assert labels["dark-tab6"] == {"DSNT", "IPR", small["unbiased"]}
    assert labels["dark-tab7"] == {small["unbiased"], "HRNet-W48 384x288 unbiased"}
    assert labels["dark-tab8"] == {f"HRNet-W32 256x256 {e}" for e in small}
    assert labels["dark-tab9"] == {"HRNet-W48 384x288 unbiased", "HRNet-W32 384x288 unbiased"}
    keys = {run.key for table in TABLES for run in of(table).values()}
    assert len(keys) == 23


def test_table_6_reads_means() -> None:
    found = of("dark-tab6")
    dsnt, ipr = (found[label].estimator["method"] for label in ("DSNT", "IPR"))
    assert (dsnt.make, arguments(dsnt)) == (DSNT, {})
    assert (ipr.make, ipr["regulariser"]) == (Integral, Matching(Gaussian(sigma=1.0), MSE()))
    assert ipr["pretrain"] == found["IPR"].training.steps // 2
    rival = found["HRNet-W32 128x96 unbiased"]
    for label in ("DSNT", "IPR"):  # the same backbone, data, augmentation and budget
        run = found[label]
        assert (run.training, run.train, run.test) == (rival.training, rival.train, rival.test)
        assert [run.estimator[part] for part in ("backbone", "head")] == [
            rival.estimator[p] for p in ("backbone", "head")
        ]
        assert [(r.name, r.decoder, r.flip) for r in run.readings] == [
            ("flip", None, "points"),
            ("method", None, "none"),
        ]
        assert run.scoring == ScoringCOCO(least=0.0)


# -- printed figures ---------------------------------------------------------------------------------------------------

#: AP as our rows of the papers print it; of table 4 and 5 baseline, then DARK.
LITERALS = {
    "dark-tab1": [61.2, 66.9, 68.4], "dark-tab2": [68.1, 68.4], "dark-tab3": [66.9, 68.0, 68.4, 70.7],
    "dark-tab4": [66.9, 74.4, 75.8, 70.7, 75.6, 76.6],
    "dark-tab5": [66.2, 69.6, 67.6, 70.8, 59.3, 62.6, 58.8, 63.2, 60.7, 63.1, 66.9, 70.7, 68.0, 71.9],
    "dark-tab6": [57.6, 68.0, 70.7], "dark-tab7": [70.0, 76.2], "dark-tab8": [90.3, 90.6, 37.7, 42.0],
    "dark-tab9": [78.9],
}  # fmt: skip


def test_printed_figures_are_those_of_the_rows() -> None:
    rows = {row.id: row.figures for row in ROWS}
    for row, literals in LITERALS.items():
        assert set(literals) <= {float(n) for n in re.findall(r"\d+(?:\.\d+)?", rows[row])}, row
    for table, figures in paper_dark.PRINTED.items():
        assert list(figures.values()) == LITERALS[f"dark-tab{table}"]
    means = [average for _, average in paper_dark.PRINTED_MPII.values()]
    assert sorted(means) == sorted(LITERALS["dark-tab8"])
    assert LITERALS["dark-tab9"] == [paper_dark.PRINTED_ENSEMBLE]
    columns = {key[1:]: values for key, (values, _) in paper_dark.PRINTED_MPII.items()}
    assert columns["dark", "0.5"] == (97.2, 95.9, 91.2, 86.7, 89.7, 86.7, 84.0)
    assert columns["dark", "0.1"] == (55.2, 47.8, 47.4, 45.2, 20.1, 33.4, 35.4)
    assert columns["quarter", "0.1"] == (51.1, 42.7, 42.0, 41.6, 17.9, 29.9, 31.0)
    assert sum(len(values) for values in columns.values()) == 21


def test_claims_by_hand() -> None:
    claims = paper_dark.claims("paper")
    assert len({(claim.row, claim.text) for claim in claims}) == len(claims)
    assert {claim.row for claim in claims} == set(TABLES) == set(paper_dark.RECIPES)
    ranges = {
        (c.row, c.better.label, c.better.reading, c.metric): (c.low, c.high)
        for c in claims
        if isinstance(c, Observation)
    }
    w32 = "HRNet-W32 128x96 unbiased"
    assert ranges["dark-tab3", w32, "dark", "AP"] == (68.2, 100)  # 1.5 points, and 1 for training from scratch
    assert ranges["dark-tab5", "SimpleBaseline-R50 128x96 biased", "quarter", "AP"] == (57.8, 100)
    assert ranges["dark-tab8", "HRNet-W32 256x256 unbiased", "dark", "0.11"] == (40.5, 43.5)
    orders = {(c.row, c.better.label, c.better.reading, c.worse.label, c.worse.reading)
              for c in claims if not isinstance(c, Observation)}  # fmt: skip
    biased = "HRNet-W32 128x96 biased"
    assert ("dark-tab1", biased, "dark", biased, "quarter") in orders
    assert ("dark-tab2", biased, "dark", biased, "dark-raw") in orders
    assert ("dark-tab6", w32, "dark", "IPR", "flip") in orders
    (wider,) = (claim for claim in claims if isinstance(claim, Widening))
    assert wider.than[0].label == "HRNet-W32 384x288 unbiased"
    with pytest.raises(ValueError, match="a recipe has the profile paper alone"):
        paper_dark.claims("cpu")


def test_a_column_is_the_mean_of_both_sides() -> None:
    joints = {"0.5": {"head_top": 97.0}, "0.1": {"l_wrist": 40.0, "r_wrist": 45.0}}
    record = Record({"key": "k", "readings": {"dark": {"joints": joints}}}, Path("k.json"))
    assert paper_dark.column("dark", "0.1", "Wri.")(record) == 42.5
    assert paper_dark.column("dark", "0.5", "Head")(record) == 97.0


# -- the ensemble's figure ---------------------------------------------------------------------------------------------


def test_the_ensemble_is_judged_from_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COORDREG_RESULTS", str(tmp_path))
    figure, gain = (c for c in paper_dark.claims("paper") if c.row == "dark-tab9" and isinstance(c, Observation))
    member = Record({"key": "k", "readings": {"dark": {"at": {"AP": 77.0}}}}, Path("k.json"))
    with pytest.raises(ValueError, match=r"not measured yet: .*experiments.ensemble paper-dark-tab9 --root DIR"):
        figure.measure(member)
    keys = [{"label": run.label, "key": run.key} for run in experiments.runs("paper-dark-tab9", "paper")]
    alone = {one["label"]: {"dark": {"at": {"AP": 77.0 - 4 * i}}} for i, one in enumerate(keys)}
    data = {"people": 6352, "readings": {"dark": {"at": {"AP": 78.25}}, "quarter": {"at": {"AP": 1.0}}}}
    data |= {"members": keys, "boxes": "gt", "alone": alone}
    measured.write("ensemble-paper-dark-tab9", data)
    assert (figure.measure(member), gain.measure(member)) == (78.25, 1.25)
    assert gain.low > 0  # a tie is no gain
    for change in ({"members": [{"label": "x", "key": "0000"}]}, {"boxes": "found.json"}):
        measured.write("ensemble-paper-dark-tab9", {**data, **change})
        with pytest.raises(ValueError, match="other runs than the recipe's"):
            figure.measure(member)
    assert figure.low <= 78.25 <= figure.high
    for mark, told in (("fixture", "made from a fixture"), ("part", "measured on 6,352 people alone")):
        measured.write("ensemble-paper-dark-tab9", {**data, mark: True})
        with pytest.raises(ValueError, match=f"{told}, which is no evidence"):
            figure.measure(member)


# -- the command line --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "texts"),
    [
        (
            ["paper-dark-tab7", "--data", "coco", "--only", "HRNet-W48 384x288 unbiased"],
            ["63,595,745 parameters, 35.31 G multiply-adds at 384 x 288 px",
             "436,800 steps: 210 epochs of 149,813 images (published), batch 72",
             "adam, rate 0.001, x 0.1 at epoch 170 (step 353,600) and epoch 200 (step 416,000)",
             "flip 0.5, rotation 45, scale 0.35, colour 0, turned 0.6, half 0.3"],
        ),
        (
            ["paper-dark-tab8", "--data", "mpii"],
            ["28,536,080 parameters, 10.19 G multiply-adds at 256 x 256 px",
             "36,330 steps: 210 epochs of 22,246 images (published), batch 128",
             "flip 0.5, rotation 30, scale 0.25, colour 0, turned 0.6, half 0"],
        ),
        (
            ["paper-dark-tab5", "--data", "coco", "--only", "SimpleBaseline-R50 128x96 biased"],
            ["resnet50-0676ba61.pth", "epoch 90 (step 105,300) and epoch 120 (step 140,400)"],
        ),
    ],
)  # fmt: skip
def test_dry_runs(call: list[str], texts: list[str], tmp_path: Path) -> None:
    done = coordreg(*call, "--profile", "paper", "--root", str(tmp_path), "--dry-run")
    assert done.exit_code == 0, done.output
    for text in texts:
        assert text in done.output


# -- in small ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty stores, and a folder for data sets."""
    for name in ("results", "runs", "data"):
        monkeypatch.setenv(f"COORDREG_{name.upper()}", str(tmp_path / name))
    monkeypatch.setenv("COORDREG_DEVICE", "cpu")
    return tmp_path


def few(run: Run) -> Run:
    """`tiny`, with two readings in the place of ten."""
    small = tiny(run)
    return replace(small, readings=small.readings[:2]) if len(small.readings) > 2 else small


def wider(made: Spec) -> Spec:
    return made.replace(**{HRNet: {"width": 4}, ConvHead: {"channels": 4}}.get(made.make, {}))  # type: ignore[call-overload]


def execute(run: Run, epochs: int = 2) -> Any:
    """The record of a small run on what is there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a part of the data, and pictures that are not there
        (small,) = recipes.here([run], epochs)
        return running.execute(small, "paper", progress=False)


def sound(record: Any, run: Run) -> None:
    assert all(np.isfinite(record["loss"]))
    for reading in run.readings:
        assert record.reading(reading.name)["at"]
        assert len(record.images(reading.name)["count"]) == record["data"]["test_images"]


def test_a_recipe_on_coco_trains_and_its_networks_are_measured_together(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    coco_fixture.write(store / "data" / "coco", 7, split="train2017", seed=1)
    coco_fixture.write(store / "data" / "coco", 6)
    runs = [few(run) for run in of("dark-tab9").values()]
    runs[1] = replace(runs[1], estimator=recipes.change(runs[1].estimator, wider))  # in small both are one network
    monkeypatch.setattr(experiments, "names", lambda: {"paper-x": lambda profile: runs})
    call = ["paper-x", "--root", str(store / "data"), "--epochs", "2"]
    with pytest.warns(UserWarning, match="recorded as a run of its own"):
        assert ensemble.main(call) == 2
    assert "HRNet-W48 384x288 unbiased" in (told := capsys.readouterr().err)
    assert "is not trained to its end; python -m coordreg run paper-x --profile paper" in told
    made = [execute(run) for run in runs]
    for record, run in zip(made, runs, strict=True):
        sound(record, run)
        assert record["data"]["fixture"] is True
        assert {"AP", "oks"} <= set(record.reading("dark")["at"])
    with pytest.warns(UserWarning, match="recorded as a run of its own"):
        assert ensemble.main(call) == 0
    assert "ensemble-paper-x.json: 2 networks, 6 people, dark: AP" in capsys.readouterr().out
    data = measured.read("ensemble-paper-x")
    assert data is not None
    assert (data["people"], data["boxes"], data["fixture"], data["part"]) == (6, "gt", True, True)
    assert [m["key"] for m in data["members"]] == [record["key"] for record in made]
    for record, run in zip(made, runs, strict=True):  # each alone is what its record says
        assert data["alone"][run.label] == {r.name: {"at": record.reading(r.name)["at"]} for r in run.readings}
    with pytest.raises(ValueError, match="is made from a fixture, which is no evidence"):
        ensemble.figures("paper-x", "AP")
    whole = {k: v for k, v in data.items() if k not in ("fixture", "part", "sum")}
    measured.write("ensemble-paper-x", whole)
    with pytest.raises(ValueError, match="other runs than the recipe's"):  # 2 epochs are not the recipe's
        ensemble.figures("paper-x", "AP")
    measured.write("ensemble-paper-x", whole | {"members": [{"label": r.label, "key": r.key} for r in runs]})
    together, best = ensemble.figures("paper-x", "AP")
    assert together == data["readings"]["dark"]["at"]["AP"]
    assert best == max(record.reading("dark")["at"]["AP"] for record in made)
    boxes = str(store / "data" / "coco" / "detections.json")
    with pytest.warns(UserWarning, match="recorded as a run of its own"):
        assert ensemble.main([*call, "--only", runs[0].label, "--boxes", boxes]) == 0
    found = measured.read("ensemble-paper-x-hrnet-w48-384x288-unbiased-detected")
    assert found is not None
    assert (found["people"], found["boxes"], len(found["members"])) == (7, "detections.json", 1)  # one box comes twice
    assert ensemble.main([*call, "--only", "x"]) == 2
    assert "--only: got 'x', expected one of HRNet-W48 384x288 unbiased" in capsys.readouterr().err


@pytest.mark.parametrize("label", ["HRNet-W32 256x256 biased", "HRNet-W32 256x256 unbiased"])
def test_a_recipe_on_mpii_trains(label: str, store: Path) -> None:
    mpii_fixture.write(store / "data" / "mpii", 9, held=5)
    run = few(of("dark-tab8")[label])
    record = execute(run)
    sound(record, run)
    assert record["images_seen"] == 2 * 9
    assert {"0.5", "0.1", "0.11"} == set(record.reading("dark")["at"])
    for group in ("Head", "Ank."):
        assert 0 <= paper_dark.column("dark", "0.1", group)(record) <= 100


@pytest.mark.slow
@pytest.mark.parametrize("label", ["Hourglass-4 128x96 biased", "SimpleBaseline-R50 128x96 unbiased"])
def test_other_networks_train(label: str, store: Path) -> None:
    coco_fixture.write(store / "data" / "coco", 7, split="train2017", seed=1)
    coco_fixture.write(store / "data" / "coco", 6)
    run = few(of("dark-tab5")[label])
    sound(execute(run, 1), run)


# -- on photographs ----------------------------------------------------------------------------------------------------


def test_a_recipe_on_real_people_of_coco(store: Path) -> None:
    (store / "data").mkdir()
    (store / "data" / "coco").symlink_to(real("coco-mini"))
    run = few(of("dark-tab3")["HRNet-W32 128x96 unbiased"])
    record = execute(run, 2)
    sound(record, run)
    assert record["data"]["test_images"] == 59
    assert record["config"]["train"]["data"]["limit"] == 72
    assert record["images_seen"] == 2 * 72
    assert "fixture" not in record["data"]
    assert "tested on 59 images of coco val2017" in recipes.doubt(replace(record, run=run))


def test_a_recipe_on_real_people_of_mpii(store: Path) -> None:
    link_mpii(store / "data" / "mpii")
    run = few(of("dark-tab8")["HRNet-W32 256x256 unbiased"])
    record = execute(run, 3)
    sound(record, run)
    assert record["images_seen"] == 3 * 4
    assert json.loads(record.path.read_text())["data"]["test_images"] == 4


def test_sides_name_runs() -> None:
    """Every claim's side is a label and a reading of its recipe."""
    known = {(f"paper-{table}", label): run for table in TABLES for label, run in of(table).items()}
    for claim in paper_dark.claims("paper"):
        for side in claim.sides:
            assert isinstance(side, Side)
            assert side.reading in {r.name for r in known[side.experiment, side.label].readings}
