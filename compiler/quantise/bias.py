"""Bias correction: int8 layers get the means that they have in fp32.

Rounded weights and clipped ranges shift the mean of each output channel. The shift is measured,

    b  ←  b − (E[ŷ] − E[y])      per channel, before the activation,

layer after layer in execution order, ŷ from the int8 network's own inputs, whose layers in front
are corrected already (Nagel et al., 2019, Data-Free Quantization, section 4.2, the empirical
variant). Each batch is walked through once beside the fp32 network, with its own shifts taken off
on the way, and shifts are averaged over the batches; with one batch that is the paper's procedure,
with more the memory is still that of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.pipeline.run import node_values
from shrinkc.compiler.quantise.rounding import Layer
from shrinkc.compiler.quantise.simulate import Quantisation, simulate
from shrinkc.passes import ir
from shrinkc.passes.analysis.usage import usage
from shrinkc.passes.base import Change, PassResult, Skip, copy_graph


def correct_biases(
    graph_module: fx.GraphModule,
    quantisation: Quantisation,
    batches: Iterable[tuple[Tensor, ...]],
    done: Callable[[], None] = lambda: None,
) -> PassResult:
    """The fp32 graph with the biases that its int8 version needs. It computes something else in
    fp32: write int8 files from it and nothing else.

    Layers that stay fp32 are corrected too, for the shift of what they read. Skipped with a reason:
    a layer called twice or with shared parameters.
    """
    fixed, skipped = _correctable(graph_module, quantisation)
    shifts = {name: torch.zeros(0) for name in fixed}
    walk = _Walk(simulate(graph_module, quantisation), fixed)
    count = 0
    for inputs in batches:
        for name, shift in walk.shifts(graph_module, inputs).items():
            shifts[name] = shift if count == 0 else shifts[name] + shift
        count += 1
        done()
    result = copy_graph(graph_module)
    changes: list[Change] = []
    for node in result.graph.nodes:
        if count and node.name in fixed:
            shift = shifts[node.name] / count
            _move_bias(cast(Layer, ir.module_of(result, node)), shift)
            detail = f"bias corrected by up to {float(shift.abs().max()):.2g}"
            changes.append(Change(node.name, (node.name,), detail))
    return PassResult(result, tuple(changes), tuple(skipped))


def _correctable(
    graph_module: fx.GraphModule, quantisation: Quantisation
) -> tuple[dict[str, int], list[Skip]]:
    """Layer → the dimension of its output's channels; and what cannot change."""
    uses, layers = usage(graph_module), quantisation.layers()
    fixed: dict[str, int] = {}
    skipped: list[Skip] = []
    for node in graph_module.graph.nodes:
        layer = ir.module_of(graph_module, node)
        if node.name not in layers or layer is None:
            continue
        shared = uses.why_shared(layer)
        if shared:
            skipped.append(Skip(node.name, shared))
        else:
            fixed[node.name] = -1 if isinstance(layer, nn.Linear) else 1
    return fixed, skipped


class _Walk(fx.Interpreter):
    """Runs the int8 network beside the fp32 one and takes each layer's shift off its output."""

    def __init__(self, int8: fx.GraphModule, layers: dict[str, int]) -> None:
        super().__init__(int8)
        self._layers = layers
        self._found: dict[str, Tensor] = {}
        self._want: Any = None

    def shifts(self, fp32: fx.GraphModule, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Layer → (channels,) mean of ŷ − y over this batch."""
        self._found = {}
        self._want = node_values(fp32, inputs, set(self._layers))
        with torch.no_grad():
            self.run(*inputs)
        return self._found

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name not in self._layers:
            return value
        name, want = next(self._want)
        if name != n.name:
            raise AssertionError(f"{name} beside {n.name}: a simulation keeps the order of nodes")
        channels = self._layers[name] % value.ndim
        others = [d for d in range(value.ndim) if d != channels]
        shift = (value - want).mean(others)
        self._found[name] = shift
        return value - shift.reshape([-1 if d == channels else 1 for d in range(value.ndim)])


def _move_bias(layer: Layer, shift: Tensor) -> None:
    bias = cast("Tensor | None", cast(Any, layer).bias)
    moved = -shift if bias is None else bias.detach() - shift
    layer.bias = nn.Parameter(moved.to(layer.weight.dtype), requires_grad=False)
