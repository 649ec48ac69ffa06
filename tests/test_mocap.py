"""BVH files written here in miniature: the reader, forward kinematics, the figures' poses, the pack; the real clips."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from real_data import real
from scipy.spatial.transform import Rotation

from coordreg.data import cache_file
from coordreg.data.bvh import UNIT, Motion, forward, read_bvh
from coordreg.data.dice import Dice
from coordreg.data.figures import Figures
from coordreg.data.mocap import (
    ACKNOWLEDGMENT,
    Mocap,
    body_frame,
    find_pack,
    head_pitch,
    pack_mocap,
    read_pack,
    resize,
    to_figure,
    to_h36m,
)
from coordreg.data.poses import LOWEST, Actions, proportions
from coordreg.data.skeletons import FIGURE, H36M17
from coordreg.spec import describe, rebuild

AT = {joint: j for j, joint in enumerate(FIGURE.joints)}
CHAIN = """HIERARCHY
ROOT base
{{
  OFFSET 1.0 2.0 3.0
  CHANNELS 6 Xposition Yposition Zposition {turns}
  JOINT arm
  {{
    OFFSET 0.0 10.0 0.0
    CHANNELS {arm}
    End Site
    {{
      OFFSET 5 0 0
    }}
  }}
}}
MOTION
Frames: {count}
Frame Time: 0.0333333
{rows}
"""
ZYX = "Zrotation Yrotation Xrotation"


def chain(path: Path, *rows: str, turns: str = ZYX, arm: str = "1 Yrotation", count: int | None = None) -> Path:
    """Write a base, an arm 10 units above it, and its end 5 units to the left."""
    n = len(rows) if count is None else count
    path.write_text(CHAIN.format(turns=turns, arm=arm, rows="\n".join(rows), count=n))
    return path


def body(scale: float = 1.0) -> list[tuple[str, str, tuple[float, float, float]]]:
    """(joint, parent, offset) of a person with CMU's joint names, in file units; the left side is at +x."""
    table = [("Hips", "", (0.0, 0.0, 0.0)), ("Spine", "Hips", (0.0, 2.2, 0.0)), ("Spine1", "Spine", (0.0, 2.2, -0.2)),
             ("Neck1", "Spine1", (0.0, 1.4, 0.2)), ("Head", "Neck1", (0.0, 1.5, -0.1)),
             ("*", "Head", (0.0, 1.5, 0.1))]  # fmt: skip
    for side, sign in (("Left", 1.0), ("Right", -1.0)):
        table += [
            (f"{side}UpLeg", "Hips", (1.7 * sign, -1.7, 0.8)), (f"{side}Leg", f"{side}UpLeg", (sign, -6.8, 0.0)),
            (f"{side}Foot", f"{side}Leg", (sign, -7.0, 0.0)), (f"{side}ToeBase", f"{side}Foot", (0.0, -0.5, 2.0)),
            ("*", f"{side}ToeBase", (0.0, 0.0, 1.0)), (f"{side}Arm", "Spine1", (3.2 * sign, 0.8, 0.0)),
            (f"{side}ForeArm", f"{side}Arm", (5.0 * sign, 0.0, 0.0)),
            (f"{side}Hand", f"{side}ForeArm", (3.4 * sign, 0.0, 0.0)),
            (f"{side}HandIndex1", f"{side}Hand", (0.8 * sign, 0.0, 0.0)),
        ]  # fmt: skip
    return [(name, parent, (x * scale, y * scale, z * scale)) for name, parent, (x, y, z) in table]


