"""Chapter 5, in the plane: direct regression, heat maps and integral regression on one network, one budget.

H1, H2, H3 and their runs are chapter 2's, read by the arg max as in the paper. The paper says neither how the two
losses are weighed nor how the maps are scaled before the softmax. Ours: coefficients 1, 0.1, 1 for the losses of I1,
I2, I3, which make the two gradients on the last layer of like size; a learnt factor, which we reasoned should start at
10 where squared error gives maps a peak of 1, and at 1 for logits (integral-sharpness varies it). I1 to I3 spend half
of the budget on the heat map and half on the integral.
"""

from collections.abc import Sequence
from dataclasses import replace

from coordreg.backbones.multistage import MultiStage, SharedTrunk
from coordreg.backbones.resnet import ResNet, trunk_channels
from coordreg.dsnt import DSNT, JS, Power, Regression
from coordreg.experiments import heatmap
from coordreg.experiments.claims import Claim, Side, Widening
from coordreg.experiments.scale import figures_runs, first_keeps, scale
from coordreg.heatmap import MSE, Argmax, BinaryCrossEntropy, Disk, Gaussian, OneHot, SoftmaxCrossEntropy
from coordreg.integral import Debiased, Integral, Matching, PooledHead
from coordreg.method import Estimator, Staged
from coordreg.records import Reading, Run
from coordreg.spec import Spec, spec

READINGS = (
    Reading("method"),
    Reading("argmax", Argmax()),
    Reading("flip", flip="plain"),
    Reading("flip-points", flip="points"),
    Reading("debiased-zero", Debiased("zero")),
    Reading("debiased-median", Debiased("median")),
)
VECTOR_READINGS = (Reading("method"), Reading("flip", flip="plain"))
FIRST = READINGS[:1]

#: The heat-map losses as values of R: target and loss, coefficient, first value of the learnt factor.
LOSSES = {
    "I1": (Matching(Gaussian(sigma=1.0), MSE()), 1.0, 10.0),
    "I2": (Matching(OneHot(), SoftmaxCrossEntropy()), 0.1, 1.0),
    "I3": (Matching(Disk(), BinaryCrossEntropy()), 1.0, 1.0),
}
#: Learning rates chosen by the AUC on the validation figures (experiment integral-rates) from chapter 2's list, at
#: 16 px. Rows with L2 and rows without pre-training are searched like the others.
#: Where an end of the list came out best, the list went on: FURTHER.
CHOSEN = {
    "cpu": dict.fromkeys(("R1", "I*", "I1", "I2", "I3", "I*-L2"), 5e-3)
    | {"I1-L2": 2.5e-3, "I1-both": 2e-2, "I2-both": 1e-2, "I3-both": 4e-2}
}
FURTHER = {"I1-L2": (1.25e-3,), "I1-both": (4e-2,), "I3-both": (4e-2, 8e-2)}
#: First values of the learnt factor tried for every row at its learning rate (experiment integral-sharpness), and
#: further ones where an end of the list came out best.
SHARPNESS, SMALLER = (1.0, 3.0, 10.0, 30.0), {"I2": (0.3,), "I3": (0.3,)}


def _rate(profile: str, name: str) -> float | None:
    return CHOSEN.get(profile, {}).get(name)


