"""The cascade's recipes: every printed number against a literal, the data they see, and who is picked; in small too."""

import json
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import flic_fixture
import mpii_fixture
import numpy as np
import pytest
import torch
from drawing_fixture import link_mpii
from test_recipes import arguments, coordreg, of, only, tiny

from coordreg import ledger, records, running, verdicts
from coordreg.backbones.multires import MultiRes, SlidingHead
from coordreg.cascade import CascadeHead, CascadeMethod, Coarse, Refined
from coordreg.coords import Labels, apply_affine, from_pixels
from coordreg.data.flic import FLIC, FLIC11
from coordreg.data.hosted import Hosted
from coordreg.data.mpii import MPII
from coordreg.data.skeletons import MPII16, Skeleton
from coordreg.experiments import paper_cascade, planning, recipes
from coordreg.experiments.claims import Claim, Observation, Side
from coordreg.experiments.paper_cascade import Alone, Chosen, Guided, Scaled
from coordreg.heatmap import MSE, Argmax, Gaussian, Heatmap
from coordreg.messages import TORSO, tree
from coordreg.method import Estimator
from coordreg.mrf import SpatialModel
from coordreg.papers import ROWS
from coordreg.records import Record, Run
from coordreg.windows import FineNet

TABLES = ("cascade-tab3", "cascade-fig15", "cascade-tab4", "cascade-fig16")
FACE_AND_ARMS = ("nose", "l_shoulder", "l_elbow", "l_wrist", "r_shoulder", "r_elbow", "r_wrist")
AUGMENT = {
    "flip": 0.5, "rotation": 20.0, "scale": 0.5, "colour": 0.0, "size": None, "turned": 1.0, "half": 0.0, "labelled": 8,
    "upper": (), "slip": True,
}  # fmt: skip


def every() -> list[tuple[str, Run]]:
    """("flic" or "mpii", run), each once."""
    return [("flic", run) for run in of("cascade-tab3").values()] + [("mpii", of("cascade-tab4")["cascade 4x"])]


