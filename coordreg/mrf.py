"""Chapter 3, the spatial model: which person's joints? A Markov random field over the places of the joints.

A network that slides over an image finds the joints of everybody in it. The data set says roughly where the torso of
the wanted person is, and joints keep their distances: a joint that cannot belong to this torso is attenuated. Tompson
et al. 2015 (section 3.3) speak of a tree with the torso as a known node, `SpatialModel`; the model of Tompson et al.
2014 that they refer to connects every pair of joints, `AllPairs`. Neither paper has released code: what is not printed
(blur, floors, how the torso is drawn, the loss) is our choice. Equation numbers are the chapter's.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from coordreg.coords import Batch, Labels, Pairs, Points, flip_images
from coordreg.heatmap import Heatmap
from coordreg.messages import MESSAGES, TORSO, convolve, histograms, infer, levels, normalised, torso_map
from coordreg.method import Estimator, Method, evaluating

# -- models -----------------------------------------------------------------------------------------------------------


class SpatialModel(nn.Module):
    """The tree-structured field with trainable displacements: detector's maps and torso point -> posterior maps.

    parents: see `tree`. size: (H, W) of the maps. priors: a data set whose `open()` gives the labels that `histograms`
    starts from, looked at when the model is first used and no weights were loaded; None starts with every displacement
    alike. torso: joints whose mean is the torso point in training, see `where`. spread: sigma of the torso point in
    cells. floor: smaller evidence is raised to it, ReLU(x) = max(x, eps) of the 2014 paper, so that a joint the
    detector missed can be anywhere; it is in the maps' unit, the default for maps with peak 1. background: the share
    of displacements that follow no histogram. blur: see `histograms`. learnt: False keeps the histograms. reduce: see
    `infer`.
    """

    kernel: Tensor
    measured: Tensor

    def __init__(
        self,
        parents: tuple[int, ...],
        size: tuple[int, int],
        priors: Any = None,
        torso: tuple[int, ...] | None = None,
        spread: float = 1.0,
        floor: float = 0.001,
        background: float = 0.01,
        blur: float = 1.0,
        learnt: bool = True,
        reduce: str = "sum",
    ) -> None:
        super().__init__()
        levels(parents)
        if reduce not in MESSAGES:
            raise ValueError(f"SpatialModel: got reduce={reduce!r}, expected one of {', '.join(MESSAGES)}")
        for name, value, top in (("spread", spread, torch.inf), ("floor", floor, torch.inf), ("blur", blur, torch.inf),
                                 ("background", background, 1)):  # fmt: skip
            if not 0 < value < top:
                raise ValueError(f"SpatialModel: got {name}={value}, expected a number between 0 and {top}")
        if torso is not None and not all(0 <= j < len(parents) for j in torso):
            raise ValueError(f"SpatialModel: got torso={torso}, expected joints from 0 to {len(parents) - 1}")
        self.parents, self.size, self.priors, self.torso, self.reduce = parents, tuple(size), priors, torso, reduce
        self.spread, self.floor, self.background, self.blur = spread, floor, background, blur
        start = torch.zeros(len(self.edges), 2 * size[0] - 1, 2 * size[1] - 1)
        if learnt:
            self.kernel = nn.Parameter(start)
        else:
            self.register_buffer("kernel", start)
        self.register_buffer("measured", torch.tensor(priors is None))
        self._set(torch.full_like(start, 1 / start[0].numel()))

    @property
    def edges(self) -> list[tuple[int, int]]:
        """Pairs (joint, the one it is seen from) in the order of the kernels."""
        return list(enumerate(self.parents))

    @torch.no_grad()
    def _set(self, displacements: Tensor) -> None:
        self.kernel.copy_(displacements.log())

    def kernels(self) -> Float[Tensor, "E h w"]:
        """(1 - b) softmax(psi) + b/n over the n displacements of an edge, equation (3.12), in double precision."""
        shares = F.softmax(self.kernel.double().flatten(1), -1).view(self.kernel.shape)
        return (1 - self.background) * shares + self.background / shares[0].numel()

    def measure(self, labels: Labels, hint: Tensor | None = None) -> None:
        """Start from the displacements of these labels. hint: (N, 2), needed unless `torso` names joints."""
        point, known = self.where(labels, hint)
        point = torch.where(known.unsqueeze(-1), point, torch.nan)
        self._set(histograms(labels.coords, labels.weight, self.edges, self.size, point, self.blur))
        self.measured.fill_(True)

    def where(self, labels: Labels, hint: Tensor | None) -> tuple[Float[Tensor, "B 2"], Bool[Tensor, " B"]]:
        """The torso point in training, (B, 2), and in which images it is known.

        With `torso` it is the mean of these joints' labels, and known where all of them are labelled; without, the
        data set's hint. A plain `Store` moves labels when it augments, but not hints: there `torso` must be given.
        """
        if self.torso is None:
            point = self._checked(hint, len(labels.coords))
            return point, torch.ones_like(point[:, 0], dtype=torch.bool)
        own = list(self.torso)
        known = (labels.weight[:, own, :2] > 0).flatten(1).all(1)
        return torch.where(known.unsqueeze(-1), labels.coords[:, own, :2].mean(1), 0), known

    def _checked(self, hint: Tensor | None, images: int) -> Tensor:
        if hint is None:
            raise ValueError(
                "SpatialModel: got no hint, expected the torso point (B, 2) of the person that is meant; use a data "
                "set that gives one, pass predict(images, hint=...), or, in training, name the joints whose mean it "
                "is: SpatialModel(torso=corners(skeleton))"
            )
        if tuple(hint.shape) != (images, 2) or not bool(hint.isfinite().all()):
            raise ValueError(
                f"SpatialModel: got a hint of shape {tuple(hint.shape)}, expected {(images, 2)}: finite normalised "
                "(x, y); leave out images without one, and the depth of one in space"
            )
        return hint

    def _inputs(self, maps: Tensor, hint: Tensor | None) -> tuple[Tensor, Tensor]:
        """Log evidence of the joints and of the torso, checked, with the displacements in place."""
        expected = (len(self.parents), *self.size)
        if tuple(maps.shape[1:]) != expected:
            raise ValueError(
                f"SpatialModel: got maps of shape {tuple(maps.shape)}, expected (B, {', '.join(map(str, expected))}); "
                "give it the tree of the detector's skeleton and the size of its maps"
            )
        point = self._checked(hint, len(maps)).to(maps.device)
        if not bool(self.measured):
            store = self.priors.open()
            self.measure(Labels(store.coords, store.weight), store.hint)
        return maps.double().clamp_min(self.floor).log(), torso_map(point, self.size, self.spread)

    def log_posterior(self, maps: Float[Tensor, "B J H W"], hint: Tensor | None) -> Float[Tensor, "B J H W"]:
        """The logarithm of `forward` in double precision."""
        evidence, root = self._inputs(maps, hint)
        return infer(evidence, root, self.kernels(), self.parents, self.reduce)

    def forward(self, maps: Float[Tensor, "B J H W"], hint: Tensor | None) -> Float[Tensor, "B J H W"]:
        """Non-negative maps and the torso point -> posterior maps with sum 1, for any decoder; never half precision."""
        dtype = torch.float64 if maps.dtype == torch.float64 else torch.float32
        return self.log_posterior(maps, hint).exp().to(dtype)

    def loss(
        self, maps: Tensor, target: Float[Tensor, "B J H W"], weight: Float[Tensor, "B J"], hint: Tensor | None
    ) -> Float[Tensor, ""]:
        """Cross-entropy of the posterior with the target scaled to sum 1, equation (3.14); the mean over the weight."""
        target = torch.where((weight > 0)[..., None, None], target, 0)
        mass = target.sum((-2, -1))
        share = target / torch.where(mass > 0, mass, 1)[..., None, None]
        each = -(share * self.log_posterior(maps, hint)).sum((-2, -1))
        weight = weight * (mass > 0)
        total = torch.where(weight > 0, each, 0).mul(weight).sum()
        return (total / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)).float()


class AllPairs(SpatialModel):
    """The form of the 2014 paper: every joint hears from all, itself and the torso included, once.

    p_A ~ prod_v [softplus(k_A|v) * max(p_v, eps) + softplus(b_v->A)], equation (3.13): no field's exact marginals, as
    the graph has circles, but one layer of convolutions. Of `parents` only the number counts; `background` is where
    the biases start, spread over a map's displacements, and stays no share. J (J + 1) kernels: memory grows with them.
    """

    def __init__(self, parents: tuple[int, ...], size: tuple[int, int], **options: Any) -> None:
        if options.get("reduce", "sum") != "sum":
            raise ValueError(f"AllPairs: got reduce={options['reduce']!r}, but it knows no maxima; leave it out")
        super().__init__(parents, size, **options)
        bias = torch.full((len(parents), len(parents) + 1), self.background / self.kernel[0].numel())
        self.bias = nn.Parameter(_inverse_softplus(bias), requires_grad=self.kernel.requires_grad)

    @property
    def edges(self) -> list[tuple[int, int]]:
        """All pairs, the torso as the last that each joint is seen from."""
        n = len(self.parents)
        return [(a, v) for a in range(n) for v in [*range(n), TORSO]]

    @torch.no_grad()
    def _set(self, displacements: Tensor) -> None:
        self.kernel.copy_(_inverse_softplus(displacements))

    def kernels(self) -> Float[Tensor, "E h w"]:
        """softplus(k), in double precision."""
        return F.softplus(self.kernel.double())

    def log_posterior(self, maps: Float[Tensor, "B J H W"], hint: Tensor | None) -> Float[Tensor, "B J H W"]:
        """The logarithm of `forward` in double precision."""
        evidence, root = self._inputs(maps, hint)
        heard = torch.cat([evidence, root.unsqueeze(1)], 1).exp().clamp_min(self.floor)
        kernels = self.kernels().unflatten(0, (len(self.parents), -1))
        bias = F.softplus(self.bias.double())[..., None, None]
        # the FFT's error can be negative where a kernel and its map are next to nothing
        tiny = torch.finfo(bias.dtype).tiny
        sums = [(convolve(heard, k).clamp_min(tiny) + b).log().sum(1) for k, b in zip(kernels, bias, strict=True)]
        return normalised(torch.stack(sums, 1))


def _inverse_softplus(x: Tensor) -> Tensor:
    return x.double().expm1().log()


# -- with a part detector ---------------------------------------------------------------------------------------------


def merged(estimator: Estimator, images: Float[Tensor, "B 3 H W"], flip: Pairs | None) -> Any:
    """The network's output; with `flip` merged with that for the mirror images, turned back."""
    output, method = estimator(images), estimator.method
    if flip is None:
        return output
    return method.merge([output, method.unflip(estimator(flip_images(images)), flip)])


