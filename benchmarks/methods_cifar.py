"""All methods of docs/methods.md side by side on CIFAR-10, with the same images and epochs.

    python -m benchmarks.methods_cifar --data DIR [--venvs VENVS] [--seeds 3] [--minutes 180]
    python -m benchmarks.methods_cifar --data DIR --length published    # on a machine with a GPU

Methods that shrink width are asked for half the MACs, and for an fp32 file that is measured to be
1.5 times as fast here (TFLite, one thread, in turns with the original); those that shrink depth for
int8 files 1.5 and 2 times as fast as the original's int8 file. Every method trains on the same
images for the same number of epochs, all its trainings together, with labels and the original as
teacher; controls from scratch have labels alone, and Scratch-B trains longer, as it is defined.
Trials of single options, and networks that a search judges, come beside, and `minutes` holds them.
"+ chains" is over-parameterised in the last training. A method runs at each of three learning
rates, 2,000 other training images choose its own, with the first seed, and the 10,000 test images
judge that one network alone: in PyTorch, and as an int8 file. With --venvs Torch-Pruning is beside
them.

`short` is for two cores, `published` is as long as papers train, `trial` shows in minutes that all
of it works. The cheapest rows are made first, one after the other; --only chooses methods, networks
and goals. What is made is kept in out/methods_cifar: a run that was stopped, by Ctrl-C or after
--minutes, shows the rows that it has, and goes on when it is started again. Started twice, two runs
share the rows. A method that fails is a row with its reason; --again tries it once more.
"""

from __future__ import annotations

import argparse
import json
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree
from statistics import median
from subprocess import CalledProcessError

import torch

from benchmarks.methods_plot import draw
from benchmarks.prune_accuracy import points as files_in
from benchmarks.shared import cifar, results, tuning_cifar
from benchmarks.shared.common import ROOT, add_data_argument, print_table, replace_json
from benchmarks.shared.fields import TEXT
from benchmarks.shared.methods_rows import AIMS, PEER, ROWS, Aim, Assignment, Row
from benchmarks.shared.methods_run import LENGTHS, NETWORKS, OUT, Run, parts
from benchmarks.shared.tuning_cifar import deployed, judged, top1
from shrinkc.compiler.cost.keys import macs
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.measure.speedup import host_file, speedup_of
from shrinkc.compiler.model_file.file import load_model_file, save_model
from shrinkc.compiler.support.disk.lock import alone_in, locked
from shrinkc.compiler.support.text import named, one_line
from shrinkc.errors import InputError, ShrinkcError

RATES = (0.002, 0.01, 0.05)


DAY_S = 24 * 3600.0


