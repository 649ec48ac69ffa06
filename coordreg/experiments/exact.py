"""Rows that need no training: what an exact check computes, live, whenever the ledger is read."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Exact:
    """Our count beside the printed one. ours: the figures in words. matches: False is a misprint, `note` says why."""

    ours: str
    matches: bool
    note: str = ""
