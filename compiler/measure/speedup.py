"""Milliseconds of changed networks on this machine, beside the network that they came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from torch import Tensor, fx

from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.export.tflite.write import write_tflite
from shrinkc.compiler.formats.tflite import TfliteRunner, quantize_tflite
from shrinkc.compiler.measure.bench import bench
from shrinkc.compiler.quantise.options import Int8
from shrinkc.compiler.quantise.prepare import Prepared, prepare
from shrinkc.compiler.support.choices import Int8Tuning

RUNS, SECONDS = 2000, 5.0  # of a pair of files, at most


def tflite_file(
    graph: fx.GraphModule,
    precision: str,
    inputs: Sequence[tuple[Tensor, ...]],
    tuning: Int8Tuning = "none",
    keep_fp32: tuple[str, ...] = (),
) -> bytes:
    """The network as TFLite. `inputs`: what int8 is calibrated on. Raises ExportError.

    `tuning` changes an int8 file's accuracy and takes time, its speed stays the same. `keep_fp32`:
    layers that stay fp32 in it.
    """
    if precision == "fp32":
        return write_tflite(lower(graph))
    return int8_file(prepare(graph, inputs, Int8(tuning, keep_fp32, noise=False)), inputs[:8])


def int8_file(prepared: Prepared, few: Sequence[tuple[Tensor, ...]]) -> bytes:
    """The TFLite file of a network that is ready for int8; `few`: calibration inputs."""
    made = prepared.quantisation
    program, kept = made.program, made.keep_fp32
    return quantize_tflite(write_tflite(program), program, few, made.ranges, kept)


def alone_ms(model: bytes, threads: int = 1) -> float:
    """Median of a TFLite file, run on its own."""
    runner = TfliteRunner(model, threads)
    return bench([runner], runs=RUNS, warmup=10, max_seconds=SECONDS)[0].median_ms


def speedup_of(before: bytes, after: bytes, threads: int = 1) -> float:
    """Median ratio of two TFLite files, timed in turns."""
    pair = [TfliteRunner(model, threads) for model in (before, after)]
    first, second = bench(pair, runs=RUNS, warmup=10, max_seconds=SECONDS)
    return median(a / b for a, b in zip(first.times_ms, second.times_ms, strict=True))


@dataclass(frozen=True)
class Measuring:
    """A changed network's milliseconds: those of the original by the table, over the speedup that
    its TFLite file was measured at. So goals mean the same by table and by measuring.

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
        changed = tflite_file(graph, self.precision, self.inputs, keep_fp32=self.keep_fp32)
        return speedup_of(self.original, changed, self.threads)


def measuring(
    original: fx.GraphModule,
    original_ms: float,
    precision: str,
    inputs: Sequence[tuple[Tensor, ...]],
    threads: int = 1,
) -> Measuring:
    """Of changes to a deployed network."""
    file = tflite_file(original, precision, inputs)
    return Measuring(file, original_ms, precision, inputs, threads)
