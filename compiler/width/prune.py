"""Slice a network's channels until it fits a budget:

score every channel → choose widths → compensate → slice, verified → tune; once or in rounds,
then fine-tune by self-distillation from the network as it was

What is linear is merged in the end where that pays, which is exact. A budget in time is met with
that counted in, so that no channel goes for time that merging saves. Channels are chosen and
trained in the network as it was given, with its batch norms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from math import fsum, prod
from numbers import Real
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import numpy.typing as npt
from torch import fx

from shrinkc.compiler.cost.budget import measured_within, predicted_ms, price_of
from shrinkc.compiler.cost.goal import PRUNE_GOALS, Goal, Unit, missing, required
from shrinkc.compiler.cost.keys import macs
from shrinkc.compiler.cost.predict import CostTable, NoTable
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.pipeline.deployed import Network, merged, merged_shape, network
from shrinkc.compiler.pipeline.run import run_exact_passes
from shrinkc.compiler.pipeline.slicing import run_slicing
from shrinkc.compiler.recover.chains.over_parameterised import fine_tuned
from shrinkc.compiler.recover.recipe import Recipe, Trainer, trainer_for
from shrinkc.compiler.support.checks import check_whole
from shrinkc.compiler.support.choices import Allocated, Scratch
from shrinkc.compiler.support.journal import Journal, digest_of
from shrinkc.compiler.support.progress import Progress, Silent
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.task import Task
from shrinkc.compiler.train.log import Row as LogRow
from shrinkc.compiler.train.settings.config import Hooks
from shrinkc.compiler.width.allocation import (
    Allocation,
    Space,
    UnreachableError,
    allocate,
    nearest_to,
    per_group,
    selected,
    space_of,
)
from shrinkc.compiler.width.knapsack import cheapest
from shrinkc.compiler.width.measured_damage import MeasuredDamage
from shrinkc.compiler.width.price import Price, layers_of
from shrinkc.compiler.width.published.from_scratch import (
    FromScratch,
    check_scratch,
    train_from_scratch,
)
from shrinkc.compiler.width.published.initial import Initial
from shrinkc.compiler.width.search.within import Choose, Within, within_of
from shrinkc.compiler.width.skeleton import Facts, Skeleton
from shrinkc.compiler.width.while_training import prune_while_training
from shrinkc.errors import InputError, UnreachableGoalError
from shrinkc.latency_tables.table import LatencyTable
from shrinkc.passes.analysis.channels.channel_groups import Groups, channel_groups
from shrinkc.passes.base import Skip, copy_graph
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.channels.slice_channels import SliceChannels
from shrinkc.passes.criteria.base import Criterion, Schedule, Scores, schedule_of
from shrinkc.passes.criteria.magnitude import EqualScores
from shrinkc.passes.criteria.spec import Penalty
from shrinkc.passes.fold.fold_batch_norm import FoldBatchNorm

ATTEMPTS = 6  # to meet a budget
TINY = 1e-9  # of a budget: rounding
COUNTED = 64  # candidate widths where no latency has to be known
MULTIPLES = {"cpu": 8, "gpu": 32}  # channels that fill the vectors of a runtime's kernels

Look = Callable[[fx.GraphModule, Groups, Space, Price, float, int], Selection]
Compensate = Callable[[fx.GraphModule, Groups, Selection], Selection]


@dataclass(frozen=True)
class Pruning:
    """Options.

    rounds        of scoring and slicing; the budget falls by the same factor in each
    recipe        of training; `epochs` at the end, `search_epochs` (none: 1) between rounds and of
                  training with a penalty or by a criterion's own schedule
    one_by_one    groups are sliced one after the other, each scored in the network so far, with
                  `search_epochs` of training behind each
    initial       the network before it was trained: what is left of it is where every training
                  starts
    keep          channel group → share of its channels that stays, other groups whole: instead of
                  a goal
    from_scratch  what is left is trained at the end as if it were new, from labels alone: "E", as
                  long as asked for, "B", with as much computation as the original
    """

    allocation: Allocation = field(default_factory=Allocation)
    rounds: int = 1
    recipe: Recipe = field(default_factory=Recipe)
    keep: Mapping[str, float] = field(default_factory=dict[str, float])
    one_by_one: bool = False
    initial: fx.GraphModule | None = field(default=None, repr=False)
    from_scratch: Scratch | None = None

    def __post_init__(self) -> None:
        check_whole("rounds", self.rounds, 1)
        for group, share in self.keep.items():
            if not isinstance(share, Real):
                raise InputError(f"`keep` {group}={share}: give a number, 0 to 1, exclusive")
        if self.from_scratch not in (None, *get_args(Scratch)):
            raise InputError(f"`from_scratch` {self.from_scratch}: give E or B")


@dataclass(frozen=True, eq=False)
class Stages:
    """What comes beside scoring and slicing, where it is given.

    penalty     (network, groups) → added to the loss of a training of its own, before anything is
                removed
    decays      whether weights decay beside the penalty
    damage      measures what groups lose, for the allocation that asks for it
    search      (network, what it has to keep to) → widths for a budget, in place of an allocation
    compensate  new weights for what stays, before each slicing
    drop        what is left of the network behind the training with the penalty, before channels go
    learns      the criterion trains before it scores
    look        (network, groups, space, price, budget, multiple) → what stays, for allocations that
                look at the network (`published/`)
    """

    penalty: Callable[[fx.GraphModule, Groups], Penalty] | None = None
    damage: MeasuredDamage | None = None
    search: Callable[[fx.GraphModule, Within], Choose] | None = None
    compensate: Compensate | None = None
    look: Look | None = None
    drop: Callable[[fx.GraphModule], fx.GraphModule] | None = None
    learns: bool = False
    decays: bool = True


@dataclass(frozen=True)
class Width:
    """Of one channel group."""

    group: str
    before: int
    after: int


@dataclass(frozen=True, eq=False)
class Pruned:
    """The result. Both graphs are deployed ones, batch norms folded; times are the table's, None
    without one; the first is the original's in fp32.

    trainable     the result with its batch norms, for more training
    from_scratch  how it was trained, where that was asked for
    """

    graph_module: fx.GraphModule
    original: fx.GraphModule
    trainable: fx.GraphModule
    widths: tuple[Width, ...]
    before_ms: float | None
    after_ms: float | None
    skipped: tuple[Skip, ...]
    history: tuple[LogRow, ...]
    from_scratch: FromScratch | None = None

    @property
    def speedup(self) -> float | None:
        if self.before_ms is None or self.after_ms is None:
            return None
        return self.before_ms / self.after_ms


def prune(
    captured: fx.GraphModule,
    table: CostTable | None,
    precision: str,
    criterion: Criterion,
    goal: Goal | None = None,
    *,
    options: Pruning | None = None,
    stages: Stages | None = None,
    train: Images | None = None,
    seen: str = "",
    measured_ms: Callable[[fx.GraphModule], float] | None = None,
    before_ms: float | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
    task: Task = CLASSIFICATION,
) -> Pruned:
    """Prune a captured network (batch norms as they are in training), which is left as it is.

    criterion    one with a schedule removes channels while the network trains on `train`, with
                 labels; any other is asked once a round
    goal         None: `options.keep` says what stays
    train        images to tune on, labelled or not; None: nothing is trained
    seen         tells apart what the criterion looks at, for what `folder` keeps
    measured_ms  of a deployed network: where the device is at hand, a budget in time is met by it
                 instead of by the table
    before_ms    that a speedup is over; None: the network's as it is, measured where that can be,
                 else by the table in fp32
    folder       keeps scores and checkpoints: a run that was stopped goes on there
    task         what the outputs mean, where training judges them

    Raises InputError: no group that can become narrower (says why), a budget that cannot be reached
    (says what can), a penalty without images; TableError where the table lacks the precision;
    TrainingError; VerificationError where the sliced network is not the masked one.
    """
    options, stages, progress = options or Pruning(), stages or Stages(), progress or Silent()
    check_goal(goal, options.keep)
    schedule = schedule_of(criterion)
    if stages.penalty is not None and train is None:
        raise InputError("this criterion trains with a penalty first; give `train`")
    if schedule is not None and (train is None or train.labels is None):
        raise InputError("a channel every few steps of which training? Give labelled images")
    if schedule is not None and options.keep:
        raise InputError("a schedule chooses widths itself; leave out shares of single groups")
    if stages.search is not None and (goal is None or schedule is not None or options.rounds > 1):
        raise InputError("a search chooses widths for a goal, at once; leave out what does besides")
    if options.allocation.normalise == "measured" and stages.damage is None:
        raise InputError("what groups bear is measured on images; give some")
    if options.allocation.kind in ("search", "sensitivity") and stages.look is None:
        raise InputError(f"`allocation` {options.allocation.kind} looks at images; give some")
    if options.initial is not None and train is None:
        raise InputError("`initial` is where trainings start; give `train`")
    net = network(captured)
    if options.from_scratch is not None:
        check_scratch(net.graph, options.initial is None, train, options.recipe, task)
    key = ""
    if folder is not None:
        start = options.initial and digest_of(options.initial, "")
        told = (criterion.name, schedule, seen, goal, options, start, train and train.digest)
        key = digest_of(net.graph, str(told))[:12]
    trainer = None
    if train is not None:
        teacher = copy_graph(net.graph)
        trainer = trainer_for(train, teacher, options.recipe, folder, key, progress, task=task)
    journal = f"{criterion.name} {seen}"
    run = _Run(
        *(net, table or NoTable(), precision, criterion, schedule, goal, options, stages, trainer),
        *(measured_ms, before_ms, folder, journal, progress),
    )
    return run.pruned()


def kind_of(options: Allocation, goal: Goal) -> Allocated:
    """How a goal's budget is spread."""
    return options.kind or ("uniform" if goal.unit == "channels" else "knapsack")


