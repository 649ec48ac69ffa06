"""Drawn figures: determinism, labels against pixels, knobs, cache."""

import math

import pytest
import torch

from coordreg.coords import apply_affine, flip_coords, flip_images, to_pixels
from coordreg.data.augment import Augment
from coordreg.data.dice import Dice, mix
from coordreg.data.figures import DEPTH, Figures
from coordreg.data.poses import ACTIONS, ANGLES, Actions, articulate
from coordreg.data.skeletons import COCO17, FIGURE, H36M17, LSP14, MPII16
from coordreg.spec import describe, digest, rebuild

FEW = torch.arange(24)


@pytest.fixture(scope="module")
def scene():
    return Figures(split="test", size=96).scene(FEW)


def at(maps, joints):
    """The value of (B, S, S) maps at the pixel that contains a normalised joint."""
    size = maps.shape[-1]
    cell = to_pixels(joints, (size, size)).round().long().clamp(0, size - 1)
    return maps[torch.arange(len(maps))[:, None], cell[..., 1], cell[..., 0]]


# -- random numbers ---------------------------------------------------------------------------------------------------


def test_mix_is_a_bijection_and_scatters():
    numbers = mix(torch.arange(1 << 16))
    assert len(numbers.unique()) == 1 << 16
    assert int(numbers.min()) >= 0
    assert int(numbers.max()) < 1 << 32
    flips = mix(torch.arange(4096)) ^ mix(torch.arange(4096) ^ 1)
    assert 0.45 < sum((flips >> b & 1).float().mean() for b in range(32)) / 32 < 0.55


def test_dice_are_uniform_and_streams_independent():
    keys = mix(torch.arange(20000))
    u, v = Dice(keys, "one").uniform(2), Dice(keys, "two").uniform(2)
    assert abs(float(u.mean()) - 0.5) < 0.01
    assert abs(float(u.var()) - 1 / 12) < 0.002
    c = torch.corrcoef(torch.cat([u, v], 1).T) - torch.eye(4)
    assert float(c.abs().max()) < 0.03
    z = Dice(keys, "three").normal(1)
    assert abs(float(z.std()) - 1) < 0.02
    share = torch.bincount(Dice(keys, "four").choice([1, 0, 3]), minlength=3) / 20000
    torch.testing.assert_close(share, torch.tensor([0.25, 0.0, 0.75]), atol=0.02, rtol=0)


# -- determinism ------------------------------------------------------------------------------------------------------


def test_an_image_does_not_depend_on_its_batch(scene):
    figures = Figures(split="test", size=96)
    order = torch.tensor([17, 3, 8])
    again = figures.scene(order)
    assert torch.equal(again.images, scene.images[order])
    assert torch.equal(again.visible, scene.visible[order])
    torch.testing.assert_close(again.joints, scene.joints[order], atol=1e-6, rtol=0)
    alone = figures.scene(torch.tensor([8]))
    assert torch.equal(alone.images[0], scene.images[8])


def test_seeds_and_splits_differ(scene):
    base = scene.joints[:8]
    for other in ({"split": "val"}, {"split": "train"}, {"split": "test", "seed": 1}):
        joints = Figures(size=96, **other).scene_labels(FEW[:8]).exact
        assert float((joints - base).abs().amax((1, 2)).min()) > 1e-3
    keys = torch.cat([Figures(split=s)._keys(torch.arange(4000)) for s in ("train", "val", "test")])
    assert len(keys.unique()) == 12000


def test_labels_without_drawing_are_the_same_labels(scene):
    truth = Figures(split="test", size=96).scene_labels(FEW)
    torch.testing.assert_close(truth.exact, scene.joints)
    torch.testing.assert_close(truth.head_size, scene.head_size)
    assert torch.equal(truth.coords, truth.exact)


def test_a_knob_leaves_the_rest_alone(scene):
    bare = Figures(split="test", size=96, occlusion=0, clutter=0, distractor=1.0).scene(FEW[:8])
    assert torch.equal(bare.joints, scene.joints[:8])


