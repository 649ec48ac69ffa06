"""The recipes of Tompson et al. 2015, section 5, on FLIC and MPII; `paper.py` names them.

Printed. FLIC: 3,987 training and 1,016 test images, down-sampled by a factor of 2, an input of 320 x 240 px; MPII:
256 x 256 px. A pyramid of three levels, local contrast normalisation with the same kernel in each, 7 stages of which
the last 4 stand for fully connected layers (MPII: 11 and 3), 128 features in the first two convolutions, pooling by 4,
8, 16 (MPII: 4), SpatialDropout before the first 1 x 1 convolution. Fine network: 7 instances (MPII: 14), windows of 36,
18, 18 and 9 cells out of the first two convolutions of two levels, 64 and 128 features, a last 1 x 1 convolution of
each joint's own. Mean squared errors to Gaussians of 1.5 px; E1, then E2 with the coarse network held, then
E1 + 0.1 E2. Rotation +-20 degrees, scale 0.5 to 1.5, flips with probability 0.5. A tree-structured field over the
joints with the torso known picks the person. PCK by the torso, at 0.05 in table 3; PCKh at 0.5 in table 4.

From the papers meant by that. The torso point is FLIC's torso box, at test time too. MPII's 14 joints are those its
protocol counts, without pelvis and thorax; 4x pooling stands in figure 16's legend.

Ours, where the paper is silent. Kernels, padding and features of the other layers (`backbones.multires`, `windows`), a
chance of 0.5 for the dropout, the contrast's kernel of 9. Adam, batches of 32 and a rate of 3e-4, which falls by half
a cosine in each of the three steps; 200, 50 and 50 epochs on FLIC, 100, 20 and 20 on MPII; the coarse network alone
trains as long. Losses are means over cells and labelled joints, so that 0.1 weighs means; the width of the target is in
cells of the coarse map, in input pixels of the fine one. The scale is that of the picture, not of the crop's side. On
FLIC the middle 320 x 240 px of the halved still are the input (`data.flic`, view "cut"): it is also called 360 x 240,
which 16x pooling does not divide; 0.6% of the test joints lie outside and count as missed. "Face" is the nose. Left and
right are the observer's. The field's displacements are the training labels' histograms and are not learnt. It reads the
coarse maps, at test time alone; the windows lie about its maxima. In training they lie about the coarse maps' own.

Deviations. MPII's 22,246 listed people are trained on, not all 28,821, and its validation split is measured on, as the
test labels are not public; Tompson et al.'s own predictions for it score 82.3 in the mean, and within 1.1 points of the
printed figure on every joint (`experiments.published`). Its torso point is the annotated middle of the person, which
in our crops is one place for everybody. Of table 4 and figure 16 only the scale-normalised variant is here: for the
unnormalised one, and the one normalised at test time alone, the paper does not say what part of a picture, at what
size, its 256 x 256 px show, and our loader's crops follow the given scale. Figure 15's rival of 2014, whose curve is
lost, is the coarse network alone, which is that network with SpatialDropout. Corners of pictures both turned and scaled
down may lie beyond what is stored on MPII, and are black. No flip test. One seed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coordreg.backbones.multires import MultiRes, SlidingHead
from coordreg.cascade import Cascade, Cascaded, CascadeHead, CascadeMethod, Coarse, FineNet, Refined
from coordreg.coords import Pairs, Points
from coordreg.data.flic import FLIC
from coordreg.data.halfbody import SLIP, Drawn, HalfBody
from coordreg.data.hosted import Hosted
from coordreg.data.mpii import DOWN, MPII, UNIT, WIDER
from coordreg.data.store import Store
from coordreg.experiments.claims import Claim, Observation, Side
from coordreg.experiments.paper_dark import column
from coordreg.experiments.recipes import TOLERANCE, as_printed, paper_only, published
from coordreg.heatmap import MSE, Argmax, Gaussian, Heatmap
from coordreg.method import Estimator, evaluating
from coordreg.metrics.offsets import ScoringOffsets
from coordreg.mrf import SpatialEstimator, SpatialModel
from coordreg.records import Reading, Record, Run
from coordreg.spec import Spec, spec
from coordreg.train import Restarts, Training

POOLINGS = (4, 8, 16)
#: The paper's joints of FLIC in its order, and those of MPII; each one's parent in the field, -1 being the torso.
FLIC7 = ("nose", "l_shoulder", "l_elbow", "l_wrist", "r_shoulder", "r_elbow", "r_wrist")
FLIC_TREE, FLIC_PAIRS = (-1, -1, 1, 2, -1, 4, 5), ((1, 4), (2, 5), (3, 6))
MPII14 = (
    "r_ankle", "r_knee", "r_hip", "l_hip", "l_knee", "l_ankle", "upper_neck", "head_top",
    "r_wrist", "r_elbow", "r_shoulder", "l_shoulder", "l_elbow", "l_wrist",
)  # fmt: skip
MPII_TREE = (1, 2, -1, -1, 3, 4, -1, 6, 9, 10, -1, -1, 11, 12)
MPII_PAIRS = ((0, 5), (1, 4), (2, 3), (8, 13), (9, 12), (10, 11))
#: Where the annotated middle of everybody lies in a crop of MPII, normalised: above its middle.
MIDDLE = (0.0, -2 * DOWN / (UNIT * WIDER))
FLIC_SIZE, MPII_SIZE, WINDOW = (240, 320), (256, 256), 36
#: What is stored, in longer sides: the whole halved still, and the whole of an MPII crop scaled down to a half.
FLIC_CANVAS, MPII_CANVAS = 9 / 8, 2.0
#: Batch, rate, steps of warm-up, and the epochs of the three steps.
BATCH, RATE, WARMUP = 32, 3e-4, 500
FLIC_EPOCHS, MPII_EPOCHS = (200, 50, 50), (100, 20, 20)
#: What "at" and the curve of FLIC average: figure 15's elbows and wrists. Every joint is in the records by itself too.
FLIC_PCK = ScoringOffsets(at=(0.05, 0.1, 0.2), limit=0.2, exclude=(0, 1, 4), window=WINDOW)
MPII_PCKH = ScoringOffsets(at=(0.5, 0.1), limit=0.5, window=WINDOW)
ALONE = (Reading("argmax", Argmax()),)
READINGS = (Reading("refined", Refined(Argmax())), Reading("coarse", Coarse(Argmax())))


# -- data --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scaled(HalfBody):
    """Turns and scales drawn evenly, and the scale is the picture's: with 0.5 it is drawn half to one and a half times
    as large. `Augment` and `HalfBody` draw the crop's side."""

    turned: float | int = 1.0

    def draw(self, count: int, generator: torch.Generator) -> Drawn:
        """The numbers of `count` crops; always nine each, whatever is switched on."""
        drawn = torch.rand(count, 9, generator=generator, device=generator.device)
        spread = 2 * drawn - 1
        turns = torch.where(drawn[:, 1] < self.turned, self.rotation * spread[:, 2], 0)
        upper = drawn[:, 5] < (SLIP if self.slip else 0.5)
        zoom = 1 / (1 + self.scale * spread[:, 3])
        return Drawn(drawn[:, 0] < self.flip, turns, zoom, drawn[:, 4] < self.half, upper, spread[:, 6:])