@dataclass(frozen=True)
class Point:
    """One row: a method, what is asked of it, and a seed."""

    run: Run
    network: str
    row: Row
    aim: Aim
    seed: int

    @property
    def name(self) -> str:
        words = (self.row.method, self.aim.name, str(self.seed))
        return "-".join(words).lower().replace(", ", "-").replace(" + ", "-").replace(" ", "-")

    @property
    def told(self) -> results.Row:
        length, aim = LENGTHS[self.run.length], self.aim
        named = {"network": self.network, "by": self.row.by, "method": self.row.method}
        asked = {"goal": aim.name, "precision": aim.precision, "seed": self.seed}
        epochs = {"epochs": length.epochs} if self.row.equal else {}
        return {**named, **asked, **epochs, "images": length.images}

    def place(self, kind: str, name: str) -> Path:
        return self.run.folder(self.network) / kind / name

    @property
    def result(self) -> Path:
        return self.place("rows", f"{self.name}.json")

    @property
    def work(self) -> Path:
        """Of all rates: what does not depend on them is made once."""
        return self.place("work", self.name)

    def trained(self, rate: float) -> Path:
        """What is known of the network at one learning rate, which is beside it."""
        return self.place("rates", f"{self.name}-{rate:g}.json")

    @property
    def cost(self) -> int:
        return NETWORKS[self.network].cost * (1 + self.row.cost)

    def rates(self) -> tuple[float, ...]:
        """To try; with later seeds what the first one chose, or nothing where it failed."""
        if self.seed == 0:
            return RATES
        first = read(replace(self, seed=0).result)
        return (first["learning_rate"],) if "learning_rate" in first else ()

    def complete(self) -> None:
        """Do what is missing."""
        result = read(self.result)
        if result and not ("failure" in result and self.run.again):
            return
        found: list[tuple[float, float]] = []
        for rate in self.rates():
            path = self.trained(rate)
            known = read(path)
            if not known or ("failure" in known and self.run.again):
                print(f"{self.network}: {self.name}, rate {rate:g}", flush=True)
                known = attempt(lambda r=rate: self.train(r))
                replace_json(path, known)
            if "failure" in known:  # a larger one would fail as well
                break
            found.append((known["held_out_top1"], rate))
        if found:
            _, rate = max(found)
            known = read(self.trained(rate))
            row = known | attempt(lambda: self.judge(rate))
            replace_json(self.result, self.told | row)
            rmtree(self.work, ignore_errors=True)
        elif self.rates():
            replace_json(self.result, self.told | known)

    def train(self, rate: float) -> results.Row:
        started = time.monotonic()
        base, facts = self.run.base(self.network)
        looked, learnt, choose = parts(self.run.data, LENGTHS[self.run.length].images, self.seed)
        folder = self.run.folder(self.network)
        graph = self.row.make(
            Assignment(
                *(self.network, base, folder / "base.pt", facts["int8_speedup"]),
                *(looked, learnt, self.aim, LENGTHS[self.run.length], rate, self.seed),
                *(self.work, self.run.venvs),
            )
        )
        save_model(graph.cpu(), self.trained(rate).with_suffix(".safetensors"), {})
        return {
            "learning_rate": rate,
            "held_out_top1": top1(deployed(graph), choose),
            "seconds": time.monotonic() - started,
        }

    def judge(self, rate: float) -> results.Row:
        """Against the original, int8 against int8 and fp32 against fp32."""
        original, graph = (
            deployed(one)
            for one in (
                self.run.base(self.network)[0],
                load_model_file(self.trained(rate).with_suffix(".safetensors"))[0],
            )
        )
        learn, _, test = tuning_cifar.split(self.run.data)
        int8 = cifar.int8_file(graph, learn)
        pairs = {
            "fp32": (host_file(original, "fp32", ()), host_file(graph, "fp32", ())),
            "int8": (cifar.int8_file(original, learn), int8),
        }
        accuracy = {"fp32": judged(self.run.data, graph), "int8": cifar.top1_of_file(int8, test)}
        return {
            "macs": macs(lower(graph)) / macs(lower(original)),
            "measured": {
                precision: {"speedup": speedup_of(*pair), "top1": accuracy[precision]}
                for precision, pair in pairs.items()
            },
        }


def attempt(make: Callable[[], results.Row]) -> results.Row:
    """What it gives, or why it fails: a run of days goes on with the next row."""
    try:
        return make()
    except ShrinkcError as error:
        said = one_line(error, 300)
    except CalledProcessError as error:
        said = f"{PEER.name} ended with exit code {error.returncode}"
    except Exception as error:
        traceback.print_exc()
        said = named(error)
    print(f"failed: {said}", flush=True)
    return {"failure": said if TEXT.holds(said) else "see what was printed: it names a file"}


def read(path: Path) -> results.Row:
    """{} where it is not there yet."""
    return json.loads(path.read_text()) if path.exists() else {}


def points(run: Run, seeds: int, only: set[str]) -> list[Point]:
    """The cheapest first, whole seeds. Raises InputError for a name in `only` that nothing has."""
    networks = [n for n in NETWORKS if n in only] or list(LENGTHS[run.length].networks)
    aims = [aim for aim in AIMS if aim.name in only] or list(AIMS)
    rows = [row for row in ROWS if row.method in only] or list(ROWS)
    known = {*networks, *(aim.name for aim in aims), *(row.method for row in rows)}
    if only - known:
        every = ", ".join((*NETWORKS, *(a.name for a in AIMS), *(r.method for r in ROWS)))
        raise InputError(f"--only {', '.join(sorted(only - known))}: give some of {every}")
    found = [
        Point(run, network, row, aim, seed)
        for seed in range(seeds)
        for network in networks
        for row in rows
        for aim in aims
        if row.of == aim.of and (row.by != PEER.name or run.venvs is not None)
    ]
    if not found:
        raise InputError("nothing is asked for: --only has methods for other goals, or no --venvs")
    return sorted(found, key=lambda point: (point.seed, point.cost))


