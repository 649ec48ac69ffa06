"""Tables as HTML on a page and as plain text elsewhere; the same input gives the same bytes."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

MISSING = "not run"


@dataclass(frozen=True)
class Table:
    """Rows of text. head: column titles. The first column is the row's name; the others are flush right."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""

    def __repr__(self) -> str:
        grid = [self.head, *self.rows]
        wide = [max(len(row[i]) for row in grid) for i in range(len(self.head))]
        lines = [
            "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, wide, strict=True)))
            for row in grid
        ]
        rule = "-" * max(map(len, lines))
        return "\n".join([*([self.caption] if self.caption else []), lines[0], rule, *lines[1:]])

    def _repr_html_(self) -> str:
        def cell(text: str, tag: str, first: bool, head: bool = False) -> str:
            align = "left" if first else "right"
            faint = ' class="not-run"' if text == MISSING else ""
            tone = ";opacity:.6;font-style:italic" if text == MISSING else ""
            wrap = "" if head else ";white-space:nowrap"
            return f'<{tag}{faint} style="text-align:{align}{wrap}{tone}">{html.escape(text)}</{tag}>'

        head = "".join(cell(text, "th", i == 0, head=True) for i, text in enumerate(self.head))
        body = "".join(
            "<tr>" + "".join(cell(text, "th" if i == 0 else "td", i == 0) for i, text in enumerate(row)) + "</tr>"
            for row in self.rows
        )
        caption = f"<caption>{html.escape(self.caption)}</caption>" if self.caption else ""
        return f'<table class="dataframe">{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def table(frame: pd.DataFrame, caption: str = "", fmt: str = ".1f") -> Table:
    """A data frame as a Table: the index names the rows, numbers are written as `fmt` says, NaN as "not run"."""

    def text(value: Any) -> str:
        if isinstance(value, str):
            return value
        return MISSING if pd.isna(value) else format(value, fmt)

    head = [" ".join(map(str, c)) if isinstance(c, tuple) else str(c) for c in frame.columns]
    rows = [(str(name), *map(text, row)) for name, row in zip(frame.index, frame.to_numpy(object), strict=True)]
    return Table((str(frame.index.name or ""), *head), tuple(rows), caption)


def paper_beside_ours(rows: Sequence[Mapping[str, Any]], caption: str = "", decimals: int = 1) -> Table:
    """The paper's numbers beside ours. A row has "what", "paper" and "ours", and any further columns of its own.

    "ours" may be a number, the values of several seeds (their mean and range are shown), or None for "not run"; "paper"
    may be None where the paper prints nothing. Where every row has both, the difference is NOT shown: other data, other
    budgets; orderings compare, numbers do not.
    """
    if not rows:
        raise ValueError('paper_beside_ours: got no rows, expected dicts with "what", "paper" and "ours"')
    for row in rows:
        lacking = [key for key in ("what", "paper", "ours") if key not in row]
        if lacking:
            raise ValueError(
                f"paper_beside_ours: the row {dict(row)} lacks {', '.join(lacking)}; give None for no number"
            )
    extra = list(dict.fromkeys(key for row in rows for key in row if key not in ("what", "paper", "ours")))
    body = [
        (
            str(row["what"]),
            _number(row["paper"], decimals, "–"),
            _number(row["ours"], decimals, MISSING),
            *(_number(row.get(key), decimals, "–") for key in extra),
        )
        for row in rows
    ]
    return Table(("", "paper", "ours", *extra), tuple(body), caption)


def _number(value: Any, decimals: int, missing: str) -> str:
    if value is None:
        return missing
    if isinstance(value, str):
        return value
    values = [float(v) for v in value] if hasattr(value, "__len__") else [float(value)]
    if not values or any(v != v for v in values):
        return missing
    mean = f"{sum(values) / len(values):.{decimals}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ({min(values):.{decimals}f} to {max(values):.{decimals}f})"
