"""Several trained networks as one: their maps are averaged, and the average is decoded (challenge entries do so).

Averaging maps before decoding is not averaging points: where two networks disagree, the mean of two points lies
between them, where neither saw anything, while the summed maps keep two peaks and the higher one wins.
"""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from coordreg.coords import Batch
from coordreg.method import Estimator, Staged

#: What of a method decides how its maps are read; all members need the same.
READ = ("compare", "activation", "decoder", "dims", "flip_shift")


class Ensemble(Estimator):
    """An `Estimator` whose output is the mean of the outputs of `members`; it predicts and cannot be trained.

    members: trained estimators whose methods are of one kind and read alike. Of a network in stages the last counts, so
    that it may stand beside one without. With the flip test the outputs for the images and the mirrored ones of those
    for the mirror images are averaged, each with the same weight. Raises ValueError for members that do not fit, here
    or, where their outputs differ in shape, when they see their first images.
    """

    def __init__(self, members: Sequence[Estimator]) -> None:
        nn.Module.__init__(self)
        if not members:
            raise ValueError("Ensemble: got no members, expected trained estimators")
        for member in members:
            if type(member).predict is not Estimator.predict:
                raise ValueError(
                    f"Ensemble: a {type(member).__name__} reads more than its maps, which cannot be averaged; average "
                    "the points of its predictions"
                )
        self.members = nn.ModuleList(members)
        self.method = last(members[0])
        first = told(members[0])
        for i, member in enumerate(members[1:], 1):
            other = told(member)
            if other != first:
                name = next(n for n in first | other if first.get(n) != other.get(n))
                raise ValueError(
                    f"Ensemble: members 0 and {i} do not read their maps alike: {name} is {first.get(name)!r} here "
                    f"and {other.get(name)!r} there; give both the same method and decoder"
                )
        if len(members) > 1 and any(True for _ in self.method.parameters()):
            raise ValueError(
                f"Ensemble: {type(self.method).__name__} has learnt how to read its own network's maps, which have no "
                "unit in common with another's; expected a method without parameters, such as Heatmap"
            )

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Any:
        """Images in [0, 1] -> the mean of the members' outputs; each member normalises the images for itself."""
        outputs = []
        for member in self.members:
            output = member(images)
            outputs.append(output[-1] if isinstance(output, list | tuple) else output)
        shapes = [tuple(output.shape[1:]) for output in outputs]
        if len(set(shapes)) > 1:
            raise ValueError(
                f"Ensemble: from images of {images.shape[-2]} x {images.shape[-1]} px the members make "
                f"{' and '.join(map(str, dict.fromkeys(shapes)))} (joints first), expected one shape; maps can be "
                "averaged cell by cell only"
            )
        return self.method.merge(outputs)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """ValueError: an ensemble is not trained."""
        raise ValueError("Ensemble: cannot be trained; train its members one by one")


def last(estimator: Estimator) -> Any:
    """The method that reads the last of several stages, or the only output."""
    return estimator.method.method if isinstance(estimator.method, Staged) else estimator.method


def told(estimator: Estimator) -> dict[str, Any]:
    """How an estimator's output is read: the kind of method, and those of READ that it has."""
    method = last(estimator)
    return {"method": type(method).__name__, **{n: getattr(method, n) for n in READ if hasattr(method, n)}}


__all__ = ["READ", "Ensemble", "last", "told"]
