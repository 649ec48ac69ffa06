"""A small renderer: tapered capsules (round or flattened) and boxes, by exact ray intersection, in batches.

Every solid is tested only against the sample rays inside its bounding rectangle; the candidates of all solids and
images form one flat list, a scatter-minimum over their depth finds what is seen, and only that is shaded. Camera frame:
x right, y down, z forward, so that the parameter of a ray (x, y, 1) is the depth.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coordreg.data.dice import mix

PLAIN, HOOPS, STRIPES, CHECKS, MOTTLED, HEAD, LEAVES, SHADE = range(8)


class View(NamedTuple):
    """A pinhole camera: X_cam = rotation (X - position), u = focal X/Z + centre in normalised units.

    rotation: (B, 3, 3). position: (B, 3) metres. focal: (B,), 1 for a field of view of 90 degrees. centre: (B, 2).
    """

    rotation: Tensor
    position: Tensor
    focal: Tensor
    centre: Tensor

    def to(self, device: torch.device | str) -> "View":
        """The same camera on another device."""
        return View(*(t.to(device) for t in self))

    def frame(self, points: Float[Tensor, "B N 3"]) -> Float[Tensor, "B N 3"]:
        """World -> camera frame, metres."""
        return times(self.rotation.unsqueeze(1), points - self.position.unsqueeze(1))

    def project(self, points: Float[Tensor, "B N 3"]) -> Float[Tensor, "B N 2"]:
        """Camera frame -> normalised image coordinates."""
        depth = points[..., 2:].clamp_min(0.05)
        return self.focal.view(-1, 1, 1) * points[..., :2] / depth + self.centre.unsqueeze(1)


class Solids(NamedTuple):
    """K solids an image. Capsules run from a to b; a box is centred at a.

    a, b: (B, K, 3) metres, world. axes: (B, K, 3, 3) rows (side, front, along), unit vectors. scale: (B, K, 3) local
    units per metre. radius: (B, K, 2) at a and b, local units; of a box unused. reach: (B, K) radius of a sphere around
    each end that contains the solid there. colours: (B, K, 3, 3) base, second, beyond the split. material: (B, K, 4)
    pattern, its frequency, split along the axis in metres, phase. box, shade, alive: (B, K) bool.
    """

    a: Tensor
    b: Tensor
    axes: Tensor
    scale: Tensor
    radius: Tensor
    reach: Tensor
    colours: Tensor
    material: Tensor
    box: Tensor
    shade: Tensor
    alive: Tensor


class Hits(NamedTuple):
    """What is seen of the solids: nearest (B, S, S) depths, and a list of N samples with colour and place."""

    depth: Tensor
    shadow: Tensor
    sample: Tensor
    solid: Tensor
    local: Tensor
    normal: Tensor
    facing: Tensor


def times(matrix: Float[Tensor, "*a 3 3"], vector: Float[Tensor, "*b 3"]) -> Float[Tensor, "*c 3"]:
    """Matrix times vector, term by term: the same bits whatever the batch."""
    return (
        matrix[..., 0] * vector[..., 0:1] + matrix[..., 1] * vector[..., 1:2] + matrix[..., 2] * vector[..., 2:3]
    )


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
    return tile.view(-1)[i * size + j]


def cast(solids: Solids, view: View, size: int) -> Hits:
    """Shoot size x size rays an image and keep the nearest hit of each."""
    B, K = solids.alive.shape
    warp = solids.axes * solids.scale.unsqueeze(-1)  # world -> local
    to_local = (warp.unsqueeze(-2) * view.rotation[:, None, None]).sum(-1)  # camera -> local
    origin = times(warp, view.position.unsqueeze(1) - solids.a)
    along = (solids.b - solids.a).norm(dim=-1) * solids.scale[..., 2]
    ends = view.frame(torch.stack([solids.a, solids.b], 2).flatten(1, 2)).view(B, K, 2, 3)
    z = ends[..., 2].clamp_min(0.2)
    uv = view.project(ends.flatten(1, 2)).view(B, K, 2, 2)
    half = view.focal.view(-1, 1, 1) * solids.reach.unsqueeze(-1) / z * 1.04
    low = ((uv - half.unsqueeze(-1)).amin(2) + 1) * size / 2 - 0.5
    high = ((uv + half.unsqueeze(-1)).amax(2) + 1) * size / 2 - 0.5
    low, high = low.ceil().clamp(0, size).long(), high.floor().clamp(-1, size - 1).long()
    extent = (high - low + 1).clamp_min(0) * (solids.alive & (ends[..., 2].amax(-1) > 0.3)).unsqueeze(-1)
    width, count = extent[..., 0].flatten(), extent.prod(-1).flatten()

    device = z.device
    solid = torch.arange(B * K, device=device).repeat_interleave(count)
    within = torch.arange(len(solid), device=device) - (count.cumsum(0) - count)[solid]
    wide = width[solid]
    row = torch.div(within, wide, rounding_mode="floor")
    column = within - row * wide + low[..., 0].flatten()[solid]
    row = row + low[..., 1].flatten()[solid]
    image = torch.div(solid, K, rounding_mode="floor")
    ray_x = ((2 * column.float() + 1) / size - 1 - view.centre[image, 0]) / view.focal[image]
    ray_y = ((2 * row.float() + 1) / size - 1 - view.centre[image, 1]) / view.focal[image]

    taper = (solids.radius[..., 1] - solids.radius[..., 0]) / along.clamp_min(1e-4)
    # rays start near the solid, or float32 would lose thin limbs in the discriminant
    start = z.mean(-1)
    table = torch.stack(
        [*to_local.flatten(2).unbind(-1), *origin.unbind(-1), start, solids.radius[..., 0], taper, along]
    ).view(16, -1)
    p = table[:, solid]
    d = [p[3 * i] * ray_x + p[3 * i + 1] * ray_y + p[3 * i + 2] for i in range(3)]
    o = [p[9 + i] + p[12] * d[i] for i in range(3)]
    is_box = solids.box.flatten()[solid]
    s = _capsule(o, d, p[13], p[14], p[15])
    if bool(solids.box.any()):
        boxed = is_box.nonzero()[:, 0]
        s[boxed] = _slab([t[boxed] for t in o], [t[boxed] for t in d])
    hit = (torch.isfinite(s) & (s + p[12] > 0.3)).nonzero()[:, 0]
    s, solid = s[hit], solid[hit]
    depth = s + p[12, hit]
    sample = (image[hit] * size + row[hit]) * size + column[hit]

    shade = solids.shade.flatten()[solid]
    shadow = torch.zeros(B * size * size, device=device)
    shadow[sample[shade]] = 1.0
    nearest = torch.full((B * size * size,), torch.inf, device=device)
    nearest.scatter_reduce_(0, sample, torch.where(shade, torch.inf, depth), "amin")
    # equal depths: the first solid wins, so that a sample is never counted twice
    winner = (depth == nearest[sample]).nonzero()[:, 0]
    owner = torch.full((B * size * size,), B * K, dtype=torch.int64, device=device)
    owner.scatter_reduce_(0, sample[winner], solid[winner], "amin")
    winner = winner[owner[sample[winner]] == solid[winner]]
    pick = hit[winner]
    s, solid, sample = s[winner], solid[winner], sample[winner]
    place = [o[i][pick] + s * d[i][pick] for i in range(3)]
    q = p[:, pick]
    axis = place[2] - place[2].clamp(min=torch.zeros_like(s), max=q[15])
    edge = torch.stack(place).abs()
    top = edge.amax(0)
    flat = is_box[pick]
    inner = (axis == 0) & ~flat
    normal = [torch.where(flat, (edge[i] >= top) * place[i].sign(), place[i]) for i in range(2)]
    rise = -q[14] * (place[0] ** 2 + place[1] ** 2).sqrt()
    normal.append(torch.where(flat, (edge[2] >= top) * place[2].sign(), torch.where(inner, rise, axis)))
    seen = torch.stack([q[i] * normal[0] + q[3 + i] * normal[1] + q[6 + i] * normal[2] for i in range(3)], -1)
    seen = seen / seen.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    ray = torch.stack([ray_x[pick], ray_y[pick], torch.ones_like(s)], -1)
    facing = -(seen * ray).sum(-1) / ray.norm(dim=-1)
    return Hits(
        nearest.view(B, size, size), shadow.view(B, size, size), sample, solid, torch.stack(place, -1), seen, facing
    )


def _capsule(o: list[Tensor], d: list[Tensor], r: Tensor, taper: Tensor, along: Tensor) -> Tensor:
    """Ray parameter of the first hit with a cone between two spheres, inf for none."""
    k = taper * d[2]
    at = r + taper * o[2]
    dd, od, oo = d[0] * d[0] + d[1] * d[1], o[0] * d[0] + o[1] * d[1], o[0] * o[0] + o[1] * o[1]
    a, b, c = dd - k * k, od - k * at, oo - at * at
    disc = b * b - a * c
    s = (-b - disc.clamp_min(0).sqrt()) / a.clamp_min(1e-9)
    where = o[2] + s * d[2]
    best = torch.where((disc > 0) & (where > 0) & (where < along), s, torch.inf)
    a = dd + d[2] * d[2]
    for end, radius in ((o[2], r), (o[2] - along, r + taper * along)):
        b = od + end * d[2]
        disc = b * b - a * (oo + end * end - radius * radius)
        best = torch.minimum(best, torch.where(disc > 0, (-b - disc.clamp_min(0).sqrt()) / a, torch.inf))
    return best


def _slab(o: list[Tensor], d: list[Tensor]) -> Tensor:
    """Ray parameter of the first hit with the cube [-1, 1]^3, inf for none."""
    near = torch.full_like(o[0], -torch.inf)
    far = torch.full_like(o[0], torch.inf)
    for i in range(3):
        inverse = 1 / torch.where(d[i].abs() < 1e-9, 1e-9, d[i])
        x, y = (-1 - o[i]) * inverse, (1 - o[i]) * inverse
        near, far = torch.maximum(near, torch.minimum(x, y)), torch.minimum(far, torch.maximum(x, y))
    return torch.where(near < far, near, torch.inf)


def paint(
    hits: Hits, solids: Solids, view: View, light: Float[Tensor, "B 7"], tile: Float[Tensor, "T T"]
) -> Float[Tensor, "N 3"]:
    """Colours of the samples that are seen.

    light: (B, 7) direction towards the light in the world, its strength, the colour of the shade.
    """
    K = solids.alive.shape[1]
    image = torch.div(hits.solid, K, rounding_mode="floor")
    first, second, beyond = solids.colours.flatten(0, 1)[hits.solid].unbind(1)
    pattern, frequency, split, phase = solids.material.flatten(0, 1)[hits.solid].unbind(-1)
    metres = hits.local / solids.scale.flatten(0, 1)[hits.solid]
    boxed = solids.box.flatten()[hits.solid]
    x, y, z = metres.unbind(-1)
    x = torch.where(boxed & (hits.local[:, 0].abs() >= hits.local.abs().amax(-1)), y, x)
    grain = look_up(tile, x * 0.9 + phase, z * 0.9 + y * 0.5 + phase * 3)
    turn = 6.2832 * frequency
    hoop, stripe = (turn * z + phase * 6).sin(), (turn * x + phase * 4).sin()
    kinds = torch.stack([hoop, stripe, hoop * stripe, grain * 2.2 - 0.1])
    which = (pattern.long() - HOOPS).clamp(0, 3)
    strength = (kinds.gather(0, which[None])[0] * 3).clamp(-1, 1) * 0.5 + 0.5
    strength = torch.where((pattern >= HOOPS) & (pattern <= MOTTLED), strength, 0)
    strength = torch.where(pattern == LEAVES, (grain * 2.5 + 0.4).clamp(0, 1), strength)
    colour = torch.lerp(first, second, strength.unsqueeze(-1))
    colour = torch.where((z > split).unsqueeze(-1), beyond, colour)
    head = (pattern == HEAD).nonzero()[:, 0]
    if len(head):
        colour[head] = _head(hits.local[head], first[head], second[head], beyond[head], phase[head])
    bump = torch.where(pattern == HEAD, 0.3, torch.where(pattern == LEAVES, 2.0, 1.0))
    colour = colour * (1 + 0.13 * bump * grain).unsqueeze(-1)

    lamp = times(view.rotation, light[:, :3])[image]
    up = -(view.rotation[:, :, 1][image] * hits.normal).sum(-1)
    up = -up  # rotation[:, :, 1] is the world's up in the camera frame
    diffuse = ((hits.normal * lamp).sum(-1) * 0.85 + 0.15).clamp_min(0)
    ambient = 0.62 + 0.2 * up
    rim = 0.72 + 0.28 * hits.facing.clamp(0, 1).sqrt()
    strength = light[image, 3]
    bright = (ambient.unsqueeze(-1) * light[image, 4:7] + (strength * diffuse).unsqueeze(-1)) * rim.unsqueeze(-1)
    return colour * bright


def _head(local: Tensor, skin: Tensor, hair: Tensor, eye: Tensor, phase: Tensor) -> Tensor:
    """Hair behind and on top, a face in front: x to the person's left, y front, z up; unit sphere.

    phase in [0, 1): the hair line, from long to bald.
    """
    x, y, z = local.unbind(-1)
    line = 0.30 + 0.25 * (phase - 0.5) - 0.75 * (y - 0.45).clamp(-1.5, 0.0) * -1.2
    low = torch.where(phase < 0.45, -0.75, -0.35)
    covered = (z > line) & ((z > low) | (y < -0.2)) & (phase < 0.93) & ((y < 0.9) | (z > 0.35))
    covered = covered & ~((z < -0.55) & (phase > 0.45))
    colour = torch.where(covered.unsqueeze(-1), hair, skin)
    front = y > 0
    eyes = front & ((x.abs() - 0.36) ** 2 / 0.022 + (z + 0.02) ** 2 / 0.012 < 1)
    brows = front & ((x.abs() - 0.36) ** 2 / 0.045 + (z - 0.19) ** 2 / 0.0035 < 1)
    mouth = front & (x**2 / 0.075 + (z + 0.56) ** 2 / 0.006 < 1)
    cheeks = front & ((x.abs() - 0.45) ** 2 / 0.06 + (z + 0.33) ** 2 / 0.04 < 1)
    blush = torch.tensor([1.02, 0.88, 0.86], device=local.device)
    colour = torch.where(cheeks.unsqueeze(-1) & ~covered.unsqueeze(-1), colour * blush, colour)
    colour = torch.where(brows.unsqueeze(-1), torch.lerp(hair, skin, 0.3), colour)
    colour = torch.where(mouth.unsqueeze(-1), skin * torch.tensor([0.78, 0.45, 0.45], device=local.device), colour)
    return torch.where(eyes.unsqueeze(-1), eye, colour)


def assemble(backdrop: Float[Tensor, "B 3 S S"], hits: Hits, colours: Float[Tensor, "N 3"], fine: int) -> Tensor:
    """Lay the solids over the backdrop: `fine` x `fine` samples a pixel, averaged; shadows darken what lies below."""
    B, _, S, _ = backdrop.shape
    wide = S * fine
    shadow = torch.nn.functional.avg_pool2d(hits.shadow[:, None], fine)
    soft = max(1, round(S / 96))
    for _ in range(2):
        shadow = torch.nn.functional.avg_pool2d(shadow, 2 * soft + 1, 1, soft)
    out = (backdrop * (1 - 0.55 * shadow)).permute(0, 2, 3, 1).reshape(B * S * S, 3)
    row = torch.div(hits.sample, wide, rounding_mode="floor")
    column = hits.sample - row * wide
    pixel = torch.div(row, fine, rounding_mode="floor") * S + torch.div(column, fine, rounding_mode="floor")
    four = torch.cat([colours, torch.ones_like(colours[:, :1])], -1)
    total = torch.zeros(B * S * S, 4, device=out.device).index_add_(0, pixel, four) / fine**2
    return (out * (1 - total[:, 3:]) + total[:, :3]).view(B, S, S, 3).permute(0, 3, 1, 2)
