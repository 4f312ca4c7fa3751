"""`shrinkc.estimate`: milliseconds by a latency table, without exporting or measuring anything."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from shrinkc.compiler.api.steps.network import Inputs, Model, ModelFile, subject_of
from shrinkc.compiler.api.steps.optimise import optimise
from shrinkc.compiler.api.steps.target import Target, cost_table, target_name
from shrinkc.compiler.cost.predict import CostTable, Prediction, predict, predict_keys
from shrinkc.compiler.cost.which_file import which_file
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.formats.registry import read_model
from shrinkc.compiler.formats.tflite import TFLITE
from shrinkc.compiler.formats.tflite_operators import read_operators
from shrinkc.compiler.options import Options
from shrinkc.compiler.support.checks import path_of
from shrinkc.compiler.support.choices import Merge, Precision, is_host
from shrinkc.compiler.support.progress import Progress, shown_by
from shrinkc.compiler.support.reading.regular_file import open_regular
from shrinkc.compiler.support.unread import refuse_unread
from shrinkc.errors import InputError, LoadError


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
        model: a module, a captured graph, the path of a file that `load` reads, or of a .tflite,
            which is priced operator by operator as it is.
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
    file = _tflite_file(model)
    if file is not None:
        refuse_unread(
            ("inputs", inputs is not None, False, "networks: a .tflite has its own shapes"),
            ("precision", precision != "fp32", False, "networks: a .tflite has its own"),
            ("merge", merge != "auto", False, "networks: a .tflite is estimated as it is"),
        )
    measured = is_host(options.target)
    refuse_unread(("threads", threads != 1, measured, "measurements, where `target` is host"))
    table = cost_table(target, threads)
    if file is not None:
        return _of_file(file, table)
    subject = subject_of(model, inputs)
    with shown_by(progress).task("Estimating"):
        optimised = optimise(subject.graph, table, options)
        found = predict(lower(optimised.final), table, precision)
        return replace(found, notes=which_file(found))


def _tflite_file(model: Model) -> Path | None:
    """The path of what is a .tflite by its content."""
    given = model.path if isinstance(model, ModelFile) else model
    if not isinstance(given, str | os.PathLike):
        return None
    path = path_of("model", given)
    try:
        with open_regular(path) as file:
            found = TFLITE.marks(file.read(16))
    except OSError:
        return None  # loading says what is wrong
    if found and isinstance(model, ModelFile):
        refuse_unread(
            ("arch", model.arch is not None, False, "state dicts"),
            ("trust", model.trust, False, "files that can run code"),
        )
    return path if found else None


def _of_file(path: Path, table: CostTable) -> Prediction:
    """Raises LoadError for a damaged file, InputError for a batch of several."""
    try:
        found = read_operators(read_model(path)[1])
    except LoadError as error:
        raise LoadError(f"{path}: {error}") from error
    if found.batch > 1:
        raise InputError(f"{path}: its batch is {found.batch}; tables tell the time of one sample")
    keys = ((name, key, 1) for name, key in found.keys)
    prediction = predict_keys(keys, table, found.precision, found.unknown)
    return replace(prediction, notes=found.notes)
