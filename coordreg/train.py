"""The training loop, in plain sight.

Everything random in step k follows from (seed, k) alone: which images, how they are augmented, what dropout drops. A
run that is killed and resumed from its checkpoint therefore takes the very steps it would have taken (bit for bit on a
CPU).
Lightning Fabric supplies devices, precision and distributed data parallel, and nothing else.
"""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop
from tqdm import tqdm

from coordreg.coords import Pairs, Points
from coordreg.data.store import Store
from coordreg.method import Estimator

OPTIMISERS: dict[str, type[Optimizer]] = {"adam": Adam, "adamw": AdamW, "rmsprop": RMSprop, "sgd": SGD}
FORMAT = 1


@dataclass(frozen=True)
class Cosine:
    """Learning-rate factor: a linear warm-up over `warmup` steps, then half a cosine down to 0."""

    warmup: int = 50

    def __call__(self, step: int, steps: int) -> float:
        """Factor at `step` of `steps`."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        return 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * (step - self.warmup) / max(1, steps - self.warmup)))))


@dataclass(frozen=True)
class Restarts(Cosine):
    """Learning-rate factor: `Cosine` afresh in each part of a run. starts: where they begin, as shares, 0 first."""

    starts: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        if self.starts[:1] != (0.0,) or sorted(set(self.starts)) != list(self.starts) or self.starts[-1] >= 1:
            raise ValueError(f"Restarts: got starts={self.starts}, expected growing shares of the run, 0 first")

    def __call__(self, step: int, steps: int) -> float:
        """Factor at `step` of `steps`."""
        edges = [round(share * steps) for share in self.starts] + [steps]
        part = max(i for i, edge in enumerate(edges[:-1]) if step >= edge)
        return super().__call__(step - edges[part], edges[part + 1] - edges[part])


@dataclass(frozen=True)
class Step:
    """Learning-rate factor: times `gamma` at each of `milestones`, given as shares of the run."""

    milestones: tuple[float, ...] = (0.65, 0.85)
    gamma: float = 0.1
    warmup: int = 0

    def __call__(self, step: int, steps: int) -> float:
        """Factor at `step` of `steps`."""
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        return warm * self.gamma ** sum(step >= m * steps for m in self.milestones)


@dataclass(frozen=True)
class Training:
    """How long and how fast: `steps` batches of `batch` images. Rivals are compared at equal steps x batch."""

    steps: int
    batch: int = 32
    lr: float = 1e-3
    optimiser: str = "adam"
    weight_decay: float = 0.0
    schedule: Cosine | Step = field(default_factory=Cosine)
    clip: float | None = None

    def __post_init__(self) -> None:
        if self.optimiser not in OPTIMISERS:
            raise ValueError(f"Training: got optimiser={self.optimiser!r}, expected one of {', '.join(OPTIMISERS)}")
        if self.steps < 1 or self.batch < 1:
            raise ValueError(f"Training: got steps={self.steps}, batch={self.batch}, expected both at least 1")


class DivergedError(ArithmeticError):
    """The loss stopped being a finite number."""


class CheckpointError(ValueError):
    """A checkpoint is truncated, foreign or of another configuration."""


def numbers(*parts: int | str) -> int:
    """A 63-bit seed from anything: the same parts always give the same seed, different ones unrelated seeds."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


def batches(n: int, batch: int, seed: int, start: int, steps: int) -> Iterator[tuple[int, Tensor]]:
    """(step, image numbers) from `start` to `steps`: every epoch a fresh permutation that depends on (seed, epoch)."""
    if batch > n:
        raise ValueError(f"batches: got a batch of {batch} from {n} images; use a batch of at most {n}")
    per_epoch, epoch, order = n // batch, -1, torch.empty(0, dtype=torch.long)
    for step in range(start, steps):
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            order = torch.randperm(n, generator=torch.Generator().manual_seed(numbers("order", seed, epoch)))
        at = step % per_epoch * batch
        yield step, order[at : at + batch]


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place only when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    try:
        yield Path(name)
        with open(name, "rb") as done:
            os.fsync(done.fileno())
        os.chmod(name, 0o644)  # mkstemp's files are the owner's alone
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint so that a kill or a full disk at any moment leaves the old one or none."""
    with atomic(path) as part:
        torch.save({"format": FORMAT, **state}, part)


def load_checkpoint(path: Path, config: str | None = None) -> dict[str, Any]:
    """Read a checkpoint, tensors and plain data only. Raises CheckpointError, with the reason, for anything else."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{path}: not a checkpoint of coordreg, or a truncated one ({type(error).__name__}); delete it and train "
            "again"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT or not {"model", "config"} <= state.keys():
        raise CheckpointError(
            f"{path}: a file of another program or version; expected a coordreg checkpoint, format {FORMAT}"
        )
    if config is not None and state["config"] != config:
        raise CheckpointError(
            f"{path}: written for another configuration ({_difference(state['config'], config)}); choose another path"
        )
    return state


