"""A profile from the command line: which operators, on which devices, into which tables."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from shrinkc.compiler.devices.fleet.side_by_side import side_by_side
from shrinkc.compiler.devices.jobs import Device, Setup
from shrinkc.compiler.profile.journal import READ_CONDITIONS, Journal, open_journal
from shrinkc.compiler.profile.measure import REFERENCE_NOTE, Outcome, Plan, profile
from shrinkc.compiler.profile.op_files import OpFiles
from shrinkc.compiler.profile.table_folder import alone_at, save_table
from shrinkc.compiler.support.progress import Progress
from shrinkc.errors import DeviceError, DeviceLostError, InputError, ShrinkcError
from shrinkc.latency_tables.key import PRECISIONS, OpKey
from shrinkc.latency_tables.meta import TableMeta
from shrinkc.latency_tables.store import read_table, user_tables
from shrinkc.latency_tables.table import NETWORK, LatencyTable
from shrinkc.latency_tables.target import Target

OWN = "measured on the user's own device; no licence stated"
SHARED_BYTES = 256 << 20  # of operators' files, where several devices want the same ones


@dataclass(frozen=True)
class Job:
    """One device and the table that it fills; `board` is its name where several fill one."""

    target: str
    device: Device
    plan: Plan
    board: str = ""

    @property
    def folder(self) -> Path:
        return user_tables().joinpath(*Target.parse(self.target).folders)

    @property
    def journal(self) -> Path:
        whose = f"@{self.board}" if self.board else ""  # which no target's name can hold
        return self.folder.with_name(f"{self.folder.name}{whose}.profile.jsonl")


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
    files, turn = OpFiles(SHARED_BYTES if len(devices) > 1 else 0), threading.Lock()
    found: list[Job] = []
    for target, device in zip(targets, devices, strict=True):
        plan = plan_for(device, keys, setup, budget_s)
        plan = replace(plan, files=files, turn=turn)
        found.append(Job(str(Target.parse(target)), device, plan))
    if len({job.target for job in found}) < len(found):
        raise InputError("two `target` of the same name; each device needs a table of its own")
    return found


def plan_for(device: Device, keys: Sequence[OpKey], setup: Setup, budget_s: float) -> Plan:
    """Raises InputError for a runtime or precision that the device does not have."""
    runtime = setup.runtime or next(iter(device.runtimes))
    _require(device, runtime, keys)
    network = (OpKey(NETWORK, 1, 1, precision=p) for p in precisions_of(keys))
    return Plan((*network, *keys), replace(setup, runtime=runtime), budget_s)


def _require(device: Device, runtime: str, keys: Iterable[OpKey]) -> None:
    if runtime not in device.runtimes:
        known = ", ".join(device.runtimes)
        raise InputError(f"`runtime` {runtime}: {device.name} has {known}")
    for precision in precisions_of(keys):
        if precision not in device.runtimes[runtime]:
            known = ", ".join(device.runtimes[runtime])
            raise InputError(f"`precision` {precision}: {runtime} on {device.name} has {known}")


def precisions_of(keys: Iterable[OpKey]) -> tuple[str, ...]:
    used = {key.precision for key in keys}
    return tuple(p for p in PRECISIONS if p in used)


def run(all_jobs: Sequence[Job], progress: Progress) -> list[Result | ShrinkcError]:
    """Every device side by side; one that fails does not stop the others. What was measured is
    kept whatever happens, Ctrl-C (KeyboardInterrupt) included: each device ends after the handful
    of operators that it is at."""
    stop = threading.Event()
    return side_by_side(all_jobs, lambda job: _guarded(job, progress, stop), stop)


def _guarded(job: Job, progress: Progress, stop: threading.Event) -> Result | ShrinkcError:
    try:
        return _run(job, progress, stop)
    except DeviceLostError as lost:
        return kept(lost)
    except ShrinkcError as error:
        return error


def kept(lost: DeviceLostError) -> DeviceLostError:
    text = f"{lost}; what was measured is kept, and the same command goes on"
    return DeviceLostError(text, lost.model, lost.crashed)


def _run(job: Job, progress: Progress, stop: threading.Event) -> Result:
    started, plan = time.monotonic(), job.plan
    with alone_at(job.folder), job.device.open(plan.setup) as session:
        earlier = _earlier(job, session.environment)
        with job_journal(job, session.environment) as journal:
            total = len(plan.keys) * plan.passes
            with progress.task(f"{job.target}: {len(plan.keys)} operators", total) as done:
                outcome = profile(session, plan, journal, done, stop)
            table = _table(job, session.environment, outcome, journal, earlier)
        save_table(table, job.folder)
        if not outcome.missing and not stop.is_set():
            job.journal.unlink(missing_ok=True)
    return Result(job, table, outcome, time.monotonic() - started)


@contextmanager
def job_journal(job: Job, environment: Mapping[str, Any]) -> Generator[Journal]:
    """What this device has measured. Raises InputError where that was another device, runtime or
    number of threads."""
    names = ("device", "cpu", "runtime", "runtime_version")
    header = {
        "on": job.device.name,
        **{name: environment[name] for name in names if name in environment},
        "threads": job.plan.setup.threads,
    }
    with open_journal(job.journal, header) as journal:
        if not journal.conditions:
            journal.add((), environment)
        yield journal


def _earlier(job: Job, environment: Mapping[str, Any]) -> LatencyTable | None:
    """The target's table so far, which this one adds to. Raises InputError for one of another
    device, runtime or number of threads."""
    if not job.folder.joinpath("meta.toml").is_file():
        return None
    table = read_table(job.folder, job.target)
    require_same(job.folder, table.meta, described_by(job, environment, (), ""))
    return table


SAME = ("kind", "device", "runtime", "runtime_version", "threads")  # in all that a table holds


def require_same(
    folder: Path, there: TableMeta, new: TableMeta, names: Sequence[str] = SAME
) -> None:
    """Raises InputError where the table in a folder is of something else."""
    for name in names:
        if getattr(there, name) != getattr(new, name):
            raise InputError(
                f"{folder}: has a table with {name} {getattr(there, name)}, and this is "
                f"{getattr(new, name)}",
                "choose another target, or remove that folder",
            )


def _table(
    job: Job,
    environment: Mapping[str, Any],
    outcome: Outcome,
    journal: Journal,
    earlier: LatencyTable | None,
) -> LatencyTable:
    measured = dict(earlier.measured) if earlier else {}
    wanted = set(job.plan.keys)
    measured.update({key: m for key, m in outcome.measured.items() if key in wanted})
    if not measured:
        reason = next(iter(outcome.failed.values()), "the time was up")
        raise DeviceError(f"{job.target}: nothing was measured: {reason}")
    note = note_of(journal.conditions, [outcome])
    meta = described_by(job, environment, precisions_of(measured), note)
    return LatencyTable(job.target, meta, measured)


def described_by(
    job: Job, environment: Mapping[str, Any], precisions: tuple[str, ...], note: str
) -> TableMeta:
    """A table of what this device measures."""
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


def note_of(conditions: Sequence[Mapping[str, Any]], outcomes: Sequence[Outcome]) -> str:
    """Conditions over the whole run, those that the system shows."""
    parts: list[str] = []
    for name, unit in READ_CONDITIONS.items():
        values = [one[name] for one in conditions if one.get(name) is not None]
        parts += [f"{min(values):.0f}–{max(values):.0f} {unit}"] if values else []
    speeds = [one.reference_us for one in outcomes if one.reference_us]
    parts += [f"{REFERENCE_NOTE} {median(speeds):.1f} µs"] if speeds else []
    return "; ".join([*parts, *(one.throttled for one in outcomes if one.throttled)])


def reasons(failed: Mapping[OpKey, str]) -> list[tuple[str, int]]:
    """Reasons and how many operators each kept out, the most frequent first."""
    return Counter(failed.values()).most_common()
