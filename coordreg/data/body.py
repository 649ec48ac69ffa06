"""Flesh and clothes: from the joints of FIGURE to the solids of a person."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from coordreg.data.dice import Dice
from coordreg.data.render import HEAD, PLAIN, Solids
from coordreg.data.skeletons import FIGURE

Value = Tensor | float | int | Sequence[float]
NEVER = 9.0

SKIN = [(0.95, 0.80, 0.70), (0.90, 0.72, 0.58), (0.80, 0.60, 0.46), (0.66, 0.46, 0.33), (0.50, 0.34, 0.24),
        (0.36, 0.24, 0.18)]  # fmt: skip
HAIR = [(0.10, 0.08, 0.07), (0.20, 0.13, 0.08), (0.34, 0.21, 0.11), (0.55, 0.38, 0.18), (0.72, 0.58, 0.34),
        (0.50, 0.22, 0.10), (0.58, 0.57, 0.56)]  # fmt: skip
SHIRTS = [(0.88, 0.87, 0.84), (0.20, 0.25, 0.36), (0.62, 0.20, 0.19), (0.27, 0.45, 0.60), (0.30, 0.44, 0.31),
          (0.80, 0.62, 0.27), (0.42, 0.40, 0.42), (0.70, 0.50, 0.52), (0.16, 0.16, 0.18), (0.47, 0.36, 0.52),
          (0.78, 0.72, 0.60), (0.24, 0.52, 0.52), (0.78, 0.42, 0.25), (0.56, 0.66, 0.74)]  # fmt: skip
TROUSERS = [(0.17, 0.21, 0.32), (0.28, 0.36, 0.50), (0.13, 0.13, 0.14), (0.46, 0.40, 0.32), (0.33, 0.33, 0.34),
            (0.62, 0.56, 0.46), (0.26, 0.28, 0.22), (0.36, 0.25, 0.20), (0.55, 0.58, 0.60)]  # fmt: skip
SHOES = [(0.12, 0.11, 0.11), (0.85, 0.84, 0.82), (0.38, 0.24, 0.15), (0.55, 0.16, 0.15), (0.25, 0.30, 0.42)]


def pick(dice: Dice, palette: Sequence[tuple[float, float, float]], vary: float = 0.05) -> Float[Tensor, "B 3"]:
    """A colour of the palette, varied a little."""
    base = torch.tensor(palette)[dice.choice([1.0] * len(palette))]
    return (base * (1 + vary * dice.uniform(1, -2, 2)) + vary * dice.uniform(3, -1, 1)).clamp(0.02, 0.98)


class Builder:
    """Collects solids one by one for a batch of images and stacks them."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.parts: list[tuple[Tensor, ...]] = []

    def _vector(self, value: Value, n: int) -> Tensor:
        value = torch.as_tensor(value, dtype=torch.float32)
        return value.expand(self.batch, n) if n else value.expand(self.batch)

    def add(
        self,
        a: Tensor,
        b: Tensor,
        radius: tuple[Value, Value],
        colour: Value,
        *,
        side: Value = (1.0, 0.0, 0.0),
        flat: Value = 1.0,
        cap: Value = 1.0,
        second: Value | None = None,
        beyond: Value | None = None,
        split: Value = NEVER,
        pattern: Value = float(PLAIN),
        frequency: Value = 8.0,
        phase: Value = 0.0,
        alive: Tensor | None = None,
        soft: float = 1.0,
        along: Tensor | None = None,
    ) -> None:
        """A capsule from a to b (B, 3). flat: thickness to the front over thickness to the side; cap: the same along.

        side: the direction in which `radius` is meant where flat is not 1. along: the axis where a = b.
        soft: below 1, caps and taper are shaded as if they were that much flatter, which hides seams.
        """
        w = b - a if along is None else self._vector(along, 3)
        w = w / w.norm(dim=-1, keepdim=True).clamp_min(1e-6)
        u = self._vector(side, 3)
        u = u - (u * w).sum(-1, keepdim=True) * w
        bad = u.norm(dim=-1, keepdim=True) < 1e-2
        u = torch.where(bad, torch.linalg.cross(w, torch.tensor([0.31, 0.87, 0.39]).expand_as(w)), u)
        u = u / u.norm(dim=-1, keepdim=True).clamp_min(1e-6)
        v = torch.linalg.cross(w, u)
        f, c = self._vector(flat, 0), self._vector(cap, 0)
        ra, rb = self._vector(radius[0], 0), self._vector(radius[1], 0)
        colour = self._vector(colour, 3)
        self._append(
            a,
            b,
            torch.stack([u, v, w], 1),
            torch.stack([torch.ones_like(f), 1 / f, 1 / c], -1),
            torch.stack([ra, rb], -1),
            torch.maximum(ra, rb) * torch.maximum(torch.maximum(f, c), torch.ones_like(f)),
            torch.stack([colour, self._vector(colour if second is None else second, 3),
                         self._vector(colour if beyond is None else beyond, 3)], 1),
            (pattern, frequency, split, phase),
            False,
            soft,
            alive,
        )  # fmt: skip

    def box(
        self,
        centre: Tensor,
        half: Tensor,
        turn: Tensor,
        colour: Value,
        *,
        second: Value | None = None,
        pattern: Value = float(PLAIN),
        frequency: Value = 6.0,
        phase: Value = 0.0,
        alive: Tensor | None = None,
    ) -> None:
        """A box: centre and half sizes (B, 3) as (width, depth, height), turned about the vertical by `turn` rad."""
        c, s, zero, one = turn.cos(), turn.sin(), torch.zeros_like(turn), torch.ones_like(turn)
        axes = torch.stack([c, zero, -s, s, zero, c, zero, one, zero], -1).view(-1, 3, 3)
        colour = self._vector(colour, 3)
        colours = torch.stack([colour, self._vector(colour if second is None else second, 3), colour], 1)
        unit = torch.ones(self.batch, 2)
        self._append(centre, centre, axes, 1 / half, unit, half.norm(dim=-1), colours,
                     (pattern, frequency, NEVER, phase), True, 1.0, alive)  # fmt: skip

    def _append(
        self,
        a: Tensor,
        b: Tensor,
        axes: Tensor,
        scale: Tensor,
        radius: Tensor,
        reach: Tensor,
        colours: Tensor,
        material: tuple[Value, Value, Value, Value],
        box: bool,
        soft: float,
        alive: Tensor | None,
    ) -> None:
        yes = torch.ones(self.batch, dtype=torch.bool)
        surface = torch.stack([self._vector(m, 0) for m in material], -1)
        flags = (yes if box else ~yes, yes.float() * soft, yes if alive is None else alive)
        self.parts.append((a, b, axes, scale, radius, reach, colours, surface, *flags))

    def solids(self) -> Solids:
        """All of them, (B, K, ...)."""
        return Solids(*(torch.stack(column, 1) for column in zip(*self.parts, strict=True)))


