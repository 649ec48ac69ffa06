"""Multi-stage ResNets: one stage is the plain network; a later one reads the maps; counts by hand; volumes; weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from coordreg.backbones.multistage import MultiStage, SharedTrunk
from coordreg.backbones.resnet import DeconvHead, ResNet, parameters
from coordreg.coords import Batch, Labels
from coordreg.heatmap import MSE, Argmax, Gaussian, Heatmap
from coordreg.method import Estimator, Staged, Stages
from coordreg.spec import describe, rebuild, spec

B, J = 2, 3
WIDTHS = (6, 5)


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The deep half of a plain ResNet's weights, by a stage's names."""
    names = {"layer3.": "0.", "layer4.": "1."}
    return {names[k[:7]] + k[7:]: v for k, v in state.items() if k[:7] in names}


def plain_and_staged(depth: int, widths: tuple[int, ...], stages: int = 1) -> tuple[nn.Sequential, nn.Sequential]:
    """A plain network, and a staged one whose first stage has its weights. Heads drawn wide, so that maps matter."""
    torch.manual_seed(0)
    trunk = ResNet(depth, 4)
    head = DeconvHead(trunk.channels, J, widths)
    shared, staged = SharedTrunk(depth, 4), MultiStage(depth, 4, J, stages, widths)
    for m in (*head.modules(), *staged.heads.modules()):
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(m.weight, std=0.2)
    missing, unexpected = shared.load_state_dict(trunk.state_dict(), strict=False)
    assert not missing
    assert all(key.startswith(("layer3.", "layer4.")) for key in unexpected)
    staged.trunks[0].load_state_dict(renamed(trunk.state_dict()))
    staged.heads[0].load_state_dict(head.state_dict())
    return nn.Sequential(trunk, head), nn.Sequential(shared, staged)


# -- one stage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", [(6, 5), (6,), (6, 5, 4)])
@pytest.mark.parametrize("depth", [18, 50])
def test_one_stage_is_the_plain_network(depth: int, widths: tuple[int, ...], generator: torch.Generator) -> None:
    """In parameters, in outputs, in training and evaluation; also at sizes that several stages refuse."""
    plain, staged = plain_and_staged(depth, widths)
    assert parameters(staged) == parameters(plain)
    images = torch.randn(B, 3, 72, 104, generator=generator)
    for mode in (True, False):
        plain.train(mode), staged.train(mode)
        with torch.no_grad():
            (found,) = staged(images)
            assert torch.equal(found, plain(images))
    assert float(found.std()) > 1e-3


def test_a_single_stage_has_the_published_number_of_parameters() -> None:
    """R50 with two upsamplings and 16 joints: 32.95 million, as the plain network."""
    with torch.device("meta"):
        assert parameters(SharedTrunk()) + parameters(MultiStage(stages=1)) == 32_950_352


@pytest.mark.parametrize(
    ("depth", "added"),
    [
        (18, 16 * (9 * 256 + 256)),  # a 3x3 convolution and the skip path's, both to 256 channels
        (50, 16 * (256 + 1024)),  # a 1x1 convolution to 256 channels and the skip path's to 1024
    ],
)
@pytest.mark.parametrize("stages", [2, 4])
def test_each_further_stage_by_hand(depth: int, added: int, stages: int) -> None:
    """conv4, conv5 and a head again, and weights for 16 more channels where the stage begins."""
    with torch.device("meta"):
        trunk, first = ResNet(depth), parameters(MultiStage(depth, stages=1))
        head = DeconvHead(trunk.channels, 16, (256, 256))
        assert first == parameters(trunk.layer3) + parameters(trunk.layer4) + parameters(head)
        assert parameters(MultiStage(depth, stages=stages)) == stages * first + (stages - 1) * added
        assert parameters(SharedTrunk(depth)) == parameters(trunk) + parameters(head) - first


# -- several stages ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [18, 50])
def test_a_later_stage_reads_features_and_maps(depth: int, generator: torch.Generator) -> None:
    """The first C channels of its input are the shared features, the last J the maps before it."""
    plain, staged = plain_and_staged(depth, WIDTHS, stages=3)
    shared, head = staged[0], staged[1]
    staged.eval(), plain.eval()
    images = torch.randn(B, 3, 64, 96, generator=generator)
    with torch.no_grad():
        features, outputs = shared(images), staged(images)
        assert features.shape == (B, head.channels, 8, 12)
        assert [tuple(o.shape) for o in outputs] == [(B, J, 8, 12)] * 3
        torch.testing.assert_close(outputs[0], plain(images))
        for i in (1, 2):
            again = head.heads[i](head.trunks[i](torch.cat([features, outputs[i - 1]], 1)))
            torch.testing.assert_close(outputs[i], again)
        # blind to the maps and with the first stage's weights, the second repeats the first
        state = {k: v.clone() for k, v in head.trunks[0].state_dict().items()}
        for key in ("0.0.conv1.weight", "0.0.downsample.0.weight"):
            state[key] = nn.functional.pad(state[key], (0, 0, 0, 0, 0, J))
        head.trunks[1].load_state_dict(state)
        head.heads[1].load_state_dict(head.heads[0].state_dict())
        first, second, _ = staged(images)
        torch.testing.assert_close(second, first)
        head.trunks[1][0][0].conv1.weight[:, -1] += 1  # sighted for the last joint alone
        assert not torch.allclose(staged(images)[1], first, atol=1e-4)