@dataclass(frozen=True)
class Chosen:
    """A data set of which some joints count. Its augmentation, if it has one, needs `pairs` among these.

    hint: one normalised point for everybody, where the set gives none.
    """

    data: Any
    joints: tuple[str, ...]
    hint: tuple[float, float] | None = None

    def open(self) -> Store:
        """The store with these joints in this order. ValueError for a joint that it does not have."""
        store: Store = self.data.open()
        if absent := [name for name in self.joints if name not in store.joints]:
            raise ValueError(f"Chosen: got the joint {absent[0]!r}, expected some of {', '.join(store.joints)}")
        rows = [store.joints.index(name) for name in self.joints]
        pairs = tuple((rows.index(a), rows.index(b)) for a, b in store.pairs if a in rows and b in rows)
        hint = store.hint if self.hint is None else torch.tensor(self.hint).repeat(len(store), 1)
        return replace(
            store, coords=store.coords[:, rows], weight=store.weight[:, rows], visible=store.visible[:, rows],
            pairs=pairs, joints=self.joints, hint=hint,
        )  # fmt: skip


def augmented(pairs: Pairs) -> Scaled:
    """The printed augmentation, for joints with these pairs."""
    return Scaled(flip=0.5, rotation=20.0, scale=0.5, pairs=tuple(pairs))  # type: ignore[arg-type]


