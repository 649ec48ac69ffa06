"""The rows of the table. Each function measures one operation against its peer and checks that both agree."""

import time
from collections.abc import Callable
from multiprocessing import get_context

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.optim import Adam

from benchmarks import loops
from benchmarks.rows_ap import AP
from benchmarks.rows_expectation import EXPECTATION
from benchmarks.rows_poseur import POSEUR
from benchmarks.timing import Row, Sizes, interleave
from coordreg.backbones.resnet import DeconvHead, ResNet
from coordreg.coords import Labels, apply_affine, crop_affine, from_pixels, to_pixels
from coordreg.dark import Dark, gaussian_kernel
from coordreg.data.figures import Figures
from coordreg.data.store import Store
from coordreg.heatmap import MSE, Argmax, Gaussian, Heatmap, QuarterSign
from coordreg.method import Estimator
from coordreg.train import Cosine, Training, batches, fit, numbers


def _joints(s: Sizes) -> tuple[Tensor, Labels]:
    """Joints all over the map, in heatmap pixels and as labels; one an image may lie beside it, some are unlabelled."""
    g = torch.Generator().manual_seed(0)
    share = torch.rand(s.batch, s.joints, 2, generator=g)
    share[:, 0] = 1.4 * share[:, 0] - 0.2
    pixels = share * torch.tensor([s.width - 1.0, s.height - 1.0])
    seen = (torch.rand(s.batch, s.joints, 1, generator=g) > 0.1).float().expand(-1, -1, 2).contiguous()
    return pixels, Labels(from_pixels(pixels, s.size), seen)


def _maps(s: Sizes) -> Tensor:
    """Network-like output: a blob at each joint and noise."""
    g = torch.Generator().manual_seed(1)
    blobs = Gaussian(sigma=2.0)(_joints(s)[1], s.size).maps
    return blobs + 0.05 * torch.randn(blobs.shape, generator=g)


def quarter_shift(s: Sizes) -> Row:
    """Argmax and quarter shift with the published guard."""
    maps, decoder = _maps(s), QuarterSign("published")
    grid = maps.numpy()
    points, score = loops.quarter_shift(grid)
    found = decoder(maps)
    correct = np.allclose(to_pixels(found.coords, s.size).numpy(), points, atol=1e-3)
    correct = correct and np.array_equal(found.score.numpy(), score)
    ours, theirs = interleave(
        [lambda: decoder(maps), lambda: loops.quarter_shift(grid)], 4 * s.repeats, clock=time.thread_time
    )
    return Row("quarter shift", "per-joint loop (HRNet's way)", theirs / ours, 9, 12, ours, theirs, correct)


def dark(s: Sizes) -> Row:
    """DARK's decoder with a blur of 11 cells, and the way back through each crop."""
    maps, decoder, kernel = _maps(s), Dark(11), gaussian_kernel(11).numpy()
    g = torch.Generator().manual_seed(3)
    centre, side = 200 + 100 * torch.rand(s.batch, 2, generator=g), 150 + 50 * torch.rand(s.batch, 2, generator=g)
    crops = crop_affine(centre, side)
    turn = crops[:, :, :2] * torch.tensor([2 / s.width, 2 / s.height])  # the same from index pixels of the map
    shift = crops[:, :, 2] + (crops[:, :, :2] * torch.tensor([1 / s.width - 1, 1 / s.height - 1])).sum(-1)
    grid, pixels = maps.numpy(), torch.cat([turn, shift.unsqueeze(-1)], -1).double().numpy()

    def ours() -> Tensor:
        return apply_affine(crops, decoder(maps).coords)

    # a map of noise has negative values beside its peak, and the two forms put the logarithm's floor elsewhere there
    peaked = decoder(maps).score.numpy() > 0.5
    correct = bool(peaked.any())
    correct = correct and np.allclose(ours().numpy()[peaked], loops.dark(grid, kernel, pixels)[peaked], atol=1e-3)
    fast, slow = interleave([ours, lambda: loops.dark(grid, kernel, pixels)], 2 * s.repeats, clock=time.thread_time)
    return Row("DARK decode with affine", "per-heatmap loop (DarkPose's way)", slow / fast, 35, 60, fast, slow, correct)


def _targets(
    s: Sizes,
    name: str,
    against: str,
    target: Gaussian,
    loop: Callable[[loops.Array, loops.Array, tuple[int, int], float], tuple[loops.Array, loops.Array]],
    must: float,
    aim: float,
) -> Row:
    _, labels = _joints(s)
    # what the library rounds is the position after the way to [-1, 1] and back, to the last bit
    pixels, seen = to_pixels(labels.coords, s.size).numpy(), labels.weight[..., 0].numpy()
    maps, weight = loop(pixels, seen, s.size, target.sigma)
    found = target(labels, s.size)
    drawn = found.maps * (found.weight > 0)[..., None, None]
    correct = np.allclose(drawn.numpy(), maps, atol=1e-6) and np.array_equal(found.weight.numpy(), weight)
    ours, theirs = interleave(
        [lambda: target(labels, s.size), lambda: loop(pixels, seen, s.size, target.sigma)], 2 * s.repeats
    )
    return Row(name, against, theirs / ours, must, aim, ours, theirs, correct)


def biased_targets(s: Sizes) -> Row:
    """Rounded Gaussians in a square of 3 sigma."""
    target = Gaussian(sigma=2.0, rounding="int", cutoff=True)
    return _targets(s, "biased targets 2-D", "per-joint patch loop (HRNet's way)", target, loops.biased_targets, 8, 15)


def unbiased_targets(s: Sizes) -> Row:
    """Unrounded Gaussians over the whole map."""
    target = Gaussian(sigma=2.0)
    return _targets(
        s, "unbiased targets 2-D", "per-joint full-map loop (DarkPose's way)", target, loops.full_targets, 14, 25
    )


