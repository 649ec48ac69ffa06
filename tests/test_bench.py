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
from benchmarks import loops, rows, rows_ap, rows_expectation  # noqa: E402
from benchmarks.timing import MissingError, Row, Sizes, interleave, table  # noqa: E402
from coordreg import attention  # noqa: E402
from coordreg.attention import emsda  # noqa: E402

TINY = Sizes(
    batch=2,
    joints=3,
    height=24,
    width=20,
    repeats=1,
    images=4,
    steps=1,
    side=32,
    channels=4,
    volumes=2,
    volume=(9, 12, 10),
    pictures=30,
    people=60,
)


def row(ratio: float = 2.0, must: float | None = 1.0, aim: float | None = 3.0, **more: object) -> Row:
    return Row("ours", "theirs", ratio, must, aim, 1.0, ratio, **{"correct": True, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["quarter-shift", "dark", "biased-targets", "unbiased-targets", "kornia-targets", "training"]
)
def test_each_row_agrees_with_its_peer(name: str) -> None:
    found = rows.ROWS[name](TINY)
    assert found is not None
    assert found.correct
    assert found.ratio == pytest.approx(found.theirs / found.ours)
    assert found.must is not None
    assert found.gate


@pytest.mark.parametrize(
    ("name", "must", "aim", "limit"),
    [
        ("soft-argmax", 1.7, 1.35, True),
        ("soft-argmax-kornia", 1.4, 1.8, False),
        ("soft-argmax-dsntnn", 1.0, 1.15, False),
        ("soft-argmax-3d", 1.25, 1.5, False),
        ("volume-targets", 1.6, 1.2, True),
    ],
)
def test_each_row_of_soft_argmax_agrees_with_its_peer(name: str, must: float, aim: float, limit: bool) -> None:
    found = rows.ROWS[name](TINY)
    assert found is not None
    assert found.correct
    assert (found.must, found.aim, found.limit, found.gate) == (must, aim, limit, True)
    assert found.ratio == pytest.approx(found.ours / found.theirs if limit else found.theirs / found.ours)


@pytest.mark.parametrize(
    ("name", "must", "aim"), [("attention", 0.5, 0.4), ("decoder", 0.5, 0.4), ("noisy-queries", 1.1, 1.0)]
)
def test_each_row_of_poseur_agrees_with_its_peer(name: str, must: float, aim: float) -> None:
    found = rows.ROWS[name](TINY)
    assert found is not None
    assert (found.must, found.aim, found.limit, found.gate, found.correct) == (must, aim, True, True, True)
    assert found.ratio == pytest.approx(found.ours / found.theirs)
    assert ("2 times as many queries" in found.note) == (name == "noisy-queries")


def test_another_attention_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "msda", lambda *given: 1.01 * emsda(*given))
    for name in ("attention", "decoder"):
        assert rows.ROWS[name](TINY).verdict == "wrong"  # type: ignore[union-attr]
    monkeypatch.setattr("coordreg.poseur.apart", lambda groups, joints, device: torch.zeros(6, 6, dtype=torch.bool))
    assert rows.ROWS["noisy-queries"](TINY).verdict == "wrong"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "peer", "must", "aim"), [("ap", "pycocotools", 10, 16), ("ap-faster", "faster_coco_eval", 3, 5)]
)
def test_each_row_of_ap_agrees_with_its_peer_in_ten_numbers(name: str, peer: str, must: float, aim: float) -> None:
    pytest.importorskip(peer)
    found = rows.ROWS[name](TINY)
    assert found is not None
    assert (found.must, found.aim, found.limit, found.gate, found.correct) == (must, aim, False, True, True)
    assert found.ratio == pytest.approx(found.theirs / found.ours)
    assert "30 images, 60 people" in found.operation
    assert "ten numbers, difference" in found.note


def test_another_ap_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pycocotools")
    assert rows_ap._difference(float("nan"), float("nan")) == 0
    assert rows_ap._difference(float("nan"), 0.5) == rows_ap._difference(0.5, float("nan")) == float("inf")
    ours = rows_ap.average_precision
    monkeypatch.setattr(rows_ap, "average_precision", lambda a, b: {k: v + 1e-9 for k, v in ours(a, b).items()})
    found = rows.ROWS["ap"](TINY)
    assert found is not None
    assert found.verdict == "wrong"


