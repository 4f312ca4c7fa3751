"""`shrinkc inspect`: what a network is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from torch import fx

from shrinkc.compiler.api.steps.network import captured, input_shapes
from shrinkc.compiler.api.steps.target import cost_table
from shrinkc.compiler.cli.app import app
from shrinkc.compiler.cli.options import (
    ArchOption,
    InputOption,
    JsonOption,
    ModelArgument,
    PrecisionOption,
    TrustOption,
)
from shrinkc.compiler.cli.output import print_json, progress
from shrinkc.compiler.cli.output import wide_console as show_wide_console
from shrinkc.compiler.cli.show.channels import describe_channels, print_channels
from shrinkc.compiler.cli.show.inspect import describe as show_describe
from shrinkc.compiler.cli.show.inspect import inspection as show_inspection
from shrinkc.compiler.cli.show.spans import describe_spans, print_spans
from shrinkc.compiler.cost.budget import price_of
from shrinkc.compiler.export.lower import lower, unsupported
from shrinkc.compiler.export.tflite.write import write_tflite
from shrinkc.compiler.load.load import load_model
from shrinkc.compiler.pipeline.deployed import BASE_PASSES
from shrinkc.compiler.pipeline.run import run_exact_passes
from shrinkc.errors import UnsupportedOperatorError
from shrinkc.passes.analysis.channels.channel_groups import channel_groups
from shrinkc.passes.analysis.linear.linear_segments import linear_segments
from shrinkc.passes.analysis.linear.spans import find_spans


@app.command()
def inspect(
    model: ModelArgument,
    input: InputOption = None,
    target: Annotated[
        str | None, typer.Option(help="Say what its table thinks that merging would save.")
    ] = None,
    precision: PrecisionOption = "fp32",
    arch: ArchOption = None,
    trust: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show the graph, what is linear or could be, its channel groups, what cannot be exported."""
    from shrinkc.compiler.cli.commands.inspect import run_inspect

    run_inspect(model, tuple(input or ()), target, precision, arch, trust, as_json)


def run_inspect(
    path: Path,
    shapes: tuple[str, ...],
    target: str | None,
    precision: str,
    arch: str | None,
    trust: bool,
    as_json: bool,
) -> None:
    price = None if target is None else price_of(cost_table(target), precision)
    model = load_model(path, arch=arch, trust=trust)
    with progress(as_json).task("Inspecting"):
        graph = captured(model, input_shapes(model, shapes))
        folded, _ = run_exact_passes(graph, BASE_PASSES)
        segments = linear_segments(folded)
        spans = describe_spans(find_spans(folded), price)
        channels = describe_channels(channel_groups(folded))
        problems = _problems(folded.float())
    description = show_describe(graph, segments, problems)
    if as_json:
        print_json({**description, **spans, **channels})
    else:
        show_inspection(description)
        print_spans(spans, show_wide_console())
        print_channels(channels, show_wide_console())


def _problems(graph: fx.GraphModule) -> list[UnsupportedOperatorError]:
    """What no writer can express; without any such, the first that TFLite cannot."""
    problems = unsupported(graph)
    if not problems:
        try:
            write_tflite(lower(graph))
        except UnsupportedOperatorError as error:
            problems.append(error)
    return problems
