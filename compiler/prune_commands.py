"""`shrinkc prune`: less width within a budget, with training or without."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast, get_args

from rich.markup import escape
from rich.table import Table
from torch import Tensor, fx

from ..passes.analysis.channel_groups import Groups
from ..passes.base import Skip
from ..passes.criteria.base import Selection
from ..passes.criteria.data import Batch
from ..passes.slice_channels import SliceChannels
from . import show
from .changed import (
    FEW,
    NOT_JUDGED,
    Changed,
    compile_changed,
    measured_line,
    on_this_machine,
    training_pictures,
    work_folder,
)
from .cli import print_json
from .commands import CompileArguments, input_shapes, preprocessing_of, progress
from .costs import CostTable
from .errors import InputError
from .images import find_images, read_classes
from .load import load_model
from .measuring import Measuring
from .picture import Preprocessing
from .plots import require_matplotlib, widths_before_and_after
from .progress import Progress
from .prune.allocation import Kind, Normalise
from .prune.bears import Bearing
from .prune.compensate import compensate
from .prune.distil import distilled
from .prune.goal import Goal
from .prune.methods import METHODS, Given, Method, chosen_by_cost, comparable, method_named
from .prune.prune import Compensate, Pruned, Pruning, prune
from .report_sections import Judged
from .shrink.tune import Tuning
from .stages import captured, cost_table, require_convolutions
from .train.cache import Reading, load_pictures
from .train.compute import require_training
from .train.pictures import Pictures

BATCH = 32  # pictures that criteria see at a time


@dataclass(frozen=True)
class PruneArguments:
    """The command line of `shrinkc prune`, as given; `compile.images` are what criteria look at.

    limit       of those pictures
    labels      their class folders are labels; without `train`, train on them
    train       folder of pictures to train on
    epochs      of fine-tuning; None: the recipe's, where there is something to train on
    steps       of distillation on `images` behind compensation; None: the default
    strength    of the penalty of criteria that train with one
    """

    compile: CompileArguments
    criterion: str
    goal: Goal
    pruning: Pruning
    limit: int
    labels: bool
    train: Path | None
    epochs: int | None
    compensate: bool | None
    steps: int | None
    strength: float
    evaluation: Path | None
    plot: Path | None

    @property
    def trains(self) -> bool:
        return self.train is not None or (self.labels and self.epochs is not None)

    def compensates(self, method: Method) -> bool:
        return method.compensates if self.compensate is None else self.compensate


def allocation_named(text: str | None) -> Kind | None:
    """`--allocation`. Raises InputError."""
    if text is not None and text not in get_args(Kind):
        raise InputError(f"--allocation {text}: give one of {', '.join(get_args(Kind))}")
    return cast("Kind | None", text)


def normalise_named(text: str | None) -> Normalise | None:
    """`--normalise`. Raises InputError."""
    if text is not None and text not in get_args(Normalise):
        raise InputError(f"--normalise {text}: give one of {', '.join(get_args(Normalise))}")
    return cast("Normalise | None", text)


def shares(texts: list[str]) -> dict[str, float]:
    """`--keep GROUP=RATIO`, several times. Raises InputError."""
    found: dict[str, float] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            found[name] = float(number)
        except ValueError:
            name = ""
        if not name:
            raise InputError(f"--keep {text}: give a channel group and a share, GROUP=0.5")
    return found


def run_prune(a: PruneArguments) -> None:
    """Prune, compile what is left, print both reports."""
    given, method = a.compile, method_named(a.criterion)
    _check(a, method)
    table = cost_table(given.target, given.threads)
    model = load_model(given.model, arch=given.arch, trust=given.trust)
    shapes = input_shapes(model, given.shapes)
    preprocessing = _preprocessing(a, shapes)
    reporter = progress(given.as_json)
    with reporter.task("Capturing"):
        graph = captured(model, shapes)
        require_convolutions(graph)
    out = given.out or Path(f"{given.model.stem}-{Path(given.target).name}-pruned")
    work = _Work(a, method, graph, preprocessing, table, out, reporter)
    pruned, skipped = work.pruned()
    changed = Changed(pruned.graph_module, pruned.original, "pruned")
    report, judged = compile_changed(
        given, changed, shapes, preprocessing, a.evaluation, out, reporter
    )
    if a.plot is not None:
        title = f"{given.model.name}, {a.criterion}: {_times(pruned)}"
        rows = [(w.group, w.before, w.after) for w in pruned.widths]
        widths_before_and_after(title, rows, a.plot)
    speedup = work.measured_ms.speedup(pruned.graph_module) if work.measured_ms else None
    if given.as_json:
        found = _json(a, pruned, skipped, judged) | {"measured_speedup": speedup}
        print_json({"pruned": found, "compiled": report.to_json()})
        return
    _show(pruned, skipped, judged)
    if speedup is not None:
        show.wide_console().print(measured_line(speedup, given.precision))
    show.report(report, out)


def _check(a: PruneArguments, method: Method) -> None:
    """What can be known to fail before anything is loaded."""
    if method.needs != "nothing" and a.compile.images is None:
        without = ", ".join(n for n, m in METHODS.items() if m.needs == "nothing")
        raise InputError(
            f"--criterion {a.criterion} looks at pictures; give --images DIR, or a criterion that "
            f"needs none: {without}"
        )
    if a.compensate and a.compile.images is None:
        raise InputError("--compensate looks at pictures; give --images DIR (no labels are needed)")
    if a.pruning.allocation.normalise == "measured" and a.compile.images is None:
        raise InputError("--normalise measured looks at pictures; give --images DIR")
    if method.needs == "labels" and not a.labels:
        raise InputError(
            f"--criterion {a.criterion} needs labels; give --labels when the folders of --images "
            "are classes"
        )
    if a.labels and a.compile.images is None:
        raise InputError(
            "--labels says that the folders of --images are classes; give --images DIR"
        )
    if a.steps and (a.trains or not a.compensates(method)):
        raise InputError("--steps of distillation follow --compensate, where nothing is trained")
    if a.pruning.every is not None and (a.criterion != "group-fisher" or not a.trains):
        raise InputError("--every belongs to --criterion group-fisher with --train, or --epochs")
    if a.epochs is not None and not a.trains:
        raise InputError("--epochs of what? Give --train DIR, or --images DIR --labels")
    if a.compile.precision == "int8" and a.compile.images is None:
        raise InputError("--precision int8 needs pictures to calibrate on; give --images DIR")
    if a.trains:
        require_training()
    if a.plot is not None:
        require_matplotlib()


def _preprocessing(a: PruneArguments, shapes: list[tuple[int, ...]]) -> Preprocessing | None:
    """None where no pictures are read."""
    read = a.compile.images or a.train or a.evaluation
    if read is None:
        return None
    if len(shapes) > 1:
        raise InputError("pictures are read for networks with one input; leave them out here")
    return preprocessing_of(replace(a.compile, images=read), shapes)


@dataclass(frozen=True, eq=False)
class _Work:
    """What was given, loaded."""

    a: PruneArguments
    method: Method
    graph: fx.GraphModule
    preprocessing: Preprocessing | None
    table: CostTable
    out: Path
    reporter: Progress

    def pruned(self) -> tuple[Pruned, tuple[Skip, ...]]:
        """The result, and layers that were not compensated."""
        a, method = self.a, self.method
        options = replace(a.pruning, allocation=comparable(a.pruning.allocation, method))
        looked = self._looked_at if self._looks else None
        batches = [] if looked is None else batches_of(looked)
        by_cost = chosen_by_cost(options.allocation, a.goal)
        criterion = method.build(Given(batches, options.recipe.seed, by_cost))
        skipped: list[Skip] = []
        result = prune(
            *(self.graph, self.table, a.compile.precision, criterion, a.goal),
            options=options,
            train=self._training() if a.trains else None,
            seen=f"{a.criterion} {by_cost} {looked and looked.digest} {self._compensates}",
            compensate=_compensation(batches, skipped) if self._compensates else None,
            penalty=self._penalty,
            bearing=self._bearing(batches) if looked is not None else None,
            measured_ms=self.measured_ms if a.goal.unit == "ms" else None,
            folder=work_folder(self.out),
            progress=self.reporter,
        )
        if looked is not None and self._compensates and not a.trains:
            tuning = Tuning() if a.steps is None else Tuning(steps=a.steps)
            result = distilled(result, looked, tuning, self.reporter)
        return result, tuple(dict.fromkeys(skipped))

    @cached_property
    def measured_ms(self) -> Measuring | None:
        """Of changed networks, where the target is this machine."""

        def few() -> Tensor:
            pictures = self._looked_at
            return pictures.inputs(pictures.pixels[:FEW])

        return on_this_machine(self.a.compile, self.graph, self.table, few)

    @property
    def _compensates(self) -> bool:
        return self.a.compensates(self.method)

    @property
    def _looks(self) -> bool:
        return self.method.needs != "nothing" or self._compensates or self._measures

    @property
    def _measures(self) -> bool:
        return self.a.pruning.allocation.normalise == "measured"

    def _bearing(self, batches: list[Batch]) -> Bearing:
        looked = self._looked_at
        seen = f"{self.a.criterion} {looked.digest} {len(looked)}"
        folder = work_folder(self.out)
        return Bearing(batches, self._compensates, seen, folder, self.reporter)

    @property
    def _penalty(self) -> Any:
        penalty = self.method.penalty
        if penalty is None or not self.a.trains:
            return None
        return lambda graph, groups: penalty(graph, groups, self.a.strength)  # pyright: ignore

    @cached_property
    def _looked_at(self) -> Pictures:
        """For criteria and compensation."""
        assert self.preprocessing is not None
        a = self.a
        return looked_at(a.compile, a.labels, a.limit, self.preprocessing, self.reporter)

    def _training(self) -> Pictures:
        a, preprocessing = self.a, self.preprocessing
        assert preprocessing is not None
        return training_pictures(a.compile, a.train, preprocessing, self.out, self.reporter)


def looked_at(
    given: CompileArguments,
    labels: bool,
    limit: int,
    preprocessing: Preprocessing,
    reporter: Progress,
) -> Pictures:
    """--images as the network reads them, with labels if they are asked for."""
    assert given.images is not None
    known = read_classes(given.classes) if given.classes and labels else None
    images = find_images(given.images, classes=known, limit=limit)
    pictures = load_pictures(images, preprocessing, Reading(), reporter)
    return pictures if labels else replace(pictures, labels=None)


def batches_of(pictures: Pictures) -> list[Batch]:
    """All of them, in order."""
    found: list[Batch] = []
    for start in range(0, len(pictures), BATCH):
        rows = slice(start, start + BATCH)
        labels = None if pictures.labels is None else pictures.labels[rows]
        found.append(((pictures.inputs(pictures.pixels[rows]),), labels))
    return found


def _compensation(batches: list[Batch], skipped: list[Skip]) -> Compensate:
    def fitted(graph: fx.GraphModule, groups: Groups, selection: Selection) -> Selection:
        found = compensate(graph, SliceChannels(selection), batches)
        skipped.extend(found.skipped)
        return found.selection

    return fitted


# --- reports -------------------------------------------------------------------------------------


def _json(
    a: PruneArguments, pruned: Pruned, skipped: tuple[Skip, ...], judged: Judged | None
) -> dict[str, Any]:
    return {
        "criterion": a.criterion,
        "predicted_ms_before": pruned.before_ms,
        "predicted_ms_after": pruned.after_ms,
        "predicted_speedup": pruned.speedup,
        "widths": [asdict(width) for width in pruned.widths],
        "skipped": [asdict(skip) for skip in pruned.skipped],
        "not_compensated": [asdict(skip) for skip in skipped],
        "history": pruned.history,
        "judged": None if judged is None else asdict(judged),
    }


def _times(pruned: Pruned) -> str:
    return f"{pruned.before_ms:.4g} → {pruned.after_ms:.4g} ms predicted, {pruned.speedup:.2f}×"


def _show(pruned: Pruned, skipped: tuple[Skip, ...], judged: Judged | None) -> None:
    console = show.wide_console()
    table = Table(title=f"widths: {_times(pruned)}", title_justify="left")
    for header in ("channel group", "before", "after", "kept"):
        table.add_column(header, justify="left" if header == "channel group" else "right")
    for w in pruned.widths:
        kept = "" if w.after == w.before else f"{w.after / w.before:.0%}"
        table.add_row(escape(w.group), str(w.before), str(w.after), kept)
    console.print(table)
    reasons: dict[str, int] = {}
    for skip in pruned.skipped:
        reasons[skip.reason] = reasons.get(skip.reason, 0) + 1
    for reason, count in reasons.items():
        console.print(escape(f"{count} groups stay whole: {reason}"))
    for skip in skipped:
        console.print(escape(f"'{skip.node}' was not compensated: {skip.reason}"))
    console.print(NOT_JUDGED if judged is None else str(judged))