def dress(builder: Builder, joints: Float[Tensor, "B 26 3"], dice: Dice, alive: Tensor | None = None) -> None:
    """Add a person: joints of FIGURE in world coordinates, clothes from the dice."""
    at = {name: joints[:, j] for j, name in enumerate(FIGURE.joints)}
    skin, hair, shirt, shirt2 = (
        pick(dice, c, vary) for c, vary in ((SKIN, 0.02), (HAIR, 0.03), (SHIRTS, 0.05), (SHIRTS, 0.05))
    )
    trousers, trousers2, shoes = (pick(dice, c) for c in (TROUSERS, TROUSERS, SHOES))
    cloth = dice.choice([5, 1.5, 1.2, 1.2, 1.5]).float()
    weave = dice.choice([6, 0.3, 0.8, 0.7, 1.2]).float()
    frequency, phase = dice.one(5, 11), dice.one()
    sleeve = torch.where(dice.chance(0.5), dice.one(0.12, 0.24), torch.tensor(NEVER))
    short = dice.chance(0.35)
    bare_leg = torch.where(short, dice.one(0.22, 0.40), torch.tensor(NEVER))
    girth = dice.one(0.9, 1.12)
    long_hair = dice.chance(0.35)
    style = torch.where(long_hair, dice.one(0, 0.4), dice.one(0.5, 1.0))
    dress_like: dict[str, Any] = {
        "second": shirt2,
        "pattern": cloth,
        "frequency": frequency,
        "phase": phase,
        "alive": alive,
    }
    leg_like: dict[str, Any] = {
        "second": trousers2,
        "pattern": weave,
        "frequency": frequency,
        "phase": phase,
        "alive": alive,
    }

    def unit(v: Tensor) -> Tensor:
        return v / v.norm(dim=-1, keepdim=True).clamp_min(1e-6)

    across, broad = unit(at["l_hip"] - at["r_hip"]), unit(at["l_shoulder"] - at["r_shoulder"])
    spine = unit(at["thorax"] - at["pelvis"])
    length = (at["thorax"] - at["pelvis"]).norm(dim=-1, keepdim=True)
    middle = unit(across + broad)
    forward = torch.linalg.cross(middle, spine)
    hip_width = (at["l_hip"] - at["r_hip"]).norm(dim=-1) * 0.5
    shoulder_width = (at["l_shoulder"] - at["r_shoulder"]).norm(dim=-1) * 0.5
    rise = spine * length
    waist, chest = at["pelvis"] + 0.42 * rise, at["pelvis"] + 0.68 * rise
    wide = (hip_width + 0.062) * girth
    narrow = wide * 0.88
    bust = (shoulder_width * 0.88) * girth

    def pattern_from(share: float) -> dict[str, Any]:
        """The shirt's pattern, going on without a seam from this share of the spine."""
        return {**dress_like, "phase": phase + 6.2832 * frequency * share * length[:, 0] / 6}

    builder.add(at["pelvis"] + 0.02 * rise, at["pelvis"] + 0.15 * rise, (wide, wide * 0.96), trousers, side=across,
                flat=0.68, cap=0.55, soft=0.5, **leg_like)  # fmt: skip
    builder.add(at["pelvis"] + 0.17 * rise, waist, (wide * 1.03, narrow), shirt, side=middle, flat=0.68, cap=0.3,
                soft=0.2, **pattern_from(0.17))  # fmt: skip
    builder.add(waist, chest, (narrow, bust), shirt, side=middle, flat=0.68, cap=0.86, soft=0.2, **pattern_from(0.42))
    # fills the hollow below the collar bones
    top = at["pelvis"] + 0.86 * rise
    builder.add(top, top + 0.02 * rise, (shoulder_width * 0.84, shoulder_width * 0.80), shirt, side=broad, flat=0.60,
                cap=0.52, soft=0.2, **pattern_from(0.86))  # fmt: skip
    neck_base = at["thorax"] - 0.02 * spine
    for s in ("l_", "r_"):
        slope = neck_base + 0.25 * (at[s + "shoulder"] - neck_base)
        builder.add(slope, at[s + "shoulder"], (0.074, 0.062), shirt, side=forward, flat=0.9,
                    **{**pattern_from(1.0), "pattern": torch.where(cloth < 3.5, 0.0, cloth)})  # fmt: skip
    builder.add(neck_base - 0.03 * spine, 0.5 * (neck_base + at["upper_neck"]) - 0.02 * spine, (0.092, 0.062), shirt,
                side=broad, flat=0.85, alive=alive)  # fmt: skip
    builder.add(neck_base, at["upper_neck"] + 0.2 * (at["head_top"] - at["upper_neck"]), (0.058, 0.052), skin,
                side=broad, alive=alive)  # fmt: skip

    head_up = unit(at["head_top"] - at["upper_neck"])
    size = (at["head_top"] - at["upper_neck"]).norm(dim=-1, keepdim=True)
    ear_line = unit(at["l_ear"] - at["r_ear"])
    head_up = unit(head_up - (head_up * ear_line).sum(-1, keepdim=True) * ear_line)
    face = torch.linalg.cross(ear_line, head_up)
    centre = 0.5 * (at["l_ear"] + at["r_ear"]) + 0.03 * size * head_up + 0.02 * size * face
    big = size[:, 0] * 0.36
    eye = torch.tensor([0.08, 0.06, 0.06])
    # local axes of the head: x to the right, y to the front, z up
    builder.add(centre, centre, (big, big), skin, side=-ear_line, along=head_up, flat=1.26, cap=1.56, second=hair,
                beyond=eye, pattern=float(HEAD), phase=style, alive=alive)  # fmt: skip
    bun = centre - 0.10 * size * face
    with_hair = long_hair if alive is None else long_hair & alive
    builder.add(bun - 0.05 * size * face, bun - 0.12 * size * face - 0.50 * size * head_up, (big * 0.98, big * 0.80),
                hair, side=ear_line, flat=0.75, alive=with_hair)  # fmt: skip
    builder.add(at["nose"] - 0.13 * size * face + 0.10 * size * head_up, at["nose"] - 0.055 * size * face,
                (size[:, 0] * 0.035, size[:, 0] * 0.062), skin * 0.96,
                alive=alive)  # fmt: skip
    for ear in ("l_ear", "r_ear"):
        builder.add(at[ear], at[ear] - 0.1 * size * head_up, (size[:, 0] * 0.07, size[:, 0] * 0.05), skin * 0.93,
                    alive=alive)  # fmt: skip

    for s in ("l_", "r_"):
        shoulder, elbow, wrist, hand = (at[s + n] for n in ("shoulder", "elbow", "wrist", "hand"))
        hip, knee, ankle, toe = (at[s + n] for n in ("hip", "knee", "ankle", "toe"))
        fat = 0.5 + 0.5 * girth
        upper = (elbow - shoulder).norm(dim=-1)
        builder.add(shoulder, elbow, (0.069 * fat, 0.058 * fat), shirt, beyond=skin, split=sleeve, side=forward,
                    **dress_like)  # fmt: skip
        builder.add(elbow, wrist, (0.058 * fat, 0.047), shirt, beyond=skin,
                    split=torch.where(sleeve < NEVER, -1.0, 0.92 * upper), side=forward, **dress_like)  # fmt: skip
        palm = wrist + 0.75 * (hand - wrist)
        builder.add(wrist + 0.1 * (hand - wrist), palm, (0.044, 0.052), skin, side=forward, flat=0.7, alive=alive)
        builder.add(hip, knee, (0.094 * fat, 0.071), trousers, beyond=skin, split=bare_leg, side=across, **leg_like)
        builder.add(knee, ankle, (0.070, 0.056), trousers, beyond=skin, split=torch.where(short, -1.0, NEVER),
                    side=across, **leg_like)  # fmt: skip
        shin = unit(knee - ankle)
        heel = ankle - 0.045 * shin - 0.16 * (toe - ankle)
        builder.add(
            heel, toe, (0.056, 0.047), shoes, side=torch.linalg.cross(shin, toe - ankle), flat=0.85, alive=alive
        )
        builder.add(ankle + 0.02 * shin, heel + 0.25 * (toe - heel), (0.056, 0.052), shoes, alive=alive)


