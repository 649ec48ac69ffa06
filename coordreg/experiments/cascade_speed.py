"""Chapter 3, table 2: forward time of the coarse and of the fine network at 4x, 8x and 16x pooling, in one run.

    python -m coordreg.experiments.cascade_speed                  # on one thread of the processor: one to two minutes
    python -m coordreg.experiments.cascade_speed --device cuda    # on a GPU: seconds

writes `results/cascade-speed-cpu.json` or `results/cascade-speed-gpu.json`, which the row cascade-tab2 quotes. The
networks are those that take FLIC's 320 x 240 px: 128 features, three levels, windows of 36 px about 7 joints. Our copy
of the paper has lost the times of its table; what its text says of them is the claim: with the refinement the network
of 8x pooling is significantly faster than that of 4x.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from coordreg.backbones.cost import macs
from coordreg.backbones.multires import MultiRes, SlidingHead
from coordreg.experiments import measured
from coordreg.experiments.cascade import POOLINGS
from coordreg.experiments.cost import least, on_gpu, on_processor
from coordreg.experiments.exact import Exact
from coordreg.experiments.flows import one_thread
from coordreg.heatmap import Argmax
from coordreg.windows import FineNet

STEM = "cascade-speed"
SIZE, JOINTS, WINDOW, WIDTH = (240, 320), 7, 36, 128
#: What "significantly" asks for here: the whole cascade at 8x takes at most this share of the one at 4x, and of the
#: coarse network at 4x alone. And how much the fine network, the same at every pooling, may vary.
MOST, EVEN = 0.8, 0.15
#: What a measurement is of; when one of these changes it is stale.
MEASURED = (MultiRes, SlidingHead, FineNet, Argmax)


def measure(
    device: str = "cpu",
    repeats: int = 15,
    width: int = WIDTH,
    size: tuple[int, int] = SIZE,
    window: int = WINDOW,
) -> dict[str, Any]:
    """Seconds of one image through each part, by pooling: the least over rounds in which every part has a turn.

    coarse: pyramid, banks, head and the maxima of its maps. fine: the windows about them, what it says of them and the
    maxima of that. MACs are counted. width: features of the banks; the other layers are narrower in proportion.
    """
    torch.manual_seed(0)
    images = torch.rand(1, 3, *size, device=device)
    head = tuple(width * n // WIDTH for n in (512, 256, 256))
    calls: list[Callable[[], object]] = []
    counts = {}
    with one_thread(), torch.no_grad():
        for by in POOLINGS:
            trunk = MultiRes((width,) * 3, pooling=by).eval().to(device)
            last = SlidingHead(width, JOINTS, head).eval().to(device)
            fine = FineNet(JOINTS, (width, width), window, widths=(width // 2, width)).eval().to(device)
            banks = trunk(images)
            about = Argmax()(last(banks)).coords

            def coarse(trunk: MultiRes = trunk, last: SlidingHead = last) -> object:
                return Argmax()(last(trunk(images)))

            def refine(fine: FineNet = fine, banks: Any = banks, about: torch.Tensor = about) -> object:
                return Argmax()(fine(banks, about).maps)

            calls += [coarse, refine]
            counts[f"{by}x"] = macs(torch.nn.Sequential(trunk, last), size)
        best = least(calls, repeats, on_gpu if device == "cuda" else on_processor)
    seconds = {}
    for i, by in enumerate(POOLINGS):
        parts = zip(("coarse", "fine"), best[2 * i : 2 * i + 2], strict=True)
        seconds[f"{by}x"] = {name: {"wall": wall, "own": own} for name, (wall, own) in parts}
    return {
        "network": f"{width} features, {JOINTS} joints, windows of {window} px",
        "size": list(size),
        "repeats": repeats,
        "seconds": seconds,
        "coarse_macs": counts,
    }


def ratios(data: dict[str, Any]) -> dict[str, dict[str, float]]:
    """By pooling: "coarse", "fine" and "both" over the coarse network's time at 4x, by the thread's or GPU's clock."""
    unit = data["seconds"]["4x"]["coarse"]["own"]
    found = {}
    for by, parts in data["seconds"].items():
        each = {name: parts[name]["own"] / unit for name in ("coarse", "fine")}
        found[by] = {**each, "both": sum(each.values())}
    return found


def judged(found: dict[str, dict[str, float]]) -> bool:
    """Do these ratios show what the text says: faster with pooling, the whole cascade at 8x well below 4x?"""
    coarse, fine, both = ([found[f"{by}x"][name] for by in POOLINGS] for name in ("coarse", "fine", "both"))
    falling = coarse[0] > coarse[1] > coarse[2]
    return falling and both[1] <= MOST * both[0] and both[1] <= MOST and max(fine) <= (1 + EVEN) * min(fine)


def read() -> tuple[str, dict[str, Any]] | None:
    """The kind of machine ("gpu" before "cpu") and what was measured there; None where nobody has measured."""
    return measured.newest(STEM)


def say(data: dict[str, Any], where: str) -> Exact:
    """The row for a measurement."""
    shares = ratios(data)
    text = "; ".join(
        f"{by} " + ", ".join(f"{name} {share:.2f}" for name, share in each.items()) for by, each in shares.items()
    )
    unit = data["seconds"]["4x"]["coarse"]["own"]
    note = f"{where}; {data['network']}, {data['size'][1]} x {data['size'][0]} px; "
    note += "judged by the text, for the printed times are lost in our copy"
    ours = f"time over that of the coarse network at 4x pooling, {1e3 * unit:.3g} ms: {text}"
    return Exact(ours, judged(shares), note, otherwise="not reproduced")


def exact() -> dict[str, Exact]:
    """The row cascade-tab2, if somebody has measured."""
    row = measured.row(STEM, MEASURED, say, refused="not reproduced", few="inconclusive")
    return {} if row is None else {"cascade-tab2": row}


def told(found: dict[str, Any]) -> Iterator[str]:
    """The times and the counts of a measurement, a line a pooling."""
    for by, parts in found["seconds"].items():
        times = ", ".join(f"{name} {1e3 * t['own']:.2f} ms" for name, t in parts.items())
        yield f"{by}: {times}; coarse {found['coarse_macs'][by] / 1e9:.2f} GMACs"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print."""
    return measured.clock(arguments, "coordreg.experiments.cascade_speed", __doc__, STEM, MEASURED, measure, told)


if __name__ == "__main__":
    raise SystemExit(main())
