"""Android phones over adb with TFLite's benchmark_model: nothing needs to be installed there.

https://github.com/tensorflow/tensorflow/tree/master/tensorflow/lite/tools/benchmark

The tool repeats one model back to back: caches are warmer than in a network. It hands out no
outputs, and one median (older builds: mean) is all it tells. Rounds are such processes in turn.
"""

from __future__ import annotations

import re
import secrets
import struct
import subprocess
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shrinkc.compiler.devices.adb import adb_trouble
from shrinkc.compiler.devices.jobs import (
    REFERENCE,
    Array,
    Failed,
    Measured,
    Method,
    Model,
    Ran,
    Setup,
)
from shrinkc.compiler.devices.link import Drain, last_words
from shrinkc.compiler.devices.runner import cpu_name
from shrinkc.compiler.support.text import one_line
from shrinkc.errors import DeviceError, DeviceLostError

FOLDER = "/data/local/tmp"
ROUNDS = 3  # each is a process of RUNS runs
RUNS, RUN_SECONDS = 10, 0.2
MAX_SAID = 1 << 20  # bytes of what a command there prints that are kept, the last
# ELF's e_machine → what `uname -m` says there.
_MACHINES = {
    3: ("i686", "i386", "x86_64"),
    40: ("armv7l", "armv8l", "aarch64"),
    62: ("x86_64",),
    183: ("aarch64",),
}


@dataclass(frozen=True)
class BenchmarkModel:
    """`tool` is a file here, which is pushed, or else a path on the phone."""

    serial: str
    tool: str

    @property
    def name(self) -> str:
        return f"adb:{self.serial}"

    @property
    def runtimes(self) -> Mapping[str, tuple[str, ...]]:
        return {"tflite": ("fp32", "int8")}

    @contextmanager
    def open(self, setup: Setup) -> Generator[BenchmarkSession]:
        adb = _Adb(self.name, self.serial, setup.timeout_s)
        folder = f"{FOLDER}/shrinkc-{secrets.token_hex(6)}"
        adb.shell(f"mkdir {folder}")
        try:
            tool = self.tool
            if Path(tool).is_file():
                _require_machine(self.name, Path(tool), one_line(adb.shell("uname -m")))
                adb.push(Path(tool), f"{folder}/benchmark_model")
                tool = f"{folder}/benchmark_model"
                adb.shell(f"chmod 755 {tool}")
            elif re.fullmatch(r"/[\w./+-]+", tool) is None:
                raise DeviceError(f"`benchmark_model` {tool}: neither a file nor a path there")
            yield BenchmarkSession(adb, setup, tool, folder)
        finally:
            adb.forget(folder)


class BenchmarkSession:
    """A `Session` of processes of benchmark_model."""

    def __init__(self, adb: _Adb, setup: Setup, tool: str, folder: str) -> None:
        self._adb, self._setup, self._tool, self._folder = adb, setup, tool, folder
        self._conditions: Mapping[str, Any] = {}
        model = one_line(adb.shell("getprop ro.product.model"))
        machine, system = one_line(adb.shell("uname -m")), one_line(adb.shell("uname -sr"))
        cpu = one_line(cpu_name(adb.shell("cat /proc/cpuinfo")) or "unknown")
        self.environment: Mapping[str, Any] = {
            "cpu": model or cpu,
            "cores": next(_numbers(adb.shell("nproc")), 1),
            "machine": machine,
            "system": system,
            **self._seen(),
            "runtime": "TFLite benchmark_model",
            "runtime_version": "unknown",
        }

    @property
    def conditions(self) -> Mapping[str, Any]:
        return self._conditions

    def measure(self, models: Sequence[Model], method: Method) -> Iterator[Measured | Failed]:
        for model in models:
            self._push(model)
        times: dict[str, list[float]] = {model.name: [] for model in models}
        failed: dict[str, str] = {}
        started = time.monotonic()
        for count in range(ROUNDS):
            if count and time.monotonic() - started > method.seconds:
                break
            for model in models:
                if model.name not in failed:
                    said, code = self._bench(model)
                    found = inference_us(said)
                    if code == 0 and found is not None and found <= self._setup.timeout_s * 1e6:
                        times[model.name].append(found)
                    else:
                        failed[model.name] = last_words(said) or f"exit code {code}"
        self._adb.shell(f"rm -f {self._folder}/*.tflite")
        self._conditions = self._seen()
        reference = tuple(times.get(REFERENCE, ()))
        for model in models:
            if model.name in failed:
                yield Failed(model.name, failed[model.name])
            elif model.name != REFERENCE:
                same = reference if len(reference) == len(times[model.name]) else ()
                yield Measured(model.name, tuple(times[model.name]), same)

    def run(self, model: Model, inputs: Sequence[Array] | None) -> Ran | Failed:
        self._push(model)
        said, code = self._bench(model, "--report_peak_memory_footprint=true")
        self._adb.shell(f"rm -f {self._folder}/*.tflite")
        if code != 0:
            return Failed(model.name, last_words(said) or f"exit code {code}")
        peak = _PEAK.search(said)
        memory = round(float(peak[1]) * 1e6) if peak else None
        return Ran((), None, None, memory, self.environment["runtime"])

    def _push(self, model: Model) -> None:
        self._adb.doing = model.name
        with tempfile.NamedTemporaryFile(suffix=".tflite") as file:
            file.write(model.data)
            file.flush()
            self._adb.push(Path(file.name), self._path(model))

    def _path(self, model: Model) -> str:
        return f"{self._folder}/{model.name.encode('utf-8').hex()[-64:]}.tflite"

    def _bench(self, model: Model, *more: str) -> tuple[str, int]:
        self._adb.doing = model.name
        options = (
            f"--graph={self._path(model)}",
            f"--num_threads={self._setup.threads}",
            f"--num_runs={RUNS}",
            "--warmup_runs=2",
            "--warmup_min_secs=0",
            f"--min_secs={RUN_SECONDS}",
            *more,
        )
        said, code = self._adb.shell_with_code(" ".join((self._tool, *options)))
        if code in (126, 127):
            raise DeviceError(
                f"{self._adb.name}: {self._tool} cannot run there: {last_words(said)}; "
                "give `benchmark_model` one that is made for it"
            )
        return said, code

    def _seen(self) -> dict[str, Any]:
        cpus = "/sys/devices/system/cpu"
        governor = self._adb.shell(f"cat {cpus}/cpu0/cpufreq/scaling_governor 2>/dev/null || true")
        frequencies = self._adb.shell(
            f"cat {cpus}/cpu*/cpufreq/scaling_cur_freq 2>/dev/null || true"
        )
        zones = self._adb.shell("cat /sys/class/thermal/thermal_zone*/temp 2>/dev/null || true")
        return {
            "governor": one_line(governor) or None,
            "frequency_mhz": max((f / 1000 for f in _numbers(frequencies)), default=None),
            "temperature_c": max((t / 1000 for t in _numbers(zones)), default=None),
            "load": None,
        }


