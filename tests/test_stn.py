"""Spatial Transformer with DSNT: the sampler against slices, the gradient to the place, labels that are never read."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.fabric import Fabric
from torch import nn

from coordreg import experiments
from coordreg.backbones.resnet import ConvHead, parameters
from coordreg.coords import Labels, Points, centres, from_pixels, to_pixels
from coordreg.data.glimpses import LETTERS, Letters, ink
from coordreg.data.store import Store
from coordreg.dsnt import FullyConnected
from coordreg.experiments.stn import CHOSEN, claims, localisers, network
from coordreg.method import Estimator
from coordreg.metrics.recognition import Recognised, Recognition, hits
from coordreg.metrics.scoring import score
from coordreg.running import execute
from coordreg.spec import describe, rebuild
from coordreg.stn import Classifier, Expected, Look, Middle, Recognise, Sightings, Transformer, glimpse, trunk
from coordreg.train import Training, fit, predict

B, C, H, W, J = 2, 3, 24, 17, 5
CPU = Fabric(accelerator="cpu", devices=1)


def smooth(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Two images of low waves, so that bilinear sampling is nearly linear in the place."""
    y, x = centres(H, dtype=dtype).view(-1, 1), centres(W, dtype=dtype)
    return torch.stack([torch.stack([(b + 1) * x + c * y + (x * y * (c + b)).sin() for c in range(C)])
                        for b in range(B)])  # fmt: skip


# -- the sampler ------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.data())
def test_a_glimpse_at_whole_pixels_is_a_slice(side: int, data: st.DataObject) -> None:
    images = torch.randn(B, C, H, W, generator=torch.Generator().manual_seed(side), dtype=torch.float64)
    corners = [(data.draw(st.integers(0, W - side)), data.draw(st.integers(0, H - side))) for _ in range(B)]
    middle = torch.tensor(corners, dtype=torch.float64) + (side - 1) / 2  # of pixels x .. x + side - 1
    found = glimpse(images, from_pixels(middle, (H, W)), side)
    for b, (x, y) in enumerate(corners):
        torch.testing.assert_close(found[b], images[b, :, y : y + side, x : x + side], atol=1e-12, rtol=0)


def test_between_pixels_and_beyond_the_border_by_hand() -> None:
    image = torch.tensor([[[[1.0, 2, 4], [8, 16, 32], [64, 128, 256]]]])
    between = glimpse(image, from_pixels(torch.tensor([[0.25, 1.0]]), (3, 3)), 1)
    assert between.item() == pytest.approx(0.75 * 8 + 0.25 * 16)
    beyond = glimpse(image, from_pixels(torch.tensor([[0.0, 0.0]]), (3, 3)), 3)
    torch.testing.assert_close(beyond, torch.tensor([[[[0.0, 0, 0], [0, 1, 2], [0, 8, 16]]]]))


def test_gradient_with_respect_to_the_place() -> None:
    """Against finite differences, and by hand: d/dx of a ramp of slope 1 per pixel is W/2 per normalised unit."""
    at = from_pixels(torch.tensor([[6.3, 9.6], [8.8, 12.3]], dtype=torch.float64), (H, W)).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: glimpse(smooth(), a, 6), (at,))
    ramp = torch.arange(W, dtype=torch.float64).expand(B, 1, H, W)
    (gradient,) = torch.autograd.grad(glimpse(ramp, at, 6).mean(), at)
    torch.testing.assert_close(gradient * B, torch.tensor([W / 2, 0.0], dtype=torch.float64).expand(B, 2))


