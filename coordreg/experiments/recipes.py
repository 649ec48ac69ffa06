"""The papers' own recipes on the papers' own data: how a schedule in epochs becomes steps, and where the data lie.

A recipe is an experiment of the profile "paper": a list of runs whose training is the paper's. Its steps follow from
epochs and the published number of training images, so that its key is the same on every machine. Where a set is not
whole (a part of it, or a fixture), to train on or to test on, its configuration says how many images it has, which
makes it another run with another key: it trains and is measured, but is no evidence on the paper's claim.
"""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from coordreg.data.coco import COCO
from coordreg.data.flic import FLIC
from coordreg.data.halves import Halves
from coordreg.data.human36m import Human36M
from coordreg.data.mpii import MPII
from coordreg.data.places import name_of, sets
from coordreg.data.scenes import Scenes
from coordreg.experiments.claims import LOWER, Observation, Side
from coordreg.records import Record, Run, load
from coordreg.spec import Spec, describe, digest


class Split(NamedTuple):
    """How many images a split has, who says so, and whether that is an estimate of ours."""

    images: int
    source: str
    estimated: bool = False

    def __str__(self) -> str:
        return f"{self.images:,} {'estimated' if self.estimated else 'published'}"


#: Every split that a recipe reads: people of MPII, COCO and FLIC, frames of Human3.6M by protocol.
PUBLISHED = {
    "mpii train": Split(22_246, "the list in circulation, which leaves Tompson et al.'s 2,958 people aside"),
    "mpii valid": Split(2_958, "Tompson et al. 2015's validation split"),
    "coco train2017": Split(149_813, "people that are neither crowds nor without labels"),
    "coco val2017": Split(6_352, "the same, in 2,346 pictures"),
    "flic train": Split(3_987, "Tompson et al. 2015, section 5"),
    "flic test": Split(1_016, "the same"),
    "human36m 2 train": Split(312_188, "every fifth of 1,559,752 frames of five subjects, sequence by sequence"),
    "human36m 2 test": Split(8_600, "every 64th of about 550,000 frames of S9 and S11", True),
    "human36m 1 train": Split(377_000, "protocol 2's and every fifth of about 324,000 frames of S9", True),
    "human36m 1 test": Split(3_500, "every 64th of the about 225,000 frames that this leaves to S11", True),
}
#: Pictures of COCO that are read whole.
PICTURES = {
    "train2017": Split(56_599, "those with a person that is no crowd and has labels, as Ultralytics counts them"),
    "val2017": Split(5_000, "all of them, with people or without"),
}
#: A copy whose number of images is within this share of the published one is taken for the whole set. An estimate's own
#: error must not make a whole set a part; a subject or a camera that is missing is more than this.
WHOLE, ROUGH = 0.03, 0.1
#: How near a measured figure must come to a printed one: points of PCKh and of AP, and a share of an error in mm. Ours,
#: as the papers print one network each and no spread. R1 and I1 are 2.7 points apart (integral, table 1), R1 and I* 12%
#: (table 7); what is nearer to each other is for the orders to tell.
TOLERANCE = {"points": 1.5, "share": 0.03}


def paper_only(profile: str) -> None:
    """ValueError for every profile but "paper": a recipe has no smaller form."""
    if profile != "paper":
        raise ValueError(f"profile: got {profile!r}, a recipe has the profile paper alone (add --profile paper)")


def on_disk(data: Any) -> Iterator[Any]:
    """The data sets on disk in a configuration, as `sets` gives them; whole pictures count as such, not by people."""
    if isinstance(data, Scenes):
        yield data
    elif isinstance(data, tuple | list):
        for part in data:
            yield from on_disk(part)
    else:
        yield from sets(data)


def named(one: Any) -> str:
    """ "mpii", "coco", "flic" or "human36m" of one of `on_disk`."""
    return name_of(next(sets(one)))


