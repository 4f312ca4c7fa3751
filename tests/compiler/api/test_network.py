"""A model and example inputs, as users give them."""

from __future__ import annotations

import copy
from collections import OrderedDict, namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shrinkc.compiler.api.files import load, save
from shrinkc.compiler.api.steps.network import subject_of
from shrinkc.errors import InputError, ModelRunError, ShrinkcError

Pair = namedtuple("Pair", "first second")


class Headed(nn.Module):
    """Returns `how` of two tensors."""

    def __init__(self, how: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.how = how

    def forward(self, x: Tensor) -> Any:
        y = self.norm(self.conv(x))
        return self.how(y, y.mean((2, 3)))


STRUCTURES: dict[str, Any] = {
    "tensor": lambda a, b: a,
    "tuple": lambda a, b: (a, b),
    "list": lambda a, b: [b, a],
    "one of a tuple": lambda a, b: (a,),
    "dict": lambda a, b: {"map": a, "mean": b},
    "keys not sorted": lambda a, b: {"z": a, "a": b},
    "ordered dict": lambda a, b: OrderedDict(out=a, aux=b),
    "named tuple": lambda a, b: Pair(a, b),
    "nested": lambda a, b: {"maps": [a, (b, None)], "count": 3},
}
X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def assert_same(found: Any, wanted: Any) -> None:
    assert type(found) is type(wanted)
    if isinstance(wanted, Tensor):
        torch.testing.assert_close(found, wanted)
    elif isinstance(wanted, dict):
        assert list(found) == list(wanted)
        for key in wanted:
            assert_same(found[key], wanted[key])
    elif isinstance(wanted, list | tuple):
        assert len(found) == len(wanted)
        for a, b in zip(found, wanted, strict=True):
            assert_same(a, b)
    else:
        assert found == wanted


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_graph_returns_what_the_model_returned(name: str) -> None:
    model = Headed(STRUCTURES[name]).eval()
    subject = subject_of(model, X)
    restored = subject.restored(subject.graph)
    assert_same(restored(X), model(X))
    assert_same(copy.deepcopy(restored)(X[:1]), model(X[:1]))
    assert "\n" not in repr(restored)


def test_the_users_module_is_left_as_it_is() -> None:
    model = Headed(STRUCTURES["dict"]).double().train()
    model.norm.eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    subject = subject_of(model, X.double())
    assert subject.graph is not None
    assert model.training
    assert model.conv.training
    assert not model.norm.training
    for key, value in model.state_dict().items():
        assert value.dtype == before[key].dtype
        assert torch.equal(value, before[key]), key


def test_a_result_is_saved_whole_like_any_module(tmp_path: Path) -> None:
    model = Headed(STRUCTURES["dict"]).eval()
    subject = subject_of(model, X)
    torch.save(subject.restored(subject.graph), tmp_path / "net.pt")
    again = torch.load(tmp_path / "net.pt", weights_only=False)
    assert_same(again(X), model(X))


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_a_module_that_deepcopy_refuses() -> None:
    conv = nn.utils.weight_norm(nn.Conv2d(3, 4, 3))
    model = nn.Sequential(conv, nn.ReLU())
    wanted = model(X)  # its weight is now computed, not a leaf
    subject = subject_of(model, X)
    torch.testing.assert_close(subject.graph(X)[0], wanted)


def test_a_captured_graph_in_train_mode_is_taken_in_eval_mode() -> None:
    model = Headed(STRUCTURES["tensor"]).eval()
    graph = subject_of(model, X).graph.train()
    again = subject_of(graph)
    assert graph.training
    assert not again.graph.training
    torch.testing.assert_close(again.graph(X)[0], model(X))


@pytest.mark.parametrize(
    "inputs", [X, (X,), [X], (2, 3, 8, 8), [(2, 3, 8, 8)], [[2, 3, 8, 8]], torch.Size([2, 3, 8, 8])]
)
def test_examples_and_shapes(inputs: Any) -> None:
    assert subject_of(Headed(STRUCTURES["tensor"]), inputs).input_shapes == ((2, 3, 8, 8),)


def test_without_inputs_an_imagenet_shape() -> None:
    assert subject_of(Headed(STRUCTURES["tensor"])).input_shapes == ((1, 3, 224, 224),)


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        ("none.pt", X, "none.pt"),
        (nn.Conv2d, X, "`model` is the class Conv2d; give an instance"),
        ({}, X, "`model` is a dictionary; build the network"),
        (3, X, "`model` is a int"),
        (nn.Linear(3, 4), None, "does not tell the shape of its input; give `inputs` N,C,H,W"),
        (nn.Conv2d(3, 4, 3), np.zeros((1, 3, 8, 8)), "`inputs` is a ndarray"),
        (nn.Conv2d(3, 4, 3), {"x": X}, "`inputs` is a dict"),
        (nn.Conv2d(3, 4, 3), "1,3,8,8", "`inputs` is a str"),
        (nn.Conv2d(3, 4, 3), (1, 3, 0, 8), "`inputs` .*positive integers"),
        (nn.Conv2d(3, 4, 3), X[:0], "`inputs` holds a tensor of 0×3×8×8"),
        (nn.Conv2d(3, 4, 3), X.to(torch.uint8), "`inputs` holds uint8"),
        (nn.Conv2d(3, 4, 3), X[:, :2], "does not run on inputs of 2×2×8×8"),
        (nn.Conv2d(3, 4, 3), (X, X), "does not run on inputs"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_parameter(
    model: Any, inputs: Any, message: str
) -> None:
    with pytest.raises(ShrinkcError, match=message) as caught:
        subject_of(model, inputs)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, InputError | ModelRunError) or model == "none.pt"


def test_saved_and_loaded(tmp_path: Path) -> None:
    model = Headed(STRUCTURES["tuple"]).eval()
    path = save(model, str(tmp_path / "net.safetensors"), X)
    graph = load(path)
    for got, wanted in zip(graph(X), model(X), strict=True):
        torch.testing.assert_close(got, wanted)
    with pytest.raises(InputError, match="made for `inputs` 2,3,8,8"):
        subject_of(graph, (1, 3, 8, 8))


@pytest.mark.parametrize("device", ["meta"])
def test_a_model_without_numbers_is_refused(device: str) -> None:
    with pytest.raises(InputError, match="`model` has no numbers"):
        subject_of(Headed(STRUCTURES["tensor"]).to(device), X)
