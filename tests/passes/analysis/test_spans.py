"""Spans are found, their activations removed, their padding moved, and the rest merged exactly."""

from __future__ import annotations

import random
from functools import cache

import pytest
import torch
from pass_checks import assert_close, fingerprint, node_values, random_inputs, run_exact
from small_networks import NETWORKS, InvertedResidual, conv, excited, folded
from torch import fx, nn

from shrinkc.compiler.pipeline.contract import check_reported
from shrinkc.passes.analysis.linear.spans import Span, activations, cheapest, find_spans
from shrinkc.passes.analysis.op_spec import OpSpec
from shrinkc.passes.ir import check_legal
from shrinkc.passes.layers.remove_activations import RemoveActivations, activations_as_identity
from shrinkc.passes.merge.merge_spans import MergeSpans
from shrinkc.passes.merge.move_padding import MovePadding

SEEDS = 32  # of every network: 224 cases


@cache
def network(name: str) -> tuple[fx.GraphModule, tuple[Span, ...]]:
    graph = folded(NETWORKS[name]())
    return graph, find_spans(graph).spans


def some_spans(spans: tuple[Span, ...], seed: int) -> list[Span]:
    """A random maximal set of disjoint spans."""
    shuffled = random.Random(seed).sample(spans, len(spans))
    chosen: list[Span] = []
    for span in shuffled:
        if all(set(span.nodes).isdisjoint(other.nodes) for other in chosen):
            chosen.append(span)
    return chosen[: 1 + seed % 4]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_merged_equals_unmerged(name: str, seed: int) -> None:
    graph, spans = network(name)
    chosen = some_spans(spans, seed)
    removed = tuple(n for span in chosen for n in span.removed)
    linear = RemoveActivations(removed)(graph)
    assert {c.replaces[-1] for c in linear.changes} == set(removed)
    check_reported("remove-activations", graph, linear.graph_module, linear.changes)
    inputs = random_inputs(graph)
    twin = activations_as_identity(graph, removed)
    with torch.no_grad():
        assert_close(linear.graph_module(*inputs)[0], twin(*inputs)[0], "output")
    pairs = tuple((span.source, span.sink) for span in chosen)
    moved = MovePadding(pairs)(linear.graph_module)
    check_legal(moved.graph_module)
    assert {s.node for s in moved.skipped} == {
        span.sink for span in chosen if span.exact and not span.border
    }
    merged = run_exact(MergeSpans(pairs), moved.graph_module)
    assert not merged.skipped
    nodes = {node.name: node for node in merged.graph_module.graph.nodes}
    for span in chosen:
        assert span.sink in nodes
        assert not nodes.keys() & (set(span.nodes) - {span.sink})


def test_every_network_has_spans() -> None:
    assert all(len(network(name)[1]) >= 3 for name in NETWORKS)


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("expansion", [1, 2, 6])
@pytest.mark.parametrize("act", [nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU])
def test_a_whole_block(kernel: int, stride: int, expansion: int, act: type[nn.Module]) -> None:
    """One span from the block's input to its shortcut's addition, a dense convolution of the
    depthwise kernel."""
    block = InvertedResidual(4, 4, kernel, stride, expansion, act)
    graph = folded(nn.Sequential(conv(3, 4, 3), nn.ReLU(), block, nn.ReLU()))
    spans = [s for s in find_spans(graph).spans if s.window.in_channels == 4 and s.exact]
    whole = max(spans, key=lambda s: len(s.removed))
    assert len(whole.removed) == (1 if expansion == 1 else 2)
    assert whole.window.kernel == (kernel, kernel)
    assert whole.window.stride == (stride, stride)
    assert (whole.window.in_channels, whole.window.out_channels) == (4, 4)
    assert whole.identity == (stride == 1)
    if expansion > 1:
        assert whole.hidden is not None
        assert whole.hidden.channels == 4 * expansion
        assert len(whole.hidden.between) == 1
        assert whole.hidden.shortcut == (stride == 1)


def test_spans_across_blocks_grow_their_kernel() -> None:
    _, spans = network("mobilenet_v2")
    across = [s for s in spans if len(s.removed) == 4]
    assert any(s.window.kernel == (5, 5) and s.window.stride == (1, 1) for s in across)
    assert not any(s.exact for s in across)