# -- labels against pixels and geometry -------------------------------------------------------------------------------


def test_visible_joints_lie_on_the_person(scene):
    cover = at(scene.person, scene.joints)
    inner = [j for j, name in enumerate(MPII16.joints) if name != "head_top"]
    seen = scene.visible[:, inner]
    assert float((cover[:, inner][seen] > 0.5).float().mean()) > 0.97
    assert 0.5 < float(scene.visible.float().mean()) < 0.95
    # a joint moved away by a head size leaves the person more often than not
    away = scene.joints + torch.tensor([2.5 * float(scene.head_size.mean()) * 2 / 96, 0.0])
    assert float((at(scene.person, away) > 0.5).float().mean()) < 0.6


def test_three_dimensions_project_to_two(scene):
    camera = scene.camera
    x = camera.focal.view(-1, 1) * scene.joints3d[..., 0] / scene.joints3d[..., 2] + camera.centre[:, :1]
    y = camera.focal.view(-1, 1) * scene.joints3d[..., 1] / scene.joints3d[..., 2] + camera.centre[:, 1:]
    torch.testing.assert_close(torch.stack([x, y], -1), scene.joints, atol=1e-5, rtol=1e-5)
    assert torch.equal(scene.depth[:, MPII16.joints.index("pelvis")], torch.zeros(24))
    turn = camera.rotation @ camera.rotation.mT
    torch.testing.assert_close(turn, torch.eye(3).expand_as(turn), atol=1e-5, rtol=0)
    assert (torch.linalg.det(camera.rotation) > 0.99).all()


def test_head_size_torso_and_box(scene):
    pixels = to_pixels(scene.joints, (96, 96))
    torso = (pixels[:, MPII16.joints.index("l_shoulder")] - pixels[:, MPII16.joints.index("r_hip")]).norm(dim=-1)
    torch.testing.assert_close(scene.torso, torso)
    assert torch.equal(scene.box, torch.cat([pixels.amin(1), pixels.amax(1)], -1))
    # a head is about 0.23 m by 0.16 m
    metre = scene.camera.focal * 48 / scene.joints3d[:, 6, 2]
    ratio = scene.head_size / metre
    assert float(ratio.min()) > 0.12
    assert float(ratio.max()) < 0.26


def test_left_is_the_persons_left():
    front = Figures(back=0, occlusion=0).scene_labels(torch.arange(300))
    behind = Figures(back=1, occlusion=0).scene_labels(torch.arange(300))
    left, right = (MPII16.joints.index(j) for j in ("l_hip", "r_hip"))
    for truth, sign in ((front, 1), (behind, -1)):
        apart = sign * (truth.exact[:, left, 0] - truth.exact[:, right, 0])
        assert float((apart > 0).float().mean()) > 0.95


def test_faces_are_seen_from_the_front_only():
    face = [COCO17.joints.index(j) for j in ("nose", "l_eye", "r_eye")]
    shares = [
        float(Figures(skeleton=COCO17, back=b, occlusion=0, size=96).scene(FEW).visible[:, face].float().mean())
        for b in (0, 1)
    ]
    assert shares[0] > 0.6
    assert shares[1] < 0.2


def test_limbs_are_at_least_three_pixels_wide_at_64():
    scene = Figures(size=64, occlusion=0, clutter=0).scene(torch.arange(32))
    for a, b in (("l_knee", "l_ankle"), ("r_elbow", "r_wrist")):
        i, j = MPII16.joints.index(a), MPII16.joints.index(b)
        middle = scene.joints[:, [i, j]].mean(1, keepdim=True)
        along = scene.joints[:, j] - scene.joints[:, i]
        normal = torch.stack([-along[:, 1], along[:, 0]], -1)
        normal = (normal / normal.norm(dim=-1, keepdim=True)).unsqueeze(1)
        steps = torch.linspace(-2.5, 2.5, 21).view(1, 21, 1) * 2 / 64
        width = at(scene.person, middle + steps * normal).sum(1) * 0.25  # pixels, at most 5.25
        assert 3.0 <= float(width.median()) < 5.0


