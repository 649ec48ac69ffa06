"""Every chapter, at the smoke profile: papermill runs it, then nbval runs it again from nothing and compares."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from coordreg.rerun import available, convert, failing_cell, run_chapter

ROOT = Path(__file__).parent.parent
CHAPTERS = available()


def _environment(folder: Path, package: Path = ROOT) -> dict[str, str]:
    """Empty stores for records and checkpoints, so that smoke training is really repeated."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("COORDREG_")}
    stores = {"COORDREG_RESULTS": str(folder / "results"), "COORDREG_RUNS": str(folder / "runs")}
    return {**kept, **stores, "PYTHONPATH": str(package), "COORDREG_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each chapter as papermill left it."""
    folder = tmp_path_factory.mktemp("papermill")
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _environment(folder).items():
            patch.setenv(name, value)
        for chapter in CHAPTERS:
            outcome = run_chapter(chapter, "smoke", folder / "out")
            assert not outcome.failure, outcome.failure
            found[chapter] = outcome.notebook
    return found


def _nbval(notebook: Path, folder: Path, package: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """nbval, strict, on an executed notebook, in its own folder and with empty stores."""
    shutil.copy(notebook, folder / notebook.name)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval", "--nbval-cell-timeout=240", "-q", "-p", "no:cacheprovider",
         "--nbval-current-env", str(folder / notebook.name), "--rootdir", str(folder), "-c", os.devnull],
        env=_environment(folder, package), capture_output=True, text=True, check=False, cwd=folder,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_nbval_repeats_papermill(chapter: str, executed: dict[str, Path], tmp_path: Path) -> None:
    done = _nbval(executed[chapter], tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout


@pytest.mark.slow
def test_nbval_sees_an_altered_output(executed: dict[str, Path], tmp_path: Path) -> None:
    notebook = nbformat.read(executed["heatmap"], as_version=4)
    cell = next(c for c in notebook.cells if c.cell_type == "code" and "quarter   " in c.source)
    cell.outputs[0]["text"] = cell.outputs[0]["text"].replace("2.25", "2.26")
    altered = tmp_path / "altered.ipynb"
    nbformat.write(notebook, altered)
    (tmp_path / "run").mkdir()
    done = _nbval(altered, tmp_path / "run")
    assert done.returncode == 1
    assert "2.26" in done.stdout


@pytest.mark.slow
def test_nbval_sees_an_altered_library(executed: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(ROOT / "coordreg", tmp_path / "package" / "coordreg")
    (tmp_path / "same").mkdir()
    same = _nbval(executed["heatmap"], tmp_path / "same", tmp_path / "package")
    assert same.returncode == 0, same.stdout[-3000:]
    source = tmp_path / "package" / "coordreg" / "heatmap.py"
    text = source.read_text()
    assert text.count("alpha=0.25") == 1
    source.write_text(text.replace("alpha=0.25", "alpha=0.30"))
    (tmp_path / "run").mkdir()
    done = _nbval(executed["heatmap"], tmp_path / "run", tmp_path / "package")
    assert done.returncode == 1
    assert "ImportError" not in done.stdout
    assert "quarter" in done.stdout


@pytest.mark.slow
def test_a_failing_cell_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = tmp_path / "notebooks"
    texts.mkdir()
    source = (ROOT / "notebooks" / "heatmap.md").read_text()
    head = source[: source.index("```{code-cell} ipython3\n:tags: [hide-input]")]
    (texts / "heatmap.md").write_text(head + '```{code-cell} ipython3\nx = 1\nraise KeyError("the wrist")\n```\n')
    monkeypatch.setattr("coordreg.rerun.notebooks_folder", lambda: texts)
    outcome = run_chapter("heatmap", "smoke", tmp_path / "out")
    assert "KeyError" in outcome.failure
    assert "the wrist" in outcome.failure
    assert "cell" in outcome.failure
    assert failing_cell(tmp_path / "nothing.ipynb") == "papermill wrote no notebook"


def test_parameters_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "heatmap.md").write_text(
        "---\njupytext:\n  text_representation:\n    extension: .md\n    format_name: myst\nkernelspec:\n"
        "  name: python3\n  display_name: Python 3\n---\n\n"
        "```{code-cell} ipython3\n:tags: [parameters]\nprofil = 1\n```\n"
    )
    monkeypatch.setattr("coordreg.rerun.notebooks_folder", lambda: tmp_path)
    with pytest.raises(ValueError, match=r"profil.*expected.*device.*profile.*seed"):
        convert("heatmap", tmp_path / "out")
    with pytest.raises(ValueError, match=r"'nose', expected one of heatmap"):
        convert("nose", tmp_path / "out")
