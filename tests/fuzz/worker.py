"""The process that reads: one input after the other, and a line of JSON for everything found.

    worker.py SCRATCH SEED READER:START:SECONDS …      inputs by number, each reader for so long
    worker.py SCRATCH SEED READER:FOLDER               what lies in a folder, once

Before each input its number is written to SCRATCH/at, so that whoever watches knows what it was at
when it crashed or hung; the input itself lies in SCRATCH/case.
"""

from __future__ import annotations

import gc
import io
import json
import mmap
import os
import shutil
import struct
import sys
import time
import traceback
import unicodedata
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests/support"))

from guard import MEMORY_BYTES, Guard, leftovers, peak_bytes, resident_bytes  # noqa: E402
from reader import Files, Reader, case  # noqa: E402
from readers import find  # noqa: E402

from shrinkc.compiler.cli.output import current  # noqa: E402
from shrinkc.errors import ShrinkcError  # noqa: E402

Finding = tuple[str, str, str]  # its kind; where, alike for inputs that meet the same; text
_TURNS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
AT = struct.Struct("<qqd")  # which reader, which input, and when it began on time.monotonic
SECONDS = 10.0  # of one input
MAX_MESSAGE = 4000  # characters; messages name paths
GROWN_BYTES = 1 << 30  # after which another process goes on: libraries keep what they compile


class Worker:
    """`folder` holds one input, `empty` nothing at all."""

    def __init__(self, readers: Sequence[Reader], scratch: Path) -> None:
        self.folder, self.empty = scratch / "case", (scratch / "cwd", scratch / "home")
        self._found = scratch / "found"
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # libraries print
        sys.stderr = os.fdopen(os.dup(2), "w")  # for a traceback of the worker's own
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        warnings.simplefilter("ignore")
        self._at = mmap.mmap(os.open(scratch / "at", os.O_RDWR), AT.size)
        self.guard = Guard(scratch)
        self.sound = {one.name: list(one.sound()) for one in readers}
        for one in readers:
            self._begin(one)
        self._started, self._parent = resident_bytes(), os.getppid()
        self.guard.limit_memory()

    def _begin(self, reader: Reader) -> None:
        """What is sound is read; and everything is imported before it counts."""
        for number, files in enumerate(self.sound[reader.name], 1):
            _emptied(self.folder)
            reader.prepare(self.folder, files)
            try:
                reader.read(self.folder)
            except Exception as error:
                self._keep(reader.name, -number, files, ("sound input", *_described(error)))

    def say(self, **message: Any) -> None:
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()

    def run(self, place: int, reader: Reader, seed: int, start: int, seconds: float) -> bool:
        """Whether this process may go on."""
        outcomes: Counter[str] = Counter()
        ended, index, small = time.monotonic() + seconds, start, True
        while time.monotonic() < ended and small:
            AT.pack_into(self._at, 0, place, index, time.monotonic())
            _emptied(self.folder)  # what does not end while it is made is not the one before
            files = case(reader, self.sound[reader.name], seed, index)
            outcome, found = self.read(reader, files)
            if found is not None and found[0] == "memory":
                gc.collect()  # what an error before still holds is not this input's
                outcome, found = self.read(reader, files)
            outcomes[outcome] += 1
            if found is not None:
                self._keep(reader.name, index, files, found)
            index += 1
            if index % 1024 == 0:  # what a crash takes along is little
                self.say(reader=reader.name, outcomes=outcomes)
                outcomes.clear()
            if index % 64 == 0:
                small = resident_bytes() - self._started < GROWN_BYTES
                if os.getppid() != self._parent:  # nobody watches any more
                    sys.exit(1)
        left = max(ended - time.monotonic(), 0.0)
        self.say(reader=reader.name, next=index, left=left, outcomes=outcomes)
        return small

    def _keep(self, name: str, index: int, files: Files, found: Finding) -> None:
        place = self._found / f"{name}-{index}"
        place.mkdir()
        for file, content in files.items():
            (place / file).write_bytes(content)
        kind, where, text = found
        self.say(reader=name, index=index, kind=kind, where=where, text=text, place=str(place))

    def read(self, reader: Reader, files: Files) -> tuple[str, Finding | None]:
        """How it went, and what is wrong with that."""
        _emptied(self.folder)
        reader.prepare(self.folder, files)
        self.guard.findings.clear()
        before, started = peak_bytes(), time.process_time()
        self.guard.armed = True
        outcome, found = _outcome(reader, self.folder)
        self.guard.armed = False
        taken, grown = time.process_time() - started, peak_bytes() - before
        left = leftovers(self.empty)
        if self.guard.findings:
            found = "foreign code or write", *self.guard.findings[0]
        elif left:
            found = "write", "what native code wrote", left[0]
            for folder in self.empty:
                _emptied(folder)
        elif taken > SECONDS:
            found = "hang", "", f"{taken:.0f} s"
        elif grown > MEMORY_BYTES:
            found = "memory", "", f"{grown >> 20} MiB"
        return outcome, found


def _emptied(folder: Path) -> None:
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)  # noqa: PTH108  (a million times)


def _outcome(reader: Reader, folder: Path) -> tuple[str, Finding | None]:
    try:
        reader.read(folder)
    except ShrinkcError as error:
        return type(error).__name__, _judged(error)
    except BaseException as error:
        return "traceback", ("traceback", *_described(error))
    return "read", None


def _judged(error: ShrinkcError) -> Finding | None:
    """The command line tells it in one line that a terminal shows as it is; and nothing was refused
    for want of memory alone."""
    told = io.StringIO()
    with redirect_stderr(told):
        current().complain(str(error))
    line = told.getvalue().removesuffix("\n")
    if len(line) > MAX_MESSAGE or not (line.isprintable() or all(map(_seen, line))):
        return "message", _where(error), f"{line!r:.300}"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or "t allocate memory" in str(cause):
            return "memory", _where(error), f"{type(cause).__name__} {cause!s:.200}"
        cause = cause.__cause__ or cause.__context__
    return None


def _seen(character: str) -> bool:
    """Whether a terminal shows it, and does not obey it."""
    kind = unicodedata.category(character)
    return (
        kind not in ("Cc", "Cs", "Zl", "Zp") and unicodedata.bidirectional(character) not in _TURNS
    )


def _described(error: BaseException) -> tuple[str, str]:
    return f"{type(error).__name__} in {_where(error)}", f"{error!s:.200}"


def _where(error: BaseException) -> str:
    """The last frames of ours."""
    frames = traceback.extract_tb(error.__traceback__)
    outside = ("/tests/", "/.venv/", "/site-packages/")
    ours = [
        f"{Path(f.filename).name} {f.name}"
        for f in frames
        if f.filename.startswith(str(ROOT)) and not any(one in f.filename for one in outside)
    ]
    return " < ".join(reversed(ours[-2:])) or "the harness"


def main(scratch: Path, seed: int, asked: Sequence[str]) -> None:
    split = [one.split(":", 1) for one in asked]
    readers = find([name for name, _ in split])
    worker = Worker(readers, scratch)
    for place, (reader, (_, what)) in enumerate(zip(readers, split, strict=True)):
        if Path(what).is_dir():
            files = {p.name: p.read_bytes() for p in Path(what).iterdir() if p.name != ".finding"}
            outcome, found = worker.read(reader, files)
            worker.say(outcome=outcome, found=found)
        else:
            start, seconds = what.split(":")
            if not worker.run(place, reader, seed, int(start), float(seconds)):
                return


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    os.chdir(folder / "cwd")
    main(folder, int(sys.argv[2]), sys.argv[3:])
