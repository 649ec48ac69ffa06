"""Chapter 6: DARK. How a map is drawn, biased or unbiased, and how it is read: argmax, quarter shift, Taylor step.

Networks, budget and figures are chapter 2's. Unbiased maps are what chapter 2 trains on, so that its H1 runs are read
again here; what is trained for this chapter is their biased counterpart, and other sizes and backbones.
"""

import math
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from coordreg.backbones.hourglass import Hourglasses, HourglassStem
from coordreg.backbones.hrnet import HRNet
from coordreg.backbones.resnet import ConvHead
from coordreg.coords import STRIDE, UNIT, Convention, Points
from coordreg.dark import Dark, DrawnOn, ReadOn
from coordreg.experiments import dsnt, heatmap
from coordreg.experiments.scale import figures_runs, scale
from coordreg.heatmap import Argmax, Gaussian, QuarterSecond, QuarterSign
from coordreg.method import Estimator, Staged
from coordreg.records import Reading, Run
from coordreg.spec import Spec, spec

#: What the joint's position becomes before its Gaussian is drawn: int(x + 0.5) as in the published codes, or nothing.
ENCODINGS = {"biased": "int", "unbiased": "none"}
#: Widths of the blur in cells that are tried beside that of the target, which is the paper's choice, and none.
WIDTHS = (0.5, 2.0)
#: Learning rates chosen by the AUC on the validation figures (experiment dark-rates), with chapter 2's list and seed,
#: and further rates, tried because an end of the list came out best.
CHOSEN: dict[str, dict[str, float]] = {"cpu": {"biased": 2e-2}}
FURTHER = (4e-2,)


def decoder(sigma: float, rescale: str = "max") -> Dark:
    """DARK with a blur as wide as the target, cut off at three widths."""
    return Dark(2 * math.ceil(3 * sigma) + 1, sigma, rescale)


def readings(sigma: float) -> tuple[Reading, ...]:
    """Every way in which a map is read in this chapter, for targets of that width in cells."""
    return (
        Reading("argmax", Argmax()),
        Reading("quarter", QuarterSign()),
        Reading("quarter-second", QuarterSecond()),
        Reading("dark", decoder(sigma)),
        Reading("dark-raw", Dark(1)),
        Reading("dark-range", decoder(sigma, "range")),
        *(Reading(f"dark-{width:g}", decoder(width)) for width in WIDTHS),
    )


def _method(encoding: str, sigma: float = 1.0) -> Spec:
    return heatmap.H1.replace(target=Gaussian(sigma=sigma, rounding=ENCODINGS[encoding]))


def _rate(profile: str, encoding: str) -> float | None:
    if encoding == "unbiased":
        return heatmap.rate(profile, "H1")
    return CHOSEN.get(profile, {}).get(encoding)


def rates(profile: str) -> list[Run]:
    """The learning-rate search for biased targets: chapter 2's list, seed and validation figures.

    python -m coordreg run dark-rates --profile cpu; 5 runs of about a minute. The search for unbiased targets is
    chapter 2's, row H1. Expect the same optimum.
    """
    return [
        run
        for lr in heatmap.RATES + FURTHER
        for run in figures_runs(
            profile, f"biased {lr:g}", _method("biased"), 3, heatmap.READINGS[:2], lr=lr, seeds=(100,), split="val"
        )
    ]


def encodings(profile: str) -> list[Run]:
    """Tables 1, 2 and 3: biased and unbiased targets by decoder, at the largest map and at half of it.

    python -m coordreg run dark-encodings --profile cpu; 12 runs of about a minute, six of them chapter 2's. Expect DARK
    above the quarter shift above argmax, and unbiased above biased targets, most of all for DARK.
    """
    side = scale(profile).size // 32
    return [
        run
        for up in (2, 3)
        for encoding in ENCODINGS
        for run in figures_runs(
            profile, f"{encoding} {side * 2**up} px", _method(encoding), up, readings(1.0), lr=_rate(profile, encoding),
            keep=24 if up == 3 else 0,
        )
    ]  # fmt: skip


