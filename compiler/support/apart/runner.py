"""A model file of any origin, run in another process: what a runtime's C++ does with a file that
lies, up to a segmentation fault, ends that one, and is one line here.

A worker starts in a third of a second, which is why those that did well are kept for the next file.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Sequence
from contextlib import suppress
from importlib.resources import files
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from shrinkc.compiler.support.text import one_line
from shrinkc.errors import DeviceError, LoadError

SECONDS = 600  # that one job may take
MOST_IDLE = 2  # workers that wait for a file
MOST_HELD = 16 << 20  # bytes of the file that one of them had
MAX_LINE = 1 << 24  # bytes of one answer's JSON
NAMES = {"tflite": "TFLite", "onnxruntime": "ONNX Runtime"}

Array = NDArray[Any]


class EndedError(Exception):
    """The worker is gone; the text says how."""


class Worker:
    """One process, with at most one file in it."""

    def __init__(self) -> None:
        """Raises DeviceError where no process can be started."""
        source = files(__package__ or __name__).joinpath("worker.py").read_text("utf-8")
        # a folder of the name of a module in the working directory must not be taken for it
        boot = f"import sys; sys.path[:] = [p for p in sys.path if p]\nexec({source!r})"
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", boot], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        except OSError as error:
            raise DeviceError(f"{sys.executable} cannot be started: {error.strerror}") from error
        self._owner = os.getpid()
        self.cpu_seconds = 0.0  # that it has used so far
        _alive.add(self)

    @property
    def mine(self) -> bool:
        """Not in a process that was forked off meanwhile, with which it would share the pipe."""
        return os.getpid() == self._owner

    def ask(
        self, job: dict[str, Any], parts: Sequence[bytes | memoryview] = ()
    ) -> tuple[dict[str, Any], list[Array | None]]:
        """The answer to one job, and its arrays. Raises EndedError; the worker is gone then, as it
        is after whatever else comes in between."""
        size = sum(len(part) for part in parts)
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps({**job, "bytes": size, "seconds": SECONDS}).encode() + b"\n")
            for part in parts:
                stdin.write(part)
            stdin.flush()
            line = stdout.readline(MAX_LINE)
            if not line.endswith(b"\n"):
                raise EndedError
            answer: dict[str, Any] = json.loads(line)
            arrays = [self._array(one) for one in answer.get("arrays", ())]
            self.cpu_seconds = float(answer["cpu_seconds"])
        except (OSError, EndedError, ValueError, LookupError, TypeError):
            raise EndedError(_how(self.end(5.0))) from None
        except BaseException:  # Ctrl-C: an answer is under way
            self.end()
            raise
        return answer, arrays

    def _array(self, listed: dict[str, Any] | None) -> Array | None:
        if listed is None:
            return None
        kind, shape = np.dtype(str(listed["dtype"])), tuple(int(n) for n in listed["shape"])
        stdout = self._process.stdout
        assert stdout is not None
        data = stdout.read(math.prod(shape) * kind.itemsize)
        return np.frombuffer(bytearray(data), kind).reshape(shape)

    def end(self, patience_s: float = 0.0) -> int:
        """The exit code of a worker that is ended, or ends itself within `patience_s`."""
        _alive.discard(self)
        with suppress(subprocess.TimeoutExpired):
            if patience_s:
                self._process.wait(patience_s)
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(OSError):  # what it has not read is lost
                pipe.close()
        return self._process.wait()


_alive, _idle = set[Worker](), list[Worker]()


@atexit.register
def _end_all() -> None:
    for worker in [*_alive]:
        if worker.mine:
            worker.end()


def _how(code: int) -> str:
    """How a process ended, by its exit code."""
    if code == -getattr(signal, "SIGKILL", 0):
        return "was killed, most likely for want of memory,"
    if code == -getattr(signal, "SIGALRM", 0):
        return f"was not done within {SECONDS} s"
    try:
        return f"crashed ({signal.Signals(-code).name})"
    except ValueError:
        return f"ended by itself (exit code {code})"


def _given_back(worker: Worker, bytes_held: int) -> None:
    """Its file stays in it until the next one comes, which a large one should not."""
    if not worker.mine or worker not in _alive:
        return
    if len(_idle) < MOST_IDLE and bytes_held <= MOST_HELD:
        _idle.append(worker)
    else:
        worker.end()


class ApartRunner:
    """A model file in a runtime on this machine, of another process. Arrays are in the file's own
    layout; an output that is no array of numbers is None."""

    def __init__(self, runtime: str, data: bytes, threads: int = 1) -> None:
        """`runtime`: of NAMES. Raises LoadError for a file that cannot be loaded, or kills it."""
        self._made_of = (runtime, data, threads)
        self._name = NAMES[runtime]
        path = [p for p in sys.path if p]
        job = {"job": "load", "runtime": runtime, "threads": threads, "path": path}
        self._worker, answer = _loaded(self._name, job, data)
        weakref.finalize(self, _given_back, self._worker, len(data)).atexit = False
        self.runtime = str(answer["runtime"])
        self._inputs: list[Any] = answer["inputs"]

    def __reduce__(self) -> tuple[type, tuple[str, bytes, int]]:
        """Copied and pickled as what it was loaded from."""
        return type(self), self._made_of

    @property
    def cpu_seconds(self) -> float:
        """Of a processor, that the runtime has used."""
        return self._worker.cpu_seconds

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(shape) for shape, _ in self._inputs)

    @property
    def input_types(self) -> tuple[np.dtype[Any], ...]:
        """Raises LoadError for what NumPy has no type for."""
        kinds = [str(kind) for _, kind in self._inputs]
        try:
            return tuple(
                np.dtype({"float": "float32", "double": "float64"}.get(k, k)) for k in kinds
            )
        except TypeError as error:
            shown = one_line(", ".join(kinds))
            raise LoadError(f"its inputs are {shown}, no arrays of numbers") from error

    def run(self, inputs: Sequence[Array]) -> list[Any]:
        """Raises LoadError where the file does not run, or kills its runtime."""
        return self._asked(*self._job("run", inputs))[1]

    def times_ms(self, inputs: Sequence[Array], count: int, settling: float = 0.0) -> list[float]:
        """Of `count` runs, each in ms by the clock over there, behind `settling` seconds of runs
        that do not count. Raises LoadError as `run`."""
        job, parts = self._job("time", inputs)
        job.update(count=count, settling=settling)
        return [float(t) for t in self._asked(job, parts)[0]["times_ms"]]

    def _job(
        self, kind: str, inputs: Sequence[Array]
    ) -> tuple[dict[str, Any], tuple[memoryview, ...]]:
        given = [np.ascontiguousarray(x).reshape(np.shape(x)) for x in inputs]
        listed = [{"dtype": x.dtype.str, "shape": list(x.shape), "bytes": x.nbytes} for x in given]
        return {"job": kind, "arrays": listed}, tuple(_bytes(x) for x in given)

    def _asked(
        self, job: dict[str, Any], parts: Sequence[memoryview]
    ) -> tuple[dict[str, Any], list[Array | None]]:
        return _asked(self._worker, self._name, "run", (job, parts))


def _loaded(name: str, job: dict[str, Any], data: bytes) -> tuple[Worker, dict[str, Any]]:
    """A worker that has the file. Raises LoadError."""
    used = _idle.pop() if _idle and _idle[-1].mine else None
    worker = used or Worker()
    try:
        return worker, _asked(worker, name, "load", (job, (data,)))[0]
    except LoadError:
        if worker in _alive:
            _given_back(worker, 0)
            raise
        if used is None:
            raise
    return _loaded(name, job, data)  # it may have died of what the file before had left


def _asked(
    worker: Worker, name: str, doing: str, what: tuple[dict[str, Any], Sequence[bytes | memoryview]]
) -> tuple[dict[str, Any], list[Array | None]]:
    """What a worker answers. Raises LoadError for its refusal, and its end."""
    try:
        answer, arrays = worker.ask(*what)
    except EndedError as ended:
        raise LoadError(
            f"{name} {ended} when it was to {doing} the file; convert it anew"
        ) from None
    if "error" in answer:
        raise LoadError(f"{name} cannot {doing} the file: {one_line(str(answer['error']))}")
    return answer, arrays


def _bytes(array: Array) -> memoryview:
    return cast(Any, array).reshape(-1).view(np.uint8).data
