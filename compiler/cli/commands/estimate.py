"""`shrinkc estimate`: milliseconds by a table."""

from __future__ import annotations

from shrinkc.compiler.cli.app import Command, app
from shrinkc.compiler.cli.options import (
    ArchOption,
    InputOption,
    MergeOption,
    ModelArgument,
    PrecisionOption,
    TargetOption,
    ThreadsOption,
    TrustOption,
)
from shrinkc.compiler.cli.output import as_json, print_json, progress


@app.command(cls=Command)
def estimate(
    model: ModelArgument,
    *,
    target: TargetOption,
    inputs: InputOption = None,
    precision: PrecisionOption = None,
    merge: MergeOption = "auto",
    arch: ArchOption = None,
    trust: TrustOption = False,
    threads: ThreadsOption = None,
) -> None:
    """Predict milliseconds per layer and in total, and say how the table knows."""
    from shrinkc.compiler.api.estimate import estimate as estimated
    from shrinkc.compiler.api.steps.network import ModelFile
    from shrinkc.compiler.cli.inputs import shapes_of
    from shrinkc.compiler.cli.show.estimate import prediction as show_prediction
    from shrinkc.compiler.report.report import estimate_json

    prediction = estimated(
        ModelFile(model, arch, trust),
        shapes_of(inputs),
        target=target,
        precision=precision or "fp32",
        merge=merge,
        threads=threads or 1,
        progress=progress(),
    )
    if as_json():
        print_json(estimate_json(prediction))
    else:
        show_prediction(prediction)
