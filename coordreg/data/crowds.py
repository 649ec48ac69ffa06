"""Drawn scenes of several people: what a network that finds people as well as joints learns from.

The people of `figures.py` stand beside each other in one place, before one camera. Boxes and areas are those of the
pixels in which a person is seen, as annotators draw them: a hidden arm may lie outside its owner's box. Scene i of a
split is a function of (seed, split, i) and of the knobs, whatever the batch.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from coordreg.coords import Pairs, from_pixels
from coordreg.data import body, cache_file, film, render, scenery
from coordreg.data.dice import Dice, mix
from coordreg.data.figures import ACTIONS, FIRST, LARGEST, STEP, Figures
from coordreg.data.poses import turn
from coordreg.data.render import View
from coordreg.data.skeletons import FIGURE, Skeleton, convert, recipe, skeleton
from coordreg.data.stage import seen_joints
from coordreg.data.store import Store

#: What a cache file holds.
COLUMNS = ("images", "joints", "visible", "present", "boxes", "area")
#: Somebody of whom fewer joints are seen is not labelled.
LEAST = 3


class Crowd(NamedTuple):
    """Scenes with P places for people, from left to right; empty ones are not present.

    images: (B, 3, S, S) bytes. joints: (B, P, J, 2) normalised. visible: (B, P, J) bool. present: (B, P) bool. boxes:
    (B, P, 4) x0 y0 x1 y1, normalised, about the pixels in which the person is seen. area: (B, P) of these, in pixels.
    """

    images: Tensor
    joints: Tensor
    visible: Tensor
    present: Tensor
    boxes: Tensor
    area: Tensor


@dataclass(frozen=True, eq=False)
class CrowdStore(Store):
    """A store whose "joints" are those of all people, one after the other, each followed by two corners of the box.

    coords: (N, P (J + 2), 2), see `people`. area: (N, P) in pixels of the picture, 0 where nobody is.
    """

    area: Tensor = field(kw_only=True)

    @property
    def places(self) -> int:
        """P, how many people a picture has room for."""
        return self.area.shape[1]


def people(coords: Float[Tensor, "B K d"], places: int) -> tuple[Float[Tensor, "B P J d"], Float[Tensor, "B P 2 d"]]:
    """The columns of a `CrowdStore` -> joints and corners of the boxes, person by person; of weights likewise."""
    if coords.shape[1] % places or coords.shape[1] // places < 3:
        raise ValueError(
            f"people: got {coords.shape[1]} points for {places} places, expected a multiple: joints and two corners"
        )
    found = coords.unflatten(1, (places, -1))
    return found[:, :, :-2], found[:, :, -2:]


@dataclass(frozen=True)
class Crowds:
    """Synthetic scenes. `open()` gives a `CrowdStore`, `scene(indices)` single scenes.

    split: train, val or test, disjoint. count: how many. size: pixels a side. people: fewest and most in a scene.
    places: P, for how many people there is room, in the labels and in what is predicted. joints: name of the skeleton.
    spacing: metres from one person to the next. height: range of the longer side of the whole group as a share of the
    frame. back: share of back views. occlusion, clutter: as for `Figures`.
    """

    split: str = "train"
    count: int = 1024
    size: int = 96
    seed: int = 0
    people: tuple[int, int] = (2, 3)
    places: int = 6
    joints: str = "coco17"
    spacing: tuple[float | int, float | int] = (0.6, 1.0)
    height: tuple[float | int, float | int] = (0.75, 0.92)
    back: float | int = 0.3
    occlusion: float | int = 0.2
    clutter: float | int = 0.5

    def __post_init__(self) -> None:
        if self.split not in FIRST:
            raise ValueError(f"Crowds: got split={self.split!r}, expected one of {', '.join(FIRST)}")
        if not 1 <= self.count <= LARGEST:
            raise ValueError(f"Crowds: got count={self.count}, expected 1 to {LARGEST}")
        if not 32 <= self.size <= 1024:
            raise ValueError(f"Crowds: got size={self.size}, expected 32 to 1024 pixels")
        fewest, most = self.people
        if not 1 <= fewest <= most <= self.places:
            raise ValueError(
                f"Crowds: got people={self.people} for places={self.places}, expected (fewest, most), from 1 to places"
            )
        for name in ("back", "occlusion", "clutter"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"Crowds: got {name}={value}, expected a number from 0 to 1")
            object.__setattr__(self, name, float(value))
        for name, low, high in (("spacing", 0.0, 3.0), ("height", 0.1, 0.95)):
            first, last = getattr(self, name)
            if not low <= first <= last <= high:
                raise ValueError(f"Crowds: got {name}={first, last}, expected two numbers from {low:g} to {high:g}")
            object.__setattr__(self, name, (float(first), float(last)))
        skeleton(self.joints)

    @property
    def skeleton(self) -> Skeleton:
        """The joints that are labelled."""
        return skeleton(self.joints)

    def _keys(self, indices: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        if len(indices) and (int(indices.min()) < 0 or int(indices.max()) >= LARGEST):
            raise ValueError(
                f"Crowds: got indices from {indices.min()} to {indices.max()}, expected 0 to {LARGEST - 1}"
            )
        return mix(mix(indices.cpu().long() + FIRST[self.split]) ^ mix(torch.tensor(self.seed & 0xFFFFFFFF)))

    def _stage(self, keys: Int[Tensor, " B"]) -> tuple[Float[Tensor, "B M N 3"], Bool[Tensor, "B M"], View]:
        """Everybody in the world (the most that a scene may have), who is there, and the camera."""
        fewest, most = self.people
        d = Dice(keys, "crowd")
        count = fewest + d.choice([1.0] * (most - fewest + 1))
        present = torch.arange(most) < count.unsqueeze(-1)
        spacing = d.one(*self.spacing)
        joints = []
        for p in range(most):
            d = Dice(keys, f"crowd place {p}")
            yaw = (d.uniform(2).mean(-1) * 2 - 1) * 75 + torch.where(d.chance(self.back), 180.0, 0.0)
            body_frame = ACTIONS(Dice(keys, f"crowd pose {p}"))
            across = (p - 0.5 * (count - 1)) * spacing + d.one(-0.12, 0.12)
            where = torch.stack([across, torch.zeros(len(keys)), d.one(-0.5, 0.5)], -1)
            joints.append(render.times(turn(1, yaw).unsqueeze(1), body_frame) + where.unsqueeze(1))
        everybody = torch.stack(joints, 1)
        d = Dice(keys, "crowd camera")
        distance, level = d.one(4.5, 7.5), d.one(0.9, 2.4)
        pitch = torch.rad2deg(torch.atan2(level - 0.9, distance)) + d.one(-2, 2)
        rotation = turn(2, d.one(-3, 3)) @ (torch.tensor([1.0, -1.0, -1.0])[:, None] * turn(0, pitch))
        n = len(keys)
        view = View(rotation, torch.stack([d.one(-0.3, 0.3), level, distance], -1), torch.ones(n), torch.zeros(n, 2))
        flat = view.project(view.frame(everybody.flatten(1, 2))).unflatten(1, (most, -1))
        absent = ~present[:, :, None, None]
        low = flat.masked_fill(absent, torch.inf).amin((1, 2))
        high = flat.masked_fill(absent, -torch.inf).amax((1, 2))
        share, longest = d.one(*self.height), (high - low).amax(-1)
        focal = 2 * share / longest
        room = 0.96 - (high - low) * (share / longest).unsqueeze(-1)  # of the frame, beside the group
        move = room.clamp_min(0) * d.uniform(2, -1, 1)
        return everybody, present, View(rotation, view.position, focal, move - focal.unsqueeze(-1) * (low + high) / 2)

    def scene(self, indices: Int[Tensor, " B"], device: torch.device | str = "cpu") -> Crowd:
        """Draw these scenes; see `Crowd` for shapes and units."""
        step = max(1, STEP * 64 * 64 // self.size**2)
        drawn = [self._draw(self._keys(part), torch.device(device)) for part in indices.split(step)]
        return Crowd(*(torch.cat(column) for column in zip(*drawn, strict=True)))

    def _draw(self, keys: Int[Tensor, " B"], device: torch.device) -> Crowd:
        """Some scenes, all at a time: everything with one light, one renderer and one film."""
        everybody, present, view = self._stage(keys)
        n, most = present.shape
        d = Dice(keys, "light")
        azimuth, climb, strength, warm = d.one(-1.9, 1.9), d.one(0.6, 1.2), d.one(0.3, 0.65), d.one(-0.06, 0.06)
        towards = torch.stack([azimuth.sin() * climb.cos(), climb.sin(), azimuth.cos() * climb.cos()], -1)
        shade = torch.stack([1 - strength * 0.45 + sign * warm for sign in (1, 0, -1)], -1)
        light = torch.cat([towards, strength.unsqueeze(-1), shade], -1).to(device)
        place = scenery.find_place(Dice(keys, "scenery"))
        builder, ground = body.Builder(n), body.Builder(n)
        edges = []
        for p in range(most):
            joints, there = everybody[:, p], present[:, p]
            first = len(builder.parts)
            body.dress(builder, joints, Dice(keys, f"crowd clothes {p}"), alive=there)
            edges.append((first, len(builder.parts)))
            body.seat(builder, joints, Dice(keys, f"crowd seat {p}"), alive=there)
            body.shadow(ground, joints, towards, alive=there)
        if self.clutter:
            scenery.furnish(builder, ground, Dice(keys, "clutter"), place, self.clutter)
        if self.occlusion:
            scenery.obstruct(builder, ground, Dice(keys, "occlusion"), everybody[:, 0].mean(1), self.occlusion)
        solids = render.Solids(*(t.to(device) for t in builder.solids()))
        dark = render.Solids(*(t.to(device) for t in ground.solids()))
        view, tile, fine = view.to(device), film.noise_tile(device=device), 2
        shaded = render.shadows(dark, view, self.size)
        for _ in range(max(1, self.size // 48)):
            shaded = film.blur(shaded)
        back = scenery.backdrop(place.to(device), view, self.size, tile) * (0.92 + 0.25 * light[:, 3, None, None, None])
        hits = render.cast(solids, view, self.size * fine)
        picture = render.assemble(
            back * (1 - 0.55 * shaded).unsqueeze(1), hits, render.paint(hits, solids, view, light, tile), fine
        )
        white = Dice(torch.zeros(1, dtype=torch.int64), "grain").uniform(1 << 18, -0.5, 0.5)[0].to(device)
        images = film.film(picture, Dice(keys, "film").uniform(4).to(device), white)
        owner = torch.full((hits.depth.numel(),), -1, device=device)
        owner.index_copy_(0, hits.sample, hits.solid % solids.alive.shape[1])
        owner = owner.view_as(hits.depth)
        masks = torch.stack([(owner >= first) & (owner < last) for first, last in edges], 1)
        camera = view.frame(everybody.to(device).flatten(1, 2)).unflatten(1, (most, -1))
        flat = view.project(camera.flatten(1, 2)).unflatten(1, (most, -1))
        seen = torch.stack([seen_joints(hits.depth, flat[:, p], camera[:, p, :, 2]) for p in range(most)], 1)
        visible = torch.stack([seen[..., list(part)].all(-1) for part in recipe(FIGURE, self.skeleton)], -1)
        area = masks.flatten(2).sum(-1) / fine**2
        present = present.to(device) & (area > 0) & (visible.sum(-1) >= LEAST)
        joints = convert(camera, FIGURE, self.skeleton)[0]
        joints = view.project(joints.flatten(1, 2)).unflatten(1, (most, -1))
        return Crowd(images, joints, visible & present.unsqueeze(-1), present, extent(masks), area * present)

    # -- the store ----------------------------------------------------------------------------------------------------

    def key(self) -> str:
        """A hash of the configuration and of the renderer's source."""
        text = repr(self) + Figures(split=self.split, size=self.size).key()
        return hashlib.sha256(text.encode() + Path(__file__).read_bytes()).hexdigest()[:20]

    def open(self, cache: Path | str | None = None, device: torch.device | str | None = None) -> CrowdStore:
        """All `count` scenes in memory, from the cache if they have been drawn before; see `Figures.open`."""
        device = torch.device(device or "cpu")
        path = (Path(cache) if cache is not None else cache_file.folder()) / f"crowds-{self.key()}-{device.type}.npz"
        arrays = cache_file.load(path, COLUMNS, self.count)
        if arrays is None:
            crowd = self.scene(torch.arange(self.count), device)
            arrays = {name: value.cpu().numpy() for name, value in zip(COLUMNS, crowd, strict=True)}
            cache_file.save(path, arrays)
        return self._store(Crowd(*(torch.from_numpy(arrays[name]).to(device) for name in COLUMNS)))

    def _store(self, crowd: Crowd) -> CrowdStore:
        n, most = crowd.present.shape
        names = (*self.skeleton.joints, "box_from", "box_to")
        coords = crowd.joints.new_zeros(n, self.places, len(names), 2)
        coords[:, :most] = torch.cat([crowd.joints, crowd.boxes.unflatten(-1, (2, 2))], 2)
        weight, visible = torch.zeros_like(coords), torch.zeros_like(coords[..., 0], dtype=torch.bool)
        weight[:, :most] = crowd.present[:, :, None, None].to(weight)
        visible[:, :most] = torch.cat([crowd.visible, crowd.present[..., None].expand(-1, -1, 2)], 2)
        coords = torch.where(weight > 0, coords, 0)
        area = crowd.area.new_zeros(n, self.places)
        area[:, :most] = crowd.area
        affine = coords.new_tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]) * (self.size / 2)
        affine[:, 2] -= 0.5
        pairs: Pairs = [
            (a + p * len(names), b + p * len(names)) for p in range(self.places) for a, b in self.skeleton.pairs
        ]
        return CrowdStore(
            images=crowd.images, coords=coords.flatten(1, 2), weight=weight.flatten(1, 2),
            visible=visible.flatten(1, 2), normaliser=area.amax(1).sqrt().clamp_min(1.0),
            affine=affine.expand(n, 2, 3).clone(), pairs=pairs,
            joints=tuple(f"{p}_{name}" for p in range(self.places) for name in names), area=area,
        )  # fmt: skip


def extent(masks: Bool[Tensor, "B P H W"]) -> Float[Tensor, "B P 4"]:
    """The outer edges x0 y0 x1 y1 of the pixels that are True, normalised; zeros where there are none."""
    found = []
    for dim in (-2, -1):  # columns first: x
        line = masks.any(dim)
        n = line.shape[-1]
        at = torch.arange(n, device=masks.device)
        first = at.where(line, n).amin(-1) - 0.5
        last = at.where(line, -1).amax(-1) + 0.5
        found.append(from_pixels(torch.stack([first, last], -1).unsqueeze(-1).float(), (n,)).squeeze(-1))
    box = torch.stack([found[0][..., 0], found[1][..., 0], found[0][..., 1], found[1][..., 1]], -1)
    return torch.where(masks.flatten(2).any(-1, keepdim=True), box, 0.0)


__all__ = ["Crowd", "CrowdStore", "Crowds", "extent", "people"]
