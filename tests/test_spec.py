"""Descriptions: what is described comes back, what could not come back is refused, foreign names are never called."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from coordreg.backbones.resnet import ConvHead, DeconvHead, ResNet, head
from coordreg.heatmap import MSE, Argmax, BinaryCrossEntropy, Disk, Gaussian, Heatmap, OneHot, QuarterSign
from coordreg.method import Estimator
from coordreg.spec import Spec, describe, digest, rebuild, spec
from coordreg.train import Cosine, Step, Training

ESTIMATOR = spec(
    Estimator,
    backbone=spec(ResNet, depth=10, width=4),
    head=spec(DeconvHead, channels=32, joints=3, widths=(8, 6)),
    method=spec(Heatmap, target=Gaussian(sigma=1.5, rounding="int"), loss=MSE(), decoder=QuarterSign("published")),
)
VALUES = [
    ESTIMATOR,
    spec(head, channels=8, joints=2),
    Gaussian(sigma=3.0, cutoff=True),
    Disk(),
    (OneHot(), BinaryCrossEntropy(), Argmax("origin")),
    Training(steps=7, schedule=Step(milestones=(0.5,)), clip=None),
    Training(steps=7, lr=1e-4, schedule=Cosine(3)),
    {"a": (1, 2.5, None, True), "b": "text"},
]


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_round_trip_through_json(value: Any) -> None:
    description = describe(value)
    assert rebuild(json.loads(json.dumps(description))) == value
    assert describe(rebuild(description)) == description


def test_description_by_hand() -> None:
    assert describe(spec(ResNet, width=4, depth=10)) == {
        "make": "coordreg.backbones.resnet.ResNet",
        "depth": 10,
        "width": 4,
    }
    assert describe(Argmax()) == {"make": "coordreg.heatmap.Argmax", "empty": "keep"}


def test_build_makes_the_arguments_first_and_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(3)
    first = ESTIMATOR.build()
    torch.manual_seed(3)
    again = rebuild(describe(ESTIMATOR)).build()
    assert isinstance(first.backbone, ResNet)
    assert isinstance(first.head, DeconvHead)
    assert first.method.target == Gaussian(sigma=1.5, rounding="int")
    for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_order_of_arguments_does_not_matter_and_replace_makes_a_new_one() -> None:
    a, b = spec(ConvHead, channels=8, joints=2), spec(ConvHead, joints=2, channels=8)
    assert a == b
    assert hash(a) == hash(b)
    assert a.replace(joints=5)["joints"] == 5
    assert a["joints"] == 2
    assert repr(a) == "ConvHead(channels=8, joints=2)"


def test_digest_is_stable_and_sees_every_change() -> None:
    """The value, sha256 of {"a":[1.5,null],"b":1}, guards the names of all committed records."""
    assert digest({"b": 1, "a": [1.5, None]}) == digest({"a": [1.5, None], "b": 1}) == "cf0c4895ed707baa"
    changes = [
        ESTIMATOR,
        ESTIMATOR.replace(head=spec(ConvHead, channels=32, joints=3)),
        Gaussian(),
        Gaussian(sigma=2.1),
    ]
    assert len({digest(describe(c)) for c in changes}) == len(changes)
    code = "from coordreg.spec import *; from coordreg.heatmap import *; print(digest(describe(Gaussian(sigma=2.1))))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other == digest(describe(Gaussian(sigma=2.1)))  # not salted by the process


@dataclass(frozen=True)
class Elsewhere:
    """A dataclass that coordreg does not know."""

    x: int = 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Elsewhere(), "lies outside coordreg"),
        (spec(torch.nn.Linear, in_features=1, out_features=1), "lies outside coordreg"),
        (float("nan"), "nan has no place in a configuration"),
        ({"x": float("inf")}, "give a finite number or None"),
        (torch.zeros(2), "cannot write down a Tensor"),
        (spec(ConvHead, channels=8, joints={1}), "cannot write down a set"),
    ],
    ids=["dataclass", "class", "nan", "inf", "tensor", "set"],
)
def test_what_could_not_be_rebuilt_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        describe(value)


@pytest.mark.parametrize(
    "name",
    ["os.system", "builtins.eval", "coordregistry.evil.Thing", "subprocess.Popen", "torch.load", "", "Gaussian"],
)
def test_foreign_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a name inside coordreg"):
        rebuild({"make": name, "x": 1})


@pytest.mark.parametrize(
    "name",
    [
        "coordreg.train.os",  # a module that a file of ours imports
        "coordreg.train.Path",
        "coordreg.fingerprint.hashlib",
        "coordreg.train.contextlib",
        "coordreg.spec.importlib",
        "coordreg.train.atomic.__globals__",
        "coordreg.train.FORMAT",  # not something to call
    ],
)
def test_foreign_names_inside_our_modules_are_refused(name: str) -> None:
    """What a file of ours merely imports is other people's code, and a constant cannot be called."""
    with pytest.raises(ValueError, match=r"coordreg"):
        rebuild({"make": name})


@pytest.mark.parametrize("name", ["coordreg.heatmap.Gauss", "coordreg.nowhere.Gaussian"])
def test_unknown_names_of_ours_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"this version of coordreg has no '{name}'"):
        rebuild({"make": name})


def test_arguments_of_another_version_are_refused_with_their_name() -> None:
    with pytest.raises(ValueError, match=r"Gaussian.*sharpness"):
        rebuild({"make": "coordreg.heatmap.Gaussian", "sharpness": 2})


def test_a_spec_is_not_its_object() -> None:
    assert isinstance(spec(ResNet, depth=152), Spec)  # no weights are made until build()


def test_a_description_calls_no_function_but_those_that_make_networks(tmp_path: Path) -> None:
    stolen = tmp_path / "stolen"
    foreign = {"make": "coordreg.experiments.measured.write", "name": str(stolen), "data": {}}
    with pytest.raises(ValueError, match="makes no part of a network"):
        rebuild(foreign)
    assert not stolen.with_suffix(".json").exists()
    made = rebuild({"make": "coordreg.backbones.resnet.head", "channels": 8, "joints": 3})
    assert made == spec(head, channels=8, joints=3)
