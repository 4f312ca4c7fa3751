"""Insert an activation behind chosen values: what a merged convolution is followed by."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import fx, nn

from shrinkc.passes.analysis.linear.spans import activations
from shrinkc.passes.base import PassResult
from shrinkc.passes.rewrite import Rewriter


@dataclass(frozen=True, eq=False)
class InsertActivations:
    """All readers of a node named in `behind` read a copy of `activation` of it instead.

    DepthShrinker puts ReLU6 behind every merged convolution, since the span lost the activations it
    had (Fu et al., 2022). Lossy, so it comes before fine-tuning. Declined with a reason: a name
    that is no node, an output of the network, a node that activations alone read already.
    """

    behind: Sequence[str]
    activation: nn.Module
    name: ClassVar[str] = "insert-activations"
    exact: ClassVar[bool] = False

    def __call__(self, graph_module: fx.GraphModule) -> PassResult:
        rewriter = Rewriter(graph_module)
        known = activations(rewriter.graph_module)
        for node in rewriter.find(self.behind):
            users = list(node.users)
            if any(user.op == "output" for user in users):
                rewriter.skip(node, "it is an output of the network")
            elif all(user.name in known for user in users):
                rewriter.skip(node, "an activation reads it already")
            else:
                detail = f"reads '{node.name}' activated"
                rewriter.insert_behind(node, "act", copy.deepcopy(self.activation), detail)
        return rewriter.finish()
