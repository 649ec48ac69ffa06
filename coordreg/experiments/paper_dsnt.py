"""The recipes of Nibali et al. 2018, sections 6.1 to 6.4, on MPII; `paper.py` names them.

Printed. Input 224 px for ResNets; hourglasses at 256 px as in Newell et al. RMSProp at 2.5e-4, 120 epochs, a tenth
of the rate at epochs 60 and 90; batches of 32, of 6 for hourglasses. Mirroring, scale 75% to 125%, +-30 degrees, each
channel times 60% to 140%. ResNets carry ImageNet's weights. DSNTr is JS at 1 cell with coefficient 1; HM is MSE to
Gaussians read with a quarter of a cell's shift (sigma 1, from Newell et al.).

Ours, where the paper is silent. The rest of RMSProp: torch's defaults. Chance of a mirror: one half. Batch of
ResNet-101@28px, which the paper says was smaller: 16. Hourglasses: no published weights, every stack supervised, the
losses added. The test set's labels are not public: table 4 is measured on the validation split, with the flip test.
Readings with and without the flip test are recorded; claims are on those without it, as nothing is said for figures 7
to 10; table 4's are on those with it. One seed.

Printed figures are claims too (PRINTED), within `recipes.TOLERANCE`; ratios are of our own two figures.
"""

from coordreg.backbones.dilated import DilatedResNet
from coordreg.backbones.hourglass import Hourglasses, HourglassStem
from coordreg.backbones.resnet import head, trunk_channels
from coordreg.data.channels import Varied
from coordreg.data.hosted import Hosted
from coordreg.data.mpii import MPII
from coordreg.dsnt import DSNT, JS, FullyConnected, Regression
from coordreg.experiments.claims import Claim, Side
from coordreg.experiments.recipes import as_printed, in_ratio, paper_only, steps
from coordreg.experiments.scale import PCKH
from coordreg.heatmap import MSE, Argmax, Gaussian, Heatmap, QuarterSign
from coordreg.method import Estimator, Staged
from coordreg.records import Reading, Run
from coordreg.spec import Spec, spec
from coordreg.train import Step, Training

EPOCHS, BATCH, STACKED_BATCH, LR = 120, 32, 6, 2.5e-4
SCHEDULE = Step(milestones=(60 / 120, 90 / 120), gamma=0.1)
AUGMENT = Varied(flip=0.5, rotation=30.0, scale=0.25, channels=0.4)
SIZE, STACKED_SIZE, JOINTS = 224, 256, 16
#: Side of the map -> input pixels a cell.
STRIDES = {7: 32, 14: 16, 28: 8, 56: 4}
DEPTHS, STACKS = (18, 34, 50, 101), (1, 2, 4, 8)
#: What the authors could not train for want of memory, and what they trained with smaller batches (of our choice).
LEFT_OUT, SMALLER = {(101, 56)}, {(101, 28): 16}

METHODS = {
    "HM": spec(Heatmap, target=Gaussian(sigma=1.0), loss=MSE(), decoder=QuarterSign()),
    "FC": spec(Regression),
    "DSNT": spec(DSNT),
    "DSNTr": spec(DSNT, regulariser=JS(1.0), weight=1.0),
}
READINGS = (Reading("method"), Reading("argmax", Argmax()))
#: The flip test averages the maps where they are read by their peak, the points where they are read by their mean.
FLIPS = {name: Reading("flip", flip="plain" if name == "HM" else "points") for name in METHODS}


def _run(label: str, estimator: Spec, size: int, batch: int, readings: tuple[Reading, ...]) -> Run:
    train = Hosted(MPII(split="train", size=size, augment=AUGMENT))
    training = Training(steps(train, EPOCHS, batch), batch, LR, optimiser="rmsprop", schedule=SCHEDULE)
    return Run(label, estimator, train, MPII(split="valid", size=size), training, PCKH, readings=readings)


def resnet(name: str, depth: int, cells: int) -> Run:
    """A dilated ResNet whose map has `cells` a side, with one of METHODS."""
    trunk = spec(
        DilatedResNet, depth=depth, width=64, stride=STRIDES[cells], weights=f"ResNet{depth}_Weights.IMAGENET1K_V1"
    )
    maps = spec(head, channels=trunk_channels(depth), joints=JOINTS, widths=())
    if name == "FC":
        maps = spec(FullyConnected, maps=maps, joints=JOINTS, size=(cells, cells))
    estimator = spec(Estimator, backbone=trunk, head=maps, method=METHODS[name])
    readings = (*(READINGS[:1] if name == "FC" else READINGS), FLIPS[name])
    return _run(f"{name} ResNet-{depth} {cells} px", estimator, SIZE, SMALLER.get((depth, cells), BATCH), readings)


def hourglass(name: str, stacks: int) -> Run:
    """A stacked hourglass with one of METHODS behind every stack."""
    estimator = spec(
        Estimator,
        backbone=spec(HourglassStem, width=256),
        head=spec(Hourglasses, channels=256, joints=JOINTS, stacks=stacks, depth=4),
        method=spec(Staged, method=METHODS[name]),
    )
    return _run(f"{name} HG{stacks}", estimator, STACKED_SIZE, STACKED_BATCH, (*READINGS, FLIPS[name]))


