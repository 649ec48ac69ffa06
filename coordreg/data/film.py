"""Noise to paint with, blur, and the last step of a picture: exposure, softness, grain."""

from functools import cache

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from coordreg.data.dice import mix


@cache
def noise_tile(size: int = 256, device: torch.device | str = "cpu") -> Float[Tensor, "size size"]:
    """A seamless tile of fractal noise, mean 0, about within [-1, 1]."""
    total = torch.zeros(1, 1, size, size)
    for octave, cells in enumerate((4, 8, 16, 32, 64, 128)):
        raw = mix(torch.arange(cells * cells) * 0x9E3779B1 + octave * 7919 & 0xFFFFFFFF)
        grid = (raw.float() / (1 << 32)).view(1, 1, cells, cells) - 0.5
        grid = torch.nn.functional.pad(grid, (4, 4, 4, 4), mode="circular")
        fine = torch.nn.functional.interpolate(grid, scale_factor=size // cells, mode="bicubic", align_corners=False)
        edge = 4 * size // cells
        total += fine[..., edge : edge + size, edge : edge + size] * 0.62**octave
    return (total[0, 0] * 1.5).to(device)


def look_up(tile: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Noise at (x, y), one tile a unit."""
    size = tile.shape[0]
    i, j = (y * size).to(torch.int64) & (size - 1), (x * size).to(torch.int64) & (size - 1)
    return tile.take(i * size + j)


def blur(x: Float[Tensor, "*batch S S"]) -> Float[Tensor, "*batch S S"]:
    """A 3 x 3 binomial filter; the outermost pixels stay as they are along that axis."""
    y = x.clone()
    y[..., 1:-1, :] = 0.5 * x[..., 1:-1, :] + 0.25 * (x[..., 2:, :] + x[..., :-2, :])
    z = y.clone()
    z[..., 1:-1] = 0.5 * y[..., 1:-1] + 0.25 * (y[..., 2:] + y[..., :-2])
    return z


def film(
    picture: Float[Tensor, "B 3 S S"], tone: Float[Tensor, "B 4"], white: Float[Tensor, " T"]
) -> UInt8[Tensor, "B 3 S S"]:
    """Expose, soften and add grain; picture 0 to 1 -> bytes. tone: four uniform numbers; white: 2^n of white noise."""
    size = picture.shape[-1]
    gain = (0.94 + 0.22 * tone[:, 0]).view(-1, 1, 1, 1)
    picture = picture * gain
    picture = torch.lerp(picture, blur(picture), 0.15 + 0.35 * tone[:, 1].view(-1, 1, 1, 1))
    place = torch.arange(3 * size * size, device=white.device)
    seed = (tone[:, 2] * (1 << 24)).long().unsqueeze(1)
    grain = white.take((place + seed) & (len(white) - 1))
    picture = picture + (0.02 + 0.05 * tone[:, 3:]).mul(grain).view_as(picture)
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8)
