"""The cascade's drawings: live sizes against the printed ones, the crops, and clicks of a known spread."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from coordreg.coords import from_pixels
from coordreg.data.figures import Figures
from coordreg.experiments import cascade_drawings
from coordreg.experiments.cascade_drawings import (
    PRINTED,
    agreed,
    clicks,
    crops,
    drawings,
    exact,
    fine_network,
    painted,
    returned,
    spelt,
    stages,
    standard_network,
)
from coordreg.experiments.table import Results
from coordreg.records import Record

NONE = Results("cascade-refinement", None, ())


class Kept(Record):
    """A record that keeps answers, 0.25 everywhere, to its first two test figures."""

    def __init__(self) -> None:
        test = SimpleNamespace(data=Figures(split="test", count=4, size=32))
        object.__setattr__(self, "data", {"key": "k"})
        object.__setattr__(self, "run", SimpleNamespace(label="8x", keep=8, test=test))

    @property
    def keeps(self) -> bool:
        return True

    def kept(self, name: str) -> np.ndarray:
        return np.full({"output": (2, 16, 4, 4), "points": (4, 16, 2)}[name], 0.25, np.float16)


def recorded() -> Results:
    return Results("cascade-refinement", "cpu", (Kept(),))


def test_sizes_are_spelt_as_papers_do() -> None:
    assert spelt(torch.zeros(2, 3, 5, 7)) == "2x3x5x7"
    assert spelt(torch.zeros(2, 3, 5, 7), 1) == "3x5x7"


def test_every_stage_of_flic_by_arithmetic() -> None:
    """320 x 240 px at 16x pooling, 7 joints, three banks: 15 x 20 cells; the third bank's second map is 60 x 80 / 2."""
    made = stages(16, 7, (240, 320)).sizes
    assert made["bank 1, image"] == "3x240x320"
    assert made["bank 3, second"] == "128x30x40"
    assert (made["sum"], made["window"], made["coarse"]) == ("128x15x20", "512x15x20", "7x15x20")
    assert [made[f"crop {i}"] for i in (1, 2, 3, 4)] == [
        "7x128x36x36", "7x128x18x18", "7x128x18x18", "7x128x9x9"]  # fmt: skip
    assert (made["mixed"], made["output"]) == ("128x36x36", "7x36x36")


def test_the_printed_sizes_come_out() -> None:
    made = stages()
    assert {name: made.sizes[name] for name in PRINTED} == PRINTED
    assert not made.fine.inputs[0]._forward_hooks  # the module is left as it was
    assert not made.fine.mix._forward_hooks


def test_the_standard_cascade_reads_the_picture() -> None:
    made = stages(fine=standard_network()).sizes
    assert [made[f"crop {i}"] for i in (1, 2)] == ["14x3x36x36", "14x3x18x18"]
    assert "crop 3" not in made
    assert made["fine 2, own"].endswith("x18x18")
    assert made["fine 2, repeated"] == "128x36x36"


def test_crops_cover_one_place() -> None:
    """A ramp along x in the features' place: every window's middle is the joint's, up to half of its own cell."""
    image = torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(1))
    at = torch.tensor([40.0, 30.0])
    found = crops(image, from_pixels(at, (64, 96)))
    assert [(c.stride, tuple(c.window.shape)) for c in found] == [
        (1, (36, 36)),
        (2, (18, 18)),
        (2, (18, 18)),
        (4, (9, 9)),
    ]
    for crop in found:
        left, top, side = crop.corner
        assert side == 36
        assert abs(left + side / 2 - 40) <= 0.5 + crop.stride / 2
        assert abs(top + side / 2 - 30) <= 0.5 + crop.stride / 2
        column, row = round((left + 0.5) / crop.stride), round((top + 0.5) / crop.stride)
        n = len(crop.window)
        assert torch.equal(crop.window, crop.picture[row : row + n, column : column + n])
    assert crops(image, from_pixels(torch.tensor([0.0, 0.0]), (64, 96)))[0].window[0, 0] == 0  # beyond the border


def test_clicks_have_the_spread_they_were_given() -> None:
    points = torch.rand(400, 3, 2) * 100
    found = clicks(points, 200, people=9, share=0.01, seed=4)
    assert found.shape == (9, 400, 3, 2)
    assert float((found - points).std()) == pytest.approx(2.0, rel=0.03)
    assert torch.equal(found, clicks(points, 200, people=9, share=0.01, seed=4))
    # by hand: two people, two pictures, one joint; deviations sqrt(2) and 2 sqrt(2), whatever y is
    by_hand = torch.tensor([[[[0.0, 9]], [[4.0, 0]]], [[[2.0, 1]], [[8.0, 5]]]])
    assert agreed(by_hand).tolist() == pytest.approx([1.5 * 2**0.5])


def test_the_row_matches_and_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    check = drawings(recorded())
    assert check.matches
    assert check.ours.startswith("15 of 15 printed sizes")
    waiting = drawings(NONE)
    assert (waiting.matches, waiting.otherwise) == (False, "partly")
    assert waiting.note.startswith("figure 1 waits for records of cascade-refinement")
    for name, broken in (
        ("PRINTED", {**PRINTED, "output": "14x18x18"}),
        ("returned", lambda: False),
        ("clicks", lambda points, height: clicks(points, height, share=0.01)),
        ("standard_network", lambda: fine_network("image", extra=3)),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(cascade_drawings, name, broken)
            failed = drawings(recorded())
            assert (failed.matches, failed.otherwise) == (False, "not reproduced"), name
    with monkeypatch.context() as patched:
        patched.setattr(cascade_drawings, "PRINTED", {"output": "14x18x18"})
        assert "come out of the live modules (output 14x36x36, not 14x18x18)" in drawings(NONE).ours


def test_gradients_add(monkeypatch: pytest.MonkeyPatch) -> None:
    assert returned()
    assert returned(1)
    monkeypatch.setattr(cascade_drawings, "cut", lambda f, start, cells: f[:, None, :, :4, :4].expand(1, 3, 1, 4, 4))
    assert not returned()


def test_the_check_without_records(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COORDREG_RESULTS", str(tmp_path))
    assert exact()["cascade-drawings"].otherwise == "partly"


def test_answers_lie_beside_their_pictures() -> None:
    images, answers, joints = painted(Kept())
    assert images.shape == (2, 3, 32, 32)
    assert answers.shape == joints.shape == (2, 16, 2)
    assert torch.equal(joints, Figures(split="test", size=32).scene_labels(torch.arange(2)).exact)
    assert set(answers.flatten().tolist()) == {0.25}
    with pytest.raises(ValueError, match="painted: record abc was read without its run"):
        painted(Record({"key": "abc"}, Path("abc.json")))
