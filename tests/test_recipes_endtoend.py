"""The recipe of Poseur's table 3: every printed number against a literal, three detectors in parts; in small, too."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import test_recipes
import torch
from interrupting import execute, interrupted
from real_data import real
from test_recipes import coordreg, of, tiny
from test_recipes_dark import sound
from torch import nn
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNPredictor

from coordreg import experiments, ledger, train, verdicts
from coordreg.attention import DeformableAttention, SlowLinear
from coordreg.backbones.detector import Detector
from coordreg.backbones.resnet import parameters
from coordreg.coords import Batch, Labels, from_pixels
from coordreg.data.coco import COCO
from coordreg.data.scenes import ScaleJitter, Scenes
from coordreg.endtoend import HeatmapHeads, PoseurHeads, RLEHeads
from coordreg.experiments import paper_endtoend, planning, recipes
from coordreg.experiments.claims import Observation
from coordreg.flow import RealNVP
from coordreg.metrics.scoring_scenes import ScoringScenes
from coordreg.papers import ROWS
from coordreg.queries import Uniform
from coordreg.records import Record, Run
from coordreg.rle import DistributionHead, Within

HEADS = {"heatmap": HeatmapHeads, "RLE": RLEHeads, "Poseur": PoseurHeads}
LABELS = [f"{head} ResNet-101" for head in HEADS]
#: All that learns, flows included; the stem, the first stage and the normalisation do not.
PARAMETERS = {"heatmap": 77_854_762, "RLE": 77_804_149, "Poseur": 82_376_991}


def table() -> dict[str, Run]:
    return of("poseur-tab3")


def built(head: str) -> Any:
    return planning.on_meta(table()[f"{head} ResNet-101"].estimator)


# -- what is printed ---------------------------------------------------------------------------------------------------


def test_the_three_heads_of_one_detector_are_the_runs() -> None:
    found = table()
    assert list(found) == LABELS
    shared = {str((r.train, r.test, r.training, r.scoring, r.readings, r.seed)) for r in found.values()}
    assert len(shared) == 1
    assert len({repr(r.estimator["backbone"]) for r in found.values()}) == 1
    assert {label: r.estimator["heads"].make for label, r in found.items()} == dict(
        zip(LABELS, HEADS.values(), strict=True)
    )


@pytest.mark.parametrize("label", LABELS)
def test_training_as_printed(label: str) -> None:
    """180,000 iterations of 32; AdamW with 0.9, 0.999 and 1e-4; the rate of section 4.1 for 32 of 256 images."""
    training = table()[label].training
    assert (training.steps, training.batch, training.clip) == (180_000, 32, None)
    made = train.OPTIMISERS[training.optimiser]([torch.zeros(1)])  # type: ignore[call-arg]
    assert isinstance(made, torch.optim.AdamW)
    assert made.defaults["betas"] == (0.9, 0.999)
    assert training.weight_decay == 1e-4
    assert training.lr == pytest.approx(1e-3 * 32 / 256)
    at = (0, 499, 999, 119_999, 120_000, 159_999, 160_000, 179_999)  # twice Detectron2's 60,000, 80,000 and 90,000
    factors = [training.schedule(step, training.steps) for step in at]
    assert factors == pytest.approx([1 / 1000, 1 / 2, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_pictures_as_printed() -> None:
    """Scale jittering with random crops, Ghiasi et al.'s; all of val2017, at 800 px and 1,333 at most."""
    run = table()["Poseur ResNet-101"]
    jitter = {"size": 1024, "smallest": 0.1, "largest": 2.0, "flip": 0.5}
    assert vars(run.train.augment) == jitter
    assert run.train == Scenes(COCO(split="train2017"), 640, 20, ScaleJitter(**jitter))  # type: ignore[arg-type]
    assert run.test == Scenes(COCO(split="val2017"), 640, 20)
    assert run.scoring == ScoringScenes()
    assert (run.scoring.root, run.scoring.split) == ("coco", "val2017")
    assert [(r.name, r.decoder, r.flip) for r in run.readings] == [("method", None, "none")]
    assert (run.estimator["sides"], run.estimator["places"]) == ((800, 1333), 20)