def check_goal(goal: Goal | None, keep: Mapping[str, float]) -> None:
    """Raise InputError unless exactly one says how far to prune."""
    if goal is None and not keep:
        raise InputError(f"{missing(PRUNE_GOALS)}, or `keep`")
    kind = None if goal is None else required(goal, PRUNE_GOALS).kind
    if kind is not None and keep:
        raise InputError(f"give exactly one of `{kind}`, `keep`, not several")


def scored(criterion: Criterion, graph: fx.GraphModule, groups: Groups) -> Scores:
    """By a criterion, which may be a user's own. Raises InputError where it does not give one
    number for each channel of a group."""
    scores: Any = criterion.scores(graph, groups)
    if not isinstance(scores, Mapping):
        raise InputError(
            f"`criterion` {criterion.name} gave a {type(scores).__name__} for scores; it must give "
            "a dictionary: channel group → a number for each channel"
        )
    known = {group.name: group.size for group in groups.groups}
    found: dict[str, npt.NDArray[np.float64]] = {}
    for name, numbers in cast("Mapping[str, Any]", scores).items():
        if np.shape(numbers) != (known.get(name),):
            wanted = f"{known[name]} numbers" if name in known else "nothing: no such group"
            raise InputError(
                f"`criterion` {criterion.name} scores the group {name} by {np.shape(numbers)} "
                f"numbers; it must give {wanted}"
            )
        found[name] = np.asarray(numbers)
    return found


