"""Networks that write their operators out, and 1-D ones, through the whole compiler."""

from __future__ import annotations

import math
from typing import Any

import onnx
import pytest
import torch
import torch.nn.functional as F
from ai_edge_litert import schema_py_generated as schema
from torch import Tensor, nn

import shrinkc
from shrinkc import Goal
from shrinkc.compiler.capture import capture
from shrinkc.compiler.pipeline.deployed import network


class KeywordSpotting(nn.Module):
    """Separable causal convolutions over (N, C, L), a residual, batch norms, one behind a
    concatenation and one behind a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv1d(8, 16, 3, padding=1, bias=False), nn.BatchNorm1d(16)
        self.deep = nn.Conv1d(16, 16, 5, padding=8, dilation=2, groups=16, bias=False)
        self.point, self.inner = nn.Conv1d(16, 16, 1, bias=False), nn.BatchNorm1d(16)
        self.a, self.b = nn.Conv1d(16, 8, 1), nn.Conv1d(16, 24, 3, padding=1)
        self.joined = nn.BatchNorm1d(32)
        self.fc, self.last, self.out = nn.Linear(32, 16), nn.BatchNorm1d(16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = x + F.relu(self.inner(self.point(self.deep(x)[:, :, :-8])))
        x = F.relu(self.joined(torch.cat((self.a(x), self.b(x)), 1)))
        return self.out(F.relu(self.last(self.fc(x.mean(-1)))))


class HandWritten(nn.Module):
    """MobileNetV3's activations, then attention, all by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.squeeze, self.excite = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1)
        self.gamma, self.beta = nn.Parameter(torch.rand(16) + 0.5), nn.Parameter(torch.rand(16))
        self.q, self.k, self.v = (nn.Linear(16, 16) for _ in range(3))
        self.up, self.down, self.out = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x))
        x = x * F.relu6(x + 3) / 6
        gate = self.excite(torch.relu(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        x = x * torch.clamp(gate / 6 + 0.5, 0, 1)
        x = x.flatten(2).transpose(1, 2)
        mean = x.mean(-1, keepdim=True)
        variance = (x - mean).pow(2).mean(-1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + 1e-5) * self.gamma + self.beta
        scores = self.q(x) @ self.k(x).transpose(1, 2) / 4
        power = torch.exp(scores - scores.amax(-1, keepdim=True))
        x = x + (power / power.sum(-1, keepdim=True)) @ self.v(x)
        y = self.up(x)
        y = 0.5 * y * (1 + torch.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))
        y = self.down(y)
        return self.out((x + y * torch.sigmoid(y)).mean(1))


NETWORKS: dict[type[nn.Module], tuple[int, ...]] = {
    KeywordSpotting: (1, 8, 24),
    HandWritten: (1, 3, 16, 16),
}


def trained(kind: type[nn.Module]) -> tuple[nn.Module, Tensor]:
    """Its batch norms are far from their initial state."""
    torch.manual_seed(0)
    model = kind()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.3, 2)
    return model.eval(), torch.randn(NETWORKS[kind])


def operators(files: Any) -> tuple[list[str], list[str]]:
    """Of the ONNX and the TFLite file."""
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    model = schema.ModelT.InitFromPackedBuf(files["model.tflite"], 0)
    codes = [names[code.builtinCode] for code in model.operatorCodes]
    lite = [codes[op.opcodeIndex] for op in model.subgraphs[0].operators]
    return [n.op_type for n in onnx.load_from_string(files["model.onnx"]).graph.node], lite


@pytest.mark.parametrize("kind", NETWORKS)
def test_files_equal_the_model_and_hold_its_operators(kind: type[nn.Module]) -> None:
    model, x = trained(kind)
    compiled = shrinkc.compile(model, x, target="rpi4", runs=0)
    with torch.no_grad():
        want = model(x)
    got = torch.as_tensor(compiled(x))
    assert float((got - want).abs().max()) <= 1e-4 * float(want.max() - want.min())
    in_onnx, in_tflite = operators(compiled.files)
    assert not {"BatchNormalization", "Exp", "ReduceMax"} & set(in_onnx)
    if kind is KeywordSpotting:
        assert not {"MUL", "SUB"} & set(in_tflite)
        assert in_tflite.count("RELU") == 1  # behind the concatenation
        assert in_onnx.count("Reshape") <= 1
    else:
        assert {"HARD_SWISH", "SOFTMAX", "GELU", "LOGISTIC"} <= set(in_tflite)
        assert not {"EXP", "POW", "TANH"} & set(in_tflite)
        assert {"HardSwish", "Softmax", "LayerNormalization"} <= set(in_onnx)
        assert in_onnx.count("Relu") == 1


@pytest.mark.parametrize("kind", NETWORKS)
def test_they_are_pruned(kind: type[nn.Module]) -> None:
    model, x = trained(kind)
    found = shrinkc.prune(model, x, goal=Goal.macs(0.7))
    assert sum(w.after for w in found.widths) < sum(w.before for w in found.widths)
    assert found(x).shape == (1, 5)


@pytest.mark.parametrize("kind", NETWORKS)
def test_what_is_trained_keeps_its_batch_norms(kind: type[nn.Module]) -> None:
    model, x = trained(kind)
    net = network(capture(model, (x,)))
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    before = sum(isinstance(m, norms) for m in model.modules())
    assert sum(isinstance(m, norms) for m in net.graph.modules()) == before
    assert not any(isinstance(m, norms) for m in net.folded.modules())
    (loss,) = net.graph.train()(torch.cat((x, -x)))
    loss.square().mean().backward()
    assert all(p.grad is not None for p in net.graph.parameters())
