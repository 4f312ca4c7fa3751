"""The folder of a measured table: one run at a time fills it, and it changes all at once."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from shrinkc.compiler.support.atomic_files import atomic_folder, check_folder
from shrinkc.compiler.support.disk.lock import LOCK, alone_in
from shrinkc.latency_tables.store import TABLE_FILES, table_files
from shrinkc.latency_tables.table import LatencyTable


def alone_at(folder: Path) -> AbstractContextManager[None]:
    """Nobody else measures this table meanwhile. Raises InputError as `alone_in` does, and where
    its folder is none: what was measured could not be kept."""
    check_folder(folder)
    return alone_in(folder, folder.with_name(f".{folder.name}{LOCK}"))


def save_table(table: LatencyTable, folder: Path) -> None:
    """All files of the table, or none; those of an earlier table go. Raises InputError."""
    with atomic_folder(folder, gone=TABLE_FILES) as stage:
        for name, data in table_files(table).items():
            (stage / name).write_bytes(data)
