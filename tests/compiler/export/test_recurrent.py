"""Recurrent layers in both files: equal to the module, again and again, and to their equations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from graph_files import check
from program_reference import run_reference
from torch import Tensor, fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.cost.keys import macs, op_keys
from shrinkc.compiler.export import ops
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.export.onnx import write_onnx
from shrinkc.compiler.export.tflite import recurrent
from shrinkc.compiler.export.tflite.write import write_tflite
from shrinkc.compiler.formats.onnx import ONNX
from shrinkc.compiler.formats.tflite import TFLITE
from shrinkc.compiler.pipeline.deployed import CANONICAL_PASSES
from shrinkc.compiler.pipeline.run import run_exact_passes
from shrinkc.compiler.reference.original import Original
from shrinkc.compiler.verify.files import artefact, compare, require_equal
from shrinkc.errors import UnsupportedOperatorError, VerificationError

FEATURES, HIDDEN, STEPS = 6, 5, 7


class Network(nn.Module):
    def __init__(self, layer: nn.RNNBase, learned: bool = False, cell: bool = False) -> None:
        super().__init__()
        self.layer, self.cell, self.learned = layer, cell, learned
        rows = layer.num_layers * (2 if layer.bidirectional else 1)
        self.first = nn.Parameter(torch.randn(rows, 1, layer.proj_size or layer.hidden_size))

    def forward(self, x: Tensor) -> Any:
        if self.layer.mode == "LSTM":
            hx = self.first.expand(-1, len(x), -1).contiguous()
            y, (h, c) = self.layer(x, (hx, hx) if self.learned else None)
            return (y, h.transpose(0, 1), c.transpose(0, 1)) if self.cell else y
        y, h = self.layer(x, self.first.expand(-1, len(x), -1) if self.learned else None)
        return y, h.transpose(0, 1)


def made(layer: nn.RNNBase, **more: bool) -> tuple[fx.GraphModule, tuple[Tensor]]:
    """Its simplified graph in float32, and an input."""
    torch.manual_seed(0)
    x = torch.randn(2, STEPS, FEATURES)
    graph = capture(Network(layer, **more).eval(), (x,))
    return run_exact_passes(graph, CANONICAL_PASSES)[0].float(), (x,)


def layer(kind: type[nn.RNNBase], **more: Any) -> nn.RNNBase:
    torch.manual_seed(1)
    return kind(FEATURES, HIDDEN, batch_first=True, **more)


LAYERS: dict[str, tuple[nn.RNNBase, dict[str, bool]]] = {
    "lstm": (layer(nn.LSTM), {}),
    "lstm of two layers, both ways": (layer(nn.LSTM, num_layers=2, bidirectional=True), {}),
    "lstm without bias": (layer(nn.LSTM, bias=False), {}),
    "lstm with its cell": (layer(nn.LSTM, bidirectional=True), {"cell": True}),
    "lstm from a learned state": (layer(nn.LSTM), {"learned": True, "cell": True}),
    "lstm with a projection": (layer(nn.LSTM, proj_size=3), {}),
    "lstm with a projection and its cell": (layer(nn.LSTM, proj_size=3), {"cell": True}),
    "gru": (layer(nn.GRU, num_layers=2, bidirectional=True), {}),
    "gru from a learned state": (layer(nn.GRU, bias=False), {"learned": True}),
    "rnn": (layer(nn.RNN, bidirectional=True), {}),
    "rnn with relu": (layer(nn.RNN, nonlinearity="relu"), {"learned": True}),
}


@pytest.mark.parametrize("name", LAYERS)
def test_both_files(name: str) -> None:
    module, more = LAYERS[name]
    graph, inputs = made(module, **more)
    check(graph, inputs)
    program = lower(graph)
    with torch.no_grad():
        want = graph(*inputs)
    for got, expected in zip(run_reference(program, [inputs[0].numpy()]), want, strict=True):
        assert np.abs(got - expected.numpy()).max() < 1e-5


@pytest.mark.parametrize("opset", [13, 14, 20, 22])
def test_opsets(opset: int) -> None:
    graph, inputs = made(layer(nn.GRU, bidirectional=True))
    check(graph, inputs, opset)


def test_a_tflite_file_forgets_what_it_read_before() -> None:
    """TFLite's LSTM keeps its state from one run to the next."""
    graph, (x,) = made(layer(nn.LSTM, bidirectional=True))
    program = lower(graph)
    file = artefact(TFLITE, write_tflite(program), program)
    first = file.run((x,))[0]
    file.run((100 * torch.randn_like(x),))
    assert np.array_equal(file.run((x,))[0], first)


def swapped(program: ops.Program) -> ops.Program:
    """Two gates of every recurrent layer in each other's place."""

    def change(op: ops.Op) -> ops.Op:
        if not isinstance(op, ops.Recurrent):
            return op
        gates = op.weight_hh.reshape(-1, op.hidden, op.hidden)[::-1]
        return replace(op, weight_hh=np.ascontiguousarray(gates.reshape(op.weight_hh.shape)))

    return replace(program, ops=tuple(map(change, program.ops)))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("form", [ONNX, TFLITE])
def test_swapped_gates_are_caught(kind: type[nn.RNNBase], form: Any) -> None:
    graph, inputs = made(layer(kind))
    program, original = lower(graph), Original.of_graph(graph)
    bad = swapped(program)
    data = write_tflite(bad) if form is TFLITE else write_onnx(bad).SerializeToString()
    file = artefact(form, data, program)
    tally = compare(original, [file], [(inputs, None)])[file.name]
    with pytest.raises(VerificationError, match="first layer that differs: 'layer'"):
        require_equal(original, graph, file, tally, 1e-4)


def test_what_is_too_long_is_refused_for_tflite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrent, "MOST_STEPS", STEPS - 1)
    graph, _ = made(layer(nn.GRU))
    reason = rf"TFLite.*a GRU of {STEPS} steps is written out step by step, at most {STEPS - 1}"
    with pytest.raises(UnsupportedOperatorError, match=reason):
        write_tflite(lower(graph))
    write_tflite(lower(made(layer(nn.LSTM))[0]))


def test_a_projected_lstm_from_a_state_is_refused() -> None:
    graph, _ = made(layer(nn.LSTM, proj_size=HIDDEN - 1), learned=False)
    assert lower(graph)

    class Given(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer(nn.LSTM, proj_size=3)

        def forward(self, x: Tensor, h: Tensor, c: Tensor) -> Tensor:
            return self.layer(x, (h.transpose(0, 1), c.transpose(0, 1)))[0]

    inputs = torch.randn(1, STEPS, FEATURES), torch.randn(1, 1, 3), torch.randn(1, 1, HIDDEN)
    with pytest.raises(UnsupportedOperatorError, match="a projection and a first state"):
        lower(capture(Given().eval(), inputs))


def test_a_layer_costs_the_products_that_it_consists_of() -> None:
    program = lower(made(layer(nn.GRU))[0])
    rows = 3 * HIDDEN
    assert macs(program) == STEPS * rows * (FEATURES + HIDDEN)
    (op,) = (op for op in program.ops if isinstance(op, ops.Recurrent))
    (whole, once), (step, times) = op_keys(op, "fp32")
    assert (whole.op, whole.in_channels, whole.out_size, once) == ("linear", 6, (STEPS, 1), 1)
    assert (step.op, step.in_channels, step.out_channels, times) == ("linear", HIDDEN, rows, STEPS)
