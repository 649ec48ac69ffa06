"""What a recipe will take, before anything is trained: `python -m coordreg run NAME --profile paper --dry-run`."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torchvision.models import get_weight

from coordreg.backbones.cost import giga, macs
from coordreg.backbones.resnet import parameters
from coordreg.data.places import MARKER, files, folder, is_fixture, sets
from coordreg.endtoend import EndToEnd
from coordreg.experiments.recipes import change, epoch, find, named, on_disk, published, split
from coordreg.records import Run
from coordreg.spec import Spec
from coordreg.train import Cosine, Restarts


def on_meta(estimator: Spec) -> Any:
    """The network without numbers: shapes only, no weights fetched."""
    bare = change(estimator, lambda made: made.replace(weights=None) if dict(made.kwargs).get("weights") else made)
    with torch.device("meta"):
        return bare.build()


def side(data: Any) -> tuple[int, int]:
    """(H, W) of what the network sees."""
    size = next(on_disk(data)).size
    return (size, size) if isinstance(size, int) else tuple(size)


def plan(run: Run) -> list[str]:
    """What a run will take, in lines: network, steps, optimiser, schedule, augmentation, measurement."""
    network, training = on_meta(run.estimator), run.training
    epochs = training.steps / (published(run.train) // training.batch)
    height, width = side(run.train)
    people = isinstance(network, EndToEnd)  # what boxes cost depends on the picture
    cost = giga(macs(network.detector.backbone if people else network, (height, width)))
    schedule: Any = training.schedule
    shares = schedule.starts[1:] if isinstance(schedule, Restarts) else getattr(schedule, "milestones", ())
    at = " and ".join(f"epoch {m * epochs:.4g} (step {round(m * training.steps):,})" for m in shares)
    if isinstance(schedule, Cosine):
        falls = f"cosine after {schedule.warmup} steps of warm-up" + (f", afresh at {at}" if at else "")
    else:
        falls = f"x {schedule.gamma:g} at {at}" if at else "constant"
        falls += f", after {schedule.warmup} steps of warm-up" if schedule.warmup else ""
    decay = f", weight decay {training.weight_decay:g}" if training.weight_decay else ""
    augment = next((one.augment for one in on_disk(run.train) if one.augment is not None), None)
    kinds = "none" if augment is None else ", ".join(
        f"{f.name} {getattr(augment, f.name):g}" for f in fields(augment) if isinstance(getattr(augment, f.name), float)
    )  # fmt: skip
    pretrain = max(find(run.estimator, "pretrain"), default=0)
    phases = [(*one, training.steps - sum(one)) for one in find(run.estimator, "phases")]
    trained, tested = (
        " and ".join(f"{named(one)} {one.split} ({split(one)})" for one in on_disk(part))
        for part in (run.train, run.test)
    )
    known = "estimated" if epoch(run.train).estimated else "published"
    lines = [
        f"{run.label}, seed {run.seed} ({run.key})",
        f"  network       {parameters(network):,} parameters, {cost:.2f} G multiply-adds"
        f"{' of trunk and pyramid' if people else ''} at {height} x {width} px",
        f"  training      {training.steps:,} steps: {epochs:.4g} epochs of {published(run.train):,} images ({known}), "
        f"batch {training.batch}",
        f"  optimiser     {training.optimiser}{decay}, rate {training.lr:g}, {falls}",
        *([f"  first         {pretrain:,} steps with the heat-map loss alone"] if pretrain else []),
        *(f"  phases        {a:,} steps of the coarse network, {b:,} of the fine, {c:,} of both" for a, b, c in phases),
        f"  augmentation  {kinds}",
        f"  data          {trained}; tested on {tested}, read by {', '.join(r.name for r in run.readings)}",
    ]
    return lines


def needed(runs: Sequence[Run]) -> list[tuple[str, bool]]:
    """Files and folders that runs need, published weights included, and whether each is there."""
    paths = [path for run in runs for one in sets((run.train, run.test)) for path in files(one)]
    found = [(str(path), path.exists()) for path in dict.fromkeys(paths)]
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    for name in dict.fromkeys(w for run in runs for w in find(run.estimator, "weights") if w):
        file = cache / Path(get_weight(name).url).name
        found.append((f"{file} ({name}; downloaded when first used)", file.is_file()))
    return found


def dry_run(runs: Sequence[Run]) -> str:
    """Everything of `plan` and `needed`, without opening data or building networks."""
    lines = [line for run in runs for line in plan(run)]
    lines += ["", "files"]
    lines += [f"  {'there  ' if there else 'MISSING'}  {name}" for name, there in needed(runs)]
    if any(is_fixture(run.train, run.test) for run in runs):
        marked = {str(folder(o)) for r in runs for o in sets((r.train, r.test)) if (folder(o) / MARKER).is_file()}
        lines += ["", f"{', '.join(sorted(marked))}: marked as a fixture; records made from it are no evidence"]
    return "\n".join(lines)


__all__ = ["dry_run", "needed", "on_meta", "plan", "side"]
