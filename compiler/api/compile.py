"""`shrinkc.compile`: the same network in the files that run fastest on a target, verified."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from shrinkc.compiler.api.steps.compilation import compile_graph
from shrinkc.compiler.api.steps.network import (
    Inputs,
    Model,
    Subject,
    subject_of,
)
from shrinkc.compiler.api.steps.results import Compiled
from shrinkc.compiler.api.steps.target import Target, cost_table, target_name
from shrinkc.compiler.api.steps.uncaptured import compile_uncaptured
from shrinkc.compiler.formats.base import Format
from shrinkc.compiler.formats.registry import FORMATS
from shrinkc.compiler.images.source import Given
from shrinkc.compiler.options import Options, check_options, with_images
from shrinkc.compiler.report.sections import Sections
from shrinkc.compiler.support.checks import listed
from shrinkc.compiler.support.choices import Int8Tuning, Io, Merge, Precision
from shrinkc.compiler.support.progress import Progress, shown_by
from shrinkc.compiler.tasks.asked import AskedTask, asked_task
from shrinkc.compiler.tasks.own_metric import Metric
from shrinkc.compiler.tasks.task import Task
from shrinkc.errors import CaptureError, InputError, ModelRunError
from shrinkc.passes.base import Pass


def compile(
    model: Model,
    inputs: Inputs = None,
    *,
    target: Target,
    images: Given | None = None,
    calibration: Given | None = None,
    precision: Precision = "fp32",
    io: Io = "float32",
    fold_normalisation: bool = False,
    merge: Merge = "auto",
    int8_tuning: Int8Tuning = "bias",
    keep_fp32: Sequence[str] = (),
    min_snr_db: float | None = None,
    passes: Sequence[Pass] = (),
    task: Task | AskedTask | None = None,
    metric: Metric | None = None,
    formats: Sequence[Format] = FORMATS,
    opset: int = 17,
    threads: int = 1,
    runs: int = 30,
    name: str | None = None,
    command: str | None = None,
    progress: Progress | bool = False,
) -> Compiled:
    """Simplify, fold batch norms, merge what is linear, export, verify, predict and measure.

    Args:
        model: a module, a captured graph, or the path of a file that `load` reads.
        inputs: an example (N, …) or its shape, one per input of `forward`.
        target: a latency table's name or folder, or "host" (this machine, measured).
        images: to verify on, and to judge by their labels: a folder, a tar, `ImageFolder`, a
            tensor, a pair of it and labels, or an iterable of those, such as a DataLoader.
        calibration: images for int8; without them every second one of `images` calibrates, and
            only the others are judged.
        precision, merge: "fp32" or "int8"; linear segments: "auto" (where it pays), "all", "none".
        io: what int8 files read and return: "float32", "int8" or "uint8"; the result takes floats.
        fold_normalisation: files, and the result, read raw RGB, 0 to 255, and normalise it.
        int8_tuning: before int8: "bias" corrects biases on the calibration images, "equalise"
            the ranges of channels, "both", "none".
        keep_fp32, min_snr_db: layers that stay fp32 in int8 files, by name, and by their own
            signal to noise in int8 where it is less, in dB.
        passes, formats: exact ones of one's own, verified like shrinkc's; those that are written.
        task: what the outputs mean: how files are judged beside being equal; None: told by them.
        metric: your own in place of the task's: of all outputs and labels; higher is better.
        opset, threads, runs: of the ONNX file; of every measurement here; of each file when it is
            timed (0 times nothing).
        name, command, progress: of the network, in reports (None: its file's or class's); as it was
            typed, for the report; True shows bars on stderr.

    Returns the files, in memory. A format that cannot express the network is missing, and named in
    `report.failures`.

    Raises:
        InputError, ImageError, TableError: arguments that do not fit, with the parameter's name.
        CaptureError, ModelRunError: a model that cannot be captured or run.
        VerificationError: a step or a file that does not compute the same.
    """
    asked = asked_task(task, metric)
    options = Options(
        target=target_name(target),
        precision=precision,
        io=io,
        fold_normalisation=fold_normalisation,
        opset=opset,
        merge=merge,
        int8_tuning=int8_tuning,
        keep_fp32=listed("keep_fp32", keep_fp32, str, "names of layers"),
        min_snr_db=min_snr_db,
        threads=threads,
        runs=runs,
        formats=listed("formats", formats, Format, "objects that derive from Format"),
        passes=listed("passes", passes, object, "passes"),
    )
    if calibration is not None and precision != "int8":
        raise InputError("`calibration` is for int8 files; give `precision` int8 too")
    cost_table(options.target, threads)  # an unknown target is told before anything
    subject = subject_of(model, inputs, name)
    options = _with_images(subject, options, images, calibration, asked)
    return _compiled(subject, options, command, shown_by(progress))


def _with_images(
    subject: Subject,
    options: Options,
    images: Given | None,
    calibration: Given | None,
    asked: AskedTask,
) -> Options:
    """And what the outputs mean."""
    task, sources = subject.images(
        {"images": (images, "read"), "calibration": (calibration, "unread")}, asked
    )
    calibrating = sources["calibration"]
    unlabelled = None if calibrating is None else calibrating.without_labels()
    return with_images(replace(options, task=task), sources["images"], unlabelled)


def _compiled(
    subject: Subject, options: Options, command: str | None, progress: Progress
) -> Compiled:
    check_options(options)
    sections = Sections(command)
    try:
        with progress.task("Capturing"):
            graph = subject.graph
    except ModelRunError:
        raise  # torch.onnx could not run it either
    except CaptureError as cause:
        made = compile_uncaptured(subject, options, cause, sections)
        return Compiled.of(made, subject)
    made = compile_graph(
        *(graph, options),
        name=subject.name,
        progress=progress,
        reference=subject.original,
        sections=sections,
    )
    return Compiled.of(made, subject)
