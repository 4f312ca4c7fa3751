"""Merge linear segments: what is linear from end to end becomes one convolution or linear layer.

    conv₂(conv₁(x)) = K ⋆ x + B,   k = k₁ + (k₂ − 1)·s₁,   s = s₁·s₂
    x + conv(x)     = (δ + K) ⋆ x + B

(Ding et al., RepVGG, 2021; Fu et al., DepthShrinker, 2022.) Exact at every position:
where padding inside the region cuts into the constant part, B is a map, added behind the
convolution; where it cuts into the linear part, the region is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import fx

from shrinkc.passes.algebra.intervals import Interval, best_disjoint, region_order
from shrinkc.passes.algebra.window import padding_of
from shrinkc.passes.analysis.linear.linear_op import ConstantPart
from shrinkc.passes.analysis.linear.linear_ops import LinearOps
from shrinkc.passes.analysis.linear.linear_segments import LinearRegion, LinearSegments, segments_of
from shrinkc.passes.analysis.op_spec import LAYER_OPS, OpSpec, Price
from shrinkc.passes.analysis.shapes import shapes
from shrinkc.passes.analysis.usage import usage
from shrinkc.passes.base import PassResult, Skip
from shrinkc.passes.merge.merge_region import merge_region
from shrinkc.passes.rewrite import Rewriter

LAYER = 1000


@dataclass(frozen=True)
class MergeLinear:
    """Replace linear regions by one layer each.

    `price` gives the milliseconds of one operator; regions are chosen so that the time saved is
    largest (dynamic programming, exact on any graph). Without it as few convolutions and linear
    layers remain as possible, and then as few nodes, whatever that costs at run time.

    Declined with a reason: what does not pay, inner zero padding after a k×k kernel, an output with
    two users, two sources, a module called twice or with shared parameters, a transposed
    convolution, a merged kernel larger than its input or of more than `max_weight_elements`.
    """

    price: Price | None = None
    max_weight_elements: int = 1 << 26
    name: ClassVar[str] = "merge-linear"
    exact: ClassVar[bool] = True

    def __call__(self, graph_module: fx.GraphModule) -> PassResult:
        rewriter = Rewriter(graph_module)
        copy = rewriter.graph_module
        ops = LinearOps(copy, shapes(copy), usage(copy))
        segments = segments_of(ops)
        nodes = {node.name: node for node in copy.graph.nodes}
        candidates = [
            _Candidate(region, *_worth(region, self.price))
            for region in segments.regions
            if self._changes_something(region)
        ]
        sane = [c for c in candidates if self._why_not(c.region) is None]
        chosen = _choose(sane, nodes)
        for skip in self._skips(segments, candidates, chosen):
            rewriter.skip(nodes[skip.node], skip.reason)
        for candidate in chosen:
            merge_region(rewriter, ops, candidate.region, nodes)
        return rewriter.finish()

    def _changes_something(self, region: LinearRegion) -> bool:
        """Not so for a convolution and its padding, or a convolution and its border map."""
        before, after = _sizes(region)
        return after < before or (self.price is not None and region.before != region.after)

    def _why_not(self, region: LinearRegion) -> str | None:
        """A reason against the merged layer, whatever it costs."""
        window, size = region.window, region.in_size
        if window.weight_elements > self.max_weight_elements:
            return (
                f"the merged layer would have {window.weight_elements:,} weights, "
                f"more than {self.max_weight_elements:,}"
            )
        if region.layout == "conv2d":
            largest = _largest_extent(region.before)
            for axis, height, known in zip(window.axes, size, largest, strict=True):
                if axis.extent > max(height, known):
                    return (
                        f"the merged kernel would span {axis.extent} positions "
                        f"of an input of {size[0]}×{size[1]}"
                    )
        return None

    def _skips(
        self,
        segments: LinearSegments,
        candidates: Sequence[_Candidate],
        chosen: Sequence[_Candidate],
    ) -> Iterator[Skip]:
        """What was considered and is not part of a merge: what blocks the regions, each reason
        once; for each sink the first region that is out of the question, and the best of those
        that do not pay."""
        merged = {name for c in chosen for name in c.region.nodes}
        inner = merged - {c.region.sink for c in chosen}
        reasons: dict[str, str] = {}
        for blocked in segments.blocked:
            if blocked.linear and blocked.sink not in inner:
                reasons.setdefault(blocked.reason, blocked.sink)
        yield from (Skip(sink, reason) for reason, sink in reasons.items())
        impossible: dict[str, str] = {}
        losing: dict[str, _Candidate] = {}
        for candidate in candidates:
            sink = candidate.region.sink
            if not merged.isdisjoint(candidate.region.nodes):
                continue
            reason = self._why_not(candidate.region)
            if reason is not None:
                impossible.setdefault(sink, reason)
            elif sink not in losing or candidate.saving > losing[sink].saving:
                losing[sink] = candidate
        yield from (Skip(sink, reason) for sink, reason in impossible.items())
        for sink, c in losing.items():
            yield Skip(sink, f"does not pay: {c.before:.3g} → {c.after:.3g} ms")


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A region and its cost, in milliseconds or as a size."""

    region: LinearRegion
    before: float
    after: float

    @property
    def saving(self) -> float:
        return self.before - self.after


def _worth(region: LinearRegion, price: Price | None) -> tuple[float, float]:
    if price is None:
        return _sizes(region)
    return sum(map(price, region.before)), sum(map(price, region.after))


def _sizes(region: LinearRegion) -> tuple[int, int]:
    """Nodes before and after, where one layer outweighs all nodes that a region can have."""
    padding = padding_of(region.window, region.in_size, region.out_size)
    extra = (padding.explicit is not None) + (region.constant == ConstantPart.MAP)
    layers = sum(spec.op in LAYER_OPS for spec in region.before)
    return LAYER * layers + len(region.nodes), LAYER + 1 + extra


def _largest_extent(specs: Sequence[OpSpec]) -> tuple[int, int]:
    """The largest span of a kernel, vertically and horizontally."""
    spans = [
        tuple((k - 1) * d + 1 for k, d in zip(s.kernel, s.dilation, strict=True)) for s in specs
    ]
    return max(s[0] for s in spans), max(s[1] for s in spans)


def _choose(candidates: Sequence[_Candidate], nodes: dict[str, fx.Node]) -> list[_Candidate]:
    """The disjoint regions of largest total saving."""
    order = region_order(nodes.values())
    intervals = [
        Interval(
            min(order[nodes[name]] for name in c.region.nodes),
            order[nodes[c.region.sink]],
            c.saving,
        )
        for c in candidates
    ]
    return [candidates[i] for i in best_disjoint(intervals)]
