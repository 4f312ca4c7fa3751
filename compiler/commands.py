"""What each command does once its arguments are known."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

from torch import fx, nn

from ..passes.analysis.channel_groups import channel_groups
from ..passes.analysis.linear_segments import linear_segments
from ..passes.analysis.spans import find_spans
from ..passes.fold_batch_norm import FoldBatchNorm
from ..passes.simplify import Simplify
from . import show
from .cli import print_json
from .compile import compile_model
from .costs import predict
from .errors import InputError, UnsupportedOperatorError
from .export.lower import lower, unsupported
from .export.tflite import write_tflite
from .images import ImageSet, find_images, read_classes
from .load import load_model
from .options import Merge, Options
from .picture import preprocessing_for
from .pipeline import run_exact_passes
from .progress import Progress, Silent, Terminal
from .quantisation.how import Int8, Tuning, check_int8
from .report import estimate_json
from .report_sections import Sections
from .show_channels import describe_channels, print_channels
from .show_spans import describe_spans, print_spans
from .shrink.budget import price_of
from .stages import captured, cost_table, optimise


@dataclass(frozen=True)
class CompileArguments:
    """The command line of `shrinkc compile`, as given; `command`: all of it, as it was typed."""

    model: Path
    target: str
    shapes: tuple[str, ...]
    images: Path | None
    calibration: Path | None
    classes: Path | None
    resize: int | None
    mean: str | None
    std: str | None
    out: Path | None
    precision: str
    opset: int
    merge: str
    arch: str | None
    trust: bool
    threads: int
    runs: int
    as_json: bool
    command: str | None = None
    int8: Int8 = field(default_factory=Int8)


def run_compile(a: CompileArguments) -> None:
    """Compile, print the report, fail when a format could not be written."""
    cost_table(a.target)  # an unknown target is told before anything is loaded
    check_int8(a.int8, a.precision)
    merge = _merge(a.merge)
    model = load_model(a.model, arch=a.arch, trust=a.trust)
    shapes = input_shapes(model, a.shapes)
    options = Options(
        target=a.target,
        precision=a.precision,
        opset=a.opset,
        merge=merge,
        images=images_of(a.images, a.classes),
        calibration=images_of(a.calibration, None, labelled=False),
        preprocessing=preprocessing_of(a, shapes),
        int8_tuning=a.int8.tuning,
        keep_fp32=a.int8.keep_fp32,
        min_snr_db=a.int8.min_snr_db,
        threads=a.threads,
        runs=a.runs,
    )
    out = a.out or Path(f"{a.model.stem}-{Path(a.target).name if '/' in a.target else a.target}")
    report = compile_model(
        *(model, shapes, out, options, a.model.name, progress(a.as_json)),
        sections=Sections(a.command),
    )
    if a.as_json:
        print_json(report.to_json())
    else:
        show.report(report, out)
    if report.failures:
        stale = "; the one there is an earlier run's" if (out / "model.tflite").exists() else ""
        raise InputError(f"model.tflite was not written: {report.failures[0]}{stale}")


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
        show.prediction(prediction)


def run_inspect(
    path: Path,
    shapes: tuple[str, ...],
    target: str | None,
    precision: str,
    arch: str | None,
    trust: bool,
    as_json: bool,
) -> None:
    price = None if target is None else price_of(cost_table(target), precision)
    model = load_model(path, arch=arch, trust=trust)
    with progress(as_json).task("Inspecting"):
        graph = captured(model, input_shapes(model, shapes))
        folded, _ = run_exact_passes(graph, (Simplify(), FoldBatchNorm()))
        segments = linear_segments(folded)
        spans = describe_spans(find_spans(folded), price)
        channels = describe_channels(channel_groups(folded))
        problems = _problems(folded.float())
    description = show.describe(graph, segments, problems)
    if as_json:
        print_json({**description, **spans, **channels})
    else:
        show.inspection(description)
        print_spans(spans, show.wide_console())
        print_channels(channels, show.wide_console())


def _problems(graph: fx.GraphModule) -> list[UnsupportedOperatorError]:
    """What no writer can express; without any such, the first that TFLite cannot."""
    problems = unsupported(graph)
    if not problems:
        try:
            write_tflite(lower(graph))
        except UnsupportedOperatorError as error:
            problems.append(error)
    return problems


# --- arguments -----------------------------------------------------------------------------------


def progress(as_json: bool) -> Progress:
    return Terminal() if sys.stderr.isatty() and not as_json else Silent()


def input_shapes(model: nn.Module, given: tuple[str, ...]) -> list[tuple[int, ...]]:
    """From --input, from the file, or 1,C,224,224 with the first convolution's channels."""
    if isinstance(model, fx.GraphModule) and "input_shapes" in model.meta:
        known = [tuple(s) for s in model.meta["input_shapes"].values()]
        if given and [parse_shape(s) for s in given] != known:
            shapes = " ".join(",".join(map(str, s)) for s in known)
            raise InputError(f"this file is made for --input {shapes}; compile the original anew")
        return known
    if given:
        return [parse_shape(s) for s in given]
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None:
        raise InputError("give the input's shape with --input N,C,H,W")
    return [(1, first.in_channels, 224, 224)]


def parse_shape(text: str) -> tuple[int, ...]:
    """'1,3,224,224' → (1, 3, 224, 224)"""
    try:
        shape = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        shape = ()
    if len(shape) < 2 or min(shape) < 1 or max(shape) > 1 << 20:
        raise InputError(f"--input {text}: give positive integers like 1,3,224,224")
    return shape


def _merge(text: str) -> Merge:
    if text not in get_args(Merge):
        raise InputError(f"--merge {text}: choose {', '.join(get_args(Merge))}")
    return cast(Merge, text)


def int8_of(
    precision: str, tuning: str | None, keep_fp32: tuple[str, ...], min_snr: float | None
) -> Int8:
    """From --int8-tuning, --keep-fp32 and --min-snr."""
    if tuning is not None and precision != "int8":
        raise InputError("--int8-tuning is for int8 files; give --precision int8 too")
    return Int8(cast(Tuning, tuning or Int8().tuning), keep_fp32, min_snr)


def images_of(path: Path | None, classes: Path | None, labelled: bool = True) -> ImageSet | None:
    if path is None:
        return None
    return find_images(path, classes=read_classes(classes) if classes and labelled else None)


def preprocessing_of(a: CompileArguments, shapes: list[tuple[int, ...]]) -> Any:
    if a.images is None and a.calibration is None:
        return None
    return preprocessing_for(
        shapes[0],
        resize=a.resize,
        mean=_numbers("--mean", a.mean),
        std=_numbers("--std", a.std),
    )


def _numbers(flag: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"{flag} {text}: give numbers like 0.5,0.5,0.5") from error
