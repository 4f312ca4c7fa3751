"""Tars that nobody vouches for: read as a stream, in bounded memory, nothing unpacked to disk."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import tarfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from shrinkc.compiler.support.reading.regular_file import open_regular
from shrinkc.errors import ImageError

MAX_BYTES = 1 << 28  # of one member
# Bytes that a compressed tar may unpack to for each of its own, and in any case: images hardly
# shrink, nothing but a bomb shrinks so much, and going through one takes hours.
MOST_PACKED, LEAST_UNPACKED = 100, 1 << 28
_DAMAGED = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError)


class _Bounded(io.RawIOBase):
    """A stream that refuses reads larger than one image: tar headers may ask for any length."""

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self._stream, self._most = stream, most

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= MAX_BYTES + 1:
            raise tarfile.ReadError("a header of unreasonable length")
        self._check(self._stream.tell())
        return self._stream.read(size)

    def _check(self, place: int) -> None:
        if place > self._most:
            raise tarfile.ReadError("it points nowhere, or unpacks to far more than it holds")

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._check(offset if whence == 0 else 0)
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


@contextmanager
def open_tar(path: Path) -> Generator[tarfile.TarFile]:
    """Open a .tar, .tar.gz, .tar.bz2 or .tar.xz. Raises ImageError where it is none."""
    with _opened(path) as raw, _decompressed(raw) as stream:
        try:
            packed = path.stat().st_size
            most = sys.maxsize if stream is raw else max(MOST_PACKED * packed, LEAST_UNPACKED)
            tar = tarfile.open(fileobj=_Bounded(stream, most), mode="r:")  # noqa: SIM115
        except _DAMAGED as error:
            raise ImageError(
                f"{path}: neither a folder nor a readable tar; check `images`"
            ) from error
        with tar:
            yield tar


def _opened(path: Path) -> io.BufferedReader:
    try:
        return cast(io.BufferedReader, open_regular(path))
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}); check `images`") from error


def _decompressed(raw: io.BufferedReader) -> IO[bytes]:
    magic = raw.peek(6)
    if magic.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=raw))
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(raw)
    return lzma.LZMAFile(raw) if magic.startswith(b"\xfd7zXZ") else raw


def tar_files(tar: tarfile.TarFile, path: Path) -> Iterator[tuple[int, tarfile.TarInfo]]:
    """The regular files, with their position among all entries."""
    position = 0
    try:
        while (member := tar.next()) is not None:
            cast(Any, tar).members.clear()  # it would keep every header
            if member.isreg():
                yield position, member
            position += 1
    except _DAMAGED as error:
        raise ImageError(f"{path}: the tar is damaged or cut off; make it again") from error


def member_bytes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Raises ImageError with the reason alone."""
    if member.size > MAX_BYTES:
        raise ImageError(f"{member.size:,} bytes are too many")
    try:
        file = tar.extractfile(member)
        assert file is not None  # a regular file
        return read_limited(file)
    except _DAMAGED as error:
        raise ImageError("the tar is damaged there or cut off") from error


def read_limited(file: IO[bytes]) -> bytes:
    """All of `file`. Raises ImageError, with the reason alone, where it is too large."""
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ImageError(f"more than {MAX_BYTES:,} bytes are too many")
    return data


Place = tuple[int, int]  # of a member's bytes in the tar, and how many


def tar_places(path: Path) -> dict[int, Place] | None:
    """Position → where its bytes lie, of the regular members; None for a compressed tar. Raises
    ImageError where the tar is damaged."""
    with _opened(path) as raw:
        if _decompressed(raw) is not raw:
            return None
    with open_tar(path) as tar:
        return {
            position: (member.offset_data, member.size)
            for position, member in tar_files(tar, path)
            if not member.issparse()
        }


def bytes_at(path: Path, place: Place) -> bytes:
    """Raises ImageError with the reason alone."""
    start, size = place
    if size > MAX_BYTES:
        raise ImageError(f"{size:,} bytes are too many")
    try:
        with open_regular(path) as file:
            file.seek(start)
            data = file.read(size)
    except OSError as error:
        raise ImageError(f"cannot be read ({(error.strerror or 'error').lower()})") from error
    if len(data) < size:
        raise ImageError("the tar is damaged there or cut off")
    return data
