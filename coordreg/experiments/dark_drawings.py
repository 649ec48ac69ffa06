"""Chapter 6: the paper's drawings from live tensors, and figure 3 on the recorded maps of trained networks.

The chapter draws `journey`, `steps` and `painted`; `exact()` says by ledger row whether they show what the paper's
pictures claim. Nothing is trained here.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from coordreg.backbones.resnet import DeconvHead, ResNet
from coordreg.coords import Labels, Points, apply_affine, crop, crop_affine, invert_affine, to_pixels
from coordreg.dark import Dark, differences, modulate, newton, window
from coordreg.experiments.dark import decoder
from coordreg.experiments.decoding import Scene
from coordreg.experiments.exact import Exact
from coordreg.experiments.flows import one_thread
from coordreg.experiments.table import Results, results
from coordreg.heatmap import Argmax, Gaussian, QuarterSign
from coordreg.plots.expectation import maxima
from coordreg.records import Record

# -- figure 3: what modulation makes of a trained network's maps ------------------------------------------------------


#: Figure 5's two readings of the same maps: the standard, and DARK.
READERS: tuple[Callable[[Tensor], Points], ...] = (QuarterSign(), decoder(1.0))


def painted(record: Record) -> tuple[Float[Tensor, "N J H W"], Float[Tensor, "N J 2"]]:
    """The maps that a record keeps of its first test figures, and their joints in index pixels of the map."""
    if record.run is None:
        raise ValueError(f"painted: record {record['key']} was read without its run; find it with `records.find`")
    maps = torch.from_numpy(record.kept("output").astype(np.float64))
    truth = record.run.test.scene_labels(torch.arange(len(maps))).coords
    return maps, to_pixels(truth.double(), maps.shape[-2:])


def _largest(maps: Tensor) -> tuple[Tensor, Tensor]:
    """(x, y) of the largest cell, and whether it has two cells on every side."""
    height, width = maps.shape[-2:]
    flat = maps.flatten(-2).argmax(-1)
    cell = torch.stack([flat % width, flat // width], -1)
    return cell, ((cell > 1) & (cell < torch.tensor([width - 2, height - 2]))).all(-1)


def unlike_a_gaussian(maps: Float[Tensor, "B J H W"]) -> Float[Tensor, "B J"]:
    """How far 5 x 5 cells about the largest one are from a Gaussian: RMS difference as a share of the peak.

    The Gaussian, of any covariance, is the one whose logarithm fits best by least squares, each cell weighted by its
    height. NaN where the largest cell has not two cells on every side or is not above 0.
    """
    cell, inside = _largest(maps)
    near = window(maps, cell, 2).flatten(-2)
    top = near[..., 12:13]
    usable = inside & (top[..., 0] > 0)
    share = torch.where(usable.unsqueeze(-1), near / top, 1).clamp_min(1e-6)
    y, x = (v.flatten().to(share) for v in torch.meshgrid(*[torch.arange(-2, 3)] * 2, indexing="ij"))
    basis = torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y], -1)
    fitted = torch.linalg.lstsq(basis * share.unsqueeze(-1), (share.log() * share).unsqueeze(-1)).solution
    off = ((basis @ fitted).squeeze(-1).exp() - share).square().mean(-1).sqrt()
    return torch.where(usable, off, torch.nan)


def modulation(found: Results) -> Exact:
    """Figure 3 on every recorded map of a heatmap experiment's last label, such as chapter 2's largest size.

    By the paper's equation (11), and judged seed by seed: fewer maps with several peaks, maps nearer to a Gaussian, the
    largest value kept. The error of the step is said beside it.
    """
    blur, good = decoder(1.0, "range"), True
    several, left, shapes, errors = [], 0, [], []
    for record in found.of(found.labels[-1]):
        maps, at = painted(record)
        mended = modulate(maps, blur.kernel, blur.sigma, blur.rescale)
        torn, still = maxima(maps) > 1, maxima(mended) > 1
        shape = torch.stack([unlike_a_gaussian(maps), unlike_a_gaussian(mended)])
        shape = shape[:, shape.isfinite().all(0)]
        kept = (mended.amax((-2, -1)) - maps.amax((-2, -1))).abs().max()
        before, after = shape.median(-1).values
        good = good and bool((still.sum() < torn.sum()) & (after < before) & (kept < 1e-6))
        read = [(to_pixels(reader(maps).coords, maps.shape[-2:]) - at).norm(dim=-1) for reader in (Dark(1), blur)]
        several.append(torn)
        left += int(still.sum())
        shapes.append(shape)
        errors.append(torch.stack(read))
    many, error = torch.cat(several), torch.cat(errors, 1)
    before, after = 100 * torch.cat(shapes, -1).median(-1).values
    (raw, step), (raw_many, step_many) = error.mean((-2, -1)), error[:, many].mean(-1)
    return Exact(
        f"{many.numel():,} maps of {len(several)} networks: {int(many.sum())} have several local maxima above half of "
        f"the largest, {left} after modulation; median distance from the best Gaussian, RMS over 5 x 5 cells, "
        f"{before:.1f}% of the peak, then {after:.1f}%; the largest value kept; mean error of the step {raw:.2f} cells "
        f"without and {step:.2f} with it, {raw_many:.2f} and {step_many:.2f} on maps with several maxima",
        good,
        f"peaks, shape and range are judged for each seed, the error is table 2's; {found.caption}",
        otherwise="not reproduced",
    )


# -- figures 1, 2 and 5 -----------------------------------------------------------------------------------------------


class Journey(NamedTuple):
    """Figure 1: a joint's way from a picture through a network and back, as tensors.

    crop: (1, 3, h, w), the network's input. output: (1, J, h / 4, w / 4), made by a live untrained network, for its
    shape. painted: (1, 1, h / 4, w / 4), what a perfect one paints for the joint. back: by decoder, (2,) in pixels.
    """

    crop: Tensor
    output: Tensor
    painted: Tensor
    back: dict[str, Tensor]


def journey(
    picture: Float[Tensor, "3 H W"],
    middle: Float[Tensor, "2"],
    sides: Float[Tensor, "2"],
    joint: Float[Tensor, "2"],
    size: tuple[int, int] = (128, 96),
) -> Journey:
    """Cut the box of this middle and these sides, (x, y) in pixels, out of a picture in [0, 1]; bring a joint back."""
    affine = crop_affine(middle[None].double(), sides[None].double())
    shrink = max(1, round(float(sides[0]) / size[1]))
    image = crop(picture[None], affine, size, oversample=shrink)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network = nn.Sequential(ResNet(10, 4), DeconvHead(32, 16, (8, 8, 8))).eval()
        output = network(image)
    inside = apply_affine(invert_affine(affine), joint.double().view(1, 1, 2))
    maps = Gaussian(1.0)(Labels(inside, torch.ones_like(inside)), output.shape[-2:]).maps
    read: dict[str, Callable[[Tensor], Points]] = {"argmax": Argmax(), "quarter": QuarterSign(), "DARK": decoder(1.0)}
    back = {name: apply_affine(affine, reader(maps).coords)[0, 0] for name, reader in read.items()}
    return Journey(image, output, maps, back)


class Steps(NamedTuple):
    """Figure 2: what the decoder has at each step. modulated, logs: (H, W). cell: (x, y) of the raw map's largest one.

    gradient: (2,). hessian: (2, 2). answer: (2,), in index pixels of the map.
    """

    modulated: Tensor
    logs: Tensor
    cell: Tensor
    gradient: Tensor
    hessian: Tensor
    answer: Tensor


def steps(map: Float[Tensor, "H W"], reader: Dark) -> Steps:
    """The decoder's steps on one map, one after the other on whole maps; ends where the decoder does."""
    whole = map[None, None].double()
    soft = modulate(whole, reader.kernel, reader.sigma, reader.rescale)
    cell, inside = _largest(whole)
    values = differences(window(soft, cell, 2).clamp_min(1e-10).log())[0, 0]
    step = torch.where(inside[0, 0], newton(values)[0], 0)
    dx, dy, dxx, dyy, dxy = values
    hessian = torch.stack([torch.stack([dxx, dxy]), torch.stack([dxy, dyy])])
    logs = soft[0, 0].clamp_min(1e-10).log()
    return Steps(soft[0, 0], logs, cell[0, 0], torch.stack([dx, dy]), hessian, cell[0, 0] + step)


