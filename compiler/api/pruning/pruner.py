"""How a network is pruned as was asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import torch
from torch import Tensor, fx

from shrinkc.compiler.api.pruning.asked import Asked
from shrinkc.compiler.api.steps.images import (
    InBatches,
    batches_of,
    require_labels,
    seen_by_criteria,
)
from shrinkc.compiler.api.steps.request import FEW, Request
from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.cost.predict import CostTable
from shrinkc.compiler.images.decoded import Images, Samples
from shrinkc.compiler.images.labels import kind_of as kind_of_labels
from shrinkc.compiler.measure.speedup import Measuring
from shrinkc.compiler.pipeline.deployed import network
from shrinkc.compiler.recover.compensate import compensate as compensated
from shrinkc.compiler.recover.distil import Tuning
from shrinkc.compiler.recover.recipe import trainer_for
from shrinkc.compiler.support.choices import is_host
from shrinkc.compiler.support.journal import digest_of
from shrinkc.compiler.support.progress import Silent
from shrinkc.compiler.support.text import counted
from shrinkc.compiler.width.distil import distilled
from shrinkc.compiler.width.layer_by_layer import in_order as layer_after_layer
from shrinkc.compiler.width.measured_damage import MeasuredDamage
from shrinkc.compiler.width.methods import (
    chosen_by_cost,
)
from shrinkc.compiler.width.prune import (
    Compensate,
    Look,
    Stages,
)
from shrinkc.compiler.width.prune import Pruned as Found
from shrinkc.compiler.width.prune import prune as prune_graph
from shrinkc.compiler.width.published.branches import without_branches
from shrinkc.compiler.width.published.by_sensitivity import by_sensitivity
from shrinkc.compiler.width.published.from_scratch import FromScratch
from shrinkc.compiler.width.published.structural import by_search
from shrinkc.compiler.width.search.judge import Lesson
from shrinkc.compiler.width.search.methods import method_of
from shrinkc.compiler.width.search.searcher import Searcher, parted
from shrinkc.compiler.width.sensitivity import agreement_of, correct_of
from shrinkc.errors import InputError, UnreachableGoalError
from shrinkc.passes.analysis.channels.channel_groups import Groups
from shrinkc.passes.base import Skip
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.channels.slice_channels import SliceChannels
from shrinkc.passes.criteria.base import Criterion
from shrinkc.passes.criteria.shared.data import Batch
from shrinkc.passes.criteria.spec import Given as Criteria
from shrinkc.passes.criteria.spec import Penalty, Teaching

PLAIN_STRENGTH = 1e-4  # of the penalty of a criterion that says none
TRIED = 64  # images, where a milder goal is tried


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
        if asked.learner is not None:
            _check_taught(asked.learner, teaching, "images" if asked.teaches else "train")
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

    def notes(self, scratch: FromScratch | None) -> tuple[str, ...]:
        """How the network was helped, and what else a user should know. `scratch`: how it was
        trained anew, which leaves nothing of what was helped before."""
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
        if asked.spec.learns:
            epochs, name = counted(asked.score_epochs, "epoch"), asked.spec.name
            found += (f"scored by {name} in a training of its own, {epochs}",)
        if scratch is not None:
            return (*found, str(scratch), *recipe.notes(images))
        trained = f"trained for {counted(recipe.epochs, 'epoch')} on {counted(images, 'image')}"
        return (*found, said, trained, *recipe.notes(images))

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
            Criteria(
                *(batches, options.recipe.seed, by_cost, asked.every, asked.per, self._teaching())
            )
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
            seen=f"{spec.name} {by_cost} {digest} {asked.compensates}{order} {self._particular}",
            stages=Stages(
                self._penalty,
                self._damage(batches, seen) if seen is not None else None,
                self.searcher if asked.widths_searched else None,
                self._masked(fitted),
                self._look(criterion, batches, seen),
                self._drop,
                spec.learns,
                spec.decays,
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

    def _teaching(self) -> Teaching | None:
        """For criteria that learn their scores."""
        spec, images, request = self.asked.spec, self.teaching, self.request
        if not spec.learns or images is None:
            return None
        given = (self.asked.options.recipe, request.folder, "", request.progress)
        trainer = trainer_for(images, network(self.graph).graph, *given, task=request.options.task)

        def fit(graph: fx.GraphModule) -> None:
            name = f"{spec.name}-{digest_of(graph, self._particular)[:12]}"
            trainer.fit(graph.train(), name, self.asked.score_epochs)

        return Teaching(fit, InBatches(images, size=trainer.train.size))

    @property
    def _particular(self) -> str:
        """What scores depend on besides what all criteria look at."""
        asked, images = self.asked, self.teaching
        if not asked.spec.learns or images is None:
            return asked.particular
        return f"{asked.particular} {asked.score_epochs} {asked.options.recipe} {images.digest}"

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


def _check_taught(learner: str, teaching: Images | None, given: str) -> None:
    """Raises InputError for images without class labels, or of one class."""
    labels = None if teaching is None else teaching.labels
    if labels is None or kind_of_labels(labels) != "classes":
        raise InputError(
            f"{learner} learns from class labels, and `{given}` has none",
            "give class folders, or tensors with labels",
        )
    least, most = int(labels.min()), int(labels.max())
    if least == most:
        raise InputError(
            f"{learner} learns from class labels, and all of `{given}` are class {least}",
            "give images of several classes",
        )


def _compensation(batches: list[Batch], skipped: list[Skip]) -> Compensate:
    def fitted(graph: fx.GraphModule, groups: Groups, selection: Selection) -> Selection:
        found = compensated(graph, SliceChannels(selection), batches)
        skipped.extend(found.skipped)
        return found.selection

    return fitted