def _numbers(said: str) -> Iterator[int]:
    """The whole numbers that stand alone."""
    return (int(word) for word in said.split() if re.fullmatch(r"[1-9][0-9]{0,9}", word))


_NUMBER = r"(\d{1,12}(?:\.\d{1,20})?(?:e\+?\d{1,2})?)\b"
_AVERAGE = re.compile(rf"Inference \(avg\): {_NUMBER}", re.ASCII)
_MEDIAN = re.compile(rf"\bcount=\d+.{{0,1000}}?\bmedian={_NUMBER}", re.ASCII)
_PEAK = re.compile(rf"peak memory footprint \(MB\) via periodic monitoring: {_NUMBER}", re.ASCII)


def inference_us(said: str) -> float | None:
    """Microseconds of an inference in what the tool printed: the median of the timed runs, which
    come after the warm-up's, where the build tells it, else their mean. None without either."""
    medians = _MEDIAN.findall(said)
    average = _AVERAGE.search(said)
    if average is None:
        return None
    return float(medians[-1] if medians else average[1])


def _require_machine(name: str, tool: Path, machine: str) -> None:
    """Raise DeviceError for a tool that was built for another processor."""
    with tool.open("rb") as file:
        head = file.read(20)
    if head[:4] != b"\x7fELF":
        return  # a script, say: the phone will tell
    (kind,) = struct.unpack("<H", head[18:20])
    fits = _MACHINES.get(kind, ())
    if machine not in fits:
        made = fits[0] if fits else f"ELF machine {kind}"
        raise DeviceError(f"{name}: {tool} is made for {made}, and it is {machine}: get that build")


class _Adb:
    """The system's adb, and what it complains of."""

    def __init__(self, name: str, serial: str, timeout_s: float) -> None:
        self.name, self._serial, self._timeout_s = name, serial, timeout_s
        self.doing = ""

    def shell(self, command: str) -> str:
        said, code = self.shell_with_code(command)
        if code != 0:
            raise DeviceError(f"{self.name}: {adb_trouble(said) or last_words(said)}")
        return said

    def shell_with_code(self, command: str) -> tuple[str, int]:
        """Output and exit code of a command there. Raises DeviceLostError when adb itself fails."""
        done = self._adb("shell", "-T", command)
        said = done.stdout + done.stderr
        trouble = adb_trouble(done.stderr) if done.returncode else None
        if trouble and done.stderr.lstrip().startswith(("error:", "adb:")):
            raise self._lost(trouble)
        return said, done.returncode

    def push(self, file: Path, path: str) -> None:
        done = self._adb("push", str(file), path)
        if done.returncode:
            said = done.stdout + done.stderr
            raise self._lost(adb_trouble(said) or last_words(said))

    def forget(self, folder: str) -> None:
        """Remove what was pushed, if the phone is still there."""
        with suppress(DeviceError):
            self._adb("shell", "-T", f"rm -rf {folder}")

    def _adb(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        try:
            process = subprocess.Popen(
                ("adb", "-s", self._serial, *arguments),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except OSError as error:
            raise DeviceError(
                f"adb cannot be started ({error.strerror}): install Android's platform tools"
            ) from error
        assert process.stdout is not None
        assert process.stderr is not None
        said = [Drain(pipe, MAX_SAID) for pipe in (process.stdout, process.stderr)]
        try:
            code = process.wait(self._timeout_s)
        except subprocess.TimeoutExpired:
            raise self._lost(
                f"it hangs: no end after {self._timeout_s:g} s; `timeout_s` allows it more"
            ) from None
        finally:
            process.kill()
            process.wait()
        output, errors = (one.text() for one in said)
        return subprocess.CompletedProcess(process.args, code, output, errors)

    def _lost(self, why: str) -> DeviceError:
        if not self.doing:
            return DeviceError(f"{self.name}: {why}")
        text = f"{self.name}: lost while running {self.doing}: {why}"
        return DeviceLostError(text, self.doing, crashed=False)
