"""Chapter 7, supplement's table 5: Poseur on ResNet-50 beside RLE on HRNet-W32, time and memory in one run.

    python -m coordreg.experiments.poseur_speed                  # on one thread of the processor: half a minute
    python -m coordreg.experiments.poseur_speed --device cuda    # on a GPU: seconds

writes `results/poseur-speed-cpu.json` or `results/poseur-speed-gpu.json`, which the row poseur-supp5 quotes. One image
of 256 x 192 px and 17 joints; Poseur with the six layers of table 5, RLE on the average of HRNet's finest features, as
the paper does not say which it pools. Times are measured, taking turns; memory is counted: in training for one image,
at test time as the most that is alive at once.
"""

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from coordreg.backbones.cost import giga, macs
from coordreg.backbones.hrnet import HRNet
from coordreg.backbones.levels import MultiScale, resnet_channels
from coordreg.backbones.resnet import ResNet, parameters
from coordreg.coords import Labels
from coordreg.experiments import measured
from coordreg.experiments.cost import MIB, kept, least, on_gpu, on_processor
from coordreg.experiments.exact import Exact
from coordreg.experiments.flows import one_thread
from coordreg.experiments.poseur_counted import JOINTS, SIZE
from coordreg.flow import RealNVP
from coordreg.method import Estimator
from coordreg.poseur import Poseur, PoseurHead, PoseurMethod
from coordreg.rle import RLE, DistributionHead
from coordreg.spec import Spec, spec

STEM = "poseur-speed"
SCOPE = {
    "poseur-supp5": "GFLOPs, and which of the two networks is faster and which needs more memory, on the machine "
    "named; the AP is table 5's"
}
#: The two networks by the names of the table.
RIVALS: dict[str, Spec] = {
    "Poseur": spec(
        Poseur,
        backbone=spec(MultiScale, trunk=spec(ResNet, depth=50)),
        head=spec(PoseurHead, channels=resnet_channels(50), joints=JOINTS, layers=6),
        method=spec(PoseurMethod),
    ),
    "RLE": spec(
        Estimator,
        backbone=spec(HRNet, width=32),
        head=spec(DistributionHead, channels=32, joints=JOINTS),
        method=spec(RLE, flow=spec(RealNVP)),
    ),
}
#: Printed: GFLOPs, each in the unit of its family (see `GIGA`), frames a second, M in training and in testing.
PRINTED = {"Poseur": (4.6, 94.0, 1386.0, 86.25), "RLE": (7.1, 62.0, 1456.0, 68.12)}
GIGA = {"Poseur": "true", "RLE": "published"}
#: One in the last printed digit of the GFLOPs: how near a count must come.
DIGIT = 0.1
#: Bytes of a parameter in training with AdamW in single precision: weight, gradient and two moments.
TRAINED = 16


