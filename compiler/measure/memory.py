"""Memory that a model file needs here, measured in processes that do nothing else."""

from __future__ import annotations

from shrinkc.compiler.devices.host import Host
from shrinkc.compiler.devices.jobs import CPU_RUNTIMES, Failed, Model, Setup
from shrinkc.compiler.formats.exported import Exported
from shrinkc.compiler.options import Options
from shrinkc.compiler.support.progress import Progress
from shrinkc.errors import DeviceError

Memory = tuple[int | None, int | None]


def measure_memory(
    before: Exported, after: Exported, options: Options, progress: Progress
) -> dict[str, Memory]:
    """Format's name → bytes (before, after); empty where nothing is to be measured. Formats whose
    runtime a fresh process does not know are left out."""
    if options.runs == 0:
        return {}
    with progress.task("Measuring memory"):
        return {
            one.name: _pair(
                before.files.get(one.name), after.files.get(one.name), runtime, options.threads
            )
            for one in options.formats
            for runtime in one.runtimes
            if runtime in CPU_RUNTIMES
        }


def _pair(before: bytes | None, after: bytes | None, runtime: str, threads: int) -> Memory:
    """One process where nothing changed, so that noise shows no difference."""
    now = memory_bytes(after, runtime, threads)
    return now if before == after else memory_bytes(before, runtime, threads), now


def memory_bytes(file: bytes | None, runtime: str, threads: int = 1) -> int | None:
    """The largest resident size of a fresh process that loads and runs the file once, less its
    size before that. None without a file, and where the system does not say."""
    if file is None:
        return None
    try:
        with Host().open(Setup(runtime, threads)) as session:
            ran = session.run(Model(f"model.{runtime}", file, runtime=runtime), None)
    except DeviceError:
        return None
    if isinstance(ran, Failed) or ran.peak_memory_bytes is None or ran.idle_memory_bytes is None:
        return None
    return ran.peak_memory_bytes - ran.idle_memory_bytes
