"""Figures: things are drawn on the pixels they mark, bands span the seeds, colours keep apart, nothing warns."""

import itertools
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_hex, to_rgba

from coordreg import plots
from coordreg.coords import from_pixels, to_pixels
from coordreg.plots import look

pytestmark = pytest.mark.filterwarnings("error")

STICK = SimpleNamespace(joints=("l_hand", "neck", "r_hand", "head"), bones=((0, 1), (1, 2), (1, 3)))


@pytest.fixture(autouse=True)
def fresh():
    """Every test in the house style, and no figure left open."""
    with plots.style():
        yield
    plt.close("all")


def rendered(ax: Axes) -> np.ndarray:
    """The figure as it would be saved, (rows, columns, 3) in 0..255."""
    ax.figure.canvas.draw()
    return np.asarray(ax.figure.canvas.buffer_rgba())[..., :3].astype(int)


def centroid(where: np.ndarray) -> np.ndarray:
    """Mean (x, y) of the true pixels."""
    rows, columns = np.nonzero(where)
    assert len(rows)
    return np.array([columns.mean(), rows.mean()])


def contrast(a: str, b: str) -> float:
    """WCAG contrast of two colours."""
    low, high = sorted(_luminance(c) for c in (a, b))
    return (high + 0.05) / (low + 0.05)


def _linear(colour: str) -> np.ndarray:
    value = np.array(to_rgba(colour)[:3])
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _luminance(colour: str) -> float:
    return float(_linear(colour) @ [0.2126, 0.7152, 0.0722])


# -- where things are drawn -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spot", [(0, 0), (4, 2), (6, 3)])
@pytest.mark.parametrize("normalised", [False, True])
def test_a_joint_is_drawn_on_the_pixel_it_marks(spot: tuple[int, int], normalised: bool) -> None:
    image = torch.zeros(3, 5, 7)
    image[1, spot[1], spot[0]] = 1.0
    ax = plots.picture(None, image)
    pixel = centroid((rendered(ax) == [0, 255, 0]).all(-1))
    points = torch.full((4, 2), torch.nan)
    points[1] = torch.tensor([float(spot[0]), float(spot[1])])
    if normalised:
        points = from_pixels(points, (5, 7))
    plots.skeleton(ax, points, STICK, size=(5, 7) if normalised else None, colour="#ff00ff", width=3.0)
    dot = centroid((rendered(ax) == [255, 0, 255]).all(-1))
    np.testing.assert_allclose(dot, pixel, atol=1.0)


@pytest.mark.parametrize("size", [(4, 6), (12, 18), (5, 7)])
def test_a_map_and_an_image_share_their_outer_edges(size: tuple[int, int]) -> None:
    place = from_pixels(torch.tensor([[9.0, 4.0]]), (24, 36))[0]
    image = torch.zeros(3, 24, 36)
    image[:, 4, 9] = 1.0
    x, y = to_pixels(place, size).tolist()
    ax = plots.heatmap(None, torch.zeros(size), image=image)
    bright = centroid((np.abs(rendered(ax) - 191) < 4).all(-1))  # a white pixel, dimmed to three quarters
    ax.plot([x], [y], "o", ms=4, mec="none", color="#00ff00", zorder=9)
    dot = centroid((rendered(ax) == [0, 255, 0]).all(-1))
    np.testing.assert_allclose(dot, bright, atol=1.5)
    assert ax.get_xlim() == (-0.5, size[1] - 0.5)
    assert ax.get_ylim() == (size[0] - 0.5, -0.5)


def test_the_brightest_cell_of_a_map_lies_under_its_peak() -> None:
    map = torch.zeros(5, 8)
    map[3, 6] = 2.0
    ax = plots.heatmap(None, map, peak=(6, 3), truth=(6.2, 2.9))
    cell = centroid((np.abs(rendered(ax) - np.array(to_rgba(plots.HEAT(1.0))[:3]) * 255) < 2).all(-1))
    marks = {line.get_marker(): line.get_xydata()[0] for line in ax.lines}
    assert marks["+"].tolist() == [6.2, 2.9]
    x, y = ax.transData.transform(marks["o"])
    height = rendered(ax).shape[0]
    np.testing.assert_allclose(cell, [x, height - y], atol=4)  # the ring and the cross hide some of the cell


