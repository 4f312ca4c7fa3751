"""Zip archives as torch.save makes them, with lies where torch's reader and Python's look."""

from __future__ import annotations

import io
import struct
import zipfile
from random import Random

import mutate

_LONGEST = 1 << 20  # bytes of an entry that is repeated: a thousand times twice is a million
_FIELDS = {  # of the two headers of an entry: offset and size
    b"PK\1\2": (
        (6, 2),
        (8, 2),
        (10, 2),
        (16, 4),
        (20, 4),
        (24, 4),
        (28, 2),
        (30, 2),
        (32, 2),
        (42, 4),
    ),
    b"PK\3\4": ((4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)),
    b"PK\5\6": ((4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2)),
    b"PK\6\6": ((4, 8), (24, 8), (32, 8), (40, 8), (48, 8)),
    b"PK\6\7": ((4, 4), (8, 8), (16, 4)),
}


def repacked(given: bytes, contents: dict[str, bytes]) -> bytes:
    """The archive with these inner files in place of its own, checksums right."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(given)) as old, zipfile.ZipFile(out, "w") as new:
        for entry in old.infolist():
            inner = entry.filename.partition("/")[2]
            new.writestr(entry.filename, contents.get(inner, old.read(entry)))
    return out.getvalue()


def content(given: bytes, inner: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(given)) as archive:
        name = next(n for n in archive.namelist() if n.partition("/")[2] == inner)
        return archive.read(name)


def changed(rng: Random, given: bytes) -> bytes:
    """Fields of its headers, entries put in, left out, renamed, packed; or bytes."""
    if rng.random() < 0.4:
        return mutate.data(rng, given, tuple(_FIELDS))
    if rng.random() < 0.5:
        return _fields(rng, bytearray(given))
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(given)) as old, zipfile.ZipFile(out, "w") as new:
        entries = [(entry.filename, old.read(entry)) for entry in old.infolist()]
        for _ in range(rng.choice((1, 1, 2))):
            _entry(rng, entries)
        for name, data in entries:
            how = rng.choice((zipfile.ZIP_STORED,) * 5 + (zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))
            try:
                new.writestr(name, data, how)
            except (ValueError, IndexError):  # names that cannot be written
                continue
        if rng.random() < 0.1:
            new.comment = rng.randbytes(8)
    return out.getvalue()


def _fields(rng: Random, raw: bytearray) -> bytes:
    places = [(at, fields) for magic, fields in _FIELDS.items() for at in _found(raw, magic)]
    for _ in range(rng.choice((1, 1, 2, 3))):
        at, fields = rng.choice(places)
        offset, size = rng.choice(fields)
        place = slice(at + offset, at + offset + size)
        if place.stop > len(raw):
            continue
        now = int.from_bytes(raw[place], "little")
        numbers = (now + 1, now - 1, now * 2, *(n for n in mutate.NUMBERS if isinstance(n, int)))
        raw[place] = (rng.choice(numbers) % (1 << (8 * size))).to_bytes(size, "little")
    return bytes(raw)


def _found(raw: bytearray, magic: bytes) -> list[int]:
    found, at = [], raw.find(magic)
    while at >= 0:
        found.append(at)
        at = raw.find(magic, at + 1)
    return found


def _entry(rng: Random, entries: list[tuple[str, bytes]]) -> None:
    at = rng.randrange(len(entries))
    name, data = entries[at]
    match rng.randrange(6):
        case 0:
            del entries[at]
        case 1:
            entries.append((name, data))
        case 2:
            others = (
                name.upper(),
                f"x{name}",
                name + "\0",
                "../ran",
                "/ran",
                "archive/code/a.py",
                *mutate.TEXTS,
            )
            entries[at] = (rng.choice(others), data)
        case 3:
            entries[at] = (name, mutate.data(rng, data))
        case 4:
            entries[at] = (name, (data * rng.choice((0, 2, 1000)))[:_LONGEST])
        case _:
            entries.append(
                (
                    rng.choice(("a/data.pkl", "archive/constants.pkl", "archive/archive_format")),
                    data,
                )
            )
    if not entries:
        entries.append((name, data))


def npz(arrays: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, data in arrays.items():
            file.writestr(f"{name}.npy", data)
    return out.getvalue()


def safetensors(header: bytes, numbers: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + numbers


def member(given: bytes, name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(given)) as archive:
        return archive.read(name)
