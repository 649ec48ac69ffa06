"""The algorithms of the published codes as they run there, joint by joint; written from their description.

They are what we are measured against, and at the same time an independent check of our results.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

Array = NDArray[np.float32]
Double = NDArray[np.float64]


def quarter_shift(maps: Array) -> tuple[Array, Array]:
    """Maps (B, J, H, W) -> (B, J, 2) index pixels and (B, J) maxima: the argmax, then a quarter cell by the sign."""
    batch, joints, height, width = maps.shape
    flat = maps.reshape(batch, joints, -1)
    index, score = np.argmax(flat, 2), np.amax(flat, 2)
    points = np.tile(index.reshape(batch, joints, 1), (1, 1, 2)).astype(np.float32)
    points[:, :, 0] = points[:, :, 0] % width
    points[:, :, 1] = np.floor(points[:, :, 1] / width)
    points *= np.tile(np.greater(score.reshape(batch, joints, 1), 0.0), (1, 1, 2)).astype(np.float32)
    for b in range(batch):
        for j in range(joints):
            grid = maps[b][j]
            px = math.floor(points[b][j][0] + 0.5)
            py = math.floor(points[b][j][1] + 0.5)
            if 1 < px < width - 1 and 1 < py < height - 1:
                slope = np.array([grid[py][px + 1] - grid[py][px - 1], grid[py + 1][px] - grid[py - 1][px]])
                points[b][j] += np.sign(slope) * 0.25
    return points, score


def dark(maps: Array, kernel: Double, affine: Double) -> Array:
    """Maps (B, J, H, W) -> (B, J, 2) pixels of the picture: blur every map, scale, clip, log; one step; the crop.

    kernel: (k,) along each axis. affine: (B, 2, 3), index pixels of the map -> pixels of the picture. The blur is a
    library's, as it is there (OpenCV's): scipy's, along one axis after the other.
    """
    batch, joints, height, width = maps.shape
    flat = maps.reshape(batch, joints, -1)
    index, k = np.argmax(flat, 2), kernel.astype(np.float32)
    points = np.stack([index % width, index // width], -1).astype(np.float32)
    for b in range(batch):
        for j in range(joints):
            soft = correlate1d(correlate1d(maps[b, j], k, 1, mode="constant"), k, 0, mode="constant")
            soft = np.log(np.maximum(soft * (maps[b, j].max() / soft.max()), 1e-10))
            px, py = int(points[b, j, 0]), int(points[b, j, 1])
            if 1 < px < width - 2 and 1 < py < height - 2:
                dx = 0.5 * (soft[py][px + 1] - soft[py][px - 1])
                dy = 0.5 * (soft[py + 1][px] - soft[py - 1][px])
                dxx = 0.25 * (soft[py][px + 2] - 2 * soft[py][px] + soft[py][px - 2])
                dyy = 0.25 * (soft[py + 2][px] - 2 * soft[py][px] + soft[py - 2][px])
                dxy = 0.25 * (soft[py + 1][px + 1] - soft[py - 1][px + 1] - soft[py + 1][px - 1] + soft[py - 1][px - 1])
                if dxx * dyy - dxy**2 != 0:
                    step = -np.linalg.inv(np.array([[dxx, dxy], [dxy, dyy]])) @ np.array([dx, dy])
                    points[b, j] += step
        for j in range(joints):
            points[b, j] = affine[b] @ np.array([points[b, j, 0], points[b, j, 1], 1.0])
    return points


def biased_targets(pixels: Array, seen: Array, size: tuple[int, int], sigma: float) -> tuple[Array, Array]:
    """(B, J, 2) heatmap pixels -> (B, J, H, W) and weights: a patch of 6 sigma + 1 cells about the rounded joint."""
    batch, joints = pixels.shape[:2]
    height, width = size
    reach = int(3 * sigma)
    maps, weight = np.zeros((batch, joints, height, width), np.float32), seen.copy()
    for b in range(batch):
        for j in range(joints):
            mx, my = int(pixels[b][j][0] + 0.5), int(pixels[b][j][1] + 0.5)
            left, top, right, bottom = mx - reach, my - reach, mx + reach + 1, my + reach + 1
            if left >= width or top >= height or right <= 0 or bottom <= 0:
                weight[b][j] = 0
                continue
            x = np.arange(0, 2 * reach + 1, 1, np.float32)
            y = x[:, np.newaxis]
            patch = np.exp(-((x - reach) ** 2 + (y - reach) ** 2) / (2 * sigma**2))
            from_x, to_x = max(0, -left), min(right, width) - left
            from_y, to_y = max(0, -top), min(bottom, height) - top
            if weight[b][j] > 0.5:
                maps[b][j][max(0, top) : min(bottom, height), max(0, left) : min(right, width)] = patch[
                    from_y:to_y, from_x:to_x
                ]
    return maps, weight


def full_targets(pixels: Array, seen: Array, size: tuple[int, int], sigma: float) -> tuple[Array, Array]:
    """(B, J, 2) heatmap pixels -> (B, J, H, W) and weights: a Gaussian over the whole map about the unrounded joint."""
    batch, joints = pixels.shape[:2]
    height, width = size
    reach = 3 * sigma
    maps, weight = np.zeros((batch, joints, height, width), np.float32), seen.copy()
    for b in range(batch):
        for j in range(joints):
            mx, my = pixels[b][j]
            if mx - reach > width - 1 or my - reach > height - 1 or mx + reach < 0 or my + reach < 0:
                weight[b][j] = 0
                continue
            x = np.arange(0, width, 1, np.float32)
            y = np.arange(0, height, 1, np.float32)[:, np.newaxis]
            if weight[b][j] > 0.5:
                maps[b][j] = np.exp(-((x - mx) ** 2 + (y - my) ** 2) / (2 * sigma**2))
    return maps, weight


def _cells(size: Sequence[int]) -> list[Double]:
    """The index of every cell of a grid (..., H, W) along each of its axes, x first, each as large as the grid."""
    return list(np.meshgrid(*(np.arange(n, dtype=np.float64) for n in size), indexing="ij"))[::-1]


def soft_argmax(maps: Array, gradient: Array) -> tuple[Double, Double]:
    """Maps (B, J, *size), gradient (B, J, d) -> means (B, J, d) in [-1, 1], gradient of the maps; all in float64.

    The expectation over the whole grid, and each cell's exact derivative.
    """
    batch, joints, *size = maps.shape
    grids = [(2 * cell + 1) / n - 1 for cell, n in zip(_cells(size), reversed(size), strict=True)]
    means, back = np.zeros((batch, joints, len(size))), np.zeros(maps.shape)
    for b in range(batch):
        for j in range(joints):
            p = np.exp(maps[b, j].astype(np.float64) - maps[b, j].max())
            p /= p.sum()
            for axis, grid in enumerate(grids):
                means[b, j, axis] = (p * grid).sum()
                back[b, j] += gradient[b, j, axis] * p * (grid - means[b, j, axis])
    return means, back


def volume_targets(pixels: Array, size: tuple[int, int, int], sigma: float) -> Array:
    """(B, J, 3) index pixels -> (B, J, D, H, W): a Gaussian of peak 1 over the whole volume about each joint."""
    batch, joints = pixels.shape[:2]
    cells, volumes = _cells(size), np.zeros((batch, joints, *size), np.float32)
    for b in range(batch):
        for j in range(joints):
            square = sum((cell - at) ** 2 for cell, at in zip(cells, pixels[b, j], strict=True))
            volumes[b, j] = np.exp(-square / (2 * sigma**2))
    return volumes