def seat(builder: Builder, joints: Float[Tensor, "B 26 3"], dice: Dice, alive: Tensor | None = None) -> None:
    """Add a stool where the pose sits: thighs level, pelvis low."""
    at = {name: joints[:, j] for j, name in enumerate(FIGURE.joints)}
    level = (at["l_hip"] - at["l_knee"])[:, 1].abs().maximum((at["r_hip"] - at["r_knee"])[:, 1].abs()) < 0.17
    sits = level & (at["pelvis"][:, 1] > 0.32) & (at["pelvis"][:, 1] < 0.65)
    sits = sits if alive is None else sits & alive
    under = torch.tensor([1.0, 0.0, 1.0])
    top = at["pelvis"] - torch.tensor([0.0, 0.115, 0.0])
    wood = pick(dice, [(0.50, 0.36, 0.24), (0.36, 0.36, 0.38), (0.66, 0.60, 0.50), (0.30, 0.36, 0.42)])
    builder.add(at["pelvis"] * under, top, (dice.one(0.13, 0.19), dice.one(0.16, 0.2)), wood, second=wood * 0.8,
                cap=0.12, pattern=4.0, alive=sits)  # fmt: skip


#: Bones that throw the shadow, with the radius at both ends.
_SHADOWS = [("pelvis", "thorax", 0.15, 0.17), ("upper_neck", "head_top", 0.07, 0.09)] + [
    (s + a, s + b, r, q)
    for s in ("l_", "r_")
    for a, b, r, q in (("hip", "knee", 0.085, 0.06), ("knee", "ankle", 0.06, 0.05), ("ankle", "toe", 0.06, 0.05),
                       ("shoulder", "elbow", 0.06, 0.05), ("elbow", "hand", 0.05, 0.04))
]  # fmt: skip


def shadow(builder: Builder, joints: Float[Tensor, "B 26 3"], light: Float[Tensor, "B 3"],
           alive: Tensor | None = None) -> None:  # fmt: skip
    """Add the shadow on the ground y = 0 as flattened capsules. light: direction towards the light, y > 0."""
    slope = light / light[:, 1:2]
    at = {name: joints[:, j] - slope * joints[:, j, 1:2] for j, name in enumerate(FIGURE.joints)}
    up = torch.tensor([0.0, 1.0, 0.0])
    for a, b, ra, rb in _SHADOWS:
        run = at[b] - at[a]
        short = run.norm(dim=-1, keepdim=True) < 0.02
        end = torch.where(short, at[a] + torch.tensor([0.02, 0.0, 0.0]), at[b])
        side = torch.linalg.cross(end - at[a], up.expand_as(run))
        builder.add(at[a], end, (ra, rb), (0.0, 0.0, 0.0), side=side, flat=0.05, alive=alive)  # fmt: skip
