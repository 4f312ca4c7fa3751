"""A network as it was trained, as every converter deploys it, and with what is linear merged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import fx

from shrinkc.compiler.pipeline.run import Step, run_exact_passes
from shrinkc.passes.analysis.linear.linear_segments import linear_segments
from shrinkc.passes.analysis.op_spec import Price
from shrinkc.passes.base import Pass, copy_graph
from shrinkc.passes.fold.fold_batch_norm import FoldBatchNorm
from shrinkc.passes.merge.merge_linear import MergeLinear
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


# --- exact merges --------------------------------------------------------------------------------


@dataclass(frozen=True)
class ExactMerge:
    """The linear layers behind node `source` up to node `sink` became one; nothing else changed."""

    source: str
    sink: str
    saving_ms: float


@dataclass(frozen=True, eq=False)
class Merged:
    """A deployed network whose linear layers are merged where that saves time."""

    graph_module: fx.GraphModule
    merges: tuple[ExactMerge, ...]


def merge_passes(price: Price | None) -> tuple[Pass, ...]:
    """Merge where it pays by `price`, everywhere without one."""
    return MergeLinear(price=price), Simplify()


def merged(graph_module: fx.GraphModule, price: Price) -> Merged:
    """Of a deployed network in float32; verified in float64. Where nothing pays, the network
    itself. Raises VerificationError."""
    if not MergeLinear(price=price)(graph_module).changes:
        return Merged(graph_module, ())
    result, steps = run_exact_passes(graph_module, merge_passes(price))
    found = tuple(_merges(graph_module, steps[0], price))
    return Merged(channels_last(result.float()), found)


def _merges(graph_module: fx.GraphModule, step: Step, price: Price) -> Iterator[ExactMerge]:
    """What `MergeLinear` did, in the order of execution."""
    nodes = {node.name: node for node in graph_module.graph.nodes}
    regions = {(r.source, r.sink): r for r in linear_segments(graph_module).regions}
    for change in step.changes:
        read = [x for name in change.replaces for x in nodes[name].all_input_nodes]
        (source,) = {x.name for x in read if x.name not in change.replaces and x.op != "get_attr"}
        region = regions[source, change.node]
        saving = sum(map(price, region.before)) - sum(map(price, region.after))
        yield ExactMerge(source, change.node, saving)


def merged_shape(graph_module: fx.GraphModule, price: Price) -> fx.GraphModule:
    """The same of a network whose numbers mean nothing; not verified."""
    result = MergeLinear(price=price)(graph_module)
    return Simplify()(result.graph_module).graph_module if result.changes else graph_module


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
