"""The recipes of Mao et al. 2022, section 4 and supplement, section 1, on COCO and MPII; `paper.py` names them.

Printed. AdamW, betas 0.9 and 0.999, weight decay 1e-4; batches of 256; 1e-3, a tenth at epochs 255 and 310 of 325; the
layers to sampling offsets and reference points at a tenth of the rate; lambda 1; 256 channels, four levels, two RealNVP
flows; noisy reference points, as many as proposals. 256 x 192 px, HRNet-W48 384 x 288, with cutout and colour jitter.
Decoders of six layers in tables 5 and 6; elsewhere "3 decoder layers are used by default", so in table 4. ImageNet's
weights for ResNets. Joints are scored by equation 8 with a = 0.2, people by equation 5 (the mean over all joints).
Supplement, table 1: ResNet-50 for 150 to 325 epochs.

From the released files and mmpose's, which the paper points to. Mirrors 0.5, scale 0.5, rotation 40 in six crops of
ten, half bodies 0.3; 500 steps of warm-up; 256 x 256 px on MPII; ImageNet's weights for MobileNet-V2, too; dropout 0.1;
a flip test that averages points and scores. Contrast and saturation are jittered by a half.

Ours, where the paper is silent. The random reference points are uniform over the crop (`queries.Uniform`). The hole of
the cutout is a square of the mean colour with a quarter of the crop's shorter side, in every crop, its middle anywhere;
brightness is jittered by a half, too, and hue is not. In the shorter schedules the rate falls at the same shares of the
run, and the decoder has six layers, by which alone the printed AP comes near that of table 5.

Deviations. HRNets start from N(0, 0.001): torchvision has no weights for them. SCRATCH, as for DARK, is what we allow
for it. AdamW's decay of the slow layers is that of the full rate (`attention.SlowLinear`). Full, not half precision.
The released MPII file has six layers. Where the released network departs from the paper, the paper is followed
(`poseur.RELEASED`). COCO is measured on val2017 in labelled boxes, not in SimpleBaseline's detected ones, nor on
test-dev (table 6), whose labels are not public: claims on figures are that ours are not lower. `python -m
coordreg.experiments.ensemble paper-poseur-tab5 --only LABEL --boxes FILE` measures finished weights in boxes from a
file. HRFormer is another paper's backbone: its rows have no run. `poseur_counted` counts table 5's GFLOPs; table 6
prints none. Crops come from a stored canvas that holds every
whole body turned and scaled (`data.halfbody` says what half bodies miss). A joint that has left the crop has no weight.
One seed.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from coordreg.backbones.hrnet import HRNet
from coordreg.backbones.levels import MultiScale, hrnet_channels, mobile_channels, resnet_channels
from coordreg.backbones.mobilenet import MobileNetV2
from coordreg.backbones.resnet import ResNet
from coordreg.coords import Labels
from coordreg.data.coco import COCO
from coordreg.data.halfbody import HalfBody, upper_joints
from coordreg.data.hosted import Hosted
from coordreg.data.mpii import MPII
from coordreg.data.skeletons import COCO17, MPII16
from coordreg.experiments.claims import Claim, Side
from coordreg.experiments.paper_dark import SCRATCH
from coordreg.experiments.recipes import TOLERANCE, as_printed, in_ratio, paper_only, steps
from coordreg.method import MEAN
from coordreg.metrics.scoring import Scoring
from coordreg.metrics.scoring_coco import ScoringCOCO
from coordreg.poseur import Poseur, PoseurHead, PoseurMethod
from coordreg.records import Reading, Run
from coordreg.spec import Spec, spec
from coordreg.train import Step, Training

Size = tuple[int, int]
MIDDLE, LARGE, SQUARE = (256, 192), (384, 288), 256
EPOCHS, FALLS, BATCH, RATE, DECAY, WARMUP = 325, (255, 310), 256, 1e-3, 1e-4, 500
#: The supplement's schedules, the last being that of all other tables.
SCHEDULES = tuple(range(150, EPOCHS + 1, 25))
#: Decoder layers of tables 5 and 6, and those of the settings that all experiments share.
MANY, FEW = 6, 3
#: What is stored, in longer sides: of the smaller crop 1.5 times as wide, with its diagonal upright; of a square.
CANVAS, CANVAS_SQUARE = 15 / 8, 17 / 8
READINGS = (Reading("flip", flip="points"), Reading("method"))
PCKH = Scoring(at=(0.5, 0.1), limit=0.5, exclude=(6, 7))

#: Each trunk and what its levels have, finest first.
TRUNKS: dict[str, tuple[Spec, tuple[int, ...]]] = {
    "MobileNet-V2": (spec(MobileNetV2, weights="MobileNet_V2_Weights.IMAGENET1K_V1"), mobile_channels()),
    **{
        f"ResNet-{depth}": (
            spec(ResNet, depth=depth, width=64, weights=f"ResNet{depth}_Weights.IMAGENET1K_V1"),
            resnet_channels(depth),
        )
        for depth in (50, 152)
    },
    **{f"HRNet-W{width}": (spec(HRNet, width=width), hrnet_channels(width)) for width in (32, 48)},
}
#: Table 5: the input of each network.
SIZES: dict[str, Size] = {network: LARGE if network == "HRNet-W48" else MIDDLE for network in TRUNKS}


# -- data --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cutout(HalfBody):
    """`HalfBody`, and on each crop a square of the mean colour, its middle anywhere (DeVries and Taylor 2017).

    hole: its side as a share of the crop's shorter one. Labels stay: such a joint is hidden, not absent.
    """

    hole: float | int = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.hole <= 1:
            raise ValueError(f"Cutout: got hole={self.hole}, expected a share from 0 to 1")
        object.__setattr__(self, "hole", float(self.hole))

    def cut(
        self,
        images: Float[Tensor, "B 3 H W"],
        labels: Labels,
        visible: Bool[Tensor, "B J"],
        generator: torch.Generator,
        out: tuple[int, int],
    ) -> tuple[Tensor, Labels, Tensor]:
        """As `HalfBody.cut`, whose random numbers it leaves as they are, and the hole."""
        images, labels, visible = super().cut(images, labels, visible, generator, out)
        middle = torch.rand(len(images), 2, generator=generator, device=generator.device)
        return cover(images, middle.to(images), self.hole * min(out)), labels, visible


def cover(images: Float[Tensor, "B 3 H W"], middle: Float[Tensor, "B 2"], side: float) -> Float[Tensor, "B 3 H W"]:
    """Images with a square of the mean colour, which networks see as 0; what lies outside the image is cut off.

    middle: x and y in shares of width and height. side: in pixels.
    """

    def inside(n: int, at: Tensor) -> Tensor:
        return (torch.arange(n, device=images.device) + 0.5 - n * at.unsqueeze(-1)).abs() < side / 2

    columns, rows = inside(images.shape[3], middle[:, 0]), inside(images.shape[2], middle[:, 1])
    hole = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(hole, images.new_tensor(MEAN).view(3, 1, 1), images)


#: Every network's; HRNet-W48's; on MPII.
ON_COCO = HalfBody(rotation=40.0, scale=0.5, half=0.3, upper=upper_joints(COCO17))
STRONGER = Cutout(rotation=40.0, scale=0.5, half=0.3, upper=upper_joints(COCO17), colour=0.5, hole=0.25)
ON_MPII = HalfBody(rotation=40.0, scale=0.5, half=0.3, upper=upper_joints(MPII16))


# -- runs --------------------------------------------------------------------------------------------------------------


def estimator(network: str, joints: int, layers: int) -> Spec:
    """Poseur on one of TRUNKS."""
    trunk, channels = TRUNKS[network]
    backbone = spec(MultiScale, trunk=trunk, levels=4)
    head = spec(PoseurHead, channels=channels, joints=joints, width=256, layers=layers)
    return spec(Poseur, backbone=backbone, head=head, method=spec(PoseurMethod, weight=1.0))


def training(data: Any, epochs: int = EPOCHS) -> Training:
    """The printed training; in fewer epochs the rate falls at the same shares of the run."""
    schedule = Step(milestones=tuple(fall / EPOCHS for fall in FALLS), gamma=0.1, warmup=WARMUP)
    return Training(
        steps(data, epochs, BATCH), BATCH, RATE, optimiser="adamw", weight_decay=DECAY, schedule=schedule
    )  # fmt: skip


def coco(network: str, epochs: int = EPOCHS, label: str = "") -> Run:
    """A network of table 5 on COCO, with six layers."""
    size = SIZES[network]
    augment = STRONGER if network == "HRNet-W48" else ON_COCO
    train = Hosted(COCO(split="train2017", size=size, augment=augment, canvas=CANVAS))
    test, made = COCO(split="val2017", size=size), estimator(network, 17, MANY)
    label = label or f"{network} {size[0]}x{size[1]}"
    return Run(label, made, train, test, training(train, epochs), ScoringCOCO(least=0.0), readings=READINGS)


def schedule(epochs: int) -> Run:
    """ResNet-50 for so many epochs."""
    return coco("ResNet-50", epochs, f"{epochs} epochs")


def mpii() -> Run:
    """HRNet-W32 on MPII, with three layers."""
    train = Hosted(MPII(size=SQUARE, augment=ON_MPII, canvas=CANVAS_SQUARE))
    made, test = estimator("HRNet-W32", 16, FEW), MPII(split="valid", size=SQUARE)
    return Run("HRNet-W32 256x256", made, train, test, training(train), PCKH, readings=READINGS)


# -- what is printed ---------------------------------------------------------------------------------------------------

#: The rows of the ledger that have a recipe here.
RECIPES = {row: f"paper-{row}" for row in ("poseur-tab4", "poseur-tab5", "poseur-tab6", "poseur-supp1")}
#: PCKh at 0.5 on MPII's validation split; AP by network on COCO's, in detected boxes; AP on test-dev.
PRINTED_MPII = 90.5
PRINTED = {"MobileNet-V2": 71.9, "ResNet-50": 75.4, "ResNet-152": 76.3, "HRNet-W32": 76.9, "HRNet-W48": 78.8}
PRINTED_TEST_DEV = {"HRNet-W48": 77.6}
#: AP by epochs.
PRINTED_SCHEDULES = dict(zip(SCHEDULES, (74.1, 74.6, 74.8, 75.0, 75.2, 75.3, 75.4, 75.5), strict=True))
SCOPE = {"poseur-tab6": "HRNet-W48 on val2017 in labelled boxes, as the labels of test-dev are not public"}


def claims(profile: str) -> list[Claim]:
    """What the tables say, on the papers' own data. Orders are claimed among networks that start as the paper's do."""
    paper_only(profile)
    where = Side(RECIPES["poseur-tab4"], mpii().label, "flip")
    found: list[Claim] = [as_printed("poseur-tab4", f"mean {PRINTED_MPII}", where, "0.5", PRINTED_MPII, SCRATCH)]

    def add(row: str, label: str, printed: float, less: float, place: str) -> Side:
        side, least = Side(RECIPES[row], label, "flip"), printed - less - TOLERANCE["points"]
        text = f"{label}: at least {least:.1f} AP in labelled boxes (printed {place}: {printed})"
        found.append(as_printed(row, text, side, "AP", printed, less, or_more=True))
        return side

    sides = {}
    for row, figures, place in (
        ("poseur-tab5", PRINTED, "in detected ones"),
        ("poseur-tab6", PRINTED_TEST_DEV, "for test-dev"),
    ):
        for network, printed in figures.items():
            less = SCRATCH if network.startswith("HRNet") else 0.0
            sides[row, network] = add(row, coco(network).label, printed, less, place)
    for better, worse in (("ResNet-50", "MobileNet-V2"), ("ResNet-152", "ResNet-50")):
        pair = sides["poseur-tab5", better], sides["poseur-tab5", worse]
        found.append(Claim("poseur-tab5", f"{better} above {worse}", *pair, metric="oks"))
    by = {
        epochs: add("poseur-supp1", schedule(epochs).label, printed, 0.0, "in detected ones")
        for epochs, printed in PRINTED_SCHEDULES.items()
    }
    text = "325 epochs above 150"
    found.append(Claim("poseur-supp1", text, by[EPOCHS], by[SCHEDULES[0]], metric="oks"))
    for epochs in (250, 275):
        ratio = PRINTED_SCHEDULES[epochs] / PRINTED_SCHEDULES[EPOCHS]
        text = f"{epochs} epochs only slightly lower than 325: {ratio:.3f} of its AP"
        found.append(in_ratio("poseur-supp1", text, by[epochs], schedule(EPOCHS), "AP", ratio))
    return found