def test_pixel_grid_lines_are_edges_and_dots_are_centres() -> None:
    ax = plots.pixel_grid(None, 3, 5, centres=True, ticks=True)
    lines = [c for c in ax.collections if isinstance(c, LineCollection)]
    xs = sorted({round(float(s[0, 0]), 3) for s in lines[0].get_segments()})
    ys = sorted({round(float(s[0, 1]), 3) for s in lines[1].get_segments()})
    assert xs == [-0.5, 0.5, 1.5, 2.5, 3.5, 4.5]
    assert ys == [-0.5, 0.5, 1.5, 2.5]
    dots = next(c for c in ax.collections if not isinstance(c, LineCollection)).get_offsets()
    assert sorted(map(tuple, np.asarray(dots).tolist())) == [(float(x), float(y)) for x in range(5) for y in range(3)]
    assert ax.yaxis_inverted()
    assert list(ax.get_xticks()) == [0, 1, 2, 3, 4]


def test_sides_hidden_and_missing_joints() -> None:
    points = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0], [np.nan, np.nan]])
    ax = plots.skeleton(None, points, STICK, visible=[True, True, False, True])
    bones = [c for c in ax.collections if isinstance(c, LineCollection)]
    assert sum(len(c.get_segments()) for c in bones) == 2  # the head is missing
    thin, thick = sorted(bones, key=lambda c: c.get_linewidths()[0])
    assert to_hex(thick.get_colors()[0]) == look.SIDES["left"]
    assert to_hex(thin.get_colors()[0]) == look.SIDES["right"]
    dots = [c for c in ax.collections if not isinstance(c, LineCollection)]
    assert [len(c.get_offsets()) for c in dots] == [2, 1]
    assert len(dots[1].get_facecolors()) == 0  # hidden: hollow


@pytest.mark.parametrize("form", ["chw float", "chw byte", "hwc", "grey"])
def test_images_in_any_form(form: str) -> None:
    value = torch.rand(3, 4, 6)
    given = {
        "chw float": value,
        "chw byte": (value * 255).byte(),
        "hwc": value.permute(1, 2, 0).numpy(),
        "grey": value[0],
    }
    ax = plots.picture(None, given[form])
    assert ax.images[0].get_array().shape == (4, 6, 3)
    assert len(plots.heatmap(None, torch.rand(2, 3), image=given[form]).images) == 2


def test_image_grid() -> None:
    figure = plots.image_grid(torch.rand(7, 3, 8, 6), torch.rand(7, 4, 2), STICK, titles=list("abcdefg"), columns=3)
    shown = [ax for ax in figure.axes if ax.axison]
    assert len(figure.axes) == 9
    assert [ax.get_title() for ax in shown] == list("abcdefg")
    assert all(ax.get_xlim() == (-0.5, 5.5) for ax in shown)


# -- charts -----------------------------------------------------------------------------------------------------------


def band(ax: Axes) -> PolyCollection:
    (found,) = [c for c in ax.collections if isinstance(c, PolyCollection)]
    return found


def test_the_band_runs_from_the_lowest_to_the_highest_seed() -> None:
    x = np.array([1.0, 2.0, 4.0])
    seeds = np.array([[1.0, 5.0, 2.0], [3.0, 4.0, 9.0], [2.0, 6.0, 7.0]])
    ax = plots.lines_with_band(None, x, {"argmax": seeds}, xlabel="size", ylabel="PCK (%)")
    vertices = band(ax).get_paths()[0].vertices
    for i, place in enumerate(x):
        ys = vertices[vertices[:, 0] == place][:, 1]
        assert ys.min() == pytest.approx(seeds[:, i].min())
        assert ys.max() == pytest.approx(seeds[:, i].max())
    np.testing.assert_allclose(ax.lines[0].get_ydata(), seeds.mean(0))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("size", "PCK (%)")
    assert to_hex(ax.lines[0].get_color()) == plots.colour("argmax")


def test_one_seed_has_no_band_and_labels_make_a_legend() -> None:
    ax = plots.lines_with_band(None, [1, 2], {"argmax": [1.0, 2.0], "ours": torch.tensor([2.0, 3.0])})
    assert not [c for c in ax.collections if isinstance(c, PolyCollection)]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["argmax", "ours"]
    assert ax.get_xlabel() == ax.get_ylabel() == ""


def test_labels_the_caller_set_are_kept() -> None:
    ax = plt.subplots()[1]
    ax.set(xlabel="mine", ylabel="also mine")
    plots.lines_with_band(ax, [1, 2], {"a": [1.0, 2.0]})
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("mine", "also mine")


