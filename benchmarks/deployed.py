"""Does shrinkc take the networks that people deploy?

    python -m benchmarks.deployed [--plan]               # continues where it was stopped
    python -m benchmarks.deployed --families pose,ocr    # these alone
    python -m benchmarks.deployed --only UNet            # those whose name contains it, again
    python -m benchmarks.deployed --table                # only print what there is

Twelve families of small networks, written after their papers (benchmarks/shared/deployed). Each
runs in a process of its own, at most --minutes, and passes

* captured: one graph was made of it;
* ONNX, TFLite: `shrinkc.compile` writes and verifies both files; run here on other inputs, each
  output's largest error is at most 1e-4 of its range;
* pruned: with 70% of the channels (`Goal.channels(0.7)`) the same holds of the pruned network;
* planned, with --plan: for 1.5× on rpi4 in fp32, or as fast as it gets, the damage of every output
  is stated.

A row for each network is kept in out/deployed; benchmarks/results/deployed.json is written from
those of families that are complete.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from benchmarks.shared import results
from benchmarks.shared.common import ROOT, markdown_table, replace_json
from benchmarks.shared.deployed import FAMILIES, networks

KEPT = ROOT / "out" / "deployed"
STAGES = ("captured", "onnx", "tflite", "pruned")
PACKAGES = ("torch", "onnxruntime", "ai-edge-litert")
Row = dict[str, Any]
Network = tuple[str, str]  # family, name


def kept(folder: Path, network: Network) -> Path:
    family, name = network
    return folder / family / f"{name}.json"


def run_one(network: Network, folder: Path, plan: bool, minutes: float) -> Row:
    """In a process of its own, watched; what it had saved when it was stopped stays. A row without
    an end, of a run that was stopped itself, is no row."""
    path = kept(folder, network)
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.deployed_one"])  # torch is imported once
    from benchmarks.deployed_one import empty_row, run

    child = context.Process(target=run, args=(*network, part, plan))
    child.start()
    child.join(minutes * 60)
    stopped = child.is_alive()
    if stopped:
        child.kill()
        child.join()
    row = json.loads(part.read_text()) if part.exists() else empty_row(*network)
    if stopped or child.exitcode:
        said = f"took more than {minutes * 60:.0f} s" if stopped else f"exit code {child.exitcode}"
        row["errors"]["process"] = said
    replace_json(path, row)
    part.unlink(missing_ok=True)
    return row


def run_all(pending: Sequence[Network], arguments: argparse.Namespace) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    with ThreadPoolExecutor(arguments.jobs) as pool:
        futures = {
            pool.submit(run_one, one, arguments.kept, arguments.plan, arguments.minutes): one
            for one in pending
        }
        for count, future in enumerate(as_completed(futures), 1):
            row, (family, name) = future.result(), futures[future]
            passed = " ".join(f"{s}:{'yes' if row.get(s) else 'NO'}" for s in stages([row]))
            seconds = sum(row["stage_seconds"].values())
            print(f"{count}/{len(pending)} {family}/{name:24} {passed} {seconds:.0f} s", flush=True)
            for stage, error in row["errors"].items():
                print(f"    {stage}: {error}", flush=True)


def stages(rows: Iterable[Row]) -> tuple[str, ...]:
    """Those that were tried: plans are made only where they are asked for."""
    return (*STAGES, "planned") if any("planned" in row for row in rows) else STAGES


def complete(rows: Sequence[Row]) -> list[Row]:
    """Those of families of which every network was run."""
    have = {(row["family"], row["name"]) for row in rows}
    whole = {f for f in FAMILIES if all((f, name) in have for name in networks(f))}
    return [row for row in rows if row["family"] in whole]


def summary(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """For each family, and all of them: networks, how many pass each stage and all of STAGES, and
    how many are planned, where that was tried."""
    planned, lines = len(stages(rows)) > len(STAGES), []
    for label in (*FAMILIES, "all"):
        chosen = [row for row in rows if label in (row["family"], "all")]
        if chosen:
            passed = [str(sum(bool(row.get(stage)) for row in chosen)) for stage in STAGES]
            every = sum(all(row.get(stage) for stage in STAGES) for row in chosen)
            share = f"{every} ({100 * every / len(chosen):.0f}%)"
            more = (str(sum(bool(row.get("planned")) for row in chosen)),) if planned else ()
            lines.append((label.replace("_", " "), str(len(chosen)), *passed, share, *more))
    return lines


def report(rows: Sequence[Row]) -> str:
    """The counts, and what failed with its reason."""
    header = ("family", "networks", *STAGES, "all of them", *stages(rows)[len(STAGES) :])
    lines = [markdown_table(header, summary(rows)), ""]
    for row in rows:
        for stage, error in row["errors"].items():
            lines.append(f"{row['family']}/{row['name']}  {stage}: {error}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", help=f"some of {', '.join(FAMILIES)}; commas between them")
    parser.add_argument("--only", metavar="NAME", help="those whose name contains NAME, again")
    parser.add_argument("--plan", action="store_true", help="plan each for 1.5×, too")
    parser.add_argument("--failed", action="store_true", help="those that failed last time, again")
    parser.add_argument("--list", action="store_true", help="print the networks")
    parser.add_argument("--table", action="store_true", help="print the results there are")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=10, help="for one network")
    parser.add_argument("--kept", type=Path, default=KEPT, help="where rows are kept")
    parser.add_argument("--out", type=Path, default=results.result_path("deployed"))
    arguments = parser.parse_args()
    asked = arguments.families.split(",") if arguments.families else FAMILIES
    unknown = [family for family in asked if family not in FAMILIES]
    if unknown:
        parser.error(f"`--families`: {unknown[0]} is none of {', '.join(FAMILIES)}")
    everything = [(family, name) for family in FAMILIES for name in networks(family)]
    word = arguments.only or ""
    chosen = [one for one in everything if one[0] in asked and word in one[1]]
    if arguments.list:
        print("\n".join(f"{family}/{name}" for family, name in chosen))
        return
    if not arguments.table:
        run_all([one for one in chosen if wanted(one, arguments)], arguments)
    paths = [kept(arguments.kept, one) for one in everything]
    rows = [json.loads(path.read_text()) for path in paths if path.exists()]
    whole = complete(rows)
    if whole and not arguments.table:
        results.write(arguments.out, "deployed", whole, PACKAGES)
    print(report([row for row in rows if (row["family"], row["name"]) in chosen]))


def wanted(network: Network, arguments: argparse.Namespace) -> bool:
    """Those without a row, or with one that lacks a plan; all, where --only names them."""
    path = kept(arguments.kept, network)
    if arguments.only or not path.exists():
        return True
    row = json.loads(path.read_text())
    lacks_plan = arguments.plan and "planned" not in row
    return lacks_plan or (arguments.failed and bool(row["errors"]))


if __name__ == "__main__":
    main()
