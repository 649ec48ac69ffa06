"""Poses: what a person may do, as ranges of joint angles, and the 3-D joints that follow from them.

Body frame: x to the person's left, y up, z the way the person faces; metres, feet on the plane y = 0. Angles are in
degrees and positive for flexion, abduction and inward turns of the upper arm, for both sides alike.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from coordreg.data.dice import Dice
from coordreg.data.skeletons import FIGURE

_TRUNK = ("lean", "side", "twist", "nod", "look", "lift")
_ARM = ("arm", "out", "turn", "elbow")
_LEG = ("hip", "apart", "open", "knee")
#: Trunk, leading arm (+), other arm (-), leading leg (+), other leg (-).
ANGLES = (*_TRUNK, *(f"{a}{s}" for s in "+-" for a in _ARM), *(f"{a}{s}" for s in "+-" for a in _LEG))

Range = tuple[float | int, float | int]
_REST: dict[str, Range] = {
    "lean": (-4, 8), "side": (-6, 6), "twist": (-12, 12), "nod": (-10, 18), "look": (-30, 30), "lift": (0, 0),
    "arm": (-14, 24), "out": (5, 17), "turn": (0, 45), "elbow": (6, 40),
    "hip": (-6, 10), "apart": (2, 10), "open": (0, 22), "knee": (0, 14),
}  # fmt: skip
#: Actions: weight, and the ranges in degrees that differ from standing at ease ("lift" is in metres).
ACTIONS: dict[str, tuple[float, dict[str, Range]]] = {
    "stand": (1.0, {}),
    "akimbo": (0.6, {"arm": (-30, -8), "out": (34, 48), "turn": (55, 80), "elbow": (85, 112)}),
    "gesture": (1.2, {"arm": (15, 65), "out": (5, 35), "turn": (-10, 60), "elbow": (50, 125), "twist": (-18, 18)}),
    "walk": (1.6, {"lean": (0, 9), "arm+": (-34, -12), "arm-": (14, 38), "elbow": (10, 45), "hip+": (18, 34),
                   "hip-": (-24, -10), "knee+": (4, 24), "knee-": (14, 45), "apart": (0, 5)}),
    "run": (1.4, {"lean": (8, 22), "arm+": (-52, -22), "arm-": (20, 58), "elbow": (75, 112), "hip+": (38, 80),
                  "hip-": (-28, -6), "knee+": (55, 110), "knee-": (15, 75), "apart": (0, 6), "lift": (0, 0.1)}),
    "reach": (1.2, {"lean": (0, 22), "arm+": (60, 130), "out+": (0, 40), "elbow+": (0, 50), "twist": (-25, 25),
                    "look": (-40, 40)}),
    "point": (0.9, {"out+": (65, 105), "arm+": (-15, 45), "elbow+": (0, 35), "elbow-": (10, 100)}),
    "wave": (0.9, {"out+": (75, 120), "arm+": (-10, 30), "turn+": (-95, -60), "elbow+": (45, 110)}),
    "cheer": (1.0, {"arm": (130, 172), "out": (5, 35), "elbow": (0, 60), "nod": (-25, 5), "apart": (3, 16)}),
    "spread": (0.8, {"out": (55, 115), "arm": (-10, 25), "elbow": (0, 45), "apart": (5, 22), "side": (-14, 14)}),
    "crouch": (0.9, {"lean": (22, 46), "arm": (35, 95), "elbow": (10, 80), "hip": (70, 105), "knee": (85, 125),
                     "apart": (6, 22)}),
    "sit": (0.9, {"lean": (-6, 16), "arm": (5, 45), "elbow": (20, 85), "hip": (74, 92), "knee": (70, 98),
                  "apart": (3, 16)}),
    "bend": (0.9, {"lean": (40, 85), "arm": (45, 95), "out": (0, 25), "elbow": (0, 40), "hip": (0, 12),
                   "knee": (5, 35), "apart": (4, 14)}),
    "kick": (0.7, {"lean": (-18, 5), "out": (20, 70), "hip+": (45, 95), "knee+": (0, 55), "hip-": (-8, 8)}),
    "lunge": (0.9, {"lean": (0, 28), "arm+": (-20, 50), "arm-": (10, 100), "out": (10, 70), "hip+": (50, 82),
                    "knee+": (55, 92), "hip-": (-32, -10), "knee-": (8, 40)}),
    "jump": (0.6, {"arm": (60, 165), "out": (10, 60), "hip": (0, 55), "knee": (10, 90), "lift": (0.08, 0.3),
                   "apart": (4, 20)}),
}  # fmt: skip


def _table() -> Float[Tensor, "A P 2"]:
    """Ranges of every action and angle."""
    rows = []
    for _, special in ACTIONS.values():
        both = {**_REST, **special}
        rows.append([special.get(a, both[a.rstrip("+-")]) for a in ANGLES])
    return torch.tensor(rows)


def turn(axis: int, degrees: Tensor) -> Tensor:
    """(...) angles -> (..., 3, 3) rotations about x, y or z."""
    angle = torch.deg2rad(degrees)
    c, s = angle.cos(), angle.sin()
    one, zero = torch.ones_like(c), torch.zeros_like(c)
    rows = {
        0: [one, zero, zero, zero, c, -s, zero, s, c],
        1: [c, zero, s, zero, one, zero, -s, zero, c],
        2: [c, -s, zero, s, c, zero, zero, zero, one],
    }[axis]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def _step(frame: Tensor, x: Tensor | float, y: Tensor | float, z: Tensor | float) -> Tensor:
    """The vector (x, y, z) of the local frame (..., 3, 3) in body coordinates."""
    return frame[..., 0] * _col(x) + frame[..., 1] * _col(y) + frame[..., 2] * _col(z)


def _col(x: Tensor | float) -> Tensor | float:
    return x.unsqueeze(-1) if isinstance(x, Tensor) else x


def articulate(angle: dict[str, Tensor], sizes: dict[str, Tensor]) -> Float[Tensor, "B 26 3"]:
    """Forward kinematics: angles in degrees and lengths in metres -> the joints of FIGURE in the body frame.

    angle: trunk angles (B,), limb angles (B, 2) for (left, right). sizes: (B,) by name, see `proportions`.
    """
    s = {k: v.unsqueeze(-1) for k, v in sizes.items()}  # (B, 1) against the two sides
    hand = torch.tensor([1.0, -1.0])  # +x is left
    lean = angle["lean"]
    pelvis_frame = turn(0, 0.45 * lean) @ turn(2, 0.3 * angle["side"]) @ turn(1, 0.25 * angle["twist"])
    chest_frame = turn(0, lean) @ turn(2, angle["side"]) @ turn(1, angle["twist"])
    head_frame = chest_frame @ turn(0, angle["nod"] - 0.5 * lean) @ turn(1, angle["look"])
    pelvis = torch.zeros(len(lean), 3)
    waist = _step(pelvis_frame, 0.0, 0.45 * sizes["trunk"], 0.0)
    thorax = waist + _step(chest_frame, 0.0, 0.55 * sizes["trunk"], 0.0)
    neck = thorax + _step(chest_frame, 0.0, sizes["neck"], 0.12 * sizes["neck"])
    h = sizes["head"]
    face = [(0.0, 1.0, 0.08), (0.0, 0.40, 0.62), (0.16, 0.53, 0.51), (-0.16, 0.53, 0.51),
            (0.345, 0.45, 0.08), (-0.345, 0.45, 0.08)]  # fmt: skip
    top, nose, l_eye, r_eye, l_ear, r_ear = (neck + _step(head_frame, x * h, y * h, z * h) for x, y, z in face)

    hips = _step(pelvis_frame.unsqueeze(1), hand * s["hips"], 0.0, 0.0)
    thigh = turn(2, hand * angle["apart"]) @ turn(0, -angle["hip"]) @ turn(1, hand * angle["open"])
    shin = thigh @ turn(0, angle["knee"])
    knees = hips + _step(thigh, 0.0, -s["thigh"], 0.0)
    ankles = knees + _step(shin, 0.0, -s["shin"], 0.0)
    # the ankle levels the foot as far as it can bend
    rise = torch.rad2deg(shin[..., 1, 2].clamp(-1, 1).asin())
    foot = shin @ turn(0, rise.clamp(-30, 42))
    toes = ankles + _step(foot, 0.0, -0.22 * s["foot"], 0.78 * s["foot"])

    upright = chest_frame.unsqueeze(1)
    shoulders = thorax.unsqueeze(1) + _step(upright, hand * s["shoulders"], 0.0, 0.0)
    # raising the arm lifts the shoulder a little
    raised = (angle["out"].abs() + angle["arm"].clamp_min(0) - 60).clamp(0, 110) / 110
    shoulders = shoulders + _step(upright, 0.0, 0.05 * raised, 0.0)
    upper = upright @ turn(2, hand * angle["out"]) @ turn(0, -angle["arm"]) @ turn(1, -hand * angle["turn"])
    lower = upper @ turn(0, -angle["elbow"])
    elbows = shoulders + _step(upper, 0.0, -s["upper_arm"], 0.0)
    wrists = elbows + _step(lower, 0.0, -s["forearm"], 0.0)
    hands = wrists + _step(lower @ turn(0, torch.full_like(rise, -12.0)), 0.0, -s["hand"], 0.0)

    thorax = shoulders.mean(1)
    named = {
        "pelvis": pelvis, "thorax": thorax, "upper_neck": neck, "head_top": top, "nose": nose, "l_eye": l_eye,
        "r_eye": r_eye, "l_ear": l_ear, "r_ear": r_ear, "spine": 0.5 * (pelvis + thorax),
    }  # fmt: skip
    sides = {"hip": hips, "knee": knees, "ankle": ankles, "toe": toes, "shoulder": shoulders, "elbow": elbows,
             "wrist": wrists, "hand": hands}  # fmt: skip
    for name, both in sides.items():
        named["l_" + name], named["r_" + name] = both[:, 0], both[:, 1]
    return torch.stack([named[j] for j in FIGURE.joints], 1)


#: Lengths as shares of the stature (Drillis and Contini, 1966, rounded) and how much they vary.
PROPORTIONS = {
    "trunk": (0.288, 0.03), "neck": (0.062, 0.08), "head": (0.132, 0.04), "hips": (0.054, 0.06),
    "shoulders": (0.108, 0.08), "upper_arm": (0.176, 0.04), "forearm": (0.150, 0.04), "hand": (0.094, 0.04),
    "thigh": (0.243, 0.03), "shin": (0.240, 0.03), "foot": (0.148, 0.05),
}  # fmt: skip


def proportions(dice: Dice) -> dict[str, Float[Tensor, " B"]]:
    """Lengths in metres of people between 1.50 and 1.92 m."""
    stature = dice.one(1.50, 1.92)
    spread = dice.uniform(len(PROPORTIONS), -1, 1)
    return {k: stature * share * (1 + vary * spread[:, i]) for i, (k, (share, vary)) in enumerate(PROPORTIONS.items())}


@dataclass(frozen=True)
class Actions:
    """The default source of poses: a mix of everyday actions with angles drawn from their ranges.

    names: the actions to draw from; () means all. Called with dice of B keys it returns the (B, 26, 3) joints of
    `FIGURE` in metres in the body frame, ground at y = 0. Anything with that signature can take its place.
    """

    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in ACTIONS:
                raise ValueError(f"Actions: got {name!r}, expected some of {', '.join(ACTIONS)}")

    def __call__(self, dice: Dice) -> Float[Tensor, "B 26 3"]:
        """Draw one pose a key."""
        weights = [w if not self.names or name in self.names else 0.0 for name, (w, _) in ACTIONS.items()]
        ranges = _table()[dice.choice(weights)]
        u = (dice.uniform(len(ANGLES)) + dice.uniform(len(ANGLES))) / 2  # triangular: extremes are rare
        drawn = ranges[..., 0] + (ranges[..., 1] - ranges[..., 0]) * u
        column = {a: drawn[:, i] for i, a in enumerate(ANGLES)}
        lead = dice.chance(0.5)
        angle = {a: column[a] for a in _TRUNK}
        for a in _ARM + _LEG:
            pair = torch.stack([column[a + "+"], column[a + "-"]], -1)
            angle[a] = torch.where(lead[:, None], pair, pair.flip(-1))
        joints = articulate(angle, proportions(dice))
        low = joints[:, [FIGURE.joints.index(j) for j in LOWEST], 1] - torch.tensor(list(LOWEST.values()))
        floor = low.amin(1) - angle["lift"]
        joints[..., 1] = joints[..., 1] - floor.unsqueeze(-1)
        return joints


#: How far below these joints the body still reaches, in metres.
LOWEST = {
    "l_toe": 0.035, "r_toe": 0.035, "l_ankle": 0.085, "r_ankle": 0.085, "l_knee": 0.06, "r_knee": 0.06,
    "l_hand": 0.03, "r_hand": 0.03, "pelvis": 0.13,
}  # fmt: skip
