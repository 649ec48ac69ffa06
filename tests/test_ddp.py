"""Two processes train what one would: Fabric's data-parallel strategy on the CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent

SCRIPT = """
import sys
import torch
from lightning.fabric import Fabric
from torch import nn
from coordreg.backbones.resnet import ConvHead
from coordreg.data.store import Store
from coordreg.heatmap import MSE, Argmax, Gaussian, Heatmap
from coordreg.method import Estimator
from coordreg.train import Training, fit

def main(devices, out):
    fabric = Fabric(accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto")
    fabric.launch()
    g = torch.Generator().manual_seed(0)
    n, joints = 12, 3
    store = Store(
        torch.randint(0, 255, (n, 3, 10, 14), dtype=torch.uint8, generator=g),
        torch.rand(n, joints, 2, generator=g) - 0.5, torch.ones(n, joints, 2), torch.ones(n, joints, dtype=torch.bool),
        torch.ones(n), torch.eye(2, 3).expand(n, 2, 3), (), ("a", "b", "c"),
    )
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU())  # no batch statistics, which differ by process
    estimator = Estimator(backbone, ConvHead(5, joints), Heatmap(Gaussian(1.0), MSE(), Argmax()))
    fit(estimator, store, Training(60, 4, 1.0, optimiser="sgd"), seed=3, fabric=fabric, progress=False)
    torch.save({k: v for k, v in estimator.state_dict().items()}, f"{out}/{devices}-{fabric.global_rank}.pt")

if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
"""


@pytest.mark.slow
def test_two_processes_train_what_one_would(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for devices in ("1", "2"):
        done = subprocess.run(
            [sys.executable, str(script), devices, str(tmp_path)],
            env=environment, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
    one, first, second = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("1-0", "2-0", "2-1"))
    for name, value in one.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-6)
    torch.manual_seed(0)
    start = torch.nn.Conv2d(3, 5, 3, padding=1).weight
    assert not torch.allclose(one["backbone.0.weight"], start, atol=1e-4)  # it did train
