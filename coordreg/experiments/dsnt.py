"""Chapter 4: DSNT and its rivals, heatmap matching (HM) and the fully connected layer (FC).

The networks, images, budget and learning-rate search are those of chapter 2; HM's runs are shared with it. Where the
paper has a ResNet-34 at 28 px of 224, the cpu profile has a narrow ResNet-18 at 16 px of 64.
"""

from dataclasses import replace

from coordreg.backbones.hourglass import Hourglasses, HourglassStem
from coordreg.backbones.resnet import ResNet, head, trunk_channels
from coordreg.data.mixed import Joined
from coordreg.dsnt import DSNT, JS, KL, FullyConnected, Regression, Variance
from coordreg.expectation import Rectified
from coordreg.experiments import heatmap
from coordreg.experiments.scale import PCKH, figures_runs, scale
from coordreg.heatmap import Argmax
from coordreg.method import Estimator, Staged
from coordreg.metrics.borders import Borders
from coordreg.records import Reading, Run
from coordreg.spec import Spec, spec

#: A network of the family is read by its mean, by the mode of the same map, and with the flip test, which averages maps
#: before the softmax or points. The first multiplies two probabilities, which is not what a mean was trained for.
READINGS = (
    Reading("method"),
    Reading("argmax", Argmax()),
    Reading("flip", flip="plain"),
    Reading("flip-points", flip="points"),
)
#: Vectors hold no map.
VECTOR_READINGS = (Reading("method"), Reading("flip", flip="plain"))

PLAIN = spec(DSNT)
REGULARISED = spec(DSNT, regulariser=JS(1.0), weight=1.0)
METHODS = {"FC": spec(Regression), "DSNT": PLAIN, "DSNTr": REGULARISED}
#: Table 2's other activations.
ACTIVATIONS = {name: PLAIN.replace(activation=Rectified(name)) for name in ("abs", "relu", "sigmoid")}
#: Table 3's rows with the paper's coefficients. The variance is measured in normalised units, as its 100 implies.
REGULARISERS = {
    "none": PLAIN,
    "variance 1": spec(DSNT, regulariser=Variance(1.0), weight=100.0),
    "variance 2": spec(DSNT, regulariser=Variance(2.0), weight=100.0),
    "KL 1": spec(DSNT, regulariser=KL(1.0), weight=1.0),
    "KL 2": spec(DSNT, regulariser=KL(2.0), weight=1.0),
    "JS 1": REGULARISED,
    "JS 2": spec(DSNT, regulariser=JS(2.0), weight=1.0),
}
#: What is searched for: every loss and activation that is compared, and the regularisers with a target of one cell,
#: whose rates those of two cells take.
SEARCHED = METHODS | ACTIVATIONS | {"variance": REGULARISERS["variance 1"], "KL": REGULARISERS["KL 1"]}

#: Learning rates chosen by the AUC on the validation figures (experiment dsnt-rates), at 16 px, from chapter 2's list.
#: Where an end of the list came out best, the list went on: FURTHER.
CHOSEN = {
    "cpu": {
        "FC": 1e-2, "DSNT": 1e-2, "DSNTr": 2e-2, "abs": 2e-2, "relu": 1e-2, "sigmoid": 2e-2, "variance": 2.5e-3,
        "KL": 5e-3,
    }
}  # fmt: skip
FURTHER = {"DSNTr": (4e-2,), "abs": (4e-2,), "sigmoid": (4e-2,), "variance": (1.25e-3,)}


def _rate(profile: str, name: str) -> float | None:
    return CHOSEN.get(profile, {}).get(name)


def fully_connected(profile: str, upsamplings: int, *, joints: int = 16) -> Spec:
    """The FC baseline: the network of the others with a linear layer behind its softmax maps."""
    s = scale(profile)
    side = s.size // 32 * 2**upsamplings
    maps = spec(head, channels=trunk_channels(s.depth, s.width), joints=joints, widths=(s.deconv,) * upsamplings)
    return spec(
        Estimator,
        backbone=spec(ResNet, depth=s.depth, width=s.width),
        head=spec(FullyConnected, maps=maps, joints=joints, size=(side, side)),
        method=METHODS["FC"],
    )


def _runs(
    profile: str, name: str, label: str, upsamplings: int, *, method: Spec | None = None, keep: int = 0, **knobs: object
) -> list[Run]:
    """Runs of FC, DSNT or DSNTr (or of `method`, at the learning rate found for `name`)."""
    readings = VECTOR_READINGS if name == "FC" else READINGS
    knobs.setdefault("lr", _rate(profile, name))
    runs = figures_runs(profile, label, method or METHODS[name], upsamplings, readings, keep=keep, **knobs)  # type: ignore[arg-type]
    if name != "FC":
        return runs
    return [replace(run, estimator=fully_connected(profile, upsamplings)) for run in runs]


def _first(runs: list[Run]) -> list[Run]:
    """The same runs with their first reading alone."""
    return [replace(run, readings=run.readings[:1]) for run in runs]


