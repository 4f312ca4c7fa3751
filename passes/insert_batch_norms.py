"""Insert batch norms behind convolutions: what was folded comes back, to be trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, fx, nn

from .base import PassResult
from .rewrite import Rewriter


@dataclass(frozen=True, eq=False)
class InsertBatchNorms:
    """All readers of a node named in `statistics` read it through a batch norm that changes nothing
    in inference: γ = √(σ² + ε), β = μ.

    statistics  node name → mean μ (channels,) and variance σ² (channels,) of its values, in the
                graph's precision

    Declined with a reason: a name that is no node, an output of the network.
    """

    statistics: Mapping[str, tuple[Tensor, Tensor]]
    name: ClassVar[str] = "insert-batch-norms"
    exact: ClassVar[bool] = True

    def __call__(self, graph_module: fx.GraphModule) -> PassResult:
        rewriter = Rewriter(graph_module)
        graph = rewriter.graph_module.graph
        for node in rewriter.find(self.statistics):
            users = list(node.users)
            if any(user.op == "output" for user in users):
                rewriter.skip(node, "it is an output of the network")
                continue
            path = rewriter.new_name(f"{node.name}_norm")
            rewriter.set_module(path, _identity(*self.statistics[node.name]))
            with graph.inserting_after(node):
                made = graph.create_node("call_module", path, (node,), name=path)
            for user in users:
                user.replace_input_with(node, made)
                rewriter.absorb_input(user, [], f"reads '{node.name}' through a batch norm")
            rewriter.helper(users[0], made)
        return rewriter.finish()


@torch.no_grad()
def _identity(mean: Tensor, variance: Tensor) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(len(mean), dtype=mean.dtype).eval()
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.weight.copy_((variance + norm.eps).sqrt())
    norm.bias.copy_(mean)
    return norm
