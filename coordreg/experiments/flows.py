"""Chapters 4 and 5: what the papers' drawings show, checked on live tensors. `exact()` returns the checks by row.

The chapters draw these tensors; here is asserted that arrows and shapes are what the drawings claim.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from coordreg.backbones.hourglass import Hourglasses, HourglassStem
from coordreg.backbones.multistage import MultiStage, SharedTrunk
from coordreg.backbones.resnet import ConvHead, DeconvHead, ResNet
from coordreg.coords import Labels, to_pixels
from coordreg.dsnt import DSNT, FullyConnected, Power, Regression
from coordreg.experiments.exact import Exact
from coordreg.heatmap import (
    MSE,
    Argmax,
    BinaryCrossEntropy,
    Compares,
    Disk,
    Draws,
    Gaussian,
    Heatmap,
    OneHot,
    SoftmaxCrossEntropy,
)
from coordreg.integral import (
    GaussianVolume,
    Integral,
    Matching,
    OneHotVolume,
    PooledHead,
    VolumeHead,
    VolumeHeatmap,
)
from coordreg.method import Estimator, Method, Staged

JOINTS, SIZE = 3, 64


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread inside the block: small work gains nothing from more, and loses much on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _labels(dims: int) -> Labels:
    coords = torch.linspace(-0.5, 0.6, JOINTS * dims).view(1, JOINTS, dims)
    return Labels(coords, torch.ones_like(coords))


def _image() -> Tensor:
    return torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(4))


class Flow(NamedTuple):
    """Which arrows of DSNT's figure 1 a method has: gradient from the loss to each of these, and through `coords`."""

    image: bool
    maps: bool
    coords: bool


def flow(name: str) -> Flow:
    """HM, FC or DSNT on a small network: where does the gradient of the loss arrive, and by way of the coordinates?"""
    methods = {"HM": Heatmap(Gaussian(sigma=1.0), MSE(), Argmax()), "FC": Regression(), "DSNT": DSNT()}
    if name not in methods:
        raise ValueError(f"flow: got {name!r}, expected one of {', '.join(methods)}")
    method, image = methods[name], _image().requires_grad_()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        maps = nn.Sequential(ResNet(10, 4), DeconvHead(32, JOINTS, (8,)))(image)
        output = FullyConnected(nn.Identity(), JOINTS, (maps.shape[2], maps.shape[3]))(maps) if name == "FC" else maps
    coords = method.decode(output).coords
    loss = method.loss(output, _labels(2))["loss"]
    back = torch.autograd.grad(loss, (image, maps))
    return Flow(bool(back[0].any()), bool(back[1].any()), coords.requires_grad)


def dsnt_drawings() -> Exact:
    """DSNT, figures 1 and 2: the arrows of three methods; the Gaussian target and the map that nobody draws."""
    flows = {name: flow(name) for name in ("HM", "FC", "DSNT")}
    labels, size = _labels(2), (16, 16)
    target = Heatmap(Gaussian(sigma=1.0), MSE(), Argmax()).encode(labels, size).maps
    offset = (to_pixels(Argmax()(target).coords - labels.coords, size) - to_pixels(torch.zeros(2), size)).abs().max()
    p, _ = DSNT().read(torch.randn(1, JOINTS, *size, generator=torch.Generator().manual_seed(5)))
    good = flows == {"HM": Flow(True, True, False), "FC": Flow(True, True, True), "DSNT": Flow(True, True, True)}
    good = good and float(offset) <= 0.5 and bool(torch.allclose(p.sum((-2, -1)), torch.ones(1, JOINTS)))
    words = {True: "through the coordinates", False: "from the map on, not through the coordinates"}
    arrows = ", ".join(f"{name} {words[found.coords]}" for name, found in flows.items())
    return Exact(
        f"gradient of the loss reaches map and image in all three: {arrows}; the target's peak lies at most "
        f"{float(offset):.2f} cells from the joint along an axis; DSNT's map sums to 1 and has no target",
        good,
        "figures 1 and 2 as they follow from these tensors; the pictures are chapter 4's",
    )


