"""Measured costs: counts by hand, the least of many times, the file whole or refused, what the ledger says of it."""

import json
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from coordreg import ledger, verdicts
from coordreg.backbones.resnet import parameters
from coordreg.coords import Labels
from coordreg.dsnt import DSNT
from coordreg.experiments import cost, counted
from coordreg.method import Estimator, Maps
from coordreg.records import RecordError, checksum

SMALL = cost.rivals(4, 2)


@pytest.fixture(autouse=True)
def _own_results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COORDREG_RESULTS", str(tmp_path))


def fabricated(**changes: Any) -> dict[str, Any]:
    """A measurement whose hourglass takes 4 times the time and 1.5, 2.5, 3.5 times the memory."""
    networks = {}
    for name, factors in (("a", (1.0, 1.0, 1.0, 1.0)), ("b", (4.0, 1.5, 2.5, 3.5))):
        names = ("inference", "training", "kept")
        networks[name] = {
            "seconds": {"wall": 0.3 * factors[0], "own": 0.25 * factors[0]},
            "bytes": {k: int(1000 * f) for k, f in zip(names, factors[1:], strict=True)},
        }
    return {"networks": networks, "repeats": 9, "batch": 4, **changes}


def write(kind: str = "cpu", **changes: Any) -> Path:
    return cost.write(kind, fabricated(**changes), cost.rivals(), Fabric(accelerator="cpu", devices=1))


# -- the networks -----------------------------------------------------------------------------------------------------


def test_the_rivals_are_the_papers() -> None:
    with torch.device("meta"):
        resnet, hourglass = (r.estimator.build() for r in cost.rivals())
        maps = resnet.head(resnet.backbone(torch.empty(1, 3, 224, 224)))
    assert maps.shape[1:] == (16, 28, 28)
    assert (parameters(resnet), parameters(hourglass)) == (23_540_816, 25_594_624)
    assert [r.size for r in cost.rivals()] == [224, 256]
    assert hourglass.head.depth == 4


# -- time -------------------------------------------------------------------------------------------------------------


def test_least_takes_turns_and_keeps_minima() -> None:
    order: list[str] = []
    durations = {"a": iter([9.0, 3.0, 1.0, 2.0]), "b": iter([9.0, 5.0, 6.0, 4.0])}

    def clock(call: Any) -> tuple[float, float]:
        name = call()
        order.append(name)
        taken = next(durations[name])
        return taken, taken / 10

    assert cost.least([lambda: "a", lambda: "b"], 3, clock) == [(1.0, 0.1), (4.0, 0.4)]
    assert "".join(order) == "ab" + "ab" * 3  # one round to warm, not counted
    with pytest.raises(ValueError, match="got repeats=0"):
        cost.least([], 0)


def test_the_processors_clock_counts_work_not_sleep() -> None:
    import time

    wall, own = cost.on_processor(lambda: time.sleep(0.05))
    assert wall >= 0.05
    assert own < 0.04


# -- memory -----------------------------------------------------------------------------------------------------------


class Squares(nn.Module):
    """Maps from an image by w x^2 and a ReLU that needs nothing new: what is kept can be told by hand."""

    produces = Maps

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1, 16, 1, 1), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :1].square() * self.weight


class Sum(DSNT):
    """The sum as loss keeps nothing."""

    def loss(self, output: Any, labels: Labels) -> dict[str, Tensor]:
        return {"loss": output.sum()}


def test_kept_by_hand() -> None:
    """The normalised image needs no gradient, so that its square alone is kept for the weight: B x H x W floats."""
    model = Estimator(nn.Identity(), Squares(), Sum())
    images, labels = cost._inputs(12, 3, torch.device("cpu"))
    assert cost.kept(model, images, labels) == 3 * 12 * 12 * 4


def test_kept_leaves_out_weights_and_shares() -> None:
    """A tensor kept twice counts once; a convolution keeps its input and not its weights."""

    class Twice(Squares):
        def forward(self, x: Tensor) -> Tensor:
            square = x[:, :1].square()
            return square * self.weight + square * (2 * self.weight)

    images, labels = cost._inputs(8, 2, torch.device("cpu"))
    assert cost.kept(Estimator(nn.Identity(), Twice(), Sum()), images, labels) == 2 * 8 * 8 * 4


def test_kept_grows_with_the_batch() -> None:
    model = SMALL[0].estimator.build()
    one, three = (cost.kept(model, *cost._inputs(64, n, torch.device("cpu"))) for n in (1, 3))
    assert one > parameters(model) / 100
    assert three == pytest.approx(3 * one, rel=0.02)


def test_a_process_grows_by_what_it_holds() -> None:
    """Measured as it always is, in a process of its own: this one may have room to spare."""
    with get_context("spawn").Pool(1) as pool:
        found = pool.map(cost._growth, [(SMALL[1].estimator, 256, 2, "training")])[0]
    if found is None:
        pytest.skip("this system does not tell the peak of a process's memory")
    model = SMALL[1].estimator.build()
    assert found > cost.kept(model, *cost._inputs(256, 2, torch.device("cpu"))) * 0.7


# -- the run and its file ---------------------------------------------------------------------------------------------


