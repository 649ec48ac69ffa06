"""Chapter 7, Poseur: a first guess from pooled features, then queries that look each joint up on maps of several sizes.

The trunk is a `backbones.levels.MultiScale`, the head below holds the guess, the keypoint encoder and the decoder of
`queries.py`, and the method trains all answers by maximum likelihood, equation (7.20), with two flows of `rle.py`: one
for the guess, one for all layers. Source: Mao et al., ECCV 2022. Where the released code departs from the paper, the
paper is the default and `RELEASED` holds the arguments for the other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from coordreg.attention import SlowLinear, check_maps
from coordreg.coords import Labels, Pairs, Points
from coordreg.data.store import Store
from coordreg.dsnt import known
from coordreg.expectation import full
from coordreg.flow import RealNVP
from coordreg.method import Estimator, Maps, Method, averaged, both_sides
from coordreg.queries import DecoderLayer, Jittered, KeypointEncoder, Layer, Seen, Uniform, apart, placed
from coordreg.rle import RLE, DistributionHead, Distributions, Within

# -- what the head produces --------------------------------------------------------------------------------------------


class Posed(NamedTuple):
    """Centres and raw widths beside each other, after the guess and after each layer.

    proposal: (B, J, 4), or None where reference points are learnt. layers: one (B, Q, 4) a decoder layer; the first J
    queries are the guess's, those of the noisy groups follow in training.
    """

    proposal: Tensor | None
    layers: tuple[Tensor, ...]


class Queried(Maps):
    """What Poseur's head produces: see Posed."""

    ndim = 0

    @staticmethod
    def unflip(output: Any, pairs: Pairs) -> Any:
        """Refused: `Poseur.predict` averages points and scores."""
        raise ValueError("poseur: outputs are not mirrored back; average the points, with predict(flip=pairs)")

    @staticmethod
    def merge(outputs: Sequence[Any]) -> Any:
        """Refused, for the same reason."""
        raise ValueError("poseur: outputs of several passes or networks are not averaged; average their points")


# -- the head ----------------------------------------------------------------------------------------------------------


