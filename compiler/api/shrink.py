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
from shrinkc.compiler.depth.closed_form import ClosedForm, TakenChoice
from shrinkc.compiler.depth.methods import DepthTask, method_of
from shrinkc.compiler.depth.trained import Trained
from shrinkc.compiler.images.cache import Reading, load_images, with_margin
from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.images.preprocessing import Preprocessing
from shrinkc.compiler.measure.speedup import Measuring
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
    if method_of(a.method).learns:
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

    def shrunk(self) -> Outcome:
        a = self.a
        options = ClosedForm(
            tuning=Tuning() if a.steps is None else Tuning(steps=a.steps),
            cache=Path(user_cache_dir("shrinkc", appauthor=False), "damages"),
        )
        method, precision, folder = method_of(a.method), a.compile.precision, work_folder(self.out)
        task = DepthTask(
            *(self.graph, self.images, self.table, precision, a.goal),
            *(options, a.trained, folder, self.reporter, self.measured_ms),
        )
        found = method.shrink(task)
        result, section = found.graph_module, None
        if not method.learns:
            fitted = [t for t in found.taken if isinstance(t, TakenChoice)]
            section = plan_section("closed form", fitted, precision, found.skipped)
            if a.trains:
                teaching = _train_on(a, self.preprocessing, self.out, self.reporter)
                recipe = a.trained.recipe
                given = result, found.original, teaching, recipe
                result = retrain(*given, folder, self.reporter)
        choices = tuple(
            {n: None if v != v else v for n, v in asdict(taken).items()} for taken in found.taken
        )
        return Outcome(
            *(found.original, result, found.before_ms, found.after_ms, choices, found.skipped),
            *(tuple(str(taken) for taken in found.taken), section),
        )

    @cached_property
    def measured_ms(self) -> Measuring | None:
        """Of changed networks, where the target is this machine."""
        sample = Sample(self.images, size_of(self.graph), FEW)

        def few() -> Tensor:
            return torch.cat([x for x, _ in sample.batches()])

        return on_this_machine(self.a.compile, self.graph, self.table, few)
