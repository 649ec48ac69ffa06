"""Charts of results. Where there are several seeds all of them show: as dots, or a band from lowest to highest."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from numpy.typing import NDArray

from coordreg.plots.look import COLOURS, HEAT, INK, MUTED, PAPER, RULE, axes, colours
from coordreg.plots.pictures import Array, array

#: What a band spans: lowest to highest seed, one standard deviation either side, 95 % interval of the mean.
BANDS: dict[str, Any] = {"range": ("pi", 100), "sd": ("sd", 1), "ci": ("ci", 95), "none": None}
DASHES = ("-", (0, (5, 1.6)), (0, (1.4, 1.4)), (0, (6, 1.6, 1.4, 1.6)))


def _series(x: NDArray[Any], label: str, values: Array) -> NDArray[Any]:
    found = np.atleast_2d(array(values).astype(float))
    if found.ndim != 2 or found.shape[1] != len(x):
        raise ValueError(
            f"{label}: got values of shape {array(values).shape} for {len(x)} places on the axis, expected (seeds, "
            f"{len(x)}) or ({len(x)},); transpose it?"
        )
    return found


def lines_with_band(
    ax: Axes | None,
    x: Array,
    series: Mapping[str, Array],
    band: str = "range",
    xlabel: str | None = None,
    ylabel: str | None = None,
    markers: bool | None = None,
) -> Axes:
    """One line for each label through the mean over seeds, and a band over them.

    x: (n,). series: label -> (seeds, n) or (n,). band: "range" (lowest to highest seed), "sd", "ci" or "none".
    markers: a dot at each x; by default where there are at most 12.
    """
    if band not in BANDS:
        raise ValueError(f"band: got {band!r}, expected one of {', '.join(BANDS)}")
    if not series:
        raise ValueError("lines_with_band: got no series, expected a dict from label to (seeds, n) values")
    ax, place = axes(ax), array(x).astype(float)
    tints = colours(list(series))
    dots = len(place) <= 12 if markers is None else markers
    for i, (label, values) in enumerate(series.items()):
        found = _series(place, label, values)
        sns.lineplot(
            x=np.tile(place, len(found)), y=found.ravel(), ax=ax, label=label, color=tints[label], legend=False,
            errorbar=BANDS[band] if len(found) > 1 else None, seed=0, err_kws={"alpha": 0.2, "linewidth": 0},
            linestyle=DASHES[i // len(COLOURS) % len(DASHES)], linewidth=2, zorder=3,
            marker="o" if dots else None, markersize=5, markeredgecolor=PAPER,
        )  # fmt: skip
    ax.yaxis.grid(True, color=RULE, linewidth=0.8)
    if xlabel is not None or ax.get_xlabel() == "x":
        ax.set_xlabel(xlabel or "")
    if ylabel is not None or ax.get_ylabel() == "y":
        ax.set_ylabel(ylabel or "")
    if len(series) > 1:
        ax.legend()
    return ax


def pck_curve(
    ax: Axes | None,
    thresholds: Array,
    curves: Mapping[str, Array],
    band: str = "range",
    unit: str = "head sizes",
    at: float | None = None,
) -> Axes:
    """PCK over its threshold: label -> (seeds, T) or (T,) in per cent. at: a threshold to mark by a line."""
    ax = axes(ax)
    lines_with_band(ax, thresholds, curves, band, f"threshold ({unit})", "PCK (%)", markers=False)
    ax.set(xlim=(float(array(thresholds).min()), float(array(thresholds).max())), ylim=(0, 101))
    if at is not None:
        ax.axvline(at, color=MUTED, linewidth=1, linestyle=(0, (2, 2)), zorder=1)
    ax.legend(loc="lower right", frameon=True, facecolor=PAPER, edgecolor="none", framealpha=0.85)
    return ax


def error_histogram(
    ax: Axes | None,
    errors: Mapping[str, Array] | Array,
    bins: int = 40,
    unit: str = "px",
    limit: float | None = None,
    median: bool = True,
) -> Axes:
    """How errors are spread: label -> any shape, NaN ignored. limit: the last bin holds all above. median: a line."""
    ax = axes(ax)
    given: Mapping[str, Array] = errors if isinstance(errors, Mapping) else {"": errors}
    flat = {label: array(v).astype(float).ravel() for label, v in given.items()}
    flat = {label: v[np.isfinite(v)] for label, v in flat.items()}
    empty = [label for label, v in flat.items() if not len(v)]
    if empty or not flat:
        raise ValueError(f"error_histogram: no finite errors in {empty or 'an empty dict'}; are all joints unlabelled?")
    top = limit or max(float(v.max()) for v in flat.values()) or 1.0
    low = min(0.0, *(float(v.min()) for v in flat.values()))
    tints = colours(list(flat))
    for label, v in flat.items():
        sns.histplot(
            x=np.minimum(v, top), bins=np.linspace(low, top, bins + 1), stat="percent", element="step", ax=ax,
            color=tints[label], alpha=0.22, linewidth=1.6, label=label or None,
        )  # fmt: skip
        if median:
            ax.axvline(float(np.median(v)), color=tints[label], linewidth=1.2, linestyle=(0, (2, 2)))
    ax.yaxis.grid(True, color=RULE, linewidth=0.8)
    ax.set(xlabel=f"error ({unit})", ylabel="share (%)", xlim=(low, top))
    if len(flat) > 1:
        ax.legend()
    return ax


def heat_table(ax: Axes | None, frame: pd.DataFrame, fmt: str = ".1f", cmap: Colormap | str | None = None) -> Axes:
    """A table with its cells tinted by value; what is not finite shows as a dash."""
    if frame.empty:
        raise ValueError("heat_table: got an empty table")
    ax = axes(ax)
    values = frame.astype(float)
    known = values.to_numpy()[np.isfinite(values.to_numpy())]
    if not len(known):
        raise ValueError("heat_table: the table holds no finite number")
    margin = 1.0 if known.min() == known.max() else 0.0
    sns.heatmap(
        values, ax=ax, annot=True, fmt=fmt, cmap=cmap or _soft(), cbar=False, mask=~np.isfinite(values), linewidths=1.5,
        linecolor=PAPER, vmin=known.min() - margin, vmax=known.max() + margin, annot_kws={"fontsize": 9, "color": INK},
    )  # fmt: skip
    for r, c in zip(*np.nonzero(~np.isfinite(values.to_numpy())), strict=True):
        ax.text(c + 0.5, r + 0.5, "–", ha="center", va="center", color=MUTED)
    ax.tick_params(length=0, labelrotation=0)
    ax.set(xlabel=frame.columns.name or "", ylabel=frame.index.name or "")
    ax.xaxis.tick_top()
    ax.xaxis.set_label_position("top")
    return ax


def _soft() -> Colormap:
    """The lighter part of the heat colours, on which dark figures are legible throughout."""
    return sns.blend_palette([HEAT(v) for v in (0.02, 0.14, 0.26, 0.38)], as_cmap=True)


def bars_with_points(
    ax: Axes | None, values: Mapping[str, Array], ylabel: str = "", fmt: str = ".1f", zero: bool = True
) -> Axes:
    """A bar to the mean and a dot for every seed: label -> (seeds,). zero=False lets the axis begin above 0."""
    ax = axes(ax)
    flat = {label: np.atleast_1d(array(v).astype(float)).ravel() for label, v in values.items()}
    broken = [label for label, v in flat.items() if not len(v) or not np.isfinite(v).all()]
    if broken or not flat:
        raise ValueError(
            f"bars_with_points: {broken or 'nothing'} without finite values; leave labels without runs out"
        )
    tints = colours(list(flat))
    every = np.concatenate(list(flat.values()))
    span = float(every.max() - every.min()) or abs(float(every.max())) or 1.0
    base = min(0.0, float(every.min())) if zero else float(every.min()) - 0.35 * span
    for i, (label, v) in enumerate(flat.items()):
        ax.bar(i, v.mean() - base, bottom=base, width=0.62, color=tints[label], alpha=0.26, linewidth=0, zorder=2)
        ax.hlines(v.mean(), i - 0.31, i + 0.31, color=tints[label], linewidth=2, zorder=3)
        spread = np.linspace(-0.14, 0.14, len(v)) if len(v) > 1 else np.zeros(1)
        ax.scatter(i + spread, v, s=26, color=tints[label], edgecolors=PAPER, linewidths=0.8, zorder=4)
        ax.annotate(
            format(v.mean(), fmt), (i, v.max()), (0, 7), textcoords="offset points", ha="center", fontsize=9, color=INK
        )
    ax.yaxis.grid(True, color=RULE, linewidth=0.8)
    ax.set(
        xticks=range(len(flat)),
        xticklabels=list(flat),
        ylabel=ylabel,
        ylim=(base, every.max() + 0.14 * (every.max() - base)),
    )
    ax.tick_params(axis="x", length=0)
    return ax
