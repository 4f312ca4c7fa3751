"""Exported files timed on this machine, in turns."""

from __future__ import annotations

from collections.abc import Callable

from shrinkc.compiler.formats.exported import Exported
from shrinkc.compiler.formats.onnx import OnnxRunner
from shrinkc.compiler.formats.runner import Runner
from shrinkc.compiler.formats.tflite import TfliteRunner
from shrinkc.compiler.measure.bench import Timing, bench
from shrinkc.compiler.options import Options
from shrinkc.compiler.support.progress import Progress


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
