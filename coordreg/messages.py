"""Chapter 3, message passing: exact inference for joints on a tree whose root, the torso, is known.

Each joint's place is a random variable over the cells of a map. Joints are tied to their parents by how often they lie
so far apart; the root is the torso of the person that is meant. On a tree, one pass from the leaves to the root and one
back give the posterior of every joint (Tompson et al. 2015, section 3.3). Equation numbers are the chapter's.

Displacements are differences of cells: kernels are (E, 2H - 1, 2W - 1), one an edge, with the displacement (0, 0) in
the middle, so that no displacement within a map is cut off. Nothing here has parameters; `mrf` does.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from coordreg.coords import to_pixels
from coordreg.data.skeletons import Skeleton

#: The number of the torso where a joint's parent is named.
TORSO = -1
Edges = Sequence[tuple[int, int]]

# -- the tree ---------------------------------------------------------------------------------------------------------

_CORNERS = ("l_shoulder", "r_shoulder", "l_hip", "r_hip")
_TRUNK = (*_CORNERS, "pelvis", "thorax", "spine", "neck")


def tree(skeleton: Skeleton) -> tuple[int, ...]:
    """The parent of each joint, TORSO for those that hang on the torso itself.

    These are the joints of the trunk; the others follow along the skeleton's bones, each from the nearest. A joint in
    the middle of the body never hangs on one of a side, so that the mirrored tree is the same tree. What no bone
    reaches hangs on the torso.
    """
    sided = [name.startswith(("l_", "r_")) for name in skeleton.joints]
    parents = {j: TORSO for j, name in enumerate(skeleton.joints) if name in _TRUNK}
    reached = list(parents)
    lonely = sorted(range(len(skeleton)), key=lambda j: sided[j])  # those in the middle first
    while len(parents) < len(skeleton):
        for a in reached:  # grows while it is read: breadth first
            for bone in skeleton.bones:
                for one, other in (bone, bone[::-1]):
                    if one == a and other not in parents and (sided[other] or not sided[a]):
                        parents[other] = a
                        reached.append(other)
        left = next((j for j in lonely if j not in parents), None)
        if left is not None:
            parents[left] = TORSO
            reached.append(left)
    return tuple(parents[j] for j in range(len(skeleton)))


def corners(skeleton: Skeleton) -> tuple[int, ...]:
    """Shoulders and hips, whose mean is the torso point of the drawn figures. ValueError where one is missing."""
    missing = [name for name in _CORNERS if name not in skeleton.joints]
    if missing:
        raise ValueError(
            f"corners: {skeleton.name} has no {', '.join(missing)}; give the joints whose mean is your torso point"
        )
    return tuple(skeleton.joints.index(name) for name in _CORNERS)


def levels(parents: Sequence[int]) -> list[list[int]]:
    """The joints by their distance from the torso, nearest first. ValueError if `parents` are not those of a tree."""
    strange = [p for p in parents if not TORSO <= p < len(parents)]
    if strange or not parents:
        raise ValueError(
            f"parents: got {tuple(parents)}, expected one number a joint, {TORSO} (the torso) to {len(parents) - 1}"
        )
    found, known = [], {TORSO}
    while len(known) <= len(parents):
        level = [j for j, p in enumerate(parents) if p in known and j not in known]
        if not level:
            loose = [j for j in range(len(parents)) if j not in known]
            raise ValueError(f"parents: joints {loose} go round in a circle; give one of them the parent {TORSO}")
        found.append(level)
        known.update(level)
    return found


# -- displacements ----------------------------------------------------------------------------------------------------


def histograms(
    coords: Float[Tensor, "N J d"],
    weight: Float[Tensor, "N J d"],
    edges: Edges,
    size: Sequence[int],
    hint: Float[Tensor, "N 2"] | None = None,
    blur: float = 1.0,
) -> Float[Tensor, "E h w"]:
    """How often a joint lies so far from another, over a training set: distributions (E, 2H - 1, 2W - 1), double.

    coords, weight: see `Labels`; the first two axes count. edges: pairs (joint, the one it is seen from), TORSO being
    `hint`, where NaN means unknown. size: (H, W) of the maps. blur: sigma in cells of a Gaussian that spreads each
    displacement; that of a joint from itself stays as it is. One observation is added, spread over all displacements.
    Raises ValueError for an edge with no image where both ends are labelled and a map's size apart at most.
    """
    height, width = size
    scale = torch.tensor([width, height], dtype=torch.float64, device=coords.device) / 2
    known = weight[..., :2].amin(-1) > 0
    places = torch.where(known.unsqueeze(-1), coords[..., :2].double(), torch.nan) * scale
    torso = torch.full_like(places[:, :1], torch.nan) if hint is None else hint.double().unsqueeze(1) * scale
    places = torch.cat([places, torso], 1)  # TORSO is the last one
    limits = torch.tensor([width, height], device=coords.device)
    blurs = [_smoother(n, blur).to(coords.device) for n in (2 * height - 1, 2 * width - 1)]
    out = []
    for joint, seen_from in edges:
        apart = places[:, joint] - places[:, seen_from]
        cells = torch.floor(apart[apart.isfinite().all(-1)] + 0.5).long()
        cells = cells[(cells.abs() < limits).all(-1)]
        if not len(cells):
            end = "the torso" if seen_from == TORSO else f"joint {seen_from}"
            raise ValueError(
                f"histograms: no image has joint {joint} and {end} both labelled in reach of each other; leave this "
                "edge out, or give a training set (for the torso: with a hint, or torso joints) that has them"
            )
        index = (cells[:, 1] + height - 1) * (2 * width - 1) + cells[:, 0] + width - 1
        counts = torch.bincount(index, minlength=(2 * height - 1) * (2 * width - 1)).double()
        counts = counts.view(2 * height - 1, 2 * width - 1)
        if joint != seen_from:
            counts = blurs[0] @ counts @ blurs[1].T
        counts = counts + 1 / counts.numel()
        out.append(counts / counts.sum())
    return torch.stack(out)


def _smoother(n: int, sigma: float) -> Tensor:
    """The (n, n) matrix that spreads a cell's count as a Gaussian; nothing is lost at the border."""
    if not sigma > 0:
        raise ValueError(f"histograms: got blur={sigma}, expected a width above 0, in cells")
    at = torch.arange(n, dtype=torch.float64)
    return F.softmax(-(at[:, None] - at).square() / (2 * sigma**2), 0)