def write_person(path: Path, frames: int, seed: int, size: float = 1.0, tilt: float = 0.0, without: str = "-") -> Path:
    """A clip of random poses after a T-pose; `tilt` degrees are added to the head's pitch."""
    rng = np.random.default_rng(seed)
    table = body(size)
    order: list[str] = []

    def block(name: str, parent: str, offset: tuple[float, float, float]) -> str:
        if name == "*":
            return f"End Site\n{{\nOFFSET {' '.join(map(str, offset))}\n}}\n"
        order.append(name)
        channels = f"3 {ZYX}" if parent else f"6 Xposition Yposition Zposition {ZYX}"
        inside = "".join(block(*row) for row in table if row[1] == name)
        label = name.replace(without, "Other")
        head = (
            f"{'JOINT' if parent else 'ROOT'} {label}\n{{\nOFFSET {' '.join(map(str, offset))}\nCHANNELS {channels}\n"
        )
        return head + inside + "}\n"

    text = "HIERARCHY\n" + block(*table[0])
    rows = [np.zeros(3 + 3 * len(order))]
    for _ in range(frames):
        angles = rng.uniform(-25, 25, (len(order), 3))
        angles[0] = (0, rng.uniform(-180, 180), 0)
        angles[order.index("Head"), 2] += tilt
        rows.append(np.concatenate([rng.uniform(-50, 50, 3), angles.ravel()]))
    lines = "\n".join(" ".join(f"{v:.5f}" for v in row) for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}MOTION\nFrames: {len(rows)}\nFrame Time: 0.0333333\n{lines}\n")
    return path


