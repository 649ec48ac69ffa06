"""Chapter 3, Tompson's cascade: a coarse network finds the joint's neighbourhood, a fine one the joint in it.

Pooling makes the coarse maps cheap and blind to where in a cell a joint lies. The cascade cuts windows about the coarse
answers out of the features that the coarse network has computed already, before they were pooled away, and looks for
the joint in there on a map as fine as the image. The coarse network itself is `backbones/multires.py`. Equation numbers
are the chapter's. Source: Tompson et al., CVPR 2015.

What the paper leaves open and is our choice: squared errors are means over the cells of a map and over labelled joints;
a joint outside its window does not train the fine network, and the share of such joints is reported; while the coarse
network is held fixed its dropout is off, so that windows lie where they will lie at test time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coordreg.backbones.multires import Banks
from coordreg.coords import Batch, Labels, Pairs, Points
from coordreg.heatmap import MSE, Argmax, Compares, Draws, Gaussian, Heatmap
from coordreg.method import Estimator, Maps, Method, averaged, both_sides
from coordreg.windows import FineNet, Window, local, locate

# -- coarse and fine together ------------------------------------------------------------------------------------------


class Cascaded(NamedTuple):
    """coarse: (B, J, h, w). windows: one for each level of refinement; none while the coarse network trains alone."""

    coarse: Tensor
    windows: tuple[Window, ...]


class Levels(Maps):
    """What a cascade's head produces: see Cascaded."""

    ndim = 0

    @staticmethod
    def unflip(output: Any, pairs: Pairs) -> Any:
        """Refused: windows of a mirrored image lie elsewhere. `Cascade.predict` averages points instead."""
        raise ValueError(
            "cascade: windows of a mirrored image cannot be averaged with those of the image; average the points, "
            'flip="points"'
        )

    @staticmethod
    def merge(outputs: Sequence[Any]) -> Any:
        """Refused, for the same reason."""
        raise ValueError("cascade: outputs of several networks lie in different windows; average their points")


class CascadeHead(nn.Module):
    """The coarse network's head and the refinements behind it: Banks -> Cascaded.

    coarse: Banks -> maps, a SlidingHead. fine: one FineNet a level, each about the answer of the one before.
    """

    produces = Levels

    def __init__(self, coarse: nn.Module, fine: Sequence[FineNet]) -> None:
        super().__init__()
        if not fine:
            raise ValueError("CascadeHead: got no FineNet, expected at least one; without one it is the coarse network")
        self.coarse, self.fine = coarse, nn.ModuleList(fine)

    def refine(self, banks: Banks, coarse: Float[Tensor, "B J h w"]) -> tuple[Window, ...]:
        """One Window a level: about the coarse maximum, then about the maximum of the level before, equation (3.4)."""
        about, windows = Argmax()(_full(coarse)).coords, []
        for fine in self.fine:
            window = fine(banks, about)
            about = locate(window, Argmax()(_full(window.maps)))
            windows.append(window)
        return tuple(windows)

    def forward(self, banks: Banks) -> Cascaded:
        """Banks -> Cascaded."""
        coarse = self.coarse(banks)
        return Cascaded(coarse, self.refine(banks, coarse))


def _full(maps: Tensor) -> Tensor:
    """Half precision -> float32: a place read off half-precision maps would be rounded to half a pixel."""
    return maps.float() if maps.dtype in (torch.float16, torch.bfloat16) else maps


# -- the method --------------------------------------------------------------------------------------------------------


ARGMAX = Argmax()


@dataclass(frozen=True)
class Refined:
    """Read the last window's map, add it to the window's place, equation (3.4). The score is the coarse maximum."""

    decoder: Callable[[Tensor], Points] = ARGMAX

    def __call__(self, output: Cascaded) -> Points:
        """Cascaded -> Points."""
        window = output.windows[-1]
        return Points(locate(window, self.decoder(window.maps)), Argmax()(output.coarse).score)


@dataclass(frozen=True)
class Coarse:
    """Read the coarse map alone, by any decoder: what the same network says without its refinement."""

    decoder: Callable[[Tensor], Points] = ARGMAX

    def __call__(self, output: Cascaded) -> Points:
        """Cascaded -> Points."""
        return self.decoder(output.coarse)


#: The three steps of the training.
PHASES = ("coarse", "fine", "joint")


