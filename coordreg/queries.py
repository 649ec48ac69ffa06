"""Chapter 7, queries as joints: one vector a joint, which starts at a guess and looks the joint up layer by layer.

In order: (7.15) places as sines and cosines, (7.16) the keypoint encoder, the noisy reference points of the training,
(7.17) the decoder layer, (7.18) and (7.19) the moved reference point and the answer. `poseur.py` puts the network
together and trains it. Source: Mao et al., ECCV 2022, section 3.1 and supplement, section 7.

What the paper leaves open and is our choice: the distribution of the random reference points is uniform over the crop;
a layer's "linear layer" to the point is three layers with ReLU between, which the printed numbers of parameters ask
for, and starts at zero, so that the first answer is the reference point itself. Departures of the released code are
arguments by name.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from coordreg.attention import DeformableAttention, SlowLinear
from coordreg.coords import centres
from coordreg.expectation import full

# -- places as vectors -------------------------------------------------------------------------------------------------


def sines(coords: Float[Tensor, "*batch d"], width: int, temperature: float = 1e4) -> Float[Tensor, "*batch C"]:
    """Sine-cosine encoding of points, equation (7.15): width/d numbers an axis, x first.

    [-1, 1] becomes the angle (0, 2 pi); element 2i of an axis is the sine and 2i + 1 the cosine of the angle over
    temperature ** (2i d / width). Raises ValueError for a width that is no
    multiple of 2 d.
    """
    d = coords.shape[-1]
    if width < 2 * d or width % (2 * d):
        raise ValueError(f"sines: got width={width} for {d} axes, expected a multiple of {2 * d}: pairs on every axis")
    i = torch.arange(width // (2 * d), device=coords.device, dtype=coords.dtype)
    angle = ((coords + 1) * math.pi).unsqueeze(-1) * temperature ** (-2 * d * i / width)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(-3)


def placed(maps: Sequence[Tensor], level: Float[Tensor, "L C"]) -> list[Tensor]:
    """Maps with the place of each cell, rows before columns, and a vector for the level added, as released."""
    found = []
    for m, vector in zip(maps, level, strict=True):
        cells = torch.cartesian_prod(*(centres(n, m.device, m.dtype) for n in m.shape[2:]))
        found.append(m + sines(cells, m.shape[1]).T.unflatten(-1, m.shape[2:]) + vector.to(m.dtype)[:, None, None])
    return found


# -- noisy reference points --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Uniform:
    """As many queries again at random coordinates: uniform over the crop, which is our choice. copies: how often."""

    copies: int = 1

    def __post_init__(self) -> None:
        if self.copies < 1:
            raise ValueError(f"Uniform: got copies={self.copies}, expected at least 1; noise=None leaves it out")

    def __call__(self, proposal: Float[Tensor, "B J d"]) -> Float[Tensor, "B G J d"]:
        """Proposals -> random reference points, which do not depend on them."""
        b, j, d = proposal.shape
        return 2 * torch.rand(b, self.copies, j, d, device=proposal.device, dtype=proposal.dtype) - 1


@dataclass(frozen=True)
class Jittered:
    """The released code's: `copies` of the proposals, of which `moved` points, the same in all images, are displaced.

    spread, reach: standard deviation and limit of the displacement; bounds: limits of the result, the released -0.7 and
    1.7 of the crop's side. All in normalised coordinates, twice the released numbers.
    """

    copies: int = 3
    moved: int = 12
    spread: float = 2 * math.sqrt(0.2)
    reach: float = 2.0
    bounds: tuple[float, float] = (-2.4, 2.4)

    def __call__(self, proposal: Float[Tensor, "B J d"]) -> Float[Tensor, "B G J d"]:
        """Proposals -> their copies, some displaced; no gradient flows back to the proposals."""
        b, j, d = proposal.shape
        if not 0 <= self.moved <= self.copies * j:
            raise ValueError(
                f"Jittered: got moved={self.moved} of {self.copies} x {j} points, expected no more than there are"
            )
        points = proposal.detach().repeat(1, self.copies, 1)
        which = torch.randperm(self.copies * j, device=points.device)[: self.moved]
        noise = (self.spread * torch.randn(b, self.moved, d, device=points.device, dtype=points.dtype)).clamp(
            -self.reach, self.reach
        )
        points = points.index_add(1, which, noise).clamp(*self.bounds)
        return points.unflatten(1, (self.copies, j))


def apart(groups: int, joints: int, device: torch.device | None = None) -> Bool[Tensor, "Q Q"]:
    """The mask of self-attention, True where a query must not look: at queries of another group."""
    group = torch.arange(groups, device=device).repeat_interleave(joints)
    return group.unsqueeze(0) != group.unsqueeze(1)


# -- the keypoint encoder ----------------------------------------------------------------------------------------------


class KeypointEncoder(nn.Module):
    """Reference points -> queries, equation (7.16): a learnt vector for the joint plus the encoding of the place.

    fusion: "sum" is the paper's. "linear" is the released code's: the encodings of the point and of the point kept
    inside the crop go through a linear layer and normalisation, and the joint's vector is added to the queries and keys
    of every layer instead.
    """

    def __init__(self, joints: int, width: int = 256, fusion: str = "sum") -> None:
        super().__init__()
        if fusion not in ("sum", "linear"):
            raise ValueError(f"KeypointEncoder: got fusion={fusion!r}, expected 'sum' or 'linear'")
        self.joints, self.width, self.fusion = joints, width, fusion
        self.joint = nn.Embedding(joints, width)
        if fusion == "linear":
            self.mix, self.norm = nn.Linear(2 * width, width), nn.LayerNorm(width)

    def forward(self, points: Float[Tensor, "B G J d"]) -> tuple[Float[Tensor, "B Q C"], Float[Tensor, "J C"] | None]:
        """Reference points of G groups -> queries, group after group, and what every layer adds to them, or None."""
        place = sines(points, self.width)
        if self.fusion == "sum":
            return (place.to(self.joint.weight.dtype) + self.joint.weight).flatten(1, 2), None
        inside = sines(points.clamp(-1, 1), self.width)
        both = torch.cat([place, inside], -1).to(self.mix.weight.dtype)
        return self.norm(self.mix(both)).flatten(1, 2), self.joint.weight


# -- the decoder -------------------------------------------------------------------------------------------------------


class Seen(NamedTuple):
    """What a layer looked at, for drawings. Q counts queries, M heads, L levels, S points.

    reference: (B, Q, 2). at: (B, Q, M, L, S, 2), places; share: (B, Q, M, L, S), their attention weights. joints:
    (B, M, Q, Q), self-attention of query q to query k, or None without it.
    """

    reference: Tensor
    at: Tensor
    share: Tensor
    joints: Tensor | None


def perceptron(width: int, outputs: int, layers: int = 3, relu: bool = True, rate: float = 1.0) -> nn.Sequential:
    """Linear layers from `width` to `outputs`, ReLU between them unless told otherwise; rate as in `SlowLinear`."""
    if layers < 1:
        raise ValueError(f"perceptron: got layers={layers}, expected at least 1")
    found: list[nn.Module] = []
    for i in range(layers):
        found.append(SlowLinear(width, width if i < layers - 1 else outputs, rate))
        if relu and i < layers - 1:
            found.append(nn.ReLU())
    return nn.Sequential(*found)


@dataclass(frozen=True)
class Layer:
    """How a decoder layer is made; the paper's by default.

    heads, points: of the attention. hidden: width of the feed-forward network. dropout: not in the paper, and the
    released 0.1. self_attention: whether the queries of a group see each other. efficient: EMSDA, else MSDA.
    answer_layers: linear layers to the point, to the reference and to the width; linear_width: without ReLU between
    those to the width, as released. update: "logit" moves the reference as Deformable DETR moves a box, inside the
    crop; "add" adds. rate: learning rate of the layers to sampling offsets and, with slow_references, to the reference
    point, as a factor; in the released code the second key matches nothing. legacy_init: see `DeformableAttention`;
    the layers to point and reference then start as torch's linear layers and not at zero.
    """

    heads: int = 8
    points: int = 4
    hidden: int = 1024
    dropout: float = 0.1
    self_attention: bool = True
    efficient: bool = True
    answer_layers: int = 3
    linear_width: bool = False
    update: str = "logit"
    rate: float = 0.1
    slow_references: bool = True
    legacy_init: bool = False

    def __post_init__(self) -> None:
        if self.update not in ("logit", "add"):
            raise ValueError(f"Layer: got update={self.update!r}, expected 'logit' or 'add'")


class DecoderLayer(nn.Module):
    """Self-attention between joints, attention to the maps, feed-forward network: equation (7.17), then (7.18), (7.19).

    Each part is added to the query and normalised afterwards. width: of queries and maps. levels: number of maps.
    """

    def __init__(self, width: int = 256, levels: int = 4, layer: Layer = Layer()) -> None:
        super().__init__()
        self.made = layer
        if layer.self_attention:
            self.between = nn.MultiheadAttention(width, layer.heads, layer.dropout, batch_first=True)
            self.norm1 = nn.LayerNorm(width)
        self.cross = DeformableAttention(
            width, layer.heads, levels, layer.points, layer.efficient, layer.rate, layer.legacy_init
        )
        self.forwards = nn.Sequential(
            nn.Linear(width, layer.hidden), nn.ReLU(), nn.Dropout(layer.dropout), nn.Linear(layer.hidden, width)
        )
        self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(layer.dropout)
        slow = layer.rate if layer.slow_references else 1.0
        self.move = perceptron(width, 2, layer.answer_layers, rate=slow)
        self.centre = perceptron(width, 2, layer.answer_layers)
        self.spread = perceptron(width, 2, layer.answer_layers, relu=not layer.linear_width)
        if not layer.legacy_init:
            for last in (self.move[-1], self.centre[-1]):
                assert isinstance(last, SlowLinear)
                last.put(0.0, 0.0)

    def forward(
        self,
        x: Float[Tensor, "B Q C"],
        extra: Float[Tensor, "Q C"] | None,
        reference: Float[Tensor, "B Q 2"],
        maps: Sequence[Tensor],
        mask: Bool[Tensor, "Q Q"] | None,
        seen: list[Seen] | None = None,
    ) -> Float[Tensor, "B Q C"]:
        """Queries -> queries. extra: added to queries and keys. seen: given, what the layer looked at is appended."""
        joints = None
        if self.made.self_attention:
            q = x if extra is None else x + extra
            y, joints = self.between(q, q, x, attn_mask=mask, need_weights=seen is not None, average_attn_weights=False)
            x = self.norm1(x + self.dropout(y))
        q = x if extra is None else x + extra
        if seen is not None:
            at, share = self.cross.look(q, reference, [(m.shape[2], m.shape[3]) for m in maps])
            seen.append(Seen(reference, at, share, joints))
        x = self.norm2(x + self.dropout(self.cross(q, reference, maps)))
        return self.norm3(x + self.dropout(self.forwards(x)))

    def answer(
        self, x: Float[Tensor, "B Q C"], reference: Float[Tensor, "B Q 2"]
    ) -> tuple[Float[Tensor, "B Q 2"], Float[Tensor, "B Q e"]]:
        """Queries and reference points -> moved reference points, and centres and raw widths beside each other."""
        step = full(self.move(x))
        if self.made.update == "logit":
            reference = 2 * (step + (0.5 * (reference + 1)).clamp(0, 1).logit(1e-5)).sigmoid() - 1
        else:
            reference = reference + step
        return reference, torch.cat([reference + full(self.centre(x)), full(self.spread(x))], -1)

    def uncounted(self, x: Tensor, extra: Tensor | None, reference: Tensor, maps: Sequence[Tensor], *_: Any) -> int:
        """Multiply-adds for one image that are in no linear layer: self-attention, and sampling and values on the maps.

        Self-attention projects queries, keys, values and output, and multiplies queries by keys and values by shares.
        Takes what `forward` takes; `backbones.cost.macs` asks for it.
        """
        queries, width = x.shape[1], self.cross.width
        between = 4 * queries * width**2 + 2 * queries**2 * width if self.made.self_attention else 0
        return between + self.cross.unseen_macs(queries, [(m.shape[2], m.shape[3]) for m in maps])


__all__ = [
    "DecoderLayer", "Jittered", "KeypointEncoder", "Layer", "Seen", "Uniform", "apart", "perceptron", "placed", "sines",
]  # fmt: skip
