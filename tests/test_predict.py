"""Several people in a picture: boxes from a file or a detector, one crop each, the doubles of COCO's people dropped."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from coordreg import predict
from coordreg.backbones.resnet import ResNet, head, trunk_channels
from coordreg.data.skeletons import COCO17, H36M17, MPII16, Skeleton
from coordreg.experiments import runs
from coordreg.heatmap import MSE, Argmax, Gaussian, Heatmap
from coordreg.method import Estimator
from coordreg.predict import Predictor, people_of, predict_files, predict_people, read_boxes
from coordreg.train import save_checkpoint


def predictor(skeleton: Skeleton = MPII16) -> Predictor:
    torch.manual_seed(0)
    maps = head(trunk_channels(10, 4), joints=len(skeleton.joints), widths=(8, 8))
    network = Estimator(ResNet(10, 4), maps, Heatmap(Gaussian(1.0), MSE(), Argmax()))
    torch.nn.init.normal_(maps.final.weight, std=1.0)
    torch.nn.init.constant_(maps.final.bias, 1.0)
    return Predictor(network.eval(), 64, skeleton)


IMAGE = torch.rand(3, 90, 140, generator=torch.Generator().manual_seed(1))
BOXES = [((10.0, 10.0, 40.0, 60.0), 0.5), ((80.0, 12.0, 45.0, 70.0), 0.9)]


def test_each_person_is_predicted_from_their_own_crop() -> None:
    network = predictor()
    found = predict_people(network, IMAGE, BOXES)
    assert {person.box for person in found} == {box for box, _ in BOXES}
    for person in found:
        points, scores = network(IMAGE, person.box)
        assert torch.equal(person.points, points)
        high = scores[scores > 0.2]
        certain = dict(BOXES)[person.box]
        assert person.score == pytest.approx(certain * float(high.mean()) if len(high) else 0.0, abs=1e-6)
    assert [person.score for person in found] == sorted((person.score for person in found), reverse=True)
    assert predict_people(network, IMAGE, []) == []


def test_doubles_go_where_there_are_sigmas() -> None:
    twice = [*BOXES, (BOXES[0][0], 0.4)]
    assert len(predict_people(predictor(), IMAGE, twice)) == 3
    assert len(predict_people(predictor(H36M17), IMAGE, twice)) == 3  # 17 joints, but not COCO's
    kept = predict_people(predictor(COCO17), IMAGE, twice)
    assert len(kept) == 2
    assert {person.box for person in kept} == {box for box, _ in BOXES}
    double = next(person for person in kept if person.box == BOXES[0][0])
    assert double.score == pytest.approx(0.5 * float(double.joint_scores[double.joint_scores > 0.2].mean()))


def test_the_area_of_a_double_is_the_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def watch(points: torch.Tensor, scores: torch.Tensor, area: torch.Tensor) -> list[int]:
        seen.extend(area.tolist())
        return list(range(len(points)))

    monkeypatch.setattr(predict, "suppress", watch)
    predict_people(predictor(COCO17), IMAGE, [((10.0, 10.0, 30.0, 60.0), 1.0)])
    assert seen == [75.0**2]


def test_low_scores_are_averaged_whole() -> None:
    network = predictor()
    head_ = network.estimator.head
    torch.nn.init.constant_(head_.final.weight, 0.0)
    torch.nn.init.constant_(head_.final.bias, 0.1)
    assert predict_people(network, IMAGE, BOXES)[0].score == pytest.approx(0.9 * 0.1)


def test_a_detector_gives_what_its_network_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stub(torch.nn.Module):
        def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
            assert [tuple(image.shape) for image in images] == [(3, 90, 140)]
            assert not self.training
            return [
                {"boxes": torch.tensor([[1.0, 2, 11, 22]]), "labels": torch.tensor([1]), "scores": torch.tensor([0.7])}
            ]

    monkeypatch.setattr(predict, "published", lambda name, example: {})
    monkeypatch.setattr(predict, "fasterrcnn_resnet50_fpn_v2", lambda **kwargs: Stub())
    assert predict.Detector()(IMAGE) == [((0.5, 1.5, 10.0, 20.0), pytest.approx(0.7))]
    assert predict.Detector(least=0.8)(IMAGE) == []


def test_boxes_are_read_from_a_file_and_mistakes_named(tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps({"a.png": [[1, 2, 30, 40, 0.7], [5, 6, 10, 12]], "b.png": []}))
    assert read_boxes(path) == {"a.png": [((1, 2, 30, 40), 0.7), ((5, 6, 10, 12), 1.0)], "b.png": []}
    wrong = (
        "[[1, 2, 3]]",
        '[["x", 2, 3, 4]]',
        '[{"bbox": [1, 2, 3, 4]}]',
        '["1234"]',
        "[[1, 2, 3, 4, 5, 6]]",
        "[[1, 2, 0, 4]]",
    )
    for text in ("[1, 2]", "{", '{"a.png": [[1, 2, NaN, 4]]}', *(f'{{"a.png": {rows}}}' for rows in wrong)):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"boxes\.json: not a file of boxes .*expected"):
            read_boxes(path)
    with pytest.raises(ValueError, match=r"none\.json: no such file of boxes"):
        read_boxes(tmp_path / "none.json")


def test_a_detectors_answer_becomes_boxes_of_people() -> None:
    answer = {
        "boxes": torch.tensor([[0.0, 0, 10, 20], [5.0, 5, 25, 45], [1.0, 1, 9, 9], [2.0, 2, 8, 8]]),
        "labels": torch.tensor([1, 1, 18, 1]),
        "scores": torch.tensor([0.6, 0.9, 0.99, 0.3]),
    }
    assert people_of(answer, 0.5) == [
        ((4.5, 4.5, 20.0, 40.0), pytest.approx(0.9)),
        ((-0.5, -0.5, 10.0, 20.0), pytest.approx(0.6)),
    ]
    assert people_of(answer, 0.95) == []


def test_files_hold_everybody(tmp_path: Path) -> None:
    Image.fromarray((IMAGE.permute(1, 2, 0).numpy() * 255).astype(np.uint8)).save(tmp_path / "two.png")
    found = predict_files(predictor(), [tmp_path / "two.png"], tmp_path / "out", find=lambda path, image: BOXES)
    stored = json.loads((tmp_path / "out" / "two-joints.json").read_text())
    assert found == [stored]
    assert "joints" not in stored
    assert [len(person["joints"]) for person in stored["people"]] == [16, 16]
    assert sorted(person["box"] for person in stored["people"]) == [list(box) for box, _ in BOXES]
    assert (tmp_path / "out" / "two-joints.png").stat().st_size > 1000


def test_a_detector_without_weights_says_what_to_do(cache: Path) -> None:
    with pytest.raises(ValueError, match=r"FasterRCNN.* are not in torch's cache .*TORCH_HOME"):
        predict.Detector()


def test_a_cascade_that_was_tested_on_noisy_figures_predicts(tmp_path: Path) -> None:
    run = runs("cascade-refinement", "smoke")[0]
    torch.manual_seed(0)
    network = run.estimator.build()
    save_checkpoint(tmp_path / "c.pt", {"model": network.state_dict(), "config": json.dumps(run.config)})
    found = predict.load_predictor(tmp_path / "c.pt")
    assert (found.skeleton, found.shape) == (MPII16, (64, 64))
    points, score = found(IMAGE)
    assert points.shape == (16, 2)
    assert torch.isfinite(points).all()
    assert torch.isfinite(score).all()