@pytest.fixture
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two clips of subject 02 and one of 07, packed; `Mocap` finds it."""
    for name, frames, seed in (("02_01", 9, 1), ("02_03", 5, 2), ("07_01", 7, 3)):
        write_person(tmp_path / "bvh" / name[:2] / f"{name}.bvh", frames, seed)
    out = tmp_path / "made" / "mocap.npz"
    pack_mocap(tmp_path / "bvh", out, every=2)
    monkeypatch.setenv("COORDREG_MOCAP", str(out))
    return out


# -- BVH --------------------------------------------------------------------------------------------------------------


def test_reads_what_is_written(tmp_path: Path) -> None:
    motion = read_bvh(chain(tmp_path / "a.bvh", "0 0 0 0 0 0 0", "1 2 3 4 5 6 7e1", "", count=2))
    assert motion.names == ("base", "arm", "arm end")
    assert motion.parents == (-1, 0, 1)
    assert motion.offsets.tolist() == [[1, 2, 3], [0, 10, 0], [5, 0, 0]]
    assert motion.channels == (("Xposition", "Yposition", "Zposition", *ZYX.split()), ("Yrotation",), ())
    assert motion.frames.tolist() == [[0] * 7, [1, 2, 3, 4, 5, 6, 70]]
    assert motion.frame_time == 0.0333333


@pytest.mark.parametrize(
    ("row", "arm", "end"),
    [
        ("0 0 0 0 0 0 0", (1, 12, 3), (6, 12, 3)),
        ("10 20 30 0 0 0 0", (11, 32, 33), (16, 32, 33)),
        ("0 0 0 90 0 0 0", (-9, 2, 3), (-9, 7, 3)),  # z: up goes to the right, left goes up
        ("0 0 0 0 90 0 0", (1, 12, 3), (1, 12, -2)),  # y: left goes to the back
        ("0 0 0 0 0 90 0", (1, 2, 13), (6, 2, 13)),  # x: up goes to the front
        ("0 0 0 0 0 90 90", (1, 2, 13), (1, 7, 13)),  # the arm's own y is the world's z
    ],
)
def test_chain_by_hand(tmp_path: Path, row: str, arm: tuple[int, ...], end: tuple[int, ...]) -> None:
    motion = read_bvh(chain(tmp_path / "a.bvh", row))
    expected = torch.tensor([[(1, 2, 3), arm, end]], dtype=torch.float64)
    if row.startswith("10"):
        expected[0, 0] += torch.tensor([10, 20, 30])
    torch.testing.assert_close(forward(motion, scale=1.0), expected)
    torch.testing.assert_close(forward(motion), expected * 0.056444, rtol=1e-4, atol=1e-4)


def test_channel_order_matters(tmp_path: Path) -> None:
    """Rz Ry Rx and Rx Ry Rz of (90, 0, 90): "up" goes first to the front and stays, or to the right and stays."""
    first = read_bvh(chain(tmp_path / "a.bvh", "0 0 0 90 0 90 0"))
    second = read_bvh(chain(tmp_path / "b.bvh", "0 0 0 90 0 90 0", turns="Xrotation Yrotation Zrotation"))
    torch.testing.assert_close(forward(first, 1.0)[0, 1], torch.tensor([1, 2, 13], dtype=torch.float64))
    torch.testing.assert_close(forward(second, 1.0)[0, 1], torch.tensor([-9, 2, 3], dtype=torch.float64))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_forward_against_scipy(seed: int) -> None:
    """A random tree with channels in random order and number, one frame and joint after another."""
    rng = np.random.default_rng(seed)
    n, t = int(rng.integers(2, 7)), 4
    parents = [-1, *(int(rng.integers(0, j)) for j in range(1, n))]
    channels = []
    for j in range(n):
        turns = [f"{a}rotation" for a in rng.permutation(list("XYZ"))[: rng.integers(0, 4)]]
        moves = [f"{a}position" for a in rng.permutation(list("XYZ"))] if j == 0 else []
        channels.append(tuple(rng.permutation(moves + turns)))
    offsets = rng.normal(size=(n, 3))
    frames = rng.uniform(-180, 180, (t, sum(map(len, channels))))
    names = tuple(f"j{j}" for j in range(n))
    motion = Motion(
        names, tuple(parents), torch.tensor(offsets), tuple(map(tuple, channels)), torch.tensor(frames), 0.1
    )
    found = forward(motion, scale=0.5)
    assert found.shape == (t, n, 3)
    for i in range(t):
        values = iter(frames[i])
        places, turned = [], []
        for j in range(n):
            local, step = Rotation.identity(), offsets[j].copy()
            pairs = [(c, next(values)) for c in channels[j]]
            for c, v in pairs:
                if c.endswith("position"):
                    step["XYZ".index(c[0])] += v
            axes = "".join(c[0] for c, _ in pairs if c.endswith("rotation"))
            if axes:  # capitals: each about the axes as turned so far
                local = Rotation.from_euler(axes, [v for c, v in pairs if c.endswith("rotation")], degrees=True)
            p = parents[j]
            places.append(step if p < 0 else places[p] + turned[p].apply(step))
            turned.append(local if p < 0 else turned[p] * local)
        np.testing.assert_allclose(found[i].numpy(), 0.5 * np.array(places), atol=1e-9)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.bvh"
    good = "0 0 0 0 0 0 0"
    cases = {
        r"frame 1 of 2 has 3 numbers, expected 7, one a channel; .*cut short": lambda: chain(path, good, "1 2 3"),
        r"frame 0 of 1 has 8 numbers, expected 7": lambda: chain(path, good + " 9"),
        r"promises 5 frames and holds 2": lambda: chain(path, good, good, count=5),
        r"promises 1 frames and holds 2": lambda: chain(path, good, good, count=1),
        r"frame 1: could not convert string to float: 'x'": lambda: chain(path, good, "0 0 0 x 0 0 0"),
        r"frame 0 has 7 numbers, expected 7 finite": lambda: chain(path, "0 0 0 nan 0 0 0"),
        r"arm has the channel 'Wrotation', expected 1 of Xposition": lambda: chain(path, good, arm="1 Wrotation"),
        r"arm has the channel 'End', expected 2 of": lambda: chain(path, good, arm="2 Yrotation"),
        r"the hierarchy has 'Xrotation' after": lambda: chain(path, good, arm="1 Yrotation Xrotation"),
        r"the hierarchy has 'CHANNELS' after": lambda: chain(path, good, arm="many Yrotation"),
    }  # fmt: skip
    for message, write in cases.items():
        write()
        with pytest.raises(ValueError, match=message):
            read_bvh(path)
    whole = chain(path, good).read_text()
    edits = {
        r"no line MOTION": whole.replace("MOTION", ""),
        r"begins with \['<html>'\], expected HIERARCHY": "<html> not found\nMOTION\n",
        r"the hierarchy ends inside \['base'\]": whole.replace("}\nMOTION", "MOTION"),
        r"OFFSET of arm has 2 numbers|OFFSET of arm: could not": whole.replace("0.0 10.0 0.0", "0.0 10.0"),
        r"two joints 'base'": whole.replace("JOINT arm", "JOINT base"),
        r"after MOTION came .*'Frame', 'Time:'.*expected Frames:": whole.replace("Frames: 1\n", ""),
        r"Frame Time: could not convert": whole.replace("0.0333333", "fast"),
    }
    for message, text in edits.items():
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_bvh(path)
    path.write_bytes(whole.encode()[: whole.index("End Site")])
    with pytest.raises(ValueError, match="no line MOTION"):
        read_bvh(path)


# -- joints -----------------------------------------------------------------------------------------------------------


def test_t_pose(tmp_path: Path) -> None:
    """Facing +z, left at +x, every joint where the offsets say."""
    motion = read_bvh(write_person(tmp_path / "a.bvh", 4, 0))
    pose = to_figure(motion, drop_first=False)
    assert pose.shape == (5, 26, 3)
    at = {joint: pose[0, j] for joint, j in AT.items()}
    np.testing.assert_allclose(at["l_elbow"], UNIT * np.array([8.2, 5.2, -0.2]), atol=1e-6)
    np.testing.assert_allclose(at["r_ankle"], UNIT * np.array([-3.7, -15.5, 0.8]), atol=1e-6)
    np.testing.assert_allclose(at["l_toe"], UNIT * np.array([3.7, -16.0, 3.8]), atol=1e-6)
    np.testing.assert_allclose(at["pelvis"], UNIT * np.array([0, -1.7, 0.8]), atol=1e-6)
    np.testing.assert_allclose(at["thorax"], UNIT * np.array([0, 5.2, -0.2]), atol=1e-6)
    np.testing.assert_allclose(at["upper_neck"], UNIT * np.array([0, 7.3, -0.1]), atol=1e-6)
    stature = UNIT * (np.hypot(1, 6.8) + np.hypot(1, 7)) / (0.243 + 0.240)
    assert np.isclose((at["l_hand"] - at["l_wrist"])[0], 0.094 * stature, atol=1e-6)
    assert np.isclose((at["head_top"] - at["upper_neck"])[1], 0.132 * stature, atol=1e-6)
    assert np.isclose((at["nose"] - at["upper_neck"])[2], 0.62 * 0.132 * stature, atol=1e-6)
    assert at["l_ear"][0] > at["l_eye"][0] > at["nose"][0] > at["r_eye"][0] > at["r_ear"][0]


def test_first_frame_is_dropped(tmp_path: Path) -> None:
    motion = read_bvh(write_person(tmp_path / "a.bvh", 4, 0))
    for of, n in ((to_figure, 26), (to_h36m, 17)):
        assert of(motion).shape == (4, n, 3)
        torch.testing.assert_close(of(motion), of(motion, drop_first=False)[1:])
    assert len(head_pitch(motion)) == 4


def test_h36m_joints_are_the_recorded_ones(tmp_path: Path) -> None:
    motion = read_bvh(write_person(tmp_path / "a.bvh", 3, 5))
    names = ("Hips RightUpLeg RightLeg RightFoot LeftUpLeg LeftLeg LeftFoot Spine Neck1 Head Head_end "
             "LeftArm LeftForeArm LeftHand RightArm RightForeArm RightHand")  # fmt: skip
    where = [motion.names.index(n.replace("_", " ")) for n in names.split()]
    torch.testing.assert_close(to_h36m(motion, scale=2.0), forward(motion, 2.0)[1:, where])
    assert H36M17.joints[8:11] == ("thorax", "nose", "head_top")
    other = read_bvh(write_person(tmp_path / "b.bvh", 3, 5, without="Neck1"))
    other = other._replace(names=tuple("Neck" if n == "Other" else n for n in other.names))
    torch.testing.assert_close(to_h36m(other, scale=2.0), to_h36m(motion, scale=2.0))


def test_the_face_follows_the_head_and_level_raises_it(tmp_path: Path) -> None:
    straight = read_bvh(write_person(tmp_path / "a.bvh", 3, 5))
    nodding = read_bvh(write_person(tmp_path / "b.bvh", 3, 5, tilt=20.0))
    one, two = to_figure(straight), to_figure(nodding)
    torch.testing.assert_close(one[:, : AT["head_top"]], two[:, : AT["head_top"]])
    assert (two[:, AT["nose"], 1] < one[:, AT["nose"], 1]).all()  # a turn about +x takes the front down
    torch.testing.assert_close(to_figure(nodding, level=20.0), one)
    upright = straight._replace(frames=torch.zeros_like(straight.frames))
    column = [(n, c) for n, cs in zip(upright.names, upright.channels, strict=True) for c in cs]
    upright.frames[:, column.index(("Head", "Xrotation"))] = 33.0
    torch.testing.assert_close(head_pitch(upright), torch.full((3,), 33.0, dtype=torch.float64))


def test_unknown_joints_are_named(tmp_path: Path) -> None:
    motion = read_bvh(write_person(tmp_path / "a.bvh", 2, 0, without="LeftArm"))
    for of in (to_figure, to_h36m):
        with pytest.raises(ValueError, match=r"the BVH has no LeftArm; it has Hips, .*Other.*rename"):
            of(motion)
    with pytest.raises(ValueError, match=r"the BVH has no Hips, Spine, .*; it has base, arm, arm end"):
        to_h36m(read_bvh(chain(tmp_path / "b.bvh", "0 0 0 0 0 0 0")))


def check_body_frame(joints: torch.Tensor) -> None:
    """The promises of a source of poses."""
    torch.testing.assert_close(joints[:, AT["pelvis"], [0, 2]], torch.zeros(len(joints), 2), atol=1e-5, rtol=0)
    across = joints[:, AT["l_hip"]] - joints[:, AT["r_hip"]]
    torch.testing.assert_close(across[:, 2], torch.zeros(len(joints)), atol=1e-5, rtol=0)
    assert (across[:, 0] > 0).all()
    clearance = torch.stack([joints[:, AT[j], 1] - below for j, below in LOWEST.items()]).amin(0)
    torch.testing.assert_close(clearance, torch.zeros(len(joints)), atol=1e-5, rtol=0)


def test_body_frame(tmp_path: Path) -> None:
    raw = to_figure(read_bvh(write_person(tmp_path / "a.bvh", 6, 4)))
    joints = body_frame(raw)
    check_body_frame(joints.float())
    torch.testing.assert_close(torch.cdist(joints, joints), torch.cdist(raw, raw))  # a rigid motion
    up = raw - raw[:, :1]
    torch.testing.assert_close((joints - joints[:, :1])[..., 1], up[..., 1])  # about the vertical
    # no mirror image: toes and nose of these mild poses are in front
    assert (joints[:, AT["l_toe"], 2] > joints[:, AT["l_ankle"], 2]).all()
    torch.testing.assert_close(body_frame(joints), joints)


def test_resize_keeps_directions_and_sets_lengths() -> None:
    keys = torch.arange(5)
    joints = Actions()(Dice(keys, "pose"))
    sizes = proportions(Dice(keys, "others"))
    new = resize(joints, sizes)

    def bone(x: torch.Tensor, a: str, b: str) -> torch.Tensor:
        return x[:, AT[b]] - x[:, AT[a]]

    lengths = {("l_hip", "l_knee"): "thigh", ("r_knee", "r_ankle"): "shin", ("r_shoulder", "r_elbow"): "upper_arm",
               ("l_elbow", "l_wrist"): "forearm", ("pelvis", "thorax"): "trunk", ("thorax", "upper_neck"): "neck",
               ("pelvis", "r_hip"): "hips", ("thorax", "l_shoulder"): "shoulders",
               ("l_wrist", "l_hand"): "hand"}  # fmt: skip
    for (a, b), name in lengths.items():
        torch.testing.assert_close(bone(new, a, b).norm(dim=-1), sizes[name])
    for a, b in [*lengths, ("r_ankle", "r_toe"), ("upper_neck", "head_top"), ("l_eye", "r_ear"), ("nose", "l_ear")]:
        cosine = torch.nn.functional.cosine_similarity(bone(new, a, b), bone(joints, a, b))
        torch.testing.assert_close(cosine, torch.ones(5), atol=1e-4, rtol=0)
    torch.testing.assert_close(bone(new, "upper_neck", "head_top").norm(dim=-1), sizes["head"])
    # ankle to toe as `articulate` has it: 0.78 of the foot to the front and 0.22 down
    torch.testing.assert_close(bone(new, "l_ankle", "l_toe").norm(dim=-1), sizes["foot"] * (0.22**2 + 0.78**2) ** 0.5,
                               rtol=1e-3, atol=0)  # fmt: skip


# -- pack and source --------------------------------------------------------------------------------------------------


def test_pack_round_trip(pack: Path, tmp_path: Path) -> None:
    header, poses = read_pack(pack)
    assert header["clips"] == [["02_01", "02", 5], ["02_03", "02", 3], ["07_01", "07", 4]]
    assert header["acknowledgment"] == ACKNOWLEDGMENT
    assert "NSF EIA-0196217" in ACKNOWLEDGMENT
    assert poses.shape == (12, 26, 3)
    motion = read_bvh(tmp_path / "bvh" / "07" / "07_01.bvh")
    expected = body_frame(to_figure(motion, level=header["levels"]["07"])[::2])
    np.testing.assert_allclose(poses[8:] * header["step"], expected, atol=0.6e-4)
    assert abs(float(head_pitch(motion).median()) - header["levels"]["07"] - 5.0) < 0.01
    assert pack_mocap(tmp_path / "bvh", tmp_path / "b.npz", every=2)["sha256"] == header["sha256"]
    assert pack.read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert [p.name for p in pack.parent.iterdir()] == ["mocap.npz"]


def test_bad_packs_and_roots(pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pack.read_bytes()
    arrays = dict(np.load(pack))
    for cut in (0, 20, len(data) // 2):
        pack.write_bytes(data[:cut])
        with pytest.raises(ValueError, match=r"cut short or no pack of poses.*pack_mocap"):
            read_pack(pack)
    np.savez(pack, **{**arrays, "poses": arrays["poses"] + 1})
    with pytest.raises(ValueError, match="do not match its hash"):
        Mocap()(Dice(torch.arange(2), "pose"))
    np.savez(pack, **{**arrays, "header": np.array(str(arrays["header"]).replace('"version": 1', '"version": 7'))})
    with pytest.raises(ValueError, match=r"is coordreg-mocap-pack 7, expected coordreg-mocap-pack 1"):
        read_pack(pack)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no \*\.bvh under"):
        pack_mocap(tmp_path / "empty", pack)
    with pytest.raises(ValueError, match="every=0"):
        pack_mocap(tmp_path / "bvh", pack, every=0)
    write_person(tmp_path / "twice" / "a" / "01_01.bvh", 2, 0)
    write_person(tmp_path / "twice" / "b" / "01_01.bvh", 2, 0)
    with pytest.raises(ValueError, match=r"a/01_01\.bvh and .*b/01_01\.bvh, expected each clip's name once"):
        pack_mocap(tmp_path / "twice", pack)
    write_person(tmp_path / "huge" / "01_01.bvh", 3, 0, size=10.0)
    with pytest.raises(ValueError, match=r"01_01\.bvh reaches [\d.]+ m; not in CMU units"):
        pack_mocap(tmp_path / "huge", pack)
    write_person(tmp_path / "short" / "01_01.bvh", 0, 0)
    with pytest.raises(ValueError, match=r"01_01\.bvh has no frame after the T-pose"):
        pack_mocap(tmp_path / "short", pack)
    monkeypatch.delenv("COORDREG_MOCAP")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"no pack of poses at data/mocap.npz.*pack_mocap.*COORDREG_MOCAP"):
        Mocap()(Dice(torch.arange(2), "pose"))
    cache_file.save(tmp_path / "data" / "mocap.npz", arrays)
    assert find_pack() == Path("data/mocap.npz")
    assert Mocap()(Dice(torch.arange(2), "pose")).shape == (2, 26, 3)


@pytest.mark.parametrize("resized", [False, True])
def test_source_of_poses(pack: Path, resized: bool) -> None:
    keys = torch.arange(40)
    source = Mocap(resized=resized)
    joints = source(Dice(keys, "pose"))
    assert joints.shape == (40, 26, 3)
    assert joints.dtype == torch.float32
    check_body_frame(joints)
    torch.testing.assert_close(source(Dice(keys, "pose")), joints, rtol=0, atol=0)
    torch.testing.assert_close(source(Dice(keys[7:9], "pose")), joints[7:9])  # whatever the batch
    thigh = (joints[:, AT["l_hip"]] - joints[:, AT["l_knee"]]).norm(dim=-1)
    if resized:  # bodies of 1.50 to 1.92 m, one a key
        assert 0.243 * 1.50 * 0.97 <= thigh.min() < thigh.max() - 0.05 < 0.243 * 1.92 * 1.03 - 0.05
        assert len(thigh.unique()) == 40
    else:
        torch.testing.assert_close(thigh, torch.full((40,), UNIT * 47.24**0.5), atol=2e-4, rtol=0)
    # never the same pose for all; as many different ones as frames and mirror images allow
    assert len({tuple((row * 100).round().flatten().tolist()) for row in joints}) > 12


def test_which_frames_are_drawn(pack: Path) -> None:
    """As recorded and without mirror images the poses are the pack's, of the clips asked for, each clip alike often."""
    header, raw = read_pack(pack)
    poses = torch.from_numpy(raw * header["step"]).float()

    def rows(source: Mocap) -> torch.Tensor:
        drawn = source(Dice(torch.arange(600), "pose"))
        distance = (drawn[:, None] - poses).flatten(2).norm(dim=-1)
        assert distance.amin(1).max() < 1e-3
        return distance.argmin(1)

    plain = {"resized": False, "mirror": 0}
    assert set(rows(Mocap(subjects=("07",), **plain)).tolist()) == {8, 9, 10, 11}
    assert set(rows(Mocap(clips=("02_03", "07_01"), **plain)).tolist()) == set(range(5, 12))
    assert set(rows(Mocap(clips=("02_03", "07_01"), subjects=("02",), **plain)).tolist()) == {5, 6, 7}
    every = rows(Mocap(**plain))
    assert set(every.tolist()) == set(range(12))
    share = torch.stack([every < 5, (every >= 5) & (every < 8), every >= 8]).double().mean(1)
    assert (share - 1 / 3).abs().max() < 0.07
    flipped = Mocap(clips=("07_01",), resized=False, mirror=1)(Dice(torch.arange(5), "pose"))
    same = Mocap(clips=("07_01",), **plain)(Dice(torch.arange(5), "pose"))
    torch.testing.assert_close(flipped[:, AT["l_wrist"], 0], -same[:, AT["r_wrist"], 0], atol=1e-4, rtol=0)
    torch.testing.assert_close(flipped[:, AT["nose"], 1:], same[:, AT["nose"], 1:], atol=1e-4, rtol=0)


