"""Readers of a channel group compensated as if all else stayed as it is: least squares from sums
that are taken once, in the network as it is, for any channels that stay.

What a layer computes there is W x + b, so that its products with x follow from those of x:

    Σ y xᵀ = W Σ x xᵀ

`compensate` looks at the images again for every set of channels, and sees what the layers before
have made of them; here a set costs one system of equations a reader.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx

from shrinkc.compiler.recover.fit_layer import spread_out
from shrinkc.compiler.recover.least_squares import Normal, solve
from shrinkc.passes.analysis.usage import usage
from shrinkc.passes.channels.channel_cuts import indices
from shrinkc.passes.criteria.shared.readers import ReaderSums
from shrinkc.passes.ir import module_of

RIDGE = 1e-3  # of the mean variance of what is read, towards the weights that there were


def compensated(
    graph_module: fx.GraphModule, sums: Iterable[ReaderSums], keep: npt.NDArray[np.bool_]
) -> dict[str, Tensor]:
    """Path → value, of the parameters that change where only the channels `keep` (size,) of the
    group stay. Layers that are called several times stay as they are, and so do those that read
    nothing of what stays."""
    nodes, known = {node.name: node for node in graph_module.graph.nodes}, usage(graph_module)
    new: dict[str, Tensor] = {}
    for one in sums:
        block, node = one.block, nodes[one.block.node]
        stays = torch.tensor((one.channel < 0) | keep[one.channel])
        module = module_of(graph_module, node)
        shared = module is None or known.why_shared(module) is not None
        if shared or stays.all() or not stays.any():
            continue
        layer, path = block.layer, cast(str, node.target)
        weight = new.setdefault(f"{path}.weight", layer.weight.detach().clone())
        own = cast("Tensor | None", layer.bias)
        rows, before = torch.nonzero(stays)[:, 0], block.weight()
        found = solve(_normal(one, before, own is not None).part(rows), RIDGE, before[:, rows])
        outputs = indices(block.outputs)
        left = replace(block, inputs=block.inputs[stays.numpy()[:: block.kernel]])
        weight[outputs] = spread_out(left, found.weight).to(weight)
        if own is not None:
            bias = new.setdefault(f"{path}.bias", own.detach().clone())
            bias[outputs] += found.bias.to(bias)
    return new


def _normal(sums: ReaderSums, weight: Tensor, shifts: bool) -> Normal:
    """Towards what the layer computes now, its bias left out. Without a place for a bias, means
    count as zero."""
    size, targets = len(sums.gram), len(weight)
    normal = Normal(size, targets)
    normal.gram[:-1, :-1], normal.gram[-1, -1] = sums.gram, sums.count
    normal.cross[:-1] = sums.gram @ weight.T
    normal.square = float((weight @ sums.gram * weight).sum())
    if shifts:
        normal.gram[:-1, -1] = normal.gram[-1, :-1] = sums.total
        normal.cross[-1] = weight @ sums.total
    normal.centred_at(torch.zeros(size), torch.zeros(targets))
    return normal