@pytest.mark.parametrize("name", NETWORKS)
def test_spans_that_end_where_it_is_asked_are_those_of_all(name: str) -> None:
    def told(spans: tuple[Span, ...], sink: str) -> list[tuple[str, ...]]:
        return [(s.source, *s.nodes) for s in spans if s.sink == sink]

    graph, spans = network(name)
    for sink in {span.sink for span in spans}:
        assert told(find_spans(graph, sinks=[sink]).spans, sink) == told(spans, sink)
    # the last layer of a block, which only its addition reads, ends no span of its own
    added = {x.name for n in graph.graph.nodes if n.name.startswith("add") for x in n.args}
    for sink in added - {span.sink for span in spans}:
        assert not told(find_spans(graph, sinks=[sink]).spans, sink)


def test_squeeze_excite_blocks_with_a_reason() -> None:
    graph = folded(excited())
    found = find_spans(graph)
    assert any("squeeze-excite" in blocked.reason for blocked in found.blocked)
    gates = [n.name for n in graph.graph.nodes if "mul" in n.name]
    assert len(gates) == 1
    assert not any(gates[0] in span.nodes for span in found.spans)
    assert any(span.identity for span in found.spans)  # the block without one


def test_a_kernel_larger_than_the_map_is_refused() -> None:
    layers = [conv(3, 4, 3), nn.ReLU(), conv(4, 4, 7), nn.ReLU(), conv(4, 4, 7)]
    found = find_spans(folded(nn.Sequential(*layers), size=8))
    assert any("would span" in blocked.reason for blocked in found.blocked)


def test_hidden_channels_price_what_is_left() -> None:
    _, spans = network("mobilenet_v2")
    span = next(s for s in spans if s.identity and s.hidden and s.hidden.between)
    assert span.hidden is not None
    specs = span.hidden.specs(3)
    assert [s.op for s in specs] == [s.op for s in span.before]
    layers = [s for s in specs if "conv" in s.op]
    assert [(s.in_channels, s.out_channels, s.groups) for s in layers] == [
        (span.window.in_channels, 3, 1),
        (3, 3, 3),
        (3, span.window.out_channels, 1),
    ]


def macs(spec: OpSpec) -> float:
    area = spec.out_size[0] * spec.out_size[1] * spec.kernel[0] * spec.kernel[1]
    return area * spec.in_channels * spec.out_channels / spec.groups


def test_cheapest_takes_one_span_for_the_same_activations() -> None:
    _, spans = network("mobilenet_v2")
    kept = cheapest(spans, macs)
    assert kept
    assert len({s.removed for s in kept}) == len(kept)
    for span in kept:
        rivals = [s for s in spans if s.removed == span.removed]
        assert span.saving(macs) == max(s.saving(macs) for s in rivals) > 0


def test_the_walk_is_linear_in_the_size_of_the_graph() -> None:
    counts: list[int] = []
    for blocks in (6, 12):
        body = [InvertedResidual(4, 4) for _ in range(blocks)]
        graph = folded(nn.Sequential(conv(3, 4, 3), nn.ReLU(), *body), batch=1)
        counts.append(len(find_spans(graph).spans))
    longer = [InvertedResidual(4, 4) for _ in range(18)]
    graph = folded(nn.Sequential(conv(3, 4, 3), nn.ReLU(), *longer), batch=1)
    assert len(find_spans(graph).spans) - counts[1] == counts[1] - counts[0]


def test_moving_padding_leaves_the_interior_alone() -> None:
    graph, spans = network("mobilenet_v2")
    span = next(s for s in spans if len(s.removed) == 4 and s.in_size == s.out_size)
    before = fingerprint(graph)
    moved = MovePadding(((span.source, span.sink),))(graph)
    assert fingerprint(graph) == before
    inputs = random_inputs(graph)
    old, new = node_values(graph, inputs)[span.sink], None
    new = node_values(moved.graph_module, inputs)[span.sink]
    reach = sum(k // 2 for k in (3, 3))
    inside = (..., slice(reach, -reach), slice(reach, -reach))
    assert_close(new[inside], old[inside], "interior")
    assert float((new - old).abs().max()) > 1e-3


def test_what_cannot_be_done_is_a_skip() -> None:
    graph, spans = network("vgg")
    layer = next(n.name for n in graph.graph.nodes if n.name not in activations(graph))
    result = RemoveActivations(("nothing", layer))(graph)
    assert not result.modified
    assert {s.node: s.reason for s in result.skipped} == {
        "nothing": "there is no such node",
        layer: "it is no element-wise activation",
    }
    span = spans[0]
    kept = MergeSpans(((span.source, span.sink), ("x", "x")))(graph)
    assert not kept.modified
    assert len(kept.skipped) == 2
    assert not MovePadding((("x", span.source),))(graph).modified