def drawings(found: Results) -> Exact:
    """Figures 1, 2 and 5: the way there and back, the decoder's steps, and two readings of the same recorded maps."""
    joint, sides = torch.tensor([402.7, 301.9]), torch.tensor([288.0, 384.0])
    way = journey(torch.zeros(3, 500, 700), torch.tensor([425.0, 280.0]), sides, joint)
    off = {name: float((place - joint).norm()) for name, place in way.back.items()}
    cell = float(sides[0]) / way.output.shape[-1]
    good = way.output.shape == (1, 16, 32, 24) and way.crop.shape == (1, 3, 128, 96)
    good = good and off["DARK"] < 0.05 * cell and 0.05 * cell < off["argmax"] <= math.sqrt(0.5) * cell
    torn = Scene(sigma=1.5, noise=0.08, size=15).draw(1, seed=2)[0][0, 0]
    reader = Dark(9, 1.5)
    each = steps(torn, reader)
    ends = to_pixels(reader(torn[None, None]).coords, torn.shape)[0, 0]
    newtons = each.cell - torch.linalg.solve(each.hessian, each.gradient)
    good = good and torch.allclose(each.answer, ends, atol=1e-6) and torch.allclose(each.answer, newtons, atol=1e-9)
    good = good and bool((each.modulated.max() - torn.max()).abs() < 1e-9)
    nearer = []
    for record in found.of(found.labels[-1]):
        maps, at = painted(record)
        standard, ours = ((to_pixels(r(maps).coords, maps.shape[-2:]) - at).norm(dim=-1) for r in READERS)
        nearer.append((ours < standard).flatten())
    won = torch.cat(nearer)
    good = good and all(float(one.double().mean()) > 0.5 for one in nearer)
    said = f"of {won.numel()} recorded joints DARK is nearer than the standard on {int(won.sum())}"
    shapes = " -> ".join("x".join(str(n) for n in t.shape[1:]) for t in (way.crop, way.output))
    return Exact(
        f"picture -> {shapes} -> picture: a cell is {cell:g} px of the picture; argmax comes back "
        f"{off['argmax']:.2f} px off, DARK {off['DARK']:.2f}; the steps end where the decoder does; {said}",
        bool(good),
        "figures 1, 2 and 5 as they follow from these tensors; the pictures are chapter 6's",
        otherwise="not reproduced",
    )


# -- in the ledger ----------------------------------------------------------------------------------------------------


def exact() -> dict[str, Exact]:
    """The checks by ledger row, where chapter 2's networks are recorded."""
    with one_thread():
        recorded = results("heatmap-resolution")
        if recorded.profile is None:
            return {}
        return {"dark-drawings": drawings(recorded), "dark-fig3": modulation(recorded)}
