"""Time model files on a device, in turn, and compare their outputs with those computed here."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from shrinkc.compiler.devices.host import Host
from shrinkc.compiler.devices.jobs import Array, Device, Failed, Measured, Method, Model, Ran, Setup
from shrinkc.compiler.devices.samples import iqr, without_outliers
from shrinkc.compiler.formats.base import Format
from shrinkc.compiler.formats.registry import FORMATS, read_model
from shrinkc.compiler.measure.bench import TURN, Timing
from shrinkc.compiler.support.text import shown, visible
from shrinkc.compiler.verify.files import FP32_TOLERANCE
from shrinkc.errors import DeviceError, InputError, VerificationError

STEPS = 1.001  # of int8: one, and rounding
WARMUP, LEAST_RUNS, MAX_SECONDS = 5, 5, 30.0


@dataclass(frozen=True)
class Agreement:
    """The largest difference to the outputs computed here, in `unit`, and whether it is allowed."""

    largest: float
    unit: str
    equal: bool


@dataclass(frozen=True)
class FileBench:
    """One file. Memory is the largest resident size of a process that does nothing else, and what
    of it was there before the file. `agreement` is None where there is nothing to compare: on this
    machine itself, and with benchmark_model."""

    file: Path
    runtime: str
    timing: Timing
    peak_memory_bytes: int | None
    idle_memory_bytes: int | None
    agreement: Agreement | None

    def require_equal(self, device: str) -> None:
        """Raises VerificationError where the device computes something else."""
        if self.agreement is not None and not self.agreement.equal:
            raise VerificationError(
                f"{self.file}: outputs on {device} differ from those here by "
                f"{self.agreement.largest:.2g} {self.agreement.unit}; the times are of another "
                "function"
            )


@dataclass(frozen=True)
class Ratio:
    """How many times as long the second file takes, run by run."""

    median: float
    iqr: float


@dataclass(frozen=True, repr=False)
class Bench:
    """One file, or two that were timed in turns."""

    files: tuple[FileBench, ...]
    ratio: Ratio | None

    def __repr__(self) -> str:
        times = ", ".join(f"{f.file.name} {f.timing.median_ms:.4g} ms" for f in self.files)
        ratio = "" if self.ratio is None else f", ratio {self.ratio.median:.3f}"
        return f"Bench({times}{ratio})"


class Here:
    """What this machine knows of files, for devices that are timed side by side: each is read, and
    run on the same inputs, once for all of them."""

    def __init__(self) -> None:
        self._reading, self._running = threading.Lock(), threading.Lock()
        self._read: dict[Path, tuple[Format, bytes]] = {}
        self._ran: dict[tuple[str, str], Ran] = {}

    def read(self, path: Path) -> tuple[Format, bytes]:
        """Raises LoadError for what is no model file."""
        with self._reading:
            if path not in self._read:
                self._read[path] = read_model(path)
            return self._read[path]

    def run(self, model: Model, setup: Setup, inputs: Sequence[Array]) -> Ran:
        """Raises DeviceError when it cannot be run here."""
        name = model.name, _digest(inputs)
        with self._running:  # one at a time: this machine may be timing, too
            if name not in self._ran:
                self._ran[name] = _run(Host(), model, setup, inputs)
            return self._ran[name]


def _digest(arrays: Sequence[Array]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def bench_files(
    device: Device, paths: Sequence[Path], setup: Setup, runs: int, here: Here | None = None
) -> Bench:
    """One file, or two of any runtimes, in turns A A A B B B A A A. Devices side by side share
    `here`.

    Raises LoadError for what is no model file, DeviceError when the device cannot run it.
    """
    here = here or Here()
    opened = [_model(device, path, here) for path in paths]
    models = [model for _, model in opened]
    if len(models) == 2 and models[0].name == models[1].name:
        models[1] = replace(models[1], name=f"{models[1].name}, again")
    ran = [_run(device, model, setup) for model in models]
    agreements = [
        _agreement(device, model, form, result, setup, here)
        for model, (form, _), result in zip(models, opened, ran, strict=True)
    ]
    turn = TURN if len(models) > 1 else 1
    method = Method(WARMUP, (min(LEAST_RUNS, runs), runs), MAX_SECONDS, turn=turn)
    with device.open(_setup(setup, models[0])) as session:
        answers = {a.model: a for a in session.measure(models, method)}
    times = [_times(device, answers[model.name]) for model in models]
    files = (
        FileBench(p, r.runtime, t, r.peak_memory_bytes, r.idle_memory_bytes, a)
        for p, r, t, a in zip(paths, ran, times, agreements, strict=True)
    )
    return Bench(tuple(files), _ratio(times))


def _model(device: Device, path: Path, here: Here) -> tuple[Format, Model]:
    form, data = here.read(path)
    runtime = _runtime(device, form)
    if runtime is None:
        suffixes = " and ".join(one.suffix for one in FORMATS if _runtime(device, one))
        raise InputError(f"{device.name} runs {suffixes} files, and {path} is none")
    return form, Model(visible(str(path)), data, runtime=runtime)


def _runtime(device: Device, form: Format) -> str | None:
    """What runs files of this format there."""
    return next((runtime for runtime in device.runtimes if runtime in form.runtimes), None)


def _setup(setup: Setup, model: Model) -> Setup:
    return Setup(model.runtime or setup.runtime, setup.threads, setup.timeout_s)


def _run(device: Device, model: Model, setup: Setup, inputs: Sequence[Array] | None = None) -> Ran:
    """In a process of its own, so that the memory is this file's."""
    with device.open(_setup(setup, model)) as session:
        result = session.run(model, inputs)
    if isinstance(result, Failed):
        raise DeviceError(f"{device.name}: cannot run {result.model}: {shown(result.reason, 300)}")
    return result


