"""int8 of networks with branches, shuffles, attention, shared layers: everything computes, and the
simulation is a level or two from the file."""

from __future__ import annotations

import pytest
import torch
from channel_networks import NETWORKS, graph_of
from torch import Tensor, fx, nn

from shrinkc.compiler.export.tflite.write import write_tflite
from shrinkc.compiler.formats.tflite import TFLITE, quantize_tflite
from shrinkc.compiler.pipeline.run import run_exact_passes, sample_inputs
from shrinkc.compiler.quantise.options import Int8
from shrinkc.compiler.quantise.prepare import Prepared, prepare
from shrinkc.compiler.quantise.rounding import grid_of
from shrinkc.compiler.quantise.simulate import simulate
from shrinkc.compiler.verify.files import artefact
from shrinkc.passes.fold.fold_batch_norm import FoldBatchNorm
from shrinkc.passes.ir import module_of
from shrinkc.passes.simplify.simplify import Simplify

pytest.importorskip("ai_edge_quantizer")
# several operators of the file each, whose inner tensors no simulation rounds
COMPOSED = ("group_norm",)
CHOOSING = ("conditions", "order", "lookup")  # otherwise where what is compared lies within a level


def deployed(name: str) -> fx.GraphModule:
    return run_exact_passes(graph_of(name), (Simplify(), FoldBatchNorm(), Simplify()))[0].float()


def inputs(graph: fx.GraphModule, start: int, count: int) -> list[tuple[Tensor, ...]]:
    return [sample_inputs(graph, torch.float32, seed) for seed in range(start, start + count)]


@torch.no_grad()
def steps_apart(made: Prepared, network: fx.GraphModule, seen: list[tuple[Tensor, ...]]) -> float:
    """The file against `network`, in levels of each output, on other inputs than those seen."""
    q = made.quantisation
    data = quantize_tflite(write_tflite(q.program), q.program, seen[:4], q.ranges, q.keep_fp32)
    file = artefact(TFLITE, data, q.program)
    worst = 0.0
    for batch in inputs(network, 100, 4):
        for got, want, output in zip(
            file.run(batch), network(*batch), q.program.outputs, strict=True
        ):
            step = grid_of(*q.ranges[output.name]).scale
            worst = max(worst, float((torch.from_numpy(got) - want).abs().max()) / step)
    return worst


@pytest.mark.parametrize("tuning", ["none", "both"])
@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in (*COMPOSED, *CHOOSING)])
def test_the_simulation_is_what_the_file_computes(name: str, tuning) -> None:
    graph = deployed(name)
    seen = inputs(graph, 0, 10)
    made = prepare(graph, seen, Int8(tuning))
    simulation = simulate(made.graph_module, made.quantisation)
    simulation.meta = graph.meta
    assert steps_apart(made, simulation, seen) <= 2.1
    assert all(25 < layer.snr_db < 80 for layer in made.noise)


def test_a_group_norm_loses_much_in_int8_and_nothing_in_fp32() -> None:
    graph = deployed("group_norm")
    seen = inputs(graph, 0, 10)
    norms = [n.name for n in graph.graph.nodes if isinstance(module_of(graph, n), nn.GroupNorm)]
    int8, kept = (prepare(graph, seen, Int8("none", keep_fp32=k)) for k in ((), tuple(norms)))
    assert steps_apart(int8, graph, seen) > 20
    assert steps_apart(kept, graph, seen) < 10
