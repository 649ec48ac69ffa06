"""Multiply-adds by hand, against torch's own counter, and as the papers print them in both conventions."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from coordreg.backbones.cost import giga, macs
from coordreg.backbones.dilated import DilatedResNet
from coordreg.backbones.hourglass import Hourglasses, HourglassStem
from coordreg.backbones.multistage import MultiStage, SharedTrunk
from coordreg.backbones.resnet import ConvHead, DeconvHead, ResNet, parameters
from coordreg.heatmap import MSE, Argmax, Gaussian, Heatmap
from coordreg.method import Estimator

BOTH = ("true", "published")


def baseline(depth: int, joints: int, widths: Sequence[int] = (256, 256, 256)) -> nn.Module:
    """A ResNet with a deconvolution head, without numbers in it."""
    with torch.device("meta"):
        trunk = ResNet(depth)
        return nn.Sequential(trunk, DeconvHead(trunk.channels, joints, tuple(widths)))


def hourglasses(joints: int, stacks: int, original: bool = False) -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(HourglassStem(original=original), Hourglasses(256, joints, stacks))


# -- by hand ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv2d(3, 5, 3, padding=1), 7 * 9 * 5 * 3 * 9),
        (nn.Conv2d(3, 5, 3, stride=2, padding=1, bias=False), 4 * 5 * 5 * 3 * 9),
        (nn.Conv2d(3, 6, 3, padding=2, dilation=2, groups=3), 7 * 9 * 6 * 1 * 9),
        (nn.Conv2d(3, 4, (1, 5)), 7 * 5 * 4 * 3 * 5),
    ],
)
def test_a_convolution_by_hand(layer: nn.Module, expected: int) -> None:
    """Positions of the output x outputs x inputs a group x kernel; both conventions agree."""
    assert [macs(layer, (7, 9), counting) for counting in BOTH] == [expected] * 2


@pytest.mark.parametrize("groups", [1, 3])
def test_a_transposed_convolution_by_hand(groups: int) -> None:
    """7 x 9 cells to 14 x 18: once a cell of the input, or, as published, of the output, four times as many."""
    layer = nn.ConvTranspose2d(3, 6, 4, stride=2, padding=1, groups=groups)
    assert macs(layer, (7, 9)) == 7 * 9 * 3 * 6 // groups * 16
    assert macs(layer, (7, 9), "published") == 14 * 18 * 3 * 6 // groups * 16


def test_a_transposed_convolution_spreads_each_input_cell() -> None:
    """The true count is the number of products that an actual loop makes, borders included."""
    height, width, kernel, products = 3, 2, 4, 0
    for _ in range(height * width):
        for _ in range(kernel * kernel):
            products += 3 * 5
    assert macs(nn.ConvTranspose2d(3, 5, kernel, stride=2, padding=1), (height, width)) == products


def test_linear_layers_count_at_every_position() -> None:
    assert macs(nn.Sequential(nn.Flatten(), nn.Linear(3 * 35, 4)), (5, 7)) == 3 * 35 * 4
    assert macs(nn.Linear(7, 4), (5, 7)) == 3 * 5 * 7 * 4  # the last axis is its input


def test_a_layer_counts_as_often_as_it_is_called() -> None:
    shared = nn.Conv2d(3, 3, 1)
    assert macs(nn.Sequential(shared, nn.ReLU(), shared), (4, 6)) == 2 * 4 * 6 * 9
    assert macs(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2)), (4, 6)) == 0


def test_a_head_alone() -> None:
    assert macs(ConvHead(20, 3), (4, 6), channels=20) == 4 * 6 * 20 * 3


# -- against torch ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(ResNet(18, 8), DeconvHead(64, 3, (6, 5))),
        lambda: DilatedResNet(50, 4, 8),
        lambda: nn.Sequential(HourglassStem(16), Hourglasses(16, 3, 2, 2, (1, 4))),
        lambda: nn.Sequential(SharedTrunk(18, 4), MultiStage(18, 4, 3, 3, (6, 5))),
    ],
    ids=["baseline", "dilated", "hourglass", "multistage"],
)
def test_agrees_with_torchs_counter(make: Any) -> None:
    """torch counts operations below the modules, two for a multiply-add; module and picture lie on the processor."""
    network = make().eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, 64, 96))
    found = macs(network, (64, 96))
    assert found == counter.get_total_flops() / 2
    assert found == macs(network.to("meta"), (64, 96)) > 0


# -- as printed -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("depth", "size", "true", "published"),
    [
        (50, (256, 192), 5.426, 8.99),
        (50, (384, 288), 12.209, 20.23),
        (50, (128, 96), 1.357, 2.25),
        (101, (256, 192), 9.063, 12.38),
        (101, (384, 288), 20.391, 27.85),
        (101, (128, 96), 2.266, 3.09),
        (152, (256, 192), 12.699, 15.76),
        (152, (384, 288), 28.573, 35.47),
        (152, (128, 96), 3.175, 3.94),
    ],
)
def test_simple_baselines(depth: int, size: tuple[int, int], true: float, published: float) -> None:
    """17 joints. The papers print 8.9, 20.0, 2.3; 12.4, 3.1; 15.7, 35.3 to 35.6, 3.9."""
    network = baseline(depth, 17)
    assert round(giga(macs(network, size)), 3) == true
    assert giga(macs(network, size, "published"), "published") == pytest.approx(published, abs=0.0051)


@pytest.mark.parametrize(
    ("depth", "ups", "size", "true", "printed"),
    [
        (18, 2, 256, 2.776, 2.8),
        (50, 2, 256, 6.148, 6.2),
        (101, 2, 256, 10.996, 11.0),
        (50, 3, 256, 7.234, 7.3),
        (50, 2, 128, 1.537, 1.5),
        (50, 3, 128, 1.809, 1.8),
    ],
)
def test_integral_regressions_tables_2_and_3(depth: int, ups: int, size: int, true: float, printed: float) -> None:
    """16 joints, counted truly. The paper's figures lie within 0.07: 6.2 and 7.3 are rounded up."""
    found = giga(macs(baseline(depth, 16, (256,) * ups), (size, size)))
    assert round(found, 3) == true
    assert abs(found - printed) < 0.07


