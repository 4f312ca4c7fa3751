"""`shrinkc inspect`: what a network is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shrinkc.compiler.cli.app import Command, app
from shrinkc.compiler.cli.options import (
    ArchOption,
    InputOption,
    ModelArgument,
    OptionalTargetOption,
    PrecisionOption,
    TrustOption,
)
from shrinkc.compiler.cli.output import as_json, print_json, progress, wide_console

if TYPE_CHECKING:
    from torch import fx

    from shrinkc.errors import UnsupportedOperatorError


@app.command(cls=Command)
def inspect(
    model: ModelArgument,
    *,
    inputs: InputOption = None,
    target: OptionalTargetOption = None,
    precision: PrecisionOption = None,
    arch: ArchOption = None,
    trust: TrustOption = False,
) -> None:
    """Show the graph, what is linear or could be, its channel groups, what cannot be exported.

    With --target, what the table says that merging would save.
    """
    from shrinkc.compiler.api.steps.network import captured, input_shapes
    from shrinkc.compiler.api.steps.target import cost_table
    from shrinkc.compiler.cli.show.channels import describe_channels, print_channels
    from shrinkc.compiler.cli.show.inspect import describe, inspection
    from shrinkc.compiler.cli.show.spans import describe_spans, print_spans
    from shrinkc.compiler.cost.budget import price_of
    from shrinkc.compiler.load.load import load_model
    from shrinkc.compiler.pipeline.deployed import BASE_PASSES
    from shrinkc.compiler.pipeline.run import run_exact_passes
    from shrinkc.passes.analysis.channels.channel_groups import channel_groups
    from shrinkc.passes.analysis.linear.linear_segments import linear_segments
    from shrinkc.passes.analysis.linear.spans import find_spans

    price = None if target is None else price_of(cost_table(target), precision or "fp32")
    network = load_model(model, arch=arch, trust=trust)
    with progress().task("Inspecting"):
        graph = captured(network, input_shapes(network, tuple(inputs or ())))
        folded, _ = run_exact_passes(graph, BASE_PASSES)
        segments = linear_segments(folded)
        spans = describe_spans(find_spans(folded), price)
        channels = describe_channels(channel_groups(folded))
        problems = _problems(folded.float())
    description = describe(graph, segments, problems)
    if as_json():
        print_json({**description, **spans, **channels})
    else:
        inspection(description)
        print_spans(spans, wide_console())
        print_channels(channels, wide_console())


def _problems(graph: fx.GraphModule) -> list[UnsupportedOperatorError]:
    """What no format can express; without any such, the first that each of them cannot."""
    from shrinkc.compiler.export.lower import lower, unsupported
    from shrinkc.compiler.formats.registry import FORMATS
    from shrinkc.errors import UnsupportedOperatorError

    problems = unsupported(graph)
    if problems:
        return problems
    program = lower(graph)
    for one in FORMATS:
        try:
            one.encode(program)
        except UnsupportedOperatorError as error:
            problems.append(error)
    return problems
