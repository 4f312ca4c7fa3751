"""`shrinkc.estimate`: milliseconds by a latency table, without exporting or measuring anything."""

from __future__ import annotations

from shrinkc.compiler.api.steps.network import Inputs, Model, subject_of
from shrinkc.compiler.api.steps.optimise import optimise
from shrinkc.compiler.api.steps.target import Target, cost_table, target_name
from shrinkc.compiler.cost.predict import Prediction, predict
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.options import Options
from shrinkc.compiler.support.choices import Merge, Precision, is_host
from shrinkc.compiler.support.progress import Progress, shown_by
from shrinkc.compiler.support.unread import refuse_unread


def estimate(
    model: Model,
    inputs: Inputs = None,
    *,
    target: Target,
    precision: Precision = "fp32",
    merge: Merge = "auto",
    threads: int = 1,
    progress: Progress | bool = False,
) -> Prediction:
    """What `target`'s table says of the network as it would be compiled, layer by layer.

    Args:
        model: a module, a captured graph, or the path of a file that `load` reads.
        inputs: an example (N, …) or its shape, one per input of `forward`.
        target: a latency table's name or folder, or "host" (this machine, measured).
        precision: "fp32" or "int8".
        merge: linear segments: "auto" (where the table says it pays), "all", or "none".
        threads: of measurements, where `target` is "host".
        progress: True shows bars on stderr.

    Returns:
        Milliseconds in `total_ms`, and of each layer in `layers`, with how the table knows them.

    Raises:
        TableError: an unknown target, or one without `precision`.
        InputError, CaptureError, ModelRunError, UnsupportedOperatorError: a network that cannot
            be priced.
    """
    options = Options(target=target_name(target), precision=precision, merge=merge, threads=threads)
    measured = is_host(options.target)
    refuse_unread(("threads", threads != 1, measured, "measurements, where `target` is host"))
    table = cost_table(target, threads)
    subject = subject_of(model, inputs)
    with shown_by(progress).task("Estimating"):
        optimised = optimise(subject.graph, table, options)
        return predict(lower(optimised.final), table, precision)
