"""TFLite files changed field by field, through the object interface of the official schema."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from random import Random
from typing import Any

import flatbuffers
import mutate
import numpy as np

schema: Any = importlib.import_module("ai_edge_litert.schema_py_generated")


def unpacked(data: bytes) -> Any:
    return schema.ModelT.InitFromPackedBuf(data, 0)


def packed(model: Any) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def change(rng: Random, model: Any) -> None:
    """One to four fields of any table: numbers, lists, references."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        table = rng.choice(list(_tables(model)))
        name = rng.choice(list(vars(table)))
        setattr(table, name, _other(rng, getattr(table, name)))


def _tables(value: Any) -> Iterator[Any]:
    if type(value).__module__ == schema.__name__:
        yield value
        for inner in vars(value).values():
            yield from _tables(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _tables(inner)


def _other(rng: Random, value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice((0, 1, -1, 2, 5, 127, value + 1, value - 1, value * 2))
    if isinstance(value, float):
        return rng.choice((0.0, -1.0, 1e30, float("nan"), float("inf")))
    if isinstance(value, bytes):
        return rng.choice((b"", b"\xff\xfe", b"\x1b[31mred", value * 2, b"a" * 500))
    if isinstance(value, np.ndarray):
        return _array(rng, value)
    if isinstance(value, list) and value:
        kept = list(value)
        at = rng.randrange(len(kept))
        match rng.randrange(4):
            case 0:
                del kept[at]
            case 1:
                kept.insert(at, kept[at])
            case 2:
                rng.shuffle(kept)
            case _:
                kept = kept * rng.choice((2, 20))
        return kept
    return None


def _array(rng: Random, value: Any) -> Any:
    if not len(value) or rng.random() < 0.2:
        return np.array([], value.dtype) if rng.random() < 0.5 else np.repeat(value, 3)
    changed = value.copy()
    info = np.iinfo(value.dtype) if value.dtype.kind in "iu" else None
    numbers = [n for n in mutate.NUMBERS if isinstance(n, int)]
    number = rng.choice((*numbers, *range(6), -1, -2))
    if info is not None:
        number = min(max(number, info.min), info.max)
    changed[rng.randrange(len(changed))] = number
    return changed