def torso_map(hint: Float[Tensor, "B 2"], size: Sequence[int], spread: float) -> Float[Tensor, "B H W"]:
    """The logarithm of a Gaussian about the torso point, in double precision with maximum 0.

    hint: normalised; outside the map the nearest cells are the likeliest. spread: sigma in cells.
    """
    mu = to_pixels(hint.double(), size)
    x, y = (torch.arange(n, dtype=torch.float64, device=hint.device) for n in (size[1], size[0]))
    squared = (y - mu[:, 1:]).square().unsqueeze(-1) + (x - mu[:, :1]).square().unsqueeze(-2)
    log = squared / (-2 * spread**2)
    return log - log.amax((-2, -1), keepdim=True)


# -- messages ---------------------------------------------------------------------------------------------------------


def convolve(
    maps: Float[Tensor, "*batch H W"], kernels: Float[Tensor, "*edge h w"], back: bool = False
) -> Float[Tensor, "*shape H W"]:
    """sum_y k(x - y) q(y) for every x of the map: from the place of one joint to places of another, by FFT.

    maps, kernels: leading axes are broadcast. back: k(y - x) instead, from where the other joint is seen back to it.
    The sums wrap around at 2H and 2W, which no displacement within the map reaches.
    """
    height, width = maps.shape[-2:]
    if kernels.shape[-2:] != (2 * height - 1, 2 * width - 1):
        raise ValueError(
            f"convolve: got kernels of {tuple(kernels.shape[-2:])} displacements for maps of {height} x {width} cells, "
            f"expected {(2 * height - 1, 2 * width - 1)}; the spatial model's size must be the maps'"
        )
    around = F.pad(kernels, (0, 1, 0, 1)).roll((1 - height, 1 - width), (-2, -1))
    k = torch.fft.rfft2(around)
    product = torch.fft.rfft2(maps, (2 * height, 2 * width)) * (k.conj() if back else k)
    return torch.fft.irfft2(product, (2 * height, 2 * width))[..., :height, :width]