#: Table 4's image sizes, in pixels, where the paper has 128 x 96, 256 x 192 and 384 x 288.
SIDES = {"smoke": (32, 64), "cpu": (32, 64, 96), "gpu": (64, 128, 192)}


def sizes(profile: str) -> list[Run]:
    """Table 4: biased and unbiased targets by the size of the image; the map has a quarter of its side.

    python -m coordreg run dark-sizes --profile cpu; 18 runs of half a minute to three minutes, six of them shared with
    dark-encodings. Learning rates are those of the middle size. Expect DARK to gain most on the smallest image.
    """
    scale(profile)  # refuses a profile without sizes
    return [
        replace(run, train=replace(run.train, size=side), test=replace(run.test, size=side))
        for side in SIDES[profile]
        for encoding in ENCODINGS
        for run in figures_runs(
            profile, f"{encoding} {side} px", _method(encoding), 3, readings(1.0), lr=_rate(profile, encoding)
        )
    ]


#: Table 5's networks in small: a narrow HRNet beside the hourglass of one stack that dsnt-hourglass has.
NARROW = {
    "smoke": {"width": 4, "modules": (1, 1, 1), "blocks": 1, "stem": 8},
    "cpu": {"width": 16, "modules": (1, 1, 1), "blocks": 2, "stem": 32},
    "gpu": {"width": 32, "modules": (1, 2, 2), "blocks": 2, "stem": 64},
}


def _backbone(profile: str, name: str, encoding: str) -> Spec:
    method = _method(encoding)
    if name == "hourglass":
        width, depth = dsnt.HOURGLASS[profile]
        stacks = spec(Hourglasses, channels=width, joints=16, stacks=1, depth=depth)
        return spec(
            Estimator, backbone=spec(HourglassStem, width=width), head=stacks, method=spec(Staged, method=method)
        )
    narrow = NARROW[profile]
    maps = spec(ConvHead, channels=narrow["width"], joints=16)
    return spec(Estimator, backbone=spec(HRNet, **narrow), head=maps, method=method)


#: The learning rates tried for each of them, on either encoding, and those that experiment dark-backbone-rates found.
BACKBONES = ("HRNet", "hourglass")
BACKBONE_RATES = (1e-2, 2e-2, 4e-2)
#: Tried as well, with both encodings, because an end of the list came out best.
BACKBONE_FURTHER = {"HRNet": (5e-3, 2.5e-3, 1.25e-3), "hourglass": (8e-2, 0.16, 0.32)}
BACKBONE_CHOSEN: dict[str, dict[str, float]] = {
    "cpu": {"biased HRNet": 2.5e-3, "unbiased HRNet": 2.5e-3, "biased hourglass": 8e-2, "unbiased hourglass": 8e-2}
}


def backbones(profile: str) -> list[Run]:
    """Table 5: the gain of DARK on other networks, a narrow HRNet and an hourglass of one stack.

    python -m coordreg run dark-backbones --profile cpu; 12 runs of one to three minutes. Learning rates are each
    network's own where dark-backbone-rates has found them; on another profile run that search first, since those of
    the ResNet, which stand in for them, would set one encoding back on the hourglass. Expect a gain on both.
    """
    scale(profile)  # refuses a profile without sizes
    chosen = BACKBONE_CHOSEN.get(profile, {})
    return [
        replace(run, estimator=_backbone(profile, name, encoding))
        for name in BACKBONES
        for encoding in ENCODINGS
        for run in figures_runs(
            profile, f"{encoding} {name}", _method(encoding), 3, readings(1.0),
            lr=chosen.get(f"{encoding} {name}") or _rate(profile, encoding),
        )
    ]  # fmt: skip


