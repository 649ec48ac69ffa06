"""A small renderer: tapered capsules (round or flattened) and boxes, by exact ray intersection, in batches.

Every solid is tested only against the sample rays inside its bounding rectangle; the candidates of all solids and
images form one flat list, a scatter-minimum over their depth finds what is seen, and only that is shaded. Camera frame:
x right, y down, z forward, so that the parameter of a ray (x, y, 1) is the depth.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from coordreg.data.film import look_up

#: Metres beyond which nothing is drawn; what is added to a ray parameter that hits nothing.
FAR, MISS = 1e4, 1e6
PLAIN, HOOPS, STRIPES, CHECKS, MOTTLED, HEAD, LEAVES = range(7)


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
    pattern, its frequency, split along the axis in metres, phase. soft: (B, K) weight of caps and taper in the
    normal. box, alive: (B, K) bool.
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
    soft: Tensor
    alive: Tensor


class Hits(NamedTuple):
    """What is seen of the solids.

    depth: (B, S, S) of the nearest surface, FAR where there is none. sample, solid: (N,) which sample sees which solid.
    local: three (N,), the place in the solid's own coordinates. normal: three (N,), camera frame. facing: (N,) cosine.
    """

    depth: Tensor
    sample: Tensor
    solid: Tensor
    local: list[Tensor]
    normal: list[Tensor]
    facing: Tensor


def times(matrix: Float[Tensor, "*a 3 3"], vector: Float[Tensor, "*b 3"]) -> Float[Tensor, "*c 3"]:
    """Matrix times vector, term by term: the same bits whatever the batch."""
    return matrix[..., 0] * vector[..., 0:1] + matrix[..., 1] * vector[..., 1:2] + matrix[..., 2] * vector[..., 2:3]


class _Rays(NamedTuple):
    """Candidates that hit: solid, sample, depth (N,); ray x and y (N,), and what a hit's place follows from (16, N)."""

    solid: Tensor
    sample: Tensor
    depth: Tensor
    x: Tensor
    y: Tensor
    table: Tensor


