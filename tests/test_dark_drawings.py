"""DARK's drawings: figures 1, 2 and 5 from live tensors, and figure 3 on recorded maps."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from coordreg.coords import from_pixels, to_pixels
from coordreg.dark import Dark
from coordreg.experiments import dark_drawings
from coordreg.experiments.dark_drawings import drawings, exact, journey, modulation, painted, steps, unlike_a_gaussian
from coordreg.experiments.decoding import Scene
from coordreg.experiments.table import Results
from coordreg.records import Record

H, W = 15, 17


def bump(x: float, y: float, sigma: float = 1.0, size: tuple[int, int] = (H, W)) -> torch.Tensor:
    u, v = torch.arange(size[1]).double() - x, torch.arange(size[0]).double()[:, None] - y
    return torch.exp(-(u**2 + v**2) / (2 * sigma**2))


class Kept(Record):
    """A record that keeps these maps, whose joints lie at these places, in cells."""

    def __init__(self, maps: torch.Tensor, at: torch.Tensor) -> None:
        coords = from_pixels(at, maps.shape[-2:])
        test = SimpleNamespace(scene_labels=lambda indices: SimpleNamespace(coords=coords[indices]))
        for name, value in (("maps", maps), ("at", at), ("run", SimpleNamespace(label="16 px", test=test))):
            object.__setattr__(self, name, value)

    maps: torch.Tensor
    at: torch.Tensor

    def kept(self, name: str) -> np.ndarray:
        """Half precision, as records have it."""
        assert name == "output"
        return self.maps.half().numpy()


def found(monkeypatch: pytest.MonkeyPatch, *records: Kept) -> Results:
    """Results of these records; their caption needs whole records, and is not what is tested."""
    monkeypatch.setattr(Results, "caption", "cpu profile")
    made = Results("heatmap-resolution", "cpu", tuple(records))
    assert made.labels == ["16 px"]
    return made


def torn(seed: int, noise: float = 0.25) -> Kept:
    maps, at = Scene(sigma=1.5, noise=noise, size=15).draw(24, seed)
    return Kept(maps, at[None])


# -- figure 3 ----------------------------------------------------------------------------------------------------------


def test_a_gaussian_is_a_gaussian_and_two_are_not() -> None:
    stretched = torch.exp(-(0.2 * (torch.arange(W) - 7.3) ** 2 + 0.1 * (torch.arange(H)[:, None] - 6.6) ** 2)).double()
    two = bump(6, 7, 0.8) + bump(8, 7, 0.8)
    edge = bump(1.2, 7)
    off = unlike_a_gaussian(torch.stack([bump(7.4, 6.8), 0.2 * stretched, two, edge, torch.zeros(H, W)])[None])[0]
    assert float(off[:2].max()) < 1e-5
    assert float(off[2]) > 0.05
    assert off[3:].isnan().all()


def test_the_fit_by_a_slow_loop() -> None:
    """Weighted least squares cell by cell, by the normal equations."""
    maps = Scene(sigma=1.5, noise=0.1, size=15).draw(3, 5)[0]
    for h, wanted in zip(maps[0], unlike_a_gaussian(maps)[0], strict=True):
        y0, x0 = divmod(int(h.argmax()), 15)
        a, b, cells = torch.zeros(6, 6).double(), torch.zeros(6).double(), []
        for y in range(-2, 3):
            for x in range(-2, 3):
                share = max(float(h[y0 + y, x0 + x] / h.max()), 1e-6)
                row = torch.tensor([1, x, y, x * x, x * y, y * y]).double()
                a += share**2 * torch.outer(row, row)
                b += share**2 * math.log(share) * row
                cells.append((row, share))
        fit = torch.linalg.solve(a, b)
        rms = math.sqrt(sum((math.exp(float(row @ fit)) - share) ** 2 for row, share in cells) / 25)
        assert float(wanted) == pytest.approx(rms, rel=1e-5)


def test_modulation_mends_torn_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    check = modulation(found(monkeypatch, torn(0), torn(1)))
    assert check.matches
    assert check.ours.startswith("48 maps of 2 networks: ")
    assert "the largest value kept" in check.ours
    assert check.note.endswith("cpu profile")


def test_figure_3_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Scene(sigma=1.5, size=15).draw(24, 0)
    clean = Kept(whole[0], whole[1][None])
    assert not modulation(found(monkeypatch, clean)).matches  # nothing to mend
    assert not modulation(found(monkeypatch, torn(0), clean)).matches  # every seed must agree
    with monkeypatch.context() as patched:
        patched.setattr(dark_drawings, "decoder", lambda sigma, rescale: Dark(1, None, rescale))
        assert not modulation(found(monkeypatch, torn(0))).matches  # no blur, no repair
    monkeypatch.setattr(dark_drawings, "modulate", lambda maps, *rest: 0.5 * maps)
    assert not modulation(found(monkeypatch, torn(0))).matches


def test_painted_maps_lie_beside_their_joints() -> None:
    one = torn(3)
    maps, at = painted(one)
    assert maps.dtype == torch.float64
    torch.testing.assert_close(at, one.at)
    with pytest.raises(ValueError, match="painted: record abc was read without its run"):
        painted(Record({"key": "abc"}, Path("abc.json")))


# -- figures 1, 2 and 5 ------------------------------------------------------------------------------------------------


def test_a_joint_goes_through_a_crop_and_comes_back() -> None:
    joint, sides = torch.tensor([331.7, 218.2]), torch.tensor([240.0, 320.0])
    way = journey(torch.rand(3, 420, 560), torch.tensor([300.0, 200.0]), sides, joint)
    assert (way.crop.shape, way.output.shape, way.painted.shape) == ((1, 3, 128, 96), (1, 16, 32, 24), (1, 1, 32, 24))
    cell = 240 / 24
    corner = torch.tensor([300.0, 200.0]) - sides / 2
    here = (joint - corner) / cell - 0.5
    torch.testing.assert_close(
        way.painted[0, 0], bump(float(here[0]), float(here[1]), size=(32, 24)), atol=1e-5, rtol=0
    )
    assert way.back["argmax"].tolist() == pytest.approx((corner + cell * (here.round() + 0.5)).tolist(), abs=1e-3)
    assert way.back["DARK"].tolist() == pytest.approx(joint.tolist(), abs=0.02)
    toward = here.round() + 0.25 * (here - here.round()).sign()
    assert way.back["quarter"].tolist() == pytest.approx((corner + cell * (toward + 0.5)).tolist(), abs=1e-3)


def test_a_journey_leaves_the_random_state_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    args = torch.zeros(3, 90, 90), torch.tensor([40.0, 40.0]), torch.tensor([48.0, 64.0]), torch.tensor([44.0, 41.0])
    first, second = journey(*args), journey(*args)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.output, second.output)


@pytest.mark.parametrize("reader", [Dark(7, 1.0), Dark(9, 1.5, "range"), Dark(1)])
def test_steps_end_where_the_decoder_does(reader: Dark) -> None:
    maps = Scene(sigma=1.5, noise=0.08, size=15).draw(8, seed=4)[0]
    for h in maps[0]:
        each = steps(h, reader)
        wanted = to_pixels(reader(h[None, None]).coords, h.shape)[0, 0]
        assert each.answer.tolist() == pytest.approx(wanted.tolist(), abs=1e-6)
        assert float(each.modulated.max()) == pytest.approx(float(h.max()))
        assert float(each.logs[0, 0]) == pytest.approx(math.log(max(float(each.modulated[0, 0]), 1e-10)))
    border = steps(bump(1.2, 7), reader)
    assert border.answer.tolist() == border.cell.tolist() == [1, 7]


def test_drawings_match_and_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = torn(0, noise=0.02), torn(1, noise=0.02)
    recorded = found(monkeypatch, one, two)
    check = drawings(recorded)
    assert check.matches
    assert "picture -> 3x128x96 -> 16x32x24 -> picture: a cell is 12 px" in check.ours
    many, near = 2 * one.maps.shape[1], int(check.ours.split(" is nearer than the standard on ")[1])
    assert f"of {many} recorded joints DARK" in check.ours
    assert many / 2 < near <= many
    with monkeypatch.context() as patched:
        patched.setattr(dark_drawings, "READERS", dark_drawings.READERS[::-1])
        assert not drawings(recorded).matches  # DARK must be nearer, for every seed
    with monkeypatch.context() as patched:
        patched.setattr(dark_drawings, "invert_affine", lambda affine: affine)
        assert not drawings(recorded).matches
    monkeypatch.setattr(dark_drawings, "newton", lambda values: (0.5 * torch.ones(2).double(), values[0]))
    assert not drawings(recorded).matches


def test_rows_without_records(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COORDREG_RESULTS", str(tmp_path))
    assert exact() == {}
    monkeypatch.delenv("COORDREG_RESULTS")
    monkeypatch.setattr(dark_drawings, "results", lambda name: found(monkeypatch, torn(0)))
    assert {row for row, check in exact().items() if check.matches} == {"dark-drawings", "dark-fig3"}
