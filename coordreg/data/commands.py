"""`python -m coordreg data check|fetch|show|pack`: what is there, get it, look at it, make one file of crops."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image, ImageDraw

from coordreg.data import fetch as sources
from coordreg.data import lsp
from coordreg.data.skeletons import LSP14

data_app = typer.Typer(no_args_is_help=True, help="Data sets: check, fetch, show, pack.")

Root = Annotated[Path, typer.Option(help="The folder that contains a folder for each data set.")]
SkipCorrupt = Annotated[bool, typer.Option("--skip-corrupt", help="Leave damaged pictures out and count them.")]


@contextmanager
def _plainly() -> Iterator[None]:
    """A user's error as one message and exit code 1, without a traceback."""
    try:
        yield
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error


@data_app.command()
def check(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(sorted(sources.DATASETS))}.")],
    root: Root = Path("data"),
    verbose: Annotated[bool, typer.Option("--verbose", help="Name the absent images.")] = False,
) -> None:
    """Say what of a data set is there and what is missing; a partial copy is accepted."""
    with _plainly():
        report = sources.check(name, root)
    typer.echo(f"{report.name}: {report.state} in {report.folder}")
    for line in report.lines:
        typer.echo(f"  {line}")
    if verbose:
        for file in report.absent:
            typer.echo(f"  absent: {file}")
    elif report.absent and report.state == "partial":
        typer.echo("  --verbose names what is absent")
    if report.state == "missing":
        typer.echo(f"  home: {sources.dataset(name).home}")
        raise typer.Exit(1)


@data_app.command()
def fetch(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(sorted(sources.DATASETS))}.")],
    root: Root = Path("data"),
    part: Annotated[list[str] | None, typer.Option(help="Only this part; may be given several times.")] = None,
    archive: Annotated[
        Path | None, typer.Option(help="A zip or tar file fetched by hand, instead of a download.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Another address of the set's archive.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep downloaded archives after unpacking.")] = False,
) -> None:
    """Download what may be downloaded, check it and unpack it; say where to get the rest."""
    with _plainly():
        known = sources.dataset(name)
        typer.echo(f"{known.title}. Terms: {known.terms}.")
        base = root / name
        if name == "human36m":
            raise ValueError(f"data fetch only checks human36m. {known.manual}")
        anchor = known.expects[0][0] if "/" not in known.expects[0][0] else None
        if archive is not None:
            if not archive.is_file():
                raise ValueError(f"data fetch: there is no file {archive}")
            sources.verify(archive, sources.ARCHIVES.get(archive.name))
            typer.echo(f"unpacked {sources.extract(archive, base, anchor)} files into {base}")
        else:
            for remote in _chosen(known, part, url, anchor):
                target = base / "archives" / f"{remote.part}-{remote.url.rsplit('/', 1)[-1]}"
                sources.download(remote.url, target, remote.sha256, progress=sys.stderr.isatty())
                # A known mirror must hold the official labels; a copy of the user's own may be a partial one.
                md5 = None if url else known.labels_md5
                typer.echo(f"unpacked {sources.extract(target, base, remote.anchor, md5)} files into {base}")
                if not keep:
                    target.unlink()
            if not keep and (base / "archives").is_dir() and not any((base / "archives").iterdir()):
                (base / "archives").rmdir()
    check(name, root)


def _chosen(
    known: sources.DataSet, part: list[str] | None, url: str | None, anchor: str | None
) -> tuple[sources.Remote, ...]:
    """The archives to download. Raises ValueError with the page to turn to where none may be."""
    if url is not None:
        return (sources.Remote("given", url, anchor=anchor),)
    if not known.remotes:
        raise ValueError(f"{known.name} cannot be downloaded for you. {known.manual}")
    parts = [r.part for r in known.remotes]
    wrong = [p for p in part or [] if p not in parts]
    if wrong:
        raise ValueError(f"data fetch: got the part {wrong[0]!r} of {known.name}, expected some of {parts}")
    for remote in known.remotes:
        if remote.large and not part:
            size = f"{remote.size / 1e9:.0f} GB" if remote.size else "more than 10 GB"
            typer.echo(f"not fetched without being asked for: --part {remote.part} ({size}, {remote.url})")
    return tuple(r for r in known.remotes if (r.part in part if part else not r.large))


