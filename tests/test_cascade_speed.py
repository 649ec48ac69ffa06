"""Table 2's times: measured on a tiny network, written, read back, and judged by what the text says."""

from pathlib import Path
from typing import Any

import pytest

from coordreg.experiments import cascade_speed, measured
from coordreg.experiments.cascade_speed import exact, judged, measure, ratios
from coordreg.fingerprint import fingerprint


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COORDREG_RESULTS", str(tmp_path))
    return tmp_path


def fake(coarse: tuple[float, ...] = (4.0, 2.0, 1.0), fine: tuple[float, ...] = (0.4, 0.4, 0.4)) -> dict[str, Any]:
    seconds = {
        f"{by}x": {"coarse": {"wall": 9.0, "own": a}, "fine": {"wall": 9.0, "own": b}}
        for by, a, b in zip((4, 8, 16), coarse, fine, strict=True)
    }
    return {"network": "a network", "size": [240, 320], "repeats": 9, "seconds": seconds,
            "made": {"device": "a test"}, "code": fingerprint(*cascade_speed.MEASURED)}  # fmt: skip


def test_every_part_is_timed() -> None:
    found = measure(repeats=1, width=8, size=(48, 64), window=16)
    assert list(found["seconds"]) == ["4x", "8x", "16x"]
    assert all(list(parts) == ["coarse", "fine"] for parts in found["seconds"].values())
    assert all(t > 0 for parts in found["seconds"].values() for clock in parts.values() for t in clock.values())
    counts = list(found["coarse_macs"].values())
    assert counts[0] > counts[1] > counts[2]
    assert found["network"] == "8 features, 7 joints, windows of 16 px"


def test_times_are_told_as_shares_of_the_coarse_network_at_4x() -> None:
    found = ratios(fake())
    assert found["8x"] == {"coarse": 0.5, "fine": 0.1, "both": 0.6}
    assert found["4x"]["both"] == pytest.approx(1.1)


@pytest.mark.parametrize(
    ("coarse", "fine", "good"),
    [
        ((4.0, 2.0, 1.0), (0.4, 0.4, 0.44), True),
        ((4.0, 2.0, 1.0), (0.4, 0.4, 0.5), False),  # one network cannot be so much slower than itself
        ((4.0, 2.0, 2.1), (0.4, 0.4, 0.4), False),
        ((4.0, 3.0, 1.0), (0.4, 0.4, 0.4), False),  # 3.4 of 4.4 is well below, but of 4 it is not
        ((4.0, 2.0, 1.0), (2.0, 2.0, 2.0), False),
    ],
)
def test_what_the_text_says(coarse: tuple[float, ...], fine: tuple[float, ...], good: bool) -> None:
    assert judged(ratios(fake(coarse, fine))) is good


def test_the_row_follows_from_what_was_measured(folder: Path) -> None:
    assert exact() == {}
    measured.write("cascade-speed-cpu", fake())
    row = exact()["cascade-tab2"]
    assert row.matches
    assert "pooling, 4e+03 ms: 4x coarse 1.00, fine 0.10, both 1.10; 8x coarse 0.50, fine 0.10, both 0.60" in row.ours
    assert "a test, one thread; a network, 320 x 240 px" in row.note
    measured.write("cascade-speed-gpu", fake((1.0, 1.0, 1.0)))
    row = exact()["cascade-tab2"]
    assert (row.matches, row.otherwise) == (False, "not reproduced")
    assert "one thread" not in row.note
    measured.write("cascade-speed-gpu", {**fake(), "repeats": 3})
    row = exact()["cascade-tab2"]
    assert (row.matches, row.otherwise) == (False, "inconclusive")
    assert "3 rounds is not judged" in row.note


def test_stale_and_edited_measurements_are_told(folder: Path) -> None:
    data = fake()
    data["code"] = {**data["code"], "coordreg.windows.FineNet": "00000000"}
    path = measured.write("cascade-speed-cpu", data)
    assert "stale, changed since: coordreg.windows.FineNet" in exact()["cascade-tab2"].note
    path.write_text(path.read_text().replace("0.4", "0.3"))
    row = exact()["cascade-tab2"]
    assert not row.matches
    assert row.ours.startswith("refused: cascade-speed-cpu.json: the contents do not match")


def test_the_command_writes(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    small = {**fake(), "coarse_macs": {"4x": 4e9, "8x": 2e9, "16x": 1e9}}
    monkeypatch.setattr(cascade_speed, "measure", lambda device, repeats: {**small, "repeats": repeats})
    assert cascade_speed.main(["--repeats", "9"]) == 0
    assert "8x: coarse 2000.00 ms, fine 400.00 ms; coarse 2.00 GMACs" in capsys.readouterr().out
    data = measured.read("cascade-speed-cpu")
    assert data is not None
    assert data["made"]["versions"]["torch"]
    assert exact()["cascade-tab2"].matches