def flic(split: str, size: tuple[int, int] = FLIC_SIZE) -> Chosen:
    """FLIC's seven joints in the middle of halved stills; augmented where it is trained on."""
    train = size == FLIC_SIZE and split == "train"
    augment = augmented(FLIC_PAIRS) if train else None
    return Chosen(FLIC(split=split, size=size, view="cut", augment=augment, canvas=FLIC_CANVAS), FLIC7)


def mpii(split: str, size: int = MPII_SIZE[0]) -> Chosen:
    """MPII's fourteen joints in crops of the given scale; augmented where it is trained on."""
    train = size == MPII_SIZE[0] and split == "train"
    augment = augmented(MPII_PAIRS) if train else None
    return Chosen(MPII(split=split, size=size, augment=augment, canvas=MPII_CANVAS), MPII14, MIDDLE)


#: The labels that the field starts from: the same crops as stamps, as nobody looks at the pictures.
STAMPS = {"flic": flic("train", (24, 32)), "mpii": mpii("train", 16)}


# -- networks ----------------------------------------------------------------------------------------------------------


class Alone(SpatialEstimator):
    """The coarse network by itself, its maps through the field at test time, none of which is learnt."""

    loss = Estimator.loss


class Guided(Cascade):
    """A cascade that refines the places which a spatial model picks from its coarse maps; `predict` needs the hint.

    Trained as a cascade without it: `spatial` gets no gradient, so give it histograms, learnt=False.
    """

    def __init__(self, backbone: nn.Module, head: CascadeHead, method: CascadeMethod, spatial: SpatialModel) -> None:
        super().__init__(backbone, head, method)
        self.spatial = spatial

    @torch.no_grad()
    def predict(
        self, images: Float[Tensor, "B 3 H W"], hint: Tensor | None = None, flip: Pairs | None = None
    ) -> Points:
        """As `Estimator.predict`, for the person about `hint` (B, 2); the score is the posterior's at its maximum."""
        if flip is not None:
            raise ValueError("Guided: got flip, expected None; the paper's model has no flip test")
        with evaluating(self):
            banks = self.backbone((images - self.mean) / self.std)
            maps = self.spatial(self.method.coarse.compare.activate(self.head.coarse(banks)), hint)
            return self.method.decode(Cascaded(maps, self.head.refine(banks, maps)))


