"""Build the `v100` tables: `python -m shrinkc.latency_tables.makers.v100 --data DIR [--out DIR]`.

DIR holds `conv_fp32.txt`, `conv_fp16.txt` and `conv_int8.txt` of alibaba/lightweight-neural-
architecture-search (Apache-2.0): one convolution a line, timed with TensorRT on an NVIDIA V100,

    {Regular|Depthwise, batch, in_c, in_h, in_w, out_c, kernel, stride, fused} ms

`fused`: with its activation. Every batch size becomes a table.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from shrinkc.errors import TableError
from shrinkc.latency_tables.files import Validation
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.measured import Measurement
from shrinkc.latency_tables.meta import TableMeta
from shrinkc.latency_tables.store import write_table
from shrinkc.latency_tables.table import LatencyTable

BATCHES = (1, 32, 64, 128)
HELD_OUT_SHARE, SEED = 0.1, 0
_LINE = re.compile(r"\{(Regular|Depthwise),(\d+(?:,\d+){7})\} ([\d.eE+-]+)")

META = TableMeta(
    kind="measured",
    device="NVIDIA V100",
    soc="NVIDIA V100 (GV100)",
    runtime="TensorRT",
    runtime_version="unknown",
    threads=1,
    governor="unknown",
    precisions=("fp32", "fp16", "int8"),
    batch=1,
    date="unknown",
    source="alibaba/lightweight-neural-architecture-search, commit 8ccaf88, single convolutions",
    licence="Apache-2.0",
    cliffs="gpu",
)


@dataclass(frozen=True)
class Sample:
    batch: int
    key: OpKey
    ms: float


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Build the v100 latency tables.")
    parser.add_argument("--data", type=Path, required=True, help="folder of conv_fp32.txt, …")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "data" / "v100")
    options = parser.parse_args(arguments)
    try:
        samples = read_samples(options.data)
        for batch in BATCHES:
            table = build(samples, batch)
            write_table(table, options.out / f"tensorrt-b{batch}")
            print(f"{table.target}: {len(table.measured)} convolutions, held out: {summary(table)}")
    except TableError as error:
        sys.exit(str(error))


def summary(table: LatencyTable) -> str:
    errors = ((p, table.mean_error_percent(p, "operator")) for p in table.precisions)
    return ", ".join(f"{p} {error:.1f}%" for p, error in errors if error is not None)


def read_samples(folder: Path) -> list[Sample]:
    """Raises TableError for a line that is no convolution."""
    return [s for precision in META.precisions for s in _read(folder, precision)]


def _read(folder: Path, precision: str) -> Iterator[Sample]:
    path = folder / f"conv_{precision}.txt"
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TableError(f"{path}: cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise TableError(f"{path} line {number}: not a convolution with its milliseconds")
        yield _sample(match, precision)


def _sample(match: re.Match[str], precision: str) -> Sample:
    batch, inside, height, width, out, kernel, stride, fused = map(int, match[2].split(","))
    depthwise = match[1] == "Depthwise"
    key = OpKey(
        op="depthwise_conv2d" if depthwise else "conv2d",
        in_channels=inside,
        out_channels=out,
        kernel=(kernel, kernel),
        stride=(stride, stride),
        groups=inside if depthwise else 1,
        in_size=(height, width),
        out_size=(-(-height // stride), -(-width // stride)),
        activation="relu" if fused else "none",
        precision=precision,
    )
    return Sample(batch, key, float(match[3]))


def build(samples: Sequence[Sample], batch: int) -> LatencyTable:
    """The table of one batch size, with the error of a tenth that its estimates had not seen."""
    measured = of_batch(samples, batch)
    return LatencyTable(
        f"v100/tensorrt-b{batch}",
        replace(META, batch=batch),
        measured,
        validation=tuple(held_out(measured, batch)),
    )


def of_batch(samples: Sequence[Sample], batch: int) -> dict[OpKey, Measurement]:
    return {s.key: Measurement(round(s.ms * 1e3, 4)) for s in samples if s.batch == batch}


def held_out(measured: dict[OpKey, Measurement], batch: int) -> Iterator[Validation]:
    """A tenth of every kind and precision, estimated from the others. All of it is stated: equally
    many of each kind would give depthwise convolutions, a tenth of the samples, half the weight."""
    groups: dict[tuple[str, str], list[OpKey]] = {}
    for key in measured:
        groups.setdefault((key.op, key.precision), []).append(key)
    generator = np.random.default_rng(SEED)
    out: list[OpKey] = []
    for keys in groups.values():
        shuffled = [keys[int(i)] for i in generator.permutation(len(keys))]
        out += shuffled[: round(HELD_OUT_SHARE * len(keys))]
    hidden = set(out)
    known = {key: found for key, found in measured.items() if key not in hidden}
    table = LatencyTable("v100", replace(META, batch=batch), known)
    for key in out:
        ms, predicted = measured[key].median_us / 1e3, table.estimate(key).ms
        yield Validation(_name(key), key.precision, ms, predicted, "operator")


def _name(key: OpKey) -> str:
    shape = f"{key.in_channels}-{key.out_channels} k{key.kernel[0]} s{key.stride[0]}"
    return f"{key.op} {shape} {key.in_size[0]} px {key.activation}"


if __name__ == "__main__":
    main()
