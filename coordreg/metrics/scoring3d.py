"""Scoring of poses in three dimensions, for records: the errors of `mpjpe.py` in millimetres, image by image."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from coordreg.coords import Points, apply_affine
from coordreg.data.store import Store
from coordreg.metrics.mpjpe import joint_errors, n_mpjpe, pa_mpjpe
from coordreg.metrics.pck import steps

STEPS = 50
#: The largest number of float16: 65 m, which only a network that has gone astray can miss by.
LARGEST = float(torch.finfo(torch.float16).max)


def millimetres(coords: Float[Tensor, "B J 3"], affine: Float[Tensor, "B 3 4"], unit: float) -> Float[Tensor, "B J 3"]:
    """Normalised poses in millimetres, as if all joints were as far from the camera as the root (weak perspective).

    affine: of the store, the same scale in x, y and z in pixels. unit: millimetres of depth for z = 1. The error of
    two poses in these units is what a ruler at the root's depth would measure.
    """
    return apply_affine(affine, coords) * (unit / affine[:, 2, 2]).view(-1, 1, 1)


@dataclass(frozen=True, eq=False)
class Scores3D:
    """Errors in millimetres: by metric and image, and by image and joint after the roots are put together."""

    each: dict[str, Tensor]
    joint: Tensor
    at: tuple[float, ...]
    limit: float
    joints: tuple[str, ...]
    points: Tensor | None = None

    def summary(self) -> dict[str, Any]:
        """Means in mm by metric and share of joints within `at` mm, the curve of that share, and the error by joint."""
        within = {f"{t:g}": round(100 * float((self.joint <= t).double().mean()), 3) for t in self.at}
        thresholds = steps(self.limit, STEPS)
        curve = [100 * float((self.joint <= float(t)).double().mean()) for t in thresholds]
        return {
            "at": {**{k: round(float(v.double().mean()), 2) for k, v in self.each.items()}, **within},
            "auc": round(float(torch.trapezoid(torch.tensor(curve)) / STEPS), 3),
            "mean_distance": round(float(self.joint.double().mean()), 3),
            "curve": [round(c, 2) for c in curve],
            "joints": {"mpjpe": {j: round(float(v), 1) for j, v in zip(self.joints, self.joint.mean(0), strict=True)}},
        }

    def images(self) -> dict[str, NDArray[Any]]:
        """By image: each metric in mm, and 1 as the weight of an image.

        Metrics are float16: exact to half a millimetre up to two metres; an error above `LARGEST` is stored as that.
        """
        found: dict[str, NDArray[Any]] = {k: v.clamp(max=LARGEST).half().numpy() for k, v in self.each.items()}
        return {**found, "count": torch.ones(len(self.joint), dtype=torch.int8).numpy()}


@dataclass(frozen=True)
class Scoring3D:
    """MPJPE, PA-MPJPE, N-MPJPE and the error in depth alone, all in mm after joint `root` of both poses is put at 0.

    The root counts in the means, as Human3.6M papers count it. depth: mean |z| error. at: radii in mm for the share of
    joints within. unit: see `millimetres`; a store with its own `to_mm` (a known camera) is asked instead. exclude is
    here for the progress bar alone.
    """

    root: int = 0
    unit: float = 1200.0
    at: tuple[float, ...] = (150.0,)
    limit: float = 150.0
    exclude: tuple[int, ...] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """Errors in mm that claims may name beside the thresholds."""
        return ("mpjpe", "pa_mpjpe", "pa_rigid", "n_mpjpe", "depth")

    @property
    def thresholds(self) -> Tensor:
        """The 51 thresholds of the curve, in mm."""
        return steps(self.limit, STEPS)

    def score(self, points: Points, data: Store) -> Scores3D:
        """Score predictions, one for each image of `data` in order. ValueError for other numbers or two dimensions."""
        if points.coords.shape != data.coords.shape or points.coords.shape[-1] != 3:
            raise ValueError(
                f"Scoring3D: got predictions of shape {tuple(points.coords.shape)} for labels of "
                f"{tuple(data.coords.shape)}, expected (N, J, 3) of both; give the data set dims=3"
            )
        if hasattr(data, "to_mm"):
            pred, gt = data.to_mm(points.coords), data.to_mm(data.coords)
        else:
            pred, gt = (millimetres(c.double(), data.affine.double(), self.unit) for c in (points.coords, data.coords))
        joint = joint_errors(pred, gt, self.root)
        moved = [pose - pose[:, self.root : self.root + 1] for pose in (pred, gt)]
        each = {
            "mpjpe": joint.mean(-1),
            "pa_mpjpe": pa_mpjpe(pred, gt),
            "pa_rigid": pa_mpjpe(pred, gt, scale=False),
            "n_mpjpe": n_mpjpe(pred, gt, self.root),
            "depth": (moved[0] - moved[1])[..., 2].abs().mean(-1),
        }
        return Scores3D(each, joint, self.at, self.limit, data.joints, points.coords)
