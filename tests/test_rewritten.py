"""Rewritten definitions: the table of hashes is true, the results are the same bit for bit, and nothing else passes."""

import ast
import hashlib
import inspect
import math
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import earlier_forms
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fingerprint import Edit, copy, edit, forget  # noqa: F401  (copy and edit are fixtures)
from torch import Tensor

from coordreg import fingerprint as code
from coordreg import heatmap
from coordreg.coords import Points
from coordreg.heatmap import Argmax, QuarterSign
from coordreg.rewritten import REWRITTEN, Rewrite

NAME, HELPER = "coordreg.heatmap.QuarterSign", "coordreg.heatmap._around"
(EARLIER,) = (form for (name, _), form in earlier_forms.FORMS.items() if name == NAME)
BORDERS, SHAPES = ("inside", "published"), ((1, 1), (1, 6), (5, 1), (2, 2), (3, 2), (5, 6), (4, 7))
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
#: Ties, both zeros, what is not finite, a number that is subnormal in half and one that is so in single precision.
LEVELS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-6, 1e-40, -1e-40, 6e4, -6e4, math.inf, -math.inf, math.nan)
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda maps: maps,
    "channels last": lambda maps: maps.to(memory_format=torch.channels_last),
    "transposed": lambda maps: maps.mT.contiguous().mT,
    "every other column": lambda maps: maps.repeat_interleave(2, -1)[..., ::2],
    "one image thrice": lambda maps: maps[:1].expand(3, -1, -1, -1),
}
Decoder = Callable[[Tensor], Points]


def same(one: Points, other: Points) -> bool:
    """Equal types, shapes and bits; NaN equals NaN of the same bits, and 0.0 does not equal -0.0."""
    for a, b in zip(one, other, strict=True):
        if a.dtype != b.dtype or a.shape != b.shape or a.requires_grad != b.requires_grad:
            return False
        if not torch.equal(a.detach().view(BITS[a.itemsize]), b.detach().view(BITS[b.itemsize])):
            return False
    return True


def peaks() -> Iterator[Tensor]:
    """A peak at each cell of small maps in turn, amid whole numbers with many ties, in each precision."""
    for height, width in SHAPES:
        g = torch.Generator().manual_seed(height + 10 * width)
        maps = torch.randint(-2, 3, (height * width, 3, height, width), generator=g).double()
        for i in range(height * width):
            maps[i, :, i // width, i % width] = 3
        yield from (maps.to(dtype) for dtype in DTYPES)


def differs(one: type[Any], other: type[Any]) -> bool:
    """Is there a peak that the two forms read differently?"""
    return any(not same(one(border)(maps), other(border)(maps)) for border in BORDERS for maps in peaks())


# -- the table --------------------------------------------------------------------------------------------------------


def test_every_entry_has_its_earlier_form_and_every_form_its_entry() -> None:
    assert sorted((entry.name, entry.earlier) for entry in REWRITTEN) == sorted(earlier_forms.FORMS)
    assert {entry.name for entry in REWRITTEN} == {NAME}, "compare the results of the new entry in this file, too"


@pytest.mark.parametrize(("name", "value"), list(earlier_forms.FORMS))
def test_the_table_has_the_hash_of_the_earlier_form(name: str, value: str) -> None:
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(earlier_forms.FORMS[name, value]))).body
    assert hashlib.sha256(code._dump(node).encode()).hexdigest()[:8] == value


