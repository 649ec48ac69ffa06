"""Chapter 3: the paper's drawings from live modules: every stage's tensor, the crops, the clicks, the standard cascade.

The chapter draws `stages`, `crops`, `clicks` and `painted`; `exact()` says whether the sizes are those that the paper
prints in its figures 2, 4, 6, 7, 8 and 13, and whether its way to measure people's clicks (figure 10, table 1) finds a
spread that is known. Nothing is trained here.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coordreg.backbones.multires import Banks, MultiRes, SlidingHead
from coordreg.backbones.resnet import parameters
from coordreg.coords import from_pixels, to_pixels
from coordreg.experiments.cascade import NOISE
from coordreg.experiments.exact import Exact
from coordreg.experiments.flows import one_thread
from coordreg.experiments.table import Results, results
from coordreg.records import Record
from coordreg.windows import FineNet, cut, equal_width

#: MPII's setting: side of the input, joints, side of the window, features of the first convolutions.
SIDE, JOINTS, WINDOW, WIDTH = 256, 14, 36, 128
#: Sizes as the figures print them: the first convolution and what comes of pooling it, the crops, the fine network.
PRINTED = {
    "bank 1, first": "128x256x256",
    "bank 1, second": "128x128x128",
    "bank 2, first": "128x128x128",
    "crop 1": "14x128x36x36",
    "crop 2": "14x128x18x18",
    "crop 3": "14x128x18x18",
    "crop 4": "14x128x9x9",
    "fine 2, first": "64x18x18",
    "fine 2, second": "128x18x18",
    "fine 2, repeated": "128x36x36",
    "fine 3, first": "64x18x18",
    "fine 3, second": "128x18x18",
    "fine 3, repeated": "128x36x36",
    "fine 4, repeated": "128x36x36",
    "output": "14x36x36",
}
#: People who clicked, and pictures that they clicked on.
PEOPLE, PICTURES = 13, 10


def spelt(tensor: Tensor, first: int = 0) -> str:
    """A tensor's size as papers write it, from the axis `first` on: "128x36x36"."""
    return "x".join(str(n) for n in tensor.shape[first:])


# -- figures 2, 4, 7, 8 and 13: every stage ---------------------------------------------------------------------------


class Stages(NamedTuple):
    """Sizes of every stage by name, in the order of the flow, as live modules make them. fine, coarse: the modules."""

    sizes: dict[str, str]
    coarse: SlidingHead
    fine: FineNet


def fine_network(source: str = "features", joints: int = JOINTS, extra: int = 0) -> FineNet:
    """The fine network of figures 7 and 8; source "image": that of figure 13, `extra` features in its first layer."""
    return FineNet(joints, (WIDTH, WIDTH), WINDOW, source=source, extra=extra)


def stages(
    pooling: int = 8, joints: int = JOINTS, size: tuple[int, int] = (SIDE, SIDE), fine: FineNet | None = None
) -> Stages:
    """Pass an image through the coarse network and a fine one, of shapes alone, and write down what each stage makes.

    fine: another network than the paper's, such as the standard cascade's; it must have as many joints.
    """
    found: dict[str, str] = {}
    with torch.device("meta"):
        trunk, head = MultiRes((WIDTH,) * 3, pooling=pooling), SlidingHead(WIDTH, joints)
        net = (fine or fine_network(joints=joints)).to("meta")
        banks: Banks = trunk(torch.empty(1, 3, *size))
        for level in range(trunk.levels):
            for name, tensors in (("image", banks.images), ("first", banks.first), ("second", banks.second)):
                found[f"bank {level + 1}, {name}"] = spelt(tensors[level], 1)
        found["sum"] = spelt(banks.top, 1)
        found["window"] = spelt(head.window(banks.top), 1)
        found["coarse"] = spelt(head(banks), 1)
        with _Watched(net, found):
            window = net(banks, torch.empty(1, joints, 2))
    found["output"] = spelt(window.maps, 1)
    return Stages(found, head, net)


