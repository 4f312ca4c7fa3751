"""Journals of unfinished runs."""

from __future__ import annotations

import math
import tempfile
from functools import cache
from pathlib import Path
from random import Random

import mutate
from reader import Files, Reader

from shrinkc.compiler.devices.jobs import Setup
from shrinkc.compiler.devices.samples import Sample
from shrinkc.compiler.profile.journal import Entry, open_journal
from shrinkc.compiler.profile.measure import Plan, outcome, reference_us
from shrinkc.compiler.support.journal import Journal
from shrinkc.latency_tables.key import OpKey

_HEADER = {"on": "host", "threads": 1}
_KEYS = (OpKey("relu", 8, 8, in_size=(4, 4), out_size=(4, 4)), OpKey("linear", 8, 4))


def _journals() -> list[Files]:
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder), "j")
        for label in ("a", "b", "c d"):
            journal.put(label, [1.5, -2.0])
        return [{path.name: path.read_bytes() for path in Path(folder).iterdir()}]


def _changed(rng: Random, files: Files) -> Files:
    ((name, data),) = files.items()
    return {name: mutate.text(rng, data, (b'["d", 1.0]', b'{"conditions": {}}', b'"times_us": []'))}


def _read(folder: Path) -> None:
    """What is put behind whatever it is, is found again; nothing in it is no number."""
    Journal(folder, "j").put("new", [3.0])
    entries = Journal(folder, "j").entries
    assert entries.get("new") == [3.0], "what was put last is lost"
    odd = [one for numbers in entries.values() for one in numbers if not math.isfinite(one)]
    assert not odd, f"{odd[0]} is taken for a measurement"


@cache
def _profiles() -> list[Files]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "j.jsonl")
        with open_journal(path, _HEADER) as journal:
            conditions = {
                "governor": None,
                "frequency_mhz": 1500.0,
                "temperature_c": 50.0,
                "load": 0.5,
            }
            entries = [Entry(key, Sample((2.0, 3.0), 0.5, (9.0, 9.5))) for key in _KEYS]
            journal.add([*entries, Entry(_KEYS[0], failure="no", crash=True)], conditions)
        return [{path.name: path.read_bytes()}]


def _read_profile(folder: Path) -> None:
    plan = Plan(_KEYS, Setup("tflite"))
    with open_journal(folder / "j.jsonl", _HEADER) as journal:
        journal.add([Entry(_KEYS[1], Sample((1.0,)))])
        found = outcome(plan, journal)
        speed = reference_us(journal)
        seen = [
            c["temperature_c"] for c in journal.conditions if c.get("temperature_c") is not None
        ]
        max(seen, default=None)
    odd = [m.median_us for m in found.measured.values() if not 0 < m.median_us < 1e300]
    assert not odd, f"{odd[0]} µs is taken for a measurement"
    assert speed is None or 0 < speed < 1e300, f"{speed} µs is taken for the reference"


READERS = (
    Reader("journal", _journals, _changed, _read),
    Reader("profile_journal", _profiles, _changed, _read_profile),
)
