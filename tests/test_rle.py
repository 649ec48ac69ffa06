"""Chapter 7, residual log-likelihood estimation: the loss counted by hand and by loops, scores, and a tiny training."""

import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from coordreg.backbones.cost import macs
from coordreg.backbones.resnet import ResNet
from coordreg.coords import Batch, Labels, Points, flip_coords, flip_images
from coordreg.flow import Laplace, Mixed, Normal, RealNVP, log_s
from coordreg.integral import PooledHead
from coordreg.method import Estimator
from coordreg.metrics.coco_ap import person_scores
from coordreg.records import Reading
from coordreg.rle import (
    POSEUR_RELEASE,
    RLE,
    RLE_RELEASE,
    VARIANTS,
    DistributionHead,
    Sharpness,
    Terms,
    Unscored,
    Within,
    instance_score,
    keypoint_score,
    log_likelihood,
    without_flow,
)
from coordreg.spec import describe, rebuild, spec
from coordreg.train import Cosine

B, J, H, W = 2, 3, 96, 64
PAIRS = ((0, 2),)
NAN = math.nan
F64 = torch.float64
NAMED = {"derived": Terms(), "rle-release": RLE_RELEASE, "poseur-release": POSEUR_RELEASE}
VARIANT = pytest.mark.parametrize("name", NAMED)


def raw(width: float, floor: float = 1e-3) -> float:
    """The raw number whose width is `width`, in normalised coordinates."""
    share = (width / 2 - floor) / (1 - floor)
    return math.log(share / (1 - share))


def drawn(d: int, seed: int = 0) -> Tensor:
    """Centres and raw widths (B, J, 2d)."""
    return torch.randn(B, J, 2 * d, generator=torch.Generator().manual_seed(seed), dtype=F64)


def labels(d: int, seed: int = 1) -> Labels:
    g = torch.Generator().manual_seed(seed)
    return Labels(1.6 * torch.rand(B, J, d, generator=g, dtype=F64) - 0.8, torch.ones(B, J, d, dtype=F64))


def partly(d: int) -> Labels:
    """A joint without a label, one without a label of its last axis, one that counts half; a NaN where nothing is."""
    y = labels(d)
    y.weight[0, 1], y.coords[0, 1] = 0, NAN
    y.weight[1, 0, -1], y.coords[1, 0, -1] = 0, NAN
    y.weight[1, 2] = 0.5
    return y


def bent(d: int = 2, prior: float = 0.0, seed: int = 0) -> RealNVP:
    """A flow that is far from the identity."""
    torch.manual_seed(seed)
    flow = RealNVP(d, prior=prior, hidden=16)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.mul_(2)
    return flow


def method(name: str, d: int = 2) -> RLE:
    return RLE(bent(d, 0.5 if name == "poseur-release" else 0.0), NAMED[name]).double()


# -- the loss ----------------------------------------------------------------------------------------------------------


def test_the_loss_by_hand() -> None:
    """One joint: centre (0.3, -0.2), widths 0.5 and 0.25, label (0.1, 0.3); residuals -0.4 and 2."""
    output = torch.tensor([[[0.3, -0.2, raw(0.5), raw(0.25)]]], dtype=F64)
    y = Labels(torch.tensor([[[0.1, 0.3]]], dtype=F64), torch.ones(1, 1, 2, dtype=F64))
    widths = math.log(0.5) + math.log(0.25)
    found = RLE().loss(output, y)
    assert found.keys() == {"base", "loss"}
    assert float(found["loss"]) == pytest.approx(widths + 0.4 + 2 + 2 * math.log(2))
    normal = RLE(terms=Terms(Normal())).loss(output, y)["loss"]
    assert float(normal) == pytest.approx(widths + 0.08 + 2 + math.log(2 * math.pi))
    release = RLE(terms=RLE_RELEASE).loss(output, y)["loss"]
    assert float(release) == pytest.approx(2 * widths + 2.4 / math.sqrt(2) + math.log(2 * math.pi))


