"""Every table and figure of the papers as declared runs: one file a chapter, one function an experiment.

An experiment `chapter-name` is the function `name` in `experiments/chapter.py`; it takes a profile and returns runs.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from functools import cache

from coordreg.records import Run, check_profile

Experiment = Callable[[str], list[Run]]


def names() -> dict[str, Experiment]:
    """All experiments by name, such as "heatmap-resolution"."""
    return dict(_names())


@cache
def _names() -> dict[str, Experiment]:
    found: dict[str, Experiment] = {}
    for module in pkgutil.iter_modules(__path__):
        loaded = importlib.import_module(f"{__name__}.{module.name}")
        for name, value in vars(loaded).items():
            own = inspect.isfunction(value) and value.__module__ == loaded.__name__ and not name.startswith("_")
            if own and inspect.get_annotations(value) == {"profile": str, "return": list[Run]}:
                found[f"{module.name}-{name.replace('_', '-')}"] = value
    return found


def runs(name: str, profile: str) -> list[Run]:
    """The runs of one experiment. ValueError for an unknown experiment or profile lists what there is."""
    check_profile(profile)
    found = names()
    if name not in found:
        raise ValueError(f"experiment: got {name!r}, expected one of {', '.join(sorted(found))}")
    return found[name](profile)