def split(one: Any) -> Split:
    """What is known of the split that one data set on disk reads; its own `limit` or `count`, if it has one."""
    protocol, most = (f" {one.protocol}", one.count) if isinstance(one, Human36M) else ("", one.limit)
    known = PICTURES[one.split] if isinstance(one, Scenes) else PUBLISHED[f"{named(one)}{protocol} {one.split}"]
    return known if most is None else Split(most, "its configuration")


def whole(known: Split, images: int) -> bool:
    """Is a copy of so many images the whole of what is known of it?"""
    return abs(images - known.images) <= (ROUGH if known.estimated else WHOLE) * known.images


def epoch(data: Any) -> Split:
    """What an epoch is, as published: of mixed halves, twice the half in space."""
    if isinstance(data, Halves):
        half = epoch(data.three)
        return half._replace(images=2 * half.images)
    found = list(on_disk(data))
    if len(found) != 1:
        raise ValueError(f"published: got a configuration of {len(found)} data sets, expected one, or Halves")
    return split(found[0])


def published(data: Any) -> int:
    """Images of an epoch, as published."""
    return epoch(data).images


def steps(data: Any, epochs: int, batch: int, images: int | None = None) -> int:
    """Steps of `epochs` passes over `images` (as published), the last incomplete batch of each left out."""
    count = published(data) if images is None else images
    if epochs < 1 or not 1 <= batch <= count:
        raise ValueError(
            f"steps: got epochs={epochs}, batch={batch} of {count} images, expected at least one epoch and one batch"
        )
    return epochs * (count // batch)


def epochs_of(run: Run) -> int:
    """The epochs that a recipe's steps stand for; of a recipe that is printed in steps, the whole ones."""
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
    """The recipe for a copy of `images`, or for other `epochs`: the same run with its own steps, those of phases too.

    A copy that is `whole` leaves the run as it is.
    """
    count, batch = published(run.train), run.training.batch
    if images is not None and not whole(epoch(run.train), images):
        count, batch = images, min(batch, images)
    own = epochs in (None, epochs_of(run)) and count == published(run.train)
    wanted = run.training.steps if own else steps(run.train, epochs or epochs_of(run), batch, count)
    if (wanted, batch) == (run.training.steps, run.training.batch):
        return run
    share = wanted / run.training.steps

    def edit(made: Spec) -> Spec:
        given = dict(made.kwargs)
        pretrain, phases = given.get("pretrain"), given.get("phases")
        changes = {"pretrain": max(1, round(share * pretrain))} if pretrain else {}
        return made.replace(**changes, **({"phases": tuple(round(share * n) for n in phases)} if phases else {}))

    training = replace(run.training, steps=wanted, batch=batch)
    return replace(run, estimator=change(run.estimator, edit), training=training)


# -- where the data are ------------------------------------------------------------------------------------------------


def needs(runs: Sequence[Run]) -> list[str]:
    """The data sets that runs train on and are tested on, such as ["human36m", "mpii"]."""
    return list(dict.fromkeys(name_of(one) for run in runs for one in sets((run.train, run.test))))


def look_in(root: Path | None, runs: Sequence[Run], data: str | None = None) -> None:
    """Let the loaders look in `root`, the folder that contains mpii/, coco/, flic/ or human36m/, or one of them.

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


def _images(data: Any, found: Mapping[str, int]) -> int:
    return 2 * _images(data.three, found) if isinstance(data, Halves) else found[digest(describe(next(on_disk(data))))]


def _told(data: Any, short: Mapping[str, int]) -> Any:
    """A configuration in which every data set of `short` says how many images it has; it opens to the same store."""
    if isinstance(data, MPII | COCO | FLIC | Human36M | Scenes):
        count: Any = short.get(digest(describe(data)))
        told: dict[str, Any] = {"count" if isinstance(data, Human36M) else "limit": count}
        return data if count is None else replace(data, **told)
    if isinstance(data, tuple | list):
        return tuple(_told(part, short) for part in data)
    if is_dataclass(data) and not isinstance(data, type) and any(True for _ in sets(data)):
        return replace(data, **{f.name: _told(getattr(data, f.name), short) for f in fields(data)})
    return data


def here(runs: Sequence[Run], epochs: int | None = None) -> list[Run]:
    """The runs as this machine's copies of the data want them; warns where that is another run than the paper's.

    Every set that is trained on or tested on is counted, both halves of mixed batches too. A set that is not whole says
    so in its configuration, and with it in the run's key.
    """
    images: dict[str, int] = {}
    found = []
    for run in runs:
        ours = {digest(describe(one)): one for one in on_disk((run.train, run.test))}
        images |= {own: len(one.open()) for own, one in ours.items() if own not in images}
        made = adapt(run, _images(run.train, images), epochs)
        short = {own: images[own] for own, one in ours.items() if not whole(split(one), images[own])}
        if short:
            made = replace(made, train=_told(run.train, short), test=_told(run.test, short))
        if made.key != run.key:
            why = [
                f"{n:,} images here of {named(ours[k])} {ours[k].split} ({split(ours[k])})" for k, n in short.items()
            ]
            if epochs not in (None, epochs_of(run)):
                why.append(f"{epochs} epochs for the recipe's {epochs_of(run)}")
            warnings.warn(
                f"{run.label}: {'; '.join(why)}; trains {made.training.steps:,} steps of {made.training.batch} "
                f"(the recipe: {run.training.steps:,} of {run.training.batch}), and is recorded as a run of its own, "
                "which is no evidence on the paper's figures",
                stacklevel=2,
            )
        found.append(made)
    return found


def doubt(record: Record) -> str:
    """Why a record is no evidence on what its run declares, or "": a fixture, or other test images than all."""
    data, run = record["data"], record.run
    if data.get("fixture"):
        return "made from a fixture"
    for one in on_disk(run.test) if run is not None else ():
        if not whole(split(one), data["test_images"]):
            return f"tested on {data['test_images']:,} images of {named(one)} {one.split} ({split(one)})"
    return ""


# -- what is printed ---------------------------------------------------------------------------------------------------


def figure(record: Record, reading: str, metric: str) -> float:
    """One number of a record. ValueError if it has none of this name."""
    found: dict[str, float] = record.reading(reading)["at"]
    if metric not in found:
        raise ValueError(f"record {record['key']} has no {metric!r} in {reading!r}; it has {', '.join(found)}")
    return float(found[metric])


def as_printed(
    row: str, text: str, side: Side, metric: str, printed: float, less: float = 0.0, *, or_more: bool = False
) -> Observation:
    """The claim that a side's figure is the printed one, within TOLERANCE.

    less: by how much ours should lie lower. or_more: a percentage that may as well lie above.
    """
    width = TOLERANCE["share"] * printed if metric in LOWER else TOLERANCE["points"]
    low, high = (round(printed - less + sign * width, 2) for sign in (-1, 1))
    high = 100.0 if or_more else high

    def measure(record: Record) -> float:
        return figure(record, side.reading, metric)

    return Observation(row, text, better=side, worse=side, metric=metric, measure=measure, low=low, high=high)


def in_ratio(row: str, text: str, side: Side, other: Run, metric: str, ratio: float) -> Observation:
    """The claim that a side's figure is `ratio` times that of another run, within TOLERANCE, in points of the former.

    other: a run of the same experiment, whose record lies beside the side's. The two need not share test images.
    """
    beside, width = Side(side.experiment, other.label, side.reading), TOLERANCE["points"]

    def measure(record: Record) -> float:
        second = load(record.path.with_name(f"{other.key}.json"), other)
        return figure(record, side.reading, metric) - ratio * figure(second, side.reading, metric)

    return Observation(row, text, better=side, worse=beside, metric=metric, measure=measure, low=-width, high=width)


__all__ = [
    "PICTURES", "PUBLISHED", "ROUGH", "TOLERANCE", "WHOLE", "Split", "adapt", "as_printed", "change", "doubt", "epoch",
    "epochs_of", "figure", "find", "here", "in_ratio", "look_in", "named", "needs", "on_disk", "paper_only",
    "published", "split", "steps", "whole",
]  # fmt: skip