@VARIANT
@pytest.mark.parametrize("d", [2, 3])
def test_the_loss_against_a_slow_loop(name: str, d: int) -> None:
    """Every logarithm as often as its variant counts it, joint by joint; NaN where nothing is labelled."""
    output, y, made = drawn(d), partly(d), method(name, d)
    flow = made.flow
    assert flow is not None
    constant = min(2.0 * d, log_s(Laplace(), flow).item())
    base = whole = base_weight = whole_weight = 0.0
    for b in range(B):
        for j in range(J):
            weight = y.weight[b, j].tolist()
            e = []
            for axis in range(d):
                if weight[axis] == 0:
                    continue
                width = 2 * (1e-3 + (1 - 1e-3) / (1 + math.exp(-float(output[b, j, d + axis]))))
                error = (float(y.coords[b, j, axis]) - float(output[b, j, axis])) / width
                if name == "derived":
                    value = math.log(width) + abs(error) + math.log(2)
                else:
                    value = 2 * math.log(width) + abs(error) / math.sqrt(2) + math.log(math.sqrt(2 * math.pi))
                base += max(weight) * value
                e.append(error if name == "derived" else -error)
            base_weight += max(weight)
            if len(e) == d:
                value = -float(flow.log_prob(torch.tensor([e], dtype=F64)).detach())
                whole += weight[0] * (value - constant if name == "derived" else d * value)
                whole_weight += weight[0]
    over = {"derived": (base_weight, whole_weight), "rle-release": (B, B), "poseur-release": (B * J, B * J)}[name]
    found = made.loss(output, y)
    assert float(found["base"]) == pytest.approx(base / over[0])
    assert float(found["flow"].detach()) == pytest.approx(whole / over[1])
    assert float(found["loss"].detach()) == pytest.approx(base / over[0] + whole / over[1])


@pytest.mark.parametrize("terms", [Terms(), Terms(Normal()), Terms(Mixed(), sign=-1)], ids=str)
@pytest.mark.parametrize("with_flow", [True, False])
def test_the_density_integrates_to_one_over_the_label(terms: Terms, with_flow: bool) -> None:
    """Whatever flow, centre and widths: over normalised coordinates, with every term counted once."""
    n, reach = 300, 4.0
    line = (torch.arange(n) + 0.5) * (2 * reach / n) - reach
    cells = torch.cartesian_prod(line, line)
    mean, width = torch.tensor([0.2, -0.4]).expand_as(cells), torch.tensor([0.3, 0.5]).expand_as(cells)
    with torch.no_grad():
        found = log_likelihood(cells, mean, width, bent() if with_flow else None, terms)
    assert float(found.exp().sum()) * (2 * reach / n) ** 2 == pytest.approx(1, abs=1e-2)


def test_the_derived_loss_is_the_mean_log_likelihood_and_the_released_are_none() -> None:
    output, y, flow = drawn(2), labels(2), bent().double()
    made = RLE(flow)
    found = log_likelihood(y.coords, *made.read(output), flow, nodes=256)
    assert log_s(Laplace(), flow).item() < 4  # the loss counts it in full
    torch.testing.assert_close(made.loss(output, y)["loss"], -found.mean())
    bare = RLE(terms=replace(RLE_RELEASE, average="labelled"))
    n, reach = 500, 10.0
    line = (torch.arange(n, dtype=F64) + 0.5) * (2 * reach / n) - reach
    cells = torch.cartesian_prod(line, line).unsqueeze(1)
    one = torch.tensor([0.1, 0.2, raw(0.4), raw(0.8)], dtype=F64)
    values = [bare.loss(one.view(1, 1, 4), Labels(c[None], torch.ones_like(c[None])))["loss"] for c in cells[::9973]]
    mean, width = bare.read(one.expand(len(cells), 1, 4))
    density = (-(2 * width.log() - Mixed()((cells - mean) / width)).sum(-1)).exp()
    torch.testing.assert_close(density[::9973, 0], (-torch.stack(values)).exp())
    # log sigma counted twice: an axis integrates to 1.128 / sigma
    assert float(density.sum()) * (2 * reach / n) ** 2 == pytest.approx(4 / math.pi / (0.4 * 0.8), rel=1e-2)