@pytest.mark.parametrize("entry", REWRITTEN, ids=lambda entry: f"{entry.name} {entry.earlier}")
def test_the_table_is_the_difference_between_the_two_fingerprints(entry: Rewrite, copy: Path) -> None:  # noqa: F811
    """Put back into its file, the earlier form has the fingerprint that the table turns into the present one."""
    module, _, name = entry.name.rpartition(".")
    form = getattr(__import__(module, fromlist=[name]), name)
    now = code.fingerprint(form)
    path = copy.parent / Path(*module.split(".")).with_suffix(".py")
    text, earlier = path.read_text(), textwrap.dedent(inspect.getsource(earlier_forms.FORMS[entry.name, entry.earlier]))
    present = inspect.getsource(form)
    assert text.count(present) == 1
    path.write_text(text.replace(present, earlier))
    forget()
    before = code.fingerprint(form)
    assert (before[entry.name], now[entry.name]) == (entry.earlier, entry.present)
    assert {k: v for k, v in now.items() if k not in before} == dict(entry.came)
    assert {k: v for k, v in before.items() if k not in now} == dict(entry.gone)
    assert {k for k in before.keys() & now.keys() if before[k] != now[k]} == {entry.name}


def test_an_entry_without_a_change_is_refused() -> None:
    with pytest.raises(ValueError, match="x has the hash 12345678 before and after, expected two"):
        Rewrite("x", "12345678", "12345678")


# -- the results ------------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 7),
    st.lists(st.sampled_from(LEVELS), min_size=1, max_size=5),
    st.sampled_from(DTYPES),
    st.sampled_from(sorted(LAYOUTS)),
    st.integers(0, 10_000),
)
def test_quarter_sign_of_any_map(
    height: int, width: int, levels: list[float], dtype: torch.dtype, layout: str, seed: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(levels), (2, 3, height, width), generator=g)
    maps = LAYOUTS[layout](torch.tensor(levels, dtype=torch.float64)[chosen].to(dtype))
    for border in BORDERS:
        assert same(EARLIER(border)(maps), QuarterSign(border)(maps))


def test_quarter_sign_of_a_peak_at_every_cell() -> None:
    assert not differs(EARLIER, QuarterSign)


def test_layouts_are_what_they_say() -> None:
    maps = torch.rand(2, 3, 4, 5)
    for name, layout in LAYOUTS.items():
        assert layout(maps).is_contiguous() == (name == "contiguous")
        assert torch.equal(layout(maps)[0], maps[0])


def test_quarter_sign_of_maps_of_the_usual_size_and_of_none() -> None:
    maps = torch.randn(2, 17, 64, 48, generator=torch.Generator().manual_seed(0))
    for border in BORDERS:
        assert same(EARLIER(border)(maps), QuarterSign(border)(maps))
        assert same(EARLIER(border)(maps[:0]), QuarterSign(border)(maps[:0]))
        assert same(EARLIER(border)(maps.mT), QuarterSign(border)(maps.mT))  # H and W exchanged, another table


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16])
def test_quarter_sign_under_another_default_precision(default: torch.dtype) -> None:
    """The coordinates' type follows it, and what is kept for one is not taken for another."""
    wide = torch.zeros(1, 2, 3, 1031)
    wide[..., 1, 1029] = 1  # bfloat16 has no 1029
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        for maps in (wide, wide.half(), wide.bfloat16(), wide.double()):
            assert same(EARLIER()(maps), QuarterSign()(maps))
        assert not differs(EARLIER, QuarterSign)
    finally:
        torch.set_default_dtype(before)
    assert not differs(EARLIER, QuarterSign)


def test_quarter_sign_with_gradients_and_after_inference_mode() -> None:
    """What was first computed in inference mode serves a map that needs gradients; those are 0."""
    heatmap._around.cache_clear()
    plain = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        QuarterSign()(plain)
    maps = plain.requires_grad_()
    found = QuarterSign()(maps)
    assert same(EARLIER()(maps), found)
    assert found.coords.requires_grad
    (gradient,) = torch.autograd.grad(found.coords.sum(), maps)
    assert not gradient.any()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_quarter_sign_on_a_gpu() -> None:
    for maps in (*peaks(), torch.randn(2, 17, 64, 48)):
        for border in BORDERS:
            assert same(EARLIER(border)(maps.cuda()), QuarterSign(border)(maps.cuda()))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.25 * inside", "0.26 * inside"),
        ("cell + move", "cell - move"),
        ("cell > first", "cell >= first"),
        ("width - 1, height - 1]", "width - 1, height - 2]"),
        ("[-1, -width, 1, width]", "[-1, -width, 1, -width]"),
        ("inside.all(", "inside.any("),
        ("int(self.border", "2 * int(self.border"),
        ("(0.25 * inside)", "(0.25 * inside).to(values.dtype)"),
        (", score)\n", ", score.float())\n"),
    ],
)
def test_a_form_that_differs_in_one_detail_is_caught(old: str, new: str) -> None:
    source = inspect.getsource(EARLIER)
    assert source.count(old) == 1
    names = dict(vars(earlier_forms))
    exec(source.replace(old, new), names)
    assert differs(names["QuarterSign"], QuarterSign)


