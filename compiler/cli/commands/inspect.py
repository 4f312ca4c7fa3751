"""`shrinkc inspect`: what a network is made of."""

from __future__ import annotations

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
    from shrinkc.compiler.api.inspect import inspect as inspected
    from shrinkc.compiler.api.steps.network import ModelFile
    from shrinkc.compiler.cli.inputs import shapes_of
    from shrinkc.compiler.cli.show.channels import describe_channels, print_channels
    from shrinkc.compiler.cli.show.inspect import describe, inspection
    from shrinkc.compiler.cli.show.spans import describe_spans, print_spans

    found = inspected(
        ModelFile(model, arch, trust),
        shapes_of(inputs),
        target=target,
        precision=precision or "fp32",
        progress=progress(),
    )
    description = describe(found.graph, found.segments, found.problems)
    spans = describe_spans(found.spans, found.price)
    channels = describe_channels(found.groups)
    if as_json():
        print_json({**description, **spans, **channels})
    else:
        inspection(description)
        print_spans(spans, wide_console())
        print_channels(channels, wide_console())