def _difference(theirs: str, ours: str) -> str:
    at = next((i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), min(len(theirs), len(ours)))
    start = max(0, at - 30)
    return f"it says {theirs[start : at + 30]!r} where this run says {ours[start : at + 30]!r}"


def fit(
    estimator: Estimator,
    data: Store,
    training: Training,
    seed: int = 0,
    *,
    fabric: Fabric | None = None,
    checkpoint: Path | None = None,
    every: int = 500,
    config: str = "",
    validate: Callable[[Estimator], float] | None = None,
    progress: bool = True,
) -> list[float]:
    """Train in place and return the loss of every step.

    checkpoint: a path written every `every` steps and resumed from; `config` is the configuration as text and must
    agree with the one stored there.
    validate: called beside every checkpoint; its value is shown in the progress bar.
    Raises DivergedError if the loss is NaN or infinite: no checkpoint is written from such weights.
    """
    fabric = fabric or Fabric(accelerator="auto", devices=1)
    estimator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    make = OPTIMISERS[training.optimiser]
    optimiser = make(estimator.parameters(), lr=training.lr, weight_decay=training.weight_decay)  # type: ignore[call-arg]
    model, opt = fabric.setup(estimator, optimiser, _reapply_compile=False)
    start, losses = 0, []
    if checkpoint is not None and checkpoint.exists():  # after setup: the optimiser's state goes where the weights are
        state = load_checkpoint(checkpoint, config)
        try:
            estimator.load_state_dict(state["model"])
            opt.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[0]
            raise CheckpointError(f"{checkpoint}: of another network ({reason}); choose another path") from error
        start, losses = state["step"], state["losses"]
    model.mark_forward_method("loss")
    data = data.to(fabric.device)
    model.train()
    fresh: list[Tensor] = []
    order = batches(len(data), training.batch, seed, start, training.steps)
    with tqdm(order, total=training.steps, initial=start, disable=not progress, unit="step", mininterval=0.5) as bar:
        for step, index in bar:
            torch.manual_seed(numbers("step", seed, step, fabric.global_rank))
            draw = torch.Generator().manual_seed(numbers("augment", seed, step, fabric.global_rank))
            batch = data.batch(index[fabric.global_rank :: fabric.world_size], draw)
            for group in opt.param_groups:
                group["lr"] = training.lr * training.schedule(step, training.steps)
            opt.zero_grad()
            parts = model.loss(batch)
            fabric.backward(parts["loss"])
            if training.clip is not None:
                clip_grad_norm_(model.parameters(), training.clip)
            opt.step()
            fresh.append(parts["loss"].detach())
            last = step + 1 == training.steps
            save = checkpoint is not None and (last or (step + 1) % every == 0)
            if len(fresh) == 25 or last or save:  # looking at the loss waits for the device: not in every step
                losses += _finite(torch.stack(fresh), len(losses))
                fresh = []
                bar.set_postfix(loss=f"{losses[-1]:.4g}", refresh=False)
            if save and checkpoint is not None and fabric.is_global_zero:
                state = {"model": estimator.state_dict(), "optimiser": optimiser.state_dict()}
                save_checkpoint(checkpoint, {**state, "step": step + 1, "losses": losses, "config": config})
            if validate is not None and (last or (step + 1) % every == 0):
                bar.set_postfix(loss=f"{losses[-1]:.4g}" if losses else "", metric=f"{validate(estimator):.4g}")
    return losses


def _finite(values: Tensor, first: int) -> list[float]:
    listed = [float(v) for v in values.float().cpu()]
    for i, value in enumerate(listed):
        if not abs(value) < float("inf"):
            raise DivergedError(
                f"the loss became {value} in step {first + i}; lower the learning rate, warm up longer or clip "
                "gradients"
            )
    return listed


@torch.no_grad()
def predict(estimator: Estimator, data: Store, *, flip: Pairs | None = None, batch: int = 256) -> Points:
    """Points for every image of a data set, in order, on the CPU."""
    device = next(estimator.parameters()).device
    found: list[Points] = []
    for index in torch.arange(len(data)).split(batch):
        part = data.batch(index)
        hint = None if part.hint is None else part.hint.to(device)
        points = estimator.predict(part.images.to(device), hint, flip)
        found.append(Points(points.coords.cpu(), points.score.cpu()))
    return Points(*(torch.cat(column) for column in zip(*found, strict=True)))
