"""A profile from the command line: which operators, on which devices, into which tables."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYetError
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shrinkc.compiler.devices.jobs import Device, Session, Setup
from shrinkc.compiler.profile.journal import READ_CONDITIONS, Journal, open_journal
from shrinkc.compiler.profile.measure import REFERENCE_NOTE, Outcome, Plan, profile, reference_us
from shrinkc.compiler.profile.table_folder import alone_at, save_table
from shrinkc.compiler.support.progress import Progress
from shrinkc.errors import DeviceError, DeviceLostError, InputError, ShrinkcError
from shrinkc.latency_tables.key import PRECISIONS, OpKey
from shrinkc.latency_tables.meta import TableMeta
from shrinkc.latency_tables.store import read_table, user_tables
from shrinkc.latency_tables.table import NETWORK, LatencyTable
from shrinkc.latency_tables.target import Target

OWN = "measured on the user's own device; no licence stated"


@dataclass(frozen=True)
class Job:
    """One device and the table that it fills."""

    target: str
    device: Device
    plan: Plan

    @property
    def folder(self) -> Path:
        return user_tables().joinpath(*Target.parse(self.target).folders)

    @property
    def journal(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.profile.jsonl")


@dataclass(frozen=True, repr=False)
class Result:
    """What a job did. `table` is as written; `seconds` are those of this run."""

    job: Job
    table: LatencyTable
    outcome: Outcome
    seconds: float

    def __repr__(self) -> str:
        return f"Result({self.table!r} in {self.seconds:.0f} s)"


def jobs(
    targets: Sequence[str],
    devices: Sequence[Device],
    keys: Sequence[OpKey],
    setup: Setup,
    budget_s: float,
) -> list[Job]:
    """One target a device, in order; or one target, numbered where there are several devices.

    `setup.runtime` may be empty: each device's default. Raises InputError for what a device does
    not have, TableError for what is no target's name.
    """
    if len(targets) == 1 and len(devices) > 1:
        targets = [f"{targets[0]}-{i + 1}" for i in range(len(devices))]
    if len(targets) != len(devices):
        raise InputError(
            f"{len(targets)} `target` for {len(devices)} `on`: give one of each, or one `target`"
        )
    found: list[Job] = []
    for target, device in zip(targets, devices, strict=True):
        runtime = setup.runtime or next(iter(device.runtimes))
        _require(device, runtime, keys)
        network = (OpKey(NETWORK, 1, 1, precision=p) for p in _precisions(keys))
        plan = Plan((*network, *keys), replace(setup, runtime=runtime), budget_s)
        found.append(Job(str(Target.parse(target)), device, plan))
    if len({job.target for job in found}) < len(found):
        raise InputError("two `target` of the same name; each device needs a table of its own")
    return found


def _require(device: Device, runtime: str, keys: Iterable[OpKey]) -> None:
    if runtime not in device.runtimes:
        known = ", ".join(device.runtimes)
        raise InputError(f"`runtime` {runtime}: {device.name} has {known}")
    for precision in _precisions(keys):
        if precision not in device.runtimes[runtime]:
            known = ", ".join(device.runtimes[runtime])
            raise InputError(f"`precision` {precision}: {runtime} on {device.name} has {known}")


def _precisions(keys: Iterable[OpKey]) -> tuple[str, ...]:
    used = {key.precision for key in keys}
    return tuple(p for p in PRECISIONS if p in used)


def run(all_jobs: Sequence[Job], progress: Progress) -> list[Result | ShrinkcError]:
    """Every device side by side; one that fails does not stop the others. What was measured is
    kept whatever happens, Ctrl-C (KeyboardInterrupt) included."""
    stop = threading.Event()
    with ThreadPoolExecutor(len(all_jobs), "device") as pool:
        futures = [pool.submit(_guarded, job, progress, stop) for job in all_jobs]
        try:
            return [_patient(future) for future in futures]
        except BaseException:
            stop.set()  # the threads end after the handful of operators that they are at
            raise


def _patient(future: Future[Result | ShrinkcError]) -> Result | ShrinkcError:
    """The result; Ctrl-C gets through meanwhile, on Windows too."""
    while True:
        try:
            return future.result(timeout=1)
        except NotYetError:
            continue


def _guarded(job: Job, progress: Progress, stop: threading.Event) -> Result | ShrinkcError:
    try:
        return _run(job, progress, stop)
    except DeviceLostError as lost:
        text = f"{lost}; what was measured is kept, and the same command goes on"
        return DeviceLostError(text, lost.model, lost.crashed)
    except ShrinkcError as error:
        return error


def _run(job: Job, progress: Progress, stop: threading.Event) -> Result:
    started, plan = time.monotonic(), job.plan
    with alone_at(job.folder), job.device.open(plan.setup) as session:
        earlier = _earlier(job, session.environment)
        header = _header(job, session.environment)
        with open_journal(job.journal, header) as journal:
            if not journal.conditions:
                journal.add((), session.environment)
            total = len(plan.keys) * plan.passes
            with progress.task(f"{job.target}: {len(plan.keys)} operators", total) as done:
                outcome = profile(session, plan, journal, done, stop)
            table = _table(job, session, outcome, journal, earlier)
        save_table(table, job.folder)
        if not outcome.missing and not stop.is_set():
            job.journal.unlink(missing_ok=True)
    return Result(job, table, outcome, time.monotonic() - started)


def _header(job: Job, environment: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same for a run to go on from an earlier one."""
    names = ("device", "cpu", "runtime", "runtime_version")
    return {
        "on": job.device.name,
        **{name: environment[name] for name in names if name in environment},
        "threads": job.plan.setup.threads,
    }


