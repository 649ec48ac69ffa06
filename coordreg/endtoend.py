"""Chapter 7, end to end: one network finds the people of a picture and their joints, without crops cut beforehand.

Mask R-CNN proposes boxes, pools features of each and asks a head for the joints. Three heads, each a subclass of
torchvision's `RoIHeads`: its own heat maps, RLE on pooled features, and Poseur, whose guess comes from the pooled
features and whose queries look at the whole picture's feature maps, so that nothing has to lie inside the box. Source:
Mao et al., ECCV 2022, section 4.3 and table 3.

Boxes and joints inside are torchvision's: pixels whose centres lie at 1/2, so that the picture's edges are 0 and its
size; RoIAlign is told so (aligned=True). Points of the regression heads are normalised coordinates of the box.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNPredictor
from torchvision.models.detection.roi_heads import keypointrcnn_inference, keypointrcnn_loss

from coordreg.backbones.detector import Detector, Find, PersonHeads
from coordreg.backbones.levels import STRIDES
from coordreg.backbones.pyramid import NAMES, Features, Pyramid, box_affine, pyramid_levels
from coordreg.coords import Batch, Labels, Pairs, Points, apply_affine, invert_affine
from coordreg.flow import RealNVP
from coordreg.method import Estimator, Maps, Method, evaluating
from coordreg.poseur import Posed, PoseurHead, PoseurMethod
from coordreg.queries import Jittered, Layer, Uniform, apart
from coordreg.rle import RLE, DistributionHead, instance_score

# -- heads -------------------------------------------------------------------------------------------------------------


class HeatmapHeads(PersonHeads):
    """torchvision's Keypoint R-CNN: a choice among 56 x 56 cells of the box; the person's score is the box's."""

    def __init__(self, channels: int, joints: int, find: Find = Find(), convs: Sequence[int] = (512,) * 8) -> None:
        super().__init__(channels, joints, KeypointRCNNPredictor(convs[-1], joints), find, convs)

    def joint_losses(self, answers: Tensor, boxes: list[Tensor], keypoints: list[Tensor]) -> dict[str, Tensor]:
        """Cross-entropy over the cells; joints outside their box do not count."""
        own = [torch.arange(len(k), device=k.device) for k in keypoints]
        return {"loss_keypoint": keypointrcnn_loss(answers.contiguous(), boxes, keypoints, own)}

    def read(self, answers: Tensor, boxes: list[Tensor]) -> Points:
        """The cell of each maximum, and the map's value there, which is no probability."""
        points, scores = keypointrcnn_inference(answers, boxes)
        return Points(torch.cat(points)[..., :2], torch.cat(scores))

    def person_scores(self, scores: Float[Tensor, "R J"], box: Float[Tensor, " R"]) -> Float[Tensor, " R"]:
        """The box's."""
        return box


class RLEHeads(PersonHeads):
    """Centres and widths from averaged features, by maximum likelihood; the predictor gives (R, J, 4)."""

    method: Method

    def __init__(
        self,
        channels: int,
        joints: int,
        find: Find = Find(),
        convs: Sequence[int] = (512,) * 8,
        method: Method | None = None,
    ) -> None:
        super().__init__(channels, joints, DistributionHead(convs[-1], joints), find, convs)
        self.method = RLE(RealNVP()) if method is None else method

    def joint_losses(self, answers: Any, boxes: list[Tensor], keypoints: list[Tensor]) -> dict[str, Tensor]:
        """The method's loss, in coordinates of the boxes; joints outside their box count as well."""
        every = torch.cat(keypoints)
        if not len(every):
            return {"loss_keypoint": sum(p.sum() for p in self.keypoint_predictor.parameters()) * 0}
        coords = apply_affine(invert_affine(box_affine(torch.cat(boxes))), every[..., :2])
        labels = Labels(coords, (every[..., 2:] > 0).to(coords).expand_as(coords))
        return self._parts(self.method.loss(answers, labels))

    @staticmethod
    def _parts(parts: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"loss_keypoint": parts["loss"]}

    def person_scores(self, scores: Float[Tensor, "R J"], box: Float[Tensor, " R"]) -> Float[Tensor, " R"]:
        """How sure we are of a person: equation (7.10), box times the mean over the joints."""
        return instance_score(scores, box)

    def read(self, answers: Any, boxes: list[Tensor]) -> Points:
        """The method's points, in pixels, and its scores."""
        points = self.method.decode(answers)
        return Points(apply_affine(box_affine(torch.cat(boxes)), points.coords), points.score)


