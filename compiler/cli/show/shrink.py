"""A shrunk network, on the console and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.markup import escape

from shrinkc.compiler.api.shrink import Outcome, ShrinkArguments
from shrinkc.compiler.cli.output import NOT_JUDGED
from shrinkc.compiler.cli.output import wide_console as show_wide_console
from shrinkc.compiler.report.sections import Judged
from shrinkc.compiler.support.text import counted


def shrunk_json(a: ShrinkArguments, outcome: Outcome, judged: Judged | None) -> dict[str, Any]:
    return {
        "method": a.method,
        "predicted_ms_before": outcome.before_ms,
        "predicted_ms_after": outcome.after_ms,
        "predicted_speedup": outcome.before_ms / outcome.after_ms,
        "choices": outcome.choices,
        "skipped": [asdict(skip) for skip in outcome.skipped],
        "judged": None if judged is None else _judged(judged),
    }


def _judged(judged: Judged) -> dict[str, Any]:
    return {
        "images": judged.images,
        "agreement": judged.agreement,
        "original_top1": judged.original_top1,
        "shrunk_top1": judged.changed_top1,
    }


def shrunk_report(outcome: Outcome, judged: Judged | None) -> None:
    console = show_wide_console()
    for line in outcome.lines:
        console.print(escape(line))
    console.print(
        f"predicted: {outcome.before_ms:.4g} → {outcome.after_ms:.4g} ms, "
        f"{outcome.before_ms / outcome.after_ms:.2f}×; "
        f"{counted(len(outcome.skipped), 'span')} declined"
    )
    console.print(NOT_JUDGED if judged is None else str(judged))