def _earlier(job: Job, environment: Mapping[str, Any]) -> LatencyTable | None:
    """The target's table so far, which this one adds to. Raises InputError for one of another
    device, runtime or number of threads."""
    if not job.folder.joinpath("meta.toml").is_file():
        return None
    table = read_table(job.folder, job.target)
    new = _meta(job, environment, (), "")
    for name in ("kind", "device", "runtime", "runtime_version", "threads"):
        if getattr(table.meta, name) != getattr(new, name):
            raise InputError(
                f"{job.folder}: has a table with {name} {getattr(table.meta, name)}, and this is "
                f"{getattr(new, name)}",
                "choose another `target`, or remove that folder",
            )
    return table


def _table(
    job: Job,
    session: Session,
    outcome: Outcome,
    journal: Journal,
    earlier: LatencyTable | None,
) -> LatencyTable:
    measured = dict(earlier.measured) if earlier else {}
    measured.update({key: m for key, m in outcome.measured.items() if key in set(job.plan.keys)})
    if not measured:
        reason = next(iter(outcome.failed.values()), "the time was up")
        raise DeviceError(f"{job.target}: nothing was measured: {reason}")
    note = _note(journal, outcome.throttled)
    meta = _meta(job, session.environment, _precisions(measured), note)
    return LatencyTable(job.target, meta, measured)


def _meta(
    job: Job, environment: Mapping[str, Any], precisions: tuple[str, ...], note: str
) -> TableMeta:
    cpu, system = environment["cpu"], environment.get("system", "unknown")
    return TableMeta(
        kind="measured",
        device=environment.get("device") or cpu,
        soc=f"{cpu} ({environment.get('machine', 'unknown')})",
        runtime=environment["runtime"],
        runtime_version=environment["runtime_version"],
        threads=job.plan.setup.threads,
        governor=environment.get("governor") or "unknown",
        precisions=precisions,
        batch=1,
        date=datetime.now(UTC).date().isoformat(),
        source=f"shrinkc profile --on {job.device.name.partition(':')[0]} ({system})",
        licence=OWN,
        note=note,
        cliffs="gpu" if job.plan.setup.runtime in ("pytorch", "tensorrt") else "cpu",
    )


def _note(journal: Journal, throttled: str) -> str:
    """Conditions over the whole run, those that the system shows."""
    parts: list[str] = []
    for name, unit in READ_CONDITIONS.items():
        seen = [c[name] for c in journal.conditions if c.get(name) is not None]
        if seen:
            parts.append(f"{min(seen):.0f}–{max(seen):.0f} {unit}")
    speed = reference_us(journal)
    parts += [f"{REFERENCE_NOTE} {speed:.1f} µs"] if speed else []
    parts += [throttled] if throttled else []
    return "; ".join(parts)


def reasons(failed: Mapping[OpKey, str]) -> list[tuple[str, int]]:
    """Reasons and how many operators each kept out, the most frequent first."""
    return Counter(failed.values()).most_common()
