"""A plan for less depth, carried out around a training:

    network with batch norms → prepare: drop, remove, move padding, activate → train →
    finish: fold batch norms, merge (exact)

What is trained computes, position for position, what the merged network will compute.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from torch import fx, nn

from shrinkc.compiler.cost.budget import predicted_ms, price_of
from shrinkc.compiler.cost.predict import CostTable
from shrinkc.compiler.pipeline.deployed import Pair, merged_shape
from shrinkc.compiler.pipeline.run import run_exact_passes
from shrinkc.compiler.recover.layer_problems import needed
from shrinkc.errors import InputError
from shrinkc.passes.analysis.linear.spans import find_spans
from shrinkc.passes.base import Change, Pass, Skip
from shrinkc.passes.fold.fold_batch_norm import FoldBatchNorm
from shrinkc.passes.layers.insert_activations import InsertActivations
from shrinkc.passes.layers.remove_activations import RemoveActivations
from shrinkc.passes.layers.remove_layers import RemoveLayers
from shrinkc.passes.merge.merge_spans import MergeSpans
from shrinkc.passes.merge.move_padding import MovePadding
from shrinkc.passes.merge.replace_span import DropSpan
from shrinkc.passes.simplify.simplify import Simplify

MAX_NODES = 64  # of a span whose batch norms are not folded


@dataclass(frozen=True)
class DepthPlan:
    """Names of nodes of the network with its batch norms.

    removed   activations
    identity  convolutions that become the identity
    dropped   residual blocks of which the shortcut alone stays
    merged    spans that become one convolution each
    activated values that get an activation behind them, unless one follows already
    """

    removed: tuple[str, ...] = ()
    identity: tuple[str, ...] = ()
    dropped: tuple[Pair, ...] = ()
    merged: tuple[Pair, ...] = ()
    activated: tuple[str, ...] = ()


def union(plans: Iterable[DepthPlan]) -> DepthPlan:
    """All of them at once; they must not touch each other's spans."""
    parts = list(plans)
    return DepthPlan(
        tuple(dict.fromkeys(n for p in parts for n in p.removed)),
        tuple(dict.fromkeys(n for p in parts for n in p.identity)),
        tuple(dict.fromkeys(n for p in parts for n in p.dropped)),
        tuple(dict.fromkeys(n for p in parts for n in p.merged)),
        tuple(dict.fromkeys(n for p in parts for n in p.activated)),
    )


@dataclass(frozen=True, eq=False)
class Prepared:
    """A network ready to be trained, and the spans to be merged afterwards, as they are called
    in it."""

    graph: fx.GraphModule
    merged: tuple[Pair, ...]


def prepare(graph: fx.GraphModule, plan: DepthPlan, activation: nn.Module | None) -> Prepared:
    """Carry out all of a plan but the merging.

    activation  put behind the values that the plan names; None: behind none
    Raises InputError when the plan does not fit the network.
    """
    gone: dict[str, str] = {}
    if plan.dropped:
        found = find_spans(graph, MAX_NODES, sinks={sink for _, sink in plan.dropped}).spans
        spans = {(span.source, span.sink): span for span in found}
        for source, sink in plan.dropped:
            if (source, sink) not in spans:
                raise InputError(f"the plan drops '{source}' … '{sink}', which is no span here")
        for source, sink in plan.dropped:
            span = replace(spans[source, sink], source=gone.get(source, source))
            graph = DropSpan(span)(graph).graph_module
            gone[sink] = gone.get(source, source)
    removed = set(plan.removed)
    for node in graph.graph.nodes:  # a span may begin behind one that goes
        if node.name in removed and node.all_input_nodes:
            source: str = node.all_input_nodes[0].name
            gone[node.name] = gone.get(source, source)
    merged = tuple((gone.get(source, source), sink) for source, sink in plan.merged)
    if plan.identity:
        graph = _run(graph, RemoveLayers(plan.identity))
    if plan.removed:
        graph = _run(graph, RemoveActivations(plan.removed))
    graph = MovePadding(merged, MAX_NODES)(graph).graph_module  # a copy in any case
    if activation is not None and plan.activated:
        graph = InsertActivations(plan.activated, activation)(graph).graph_module
        behind = _behind(graph, plan.activated)
        merged = tuple((behind.get(source, source), sink) for source, sink in merged)
    return Prepared(graph, merged)


def _run(graph: fx.GraphModule, lossy: Pass) -> fx.GraphModule:
    result = lossy(graph)
    _all_done(result.skipped)
    return result.graph_module


def _all_done(skipped: Sequence[Skip]) -> None:
    if skipped:
        raise InputError(f"the plan does not fit: '{skipped[0].node}': {skipped[0].reason}")


def _behind(graph: fx.GraphModule, names: Sequence[str]) -> dict[str, str]:
    """The activations that all readers of a value read instead."""
    wanted = set(names)
    return {
        node.name: next(iter(node.users)).name
        for node in graph.graph.nodes
        if node.name in wanted
        and len(node.users) == 1
        and next(iter(node.users)).name.startswith(f"{node.name}_act")
    }


def in_spans(prepared: Prepared) -> tuple[str, ...]:
    """The nodes that become one layer with others."""
    nodes, found = {node.name: node for node in prepared.graph.graph.nodes}, set[str]()
    for source, sink in prepared.merged:
        found |= {node.name for node in needed(nodes[sink], {source})}
    return tuple(found)


def finish(prepared: Prepared) -> fx.GraphModule:
    """Fold and merge a trained network; both are verified in float64."""
    graph = prepared.graph.eval()
    folded, steps = run_exact_passes(graph, (FoldBatchNorm(),))
    pairs = _to_merge(folded, prepared.merged, steps[0].changes)
    merged, steps = run_exact_passes(
        folded, (MergeSpans(pairs, MAX_NODES), FoldBatchNorm(), Simplify())
    )
    _all_done(steps[0].skipped)
    return merged.float()


def finished_shape(prepared: Prepared) -> fx.GraphModule:
    """The same of a network whose numbers mean nothing; not verified."""
    result = FoldBatchNorm()(prepared.graph)
    pairs = _to_merge(result.graph_module, prepared.merged, result.changes)
    merged = MergeSpans(pairs, MAX_NODES)(result.graph_module)
    _all_done(merged.skipped)
    return merged.graph_module


def finished_ms(prepared: Prepared, table: CostTable, precision: str) -> float:
    """What the table says of the network once it is merged, and what is linear besides, too."""
    shape = merged_shape(finished_shape(prepared), price_of(table, precision))
    return predicted_ms(shape, table, precision)


def _to_merge(
    folded: fx.GraphModule, pairs: Sequence[Pair], changes: Sequence[Change]
) -> tuple[Pair, ...]:
    """Their names once batch norms are folded, less those that are one layer by then."""
    values = {c.replaces[-1]: c.node for c in changes}
    nodes = {node.name: node for node in folded.graph.nodes}
    found = [(values.get(a, a), values.get(b, b)) for a, b in pairs]
    return tuple((a, b) for a, b in found if nodes[b].all_input_nodes != [nodes[a]])
