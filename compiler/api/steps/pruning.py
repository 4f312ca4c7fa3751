"""How a network is pruned: what was asked for, checked, and carried out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import NamedTuple

import torch
from torch import Tensor, fx

from shrinkc.compiler.api.steps.images import batches_of, require_labels, seen_by_criteria
from shrinkc.compiler.api.steps.request import FEW, Request
from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.cost.predict import CostTable
from shrinkc.compiler.images.decoded import Images, Samples
from shrinkc.compiler.images.labels import kind_of as kind_of_labels
from shrinkc.compiler.measure.speedup import Measuring
from shrinkc.compiler.options import Options
from shrinkc.compiler.pipeline.deployed import network
from shrinkc.compiler.recover.compensate import compensate as compensated
from shrinkc.compiler.recover.distil import Tuning
from shrinkc.compiler.recover.recipe import TRAINING, trainer_for
from shrinkc.compiler.support.checks import check_number, check_whole
from shrinkc.compiler.support.choices import Per, is_host
from shrinkc.compiler.support.progress import Silent
from shrinkc.compiler.support.text import counted
from shrinkc.compiler.support.unread import refuse_unread
from shrinkc.compiler.train.compute import require_training
from shrinkc.compiler.train.settings.own_loss import Loss
from shrinkc.compiler.width.allocation import Allocation
from shrinkc.compiler.width.distil import distilled
from shrinkc.compiler.width.layer_by_layer import in_order as layer_after_layer
from shrinkc.compiler.width.measured_damage import MeasuredDamage
from shrinkc.compiler.width.methods import (
    CRITERIA,
    as_published,
    chosen_by_cost,
    cumulative,
    readers_of,
)
from shrinkc.compiler.width.prune import (
    Compensate,
    Look,
    Pruning,
    Stages,
    check_goal,
    kind_of,
)
from shrinkc.compiler.width.prune import Pruned as Found
from shrinkc.compiler.width.prune import prune as prune_graph
from shrinkc.compiler.width.published.branches import without_branches
from shrinkc.compiler.width.published.by_sensitivity import by_sensitivity
from shrinkc.compiler.width.published.structural import by_search
from shrinkc.compiler.width.search.judge import Lesson
from shrinkc.compiler.width.search.methods import SEARCHES, Search, method_of
from shrinkc.compiler.width.search.searcher import Searcher, parted
from shrinkc.compiler.width.sensitivity import agreement_of, correct_of
from shrinkc.errors import InputError, UnreachableGoalError
from shrinkc.passes.analysis.channels.channel_groups import Groups
from shrinkc.passes.base import Skip
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.channels.slice_channels import SliceChannels
from shrinkc.passes.criteria.base import Criterion
from shrinkc.passes.criteria.shared.data import Batch
from shrinkc.passes.criteria.spec import CriterionSpec, Penalty
from shrinkc.passes.criteria.spec import Given as Criteria

SIDE_BY_SIDE = ", ".join(method.name for method in SEARCHES if method.side_by_side)
LIMIT = 500  # by default
PLAIN_STRENGTH = 1e-4  # of the penalty of a criterion that says none
TRIED = 64  # images, where a milder goal is tried


class Told(NamedTuple):
    """Arguments of `prune` that are handed on as they are."""

    compensate: bool | None
    steps: int | None
    strength: float | None
    drop_below: float | None
    every: int | None
    per: Per | None
    in_order: bool
    labels: bool
    limit: int


@dataclass(frozen=True, eq=False)
class Asked:
    """The arguments that say how to prune.

    trains   whether anything is trained; `teaches`: on `images`
    images   whether there are any
    search   how widths are searched for; None: they are allocated by scores
    """

    spec: CriterionSpec
    goal: Goal | None
    options: Pruning
    compensate: bool | None
    steps: int | None
    strength: float | None
    drop_below: float | None
    every: int | None
    per: Per | None
    in_order: bool
    labels: bool
    limit: int
    trains: bool
    images: bool
    teaches: bool
    search: Search | None = None

    @classmethod
    def of(
        cls,
        spec: CriterionSpec,
        goal: Goal | None,
        options: Pruning,
        told: Told,
        images: bool,
        train: bool,
        epochs: int | None,
        search: Search | None = None,
    ) -> Asked:
        """`images`, `train`: whether there are any. Raises InputError for what can be known to fail
        before anything is loaded."""
        if epochs is not None:
            options = replace(options, recipe=replace(options.recipe, epochs=epochs))
        teaches = told.labels and epochs is not None and not train
        asked = cls(spec, goal, options, *told, train or teaches, images, teaches, search)
        asked.check(epochs is not None)
        return asked

    def with_loss(self, request: Request, loss: Loss | None) -> Asked:
        """Raises InputError for a loss where nothing is trained."""
        readers = "a training: give `train`, or `epochs` and `labels`"
        refuse_unread(("loss", loss is not None, self.trains, readers))
        recipe = request.with_loss(self.options.recipe, loss)
        return replace(self, options=replace(self.options, recipe=recipe))

    @property
    def allocation(self) -> Allocation:
        """As asked for; else as published. What is divided by memory or FLOPs compares as it is."""
        options = self.options.allocation
        divided = self.per in ("memory", "flops") and self.every is None
        if divided and options.kind is None and options.normalise is None:
            options = replace(options, kind="global")
        return as_published(options, self.spec)

    @property
    def particular(self) -> str:
        """What single criteria read: runs that differ in it share nothing in a folder."""
        return f"{self.per} {self.strength} {self.drop_below}"

    @property
    def compensates(self) -> bool:
        """As asked for; else wherever there are images and nothing is trained, and before a
        training as the criterion is published."""
        if self.compensate is None:
            return self.images and (self.spec.compensates or self.in_order or not self.trains)
        return self.compensate

    @property
    def measures(self) -> bool:
        return self.options.allocation.normalise == "measured"

    @property
    def looks(self) -> bool:
        """Whether images are looked at before anything is trained."""
        looked = self.measures or self.allocation.kind in ("search", "sensitivity")
        return self.spec.needs != "nothing" or self.compensates or looked or self.searches

    @property
    def searches(self) -> bool:
        return self.search is not None

    @property
    def widths_searched(self) -> bool:
        """Otherwise they are allocated, or given one by one."""
        return self.search is not None and self.search.of_widths

    @property
    def side_by_side(self) -> bool:
        """Whether several candidates are judged at once."""
        return self.search is not None and method_of(self.search.method).side_by_side

    @property
    def trains_to_search(self) -> bool:
        """Whether a search trains: each candidate before it is judged, or widths themselves."""
        if self.search is None:
            return False
        method, epochs = method_of(self.search.method), self.options.recipe.search_epochs
        return method.learns or (method.trains and epochs is not None)

    def check(self, epochs: bool) -> None:
        """What can be known to fail before anything is loaded. Raises InputError."""
        images = self.images
        check_goal(self.goal, self.options.keep)
        self._check_numbers()
        if self.labels and not images:
            raise InputError(
                "`labels` says that the folders of `images` are classes", "give `images`"
            )
        if self.spec.needs != "nothing" and not images:
            without = ", ".join(c.name for c in CRITERIA if c.needs == "nothing")
            raise InputError(
                f"`criterion` {self.spec.name} looks at images",
                f"give `images`, or a criterion that needs none: {without}",
            )
        if self.compensate and not images:
            raise InputError("`compensate` looks at images", "give `images`; no labels are needed")
        if self.in_order and not images:
            raise InputError("`in_order` looks at images", "give `images`; no labels are needed")
        if self.in_order and self.compensate is False:
            raise InputError("`in_order` compensates every layer", "leave out `compensate`")
        if self.in_order and self.every is not None:
            raise InputError("`in_order` decides at once, `every` during a training", "give one")
        if self.options.one_by_one and (self.in_order or self.options.rounds > 1):
            raise InputError("`one_by_one` is an order of its own", "leave out the other")
        if self.options.one_by_one and self.options.initial is not None:
            raise InputError("`initial` resets rounds, `one_by_one` has none", "give one")
        if self.measures and not images:
            raise InputError("`normalise` measured looks at images", "give `images`")
        kind = self.allocation.kind
        if kind in ("search", "sensitivity") and not images:
            raise InputError(f"`allocation` {kind} looks at images", "give `images`")
        if kind == "search" and self.in_order:
            raise InputError("`in_order` and `allocation` search both say what stays", "give one")
        if self.search is not None:
            self._check_search(self.search)
        if self.steps and (self.trains or not self.compensates):
            raise InputError("`steps` of distillation follow `compensate` where nothing is trained")
        if self.every is not None and not (self.spec.scheduled and self.trains):
            some = ", ".join(c.name for c in CRITERIA if c.scheduled)
            raise InputError(f"`every` belongs to `criterion` {some} with `train`, or `epochs`")
        if epochs and not self.trains:
            raise InputError("`epochs` of what?", "give `train`, or `images` and `labels`")
        self._refuse_unread()
        self._refuse_untrained()
        if self.trains:
            require_training()

    def _check_search(self, search: Search) -> None:
        """Raises InputError."""
        method = f"`method` {search.method}"
        if self.goal is None and search.of_widths:
            raise InputError(f"{method} searches widths for a goal", "give one instead of `keep`")
        if not self.images:
            raise InputError(
                f"{method} judges candidates on images",
                "give `images` of the training set, with `labels` where there are any",
            )
        if self.goal is not None:
            for rate in search.rates:
                Goal(self.goal.kind, rate)
        if self.every is not None:
            raise InputError(f"{method} chooses channels, and so does `every`", "give one")
        for name, given in (
            ("`in_order`", self.in_order),
            ("`one_by_one`", self.options.one_by_one),
            ("`allocation` search", self.allocation.kind == "search"),
        ):
            if given and not search.of_widths:
                raise InputError(f"{method} chooses channels, and so does {name}", "give one")
        if self.trains_to_search and (not self.trains or self.teaches):
            learns = method_of(search.method).learns
            how = "learns from `train`, with labels" if learns else "trains candidates on `train`"
            raise InputError(
                f"{method} {how}, and judges them on other `images`",
                "give both" + ("" if learns else ", or leave out `round_epochs`"),
            )

    def _refuse_unread(self) -> None:
        """Raises InputError."""
        spec, widths, recipe, trains = (
            self.spec,
            self.options.allocation,
            self.options.recipe,
            self.trains,
        )
        kind = "" if self.goal is None else kind_of(self.allocation, self.goal)
        searches = self.searches
        # a schedule and a search spread it themselves
        spread = kind if self.every is None and not self.widths_searched else ""
        once, goal = self._allocated("what removes channels at once, for a goal"), "a goal"
        refuse_unread(
            ("allocation", widths.kind is not None, spread != "", once),
            ("normalise", widths.normalise is not None, spread != "", once),
            (
                *("normalise", widths.normalise is not None, spread in ("knapsack", "global")),
                "`allocation` knapsack and global",
            ),
            (
                "normalise",
                self.measures,
                spread == "knapsack",
                "`allocation` knapsack, where measured",
            ),
            (
                *("normalise", widths.normalise == "cumulative", spec.normalise == "cumulative"),
                f"{cumulative()}, where cumulative",
            ),
            (
                "search_step",
                widths.search_step != Allocation().search_step,
                spread == "search",
                "`allocation` search",
            ),
            ("candidates", widths.candidates is not None, spread != "" or searches, once),
            ("floor", widths.floor != Allocation().floor, kind != "", goal),
            ("per", self.per is not None, "per" in spec.reads, readers_of("per")),
            (
                "seed",
                recipe.seed != 0,
                trains or searches or "seed" in spec.reads,
                f"a training, and {readers_of('seed')}, and `method`",
            ),
            ("parallel", recipe.parallel != 1, self.side_by_side, f"`method` {SIDE_BY_SIDE}"),
            *recipe.unread(
                (*(TRAINING if trains else ("seed",)), "search_epochs", "parallel"),
                "other methods" if trains else "a training: give `train`, or `epochs` and `labels`",
            ),
            (
                "limit",
                self.limit != LIMIT,
                self.looks,
                "what criteria and compensation see of `images`",
            ),
            (
                *("labels", self.labels, "labels" in spec.reads or self.teaches or searches),
                f"{readers_of('labels')}, `method`, and for `epochs` of training on `images`",
            ),
        )

    def _refuse_untrained(self) -> None:
        """Raises InputError for what only a training reads."""
        options, trains = self.options, self.trains
        goal = self.goal is not None and self.every is None
        penalty = "strength" in self.spec.reads
        by_training = self.trains_to_search
        turns = options.rounds > 1 or options.one_by_one
        in_turn = "pruning and training in turn: give `train`, and a goal"
        refuse_unread(
            ("initial", options.initial is not None, trains, "a training: give `train`"),
            ("one_by_one", options.one_by_one, trains and goal, in_turn),
            (
                *("rounds", options.rounds > 1, trains and goal and not self.widths_searched),
                self._allocated(in_turn),
            ),
            (
                *("round_epochs", options.recipe.search_epochs is not None),
                trains and (turns or penalty or self.every is not None or by_training),
                "`rounds`, `one_by_one`, `every`, `method` abc and dmcp, and criteria that train "
                "with a penalty first",
            ),
            (
                *("strength", self.strength is not None, penalty and trains),
                f"{readers_of('strength')}, with `train`, or `epochs` and `labels`",
            ),
            (
                *("drop_below", self.drop_below is not None),
                "drop_below" in self.spec.reads and trains,
                f"{readers_of('drop_below')}, with `train`, or `epochs` and `labels`",
            ),
        )

    def _allocated(self, readers: str) -> str:
        """Of what is allocated and not searched for, in words."""
        if self.search is None or not self.widths_searched:
            return readers
        return f"widths that are allocated, and `method` {self.search.method} searches for them"

    def _check_numbers(self) -> None:
        check_whole("limit", self.limit, 1)
        for name, value in (("strength", self.strength), ("drop_below", self.drop_below)):
            if value is not None:
                check_number(name, value)
        for name, value, least in (("steps", self.steps, 0), ("every", self.every, 1)):
            if value is not None:
                check_whole(name, value, least)

    def check_files(self, options: Options) -> None:
        """Of what needs a target, which there is, if `options` name one. Raises InputError."""
        if options.target:
            return
        plain = Options()
        for name in ("opset", "runs", "threads"):
            given = getattr(options, name) != getattr(plain, name)
            refuse_unread((name, given, False, "files, which need a `target`"))
        read = self.looks or self.teaches
        refuse_unread(("images", self.images, read, "compensation, criteria, training, and files"))
        precision = options.precision
        if self.goal is not None and self.goal.unit == "ms":
            raise InputError(f"`{self.goal.kind}` is counted by a latency table; give `target`")
        if precision != "fp32":
            raise InputError("`precision` is of files, which need a `target`")


@dataclass(frozen=True, eq=False)
class Pruner:
    """What was asked for, with everything loaded.

    seen      by criteria and compensation
    teaching  images to train on
    searched  what searches found, for other values of the goal
    """

    request: Request
    asked: Asked
    graph: fx.GraphModule
    table: CostTable | None
    seen: Samples | None
    teaching: Images | None
    searched: dict[tuple[str, float], tuple[dict[str, int], str]] = field(
        default_factory=dict[tuple[str, float], tuple[dict[str, int], str]]
    )

    @classmethod
    def of(cls, asked: Asked, request: Request, table: CostTable | None) -> Pruner:
        """With the images read. Raises InputError where labels are missing."""
        if asked.labels:
            require_labels(request.images)
        graph, seen, spec = request.subject.layered(request.progress), None, asked.spec
        if request.images is not None and asked.looks:
            seen = seen_by_criteria(request.images, asked.labels, asked.limit, request.progress)
        if spec.needs == "labels" and (seen is None or kind_of_labels(seen.labels) != "classes"):
            raise InputError(
                f"`criterion` {spec.name} needs class labels",
                "give `labels` when the folders of `images` are classes",
            )
        teaching = request.training_images() if asked.trains else None
        learns = asked.search is not None and method_of(asked.search.method).learns
        if learns and (teaching is None or kind_of_labels(teaching.labels) != "classes"):
            raise InputError(
                "`method` dmcp learns from class labels, and `train` has none",
                "give class folders, or tensors with labels",
            )
        return cls(request, asked, graph, table, seen, teaching)

    def at(self, value: float) -> Pruner:
        """For another value of the goal."""
        goal = self.asked.goal
        assert goal is not None
        return replace(self, asked=replace(self.asked, goal=Goal(goal.kind, value)))

    @property
    def tunes(self) -> bool:
        """Whether the deployed network is distilled at the end."""
        fits = self.seen is not None and self.asked.compensates
        return fits and not self.asked.trains and self.steps > 0

    @property
    def notes(self) -> tuple[str, ...]:
        """How the network was helped, and what else a user should know."""
        asked, seen = self.asked, self.seen
        said = "not compensated for what went"
        if asked.compensates and seen is not None:
            steps = f", then {counted(self.steps, 'step')} of distillation" if self.tunes else ""
            said = f"compensated by least squares on {counted(len(seen), 'image')}{steps}"
        elif not asked.images and not asked.trains:
            said += ": that needs `images`"
        found = () if self.searcher is None else tuple(self.searcher.notes)
        if self.teaching is None:
            return (*found, said)
        recipe, images = asked.options.recipe, len(self.teaching)
        trained = f"trained for {counted(recipe.epochs, 'epoch')} on {counted(images, 'image')}"
        return (*found, said, trained, *recipe.batch_notes(images))

    @cached_property
    def steps(self) -> int:
        """Of distillation, where nothing is trained."""
        seen = 0 if self.seen is None else len(self.seen)
        return Tuning(steps=self.asked.steps).steps_for(self.graph, seen)

    def pruned(self) -> tuple[Found, tuple[Skip, ...]]:
        """The result, and layers that were not compensated."""
        asked, seen, spec = self.asked, self.seen, self.asked.spec
        options = replace(asked.options, allocation=asked.allocation)
        batches = [] if seen is None else batches_of(seen, self.graph)
        by_cost = chosen_by_cost(options.allocation, asked.goal)
        criterion = spec.build(
            Criteria(batches, options.recipe.seed, by_cost, asked.every, asked.per)
        )
        skipped: list[Skip] = []
        timed = asked.goal is not None and asked.goal.unit == "ms"
        digest = None if seen is None else seen.digest
        fitted = None
        if asked.in_order:
            fitted = layer_after_layer(criterion, batches, skipped, self.request.progress)
        elif asked.compensates:
            fitted = _compensation(batches, skipped)
        order = " in order" if asked.in_order else ""
        result = prune_graph(
            *(self.graph, self.table, self.request.options.precision, criterion, asked.goal),
            options=options,
            train=self.teaching,
            seen=f"{spec.name} {by_cost} {digest} {asked.compensates}{order} {asked.particular}",
            stages=Stages(
                self._penalty,
                self._damage(batches, seen) if seen is not None else None,
                self.searcher if asked.widths_searched else None,
                self._masked(fitted),
                self._look(criterion, batches, seen),
                self._drop,
            ),
            measured_ms=self.measured_ms if timed else None,
            before_ms=self.measured_ms.original_ms if timed and self.measured_ms else None,
            folder=self.request.folder,
            task=self.request.options.task,
            progress=self.request.progress,
        )
        narrower = any(width.after < width.before for width in result.widths)
        if self.tunes and seen is not None and narrower:
            result = distilled(
                *(result, seen, Tuning(steps=self.steps), self.request.progress),
                task=self.request.options.task,
            )
        return result, tuple(dict.fromkeys(skipped))

    def _masked(self, fitted: Compensate | None) -> Compensate | None:
        """With channels searched for before what reads them is compensated."""
        searcher = self.searcher
        if searcher is None or self.asked.widths_searched:
            return fitted

        def found(graph: fx.GraphModule, groups: Groups, selection: Selection) -> Selection:
            masks = searcher.masks(graph, groups, selection)
            return masks if fitted is None else fitted(graph, groups, masks)

        return found

    @cached_property
    def searcher(self) -> Searcher | None:
        """None where widths are allocated."""
        asked, seen, search = self.asked, self.seen, self.asked.search
        if search is None or seen is None:
            return None
        recipe, request, method = asked.options.recipe, self.request, method_of(search.method)
        fit, held = (batches_of(part, self.graph) for part in parted(seen))
        about, lesson, trainer = f"{seen.digest} {len(seen)}", None, None
        if asked.trains_to_search and self.teaching is not None:
            teacher, task = network(self.graph).graph, request.options.task
            given = (self.teaching, teacher, recipe, request.folder, "", request.progress)
            trainer = trainer_for(*given, task=task)
            epochs = recipe.search_epochs or 1
            if not method.learns:
                lesson = Lesson(trainer.train, trainer.judged, teacher, recipe, epochs)
                about += f" {recipe} {self.teaching.digest}"
        repair = "training" if lesson else "least squares" if asked.compensates else "norms"
        return Searcher(
            *(search, fit, held, request.options.task, method.repair or repair, about),
            *(request.folder, request.progress, lesson, recipe.parallel, recipe.seed),
            *(self.searched, trainer, recipe.search_epochs),
        )

    @cached_property
    def measured_ms(self) -> Measuring | None:
        """Of changed networks, where the target is this machine."""
        if self.table is None:
            return None
        request = self.request

        def few() -> tuple[Tensor, ...]:
            images = self.seen
            if images is None:
                if request.images is None:
                    raise InputError(
                        "`precision` int8 needs images to calibrate on", "give `images`"
                    )
                images = request.images.at_most(FEW).decoded(request.progress, margin=False)
            return images.taken(torch.arange(min(FEW, len(images))))

        return request.on_this_machine(self.table, few)

    def attempt(self, part: float, before_ms: float | None) -> float:
        """What is lost at a goal that is this part of the way: on a few images, not distilled."""
        request, goal = self.request, self.asked.goal
        milder = None if goal is None else goal.milder(part, before_ms)
        if milder is None or request.evaluation is None:
            return 0.0
        few = replace(
            request,
            evaluation=request.evaluation.at_most(TRIED),
            folder=None,
            progress=Silent(),
        )
        seen = self.seen
        if seen is not None and len(seen) > TRIED:
            seen = seen.part(torch.arange(TRIED) * len(seen) // TRIED)
        asked = replace(self.asked, goal=milder, steps=0)
        try:
            found, _ = replace(self, request=few, asked=asked, seen=seen).pruned()
        except UnreachableGoalError:  # so mild that nothing goes
            return 0.0
        judged = few.judged(found.graph_module, found.original)
        return 0.0 if judged is None else judged.lost

    @property
    def tries(self) -> bool:
        """Whether attempts are cheap: nothing is trained, measured, searched, or chosen layer after
        layer."""
        asked = self.asked
        timed = self.table is not None and is_host(self.request.options.target)
        looked = asked.searches or asked.allocation.kind in ("search", "sensitivity")
        return not (asked.trains or asked.measures or asked.in_order or looked or timed)

    def _damage(self, batches: list[Batch], seen: Samples) -> MeasuredDamage:
        told = f"{self.asked.spec.name} {seen.digest} {len(seen)}"
        request = self.request
        return MeasuredDamage(
            *(batches, self.asked.compensates, told, request.folder, request.progress),
            task=request.options.task,
        )

    def _look(
        self, criterion: Criterion, batches: list[Batch], seen: Samples | None
    ) -> Look | None:
        """For allocations that look at the network."""
        allocation, task = self.asked.allocation, self.request.options.task
        match allocation.kind:
            case "search":
                return by_search(criterion, batches, allocation)
            case "sensitivity":
                if seen is not None and seen.labels is not None:
                    return by_sensitivity(lambda _: correct_of(batches, task=task))
                return by_sensitivity(lambda graph: agreement_of(batches, graph, task=task))
            case _:
                return None

    @property
    def _drop(self) -> Callable[[fx.GraphModule], fx.GraphModule] | None:
        below = self.asked.drop_below
        return None if below is None else partial(without_branches, threshold=below)

    @property
    def _penalty(self) -> Callable[[fx.GraphModule, Groups], Penalty] | None:
        spec, asked = self.asked.spec, self.asked.strength
        if spec.penalty is None or self.teaching is None:
            return None
        deep = spec.depth if self.asked.drop_below is not None else None
        penalty, published = deep or spec.penalty, spec.strength

        def built(graph: fx.GraphModule, groups: Groups) -> Penalty:
            given = asked if asked is not None or published is None else published(graph, groups)
            return penalty(graph, groups, PLAIN_STRENGTH if given is None else given)

        return built


def _compensation(batches: list[Batch], skipped: list[Skip]) -> Compensate:
    def fitted(graph: fx.GraphModule, groups: Groups, selection: Selection) -> Selection:
        found = compensated(graph, SliceChannels(selection), batches)
        skipped.extend(found.skipped)
        return found.selection

    return fitted
