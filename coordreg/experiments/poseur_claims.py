"""What chapter 7's paper claims, declared before the runs of `experiments.poseur` existed."""

from dataclasses import dataclass
from itertools import pairwise

from coordreg.data.skeletons import MPII16
from coordreg.experiments import dark
from coordreg.experiments.claims import Claim, Observation, Side, Widening
from coordreg.experiments.poseur import LAYERS, LEVELS
from coordreg.experiments.poseur_networks import size
from coordreg.records import Record

SCOPE = {
    "poseur-tab1c": "people who are drawn one an image: false positives are poses that miss their person, and no box "
    "is without a person or has a score of its own",
    "poseur-supp4": "cost and accuracy; times are measured beside the library, not in the ledger",
    "poseur-supp-fig2": "the claim on the left shoulder's own arm: the figures' joints have no ear; all of it is drawn",
    "poseur-supp-fig1": "figures that the frame cuts; heatmap and DSNTr stand for methods with maps, not Mask R-CNN",
}
#: How far apart two numbers that are said to be equal may lie, in points.
EQUAL = 0.1


@dataclass(frozen=True)
class Gain:
    """What one score has more than another of the same network's poses, in points: the measure of an observation."""

    better: str
    worse: str
    name: str = "AP"

    def __call__(self, record: Record) -> float:
        """The difference in a record."""
        return float(record.reading(self.better)[self.name]) - float(record.reading(self.worse)[self.name])


@dataclass(frozen=True)
class Looks:
    """How much more a joint looks at some joints than at all others on average, itself left out; mean over layers.

    Places of joints in the skeleton; 1 is what a joint has that looks at all others alike.
    """

    joint: int
    at: tuple[int, ...]

    def __call__(self, record: Record) -> float:
        """The ratio in a record, whose attention is the mean over heads and over all test images."""
        row = record.kept("joints").astype(float).mean(0)[self.joint]
        others = [share for k, share in enumerate(row) if k != self.joint]
        return float(row[list(self.at)].mean()) * len(others) / sum(others)


def _between() -> list[Claim]:
    """Supplement, figure 2: the left shoulder looks at the left elbow, the left wrist and the left ear."""
    side, joints = Side("poseur-attention", "on", "method"), MPII16.joints
    arm = Looks(joints.index("l_shoulder"), (joints.index("l_elbow"), joints.index("l_wrist")))
    text = "the left shoulder looks more at its elbow and wrist than at another joint on average"
    return [Observation("poseur-supp-fig2", text, side, side, "", measure=arm, low=1.001, high=15.0)]


def _by_score() -> list[Claim]:
    """Table 1c. The paper: equation 8 is 4.7 AP above no score and 1.1 above RLE's; what was found, AR, is equal."""
    side = Side("poseur-scores", "Poseur", "within")

    def seen(text: str, measure: Gain, low: float, high: float) -> Claim:
        return Observation("poseur-tab1c", text, side, side, "", measure=measure, low=low, high=high)

    return [
        seen("AP: equation 8 above no score by at least a point", Gain("within", "none"), 1.0, 100.0),
        seen("AP: RLE's score above no score by at least a point", Gain("sharpness", "none"), 1.0, 100.0),
        seen("AP: equation 8 above RLE's score", Gain("within", "sharpness"), 0.001, 100.0),
        seen("AR: equal with equation 8 and without a score", Gain("within", "none", "AR"), -EQUAL, EQUAL),
    ]


