"""The picture of benchmarks.peers. Needs matplotlib: pip install 'shrinkc[plot]'."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
Point = tuple[float, float]  # speedup, top-1
INK, PALE, GRID = "#1f2328", "#8c959f", "#eaeef2"
LOWEST, HIGHEST = 60.0, 91.5  # per cent; what is worse stands on the lower edge
TICKS = (1, 1.5, 2, 2.5, 3, 4)
OURS = "#0969da"


@dataclass(frozen=True)
class Mark:
    """How a tool's files are drawn. `at`: where the label stands, in points from the file that is
    best by `beside`; `align`: which of its sides is there; `line`: style of a line along what no
    other file of the tool beats."""

    tool: str
    runtime: str
    label: str
    marker: str
    colour: str
    beside: Callable[[Row], object]
    at: tuple[float, float]
    align: str
    line: str = ""


def accurate(row: Row) -> float:
    return row["top1"]


def accurate_int8(row: Row) -> tuple[bool, float]:
    return row["precision"] == "int8", row["top1"]


def fast(row: Row) -> float:
    return row["speedup"]


ORT, TFLITE = "ONNX Runtime", "TFLite"
MARKS = (
    Mark("torch.onnx", ORT, "original,\nONNX", "P", INK, accurate, (0, -28), "center"),
    Mark("litert-torch", TFLITE, "original,\nTFLite", "*", INK, accurate, (0, -28), "center"),
    Mark("onnxruntime", ORT, "onnxruntime int8", "s", "#1a7f37", accurate, (-3, 14), "left"),
    Mark("ai-edge", TFLITE, "ai-edge-quantizer", "D", "#8250df", accurate, (0, -17), "center"),
    Mark("Torch-Pruning", ORT, "Torch-Pruning", "^", "#bc4c00", accurate, (9, -4), "left"),
    Mark("DepthShrinker", TFLITE, "DepthShrinker", "v", "#cf222e", accurate_int8, (9, -4), "left"),
    Mark("two-stage DP", TFLITE, "two-stage DP", "p", "#9a6700", accurate_int8, (9, -4), "left"),
    Mark("shrinkc", ORT, "shrinkc, ONNX", "o", OURS, fast, (9, -4), "left", "--"),
    Mark("shrinkc", TFLITE, "shrinkc", "o", OURS, accurate_int8, (4, 9), "left", "-"),
)


def frontier(points: Sequence[Point]) -> list[Point]:
    """Those that no other one beats in both, from the slowest to the fastest."""
    found: list[Point] = []
    for point in sorted(points, reverse=True):
        if not found or point[1] > found[-1][1]:
            found.append(point)
    return found[::-1]


def draw(rows: Sequence[Row], path: Path) -> None:
    """Every file's speed and accuracy: a mark for each tool, hollow in fp32."""
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(7.6, 4.6), layout="constrained", facecolor="white")
    axes: Any = figure.subplots()
    there = [row for row in rows if "error" not in row]
    for mark in MARKS:
        its = [r for r in there if r["tool"].startswith(mark.tool) and r["runtime"] == mark.runtime]
        if its:
            _marked(axes, mark, its)
    _framed(axes, [row["speedup"] for row in there])
    figure.savefig(path, dpi=130)


def _point(row: Row) -> Point:
    return row["speedup"], max(row["top1"], LOWEST)


def _marked(axes: Any, mark: Mark, rows: Sequence[Row]) -> None:
    if mark.line:
        best = frontier([_point(row) for row in rows])
        width = 2.2 if mark.line == "-" else 1.1
        axes.plot(*zip(*best, strict=True), mark.line, color=mark.colour, lw=width, alpha=0.45)
    for row in rows:
        axes.scatter(
            *_point(row),
            marker=mark.marker,
            s=100 if mark.marker in "*P" else 44,
            facecolor=mark.colour if row["precision"] == "int8" else "white",
            edgecolor=mark.colour,
            linewidth=1.3,
            clip_on=False,
            zorder=4 if mark.line == "-" else 3,
        )
    axes.annotate(
        mark.label,
        _point(max(rows, key=mark.beside)),
        xytext=mark.at,
        textcoords="offset points",
        ha=mark.align,
        color=mark.colour,
        fontsize=12 if mark.line == "-" else 9,
        fontweight="bold" if mark.line == "-" else "normal",
        zorder=5,
    )


def _framed(axes: Any, speedups: Sequence[float]) -> None:
    axes.set(xscale="log", xlim=(min(speedups) / 1.06, max(speedups) * 1.06))
    axes.set_xticks(TICKS, [f"{tick:g}×" for tick in TICKS])
    axes.set_xticks([], minor=True)
    axes.set_ylim(LOWEST, HIGHEST)
    axes.yaxis.set_major_formatter("{x:.0f}%")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALE)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel("measured speedup over the fp32 original in TFLite, one x86 thread", fontsize=9)
    axes.set_title(
        "MobileNetV2, 300 pictures without labels: top-1 of the exported files",
        fontsize=10.5,
        loc="left",
        color=INK,
    )
    legend = f"filled: int8, hollow: fp32\non the lower edge: {LOWEST:.0f}% or less"
    axes.text(1, 1, legend, transform=axes.transAxes, fontsize=8, color=PALE, ha="right", va="top")
