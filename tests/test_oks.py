"""OKS: values by hand, pycocotools as the peer, properties, messages."""

import contextlib
import io
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coordreg.metrics.oks import COCO_SIGMAS, oks, similarity


def test_by_hand() -> None:
    # sigma 0.05 means k = 0.1; with an area of 400 the Gaussian's width is 0.1 * 20 = 2 px.
    points = torch.tensor([[[2.0, 0.0], [0.0, 0.0], [4.0, 0.0]]], dtype=torch.float64)
    labels = torch.zeros(1, 3, 2, dtype=torch.float64)
    area = torch.tensor([400.0], dtype=torch.float64)
    each = similarity(points, labels, area, (0.05, 0.05, 0.1))
    assert each[0].tolist() == pytest.approx([math.exp(-0.5), 1.0, math.exp(-0.5)])
    weight = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    assert oks(points, labels, area, (0.05, 0.05, 0.1), weight).tolist() == pytest.approx([math.exp(-0.5)])


def test_coco_sigmas() -> None:
    assert len(COCO_SIGMAS) == 17
    assert COCO_SIGMAS[0] == 0.026
    assert COCO_SIGMAS[1] < COCO_SIGMAS[0] < COCO_SIGMAS[11]  # eyes are sharper than the nose, hips the vaguest
    assert max(COCO_SIGMAS) == COCO_SIGMAS[11] == COCO_SIGMAS[12]


def test_against_pycocotools() -> None:
    coco_tools = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    g = torch.Generator().manual_seed(0)
    people = 5
    labels = 200 * torch.rand(people, 17, 2, generator=g, dtype=torch.float64)
    points = labels + 8 * torch.randn(people, 17, 2, generator=g, dtype=torch.float64)
    flags = torch.randint(0, 3, (people, 17), generator=g)
    flags[:, 0] = 2
    area = 500 + 20_000 * torch.rand(people, generator=g, dtype=torch.float64)
    truth = coco_tools.COCO()
    with contextlib.redirect_stdout(io.StringIO()):
        truth.dataset = {
            "info": {},
            "images": [{"id": i + 1, "width": 200, "height": 200} for i in range(people)],
            "categories": [{"id": 1, "name": "person"}],
            "annotations": [
                {
                    "id": i + 1, "image_id": i + 1, "category_id": 1, "iscrowd": 0, "area": float(area[i]),
                    "bbox": [0, 0, 200, 200], "num_keypoints": int((flags[i] > 0).sum()),
                    "keypoints": torch.cat([labels[i], flags[i, :, None]], -1).flatten().tolist(),
                }
                for i in range(people)
            ],
        }  # fmt: skip
        truth.createIndex()
        found = truth.loadRes(
            [
                {"image_id": i + 1, "category_id": 1, "score": 1.0,
                 "keypoints": [v for x, y in points[i].tolist() for v in (x, y, 1)]}
                for i in range(people)
            ]
        )  # fmt: skip
        peer = evaluation.COCOeval(truth, found, "keypoints")
        peer._prepare()
        theirs = [float(peer.computeOks(i + 1, 1)[0, 0]) for i in range(people)]
    ours = oks(points, labels, area, COCO_SIGMAS, (flags > 0).double())
    assert ours.tolist() == pytest.approx(theirs, abs=1e-12)
    assert max(theirs) - min(theirs) > 0.01


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.2, 20))
def test_properties(seed: int, factor: float) -> None:
    g = torch.Generator().manual_seed(seed)
    labels = 100 * torch.rand(3, 17, 2, generator=g, dtype=torch.float64)
    noise = torch.randn(3, 17, 2, generator=g, dtype=torch.float64)
    area = 100 + 5_000 * torch.rand(3, generator=g, dtype=torch.float64)
    value = oks(labels + noise, labels, area)
    assert bool(((value > 0) & (value < 1)).all())
    assert oks(labels, labels, area).tolist() == [1.0] * 3
    assert bool((oks(labels + 2 * noise, labels, area) < value).all())
    assert bool((oks(labels + noise, labels, 2 * area) > value).all())
    scaled = oks(factor * (labels + noise), factor * labels, factor**2 * area)
    torch.testing.assert_close(scaled, value)


def test_unlabelled_joints_may_hold_anything_and_nobody_labelled_is_nan() -> None:
    labels = torch.zeros(2, 3, 2)
    labels[0, 1] = torch.nan
    weight = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    value = oks(torch.zeros(2, 3, 2), labels, torch.ones(2), (0.1, 0.1, 0.1), weight)
    assert float(value[0]) == 1.0
    assert value[1].isnan()


def test_messages() -> None:
    zeros = torch.zeros(1, 16, 2)
    with pytest.raises(ValueError, match=r"17 sigmas for 16 joints.*MPII and LSP none"):
        oks(zeros, zeros, torch.ones(1))
    with pytest.raises(ValueError, match="area of 0"):
        oks(zeros, zeros, torch.zeros(1), (0.1,) * 16)
    broken = zeros.clone()
    broken[0, 3] = torch.nan
    with pytest.raises(ValueError, match="image 0, joint 3 is labelled but NaN"):
        oks(broken, zeros, torch.ones(1), (0.1,) * 16)
