"""What decoding costs: measured on a tiny network, written, read back, and told as a ledger row."""

from pathlib import Path

import pytest

from coordreg.experiments import measured, speed
from coordreg.fingerprint import fingerprint

MADE = {"device": "a test"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COORDREG_RESULTS", str(tmp_path))
    return tmp_path


def fake(dark: float) -> dict[str, object]:
    seconds = {
        str(batch): {"forward": {"wall": 9.0, "own": 2.0}, "quarter shift": {"wall": 9.0, "own": 0.004},
                     "DARK": {"wall": 9.0, "own": 2 * dark}}
        for batch in (1, 32)
    }  # fmt: skip
    return {"network": "HRNet-W32", "size": [128, 96], "seconds": seconds, "made": MADE, "repeats": 9,
            "code": fingerprint(*speed.MEASURED)}  # fmt: skip


def test_everything_is_timed_by_batch() -> None:
    found = speed.measure(repeats=1, width=4, batches=(1, 3), size=(64, 32))
    assert found["network"] == "HRNet-W4"
    assert list(found["seconds"]) == ["1", "3"]
    assert all(list(each) == ["forward", "quarter shift", "DARK"] for each in found["seconds"].values())
    assert all(t > 0 for each in found["seconds"].values() for clock in each.values() for t in clock.values())
    assert set(speed.shares(found)) == {1, 3}


def test_the_row_follows_from_what_was_measured(folder: Path) -> None:
    assert speed.exact() == {}
    measured.write("speed-cpu", fake(0.012))
    row = speed.exact()["dark-speed"]
    assert row.matches
    assert "batch of 32: quarter shift 0.20%, DARK 1.20%" in row.ours
    assert "a test, one thread, HRNet-W32 at 128 x 96; the paper's 360 to 320 fps are 12.5%" in row.note
    measured.write("speed-gpu", fake(0.03))
    assert not speed.exact()["dark-speed"].matches
    measured.write("speed-gpu", {**fake(0.001), "repeats": 3})
    assert "3 rounds is not judged" in speed.exact()["dark-speed"].note
    measured.write("speed-gpu", fake(0.03))
    assert "one thread" not in speed.exact()["dark-speed"].note


def test_stale_and_edited_measurements_are_told(folder: Path) -> None:
    data = fake(0.01)
    data["code"] = {**data["code"], "coordreg.dark.Dark": "00000000"}  # type: ignore[dict-item]
    path = measured.write("speed-cpu", data)
    assert "stale, changed since: coordreg.dark.Dark" in speed.exact()["dark-speed"].note
    path.write_text(path.read_text().replace("0.02", "0.03"))
    row = speed.exact()["dark-speed"]
    assert not row.matches
    assert row.ours.startswith("refused: speed-cpu.json: the contents do not match")
    path.write_text("{")
    assert "not a measurement" in speed.exact()["dark-speed"].ours


def test_the_command_writes(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    small = speed.measure(repeats=1, width=4, batches=(1,), size=(64, 32))
    monkeypatch.setattr(speed, "measure", lambda device, repeats: small)
    assert speed.main(["--repeats", "1"]) == 0
    assert "batch of 1: forward" in capsys.readouterr().out
    data = measured.read("speed-cpu")
    assert data is not None
    assert data["seconds"] == small["seconds"]
    assert "dark-speed" in speed.exact()
