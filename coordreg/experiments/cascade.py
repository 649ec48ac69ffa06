"""Chapter 3: Tompson's coarse network, its cascade, the standard cascade, and dropout.

Drawn figures of 96 px whose labels err by a known amount, in training and in testing: the spread that Tompson et al.
measured of people's clicks on faces, 0.65 px of 240. All rivals see the same images in the same order and as many of
them; the cascade's three steps share the budget that the coarse network has for itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from coordreg.backbones.multires import MultiRes, SlidingHead
from coordreg.cascade import Cascade, CascadeHead, CascadeMethod, Coarse, FineNet, Refined
from coordreg.data.augment import Augment
from coordreg.data.figures import Figures
from coordreg.data.noisy import Noisy
from coordreg.data.skeletons import MPII16
from coordreg.experiments import heatmap
from coordreg.experiments.scale import PCKH, first_keeps
from coordreg.experiments.selecting import CROWDED, Through, both_ways, crowd, selecting
from coordreg.heatmap import MSE, Argmax, Gaussian, Heatmap, QuarterSign
from coordreg.method import Estimator
from coordreg.metrics.offsets import ScoringOffsets
from coordreg.records import Reading, Run
from coordreg.spec import Spec, spec
from coordreg.train import Cosine, Restarts, Training


@dataclass(frozen=True)
class Size:
    """One profile's sizes; every rival gets the same.

    widths: features of the banks' convolutions. top, kernel: the layers that stand for fully connected ones. window:
    of the fine network, in pixels; fine: its features. steps: of the three phases.
    """

    image: int
    train: int
    test: int
    widths: tuple[int, ...]
    top: tuple[int, ...]
    kernel: int
    window: int
    fine: tuple[int, int]
    steps: tuple[int, int, int]
    batch: int
    seeds: tuple[int, ...]


SIZES = {
    "smoke": Size(64, 64, 32, (4, 4, 8), (8, 8), 3, 16, (4, 8), (3, 2, 2), 8, seeds=(0,)),
    "cpu": Size(96, 8192, 2048, (16, 16, 32), (48, 48, 48), 7, 24, (12, 24), (1000, 300, 300), 32, seeds=(0, 1, 2)),
    "gpu": Size(
        256, 32768, 4096, (64, 64, 128), (256, 128, 128), 9, 40, (32, 64), (2000, 600, 600), 64, seeds=(0, 1, 2)
    ),
}
#: Standard deviation of the labels along each axis as a share of the image's height: table 1's 0.65 px of 240.
NOISE = 0.65 / 240
POOLINGS = (4, 8, 16)
GROUPS = (("head", (9,)), ("shoulder", (12, 13)), ("elbow", (11, 14)), ("wrist", (10, 15)))
SCORING = ScoringOffsets(at=(0.5, 0.1), limit=0.5, exclude=(6, 7), groups=GROUPS)

#: Learning rates tried for each kind of network on the validation figures (experiment cascade-rates), and those chosen.
RATES, RATE = (1e-3, 2e-3, 4e-3), 2e-3
#: Tried as well, because an end of the list came out best.
FURTHER = {"shared": (8e-3, 1.6e-2), "standard": (8e-3, 1.6e-2, 3.2e-2)}
CHOSEN: dict[str, dict[str, float]] = {"cpu": {"coarse": 2e-3, "shared": 8e-3, "standard": 1.6e-2}}

READINGS = (Reading("argmax", Argmax()), Reading("quarter", QuarterSign()))
#: The tree's answers come first: they are what a page may draw. "histograms" is the tree before its training,
#: "torso" that tree without the picture.
SELECTED = (
    Reading("learnt", Through("learnt")),
    Reading("argmax", Argmax()),
    Reading("histograms", Through("tree")),
    Reading("pairs", Through("pairs")),
    Reading("torso", Through("tree", blind=True)),
)
CASCADE_READINGS = (
    Reading("refined", Refined(Argmax())),
    Reading("coarse", Coarse(Argmax())),
    Reading("coarse-quarter", Coarse(QuarterSign())),
    Reading("refined-quarter", Refined(QuarterSign())),
)


def size(profile: str) -> Size:
    """The sizes of a profile. ValueError for one that has none."""
    if profile not in SIZES:
        raise ValueError(f"profile: got {profile!r}, the cascade comes in {', '.join(SIZES)}")
    return SIZES[profile]


def _rate(profile: str, kind: str) -> float:
    return CHOSEN.get(profile, {}).get(kind, RATE)


def _trunk(s: Size, pooling: int) -> Spec:
    return spec(MultiRes, widths=s.widths, pooling=pooling, levels=3)


def _head(s: Size, dropout: str) -> Spec:
    return spec(SlidingHead, channels=s.widths[-1], joints=16, widths=s.top, kernel=s.kernel, dropout=dropout)


def coarse(profile: str, pooling: int, dropout: str = "spatial") -> Spec:
    """The coarse network by itself."""
    s = size(profile)
    method = spec(Heatmap, target=Gaussian(sigma=1.5), loss=MSE(), decoder=Argmax())
    return spec(Estimator, backbone=_trunk(s, pooling), head=_head(s, dropout), method=method)


def shared(profile: str, pooling: int) -> Spec:
    """The cascade whose fine network reads the coarse one's features."""
    s = size(profile)
    fine = spec(FineNet, joints=16, channels=s.widths[:2], window=s.window, widths=s.fine, kernel=3)
    return _cascade(s, pooling, fine, s.steps[:2])


