"""What a record of Poseur keeps for pages: the same as the trained network says when it is asked again."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from coordreg import experiments
from coordreg.data.store import Store
from coordreg.experiments.ensemble import trained
from coordreg.experiments.poseur import LEVELS
from coordreg.experiments.poseur_networks import SIZES, keep, poseur
from coordreg.poseur import Poseur, traced
from coordreg.records import Record, checkpoint_of, find
from coordreg.running import execute

LAYERS, JOINTS, HEADS, POINTS = 3, 16, 4, 4
ALL = [name for name in experiments.names() if name.startswith("poseur-")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Record, Poseur, Store]]:
    """One smoke run of Poseur, its record, its weights and its test figures."""
    folder = tmp_path_factory.mktemp("records")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COORDREG_RESULTS", str(folder / "results"))
        patch.setenv("COORDREG_RUNS", str(folder / "runs"))
        patch.setenv("COORDREG_DEVICE", "cpu")
        run = experiments.runs("poseur-levels", "smoke")[-1]
        assert run.label == LEVELS[4]
        record = execute(run, "smoke", progress=False)
        assert find(run, "smoke") is not None
        estimator, _ = trained(checkpoint_of(run, "smoke"))
        assert isinstance(estimator, Poseur)
        yield record, estimator, run.test.open()


def test_the_records_arrays_are_those_of_the_trained_network(made: tuple[Record, Poseur, Store]) -> None:
    record, estimator, test = made
    assert record.keeps
    images = (test.batch(torch.arange(len(test))).images - estimator.mean) / estimator.std
    first = estimator.backbone(images[:8])
    with torch.no_grad():
        output = estimator.eval().head(first)
        _, seen = estimator.head.trace(first)
        _, every = estimator.head.trace(estimator.backbone(images))
    stages = [output.proposal, *output.layers]
    kept = {name: record.kept(name) for name in ("output", "reference", "at", "share", "joints")}
    assert kept["output"].shape == (8, 1 + LAYERS, JOINTS, 4)
    assert kept["at"].shape == (8, LAYERS, JOINTS, HEADS, 4, POINTS, 2)
    for i, stage in enumerate(stages):
        np.testing.assert_allclose(kept["output"][:, i], stage.numpy(), rtol=1e-3, atol=1e-3)
    for i, layer in enumerate(seen):
        np.testing.assert_allclose(kept["reference"][:, i], layer.reference.numpy(), rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(kept["at"][:, i], layer.at.numpy(), rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(kept["share"][:, i], layer.share.numpy(), rtol=1e-3, atol=1e-3)
    for i, layer in enumerate(every):
        assert layer.joints is not None
        mean = np.zeros((JOINTS, JOINTS))
        for image in layer.joints.numpy():
            for head in image:
                mean += head / (HEADS * len(test))
        np.testing.assert_allclose(kept["joints"][i], mean, atol=1e-6)
    np.testing.assert_allclose(record.kept("points")[:8], output.layers[-1][..., :2].numpy(), rtol=1e-3, atol=1e-3)
    assert kept["output"].dtype == kept["at"].dtype == kept["share"].dtype == np.float16
    assert kept["joints"].dtype == np.float32


def test_batches_do_not_matter_and_attention_is_a_share(made: tuple[Record, Poseur, Store]) -> None:
    _, estimator, test = made
    one, many = traced(estimator, test, 3), traced(estimator, test, 3, batch=5)
    assert set(one) == set(many)
    for name in one:
        np.testing.assert_allclose(one[name].astype(float), many[name].astype(float), rtol=1e-3, atol=1e-3)
    assert one["output"].shape[0] == 3
    np.testing.assert_allclose(one["joints"].sum(-1), 1, atol=1e-5)
    assert not estimator.training


def test_attention_is_over_all_images_and_the_rest_over_the_first(made: tuple[Record, Poseur, Store]) -> None:
    """Other images behind the first change the one array and no other."""
    _, estimator, test = made

    plain = traced(estimator, test, 3)
    dark = traced(estimator, replace(test, images=test.images * (torch.arange(len(test)) < 3).view(-1, 1, 1, 1)), 3)
    for name in ("output", "reference", "at", "share"):
        np.testing.assert_allclose(plain[name].astype(float), dark[name].astype(float), rtol=2e-3, atol=2e-3)
    assert float(np.abs(plain["joints"] - dark["joints"]).max()) > 1e-6


@pytest.mark.parametrize("without", [{"layer": {"self_attention": False}}, {"initial": "learned", "noise": None}])
def test_without_attention_between_joints_or_without_a_guess(
    without: dict[str, Any], made: tuple[Record, Poseur, Store]
) -> None:
    torch.manual_seed(0)
    found = traced(poseur("smoke", **without).build(), made[2], 2)
    assert ("joints" in found) is ("layer" not in without)
    assert found["output"].shape == (2, LAYERS + ("layer" in without), JOINTS, 4)


def test_records_of_the_paper_s_network_keep_and_no_others() -> None:
    for profile in SIZES:
        base = {run.key for run in experiments.runs("poseur-levels", profile) if run.label == LEVELS[4]}
        for name in ALL:
            for run in experiments.runs(name, profile):
                assert run.keep == (keep(profile) if run.key in base else 0), (profile, name, run.label)
    assert {profile: keep(profile) for profile in SIZES} == {"smoke": 8, "cpu": 8, "gpu": 4}


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_what_is_kept_stays_small(profile: str) -> None:
    """Uncompressed, with the points of 1,024 images: below 300 kB."""
    torch.manual_seed(0)
    run = next(r for r in experiments.runs("poseur-levels", profile) if r.label == LEVELS[4])
    test = replace(run.test, count=run.keep).open()
    kept = traced(run.estimator.build(), test, run.keep)
    assert sum(a.nbytes for a in kept.values()) + 1024 * JOINTS * 2 * 2 < 300_000


def test_the_figures_can_be_drawn_again(made: tuple[Record, Poseur, Store]) -> None:
    """The figures that pages draw again by their number are those that the run was tested on."""
    record, _, test = made
    assert record.run is not None
    few = replace(record.run.test, count=8).open()
    torch.testing.assert_close(few.coords, test.coords[:8])
    different = few.images != test.images[:8]  # rendered in other batches, a pixel of a border may round otherwise
    assert float(different.float().mean()) < 1e-3
    assert float((few.images != test.images[8:16]).float().mean()) > 0.5
