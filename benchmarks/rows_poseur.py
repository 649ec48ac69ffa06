"""The rows of chapter 7: attention that samples first against attention that projects first; what noisy queries cost.

All the work is done in one thread, and its processor time is what counts.
"""

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Adam

from benchmarks.timing import Row, Sizes, interleave
from coordreg.attention import DeformableAttention
from coordreg.backbones.levels import MultiScale
from coordreg.backbones.resnet import ResNet
from coordreg.coords import Batch, Labels
from coordreg.poseur import Posed, Poseur, PoseurHead, PoseurMethod
from coordreg.queries import Layer, Uniform

#: Channels of maps and queries, and pictures in a training step.
WIDTH, PICTURES = 256, 2


def _decoder(s: Sizes, efficient: bool) -> PoseurHead:
    """Three layers on maps that need no neck; where joints are guessed does not depend on the maps."""
    torch.manual_seed(0)
    head = PoseurHead((WIDTH,) * 4, s.joints, WIDTH, layer=Layer(efficient=efficient), noise=None).eval()
    head.neck = nn.ModuleList(nn.Identity() for _ in head.channels)
    nn.init.zeros_(head.guess.centre.weight)
    nn.init.uniform_(head.guess.centre.bias, -0.8, 0.8)
    return head


def _maps(s: Sizes) -> list[Tensor]:
    """The four maps of one picture."""
    g = torch.Generator().manual_seed(0)
    return [torch.randn(1, WIDTH, s.height >> i, s.width >> i, generator=g) for i in range(4)]


@torch.no_grad()
def attention(s: Sizes) -> Row:
    """The attention of one layer by itself, on maps in torch's own layout."""
    torch.manual_seed(0)
    ours, theirs = DeformableAttention(WIDTH).eval(), DeformableAttention(WIDTH, efficient=False).eval()
    theirs.load_state_dict(ours.state_dict())
    maps, queries, about = _maps(s), torch.randn(1, s.joints, WIDTH), torch.rand(1, s.joints, 2) * 1.6 - 0.8
    # biases are 0 at the start, so the two agree at borders, too
    correct = torch.allclose(ours(queries, about, maps), theirs(queries, about, maps), atol=1e-4)
    calls: list[Callable[[], object]] = [lambda: ours(queries, about, maps), lambda: theirs(queries, about, maps)]
    fast, slow = interleave(calls, 2 * s.repeats, clock=time.thread_time)
    return Row("EMSDA", "MSDA", fast / slow, 0.5, 0.4, fast, slow, correct, limit=True)


@torch.no_grad()
def decoder(s: Sizes) -> Row:
    """Three decoder layers on the maps of one picture, for each rival in the layout that it samples faster."""
    ours, theirs = _decoder(s, True), _decoder(s, False)
    maps = _maps(s)
    laid = [m.contiguous(memory_format=torch.channels_last) for m in maps]

    def last(head: PoseurHead, maps: list[Tensor]) -> Tensor:
        found: Posed = head(maps)
        return found.layers[-1]

    correct = torch.allclose(last(ours, laid), last(theirs, maps), atol=1e-4)
    calls: list[Callable[[], object]] = [lambda: last(ours, laid), lambda: last(theirs, maps)]
    fast, slow = interleave(calls, 2 * s.repeats, clock=time.thread_time)
    return Row("decoder with EMSDA, 3 layers", "with MSDA", fast / slow, 0.5, 0.4, fast, slow, correct, limit=True)


def _poseur(s: Sizes, noise: Uniform | None) -> Poseur:
    torch.manual_seed(0)
    trunk = MultiScale(ResNet(18, s.channels))
    head = PoseurHead(trunk.channels, s.joints, WIDTH, layer=Layer(dropout=0.0), noise=noise)
    return Poseur(trunk, head, PoseurMethod())


def noisy(s: Sizes) -> Row:
    """A training step with noisy queries against one without times the ratio of the queries."""
    g = torch.Generator().manual_seed(0)
    joints = torch.rand(PICTURES, s.joints, 2, generator=g) * 1.6 - 0.8
    batch = Batch(
        images=torch.rand(PICTURES, 3, *(32 * math.ceil(n / 8) for n in s.size), generator=g),  # what trunks can halve
        labels=Labels(joints, torch.ones_like(joints)),
        visible=torch.ones(PICTURES, s.joints, dtype=torch.bool),
        normaliser=torch.ones(PICTURES),
        affine=torch.eye(2, 3).repeat(PICTURES, 1, 1),
    )
    noise = Uniform()
    with_noise, without = _poseur(s, noise).train(), _poseur(s, None).train()
    with torch.no_grad():  # queries of a group do not see those of another
        found, expected = with_noise(batch.images).layers[-1], without(batch.images).layers[-1]
    queries = found.shape[1] / expected.shape[1]
    correct = queries == 1 + noise.copies and torch.allclose(found[:, : s.joints], expected, atol=1e-4)

    def step(model: Poseur, optimiser: Adam) -> None:
        optimiser.zero_grad()
        model.loss(batch)["loss"].backward()
        optimiser.step()

    mine, plain = Adam(with_noise.parameters(), 1e-4), Adam(without.parameters(), 1e-4)
    ours, theirs = interleave(
        [lambda: step(with_noise, mine), lambda: step(without, plain)], s.repeats, clock=time.thread_time
    )
    note = f"{queries:.0f} times as many queries, {ours / theirs:.2f} times as long"
    ratio = ours / (queries * theirs)
    against = f"{queries:.0f} times a step without"
    return Row(
        "training with noisy queries", against, ratio, 1.1, 1.0, ours, queries * theirs, correct, note=note, limit=True
    )


POSEUR: dict[str, Callable[[Sizes], Row | None]] = {"attention": attention, "decoder": decoder, "noisy-queries": noisy}
