"""Chapters 4 and 5: rows that are counted, derived or measured, not trained. `exact()` returns the checks by row.

Computed when the ledger is read, in about a second and once a process; the times and bytes of figure 10 and table 4 are
read from what `experiments/cost.py` wrote. 1: properties and identities of the two transforms. 2: counts and ratios.
"""

import math
from functools import cache
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coordreg.backbones.cost import giga, macs
from coordreg.backbones.dilated import DilatedResNet
from coordreg.backbones.hourglass import Hourglasses, HourglassStem
from coordreg.backbones.resnet import ConvHead, DeconvHead, ResNet, parameters, trunk_channels
from coordreg.coords import Labels, from_pixels, to_pixels
from coordreg.dsnt import DSNT, FullyConnected, Regression, log_gaussian
from coordreg.expectation import Softmax, expectation, soft_argmax
from coordreg.experiments import cost
from coordreg.experiments.drawn import falling_loss
from coordreg.experiments.exact import Exact
from coordreg.experiments.flows import one_thread
from coordreg.heatmap import MSE, Argmax, Gaussian, Heatmap
from coordreg.integral import two_step
from coordreg.method import Method

#: How much of a row the checks below answer for.
SCOPE = {
    "dsnt-tab1": "gradient, parameters, what is optimised and spatial generalisation; accuracy at high and at low "
    "resolution is judged at dsnt-fig7",
    "dsnt-fig3": "a map of ours in the figure's form: the figure's own cells are lost in our copy",
    "dsnt-fig10": "the count of parameters; times and memory are those of the machine named beside them",
    "dsnt-tab4": "which of the two networks is faster and which is smaller, on the machine named; no accuracy",
}


# -- 1. properties and identities -------------------------------------------------------------------------------------


def reached(method: Method | None, maps: Float[Tensor, "B J H W"]) -> float:
    """The share of a map's cells that a gradient of the coordinates reaches, in percent. None: FC on these maps."""
    maps = maps.clone().requires_grad_()
    joints, size = maps.shape[1], (maps.shape[2], maps.shape[3])
    with torch.random.fork_rng(devices=[]):  # the layer's weights are drawn
        torch.manual_seed(0)
        coords = FullyConnected(nn.Identity(), joints, size)(maps) if method is None else method.decode(maps).coords
    if not coords.requires_grad:
        return 0.0
    weight = torch.linspace(1, 2, coords.numel()).view_as(coords)
    (gradient,) = torch.autograd.grad((coords * weight).sum(), maps)
    return 100 * float((gradient != 0).double().mean())


def halves(size: tuple[int, int] = (15, 15)) -> dict[str, tuple[float, float]]:
    """The root of the mean squared error on the left and on the right half, in normalised units, for FC and DSNT.

    The thought experiment of section 1: one blob in every cell away from the border; FC is the linear layer that fits
    the left half best, of all such the smallest, where gradient descent from 0 ends. DSNT has nothing to fit.
    """
    height, width = size
    rows, columns = torch.meshgrid(torch.arange(3, height - 3), torch.arange(3, width - 3), indexing="ij")
    places = torch.stack([columns, rows], -1).view(-1, 1, 2).double()
    coords = from_pixels(places, size)
    p = log_gaussian(coords, size, 0.5).exp()
    cells, wanted = p.flatten(1), coords[:, 0]
    left, right = wanted[:, 0] < 0, wanted[:, 0] > 0
    layer = torch.linalg.pinv(cells[left]) @ wanted[left]
    found = {"FC": cells @ layer, "DSNT": expectation(p)[:, 0]}

    def error(guess: Tensor, half: Tensor) -> float:
        return float((guess[half] - wanted[half]).square().sum(-1).mean().sqrt())

    return {name: (error(guess, left), error(guess, right)) for name, guess in found.items()}


def directness() -> float:
    """The largest difference between a loss and the mean distance of what is read from the same output; DSNT and FC."""
    g = torch.Generator().manual_seed(2)
    maps, vectors, target = (torch.randn(3, 5, *n, generator=g).double() for n in ((7, 9), (2,), (2,)))
    labels, worst = Labels(target, torch.ones_like(target)), 0.0
    for method, output in ((DSNT(), maps), (Regression(), vectors)):
        distance = (method.decode(output).coords - target).norm(dim=-1).mean()
        worst = max(worst, abs(float(method.loss(output, labels)["loss"] - distance)))
    return worst


