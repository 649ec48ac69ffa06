"""Chapter 6: what reading a map costs beside making it. DARK and the quarter shift on HRNet-W32, measured in one run.

    python -m coordreg.experiments.speed                    # on one thread of the processor: about a minute
    python -m coordreg.experiments.speed --device cuda      # on a GPU: seconds

writes `results/speed-cpu.json` or `results/speed-gpu.json`, which the row dark-speed quotes. The paper's Python loop
brings 360 pictures a second down to 320, which is 12.5% more time for each.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import nn

from coordreg.backbones.hrnet import HRNet
from coordreg.backbones.resnet import ConvHead
from coordreg.coords import Labels
from coordreg.dark import Dark
from coordreg.experiments import measured
from coordreg.experiments.cost import least, on_gpu, on_processor
from coordreg.experiments.exact import Exact
from coordreg.experiments.flows import one_thread
from coordreg.fingerprint import changed, fingerprint
from coordreg.heatmap import Gaussian, QuarterSign
from coordreg.provenance import made
from coordreg.records import RecordError

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


def exact() -> dict[str, Exact]:
    """The row dark-speed, if somebody has measured; a GPU's figures come first."""
    for kind in ("gpu", "cpu"):
        try:
            data = measured.read(f"speed-{kind}")
        except RecordError as error:
            return {"dark-speed": Exact(f"refused: {error}", False)}
        if data is None:
            continue
        found = shares(data)
        text = "; ".join(
            f"batch of {batch}: " + ", ".join(f"{name} {100 * share:.2f}%" for name, share in each.items())
            for batch, each in found.items()
        )
        if data["repeats"] < 9:
            note = f"a measurement of {data['repeats']} rounds is not judged, 9 are: measure again"
            return {"dark-speed": Exact("measured too few times", False, note)}
        stale = changed(data["code"], *MEASURED)
        note = f"measured on {data['made']['device']}{'' if kind == 'gpu' else ', one thread'}, {data['network']} at "
        note += f"{data['size'][0]} x {data['size'][1]}; the paper's 360 to 320 fps are {100 * PRINTED:.1f}%"
        note += f"; stale, changed since: {', '.join(stale)}" if stale else ""
        return {
            "dark-speed": Exact(
                f"decoding's share of a forward pass: {text}", max(each["DARK"] for each in found.values()) < MOST, note
            )
        }
    return {}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(prog="python -m coordreg.experiments.speed", description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=15, help="rounds of the clock, at least 9 to be judged")
    options = parser.parse_args(arguments)
    found = measure(options.device, options.repeats)
    data = {
        **found,
        "code": fingerprint(*MEASURED),
        "made": made(Fabric(accelerator=options.device, devices=1)),
    }
    path = measured.write(f"speed-{'gpu' if options.device == 'cuda' else 'cpu'}", data)
    for batch, each in found["seconds"].items():
        times = ", ".join(f"{name} {1e3 * t['own']:.3f} ms" for name, t in each.items())
        print(f"batch of {batch}: {times}")
    print(path.name)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