def test_the_best_width_is_the_mean_error_and_that_of_the_release_2_8_times_smaller() -> None:
    """The minimum of log sigma + m / sigma is at m; that of 2 log sigma + m / (sqrt 2 sigma) at m / (2 sqrt 2)."""
    error = torch.tensor([0.1, -0.3, 0.5, 0.06], dtype=F64).view(4, 1, 1).expand(4, 1, 2)
    y, mean = Labels(error, torch.ones_like(error)), 0.24
    for terms, best in ((Terms(), mean), (RLE_RELEASE, mean / (2 * math.sqrt(2)))):
        for width, sign in ((0.9 * best, -1), (best, 0), (1.1 * best, 1)):
            output = torch.tensor([0, 0, raw(width), raw(width)], dtype=F64).expand(4, 1, 4).clone().requires_grad_()
            (slope,) = torch.autograd.grad(RLE(terms=terms).loss(output, y)["loss"], output)
            pull = float(slope[..., 2:].sum())  # what the centres get does not matter here
            assert pull == pytest.approx(0, abs=1e-9) if sign == 0 else sign * pull > 0.01


def test_the_width_has_a_floor() -> None:
    output = torch.tensor([[[0.0, 0.0, -1e4, 1e4]]])
    assert RLE().read(output)[1].flatten().tolist() == pytest.approx([0.002, 2.0])
    assert RLE(floor=0.25).read(output)[1].flatten().tolist() == pytest.approx([0.5, 2.0])
    assert RLE().read(torch.zeros(1, 1, 4))[1].flatten().tolist() == pytest.approx([1.001, 1.001])


@VARIANT
@pytest.mark.parametrize("d", [2, 3])
def test_the_gradient_of_the_loss(name: str, d: int) -> None:
    made, y = method(name, d), partly(d)
    assert torch.autograd.gradcheck(lambda z: made.loss(z, y)["loss"], (drawn(d).requires_grad_(),))


@VARIANT
def test_what_is_not_labelled_has_no_gradient(name: str) -> None:
    made, output = method(name, 2), drawn(2).requires_grad_()
    (slope,) = torch.autograd.grad(made.loss(output, partly(2))["loss"], output)
    assert not slope[0, 1].any()
    assert slope[1, 0].bool().tolist() == [True, False, True, False]  # its y is not labelled
    assert bool(slope[[0, 1], [0, 2]].all())
    nothing = Labels(torch.full((B, J, 2), NAN, dtype=F64), torch.zeros(B, J, 2, dtype=F64))
    parts = made.loss(output, nothing)
    assert [float(v.detach()) for v in parts.values()] == [0, 0, 0]
    parts["loss"].backward()
    assert output.grad is not None
    for gradient in (output.grad, *(p.grad for p in made.parameters())):
        assert gradient is not None
        assert not gradient.any()


@VARIANT
def test_half_precision_and_autocast_give_the_loss_of_single(name: str) -> None:
    made, y = method(name, 2).float(), Labels(*(t.float() for t in partly(2)))
    for dtype in (torch.float16, torch.bfloat16):
        output = drawn(2).to(dtype).requires_grad_()
        value = made.loss(output, y)["loss"]
        (slope,) = torch.autograd.grad(value, output)
        single = output.detach().float().requires_grad_()
        (expected,) = torch.autograd.grad(made.loss(single, y)["loss"], single)
        torch.testing.assert_close(value, made.loss(single, y)["loss"], rtol=0, atol=0)
        torch.testing.assert_close(slope, expected.to(dtype))
        assert value.dtype == torch.float32
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(made.loss(single, y)["loss"], value, rtol=0, atol=0)


