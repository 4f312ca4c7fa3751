"""A fleet's profile: every board measures all operators, side by side with the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from shrinkc.compiler.devices.fleet.differences import Difference, differences
from shrinkc.compiler.devices.fleet.file import Board, Fleet
from shrinkc.compiler.devices.fleet.side_by_side import side_by_side
from shrinkc.compiler.devices.jobs import Setup
from shrinkc.compiler.profile.fleet.kind import BoardProfile, KindTable, kind_table, require_fits
from shrinkc.compiler.profile.measure import outcome, profile
from shrinkc.compiler.profile.op_files import OpFiles
from shrinkc.compiler.profile.run import SHARED_BYTES, Job, job_journal, kept, plan_for
from shrinkc.compiler.profile.table_folder import alone_at
from shrinkc.compiler.support.progress import Advance, Progress
from shrinkc.compiler.support.text import counted
from shrinkc.errors import DeviceLostError, InputError, ShrinkcError
from shrinkc.latency_tables.key import OpKey

SHOWN = 3  # names of lost boards beside the bar


@dataclass(frozen=True)
class FleetProfile:
    """Every board of the file in its order, the table of every kind, and which boards differ from
    others of their kind by more than their noise."""

    fleet: Fleet
    boards: tuple[BoardProfile, ...]
    tables: tuple[KindTable, ...]
    differences: tuple[Difference[OpKey], ...]

    @property
    def errors(self) -> tuple[tuple[str, ShrinkcError], ...]:
        """(board or kind, what ended it)"""
        boards = ((one.board.name, one.error) for one in self.boards)
        tables = ((f"kind {one.kind}", one.error) for one in self.tables)
        return tuple((name, error) for name, error in (*boards, *tables) if error is not None)


def profile_fleet(
    fleet: Fleet, keys: Sequence[OpKey], otherwise: Setup, budget_s: float, progress: Progress
) -> FleetProfile:
    """A board that fails is a row, and does not stop the others; what it measured is kept and
    counts. So it is after Ctrl-C (KeyboardInterrupt), when tables are written of what is there.

    Raises InputError before anything is measured.
    """
    jobs = _jobs(fleet, keys, otherwise, budget_s)
    folders = {job.target: job.folder for job in jobs}
    stop, found = threading.Event(), dict[str, BoardProfile]()
    with ExitStack() as alone:
        for folder in folders.values():
            alone.enter_context(alone_at(folder))
        tables: list[KindTable] = []
        text = f"{counted(len(jobs), 'board')}: {counted(len(jobs[0].plan.keys), 'operator')} each"
        try:
            total = sum(len(job.plan.keys) * job.plan.passes for job in jobs)
            with progress.task(text, total) as done:
                work = _Boards(done, stop, found).measure
                side_by_side(list(zip(fleet.boards, jobs, strict=True)), work, stop)
        finally:
            rows = tuple(found[board.name] for board in fleet.boards if board.name in found)
            tables += [kind_table(kind, _of(kind, rows)) for kind in _kinds(rows)]
    differing = (one for kind in _kinds(rows) for one in _differing(kind, _of(kind, rows)))
    return FleetProfile(fleet, rows, tuple(tables), tuple(differing))


def _jobs(fleet: Fleet, keys: Sequence[OpKey], otherwise: Setup, budget_s: float) -> list[Job]:
    files, turn, found = OpFiles(SHARED_BYTES), threading.Lock(), list[Job]()
    for board in fleet.boards:
        where = f"{fleet.path}: {board.name}"
        if not board.target:
            raise InputError(
                f"{where}: no target, which names the table that profile makes of kind {board.kind}"
            )
        try:
            plan = plan_for(board.device, keys, board.setup(otherwise), budget_s)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        plan = replace(plan, files=files, turn=turn)
        found.append(Job(board.target, board.device, plan, board.name))
    return found


@dataclass
class _Boards:
    """What the boards' threads share: one bar for all, and where each leaves what it has found."""

    done: Advance
    stop: threading.Event
    found: dict[str, BoardProfile]
    note: str = ""

    def measure(self, work: tuple[Board, Job]) -> None:
        board, job = work
        left = iter(range(len(job.plan.keys) * job.plan.passes))

        def done() -> None:
            next(left, None)
            self.done(self.note)

        row = _measured(board, job, done, self.stop)
        self.found[board.name] = row
        lost = [name for name, one in self.found.copy().items() if one.error is not None]
        if lost:
            self.note = (
                f"({len(lost)} lost: {', '.join(lost[:SHOWN])}{', …' * (len(lost) > SHOWN)})"
            )
        for _ in left:  # of a board that is lost, so that the time left is that of the others
            self.done(self.note)


def _measured(
    board: Board, job: Job, done: Callable[[], None], stop: threading.Event
) -> BoardProfile:
    started = time.monotonic()
    environment: Mapping[str, Any] = {}
    found, failed, seen = None, None, list[Mapping[str, Any]]()
    try:
        with job.device.open(job.plan.setup) as session:
            environment = session.environment
            require_fits(job, environment)
            with job_journal(job, environment) as journal:
                try:
                    found = profile(session, job.plan, journal, done, stop)
                except ShrinkcError as error:
                    found, failed = outcome(job.plan, journal), error
                seen = journal.conditions
    except ShrinkcError as error:
        failed = failed or error
    if isinstance(failed, DeviceLostError):
        failed = kept(failed)
    seconds = time.monotonic() - started
    return BoardProfile(board, job, environment, found, seen, seconds, failed, stop.is_set())


def _kinds(rows: Sequence[BoardProfile]) -> list[str]:
    return list(dict.fromkeys(row.board.kind for row in rows))


def _of(kind: str, rows: Sequence[BoardProfile]) -> list[BoardProfile]:
    return [row for row in rows if row.board.kind == kind]


def _differing(kind: str, rows: Sequence[BoardProfile]) -> tuple[Difference[OpKey], ...]:
    found = {row.board.name: row.outcome.measured for row in rows if row.outcome is not None}
    return differences(kind, found)
