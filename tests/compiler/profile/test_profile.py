"""Measuring on a device that is played: passes, what is taken off, noise, going on after a loss."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from shrinkc.compiler.devices.jobs import REFERENCE, Failed, Measured, Method, Model, Ran, Setup
from shrinkc.compiler.profile.journal import Journal, open_journal
from shrinkc.compiler.profile.measure import (
    GROUP,
    REFERENCE_KEY,
    TINY,
    Plan,
    described,
    footprint,
    outcome,
    profile,
    reference_us,
)
from shrinkc.compiler.support.reading.checked_lines import append_lines
from shrinkc.errors import DeviceLostError, InputError
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.table import NETWORK

KEYS = tuple(OpKey("relu", c, c, in_size=(4, 4), out_size=(4, 4)) for c in range(8, 72))
TFLITE = Setup("tflite")
HEADER = {"on": "played", "threads": 1}
OVERHEAD_US = 3.0


class Played:
    """A session where an operator takes as many µs as it has channels, and an inference 3 more.
    `speed` makes everything slower, the reference too."""

    environment: Mapping[str, Any] = {"cpu": "played"}
    conditions: Mapping[str, Any] = {"temperature_c": 40.0}

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed
        self.groups: list[list[str]] = []
        self.methods: list[Method] = []
        self.noisy: set[str] = set()
        self.refused: set[str] = set()
        self.lost: dict[str, bool] = {}  # model → whether it crashes

    def measure(self, models: Sequence[Model], method: Method) -> Iterator[Measured | Failed]:
        self.groups.append([model.name for model in models])
        self.methods.append(method)
        for model in models:
            if model.name in self.lost:
                text = f"played: lost while running {model.name}"
                raise DeviceLostError(text, model.name, self.lost[model.name])
        for model in models:
            if model.name == REFERENCE:
                continue
            if model.name in self.refused:
                yield Failed(model.name, "op code 999")
            else:
                reference = (20.0 * self.speed,) * 6 if models[0].name == REFERENCE else ()
                yield Measured(model.name, self._times(model), reference)

    def _times(self, model: Model) -> tuple[float, ...]:
        assert model.key is not None
        own = 0.0 if model.name == TINY else float(model.key.in_channels)
        spread = 0.2 if model.name in self.noisy else 0.0
        return tuple((own * (1 + spread * (i % 3)) + OVERHEAD_US) * self.speed for i in range(6))

    def run(self, model: Model, inputs: object) -> Ran | Failed:
        raise NotImplementedError


def count() -> tuple[list[int], Any]:
    calls: list[int] = []
    return calls, lambda: calls.append(1)


def run(session: Played, path: Path, keys: tuple[OpKey, ...] = KEYS, **plan: Any) -> Any:
    with open_journal(path, HEADER) as journal:
        return profile(
            session, Plan(keys, TFLITE, **plan), journal, lambda: None, threading.Event()
        )


def test_the_operators_own_time(tmp_path: Path) -> None:
    result = run(Played(), tmp_path / "j")
    assert {key: m.median_us for key, m in result.measured.items()} == {
        key: float(key.in_channels) for key in KEYS
    }
    assert {m.runs for m in result.measured.values()} == {18}  # three passes of six
    assert (result.failed, result.missing, result.noisy) == ({}, (), ())


def test_groups_are_small_shuffled_and_have_the_reference(tmp_path: Path) -> None:
    session = Played()
    run(session, tmp_path / "j", passes=2)
    assert all(names[:2] == [REFERENCE, TINY] for names in session.groups)
    assert max(len(names) for names in session.groups) == GROUP + 2
    first, second = (
        session.groups[: len(session.groups) // 2],
        session.groups[len(session.groups) // 2 :],
    )
    assert [sorted(g) for g in first] != [sorted(g) for g in second]
    for passed in (first, second):
        names = [name for group in passed for name in group[2:]]
        assert sorted(names) == sorted(described(key) for key in KEYS)
    assert all(method.undisturbed and not method.kernels for method in session.methods)
    assert min(method.ballast_bytes for method in session.methods) > 10e6  # tiny operators


def test_large_operators_need_no_ballast(tmp_path: Path) -> None:
    key = OpKey("relu", 4096, 4096, in_size=(32, 32), out_size=(32, 32))
    assert footprint(key) == 2 * 4096 * 1024 * 4
    session = Played()
    run(session, tmp_path / "j", (key,), passes=1)
    assert session.methods[0].ballast_bytes == 0


def test_a_slow_pass_is_corrected(tmp_path: Path) -> None:
    path = tmp_path / "j"
    run(Played(1.0), path, passes=2)
    result = run(Played(1.5), path, passes=3)
    key = KEYS[-1]
    assert result.measured[key].median_us == pytest.approx(key.in_channels)
    assert result.noisy == ()


def test_what_an_inference_costs(tmp_path: Path) -> None:
    key = OpKey(NETWORK, 1, 1)
    session = Played()
    result = run(session, tmp_path / "j", (key, *KEYS[:2]))
    assert result.measured[key].median_us == OVERHEAD_US
    assert session.groups[0] == [TINY]


def test_noisy_operators_are_measured_once_more_and_named(tmp_path: Path) -> None:
    session = Played()
    session.noisy = {described(KEYS[30])}
    result = run(session, tmp_path / "j")
    assert session.groups[-1] == [REFERENCE, TINY, described(KEYS[30])]
    assert result.measured[KEYS[30]].runs == 24
    assert result.noisy == (KEYS[30],)


def test_refused_operators_are_not_asked_again(tmp_path: Path) -> None:
    session = Played()
    session.refused = {described(KEYS[3])}
    none = OpKey("nonsense", 8, 8)
    result = run(session, tmp_path / "j", (*KEYS[:5], none))
    assert result.failed[KEYS[3]] == "op code 999"
    assert "nonsense" in result.failed[none]
    asked = [group.count(described(KEYS[3])) for group in session.groups]
    assert sum(asked) == 1


def test_no_time_left(tmp_path: Path) -> None:
    result = run(Played(), tmp_path / "j", budget_s=0.0)
    assert result.missing == KEYS
    again = run(Played(), tmp_path / "j")
    assert again.missing == ()


def test_a_lost_device_keeps_what_was_measured_and_the_next_run_goes_on(tmp_path: Path) -> None:
    path, bad = tmp_path / "j", described(KEYS[40])
    session = Played()
    session.lost = {bad: False}
    with pytest.raises(DeviceLostError, match=bad):
        run(session, path)
    kept = path.read_text()
    asked = {name for group in session.groups[:-1] for name in group}
    after = Played()
    result = run(after, path)
    assert path.read_text().startswith(kept)
    assert len(result.measured) == len(KEYS)
    again = [name for group in after.groups for name in group if name in asked - {REFERENCE, TINY}]
    assert len(again) == 2 * len(asked - {REFERENCE, TINY})  # the other two passes


def test_an_operator_that_breaks_the_device_goes_last_and_then_out(tmp_path: Path) -> None:
    path, bad = tmp_path / "j", described(KEYS[40])
    session = Played()
    session.lost = {bad: True}
    for _ in range(2):
        with pytest.raises(DeviceLostError):
            run(session, path)
    assert session.groups[-1] == [REFERENCE, TINY, bad]
    result = run(session, path)
    assert "lost while running" in result.failed[KEYS[40]]
    assert len(result.measured) == len(KEYS) - 1


def test_ctrl_c_ends_after_a_group(tmp_path: Path) -> None:
    stop = threading.Event()
    session = Played()

    def done() -> None:
        stop.set()

    with open_journal(tmp_path / "j", HEADER) as journal:
        profile(session, Plan(KEYS, TFLITE), journal, done, stop)
    assert len(session.groups) == 1


def test_progress_counts_what_was_done_before(tmp_path: Path) -> None:
    path = tmp_path / "j"
    run(Played(), path, passes=1)
    calls, done = count()
    with open_journal(path, HEADER) as journal:
        profile(Played(), Plan(KEYS, TFLITE), journal, done, threading.Event())
    assert len(calls) == 3 * len(KEYS)


def test_descriptions_tell_all_keys_apart() -> None:
    base = OpKey("conv2d", 8, 16, (3, 3), (2, 2), in_size=(9, 9), out_size=(5, 5))
    assert described(base) == "conv2d 8→16 3×3/2 9×9→5×5 fp32"
    changed = [
        OpKey("conv2d", 8, 16, (3, 3), (1, 1), in_size=(9, 9), out_size=(9, 9)),
        OpKey("conv2d", 8, 16, (3, 3), (2, 2), (2, 2), in_size=(9, 9), out_size=(5, 5)),
        OpKey("conv2d", 8, 16, (3, 3), (2, 2), groups=8, in_size=(9, 9), out_size=(5, 5)),
        OpKey("conv2d", 8, 16, (3, 3), (2, 2), in_size=(9, 9), out_size=(5, 5), activation="relu"),
        OpKey("conv2d", 8, 16, (3, 3), (2, 2), in_size=(9, 9), out_size=(5, 5), precision="int8"),
        OpKey("conv2d", 8, 16, (3, 1), (2, 1), in_size=(9, 9), out_size=(5, 5)),
    ]
    assert len({described(key) for key in (base, *changed)}) == 7


# --- the journal ---------------------------------------------------------------------------------


def reopened(path: Path) -> Journal:
    with open_journal(path, HEADER) as journal:
        return journal


@pytest.mark.parametrize("place", range(6))
def test_damage_costs_one_line(tmp_path: Path, place: int) -> None:
    """A line that was cut off, or has one bit changed; the first is the header."""
    path = tmp_path / "j"
    run(Played(), path, KEYS[:4], passes=1)
    entries, lines = reopened(path).entries, path.read_bytes().splitlines(keepends=True)
    broken = bytearray(lines[place])
    broken[len(broken) // 2] ^= 1
    for instead in (lines[place][: len(lines[place]) // 2], bytes(broken)):
        path.write_bytes(b"".join([*lines[:place], instead, *lines[place + 1 :]]))
        found = reopened(path).entries
        assert len(entries) - len(found) <= (2 if instead[-1:] != b"\n" else 1)
        assert {e.key for e in found} <= {e.key for e in entries}
        run(Played(), path, KEYS[:4], passes=1)  # measured again, behind what is broken
        assert {e.key for e in reopened(path).entries} == {e.key for e in entries}


def test_the_reference_and_the_conditions_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "j"
    run(Played(), path, KEYS[:4], passes=1)
    journal = reopened(path)
    assert reference_us(journal) == 20.0
    assert journal.conditions == [{"temperature_c": 40.0}]
    assert outcome(Plan(KEYS[:5], TFLITE), journal).missing == (KEYS[4],)
    assert REFERENCE_KEY not in journal.samples()


def test_a_journal_of_another_run(tmp_path: Path) -> None:
    path = tmp_path / "j"
    reopened(path)
    with (
        pytest.raises(InputError, match=r"threads 1, now 4; delete it"),
        open_journal(path, {**HEADER, "threads": 4}),
    ):
        pass


ENTRY = {"key": asdict(KEYS[0]), "times_us": [1.0], "base_us": 0.0, "reference_us": []}


@pytest.mark.parametrize(
    "wrong",
    [
        *([], {}, 5, None, {"key": 3}, {"key": {"op": "relu"}}, {"conditions": [1]}),
        {"conditions": {"temperature_c": "hot", "frequency_mhz": [1]}},
        {**ENTRY, "times_us": ["1"]},
        {**ENTRY, "times_us": [10**400]},
        {**ENTRY, "times_us": [-1.0]},
        {**ENTRY, "times_us": []},
        {**ENTRY, "base_us": None},
        {**ENTRY, "reference_us": [1.0, 2.0]},
        {**ENTRY, "key": {**ENTRY["key"], "op": []}},
    ],
    ids=str,
)
def test_lines_that_hold_something_else(tmp_path: Path, wrong: object) -> None:
    path = tmp_path / "j"
    with open_journal(path, HEADER) as journal:
        of = journal._of  # pyright: ignore[reportPrivateUsage]
    with path.open("ab+") as file:
        append_lines(file.fileno(), [{"of": of, **wrong} if isinstance(wrong, dict) else wrong])
        append_lines(file.fileno(), [{"of": of, **ENTRY}])
    found = reopened(path)
    assert [entry.key for entry in found.entries] == [KEYS[0]]
    assert all(isinstance(c.get("temperature_c", 0), int) for c in found.conditions)


@pytest.mark.parametrize(
    "raw",
    [
        b"[]\n",
        b"5\n",
        b"null\n",
        b"[" * 5000 + b"\n",
        b"\xff\xfe\n",
        b"\0" * 99,
        b'{"schema": 1}\n',
    ],
)
def test_what_is_no_journal_is_begun_anew(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "j"
    path.write_bytes(raw)
    assert reopened(path).entries == []
    result = run(Played(), path, KEYS[:2], passes=1)
    assert len(result.measured) == 2
    assert len(reopened(path).entries) == 2


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with open_journal(tmp_path / "j", HEADER) as journal:
        monkeypatch.setattr("os.write", full)
        plan = Plan(KEYS[:2], TFLITE)
        with pytest.raises(InputError, match="No space left"):
            profile(Played(), plan, journal, lambda: None, threading.Event())
        monkeypatch.undo()