def test_pck_curve() -> None:
    t = torch.linspace(0, 0.5, 51)
    ax = plots.pck_curve(None, t, {"DARK": torch.rand(3, 51) * 100, "argmax": torch.rand(51)}, unit="torsos", at=0.2)
    assert ax.get_xlabel() == "threshold (torsos)"
    assert ax.get_xlim() == (0.0, 0.5)
    assert to_hex(ax.lines[0].get_color()) == look.COLOURS["dark"]
    assert list(ax.lines[-1].get_xdata()) == [0.2, 0.2]


def test_error_histogram_counts_everything_once() -> None:
    errors = np.concatenate([np.full(30, 0.5), np.full(10, 99.0), [np.nan]])
    ax = plots.error_histogram(None, {"argmax": errors}, bins=4, limit=4.0, unit="cells")
    steps = band(ax).get_paths()[0].vertices
    assert steps[:, 1].max() == pytest.approx(75.0)
    assert steps[(steps[:, 0] > 3) & (steps[:, 0] <= 4), 1].max() == pytest.approx(25.0)  # 99 is in the last bin
    assert ax.get_xlabel() == "error (cells)"
    assert float(ax.lines[-1].get_xdata()[0]) == 0.5  # the median


def test_bars_show_every_seed() -> None:
    ax = plots.bars_with_points(None, {"H1": [80.0, 82.0, 84.0], "H2": [70.0]}, ylabel="PCKh (%)")
    dots = [c.get_offsets()[:, 1].tolist() for c in ax.collections if not isinstance(c, LineCollection)]
    assert dots == [[80.0, 82.0, 84.0], [70.0]]
    assert [p.get_height() for p in ax.patches] == pytest.approx([82.0, 70.0])
    assert ax.get_ylim()[0] == 0.0
    assert plots.bars_with_points(None, {"a": [80.0, 90.0]}, zero=False).get_ylim()[0] > 50


def test_heat_table_shows_what_is_missing() -> None:
    frame = pd.DataFrame([[1.0, np.nan], [3.0, 4.0]], index=pd.Index(["a", "b"], name="map"), columns=["x", "y"])
    ax = plots.heat_table(None, frame)
    assert {t.get_text(): t.get_position() for t in ax.texts}["–"] == (1.5, 0.5)
    assert {t.get_text() for t in ax.texts} == {"1.0", "3.0", "4.0", "–"}
    plots.heat_table(None, frame.fillna(3.0) * 0 + 1)


def test_caption_profile() -> None:
    figure, grid = plots.panels(1, 3, height=2.0)
    assert grid.shape == (1, 3)
    text = plots.caption_profile("cpu profile, 3 seeds", figure)
    assert text.get_text() == "cpu profile, 3 seeds"
    figure.canvas.draw()
    assert text.get_window_extent().y0 >= 0


# -- colours and style ------------------------------------------------------------------------------------------------

#: Machado et al. 2009, full red and green blindness, on linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "red-blind": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "green-blind": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
}


def lab(linear: np.ndarray) -> np.ndarray:
    m = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(np.maximum(m @ np.clip(linear, 0, 1) / [0.9505, 1.0, 1.089], 1e-6))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SIGHT)
def test_methods_keep_apart_for_every_sight(sight: str) -> None:
    seen = {name: lab(np.asarray(SIGHT[sight]) @ _linear(c)) for name, c in look.COLOURS.items()}
    worst = min((float(np.linalg.norm(seen[a] - seen[b])), a, b) for a, b in itertools.combinations(seen, 2))
    assert worst[0] > 20, worst


def test_contrast_on_paper() -> None:
    assert contrast(look.INK, look.PAPER) > 12
    assert contrast(look.MUTED, look.PAPER) > 4.5
    for name, value in look.COLOURS.items():
        assert contrast(value, look.PAPER) >= 3, name
    # The ground is light in both themes of the book, and the ink would not be legible on the dark page itself.
    assert contrast(look.PAPER, "#14181e") > 12
    assert contrast(look.INK, "#14181e") < 2
    lightness = [_luminance(to_hex(plots.HEAT(v))) for v in np.linspace(0, 1, 20)]
    assert all(a > b for a, b in itertools.pairwise(lightness))


def test_colours_by_name_are_fixed_and_all_differ() -> None:
    assert len(set(look.COLOURS.values())) == len(look.COLOURS)
    assert plots.colour("Quarter shift") == plots.colour("quarter")
    assert look.colours(["mine", "argmax"])["argmax"] == look.COLOURS["argmax"]
    assert len(set(look.colours(["a", "b", "argmax", "c"]).values())) == 4
    assert len(set(look.colours(["quarter", "sign"]).values())) == 2
    assert set(look.ALIASES.values()) <= set(look.COLOURS)


