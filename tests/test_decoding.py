"""DARK's exact rows: counts against the paper's print, and errors of decoders on maps whose truth is known."""

import math

import pytest

from coordreg.coords import to_pixels
from coordreg.dark import Dark
from coordreg.experiments import decoding
from coordreg.experiments.decoding import DECODERS, TABLE5, Scene, counted, exact, miss
from coordreg.heatmap import Argmax


def test_scenes_hold_what_they_say() -> None:
    maps, at = Scene().draw(50)
    assert maps.shape == (1, 50, 31, 31)
    assert bool((maps.amax((-2, -1)) > math.exp(-0.25 / 4)).all())
    assert float((at - 15).abs().max()) <= 0.5
    maps, at = Scene(border=2.6).draw(20)
    assert at[:, 0].tolist() == pytest.approx([2.1] * 20)
    assert len(at[:, 1].unique()) == 20
    twice, _ = Scene(second=0.6, apart=9.0).draw(20)
    assert float((twice - Scene().draw(20)[0]).amax((-2, -1)).min()) > 0.55
    noisy = Scene(noise=0.1).draw(20)[0] - Scene().draw(20)[0]
    assert float(noisy.std()) == pytest.approx(0.1, rel=0.05)


def test_clean_gaussians_err_by_what_each_decoder_rounds() -> None:
    assert miss(DECODERS["argmax"], Scene(), 4000) == pytest.approx(math.sqrt(1 / 6), rel=0.03)
    assert miss(DECODERS["quarter, by sign"], Scene(), 4000) == pytest.approx(math.sqrt(1 / 24), rel=0.03)
    assert miss(DECODERS["DARK, no blur"], Scene()) < 1e-9
    assert miss(DECODERS["DARK"], Scene()) < 1e-3


def test_miss_by_a_slow_loop() -> None:
    scene = Scene(noise=0.05)
    maps, at = scene.draw(30, seed=4)
    errors = [
        float((to_pixels(Argmax()(maps[:, i : i + 1]).coords, (31, 31))[0, 0] - at[i]).square().sum())
        for i in range(30)
    ]
    assert miss(Argmax(), scene, 30, seed=4) == pytest.approx(math.sqrt(sum(errors) / 30))


def test_what_modulation_is_for_and_what_it_costs() -> None:
    noisy, double = Scene(noise=0.05), Scene(second=0.6)
    assert miss(Dark(11), noisy) < 0.3 * miss(Dark(1), noisy)
    assert miss(Dark(11), double) > 1.5 * miss(Dark(1), double)


def test_table_5_but_for_its_misprint() -> None:
    found = exact()
    assert set(found) == {"dark-tab1", "dark-tab4", "dark-tab5", "dark-tab7"}
    assert [check.matches for check in found.values()] == [True, True, False, True]
    assert found["dark-tab5"].note.startswith("Hourglass-8 has 25.6M parameters, printed 25.1M; G is")
    assert set(TABLE5) == {line.split()[0] for line in found["dark-tab5"].ours.split("; ")}
    params, true, published = counted("SimpleBaseline-R50")
    assert params == pytest.approx(33.999697)
    assert true == pytest.approx(1.357, abs=0.001)  # transposed convolutions by their input
    assert published == pytest.approx(2.248, abs=0.001)
    assert counted("HRNet-W32")[0] == pytest.approx(28.536113)


def test_printed_numbers_are_told_from_others() -> None:
    assert decoding._near(2.248, 2.3)
    assert decoding._near(3.654, 3.6)
    assert not decoding._near(25.6, 25.1)
    assert not decoding._near(1.91, 1.8)
