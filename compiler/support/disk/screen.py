"""A screen: a folder of links that stands where another one was, while that is worked on.

Two folders change names in one step (Linux's renameat2), so whoever looks sees the folder as it was
or the screen, which looks like the folder as it will be: what is new is there under a second name,
everything else through symbolic links into the folder, which lies hidden beside the screen
meanwhile. Then they change back: the folder is the one that it was, with its owner, its rights and
whoever is inside it, and nothing foreign in it was moved or copied.

Where this cannot be had (no such call, a mount point, a parent that may not be written to, a file
system without links) nothing is screened.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import stat
from collections.abc import Sequence, Set
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from shrinkc.compiler.support.reading.regular_file import read_regular
from shrinkc.compiler.support.reading.strict_json import parse_json

LOCK = ".shrinkc-lock"  # in the folder, while a run writes to it
MARK = ".shrinkc-screen"  # in every screen; names the files that are its own
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def beside(folder: Path) -> Path:
    """Where a folder's screen is made, and where the folder is while the screen stands."""
    return folder.with_name(f"{MARK}-{folder.name}")


def place(folder: Path) -> Path:
    """Where the folder is."""
    screened = (folder / MARK).exists() and beside(folder).is_dir()
    return beside(folder) if screened else folder


def put_up(folder: Path, new: Path, gone: Sequence[Path] = ()) -> bool:
    """Screen `folder`; the screen shows the files of `new`, which lies in `folder`, as if they were
    there, and those in `gone` no more. False where there is no screen, and `folder` as it was."""
    screen = beside(folder)
    if _renameat2() is None:
        return False
    try:
        mode = folder.stat()
        screen.mkdir()
        own = [path.relative_to(new).as_posix() for path in new.rglob("*") if not path.is_dir()]
        (screen / MARK).write_text(json.dumps([*own, LOCK, MARK]))
        (screen / LOCK).hardlink_to(folder / LOCK)  # whoever comes waits at the same one
        _fill(screen, folder, new, Path("..", screen.name), {LOCK, *(path.name for path in gone)})
        with suppress(OSError):
            os.chown(screen, mode.st_uid, mode.st_gid)
        screen.chmod(stat.S_IMODE(mode.st_mode))
        exchange(screen, folder)
    except OSError:
        remove(folder)
        return False
    return True


def remove(folder: Path) -> None:
    """The screen that does not stand any more, or does not yet. What others put into it while it
    stood goes to the folder; what is no screen stays."""
    screen = beside(folder)
    try:
        own = {Path(name) for name in parse_json(read_regular(screen / MARK, 16 << 20))}
    except OSError:
        own = None
    except (ValueError, TypeError):
        own = {Path(MARK)}  # its writing was cut off, and nothing followed
    if own is not None:
        _empty(screen, folder, Path(), own)
    try:
        screen.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST):
            raise


def exchange(one: Path, other: Path) -> None:
    """Let two folders change names in one step. Raises OSError."""
    names = os.fsencode(one), os.fsencode(other)
    if _renameat2()(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one), None, str(other))


@cache
def _renameat2() -> Any:
    """None where there is no such call."""
    try:
        return ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):  # not Linux; Windows wants a name
        return None


def _fill(
    screen: Path, folder: Path, new: Path, way: Path, without: Set[str] = frozenset()
) -> None:
    """`way`: from the screen to where the folder will be."""
    names = {path.name for path in new.iterdir()} | without
    for path in folder.iterdir():
        if path.name not in names:
            (screen / path.name).symlink_to(way / path.name)
    for path in new.iterdir():
        if not path.is_dir():
            (screen / path.name).hardlink_to(path)
            continue
        (screen / path.name).mkdir()
        below = folder / path.name
        if below.is_dir():
            _fill(screen / path.name, below, path, Path("..", way, path.name))
        else:
            shutil.copytree(path, screen / path.name, copy_function=os.link, dirs_exist_ok=True)


def _empty(screen: Path, folder: Path, part: Path, own: set[Path]) -> None:
    """One folder of the screen; links and the files of `own` are the screen's."""
    for path in (screen / part).iterdir():
        name = part / path.name
        if path.is_symlink() or name in own:
            continue
        if path.is_dir():
            _empty(screen, folder, name, own)
            path.rmdir()
        elif not (folder / name).is_dir():  # the latest counts
            (folder / part).mkdir(parents=True, exist_ok=True)
            path.replace(folder / name)
    for path in sorted((screen / part).iterdir(), key=lambda path: path.name == MARK):
        path.unlink()  # the mark last: what was not finished is a screen still