@data_app.command()
def pack(
    names: Annotated[list[str], typer.Argument(help="lsp, lspet or both.")],
    root: Root = Path("data"),
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("data/lsp.npz"),
    size: Annotated[int, typer.Option(help="Pixels a side of a crop; boxes get three fifths of it.")] = 160,
    skip_corrupt: SkipCorrupt = False,
) -> None:
    """Write crops and labels into one file that experiments read, also on a machine without a network."""
    with _plainly():
        header = lsp.pack(root, out, names, size, skip_corrupt, progress=sys.stderr.isatty())
    for name, count in header["sets"].items():
        corrupt = f", {len(count['corrupt'])} corrupt skipped: {' '.join(count['corrupt'])}" if count["corrupt"] else ""
        typer.echo(
            f"{name}: {count['packed']} packed, {count['absent']} images absent, "
            f"{count['unlabelled']} columns without labels{corrupt}"
        )
    typer.echo(f"{out}: {out.stat().st_size / 2**20:.1f} MiB, sha256 of the contents {header['sha256'][:16]}")


@data_app.command()
def show(
    name: Annotated[str, typer.Argument(help="lsp or lspet.")],
    out: Annotated[Path, typer.Option(help="The picture to write.")],
    root: Root = Path("data"),
    count: Annotated[int, typer.Option(help="How many people.")] = 24,
    seed: Annotated[int, typer.Option(help="Which people are drawn.")] = 0,
    size: Annotated[int, typer.Option(help="Pixels a side of each.")] = 200,
    skip_corrupt: SkipCorrupt = False,
) -> None:
    """Write a sheet of people with their labels, for your own eyes: the photographs may not be passed on."""
    with _plainly():
        if name not in lsp.DIGITS:
            sources.dataset(name)
            raise ValueError(f"data show: got {name!r}, expected one of {sorted(lsp.DIGITS)}; the others follow")
        if count < 1 or size < 16:
            raise ValueError(f"data show: got count={count}, size={size}, expected at least one person and 16 px")
        sheet, skipped = _sheet(lsp.read(root, name), count, seed, size, skip_corrupt)
        out.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(out)
    typer.echo(f"{out}: boxes and joints, left red, right blue, hollow where hidden" + skipped)


def _sheet(records: lsp.Records, count: int, seed: int, size: int, skip_corrupt: bool) -> tuple[Image.Image, str]:
    if not records.paths:
        raise ValueError("data show: no labelled image is there; run `data check` to see what is missing")
    order = np.random.default_rng(seed).permutation(len(records.paths))
    centre, side = lsp.boxes(records.joints, records.weight)
    tiles: list[Image.Image] = []
    corrupt: list[str] = []
    for i in order:
        if len(tiles) == count:
            break
        try:
            image = lsp.load_image(records.paths[i])
        except ValueError:
            if not skip_corrupt:
                raise
            corrupt.append(records.paths[i].name)
            continue
        tile = lsp.cut(image, centre[i], float(side[i]), size)
        # Index pixels -> tile pixels: both count from the first pixel's centre, hence the half steps.
        points = (records.joints[i] - centre[i] + side[i] / 2) * (size / side[i]) - 0.5
        _draw(tile, points, records.weight[i], records.visible[i])
        tiles.append(tile)
    if not tiles:
        raise ValueError(f"data show: all {len(corrupt)} pictures are damaged; fetch the set again")
    columns = min(len(tiles), 6)
    sheet = Image.new("RGB", (columns * size, -(-len(tiles) // columns) * size))
    for k, tile in enumerate(tiles):
        sheet.paste(tile, (k % columns * size, k // columns * size))
    return sheet, f"; {len(corrupt)} damaged skipped: {' '.join(corrupt)}" if corrupt else ""


def _draw(tile: Image.Image, points: np.ndarray, weight: np.ndarray, visible: np.ndarray) -> None:
    draw, radius = ImageDraw.Draw(tile), max(2.0, tile.width / 80)

    def colour(*joints: int) -> str:
        sides = {LSP14.joints[j][:2] for j in joints}
        return {"l_": "#e4572e", "r_": "#2e86e4"}.get(sides.pop(), "#f2c14e") if len(sides) == 1 else "#f2c14e"

    for a, b in LSP14.bones:
        if weight[a] > 0 and weight[b] > 0:
            draw.line([*points[a], *points[b]], fill=colour(a, b), width=max(1, round(radius / 1.5)))
    for j in np.flatnonzero(weight > 0):
        x, y = points[j]
        spot = [x - radius, y - radius, x + radius, y + radius]
        draw.ellipse(spot, fill=colour(int(j)) if visible[j] else None, outline=colour(int(j)), width=1)
