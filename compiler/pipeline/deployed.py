"""a network as trained and as deployed"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from shrinkc.compiler.pipeline.run import run_exact_passes
from shrinkc.passes.base import Pass, copy_graph
from shrinkc.passes.fold.fold_batch_norm import FoldBatchNorm
from shrinkc.passes.recognise.recognise import Recognise
from shrinkc.passes.simplify.lift_rows import LiftRows
from shrinkc.passes.simplify.simplify import Simplify

# Good for training, too.
CANONICAL_PASSES: tuple[Pass, ...] = (Recognise(), LiftRows(), Simplify())
# What every converter does: the network that others are compared with.
BASE_PASSES: tuple[Pass, ...] = (*CANONICAL_PASSES, FoldBatchNorm())


def deployed(captured: fx.GraphModule) -> fx.GraphModule:
    """What plans are made for: simplified, batch norms folded, each pass verified in float64."""
    folded = run_exact_passes(captured, BASE_PASSES)[0].float()
    return channels_last(folded)


def channels_last(graph_module: fx.GraphModule) -> fx.GraphModule:
    """A copy in inference mode whose kernels lie in memory as PyTorch computes fastest."""
    copy = copy_graph(graph_module).eval()
    for parameter in copy.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return copy


Pair = tuple[str, str]  # source and sink of a span


@dataclass(frozen=True, eq=False)
class Network:
    """A network as it is trained and as it is deployed.

    graph   with its batch norms, float32, in eval mode
    folded  without them; spans are looked for here
    values  node of `folded` → node of `graph` that has its value
    """

    graph: fx.GraphModule
    folded: fx.GraphModule
    values: dict[str, str]

    def pair(self, source: str, sink: str) -> Pair:
        """The names in `graph` of a span of `folded`."""
        return self.values.get(source, source), self.values.get(sink, sink)


def network(captured: fx.GraphModule) -> Network:
    """Of a captured graph, which is not touched."""
    graph = run_exact_passes(captured, CANONICAL_PASSES)[0].float().eval()
    folded, steps = run_exact_passes(graph, (FoldBatchNorm(),))
    return Network(graph, folded.float(), {c.node: c.replaces[-1] for c in steps[0].changes})
