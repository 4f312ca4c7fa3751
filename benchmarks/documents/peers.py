"""What stands where beside other tools, and the exact files."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.documents.cells import Row, Table, percent, points, the_one, those, times
from benchmarks.shared.results import Results

INT8 = {"precision": "int8"}
_SHRINKC = {"tool": "shrinkc", "runtime": "TFLite"}
REIMPLEMENTED = ("HALP", "MDP", "Practise")
_OURS_INT8 = "min/max, weights per channel, of shrinkc's exact file"
_ONNX_INT8 = "min/max, weights per {}, of torch.onnx's file"


def peers(results: Results) -> Table:
    """Speed and top-1 of every tool, at its best setting where it has many."""
    rows, epochs = results.rows, results.settings["epochs"]
    by_tool = {row["tool"].split()[0]: row["tool"] for row in rows}
    edge, ort, pruning = (
        by_tool[name] for name in ("ai-edge-quantizer", "onnxruntime", "Torch-Pruning")
    )
    ort = ort.removesuffix(" static int8")

    def best(tool: str) -> Row:
        return max(_of(tool, rows, **INT8), key=lambda row: row["top1"])

    pruned = those(rows, tool=pruning, precision="int8")
    lines = [
        ("shrinkc, exact", the_one(rows, **_SHRINKC, settings="exact fp32")),
        ("torch.onnx; shrinkc, exact", _same(rows)),
        ("shrinkc, exact", the_one(rows, **_SHRINKC, settings="exact int8")),
        (f"{edge} on litert-torch's file", the_one(rows, tool=edge)),
        (
            "shrinkc, exact",
            the_one(rows, tool="shrinkc", runtime="ONNX Runtime", settings="exact int8"),
        ),
        (
            f"{ort} static int8, per channel",
            the_one(rows, settings=_ONNX_INT8.format("channel")),
        ),
        ("the same, per tensor", the_one(rows, settings=_ONNX_INT8.format("tensor"))),
        *(
            (f"{ort} static int8, per channel, of shrinkc's exact file", row)
            for row in those(rows, settings=_OURS_INT8)
        ),
        *(
            (f"shrinkc, exact at {row['settings'].split()[0]} pixels", row)
            for row in _of("uniform scaling", rows, runtime="TFLite")
        ),
        *((f"shrinkc, {row['settings']}", row) for row in _planned(rows)),
        (f"DepthShrinker, reimplemented, {epochs} epochs", best("DepthShrinker")),
        (f"two-stage DP, reimplemented, {epochs} epochs", best("two-stage DP")),
        *(
            (f"{tool}, reimplemented, {_asked_and_taught(row)}", row)
            for tool in REIMPLEMENTED
            for row in _of(tool, rows, **INT8)
        ),
        (
            f"{pruning}, best int8 file, {epochs} epochs, onnxruntime's int8",
            max(pruned, key=lambda row: row["top1"]),
        ),
    ]
    drops = ("drop (95%)",) if any("interval" in row for row in rows) else ()
    return (
        ("tool", "runtime", "precision", "speed", "top-1", *drops),
        [
            (
                *(name, row["runtime"], row["precision"], times(row["speedup"])),
                *(percent(row["top1"]), *(_drop(row) for _ in drops)),
            )
            for name, row in lines
            if "failure" not in row
        ],
    )


def _asked_and_taught(row: Row) -> str:
    asked, *_, taught = row["settings"].split(", ")
    return f"{asked}, {taught}"


def _drop(row: Row) -> str:
    """In points, with its interval."""
    ends = " to ".join(points(end, 1) for end in row.get("interval", ()))
    return points(row["drop"]) + (f" ({ends})" if ends else "")


def headline(results: Results) -> Table:
    """README's: what shrinkc makes of the network."""
    labels = {
        "exact int8": "int8",
        "planned, 2.3× asked": "one plan, made for this machine, 2.3× asked",
        "planned, 2.6× asked": "the same, 2.6× asked",
        "planned, 3× asked": "the same, 3× asked",
        "planned in fp32, 1.2× asked": "the same, 1.2× asked, fp32 alone",
    }
    found = ((name, the_one(results.rows, **_SHRINKC, settings=s)) for s, name in labels.items())
    return (
        ("", "speed over fp32", "top-1"),
        [(name, times(row["speedup"]), percent(row["top1"])) for name, row in found],
    )


def exact(results: Results) -> Table:
    """Top-1 of the exported files."""

    def top1(file: str, precision: str) -> str:
        return percent(the_one(results.rows, file=file, precision=precision)["top1"])

    files = ("model.onnx", "model.tflite")
    return (
        ("", "fp32", "int8, calibrated on 300 other images"),
        [
            ("PyTorch", top1("PyTorch", "fp32"), ""),
            *((file, top1(file, "fp32"), top1(file, "int8")) for file in files),
        ],
    )


def _same(rows: list[Row]) -> Row:
    """torch.onnx's row, where shrinkc's exact file is as fast and accurate."""
    ours = the_one(rows, tool="shrinkc", runtime="ONNX Runtime", settings="exact fp32")
    (theirs,) = _of("torch.onnx", rows)
    if (times(ours["speedup"]), ours["top1"]) != (times(theirs["speedup"]), theirs["top1"]):
        raise ValueError("torch.onnx and shrinkc differ: give them a line each")
    return theirs


def _planned(rows: list[Row]) -> list[Row]:
    return [row for row in those(rows, **_SHRINKC) if row["settings"].startswith("planned")]


def _of(tool: str, rows: list[Row], **fields: str) -> list[Row]:
    return [row for row in those(rows, **fields) if row["tool"].startswith(tool)]


TABLES: tuple[Callable[..., Table], ...] = (peers, headline, exact)
