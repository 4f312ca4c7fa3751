"""`shrinkc.calibrate`: a latency table corrected by whole networks on the user's own device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from shrinkc.compiler.devices.jobs import Setup
from shrinkc.compiler.devices.parse import parse_device
from shrinkc.compiler.profile.calibrate import PASSES, calibrate_table
from shrinkc.compiler.profile.reference_networks import REFERENCE_NETWORKS
from shrinkc.compiler.profile.table_folder import alone_at, save_table
from shrinkc.compiler.support.checks import check_number, check_whole
from shrinkc.compiler.support.progress import Progress, shown_by
from shrinkc.errors import InputError
from shrinkc.latency_tables.store import load_table, user_tables
from shrinkc.latency_tables.table import LatencyTable
from shrinkc.latency_tables.target import Target


@dataclass(frozen=True, repr=False)
class Calibration:
    """A corrected table, and where it was written: `target` means it from now on.

    networks              that were timed, in the precision that has the fewest
    error_before_percent  precision → mean absolute error of the table as it was
    error_after_percent   of the corrected one, each network held out in turn
    disagreeing           precision → networks further from what the others say of them than the
                          table's interval, which are left out of the correction
    missing               precision → networks that the time did not suffice for
    throttled             how the device got hot meanwhile; empty where it did not
    """

    target: str
    folder: Path
    networks: int
    error_before_percent: dict[str, float]
    error_after_percent: dict[str, float]
    disagreeing: dict[str, tuple[str, ...]]
    missing: dict[str, tuple[str, ...]]
    throttled: str

    def __repr__(self) -> str:
        errors = ", ".join(
            f"{precision} {before:.1f}% → {self.error_after_percent[precision]:.1f}%"
            for precision, before in self.error_before_percent.items()
        )
        return f"Calibration({self.target}: {errors})"


def calibrate(
    target: str,
    *,
    on: str,
    runtime: str | None = None,
    threads: int | None = None,
    precision: str | None = None,
    budget_minutes: float = 1.0,
    benchmark_model: str | None = None,
    name: str | None = None,
    progress: Progress | bool = False,
) -> Calibration:
    """Correct `target`'s table by a dozen networks timed on a device, and keep it as one's own.

    Args:
        target: the table to correct.
        on: "host", "ssh://user@host[:port]", "adb:SERIAL", or "cuda".
        runtime: "tflite" or "onnxruntime"; None: the device's first.
        threads: of the runtime; None: as the table was measured.
        precision: None: all that table and device have.
        budget_minutes: for all of it; a device too slow for a dozen networks is corrected by the
            quickest, six at least.
        benchmark_model: TFLite's benchmark_model, for adb.
        name: target to save it as; None: `target`, which it then means.
        progress: True shows a bar on stderr.

    Raises:
        TableError: an unknown target.
        InputError: a runtime or precision that device or table lack.
        DeviceError: the device cannot be reached, or cannot run a network.
    """
    if threads is not None:
        check_whole("threads", threads, 1)
    check_number("budget_minutes", budget_minutes)
    table = load_table(target)
    device = parse_device(on, benchmark_model)
    chosen = runtime or next(iter(device.runtimes))
    if chosen not in device.runtimes:
        raise InputError(f"`runtime` {chosen}: {on} has {', '.join(device.runtimes)}")
    precisions = _precisions(table, device.runtimes[chosen], precision)
    saved = Target.parse(name or table.target)
    setup = Setup(chosen, threads or table.meta.threads)
    total = len(REFERENCE_NETWORKS) * len(precisions) * PASSES
    folder = user_tables().joinpath(*saved.folders)
    timing = shown_by(progress).task(f"Timing networks on {on}", total)
    with alone_at(folder), timing as done:
        found = calibrate_table(table, device, setup, precisions, done, budget_minutes * 60)
        save_table(replace(found.table, target=str(saved)), folder)
    return Calibration(
        str(saved),
        folder,
        len(REFERENCE_NETWORKS) - max(map(len, found.missing.values())),
        found.before_percent,
        found.after_percent,
        found.disagreeing,
        found.missing,
        found.throttled,
    )


def _precisions(
    table: LatencyTable, of_device: tuple[str, ...], wanted: str | None
) -> tuple[str, ...]:
    both = tuple(p for p in table.precisions if p in of_device and wanted in (None, p))
    if not both:
        raise InputError(
            f"`precision` {wanted}: the table has {', '.join(table.precisions)}, "
            f"the device {', '.join(of_device)}"
        )
    return both
