"""Merge chosen spans: each, linear by now, becomes one convolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import fx

from shrinkc.passes.analysis.linear.linear_ops import LinearOps
from shrinkc.passes.analysis.linear.linear_segments import segments_of
from shrinkc.passes.analysis.shapes import shapes
from shrinkc.passes.analysis.usage import usage
from shrinkc.passes.base import PassResult, Skip
from shrinkc.passes.merge.merge_region import merge_region
from shrinkc.passes.rewrite import Rewriter


@dataclass(frozen=True)
class MergeSpans:
    """Replace what lies between each (source, sink) of `pairs` by one layer, whatever that costs.

    Exact at every position, borders included, as `MergeLinear`. Declined with the analysis' own
    reason: activations still inside, inner zero padding (see `MovePadding`), two sources; and pairs
    that share nodes with an earlier one.
    """

    pairs: tuple[tuple[str, str], ...]
    max_nodes: int = 64
    name: ClassVar[str] = "merge-spans"
    exact: ClassVar[bool] = True

    def __call__(self, graph_module: fx.GraphModule) -> PassResult:
        rewriter = Rewriter(graph_module)
        copy = rewriter.graph_module
        ops = LinearOps(copy, shapes(copy), usage(copy))
        segments = segments_of(ops, self.max_nodes, sinks={sink for _, sink in self.pairs})
        regions = {(r.source, r.sink): r for r in segments.regions}
        reasons = {b.sink: b.reason for b in reversed(segments.blocked)}
        nodes = {node.name: node for node in copy.graph.nodes}
        used: set[str] = set()
        skipped: list[Skip] = []
        for source, sink in self.pairs:
            region = regions.get((source, sink))
            if region is None:
                reason = reasons.get(sink, f"no linear region from '{source}' ends here")
                skipped.append(Skip(sink, reason))
            elif used.isdisjoint(region.nodes):
                used.update(region.nodes)
                merge_region(rewriter, ops, region, nodes)
            else:
                skipped.append(Skip(sink, "it shares nodes with another span"))
        result = rewriter.finish()
        return PassResult(result.graph_module, result.changes, (*result.skipped, *skipped))