def rates(profile: str) -> list[Run]:
    """The learning-rate search for every loss and activation: chapter 2's list of rates, seed and validation figures.

    python -m coordreg run dsnt-rates --profile cpu; 36 runs of about a minute. Expect broad optima.
    """
    return [
        run
        for name, method in SEARCHED.items()
        for lr in (*heatmap.RATES, *FURTHER.get(name, ()))
        for run in _first(_runs(profile, name, f"{name} {lr:g}", 3, method=method, lr=lr, seeds=(100,), split="val"))
    ]


def resolution(profile: str) -> list[Run]:
    """Figure 7, the lines FC, DSNT, DSNTr, at the four map sizes of heatmap-resolution (which has the line HM).

    python -m coordreg run dsnt-resolution --profile cpu; 36 runs of about a minute. Expect DSNT far above HM on the
    smallest maps and the lines to meet on the largest.
    """
    side = scale(profile).size // 32
    return [
        run
        for name in METHODS
        for up in (0, 1, 2, 3)
        for run in _runs(profile, name, f"{name} {side * 2**up} px", up, keep=24 if up == 3 and name != "FC" else 0)
    ]


def activations(profile: str) -> list[Run]:
    """Table 2: softmax, abs, ReLU and sigmoid, each normalised to sum 1, without a regulariser.

    python -m coordreg run dsnt-activations --profile cpu; 12 runs of about a minute, three of them shared with
    dsnt-resolution. Expect small differences and softmax first.
    """
    softmax = _runs(profile, "DSNT", "softmax", 3, keep=24)
    return softmax + [  # maps that die, ReLU's alone can, are counted in those that are kept
        run
        for name, method in ACTIVATIONS.items()
        for run in _runs(profile, name, name, 3, method=method, keep=24 if name == "relu" else 0)
    ]


#: Shares of the paper's coefficient tried for every regulariser beside the whole (experiment dsnt-coefficients). Where
#: one was better by more than a point of AUC, dsnt-regularisers has further rows with it: WEAKER. (Towards 0 a
#: regulariser is plain DSNT; the list ends before.)
SHARES = (0.01, 0.1)
WEAKER: dict[str, dict[str, float]] = {"cpu": {"variance 1": 1.0, "variance 2": 1.0, "KL 1": 0.01}}


def coefficients(profile: str) -> list[Run]:
    """Is the paper's coefficient too much here? A hundredth and a tenth of it for variance, KL and JS; one seed.

    python -m coordreg run dsnt-coefficients --profile cpu; 6 runs of about a minute, at the learning rate of plain
    DSNT; dsnt-rates has the whole coefficients. The search was added when on the validation figures variance at
    100 had learnt nothing at any rate, and KL at 1 half of what plain DSNT had.
    """
    runs = []
    for label in ("variance 1", "KL 1", "JS 1"):
        for share in SHARES:
            weak = REGULARISERS[label].replace(weight=share * REGULARISERS[label]["weight"])
            name = f"{label} {weak['weight']:g}"
            runs += _first(_runs(profile, "DSNT", name, 3, method=weak, seeds=(100,), split="val"))
    return runs


def regularisers(profile: str) -> list[Run]:
    """Table 3 and figure 5: no, variance, KL and JS regularisation, each with a target of 1 and of 2 cells.

    python -m coordreg run dsnt-regularisers --profile cpu; 30 runs of about a minute, six of them shared: the paper's
    seven rows, and three with a weaker coefficient. Expect JS at one cell in front and Gaussian shapes from KL and JS.
    """
    searched = {"none": "DSNT", "JS": "DSNTr"}
    rows = [(label, searched.get(label.split()[0], label.split()[0]), made) for label, made in REGULARISERS.items()]
    rows += [
        (f"{label} at {weight:g}", "DSNT", REGULARISERS[label].replace(weight=weight))
        for label, weight in WEAKER.get(profile, {}).items()
    ]
    return [run for label, kind, made in rows for run in _runs(profile, kind, label, 3, method=made, keep=24)]


#: Figure 6: widths at lambda 1, and lambdas at a width of 1 cell.
SIGMAS, LAMBDAS = (0.5, 1.0, 2.0, 4.0), (0.2, 1.0, 5.0, 10.0)


def sweep(profile: str) -> list[Run]:
    """Figure 6: the width of the target and the coefficient of the JS regulariser.

    python -m coordreg run dsnt-sweep --profile cpu; 21 runs of about a minute, six of them shared. Expect half a cell
    to one cell best and the coefficient to matter little.
    """
    pairs = dict.fromkeys([(s, 1.0) for s in SIGMAS] + [(1.0, w) for w in LAMBDAS])
    return [
        run
        for sigma, weight in pairs
        for run in _runs(
            profile,
            "DSNTr",
            f"sigma {sigma:g} lambda {weight:g}",
            3,
            method=spec(DSNT, regulariser=JS(sigma), weight=weight),
            keep=24 if weight == 1 and sigma in (1, 2) else 0,  # shared with dsnt-regularisers
        )
    ]


#: Figure 8's deeper trunk.
DEEPER = {"smoke": 18, "cpu": 34, "gpu": 50}


