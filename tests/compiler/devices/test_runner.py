"""The file that is sent to devices, as far as it can be asked without one."""

import ast
import itertools
from pathlib import Path
from typing import Any

import pytest

from shrinkc.compiler.devices import runner

ROOT = Path(__file__).resolve().parents[3]


def test_it_is_one_file_that_old_pythons_can_read() -> None:
    source = Path(runner.__file__).read_text("utf-8")
    tree = ast.parse(source, feature_version=(3, 8))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import: the file travels alone"
        assert not isinstance(node, ast.Match)


def event(name: str, ts: int, dur: int, op: str = "") -> dict[str, Any]:
    if op:
        return {
            "cat": "Node",
            "name": f"{name}_kernel_time",
            "ts": ts,
            "dur": dur,
            "args": {"op_name": op},
        }
    return {"cat": "Session", "name": "model_run", "ts": ts, "dur": dur}


def test_kernels_of_an_onnx_runtime_profile() -> None:
    """Layout changes at the boundary do not count, those inside do."""
    run = [
        event("in", 10, 30, "ReorderInput"),
        event("a", 45, 100, "Conv"),
        event("out", 150, 20, "ReorderOutput"),
        event("m", 175, 40, "Mul"),
        event("in2", 220, 25, "ReorderInput"),
        event("b", 250, 60, "Conv"),
        event("last", 315, 35, "ReorderOutput"),
    ]
    second = [{**e, "ts": e["ts"] + 1000, "dur": e["dur"] + 1} for e in run]
    sessions = [event("", 5, 400), event("", 1005, 400)]
    before = {"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 4}
    times, kernels = runner.kernel_times_us([before, *run, *second, *reversed(sessions)])
    inside = 100 + 20 + 40 + 25 + 60
    assert kernels == 5
    assert times == [inside + 5 * 0.5, inside + 5 * 1.5]


def test_a_model_of_boundary_kernels_only_counts_as_a_whole() -> None:
    events = [event("", 0, 100), event("t", 10, 30, "Transpose")]
    assert runner.kernel_times_us(events) == ([30.5], 1)


class Clocked:
    """A model that notes when it is prepared and run."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def prepare(self) -> None:
        self.log.append(f"prepare {self.name}")

    def run(self) -> None:
        self.log.append(f"run {self.name}")

    def time_us(self) -> tuple[float, float]:
        self.log.append(f"time {self.name}")
        return 5.0, 4.0


def test_runs_are_interleaved_and_the_reference_is_warm() -> None:
    log: list[str] = []
    models = {name: Clocked(name, log) for name in ("a", runner.REFERENCE, "b")}
    times, reference = runner.measure(models, 0, (2, 2), 0.0, 1 << 10, lambda _: None)
    one_round = ["prepare reference", "run reference", "prepare reference", "time reference"]
    one_round += ["prepare a", "time a", "prepare b", "time b"]
    assert log == one_round * 2
    assert times == {"a": [(5.0, 4.0)] * 2, "b": [(5.0, 4.0)] * 2}
    assert reference == [(5.0, 4.0)] * 2


def test_turns_begin_with_runs_that_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SETTLING", 1e-9)
    log: list[str] = []
    models = {name: Clocked(name, log) for name in ("a", runner.REFERENCE, "b")}
    times, reference = runner.measure(models, 0, (5, 5), 0.0, 1 << 10, lambda _: None, turn=3)
    expected: list[str] = []
    for several in (3, 2):
        expected += ["prepare reference", "run reference", "prepare reference", "time reference"]
        for name in "ab":
            expected += [f"prepare {name}", f"run {name}"]
            expected += [f"prepare {name}", f"time {name}"] * several
    assert log == expected
    assert {name: len(found) for name, found in times.items()} == {"a": 5, "b": 5}
    assert len(reference) == 5


def test_slow_models_have_shorter_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr(runner.time, "perf_counter", lambda: 0.2 * next(clock))
    log: list[str] = []
    models = {name: Clocked(name, log) for name in ("a", "b")}
    runner.measure(models, 1, (4, 4), 0.0, 0, lambda _: None, turn=10)
    timed = "".join(line[-1] for line in log if line.startswith("time"))
    assert timed == "aabbaabb"  # 0.2 s each, 0.5 s in a turn


def test_rounds_end_with_the_time_but_not_before_the_least() -> None:
    models = {"a": Clocked("a", [])}
    for seconds, expected in ((0.0, 3), (60.0, 7)):
        times, _ = runner.measure(models, 1, (3, 7), seconds, 0, lambda _: None)
        assert len(times["a"]) == expected


def test_random_arrays_of_every_type() -> None:
    for dtype in ("float32", "float16", "int8", "uint8", "int64", "bool"):
        array = runner.random_array((None, 3, "batch", 0), dtype)
        assert array.shape == (1, 3, 1, 1)
        assert array.dtype.name == dtype
        assert (array == runner.random_array((1, 3, 1, 1), dtype)).all()
