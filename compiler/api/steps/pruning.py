"""How a network is pruned: what was asked for, checked, and carried out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

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
from shrinkc.compiler.support.choices import is_host
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
    chosen_by_cost,
    comparable,
    cumulative,
    readers_of,
)
from shrinkc.compiler.width.prune import Compensate, Pruning, Stages, check_goal, kind_of
from shrinkc.compiler.width.prune import Pruned as Found
from shrinkc.compiler.width.prune import prune as prune_graph
from shrinkc.compiler.width.search.judge import Lesson
from shrinkc.compiler.width.search.methods import SEARCHES, Search, method_of
from shrinkc.compiler.width.search.searcher import Searcher, parted
from shrinkc.errors import InputError, UnreachableGoalError
from shrinkc.passes.analysis.channels.channel_groups import Groups
from shrinkc.passes.base import Skip
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.channels.slice_channels import SliceChannels
from shrinkc.passes.criteria.shared.data import Batch
from shrinkc.passes.criteria.spec import CriterionSpec
from shrinkc.passes.criteria.spec import Given as Criteria

SIDE_BY_SIDE = ", ".join(method.name for method in SEARCHES if method.side_by_side)
LIMIT, STRENGTH = 500, 1e-4  # by default
TRIED = 64  # images, where a milder goal is tried


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
    strength: float
    every: int | None
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
        told: tuple[bool | None, int | None, float, int | None, bool, bool, int],
        images: bool,
        train: bool,
        epochs: int | None,
        search: Search | None = None,
    ) -> Asked:
        """`told`: from `compensate` to `limit`; what follows: whether there are any. Raises
        InputError for what can be known to fail before anything is loaded."""
        if epochs is not None:
            options = replace(options, recipe=replace(options.recipe, epochs=epochs))
        teaches = told[5] and epochs is not None and not train
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
        return self.spec.needs != "nothing" or self.compensates or self.measures or self.searches

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
        if self.measures and not images:
            raise InputError("`normalise` measured looks at images", "give `images`")
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
        for name, given in (("every", self.every is not None), ("in_order", self.in_order)):
            if given and (name == "every" or not search.of_widths):
                raise InputError(f"{method} chooses channels, and so does `{name}`", "give one")
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
        kind = "" if self.goal is None else kind_of(widths, self.goal)
        searches = self.searches
        # a schedule and a search spread it themselves
        spread = kind if self.every is None and not self.widths_searched else ""
        once, goal = "what removes channels at once, for a goal", "a goal"
        rounds = "pruning and training in turn: give `train`, and a goal"
        penalty, by_training = "strength" in spec.reads, self.trains_to_search
        refuse_unread(
            ("allocation", widths.kind is not None, spread != "", once),
            ("normalise", widths.normalise is not None, spread != "", once),
            (
                *("normalise", widths.normalise is not None, spread != "uniform"),
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
            ("candidates", widths.candidates is not None, spread != "" or searches, once),
            ("floor", widths.floor != Allocation().floor, kind != "", goal),
            ("rounds", self.options.rounds > 1, trains and spread != "", rounds),
            (
                *("round_epochs", recipe.search_epochs is not None),
                trains
                and (self.options.rounds > 1 or penalty or self.every is not None or by_training),
                "`rounds`, `every`, `method` abc and dmcp, criteria that train with a penalty",
            ),
            (
                *("strength", self.strength != STRENGTH, penalty and trains),
                f"{readers_of('strength')}, with `train`, or `epochs` and `labels`",
            ),
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

    def _check_numbers(self) -> None:
        check_whole("limit", self.limit, 1)
        check_number("strength", self.strength)
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
        options = replace(asked.options, allocation=comparable(asked.options.allocation, spec))
        batches = [] if seen is None else batches_of(seen, self.graph)
        by_cost = chosen_by_cost(options.allocation, asked.goal)
        criterion = spec.build(Criteria(batches, options.recipe.seed, by_cost, asked.every))
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
            seen=f"{spec.name} {by_cost} {digest} {asked.compensates}{order}",
            stages=Stages(
                self._penalty,
                self._damage(batches, seen) if seen is not None else None,
                self.searcher if asked.widths_searched else None,
                self._masked(fitted),
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
        return not (asked.trains or asked.measures or asked.in_order or asked.searches or timed)

    def _damage(self, batches: list[Batch], seen: Samples) -> MeasuredDamage:
        told = f"{self.asked.spec.name} {seen.digest} {len(seen)}"
        request = self.request
        return MeasuredDamage(
            *(batches, self.asked.compensates, told, request.folder, request.progress),
            task=request.options.task,
        )

    @property
    def _penalty(self) -> Any:
        penalty = self.asked.spec.penalty
        if penalty is None or self.teaching is None:
            return None
        return lambda graph, groups: penalty(graph, groups, self.asked.strength)  # pyright: ignore


def _compensation(batches: list[Batch], skipped: list[Skip]) -> Compensate:
    def fitted(graph: fx.GraphModule, groups: Groups, selection: Selection) -> Selection:
        found = compensated(graph, SliceChannels(selection), batches)
        skipped.extend(found.skipped)
        return found.selection

    return fitted
