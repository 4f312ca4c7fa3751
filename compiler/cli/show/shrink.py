"""A shrunk network, on the console and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.markup import escape

from shrinkc.compiler.api.shrink import Shrunk
from shrinkc.compiler.cli.output import NOT_JUDGED, current, show_warning
from shrinkc.compiler.cli.output import wide_console as show_wide_console
from shrinkc.compiler.report.sections import Judged
from shrinkc.compiler.support.text import counted


def shrunk_json(method: str, shrunk: Shrunk) -> dict[str, Any]:
    return {
        "method": method,
        "predicted_ms_before": shrunk.before_ms,
        "predicted_ms_after": shrunk.after_ms,
        "predicted_speedup": shrunk.speedup,
        "choices": shrunk.choices,
        "skipped": [asdict(skip) for skip in shrunk.skipped],
        "judged": None if shrunk.judged is None else _judged(shrunk.judged),
        "measured_speedup": shrunk.measured_speedup,
        "warning": shrunk.warning and current().flagged(shrunk.warning),
        "notes": list(shrunk.notes),
    }


def _judged(judged: Judged) -> dict[str, Any]:
    return {
        "images": judged.images,
        "agreement": judged.agreement,
        "metric": judged.metric,
        "original_top1": judged.original_top1,
        "shrunk_top1": judged.changed_top1,
        "drop": None if judged.drop is None else asdict(judged.drop),
        "errors": [asdict(error) for error in judged.errors],
    }


def shrunk_report(shrunk: Shrunk) -> None:
    show_warning(shrunk.warning)
    console = show_wide_console()
    for line in shrunk.lines:
        console.print(escape(line))
    console.print(
        f"predicted: {shrunk.before_ms:.4g} → {shrunk.after_ms:.4g} ms, "
        f"{shrunk.speedup:.2f}×; "
        f"{counted(len(shrunk.skipped), 'span')} declined"
    )
    for note in shrunk.notes:
        console.print(escape(note))
    console.print(NOT_JUDGED if shrunk.judged is None else str(shrunk.judged))
