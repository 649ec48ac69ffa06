"""One table, figure or claim of a paper, as the ledger counts them."""

from dataclasses import dataclass

#: Ways to answer for a row. A row may need several: "exact + trend".
HOW = {
    "exact": "needs no training data: the printed figure itself is the target",
    "trend": "the same comparison on our data must show the same order, with an interval over images and seeds",
    "recipe": "belongs to the paper's own data set: run by whoever has the data",
    "drawing": "a schematic or a picture of predictions, drawn again from live tensors",
}

#: Notebooks that may owe a row.
CHAPTERS = ("heatmap", "cascade", "dsnt", "integral", "dark", "poseur")


@dataclass(frozen=True)
class Row:
    """What a paper prints and how we answer for it.

    paper: its key in PAPERS. figures: what is printed, in the paper's units. how: keys of HOW joined by " + ".
    chapter: the notebook that owes the counterpart. misprint: where an honest count differs from a printed figure.
    """

    id: str
    paper: str
    what: str
    figures: str
    how: str
    chapter: str
    misprint: str = ""

    def __post_init__(self) -> None:
        unknown = [part for part in self.parts if part not in HOW]
        if unknown or self.chapter not in CHAPTERS or not self.id.startswith(f"{self.paper}-"):
            raise ValueError(
                f"Row {self.id!r}: got how={self.how!r}, chapter={self.chapter!r}, paper={self.paper!r}; expected "
                f"{', '.join(HOW)} joined by ' + ', one of {', '.join(CHAPTERS)}, and an id that begins with the paper"
            )

    @property
    def parts(self) -> tuple[str, ...]:
        """The ways of `how`, one by one."""
        return tuple(self.how.split(" + "))
