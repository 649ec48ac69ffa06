"""The one interface: what an Estimator accepts, the flip test, stages."""

from collections.abc import Iterator

import jaxtyping
import pytest
import torch
from torch import Tensor, nn

from coordreg.backbones.resnet import ConvHead, ResNet
from coordreg.coords import Batch, Labels, Points, flip_labels
from coordreg.heatmap import MSE, Argmax, Gaussian, Heatmap
from coordreg.method import (
    MEAN,
    STD,
    Estimator,
    Maps,
    Method,
    Staged,
    Stages,
    Vectors,
    Volumes,
    averaged,
    both_sides,
    evaluating,
)

B, J, H, W = 2, 3, 5, 4
PAIRS = ((0, 2),)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Without the shape checks of the tests, as a reader runs the code: its own messages must do."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def heatmap() -> Heatmap:
    return Heatmap(Gaussian(sigma=1.0), MSE(), Argmax())


def estimator() -> Estimator:
    torch.manual_seed(0)
    return Estimator(ResNet(10, 4), ConvHead(32, J), heatmap())


# -- outputs by kind --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "shape"), [(Maps, (B, J, H, W)), (Volumes, (B, J, 6, H, W)), (Vectors, (B, J, 3))])
def test_unflip_and_merge_by_kind(kind: type[Maps], shape: tuple[int, ...], generator: torch.Generator) -> None:
    output = torch.randn(shape, generator=generator)
    back = kind.unflip(output, PAIRS)
    assert output.ndim == kind.ndim
    assert torch.equal(kind.unflip(back, PAIRS), output)
    if kind is Vectors:
        assert torch.equal(back[:, 0, 0], -output[:, 2, 0])
        assert torch.equal(back[:, 1, 1:], output[:, 1, 1:])
    else:
        assert torch.equal(back[:, 0, ..., 0], output[:, 2, ..., -1])
        assert torch.equal(back[:, 1, ..., 1], output[:, 1, ..., -2])
    torch.testing.assert_close(kind.merge([output, 3 * output]), 2 * output)


def test_a_method_must_write_its_three_functions() -> None:
    labels = Labels(torch.zeros(B, J, 2), torch.ones(B, J, 2))
    for call in (
        lambda: Method().encode(labels, (H, W)),
        lambda: Method().loss(None, labels),
        lambda: Method().decode(0),
    ):
        with pytest.raises(NotImplementedError):
            call()


# -- stages -----------------------------------------------------------------------------------------------------------


def test_staged_sums_the_losses_of_all_stages(generator: torch.Generator) -> None:
    stages = [torch.randn(B, J, H, W, generator=generator, requires_grad=True) for _ in range(3)]
    labels = Labels(torch.rand(B, J, 2, generator=generator) - 0.5, torch.ones(B, J, 2))
    found = Staged(heatmap()).loss(stages, labels)
    alone = [heatmap().loss(stage, labels)["loss"] for stage in stages]
    torch.testing.assert_close(found["loss"], alone[0] + alone[1] + alone[2])
    assert list(found) == ["stage0", "stage1", "stage2", "loss"]
    found["loss"].backward()
    assert all(bool((stage.grad != 0).all()) for stage in stages if stage.grad is not None)
    assert all(stage.grad is not None for stage in stages)


def test_staged_decodes_the_last_stage_and_flips_and_merges_every_one(generator: torch.Generator) -> None:
    stages = [torch.randn(B, J, H, W, generator=generator) for _ in range(2)]
    method = Staged(heatmap())
    for got, expected in zip(method.decode(stages), heatmap().decode(stages[1]), strict=True):
        assert torch.equal(got, expected)
    assert not torch.equal(method.decode(stages).coords, heatmap().decode(stages[0]).coords)
    for got, stage in zip(method.unflip(stages, PAIRS), stages, strict=True):
        assert torch.equal(got, Maps.unflip(stage, PAIRS))
    merged = method.merge([stages, [3 * s for s in stages]])
    for got, stage in zip(merged, stages, strict=True):
        torch.testing.assert_close(got, 2 * stage)
    labels = Labels(torch.zeros(B, J, 2), torch.ones(B, J, 2))
    assert torch.equal(method.encode(labels, (H, W)).maps, heatmap().encode(labels, (H, W)).maps)