class CascadeMethod(Method):
    """The three losses, equation (3.6), one after the other.

    coarse: Gaussian and loss of the coarse maps, E1. fine: those of the windows, E2; sigma in input pixels.
    weight: lambda of E1 + lambda E2; with several levels E2 is their sum. phases: training steps of E1 alone, then of
    E2 alone with the coarse network held fixed; all steps after them train both. decoder: Refined(...) or Coarse(...).
    """

    reads = Levels
    seen: Tensor

    def __init__(
        self,
        coarse: Draws = Gaussian(1.5),
        fine: Draws = Gaussian(1.5),
        loss: Compares = MSE(),
        weight: float = 0.1,
        phases: tuple[int, int] = (0, 0),
        decoder: Callable[[Cascaded], Points] = Refined(),
    ) -> None:
        super().__init__()
        if min(phases) < 0 or not weight > 0:
            raise ValueError(
                f"CascadeMethod: got phases={phases}, weight={weight}, expected two numbers of steps from 0 and a "
                "weight above 0"
            )
        self.coarse = Heatmap(coarse, loss, Argmax())
        self.fine = Heatmap(fine, loss, Argmax())
        self.weight, self.phases, self.decoder = weight, tuple(phases), decoder
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    @property
    def phase(self) -> str:
        """What the next training step trains: "coarse", "fine" or "joint"."""
        seen, (first, second) = int(self.seen), self.phases
        return PHASES[int(seen >= first) + int(seen >= first + second)]

    def encode(self, labels: Labels, size: Sequence[int]) -> Any:
        """The coarse target on a grid of `size`; the fine one depends on where the windows lie: `local`."""
        return self.coarse.encode(labels, size)

    def loss(self, output: Cascaded, labels: Labels) -> dict[str, Tensor]:
        """The parts "coarse", "fine" and "lost", the share of labelled joints outside their last window, and "loss"."""
        coarse = self.coarse.loss(output.coarse, labels)["loss"]
        if not output.windows:
            return {"coarse": coarse, "loss": coarse}
        fine = coarse.new_zeros(())
        for window in output.windows:
            inner = local(window, labels)
            fine = fine + self.fine.loss(window.maps, inner)["loss"]
        known = labels.weight.amin(-1) > 0
        lost = (known & (inner.weight.amin(-1) == 0)).sum() / known.sum().clamp_min(1)
        total = {"coarse": coarse, "fine": fine, "joint": coarse + self.weight * fine}[self.phase]
        return {"coarse": coarse, "fine": fine, "lost": lost, "loss": total}

    def decode(self, output: Cascaded) -> Points:
        """Points by the decoder, from the maps as the loss means them."""
        coarse = self.coarse.compare.activate(_full(output.coarse))
        windows = [w._replace(maps=self.fine.compare.activate(_full(w.maps))) for w in output.windows]
        return self.decoder(Cascaded(coarse, tuple(windows)))


class Cascade(Estimator):
    """MultiRes -> CascadeHead -> CascadeMethod, trained in three steps.

    While the coarse network trains alone the fine one is not run; while the fine one trains alone nothing flows back
    into the coarse network, whose weights the optimiser then leaves alone.
    """

    head: CascadeHead
    method: CascadeMethod

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The method's loss on a batch, by the phase that the training is in."""
        phase = self.method.phase
        if phase == "fine":
            self.head.coarse.eval()
        with torch.set_grad_enabled(torch.is_grad_enabled() and phase != "fine"):
            banks = self.backbone((batch.images - self.mean) / self.std)
            coarse = self.head.coarse(banks)
        self.head.coarse.train(self.training)
        windows = () if phase == "coarse" else self.head.refine(banks, coarse)
        parts = self.method.loss(Cascaded(coarse, windows), batch.labels)
        if self.training:
            self.method.seen += 1
        return parts

    @torch.no_grad()
    def predict(
        self, images: Float[Tensor, "B 3 H W"], hint: Tensor | None = None, flip: Pairs | None = None
    ) -> Points:
        """As `Estimator.predict`; with `flip` the points of the image and of its mirror image are averaged."""
        if flip is None:
            return super().predict(images, hint)
        return averaged(*both_sides(super().predict, images, hint, flip))


__all__ = [
    "PHASES", "Cascade", "CascadeHead", "CascadeMethod", "Cascaded", "Coarse", "FineNet", "Levels", "Refined", "Window",
]  # fmt: skip
