"""Rows that are counted: every figure again by another way, and that a wrong one would be seen."""

import math
import time
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from torch import nn
from torchvision.models import resnet18, resnet50, resnet101

from coordreg import experiments, ledger, verdicts
from coordreg.backbones.hourglass import Hourglasses, HourglassStem
from coordreg.backbones.resnet import ConvHead, parameters
from coordreg.dsnt import DSNT, FullyConnected
from coordreg.experiments import counted, flows
from coordreg.experiments.exact import Exact
from coordreg.heatmap import MSE, Argmax, Gaussian, Heatmap
from coordreg.method import Staged
from coordreg.papers import ROWS

IDS = {row.id for row in ROWS}


# -- table 1 ----------------------------------------------------------------------------------------------------------


def test_shares_of_cells_that_a_gradient_reaches() -> None:
    maps = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    assert counted.reached(DSNT(), maps) == 100
    assert counted.reached(None, maps) == 100
    assert counted.reached(Heatmap(Gaussian(sigma=1.0), MSE(), Argmax()), maps) == 0
    assert counted.reached(DSNT(decoder=Argmax()), maps) == 0

    class Half(DSNT):
        """Reads the upper rows alone."""

        def logits(self, output: torch.Tensor) -> torch.Tensor:
            return output[..., :2, :]

    maps = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert counted.reached(Half(), maps) == 50


def test_nothing_random_is_disturbed() -> None:
    before = torch.get_rng_state()
    counted.reached(None, torch.zeros(1, 2, 3, 4))
    flows.flow("FC")
    flows.pipelines()
    assert torch.equal(before, torch.get_rng_state())


def test_what_is_fitted_on_the_left_fails_on_the_right() -> None:
    """FC knows nothing of the right half and says 0: its error is the root mean square of the places there."""
    found = counted.halves((13, 11))
    columns, rows = range(6, 8), range(3, 10)  # right of the middle, 3 cells from the border
    squares = [((2 * j + 1) / 11 - 1) ** 2 + ((2 * i + 1) / 13 - 1) ** 2 for i in rows for j in columns]
    assert found["FC"] == pytest.approx((0, math.sqrt(sum(squares) / len(squares))), abs=2e-3)
    assert max(found["DSNT"]) < 1e-3


def test_gradient_descent_fits_the_same_layer() -> None:
    """The layer of FC, trained on the left half from zero with the library's own class, errs as the fitted one."""
    from coordreg.coords import from_pixels
    from coordreg.dsnt import log_gaussian

    size, places = (9, 9), torch.cartesian_prod(torch.arange(3, 6), torch.arange(3, 6)).flip(-1).view(-1, 1, 2)
    coords = from_pixels(places.double(), size)
    logits = log_gaussian(coords, size, 0.5)
    layer = FullyConnected(nn.Identity(), 1, size).double()
    nn.init.zeros_(layer.linear.weight)
    layer.linear.bias.requires_grad_(False).zero_()
    left, right = coords[:, 0, 0] < -0.1, coords[:, 0, 0] > 0.1
    optimiser = torch.optim.SGD(layer.parameters(), 0.5)
    for _ in range(2000):
        optimiser.zero_grad()
        (layer(logits[left]) - coords[left]).square().sum().backward()
        optimiser.step()
    expected = counted.halves(size)["FC"]
    for half, error in ((left, expected[0]), (right, expected[1])):
        found = (layer(logits[half]) - coords[half]).detach().square().sum(-1).mean().sqrt()
        assert float(found) == pytest.approx(error, abs=1e-3)


def test_table_1() -> None:
    found = counted.properties()
    assert found.matches
    assert "HM 0%, FC 100%, DSNT 100%" in found.ours
    assert "HM 0, FC 401,440, DSNT 0" in found.ours
    assert "DSNT errs by 0.00 there and by 0.00 on the right" in found.ours
    assert counted.directness() < 1e-12


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("reached", lambda method, maps: 100.0),
        ("directness", lambda: 1e-3),
        ("falling_loss", lambda: Exact("", False)),
        ("halves", lambda: {"FC": (0.0, 0.01), "DSNT": (0.0, 0.0)}),
        ("halves", lambda: {"FC": (0.0, 0.5), "DSNT": (0.0, 0.1)}),
        ("parameters", lambda module: 7),
    ],
)
def test_each_property_counts(monkeypatch: pytest.MonkeyPatch, name: str, value: Callable[..., object]) -> None:
    monkeypatch.setattr(counted, name, value)
    assert not counted.properties().matches


# -- figure 3, borders, marginals -------------------------------------------------------------------------------------


def test_the_worked_example_in_fractions() -> None:
    cells = {(1, 3): 1, (2, 2): 1, (2, 3): 6, (2, 4): 1, (3, 3): 1}
    assert {(i, j): v for i, row in enumerate(counted.EXAMPLE) for j, v in enumerate(row) if v} == cells
    x = sum(Fraction(v, 10) * Fraction(2 * j + 1 - 5, 5) for (_, j), v in cells.items())
    y = sum(Fraction(v, 10) * Fraction(2 * i + 1 - 5, 5) for (i, _), v in cells.items())
    assert (x, y) == (Fraction(2, 5), 0)
    assert counted.worked_example().matches
    assert (
        "x = 0.1 x 0.0 + 0.1 x 0.4 + 0.6 x 0.4 + 0.1 x 0.4 + 0.1 x 0.8 = 0.4, y = 0.0" in counted.worked_example().ours
    )


