"""torchvision's R-CNN for people: boxes are found as in Mask R-CNN, and a head, whatever it is, tells their joints.

Boxes and joints are in torchvision's pixels, see `pyramid.py`. Heads are in `coordreg/endtoend.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from coordreg.backbones.pyramid import Aligned, Features, box_affine, pyramid_levels
from coordreg.coords import Points
from coordreg.method import MEAN, STD


@dataclass(frozen=True)
class Find:
    """How people are found: torchvision's own numbers by default, which are the usual ones of Mask R-CNN.

    sides: anchors of each of the five levels, in pixels; ratios: their heights over widths. canonical: see `Aligned`.
    anchors, regions: trained on, an image; positive: at most this share of the regions. before, after: proposals kept
    before and after suppression, in training and in testing. people: at most so many a picture train the joints, drawn
    at random; None: all boxes that are trained on. hidden: width of the box head. least: score, overlap: IoU
    above which the lower of two boxes goes, most: boxes an image, in testing.
    """

    sides: tuple[int, ...] = (32, 64, 128, 256, 512)
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    canonical: int = 224
    anchors: int = 256
    regions: int = 512
    positive: float = 0.25
    before: tuple[int, int] = (2000, 1000)
    after: tuple[int, int] = (2000, 1000)
    people: int | None = None
    hidden: int = 1024
    least: float = 0.05
    overlap: float = 0.5
    most: int = 100


def check_people(targets: Sequence[Mapping[str, Tensor]], joints: int) -> None:
    """ValueError for boxes without area and for people with another number of joints than the head's."""
    for target in targets:
        box_affine(target["boxes"])
        shape = tuple(target["keypoints"].shape)
        if shape != (len(target["boxes"]), joints, 3):
            raise ValueError(
                f"end to end: got keypoints of shape {shape} for {len(target['boxes'])} boxes, expected (people, "
                f"{joints}, 3), x, y and whether labelled; the head's joints and the data set's must agree"
            )


class PersonHeads(RoIHeads):
    """What three ways to find joints share: torchvision's box branch, and the convolutions on pooled features.

    channels: of the pyramid. joints: how many. convs: channels of the 3x3 convolutions on 14 x 14 cells. predictor:
    what follows them. Subclasses write `joint_losses`, `read` and `person_scores`.
    """

    def __init__(
        self,
        channels: int,
        joints: int,
        predictor: nn.Module,
        find: Find = Find(),
        convs: Sequence[int] = (512,) * 8,
    ) -> None:
        super().__init__(
            Aligned(7, find.canonical), TwoMLPHead(channels * 49, find.hidden), FastRCNNPredictor(find.hidden, 2),
            0.5, 0.5, find.regions, find.positive, None, find.least, find.overlap, find.most,
            keypoint_roi_pool=Aligned(14, find.canonical), keypoint_head=KeypointRCNNHeads(channels, convs),
            keypoint_predictor=predictor,
        )  # fmt: skip
        self.joints, self.find, self.people = joints, find, find.people

    def answers(self, features: Features, boxes: list[Tensor]) -> Any:
        """Features and one (R, 4) of boxes a picture -> what the predictor says of all boxes, in order."""
        return self.keypoint_predictor(self.keypoint_head(self.keypoint_roi_pool(features, boxes, ())))

    def joint_losses(self, answers: Any, boxes: list[Tensor], keypoints: list[Tensor]) -> dict[str, Tensor]:
        """Losses by name; keypoints: (R, J, 3) of each picture, the person's that belongs to the box."""
        raise NotImplementedError

    def read(self, answers: Any, boxes: list[Tensor]) -> Points:
        """All boxes' points in pixels of their picture, (R, J, 2), and scores (R, J)."""
        raise NotImplementedError

    def person_scores(self, scores: Float[Tensor, "R J"], box: Float[Tensor, " R"]) -> Float[Tensor, " R"]:
        """How sure we are of a person, from its joints and its box."""
        raise NotImplementedError

    def check_targets(self, targets: Any) -> None:
        """torchvision's own, and `check_people`."""
        super().check_targets(targets)
        check_people(targets, self.joints)

    def forward(
        self, features: Features, proposals: list[Tensor], image_shapes: list[tuple[int, int]], targets: Any = None
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """As `RoIHeads`: detections, with "keypoints", "keypoints_scores" and "person_scores", or losses."""
        pyramid_levels(features)
        if not self.training:
            logits, moves = self.box_predictor(self.box_head(self.box_roi_pool(features, proposals, image_shapes)))
            found = self.postprocess_detections(logits, moves, proposals, image_shapes)
            return self.detections(features, *found), {}
        proposals, matched, labels, moved = self.select_training_samples(list(proposals), targets)
        logits, moves = self.box_predictor(self.box_head(self.box_roi_pool(features, proposals, image_shapes)))
        classes, boxes = fastrcnn_loss(logits, moves, labels, moved)
        chosen, keypoints = [], []
        for proposal, match, label, target in zip(proposals, matched, labels, targets, strict=True):
            rows = (label > 0).nonzero()[:, 0]
            if self.people is not None and len(rows) > self.people:
                rows = rows[torch.randperm(len(rows), device=rows.device)[: self.people]]
            chosen.append(proposal[rows])
            keypoints.append(target["keypoints"][match[rows]])
        parts = self.joint_losses(self.answers(features, chosen), chosen, keypoints)
        return [], {"loss_classifier": classes, "loss_box_reg": boxes, **parts}

    def detections(
        self, features: Features, boxes: list[Tensor], scores: list[Tensor], labels: list[Tensor]
    ) -> list[dict[str, Tensor]]:
        """Boxes of each picture with their scores and labels -> torchvision's list of results, joints added."""
        points, joint_scores = self.read(self.answers(features, boxes), boxes)
        sure = self.person_scores(joint_scores, torch.cat(scores))
        keypoints = torch.cat([points, torch.ones_like(points[..., :1])], -1)
        counts = [len(b) for b in boxes]
        names = ("boxes", "scores", "labels", "keypoints", "keypoints_scores", "person_scores")
        columns = (boxes, scores, labels, *(t.split(counts) for t in (keypoints, joint_scores, sure)))
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


class Detector(GeneralizedRCNN):
    """torchvision's R-CNN with a `Pyramid` and `PersonHeads`: pictures and targets -> losses, or detections.

    sides: the shorter side to which pictures are resized, and the limit of the longer one.
    """

    def __init__(self, backbone: nn.Module, heads: PersonHeads, sides: tuple[int, int] = (800, 1333)) -> None:
        find = heads.find
        anchors = AnchorGenerator(tuple((s,) for s in find.sides), (find.ratios,) * len(find.sides))
        kept = [dict(zip(("training", "testing"), pair, strict=True)) for pair in (find.before, find.after)]
        regions = RegionProposalNetwork(
            anchors, RPNHead(backbone.out_channels, len(find.ratios)), 0.7, 0.3, find.anchors, 0.5, *kept, 0.7
        )
        super().__init__(backbone, regions, heads, GeneralizedRCNNTransform(*sides, list(MEAN), list(STD)))

    def forward(self, images: list[Tensor], targets: Any = None) -> Any:
        """As torchvision's, with ValueError for boxes without area or another number of joints."""
        if targets is not None:
            check_people(targets, self.roi_heads.joints)
        return super().forward(images, targets)


__all__ = ["Detector", "Find", "PersonHeads", "check_people"]