def test_drawn_scenes_hold_what_makes_matching_hard() -> None:
    truth, results = rows_ap.scenes(Sizes(pictures=500, people=1000))
    assert (len(truth), len(truth) / 500) == (1000, 2)
    assert 3 < len(results) / 500 < 5
    in_pictures = np.bincount([a["image_id"] for a in truth], minlength=501)[1:]
    assert in_pictures.min() == 0 < 5 < in_pictures.max()
    assert 0 < sum(a["iscrowd"] for a in truth) < 50
    assert 50 < sum(a["num_keypoints"] == 0 for a in truth) < 200
    assert len({r["score"] for r in results}) < len(results)  # some are equal
    area = np.array([a["area"] for a in truth])
    for low, high in ((0, 32**2), (32**2, 96**2), (96**2, 1e10)):
        assert ((area > low) & (area < high)).sum() > 100


def test_the_error_of_float32_is_a_row() -> None:
    found = rows_expectation.error(TINY)
    assert (found.must, found.aim, found.limit, found.unit) == (1e-6, 2e-7, True, "")
    assert 0 < found.ratio < 1e-6
    assert found.correct
    assert f"dsntnn's {found.theirs:.1e}" in found.note


def test_a_wrong_mean_or_gradient_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(z: torch.Tensor) -> torch.Tensor:
        return rows_expectation.soft_argmax(z)[1] + 1e-3

    def steeper(z: torch.Tensor) -> torch.Tensor:
        mean = rows_expectation.soft_argmax(z)[1]
        return mean.detach() + 1.01 * (mean - mean.detach())

    for wrong in (shifted, steeper):
        monkeypatch.setattr(rows_expectation, "_ours", wrong)
        assert rows_expectation.in_volumes(TINY).verdict == "wrong"
    monkeypatch.setattr(rows_expectation, "SIGMA", 1.0)
    drawn = rows_expectation.gaussian_lines
    monkeypatch.setattr(rows_expectation, "gaussian_lines", lambda c, size, sigma: drawn(c, size, sigma * 1.01))
    assert rows_expectation.volume_targets(TINY).verdict == "wrong"


def test_memory_by_hand() -> None:
    """A chain of known tensors: 120 cells of 4 bytes each."""
    z = torch.rand(2, 3, 4, 5)

    def chain(z: torch.Tensor) -> torch.Tensor:
        once = z.exp()  # kept: exp's backward needs its result
        twice = once.view(6, 20) + 1  # not kept, dies at the end
        return twice.sum(1)

    found = rows_expectation.memory(chain, z)
    assert (found.logits, found.kept) == (480, 480)
    # backward: z, exp and the gradient, while the 6 sums and the 6 ones handed in live
    assert found.peak == 3 * 480 + 2 * 6 * 4
    rows_expectation.memory(rows_expectation._ours, z)  # the first call also makes the grids, which are kept
    ours = rows_expectation.memory(rows_expectation._ours, z)
    assert ours.kept == 480 + 2 * 3 * 2 * 4  # the probabilities and the means
    assert 3 * 480 < ours.peak < 4 * 480
    assert rows_expectation.memory(rows_expectation._ours, z) == ours


def test_memory_of_volumes_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_expectation, "resident", lambda shape: [None, None])
    found = rows.ROWS["volume-memory"](TINY)
    assert found is not None
    assert found.correct
    assert found.operation == "memory, (2, 3, 9, 12, 10)"
    assert found.ratio == found.theirs / found.ours > 1
    assert "growth" not in found.note
    monkeypatch.setattr(rows_expectation, "resident", lambda shape: [3 * 2**20, 5 * 2**20])
    found = rows.ROWS["volume-memory-1"](TINY)
    assert found is not None
    assert found.operation == "memory, (1, 3, 9, 12, 10)"
    assert "growth of a fresh process 3.0 (5.0)" in found.note


