"""The image of benchmarks.methods_cifar. Needs matplotlib: pip install 'shrinkc[plot]'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

Row = Mapping[str, Any]
COLOURS = {"ours": "#0969da", "torch-pruning": "#bc4c00"}
INK, PALE, GRID = "#1f2328", "#8c959f", "#eaeef2"
LINE_INCHES = 0.22  # of height, for each method


def draw(rows: Sequence[Row], path: Path) -> None:
    """A panel for every network and goal, in it a line for every method, the best on top: top-1 in
    the goal's precision, the median of the seeds and their range. A line stands for the original.
    """
    from matplotlib.figure import Figure

    there = [row for row in rows if "measured" in row]
    panels = list(dict.fromkeys((row["network"], row["goal"]) for row in there))
    if not panels:
        return
    several = [[r for r in there if (r["network"], r["goal"]) == panel] for panel in panels]
    ranked = [_ranked(some) for some in several]
    heights = [len(lines) + 2 for lines in ranked]
    figure: Any = Figure((8, LINE_INCHES * sum(heights) + 0.6), layout="constrained")
    axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)
    for index, (network, goal) in enumerate(panels):
        precision = several[index][0]["precision"]
        original = next(r for r in rows if r["network"] == network and r["method"] == "original")
        before = 100 * original["top1" if precision == "fp32" else "top1_int8"]
        axes[index, 0].axvline(before, color=PALE, linewidth=1)
        title = f"{network}, {goal}: top-1 in {precision}, %"
        axes[index, 0].set_title(title, loc="left", fontsize=9, color=INK)
        _lines(axes[index, 0], ranked[index])
    figure.savefig(path, dpi=125)


Line = tuple[str, str, list[float]]  # method, whose, top-1 of all seeds


def _ranked(rows: Sequence[Row]) -> list[Line]:
    """Best last."""
    named = dict.fromkeys((row["method"], row["by"]) for row in rows)
    lines = [
        (method, by, [_top1(row) for row in rows if (row["method"], row["by"]) == (method, by)])
        for method, by in named
    ]
    return sorted(lines, key=lambda line: median(line[2]))


def _top1(row: Row) -> float:
    return 100 * row["measured"][row["precision"]]["top1"]


def _lines(axes: Any, lines: Sequence[Line]) -> None:
    for height, (_, by, values) in enumerate(lines):
        colour = COLOURS[by]
        axes.plot([min(values), max(values)], [height, height], color=colour, linewidth=2)
        axes.scatter(median(values), height, color=colour, s=24, zorder=3)
    labels = [method if by == "ours" else f"{by} {method}" for method, by, _ in lines]
    axes.set_yticks(range(len(lines)), labels)
    axes.set_ylim(-0.7, len(lines) - 0.3)
    axes.tick_params(colors=INK, labelsize=8, length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(PALE)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
