"""Operator lists of networks as shrinkc compiles them, from `makers/lists/*.csv.gz`.

`python -m benchmarks.operator_lists` writes them. Model libraries are needed for that, and minutes;
the fits need neither.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from itertools import chain, repeat
from pathlib import Path

from shrinkc.latency_tables.columns import numbers
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.makers.sources.networks import OpList
from shrinkc.latency_tables.measured import OPS_COLUMNS, Unpacked, op_key
from shrinkc.latency_tables.rows import csv_text, read_rows

FOLDER = Path(__file__).parent.parent / "lists"
_KEY_COLUMNS = OPS_COLUMNS[: OPS_COLUMNS.index("precision") + 1]
COLUMNS = ("network", "times", *_KEY_COLUMNS)


@cache
def read_lists(name: str) -> Mapping[str, OpList]:
    """Network → its operators in float. Raises TableError: unreadable."""
    found: dict[str, list[OpKey]] = {}
    for row in read_rows(Unpacked(FOLDER / f"{name}.csv.gz"), COLUMNS):
        found.setdefault(row.text("network"), []).extend(repeat(op_key(row), row.count("times")))
    return {network: tuple(keys) for network, keys in found.items()}


def in_precision(ops: Iterable[OpKey], precision: str) -> OpList:
    """The same operators in another precision."""
    return tuple(replace(key, precision=precision) for key in ops)


def write_lists(name: str, lists: Mapping[str, Iterable[OpKey]]) -> None:
    """Equal operators of a network share a row; what a network costs knows no order."""
    rows = chain.from_iterable(_rows(network, keys) for network, keys in sorted(lists.items()))
    text = csv_text(COLUMNS, rows)
    FOLDER.mkdir(exist_ok=True)
    # without a time, so that the same lists give the same file
    (FOLDER / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode("utf-8"), mtime=0))


def _rows(network: str, keys: Iterable[OpKey]) -> Iterable[tuple[object, ...]]:
    times: dict[OpKey, int] = {}
    for key in keys:
        times[key] = times.get(key, 0) + 1
    for key, count in times.items():
        yield network, count, key.op, *numbers(key), key.activation, key.precision
