"""An emulated Cortex-A72 (Raspberry Pi 4): qemu's user mode over a folder made by build_root.py."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

CPU = "cortex-a72"
PYTHON = "usr/bin/python3"
GUEST = Path(__file__).resolve().parent / "guest.py"
BEGIN, END = 0, 1  # marks, as in guest.py
Array = NDArray[Any]


@dataclass(frozen=True)
class Site:
    """Wheels that go together, for these versions of Python; none named: any."""

    wheels: tuple[str, ...]
    pythons: tuple[str, ...] = ()

    def serves(self, python: str) -> bool:
        return not self.pythons or python in self.pythons


# Newer ones than these abort in the qemu 7.2 of Debian 12.
SITES = {
    "current": Site(
        ("numpy>=1.26", "ai-edge-litert>=2.1,<=2.1.6", "onnxruntime>=1.23,<=1.23.2"),
    ),
    "tflite-runtime": Site(("numpy<2", "tflite-runtime==2.14.0"), ("3.9", "3.10", "3.11")),
}


@dataclass(frozen=True)
class Runtime:
    """What runs files there. `kernels`: "ruy" leaves XNNPACK out of TFLite, "" takes what the
    runtime takes by itself (tflite-runtime 2.14: XNNPACK for fp32, ruy for int8)."""

    package: str
    site: str
    kind: str  # onnx or tflite
    kernels: str = ""

    def __str__(self) -> str:
        return f"{self.package} ({self.kernels})" if self.kernels else self.package


ONNXRUNTIME = Runtime("onnxruntime", "current", "onnx")
LITERT = Runtime("ai-edge-litert", "current", "tflite")
TFLITE_RUNTIME = Runtime("tflite-runtime", "tflite-runtime", "tflite")
RUY = Runtime("tflite-runtime", "tflite-runtime", "tflite", "ruy")
RUNTIMES = (ONNXRUNTIME, LITERT, TFLITE_RUNTIME, RUY)


@dataclass(frozen=True)
class Job:
    """A model file and its samples in the file's own layout; `counted` inferences are counted."""

    model: bytes
    samples: tuple[Array, ...]
    counted: int = 3


class Counts(NamedTuple):
    """Executed instructions: all, and those of them that compute on vectors or floats, load and
    store."""

    all: int
    vector: int
    loads: int
    stores: int


@dataclass(frozen=True)
class Result:
    """One output per sample; the instructions of each counted inference, none without plugin.
    `delegated`: TFLite handed operators of the file to XNNPACK."""

    outputs: tuple[Array, ...]
    counts: tuple[Counts, ...]
    delegated: bool

    @property
    def instructions(self) -> tuple[int, ...]:
        return tuple(counted.all for counted in self.counts)


class EmulatorError(Exception):
    """The emulated program failed."""


