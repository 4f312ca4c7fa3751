"""shrinkc beside the tools that a user would take instead: speed and accuracy of what they export.

    python -m benchmarks.peers --data DIR --venvs VENVS [--target host] [--epochs 3]

MobileNetV2-1.0 with ImageNet weights, 300 images without labels for whatever looks at images,
top-1 of the exported files on 400 others, one thread, one machine. Peers run in environments of
their own, made under --venvs from pinned requirements. Methods that train (DepthShrinker, two-stage
DP, HALP, MDP: reimplemented in shrinkc; Torch-Pruning where the row says so) get the same epochs of
self-distillation on the 300 images, batch norms put back for as long as they take; Practise gets as
many steps of its own. What needs labels has the network's own answers. Files for smaller images,
by `--resolutions` or of the network as it is, are judged on the same part of the same images.

`make` writes and judges the files, one after the other; `time` runs all of them in turn, round
after round, loaded anew in every round: --stages make,time. The second needs an idle machine, the
first only for --target host to meet the speedups that it is asked for.
Speedups are medians of the rounds' ratios: over the fp32 original in the same runtime (by
litert-torch or torch.onnx), and over litert-torch's TFLite file for all. Drops of top-1 are from
litert-torch's fp32 file, image by image, with 95% intervals. A tool that fails is a row
with its error, and tried again by the next run; what was made is kept in out/peers and a stopped
run goes on. Draws docs/peers.png.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch

from benchmarks.peers_plot import draw
from benchmarks.shared import results
from benchmarks.shared.common import (
    ROOT,
    add_data_argument,
    median_iqr,
    print_table,
    replace_json,
)
from benchmarks.shared.peers_judging import Judging, judging_of, lost, right
from benchmarks.shared.peers_rows import ORIGINALS, PEERS, Contender, contenders
from benchmarks.shared.peers_workshop import PeerError, Workshop
from benchmarks.shared.results import Row
from shrinkc.compiler.formats.registry import open_runner
from shrinkc.compiler.measure.bench import bench
from shrinkc.errors import ShrinkcError

OUT = ROOT / "out" / "peers"
IMAGE = ROOT / "docs" / "peers.png"
STAGES = ("make", "time")
PATH = re.compile(r"(?<![\w.])/(?:[\w.-]+/)+")  # of this machine, in front of a file's name
Times = Mapping[str, Sequence[Sequence[float]]]  # file → rounds → milliseconds


@dataclass(frozen=True)
class Timed:
    """Over all rounds; speedups are medians of the rounds' ratios."""

    median_ms: float
    iqr_ms: float
    speedup_in_runtime: float
    speedup: float


def row_of(contender: Contender, folder: Path, judging: Judging) -> Row:
    """Made and judged once; what failed is tried again. `right`: image by image."""
    place, path = folder / "rows" / f"{contender.file}.json", folder / contender.file
    row: Row = json.loads(place.read_text()) if place.exists() else {"failure": ""}
    if "right" in row:
        return row
    print(f"{contender.tool}, {contender.settings}, {contender.runtime} …", flush=True)
    try:
        if "failure" in row:
            content, precision = contender.make()
            path.write_bytes(content)
            row = {"precision": precision, "bytes": len(content)}
        found = right(path, judging, contender.closer())
        row |= {"top1": sum(found) / len(found), "right": found}
    except (ShrinkcError, PeerError) as error:
        row = {"failure": PATH.sub("", str(error))}
    replace_json(place, row)
    return row


def kept(everyone: Sequence[Contender], folder: Path) -> dict[str, Row]:
    """File → its row so far. Those that an earlier version judged have to be judged again."""
    found: dict[str, Row] = {}
    for one in everyone:
        place = folder / "rows" / f"{one.file}.json"
        if place.exists():
            told = {n: getattr(one, n) for n in ("tool", "settings", "by", "runtime")}
            row = {**told, **json.loads(place.read_text())}
            if not row.keys() & {"right", "failure"}:
                raise SystemExit(f"{one.file} was not judged image by image: run --stages make")
            found[one.file] = row
    return found


