"""A newcomer adds one of each from outside the package: a pass, an operator, a criterion, a target,
a format and a task. Each is one object, or one folder, in one place (CONTRIBUTING.md)."""

from __future__ import annotations

import math
import shutil
import zlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from within import Within

import shrinkc
from shrinkc.compiler.capture.context import Context
from shrinkc.compiler.capture.convert import RULES
from shrinkc.compiler.export import ops
from shrinkc.compiler.export.onnx import DEFAULT_OPSET
from shrinkc.compiler.formats.onnx import ONNX, OnnxRunner
from shrinkc.compiler.formats.registry import FORMATS
from shrinkc.errors import CaptureError, InputError, VerificationError
from shrinkc.passes import ir
from shrinkc.passes.analysis.channels.channel_groups import Groups
from shrinkc.passes.base import PassResult
from shrinkc.passes.criteria.base import Scores
from shrinkc.passes.ir import module_of
from shrinkc.passes.rewrite import Rewriter

X = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """`activation` behind the first convolution; two numbers an image."""

    def __init__(self, activation: Any = F.relu) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 8, 1)
        self.head, self.activation = nn.Linear(8, 2), activation

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.first(x))
        return self.head(self.second(y).relu().mean((2, 3)))


# --- a pass --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JoinAbs:
    """||x|| = |x|"""

    name: ClassVar[str] = "join-abs"
    exact: ClassVar[bool] = True

    def __call__(self, graph_module: fx.GraphModule) -> PassResult:
        rewriter = Rewriter(graph_module)
        for node in rewriter.nodes:
            behind = node.all_input_nodes[0] if node.all_input_nodes else None
            if behind is not None and node.target is behind.target is torch.abs:
                rewriter.bypass(node, behind, "two absolute values are one")
        return rewriter.finish()


@dataclass(frozen=True)
class Wrong:
    """Takes every ReLU for no operation."""

    name: ClassVar[str] = "wrong"
    exact: ClassVar[bool] = True

    def __call__(self, graph_module: fx.GraphModule) -> PassResult:
        rewriter = Rewriter(graph_module)
        for node in rewriter.nodes:
            if isinstance(module_of(rewriter.graph_module, node), nn.ReLU):
                rewriter.bypass(node, node.all_input_nodes[0], "gone")
        return rewriter.finish()


@dataclass(frozen=True)
class Lossy(Wrong):
    exact: ClassVar[bool] = False


def test_a_pass() -> None:
    model = Net(lambda x: x.abs().abs())
    made = shrinkc.compile(model, X, target="rpi4", passes=(JoinAbs(),), runs=0)
    step = next(s for s in made.report.steps if s.name == "join-abs")
    assert [change.detail for change in step.changes] == ["two absolute values are one"]
    torch.testing.assert_close(made(X), model(X).detach(), atol=1e-4, rtol=1e-4)


def test_a_pass_that_is_wrong_is_found_out() -> None:
    with pytest.raises(VerificationError, match="wrong"):
        shrinkc.compile(Net(), X, target="rpi4", passes=(Wrong(),), runs=0)
    with pytest.raises(InputError, match="`passes`: 'wrong' is lossy"):
        shrinkc.compile(Net(), X, target="rpi4", passes=(Lossy(),), runs=0)


# --- an operator ---------------------------------------------------------------------------------


def ndtr(c: Context, x: Any) -> fx.Node:
    """(1 + erf(x / √2)) / 2, in operators that are there."""
    erf = c.b.call(torch.erf, c.b.call(ir.mul, c.tensor(x), math.sqrt(0.5)))
    return c.b.call(ir.mul, c.b.call(ir.add, erf, 1.0), 0.5)


def test_an_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Net(torch.special.ndtr)
    with pytest.raises(CaptureError, match="no rule for this operator"):
        shrinkc.capture(model, X)
    monkeypatch.setitem(RULES, "special_ndtr", ndtr)
    made = shrinkc.compile(model, X, target="rpi4", runs=0)
    assert made.report.failures == ()
    torch.testing.assert_close(made(X), model(X).detach(), atol=1e-4, rtol=1e-4)


# --- a criterion ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class LastFirst:
    """The last channels of every group are the least important."""

    name: ClassVar[str] = "last-first"

    def scores(self, graph_module: fx.GraphModule, groups: Groups) -> Scores:
        return {g.name: np.arange(g.size, 0, -1.0) for g in groups.groups}


def test_a_criterion() -> None:
    model = Net()
    pruned = shrinkc.prune(model, X, keep={"first": 0.5}, criterion=LastFirst())
    assert pruned.criterion == "last-first"
    kept = dict(pruned.named_parameters())["graph_module.first.weight"]
    assert torch.equal(kept, model.first.weight[:8])


# --- a target ------------------------------------------------------------------------------------


def test_a_target(tmp_path: Path) -> None:
    """A folder; a device that is twice as slow as one that ships."""
    own = tmp_path / "board"
    shutil.copytree(str(files("shrinkc.latency_tables") / "data/pixel3"), own)
    model = own / "model.csv"
    header, *rows = model.read_text("utf-8").splitlines()
    price = header.split(",").index("coefficient")
    doubled = [",".join(_times(row.split(","), price, 2.0)) for row in rows]
    model.write_text("\n".join([header, *doubled]) + "\n", "utf-8")
    shipped = shrinkc.estimate(Net(), X, target="pixel3")
    found = shrinkc.estimate(Net(), X, target=own)
    assert found == shrinkc.estimate(Net(), X, target=str(own))
    assert found.total_ms == pytest.approx(2 * shipped.total_ms)


def _times(fields: list[str], column: int, factor: float) -> list[str]:
    return [str(factor * float(f)) if i == column else f for i, f in enumerate(fields)]


# --- a format ------------------------------------------------------------------------------------


class Packed(shrinkc.Format):
    """ONNX, compressed."""

    name = "packed"

    def encode(self, program: ops.Program, opset: int = DEFAULT_OPSET) -> bytes:
        return zlib.compress(ONNX.encode(program, opset))

    def open(self, data: bytes, threads: int = 1) -> OnnxRunner:
        return ONNX.open(zlib.decompress(data), threads)


def test_a_format() -> None:
    made = shrinkc.compile(Net(), X, target="rpi4", formats=(*FORMATS, Packed()), runs=0)
    assert [file.name for file in made.report.artefacts] == ["onnx", "tflite", "packed"]
    runner = Packed().open(made.files["model.packed"])
    torch.testing.assert_close(
        torch.from_numpy(runner.run([X.numpy()])[0]), made.module(X).detach(), atol=1e-4, rtol=1e-4
    )


# --- a task --------------------------------------------------------------------------------------


def test_a_task() -> None:
    one = nn.Sequential(*(nn.Conv2d(3, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    labels = torch.zeros(len(X), dtype=torch.int64)
    right = int((one(X)[:, 0].abs() <= 0.25).sum())
    made = shrinkc.compile(one, X, target="rpi4", images=(X, labels), task=Within(0.25), runs=0)
    assert made.report.original_top1 == right / len(X)
    assert made.report.task.metric == "share within 0.25"
    assert all(file.agreement == 1 for file in made.report.artefacts)