#: Width of the standard cascade's first convolution, with which it has the shared one's number of parameters.
EXTRA = {"smoke": 9, "cpu": 45, "gpu": 175}


def standard(profile: str, pooling: int) -> Spec:
    """The standard cascade of figure 13: the fine network reads the image, and trains after the coarse one is done."""
    s = size(profile)
    fine = spec(
        FineNet, joints=16, window=s.window, widths=s.fine, kernel=3, source="image", extra=EXTRA[profile]
    )  # fmt: skip
    return _cascade(s, pooling, fine, (s.steps[0], s.steps[1] + s.steps[2]))


def _cascade(s: Size, pooling: int, fine: Spec, phases: tuple[int, int]) -> Spec:
    return spec(
        Cascade,
        backbone=_trunk(s, pooling),
        head=spec(CascadeHead, coarse=_head(s, "spatial"), fine=(fine,)),
        method=spec(CascadeMethod, phases=phases),
    )


#: The kinds of network that are compared, each with a search of its own.
KINDS: dict[str, Callable[[str, int], Spec]] = {"coarse": coarse, "shared": shared, "standard": standard}


def _runs(
    profile: str, label: str, kind: str, pooling: int, *, estimator: Spec | None = None, lr: float | None = None,
    seeds: tuple[int, ...] | None = None, split: str = "test", count: int | None = None,
) -> list[Run]:  # fmt: skip
    """One run a seed of one kind of network; count: training images, where they are few."""
    s = size(profile)
    total = sum(s.steps)
    flip = Augment(flip=0.5, pairs=MPII16.pairs)
    train = Figures(split="train", count=count or s.train, size=s.image, label_noise=NOISE, augment=flip)
    test = Noisy(Figures(split=split, count=s.test, size=s.image, label_noise=NOISE))
    warmup = min(50, min(s.steps) // 2)
    ends = {"shared": (s.steps[0], s.steps[0] + s.steps[1]), "standard": (s.steps[0],)}.get(kind, ())
    starts = (0.0, *(end / total for end in ends))
    schedule = Restarts(warmup, starts) if ends else Cosine(warmup)
    training = Training(total, s.batch, lr or _rate(profile, kind), schedule=schedule)
    readings = READINGS if kind == "coarse" else CASCADE_READINGS
    made = estimator or KINDS[kind](profile, pooling)
    scoring = replace(SCORING, window=s.window)
    return [Run(label, made, train, test, training, scoring, seed, readings) for seed in seeds or s.seeds]


def rates(profile: str) -> list[Run]:
    """The learning-rate search at 8x pooling, the same for each kind of network: one seed of its own.

    python -m coordreg run cascade-rates --profile cpu; 14 runs of four to eight minutes. Expect broad optima.
    """
    return [
        run
        for kind in KINDS
        for lr in (*RATES, *FURTHER.get(kind, ()))
        for run in _runs(profile, f"{kind} {lr:g}", kind, 8, lr=lr, seeds=(100,), split="val")
    ]


def pooling(profile: str) -> list[Run]:
    """Figure 9: the coarse network alone with 4x, 8x and 16x pooling and the same number of features.

    python -m coordreg run cascade-pooling --profile cpu; 9 runs of about four minutes. Expect precision at small
    distances to fall with pooling.
    """
    return [run for by in POOLINGS for run in _runs(profile, f"{by}x", "coarse", by)]


def refinement(profile: str) -> list[Run]:
    """Table 1, figures 11 and 12: the cascade with 4x, 8x and 16x pooling, read with and without its refinement.

    python -m coordreg run cascade-refinement --profile cpu; 9 runs of about seven minutes. Expect the spread of the
    error to fall most at 16x, and to come near that of the labels.
    """
    found = [run for by in POOLINGS for run in _runs(profile, f"{by}x", "shared", by)]
    return first_keeps([replace(run, keep=8) if run.label == "8x" else run for run in found])


def sharing(profile: str) -> list[Run]:
    """Figure 14a: shared features trained jointly against a standard cascade with as many parameters, at 4x pooling.

    python -m coordreg run cascade-sharing --profile cpu; 6 runs of about seven minutes, three of them shared with
    cascade-refinement. Expect the shared one ahead. The standard cascade is trained greedily: its coarse network has no
    joint phase, and its fine network gets those steps. Images seen and steps of the fine networks are equal.
    """
    return [run for kind in ("shared", "standard") for run in _runs(profile, kind, kind, 4)]


#: Training images of figure 14b: FLIC has 3,987, few for its network.
COUNTS = {"smoke": (32,), "cpu": (512, 2048), "gpu": (1024, 4096)}


def dropout(profile: str) -> list[Run]:
    """Figure 14b: the coarse network with SpatialDropout, standard dropout and none, from few images, at 8x pooling.

    python -m coordreg run cascade-dropout --profile cpu; 18 runs of about four minutes. Expect SpatialDropout ahead on
    the wrist where images are few. All three take the learning rate that was sought with SpatialDropout and all images.
    """
    size(profile)  # refuses a profile without sizes
    return [
        run
        for count in COUNTS[profile]
        for name in ("spatial", "standard", "none")
        for run in _runs(
            profile, f"{name} {count}", "coarse", 8, estimator=coarse(profile, 8, name), count=count
        )
    ]  # fmt: skip


def mrf(profile: str) -> list[Run]:
    """The spatial model: two people in the picture, one annotated; one network at 4x pooling, read in five ways.

    python -m coordreg run cascade-mrf --profile cpu; 3 runs of about seven minutes. Expect the maps' own maxima to be
    of the wrong person about as often as the network cannot tell, and the tree to choose by the torso point. Tests
    show the same people with somebody beside them and alone. The rate is that of the coarse network.
    """
    s = size(profile)
    train = crowd("train", s.train, s.image, NOISE, CROWDED)
    estimator = selecting(coarse(profile, 4), s.image // 4, train)
    train = replace(train, augment=Augment(flip=0.5, pairs=MPII16.pairs))
    test = both_ways(s.test, s.image, NOISE)
    steps = s.steps[0]
    training = Training(steps, s.batch, _rate(profile, "coarse"), schedule=Cosine(min(50, steps // 2)))
    return first_keeps(
        [Run("two people", estimator, train, test, training, PCKH, seed, SELECTED, 8) for seed in s.seeds]
    )


def lsp(profile: str) -> list[Run]:
    """Real photographs: the coarse network and the cascade at 8x pooling, on the images of heatmap-lsp.

    python -m coordreg run cascade-lsp --profile cpu; 6 runs of six (coarse) and ten minutes (shared); needs the pack of
    photographs. Half of heatmap-lsp's steps, each with its batch, optimiser and augmentation; rates are those of the
    drawn figures. Expect the cascade above its own coarse answers at the smaller distance, and both below chapter 2.
    """
    s, found = size(profile), []
    for kind in ("coarse", "shared"):
        for base in heatmap.lsp(profile):
            if base.label != "LSP":
                continue
            made, steps = KINDS[kind](profile, 8), max(6, base.training.steps // 2)
            ends = tuple(round(steps * sum(s.steps[:i]) / sum(s.steps)) for i in (1, 2))
            if kind == "coarse":
                made = made.replace(head=made["head"].replace(joints=14))
            else:
                head = made["head"]
                parts = {"coarse": head["coarse"].replace(joints=14), "fine": (head["fine"][0].replace(joints=14),)}
                made = made.replace(head=head.replace(**parts))
                made = made.replace(method=made["method"].replace(phases=(ends[0], ends[1] - ends[0])))
            warmup = min(50, steps // 20)
            starts = (0.0, *(end / steps for end in ends))
            schedule = Cosine(warmup) if kind == "coarse" else Restarts(warmup, starts)
            training = replace(base.training, steps=steps, lr=_rate(profile, kind), schedule=schedule)
            readings = READINGS if kind == "coarse" else CASCADE_READINGS
            found.append(replace(base, label=kind, estimator=made, training=training, readings=readings))
    return found
