"""Cameras: from a point of the world in millimetres to a pixel of the image, and back again where the depth is known.

    X_cam = R X_world + t        millimetres; x to the right, y down, z forward
    pixel = f X / Z + c          index pixels, x and y each with a focal length of their own

Human3.6M's cameras go round in two spellings that differ without a sign of it: R as above with t in millimetres, or
the transpose of R with the camera's place in the world, in metres. Each has its own reader here; none guesses.

Source: Ionescu et al., PAMI 2014 (the set); Brown, 1966, and OpenCV's order of the numbers (the distortion).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Human3.6M's four cameras in the order in which other codes number them from 1.
CAMERAS = (54138969, 55011271, 58860488, 60457274)


@dataclass(frozen=True, eq=False)
class Camera:
    """One camera. R: (3, 3) from the world's axes to the camera's; t: (3,) millimetres; f, c: (2,) index pixels.

    k: (3,) radial and p: (2,) tangential distortion, or None. Raises ValueError for other shapes, and for an R that is
    not a rotation.
    """

    R: NDArray[Any]
    t: NDArray[Any]
    f: NDArray[Any]
    c: NDArray[Any]
    k: NDArray[Any] | None = None
    p: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        if (self.k is None) != (self.p is None):
            raise ValueError("Camera: got one of k and p, expected both (3 radial, 2 tangential numbers) or neither")
        for name, size in (("R", 9), ("t", 3), ("f", 2), ("c", 2), ("k", 3), ("p", 2)):
            value = getattr(self, name)
            if value is None:
                continue
            array = np.asarray(value, dtype=np.float64)
            if array.size != size or not np.isfinite(array).all():
                raise ValueError(f"Camera: got {name} of shape {array.shape}, expected {size} finite numbers")
            object.__setattr__(self, name, array.reshape(3, 3) if name == "R" else array.reshape(size))
        off = float(np.abs(self.R @ self.R.T - np.eye(3)).max())
        if off > 1e-3 or np.linalg.det(self.R) < 0:
            raise ValueError(
                f"Camera: R is not a rotation (R R^T differs from 1 by {off:.3g}); give R and t separately"
            )

    def to_camera(self, world: NDArray[Any]) -> NDArray[Any]:
        """World points (..., 3) in millimetres -> the camera's frame, millimetres."""
        return np.asarray(world, dtype=np.float64) @ self.R.T + self.t

    def to_world(self, points: NDArray[Any]) -> NDArray[Any]:
        """Points (..., 3) in the camera's frame -> the world, millimetres. The inverse of `to_camera`."""
        return (np.asarray(points, dtype=np.float64) - self.t) @ self.R

    def project(self, points: NDArray[Any], distort: bool = False) -> NDArray[Any]:
        """Points (..., 3) in the camera's frame -> index pixels (..., 2); `distort` bends them as the lens does.

        Raises ValueError for a point that is not in front of the camera, or where there is no distortion to apply.
        """
        points = np.asarray(points, dtype=np.float64)
        depth = points[..., 2:]
        if not bool((depth > 0).all()):
            raise ValueError(
                f"Camera: a point has the depth {float(depth.min()):g} mm, expected depths above 0; is it still in the "
                "world's frame, or R transposed?"
            )
        plane = points[..., :2] / depth
        if distort:
            if self.k is None or self.p is None:
                raise ValueError("Camera: got distort=True but this camera has no k and p; give both, or leave it out")
            plane = _bend(plane, self.k, self.p)
        return plane * self.f + self.c

    def unproject(self, pixel: NDArray[Any], depth: NDArray[Any]) -> NDArray[Any]:
        """Index pixels (..., 2) and depths (...) in mm -> the camera's frame (..., 3), mm: `project` undone exactly.

        The distortion is not undone: pixels are taken as `project` makes them without it.
        """
        depth = np.asarray(depth, dtype=np.float64)[..., None]
        plane = (np.asarray(pixel, dtype=np.float64) - self.c) / self.f
        return np.concatenate([plane * depth, depth], -1)