def _local(table: Tensor, x: Tensor, y: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Directions and origins of rays in the solids' own coordinates; origins lie near the solid."""
    d = [table[3 * i] * x + table[3 * i + 1] * y + table[3 * i + 2] for i in range(3)]
    # rays start near the solid, or float32 would lose thin limbs in the discriminant
    return d, [table[9 + i] + table[12] * d[i] for i in range(3)]


def _shoot(solids: Solids, view: View, size: int) -> _Rays:
    """Intersect all candidates."""
    B, K = solids.alive.shape
    warp = solids.axes * solids.scale.unsqueeze(-1)  # world -> local
    to_local = (warp.unsqueeze(-2) * view.rotation[:, None, None]).sum(-1)  # camera -> local
    origin = times(warp, view.position.unsqueeze(1) - solids.a)
    along = (solids.b - solids.a).norm(dim=-1) * solids.scale[..., 2]
    ends = view.frame(torch.stack([solids.a, solids.b], 2).flatten(1, 2)).view(B, K, 2, 3)
    solid, row, column = _candidates(solids, view, ends, size)
    image = _owner(B, K, solids.a.device).take(solid)
    lens = torch.stack([view.centre[:, 0], view.centre[:, 1], 1 / view.focal]).index_select(1, image)
    x = (column.float() * (2 / size) + (1 / size - 1) - lens[0]) * lens[2]
    y = (row.float() * (2 / size) + (1 / size - 1) - lens[1]) * lens[2]
    taper = (solids.radius[..., 1] - solids.radius[..., 0]) / along.clamp_min(1e-4)
    start = ends[..., 2].clamp_min(0.2).mean(-1)
    rows = [*to_local.flatten(2).unbind(-1), *origin.unbind(-1), start, solids.radius[..., 0], taper, along]
    table = torch.stack(rows).view(16, -1)
    p = table.index_select(1, solid)
    d, o = _local(p, x, y)
    s = _capsule(o, d, p[13], p[14], p[15])
    if bool(solids.box.any()):
        boxed = solids.box.flatten().index_select(0, solid).nonzero()[:, 0]
        s.index_copy_(0, boxed, _slab([v.take(boxed) for v in o], [v.take(boxed) for v in d]))
    s = s + p[12]
    hit = ((s < FAR) & (s > 0.3)).nonzero()[:, 0]
    sample = (image * size + row) * size + column
    return _Rays(solid.take(hit), sample.take(hit), s.take(hit), x.take(hit), y.take(hit), table)


def shadows(solids: Solids, view: View, size: int) -> Float[Tensor, "B S S"]:
    """1 where one of these solids is seen, else 0."""
    mask = torch.zeros(len(solids.alive) * size * size, device=solids.a.device)
    return mask.index_fill_(0, _shoot(solids, view, size).sample, 1.0).view(-1, size, size)


def cast(solids: Solids, view: View, size: int) -> Hits:
    """Shoot size x size rays an image and keep the nearest hit of each."""
    B, K = solids.alive.shape
    device = solids.a.device
    rays = _shoot(solids, view, size)
    nearest = torch.full((B * size * size,), FAR, device=device)
    nearest.scatter_reduce_(0, rays.sample, rays.depth, "amin")
    winner = (rays.depth == nearest.take(rays.sample)).nonzero()[:, 0]
    # equal depths: the first solid wins, so that a sample is never counted twice
    owner = torch.full((B * size * size,), B * K, dtype=torch.int64, device=device)
    solid, sample = rays.solid.take(winner), rays.sample.take(winner)
    owner.scatter_reduce_(0, sample, solid, "amin")
    first = owner.take(sample) == solid
    if not bool(first.all()):
        winner, solid, sample = winner[first], solid[first], sample[first]
    q = rays.table.index_select(1, solid)
    x, y, depth = rays.x.take(winner), rays.y.take(winner), rays.depth.take(winner)
    d, o = _local(q, x, y)
    s = depth - q[12]
    place = [o[i] + s * d[i] for i in range(3)]
    flat = solids.box.flatten().index_select(0, solid).float()
    radial = (place[0] ** 2 + place[1] ** 2).sqrt()
    beyond = place[2] - torch.minimum(place[2].clamp_min(0), q[15])
    rise = torch.where(beyond == 0, -q[14] * radial, beyond) * solids.soft.flatten().index_select(0, solid)
    edge = [v.abs() for v in place]
    most = torch.maximum(torch.maximum(edge[0], edge[1]), edge[2])
    faces = [(edge[i] >= most) * place[i].sign() for i in range(3)]
    normal = [v + flat * (f - v) for f, v in zip(faces, (place[0], place[1], rise), strict=True)]
    seen = [q[i] * normal[0] + q[3 + i] * normal[1] + q[6 + i] * normal[2] for i in range(3)]
    length = (seen[0] * seen[0] + seen[1] * seen[1] + seen[2] * seen[2]).clamp_min(1e-12).rsqrt()
    seen = [v * length for v in seen]
    facing = -(seen[0] * x + seen[1] * y + seen[2]) * (1 + x * x + y * y).rsqrt()
    return Hits(nearest.view(B, size, size), sample, solid, place, seen, facing)


def _owner(images: int, solids: int, device: torch.device) -> Tensor:
    """The image that each solid of the flat list belongs to; looking it up is faster than an integer division."""
    return torch.arange(images, device=device).repeat_interleave(solids)


def _spread(count: Tensor) -> tuple[Tensor, Tensor]:
    """Item i repeated count[i] times, and the number of each repetition."""
    item = torch.arange(len(count), device=count.device).repeat_interleave(count)
    return item, torch.arange(len(item), device=count.device) - (count.cumsum(0) - count).index_select(0, item)


def _candidates(solids: Solids, view: View, ends: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """(solid, row, column) of the samples that may see a solid: its rectangle, cut to a band along its axis."""
    B, K = solids.alive.shape
    zoom = view.focal.view(-1, 1, 1) * size / 2
    uv = (view.project(ends.flatten(1, 2)).view(B, K, 2, 2) + 1) * size / 2 - 0.5
    half = zoom * solids.reach.unsqueeze(-1) / ends[..., 2].clamp_min(0.2) * 1.05 + 0.15
    low, high = (uv - half.unsqueeze(-1)).amin(2), (uv + half.unsqueeze(-1)).amax(2)
    # a box is centred: the corners bound it more tightly than the sphere around them
    reach = (
        ((solids.axes / solids.scale.unsqueeze(-1)).unsqueeze(-2) * view.rotation[:, None, None]).sum(-1).abs().sum(2)
    )
    near = (ends[:, :, 0, 2] - reach[..., 2]).clamp_min(0.2)
    tight = zoom * reach[..., :2] / near.unsqueeze(-1)
    skew = (uv[:, :, 0] - (view.centre.unsqueeze(1) + 1) * size / 2).abs() * (reach[..., 2] / near).unsqueeze(-1)
    boxed = solids.box.unsqueeze(-1)
    low = torch.where(boxed, uv[:, :, 0] - tight - skew, low).ceil().clamp(0, size)
    high = torch.where(boxed, uv[:, :, 0] + tight + skew, high).floor().clamp(-1, size - 1)
    alive = solids.alive & (ends[..., 2].amax(-1) > 0.3) & (high >= low).all(-1)
    along = uv[:, :, 1] - uv[:, :, 0]
    steep = along[..., 1].abs() > 0.5
    slope = torch.where(steep, along[..., 0] / torch.where(steep, along[..., 1], 1.0), 0.0)
    band = torch.where(steep & ~solids.box, half.amax(-1) * (1 + slope * slope).sqrt(), 4.0 * size)
    start = uv[:, :, 0, 0] - slope * uv[:, :, 0, 1]
    rows = ((high[..., 1] - low[..., 1] + 1) * alive).long().flatten()
    solid, step = _spread(rows)
    q = torch.stack([low[..., 0], high[..., 0], low[..., 1], slope, start, band]).flatten(1).index_select(1, solid)
    row = q[2] + step
    middle = q[4] + q[3] * row
    left = torch.maximum(q[0], (middle - q[5]).ceil())
    right = torch.minimum(q[1], (middle + q[5]).floor())
    line, step = _spread((right - left + 1).clamp_min(0).long())
    return solid.take(line), row.long().take(line), left.long().take(line) + step


def _capsule(o: list[Tensor], d: list[Tensor], r: Tensor, taper: Tensor, along: Tensor) -> Tensor:
    """Ray parameter of the first hit with a cone between two spheres, about MISS for none."""
    k = taper * d[2]
    at = r + taper * o[2]
    dd, od, oo = d[0] * d[0] + d[1] * d[1], o[0] * d[0] + o[1] * d[1], o[0] * o[0] + o[1] * o[1]
    a, b, c = dd - k * k, od - k * at, oo - at * at
    disc = b * b - a * c
    s = (-b - disc.clamp_min(0).sqrt()) / a.clamp_min(1e-9)
    where = o[2] + s * d[2]
    # adding a large number is several times faster than a selection
    best = s + ((disc <= 0) | (where <= 0) | (where >= along)).float() * MISS
    a = dd + d[2] * d[2]
    for end, radius in ((o[2], r), (o[2] - along, r + taper * along)):
        b = od + end * d[2]
        disc = b * b - a * (oo + end * end - radius * radius)
        s = (-b - disc.clamp_min(0).sqrt()) / a
        best = torch.minimum(best, s + (disc <= 0).float() * MISS)
    return best


def _slab(o: list[Tensor], d: list[Tensor]) -> Tensor:
    """Ray parameter of the first hit with the cube [-1, 1]^3, MISS for none."""
    near = torch.full_like(o[0], -torch.inf)
    far = torch.full_like(o[0], torch.inf)
    for i in range(3):
        inverse = 1 / torch.where(d[i].abs() < 1e-9, 1e-9, d[i])
        x, y = (-1 - o[i]) * inverse, (1 - o[i]) * inverse
        near, far = torch.maximum(near, torch.minimum(x, y)), torch.minimum(far, torch.maximum(x, y))
    return torch.where(near < far, near, MISS)


def paint(
    hits: Hits, solids: Solids, view: View, light: Float[Tensor, "B 7"], tile: Float[Tensor, "T T"]
) -> Float[Tensor, "N 3"]:
    """Colours of the samples that are seen.

    light: (B, 7) direction towards the light in the world, its strength, the colour of the shade.
    """
    B, K = solids.alive.shape
    pattern, frequency, split, phase = solids.material.flatten(0, 1).unbind(-1)
    # per solid: how much each pattern counts, then all that its samples need in one look-up
    weights = [(pattern == k).float() for k in (HOOPS, STRIPES, CHECKS, MOTTLED, LEAVES)]
    bump = 0.13 * (1 + weights[4] - 0.7 * (pattern == HEAD).float())
    first, second, beyond = solids.colours.flatten(0, 1).unbind(1)
    scale = solids.scale.flatten(0, 1)
    rows = [*weights, bump, 6.2832 * frequency, split, phase, solids.box.flatten().float(), *(1 / scale).unbind(-1)]
    rows += [*first.unbind(-1), *(second - first).unbind(-1), *(beyond - first).unbind(-1)]
    q = torch.stack(rows).index_select(1, hits.solid)
    near = hits.local
    x, y, z = near[0] * q[10], near[1] * q[11], near[2] * q[12]
    # boxes: the faces to the side carry their pattern along y
    sideways = q[9] * (near[0].abs() >= torch.maximum(near[1].abs(), near[2].abs())).float()
    x = x + sideways * (y - x)
    grain = look_up(tile, x * 0.9 + q[8], z * 0.9 + y * 0.5 + q[8] * 3)
    hoop, stripe = (q[6] * z + q[8] * 6).sin(), (q[6] * x + q[8] * 4).sin()
    wave = q[0] * hoop + q[1] * stripe + q[2] * hoop * stripe + q[3] * (2.2 * grain - 0.1)
    patterned = q[0] + q[1] + q[2] + q[3]
    share = patterned * ((wave * 3).clamp(-1, 1) * 0.5 + 0.5) + q[4] * (grain * 2.5 + 0.4).clamp(0, 1)
    bare = (z > q[7]).float()
    share = share * (1 - bare)
    colour = torch.stack([q[13 + i] + share * q[16 + i] + bare * q[19 + i] for i in range(3)], -1)
    is_head = (pattern == HEAD).index_select(0, hits.solid)
    head = is_head.nonzero()[:, 0]
    if len(head):
        solid = hits.solid.take(head)
        unit = torch.stack([v.take(head) for v in near], -1)
        unit = unit / unit.norm(dim=-1, keepdim=True)
        skin, hair, eye = (c.index_select(0, solid) for c in (first, second, beyond))
        colour.index_copy_(0, head, _head(unit, skin, hair, eye, phase.take(solid)))

    lamp = times(view.rotation, light[:, :3])
    lamps = torch.cat([lamp, view.rotation[:, :, 1], light[:, 3:]], -1)  # column 1: the world's up seen from the camera
    g = lamps.t().index_select(1, _owner(B, K, tile.device).take(hits.solid))
    n = hits.normal
    diffuse = ((n[0] * g[0] + n[1] * g[1] + n[2] * g[2]) * 0.85 + 0.15).clamp_min(0) * g[6]
    ambient = 0.68 + 0.2 * (n[0] * g[3] + n[1] * g[4] + n[2] * g[5])
    rim = (0.72 + 0.28 * hits.facing.clamp(0, 1).sqrt()) * (1 + q[5] * grain)
    return colour * torch.stack([(ambient * g[7 + i] + diffuse) * rim for i in range(3)], -1)


def _head(local: Tensor, skin: Tensor, hair: Tensor, eye: Tensor, phase: Tensor) -> Tensor:
    """Hair behind and on top, a face in front: x to the side, y front, z up; the unit sphere.

    phase in [0, 1): the hair line, from long to bald.
    """
    x, y, z = local.unbind(-1)
    bald, long = phase > 0.93, phase < 0.45
    # the hair line: over the brow in front, down to the nape behind; long hair also frames the cheeks
    line = torch.where(y > 0, 0.42 - 0.25 * (phase - 0.5) + 0.1 * y, 0.42 + 1.5 * y).clamp_min(-0.45)
    line = torch.where(long & (y < 0.45), -0.6, line)
    covered = (z > line) & ~bald
    colour = torch.where(covered.unsqueeze(-1), hair, skin)
    front = (y > 0) & ~covered
    wide = x.abs()
    white = front & ((wide - 0.34) ** 2 / 0.026 + (z - 0.02) ** 2 / 0.010 < 1)
    pupil = front & ((wide - 0.34) ** 2 + (z - 0.02) ** 2 < 0.010)
    brow = front & ((wide - 0.35) ** 2 / 0.040 + (z - 0.20) ** 2 / 0.0025 < 1)
    mouth = front & (x**2 / 0.070 + (z + 0.52) ** 2 / 0.006 < 1)
    cheek = front & ((wide - 0.48) ** 2 / 0.05 + (z + 0.28) ** 2 / 0.04 < 1)
    tint = torch.tensor([[1.03, 0.90, 0.88], [0.80, 0.48, 0.46]], device=local.device)
    for where, paint in (
        (cheek, skin * tint[0]),
        (mouth, skin * tint[1]),
        (brow, torch.lerp(hair, skin, 0.2)),
        (white, skin * 0.35 + 0.58),
        (pupil, eye),
    ):
        colour = torch.where(where.unsqueeze(-1), paint, colour)
    return colour


def assemble(backdrop: Float[Tensor, "B 3 S S"], hits: Hits, colours: Float[Tensor, "N 3"], fine: int) -> Tensor:
    """Lay the solids over the backdrop: `fine` x `fine` samples a pixel, averaged."""
    B, _, S, _ = backdrop.shape
    wide = S * fine
    out = backdrop.permute(0, 2, 3, 1).reshape(B * S * S, 3)
    row = torch.div(hits.sample, wide, rounding_mode="floor")
    column = hits.sample - row * wide
    pixel = torch.div(row, fine, rounding_mode="floor") * S + torch.div(column, fine, rounding_mode="floor")
    four = torch.cat([colours, torch.ones_like(colours[:, :1])], -1)
    total = torch.zeros(B * S * S, 4, device=out.device).index_add_(0, pixel, four) / fine**2
    return (out * (1 - total[:, 3:]) + total[:, :3]).view(B, S, S, 3).permute(0, 3, 1, 2)
