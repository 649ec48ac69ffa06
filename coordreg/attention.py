"""Chapter 7, deformable attention: a query looks at a few places that it chooses, on feature maps of several sizes.

Attention over all cells of a map compares every query with every cell. Deformable attention lets each query say, from
its own content, where to look (offsets from a reference point) and how much each place counts, and never compares at
all. `msda` projects every cell of every map and then samples; `emsda` samples and then projects what was found, which
is the same sum in another order and costs little where queries are few. Places are the book's normalised coordinates,
offsets are in cells of the level they look at. Equation numbers are the chapter's. Sources: Zhu et al., Deformable
DETR, ICLR 2021; Mao et al., Poseur, ECCV 2022, equation (1) and supplement, section 4.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

# -- places ------------------------------------------------------------------------------------------------------------


def ring(heads: int, levels: int, points: int) -> Float[Tensor, "M L S 2"]:
    """Where a query looks before it has learnt anything: offsets in cells, Deformable DETR's.

    Head m looks along the angle 2 pi m / heads, as far as the border of a square: its k-th point (from 1) lies on the
    border of the square of side 2k about the reference, on every level.
    """
    angle = torch.arange(heads) * (2 * math.pi / heads)
    way = torch.stack([angle.cos(), angle.sin()], -1)
    way = way / way.abs().amax(-1, keepdim=True)
    far = torch.arange(1, points + 1, dtype=way.dtype)
    return (way[:, None, None] * far[:, None]).expand(heads, levels, points, 2).clone()


def places(
    reference: Float[Tensor, "B Q 2"], offsets: Float[Tensor, "B Q M L S 2"], sizes: Sequence[tuple[int, int]]
) -> Float[Tensor, "B Q M L S 2"]:
    """Reference points and offsets -> normalised coordinates to sample, equation (7.11).

    sizes: (rows, columns) of each level; a cell of it is 2/columns wide and 2/rows high.
    """
    cell = torch.tensor([[2 / w, 2 / h] for h, w in sizes], device=offsets.device, dtype=offsets.dtype)
    return reference[:, :, None, None, None] + offsets * cell[:, None]


def sample(maps: Float[Tensor, "B C h w"], at: Float[Tensor, "B Q S 2"]) -> Float[Tensor, "B C Q S"]:
    """Bilinear samples at normalised coordinates; beyond the outermost centres the map goes on as zeros.

    In the coordinates' own precision: in half precision a place on a map of 64 cells would be off by up to 1/4 cell.
    """
    return F.grid_sample(maps.to(at.dtype), at, mode="bilinear", padding_mode="zeros", align_corners=False)


# -- the two orders of one sum -----------------------------------------------------------------------------------------


def msda(
    maps: Sequence[Tensor],
    at: Float[Tensor, "B Q M L S 2"],
    share: Float[Tensor, "B Q M L S"],
    weight: Float[Tensor, "C C"],
    bias: Float[Tensor, " C"],
) -> Float[Tensor, "B Q C"]:
    """Multi-scale deformable attention before its output layer, equation (7.12): project all cells, then sample.

    maps: one (B, C, h, w) a level. share: attention weights, 1 in all over L and S. weight, bias: of the values; head m
    owns the rows [m C/M, (m + 1) C/M).
    """
    b, q, m, levels, s, _ = at.shape
    total: Tensor | None = None
    for i in range(levels):
        values = F.conv2d(maps[i], weight[:, :, None, None], bias).reshape(b * m, -1, *maps[i].shape[2:])
        found = sample(values, at[:, :, :, i].transpose(1, 2).reshape(b * m, q, s, 2))  # (B M, C/M, Q, S)
        part = (found * share[:, :, :, i].transpose(1, 2).reshape(b * m, 1, q, s)).sum(-1)
        total = part if total is None else total + part
    assert total is not None
    return total.view(b, -1, q).transpose(1, 2)


def emsda(
    maps: Sequence[Tensor],
    at: Float[Tensor, "B Q M L S 2"],
    share: Float[Tensor, "B Q M L S"],
    weight: Float[Tensor, "C C"],
    bias: Float[Tensor, " C"],
) -> Float[Tensor, "B Q C"]:
    """Efficient multi-scale deformable attention before its output layer, equation (7.13): sample, then project.

    Arguments and meaning as for `msda`, and the same result wherever no sample reaches over the border. There, `msda`
    sees zeros in place of projected cells, bias included, and `emsda` adds the whole bias afterwards.
    """
    b, q, m, levels, s, _ = at.shape
    total: Tensor | None = None
    for i in range(levels):
        found = sample(maps[i], at[:, :, :, i].reshape(b, q * m, s, 2).transpose(1, 2))  # (B, C, S, Q M)
        weights = share[:, :, :, i].reshape(b, q * m, s).transpose(1, 2).contiguous()
        part = (found * weights.unsqueeze(1)).sum(-2)  # long rows of Q M; sums along rows of S would be slow
        total = part if total is None else total + part
    assert total is not None
    c = total.shape[1]
    seen = total.view(b, c, q, m).permute(3, 0, 2, 1).reshape(m, b * q, c)
    rows = weight.view(m, c // m, c).transpose(1, 2).to(seen.dtype)
    projected = torch.baddbmm(bias.view(m, 1, c // m).to(seen.dtype), seen, rows)  # (M, B Q, C/M)
    return projected.permute(1, 0, 2).reshape(b, q, c)


def attention_macs(
    queries: int, width: int, heads: int, points: int, sizes: Sequence[tuple[int, int]], efficient: bool = True
) -> dict[str, int]:
    """Multiply-adds of one image by part; their sum is the cost of `DeformableAttention`, equation (7.14).

    A bilinear sample of one channel is four multiply-adds and its attention weight a fifth. `emsda` samples all C
    channels for each head and `msda` the head's own C/M, which the supplement's O(5KSC) does not tell apart.
    """
    sampled = queries * heads * len(sizes) * points
    cells = sum(h * w for h, w in sizes)
    return {
        "offsets": width * sampled * 2,
        "weights": width * sampled,
        "value": width * width * (queries if efficient else cells),
        "sampling": 5 * sampled * (width if efficient else width // heads),
        "output": width * width * queries,
    }


# -- the module --------------------------------------------------------------------------------------------------------


class SlowLinear(nn.Linear):
    """A linear layer that Adam trains at `rate` times the learning rate of its network: y = rate (V x + v).

    Adam's steps do not depend on the size of a gradient, so that steps in V are steps `rate` times as large in the
    effective weight rate V. AdamW's decay of the effective weight stays that of the full rate. `put` sets the effective
    weight and bias.
    """

    def __init__(self, inputs: int, outputs: int, rate: float = 1.0) -> None:
        if not rate > 0:
            raise ValueError(f"SlowLinear: got rate={rate}, expected a factor above 0; 1 is a plain linear layer")
        self.rate = rate
        super().__init__(inputs, outputs)

    def reset_parameters(self) -> None:
        """The effective weights start as those of torch's own linear layer."""
        super().reset_parameters()
        self.put(self.weight.detach().clone(), self.bias.detach().clone())

    @torch.no_grad()
    def put(self, weight: Tensor | float, bias: Tensor | float) -> None:
        """Set the effective weight and bias."""
        self.weight.copy_(torch.as_tensor(weight) / self.rate)
        self.bias.copy_(torch.as_tensor(bias) / self.rate)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        return F.linear(x, self.weight, self.bias) * self.rate


