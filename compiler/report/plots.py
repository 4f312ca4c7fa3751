"""Images, written as PNG. Needs matplotlib: pip install 'shrinkc[plot]'."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shrinkc.compiler.support.atomic_files import check_file, write_file
from shrinkc.compiler.support.quiet import quiet
from shrinkc.compiler.support.text import one_line
from shrinkc.compiler.width.sensitivity import SensitivityCurve
from shrinkc.errors import InputError, TableError
from shrinkc.latency_tables.files import Validation

_NEEDED = "images need matplotlib: pip install 'shrinkc[plot]'"
_COLOURS = {"fp32": "#1b6ca8", "fp16": "#2a9d5c", "int8": "#c4581c"}
_MARKS = {"none": "x", "network": "o", "family": "^", "operator": ".", "unlike": "s"}
_NAMES = {
    "none": "fitted to it",
    "network": "network held out",
    "family": "family held out",
    "unlike": "in no fit, unlike it",
    "operator": "operator held out",
}


def predicted_against_measured(target: str, rows: Sequence[Validation], path: Path) -> None:
    """Every row of a table's validation, logarithmic, with the ±10% band.

    Raises TableError for a table that states nothing, InputError when the file cannot be written.
    """
    if not rows:
        raise TableError(f"target {target} states no predictions to draw; calibrate it first")
    figure, axes = _figure()
    low = min(min(row.measured_ms, row.predicted_ms) for row in rows) * 0.8
    high = max(max(row.measured_ms, row.predicted_ms) for row in rows) * 1.25
    axes.fill_between([low, high], [low * 0.9, high * 0.9], [low * 1.1, high * 1.1], color="0.9")
    axes.plot([low, high], [low, high], color="0.5", linewidth=1)
    for precision in dict.fromkeys(row.precision for row in rows):
        for held_out in dict.fromkeys(row.held_out for row in rows):
            some = [r for r in rows if (r.precision, r.held_out) == (precision, held_out)]
            if some:
                error = sum(abs(row.relative_error) for row in some) / len(some)
                axes.scatter(
                    [row.measured_ms for row in some],
                    [row.predicted_ms for row in some],
                    marker=_MARKS[held_out],
                    s=22 if len(some) < 200 else 6,
                    color=_COLOURS[precision],
                    alpha=0.7,
                    label=f"{precision}, {_NAMES[held_out]}: {error:.1%} of {len(some)}",
                )
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    axes.set(xlabel="measured, ms", ylabel="predicted, ms", title=f"{target} (band: ±10%)")
    axes.legend(loc="upper left", frameon=False, fontsize=8)
    _save(figure, path)


def widths_before_and_after(title: str, rows: Sequence[tuple[str, int, int]], path: Path) -> None:
    """Channel groups in the order of execution: (name, channels before, channels after).

    Raises TableError without matplotlib, InputError when the file cannot be written.
    """
    figure, axes = _figure((max(6.4, 1.5 + 0.2 * len(rows)), 5.2), "auto")
    names, before, after = zip(*rows, strict=True)
    places = range(len(rows))
    axes.bar(places, before, width=0.8, color="0.85", label=f"before: {sum(before):,} channels")
    axes.bar(places, after, width=0.8, color="#1b6ca8", label=f"after: {sum(after):,}")
    for place, old, new in zip(places, before, after, strict=True):
        if new < old:
            where = {"ha": "center", "va": "bottom", "rotation": 90, "fontsize": 7}
            axes.annotate(f" {new / old:.0%}", (place, old), **where)
    axes.set_xticks(places, names, rotation=90, fontsize=7)
    axes.set(xlim=(-0.8, len(rows) - 0.2), ylabel="channels")
    axes.set_title(title, fontsize=10)
    figure.legend(loc="outside lower right", ncols=2, frameon=False, fontsize=8)
    _save(figure, path)


def sensitivity_map(
    title: str, curves: Sequence[SensitivityCurve], ratios: Sequence[float], path: Path
) -> None:
    """One row for each channel group in the order of execution, one column for each share that
    goes; dark is where the network stays accurate.

    Raises TableError without matplotlib, InputError when the file cannot be written.
    """
    figure, axes = _figure((6.4, 1.8 + 0.18 * len(curves)), "auto")
    from matplotlib.ticker import PercentFormatter

    image = axes.imshow(
        [curve.at(ratios) for curve in curves], aspect="auto", cmap="viridis_r", vmin=0
    )
    axes.set_xticks(range(len(ratios)), [f"{ratio:.0%}" for ratio in ratios], fontsize=8)
    axes.set_yticks(range(len(curves)), [curve.group for curve in curves], fontsize=7)
    axes.set(xlabel="channels of the group that go")
    axes.set_title(title, fontsize=9)
    figure.colorbar(image, ax=axes, format=PercentFormatter(1, decimals=0))
    _save(figure, path)


def require_matplotlib() -> None:
    """Raise TableError where nothing could be drawn, before any work is done."""
    if importlib.util.find_spec("matplotlib") is None:
        raise TableError(_NEEDED)


def require_plot(path: Path) -> None:
    """And InputError where it could not be written."""
    require_matplotlib()
    if not path.parent.is_dir():
        raise InputError(f"{path} cannot be written: there is no such folder")
    check_file(path)


def _figure(size: tuple[float, float] = (6.4, 6.4), aspect: str = "equal") -> tuple[Any, Any]:
    require_matplotlib()
    with quiet():  # it tells where it keeps its list of fonts
        from matplotlib.figure import Figure

    figure: Any = Figure(figsize=size, layout="constrained")
    axes: Any = figure.subplots()
    axes.set_aspect(aspect)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    require_plot(path)
    drawn = io.BytesIO()
    try:
        figure.savefig(drawn, dpi=130, format=path.suffix[1:] or "png")
    except ValueError as error:
        raise InputError(f"{path} cannot be written: {one_line(error)}") from error
    write_file(path, drawn.getvalue())
