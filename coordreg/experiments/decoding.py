"""Chapter 6: rows that are counted or computed on maps whose truth is known; nothing is trained here.

`exact()` returns the checks by row. The maps are Gaussians at random places within one cell: clean, with noise,
cut off by the border, or with a second one beside it. What each decoder makes of them is the error of decoding alone.
`misplaced` does the same for a whole code, with the grid that its cells lie on and its flip test.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coordreg.backbones.cost import giga, macs
from coordreg.backbones.hourglass import Hourglasses, HourglassStem
from coordreg.backbones.hrnet import HRNet
from coordreg.backbones.resnet import ConvHead, DeconvHead, ResNet, parameters
from coordreg.coords import CENTRE, STRIDE, UNIT, Convention, Labels, Points, flip_labels, from_pixels, to_pixels
from coordreg.dark import Dark, DrawnOn, ReadOn
from coordreg.experiments.dark import ENCODINGS, decoder
from coordreg.experiments.exact import Exact
from coordreg.heatmap import MSE, Argmax, Gaussian, Heatmap, QuarterSecond, QuarterSign

#: How much of a row the checks below answer for; its trend is judged from trained networks.
SCOPE = {
    "dark-tab5": "parameters and multiply-adds; the gains are judged on small networks",
    "dark-tab7": "multiply-adds; AP on test-dev is a recipe",
}
#: The readings that are compared, in the order of the chapter.
DECODERS: dict[str, Callable[[Tensor], Points]] = {
    "argmax": Argmax(),
    "quarter, by sign": QuarterSign(),
    "quarter, to the second": QuarterSecond(),
    "DARK": Dark(11),
    "DARK, no blur": Dark(1),
}


# -- maps with a known truth ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """What a map looks like about the joint. sigma: of its Gaussian, in cells.

    noise: standard deviation of what is added to each cell, beside a peak of 1. second: height of another Gaussian
    `apart` cells away in some direction. border: cells between the joint and the left edge, or None for far away.
    """

    sigma: float = 2.0
    noise: float = 0.0
    second: float = 0.0
    apart: float = 4.0
    border: float | None = None
    size: int = 31

    def draw(self, count: int, seed: int = 0) -> tuple[Float[Tensor, "1 N H W"], Float[Tensor, "N 2"]]:
        """`count` maps of one joint each, as the joints of one image, and the joints in index pixels."""
        g = torch.Generator().manual_seed(seed)
        at = torch.rand(count, 2, generator=g, dtype=torch.float64) - 0.5 + self.size // 2
        if self.border is not None:
            at[:, 0] = self.border - 0.5
        maps = self._bump(at)
        if self.second:
            angle = 2 * math.pi * torch.rand(count, generator=g, dtype=torch.float64)
            maps = maps + self.second * self._bump(at + self.apart * torch.stack([angle.cos(), angle.sin()], -1))
        if self.noise:
            maps = maps + self.noise * torch.randn(maps.shape, generator=g, dtype=torch.float64)
        return maps, at

    def _bump(self, at: Tensor) -> Tensor:
        cells = torch.arange(self.size, dtype=torch.float64)
        x, y = (torch.exp(-(cells - at[:, a, None]).square() / (2 * self.sigma**2)) for a in (0, 1))
        return (y.unsqueeze(-1) * x.unsqueeze(-2)).unsqueeze(0)


def miss(decoder: Callable[[Tensor], Points], scene: Scene, count: int = 500, seed: int = 0) -> float:
    """Root mean squared distance between what a decoder reads and the joint, in cells."""
    maps, at = scene.draw(count, seed)
    found = to_pixels(decoder(maps).coords, maps.shape[-2:])[0]
    return float((found - at).square().sum(-1).mean().sqrt())


def ideal() -> Exact:
    """Table 1, its exact part: on clean Gaussians argmax errs by rounding, a quarter shift by half of it, DARK not."""
    found = {name: miss(decoder, Scene(), 2000) for name, decoder in DECODERS.items()}
    rounding = math.sqrt(2 / 12)  # uniform over a cell, two axes
    wanted = {"argmax": rounding, "quarter, by sign": rounding / 2, "DARK": 0.0, "DARK, no blur": 0.0}
    matches = all(abs(found[name] - value) < 0.02 for name, value in wanted.items())
    text = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
    return Exact(f"RMS error on clean Gaussians, cells: {text}", matches)


# -- what the networks cost -------------------------------------------------------------------------------------------


def _hourglass(stacks: int) -> nn.Module:
    return nn.Sequential(HourglassStem(), Hourglasses(256, 17, stacks))


def _hrnet(width: int) -> nn.Module:
    return nn.Sequential(HRNet(width), ConvHead(width, 17))


def _baseline(depth: int) -> nn.Module:
    return nn.Sequential(ResNet(depth), DeconvHead(2048, 17))


#: Table 5: network, what the paper prints of it (10^6 parameters, "GFLOPs" at 128 x 96).
TABLE5: dict[str, tuple[Callable[[], nn.Module], float, float]] = {
    "Hourglass-4": (lambda: _hourglass(4), 13.0, 2.7),
    "Hourglass-8": (lambda: _hourglass(8), 25.1, 4.9),
    "SimpleBaseline-R50": (lambda: _baseline(50), 34.0, 2.3),
    "SimpleBaseline-R101": (lambda: _baseline(101), 53.0, 3.1),
    "SimpleBaseline-R152": (lambda: _baseline(152), 68.6, 3.9),
    "HRNet-W32": (lambda: _hrnet(32), 28.5, 1.8),
    "HRNet-W48": (lambda: _hrnet(48), 63.6, 3.6),
}


@cache
def counted(name: str) -> tuple[float, float, float]:
    """10^6 parameters, and 10^9 multiply-adds at 128 x 96 in the true and in the published counting.

    Counted at 256 x 192 and divided by four, since an hourglass cannot halve a map of 32 x 24 four times.
    """
    with torch.device("meta"):
        network = TABLE5[name][0]()
    size = (256, 192)
    true = printed = macs(network, size)
    if any(isinstance(m, nn.ConvTranspose2d) for m in network.modules()):  # what the two countings differ in
        printed = macs(network, size, "published")
    return parameters(network) / 1e6, giga(true) / 4, giga(printed, "published") / 4


def _near(value: float, printed: float) -> bool:
    """Is this the number that is printed to one digit? 2.25 is printed as 2.3 and 3.65 as 3.6: either way will do."""
    return abs(value - printed) <= 0.06 or abs(value - printed) <= 0.01 * printed


def table5() -> Exact:
    """Table 5, its 14 figures; the parameters of Hourglass-8 are a misprint."""
    said, wrong = [], []
    for name, (_, millions, flops) in TABLE5.items():
        params, _, work = counted(name)
        said.append(f"{name} {params:.1f}M {work:.2f}G")
        wrong += [f"{name} has {params:.1f}M parameters, printed {millions}M"] * (not _near(params, millions))
        wrong += [f"{name} takes {work:.2f}G, printed {flops}G"] * (not _near(work, flops))
    return Exact("; ".join(said), not wrong, "; ".join([*wrong, "G is 1024^3 as published"]))


def sizes() -> Exact:
    """Table 4: the multiply-adds of HRNet-W32 at three input sizes."""
    work = [counted("HRNet-W32")[2] * factor for factor in (1, 4, 9)]
    text = ", ".join(f"{value:.2f}" for value in work)
    plain = ", ".join(f"{counted('HRNet-W32')[1] * factor:.2f}" for factor in (1, 4, 9))
    note = f"G is 1024^3 as published; {plain} in 10^9"
    return Exact(f"GFLOPs {text}", all(map(_near, work, (1.8, 7.1, 16.0))), note)


def table7() -> Exact:
    """Table 7: the multiply-adds of HRNet-W32 at 128 x 96 and of HRNet-W48 at 384 x 288."""
    small, large = counted("HRNet-W32")[2], 9 * counted("HRNet-W48")[2]
    return Exact(f"GFLOPs {small:.2f} and {large:.2f}", _near(small, 1.8) and _near(large, 32.9), "G is 1024^3")


# -- the grid under the map -------------------------------------------------------------------------------------------

#: What a code does: where its cells lie, and by how many columns its flip test moves the mirrored map (None: no test).
RULES: dict[str, tuple[Convention, int | None]] = {
    "centre, no flip test": (CENTRE, None),
    "centre, averaged as it is": (CENTRE, 0),
    "stride, no flip test": (STRIDE, None),
    "stride, averaged as it is": (STRIDE, 0),
    "stride, moved one column": (STRIDE, 1),
    "unit, averaged as it is": (UNIT, 0),
    "unit, moved one column": (UNIT, 1),
}
#: Encoding and decoding: the standard, each half of DARK, and all of it.
HALVES: dict[str, tuple[str, Callable[[Tensor], Points]]] = {
    "biased, quarter": ("biased", QuarterSign()),
    "unbiased, quarter": ("unbiased", QuarterSign()),
    "biased, DARK": ("biased", decoder(1.0)),
    "unbiased, DARK": ("unbiased", decoder(1.0)),
}


def misplaced(
    rule: str, halves: str, size: tuple[int, int] = (32, 24), stride: int = 4, count: int = 481
) -> tuple[float, float]:
    """Mean and RMS error along x, in input pixels, of a perfect network under one of RULES and one of HALVES.

    It paints the target of what it sees, mirrored or not; encoding, mirroring, averaging and decoding are those of the
    library. The joints lie evenly over the middle third of the input's width, far from the border.
    """
    if rule not in RULES or halves not in HALVES:
        raise ValueError(
            f"misplaced: got {rule!r} and {halves!r}, expected one of {', '.join(RULES)} and of {', '.join(HALVES)}"
        )
    (grid, columns), (encoding, reader) = RULES[rule], HALVES[halves]
    target = DrawnOn(Gaussian(1.0, rounding=ENCODINGS[encoding]), grid, stride)
    method = Heatmap(target, MSE(), ReadOn(reader, grid, stride), flip_shift=columns == 1)
    image = (stride * size[0], stride * size[1])
    x = torch.linspace(image[1] / 3, 2 * image[1] / 3, count, dtype=torch.float64)[:-1]
    at = torch.stack([x, torch.full_like(x, image[0] / 2)], -1).unsqueeze(0)
    labels = Labels(from_pixels(at, image), torch.ones_like(at))
    maps = method.encode(labels, size).maps
    if columns is not None:
        mirrored = method.encode(flip_labels(labels, ()), size).maps
        maps = method.merge([maps, method.unflip(mirrored, ())])
    error = (to_pixels(method.decode(maps).coords, image) - at)[..., 0]
    return float(error.mean()), float(error.square().mean().sqrt())


def exact() -> dict[str, Exact]:
    """The checks of this chapter by ledger row."""
    return {"dark-tab1": ideal(), "dark-tab4": sizes(), "dark-tab5": table5(), "dark-tab7": table7()}
