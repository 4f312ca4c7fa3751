"""Artefacts against the network: equal ones pass, a planted difference is found and placed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.export import ops
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.export.onnx import write_onnx
from shrinkc.compiler.export.tflite.write import write_tflite
from shrinkc.compiler.formats.onnx import ONNX
from shrinkc.compiler.formats.tflite import TFLITE
from shrinkc.compiler.reference.original import Original
from shrinkc.compiler.verify.files import (
    Artefact,
    artefact,
    compare,
    require_equal,
)
from shrinkc.errors import VerificationError

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def graph() -> fx.GraphModule:
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    )
    return capture(net, (X[:1],))


def artefacts(program: ops.Program, honest: ops.Program) -> list[Artefact]:
    """Files of `program` that claim to be those of `honest`."""
    return [
        artefact(ONNX, write_onnx(program).SerializeToString(), honest),
        artefact(TFLITE, write_tflite(program), honest),
    ]


def corrupted(program: ops.Program, name: str) -> ops.Program:
    """One weight of one layer is off."""

    def change(op: ops.Op) -> ops.Op:
        if op.name != name:
            return op
        assert isinstance(op, ops.Conv | ops.Linear)
        weight = op.weight.copy()
        weight[0, 0] += 0.01
        return replace(op, weight=weight)

    return replace(program, ops=tuple(map(change, program.ops)))


def test_equal_files_pass(graph: fx.GraphModule) -> None:
    program = lower(graph)
    files = artefacts(program, program)
    original = Original.of_graph(graph)
    tallies = compare(original, files, [((X,), torch.tensor([0, 1]))])
    for file in files:
        require_equal(original, graph, file, tallies[file.name], 1e-4)
        found = tallies[file.name].tally.judgement()
        assert found.images == 2
        assert found.agreement == 1
        assert found.score == tallies["torch"].tally.judgement().score


# the first tensor that the file shows: activations are fused into the layer in front
@pytest.mark.parametrize(("layer", "shown"), [("_0", "_1"), ("_2", "_3"), ("_6", "_6")])
@pytest.mark.parametrize("index", [0, 1])
def test_a_planted_difference_is_found_at_its_layer(
    graph: fx.GraphModule, layer: str, shown: str, index: int
) -> None:
    program = lower(graph)
    file = artefacts(corrupted(program, layer), program)[index]
    original = Original.of_graph(graph)
    tallies = compare(original, [file], [((X,), None)])
    with pytest.raises(VerificationError, match=f"first layer that differs: '{shown}'"):
        require_equal(original, graph, file, tallies[file.name], 1e-5)


def test_the_original_is_not_run_twice_on_the_same_batch(graph: fx.GraphModule) -> None:
    calls: list[int] = []
    graph.register_forward_hook(lambda *_: calls.append(1))
    original = Original.of_graph(graph)
    first = original.outputs(0, (X,))
    assert original.outputs(0, (X,)) is first
    assert len(calls) == 1
