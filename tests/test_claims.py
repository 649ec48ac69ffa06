"""Claims: the paired bootstrap against a slow loop, verdicts, refusals, and that every declared claim can be judged."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordreg import experiments, verdicts
from coordreg.data.noisy import Noisy
from coordreg.experiments.claims import Claim, Judgement, Observation, Side, Widening, interval, judge
from coordreg.papers import ROWS
from coordreg.records import Record

CLAIM = Claim("dsnt-fig7", "b above a", better=Side("x", "b", "argmax"), worse=Side("x", "a", "argmax"), metric="0.5")


def record(
    folder: Path, name: str, share: Sequence[float], count: Sequence[int], seed: int = 0, test: str = "t"
) -> Record:
    """A record with nothing but what `judge` reads."""
    path = folder / f"{name}-{seed}.json"
    arrays = {"argmax/0.5": np.array(share, np.float16), "argmax/count": np.array(count, np.int8)}
    np.savez(path.with_suffix(".npz"), **arrays)
    digest = hashlib.sha256(path.with_suffix(".npz").read_bytes()).hexdigest()
    return Record({"arrays": digest, "config": {"seed": seed}, "data": {"test": test}}, path)


def pair(folder: Path, gains: Sequence[float], margin: float = 0.0) -> Judgement:
    """Judge sides that differ by `gains[s]` in every image of seed s."""
    base, count = np.linspace(0, 0.5, 9), [1, 2, 3, 4, 5, 6, 7, 8, 9]
    worse = [record(folder, "a", base.tolist(), count, s) for s in range(len(gains))]
    better = [record(folder, "b", (base + g).tolist(), count, s) for s, g in enumerate(gains)]
    return judge(Claim(**{**vars(CLAIM), "margin": margin}), better, worse)


def test_mean_by_hand(tmp_path: Path) -> None:
    """Joints, not images, are averaged: (0.5 * 1 + 0.25 * 3 + 0) / 4 of 100, the unlabelled image having no weight."""
    a = record(tmp_path, "a", [0.25, 0.5, 0.0] * 5, [1, 3, 0] * 5)
    b = record(tmp_path, "b", [0.75, 0.75, 1.0] * 5, [1, 3, 0] * 5)
    found = judge(CLAIM, [b], [a])
    assert found.difference == pytest.approx(31.25)
    assert found.seeds == pytest.approx((31.25,))


def test_an_observation_looks_at_one_side(tmp_path: Path) -> None:
    """The number that is read from each record, against its range: all inside, some, none."""
    records = [record(tmp_path, "a", [0.5], [1], seed) for seed in (1, 4, 4)]
    side = CLAIM.better
    verdicts_of = {}
    for name, low, high in (("one to four", 1, 4), ("four", 4, 4), ("five", 5, 5)):
        claim = Observation(
            "dsnt-fig5", name, side, side, "", measure=lambda r: float(r["config"]["seed"]), low=low, high=high
        )
        found = judge(claim, records, records)
        assert (found.difference, found.low, found.high, found.seeds) == (3.0, 1.0, 4.0, (1.0, 4.0, 4.0))
        verdicts_of[name] = found.verdict
    assert verdicts_of == {"one to four": "holds", "four": "open", "five": "contradicted"}
    with pytest.raises(ValueError, match="observe: got no records"):
        judge(claim, [], [])


def test_errors_in_millimetres_are_better_when_smaller(tmp_path: Path) -> None:
    """Unlike percentages they are not multiplied, and `part` looks at some of the test images alone."""
    sides = []
    for name, values in (("a", [100.0, 80.0, 60.0]), ("b", [90.0, 60.0, 60.0])):
        path = tmp_path / f"{name}.json"
        np.savez(path.with_suffix(".npz"), **{"argmax/mpjpe": np.array(values, np.float16), "argmax/count": [1, 1, 1]})
        digest = hashlib.sha256(path.with_suffix(".npz").read_bytes()).hexdigest()
        sides.append(Record({"arrays": digest, "config": {"seed": 0}, "data": {"test": "t"}}, path))
    claim = Claim(**{**vars(CLAIM), "metric": "mpjpe"})
    assert judge(claim, [sides[1]], [sides[0]]).difference == pytest.approx(10.0)
    part = Claim(**{**vars(CLAIM), "metric": "mpjpe", "part": (1, 3)})
    assert judge(part, [sides[1]], [sides[0]]).difference == pytest.approx(10.0)
    last = Claim(**{**vars(CLAIM), "metric": "mpjpe", "part": (2, 3)})
    assert judge(last, [sides[1]], [sides[0]]).difference == 0.0


def test_constant_difference_has_no_width(tmp_path: Path) -> None:
    found = pair(tmp_path, [0.25, 0.25])
    assert (found.difference, found.low, found.high) == pytest.approx((25, 25, 25), abs=0.05)
    assert found.verdict == "holds"


def slow_interval(a: Any, b: Any, count: Any, samples: int) -> tuple[float, float, float]:
    """The same bootstrap with plain loops and another source of random numbers; also the spread of the means."""
    rng, n, drawn = random.Random(7), len(count), []
    for _ in range(samples):
        above = below = 0.0
        for _ in range(n):
            i = rng.randrange(n)
            for s in range(len(a)):
                above += (b[s][i] - a[s][i]) * count[i]
                below += count[i]
        drawn.append(100 * above / below)
    drawn.sort()
    mean = sum(drawn) / samples
    spread = (sum((d - mean) ** 2 for d in drawn) / samples) ** 0.5
    return drawn[round(0.025 * samples)], drawn[round(0.975 * samples)], spread


def test_interval_agrees_with_a_slow_loop(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    n, seeds = 40, 2
    count = rng.integers(1, 15, n)
    hard = rng.random(n)  # an image is hard for both sides: pairing matters
    a = [np.float16(0.7 * hard + 0.02 * rng.random(n)) for _ in range(seeds)]
    b = [np.float16(0.7 * hard + 0.05 + 0.1 * rng.random(n)) for _ in range(seeds)]
    sides = [
        [record(tmp_path, k, v[s].tolist(), count.tolist(), s) for s in range(seeds)] for k, v in (("a", a), ("b", b))
    ]
    found = judge(CLAIM, sides[1], sides[0], samples=8000)
    low, high, spread = slow_interval([x.tolist() for x in a], [x.tolist() for x in b], count.tolist(), 4000)
    assert found.low == pytest.approx(low, abs=0.2 * spread)  # a 90% interval would be 0.3 off
    assert found.high == pytest.approx(high, abs=0.2 * spread)
    assert found.high - found.low < 3  # unpaired it would be about 17 points wide


def test_resampling_is_over_images_of_all_seeds_together(tmp_path: Path) -> None:
    """Seeds that cancel in every image leave no width, whatever each of them does."""
    found = pair(tmp_path, [0.25, -0.25])
    assert (found.low, found.high) == pytest.approx((0, 0), abs=0.05)
    assert found.seeds == pytest.approx((25, -25), abs=0.05)


@pytest.mark.parametrize(
    ("gains", "margin", "verdict"),
    [
        ((0.1, 0.2, 0.3), 0.0, "holds"),
        ((-0.1, -0.2, -0.3), 0.0, "contradicted"),
        ((0.3, 0.3, -0.05), 0.0, "open"),  # the interval excludes 0, one seed disagrees
        ((-0.3, -0.3, 0.05), 0.0, "open"),
        ((0.1, 0.1, 0.1), 5.0, "holds"),
        ((0.1, 0.1, 0.1), 15.0, "contradicted"),  # better, but not by the margin
        ((0.1, 0.1, 0.2), 12.0, "open"),
        ((0.0, 0.0, 0.0), 0.0, "open"),
    ],
)
def test_verdicts(tmp_path: Path, gains: tuple[float, ...], margin: float, verdict: str) -> None:
    assert pair(tmp_path, gains, margin).verdict == verdict


def test_wide_interval_is_open(tmp_path: Path) -> None:
    a = record(tmp_path, "a", [0.5] * 6, [4] * 6)
    b = record(tmp_path, "b", [1.0, 0.0, 1.0, 0.25, 0.5, 0.5], [4] * 6)
    found = judge(CLAIM, [b], [a])
    assert found.low < 0 < found.difference < found.high
    assert found.verdict == "open"


def test_interval_must_clear_the_margin(tmp_path: Path) -> None:
    """The mean of the one seed and the interval's low end are both above 0; the margin lies between them."""
    a = record(tmp_path, "a", [0.25] * 8, [4] * 8)
    b = record(tmp_path, "b", [0.75, 0.25, 0.75, 0.5, 0.75, 0.25, 0.75, 0.5], [4] * 8)
    plain = judge(CLAIM, [b], [a])
    assert plain.verdict == "holds"
    assert 0 < plain.low < 25 < plain.difference
    assert judge(Claim(**{**vars(CLAIM), "margin": 25.0}), [b], [a]).verdict == "open"
    assert judge(Claim(**{**vars(CLAIM), "margin": 40.0}), [b], [a]).verdict == "open"
    assert judge(Claim(**{**vars(CLAIM), "margin": 60.0}), [b], [a]).verdict == "contradicted"


