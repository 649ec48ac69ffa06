"""Letters among strokes: small pictures whose question, "which letter?", is answered by a glimpse of the right place.

One letter lies somewhere in the image among single strokes of the same kind. It is far smaller than the image, so that
a classifier does well to look at its place alone. Image i of a split is a function of (seed, split, i) and of the
knobs. The true place is kept for scoring.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coordreg.coords import centres, to_pixels
from coordreg.data.dice import Dice, mix
from coordreg.data.figures import FIRST, LARGEST
from coordreg.data.store import Store

#: Each letter as strokes (x0, y0, x1, y1) in the square [-1, 1]. None is the mirror image of another.
LETTERS: dict[str, tuple[tuple[float, float, float, float], ...]] = {
    "E": ((-0.8, -1, -0.8, 1), (-0.8, -1, 0.8, -1), (-0.8, 0, 0.8, 0), (-0.8, 1, 0.8, 1)),
    "F": ((-0.8, -1, -0.8, 1), (-0.8, -1, 0.8, -1), (-0.8, 0, 0.8, 0)),
    "H": ((-0.8, -1, -0.8, 1), (0.8, -1, 0.8, 1), (-0.8, 0, 0.8, 0)),
    "L": ((-0.8, -1, -0.8, 1), (-0.8, 1, 0.8, 1)),
    "T": ((-0.9, -1, 0.9, -1), (0, -1, 0, 1)),
    "V": ((-0.9, -1, 0, 1), (0, 1, 0.9, -1)),
    "X": ((-0.9, -1, 0.9, 1), (-0.9, 1, 0.9, -1)),
    "Z": ((-0.9, -1, 0.9, -1), (0.9, -1, -0.9, 1), (-0.9, 1, 0.9, 1)),
}
#: A stroke's width over half the letter's side; how far a letter may be turned, in radians.
WIDTH, TURN = 0.3, 0.2


def ink(strokes: Float[Tensor, "B S 4"], width: float, size: int) -> Float[Tensor, "B size size"]:
    """The share of each pixel that strokes (x0, y0, x1, y1) of this width cover, all in index pixels; soft edges."""
    at = torch.arange(size, dtype=strokes.dtype)
    x, y = at.view(1, 1, 1, -1), at.view(1, 1, -1, 1)
    x0, y0, x1, y1 = (v[..., None, None] for v in strokes.unbind(-1))
    dx, dy = x1 - x0, y1 - y0
    along = (((x - x0) * dx + (y - y0) * dy) / (dx.square() + dy.square()).clamp_min(1e-6)).clamp(0, 1)
    distance = (x - x0 - along * dx).square().add((y - y0 - along * dy).square()).sqrt()
    return (0.5 + width / 2 - distance).clamp(0, 1).amax(1)


@dataclass(frozen=True)
class Letters:
    """One letter an image. `open()` gives a `Store` with a "joint" for each letter of the alphabet.

    The letter that is there has weight 1, is visible and has its middle as coordinates; the others have weight 0 and
    NaN. Errors are measured in letter sides. split: train, val or test, disjoint. count: how many. size: pixels a side.
    side: of the letter, in pixels. across, down: the range of the letter's middle along x and y, normalised; (0, 0)
    puts it in the middle of the image. strokes: how many single strokes lie around, under the letter. noise: standard
    deviation of each pixel.
    """

    split: str = "train"
    count: int = 1024
    size: int = 64
    seed: int = 0
    side: float | int = 16
    across: tuple[float | int, float | int] = (-0.65, 0.65)
    down: tuple[float | int, float | int] = (-0.65, 0.65)
    strokes: int = 6
    noise: float | int = 0.05

    def __post_init__(self) -> None:
        if self.split not in FIRST:
            raise ValueError(f"Letters: got split={self.split!r}, expected one of {', '.join(FIRST)}")
        if not 1 <= self.count <= LARGEST:
            raise ValueError(f"Letters: got count={self.count}, expected 1 to {LARGEST}")
        if not 0 < self.side < self.size:
            raise ValueError(f"Letters: got side={self.side}, expected a length above 0 and below size={self.size}")
        for name, (low, high) in (("across", self.across), ("down", self.down)):
            if not -1 <= low <= high <= 1:
                raise ValueError(f"Letters: got {name}=({low}, {high}), expected -1 <= low <= high <= 1")

    def _dice(self, index: Int[Tensor, " B"], stream: str) -> Dice:
        keys = mix(mix(index + FIRST[self.split]) ^ mix(torch.tensor(self.seed & 0xFFFFFFFF)))
        return Dice(keys, stream)

    def truth(self, index: Int[Tensor, " B"]) -> tuple[Int[Tensor, " B"], Float[Tensor, "B 2"]]:
        """Number of the letter in LETTERS, and its middle, normalised."""
        letter = self._dice(index, "letter").choice([1] * len(LETTERS))
        place = self._dice(index, "place")
        return letter, torch.stack([place.one(*self.across), place.one(*self.down)], -1)

    def draw(self, index: Int[Tensor, " B"]) -> Tensor:
        """The images with these numbers: (B, 3, size, size) bytes."""
        n, size, half = len(index), self.size, self.side / 2
        letter, place = self.truth(index)
        look = self._dice(index, "look")
        slope = look.uniform(6, -0.15, 0.15).view(n, 3, 2)
        grid = centres(size)
        image = look.uniform(3, 0.15, 0.4)[..., None, None]
        image = image + slope[..., :1, None] * grid + slope[..., 1:, None] * grid.unsqueeze(-1)
        # single strokes, as long as those of letters, each of its own colour
        around = self._dice(index, "strokes")
        for _ in range(self.strokes):
            middle, angle = around.uniform(2, 0, size - 1), around.one(0, torch.pi)
            reach = half * torch.stack([angle.cos(), angle.sin()], -1)
            stroke = torch.cat([middle - reach, middle + reach], -1).unsqueeze(1)
            image = self._paint(image, stroke, around.uniform(3, 0.55, 1.0))
        # the letter: turned a little, of one colour
        table = torch.zeros(len(LETTERS), max(map(len, LETTERS.values())), 2, 2)
        for i, strokes in enumerate(LETTERS.values()):
            ends = torch.tensor(strokes, dtype=torch.float32).view(-1, 2, 2)
            table[i] = ends[torch.arange(table.shape[1]).clamp_max(len(ends) - 1)]  # the last stroke fills the row
        angle = look.one(-TURN, TURN)
        turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).view(n, 1, 2, 2)
        ends = half * table[letter] @ turn.mT + to_pixels(place, (size, size)).view(n, 1, 1, 2)
        image = self._paint(image, ends.flatten(2), look.uniform(3, 0.55, 1.0))
        grain = self._dice(index, "grain").uniform(3 * size * size, -1, 1).view(n, 3, size, size)
        return (image + self.noise * 3**0.5 * grain).clamp(0, 1).mul(255).round().to(torch.uint8)

    def _paint(
        self, image: Float[Tensor, "B 3 h w"], strokes: Float[Tensor, "B S 4"], colour: Float[Tensor, "B 3"]
    ) -> Float[Tensor, "B 3 h w"]:
        cover = ink(strokes, WIDTH * self.side / 2, self.size).unsqueeze(1)
        return image + cover * (colour[..., None, None] - image)

    def open(self) -> Store:
        """All `count` images in memory."""
        index = torch.arange(self.count)
        letter, place = self.truth(index)
        there = torch.nn.functional.one_hot(letter, len(LETTERS)).bool()
        weight = there.unsqueeze(-1).expand(-1, -1, 2).float()
        affine = torch.zeros(self.count, 2, 3)
        affine[:, 0, 0] = affine[:, 1, 1] = self.size / 2
        affine[:, :, 2] = (self.size - 1) / 2
        return Store(
            images=torch.cat([self.draw(part) for part in index.split(128)]),
            coords=torch.where(weight > 0, place.unsqueeze(1), torch.nan), weight=weight, visible=there,
            normaliser=torch.full((self.count,), float(self.side)), affine=affine, pairs=(), joints=tuple(LETTERS),
        )  # fmt: skip
