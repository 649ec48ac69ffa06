"""Claims and how they are judged.

A claim says that one reading of one kind of run beats another in one metric, by a margin. It is declared beside the
experiments before their runs exist. It holds when the bootstrap over test images of the seed-averaged paired difference
excludes the margin and all seeds agree in sign.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coordreg.records import Record


@dataclass(frozen=True)
class Side:
    """One side of a comparison: experiment, label of the run, reading."""

    experiment: str
    label: str
    reading: str


@dataclass(frozen=True)
class Claim:
    """`better` exceeds `worse` in `metric` by more than `margin` points. row: the ledger row it belongs to.

    A metric in LOWER is an error in its own unit: `better` lies below `worse` by more than `margin`. part: judge only
    the test images from the first number up to the second.
    """

    row: str
    text: str
    better: Side
    worse: Side
    metric: str
    margin: float = 0.0
    part: tuple[int, int] | None = None

    @property
    def sides(self) -> tuple[Side, ...]:
        """Every side whose records the claim is judged from, the worse first."""
        return tuple(dict.fromkeys((self.worse, self.better)))


@dataclass(frozen=True)
class Widening(Claim):
    """The lead of `better` over `worse` exceeds the lead of `than[0]` over `than[1]` by more than `margin`.

    The two pairs may be tested on images of two sizes, as long as number i shows the same person.
    """

    than: tuple[Side, Side] = (Side("", "", ""), Side("", "", ""))

    @property
    def sides(self) -> tuple[Side, ...]:
        """All four sides."""
        return tuple(dict.fromkeys((*super().sides, *reversed(self.than))))


@dataclass(frozen=True)
class Observation(Claim):
    """A claim about one side alone: the number that `measure` reads from a record lies from `low` to `high`.

    better, worse: both the side that is looked at. It holds if every seed's number lies there and is contradicted if
    none does.
    """

    measure: Callable[[Record], float] = lambda record: 0.0
    low: float = 0.0
    high: float = 0.0


def observe(observation: Observation, records: Sequence[Record]) -> "Judgement":
    """Judge an observation from the records of its side, a seed each; low and high are those of the seeds."""
    if not records:
        raise ValueError(f"observe: got no records for {observation.text!r}, expected one for every seed")
    values = tuple(float(observation.measure(record)) for record in records)
    inside = [observation.low <= value <= observation.high for value in values]
    verdict = "holds" if all(inside) else "open" if any(inside) else "contradicted"
    return Judgement(observation, float(np.mean(values)), min(values), max(values), values, verdict)


#: Errors: smaller is better, and they are in millimetres, not in percent.
LOWER = ("mpjpe", "pa_mpjpe", "pa_rigid", "n_mpjpe", "depth")


@dataclass(frozen=True)
class Judgement:
    """The mean paired difference with its 95% interval, that of each seed, and whether the claim holds.

    Differences are in points, of errors in mm; of an `Observation` they are the numbers themselves and their range.

    verdict: "holds", "contradicted" (the whole interval and every seed lie on the other side) or "open".
    """

    claim: Claim
    difference: float
    low: float
    high: float
    seeds: tuple[float, ...]
    verdict: str


def judge(
    claim: Claim,
    better: Sequence[Record],
    worse: Sequence[Record],
    than: tuple[Sequence[Record], Sequence[Record]] = ((), ()),
    *,
    samples: int = 2000,
    seed: int = 0,
) -> Judgement:
    """Judge a claim from the records of its sides, paired by seed and by test image. than: of a `Widening` alone."""
    if isinstance(claim, Observation):
        return observe(claim, better)
    return judge_all([(claim, paired(claim, better, worse, than))], samples=samples, seed=seed)[0]


#: Differences times counts, and counts, (seeds, test images) each, of one pair of sides or of two.
Pairs = list[tuple[NDArray[np.float64], NDArray[np.float64]]]


def paired(
    claim: Claim,
    better: Sequence[Record],
    worse: Sequence[Record],
    than: tuple[Sequence[Record], Sequence[Record]] = ((), ()),
) -> Pairs:
    """A claim's records side by side. ValueError if they are of other seeds or other test images."""
    pairs = [_paired(claim, (claim.better, claim.worse), better, worse)]
    if isinstance(claim, Widening):
        pairs.append(_paired(claim, claim.than, *than))
        known = [
            f"seeds {[r['config']['seed'] for r in side]} and {counts.shape[1]} test images"
            for side, (_, counts) in zip((better, than[0]), pairs, strict=True)
        ]
        if known[0] != known[1]:
            raise ValueError(f"judge: {claim.text!r} compares {known[0]} with {known[1]}; both pairs need the same")
    return pairs


