"""The benchmarks' machinery at tiny sizes: results, verdicts, table, JSON. No timing is judged here."""

import itertools
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import __main__ as command  # noqa: E402
from benchmarks import loops, rows  # noqa: E402
from benchmarks.timing import Row, interleave, table  # noqa: E402

TINY = rows.Sizes(batch=2, joints=3, height=24, width=20, repeats=1, images=4, steps=1, side=32, channels=4)


def row(ratio: float = 2.0, must: float | None = 1.0, aim: float | None = 3.0, **more: object) -> Row:
    return Row("ours", "theirs", ratio, must, aim, 1.0, ratio, **{"correct": True, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["quarter-shift", "biased-targets", "unbiased-targets", "kornia-targets", "training"])
def test_each_row_agrees_with_its_peer(name: str) -> None:
    found = rows.ROWS[name](TINY)
    assert found is not None
    assert found.correct
    assert found.ratio == pytest.approx(found.theirs / found.ours)
    assert found.must is not None
    assert found.gate


def test_drawing_is_measured_but_never_a_gate() -> None:
    before = torch.get_num_threads()
    found = rows.rendering(TINY, processes=2)
    assert found is not None
    assert found.correct
    assert not found.gate
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("found", "verdict", "failed"),
    [
        (row(4.0), "aim", False),
        (row(2.0), "must", False),
        (row(0.9), "missed", True),
        (row(0.9, gate=False), "below", False),
        (row(0.9, must=None), "told", False),
        (row(4.0, correct=False), "wrong", True),
        (row(2.0, aim=None), "must", False),
    ],
)
def test_verdicts(found: Row, verdict: str, failed: bool) -> None:
    assert found.verdict == verdict
    assert found.failed == failed


def test_table_by_hand() -> None:
    text = table([row(2.0, note="a remark"), row(12.345, must=None, aim=None)])
    assert text.splitlines() == [
        "operation  against  ratio   must    aim  verdict",
        "---------  -------  -----  -----  -----  -------",
        "ours       theirs   2.00x  1.00x  3.00x  must",
        "ours       theirs   12.3x                told",
        "ours: a remark",
    ]


def test_the_minimum_counts_and_turns_alternate() -> None:
    order: list[str] = []
    naps = itertools.chain([0.004, 0.004, 0.02, 0.002, 0.02], itertools.repeat(0.02))

    def slow() -> None:
        order.append("slow")
        time.sleep(next(naps))

    def quick() -> None:
        order.append("quick")
        time.sleep(0.001)

    least = interleave([slow, quick], repeats=3)
    assert 0.002 <= least[0] < 0.004  # the fourth call, once within the rounds
    assert 0.001 <= least[1] < least[0]
    turns = [name for name, _ in itertools.groupby(order)]
    assert turns == ["slow", "quick"] * 4  # the warm-up and three rounds
    with pytest.raises(ValueError, match="got repeats=0, expected at least 1"):
        interleave([slow], 0)


def test_the_command_prints_writes_and_fails_when_a_must_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = {"good": lambda s: row(2.0), "absent": lambda s: None, "bad": lambda s: row(0.5)}
    monkeypatch.setattr(command, "ROWS", made)
    out = tmp_path / "deep" / "bench.json"
    assert command.main(["--only", "good", "absent", "--out", str(out)], TINY) == 0
    report = json.loads(out.read_text())
    assert [r["verdict"] for r in report["rows"]] == ["must"]
    assert report["sizes"]["joints"] == 3
    assert "absent: left out" in capsys.readouterr().err
    assert command.main(["--repeats", "2", "--out", str(out)], TINY) == 1
    said = capsys.readouterr()
    assert "missed" in said.out
    assert "ours is below its must of 1.0x (ratio 0.50)" in said.err
    report = json.loads(out.read_text())
    assert report["sizes"]["repeats"] == 2
    assert [r["verdict"] for r in report["rows"]] == ["must", "missed"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeats", "0"], "--repeats: got 0, expected at least 1"),
        (["--only", "nothing"], "invalid choice: 'nothing'"),
    ],
)
def test_bad_arguments_are_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert message in capsys.readouterr().err


def test_a_slow_loop_by_hand() -> None:
    """The peers themselves: a joint at (2.6, 1.2) of a 4 x 5 map."""
    pixels, seen = np.array([[[2.6, 1.2], [9.0, 1.0]]], np.float32), np.ones((1, 2), np.float32)
    maps, weight = loops.biased_targets(pixels, seen, (4, 5), 1.0)
    assert np.unravel_index(maps[0, 0].argmax(), (4, 5)) == (1, 3)
    assert maps[0, 0, 1, 3] == 1
    assert weight.tolist() == [[1, 0]]
    maps, weight = loops.full_targets(pixels, seen, (4, 5), 1.0)
    assert maps[0, 0, 1, 3] == pytest.approx(np.exp(-(0.4**2 + 0.2**2) / 2), rel=1e-5)
    assert weight.tolist() == [[1, 0]]
    inner = np.zeros((1, 1, 5, 6), np.float32)
    inner[0, 0, 2, 3], inner[0, 0, 2, 2], inner[0, 0, 3, 3] = 1.0, 0.5, 0.5
    points, score = loops.quarter_shift(inner)
    assert points.tolist() == [[[2.75, 2.25]]]
    assert score.tolist() == [[1]]
