"""Drawings of whole networks: every size is written, a missing one is told."""

import matplotlib.pyplot as plt
import pytest

from coordreg.plots import poseur, stages

SIZES = {
    "picture": "3x64x48", "level 1": "8x16x12", "level 2": "16x8x6", "map 1": "5x16x12", "map 2": "5x8x6",
    "pooled": "16", "guess": "7x4", "queries": "7x5", "answers": "7x3",
}  # fmt: skip


def test_every_size_of_poseur_is_written_once() -> None:
    ax = poseur.network(plt.figure().add_subplot(), SIZES)
    said = "\n".join(text.get_text() for text in ax.texts).split("\n")
    for size in SIZES.values():
        assert said.count(size.replace("x", " x ")) == 1, size
    assert len([a for a in ax.texts if getattr(a, "arrow_patch", None)]) == 2 * 3 + 2 + 4


def test_a_level_more_is_a_lane_more() -> None:
    high = [
        poseur.network(plt.figure().add_subplot(), sizes).get_ylim()[1]
        for sizes in (SIZES, {**SIZES, "level 3": "32x4x3", "map 3": "5x4x3"})
    ]
    assert high[1] - high[0] == pytest.approx(1)


@pytest.mark.parametrize("name", sorted(SIZES))
def test_a_missing_size_is_told(name: str) -> None:
    left = {key: value for key, value in SIZES.items() if key != name}
    with pytest.raises(ValueError, match=f"stages: got no '{name}', expected the sizes of every stage"):
        poseur.network(plt.figure().add_subplot(), left)


def test_more_rows_are_drawn_larger() -> None:
    ax = plt.figure().add_subplot()
    halves = [stages.sheet(ax, 0, 0, f"1x{rows}x1").half for rows in (4, 8, 9, 64, 256)]
    assert halves[0] == halves[1]  # no smaller than with 8
    assert halves[1:] == sorted(set(halves))
