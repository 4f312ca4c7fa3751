"""The whole compilation, one function read from top to bottom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import fx, nn

from shrinkc.compiler.api.steps.network import captured, example_inputs, require_convolutions
from shrinkc.compiler.api.steps.optimise import Optimised, optimise
from shrinkc.compiler.api.steps.quantise import quantised
from shrinkc.compiler.api.steps.target import cost_table
from shrinkc.compiler.api.steps.uncaptured import compile_uncaptured
from shrinkc.compiler.cost.keys import macs
from shrinkc.compiler.cost.predict import CostTable, Prediction, predict
from shrinkc.compiler.devices import describe_host, is_host
from shrinkc.compiler.formats.exported import Exported, export
from shrinkc.compiler.formats.onnx import int8_saturates
from shrinkc.compiler.measure.files import measure
from shrinkc.compiler.measure.layers import measure_layers
from shrinkc.compiler.measure.memory import measure_memory
from shrinkc.compiler.model_file.file import save_model
from shrinkc.compiler.options import Options, check_options
from shrinkc.compiler.quantise.prepare import check_layers
from shrinkc.compiler.report.report import Network, Report, artefact_report
from shrinkc.compiler.report.sections import Sections, TableSection
from shrinkc.compiler.support.atomic_files import atomic_folder
from shrinkc.compiler.support.progress import Progress, Silent
from shrinkc.compiler.verify.data import split
from shrinkc.compiler.verify.files import Comparison, Original, artefacts, judge, verify
from shrinkc.errors import CaptureError, ModelRunError, TableError
from shrinkc.latency_tables.table import LatencyTable

FEW_LABELS, HARDLY_EVER = 20, 0.1  # images; share of them that is right


def compile_model(
    model: nn.Module,
    input_shapes: Sequence[tuple[int, ...]],
    out: Path,
    options: Options | None = None,
    name: str = "model",
    progress: Progress | None = None,
    before: fx.GraphModule | None = None,
    sections: Sections | None = None,
    extras: Mapping[str, bytes] | None = None,
) -> Report:
    """Compile `model` for `options.target` and write the files into `out`.

    `model` is an nn.Module or a canonical graph; `input_shapes` holds one (N, …) shape per input
    (a canonical graph brings its own). `model.onnx`, `model.tflite`, `model.safetensors`,
    `report.json` and `report.html` are written all or none; a format that cannot express the
    network is left out and named in `report.failures`. `before` is a network without batch norms
    that `model` was made from: size and speed are compared with it, otherwise with `model` as it
    is. `sections` is what the report says besides; `extras` are more files for the folder, by name.

    Raises ShrinkcError subclasses: options that do not fit, a model that cannot be captured, a
    step or file that does not compute the same, a folder that cannot be written.
    """
    options, progress, sections = options or Options(), progress or Silent(), sections or Sections()
    check_options(options)
    table = cost_table(options.target, options.threads)
    try:
        with progress.task("Capturing"):
            original = captured(model, input_shapes)
    except ModelRunError:
        raise  # torch.onnx could not run it either
    except CaptureError as cause:
        inputs = example_inputs(input_shapes)
        return compile_uncaptured(model, inputs, out, options, name, cause, sections)
    require_convolutions(original)
    data = split(original, options)
    with progress.task("Simplifying, folding, merging; each pass verified in float64"):
        optimised = optimise(original, table, options)
    with progress.task("Exporting"):
        after = export(optimised.final, options.opset)
        if after.program is not None:
            check_layers(after.program, options.keep_fp32)
        same = before is None and not optimised.merged
        baseline = optimised.baseline if before is None else before
        exported = after if same else export(baseline, options.opset)
    files = artefacts(after, original)
    reference = Original(original)
    tallies = verify(reference, optimised.final, files, data, progress)
    worst = max(tallies[file.name].max_relative_error for file in files)
    steps, noise, keep_fp32 = optimised.steps, (), frozenset[str]()
    if options.precision == "int8":
        seven_bits = is_host(table.target) and int8_saturates()
        after, prepared = quantised(after, optimised.final, data, seven_bits, progress)
        steps, noise = (*steps, *prepared.steps), prepared.noise
        keep_fp32 = prepared.quantisation.keep_fp32
        files = artefacts(after, original, optimise=seven_bits or not int8_saturates())
        tallies = judge(reference, files, data, progress)
    timings = measure(exported, after, options, progress)
    memory = measure_memory(exported, after, options, progress)
    predicted_before = _predicted(exported, table, "fp32")
    predicted_after = _predicted(after, table, options.precision, keep_fp32)
    requantised = _predicted(exported, table, options.precision)
    layers = measure_layers(after, predicted_after, options, progress)
    report = Report(
        model=name,
        target=options.target,
        precision=options.precision,
        input_shapes=original.meta["input_shapes"],
        captured_by=original.meta.get("captured_by", "own file"),
        before=_network(original if before is None else before, exported),
        after=_network(optimised.final, after),
        predicted_before=predicted_before,
        predicted_after=predicted_after,
        artefacts=tuple(
            artefact_report(
                file.name,
                size=len(file.data),
                precision=options.precision,
                runtime=file.runner.runtime,
                tally=tallies[file.name],
                timings=timings.get(file.name),
                memory=memory.get(file.name, (None, None)),
                size_before=_size(exported, file.name),
            )
            for file in files
        ),
        steps=steps,
        max_relative_error=worst,
        original_top1=tallies["torch"].top1,
        images=tallies["torch"].images if data.evaluation else 0,
        calibration_images=len(data.calibration or ()),
        preprocessing=options.preprocessing.to_json() if options.preprocessing else None,
        host=describe_host(),
        threads=options.threads,
        opset=options.opset,
        notes=(*after.notes, *data.notes(), *_order_of_classes(tallies["torch"])),
        failures=after.failures,
        predicted_ms_before_in_precision=requantised.total_ms if requantised else None,
        table=_table(table, options.precision),
        noise=noise,
        measured_layers=layers,
        task=options.task,
    ).extended(sections)
    _write(out, report, optimised, after, extras or {})
    return report


def _order_of_classes(original: Comparison) -> tuple[str, ...]:
    """A network that is hardly ever right was trained on classes in another order."""
    if original.classes is None or original.labelled < FEW_LABELS:
        return ()
    if (original.top1 or 0.0) > HARDLY_EVER:
        return ()
    return (
        f"the network itself is right on {original.top1:.1%} of the images: class folders count "
        "in sorted order; where the network's is another, give --classes FILE",
    )


def _size(exported: Exported, name: str) -> int | None:
    data = exported.onnx if name == "onnx" else exported.tflite
    return None if data is None else len(data)


def _network(graph_module: fx.GraphModule, exported: Exported) -> Network:
    count = None if exported.program is None else macs(exported.program)
    return Network(len(graph_module.graph.nodes), count, len(exported.onnx))


def _predicted(
    exported: Exported, table: CostTable, precision: str, keep_fp32: frozenset[str] = frozenset()
) -> Prediction | None:
    if exported.program is None:
        return None
    try:
        return predict(exported.program, table, precision, keep_fp32)
    except TableError:  # the host times int8 files whole, not by operator
        if not is_host(table.target):
            raise
        return None


def _table(table: CostTable, precision: str) -> TableSection | None:
    """What a table says of itself; the machine itself says nothing."""
    if not isinstance(table, LatencyTable):
        return None
    meta, error = table.meta, table.mean_error_percent(precision)
    return TableSection(meta.device, meta.runtime, meta.kind, meta.source, error)


def _write(
    out: Path,
    report: Report,
    optimised: Optimised,
    exported: Exported,
    extras: Mapping[str, bytes],
) -> None:
    extra = {
        "model": report.model,
        "target": report.target,
        "preprocessing": report.preprocessing,
    }
    with atomic_folder(out) as folder:
        (folder / "model.onnx").write_bytes(exported.onnx)
        if exported.tflite is not None:
            (folder / "model.tflite").write_bytes(exported.tflite)
        save_model(optimised.final, folder / "model.safetensors", extra)
        report.write(folder)
        for file, content in extras.items():
            (folder / file).write_bytes(content)
