"""Drawings of what queries look at: names, widths and areas by hand, and what is refused."""

from collections.abc import Iterator

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.text import Annotation

from coordreg.data.skeletons import MPII16
from coordreg.plots.poseur import DOT, LINE, attention, between, looks, spelt

IMAGE = np.full((3, 40, 60), 0.5)


@pytest.fixture
def ax() -> Iterator[Axes]:
    yield plt.subplots()[1]
    plt.close("all")


def test_names() -> None:
    assert [spelt(name) for name in ("l_wrist", "r_upper_arm", "head_top", "pelvis")] == [
        "left wrist", "right upper arm", "head top", "pelvis",
    ]  # fmt: skip


def test_a_matrix_names_its_joints_and_keeps_its_scale(ax: Axes) -> None:
    shares = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
    attention(ax, shares, ("l_knee", "r_knee", "pelvis"), "layer 2", most=0.9)
    (image,) = ax.images
    assert image.get_clim() == (0, 0.9)
    np.testing.assert_array_equal(np.asarray(image.get_array()), shares)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["left knee", "right knee", "pelvis"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["left knee", "right knee", "pelvis"]
    assert ax.get_title() == "layer 2"
    with pytest.raises(ValueError, match=r"got shares of shape \(2, 3, 3\) for 3 joints.*average over heads"):
        attention(ax, np.stack([shares] * 2), ("a", "b", "c"), "", 1.0)


def test_lines_are_as_wide_as_the_attention(ax: Axes) -> None:
    points = np.stack([np.arange(16) * 3.0, np.arange(16) * 2.0], -1)
    shares = np.arange(16) / 120
    between(ax, IMAGE, points, shares, 13, MPII16)
    lines = [line for line in ax.lines if line.get_linestyle() == "-"]
    assert len(lines) == 15
    for line, other in zip(lines, [k for k in range(16) if k != 13], strict=True):
        assert line.get_linewidth() == pytest.approx(LINE * other / 120)
        np.testing.assert_array_equal(line.get_xydata(), points[[13, other]])
    assert ax.get_xlim() == (-0.5, 59.5)
    with pytest.raises(ValueError, match=r"points of shape \(15, 2\).*expected \(16, 2\) and \(16,\)"):
        between(ax, IMAGE, points[1:], shares, 13, MPII16)
    for joint in (-1, 16):
        with pytest.raises(ValueError, match=rf"got joint {joint}, expected one from 0 to 15; give its place"):
            between(ax, IMAGE, points, shares, joint, MPII16)


def test_dots_are_as_large_as_the_attention_and_the_frame_stays(ax: Axes) -> None:
    at = np.array([[[10.0, 5.0], [100.0, 5.0], [20.0, -30.0]]])
    share = np.array([[0.5, 0.3, 0.2]])
    looks(ax, IMAGE, (12.0, 6.0), at, share, (14.0, 9.0), (15.0, 9.0))
    (dots,) = (found for found in ax.collections if isinstance(found, PathCollection))
    np.testing.assert_allclose(dots.get_sizes(), DOT * share[0])
    np.testing.assert_array_equal(dots.get_offsets(), at[0])
    ring, cross = (np.asarray(line.get_xydata())[0].tolist() for line in ax.lines)
    assert (ring, cross) == ([12.0, 6.0], [15.0, 9.0])
    (arrow,) = (text for text in ax.texts if isinstance(text, Annotation))
    assert (arrow.xy, arrow.get_position()) == ((14.0, 9.0), (12.0, 6.0))
    assert (ax.get_xlim(), ax.get_ylim()) == ((-0.5, 59.5), (39.5, -0.5))
    looks(ax, IMAGE, (12.0, 6.0), at, share, (14.0, 9.0))
    assert len(ax.lines) == 3  # no second cross
    with pytest.raises(ValueError, match=r"places of shape \(1, 3, 2\) with shares of shape \(3,\)"):
        looks(ax, IMAGE, (0, 0), at, share[0], (1, 1))
