"""The repository around the code: three lists of packages in step, a Makefile as the README says, licences."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import coordreg

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: The only large file of the repository: MathJax, kept so that the book needs no network.
LARGE = {"book/_static/tex-svg-full.js"}
LIMIT = 1_500_000


def lock() -> dict[str, list[Requirement]]:
    """Name -> the pins of requirements.lock; a package may be pinned differently by Python version or platform."""
    pins: dict[str, list[Requirement]] = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if line.strip() and not line.lstrip().startswith(("#", "-")):
            pin = Requirement(line.split(" #")[0])
            pins.setdefault(canonicalize_name(pin.name), []).append(pin)
    return pins


def version_of(pin: Requirement) -> Version:
    """The one version a pin allows."""
    (specifier,) = pin.specifier
    assert specifier.operator == "=="
    return Version(specifier.version)


def wanted() -> list[Requirement]:
    """Everything pyproject.toml asks for, extras included."""
    extras = [r for group in PROJECT["optional-dependencies"].values() for r in group]
    return [Requirement(r) for r in [*PROJECT["dependencies"], *extras]]


def tracked() -> list[str]:
    """The files git tracks; skips outside a git checkout (a release archive)."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode or not done.stdout:
        pytest.skip("not a git checkout")
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).exists()]


def makefile_targets() -> set[str]:
    """The targets a person may ask for: those declared phony."""
    declared = re.findall(r"^\.PHONY:(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return {word for line in declared for word in line.split()} - {"FORCE"}


# -- packages ---------------------------------------------------------------------------------------------------------


def test_every_wanted_package_is_pinned_within_its_range() -> None:
    pins = lock()
    assert len(wanted()) > 25
    for requirement in wanted():
        found = pins.get(canonicalize_name(requirement.name))
        assert found, f"{requirement.name} is in pyproject.toml but not in requirements.lock"
        for pin in found:
            assert version_of(pin) in requirement.specifier, f"{pin} is outside {requirement}"


@pytest.mark.parametrize("python", ["3.11", "3.12"])
def test_the_lock_pins_each_package_once_for_a_given_python(python: str) -> None:
    here = {"python_version": python, "python_full_version": f"{python}.5", "sys_platform": "linux"}
    here |= {"platform_system": "Linux", "platform_machine": "x86_64", "implementation_name": "cpython"}
    for name, pins in lock().items():
        apply = [pin for pin in pins if pin.marker is None or pin.marker.evaluate(here)]
        assert len({version_of(pin) for pin in apply}) <= 1, f"{name} is pinned twice for Python {python}"
    for requirement in wanted():
        pins = lock()[canonicalize_name(requirement.name)]
        assert any(pin.marker is None or pin.marker.evaluate(here) for pin in pins), f"{requirement.name} is left out"


def test_torch_and_torchvision_are_the_matched_pair() -> None:
    pins = lock()
    assert [str(version_of(p)) for p in pins["torch"]] == ["2.11.0"]
    assert [str(version_of(p)) for p in pins["torchvision"]] == ["0.26.0"]


def test_conda_leads_to_the_same_set() -> None:
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in listed if isinstance(entry, dict)]
    assert pip == ["-r requirements.lock", "-e ."]
    (python,) = [entry for entry in listed if isinstance(entry, str) and entry.startswith("python ")]
    assert SpecifierSet(python.removeprefix("python ")) == SpecifierSet(PROJECT["requires-python"])
    for version, fits in {"3.10": False, "3.11": True, "3.12": True, "3.13": False}.items():
        assert (version in SpecifierSet(PROJECT["requires-python"])) is fits


def test_this_environment_is_one_we_support() -> None:
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in SpecifierSet(PROJECT["requires-python"])


# -- the version, everywhere ------------------------------------------------------------------------------------------


def test_one_version() -> None:
    version = PROJECT["version"]
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert config["sphinx"]["config"]["version"] == config["sphinx"]["config"]["release"] == version
    assert f"coordreg {version}" in config["html"]["extra_footer"]
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()
    assert getattr(coordreg, "__version__", version) == version


# -- make -------------------------------------------------------------------------------------------------------------


def test_make_help_lists_every_target_and_is_the_default() -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    outputs = [
        subprocess.run(["make", *words], cwd=ROOT, env=env, text=True, capture_output=True, check=True).stdout
        for words in ([], ["help"])
    ]
    assert outputs[0] == outputs[1]
    described = set(re.findall(r"^  make (\w+) +\S+", outputs[0], re.MULTILINE))
    assert described == makefile_targets()
    assert {"help", "book", "test", "notebooks", "rerun", "bench", "clean"} <= described


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "book/welcome.md", "book/reruns.md"])
def test_commands_named_in_documents_exist(document: str) -> None:
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", (ROOT / document).read_text(), re.MULTILINE))
    assert named
    assert named <= makefile_targets()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["rerun", "PROFILE=cpu", "CHAPTER=heatmap"], "-m coordreg rerun --profile cpu --chapter heatmap"),
        (["rerun"], "-m coordreg rerun --profile smoke --chapter all"),
        (["test"], "-m pytest -n 2 --dist loadfile"),
        (["bench"], "-m benchmarks"),
    ],
)
def test_a_given_interpreter_is_used_and_no_environment_built(arguments: list[str], expected: str) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--dry-run", *arguments, "PYTHON=/somewhere/python3"]
    said = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True, check=True).stdout
    assert f"/somewhere/python3 {expected}" in said
    assert "venv" not in said


def test_no_python_that_fits_is_said_clearly(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / name).write_text("")
    for name in ("python3.12", "python3.11", "python3"):  # shims that exist and fail
        (tmp_path / name).write_text("#!/bin/sh\nexit 127\n")
        (tmp_path / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "MAKEFLAGS": ""}
    words = ["make", "env", "CANDIDATES=python3.12 python3.11 python3 /nowhere/python3"]
    done = subprocess.run(words, cwd=tmp_path, env=env, text=True, capture_output=True)
    assert done.returncode != 0
    assert "no Python 3.11 or 3.12" in done.stderr
    assert "VENV_PYTHON=" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_ci_runs_the_tests() -> None:
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text()
    subprocess.run(["bash", "-n", script], check=True)


# -- the tree ---------------------------------------------------------------------------------------------------------


def test_no_notebook_output_and_nothing_large_is_tracked() -> None:
    files = tracked()
    assert "pyproject.toml" in files
    assert [name for name in files if name.endswith(".ipynb")] == []
    large = {name for name in files if (ROOT / name).stat().st_size > LIMIT}
    assert large <= LARGE


def test_licences() -> None:
    assert "BSD 3-Clause" in (ROOT / "LICENSE").read_text()
    text = (ROOT / "LICENSE-TEXT").read_text()
    assert "CC BY 4.0" in text
    assert "MathJax 3.2.2" in text
    mathjax = next(iter(LARGE))
    assert (ROOT / mathjax).stat().st_size > LIMIT
    assert "Apache License" in (ROOT / mathjax).with_suffix(".LICENSE.txt").read_text()


def test_the_pictures_of_the_readme_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    for link in re.findall(r"\]\(([^)]+)\)", readme):
        assert link.startswith("https://") or (ROOT / link).is_file(), f"README.md points to {link}, which is not there"
    cover = ROOT / "book/_static/cover.png"
    assert 10_000 < cover.stat().st_size < 300_000


def test_the_example_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    scope: dict[str, Any] = {}
    exec(example, scope)
    assert capsys.readouterr().out == "torch.Size([2, 16, 2])\n"
    assert scope["loss"].ndim == 0
    assert scope["points"].score.shape == (2, 16)
