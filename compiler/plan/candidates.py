"""What may be chosen: in every precision the spans' choices and slices of channel groups, of the
network whose linear layers are merged where that pays: what is exact comes first, and is free.

Times are known without running anything; damages are measured when they are first asked for, every
choice once for all precisions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from torch import fx

from shrinkc.compiler.cost.budget import predicted_ms, price_of
from shrinkc.compiler.cost.predict import CostTable
from shrinkc.compiler.depth.choice_sets import Plans
from shrinkc.compiler.depth.choices import Choice, Kind, choices
from shrinkc.compiler.depth.importance import measure
from shrinkc.compiler.pipeline.deployed import Merged, merged
from shrinkc.compiler.plan.group_choices import GroupChoice, group_choices, measure_groups
from shrinkc.compiler.plan.slicings import Slicings
from shrinkc.compiler.recover.divergence import Damage
from shrinkc.compiler.recover.layer_problems import Sample
from shrinkc.compiler.support.jobs import Parallel
from shrinkc.compiler.support.progress import Progress
from shrinkc.compiler.tasks.task import Task
from shrinkc.errors import InputError, TableError
from shrinkc.passes.analysis.linear.spans import NoSpan, Span, find_spans


def available(
    original: fx.GraphModule, table: CostTable, precisions: Sequence[str]
) -> tuple[tuple[str, ...], list[str]]:
    """Of these precisions, those that target and installation have, and why not the others. Raises
    InputError where there are none."""
    found: list[str] = []
    notes: list[str] = []
    for precision in precisions:
        try:
            predicted_ms(original, table, precision)
        except TableError as error:
            notes.append(f"not planned in {precision}: {error}")
            continue
        if precision == "int8" and find_spec("ai_edge_quantizer") is None:
            notes.append("not planned in int8: pip install 'shrinkc[int8]'")
            continue
        found.append(precision)
    if not found:
        raise InputError("; ".join(notes))
    return tuple(found), notes


@dataclass(frozen=True, eq=False)
class Candidates:
    """What can be done to one network.

    kinds   what may happen to a span
    groups  whether channel groups that no span hides may be sliced
    sample  images that damages are measured on
    cache   folder that keeps the damages; None: nothing is kept
    task    what the outputs mean
    whole   of the network at its own size, where this one's images are smaller: what it measured is
            not measured again
    parallel  damages that are measured side by side
    """

    original: fx.GraphModule
    table: CostTable
    precisions: tuple[str, ...]
    kinds: tuple[Kind, ...]
    groups: bool
    sample: Sample
    cache: Path | None
    progress: Progress
    task: Task
    whole: Candidates | None = None
    parallel: Parallel = 1

    @cached_property
    def starts(self) -> dict[str, Merged]:
        """Precision → the network that choices are made in: the original, with what is linear
        merged where that pays. One network where the same merges do."""
        found: dict[str, Merged] = {}
        with self.progress.task("Merging what is linear; verified in float64"):
            for precision in self.precisions:
                start = merged(self.original, price_of(self.table, precision))
                places = [(one.source, one.sink) for one in start.merges]
                for other in found.values():
                    if [(one.source, one.sink) for one in other.merges] == places:
                        start = replace(start, graph_module=other.graph_module)
                found[precision] = start
        return found

    @cached_property
    def _choices(self) -> dict[str, tuple[list[Choice], list[NoSpan]]]:
        """Precision → what saves time, and which spans stay."""
        starts = {precision: start.graph_module for precision, start in self.starts.items()}
        spans = {graph: find_spans(graph) for graph in set(starts.values())}
        with self.progress.task("Pricing what can be done", len(self.precisions)) as done:
            found: dict[str, tuple[list[Choice], list[NoSpan]]] = {}
            for precision, graph in starts.items():
                price = price_of(self.table, precision)
                found[precision] = choices(spans[graph], price, self.kinds)
                done()
        return found

    def _slices(self, precision: str) -> list[GroupChoice]:
        """Widths of channel groups that no span's choices are about, or that have to be sliced to
        be narrowed together with a neighbour's."""
        if not self.groups:
            return []
        hidden = hidden_alone([c.span for c in self._choices[precision][0] if c.channels])
        graph = self.starts[precision].graph_module
        with self.progress.task("Pricing channel groups"):
            return group_choices(graph, self.table, precision, hidden)

    @cached_property
    def priced(self) -> dict[str, Slicings]:
        """Precision → what can be done; tells times, and no damages."""
        found: dict[str, Slicings] = {}
        for p, (some, _) in self._choices.items():
            whole = Plans(self.starts[p].graph_module, self.table, p, some)
            found[p] = Slicings(whole, self._slices(p), None, self.kinds)
        return found

    @cached_property
    def judged(self) -> dict[str, Slicings]:
        """Precision → what can be done, with damages; measured now, once for all precisions that
        start from the same network."""
        by_graph: dict[fx.GraphModule, list[str]] = {}
        for precision, start in self.starts.items():
            by_graph.setdefault(start.graph_module, []).append(precision)
        found: dict[str, Slicings] = {}
        known = _Known() if self.whole is None else _Known.of(self.whole.judged.values())
        for graph, precisions in by_graph.items():
            found |= self._judged(graph, {p: self.priced[p] for p in precisions}, known)
        return found

    def _judged(
        self, graph: fx.GraphModule, priced: Mapping[str, Slicings], known: _Known
    ) -> dict[str, Slicings]:
        """`known`: of all starts so far; what was measured is added for spans."""
        measuring = self.sample, self.cache, self.progress
        task, parallel = self.task, self.parallel
        every = {c.label: c for slicings in priced.values() for c in slicings.whole.found}
        new = [c for c in every.values() if _same(c) not in known.spans]
        measured = measure(graph, new, *measuring, task=task, parallel=parallel)
        known.spans |= {_same(c): damage for c, damage in zip(new, measured, strict=True)}
        damages = {label: known.spans[_same(c)] for label, c in every.items()}
        wanted = {c.label: c for slicings in priced.values() for c in slicings.slices}
        rest = [c for label, c in wanted.items() if label not in known.slices]
        measured_slices = measure_groups(graph, rest, *measuring, task=task, parallel=parallel)
        slices = known.slices | measured_slices
        damages |= {label: slices[label][1] for label in wanted if label in slices}

        def judged(slicings: Slicings) -> Slicings:
            some = [c for c in slicings.slices if c.label in slices]
            whole = slicings.whole.judged([damages[c.label] for c in slicings.whole.found])
            kept = [replace(c, keep=slices[c.label][0].keep) for c in some]
            return Slicings(whole, kept, damages, slicings.kinds)

        return {p: judged(slicings) for p, slicings in priced.items()}

    @property
    def refused(self) -> tuple[NoSpan, ...]:
        """Spans that stay in every precision, and why."""
        per = [refused for _, refused in self._choices.values()]
        names = [{r.node for r in refused} for refused in per]
        return tuple(r for r in per[0] if all(r.node in found for found in names))


