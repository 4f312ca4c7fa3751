"""The methods of shrinking depth, by name.

A new method is one module with a function of a `DepthTask`, and one line of `METHODS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import fx

from shrinkc.compiler.cost.budget import predicted_ms, price_of
from shrinkc.compiler.cost.goal import SHRINK_GOALS, Goal, missing, required
from shrinkc.compiler.cost.predict import CostTable
from shrinkc.compiler.depth.closed_form import ClosedForm, TakenChoice, shrink_closed_form
from shrinkc.compiler.depth.practise.mimic import Mimicry
from shrinkc.compiler.depth.practise.practise import DroppedBlock, Practise, practise
from shrinkc.compiler.depth.trained import (
    TRAINED_METHODS,
    Taken,
    Trained,
    TrainedMethod,
    TrainedShrink,
    expand,
    shrink_trained,
)
from shrinkc.compiler.images.decoded import Samples, trainable
from shrinkc.compiler.pipeline.deployed import BASE_PASSES, merged
from shrinkc.compiler.pipeline.run import run_exact_passes
from shrinkc.compiler.support.progress import Progress
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.task import Task
from shrinkc.errors import InputError
from shrinkc.passes.base import Skip


@dataclass(frozen=True, eq=False)
class DepthTask:
    """What a method is given.

    captured     batch norms as they are
    goal         None where the method takes none, or `trained` says how many blocks stay
    closed       options of methods that fit, `trained` of those that learn
    folder       keeps importances and checkpoints; None: nothing is kept
    measured_ms  of a merged network whose numbers mean nothing yet, where the device is at hand
    task         what the network's outputs mean
    """

    captured: fx.GraphModule
    images: Samples
    table: CostTable
    precision: str
    goal: Goal | None
    closed: ClosedForm
    trained: Trained
    folder: Path | None
    progress: Progress
    measured_ms: Callable[[fx.GraphModule], float] | None
    task: Task = CLASSIFICATION


@dataclass(frozen=True, eq=False)
class DepthResult:
    """The deployed original and what was made of it; milliseconds are the table's. `taken`: what
    was done, each a line in `str`."""

    original: fx.GraphModule
    graph_module: fx.GraphModule
    before_ms: float
    after_ms: float
    taken: tuple[TakenChoice, ...] | tuple[Taken, ...] | tuple[DroppedBlock, ...]
    skipped: tuple[Skip, ...]


@dataclass(frozen=True)
class DepthMethod:
    """One method.

    name         to ask for it by
    shrink       does it; raises InputError, TableError, TrainingError
    learns       from labelled images; otherwise it fits to unlabelled ones
    tunes        trains on those
    takes_goal   False: it makes nothing faster
    keeps_blocks whether it can be asked for a number of blocks instead of a goal
    decides      whether it knows itself how much goes, where it is not asked for anything
    reads        options and fields of the recipe that not every training reads
    """

    name: str
    shrink: Callable[[DepthTask], DepthResult]
    learns: bool = True
    tunes: bool = False
    takes_goal: bool = True
    keeps_blocks: bool = False
    decides: bool = False
    reads: frozenset[str] = frozenset()

    def check(self, goal: Goal | None, options: Trained) -> None:
        """Raise InputError unless exactly one says how far to shrink, as the method can."""
        counts = [n for n in ("keep_blocks", "keep_ratio") if getattr(options, n) is not None]
        if counts and not self.keeps_blocks:
            some = ", ".join(method.name for method in METHODS if method.keeps_blocks)
            raise InputError(f"`keep_blocks` and `keep_ratio` belong to the method {some} alone")
        if not self.takes_goal:
            if options.recipe.chain_ratio:
                raise InputError(
                    f"{self.name} expands convolutions itself", "give `expand_ratio` instead"
                )
            if goal is not None:
                raise InputError(f"{self.name} makes nothing faster: leave out the goal")
            return
        given = [*([] if goal is None else [required(goal, SHRINK_GOALS).kind]), *counts]
        if not given and not self.decides:
            raise missing(SHRINK_GOALS)
        if len(given) > 1:
            names = ", ".join(f"`{name}`" for name in given)
            raise InputError(f"give exactly one of {names}, not several")


def _closed_form(given: DepthTask) -> DepthResult:
    """From the network with all that is linear merged, which is exact."""
    goal, table, precision = required(given.goal, SHRINK_GOALS), given.table, given.precision
    with given.progress.task("Folding, merging; each pass verified in float64"):
        original = run_exact_passes(given.captured, BASE_PASSES)[0].float()
        start = merged(original, price_of(table, precision)).graph_module
    before_ms, start_ms = predicted_ms(original, table), predicted_ms(start, table, precision)
    by_table = given.measured_ms is None
    if by_table and start_ms <= goal.budget(before_ms):
        return DepthResult(original, start, before_ms, start_ms, (), ())
    found = shrink_closed_form(
        *(start, given.images, table, precision, goal),
        before_ms=before_ms,
        options=given.closed,
        progress=given.progress,
        measured_ms=given.measured_ms,
        task=given.task,
    )
    return DepthResult(
        *(original, found.graph_module, found.before_ms, found.after_ms),
        *(found.taken, found.skipped),
    )


def _practise(given: DepthTask) -> DepthResult:
    recipe, steps = given.trained.recipe, given.closed.tuning.steps
    mimicry = Mimicry(learning_rate=recipe.learning_rate, seed=recipe.seed)
    found = practise(
        *(given.captured, trainable(given.images), given.table, given.precision),
        required(given.goal, SHRINK_GOALS),
        options=Practise(
            mimicry if steps is None else replace(mimicry, steps=steps), recipe.parallel
        ),
        folder=given.folder,
        progress=given.progress,
        measured_ms=given.measured_ms,
    )
    return DepthResult(
        *(found.original, found.graph_module, found.before_ms, found.after_ms),
        *(found.taken, found.skipped),
    )


def _trained(method: TrainedMethod) -> Callable[[DepthTask], DepthResult]:
    def shrink(given: DepthTask) -> DepthResult:
        found = shrink_trained(
            *(given.captured, trainable(given.images), given.table, given.precision),
            *(method, given.goal),
            options=given.trained,
            folder=given.folder,
            progress=given.progress,
            measured_ms=given.measured_ms,
            task=given.task,
        )
        return _result(found)

    return shrink


def _expand(given: DepthTask) -> DepthResult:
    found = expand(
        *(given.captured, trainable(given.images), given.table, given.precision),
        options=given.trained,
        folder=given.folder,
        progress=given.progress,
        task=given.task,
    )
    return _result(found)


def _result(found: TrainedShrink) -> DepthResult:
    return DepthResult(
        *(found.original, found.graph_module, found.before_ms, found.after_ms),
        *(found.taken, found.skipped),
    )


_MASKED = frozenset({"search_epochs", "per_activation", "activated", "search", "anneal"})
_FOLDED = frozenset({"search_epochs", "activated", "anneal"})
_TRIED = frozenset({"steps", "parallel", "activated", "importance", "anneal"})


def _read_by(method: TrainedMethod) -> frozenset[str]:
    if method.learned == "masks":
        return _MASKED
    if method.learned == "alphas":
        return _FOLDED
    return _TRIED if method.moves else _TRIED | {"alpha"}


METHODS: tuple[DepthMethod, ...] = (
    DepthMethod("closed-form", _closed_form, learns=False, reads=frozenset({"parallel"})),
    DepthMethod(
        *("practise", _practise),
        learns=False,
        tunes=True,
        reads=frozenset({"learning_rate", "seed", "parallel"}),
    ),
    *(
        DepthMethod(
            *(m.name, _trained(m)),
            keeps_blocks=m.learned == "masks",
            decides=m.learned == "alphas",
            reads=_read_by(m),
        )
        for m in TRAINED_METHODS
    ),
    DepthMethod(
        *("expand", _expand),
        takes_goal=False,
        reads=frozenset({"search_epochs", "expand_ratio"}),
    ),
)


def readers_of(option: str) -> str:
    """The methods that read an option, in words."""
    return f"`method` {', '.join(method.name for method in METHODS if option in method.reads)}"


def method_of(method: str | DepthMethod) -> DepthMethod:
    """The one of that name; one's own as it is. Raises InputError, which lists the names."""
    if isinstance(method, DepthMethod):
        return method
    for known in METHODS:
        if known.name == method:
            return known
    names = ", ".join(known.name for known in METHODS)
    raise InputError(f"`method` {method}: give one of {names}")
