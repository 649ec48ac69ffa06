"""People and probabilities in space: skeletons from any side, volumes with their marginals, a figure that turns.

Axes are the camera's, as in the labels: x to the right, y down, z away from the viewer; one scale for all three. A view
is (yaw, pitch) in degrees: (0, 0) is the camera's own, (90, 0) from the right of the picture, (0, 90) from above.
"""

import base64
import hashlib
import html
import io
import itertools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgba
from numpy.typing import NDArray

from coordreg.plots.look import COLOURS, HEAT, INK, MUTED, PAPER, RULE, axes
from coordreg.plots.pictures import Array, Bones, _bare, _side, array, pixels

VIEWS = {"front": (0.0, 0.0), "right": (90.0, 0.0), "above": (0.0, 90.0)}
#: Sides on paper, where SIDES' light colours would be lost: the person's left, right, and middle.
TINTS = {"left": COLOURS["dark"], "right": COLOURS["quarter"], "middle": INK}


def turned(points: Array, yaw: float = 0.0, pitch: float = 0.0) -> NDArray[Any]:
    """Points (..., 3) in the axes of a viewer who has walked `yaw` degrees to the right and climbed `pitch`."""
    value = array(points).astype(float)
    if value.ndim < 1 or value.shape[-1] != 3:
        raise ValueError(f"turned: got points of shape {value.shape}, expected (..., 3): x, y and z")
    a, b = np.deg2rad([yaw, pitch])
    x, y, z = np.moveaxis(value, -1, 0)
    x, z = x * np.cos(a) + z * np.sin(a), z * np.cos(a) - x * np.sin(a)
    y, z = y * np.cos(b) - z * np.sin(b), z * np.cos(b) + y * np.sin(b)
    return np.stack([x, y, z], -1)


def _pose(name: str, points: Array, bones: Bones) -> NDArray[Any]:
    value = array(points).astype(float)
    if value.shape != (len(bones.joints), 3) or not np.isfinite(value).all():
        raise ValueError(
            f"{name}: got points of shape {value.shape}, expected ({len(bones.joints)}, 3) finite numbers for this "
            "skeleton; one person at a time, with a depth for each joint"
        )
    return value


def _tint(bones: Bones, a: int, b: int) -> str:
    sides = {_side(bones.joints[j]) for j in (a, b)} - {"middle"}
    return TINTS[sides.pop()] if len(sides) == 1 else TINTS["middle"]


# -- skeletons ---------------------------------------------------------------------------------------------------------


def skeleton3d(
    ax: Axes | None,
    points: Array,
    bones: Bones,
    view: tuple[float, float] = (0.0, 0.0),
    truth: Array | None = None,
    width: float = 2.2,
    reach: float | None = None,
) -> Axes:
    """A person from one side, near bones over far ones: left orange, right blue, middle dark; the truth in grey.

    points, truth: (J, 3). view: (yaw, pitch) in degrees. reach: half the side of what is shown, in the points' units,
    about the middle of the truth (of the points without one); by default what holds the whole person from every side.
    """
    ax = axes(ax)
    value = _pose("skeleton3d", points, bones)
    people = [value] if truth is None else [_pose("skeleton3d", truth, bones), value]
    middle = (people[0].min(0) + people[0].max(0)) / 2
    if reach is None:
        reach = 1.08 * float(max(np.linalg.norm(person - middle, axis=-1).max() for person in people))
    for person, grey in zip(people, (True, False) if len(people) == 2 else (False,), strict=True):
        flat = turned(person - middle, *view)
        pairs = sorted(bones.bones, key=lambda bone: -(flat[bone[0], 2] + flat[bone[1], 2]))
        for order, (a, b) in enumerate(pairs):
            line = flat[[a, b], :2]
            z = 2.0 if grey else 3 + order / len(pairs)
            if not grey:  # a rim of paper, so that the nearer bone is seen to cross the farther one
                ax.add_collection(
                    LineCollection([line], colors=[PAPER], linewidths=width + 2.4, capstyle="butt", zorder=z),
                    autolim=False,
                )
            tone = "#b9b4a8" if grey else _tint(bones, a, b)
            ax.add_collection(
                LineCollection([line], colors=[tone], linewidths=width, capstyle="round", zorder=z), autolim=False
            )
        tones = ["#b9b4a8"] * len(flat) if grey else [TINTS[_side(name)] for name in bones.joints]
        ax.scatter(
            flat[:, 0], flat[:, 1], s=(1.7 * width) ** 2, c=tones, edgecolors=PAPER, linewidths=0.6,
            zorder=2.5 if grey else 5,
        )  # fmt: skip
    _bare(ax)
    ax.set(xlim=(-reach, reach), ylim=(reach, -reach), aspect="equal")
    return ax


