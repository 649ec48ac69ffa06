"""The papers' own recipes on the papers' own data: how a schedule in epochs becomes steps, and what it will take.

A recipe is an experiment of the profile "paper": a list of runs whose training is the paper's. Its steps follow from
epochs and the published number of training images, so that its key is the same on every machine. On a copy with fewer
images (a part of the set, or a fixture) the same epochs are fewer steps, which makes it another run with another key:
it trains and is measured, but is no evidence on the paper's claim.
"""

import os
import warnings
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torchvision.models import get_weight

from coordreg.backbones.cost import giga, macs
from coordreg.backbones.resnet import parameters
from coordreg.data.coco import COCO
from coordreg.data.halves import Halves
from coordreg.data.human36m import Human36M
from coordreg.data.mpii import MPII
from coordreg.data.places import MARKER, files, folder, is_fixture, name_of, sets
from coordreg.records import Run
from coordreg.spec import Spec, describe, digest
from coordreg.train import Cosine

#: People of the training splits. MPII: the list that leaves Tompson's 2,958 aside. COCO: the people that are neither
#: crowds nor without labels. Human3.6M by protocol: every fifth of 1,559,752 frames of five subjects; with S9 it is our
#: estimate.
PUBLISHED = {"mpii": 22_246, "coco": 149_813, "human36m 2": 312_188, "human36m 1": 377_000}
#: A copy whose number of images is within this share of the published one is taken for the whole set.
WHOLE = 0.03


def paper_only(profile: str) -> None:
    """ValueError for every profile but "paper": a recipe has no smaller form."""
    if profile != "paper":
        raise ValueError(f"profile: got {profile!r}, a recipe has the profile paper alone (add --profile paper)")


def published(data: Any) -> int:
    """Images of an epoch, as published: of mixed halves, twice those of the half in space."""
    if isinstance(data, Halves):
        return 2 * published(data.three)
    found = list(sets(data))
    if len(found) != 1:
        raise ValueError(f"published: got a configuration of {len(found)} data sets, expected one, or Halves")
    one = found[0]
    if isinstance(one, MPII | COCO):
        return PUBLISHED[name_of(one)]
    assert isinstance(one, Human36M)
    return PUBLISHED[f"human36m {one.protocol}"]


