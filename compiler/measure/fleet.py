"""Model files timed on a fleet, its boards side by side."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shrinkc.compiler.devices.fleet.differences import Difference, differences
from shrinkc.compiler.devices.fleet.file import Board, Fleet
from shrinkc.compiler.devices.fleet.side_by_side import side_by_side
from shrinkc.compiler.devices.jobs import Setup
from shrinkc.compiler.measure.device import Bench, FileBench, Here, bench_files
from shrinkc.compiler.support.progress import Advance, Progress
from shrinkc.compiler.support.text import counted
from shrinkc.errors import ShrinkcError
from shrinkc.latency_tables.measured import Measurement


@dataclass(frozen=True, repr=False)
class BoardBench:
    """One board: what was timed, None where nothing could be, and what is wrong with it."""

    board: Board
    threads: int
    bench: Bench | None
    error: ShrinkcError | None

    def __repr__(self) -> str:
        return f"BoardBench({self.board.name}: {self.error or self.bench!r})"


@dataclass(frozen=True)
class FleetBench:
    """Every board of the file in its order, and which differ from others of their kind by more than
    their noise; a difference's `worst` is the file's name."""

    fleet: Fleet
    boards: tuple[BoardBench, ...]
    differences: tuple[Difference[str], ...]

    @property
    def errors(self) -> tuple[tuple[str, ShrinkcError], ...]:
        """(board, what is wrong)"""
        return tuple((one.board.name, one.error) for one in self.boards if one.error is not None)


class StoppedBenchError(KeyboardInterrupt):
    """Ctrl-C, with what was timed until then."""

    def __init__(self, done: FleetBench) -> None:
        super().__init__("interrupted; the boards that are shown were timed")
        self.done = done


def bench_fleet(
    fleet: Fleet, paths: Sequence[Path], otherwise: Setup, runs: int, progress: Progress
) -> FleetBench:
    """A board that fails is a row, and does not stop the others.

    Raises LoadError for what is no model file, StoppedBenchError on Ctrl-C.
    """
    here = Here()
    for path in paths:
        here.read(path)
    names = " and ".join(path.name for path in paths)
    text = f"Timing {names} on {counted(len(fleet.boards), 'board')}"
    with progress.task(text, len(fleet.boards)) as done:

        def timed(board: Board) -> BoardBench:
            return _timed(board, paths, board.setup(otherwise), runs, here, done)

        def stopped(rows: list[BoardBench]) -> None:
            raise StoppedBenchError(_compared(fleet, rows))

        rows = side_by_side(fleet.boards, timed, threading.Event(), stopped)
    return _compared(fleet, rows)


def _timed(
    board: Board, paths: Sequence[Path], setup: Setup, runs: int, here: Here, done: Advance
) -> BoardBench:
    bench = error = None
    try:
        bench = bench_files(board.device, paths, setup, runs, here)
        for file in bench.files:
            file.require_equal(board.device.name)
    except ShrinkcError as one:
        error = one
    done()
    return BoardBench(board, setup.threads, bench, error)


def _compared(fleet: Fleet, rows: Sequence[BoardBench]) -> FleetBench:
    kinds: dict[str, dict[str, dict[str, Measurement]]] = {}
    for row in rows:
        if row.bench is not None:
            kinds.setdefault(row.board.kind, {})[row.board.name] = _measurements(row.bench)
    found = (one for kind, boards in kinds.items() for one in differences(kind, boards))
    return FleetBench(fleet, tuple(rows), tuple(found))


def _measurements(bench: Bench) -> dict[str, Measurement]:
    """Of the files by the path given; a file beside itself is compared by its first place."""
    found: dict[str, Measurement] = {}
    for file in bench.files:
        found.setdefault(str(file.file), _measurement(file))
    return found


def _measurement(file: FileBench) -> Measurement:
    timing = file.timing
    return Measurement(timing.median_ms * 1e3, timing.iqr_ms * 1e3, len(timing.times_ms))