def sum_message(
    log: Float[Tensor, "B E H W"], kernels: Float[Tensor, "E h w"], back: bool = False
) -> Float[Tensor, "B E H W"]:
    """log sum_y k(x - y) exp(log(y)), equations (3.8) with `back` and (3.9) without.

    In double precision the error of the FFT is about 1e-16 of a map's sum: kernels need a floor well above that.
    """
    top = log.detach().amax((-2, -1), keepdim=True)
    passed = convolve(torch.exp(log - top), kernels, back)
    return passed.clamp_min(torch.finfo(passed.dtype).tiny).log() + top


def max_message(
    log: Float[Tensor, "B E H W"], kernels: Float[Tensor, "E h w"], back: bool = False
) -> Float[Tensor, "B E H W"]:
    """max_y log k(x - y) + log(y), equation (3.11): every pair of cells is looked at, (H W)^2 of them."""
    height, width = log.shape[-2:]
    edge = (kernels.flip(-2, -1) if back else kernels).log()
    best = [torch.full_like(log[..., 0, :], -torch.inf)] * height
    for dy in range(1 - height, height):
        # from_to[x, y] = edge[dy, x - y]
        from_to = edge[:, dy + height - 1].flip(-1).unfold(-1, width, 1).flip(-2)
        for y in range(max(0, -dy), min(height, height - dy)):
            best[y + dy] = torch.maximum(best[y + dy], (log[..., y, None, :] + from_to).amax(-1))
    return torch.stack(best, -2)


MESSAGES: dict[str, Callable[[Tensor, Tensor, bool], Tensor]] = {"sum": sum_message, "max": max_message}


def infer(
    evidence: Float[Tensor, "B J H W"],
    root: Float[Tensor, "B H W"],
    kernels: Float[Tensor, "J h w"],
    parents: Sequence[int],
    reduce: str = "sum",
) -> Float[Tensor, "B J H W"]:
    """Log posterior maps of the joints on a tree, exact after one pass up and one pass down, equation (3.10).

    The field is p(x_0 .. x_J) ~ r(x_0) prod_j u_j(x_j) k_j(x_j - x_parent(j)), equation (3.7), with x_0 the torso.
    evidence: log u. root: log r; all zeros if nothing is known of the torso. kernels: k > 0, edge j for joint j. Give
    all in double precision. reduce: "sum" gives marginals; "max" the best of all poses with the joint in that cell,
    and where the maxima are unique, all joints' maxima are the single best pose. Both are scaled to sum 1 over a map.
    """
    if reduce not in MESSAGES:
        raise ValueError(f"infer: got reduce={reduce!r}, expected one of {', '.join(MESSAGES)}")
    if len(parents) != evidence.shape[1] or len(kernels) != len(parents):
        raise ValueError(
            f"infer: got maps of {evidence.shape[1]} joints, {len(kernels)} kernels and {len(parents)} parents, "
            "expected as many of each; the tree and the maps must belong to one skeleton"
        )
    message, order = MESSAGES[reduce], levels(parents)
    belief = [*evidence.unbind(1), root]  # TORSO is the last one
    up: dict[int, Tensor] = {}
    for level in reversed(order):
        sent = message(torch.stack([belief[j] for j in level], 1), kernels[level], True)
        for j, m in zip(level, sent.unbind(1), strict=True):
            up[j] = m
            belief[parents[j]] = belief[parents[j]] + m
    for level in order:  # a parent tells a child all it knows but what the child has said
        sent = message(torch.stack([belief[parents[j]] - up[j] for j in level], 1), kernels[level], False)
        for j, m in zip(level, sent.unbind(1), strict=True):
            belief[j] = belief[j] + m
    return normalised(torch.stack(belief[:-1], 1))


def normalised(log: Float[Tensor, "B J H W"]) -> Float[Tensor, "B J H W"]:
    """Log maps whose exponentials sum to 1."""
    return log - log.flatten(-2).logsumexp(-1)[..., None, None]