def test_angles_bend_the_right_way():
    sizes = {
        k: torch.tensor([v])
        for k, v in {
            "trunk": 0.5,
            "neck": 0.1,
            "head": 0.23,
            "hips": 0.09,
            "shoulders": 0.18,
            "upper_arm": 0.3,
            "forearm": 0.26,
            "hand": 0.16,
            "thigh": 0.42,
            "shin": 0.4,
            "foot": 0.25,
        }.items()
    }

    def pose(**angles):
        zero = {a.rstrip("+-"): torch.zeros(1, 2) if a[-1] in "+-" else torch.zeros(1) for a in ANGLES}
        joints = articulate({**zero, **{k: v + zero[k] for k, v in angles.items()}}, sizes)[0]
        return dict(zip(FIGURE.joints, joints, strict=True))

    still = pose()
    assert float(still["l_wrist"][1] - still["l_shoulder"][1]) == pytest.approx(-0.56, abs=1e-5)
    assert float(still["l_hip"][0]) == pytest.approx(0.09)  # +x is left
    assert float(still["l_toe"][2]) > 0.1  # toes point forward
    assert float(pose(knee=90.0)["r_ankle"][2]) == pytest.approx(-0.4, abs=1e-5)
    assert float(pose(hip=90.0)["r_knee"][2]) == pytest.approx(0.42, abs=1e-5)
    assert float(pose(elbow=90.0)["l_wrist"][2]) == pytest.approx(0.26, abs=1e-5)
    assert float(pose(out=90.0)["r_elbow"][0]) == pytest.approx(-0.48, abs=1e-5)
    inward = pose(elbow=90.0, turn=90.0)
    assert float(inward["l_wrist"][0] - inward["l_elbow"][0]) == pytest.approx(-0.26, abs=1e-5)
    assert float(pose(lean=40.0)["head_top"][2]) > 0.3


@pytest.mark.parametrize("name", sorted(ACTIONS))
def test_bones_keep_their_length_and_feet_touch_the_ground(name):
    joints = Actions((name,))(Dice(mix(torch.arange(40)), "pose"))
    assert torch.isfinite(joints).all()
    left, right = (
        (joints[:, FIGURE.joints.index(s + "knee")] - joints[:, FIGURE.joints.index(s + "hip")]).norm(dim=-1)
        for s in ("l_", "r_")
    )
    torch.testing.assert_close(left, right)
    assert float(joints[..., 1].min()) >= 0.02
    assert float(joints[..., 1].amin(1).max()) < 0.45


# -- knobs ------------------------------------------------------------------------------------------------------------


def test_occlusion_hides_joints():
    share = [float(Figures(occlusion=o).scene(torch.arange(64)).visible.float().mean()) for o in (0, 1)]
    assert share[1] < share[0] - 0.08


def test_distractor_and_clutter_change_the_picture_not_the_labels():
    plain = Figures(occlusion=0, clutter=0).scene(FEW)
    for knob in ({"distractor": 1.0}, {"clutter": 1.0}):
        other = Figures(**{"occlusion": 0, "clutter": 0, **knob}).scene(FEW)
        assert torch.equal(other.labels, plain.labels)
        assert float((other.images != plain.images).float().mean()) > 0.03


def test_truncation_cuts_people_off():
    whole = Figures(truncation=0).scene_labels(torch.arange(200)).exact.abs().amax((1, 2))
    cut = Figures(truncation=1).scene_labels(torch.arange(200)).exact.abs().amax((1, 2))
    assert float((whole > 1).float().mean()) == 0
    assert float((cut > 1).float().mean()) > 0.7
    scene = Figures(truncation=1, occlusion=0).scene(FEW)
    outside = (scene.joints.abs() > 1).any(-1)
    assert outside.any()
    assert not scene.visible[outside].any()


