"""The drawing of the cascade's stages: every tensor once, at a size that grows with it; and displacements."""

from collections.abc import Iterator

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from coordreg.plots.cascade import GREY, SOURCES, coarse_stages, displacements, fine_stages

COARSE = {
    "bank 1, image": "3x64x80", "bank 1, first": "8x64x80", "bank 1, second": "9x32x40",
    "bank 2, image": "3x32x40", "bank 2, first": "8x32x41", "bank 2, second": "9x16x20",
    "bank 3, image": "3x16x20", "bank 3, first": "8x16x21", "bank 3, second": "9x8x10",
    "sum": "10x8x10", "window": "11x8x10", "coarse": "5x8x10",
}  # fmt: skip
FINE = {
    "crop 1": "5x8x36x36", "fine 1, first": "4x36x36", "fine 1, second": "6x36x36", "fine 1, repeated": "7x36x36",
    "crop 2": "5x9x18x18", "fine 2, first": "4x18x18", "fine 2, second": "6x18x18", "fine 2, repeated": "7x36x37",
    "mixed": "12x36x36", "output": "5x36x36",
}  # fmt: skip


@pytest.fixture
def ax() -> Iterator[Axes]:
    yield plt.subplots()[1]
    plt.close("all")


def squares(ax: Axes) -> list[Rectangle]:
    return [p for p in ax.patches if isinstance(p, Rectangle)]


def tones(found: list[Rectangle]) -> set[str]:
    return {to_hex(p.get_facecolor()) for p in found}


def written(ax: Axes) -> list[str]:
    return [text.get_text().replace(" x ", "x") for text in ax.texts]


def test_every_stage_is_written_once(ax: Axes) -> None:
    coarse_stages(ax, COARSE)
    said = written(ax)
    assert all(said.count(size) == 1 for size in COARSE.values())
    assert tones(squares(ax)) == {*SOURCES, GREY}  # two banks are cut from
    # twelve stacks of three, and larger ones for larger tensors
    assert len(squares(ax)) == 3 * len(COARSE)
    widths = sorted({round(p.get_width(), 6) for p in squares(ax)})
    assert len(widths) == 4  # 64, 32, 16 and 8 rows
    arrows = [text for text in ax.texts if getattr(text, "arrow_patch", None) is not None]
    assert len(arrows) == 3 * 3 + 2


def test_fine_lanes_have_their_sources_colours(ax: Axes) -> None:
    fine_stages(ax, FINE)
    said = written(ax)
    assert all(said.count(size) == 1 for size in FINE.values())
    arrows = [text for text in ax.texts if getattr(text, "arrow_patch", None) is not None]
    assert len(arrows) == 2 * 4 + 1
    assert "one more" not in said
    assert tones([p for p in squares(ax) if p.get_x() < 1]) == set(SOURCES[:2])


def test_the_standard_cascade_has_one_more(ax: Axes) -> None:
    own = {f"fine {i}, own": f"3{i}x36x36" for i in (1, 2)}
    fine_stages(ax, {**FINE, **own}, tones=("#cccccc",))
    said = written(ax)
    assert "one more" in said
    assert all(said.count(size) == 1 for size in own.values())


def test_a_missing_stage_is_named(ax: Axes) -> None:
    with pytest.raises(ValueError, match="stages: got no 'mixed', expected the sizes of every stage; there are crop 1"):
        fine_stages(ax, {name: size for name, size in FINE.items() if name != "mixed"})


def test_displacements_lie_where_they_are(ax: Axes) -> None:
    counts = np.zeros((5, 5), int)
    counts[0, 3] = 7  # above, to the right
    displacements(ax, counts, 1.25, "wrist from elbow", shown=1.0)
    image = ax.images[0]
    assert list(image.get_extent()) == [-1.25, 1.25, 1.25, -1.25]
    assert np.asarray(image.get_array())[0, 3] == pytest.approx(np.log(8))
    assert ax.get_ylim() == (1.0, -1.0)  # y points down, as in pictures
    assert ax.get_title() == "wrist from elbow"
    with pytest.raises(ValueError, match=r"got counts of shape \(5, 4\)"):
        displacements(ax, counts[:, :4], 1.0, "")