def depth(profile: str) -> list[Run]:
    """Figure 8: DSNTr on a deeper trunk (ResNet-34 on the cpu profile) at the three larger maps.

    python -m coordreg run dsnt-depth --profile cpu; 9 runs of about two minutes; dsnt-resolution has
    the shallower line. Expect larger maps to help at either depth.
    """
    s = scale(profile)
    deep = DEEPER[profile]
    runs = []
    for up in (1, 2, 3):
        for run in _runs(profile, "DSNTr", f"ResNet-{deep} {s.size // 32 * 2**up} px", up):
            maps = run.estimator["head"].replace(channels=trunk_channels(deep, s.width))
            trunk = spec(ResNet, depth=deep, width=s.width)
            runs.append(replace(run, estimator=run.estimator.replace(backbone=trunk, head=maps)))
    return runs


#: Figure 9: channels (256 in the paper), and how often an hourglass halves the map: down to 2 x 2 cells.
HOURGLASS = {"smoke": (8, 3), "cpu": (32, 3), "gpu": (256, 4)}


def hourglass(profile: str) -> list[Run]:
    """Figure 9: stacked hourglasses of one and two stacks, every stack supervised, by HM and by DSNTr; maps of size/4.

    python -m coordreg run dsnt-hourglass --profile cpu; 12 runs of one and a half to three minutes. Expect DSNTr above
    HM with either number, and a second stack to help.
    """
    scale(profile)  # refuses a profile without sizes
    width, depth = HOURGLASS[profile]
    rivals = {"HM": (heatmap.H1, heatmap.rate(profile, "H1")),
              "DSNTr": (REGULARISED, _rate(profile, "DSNTr"))}  # fmt: skip
    runs = []
    for stacks in (1, 2):
        stacked = spec(Hourglasses, channels=width, joints=16, stacks=stacks, depth=depth)
        for name, (method, lr) in rivals.items():
            made = spec(Estimator, backbone=spec(HourglassStem, width=width), head=stacked,
                        method=spec(Staged, method=method))  # fmt: skip
            base = figures_runs(profile, f"{name} {stacks}", method, 3, (Reading("method"),), lr=lr)
            runs += [replace(run, estimator=made) for run in base]
    return runs


#: Figure 11's numbers of training images; the last is all that the cpu profile has.
SAMPLES = {"smoke": (16, 64), "cpu": (1024, 2048, 4096, 8192), "gpu": (1024, 2048, 4096, 8192)}


def samples(profile: str) -> list[Run]:
    """Figure 11: fewer training images, without augmentation, for HM, FC and DSNTr at equal steps.

    python -m coordreg run dsnt-samples --profile cpu; 36 runs of about a minute. Expect FC to fall furthest.
    """
    if profile not in SAMPLES:
        raise ValueError(f"profile: got {profile!r}, dsnt-samples comes in {', '.join(SAMPLES)}")
    runs = []
    for count in SAMPLES[profile]:
        rate = heatmap.rate(profile, "H1")
        hm = figures_runs(profile, f"HM {count}", heatmap.H1, 3, heatmap.READINGS[:2], lr=rate)
        for run in [*hm, *(r for name in ("FC", "DSNTr") for r in _runs(profile, name, f"{name} {count}", 3))]:
            runs.append(replace(run, train=replace(run.train, count=count, augment=None)))
    return runs


def halves(profile: str) -> list[Run]:
    """Section 1's thought experiment: trained on people in the left half of the image, tested on both halves.

    python -m coordreg run dsnt-halves --profile cpu; 12 runs of about a minute. The first half of the test images has
    people on the left, the second on the right. Expect FC to fail on the right, where HM and DSNT need not notice.
    """
    s = scale(profile)
    hm = figures_runs(profile, "HM", heatmap.H1, 3, heatmap.READINGS[:2], lr=heatmap.rate(profile, "H1"))
    left = {"offset": (-0.25, 0.0), "shift": 0.05, "height": (0.36, 0.44)}
    runs = []
    for run in [*hm, *(r for name in METHODS for r in _runs(profile, name, name, 3))]:
        train = replace(run.train, augment=None, **left)
        there = replace(run.test, count=s.test // 2, **left)
        other = replace(there, offset=(0.25, 0.0))
        runs.append(replace(run, train=train, test=Joined((there, other))))
    return runs


def borders(profile: str) -> list[Run]:
    """Section 6.4: are joints near the border of the image read less well? HM, DSNT and DSNTr at half the largest map.

    python -m coordreg run dsnt-borders --profile cpu; 9 runs of about a minute. People of all sizes stand anywhere in
    the frame, in training and in testing. Expect DSNT to lose more at the border than HM.
    """
    hm = figures_runs(profile, "HM", heatmap.H1, 2, heatmap.READINGS[:2], lr=heatmap.rate(profile, "H1"))
    runs = [*hm, *(run for name in ("DSNT", "DSNTr") for run in _runs(profile, name, name, 2))]
    where = {"shift": 0.5, "height": (0.5, 0.9)}
    scoring = Borders(at=PCKH.at, limit=PCKH.limit, exclude=PCKH.exclude, within=0.1)
    return [
        replace(run, train=replace(run.train, **where), test=replace(run.test, **where), scoring=scoring)
        for run in runs
    ]
