"""Chapter 6: what reading a map costs beside making it. DARK and the quarter shift on HRNet-W32, measured in one run.

    python -m coordreg.experiments.speed                    # on one thread of the processor: about a minute
    python -m coordreg.experiments.speed --device cuda      # on a GPU: seconds

writes `results/speed-cpu.json` or `results/speed-gpu.json`, which the row dark-speed quotes. The paper's Python loop
brings 360 pictures a second down to 320, which is 12.5% more time for each.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from coordreg.backbones.hrnet import HRNet
from coordreg.backbones.resnet import ConvHead
from coordreg.coords import Labels
from coordreg.dark import Dark
from coordreg.experiments import measured
from coordreg.experiments.cost import least, on_gpu, on_processor
from coordreg.experiments.exact import Exact
from coordreg.experiments.flows import one_thread
from coordreg.heatmap import Gaussian, QuarterSign

SIZE, JOINTS, BATCHES = (128, 96), 17, (1, 32)
#: Decoding's share of a forward pass that must not be exceeded; what the paper's figures come to.
MOST, PRINTED = 0.02, 360 / 320 - 1
READERS = {"quarter shift": QuarterSign("published"), "DARK": Dark(11)}
#: What a measurement is of; when one of these changes it is stale.
MEASURED = (*READERS.values(), HRNet, ConvHead)


def measure(
    device: str = "cpu",
    repeats: int = 15,
    width: int = 32,
    batches: Sequence[int] = BATCHES,
    size: tuple[int, int] = SIZE,
) -> dict[str, Any]:
    """Seconds of a forward pass and of each decoder by batch: the least over rounds in which each has a turn.

    The maps that are read are Gaussians with noise, since those of an untrained network have no peaks.
    """
    torch.manual_seed(0)
    network = nn.Sequential(HRNet(width), ConvHead(width, JOINTS)).eval().to(device)
    found: dict[str, Any] = {}
    with one_thread(), torch.no_grad():
        for batch in batches:
            images = torch.rand(batch, 3, *size, device=device)
            places = torch.rand(batch, JOINTS, 2) * 1.6 - 0.8
            maps = Gaussian(2.0)(Labels(places, torch.ones_like(places)), (size[0] // 4, size[1] // 4)).maps
            maps = (maps + 0.05 * torch.randn_like(maps)).to(device)
            calls = [lambda images=images: network(images)]  # type: ignore[misc]
            calls += [lambda read=read, maps=maps: read(maps) for read in READERS.values()]  # type: ignore[misc]
            clock = on_gpu if device == "cuda" else on_processor
            best = least(calls, repeats, clock)
            found[str(batch)] = {
                name: {"wall": wall, "own": own} for name, (wall, own) in zip(("forward", *READERS), best, strict=True)
            }
    return {"network": f"HRNet-W{width}", "size": list(size), "joints": JOINTS, "repeats": repeats, "seconds": found}


def shares(data: dict[str, Any]) -> dict[int, dict[str, float]]:
    """By batch: each decoder's time as a share of the forward pass, by the thread's or the GPU's own clock."""
    return {
        int(batch): {name: each[name]["own"] / each["forward"]["own"] for name in READERS}
        for batch, each in data["seconds"].items()
    }


def say(data: dict[str, Any], where: str) -> Exact:
    """The row for a measurement."""
    found = shares(data)
    text = "; ".join(
        f"batch of {batch}: " + ", ".join(f"{name} {100 * share:.2f}%" for name, share in each.items())
        for batch, each in found.items()
    )
    note = f"{where}, {data['network']} at {data['size'][0]} x {data['size'][1]}; "
    note += f"the paper's 360 to 320 fps are {100 * PRINTED:.1f}%"
    good = max(each["DARK"] for each in found.values()) < MOST
    return Exact(f"decoding's share of a forward pass: {text}", good, note)


def exact() -> dict[str, Exact]:
    """The row dark-speed, if somebody has measured; a GPU's figures come first."""
    row = measured.row("speed", MEASURED, say)
    return {} if row is None else {"dark-speed": row}


def told(found: dict[str, Any]) -> Iterator[str]:
    """The times of a measurement, a line a batch."""
    for batch, each in found["seconds"].items():
        times = ", ".join(f"{name} {1e3 * t['own']:.3f} ms" for name, t in each.items())
        yield f"batch of {batch}: {times}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print."""
    return measured.clock(arguments, "coordreg.experiments.speed", __doc__, "speed", MEASURED, measure, told)


if __name__ == "__main__":
    raise SystemExit(main())