def test_configuration(pack: Path, tmp_path: Path) -> None:
    source = Mocap(subjects=("02", "07"), clips=("02_01",))
    assert rebuild(describe(source)) == source
    assert hash(source) == hash(Mocap(subjects=("02", "07"), clips=("02_01",)))
    assert str(tmp_path) not in repr(source) + str(describe(source))
    header, _ = read_pack(pack)
    assert Mocap(content=header["sha256"][:16])(Dice(torch.arange(2), "pose")).shape == (2, 26, 3)
    for source, message in (
        (Mocap(content="0123"), r"content='0123', but the pack has " + header["sha256"][:16]),
        (Mocap(subjects=("02", "99")), r"no subjects \['99'\], expected some of \['02', '07'\]"),
        (Mocap(clips=("3_1",)), r"no clips \['3_1'\], expected some of \['02_01', '02_03', '07_01'\]"),
        (Mocap(clips=("02_01",), subjects=("07",)), r"no clip of \('02_01',\) is of the subjects \('07',\)"),
    ):
        with pytest.raises(ValueError, match=message):
            source(Dice(torch.arange(2), "pose"))
    with pytest.raises(ValueError, match=r"mirror=1\.5"):
        Mocap(mirror=1.5)


def test_figures_are_drawn_and_cached_by_the_pack(pack: Path, tmp_path: Path) -> None:
    figures = Figures(count=3, size=32, skeleton="h36m17", dims=3, poses=Mocap())
    scene = figures.scene(torch.arange(3))
    assert scene.images.shape == (3, 3, 32, 32)
    assert scene.person.sum((1, 2)).min() > 20
    assert scene.visible.sum() > 20
    assert scene.joints.abs().max() <= 1
    torch.testing.assert_close(figures.scene(torch.arange(3)).images, scene.images)
    before = figures.key()
    store = figures.open(tmp_path / "cache")
    assert store.coords.shape == (3, 17, 3)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    pack_mocap(tmp_path / "bvh", pack, every=1)
    assert figures.key() != before  # other poses, other file
    assert Figures(poses=Mocap(mirror=0)).key() != Figures(poses=Mocap()).key()