def steps(data: Any, epochs: int, batch: int, images: int | None = None) -> int:
    """Steps of `epochs` passes over `images` (as published), the last incomplete batch of each left out."""
    count = published(data) if images is None else images
    if epochs < 1 or not 1 <= batch <= count:
        raise ValueError(
            f"steps: got epochs={epochs}, batch={batch} of {count} images, expected at least one epoch and one batch"
        )
    return epochs * (count // batch)


def epochs_of(run: Run) -> int:
    """The epochs that a recipe's steps stand for."""
    return run.training.steps // (published(run.train) // run.training.batch)


def change(value: Any, edit: Any) -> Any:
    """A specification with `edit(spec)` in place of every spec in it, innermost first."""
    if isinstance(value, Spec):
        return edit(value.replace(**{name: change(inner, edit) for name, inner in value.kwargs}))
    return tuple(change(v, edit) for v in value) if isinstance(value, tuple) else value


def find(value: Any, name: str) -> list[Any]:
    """Every argument of this name in a specification."""
    if isinstance(value, tuple):
        return [v for part in value for v in find(part, name)]
    if not isinstance(value, Spec):
        return []
    return [v for key, v in value.kwargs if key == name] + [v for _, inner in value.kwargs for v in find(inner, name)]


def adapt(run: Run, images: int | None = None, epochs: int | None = None) -> Run:
    """The recipe for a copy of `images`, or for other `epochs`: the same run with its own steps, pre-training included.

    A copy within WHOLE of the published number is the whole set, and leaves the run as it is.
    """
    count, batch = published(run.train), run.training.batch
    if images is not None and abs(images - count) > WHOLE * count:
        count, batch = images, min(batch, images)
    wanted = steps(run.train, epochs or epochs_of(run), batch, count)
    if (wanted, batch) == (run.training.steps, run.training.batch):
        return run
    share = wanted / run.training.steps

    def edit(made: Spec) -> Spec:
        pretrain = dict(made.kwargs).get("pretrain")
        return made.replace(pretrain=max(1, round(share * pretrain))) if pretrain else made

    training = replace(run.training, steps=wanted, batch=batch)
    return replace(run, estimator=change(run.estimator, edit), training=training)


# -- where the data are ------------------------------------------------------------------------------------------------


def needs(runs: Sequence[Run]) -> list[str]:
    """The data sets that runs train on and are tested on, such as ["human36m", "mpii"]."""
    return list(dict.fromkeys(name_of(one) for run in runs for one in sets((run.train, run.test))))


def look_in(root: Path | None, runs: Sequence[Run], data: str | None = None) -> None:
    """Let the loaders look in `root`, the folder that contains mpii/, coco/ or human36m/, or one of these itself.

    root: None leaves it to the environment (`pack.locate`). data: the set that the caller means. ValueError if the runs
    do not need it, or `root` is no folder.
    """
    wanted = needs(runs)
    if data is not None and data not in wanted:
        raise ValueError(f"--data: got {data!r}, but this recipe needs {' and '.join(wanted) or 'no data set'}")
    if root is None or not wanted:
        return
    if not root.is_dir():
        raise ValueError(f"--root: got {root}, which is no folder; expected the one that contains {wanted[0]}/")
    root = root.resolve()
    inside = [name for name in wanted if (root / name).is_dir()]
    base = root.parent if not inside and root.name in wanted else root
    h36m = base / "human36m"
    os.environ["COORDREG_DATA"] = str(base)
    os.environ["COORDREG_H36M"] = str(h36m if h36m.is_dir() or wanted[0] != "human36m" else root)


def here(runs: Sequence[Run], epochs: int | None = None) -> list[Run]:
    """The runs as this machine's copies of the data want them; warns where that is another run than the paper's."""
    counted: dict[str, int] = {}
    found = []
    for run in runs:
        own = digest(describe(run.train))
        if own not in counted:
            counted[own] = len(run.train.open())
        made = adapt(run, counted[own], epochs)
        if made.key != run.key:
            warnings.warn(
                f"{run.label}: {counted[own]:,} images here ({published(run.train):,} published), {epochs_of(run)} "
                f"epochs in the recipe; trains {made.training.steps:,} steps of {made.training.batch} instead of "
                f"{run.training.steps:,}, and is recorded as a run of its own",
                stacklevel=2,
            )
        found.append(made)
    return found


# -- what it will take -------------------------------------------------------------------------------------------------


def on_meta(estimator: Spec) -> Any:
    """The network without numbers: shapes only, no weights fetched."""
    bare = change(estimator, lambda made: made.replace(weights=None) if dict(made.kwargs).get("weights") else made)
    with torch.device("meta"):
        return bare.build()


def side(data: Any) -> tuple[int, int]:
    """(H, W) of what the network sees."""
    size = next(sets(data)).size
    return (size, size) if isinstance(size, int) else tuple(size)


def plan(run: Run) -> list[str]:
    """What a run will take, in lines: network, steps, optimiser, schedule, augmentation, measurement."""
    network, training, epochs = on_meta(run.estimator), run.training, epochs_of(run)
    height, width = side(run.train)
    cost = giga(macs(network, (height, width)))
    schedule: Any = training.schedule
    if isinstance(schedule, Cosine):
        falls = f"cosine after {schedule.warmup} steps of warm-up"
    else:
        at = [f"epoch {m * epochs:g} (step {round(m * training.steps):,})" for m in schedule.milestones]
        falls = f"x {schedule.gamma:g} at {' and '.join(at)}" if at else "constant"
    augment = next((one.augment for one in sets(run.train) if one.augment is not None), None)
    kinds = "none" if augment is None else ", ".join(
        f"{f.name} {getattr(augment, f.name):g}" for f in fields(augment) if isinstance(getattr(augment, f.name), float)
    )  # fmt: skip
    pretrain = max(find(run.estimator, "pretrain"), default=0)
    trained = " and ".join(f"{name_of(one)} {one.split}" for one in sets(run.train))
    tested = " and ".join(f"{name_of(one)} {one.split}" for one in sets(run.test))
    lines = [
        f"{run.label}, seed {run.seed} ({run.key})",
        f"  network       {parameters(network):,} parameters, {cost:.2f} G multiply-adds at {height} x {width} px",
        f"  training      {training.steps:,} steps: {epochs} epochs of {published(run.train):,} images (published), "
        f"batch {training.batch}",
        f"  optimiser     {training.optimiser}, rate {training.lr:g}, {falls}",
        *([f"  first         {pretrain:,} steps with the heat-map loss alone"] if pretrain else []),
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


__all__ = [
    "PUBLISHED", "WHOLE", "adapt", "change", "dry_run", "epochs_of", "find", "here", "look_in", "needed", "needs",
    "on_meta", "paper_only", "plan", "published", "side", "steps",
]  # fmt: skip
