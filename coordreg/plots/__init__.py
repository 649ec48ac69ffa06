"""Figures of the book, in one style: pictures with joints and maps on them, charts of results, tables beside papers'.

    from coordreg import plots
    plots.style()                                       # once a notebook
    plots.skeleton(ax, points, MPII16)                  # index pixels, or size=(H, W) for normalised coordinates
    plots.heatmap(ax, map, image=image, truth=(x, y))
    plots.pck_curve(ax, thresholds, {"argmax": curves})

Every function draws on the Axes it is given (None: a new one) and returns it.
"""

from coordreg.plots.charts import bars_with_points, error_histogram, heat_table, lines_with_band, pck_curve
from coordreg.plots.look import COLOURS, HEAT, INK, PAPER, SIDES, caption_profile, colour, panels, style
from coordreg.plots.pictures import heatmap, image_grid, picture, pixel_grid, skeleton
from coordreg.plots.tables import Table, paper_beside_ours, table

__all__ = [
    "COLOURS",
    "HEAT",
    "INK",
    "PAPER",
    "SIDES",
    "Table",
    "bars_with_points",
    "caption_profile",
    "colour",
    "error_histogram",
    "heat_table",
    "heatmap",
    "image_grid",
    "lines_with_band",
    "panels",
    "paper_beside_ours",
    "pck_curve",
    "picture",
    "pixel_grid",
    "skeleton",
    "style",
    "table",
]
