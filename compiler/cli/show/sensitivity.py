"""What channel groups bear, on the console."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from shrinkc.compiler.cli.output import wide_console
from shrinkc.compiler.width.sensitivity import RATIOS, SensitivityCurve


def curves(found: tuple[SensitivityCurve, ...], what: str) -> None:
    """A row for each group: `what` with more and more of it pruned."""
    table = Table(title=f"{what}, one group pruned", title_justify="left")
    table.add_column("channel group")
    for ratio in RATIOS:
        table.add_column(f"−{ratio:.0%}", justify="right")
    for curve in found:
        table.add_row(escape(curve.group), *(f"{value:.1%}" for value in curve.at(RATIOS)))
    console = wide_console()
    console.print(table)
    console.print(f"as it is: {found[0].values[0]:.1%}" if found else "no group has scores")
