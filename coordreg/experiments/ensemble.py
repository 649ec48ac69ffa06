"""Finished networks of a recipe measured together, their maps averaged; or one of them in detected boxes.

    python -m coordreg.experiments.ensemble paper-dark-tab9 --root DIR
    python -m coordreg.experiments.ensemble paper-dark-tab7 --root DIR --only LABEL --boxes FILE

The first averages the maps of all networks of the recipe, in labelled boxes; the second measures one of them in the
boxes of a detector. Both take the weights that `python -m coordreg run RECIPE --profile paper` has left in runs/, with
the same --root and --epochs. The numbers, and those of each member alone, go to `results/ensemble-*.json`.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.fabric import Fabric

from coordreg import experiments
from coordreg.data.coco import COCO
from coordreg.data.places import is_fixture, sets
from coordreg.ensemble import Ensemble
from coordreg.experiments import measured, recipes
from coordreg.method import Estimator
from coordreg.provenance import made
from coordreg.records import Run, checkpoint_of
from coordreg.running import read
from coordreg.spec import Spec, rebuild
from coordreg.train import CheckpointError, load_checkpoint


def trained(checkpoint: Path) -> tuple[Estimator, dict[str, Any]]:
    """The network of a checkpoint, in evaluation mode, and the configuration of its run. CheckpointError without one.

    Published weights are not fetched: what they would set is in the checkpoint.
    """
    if not checkpoint.exists():
        raise CheckpointError(
            f"{checkpoint}: no such file; `python -m coordreg train EXPERIMENT` writes one and says where"
        )
    state = load_checkpoint(checkpoint)
    try:
        config = json.loads(state["config"])
        estimator = recipes.change(rebuild(config["estimator"]), _unweighted).build()
        estimator.load_state_dict(state["model"])
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"{checkpoint}: its configuration and its weights do not fit together ({error}); train it again"
        ) from error
    return estimator.eval(), config


def _unweighted(network: Spec) -> Spec:
    return network.replace(weights=None) if "weights" in dict(network.kwargs) else network


def members(runs: Sequence[Run], recipe: str) -> list[Estimator]:
    """The trained networks of a recipe's runs. ValueError names those that have not been trained to their end."""
    found: list[Estimator] = []
    for run in runs:
        path = checkpoint_of(run, "paper")
        if not path.exists() or load_checkpoint(path)["step"] < run.training.steps:
            raise ValueError(
                f"ensemble: {run.label} ({run.key}) is not trained to its end; "
                f"python -m coordreg run {recipe} --profile paper --only '{run.label}', the same --root and --epochs"
            )
        found.append(trained(path)[0])
    return found


def measure(runs: Sequence[Run], networks: Sequence[Estimator], boxes: str = "gt") -> dict[str, Any]:
    """What each reading of the first run gives of all networks together, and of each alone, on its test set.

    boxes: "gt", or a file of detected boxes (COCO). Raises ValueError for runs of different test sets or scorings.
    """
    first = runs[0]
    for run in runs[1:]:
        if (run.test, run.scoring) != (first.test, first.scoring):
            raise ValueError(
                f"ensemble: {first.label} is tested on {first.test} and {run.label} on {run.test}, expected one test "
                "set, one size and one scoring"
            )
    test = first.test
    if boxes != "gt":
        if not isinstance(test, COCO):
            raise ValueError(f"ensemble: got boxes for {type(test).__name__}, which knows none; leave --boxes out")
        test = replace(test, boxes=boxes, limit=None)  # a limit counts labelled boxes
    store = test.open()
    fabric = Fabric(accelerator=os.environ.get("COORDREG_DEVICE", "auto"), devices=1)

    def summaries(network: Estimator) -> dict[str, Any]:
        network.to(fabric.device)
        return {reading.name: read(network, first, reading, store).summary() for reading in first.readings}

    alone = {run.label: summaries(network) for run, network in zip(runs, networks, strict=True)}
    one = next(sets(test))
    whole = boxes != "gt" or recipes.whole(recipes.split(replace(one, limit=None)), len(store))
    return {
        "members": [{"label": run.label, "key": run.key} for run in runs],
        "boxes": "gt" if boxes == "gt" else Path(boxes).name,
        "people": len(store),
        "readings": summaries(Ensemble(networks)) if len(networks) > 1 else next(iter(alone.values())),
        "alone": alone,
        **({} if whole else {"part": True}),
        **({"fixture": True} if is_fixture(test) else {}),
        "made": made(fabric),
    }


def file_of(recipe: str, only: str = "", boxes: str = "gt") -> str:
    """The name of a measurement."""
    parts = ["ensemble", recipe, only.lower().replace(" ", "-"), "" if boxes == "gt" else "detected"]
    return "-".join(part for part in parts if part)


def figures(recipe: str, metric: str) -> tuple[float, float]:
    """A recipe's ensemble in labelled boxes, by the first reading of its runs, and its best member, in percent.

    ValueError where it has not been measured, or on a fixture, a part of the data or other runs than the recipe's.
    """
    data = measured.read(file_of(recipe))
    if data is None:
        raise ValueError(f"not measured yet: python -m coordreg.experiments.ensemble {recipe} --root DIR")
    for mark, why in (("fixture", "made from a fixture"), ("part", f"measured on {data['people']:,} people alone")):
        if data.get(mark):
            raise ValueError(f"the ensemble of {recipe} is {why}, which is no evidence")
    wanted = [run.key for run in experiments.runs(recipe, "paper")]
    if [member["key"] for member in data["members"]] != wanted or data["boxes"] != "gt":
        raise ValueError(
            f"the ensemble of {recipe} was measured of other runs than the recipe's (other epochs?), which is no "
            "evidence"
        )
    best = max(float(next(iter(one.values()))["at"][metric]) for one in data["alone"].values())
    return float(next(iter(data["readings"].values()))["at"][metric]), best


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m coordreg.experiments.ensemble", description=__doc__)
    parser.add_argument("recipe", help="such as paper-dark-tab9")
    parser.add_argument("--root", type=Path, help="the folder that contains coco/ or mpii/")
    parser.add_argument("--only", default="", help="one network alone, by its label")
    parser.add_argument("--boxes", default="gt", help="a file of detected boxes, COCO's list of results")
    parser.add_argument("--epochs", type=int, help="other epochs than the paper's, as the runs had")
    options = parser.parse_args(arguments)
    try:
        runs = [r for r in experiments.runs(options.recipe, "paper") if options.only in ("", r.label)]
        if not runs:
            labels = ", ".join(run.label for run in experiments.runs(options.recipe, "paper"))
            raise ValueError(f"--only: got {options.only!r}, expected one of {labels}")
        recipes.look_in(options.root, runs)
        runs = recipes.here(runs, options.epochs)
        data = measure(runs, members(runs, options.recipe), options.boxes)
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    path = measured.write(file_of(options.recipe, options.only, options.boxes), data)
    name, reading = next(iter(data["readings"].items()))
    shown = ", ".join(f"{k} {v:.1f}" for k, v in reading["at"].items())
    print(f"{path.name}: {len(runs)} networks, {data['people']:,} people, {name}: {shown}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
