"""Results appear whole and all at once, or not at all.

Files are written to a hidden folder inside the output folder, forced to disk, and only then take
the place of earlier ones, behind a screen (`disk/screen.py`) that already shows all of them. What
they replace is kept until the last one is in place. So whoever looks, whatever goes wrong and
wherever the process is killed, the folder is all old or all new; where no screen can be had it may
be some of each for the moment that the renames take. What a killed run left is taken back by the
next that writes there; a lock keeps runs apart.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from shrinkc.compiler.support.disk import screen
from shrinkc.compiler.support.disk.lock import locked
from shrinkc.compiler.support.reading.regular_file import read_regular, require_writable
from shrinkc.compiler.support.reading.strict_json import parse_json
from shrinkc.errors import InputError

STAGE = ".shrinkc-stage"  # in the folder, while a run writes to it
WAIT_S = 120.0  # for another run's writing
MOST_BYTES = 16 << 20  # of a note
_NOTED = ("replaced", "added", "folders")


@contextmanager
def atomic_folder(folder: Path, gone: Iterable[str] = ()) -> Generator[Path]:
    """Yield an empty folder to write files and folders into; afterwards they are in `folder`.

    Files there of the same name are replaced, others stay, but those named in `gone`. `folder` is
    made where it is missing. When the body or the replacing raises, `folder` holds exactly what it
    held before. Waits while another run writes there, up to WAIT_S.

    Raises InputError where `folder` cannot be written: no permission, a full disk, a file of
    that name, another run that does not end. Other exceptions of the body pass through.
    """
    real = Path(os.path.realpath(folder))  # whatever links lead there
    missing: list[Path] = []
    try:
        missing += [path for path in (real, *real.parents) if not path.exists()]
        real.mkdir(parents=True, exist_ok=True)
        with locked(real / screen.LOCK, folder, WAIT_S):
            try:
                _settle(real)
                new = real / STAGE / "new"
                new.mkdir(parents=True)
                yield new
                _commit(real, gone)
            finally:
                _surely_settle(real)
    except BaseException as error:
        for path in missing:
            with suppress(OSError):
                path.rmdir()
        reason = _reason(error, real)
        if reason:
            raise InputError(f"{folder}: {reason}") from error
        raise


def write_file(path: Path, data: bytes) -> None:
    """Write one file, whole or not at all. Raises InputError as `atomic_folder` and `check_file`
    do."""
    check_file(path)
    with atomic_folder(path.parent) as stage:
        (stage / path.name).write_bytes(data)


def check_file(path: Path) -> None:
    """Raise InputError where something else than a file has that name: /dev/null, too, would be
    replaced."""
    try:
        with suppress(NotADirectoryError):  # told when it is written
            require_writable(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); give another") from error


def check_folder(path: Path) -> None:
    """Raise InputError where something else than a folder has that name."""
    try:
        found = errno.ENOTDIR if not stat.S_ISDIR(path.stat().st_mode) else None
    except FileNotFoundError:
        found = None
    except OSError as error:
        found = error.errno
    except ValueError:  # a name with a zero in it
        found = errno.ENOENT
    if found is not None:
        raise InputError(f"{path}: {_REASONS.get(found, os.strerror(found))}")


def _commit(folder: Path, gone: Iterable[str]) -> None:
    """Move every file of the stage to `folder`, or none. `_settle` ends it, either way."""
    new = folder / STAGE / "new"
    files = [path.relative_to(new) for path in sorted(new.rglob("*")) if not path.is_dir()]
    for name in files:
        _sync(new / name)
        _check_way(folder / name, folder)
    removed = [Path(n) for n in gone if os.path.lexists(folder / n) and Path(n) not in files]
    names = [*files, *removed]
    _note(folder, names)
    if len(names) > 1:  # one alone is there or not
        screen.put_up(folder, new, removed)
    _exchange_files(screen.place(folder), names)
    (screen.place(folder) / STAGE / "undo").unlink()  # from here on the new ones hold


def _check_way(target: Path, folder: Path) -> None:
    """Raises OSError where a file takes the place of a folder, or a folder that of something else:
    through a link to one, files would get out of `folder`."""
    if target.is_dir() and not target.is_symlink():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    for above in target.relative_to(folder).parents[:-1]:
        way = folder / above
        if os.path.lexists(way) and (way.is_symlink() or not way.is_dir()):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(target))


def _note(folder: Path, names: Sequence[Path]) -> None:
    """What has to be undone until all is done, on disk before anything is."""
    there = [name for name in names if os.path.lexists(folder / name)]
    above = {part for name in names for part in name.parents if not (folder / part).exists()}
    new = [name for name in names if name not in there]
    noted = (there, new, sorted(above, reverse=True))
    note = {k: [n.as_posix() for n in v] for k, v in zip(_NOTED, noted, strict=True)}
    partial = folder / STAGE / "partial"
    partial.write_text(json.dumps(note))
    _sync(partial)
    partial.replace(folder / STAGE / "undo")


def _exchange_files(folder: Path, names: Sequence[Path]) -> None:
    new, earlier = folder / STAGE / "new", folder / STAGE / "earlier"
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(target):
            _keep(target, earlier / name)
        if (new / name).exists():
            (new / name).replace(target)
        else:
            target.unlink(missing_ok=True)
    if os.name == "posix":
        _sync(folder)


def _keep(target: Path, backup: Path) -> None:
    backup.parent.mkdir(parents=True, exist_ok=True)
    try:
        backup.hardlink_to(target)
    except OSError:  # file systems without hard links
        target.rename(backup)


def _settle(folder: Path) -> None:
    """Undo what was begun and not done, here or by a run that was killed, and remove what is left
    of it. Begun again wherever it was cut off, it comes to the same."""
    place = screen.place(folder)
    _undo(place)
    if place != folder:
        screen.exchange(place, folder)
    screen.remove(folder)
    _remove(folder / STAGE)


def _surely_settle(folder: Path) -> None:
    """Once more where Ctrl-C, or a disk that was full for a moment, came in between."""
    try:
        _settle(folder)
    except BaseException as error:
        _settle(folder)
        if not isinstance(error, OSError):
            raise


def _undo(folder: Path) -> None:
    """Whoever may write to `folder` can have written the note, too: nothing of it leads out."""
    stage = folder / STAGE
    try:
        note: Any = parse_json(read_regular(stage / "undo", MOST_BYTES))
        replaced, added, folders = (
            [_within(folder, name) for name in note[what]] for what in _NOTED
        )
        earlier = [_within(stage / "earlier", name) for name in note["replaced"]]
    except OSError:  # nothing was begun, or all is done
        return
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{stage}: not shrinkc's own", "remove it") from error
    for backup, target in zip(earlier, replaced, strict=True):
        if os.path.lexists(backup):
            backup.replace(target)
    for path in added:
        path.unlink(missing_ok=True)
    for path in folders:
        with suppress(OSError):
            path.rmdir()
    (stage / "undo").unlink()


def _within(folder: Path, name: str) -> Path:
    """Raises ValueError where links or dots lead elsewhere."""
    path = folder / name
    if ".." in Path(name).parts or not path.parent.resolve().is_relative_to(folder):
        raise ValueError(name)
    return path


def _remove(stage: Path) -> None:
    if stage.is_symlink() or stage.is_file():
        stage.unlink()
    elif stage.exists():
        shutil.rmtree(stage)


def _sync(path: Path) -> None:
    """Force `path` to disk: a rename must not outlive the content it names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
    errno.ELOOP: "a link where none may be; choose another folder",
    errno.EFBIG: "a file is larger than may be written there; raise the limit (ulimit -f)",
    errno.EIO: "the disk reports an error; choose another folder",
}


def _reason(error: BaseException, folder: Path) -> str | None:
    """Why, for an error that the output folder caused; None for any other."""
    if not isinstance(error, OSError) or error.errno not in _REASONS:
        return None
    named = [Path(name) for name in (error.filename, error.filename2) if isinstance(name, str)]
    places = (folder, screen.beside(folder))
    if named and not any(
        p.is_relative_to(place) or place.is_relative_to(p) for p in named for place in places
    ):
        return None
    return _REASONS[error.errno]