@dataclass(frozen=True, eq=False)
class _Run:
    net: Network
    table: CostTable
    precision: str
    criterion: Criterion
    schedule: Schedule | None
    goal: Goal | None
    options: Pruning
    stages: Stages
    trainer: Trainer | None
    measured_ms: Callable[[fx.GraphModule], float] | None
    before_ms: float | None
    folder: Path | None
    seen: str
    progress: Progress

    def pruned(self) -> Pruned:
        graph, history, scratch = copy_graph(self.net.graph), list[LogRow](), None
        reset = None if self.options.initial is None else Initial.of(self.options.initial, graph)
        groups = channel_groups(graph)
        whole = {group.name: group.size for group in groups.groups}
        widths, skipped = dict(whole), dict[Skip, None]()
        penalty = self.stages.penalty
        if self.stages.learns or (penalty is not None and self.stages.drop is None):
            self._check_reachable(graph, whole)
        if penalty is not None and self.trainer is not None:
            trainer, hooks = self.trainer, Hooks(penalty=penalty(graph, groups))
            if not self.stages.decays:
                trainer = replace(trainer, recipe=replace(trainer.recipe, weight_decay=0.0))
            history += trainer.fit(graph, "penalty", self.short, hooks).history
        if self.stages.drop is not None:
            graph = self.stages.drop(graph)
            left = {group.name for group in channel_groups(graph).groups}
            widths |= dict.fromkeys(whole.keys() - left, 0)
        at_once = self.goal is None or self.schedule is not None
        rounds = 1 if at_once else self.options.rounds
        for number in range(1, rounds + 1):
            step = _Round(self, graph, whole, number, rounds)
            if self.schedule is not None:
                graph, chosen, selection, rows = step.while_training(self.schedule)
                reasons: tuple[Skip, ...] = ()
                history += rows
            else:
                with self.progress.task(f"Choosing widths, round {number} of {rounds}"):
                    chosen, selection, reasons = step.chosen()
            skipped |= dict.fromkeys(reasons)
            if self.options.one_by_one:
                graph, rows = self._one_by_one(graph, selection)
                history += rows
            else:
                with self.progress.task("Slicing; compared with the masked network in float64"):
                    graph, done = run_slicing(graph, SliceChannels(selection))
                skipped |= dict.fromkeys(done.skipped)
            widths |= chosen
            if reset is not None:
                graph = reset.after(selection)
            if self.trainer is not None and number < rounds:
                name = f"round-{number}-{digest_of(graph, '')[:8]}"
                history += self.trainer.fit(graph.train(), name, self.short).history
            elif self.trainer is not None:
                graph, scratch, rows = self._trained(graph, self.trainer, reset is not None)
                history += rows
        found = self._result(graph.eval(), whole, widths, tuple(skipped), tuple(history))
        return replace(found, from_scratch=scratch)

    def _trained(
        self, graph: fx.GraphModule, trainer: Trainer, initialised: bool
    ) -> tuple[fx.GraphModule, FromScratch | None, tuple[LogRow, ...]]:
        """The last training: further, or as if the network were new."""
        kind = self.options.from_scratch
        if kind is not None:
            before = self.net.folded
            return train_from_scratch(kind, graph, before, trainer, initialised=initialised)
        name = f"fine-tuning-{digest_of(graph, '')[:8]}"
        trained, rows = fine_tuned(trainer, graph.train(), self.net.graph, name)
        return trained, None, rows

    def _check_reachable(self, graph: fx.GraphModule, whole: Mapping[str, int]) -> None:
        """Raises UnreachableGoalError, before a training that scores wait for, where no scores can
        reach the goal. What is measured is not known yet."""
        if self.goal is None or (self.goal.unit == "ms" and self.measured_ms is not None):
            return
        allocation = replace(self.options.allocation, kind="knapsack", normalise=None)
        run = replace(
            self,
            criterion=EqualScores(),
            options=replace(self.options, allocation=allocation),
            stages=Stages(),
            folder=None,
        )
        try:
            _Round(run, graph, whole, 1, 1).chosen()
        except UnreachableGoalError:
            raise
        except InputError:  # other scores may fare better
            return

    def _one_by_one(
        self, graph: fx.GraphModule, selection: Selection
    ) -> tuple[fx.GraphModule, list[LogRow]]:
        """As many channels of each group as were chosen; which of them is decided anew."""
        counts = {name: int(mask.sum()) for name, mask in selection.keep.items()}
        order = [g.name for g in channel_groups(graph).groups if g.name in counts]
        history: list[LogRow] = []
        for number, name in enumerate(order, 1):
            groups = channel_groups(graph)
            one = selected(groups, scored(self.criterion, graph, groups), {name: counts[name]})
            if self.stages.compensate is not None:
                one = self.stages.compensate(graph, groups, one)
            with self.progress.task(f"Slicing group {number} of {len(order)}"):
                graph, _ = run_slicing(graph, SliceChannels(one))
            if self.trainer is not None and number < len(order):
                run = f"group-{number}-{digest_of(graph, '')[:8]}"
                history += self.trainer.fit(graph.train(), run, self.short).history
                graph = graph.eval()
        return graph, history

    @property
    def short(self) -> int:
        return self.options.recipe.search_epochs or 1

    def _result(
        self,
        graph: fx.GraphModule,
        whole: Mapping[str, int],
        widths: Mapping[str, int],
        skipped: tuple[Skip, ...],
        history: tuple[LogRow, ...],
    ) -> Pruned:
        folded = run_exact_passes(graph, (FoldBatchNorm(),))[0].float()
        before = after = None
        if not isinstance(self.table, NoTable):
            folded = merged(folded, price_of(self.table, self.precision)).graph_module
            before = predicted_ms(self.net.folded, self.table)
            after = predicted_ms(folded, self.table, self.precision)
        found = tuple(Width(name, size, widths[name]) for name, size in whole.items())
        return Pruned(folded, self.net.folded, graph, found, before, after, skipped, history)


