"""End to end: pooling by hand, boxes and places, people kept apart, three heads in torchvision's R-CNN, refusals."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import keypointrcnn_loss

from coordreg.backbones.detector import Detector, Find, PersonHeads, check_people
from coordreg.backbones.pyramid import NAMES, Aligned, Pyramid, box_affine, pyramid_levels
from coordreg.backbones.resnet import ResNet
from coordreg.coords import Batch, Labels
from coordreg.endtoend import EndToEnd, HeatmapHeads, PoseurHeads, RLEHeads, seats, targets
from coordreg.queries import Layer
from coordreg.rle import Within

J, C, H, W = 5, 8, 64, 96
FIND = Find((16, 24, 36, 54, 80), (1.0, 2.0), 40, 32, 16, 0.5, (20, 20), (12, 12), None, 16, least=0.0, most=5)
LAYER = Layer(heads=2, points=2, hidden=16, dropout=0.0, update="add")
KINDS: dict[str, type[PersonHeads]] = {"heatmap": HeatmapHeads, "RLE": RLEHeads, "Poseur": PoseurHeads}
BOXES = [torch.tensor([[10.0, 6.0, 40.0, 60.0], [50.0, 8.0, 70.0, 50.0]]), torch.tensor([[30.0, 20.0, 62.0, 44.0]])]


def heads(kind: str, **options: Any) -> PersonHeads:
    extra = {"width": 16, "layers": 2, "layer": LAYER} if kind == "Poseur" else {}
    return KINDS[kind](C, J, **{"find": FIND, "convs": (6,), **extra, **options})


def features(pictures: int = 2, seed: int = 0) -> OrderedDict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return OrderedDict(
        (name, torch.randn(pictures, C, H // 4 // 2**i, W // 4 // 2**i, generator=g)) for i, name in enumerate(NAMES)
    )


def network(kind: str, places: int = 3) -> EndToEnd:
    torch.manual_seed(0)
    return EndToEnd(Pyramid(ResNet(10, 4), C), heads(kind), (H, W), places)


def labels(pictures: int = 2, places: int = 3) -> Labels:
    """Two people in the first picture, one in the second, the last place empty."""
    g = torch.Generator().manual_seed(1)
    coords = torch.zeros(pictures, places, J + 2, 2)
    weight = torch.zeros_like(coords)
    for b in range(pictures):
        for p in range(2 - b % 2):
            low = torch.tensor([-0.8 + 0.8 * p, -0.7])
            high = low + torch.tensor([0.7, 1.3])
            coords[b, p, :J] = low + (high - low) * torch.rand(J, 2, generator=g)
            coords[b, p, J:] = torch.stack([low, high])
            weight[b, p] = 1
    return Labels(coords.flatten(1, 2), weight.flatten(1, 2))


def batch() -> Batch:
    g = torch.Generator().manual_seed(2)
    n = 2
    return Batch(torch.rand(n, 3, H, W, generator=g), labels(n), torch.ones(n, 21).bool(), torch.ones(n), torch.eye(3))


# -- features and boxes -----------------------------------------------------------------------------------------------


def test_box_coordinates_by_hand() -> None:
    affine = box_affine(torch.tensor([[10.0, 20.0, 30.0, 60.0]]))
    assert affine.tolist() == [[[10, 0, 20], [0, 20, 40]]]
    with pytest.raises(ValueError, match=r"box 1, \(4, 5, 4, 9\), has no area"):
        box_affine(torch.tensor([[0.0, 0.0, 1.0, 1.0], [4.0, 5.0, 4.0, 9.0]]))
    with pytest.raises(ValueError, match="has no area"):
        box_affine(torch.tensor([[0.0, 0.0, float("nan"), 1.0]]))


@settings(max_examples=25, deadline=None)
@given(st.floats(18, 30), st.floats(18, 24), st.floats(5, 44), st.floats(5, 22), st.integers(1, 4))
def test_pooling_reads_the_middles_of_its_cells(x: float, y: float, width: float, height: float, n: int) -> None:
    """Of a map that holds each cell's own place, on any level: what pooling gives is where its cells lie."""
    maps = OrderedDict()
    for i, name in enumerate(NAMES):
        stride = 4 * 2**i
        rows, columns = ((torch.arange(m // stride) + 0.5) * stride for m in (H, W))
        maps[name] = torch.stack(torch.meshgrid(columns, rows, indexing="xy"))[None]
    found = Aligned(n, canonical=20)(maps, [torch.tensor([[x, y, x + width, y + height]])], ())
    middle = (torch.arange(n) + 0.5) / n
    torch.testing.assert_close(found[0, 0], (x + width * middle).expand(n, n), rtol=0, atol=2e-3)
    torch.testing.assert_close(found[0, 1], (y + height * middle)[:, None].expand(n, n), rtol=0, atol=2e-3)


def test_a_large_box_is_pooled_from_a_coarse_level_of_its_own_picture() -> None:
    maps = OrderedDict((n, m[:, :1] * 0 + i) for i, (n, m) in enumerate(features().items()))
    for m in maps.values():
        m[1] += 10
    sides = (8.0, 19.9, 20.1, 39.9, 40.1, 60.0)
    boxes = [torch.tensor([[0.0, 0.0, s, s] for s in sides]), torch.tensor([[3.0, 3.0, 50.0, 50.0]])]
    found = Aligned(1, canonical=20)(maps, boxes, ())
    assert found.flatten().tolist() == [0, 1, 2, 2, 3, 3, 13]


def test_missing_and_wrong_levels_are_told() -> None:
    maps = features()
    with pytest.raises(ValueError, match="no feature level 2 among 0, 1, 3"):
        pyramid_levels({name: m for name, m in maps.items() if name != "2"})
    turned = OrderedDict(zip(NAMES, reversed(maps.values()), strict=True))
    for kind in KINDS:
        with pytest.raises(ValueError, match="got feature levels of 2x3, 4x6, 8x12, 16x24, expected each half"):
            heads(kind)(turned, BOXES, [(H, W)] * 2)


def test_the_pyramid_halves_and_its_frozen_trunk_stays() -> None:
    trunk = Pyramid(ResNet(10, 4), C, frozen=True)
    trunk.train()
    norms = [m for m in trunk.levels.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(m.training or m.weight.requires_grad for m in norms)
    fixed = {n.split(".")[2] for n, p in trunk.named_parameters() if not p.requires_grad and "conv" in n}
    assert fixed == {"conv1", "layer1"}
    found = trunk(torch.rand(2, 3, H, W))
    assert {n: tuple(m.shape) for n, m in found.items()} == {
        "0": (2, C, 16, 24), "1": (2, C, 8, 12), "2": (2, C, 4, 6), "3": (2, C, 2, 3), "pool": (2, C, 1, 2),
    }  # fmt: skip
    assert all(m.training for m in Pyramid(ResNet(10, 4), C).train().modules())


def test_published_weights_without_a_network_say_what_to_do(cache: Path) -> None:
    with pytest.raises(ValueError, match="not in torch's cache and could not be downloaded"):
        Pyramid(ResNet(18, weights="ResNet18_Weights.IMAGENET1K_V1"), frozen=True)


def test_seats_by_hand() -> None:
    image, place = seats([2, 0, 3])
    assert image.tolist() == [0, 0, 2, 2, 2]
    assert place.tolist() == [0, 1, 0, 1, 2]


# -- Poseur's head ----------------------------------------------------------------------------------------------------


def poseur(**options: Any) -> Any:
    """The head with answers that are not all zero, as they are before training."""
    torch.manual_seed(3)
    made = heads("Poseur", **options)
    for name, p in made.keypoint_predictor.named_parameters():
        if p.dim() > 1 and ("move" in name or "centre" in name or "offsets" in name):
            nn.init.normal_(p, std=0.2)
    return made


def test_people_are_answered_as_if_each_were_alone() -> None:
    """A slow way: one box at a time, its reference points put into the picture by an explicit formula."""
    made, maps = poseur().eval(), features()
    with torch.no_grad():
        together = made.answers(maps, BOXES)
        row = 0
        for b, boxes in enumerate(BOXES):
            own = {name: m[b : b + 1] for name, m in maps.items()}
            for box in boxes:
                head = made.keypoint_predictor
                guess = head.guess(made.keypoint_head(made.keypoint_roi_pool(own, [box[None]], ())))
                torch.testing.assert_close(together.proposal[row], guess[0])
                reference = guess[..., :2]
                x, _ = head.encoder(reference[:, None])
                for i, layer in enumerate(head.decoder):
                    place = torch.stack([
                        2 * (box[0] + (reference[..., 0] + 1) / 2 * (box[2] - box[0])) / W - 1,
                        2 * (box[1] + (reference[..., 1] + 1) / 2 * (box[3] - box[1])) / H - 1,
                    ], -1)  # fmt: skip
                    x = layer(x, None, place, head.maps(list(own.values())), None)
                    reference, answer = layer.answer(x, reference)
                    torch.testing.assert_close(together.layers[i][row], answer[0], rtol=1e-4, atol=1e-5)
                row += 1
    assert row == 3
    assert together.layers[-1][..., :2].std() > 0.05


def test_noise_is_for_training_and_does_not_touch_the_others() -> None:
    made, maps = poseur(), features()
    in_training = made.train().answers(maps, BOXES)
    assert [tuple(a.shape) for a in in_training.layers] == [(3, 2 * J, 4)] * 2
    in_testing = made.eval().answers(maps, BOXES)
    assert [tuple(a.shape) for a in in_testing.layers] == [(3, J, 4)] * 2
    torch.testing.assert_close(in_training.layers[-1][:, :J], in_testing.layers[-1])


def test_joints_may_lie_outside_the_box_and_are_looked_up_there() -> None:
    made, maps = poseur().eval(), features()
    for m in maps.values():
        m.requires_grad_(True)
    head = made.keypoint_predictor
    nn.init.zeros_(head.guess.centre.weight)
    nn.init.constant_(head.guess.centre.bias, 2.5)  # 2.5 half sides right of and below the middle
    for p in head.decoder.parameters():
        p.requires_grad_(False)
    for layer in head.decoder:
        layer.move[-1].put(0.0, 0.0)
        layer.centre[-1].put(0.0, 0.0)
    box = torch.tensor([[8.0, 8.0, 24.0, 24.0]])
    answers = made.answers({n: m[:1] for n, m in maps.items()}, [box])
    points = made.read(answers, [box])
    torch.testing.assert_close(points.coords, torch.full((1, J, 2), 16 + 2.5 * 8))
    answers.layers[-1][..., 2:].sum().backward()
    touched = maps["0"].grad
    assert touched is not None
    assert touched[0, :, 7:11, 7:11].abs().sum() > 0  # 28 to 44 px, outside the box
    assert touched[1].abs().sum() == 0


def test_as_many_queries_as_a_picture_may_have() -> None:
    assert heads("Poseur", queries=600).people == 60
    assert heads("Poseur", queries=35, noise=None).people == 7
    assert heads("Poseur", queries=600, find=Find(people=4)).people == 4
    with pytest.raises(ValueError, match="got queries=9, expected at least the 10 of one person"):
        heads("Poseur", queries=9)


# -- what heads learn and tell ----------------------------------------------------------------------------------------


def keypoints() -> list[Tensor]:
    g = torch.Generator().manual_seed(4)
    found = []
    for boxes in BOXES:
        share = torch.rand(len(boxes), J, 2, generator=g) * 1.4 - 0.2  # some outside
        points = boxes[:, None, :2] + share * (boxes[:, None, 2:] - boxes[:, None, :2])
        mark = (torch.rand(len(boxes), J, 1, generator=g) > 0.3).float()
        found.append(torch.cat([points, mark], -1))
    return found


def test_likelihood_is_judged_in_coordinates_of_the_box() -> None:
    made = heads("RLE")
    answers = torch.randn(3, J, 4, generator=torch.Generator().manual_seed(5))
    parts = made.joint_losses(answers, BOXES, keypoints())
    boxes, marks = torch.cat(BOXES), torch.cat(keypoints())
    coords = torch.empty(3, J, 2)
    for i in range(3):
        for j in range(J):
            for d in range(2):
                low, high = boxes[i, d], boxes[i, d + 2]
                coords[i, j, d] = 2 * (marks[i, j, d] - low) / (high - low) - 1
    wanted = made.method.loss(answers, Labels(coords, marks[..., 2:].expand(-1, -1, 2)))["loss"]
    torch.testing.assert_close(parts["loss_keypoint"], wanted)


def test_heat_maps_are_torchvisions() -> None:
    made, maps = heads("heatmap"), features()
    answers = made.answers(maps, BOXES)
    assert answers.shape == (3, J, 56, 56)
    wanted = keypointrcnn_loss(answers, BOXES, keypoints(), [torch.tensor([0, 1]), torch.tensor([0])])
    torch.testing.assert_close(made.joint_losses(answers, BOXES, keypoints())["loss_keypoint"], wanted)
    sure = made.person_scores(torch.rand(3, J), torch.tensor([0.1, 0.2, 0.3]))
    assert sure.tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_a_person_is_scored_by_box_and_joints() -> None:
    made = poseur().eval()
    assert isinstance(made.method.decoder, Within)
    with torch.no_grad():
        scores = [torch.tensor([0.5, 0.9]), torch.tensor([0.8])]
        found = made.detections(features(), BOXES, scores, [torch.ones(2).long(), torch.ones(1).long()])
    for each, box in zip(found, scores, strict=True):
        torch.testing.assert_close(each["person_scores"], box * each["keypoints_scores"].mean(-1))
        assert each["keypoints"].shape == (len(box), J, 3)
        assert ((each["keypoints_scores"] > 0) & (each["keypoints_scores"] < 1)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_without_boxes_costs_nothing(kind: str) -> None:
    made, maps = heads(kind), features()
    none = [torch.empty(0, 4)] * 2
    parts = made.joint_losses(made.train().answers(maps, none), none, [torch.empty(0, J, 3)] * 2)
    total = torch.stack(list(parts.values())).sum()
    total.backward()
    assert float(total.detach()) == 0
    found = made.eval().detections(maps, none, [torch.empty(0)] * 2, [torch.empty(0).long()] * 2)
    assert [tuple(each["keypoints"].shape) for each in found] == [(0, J, 3)] * 2


# -- the whole network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_head_trains_and_tells(kind: str) -> None:
    made = network(kind)
    parts = made.train().loss(batch())
    joint = {"loss_guess", "loss_layers"} if kind == "Poseur" else {"loss_keypoint"}
    boxes = {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
    assert set(parts) == {"loss", *joint, *boxes}
    torch.testing.assert_close(parts["loss"], torch.stack([v for k, v in parts.items() if k != "loss"]).sum())
    parts["loss"].backward()
    unmoved = {n for n, p in made.named_parameters() if p.grad is None}
    assert not unmoved
    points = made.predict(batch().images)
    assert made.training
    assert points.coords.shape == (2, 3 * (J + 2), 2)
    assert points.coords.isfinite().all()
    person = points.score.unflatten(1, (3, J + 2))[:, :, -1]
    assert (person[:, :-1] >= person[:, 1:]).all()


def test_labels_come_back_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets in pixels, told as detections in the order of their scores, are the labels again."""
    made, wanted = network("RLE"), labels()
    people = targets(wanted, J, (H, W))
    assert [len(t["boxes"]) for t in people] == [2, 1]
    sure = [torch.tensor([0.3, 0.9]), torch.tensor([0.6])]
    detections = [
        {**t, "person_scores": s, "keypoints_scores": s[:, None].expand(-1, J)}
        for t, s in zip(people, sure, strict=True)
    ]
    monkeypatch.setattr(Detector, "forward", lambda self, images, targets=None: detections)
    points = made.predict(torch.zeros(2, 3, H, W))
    told = points.coords.unflatten(1, (3, J + 2))
    expected = wanted.coords.unflatten(1, (3, J + 2))
    torch.testing.assert_close(told[0, :2], expected[0, [1, 0]])
    torch.testing.assert_close(told[1, 0], expected[1, 0])
    assert told[0, 2].eq(0).all()
    assert points.score.unflatten(1, (3, J + 2))[..., 0].tolist() == [
        pytest.approx([0.9, 0.3, 0]), pytest.approx([0.6, 0, 0])
    ]  # fmt: skip


def test_targets_are_in_pixels_of_the_picture() -> None:
    first = targets(labels(), J, (H, W))[0]
    torch.testing.assert_close(first["boxes"][0], torch.tensor([0.2 * 48, 0.3 * 32, 0.9 * 48, 1.6 * 32]))
    assert first["keypoints"].shape == (2, J, 3)
    assert first["labels"].tolist() == [1, 1]


def test_a_few_steps_lower_the_loss() -> None:
    made = network("Poseur")
    optimiser = torch.optim.Adam(made.parameters(), 1e-2)
    found = []
    for step in range(8):
        torch.manual_seed(step)
        loss = made.loss(batch())["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append(float(loss.detach()))
    assert sum(found[-2:]) < 0.85 * sum(found[:2])


def test_bad_targets_are_told() -> None:
    made = network("Poseur")
    flat = labels()
    flat.coords.unflatten(1, (3, J + 2))[0, 1, J + 1, 1] = flat.coords.unflatten(1, (3, J + 2))[0, 1, J, 1]
    with pytest.raises(ValueError, match=r"box 1, .* has no area"):
        made.loss(batch()._replace(labels=flat))
    with pytest.raises(ValueError, match="got 20 points a picture for a head of 5 joints, expected a multiple of 7"):
        made.loss(batch()._replace(labels=Labels(flat.coords[:, :20], flat.weight[:, :20])))
    with pytest.raises(ValueError, match=r"got keypoints of shape \(1, 4, 3\) for 1 boxes, expected \(people, 5, 3\)"):
        check_people([{"boxes": BOXES[1], "keypoints": torch.zeros(1, 4, 3)}], J)
    with pytest.raises(ValueError, match="no flip test"):
        made.predict(batch().images, flip=((0, 1),))
