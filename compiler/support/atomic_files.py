"""Results appear whole or not at all.

Files are written to a hidden folder inside the output folder (same file system, so a rename
moves them), forced to disk, and only then take the place of earlier ones. Whatever goes wrong
before the last rename, a full disk or Ctrl-C included, leaves the output folder as it was.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from shrinkc.errors import InputError


@contextmanager
def atomic_folder(folder: Path) -> Generator[Path]:
    """Yield an empty folder to write files into; afterwards they are in `folder`.

    Files there of the same name are replaced, others stay. `folder` is made where it is missing.
    When the body or the replacing raises, `folder` holds exactly what it held before.

    Raises InputError where `folder` cannot be written: no permission, a full disk, a file of
    that name. Other exceptions of the body pass through.
    """
    stage = folder / f".shrinkc-{secrets.token_hex(8)}"
    missing: list[Path] = []
    try:
        missing += [path for path in (folder, *folder.parents) if not path.exists()]
        new, earlier = stage / "new", stage / "earlier"
        new.mkdir(parents=True)
        earlier.mkdir()
        yield new
        _commit(new, earlier, folder)
    except BaseException as error:
        _remove(stage)
        for path in missing:
            with suppress(OSError):
                path.rmdir()
        reason = _reason(error, folder)
        if reason:
            raise InputError(reason) from error
        raise
    _remove(stage)


def write_file(path: Path, data: bytes) -> None:
    """Write one file, whole or not at all. Raises InputError as `atomic_folder` does."""
    with atomic_folder(path.parent) as stage:
        (stage / path.name).write_bytes(data)


def _commit(new: Path, earlier: Path, folder: Path) -> None:
    """Move every file of `new` to `folder`, or none."""
    files = sorted(new.iterdir())
    for path in files:
        _sync(path)
    replaced: list[tuple[Path, Path | None]] = []
    try:
        for path in files:
            target = folder / path.name
            backup = _keep(target, earlier / path.name)
            replaced.append((target, backup))
            path.replace(target)
        if os.name == "posix":
            _sync(folder)
    except BaseException:
        for target, backup in reversed(replaced):
            if backup is None:
                target.unlink(missing_ok=True)
            else:
                backup.replace(target)
        raise


def _keep(target: Path, backup: Path) -> Path | None:
    """A second name for what `target` holds; None where there is no such file yet."""
    if not os.path.lexists(target):
        return None
    try:
        backup.hardlink_to(target)
    except OSError:  # file systems without hard links
        shutil.copy2(target, backup)
    return backup


def _sync(path: Path) -> None:
    """Force `path` to disk: a rename must not outlive the content it names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(stage: Path) -> None:
    try:
        shutil.rmtree(stage, ignore_errors=True)
    finally:  # again where Ctrl-C came in between
        shutil.rmtree(stage, ignore_errors=True)


_REASONS = {
    errno.ENOSPC: "no space left on the device; free some, or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some, or choose another folder",
    errno.ENOENT: "cannot be made there; choose another folder",
    errno.EACCES: "no permission to write there; choose another folder",
    errno.EPERM: "no permission to write there; choose another folder",
    errno.EROFS: "a read-only file system; choose another folder",
    errno.ENOTDIR: "not a folder; choose another name",
    errno.EEXIST: "not a folder; choose another name",
    errno.EISDIR: "holds a folder where a file goes; choose another folder",
    errno.ENAMETOOLONG: "the name is too long; choose another folder",
    errno.EIO: "the disk reports an error; choose another folder",
}


def _reason(error: BaseException, folder: Path) -> str | None:
    """One line for an error that the output folder caused, None for any other."""
    if not isinstance(error, OSError) or error.errno not in _REASONS:
        return None
    named = [Path(name) for name in (error.filename, error.filename2) if isinstance(name, str)]
    if named and not any(p.is_relative_to(folder) or folder.is_relative_to(p) for p in named):
        return None
    return f"{folder}: {_REASONS[error.errno]}"
