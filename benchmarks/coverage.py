"""What shrinkc can compile: every architecture of shared/models.py captured, folded and exported.

    python -m benchmarks.coverage                 # continues where it was stopped
    python -m benchmarks.coverage --only resnet   # those whose name contains it, again
    python -m benchmarks.coverage --table         # only print what results/coverage.json holds

Needs benchmarks/requirements-coverage.txt beside shrinkc. Each architecture runs in a process of
its own, at most --minutes and --gigabytes. An architecture passes a stage when

* captured: the canonical graph computes what the model does (at batch size 2, unless the model
  itself fixes the batch it was captured with, which `dynamic_batch` then says);
* folded: after simplify and fold-batch-norm the graph computes the same to 1e-9 in float64, and
  every batch norm still there is reported with a reason;
* ONNX, TFLite: written without torch.onnx's help, run by ONNX Runtime (batch 2) and LiteRT
  (batch 1), the largest error is at most 1e-4 of the output's range.

Beyond these four, `merged`: every linear segment that can be merged is, to 1e-9 in float64, and the
result is equal as ONNX.

`float32_error` is the model's own rounding: its float32 against its float64 outputs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from benchmarks.coverage_one import STAGES, Result, empty_result
from benchmarks.shared import results as result_files
from benchmarks.shared.common import ROOT, markdown_table
from benchmarks.shared.models import Architecture, architectures


def run_one(architecture: Architecture, minutes: float, gigabytes: float) -> Result:
    """In a process of its own, watched."""
    command = [sys.executable, "-m", "benchmarks.coverage_one", architecture.key]
    return run_watched(command, empty_result(architecture), minutes, gigabytes)


def run_watched(
    command: Sequence[str], nothing: Result, minutes: float, gigabytes: float
) -> Result:
    """What `command` writes to the file that it gets as its last argument; `nothing` if nothing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        log = Path(folder) / "log"
        with log.open("w") as stream:
            child = subprocess.Popen(
                [*command, str(path)],
                cwd=ROOT,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            )
        killed = _watch(child, minutes * 60, gigabytes)
        result = json.loads(path.read_text()) if path.exists() else nothing
        if killed or child.returncode:
            last = log.read_text(errors="replace").strip().rpartition("\n")[2][-300:]
            result["errors"]["process"] = killed or f"exit code {child.returncode}: {last}"
        return result


def _watch(child: subprocess.Popen[bytes], seconds: float, gigabytes: float) -> str | None:
    """Wait for the end; the reason if it had to be killed."""
    end = time.monotonic() + seconds
    while True:
        try:
            child.wait(timeout=0.5)
            return None
        except subprocess.TimeoutExpired:
            reason = f"took more than {seconds:.0f} s" if time.monotonic() > end else None
            if _resident_gigabytes(child.pid) > gigabytes:
                reason = f"took more than {gigabytes:g} GB"
            if reason:
                child.kill()
                child.wait()
                return reason


def _resident_gigabytes(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024**2


Group = tuple[str, Callable[[Result], bool]]
GROUPS: tuple[Group, ...] = (
    ("pytorchcv", lambda r: r["library"] == "pytorchcv"),
    ("timm", lambda r: r["library"] == "timm"),
    ("transformers", lambda r: r["library"] == "transformers"),
    ("without attention", lambda r: not r.get("attention", False)),
    ("with attention", lambda r: r.get("attention", False)),
)
EVERYTHING: Group = ("all", lambda _: True)


def summary(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """Rows of counts: networks, each stage, all four."""
    rows: list[tuple[str, ...]] = []
    for label, belongs in (*GROUPS, EVERYTHING):
        chosen = [r for r in results if belongs(r)]
        if chosen:
            passed = [sum(r[stage] for r in chosen) for stage in STAGES]
            every = sum(all(r[stage] for stage in STAGES) for r in chosen)
            share = f"{every} ({100 * every / len(chosen):.0f} %)"
            rows.append((label, str(len(chosen)), *map(str, passed), share))
    return rows


def report(results: Sequence[Result]) -> str:
    """The counts, and what failed with its error."""
    header = ("networks", "count", "captured", "BN folded", "ONNX equal", "TFLite equal", "all")
    lines = [markdown_table(header, summary(results)), ""]
    for result in results:
        for stage, error in result["errors"].items():
            lines.append(f"{result['library']}/{result['name']}  {stage}: {error}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="NAME", help="those whose library/name contains NAME")
    parser.add_argument("--failed", action="store_true", help="those that failed last time")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("--list", action="store_true", help="print the architectures")
    parser.add_argument("--table", action="store_true", help="print the results there are")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--gigabytes", type=float, default=6)
    parser.add_argument("--out", type=Path, default=result_files.result_path("coverage"))
    arguments = parser.parse_args()
    chosen = [one for one in architectures() if (arguments.only or "") in one.key]
    if arguments.list:
        print("\n".join(f"{one.key}  {one.input_shape}  {one.parameters:,}" for one in chosen))
        return
    results = {} if arguments.fresh else load(arguments.out)
    if not arguments.table:
        pending = [one for one in chosen if wanted(results.get(one.key), arguments)]
        run_all(pending, results, arguments)
    listed = [results[one.key] for one in architectures() if one.key in results]
    print(report(listed))


def wanted(earlier: Result | None, arguments: argparse.Namespace) -> bool:
    """Those without a result; with --failed also failures, with --only everything chosen."""
    if earlier is None or arguments.only:
        return True
    return arguments.failed and bool(earlier["errors"])


def load(path: Path) -> dict[str, Result]:
    """Earlier results, by library/name."""
    rows = result_files.earlier_rows(path)
    return {f"{row['library']}/{row['name']}": row for row in rows}


def save(path: Path, results: dict[str, Result]) -> None:
    """In the list's order, replaced at once; a stopped run loses one architecture at most."""
    rows = [results[one.key] for one in architectures() if one.key in results]
    packages = ("torch", "onnxruntime", "ai-edge-litert", "pytorchcv", "timm", "transformers")
    result_files.write(path, "coverage", rows, packages)


def run_all(
    pending: Sequence[Architecture], results: dict[str, Result], arguments: argparse.Namespace
) -> None:
    """Run what is pending, saving after each."""
    with ThreadPoolExecutor(arguments.jobs) as pool:
        futures = {
            pool.submit(run_one, one, arguments.minutes, arguments.gigabytes): one
            for one in pending
        }
        for count, future in enumerate(as_completed(futures), 1):
            result = future.result()
            results[futures[future].key] = result
            save(arguments.out, results)
            passed = " ".join(f"{stage}:{'yes' if result[stage] else 'NO'}" for stage in STAGES)
            seconds = sum(result["stage_seconds"].values())
            key = futures[future].key
            print(f"{count}/{len(pending)} {key:50} {passed} {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