def worked(run: Run, wanted: list[Point]) -> None:
    """One after the other; what another run is at is left to it."""
    for network in dict.fromkeys(point.network for point in wanted):
        folder = run.folder(network)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "base.lock", folder, wait_s=DAY_S):
            run.base(network)
    for point in wanted:
        with ExitStack() as stack:
            try:
                lock = point.place("locks", f"{point.name}.lock")
                stack.enter_context(alone_in(run.folder(point.network), lock))
            except InputError as error:
                print(error)
                continue
            point.complete()


def stop_after(minutes: float | None) -> None:
    """As Ctrl-C would, which keeps the state of a training."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes if minutes else 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("--venvs", type=Path, help="folder for Torch-Pruning's environment")
    parser.add_argument("--length", choices=LENGTHS, default="short")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="+", default=[], help="methods, networks, goals")
    parser.add_argument("--minutes", type=float, help="stop after so many")
    parser.add_argument("--again", action="store_true", help="try what failed once more")
    parser.add_argument("--threads", type=int, default=1, help="of trainings")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    run = Run(arguments.data, arguments.venvs, arguments.length, arguments.again)
    try:
        wanted = points(run, arguments.seeds, set(arguments.only))
    except InputError as error:
        parser.error(str(error))
    stop_after(arguments.minutes)
    try:
        worked(run, wanted)
    except KeyboardInterrupt:
        print("stopped; the same command goes on", flush=True)
    finally:
        stop_after(None)
    written(run)


def kept(length: str) -> Iterator[results.Row]:
    """All rows of a length, the originals first."""
    for network in NETWORKS:
        folder = OUT / length / network
        if (folder / "base.json").exists():
            for row in (read(folder / "base.json"), *files_in(folder / "rows")):
                yield {"length": length, **row}


def written(run: Run) -> None:
    """Results of all lengths, table and image of one; those of a trial go beside what is kept."""
    trial, rows = run.length == "trial", list(kept(run.length))
    if not any("goal" in row for row in rows):
        print("no row is finished yet")
        return
    beside = OUT / "trial" if trial else results.RESULTS
    every = rows if trial else [*kept("short"), *kept("published")]
    packages = ("torch", "ai-edge-litert", "ai-edge-quantizer")
    results.write(beside / "methods_cifar.json", "methods_cifar", every, packages)
    show(rows)
    name = "methods" if run.length == "short" else f"methods_{run.length}"
    draw(rows, (OUT / "trial" if trial else ROOT / "docs") / f"{name}.png")


def show(rows: list[results.Row]) -> None:
    lines: list[tuple[str, ...]] = []
    for row in rows:
        if "goal" not in row:
            accuracy = f"{row['top1']:.2%}", "", f"{row['top1_int8']:.2%}"
            lines.append((row["network"], "", "original", "", "", *accuracy, "", ""))
    named = {(r["network"], r["goal"], r["by"], r["method"]) for r in rows if "goal" in r}
    lines += [line for key in sorted(named) for line in [cells(key, rows)]]
    fp32, int8 = (f"{precision} against {precision}" for precision in ("fp32", "int8"))
    header = ("network", "goal", "method", "MACs", fp32, "top-1", int8, "top-1", "rate", "minutes")
    print_table(header, lines)


def cells(key: tuple[str, ...], rows: list[results.Row]) -> tuple[str, ...]:
    """Of all seeds: medians, with the smallest and the largest."""
    network, goal, by, method = key
    same = [
        row
        for row in rows
        if (row["network"], row.get("goal"), row.get("by"), row["method"]) == key
    ]
    there = [row for row in same if "measured" in row]
    first = (network, goal, method if by == "ours" else f"{by} {method}")
    if not there:
        return (*first, *[""] * 5, same[0]["failure"], "")

    def of(precision: str) -> tuple[str, str]:
        measured = [row["measured"][precision] for row in there]
        speedups, accuracies = ([m[name] for m in measured] for name in ("speedup", "top1"))
        return spread(speedups, 1, "×"), spread(accuracies, 100, "%")

    return (
        *(*first, spread([row["macs"] for row in there], 1, "")),
        *(*of("fp32"), *of("int8")),
        f"{there[0]['learning_rate']:g}",
        f"{median(row['seconds'] for row in there) / 60:.1f}",
    )


def spread(values: list[float], factor: float, unit: str) -> str:
    """The median; of several also the range."""
    low, middle, high = (factor * x for x in (min(values), median(values), max(values)))
    return f"{middle:.2f}{unit}" + (f" ({low:.2f}–{high:.2f})" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
