"""A pruned network's widths, on the console and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.markup import escape
from rich.table import Table

from shrinkc.compiler.api.prune import Pruned
from shrinkc.compiler.cli.output import NOT_JUDGED, current, show_warning
from shrinkc.compiler.cli.output import wide_console as show_wide_console
from shrinkc.compiler.support.text import counted


def pruned_json(pruned: Pruned) -> dict[str, Any]:
    return {
        "criterion": pruned.criterion,
        "predicted_ms_before": pruned.before_ms,
        "predicted_ms_after": pruned.after_ms,
        "predicted_speedup": pruned.speedup,
        "widths": [asdict(width) for width in pruned.widths],
        "kept": pruned.kept,
        "skipped": [asdict(skip) for skip in pruned.skipped],
        "not_compensated": [asdict(skip) for skip in pruned.not_compensated],
        "history": pruned.history,
        "from_scratch": pruned.from_scratch and asdict(pruned.from_scratch),
        "judged": None if pruned.judged is None else asdict(pruned.judged),
        "measured_speedup": pruned.measured_speedup,
        "warning": pruned.warning and current().flagged(pruned.warning),
        "notes": [current().flagged(note) for note in pruned.notes],
    }


def pruned_report(pruned: Pruned) -> None:
    show_warning(pruned.warning)
    console = show_wide_console()
    times = pruned.times()
    table = Table(title=f"widths: {times}" if times else "widths", title_justify="left")
    for header in ("channel group", "before", "after", "kept"):
        table.add_column(header, justify="left" if header == "channel group" else "right")
    for w in pruned.widths:
        table.add_row(escape(w.group), str(w.before), str(w.after), f"{w.after / w.before:.0%}")
    totals = (str(sum(getattr(w, n) for w in pruned.widths)) for n in ("before", "after"))
    table.add_section()
    table.add_row("all", *totals, f"{pruned.kept:.1%}")
    console.print(table)
    reasons: dict[str, int] = {}
    for skip in pruned.skipped:
        reasons[skip.reason] = reasons.get(skip.reason, 0) + 1
    for reason, count in reasons.items():
        console.print(
            escape(f"{counted(count, 'group')} {'stays' if count == 1 else 'stay'} whole: {reason}")
        )
    for skip in pruned.not_compensated:
        console.print(escape(f"'{skip.node}' was not compensated: {skip.reason}"))
    for note in pruned.notes:
        console.print(escape(current().flagged(note)))
    console.print(NOT_JUDGED if pruned.judged is None else str(pruned.judged))