# -- what is printed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("data", "run"), every(), ids=lambda value: getattr(value, "label", value))
def test_the_cascade_trains_as_printed(data: str, run: Run) -> None:
    """Sections 3.3, 4.2, 5: sizes, augmentation, targets, lambda, three steps. Ours: optimiser, batch, epochs."""
    images, epochs, joints = (3987, (200, 50, 50), 7) if data == "flic" else (22246, (100, 20, 20), 14)
    each, training = images // 32, run.training
    assert (training.optimiser, training.lr, training.batch) == ("adam", 3e-4, 32)
    assert (training.weight_decay, training.clip, run.seed) == (0.0, None, 0)
    assert training.steps == sum(epochs) * each == {"flic": 37_200, "mpii": 97_300}[data]
    assert recipes.epochs_of(run) == sum(epochs)
    method = run.estimator["method"]
    if run.label.startswith("coarse"):
        ends = []
        assert (method.make, arguments(method)) == (
            Heatmap,
            {"target": Gaussian(sigma=1.5), "loss": MSE(), "decoder": Argmax()},
        )
        assert [(r.name, r.decoder, r.flip) for r in run.readings] == [("argmax", Argmax(), "none")]
    else:
        ends = [epochs[0] * each, (epochs[0] + epochs[1]) * each]
        assert method.make is CascadeMethod
        assert arguments(method) == {
            "coarse": Gaussian(sigma=1.5), "fine": Gaussian(sigma=1.5), "loss": MSE(), "weight": 0.1,
            "phases": (epochs[0] * each, epochs[1] * each),
        }  # fmt: skip
        assert [(r.name, r.decoder, r.flip) for r in run.readings] == [
            ("refined", Refined(Argmax()), "none"), ("coarse", Coarse(Argmax()), "none"),
        ]  # fmt: skip
    after = [training.schedule(step, training.steps) for step in (0, *ends)]  # the rate begins anew in each step
    before = [training.schedule(step - 1, training.steps) for step in (*ends, training.steps)]
    assert after == [pytest.approx(1 / 500)] * len(after)
    assert max(before) < 1e-6

    one, held = only(run.train), only(run.test)
    pairs = {7: ((1, 4), (2, 5), (3, 6)), 14: ((0, 5), (1, 4), (2, 3), (8, 13), (9, 12), (10, 11))}[joints]
    assert type(one.augment) is Scaled
    assert vars(one.augment) == {**AUGMENT, "pairs": pairs}
    if data == "flic":
        wanted = {"form": "mat", "centric": "observer", "size": (240, 320), "view": "cut", "limit": None}
        assert {name: getattr(one, name) for name in wanted} == wanted
        assert (one.split, held) == ("train", FLIC(split="test", size=(240, 320), view="cut", canvas=one.canvas))
        assert one.canvas * 320 == 360  # the whole of a halved still
        assert (run.train.joints, run.test.joints) == (FACE_AND_ARMS, FACE_AND_ARMS)
        assert (run.scoring.at, run.scoring.limit) == ((0.05, 0.1, 0.2), 0.2)
        averaged = [name for j, name in enumerate(FACE_AND_ARMS) if j not in run.scoring.exclude]
        assert averaged == ["l_elbow", "l_wrist", "r_elbow", "r_wrist"]
    else:
        assert isinstance(run.train, Hosted)
        assert (one.split, one.form, one.size, one.canvas) == ("train", "json", 256, 2.0)
        assert held == MPII(split="valid", size=256, canvas=2.0)
        fourteen = tuple(name for name in MPII16.joints if name not in ("pelvis", "thorax"))
        assert run.train.data.joints == run.test.joints == fourteen
        assert (run.scoring.at, run.scoring.limit, run.scoring.exclude) == ((0.5, 0.1), 0.5, ())
    assert run.scoring.window == 36


