"""The training loop: each step a function of (seed, step), checkpoints that survive anything, errors that say why."""

import itertools
import math
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from coordreg.backbones.resnet import DeconvHead, ResNet
from coordreg.coords import Labels
from coordreg.data.store import Augment, Store
from coordreg.heatmap import MSE, Argmax, Gaussian, Heatmap
from coordreg.method import Estimator
from coordreg.train import (
    CheckpointError,
    Cosine,
    DivergedError,
    Restarts,
    Step,
    Training,
    batches,
    fit,
    load_checkpoint,
    numbers,
    predict,
    save_checkpoint,
)

N, J, SIDE = 11, 3, 32
Augmented = tuple[Tensor, Labels, Tensor]
TRAINING = Training(steps=20, batch=4, lr=3e-3, schedule=Cosine(warmup=3))


def noise(images: Tensor, labels: Labels, visible: Tensor, generator: torch.Generator) -> Augmented:
    """An augmentation that draws random numbers."""
    return images + 0.1 * torch.randn(images.shape, generator=generator), labels, visible


def store(augment: Augment | None = noise) -> Store:
    """Eleven pictures of noise with a bright square at each joint."""
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 60, (N, 3, SIDE, SIDE), generator=g, dtype=torch.uint8)
    pixels = torch.randint(4, SIDE - 4, (N, J, 2), generator=g)
    for n, j in itertools.product(range(N), range(J)):
        x, y = pixels[n, j].tolist()
        images[n, j, y - 2 : y + 3, x - 2 : x + 3] = 255
    coords = (2 * pixels.float() + 1) / SIDE - 1
    return Store(
        images,
        coords,
        weight=torch.ones(N, J, 2),
        visible=torch.ones(N, J, dtype=torch.bool),
        normaliser=torch.ones(N),
        affine=torch.eye(2, 3).repeat(N, 1, 1),
        pairs=((0, 2),),
        joints=("a", "b", "c"),
        augment=augment,
    )


def estimator(seed: int = 0) -> Estimator:
    """A network with batch statistics and dropout, the two things that spoil a careless resume."""
    torch.manual_seed(seed)
    backbone = nn.Sequential(ResNet(10, 4), nn.Dropout(0.2))
    return Estimator(backbone, DeconvHead(32, J, (8,)), Heatmap(Gaussian(sigma=0.5), MSE(), Argmax()))


def cpu() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


def train(data: Store | None = None, training: Training = TRAINING, **options: Any) -> tuple[Estimator, list[float]]:
    model = estimator()
    return model, fit(model, data or store(), training, seed=5, fabric=cpu(), progress=False, **options)


class Count:
    """Counts the batches of a run; does something at one of them."""

    def __init__(self, at: int, action: Any) -> None:
        self.calls, self.at, self.action = 0, at, action

    def __call__(self, images: Tensor, labels: Labels, visible: Tensor, generator: torch.Generator) -> Augmented:
        """`noise`, but the action where its time has come."""
        self.calls += 1
        images, labels, visible = noise(images, labels, visible, generator)
        return (self.action(images) if self.calls == self.at else images), labels, visible