def test_gradient_reaches_every_layer_of_the_localiser() -> None:
    """Through sampler, expectation and softmax, by finite differences of the map's logits; then in the network."""
    z = torch.randn(B, 1, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    layer = Expected(nn.Identity())
    assert torch.autograd.gradcheck(lambda m: glimpse(smooth(), layer(m)[:, 0], 6), (z,))
    torch.manual_seed(0)
    data = Letters(count=8, size=32, side=8).open().batch(torch.arange(8))
    for name in ("DSNT", "FC"):
        estimator = network(localisers(4)[name], 4).build()
        if name == "FC":  # its linear layer fits one image size
            data = Letters(count=8).open().batch(torch.arange(8))
        estimator.loss(data)["loss"].backward()
        for key, parameter in estimator.backbone.named_parameters():
            assert parameter.grad is not None, key
            assert bool(torch.isfinite(parameter.grad).all()), key
            if key != "locate.maps.final.bias":  # a softmax does not see what all cells share
                assert float(parameter.grad.abs().max()) > 0, (name, key)


def test_a_glimpse_must_fit() -> None:
    with pytest.raises(ValueError, match=r"glimpse: got side=18 for images of \(24, 17\) pixels; it must fit in"):
        glimpse(smooth(), torch.zeros(B, 2, dtype=torch.float64), 18)


# -- the layers -------------------------------------------------------------------------------------------------------


def test_dsnt_has_no_parameters_of_its_own_and_fc_has_514() -> None:
    found = {name: parameters(locate.build()) for name, locate in localisers(16).items()}
    assert found == {"DSNT": 32 + 1, "FC": 32 + 1 + (256 + 1) * 2, "fixed": 0}


def test_a_shifted_image_shifts_the_glimpse() -> None:
    """What DSNT brings: move the content by a cell and the place follows. The linear layer does not follow."""
    torch.manual_seed(0)
    convolutions = trunk(4).eval()
    head = ConvHead(8, 1)
    nn.init.normal_(head.final.weight, std=5000.0)  # as sharp as after training
    image = torch.zeros(1, 3, 64, 64)
    image[..., 22:30, 20:30] = torch.rand(3, 8, 10)
    moved = image.roll((4, 8), (2, 3))  # one cell down, two to the right
    expected = torch.tensor([[[8.0, 4.0]]])
    with torch.no_grad():
        sharp = head(convolutions(image)).flatten(2).softmax(-1).max()
        assert float(sharp) > 0.99
        layer = Expected(head)
        step = to_pixels(layer(convolutions(moved)), (64, 64)) - to_pixels(layer(convolutions(image)), (64, 64))
        torch.testing.assert_close(step, expected, atol=0.05, rtol=0)
        other = FullyConnected(head, 1, (16, 16))
        step = to_pixels(other(convolutions(moved)), (64, 64)) - to_pixels(other(convolutions(image)), (64, 64))
        assert float((step - expected).norm()) > 4


def test_the_middle_is_the_middle() -> None:
    look = Transformer(nn.Identity(), Middle(), 5)(smooth(torch.float32))
    assert look.at.tolist() == [[0, 0]] * B
    columns = smooth(torch.float32)[..., 6:11]  # of 17; of 24 rows the middle lies between 11 and 12
    torch.testing.assert_close(look.glimpse, 0.5 * (columns[:, :, 9:14] + columns[:, :, 10:15]))


def test_localisers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="Transformer: ConvHead does not produce Vectors; a map needs `Expected`"):
        Transformer(nn.Identity(), ConvHead(3, 1))
    with pytest.raises(ValueError, match=r"got points of shape \(2, 4, 2\), expected \(2, 1, 2\): one \(x, y\) an"):
        Transformer(nn.Identity(), Expected(ConvHead(3, 4)), 5)(smooth(torch.float32))
    with pytest.raises(ValueError, match="Recognise reads Sightings but the head ConvHead produces Maps"):
        Estimator(Transformer(nn.Identity(), Middle()), ConvHead(3, 1), Recognise())


def test_the_classifier_passes_the_place_on() -> None:
    torch.manual_seed(0)
    look = Look(torch.tensor([[0.25, -0.5], [0.0, 1.0]]), torch.rand(B, 3, 9, 9))
    out = Classifier(J, side=9, width=4)(look)
    assert out.shape == (B, J, 3)
    torch.testing.assert_close(out[..., :2], look.at.unsqueeze(1).expand(-1, J, -1))


# -- the method -------------------------------------------------------------------------------------------------------


def one_hot(*classes: int) -> Labels:
    weight = torch.zeros(len(classes), J, 2)
    weight[torch.arange(len(classes)), torch.tensor(classes)] = 1
    return Labels(torch.rand(len(classes), J, 2), weight)


def test_cross_entropy_by_hand_and_probabilities() -> None:
    output = torch.zeros(B, J, 3)
    output[..., :2] = torch.tensor([[0.5, -0.25], [0.0, 0.75]]).unsqueeze(1)
    output[0, 3, 2] = torch.tensor(4.0).log()  # probability 4/8, the others 1/8
    found = Recognise().loss(output, one_hot(3, 1))
    assert found["loss"].item() == pytest.approx(float(torch.tensor([2.0, 5.0]).log().mean()))
    points = Recognise().decode(output)
    torch.testing.assert_close(points.score[0], torch.tensor([1, 1, 1, 4, 1]) / 8)
    torch.testing.assert_close(points.coords, output[..., :2])
    assert Recognise().encode(one_hot(3, 1)).tolist() == [3, 1]