def kornia_targets(s: Sizes) -> Row:
    """Unrounded, normalised Gaussians over the whole map; kornia gets joints inside it, since it knows no weights."""
    from kornia.geometry.subpix import render_gaussian2d

    g = torch.Generator().manual_seed(2)
    pixels = torch.rand(s.batch, s.joints, 2, generator=g) * torch.tensor([s.width - 1.0, s.height - 1.0])
    labels, target = Labels(from_pixels(pixels, s.size), torch.ones(pixels.shape)), Gaussian(2.0, normalise=True)
    mean, std = pixels.flatten(0, 1), torch.full((s.batch * s.joints, 2), 2.0)

    def theirs() -> Tensor:
        return render_gaussian2d(mean, std, s.size, normalized_coordinates=False)

    correct = torch.allclose(target(labels, s.size).maps.flatten(0, 1), theirs(), atol=1e-6)
    ours, other = interleave([lambda: target(labels, s.size), theirs], 2 * s.repeats)
    return Row("targets 2-D", "kornia render_gaussian2d", other / ours, 0.7, 1, ours, other, correct)


def _estimator(s: Sizes) -> Estimator:
    torch.manual_seed(0)
    trunk = ResNet(18, s.channels)
    made = Estimator(trunk, DeconvHead(trunk.channels, s.joints, (64, 64)), Heatmap(Gaussian(1.0), MSE(), Argmax()))
    return made.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def training(s: Sizes) -> Row:
    """`fit` against the shortest loop one can write for the same model and images: their losses must agree."""
    g = torch.Generator().manual_seed(0)
    data = Store(
        images=torch.randint(0, 256, (s.images, 3, s.side, s.side), generator=g, dtype=torch.uint8),
        coords=torch.rand(s.images, s.joints, 2, generator=g) * 1.8 - 0.9,
        weight=torch.ones(s.images, s.joints, 2),
        visible=torch.ones(s.images, s.joints, dtype=torch.bool),
        normaliser=torch.ones(s.images),
        affine=torch.eye(2, 3).repeat(s.images, 1, 1),
        pairs=(),
        joints=tuple(map(str, range(s.joints))),
    )
    plan = Training(steps=s.steps, batch=s.batch, lr=1e-3, schedule=Cosine(warmup=0))
    fabric = Fabric(accelerator="cpu", devices=1)

    def ours(model: Estimator) -> list[float]:
        return fit(model, data, plan, fabric=fabric, progress=False)

    def bare(model: Estimator) -> list[float]:
        optimiser, losses = Adam(model.parameters(), lr=plan.lr), []
        model.train()
        for step, index in batches(s.images, s.batch, 0, 0, s.steps):
            torch.manual_seed(numbers("step", 0, step, 0))
            optimiser.param_groups[0]["lr"] = plan.lr * plan.schedule(step, plan.steps)
            output = model(data.images[index].float() / 255)
            loss = model.method.loss(output, Labels(data.coords[index], data.weight[index]))["loss"]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
        return [float(loss) for loss in losses]

    correct = bool(np.allclose(ours(_estimator(s)), bare(_estimator(s)), rtol=1e-4))
    model = _estimator(s)  # one for both: where its weights lie in memory is worth some percent
    mine, theirs = interleave([lambda: ours(model), lambda: bare(model)], 2 * s.repeats, warm=1)
    rate = s.batch * s.steps / mine
    note = f"{rate:,.0f} images/s in `fit`, {s.batch * s.steps / theirs:,.0f} in the bare loop"
    name = f"training, ResNet-18 of width {s.channels}, {s.side} px"
    return Row(name, "a bare loop", theirs / mine, 0.95, 1, mine, theirs, correct, note=note)


def _draw(part: tuple[int, int, int]) -> int:
    """Draw figures `first` to `last` of a side with one thread; in a process of a pool."""
    side, first, last = part
    torch.set_num_threads(1)
    return len(Figures(size=side, count=last).scene(torch.arange(first, last)).images)


def rendering(s: Sizes, processes: int) -> Row:
    """Figures a second at 64 px against 1,000 a second, one thread a process. Never a gate: absolute."""
    parts = [(s.side, s.images * i, s.images * (i + 1)) for i in range(processes)]  # as many each, as `open` draws them
    with get_context("spawn").Pool(processes) as pool:
        (seconds,) = interleave([lambda: pool.map(_draw, parts, chunksize=1)], max(3, s.repeats // 3), warm=2)
    figures, index = Figures(size=s.side, count=s.images), torch.arange(s.images)
    once, part = figures.scene(index).images, figures.scene(index[-3:]).images
    correct = once.shape == (s.images, 3, s.side, s.side) and torch.equal(once[-3:], part)
    rate, goal = s.images * processes / seconds, 1000
    return Row(
        operation=f"drawing figures, {s.side} px, {processes} process{'es' if processes > 1 else ''}",
        against=f"{goal:,} images/s",
        ratio=rate / goal,
        must=1.0 if processes == 2 else None,
        aim=None,
        ours=seconds,
        theirs=s.images * processes / goal,
        correct=correct,
        gate=False,
        note=f"{rate:,.0f} images/s",
    )


ROWS: dict[str, Callable[[Sizes], Row | None]] = {
    "quarter-shift": quarter_shift,
    "dark": dark,
    "biased-targets": biased_targets,
    "unbiased-targets": unbiased_targets,
    "kornia-targets": kornia_targets,
    **EXPECTATION,
    **AP,
    **POSEUR,
    "training": training,
    "rendering-1": lambda s: rendering(s, 1),
    "rendering-2": lambda s: rendering(s, 2),
}
