"""The one interface: a Method says what to learn and how to read it; an Estimator is backbone + head + method.

Six systems differ in four functions: `encode` (labels -> target), `loss`, `decode` (network output -> points) and how
outputs of a mirrored image, or of several models, are put together.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coordreg.coords import Batch, Labels, Pairs, Points, flip_coords, flip_images, swap

# -- what a head produces and a method reads --------------------------------------------------------------------------


class Maps:
    """One heatmap a joint: (B, J, H, W)."""

    ndim = 4

    @staticmethod
    def unflip(output: Any, pairs: Pairs) -> Any:
        """Undo a mirror: reverse the columns and swap left and right joints."""
        return swap(output.flip(-1), pairs)

    @staticmethod
    def merge(outputs: Sequence[Any]) -> Any:
        """Average the outputs of several passes or models."""
        return torch.stack(list(outputs)).mean(0)


class Volumes(Maps):
    """One volume a joint: (B, J, D, H, W)."""

    ndim = 5


class Vectors(Maps):
    """One point a joint: (B, J, d)."""

    ndim = 3

    @staticmethod
    def unflip(output: Any, pairs: Pairs) -> Any:
        """Undo a mirror: x changes sign and left and right joints swap."""
        mirror = torch.ones(output.shape[-1], device=output.device, dtype=output.dtype)
        mirror[0] = -1
        return swap(output, pairs) * mirror


class Stages(Maps):
    """A list of outputs, one a stage; the method that reads it knows what a stage holds and flips it (see Staged)."""

    ndim = 0


# -- method -----------------------------------------------------------------------------------------------------------


class Method(nn.Module):
    """What a chapter adds. Subclasses set `reads` and write `encode`, `loss` and `decode`."""

    reads: type[Maps] = Maps

    def encode(self, labels: Labels, size: Sequence[int]) -> Any:
        """The target for `labels` on a grid of `size`; pure, on the labels' device."""
        raise NotImplementedError

    def loss(self, output: Any, labels: Labels) -> dict[str, Tensor]:
        """Scalars: the unweighted parts by name, and "loss", which is minimised. Finite where the weight is 0."""
        raise NotImplementedError

    def decode(self, output: Any) -> Points:
        """Network output -> normalised coordinates with a score."""
        raise NotImplementedError

    def unflip(self, output: Any, pairs: Pairs) -> Any:
        """Output for a mirrored image -> output as for the image itself (flip test)."""
        return self.reads.unflip(output, pairs)

    def merge(self, outputs: Sequence[Any]) -> Any:
        """Outputs of several passes or models -> one output."""
        return self.reads.merge(outputs)


class Staged(Method):
    """Intermediate supervision: the losses of all stages add up, the last stage is decoded (hourglass practice)."""

    reads = Stages

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def encode(self, labels: Labels, size: Sequence[int]) -> Any:
        """The target of one stage; all stages share it."""
        return self.method.encode(labels, size)

    def loss(self, output: Sequence[Any], labels: Labels) -> dict[str, Tensor]:
        """Sum over the stages of the method's own loss; the parts are named stage0, stage1, ..."""
        if not isinstance(output, list | tuple) or not output:
            raise ValueError(
                f"Staged: got {type(output).__name__}, expected a non-empty list of stage outputs; "
                "use the method itself for a network with one output"
            )
        parts = {f"stage{i}": self.method.loss(stage, labels)["loss"] for i, stage in enumerate(output)}
        return {**parts, "loss": torch.stack(list(parts.values())).sum()}

    def decode(self, output: Sequence[Any]) -> Points:
        """Points of the last stage."""
        return self.method.decode(output[-1])

    def unflip(self, output: Sequence[Any], pairs: Pairs) -> list[Any]:
        """Undo a mirror in every stage."""
        return [self.method.unflip(stage, pairs) for stage in output]

    def merge(self, outputs: Sequence[Sequence[Any]]) -> list[Any]:
        """Average stage by stage."""
        return [self.method.merge(stage) for stage in zip(*outputs, strict=True)]


# -- estimator --------------------------------------------------------------------------------------------------------

#: Mean and standard deviation of ImageNet's RGB channels, which published weights expect.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Estimator(nn.Module):
    """backbone -> head -> method: images in [0, 1] to points.

    Raises ValueError at construction if the head does not produce what the method reads.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, head: nn.Module, method: Method) -> None:
        super().__init__()
        produces = getattr(head, "produces", None)
        if produces is not method.reads:
            raise ValueError(
                f"Estimator: {type(method).__name__} reads {method.reads.__name__} but the head {type(head).__name__} "
                f"produces {getattr(produces, '__name__', 'nothing it declares')}; choose a head with "
                f"`produces = {method.reads.__name__}`"
            )
        self.backbone, self.head, self.method = backbone, head, method
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Any:
        """Images in [0, 1] -> the head's output. Subtracts ImageNet's mean and divides by its deviation first."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(
                f"Estimator: got images of shape {tuple(images.shape)}, expected (B, 3, H, W) in [0, 1]; "
                "add a batch axis with images[None], or repeat a grey channel three times"
            )
        return self.head(self.backbone((images - self.mean) / self.std))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The method's loss on a batch: unweighted parts and "loss"."""
        return self.method.loss(self(batch.images), batch.labels)

    @torch.no_grad()
    def predict(
        self, images: Float[Tensor, "B 3 H W"], hint: Tensor | None = None, flip: Pairs | None = None
    ) -> Points:
        """Points for images in [0, 1], in evaluation mode; the training mode is put back afterwards.

        hint: (B, d), what the data set gives at test time; only methods that use one look at it.
        flip: pairs of left and right joints; given, the mirrored image is predicted too and the outputs are merged.
        """
        modes = {module: module.training for module in self.modules()}  # a frozen layer stays frozen
        self.eval()
        try:
            output = self(images)
            if flip is not None:
                mirrored = self.method.unflip(self(flip_images(images)), flip)
                output = self.method.merge([output, mirrored])
            return self.method.decode(output)
        finally:
            for module, mode in modes.items():
                module.training = mode


# -- for estimators with a `predict` of their own ---------------------------------------------------------------------


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; each part's own mode is put back afterwards, also after an exception."""
    modes = {part: part.training for part in module.modules()}  # a frozen layer stays frozen
    try:
        module.eval()
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def both_sides(
    predict: Callable[[Tensor, Tensor | None], Points],
    images: Float[Tensor, "B 3 H W"],
    hint: Float[Tensor, "B d"] | None,
    pairs: Pairs,
) -> tuple[Points, Points]:
    """Points of the images, and those of their mirror images turned back; `predict` gets images and their hints."""
    mirrored = None if hint is None else flip_coords(hint.unsqueeze(1), ()).squeeze(1)
    points, other = predict(images, hint), predict(flip_images(images), mirrored)
    return points, Points(flip_coords(other.coords, pairs), swap(other.score, pairs))


def averaged(one: Points, other: Points) -> Points:
    """The mean of two answers, coordinates and scores."""
    return Points(0.5 * (one.coords + other.coords), 0.5 * (one.score + other.score))
