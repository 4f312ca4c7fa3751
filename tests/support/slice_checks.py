"""Slices channels and compares with the masked twin, also with noise in what is removed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pass_checks import fingerprint, random_inputs
from torch import Tensor, fx, nn

from shrinkc.compiler.pipeline.contract import check_reported
from shrinkc.compiler.support.difference import relative_error
from shrinkc.passes.analysis.channels.channel_groups import Groups, channel_groups
from shrinkc.passes.base import PassResult
from shrinkc.passes.channels.channel_cuts import Cut, Cuts, tensors
from shrinkc.passes.channels.mask_channels import mask_channels
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.channels.slice_channels import SliceChannels, sliced_cuts
from shrinkc.passes.criteria.base import most_important, widths
from shrinkc.passes.ir import check_legal

TOLERANCE = 1e-12


def random_selection(groups: Groups, seed: int = 0) -> Selection:
    """Of every group a random number of random channels, as its cells allow."""
    generator = np.random.default_rng(seed)
    keep = {
        g.name: most_important(g, generator.random(g.size), int(generator.choice(widths(g))))
        for g in groups.groups
    }
    return Selection({name: mask for name, mask in keep.items() if not mask.all()})


def check_sliced(graph_module: fx.GraphModule, slicing: SliceChannels) -> PassResult:
    """The result, once it is legal and reported, the input untouched, every output equal to the
    masked twin's to 1e-12 of its range, and nothing that was removed of any influence."""
    before = fingerprint(graph_module)
    result = slicing(graph_module)
    assert fingerprint(graph_module) == before, "the pass touched its input"
    sliced = result.graph_module
    check_legal(sliced)
    check_reported(slicing.name, graph_module, sliced, result.changes)
    cuts = sliced_cuts(graph_module, slicing)
    assert result.modified or not cuts
    if not cuts and not slicing.selection.weights:  # channels that padding made have no parameters
        moving = (F.pad, torch.reshape)  # makes and shapes them
        moved = {node.name for node in graph_module.graph.nodes if node.target in moving}
        assert {change.node for change in result.changes} <= moved
    error = slicing_error(graph_module, slicing, sliced)
    assert error <= TOLERANCE, f"sliced differs from masked by {error:.1e}"
    twin = mask_channels(graph_module, slicing)
    assert fingerprint(graph_module) == before, "masking touched its input"
    add_noise(twin, cuts)
    inputs = random_inputs(graph_module)
    with torch.no_grad():
        error = largest_error(sliced(*inputs), twin(*inputs))
    assert error <= TOLERANCE, f"what is removed is read: {error:.1e}"
    return result


def slicing_error(
    graph_module: fx.GraphModule, slicing: SliceChannels, sliced: fx.GraphModule
) -> float:
    """The largest difference from the masked twin, of any output, relative to its range."""
    inputs = random_inputs(graph_module)
    with torch.no_grad():
        return largest_error(sliced(*inputs), mask_channels(graph_module, slicing)(*inputs))


def largest_error(got: tuple[Tensor, ...], want: tuple[Tensor, ...]) -> float:
    worst = 0.0
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape
        assert torch.isfinite(b).all()
        worst = max(worst, relative_error(a.numpy(), b.numpy()))
    return worst


def add_noise(module: nn.Module, cuts: Cuts) -> None:
    """Everything that the cuts do not keep becomes random."""
    generator = torch.Generator().manual_seed(9)
    named = dict(tensors(module))
    with torch.no_grad():
        for path, cut in cuts.items():
            if path not in named:  # a norm that is taken over the kept channels already
                continue
            tensor = named[path]
            kept = kept_elements(tensor, cut)
            noise = 0.5 + torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
            noise.view(-1)[kept] = tensor.reshape(-1)[kept]
            tensor.copy_(noise)


def kept_elements(tensor: Tensor, cut: Cut) -> Tensor:
    """Their positions in the flattened tensor."""
    return cut(torch.arange(tensor.numel()).reshape(tensor.shape)).reshape(-1)


def groups_of(graph_module: fx.GraphModule, **options: Any) -> dict[str, int]:
    """Group name → size."""
    return {g.name: g.size for g in channel_groups(graph_module, **options).groups}
