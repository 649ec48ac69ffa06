"""Descriptions of objects that can be printed, hashed, stored and rebuilt.

A `Spec` is a class of ours with its arguments: `spec(ResNet, depth=18, width=16)` describes a network without making
one, so that a list of a hundred runs costs nothing, and the weights drawn at `build()` depend on the seed alone.
Targets, losses and decoders are frozen dataclasses and describe themselves.
"""

import dataclasses
import hashlib
import importlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

#: Where functions lie that a stored description may name; classes may be anywhere in coordreg.
MAKERS = ("coordreg.backbones.", "coordreg.stn")


@dataclass(frozen=True)
class Spec:
    """A class (or function) of coordreg and keyword arguments; arguments may be specs themselves."""

    make: Callable[..., Any]
    kwargs: tuple[tuple[str, Any], ...]

    def build(self) -> Any:
        """Make the object, its arguments first."""
        return self.make(**{name: _build(value) for name, value in self.kwargs})

    def replace(self, **changes: Any) -> "Spec":
        """The same description with some arguments changed."""
        return Spec(self.make, tuple(sorted({**dict(self.kwargs), **changes}.items())))

    def __getitem__(self, name: str) -> Any:
        return dict(self.kwargs)[name]

    def __repr__(self) -> str:
        return f"{self.make.__name__}({', '.join(f'{k}={v!r}' for k, v in self.kwargs)})"


def spec(make: Callable[..., Any], /, **kwargs: Any) -> Spec:
    """Describe `make(**kwargs)` without calling it."""
    return Spec(make, tuple(sorted(kwargs.items())))


def _build(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.build()
    if isinstance(value, tuple):
        return tuple(_build(v) for v in value)
    return value


#: What is written down as it is.
PLAIN = frozenset({int, str, bool, type(None)})


@cache
def _fields(make: type) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(make))


def describe(value: Any) -> Any:
    """A description as plain JSON data. Raises ValueError for a value that could not be rebuilt from it."""
    if type(value) in PLAIN:  # most are numbers
        return value
    if isinstance(value, (tuple, list)):
        return list(value) if PLAIN.issuperset(map(type, value)) else [describe(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"describe: {value} has no place in a configuration; give a finite number or None")
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Spec):
        return {"make": _name(value.make), **{k: describe(v) for k, v in value.kwargs}}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"make": _name(type(value)), **{name: describe(getattr(value, name)) for name in _fields(type(value))}}
    if isinstance(value, dict):
        return {str(k): describe(v) for k, v in value.items()}
    raise ValueError(
        f"describe: cannot write down a {type(value).__name__} ({value!r}); use numbers, strings, tuples, "
        "frozen dataclasses or spec(...)"
    )


def rebuild(description: Any) -> Any:
    """The inverse of `describe`, up to calling `build`: nested specs and dataclasses come back as values.

    Only names inside coordreg are looked up, so that a foreign file cannot have other code called.
    """
    if isinstance(description, list):
        return tuple(rebuild(v) for v in description)
    if not isinstance(description, dict):
        return description
    if "make" not in description:
        return {k: rebuild(v) for k, v in description.items()}
    name = description["make"]
    module, _, attribute = str(name).rpartition(".")
    if not (module == "coordreg" or module.startswith("coordreg.")):
        raise ValueError(f"rebuild: {name!r} is not a name inside coordreg; this description comes from elsewhere")
    try:
        make = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"rebuild: this version of coordreg has no {name!r} ({error})") from error
    if not callable(make) or not str(getattr(make, "__module__", "")).startswith("coordreg."):
        raise ValueError(f"rebuild: {name!r} is nothing that coordreg defines; this description comes from elsewhere")
    if not isinstance(make, type) and not make.__module__.startswith(MAKERS):
        raise ValueError(f"rebuild: {name!r} makes no part of a network; this description comes from elsewhere")
    kwargs = {k: rebuild(v) for k, v in description.items() if k != "make"}
    if isinstance(make, type) and dataclasses.is_dataclass(make):
        try:
            return make(**kwargs)
        except TypeError as error:
            raise ValueError(f"rebuild: this version's {name} does not take these arguments ({error})") from error
    return spec(make, **kwargs)


def _name(make: Callable[..., Any]) -> str:
    name = f"{make.__module__}.{make.__qualname__}"
    if not name.startswith("coordreg."):
        raise ValueError(f"describe: {name} lies outside coordreg, so that it could not be rebuilt; wrap it in ours")
    return name


def digest(description: Any, length: int = 16) -> str:
    """A short, stable hash of plain JSON data."""
    text = json.dumps(description, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]
