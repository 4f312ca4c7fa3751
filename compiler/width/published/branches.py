"""SSL's depth (Wen et al., 2016): residual branches whose last layer a group lasso has brought to
zero go as a whole; their shortcuts stay."""

from __future__ import annotations

from dataclasses import replace

from torch import fx

from shrinkc.passes.analysis.linear.spans import Span, find_spans
from shrinkc.passes.base import copy_graph
from shrinkc.passes.criteria.trained.ssl import zero_layers
from shrinkc.passes.merge.replace_span import DropSpan

MAX_NODES = 64  # of a span whose batch norms are not folded


def without_branches(graph_module: fx.GraphModule, threshold: float) -> fx.GraphModule:
    """A copy without those of which the last layer's root mean square weight is up to
    `threshold`."""
    found = copy_graph(graph_module)
    zero = set(zero_layers(graph_module, threshold))
    gone: dict[str, str] = {}
    for span in _branches(graph_module, zero):
        source = gone.get(span.source, span.source)
        found = DropSpan(replace(span, source=source))(found).graph_module
        gone[span.sink] = source
    return found


def _branches(graph_module: fx.GraphModule, zero: set[str]) -> list[Span]:
    """The shortest span with a shortcut around each layer, in the order of execution."""
    spans = [s for s in find_spans(graph_module, MAX_NODES, linear=True).spans if s.identity]
    order = {node.name: i for i, node in enumerate(graph_module.graph.nodes)}
    shortest: dict[str, Span] = {}
    for name in zero:
        around = [span for span in spans if name in span.nodes]
        if around:
            span = min(around, key=lambda s: len(s.nodes))
            shortest[span.sink] = span
    return sorted(shortest.values(), key=lambda span: order[span.sink])
