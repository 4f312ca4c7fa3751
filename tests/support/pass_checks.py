"""Runs an exact pass and compares every value that it says it kept, at every position."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from shrinkc.compiler.pipeline.run import check_exact
from shrinkc.compiler.support.difference import relative_error
from shrinkc.passes.base import Pass, PassResult
from shrinkc.passes.ir import check_legal, input_shapes

TOLERANCE = 1e-9


def run_exact(exact_pass: Pass, graph_module: fx.GraphModule) -> PassResult:
    """The result, once its graph is legal, the input untouched, and every reported value and every
    output equal within 1e-9 of its range. Raises AssertionError or VerificationError."""
    before = fingerprint(graph_module)
    result = exact_pass(graph_module)
    assert fingerprint(graph_module) == before, "the pass touched its input"
    new = result.graph_module
    check_legal(new)
    inputs = random_inputs(graph_module)
    check_exact(exact_pass.name, graph_module, result, inputs)
    old_values, new_values = node_values(graph_module, inputs), node_values(new, inputs)
    for change in result.changes:
        assert_close(new_values[change.node], old_values[change.replaces[-1]], change.node)
        for name in change.replaces[:-1]:
            kept = name in new_values and name != change.node
            assert not kept, f"'{name}' is reported replaced and still there"
    with torch.no_grad():
        for got, want in zip(new(*inputs), graph_module(*inputs), strict=True):
            assert_close(got, want, "output")
    return result


def assert_close(got: Tensor, want: Tensor, name: str) -> None:
    assert got.shape == want.shape, f"'{name}' has shape {tuple(got.shape)}"
    error = relative_error(got.numpy(), want.numpy())
    assert error <= TOLERANCE, f"'{name}' differs by {error:.1e} of its range"


def random_inputs(graph_module: fx.GraphModule) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    shapes = input_shapes(graph_module).values()
    return tuple(torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)


def node_values(graph_module: fx.GraphModule, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Every node's value."""
    interpreter = fx.Interpreter(graph_module, garbage_collect_values=False)
    with torch.no_grad():
        interpreter.run(*inputs)
    return {node.name: value for node, value in interpreter.env.items() if node.op != "output"}


def fingerprint(graph_module: fx.GraphModule) -> Any:
    state = {k: v.clone() for k, v in graph_module.state_dict().items()}
    numbers = {k: (tuple(v.shape), float(v.double().sum())) for k, v in state.items()}
    modules = [(name, repr(m)) for name, m in graph_module.named_modules() if name]
    return str(graph_module.graph), numbers, modules, dict(graph_module.meta)