def _times(device: Device, answer: Measured | Failed) -> Timing:
    if isinstance(answer, Failed):
        raise DeviceError(f"{device.name}: cannot run {answer.model}: {shown(answer.reason, 300)}")
    return Timing(tuple(time / 1e3 for time in answer.times_us))


def _ratio(times: Sequence[Timing]) -> Ratio | None:
    if len(times) < 2:
        return None
    pairs = zip(times[0].times_ms, times[1].times_ms, strict=False)  # a device may leave some out
    ratios = without_outliers([b / a for a, b in pairs])
    return Ratio(median(ratios), iqr(ratios))


# --- outputs -------------------------------------------------------------------------------------


def _agreement(
    device: Device, model: Model, form: Format, there: Ran, setup: Setup, here: Here
) -> Agreement | None:
    if there.outputs is None or isinstance(device, Host):
        return None
    same = Model(model.name, model.data, runtime=_runtime(Host(), form))
    outputs = here.run(same, setup, there.inputs).outputs
    assert outputs is not None
    return compared(there.outputs, outputs, form.output_steps(model.data))


def compared(
    there: Sequence[Array], here: Sequence[Array], steps: Sequence[float | None] | None
) -> Agreement:
    """`steps` are the quantisation steps of an int8 file's outputs (None: not known, a step of 8
    bits over the output's range is taken); without it the file computes in float."""
    if [a.shape for a in there] != [a.shape for a in here]:
        return Agreement(float("inf"), "other shapes", False)
    if steps is None:
        errors = [_largest(a, b) / _range(b) for a, b in zip(there, here, strict=True)]
        largest = max(errors, default=0.0)
        return Agreement(largest, "of the output's range", largest <= FP32_TOLERANCE)
    counts = [
        _largest(a, b) / (step or _range(b) / 255)
        for a, b, step in zip(there, here, steps, strict=True)
    ]
    largest = max(counts, default=0.0)
    return Agreement(largest, "quantisation steps", largest <= STEPS)


def _largest(a: Array, b: Array) -> float:
    difference = np.abs(a.astype(np.float64) - b.astype(np.float64))
    worst = float(difference.max(initial=0.0))
    return worst if np.isfinite(worst) else float("inf")


def _range(array: Array) -> float:
    return max(float(np.abs(array.astype(np.float64)).max(initial=0.0)), 1e-12)
