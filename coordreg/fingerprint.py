"""Which of our code did a run use? Hashes of syntax trees, definition by definition.

Starting from the objects a configuration names, follow every name they mention through coordreg's own files. Comments,
docstrings and formatting do not count; a change of a definition that a run never reaches does not count either.
"""

import ast
import hashlib
import inspect
from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from coordreg.rewritten import REWRITTEN
from coordreg.spec import Spec

PACKAGE = "coordreg"


@cache
def _module(name: str) -> dict[str, ast.stmt]:
    """Top-level definitions of one of our modules by the name they bind; imports bind names too."""
    root = Path(__file__).parent.parent
    path = root / Path(*name.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found: dict[str, ast.stmt] = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                for leaf in ast.walk(target):
                    if isinstance(leaf, ast.Name):
                        found[leaf.id] = node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                found[(alias.asname or alias.name).split(".")[0]] = node
    return found


_DEFINITIONS = ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef


def _dump(node: Any) -> str:
    """A syntax tree as text, without docstrings; the same in every Python (ast.dump lists fields that 3.12 added)."""
    if isinstance(node, list):
        return f"[{','.join(map(_dump, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = []
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(node, _DEFINITIONS):
            value = [s for s in value if not _is_text(s)]
        if value is not None and value != []:
            fields.append(f"{name}={_dump(value)}")
    return f"{type(node).__name__}({','.join(fields)})"


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@cache
def _is_module(name: str) -> bool:
    path = Path(__file__).parent.parent / Path(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def _edges(module: str, node: ast.stmt) -> Iterable[tuple[str, str]]:
    """(module, definition) pairs of ours that a definition mentions."""
    names = _module(module)
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and part.id in names:
            target = names[part.id]
            if isinstance(target, ast.ImportFrom):
                source = target.module or ""
                if source.split(".")[0] == PACKAGE:
                    original = next(a.name for a in target.names if (a.asname or a.name) == part.id)
                    if not _is_module(f"{source}.{original}"):
                        yield source, original
            elif not isinstance(target, ast.Import):
                yield module, part.id
        elif isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id in names:
            target = names[part.value.id]
            if isinstance(target, ast.ImportFrom) and (target.module or "").split(".")[0] == PACKAGE:
                original = next(a.name for a in target.names if (a.asname or a.name) == part.value.id)
                if _is_module(f"{target.module}.{original}"):
                    yield f"{target.module}.{original}", part.attr
        elif isinstance(part, ast.ImportFrom) and (part.module or "").split(".")[0] == PACKAGE:  # inside a function
            yield from ((part.module or "", alias.name) for alias in part.names)


@cache
def _definition(module: str, name: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Hash of a definition, and what it mentions."""
    node = _module(module)[name]
    return hashlib.sha256(_dump(node).encode()).hexdigest()[:8], tuple(dict.fromkeys(_edges(module, node)))


def roots(value: Any) -> set[tuple[str, str]]:
    """The classes and functions of ours that a configuration names."""
    try:
        return set(_roots(value))
    except TypeError:  # a list or a dict in it: nothing to look it up by
        return _roots.__wrapped__(value)


@lru_cache(maxsize=4096)
def _roots(value: Any) -> set[tuple[str, str]]:
    """Values that are equal, as 1 and 1.0 are, name the same ones."""
    found: set[tuple[str, str]] = set()
    if isinstance(value, Spec):
        found |= roots(value.make)
        for _, argument in value.kwargs:
            found |= roots(argument)
    elif isinstance(value, type) or inspect.isfunction(value):
        if value.__module__.split(".")[0] == PACKAGE:
            found.add((value.__module__, value.__qualname__.split(".")[0]))
    elif hasattr(value, "__dataclass_fields__"):
        found |= roots(type(value))
        for name in value.__dataclass_fields__:
            found |= roots(getattr(value, name))
    elif isinstance(value, tuple | list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            found |= roots(item)
    return found


def fingerprint(*values: Any) -> dict[str, str]:
    """Hash by definition ("coordreg.heatmap.Gaussian") of everything that the values reach."""
    return dict(_reached(frozenset().union(*(roots(v) for v in values))))


@cache
def _reached(start: frozenset[tuple[str, str]]) -> dict[str, str]:
    """The fingerprint of what these definitions reach."""
    queue, seen = sorted(start), dict[tuple[str, str], str]()
    while queue:
        module, name = queue.pop()
        if (module, name) in seen or not _is_module(module):
            continue
        node = _module(module).get(name)
        if node is None:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:  # re-exported
            queue.append((node.module or "", next(a.name for a in node.names if (a.asname or a.name) == name)))
            continue
        seen[module, name], edges = _definition(module, name)
        queue.extend(edges)
    return {f"{module}.{name}": value for (module, name), value in sorted(seen.items())}


def _as_rewritten(recorded: dict[str, str], now: dict[str, str]) -> dict[str, str]:
    """The recorded hashes, with the present one where a definition was rewritten and gives the same results."""
    read = dict(recorded)
    for form in REWRITTEN:
        before, after = {form.name: form.earlier, **dict(form.gone)}, {form.name: form.present, **dict(form.came)}
        if before.items() <= recorded.items() and after.items() <= now.items():
            for name, _ in form.gone:
                if name not in now:  # where something else still reaches it, it is compared like any other
                    read.pop(name, None)
            read = {**after, **read, form.name: form.present}
    return read


def changed(recorded: dict[str, str], *values: Any, timed: bool = False) -> list[str]:
    """Definitions whose code differs from the recorded one, or that came or went; empty if nothing did.

    A form that `coordreg.rewritten` lists as giving the same results does not differ from the present one, unless it
    was `timed`: what a measurement of time says of one form does not hold for another.
    """
    now = fingerprint(*values)
    if now == recorded:
        return []
    read = recorded if timed else _as_rewritten(recorded, now)
    return sorted(k for k in read.keys() | now.keys() if read.get(k) != now.get(k))
