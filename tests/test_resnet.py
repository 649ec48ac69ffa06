"""Residual networks and heads: published parameter counts, sizes, torchvision's own outputs, weights offline."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from coordreg.backbones.resnet import (
    ConvHead,
    DeconvHead,
    ResNet,
    head,
    parameters,
    trunk_channels,
)
from coordreg.method import Maps

TRUNKS = {18: 11_176_512, 34: 21_284_672, 50: 23_508_032, 101: 42_500_160, 152: 58_143_808}
SIMPLE_BASELINE = {50: 33_999_697, 101: 52_991_825, 152: 68_635_473}


@pytest.mark.parametrize("depth", TRUNKS)
def test_trunks_have_the_published_number_of_parameters(depth: int) -> None:
    with torch.device("meta"):
        assert parameters(ResNet(depth)) == TRUNKS[depth]


@pytest.mark.parametrize("depth", SIMPLE_BASELINE)
def test_simple_baseline_has_the_published_number_of_parameters(depth: int) -> None:
    """17 joints; the counts behind the 34.0, 53.0 and 68.6 million of the papers' tables."""
    with torch.device("meta"):
        trunk = ResNet(depth)
        found = parameters(trunk) + parameters(DeconvHead(trunk.channels, 17))
    assert found == SIMPLE_BASELINE[depth]
    assert SIMPLE_BASELINE[50] - 17 * 257 + 16 * 257 == 33_999_440  # and with MPII's 16 joints


def test_a_head_of_one_convolution_by_hand() -> None:
    """DSNT's ResNet-50 with 16 joints: 23,540,816."""
    with torch.device("meta"):
        assert parameters(ResNet(50)) + parameters(ConvHead(2048, 16)) == 23_540_816


@pytest.mark.parametrize("depth", [18, 50])
def test_our_trunk_is_torchvisions(depth: int, generator: torch.Generator) -> None:
    """The same weights give the same features, so that published weights mean here what they mean there."""
    theirs = getattr(torchvision.models, f"resnet{depth}")().eval()
    ours = ResNet(depth).eval()
    missing, unexpected = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert not missing
    assert all(key.startswith("fc.") for key in unexpected)
    images = torch.randn(1, 3, 64, 32, generator=generator)
    with torch.no_grad():
        features = ours(images)
        torch.testing.assert_close(theirs.fc(features.mean((-2, -1))), theirs(images))
    assert features.shape == (1, trunk_channels(depth), 2, 1)


@pytest.mark.parametrize("depth", [10, 34, 50])
@pytest.mark.parametrize("width", [4, 64])
def test_channels_are_known_without_building(depth: int, width: int) -> None:
    with torch.device("meta"):
        trunk = ResNet(depth, width)
        assert trunk(torch.empty(2, 3, 64, 96)).shape == (2, trunk_channels(depth, width), 2, 3)
    assert trunk.channels == trunk_channels(depth, width)


@pytest.mark.parametrize("widths", [(), (6,), (6, 5), (6, 5, 4)])
def test_heads_double_the_size_for_each_upsampling(widths: Sequence[int]) -> None:
    made = head(8, 3, widths)
    assert made.produces is Maps
    assert isinstance(made, DeconvHead if widths else ConvHead)
    up = 2 ** len(widths)
    assert made(torch.zeros(2, 8, 2, 3)).shape == (2, 3, 2 * up, 3 * up)


def test_heads_start_near_zero_and_normalise_their_upsamplings() -> None:
    torch.manual_seed(0)
    made = DeconvHead(64, 3, (32, 32))
    convolutions = [m for m in made.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert [m.bias is None for m in convolutions] == [True, True, False]
    for m in convolutions:
        assert float(m.weight.detach().std()) == pytest.approx(0.001, rel=0.15)
    assert made.final.bias is not None
    assert bool((made.final.bias == 0).all())
    assert sum(isinstance(m, nn.BatchNorm2d) for m in made.modules()) == 2


def test_the_same_seed_gives_the_same_weights() -> None:
    networks = []
    for _ in range(2):
        torch.manual_seed(7)
        networks.append(ResNet(10, 4))
    for a, b in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResNet(20), "got depth=20, expected one of 10, 18, 34, 50, 101, 152"),
        (lambda: ResNet(18, width=0), "got width=0, expected at least 1"),
        (lambda: ResNet(18, width=16, weights="ResNet18_Weights.DEFAULT"), "are for width 64, got width=16"),
        (lambda: ResNet(18, weights="ResNet18_Weights.NOPE"), "no weights named 'ResNet18_Weights.NOPE'; expected"),
        (lambda: ResNet(18, weights="best"), "no weights named 'best'"),
        (lambda: DeconvHead(8, 3, ()), "got 0 upsamplings, expected 1 to 3; use ConvHead"),
        (lambda: DeconvHead(8, 3, (4, 4, 4, 4)), "got 4 upsamplings"),
        (lambda: trunk_channels(20), "got depth=20"),
    ],
)
def test_bad_options_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# -- weights ----------------------------------------------------------------------------------------------------------

NAME = "ResNet18_Weights.IMAGENET1K_V1"
FILE = "resnet18-f37072fd.pth"


def test_weights_without_a_network_say_what_to_do(cache: Path) -> None:
    with pytest.raises(ValueError, match=rf"{NAME} are not in torch's cache .*Name or service.*TORCH_HOME"):
        ResNet(18, weights=NAME)
    assert not list(cache.iterdir())


def test_cached_weights_are_loaded_without_a_network(cache: Path) -> None:
    state = torchvision.models.resnet18().state_dict()
    torch.save(state, cache / FILE)
    ours = ResNet(18, weights=NAME)
    assert all(torch.equal(value, state[key]) for key, value in ours.state_dict().items())


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_a_half_downloaded_file_is_named(cache: Path, damage: str) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), cache / FILE)
    data = (cache / FILE).read_bytes()
    (cache / FILE).write_bytes({"truncated": data[: len(data) // 2], "empty": b"", "text": b"<html>"}[damage])
    with pytest.raises(ValueError, match=rf"(?s)in torch's cache is damaged.*delete {FILE}"):
        ResNet(18, weights=NAME)


class Evil:
    """Unpickled, this would make a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_code_in_a_weights_file_is_not_run(cache: Path, tmp_path: Path) -> None:
    torch.save({"conv1.weight": Evil(tmp_path / "ran")}, cache / FILE)
    with pytest.raises(ValueError, match=f"delete {FILE}"):
        ResNet(18, weights=NAME)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("depth", [34, 50])
def test_weights_of_another_depth_are_refused(cache: Path, depth: int) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), cache / FILE)
    with pytest.raises(ValueError, match=rf"are those of another depth than {depth}; give depth as in their name"):
        ResNet(depth, weights=NAME)
