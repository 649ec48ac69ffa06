"""HRNet, SimpleBaseline, MobileNet-V2: published counts to the last parameter, what flows between branches."""

from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from coordreg.backbones.cost import giga, macs
from coordreg.backbones.hrnet import Exchange, HRNet
from coordreg.backbones.mobilenet import MobileNetV2
from coordreg.backbones.resnet import ConvHead, DeconvHead, ResNet, parameters
from coordreg.dark import Dark
from coordreg.heatmap import MSE, Gaussian, Heatmap
from coordreg.method import Estimator
from coordreg.spec import describe, rebuild, spec

NARROW = {"width": 4, "modules": (1, 2, 1), "blocks": 1, "stem": 8}


def hrnet(width: int) -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(HRNet(width), ConvHead(width, 17))


def baseline(depth: int) -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(ResNet(depth), DeconvHead(2048, 17))


# -- counts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "expected"), [(32, 28_536_113), (48, 63_595_745)])
def test_published_number_of_parameters_of_hrnet(width: int, expected: int) -> None:
    assert parameters(hrnet(width)) == expected


@pytest.mark.parametrize(("depth", "expected"), [(50, 33_999_697), (101, 52_991_825), (152, 68_635_473)])
def test_published_number_of_parameters_of_simple_baseline(depth: int, expected: int) -> None:
    assert parameters(baseline(depth)) == expected


#: model, input (H, W) -> multiply-adds in 10^9, and as the papers print them.
COSTS = {
    ("w32", (128, 96)): (1.911, 1.78),
    ("w32", (256, 192)): (7.645, 7.12),
    ("w32", (384, 288)): (17.201, 16.02),
    ("w48", (128, 96)): (3.923, 3.65),
    ("w48", (256, 192)): (15.692, 14.61),
    ("w48", (384, 288)): (35.307, 32.88),
    ("r50", (128, 96)): (1.357, 2.25),
    ("r50", (256, 192)): (5.426, 8.99),
    ("r101", (128, 96)): (2.266, 3.09),
    ("r152", (128, 96)): (3.175, 3.94),
}


@pytest.mark.parametrize(("name", "size"), COSTS)
def test_multiply_adds_in_both_conventions(name: str, size: tuple[int, int]) -> None:
    network = hrnet(int(name[1:])) if name[0] == "w" else baseline(int(name[1:]))
    true, printed = COSTS[name, size]
    assert giga(macs(network, size)) == pytest.approx(true, rel=0.01)
    assert giga(macs(network, size, "published"), "published") == pytest.approx(printed, rel=0.01)


def test_a_narrow_hrnet_by_formula() -> None:
    """Every convolution has 9 or 1 weights a pair of channels and two numbers of normalisation a channel."""

    def conv(into: int, out: int, kernel: int = 3) -> int:
        return kernel**2 * into * out + 2 * out

    def exchange(c: list[int], outputs: int) -> int:
        total = sum(2 * conv(a, a) for a in c)
        for i in range(outputs):
            for j in range(len(c)):
                if j > i:
                    total += conv(c[j], c[i], 1)
                elif j < i:
                    total += (i - j - 1) * conv(c[j], c[j]) + conv(c[j], c[i])
        return total

    w = [4, 8, 16, 32]
    expected = conv(3, 8) + conv(8, 8) + conv(8, 32, 1) + conv(8, 8, 1) + conv(8, 8) + conv(8, 32, 1)
    expected += conv(32, 4) + conv(32, 8) + conv(8, 16) + conv(16, 32)
    expected += exchange(w[:2], 2) + 2 * exchange(w[:3], 3) + exchange(w, 1)
    assert parameters(HRNet(**NARROW)) == expected


# -- shapes and flow --------------------------------------------------------------------------------------------------


def test_hrnet_keeps_a_quarter_of_the_size() -> None:
    net = HRNet(**NARROW).eval()
    assert net(torch.rand(2, 3, 96, 64)).shape == (2, 4, 24, 16)
    assert net(torch.rand(1, 3, 32, 32)).shape == (1, 4, 8, 8)


