"""Every table and figure of the five papers, as data: what is printed and how it can be checked."""

from coordreg.papers import cascade, dark, dsnt, integral, poseur
from coordreg.papers.row import HOW, Row

#: Titles by key, in the order of the chapters.
PAPERS = {
    "cascade": "Tompson et al. 2015, Efficient object localization using convolutional networks",
    "dsnt": "Nibali et al. 2018, Numerical coordinate regression with convolutional neural networks",
    "integral": "Sun et al. 2018, Integral human pose regression",
    "dark": "Zhang et al. 2020, Distribution-aware coordinate representation for human pose estimation",
    "poseur": "Mao et al. 2022, Poseur: direct human pose regression with transformers",
}

ROWS: tuple[Row, ...] = (*cascade.ROWS, *dsnt.ROWS, *integral.ROWS, *dark.ROWS, *poseur.ROWS)

__all__ = ["HOW", "PAPERS", "ROWS", "Row"]
