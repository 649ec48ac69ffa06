"""A check on our PCKh: the predictions of Tompson et al. 2015 for MPII's validation people, scored joint by joint.

    python -m coordreg.experiments.published --root DIR

DIR holds mpii/annot/detections_our_format.mat, the evaluation file that circulates with the published codes: truth,
head boxes and the cascade's predictions for 2,958 people. The numbers go to `results/mpii-cascade.json`, which pages
quote.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from scipy.io import loadmat
from torch import Tensor

from coordreg.data.mpii import FACTOR
from coordreg.data.skeletons import MPII16
from coordreg.experiments import measured
from coordreg.metrics.pck import SLIP, pck

FILE, NAME = "annot/detections_our_format.mat", "mpii-cascade"
#: MPII's groups of joints, as its tables have them; pelvis and thorax do not count.
GROUPS = {"Head": (9,), "Sho.": (12, 13), "Elb.": (11, 14), "Wri.": (10, 15), "Hip": (2, 3), "Kne.": (1, 4),
          "Ank.": (0, 5)}  # fmt: skip
EXCLUDED = (6, 7)


def distances(path: Path) -> Float[Tensor, "N 16"]:
    """Errors of the stored predictions in head sizes, NaN where a joint is missing.

    Raises FileNotFoundError, and ValueError for a file without predictions.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not there; it is gt_valid.mat of HRNet's and SimpleBaseline's MPII evaluation, under this name"
        )
    stored = loadmat(path)
    wanted = ("pos_pred_src", "pos_gt_src", "jnt_missing", "headboxes_src")
    absent = [name for name in wanted if name not in stored]
    if absent:
        raise ValueError(f"{path} has no {', '.join(absent)}; expected MPII's evaluation file with predictions in it")
    found, truth = (torch.from_numpy(stored[name].astype(float)).permute(2, 0, 1) for name in wanted[:2])
    boxes = torch.from_numpy(stored["headboxes_src"].astype(float))
    head = FACTOR * (boxes[1] - boxes[0]).norm(dim=0)
    each = (found - truth).norm(dim=-1) / head.unsqueeze(-1)
    return each.masked_fill(torch.from_numpy(stored["jnt_missing"].T > 0), torch.nan)


def scored(each: Float[Tensor, "N 16"]) -> dict[str, Any]:
    """PCKh at 0.5, at 0.1, and at the 0.11 that published codes print as 0.1: by group and the mean, in percent."""
    readings = {}
    for title, threshold, slip in (("0.5", 0.5, 0.0), ("0.1", 0.1, 0.0), ("0.1, as printed", 0.1, SLIP)):
        value = pck(each, threshold, EXCLUDED, slip)
        readings[title] = {name: round(float(value.joints[list(j)].mean()), 2) for name, j in GROUPS.items()}
        readings[title]["Mean"] = round(float(value.mean), 2)
    labelled = {name: int((~each[:, j].isnan()).sum()) for j, name in enumerate(MPII16.joints)}
    return {"people": len(each), "labelled": labelled, "pckh": readings}


def read() -> dict[str, Any] | None:
    """The numbers, or None where nobody has scored them. RecordError for a file that was edited."""
    return measured.read(NAME)


def counted(folder: Path) -> dict[str, Any]:
    """Everything that is kept, from the file in this folder."""
    return scored(distances(folder / FILE))


def told(data: dict[str, Any]) -> str:
    """What was scored, in words."""
    return f"PCKh@0.5 {data['pckh']['0.5']['Mean']} of {data['people']:,} people"


def main(arguments: Sequence[str] | None = None) -> int:
    """Score and write; the exit code."""
    return measured.folder(arguments, "coordreg.experiments.published", __doc__, NAME, "mpii", counted, told)


if __name__ == "__main__":
    sys.exit(main())
