"""Chapter 7, end to end: three heads in one detector of people, on drawn scenes of two or three people each.

    python -m coordreg run endtoend-tab3 --profile cpu

The paper's table 3 (COCO, ResNet-101): heat maps 66.0, RLE 66.7, Poseur 68.6 AP. Here the trunk, the pyramid, the box
branch and the convolutions on pooled features are the same for all three, and so are the scenes in their order and the
number of steps. What differs is what follows the convolutions. COCO's AP is in every record; claims are about the OKS
of the people in a picture, which is a mean over people and has a paired interval.
"""

from collections.abc import Callable
from dataclasses import dataclass

from coordreg.backbones.detector import Find
from coordreg.backbones.pyramid import Pyramid
from coordreg.backbones.resnet import ResNet
from coordreg.data.crowds import Crowds
from coordreg.endtoend import EndToEnd, HeatmapHeads, PoseurHeads, RLEHeads
from coordreg.experiments.claims import Claim, Side
from coordreg.metrics.scoring_people import ScoringPeople
from coordreg.queries import Layer
from coordreg.records import Run
from coordreg.spec import Spec, spec
from coordreg.train import Cosine, Training

JOINTS = 17
SCORING = ScoringPeople()
#: What the claims of a row cover where that is not the whole row.
SCOPE = {"poseur-tab3": "the order of the three heads on one trunk, on drawn scenes"}


@dataclass(frozen=True)
class Size:
    """One profile's sizes; all three heads get the same.

    depth, width: of the ResNet; channels: of the pyramid. convs: of the convolutions on pooled features. queries,
    hidden, heads: widths and number of attention heads of Poseur's decoder. find: how people are found.
    """

    image: int
    train: int
    test: int
    depth: int
    width: int
    channels: int
    convs: tuple[int, ...]
    queries: int
    hidden: int
    heads: int
    find: Find
    steps: int
    batch: int
    lr: float
    seeds: tuple[int, ...]


def _find(scale: float, hidden: int, anchors: int, regions: int, kept: int, people: int) -> Find:
    """People of pictures of 96 px times `scale`, upright more often than not."""
    sides = tuple(round(scale * s) for s in (16, 24, 36, 54, 80))
    pair = (kept, kept)
    return Find(sides, (1.0, 2.0, 3.0), round(scale * 40), anchors, regions, 0.5, pair, pair, people, hidden, most=20)


SIZES = {
    "smoke": Size(
        64, 16, 8, 10, 8, 8, (8,), 16, 16, 2, _find(0.7, 16, 32, 16, 16, 2), steps=2, batch=4, lr=1e-3, seeds=(0,)
    ),
    "cpu": Size(
        96, 2048, 512, 10, 16, 32, (32, 32), 32, 128, 4, _find(1.0, 64, 64, 24, 50, 4),
        steps=800, batch=8, lr=1e-3, seeds=(0, 1, 2),
    ),
    "gpu": Size(
        256, 16384, 2048, 50, 64, 128, (128,) * 4, 256, 1024, 8, _find(2.7, 256, 256, 64, 200, 12),
        steps=3000, batch=32, lr=5e-4, seeds=(0, 1, 2),
    ),
}  # fmt: skip


def size(profile: str) -> Size:
    """The sizes of a profile. ValueError for one that has none."""
    if profile not in SIZES:
        raise ValueError(f"profile: got {profile!r}, the heads end to end come in {', '.join(SIZES)}")
    return SIZES[profile]


def _heatmap(s: Size, **common: object) -> Spec:
    return spec(HeatmapHeads, **common)


def _rle(s: Size, **common: object) -> Spec:
    return spec(RLEHeads, **common)


def _poseur(s: Size, **common: object) -> Spec:
    layer = Layer(heads=s.heads, hidden=s.hidden, update="add")
    return spec(PoseurHeads, **common, width=s.queries, layer=layer)


HEADS: dict[str, Callable[..., Spec]] = {"heatmap": _heatmap, "RLE": _rle, "Poseur": _poseur}


def network(profile: str, head: str) -> Spec:
    """The detector with one of HEADS."""
    s = size(profile)
    heads = HEADS[head](s, channels=s.channels, joints=JOINTS, find=s.find, convs=s.convs)
    trunk = spec(Pyramid, trunk=spec(ResNet, depth=s.depth, width=s.width), channels=s.channels)
    return spec(EndToEnd, backbone=trunk, heads=heads, sides=(s.image, s.image))


def tab3(profile: str) -> list[Run]:
    """Table 3: heat maps, RLE and Poseur as heads of one detector. Expected: Poseur first, RLE next.

    On one core a run of the cpu profile takes about the minutes that `SIZES` asks for; see the record.
    """
    s = size(profile)
    training = Training(s.steps, s.batch, s.lr, "adamw", 1e-4, Cosine(warmup=min(100, s.steps // 2)), clip=5.0)
    train, test = (Crowds(split=split, count=n, size=s.image) for split, n in (("train", s.train), ("test", s.test)))
    return [
        Run(head, network(profile, head), train, test, training, SCORING, seed) for head in HEADS for seed in s.seeds
    ]


def claims(profile: str) -> list[Claim]:
    """What table 3 says of the heads, of the OKS of people."""
    size(profile)
    sides = {head: Side("endtoend-tab3", head, "method") for head in HEADS}

    def beats(better: str, worse: str, text: str) -> Claim:
        return Claim("poseur-tab3", text, sides[better], sides[worse], "oks")

    return [
        beats("Poseur", "heatmap", "end to end Poseur's head is above heat maps"),
        beats("Poseur", "RLE", "end to end Poseur's head is above RLE's"),
        beats("RLE", "heatmap", "end to end RLE's head is above heat maps"),
    ]
