"""Imports run one way: the floors of the architecture, drawn from the source by syntax tree and asserted.

A new file must be given its floor here, by its name or its folder's.
"""

import ast
import re
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import coordreg

ROOT = Path(coordreg.__file__).parent

#: The chapters' modules in the order of the book: each may import those before it, none after it.
CHAPTERS = (
    "heatmap",
    "messages",
    "mrf",
    "windows",
    "cascade",
    "expectation",
    "dsnt",
    "stn",
    "integral",
    "dark",
    "flow",
    "rle",
    "attention",
    "queries",
    "poseur",
    "endtoend",
)
#: From the ground up. A module may import from lower floors and, without a circle, from its own.
FLOORS: list[tuple[str, ...]] = [
    ("coords", "spec"),
    ("method", "ensemble", "backbones", "data", "metrics", "plots"),
    ("baseline", *CHAPTERS),
    ("train", "fingerprint", "rewritten", "provenance"),
    ("records", "running"),
    ("experiments",),
    ("papers", "verdicts", "ledger", "rerun", "predict"),
    ("__main__",),
]

#: What comes with a dependency: cycler with matplotlib.
BROUGHT = {"cycler"}

Graph = dict[str, set[str]]


def name_of(path: Path) -> str:
    """ "data.store" for coordreg/data/store.py, "data" for coordreg/data/__init__.py, "" for the package itself."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def draw() -> Graph:
    """Which of our modules each of our modules imports, at the top or inside a function."""
    files = {name_of(path): path for path in ROOT.rglob("*.py")}
    graph: Graph = {}
    for name, path in files.items():
        edges: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                edges |= {a.name.partition(".")[2] for a in node.names if a.name.split(".")[0] == "coordreg"}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "coordreg":
                source = (node.module or "").partition(".")[2]
                for alias in node.names:
                    inner = f"{source}.{alias.name}".lstrip(".")
                    edges.add(inner if inner in files else source)
        graph[name] = edges - {name, ""}
    return graph


def floor(module: str) -> int | None:
    """The floor of a module, that of its first folder; None if nobody gave it one."""
    if module == "":
        return 0
    return next((i for i, names in enumerate(FLOORS) if module.split(".")[0] in names), None)


def violations(graph: Graph) -> list[str]:
    """What is wrong with a graph, in words."""
    found = [
        f"coordreg/{module.replace('.', '/')}.py has no floor: add it to FLOORS in tests/test_imports.py, "
        "as low as what it imports allows"
        for module in sorted(graph)
        if floor(module) is None
    ]
    for module, edges in sorted(graph.items()):
        for other in sorted(edges):
            here, there = floor(module), floor(other)
            if here is None or there is None:
                continue
            if there > here:
                found.append(f"{module} (floor {here}) imports {other} (floor {there}), which is above it")
            if here == there == 0:
                found.append(f"{module} imports {other}, but the ground floor imports nothing of ours")
            if module in CHAPTERS and other in CHAPTERS and CHAPTERS.index(other) > CHAPTERS.index(module):
                found.append(f"chapter {module} imports {other}, a later chapter")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append(f"imports run in a circle: {' <- '.join(error.args[1])}")
    return found


def test_imports_run_one_way() -> None:
    assert violations(draw()) == []


def test_the_graph_is_drawn_from_the_source() -> None:
    """Edges that must be there, so that an empty graph cannot pass."""
    graph = draw()
    assert {"coords", "method"} <= graph["heatmap"]
    assert "method" in graph["backbones.resnet"]
    assert {"coords", "data.store", "method"} <= graph["train"]
    assert graph["coords"] == graph["spec"] == set()
    assert {name for name in graph if floor(name) == 5} >= {"experiments.heatmap"}


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ({"heatmap": {"train"}}, r"heatmap (floor 2) imports train (floor 3), which is above it"),
        ({"data.store": {"heatmap"}}, "data.store (floor 1) imports heatmap (floor 2), which is above it"),
        ({"coords": {"spec"}}, "coords imports spec, but the ground floor imports nothing of ours"),
        ({"heatmap": {"dark"}}, "chapter heatmap imports dark, a later chapter"),
        ({"data.a": {"data.b"}, "data.b": {"data.a"}}, "imports run in a circle: data"),
        ({"novelty": set()}, "coordreg/novelty.py has no floor: add it to FLOORS"),
        ({"records": {"experiments.heatmap"}}, "records (floor 4) imports experiments.heatmap (floor 5)"),
    ],
)
def test_each_kind_of_violation_is_seen(edges: Graph, message: str) -> None:
    found = violations(edges)
    assert len(found) == 1
    assert found[0].startswith(message)


def test_a_permitted_graph_passes() -> None:
    assert (
        violations({"dark": {"heatmap", "coords", "data.store"}, "train": {"dark"}, "data.lsp": {"data.store"}}) == []
    )


def test_a_plain_install_can_import_everything() -> None:
    """What stands at the top of a file is a dependency proper; what an extra brings is imported inside a function."""
    lines = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]["dependencies"]
    declared = {re.split(r"[^A-Za-z0-9_-]", line)[0].replace("-", "_") for line in lines}
    allowed = {{"pillow": "PIL"}.get(name, name) for name in declared} | BROUGHT | set(sys.stdlib_module_names)
    for path in ROOT.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            foreign = {m.split(".")[0] for m in modules} - allowed - {"coordreg"}
            assert not foreign, f"{path.name} imports {foreign} at its top, which pyproject.toml does not require"
