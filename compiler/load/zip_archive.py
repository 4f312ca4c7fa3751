"""The zip archives of torch.save, read so that Python's reader and torch's cannot see two things.

Both find the list of entries from the end of the file, and each forgives other mistakes: an
archive can show a harmless pickle to the one that looks for names and another to the one that
loads. So what they could take differently is refused, none of which torch.save writes: bytes
behind the end record, a list of entries that is not right before it, two names that differ in case
alone, sizes in extra fields.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from shrinkc.compiler.support.text import shown
from shrinkc.errors import LoadError

_END, _LOCATOR, _END64, _LOCAL = b"PK\5\6", b"PK\6\7", b"PK\6\6", b"PK\3\4"
MAX_ENTRIES = 100_000
_MOST_OF_ONE = 1024  # bytes of the list of entries
_ENCRYPTED = 0x2041  # flags: encrypted, strongly encrypted, its directory too
_ODD = ("\0", "\\")


class DamagedError(Exception):
    """What is wrong; the caller knows the file's name."""


@dataclass(frozen=True)
class Archive:
    """The entries of an archive; names as they stand there."""

    path: Path
    entries: tuple[zipfile.ZipInfo, ...]

    @property
    def unpacked(self) -> int:
        """Bytes of all entries."""
        return sum(entry.file_size for entry in self.entries)

    @property
    def inner_names(self) -> set[str]:
        """Names without the folder that torch.save puts them into."""
        return {entry.filename.partition("/")[2] for entry in self.entries}

    def inner(self, name: str) -> zipfile.ZipInfo:
        """Raises LoadError where there is none, or several folders have one."""
        found = [e for e in self.entries if e.filename.partition("/")[2] == name]
        folders = {e.filename.partition("/")[0] for e in self.entries}
        if len(found) > 1 or len(folders) > 1:
            raise LoadError(f"{self.path}: damaged: two archives in one; copy or save it again")
        if not found:
            raise LoadError(f"{self.path}: no {name} in it; save the model again with torch.save")
        return found[0]

    def read(self, name: str) -> bytes:
        """The content of an inner name. Raises LoadError."""
        entry = self.inner(name)
        try:
            return self._content(entry)
        except (DamagedError, OSError, zlib.error) as error:
            raise LoadError(_damaged(self.path, entry)) from error

    def check(self) -> None:
        """Raise LoadError naming the first entry that is not what was written, by its checksum.

        torch.save can be told to write none (`set_crc32_options`): they are all 0 then.
        """
        if not any(entry.CRC for entry in self.entries):
            return
        for entry in self.entries:
            try:
                checksum = zlib.crc32(self._content(entry))
            except (DamagedError, OSError, zlib.error) as error:
                raise LoadError(_damaged(self.path, entry)) from error
            if checksum != entry.CRC:
                raise LoadError(_damaged(self.path, entry))

    def _content(self, entry: zipfile.ZipInfo) -> bytes:
        """Raises DamagedError, OSError, zlib.error."""
        with self.path.open("rb") as file:
            file.seek(entry.header_offset)
            header = file.read(30)
            if header[:4] != _LOCAL or len(header) < 30:
                raise DamagedError("no header")
            file.seek(sum(struct.unpack("<HH", header[26:30])), 1)
            if entry.compress_size > self.path.stat().st_size:
                raise DamagedError("larger than the file")
            stored = file.read(entry.compress_size)
        if entry.compress_type == zipfile.ZIP_DEFLATED:
            decompressor = zlib.decompressobj(-15)
            stored = decompressor.decompress(stored, entry.file_size + 1)
        if len(stored) != entry.file_size:
            raise DamagedError("of another size")
        return stored


def open_archive(path: Path) -> Archive:
    """The entries of a zip archive.

    Raises LoadError for one that is truncated, damaged, encrypted, or that two readers could take
    differently.
    """
    try:
        count = _check_end(path)
        with zipfile.ZipFile(path) as archive:
            entries = tuple(archive.infolist())
        _check_entries(entries, count)
    except DamagedError as error:
        raise LoadError(
            f"{path}: truncated or damaged ({error}); copy or download it again"
        ) from error
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        raise LoadError(f"{path}: truncated or damaged; copy or download it again") from error
    return Archive(path, entries)


def _check_end(path: Path) -> int:
    """How many entries the end records announce. Raises DamagedError unless the list of entries
    stands right before them, and they at the end of the file."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 98))
        tail = file.read()
    end = tail[-22:]
    if end[:4] != _END or len(end) < 22:
        raise DamagedError("its end is missing")
    disk, start_disk, here, count, length, offset, comment = struct.unpack("<HHHHIIH", end[4:])
    if comment or disk or start_disk or here != count:
        raise DamagedError("its end record is none of torch.save's")
    before = size - 22
    locator = tail[-42:-22]
    if locator[:4] == _LOCATOR:  # the same again for large archives, which torch always writes
        record, before = tail[:56], size - 98
        _, at, disks = struct.unpack("<IQI", locator[4:])
        if len(tail) < 98 or at != before or disks > 1 or record[:4] != _END64:
            raise DamagedError("its two end records do not fit")
        length_left, disk, start_disk, here, count64, length64, offset64 = struct.unpack(
            "<Q4xIIQQQQ", record[4:]
        )
        same = (count, length, offset) == (count64, length64, offset64)
        if not same or length_left != 44 or disk or start_disk or here != count64:
            raise DamagedError("its two end records do not fit")
    if count > MAX_ENTRIES or length > _MOST_OF_ONE * count:
        raise DamagedError(f"{count:,} entries")
    if offset + length != before:
        raise DamagedError("its list of entries is not where it should be")
    return count


def _check_entries(entries: tuple[zipfile.ZipInfo, ...], count: int) -> None:
    if not entries or len(entries) != count:
        raise DamagedError("its list of entries is damaged")
    if min(entry.header_offset for entry in entries) != 0:
        raise DamagedError("what was found is an archive inside the archive")
    if len({entry.filename.casefold() for entry in entries}) < len(entries):
        raise DamagedError("two entries of one name")
    for entry in entries:
        name = entry.orig_filename
        if any(odd in name for odd in _ODD) or not name.partition("/")[2].isascii():
            raise DamagedError(f"an entry named {shown(ascii(name), 60)}")
        if entry.flag_bits & _ENCRYPTED:
            raise DamagedError(f"{shown(name, 60)} is encrypted")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DamagedError(f"{shown(name, 60)} is compressed in an unknown way")
        if _has_sizes(entry.extra):
            raise DamagedError(f"the size of {shown(name, 60)} is said twice")


def _has_sizes(extra: bytes) -> bool:
    """A field of the kind that replaces sizes and offsets (zip64), which files of this size do not
    need, or what is no list of fields."""
    while extra:
        if len(extra) < 4:
            return True
        kind, length = struct.unpack("<HH", extra[:4])
        if kind == 1 or length > len(extra) - 4:
            return True
        extra = extra[4 + length :]
    return False


def _damaged(path: Path, entry: zipfile.ZipInfo) -> str:
    name = shown(entry.filename, 60)
    return (
        f"{path}: damaged: '{name}' is not what was written (checksum); copy or download it again"
    )