@dataclass(frozen=True, eq=False)
class _Round:
    """Choosing widths once, for `graph` as it is now; `whole`: widths before the first round."""

    run: _Run
    graph: fx.GraphModule
    whole: Mapping[str, int]
    number: int
    rounds: int

    @cached_property
    def groups(self) -> Groups:
        return channel_groups(self.graph)

    @cached_property
    def multiple(self) -> int:
        target = channel_multiple(self.run.table)
        return self.run.options.allocation.multiple_of(self.groups, target)

    def chosen(self) -> tuple[Mapping[str, int], Selection, tuple[Skip, ...]]:
        """Group → width, what stays, groups that stay whole."""
        run, options, groups = self.run, self.run.options.allocation, self.groups
        scores = self._scores(groups)
        if run.goal is None:
            widths, skipped = per_group(groups, run.options.keep, self.multiple)
            selection = selected(groups, scores, widths)
        else:
            if run.goal.unit != "ms":  # counted, not measured
                options = replace(options, candidates=options.candidates or COUNTED)
            space = space_of(groups, scores, options, self.multiple, self.whole)
            if options.normalise == "measured" and run.stages.damage is not None:
                space = replace(space, measured=run.stages.damage.losses(self.graph, space))
            widths, selection = self._within(run.goal, groups, space)
            skipped = space.skipped
        if run.stages.compensate is not None:
            selection = run.stages.compensate(self.graph, groups, selection)
        return widths, selection, skipped

    def _scores(self, groups: Groups) -> Scores:
        """Kept in the folder: some criteria take long."""
        run = self.run
        if run.folder is None:
            return scored(run.criterion, self.graph, groups)
        journal = Journal(run.folder, digest_of(self.graph, f"scores {run.seen}"))
        if "" not in journal.entries:
            for name, found in scored(run.criterion, self.graph, groups).items():
                journal.put(name, [float(x) for x in found])
            journal.put("", [])  # all of them
        return {name: np.array(found) for name, found in journal.entries.items() if name}

    def while_training(
        self, schedule: Schedule
    ) -> tuple[fx.GraphModule, Mapping[str, int], Selection, tuple[LogRow, ...]]:
        """The trained network, group → width, what stays, the log."""
        run = self.run
        assert run.trainer is not None
        assert run.goal is not None
        groups, options = self.groups, run.options.allocation
        scores, unit = EqualScores().scores(self.graph, groups), run.goal.unit
        space = space_of(groups, scores, options, self.multiple)
        _, price = self._price(groups, space, unit)
        budget = run.goal.budget(self._before(unit)) / self._left(unit)
        graph, selection, history = prune_while_training(
            *(self.graph, groups, price, budget, run.trainer),
            schedule,
            epochs=run.short,
            multiple=self.multiple,
        )
        widths = {name: int(mask.sum()) for name, mask in selection.keep.items()}
        if run.stages.compensate is not None:
            selection = run.stages.compensate(graph, groups, selection)
        return graph, widths, selection, history

    def _price(self, groups: Groups, space: Space, unit: Unit) -> tuple[Skeleton, Price]:
        """Of any widths."""
        run = self.run
        skeleton = Skeleton(FoldBatchNorm()(self.graph).graph_module, groups)
        layers = layers_of(skeleton, groups, space.narrow)
        return skeleton, layers.price(unit, run.table, run.precision)

    def _within(self, goal: Goal, groups: Groups, space: Space) -> tuple[dict[str, int], Selection]:
        """Widths whose network meets the round's budget, and the channels that stay."""
        looked = dict[tuple[tuple[str, int], ...], Selection]()
        widths = self._widths(goal, groups, space, looked)
        known = looked.get(tuple(sorted(widths.items())))
        return widths, space.selection(widths) if known is None else known

    def _looked(
        self,
        groups: Groups,
        space: Space,
        price: Price,
        looked: dict[tuple[tuple[str, int], ...], Selection],
        budget: float,
    ) -> dict[str, int]:
        """By what looks at the network; what stays is noted by its widths."""
        look = self.run.stages.look
        assert look is not None
        selection = look(self.graph, groups, space, price, budget, self.multiple)
        widths = {n: group.size for n, group in space.groups.items()}
        widths |= {n: int(mask.sum()) for n, mask in selection.keep.items()}
        looked[tuple(sorted(widths.items()))] = selection
        return widths

    def _widths(
        self,
        goal: Goal,
        groups: Groups,
        space: Space,
        looked: dict[tuple[tuple[str, int], ...], Selection],
    ) -> dict[str, int]:
        run, unit = self.run, goal.unit
        skeleton, price = self._price(groups, space, unit)
        before, left = self._before(unit), self._left(unit)
        start = self._start(unit, before)

        def cost(widths: Mapping[str, int]) -> float:
            if left == 1:
                return self._cost(skeleton.facts(widths), widths, unit)
            return predicted_ms(self._shape(space, widths), run.table, run.precision)

        def met(goal: Goal, choose: Choose, by_table: bool = False) -> dict[str, int]:
            target = goal.budget(before)
            share = (target / start) ** (self.number / self.rounds)
            budget = share * start
            try:
                if unit == "channels":
                    return self._nearest(goal, space, share, choose)
                if run.measured_ms is not None and unit == "ms":
                    if by_table:  # what is chosen is measured and corrected later
                        return _nearly(choose, budget / start * price.total({}))
                    return self._measured(space, price, choose, budget, run.measured_ms)
                if self.number == 1 < self.rounds:  # before anything is trained
                    _exactly(choose, target, cost, left)
                return _exactly(choose, budget, cost, left)
            except UnreachableError as error:
                raise UnreachableGoalError(
                    f"{goal.closest(before, error.closest)}{error.limited_by}"
                ) from None

        if run.stages.search is not None:
            return met(goal, run.stages.search(self.graph, within_of(goal, space, price, met)))
        if run.stages.look is not None:
            return met(goal, partial(self._looked, groups, space, price, looked))
        kind = kind_of(run.options.allocation, goal)
        return met(goal, partial(allocate, space, price, kind=kind))

    def _nearest(
        self,
        goal: Goal,
        space: Space,
        share: float,
        choose: Choose,
    ) -> dict[str, int]:
        """As near to this share of the channels as whole steps come: of every group, or of all
        together, by what `choose` takes for a budget."""
        options, searches = self.run.options.allocation, self.run.stages.search is not None
        whole, before = (
            {name: self.whole[name] for name in space.candidates},
            self._before("channels"),
        )
        if searches or kind_of(options, goal) != "uniform":
            widths = choose(share * before + self.multiple / 2)
        elif goal.value < (floor := options.floor):
            lowest = before - sum(whole.values()) + sum(space.narrow.values())
            raise UnreachableError(share * before, lowest, f", above a floor of {floor:g}")
        else:
            widths = nearest_to(space, share, whole)
        if self.number == self.rounds and widths == whole:
            raise UnreachableGoalError(
                f"`channels` {goal.value:g} is nearest to all channels, since widths are multiples "
                f"of {self.multiple}; give less, or a smaller `multiple`"
            )
        return widths

    def _left(self, unit: Unit) -> float:
        """Of the time that the operators take as they are, what is left once all that is linear is
        merged; 1 where nothing is, and of anything but time."""
        run = self.run
        if unit != "ms":
            return 1.0
        folded = FoldBatchNorm()(self.graph).graph_module
        shape = merged_shape(folded, price_of(run.table, run.precision))
        if shape is folded:
            return 1.0
        now, then = (predicted_ms(g, run.table, run.precision) for g in (folded, shape))
        return then / now

    def _shape(self, space: Space, widths: Mapping[str, int]) -> fx.GraphModule:
        """Of the network that is deployed at these widths."""
        sliced = SliceChannels(space.selection(widths))(self.graph).graph_module
        folded = FoldBatchNorm()(sliced).graph_module.float()
        return merged_shape(folded, price_of(self.run.table, self.run.precision))

    def _start(self, unit: Unit, before: float) -> float:
        """What the network that was given costs in the precision that is asked for, merged."""
        run = self.run
        if unit != "ms" or run.measured_ms is not None:
            return before
        shape = merged_shape(run.net.folded, price_of(run.table, run.precision))
        return predicted_ms(shape, run.table, run.precision)

    def _before(self, unit: Unit) -> float:
        """Of the network that was given."""
        run, folded = self.run, self.run.net.folded
        match unit:
            case "ms" if run.before_ms is not None:
                return run.before_ms
            case "ms" if run.measured_ms is not None:
                return run.measured_ms(folded)
            case "ms":
                return predicted_ms(folded, run.table)
            case "macs":
                return macs(lower(folded))
            case "params":
                return sum(parameter.numel() for parameter in folded.parameters())
            case "channels":
                return sum(self.whole.values())

    def _cost(self, facts: Facts, widths: Mapping[str, int], unit: Unit) -> float:
        """Of the network as it would be, every operator and parameter counted anew."""
        run = self.run
        match unit:
            case "ms":
                keys = (replace(key, precision=run.precision) for _, key in facts.operators)
                overhead = run.table.network_overhead_ms(run.precision)
                return fsum([overhead, *(run.table.estimate(key).ms for key in keys)])
            case "macs":
                return sum(key.macs for _, key in facts.operators)
            case "params":
                return sum(prod(shape) for shape in facts.parameters.values())
            case "channels":
                groups = channel_groups(self.graph).groups
                return sum(widths.get(group.name, group.size) for group in groups)

    def _measured(
        self,
        space: Space,
        price: Price,
        choose: Choose,
        budget: float,
        measured_ms: Callable[[fx.GraphModule], float],
    ) -> dict[str, int]:
        """By measuring, the same widths once: what is asked of the table is corrected by what came
        out."""
        known: dict[tuple[tuple[str, int], ...], float] = {}

        def measured(widths: Mapping[str, int]) -> float:
            key = tuple(sorted(widths.items()))
            if key not in known:
                known[key] = measured_ms(self._shape(space, widths))
            return known[key]

        whole = price.total(choose(price.total({})))
        most = whole - price.total(cheapest(space.problem(price)))
        first = min(whole * max(0.0, 1 - budget / measured(choose(whole))), most)
        asked = 0.0, first, most
        return measured_within(lambda ms: choose(whole - ms), measured, asked, budget)[0]