def test_measure_write_read() -> None:
    found = cost.measure(SMALL, repeats=2, batch=2, resident=False)
    path = cost.write("cpu", found, SMALL, Fabric(accelerator="cpu", devices=1))
    data = cost.read("cpu")
    assert data is not None
    assert path.name == "cost-cpu.json"
    assert list(data["networks"]) == ["ResNet-50@28px", "hourglass of 2"]
    for rival in SMALL:
        each = data["networks"][rival.name]
        assert each["parameters"] == parameters(rival.estimator.build())
        assert 0 < each["seconds"]["own"] < 5
        assert each["bytes"]["kept"] > each["parameters"]
        assert each["bytes"]["inference"] is None
    assert data["made"]["threads"] == 1
    assert {"device", "versions", "commit", "time"} <= set(data["made"])
    assert "coordreg.backbones.hourglass.Hourglass" in data["code"]
    assert cost.ratios(data)["training"] is None
    assert json.loads(path.read_text())["sum"] == checksum(data)
    assert [p.name for p in path.parent.iterdir()] == ["cost-cpu.json"]


def test_ratios_by_hand() -> None:
    expected = {"time": 4.0, "wall": 4.0, "inference": 1.5, "training": 2.5, "kept": 3.5}
    assert cost.ratios(fabricated()) == pytest.approx(expected)


def test_an_edited_or_damaged_file_is_refused() -> None:
    assert cost.read("cpu") is None
    path = write()
    text = path.read_text()
    path.write_text(text.replace('"repeats": 9', '"repeats": 99'))
    with pytest.raises(RecordError, match=r"cost-cpu.json: the contents do not match their checksum; measure again"):
        cost.read("cpu")
    said, ratios, notes = cost.told()
    assert (said, ratios) == ([], [])
    assert notes[0].startswith("refused: cost-cpu.json")
    path.write_text(text[:50])
    with pytest.raises(RecordError, match="not a measurement"):
        cost.read("cpu")
    path.write_text("[]")
    with pytest.raises(RecordError, match="not a measurement"):
        cost.read("cpu")


# -- in the ledger ----------------------------------------------------------------------------------------------------


def test_figure_10_says_what_holds() -> None:
    write()
    found = counted.speed()
    assert found.matches
    assert "8.0% fewer" in found.ours
    assert "250.0 and 1000.0 ms, time 4.00x, memory at inference 1.50x, memory in training 2.50x" in found.ours
    assert "over 3x the speed: holds (4.00x)" in found.ours
    assert "under half the training memory: holds (2.50x)" in found.ours
    networks = fabricated()["networks"]
    networks["b"]["seconds"]["own"], networks["b"]["bytes"]["training"] = 0.5, None
    write(networks=networks)
    found = counted.speed()
    assert found.matches  # the count of parameters; the ratio is this machine's
    assert "over 3x the speed: does not hold (2.00x)" in found.ours
    assert "under half the training memory: not measured, of what a step keeps holds (3.50x)" in found.ours


def test_table_4_needs_a_measurement_and_the_order() -> None:
    assert counted.efficiency() is None
    assert "dsnt-tab4" not in counted.exact()
    write()
    found = counted.efficiency()
    assert found is not None
    assert found.matches
    assert found.ours.startswith("printed ratios of the hourglass to the ResNet: time 3.25x, memory 1.93x; measured on")
    for key, value in (("time", 0.2), ("memory", 900)):
        networks = fabricated()["networks"]
        if key == "time":
            networks["b"]["seconds"]["own"] = value
        else:
            networks["b"]["bytes"]["inference"] = value
        write(networks=networks)
        found = counted.efficiency()
        assert found is not None
        assert not found.matches


def test_a_gpu_comes_first() -> None:
    networks = fabricated()["networks"]
    networks["b"]["seconds"]["own"] = 0.5
    write("cpu")
    write("gpu", networks=networks)
    found = counted.speed().ours
    assert found.index("time 2.00x") < found.index("time 4.00x")
    assert "over 3x the speed: does not hold (2.00x)" in found


def test_a_stale_measurement_says_so() -> None:
    path = write()
    data = json.loads(path.read_text())
    data["code"]["coordreg.backbones.hourglass.Hourglass"] = "00000000"
    path.write_text(json.dumps({**data, "sum": checksum(data)}))
    assert "is stale: coordreg.backbones.hourglass.Hourglass" in counted.speed().note


def test_statuses(monkeypatch: pytest.MonkeyPatch) -> None:
    write()
    monkeypatch.setattr(verdicts, "modules", lambda: [counted])
    for row in ("dsnt-fig10", "dsnt-tab4"):
        entry = ledger.rows(only=row)[0]
        assert entry.status == "partly"
        assert "not covered yet: the part by recipe" in entry.note
        assert "covers" in entry.note


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    networks = cost.measure(SMALL, repeats=1, batch=2, resident=False)
    monkeypatch.setattr(cost, "measure", lambda *a, **k: networks)
    assert cost.main(["--repeats", "1"]) == 0
    out = capsys.readouterr().out
    assert "hourglass / ResNet: time " in out
    assert "training unknown" in out
    assert cost.path_of("cpu").exists()


COMMITTED = Path(__file__).parent.parent / "results"


@pytest.mark.skipif(not (COMMITTED / "cost-cpu.json").exists(), reason="nothing measured yet")
def test_the_committed_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COORDREG_RESULTS", str(COMMITTED))
    data = cost.read("cpu")
    assert data is not None
    assert data["repeats"] >= 9
    assert [n["parameters"] for n in data["networks"].values()] == [23_540_816, 25_594_624]
    assert "stale" not in counted.speed().note