@pytest.mark.parametrize("bins", [(), (1, 4, 2)])
def test_gradients_reach_every_parameter(bins: tuple[int, ...], generator: torch.Generator) -> None:
    torch.manual_seed(0)
    shared, head = SharedTrunk(18, 4).double(), MultiStage(18, 4, J, 3, WIDTHS, bins).double()
    outputs = head(shared(torch.randn(B, 3, 64, 96, generator=generator, dtype=torch.float64)))
    sum((o - 1).square().mean() for o in outputs).backward()
    for name, p in [*shared.named_parameters(), *head.named_parameters()]:
        assert p.grad is not None, name
        assert bool((p.grad != 0).any()), name


def test_the_first_stage_learns_from_the_last(generator: torch.Generator) -> None:
    head = MultiStage(18, 4, J, 2, WIDTHS)
    head(torch.randn(B, 8, 8, 4, generator=generator))[1].square().mean().backward()
    assert head.heads[0].final.weight.grad is not None
    assert bool((head.heads[0].final.weight.grad != 0).any())


def test_volumes_are_joint_major_and_read_whole(generator: torch.Generator) -> None:
    """Two stages of 2 and 5 layers; the second reads J x 2 more channels."""
    head = MultiStage(18, 4, J, 2, WIDTHS, bins=(2, 5)).eval()
    assert head.trunks[1][0][0].conv1.in_channels == 8 + J * 2
    x = torch.randn(B, 8, 4, 8, generator=generator)
    with torch.no_grad():
        first, second = head(x)
        assert first.shape == (B, J, 2, 4, 8)
        assert second.shape == (B, J, 5, 4, 8)
        flat = head.heads[0](head.trunks[0](x))
        for j in range(J):
            for d in range(2):
                assert torch.equal(first[:, j, d], flat[:, j * 2 + d])


def test_published_weights_start_every_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """conv4 and conv5 are the published ones; added channels lie behind and are drawn as torchvision draws."""
    name = "ResNet18_Weights.IMAGENET1K_V1"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    state = torchvision.models.resnet18().state_dict()
    torch.save(state, folder / "resnet18-f37072fd.pth")
    shared, head = SharedTrunk(18, weights=name), MultiStage(18, joints=16, stages=2, weights=name)
    assert all(torch.equal(value, state[key]) for key, value in shared.state_dict().items())
    for i, trunk in enumerate(head.trunks):
        found, expected = trunk.state_dict(), renamed(state)
        assert found.keys() == set(expected)
        for key, value in found.items():
            if i == 1 and key in ("0.0.conv1.weight", "0.0.downsample.0.weight"):
                assert torch.equal(value[:, :128], expected[key])
                assert value.shape[1] == 128 + 16
                std = (2 / (value.shape[0] * value.shape[2] ** 2)) ** 0.5  # He et al. 2015, by outputs
                assert float(value[:, 128:].std()) == pytest.approx(std, rel=0.1)
            else:
                assert torch.equal(value, expected[key])
    with pytest.raises(ValueError, match="are for width 64, got width=8"):
        MultiStage(18, 8, weights=name)


# -- in its place -----------------------------------------------------------------------------------------------------


def test_as_an_estimator(generator: torch.Generator) -> None:
    described = spec(
        Estimator,
        backbone=spec(SharedTrunk, depth=10, width=4),
        head=spec(MultiStage, depth=10, width=4, joints=J, stages=2, widths=WIDTHS),
        method=spec(Staged, method=spec(Heatmap, target=Gaussian(sigma=1.0), loss=MSE(), decoder=Argmax())),
    )
    estimator = rebuild(describe(described)).build()
    assert estimator.head.produces is Stages
    coords = torch.rand(B, J, 2, generator=generator) - 0.5
    images = torch.rand(B, 3, 32, 64, generator=generator)
    visible = torch.ones(B, J, dtype=torch.bool)
    eye = torch.eye(2, 3).repeat(B, 1, 1)
    loss = estimator.loss(Batch(images, Labels(coords, torch.ones(B, J, 2)), visible, torch.ones(B), eye, None))
    torch.testing.assert_close(loss["loss"], loss["stage0"] + loss["stage1"])
    assert estimator.predict(images, flip=((0, 2),)).coords.shape == (B, J, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MultiStage(20), "got depth=20, expected one of"),
        (lambda: SharedTrunk(20), "got depth=20, expected one of"),
        (lambda: MultiStage(10, 4, joints=0), "got joints=0, expected at least 1"),
        (lambda: MultiStage(10, 4, stages=0), "MultiStage: got 0 stages"),
        (lambda: MultiStage(10, 4, 3, 2, (4, 4, 4)), "got 3 upsamplings with 2 stages, expected 2: from 1/32"),
        (lambda: MultiStage(10, 4, 3, 2, (4,)), "got 1 upsamplings with 2 stages"),
        (lambda: MultiStage(10, 4, 3, 2, bins=(1, 2, 3)), r"MultiStage: got bins=\(1, 2, 3\) for 2 stages"),
        (
            lambda: MultiStage(10, 4, 3, 2, WIDTHS)(torch.zeros(2, 8, 9, 12)),
            "shared features of 9 x 12 cells, expected multiples of 4.*images whose sides are multiples of 32",
        ),
        (
            lambda: MultiStage(10, 4, 3, 1, WIDTHS)(torch.zeros(2, 32, 4, 8)),
            "features of 32 channels, expected 8; use it behind a SharedTrunk",
        ),
    ],
)
def test_bad_input_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
