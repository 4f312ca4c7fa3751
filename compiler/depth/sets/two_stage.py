"""What two-stage DP chooses from (Kim et al., 2023): intervals, their merges, the states of ends.

Two sets are chosen. A: the values behind which an activation stays. S, which holds A: where merged
convolutions end. Between two neighbours of A all activations go, and what lies between them is
merged as is fastest, in one convolution or in several (T_opt, found first, by the table alone). The
activations at an interval's own ends may stay, go, or come where none was: an interval is tried in
each of these states, and intervals that meet agree on the one between them (`select`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from torch import fx, nn

from shrinkc.compiler.depth.choices import MAX_WORK, work
from shrinkc.compiler.depth.options import DepthOption
from shrinkc.compiler.depth.select import End
from shrinkc.compiler.depth.surgery import DepthPlan
from shrinkc.compiler.pipeline.deployed import Network
from shrinkc.passes.algebra.intervals import Interval, best_disjoint, region_order
from shrinkc.passes.analysis.linear.spans import Span, activations
from shrinkc.passes.analysis.op_spec import Price
from shrinkc.passes.ir import module_of


@dataclass(frozen=True)
class Boundary:
    """A value at the end of an interval. `activation`: the one that alone reads it; None: there is
    none. `free`: whether it may go, or come."""

    value: str
    activation: str | None
    free: bool

    def states(self, both: bool) -> tuple[bool, ...]:
        """With an activation or without, as it is first."""
        now = self.activation is not None
        return (now, not now) if both and self.free else (now,)


def interval_options(
    net: Network, spans: Sequence[Span], price: Price, both: bool
) -> list[DepthOption]:
    """Every interval whose merges save time, in every state of its ends. `both`: activations at
    ends may go and come; otherwise they stay as they are."""
    place = {node.name: i for node, i in region_order(net.folded.graph.nodes).items()}
    parts = [s for s in spans if s.saving(price) > 0 and work(s.after) <= MAX_WORK * work(s.before)]
    best: dict[tuple[str, ...], tuple[float, Span, list[Span]]] = {}
    for span in spans:
        merges = fastest_merges(span, parts, price, place)
        saving = sum(part.saving(price) for part in merges)
        known = best.get(span.removed)
        if _worth_it(span, merges) and (known is None or saving > known[0]):
            best[span.removed] = saving, span, merges
    return [
        option
        for saving, span, merges in best.values()
        for option in _in_every_state(net, span, merges, saving, place, both)
    ]


def fastest_merges(
    span: Span, parts: Sequence[Span], price: Price, place: dict[str, int]
) -> list[Span]:
    """T_opt: of the parts of an interval those disjoint ones that save most together."""
    inside = set(span.nodes)
    some = [part for part in parts if inside >= set(part.nodes)]
    intervals = [
        Interval(min(place[n] for n in part.nodes), place[part.sink], part.saving(price))
        for part in some
    ]
    return [some[i] for i in best_disjoint(intervals)]


def _worth_it(span: Span, merges: Sequence[Span]) -> bool:
    """A shorter interval does the same as one of which a single part is merged."""
    return len(merges) > 1 or any(part.nodes == span.nodes for part in merges)


def _in_every_state(
    net: Network,
    span: Span,
    merges: Sequence[Span],
    saving: float,
    place: dict[str, int],
    both: bool,
) -> Iterator[DepthOption]:
    ends = [boundary(net.folded, name) for name in (span.source, span.sink)]
    first = min(place[name] for name in span.nodes)
    pairs = tuple(net.pair(part.source, part.sink) for part in merges)
    for states in product(*(end.states(both) for end in ends)):
        stated = list(zip(ends, states, strict=True))
        gone = [e.activation for e, on in stated if e.activation is not None and not on]
        new = [net.values.get(e.value, e.value) for e, on in stated if on and not e.activation]
        plan = DepthPlan((*span.removed, *gone), (), (), pairs, tuple(new))
        named: tuple[End, ...] = tuple((e.value, on) for e, on in stated if e.free)
        yield DepthOption(plan, span, saving, first, place[span.sink], named)


def boundary(graph: fx.GraphModule, name: str) -> Boundary:
    """The value that a span begins behind, or ends in; a span begins behind an activation too."""
    known = activations(graph)
    node = next(n for n in graph.graph.nodes if n.name == name)
    if node.name in known and len(node.all_input_nodes[0].users) == 1:
        node = node.all_input_nodes[0]
    users = list(node.users)
    alone = users[0].name if len(users) == 1 and users[0].name in known else None
    read = users if alone is None else list(users[0].users)
    free = (
        node.op != "placeholder"
        and node.name not in known
        and not any(user.op == "output" for user in read)
        and (alone is not None or not all(user.name in known for user in users))
    )
    return Boundary(node.name, alone, free)


def layers(graph: fx.GraphModule, span: Span) -> int:
    """Convolutions of an interval."""
    nodes = {node.name: node for node in graph.graph.nodes}
    return sum(isinstance(module_of(graph, nodes[name]), nn.Conv2d) for name in span.nodes)
