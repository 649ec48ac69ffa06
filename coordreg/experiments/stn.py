"""Chapter 4's application: where should a classifier look? DSNT and a fully connected layer in a Spatial Transformer.

The DSNT paper names Spatial Transformers as an application and as future work and shows no figure (sections 1, 2.2, 7);
what is tested is what it says there: that DSNT can take the place of the fully connected layer, adds no parameters and
carries over to places it was not trained on. Nothing but the class of the letter is supervised.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from coordreg.backbones.resnet import ConvHead
from coordreg.data.glimpses import LETTERS, Letters
from coordreg.data.mixed import Joined
from coordreg.dsnt import FullyConnected
from coordreg.experiments.claims import Claim, Side
from coordreg.method import Estimator
from coordreg.metrics.recognition import Recognition
from coordreg.records import Run
from coordreg.spec import Spec, spec
from coordreg.stn import Classifier, Expected, Middle, Recognise, Transformer, trunk
from coordreg.train import Cosine, Training


@dataclass(frozen=True)
class Size:
    """One profile's sizes; every rival gets the same."""

    train: int
    test: int
    width: int
    steps: int
    batch: int
    seeds: tuple[int, ...]


SIZES = {
    "smoke": Size(64, 32, width=4, steps=6, batch=8, seeds=(0,)),
    "cpu": Size(8192, 2048, width=16, steps=2000, batch=32, seeds=(0, 1, 2)),
}
#: Pixels: the image, the glimpse, and the localiser's map (stride 4).
IMAGE, GLIMPSE, MAP = 64, 28, 16
#: Named distances are in letter sides: at 0.5 the middle of the glimpse lies within 8 pixels of the letter's. Nothing
#: asks for less: a letter of 16 pixels is whole in a glimpse of 28 up to 6 pixels off its middle along each axis.
SCORING = Recognition(at=(0.5, 0.25), limit=1.0)
#: Learning rates tried on the validation letters (experiment stn-rates), further ones where an end of that list came
#: out best, and those chosen. RATE serves where none was sought.
RATES, RATE = (1e-3, 2e-3, 5e-3, 1e-2), 5e-3
FURTHER = {"DSNT": (2e-2, 4e-2)}
CHOSEN: dict[str, dict[str, float]] = {"cpu": {"DSNT": 1e-2, "FC": 5e-3, "fixed": 5e-3}}


def _size(profile: str) -> Size:
    if profile not in SIZES:
        raise ValueError(f"profile: got {profile!r}, the letters come in {', '.join(SIZES)}")
    return SIZES[profile]


def localisers(width: int) -> dict[str, Spec]:
    """The layers that are compared, by label. DSNT and FC read a map from the same convolutions."""
    maps = spec(ConvHead, channels=2 * width, joints=1)
    return {
        "DSNT": spec(Expected, maps=maps),
        "FC": spec(FullyConnected, maps=maps, joints=1, size=(MAP, MAP)),
        "fixed": spec(Middle),
    }


def network(locate: Spec, width: int) -> Spec:
    """Localisation network, sampler, classifier."""
    look = spec(Transformer, trunk=spec(trunk, width=width), locate=locate, side=GLIMPSE)
    see = spec(Classifier, classes=len(LETTERS), side=GLIMPSE, width=width)
    return spec(Estimator, backbone=look, head=see, method=spec(Recognise))


def _runs(
    profile: str, name: str, label: str, *, lr: float | None = None, seeds: Sequence[int] | None = None
) -> list[Run]:
    s = _size(profile)
    lr = lr or CHOSEN.get(profile, {}).get(name, RATE)
    training = Training(s.steps, s.batch, lr, schedule=Cosine(warmup=min(50, s.steps // 2)))
    train, test = Letters("train", s.train, IMAGE), Letters("test", s.test, IMAGE)
    estimator = network(localisers(s.width)[name], s.width)
    return [Run(label, estimator, train, test, training, SCORING, seed, keep=24) for seed in seeds or s.seeds]


def rates(profile: str) -> list[Run]:
    """The learning-rate search for the localisers, one seed, on the validation letters.

    python -m coordreg run stn-rates --profile cpu; 14 runs of about a minute. Expect DSNT to learn at the larger rates.
    """
    return [
        replace(run, test=replace(run.test, split="val"), keep=0)
        for name in localisers(_size(profile).width)
        for lr in (*RATES, *FURTHER.get(name, ()))
        for run in _runs(profile, name, f"{name} {lr:g}", lr=lr, seeds=(100,))
    ]


def places(profile: str) -> list[Run]:
    """Letters anywhere: DSNT, FC, a fixed glimpse, and a fixed glimpse of letters that are all in the middle.

    python -m coordreg run stn-places --profile cpu; 12 runs of about a minute. Expect DSNT above FC above the fixed
    glimpse. The last, "centred", sees what a perfect localiser would show: same letters and strokes, other places.
    """
    runs = [run for name in localisers(_size(profile).width) for run in _runs(profile, name, name)]
    middle = {"across": (0.0, 0.0), "down": (0.0, 0.0)}
    return runs + [
        replace(run, train=replace(run.train, **middle), test=replace(run.test, **middle))
        for run in _runs(profile, "fixed", "centred")
    ]


def halves(profile: str) -> list[Run]:
    """Trained on letters in the left half of the image, tested on both halves; strokes lie in both halves throughout.

    python -m coordreg run stn-halves --profile cpu; 9 runs of about a minute. Half as many test images, so that the
    points of all are kept: the first half of them has its letter on the left, the second the same on the right.
    Expect DSNT to look at both, FC at the left only.
    """
    s, left, right = _size(profile), (-0.65, -0.25), (0.25, 0.65)
    runs = []
    for run in (run for name in localisers(s.width) for run in _runs(profile, name, name)):
        there = replace(run.test, count=s.test // 4, across=left)
        both = Joined((there, replace(there, across=right)))
        runs.append(replace(run, train=replace(run.train, across=left), test=both))
    return runs


# -- what the paper says, declared before the runs --------------------------------------------------------------------


def claims(profile: str) -> list[Claim]:
    """The claims of the ledger row dsnt-stn."""
    half = _size(profile).test // 4

    def claim(text: str, experiment: str, worse: str, margin: float, part: tuple[int, int] | None = None) -> Claim:
        return Claim("dsnt-stn", text, Side(experiment, "DSNT", "method"), Side(experiment, worse, "method"),
                     metric="accuracy", margin=margin, part=part)  # fmt: skip

    return [
        claim("letters anywhere: DSNT 20 points above a fixed glimpse", "stn-places", "fixed", 20.0),
        claim("letters anywhere: DSNT above FC", "stn-places", "FC", 0.0),
        claim("trained on the left, tested on the right: DSNT 20 points above FC", "stn-halves", "FC", 20.0,
              (half, 2 * half)),
        claim("trained on the left, tested on the right: DSNT 20 points above a fixed glimpse", "stn-halves", "fixed",
              20.0, (half, 2 * half)),
    ]  # fmt: skip
