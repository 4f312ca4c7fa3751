"""`shrinkc estimate`: milliseconds by a table."""

from __future__ import annotations

from pathlib import Path

from shrinkc.compiler.api.steps.network import captured, input_shapes
from shrinkc.compiler.api.steps.optimise import optimise
from shrinkc.compiler.api.steps.target import cost_table
from shrinkc.compiler.cli.app import app
from shrinkc.compiler.cli.commands.compile import _merge
from shrinkc.compiler.cli.options import (
    ArchOption,
    InputOption,
    JsonOption,
    MergeOption,
    ModelArgument,
    PrecisionOption,
    TargetOption,
    ThreadsOption,
    TrustOption,
)
from shrinkc.compiler.cli.output import print_json, progress
from shrinkc.compiler.cli.show.estimate import prediction as show_prediction
from shrinkc.compiler.cost.predict import predict
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.load.load import load_model
from shrinkc.compiler.options import Options
from shrinkc.compiler.report.report import estimate_json


@app.command()
def estimate(
    model: ModelArgument,
    target: TargetOption,
    input: InputOption = None,
    precision: PrecisionOption = "fp32",
    merge: MergeOption = "auto",
    arch: ArchOption = None,
    trust: TrustOption = False,
    threads: ThreadsOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Predict milliseconds per layer and in total, and say how the table knows."""
    from shrinkc.compiler.cli.commands.estimate import run_estimate

    shapes = tuple(input or ())
    run_estimate(model, target, shapes, precision, merge, arch, trust, threads, as_json)


def run_estimate(
    path: Path,
    target: str,
    shapes: tuple[str, ...],
    precision: str,
    merge: str,
    arch: str | None,
    trust: bool,
    threads: int,
    as_json: bool,
) -> None:
    table = cost_table(target, threads)
    options = Options(target=target, precision=precision, merge=_merge(merge), threads=threads)
    model = load_model(path, arch=arch, trust=trust)
    with progress(as_json).task("Estimating"):
        graph = captured(model, input_shapes(model, shapes))
        optimised = optimise(graph, table, options)
        prediction = predict(lower(optimised.final), table, precision)
    if as_json:
        print_json(estimate_json(prediction))
    else:
        show_prediction(prediction)