def method(profile: str, name: str) -> Spec:
    """R1, I*, I1, I2 or I3 with the profile's number of pre-training steps."""
    if name == "R1":
        return spec(Regression, distance=Power(1))
    if name == "I*":
        return spec(Integral)
    loss, weight, sharpness = LOSSES[name]
    return spec(Integral, regulariser=loss, weight=weight, sharpness=sharpness, pretrain=scale(profile).steps // 2)


def _runs(
    profile: str,
    name: str,
    label: str,
    upsamplings: int = 3,
    *,
    made: Spec | None = None,
    keep: int = 0,
    readings: Sequence[Reading] | None = None,
    **knobs: object,
) -> list[Run]:
    """Runs of a row (or of the method `made`, at the learning rate found for the row)."""
    knobs.setdefault("lr", _rate(profile, name))
    readings = readings or (VECTOR_READINGS if name == "R1" else READINGS)
    runs = figures_runs(profile, label, made or method(profile, name), upsamplings, readings, keep=keep, **knobs)  # type: ignore[arg-type]
    if name != "R1":
        return runs
    s = scale(profile)
    pooled = spec(PooledHead, channels=trunk_channels(s.depth, s.width), joints=16)
    trunk = spec(ResNet, depth=s.depth, width=s.width)
    regression = spec(Estimator, backbone=trunk, head=pooled, method=method(profile, "R1"))
    return [replace(run, estimator=regression) for run in runs]


ROWS = ("R1", "I*", "I1", "I2", "I3")


def rivals(profile: str) -> dict[str, Spec]:
    """What tests the claims on L1 and on pre-training: I* and I1 with L2; I1, I2, I3 with both losses throughout."""
    squared = {f"{name}-L2": method(profile, name).replace(distance=Power(2)) for name in ("I*", "I1")}
    return squared | {f"{name}-both": method(profile, name).replace(pretrain=0) for name in LOSSES}


def rates(profile: str) -> list[Run]:
    """The learning-rate search for R1, I*, I1, I2, I3 and their rivals: chapter 2's rates, seed, validation figures.

    python -m coordreg run integral-rates --profile cpu; 44 runs of about a minute. Expect broad optima.
    """
    wanted = {name: method(profile, name) for name in ROWS} | rivals(profile)
    return [
        run
        for name, made in wanted.items()
        for lr in (*heatmap.RATES, *FURTHER.get(name, ()))
        for run in _runs(profile, name, f"{name} {lr:g}", made=made, lr=lr, seeds=(100,), split="val", readings=FIRST)
    ]


def sharpness(profile: str) -> list[Run]:
    """Does it matter where the learnt factor starts? Other first values for I*, I1, I2, I3, after the learning rates.

    python -m coordreg run integral-sharpness --profile cpu; 18 runs of about a minute, four of them shared with
    integral-rates. It was added when I1, alone of the three, came out no better than I* on the validation figures. No
    run elsewhere takes its values from here: the rows' rivals have had no such search.
    """
    runs = []
    for name in ROWS[1:]:
        for value in (*SMALLER.get(name, ()), *SHARPNESS):
            made = method(profile, name)
            if (name, value) != ("I*", 1.0):  # the default of Integral
                made = made.replace(sharpness=value)
            label = f"{name} {value:g}"
            runs += _runs(profile, name, label, made=made, seeds=(100,), split="val", readings=FIRST)
    return runs


def losses(profile: str) -> list[Run]:
    """Table 1 and figure 2: R1, I*, I1, I2, I3 at the largest map; heatmap-losses has H1, H2, H3.

    python -m coordreg run integral-losses --profile cpu; 15 runs of about a minute. Expect every I above its H, most of
    all at PCKh@0.1.
    """
    found = [run for name in ROWS for run in _runs(profile, name, name, keep=24 if name in ("I*", "I1") else 0)]
    return first_keeps(found)


def _resized(runs: Sequence[Run], size: int) -> list[Run]:
    return [replace(r, train=replace(r.train, size=size), test=replace(r.test, size=size)) for r in runs]


def settings(profile: str) -> dict[str, tuple[int, int]]:
    """Side of the image and number of upsamplings of (a) to (d), in tables 2 and 9."""
    full = scale(profile).size
    return {"a": (full, 3), "b": (full, 2), "c": (full // 2, 3), "d": (full // 2, 2)}


#: Table 3's depths of trunk.
DEPTHS = {"smoke": (10, 18, 34), "cpu": (10, 18, 34), "gpu": (18, 34, 50)}


def resolution(profile: str) -> list[Run]:
    """Table 2: H1 and I1 on whole and half images with three and two upsamplings; (a) to (d) as in the paper.

    python -m coordreg run integral-resolution --profile cpu; 24 runs of up to a minute, nine of them shared. Expect I1
    above H1 everywhere and most at (d).
    """
    runs = []
    for name, (size, up) in settings(profile).items():
        h1 = figures_runs(profile, f"H1 {name}", heatmap.H1, up, heatmap.READINGS[:2], lr=heatmap.rate(profile, "H1"))
        runs += _resized([*h1, *_runs(profile, "I1", f"I1 {name}", up)], size)
    return runs


def capacity(profile: str) -> list[Run]:
    """Table 3: three depths of trunk, I1 on each and H1 on the deepest; two upsamplings as in the paper.

    python -m coordreg run integral-capacity --profile cpu; 12 runs of one to two minutes, three shared. Expect every
    network to gain with depth, and I1 on the smallest above H1 on the largest.
    """
    s = scale(profile)
    depths = DEPTHS[profile]
    h1 = figures_runs(
        profile, f"H1 ResNet-{depths[2]}", heatmap.H1, 2, heatmap.READINGS[:2],
        lr=heatmap.rate(profile, "H1"),
    )  # fmt: skip
    wanted = [(depths[2], run) for run in h1]
    wanted += [(d, run) for d in dict.fromkeys(depths) for run in _runs(profile, "I1", f"I1 ResNet-{d}", 2)]
    runs = []
    for deep, run in wanted:
        maps = run.estimator["head"].replace(channels=trunk_channels(deep, s.width))
        trunk = spec(ResNet, depth=deep, width=s.width)
        runs.append(replace(run, estimator=run.estimator.replace(backbone=trunk, head=maps)))
    return runs


#: Table 4's numbers of stages that need a network of their own; one stage is integral-resolution's setting (b).
STAGES = {"MS-H1": (3, 4), "MS-I1": (2, 3, 4)}


def stages(profile: str) -> list[Run]:
    """Table 4: multi-stage networks, MS-H1 with 3 and 4 stages, MS-I1 with 2 to 4.

    python -m coordreg run integral-stages --profile cpu; 15 runs of two to four minutes. Expect a small gain with each
    stage, and MS-I1 above MS-H1 at any number.
    """
    s = scale(profile)
    runs = []
    for name, counts in STAGES.items():
        row = name.removeprefix("MS-")
        for count in counts:
            inner = heatmap.H1 if row == "H1" else method(profile, row).replace(calls=count)
            estimator = spec(
                Estimator,
                backbone=spec(SharedTrunk, depth=s.depth, width=s.width),
                head=spec(MultiStage, depth=s.depth, width=s.width, joints=16, stages=count, widths=(s.deconv,) * 2),
                method=spec(Staged, method=inner),
            )
            lr = heatmap.rate(profile, "H1") if row == "H1" else _rate(profile, row)
            readings = heatmap.READINGS[:2] if row == "H1" else FIRST
            runs += [
                replace(run, estimator=estimator)
                for run in figures_runs(profile, f"{name} {count}", heatmap.H1, 2, readings, lr=lr)
            ]
    return runs


def distances(profile: str) -> list[Run]:
    """The claim on L1: I* and I1 trained with the L2 distance beside those of integral-losses.

    python -m coordreg run integral-distances --profile cpu; 6 runs of about a minute. Expect L1 in front.
    """
    return [
        run
        for name in ("I*", "I1")
        for run in _runs(profile, f"{name}-L2", f"{name} L2", made=rivals(profile)[f"{name}-L2"])
    ]


def pretraining(profile: str) -> list[Run]:
    """The claim on pre-training: I1, I2, I3 with both losses from the first step.

    python -m coordreg run integral-pretraining --profile cpu; 9 runs of about a minute. Expect them slightly behind
    those of integral-losses.
    """
    return [
        run
        for name in LOSSES
        for run in _runs(profile, f"{name}-both", f"{name} both", made=rivals(profile)[f"{name}-both"])
    ]


def lsp(profile: str) -> list[Run]:
    """Real photographs: DSNTr and I1 with the network, images, budget and learning rate of heatmap-lsp.

    python -m coordreg run integral-lsp --profile cpu; 6 runs of about 15 minutes; needs the pack of photographs. Expect
    both above heatmap matching at small distances.
    """
    base = [run for run in heatmap.lsp(profile) if run.label == "LSP"]
    rows = {
        "DSNTr": spec(DSNT, regulariser=JS(1.0), weight=1.0),
        "I1": method(profile, "I1").replace(
            regulariser=Matching(Gaussian(sigma=1.5), MSE()), pretrain=base[0].training.steps // 2
        ),
    }
    readings = (Reading("method"), Reading("flip-points", flip="points"), Reading("argmax", Argmax()))
    return [
        replace(run, label=label, estimator=run.estimator.replace(method=made), readings=readings)
        for label, made in rows.items()
        for run in base
    ]


# -- what the paper claims, declared before the runs ------------------------------------------------------------------

METRICS = ("0.5", "0.1", "auc")


def _h(name: str) -> Side:
    return Side("heatmap-losses", name, "argmax")


def _i(name: str) -> Side:
    return Side("integral-losses", name, "method")


def claims(profile: str) -> list[Claim]:
    """The claims of this chapter's rows in the plane."""
    scale(profile)  # refuses profiles without drawn figures
    found: list[Claim] = []

    def add(row: str, a: Side, b: Side, text: str, metrics: Sequence[str] = ("auc",), margin: float = 0.0) -> None:
        found.extend(Claim(row, f"{text} ({m})", better=a, worse=b, metric=m, margin=margin) for m in metrics)

    for n in "123":
        add("integral-tab1", _i(f"I{n}"), _h(f"H{n}"), f"I{n} above H{n}", METRICS)
    add("integral-tab1", _i("I*"), _i("R1"), "I* above R1", METRICS)
    for n in "12":
        add("integral-tab1", _i("I*"), _h(f"H{n}"), f"I* above H{n}", ("0.1", "auc"))
    for n in "123":
        add("integral-tab1", _i(f"I{n}"), _i("I*"), f"I{n} above I*", ("auc",))
    add("integral-fig2", _i("I1"), _h("H1"), "the curve of I1 above that of H1", ("auc",))
    add("integral-fig2", _i("I1"), _i("R1"), "the curve of I1 above that of R1", ("auc",))
    add("integral-fig2", _i("I1"), _i("I*"), "the curve of I1 above that of I*", ("auc",))

    def at(name: str, setting: str) -> Side:
        return Side("integral-resolution", f"{name} {setting}", "argmax" if name == "H1" else "method")

    for setting in "abcd":
        add("integral-tab2", at("I1", setting), at("H1", setting), f"I1 above H1 at ({setting})", ("auc", "0.1"))
    add("integral-tab2", at("I1", "d"), at("H1", "d"), "I1 10 points above H1 at (d)", ("auc",), margin=10.0)
    wide, narrow = (at("I1", "d"), at("H1", "d")), (at("I1", "a"), at("H1", "a"))
    text = "I1's lead over H1 is wider at (d) than at (a)"
    found.append(Widening("integral-tab2", text, *wide, metric="auc", than=narrow))
    for better, worse in ("ab", "cd"):  # claims pair test images, which differ in size between (b) and (d)
        for name in ("H1", "I1"):
            add("integral-tab2", at(name, better), at(name, worse), f"{name}: ({better}) above ({worse})", ("auc",))
    low, middle, high = DEPTHS[profile]

    def deep(name: str, depth: int) -> Side:
        return Side("integral-capacity", f"{name} ResNet-{depth}", "argmax" if name == "H1" else "method")

    add("integral-tab3", deep("I1", high), deep("H1", high), f"I1 above H1 on ResNet-{high}", ("auc",))
    add("integral-tab3", deep("I1", middle), deep("I1", low), f"I1: ResNet-{middle} above ResNet-{low}", ("auc",))
    add("integral-tab3", deep("I1", high), deep("I1", middle), f"I1: ResNet-{high} above ResNet-{middle}", ("auc",))

    text = f"I1 on ResNet-{low} above H1 on ResNet-{high}"
    add("integral-tab3", deep("I1", low), deep("H1", high), text, ("auc",))

    def staged(name: str, count: int) -> Side:
        return at(name.removeprefix("MS-"), "b") if count == 1 else Side(
            "integral-stages", f"{name} {count}", "argmax" if name == "MS-H1" else "method")  # fmt: skip

    for count in (3, 4):
        add("integral-tab4", staged("MS-I1", count), staged("MS-H1", count), f"MS-I1 above MS-H1 with {count} stages")
    for count in (2, 3, 4):
        text = f"MS-I1: {count} stages above {count - 1}"
        add("integral-tab4", staged("MS-I1", count), staged("MS-I1", count - 1), text)
    add("integral-tab4", staged("MS-I1", 2), staged("MS-H1", 4), "MS-I1 with 2 stages above MS-H1 with 4")
    for name in ("I*", "I1"):
        squared = Side("integral-distances", f"{name} L2", "method")
        add("integral-l1", _i(name), squared, f"{name}: L1 above L2", METRICS)
    for name in LOSSES:
        text = f"{name}: pre-training above both losses from scratch"
        add("integral-pretrain", _i(name), Side("integral-pretraining", f"{name} both", "method"), text)
    return found