def _choices() -> dict[str, tuple[nn.Module, nn.Module, Method]]:
    """Figure 1's choices one by one: backbone, head, method."""

    def deconv() -> nn.Module:
        return DeconvHead(32, JOINTS, (8, 8))

    def volume() -> nn.Module:
        return VolumeHead(32, JOINTS, 8, (8, 8))

    planes: dict[str, tuple[Draws, Compares]] = {
        "1": (Gaussian(sigma=1.0), MSE()),
        "2": (OneHot(), SoftmaxCrossEntropy()),
        "3": (Disk(), BinaryCrossEntropy()),
    }
    spaces: dict[str, tuple[Draws, Compares]] = {
        "1": (GaussianVolume(1.0), MSE()),
        "2": (OneHotVolume(), SoftmaxCrossEntropy()),
    }
    found: dict[str, tuple[nn.Module, nn.Module, Method]] = {
        "R1": (ResNet(10, 4), PooledHead(32, JOINTS), Regression(Power(1))),
        "I*": (ResNet(10, 4), deconv(), Integral()),
        "R1 3-D": (ResNet(10, 4), PooledHead(32, JOINTS, 3), Regression(Power(1))),
        "I* 3-D": (ResNet(10, 4), volume(), Integral(dims=3)),
    }
    for n, (target, loss) in planes.items():
        found[f"H{n}"] = (ResNet(10, 4), deconv(), Heatmap(target, loss, Argmax()))
        found[f"I{n}"] = (ResNet(10, 4), deconv(), Integral(Matching(target, loss)))
    for n, (target, loss) in spaces.items():
        found[f"H{n} 3-D"] = (ResNet(10, 4), volume(), VolumeHeatmap(Matching(target, loss)))
        found[f"I{n} 3-D"] = (ResNet(10, 4), volume(), Integral(Matching(target, loss), dims=3))
    found["I1 on a half-size map"] = (ResNet(10, 4), DeconvHead(32, JOINTS, (8,)), Integral(Matching(*planes["1"])))
    found["I* on the trunk's map"] = (ResNet(10, 4), ConvHead(32, JOINTS), Integral())
    stages = MultiStage(10, 4, JOINTS, 2, (8, 8))
    found["MS-I1"] = (SharedTrunk(10, 4), stages, Staged(Integral(Matching(*planes["1"]), calls=2)))
    stacks = Hourglasses(8, JOINTS, 2, 2)
    found["HG-I1"] = (HourglassStem(8), stacks, Staged(Integral(Matching(*planes["1"]), calls=2)))
    return found


def _shape(output: Tensor | Sequence[Tensor]) -> str:
    last = output if isinstance(output, Tensor) else output[-1]
    stages = "" if isinstance(output, Tensor) else f"{len(output)} x "
    return stages + "x".join(str(n) for n in last.shape[1:])


def pipelines() -> dict[str, tuple[str, bool]]:
    """By choice: the shapes of the network's output and of the joints, and whether a training step went through."""
    said = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        for name, (backbone, head, method) in _choices().items():
            dims = 3 if "3-D" in name else 2
            model = Estimator(backbone, head, method).eval()
            output = model(_image())
            loss = method.loss(output, _labels(dims))["loss"]
            loss.backward()
            moved = all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in model.parameters())
            moved = moved and any(p.grad is not None and bool(p.grad.any()) for p in backbone.parameters())
            points = method.decode(output).coords
            good = moved and bool(torch.isfinite(loss)) and tuple(points.shape) == (1, JOINTS, dims)
            said[name] = (f"{_shape(output)} -> {_shape(points)}", good)
    return said


def integral_drawings() -> Exact:
    """Integral regression, figure 1: every choice of the ablation is a network that runs, forward and back."""
    found = pipelines()
    by_shape: dict[str, list[str]] = {}
    for name, (shapes, _) in found.items():
        by_shape.setdefault(shapes, []).append(name)
    listed = "; ".join(f"{shapes}: {', '.join(names)}" for shapes, names in by_shape.items())
    return Exact(
        f"{len(found)} choices from a 64 px image, output of the network -> joints: {listed}",
        all(good for _, good in found.values()),
        "figure 1's choices of task, network, map and loss as live tensors; the picture is chapter 5's",
    )


@cache
def exact() -> dict[str, Exact]:
    """The checks of both papers' drawings; computed once a process."""
    with one_thread():
        return {"dsnt-drawings": dsnt_drawings(), "integral-drawings": integral_drawings()}