@dataclass(frozen=True)
class Emulator:
    """`folder` is what build_root.py makes."""

    folder: Path

    @property
    def plugin(self) -> Path | None:
        """None where qemu takes no plugins; nothing is counted then."""
        path = self.folder / "plugin" / "count_instructions.so"
        return path if path.is_file() else None

    def has(self, runtime: Runtime) -> bool:
        return (self.folder / "sites" / runtime.site).is_dir()

    def run(self, runtime: Runtime, jobs: Sequence[Job]) -> list[Result]:
        """Run every job, one thread, in one emulated process. Raises EmulatorError."""
        with tempfile.TemporaryDirectory() as name:
            scratch = Path(name)
            listing, marks = scratch / "jobs.json", scratch / "marks"
            listing.write_text(
                json.dumps([_written(job, scratch, i) for i, job in enumerate(jobs)])
            )
            guest = (str(GUEST), runtime.package, runtime.kernels, str(listing))
            self.python(*guest, site=runtime.site, plugin=self.plugin, marks=marks)
            counts = iter(between(marks.read_text()) if marks.exists() else ())
            return [
                _result(scratch, i, tuple(islice(counts, job.counted)))
                for i, job in enumerate(jobs)
            ]

    def python(
        self,
        *arguments: str,
        site: str | None = None,
        plugin: Path | None = None,
        marks: Path = Path(os.devnull),
    ) -> str:
        """Standard output of the emulated Python; `plugin` writes into `marks`.

        Raises EmulatorError.
        """
        done = _run(self.command(*arguments, site=site, plugin=plugin, marks=marks))
        if done.returncode != 0:
            raise EmulatorError(
                f"exit code {done.returncode} of the emulated Python\n{done.stderr}"
            )
        return done.stdout

    def accepts(self, plugin: Path) -> bool:
        """Whether this qemu loads the plugin."""
        return _run(self.command("-V", plugin=plugin)).returncode == 0

    def takes_plugins(self) -> bool:
        """Statically linked ones, as Debian 13's, do not."""
        return "-plugin" in self._ask("-h")

    def version(self) -> str:
        return self._ask("--version").partition("\n")[0]

    def _ask(self, option: str) -> str:
        return _run([*self._qemu(), option]).stdout

    def command(
        self,
        *arguments: str,
        site: str | None = None,
        plugin: Path | None = None,
        marks: Path = Path(os.devnull),
    ) -> list[str]:
        """What starts the emulated Python, with nothing of this one's settings."""
        root = self.folder / "root"
        words = [*self._qemu(), "-cpu", CPU, "-L", str(root), "-U", "LD_LIBRARY_PATH"]
        words += ["-E", "PYTHONDONTWRITEBYTECODE=1", "-E", "OMP_NUM_THREADS=1"]
        if site is not None:
            words += ["-E", f"PYTHONPATH={self.folder / 'sites' / site}"]
        if plugin is not None:
            words += ["-plugin", f"{plugin},out={marks}"]
        return [*words, str(root / PYTHON), *arguments]

    def _qemu(self) -> list[str]:
        """qemu, with the libraries that were unpacked for it."""
        paths = [str(p) for p in (self.folder / "tools" / "usr" / "lib").glob("*-linux-gnu")]
        paths += filter(None, [os.environ.get("LD_LIBRARY_PATH")])
        unset = [f"--unset={name}" for name in os.environ if name.startswith("PYTHON")]
        found = shutil.which("qemu-aarch64")
        unpacked = str(self.folder / "tools" / "usr" / "bin" / "qemu-aarch64")
        return ["env", *unset, f"LD_LIBRARY_PATH={':'.join(paths)}", found or unpacked]


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def _written(job: Job, folder: Path, number: int) -> dict[str, object]:
    """The job as guest.py reads it, its files in `folder`."""
    model, inputs = folder / f"{number}-model", folder / f"{number}-inputs.npz"
    model.write_bytes(job.model)
    np.savez(inputs, *job.samples)
    outputs = folder / f"{number}-outputs.npz"
    paths = {"model": str(model), "inputs": str(inputs), "outputs": str(outputs)}
    return {**paths, "counted": job.counted}


def _result(folder: Path, number: int, counts: tuple[Counts, ...]) -> Result:
    with np.load(folder / f"{number}-outputs.npz") as file:
        outputs = tuple(file[name] for name in file.files if name.startswith("arr_"))
        return Result(outputs, counts, bool(file["delegated"]))


def between(marks: str) -> list[Counts]:
    """Instructions from each BEGIN to its END, of every kind; the lines are "mark counts". Raises
    EmulatorError."""
    rows = [[int(word) for word in line.split()] for line in marks.splitlines()]
    if [mark for mark, *_ in rows] != [BEGIN, END] * (len(rows) // 2):
        raise EmulatorError("the plugin's marks do not come in pairs")
    return [
        Counts(*(after - before for before, after in zip(begin[1:], end[1:], strict=True)))
        for begin, end in zip(rows[::2], rows[1::2], strict=True)
    ]