@pytest.mark.parametrize("head", HEADS)
def test_the_detector_is_detectrons(head: str) -> None:
    """Numbers of its Keypoint R-CNN with a pyramid, read from what is built."""
    made = built(head)
    assert made.places == 20
    detector, heads = made.detector, made.detector.roi_heads
    trunk = table()[f"{head} ResNet-101"].estimator["backbone"]["trunk"]
    assert dict(trunk.kwargs) == {"depth": 101, "width": 64, "weights": "ResNet101_Weights.IMAGENET1K_V1"}
    assert (detector.backbone.out_channels, detector.backbone.frozen) == (256, True)
    anchors = detector.rpn.anchor_generator
    assert anchors.sizes == ((32,), (64,), (128,), (256,), (512,))
    assert anchors.aspect_ratios == ((0.5, 1.0, 2.0),) * 5
    assert (detector.rpn._pre_nms_top_n, detector.rpn._post_nms_top_n) == (
        {"training": 2000, "testing": 1000}, {"training": 1500, "testing": 1000},
    )  # fmt: skip
    assert (detector.rpn.nms_thresh, detector.rpn.fg_bg_sampler.batch_size_per_image) == (0.7, 256)
    assert detector.rpn.fg_bg_sampler.positive_fraction == 0.5
    sampler = heads.fg_bg_sampler
    assert (sampler.batch_size_per_image, sampler.positive_fraction) == (512, 0.25)
    assert (heads.score_thresh, heads.nms_thresh, heads.detections_per_img) == (0.05, 0.5, 100)
    assert heads.box_head.fc7.out_features == 1024
    assert (heads.box_roi_pool.output_size, heads.keypoint_roi_pool.output_size) == ((7, 7), (14, 14))
    assert heads.box_roi_pool.canonical_scale == 224
    convs = [m for m in heads.keypoint_head.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels) for m in convs] == [(256, 512)] + [(512, 512)] * 7  # "stacked 8"
    assert (detector.transform.min_size, detector.transform.max_size) == ((800,), 1333)
    assert heads.joints == 17
    assert parameters(made) == PARAMETERS[head]


def test_the_heads_as_printed() -> None:
    """A transposed convolution and upscaling to 56 x 56; an average and a linear layer; queries and a decoder."""
    maps, rle, poseur = (built(head).detector.roi_heads for head in HEADS)
    assert isinstance(maps.keypoint_predictor, KeypointRCNNPredictor)
    assert maps.keypoint_predictor(torch.empty(3, 512, 14, 14, device="meta")).shape == (3, 17, 56, 56)
    for heads in (rle, poseur):
        guess = heads.keypoint_predictor if heads is rle else heads.keypoint_predictor.guess
        assert isinstance(guess, DistributionHead)
        assert {m.in_features for m in guess.modules() if isinstance(m, nn.Linear)} == {512}
    assert isinstance(rle.method.flow, RealNVP)
    method, head = poseur.method, poseur.keypoint_predictor
    assert (method.weight, method.decoder) == (1.0, Within(a=0.2, factor=1.0))
    assert all(isinstance(part.flow, RealNVP) for part in (method.guess, method.fine))
    assert head.noise == Uniform(copies=1)
    assert poseur.people == 600 // (2 * 17) == 17  # "600 queries per image"
    assert (maps.people, rle.people) == (None, None)
    assert (len(head.neck), len(head.decoder)) == (4, 3)
    assert {neck[0].in_channels for neck in head.neck} == {256}  # of the backbone's pyramid, not of a box
    for layer in head.decoder:
        assert isinstance(layer.cross, DeformableAttention)
        assert (layer.cross.width, layer.cross.heads, layer.cross.points, layer.cross.levels) == (256, 8, 4, 4)
        assert layer.cross.efficient is True
        assert layer.cross.offsets.rate == 0.1
        assert {part.rate for part in layer.move if isinstance(part, SlowLinear)} == {0.1}
        assert layer.made.update == "add"


def test_printed_figures_are_those_of_the_row() -> None:
    (row,) = [row for row in ROWS if row.id == "poseur-tab3"]
    assert paper_endtoend.PRINTED == {"heatmap": 66.0, "RLE": 66.7, "Poseur": 68.6}
    assert set(paper_endtoend.PRINTED.values()) <= {float(n) for n in re.findall(r"\d+\.\d", row.figures)}
    assert paper_endtoend.RECIPES == {"poseur-tab3": "paper-poseur-tab3"}
    claims = paper_endtoend.claims("paper")
    ranges = {c.better.label: (c.low, c.high, c.metric) for c in claims if isinstance(c, Observation)}
    assert ranges == dict(zip(LABELS, [(64.5, 67.5, "AP"), (65.2, 68.2, "AP"), (67.1, 70.1, "AP")], strict=True))
    orders = [(c.better.label, c.worse.label, c.metric) for c in claims if not isinstance(c, Observation)]
    heat, rle, poseur = LABELS
    assert orders == [(poseur, heat, "oks"), (poseur, rle, "oks"), (rle, heat, "oks")]
    record = Record({"key": "k", "readings": {"method": {"at": {"AP": 66.6, "oks": 70.0}}}}, Path("k.json"))
    assert [c.measure(record) for c in claims if isinstance(c, Observation)] == [66.6] * 3
    with pytest.raises(ValueError, match="a recipe has the profile paper alone"):
        paper_endtoend.claims("cpu")


