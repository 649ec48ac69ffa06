"""The recipe of Mao et al. 2022, section 4.3 and table 3: people and their joints in whole pictures of COCO.

    python -m coordreg run paper-poseur-tab3 --profile paper --data coco --root DIR --dry-run

Printed. Mask R-CNN with a ResNet-101. Its head of heat maps: eight convolutions, a transposed one, bilinear upscaling,
56 x 56 cells. RLE's and Poseur's: average pooling and a linear layer in their place. Poseur's attention looks at the
backbone's maps and not at those of the box; 600 queries a picture in training; RLE's loss on the linear layer and on
the decoder. Scale jittering with random crops; 180,000 iterations; batches of 32; the rest as in Detectron2. From
section 4.1: AdamW, 0.9 and 0.999, weight decay 1e-4, a tenth of the rate for sampling offsets and reference points,
three decoder layers of width 256, RealNVP flows, ImageNet's weights, a = 0.2; as many noisy reference points as
proposals.

From Detectron2's configuration of its Keypoint R-CNN. A pyramid of 256 channels; normalisation, stem and first stage
frozen; eight convolutions of 512 channels; anchors, 256 of them and 512 regions a picture, a quarter of them people;
1,500 proposals in training, 1,000 in testing; a score of 0.05, an overlap of 0.5, 100 boxes; the rate falls at two
thirds and at eight ninths of the run, after 1,000 iterations of warm-up; pictures of 800 px, 1,333 at most, in testing;
trained on pictures with labelled joints. No clipping of gradients, no mask branch.

Ours, where the paper is silent. "Other parameters are the same as the Detectron2" may mean its SGD as well. Section 4.1
has "all the models" optimised by AdamW, which is what attention is trained by, and all three heads are; its rate of
1e-3 is for 256 images, and 1e-3 / 8 for 32. Jitter is the large one of the paper that is cited, 0.1 to 2 of 1,024 px,
mirrored in half of the cases. "Backbone feature maps" are the pyramid's. The 600 queries are those of whole people,
noisy ones included. A reference point moves by adding. People are scored by equation 5, with heat maps by their boxes.

Deviations. Detectron2's losses of boxes are smooth below 0.5 and below 0, torchvision's below 1/9; its ResNets have
their strides in the first convolution of a block and other weights, and its RoIAlign samples more densely in large
boxes. At most 20 people of a picture are labelled and told of. One seed. No run: HRNet-W48 (another paper's backbone;
its second row with mirrored and resized pictures) and the rows of other methods.

A batch of 32 at 1,024 px wants several large devices or much patience; nothing here has been run at this size.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from coordreg.backbones.detector import Find, PersonHeads
from coordreg.backbones.pyramid import Pyramid
from coordreg.backbones.resnet import ResNet
from coordreg.coords import Pairs, Points
from coordreg.data.coco import COCO
from coordreg.data.scenes import ScaleJitter, Scenes, corners
from coordreg.endtoend import EndToEnd, HeatmapHeads, PoseurHeads, RLEHeads
from coordreg.experiments.claims import Claim, Side
from coordreg.experiments.recipes import as_printed, paper_only
from coordreg.method import MEAN, STD
from coordreg.metrics.scoring_scenes import ScoringScenes
from coordreg.queries import Layer, Uniform
from coordreg.records import Run
from coordreg.spec import Spec, spec
from coordreg.train import Step, Training

STEPS, BATCH, DECAY = 180_000, 32, 1e-4
#: Section 4.1's rate for 256 images, in proportion.
RATE = 1e-3 * BATCH / 256
#: Detectron2's 60,000 and 80,000 of 90,000 iterations, and its warm-up.
FALLS, WARMUP = (2 / 3, 8 / 9), 1000
DEPTH, CHANNELS, JOINTS, CONVS = 101, 256, 17, (512,) * 8
FIND = Find(after=(1500, 1000))
#: Shorter side of pictures in testing, and the limit of the longer one; how many people are told of.
SIDES, PLACES = (800, 1333), 20
JITTER = ScaleJitter(size=1024, smallest=0.1, largest=2.0, flip=0.5)

HEADS: dict[str, Spec] = {
    "heatmap": spec(HeatmapHeads, channels=CHANNELS, joints=JOINTS, find=FIND, convs=CONVS),
    "RLE": spec(RLEHeads, channels=CHANNELS, joints=JOINTS, find=FIND, convs=CONVS),
    "Poseur": spec(
        PoseurHeads, channels=CHANNELS, joints=JOINTS, find=FIND, convs=CONVS,
        width=256, layers=3, layer=Layer(update="add"), noise=Uniform(copies=1), queries=600,
    ),
}  # fmt: skip


class Whole(EndToEnd):
    """`EndToEnd` on the canvases of a `SceneStore`: jittered ones are trained on as they are, and of the others the
    pictures are cut out and resized, one at a time.

    sides: as for `Detector`, in testing alone.
    """

    def __init__(
        self, backbone: Pyramid, heads: PersonHeads, sides: tuple[int, int] = SIDES, places: int = PLACES
    ) -> None:
        super().__init__(backbone, heads, sides, places)
        # torchvision's own switch for jittered pictures, in training
        self.detector.transform = GeneralizedRCNNTransform(*sides, list(MEAN), list(STD), _skip_resize=True)

    @torch.no_grad()
    def predict(
        self, images: Float[Tensor, "B 3 H W"], hint: Tensor | None = None, flip: Pairs | None = None
    ) -> Points:
        """As `EndToEnd.predict`, in coordinates of the canvas. hint: (B, 2), where each picture ends."""
        found = []
        for image, (width, height) in zip(images, corners(images, hint), strict=True):
            points = super().predict(image[None, :, :height, :width], None, flip)
            share = images.new_tensor([width / images.shape[3], height / images.shape[2]])
            coords = torch.where(points.score.unsqueeze(-1) > 0, (points.coords + 1) * share - 1, 0)
            found.append(Points(coords, points.score))
        return Points(*(torch.cat(column) for column in zip(*found, strict=True)))


def run(head: str) -> Run:
    """One of HEADS on COCO's whole pictures."""
    trunk = spec(ResNet, depth=DEPTH, width=64, weights=f"ResNet{DEPTH}_Weights.IMAGENET1K_V1")
    backbone = spec(Pyramid, trunk=trunk, channels=CHANNELS, frozen=True)
    made = spec(Whole, backbone=backbone, heads=HEADS[head], sides=SIDES, places=PLACES)
    train = Scenes(COCO(split="train2017"), places=PLACES, augment=JITTER)
    test = Scenes(COCO(split="val2017"), places=PLACES)
    schedule = Step(milestones=FALLS, gamma=0.1, warmup=WARMUP)
    training = Training(STEPS, BATCH, RATE, optimiser="adamw", weight_decay=DECAY, schedule=schedule)
    return Run(f"{head} ResNet-{DEPTH}", made, train, test, training, ScoringScenes())


# -- what is printed ---------------------------------------------------------------------------------------------------

RECIPES = {"poseur-tab3": "paper-poseur-tab3"}
SCOPE = {
    "poseur-tab3": "the order of the three heads on one trunk, on drawn scenes; by the recipe, the three rows of "
    "ResNet-101"
}
#: AP on val2017 by head, with ResNet-101.
PRINTED = {"heatmap": 66.0, "RLE": 66.7, "Poseur": 68.6}


def claims(profile: str) -> list[Claim]:
    """What table 3 says of the three heads on ResNet-101: their AP, and by the OKS of people their order."""
    paper_only(profile)
    sides = {head: Side(RECIPES["poseur-tab3"], run(head).label, "method") for head in HEADS}
    found: list[Claim] = [
        as_printed("poseur-tab3", f"{head}: {printed} AP", sides[head], "AP", printed)
        for head, printed in PRINTED.items()
    ]
    for better, worse in (("Poseur", "heatmap"), ("Poseur", "RLE"), ("RLE", "heatmap")):
        text = f"on COCO {better}'s head above {worse}'s"
        found.append(Claim("poseur-tab3", text, sides[better], sides[worse], metric="oks"))
    return found