def test_same_answer_twice(tmp_path: Path) -> None:
    assert pair(tmp_path, [0.1, 0.2]) == pair(tmp_path, [0.1, 0.2])


def test_refusals(tmp_path: Path) -> None:
    share, count = [0.5, 0.5], [2, 2]
    a = [record(tmp_path, "a", share, count, s) for s in range(2)]
    b = [record(tmp_path, "b", share, count, s) for s in range(2)]
    with pytest.raises(ValueError, match=r"got 2 and 1 records for 'b above a'.*every seed"):
        judge(CLAIM, b, a[:1])
    with pytest.raises(ValueError, match="got 0 and 0 records"):
        judge(CLAIM, [], [])
    with pytest.raises(ValueError, match=r"pairs seed 1 with 0.*same seeds and test images"):
        judge(CLAIM, b[::-1], a)
    other = record(tmp_path, "other", share, count, 0, test="u")
    with pytest.raises(ValueError, match="test sets t and u"):
        judge(CLAIM, [b[0]], [other])


def test_a_lead_that_widens(tmp_path: Path) -> None:
    """The lead of one pair less that of another, joints weighed as in each: 0.5 x 100 against 0.25 x 100."""
    count, low = [1, 3, 2] * 4, [0.25] * 12
    far = [
        [record(tmp_path, f"{n}{v}", [v] * 12, count, s, "small") for s in (0, 1)]
        for n, v in (("b", 0.75), ("a", 0.25))
    ]
    near = [[record(tmp_path, f"n{v}", [v] * 12, count, s) for s in (0, 1)] for v in (0.5, 0.25)]
    claim = Widening(
        *(getattr(CLAIM, n) for n in ("row", "text", "better", "worse", "metric")), than=(CLAIM.better, CLAIM.worse)
    )
    found = judge(claim, far[0], far[1], (near[0], near[1]))
    assert (found.difference, found.seeds, found.verdict) == (25.0, (25.0, 25.0), "holds")
    assert judge(claim, near[0], near[1], (far[0], far[1])).verdict == "contradicted"
    assert judge(Widening(**{**vars(claim), "margin": 25.0}), far[0], far[1], (near[0], near[1])).verdict == "open"
    short = [record(tmp_path, "short", low[:6], count[:6], s) for s in (0, 1)]
    later = [record(tmp_path, "later", low, count, s) for s in (5, 6)]
    for other in (short, later):
        with pytest.raises(ValueError, match="both pairs need the same"):
            judge(claim, far[0], far[1], (other, other))
    with pytest.raises(ValueError, match="0 and 0 records"):
        judge(claim, far[0], far[1])


