"""Skeletons: orders as their data sets publish them, pairs, and conversion."""

import pytest
import torch

from coordreg.data.skeletons import (
    COCO17,
    FIGURE,
    H36M17,
    LSP14,
    MPII16,
    SKELETONS,
    Skeleton,
    convert,
    recipe,
    skeleton,
)


def test_published_orders():
    assert [len(s) for s in (MPII16, LSP14, COCO17, H36M17)] == [16, 14, 17, 17]
    assert [MPII16.joints.index(j) for j in ("r_ankle", "pelvis", "thorax", "upper_neck", "head_top", "l_wrist")] == [
        0, 6, 7, 8, 9, 15,
    ]  # fmt: skip
    assert MPII16.pairs == ((0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13))
    assert LSP14.pairs == ((0, 5), (1, 4), (2, 3), (6, 11), (7, 10), (8, 9))
    assert COCO17.pairs == tuple((i, i + 1) for i in range(1, 17, 2))
    assert H36M17.pairs == ((1, 4), (2, 5), (3, 6), (11, 14), (12, 15), (13, 16))


def test_groups_are_the_columns_of_pckh():
    assert dict(MPII16.groups) == {
        "head": (9,), "shoulder": (12, 13), "elbow": (11, 14), "wrist": (10, 15), "hip": (2, 3), "knee": (1, 4),
        "ankle": (0, 5),
    }  # fmt: skip
    assert not {6, 7} & {j for members in MPII16.groups.values() for j in members}


@pytest.mark.parametrize("s", SKELETONS.values(), ids=lambda s: s.name)
def test_pairs_and_bones_fit(s):
    for a, b in s.pairs:
        assert s.joints[a][2:] == s.joints[b][2:]
        assert {s.joints[a][:2], s.joints[b][:2]} == {"l_", "r_"}
    assert len(s.pairs) == sum(j.startswith("l_") for j in s.joints)
    # bones join all joints to one piece
    reached, grew = {s.bones[0][0]}, True
    while grew:
        new = {j for bone in s.bones for j in bone if reached & set(bone)}
        grew, reached = not new <= reached, reached | new
    assert reached == set(range(len(s)))
    mirrored = {j: j for j in range(len(s))} | dict(s.pairs) | {b: a for a, b in s.pairs}
    bones = {frozenset(b) for b in s.bones}
    assert {frozenset(mirrored[j] for j in bone) for bone in bones} == bones


@pytest.mark.parametrize("target", [MPII16, LSP14, COCO17, H36M17], ids=lambda s: s.name)
def test_figure_makes_all_others_complete(target):
    points = torch.randn(2, 3, len(FIGURE), 3)
    out, known = convert(points, FIGURE, target)
    assert out.shape == (2, 3, len(target), 3)
    assert known.all()
    assert torch.isfinite(out).all()


def test_conversion_by_name_and_by_mean():
    points = torch.arange(16.0).view(1, 16, 1).expand(1, 16, 2)  # every joint sits at its own number
    out, known = convert(points, MPII16, LSP14)
    assert out[0, :, 0].tolist() == [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15, 8, 9]
    assert known.all()
    out, known = convert(points, MPII16, COCO17)
    assert known.tolist() == [False] * 5 + [True] * 12
    assert out[0, :5].isnan().all()
    assert out[0, 5:, 0].tolist() == [13, 12, 14, 11, 15, 10, 3, 2, 4, 1, 5, 0]
    out, known = convert(points, MPII16, H36M17)
    names = dict(zip(H36M17.joints, out[0, :, 0].tolist(), strict=True))
    assert names["pelvis"] == 6
    assert names["spine"] == (2 + 3 + 12 + 13) / 4
    assert not known[H36M17.joints.index("nose")]
    # COCO has no pelvis and no thorax: they are means; the head's top and the neck stay unknown
    out, known = convert(torch.arange(17.0).view(1, 17, 1), COCO17, MPII16)
    assert out[0, [6, 7], 0].tolist() == [11.5, 5.5]
    assert [MPII16.joints[j] for j in (~known).nonzero()[:, 0]] == ["upper_neck", "head_top"]


def test_conversion_commutes_with_the_mirror():
    from coordreg.coords import flip_coords

    points = torch.randn(3, len(FIGURE), 2)
    for target in (MPII16, LSP14, COCO17, H36M17):
        one = convert(flip_coords(points, FIGURE.pairs), FIGURE, target)[0]
        other = flip_coords(convert(points, FIGURE, target)[0], target.pairs)
        torch.testing.assert_close(one, other)


def test_conversion_to_itself_is_the_identity():
    assert recipe(COCO17, COCO17) == [(j,) for j in range(17)]


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="got 17 points, but mpii16 has 16"):
        convert(torch.zeros(1, 17, 2), MPII16, LSP14)
    with pytest.raises(ValueError, match="got 'openpose', expected one of mpii16"):
        skeleton("openpose")
    with pytest.raises(ValueError, match=r"outside 0\.\.1"):
        Skeleton("two", ("a", "b"), ((0, 2),), ())
    with pytest.raises(ValueError, match="twice"):
        Skeleton("two", ("a", "a"), (), ())