def test_style_is_undone_after_a_block() -> None:
    plots.style().__exit__(None, None, None)
    with mpl.rc_context({"axes.facecolor": "#123456"}):
        with plots.style():
            assert mpl.rcParams["axes.facecolor"] == look.PAPER
        assert mpl.rcParams["axes.facecolor"] == "#123456"


# -- tables -----------------------------------------------------------------------------------------------------------


def test_paper_beside_ours() -> None:
    rows = [
        {"what": "H1 <b>", "paper": 86.8, "ours": [70.0, 71.0, 72.3], "AUC": 52.9},
        {"what": "I*", "paper": None, "ours": None},
    ]
    table = plots.paper_beside_ours(rows, caption="PCKh@0.5, per cent")
    assert table.rows == (("H1 <b>", "86.8", "71.1 (70.0 to 72.3)", "52.9"), ("I*", "–", "not run", "–"))
    html = table._repr_html_()
    assert "H1 &lt;b&gt;" in html
    assert html.count("not-run") == 1
    assert "<caption>PCKh@0.5, per cent</caption>" in html
    assert html == plots.paper_beside_ours(rows, caption="PCKh@0.5, per cent")._repr_html_()
    text = repr(table).splitlines()
    assert text[0] == "PCKh@0.5, per cent"
    assert text[-1].split() == ["I*", "–", "not", "run", "–"]


# -- messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.skeleton(None, torch.zeros(3, 2), STICK), r"\(3, 2\), expected \(4, 2\)"),
        (lambda: plots.skeleton(None, torch.zeros(1, 4, 2), STICK), "one person at a time"),
        (lambda: plots.picture(None, torch.rand(3, 4, 5) * 255), r"expected \[0, 1\]; divide bytes by 255"),
        (lambda: plots.picture(None, torch.rand(4, 5, 6)), r"expected \(3, H, W\)"),
        (lambda: plots.heatmap(None, torch.rand(1, 4, 5)), r"expected \(H, W\); choose one image and one joint"),
        (lambda: plots.pixel_grid(None, 0, 3), "at least one pixel"),
        (lambda: plots.image_grid(torch.rand(0, 3, 4, 4)), "no images"),
        (lambda: plots.image_grid(torch.rand(2, 3, 4, 4), torch.rand(2, 4, 2)), "come together"),
        (lambda: plots.image_grid(torch.rand(2, 3, 4, 4), titles=["a"]), "got 1 titles for 2 images"),
        (lambda: plots.lines_with_band(None, [1, 2], {"a": np.zeros((2, 3))}), "a: got values of shape .* transpose"),
        (lambda: plots.lines_with_band(None, [1, 2], {"a": [1, 2]}, band="iqr"), "expected one of range, sd, ci, none"),
        (lambda: plots.lines_with_band(None, [1, 2], {}), "no series"),
        (lambda: plots.error_histogram(None, {"a": [np.nan]}), "no finite errors in .'a'.; are all joints unlabelled"),
        (lambda: plots.bars_with_points(None, {"a": []}), "without finite values"),
        (lambda: plots.heat_table(None, pd.DataFrame()), "empty table"),
        (lambda: plots.heat_table(None, pd.DataFrame({"a": [np.nan]})), "no finite number"),
        (lambda: plots.colour("mauve"), "got 'mauve', expected one of argmax"),
        (lambda: plots.caption_profile(" "), "empty text"),
        (lambda: plots.paper_beside_ours([]), "no rows"),
        (lambda: plots.paper_beside_ours([{"what": "a", "paper": 1}]), "lacks ours; give None"),
    ],
)
def test_messages(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_table_of_a_frame_writes_numbers_and_gaps_the_same_way_each_time() -> None:
    frame = pd.DataFrame({"@0.5": [61.25, np.nan], "seeds": ["one", "two"]}, index=pd.Index(["H1", "H2"], name="loss"))
    shown = plots.table(frame, "PCKh", ".2f")
    assert shown.head == ("loss", "@0.5", "seeds")
    assert shown.rows == (("H1", "61.25", "one"), ("H2", "not run", "two"))
    assert repr(shown) == repr(plots.table(frame, "PCKh", ".2f"))
    assert "<caption>PCKh</caption>" in shown._repr_html_()
