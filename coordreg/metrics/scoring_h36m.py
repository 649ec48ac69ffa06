"""Scoring on Human3.6M for records: the errors of `scoring3d`, and their means by action, the papers' columns."""

from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from coordreg.coords import Points
from coordreg.data.human36m import H36MStore, by_action
from coordreg.data.store import Store
from coordreg.metrics.scoring3d import Scores3D, Scoring3D


@dataclass(frozen=True, eq=False, kw_only=True)
class ScoresH36M(Scores3D):
    """Errors in mm and the action of each image, (N,), from 2 to 16."""

    action: Tensor

    def summary(self) -> dict[str, Any]:
        """As `Scores3D`, and the mean by action of each of the papers' measures under "actions"."""
        columns = {
            name: {column: round(value, 2) for column, value in by_action(self.each[name].float(), self.action).items()}
            for name in ("mpjpe", "pa_mpjpe", "pa_rigid")
        }
        return {**super().summary(), "actions": columns}


@dataclass(frozen=True)
class ScoringH36M(Scoring3D):
    """`Scoring3D` with the true camera and distance of the pelvis (see `human36m.to_camera_mm`), action by action."""

    def score(self, points: Points, data: Store) -> ScoresH36M:
        """Score predictions, one for each frame in order. ValueError for a data set other than Human3.6M."""
        if not isinstance(data, H36MStore):
            raise ValueError(f"ScoringH36M: got a {type(data).__name__}, expected an H36MStore; use Scoring3D")
        found = super().score(points, data)
        return ScoresH36M(**{f.name: getattr(found, f.name) for f in fields(Scores3D)}, action=data.action)


__all__ = ["ScoresH36M", "ScoringH36M"]