@pytest.mark.parametrize(("depth", "millions"), [(18, 14.33), (50, 32.95), (101, 51.94)])
def test_integral_regressions_parameters(depth: int, millions: float) -> None:
    """The paper prints 12, 26 and 45 million: the classifiers, without the head that it adds."""
    assert round(parameters(baseline(depth, 16, (256, 256))) / 1e6, 2) == millions


def test_integral_regressions_volume() -> None:
    """18 joints by 64 layers; the paper states no figure."""
    network = baseline(50, 18 * 64)
    assert round(giga(macs(network, (256, 256))), 3) == 8.425
    assert round(parameters(network) / 1e6, 2) == 34.29


def test_hourglasses() -> None:
    """DARK's 2.7 and 4.9 at 128 x 96, where 24 columns halve only three times: a quarter of the count at 256 x 192."""
    for stacks, printed, ours in ((4, 2.7, 2.68), (8, 4.9, 4.91)):
        quarter = giga(macs(hourglasses(17, stacks), (256, 192), "published"), "published") / 4
        assert round(quarter, 2) == ours
        assert round(quarter, 1) == printed
    assert round(giga(macs(hourglasses(16, 8), (256, 256))), 2) == 28.09


def test_a_dilated_network_costs_what_its_cells_cost() -> None:
    """Finer by two in each axis is four times the work in the stages behind the change, and none elsewhere."""
    counts = {}
    with torch.device("meta"):
        for stride in (32, 16, 8):
            counts[stride] = macs(DilatedResNet(18, stride=stride), (224, 224))
    cells = {"layer3": 14 * 14, "layer4": 7 * 7}
    weights = {"layer3": 256 * 256, "layer4": 512 * 512}
    # a stage of ResNet-18: four 3x3 convolutions and a 1x1; the first and the 1x1 read half as many channels
    stage = {k: cells[k] * (weights[k] * 9 * 3 + weights[k] // 2 * 10) for k in cells}
    assert counts[16] == counts[32] + 3 * stage["layer4"]
    assert counts[8] == counts[32] + 3 * stage["layer3"] + 15 * stage["layer4"]


# -- leaving things alone ---------------------------------------------------------------------------------------------


def snapshot(network: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in network.state_dict().items()}


def test_the_module_is_left_as_it_was() -> None:
    network = Estimator(ResNet(10, 4), DeconvHead(32, 3, (6, 5)), Heatmap(Gaussian(), MSE(), Argmax()))
    network.train()
    network.backbone.bn1.eval()  # type: ignore[union-attr, operator]
    modes = [m.training for m in network.modules()]
    same, before = list(network.parameters()), snapshot(network)
    alone = macs(nn.Sequential(network.backbone, network.head), (32, 64))
    assert macs(network, (32, 64)) == alone
    assert [m.training for m in network.modules()] == modes
    assert all(a is b for a, b in zip(network.parameters(), same, strict=True))
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert network.mean.device.type == "cpu"
    assert not any(m._forward_hooks for m in network.modules())


class Breaks(nn.Module):
    """Fails after its first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Always raises."""
        raise RuntimeError(f"after {self.conv(x).shape[1]} channels")


def test_also_after_a_failure() -> None:
    network = Breaks().train()
    with pytest.raises(RuntimeError, match="after 4 channels"):
        macs(network, (4, 6))
    assert network.training
    assert not network.conv._forward_hooks
    assert network.conv.weight.device.type == "cpu"


def test_one_image_suffices_in_training_mode() -> None:
    """A normalisation over a single value cannot be trained; it is counted in evaluation mode."""
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4)).train()
    assert macs(network, (5, 7)) == 5 * 7 * 3 * 4
    assert network[2].training


