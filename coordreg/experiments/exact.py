"""Rows that need no training: what an exact check computes, live, whenever the ledger is read."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Exact:
    """Our count beside the printed one. ours: the figures in words. matches: False is `otherwise`, `note` says why.

    otherwise: "misprint" for a printed figure that an honest count does not give; "not reproduced" for what a paper
    argues or draws and our own measurement does not show.
    """

    ours: str
    matches: bool
    note: str = ""
    otherwise: str = "misprint"