class PoseurHead(nn.Module):
    """Features at 1 to 4 sizes -> Posed.

    channels: of each level, finest first, the trunk's. width: C of queries and maps. layers: decoder layers, each made
    by `layer`; shared: one set of weights serves all of them. noise: the reference points added in training, `Uniform`
    or `Jittered`, or None. fusion: see `KeypointEncoder`. initial: where reference points start, at the "proposal" or,
    as in Deformable DETR and table 1a, at a "learned" place of the joint. pooled: what the guess is made from, the
    "backbone"'s last features or, as released, the "neck"'s, which have `width` channels. unit: see `DistributionHead`.
    memory: what queries find on the maps: "features", or as released "places": features, the encoded place of the
    cell and a learnt vector for the level. detach: whether each layer takes its reference points as given.
    """

    produces = Queried

    def __init__(
        self,
        channels: Sequence[int],
        joints: int,
        width: int = 256,
        layers: int = 3,
        layer: Layer = Layer(),
        shared: bool = False,
        noise: Uniform | Jittered | None = Uniform(),
        fusion: str = "sum",
        initial: str = "proposal",
        pooled: str = "backbone",
        unit: bool = False,
        memory: str = "features",
        detach: bool = False,
    ) -> None:
        super().__init__()
        if not 1 <= len(channels) <= 4 or joints < 1 or layers < 1:
            raise ValueError(
                f"PoseurHead: got {len(channels)} levels, joints={joints}, layers={layers}, expected 1 to 4 levels and "
                "at least 1 of the others"
            )
        for name, value, allowed in (
            ("initial", initial, ("proposal", "learned")),
            ("pooled", pooled, ("backbone", "neck")),
            ("memory", memory, ("features", "places")),
        ):
            if value not in allowed:
                raise ValueError(f"PoseurHead: got {name}={value!r}, expected {' or '.join(map(repr, allowed))}")
        if initial == "learned" and noise is not None:
            raise ValueError('PoseurHead: got initial="learned" and noise, which is for proposals; give noise=None')
        self.joints, self.width, self.layers, self.layer = joints, width, layers, layer
        self.noise, self.initial, self.pooled, self.memory, self.detach = noise, initial, pooled, memory, detach
        self.channels = tuple(channels)
        self.neck = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, 1, bias=False), nn.GroupNorm(math.gcd(32, width), width))
            for c in channels
        )
        if memory == "places":
            self.level = nn.Embedding(len(channels), width)
        self.encoder = KeypointEncoder(joints, width, fusion)
        if initial == "learned":
            self.start = SlowLinear(width, 2, layer.rate if layer.slow_references else 1.0)
        else:
            self.guess = DistributionHead(channels[-1] if pooled == "backbone" else width, joints, unit=unit)
        self.decoder = nn.ModuleList(DecoderLayer(width, len(channels), layer) for _ in range(1 if shared else layers))
        self.register_load_state_dict_pre_hook(_same_joints)

    def forward(self, features: Sequence[Tensor]) -> Posed:
        """Features, finest first -> Posed. Raises ValueError for levels that are missing or out of order."""
        return self._run(features)

    @torch.no_grad()
    def trace(self, features: Sequence[Tensor]) -> tuple[Posed, tuple[Seen, ...]]:
        """What `forward` gives, and what each layer looks at on the way: for drawings."""
        seen: list[Seen] = []
        return self._run(features, seen), tuple(seen)

    def maps(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Features -> what the queries look at, `width` channels a level."""
        if [f.shape[1] for f in features] != list(self.channels):
            raise ValueError(
                f"PoseurHead: got feature levels of {[f.shape[1] for f in features]} channels, expected "
                f"{list(self.channels)}, finest first; give it a MultiScale trunk's `channels`"
            )
        layout = torch.channels_last if self.layer.efficient else torch.contiguous_format  # what each samples faster
        found = [neck(f).contiguous(memory_format=layout) for neck, f in zip(self.neck, features, strict=True)]
        check_maps(found, len(self.channels), self.width, self.layer.points)
        return found

    def _run(self, features: Sequence[Tensor], seen: list[Seen] | None = None) -> Posed:
        maps = self.maps(features)
        proposal: Tensor | None = None
        groups, b = 1, len(maps[0])
        if self.initial == "learned":
            x = self.encoder.joint.weight.expand(b, -1, -1)
            reference, extra = 2 * full(self.start(x)).sigmoid() - 1, None
        else:
            proposal = self.guess(features[-1] if self.pooled == "backbone" else maps[-1])
            points = proposal[..., :2].unsqueeze(1)
            if self.noise is not None and self.training:
                points = torch.cat([points, self.noise(proposal[..., :2])], 1)
            groups = points.shape[1]
            x, extra = self.encoder(points)
            reference = points.flatten(1, 2)
        if self.memory == "places":
            maps = placed(maps, self.level.weight)
        extra = None if extra is None else extra.repeat(groups, 1)
        mask = apart(groups, self.joints, x.device) if groups > 1 else None
        answers = []
        for i in range(self.layers):
            layer = self.decoder[i % len(self.decoder)]
            assert isinstance(layer, DecoderLayer)
            if self.detach:
                reference = reference.detach()
            x = layer(x, extra, reference, maps, mask, seen)
            reference, answer = layer.answer(x, reference)
            answers.append(answer)
        return Posed(proposal, tuple(answers))


def _same_joints(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """ValueError for a checkpoint of another number of joints, before torch lists every tensor that does not fit."""
    assert isinstance(module, PoseurHead)
    theirs = state.get(f"{prefix}encoder.joint.weight")
    if theirs is not None and len(theirs) != module.joints:
        raise ValueError(
            f"PoseurHead: the checkpoint has {len(theirs)} joints, this network {module.joints}; build it with "
            f"joints={len(theirs)}, or train it on this skeleton"
        )


#: The arguments of PoseurHead, beside its `layer`, by which the released code departs from the paper.
RELEASED: dict[str, Any] = {
    "layers": 6, "layer": Layer(linear_width=True, slow_references=False, legacy_init=True), "noise": Jittered(),
    "fusion": "linear", "pooled": "neck", "unit": True, "memory": "places",
}  # fmt: skip

WITHIN = Within()

# -- the method --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """Read the answer after `layer` decoder layers, 0 being the guess, and score it by `score`."""

    layer: int
    score: Any = WITHIN

    def __call__(self, mean: Tensor, width: Tensor) -> Points:
        """Means and widths (B, J, d) -> Points."""
        points: Points = self.score(mean, width)
        return points


class PoseurMethod(Method):
    """Maximum likelihood for the guess and for every layer, equation (7.20): L = L_guess + weight * sum of L_layer.

    guess, fine: methods that read centres and raw widths, `RLE` with a flow each by default; the second judges all
    layers and noisy groups. weight: lambda of the paper's equation 4. outside: whether labels outside the crop train;
    the released code leaves them out. fuse: how points of an image and of its mirror image are put together, the "mean"
    or, as released, "weighted" by the score's fifth power; scores are averaged. The score is that of `fine`'s decoder,
    equation (7.9) by default.
    """

    reads = Queried

    def __init__(
        self,
        guess: Method | None = None,
        fine: Method | None = None,
        weight: float = 1.0,
        outside: bool = True,
        fuse: str = "mean",
    ) -> None:
        super().__init__()
        guess = RLE(RealNVP(), decoder=Within()) if guess is None else guess
        fine = RLE(RealNVP(), decoder=Within()) if fine is None else fine
        for name, part in (("guess", guess), ("fine", fine)):
            if part.reads is not Distributions:
                raise ValueError(
                    f"PoseurMethod: {name} is a {type(part).__name__}, which reads {part.reads.__name__}; expected a "
                    "method that reads Distributions, such as RLE"
                )
        if fuse not in ("mean", "weighted") or not weight > 0:
            raise ValueError(
                f"PoseurMethod: got fuse={fuse!r}, weight={weight}, expected 'mean' or 'weighted' and a weight above 0"
            )
        self.guess, self.fine, self.weight, self.outside, self.fuse = guess, fine, weight, outside, fuse

    @property
    def decoder(self) -> Any:
        """How centres and widths become scored points; readings exchange it."""
        return self.fine.decoder

    @decoder.setter
    def decoder(self, value: Any) -> None:
        self.fine.decoder = value

    def encode(self, labels: Labels, size: Sequence[int]) -> Tensor:
        """The target is the label itself."""
        return known(labels).coords

    def loss(self, output: Posed, labels: Labels) -> dict[str, Tensor]:
        """The parts "guess", "layer1", "layer2", ... and "loss"."""
        b, joints = labels.coords.shape[:2]
        if any(answer.shape[0] != b or answer.shape[1] % joints for answer in output.layers):
            raise ValueError(
                f"PoseurMethod: got answers of shape {tuple(output.layers[0].shape)} for labels of shape "
                f"{tuple(labels.coords.shape)}; the head's joints and the data set's must agree"
            )
        if not self.outside:
            inside = (torch.where(labels.weight > 0, labels.coords, 0).abs() <= 1).all(-1, keepdim=True)
            labels = Labels(labels.coords, torch.where(inside, labels.weight, 0))
        parts: dict[str, Tensor] = {}
        if output.proposal is not None:
            parts["guess"] = self.guess.loss(output.proposal, labels)["loss"]
        for i, answer in enumerate(output.layers, 1):
            groups = answer.shape[1] // joints
            repeated = Labels(labels.coords.repeat(1, groups, 1), labels.weight.repeat(1, groups, 1))
            parts[f"layer{i}"] = self.fine.loss(answer, repeated)["loss"]
        fine = torch.stack([value for name, value in parts.items() if name != "guess"]).sum()
        return {**parts, "loss": parts.get("guess", 0) + self.weight * fine}

    def decode(self, output: Posed) -> Points:
        """Points of the last layer, or of the one that a `Stage` decoder names."""
        stages = [output.proposal, *output.layers]
        wanted = self.decoder.layer if isinstance(self.decoder, Stage) else len(stages) - 1
        found = dict(enumerate(stages)).get(wanted)
        if found is None:
            raise ValueError(
                f"PoseurMethod: there is no answer after layer {wanted}; the network has {len(stages) - 1} layers and "
                f"{'no' if output.proposal is None else 'a'} guess before them, layer 0"
            )
        return self.fine.decode(found)


class Poseur(Estimator):
    """MultiScale -> PoseurHead -> PoseurMethod; noisy reference points exist in training mode only."""

    head: PoseurHead
    method: PoseurMethod

    @torch.no_grad()
    def predict(
        self, images: Float[Tensor, "B 3 H W"], hint: Tensor | None = None, flip: Pairs | None = None
    ) -> Points:
        """As `Estimator.predict`; with `flip` points and scores of the image and of its mirror image are averaged."""
        if flip is None:
            return super().predict(images, hint)
        points, other = both_sides(super().predict, images, hint, flip)
        mean = averaged(points, other)
        if self.method.fuse == "mean":
            return mean
        share = points.score.pow(5) / (points.score.pow(5) + other.score.pow(5)).clamp_min(1e-12)
        share = torch.where(mean.score > 0, share, 0.5).unsqueeze(-1)
        return Points(share * points.coords + (1 - share) * other.coords, mean.score)


# -- what pages draw ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def traced(estimator: Poseur, data: Store, keep: int, batch: int = 256) -> dict[str, NDArray[Any]]:
    """What records keep of a trained network: answers and places for the first `keep` images, attention over all.

    float16: "output" (keep, 1 + layers, J, 4), centres and raw widths of the guess, if there is one, and of each layer;
    "reference" (keep, layers, J, 2), "at" (keep, layers, J, heads, levels, points, 2) and "share", as in `Seen`.
    float32: "joints" (layers, J, J), how much query q looks at query k, the mean over heads and over all images; left
    out without self-attention. In evaluation mode, in which the network is left.
    """
    estimator.eval()
    device, found, total = estimator.mean.device, dict[str, Tensor](), None
    for index in torch.arange(len(data)).split(max(batch, keep)):
        images = data.batch(index).images.to(device)
        output, seen = estimator.head.trace(estimator.backbone((images - estimator.mean) / estimator.std))
        if not found:
            stages = output.layers if output.proposal is None else (output.proposal, *output.layers)
            found = {"output": torch.stack(stages, 1)[:keep]}
            found |= {n: torch.stack([getattr(s, n) for s in seen], 1)[:keep] for n in ("reference", "at", "share")}
        if seen[0].joints is not None:
            part = torch.stack([s.joints.double().mean(1).sum(0) for s in seen if s.joints is not None])
            total = part if total is None else total + part
    kept = {name: value.cpu().half().numpy() for name, value in found.items()}
    return kept if total is None else {**kept, "joints": (total / len(data)).float().cpu().numpy()}


__all__ = [
    "RELEASED", "Posed", "Poseur", "PoseurHead", "PoseurMethod", "Queried", "Stage", "traced",
]  # fmt: skip
