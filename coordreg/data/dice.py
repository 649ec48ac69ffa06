"""Random numbers by address instead of by turn: a hash of (seed, index, stream, channel).

Image i looks the same whatever batch it is drawn in, and a knob that uses more numbers of its own stream leaves all
other streams alone. Numbers are made on the CPU, so that labels do not depend on the device.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

_MASK = 0xFFFFFFFF


def mix(x: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """Scramble 32-bit integers held in int64 (a bijection; constants found by C. Wellons' search, 2018)."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


class Dice:
    """Uniform numbers for a batch of keys, one stream of them.

    keys: (B,) int64 that name the images. stream: a name; equal names give equal numbers.
    """

    def __init__(self, keys: Int[Tensor, " B"], stream: str) -> None:
        number = int.from_bytes(stream.encode()[:4].ljust(4, b"_"), "little") ^ (len(stream) * 0x9E3779B1 & _MASK)
        for letter in stream.encode():
            number = (number * 31 + letter) & _MASK
        self.keys = mix(keys.cpu() ^ number)
        self.used = 0

    def __len__(self) -> int:
        return len(self.keys)

    def raw(self, n: int) -> Int[Tensor, "B n"]:
        """The next n channels as 32-bit integers."""
        channel = mix(torch.arange(self.used, self.used + n) * 0x9E3779B1 & _MASK)
        self.used += n
        return mix((self.keys[:, None] + channel) & _MASK)

    def uniform(self, n: int, low: float | int = 0.0, high: float | int = 1.0) -> Float[Tensor, "B n"]:
        """The next n channels, uniform in [low, high)."""
        return low + (high - low) * (self.raw(n) >> 8).float() / (1 << 24)

    def one(self, low: float | int = 0.0, high: float | int = 1.0) -> Float[Tensor, " B"]:
        """One channel, uniform in [low, high)."""
        return self.uniform(1, low, high)[:, 0]

    def chance(self, p: float | int) -> Tensor:
        """(B,) bool, True with probability p."""
        return self.one() < p

    def choice(self, weights: Sequence[float | int]) -> Int[Tensor, " B"]:
        """(B,) numbers of the options, drawn with these weights."""
        edges = torch.tensor(weights).cumsum(0)
        return torch.bucketize(self.one() * edges[-1], edges, right=True).clamp_max(len(weights) - 1)

    def normal(self, n: int) -> Float[Tensor, "B n"]:
        """The next 2n channels as n standard normal numbers (Box and Muller)."""
        u, v = self.uniform(n), self.uniform(n)
        return (-2 * (1 - u).log()).sqrt() * (2 * math.pi * v).cos()
