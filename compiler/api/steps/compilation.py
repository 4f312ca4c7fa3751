"""The whole compilation, one function read from top to bottom."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import fx

from shrinkc.compiler.api.steps.network import require_layers
from shrinkc.compiler.api.steps.optimise import Optimised, optimise
from shrinkc.compiler.api.steps.quantise import quantised
from shrinkc.compiler.api.steps.target import cost_table
from shrinkc.compiler.cost.keys import macs
from shrinkc.compiler.cost.predict import CostTable, Prediction, predict
from shrinkc.compiler.devices import describe_host
from shrinkc.compiler.formats.base import Format
from shrinkc.compiler.formats.exported import Exported, export
from shrinkc.compiler.formats.metadata.description import Description
from shrinkc.compiler.formats.registry import HOST_FORMAT, format_of_runtime
from shrinkc.compiler.images.files import ImageSet
from shrinkc.compiler.measure.files import measure
from shrinkc.compiler.measure.layers import measure_layers
from shrinkc.compiler.measure.memory import measure_memory
from shrinkc.compiler.model_file.file import model_bytes
from shrinkc.compiler.options import Options, check_options
from shrinkc.compiler.pipeline.run import Step
from shrinkc.compiler.quantise.noise import LayerNoise
from shrinkc.compiler.quantise.prepare import check_layers
from shrinkc.compiler.reference.original import Original
from shrinkc.compiler.report.report import ArtefactReport, Network, Report, artefact_report
from shrinkc.compiler.report.sections import Sections, TableSection
from shrinkc.compiler.support.choices import is_host
from shrinkc.compiler.support.progress import Progress, Silent
from shrinkc.compiler.support.text import shown, visible
from shrinkc.compiler.tasks.tally import Judgement
from shrinkc.compiler.verify.data import Data, split
from shrinkc.compiler.verify.detections import detections
from shrinkc.compiler.verify.files import Artefact, Comparison, artefacts, verify
from shrinkc.compiler.verify.hardly_right import is_hardly_right, why_hardly_right
from shrinkc.compiler.verify.int8_judged import judge_int8
from shrinkc.compiler.verify.raw_input import folded, normalisation_of, reading_raw, said
from shrinkc.compiler.verify.signal import OutputSignal
from shrinkc.errors import TableError
from shrinkc.latency_tables.table import LatencyTable


@dataclass(frozen=True, eq=False)
class Compilation:
    """The outcome in memory: the report, every file by name, and the network that they hold.

    graph_module  None where the model could not be captured
    artefacts     the model files, loaded into their runtimes
    """

    report: Report
    files: Mapping[str, bytes]
    graph_module: fx.GraphModule | None
    artefacts: tuple[Artefact, ...]

    @property
    def of_target(self) -> Artefact:
        """The file that the target's runtime runs."""
        named = {file.name: file for file in self.artefacts}
        return named.get(self.report.target_format or "", self.artefacts[0])


def compile_graph(
    original: fx.GraphModule,
    options: Options,
    *,
    name: str = "model",
    progress: Progress | None = None,
    reference: Original | None = None,
    users: Original | None = None,
    before: fx.GraphModule | None = None,
    sections: Sections | None = None,
    extras: Mapping[str, bytes] | None = None,
) -> Compilation:
    """Compile a canonical graph for `options.target`, into a file of every one of
    `options.formats`.

    A format that cannot express the network is left out and named in `report.failures`. `reference`
    is the model that `original` was captured from, where there is one: files are compared with it.
    `users` is the user's model where `original` is a changed one: files are judged beside it.
    `before` is a network without batch norms that `original` was made from: size and speed are
    compared with it, otherwise with `original` as it is. `sections` is what the report says
    besides; `extras` are more files, by name.

    Raises ShrinkcError subclasses: options that do not fit, a step or file that does not compute
    the same.
    """
    progress, sections = progress or Silent(), sections or Sections()
    check_options(options)
    table = cost_table(options.target, options.threads)
    require_layers(original)
    reference = reference or Original.of_graph(original)
    users = users or reference
    raw = normalisation_of(options)
    data = split(original, options, reference, raw)
    description = _description(name, data.options)
    with progress.task("Simplifying, folding, merging; each pass verified in float64"):
        optimised = optimise(original, table, options)
        notes: tuple[str, ...] = ()
        if raw is not None:
            final, step = folded(optimised.final, raw, pads=options.precision == "fp32")
            optimised = replace(optimised, final=final, steps=(*optimised.steps, step))
            notes = (said(step, raw),)
            reference, users = (reading_raw(one, raw) for one in (reference, users))
    with progress.task("Exporting"):
        exported, unchanged = _exported(optimised, before, options, description)
    compared = _Compared(reference, users, data)
    files = _verified(exported, optimised.final, compared, progress)
    if options.precision == "int8":
        files = _in_int8(files, optimised.final, compared, description, progress)
    ends = detections(files.loaded, data)
    report = _report(
        description,
        networks=(original if before is None else before, optimised.final),
        unchanged=unchanged,
        files=replace(files, steps=(*optimised.steps, *files.steps)),
        table=table,
        data=data,
        progress=progress,
        notes=notes,
        ends=tuple(ends),
    ).extended(sections)
    written = _written(report, optimised.final, files.exported, options.formats)
    return Compilation(report, {**written, **ends, **(extras or {})}, optimised.final, files.loaded)


