"""Chapter 6's figure to play with: what it draws, and what is left of it without scripts."""

import numpy as np
import pytest
import torch

from coordreg.coords import to_pixels
from coordreg.dark import Dark
from coordreg.plots.decoding import Peak


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
