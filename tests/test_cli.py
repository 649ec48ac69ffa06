"""The command line as a reader uses it: run, train, predict, ledger; and what it says to a mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from coordreg.experiments import runs
from coordreg.predict import load_predictor, read_image
from coordreg.train import CheckpointError, save_checkpoint

ROOT = Path(__file__).parent.parent


def _coordreg(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    stores = {"COORDREG_RESULTS": str(folder / "results"), "COORDREG_RUNS": str(folder / "runs")}
    environment = {**os.environ, **stores, "PYTHONPATH": str(ROOT), "COORDREG_DEVICE": "cpu", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "coordreg", *arguments],
        env=environment, cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder in which `train` has run, and the checkpoint it names."""
    folder = tmp_path_factory.mktemp("cli")
    done = _coordreg("train", "heatmap-resolution", "--label", "16 px", "--profile", "smoke", folder=folder)
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("checkpoint"))
    return folder, folder / line.split(maxsplit=1)[1]


@pytest.mark.slow
def test_run_trains_and_writes_records(tmp_path: Path) -> None:
    done = _coordreg("run", "heatmap-resolution", "--profile", "smoke", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "results" / "smoke").glob("*.json"))) == 4
    assert done.stdout.count("AUC") == 4


@pytest.mark.slow
def test_two_runs_side_by_side_write_the_same_records(tmp_path: Path, trained: tuple[Path, Path]) -> None:
    done = _coordreg("run", "heatmap-resolution", "--profile", "smoke", "--workers", "2", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    here = json.loads(next((trained[0] / "results" / "smoke").glob("*.json")).read_text())
    there = json.loads((tmp_path / "results" / "smoke" / f"{here['key']}.json").read_text())
    assert there["readings"] == here["readings"]
    assert there["loss"] == here["loss"]


def test_predict_writes_json_and_a_picture(trained: tuple[Path, Path], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (90, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "me.png")
    arguments = ["predict", str(tmp_path / "me.png"), "--checkpoint", str(trained[1]), "--out", str(tmp_path / "out")]
    done = _coordreg(*arguments, "--box", "10,10,50,70", folder=trained[0])
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "me-joints.json").read_text())
    assert len(found["joints"]) == 16
    centre, side = (10 + 25, 10 + 35), 1.25 * 70
    for joint in found["joints"].values():
        assert abs(joint["x"] - centre[0]) <= side / 2
        assert abs(joint["y"] - centre[1]) <= side / 2
    with Image.open(tmp_path / "out" / "me-joints.png") as overlay:
        assert min(overlay.size) > 100


def test_predict_takes_boxes_of_several_people(trained: tuple[Path, Path], tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 70, 3), dtype=np.uint8)).save(tmp_path / "us.png")
    (tmp_path / "boxes.json").write_text(json.dumps({"us.png": [[5, 5, 30, 60, 0.8], [35, 5, 30, 60]]}))
    call = ["predict", str(tmp_path / "us.png"), "--checkpoint", str(trained[1]), "--out", str(tmp_path / "out")]
    done = _coordreg(*call, "--boxes", str(tmp_path / "boxes.json"), folder=trained[0])
    assert done.returncode == 0, done.stderr
    assert len(json.loads((tmp_path / "out" / "us-joints.json").read_text())["people"]) == 2
    both = _coordreg(*call, "--boxes", str(tmp_path / "boxes.json"), "--box", "1,1,9,9", folder=trained[0])
    assert "expected one way to say where people are" in both.stderr
    (tmp_path / "boxes.json").write_text("{}")
    assert (
        "has no boxes for us.png" in _coordreg(*call, "--boxes", str(tmp_path / "boxes.json"), folder=trained[0]).stderr
    )


def test_a_box_means_the_same_as_cutting_the_image_by_hand(trained: tuple[Path, Path]) -> None:
    predictor = load_predictor(trained[1])
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    wide = torch.nn.functional.pad(image, (20, 20, 20, 20))
    whole, _ = predictor(image)
    part, _ = predictor(wide, box=(20 - 0.5 + 6.4, 20 - 0.5 + 6.4, 51.2, 51.2))  # x 1.25 = 64, the image itself
    assert torch.allclose(part - 20, whole, atol=1e-3)


def test_a_network_of_photographs_predicts_its_own_joints(tmp_path: Path) -> None:
    run = next(r for r in runs("heatmap-lsp", "smoke") if r.label == "LSP")
    state = {"model": run.estimator.build().state_dict(), "optimiser": {}, "step": 0, "losses": []}
    save_checkpoint(tmp_path / "lsp.pt", {**state, "config": json.dumps(run.config)})
    predictor = load_predictor(tmp_path / "lsp.pt")
    points, score = predictor(torch.rand(3, 50, 40))
    assert predictor.skeleton.joints[:2] == ("r_ankle", "r_knee")
    assert points.shape == (14, 2)
    assert score.shape == (14,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "heatmap-nose"], "expected one of"),
        (["run", "heatmap-resolution", "--profile", "fast"], "expected one of smoke, cpu, gpu, paper"),
        (["run", "heatmap-resolution", "--only", "17 px"], "labels are 2 px"),
        (["train", "heatmap-losses", "--label", "H9"], "labels are H1, H2, H3"),
        (["predict", "me.png", "--checkpoint", "nothing.pt"], "no such file"),
        (["rerun", "--chapter", "nose"], "expected one of"),
        (["ledger", "--row", "dsnt-fig77"], "dsnt-fig7"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = _coordreg(*arguments, folder=tmp_path)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_foreign_or_corrupt_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 not a picture")
    with pytest.raises(ValueError, match=r"broken\.jpg: not a readable image"):
        read_image(tmp_path / "broken.jpg")
    with pytest.raises(ValueError, match=r"none\.jpg: no such image"):
        read_image(tmp_path / "none.jpg")
    torch.save({"weights": torch.zeros(1)}, tmp_path / "foreign.pt")
    with pytest.raises(CheckpointError, match="another program or version"):
        load_predictor(tmp_path / "foreign.pt")


def test_the_ledger_prints_one_json_object_a_row(tmp_path: Path) -> None:
    done = _coordreg("ledger", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert all({"id", "status", "paper", "ours", "records"} <= set(row) for row in rows)
    by_id = {row["id"]: row for row in rows}
    assert by_id["dsnt-fig7"]["status"] == "not run"  # the store is empty here
    assert by_id["dsnt-fig4"]["status"] == "matches"  # exact rows need no records