@dataclass(frozen=True, eq=False)
class _Compared:
    """What files are compared with: `reference`, which they were written from and are to equal,
    `users`, which they are judged beside, on `data`."""

    reference: Original
    users: Original
    data: Data


@dataclass(frozen=True, eq=False)
class _Files:
    """What is written: as bytes, loaded, and compared with the original.

    fp32_error  the largest of the fp32 files, as a share of a channel's range
    steps, noise, keep_fp32, signals, notes  of int8; signals by the format's name
    """

    exported: Exported
    loaded: tuple[Artefact, ...]
    tallies: dict[str, Comparison]
    fp32_error: float
    steps: tuple[Step, ...] = ()
    noise: tuple[LayerNoise, ...] = ()
    keep_fp32: frozenset[str] = frozenset()
    signals: Mapping[str, tuple[OutputSignal, ...]] = field(
        default_factory=dict[str, tuple[OutputSignal, ...]]
    )
    notes: tuple[str, ...] = ()


def _exported(
    optimised: Optimised,
    before: fx.GraphModule | None,
    options: Options,
    description: Description,
) -> tuple[Exported, Exported]:
    """The optimised network's files, and those of the network that it is compared with."""

    def files_of(graph_module: fx.GraphModule) -> Exported:
        made = export(graph_module, options.opset, options.formats)
        return made.described(description, options.formats)

    after = files_of(optimised.final)
    if after.program is not None:
        check_layers(after.program, options.keep_fp32)
    if before is None and not optimised.merged:
        return after, after
    return after, files_of(optimised.baseline if before is None else before)


def _verified(
    exported: Exported, final: fx.GraphModule, compared: _Compared, progress: Progress
) -> _Files:
    """Raises VerificationError where a file does not compute what the original does."""
    data = compared.data
    loaded = artefacts(exported, data.graph_module, data.options.formats, data.apart)
    tallies = verify(compared.reference, final, loaded, data, progress, compared.users)
    worst = max(tallies[file.name].max_relative_error for file in loaded)
    return _Files(exported, loaded, tallies, worst)


def _in_int8(
    files: _Files,
    final: fx.GraphModule,
    compared: _Compared,
    description: Description,
    progress: Progress,
) -> _Files:
    """The same network's int8 files, which are judged instead: they are not expected to be
    equal."""
    data = compared.data
    here = is_host(data.options.target)
    exported, prepared = quantised(files.exported, final, data, here, progress)
    exported = exported.described(description, data.options.formats)
    loaded = artefacts(
        *(exported, data.graph_module, data.options.formats, data.apart),
        load=lambda one, file: one.open_to_judge(file, here),
    )
    judged = judge_int8(compared.reference, loaded, data, progress, compared.users)
    return _Files(
        *(exported, loaded, judged.tallies, files.fp32_error),
        steps=prepared.steps,
        noise=prepared.noise,
        keep_fp32=prepared.quantisation.keep_fp32,
        signals=judged.outputs,
        notes=judged.notes,
    )


