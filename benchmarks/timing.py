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
class Sizes:
    """How large and how often: the defaults are those of the published networks at 256 x 192, and of volumes."""

    batch: int = 32
    joints: int = 17
    height: int = 64
    width: int = 48
    repeats: int = 15
    images: int = 256
    steps: int = 6
    side: int = 64
    channels: int = 16
    volumes: int = 8
    volume: tuple[int, int, int] = (64, 64, 64)
    pictures: int = 5000
    people: int = 10000

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the maps."""
        return self.height, self.width


class MissingError(Exception):
    """Raised by a row that cannot be measured here; says what is missing."""


@dataclass(frozen=True)
class Row:
    """One measured line of the table.

    ratio: how many times faster ours is, or how much smaller. must, aim: the targets, or None. correct: did both give
    the same result? ours, theirs: the minimum of the repeats in seconds; bytes or errors where the row is about those.
    gate: does a missed `must` fail the whole? note: printed below the table. limit: `ratio` is what ours costs (times
    as long as the other, or an error as it is), and must and aim are its upper limits. unit: "x", or "" of an error.
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
    limit: bool = False
    unit: str = "x"

    def reaches(self, target: float) -> bool:
        """Is the ratio as good as the target? NaN never is."""
        return self.ratio <= target if self.limit else self.ratio >= target

    def text(self, value: float | None) -> str:
        """A ratio of this row, as it is printed."""
        if value is None:
            return ""
        if not self.unit:
            return f"{value:.1e}"
        return f"{value:.2f}{self.unit}" if value < 10 else f"{value:.1f}{self.unit}"

    @property
    def verdict(self) -> str:
        """wrong, missed, must, aim (the better target that is met), or told (nothing is asked)."""
        if not self.correct:
            return "wrong"
        if self.must is None:
            return "told"
        if not self.reaches(self.must):
            return "missed" if self.gate else "below"
        return "aim" if self.aim is not None and self.reaches(self.aim) else "must"

    @property
    def failed(self) -> bool:
        """Should the command end with an error?"""
        return self.verdict in ("wrong", "missed")

    def json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "verdict": self.verdict}


def interleave(
    functions: list[Callable[[], object]],
    repeats: int,
    warm: int = 2,
    most: int = 16,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """The least time of each function, in seconds, over `repeats` rounds in which each has a turn.

    A turn is several calls in a row for the quicker functions, at most `most`: turns then last about equally long, and
    each finds its own data in the cache, not its rival's. clock: `time.thread_time` where all the work is done in this
    thread. On a busy machine what takes longer than the scheduler's slice of some milliseconds is always interrupted,
    and its quicker rival is not: by the wall clock 2x then looks like 5x.
    """
    if repeats < 1:
        raise ValueError(f"interleave: got repeats={repeats}, expected at least 1")

    def seconds(function: Callable[[], object]) -> float:
        start = clock()
        function()
        return clock() - start

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

    def target(row: Row, value: float | None) -> str:
        return "<" * (row.limit and value is not None) + row.text(value)

    lines = [COLUMNS] + [
        (row.operation, row.against, row.text(row.ratio), target(row, row.must), target(row, row.aim), row.verdict)
        for row in rows
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
