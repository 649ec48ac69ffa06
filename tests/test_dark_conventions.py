"""The grid under the map: the runs and claims of dark-conventions, and what a perfect network loses on each grid."""

import math

import pytest
import torch

from coordreg import experiments
from coordreg.coords import CENTRE, STRIDE, UNIT, Labels, from_pixels, to_pixels
from coordreg.dark import DrawnOn, ReadOn
from coordreg.experiments.claims import Claim
from coordreg.experiments.dark import FLIPS, GRIDS, PATCHES
from coordreg.experiments.dark_claims import claims, expected, on_photographs
from coordreg.experiments.decoding import HALVES, RULES, misplaced
from coordreg.heatmap import Gaussian, QuarterSign
from coordreg.records import Run

PROFILES = ("smoke", "cpu", "gpu")


def by_label(profile: str) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    for run in experiments.runs("dark-conventions", profile):
        found.setdefault(run.label, []).append(run)
    return found


# -- the runs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_the_runs_on_our_grid_are_those_of_table_3(profile: str) -> None:
    side = experiments.runs("dark-encodings", profile)[0].train.size // 4
    ours = {(r.label.split()[0], r.seed): r.key for r in experiments.runs("dark-encodings", profile)
            if r.label.endswith(f" {side} px")}  # fmt: skip
    found = by_label(profile)
    assert list(found) == [f"{e} {g}" for g in GRIDS for e in ("biased", "unbiased")]
    for encoding in ("biased", "unbiased"):
        assert {(encoding, r.seed): r.key for r in found[f"{encoding} centre"]} == {
            k: v for k, v in ours.items() if k[0] == encoding
        }
    every = [run for runs in found.values() for run in runs]
    new = {run.key for run in every} - set(ours.values())
    assert len({run.key for run in every}) == len(every)
    assert len(new) == (4 if profile == "smoke" else 12)


@pytest.mark.parametrize("profile", PROFILES)
def test_targets_and_decoders_share_the_networks_stride(profile: str) -> None:
    for label, runs in by_label(profile).items():
        run = runs[0]
        with torch.device("meta"):
            model = run.estimator.build()
            side = run.train.size
            maps = model(torch.empty(1, 3, side, side))
        grid = {"centre": None, "stride": STRIDE, "unit": UNIT}[label.split()[1]]
        readers = [model.method.decoder, *(reading.decoder for reading in run.readings)]
        if grid is None:
            assert isinstance(model.method.target, Gaussian)
            assert not any(isinstance(reader, ReadOn) for reader in readers)
            continue
        assert isinstance(model.method.target, DrawnOn)
        assert isinstance(model.method.target.target, Gaussian)
        assert model.method.target.target.rounding == {"biased": "int", "unbiased": "none"}[label.split()[0]]
        for part in (model.method.target, *readers):
            assert isinstance(part, DrawnOn | ReadOn)
            assert part.convention == grid
            assert part.stride * maps.shape[-1] == side


def test_what_is_read_and_how_it_is_flipped() -> None:
    run = by_label("cpu")["unbiased stride"][0]
    assert {r.name: (r.flip, type(r.decoder.decoder).__name__) for r in run.readings} == {
        "quarter": ("none", "QuarterSign"),
        "dark": ("none", "Dark"),
        "quarter-flip": ("plain", "QuarterSign"),
        "dark-flip": ("plain", "Dark"),
        "quarter-flip-shift": ("shift", "QuarterSign"),
        "dark-flip-shift": ("shift", "Dark"),
    }
    shared = {r.name: r for r in by_label("cpu")["unbiased centre"][0].readings}
    others = [r for e in ("heatmap-resolution", "dark-encodings") for r in experiments.runs(e, "cpu")[-1].readings]
    same = [
        r.name for r in others if r.name in shared
    ]  # two experiments that share a record must mean the same by a name
    assert {"quarter", "dark", "quarter-flip", "quarter-flip-shift"} <= set(same)
    assert all(shared[r.name] == r for r in others if r.name in shared)
    with pytest.raises(ValueError, match="profile: got 'paper'"):
        experiments.runs("dark-conventions", "paper")


# -- what is expected of them ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_expectations_name_runs_and_readings(profile: str) -> None:
    found = by_label(profile)
    stated = expected(profile)
    for claim in stated:
        for side in claim.sides:
            assert side.experiment == "dark-conventions"
            assert side.reading in {r.name for r in found[side.label][0].readings}
        assert claim.better != claim.worse
    assert len({claim.text for claim in stated}) == len(stated) == 14
    with pytest.raises(ValueError, match="profile: got 'paper'"):
        expected("paper")


def test_the_shift_is_due_on_the_stride_grid_alone() -> None:
    def flips(claim: Claim) -> tuple[str, str]:
        return claim.better.reading.split("-", 1)[1], claim.worse.reading.split("-", 1)[1]

    pairs = {(c.better.label, flips(c)) for c in expected("cpu") if c.better.label == c.worse.label}
    due = {label: better for label, (better, _) in pairs}
    assert due == {f"{e} {g}": "flip-shift" if g == "stride" else "flip"
                   for e in ("biased", "unbiased") for g in GRIDS}  # fmt: skip
    assert {grid: FLIPS[suffix] for grid in GRIDS for suffix in FLIPS if FLIPS[suffix] == PATCHES[grid]} == PATCHES


