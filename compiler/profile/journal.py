"""What an unfinished profile has measured, on disk after every handful of operators: a run that is
killed goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from shrinkc.compiler.devices.jobs import key_from_json
from shrinkc.compiler.devices.samples import Sample
from shrinkc.compiler.support.journal import is_measured
from shrinkc.compiler.support.json_values import finite
from shrinkc.compiler.support.reading.checked_lines import append_lines, read_lines
from shrinkc.compiler.support.reading.regular_file import require_writable
from shrinkc.compiler.support.text import one_line
from shrinkc.errors import InputError
from shrinkc.latency_tables.key import OpKey

SCHEMA = 2
READ_CONDITIONS = {"frequency_mhz": "MHz", "temperature_c": "°C"}
FORCED_S = 5.0
CRASHES = 2  # of the device at the same operator, after which it is left out


@dataclass(frozen=True)
class Entry:
    """One pass over one operator, or why there is none. `crash`: the device broke down at it."""

    key: OpKey
    sample: Sample | None = None
    failure: str = ""
    crash: bool = False


@dataclass
class Journal:
    """Entries so far and conditions seen. What `add` returns from is kept if the process is killed,
    and what is older than FORCED_S at the next `force` if the machine is."""

    path: Path
    _descriptor: int
    _of: str  # which profile's lines these are: of what its header says
    entries: list[Entry] = field(default_factory=list[Entry])
    conditions: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])
    _samples: dict[OpKey, list[Sample]] = field(default_factory=dict[OpKey, list[Sample]])
    _sorted: int = 0  # entries that `_samples` has
    _whole: bool = False  # the last line, since this process wrote it
    _forced: float = field(default_factory=time.monotonic)  # onto the disk

    def add(self, entries: Sequence[Entry], conditions: Mapping[str, Any] | None = None) -> None:
        """Raises InputError when it cannot be written."""
        lines = [_entry_json(entry) for entry in entries]
        lines += [{"conditions": dict(conditions)}] if conditions else []
        self._write([{"of": self._of, **line} for line in lines])
        self.entries += entries
        self.conditions += [conditions] if conditions else []

    def _write(self, lines: Sequence[Mapping[str, Any]]) -> None:
        whole, self._whole = self._whole, False
        try:
            try:
                append_lines(self._descriptor, lines, whole)
            except ValueError:  # numbers that JSON lacks; nothing was written
                append_lines(self._descriptor, [finite(line) for line in lines], whole)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written: {error.strerror}") from error
        self._whole = True

    def force(self) -> None:
        """Onto the disk, where it outlives the machine. Not after every handful of operators:
        a hundred devices would wait for the disk. Raises InputError as `add`."""
        if time.monotonic() - self._forced < FORCED_S:
            return
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written: {error.strerror}") from error
        self._forced = time.monotonic()

    def _read(self, header: Mapping[str, Any]) -> None:
        """What is there of this profile. A damaged line is measured again."""
        known = False
        for line in _objects(self.path):
            if "header" in line:
                _require_same(line["header"], header, self.path)
                known = True
            elif line.get("of") != self._of:
                continue
            elif "conditions" in line:
                self.conditions += [line["conditions"]] if _are_conditions(line) else []
            else:
                self.entries += _entries(line)
        if not known:
            self._write([{"header": dict(header)}])

    def samples(self) -> dict[OpKey, list[Sample]]:
        """Those of every operator, in the order in which they were measured."""
        for entry in self.entries[self._sorted :]:
            if entry.sample is not None:
                self._samples.setdefault(entry.key, []).append(entry.sample)
        self._sorted = len(self.entries)
        return self._samples

    def failures(self) -> dict[OpKey, str]:
        """Operators without a file, those that the runtime refused and those that broke it."""
        failed = {e.key: e.failure for e in self.entries if e.sample is None and not e.crash}
        crashes: dict[OpKey, list[str]] = {}
        for entry in self.entries:
            if entry.crash:
                crashes.setdefault(entry.key, []).append(entry.failure)
        failed.update({key: texts[-1] for key, texts in crashes.items() if len(texts) >= CRASHES})
        return failed

    def crashed(self) -> set[OpKey]:
        """At which the device broke down at least once."""
        return {entry.key for entry in self.entries if entry.crash}


@contextmanager
def open_journal(path: Path, header: Mapping[str, Any]) -> Generator[Journal]:
    """The journal of this profile, begun where there is none. Who opens it is alone at the table.

    Raises InputError: it is of another device, runtime or shrinkc, or the
    folder cannot be written.
    """
    header = {"schema": SCHEMA, **header}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        require_writable(path)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        journal = Journal(path, descriptor, _digest(header))
        journal._read(header)  # pyright: ignore[reportPrivateUsage]
        yield journal
    finally:
        os.close(descriptor)


def _digest(header: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()[:12]


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    try:
        for value in read_lines(path):
            if isinstance(value, dict):
                yield cast("dict[str, Any]", value)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); delete it") from error


def _require_same(found: Any, header: Mapping[str, Any], path: Path) -> None:
    there = cast("dict[str, Any]", found if isinstance(found, dict) else {})
    for name, value in header.items():
        if there.get(name) != value:
            before = one_line(str(there.get(name)), 60)
            raise InputError(
                f"{path}: an unfinished run with {name} {before}, now {value}; "
                "delete it to start again, or choose another target"
            )


def _entry_json(entry: Entry) -> dict[str, Any]:
    key, sample = _key_json(entry.key), entry.sample
    if sample is None:
        return {"key": key, "failure": entry.failure, "crash": entry.crash}
    return {"key": key, **{name: getattr(sample, name) for name in _SAMPLE}}


_SAMPLE = tuple(one.name for one in fields(Sample))


@lru_cache(maxsize=1 << 12)  # written in every pass, by every device
def _key_json(key: OpKey) -> dict[str, Any]:
    return asdict(key)


def _are_conditions(line: Mapping[str, Any]) -> bool:
    """By name, and numbers where they are read as such."""
    found: Any = line["conditions"]
    if not isinstance(found, dict):
        return False
    values = [cast("dict[str, Any]", found).get(name) for name in READ_CONDITIONS]
    return all(value is None or is_measured(value) for value in values)


def _entries(line: Mapping[str, Any]) -> list[Entry]:
    """The one in it; none where it holds something else."""
    try:
        key = key_from_json(line["key"])
        hash(key)
        if "failure" in line:
            return [Entry(key, failure=str(line["failure"]), crash=bool(line["crash"]))]
        times, reference = tuple(line["times_us"]), tuple(line["reference_us"])
        numbers = (line["base_us"], *times, *reference)
    except (KeyError, TypeError):
        return []
    sound = bool(times) and all(is_measured(one) and one >= 0 for one in numbers)
    fits = not reference or len(reference) == len(times)
    return [Entry(key, Sample(times, line["base_us"], reference))] if sound and fits else []