class PoseurHeads(RLEHeads):
    """Poseur: the guess of `RLEHeads` starts queries that look at all maps of the picture.

    width, layers, layer, noise: as for `PoseurHead`. A reference point is one of the box, moved by adding, which keeps
    it near the box and does not keep it inside, and is looked up where it lies in the picture. queries: at most so many
    a picture in training, noisy ones included, whole people drawn at random (the paper's 600; which it counts is left
    open). The keypoint score is equation (7.9), with lengths as shares of the box.
    """

    def __init__(
        self,
        channels: int,
        joints: int,
        find: Find = Find(),
        convs: Sequence[int] = (512,) * 8,
        method: PoseurMethod | None = None,
        width: int = 256,
        layers: int = 3,
        layer: Layer = Layer(update="add"),
        noise: Uniform | Jittered | None = Uniform(),
        queries: int = 600,
    ) -> None:
        super().__init__(channels, joints, find, convs, PoseurMethod() if method is None else method)
        head = PoseurHead((channels,) * len(NAMES), joints, width, layers, layer, noise=noise)
        head.guess = DistributionHead(convs[-1], joints)
        self.keypoint_predictor = head
        each = joints * (1 + (0 if noise is None else noise.copies))
        if queries < each:
            raise ValueError(f"PoseurHeads: got queries={queries}, expected at least the {each} of one person")
        self.people = min(queries // each, queries if find.people is None else find.people)

    @staticmethod
    def _parts(parts: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"loss_guess": parts["guess"], "loss_layers": parts["loss"] - parts["guess"]}

    def answers(self, features: Features, boxes: list[Tensor]) -> Posed:
        """The guess and the layers' answers for all boxes; people of one picture share its maps, not their thoughts."""
        head: Any = self.keypoint_predictor
        proposal = head.guess(self.keypoint_head(self.keypoint_roi_pool(features, boxes, ())))
        if not len(proposal):
            return Posed(proposal, (proposal,) * head.layers)
        points = proposal[..., :2].unsqueeze(1)
        if head.noise is not None and self.training:
            points = torch.cat([points, head.noise(proposal[..., :2])], 1)
        levels = pyramid_levels(features)
        maps = head.maps(levels)
        h, w = (n * STRIDES[0] for n in levels[0].shape[-2:])  # of the picture with its padding
        every = torch.cat(boxes)
        affine = box_affine(every * every.new_tensor([2 / w, 2 / h, 2 / w, 2 / h]) - 1)
        image, place = seats([len(b) for b in boxes], every.device)
        b, n, q = len(boxes), int(place.max()) + 1, points.shape[1] * self.joints

        def packed(rows: Tensor) -> Tensor:
            found = rows.new_zeros(b, n, *rows.shape[1:])
            return found.index_put((image, place), rows)

        x, reference = packed(head.encoder(points)[0]).flatten(1, 2), packed(points.flatten(1, 2))
        where = packed(affine).flatten(0, 1)
        mask = apart(n * points.shape[1], self.joints, x.device)
        answers = []
        for i in range(head.layers):
            layer = head.decoder[i % len(head.decoder)]
            at = apply_affine(where, reference.flatten(0, 1)).view(b, n * q, 2)
            x = layer(x, None, at, maps, mask)
            moved, answer = layer.answer(x, reference.flatten(1, 2))
            reference = moved.unflatten(1, (n, q))
            answers.append(answer.unflatten(1, (n, q))[image, place])
        return Posed(proposal, tuple(answers))


def seats(counts: Sequence[int], device: torch.device | None = None) -> tuple[Int[Tensor, " R"], Int[Tensor, " R"]]:
    """For people counted picture by picture: the picture of each, and the number that it has there."""
    image = torch.repeat_interleave(torch.tensor(counts, device=device))
    first = torch.tensor([0, *counts[:-1]], device=device).cumsum(0)
    return image, torch.arange(len(image), device=device) - first[image]


# -- the whole network -------------------------------------------------------------------------------------------------


class People(Maps):
    """Joints and two corners of the box for each of several people, one after the other."""

    ndim = 0


class Told(Method):
    """A `Detector` trains and reads by its own heads; this only says what comes out."""

    reads = People


class EndToEnd(Estimator):
    """A `Detector` that trains and predicts as every estimator does, on the columns of a `CrowdStore`.

    places: how many people it tells of, those of whom it is surest; a place without anybody has the
    coordinates and the score 0.
    """

    def __init__(
        self, backbone: Pyramid, heads: PersonHeads, sides: tuple[int, int] = (800, 1333), places: int = 6
    ) -> None:
        nn.Module.__init__(self)
        self.detector, self.method, self.places = Detector(backbone, heads, sides), Told(), places

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Any:
        """Images in [0, 1] -> in evaluation mode torchvision's detections."""
        return self.detector(list(images))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of proposals, boxes and joints by torchvision's names, and "loss", their sum."""
        joints = self.detector.roi_heads.joints
        parts = self.detector(list(batch.images), targets(batch.labels, joints, batch.images.shape[-2:]))
        return {**parts, "loss": torch.stack(list(parts.values())).sum()}

    @torch.no_grad()
    def predict(
        self, images: Float[Tensor, "B 3 H W"], hint: Tensor | None = None, flip: Pairs | None = None
    ) -> Points:
        """(B, places (joints + 2)) points, surest people first; the score of a box's corners is the person's."""
        if flip is not None:
            raise ValueError("EndToEnd: there is no flip test for pictures of several people; give flip=None")
        with evaluating(self):
            found = self(images)
        h, w = images.shape[-2:]
        joints = self.detector.roi_heads.joints
        coords = images.new_zeros(len(images), self.places, joints + 2, 2)
        score = images.new_zeros(len(images), self.places, joints + 2)
        for i, each in enumerate(found):
            best = each["person_scores"].argsort(descending=True, stable=True)[: self.places]
            points = torch.cat([each["keypoints"][best, :, :2], each["boxes"][best].unflatten(-1, (2, 2))], 1)
            coords[i, : len(best)] = points * points.new_tensor([2 / w, 2 / h]) - 1
            score[i, : len(best), :joints] = each["keypoints_scores"][best]
            score[i, : len(best), joints:] = each["person_scores"][best].unsqueeze(-1)
        return Points(coords.flatten(1, 2), score.flatten(1, 2))


def targets(labels: Labels, joints: int, size: Sequence[int]) -> list[dict[str, Tensor]]:
    """The columns of a `CrowdStore` as torchvision wants them: people of each picture, in pixels of `size` = (H, W)."""
    if labels.coords.shape[1] % (joints + 2):
        raise ValueError(
            f"end to end: got {labels.coords.shape[1]} points a picture for a head of {joints} joints, expected a "
            f"multiple of {joints + 2}: joints and two corners; give the head the data set's number of joints"
        )
    half = labels.coords.new_tensor([size[1] / 2, size[0] / 2])
    points = ((labels.coords + 1) * half).unflatten(1, (-1, joints + 2))
    known = (labels.weight.amin(-1) > 0).unflatten(1, (-1, joints + 2))
    found = []
    for each, here in zip(points, known, strict=True):
        rows = here[:, -2:].all(-1)
        keypoints = torch.cat([each[rows, :-2], here[rows, :-2, None].to(each)], -1)
        boxes = each[rows, -2:].flatten(1)
        found.append(
            {"boxes": boxes, "labels": torch.ones_like(boxes[:, 0], dtype=torch.int64), "keypoints": keypoints}
        )
    return found


__all__ = ["EndToEnd", "HeatmapHeads", "People", "PoseurHeads", "RLEHeads", "Told", "seats", "targets"]