@pytest.mark.parametrize("output", [torch.zeros(B, J, H, W), []], ids=["tensor", "empty"])
def test_staged_refuses_what_is_not_a_list_of_stages(output: object, unchecked: None) -> None:
    labels = Labels(torch.zeros(B, J, 2), torch.ones(B, J, 2))
    with pytest.raises(ValueError, match="expected a non-empty list of stage outputs; use the method itself"):
        Staged(heatmap()).loss(output, labels)  # type: ignore[arg-type]


# -- estimator --------------------------------------------------------------------------------------------------------


def test_estimator_refuses_a_head_that_does_not_produce_what_the_method_reads() -> None:
    with pytest.raises(ValueError, match=r"Staged reads Stages but the head ConvHead produces Maps.*produces = Stages"):
        Estimator(ResNet(10, 4), ConvHead(32, J), Staged(heatmap()))
    with pytest.raises(ValueError, match=r"Heatmap reads Maps but the head Identity produces nothing it declares"):
        Estimator(ResNet(10, 4), nn.Identity(), heatmap())
    assert Staged.reads is Stages


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 1, 32, 32), (2, 32, 32, 3)])
def test_wrong_image_shapes_are_refused(shape: tuple[int, ...], unchecked: None) -> None:
    with pytest.raises(ValueError, match=r"got images of shape .*, expected \(B, 3, H, W\) in \[0, 1\]; add a"):
        estimator()(torch.zeros(shape))


def test_images_are_normalised_before_the_backbone() -> None:
    """Images of ImageNet's mean colour arrive as 0, one deviation above it as 1."""

    class Passes(nn.Module):
        produces = Maps

        def forward(self, x: Tensor) -> Tensor:
            return x

    plain = Estimator(Passes(), Passes(), heatmap())
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    torch.testing.assert_close(plain(mean.expand(B, 3, H, W)), torch.zeros(B, 3, H, W))
    torch.testing.assert_close(plain((mean + std).expand(B, 3, H, W)), torch.ones(B, 3, H, W))
    assert not plain.state_dict()  # the constants are not stored with the weights


def test_loss_of_a_batch_is_the_methods(generator: torch.Generator) -> None:
    images = torch.rand(B, 3, 64, 96, generator=generator)
    labels = Labels(torch.rand(B, J, 2, generator=generator) - 0.5, torch.ones(B, J, 2))
    visible, affine = torch.ones(B, J, dtype=torch.bool), torch.eye(2, 3).repeat(B, 1, 1)
    model = estimator().eval()
    batch = Batch(images, labels, visible, torch.ones(B), affine)
    torch.testing.assert_close(model.loss(batch)["loss"], heatmap().loss(model(images), labels)["loss"])
    assert model(images).shape == (B, J, 2, 3)


def test_predict_is_in_evaluation_mode_and_puts_the_mode_back(generator: torch.Generator) -> None:
    images = torch.rand(B, 3, 64, 96, generator=generator)
    model = estimator().train()
    model.backbone.bn1.eval()  # a layer frozen by its owner stays frozen
    before = {k: v.clone() for k, v in model.state_dict().items()}
    first, second = model.predict(images), model.predict(images[:1])
    torch.testing.assert_close(first.coords[:1], second.coords)  # no batch statistics
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.training
    assert model.backbone.layer1.training
    assert not model.backbone.bn1.training
    assert not first.coords.requires_grad


def test_predict_puts_the_mode_back_after_an_error(unchecked: None) -> None:
    model = estimator().train()
    with pytest.raises(ValueError, match="got images of shape"):
        model.predict(torch.zeros(3, 32, 32))
    assert model.training


