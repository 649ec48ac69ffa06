"""Chapter 6: DARK. How a map is drawn, biased or unbiased, and how it is read: argmax, quarter shift, Taylor step.

Networks, budget and figures are chapter 2's. Unbiased maps are what chapter 2 trains on, so that its H1 runs are read
again here; what is trained for this chapter is their biased counterpart, and other sizes and backbones.
"""

import math
from dataclasses import replace

from coordreg.dark import Dark
from coordreg.experiments import heatmap
from coordreg.experiments.claims import Claim, Side
from coordreg.experiments.scale import figures_runs, scale
from coordreg.heatmap import Argmax, Gaussian, QuarterSecond, QuarterSign
from coordreg.records import Reading, Run
from coordreg.spec import Spec

#: What the joint's position becomes before its Gaussian is drawn: int(x + 0.5) as in the published codes, or nothing.
ENCODINGS = {"biased": "int", "unbiased": "none"}
#: Widths of the blur in cells beside that of the target, which is the paper's choice; 0 is no blur.
WIDTHS = (0.5, 2.0)
#: Learning rates chosen by the AUC on the validation figures (experiment dark-rates), with chapter 2's list and seed.
CHOSEN: dict[str, dict[str, float]] = {"cpu": {}}


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

    python -m coordreg run dark-rates --profile cpu; 4 runs of about a minute. The search for unbiased targets is
    chapter 2's, row H1. Expect the same optimum.
    """
    return [
        run
        for lr in heatmap.RATES
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
                found.append(replace(run, label=encoding, estimator=made, readings=readings(1.5)))
    return found


# -- what the paper claims, declared before the runs -------------------------------------------------------------------


def claims(profile: str) -> list[Claim]:
    """The claims of tables 1 to 3, at both sizes of the map."""
    side = scale(profile).size // 32
    found = []
    for size in (f"{side * 4} px", f"{side * 8} px"):

        def cell(encoding: str, reading: str, size: str = size) -> Side:
            return Side("dark-encodings", f"{encoding} {size}", reading)

        def claim(row: str, text: str, better: Side, worse: Side, metric: str = "auc", size: str = size) -> Claim:
            return Claim(row, f"{size}: {text}", better, worse, metric=metric)

        none, standard, ours, raw = (cell("biased", r) for r in ("argmax", "quarter", "dark", "dark-raw"))
        better, best = cell("unbiased", "quarter"), cell("unbiased", "dark")
        for metric, name in (("auc", "AUC"), ("0.5", "PCKh@0.5")):
            found += [
                claim("dark-tab1", f"quarter shift above none in {name}", standard, none, metric),
                claim("dark-tab1", f"DARK above the quarter shift in {name}", ours, standard, metric),
            ]
        found += [
            claim("dark-tab2", "modulation on above off", ours, raw),
            claim("dark-tab3", "unbiased above biased, quarter shift", better, standard),
            claim("dark-tab3", "DARK above the quarter shift, biased", ours, standard),
            claim("dark-tab3", "unbiased above biased, DARK", best, ours),
            claim("dark-tab3", "DARK above the quarter shift, unbiased", best, better),
        ]
    return found
