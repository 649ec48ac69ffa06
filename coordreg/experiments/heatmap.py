"""Chapter 2: heatmap matching.

Every run trains SimpleBaseline in small: a ResNet, zero to three transposed convolutions, a 1x1 convolution; the same
images in the same order for every rival of a seed.
"""

from dataclasses import replace
from itertools import pairwise

from coordreg.backbones.resnet import ResNet, head, trunk_channels
from coordreg.baseline import Blind, MeanPose, OnePose
from coordreg.data.augment import Augment
from coordreg.data.lsp import LSP
from coordreg.data.skeletons import LSP14
from coordreg.experiments.claims import Claim, Side
from coordreg.experiments.scale import figures_runs, scale
from coordreg.heatmap import (
    MSE,
    Argmax,
    BinaryCrossEntropy,
    Disk,
    Gaussian,
    Heatmap,
    OneHot,
    QuarterSecond,
    QuarterSign,
    SoftmaxCrossEntropy,
)
from coordreg.method import Estimator
from coordreg.metrics.scoring import Scoring
from coordreg.records import Reading, Run
from coordreg.spec import Spec, spec
from coordreg.train import Cosine, Training

READINGS = (
    Reading("argmax", Argmax()),
    Reading("quarter", QuarterSign()),
    Reading("quarter-second", QuarterSecond()),
    Reading("quarter-flip", QuarterSign(), flip="plain"),
    Reading("quarter-flip-shift", QuarterSign(), flip="shift"),
)

H1 = spec(Heatmap, target=Gaussian(sigma=1.0), loss=MSE(), decoder=QuarterSign())
H2 = spec(Heatmap, target=OneHot(), loss=SoftmaxCrossEntropy(), decoder=QuarterSign())
H3 = spec(Heatmap, target=Disk(), loss=BinaryCrossEntropy(), decoder=QuarterSign())

#: H3 with the disk that the paper's disk is on the paper's map: 15 of 256 px are 1.9 cells of its 32, 0.9 of our 16.
H3W = H3.replace(target=Disk(radius=30 / 256))
LOSSES = {"H1": H1, "H2": H2, "H3": H3, "H3w": H3W}

#: Readings of the mean pose, which has no maps to decode.
MEAN_READINGS = (Reading("method"),)
_MEAN_TRAINING = Training(300, 64, 0.05, schedule=Cosine(warmup=1))

#: Learning rates tried for each of H1, H2, H3 on the validation figures (experiment heatmap-rates), and those chosen.
RATES = (2.5e-3, 5e-3, 1e-2, 2e-2)
CHOSEN = {"cpu": {"H1": 1e-2, "H2": 1e-2, "H3": 1e-2, "H3w": 5e-3}}


def rate(profile: str, name: str) -> float | None:
    """The learning rate that the search found for a row on a profile; None where none was sought."""
    return CHOSEN.get(profile, {}).get(name)


def _mean_pose(joints: int) -> Spec:
    return spec(Estimator, backbone=spec(Blind), head=spec(OnePose, joints=joints), method=spec(MeanPose))


def rates(profile: str) -> list[Run]:
    """The learning-rate search, the same for H1, H2 and H3: one seed of its own, scored on the validation figures.

    python -m coordreg run heatmap-rates --profile cpu; 16 runs of about a minute. Expect broad optima.
    """
    return [
        run
        for name, method in LOSSES.items()
        for lr in RATES
        for run in figures_runs(profile, f"{name} {lr:g}", method, 3, READINGS[:2], lr=lr, seeds=(100,), split="val")
    ]


def resolution(profile: str) -> list[Run]:
    """DSNT's figure 7, the line HM: heatmaps of 1/32, 1/16, 1/8 and 1/4 of the image's side, by decoder.

    python -m coordreg run heatmap-resolution --profile cpu; 12 runs of about a minute. On the cpu profile the sizes
    2, 4, 8, 16 px come from transposed convolutions, where the paper dilates its trunk. Expect a collapse at low
    resolution and the quarter shift to matter most there.
    """
    side = scale(profile).size // 32
    return [
        run
        for up in (0, 1, 2, 3)
        for run in figures_runs(
            profile, f"{side * 2**up} px", H1, up, READINGS, lr=rate(profile, "H1"), keep=24 if up == 3 else 0
        )
    ]


def losses(profile: str) -> list[Run]:
    """Integral regression's table 1, the rows H1, H2, H3, at the largest map.

    python -m coordreg run heatmap-losses --profile cpu; 12 runs of about a minute, three of them shared with
    heatmap-resolution. Expect H1 and H2 close together and H3 behind.
    """
    return [
        run
        for name, method in LOSSES.items()
        for run in figures_runs(
            profile, name, method, 3, READINGS, lr=rate(profile, name), keep=24 if name == "H1" else 0
        )
    ]


