"""Several networks as one: the mean of maps against a slow loop, what does not fit, and checkpoints for `predict`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

from coordreg.__main__ import app
from coordreg.backbones.hourglass import Hourglasses
from coordreg.backbones.ragged import RaggedHourglasses
from coordreg.backbones.resnet import ConvHead, ResNet, head, parameters, trunk_channels
from coordreg.coords import Batch, Labels, flip_images
from coordreg.dark import Dark
from coordreg.data.coco import COCO
from coordreg.data.mpii import MPII
from coordreg.data.skeletons import COCO17, MPII16
from coordreg.ensemble import Ensemble
from coordreg.heatmap import MSE, Argmax, Gaussian, Heatmap
from coordreg.integral import Integral
from coordreg.method import Estimator, Staged, Stages
from coordreg.mrf import SpatialEstimator, SpatialModel
from coordreg.predict import Predictor, load_predictor, predict_people
from coordreg.spec import describe, spec
from coordreg.train import save_checkpoint

B, J, H, W = 2, 3, 24, 32
PAIRS = ((0, 2),)


def member(seed: int, decoder: Any = Argmax(), stride: int = 4, joints: int = J) -> Estimator:
    """Maps that are weighted sums of the averaged colours."""
    torch.manual_seed(seed)
    maps = ConvHead(3, joints)
    nn.init.normal_(maps.final.weight)
    return Estimator(nn.AvgPool2d(stride), maps, Heatmap(Gaussian(1.0), MSE(), decoder))


class Twice(nn.Module):
    """A head in two stages, of which the first is nonsense."""

    produces = Stages

    def __init__(self, maps: ConvHead) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, x: Tensor) -> list[Tensor]:
        return [torch.full((1,), 99.0), self.maps(x)]


IMAGES = torch.rand(B, 3, H, W, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("flip", [None, PAIRS])
def test_maps_are_averaged_and_then_read(flip: Any) -> None:
    """By a loop over images, joints and cells: every member and every mirror image has the same weight."""
    networks = [member(seed).eval() for seed in range(3)]
    found = Ensemble(networks).predict(IMAGES, flip=flip)
    swapped = [2, 1, 0]
    with torch.no_grad():
        outputs = [network(IMAGES) for network in networks]
        mirrored = [network(flip_images(IMAGES)) for network in networks]
    for b in range(B):
        for j in range(J):
            best = (-np.inf, 0, 0)
            for y in range(H // 4):
                for x in range(W // 4):
                    cells = [float(o[b, j, y, x]) for o in outputs]
                    if flip:
                        cells += [float(o[b, swapped[j], y, W // 4 - 1 - x]) for o in mirrored]
                    best = max(best, (sum(cells) / len(cells), x, y))
            assert float(found.score[b, j]) == pytest.approx(best[0], abs=1e-5)
            assert found.coords[b, j].tolist() == pytest.approx(
                [(2 * best[1] + 1) / (W // 4) - 1, (2 * best[2] + 1) / (H // 4) - 1]
            )


def test_one_member_is_itself_and_modes_are_put_back() -> None:
    network = member(0)
    network.train()
    torch.testing.assert_close(Ensemble([network]).predict(IMAGES), network.predict(IMAGES))
    both = Ensemble([network, member(1)])
    both.predict(IMAGES)
    assert all(module.training for module in both.modules())
    assert not torch.allclose(both.predict(IMAGES).score, network.predict(IMAGES).score)
    assert sum(p.numel() for p in both.parameters()) == 2 * sum(p.numel() for p in network.parameters())


def test_of_stages_the_last_counts() -> None:
    plain = member(0)
    staged = Estimator(nn.AvgPool2d(4), Twice(member(1).head), Staged(member(1).method))  # type: ignore[arg-type]
    mixed, flat = Ensemble([staged, plain]), Ensemble([member(1), plain])
    torch.testing.assert_close(mixed.predict(IMAGES, flip=PAIRS), flat.predict(IMAGES, flip=PAIRS))


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(ValueError, match="no members, expected trained estimators"):
        Ensemble([])
    with pytest.raises(ValueError, match=r"members 0 and 2 do not read .* decoder is Argmax.* here and Dark.* there"):
        Ensemble([member(0), member(1), member(2, Dark(3))])
    learnt = [Estimator(nn.AvgPool2d(4), ConvHead(3, J), Integral()) for _ in range(2)]
    with pytest.raises(ValueError, match="members 0 and 1 do not read their maps alike: method is 'Heatmap'"):
        Ensemble([member(0), learnt[0]])
    with pytest.raises(ValueError, match="Integral has learnt how to read"):
        Ensemble(learnt)
    with pytest.raises(ValueError, match=r"24 x 32 px the members make \(3, 6, 8\) and \(3, 12, 16\)"):
        Ensemble([member(0), member(1, stride=2)]).predict(IMAGES)
    with pytest.raises(ValueError, match=r"\(3, 6, 8\) and \(4, 6, 8\) \(joints first\)"):
        Ensemble([member(0), member(1, joints=4)]).predict(IMAGES)
    coords = torch.zeros(B, J, 2)
    batch = Batch(IMAGES, Labels(coords, coords), torch.ones(B, J), torch.ones(B), torch.zeros(B, 2, 3))
    spatial = SpatialEstimator(
        nn.AvgPool2d(4), ConvHead(3, J), Heatmap(Gaussian(1.0), MSE(), Argmax()), SpatialModel((-1, 0, 1), (6, 8))
    )
    with pytest.raises(ValueError, match="a SpatialEstimator reads more than its maps"):
        Ensemble([spatial, spatial])
    with pytest.raises(ValueError, match="train its members one by one"):
        Ensemble([member(0), member(1)]).loss(batch)


# -- checkpoints -------------------------------------------------------------------------------------------------------


def checkpoint(path: Path, test: Any, joints: int, seed: int) -> Estimator:
    """A network that nobody trained, as a run leaves it."""
    torch.manual_seed(seed)
    maps = spec(head, channels=trunk_channels(10, 4), joints=joints, widths=(4, 4))
    method = spec(Heatmap, target=Gaussian(1.0), loss=MSE(), decoder=Argmax())
    # the name of published weights, which are not to be fetched: they would not fit
    named = {"depth": 10, "width": 4, "weights": "ResNet18_Weights.IMAGENET1K_V1"}
    made = spec(Estimator, backbone=spec(ResNet, depth=10, width=4), head=maps, method=method)
    network: Estimator = made.build()
    nn.init.normal_(network.head.final.weight, std=1.0)  # type: ignore[union-attr, arg-type]
    config = {"estimator": describe(made.replace(backbone=spec(ResNet, **named))), "test": describe(test)}
    save_checkpoint(path, {"model": network.state_dict(), "config": json.dumps(config), "step": 1})
    return network.eval()


def test_checkpoints_of_the_real_sets_predict(tmp_path: Path) -> None:
    """Joints and crops as their configuration says; a crop of aspect 4:3 grows about the box as in training."""
    network = checkpoint(tmp_path / "a.pt", COCO(split="val2017", size=(64, 32)), 17, 0)
    checkpoint(tmp_path / "b.pt", MPII(split="valid", size=64), 16, 1)
    coco, mpii = (load_predictor(tmp_path / name) for name in ("a.pt", "b.pt"))
    assert (coco.shape, coco.skeleton) == ((64, 32), COCO17)
    assert (mpii.shape, mpii.skeleton) == ((64, 64), MPII16)
    seen: list[Tensor] = []

    def watch(images: Tensor, hint: Any = None, flip: Any = None) -> Any:
        seen.append(images)
        return Estimator.predict(network, images, hint, flip)

    network.predict = watch  # type: ignore[method-assign]
    image = torch.zeros(3, 120, 120)
    image[:, 40:60, 50:58] = 1
    points, _ = Predictor(network, (64, 32), COCO17)(image, (49.5, 39.5, 8.0, 20.0))
    white = seen[0][0, 0] > 0.5  # 8 x 20 px grow to 10 x 20 and to 12.5 x 25 for 32 x 64
    assert white.sum(0).max() == pytest.approx(64 * 20 / 25, abs=1.5)
    assert white.sum(1).max() == pytest.approx(32 * 8 / 12.5, abs=1.5)
    assert points.shape == (17, 2)
    assert (points - torch.tensor([53.5, 49.5])).abs().amax(0).tolist() <= [6.25, 12.5]
    assert len(predict_people(coco, image, [((49.5, 39.5, 8.0, 20.0), 1.0)])) == 1


def test_several_checkpoints_are_one_predictor(tmp_path: Path) -> None:
    networks = [checkpoint(tmp_path / f"{i}.pt", COCO(split="val2017", size=(64, 32)), 17, i) for i in range(2)]
    both = load_predictor(tmp_path / "0.pt", tmp_path / "1.pt")
    image = torch.rand(3, 90, 70, generator=torch.Generator().manual_seed(0))
    want = Predictor(Ensemble(networks).eval(), (64, 32), COCO17)(image)
    torch.testing.assert_close(both(image), want)
    for other, told in ((MPII(split="valid", size=64), "mpii16 in crops of 64 x 64"),
                        (COCO(split="val2017", size=64), "coco17 in crops of 64 x 64")):  # fmt: skip
        checkpoint(tmp_path / "other.pt", other, 16 if isinstance(other, MPII) else 17, 3)
        with pytest.raises(ValueError, match=rf"0.pt finds coco17 in crops of 64 x 32 px, other.pt {told}"):
            load_predictor(tmp_path / "0.pt", tmp_path / "other.pt")


def test_the_command_takes_several_checkpoints(tmp_path: Path) -> None:
    for i in range(2):
        checkpoint(tmp_path / f"{i}.pt", COCO(split="val2017", size=(64, 32)), 17, i)
    pixels = np.random.default_rng(0).integers(0, 255, (90, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "me.png")
    given = [part for i in range(2) for part in ("--checkpoint", str(tmp_path / f"{i}.pt"))]
    done = CliRunner().invoke(app, ["predict", str(tmp_path / "me.png"), *given, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "out" / "me-joints.json").read_text())["joints"]
    image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    points, score = load_predictor(tmp_path / "0.pt", tmp_path / "1.pt")(image)
    assert [told[name]["x"] for name in COCO17.joints] == pytest.approx(points[:, 0].tolist(), abs=0.01)
    assert [told[name]["score"] for name in COCO17.joints] == pytest.approx(score.tolist(), abs=1e-3)


# -- hourglasses on odd maps -------------------------------------------------------------------------------------------


def test_ragged_hourglasses_are_hourglasses_where_maps_halve_evenly() -> None:
    torch.manual_seed(0)
    ragged, even = RaggedHourglasses(8, J, 2, 2).eval(), Hourglasses(8, J, 2, 2).eval()
    even.load_state_dict(ragged.state_dict())  # the same names and shapes
    x = torch.rand(B, 8, 8, 12)
    for ours, theirs in zip(ragged(x), even(x), strict=True):
        assert torch.equal(ours, theirs)
    assert parameters(ragged) == parameters(even)


def test_ragged_hourglasses_return_to_odd_sizes_by_the_nearest_cell() -> None:
    """32 x 24 halved four times is 2 x 1, which comes back as 4 x 3; a vanishing map and foreign channels are told."""
    torch.manual_seed(0)
    network = RaggedHourglasses(4, J, 1, 4).eval()
    sizes: list[tuple[int, ...]] = []
    for hourglass in (m for m in network.modules() if type(m).__name__ == "RaggedHourglass"):
        hourglass.up.register_forward_hook(lambda m, i, o: sizes.append(tuple(o.shape[-2:])))
    (maps,) = network(torch.rand(B, 4, 32, 24))
    assert maps.shape == (B, J, 32, 24)
    assert sizes == [(2, 1), (4, 3), (8, 6), (16, 12)]
    with pytest.raises(ValueError, match=r"4 channels on 32 x 15 cells, expected 4 channels, and at least 16 cells"):
        network(torch.rand(B, 4, 32, 15))
    with pytest.raises(ValueError, match="features of 5 channels"):
        network(torch.rand(B, 5, 32, 24))
