"""People and volumes in space: views against rotations by hand, marginals against sums, and the page's script."""

import html
import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection, PolyCollection

from coordreg import plots
from coordreg.plots import space

pytestmark = pytest.mark.filterwarnings("error")

STICK = SimpleNamespace(joints=("l_hand", "neck", "r_hand", "head"), bones=((0, 1), (1, 2), (1, 3)))
POSE = torch.tensor([[40.0, 10, 20], [0, 0, 0], [-40, 10, 0], [0, -60, -5]])


@pytest.fixture(autouse=True)
def fresh():
    """Every test in the house style, and no figure left open."""
    with plots.style():
        yield
    plt.close("all")


# -- views -------------------------------------------------------------------------------------------------------------


def test_the_named_views_by_hand():
    x, y, z = 2.0, 3.0, 5.0
    point = np.array([x, y, z])
    assert np.allclose(space.turned(point, *space.VIEWS["front"]), [x, y, z])
    # from the right of the picture, what is far lies to the right, and what was right is near
    assert np.allclose(space.turned(point, *space.VIEWS["right"]), [z, y, -x])
    # from above, what is far lies at the top, and what was low is far
    assert np.allclose(space.turned(point, *space.VIEWS["above"]), [x, -z, y])


@given(st.floats(-180, 180), st.floats(-90, 90))
def test_turning_keeps_lengths_and_handedness(yaw: float, pitch: float):
    axes = space.turned(np.eye(3), yaw, pitch)  # rows: where x, y and z go
    assert np.allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(axes) == pytest.approx(1)


def test_points_need_three_axes():
    with pytest.raises(ValueError, match=r"shape \(4, 2\).*x, y and z"):
        space.turned(POSE[:, :2])


# -- skeletons ---------------------------------------------------------------------------------------------------------


def test_a_bone_lies_where_its_view_puts_it():
    ax = space.skeleton3d(None, POSE, STICK, space.VIEWS["right"])
    middle = (POSE.amin(0) + POSE.amax(0)) / 2
    wanted = space.turned(POSE - middle, 90, 0)[:, :2]
    drawn = [c.get_segments()[0] for c in ax.collections if isinstance(c, LineCollection)]
    for a, b in STICK.bones:
        assert any(np.allclose(line, wanted[[a, b]]) for line in drawn), (a, b)
    left = next(c for c in ax.collections if isinstance(c, LineCollection) and c.get_linewidth()[0] < 3)
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # y points down
    assert left.get_segments()[0].shape == (2, 2)


def test_nearer_bones_cover_farther_ones():
    ax = space.skeleton3d(None, POSE, STICK)
    order = {}
    for c in ax.collections:
        if isinstance(c, LineCollection):
            order[tuple(np.round(c.get_segments()[0].ravel(), 3))] = c.get_zorder()
    flat = (POSE - (POSE.amin(0) + POSE.amax(0)) / 2).numpy()
    height = {b: order[tuple(np.round(flat[list(b), :2].ravel(), 3))] for b in STICK.bones}
    assert height[(1, 3)] > height[(1, 2)] > height[(0, 1)]  # depths -5, 0 and 20 in sum


def test_the_truth_fixes_the_frame():
    off = POSE + torch.tensor([500.0, 0, 0])
    ax = space.skeleton3d(None, off, STICK, truth=POSE, reach=100)
    assert ax.get_xlim() == (-100, 100)
    points = ax.collections[-1].get_offsets()
    assert points[1, 0] == pytest.approx(500 - float((POSE[:, 0].min() + POSE[:, 0].max()) / 2))


@pytest.mark.parametrize("bad", [POSE[:3], POSE[:, :2], POSE * torch.nan])
def test_poses_are_checked(bad: torch.Tensor):
    with pytest.raises(ValueError, match=r"skeleton3d: got points of shape .*expected \(4, 3\) finite"):
        space.skeleton3d(None, bad, STICK)


# -- volumes -----------------------------------------------------------------------------------------------------------


def test_marginals_hang_along_their_axes():
    p = np.zeros((3, 4, 5))  # (D, H, W)
    p[2, 1, 3], p[0, 1, 3] = 3, 1
    ax = space.volume(None, p)
    bars = [c for c in ax.collections if isinstance(c, PolyCollection)]
    assert [len(c.get_paths()) for c in bars] == [5, 4, 3]  # x, y, z

    def heights(c: PolyCollection) -> list[float]:
        return [float(np.linalg.norm(path.vertices[3] - path.vertices[0])) for path in c.get_paths()]

    assert int(np.argmax(heights(bars[0]))) == 3
    assert int(np.argmax(heights(bars[1]))) == 1
    z = heights(bars[2])
    assert z[0] / z[2] == pytest.approx(1 / 3)
    assert z[1] == 0


def test_cells_too_faint_are_left_out():
    p = np.full((2, 3, 4), 0.001)
    p[1, 2, 3] = 1
    assert len(space.volume(None, p, marginals=False).collections[-1].get_offsets()) == 1
    assert len(space.volume(None, p, marginals=False, least=0).collections[-1].get_offsets()) == 24