# -- the real clips ---------------------------------------------------------------------------------------------------


def real_clips() -> list[Path]:
    """One clip of each subject, where there are any."""
    found = sorted(real("cmu-mocap").rglob("*.bvh"))
    return list({path.name[:2]: path for path in found}.values())


def test_real_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in real_clips():
        motion = read_bvh(path)
        assert len(motion.names) == 31 + 7
        assert motion.frames.shape[1] == 96
        everything = forward(motion)
        assert everything.isfinite().all()
        # the T-pose: toes to the head's end, left at +x, facing +z
        assert 1.42 < float(everything[0, :, 1].max() - everything[0, :, 1].min()) < 1.545
        pose = to_figure(motion, drop_first=False)[0]
        at = dict(zip(FIGURE.joints, pose - pose[AT["pelvis"]], strict=True))
        assert at["l_wrist"][0] > at["l_elbow"][0] > at["l_shoulder"][0] > 0.1 > -0.1 > at["r_shoulder"][0]
        assert at["nose"][2] > at["upper_neck"][2] + 0.1
        assert at["l_toe"][2] > at["l_ankle"][2] + 0.1
        assert at["head_top"][1] > at["thorax"][1] + 0.25
        assert 0.7 < at["pelvis"][1] - at["l_ankle"][1] < 0.95
        joints = body_frame(to_figure(motion))
        check_body_frame(joints.float())
        # bones of limbs have one length a subject
        thigh = (joints[:, AT["l_hip"]] - joints[:, AT["l_knee"]]).norm(dim=-1)
        assert thigh.max() - thigh.min() < 1e-6
        assert 0.35 < thigh[0] < 0.45
    (tmp_path / "bvh").mkdir()
    for path in real_clips()[-4:]:
        (tmp_path / "bvh" / path.name).symlink_to(path)
    pack_mocap(tmp_path / "bvh", tmp_path / "real.npz")
    monkeypatch.setenv("COORDREG_MOCAP", str(tmp_path / "real.npz"))
    joints = Mocap()(Dice(torch.arange(200), "pose"))
    check_body_frame(joints)
    # walking, running and playing people: upright, heads on top, looking ahead rather than down, on their feet
    assert (joints[:, AT["head_top"], 1] - joints[:, AT["pelvis"], 1]).quantile(0.1) > 0.5
    facing = joints[:, AT["nose"]] - 0.5 * (joints[:, AT["l_ear"]] + joints[:, AT["r_ear"]])
    assert facing[:, 2].median() > 0.1
    assert facing[:, 1].median().abs() < 0.06
    feet = joints[:, [AT["l_toe"], AT["r_toe"], AT["l_ankle"], AT["r_ankle"]], 1].amin(1)
    assert (feet < 0.09).all()
