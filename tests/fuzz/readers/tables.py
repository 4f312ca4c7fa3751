"""Latency tables: a folder of TOML and CSV, packed or not."""

from __future__ import annotations

import gzip
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import mutate
from reader import Files, Reader

from shrinkc.latency_tables import store
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.measured import Measurement
from shrinkc.latency_tables.meta import TableMeta
from shrinkc.latency_tables.store import load_table, read_table, write_table
from shrinkc.latency_tables.table import LatencyTable

_KEYS = (
    OpKey("conv2d", 3, 8, (3, 3), (2, 2), in_size=(32, 32), out_size=(16, 16)),
    OpKey("depthwise_conv2d", 8, 8, (3, 3), groups=8, in_size=(16, 16), out_size=(16, 16)),
    OpKey("relu", 8, 8, in_size=(16, 16), out_size=(16, 16)),
    OpKey("linear", 64, 10),
)


def _times(key: OpKey, n: int) -> OpKey:
    groups = key.groups * n if key.groups > 1 else 1
    channels = key.in_channels * n, key.out_channels * n
    return replace(key, in_channels=channels[0], out_channels=channels[1], groups=groups)


def _wider(key: OpKey) -> OpKey:
    """One that was not measured."""
    return _times(key, 9)


@cache
def _tables() -> list[Files]:
    keys = [_times(key, n) for key in _KEYS for n in range(1, 7)]
    measured = {key: Measurement(10.0 + i, 0.5, 20) for i, key in enumerate(keys)}
    words = ("device", "soc", "runtime", "runtime_version", "governor", "source", "licence")
    about: dict[str, Any] = dict.fromkeys(words, "ours")
    meta = TableMeta(
        **about, kind="measured", threads=1, precisions=("fp32",), batch=1, date="2026-01-01"
    )
    own = LatencyTable("own", meta, measured)
    packed = store.MANY_OPERATORS
    found: list[Files] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, table, many in (
            ("own", own, packed),
            ("gz", own, 1),
            ("pixel3", load_table("pixel3"), packed),
        ):
            store.MANY_OPERATORS = many
            write_table(table, Path(folder, name))
            found.append({p.name: p.read_bytes() for p in sorted(Path(folder, name).iterdir())})
    store.MANY_OPERATORS = packed
    return found


_WORDS = (
    *(b"conv2d", b"relu", b"fp32", b"int8", b"fp16", b"measured", b"fitted", b"precisions = []"),
    *(b"[model]", b"[[model]]", b"threads = 1", b"schema = 1", b"schema = 2", b"1e-400", b"-5"),
)


def _changed(rng: Random, files: Files) -> Files:
    found = dict(files)
    name = rng.choice(list(found))
    if rng.random() < 0.05:
        del found[name]
    elif name.endswith(".gz") and rng.random() < 0.7:
        found[name] = gzip.compress(_cells(rng, gzip.decompress(found[name])), mtime=0)
    elif name.endswith(".csv") and rng.random() < 0.7:
        found[name] = _cells(rng, found[name])
    elif name.endswith(".gz"):
        found[name] = mutate.data(rng, found[name])
    else:
        found[name] = mutate.text(rng, found[name], _WORDS)
    return found


def _cells(rng: Random, data: bytes) -> bytes:
    """A few cells, rows or columns of a CSV."""
    rows = [line.split(b",") for line in data.split(b"\n")]
    for _ in range(rng.choice((1, 1, 2, 4))):
        row = rng.choice(rows)
        at = rng.randrange(len(row))
        numbers = [str(n).encode() for n in mutate.NUMBERS]
        match rng.randrange(6):
            case 0:
                rows.append(list(row))
            case 1:
                del row[at]
                row = row or [b""]
            case 2:
                row.insert(at, row[at])
            case 3:
                row[at] = rng.choice(
                    (*_WORDS, *(t.encode("utf-8", "replace") for t in mutate.TEXTS))
                )
            case _:
                row[at] = rng.choice(numbers)
        rows = [one or [b""] for one in rows]
    return b"\n".join(b",".join(row) for row in rows)


def _read(folder: Path) -> None:
    """And ask it for something of every kind."""
    table = read_table(folder, "fuzzed")
    for precision in table.precisions:
        table.network_overhead_ms(precision)
        table.mean_error_percent(precision)
        for key in (*_KEYS, *map(_wider, _KEYS)):
            estimate = table.estimate(replace(key, precision=precision))
            assert 0 <= estimate.ms < float("inf"), f"{estimate.ms} ms"


READERS = (Reader("table", _tables, _changed, _read),)
