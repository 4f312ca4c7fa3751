"""What an unfinished profile has measured, on disk after every handful of operators: a run that is
killed goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from shrinkc.compiler.devices.jobs import key_from_json
from shrinkc.compiler.devices.samples import Sample
from shrinkc.errors import InputError
from shrinkc.latency_tables.key import OpKey

SCHEMA = 1
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
    """Entries so far and conditions seen; `add` puts more on disk before it returns."""

    path: Path
    _descriptor: int
    entries: list[Entry] = field(default_factory=list[Entry])
    conditions: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])

    def add(self, entries: Sequence[Entry], conditions: Mapping[str, Any] | None = None) -> None:
        """Raises InputError when it cannot be written."""
        lines = [_entry_json(entry) for entry in entries]
        lines += [{"conditions": dict(conditions)}] if conditions else []
        _write(self._descriptor, lines, self.path)
        self.entries += entries
        self.conditions += [conditions] if conditions else []

    def samples(self) -> dict[OpKey, list[Sample]]:
        found: dict[OpKey, list[Sample]] = {}
        for entry in self.entries:
            if entry.sample is not None:
                found.setdefault(entry.key, []).append(entry.sample)
        return found

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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        journal = Journal(path, descriptor)
        _read(journal, {"schema": SCHEMA, **header})
        yield journal
    finally:
        os.close(descriptor)


def _read(journal: Journal, header: Mapping[str, Any]) -> None:
    """A last line that was cut off by the end of the run before is dropped."""
    data = journal.path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    os.ftruncate(journal._descriptor, len(whole))  # pyright: ignore[reportPrivateUsage]
    lines = whole.splitlines()
    if not lines:
        _write(journal._descriptor, [dict(header)], journal.path)  # pyright: ignore
        return
    try:
        found, *rest = (json.loads(line) for line in lines)
        _require_same(cast("dict[str, Any]", found), header, journal.path)
        for value in rest:
            if "conditions" in value:
                journal.conditions.append(value["conditions"])
            else:
                journal.entries.append(_entry(value))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{journal.path}: damaged ({error}); delete it to start again") from None


def _require_same(found: dict[str, Any], header: Mapping[str, Any], path: Path) -> None:
    for name, value in header.items():
        if found.get(name) != value:
            raise InputError(
                f"{path}: an unfinished run with {name} {found.get(name)}, now {value}; "
                "delete it to start again, or choose another `target`"
            )


def _write(descriptor: int, lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    data = text.encode("utf-8")
    try:
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error


def _entry_json(entry: Entry) -> dict[str, Any]:
    outcome = {"failure": entry.failure, "crash": entry.crash}
    return {"key": asdict(entry.key), **(asdict(entry.sample) if entry.sample else outcome)}


def _entry(value: Mapping[str, Any]) -> Entry:
    key = key_from_json(value["key"])
    if "failure" in value:
        return Entry(key, failure=value["failure"], crash=value["crash"])
    times, reference = tuple(value["times_us"]), tuple(value["reference_us"])
    return Entry(key, Sample(times, value["base_us"], reference))
