"""FLIC's labels in numbers: counted on a fixture, and as committed from the real files if they are there."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from flic_fixture import write

from coordreg.data.flic import FLIC11
from coordreg.experiments import flic_labels, measured
from coordreg.experiments.flic_labels import BINS, REACH, counted, counts, edges, table
from coordreg.records import RecordError, checksum

BESIDE = Path(__file__).parents[2] / "shared" / "data"
REAL = Path(os.environ.get("COORDREG_DATA", BESIDE)) / "flic"
COMMITTED = Path(__file__).parents[1] / "results" / "flic-labels.json"


def test_every_joint_is_seen_from_the_torso_and_limbs_from_their_parents() -> None:
    found = edges()
    assert found[:11] == [(name, "torso") for name in FLIC11.joints]
    assert {("l_wrist", "l_elbow"), ("r_elbow", "r_shoulder"), ("l_eye", "nose")} <= set(found[11:])
    assert ("nose", "l_shoulder") not in found  # a joint in the middle hangs on none of a side
    assert len(found) == 17


def test_counts_by_hand() -> None:
    cell = 2 * REACH / BINS
    points = np.array([[0.0, 0.0], [0.4 * cell, 0.0], [cell, -2 * cell], [REACH + 0.1, 0.0]])
    lines = counts(points)
    assert len(lines) == BINS
    found = table(lines)
    middle = BINS // 2
    assert found[middle, middle] == 2
    assert found[middle - 2, middle + 1] == 1  # rows are y
    assert found.sum() == 3  # one is out of reach


def test_the_fixture_is_counted(tmp_path: Path) -> None:
    train, test = write(tmp_path, 9, held=5)
    found = counted(tmp_path)
    splits = found["splits"]
    assert (splits["train"]["people"], splits["test"]["people"]) == (9, 5)
    assert splits["train"]["behind"] == train.behind.sum() == 3
    assert splits["test"]["behind"] == test.behind.sum()
    lacking = [(~t.labelled[:, 2]).sum() for t in (train, test)]
    assert sum(splits["train"]["labelled"].values()) == 9 * 11 - lacking[0]
    assert sum(splits["test"]["labelled"].values()) == 5 * 11 - lacking[1]
    lengths = np.hypot(*(train.joints[:, 3] - train.joints[:, 6]).T)
    by_hand = [int(((lengths >= a) & (lengths < a + 20)).sum()) for a in range(0, 400, 20)]
    assert splits["train"]["torso_histogram"]["people"] == by_hand
    assert splits["train"]["torso_histogram"]["edges"] == list(range(0, 401, 20))
    noses = table(found["displacements"]["nose from torso"])
    assert noses.sum() == 9
    assert noses[: BINS // 2].sum() == 9  # the nose is above the torso, and y points down


def test_the_command_writes_and_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COORDREG_RESULTS", str(tmp_path / "out"))
    assert flic_labels.read() is None
    assert flic_labels.main(["--root", str(tmp_path)]) == 2
    assert "train.h5 is not there" in capsys.readouterr().err
    write(tmp_path / "flic", 6)
    assert flic_labels.main(["--root", str(tmp_path)]) == 0
    assert "flic-labels.json: 10 people, 17 histograms" in capsys.readouterr().out
    data = flic_labels.read()
    assert data is not None
    assert data["made"]["versions"]["torch"]
    text = measured.path_of(flic_labels.NAME).read_text()
    assert str(tmp_path) not in text
    assert ".jpg" not in text
    measured.path_of(flic_labels.NAME).write_text(text.replace('"people": 6', '"people": 7'))
    with pytest.raises(RecordError, match=r"flic-labels\.json: the contents do not match"):
        flic_labels.read()


def test_committed_numbers_hold_no_label() -> None:
    data = json.loads(COMMITTED.read_text())
    assert data["sum"] == checksum(data)
    assert set(data) == {"bins", "reach", "splits", "displacements", "made", "sum"}
    assert (data["bins"], data["reach"]) == (BINS, REACH)
    for name, lines in data["displacements"].items():
        inside = table(lines)
        assert inside.shape == (BINS, BINS)
        assert 0.98 * 3987 < inside.sum() <= 3987, name
    assert COMMITTED.stat().st_size < 1e5


@pytest.mark.skipif(not (REAL / "annot" / "train_personcentric.h5").is_file(), reason="FLIC's labels are not here")
def test_committed_numbers_are_those_of_the_real_files() -> None:
    data = json.loads(COMMITTED.read_text())
    found = counted(REAL)
    assert {k: data[k] for k in found} == found
    splits = found["splits"]
    assert (splits["train"]["people"], splits["test"]["people"]) == (3987, 1016)
    assert (splits["train"]["behind"], splits["test"]["behind"]) == (199, 48)