def _nearly(choose: Choose, asked: float) -> dict[str, int]:
    """By the table; what it has no widths for may fit when it is measured."""
    try:
        return choose(asked)
    except UnreachableError as error:
        return choose(error.closest * (1 + TINY))


def _exactly(
    choose: Choose,
    budget: float,
    cost: Callable[[Mapping[str, int]], float],
    left: float,
) -> dict[str, int]:
    """Prices by terms are exact but for operators whose kind changes with the width, and for what
    merging saves: the share `left` of them of the network as it is now."""
    asked, over = budget / left, 0.0
    for _ in range(ATTEMPTS):
        lowest: UnreachableError | None = None
        try:
            widths = choose(asked)
        except UnreachableError as error:
            lowest, widths = error, choose(error.closest * (1 + TINY))
        over = cost(widths) - budget
        if over <= 0:
            return widths
        if lowest is not None:
            raise UnreachableError(budget, budget + over, lowest.limited_by)
        asked -= over
    raise InputError(f"a budget of {budget:.4g} is missed by {over:.2g}; give more")


def channel_multiple(table: CostTable) -> int:
    """Of channels, that fills the vectors of the target's kernels."""
    return MULTIPLES[table.meta.cliffs] if isinstance(table, LatencyTable) else MULTIPLES["cpu"]
