"""The look of the book's figures: colours, type, paper.

Paper and ink. The book has a light and a dark theme, a figure is one picture. So figures carry their own ground, a soft
off-white with dark ink, in both themes: a colour printed in a figure then means one thing everywhere, and nothing is
legible in one theme only (the page rounds the corners of the card). Pictures are PNG at twice the page's resolution.

Colours. The eight colours of methods go back to Okabe and Ito's set, moved until every one has a contrast of at least
3 : 1 with the paper and any two stay apart for people with normal, red-blind or green-blind sight. A method keeps its
colour in the whole book.
"""

import contextlib
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.text import Text

PAPER, INK, MUTED, RULE = "#fbfaf7", "#1b2430", "#59626e", "#dad5c8"
#: Width of a figure that fills the text, in inches: 750 pixels of the page.
WIDTH = 7.5
#: One colour for each method.
COLOURS = {
    "argmax": "#b2352b",
    "quarter": "#1a49b9",
    "second": "#39a16b",
    "dark": "#d07a00",
    "dsnt": "#1b2430",
    "integral": "#0094e9",
    "regression": "#5c5a5b",
    "poseur": "#9076a6",
}
#: Other names under which the methods of COLOURS appear in tables.
ALIASES = {
    "quarter shift": "quarter",
    "sign": "quarter",
    "hm": "quarter",
    "fc": "dark",
    "dsntr": "second",
    "h1": "quarter",
    "h2": "dark",
    "h3": "second",
    "i*": "integral",
    "soft-argmax": "integral",
    "expectation": "dsnt",
    "rle": "poseur",
    "mean pose": "regression",
    "r1": "regression",
    "centre": "dsnt",
    "stride": "argmax",
    "unit": "integral",
}
#: Colours on photographs and drawn figures, each with a dark rim: the person's left, right, and middle.
SIDES = {"left": "#ff9d2e", "right": "#5cc4ff", "middle": "#fff6dd"}
#: Low to high: paper, amber, the book's orange, dark red, nearly black; lightness falls evenly.
HEAT = LinearSegmentedColormap.from_list("coordreg", ["#f7f4ec", "#fbd08d", "#ef8a2f", "#b73a1c", "#5f1420", "#22070f"])

RC: Any = {
    "figure.facecolor": PAPER,
    "figure.edgecolor": PAPER,
    "figure.figsize": (WIDTH, 3.4),
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.07,
    "figure.constrained_layout.h_pad": 0.07,
    "savefig.facecolor": PAPER,
    "savefig.dpi": 200,
    "svg.hashsalt": "coordreg",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.facecolor": PAPER,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "axes.titlepad": 7,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=list(COLOURS.values())),
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "legend.handlelength": 1.6,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "patch.linewidth": 0.8,
    "patch.edgecolor": PAPER,
    "image.cmap": "coordreg",
    "image.interpolation": "nearest",
}

with contextlib.suppress(ValueError):  # already registered when the module is loaded again
    mpl.colormaps.register(HEAT)


class _Style(contextlib.AbstractContextManager[None]):
    """What `style` returns; leaving a `with` block puts the former settings back."""

    def __init__(self) -> None:
        self.before = dict(mpl.rcParams)
        mpl.rcParams.update(RC)
        _inline()

    def __exit__(self, *error: Any) -> None:
        self.before.pop("backend", None)
        mpl.rcParams.update(self.before)

    def __repr__(self) -> str:
        return "house style on"


def style() -> _Style:
    """Set the house style, for good or for a `with style():` block. In a notebook, pictures become sharp PNGs."""
    return _Style()


def _inline() -> None:
    """In a notebook: PNG at twice the resolution, whole figures (constrained layout has cut the margins already)."""
    try:
        from IPython.core.getipython import get_ipython
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:
        return
    if getattr(get_ipython(), "kernel", None) is not None:
        set_matplotlib_formats("retina", bbox_inches=None, facecolor=PAPER)


def colour(name: str) -> str:
    """The colour of a method by name, such as "argmax", "quarter shift" or "DARK"."""
    key = name.strip().lower()
    key = ALIASES.get(key, key)
    if key not in COLOURS:
        raise ValueError(f"colour: got {name!r}, expected one of {', '.join([*COLOURS, *ALIASES])}")
    return COLOURS[key]


def colours(names: list[str]) -> dict[str, str]:
    """A colour for each label: its own where it is a method, otherwise the next free one."""
    own = {n: COLOURS[ALIASES.get(n.lower(), n.lower())] for n in names if ALIASES.get(n.lower(), n.lower()) in COLOURS}
    if len(set(own.values())) < len(own):  # two labels of one method: the fixed colours cannot tell them apart
        own = {}
    order = [COLOURS[k] for k in ("quarter", "dark", "second", "argmax", "integral", "dsnt", "poseur", "regression")]
    free = iter([c for c in order if c not in own.values()] * len(names))
    return {n: own[n] if n in own else next(free) for n in names}


def axes(ax: Axes | None, **kwargs: Any) -> Axes:
    """The Axes given, or those of a new figure in the house style."""
    if ax is not None:
        return ax
    with mpl.rc_context(RC):
        return plt.subplots(**kwargs)[1]


def panels(rows: int = 1, columns: int = 1, height: float | None = None, **kwargs: Any) -> tuple[Figure, Any]:
    """A figure as wide as the text with rows x columns Axes, and the Axes as an array (rows, columns).

    height: inches of the whole figure; without it the panels are about square. Further arguments go to `subplots`.
    """
    tall = height if height is not None else rows * (WIDTH / columns + 0.25)
    return plt.subplots(rows, columns, figsize=(WIDTH, tall), squeeze=False, **kwargs)


def caption_profile(text: str, figure: Figure | None = None) -> Text:
    """Write where the numbers come from ("cpu profile, 3 seeds") small under the figure, flush right."""
    if not text.strip():
        raise ValueError(
            'caption_profile: got an empty text, expected the origin of the numbers, such as "cpu, 3 seeds"'
        )
    return (figure or plt.gcf()).supxlabel(text, x=0.995, ha="right", fontsize=8, color=MUTED)