# -- volumes -----------------------------------------------------------------------------------------------------------


def _lines(p: NDArray[Any]) -> list[NDArray[Any]]:
    """The marginals of (D, H, W): x, y, z."""
    return [p.sum((0, 1)), p.sum((0, 2)), p.sum((1, 2))]


def volume(
    ax: Axes | None,
    values: Array,
    view: tuple[float, float] = (32.0, 20.0),
    marginals: bool = True,
    least: float = 0.02,
) -> Axes:
    """A volume (D, H, W) of non-negative numbers as a box of dots, with its three marginals along three edges.

    A dot's area and colour go with the cell's value; cells below `least` times the largest are left out. The marginals
    hang below the edges of x and z and stand left of the edge of y, each on its own scale.
    """
    ax, p = axes(ax), array(values).astype(float)
    if p.ndim != 3 or not np.isfinite(p).all() or p.min() < 0 or p.max() <= 0:
        raise ValueError(
            f"volume: got an array of shape {p.shape}, expected (D, H, W) of numbers of at least 0, not all of them 0; "
            "choose one image and one joint, and give probabilities, not logits"
        )
    corners = np.array(list(itertools.product((-1, 1), repeat=3)), float)
    edges = [(a, b) for a in corners for b in corners if (b - a).sum() == 2 and (a != b).sum() == 1]
    flat = turned(np.array(edges), *view)
    hidden = np.argmax(turned(corners, *view)[:, 2])  # the farthest corner: its three edges lie behind the box
    behind = [bool((np.array(edge) == corners[hidden]).all(-1).any()) for edge in edges]
    for far in (True, False):
        chosen = [line[:, :2] for line, back in zip(flat, behind, strict=True) if back == far]
        ax.add_collection(
            LineCollection(chosen, colors=RULE if far else MUTED, linewidths=0.9, zorder=1 if far else 4), autolim=False
        )
    grids = [(2 * np.arange(n) + 1) / n - 1 for n in p.shape]
    z, y, x = np.nonzero(p >= least * p.max())
    dots = turned(np.stack([grids[2][x], grids[1][y], grids[0][z]], -1), *view)
    share = p[z, y, x] / p.max()
    order = np.argsort(-dots[:, 2])
    size = 240 * (8 / max(p.shape)) ** 2
    ax.scatter(
        dots[order, 0], dots[order, 1], s=(size * share**0.8)[order], c=HEAT(0.25 + 0.6 * share[order]),
        edgecolors=to_rgba(PAPER, 0.9), linewidths=0.5, zorder=3,
    )  # fmt: skip
    reach = 1.75
    if marginals:
        away = ((0.0, 1.0, 0.0), (-1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
        start = ((0, 1, -1), (-1, 0, -1), (1, 1, 0))
        for axis, line in enumerate(_lines(p)):
            n, tone = len(line), (COLOURS["quarter"], COLOURS["second"], COLOURS["argmax"])[axis]
            along = np.eye(3)[axis]
            bars = []
            for i, v in enumerate(line):
                low, high = (2 * i + 0.1) / n - 1, (2 * i + 1.9) / n - 1
                tall = 0.55 * v / line.max()
                base = np.array(start[axis]) + 0.06 * np.array(away[axis])
                quad = [
                    base + along * low, base + along * high,
                    base + along * high + tall * np.array(away[axis]), base + along * low + tall * np.array(away[axis]),
                ]  # fmt: skip
                bars.append(turned(np.array(quad), *view)[:, :2])
            ax.add_collection(PolyCollection(bars, facecolors=to_rgba(tone, 0.75), edgecolors="none", zorder=5), False)
            place = turned(np.array(start[axis]) + 0.78 * np.array(away[axis]), *view)
            ax.text(place[0], place[1], "xyz"[axis], color=tone, ha="center", va="center", fontweight="bold", zorder=6)
        reach = 2.05
    _bare(ax)
    ax.set(xlim=(-reach, 1.75), ylim=(reach, -1.75), aspect="equal")
    return ax


def marginal(ax: Axes | None, values: Array, axis: int, target: Array | None = None, mean: float | None = None) -> Axes:
    """One marginal (n,) as bars over the cells' numbers. axis: 0, 1, 2 for x, y, z. target: (n,) as an outline.

    mean: where the expectation lies, in cells.
    """
    ax, value = axes(ax), array(values).astype(float)
    if value.ndim != 1 or axis not in (0, 1, 2):
        raise ValueError(f"marginal: got shape {value.shape} and axis {axis}, expected (n,) and 0, 1 or 2")
    tone = (COLOURS["quarter"], COLOURS["second"], COLOURS["argmax"])[axis]
    ax.bar(np.arange(len(value)), value, width=0.86, color=tone, alpha=0.75, linewidth=0, zorder=2)
    if target is not None:
        ax.stairs(array(target).astype(float), np.arange(len(value) + 1) - 0.5, color=INK, linewidth=1.4, zorder=3)
    if mean is not None:
        ax.axvline(mean, color=INK, linewidth=1.3, linestyle=(0, (3, 2)), zorder=4)
    ax.set(xlabel=f"{'xyz'[axis]} (cells)", xlim=(-0.6, len(value) - 0.4))
    return ax


# -- a figure that turns -----------------------------------------------------------------------------------------------

#: Colours are the book's variables where a page defines them, with a fallback for notebooks.
STYLE = """
.turn3d{max-width:46rem}.turn3d .stage{display:flex;flex-wrap:wrap;gap:.4rem 1.2rem;align-items:center}
.turn3d svg{flex:1 1 15rem;max-width:24rem;min-width:13rem;height:auto;cursor:grab;touch-action:pan-y;
background:transparent}.turn3d line{stroke-width:3.4;stroke-linecap:round}.turn3d .left{stroke:var(--hot,#d07a00)}
.turn3d .right{stroke:var(--c-sign,#1a6fd0)}.turn3d .middle{stroke:var(--ink,#59626e)}
.turn3d .grey{stroke:var(--pst-color-text-muted,#8a8f98);stroke-width:1.7;stroke-dasharray:4 3}
.turn3d .side{flex:1 1 13rem;font-family:var(--sans,sans-serif);font-size:.88rem}
.turn3d .side img{width:5.5rem!important;height:5.5rem!important;margin:0 0 .4rem!important;image-rendering:auto}
.turn3d .side label{display:flex;gap:.5rem;align-items:center;margin:.25rem 0}
.turn3d .side input{flex:1;min-width:5rem;accent-color:var(--pst-color-primary,#24558f)}
.turn3d output{min-width:3rem;text-align:right;font-variant-numeric:tabular-nums}
.turn3d select,.turn3d button{font:inherit;color:inherit;background:transparent;border:1px solid currentColor;
border-radius:6px;padding:.12rem .55rem}.turn3d select option{color:#1b2430;background:#fbfaf7}
.turn3d .buttons{display:flex;flex-wrap:wrap;gap:.4rem;margin:.4rem 0}.turn3d button{cursor:pointer}
.turn3d :is(button,input,select):focus-visible{outline:3px solid var(--pst-color-link-hover,#a4470f);outline-offset:2px}
.turn3d .side p{margin:.3rem 0;font-size:.82rem;color:var(--pst-color-text-muted,inherit)}
@media print{.turn3d .side label,.turn3d .buttons{display:none}}
""".strip().replace("\n", "")

#: Moves the lines that the page came with; makes none and asks for nothing.
SCRIPT = """
function(name,alt){const root=document.getElementById(name);if(!root||root.dataset.ready)return;
root.dataset.ready="1";const data=JSON.parse(root.querySelector('script[type="application/json"]').textContent);
const svg=root.querySelector("svg"),group=svg.querySelector("g"),lines=[...group.children];
const image=root.querySelector("img"),menu=root.querySelector("select"),inputs={};
root.querySelectorAll("input").forEach(e=>{inputs[e.dataset.name]=e;});
let person=0,yaw=data.view[0],pitch=data.view[1];function turned(p){const a=yaw*Math.PI/180,b=pitch*Math.PI/180;
const x=p[0]*Math.cos(a)+p[2]*Math.sin(a),z=p[2]*Math.cos(a)-p[0]*Math.sin(a);
return[x,p[1]*Math.cos(b)-z*Math.sin(b),z*Math.cos(b)+p[1]*Math.sin(b)];}function draw(){
const who=data.people[person],kinds=who.truth?[who.truth,who.points]:[who.points],n=data.bones.length,order=[];
kinds.forEach((pose,k)=>{const flat=pose.map(turned);data.bones.forEach(([a,b],i)=>{const line=lines[k*n+i];
[["x1",a,0],["y1",a,1],["x2",b,0],["y2",b,1]].forEach(([key,j,axis])=>line.setAttribute(key,(100*flat[j][axis]).toFixed(1)));
order.push([kinds.length>1&&k===0?9:flat[a][2]+flat[b][2],line]);});});
order.sort((p,q)=>q[0]-p[0]).forEach(([,line])=>group.appendChild(line));
const said=Math.round(yaw)+" degrees to the right, "+Math.round(pitch)+" degrees up";
svg.setAttribute("aria-label",alt+" "+who.title+", seen from "+said+".");
Object.entries({yaw,pitch}).forEach(([key,v])=>{inputs[key].value=v;
inputs[key].nextElementSibling.textContent=Math.round(v)+"\\u00b0";});root.turned={person,yaw,pitch};}
const clamp=(v,low,high)=>Math.min(high,Math.max(low,v));
Object.entries(inputs).forEach(([key,e])=>e.addEventListener("input",()=>{
if(key==="yaw")yaw=Number(e.value);else pitch=Number(e.value);draw();}));
root.querySelectorAll("button").forEach(e=>e.addEventListener("click",()=>{
yaw=Number(e.dataset.yaw);pitch=Number(e.dataset.pitch);draw();}));if(menu)menu.addEventListener("change",()=>{
person=Number(menu.value);if(image)image.src=data.people[person].image;draw();});let last=null;
svg.addEventListener("pointerdown",e=>{last=[e.clientX,e.clientY];svg.setPointerCapture(e.pointerId);});
svg.addEventListener("pointerup",()=>{last=null;});svg.addEventListener("pointercancel",()=>{last=null;});
svg.addEventListener("pointermove",e=>{if(!last)return;yaw-=0.6*(e.clientX-last[0]);if(yaw>180)yaw-=360;
if(yaw<-180)yaw+=360;if(e.pointerType==="mouse")pitch=clamp(pitch+0.5*(e.clientY-last[1]),-30,90);
last=[e.clientX,e.clientY];draw();});draw();}
""".strip()


class Turnable:
    """HTML that shows people in space and lets the reader turn them; nothing is fetched. See `turnable`."""

    def __init__(self, markup: str, text: str) -> None:
        self.markup, self.text = markup, text

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return self.markup


def _thumbnail(image: Array) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.round(255 * pixels(image)).astype(np.uint8)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def turnable(
    people: Sequence[tuple[str, Array, Array | None]],
    bones: Bones,
    alt: str,
    caption: str = "",
    images: Sequence[Array] | None = None,
    view: tuple[float, float] = (35.0, 12.0),
) -> Turnable:
    """A figure of people in space that turns under sliders, buttons or a finger, in either theme, without a network.

    people: (title, points (J, 3), truth (J, 3) or None), one after another by a menu. alt: what it shows, for readers
    who do not see it. images: a picture (3, H, W) of each. Without JavaScript the first person shows at `view`.
    """
    if not people:
        raise ValueError("turnable: got no people")
    if not alt.strip():
        raise ValueError("turnable: got an empty alt, expected a sentence that says what the figure shows")
    if images is not None and len(images) != len(people):
        raise ValueError(f"turnable: got {len(images)} images for {len(people)} people")
    cast = []
    for i, (title, points, truth) in enumerate(people):
        poses = [_pose("turnable", points, bones), *([] if truth is None else [_pose("turnable", truth, bones)])]
        base = poses[-1]
        middle = (base.min(0) + base.max(0)) / 2
        reach = 1.1 * max(float(np.linalg.norm(pose - middle, axis=-1).max()) for pose in poses)
        unit = [np.round((pose - middle) / reach, 4).tolist() for pose in poses]
        picture = {} if images is None else {"image": _thumbnail(images[i])}
        cast.append({"title": title, "points": unit[0], "truth": unit[1] if truth is not None else None, **picture})
    tints = ["middle" if len(s) != 1 else s.pop() for s in (_sides(bones, a, b) for a, b in bones.bones)]
    data = {"people": cast, "bones": [list(b) for b in bones.bones], "view": list(view)}
    text = json.dumps(data, separators=(",", ":"))
    name = "turn-" + hashlib.sha256(text.encode()).hexdigest()[:10]
    first: Any = cast[0]
    kinds = (["truth"] if first["truth"] is not None else []) + ["points"]
    lines = []
    for kind in kinds:
        flat = (100 * turned(np.array(first[kind]), *view)).round(1)
        for (j, k), side in zip(bones.bones, tints, strict=True):
            (x1, y1), (x2, y2) = flat[j, :2], flat[k, :2]
            tone = "grey" if kind == "truth" else side
            lines.append(f'<line class="{tone}" x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" />')
    options = "".join(f'<option value="{i}">{html.escape(p["title"])}</option>' for i, p in enumerate(cast))
    menu = f'<label>Person <select aria-label="Person">{options}</select></label>' if len(cast) > 1 else ""
    shot = f'<img src="{first["image"]}" alt="The picture that the pose belongs to">' if images is not None else ""
    both = "Colour: predicted. Grey: true." if first["truth"] is not None else ""
    sliders = "".join(
        f'<label>{title} <input type="range" data-name="{key}" min="{low}" max="{high}" step="1" value="{value:g}">'
        f"<output>{value:g}°</output></label>"
        for title, key, low, high, value in (("Turn", "yaw", -180, 180, view[0]), ("Tilt", "pitch", -30, 90, view[1]))
    )
    buttons = "".join(
        f'<button type="button" data-yaw="{v[0]:g}" data-pitch="{v[1]:g}">{k.capitalize()}</button>'
        for k, v in VIEWS.items()
    )
    legend = f"<p>Left limbs orange, right limbs blue. {both} Drag the figure, or use the sliders and buttons.</p>"
    markup = (
        f'<figure class="turn3d" id="{name}"><style>{STYLE}</style><div class="stage">'
        f'<svg viewBox="-108 -108 216 216" role="img" aria-label="{html.escape(alt)}"><g>{"".join(lines)}</g></svg>'
        f'<div class="side">{shot}{menu}{sliders}<div class="buttons">{buttons}</div>{legend}</div></div>'
        + (f"<figcaption>{html.escape(caption)}</figcaption>" if caption else "")
        + f'<script type="application/json">{_safe(text)}</script>'
        f"<script>({SCRIPT})({json.dumps(name)},{_safe(json.dumps(alt))});</script></figure>"
    )
    return Turnable(markup, f"{alt} ({len(cast)} people; a figure to turn)")


def _safe(text: str) -> str:
    """JSON that cannot end the script element it stands in."""
    return text.replace("<", "\\u003c")


def _sides(bones: Bones, a: int, b: int) -> set[str]:
    return {_side(bones.joints[j]) for j in (a, b)} - {"middle"}