@VARIANT
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("width", [-6e4, -20.0, 20.0, 6e4])
@pytest.mark.parametrize("centre", [0.0, 30.0, -1e4])
def test_the_ends_are_finite(name: str, dtype: torch.dtype, width: float, centre: float) -> None:
    """The narrowest widths with errors of thousands of crops; and an error of exactly 0."""
    made = method(name, 2).float()
    output = torch.tensor([centre, centre, width, width]).expand(B, J, 4).to(dtype).requires_grad_()
    y = Labels(torch.zeros(B, J, 2), torch.ones(B, J, 2))
    value = made.loss(output, y)["loss"]
    gradients = torch.autograd.grad(value, [output, *made.parameters()])
    assert math.isfinite(float(value.detach()))
    for gradient in gradients[1:] if dtype == torch.float16 else gradients:  # float16 itself ends at 65,504
        assert bool(torch.isfinite(gradient).all())
    assert not bool(torch.isnan(gradients[0]).any())


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Terms: got average='mean', expected 'labelled', 'images' or 'all'"):
        Terms(average="mean")
    with pytest.raises(ValueError, match=r"Terms: got sign=0, expected 1, .* or -1"):
        Terms(sign=0)
    for floor in (0.0, 1.0, NAN):
        with pytest.raises(ValueError, match=rf"RLE: got floor={floor}, expected a share of the crop's side above 0"):
            RLE(floor=floor)
    with pytest.raises(ValueError, match=r"Within: got a=0.0, factor=1.0, expected both above 0"):
        Within(0.0)
    with pytest.raises(ValueError, match=r"instance_score: got rule='mean', expected 'product' or 'sum'"):
        instance_score(torch.ones(2, 3), torch.ones(2), "mean")


def test_outputs_and_labels_that_do_not_fit_are_refused() -> None:
    made, y = RLE(RealNVP()), labels(2)
    for bad in (torch.zeros(B, J, 3), torch.zeros(B, J), torch.zeros(B, J, 0)):
        with pytest.raises(ValueError, match=rf"RLE: got an output of shape \({bad.shape[0]}, .*expected \(B, J, 2d\)"):
            made.loss(bad, y)
    with pytest.raises(
        ValueError, match=r"shape \(2, 3, 6\), its points \(2, 3, 3\), for labels of shape \(2, 3, 2\);"
    ):
        made.loss(drawn(3), y)
    with pytest.raises(ValueError, match=r"for labels of shape \(2, 2, 2\); the head's joints and axes"):
        made.loss(drawn(2), Labels(y.coords[:, :2], y.weight[:, :2]))
    with pytest.raises(ValueError, match=r"RealNVP: got vectors of 3 axes, expected 2; make it with dims=3"):
        made.loss(drawn(3), labels(3))
    y.coords[1, 2, 1] = math.inf
    with pytest.raises(ValueError, match=r"labels: image 1, joint 2, axis y is not finite"):
        made.loss(drawn(2), y)
    for value in (NAN, math.inf):
        output = drawn(2)
        output[1, 2, 0] = value
        with pytest.raises(ValueError, match=r"RLE: the output of image 1, joint 2 holds NaN or infinity; the network"):
            made.decode(output)
    with pytest.raises(ValueError, match="RLE reads Distributions but the head PooledHead produces Vectors"):
        Estimator(nn.Identity(), PooledHead(8, J), RLE())


def test_encode_is_the_label() -> None:
    torch.testing.assert_close(RLE().encode(partly(2), (H, W)), torch.nan_to_num(partly(2).coords))


# -- scores ------------------------------------------------------------------------------------------------------------


def test_scores_by_hand() -> None:
    """Widths of 0.4 and 0.1 are shares of 0.2 and 0.05 of the crop."""
    output = torch.tensor([[[0.3, -0.2, raw(0.4), raw(0.1)]]], dtype=F64)
    near = (1 - math.exp(-1)) * (1 - math.exp(-4))
    for decoder, score in (
        (Sharpness(), 1 - 0.125),
        (Within(), near),
        (Within(0.2, 0.7), 0.7 * near),
        (Within(0.1), (1 - math.exp(-0.5)) * (1 - math.exp(-2))),
        (Unscored(), 1.0),
    ):
        points = RLE(decoder=decoder).decode(output)
        assert points.coords.tolist() == [[[0.3, -0.2]]]
        assert float(points.score) == pytest.approx(score)


