"""Pictures for maps read by their mean: blobs are counted as by a slow loop, marks lie where they must."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from matplotlib.patches import FancyArrowPatch

from coordreg import plots
from coordreg.plots.expectation import BACKWARD, FORWARD, PULL, TwoBumps, flow, maxima, mode_and_mean, not_run, pull

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def fresh():
    """Every test in the house style, and no figure left open."""
    with plots.style():
        yield
    plt.close("all")


def slow_maxima(values: list[list[float]], share: float) -> int:
    """Cell by cell: not below any neighbour, and above those that come earlier in reading order."""
    height, width = len(values), len(values[0])
    top = max(map(max, values))
    count = 0
    for r in range(height):
        for c in range(width):
            v = values[r][c]
            good = v > share * top and v > 0
            for rr in range(max(0, r - 1), min(height, r + 2)):
                for cc in range(max(0, c - 1), min(width, c + 2)):
                    if (rr, cc) < (r, c):
                        good = good and v > values[rr][cc]
                    elif (rr, cc) > (r, c):
                        good = good and v >= values[rr][cc]
            count += good
    return count


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.3, 0.5, 0.9]), st.booleans())
def test_maxima_equal_the_slow_loop(seed: int, share: float, coarse: bool) -> None:
    maps = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(seed))
    if coarse:  # ties
        maps = (3 * maps).round()
    found = maxima(maps, share)
    assert found.shape == (2, 3)
    for b in range(2):
        for j in range(3):
            assert int(found[b, j]) == slow_maxima(maps[b, j].tolist(), share)


def test_maxima_by_hand() -> None:
    one = torch.zeros(6, 5)
    one[2, 3] = 1.0
    four = torch.zeros(6, 5)
    four[[1, 1, 4, 4], [1, 3, 1, 3]] = torch.tensor([1.0, 0.9, 0.51, 0.5])
    ridge = torch.zeros(6, 5)
    ridge[2, 1:4] = 1.0
    assert maxima(torch.stack([one, four, ridge, torch.zeros(6, 5), -one])).tolist() == [1, 3, 1, 0, 0]
    assert int(maxima(four, 0.95)) == 1
    with pytest.raises(ValueError, match=r"share=1.*from 0 up to"):
        maxima(one, 1)


def test_maxima_ignore_cells_beyond_the_border() -> None:
    corner = -torch.ones(4, 6)
    corner[0, 0] = 0.2
    assert int(maxima(corner)) == 1


def test_pull_shows_what_descent_raises() -> None:
    gradient = torch.zeros(4, 6)
    gradient[1, 2], gradient[3, 5] = -2.0, 1.0
    ax = pull(None, gradient, truth=(2, 1), at=(5, 3))
    shown = ax.images[0]
    assert shown.get_cmap().name == PULL.name
    assert np.asarray(shown.get_array())[1, 2] == 2.0
    assert shown.get_clim() == (-2.0, 2.0)
    assert [line.get_marker() for line in ax.get_lines()] == ["o", "+"]
    assert [float(v) for v in ax.get_lines()[1].get_xydata()[0]] == [2.0, 1.0]
    red, blue = PULL(1.0), PULL(0.0)
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    pull(None, torch.zeros(4, 6)).figure.canvas.draw()
    with pytest.raises(ValueError, match=r"pull: got a gradient of shape \(1, 4, 6\)"):
        pull(None, gradient[None])


def test_mode_and_mean_lie_where_they_are() -> None:
    ax = mode_and_mean(None, [0.0, 0.6, 0.0, 0.0, 0.4], truth=1.0)
    at = {line.get_label(): float(line.get_xdata()[0]) for line in ax.get_lines()}
    assert at["mode"] == 1.0
    assert at["mean"] == pytest.approx(2.2)
    assert len(ax.patches) == 5
    for bad in ([0.0, 0.0], [0.5, -0.1], [[1.0, 2.0]]):
        with pytest.raises(ValueError, match="mode_and_mean"):
            mode_and_mean(None, bad)


def arrows(ax: plt.Axes) -> dict[str, int]:
    found = [p for p in ax.patches if isinstance(p, FancyArrowPatch)]
    tint = [plt.matplotlib.colors.to_hex(p.get_edgecolor()) for p in found]
    return {"forward": tint.count(FORWARD), "backward": tint.count(BACKWARD)}


def test_flow_draws_gradients_only_where_they_arrive() -> None:
    steps = ["image", "network", "map", "argmax", "point"]
    cut = flow(None, steps, [True, True, True, False, False], "MSE", 2, "HM")
    assert arrows(cut) == {"forward": 4 + 1, "backward": 2 + 1}
    whole = flow(None, steps, [True] * 5, "distance", 4)
    assert arrows(whole) == {"forward": 5, "backward": 5}
    assert {t.get_text() for t in cut.texts} == {*steps, "MSE"}
    with pytest.raises(ValueError, match="5 steps, 1 in reached"):
        flow(None, steps, [True], "MSE", 0)
    with pytest.raises(ValueError, match=r"step 4, 'point'.*no gradient"):
        flow(None, steps, [True, True, True, False, False], "MSE", 4)


def test_an_empty_place_says_so() -> None:
    _, (left, right) = plt.subplots(1, 2)
    assert not_run(SimpleNamespace(profile=None), left, right)
    assert [t.get_text() for ax in (left, right) for t in ax.texts] == ["not run", "not run"]
    assert not not_run(SimpleNamespace(profile="cpu"), left)
    assert len(left.texts) == 1


def test_two_bumps_begin_where_they_are_told() -> None:
    near, far = TwoBumps(share=0.0), TwoBumps(place=18.0, share=0.25)
    assert near.read() == (6, pytest.approx(6.4, abs=1e-3))
    assert far.read() == (6, pytest.approx(0.75 * 6.4 + 0.25 * 18.0, abs=1e-3))
    assert TwoBumps(place=18.0, share=0.75).read()[0] == 18
    page = far._repr_html_()
    assert page == TwoBumps(place=18.0, share=0.25)._repr_html_()
    assert 'data-place="18" data-share="0.25"' in page
    assert "mean 9.30" in repr(far)
    assert "mean 9.30" in page  # what a reader without scripts sees
    assert page.count("http") == 1  # the name of SVG's own language, which nobody fetches
    with pytest.raises(ValueError, match=r"place=24.*from 0 to 23 cells"):
        TwoBumps(place=24)
