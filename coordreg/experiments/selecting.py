"""Chapter 3, whose joints? One detector, read alone and through several spatial models that are trained beside it.

Every reading is of the same weights, so that nothing but the spatial model differs. Data: drawn people of half the
picture's height anywhere in it, with a second person or without; which one is meant, only the torso point says.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coordreg.coords import Batch, Pairs, Points
from coordreg.data.figures import Figures
from coordreg.data.mixed import Joined
from coordreg.data.skeletons import MPII16
from coordreg.heatmap import Argmax, Heatmap
from coordreg.messages import corners, tree
from coordreg.method import Estimator, evaluating
from coordreg.mrf import AllPairs, SpatialModel, merged
from coordreg.spec import Spec, spec

#: How large people are and how far from the middle, as shares of the picture: two of them find place in it.
HEIGHT, SHIFT = (0.5, 0.7), 0.25
#: The share of training pictures with a second person.
CROWDED = 0.5


class Known(NamedTuple):
    """What a spatial model measures displacements on; see `Store`. coords, weight: (N, J, 2). hint: (N, 2)."""

    coords: Tensor
    weight: Tensor
    hint: Tensor


@dataclass(frozen=True)
class Undrawn:
    """The labels of figures without their pictures, which displacements do not need: opened in no time."""

    data: Figures

    def open(self) -> Known:
        """The labels as the figures' own store has them."""
        truth = self.data.scene_labels(torch.arange(self.data.count))
        return Known(truth.coords, torch.ones_like(truth.coords), truth.hint)


@dataclass(frozen=True)
class Through:
    """Read by `decoder` what the spatial model of this name makes of the maps.

    blind: of maps that are alike everywhere instead, which leaves what the torso point says without the picture.
    """

    name: str
    decoder: Callable[[Tensor], Points] = Argmax()  # noqa: RUF009
    blind: bool = False

    def __call__(self, maps: Float[Tensor, "B J H W"]) -> Points:
        """Refused: the spatial model needs the torso point, which `Selecting.predict` has."""
        raise ValueError(f"Through({self.name!r}): maps alone say nothing of the torso; read a Selecting network")


class Selecting(Estimator):
    """A heatmap network that trains as if alone, and spatial models each on its maps, by equation (3.14).

    names, spatial: the models by name. Those without parameters take no part in the training. The method's decoder says
    what is read: `Through(name)`, which needs the hint, or any other decoder, which reads the detector's own maps.
    """

    method: Heatmap

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        method: Heatmap,
        names: Sequence[str],
        spatial: Sequence[SpatialModel],
    ) -> None:
        super().__init__(backbone, head, method)
        if len(set(names)) != len(spatial) or not names:
            raise ValueError(f"Selecting: got names {tuple(names)} for {len(spatial)} models, expected one for each")
        self.spatial = nn.ModuleDict(dict(zip(names, spatial, strict=True)))

    @property
    def models(self) -> dict[str, SpatialModel]:
        """The spatial models by name."""
        return {name: model for name, model in self.spatial.items() if isinstance(model, SpatialModel)}

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The method's parts, a part for each trained model, and "loss", the sum of the method's and of these."""
        output = self(batch.images)
        parts = self.method.loss(output, batch.labels)
        maps = self.method.compare.activate(output).detach()
        target = self.method.encode(batch.labels, maps.shape[-2:])
        total = parts["loss"]
        for name, model in self.models.items():
            if any(p.requires_grad for p in model.parameters()):
                hint, known = model.where(batch.labels, batch.hint)
                parts[name] = model.loss(maps, target.maps, target.weight * known[:, None], hint)
                total = total + parts[name]
        return {**parts, "loss": total}

    @torch.no_grad()
    def predict(
        self, images: Float[Tensor, "B 3 H W"], hint: Tensor | None = None, flip: Pairs | None = None
    ) -> Points:
        """As `Estimator.predict`; read `Through` a model, the points of the person about `hint` (B, 2)."""
        with evaluating(self):
            output, read = merged(self, images, flip), self.method.decoder
            if not isinstance(read, Through):
                return self.method.decode(output)
            if read.name not in self.models:
                raise ValueError(f"Selecting: got the model {read.name!r}, expected one of {', '.join(self.models)}")
            maps = torch.ones_like(output) if read.blind else self.method.compare.activate(output)
            return read.decoder(self.models[read.name](maps, hint))


# -- what the experiment is made of -----------------------------------------------------------------------------------


def crowd(split: str, count: int, size: int, noise: float, chance: float) -> Figures:
    """Figures that share their picture with a second person by this chance."""
    return Figures(
        split=split, count=count, size=size, label_noise=noise, distractor=chance, height=HEIGHT, shift=SHIFT
    )


def both_ways(count: int, size: int, noise: float) -> Joined:
    """Test figures, each of `count` / 2 people twice: first all with a second person beside them, then all alone."""
    return Joined(tuple(crowd("test", count // 2, size, noise, chance) for chance in (1.0, 0.0)))


def selecting(detector: Spec, cells: int, train: Figures) -> Spec:
    """A coarse network with the tree, from histograms and learnt, and with all pairs from histograms.

    cells: a side of the maps. All start from the displacements of the training labels.
    """
    known = Undrawn(replace(train, augment=None))
    common = {"parents": tree(MPII16), "size": (cells, cells), "priors": known, "torso": corners(MPII16)}
    models = {
        "tree": spec(SpatialModel, **common, learnt=False),
        "learnt": spec(SpatialModel, **common),
        "pairs": spec(AllPairs, **common, learnt=False),
    }
    parts = {name: detector[name] for name in ("backbone", "head", "method")}
    return spec(Selecting, **parts, names=tuple(models), spatial=tuple(models.values()))


__all__ = [
    "CROWDED", "HEIGHT", "SHIFT", "Known", "Selecting", "Through", "Undrawn", "both_ways", "crowd", "selecting",
]  # fmt: skip