class DeformableAttention(nn.Module):
    """Queries look at feature maps about their reference points: (B, Q, C), (B, Q, 2) and a list of maps -> (B, Q, C).

    width: C, a multiple of heads. levels: number of maps, 1 to 4 in Poseur. points: places a head and level. efficient:
    sample before projecting (EMSDA) or after (MSDA); the parameters are the same. rate: learning rate of the offsets'
    layer as a factor of the network's, see `SlowLinear`. legacy_init: the layers of offsets and weights start as the
    released code has them (Xavier, the ring as bias) in place of zeros and the ring.
    """

    def __init__(
        self,
        width: int = 256,
        heads: int = 8,
        levels: int = 4,
        points: int = 4,
        efficient: bool = True,
        rate: float = 1.0,
        legacy_init: bool = False,
    ) -> None:
        super().__init__()
        if min(heads, levels, points) < 1 or width < heads or width % heads:
            raise ValueError(
                f"DeformableAttention: got width={width}, heads={heads}, levels={levels}, points={points}, expected at "
                "least 1 of each and a width that is a multiple of heads"
            )
        self.width, self.heads, self.levels, self.points, self.efficient = width, heads, levels, points, efficient
        self.offsets = SlowLinear(width, heads * levels * points * 2, rate)
        self.weights = nn.Linear(width, heads * levels * points)
        self.value, self.output = nn.Linear(width, width), nn.Linear(width, width)
        first: Tensor | float = 0.0
        for layer in (self.value, self.output, self.weights):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        if legacy_init:
            first = nn.init.xavier_uniform_(torch.empty_like(self.offsets.weight))
        else:
            nn.init.zeros_(self.weights.weight)
        self.offsets.put(first, ring(heads, levels, points).flatten())

    def look(
        self, queries: Float[Tensor, "B Q C"], reference: Float[Tensor, "B Q 2"], sizes: Sequence[tuple[int, int]]
    ) -> tuple[Float[Tensor, "B Q M L S 2"], Float[Tensor, "B Q M L S"]]:
        """Where each query looks, in normalised coordinates, and how much each place counts, at least in float32."""
        shape = (self.heads, self.levels, self.points)
        precise = torch.promote_types(queries.dtype, torch.float32)
        offsets = self.offsets(queries).to(precise).unflatten(-1, (*shape, 2))
        share = self.weights(queries).to(precise).unflatten(-1, (self.heads, -1)).softmax(-1).unflatten(-1, shape[1:])
        return places(reference.to(precise), offsets, sizes), share

    def forward(
        self, queries: Float[Tensor, "B Q C"], reference: Float[Tensor, "B Q 2"], maps: Sequence[Tensor]
    ) -> Float[Tensor, "B Q C"]:
        """Queries, reference points and maps, finest first -> what was seen. ValueError for maps it cannot read."""
        check_maps(maps, self.levels, self.width, self.points)
        at, share = self.look(queries, reference, [(m.shape[2], m.shape[3]) for m in maps])
        attend = emsda if self.efficient else msda
        seen = attend(maps, at, share, self.value.weight, self.value.bias)
        return self.output(seen.to(queries.dtype))

    def unseen_macs(self, queries: int, sizes: Sequence[tuple[int, int]]) -> int:
        """The multiply-adds that `coordreg.backbones.cost.macs` cannot see: sampling, and the values' projection."""
        parts = attention_macs(queries, self.width, self.heads, self.points, sizes, self.efficient)
        return parts["value"] + parts["sampling"]


