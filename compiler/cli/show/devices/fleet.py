"""Of a fleet: what `shrinkc profile` and `shrinkc bench` show, and what they end with."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shrinkc.compiler.cli.output import current, narrow_console, warn
from shrinkc.compiler.cli.show.devices import one
from shrinkc.compiler.devices.fleet.differences import Difference
from shrinkc.compiler.devices.samples import RESOLUTION_US
from shrinkc.compiler.measure.fleet import BoardBench, FleetBench
from shrinkc.compiler.profile.fleet.kind import BoardProfile, KindTable
from shrinkc.compiler.profile.fleet.run import FleetProfile
from shrinkc.compiler.profile.measure import described
from shrinkc.compiler.profile.run import reasons
from shrinkc.compiler.support.text import counted
from shrinkc.errors import DeviceError, DeviceLostError, InputError, ShrinkcError, VerificationError
from shrinkc.latency_tables.key import OpKey

K = TypeVar("K")
SHOWN = 3  # names in one line
NONE = "–"


def profile(found: FleetProfile) -> None:
    """A line a board, what is wrong with some, who differs, and where the tables are."""
    console = narrow_console()
    figures = ("measured", "left", "IQR, median", "against its kind")
    table = _table(("board", "kind", "state"), figures)
    ratios = _ratios(found.differences)
    for row in found.boards:
        cells = _progress_cells(row)
        table.add_row(*_names(row), _state(row), *cells, ratios.get(row.board.name, NONE))
    console.print(table)
    _errors(console, found.errors)
    for difference in found.differences:
        _line(console, difference_line(difference, described(difference.worst)))
    for made in found.tables:
        _line(console, _table_line(made))
        for reason, count in reasons(_failed(found, made))[: one.SHOWN]:
            _line(console, f"{made.target}: not measured: {count} × {reason}")
    if any(row.outcome is not None and row.outcome.missing for row in found.boards):
        _line(console, "run the same command again to go on with what is left")
    _warnings(found)


def _table(names: Sequence[str], figures: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for header in names:
        table.add_column(header, overflow="fold")
    for header in figures:
        table.add_column(header, justify="right", no_wrap=True)
    return table


def _names(row: BoardProfile | BoardBench) -> tuple[str, str]:
    return escape(row.board.name), escape(row.board.kind)


def _state(row: BoardProfile) -> str:
    if row.error is not None:
        return "lost" if isinstance(row.error, DeviceLostError) else "failed"
    return "done" if row.finished else "time up"


def _progress_cells(row: BoardProfile) -> tuple[str, str, str]:
    if row.outcome is None:
        return NONE, NONE, NONE
    wanted = set(row.job.plan.keys)
    measured = [m for key, m in row.outcome.measured.items() if key in wanted]
    spreads = [(m.iqr_us or 0.0) / max(m.median_us, RESOLUTION_US) for m in measured]
    spread = f"{median(spreads):.1%}" if spreads else NONE
    return str(len(measured)), str(len(row.outcome.missing)), spread


def _ratios(differences: Sequence[Difference[K]]) -> dict[str, str]:
    return {difference.board: f"{difference.ratio:.2f}×" for difference in differences}


def _errors(console: Console, errors: Sequence[tuple[str, ShrinkcError]]) -> None:
    for name, error in errors:
        text = f"{name}: {' '.join(current().flagged(str(error)).split())}"
        if current().quiet:  # which leaves out reports, not errors
            current().complain(text)
        else:
            _line(console, text)


def _line(console: Console, text: str) -> None:
    console.print(escape(text))


def difference_line(difference: Difference[K], worst: str) -> str:
    """ "lab-3 takes 1.50 times as long as …" """
    of = f"the median board of kind {difference.kind}"
    text = f"{difference.board} takes {difference.ratio:.2f} times as long as "
    text += (
        f"{difference.against}, the other of kind {difference.kind}" if difference.against else of
    )
    if difference.compared == 1:
        return f"{text}, which is more than their noise"
    return (
        f"{text}: {difference.beyond} of {difference.compared} differ by more than their noise, "
        f"most {worst}: {difference.worst_ratio:.2f} times"
    )


def _failed(found: FleetProfile, made: KindTable) -> Mapping[OpKey, str]:
    """Of the kind's boards, on any: what cannot be measured, and why."""
    of_kind = [row for row in found.boards if row.board.kind == made.kind]
    return ChainMap(*(dict(row.outcome.failed) for row in of_kind if row.outcome is not None))


def _table_line(made: KindTable) -> str:
    if made.table is None:
        return f"{made.target}: no table was written"
    operators = counted(len(made.table.measured), "operator")
    boards = counted(len(made.boards), "board")
    return f"{made.target}: {operators}, median of {boards} of kind {made.kind}; {made.folder}"


def _warnings(found: FleetProfile) -> None:
    for made in found.tables:
        if made.table is not None:
            one.warn_hidden(made.target, made.folder)
    hot = [row for row in found.boards if row.outcome is not None and row.outcome.throttled]
    for row in hot[:SHOWN]:
        assert row.outcome is not None
        warn(f"{row.board.name} was {row.outcome.throttled}; a fan or a heat sink makes it even")
    if len(hot) > SHOWN:
        warn(f"{counted(len(hot) - SHOWN, 'other board')} were throttled, too; --json names them")


