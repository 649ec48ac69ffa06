"""Fingerprints of code: comments and docstrings do not count, reached definitions do, others do not.

The tests edit a copy of the package on disk and have the fingerprint read that.
"""

import ast
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import coordreg
from coordreg import fingerprint as code
from coordreg.backbones.resnet import DeconvHead, ResNet
from coordreg.heatmap import MSE, Argmax, Disk, Gaussian, Heatmap, OneHot, QuarterSign
from coordreg.method import Estimator
from coordreg.spec import spec

RUN = spec(
    Estimator,
    backbone=spec(ResNet, depth=10, width=4),
    head=spec(DeconvHead, channels=32, joints=3),
    method=spec(Heatmap, target=Gaussian(), loss=MSE(), decoder=Argmax()),
)
Edit = Callable[[str, str, str], None]


def forget() -> None:
    """Files are read once; have them read again."""
    for cached in (code._module, code._is_module, code._definition, code._reached):
        function: Any = cached
        while not hasattr(function, "cache_clear"):
            function = function.__wrapped__
        function.cache_clear()


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package that the fingerprint reads instead of the real one."""
    root = tmp_path / "coordreg"
    shutil.copytree(Path(coordreg.__file__).parent, root, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "__file__", str(root / "fingerprint.py"))
    forget()
    yield root
    forget()


@pytest.fixture
def edit(copy: Path) -> Edit:
    """Replace one piece of text in one file of the copy."""

    def change(file: str, old: str, new: str) -> None:
        text = (copy / file).read_text()
        assert text.count(old) == 1, f"{file} has {old!r} {text.count(old)} times; the test needs another piece"
        (copy / file).write_text(text.replace(old, new))
        forget()

    return change


def test_the_copy_has_the_fingerprint_of_the_original(copy: Path) -> None:
    here = code.fingerprint(RUN)
    assert code.changed(here, RUN) == []
    assert len(here) > 10
    assert {len(value) for value in here.values()} == {8}


def test_everything_a_run_reaches_is_listed() -> None:
    """Named by the run; called by what it names; a constant; a base class; over a chain of files."""
    found = code.fingerprint(RUN)
    for name in (
        "heatmap.Gaussian",
        "heatmap.labelled",
        "heatmap.peak",
        "heatmap.ROUNDING",
        "heatmap._half_up",
        "coords.to_pixels",
        "coords.CENTRE",
        "coords.Convention",
        "method.Method",
        "method.Maps",
        "method.MEAN",
        "backbones.resnet.DEPTHS",
        "backbones.resnet._small_normal",
    ):
        assert f"coordreg.{name}" in found, name
    assert not any(name.startswith("torch") for name in found)
    for name in ("heatmap.OneHot", "heatmap.QuarterSign", "coords.crop", "backbones.resnet.ConvHead", "train.fit"):
        assert f"coordreg.{name}" not in found, name
    assert "coordreg.heatmap.QuarterSign" in code.fingerprint(RUN, QuarterSign())


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("heatmap.py", "# -- losses ---", "# another comment\n# -- losses ---"),
        ("heatmap.py", "class MSE:", "class  MSE :"),
        ("heatmap.py", "Mean squared error over the cells", "The squared error, averaged over the cells"),
        ("heatmap.py", "What the map means at test time: itself.", "Itself."),
        ("heatmap.py", "ROUNDING: dict[str,", "ROUNDING: dict[ str,"),
        ("coords.py", '"""Where is a pixel?', '"""Where, then, is a pixel?'),
        ("backbones/resnet.py", "class DeconvHead(nn.Module):\n", "class DeconvHead(\n    nn.Module,\n):\n    # why\n"),
    ],
)
def test_comments_docstrings_and_formatting_do_not_count(file: str, old: str, new: str, edit: Edit) -> None:
    before = code.fingerprint(RUN)
    edit(file, old, new)
    assert code.changed(before, RUN) == []


def test_a_docstring_that_is_added_or_removed_does_not_count(copy: Path) -> None:
    before = code.fingerprint(RUN)
    for path in copy.rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef) and len(node.body) > 1:
                first = node.body[0]
                if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                    del node.body[0]
        path.write_text(ast.unparse(tree))  # no docstrings, no comments, another layout
    forget()
    assert code.changed(before, RUN) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "name"),
    [
        ("heatmap.py", "(-0.5 / self.sigma**2)", "(-0.6 / self.sigma**2)", "heatmap.Gaussian"),
        ("heatmap.py", "return torch.floor(x + 0.5)", "return torch.ceil(x - 0.5)", "heatmap._half_up"),
        ("coords.py", 'Convention("centre", 1.0, 0)', 'Convention("centre", 0.9, 0)', "coords.CENTRE"),
        ("backbones/resnet.py", "std=0.001", "std=0.002", "backbones.resnet._small_normal"),
        ("method.py", "(0.485, 0.456, 0.406)", "(0.5, 0.5, 0.5)", "method.MEAN"),
    ],
)
def test_a_change_of_a_reached_definition_counts_and_is_named(
    file: str, old: str, new: str, name: str, edit: Edit
) -> None:
    before = code.fingerprint(RUN)
    edit(file, old, new)
    assert f"coordreg.{name}" in code.changed(before, RUN)
    assert len(code.changed(before, RUN)) <= 2  # and no more than what shares its statement


def test_a_change_elsewhere_does_not_count(edit: Edit) -> None:
    before, one_hot, disk = code.fingerprint(RUN), code.fingerprint(OneHot()), code.fingerprint(Disk())
    edit("heatmap.py", "between 0 and 1", "from 0 to 1")  # Disk's message
    edit("train.py", "grad_norm_(model.parameters()", "grad_norm_(estimator.parameters()")
    assert code.changed(before, RUN) == []
    assert code.changed(one_hot, OneHot()) == []
    assert code.changed(disk, Disk()) == ["coordreg.heatmap.Disk"]


def test_definitions_that_come_or_go_count(edit: Edit) -> None:
    before = code.fingerprint(RUN)
    edit("heatmap.py", "def _cell(", "def _extra() -> int:\n    return 1\n\n\ndef _cell(")
    assert code.changed(before, RUN) == []  # nobody calls it yet
    edit("heatmap.py", "    return torch.floor(x + 0.5)", "    return torch.floor(x + 0.5 * _extra())")
    assert code.changed(before, RUN) == ["coordreg.heatmap._extra", "coordreg.heatmap._half_up"]


def test_modules_and_imports_inside_functions_are_followed(edit: Edit) -> None:
    """`from coordreg import coords` at the top, or an import inside a function: the definition behind it counts."""
    edit("heatmap.py", "\nclass Target(", "\nfrom coordreg import coords as co\n\nclass Target(")
    edit("heatmap.py", "    return torch.floor(x + 0.5)", "    return co.flip_images(torch.floor(x + 0.5))")
    assert "coordreg.coords.flip_images" in code.fingerprint(Gaussian())
    edit("heatmap.py", "    return co.flip_images(", "    from coordreg.coords import crop\n    return crop(")
    assert "coordreg.coords.crop" in code.fingerprint(Gaussian())


def test_values_inside_tuples_lists_and_tables_are_found() -> None:
    for value in ((Disk(),), [Disk()], {"a": Disk()}, spec(Heatmap, target=Disk())):
        assert "coordreg.heatmap.Disk" in code.fingerprint(value)
    assert code.fingerprint(1.5, "text", None) == {}


def test_nothing_of_ours_is_imported_in_a_way_that_the_fingerprint_cannot_follow() -> None:
    """`import coordreg.x`, `from . import x` and `from coordreg.x import *` would hide code from it."""
    for path in Path(coordreg.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not any(a.name.split(".")[0] == "coordreg" and "." in a.name for a in node.names), path
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: a relative import"
                assert not any(a.name == "*" for a in node.names), f"{path}: import *"