class _Watched:
    """While open: what enters each input of a fine network, and what its convolutions make of it, is written down."""

    def __init__(self, net: FineNet, found: dict[str, str]) -> None:
        self.hooks: list[Any] = []
        for i, (stride, layers) in enumerate(zip(net.strides, net.inputs, strict=True), 1):
            assert isinstance(layers, nn.Sequential)
            self.hooks.append(layers.register_forward_pre_hook(_saying(found, f"crop {i}", 0)))
            convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
            names = ["first", "second"] if len(convolutions) == 2 else ["own", "first", "second"]
            for name, layer in zip(names, convolutions, strict=True):
                self.hooks.append(layer.register_forward_hook(_made(found, f"fine {i}, {name}")))
            self.hooks.append(layers.register_forward_hook(_made(found, f"fine {i}, repeated", stride)))
        self.hooks.append(net.mix.register_forward_hook(_made(found, "mixed")))

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        for hook in self.hooks:
            hook.remove()


def _saying(found: dict[str, str], name: str, first: int) -> Callable[..., None]:
    def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found[name] = spelt(inputs[0], first)

    return hook


def _made(found: dict[str, str], name: str, times: int = 1) -> Callable[..., None]:
    def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        channels, rows, columns = output.shape[1:]
        found[name] = f"{channels}x{rows * times}x{columns * times}"

    return hook


def standard_network(joints: int = JOINTS) -> FineNet:
    """Figure 13's fine network, with as nearly as can be the parameters of the one that shares features."""
    with torch.device("meta"):
        target = parameters(fine_network(joints=joints))
        return fine_network("image", joints, equal_width(fine_network("image", joints, 1), target))


# -- figure 6: the crop module ----------------------------------------------------------------------------------------


class Crop(NamedTuple):
    """One source of the fine network about one joint.

    name: of the source. picture: (H, W), the mean over the source's channels. corner: the window's edges as (left, top,
    side) in index pixels of the input. window: (n, n), cut out of `picture`. stride: input pixels a cell.
    """

    name: str
    picture: Tensor
    corner: tuple[float, float, float]
    window: Tensor
    stride: int


def crops(
    image: Float[Tensor, "3 H W"], joint: Float[Tensor, "2"], features: int = 16, levels: int = 2, seed: int = 0
) -> list[Crop]:
    """What the crop module cuts about a normalised point out of an untrained coarse network's first two layers."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        banks = MultiRes((features,) * 3, pooling=8)(image[None])
    size = tuple(image.shape[-2:])
    first = torch.floor(to_pixels(joint.view(1, 1, 2), size) - (WINDOW - 1) / 2 + 0.5)
    found = []
    for level in range(levels):
        for step, name, source in ((1, "first", banks.first), (2, "second", banks.second)):
            stride = 2**level * step
            start = torch.floor(first / stride + 0.5).long()
            picture = source[level].mean(1, keepdim=True)
            left, top = (float(v) * stride - 0.5 for v in start[0, 0])
            window = cut(picture, start, WINDOW // stride)[0, 0, 0]
            title = f"bank {level + 1}, {name}"
            found.append(Crop(title, picture[0, 0], (left, top, float(len(window) * stride)), window, stride))
    return found


def returned(windows: int = 3) -> bool:
    """Is the gradient of a crop, for every cell, the sum over the windows that contain it? In whole numbers."""
    features = torch.zeros(1, 1, 12, 15, dtype=torch.float64, requires_grad=True)
    start = torch.tensor([[[-2, 3], [1, 5], [11, 9]]])[:, :windows]
    error = torch.arange(windows * 16, dtype=torch.float64).view(1, windows, 1, 4, 4)
    cut(features, start, 4).backward(error)
    by_hand = torch.zeros(12, 15, dtype=torch.float64)
    for j, (column, row) in enumerate(start[0].tolist()):
        for p in range(4):
            for q in range(4):
                if 0 <= row + p < 12 and 0 <= column + q < 15:
                    by_hand[row + p, column + q] += error[0, j, 0, p, q]
    return features.grad is not None and torch.equal(features.grad[0, 0], by_hand)


# -- figure 10: clicks ------------------------------------------------------------------------------------------------


def clicks(
    points: Float[Tensor, "N J 2"], height: int, people: int = PEOPLE, share: float = NOISE, seed: int = 0
) -> Float[Tensor, "people N J 2"]:
    """Where people would click who err by `share` of the picture's height along each axis; points, clicks in pixels."""
    draw = torch.Generator().manual_seed(seed)
    noise = torch.randn(people, *points.shape, generator=draw, dtype=torch.float64)
    return points.double() + noise * share * height


