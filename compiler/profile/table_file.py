"""A table as one file, to be handed on: its files, where it comes from, and a digest of all that.

    {"format": "shrinkc-table", "version": 1, "target": "mypi/tflite", "written_by": "…",
     "written": "2026-11-30", "files": {"meta.toml": "…", "ops.csv": "…"}, "sha256": "…"}

The digest is of the same JSON without it, keys sorted and without blanks. It tells damage and
changes; it is no proof of who wrote the file.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from shrinkc.compiler.profile.table_folder import alone_at, save_table
from shrinkc.compiler.support.reading.regular_file import read_regular, require_writable
from shrinkc.compiler.support.reading.strict_json import parse_json
from shrinkc.errors import InputError, TableError
from shrinkc.latency_tables.measured import MAX_BYTES
from shrinkc.latency_tables.store import (
    TABLE_FILES,
    known_targets,
    load_table,
    read_table,
    table_files,
    user_tables,
)
from shrinkc.latency_tables.table import LatencyTable
from shrinkc.latency_tables.target import Target
from shrinkc.version import __version__

FORMAT, VERSION = "shrinkc-table", 1
_FIELDS = {"format", "version", "target", "written_by", "written", "files", "sha256"}
_PACKED = ".gz"


def table_file(table: LatencyTable) -> bytes:
    """The file's content."""
    files = {
        name.removesuffix(_PACKED): _unpacked(name, data).decode("utf-8")
        for name, data in table_files(table).items()
    }
    content: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "target": table.target,
        "written_by": f"shrinkc {__version__}",
        "written": f"{datetime.now(UTC):%Y-%m-%d}",
        "files": files,
    }
    content["sha256"] = _digest(content)
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8")


def read_table_file(path: Path) -> LatencyTable:
    """Raises TableError, in one line, for a file that is none, is newer, or is not as written."""
    try:
        content = parse_json(read_regular(path, MAX_BYTES))
        _digest(content)  # no text of it is half a character
    except OSError as error:
        raise TableError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise TableError(f"{path}: not a table's file: {error}") from None
    if not isinstance(content, dict) or cast("dict[str, Any]", content).get("format") != FORMAT:
        raise TableError(f"{path}: not a file that `shrinkc tables export` wrote")
    content = cast("dict[str, Any]", content)
    version = content.get("version")
    if isinstance(version, int) and version > VERSION:
        raise TableError(
            f"{path}: version {version} is newer than {VERSION}, the newest this shrinkc reads; "
            "update shrinkc"
        )
    target, files = content.get("target"), content.get("files")
    if (
        (content.keys(), version) != (_FIELDS, VERSION)
        or not isinstance(target, str)
        or not isinstance(files, dict)
    ):
        raise TableError(f"{path}: fields are missing, unknown or of another type; export it again")
    if content.pop("sha256") != _digest(content):
        raise TableError(f"{path}: its digest does not fit: damaged or changed; get it again")
    return _table(path, str(Target.parse(target)), cast("dict[str, Any]", files))


def _table(path: Path, target: str, files: dict[str, Any]) -> LatencyTable:
    packed = {name.removesuffix(_PACKED): name for name in TABLE_FILES}
    with tempfile.TemporaryDirectory() as scratch:
        for name, text in files.items():
            if name not in packed or not isinstance(text, str):
                raise TableError(f"{path}: {name!r} is no file of a table")
            data = text.encode("utf-8")
            where = packed[name]
            data = gzip.compress(data, mtime=0) if where.endswith(_PACKED) else data
            Path(scratch, where).write_bytes(data)
        try:
            table = read_table(Path(scratch), target)
            for precision in table.precisions:  # operators are read when they are asked for
                table.network_overhead_ms(precision)
            return table
        except TableError as error:
            raise TableError(str(error).replace(f"{scratch}/", f"{path}: ")) from None


def _unpacked(name: str, data: bytes) -> bytes:
    return gzip.decompress(data) if name.endswith(_PACKED) else data


def _digest(content: Any) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()


def export_table(target: str, path: Path) -> None:
    """A table, shipped or one's own. Raises TableError for an unknown target or a damaged table,
    InputError for a file that cannot be written."""
    data = table_file(load_table(target))
    try:
        require_writable(path)
        path.write_bytes(data)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error


def import_table(path: Path, name: str | None = None) -> str:
    """Make the table of a file one's own; the target that means it now. Raises TableError as
    `read_table_file` does, InputError where there is a table of that name."""
    table = read_table_file(path)
    target = str(Target.parse(name or table.target))
    if target in known_targets():
        raise InputError(f"{path}: there is a table '{target}' already; give another `name`")
    folder = user_tables().joinpath(*Target.parse(target).folders)
    with alone_at(folder):
        save_table(replace(table, target=target), folder)
    return target
