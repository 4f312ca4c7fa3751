"""What runs keep for later ones, by parts: what was measured, fonts, the tracebacks of bugs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from platformdirs import user_cache_dir

Part = Literal["damages", "host", "fonts", "bugs"]
PARTS: dict[Part, str] = {
    "damages": "what merging, pruning and int8 do to a network, measured on images",
    "host": "times of operators on this machine",
    "fonts": "matplotlib's list of fonts, for plots",
    "bugs": "tracebacks",
}
VARIABLE = "SHRINKC_CACHE"  # names another folder; empty: nothing is kept
LIMIT_BYTES = 256 << 20


def cache_folder() -> Path | None:
    """None where nothing is kept, or nothing can be."""
    given = os.environ.get(VARIABLE)
    folder = Path(user_cache_dir("shrinkc", appauthor=False) if given is None else given)
    return folder if given != "" and _writable(folder) else None


def _writable(folder: Path) -> bool:
    """Or to be made: a container's user may have no home."""
    try:
        there = next((one for one in (folder, *folder.parents) if one.exists()), folder)
        return there.is_dir() and os.access(there, os.W_OK)
    except OSError:
        return False


@contextmanager
def nothing_kept() -> Generator[None]:
    """Neither here nor in processes that are started meanwhile."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = ""
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def kept(part: Part) -> Path | None:
    """The folder of one part, which may not be there yet; None where nothing is kept. What was not
    used for longest goes where all parts together are larger than LIMIT_BYTES."""
    folder = cache_folder()
    if folder is None:
        return None
    _trim(folder)
    return folder / part


def sizes() -> dict[Part, list[int]]:
    """Bytes of every file of each part."""
    folder = cache_folder()
    parts: tuple[Part, ...] = get_args(Part)
    if folder is None:
        return {part: [] for part in parts}
    return {part: [found.st_size for _, found in _files(folder, part)] for part in parts}


def clear() -> None:
    """Remove all parts; nothing else that may lie there. Raises OSError."""
    folder = cache_folder()
    for part in PARTS if folder is not None else ():
        with suppress(FileNotFoundError):
            shutil.rmtree(Path(str(folder), part))


def _files(folder: Path, *parts: Part) -> Iterator[tuple[Path, os.stat_result]]:
    for part in parts:
        for path in (folder / part).rglob("*"):
            with suppress(OSError):  # another run removes it
                if path.is_file():
                    yield path, path.stat()


@cache
def _trim(folder: Path) -> None:
    """Once a process. What is in use was used last, and begins anew if it goes all the same."""
    with suppress(OSError):
        files = list(_files(folder, *PARTS))
        excess = sum(found.st_size for _, found in files) - LIMIT_BYTES
        for path, found in sorted(files, key=lambda f: max(f[1].st_atime, f[1].st_mtime)):
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= found.st_size
