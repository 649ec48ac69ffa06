"""Chapter 6's figure to play with: what it draws, and what is left of it without scripts."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from coordreg import plots
from coordreg.coords import to_pixels
from coordreg.dark import Dark
from coordreg.plots.decoding import Peak, answers, onward


def test_a_peak_is_a_gaussian_where_it_says() -> None:
    m = torch.from_numpy(Peak(x=9.3, y=4.6, sigma=1.1).draw())
    assert m.shape == (11, 16)
    assert to_pixels(Dark(1)(m[None, None]).coords, m.shape)[0, 0].tolist() == pytest.approx([9.3, 4.6])
    assert float(m[5, 9]) == pytest.approx(np.exp(-(0.3**2 + 0.4**2) / (2 * 1.1**2)))


def test_noise_and_a_second_peak_are_added() -> None:
    plain = Peak().draw()
    noise = Peak(noise=0.4).draw() - plain
    assert 0.3 < np.abs(noise).max() <= 0.4
    assert abs(noise.mean()) < 0.1
    second = Peak(second=0.5).draw() - plain
    assert second == pytest.approx(0.5 * Peak(x=10.35, y=6.2).draw())


def test_a_peak_says_what_it_shows_without_scripts() -> None:
    page = Peak(x=6.35, noise=0.25)._repr_html_()
    assert page == Peak(x=6.35, noise=0.25)._repr_html_()
    assert 'data-x="6.35"' in page
    assert 'data-noise="0.25"' in page
    assert "a peak at (6.35, 5.2) under 16 x 11 cells" in page.split("<style>")[0]
    assert page.count("http") == 1  # the name of SVG's own language, which nobody fetches


def test_a_peak_outside_is_refused() -> None:
    with pytest.raises(ValueError, match=r"x=16.*from 0 to 15 and 10 cells"):
        Peak(x=16)
    with pytest.raises(ValueError, match=r"sigma from 0\.6 to 2\.5"):
        Peak(sigma=0.02)
    with pytest.raises(ValueError, match="second from 0 to 1, as far as its sliders go"):
        Peak(second=1.5)


# -- marks and arrows --------------------------------------------------------------------------------------------------


def test_answers_lie_where_they_were_found() -> None:
    fig, ax = plt.subplots()
    places = {"DARK": torch.tensor([3.4, 2.1]), "argmax": torch.tensor([3, 2]), "quarter": [3.25, 2.25]}
    assert answers(ax, places, truth=(3.5, 2.0)) is ax
    drawn = [(str(line.get_marker()), tuple(np.array(line.get_xydata()).round(4)[0].tolist())) for line in ax.lines]
    found = dict(drawn)
    assert found["+"] == (3.5, 2.0)
    assert found["s"] == (3.25, 2.25)
    assert sorted(place for marker, place in drawn if marker == "o") == [(3.0, 2.0), (3.4, 2.1)]
    square = next(line for line in ax.lines if line.get_marker() == "s")
    assert to_hex(square.get_color()) == plots.colour("quarter")
    answers(ax, {})
    assert len(ax.lines) == 4
    with pytest.raises(ValueError, match='answers: got dark, Newton, expected "argmax", "quarter" or "DARK"'):
        answers(ax, {"dark": (1, 2), "Newton": (1, 2), "argmax": (0, 0)})
    plt.close(fig)


def test_onward_draws_an_arrow_for_each_pair() -> None:
    fig, row = plt.subplots(1, 3)
    onward(row, ("read", "back\nin pixels"))
    arrows = [t for ax in row for t in ax.texts if t.arrow_patch is not None]
    said = [t.get_text() for ax in row for t in ax.texts if t.get_text()]
    assert (len(arrows), said) == (2, ["read", "back", "in pixels"])
    assert not row[2].texts
    assert not any(t.get_in_layout() for ax in row for t in ax.texts)
    fig.canvas.draw()
    for arrow, left, right in zip(arrows, row, row[1:], strict=False):
        box = arrow.arrow_patch.get_window_extent()
        assert left.get_window_extent().x1 < box.x0 < box.x1 < right.get_window_extent().x0
    onward(row)
    assert sum(t.arrow_patch is not None for ax in row for t in ax.texts) == 4
    with pytest.raises(ValueError, match="onward: got 3 texts for 3 panels, expected one fewer"):
        onward(row, ("a", "b", "c"))
    plt.close(fig)
