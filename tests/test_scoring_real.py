"""Scoring for records on COCO and Human3.6M: AP and OKS, millimetres by the true camera, action by action."""

from pathlib import Path
from typing import Any

import coco_fixture
import h36m_fixture
import numpy as np
import pytest
import torch

from coordreg.coords import Points
from coordreg.data.coco import COCO, COCOStore
from coordreg.data.human36m import H36MStore, Human36M
from coordreg.metrics import scoring_coco
from coordreg.metrics.oks import COCO_SIGMAS
from coordreg.metrics.scoring3d import Scores3D, Scoring3D
from coordreg.metrics.scoring_coco import ScoringCOCO
from coordreg.metrics.scoring_h36m import ScoringH36M


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> tuple[COCOStore, ScoringCOCO]:
    root = tmp_path_factory.mktemp("coco")
    coco_fixture.write(root, 8)
    return COCO(root=str(root), split="val2017", size=(40, 32)).open(), ScoringCOCO(root=str(root))


def right(data: COCOStore, score: float = 1.0) -> Points:
    """Every labelled joint where it is, the others in the middle."""
    return Points(data.coords.nan_to_num(), torch.full(data.coords.shape[:2], score))


def test_who_is_right_everywhere_has_full_marks(coco: tuple[COCOStore, ScoringCOCO]) -> None:
    data, scoring = coco
    found = scoring.score(right(data), data)
    summary = found.summary()["at"]
    assert {summary[name] for name in ("AP", "AP50", "AP75", "AP_M", "AP_L", "AR")} == {100.0}
    assert summary["oks"] == pytest.approx(100, abs=1e-3)
    images = found.images()
    assert images["oks"].tolist() == pytest.approx([1] * 8, abs=1e-3)
    assert images["count"].tolist() == [1] * 8
    assert (images["oks"].dtype, images["count"].dtype) == (np.float16, np.int8)


def test_oks_by_a_slow_loop(coco: tuple[COCOStore, ScoringCOCO]) -> None:
    data, scoring = coco
    noise = 0.05 * torch.randn(data.coords.shape, generator=torch.Generator().manual_seed(0))
    points = Points(data.coords.nan_to_num() + noise, torch.ones(data.coords.shape[:2]))
    found = scoring.score(points, data)
    for n in range(len(data)):
        each = []
        for j, sigma in enumerate(COCO_SIGMAS):
            if data.weight[n, j, 0] > 0:
                d = (data.affine[n, :, :2] @ noise[n, j]).square().sum()
                each.append(float(torch.exp(-d / (2 * data.area[n] * (2 * sigma) ** 2))))
        assert float(found.each[n]) == pytest.approx(np.mean(each), abs=1e-4)
    assert found.summary()["at"]["AP"] < 100
    assert found.summary()["at"]["oks"] == pytest.approx(100 * float(found.each.mean()), abs=1e-3)