def check_maps(maps: Sequence[Tensor], levels: int, width: int, points: int) -> None:
    """ValueError where levels are missing, of other channels, out of order, or have fewer cells than points."""
    told = " and ".join("x".join(map(str, m.shape[1:])) for m in maps) or "none"
    if len(maps) != levels:
        raise ValueError(
            f"deformable attention: got {len(maps)} feature levels ({told}), expected {levels}; give the trunk's "
            "MultiScale and the head the same number of levels"
        )
    if any(m.ndim != 4 or m.shape[1] != width for m in maps):
        raise ValueError(f"deformable attention: got maps of {told}, expected (B, {width}, h, w) on every level")
    for finer, coarser in pairwise(maps):
        (h, w), (i, j) = finer.shape[2:], coarser.shape[2:]
        if i > h or j > w or i * j >= h * w:
            raise ValueError(
                f"deformable attention: got levels of {told}, whose sizes do not fall; give the finest first, Res2 "
                "before Res5, each level once"
            )
    smallest = min((m.shape[2] * m.shape[3] for m in maps), default=points)
    if points > smallest:
        raise ValueError(
            f"deformable attention: got {points} points a head and level, more than the {smallest} cells of the "
            f"smallest map (levels of {told}); use fewer points or levels, or larger images"
        )


__all__ = [
    "DeformableAttention", "SlowLinear", "attention_macs", "check_maps", "emsda", "msda", "places", "ring", "sample",
]  # fmt: skip
