"""The steps of a compilation, each a function of what came before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from platformdirs import user_cache_dir
from torch import Tensor, fx, nn

from ..latency_tables.key import OpKey
from ..latency_tables.store import load_table
from ..passes.base import Pass, copy_graph
from ..passes.fold_batch_norm import FoldBatchNorm
from ..passes.merge_linear import MergeLinear
from ..passes.op_spec import OpSpec
from ..passes.simplify import Simplify
from .bench import Timing, bench
from .capture import capture
from .costs import CostTable
from .data import Batch, Data
from .errors import InputError, UnsupportedOperatorError
from .export import ops
from .export.lower import lower
from .export.onnx import simplified, write_onnx
from .export.tflite import write_tflite
from .fallback import FALLBACK_NOTE, torch_onnx
from .host import HostTable
from .options import PRECISIONS, Options
from .pipeline import Step, run_exact_passes, sample_inputs
from .progress import Progress
from .quantisation.how import check_int8
from .quantisation.prepare import Prepared, prepare, with_levels
from .quantisation.rounding import LEVELS_OF_7_BITS
from .quantize import int8_saturates, quantize_onnx, quantize_tflite, tensors_of
from .runtimes import OnnxRunner, Runner, TfliteRunner, random_inputs
from .text import one_line
from .verify import (
    FP32_TOLERANCE,
    Artefact,
    Comparison,
    Original,
    compare,
    onnx_artefact,
    relative_error,
    require_equal,
    tflite_artefact,
)

SIMPLIFIED_TOLERANCE = 1e-5
FEW_BATCHES = 8  # for what is no node of the graph: the inner tensors of composed operators


def cost_table(target: str, threads: int = 1) -> CostTable:
    """The table that prices operators. Raises TableError that lists the known targets."""
    if target == "host":
        return HostTable(threads, Path(user_cache_dir("shrinkc", appauthor=False), "host"))
    return load_table(target, also=("host",))


def check_options(options: Options) -> None:
    """Raise InputError for what can be known to fail before any work is done."""
    if options.precision not in PRECISIONS:
        raise InputError(f"--precision {options.precision}: choose {' or '.join(PRECISIONS)}")
    pictures = options.images or options.calibration
    if options.precision == "int8" and pictures is None and options.known is None:
        raise InputError("--precision int8 needs pictures to calibrate on; give --images DIR")
    check_int8(options.int8, options.precision)


def example_inputs(input_shapes: Sequence[tuple[int, ...]]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=generator) for shape in input_shapes)


def captured(model: nn.Module, input_shapes: Sequence[tuple[int, ...]]) -> fx.GraphModule:
    """The model as a canonical graph; one that is canonical already is taken as it is."""
    if isinstance(model, fx.GraphModule) and "input_shapes" in model.meta:
        return model
    return capture(model, example_inputs(input_shapes))


def require_convolutions(graph_module: fx.GraphModule) -> None:
    """Raise InputError for a network that is none of ours."""
    if not any(isinstance(m, nn.Conv2d | nn.ConvTranspose2d) for m in graph_module.modules()):
        raise InputError("the model has no convolution; shrinkc compiles convolutional networks")


@dataclass(frozen=True)
class Optimised:
    """`baseline` is what a plain converter would export (batch norm folded), `final` ours."""

    baseline: fx.GraphModule
    final: fx.GraphModule
    steps: tuple[Step, ...]
    merged: bool


def optimise(graph_module: fx.GraphModule, table: CostTable, options: Options) -> Optimised:
    """Every exact pass, verified. Raises VerificationError."""
    folded, steps = run_exact_passes(graph_module, (Simplify(), FoldBatchNorm()))
    baseline = copy_graph(folded).float()
    passes = merge_passes(table, options)
    if not passes:
        return Optimised(baseline, baseline, steps, merged=False)
    final, merges = run_exact_passes(folded, passes)
    merged = any(step.changes for step in merges)
    return Optimised(
        baseline, final.float() if merged else baseline, (*steps, *merges), merged=merged
    )


def merge_passes(table: CostTable, options: Options) -> tuple[Pass, ...]:
    """Merging where the table says it pays; `options.merge` may force or forbid it."""
    if options.merge == "none":
        return ()
    if options.merge == "all":
        return (MergeLinear(), Simplify())

    def price(spec: OpSpec) -> float:
        return table.estimate(OpKey(**asdict(spec), precision=options.precision)).ms

    return (MergeLinear(price=price), Simplify())


@dataclass(frozen=True)
class Exported:
    """One network's files in memory. `program` is None when torch.onnx had to write the ONNX."""

    program: ops.Program | None
    onnx: bytes
    tflite: bytes | None
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def export(graph_module: fx.GraphModule, opset: int) -> Exported:
    """Both files; a format that cannot express the network is a failure, not an exception.

    Raises ExportError when not even torch.onnx can write ONNX.
    """
    try:
        program = lower(graph_module)
    except UnsupportedOperatorError as error:
        inputs = sample_inputs(graph_module, torch.float32)
        return _through_torch(graph_module, inputs, opset, str(error))
    written, note = _simplify_onnx(write_onnx(program, opset).SerializeToString())
    try:
        tflite = write_tflite(program)
    except UnsupportedOperatorError as error:
        return Exported(program, written, None, (str(error),), note)
    return Exported(program, written, tflite, (), note)


def _through_torch(
    model: nn.Module, inputs: tuple[Tensor, ...], opset: int, reason: str
) -> Exported:
    return Exported(None, torch_onnx(model, inputs, opset), None, (reason,), (FALLBACK_NOTE,))


