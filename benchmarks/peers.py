"""shrinkc beside the tools that a user would take instead: speed and accuracy of what they export.

    python -m benchmarks.peers --data DIR --venvs VENVS [--target host] [--epochs 3]

MobileNetV2-1.0 with ImageNet weights, 300 images without labels for whatever looks at images,
top-1 of the exported files on 400 others, one thread, one machine. Peers run in environments of
their own, made under --venvs from pinned requirements. Methods that train (DepthShrinker, two-stage
DP: reimplemented in shrinkc; Torch-Pruning where the row says so) get the same epochs of
self-distillation on the 300 images, batch norms put back for as long as they take.

`make` writes and judges the files, one after the other; `time` runs all of them in turn, round
after round, loaded anew in every round: --stages make,time. The second needs an idle machine, the
first only for --target host to meet the speedups that it is asked for.
Speedups are medians of the rounds' ratios: over the fp32 original in the same runtime (by
litert-torch or torch.onnx), and over litert-torch's TFLite file for all. A tool that fails is a row
with its error, and tried again by the next run; what was made is kept in out/peers and a stopped
run goes on. Draws docs/peers.png.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

from benchmarks.peers_plot import draw
from benchmarks.shared import results
from benchmarks.shared.common import (
    ROOT,
    add_data_argument,
    median_iqr,
    print_table,
    replace_json,
)
from benchmarks.shared.mobilenet_v2 import IMAGES, images
from benchmarks.shared.peers_rows import ORIGINALS, PEERS, Contender, contenders
from benchmarks.shared.peers_workshop import PeerError, Workshop
from benchmarks.shared.results import Row
from shrinkc.compiler.formats.registry import open_runner
from shrinkc.compiler.measure.bench import bench
from shrinkc.errors import ShrinkcError

OUT = ROOT / "out" / "peers"
IMAGE = ROOT / "docs" / "peers.png"
STAGES = ("make", "time")
Times = Mapping[str, Sequence[Sequence[float]]]  # file → rounds → milliseconds


@dataclass(frozen=True)
class Timed:
    """Over all rounds; speedups are medians of the rounds' ratios."""

    median_ms: float
    iqr_ms: float
    speedup_in_runtime: float
    speedup: float


def row_of(contender: Contender, folder: Path, judging: tuple[Tensor, list[int]]) -> Row:
    """Made and judged once; what failed is tried again."""
    place = folder / "rows" / f"{contender.file}.json"
    if place.exists() and "failure" not in (row := json.loads(place.read_text())):
        return row
    print(f"{contender.tool}, {contender.settings}, {contender.runtime} …", flush=True)
    path = folder / contender.file
    try:
        content, precision = contender.make()
        path.write_bytes(content)
        row = {"precision": precision, "bytes": len(content), "top1": top1(path, *judging)}
    except (ShrinkcError, PeerError) as error:
        row = {"failure": str(error)}
    replace_json(place, row)
    return row


def kept(everyone: Sequence[Contender], folder: Path) -> dict[str, Row]:
    """File → its row so far."""
    found: dict[str, Row] = {}
    for one in everyone:
        place = folder / "rows" / f"{one.file}.json"
        if place.exists():
            told = {n: getattr(one, n) for n in ("tool", "settings", "by", "runtime")}
            found[one.file] = {**told, **json.loads(place.read_text())}
    return found


def top1(path: Path, views: Tensor, labels: Sequence[int]) -> float:
    """Share of the images that the file classifies right, one at a time."""
    runner = open_runner(path)
    channels_last = runner.input_shapes[0][-1] == 3
    right = 0
    for view, label in zip(views, labels, strict=True):
        x = view.permute(1, 2, 0) if channels_last else view
        (scores, *_) = runner.run([np.ascontiguousarray(x[None].numpy())])
        right += int(scores.argmax()) == label
    return right / len(labels)


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
    """All rows, those without a failure with speed and drop. The originals must be among them."""
    files = [file for file, row in rows.items() if "failure" not in row]
    times = timed([folder / file for file in files], rounds, runs)
    for file in files:
        rows[file] |= asdict(summary(file, times))
        rows[file]["drop"] = rows[ORIGINALS[".tflite"]]["top1"] - rows[file]["top1"]
    return list(rows.values())


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
        judging = images(arguments.data / IMAGES / "validation")
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
    last = ("in runtime", "over TFLite", "top-1", "drop", "made by")
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
        *(f"{row['top1']:.2%}", f"{row['drop']:.2%}", row["by"]),
    )


if __name__ == "__main__":
    main()