@dataclass
class _Known:
    """What choices are known to cost.

    spans   damages of what is done to spans. Exact merges leave the values between spans as they
            are: what does the same there does it in every start
    slices  label → the choice with the channels that should stay, and its damage
    """

    spans: dict[tuple[str, str], Damage] = field(default_factory=dict)
    slices: dict[str, tuple[GroupChoice, Damage]] = field(default_factory=dict)

    @classmethod
    def of(cls, judged: Iterable[Slicings]) -> _Known:
        found = cls()
        for slicings in judged:
            whole, damages = slicings.whole, slicings.damages or {}
            found.spans |= {_same(c): damages[c.label] for c in whole.found}
            found.slices |= {c.label: (c, damages[c.label]) for c in slicings.slices}
        return found


def hidden_alone(spans: Sequence[Span]) -> set[str]:
    """Layers that make the hidden channels of spans that share no layer with another one: of those
    that do, as every two convolutions of VGG in a row, only every second could be narrowed."""
    readers = Counter(node for span in set(spans) for node in span.nodes)
    return {
        span.hidden.producer
        for span in spans
        if span.hidden is not None and all(readers[node] == 1 for node in span.nodes)
    }


def _same(choice: Choice) -> tuple[str, str]:
    """What is alike of choices that do the same: label, and the value that channels are cut of."""
    hidden = choice.span.hidden
    about = f"{hidden.producer} {hidden.channels}" if hidden and choice.kind == "narrow" else ""
    return choice.label, about