def test_flip_test_of_a_perfectly_symmetric_network_changes_nothing() -> None:
    """A network that commutes with mirroring: the flip test must return what the plain pass returns."""

    class Cells(nn.Module):
        produces = Maps

        def forward(self, x: Tensor) -> Tensor:
            return x[:, :3]

    model = Estimator(Cells(), Cells(), heatmap())
    images = torch.rand(B, 3, H, W, generator=torch.Generator().manual_seed(1))
    plain, flipped = model.predict(images), model.predict(images, flip=())
    for got, expected in zip(flipped, plain, strict=True):
        torch.testing.assert_close(got, expected)
    # with pairs, channels 0 and 2 of the mirrored pass are exchanged: by hand, the mean of the two
    by_hand = heatmap().decode((model(images) + model(images)[:, [2, 1, 0]]) / 2)
    torch.testing.assert_close(model.predict(images, flip=PAIRS).coords, by_hand.coords)


@pytest.mark.parametrize("width", [4, 7])
def test_unflip_of_the_encoded_mirror_is_the_encoding(width: int, generator: torch.Generator) -> None:
    labels = Labels(torch.rand(B, J, 2, generator=generator) * 2.2 - 1.1, torch.ones(B, J, 2))
    labels.weight[0, 0] = 0
    method = heatmap()
    straight = method.encode(labels, (H, width))
    mirrored = method.encode(flip_labels(labels, PAIRS), (H, width))
    torch.testing.assert_close(method.unflip(mirrored.maps, PAIRS), straight.maps, atol=1e-5, rtol=1e-4)
    assert torch.equal(mirrored.weight[:, [2, 1, 0]], straight.weight)


# -- for estimators with a `predict` of their own ---------------------------------------------------------------------


def test_every_part_gets_its_own_mode_back(unchecked: None) -> None:
    model = estimator().train()
    model.backbone.bn1.eval()
    before = [part.training for part in model.modules()]
    with evaluating(model):
        assert not any(part.training for part in model.modules())
    assert [part.training for part in model.modules()] == before
    with pytest.raises(ValueError, match="got images of shape"), evaluating(model):  # noqa: PT012
        model.train()
        model(torch.zeros(3, 32, 32))
    assert [part.training for part in model.modules()] == before


def test_points_of_both_sides_by_hand() -> None:
    """`predict` finds joint 0 where the picture says and joint 2, its pair, where the hint does."""
    images = torch.zeros(1, 3, 2, 3)
    images[0, 0, 0] = torch.tensor([0.5, 0.0, -0.25])
    seen: list[Tensor | None] = []

    def predict(images: Tensor, hint: Tensor | None) -> Points:
        seen.append(hint)
        place = torch.zeros(1, 2) if hint is None else hint
        coords = torch.stack([images[:, 0, 0, [0, 2]], torch.tensor([[0.0, 0.125]]), place], 1)
        return Points(coords, torch.tensor([[1.0, 2.0, 5.0]]))

    one, other = both_sides(predict, images, torch.tensor([[0.75, -0.5]]), PAIRS)
    assert one.coords.tolist() == [[[0.5, -0.25], [0.0, 0.125], [0.75, -0.5]]]
    # found in the mirror image: (-0.25, 0.5) and the hint (-0.75, -0.5)
    assert other.coords.tolist() == [[[0.75, -0.5], [0.0, 0.125], [0.25, 0.5]]]
    assert (one.score.tolist(), other.score.tolist()) == ([[1, 2, 5]], [[5, 2, 1]])
    mean = averaged(one, other)
    assert mean.coords.tolist() == [[[0.625, -0.375], [0.0, 0.125], [0.5, 0.0]]]
    assert mean.score.tolist() == [[3, 2, 3]]
    both_sides(predict, images, None, PAIRS)
    assert seen[2:] == [None, None]
