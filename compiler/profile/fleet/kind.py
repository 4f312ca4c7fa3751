"""The one table of all boards of a kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from statistics import median
from typing import Any

from shrinkc.compiler.devices.fleet.file import Board
from shrinkc.compiler.devices.samples import iqr
from shrinkc.compiler.profile.measure import Outcome
from shrinkc.compiler.profile.run import (
    SAME,
    Job,
    described_by,
    note_of,
    precisions_of,
    require_same,
)
from shrinkc.compiler.profile.table_folder import save_table
from shrinkc.compiler.support.text import counted
from shrinkc.errors import DeviceError, InputError, ShrinkcError
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.measured import Measurement
from shrinkc.latency_tables.meta import TableMeta
from shrinkc.latency_tables.store import read_table
from shrinkc.latency_tables.table import LatencyTable

ALIKE = ("kind", "runtime", "runtime_version", "threads")  # in boards of one kind


@dataclass(frozen=True, eq=False, repr=False)
class BoardProfile:
    """What one board has measured so far, this call's `seconds`, and what ended it. `environment`
    is empty and `outcome` None where it could not be reached; `conditions` are those seen."""

    board: Board
    job: Job
    environment: Mapping[str, Any]
    outcome: Outcome | None
    conditions: Sequence[Mapping[str, Any]]
    seconds: float
    error: ShrinkcError | None
    stopped: bool = False  # by Ctrl-C, perhaps after the first pass

    @property
    def finished(self) -> bool:
        """Whether no call needs to go on."""
        if self.error is not None or self.stopped:
            return False
        return self.outcome is not None and not self.outcome.missing

    @cached_property
    def meta(self) -> TableMeta:
        """Of the table that it would make alone."""
        return described_by(self.job, self.environment, (), "")

    def __repr__(self) -> str:
        count = len(self.outcome.measured) if self.outcome else 0
        return f"BoardProfile({self.board.name}: {self.error or counted(count, 'operator')})"


@dataclass(frozen=True, eq=False, repr=False)
class KindTable:
    """The table of a kind as it is written, None where none could be; of which boards it is, and
    what is wrong with it or with others."""

    kind: str
    target: str
    folder: Path
    boards: tuple[str, ...]
    table: LatencyTable | None
    error: ShrinkcError | None = None

    def __repr__(self) -> str:
        return f"KindTable({self.kind}: {self.table or self.error!r})"


def require_fits(job: Job, environment: Mapping[str, Any]) -> None:
    """Before a board measures for minutes: raises InputError where the target's table is of another
    runtime. Its device may have the name of another board of the kind."""
    if job.folder.joinpath("meta.toml").is_file():
        there = read_table(job.folder, job.target).meta
        require_same(job.folder, there, described_by(job, environment, (), ""), ALIKE)


def kind_table(kind: str, rows: Sequence[BoardProfile]) -> KindTable:
    """Write the kind's table: of every operator the median over the boards. Once every board is
    finished, their journals go.

    A board with another runtime or version than most is left out, which is told.
    """
    job = rows[0].job
    measured = [row for row in rows if row.outcome is not None and row.outcome.measured]
    alike = _most_alike(measured)
    made = partial(KindTable, kind, job.target, job.folder, tuple(row.board.name for row in alike))
    if not alike:
        return made(
            None, DeviceError(f"{job.target}: nothing was measured on a board of that kind")
        )
    try:
        table = _table(job, alike)
        save_table(table, job.folder)
    except ShrinkcError as error:
        return made(None, error)
    if len(alike) < len(measured):
        return made(table, _left_out(kind, [row for row in measured if row not in alike], alike))
    if all(row.finished for row in rows):
        for row in rows:
            row.job.journal.unlink(missing_ok=True)
    return made(table)


def _most_alike(rows: Sequence[BoardProfile]) -> list[BoardProfile]:
    """Those with the runtime and version that most have; of as many, the first in the file."""
    seen = Counter(_runtime(row) for row in rows)
    most = max(seen, key=lambda one: seen[one], default=None)
    return [row for row in rows if _runtime(row) == most]


def _runtime(row: BoardProfile) -> str:
    return f"{row.meta.runtime} {row.meta.runtime_version}"


def _left_out(
    kind: str, others: Sequence[BoardProfile], alike: Sequence[BoardProfile]
) -> InputError:
    one, rest = others[0], len(others) - 1
    more = f" and {counted(rest, 'other')}" if rest else ""
    return InputError(
        f"{one.board.name}{more} of kind {kind} left out of the table: {_runtime(one)} there, "
        f"{_runtime(alike[0])} on {alike[0].board.name}",
        "install the same, or give it a kind and target of its own",
    )


def _table(job: Job, rows: Sequence[BoardProfile]) -> LatencyTable:
    """Of these boards, and what the target's table has besides. Raises InputError where that is of
    another device than all of them."""
    devices = Counter(row.meta.device for row in rows)
    usual = next(row.meta for row in rows if row.meta.device == devices.most_common(1)[0][0])
    earlier: dict[OpKey, Measurement] = {}
    if job.folder.joinpath("meta.toml").is_file():
        there = read_table(job.folder, job.target)
        require_same(job.folder, there.meta, usual, ALIKE if there.meta.device in devices else SAME)
        usual, earlier = replace(usual, device=there.meta.device), dict(there.measured)
    wanted, seen = set(job.plan.keys), dict[OpKey, list[Measurement]]()
    outcomes = [row.outcome for row in rows if row.outcome is not None]
    for outcome in outcomes:
        for key in outcome.measured.keys() & wanted:
            seen.setdefault(key, []).append(outcome.measured[key])
    measured = earlier | {key: _over_boards(seen[key]) for key in job.plan.keys if key in seen}
    count = counted(len(rows), "board")
    conditions = [one for row in rows for one in row.conditions]
    meta = replace(
        usual,
        precisions=precisions_of(measured),
        source=f"shrinkc profile --fleet, {count}",
        note=f"median of {count}; {note_of(conditions, outcomes)}".removesuffix("; "),
    )
    return LatencyTable(job.target, meta, measured)


def _over_boards(ones: Sequence[Measurement]) -> Measurement:
    """A board's runs vary, and boards do: the larger of the two is the spread."""
    medians = [one.median_us for one in ones]
    spread = max(median(one.iqr_us or 0.0 for one in ones), iqr(medians))
    return Measurement(median(medians), spread, sum(one.runs or 0 for one in ones))