# -- what a record then is --------------------------------------------------------------------------------------------


@pytest.fixture
def recorded() -> dict[str, str]:
    """The fingerprint that a record made with the earlier form holds."""
    (entry,) = (e for e in REWRITTEN if e.name == NAME)
    came = dict(entry.came)
    now = {k: v for k, v in code.fingerprint(QuarterSign()).items() if k not in came}
    return {**now, NAME: entry.earlier}


def test_a_listed_form_is_current_and_any_other_is_not(recorded: dict[str, str]) -> None:
    assert code.changed(recorded, QuarterSign()) == []
    assert code.changed({**recorded, NAME: "00000000"}, QuarterSign()) == sorted([NAME, HELPER])
    assert code.changed({**recorded, "coordreg.heatmap.peak": "0"}, QuarterSign()) == ["coordreg.heatmap.peak"]
    assert code.changed({**recorded, HELPER: "00000000"}, QuarterSign()) == [HELPER]  # reached in another way, and old
    assert code.changed({**recorded, "coordreg.heatmap.Disk": "0"}, QuarterSign()) == ["coordreg.heatmap.Disk"]
    del recorded["coordreg.coords.CENTRE"]
    assert code.changed(recorded, QuarterSign()) == ["coordreg.coords.CENTRE"]


def test_a_measurement_of_time_is_stale_after_a_rewrite(recorded: dict[str, str]) -> None:
    assert code.changed(recorded, QuarterSign(), timed=True) == sorted([NAME, HELPER])
    assert code.changed(code.fingerprint(QuarterSign()), QuarterSign(), timed=True) == []


def test_a_run_that_never_reached_it_is_as_before(recorded: dict[str, str]) -> None:
    now = code.fingerprint(Argmax())
    assert code.changed(now, Argmax()) == []
    assert NAME in code.changed(recorded, Argmax())


@pytest.mark.parametrize(("old", "new"), [("alpha=0.25", "alpha=0.2"), ("cell > first", "cell >= first")])
def test_a_further_change_makes_the_records_of_every_form_stale(
    old: str,
    new: str,
    recorded: dict[str, str],
    edit: Edit,  # noqa: F811
) -> None:
    """Of the definition or of its helper: the table holds for the forms that were compared, and for no later one."""
    present = code.fingerprint(QuarterSign())
    edit("heatmap.py", old, new)
    assert NAME in code.changed(recorded, QuarterSign())
    assert code.changed(present, QuarterSign())


def test_helpers_that_only_the_earlier_form_had(monkeypatch: pytest.MonkeyPatch) -> None:
    now = code.fingerprint(QuarterSign())
    peak = "coordreg.heatmap.peak"
    gone = (("coordreg.heatmap._slow", "11111111"), (peak, now[peak]))
    monkeypatch.setattr(code, "REWRITTEN", (Rewrite(NAME, "22222222", now[NAME], gone=gone),))
    old = {**now, NAME: "22222222", "coordreg.heatmap._slow": "11111111"}
    assert code.changed(old, QuarterSign()) == []  # peak is still reached, and still the same
    assert code.changed({**old, "coordreg.heatmap._slow": "33333333"}, QuarterSign()) == sorted(
        [NAME, "coordreg.heatmap._slow"]
    )