class Alive(TorchDispatchMode):
    """Counts bytes of tensors that are alive while operations run inside the block; `most` is the largest sum so far.

    start: tensors that are there from the beginning, such as weights. Memory inside one operation is not seen.
    """

    def __init__(self, start: Sequence[Tensor] = ()) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: dict[int, int] = {}
        for tensor in start:
            self._add(tensor)

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation and count what it has made."""
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, Tensor):
                self._add(leaf)
        return found

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if id(storage) not in self._known:
            self._known[id(storage)] = storage.nbytes()
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._drop, id(storage))

    def _drop(self, key: int) -> None:
        self.now -= self._known.pop(key)


def alive(network: nn.Module, images: Tensor) -> int:
    """The most bytes alive at once while images pass a network, its own weights and the images among them."""
    with torch.no_grad(), Alive([*network.parameters(), *network.buffers(), images]) as count:
        network(images)
    return count.most


def measure(
    device: str = "cpu", repeats: int = 15, rivals: Mapping[str, Spec] = RIVALS, size: tuple[int, int] = SIZE
) -> dict[str, Any]:
    """Time and memory of networks, one image each: plain data.

    Seconds from the image to points are the least of `repeats`, by the wall clock and the thread's or the GPU's own.
    Bytes: "kept", between forward and backward pass; "training", that and TRAINED for each parameter; "testing", see
    `alive`, without what the loss alone needs.
    """
    where = torch.device(device)
    joints = next(iter(rivals.values()))["head"]["joints"]
    g = torch.Generator().manual_seed(0)
    coords = torch.rand(1, joints, 2, generator=g) * 1.6 - 0.8
    labels = Labels(coords.to(where), torch.ones_like(coords, device=where))
    images = torch.rand(1, 3, *size, generator=g).to(where)
    torch.manual_seed(0)
    with one_thread():
        models: dict[str, Estimator] = {name: made.build().to(where).eval() for name, made in rivals.items()}
        calls = [lambda m=m: m.predict(images) for m in models.values()]
        times = least(calls, repeats, on_gpu if where.type == "cuda" else on_processor)
        found = {}
        for (name, model), (wall, own) in zip(models.items(), times, strict=True):
            bare = nn.Sequential(model.backbone, model.head)
            testing = alive(bare, images)
            between = kept(model.train(), images, labels)
            found[name] = {
                "parameters": parameters(model),
                "macs": macs(bare.eval(), size),
                "seconds": {"wall": wall, "own": own},
                "bytes": {
                    "kept": between,
                    "training": between + TRAINED * parameters(model),
                    "testing": testing,
                },
            }
    return {"networks": found, "size": list(size), "repeats": repeats}


def ratios(data: dict[str, Any]) -> dict[str, float]:
    """Poseur's frames a second, memory in training, what it keeps and memory in testing, over RLE's."""
    ours, theirs = (data["networks"][name] for name in ("Poseur", "RLE"))
    found = {"speed": theirs["seconds"]["own"] / ours["seconds"]["own"]}
    return found | {name: ours["bytes"][name] / theirs["bytes"][name] for name in ("training", "kept", "testing")}


def say(data: dict[str, Any], where: str) -> Exact:
    """The row for a measurement: both counts as printed, Poseur faster, smaller in training and larger in testing."""
    networks, found = data["networks"], ratios(data)
    (_, fps, training, testing), (_, other, *rest) = PRINTED["Poseur"], PRINTED["RLE"]
    printed = {"speed": fps / other, "training": training / rest[0], "testing": testing / rest[1]}
    counts = {name: giga(networks[name]["macs"], GIGA[name]) for name in PRINTED}
    agree = all(abs(counts[name] - PRINTED[name][0]) < DIGIT for name in PRINTED)
    sides = {name: (found[name] > 1) == (printed[name] > 1) for name in printed}
    said = ", ".join(f"{name} {count:.2f} ({PRINTED[name][0]:g})" for name, count in counts.items())
    titles = {"speed": "frames a second", "training": "memory in training", "testing": "memory in testing"}
    shares = ", ".join(f"{titles[name]} {found[name]:.2f}x ({printed[name]:.2f}x)" for name in printed)
    times = " and ".join(f"{1e3 * networks[name]['seconds']['own']:.1f}" for name in PRINTED)
    peaks = "; ".join(
        f"{name} {b['training'] / MIB:.0f} MiB in training, {b['kept'] / MIB:.0f} of them kept for the backward pass, "
        f"{b['testing'] / MIB:.0f} MiB in testing"
        for name, b in ((name, networks[name]["bytes"]) for name in PRINTED)
    )
    wrong = [titles[name] for name, good in sides.items() if not good]
    note = f"{where}: {times} ms; {peaks}; counted in single precision, of one image"
    note += "; RLE's GFLOPs in units of 1024^3, as HRNet's family prints them"
    note += f"; the other way round than printed: {' and '.join(wrong)}" if wrong else ""
    return Exact(
        f"GFLOPs counted (printed): {said}; Poseur over RLE, ours (printed): {shares}",
        agree and not wrong,
        note,
        otherwise="partly" if agree and len(wrong) < len(sides) else "not reproduced",
    )


def exact() -> dict[str, Exact]:
    """The row poseur-supp5, if somebody has measured."""
    row = measured.row(STEM, tuple(RIVALS.values()), say, refused="not reproduced", few="inconclusive")
    return {} if row is None else {"poseur-supp5": row}


def told(found: dict[str, Any]) -> Iterator[str]:
    """A line for each network and one for the ratios."""
    for name, each in found["networks"].items():
        memory = ", ".join(f"{what} {count / MIB:.1f} MiB" for what, count in each["bytes"].items())
        yield f"{name}: {each['macs'] / 1e9:.2f} GMACs, {1e3 * each['seconds']['own']:.2f} ms; {memory}"
    yield "Poseur over RLE: " + ", ".join(f"{name} {ratio:.2f}x" for name, ratio in ratios(found).items())


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print."""
    of = tuple(RIVALS.values())
    return measured.clock(arguments, "coordreg.experiments.poseur_speed", __doc__, STEM, of, measure, told)


if __name__ == "__main__":
    raise SystemExit(main())
