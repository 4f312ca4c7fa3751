"""Exported files timed on this machine, in turns."""

from __future__ import annotations

from shrinkc.compiler.formats.base import Format
from shrinkc.compiler.formats.exported import Exported
from shrinkc.compiler.formats.runner import Runner
from shrinkc.compiler.measure.bench import Timing, bench
from shrinkc.compiler.options import Options
from shrinkc.compiler.support.progress import Progress


def measure(
    before: Exported, after: Exported, options: Options, progress: Progress
) -> dict[str, tuple[Timing, Timing]]:
    """Format's name → (before, after) on this machine, in turns; empty when not asked for."""
    if options.runs == 0:
        return {}
    both = [one for one in options.formats if one.name in before.files and one.name in after.files]
    loaded = [
        _runners(one, before.files[one.name], after.files[one.name], options.threads)
        for one in both
    ]
    timings: dict[str, tuple[Timing, Timing]] = {}
    for one, runners in zip(both, loaded, strict=True):
        with progress.task(f"Measuring {one.file}", options.runs) as done:
            times = bench(runners, options.runs, on_run=done)
        timings[one.name] = (times[0], times[-1])
    return timings


def _runners(form: Format, before: bytes, after: bytes, threads: int) -> tuple[Runner, ...]:
    """One runner when nothing changed, so that noise shows no difference."""
    files = (before,) if before == after else (before, after)
    return tuple(form.open(file, threads) for file in files)