def judge_all(found: Sequence[tuple[Claim, Pairs]], *, samples: int = 2000, seed: int = 0) -> list["Judgement"]:
    """Judge claims together, which reads the bootstrap's draws once for all that have as many test images."""
    draws: dict[int, list[NDArray[np.float32]]] = {}  # by claim: resampled sums, (2, samples) for each pair
    for n in {pairs[0][0].shape[1] for _, pairs in found}:
        these = [(i, pairs) for i, (_, pairs) in enumerate(found) if pairs[0][0].shape[1] == n]
        # single precision halves what is read from memory, and is off by less than 1e-4 points
        sums = [each.sum(0).astype(np.float32) for _, pairs in these for pair in pairs for each in pair]
        drawn = iter((_resampled(n, samples, seed) @ np.stack(sums, 1)).T)
        for i, pairs in these:
            draws[i] = [np.stack([next(drawn), next(drawn)]) for _ in pairs]
    return [_judged(claim, pairs, draws[i]) for i, (claim, pairs) in enumerate(found)]


def _judged(claim: Claim, pairs: Pairs, draws: Sequence[NDArray[np.float32]]) -> "Judgement":
    seeds = tuple(float(v) for v in _lead([(hit.sum(1), count.sum(1)) for hit, count in pairs]))
    low, high = (float(v) for v in np.quantile(_lead(draws), (0.025, 0.975)))
    if low > claim.margin and min(seeds) > claim.margin:
        verdict = "holds"
    elif high < claim.margin and max(seeds) < claim.margin:
        verdict = "contradicted"
    else:
        verdict = "open"
    difference = float(_lead([(hit.sum(), count.sum()) for hit, count in pairs]))
    return Judgement(claim, difference, low, high, seeds, verdict)


@lru_cache(maxsize=4)
def _resampled(n: int, samples: int, seed: int) -> NDArray[np.float32]:
    """How often each of n images is drawn in each bootstrap sample, (samples, n): the same draws for every claim."""
    drawn = np.random.default_rng(seed).integers(0, n, (samples, n))
    return np.stack([np.bincount(row, minlength=n) for row in drawn]).astype(np.float32)


def _lead(sums: Sequence[Any]) -> Any:
    """Summed differences over summed counts, of the first pair less that of the second, if there is one."""
    found = [hit / count for hit, count in sums]
    return found[0] - sum(found[1:])


def _paired(
    claim: Claim, sides: tuple[Side, Side], better: Sequence[Record], worse: Sequence[Record]
) -> tuple[np.ndarray, np.ndarray]:
    """Differences times counts, and counts: (seeds, test images) each."""
    if len(better) != len(worse) or not better:
        raise ValueError(
            f"judge: got {len(better)} and {len(worse)} records for {claim.text!r}, expected one of each for every seed"
        )
    hits, counts = [], []
    unit, chosen = (-1.0 if claim.metric in LOWER else 100.0), slice(*(claim.part or (None,)))
    for a, b in zip(better, worse, strict=True):
        if a["config"]["seed"] != b["config"]["seed"] or a["data"]["test"] != b["data"]["test"]:
            raise ValueError(
                f"judge: {claim.text!r} pairs seed {a['config']['seed']} with {b['config']['seed']} on test sets "
                f"{a['data']['test']} and {b['data']['test']}; both sides need the same seeds and test images"
            )
        left, right = (r.image(side.reading, claim.metric) for r, side in zip((a, b), sides, strict=True))
        count = a.image(sides[0].reading, "count").astype(np.float64)[chosen]
        gain = (left.astype(np.float64) - right.astype(np.float64))[chosen]
        hits.append(unit * gain * count)
        counts.append(count)
    return np.stack(hits), np.stack(counts)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Smallest and largest of a few seeds: with three of them any fancier interval would pretend."""
    listed: Any = list(values)
    return min(listed), max(listed)
