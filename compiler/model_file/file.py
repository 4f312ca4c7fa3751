"""shrinkc's own file: one `.safetensors` holding a canonical graph, pickle-free and bit-exact.

Tensors are tensors; the graph is JSON in the metadata (`shrinkc.compiler.model_schema`, described
in `docs/formats.md`). Saving the same graph twice gives the same bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import safetensors.torch
from pydantic import ValidationError
from torch import Tensor, fx

from shrinkc.compiler.model_file.decode import decode
from shrinkc.compiler.model_file.encode import encode
from shrinkc.compiler.model_file.schema import MAX_HEADER, VERSION, GraphEntry, VersionEntry
from shrinkc.compiler.support.atomic_files import write_file
from shrinkc.compiler.support.reading.regular_file import open_regular
from shrinkc.compiler.support.reading.strict_json import more_containers, parse_json
from shrinkc.compiler.support.text import one_line, placed, shown, visible
from shrinkc.errors import IllegalGraphError, LoadError
from shrinkc.passes import ir
from shrinkc.passes.base import collector_waits

_KEY = "shrinkc"  # one metadata key only: safetensors writes several in random order


def save_model(graph_module: fx.GraphModule, path: Path, extra: dict[str, Any]) -> None:
    """Write a canonical graph, whole or not at all. `extra` is the caller's JSON.

    Kept bit-exactly: tensors, data types, memory layout, what is shared, trainability, node
    names, module paths, input shapes and capture's notes (`graph_module.meta`). Not kept: other
    metadata of nodes, unused modules.

    Raises IllegalGraphError for a graph that is not canonical, InputError where `path` cannot be
    written.
    """
    write_file(path, model_bytes(graph_module, extra))


def model_bytes(graph_module: fx.GraphModule, extra: dict[str, Any]) -> bytes:
    """What `save_model` writes: checked by reading it back."""
    ir.check_legal(graph_module)
    try:
        json_entry, tensors = encode(graph_module, extra)
        text = json.dumps(json_entry, allow_nan=False, separators=(",", ":"))
        decode(GraphEntry.model_validate_json(text), tensors)
    except (ValueError, TypeError) as error:  # pydantic's errors are ValueErrors
        raise IllegalGraphError(f"the graph cannot be saved: {_reason(error)}") from error
    if len(text) > MAX_HEADER // 2:
        raise IllegalGraphError(f"a graph of {len(text):,} bytes of JSON is too large to be saved")
    try:
        return safetensors.torch.save(tensors, {_KEY: text})
    except KeyError as error:
        raise IllegalGraphError(f"a file cannot hold tensors of {error}") from error


def load_model_file(path: Path) -> tuple[fx.GraphModule, dict[str, Any]]:
    """The graph, in eval mode on the CPU, and `extra`.

    Raises LoadError: not such a file, damaged, written by a newer shrinkc, or holding anything
    that `save_model` would not have written.
    """
    text = read_metadata(path).get(_KEY)
    if text is None:
        raise LoadError(f"{path}: not written by shrinkc; give `arch` to load weights")
    try:
        with collector_waits():
            parsed = parse_json(text)
            version = VersionEntry.model_validate(parsed).version
            if version > VERSION:
                raise LoadError(
                    f"{path}: format {version}, this shrinkc reads up to {VERSION}; update shrinkc"
                )
            _require_shallow(parsed)
            del parsed
            entry = GraphEntry.model_validate_json(text)
            graph_module = decode(entry, read_tensors(path))
    except (IllegalGraphError, ValueError) as error:
        raise LoadError(_damaged(path, _reason(error))) from error
    return graph_module, cast(dict[str, Any], entry.extra)


def _require_shallow(entry: Any) -> None:
    """Raise ValueError where arguments or fields hold very many lists and objects: pydantic copies
    a value for every kind that it is not, which takes seconds a megabyte."""
    parts = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
    for value in (
        parts.get("meta"),
        *_each(parts.get("modules"), "fields"),
        *_each(parts.get("nodes"), "args"),
    ):
        waiting: list[Any] = [value]
        count = 0
        while waiting and count <= _CONTAINERS:
            waiting += [x for x in _inner(waiting.pop()) if isinstance(x, dict | list)]
            count += 1
        if count > _CONTAINERS:
            raise ValueError(f"a value of over {_CONTAINERS:,} lists and objects")


def _each(entries: Any, name: str) -> Iterator[Any]:
    """One part of every entry; an entry that has no parts, whole."""
    for one in _inner(entries):
        parts: Any = one
        yield parts.get(name) if isinstance(one, dict) else one


def _inner(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return cast("dict[str, Any]", value).values()
    return cast("list[Any]", value) if isinstance(value, list) else ()


_CONTAINERS = 20_000
_LONG = 4 << 20  # bytes
_TENSORS = 1_500_000  # lists and objects of a header: three for each tensor


def is_model_file(path: Path) -> bool:
    """A `.safetensors` that `save_model` wrote, by its metadata. Raises LoadError if damaged."""
    return _KEY in read_metadata(path)


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a `.safetensors`, its length checked before it is parsed."""
    metadata = _header(path).get("__metadata__", {})
    items = cast(dict[str, Any], metadata).items() if isinstance(metadata, dict) else ()
    return {k: v for k, v in items if isinstance(v, str)}


def _header(path: Path) -> dict[str, Any]:
    try:
        with open_regular(path) as file:
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            if not 0 < length <= MAX_HEADER:
                raise LoadError(_damaged(path, f"a header of {length:,} bytes"))
            text = file.read(length).decode("utf-8")
        if more_containers(text, _TENSORS):
            raise LoadError(_damaged(path, f"a header of over {_TENSORS:,} lists and objects"))
        with collector_waits():
            header = parse_json(text)
    except ValueError as error:
        raise LoadError(_damaged(path, "its header is not JSON")) from error
    except OSError as error:
        raise LoadError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    if not isinstance(header, dict):
        raise LoadError(_damaged(path, "its header is no object"))
    return cast(dict[str, Any], header)


def _require_flat(path: Path) -> None:
    """Raise LoadError for a long header with anything but tensors and metadata: the library's
    reader takes seconds for crowds of lists within lists."""
    with suppress(OSError):  # told by whoever reads on
        if path.stat().st_size < _LONG:
            return
    for name, entry in _header(path).items():
        values = cast("dict[str, Any]", entry).values() if isinstance(entry, dict) else (entry,)
        if any(isinstance(x, dict | list) for value in values for x in _inner(value)):
            raise LoadError(_damaged(path, f"'{shown(name)}' is no tensor"))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors, in memory of their own: the file may be replaced later. Raises LoadError."""
    _require_flat(path)
    try:
        if visible(str(path)) != str(
            path
        ):  # a name that is no UTF-8, which safetensors cannot open
            return safetensors.torch.load(path.read_bytes())
        opened: Any = safetensors.safe_open(path, framework="pt", device="cpu")
        with opened as file:
            return {name: file.get_tensor(name).clone() for name in sorted(file.keys())}
    except Exception as error:  # the Rust reader's exceptions share no base class
        raise LoadError(_damaged(path, str(error))) from error


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return placed(first["loc"], first["msg"])
    return one_line(error)


def _damaged(path: Path, reason: str) -> str:
    return f"{path}: damaged ({one_line(reason)}); copy or save it again"
