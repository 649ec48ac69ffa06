"""Dilated ResNets: the undilated answer on the coarse grid, exactly; torchvision's own dilation; counts and sizes."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from coordreg.backbones.dilated import MODIFIED, DilatedResNet
from coordreg.backbones.resnet import ConvHead, ResNet, parameters

COUNTS = {18: 11_176_512, 34: 21_284_672, 50: 23_508_032, 101: 42_500_160}


def shake(module: nn.Module, generator: torch.Generator) -> None:
    """Normalisations that are not the identity, with features that neither vanish nor explode."""
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            assert m.running_mean is not None
            assert m.running_var is not None
            m.running_mean.copy_(torch.randn(m.num_features, generator=generator) * 0.1)
            m.running_var.copy_(torch.rand(m.num_features, generator=generator) + 0.5)
            nn.init.uniform_(m.weight, 0.5, 1.0, generator=generator)
            nn.init.normal_(m.bias, std=0.2, generator=generator)


def pair(depth: int, stride: int, generator: torch.Generator) -> tuple[ResNet, DilatedResNet]:
    plain, fine = ResNet(depth, 4), DilatedResNet(depth, 4, stride)
    shake(plain, generator)
    fine.load_state_dict(plain.state_dict())  # strict: the same names and shapes
    return plain.double().eval(), fine.double().eval()


@pytest.mark.parametrize("stride", [16, 8, 4])
@pytest.mark.parametrize("depth", COUNTS)
def test_the_coarse_grid_holds_the_undilated_answer(depth: int, stride: int, generator: torch.Generator) -> None:
    """At every cell, borders included, also where the sides are no multiples of anything."""
    plain, fine = pair(depth, stride, generator)
    images = torch.randn(2, 3, 75, 101, generator=generator, dtype=torch.float64)
    k = 32 // stride
    with torch.no_grad():
        coarse, ours = plain(images), fine(images)
    assert ours.shape == (2, plain.channels, -(-75 // stride), -(-101 // stride))
    assert float(coarse.std()) > 0.01
    torch.testing.assert_close(ours[..., ::k, ::k], coarse, rtol=1e-9, atol=1e-9)
    assert float((ours[..., 1:, 1:] - ours[..., :-1, :-1]).abs().mean()) > 0.01  # the new cells are no copies


@pytest.mark.parametrize("depth", [18, 50])
def test_each_cell_sees_the_same_pixels_as_before(depth: int, generator: torch.Generator) -> None:
    """The receptive field is kept: one cell's gradient over the image is the same in both networks."""
    plain, fine = pair(depth, 8, generator)
    images = torch.randn(1, 3, 160, 128, generator=generator, dtype=torch.float64, requires_grad=True)
    (before,) = torch.autograd.grad(plain(images)[0, :, 2, 1].sum(), images)
    (after,) = torch.autograd.grad(fine(images)[0, :, 8, 4].sum(), images)
    torch.testing.assert_close(after, before, rtol=1e-8, atol=1e-10)
    assert bool((before != 0).any())


@pytest.mark.parametrize("stride", [16, 8, 4])
def test_bottlenecks_dilate_as_torchvisions_do(stride: int, generator: torch.Generator) -> None:
    """torchvision can dilate bottlenecks: the same weights give the same features, in every cell."""
    replaced = [f"layer{i}" in MODIFIED[stride] for i in (2, 3, 4)]
    theirs = torchvision.models.resnet50(replace_stride_with_dilation=replaced).eval()
    shake(theirs, generator)
    ours = DilatedResNet(50, 64, stride).eval()
    ours.load_state_dict({k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")})
    theirs.avgpool = theirs.fc = nn.Identity()
    images = torch.randn(1, 3, 40, 56, generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(ours(images).flatten(1), theirs(images))


@pytest.mark.parametrize(
    ("depth", "names", "layer3", "layer4"),
    [
        (18, ("conv1", "conv2"), [1, 2, 2, 2], [2, 4, 4, 4]),
        (50, ("conv2",), [1, 2, 2, 2, 2, 2], [2, 4, 4]),
    ],
)
def test_which_convolution_takes_which_dilation(
    depth: int, names: tuple[str, ...], layer3: list[int], layer4: list[int]
) -> None:
    trunk = DilatedResNet(depth, 4, stride=8)
    for stage, expected in ((trunk.layer3, layer3), (trunk.layer4, layer4)):
        convolutions = [getattr(block, name) for block in stage for name in names]
        assert [c.dilation for c in convolutions] == [(d, d) for d in expected]
        assert [c.padding for c in convolutions] == [(d, d) for d in expected]
        assert {m.stride for m in stage.modules() if isinstance(m, nn.Conv2d)} == {(1, 1)}
    assert {m.dilation for m in trunk.layer2.modules() if isinstance(m, nn.Conv2d)} == {(1, 1)}


@pytest.mark.parametrize("depth", COUNTS)
@pytest.mark.parametrize(("stride", "cells"), [(32, 7), (16, 14), (8, 28), (4, 56)])
def test_sizes_at_224_and_parameters(depth: int, stride: int, cells: int) -> None:
    """7, 14, 28 and 56 px of DSNT's figure 8, with not one parameter more."""
    with torch.device("meta"):
        trunk = DilatedResNet(depth, stride=stride)
        assert trunk(torch.empty(2, 3, 224, 256)).shape == (2, trunk.channels, cells, 256 // stride)
    assert parameters(trunk) == COUNTS[depth]
    assert trunk.stride == stride


def test_dsnts_network_has_the_published_number_of_parameters() -> None:
    """ResNet-50@28px with 16 joints; 8 per cent fewer than the 25,594,624 of an 8-stack hourglass."""
    with torch.device("meta"):
        found = parameters(DilatedResNet(50, stride=8)) + parameters(ConvHead(2048, 16))
    assert found == 23_540_816
    assert round(100 * (1 - found / 25_594_624)) == 8


def test_stride_32_is_the_undilated_trunk(generator: torch.Generator) -> None:
    networks = []
    for make in (lambda: ResNet(18, 4), lambda: DilatedResNet(18, 4, 32)):
        torch.manual_seed(3)  # the same seed draws the same weights
        networks.append(make().eval())
    images = torch.randn(2, 3, 64, 96, generator=generator)
    assert torch.equal(networks[0](images), networks[1](images))


def test_gradients_reach_every_parameter(generator: torch.Generator) -> None:
    trunk = DilatedResNet(34, 4, stride=8)
    trunk(torch.randn(2, 3, 64, 96, generator=generator)).square().mean().backward()
    for name, p in trunk.named_parameters():
        assert p.grad is not None, name
        assert bool((p.grad != 0).any()), name


def test_published_weights_can_be_dilated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    state = torchvision.models.resnet18().state_dict()
    torch.save(state, folder / "resnet18-f37072fd.pth")
    ours = DilatedResNet(18, stride=8, weights="ResNet18_Weights.IMAGENET1K_V1")
    assert all(torch.equal(value, state[key]) for key, value in ours.state_dict().items())
    assert ours.layer4[1].conv2.dilation == (4, 4)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"stride": 7}, "DilatedResNet: got stride=7, expected one of 32, 16, 8, 4 input pixels a cell"),
        ({"stride": 2}, "got stride=2"),
        ({"depth": 20}, "got depth=20, expected one of"),
        ({"width": 8, "weights": "ResNet34_Weights.DEFAULT"}, "for width 64, got width=8"),
    ],
)
def test_bad_options_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DilatedResNet(**kwargs)
