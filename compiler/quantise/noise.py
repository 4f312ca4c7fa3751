"""Signal to noise: how much of each layer's output int8 keeps.

    SNR = 10 · log₁₀( Σ y² / Σ (y − ŷ)² )  in dB,  y in fp32, ŷ in int8

Six dB are one bit. `own_noise` quantises one layer at a time, behind fp32 inputs: what the layer
itself costs, and so what leaving it in fp32 would save. `network_noise` quantises all: what has
come together by then.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.pipeline.run import node_values, paired_values
from shrinkc.compiler.quantise.options import MOST_DB
from shrinkc.compiler.quantise.rounding import Grid, Layer, Rounding, round_layer
from shrinkc.compiler.quantise.simulate import Quantisation, grids_of, rounding_of, simulate
from shrinkc.passes import ir
from shrinkc.passes.base import copy_graph

Batches = Iterable[tuple[Tensor, ...]]


def decibels(signal: float, noise: float) -> float:
    """Within ±MOST_DB, which stand for no noise and no signal at all."""
    if noise == 0:
        return MOST_DB
    share = signal / noise
    ratio = 10 * math.log10(share) if share > 0 else -MOST_DB
    return max(-MOST_DB, min(MOST_DB, ratio))


def energies(want: Tensor, got: Tensor) -> Tensor:
    """(2,) float64: Σ y² and Σ (y − ŷ)²."""
    y, error = want.double(), (want - got).double()
    return torch.stack([(y * y).sum(), (error * error).sum()])


def own_noise(
    graph_module: fx.GraphModule,
    quantisation: Quantisation,
    batches: Batches,
    done: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Layer → dB with only this layer's weights and output in int8. `keep_fp32` plays no part."""
    beside, nodes = _with_twins(graph_module, quantisation)
    sums = {layer: torch.zeros(2, dtype=torch.float64) for layer in nodes.values()}
    for inputs in batches:
        for name, pair in node_values(beside, inputs, set(nodes)):
            sums[nodes[name]] += pair
        done()
    return {layer: decibels(float(pair[0]), float(pair[1])) for layer, pair in sums.items()}


def network_noise(
    graph_module: fx.GraphModule, quantisation: Quantisation, batches: Batches
) -> dict[str, float]:
    """Layer → dB at its output with the whole network in int8, but for `keep_fp32`."""
    int8 = simulate(graph_module, quantisation)
    there = {node.name for node in int8.graph.nodes}
    outputs = {tensor: layer for layer, tensor in quantisation.layers().items()}
    pairs = [(rounding_of(t) if rounding_of(t) in there else t, t) for t in outputs]
    sums = {layer: torch.zeros(2, dtype=torch.float64) for layer in outputs.values()}
    for inputs in batches:
        for _, tensor, got, want in paired_values(graph_module, int8, pairs, inputs):
            if tensor in outputs:
                sums[outputs[tensor]] += energies(want, got)
    return {layer: decibels(float(pair[0]), float(pair[1])) for layer, pair in sums.items()}


def _with_twins(
    graph_module: fx.GraphModule, quantisation: Quantisation
) -> tuple[fx.GraphModule, dict[str, str]]:
    """The fp32 graph in which every layer has an int8 twin on the same input, and the nodes that
    hold the two energies, each with its layer."""
    result = copy_graph(graph_module).float()
    grids = grids_of(result, quantisation)
    nodes = {node.name: node for node in result.graph.nodes}
    compared: dict[str, str] = {}
    for layer, tensor in quantisation.layers().items():
        if tensor not in nodes or nodes[tensor] not in grids:
            continue
        chain = _from_to(nodes[layer], nodes[tensor])
        value = ir.input_of(nodes[layer])
        with result.graph.inserting_after(nodes[tensor]):
            modules = [_twin(result, nodes[layer], grids.get(value))]
            modules += [cast(nn.Module, ir.module_of(result, node)) for node in chain[1:]]
            modules.append(Rounding(grids[nodes[tensor]]))
            path = f"{layer}__twin"
            result.add_module(path, nn.Sequential(*modules))
            twin = result.graph.create_node("call_module", path, (value,), name=path)
        with result.graph.inserting_after(twin):
            pair = result.graph.create_node(
                "call_function", cast(Any, energies), (nodes[tensor], twin), name=f"{layer}__noise"
            )
        compared[pair.name] = layer
    result.recompile()
    return result, compared


def _twin(graph_module: fx.GraphModule, node: fx.Node, source: Grid | None) -> Layer:
    layer = copy.deepcopy(cast(Layer, ir.module_of(graph_module, node)))
    round_layer(layer, source)
    return layer


def _from_to(first: fx.Node, last: fx.Node) -> Sequence[fx.Node]:
    """The layer and what was fused into it."""
    chain = [last]
    while chain[-1] is not first:
        chain.append(ir.input_of(chain[-1]))
    return chain[::-1]


@dataclass(frozen=True)
class LayerNoise:
    """One layer's signal to noise in dB when it alone is int8, behind fp32 inputs; and the
    precision it has in the files, fp32 where it was left out."""

    layer: str
    snr_db: float
    precision: str