def agreed(clicked: Float[Tensor, "people N J 2"]) -> Float[Tensor, " J"]:
    """Table 1's label noise: the deviation of the clicks along x in each picture, averaged over the pictures."""
    return clicked[..., 0].std(0).mean(0)


# -- figure 1 and the row in the ledger -------------------------------------------------------------------------------


def painted(record: Record) -> tuple[Tensor, Tensor, Tensor]:
    """Figure 1: the first test figures of a record that keeps points, (N, 3, H, W), its answers and the labels."""
    if record.run is None:
        raise ValueError(f"painted: record {record['key']} was read without its run; find it with `records.find`")
    n = len(record.kept("output"))
    scene = record.run.test.data.scene(torch.arange(n))
    return scene.images, torch.from_numpy(record.kept("points")[:n]).float(), scene.joints


def drawings(found: Results) -> Exact:
    """All figures: the sizes printed, the crop's two ways, the clicks, and answers on record for figure 1."""
    made, plain = stages(), stages(fine=standard_network())
    wrong = [f"{name} {made.sizes.get(name)}, not {size}" for name, size in PRINTED.items() if made.sizes[name] != size]
    own, theirs = parameters(made.fine), parameters(plain.fine)
    siamese = {n: parameters(fine_network(joints=n)) - parameters(fine_network(joints=n).last) for n in (7, 14)}
    shared = len(set(siamese.values())) == 1 and parameters(made.fine.last) == JOINTS * (WIDTH + 1)
    seen = crops(torch.rand(3, 64, 80, generator=torch.Generator().manual_seed(0)), torch.tensor([0.1, -0.2]))
    constant = {crop.corner[2] for crop in seen} == {float(WINDOW)}
    points = from_pixels(torch.zeros(PICTURES, 4, 2), (240, 320))
    spread = float(agreed(clicks(to_pixels(points, (240, 320)), 240)).mean())
    good = not wrong and shared and constant and returned() and abs(own - theirs) < 0.01 * own
    good = good and abs(spread - NOISE * 240) < 0.1 * NOISE * 240
    recorded = [r for r in found.records if r.run is not None and r.run.keep and r.keeps]
    ours = (
        f"{len(PRINTED) - len(wrong)} of {len(PRINTED)} printed sizes come out of the live modules"
        + (f" ({'; '.join(wrong)})" if wrong else "")
        + f"; every window covers {WINDOW} px of the picture, and its gradients add where windows overlap; "
        f"{siamese[14]:,} weights are shared by all joints, {WIDTH + 1} are each joint's own; the standard cascade's "
        f"fine network has {theirs:,} parameters, this one {own:,}; {PEOPLE} people who err by {NOISE * 240:.2f} px, "
        f"measured on {PICTURES} pictures as in the paper: {spread:.2f} px"
    )
    note = "figures 1, 2, 4, 6, 7, 8, 10 and 13 from these tensors; the pictures are chapter 3's"
    if not recorded:
        note = "figure 1 waits for records of cascade-refinement; " + note
    otherwise = "not reproduced" if not good else "partly"
    return Exact(ours, good and bool(recorded), note, otherwise)


def exact() -> dict[str, Exact]:
    """The check of the row."""
    with one_thread():
        return {"cascade-drawings": drawings(results("cascade-refinement"))}


__all__ = [
    "PRINTED", "Crop", "Stages", "agreed", "clicks", "crops", "drawings", "exact", "fine_network", "painted",
    "returned", "spelt", "stages", "standard_network",
]  # fmt: skip
