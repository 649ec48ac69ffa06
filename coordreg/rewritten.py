"""Definitions that were rewritten, for speed say, and whose results are the same bit for bit.

A record names the hash of every definition that its run used (`coordreg.fingerprint`). An entry here says that a form
with one hash and the form as it stands give the same results, so that the record of the one is not stale under the
other. It holds for exactly these two forms: after any further change the records are stale, until the earlier forms
have been compared with the new one and its hash stands here. `tests/earlier_forms.py` keeps every earlier form as it
was, and `tests/test_rewritten.py` computes the hashes and compares the results.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rewrite:
    """One earlier form of a definition and the present one, by their hashes in a fingerprint.

    name: the definition, as a fingerprint names it. came: (name, hash) of each definition that only the present form
    reaches. gone: the same of those that only the earlier form reached.
    """

    name: str
    earlier: str
    present: str
    came: tuple[tuple[str, str], ...] = ()
    gone: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.earlier == self.present:
            raise ValueError(
                f"Rewrite: {self.name} has the hash {self.present} before and after, expected two; "
                "a form that did not change needs no entry"
            )


REWRITTEN = (
    # fewer calls of torch: the neighbours of each cell are listed once for each size of map
    Rewrite(
        "coordreg.heatmap.QuarterSign",
        earlier="e9c3e65a",
        present="71e207af",
        came=(("coordreg.heatmap._around", "39cc3f81"),),
    ),
)