def timed(paths: Sequence[Path], rounds: int, runs: int) -> dict[str, list[tuple[float, ...]]]:
    """All files in turn, forwards and backwards."""
    times: dict[str, list[tuple[float, ...]]] = {path.name: [] for path in paths}
    for index in range(rounds):
        for path in paths if index % 2 == 0 else reversed(paths):
            (timing,) = bench([open_runner(path)], runs=runs, warmup=5)
            times[path.name].append(timing.times_ms)
    return times


def summary(file: str, times: Times) -> Timed:
    def over(original: str) -> float:
        pairs = zip(times[original], times[file], strict=True)
        return median(median(a) / median(b) for a, b in pairs)

    every = [ms for one in times[file] for ms in one]
    return Timed(*median_iqr(every), over(ORIGINALS[Path(file).suffix]), over(ORIGINALS[".tflite"]))


def with_times(rows: dict[str, Row], folder: Path, rounds: int, runs: int) -> list[Row]:
    """All rows, those without a failure with speed and drop, that of all but the original with its
    interval. The originals must be among them."""
    files = [file for file, row in rows.items() if "failure" not in row]
    times = timed([folder / file for file in files], rounds, runs)
    original = ORIGINALS[".tflite"]
    for file in files:
        drop, interval = lost(rows[original]["right"], rows[file]["right"])
        rows[file] |= {**asdict(summary(file, times)), "drop": drop}
        if file != original:
            rows[file]["interval"] = list(interval)
    return [{name: v for name, v in row.items() if name != "right"} for row in rows.values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("--venvs", type=Path, required=True, help="folder for the environments")
    parser.add_argument("--target", default="host", help="whose time shrinkc plans for")
    parser.add_argument("--epochs", type=int, default=3, help="of every training")
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--runs", type=int, default=20, help="of each file in a round")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    target, epochs = arguments.target, arguments.epochs
    folder = OUT / f"{target.replace('/', '-')}-{epochs}"
    folder.mkdir(parents=True, exist_ok=True)
    everyone = contenders(Workshop(arguments.data, arguments.venvs, target, epochs, folder))
    if "make" in arguments.stages.split(","):
        judging = judging_of(arguments.data)
        for contender in everyone:
            row_of(contender, folder, judging)
    if "time" in arguments.stages.split(","):
        settings = {"target": target, "epochs": epochs, "threads": 1}
        settings |= {"rounds": arguments.rounds, "runs": arguments.runs}
        rows = with_times(kept(everyone, folder), folder, arguments.rounds, arguments.runs)
        written(settings, rows)


def written(settings: Row, rows: list[Row]) -> None:
    """Results, table and image."""
    packages = ("shrinkc", "torch", "onnxruntime", "ai-edge-litert", "ai-edge-quantizer")
    pins = {peer.name: peer.requirements.read_text().split() for peer in PEERS}
    path = results.result_path("peers")
    results.write(path, "peers", rows, packages, settings={"peers": pins, **settings})
    first = ("tool", "settings", "runtime", "precision", "MB", "ms (IQR)")
    last = ("in runtime", "over TFLite", "top-1", "drop (95%)", "made by")
    print_table((*first, *last), [cells(row) for row in rows])
    draw(rows, IMAGE)


def cells(row: Row) -> tuple[str, ...]:
    first = (row["tool"], row["settings"], row["runtime"])
    if "failure" in row:
        return (*first, "", "", "", "", "", row["failure"], "", row["by"])
    return (
        *(*first, row["precision"], f"{row['bytes'] / 1e6:.1f}"),
        f"{row['median_ms']:.2f} ({row['iqr_ms']:.2f})",
        *(f"{row['speedup_in_runtime']:.2f}×", f"{row['speedup']:.2f}×"),
        *(f"{row['top1']:.2%}", dropped(row), row["by"]),
    )


def dropped(row: Row) -> str:
    """With its interval, if it has one."""
    ends = " to ".join(f"{end:.2%}" for end in row.get("interval", ()))
    return f"{row['drop']:.2%}" + (f" ({ends})" if ends else "")


if __name__ == "__main__":
    main()