def properties() -> Exact:
    """DSNT, table 1: each property of HM, FC and DSNT is measured."""
    maps = torch.randn(2, 3, 7, 9, generator=torch.Generator().manual_seed(1))
    matching = Heatmap(Gaussian(sigma=1.0), MSE(), Argmax())
    shares = {"HM": reached(matching, maps), "FC": reached(None, maps), "DSNT": reached(DSNT(), maps)}
    with torch.device("meta"):
        layer = FullyConnected(nn.Identity(), 16, (28, 28))
    owned = {"HM": parameters(matching), "FC": parameters(layer), "DSNT": parameters(DSNT())}
    apart, mode = directness(), falling_loss()
    error = halves()
    good = (
        shares == {"HM": 0.0, "FC": 100.0, "DSNT": 100.0}
        and owned == {"HM": 0, "FC": (16 * 28 * 28 + 1) * 32, "DSNT": 0}
        and apart < 1e-12
        and mode.matches
        and max(error["DSNT"]) < 1e-3
        and error["FC"][0] < 1e-3
        and error["FC"][1] > 0.3
    )
    listed = ", ".join(f"{name} {share:.0f}%" for name, share in shares.items())
    counts = ", ".join(f"{name} {count:,}" for name, count in owned.items())
    fitted = "; ".join(f"{name} errs by {a:.2f} there and by {b:.2f} on the right" for name, (a, b) in error.items())
    return Exact(
        f"cells that a gradient of the coordinates reaches: {listed}; parameters of the output layer at 28 px and 16 "
        f"joints: {counts}; the loss is the distance itself for FC and DSNT (to {apart:.0e}), while HM's falls from "
        f"100 to 16 as its arg max leaves the joint (figure 4); fitted on the left half of an image 2 wide: {fitted}",
        good,
    )


#: A heatmap in the manner of figure 3: six tenths in a cell right of the middle, one tenth in each of its neighbours.
EXAMPLE = ((0, 0, 0, 0, 0), (0, 0, 0, 1, 0), (0, 0, 1, 6, 1), (0, 0, 0, 1, 0), (0, 0, 0, 0, 0))


def worked_example() -> Exact:
    """DSNT, figure 3: two inner products by hand, in whole tenths and fifths, and by the library."""
    n = len(EXAMPLE)
    x = sum(v * (2 * j - (n - 1)) for row in EXAMPLE for j, v in enumerate(row))
    y = sum(v * (2 * i - (n - 1)) for i, row in enumerate(EXAMPLE) for v in row)
    by_hand = (x / (10 * n), y / (10 * n))
    found = expectation(torch.tensor(EXAMPLE, dtype=torch.float64).div(10).view(1, 1, n, n))[0, 0].tolist()
    alone = (0.4, 0.0)  # the centre of the brightest cell: its neighbours cancel
    good = all(math.isclose(a, b, abs_tol=1e-12) for a, b in zip((*by_hand, *alone), (*found, *found), strict=True))
    return Exact(
        f"by hand: x = 0.1 x 0.0 + 0.1 x 0.4 + 0.6 x 0.4 + 0.1 x 0.4 + 0.1 x 0.8 = {by_hand[0]:.1f}, "
        f"y = {by_hand[1]:.1f}; by the library: ({found[0]:.1f}, {abs(found[1]):.1f}); the four neighbours cancel",
        good,
        "of the figure one line survives in our copy, with a term 0.1 x 0.0 and a sum of 0.0; both occur here",
    )


def truncated(distance: float, sigma: float = 1.0) -> float:
    """How far the mean of a Gaussian moves inwards that the border cuts off at `distance`; in cells, closed form."""
    z = distance / sigma
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return sigma * density / (0.5 * (1 + math.erf(z / math.sqrt(2))))


def on_grid(distance: float, size: int = 28, sigma: float = 1.0) -> tuple[float, float]:
    """The same shift on a grid: by the library from its Gaussian, and by a plain sum over cells."""
    at = distance - 0.5  # cell 0 begins half a cell before its centre
    place = torch.tensor([[[at, size / 2]]], dtype=torch.float64)
    mean = expectation(log_gaussian(from_pixels(place, (size, size)), (size, size), sigma).exp())
    weights = [math.exp(-((i - at) ** 2) / (2 * sigma**2)) for i in range(size)]
    plain = sum(i * w for i, w in enumerate(weights)) / sum(weights)
    return float(to_pixels(mean, (size, size))[0, 0, 0]) - at, plain - at