def _bend(plane: NDArray[Any], k: NDArray[Any], p: NDArray[Any]) -> NDArray[Any]:
    """Where the lens puts what a pinhole would put at (x, y) of the plane at depth 1."""
    x, y = plane[..., 0], plane[..., 1]
    r2 = x * x + y * y
    radial = 1 + k[0] * r2 + k[1] * r2**2 + k[2] * r2**3
    bent_x = x * radial + 2 * p[0] * x * y + p[1] * (r2 + 2 * x * x)
    bent_y = y * radial + p[0] * (r2 + 2 * y * y) + 2 * p[1] * x * y
    return np.stack([bent_x, bent_y], -1)


def from_metres(R: Any, T: Any, f: Any, c: Any, k: Any = None, p: Any = None) -> Camera:
    """The other spelling: R (3, 3) from the camera's axes to the world's, T (3,) the camera's place in metres."""
    turn = np.asarray(R, dtype=np.float64).reshape(3, 3).T
    place = 1000 * np.asarray(T, dtype=np.float64).reshape(3)
    return Camera(turn, -turn @ place, f, c, k, p)


def subject_number(name: Any) -> int:
    """ "S11" -> 11. Raises ValueError for anything else."""
    text = str(name)
    if not (text.startswith("S") and text[1:].isdecimal()):
        raise ValueError(f"Human3.6M: got the subject {name!r}, expected a name such as 'S1' or 'S11'")
    return int(text[1:])


def read_parameters(path: Path) -> dict[tuple[int, int], Camera]:
    """Cameras by (subject, camera number) from camera-parameters.json: R and t as in this file's formulas, t in mm.

    The file's five distortion numbers are k1 k2 p1 p2 k3. Raises ValueError if it is not there or not of this form.
    """
    try:
        content = json.loads(Path(path).read_text())
        lenses = {int(name): _lens(entry) for name, entry in content["intrinsics"].items()}
        return {
            (subject_number(subject), int(name)): Camera(np.array(e["R"]), np.array(e["t"]), *lenses[int(name)])
            for subject, entries in content["extrinsics"].items()
            for name, e in entries.items()
        }
    except FileNotFoundError:
        raise ValueError(
            f"Human3.6M: the cameras {path} are not there; get camera-parameters.json from "
            "https://github.com/karfly/human36m-camera-parameters and put it there"
        ) from None
    except (KeyError, TypeError, AttributeError, IndexError, json.JSONDecodeError) as error:
        raise ValueError(
            f"Human3.6M: {path} does not have the form of camera-parameters.json ({type(error).__name__}: {error}); "
            "expected `intrinsics` by camera and `extrinsics` by subject and camera"
        ) from error


def _lens(entry: Mapping[str, Any]) -> tuple[NDArray[Any], ...]:
    matrix, five = np.array(entry["calibration_matrix"], dtype=np.float64), np.array(entry["distortion"])
    return matrix[[0, 1], [0, 1]], matrix[:2, 2], five[[0, 1, 4]], five[[2, 3]]


def metric_cameras(content: Mapping[Any, Any]) -> dict[tuple[int, int], Camera]:
    """Cameras by (subject, camera number) from what cameras.pkl holds: ("S1", "54138969") -> R, T, f, c, k, p.

    R and T are of the other spelling, see `from_metres`. Raises ValueError for a mapping of another form.
    """
    try:
        return {
            (subject_number(subject), int(name)): from_metres(*(e[key] for key in "RTfckp"))
            for (subject, name), e in content.items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"Human3.6M: these cameras do not have the form of cameras.pkl ({type(error).__name__}: {error}); expected "
            "('S1', '54138969') -> R, T, f, c, k, p"
        ) from error


def camera_of(cameras: Mapping[tuple[int, int], Camera], subject: int, camera: int, source: Path) -> Camera:
    """One of `cameras`. Raises ValueError that names what is missing and what was found in `source`."""
    if (subject, camera) in cameras:
        return cameras[subject, camera]
    found = sorted(name for who, name in cameras if who == subject)
    what = f"only its cameras {found}" if found else f"the subjects {sorted({f'S{who}' for who, _ in cameras})}"
    raise ValueError(f"Human3.6M: {source} has no camera {camera} of subject S{subject}, {what}; get the whole file")