def test_the_ledger_says_how_to_run_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COORDREG_RESULTS", str(tmp_path))
    monkeypatch.setattr(verdicts, "exacts", lambda: {})
    (entry,) = ledger.rows(only="poseur-tab3")
    assert entry.status == "not run"
    assert "endtoend-tab3 --profile cpu" in entry.missing
    assert entry.missing.endswith("; python -m coordreg run paper-poseur-tab3 --profile paper --data coco --root DIR")


# -- counted in pictures -----------------------------------------------------------------------------------------------


def test_an_epoch_is_of_pictures() -> None:
    run = table()["RLE ResNet-101"]
    assert recipes.published(run.train) == 56_599
    assert recipes.split(run.test) == (5_000, "all of them, with people or without", False)
    assert [recipes.named(one) for one in recipes.on_disk((run.train, [run.test]))] == ["coco", "coco"]
    assert recipes.epochs_of(run) == 101
    assert recipes.adapt(run) is run  # 180,000 steps are 101.8 epochs and stay 180,000
    assert recipes.adapt(run, images=56_000) is run
    assert recipes.adapt(run, epochs=101) is run
    assert recipes.adapt(run, epochs=2).training.steps == 2 * 1768
    assert recipes.adapt(run, images=1000).training.steps == 101 * 31


def test_a_part_of_the_pictures_is_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    run, lengths = table()["RLE ResNet-101"], {"train2017": 56_599, "val2017": 5_000}
    monkeypatch.setattr(Scenes, "open", lambda one: range(one.limit or lengths[one.split]))
    assert recipes.here([run]) == [run]
    lengths["val2017"] = 2_346  # pictures with people alone
    with pytest.warns(UserWarning, match=r"2,346 images here of coco val2017 \(5,000 published\); trains 180,000 st"):
        (made,) = recipes.here([run])
    assert (made.test.limit, made.train, made.training) == (2_346, run.train, run.training)
    assert made.key != run.key
    record = Record({"data": {"test_images": 2_346}}, Path("k.json"), run)
    assert recipes.doubt(record) == "tested on 2,346 images of coco val2017 (5,000 published)"
    assert recipes.doubt(replace(record, data={"data": {"test_images": 4_990}})) == ""


# -- pictures of their own size ----------------------------------------------------------------------------------------