def estimator(data: str, pooling: int, phases: tuple[int, int] | None) -> Spec:
    """The networks for "flic" or "mpii"; the coarse one alone where phases is None."""
    on_flic = data == "flic"
    joints, tree, size = (7, FLIC_TREE, FLIC_SIZE) if on_flic else (14, MPII_TREE, MPII_SIZE)
    trunk = spec(MultiRes, widths=(128,) * (3 if on_flic else 8), pooling=pooling, levels=3)
    last = (512, 256, 256) if on_flic else (512, 256)
    coarse = spec(SlidingHead, channels=128, joints=joints, widths=last, dropout="spatial")
    maps = (size[0] // pooling, size[1] // pooling)
    spatial = spec(SpatialModel, parents=tree, size=maps, priors=STAMPS[data], learnt=False)
    if phases is None:
        method = spec(Heatmap, target=Gaussian(1.5), loss=MSE(), decoder=Argmax())
        return spec(Alone, backbone=trunk, head=coarse, method=method, spatial=spatial)
    fine = spec(FineNet, joints=joints, channels=(128, 128), window=WINDOW, levels=2, widths=(64, 128))
    head = spec(CascadeHead, coarse=coarse, fine=(fine,))
    method = spec(
        CascadeMethod, coarse=Gaussian(1.5), fine=Gaussian(1.5), loss=MSE(), weight=0.1, phases=phases
    )  # fmt: skip
    return spec(Guided, backbone=trunk, head=head, method=method, spatial=spatial)


def run(data: str, kind: str, pooling: int) -> Run:
    """A "cascade" or the "coarse" network alone, on "flic" or "mpii"."""
    on_flic = data == "flic"
    train: Any = flic("train") if on_flic else Hosted(mpii("train"))
    test, epochs = (flic("test"), FLIC_EPOCHS) if on_flic else (mpii("valid"), MPII_EPOCHS)
    each = published(train) // BATCH
    phases = (epochs[0] * each, epochs[1] * each) if kind == "cascade" else None
    starts = (0.0, epochs[0] / sum(epochs), sum(epochs[:2]) / sum(epochs)) if phases else (0.0,)
    training = Training(sum(epochs) * each, BATCH, RATE, optimiser="adam", schedule=Restarts(WARMUP, starts))
    made, scoring = estimator(data, pooling, phases), FLIC_PCK if on_flic else MPII_PCKH
    return Run(f"{kind} {pooling}x", made, train, test, training, scoring, readings=READINGS if phases else ALONE)


# -- what is printed ---------------------------------------------------------------------------------------------------

#: The rows of the ledger that have a recipe here.
RECIPES = {row: f"paper-{row}" for row in ("cascade-tab3", "cascade-fig15", "cascade-tab4", "cascade-fig16")}
#: PCK at 0.05 of the face: ours at 16x pooling, and that of 2014.
FACE, RIVAL = 91.6, 90.7
#: PCKh at 0.5 by joint, named as in `published.GROUPS`; head, shoulders and the mean are from table 4 of DSNT's paper.
SCALED = {"Head": 96.1, "Sho.": 91.9, "Elb.": 83.9, "Wri.": 77.8, "Hip": 80.9, "Kne.": 72.3, "Ank.": 64.8}
TOTAL = 82.0
SCOPE = {
    "cascade-tab3": "the face at 16x pooling, of whose figures ours and that of 2014 are left in our copy",
    "cascade-fig15": "the cascade against the coarse network alone, as the printed curves are lost",
    "cascade-tab4": "the scale-normalised variant, on the validation split",
    "cascade-fig16": "the scale-normalised variant at 0.5, on the validation split",
}


def face(record: Record) -> float:
    """PCK at 0.05 of the face, in percent."""
    return float(record.reading("refined")["joints"]["0.05"]["nose"])


def claims(profile: str) -> list[Claim]:
    """What the tables and figures say, on the paper's own data."""
    paper_only(profile)
    found: list[Claim] = []

    def add(row: str, text: str, side: Side, look: Callable[[Record], float], low: float, high: float) -> None:
        found.append(Observation(row, text, side, side, "", measure=look, low=round(low, 2), high=round(high, 2)))

    near, side = TOLERANCE["points"], Side(RECIPES["cascade-tab3"], "cascade 16x", "refined")
    add("cascade-tab3", f"16x, face: {FACE} at 0.05", side, face, FACE - near, FACE + near)
    add("cascade-tab3", f"16x, face: at least the {RIVAL} of Tompson et al. 2014", side, face, RIVAL, 100.0)
    for by in POOLINGS:
        name = RECIPES["cascade-fig15"]
        sides = Side(name, f"cascade {by}x", "refined"), Side(name, f"coarse {by}x", "argmax")
        text = f"elbow and wrist at 0.05, {by}x: the cascade above the coarse network alone"
        found.append(Claim("cascade-fig15", text, *sides, metric="0.05"))
    side = Side(RECIPES["cascade-tab4"], "cascade 4x", "refined")
    for group, value in SCALED.items():
        look = column("refined", "0.5", group)
        add("cascade-tab4", f"{group} {value} (test set)", side, look, value - near, value + near)
    side = Side(RECIPES["cascade-fig16"], "cascade 4x", "refined")
    return [*found, as_printed("cascade-fig16", f"mean {TOTAL} at 0.5 (test set)", side, "0.5", TOTAL)]
