"""The rows of chapters 4 and 5: soft-argmax against softmax, kornia and dsntnn; targets in volumes; memory.

All the work is done in one thread, and its processor time is what counts.
"""

import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple
from weakref import finalize

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks import loops
from benchmarks.timing import Row, Sizes, interleave
from coordreg.coords import from_pixels, to_pixels
from coordreg.expectation import soft_argmax
from coordreg.integral import gaussian_lines, outer

SIGMA = 2.0


def _logits(batch: int, joints: int, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Network-like logits (B, J, *size), a blob of height 8 in noise of deviation 1, and a gradient (B, J, d)."""
    g = torch.Generator().manual_seed(3)
    coords = torch.rand(batch, joints, len(size), generator=g) * 1.8 - 0.9
    blobs = outer(gaussian_lines(coords, size, SIGMA))
    return 8 * blobs + torch.randn(blobs.shape, generator=g), torch.randn(coords.shape, generator=g)


def _ours(z: Tensor) -> Tensor:
    return soft_argmax(z)[1]


def _dsntnn(z: Tensor) -> Tensor:
    import dsntnn  # type: ignore[import-untyped]

    found: Tensor = dsntnn.dsnt(dsntnn.flat_softmax(z))
    return found


def _kornia(z: Tensor) -> Tensor:
    """In kornia's own coordinates: 1 is the centre of the last cell, not its edge."""
    from kornia.geometry.subpix import spatial_expectation2d, spatial_softmax2d

    return spatial_expectation2d(spatial_softmax2d(z))


def _close(found: Tensor, expected: loops.Double, share: float) -> bool:
    """Is the largest difference within a share of the largest value?"""
    return bool(np.abs(found.numpy() - expected).max() <= share * np.abs(expected).max())


def _least(ours: Callable[[], object], theirs: Callable[[], object], repeats: int) -> list[float]:
    return interleave([ours, theirs], repeats, most=2, clock=time.thread_time)


def forward(s: Sizes) -> Row:
    """Softmax maps and their means against softmax alone: how much the means cost."""
    z, _ = _logits(s.batch, s.joints, s.size)
    means, _ = loops.soft_argmax(z.numpy(), np.zeros((s.batch, s.joints, 2), np.float32))
    p, found = soft_argmax(z)
    correct = np.allclose(found.numpy(), means, atol=1e-6) and torch.allclose(p, F.softmax(z.flatten(2), -1).view_as(z))
    ours, theirs = _least(lambda: soft_argmax(z), lambda: F.softmax(z.flatten(2), -1), 8 * s.repeats)
    return Row(
        "soft-argmax 2-D forward", "one bare softmax", ours / theirs, 1.7, 1.35, ours, theirs, correct, limit=True
    )


def _both_ways(
    z: Tensor,
    gradient: Tensor,
    name: str,
    against: str,
    peer: Callable[[Tensor], Tensor],
    targets: tuple[float, float],
    repeats: int,
    unit: Tensor | float = 1.0,
) -> Row:
    """Means and the gradient of the logits. unit: the peer's coordinates times this are ours."""
    z = z.requires_grad_()

    def ours() -> tuple[Tensor, Tensor]:
        found = _ours(z)
        return found, torch.autograd.grad(found, z, gradient)[0]

    def theirs() -> tuple[Tensor, Tensor]:
        found = peer(z) * unit
        return found, torch.autograd.grad(found, z, gradient)[0]

    means, back = loops.soft_argmax(z.detach().numpy(), gradient.numpy())
    (mine, my_back), (other, other_back) = ours(), theirs()
    correct = np.allclose(mine.detach().numpy(), means, atol=1e-6) and _close(my_back, back, 2e-4)
    correct = correct and np.allclose(other.detach().numpy(), means, atol=2e-4) and _close(other_back, back, 2e-3)
    del means, back, mine, my_back, other, other_back
    quick, slow = _least(ours, theirs, repeats)
    return Row(name, against, slow / quick, *targets, quick, slow, correct)


def against_kornia(s: Sizes) -> Row:
    """2-D, forward and backward."""
    unit = torch.tensor([(n - 1) / n for n in reversed(s.size)])
    z, gradient = _logits(s.batch, s.joints, s.size)
    name = "soft-argmax 2-D forward + backward"
    return _both_ways(z, gradient, name, "kornia", _kornia, (1.4, 1.8), 4 * s.repeats, unit)


def against_dsntnn(s: Sizes) -> Row:
    """2-D, forward and backward."""
    z, gradient = _logits(s.batch, s.joints, s.size)
    name = "soft-argmax 2-D forward + backward"
    return _both_ways(z, gradient, name, "dsntnn", _dsntnn, (1.0, 1.15), 8 * s.repeats)


def in_volumes(s: Sizes) -> Row:
    """3-D, forward and backward."""
    z, gradient = _logits(s.volumes, s.joints, s.volume)
    name = "soft-argmax 3-D forward + backward"
    return _both_ways(z, gradient, name, "dsntnn", _dsntnn, (1.25, 1.5), s.repeats)


def error(s: Sizes) -> Row:
    """The largest error of a float32 mean over a volume; the reference is float64 throughout.

    The logits are noise on a slope: all cells count and no mean is in the middle, so that a mass beside 1 would show.
    """
    g = torch.Generator().manual_seed(5)
    z = torch.randn(s.volumes, s.joints, *s.volume, generator=g) + torch.linspace(-2, 2, s.volume[-1])
    means, _ = loops.soft_argmax(z.numpy(), np.zeros((s.volumes, s.joints, 3), np.float32))
    ours, theirs = (float(np.abs(f(z).numpy() - means).max()) for f in (_ours, _dsntnn))
    note = f"largest error of a coordinate in [-1, 1]; dsntnn's {theirs:.1e}"
    name, correct = "soft-argmax 3-D, float32 error", bool(max(ours, theirs) < 1e-3)
    return Row(name, "float64", ours, 1e-6, 2e-7, ours, theirs, correct, note=note, limit=True, unit="")


def volume_targets(s: Sizes) -> Row:
    """Gaussians in volumes into a kept buffer, against writing one number into every cell of it."""
    g = torch.Generator().manual_seed(4)
    pixels = torch.rand(s.volumes, s.joints + 1, 3, generator=g) * (torch.tensor(s.volume[::-1]) - 1)
    coords = from_pixels(pixels, s.volume)
    buffer = torch.empty(*coords.shape[:2], *s.volume)

    def draw() -> Tensor:
        return outer(gaussian_lines(coords, s.volume, SIGMA), out=buffer)

    expected = loops.volume_targets(to_pixels(coords, s.volume).numpy(), s.volume, SIGMA)
    drawn = draw()
    correct = drawn.data_ptr() == buffer.data_ptr() and np.allclose(buffer.numpy(), expected, rtol=0, atol=1e-6)
    correct = correct and float(buffer.min()) >= torch.finfo(buffer.dtype).tiny  # subnormal numbers are slow
    del expected
    ours, theirs = _least(draw, lambda: buffer.fill_(0.5), 4 * s.repeats)
    name = "targets 3-D, kept buffer"
    return Row(name, "the time to write it once", ours / theirs, 1.6, 1.2, ours, theirs, correct, limit=True)


# -- memory ------------------------------------------------------------------------------------------------------------


class Alive(TorchDispatchMode):
    """Counts the bytes of all tensors made inside it that still live: `now`, and at most so far, `peak`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def add(self, tensor: Tensor) -> None:
        """Count the storage of a tensor until it dies; views share their base's."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            finalize(storage, self.drop, key, size)

    def drop(self, key: int, size: int) -> None:
        """The storage is gone."""
        self.known.discard(key)
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count what it returns."""
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self.add(leaf)
        return made


class Memory(NamedTuple):
    """Bytes of the logits, of what is kept for backward beside them, and the peak of all of it, gradient included."""

    logits: int
    kept: int
    peak: int


def memory(function: Callable[[Tensor], Tensor], z: Tensor) -> Memory:
    """Forward and backward of logits -> means: exact counts of tensors, the same on every machine."""
    z = z.detach().requires_grad_()
    kept = {z.untyped_storage()._cdata: 0}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept.setdefault(storage._cdata, storage.nbytes())
        return tensor

    with Alive() as alive:
        alive.add(z)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            mean = function(z)
        mean.backward(torch.ones_like(mean))
    return Memory(z.untyped_storage().nbytes(), sum(kept.values()), alive.peak)


def _status(field: str) -> int:
    """A line of this process's memory in bytes, such as VmRSS; Linux alone knows it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def _growth(task: tuple[str, tuple[int, ...]]) -> int | None:
    """How far a fresh process's resident memory rises over logits, forward and backward; None where it is unknown."""
    name, shape = task
    torch.set_num_threads(1)
    function = {"ours": _ours, "dsntnn": _dsntnn}[name]
    function(torch.zeros(1, 1, *[2] * (len(shape) - 2)).requires_grad_()).sum().backward()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the highest so far, from importing, is forgotten
        before = _status("VmRSS")
        z = torch.zeros(shape).fill_(0.5).requires_grad_()
        function(z).sum().backward()
        return _status("VmHWM") - before
    except (OSError, StopIteration):
        return None


def resident(shape: tuple[int, ...]) -> list[int | None]:
    """The growth of ours and of dsntnn's, each in a process of its own."""
    with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return pool.map(_growth, [("ours", shape), ("dsntnn", shape)], chunksize=1)


def volume_memory(s: Sizes, volumes: int) -> Row:
    """The memory of training through a volume: the logits, what is kept, the peak; dsntnn's beside it."""
    z, _ = _logits(volumes, s.joints, s.volume)
    ours, theirs = memory(_ours, z), memory(_dsntnn, z)
    shape, mib = tuple(z.shape), 1024**2
    correct = ours.logits == z.numel() * 4 and torch.allclose(_ours(z), _dsntnn(z), atol=2e-4)
    note = (
        f"MiB, dsntnn's in brackets: logits {ours.logits / mib:.1f}; kept for backward {ours.kept / mib:.1f} "
        f"({theirs.kept / mib:.1f}); peak of logits, forward and backward {ours.peak / mib:.1f} "
        f"({theirs.peak / mib:.1f})"
    )
    mine, other = resident(shape)
    if mine is not None and other is not None:
        note += f"; measured growth of a fresh process {mine / mib:.1f} ({other / mib:.1f})"
    name = f"memory, {shape}"
    return Row(name, "dsntnn's peak", theirs.peak / ours.peak, 1.0, None, ours.peak, theirs.peak, correct, note=note)


EXPECTATION: dict[str, Callable[[Sizes], Row | None]] = {
    "soft-argmax": forward,
    "soft-argmax-kornia": against_kornia,
    "soft-argmax-dsntnn": against_dsntnn,
    "soft-argmax-3d": in_volumes,
    "soft-argmax-error": error,
    "volume-targets": volume_targets,
    "volume-memory-1": lambda s: volume_memory(s, 1),
    "volume-memory": lambda s: volume_memory(s, s.volumes),
}
