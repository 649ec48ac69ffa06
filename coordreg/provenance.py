"""Where a record comes from: the machine, the versions, the commit of the code, the memory it took."""

import os
import platform
import resource
import subprocess
import sys
import time
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric


def made(fabric: Fabric) -> dict[str, Any]:
    """Where and with what a record is made. `interpreter` is "project" inside the checkout's .venv, else "own"."""
    here = Path(__file__).parent.parent
    own = Path(sys.prefix).resolve() != (here / ".venv").resolve()
    return {
        "device": _device(fabric),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "interpreter": "own" if own else "project",
        "versions": {name: _version(name) for name in ("torch", "torchvision", "lightning", "numpy", "coordreg")},
        "commit": commit(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "source"


def _device(fabric: Fabric) -> str:
    if fabric.device.type == "cuda":
        return torch.cuda.get_device_name(fabric.device)
    model = ""
    if Path("/proc/cpuinfo").exists():
        lines = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else ""
    return f"cpu, {model or platform.processor() or platform.machine()}, {os.cpu_count()} cores"


@cache
def commit() -> str:
    """The commit the code came from; "+changes" if tracked code differs from it; "unknown" outside git.

    Asked for once in a process: what was loaded is what counts, not what the files say later.
    """
    try:
        here = Path(__file__).parent.parent
        git = ["git", "-C", str(here)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        dirty = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "coordreg"], check=False).returncode != 0
        return head[:12] + ("+changes" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def peak_memory(device: torch.device) -> float:
    """MiB at the most so far: of the GPU since its count was last reset, else of this process since it began."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10, 1)


__all__ = ["commit", "made", "peak_memory"]
