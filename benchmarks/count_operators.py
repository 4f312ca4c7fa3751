"""What operators cost a Cortex-A72 in instructions, counted in an emulator.

    python tests/arm/build_root.py FOLDER
    python -m benchmarks.count_operators --root FOLDER

Every kind of operator, in a grid of shapes, alone in a file, on one emulated core: with the kernels
of tflite-runtime 2.14 (XNNPACK, and ruy's), of ai-edge-litert 2 (XNNPACK) and of ONNX Runtime. What
an inference of a next-to-empty file executes is taken off. Writes
`latency_tables/kernels/counts.csv`, which XNNPACK's price model reads. In a second run half of the
counts were equal to 0.02%, and 19 of 20 to 0.4%. They are no times.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.shared.common import ROOT
from shrinkc.compiler.export import ops
from shrinkc.compiler.formats.base import Format
from shrinkc.compiler.formats.onnx import ONNX
from shrinkc.compiler.formats.tflite import TFLITE
from shrinkc.compiler.profile.one_operator import one_operator, tiny
from shrinkc.latency_tables.columns import OpColumns
from shrinkc.latency_tables.kernels.counted import COLUMNS, FILE
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.rows import csv_text

sys.path.insert(0, str(ROOT / "tests" / "arm"))
from arm_emulator import (
    LITERT,
    ONNXRUNTIME,
    RUY,
    TFLITE_RUNTIME,
    Emulator,
    EmulatorError,
    Job,
    Result,
)

RUNTIMES = {
    "tflite-2.14/xnnpack": TFLITE_RUNTIME,
    "tflite-2.14/ruy": RUY,
    "litert-2/xnnpack": LITERT,
    "onnxruntime-1.23/mlas": ONNXRUNTIME,
}
MAPS = ((32, 56), (64, 28), (256, 14))  # channels, side
ELEMENTWISE = (
    *("add", "sub", "mul", "div", "maximum", "minimum", "relu", "relu6", "leaky_relu", "prelu"),
    *("hard_swish", "hard_sigmoid", "sigmoid", "silu", "gelu", "gelu_tanh", "tanh", "elu"),
    *("softplus", "mish", "exp", "log", "sqrt", "rsqrt", "abs", "neg", "pow", "softmax"),
    *("concat", "pad", "transpose"),
)
TOKENS = ((192, 196), (64, 784))  # features, rows


def keys() -> Iterator[OpKey]:
    for channels, side in MAPS:
        same = {"in_size": (side, side), "out_size": (side, side)}
        one = {"in_size": (side, side), "out_size": (1, 1)}
        for op in ELEMENTWISE:
            yield OpKey(op, channels, channels, **same)
        for op in ("mean", "sum", "max"):
            yield OpKey(op, channels, channels, **one)
        yield OpKey("slice", channels, channels // 2, **same)
        twice = (2 * side, 2 * side)
        yield OpKey("resize", channels, channels, in_size=(side, side), out_size=twice)
        for kernel in (3, 5):
            window = {"kernel": (kernel, kernel), **same}
            for op in ("max_pool", "avg_pool"):
                yield OpKey(op, channels, channels, **window)
            yield OpKey("depthwise_conv2d", channels, channels, groups=channels, **window)
        for out, kernel in ((channels, 1), (4 * channels, 1), (channels, 3)):
            yield OpKey("conv2d", channels, out, kernel=(kernel, kernel), **same)
        yield OpKey("conv2d", channels, channels, kernel=(3, 3), groups=4, **same)
        up = {"kernel": (2, 2), "stride": (2, 2), "in_size": (side, side), "out_size": twice}
        yield OpKey("conv_transpose2d", channels, channels // 2, **up)
    for features, rows in TOKENS:
        same = {"in_size": (rows, 1), "out_size": (rows, 1)}
        yield OpKey("layer_norm", features, features, **same)
        yield OpKey("linear", features, 4 * features, **same)
        yield OpKey("matmul", features, rows, **same)
        yield OpKey("linear", features, 1000)


def job(program: ops.Program, form: Format) -> Job:
    """Its first input in the file's layout."""
    shape = program.inputs[0].shape
    if form is TFLITE and len(shape) == 4:
        shape = (shape[0], *shape[2:], shape[1])
    sample = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return Job(form.encode(program), (np.abs(sample) + 0.5,), counted=2)


def counted(emulator: Emulator, name: str, wanted: Sequence[OpKey]) -> Iterator[tuple[object, ...]]:
    """Rows of the file. An operator that this runtime refuses is left out, and said."""
    runtime = RUNTIMES[name]
    form = TFLITE if runtime.kind == "tflite" else ONNX
    programs = [tiny(), *map(one_operator, wanted)]
    empty, *found = _in_halves(emulator, name, [job(program, form) for program in programs])
    assert empty is not None, f"{runtime} runs nothing"
    for key, result in zip(wanted, found, strict=True):
        if result is None:
            print(f"{name} refuses {key.op}")
            continue
        moved = int(OpColumns.of((key,)).bytes(1)[0])
        pairs = zip(min(result.counts), min(empty.counts), strict=True)
        own = (max(0, n - none) for n, none in pairs)
        shape = (key.in_channels, key.out_channels, key.kernel[0], key.stride[0], key.groups)
        yield name, key.op, *shape, *key.in_size, *key.out_size, *own, moved, int(result.delegated)


def _in_halves(emulator: Emulator, name: str, jobs: Sequence[Job]) -> list[Result | None]:
    """Together, as starting is what takes long; one that fails is found by halving."""
    try:
        return list(emulator.run(RUNTIMES[name], jobs))
    except EmulatorError:
        if len(jobs) == 1:
            return [None]
        half = len(jobs) // 2
        return _in_halves(emulator, name, jobs[:half]) + _in_halves(emulator, name, jobs[half:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder of tests/arm/build_root")
    emulator = Emulator(parser.parse_args().root)
    wanted = list(keys())
    rows = [row for name in RUNTIMES for row in counted(emulator, name, wanted)]
    FILE.write_text(csv_text(COLUMNS, rows), "utf-8", newline="\n")
    print(f"{len(rows)} rows in {FILE}")


if __name__ == "__main__":
    main()
