"""Shrinking without labels and without training: spans fitted to pictures, one after the other.

    candidates → damage of each alone → the least damage within the budget (exact) →
    in execution order, with the student's own inputs: least squares, then by gradient →
    gentle distillation on the same pictures

"merge": a span becomes one dense convolution, fitted by ridge regression (what removing its
activations leaves is only one of the points that the fit is drawn to). "drop": its shortcut alone
stays. "narrow": hidden channels that least squares misses least go, what reads the others is
refitted (He et al., 2017; Xie et al., CaP, 2021, with exact backward elimination).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path

import torch
from torch import Tensor, fx

from ...passes.analysis.spans import NoSpan, Span, find_spans
from ...passes.base import Change, Pass, PassResult, Skip, copy_graph
from ...passes.intervals import region_order
from ...passes.replace_span import DenseSpan, DropSpan, NarrowSpan
from ..costs import CostTable
from ..progress import Progress, Silent
from ..train.pictures import Pictures
from .budget import (
    budget_of,
    check_reachable,
    measured_within,
    predicted_ms,
    predicted_within,
    price_of,
)
from .choices import KINDS, Choice, Kind, choices, nothing_to_shrink
from .importance import Damage, fit_span, measure
from .rebuild import Rebuilding, rebuild
from .rows import Sample, size_of
from .select import Option, most, select
from .tune import Tuned, Tuning, tune

ATTEMPTS = 12  # to meet the budget by the whole network's own prediction


@dataclass(frozen=True)
class ClosedForm:
    """How to shrink.

    kinds      what may happen to a span
    rebuilding of every changed span, after its fit; `Rebuilding(steps=0)` for none
    tuning     the distillation at the end; `Tuning(steps=0)` for none
    cache      folder that keeps the measured damages; None: nothing is kept
    pictures   the most that a fit looks at
    """

    kinds: tuple[Kind, ...] = KINDS
    rebuilding: Rebuilding = field(default_factory=Rebuilding)
    tuning: Tuning = field(default_factory=Tuning)
    cache: Path | None = None
    pictures: int = 1000


@dataclass(frozen=True)
class Row:
    """One choice that was taken. `loss`, `agreement`, `error`: `Damage`, of this choice alone."""

    source: str
    sink: str
    kind: str
    channels: int
    saving_ms: float
    loss: float
    agreement: float
    error: float


@dataclass(frozen=True, eq=False)
class Shrunk:
    """The result. `before_ms` and `after_ms` are the table's. `fitted` is the graph before the
    distillation."""

    graph_module: fx.GraphModule
    fitted: fx.GraphModule
    before_ms: float
    after_ms: float
    rows: tuple[Row, ...]
    changes: tuple[Change, ...]
    skipped: tuple[Skip, ...]
    tuned: Tuned | None

    @property
    def speedup(self) -> float:
        return self.before_ms / self.after_ms


def shrink_closed_form(
    graph_module: fx.GraphModule,
    pictures: Pictures,
    table: CostTable,
    precision: str,
    *,
    speedup: float | None = None,
    budget_ms: float | None = None,
    options: ClosedForm | None = None,
    progress: Progress | None = None,
    measured_ms: Callable[[fx.GraphModule], float] | None = None,
) -> Shrunk:
    """Bring a captured network (float32, batch norms folded) within a latency budget.

    Give either `speedup` (over the table's prediction for the network as it is) or `budget_ms`.
    `measured_ms`: of a network whose numbers mean nothing yet; where the device is at hand, plans
    meet the budget by it instead of by the table.

    Raises InputError: no candidate at all (says why, span by span), a budget that cannot be
    reached (says what can); TableError where the table lacks the precision.
    """
    options, progress = options or ClosedForm(), progress or Silent()
    graph_module = channels_last(graph_module)
    sample = Sample(pictures, size_of(graph_module), options.pictures)
    before_ms = predicted_ms(graph_module, table, precision)
    budget = budget_of(before_ms, speedup, budget_ms)
    found, refused = candidates(graph_module, table, precision, options.kinds)
    check_reachable(before_ms, before_ms - most(_options(graph_module, found, None)), budget)
    damages = measure(graph_module, found, sample, options.cache, progress)
    plans = _Plans(graph_module, found, _options(graph_module, found, damages))
    saving = before_ms - budget
    if measured_ms is None:
        cost_ms = plans.costing(lambda graph: predicted_ms(graph, table, precision))
        chosen, _ = predicted_within(plans.saving, cost_ms, saving, budget, ATTEMPTS)
    else:
        cost_ms, asked = plans.costing(measured_ms), (0.0, saving, most(plans.options))
        chosen, _ = measured_within(plans.saving, cost_ms, asked, budget)
    taken = [found[i] for i in chosen]
    shrunk = apply(graph_module, taken, sample, options.rebuilding, progress)
    tuned = None
    if options.tuning.steps:
        tuned = tune(shrunk.graph_module, graph_module, sample, options.tuning, progress)
    return Shrunk(
        graph_module=shrunk.graph_module if tuned is None else tuned.graph_module,
        fitted=shrunk.graph_module,
        before_ms=before_ms,
        after_ms=predicted_ms(shrunk.graph_module, table, precision),
        rows=tuple(_row(found[i], damages[i]) for i in chosen),
        changes=shrunk.changes,
        skipped=tuple(Skip(r.node, r.reason) for r in refused),
        tuned=tuned,
    )


def channels_last(graph_module: fx.GraphModule) -> fx.GraphModule:
    """A copy in inference mode whose kernels lie in memory as PyTorch computes fastest."""
    copy = copy_graph(graph_module).eval()
    for parameter in copy.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return copy


def candidates(
    graph_module: fx.GraphModule,
    table: CostTable,
    precision: str,
    kinds: Sequence[Kind] = KINDS,
) -> tuple[list[Choice], list[NoSpan]]:
    """Every choice that saves time by the table, and why other spans stay. Raises InputError when
    there is none."""
    found, refused = choices(find_spans(graph_module), price_of(table, precision), kinds)
    if not found:
        raise nothing_to_shrink(refused)
    return found, refused


def _options(
    graph: fx.GraphModule, found: Sequence[Choice], damages: Sequence[Damage] | None
) -> list[Option]:
    order = {node.name: i for node, i in region_order(graph.graph.nodes).items()}
    return [
        Option(
            min(order[name] for name in c.span.nodes),
            order[c.span.sink],
            c.saving_ms,
            0.0 if damages is None else damages[i].loss,
        )
        for i, c in enumerate(found)
    ]


@dataclass(frozen=True, eq=False)
class _Plans:
    """Sets of choices by their numbers."""

    graph: fx.GraphModule
    found: Sequence[Choice]
    options: Sequence[Option]

    def saving(self, ms: float) -> list[int]:
        """The least damage that saves so much, operator by operator."""
        return select(self.options, ms)

    def costing(self, ms: Callable[[fx.GraphModule], float]) -> Callable[[list[int]], float]:
        """Of the networks that choices lead to."""
        return lambda chosen: ms(self.outline(chosen))

    def outline(self, chosen: Sequence[int]) -> fx.GraphModule:
        """The network's shape, with numbers of no meaning."""
        graph, gone = self.graph, dict[str, str]()
        for choice in _in_order(graph, [self.found[i] for i in chosen]):
            span = _renamed(choice.span, gone)
            graph = _placeholder(replace(choice, span=span))(graph).graph_module
            if choice.kind == "drop":
                gone[span.sink] = span.source
        return graph


def _placeholder(choice: Choice) -> Pass:
    span, window = choice.span, choice.span.window
    match choice.kind:
        case "merge":
            weight = _random(*window.weight_shape)
            return DenseSpan(span, weight, torch.ones(window.out_channels))
        case "drop":
            return DropSpan(span)
        case "narrow":
            side = span.hidden.kernel if span.hidden else 1
            root = round(side**0.5)
            weight = _random(window.out_channels, choice.channels, root, side // root)
            kept = torch.arange(choice.channels)
            return NarrowSpan(span, kept, weight, torch.ones(window.out_channels))


def _random(*shape: int) -> Tensor:
    """Values that int8 can be calibrated on."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float64) / prod(shape[1:]) ** 0.5


# --- applying ------------------------------------------------------------------------------------


def apply(
    graph: fx.GraphModule,
    chosen: Sequence[Choice],
    sample: Sample,
    rebuilding: Rebuilding,
    progress: Progress,
) -> PassResult:
    """Fit, replace and rebuild in execution order; the original answers, the student's inputs ask.

    Layers that nothing was chosen for stay as they are. Refitting them, too, raised the divergence
    on held-out pictures (MobileNetV2, fits on 100 pictures: 0.33 to 0.60).
    """
    student, changes = graph, list[Change]()
    gone: dict[str, str] = {}
    with progress.task("Fitting", len(chosen)) as done:
        for choice in _in_order(graph, chosen):
            span = _renamed(choice.span, gone)
            wanted = [replace(choice, span=span)]
            result = fit_span(student, graph, wanted, sample, _nothing)[0].replacement(student)
            student = result.graph_module
            if choice.kind == "drop":
                gone[span.sink] = span.source
            elif rebuilding.steps:
                student = rebuild(student, graph, span, sample, rebuilding)
            changes += result.changes
            done()
    return PassResult(student, tuple(changes))


def _nothing() -> None:
    """No progress inside one fit."""


def _in_order(graph: fx.GraphModule, chosen: Sequence[Choice]) -> list[Choice]:
    order = {node.name: i for i, node in enumerate(graph.graph.nodes)}
    return sorted(chosen, key=lambda choice: order[choice.span.sink])


def _renamed(span: Span, gone: dict[str, str]) -> Span:
    """Reads what a dropped span in front of it read."""
    return replace(span, source=gone.get(span.source, span.source))


def _row(choice: Choice, damage: Damage) -> Row:
    return Row(
        *(choice.span.source, choice.span.sink, choice.kind, choice.channels),
        *(choice.saving_ms, damage.loss, damage.agreement, damage.error),
    )
