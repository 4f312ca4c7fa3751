"""Practise (Wang and Wu, CVPR 2023): blocks are dropped, labels are not needed.

    of every block    recoverability = loss of the last features once it is dropped and 1×1 adaptors
                      around the gap, which alone are trained, do what they can
    score             recoverability over the milliseconds that the block takes
    drop              the least score first, until the budget is met
    recover           adaptors around all gaps are trained, merged exactly into the convolutions
                      beside them, and then the whole network is, by the loss of the last features

The published code scores with adaptors and begins the last training without them. Here they stay:
they merge exactly and are nearer to what is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import fx

from shrinkc.compiler.cost.budget import check_reachable, predicted_ms, price_of
from shrinkc.compiler.cost.goal import SHRINK_GOALS, Goal
from shrinkc.compiler.cost.predict import CostTable
from shrinkc.compiler.depth.choices import nothing_to_shrink
from shrinkc.compiler.depth.options import DepthOption, depth_options
from shrinkc.compiler.depth.practise.adaptors import (
    Around,
    around,
    with_adaptors,
    without_adaptors,
)
from shrinkc.compiler.depth.practise.mimic import Mimic, Mimicry
from shrinkc.compiler.depth.select import select
from shrinkc.compiler.depth.sets.fitting import fitting
from shrinkc.compiler.depth.sets.pricing import priced
from shrinkc.compiler.depth.surgery import (
    DepthPlan,
    Prepared,
    finish,
    finished_ms,
    prepare,
    union,
)
from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.pipeline.deployed import Network, merged, merged_shape, network
from shrinkc.compiler.recover.distil import last_feature, tapped
from shrinkc.compiler.recover.layer_problems import size_of
from shrinkc.compiler.recover.recipe import require_batches
from shrinkc.compiler.support.jobs import Job, Parallel, finished
from shrinkc.compiler.support.journal import Journal, digest_of
from shrinkc.compiler.support.progress import Progress, Silent
from shrinkc.errors import UnreachableGoalError
from shrinkc.passes.analysis.linear.spans import NoSpan
from shrinkc.passes.base import Skip

BEHIND = "it stands behind the last features of more than one pixel, which tell what is lost"
CLOSED = "no convolution without groups, before it or behind it, can take an adaptor in"
ATTEMPTS = 20  # to meet the budget by the whole network's own prediction


@dataclass(frozen=True)
class Practise:
    """`mimicry`: of every training; `parallel`: blocks scored side by side, or "ray"."""

    mimicry: Mimicry = field(default_factory=Mimicry)
    parallel: Parallel = 1


@dataclass(frozen=True)
class DroppedBlock:
    """`recoverability`: what is lost of the last features (mean squared error) with adaptors in its
    place; `score`: that over `saving_ms`, the table's."""

    source: str
    sink: str
    saving_ms: float
    recoverability: float
    score: float

    def __str__(self) -> str:
        return (
            f"drop '{self.source}' to '{self.sink}': saves {self.saving_ms:.3g} ms, recoverable to "
            f"a squared error of {self.recoverability:.3g} in the last features, "
            f"{self.score:.3g} for every ms"
        )


@dataclass(frozen=True, eq=False)
class Practised:
    """The result. Times are the table's, `before_ms` the original's in fp32. `adaptors`: where they
    were, before they were merged."""

    graph_module: fx.GraphModule
    original: fx.GraphModule
    before_ms: float
    after_ms: float
    taken: tuple[DroppedBlock, ...]
    skipped: tuple[Skip, ...]
    adaptors: Around