def claims(profile: str) -> list[Claim]:
    """The claims of tables 1 and 2 and of the supplement that drawn figures can answer."""
    size(profile)  # refuses a profile without sizes
    found = _by_score() + _between()

    def side(experiment: str, label: str, reading: str = "method") -> Side:
        return Side(f"poseur-{experiment}", label, reading)

    def add(row: str, text: str, better: Side, worse: Side, metric: str = "auc", margin: float = 0.0) -> None:
        found.append(Claim(f"poseur-{row}", text, better, worse, metric=metric, margin=margin))

    better, worse = (side("starts", name) for name in ("proposal", "learned"))
    add("tab1a", "reference points from the proposal above learned ones", better, worse)
    add("tab1b", "noisy reference points on above off", side("noise", "on"), side("noise", "off"))
    named = list(LEVELS.values())
    for fewer, more in [*pairwise(named), (named[0], named[-1])]:
        add("tab1d", f"{more} above {fewer}", side("levels", more), side("levels", fewer))
    first, *others = LAYERS
    for n in others:
        add("tab1e", f"{n} layers above {first}", side("depth", f"{n} layers"), side("depth", f"{first} layers"))
    add("tab1e", "it saturates: 6 layers at most one point below 5", side("depth", "6 layers"),
        side("depth", "5 layers"), margin=-1.0)  # fmt: skip
    add("supp2", "self-attention on above off", side("attention", "on"), side("attention", "off"))
    own, one = (side("shared", n) for n in ("own", "shared"))
    add("supp3", "six layers of their own above one that is shared", own, one)
    add("supp3", "the shared layer at most one point below", one, own, margin=-1.0)
    emsda, msda = (side("kinds", n) for n in ("EMSDA", "MSDA"))
    add("supp4", "EMSDA at most one point below MSDA", emsda, msda, margin=-1.0)
    add("supp4", "MSDA at most one point below EMSDA", msda, emsda, margin=-1.0)
    add("supp6", "Poseur above RLE in AUC", side("rle", "Poseur"), side("rle", "RLE"))
    add("supp6", "Poseur above RLE in PCKh@0.5", side("rle", "Poseur"), side("rle", "RLE"), "0.5")
    return found + _against_maps(profile) + _outside()


def _rivals(experiment: str, name: str) -> tuple[Side, Side]:
    """Poseur and the heatmap, read with the quarter shift as SimpleBaseline does."""
    return Side(experiment, f"Poseur {name}", "method"), Side(experiment, f"heatmap {name}", "quarter")


def _against_maps(profile: str) -> list[Claim]:
    """Tables 2a and 2b: Poseur above the heatmap everywhere, and most where the network or the image is small."""
    found: list[Claim] = []
    big, small = (_rivals("poseur-trunks", name) for name in ("ResNet", "MobileNet-V2"))
    for pair, name in ((big, "the ResNet"), (small, "MobileNet-V2")):
        found.append(Claim("poseur-tab2a", f"{name}: Poseur above the heatmap", *pair, metric="auc"))
    text = "the lead is wider on MobileNet-V2 than on the ResNet"
    found.append(Widening("poseur-tab2a", text, *small, metric="auc", than=big))
    by_size = {side: _rivals("poseur-sizes", f"{side} px") for side in dark.SIDES[profile]}
    for side, pair in by_size.items():
        found.append(Claim("poseur-tab2b", f"{side} px: Poseur above the heatmap", *pair, metric="auc"))
    least, *_, most = by_size
    text = f"the lead is wider at {least} px than at {most} px"
    found.append(Widening("poseur-tab2b", text, *by_size[least], metric="auc", than=by_size[most]))
    return found


def _outside() -> list[Claim]:
    """Supplement, figure 1. A perfect map cannot be within half a head of most joints beyond the border."""
    cut = {name: Side("poseur-truncated", name, "method") for name in ("DSNTr", "RLE", "Poseur")}
    cut["heatmap"] = Side("poseur-truncated", "heatmap", "quarter")
    found = [
        Claim("poseur-supp-fig1", f"joints outside: Poseur {n:g} points above {name}", cut["Poseur"], cut[name],
              metric="outside", margin=n)
        for name, n in (("heatmap", 10.0), ("DSNTr", 10.0))
    ]  # fmt: skip
    text = "joints inside: Poseur above the heatmap"
    return [*found, Claim("poseur-supp-fig1", text, cut["Poseur"], cut["heatmap"], metric="inside")]


def expected(profile: str) -> list[Claim]:
    """What the paper leads one to expect of the photographs, of which it has no table: the page judges.

    Beside them the released code's noise, which the paper does not describe, and RLE outside the image.
    """
    size(profile)  # refuses a profile without sizes
    photo = {name: Side("poseur-lsp", name, "method") for name in ("RLE", "Poseur", "DSNTr")}
    photo |= {"heatmap": Side("poseur-lsp", "heatmap", "quarter"), "DARK": Side("dark-lsp", "unbiased", "dark")}
    found = [
        Claim("", f"photographs: Poseur above {name}, PCK@0.2", photo["Poseur"], photo[name], metric="0.2")
        for name in ("RLE", "DSNTr", "heatmap", "DARK")
    ]
    on, jittered = (Side("poseur-noise", name, "method") for name in ("on", "jittered"))
    found.append(Claim("", "the paper's noise above the released code's", on, jittered, metric="auc"))
    rle, maps = (Side("poseur-truncated", n, r) for n, r in (("RLE", "method"), ("heatmap", "quarter")))
    found.append(Claim("", "joints outside: RLE 10 points above the heatmap", rle, maps, metric="outside", margin=10.0))
    return found
