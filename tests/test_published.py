"""The cascade's stored predictions: scored by hand on a small file, and as published on the real one if it is there."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat

from coordreg.experiments import measured, published
from coordreg.records import RecordError, checksum

REAL = Path(__file__).parents[2] / "shared" / "data"
COMMITTED = Path(__file__).parents[1] / "results" / "mpii-cascade.json"


def write(folder: Path, **changes: Any) -> Path:
    """Four people with a head box of 30 x 40 px (head size 30): errors of 0, 3, 15 and 16 px in every joint."""
    truth = np.arange(16 * 2 * 4, dtype=float).reshape(16, 2, 4)
    found = truth.copy()
    found[:, 0] += np.array([0.0, 3.0, 15.0, 16.0])
    missing = np.zeros((16, 4))
    missing[9, 3] = 1  # the head of the last person
    boxes = np.zeros((2, 2, 4))
    boxes[1, 0], boxes[1, 1] = 30, 40
    stored = {"pos_pred_src": found, "pos_gt_src": truth, "jnt_missing": missing, "headboxes_src": boxes, **changes}
    path = folder / published.FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {k: v for k, v in stored.items() if v is not None})
    return path


def test_predictions_are_scored_by_hand(tmp_path: Path) -> None:
    each = published.distances(write(tmp_path))
    assert each.shape == (4, 16)
    assert each[:, 0].tolist() == pytest.approx([0, 0.1, 0.5, 16 / 30])
    assert torch.isnan(each[3, 9])
    found = published.scored(each)
    assert found["people"] == 4
    assert found["labelled"]["head_top"] == 3
    assert found["pckh"]["0.5"]["Wri."] == 75
    assert found["pckh"]["0.5"]["Head"] == 100
    assert found["pckh"]["0.1"]["Ank."] == 50
    joints = 14 * 4 - 1
    assert found["pckh"]["0.5"]["Mean"] == pytest.approx(100 * (14 * 3) / joints, abs=0.01)


def test_the_command_writes_and_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COORDREG_RESULTS", str(tmp_path / "out"))
    assert published.read() is None
    assert published.main(["--root", str(tmp_path)]) == 2
    assert "detections_our_format.mat is not there" in capsys.readouterr().err
    write(tmp_path / "mpii", pos_pred_src=None)
    assert published.main(["--root", str(tmp_path)]) == 2
    assert "has no pos_pred_src" in capsys.readouterr().err
    write(tmp_path / "mpii")
    assert published.main(["--root", str(tmp_path)]) == 0
    data = published.read()
    assert data is not None
    assert data["people"] == 4
    assert data["made"]["versions"]["torch"]
    text = measured.path_of(published.NAME).read_text()
    assert str(tmp_path) not in text
    measured.path_of(published.NAME).write_text(text.replace('"people": 4', '"people": 5'))
    with pytest.raises(RecordError, match=r"mpii-cascade\.json: the contents do not match"):
        published.read()


@pytest.mark.skipif(not (REAL / "mpii" / published.FILE).is_file(), reason="MPII's evaluation file is not here")
def test_committed_numbers_are_those_of_the_real_file() -> None:
    data = json.loads(COMMITTED.read_text())
    assert data["sum"] == checksum(data)
    found = published.scored(published.distances(REAL / "mpii" / published.FILE))
    assert {k: data[k] for k in found} == found
    assert data["people"] == 2958
    assert data["pckh"]["0.5"]["Mean"] == pytest.approx(82.0, abs=0.5)  # printed for MPII's test set