def train_and_die(path: str, step: int, writing: bool) -> None:
    """Called in a process of its own: dies in this step, or halfway through writing a checkpoint after it."""

    def die(_: Any = None) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if writing:
        whole, calls = torch.save, itertools.count(1)

        def half(state: Any, part: Path) -> None:
            whole(state, part)
            if next(calls) == 2:
                part.write_bytes(part.read_bytes()[:1000])
                die()

        torch.save = half
    torch.set_num_threads(1)
    train(store(Count(-1 if writing else step + 1, die)), checkpoint=Path(path), every=step // 2, config="c")


@pytest.fixture(scope="module")
def uninterrupted() -> tuple[Estimator, list[float]]:
    return train()


def assert_same(a: Estimator, b: Estimator) -> None:
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(x, y), name


# -- one run ----------------------------------------------------------------------------------------------------------


def test_a_run_learns_and_is_a_function_of_its_seed(uninterrupted: tuple[Estimator, list[float]]) -> None:
    model, losses = uninterrupted
    assert len(losses) == TRAINING.steps
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    torch.manual_seed(999)  # the state of the global generator does not matter
    again, same = train()
    assert same == losses
    assert_same(again, model)
    other = estimator()
    assert fit(other, store(), TRAINING, seed=6, fabric=cpu(), progress=False) != losses


@pytest.mark.slow
@pytest.mark.parametrize("writing", [False, True], ids=["in-a-step", "while-writing"])
def test_a_killed_run_resumes_bit_for_bit(
    writing: bool, tmp_path: Path, uninterrupted: tuple[Estimator, list[float]]
) -> None:
    """SIGKILL in step 13, or halfway through the second checkpoint: nothing half-written is read, nothing is lost."""
    path = tmp_path / "run" / "checkpoint.pt"
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nimport test_train\n"
    code += f"test_train.train_and_die({str(path)!r}, 13, {writing})"
    died = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert load_checkpoint(path, "c")["step"] == (6 if writing else 12)
    resumed, losses = train(checkpoint=path, every=6, config="c")
    assert losses == uninterrupted[1]
    assert_same(resumed, uninterrupted[0])


def test_checkpoints_do_not_change_a_run_and_a_finished_one_is_not_repeated(
    tmp_path: Path, uninterrupted: tuple[Estimator, list[float]]
) -> None:
    path = tmp_path / "checkpoint.pt"
    seen: list[Estimator] = []

    def look(model: Estimator) -> float:
        seen.append(model)
        return float(len(seen))

    model, losses = train(checkpoint=path, every=8, validate=look)
    assert losses == uninterrupted[1]
    assert_same(model, uninterrupted[0])
    assert len(seen) == 3  # after steps 8, 16 and the last
    assert load_checkpoint(path)["step"] == TRAINING.steps
    counter = Count(-1, None)
    again, same = train(store(counter), checkpoint=path)
    assert counter.calls == 0
    assert same == losses
    assert_same(again, model)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]  # no temporary files are left


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_resuming_on_a_gpu(tmp_path: Path) -> None:
    """The optimiser's state must follow the weights to the device."""
    path, fabric = tmp_path / "checkpoint.pt", Fabric(accelerator="cuda", devices=1)
    data = store(None)
    fit(estimator(), data, replace(TRAINING, steps=4), seed=5, fabric=fabric, checkpoint=path, progress=False)
    assert len(fit(estimator(), data, TRAINING, seed=5, fabric=fabric, checkpoint=path, progress=False)) == 20


def test_rivals_of_a_seed_see_the_same_images() -> None:
    def watch(seen: list[Tensor]) -> Store:
        def record(images: Tensor, labels: Labels, visible: Tensor, g: torch.Generator) -> Augmented:
            seen.append(noise(images, labels, visible, g)[0])
            return seen[-1], labels, visible

        return store(record)

    first: list[Tensor] = []
    second: list[Tensor] = []
    short = replace(TRAINING, steps=4)
    train(watch(first), short)
    torch.manual_seed(1)
    rival = Estimator(ResNet(10, 8), DeconvHead(64, J, (8, 8)), Heatmap(Gaussian(), MSE(), Argmax()))
    fit(rival, watch(second), short, seed=5, fabric=cpu(), progress=False)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "rmsprop", "sgd"])
def test_the_schedule_reaches_every_optimiser(optimiser: str) -> None:
    """A factor of 0 from half of the run on: the weights stop moving there."""
    training = Training(steps=8, batch=4, optimiser=optimiser, schedule=Step(milestones=(0.5,), gamma=0.0))
    kept: list[list[Tensor]] = []

    def look(model: Estimator) -> float:
        kept.append([p.detach().clone() for p in model.parameters()])
        return 0.0

    train(training=training, validate=look, every=2)
    moved = [not all(torch.equal(x, y) for x, y in zip(a, b, strict=True)) for a, b in itertools.pairwise(kept)]
    assert moved == [True, False, False]


def test_clipping_bounds_the_step() -> None:
    """Plain SGD with rate 1: a step is at most as long as the clipped gradient."""
    model = estimator()
    before = torch.cat([p.detach().flatten() for p in model.parameters()]).clone()
    training = Training(steps=1, batch=4, lr=1.0, optimiser="sgd", clip=1e-3, schedule=Cosine(warmup=0))
    fit(model, store(), training, fabric=cpu(), progress=False)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert float((after - before).norm()) == pytest.approx(1e-3, rel=0.01)


