"""Model files run in a process of their own, which may die of them."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx_files
import pytest

from shrinkc.compiler.support.apart import runner as module
from shrinkc.compiler.support.apart.runner import ApartRunner, Worker
from shrinkc.errors import LoadError


def relu(*shape: int) -> bytes:
    return onnx_files.one_node("Relu", shape).SerializeToString()


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> list[Worker]:
    """None is taken over from another test."""
    idle: list[Worker] = []
    monkeypatch.setattr(module, "_idle", idle)
    return idle


def process(one: ApartRunner) -> int:
    return one._worker._process.pid  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("shape", [(), (0,), (2, 3), (1, 2, 2, 2)])
def test_what_a_file_computes(shape: tuple[int, ...]) -> None:
    one = ApartRunner("onnxruntime", relu(*shape))
    assert one.runtime.startswith("onnxruntime ")
    assert one.input_shapes == (shape,)
    assert one.input_types == (np.dtype(np.float32),)
    x = np.arange(-3, -3 + int(np.prod(shape)), dtype=np.float32).reshape(shape)
    (y,) = one.run([x])
    assert np.array_equal(y, np.maximum(x, 0))
    y[...] = 7  # the caller's own
    assert np.array_equal(one.run([x.T.copy().T])[0], np.maximum(x, 0))
    again = pickle.loads(pickle.dumps(one))
    assert np.array_equal(again.run([x])[0], np.maximum(x, 0))


def test_times_are_those_of_the_runs_over_there() -> None:
    one = ApartRunner("onnxruntime", relu(1, 4))
    before, x = one.cpu_seconds, [np.zeros((1, 4), np.float32)]
    times = one.times_ms(x, 5, settling=0.02)
    assert len(times) == 5
    assert 0 < min(times) <= max(times) < 1000
    assert one.cpu_seconds > before


@pytest.mark.parametrize("runtime", ["tflite", "onnxruntime"])
def test_a_file_that_is_none(runtime: str, workers: list[Worker]) -> None:
    with pytest.raises(LoadError, match=r"^(TFLite|ONNX Runtime) cannot load the file: \S") as told:
        ApartRunner(runtime, b"no model\n\x1b[31m")
    assert str(told.value).isprintable()


def test_inputs_that_do_not_fit() -> None:
    one = ApartRunner("onnxruntime", relu(1, 4))
    with pytest.raises(LoadError, match="ONNX Runtime cannot run the file: "):
        one.run([np.zeros((1, 5), np.float32)])
    assert one.run([np.zeros((1, 4), np.float32)])[0].shape == (1, 4)


def test_what_is_no_array_of_numbers() -> None:
    lists = onnx_files.one_node("SequenceConstruct", (1, 4)).SerializeToString()
    assert ApartRunner("onnxruntime", lists).run([np.zeros((1, 4), np.float32)]) == [None]


@pytest.mark.parametrize(
    ("number", "how"),
    [
        (signal.SIGSEGV, r"crashed \(SIGSEGV\)"),
        (signal.SIGKILL, "was killed, most likely for want of memory,"),
        (signal.SIGALRM, "was not done within 600 s"),
    ],
)
def test_a_runtime_that_dies_is_one_line(number: int, how: str, workers: list[Worker]) -> None:
    one = ApartRunner("onnxruntime", relu(1, 4))
    os.kill(process(one), number)
    for _ in range(2):  # and stays so
        with pytest.raises(LoadError, match=f"^ONNX Runtime {how} when it was to run the file"):
            one.run([np.zeros((1, 4), np.float32)])
    del one
    assert workers == []


def test_workers_are_kept_for_the_next_file(workers: list[Worker]) -> None:
    first = ApartRunner("onnxruntime", relu(1, 4))
    number = process(first)
    second = ApartRunner("onnxruntime", relu(1, 2))
    assert process(second) != number  # one file in each
    del first
    third = ApartRunner("onnxruntime", relu(1, 3))
    assert process(third) == number
    assert third.run([np.ones((1, 3), np.float32)])[0].shape == (1, 3)


def test_a_worker_that_died_meanwhile_is_not_the_next_files_fault(workers: list[Worker]) -> None:
    first = ApartRunner("onnxruntime", relu(1, 4))
    number = process(first)
    del first
    os.kill(number, signal.SIGKILL)
    time.sleep(0.1)
    assert process(ApartRunner("onnxruntime", relu(1, 3))) != number


def test_large_files_do_not_stay(workers: list[Worker], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_HELD", 10)
    one = ApartRunner("onnxruntime", relu(1, 4))
    worker = one._worker  # pyright: ignore[reportPrivateUsage]
    del one
    assert workers == []
    assert worker._process.returncode == -signal.SIGKILL  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("said", ["print('{}')", "print('nonsense')", "print('{\"arrays\": 3}')"])
def test_a_worker_that_talks_nonsense(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Talks:
        def joinpath(self, name: str) -> Any:
            return self

        def read_text(self, encoding: str) -> str:
            return said

    monkeypatch.setattr(module, "_idle", [])
    monkeypatch.setattr(module, "files", lambda package: Talks())
    with pytest.raises(LoadError, match=r"ONNX Runtime ended by itself \(exit code 0\)"):
        ApartRunner("onnxruntime", relu(1, 4))


def test_nothing_of_it_outlives_the_program(tmp_path: Path) -> None:
    """Nor does a module of the folder that it starts in stand for NumPy."""
    (tmp_path / "numpy.py").write_text("raise SystemExit(3)")
    (tmp_path / "m.onnx").write_bytes(relu(1, 4))
    program = (
        "import sys; sys.path[:] = [p for p in sys.path if p]\n"
        "from shrinkc.compiler.support.apart.runner import ApartRunner\n"
        "one = ApartRunner('onnxruntime', open('m.onnx', 'rb').read())\n"
        "print(one._worker._process.pid)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)
