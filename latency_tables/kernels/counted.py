"""What TFLite executes for an operator, counted on an emulated Cortex-A72.

`counts.csv` is written by `python -m benchmarks.count_operators`: executed instructions by kind
(`vector`: computing on vectors or floats) and bytes moved, for every kind of operator and several
shapes, with several runtimes. Products and convolutions are counted by their loops (`xnnpack`);
everything else costs instructions in proportion to the values that it reads or writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from math import prod
from pathlib import Path
from statistics import median

from shrinkc.latency_tables.kernels.features import POOLING_OPS
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.rows import read_rows

FILE = Path(str(files(__package__ or __name__))) / "counts.csv"
COLUMNS = (
    *("runtime", "op", "in_channels", "out_channels", "kernel", "stride", "groups"),
    *("in_h", "in_w", "out_h", "out_w"),
    *("instructions", "vector", "loads", "stores", "bytes"),
    "delegated",
)
RUNTIME = "tflite-2.14/xnnpack"


def values(key: OpKey) -> int:
    """That the operator computes with: of a product its multiply-accumulates, of a pool every
    window's values, else the larger of what it reads and what it writes."""
    if key.macs:
        return key.macs
    windows = prod(key.kernel) * key.output_elements if key.op in POOLING_OPS else 0
    return max(windows, key.input_elements, key.output_elements)


@cache
def per_value() -> Mapping[str, tuple[float, bool]]:
    """Operator → instructions for each of its `values`, and whether XNNPACK takes it: what it does
    not, TFLite's own kernels do, on one core. Medians of the shapes."""
    found: dict[str, list[float]] = {}
    taken: dict[str, bool] = {}
    for row in read_rows(FILE, COLUMNS):
        if row.text("runtime") != RUNTIME:
            continue
        key = OpKey(
            *(row.text("op"), row.count("in_channels"), row.count("out_channels")),
            kernel=(row.count("kernel"), row.count("kernel")),
            groups=row.count("groups"),
            in_size=(row.count("in_h"), row.count("in_w")),
            out_size=(row.count("out_h"), row.count("out_w")),
        )
        found.setdefault(key.op, []).append(row.count("instructions", least=0) / values(key))
        taken[key.op] = row.values["delegated"] == "1"
    return {op: (median(each), taken[op]) for op, each in found.items()}