def batch(labels: Labels) -> Batch:
    n = len(labels.coords)
    images = torch.rand(n, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return Batch(images, labels, labels.weight[..., 0] > 0, torch.ones(n), torch.zeros(n, 2, 3))


def small(head: str = "heatmap") -> Any:
    torch.manual_seed(0)
    return tiny(table()[f"{head} ResNet-101"]).estimator.build()


def test_pictures_are_cut_out_of_their_canvases(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the detector gets is each picture alone; what it tells is in pixels of it, and comes back on the canvas."""
    made, seen = small(), list[tuple[int, ...]]()
    points = torch.rand(2, 17, 2) * torch.tensor([30.0, 20.0])
    boxes = torch.tensor([[1.0, 2.0, 11.0, 15.0], [3.0, 4.0, 30.0, 20.0]])

    def detect(self: Any, images: list[torch.Tensor], targets: Any = None) -> list[dict[str, torch.Tensor]]:
        seen.extend(tuple(image.shape) for image in images)
        assert all((image == 1).all() for image in images)
        keypoints = torch.cat([points, torch.ones(2, 17, 1)], -1)
        scores = torch.tensor([0.3, 0.8])
        found = {"boxes": boxes, "keypoints": keypoints, "person_scores": scores}
        return [{**found, "keypoints_scores": torch.full((2, 17), 0.5)}]

    monkeypatch.setattr(Detector, "forward", detect)
    sizes = torch.tensor([[30.0, 20.0], [40.0, 24.0]])
    images = torch.zeros(2, 3, 40, 48)
    for i, (width, height) in enumerate(sizes.int().tolist()):
        images[i, :, :height, :width] = 1
    told = made.predict(images, from_pixels(sizes - 0.5, (40, 48)))
    assert seen == [(3, 20, 30), (3, 24, 40)]
    coords, score = told.coords.unflatten(1, (20, 19)), told.score.unflatten(1, (20, 19))
    for i in range(2):
        for place, person in ((0, 1), (1, 0)):  # surest first
            pixels = torch.cat([points[person], boxes[person].view(2, 2)])
            torch.testing.assert_close((coords[i, place] + 1) * torch.tensor([24.0, 20.0]), pixels)
    assert coords[:, 2:].eq(0).all()
    assert score[:, :, -1].sum(1).tolist() == pytest.approx([1.1, 1.1])
    with pytest.raises(ValueError, match="got pictures without a hint"):
        made.predict(images)
    with pytest.raises(ValueError, match="no flip test"):
        made.predict(images, from_pixels(sizes - 0.5, (40, 48)), ((0, 1),))


def test_pictures_are_resized_for_testing_alone() -> None:
    made = built("heatmap").detector.transform
    image = torch.rand(3, 480, 640)
    made.train()
    assert made([image])[0].image_sizes == [(480, 640)]
    made.eval()
    assert made([image])[0].image_sizes == [(800, 1066)]
    assert made([torch.rand(3, 200, 640)])[0].image_sizes == [(416, 1333)]


@pytest.mark.parametrize("head", HEADS)
def test_jittered_pictures_without_anybody_train_as_well(head: str) -> None:
    made = small(head)
    labels = Labels(torch.zeros(2, 20 * 19, 2), torch.zeros(2, 20 * 19, 2))
    box = torch.tensor([[-0.5, -0.8], [0.5, 0.7]])
    labels.coords[1, :19] = torch.cat([torch.rand(17, 2) - 0.5, box])
    labels.weight[1, 17:19] = 1  # a box of whom no joint is labelled
    loss = made.train().loss(batch(labels))
    loss["loss"].backward()
    assert loss["loss"].isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in made.parameters())


# -- the command line --------------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_it_takes(tmp_path: Path) -> None:
    call = ["paper-poseur-tab3", "--profile", "paper", "--data", "coco", "--root", str(tmp_path), "--dry-run"]
    done = coordreg(*call)
    assert done.exit_code == 0, done.output
    for text in (
        *(f"{n:,} parameters, 222.38 G multiply-adds of trunk and pyramid at 1024 x 1024 px"
          for n in PARAMETERS.values()),
        "180,000 steps: 101.8 epochs of 56,599 images (published), batch 32",
        "adamw, weight decay 0.0001, rate 0.000125, x 0.1 at epoch 67.87 (step 120,000) and epoch 90.5 (step 160,000), "
        "after 1000 steps of warm-up",
        "smallest 0.1, largest 2, flip 0.5",
        "coco train2017 (56,599 published); tested on coco val2017 (5,000 published), read by method",
        f"MISSING  {tmp_path}/coco/annotations/person_keypoints_train2017.json",
        f"MISSING  {tmp_path}/coco/val2017",
        "resnet101-63fe2227.pth",
    ):  # fmt: skip
        assert text in done.output, text


# -- in small ----------------------------------------------------------------------------------------------------------

drawn, store = test_recipes.drawn, test_recipes.store


def test_an_interrupted_run_ends_as_if_nothing_had_happened(
    store: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jitter, proposals, people and noisy reference points are drawn as they would have been after the kill."""
    run = table()["Poseur ResNet-101"]
    resumed = interrupted(run, 4, store, drawn, monkeypatch)
    sound(resumed, run)
    assert {"AP", "AP_M", "oks"} <= set(resumed.reading("method")["at"])
    assert (resumed["images_seen"], resumed["data"]["test_images"]) == (4 * 4, 4)


def test_the_command_trains_on_a_fixture(store: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tiny(table()["RLE ResNet-101"])
    monkeypatch.setattr(experiments, "names", lambda: {"paper-x": lambda profile: [run]})
    with pytest.warns(UserWarning, match="4 images here of coco train2017"):
        done = coordreg("paper-x", "--profile", "paper", "--data", "coco", "--root", str(drawn), "--epochs", "1")
    assert done.exit_code == 0, done.output
    assert "oks: " in done.output
    assert "FIXTURE, no evidence" in done.output
    (path,) = (store / "results" / "paper").glob("*.json")
    config = json.loads(path.read_text())["config"]
    assert (config["train"]["limit"], config["test"]["limit"]) == (4, 4)


def test_a_recipe_on_real_pictures_of_coco(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = store / "data"
    place.mkdir()
    (place / "coco").symlink_to(real("coco-mini"))
    monkeypatch.setenv("COORDREG_DATA", str(place))
    run = table()["Poseur ResNet-101"]
    record = execute(run, 1)
    sound(record, run)
    assert (record["data"]["test_images"], record["images_seen"]) == (64, 22)  # pictures with labelled people
    assert "fixture" not in record["data"]
    assert "tested on 64 images of coco val2017 (5,000 published)" in recipes.doubt(replace(record, run=run))