def test_the_place_is_never_read_in_training() -> None:
    """Labels whose every coordinate is NaN give the same loss and the same gradients."""
    data = Letters(count=6, size=32, side=8).open().batch(torch.arange(6))
    blank = data._replace(labels=Labels(torch.full_like(data.labels.coords, torch.nan), data.labels.weight))
    found = []
    for batch in (data, blank):
        torch.manual_seed(0)
        estimator = network(localisers(4)["DSNT"], 4).build()
        loss = estimator.loss(batch)["loss"]
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in estimator.parameters())])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_the_methods_errors() -> None:
    labels = one_hot(3, 1)
    labels.weight[1, 4] = 1
    with pytest.raises(ValueError, match=r"image 1 has 2 classes with a weight above 0, expected exactly 1; give"):
        Recognise().loss(torch.zeros(B, J, 3), labels)
    with pytest.raises(ValueError, match=r"got an output of shape \(2, 4, 3\) for labels of \(2, 5, 2\)"):
        Recognise().loss(torch.zeros(B, 4, 3), one_hot(3, 1))
    with pytest.raises(ValueError, match=r"got an output of shape \(2, 5, 2\), expected \(B, J, 3\)"):
        Recognise().decode(torch.zeros(B, J, 2))
    with pytest.raises(ValueError, match="a flip test needs classes that survive a mirror"):
        Recognise().unflip(torch.zeros(B, J, 3), ())
    assert Recognise.reads is Sightings


# -- letters ----------------------------------------------------------------------------------------------------------


def slow_ink(stroke: list[float], width: float, size: int) -> torch.Tensor:
    """Pixel by pixel: the nearest of many points on the stroke."""
    out = torch.zeros(size, size)
    x0, y0, x1, y1 = stroke
    for i in range(size):
        for j in range(size):
            near = min(((x0 + t / 400 * (x1 - x0) - j) ** 2 + (y0 + t / 400 * (y1 - y0) - i) ** 2) ** 0.5
                       for t in range(401))  # fmt: skip
            out[i, j] = min(1, max(0, 0.5 + width / 2 - near))
    return out


def test_ink_against_a_slow_loop() -> None:
    strokes = [[1.0, 2.0, 7.5, 4.0], [3.0, 8.0, 3.0, 1.0]]
    expected = torch.stack([slow_ink(s, 1.7, 10) for s in strokes]).amax(0)
    torch.testing.assert_close(ink(torch.tensor([strokes]), 1.7, 10)[0], expected, atol=2e-3, rtol=0)


def test_letters_do_not_depend_on_their_batch_and_splits_differ() -> None:
    letters = Letters(count=9, size=32, side=8)
    store, again = letters.open(), letters.open()
    assert store.fingerprint == again.fingerprint
    assert torch.equal(letters.draw(torch.tensor([7, 2])), store.images[[7, 2]])
    for other in (Letters("test", 9, 32, side=8), Letters(count=9, size=32, side=8, seed=1)):
        assert not torch.equal(other.open().images, store.images)
    assert rebuild(describe(letters)) == letters