def test_a_process_grows_by_the_tensors() -> None:
    """Logits, probabilities and the gradient of 64 MiB each, in a process that has no freed memory to use again."""
    grown = rows_expectation.resident((1, 1, 256, 256, 256))[0]
    if grown is None:
        pytest.skip("resident memory is unknown on this system")
    assert 0.98 * 192 < grown / 2**20 < 1.1 * 192


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
        (row(1.2, must=1.7, aim=1.35, limit=True), "aim", False),
        (row(1.5, must=1.7, aim=1.35, limit=True), "must", False),
        (row(1.8, must=1.7, aim=1.35, limit=True), "missed", True),
        (row(float("nan"), must=1.7, limit=True), "missed", True),
        (row(float("nan")), "missed", True),
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


def test_limits_and_errors_in_the_table() -> None:
    text = table([row(1.5, must=1.7, aim=None, limit=True), row(1.3e-7, must=1e-6, aim=2e-7, limit=True, unit="")])
    assert text.splitlines()[2:] == [
        "ours       theirs     1.50x    <1.70x            must",
        "ours       theirs   1.3e-07  <1.0e-06  <2.0e-07  aim",
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


def test_the_clock_can_be_chosen() -> None:
    assert interleave([lambda: time.sleep(0.01)], 1, clock=time.thread_time)[0] < 0.01  # sleep costs no work
    assert interleave([lambda: time.sleep(0.01)], 1)[0] >= 0.01


def test_the_command_prints_writes_and_fails_when_a_must_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = row(1.8, must=1.7, limit=True)

    def away(sizes: Sizes) -> Row:
        raise MissingError("the-peer is not installed")

    made = {"good": lambda s: row(2.0), "absent": lambda s: None, "bad": lambda s: row(0.5), "slow": lambda s: slow}
    monkeypatch.setattr(command, "ROWS", made | {"away": away})
    out = tmp_path / "deep" / "bench.json"
    assert command.main(["--only", "good", "absent", "away", "--out", str(out)], TINY) == 0
    report = json.loads(out.read_text())
    assert [r["verdict"] for r in report["rows"]] == ["must"]
    assert report["sizes"]["joints"] == 3
    said = capsys.readouterr()
    assert "absent: left out" in said.err
    assert "away: left out, the-peer is not installed" in said.err
    assert command.main(["--repeats", "2", "--out", str(out)], TINY) == 1
    said = capsys.readouterr()
    assert "missed" in said.out
    assert "ours is below its must of 1.00x (0.50x)" in said.err
    assert "ours is above its must of 1.70x (1.80x)" in said.err
    report = json.loads(out.read_text())
    assert report["sizes"]["repeats"] == 2
    assert [r["verdict"] for r in report["rows"]] == ["must", "missed", "missed"]


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


def test_loops_of_chapters_4_and_5_by_hand() -> None:
    """Masses 1/4 and 3/4 in neighbouring cells of a 1 x 2 map: x is -0.5 or 0.5, y always 0."""
    maps, gradient = np.log(np.array([[[[1.0, 3.0]]]])).astype(np.float32), np.array([[[2.0, 5.0]]], np.float32)
    means, back = loops.soft_argmax(maps, gradient)
    assert means == pytest.approx(np.array([[[0.25, 0.0]]]))
    assert back == pytest.approx(np.array([[[[2 * 0.25 * -0.75, 2 * 0.75 * 0.25]]]]))
    cube = np.zeros((1, 1, 2, 3, 4), np.float32)
    cube[0, 0, 1, 2, 0] = 40  # one cell holds everything
    means, _ = loops.soft_argmax(cube, np.zeros((1, 1, 3), np.float32))
    assert means == pytest.approx(np.array([[[-0.75, 2 / 3, 0.5]]]))
    volumes = loops.volume_targets(np.array([[[1.0, 2.5, 0.0]]], np.float32), (2, 4, 3), 2.0)
    assert volumes.shape == (1, 1, 2, 4, 3)
    assert volumes[0, 0, 1, 3, 2] == pytest.approx(np.exp(-(1 + 0.25 + 1) / 8), rel=1e-6)
    assert volumes[0, 0, 0, 2, 1] == volumes[0, 0, 0, 3, 1] == pytest.approx(np.exp(-0.25 / 8), rel=1e-6)
