"""One plan for depth, width and precision."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.documents.cells import (
    Row,
    Table,
    asked,
    counted,
    percent,
    points,
    spread,
    those,
    times,
)
from benchmarks.promised import standard_error
from benchmarks.shared.results import Results

_MOVES = {
    "joint": "one plan",
    "width": "width alone, fp32",
    "depth": "depth alone, fp32",
    "int8": "int8 alone",
}
_NETWORKS = {
    "mobilenet_v2": "MobileNetV2",
    "cifar": "CIFAR-10 network",
    "resnet56": "ResNet-56",
    "detector": "detector",
    "segmenter": "U-Net",
    "blobs": "regression",
    "resnet56-500": "ResNet-56, 500 images",
}


def by_table(results: Results) -> Table:
    """For a device that is not here: by its table, and as this machine runs the files."""
    before = percent(results.rows[0]["original_top1"])
    return (
        ("asked", "by table", "measured here", f"top-1 ({before})", "agrees", "changes"),
        [
            (
                *(asked(row["asked_speedup"]), times(row["table_speedup"]), times(row["speedup"])),
                *(percent(row["top1"]), percent(row["agreement"], 1), changes(row)),
            )
            for row in results.rows
        ],
    )


def for_this_machine(results: Results) -> Table:
    rows = sorted(results.rows, key=lambda row: row["asked_speedup"])
    return (
        ("asked", "by table", "measured", "top-1", "drop, promised", "agrees", "changes"),
        [
            (
                *(asked(row["asked_speedup"]), times(row["table_speedup"]), times(row["speedup"])),
                percent(row["top1"]),
                f"{points(row['original_top1'] - row['top1'])}, {points(row['promised_drop'])}",
                *(percent(row["agreement"], 1), changes(row)),
            )
            for row in rows
        ],
    )


def changes(row: Row) -> str:
    """int8, 4 blocks narrowed or merged; exact merges change nothing."""
    kinds = [one["kind"] for one in row["taken"] if one["kind"] != "exact"]
    if not kinds:
        return f"{row['precision']} alone"
    how = "narrowed" if set(kinds) == {"narrow"} else "narrowed or merged"
    return f"{row['precision']}, {counted(len(kinds), 'block')} {how}"


def single_moves(results: Results) -> Table:
    """One plan against depth, width and int8 alone, trained."""
    speedups = sorted({row["asked_speedup"] for row in results.rows})
    return (
        ("", *map(asked, speedups)),
        [
            (name, *(_move(those(results.rows, moves=move, asked_speedup=s)) for s in speedups))
            for move, name in _MOVES.items()
        ],
    )


def _move(rows: list[Row]) -> str:
    """Nothing is asked of int8 alone beyond the first speedup out of its reach."""
    reached = [row for row in rows if "top1" in row]
    if not reached:
        return "out of reach"
    note = "" if reached[0]["steps"] or reached[0]["moves"] == "int8" else ", int8 alone"
    speedup = sum(row["speedup"] for row in reached) / len(reached)
    return f"{spread([row['top1'] for row in reached])} ({times(speedup)}{note})"


def promised(results: Results) -> Table:
    """A line for each request, with the simpler command that loses least in the plan's time."""
    lines: list[tuple[str, ...]] = []
    for network, name in _NETWORKS.items():
        for number, row in enumerate(those(results.rows, network=network)):
            label = (name if number == 0 else "", request(row))
            if "failure" in row:
                lines.append((*label, "out of reach", "", "", ""))
                continue
            lines.append((*label, _over(row), *_drops(row), _rival(row)))
    header = ("milliseconds, over the budget", "drop promised (95%)", "delivered")
    return ("network", "asked", *header, "simpler commands"), lines


def request(row: Row) -> str:
    if "asked_over_exact" in row:
        return asked(row["asked_over_exact"])
    return f"at most {100 * row['asked_drop']:g} points"


def beyond_int8(results: Results) -> Table:
    rows = [(asked(row["asked_speedup"]), _over(row), *_drops(row)) for row in results.rows]
    return ("asked", "milliseconds, over the budget", "drop promised (95%)", "delivered"), rows


def _over(row: Row) -> str:
    return f"{100 * (row['measured_ms'] / row['budget_ms'] - 1):+.1f}%".replace("-", "−")


def _drops(row: Row) -> tuple[str, str]:
    low, high = (points(end, 1) for end in row["promised"]["interval"])
    delivered, error = row["delivered"], standard_error(row["delivered"])
    return (
        f"{points(row['promised']['drop'])} ({low} to {high})",
        f"{points(delivered['drop'])} ± {points(error)}",
    )


def _rival(row: Row) -> str:
    """What the best of those as fast as the plan loses."""
    as_fast = {
        command: one["delivered"]["drop"]
        for command, one in row.get("rivals", {}).items()
        if "failure" not in one and one["measured_ms"] <= row["measured_ms"]
    }
    if not as_fast:
        return "none as fast" if "rivals" in row else ""
    best = min(as_fast, key=lambda command: as_fast[command])
    return f"{best}: {points(as_fast[best])}"


def promised_outputs(results: Results) -> Table:
    """A line for each kind of network and output."""
    lines: list[tuple[str, ...]] = []
    for network in dict.fromkeys(row["network"] for row in results.rows):
        outputs = dict.fromkeys(row["output"] for row in those(results.rows, network=network))
        for output in outputs:
            rows = those(results.rows, network=network, output=output)
            name = f"{network}, output {output}" if len(outputs) > 1 else network
            errors = (
                ", ".join(f"{row[key]:.2g}" for row in rows)
                for key in ("promised_error", "error_on_others")
            )
            groups = sum(row["groups"] for row in rows)
            inside = (
                f"{sum(row[key] for row in rows)} of {groups}"
                for key in ("groups_inside", "groups_worst_column_inside")
            )
            lines.append((name, *errors, *inside))
    header = ("promised", "on all others", "groups inside", "worst column, groups inside")
    return ("network", *header), lines


def examples(results: Results) -> Table:
    """A line for each network, by its own metric; ONNX and TFLite."""
    lines: list[tuple[str, ...]] = []
    for network in dict.fromkeys(row["network"] for row in results.rows):
        rows = those(results.rows, network=network)
        metric = rows[0]["metric"]
        exact = those(rows, mode="as it is", precision="int8")
        planned = those(rows, mode="plan")
        scores = (", ".join(points(row["score"]) for row in some) for some in (exact, planned))
        speed = times(planned[0]["speedup"])
        lines.append((network, metric, points(rows[0]["original_score"]), *scores, speed))
    header = ("network", "metric", "original", "int8 (ONNX, TFLite)", "planned", "over int8")
    return header, lines


def int8(results: Results) -> Table:
    """What int8 costs, by what is done about it."""
    lines: list[tuple[str, ...]] = []
    for network in dict.fromkeys(row["network"] for row in results.rows):
        for row in those(results.rows, network=network):
            top1 = points(row["top1"])
            if row["int8_tuning"] == "fp32":
                lines.append((network, "fp32", top1, "", "", ""))
                continue
            cells = (points(row["agreement"]), f"{row['divergence']:.4f}", f"{row['snr_db']:.1f}")
            lines.append(("", row["int8_tuning"], top1, *cells))
    return ("network", "int8", "top-1", "agrees with fp32", "divergence", "dB"), lines


TABLES: tuple[Callable[..., Table], ...] = (
    by_table,
    for_this_machine,
    single_moves,
    promised,
    beyond_int8,
    promised_outputs,
    examples,
    int8,
)
