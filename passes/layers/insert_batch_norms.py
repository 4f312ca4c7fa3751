"""Insert batch norms behind convolutions: what was folded comes back, to be trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, fx, nn

from shrinkc.passes.base import PassResult
from shrinkc.passes.rewrite import Rewriter


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
        for node in rewriter.find(self.statistics):
            if any(user.op == "output" for user in node.users):
                rewriter.skip(node, "it is an output of the network")
            else:
                norm = _identity(*self.statistics[node.name])
                rewriter.insert_behind(
                    node, "norm", norm, f"reads '{node.name}' through a batch norm"
                )
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
