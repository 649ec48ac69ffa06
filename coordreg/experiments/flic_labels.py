"""Chapter 3: what FLIC's labels say without a picture: how many there are, and where joints lie from each other.

    python -m coordreg.experiments.flic_labels --root DIR

DIR holds flic/annot/*.h5, the arrays that come with the stacked hourglass's code: labels of 5,003 people, no stills.
Counts go to `results/flic-labels.json`, which pages quote; no label does. The displacements are those that a spatial
model starts from, of each joint from its parent in the tree, and from the torso where the parent is another.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from coordreg.data.flic import displacements, histogram, statistics
from coordreg.data.flic_formats import FLIC11, People, behind
from coordreg.data.flic_formats import read as read_labels
from coordreg.experiments import measured
from coordreg.messages import TORSO, tree

NAME = "flic-labels"
#: Cells a side of a histogram and half of its side, in torso lengths.
BINS, REACH = 41, 1.5
SPLITS = ("train", "test")


def edges() -> list[tuple[str, str]]:
    """Pairs (joint, what it is seen from): every joint from the torso, and from its parent where that is another."""
    parents = tree(FLIC11)
    names = FLIC11.joints
    found = [(name, "torso") for name in names]
    return found + [(names[j], names[p]) for j, p in enumerate(parents) if p != TORSO]


def counts(points: Float[np.ndarray, "M 2"]) -> list[str]:
    """How many displacements fall into each cell: a line of numbers a row, rows from -REACH to REACH along y."""
    whole = np.rint(histogram(points, BINS, REACH) * len(points)).astype(int)
    return [" ".join(map(str, row)) for row in whole]


def table(lines: Sequence[str]) -> Int[np.ndarray, "bins bins"]:
    """The inverse of `counts`: lines of numbers -> (BINS, BINS)."""
    return np.array([[int(n) for n in line.split()] for line in lines])


def described(people: People, own: People) -> dict[str, Any]:
    """Numbers of one split. people: observer-centric. own: the same, person-centric, which tells who faces away."""
    labelled = np.isfinite(people.joints).all(-1).sum(0)
    found = statistics(people)
    spread = {
        name: {"mean": [round(v, 3) for v in mean], "deviation": [round(v, 3) for v in deviation]}
        for name, (mean, deviation) in found.pop("spread").items()
    }
    lengths, cells = np.histogram(people.torso, np.arange(0, 401, 20))
    return {
        **found,
        "behind": int(behind(own.joints).sum()),
        "torso": [round(v, 1) for v in found["torso"]],
        "torso_histogram": {"edges": [int(v) for v in cells], "people": [int(v) for v in lengths]},
        "labelled": dict(zip(FLIC11.joints, map(int, labelled), strict=True)),
        "spread": spread,
    }


def counted(root: Path) -> dict[str, Any]:
    """Everything that is kept, from the four files under `root`. Raises FileNotFoundError where one is missing."""
    splits, seen = {}, {}
    for split in SPLITS:
        people, own = (read_labels(root, "h5", split, centric) for centric in ("observer", "person"))
        splits[split] = described(people, own)
        if split == "train":
            seen = {f"{a} from {b}": counts(displacements(people, a, b)) for a, b in edges()}
    return {"bins": BINS, "reach": REACH, "splits": splits, "displacements": seen}


def read() -> dict[str, Any] | None:
    """The numbers, or None where nobody has counted them. RecordError for a file that was edited."""
    return measured.read(NAME)


def told(data: dict[str, Any]) -> str:
    """What was counted, in words."""
    people = sum(split["people"] for split in data["splits"].values())
    return f"{people:,} people, {len(data['displacements'])} histograms"


def main(arguments: Sequence[str] | None = None) -> int:
    """Count and write; the exit code."""
    return measured.folder(arguments, "coordreg.experiments.flic_labels", __doc__, NAME, "flic", counted, told)


if __name__ == "__main__":
    sys.exit(main())
