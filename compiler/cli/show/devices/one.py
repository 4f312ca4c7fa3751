"""Of one device: what `shrinkc profile` and `shrinkc bench` show."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from rich.markup import escape
from rich.table import Table

from shrinkc.compiler.cli.output import warn, wide_console
from shrinkc.compiler.devices.samples import NOISY, RESOLUTION_US
from shrinkc.compiler.measure.device import Bench, FileBench
from shrinkc.compiler.profile.measure import described
from shrinkc.compiler.profile.run import Result, reasons
from shrinkc.compiler.support.text import counted
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.measured import Measurement
from shrinkc.latency_tables.store import shipped_table

SHOWN = 5  # reasons, noisy operators
SHOWN_US = 0.1  # less is what an inference costs anyway


def profile(result: Result) -> None:
    """Kinds of operators with their range, what could not be measured, where the table is."""
    console, meta = wide_console(), result.table.meta
    runtime = f"{meta.runtime} {meta.runtime_version}, {counted(meta.threads, 'thread')}"
    title = f"{escape(result.job.target)}: {escape(meta.device)}, {escape(runtime)}"
    table = Table(title=title, title_justify="left")
    for header in ("operator", "measured", "fastest", "median", "slowest", "IQR, median"):
        table.add_column(header, justify="left" if header == "operator" else "right")
    for kind, found in _kinds(result).items():
        times = [m.median_us for m in found]
        spread = median((m.iqr_us or 0.0) / max(m.median_us, RESOLUTION_US) for m in found)
        figures = (min(times), median(times), max(times))
        table.add_row(kind, str(len(found)), *(_us(t) for t in figures), f"{spread:.1%}")
    console.print(table)
    for reason, count in reasons(result.outcome.failed)[:SHOWN]:
        console.print(f"not measured: {count} × {escape(reason)}")
    if len(result.outcome.failed) > SHOWN:
        console.print(f"not measured in all: {len(result.outcome.failed)}; --json lists them")
    if result.outcome.missing:
        console.print(
            f"the time was up before {counted(len(result.outcome.missing), 'operator')}; "
            "run the same command again to go on"
        )
    console.print(f"{result.seconds:.0f} s; {escape(str(result.job.folder))}")
    warn_hidden(result.job.target, result.job.folder)
    _warn_noisy(result)


def _kinds(result: Result) -> dict[str, list[Measurement]]:
    found: dict[str, list[Measurement]] = {}
    for key in result.job.plan.keys:
        measurement = result.outcome.measured.get(key)
        if measurement is not None:
            found.setdefault(_kind(key), []).append(measurement)
    return dict(sorted(found.items()))


def _kind(key: OpKey) -> str:
    conv = key.op in ("conv2d", "depthwise_conv2d", "conv_transpose2d")
    return f"{key.op} {key.kernel[0]}×{key.kernel[1]}" if conv else key.op


def warn_hidden(target: str, folder: Path) -> None:
    """Where a name has meant a shipped table."""
    shipped = shipped_table(target)
    if shipped is not None:
        warn(
            f"{target} means this table from now on, no longer the shipped {shipped}; "
            f"without {folder} it does again"
        )


def _warn_noisy(result: Result) -> None:
    if result.outcome.throttled:
        warn(f"the device was {result.outcome.throttled}; a fan or a heat sink makes it even")
    noisy = result.outcome.noisy
    if noisy:
        names = ", ".join(described(key) for key in noisy[:2])
        have = "has" if len(noisy) == 1 else "have"
        warn(
            f"{len(noisy)} of {counted(len(result.outcome.measured), 'operator')} {have} an "
            f"IQR above {NOISY:.0%} of the median ({names}{', …' if len(noisy) > 2 else ''})"
        )


def profile_json(result: Result) -> dict[str, Any]:
    meta, outcome = result.table.meta, result.outcome
    warn_hidden(result.job.target, result.job.folder)
    _warn_noisy(result)
    return {
        "target": result.job.target,
        "table": str(result.job.folder),
        "on": result.job.device.name,
        "device": meta.device,
        "runtime": meta.runtime,
        "runtime_version": meta.runtime_version,
        "threads": meta.threads,
        "governor": meta.governor,
        "note": meta.note,
        "operators": len(outcome.measured),
        "not_measured": [{"reason": r, "operators": n} for r, n in reasons(outcome.failed)],
        "missing": len(outcome.missing),
        "noisy": [described(key) for key in outcome.noisy],
        "throttled": result.outcome.throttled or None,
        "seconds": round(result.seconds, 1),
    }


def bench(device: str, threads: int, result: Bench) -> None:
    """A line a file, then the ratio."""
    console = wide_console()
    for f in result.files:
        t = f.timing
        line = (
            f"{f.file}: {t.median_ms:.3f} ms median, {t.iqr_ms:.3f} ms IQR, "
            f"{counted(len(t.times_ms), 'run')}, {counted(threads, 'thread')}, "
            f"{f.runtime} on {device}"
        )
        console.print(escape(line + _memory(f) + _agreement(f)), soft_wrap=True)
    if result.ratio is not None:
        first, second = (f.file for f in result.files)
        r = result.ratio
        ratio = f"{second} takes {r.median:.3f} times as long as {first} (IQR {r.iqr:.3f})"
        console.print(escape(ratio), soft_wrap=True)
    if any(f.timing.noisy for f in result.files):
        warn(f"IQR above {NOISY:.0%} of the median")


def _memory(f: FileBench) -> str:
    if f.peak_memory_bytes is None:
        return ""
    own = f.peak_memory_bytes - (f.idle_memory_bytes or 0)
    text = f"; peak memory {f.peak_memory_bytes / 1e6:.1f} MB"
    return f"{text}, {own / 1e6:.1f} MB of it for the model" if f.idle_memory_bytes else text


def _agreement(f: FileBench) -> str:
    if f.agreement is None:
        return ""
    verdict = "equal" if f.agreement.equal else "NOT equal"
    return f"; outputs {verdict} to those here ({f.agreement.largest:.1e} {f.agreement.unit})"


def bench_json(device: str, threads: int, result: Bench) -> dict[str, Any]:
    """The file's figures, and under `compare` the other's with the ratio."""
    first, *rest = (_file_json(f) for f in result.files)
    shared = {"device": device, "threads": threads}
    if not rest or result.ratio is None:
        return {**shared, **first}
    ratio = {"ratio": result.ratio.median, "ratio_iqr": result.ratio.iqr}
    return {**shared, **first, "compare": {**rest[0], **ratio}}


def _file_json(f: FileBench) -> dict[str, Any]:
    agreement = f.agreement
    return {
        "file": str(f.file),
        "runtime": f.runtime,
        "median_ms": f.timing.median_ms,
        "iqr_ms": f.timing.iqr_ms,
        "runs": len(f.timing.times_ms),
        "peak_memory_bytes": f.peak_memory_bytes,
        "idle_memory_bytes": f.idle_memory_bytes,
        "outputs_equal": agreement.equal if agreement else None,
        "largest_difference": agreement.largest if agreement else None,
        "difference_unit": agreement.unit if agreement else None,
    }


def _us(value: float) -> str:
    if value < SHOWN_US:
        return f"< {SHOWN_US} µs"
    return f"{value / 1e3:.2f} ms" if value >= 1e3 else f"{value:.1f} µs"
