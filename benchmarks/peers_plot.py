"""The image of benchmarks.peers. Needs matplotlib: pip install 'shrinkc[plot]'."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
Point = tuple[float, float]  # speedup, top-1 in percent
INK, PALE, GRID = "#1f2328", "#8c959f", "#eaeef2"
TICKS = (1, 1.5, 2, 2.5, 3, 4, 5)
OURS = "#0969da"


@dataclass(frozen=True)
class Mark:
    """How a tool's files are drawn. `at`: where the label stands, in points from the file that is
    best by `beside`; `align`: which of its sides is there; `line`: along what no other file of the
    tool beats."""

    tool: str
    runtime: str
    label: str
    marker: str
    colour: str
    beside: Callable[[Row], object]
    at: tuple[float, float]
    align: str
    line: bool = False


def accurate(row: Row) -> float:
    return row["top1"]


def accurate_int8(row: Row) -> tuple[bool, float]:
    return row["precision"] == "int8", row["top1"]


def fast(row: Row) -> float:
    return row["speedup"]


ORT, TFLITE = "ONNX Runtime", "TFLite"
MARKS = (
    Mark("torch.onnx", ORT, "fp32\nONNX", "P", INK, accurate, (0, -28), "center"),
    Mark("litert-torch", TFLITE, "fp32\nTFLite", "*", INK, accurate, (0, -28), "center"),
    Mark("onnxruntime", ORT, "onnxruntime int8", "s", "#1a7f37", accurate, (-3, 14), "left"),
    Mark("ai-edge", TFLITE, "ai-edge-quantizer", "D", "#8250df", accurate, (0, -17), "center"),
    Mark("Torch-Pruning", ORT, "Torch-Pruning", "^", "#bc4c00", accurate, (-6, 9), "left"),
    Mark("DepthShrinker", TFLITE, "DepthShrinker", "v", "#cf222e", accurate_int8, (9, -4), "left"),
    Mark("two-stage DP", TFLITE, "two-stage DP", "p", "#9a6700", accurate_int8, (0, 9), "center"),
    Mark("HALP", TFLITE, "HALP", "<", "#1b7c83", accurate_int8, (-9, -4), "right"),
    Mark("MDP", TFLITE, "MDP", ">", "#bf3989", accurate_int8, (9, -4), "left"),
    Mark("Practise", TFLITE, "Practise", "h", "#57606a", accurate_int8, (9, -4), "left"),
    Mark(
        "uniform scaling",
        TFLITE,
        "smaller images",
        "d",
        "#4c8d26",
        accurate_int8,
        (0, -17),
        "center",
    ),
    Mark("shrinkc", ORT, "shrinkc, ONNX", "o", OURS, fast, (9, -4), "left"),
    Mark("shrinkc", TFLITE, "shrinkc", "o", OURS, accurate_int8, (4, 9), "left", True),
)


def frontier(points: Sequence[Point]) -> list[Point]:
    """Those that no other one beats in both, from the slowest to the fastest."""
    found: list[Point] = []
    for point in sorted(points, reverse=True):
        if not found or point[1] > found[-1][1]:
            found.append(point)
    return found[::-1]


def gap(values: Sequence[float]) -> tuple[float, float]:
    """The neighbours that are furthest apart."""
    ordered = sorted(values)
    return max(pairwise(ordered), key=lambda pair: pair[1] - pair[0])


def draw(rows: Sequence[Row], path: Path) -> None:
    """Every file's speed and accuracy: a mark for each tool, hollow in fp32, with the interval of
    what is lost. In two panels, with no mark between them."""
    from matplotlib.figure import Figure

    there = [row for row in rows if "failure" not in row]
    low, high = gap([_point(row)[1] for row in there])
    figure: Any = Figure(figsize=(7.6, 5), layout="constrained", facecolor="white")
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1.4))
    upper.set_ylim(high - 2, max(_point(row)[1] for row in there) + 3)
    lower.set_ylim(-4, low + 8)
    for axes in (upper, lower):
        for mark in MARKS:
            _marked(axes, mark, [row for row in there if _is_of(mark, row)])
    _framed(upper, lower, [row["speedup"] for row in there])
    figure.savefig(path, dpi=125)


def _is_of(mark: Mark, row: Row) -> bool:
    return row["tool"].startswith(mark.tool) and row["runtime"] == mark.runtime


def _point(row: Row) -> Point:
    return row["speedup"], 100 * row["top1"]


def ends(row: Row) -> Point:
    """Of the interval of 95%, as far as it is the drop's: the original's top-1 less its ends."""
    original, (low, high) = row["top1"] + row["drop"], row["interval"]
    return 100 * (original - high), 100 * (original - low)


def _marked(axes: Any, mark: Mark, rows: Sequence[Row]) -> None:
    if mark.line and rows:
        best = zip(*frontier([_point(row) for row in rows]), strict=True)
        axes.plot(*best, color=mark.colour, linewidth=2.2, alpha=0.45)
    for row in rows:
        if "interval" in row:
            axes.vlines(row["speedup"], *ends(row), color=mark.colour, linewidth=0.9, alpha=0.35)
        axes.scatter(
            *_point(row),
            marker=mark.marker,
            s=100 if mark.marker in "*P" else 44,
            facecolor=mark.colour if row["precision"] == "int8" else "white",
            edgecolor=mark.colour,
            linewidth=1.3,
            zorder=4 if mark.line else 3,
        )
    if rows:
        axes.annotate(
            mark.label,
            _point(max(rows, key=mark.beside)),
            xytext=mark.at,
            textcoords="offset points",
            ha=mark.align,
            color=mark.colour,
            fontsize=13 if mark.line else 9.5,
            fontweight="bold" if mark.line else "normal",
            annotation_clip=True,  # its point may be in the other panel
            zorder=5,
        )


def _framed(upper: Any, lower: Any, speedups: Sequence[float]) -> None:
    left, right = min(speedups) / 1.07, max(speedups) * 1.07
    ticks = [tick for tick in TICKS if left <= tick <= right]  # others would widen the axis
    lower.set(xscale="log", xlim=(left, right))
    lower.set_xticks(ticks, [f"{tick:g}×" for tick in ticks])
    lower.set_xticks([], minor=True)
    upper.yaxis.get_major_locator().set_params(steps=[1, 2, 5, 10])
    for axes in (upper, lower):
        axes.yaxis.set_major_formatter("{x:.0f}%")
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(PALE)
        axes.tick_params(colors=INK, labelsize=9)
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
    upper.spines["bottom"].set_visible(False)
    upper.tick_params(bottom=False)
    slanted = {"marker": [(-1, -0.6), (1, 0.6)], "markersize": 9, "clip_on": False, "color": PALE}
    for axes, height in ((upper, 0), (lower, 1)):
        axes.plot([0], [height], transform=axes.transAxes, linestyle="none", **slanted)
    lower.set_xlabel(
        "measured speedup over the fp32 original in TFLite, one x86 thread", fontsize=9.5
    )
    upper.set_title(
        "MobileNetV2, 300 images without labels: top-1 of the exported files",
        fontsize=11,
        loc="left",
        color=INK,
    )
    corner = {"transform": upper.transAxes, "ha": "right", "va": "top", "color": PALE}
    upper.text(1, 1, "filled: int8, hollow: fp32\nlines: 95% interval", fontsize=8.5, **corner)