def test_photographs_are_asked_what_table_3_says_of_figures() -> None:
    asked = on_photographs("cpu")
    shared = {c.text.removeprefix("16 px: ") for c in claims("cpu") if c.row == "dark-tab3"}
    assert len(asked) == 4
    assert {c.text for c in asked} <= shared
    runs = {run.label: {r.name for r in run.readings} for run in experiments.runs("dark-lsp", "cpu")}
    for side in (side for claim in asked for side in claim.sides):
        assert side.experiment == "dark-lsp"
        assert side.reading in runs[side.label]


def test_the_ledger_does_not_count_what_the_paper_does_not_print() -> None:
    outside = {"dark-conventions", "dark-lsp"}
    assert not any(side.experiment in outside for claim in claims("cpu") for side in claim.sides)


# -- a perfect network -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", HALVES)
def test_without_a_flip_test_no_grid_errs_but_by_rounding(half: str) -> None:
    """Rounding to cells of 4 px, or to quarters of the cell's half: s / sqrt(12), and half of it; or nothing."""
    rms = {"biased, quarter": 4, "biased, DARK": 4, "unbiased, quarter": 2, "unbiased, DARK": 0}[half] / math.sqrt(12)
    for rule in ("centre, no flip test", "stride, no flip test"):
        mean, found = misplaced(rule, half)
        assert mean == pytest.approx(0, abs=0.04)
        assert found == pytest.approx(rms, abs=0.03)
    assert misplaced("centre, averaged as it is", half) == pytest.approx(
        misplaced("centre, no flip test", half), abs=0.01
    )


def test_what_the_flip_test_leaves_on_each_grid() -> None:
    """Pixels at stride 4: half of the gap -(s - 1), with the column half of +1; half a cell where none is due."""
    for rule, off in {
        "stride, averaged as it is": -1.5,
        "stride, moved one column": 0.5,
        "unit, averaged as it is": 0.0,
    }.items():
        assert misplaced(rule, "unbiased, DARK") == pytest.approx((off, abs(off)), abs=0.01)
    cell = (4 * 24 - 1) / 23  # of the unit grid, in pixels
    assert misplaced("unit, moved one column", "unbiased, DARK")[0] == pytest.approx(cell / 2, abs=0.01)


def test_two_roundings_know_more_than_one() -> None:
    """On the stride grid image and mirror image round differently, which no other grid's do."""
    standard = {rule: misplaced(rule, "biased, quarter")[1] for rule in RULES}
    assert standard["stride, moved one column"] < 0.9 * standard["centre, averaged as it is"]
    assert standard["unit, averaged as it is"] > 0.98 * standard["centre, averaged as it is"]


@pytest.mark.parametrize(
    ("rule", "grid", "columns"),
    [
        ("stride, moved one column", STRIDE, 1),
        ("unit, averaged as it is", UNIT, 0),
        ("centre, averaged as it is", CENTRE, 0),
    ],
)
def test_misplaced_by_a_slow_loop(rule: str, grid: object, columns: int) -> None:
    """One joint at a time, by plain arithmetic: paint a row, mirror it, move it, average, largest cell, quarter."""
    size, stride = (12, 24), 4
    n, m, errors = stride * size[1], size[1], []
    for i in range(60):
        c = n / 3 + i * (n / 3) / 60
        to_map = {
            "stride": lambda p: p / stride,
            "unit": lambda p: p * (m - 1) / (n - 1),
            "centre": lambda p: (p + 0.5) / stride - 0.5,
        }
        to_image = {
            "stride": lambda q: q * stride,
            "unit": lambda q: q * (n - 1) / (m - 1),
            "centre": lambda q: (q + 0.5) * stride - 0.5,
        }
        name = grid.name  # type: ignore[attr-defined]
        row = [math.exp(-((k - to_map[name](c)) ** 2) / 2) for k in range(m)]
        back = [math.exp(-((k - to_map[name](n - 1 - c)) ** 2) / 2) for k in range(m)][::-1]
        back = [back[0]] * columns + back[: m - columns]
        both = [(a + b) / 2 for a, b in zip(row, back, strict=True)]
        k = max(range(m), key=lambda j: both[j])
        k_moved = k + 0.25 * ((both[k + 1] > both[k - 1]) - (both[k + 1] < both[k - 1]))
        errors.append(to_image[name](k_moved) - c)
    mean = sum(errors) / len(errors)
    rms = math.sqrt(sum(e * e for e in errors) / len(errors))
    assert misplaced(rule, "unbiased, quarter", size, stride, 61) == pytest.approx((mean, rms), abs=0.02)


def test_a_rule_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"misplaced: got 'unit' and 'all', expected one of centre, no flip test, .*"):
        misplaced("unit", "all")


def test_a_grid_read_as_another_is_off() -> None:
    """The joint at 40 px of 96: drawn at 10 on the stride grid, which ours reads as 41.5 px."""
    at = torch.tensor([[[40.0, 40.0]]], dtype=torch.float64)
    labels = Labels(from_pixels(at, (96, 96)), torch.ones_like(at))
    maps = DrawnOn(Gaussian(1.0), STRIDE)(labels, (24, 24)).maps
    found = to_pixels(QuarterSign()(maps).coords, (96, 96))
    assert found[0, 0].tolist() == pytest.approx([41.5, 41.5])
