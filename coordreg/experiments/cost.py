"""Chapter 4: what an answer costs. ResNet-50@28px beside the hourglass of eight stacks, measured in one run.

    python -m coordreg.experiments.cost                     # on one thread of the processor: about three minutes
    python -m coordreg.experiments.cost --device cuda       # on a GPU: seconds

writes `results/cost-cpu.json` or `results/cost-gpu.json`, which the rows dsnt-fig10 and dsnt-tab4 quote. What cannot
depend on the machine (parameters, multiply-adds, bytes kept for the backward pass) is counted, the rest measured.
"""

import argparse
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from coordreg.backbones.cost import macs
from coordreg.backbones.dilated import DilatedResNet
from coordreg.backbones.hourglass import Hourglasses, HourglassStem
from coordreg.backbones.resnet import ConvHead, parameters, trunk_channels
from coordreg.coords import Labels
from coordreg.dsnt import DSNT, JS
from coordreg.experiments import heatmap, measured
from coordreg.fingerprint import changed, fingerprint
from coordreg.method import Estimator, Staged
from coordreg.provenance import made
from coordreg.records import RecordError
from coordreg.spec import Spec, spec

JOINTS, MIB = 16, 2**20


@dataclass(frozen=True)
class Rival:
    """A network as the paper has it, and the side of its input in pixels."""

    name: str
    estimator: Spec
    size: int


def rivals(width: int = 64, stacks: int = 8) -> tuple[Rival, Rival]:
    """ResNet-50@28px with DSNTr, and the stacked hourglass with heatmap matching; both narrower if asked for."""
    resnet = spec(
        Estimator,
        backbone=spec(DilatedResNet, depth=50, width=width, stride=8),
        head=spec(ConvHead, channels=trunk_channels(50, width), joints=JOINTS),
        method=spec(DSNT, regulariser=JS(1.0), weight=1.0),
    )
    hourglass = spec(
        Estimator,
        backbone=spec(HourglassStem, width=4 * width),
        head=spec(Hourglasses, channels=4 * width, joints=JOINTS, stacks=stacks),
        method=spec(Staged, method=heatmap.H1),
    )
    return Rival("ResNet-50@28px", resnet, 224), Rival(f"hourglass of {stacks}", hourglass, 256)


def _inputs(size: int, batch: int, device: torch.device) -> tuple[Tensor, Labels]:
    g = torch.Generator().manual_seed(0)
    coords = torch.rand(batch, JOINTS, 2, generator=g) * 1.6 - 0.8
    images = torch.rand(batch, 3, size, size, generator=g)
    return images.to(device), Labels(coords.to(device), torch.ones_like(coords, device=device))


def _infer(model: Estimator, images: Tensor) -> Tensor:
    """Images in, points out."""
    with torch.no_grad():
        found: Tensor = model.method.decode(model(images)).coords
    return found


def _step(model: Estimator, images: Tensor, labels: Labels) -> None:
    """Forward and backward."""
    model.method.loss(model(images), labels)["loss"].backward()
    model.zero_grad(set_to_none=True)


# -- time -------------------------------------------------------------------------------------------------------------


