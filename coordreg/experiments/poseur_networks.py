"""Chapter 7: Poseur, RLE and heatmap matching in the sizes of a profile, and runs of them on the drawn figures."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from coordreg.backbones.levels import MultiScale, mobile_channels, resnet_channels
from coordreg.backbones.mobilenet import MobileNetV2
from coordreg.backbones.resnet import ResNet
from coordreg.experiments import heatmap
from coordreg.experiments.scale import figures_runs, network, scale
from coordreg.flow import RealNVP
from coordreg.method import Estimator
from coordreg.poseur import Poseur, PoseurHead, PoseurMethod, Stage
from coordreg.queries import Layer
from coordreg.records import Reading, Run
from coordreg.rle import RLE, DistributionHead, Sharpness, Unscored, Within
from coordreg.spec import Spec, spec
from coordreg.train import Cosine


@dataclass(frozen=True)
class Size:
    """One profile's sizes beside `scale(profile)`.

    queries: width of queries and maps. heads: of the attention. hidden: of the feed-forward network. flow: hidden
    features of RealNVP. steps: of every rival. mobile: factor on the channels of MobileNet-V2.
    """

    queries: int
    heads: int
    hidden: int
    flow: int
    steps: int
    mobile: float


SIZES = {
    "smoke": Size(12, heads=4, hidden=16, flow=8, steps=4, mobile=0.1),
    "cpu": Size(40, heads=4, hidden=160, flow=16, steps=1000, mobile=0.25),
    "gpu": Size(256, heads=8, hidden=1024, flow=64, steps=2500, mobile=1.0),
}

#: Learning rates tried on the validation figures for heatmap, RLE and Poseur (experiment poseur-rates), and those
#: chosen by the AUC. Until the search's records exist, the provisional ones stand in.
RATES = (1.25e-3, 2.5e-3, 5e-3, 1e-2)
CHOSEN: dict[str, dict[str, float]] = {"cpu": {}}
PROVISIONAL = {"smoke": dict.fromkeys(("heatmap", "RLE", "Poseur"), 1e-3),
               "cpu": {"heatmap": 1e-2, "RLE": 2.5e-3, "Poseur": 2.5e-3},
               "gpu": {"heatmap": 2e-3, "RLE": 1e-3, "Poseur": 5e-4}}  # fmt: skip

FIRST = (Reading("method"),)
#: What the guess, layer 0, and the first layers of a deeper decoder say.
DEEP_READINGS = (*FIRST, *(Reading(f"layer {i}", Stage(i)) for i in range(3)))
#: Scores of table 1c, and equation 8 with a radius a quarter as large.
SCORES = (
    Reading("within", Within()),
    Reading("sharpness", Sharpness()),
    Reading("none", Unscored()),
    Reading("near", Within(0.05)),
)


def size(profile: str) -> Size:
    """The sizes of a profile. ValueError for one that has none."""
    if profile not in SIZES:
        raise ValueError(f"profile: got {profile!r}, Poseur's experiments come in {', '.join(SIZES)}")
    return SIZES[profile]


def rate(profile: str, kind: str) -> float:
    """The learning rate that the search found for heatmap, RLE or Poseur, or the provisional one."""
    return CHOSEN.get(profile, {}).get(kind) or PROVISIONAL[profile][kind]


def keep(profile: str) -> int:
    """For how many test figures the runs of `base` keep what the layers looked at: half as many for twice the heads."""
    return 32 // size(profile).heads


# -- networks ---------------------------------------------------------------------------------------------------------


def resnet(profile: str) -> tuple[Spec, tuple[int, ...]]:
    """The trunk and the channels of its four levels."""
    s = scale(profile)
    return spec(ResNet, depth=s.depth, width=s.width), resnet_channels(s.depth, s.width)


@cache
def mobile(profile: str) -> tuple[Spec, tuple[int, ...]]:
    width = size(profile).mobile
    return spec(MobileNetV2, width=width), mobile_channels(width)


def likelihood(profile: str) -> Spec:
    """The loss of RLE and of Poseur's guess and layers: each term once, one flow."""
    return spec(RLE, flow=spec(RealNVP, hidden=size(profile).flow), decoder=Within())


def poseur(
    profile: str,
    *,
    levels: int = 4,
    trunk: tuple[Spec, tuple[int, ...]] | None = None,
    joints: int = 16,
    layer: dict[str, Any] | None = None,
    **options: Any,
) -> Spec:
    """Poseur with three layers on four levels, as the paper has it; layer: arguments of `Layer`, options of the head's.

    trunk: a trunk and the channels of its four levels; None: the profile's ResNet.
    """
    z, (backbone, channels) = size(profile), trunk or resnet(profile)
    made = replace(Layer(heads=z.heads, hidden=z.hidden, dropout=0.0), **(layer or {}))
    queries = spec(
        PoseurHead, channels=channels[4 - levels :], joints=joints, width=z.queries, layer=made, **options
    )  # fmt: skip
    method = spec(PoseurMethod, guess=likelihood(profile), fine=likelihood(profile))
    return spec(Poseur, backbone=spec(MultiScale, trunk=backbone, levels=levels), head=queries, method=method)


def pooled(profile: str) -> Spec:
    """RLE: the same likelihood on pooled features."""
    backbone, channels = resnet(profile)
    last = spec(DistributionHead, channels=channels[-1], joints=16)
    return spec(Estimator, backbone=backbone, head=last, method=likelihood(profile))


def matching(profile: str) -> Spec:
    """SimpleBaseline in small: chapter 2's network with its largest map."""
    return network(profile, heatmap.H1, 3)


#: The kinds of network with a search of their own.
KINDS: dict[str, Callable[[str], Spec]] = {"heatmap": matching, "RLE": pooled, "Poseur": poseur}


def on_figures(
    profile: str, label: str, estimator: Spec, kind: str = "Poseur", *, readings: tuple[Reading, ...] | None = None,
    lr: float | None = None, seeds: tuple[int, ...] | None = None, split: str = "test", **knobs: Any,
) -> list[Run]:  # fmt: skip
    """One run a seed of a network on the drawn figures, at the learning rate found for `kind`."""
    readings = readings or (heatmap.READINGS[:2] if kind == "heatmap" else FIRST)
    found = figures_runs(
        profile, label, heatmap.H1, 3, readings, lr=lr or rate(profile, kind), seeds=seeds, split=split, **knobs
    )
    steps = size(profile).steps
    training = replace(found[0].training, steps=steps, schedule=Cosine(warmup=min(50, steps // 2)))
    return [replace(run, estimator=estimator, training=training) for run in found]


def base(profile: str, label: str, readings: tuple[Reading, ...] = FIRST) -> list[Run]:
    """The runs of Poseur as it is that most tables share; their records keep what the page draws."""
    return on_figures(profile, label, poseur(profile), readings=readings, keep=keep(profile))
