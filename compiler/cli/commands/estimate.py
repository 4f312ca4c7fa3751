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
    from shrinkc.compiler.api.steps.network import captured, input_shapes
    from shrinkc.compiler.api.steps.optimise import optimise
    from shrinkc.compiler.api.steps.target import cost_table
    from shrinkc.compiler.cli.show.estimate import prediction as show_prediction
    from shrinkc.compiler.cost.predict import predict
    from shrinkc.compiler.export.lower import lower
    from shrinkc.compiler.load.load import load_model
    from shrinkc.compiler.options import Options
    from shrinkc.compiler.report.report import estimate_json

    chosen = precision or "fp32"
    table = cost_table(target, threads or 1)
    options = Options(target=target, precision=chosen, merge=merge, threads=threads or 1)
    network = load_model(model, arch=arch, trust=trust)
    with progress().task("Estimating"):
        graph = captured(network, input_shapes(network, tuple(inputs or ())))
        optimised = optimise(graph, table, options)
        prediction = predict(lower(optimised.final), table, chosen)
    if as_json():
        print_json(estimate_json(prediction))
    else:
        show_prediction(prediction)