def backbone_rates(profile: str) -> list[Run]:
    """The learning-rate search of table 5: the same list for both networks and both encodings, one seed of its own.

    python -m coordreg run dark-backbone-rates --profile cpu; 24 runs of two to five minutes, scored on the validation
    figures by the AUC of the quarter shift. Expect each network to have one rate for both encodings.
    """
    return [
        replace(run, estimator=_backbone(profile, name, encoding))
        for name in BACKBONES
        for encoding in ENCODINGS
        for lr in (*BACKBONE_RATES, *BACKBONE_FURTHER.get(name, ()))
        for run in figures_runs(
            profile, f"{encoding} {name} {lr:g}", _method(encoding), 3, readings(1.0), lr=lr, seeds=(100,), split="val"
        )
    ]


def lsp(profile: str) -> list[Run]:
    """The 2 x 2 of table 3 on photographs: chapter 2's LSP runs, and the same with biased targets.

    python -m coordreg run dark-lsp --profile cpu; 6 runs of about 15 minutes on one core each, three of them chapter
    2's; needs the pack that `python -m coordreg data pack lsp lspet` writes. Learning rates are chapter 2's.
    """
    found = []
    for encoding in ENCODINGS:
        for run in heatmap.lsp(profile):
            if run.label == "LSP":
                made = run.estimator.replace(method=_method(encoding, 1.5))
                read = {r.name: r for r in readings(1.5)}
                if encoding == "unbiased":  # chapter 2's network: trained again here, it is read for chapter 2 as well
                    read |= {r.name: r for r in run.readings}
                found.append(replace(run, label=encoding, estimator=made, readings=tuple(read.values())))
    return found


#: Where a code puts its cells: at the middle of their patches as we do, or where HRNet and DARK's release do.
GRIDS: dict[str, Convention | None] = {"centre": None, "stride": STRIDE, "unit": UNIT}
#: What the code of each grid does in a flip test before it averages: nothing, or it moves the mirrored map one column.
PATCHES = {"centre": "plain", "stride": "shift", "unit": "plain"}
FLIPS = {"": "none", "-flip": "plain", "-flip-shift": "shift"}


def conventions(profile: str) -> list[Run]:
    """What the release changed beside encoding and decoding: the grid under the map, and with it the flip test.

    python -m coordreg run dark-conventions --profile cpu; 18 runs of about a minute, six of them shared with
    dark-encodings. Targets biased and unbiased on three grids, at the largest map; quarter shift and DARK, with no flip
    test, with the plain one and with that of one column's shift. Learning rates are those of our grid.
    `dark_claims.expected` says what should come out: the shift is due on the stride grid alone, and does not remove all
    of the error there.
    """
    s = scale(profile)
    stride = s.size // (s.size // 32 * 2**3)  # pixels a cell at the largest map
    return [
        run
        for name, grid in GRIDS.items()
        for encoding in ENCODINGS
        for run in figures_runs(
            profile, f"{encoding} {name}", _drawn_on(encoding, grid, stride), 3, _grid_readings(grid, stride),
            lr=_rate(profile, encoding),
        )
    ]  # fmt: skip


def _drawn_on(encoding: str, grid: Convention | None, stride: int) -> Spec:
    """The method with its targets drawn on a grid; on ours the very one of dark-encodings."""
    method = _method(encoding)
    if grid is None:
        return method
    target = DrawnOn(Gaussian(sigma=1.0, rounding=ENCODINGS[encoding]), grid, stride)
    return method.replace(target=target, decoder=ReadOn(QuarterSign(), grid, stride))


def _grid_readings(grid: Convention | None, stride: int) -> tuple[Reading, ...]:
    """Both decoders where the grid has its cells, by flip test."""
    readers: dict[str, Callable[[Tensor], Points]] = {"quarter": QuarterSign(), "dark": decoder(1.0)}
    return tuple(
        Reading(name + suffix, reader if grid is None else ReadOn(reader, grid, stride), flip)
        for suffix, flip in FLIPS.items()
        for name, reader in readers.items()
    )
