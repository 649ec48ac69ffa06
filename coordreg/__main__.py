"""The command line: `python -m coordreg --help`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from coordreg import experiments, ledger, records, running
from coordreg import rerun as reruns
from coordreg.data.commands import data_app
from coordreg.experiments import planning, recipes

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Coordinate regression: train, measure, predict.")
app.add_typer(data_app, name="data", help="Look for, fetch, show and pack data sets.")

ProfileOption = Annotated[str, typer.Option("--profile", help="smoke, cpu, gpu or paper")]


@app.command()
def run(
    experiment: Annotated[str, typer.Argument(help="such as heatmap-resolution; `list` prints all")],
    profile: ProfileOption = "cpu",
    workers: Annotated[int, typer.Option(help="runs side by side, one thread each")] = 1,
    only: Annotated[str, typer.Option(help="only runs with this label")] = "",
    seed: Annotated[int | None, typer.Option(help="only this seed")] = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="train again what is stale")] = False,
    data: Annotated[str | None, typer.Option(help="profile paper: mpii, coco, flic or human36m")] = None,
    root: Annotated[Path | None, typer.Option(help="profile paper: the folder that contains them")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="profile paper: say what it takes, train nothing")] = False,
    epochs: Annotated[int | None, typer.Option(help="profile paper: other epochs than the paper's")] = None,
) -> None:
    """Train what is missing of an experiment and write its records."""
    if experiment == "list":
        for name, function in sorted(experiments.names().items()):
            typer.echo(f"{name:24s} {(function.__doc__ or '').splitlines()[0]}")
        return
    wanted = [r for r in experiments.runs(experiment, profile) if only in ("", r.label) and seed in (None, r.seed)]
    if not wanted:
        labels = dict.fromkeys(r.label for r in experiments.runs(experiment, profile))
        raise ValueError(f"run: nothing matches --only {only!r} --seed {seed}; labels are {', '.join(labels)}")
    if profile == "paper":
        recipes.look_in(root, wanted, data)
        if dry_run:
            typer.echo(planning.dry_run([recipes.adapt(r, epochs=epochs) for r in wanted]))
            return
        wanted = recipes.here(wanted, epochs)
    elif data is not None or root is not None or dry_run or epochs is not None:
        raise ValueError(f"run: --data, --root, --epochs and --dry-run are for --profile paper, got {profile!r}")
    for run_, record in zip(wanted, running.run_all(wanted, profile, workers=workers, refresh=refresh), strict=True):
        first = record.reading(run_.readings[0].name)
        shown = ", ".join(f"{t}: {v:.1f}" for t, v in first["at"].items())
        area = f", AUC {first['auc']:.1f}" if "auc" in first else ""
        made = "  FIXTURE, no evidence" if record["data"].get("fixture") else ""
        typer.echo(f"{run_.label:14s} seed {run_.seed}  at {shown}{area}  {record.path.name}{made}")


@app.command()
def train(
    experiment: str,
    label: Annotated[str, typer.Option(help="which of the experiment's networks; the first by default")] = "",
    profile: ProfileOption = "cpu",
    seed: int = 0,
) -> None:
    """Train one network of an experiment (or resume it) and say where its checkpoint lies, for `predict`."""
    every = experiments.runs(experiment, profile)
    wanted = [r for r in every if r.seed == seed and label in ("", r.label)]
    if not wanted:
        labels = dict.fromkeys(r.label for r in every)
        raise ValueError(f"train: no network {label!r} with seed {seed}; labels are {', '.join(labels)}")
    run_ = recipes.here(wanted[:1])[0] if profile == "paper" else wanted[0]
    record = running.execute(run_, profile, checkpoint_needed=True)
    typer.echo(f"record      {record.path}")
    typer.echo(f"checkpoint  {records.checkpoint_of(run_, profile)}")


@app.command()
def predict(
    images: list[Path],
    checkpoint: Annotated[list[Path], typer.Option(help="written by `train` or `run`; several: maps are averaged")],
    out: Annotated[Path, typer.Option(help="folder for NAME-joints.json and NAME-joints.png")] = Path("predictions"),
    box: Annotated[str, typer.Option(help="x,y,width,height of the person in pixels; the whole image by default")] = "",
    flip: Annotated[bool, typer.Option(help="average with the mirrored image")] = True,
    boxes: Annotated[Path | None, typer.Option(help="several people: JSON of boxes by picture, x,y,w,h,score")] = None,
    detect: Annotated[bool, typer.Option("--detect", help="several people: torchvision's detector finds them")] = False,
) -> None:
    """Predict joints in pictures: one JSON file and one overlay picture each."""
    from coordreg.predict import Detector, load_predictor, predict_files, read_boxes

    if sum((bool(box), boxes is not None, detect)) > 1:
        raise ValueError(
            "predict: got several of --box, --boxes and --detect, expected one way to say where people are"
        )
    predictor, find = load_predictor(*checkpoint), None
    if boxes is not None:
        named = read_boxes(boxes)
        absent = [path.name for path in images if path.name not in named]
        if absent:
            raise ValueError(f"predict: {boxes} has no boxes for {absent[0]}; give it an empty list for nobody")
        find = lambda path, image: named[path.name]  # noqa: E731
    elif detect:
        detector = Detector()
        find = lambda path, image: detector(image)  # noqa: E731

    try:
        parts = [float(v) for v in box.split(",")] if box else []
    except ValueError:
        parts = [0.0]
    if len(parts) not in (0, 4):
        raise ValueError(f"predict: got --box {box!r}, expected four numbers x,y,width,height in pixels")
    rectangle = (parts[0], parts[1], parts[2], parts[3]) if parts else None
    for result in predict_files(predictor, images, out, box=rectangle, flip=flip, find=find):
        typer.echo(f"{result['image']}: {out / Path(result['image']).stem}-joints.json and -joints.png")


@app.command("ledger")
def show_ledger(
    json: Annotated[bool, typer.Option("--json", help="one JSON object a row")] = False,
    stale: Annotated[bool, typer.Option("--stale", help="only records whose code has changed since")] = False,
    row: Annotated[str | None, typer.Option(help="one row, or all of a paper, with the claims")] = None,
) -> None:
    """Every table and figure of the five papers with its verdict."""
    ledger.show(json=json, stale=stale, row=row)


@app.command()
def rerun(
    profile: ProfileOption = "smoke",
    chapter: Annotated[str, typer.Option(help="a chapter's name, several with commas, or all")] = "all",
    out: Annotated[Path, typer.Option(help="folder for executed notebooks and logs")] = Path("_build/rerun"),
    seed: int = 0,
) -> None:
    """Execute chapters through papermill; training that finished before is not repeated."""
    chapters = reruns.available() if chapter == "all" else [c.strip() for c in chapter.split(",")]
    failed = [o for o in reruns.rerun(chapters, profile, out / profile, seed=seed) if o.failure]
    for outcome in failed:
        typer.echo(f"FAILED {outcome.chapter}: {outcome.failure}", err=True)
    raise typer.Exit(1 if failed else 0)


def main() -> None:
    """The command line, with mistakes of use told in one line instead of a traceback."""
    try:
        app()
    except (ValueError, OSError, ArithmeticError) as error:
        typer.echo(f"coordreg: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
