"""Drawn figures: the data set the book carries with it, rendered on the spot with exact labels.

A person in a random pose stands in a random place before a perspective camera. Image i of a split is a function of
(seed, split, i) and of the knobs, whatever the batch; a knob leaves alone what it does not name.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from tqdm import tqdm

from coordreg.coords import to_pixels
from coordreg.data import body, cache_file, dice, film, poses, render, scenery, skeletons, stage
from coordreg.data.augment import Augment
from coordreg.data.dice import Dice, mix
from coordreg.data.poses import Actions, turn
from coordreg.data.render import View
from coordreg.data.skeletons import FIGURE, LSP14, MPII16, Skeleton, convert, skeleton
from coordreg.data.stage import Framing, seen_joints, set_up
from coordreg.data.store import Store

#: What a cache file holds.
COLUMNS = ("images", "visible", "coords", "normaliser", "affine", "hint")
#: Each split has its own range of numbers.
FIRST = {"train": 0, "val": 1 << 28, "test": 1 << 29}
LARGEST = 1 << 28
#: Normalised depth 1 lies this many metres behind the pelvis, -1 as many before it.
DEPTH = 1.2
#: MPII's protocol: the head size is 0.6 of the diagonal of the head box.
HEAD = 0.6
#: The default source of poses.
ACTIONS = Actions()
#: Images of 64 px rendered at a time: their lists just fit into a core's cache.
STEP = 16


class Truth(NamedTuple):
    """What is known of figures without drawing them; shapes as in `Store`.

    coords: (B, J, d) with the label noise. exact: (B, J, 2) without. joints3d: (B, J, 3) metres in the camera frame.
    head_size: (B,) 0.6 of the head box's diagonal, index pixels. torso: (B,) |l_shoulder - r_hip|, index pixels.
    normaliser: (B,) the torso for LSP14, else head_size. box: (B, 4) x0 y0 x1 y1 around the joints, index pixels.
    """

    coords: Tensor
    exact: Tensor
    joints3d: Tensor
    head_size: Tensor
    torso: Tensor
    normaliser: Tensor
    affine: Tensor
    hint: Tensor
    box: Tensor
    camera: View


class Scene(NamedTuple):
    """Drawn figures with everything known about them.

    images: (B, 3, S, S) bytes. joints: (B, J, 2) normalised, exact. labels: (B, J, d) normalised, with the label noise.
    joints3d: (B, J, 3) metres in the camera frame (x right, y down, z forward). depth: (B, J) metres behind the pelvis.
    visible: (B, J) bool. person: (B, S, S) share of each pixel that the person covers. head_size, torso: (B,) index
    pixels, see `Truth`. hint: (B, 2) the middle of the torso, normalised. box: (B, 4). camera: see `View`.
    """

    images: Tensor
    joints: Tensor
    labels: Tensor
    joints3d: Tensor
    depth: Tensor
    visible: Tensor
    person: Tensor
    head_size: Tensor
    torso: Tensor
    hint: Tensor
    box: Tensor
    camera: View


@dataclass(frozen=True)
class Figures:
    """Synthetic people. `open()` gives a `Store`, `scene(indices)` everything known about single images.

    split: train, val or test, disjoint. count: how many; figure i does not depend on it. size: pixels a side.
    skeleton: which joints. dims: 2, or 3 for (x, y, depth/1.2 m from the pelvis).
    occlusion: chance of a thing before the person (0.35 of that for another one). distractor: chance of a second
    person. truncation: chance that the frame cuts the person. clutter: chance of each of four things around.
    label_noise: standard deviation of the labels' error along each axis as a share of the image's height.
    height: range of the person's longer side as a share of the frame. shift: the person's middle lies within +-shift
    of the frame's (share of the frame), as far as the person stays inside. offset: (x, y) moves that range; with a
    small height it keeps people in one half. back: share of back views. poses: where poses come from, see
    `poses.Actions` (only poses from a frozen dataclass are cached). augment: what `open` puts into the store.
    """

    split: str = "train"
    count: int = 1024
    size: int = 64
    seed: int = 0
    skeleton: Skeleton | str = MPII16
    dims: int = 2
    occlusion: float | int = 0.3
    distractor: float | int = 0.0
    truncation: float | int = 0.0
    clutter: float | int = 0.5
    label_noise: float | int = 0.0
    shift: float | int = 0.1
    offset: tuple[float | int, float | int] = (0.0, 0.0)
    height: tuple[float | int, float | int] = (0.68, 0.88)
    back: float | int = 0.3
    poses: Callable[[Dice], Tensor] = ACTIONS
    augment: Augment | None = None

    def __post_init__(self) -> None:
        if self.split not in FIRST:
            raise ValueError(f"Figures: got split={self.split!r}, expected one of {', '.join(FIRST)}")
        if not 1 <= self.count <= LARGEST:
            raise ValueError(f"Figures: got count={self.count}, expected 1 to {LARGEST}")
        if not 16 <= self.size <= 1024:
            raise ValueError(f"Figures: got size={self.size}, expected 16 to 1024 pixels")
        if self.dims not in (2, 3):
            raise ValueError(f"Figures: got dims={self.dims}, expected 2 or 3")
        tops = {
            "occlusion": 1,
            "distractor": 1,
            "truncation": 1,
            "clutter": 1,
            "label_noise": 1,
            "shift": 0.5,
            "back": 1,
        }
        for name, top in tops.items():
            value = getattr(self, name)
            if not 0 <= value <= top:
                raise ValueError(f"Figures: got {name}={value}, expected a number from 0 to {top}")
            object.__setattr__(self, name, float(value))
        low, high = self.height
        if not 0.1 <= low <= high <= 0.95:
            raise ValueError(f"Figures: got height={self.height}, expected (low, high) with 0.1 <= low <= high <= 0.95")
        if max(map(abs, self.offset)) > 0.5:
            raise ValueError(f"Figures: got offset={self.offset}, expected (x, y) within -0.5 to 0.5")
        object.__setattr__(self, "height", (float(low), float(high)))
        object.__setattr__(self, "offset", (float(self.offset[0]), float(self.offset[1])))
        if isinstance(self.skeleton, str):
            object.__setattr__(self, "skeleton", skeleton(self.skeleton))

    def _keys(self, indices: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        indices = indices.cpu()
        if len(indices) and (int(indices.min()) < 0 or int(indices.max()) >= LARGEST):
            raise ValueError(
                f"Figures: got indices from {indices.min()} to {indices.max()}, expected 0 to {LARGEST - 1}"
            )
        return mix(mix(indices.long() + FIRST[self.split]) ^ mix(torch.tensor(self.seed & 0xFFFFFFFF)))

    def _stage(self, keys: Int[Tensor, " B"]) -> tuple[Tensor, View]:
        """The person in the world, and the camera."""
        joints = self.poses(Dice(keys, "pose"))
        if joints.shape != (len(keys), len(FIGURE), 3):
            raise ValueError(
                f"Figures: poses gave {tuple(joints.shape)}, expected {(len(keys), len(FIGURE), 3)}, FIGURE's joints"
            )
        framing = Framing(self.truncation, self.shift, self.offset, self.height)
        return set_up(keys, joints, self.back, framing)

    def _truth(self, keys: Tensor, joints: Tensor, view: View) -> Truth:
        wanted = self.skeleton if isinstance(self.skeleton, Skeleton) else skeleton(self.skeleton)
        camera = view.frame(joints)
        own, _ = convert(camera, FIGURE, wanted)
        exact = view.project(own)
        at = {name: camera[:, j] for j, name in enumerate(FIGURE.joints)}
        # the head as an ellipsoid, and the rectangle around its picture
        up = at["head_top"] - at["upper_neck"]
        across = at["l_ear"] - at["r_ear"]
        front = torch.linalg.cross(across, up)
        front = front / front.norm(dim=-1, keepdim=True) * up.norm(dim=-1, keepdim=True)
        half = torch.stack([0.5 * up, 0.37 * up.norm(dim=-1, keepdim=True) * across
                            / across.norm(dim=-1, keepdim=True), 0.45 * front], 1)  # fmt: skip
        centre = 0.5 * (at["head_top"] + at["upper_neck"])
        spread = half.square().sum(1).sqrt()[:, :2] * (view.focal / centre[:, 2]).unsqueeze(-1)
        head_size = HEAD * 2 * spread.norm(dim=-1) * self.size / 2
        pixels = {n: view.project(at[n].unsqueeze(1))[:, 0] for n in ("l_shoulder", "r_shoulder", "l_hip", "r_hip")}
        torso = (pixels["l_shoulder"] - pixels["r_hip"]).norm(dim=-1) * self.size / 2
        hint = torch.stack(list(pixels.values())).mean(0)
        root = at["pelvis"][:, 2]
        n = len(keys)
        affine = torch.zeros(n, self.dims, self.dims + 1)
        affine[:, 0, 0] = affine[:, 1, 1] = self.size / 2
        affine[:, :2, -1] = (self.size - 1) / 2
        coords = exact
        if self.dims == 3:
            coords = torch.cat([exact, ((own[..., 2] - root.unsqueeze(-1)) / DEPTH).unsqueeze(-1)], -1)
            affine[:, 2, 2] = DEPTH * view.focal / root * self.size / 2
            hint = torch.cat([hint, torch.zeros(n, 1)], -1)
        if self.label_noise:
            error = Dice(keys, "label noise").normal(coords.shape[1] * 2).view(n, -1, 2)
            coords = torch.cat([exact + 2 * self.label_noise * error, coords[..., 2:]], -1)
        normaliser = torso.clamp_min(1.0) if wanted.joints == LSP14.joints else head_size
        inside = to_pixels(exact, (self.size, self.size))
        box = torch.cat([inside.amin(1), inside.amax(1)], -1)
        return Truth(coords, exact, own, head_size, torso, normaliser, affine, hint, box, view)

    def scene_labels(self, indices: Int[Tensor, " B"]) -> Truth:
        """What is known of these figures without drawing them: fast."""
        keys = self._keys(indices)
        return self._truth(keys, *self._stage(keys))

    def scene(self, indices: Int[Tensor, " B"], device: torch.device | str = "cpu") -> Scene:
        """Draw these figures; see `Scene` for shapes and units."""
        keys = self._keys(indices)
        joints, view = self._stage(keys)
        truth = self._truth(keys, joints, view)
        d = Dice(keys, "light")
        azimuth, climb = d.one(-1.9, 1.9), d.one(0.6, 1.2)
        towards = torch.stack([azimuth.sin() * climb.cos(), climb.sin(), azimuth.cos() * climb.cos()], -1)
        warm = d.one(-0.06, 0.06)
        strength = d.one(0.3, 0.65)
        shade = torch.stack([1 - strength * 0.45 + warm, 1 - strength * 0.45, 1 - strength * 0.45 - warm], -1)
        light = torch.cat([towards, strength.unsqueeze(-1), shade], -1)
        place = scenery.find_place(Dice(keys, "scenery"))
        builder = body.Builder(len(keys))
        body.dress(builder, joints, Dice(keys, "clothes"))
        own = len(builder.parts)
        body.seat(builder, joints, Dice(keys, "seat"))
        ground = body.Builder(len(keys))
        body.shadow(ground, joints, towards)
        if self.distractor:
            d = Dice(keys, "second person")
            there = d.chance(self.distractor)
            other = self.poses(Dice(keys, "second pose"))
            other = render.times(turn(1, d.one(-180, 180)).unsqueeze(1), other)
            side = torch.where(d.chance(0.5), 1.0, -1.0)
            move = torch.stack([side * d.one(0.45, 1.0), torch.zeros(len(keys)), d.one(-1.0, 0.3)], -1)
            other = other + move.unsqueeze(1)
            body.dress(builder, other, Dice(keys, "second clothes"), alive=there)
            body.seat(builder, other, Dice(keys, "second seat"), alive=there)
            body.shadow(ground, other, towards, alive=there)
        if self.clutter:
            scenery.furnish(builder, ground, Dice(keys, "clutter"), place, self.clutter)
        if self.occlusion:
            scenery.obstruct(builder, ground, Dice(keys, "occlusion"), joints.mean(1), self.occlusion)
        solids, dark = builder.solids(), ground.solids()
        tile = film.noise_tile(device=device)
        white = Dice(torch.zeros(1, dtype=torch.int64), "grain").uniform(1 << 18, -0.5, 0.5)[0].to(device)
        fine = 2
        step = max(1, STEP * 64 * 64 // self.size**2)
        camera = view.frame(joints)
        flat = view.project(camera)
        images, seen, person = [], [], []
        tone = Dice(keys, "film").uniform(4)
        # like places together: what a chunk does not need is skipped
        order = place.kind.argsort(stable=True)
        for part in order.split(step):
            v = View(*(t[part] for t in view)).to(device)
            s = render.Solids(*(t[part].to(device) for t in solids))
            back = scenery.backdrop(scenery.Place(*(t[part] for t in place)).to(device), v, self.size, tile)
            back = back * (0.92 + 0.25 * light[part, 3].to(device)).view(-1, 1, 1, 1)
            shaded = render.shadows(render.Solids(*(t[part].to(device) for t in dark)), v, self.size)
            for _ in range(max(1, self.size // 48)):
                shaded = film.blur(shaded)
            back = back * (1 - 0.55 * shaded).unsqueeze(1)
            hits = render.cast(s, v, self.size * fine)
            colours = render.paint(hits, s, v, light[part].to(device), tile)
            picture = render.assemble(back, hits, colours, fine)
            images.append(film.film(picture, tone[part].to(device), white))
            seen.append(seen_joints(hits.depth, flat[part].to(device), camera[part].to(device)[..., 2]))
            mine = hits.solid % s.alive.shape[1] < own
            mask = torch.zeros(hits.depth.numel(), device=mine.device)
            mask.index_copy_(0, hits.sample, mine.float())
            person.append(mask.view(-1, self.size, fine, self.size, fine).mean((2, 4)))
        wanted = self.skeleton if isinstance(self.skeleton, Skeleton) else skeleton(self.skeleton)
        parts = skeletons.recipe(FIGURE, wanted)
        back_again = order.argsort()
        visible = torch.cat(seen)[back_again.to(device)]
        visible = torch.stack([visible[:, list(p)].all(-1) for p in parts], -1)
        depth = truth.joints3d[..., 2] - camera[:, FIGURE.joints.index("pelvis"), 2].unsqueeze(-1)
        back_again = back_again.to(device)
        return Scene(
            images=torch.cat(images)[back_again],
            joints=truth.exact.to(device),
            labels=truth.coords.to(device),
            joints3d=truth.joints3d.to(device),
            depth=depth.to(device),
            visible=visible,
            person=torch.cat(person)[back_again],
            head_size=truth.head_size.to(device),
            torso=truth.torso.to(device),
            hint=truth.hint[:, :2].to(device),
            box=truth.box.to(device),
            camera=view.to(device),
        )

    # -- the store --------------------------------------------------------------------------------------------------

    def key(self) -> str:
        """A hash of the configuration and of the renderer's source."""
        text = {f.name: repr(getattr(self, f.name)) for f in fields(self) if f.name != "augment"}
        return hashlib.sha256((repr(sorted(text.items())) + _source()).encode()).hexdigest()[:20]

    def open(self, cache: Path | str | None = None, device: torch.device | str | None = None) -> Store:
        """All `count` figures in memory, from the cache if they have been drawn before.

        cache: a folder; the default is coordreg/ under $XDG_CACHE_HOME or ~/.cache. device: where to draw and deliver.
        """
        device = torch.device(device or "cpu")
        path = (Path(cache) if cache is not None else cache_file.folder()) / f"figures-{self.key()}-{device.type}.npz"
        # a bare function has no description that would tell it from another one: draw, and keep nothing
        kept = is_dataclass(self.poses)
        arrays = cache_file.load(path, COLUMNS, self.count) if kept else None
        if arrays is None:
            arrays = self._draw(device)
            if kept:
                cache_file.save(path, arrays)
        t = {k: torch.from_numpy(v).to(device) for k, v in arrays.items()}
        wanted = self.skeleton if isinstance(self.skeleton, Skeleton) else skeleton(self.skeleton)
        augment = None if self.augment is None else self.augment.bind(wanted.pairs, self.size)
        return Store(
            images=t["images"], coords=t["coords"], weight=torch.ones_like(t["coords"]), visible=t["visible"],
            normaliser=t["normaliser"], affine=t["affine"], pairs=wanted.pairs, joints=wanted.joints, hint=t["hint"],
            augment=augment,
        )  # fmt: skip

    def _draw(self, device: torch.device) -> dict[str, np.ndarray]:
        chunk = max(16, min(256, (1 << 20) // self.size**2))
        images, visible = [], []
        with tqdm(total=self.count, desc=f"drawing {self.split} figures", unit="image", delay=1.0, leave=False) as bar:
            for i in range(0, self.count, chunk):
                drawn = self.scene(torch.arange(i, min(i + chunk, self.count)), device)
                images.append(drawn.images.cpu())
                visible.append(drawn.visible.cpu())
                bar.update(len(drawn.images))
        truth = self.scene_labels(torch.arange(self.count))
        return {
            "images": torch.cat(images).numpy(), "visible": torch.cat(visible).numpy(),
            "coords": truth.coords.numpy(), "normaliser": truth.normaliser.numpy(),
            "affine": truth.affine.numpy(), "hint": truth.hint.numpy(),
        }  # fmt: skip


def _source() -> str:
    modules = (body, dice, film, poses, render, scenery, skeletons, stage)
    paths = [Path(__file__), *(Path(str(m.__file__)) for m in modules)]
    return "".join(hashlib.sha256(p.read_bytes()).hexdigest() for p in paths)