def test_shift_offset_and_height():
    middles = {}
    for shift in (0.0, 0.25):
        exact = Figures(shift=shift, height=(0.4, 0.4)).scene_labels(torch.arange(400)).exact
        low, high = exact.amin(1), exact.amax(1)
        middles[shift] = (low + high) / 4
        # the frame is two units; the skeleton's face and toes reach a little further than MPII's joints
        assert 0.30 < float((high - low).amax(1).div(2).mean()) < 0.41
    assert float(middles[0.0].abs().max()) < 0.06
    assert float(middles[0.25].std(0).min()) > 0.1
    left = Figures(offset=(-0.25, 0.0), shift=0.1, height=(0.3, 0.42)).scene_labels(torch.arange(400)).exact
    assert float(left[..., 0].max()) < 0.1
    assert float((left[..., 0] < 0).float().mean()) > 0.97


def test_label_noise_has_the_stated_size_and_touches_labels_only():
    clean = Figures(count=300).scene_labels(torch.arange(300))
    noisy = Figures(count=300, label_noise=0.02).scene_labels(torch.arange(300))
    assert torch.equal(clean.exact, noisy.exact)
    error = (noisy.coords - noisy.exact) / 2  # shares of the height
    assert float(error.std()) == pytest.approx(0.02, rel=0.03)
    assert abs(float(error.mean())) < 0.001
    assert abs(float(torch.corrcoef(error.reshape(-1, 2).T)[0, 1])) < 0.05


def test_poses_can_come_from_elsewhere():
    joints = Actions(("stand",))(Dice(torch.arange(1), "pose"))

    def same(dice):
        return joints.expand(len(dice), -1, -1)

    truth = Figures(poses=same, back=0).scene_labels(FEW)
    bone = (truth.joints3d[:, 1] - truth.joints3d[:, 2]).norm(dim=-1)
    assert float(bone.std()) < 1e-4
    with pytest.raises(ValueError, match=r"poses gave \(24, 25, 3\), expected \(24, 26, 3\)"):
        Figures(poses=lambda dice: torch.zeros(len(dice), 25, 3)).scene_labels(FEW)


# -- the store --------------------------------------------------------------------------------------------------------


def test_store_has_the_scene_in_it(tmp_path, scene):
    store = Figures(split="test", count=5, size=96).open(tmp_path)
    assert torch.equal(store.images, scene.images[:5])
    batch = store.batch(torch.tensor([4, 1]))
    torch.testing.assert_close(batch.labels.coords, scene.labels[[4, 1]])
    torch.testing.assert_close(
        apply_affine(batch.affine, batch.labels.coords), to_pixels(scene.joints[[4, 1]], (96, 96))
    )
    torch.testing.assert_close(batch.normaliser, scene.head_size[[4, 1]])
    assert batch.hint is not None
    torch.testing.assert_close(batch.hint, scene.hint[[4, 1]])
    assert store.joints == MPII16.joints


def test_store_in_three_dimensions(tmp_path):
    figures = Figures(count=6, size=32, dims=3, skeleton=H36M17, label_noise=0.01)
    store, scene = figures.open(tmp_path), figures.scene(torch.arange(6))
    assert store.coords.shape == (6, 17, 3)
    torch.testing.assert_close(store.coords[..., 2] * DEPTH, scene.depth)
    metre = scene.camera.focal * 16 / (scene.joints3d[:, 0, 2])
    z = apply_affine(store.affine, store.coords)[..., 2]
    torch.testing.assert_close(z, scene.depth * metre[:, None], atol=1e-4, rtol=1e-4)


def test_lsp_is_measured_by_the_torso():
    truth = Figures(skeleton=LSP14).scene_labels(FEW)
    torch.testing.assert_close(truth.normaliser, truth.torso.clamp_min(1))
    assert truth.exact.shape == (24, 14, 2)