#: Distances from the border in cells.
DISTANCES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)


def boundary() -> Exact:
    """DSNT, section 6.4: the mean of the Gaussian that the regulariser asks for, near the border."""
    pairs = [(d, *on_grid(d), truncated(d)) for d in DISTANCES]
    good = all(abs(a - b) < 1e-9 and abs(a - c) < 0.05 for _, a, b, c in pairs)
    good = good and all(a[1] > b[1] for a, b in pairwise(pairs)) and pairs[-1][1] < 1e-3
    listed = ", ".join(f"{a:.3f} ({c:.3f}) at {d:g}" for d, a, _, c in pairs)
    return Exact(
        "shift of the mean towards the middle, in cells, for the Gaussian of 1 cell of DSNTr on 28 cells, by distance "
        f"from the border: {listed}; in brackets the closed form sigma phi(d)/Phi(d) of a Gaussian cut off there",
        good,
        "the grid's sums differ from the closed form, an integral, by less than 0.05 cells",
    )


def marginal_identity() -> Exact:
    """Integral regression, equations (5) and (6): the two steps against the one, values and gradients, in float64."""
    g = torch.Generator().manual_seed(3)
    values = gradients = 0.0
    for size in ((5, 6, 7), (9, 8), (16, 12, 10)):
        z = torch.randn(2, 3, *size, generator=g, dtype=torch.float64) * 3
        weight = torch.randn(2, 3, len(size), generator=g, dtype=torch.float64)
        direct, steps = z.clone().requires_grad_(), z.clone().requires_grad_()
        one, two = soft_argmax(direct)[1], two_step(Softmax()(steps))
        values = max(values, float((one - two).detach().abs().max()))
        back = [torch.autograd.grad((m * weight).sum(), at)[0] for m, at in ((one, direct), (two, steps))]
        gradients = max(gradients, float((back[0] - back[1]).abs().max()))
    return Exact(
        f"largest difference over random maps and volumes in float64: {values:.0e} in the coordinates, {gradients:.0e} "
        "in the gradient of the logits",
        values < 1e-14 and gradients < 1e-14,
    )


# -- 2. counts --------------------------------------------------------------------------------------------------------


def counts(network: nn.Module, side: int) -> tuple[int, int, int]:
    """Multiply-adds at a square input, values that pass a batch normalisation, parameters.

    Normalisations are taken out, which leaves all shapes: on the meta device they are half of the time.
    """
    values, weights = 0, parameters(network)

    def add(layer: nn.Module, inputs: object, output: Tensor) -> None:
        nonlocal values
        values += output.numel()

    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
                module.get_submodule(name).register_forward_hook(add)
    return macs(network, (side, side)), values, weights


@cache
def _network(depth: int, ups: int, side: int) -> tuple[int, int, int]:
    """`counts` of a ResNet with upsamplings and 16 joints."""
    with torch.device("meta"):
        return counts(nn.Sequential(ResNet(depth), DeconvHead(trunk_channels(depth), 16, (256,) * ups)), side)


def _integral(settings: dict[str, tuple[int, int, int]], printed: tuple[float, ...]) -> tuple[str, bool]:
    """Depth, upsamplings and input side -> the GFLOPs in words, and whether all round as printed."""
    found, good = [], True
    for (name, setting), figure in zip(settings.items(), printed, strict=True):
        alone, values, _ = _network(*setting)
        both = giga(alone + 2 * values)
        found.append(f"{name} {both:.2f} ({giga(alone):.2f})")
        good = good and round(both, 1) == figure
    return (
        f"GFLOPs with two operations for each normalised value (in brackets multiply-adds alone): {', '.join(found)}, "
        f"{'each as printed when rounded' if good else 'not all as printed'}"
    ), good


def _classifier(depth: int) -> tuple[float, float]:
    """Parameters in millions: ImageNet's classifier, and its trunk alone."""
    with torch.device("meta"):
        trunk, last = ResNet(depth), nn.Linear(trunk_channels(depth), 1000)
    return (parameters(trunk) + parameters(last)) / 1e6, parameters(trunk) / 1e6


