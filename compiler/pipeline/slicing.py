"""Slices a network and verifies it: sliced equals masked, in float64."""

from __future__ import annotations

import time

import torch
from torch import fx

from shrinkc.compiler.pipeline.contract import check_reported, fingerprint
from shrinkc.compiler.pipeline.run import Step, sample_inputs, worst_error
from shrinkc.errors import VerificationError
from shrinkc.passes import ir
from shrinkc.passes.base import copy_graph
from shrinkc.passes.channels.mask_channels import mask_channels
from shrinkc.passes.channels.slice_channels import SliceChannels

SLICED_TOLERANCE = 1e-12  # of each output's range


def run_slicing(
    graph_module: fx.GraphModule, slicing: SliceChannels
) -> tuple[fx.GraphModule, Step]:
    """The sliced network, in the data types of `graph_module`, and what was done.

    Memory: three copies of the network in float64. Raises VerificationError where the sliced
    network computes something else than the one with masked channels, where the pass touched its
    input or changed what it did not report; IllegalGraphError when its result is not canonical.
    """
    started = time.perf_counter()
    before = fingerprint(graph_module)
    result = slicing(graph_module)
    if fingerprint(graph_module) != before:
        raise VerificationError(f"pass '{slicing.name}' changed its input graph")
    ir.check_legal(result.graph_module)
    check_reported(slicing.name, graph_module, result.graph_module, result.changes)
    error = _error(graph_module, slicing)
    step = Step(
        *(slicing.name, result.changes, result.skipped, error), time.perf_counter() - started
    )
    return result.graph_module, step


def _error(graph_module: fx.GraphModule, slicing: SliceChannels) -> float:
    """The largest difference of any output, relative to its range."""
    wide = copy_graph(graph_module).double().eval()
    inputs = sample_inputs(wide, torch.float64)
    with torch.no_grad():
        masked = mask_channels(wide, slicing)(*inputs)
        sliced = slicing(wide).graph_module(*inputs)
    worst = 0.0
    for index, (got, want) in enumerate(zip(sliced, masked, strict=True)):
        error, where = worst_error(got, want)
        if not error <= SLICED_TOLERANCE:
            raise VerificationError(
                f"pass '{slicing.name}': output {index} differs from the masked network's by "
                f"{error:.1e} of its range {where}, limit {SLICED_TOLERANCE:.0e}"
            )
        worst = max(worst, error)
    return worst
