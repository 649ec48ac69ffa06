"""Poseur beside RLE: memory counted by hand, a tiny pair measured, written, read back and judged."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from coordreg.backbones.levels import MultiScale, resnet_channels
from coordreg.backbones.resnet import ResNet, parameters, trunk_channels
from coordreg.experiments import measured, poseur_speed
from coordreg.experiments.poseur_speed import RIVALS, Alive, alive, exact, measure, ratios
from coordreg.fingerprint import fingerprint
from coordreg.flow import RealNVP
from coordreg.method import Estimator
from coordreg.poseur import Poseur, PoseurHead, PoseurMethod
from coordreg.queries import Layer
from coordreg.rle import RLE, DistributionHead
from coordreg.spec import spec

SMALL = {
    "Poseur": spec(
        Poseur,
        backbone=spec(MultiScale, trunk=spec(ResNet, depth=10, width=4)),
        head=spec(PoseurHead, channels=resnet_channels(10, 4), joints=5, width=16, layers=2,
                  layer=Layer(heads=2, points=2, hidden=24)),
        method=spec(PoseurMethod),
    ),
    "RLE": spec(
        Estimator,
        backbone=spec(ResNet, depth=10, width=4),
        head=spec(DistributionHead, channels=trunk_channels(10, 4), joints=5),
        method=spec(RLE, flow=spec(RealNVP)),
    ),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COORDREG_RESULTS", str(tmp_path))
    return tmp_path


def fake(times: tuple[float, float] = (0.2, 0.3), training: tuple[int, int] = (95, 100)) -> dict[str, Any]:
    networks = {
        name: {
            "parameters": 10, "macs": count, "seconds": {"wall": 9.0, "own": own},
            "bytes": {"kept": 50 * 2**20, "training": most * 2**20, "testing": least * 2**20},
        }
        for name, count, own, most, least in zip(
            ("Poseur", "RLE"), (4_540_000_000, 7_640_000_000), times, training, (86, 68), strict=True
        )
    }  # fmt: skip
    code = fingerprint(*RIVALS.values())
    return {"networks": networks, "size": [256, 192], "repeats": 9, "made": {"device": "a test"}, "code": code}


def test_what_is_alive_by_hand() -> None:
    """Of a chain at most the vector, its own and the one before are there; a view takes nothing."""
    x = torch.zeros(1000)
    with Alive([x]) as count:
        y = x + 1
        z = y.view(10, 100) + 1
        assert (count.now, count.most) == (12_000, 12_000)
        del y
        assert count.now == 8_000
        w = z + 1
        del z, w
        assert (count.now, count.most) == (4_000, 12_000)


def test_a_networks_peak_by_hand() -> None:
    """Layers of 30 and 20 features: weights, the images, and at the widest place 100 x 30 beside 100 x 20."""
    network = nn.Sequential(nn.Linear(12, 30), nn.Linear(30, 20), nn.Linear(20, 4))
    weights = 12 * 30 + 30 + 30 * 20 + 20 + 20 * 4 + 4
    assert alive(network, torch.zeros(100, 12)) == 4 * (weights + 100 * 12 + 100 * 30 + 100 * 20)


def test_a_pair_is_measured() -> None:
    found = measure(repeats=1, rivals=SMALL, size=(64, 96))
    assert list(found["networks"]) == ["Poseur", "RLE"]
    for name, each in found["networks"].items():
        made = SMALL[name].build()
        assert each["parameters"] == parameters(made)
        assert all(t > 0 for t in each["seconds"].values())
        memory = each["bytes"]
        assert memory["training"] == memory["kept"] + 16 * parameters(made)
        used = parameters(made.backbone) + parameters(made.head)
        assert memory["testing"] > 4 * (used + 3 * 64 * 96)
    assert found["networks"]["Poseur"]["macs"] > found["networks"]["RLE"]["macs"]  # the same trunk, and a decoder
    assert found["networks"]["Poseur"]["bytes"]["kept"] > found["networks"]["RLE"]["bytes"]["kept"]


def test_the_row_follows_from_what_was_measured(folder: Path) -> None:
    assert exact() == {}
    assert ratios(fake())["speed"] == pytest.approx(1.5)
    measured.write("poseur-speed-cpu", fake())
    row = exact()["poseur-supp5"]
    assert row.matches
    assert "Poseur 4.54 (4.6), RLE 7.12 (7.1)" in row.ours
    assert "frames a second 1.50x (1.52x), memory in training 0.95x (0.95x)" in row.ours
    assert row.ours.endswith("memory in testing 1.26x (1.27x)")
    assert row.note.startswith("measured on a test, one thread: 200.0 and 300.0 ms; Poseur 95 MiB in training")
    measured.write("poseur-speed-gpu", fake(training=(120, 100)))
    row = exact()["poseur-supp5"]
    assert (row.matches, row.otherwise) == (False, "partly")
    assert row.note.endswith("the other way round than printed: memory in training")
    measured.write("poseur-speed-gpu", {**fake(), "repeats": 3})
    assert exact()["poseur-supp5"].otherwise == "inconclusive"
    wrong = fake()
    wrong["networks"]["RLE"]["macs"] = 9 * 10**9
    measured.write("poseur-speed-gpu", wrong)
    row = exact()["poseur-supp5"]
    assert (row.matches, row.otherwise) == (False, "not reproduced")


def test_the_command_writes(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(poseur_speed, "measure", lambda device, repeats: {**fake(), "repeats": repeats})
    assert poseur_speed.main(["--repeats", "9"]) == 0
    said = capsys.readouterr().out
    assert "RLE: 7.64 GMACs, 300.00 ms; kept 50.0 MiB" in said
    assert "speed 1.50x" in said
    assert exact()["poseur-supp5"].matches
