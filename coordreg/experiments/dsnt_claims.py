"""What chapter 4's paper claims, declared before the runs of `experiments.dsnt` existed."""

import torch

from coordreg.expectation import Softmax
from coordreg.experiments.claims import Claim, Observation, Side
from coordreg.experiments.dsnt import DEEPER, LAMBDAS, REGULARISERS, SAMPLES
from coordreg.experiments.scale import scale
from coordreg.plots.expectation import maxima
from coordreg.records import Record


def peaks(record: Record) -> float:
    """The number of local maxima above half the peak in the median softmax map of the kept test images."""
    maps = Softmax()(torch.from_numpy(record.kept("output").astype("float32")))
    return float(maxima(maps).double().median())


SCOPE = {
    "dsnt-tab3": "on the cpu profile variance does not learn at the paper's coefficients, and KL learns poorly",
    "dsnt-fig5": "on the cpu profile variance does not learn at the paper's coefficients",
    "dsnt-fig8": "two depths on the cpu profile; the others are a recipe",
    "dsnt-fig9": "one and two stacks; the others are a recipe",
}


def _side(name: str, size: str) -> Side:
    return Side("heatmap-resolution", size, "quarter") if name == "HM" else Side(
        "dsnt-resolution", f"{name} {size}", "method")  # fmt: skip


def _beats(row: str, a: Side, b: Side, text: str, metric: str = "0.5", margin: float = 0.0) -> Claim:
    return Claim(row, text, better=a, worse=b, metric=metric, margin=margin)


def claims(profile: str) -> list[Claim]:
    """The claims of this chapter's rows. The sizes carry the profile's names."""
    s = scale(profile)
    sizes = [f"{s.size // 32 * 2**up} px" for up in range(4)]
    small, large = sizes[0], sizes[-1]
    found = [
        _beats("dsnt-fig7", _side("DSNT", small), _side("HM", small), f"DSNT above HM at {small} by 15 points",
               margin=15.0),
        *(_beats("dsnt-fig7", _side("DSNT", size), _side("HM", size), f"DSNT above HM at {size}")
          for size in sizes[1:]),
        *(_beats("dsnt-fig7", _side("DSNTr", size), _side("DSNT", size), f"regularisation helps at {size}")
          for size in sizes[1:]),
        _beats("dsnt-fig7", _side("DSNT", small), _side("DSNTr", small), f"regularisation does not help at {small}"),
        *(_beats("dsnt-fig7", _side("DSNT", size), _side("FC", size), f"FC below DSNT at {size}") for size in sizes),
        _beats("dsnt-fig7", _side("HM", large), _side("FC", large), f"FC below HM at {large}"),
    ]  # fmt: skip

    def activation(name: str) -> Side:
        return Side("dsnt-activations", name, "method")

    found += [
        _beats("dsnt-tab2", activation("softmax"), activation(name), f"softmax above {name}")
        for name in ("abs", "relu", "sigmoid")
    ]

    def regulariser(name: str) -> Side:
        return Side("dsnt-regularisers", name, "method")

    found += [
        _beats("dsnt-tab3", regulariser("JS 1"), regulariser(name), f"JS at 1 cell above {name}")
        for name in REGULARISERS
        if name != "JS 1"
    ]
    found += [
        _beats("dsnt-tab3", regulariser("none"), regulariser(name), f"none above {name}")
        for name in ("variance 1", "variance 2", "KL 1", "KL 2")
    ]

    def shaped(name: str, text: str, count: int) -> Observation:
        side = regulariser(name)
        return Observation("dsnt-fig5", text, better=side, worse=side, metric="", measure=peaks, low=count, high=count)

    found += [
        shaped("variance 2", "variance with a target of 2 cells: four maxima above half the peak in the median map", 4),
        shaped("KL 1", "KL with a target of 1 cell: one maximum", 1),
        shaped("JS 1", "JS with a target of 1 cell: one maximum", 1),
    ]

    def swept(sigma: float, weight: float) -> Side:
        return Side("dsnt-sweep", f"sigma {sigma:g} lambda {weight:g}", "method")

    found += [
        _beats("dsnt-fig6", swept(1.0, 1.0), swept(2.0, 1.0), "a width of 1 cell above 2 cells"),
        _beats("dsnt-fig6", swept(2.0, 1.0), swept(4.0, 1.0), "a width of 2 cells above 4 cells"),
        _beats("dsnt-fig6", swept(0.5, 1.0), swept(2.0, 1.0), "a width of half a cell above 2 cells"),
        *(
            _beats("dsnt-fig6", swept(1.0, w), regulariser("none"), f"lambda {w:g} above no regularisation")
            for w in LAMBDAS
        ),
    ]
    deep = DEEPER[profile]
    for a, b in zip(sizes[2:], sizes[1:-1], strict=True):
        found += [
            _beats("dsnt-fig8", _side("DSNTr", a), _side("DSNTr", b), f"ResNet-{s.depth}: {a} above {b}"),
            _beats("dsnt-fig8", Side("dsnt-depth", f"ResNet-{deep} {a}", "method"),
                   Side("dsnt-depth", f"ResNet-{deep} {b}", "method"), f"ResNet-{deep}: {a} above {b}"),
        ]  # fmt: skip
    found += [
        _beats("dsnt-fig8", Side("dsnt-depth", f"ResNet-{deep} {size}", "method"), _side("DSNTr", size),
               f"ResNet-{deep} above ResNet-{s.depth} at {size}")
        for size in sizes[1:]
    ]  # fmt: skip

    def stacked(name: str, count: int) -> Side:
        return Side("dsnt-hourglass", f"{name} {count}", "method")

    found += [
        *(_beats("dsnt-fig9", stacked("DSNTr", n), stacked("HM", n), f"DSNTr above HM with {n} stack{'s' * (n > 1)}")
          for n in (1, 2)),
        _beats("dsnt-fig9", stacked("DSNTr", 2), stacked("DSNTr", 1), "DSNTr: 2 stacks above 1"),
    ]  # fmt: skip
    few = SAMPLES[profile][0]

    def sampled(name: str, count: int) -> Side:
        return Side("dsnt-samples", f"{name} {count}", "quarter" if name == "HM" else "method")

    found += [
        _beats("dsnt-fig11", sampled("DSNTr", few), sampled("FC", few),
               f"FC collapses: DSNTr 10 points above it at {few}", margin=10.0),
        _beats("dsnt-fig11", sampled("HM", few), sampled("FC", few), f"FC below HM at {few}"),
        *(_beats("dsnt-fig11", sampled("DSNTr", n), sampled("FC", n), f"FC below DSNTr at {n}")
          for n in SAMPLES[profile][1:]),
    ]  # fmt: skip
    found += [
        Claim("dsnt-boundary", f"the border costs {name} more than HM",
              better=Side("dsnt-borders", "HM", "quarter"), worse=Side("dsnt-borders", name, "method"), metric="gain")
        for name in ("DSNT", "DSNTr")
    ]  # fmt: skip
    half = s.test // 2
    right = [
        Claim("dsnt-tab1", f"trained on left halves, tested on right halves: {name} 20 points above FC",
              better=Side("dsnt-halves", name, "quarter" if name == "HM" else "method"),
              worse=Side("dsnt-halves", "FC", "method"), metric="0.5", margin=20.0, part=(half, 2 * half))
        for name in ("HM", "DSNT")
    ]  # fmt: skip
    return found + right