def test_interval_of_seeds() -> None:
    assert interval([2.0, -1.0, 5.0]) == (-1.0, 5.0)


# -- what is declared -------------------------------------------------------------------------------------------------


def sized(test: Any) -> Any:
    """A test set at 64 px."""
    return replace(test, data=sized(test.data)) if isinstance(test, Noisy) else replace(test, size=64)


@pytest.mark.parametrize("profile", ["smoke", "cpu", "gpu"])
def test_every_declared_claim_can_be_judged(profile: str) -> None:
    """Both sides exist, are read and scored as claimed, and share seeds and test images."""
    checked = 0
    for claims in verdicts.declared(profile).values():
        for claim in claims:
            if isinstance(claim, Observation):
                assert (claim.better, claim.low <= claim.high) == (claim.worse, True)
                assert any(
                    run.label == claim.better.label for run in experiments.runs(claim.better.experiment, profile)
                )
                continue
            sides = []
            for side in (claim.better, claim.worse, *getattr(claim, "than", ())):
                runs = [run for run in experiments.runs(side.experiment, profile) if run.label == side.label]
                assert runs, f"{claim.text}: {side.experiment} has no {side.label!r}"
                for run in runs:
                    assert side.reading in {reading.name for reading in run.readings}
                    named = {"auc", *(f"{t:g}" for t in run.scoring.at)}
                    assert claim.metric in named | set(getattr(run.scoring, "metrics", ()))
                sides.append([(run.seed, run.test) for run in runs])
            assert sides[0::2] == sides[1::2], claim.text
            if isinstance(claim, Widening):  # the same people, at another size
                shown = [[(seed, sized(test)) for seed, test in sides[i]] for i in (0, 2)]
                assert shown[0] == shown[1], claim.text
            assert claim.better != claim.worse
            # a negative margin is a claim of being no worse by more than that, and has to say so
            assert claim.margin >= 0 or ("at most one point below" in claim.text and claim.margin == -1)
            checked += 1
    assert checked >= 5


def test_experiments_take_a_profile_and_give_runs() -> None:
    for name in experiments.names():
        assert experiments.runs(name, "paper" if name.startswith("paper-") else "smoke"), name


def test_claims_of_a_row_are_all_different() -> None:
    for claims in verdicts.declared("cpu").values():
        assert len({claim.text for claim in claims}) == len(claims)


def test_scopes_and_checks_name_rows() -> None:
    ids = {row.id for row in ROWS}
    assert set(verdicts.scopes()) <= ids
    assert {"dsnt-fig4", "dark-fig4"} <= set(verdicts.exacts()) <= ids