def profile_json(found: FleetProfile) -> dict[str, Any]:
    _warnings(found)
    return {
        "fleet": str(found.fleet.path),
        "boards": [_profiled_json(row) for row in found.boards],
        "tables": [_table_json(made) for made in found.tables],
        "differences": [_difference_json(d, _worst_operator(d)) for d in found.differences],
    }


def _worst_operator(difference: Difference[OpKey]) -> str:
    return described(difference.worst)


def _profiled_json(row: BoardProfile) -> dict[str, Any]:
    outcome, device = row.outcome, row.environment
    return {
        **_board_json(row),
        "target": row.job.target,
        "device": device.get("device") or device.get("cpu"),
        "runtime": device.get("runtime"),
        "runtime_version": device.get("runtime_version"),
        "threads": row.job.plan.setup.threads,
        "operators": len(outcome.measured) if outcome else 0,
        "not_measured": [
            {"reason": reason, "operators": count}
            for reason, count in reasons(outcome.failed if outcome else {})
        ],
        "missing": len(outcome.missing) if outcome else len(row.job.plan.keys),
        "noisy": [described(key) for key in outcome.noisy] if outcome else [],
        "throttled": outcome.throttled or None if outcome else None,
        "seconds": round(row.seconds, 1),
    }


def _board_json(row: BoardProfile | BoardBench) -> dict[str, Any]:
    board = {"board": row.board.name, "kind": row.board.kind, "on": row.board.device.name}
    return {**board, "error": _error_json(row.error)}


def _error_json(error: ShrinkcError | None) -> dict[str, str] | None:
    return None if error is None else {"kind": error.kind, "message": " ".join(str(error).split())}


def _table_json(made: KindTable) -> dict[str, Any]:
    return {
        "target": made.target,
        "kind": made.kind,
        "table": str(made.folder) if made.table is not None else None,
        "boards": list(made.boards),
        "operators": len(made.table.measured) if made.table is not None else 0,
        "note": made.table.meta.note if made.table is not None else None,
        "error": _error_json(made.error),
    }


def _difference_json(difference: Difference[K], worst: str) -> dict[str, Any]:
    return {
        "board": difference.board,
        "kind": difference.kind,
        "ratio": difference.ratio,
        "against": difference.against,
        "beyond_noise": difference.beyond,
        "compared": difference.compared,
        "worst": worst,
        "worst_ratio": difference.worst_ratio,
    }


# --- bench ---------------------------------------------------------------------------------------


def bench(found: FleetBench) -> None:
    """A line a board; with two files both medians and their ratio."""
    console = narrow_console()
    timed = [row.bench for row in found.boards if row.bench is not None]
    pair = any(bench.ratio is not None for bench in timed)
    for number, file in enumerate(timed[0].files if timed else ()):
        place = ("first", "second")[number] if pair else "timed"
        _line(console, f"{place}: {file.file}, {counted(len(file.timing.times_ms), 'run')}")
    figures = ("first", "IQR", "second", "IQR", "ratio") if pair else ("median", "IQR", "memory")
    table = _table(("board", "kind"), (*figures, "against its kind"))
    ratios = _ratios(found.differences)
    for row in found.boards:
        cells = _timed_cells(row) or (NONE,) * len(figures)
        table.add_row(*_names(row), *cells, ratios.get(row.board.name, NONE))
    console.print(table)
    _errors(console, found.errors)
    for difference in found.differences:
        _line(console, difference_line(difference, difference.worst))


def _timed_cells(row: BoardBench) -> tuple[str, ...]:
    if row.bench is None:
        return ()
    times = [
        f"{ms:.3f} ms" for f in row.bench.files for ms in (f.timing.median_ms, f.timing.iqr_ms)
    ]
    if row.bench.ratio is not None:
        return (*times, f"{row.bench.ratio.median:.3f}")
    memory = row.bench.files[0].peak_memory_bytes
    return (*times, NONE if memory is None else f"{memory / 1e6:.1f} MB")


def bench_json(found: FleetBench) -> dict[str, Any]:
    return {
        "fleet": str(found.fleet.path),
        "boards": [_timed_json(row) for row in found.boards],
        "differences": [_difference_json(d, d.worst) for d in found.differences],
    }


def _timed_json(row: BoardBench) -> dict[str, Any]:
    board: Mapping[str, Any] = _board_json(row)
    if row.bench is None:
        return {**board, "threads": row.threads}
    return {**board, **one.bench_json(row.board.device.name, row.threads, row.bench)}


# --- how it ends ---------------------------------------------------------------------------------


def require_all(boards: int, errors: Sequence[tuple[str, ShrinkcError]]) -> None:
    """Once everything is shown: raises an error of the first one's kind that names what failed."""
    if not errors:
        return
    names = ", ".join(name for name, _ in errors[:SHOWN])
    more = f" and {len(errors) - SHOWN} more" if len(errors) > SHOWN else ""
    kinds = {"device": DeviceError, "verification": VerificationError}
    kind = kinds.get(errors[0][1].kind, InputError)
    raise kind(f"of {counted(boards, 'board')} not all went well: {names}{more}")
