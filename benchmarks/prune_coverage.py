"""What shrinkc can prune: architectures of shared/models.py lose 30% of their channels.

    python -m benchmarks.prune_coverage --venvs out/venvs    # continues where it was stopped
    python -m benchmarks.prune_coverage --only shufflenet    # those whose name contains it, again
    python -m benchmarks.prune_coverage --table              # only print what there is

Needs benchmarks/requirements-coverage.txt beside shrinkc. With --venvs Torch-Pruning prunes the
same networks beside it, in an environment of its own, made there when it is missing. Each runs in
a process of its own, at most --minutes and --gigabytes. 30% of every channel group go, those of
the smallest L1 norm (random weights: which ones does not matter here). An architecture passes

* pruned: the smaller network runs, its outputs have their old shapes, at least 15% of the
  parameters are gone;
* masked: in float64 it computes what the network with masked channels computes, to 1e-12 of the
  output's range;
* saved: written to shrinkc's file and read again it gives the same bits;
* ONNX, TFLite: simplified, batch norms folded, written, and run by ONNX Runtime and LiteRT, the
  largest error is at most 1e-4 of the output's range.

Of Torch-Pruning only the first is asked. Its time is that of making the pruner and of one step;
ours that of finding the groups, scoring and slicing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from statistics import median

from benchmarks.converters import Peer, environment_of
from benchmarks.coverage import EVERYTHING, GROUPS, Group, load, run_watched, wanted
from benchmarks.coverage_one import Result, empty_result
from benchmarks.prune_coverage_one import STAGES
from benchmarks.shared import results as result_files
from benchmarks.shared.common import markdown_table
from benchmarks.shared.models import Architecture, architectures

PEER = Peer("torch-pruning", "prune_torch_pruning", "")


def run_one(architecture: Architecture, peer: Path | None, limits: tuple[float, float]) -> Result:
    """Ours, and the peer's under "peer"."""
    command = [sys.executable, "-m", "benchmarks.prune_coverage_one", architecture.key]
    result = run_watched(command, empty_result(architecture, STAGES), *limits)
    if peer is not None:
        command = [str(peer), "-m", PEER.module, architecture.key]
        result["peer"] = run_watched(command, empty_result(architecture, ("pruned",)), *limits)
    return result


def summary(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """Rows of counts: networks, each stage, all of them, the peer's."""
    known: Group = ("that capture knows", lambda r: "captured" not in r["errors"])
    rows: list[tuple[str, ...]] = []
    for label, belongs in (*GROUPS, known, EVERYTHING):
        chosen = [r for r in results if belongs(r)]
        if chosen:
            passed = [str(sum(r[stage] for r in chosen)) for stage in STAGES]
            every = sum(all(r[stage] for stage in STAGES) for r in chosen)
            rows.append(
                (label, str(len(chosen)), *passed, share(every, len(chosen)), peers(chosen))
            )
    return rows


def share(count: int, of: int) -> str:
    return f"{count} ({100 * count / of:.0f} %)"


def peers(results: Sequence[Result]) -> str:
    """Of the networks that the peer has tried."""
    tried = [r["peer"] for r in results if "peer" in r]
    return share(sum(r["pruned"] for r in tried), len(tried)) if tried else "–"


def report(results: Sequence[Result]) -> str:
    """The counts, the times where both succeed, and what failed with its error."""
    header = ("networks", "count", *STAGES, "all", PEER.name)
    lines = [markdown_table(header, summary(results)), ""]
    both = [r for r in results if r["pruned"] and r.get("peer", {}).get("pruned")]
    if both:
        ours, theirs = (
            [one["prune_seconds"] for one in chosen] for chosen in (both, [r["peer"] for r in both])
        )
        slower = sum(a > b for a, b in zip(ours, theirs, strict=True))
        lines.append(
            f"seconds, median (most) of {len(both)}: ours {median(ours):.2f} ({max(ours):.2f}), "
            f"{PEER.name} {median(theirs):.2f} ({max(theirs):.2f}); ours slower on {slower}"
        )
    for result in results:
        for name, one in (("", result), (PEER.name, result.get("peer", {"errors": {}}))):
            for stage, error in one["errors"].items():
                lines.append(f"{result['library']}/{result['name']} {name} {stage}: {error}")
    return "\n".join(lines)


def save(path: Path, results: dict[str, Result]) -> None:
    """In the list's order, replaced at once; a stopped run loses one architecture at most."""
    rows = [results[one.key] for one in architectures() if one.key in results]
    packages = ("torch", "onnxruntime", "ai-edge-litert", "pytorchcv", "timm", "transformers")
    settings = {"peers": {PEER.name: PEER.requirements.read_text().split()}}
    result_files.write(path, "prune_coverage", rows, packages, settings=settings)


def run_all(
    pending: Sequence[Architecture], results: dict[str, Result], arguments: argparse.Namespace
) -> None:
    """Run what is pending, saving after each."""
    peer = environment_of(PEER, arguments.venvs.resolve()) if arguments.venvs else None
    limits = (arguments.minutes, arguments.gigabytes)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        futures = {pool.submit(run_one, one, peer, limits): one for one in pending}
        for count, future in enumerate(as_completed(futures), 1):
            key, result = futures[future].key, future.result()
            results[key] = result
            save(arguments.out, results)
            passed = " ".join(f"{stage}:{'yes' if result[stage] else 'NO'}" for stage in STAGES)
            print(f"{count}/{len(pending)} {key:50} {passed} {peers([result])}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="NAME", help="those whose library/name contains NAME")
    parser.add_argument("--failed", action="store_true", help="those that failed last time")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("--table", action="store_true", help="print the results there are")
    parser.add_argument("--venvs", type=Path, help="folder for Torch-Pruning's environment")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--gigabytes", type=float, default=6)
    parser.add_argument("--out", type=Path, default=result_files.result_path("prune_coverage"))
    arguments = parser.parse_args()
    results = {} if arguments.fresh else load(arguments.out)
    if not arguments.table:
        chosen = [one for one in architectures() if (arguments.only or "") in one.key]
        pending = [one for one in chosen if wanted(results.get(one.key), arguments)]
        run_all(pending, results, arguments)
    print(report([results[one.key] for one in architectures() if one.key in results]))


if __name__ == "__main__":
    main()