@pytest.mark.parametrize(("least", "wanted"), [(0.2, 0.3), (0.0, 0.2)])
def test_a_persons_score_counts_joints_above_the_least(
    least: float, wanted: float, coco: tuple[COCOStore, ScoringCOCO], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, scoring = coco
    score = torch.full(data.coords.shape[:2], 0.1)
    score[:, :8], score[:, 16] = 0.3, 0.0  # eight of 0.3, eight of 0.1, one of 0
    given: list[Any] = []
    real = scoring_coco.evaluate
    monkeypatch.setattr(scoring_coco, "evaluate", lambda truth, found: given.extend(found) or real(truth, found))
    ScoringCOCO(root=scoring.root, least=least).score(Points(right(data).coords, score), data)
    assert len(given) == 8
    assert [entry["score"] for entry in given] == pytest.approx([wanted] * 8)


def test_other_data_are_refused(coco: tuple[COCOStore, ScoringCOCO], h36m: H36MStore) -> None:
    data, scoring = coco
    with pytest.raises(ValueError, match="got 7 predictions for 8 images of a COCOStore"):
        scoring.score(Points(data.coords[:7], data.weight[:7, :, 0]), data)
    with pytest.raises(ValueError, match="of a H36MStore, expected one for each box of a COCOStore"):
        scoring.score(Points(h36m.coords, h36m.weight[..., 0]), h36m)
    with pytest.raises(ValueError, match="ScoringH36M: got a COCOStore, expected an H36MStore; use Scoring3D"):
        ScoringH36M().score(right(data), data)


# -- Human3.6M ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def h36m(tmp_path_factory: pytest.TempPathFactory) -> H36MStore:
    root: Path = tmp_path_factory.mktemp("h36m")
    h36m_fixture.write_3dmppe(root, h36m_fixture.make_world(), listed=(0, 64))
    return Human36M(root=root, split="test", size=16).open()


def test_labels_in_millimetres_are_the_truth(h36m: H36MStore) -> None:
    torch.testing.assert_close(h36m.to_mm(h36m.coords).float(), h36m.truth, atol=0.05, rtol=0)


def test_errors_are_those_of_the_camera_by_hand(h36m: H36MStore) -> None:
    """The left wrist 50 mm too deep and 3 px to the right: back-projected by f, c and the true depth."""
    pred = h36m.coords.clone()
    pred[:, 13, 2] += 0.05
    pixels = 3.0
    pred[:, 13, 0] += pixels / h36m.affine[:, 0, 0]
    found = ScoringH36M(root=0).score(Points(pred, torch.ones(pred.shape[:2])), h36m)
    for n in range(len(h36m)):
        x, y, z = h36m.truth[n, 13].double().tolist()
        f, c = h36m.focal[n].double(), h36m.centre[n].double()
        u, v = f[0] * x / z + c[0] + pixels, f[1] * y / z + c[1]
        deep = z + 50
        there = np.array([float((u - c[0]) / f[0] * deep), float((v - c[1]) / f[1] * deep), deep])
        error = np.linalg.norm(there - np.array([x, y, z]))
        assert float(found.each["mpjpe"][n]) == pytest.approx(error / 17, abs=0.02)
        assert float(found.each["depth"][n]) == pytest.approx(50 / 17, abs=0.02)


def test_means_by_action(h36m: H36MStore) -> None:
    pred = h36m.coords.clone()
    pred[:, 5, 2] += 0.001 * h36m.action  # 2 to 16 mm by action, more or less
    found = ScoringH36M().score(Points(pred, torch.ones(pred.shape[:2])), h36m)
    summary = found.summary()
    actions = summary["actions"]["mpjpe"]
    present = sorted(set(h36m.action.tolist()))
    assert present == [2, 10]
    assert list(actions) == ["Dir.", "SitD.", "Avg"]
    for name, number in (("Dir.", 2), ("SitD.", 10)):
        rows = h36m.action == number
        assert actions[name] == pytest.approx(float(found.each["mpjpe"][rows].mean()), abs=0.01)
    assert actions["Dir."] < actions["SitD."]
    assert actions["Avg"] == pytest.approx(summary["at"]["mpjpe"], abs=0.01)
    plain = Scoring3D().score(Points(pred, torch.ones(pred.shape[:2])), h36m).summary()
    assert {k: v for k, v in summary.items() if k != "actions"} == plain


def test_errors_by_image_are_stored_as_finite_numbers() -> None:
    """float16 ends at 65,504: an error of 100 m is stored as that, not as infinity; those of every day as they are."""
    names = ("mpjpe", "pa_mpjpe")
    each = {name: torch.tensor([1e5, 65504.0, 2047.4, 60.2], dtype=torch.float64) for name in names}
    found = Scores3D(each, torch.ones(4, 3), (150.0,), 150.0, ("a", "b", "c")).images()
    assert set(found) == {*names, "count"}
    for name in names:
        assert found[name].dtype == np.float16
        np.testing.assert_allclose(found[name][:2].astype(float), 65504.0)
        np.testing.assert_allclose(found[name][2:].astype(float), [2047.4, 60.2], atol=0.5)
