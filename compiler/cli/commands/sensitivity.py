"""`shrinkc sensitivity`: what every channel group bears, alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from shrinkc.compiler.api.prune import batches_of, looked_at
from shrinkc.compiler.api.steps.network import captured, input_shapes, require_convolutions
from shrinkc.compiler.api.steps.request import CompileArguments
from shrinkc.compiler.cli.app import app
from shrinkc.compiler.cli.inputs import preprocessing_of
from shrinkc.compiler.cli.options import (
    ArchOption,
    ClassesOption,
    InputOption,
    JsonOption,
    MeanOption,
    ModelArgument,
    ResizeOption,
    StdOption,
    TrustOption,
)
from shrinkc.compiler.cli.output import print_json, progress
from shrinkc.compiler.cli.output import wide_console as show_wide_console
from shrinkc.compiler.load.load import load_model
from shrinkc.compiler.report.plots import require_matplotlib, sensitivity_map
from shrinkc.compiler.width.methods import spec_of
from shrinkc.compiler.width.sensitivity import (
    RATIOS,
    SensitivityCurve,
    agreement_of,
    sensitivity,
    top1_of,
)
from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import channel_groups
from shrinkc.passes.criteria.spec import Given


@app.command("sensitivity")
def sensitivity_command(
    model: ModelArgument,
    images: Annotated[
        Path | None, typer.Option(help="Images to judge on: a folder, a tar.")
    ] = None,
    labels: Annotated[
        bool, typer.Option("--labels", help="Folders of --images are classes: judge top-1.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="Of those images.")] = 200,
    criterion: Annotated[str, typer.Option(help="As in prune.")] = "l1",
    classes: ClassesOption = None,
    input: InputOption = None,
    resize: ResizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="PNG to write.")] = None,
    arch: ArchOption = None,
    trust: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Prune every channel group alone and judge: what each bears (Li et al., 2017)."""
    from shrinkc.compiler.api.steps.request import CompileArguments
    from shrinkc.compiler.cli.commands.sensitivity import SensitivityArguments, run_sensitivity

    compiled = CompileArguments(
        *(model, "", tuple(input or ()), images, None, classes, resize, mean, std, out),
        *("fp32", 17, "none", arch, trust, 1, 0, as_json),
    )
    run_sensitivity(SensitivityArguments(compiled, criterion, limit, labels))


@dataclass(frozen=True)
class SensitivityArguments:
    """The command line, as given. `compile.images` are what networks are judged on: top-1 with
    `labels`, otherwise the agreement with the original; `compile.out` is the image."""

    compile: CompileArguments
    criterion: str
    limit: int
    labels: bool


def run_sensitivity(a: SensitivityArguments) -> None:
    """Judge, print, draw."""
    given, method = a.compile, spec_of(a.criterion)
    if given.images is None:
        raise InputError("sensitivity is judged on images; give --images DIR")
    if method.needs == "labels" and not a.labels:
        raise InputError(f"--criterion {a.criterion} needs labels; give --labels")
    if given.out is not None:
        require_matplotlib()
    model = load_model(given.model, arch=given.arch, trust=given.trust)
    shapes = input_shapes(model, given.shapes)
    if len(shapes) > 1:
        raise InputError("images are read for networks with one input")
    reporter = progress(given.as_json)
    with reporter.task("Capturing"):
        graph = captured(model, shapes)
        require_convolutions(graph)
    images = looked_at(given, a.labels, a.limit, preprocessing_of(given, shapes), reporter)
    batches = batches_of(images)
    groups = channel_groups(graph)
    with reporter.task(f"Scoring channels: {a.criterion}"):
        scores = method.build(Given(batches, 0, by_cost=True)).scores(graph, groups)
    judge = top1_of(batches) if a.labels else agreement_of(batches, graph)
    with reporter.task("Pruning each group alone", len(scores) * len(RATIOS)) as done:
        curves = sensitivity(graph, groups, scores, judge, done=done)
    what = "top-1" if a.labels else "agreement with the original"
    if given.out is not None:
        title = f"{given.model.name}, {a.criterion}: {what}, {len(images)} images"
        sensitivity_map(title, curves, RATIOS, given.out)
    if given.as_json:
        judged = {"criterion": a.criterion, "judged": what, "images": len(images)}
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
    console = show_wide_console()
    console.print(table)
    console.print(f"as it is: {curves[0].values[0]:.1%}" if curves else "no group has scores")
