"""How speed is measured: interleaved repeats, the minimum of each, ratios; and the table.

A busy neighbour doubles a median and hardly moves a minimum, and what slows one rival slows the other a moment later.
"""

import gc
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

COLUMNS = ("operation", "against", "ratio", "must", "aim", "verdict")


@dataclass(frozen=True)
class Row:
    """One measured line of the table.

    ratio: how many times faster ours is. must, aim: the targets, or None. correct: did both give the same result?
    ours, theirs: the minimum of the repeats in seconds. gate: does a missed `must` fail the whole?
    note: printed below the table.
    """

    operation: str
    against: str
    ratio: float
    must: float | None
    aim: float | None
    ours: float
    theirs: float
    correct: bool
    gate: bool = True
    note: str = ""

    @property
    def verdict(self) -> str:
        """wrong, missed, must, aim (the better target that is met), or told (nothing is asked)."""
        if not self.correct:
            return "wrong"
        if self.must is None:
            return "told"
        if self.ratio < self.must:
            return "missed" if self.gate else "below"
        return "aim" if self.aim is not None and self.ratio >= self.aim else "must"

    @property
    def failed(self) -> bool:
        """Should the command end with an error?"""
        return self.verdict in ("wrong", "missed")

    def json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "verdict": self.verdict}


def interleave(functions: list[Callable[[], object]], repeats: int, warm: int = 2, most: int = 16) -> list[float]:
    """The least time of each function, in seconds, over `repeats` rounds in which each has a turn.

    A turn is several calls in a row for the quicker functions, at most `most`: turns then last about equally long, and
    each finds its own data in the cache, not its rival's.
    """
    if repeats < 1:
        raise ValueError(f"interleave: got repeats={repeats}, expected at least 1")

    def seconds(function: Callable[[], object]) -> float:
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    first = [min(seconds(function) for _ in range(max(1, warm))) for function in functions]
    calls = [min(most, max(1, round(max(first) / one))) for one in first]
    best = [float("inf")] * len(functions)
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(repeats):
            for i, function in enumerate(functions):
                best[i] = min([best[i], *(seconds(function) for _ in range(calls[i]))])
    finally:
        if collecting:
            gc.enable()
    return best


def table(rows: list[Row]) -> str:
    """The rows as text, columns aligned."""

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.2f}x" if value < 10 else f"{value:.1f}x"

    lines = [COLUMNS] + [
        (row.operation, row.against, number(row.ratio), number(row.must), number(row.aim), row.verdict) for row in rows
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    numeric = (2, 3, 4)
    text = [
        "  ".join(c.rjust(w) if i in numeric else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    ]
    text.insert(1, "  ".join("-" * w for w in widths))
    text += [f"{row.operation}: {row.note}" for row in rows if row.note]
    return "\n".join(line.rstrip() for line in text)