def practise(
    captured: fx.GraphModule,
    images: Images,
    table: CostTable,
    precision: str,
    goal: Goal,
    *,
    options: Practise | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
    measured_ms: Callable[[fx.GraphModule], float] | None = None,
) -> Practised:
    """Drop blocks of a captured network (batch norms as they are in training) within a budget.

    folder       keeps recoverabilities and checkpoints: a run that was stopped goes on there
    measured_ms  of a merged network whose numbers mean nothing yet: where the device is at hand,
                 the budget is met by it instead of by the table

    Raises InputError: no block that can be dropped (says why, span by span), a budget that cannot
    be reached (says what can); TableError where the table lacks the precision; TrainingError.
    """
    options, progress = options or Practise(), progress or Silent()
    require_batches(captured)
    net, price = network(captured), price_of(table, precision)
    before_ms = predicted_ms(net.folded, table)
    run = _Run(net, table, precision, options, folder, progress, measured_ms)
    budget = goal.among(SHRINK_GOALS).budget(before_ms)
    blocks, refused = run.blocks()
    reached = run.reached(blocks, before_ms, budget)
    graph, where, taken = net.graph, Around((), ()), list[DroppedBlock]()
    if reached:
        mimic = Mimic.of(net.graph, images, size_of(net.graph), options.mimicry, progress)
        scored = run.scored(reached, mimic)
        chosen = by_score(scored, lambda few: run.ms([reached[i] for i in few]) <= budget)
        graph, where = run.recovered([reached[i] for i in chosen], mimic)
        taken = [scored[i] for i in chosen]
    result = merged(finish(Prepared(graph, ())), price).graph_module
    return Practised(
        *(result, net.folded, before_ms, predicted_ms(result, table, precision)),
        *(tuple(taken), tuple(Skip(r.node, r.reason) for r in refused), where),
    )


def by_score(scored: Sequence[DroppedBlock], enough: Callable[[Sequence[int]], bool]) -> list[int]:
    """The least score first, until what is dropped is `enough`; otherwise all of them."""
    order = sorted(range(len(scored)), key=lambda i: scored[i].score)
    return next((order[:n] for n in range(len(order)) if enough(order[:n])), order)


def gaps(plan: DepthPlan) -> dict[str, str]:
    """Values that are gone → the ones that are read in their place."""
    gone = {sink: source for source, sink in plan.dropped}
    return {sink: _read_instead(gone, sink) for sink in gone}


def _read_instead(gone: dict[str, str], name: str) -> str:
    while name in gone:
        name = gone[name]
    return name


