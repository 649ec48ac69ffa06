"""Chapters through papermill: text -> notebook -> executed notebook, with logs, resume and the failing cell by name."""

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any

import torch

from coordreg.records import check_profile

#: The chapters in the order of the book; those without a text yet are skipped by "all".
CHAPTERS = ("pixels", "heatmap", "cascade", "dsnt", "integral", "dark", "poseur")
PARAMETERS = {"profile", "seed", "device"}


@dataclass(frozen=True)
class Outcome:
    """One chapter's run: the executed notebook, seconds, and what failed ("" if nothing did)."""

    chapter: str
    notebook: Path
    seconds: float
    failure: str


def notebooks_folder() -> Path:
    """The folder of the chapters' texts: beside the library, else under the working folder."""
    beside = Path(__file__).parent.parent / "notebooks"
    return beside if beside.is_dir() else Path("notebooks")


def available() -> list[str]:
    """Chapters that have a text."""
    return [c for c in CHAPTERS if (notebooks_folder() / f"{c}.md").exists()]


def _check(chapter: str) -> None:
    if chapter not in available():
        raise ValueError(f"chapter: got {chapter!r}, expected one of {', '.join(available())}, or all")


def convert(chapter: str, out: Path) -> Path:
    """The chapter's text as a notebook file. ValueError if its parameters cell is missing or names other parameters."""
    import jupytext
    import nbformat

    _check(chapter)
    notebook = jupytext.read(notebooks_folder() / f"{chapter}.md")
    cells = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    names = {line.split("=")[0].split(":")[0].strip() for c in cells for line in c.source.splitlines() if "=" in line}
    if names != PARAMETERS:
        raise ValueError(
            f"{chapter}.md: its cell tagged `parameters` sets {sorted(names)}, expected {sorted(PARAMETERS)}; "
            "papermill would ignore the difference in silence"
        )
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{chapter}.ipynb"
    nbformat.write(notebook, path)
    return path


def failing_cell(path: Path) -> str:
    """The number, first line and error of the cell that failed in an executed notebook; "" if none did."""
    import nbformat

    if not path.exists():
        return "papermill wrote no notebook"
    notebook: Any = nbformat.read(path, as_version=4)
    for i, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output.get("output_type") == "error":
                first = next((line for line in cell.source.splitlines() if line.strip()), "")
                return f"cell {i} ({first.strip()[:70]}): {output['ename']}: {output['evalue'][:300]}"
    return ""


def run_chapter(chapter: str, profile: str, out: Path, *, seed: int = 0, device: str = "cpu", gpu: str = "") -> Outcome:
    """Execute one chapter. Training that finished in an earlier attempt is read from its records, the rest resumes."""
    source = convert(chapter, out / "text")
    target, log = out / f"{chapter}.ipynb", out / f"{chapter}.log"
    command = [sys.executable, "-m", "papermill", str(source), str(target)]
    command += ["-k", "python3", "--cwd", str(source.parent)]
    command += ["--no-progress-bar", "--log-output", "--autosave-cell-every", "30"]
    command += ["-p", "profile", profile, "-p", "device", device, "-p", "seed", str(seed)]
    here = str(Path(__file__).parent.parent)
    path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "COORDREG_DEVICE": device, "JUPYTER_PREFER_ENV_PATH": "1"}
    if "COORDREG_LSP" not in environment and Path("data/lsp.npz").is_file():  # the kernel works in another folder
        environment["COORDREG_LSP"] = str(Path("data/lsp.npz").resolve())
    target.unlink(missing_ok=True)
    if gpu:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    start, progress = time.perf_counter(), out / f"{chapter}.progress"
    progress.write_text("")
    environment["COORDREG_PROGRESS"] = str(progress.resolve())
    with open(log, "w") as written, open(progress) as lines:
        done = subprocess.Popen(command, env=environment, stdout=written, stderr=subprocess.STDOUT)
        while done.poll() is None:
            time.sleep(0.2)
            _pass_on(chapter, lines)
        _pass_on(chapter, lines)
    failure = failing_cell(target)
    if done.returncode != 0 and not failure:
        tail = log.read_text().strip().splitlines()[-1:] or ["no output"]
        failure = f"papermill ended with code {done.returncode}: {tail[0][:300]}"
    return Outcome(chapter, target, time.perf_counter() - start, failure)


def _pass_on(chapter: str, lines: Iterable[str]) -> None:
    for line in lines:
        print(f"{chapter}: {line}", end="", flush=True)


def rerun(chapters: Sequence[str], profile: str, out: Path, *, seed: int = 0) -> list[Outcome]:
    """Execute chapters, one at a time on each GPU, or one after the other on the CPU; prints a line as each ends."""
    check_profile(profile)
    for chapter in chapters:
        _check(chapter)
    gpus = [str(i) for i in range(torch.cuda.device_count())]
    free: Queue[str] = Queue()
    for gpu in gpus or [""]:
        free.put(gpu)

    def one(chapter: str) -> Outcome:
        gpu = free.get()
        try:
            print(f"{chapter}: running at the {profile} profile, log in {out / f'{chapter}.log'}", flush=True)
            outcome = run_chapter(chapter, profile, out, seed=seed, device="cuda" if gpus else "cpu", gpu=gpu)
        finally:
            free.put(gpu)
        state = f"failed in {outcome.failure}" if outcome.failure else f"done, {outcome.notebook}"
        print(f"{chapter}: {state} ({outcome.seconds:.0f} s)", flush=True)
        return outcome

    with ThreadPoolExecutor(max(1, len(gpus))) as pool:
        return list(pool.map(one, chapters))
