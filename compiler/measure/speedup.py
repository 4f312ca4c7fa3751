"""Milliseconds of changed networks on this machine, beside the network that they came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from torch import Tensor, fx

from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.formats.registry import HOST_FORMAT
from shrinkc.compiler.measure.bench import bench
from shrinkc.compiler.quantise.options import Int8
from shrinkc.compiler.quantise.prepare import prepare
from shrinkc.compiler.support.choices import Int8Tuning
from shrinkc.compiler.support.progress import Silent
from shrinkc.compiler.verify.int8_files import Making, int8_files

RUNS, SECONDS = 2000, 5.0  # of a pair of files, at most


def host_file(
    graph: fx.GraphModule,
    precision: str,
    inputs: Sequence[tuple[Tensor, ...]],
    tuning: Int8Tuning = "none",
    keep_fp32: tuple[str, ...] = (),
) -> bytes:
    """The network in HOST_FORMAT. `inputs`: what int8 is calibrated on. Raises ExportError.

    `tuning` changes an int8 file's accuracy and takes time, its speed stays the same. `keep_fp32`:
    layers that stay fp32 in it, beside those that cannot be int8.
    """
    if precision == "fp32":
        return HOST_FORMAT.write(lower(graph)).data
    options = Int8(tuning, keep_fp32, noise=False)
    making = Making((HOST_FORMAT,), inputs, options, Silent(), judged=False)
    _, files = int8_files(prepare(graph, inputs, options), making)
    return files[HOST_FORMAT.name].data


def alone_ms(model: bytes, threads: int = 1) -> float:
    """Median of a file in HOST_FORMAT, run on its own."""
    runner = HOST_FORMAT.open(model, threads)
    return bench([runner], runs=RUNS, warmup=10, max_seconds=SECONDS)[0].median_ms


def speedup_of(before: bytes, after: bytes, threads: int = 1) -> float:
    """Median ratio of two files in HOST_FORMAT, timed in turns."""
    pair = [HOST_FORMAT.open(model, threads) for model in (before, after)]
    first, second = bench(pair, runs=RUNS, warmup=10, max_seconds=SECONDS)
    return median(a / b for a, b in zip(first.times_ms, second.times_ms, strict=True))


@dataclass(frozen=True)
class Measuring:
    """A changed network's milliseconds: those of the original by the table, over the speedup that
    its file was measured at. So goals mean the same by table and by measuring.

    original   its file in fp32
    precision  of the changed network
    inputs     what int8 files are calibrated on; a few say enough of speed
    keep_fp32  layers that stay fp32 in them
    """

    original: bytes
    original_ms: float
    precision: str
    inputs: Sequence[tuple[Tensor, ...]]
    threads: int = 1
    keep_fp32: tuple[str, ...] = ()

    def __call__(self, graph: fx.GraphModule) -> float:
        return self.original_ms / self.speedup(graph)

    def speedup(self, graph: fx.GraphModule) -> float:
        """Over the original."""
        changed = host_file(graph, self.precision, self.inputs, keep_fp32=self.keep_fp32)
        return speedup_of(self.original, changed, self.threads)


def measuring(
    original: fx.GraphModule,
    original_ms: float,
    precision: str,
    inputs: Sequence[tuple[Tensor, ...]],
    threads: int = 1,
) -> Measuring:
    """Of changes to a deployed network, beside which it runs in fp32."""
    return Measuring(host_file(original, "fp32", ()), original_ms, precision, inputs, threads)
