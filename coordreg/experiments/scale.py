"""What a profile means on the drawn figures: image size, number of images, network, steps, seeds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from coordreg.backbones.resnet import ResNet, head, trunk_channels
from coordreg.data.augment import Augment
from coordreg.data.figures import Figures
from coordreg.data.skeletons import MPII16
from coordreg.method import Estimator
from coordreg.metrics.scoring import Scoring
from coordreg.records import Reading, Run
from coordreg.spec import Spec, spec
from coordreg.train import Cosine, Training


@dataclass(frozen=True)
class Scale:
    """One profile's sizes; every rival of an experiment gets the same."""

    size: int
    train: int
    test: int
    depth: int
    width: int
    deconv: int
    steps: int
    batch: int
    lr: float
    seeds: tuple[int, ...]


SCALES = {
    "smoke": Scale(64, 64, 32, depth=10, width=4, deconv=8, steps=6, batch=8, lr=5e-3, seeds=(0,)),
    "cpu": Scale(64, 8192, 2048, depth=18, width=16, deconv=64, steps=2000, batch=32, lr=5e-3, seeds=(0, 1, 2)),
    "gpu": Scale(128, 32768, 4096, depth=18, width=64, deconv=256, steps=2500, batch=128, lr=2e-3, seeds=(0, 1, 2)),
}

#: PCKh as MPII's protocol has it: pelvis and thorax do not enter the mean.
PCKH = Scoring(at=(0.5, 0.1), limit=0.5, exclude=(6, 7))


def scale(profile: str) -> Scale:
    """The sizes of a profile. ValueError for one that has none here."""
    if profile not in SCALES:
        raise ValueError(f"profile: got {profile!r}, the drawn figures come in {', '.join(SCALES)}")
    return SCALES[profile]


def network(profile: str, method: Spec, upsamplings: int, *, joints: int = 16) -> Spec:
    """ResNet, `upsamplings` transposed convolutions, 1x1 convolution, method."""
    s = scale(profile)
    maps = spec(head, channels=trunk_channels(s.depth, s.width), joints=joints, widths=(s.deconv,) * upsamplings)
    return spec(Estimator, backbone=spec(ResNet, depth=s.depth, width=s.width), head=maps, method=method)


def first_keeps(runs: Sequence[Run]) -> list[Run]:
    """The same runs, of which only those of the first seed keep outputs and points: enough for what is drawn once."""
    return [run if run.seed == runs[0].seed else replace(run, keep=0) for run in runs]


def figures_runs(
    profile: str,
    label: str,
    method: Spec,
    upsamplings: int,
    readings: Sequence[Reading],
    *,
    lr: float | None = None,
    seeds: Sequence[int] | None = None,
    split: str = "test",
    keep: int = 0,
    **knobs: Any,
) -> list[Run]:
    """One run a seed on the drawn figures, at the profile's sizes; `knobs` go to Figures."""
    s = scale(profile)
    train = Figures(split="train", count=s.train, size=s.size, augment=Augment(flip=0.5, pairs=MPII16.pairs), **knobs)
    test = Figures(split=split, count=s.test, size=s.size, **knobs)
    training = Training(s.steps, s.batch, lr or s.lr, schedule=Cosine(warmup=min(50, s.steps // 2)))
    estimator = network(profile, method, upsamplings)
    return [
        Run(label, estimator, train, test, training, PCKH, seed, tuple(readings), keep)
        for seed in (seeds if seeds is not None else s.seeds)
    ]