@dataclass(frozen=True, eq=False)
class _Run:
    net: Network
    table: CostTable
    precision: str
    options: Practise
    folder: Path | None
    progress: Progress
    measured_ms: Callable[[fx.GraphModule], float] | None
    known: dict[DepthPlan, float] = field(default_factory=dict[DepthPlan, float])

    def blocks(self) -> tuple[list[DepthOption], list[NoSpan]]:
        """Those that can be dropped and made up for, and why others stay. Raises InputError where
        there is none."""
        price = price_of(self.table, self.precision)
        found, refused = depth_options(self.net, price, ("drop",))
        found, unpaid = priced(found, self._predicted)
        graph = self.net.graph
        places = {node.name: place for place, node in enumerate(graph.graph.nodes)}
        end = places[last_feature(graph, graph)]
        behind = [NoSpan(o.span.sink, BEHIND) for o in found if places[o.span.sink] > end]
        found = [option for option in found if places[option.span.sink] <= end]
        able = [option for option in found if self._dropped(option.plan)[1]]
        closed = [NoSpan(o.span.sink, CLOSED) for o in found if o not in able]
        refused = [*behind, *closed, *unpaid, *refused]
        if not able:
            raise nothing_to_shrink(refused)
        return able, refused

    def reached(
        self, blocks: list[DepthOption], before_ms: float, budget: float
    ) -> list[DepthOption]:
        """Blocks without which the budget is met, all of them if possible; none where it is met as
        it is. Raises UnreachableGoalError, which names the fastest."""
        if self.ms([]) <= budget:
            return []
        if (fastest := self.ms(blocks)) <= budget:
            return blocks
        if self.measured_ms is not None:
            raise UnreachableGoalError(
                f"no plan was measured within {budget:.4g} ms; without any of {len(blocks)} blocks "
                f"it took {fastest:.4g} ms",
                fastest_ms=fastest,
            )
        even, saving = [block.priced(1.0) for block in blocks], self.ms([]) - budget

        def cost_ms(chosen: Sequence[int]) -> float:
            return self.ms([blocks[i] for i in chosen])

        try:
            chosen, _ = fitting(
                even, lambda ms: select(even, ms), cost_ms, saving, budget, ATTEMPTS
            )
        except UnreachableGoalError as error:
            check_reachable(before_ms, min(fastest, error.fastest_ms or fastest), budget)
            raise
        return [blocks[i] for i in chosen]

    def scored(self, blocks: Sequence[DepthOption], mimic: Mimic) -> list[DroppedBlock]:
        """By what is lost once adaptors have done what they can, each measured once and kept."""
        about = f"practise {mimic.options} {mimic.images.digest} {mimic.size} {mimic.feature}"
        journal = Journal(self.folder, digest_of(self.net.graph, about), count=1)
        left = [block for block in blocks if block.label not in journal.entries]
        parallel = self.options.parallel
        shared = mimic if parallel == 1 else replace(mimic, progress=Silent())
        jobs = (Job(b.label, _lost, (self._adapted(b.plan, mimic),)) for b in left)
        with (
            self.progress.task("Measuring how well each block is made up for", len(left)) as done,
            closing(finished(jobs, len(left), parallel, shared=(shared,))) as results,
        ):
            for index, lost in results:
                journal.put(left[index].label, [lost])
                done()
        return [_scored(block, journal.entries[block.label][0]) for block in blocks]

    def recovered(
        self, blocks: Sequence[DepthOption], mimic: Mimic
    ) -> tuple[fx.GraphModule, Around]:
        """The network without them, its batch norms as they are, and where its adaptors were."""
        plan = union(block.plan for block in blocks)
        (graph, where), feature = self._dropped(plan), _instead(mimic, plan)
        adapted = with_adaptors(graph, where)
        fitted = mimic.fit(adapted, feature, self._kept("adaptors", adapted, mimic), norms=False)
        graph = without_adaptors(fitted, where)
        kept = self._kept("fine-tuning", graph, mimic)
        return mimic.fit(graph, feature, kept, norms=True), where

    def ms(self, blocks: Sequence[DepthOption]) -> float:
        """Of the network without them: measured where the device is at hand, else predicted."""
        plan = union(block.plan for block in blocks)
        if self.measured_ms is None:
            return self._predicted(plan)
        if plan not in self.known:
            shape = finish(prepare(self.net.graph, plan, None))
            price = price_of(self.table, self.precision)
            self.known[plan] = self.measured_ms(merged_shape(shape, price))
        return self.known[plan]

    def _predicted(self, plan: DepthPlan) -> float:
        return finished_ms(prepare(self.net.graph, plan, None), self.table, self.precision)

    def _dropped(self, plan: DepthPlan) -> tuple[fx.GraphModule, Around]:
        """The network without the plan's blocks, and where adaptors go."""
        graph = prepare(self.net.graph, plan, None).graph
        return graph, around(graph, gaps(plan).values())

    def _adapted(self, plan: DepthPlan, mimic: Mimic) -> fx.GraphModule:
        """The network without the plan's blocks, with adaptors, the feature first."""
        graph, where = self._dropped(plan)
        return tapped(with_adaptors(graph, where), _instead(mimic, plan))

    def _kept(self, name: str, graph: fx.GraphModule, mimic: Mimic) -> Path | None:
        if self.folder is None:
            return None
        key = digest_of(graph, f"practise {mimic.options} {mimic.images.digest}")[:12]
        return self.folder / key / name


def _instead(mimic: Mimic, plan: DepthPlan) -> str:
    """The node of the network without the plan's blocks that has to have the feature's values."""
    return gaps(plan).get(mimic.feature, mimic.feature)


def _lost(mimic: Mimic, model: fx.GraphModule) -> float:
    """The recoverability of what was dropped. `model`: with adaptors, the feature first: another
    process does not know nodes by name."""
    mimic.teach(model, None, norms=False)
    return mimic.loss(model)


def _scored(block: DepthOption, lost: float) -> DroppedBlock:
    saving, span = block.saving_ms, block.span
    return DroppedBlock(span.source, span.sink, saving, lost, lost / saving)