#: The rows of the ledger that have a recipe here.
RECIPES = {
    "dsnt-fig7": "paper-dsnt-fig7",
    "dsnt-fig8": "paper-dsnt-fig8",
    "dsnt-fig9": "paper-dsnt-fig9",
    "dsnt-fig10": "paper-dsnt-fig10",
    "dsnt-tab4": "paper-dsnt-tab4",
}
#: The figures that the rows with a recipe print: PCKh@0.5 in percent, by how much DSNT is above HM in percent of HM's,
#: and the share of HG8's PCKh that ResNet-50@28px has, in percent. HG8's in table 4 is that of Newell et al.
PRINTED = {
    "dsnt-fig7": {"HM 7 px": 44.0, "DSNT above HM 7 px": 90.5, "DSNT above HM 56 px": 2.0},
    "dsnt-fig10": {"share of HG8": 99.0},
    "dsnt-tab4": {"DSNTr ResNet-50 28 px": 89.5, "HM HG8": 90.9},
}


def claims(profile: str) -> list[Claim]:
    """What the figures say, on the paper's own data. Images of 224 and of 256 px are not paired."""
    paper_only(profile)
    found: list[Claim] = []

    def add(figure: str, better: str, worse: str, text: str, margin: float = 0.0) -> None:
        sides = [Side(RECIPES[figure], label, "method") for label in (better, worse)]
        found.append(Claim(figure, text, better=sides[0], worse=sides[1], metric="0.5", margin=margin))

    def at(name: str, cells: int, depth: int = 34) -> str:
        return f"{name} ResNet-{depth} {cells} px"

    for cells in STRIDES:
        margin = 15.0 if cells == 7 else 0.0
        add("dsnt-fig7", at("DSNT", cells), at("HM", cells), f"DSNT above HM at {cells} px", margin)
        add("dsnt-fig7", at("DSNT", cells), at("FC", cells), f"FC below DSNT at {cells} px")
        pair = ("DSNT", "DSNTr") if cells == 7 else ("DSNTr", "DSNT")
        text = f"regularisation {'does not help' if cells == 7 else 'helps'} at {cells} px"
        add("dsnt-fig7", at(pair[0], cells), at(pair[1], cells), text)
    for depth in DEPTHS:
        for fine, coarse in ((14, 7), (28, 14), (56, 28)):
            if (depth, fine) not in LEFT_OUT:
                text = f"ResNet-{depth}: {fine} px above {coarse} px"
                add("dsnt-fig8", at("DSNTr", fine, depth), at("DSNTr", coarse, depth), text)
    for deep, shallow in ((34, 18), (50, 34), (101, 50)):
        text = f"ResNet-{deep} above ResNet-{shallow} at 28 px"
        add("dsnt-fig8", at("DSNTr", 28, deep), at("DSNTr", 28, shallow), text)
    for stacks in STACKS:
        add("dsnt-fig9", f"DSNTr HG{stacks}", f"HM HG{stacks}", f"DSNTr above HM with {stacks} stacks")
    for more, fewer in ((2, 1), (4, 2), (8, 4)):
        add("dsnt-fig10", f"HM HG{more}", f"HM HG{fewer}", f"{more} stacks above {fewer}")
    for fine, coarse in ((28, 14), (56, 28)):
        text = f"ResNet-50: {fine} px above {coarse} px"
        add("dsnt-fig10", at("DSNTr", fine, 50), at("DSNTr", coarse, 50), text)
    return found + _figures()


def _figures() -> list[Claim]:
    """The printed numbers: two of single networks, and four ratios."""
    found: list[Claim] = []

    def one(row: str, text: str, label: str, printed: float, reading: str = "method") -> None:
        found.append(as_printed(row, text, Side(RECIPES[row], label, reading), "0.5", printed))

    def two(row: str, text: str, label: str, other: Run, ratio: float, reading: str = "method") -> None:
        found.append(in_ratio(row, text, Side(RECIPES[row], label, reading), other, "0.5", ratio))

    best, deep = "DSNTr ResNet-50 28 px", hourglass("HM", 8)
    printed = PRINTED["dsnt-fig7"]
    one("dsnt-fig7", f"HM at 7 px: {printed['HM 7 px']:g}", "HM ResNet-34 7 px", printed["HM 7 px"])
    for cells in (7, 56):
        more = printed[f"DSNT above HM {cells} px"]
        ratio = 1 + more / 100
        text = f"DSNT at {cells} px {more:.1f}% above HM: less {ratio:g} times HM"
        two("dsnt-fig7", text, f"DSNT ResNet-34 {cells} px", resnet("HM", 34, cells), ratio)
    share = PRINTED["dsnt-fig10"]["share of HG8"] / 100
    two("dsnt-fig10", f"ResNet-50@28px has {share:.0%} of HG8: less {share:g} times HG8", best, deep, share)
    ours, theirs = (PRINTED["dsnt-tab4"][label] for label in (best, deep.label))
    one("dsnt-tab4", f"ResNet-50@28px: {ours:g}, which is printed for the test set", best, ours, "flip")
    text = f"ResNet-50@28px and HG8 as {ours:g} and {theirs:g}: less {ours / theirs:.3f} times HG8"
    two("dsnt-tab4", text, best, deep, ours / theirs, "flip")
    return found