def test_the_letter_lies_where_the_label_says() -> None:
    """Without strokes and noise, the ink's box is centred on the label to a pixel (letters may be turned a little)."""
    letters = Letters(count=40, strokes=0, noise=0.0, across=(0.1, 0.6), down=(-0.6, -0.2))
    store = letters.open()
    name = store.weight[..., 0].argmax(1)
    assert len(name.unique()) > 4
    middle = to_pixels(torch.where(store.weight > 0, store.coords, 0).sum(1), (64, 64))
    for image, at, letter in zip(store.images, middle, name, strict=True):
        if store.joints[letter] in "EFLTV":  # their boxes are less symmetric when turned
            continue
        bright = (image.float().amax(0) > 0.5 * (image.float().amax() + image.float().amax(0).median())).nonzero()
        box = (bright.amin(0) + bright.amax(0)) / 2
        assert float((box.flip(0) - at).abs().max()) < 1.5
    assert float(store.coords[store.weight > 0].view(-1, 2)[:, 0].min()) >= 0.1
    assert torch.equal(store.visible, store.weight[..., 0] > 0)
    assert bool(store.coords.isnan().any(-1).eq(~store.visible).all())
    assert bool((store.visible.sum(1) == 1).all())


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"split": "all"}, "got split='all', expected one of train, val, test"),
        ({"count": 0}, "got count=0, expected 1 to"),
        ({"side": 64}, "got side=64, expected a length above 0 and below size=64"),
        ({"down": (0.5, 0.2)}, r"got down=\(0.5, 0.2\), expected -1 <= low <= high <= 1"),
    ],
)
def test_bad_knobs(knobs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Letters(**knobs)  # type: ignore[arg-type]


# -- scoring ----------------------------------------------------------------------------------------------------------


def test_accuracy_by_hand_beside_the_ordinary_scores() -> None:
    data = Letters(count=4, size=32, side=8).open()
    truth = data.weight[..., 0].argmax(1)
    wrong = torch.where(torch.arange(4) == 2, (truth + 1) % len(LETTERS), truth)
    scores = torch.nn.functional.one_hot(wrong, len(LETTERS)).float()
    place = torch.where(data.weight > 0, data.coords, 0).sum(1, keepdim=True)
    place[1, 0, 0] += 2 * 6 / 32  # six of eight pixels off
    points = Points(place.expand(-1, len(LETTERS), -1), scores)
    scoring = Recognition(at=(0.5, 1.0), limit=1.0)
    found = scoring.score(points, data)
    summary, images = found.summary(), found.images()
    assert summary["accuracy"] == 75.0
    assert images["accuracy"].tolist() == [1, 1, 0, 1]
    assert summary["at"] == {"0.5": 75.0, "1": 100.0}
    assert summary["mean_distance"] == pytest.approx(0.75 / 4, abs=1e-5)
    plain = score(points, data, scoring)
    assert {k: v for k, v in summary.items() if k != "accuracy"} == plain.summary()
    assert images["count"].tolist() == [1] * 4
    with pytest.raises(ValueError, match="image 1 has 0 things with a weight above 0, expected exactly 1"):
        hits(torch.zeros(B, J), torch.tensor([[0, 1.0, 0, 0, 0], [0] * 5]))
    with pytest.raises(ValueError, match="the scores of image 1 hold NaN"):
        hits(torch.tensor([[0.0] * 5, [torch.nan] * 5]), torch.eye(J)[:2])
    with pytest.raises(ValueError, match=r"make it with Recognition\.score"):
        Recognised(plain.distances, scoring, plain.joints).summary()


# -- training ---------------------------------------------------------------------------------------------------------


def easy() -> Store:
    """Large letters near the middle, nothing around them: learnt in a few steps."""
    return Letters(count=96, strokes=0, across=(-0.2, 0.2), down=(-0.2, 0.2)).open()


def test_training_lowers_the_loss_and_is_deterministic() -> None:
    data, found = easy(), []
    for _ in range(2):
        torch.manual_seed(3)
        estimator = network(localisers(4)["DSNT"], 4).build()
        losses = fit(estimator, data, Training(30, 16, 1e-2), 3, fabric=CPU, progress=False)
        found.append((losses, predict(estimator, data)))
    assert sum(found[0][0][-5:]) < 0.75 * sum(found[0][0][:5])
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1].coords, found[1][1].coords)
    assert float(found[0][1].coords[:, 0].std(0).min()) > 0.001  # it looks where the image says, not at one place
    torch.testing.assert_close(found[0][1].score.sum(1), torch.ones(96))


def test_an_experiment_makes_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COORDREG_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("COORDREG_RUNS", str(tmp_path / "runs"))
    runs = experiments.runs("stn-halves", "smoke")
    record = execute(runs[0], "smoke", progress=False)
    reading, images = record.reading("method"), record.images("method")
    assert reading["accuracy"] == pytest.approx(100 * images["accuracy"].astype(float).mean())
    assert len(images["accuracy"]) == record["data"]["test_images"] == 16
    assert record.kept("points").shape == (16, len(LETTERS), 2)
    assert record.kept("output").shape == (16, len(LETTERS), 3)
    store = runs[0].test.open()
    where = store.coords[store.weight > 0].view(-1, 2)[:, 0]
    assert float(where[:8].max()) < -0.2
    assert float(where[8:].min()) > 0.2
    for claim in claims("smoke"):
        for side in (claim.better, claim.worse):
            assert side.label in {run.label for run in experiments.runs(side.experiment, "smoke")}


def test_rivals_differ_in_the_localiser_alone() -> None:
    runs = experiments.runs("stn-places", "cpu")
    assert {run.label for run in runs} == {"DSNT", "FC", "fixed", "centred"}
    for run in runs:
        same = run.estimator.replace(backbone=run.estimator["backbone"].replace(locate=0))
        assert same == runs[0].estimator.replace(backbone=runs[0].estimator["backbone"].replace(locate=0))
        chosen = CHOSEN["cpu"]["fixed" if run.label == "centred" else run.label]
        assert run.training == replace(runs[0].training, lr=chosen)  # but for the rate that its own search found
    with pytest.raises(ValueError, match="got 'gpu', the letters come in smoke, cpu"):
        experiments.runs("stn-places", "gpu")