# -- schedules and orders ---------------------------------------------------------------------------------------------


def test_cosine_by_hand() -> None:
    cosine = Cosine(warmup=4)
    assert [cosine(k, 12) for k in range(4)] == [0.25, 0.5, 0.75, 1.0]
    expected = [0.5 * (1 + math.cos(math.pi * k / 8)) for k in range(8)]
    assert [cosine(k, 12) for k in range(4, 12)] == pytest.approx(expected, abs=1e-6)
    assert Cosine(warmup=0)(0, 10) == 1
    assert Cosine(warmup=0)(5, 10) == pytest.approx(0.5, abs=1e-6)


def test_step_by_hand() -> None:
    step = Step(milestones=(0.5, 0.9), gamma=0.1)
    expected = [1, 1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01]
    assert [step(k, 10) for k in range(10)] == pytest.approx(expected)
    assert [Step((), 0.1, warmup=4)(k, 10) for k in range(6)] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


def test_restarts_begin_the_cosine_anew() -> None:
    whole, part = Restarts(2, (0.0, 0.5, 0.8)), Cosine(2)
    found = [whole(k, 20) for k in range(20)]
    assert found == [part(k, 10) for k in range(10)] + [part(k, 6) for k in range(6)] + [part(k, 4) for k in range(4)]
    assert [Restarts(3)(k, 9) for k in range(9)] == [Cosine(3)(k, 9) for k in range(9)]
    for starts in ((0.5,), (0.0, 0.0), (0.0, 0.7, 0.3), (0.0, 1.0), ()):
        with pytest.raises(ValueError, match="growing shares"):
            Restarts(2, starts)


@pytest.mark.parametrize(("n", "batch"), [(12, 4), (11, 4), (5, 5), (7, 1)])
def test_an_epoch_holds_each_image_once(n: int, batch: int) -> None:
    per_epoch = n // batch
    order = dict(batches(n, batch, 3, 0, 4 * per_epoch))
    assert list(order) == list(range(4 * per_epoch))
    epochs = [torch.cat([order[e * per_epoch + k] for k in range(per_epoch)]).tolist() for e in range(4)]
    for epoch in epochs:
        assert len(set(epoch)) == len(epoch) == per_epoch * batch  # what does not fill a batch waits for the next epoch
        assert set(epoch) <= set(range(n))
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_the_order_is_a_function_of_seed_and_step() -> None:
    whole = [(step, index.tolist()) for step, index in batches(11, 4, 3, 0, 9)]
    for start in range(9):
        torch.manual_seed(start)
        assert [(step, index.tolist()) for step, index in batches(11, 4, 3, start, 9)] == whole[start:]
    assert [index.tolist() for _, index in batches(11, 4, 4, 0, 9)] != [index for _, index in whole]


def test_numbers_are_stable_and_unrelated() -> None:
    assert numbers("order", 0, 1) == numbers("order", 0, 1)
    many = {numbers(name, seed, step) for name in ("order", "step") for seed in range(20) for step in range(20)}
    assert len(many) == 800
    assert all(0 <= x < 2**63 for x in many)


# -- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_with_its_step_and_spoils_no_checkpoint(value: float, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    data = store(Count(8, lambda images: images * value))
    with pytest.raises(DivergedError, match=r"the loss became nan in step 7; lower the learning rate"):
        train(data, checkpoint=path, every=5)
    state = load_checkpoint(path)
    assert state["step"] == 5
    assert all(bool(torch.isfinite(v).all()) for v in state["model"].values())
    with pytest.raises(DivergedError, match="step 7"):
        train(store(Count(8, lambda images: images * value)))


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.pt"
    train(training=replace(TRAINING, steps=2), checkpoint=path, config='{"lr":0.001,"width":4}')
    return path


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_checkpoint_is_refused(share: float, finished: Path) -> None:
    data = finished.read_bytes()
    finished.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: not a checkpoint .*truncated one .*train again"):
        load_checkpoint(finished)