def integral_resolution() -> Exact:
    """Integral regression, table 2: GFLOPs and parameters."""
    said, good = _integral(
        {"(a)": (50, 3, 256), "(b)": (50, 2, 256), "(c)": (50, 3, 128), "(d)": (50, 2, 128)}, (7.3, 6.2, 1.8, 1.5)
    )
    whole, trunk = _classifier(50)
    two, three = (_network(50, ups, 256)[2] / 1e6 for ups in (2, 3))
    return Exact(
        f"{said}; {three:.1f}M parameters with three upsamplings, {two:.1f}M with two",
        good and round(two) == round(three) == 26,
        f"26M is ImageNet's classifier, {whole:.2f}M with its 1,000 classes; its trunk alone has {trunk:.2f}M, the "
        "networks of the table have what is counted here; 1.54 rounds to the printed 1.5",
    )


def integral_capacity() -> Exact:
    """Integral regression, table 3: GFLOPs and parameters."""
    said, good = _integral({f"ResNet-{d}": (d, 2, 256) for d in (18, 50, 101)}, (2.8, 6.2, 11.0))
    counts = [_network(depth, 2, 256)[2] / 1e6 for depth in (18, 50, 101)]
    heads = ", ".join(f"{count:.1f}M" for count in counts)
    whole = ", ".join(f"{_classifier(depth)[0]:.2f}M" for depth in (18, 50, 101))
    return Exact(
        f"{said}; {heads} parameters with two upsamplings",
        good and [round(count) for count in counts] == [12, 26, 45],
        f"12M, 26M, 45M are ImageNet's classifiers ({whole}), without the head",
    )


@cache
def _rivals() -> tuple[int, int, float, float]:
    """Parameters and GMACs of ResNet-50@28px and of the hourglass of eight."""
    with torch.device("meta"):
        resnet = counts(nn.Sequential(DilatedResNet(50, stride=8), ConvHead(2048, 16)), 224)
        hourglass = counts(nn.Sequential(HourglassStem(), Hourglasses(256, 16, 8)), 256)
    return resnet[2], hourglass[2], giga(resnet[0]), giga(hourglass[0])


def _holds(value: float | None, limit: float) -> str:
    return "not measured" if value is None else f"{'holds' if value > limit else 'does not hold'} ({value:.2f}x)"


def speed() -> Exact:
    """DSNT, figure 10: ResNet-50@28px beside the hourglass of eight; the hourglass takes the ratios that are named."""
    resnet, hourglass, first, second = _rivals()
    less = 100 * (1 - resnet / hourglass)
    said, found, notes = cost.told()
    parts = [f"{resnet:,} parameters, {hourglass:,} the hourglass: {less:.1f}% fewer",
             f"{first:.2f} and {second:.2f} GMACs: {second / first:.2f}x", *said]  # fmt: skip
    if found:
        ratio = found[0]
        parts.append(
            f"over 3x the speed: {_holds(ratio['time'], 3)}; under half the training memory: "
            f"{_holds(ratio['training'], 2)}, of what a step keeps {_holds(ratio['kept'], 2)}"
        )
    return Exact("; ".join(parts), round(less) == 8, "; ".join(notes))


def efficiency() -> Exact | None:
    """DSNT, table 4: 60.5 against 18.6 ms and 1,229 against 636 MiB; None where nothing was measured."""
    said, found, notes = cost.told()
    if not found:
        return None
    ratios = [r[name] for r in found for name in ("time", "inference")]
    unmeasured = None in ratios
    ordered = all(ratio is not None and ratio > 1 for ratio in ratios)
    notes = [*notes, "time or memory could not be measured there"] if unmeasured else notes
    return Exact(
        f"printed ratios of the hourglass to the ResNet: time {60.5 / 18.6:.2f}x, memory {1229 / 636:.2f}x; "
        f"{'; '.join(said)}",
        ordered,
        "; ".join(notes),
    )


@cache
def _fixed() -> dict[str, Exact]:
    """What no file enters, once a process."""
    checks = {"dsnt-tab1": properties, "dsnt-fig3": worked_example, "dsnt-boundary": boundary}
    checks |= {"integral-eq5-6": marginal_identity, "integral-tab2": integral_resolution}
    checks |= {"integral-tab3": integral_capacity}
    with one_thread():
        return {row: check() for row, check in checks.items()}


def exact() -> dict[str, Exact]:
    """The checks of both papers by ledger row."""
    table = efficiency()
    return {**_fixed(), "dsnt-fig10": speed(), **({"dsnt-tab4": table} if table else {})}
