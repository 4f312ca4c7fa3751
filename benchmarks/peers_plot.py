"""The picture of benchmarks.peers. Needs matplotlib: pip install 'shrinkc[plot]'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
Point = tuple[float, float]  # speedup, top-1
OURS = "shrinkc"
INK, PALE = "#1f2328", "#8c959f"
LOWEST, HIGHEST = 55.0, 92.0  # per cent; what is worse stands on the lower edge


@dataclass(frozen=True)
class Mark:
    """How a tool is drawn. `at`: where its label stands, from its best int8 file (else fp32), in
    points; `align`: which side of the label is there."""

    tool: str
    label: str
    marker: str
    colour: str
    at: tuple[float, float]
    align: str


MARKS = (
    Mark("litert-torch", "litert-torch", "*", INK, (0, 9), "center"),
    Mark("torch.onnx", "torch.onnx", "P", INK, (-9, -3), "right"),
    Mark("onnxruntime", "onnxruntime int8", "s", "#1a7f37", (-8, -11), "right"),
    Mark("ai-edge-quantizer", "ai-edge-quantizer", "D", "#8250df", (-8, -3), "right"),
    Mark("Torch-Pruning", "Torch-Pruning, distilled", "^", "#bc4c00", (0, 8), "center"),
    Mark("DepthShrinker", "DepthShrinker", "v", "#cf222e", (8, -3), "left"),
    Mark("two-stage DP", "two-stage DP", "p", "#9a6700", (8, -3), "left"),
    Mark(OURS, OURS, "o", "#0969da", (0, 9), "center"),
)


def frontier(points: Sequence[Point]) -> list[Point]:
    """Those that no other one beats in both, from the slowest to the fastest."""
    found: list[Point] = []
    for point in sorted(points, reverse=True):
        if not found or point[1] > found[-1][1]:
            found.append(point)
    return found[::-1]


def draw(rows: Sequence[Row], path: Path) -> None:
    """Every file's speed and accuracy, one mark for each tool, hollow in fp32."""
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(7.6, 4.4), layout="constrained")
    axes: Any = figure.subplots()
    rows = [row for row in rows if "error" not in row]
    best = frontier([_point(row) for row in rows if row["tool"] == OURS])
    axes.plot(*zip(*best, strict=True), color=MARKS[-1].colour, linewidth=2, alpha=0.5, zorder=1)
    for mark in MARKS:
        few = [row for row in rows if _last_tool(row).startswith(mark.tool)]
        if few:
            _scatter(axes, mark, few)
            _label(axes, mark, few)
    _frame(axes, max(row["speedup"] for row in rows))
    figure.savefig(path, dpi=130)


def _point(row: Row) -> Point:
    return row["speedup"], max(row["top1"], LOWEST)


def _last_tool(row: Row) -> str:
    """The one that made the file, where others came before it."""
    return str(row["tool"]).rpartition(", ")[2]


def _scatter(axes: Any, mark: Mark, rows: Sequence[Row]) -> None:
    for row in rows:
        inside = row["top1"] >= LOWEST
        axes.scatter(
            *_point(row),
            marker=mark.marker,
            s=90 if mark.marker in "*P" else 46,
            facecolor=mark.colour if row["precision"] == "int8" else "white",
            edgecolor=mark.colour,
            linewidth=1.4,
            alpha=1.0 if inside else 0.55,
            clip_on=False,
            zorder=4 if mark.tool == OURS else 3,
        )


def _label(axes: Any, mark: Mark, rows: Sequence[Row]) -> None:
    best = max(rows, key=lambda row: (row["precision"] == "int8", row["top1"], row["speedup"]))
    axes.annotate(
        mark.label,
        _point(best),
        xytext=mark.at,
        textcoords="offset points",
        ha=mark.align,
        color=mark.colour,
        fontsize=11 if mark.tool == OURS else 9,
        fontweight="bold" if mark.tool == OURS else "normal",
        linespacing=0.95,
        zorder=5,
    )


def _frame(axes: Any, fastest: float) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALE)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(color="0.93", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set(xlim=(0.6, fastest + 0.25), ylim=(LOWEST, HIGHEST))
    axes.xaxis.set_major_formatter("{x:g}×")
    axes.yaxis.set_major_formatter("{x:.0f}%")
    axes.set_xlabel("measured speedup over the fp32 original in TFLite, one x86 thread", fontsize=9)
    axes.text(
        *(0.99, 0.98, f"hollow: fp32, filled: int8\non the lower edge: below {LOWEST:.0f}%"),
        transform=axes.transAxes,
        ha="right",
        va="top",
        fontsize=8.5,
        color=INK,
    )
    axes.set_title(
        "MobileNetV2 on ImageNet, 300 pictures without labels: top-1 of the exported files",
        fontsize=10,
        loc="left",
        color=INK,
    )