@pytest.mark.parametrize(
    "foreign",
    [{"model": {}}, {"format": 99, "model": {}}, {"format": 1}, [1, 2], {"format": 1, "model": {}}],
    ids=["no-format", "later-format", "no-model", "list", "no-configuration"],
)
def test_a_foreign_checkpoint_is_refused(foreign: object, tmp_path: Path) -> None:
    path = tmp_path / "theirs.pt"
    torch.save(foreign, path)
    with pytest.raises(CheckpointError, match=r"theirs\.pt: a file of another program or version"):
        load_checkpoint(path, "c")


def test_the_checkpoint_of_another_configuration_is_refused_with_the_difference(finished: Path) -> None:
    with pytest.raises(CheckpointError, match=r'another configuration .*"lr":0\.001.*where this run says.*"lr":0\.002'):
        train(checkpoint=finished, config='{"lr":0.002,"width":4}')
    with pytest.raises(CheckpointError, match=r"another configuration"):  # one is the beginning of the other
        load_checkpoint(finished, '{"lr":0.001,"width":4,"x":1}')


def test_the_checkpoint_of_another_network_is_refused_even_without_a_configuration(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    train(training=replace(TRAINING, steps=2), checkpoint=path)
    other = Estimator(ResNet(10, 8), DeconvHead(64, J, (8,)), Heatmap(Gaussian(), MSE(), Argmax()))
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt.*another network"):
        fit(other, store(), TRAINING, fabric=cpu(), checkpoint=path, progress=False)


def test_a_missing_checkpoint_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "none.pt")


class Evil:
    """Unpickled, this would make a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_pickle_with_code_is_refused_and_not_run(how: str, tmp_path: Path) -> None:
    path, marker = tmp_path / "evil.pt", tmp_path / "ran"
    state = {"format": 1, "model": {}, "config": "c", "extra": Evil(marker)}
    if how == "torch":
        torch.save(state, path)
    else:
        path.write_bytes(pickle.dumps(state))
    with pytest.raises(CheckpointError, match="not a checkpoint of coordreg"):
        load_checkpoint(path, "c")
    assert not marker.exists()
    torch.load(path, weights_only=False) if how == "torch" else pickle.loads(path.read_bytes())
    assert marker.exists()  # the file was dangerous indeed


def test_a_checkpoint_takes_the_place_of_the_old_one_in_one_step(tmp_path: Path) -> None:
    """Who has the old file open goes on reading the old file: it is replaced, never rewritten."""
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"model": {}, "config": "c", "step": 1})
    before = path.read_bytes()
    with path.open("rb") as reader:
        save_checkpoint(path, {"model": {}, "config": "c", "step": 2})
        assert reader.read() == before
    assert load_checkpoint(path, "c")["step"] == 2


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"model": {}, "config": "c", "step": 1})
    before = path.read_bytes()

    def full(state: object, part: Path) -> None:
        Path(part).write_bytes(b"PK half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, {"model": {}, "config": "c", "step": 2})
    assert path.read_bytes() == before
    assert load_checkpoint(path, "c")["step"] == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 5, "optimiser": "adma"}, "got optimiser='adma', expected one of adam, adamw, rmsprop, sgd"),
        ({"steps": 0}, "got steps=0, batch=32, expected both at least 1"),
        ({"steps": 5, "batch": 0}, "batch=0"),
    ],
)
def test_bad_training_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Training(**options)


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(ValueError, match="got a batch of 32 from 11 images; use a batch of at most 11"):
        train(training=Training(steps=3))


# -- prediction -------------------------------------------------------------------------------------------------------


def test_predictions_come_in_order_whatever_the_batch(uninterrupted: tuple[Estimator, list[float]]) -> None:
    model, data = uninterrupted[0], store()
    whole = predict(model, data)
    parts = predict(model, data, batch=4)
    alone = model.predict(data.images[6:7].float() / 255)
    torch.testing.assert_close(parts.coords, whole.coords)
    torch.testing.assert_close(whole.coords[6:7], alone.coords)
    torch.testing.assert_close(whole.score[6:7], alone.score)
    assert whole.coords.shape == (N, J, 2)
    flipped = predict(model, data, flip=data.pairs, batch=4)
    torch.testing.assert_close(flipped.coords, model.predict(data.images.float() / 255, flip=data.pairs).coords)
    assert not torch.equal(flipped.score, whole.score)
