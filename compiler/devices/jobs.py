"""What a device is asked and what it answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shrinkc.compiler.devices.runner import REFERENCE
from shrinkc.latency_tables.key import OpKey

__all__ = [
    "REFERENCE",
    "Device",
    "Failed",
    "Measured",
    "Method",
    "Model",
    "Ran",
    "Session",
    "Setup",
]

Array = NDArray[np.generic]


@dataclass(frozen=True, eq=False)
class Model:
    """One model file. `key` is the operator in it, for devices that make operators themselves;
    `runtime` is another than the session's. The model named `REFERENCE` is timed in every round."""

    name: str
    data: bytes
    key: OpKey | None = None
    runtime: str | None = None


@dataclass(frozen=True)
class Setup:
    """How models are run. `timeout_s`: a device silent for longer hangs."""

    runtime: str
    threads: int = 1
    timeout_s: float = 120.0

    @property
    def tells_kernels(self) -> bool:
        """Whether the runtime tells what each of its kernels took (`Method.kernels`)."""
        return self.runtime in TELLING_KERNELS


@dataclass(frozen=True)
class Method:
    """How often models are run.

    warmup          rounds before the clock counts
    rounds          (least, most) that are timed
    seconds         after which no round more than the least is begun
    ballast_bytes   of memory read in every round, so that weights are not in the cache
    kernels         ask the runtime what its kernels took, without layout changes at the boundary;
                    where it does not tell, the clock around the run counts
    undisturbed     with one thread: leave out what the system gave to other processes in between
    turn            rounds of one model before the next has its turn, for whole networks
    """

    warmup: int = 2
    rounds: tuple[int, int] = (6, 20)
    seconds: float = 3.0
    ballast_bytes: int = 0
    kernels: bool = False
    undisturbed: bool = False
    turn: int = 1


@dataclass(frozen=True)
class Measured:
    """`times_us` of every round, and what the reference took in the same rounds (empty without).
    With `Method.kernels`, how many kernels they are the sum of, where the runtime told."""

    model: str
    times_us: tuple[float, ...]
    reference_us: tuple[float, ...] = ()
    kernels: int = 0


@dataclass(frozen=True)
class Failed:
    """A model that the runtime refused, with its own words."""

    model: str
    reason: str


@dataclass(frozen=True, eq=False)
class Ran:
    """One run of a model in a fresh process. `outputs` is None where the device cannot hand them
    out; memory is the largest resident size, and that before the model was loaded; `runtime` is
    name and version."""

    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...] | None
    idle_memory_bytes: int | None
    peak_memory_bytes: int | None
    runtime: str


def key_from_json(fields: Mapping[str, Any]) -> OpKey:
    """The operator whose `dataclasses.asdict` went through JSON. Raises TypeError for another."""
    values: dict[str, Any] = dict(fields)
    for name in ("kernel", "stride", "dilation", "in_size", "out_size"):
        values[name] = tuple(values[name])
    return OpKey(**values)


class Session(Protocol):
    """A device with its runtime running. Every method raises DeviceError, and DeviceLostError when
    the device or the process on it is gone."""

    @property
    def environment(self) -> Mapping[str, Any]:
        """As `runner.describe`, `runner.conditions`, and `runtime` with `runtime_version`."""
        ...

    @property
    def conditions(self) -> Mapping[str, Any]:
        """`runner.conditions` at the end of the last `measure`; empty before."""
        ...

    def measure(self, models: Sequence[Model], method: Method) -> Iterator[Measured | Failed]:
        """Time models side by side, in turns."""
        ...

    def run(self, model: Model, inputs: Sequence[Array] | None) -> Ran | Failed:
        """Run once, on seeded random inputs where none are given. For memory to mean something, a
        session that has run nothing else."""
        ...


class Device(Protocol):
    """Where models are timed."""

    @property
    def name(self) -> str:
        """As the user writes it."""
        ...

    @property
    def runtimes(self) -> Mapping[str, tuple[str, ...]]:
        """Runtime → precisions; the first runtime is the default."""
        ...

    def open(self, setup: Setup) -> AbstractContextManager[Session]:
        """Raises DeviceError, one line with what to do."""
        ...


TELLING_KERNELS = ("onnxruntime",)
CPU_RUNTIMES: Mapping[str, tuple[str, ...]] = {
    "tflite": ("fp32", "int8"),
    "onnxruntime": ("fp32", "int8"),
}