def test_mirror_fits_the_augmentation(tmp_path):
    store = Figures(count=4, size=48, augment=Augment(flip=1.0)).open(tmp_path)
    index = torch.arange(4)
    plain, mirrored = store.batch(index), store.batch(index, torch.Generator().manual_seed(0))
    torch.testing.assert_close(mirrored.images, flip_images(plain.images))
    torch.testing.assert_close(mirrored.labels.coords, flip_coords(plain.labels.coords, MPII16.pairs))


def test_cache_is_used_and_mended(tmp_path, monkeypatch):
    figures = Figures(count=3, size=24)
    first = figures.open(tmp_path)
    (path,) = tmp_path.iterdir()
    with monkeypatch.context() as m:
        m.setattr(Figures, "_draw", lambda self, device: pytest.fail("drawn again"))
        assert figures.open(tmp_path).fingerprint == first.fingerprint
        # what `open` adds to the store is not in the file, so it does not change the name
        assert Figures(count=3, size=24, augment=Augment()).open(tmp_path).fingerprint == first.fingerprint
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"something else"):
        path.write_bytes(damaged)
        assert figures.open(tmp_path).fingerprint == first.fingerprint
        assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        Figures(count=2, size=24).open(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_poses_from_a_bare_function_are_not_cached(tmp_path):
    Figures(count=2, size=24, poses=lambda dice: Actions(("sit",))(dice)).open(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_default_cache_follows_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    Figures(count=2, size=24).open()
    assert len(list((tmp_path / "coordreg").glob("figures-*.npz"))) == 1


def test_every_knob_but_the_augmentation_is_in_the_key():
    base = Figures()
    changed = {
        "split": "val",
        "count": 5,
        "size": 32,
        "seed": 1,
        "skeleton": LSP14,
        "dims": 3,
        "occlusion": 0.1,
        "distractor": 0.1,
        "truncation": 0.1,
        "clutter": 0.1,
        "label_noise": 0.1,
        "shift": 0.2,
        "offset": (0.1, 0),
        "height": (0.5, 0.6),
        "back": 0.5,
        "poses": Actions(("sit",)),
    }
    keys = {base.key()} | {Figures(**{k: v}).key() for k, v in changed.items()}
    assert len(keys) == 1 + len(changed)
    assert Figures(augment=Augment()).key() == base.key()


def test_configuration_can_be_written_down():
    figures = Figures(skeleton="coco17", occlusion=1, augment=Augment(flip=0.5), poses=Actions(("walk", "run")))
    assert rebuild(describe(figures)) == figures
    assert digest(describe(Figures(occlusion=1))) == digest(describe(Figures(occlusion=1.0)))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"split": "dev"}, "got split='dev', expected one of train, val, test"),
        ({"count": 0}, "got count=0"),
        ({"size": 8}, "got size=8, expected 16 to 1024"),
        ({"dims": 4}, "got dims=4, expected 2 or 3"),
        ({"occlusion": 1.5}, "got occlusion=1.5, expected a number from 0 to 1"),
        ({"label_noise": -0.1}, "got label_noise=-0.1"),
        ({"shift": math.nan}, "got shift=nan"),
        ({"height": (0.9, 0.5)}, "low <= high"),
        ({"offset": (0.0, 0.7)}, "got offset"),
        ({"skeleton": "stick"}, "got 'stick', expected one of"),
    ],
)
def test_bad_knobs_are_refused(knobs, message):
    with pytest.raises(ValueError, match=message):
        Figures(**knobs)


def test_bad_indices_and_actions_are_refused():
    with pytest.raises(ValueError, match="got indices from -1"):
        Figures().scene(torch.tensor([-1]))
    with pytest.raises(ValueError, match="got 'fly', expected some of stand"):
        Actions(("fly",))