def mean(profile: str) -> list[Run]:
    """The pose that does not look at the figure: how much of PCKh is owed to the frame.

    python -m coordreg run heatmap-mean --profile cpu; one run of seconds. Expect about 20 at PCKh@0.5.
    """
    run = figures_runs(profile, "mean pose", _mean_pose(16), 0, MEAN_READINGS, seeds=(0,))[0]
    return [replace(run, estimator=_mean_pose(16), training=_MEAN_TRAINING)]


def sigma(profile: str) -> list[Run]:
    """How wide should the Gaussian be? sigma of 0.5, 1, 2 and 3 cells at the largest map.

    python -m coordreg run heatmap-sigma --profile cpu; 12 runs of about a minute, three of them shared. Expect a broad
    optimum between 1 and 2 cells.
    """
    return [
        run
        for width in (0.5, 1.0, 2.0, 3.0)
        for run in figures_runs(
            profile,
            f"sigma {width:g}",
            H1.replace(target=Gaussian(sigma=width)),
            3,
            READINGS,
            lr=rate(profile, "H1"),
            keep=24 if width == 1 else 0,
        )
    ]


def lsp(profile: str) -> list[Run]:
    """Real photographs: LSP's official training half and LSPET, PCK@0.2 of the torso on LSP test photographs.

    python -m coordreg run heatmap-lsp --profile cpu; 3 runs of about 15 minutes on one core each; needs the pack that
    `python -m coordreg data pack lsp lspet` writes. Expect at least 55.
    """
    sizes = {  # image side, depth, width, upsampling width, steps, batch, lr, seeds
        "smoke": (64, 10, 4, 8, 4, 4, 1e-3, (0,)),
        "cpu": (96, 18, 32, 64, 4500, 32, 3e-3, (0, 1, 2)),
        "gpu": (160, 50, 64, 256, 12000, 64, 1e-3, (0, 1, 2)),
    }
    if profile not in sizes:
        raise ValueError(f"profile: got {profile!r}, heatmap-lsp comes in {', '.join(sizes)}")
    size, depth, width, deconv, steps, batch, lr, seeds = sizes[profile]
    augment = Augment(flip=0.5, rotation=30.0, scale=0.25, colour=0.2, pairs=LSP14.pairs, size=size)
    estimator = spec(
        Estimator,
        backbone=spec(ResNet, depth=depth, width=width),
        head=spec(head, channels=trunk_channels(depth, width), joints=14, widths=(deconv,) * 3),
        method=spec(Heatmap, target=Gaussian(sigma=1.5), loss=MSE(), decoder=QuarterSign()),
    )
    training = Training(steps, batch, lr, optimiser="adamw", weight_decay=1e-2, schedule=Cosine(warmup=steps // 10))
    train, test = LSP(split="train", size=size, augment=augment), LSP(split="val", size=size)
    scoring = Scoring(at=(0.2, 0.1), limit=0.5)
    still = LSP(split="train", size=size, augment=Augment(flip=0.0, pairs=LSP14.pairs, size=size))
    mean = Run("mean pose", _mean_pose(14), still, test, _MEAN_TRAINING, scoring, 0, MEAN_READINGS)
    return [*(Run("LSP", estimator, train, test, training, scoring, seed, READINGS) for seed in seeds), mean]


# -- what the papers claim, declared before the runs -------------------------------------------------------------------


def _hm(size: str, reading: str = "quarter") -> Side:
    return Side("heatmap-resolution", size, reading)


def _h(name: str) -> Side:
    return Side("heatmap-losses", name, "argmax")


def claims(profile: str) -> list[Claim]:
    """The claims of this chapter's rows. The sizes carry the profile's names."""
    side = scale(profile).size // 32
    sizes = [f"{side * 2**up} px" for up in range(4)]
    grow = [
        Claim("dsnt-fig7", f"HM: {a} below {b}", better=_hm(b), worse=_hm(a), metric="0.5") for a, b in pairwise(sizes)
    ]
    return [
        *grow,
        Claim(
            "dsnt-fig7",
            f"HM collapses: {sizes[0]} at least 25 points below {sizes[3]}",
            better=_hm(sizes[3]),
            worse=_hm(sizes[0]),
            metric="0.5",
            margin=25.0,
        ),
        Claim("integral-tab1", "H3 below H1 in AUC", better=_h("H1"), worse=_h("H3"), metric="auc"),
        Claim("integral-tab1", "H3 below H2 in AUC", better=_h("H2"), worse=_h("H3"), metric="auc"),
        Claim("integral-tab1", "H3 below H1 in PCKh@0.5", better=_h("H1"), worse=_h("H3"), metric="0.5"),
        Claim(
            "integral-tab1",
            "H3 with a disk of the paper's size in cells below H1 in AUC",
            better=_h("H1"),
            worse=_h("H3w"),
            metric="auc",
        ),
        Claim("integral-tab1", "H2 above H1 in PCKh@0.1", better=_h("H2"), worse=_h("H1"), metric="0.1"),
    ]