def on_processor(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds of a call by the wall clock and by the thread's own."""
    wall, thread = time.perf_counter(), time.thread_time()
    call()
    return time.perf_counter() - wall, time.thread_time() - thread


def on_gpu(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds of a call by the wall clock and by the GPU's own."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    wall = time.perf_counter()
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return time.perf_counter() - wall, begin.elapsed_time(end) / 1e3


def least(
    calls: Sequence[Callable[[], object]],
    repeats: int,
    clock: Callable[[Callable[[], object]], tuple[float, float]] = on_processor,
) -> list[tuple[float, float]]:
    """The least time of each call by two clocks, over rounds in which each has a turn.

    A busy neighbour doubles a mean and hardly moves a minimum; the second clock, the thread's own or the GPU's, does
    not run while another process does.
    """
    if repeats < 1:
        raise ValueError(f"least: got repeats={repeats}, expected at least 1")
    best = [(float("inf"), float("inf"))] * len(calls)
    for call in calls:  # warm
        clock(call)
    for _ in range(repeats):
        for i, call in enumerate(calls):
            wall, own = clock(call)
            best[i] = (min(best[i][0], wall), min(best[i][1], own))
    return best


# -- memory -----------------------------------------------------------------------------------------------------------


def kept(model: Estimator, images: Tensor, labels: Labels) -> int:
    """Bytes that a training step keeps between forward and backward, weights and images left out: a count, exact."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers(), images, *labels)}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model.method.loss(model(images), labels)["loss"]
    del loss  # until here everything kept was alive, so that no address was used twice
    return sum(found.values())


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def _growth(task: tuple[Spec, int, int, str]) -> int | None:
    """How far this process's resident memory rises from before the network exists; None where nobody can say."""
    estimator, size, batch, phase = task
    torch.set_num_threads(1)
    images, labels = _inputs(size, batch, torch.device("cpu"))
    torch.nn.Conv2d(3, 8, 3)(images[:, :, :64, :64]).sum().backward()  # the library's own buffers
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the highest so far, from importing, is forgotten
        before = _status("VmRSS")
        _once(estimator, images, labels, phase)
        return _status("VmHWM") - before
    except (OSError, StopIteration):
        return None


def _once(estimator: Spec, images: Tensor, labels: Labels, phase: str) -> None:
    model: Estimator = estimator.build().to(images.device)
    if phase == "training":
        _step(model.train(), images, labels)
    else:
        _infer(model.eval(), images)


def _resident(rival: Rival, batch: int, phase: str) -> int | None:
    """Peak growth of the resident memory of a process of its own, weights included."""
    with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return pool.map(_growth, [(rival.estimator, rival.size, batch, phase)], chunksize=1)[0]


def _allocated(rival: Rival, batch: int, phase: str, device: torch.device) -> int:
    """Peak of the GPU's memory that tensors take, weights included; nothing else must lie there."""
    gc.collect()
    torch.cuda.empty_cache()
    images, labels = _inputs(rival.size, batch, device)
    torch.cuda.reset_peak_memory_stats(device)
    _once(rival.estimator, images, labels, phase)
    return torch.cuda.max_memory_allocated(device)


# -- the run ----------------------------------------------------------------------------------------------------------


def measure(
    networks: Sequence[Rival], *, device: str = "cpu", repeats: int = 15, batch: int = 4, resident: bool = True
) -> dict[str, Any]:
    """Time and memory of networks, taking turns: plain data. batch: images of a training step; inference takes one.

    Seconds are the least of `repeats`, by the wall clock and by the thread's or the GPU's own. Bytes: `kept` is counted
    for each image of a step; `inference` and `training` are peaks of resident memory (on a GPU, of its tensors) with
    the weights, without an optimiser's state; None where they were not measured.
    """
    where = torch.device(device)
    gpu = where.type == "cuda"
    if not gpu:
        torch.set_num_threads(1)
    torch.manual_seed(0)
    peaks = {
        (r.name, phase): _allocated(r, n, phase, where) if gpu else _resident(r, n, phase) if resident else None
        for r in networks
        for phase, n in (("inference", 1), ("training", batch))
    }
    models = [r.estimator.build().to(where).eval() for r in networks]
    images = [_inputs(r.size, 1, where)[0] for r in networks]
    calls = [lambda m=m, x=x: _infer(m, x) for m, x in zip(models, images, strict=True)]
    times = least(calls, repeats, on_gpu if gpu else on_processor)
    found = {}
    for rival, model, (wall, own) in zip(networks, models, times, strict=True):
        found[rival.name] = {
            "size": rival.size,
            "parameters": parameters(model),
            "macs": macs(torch.nn.Sequential(model.backbone, model.head), (rival.size, rival.size)),
            "seconds": {"wall": wall, "own": own},
            "bytes": {
                "kept": kept(model.train(), *_inputs(rival.size, batch, where)) // batch,
                **{phase: peaks[rival.name, phase] for phase in ("inference", "training")},
            },
        }
    return {"networks": found, "repeats": repeats, "batch": batch}


def path_of(kind: str) -> Path:
    """Where the measurement of a kind of machine lies, "cpu" or "gpu"."""
    return measured.path_of(f"cost-{kind}")


def write(kind: str, found: dict[str, Any], networks: Sequence[Rival], fabric: Fabric) -> Path:
    """Write a measurement with where, when and from what code it was made, whole or not at all."""
    code = fingerprint(*(r.estimator for r in networks))
    return measured.write(f"cost-{kind}", {"format": 1, **found, "code": code, "made": made(fabric)})


def read(kind: str) -> dict[str, Any] | None:
    """The measurement of a kind of machine, None if there is none. RecordError if it was edited."""
    return measured.read(f"cost-{kind}")


def ratios(data: dict[str, Any]) -> dict[str, float | None]:
    """What the hourglass takes for each unit of the ResNet: "time", "wall", "inference", "training", "kept"."""
    first, second = data["networks"].values()
    pairs = {"time": (second["seconds"]["own"], first["seconds"]["own"])}
    pairs |= {"wall": (second["seconds"]["wall"], first["seconds"]["wall"])}
    pairs |= {name: (second["bytes"][name], first["bytes"][name]) for name in ("inference", "training", "kept")}
    return {name: a / b if a and b else None for name, (a, b) in pairs.items()}


#: Ratios of memory by their keys in `ratios`.
MEMORY = {"inference": "memory at inference", "training": "memory in training", "kept": "what a training step keeps"}


def told() -> tuple[list[str], list[dict[str, float | None]], list[str]]:
    """What was measured, a GPU first: in words, as ratios; and remarks."""
    said, found, notes = [], [], []
    for kind in ("gpu", "cpu"):
        try:
            data = read(kind)
        except RecordError as error:
            notes.append(f"refused: {error}")
            continue
        if data is None:
            continue
        ratio = ratios(data)
        found.append(ratio)
        machine = data["made"]["device"] + ("" if kind == "gpu" else ", one thread")
        times = " and ".join(f"{1e3 * n['seconds']['own']:.1f}" for n in data["networks"].values())
        memory = ", ".join(f"{what} {ratio[key]:.2f}x" for key, what in MEMORY.items() if ratio[key] is not None)
        said.append(f"measured on {machine}: {times} ms, time {ratio['time']:.2f}x, {memory}")
        stale = changed(data["code"], *(rival.estimator for rival in rivals()), timed=True)
        notes += [f"the measurement on {machine} is stale: {', '.join(stale)}"] if stale else []
    if not said:
        notes.append("times and memory not measured here: python -m coordreg.experiments.cost")
    return said, found, notes


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(prog="python -m coordreg.experiments.cost", description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=15, help="rounds of the clock, at least 9 to be judged")
    options = parser.parse_args(arguments)
    networks = rivals()
    found = measure(networks, device=options.device, repeats=options.repeats)
    kind = "gpu" if options.device == "cuda" else "cpu"
    path = write(kind, found, networks, Fabric(accelerator=options.device, devices=1))
    for name, each in found["networks"].items():
        peak = {k: "unknown" if v is None else f"{v / MIB:.0f} MiB" for k, v in each["bytes"].items()}
        print(f"{name}: {each['parameters']:,} parameters, {each['macs'] / 1e9:.2f} GMACs, "
              f"{1e3 * each['seconds']['own']:.1f} ms ({1e3 * each['seconds']['wall']:.1f} by the wall clock); "
              + ", ".join(f"{k} {v}" for k, v in peak.items()))  # fmt: skip
    print("hourglass / ResNet: " + ", ".join(f"{k} {v:.2f}" for k, v in ratios(found).items() if v is not None))
    print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
