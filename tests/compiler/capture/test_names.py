"""What files call inputs and outputs: as the model does."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from torch import Tensor, nn

import shrinkc
from shrinkc.compiler.api.steps.results import Compiled

IMAGES = torch.randn(40, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Heads(nn.Module):
    """Ends in a batch norm, which is folded away, and a layer."""

    def __init__(self, returned: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4)
        self.returned = returned

    def forward(self, image: Tensor) -> Any:
        x = self.norm(self.stem(image))
        return self.returned(x, self.head(x.relu().mean((2, 3))))


class Found(NamedTuple):
    features: Tensor
    scores: Tensor


def names_in(compiled: Compiled) -> list[tuple[list[str], list[str]]]:
    """Inputs and outputs: of the ONNX file, the TFLite file's tensors, and its signature's; the
    signature names the tensors."""
    graph = onnx.load_model_from_string(compiled.files["model.onnx"]).graph
    interpreter: Any = Interpreter(model_content=compiled.files["model.tflite"])
    details = interpreter.get_input_details(), interpreter.get_output_details()
    signature = interpreter.get_signature_list()["serving_default"]
    return [
        ([x.name for x in graph.input], [x.name for x in graph.output]),
        ([x["name"] for x in details[0]], [x["name"] for x in details[1]]),
        (signature["inputs"], signature["outputs"]),
    ]


CASES: dict[str, tuple[Callable[..., Any], list[str]]] = {
    "keys": (lambda a, b: {"features": a, "scores": b}, ["features", "scores"]),
    "ordered keys": (lambda a, b: OrderedDict(z=a, a=b), ["z", "a"]),
    "nested": (lambda a, b: {"maps": [a], "head": {"scores": b}}, ["maps_0", "head_scores"]),
    "fields": (Found, ["features", "scores"]),
    "a layer's": (lambda a, b: b, ["head"]),
    "places": (lambda a, b: (a * 2.5, b), ["output_0", "head"]),
    "numbers": (lambda a, b: {"0": a * 2.5, 1: b}, ["output_0", "head"]),
    "no words": (lambda a, b: {"P2/map": a, "class": b}, ["P2_map", "class_1"]),
    "a layer's that another has": (lambda a, b: {"head": a, "stem": b}, ["head", "stem"]),
}


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("case", CASES)
def test_files_call_outputs_as_the_model_does(case: str, precision: Any) -> None:
    returned, wanted = CASES[case]
    compiled = shrinkc.compile(
        *(Heads(returned).eval(), IMAGES[:1]),
        target="rpi4",
        images=IMAGES,
        precision=precision,
        runs=0,
    )
    for inputs, outputs in names_in(compiled)[:2]:
        assert (inputs, outputs) == (["image"], wanted)
    inputs, outputs = names_in(compiled)[2]
    assert (inputs, sorted(outputs)) == (["image"], sorted(wanted))


def test_a_signature_gives_what_the_model_calls_so() -> None:
    model = Heads(lambda a, b: {"z": a, "a": b}).eval()
    compiled = shrinkc.compile(model, IMAGES[:1], target="rpi4", runs=0)
    interpreter: Any = Interpreter(model_content=compiled.files["model.tflite"])
    run: Any = interpreter.get_signature_runner("serving_default")
    found = run(image=np.ascontiguousarray(IMAGES[:1].numpy().transpose(0, 2, 3, 1)))
    with torch.no_grad():
        want = model(IMAGES[:1])
    np.testing.assert_allclose(found["a"], want["a"].numpy(), atol=1e-5)
    np.testing.assert_allclose(found["z"].transpose(0, 3, 1, 2), want["z"].numpy(), atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_numbered_layers_are_no_names(precision: Any) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, 3)).eval()
    compiled = shrinkc.compile(
        model, IMAGES[:1], target="rpi4", images=IMAGES, precision=precision, runs=0
    )
    for _, outputs in names_in(compiled):
        assert outputs == ["output"]


def test_a_tensor_that_is_returned_twice_is_two_outputs() -> None:
    compiled = shrinkc.compile(
        Heads(lambda a, b: {"one": b, "other": b}).eval(), IMAGES[:1], target="rpi4", runs=0
    )
    for _, outputs in names_in(compiled):
        assert len(set(outputs)) == 2
    one, other = compiled(IMAGES[:1]).values()
    torch.testing.assert_close(one, other)