@pytest.mark.parametrize("bad", [np.ones((3, 4)), -np.ones((2, 3, 4)), np.zeros((2, 3, 4)), np.full((2, 3, 4), np.nan)])
def test_volumes_are_checked(bad: np.ndarray):
    with pytest.raises(ValueError, match=r"expected \(D, H, W\).*probabilities, not logits"):
        space.volume(None, bad)


def test_a_marginal_is_bars():
    ax = space.marginal(None, torch.tensor([0.1, 0.6, 0.3]), 2, target=torch.tensor([0.0, 1, 0]), mean=1.2)
    assert [round(float(bar.get_height()), 3) for bar in ax.patches if hasattr(bar, "get_height")][:3] == [
        0.1,
        0.6,
        0.3,
    ]
    assert ax.get_xlabel() == "z (cells)"
    with pytest.raises(ValueError, match=r"shape \(2, 3\) and axis 0"):
        space.marginal(None, torch.ones(2, 3), 0)


# -- the figure that turns ---------------------------------------------------------------------------------------------


def figure(**knobs: object) -> space.Turnable:
    people = [("first <b>", POSE, POSE + 3), ("second", 2 * POSE, None)]
    return space.turnable(people, STICK, "A stick & three bones.", **knobs)  # type: ignore[arg-type]


def test_the_same_input_gives_the_same_page_and_nothing_is_fetched():
    text = figure(images=[torch.zeros(3, 4, 5), torch.ones(3, 4, 5)])._repr_html_()
    assert text == figure(images=[torch.zeros(3, 4, 5), torch.ones(3, 4, 5)])._repr_html_()
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text)
    assert len(re.findall(r"data:image/png;base64,", text)) == 3  # the one shown, and one a person
    assert repr(figure()) == "A stick & three bones. (2 people; a figure to turn)"


def test_the_page_shows_the_first_person_without_a_script():
    text = figure(view=(90.0, 0.0))._repr_html_()
    lines = re.findall(r'<line class="(\w+)" x1="(.*?)" y1="(.*?)" x2="(.*?)" y2="(.*?)"', text)
    assert [line[0] for line in lines] == ["grey"] * 3 + ["left", "right", "middle"]
    unit = np.array(json.loads(re.search(r'json">(.*?)</script>', text).group(1))["people"][0]["points"])  # type: ignore[union-attr]
    flat = 100 * space.turned(unit, 90, 0)
    assert np.allclose([float(v) for v in lines[3][1:]], [*flat[0, :2], *flat[1, :2]], atol=0.051)
    assert np.abs(unit).max() <= 1
    assert html.escape("A stick & three bones.") in text
    assert "first &lt;b&gt;" in text
    assert "first <b>" not in text


def test_what_a_figure_needs():
    with pytest.raises(ValueError, match="no people"):
        space.turnable([], STICK, "alt")
    with pytest.raises(ValueError, match="empty alt"):
        space.turnable([("one", POSE, None)], STICK, " ")
    with pytest.raises(ValueError, match="2 images for 1 people"):
        space.turnable([("one", POSE, None)], STICK, "alt", images=[torch.zeros(3, 4, 4)] * 2)
    with pytest.raises(ValueError, match=r"turnable: got points of shape \(3, 3\)"):
        space.turnable([("one", POSE[:3], None)], STICK, "alt")


@pytest.mark.browser
def test_the_script_turns_what_python_turns(tmp_path):
    found = next((p for p in map(shutil.which, ("/usr/bin/chromium", "chromium", "google-chrome")) if p), None)
    if found is None:
        pytest.skip("no Chromium: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")
    page_file = tmp_path / "page.html"
    page_file.write_text(f"<!doctype html><html><body>{figure()._repr_html_()}</body></html>")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, headless=True, args=["--no-sandbox"])
        page, seen = browser.new_page(), []
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else seen.append(r.url))
        page.goto(page_file.as_uri())
        page.get_by_label("Turn").focus()
        for _ in range(3):
            page.keyboard.press("ArrowRight")
        page.get_by_label("Tilt").fill("40")
        data = json.loads(page.locator('script[type="application/json"]').text_content() or "")
        drawn = page.evaluate(
            "[...document.querySelectorAll('line.left')].map(e => ['x1','y1','x2','y2'].map(k => +e.getAttribute(k)))"
        )
        flat = 100 * space.turned(np.array(data["people"][0]["points"]), 35 + 3, 40)
        assert np.allclose(drawn[0], [*flat[0, :2], *flat[1, :2]], atol=0.06)
        page.get_by_label("Person").select_option("1")
        page.get_by_role("button", name="Above").click()
        label = page.locator("svg").get_attribute("aria-label") or ""
        assert "second, seen from 0 degrees to the right, 90 degrees up" in label
        box = page.locator("svg").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + 50, box["y"] + 50)
        page.mouse.down()
        page.mouse.move(box["x"] + 100, box["y"] + 50)
        page.mouse.up()
        assert page.evaluate("document.querySelector('figure').turned.yaw") == pytest.approx(-30)
        browser.close()
    assert seen == []