def test_a_lopsided_example_is_no_match(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = list(counted.EXAMPLE)
    rows[2] = (1, 0, 0, 6, 1)
    monkeypatch.setattr(counted, "EXAMPLE", tuple(rows))
    assert not counted.worked_example().matches


@pytest.mark.parametrize(("distance", "sigma"), [(0.0, 1.0), (0.7, 1.0), (2.5, 1.0), (1.0, 3.0)])
def test_the_closed_form_is_the_integral(distance: float, sigma: float) -> None:
    """The mean of exp(-x^2 / 2 sigma^2) over x > -distance, by a fine sum."""
    n, top = 40000, 12 * sigma
    step = (top + distance) / n
    places = [-distance + (i + 0.5) * step for i in range(n)]
    weights = [math.exp(-x * x / (2 * sigma**2)) for x in places]
    mean = sum(x * w for x, w in zip(places, weights, strict=True)) / sum(weights)
    assert counted.truncated(distance, sigma) == pytest.approx(mean, abs=1e-6)


def test_the_border_by_hand() -> None:
    """Half a cell from the border the joint is the centre of cell 0, and weights are exp(-i^2 / 2)."""
    weights = [math.exp(-(i**2) / 2) for i in range(9)]
    by_hand = sum(i * w for i, w in enumerate(weights)) / sum(weights)
    assert counted.on_grid(0.5, size=9) == pytest.approx((by_hand, by_hand), abs=1e-9)
    assert counted.on_grid(14, size=28)[0] == pytest.approx(0, abs=1e-9)  # the middle
    assert counted.on_grid(28, size=28)[0] == pytest.approx(-counted.on_grid(0, size=28)[0], abs=1e-9)
    assert counted.boundary().matches
    assert counted.truncated(0) == pytest.approx(math.sqrt(2 / math.pi))


def test_a_biased_mean_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = counted.on_grid
    monkeypatch.setattr(counted, "on_grid", lambda d: (right(d)[0] + 1e-6, right(d)[1]))
    assert not counted.boundary().matches


def test_two_steps_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found = counted.marginal_identity()
    assert found.matches
    right = counted.two_step
    monkeypatch.setattr(counted, "two_step", lambda p: right(p) * (1 + 1e-9))
    assert not counted.marginal_identity().matches


# -- counts -----------------------------------------------------------------------------------------------------------


def test_counts_by_hand() -> None:
    """A 3x3 convolution to 5 channels on 8 x 8 cells, normalised, then a 1x1 to 2 channels without."""
    network = nn.Sequential(nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5)), nn.Conv2d(5, 2, 1))
    assert counted.counts(network, 8) == (64 * (3 * 5 * 9 + 10), 64 * 5, 3 * 5 * 9 + 5 + 10 + 10 + 2)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in network.modules())


def test_counts_do_not_change_without_normalisation() -> None:
    """Against a network that keeps its normalisations."""
    from coordreg.backbones.cost import macs

    with torch.device("meta"):
        whole, light = (nn.Sequential(HourglassStem(16), Hourglasses(16, 3, 2, 2)) for _ in range(2))
    assert counted.counts(light, 32)[::2] == (macs(whole, (32, 32)), parameters(whole))


def test_gflops_as_printed() -> None:
    for found, printed in (
        (counted.integral_resolution(), ("(a) 7.27 (7.23)", "(b) 6.18 (6.15)", "(c) 1.82 (1.81)", "(d) 1.54 (1.54)")),
        (counted.integral_capacity(), ("ResNet-18 2.78 (2.78)", "ResNet-50 6.18 (6.15)", "ResNet-101 11.04 (11.00)")),
    ):
        assert all(text in found.ours for text in printed)
        assert "each as printed when rounded" in found.ours
        assert not found.matches  # for the parameters
    _, good = counted._integral({"(b)": (50, 2, 256)}, (6.1,))
    assert not good


def test_parameters_are_those_of_the_classifiers() -> None:
    with torch.device("meta"):
        nets = {18: resnet18(), 50: resnet50(), 101: resnet101()}
    for depth, network in nets.items():
        whole, trunk = counted._classifier(depth)
        assert whole == parameters(network) / 1e6
        network.fc = nn.Identity()  # type: ignore[assignment]
        assert trunk == parameters(network) / 1e6
    assert "(11.69M, 25.56M, 44.55M)" in counted.integral_capacity().note
    assert "14.3M, 33.0M, 51.9M parameters" in counted.integral_capacity().ours
    assert "34.0M parameters with three upsamplings, 33.0M with two" in counted.integral_resolution().ours
    assert [round(counted._classifier(d)[0]) for d in (18, 50, 101)] == [12, 26, 45]  # as printed