def test_the_keypoint_score_is_the_mass_of_the_laplace_density() -> None:
    """Equation 8 against a sum over the square of side 2a about the centre."""
    width, a, n = torch.tensor([[[0.3, 0.7]]], dtype=F64), 0.15, 400
    line = (torch.arange(n, dtype=F64) + 0.5) * (4 * a / n) - 2 * a
    cells = torch.cartesian_prod(line, line)
    mass = log_likelihood(cells, torch.zeros_like(cells), width[0].expand_as(cells)).exp().sum() * (4 * a / n) ** 2
    assert float(keypoint_score(width, a)) == pytest.approx(float(mass), rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(2e-3, 2), min_size=2, max_size=3), st.floats(0.01, 1), st.floats(1.01, 3))
def test_scores_fall_with_the_width(widths: list[float], a: float, factor: float) -> None:
    width = torch.tensor([[widths]], dtype=F64)
    narrow, wide = keypoint_score(width, a), keypoint_score(factor * width, a)
    assert 0 < float(wide) <= float(narrow) <= 1
    assert float(keypoint_score(width, factor * a)) == pytest.approx(float(keypoint_score(width / factor, a)))
    assert float(Sharpness()(width, width).score) == pytest.approx(1 - sum(widths) / len(widths) / 2)


def test_instance_scores() -> None:
    scores, box = torch.tensor([[0.5, 0.9, 0.4], [1.0, 0.25, 0.3]]), torch.tensor([0.5, 0.8])
    torch.testing.assert_close(instance_score(scores, box), torch.tensor([0.3, 0.8 * 1.55 / 3]))
    torch.testing.assert_close(instance_score(scores, box, "sum"), torch.tensor([2.0, 1.8 + 1.55 / 3]))
    torch.testing.assert_close(instance_score(scores, box), person_scores(scores, box))  # all joints above 0.2


# -- mirrors -----------------------------------------------------------------------------------------------------------


def test_mirrored_outputs() -> None:
    made, output = RLE(), drawn(3)
    plain, mirrored = made.decode(output), made.decode(made.unflip(output, PAIRS))
    torch.testing.assert_close(mirrored.coords, flip_coords(plain.coords, PAIRS))
    torch.testing.assert_close(mirrored.score, plain.score[:, [2, 1, 0]])


def test_merging_averages_centres_and_widths() -> None:
    """The score of the average is the average score, as in RLE's release."""
    made, outputs = RLE(floor=0.1), [drawn(2, seed) for seed in (0, 1, 2)]
    found = made.decode(made.merge(outputs))
    each = [made.decode(output) for output in outputs]
    torch.testing.assert_close(found.coords, torch.stack([p.coords for p in each]).mean(0))
    torch.testing.assert_close(found.score, torch.stack([p.score for p in each]).mean(0))
    ends = torch.tensor([[[0.0, 0, -1e4, 1e4]]])
    torch.testing.assert_close(made.decode(made.merge([ends, ends])), made.decode(ends), atol=1e-6, rtol=0)


def estimator(flow: RealNVP | None, d: int = 2) -> Estimator:
    torch.manual_seed(0)
    model = Estimator(nn.Conv2d(3, 8, 5, 4), DistributionHead(8, J, d), RLE(flow))
    for layer in (model.head.centre, model.head.width):  # type: ignore[union-attr]
        nn.init.normal_(layer.weight, std=1.0)  # type: ignore[union-attr,arg-type]
    return model