@pytest.mark.parametrize(("data", "run"), every(), ids=lambda value: getattr(value, "label", value))
def test_networks(data: str, run: Run) -> None:
    """7 stages of which 4 are "fully connected", 11 and 3 on MPII; 128 features; windows of 36, 18, 18 and 9 cells."""
    kind, by = run.label[:-1].split()
    stages, last, joints = (7, 4, 7) if data == "flic" else (11, 3, 14)
    made = run.estimator
    coarse = made["head"] if kind == "coarse" else made["head"]["coarse"]
    assert made.make is (Alone if kind == "coarse" else Guided)
    assert made["backbone"].make is MultiRes
    widths = (128,) * (stages - last)
    assert arguments(made["backbone"]) == {"widths": widths, "pooling": int(by), "levels": 3}
    assert coarse.make is SlidingHead
    assert (coarse["channels"], coarse["joints"], coarse["dropout"]) == (128, joints, "spatial")
    assert len(coarse["widths"]) + 1 == last
    network = planning.on_meta(made)
    counted = {"flic": {"coarse": 7_995_399, "cascade": 9_651_982}, "mpii": {"cascade": 15_734_812}}
    assert sum(p.numel() for p in network.parameters()) == counted[data][kind]
    if kind == "cascade":
        assert made["head"].make is CascadeHead
        (fine,) = made["head"]["fine"]
        assert fine.make is FineNet
        sizes = {"joints": joints, "channels": (128, 128), "window": 36, "levels": 2, "widths": (64, 128)}
        assert arguments(fine) == sizes
        built = network.head.fine[0]
        assert [built.window // stride for stride in built.strides] == [36, 18, 18, 9]
        assert built.last.weight.shape[0] == joints  # no weight sharing in the last convolution
    spatial, side = made["spatial"], {"flic": (240, 320), "mpii": (256, 256)}[data]
    assert spatial.make is SpatialModel
    assert spatial["size"] == tuple(n // int(by) for n in side)
    assert (len(spatial["parents"]), spatial["learnt"]) == (joints, False)


def test_the_figures_share_their_tables_runs() -> None:
    keys = {table: {label: run.key for label, run in of(table).items()} for table in TABLES}
    assert set(keys["cascade-tab3"]) == {f"{kind} {by}x" for kind in ("coarse", "cascade") for by in (4, 8, 16)}
    assert keys["cascade-fig15"] == keys["cascade-tab3"]
    assert keys["cascade-fig16"] == keys["cascade-tab4"]
    assert len({key for found in keys.values() for key in found.values()}) == 7


def reduced(skeleton: Skeleton, kept: tuple[str, ...]) -> list[str]:
    """The tree of the whole skeleton, as names, where a joint that is left out passes its children on to its parent."""
    parents = tree(skeleton)
    found = []
    for name in kept:
        up = parents[skeleton.joints.index(name)]
        while up != TORSO and skeleton.joints[up] not in kept:
            up = parents[up]
        found.append("torso" if up == TORSO else skeleton.joints[up])
    return found


@pytest.mark.parametrize(
    ("skeleton", "kept", "given"),
    [
        (FLIC11, paper_cascade.FLIC7, paper_cascade.FLIC_TREE),
        (MPII16, paper_cascade.MPII14, paper_cascade.MPII_TREE),
    ],
)
def test_trees_are_those_of_the_skeletons(skeleton: Skeleton, kept: tuple[str, ...], given: tuple[int, ...]) -> None:
    named = ["torso" if parent == TORSO else kept[parent] for parent in given]
    assert named == reduced(skeleton, kept)
    assert named[kept.index("l_wrist")] == "l_elbow"
    assert named[kept.index("r_shoulder")] == "torso"


# -- data --------------------------------------------------------------------------------------------------------------


def test_the_picture_is_scaled_evenly_from_a_half_to_one_and_a_half() -> None:
    augment = paper_cascade.augmented(())
    drawn = augment.draw(4000, torch.Generator().manual_seed(0))
    scale = 1 / drawn.zoom
    for value, low, high in ((scale, 0.5, 1.5), (drawn.degrees, -20.0, 20.0)):
        assert low <= float(value.min())
        assert float(value.max()) <= high
        shares = torch.histc(value, 4, low, high) / len(value)
        assert shares.tolist() == pytest.approx([0.25] * 4, abs=0.03)
    assert float(drawn.flips.float().mean()) == pytest.approx(0.5, abs=0.03)
    assert not bool(drawn.halved.any())
    apart = torch.stack([scale, drawn.degrees, drawn.flips.float()])
    assert float((torch.corrcoef(apart) - torch.eye(3)).abs().max()) < 0.05


def test_dots_move_away_from_the_middle_as_the_picture_grows() -> None:
    """Pixels and labels alike: a dot 6 and 4 px from the middle lies s times as far from it."""
    b, height, width = 5, 40, 56
    y, x = np.mgrid[:height, :width]
    at = torch.tensor([[33.5, 23.5]])
    dot = np.exp(-((x - 33.5) ** 2 + (y - 23.5) ** 2) / (2 * 2.0**2))
    images = torch.from_numpy(dot).float().expand(b, 3, height, width).contiguous()
    labels = Labels(from_pixels(at, (height, width)).expand(b, 1, 2), torch.ones(b, 1, 2))
    augment = Scaled(flip=0.0, scale=0.5)
    seen = torch.ones(b, 1, dtype=torch.bool)
    out, (coords, weight), _ = augment(images, labels, seen, torch.Generator().manual_seed(3))
    scale = 1 / augment.draw(b, torch.Generator().manual_seed(3)).zoom
    assert float(scale.std()) > 0.1
    assert bool((weight == 1).all())
    for i, s in enumerate(scale.tolist()):
        mass = out[i, 0].double().numpy()
        found = [float((mass * axis).sum() / mass.sum()) for axis in (x, y)]
        wanted = [27.5 + 6 * s, 19.5 + 4 * s]
        assert found == pytest.approx(wanted, abs=0.05)
        assert coords[i, 0].tolist() == pytest.approx([6 * s / 28, 4 * s / 20], abs=1e-5)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty stores, and both data sets in miniature."""
    for name in ("results", "runs", "data"):
        monkeypatch.setenv(f"COORDREG_{name.upper()}", str(tmp_path / name))
    monkeypatch.setenv("COORDREG_DEVICE", "cpu")
    flic_fixture.write(tmp_path / "data" / "flic", 7, held=5)
    return tmp_path


def test_chosen_joints_keep_their_places_names_and_sides(store: Path) -> None:
    whole = FLIC(split="test", view="cut").open()
    part = paper_cascade.flic("test").open()
    assert part.joints == FACE_AND_ARMS
    for j, name in enumerate(FACE_AND_ARMS):
        old = FLIC11.joints.index(name)
        for field in ("coords", "weight", "visible"):
            assert torch.equal(getattr(part, field)[:, j].nan_to_num(9), getattr(whole, field)[:, old].nan_to_num(9)), (
                field
            )
    assert {(part.joints[a], part.joints[b]) for a, b in part.pairs} == {
        (f"l_{n}", f"r_{n}") for n in ("shoulder", "elbow", "wrist")
    }
    assert whole.hint is not None
    assert part.hint is not None
    assert torch.equal(part.hint, whole.hint)
    train = paper_cascade.flic("train").open()
    assert tuple(train.images.shape[-2:]) == (360, 360)
    batch = train.batch(torch.arange(4), torch.Generator().manual_seed(0))
    assert tuple(batch.images.shape) == (4, 3, 240, 320)
    assert batch.labels.coords.shape == (4, 7, 2)
    with pytest.raises(ValueError, match=r"Chosen: got the joint 'l_ankle', expected some of l_shoulder, l_elbow"):
        Chosen(FLIC(split="test"), ("nose", "l_ankle")).open()


def test_stamps_have_the_labels_of_the_test_crops(store: Path) -> None:
    """The field's displacements are those of what the network sees, in shares of it."""
    stamps, seen = paper_cascade.STAMPS["flic"].open(), Chosen(FLIC(view="cut"), FACE_AND_ARMS).open()
    assert torch.allclose(stamps.coords, seen.coords, atol=1e-5, equal_nan=True)
    assert stamps.hint is not None
    assert seen.hint is not None
    assert torch.allclose(stamps.hint, seen.hint, atol=1e-5)
    assert paper_cascade.STAMPS["flic"].data.augment is paper_cascade.STAMPS["mpii"].data.augment is None


def test_the_torso_of_mpii_is_the_annotated_middle(store: Path) -> None:
    truths = mpii_fixture.write(store / "data" / "mpii", 5, held=2)
    for truth, part in zip(truths, (paper_cascade.STAMPS["mpii"], paper_cascade.mpii("valid")), strict=True):
        opened = part.open()
        assert opened.hint is not None
        found = apply_affine(opened.affine, opened.hint.unsqueeze(1))[:, 0]
        assert np.allclose(found.numpy(), truth.centre - 1, atol=1e-3)
        assert opened.joints == paper_cascade.MPII14


# -- networks ----------------------------------------------------------------------------------------------------------


class Two(torch.nn.Module):
    """In the place of the coarse head: for each joint a peak at `left` and a slightly higher one at `right`."""

    def __init__(self, left: torch.Tensor, right: torch.Tensor, size: tuple[int, int]) -> None:
        super().__init__()
        maps = torch.zeros(len(left), *size)
        for j, ((a, b), (c, d)) in enumerate(zip(left.tolist(), right.tolist(), strict=True)):
            maps[j, b, a], maps[j, d, c] = 0.9, 1.0
        self.maps = maps

    def forward(self, banks: Any) -> torch.Tensor:
        return self.maps.expand(len(banks.top), *self.maps.shape)


def test_the_hint_picks_the_person_and_windows_lie_about_the_pick() -> None:
    """Two people; whoever's torso is given is refined, though the other's maxima are higher."""
    run = tiny(of("cascade-tab3")["cascade 4x"])
    torch.manual_seed(0)
    change = {"priors": None, "learnt": False}
    made = recipes.change(run.estimator, lambda s: s.replace(**change) if s.make is SpatialModel else s).build()
    body = torch.tensor([[0, -5], [1, -3], [2, -1], [2, 1], [-1, -3], [-2, -1], [-2, 1]])  # cells about the torso
    left, right = body + torch.tensor([4, 8]), body + torch.tensor([14, 8])
    coords = from_pixels(left.float(), (16, 20)).expand(3, 7, 2)
    torso = from_pixels(torch.tensor([[4.0, 8.0]]), (16, 20)).expand(3, 2)
    made.spatial.measure(Labels(coords, torch.ones(3, 7, 2)), torso)
    made.head.coarse = Two(left, right, (16, 20))
    made.train()
    images = torch.rand(2, 3, 64, 80)
    hint = from_pixels(torch.tensor([[4.0, 8.0], [14.0, 8.0]]), (16, 20))
    points = made.predict(images, hint)
    assert made.training
    assert made.head.coarse.training
    cells = torch.tensor([80.0, 64.0]) / 2
    for b, peaks in enumerate((left, right)):
        middle = from_pixels(peaks.float(), (16, 20))
        assert float(((points.coords[b] - middle) * cells).abs().max()) <= 8.5  # half a window, and rounding
    made.method.decoder = Coarse(Argmax())
    found = made.predict(images, hint)
    for b, peaks in enumerate((left, right)):
        assert torch.allclose(found.coords[b], from_pixels(peaks.float(), (16, 20)))
    posterior = made.spatial(made.head.coarse.maps.expand(2, -1, -1, -1), hint)
    assert torch.allclose(found.score, posterior.flatten(-2).amax(-1))
    made.eval()
    banks = made.backbone((images - made.mean) / made.std)
    made.method.decoder = Refined(Argmax())
    window = made.head.refine(banks, posterior)[-1]
    assert torch.allclose(points.coords, window.middle + window.half * Argmax()(window.maps).coords)
    with pytest.raises(ValueError, match="got no hint"):
        made.predict(images)
    with pytest.raises(ValueError, match="Guided: got flip, expected None"):
        made.predict(images, hint, flip=((1, 4),))


def test_the_field_is_not_learnt(store: Path) -> None:
    run = tiny(of("cascade-tab3")["coarse 16x"])
    made, batch = run.estimator.build(), run.train.open().batch(torch.arange(3), torch.Generator().manual_seed(0))
    made.eval()
    parts = made.loss(batch)
    assert set(parts) == set(Estimator.loss(made, batch)) == {"heatmap", "loss"}
    assert not any(name.startswith("spatial") for name, _ in made.named_parameters())
    assert not any(
        n.startswith("spatial") for n, _ in tiny(of("cascade-tab4")["cascade 4x"]).estimator.build().named_parameters()
    )
    assert not bool(made.spatial.measured)
    plain = made.predict(batch.images, batch.hint.clamp(-1, 1))  # measures the training labels
    assert bool(made.spatial.measured)
    assert bool(plain.coords.isfinite().all())


# -- printed figures ---------------------------------------------------------------------------------------------------


def test_printed_figures_are_those_of_the_rows() -> None:
    rows = {row.id: {float(n) for n in re.findall(r"\d+\.\d+", row.figures)} for row in ROWS}
    assert (paper_cascade.FACE, paper_cascade.RIVAL) == (91.6, 90.7)
    assert {91.6, 90.7} <= rows["cascade-tab3"]
    scaled = {"Head": 96.1, "Sho.": 91.9, "Elb.": 83.9, "Wri.": 77.8, "Hip": 80.9, "Kne.": 72.3, "Ank.": 64.8}
    assert scaled == paper_cascade.SCALED
    assert paper_cascade.TOTAL == 82.0
    assert {*scaled.values(), 82.0} <= rows["cascade-tab4"]


def test_claims_by_hand() -> None:
    claims = paper_cascade.claims("paper")
    assert {claim.row for claim in claims} == set(TABLES) == set(paper_cascade.RECIPES) == set(paper_cascade.SCOPE)
    ranges = {c.text: (c.low, c.high) for c in claims if isinstance(c, Observation)}
    assert ranges["16x, face: 91.6 at 0.05"] == (90.1, 93.1)
    assert ranges["16x, face: at least the 90.7 of Tompson et al. 2014"] == (90.7, 100)
    assert ranges["Wri. 77.8 (test set)"] == (76.3, 79.3)
    assert ranges["mean 82.0 at 0.5 (test set)"] == (80.5, 83.5)
    assert len(ranges) == 10
    orders = {(c.better, c.worse, c.metric) for c in claims if not isinstance(c, Observation)}
    name = "paper-cascade-fig15"
    assert orders == {
        (Side(name, f"cascade {by}x", "refined"), Side(name, f"coarse {by}x", "argmax"), "0.05") for by in (4, 8, 16)
    }
    for claim in claims:
        for side in claim.sides:
            runs = of(side.experiment.removeprefix("paper-"))
            assert side.reading in {reading.name for reading in runs[side.label].readings}
    with pytest.raises(ValueError, match="a recipe has the profile paper alone"):
        paper_cascade.claims("cpu")


def test_what_claims_read_from_a_record() -> None:
    joints = {"0.05": {"nose": 91.0, "l_wrist": 60.0}, "0.5": {"l_wrist": 77.0, "r_wrist": 78.0, "head_top": 95.0}}
    record = Record({"key": "k", "readings": {"refined": {"joints": joints, "at": {"0.5": 82.5}}}}, Path("k.json"))
    measured = {c.text: c.measure(record) for c in paper_cascade.claims("paper") if isinstance(c, Observation)
                if any(name in c.text for name in ("face", "Wri.", "Head", "mean"))}  # fmt: skip
    assert list(measured.values()) == [91.0, 91.0, 95.0, 77.5, 82.5]


def test_their_own_predictions_for_the_validation_people_are_near_what_is_printed() -> None:
    """What the docstring says of table 4 on the validation split."""
    stored = json.loads((Path(__file__).parent.parent / "results" / "mpii-cascade.json").read_text())["pckh"]["0.5"]
    away = {name: abs(stored[name] - value) for name, value in paper_cascade.SCALED.items()}
    assert round(max(away.values()), 1) == 1.1
    assert round(stored["Mean"], 1) == 82.3


# -- the command line --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "texts"),
    [
        (
            ["paper-cascade-tab3", "--data", "flic", "--only", "cascade 16x"],
            ["9,651,982 parameters, 16.37 G multiply-adds at 240 x 320 px",
             "37,200 steps: 300 epochs of 3,987 images (published), batch 32",
             "adam, rate 0.0003, cosine after 500 steps of warm-up, afresh at epoch 200 (step 24,800) and epoch 250",
             "24,800 steps of the coarse network, 6,200 of the fine, 6,200 of both",
             "flip 0.5, rotation 20, scale 0.5, colour 0, turned 1, half 0",
             "tested on flic test (1,016 published), read by refined, coarse", "there    {root}/flic/examples.mat",
             "MISSING  {root}/flic/images"],
        ),
        (
            ["paper-cascade-fig16", "--data", "mpii", "--epochs", "7"],
            ["15,734,812 parameters", "4,865 steps: 7 epochs of 22,246 images (published), batch 32",
             "3,475 steps of the coarse network, 695 of the fine, 695 of both",
             "MISSING  {root}/mpii/annot/train.json"],
        ),
    ],
)  # fmt: skip
def test_dry_runs(call: list[str], texts: list[str], tmp_path: Path) -> None:
    (tmp_path / "flic").mkdir()
    (tmp_path / "flic" / "examples.mat").touch()
    done = coordreg(*call, "--profile", "paper", "--root", str(tmp_path), "--dry-run")
    assert done.exit_code == 0, done.output
    for text in texts:
        assert text.format(root=tmp_path) in done.output


# -- in small ----------------------------------------------------------------------------------------------------------


def execute(run: Run, epochs: int) -> Record:
    """The record of a small run on what is there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a part of the data, and pictures that are not there
        (small,) = recipes.here([tiny(run)], epochs)
        return running.execute(small, "paper", progress=False)


def test_a_cascade_on_flic_goes_through_its_three_steps_and_is_no_evidence(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "exacts", lambda: {})
    run = of("cascade-tab3")["cascade 16x"]
    record = execute(run, 6)
    assert (record["config"]["train"]["data"]["limit"], record["config"]["test"]["data"]["limit"]) == (7, 5)
    assert record["images_seen"] == 6 * 7
    assert all(np.isfinite(record["loss"]))
    assert record.run is not None
    method = record.run.estimator["method"]
    assert method["phases"] == (4, 1)  # and one of both
    assert int(torch.load(records.checkpoint_of(record.run, "paper"))["model"]["method.seen"]) == 6
    for reading in ("refined", "coarse"):
        found = record.reading(reading)
        assert set(found["at"]) == {"0.05", "0.1", "0.2"}
        assert set(found["joints"]["0.05"]) == set(FACE_AND_ARMS)
        assert len(found["curve"]) == 51
        assert 0 <= found["lost"] <= 1
        assert len(record.images(reading)["0.05"]) == 5
    assert 0 <= paper_cascade.face(record) <= 100
    assert record["data"]["fixture"] is True
    assert recipes.doubt(record) == "made from a fixture"
    name = "paper-cascade-tab3"
    monkeypatch.setattr("coordreg.experiments.names", lambda: {name: lambda profile: [record.run]})
    side = Side(name, "cascade 16x", "refined")
    claim = Claim("cascade-tab3", "x", side, side, "0.05")
    monkeypatch.setattr(
        verdicts, "modules", lambda: [type("M", (), {"claims": lambda profile: [claim], "RECIPES": {claim.row: name}})]
    )
    (entry,) = ledger.rows(only="cascade-tab3")
    assert (entry.status, entry.records) == ("not run", ())
    assert f"refused: paper/{record.run.key}: made from a fixture, which is no evidence" in entry.note


def test_a_recipe_on_real_people_of_mpii(store: Path) -> None:
    link_mpii(store / "data" / "mpii")
    record = execute(of("cascade-tab4")["cascade 4x"], 6)
    assert all(np.isfinite(record["loss"]))
    assert record["data"]["test_images"] == 4
    assert "fixture" not in record["data"]
    declared = replace(record, run=of("cascade-tab4")["cascade 4x"])
    assert "tested on 4 images of mpii valid" in recipes.doubt(declared)
    assert set(record.reading("refined")["at"]) == {"0.5", "0.1"}


def test_a_shorter_copy_shortens_every_step() -> None:
    run = of("cascade-tab4")["cascade 4x"]
    part = recipes.adapt(run, images=3200)
    assert part.training.steps == 140 * 100
    assert part.estimator["method"]["phases"] == (100 * 100, 20 * 100)
    assert replace(part, training=run.training, estimator=run.estimator) == run
    assert recipes.adapt(run, images=22_246) is run
