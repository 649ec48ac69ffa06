"""The score near the border, by hand."""

import numpy as np
import pytest
import torch

from coordreg.coords import Points
from coordreg.data.store import Store
from coordreg.metrics.borders import Borders


def _store(coords: torch.Tensor) -> Store:
    n, j, d = coords.shape
    affine = torch.zeros(n, d, d + 1)
    affine[:, 0, 0] = affine[:, 1, 1] = 50.0
    return Store(
        images=torch.zeros(n, 3, 8, 8, dtype=torch.uint8), coords=coords, weight=torch.ones_like(coords),
        visible=torch.ones(n, j, dtype=torch.bool), normaliser=torch.full((n,), 10.0), affine=affine,
        pairs=(), joints=tuple(f"joint {i}" for i in range(j)),
    )  # fmt: skip


#: Image 0: two joints near a border, two inside. Image 1: one near, at the top; three inside. Image 2: none near.
COORDS = torch.tensor(
    [
        [[-0.95, 0.0], [0.9, 0.1], [0.1, 0.2], [0.0, 0.0]],
        [[0.0, -0.85], [0.5, 0.5], [0.3, 0.3], [0.79, 0.0]],
        [[0.0, 0.0], [0.1, 0.1], [0.2, 0.2], [0.3, 0.3]],
    ]
)


def _points(wrong: list[tuple[int, int]]) -> Points:
    coords = COORDS.clone()
    for image, joint in wrong:
        coords[image, joint, 0] += 0.2  # 10 pixels, one normaliser
    return Points(coords, torch.ones(coords.shape[:2]))


def test_hits_are_counted_by_hand() -> None:
    found = Borders(at=(0.5,), within=0.1).score(_points([(0, 0), (0, 2), (1, 1)]), _store(COORDS))
    said = found.summary()
    assert said["edge"] == pytest.approx(100 * (1 / 2 + 1) / 2, abs=1e-3)  # image 2 has no joint near a border
    assert said["inner"] == pytest.approx(100 * (1 / 2 + 2 / 3) / 2, abs=1e-3)
    assert said["gain"] == pytest.approx(100 * (0 + 1 / 3) / 2, abs=1e-3)
    assert said["at"] == {"0.5": 75.0}  # over all twelve joints of all images
    each = found.images()
    assert each["count"].tolist() == [1, 1, 0]
    np.testing.assert_allclose(each["edge"][:2], [0.5, 1.0])
    np.testing.assert_allclose(each["inner"][:2], [0.5, 2 / 3], atol=1e-3)
    np.testing.assert_allclose(each["gain"][:2], [0.0, 1 / 3], atol=1e-3)
    assert each["0.5"].tolist() == [0.5, 0.75, 1.0]


def test_a_summary_says_what_a_claim_is_judged_by() -> None:
    """The mean of each metric by image, weighed by the count as `claims.judge` weighs it, is that of the summary."""
    torch.manual_seed(0)
    coords = 2 * torch.rand(7, 3, 2) - 1
    found = Borders(at=(0.5,), within=0.1).score(
        Points(coords + 0.1 * torch.randn(7, 3, 2), torch.ones(7, 3)), _store(coords)
    )
    said, each = found.summary(), found.images()
    assert 2 <= each["count"].sum() < 7
    for name in ("edge", "inner", "gain"):
        mean = (each[name].astype(float) * each["count"]).sum() / each["count"].sum()
        assert said[name] == pytest.approx(100 * mean, abs=0.05), name
    assert said["gain"] == pytest.approx(said["edge"] - said["inner"], abs=2e-3)


def test_without_images_of_both_kinds_there_is_no_mean() -> None:
    inside = COORDS[2:].expand(3, -1, -1)
    with pytest.raises(ValueError, match=r"Borders: none of 3 images has labelled joints both within 0\.1 of a border"):
        Borders(within=0.1).score(Points(inside, torch.ones(3, 4)), _store(inside)).summary()


def test_excluded_joints_enter_neither_side() -> None:
    found = Borders(at=(0.5,), exclude=(0,), within=0.1).score(_points([(0, 0), (1, 0)]), _store(COORDS))
    assert found.summary()["edge"] == 100.0
    assert found.images()["count"].tolist() == [1, 0, 0]


def test_the_width_of_the_border() -> None:
    wide = Borders(at=(0.5,), within=0.11).score(_points([(1, 3)]), _store(COORDS))
    # 0.79 is near a border of 0.22 now, and missed: of image 0 two of two are hit, of image 1 one of two
    assert wide.summary()["edge"] == pytest.approx(100 * (1 + 1 / 2) / 2)
    with pytest.raises(ValueError, match=r"Borders: got within=0.5, expected a share of the width"):
        Borders(within=0.5)