def test_resnet_and_hourglass() -> None:
    resnet, hourglass, first, second = counted._rivals()
    with torch.device("meta"):
        trunk = resnet50()
        trunk.fc = ConvHead(2048, 16)  # type: ignore[assignment]
    assert resnet == parameters(trunk) == 23_540_816
    assert hourglass == 25_594_624
    assert (round(first, 2), round(second, 2)) == (19.10, 28.09)


# -- drawings ---------------------------------------------------------------------------------------------------------


def test_arrows() -> None:
    assert flows.flow("HM") == flows.Flow(image=True, maps=True, coords=False)
    assert flows.flow("FC") == flows.flow("DSNT") == flows.Flow(image=True, maps=True, coords=True)
    with pytest.raises(ValueError, match=r"flow: got 'HMM', expected one of HM, FC, DSNT"):
        flows.flow("HMM")
    assert flows.dsnt_drawings().matches


def test_every_choice_of_the_pipeline_runs() -> None:
    found = flows.pipelines()
    assert len(found) == 18
    assert all(good for _, good in found.values())
    assert found["R1"][0] == "3x2 -> 3x2"
    assert found["I2 3-D"][0] == "3x8x8x8 -> 3x3"  # joints, depth, rows, columns
    assert found["HG-I1"][0] == "2 x 3x16x16 -> 3x2"
    assert flows.integral_drawings().matches


def test_a_dead_network_is_no_match(monkeypatch: pytest.MonkeyPatch) -> None:
    loss = DSNT.loss

    def detached(self: DSNT, output: torch.Tensor, labels: object) -> dict[str, torch.Tensor]:
        return loss(self, output * 0 + output.detach(), labels)  # type: ignore[arg-type]

    monkeypatch.setattr(DSNT, "loss", detached)
    assert flows.flow("DSNT") == flows.Flow(False, False, True)
    assert not flows.dsnt_drawings().matches


# -- figure 9 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["smoke", "cpu", "gpu"])
def test_hourglass_runs(profile: str) -> None:
    found = experiments.runs("dsnt-hourglass", profile)
    assert list(dict.fromkeys(run.label for run in found)) == ["HM 1", "DSNTr 1", "HM 2", "DSNTr 2"]
    for run in (run for run in found if run.seed == 0):
        name, stacks = run.label.split()
        with torch.device("meta"):
            model = run.estimator.build()
        assert isinstance(model.method, Staged)
        assert isinstance(model.method.method, {"HM": Heatmap, "DSNTr": DSNT}[name])
        side = run.train.size
        maps = model.head(model.backbone(torch.empty(2, 3, side, side, device="meta")))
        assert [tuple(m.shape) for m in maps] == [(2, 16, side // 4, side // 4)] * int(stacks)
    with pytest.raises(ValueError, match="profile: got 'paper'"):
        experiments.runs("dsnt-hourglass", "paper")


def test_figure_9_claims() -> None:
    found = verdicts.declared("cpu")["dsnt-fig9"]
    assert [(c.better.label, c.worse.label) for c in found] == [
        ("DSNTr 1", "HM 1"),
        ("DSNTr 2", "HM 2"),
        ("DSNTr 2", "DSNTr 1"),
    ]
    assert {c.better.experiment for c in found} == {"dsnt-hourglass"}
    assert {c.metric for c in found} == {"0.5"}


# -- in the ledger ----------------------------------------------------------------------------------------------------


def test_rows_and_their_time() -> None:
    counted._fixed.cache_clear()
    for cached in (counted._network, counted._rivals, flows.exact):
        cached.cache_clear()
    began = time.thread_time()
    found = {**counted.exact(), **flows.exact()}
    assert time.thread_time() - began < 2.5  # a second on a quiet machine, outside the tests' shape checks
    fixed = {"dsnt-tab1", "dsnt-fig3", "dsnt-boundary", "integral-eq5-6", "integral-tab2", "integral-tab3"}
    assert set(found) - {"dsnt-tab4"} == fixed | {"dsnt-fig10", "dsnt-drawings", "integral-drawings"}
    assert set(found) | set(counted.SCOPE) <= IDS
    assert {row for row, check in found.items() if not check.matches} == {"integral-tab2", "integral-tab3"}
    for check in found.values():
        assert "nan" not in check.ours
        assert not (check.matches is False and not check.note)


def test_statuses(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("COORDREG_RESULTS", str(tmp_path))
    monkeypatch.setattr(verdicts, "modules", lambda: [counted, flows])
    entries = {e.row.id: e for e in ledger.rows()}
    assert entries["dsnt-fig3"].status == "partly"  # its own cells are lost
    assert entries["dsnt-tab1"].status == "partly"
    assert entries["integral-eq5-6"].status == "matches"
    assert entries["integral-tab3"].status == "misprint"
    assert entries["dsnt-fig10"].status == "partly"
    assert "not measured here" in entries["dsnt-fig10"].note
    assert entries["dsnt-tab4"].status == "not run"
