"""Chapter 6's figure to play with: what it draws and reads in Python, against the library."""

import math

import pytest
import torch

from coordreg.coords import to_pixels
from coordreg.dark import Dark
from coordreg.heatmap import Argmax, QuarterSign
from coordreg.plots.decoding import Peak


@pytest.mark.parametrize(
    "peak",
    [
        Peak(),
        Peak(x=9.8, y=3.1, sigma=0.8, noise=0.3),
        Peak(second=0.7),
        Peak(x=0.2, y=0.0),
        Peak(x=15, y=10, noise=0.5),
    ],
)
def test_a_peak_is_read_as_the_library_reads_it(peak: Peak) -> None:
    m = torch.tensor(peak.draw())[None, None]
    found = peak.read()
    decoders = {
        "argmax": Argmax(),
        "quarter": QuarterSign(),
        "DARK": Dark(2 * math.ceil(3 * peak.sigma) + 1, peak.sigma),
    }
    for name, decoder in decoders.items():
        assert found[name] == pytest.approx(to_pixels(decoder(m).coords, m.shape[-2:])[0, 0].tolist(), abs=1e-6), name
    p = m[0, 0].clamp_min(0) / m.clamp_min(0).sum()
    mean = [float((p.sum(0) * torch.arange(16.0)).sum()), float((p.sum(1) * torch.arange(11.0)).sum())]
    assert found["mean"] == pytest.approx(mean)


def test_a_peak_says_what_it_shows_without_scripts() -> None:
    page = Peak(x=6.35, noise=0.25)._repr_html_()
    assert page == Peak(x=6.35, noise=0.25)._repr_html_()
    assert 'data-x="6.35"' in page
    assert 'data-noise="0.25"' in page
    assert "DARK (" in page.split("<style>")[0]
    assert page.count("http") == 1  # the name of SVG's own language, which nobody fetches
    assert Peak(noise=0.2).draw().std() != Peak().draw().std()


def test_a_peak_outside_is_refused() -> None:
    with pytest.raises(ValueError, match=r"x=16.*from 0 to 15 and 10 cells"):
        Peak(x=16)
    with pytest.raises(ValueError, match="a width above 0"):
        Peak(sigma=0)
    with pytest.raises(ValueError, match="noise and second from 0 to 1"):
        Peak(second=1.5)