def test_half_precision_counts_alike() -> None:
    network = nn.Sequential(ResNet(10, 4), ConvHead(32, 3))
    assert macs(network.half(), (32, 64)) == macs(network.float(), (32, 64))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: macs(nn.Conv2d(3, 2, 1), (4, 6), "flops"), "counting: got 'flops', expected one of true, published"),
        (lambda: giga(3, "naive"), "counting: got 'naive'"),
        (lambda: macs(nn.Conv2d(3, 2, 1), (4,)), r"got size=\(4,\) and channels=3, expected \(height, width\)"),
        (lambda: macs(nn.Conv2d(3, 2, 1), (0, 6)), r"got size=\(0, 6\)"),
        (lambda: macs(nn.Conv2d(3, 2, 1), (4, 6), channels=0), "channels=0"),
    ],
)
def test_bad_options_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_giga() -> None:
    assert giga(2_500_000_000) == 2.5
    assert giga(3 * 1024**3, "published") == 3


class _Pairs(nn.Module):
    """Multiplies every row of a map by every other, which no layer shows, and passes a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(5, 2)

    def forward(self, x: Tensor, factor: int) -> Tensor:
        """(B, C, H, 5) -> (B, C, H, 2)."""
        return self.last(factor * x @ x.transpose(-1, -2) @ x)

    def uncounted(self, x: Tensor, factor: int) -> int:
        """The products, once more for each unit of the factor."""
        return factor * 2 * x.shape[1] * x.shape[2] ** 2 * x.shape[3]


def test_a_module_counts_what_no_layer_shows() -> None:
    """Called twice, with other arguments: each call counts."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pairs = _Pairs()

        def forward(self, x: Tensor) -> Tensor:
            """Half of the rows with factor 1, all with factor 3."""
            return self.pairs(x[:, :, :2], 1) + self.pairs(x, 3)[:, :, :2]

    linear = 3 * (2 + 4) * 5 * 2
    assert macs(Twice(), (4, 5)) == linear + 2 * 3 * 5 * (2**2 + 3 * 4**2)


def test_a_module_that_counts_may_be_called_by_keyword() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pairs = _Pairs()

        def forward(self, x: Tensor) -> Tensor:
            return self.pairs(x, factor=3)

    assert macs(Named(), (4, 5)) == 3 * 4 * 5 * 2 + 3 * 2 * 3 * 4**2 * 5


def test_windows_in_the_batch() -> None:
    """As many windows as a network likes: convolutions count one of them, linear layers each."""

    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 2, 1), nn.Linear(6, 5)

        def forward(self, x: Tensor) -> Tensor:
            """(B, 3, H, 6) -> (7 B, 2, H, 5)."""
            return self.last(self.conv(x.repeat(7, 1, 1, 1)))

    assert macs(Windows(), (4, 6)) == 4 * 6 * 3 * 2 + 7 * 2 * 4 * 6 * 5