DETECTOR = ("beside", "joint", "frozen")


class SpatialEstimator(Estimator):
    """A heatmap network whose maps pass through a spatial model before they are decoded; `predict` needs the hint.

    method: a `Heatmap`. detector: "beside" trains the part detector by its own loss, as if alone, and the spatial model
    on its maps; "joint" lets the spatial model's gradient through; "frozen" trains the spatial model alone and keeps
    the detector in evaluation mode (load its weights first). weight: of the spatial model's loss beside the method's.
    """

    method: Heatmap

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        method: Method,
        spatial: SpatialModel,
        detector: str = "beside",
        weight: float = 1.0,
    ) -> None:
        if not isinstance(method, Heatmap):
            raise ValueError(f"SpatialEstimator: got the method {type(method).__name__}, expected a Heatmap")
        if detector not in DETECTOR:
            raise ValueError(f"SpatialEstimator: got detector={detector!r}, expected one of {', '.join(DETECTOR)}")
        super().__init__(backbone, head, method)
        self.spatial, self.detector, self.weight = spatial, detector, weight
        if detector == "frozen":
            self.backbone.requires_grad_(False)
            self.head.requires_grad_(False)

    def train(self, mode: bool = True) -> "SpatialEstimator":
        """Training mode, but for a frozen detector."""
        super().train(mode)
        if self.detector == "frozen":
            self.backbone.eval()
            self.head.eval()
        return self

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The method's parts, "spatial", and "loss": what `detector` says of the method's plus weight x spatial."""
        output = self(batch.images)
        parts = self.method.loss(output, batch.labels)
        maps = self.method.compare.activate(output)
        hint, known = self.spatial.where(batch.labels, batch.hint)
        target = self.method.encode(batch.labels, maps.shape[-2:])
        spatial = self.spatial.loss(
            maps if self.detector == "joint" else maps.detach(), target.maps, target.weight * known[:, None], hint
        )
        own = 0 if self.detector == "frozen" else parts["loss"]
        return {**parts, "spatial": spatial, "loss": own + self.weight * spatial}

    @torch.no_grad()
    def predict(
        self, images: Float[Tensor, "B 3 H W"], hint: Tensor | None = None, flip: Pairs | None = None
    ) -> Points:
        """As `Estimator.predict`, for the person about `hint` (B, 2); the score is the posterior's at the place.

        Outputs of a flip test are merged before the spatial model sees them. Raises ValueError without a hint.
        """
        with evaluating(self):
            maps = self.method.compare.activate(merged(self, images, flip))
            return self.method.decoder(self.spatial(maps, hint))
