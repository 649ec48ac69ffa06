"""Places for people to be in: ground, wall or horizon, furniture and plants, and things that stand in the way."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from coordreg.data.body import Builder, pick
from coordreg.data.dice import Dice
from coordreg.data.film import look_up
from coordreg.data.render import CHECKS, HOOPS, LEAVES, MOTTLED, PLAIN, STRIPES, View

ROOM, STREET, PARK, FIELD = range(4)

FLOORS = [(0.55, 0.45, 0.35), (0.44, 0.33, 0.24), (0.60, 0.57, 0.52), (0.40, 0.40, 0.41), (0.52, 0.47, 0.42),
          (0.36, 0.34, 0.36)]  # fmt: skip
WALLS = [(0.78, 0.75, 0.69), (0.66, 0.70, 0.71), (0.72, 0.64, 0.55), (0.55, 0.60, 0.57), (0.60, 0.52, 0.47),
         (0.83, 0.81, 0.77), (0.48, 0.52, 0.60), (0.66, 0.60, 0.63)]  # fmt: skip
PAVEMENT = [(0.50, 0.49, 0.47), (0.42, 0.42, 0.43), (0.58, 0.55, 0.50), (0.48, 0.44, 0.41)]
FACADES = [(0.60, 0.43, 0.36), (0.66, 0.60, 0.52), (0.52, 0.50, 0.48), (0.72, 0.68, 0.60), (0.50, 0.38, 0.34)]
GRASS = [(0.38, 0.46, 0.24), (0.46, 0.50, 0.30), (0.33, 0.40, 0.23), (0.58, 0.53, 0.36), (0.66, 0.60, 0.46)]
HEDGES = [(0.25, 0.36, 0.20), (0.32, 0.38, 0.20), (0.22, 0.31, 0.22), (0.38, 0.36, 0.20)]
HILLS = [(0.45, 0.52, 0.50), (0.40, 0.46, 0.36), (0.52, 0.55, 0.60)]
SKIES = [(0.60, 0.74, 0.88), (0.74, 0.80, 0.85), (0.80, 0.78, 0.74), (0.86, 0.80, 0.72), (0.52, 0.66, 0.84)]
WOOD = [(0.52, 0.37, 0.24), (0.40, 0.27, 0.18), (0.66, 0.52, 0.36), (0.78, 0.74, 0.68), (0.30, 0.27, 0.26)]
THINGS = [(0.55, 0.30, 0.26), (0.30, 0.40, 0.50), (0.62, 0.56, 0.42), (0.36, 0.44, 0.36), (0.42, 0.40, 0.42),
          (0.70, 0.66, 0.60), (0.60, 0.44, 0.24)]  # fmt: skip
LEAF = [(0.24, 0.36, 0.18), (0.32, 0.43, 0.22), (0.20, 0.30, 0.20), (0.42, 0.44, 0.22)]
POLES = [(0.45, 0.46, 0.48), (0.30, 0.32, 0.34), (0.62, 0.60, 0.56), (0.40, 0.28, 0.20)]


class Place(NamedTuple):
    """Numbers that describe a place; (B,) or (B, 3) each."""

    kind: Tensor
    ground: Tensor
    ground2: Tensor
    wall: Tensor
    wall2: Tensor
    sky: Tensor
    distance: Tensor
    top: Tensor
    numbers: Tensor

    def to(self, device: torch.device | str) -> "Place":
        """The same place on another device."""
        return Place(*(t.to(device) for t in self))


def find_place(dice: Dice) -> Place:
    """Draw a place."""
    kind = dice.choice([4.0, 2.5, 2.5, 1.5])
    picks = [torch.stack([pick(dice, p, 0.03) for p in group]) for group in (
        (FLOORS, PAVEMENT, GRASS, GRASS), (WALLS, FACADES, HEDGES, HILLS))]  # fmt: skip
    row = torch.arange(len(dice))
    ground, wall = picks[0][kind, row], picks[1][kind, row]
    numbers = dice.uniform(16)
    u = dice.uniform(2)
    near = torch.tensor([1.2, 2.5, 3.0, 25.0])[kind]
    far = torch.tensor([3.5, 6.0, 8.0, 40.0])[kind]
    top = torch.tensor([99.0, 99.0, 1.8, 2.0])[kind] + torch.tensor([0.0, 0.0, 3.0, 5.0])[kind] * u[:, 1]
    tone = dice.uniform(2, 0.80, 1.14)
    return Place(kind, ground, ground * tone[:, :1], wall, wall * tone[:, 1:], pick(dice, SKIES, 0.02),
                 near + (far - near) * u[:, 0], top, numbers)  # fmt: skip


def backdrop(place: Place, view: View, size: int, tile: Float[Tensor, "T T"]) -> Float[Tensor, "B 3 S S"]:
    """Ground, wall and sky behind everything, one ray a pixel."""
    device = tile.device
    B = len(place.kind)
    cells = (2 * torch.arange(size, device=device) + 1) / size - 1
    f, c = view.focal.view(B, 1, 1), view.centre.view(B, 2, 1, 1)
    x, y = (cells.view(1, 1, size) - c[:, 0]) / f, (cells.view(1, size, 1) - c[:, 1]) / f
    r = view.rotation.view(B, 9, 1, 1)
    d = [r[:, i] * x + r[:, 3 + i] * y + r[:, 6 + i] for i in range(3)]
    p = view.position.view(B, 3, 1, 1)
    n = place.numbers.view(B, 16, 1, 1).unbind(1)
    kind = place.kind.view(B, 1, 1)
    to_ground = -p[:, 1] / d[1].clamp_max(-1e-3)
    to_wall = (place.distance.view(B, 1, 1) + p[:, 2]) / (-d[2]).clamp_min(1e-3)
    grounded = (to_ground < to_wall) & (d[1] < -1e-3)
    s = torch.where(grounded, to_ground, to_wall)
    across = p[:, 0] + s * d[0] + n[0] * 7
    up = torch.where(grounded, p[:, 2] + s * d[2], p[:, 1] + s * d[1])
    fine = 1 / (1 + s * 0.10)
    low = look_up(tile, across * 0.11 + n[1], up * 0.11 + n[2])
    high = look_up(tile, across * 0.53 + n[2], up * 0.53 + n[1]) * (1.3 * fine).clamp_max(1)

    # the ground: planks, tiles or earth
    tiles = 1.2 + 2.5 * n[3]
    plank = torch.where(n[4] < 0.5, 1.0, 0.35)
    row = (across * tiles).floor()
    shift = torch.where(n[4] < 0.5, 0.0, row * 0.37)
    fx, fy = across * tiles - row, up * tiles * plank + shift
    cell = fy.floor()
    fy = fy - cell
    groove = ((fx < 0.06) | (fy < 0.06 * plank)) & (kind < PARK)
    odd = ((row * 12.9898 + cell * 78.233).sin() * 43.758).frac().abs()
    blend = torch.where(kind < PARK, odd * fine, (0.5 + high * 1.4).clamp(0, 1))
    ground = torch.lerp(place.ground.view(B, 3, 1, 1), place.ground2.view(B, 3, 1, 1), blend.unsqueeze(1))
    ground = ground * (1 - 0.22 * (groove * fine)).unsqueeze(1)

    # the wall: paint or stripes, bricks, leaves; windows and a skirting board
    paper = (across * (2 + 6 * n[5]) * 6.2832).sin() * (n[6] < 0.35)
    course = (up * 7).floor()
    joint = (((up * 7 - course) < 0.14) | ((across * 3 + 0.5 * (course % 2)).frac().abs() < 0.07)) & (n[6] > 0.55)
    bricks = joint * (kind <= STREET) * fine
    mix_wall = torch.where(kind >= PARK, (0.5 + 1.3 * high).clamp(0, 1), 0.5 + 0.5 * paper)
    wall = torch.lerp(place.wall.view(B, 3, 1, 1), place.wall2.view(B, 3, 1, 1), mix_wall.unsqueeze(1))
    if bool((place.kind <= STREET).any()):
        pitch = 1.7 + 1.8 * n[7]
        wx = ((across / pitch + n[8]) - (across / pitch + n[8]).floor() - 0.5) * pitch
        floor_height = torch.where(kind == STREET, 2.6, 50.0)
        wy = up - (up / floor_height).floor() * floor_height - (1.45 + 0.3 * n[9])
        half_x, half_y = 0.38 + 0.25 * n[10], 0.5 + 0.25 * n[11]
        has = (kind <= STREET) & ((kind == STREET) | (n[12] < 0.6)) & ~grounded
        frame = has & (wx.abs() < half_x + 0.07) & (wy.abs() < half_y + 0.07)
        pane = has & (wx.abs() < half_x) & (wy.abs() < half_y) & (wx.abs() > 0.025)
        glass = torch.lerp(place.sky.view(B, 3, 1, 1), torch.ones_like(place.sky).view(B, 3, 1, 1),
                           (0.25 + 0.3 * wy + 0.5 * low).clamp(0, 1).unsqueeze(1))  # fmt: skip
        glass = torch.where((kind == STREET).unsqueeze(1), glass * 0.45, glass)
        picture = torch.lerp(
            place.ground2.view(B, 3, 1, 1), place.sky.view(B, 3, 1, 1), (0.5 + low).clamp(0, 1).unsqueeze(1)
        )
        glass = torch.where(((n[13] < 0.35) & (kind == ROOM)).unsqueeze(1), picture * 0.8, glass)
        wall = wall * (1 - 0.2 * bricks).unsqueeze(1)
        wall = torch.where(frame.unsqueeze(1), wall * 0.35 + 0.5, wall)
        wall = torch.where(pane.unsqueeze(1), glass, wall)
        skirting = (kind == ROOM) & (up < 0.13) & ~grounded
        wall = torch.where(skirting.unsqueeze(1), wall * 0.5 + 0.38, wall)

    scene = torch.where(grounded.unsqueeze(1), ground, wall)
    grain = 1 + 0.22 * low + torch.where(kind >= PARK, 0.30, 0.10) * high
    contact = torch.where(grounded, to_wall - to_ground, up * 2)
    dim = 1 - 0.25 * torch.exp(-contact.abs() * 1.6) * (kind <= STREET)
    scene = scene * (grain * dim).unsqueeze(1)
    if bool((place.kind >= PARK).any()):
        # the sky above hedges and hills
        ridge = (
            (across * 0.021 + n[14] * 9).sin() + 0.6 * (across * 0.057 + n[15] * 9).sin() + 0.15 * (across * 0.31).sin()
        )
        crest = torch.where(kind == FIELD, 0.45 * ridge, 0.35 * look_up(tile, across * 0.13, n[14]) + 0.05 * high)
        rough = place.top.view(B, 1, 1) * (1 + crest)
        high_up = (d[1] * 1.6 + 0.1).clamp(0, 1).unsqueeze(1)
        sky = torch.lerp(place.sky.view(B, 3, 1, 1) * 0.5 + 0.48, place.sky.view(B, 3, 1, 1), high_up)
        cloud = look_up(tile, d[0] * 0.25 + n[15], d[1] * 0.6 + n[14])
        sky = sky + (0.10 * cloud).unsqueeze(1)
        scene = torch.where(((up > rough) & ~grounded).unsqueeze(1), sky, scene)
    haze = (1 - torch.exp(-s * torch.where(kind == FIELD, 0.012, 0.006))).unsqueeze(1)
    return torch.lerp(scene, place.sky.view(B, 3, 1, 1).expand_as(scene) * 0.9, haze)


def _thing(
    builder: Builder,
    ground: Builder,
    dice: Dice,
    x: Tensor,
    z: Tensor,
    alive: Tensor,
    kinds: Sequence[float | int],
    big: float,
) -> None:
    """One object on the ground at (x, z): crate, pole, plant, board on posts, ball or table."""
    kind = dice.choice(kinds)
    u = dice.uniform(8)
    colour, wood, leaf, metal = pick(dice, THINGS), pick(dice, WOOD), pick(dice, LEAF), pick(dice, POLES)
    turn = (dice.one() - 0.5) * 1.2
    pattern = torch.tensor([PLAIN, HOOPS, STRIPES, CHECKS, MOTTLED], dtype=torch.float32)[dice.choice([3, 1, 1, 1, 2])]
    zero = torch.zeros_like(x)

    def at(y: Tensor | float, dx: Tensor | float = 0.0, dz: Tensor | float = 0.0) -> Tensor:
        return torch.stack([x + dx, zero + y, z + dz], -1)

    crate, pole, plant, board, ball, table = (alive & (kind == k) for k in range(6))
    # a box: crate, board or table top
    half = torch.stack([
        torch.where(crate, 0.16 + 0.22 * u[:, 0], torch.where(board, 0.25 + 0.3 * u[:, 0], 0.4 + 0.3 * u[:, 0])),
        torch.where(crate, 0.16 + 0.15 * u[:, 1], torch.where(board, 0.02, 0.25)),
        torch.where(crate, 0.15 + 0.25 * u[:, 2], torch.where(board, 0.15 + 0.25 * u[:, 2], 0.03)),
    ], -1) * big  # fmt: skip
    height = torch.where(crate, half[:, 2], torch.where(board, 0.5 + 0.8 * u[:, 3], 0.70))
    paint = torch.where(table[:, None], wood, colour)
    builder.box(at(height), half, turn, paint, second=wood, pattern=torch.where(table, float(MOTTLED), pattern),
                frequency=3 + 5 * u[:, 4], phase=u[:, 5], alive=crate | board | table)  # fmt: skip
    # an upright: pole, trunk or pot, leg
    thick = torch.where(pole, 0.03 + 0.05 * u[:, 0], torch.where(plant, 0.10 + 0.06 * u[:, 0], 0.04)) * big
    tall = torch.where(pole, 2.2 + 1.4 * u[:, 1], torch.where(plant, 0.22 + 0.2 * u[:, 1], height - half[:, 2] * 0.5))
    upright = torch.where(pole[:, None], metal, torch.where(plant[:, None], colour, wood))
    builder.add(at(0.0), at(tall), (thick * 0.9, thick), upright, cap=0.3, alive=pole | plant | board | table)
    # round things: leaves or a ball
    crown = torch.where(plant, 0.22 + 0.12 * u[:, 2], 0.11 + 0.12 * u[:, 2]) * big
    middle = torch.where(plant, tall + crown * 1.1, crown)
    bright = leaf * 1.35
    builder.add(at(middle), at(middle + 0.01), (crown, crown), torch.where(plant[:, None], leaf, colour),
                second=torch.where(plant[:, None], bright, wood), cap=torch.where(plant, 1.5, 1.0), frequency=5.0,
                pattern=torch.where(plant, float(LEAVES), pattern), phase=u[:, 5], alive=plant | ball)  # fmt: skip
    # the shadow below: a flat patch on the ground
    spread = torch.where(pole | board, 0.07, torch.where(crate | table, half[:, 0] * 0.75, crown))
    ground.add(at(0.0), at(0.0, 0.03), (spread * 1.25, spread * 1.25), (0.0, 0.0, 0.0), side=(0.0, 0.0, 1.0),
               flat=0.05, alive=alive)  # fmt: skip
    for side in (-1.0, 1.0):
        off = side * crown * 0.6
        builder.add(at(middle - crown * 0.5, off), at(middle + crown * (0.2 + u[:, 6]), off * 1.4),
                    (crown * 0.55, crown * 0.6), leaf, second=bright, pattern=float(LEAVES), phase=u[:, 6],
                    alive=plant)  # fmt: skip


def furnish(builder: Builder, ground: Builder, dice: Dice, place: Place, clutter: float, slots: int = 4) -> None:
    """Things beside and behind the person; each slot is filled with probability `clutter`."""
    for k in range(slots):
        filled = dice.chance(clutter)
        depth = dice.one(0.5, 1.0) * place.distance.clamp_max(3.0)
        side = 1.0 if k % 2 else -1.0
        x = side * (dice.one(0.35, 1.25) + 0.12 * depth)
        _thing(builder, ground, dice, x, -depth + 0.15, filled, [2, 1.2, 2, 1, 1, 1.5], 1.1)


def obstruct(builder: Builder, ground: Builder, dice: Dice, about: Float[Tensor, "B 3"], occlusion: float) -> None:
    """Things in front of the person, near the point `about`; with probability `occlusion`, sometimes two."""
    for share in (1.0, 0.35):
        filled = dice.chance(share * occlusion)
        side = torch.where(dice.chance(0.5), 1.0, -1.0)
        x = about[:, 0] + side * dice.one(0.08, 0.42)
        z = about[:, 2] + dice.one(0.6, 1.0)
        _thing(builder, ground, dice, x, z, filled, [1.4, 2.5, 1.6, 2.2, 0.3, 1.3], 0.82)