def _simplify_onnx(model: bytes) -> tuple[bytes, tuple[str, ...]]:
    """onnxsim's version when it computes the same, else ours."""
    try:
        smaller = simplified(model)
        runners = [OnnxRunner(m) for m in (model, smaller)]
        inputs = random_inputs(runners[0])
        ours, theirs = (runner.run(inputs) for runner in runners)
    except Exception as error:  # onnxsim's C++ may raise anything
        return model, (f"onnxsim failed ({one_line(error)}); model.onnx is as written",)
    worst = max(relative_error(a, b) for a, b in zip(theirs, ours, strict=True))
    if worst > SIMPLIFIED_TOLERANCE:
        return model, (f"onnxsim changed the result by {worst:.1e}; model.onnx is as written",)
    return smaller, ()


def artefacts(
    exported: Exported, graph_module: fx.GraphModule, optimise: bool = True
) -> tuple[Artefact, ...]:
    """The files, loaded into their runtimes."""
    program = exported.program or _shapes_only(graph_module)
    loaded = [onnx_artefact(exported.onnx, program, optimise)]
    if exported.tflite is not None:
        loaded.append(tflite_artefact(exported.tflite, program))
    return tuple(loaded)


def _shapes_only(graph_module: fx.GraphModule) -> ops.Program:
    """Inputs of a network that could not be lowered; its batch is fixed."""
    shapes = graph_module.meta["input_shapes"].items()
    return ops.Program(tuple(ops.Value(n, s, None) for n, s in shapes), (), ())


def verify(
    original: Original,
    final: fx.GraphModule,
    files: Sequence[Artefact],
    data: Data,
    progress: Progress,
) -> dict[str, Comparison]:
    """Compare every fp32 artefact with the original. Raises VerificationError."""
    with progress.task("Verifying", data.evaluation_batches) as done:
        tallies = compare(original, files, _counted(data, done))
    for file in files:
        require_equal(final, file, tallies[file.name], FP32_TOLERANCE)
    return tallies


def judge(
    original: Original, files: Sequence[Artefact], data: Data, progress: Progress
) -> dict[str, Comparison]:
    """Accuracy and agreement of files that are not expected to be equal (int8)."""
    with progress.task("Judging int8", data.evaluation_batches) as done:
        return compare(original, files, _counted(data, done))


def _counted(data: Data, done: Callable[[], None]) -> Iterator[Batch]:
    for batch in data.batches():
        yield batch
        done()


def quantised(
    exported: Exported, final: fx.GraphModule, data: Data, seven_bits: bool, progress: Progress
) -> tuple[Exported, Prepared]:
    """int8 versions of both files, with the same activation ranges, weights and biases."""
    if exported.program is None:
        raise InputError("int8 needs a network that shrinkc can lower itself")
    options, known = data.options, data.options.known
    if known is not None:
        prepared, batches = known.prepared(final), list[tuple[Tensor, ...]]()
        few = [sample_inputs(final, torch.float32, seed) for seed in range(FEW_BATCHES)]
    else:
        batches = data.calibration_batches()
        prepared, few = prepare(final, batches, options.int8, progress), batches[:FEW_BATCHES]
    program, ranges = prepared.quantisation.program, prepared.quantisation.ranges
    keep = prepared.quantisation.keep_fp32
    in_onnx = program
    if seven_bits and known is None:
        levels = LEVELS_OF_7_BITS
        other = with_levels(prepared, levels, batches, options.int8, progress)
        in_onnx = other.quantisation.program
    with progress.task("Quantising ONNX"):
        written, _ = _simplify_onnx(write_onnx(in_onnx, options.opset).SerializeToString())
        onnx = quantize_onnx(written, few, ranges, seven_bits, tensors_of(program, keep))
    tflite = None
    if exported.tflite is not None:
        with progress.task("Quantising TFLite"):
            tflite = quantize_tflite(write_tflite(program), program, few, ranges, keep)
    notes = (*exported.notes, *prepared.notes)
    if seven_bits:
        notes = (*notes, "model.onnx has 7-bit weights: 8 would overflow in this machine's kernels")
    elif int8_saturates():
        notes = (
            *notes,
            "model.onnx was judged in exact arithmetic: int8 overflows on this machine",
        )
    return replace(exported, program=program, onnx=onnx, tflite=tflite, notes=notes), prepared


def measure(
    before: Exported, after: Exported, options: Options, progress: Progress
) -> dict[str, tuple[Timing, Timing]]:
    """Artefact name → (before, after) on this machine, in turns; empty when not asked for."""
    if options.runs == 0:
        return {}
    pairs = {"onnx": _runners(before.onnx, after.onnx, OnnxRunner, options.threads)}
    if before.tflite is not None and after.tflite is not None:
        pairs["tflite"] = _runners(before.tflite, after.tflite, TfliteRunner, options.threads)
    timings: dict[str, tuple[Timing, Timing]] = {}
    for name, runners in pairs.items():
        with progress.task(f"Measuring {name}", options.runs) as done:
            times = bench(runners, options.runs, on_run=done)
        timings[name] = (times[0], times[-1])
    return timings


def _runners(
    before: bytes, after: bytes, load: Callable[[bytes, int], Runner], threads: int
) -> tuple[Runner, ...]:
    """One runner when nothing changed, so that noise shows no difference."""
    files = (before,) if before == after else (before, after)
    return tuple(load(file, threads) for file in files)
