"""Lines of JSON that are appended one after the other, each with its length and checksum.

    2f 5d41402a ["key",[1.5]]

A run that is killed leaves half a line, a disk that fails leaves anything. Such a line is dropped
and no other: what is appended behind half a line begins a line of its own.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from shrinkc.compiler.support.reading.regular_file import read_regular
from shrinkc.compiler.support.reading.strict_json import parse_json

MAX_BYTES = 256 << 20  # of a file; a table of 200,000 operators, measured three times, has 200 MB


def read_lines(path: Path) -> Iterator[Any]:
    """The values of all lines that are whole; none where there is no file. Raises OSError."""
    try:
        data = read_regular(path, MAX_BYTES)
    except FileNotFoundError:
        return
    for line in data.split(b"\n"):
        try:
            yield _value(line)
        except ValueError:
            continue


def append_lines(descriptor: int, values: Iterable[Any], whole: bool = False) -> None:
    """Onto a file that is open for appending and reading, in one write; `whole` where its last line
    is known to be. Raises OSError, ValueError for what JSON cannot hold."""
    data = b"".join(map(_line, values))
    size = 0 if whole else os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        data = b"\n" + data
    while data:
        data = data[os.write(descriptor, data) :]


def _line(value: Any) -> bytes:
    text = json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    return b"%x %08x %s\n" % (len(text), zlib.crc32(text), text)


def _value(line: bytes) -> Any:
    length, checksum, text = line.split(b" ", 2)
    if int(length, 16) != len(text) or int(checksum, 16) != zlib.crc32(text):
        raise ValueError("not what was written")
    return parse_json(text)
