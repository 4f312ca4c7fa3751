"""What every function that changes a network is given, and what it does with the result: files,
and a judgement beside the original."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, fx

from shrinkc.compiler.api.steps.compilation import compile_graph
from shrinkc.compiler.api.steps.network import (
    Inputs,
    LabelUse,
    Model,
    Subject,
    subject_of,
)
from shrinkc.compiler.api.steps.results import Compiled
from shrinkc.compiler.cost.budget import predicted_ms
from shrinkc.compiler.cost.predict import CostTable
from shrinkc.compiler.depth.closed_form import TakenChoice
from shrinkc.compiler.images.augment import Size
from shrinkc.compiler.images.decoded import Images, Samples, trainable
from shrinkc.compiler.images.source import Given, ImageSource
from shrinkc.compiler.images.tensors import in_parts
from shrinkc.compiler.measure.speedup import Measuring, measuring
from shrinkc.compiler.options import Options, with_images
from shrinkc.compiler.pipeline.deployed import network
from shrinkc.compiler.plan.plan_file import Step
from shrinkc.compiler.quantise.stored import StoredCalibration
from shrinkc.compiler.recover.recipe import Recipe
from shrinkc.compiler.reference.original import Original
from shrinkc.compiler.report.sections import ChoiceRow, Judged, PlanSection, Sections
from shrinkc.compiler.support.checks import path_of
from shrinkc.compiler.support.choices import is_host
from shrinkc.compiler.support.progress import Progress, shown_by
from shrinkc.compiler.tasks.asked import AskedTask
from shrinkc.compiler.tasks.tally import Tally
from shrinkc.compiler.train.settings.own_loss import Loss, own_loss
from shrinkc.compiler.verify.data import split
from shrinkc.compiler.verify.full_size import AtFullSize
from shrinkc.errors import InputError
from shrinkc.passes.base import Skip

LEAST = 2  # images that a network is fitted to: some of them judge the fit
FEW = 10  # images that tell the ranges of int8 where only speed is measured


@dataclass(frozen=True, eq=False)
class Request:
    """What every function that changes a network is given, checked.

    options  target, precision and how files are made and measured
    images   that fits and criteria see; None where there are none
    train    that are trained on, where they are others
    folder   keeps what was measured, and checkpoints: a call that was stopped goes on there
    command  as it was typed, for the report
    given    the user's own model, or where it lies
    whole    the same for the network at its own size, where this one's images are smaller
    """

    subject: Subject
    options: Options
    progress: Progress
    images: ImageSource | None = None
    evaluation: ImageSource | None = None
    train: ImageSource | None = None
    folder: Path | None = None
    command: str | None = None
    given: object = None
    whole: Request | None = None

    @classmethod
    def of(
        cls,
        model: Model,
        inputs: Inputs,
        options: Options,
        images: Given | None,
        evaluation: Given | None,
        labels: bool = False,
        *,
        folder: str | os.PathLike[str] | None,
        name: str | None,
        command: str | None,
        progress: Progress | bool,
        task: AskedTask,
        train: Given | None = None,
    ) -> Request:
        """From what a user gives; `labels`: those of `images` are asked for; `task` None: what the
        outputs mean is told by them. Raises InputError, ImageError, LoadError, ModelRunError."""
        kept = None if folder is None else path_of("folder", folder)
        shown, subject = shown_by(progress), subject_of(model, inputs, name)
        use: LabelUse = "read" if labels else "if they fit"
        found, sources = subject.images(
            {"images": (images, use), "evaluation": (evaluation, "read"), "train": (train, "read")},
            task,
        )
        options = replace(options, task=found)
        return cls(
            subject, options, shown, *sources.values(), folder=kept, command=command, given=model
        )

    def at_size(self, subject: Subject, size: Size, closer: float = 1.0) -> Request:
        """The same for `subject`, the network at a smaller size."""
        images, evaluation = (
            None if one is None else one.at_size(size, closer)
            for one in (self.images, self.evaluation)
        )
        return replace(self, subject=subject, images=images, evaluation=evaluation, whole=self)

    @property
    def needed_images(self) -> ImageSource:
        """Raises InputError where there are none, or one alone."""
        if self.images is None:
            raise InputError("`images` are needed, to fit the network to", "give `images`")
        if len(self.images) < LEAST:
            raise InputError(
                f"`images` holds a single one; give {LEAST} or more to fit and judge on"
            )
        return self.images

    def training_images(self) -> Images:
        """Of `train`, else of `images`, with their labels. Raises InputError where there are
        none."""
        source = self.train or self.images
        if source is None:
            raise InputError("`train` is needed: give images to train on")
        return trainable(self.decoded(source))

    def with_loss(self, recipe: Recipe, loss: Loss | None) -> Recipe:
        """The recipe for a loss of one's own: a function of the network and a batch, or an object
        with Lightning's `training_step`, which the network is a part of. Raises InputError."""
        if loss is None:
            return recipe
        restore = self.subject.structure.restore
        return replace(recipe, loss=own_loss(loss, self.given, restore))

    def decoded(self, source: ImageSource) -> Samples:
        """Decoded once, into a file in `folder` where there is one."""
        cache = None if self.folder is None else self.folder / "images"
        return source.decoded(self.progress, cache=cache)

    def on_this_machine(
        self, table: CostTable, few: Callable[[], tuple[Tensor, ...]]
    ) -> Measuring | None:
        """How to measure changed networks beside the original in fp32 where the target is at hand;
        None elsewhere.

        few  (n, …) of each input, that int8 is calibrated on
        """
        options = self.options
        if not is_host(options.target):
            return None
        original = network(self.subject.graph).folded
        inputs = list(in_parts(few(), 1)) if options.precision == "int8" else []
        before_ms = predicted_ms(original, table)
        return measuring(original, before_ms, options.precision, inputs, options.threads)

    def judged(self, changed: fx.GraphModule, original: fx.GraphModule) -> Judged | None:
        """Beside each other, where there are images to judge on."""
        if self.evaluation is None:
            return None
        options = with_images(self.options, self.evaluation)
        beside = None if self.whole is None else self._beside(Original.of_graph(original), options)
        return judge(original, changed, options, beside)

    def _beside(self, original: Original, options: Options) -> Original:
        """What is judged beside: of images that `options` hold it sees the same at its own size."""
        if self.whole is None:
            return original
        source = self.whole.evaluation or self.whole.images
        (shape,) = self.whole.subject.input_shapes
        large = with_images(self.options, source)
        return AtFullSize(original.answer, (shape[2], shape[3]), options, large)

    def compiled(
        self,
        changed: fx.GraphModule,
        original: fx.GraphModule,
        how: str,
        *,
        stored: StoredCalibration | None = None,
        sections: Sections | None = None,
        extras: Mapping[str, bytes] | None = None,
    ) -> tuple[Compiled, Judged | None]:
        """The files of `changed`, made from `original`, both deployed (batch norms folded) and the
        first merged already; judged where there are images for it. `how`: what was done, in a word.

        int8 is calibrated on `images` where others are judged, else on every second of them, unless
        what calibration told is `stored`. `sections` is what the report says besides, `extras` are
        more files, by name.
        """
        images, evaluation = self.images, self.evaluation
        calibrates = self.options.precision == "int8" and evaluation is not None
        options = with_images(
            replace(self.options, merge="none", stored=stored),
            evaluation or images,
            images.without_labels() if calibrates and images is not None else None,
        )
        judged = self.judged(changed, original)
        users = self.subject if self.whole is None else self.whole.subject
        compilation = compile_graph(
            changed,
            options,
            name=f"{self.subject.name}, {how},",
            progress=self.progress,
            users=self._beside(Original.of_model(users.reference), options),
            before=original,
            sections=replace(
                sections or Sections(), command=self.command, changed=how, judged=judged
            ),
            extras=extras,
        )
        return Compiled.of(compilation, self.subject), judged


def plan_section(
    method: str, taken: Iterable[TakenChoice | Step], precision: str, refused: Sequence[Skip]
) -> PlanSection:
    """For the report: what was done to spans, and which were left."""
    rows = tuple(
        ChoiceRow(
            *(one.source, one.sink, one.kind, one.channels_before or None, one.channels or None),
            *(precision, one.saving_ms, one.loss, one.agreement),
        )
        for one in taken
    )
    return PlanSection(method, rows, tuple(refused))


@torch.no_grad()
def judge(
    original: fx.GraphModule,
    changed: fx.GraphModule,
    options: Options,
    beside: Original | None = None,
) -> Judged:
    """A changed network beside the one it was made from, both in PyTorch, on `options.images`, by
    `options.task`. `beside`: as which the original answers where it reads larger images."""
    tally = Tally(options.task)
    batches = split(changed, replace(options, precision="fp32")).batches()
    for number, (x, labels) in enumerate(batches):
        if beside is None:
            answer = original(*x)
        else:
            answer = tuple(map(torch.as_tensor, beside.outputs(number, x)))
        tally.add(changed(*x), answer, labels, len(x[0]))
    return Judged.of(tally.judgement(), options.task)
