"""README says what the result files say, and of every target what its table says of itself."""

from __future__ import annotations

import pytest

from benchmarks.documents.cells import percent, points, the_one, those
from benchmarks.shared import results
from benchmarks.shared.common import ROOT
from shrinkc.latency_tables.store import load_table


def read(name: str) -> results.Results:
    return results.read(results.result_path(name))


def readme() -> str:
    return (ROOT / "README.md").read_text("utf-8")


def test_readme_says_what_the_files_say() -> None:
    tflite, onnx = (
        the_one(read("converters").rows, peer_tool=tool)["ratio"]
        for tool in ("litert-torch", "torch-onnx")
    )
    stages = ("captured", "folded", "onnx", "tflite")
    compiled = [all(row[stage] for stage in stages) for row in read("coverage").rows]
    stages = ("pruned", "masked", "saved", "onnx", "tflite")
    pruned = read("prune_coverage").rows
    ours = sum(all(row[stage] for stage in stages) for row in pruned)
    theirs = sum(row["peer"]["pruned"] for row in pruned)
    text = " ".join(readme().split())
    for fragment in (
        f"({tflite:.3f} of litert-torch's time, {onnx:.3f} of torch.onnx's)",
        f"{sum(compiled)} of {len(compiled)} public architectures compile; {ours} of them can be "
        f"pruned (Torch-Pruning: {theirs})",
        f"all among the {len(read('peers').rows)} files of the plot",
        *trained_plan(read("plan_cifar").rows),
        *this_machine(),
    ):
        assert fragment in text


def trained_plan(rows: list[results.Row]) -> tuple[str, ...]:
    def drop(moves: str, speedup: float) -> str:
        found = those(rows, moves=moves, asked_speedup=speedup)
        lost = [row["original_top1"] - row["top1"] for row in found]
        return points(sum(lost) / len(lost), 1)

    return (
        f"loses {drop('joint', 2.0)} points at 2× over fp32 and {drop('joint', 3.0)} at 3×; width "
        f"alone loses {drop('width', 2.0)} at 2×",
    )


def this_machine() -> tuple[str, ...]:
    """The rows whose tables are as they were measured last; the one as profiled has no file."""
    cells: list[str] = []
    for runtime in ("tflite", "onnxruntime"):
        for what in ("networks", "variants"):
            found = read(f"host_{runtime}_fp32_{what}").summary
            cells.append(f"{percent(found['mean_error'], 1)}, {found['spearman']:.3f}")
    named = cells[0].replace(", ", " mean error, Spearman ")
    return (
        f"| TFLite | {named} | {cells[1]} |",
        f"| ONNX Runtime, after `shrinkc calibrate` | {cells[2]} | {cells[3]} |",
    )


def stated(target: str, held_out: str, digits: int = 1) -> list[str]:
    """Precision by precision, as the table says of itself."""
    table = load_table(target)
    errors = [table.mean_error_percent(precision, held_out) for precision in table.precisions]
    assert None not in errors
    return [f"{error:.{digits}f}" for error in errors if error is not None]


def held_out(row: str, target: str) -> None:
    network, family = (stated(target, held_out) for held_out in ("network", "family"))
    assert (
        f"networks held out: {network[0]}% fp32, {network[1]}% int8; "
        f"families held out: {family[0]}%, {family[1]}%"
    ) in row


def test_readmes_targets_state_the_errors_that_their_tables_state() -> None:
    rows = {
        line.split("|")[1].split("`")[1]: line.rpartition(" | ")[2]
        for line in readme().splitlines()
        if line.startswith("| `")
    }
    for target in ("rpi4/tflite-xnnpack", "rpi4/tflite-ruy", "rk3588/tflite-ruy", "pixel3"):
        held_out(rows[target], target)
    for target in ("vim4/tflite-ruy", "odroid-n2/tflite-ruy", "pixel4/tflite-cpu"):
        held_out(rows[target], target)
    fp32, int8 = stated("rpi4/tflite-xnnpack", "unlike")
    assert f"in no fit: {fp32}%, {int8}%" in rows["rpi4/tflite-xnnpack"]
    for target in ("rpi4/tflite-xnnpack-t1", "rpi5/tflite-xnnpack", "rpi5/tflite-xnnpack-t1"):
        (network,), (family,) = (stated(target, out) for out in ("network", "family"))
        assert f"networks held out: {network}%; families held out: {family}%" in rows[target]
    several = [stated(f"pixel4/tflite-cpu-t{n}", "network") for n in (2, 3, 4)]
    fp32, int8 = (", ".join(f"{of[i]}%" for of in several) for i in (0, 1))
    assert f"networks held out: {fp32} fp32; {int8} int8" in rows["pixel4/tflite-cpu-t2"]
    assert (
        f"networks held out: {stated('pixel4/tflite-gpu', 'network')[0]}%"
        in (rows["pixel4/tflite-gpu"])
    )
    batches = {batch: stated(f"v100/tensorrt-b{batch}", "operator") for batch in (1, 32, 64, 128)}
    others = sorted(float(error) for fp32, _, int8 in batches.values() for error in (fp32, int8))
    assert (
        f"fp16 {batches[1][1]}% at batch 1, {batches[32][1]}% at 32; "
        f"fp32 and int8 {others[0]}–{others[-1]}%"
    ) in rows["v100/tensorrt-b1"]


def test_the_benchmark_of_tables_found_what_the_tables_state() -> None:
    for row in read("tables").rows:
        if not row["measure"].startswith("mean error"):
            continue
        target, precision = row["table"].split()
        out = row["measure"].split()[2].replace("convolutions", "operator")
        error = load_table(target).mean_error_percent(precision, out)
        assert error == pytest.approx(100 * row["reached"], abs=0.02)
