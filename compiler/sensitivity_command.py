"""`shrinkc sensitivity`: what every channel group bears, alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from rich.markup import escape
from rich.table import Table

from ..passes.analysis.channel_groups import channel_groups
from ..passes.criteria.sensitivity import (
    RATIOS,
    SensitivityCurve,
    agreement_of,
    sensitivity,
    top1_of,
)
from . import show
from .cli import print_json
from .commands import CompileArguments, input_shapes, preprocessing_of, progress
from .errors import InputError
from .load import load_model
from .plots import require_matplotlib, sensitivity_map
from .prune.methods import Given, method_named
from .prune_commands import batches_of, looked_at
from .stages import captured, require_convolutions


@dataclass(frozen=True)
class SensitivityArguments:
    """The command line, as given. `compile.images` are what networks are judged on: top-1 with
    `labels`, otherwise the agreement with the original; `compile.out` is the picture."""

    compile: CompileArguments
    criterion: str
    limit: int
    labels: bool


def run_sensitivity(a: SensitivityArguments) -> None:
    """Judge, print, draw."""
    given, method = a.compile, method_named(a.criterion)
    if given.images is None:
        raise InputError("sensitivity is judged on pictures; give --images DIR")
    if method.needs == "labels" and not a.labels:
        raise InputError(f"--criterion {a.criterion} needs labels; give --labels")
    if given.out is not None:
        require_matplotlib()
    model = load_model(given.model, arch=given.arch, trust=given.trust)
    shapes = input_shapes(model, given.shapes)
    if len(shapes) > 1:
        raise InputError("pictures are read for networks with one input")
    reporter = progress(given.as_json)
    with reporter.task("Capturing"):
        graph = captured(model, shapes)
        require_convolutions(graph)
    pictures = looked_at(given, a.labels, a.limit, preprocessing_of(given, shapes), reporter)
    batches = batches_of(pictures)
    groups = channel_groups(graph)
    with reporter.task(f"Scoring channels: {a.criterion}"):
        scores = method.build(Given(batches, 0, by_cost=True)).scores(graph, groups)
    judge = top1_of(batches) if a.labels else agreement_of(batches, graph)
    with reporter.task("Pruning each group alone", len(scores) * len(RATIOS)) as done:
        curves = sensitivity(graph, groups, scores, judge, done=done)
    what = "top-1" if a.labels else "agreement with the original"
    if given.out is not None:
        title = f"{given.model.name}, {a.criterion}: {what}, {len(pictures)} pictures"
        sensitivity_map(title, curves, RATIOS, given.out)
    if given.as_json:
        judged = {"criterion": a.criterion, "judged": what, "pictures": len(pictures)}
        print_json(judged | {"curves": [asdict(curve) for curve in curves]})
        return
    _show(curves, what)


def _show(curves: tuple[SensitivityCurve, ...], what: str) -> None:
    table = Table(title=f"{what}, one group pruned", title_justify="left")
    table.add_column("channel group")
    for ratio in RATIOS:
        table.add_column(f"−{ratio:.0%}", justify="right")
    for curve in curves:
        table.add_row(escape(curve.group), *(f"{value:.1%}" for value in curve.at(RATIOS)))
    console = show.wide_console()
    console.print(table)
    console.print(f"as it is: {curves[0].values[0]:.1%}" if curves else "no group has scores")