def _report(
    description: Description,
    *,
    networks: tuple[fx.GraphModule, fx.GraphModule],
    unchanged: Exported,
    files: _Files,
    table: CostTable,
    data: Data,
    progress: Progress,
    notes: tuple[str, ...] = (),
    ends: tuple[str, ...] = (),
) -> Report:
    """Predict and measure. `networks`: before and after; `unchanged`: the files before."""
    options, original, exported = data.options, data.graph_module, files.exported
    timings = measure(unchanged, exported, options, progress)
    memory = measure_memory(unchanged, exported, options, progress)
    predicted_after = _predicted(exported, table, options.precision, files.keep_fp32)
    requantised = _predicted(unchanged, table, options.precision)
    layers = measure_layers(exported, predicted_after, options, progress)
    in_torch = files.tallies["torch"].tally
    judged = in_torch.judgement()
    reports = tuple(
        artefact_report(
            file,
            precision=options.precision,
            max_relative_error=_error(files.tallies[file.name], options.precision),
            judgement=files.tallies[file.name].tally.judgement(),
            timings=timings.get(file.name),
            memory=memory.get(file.name, (None, None)),
            size_before=_size(unchanged, file.format),
            signal=files.signals.get(file.name, ()),
        )
        for file in files.loaded
    )
    return Report(
        model=description.name,
        target=options.target,
        precision=options.precision,
        input_shapes=original.meta["input_shapes"],
        captured_by=original.meta.get("captured_by", "own file"),
        before=_network(networks[0], unchanged, options.formats),
        after=_network(networks[1], exported, options.formats),
        predicted_before=_predicted(unchanged, table, "fp32"),
        predicted_after=predicted_after,
        artefacts=reports,
        target_format=_target_format(table, options.formats, reports),
        steps=files.steps,
        max_relative_error=files.fp32_error,
        original_top1=judged.original_score,
        images=judged.images if data.evaluation else 0,
        in_torch=judged,
        calibration_images=len(data.calibration or ()),
        preprocessing=options.preprocessing.to_json() if options.preprocessing else None,
        host=describe_host(),
        threads=options.threads,
        opset=options.opset,
        notes=(
            *original.meta.get("notes", ()),
            *options.task.notes,
            *notes,
            *exported.notes,
            *files.notes,
            *data.notes(),
            *_hardly_right(_of_size(networks[0], original), data, judged),
        ),
        failures=exported.failures,
        predicted_ms_before_in_precision=requantised.total_ms if requantised else None,
        table=_table(table, options.precision),
        noise=files.noise,
        measured_layers=layers,
        task=options.task,
        labels=description.labels,
        ends=ends,
    )


def _description(name: str, options: Options) -> Description:
    """What the files say of themselves: in text that files can hold, on a line each."""
    sources = (options.images, options.calibration)
    named = (one.names for one in sources if isinstance(one, ImageSet))
    labels = next((names for names in named if names), ())
    task = options.task
    told = tuple(shown(label, 1000) for label in labels)
    return Description(visible(name), task.name, options.preprocessing, told)


def _error(found: Comparison, precision: str) -> float:
    """int8 rounds all channels of an output alike; what that does to each, its signal to noise
    tells."""
    return found.max_relative_error if precision == "fp32" else found.largest_error


def _target_format(
    table: CostTable, formats: Sequence[Format], files: Sequence[ArtefactReport]
) -> str:
    """The written format that the target's runtime runs; where none is, that of the file that is
    fastest here, else of the first."""
    here = HOST_FORMAT.runtimes[0]
    runtime = table.meta.runtime if isinstance(table, LatencyTable) else here
    written = {file.name: file for file in files}
    found = format_of_runtime(runtime, [one for one in formats if one.name in written])
    if found is not None:
        return found.name
    return min(files, key=lambda file: file.measured_ms or math.inf).name


def _hardly_right(network: fx.GraphModule, data: Data, found: Judgement) -> tuple[str, ...]:
    """Of the user's own `network`, where what was `found` says that it may be."""
    if data.evaluation is None or not is_hardly_right(found.original_score, found.images):
        return ()
    options = data.options
    if options.task.pooled:
        score = f"{options.task.metric} of your own model is {found.original_score:.3f}"
        return (
            f"{score}: check that the labels are of these images, and how `task` reads outputs",
        )
    given = options.preprocessing if data.raw is None else data.raw.given
    return why_hardly_right(network, data.evaluation, given, options.task)


def _of_size(network: fx.GraphModule, changed: fx.GraphModule) -> fx.GraphModule:
    """`network`; where it reads other images than `changed`, that one, which data are for."""
    same = network.meta["input_shapes"] == changed.meta["input_shapes"]
    return network if same else changed


def _size(exported: Exported, one: Format) -> int | None:
    data = exported.files.get(one.name)
    return None if data is None else len(data)


def _network(
    graph_module: fx.GraphModule, exported: Exported, formats: Sequence[Format]
) -> Network:
    count = None if exported.program is None else macs(exported.program)
    return Network(len(graph_module.graph.nodes), count, _size(exported, formats[0]))


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


def _written(
    report: Report, final: fx.GraphModule, exported: Exported, formats: Sequence[Format]
) -> dict[str, bytes]:
    """File name → content."""
    extra = {
        "model": report.model,
        "target": report.target,
        "preprocessing": report.preprocessing,
    }
    models = {one.file: exported.files[one.name] for one in formats if one.name in exported.files}
    return models | {"model.safetensors": model_bytes(final, extra)} | report.pages()
