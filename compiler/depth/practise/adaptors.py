"""1×1 adaptors around gaps: where they go, and back into the convolutions that take them in.

A block that is dropped leaves a gap in a stream of values that convolutions write and read: back
from the gap every convolution that writes it, on from the gap every one that reads it, up to where
the channels are others. In a ResNet those are the last convolutions of the stage's earlier blocks
and its projection; the first ones of its later blocks, and of the next stage with its projection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import fx, nn

from shrinkc.compiler.pipeline.run import run_exact_passes
from shrinkc.passes.analysis.usage import usage
from shrinkc.passes.ir import ELEMENTWISE_MODULES, add, module_of
from shrinkc.passes.layers.insert_adaptors import InsertAdaptors, why_no_adaptor
from shrinkc.passes.merge.merge_spans import MergeSpans

_KEEPS = (  # channels as they are
    *(nn.BatchNorm2d, nn.PReLU, nn.Dropout, nn.Identity, nn.MaxPool2d, nn.AvgPool2d),
    *ELEMENTWISE_MODULES,
)


@dataclass(frozen=True)
class Around:
    """Names of convolutions that get an adaptor in front, and behind."""

    front: tuple[str, ...]
    behind: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.front or self.behind)


def around(graph: fx.GraphModule, gaps: Iterable[str]) -> Around:
    """Of a network whose blocks are dropped; `gaps`: the values that they had added to. Those that
    cannot take an adaptor in are left out."""
    nodes, used = {node.name: node for node in graph.graph.nodes}, usage(graph)
    front, behind = dict[str, None](), dict[str, None]()
    for gap in gaps:
        users = list(nodes[gap].users)
        front |= dict.fromkeys(_convs(graph, users, lambda node: list(node.users)))
        behind |= dict.fromkeys(_convs(graph, [nodes[gap]], lambda node: node.all_input_nodes))
    able = [n for n in nodes if why_no_adaptor(graph, nodes[n], used) is None]
    return Around(*(tuple(n for n in able if n in found) for found in (front, behind)))


def _convs(
    graph: fx.GraphModule, start: list[fx.Node], further: Callable[[fx.Node], list[fx.Node]]
) -> list[str]:
    """The first convolutions on every way from `start`."""
    waiting, seen, found = list(start), set[fx.Node](), list[str]()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        module = module_of(graph, node)
        if isinstance(module, nn.Conv2d):
            found.append(node.name)
        elif isinstance(module, _KEEPS) or node.target is add:
            waiting += further(node)
    return found


def with_adaptors(graph: fx.GraphModule, where: Around) -> fx.GraphModule:
    """In eval mode, nothing trainable but the adaptors."""
    inserted = InsertAdaptors(where.front, where.behind)
    adapted = run_exact_passes(graph.eval(), (inserted,))[0].float().requires_grad_(False)
    nodes = {node.name: node for node in adapted.graph.nodes}
    for name in (*(f"{n}_front" for n in where.front), *where.behind):
        adaptor = module_of(adapted, nodes[name])
        assert adaptor is not None
        adaptor.requires_grad_()
    return adapted


def without_adaptors(adapted: fx.GraphModule, where: Around) -> fx.GraphModule:
    """Merged into their convolutions, verified in float64; everything trainable."""
    nodes = {node.name: node for node in adapted.graph.nodes}
    pairs: list[tuple[str, str]] = []
    for name in dict.fromkeys((*where.front, *where.behind)):
        first = nodes[name]
        while first.name in (name, f"{name}_conv", f"{name}_front"):
            first = first.all_input_nodes[0]
        pairs.append((first.name, name))
    merged, _ = run_exact_passes(adapted.eval(), (MergeSpans(tuple(pairs)),))
    return merged.float().requires_grad_()