def images() -> Tensor:
    return torch.rand(B, 3, H, W, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("d", [2, 3])
def test_a_flip_test_knows_no_left_and_right(d: int) -> None:
    model = estimator(None, d)
    found, straight = model.predict(flip_images(images()), flip=PAIRS), model.predict(images(), flip=PAIRS)
    torch.testing.assert_close(found.coords, flip_coords(straight.coords, PAIRS), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(found.score, straight.score[:, [2, 1, 0]], atol=1e-6, rtol=1e-4)
    assert float((straight.coords - model.predict(images()).coords).abs().max()) > 1e-5
    assert straight.coords.shape == (B, J, d)


# -- the network -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", [True, False])
def test_the_head_by_hand(unit: bool) -> None:
    head = DistributionHead(2, 1, 2, unit)
    head.centre.load_state_dict({"weight": torch.tensor([[1.0, 2], [0, 5]]), "bias": torch.tensor([0.5, 0])})
    head.width.load_state_dict({"weight": torch.tensor([[1.0, 0], [0, 1]]), "bias": torch.tensor([0.0, -1])})
    features = torch.tensor([[[[3.0, 5.0]], [[2.0, 4.0]]]]) - 1  # means 3 and 2
    length = math.sqrt(13) if unit else 1.0
    expected = torch.tensor([[[7 / length + 0.5, 10 / length, 3.0, 1.0]]])
    torch.testing.assert_close(head(features), expected)
    torch.testing.assert_close(head(features.mean((-2, -1))), expected)


def test_the_head_computes_in_single() -> None:
    """Under autocast and with half features; features of zeros have no direction and give the biases."""
    torch.manual_seed(0)
    head, features = DistributionHead(8, J), torch.randn(B, 8, 3, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = head(features)
    torch.testing.assert_close(found, head(features), rtol=0, atol=0)
    assert head(features.half()).dtype == torch.float32
    biases = torch.stack([head.centre.bias, head.width.bias]).view(2, J, 2).permute(1, 0, 2).reshape(J, 4)
    torch.testing.assert_close(head(torch.zeros(B, 8, 3, 2)), biases.expand(B, J, 4))


def test_the_heads_two_layers_are_counted() -> None:
    """On the meta device, in the weights' precision, half or not; 139,264 is ResNet-50's 2048 features to 17 joints."""
    for head, size in ((DistributionHead(8, J), 2 * 8 * J * 2), (DistributionHead(2048, 17), 139_264)):
        channels = head.centre.in_features
        network = nn.Sequential(nn.Conv2d(3, channels, 2, 2), head)
        for dtype in (torch.float32, torch.bfloat16):
            assert macs(network.to(dtype), (6, 4)) == 3 * channels * 4 * 6 + size
    features = torch.zeros(B, 8, 3, 2, device="meta", dtype=torch.bfloat16)
    assert DistributionHead(8, J).to("meta")(features).dtype == torch.float32


def test_every_weight_learns() -> None:
    model, y = estimator(RealNVP()), Labels(*(t.float() for t in partly(2)))
    batch = Batch(images(), y, y.weight[..., 0] > 0, torch.ones(B), torch.zeros(B, 2, 3))
    model.loss(batch)["loss"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
    for part in (model.head, model.method):
        assert all(bool(p.grad.any()) for p in part.parameters() if p.grad is not None and p.ndim > 1)


def test_no_flow_is_needed_to_predict() -> None:
    """The weights without the flow's predict the same; so does the exported network, which holds none of them."""
    trained, bare = estimator(RealNVP()), estimator(None)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    state = without_flow(trained.state_dict())
    assert len(trained.state_dict()) - len(state) == 6
    bare.load_state_dict(state)
    expected = trained.predict(images())
    assert torch.equal(bare.predict(images()).coords, expected.coords)
    assert torch.equal(bare.predict(images()).score, expected.score)
    program = torch.export.export(bare.eval(), (images(),))
    assert set(program.state_dict) == set(state)
    found = RLE().decode(program.module()(images()))
    torch.testing.assert_close(found.coords, expected.coords)
    torch.testing.assert_close(found.score, expected.score)


def test_everything_can_be_described() -> None:
    assert VARIANTS.keys() == NAMED.keys()
    for name, variant in VARIANTS.items():
        made = spec(
            Estimator,
            backbone=spec(ResNet, depth=10, width=4),
            head=spec(DistributionHead, channels=32, joints=J),
            method=variant.replace(decoder=Within(0.1), floor=1e-2),
        )
        again = rebuild(json.loads(json.dumps(describe(made))))
        assert again == made
        built = again.build().method
        assert built.terms == NAMED[name]
        assert built.decoder == Within(0.1)
        assert built.flow.prior == (0.5 if name == "poseur-release" else 0)
    assert rebuild(describe(spec(RLE, flow=None))).build().flow is None


def test_a_reading_exchanges_the_score() -> None:
    """One trained network, its score made in three ways, with and without the flip test."""
    for reading in (Reading("rle", Sharpness()), Reading("near", Within()), Reading("none", Unscored(), "plain")):
        made = RLE(RealNVP())
        assert hasattr(made, "decoder")
        assert made.flip_shift is False
        made.decoder = reading.decoder
        assert isinstance(made.decode(drawn(2)), Points)


# -- training ----------------------------------------------------------------------------------------------------------


class World:
    """A linear truth with widths that depend on the input and residuals that are skewed and curved, density known."""

    def __init__(self) -> None:
        g = torch.Generator().manual_seed(5)
        self.map, self.spread = 0.2 * torch.randn(4, 2, generator=g), 0.5 * torch.randn(4, 2, generator=g)

    def draw(self, n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs, labels (n, 2), and the true log-density of each label."""
        g = torch.Generator().manual_seed(seed)
        u, z = torch.randn(n, 4, generator=g), torch.randn(n, 2, generator=g)
        first = (z[:, 0] * 0.8).exp() - math.exp(0.32)  # log-normal: a long tail to the right
        noise = torch.stack([first, 0.5 * z[:, 1] + 0.4 * first.square().clamp_max(4)], -1)
        width = 0.1 * (u @ self.spread).exp().clamp(0.2, 5)
        normal = -0.5 * z.square().sum(-1) - math.log(2 * math.pi)
        log_density = normal - (0.8 * z[:, 0] + math.log(0.8)) - math.log(0.5) - width.log().sum(-1)
        return u, u @ self.map + width * noise, log_density


def test_the_flow_learns_the_shape_of_the_residual() -> None:
    """Held-out likelihood: better than plain Laplace's, which gets twice the steps and starts from narrow widths."""
    world = World()
    found: dict[str, float] = {}
    u, y, truth = world.draw(2000, 1)
    made = RLE()
    for name, steps in (("laplace", 600), ("flow", 300)):
        torch.manual_seed(0)
        made = RLE(RealNVP(hidden=16), Terms(nodes=64)) if name == "flow" else RLE()
        net = nn.Linear(4, 4)
        if name == "laplace":
            nn.init.constant_(net.bias[2:], -3.0)
        optimiser = torch.optim.Adam([*net.parameters(), *made.parameters()], lr=1e-2)
        for step in range(steps):
            a, b, _ = world.draw(128, 100 + step)
            for group in optimiser.param_groups:
                group["lr"] = 1e-2 * Cosine(0)(step, steps)
            optimiser.zero_grad()
            made.loss(net(a).unsqueeze(1), Labels(b.unsqueeze(1), torch.ones(128, 1, 2)))["loss"].backward()
            optimiser.step()
        with torch.no_grad():
            mean, width = made.read(net(u).unsqueeze(1))
            found[name] = float(log_likelihood(y, mean[:, 0], width[:, 0], made.flow).mean())
    assert found["flow"] > found["laplace"] + 0.1
    assert found["flow"] < float(truth.mean()) + 0.02  # no density beats the truth: the terms count once
    assert made.flow is not None
    assert log_s(Laplace(), made.flow, 64).item() < 4.5  # the limit holds: a grid alone would let s grow without end