def test_every_branch_hears_from_every_other() -> None:
    torch.manual_seed(0)
    module = Exchange((2, 4, 8), blocks=1, outputs=3).eval()
    maps = [torch.rand(1, 2 * 2**i, 16 // 2**i, 8 // 2**i, requires_grad=True) for i in range(3)]
    for i, out in enumerate(module(list(maps))):
        assert out.shape == maps[i].shape
        gradients = torch.autograd.grad(out.sum(), maps, retain_graph=True)
        assert all(bool(g.any()) for g in gradients)


def test_the_sum_by_hand() -> None:
    """With blocks that pass their input on, the finest branch is ReLU(x + upsampled 1x1 of the slower one)."""
    torch.manual_seed(0)
    module = Exchange((2, 4), blocks=1, outputs=1).eval()
    for branch in module.branches:
        nn.init.zeros_(branch[0].bn2.weight)
    x, slow = torch.rand(1, 2, 4, 6), torch.rand(1, 4, 2, 3)
    convert = module.fuse[0][1][0]
    small = convert(slow)
    by_hand = torch.relu(x + small.repeat_interleave(2, -1).repeat_interleave(2, -2))
    torch.testing.assert_close(module([x, slow])[0], by_hand)


def test_sizes_that_do_not_divide_are_named_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"100 x 64 px, expected multiples of 32.*the nearest size is 96 x 64"):
        HRNet(**NARROW)(torch.rand(1, 3, 100, 64))
    with pytest.raises(ValueError, match=r"modules=\(1, 4\).*three numbers of modules"):
        HRNet(modules=(1, 4))
    with pytest.raises(ValueError, match="got width=0"):
        HRNet(0)


def test_hrnet_is_trained_decoded_and_rebuilt() -> None:
    torch.manual_seed(0)
    made = spec(
        Estimator,
        backbone=spec(HRNet, **NARROW),
        head=spec(ConvHead, channels=4, joints=3),
        method=spec(Heatmap, target=Gaussian(1.0), loss=MSE(), decoder=Dark()),
    )
    network = made.build()
    torch.manual_seed(0)
    again = rebuild(describe(made)).build()
    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), again.state_dict().values(), strict=True)
    )
    out = network(torch.rand(2, 3, 64, 32))
    out.square().mean().backward()
    assert all(p.grad is not None for p in network.parameters())
    assert network.predict(torch.rand(2, 3, 64, 32), flip=((0, 2),)).coords.shape == (2, 3, 2)


# -- MobileNet-V2 -----------------------------------------------------------------------------------------------------


def test_mobilenet_is_torchvisions_without_its_classifier() -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.mobilenet_v2().eval()
    ours = MobileNetV2().eval()
    ours.features.load_state_dict(theirs.features.state_dict())
    images = torch.rand(2, 3, 64, 96)
    features = ours(images)
    assert features.shape == (2, ours.channels, 2, 3)
    torch.testing.assert_close(theirs.classifier(features.mean((-2, -1))), theirs(images))
    assert parameters(ours) == parameters(theirs) - 1281 * 1000
    assert MobileNetV2(0.35)(images).shape == (2, 1280, 2, 3)


def test_mobilenets_weights_from_the_cache_and_without_it(cache: Path) -> None:
    name = "MobileNet_V2_Weights.IMAGENET1K_V1"
    with pytest.raises(ValueError, match=rf"{name} are not in torch's cache .*TORCH_HOME"):
        MobileNetV2(weights=name)
    state = torchvision.models.mobilenet_v2().state_dict()
    torch.save(state, cache / "mobilenet_v2-b0353104.pth")
    ours = MobileNetV2(weights=name).state_dict()
    assert all(torch.equal(value, state[key]) for key, value in ours.items())
    torch.save(torchvision.models.resnet18().state_dict(), cache / "resnet18-f37072fd.pth")
    with pytest.raises(ValueError, match="those of another network"):
        MobileNetV2(weights="ResNet18_Weights.IMAGENET1K_V1")
    (cache / "mobilenet_v2-b0353104.pth").write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"(?s)damaged.*delete mobilenet_v2-b0353104\.pth"):
        MobileNetV2(weights=name)


def test_bad_mobilenets_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match=r"got width=0\.5; leave weights out"):
        MobileNetV2(0.5, weights="MobileNet_V2_Weights.IMAGENET1K_V1")
    with pytest.raises(ValueError, match="no weights named 'best'; expected a name such as MobileNet_V2_Weights"):
        MobileNetV2(weights="best")
    with pytest.raises(ValueError, match="got width=0"):
        MobileNetV2(0)
