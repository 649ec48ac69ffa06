"""Trunks at several sizes: the features that the trunk itself delivers, channels, sizes, gradients, and bad input."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from coordreg.backbones.hrnet import HRNet
from coordreg.backbones.levels import MultiScale, hrnet_channels, mobile_channels, resnet_channels
from coordreg.backbones.mobilenet import MobileNetV2
from coordreg.backbones.multistage import SharedTrunk
from coordreg.backbones.resnet import ResNet
from coordreg.spec import describe, rebuild, spec

B, H, W = 2, 64, 96

TRUNKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "basic": (lambda: ResNet(10, 4), resnet_channels(10, 4)),
    "bottleneck": (lambda: ResNet(50, 2), resnet_channels(50, 2)),
    "hrnet": (lambda: HRNet(3, (1, 1, 1), 1, 8), hrnet_channels(3)),
    "mobile": (lambda: MobileNetV2(0.25), mobile_channels(0.25)),
}


def image(seed: int = 0) -> Tensor:
    return torch.randn(B, 3, H, W, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
@pytest.mark.parametrize("name", TRUNKS)
def test_sizes_channels_and_order(name: str, levels: int) -> None:
    make, channels = TRUNKS[name]
    trunk = MultiScale(make(), levels).eval()
    found = trunk(image())
    assert trunk.channels == channels[4 - levels :]
    assert [tuple(f.shape) for f in found] == [
        (B, c, H // s, W // s) for c, s in zip(trunk.channels, (4, 8, 16, 32)[4 - levels :], strict=True)
    ]


@pytest.mark.parametrize("name", ["basic", "bottleneck", "mobile"])
def test_the_last_level_is_what_the_trunk_delivers(name: str) -> None:
    trunk = TRUNKS[name][0]().eval()
    torch.testing.assert_close(MultiScale(trunk)(image())[-1], trunk(image()), atol=0, rtol=0)


def test_the_levels_of_a_resnet_are_its_stages() -> None:
    trunk = ResNet(18, 4).eval()
    held: list[Tensor] = []
    for stage in (trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4):
        stage.register_forward_hook(lambda _, __, out: held.append(out.clone()))
    found = MultiScale(trunk)(image())
    for one, other in zip(found, held, strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)


def test_an_hrnet_with_one_branch_kept_by_hand() -> None:
    """With the weights of a whole HRNet in it, the finest of four levels is that HRNet's output."""
    torch.manual_seed(0)
    whole = HRNet(3, (1, 1, 1), 1, 8).eval()
    weights = whole.state_dict()
    wide = MultiScale(HRNet(3, (1, 1, 1), 1, 8)).eval()
    missing = wide.trunk.load_state_dict(weights, strict=False).missing_keys
    assert missing
    assert all(".fuse." in key for key in missing)  # rows 1 to 3 of the last module
    torch.testing.assert_close(wide(image())[0], whole(image()), atol=0, rtol=0)


@pytest.mark.parametrize("levels", [1, 4])
@pytest.mark.parametrize("name", TRUNKS)
def test_every_parameter_is_used(name: str, levels: int) -> None:
    """Distributed training waits for the gradient of each."""
    trunk = MultiScale(TRUNKS[name][0](), levels)
    torch.stack([f.square().sum() for f in trunk(image())]).sum().backward()
    assert all(p.grad is not None for p in trunk.parameters())


def test_published_channels() -> None:
    assert resnet_channels(50) == (256, 512, 1024, 2048)
    assert resnet_channels(18) == (64, 128, 256, 512)
    assert hrnet_channels(48) == (48, 96, 192, 384)
    with torch.device("meta"):
        assert mobile_channels() == MultiScale(MobileNetV2()).channels == (24, 32, 96, 1280)


def test_it_can_be_described_and_built_again() -> None:
    wanted = spec(MultiScale, trunk=spec(ResNet, depth=10, width=4), levels=3)
    again = rebuild(describe(wanted))
    assert again == wanted
    assert again.build().channels == (8, 16, 32)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"got levels=5, expected 1 \(Res5 alone\) to 4"):
        MultiScale(ResNet(10, 4), 5)
    with pytest.raises(ValueError, match="got a Linear as trunk, expected a whole ResNet, an HRNet or a MobileNetV2"):
        MultiScale(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="got a SharedTrunk as trunk"):
        MultiScale(SharedTrunk(10, 4))
    with pytest.raises(ValueError, match="got images of 64 x 90 px, expected multiples of 32"):
        MultiScale(ResNet(10, 4))(torch.zeros(1, 3, 64, 90))
    with pytest.raises(ValueError, match="resnet_channels: got depth=20"):
        resnet_channels(20)
