"""Less depth within a latency budget, with training or without."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_dir
from torch import Tensor, fx

from shrinkc.compiler.api.steps.changed_network import (
    FEW,
    on_this_machine,
    plan_section,
    training_images,
    work_folder,
)
from shrinkc.compiler.api.steps.request import CompileArguments, images_of
from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.cost.predict import CostTable
from shrinkc.compiler.depth.closed_form import ClosedForm, shrink_closed_form
from shrinkc.compiler.depth.methods import TRAINED
from shrinkc.compiler.depth.trained import Trained, expand, shrink_trained
from shrinkc.compiler.images.cache import Reading, load_images, with_margin
from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.images.preprocessing import Preprocessing
from shrinkc.compiler.measure.speedup import Measuring
from shrinkc.compiler.pipeline.deployed import BASE_PASSES
from shrinkc.compiler.pipeline.run import run_exact_passes
from shrinkc.compiler.recover.distil import Tuning
from shrinkc.compiler.recover.layer_problems import Sample, size_of
from shrinkc.compiler.recover.retrain import retrain
from shrinkc.compiler.report.sections import PlanSection
from shrinkc.compiler.support.progress import Progress
from shrinkc.passes.base import Skip


@dataclass(frozen=True)
class ShrinkArguments:
    """The command line of `shrinkc shrink`, as given; `compile.images` are what it is fitted to.

    train    folder of labelled images to train on; `labels`: the class folders of --images are;
             closed-form trains only where one of them is given
    steps    of the closed form's distillation
    """

    compile: CompileArguments
    method: str
    goal: Goal | None
    evaluation: Path | None
    steps: int | None
    train: Path | None
    labels: bool
    trained: Trained

    @property
    def trains(self) -> bool:
        return self.train is not None or self.labels


@dataclass(frozen=True, eq=False)
class Outcome:
    """What every method returns: the folded original and the result, and how it came about."""

    original: fx.GraphModule
    shrunk: fx.GraphModule
    before_ms: float
    after_ms: float
    choices: tuple[dict[str, Any], ...]
    skipped: tuple[Skip, ...]
    lines: tuple[str, ...]
    plan: PlanSection | None = None


def _images(
    a: ShrinkArguments, preprocessing: Preprocessing, out: Path, reporter: Progress
) -> Images:
    """That the method sees."""
    if a.method != "closed-form":
        return _train_on(a, preprocessing, out, reporter)
    images = images_of(a.compile.images, None, labelled=False)
    assert images is not None
    return load_images(images, with_margin(preprocessing), Reading(), reporter)


def _train_on(
    a: ShrinkArguments, preprocessing: Preprocessing, out: Path, reporter: Progress
) -> Images:
    return training_images(a.compile, a.train, preprocessing, out, reporter)


@dataclass(frozen=True, eq=False)
class _Work:
    """The methods, called with what was given."""

    a: ShrinkArguments
    graph: fx.GraphModule
    images: Images
    table: CostTable
    preprocessing: Preprocessing
    out: Path
    reporter: Progress

    def closed_form(self) -> Outcome:
        with self.reporter.task("Folding; each pass verified in float64"):
            original = run_exact_passes(self.graph, BASE_PASSES)[0].float()
        tuning = Tuning() if self.a.steps is None else Tuning(steps=self.a.steps)
        cache = Path(user_cache_dir("shrinkc", appauthor=False), "damages")
        goal = self.a.goal
        assert goal is not None
        shrunk = shrink_closed_form(
            *(original, self.images, self.table, self.a.compile.precision, goal),
            options=ClosedForm(tuning=tuning, cache=cache),
            progress=self.reporter,
            measured_ms=self.measured_ms,
        )
        lines = (
            f"{row.kind} {row.source} … {row.sink}: saves {row.saving_ms:.3g} ms, alone it agrees "
            f"with the original on {row.agreement:.1%} of the images"
            for row in shrunk.taken
        )
        choices = tuple(asdict(row) for row in shrunk.taken)
        result = shrunk.graph_module
        if self.a.trains:
            recipe = self.a.trained.recipe
            teaching = _train_on(self.a, self.preprocessing, self.out, self.reporter)
            folder = work_folder(self.out)
            result = retrain(result, original, teaching, recipe, folder, self.reporter)
        return Outcome(
            *(original, result, shrunk.before_ms, shrunk.after_ms),
            *(choices, shrunk.skipped, tuple(lines)),
            plan_section("closed form", shrunk.taken, self.a.compile.precision, shrunk.skipped),
        )

    @cached_property
    def measured_ms(self) -> Measuring | None:
        """Of changed networks, where the target is this machine."""
        sample = Sample(self.images, size_of(self.graph), FEW)

        def few() -> Tensor:
            return torch.cat([x for x, _ in sample.batches()])

        return on_this_machine(self.a.compile, self.graph, self.table, few)

    def trained(self) -> Outcome:
        given = (self.graph, self.images, self.table, self.a.compile.precision)
        options, folder = self.a.trained, work_folder(self.out)
        if self.a.method == "expand":
            shrunk = expand(*given, options=options, folder=folder, progress=self.reporter)
        else:
            shrunk = shrink_trained(
                *(*given, TRAINED[self.a.method], self.a.goal),
                options=options,
                folder=folder,
                progress=self.reporter,
                measured_ms=self.measured_ms,
            )
        lines = tuple(_line(t.option, t.saving_ms, t.damage) for t in shrunk.taken)
        choices = tuple(
            asdict(t) | {"damage": t.damage if t.damage == t.damage else None} for t in shrunk.taken
        )
        return Outcome(
            *(shrunk.original, shrunk.graph_module, shrunk.before_ms, shrunk.after_ms),
            *(choices, shrunk.skipped, lines),
        )


def _line(option: str, saving_ms: float, damage: float) -> str:
    saved = f": saves {saving_ms:.3g} ms" if saving_ms else ""
    harm = f", alone it raises the loss by {damage:.3g}" if damage == damage else ""
    return f"{option}{saved}{harm}"
