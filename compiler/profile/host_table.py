"""The `host` target: every operator is measured here, alone, when its price is first asked."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from shrinkc.compiler.devices import runner
from shrinkc.compiler.devices.samples import Sample, settle
from shrinkc.compiler.formats.registry import HOST_FORMAT
from shrinkc.compiler.profile.op_files import NoFileError, op_file, tiny_file
from shrinkc.compiler.profile.op_sets import NETWORK_BYTES
from shrinkc.compiler.support.choices import HOST
from shrinkc.compiler.support.journal import Journal
from shrinkc.compiler.support.quiet import silent
from shrinkc.errors import DeviceError
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.table import OpEstimate

ROUNDS, SECONDS = (5, 30), 0.05  # of runs per operator
# Read in between, so that weights are not in the cache. Half of what a group of operators has
# between two runs of one: here nothing else warms what all operators share.
BALLAST_BYTES = NETWORK_BYTES // 2
NO_FILE_MS = 0.0
RUNTIME = HOST_FORMAT.runtimes[0]


class HostTable:
    """A cost table that runs one-operator files in HOST_FORMAT on this machine, fp32 and int8.

    cache  folder that keeps the times, by processor, runtime and threads; None: nothing is kept

    Raises DeviceError where no TFLite runtime is installed, InputError where int8 is asked for
    without its quantiser.
    """

    target = HOST

    def __init__(self, threads: int = 1, cache: Path | None = None) -> None:
        self._threads = threads
        self._kept = Journal(cache, _machine(threads))
        self._known: dict[OpKey, OpEstimate] = {}
        self._tiny: dict[str, Any] = {}

    def estimate(self, key: OpKey) -> OpEstimate:
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._looked_up(key)
        return known

    def network_overhead_ms(self, precision: str) -> float:
        return 0.0

    def spread(self, precision: str, unlike_share: float) -> float | None:
        return None

    def _looked_up(self, key: OpKey) -> OpEstimate:
        label = json.dumps(asdict(key), sort_keys=True)
        if label not in self._kept.entries:
            ms = self._measured_ms(key)
            self._kept.put(label, [] if ms is None else [ms])
        numbers = self._kept.entries[label]
        if not numbers and key.precision != "fp32":  # then it stays fp32 in a network
            return self.estimate(replace(key, precision="fp32"))
        if not numbers:
            return OpEstimate(NO_FILE_MS, "not measured: no one-operator file", True)
        return OpEstimate(numbers[0], "measured here", False)

    def _measured_ms(self, key: OpKey) -> float | None:
        try:
            data = op_file(key, RUNTIME).model
        except NoFileError:
            return None
        if key.precision not in self._tiny:
            self._tiny[key.precision] = loaded(tiny_file(key.precision, RUNTIME), self._threads)
        models = {"op": loaded(data, self._threads), "tiny": self._tiny[key.precision]}
        try:
            times, _ = runner.measure(models, 2, ROUNDS, SECONDS, BALLAST_BYTES, lambda _: None)
        except RuntimeError:  # TFLite's: of int8, a divisor that rounds to 0
            return None
        own = {name: own_us(taken, self._threads) for name, taken in times.items()}
        sample = Sample(tuple(own["op"]), median(own["tiny"]))
        return settle((sample,), None).median_us / 1e3


def loaded(model: bytes, threads: int) -> Any:
    """A file in HOST_FORMAT, to be timed. Raises DeviceError without the runtime."""
    try:
        with silent():  # announces its delegate from C++
            return runner.Tflite(model, threads, False)
    except runner.RefusedError as refusal:
        raise DeviceError(f"this Python has no {refusal}: pip install ai-edge-litert") from None


def own_us(taken: list[runner.Clocked], threads: int) -> list[float]:
    """Without what other processes had of one thread's runs; of several threads, the wall's."""
    shares = runner.own_shares(taken) if threads == 1 else [1.0] * len(taken)
    return [wall * share for (wall, _), share in zip(taken, shares, strict=True)]


def _machine(threads: int) -> str:
    """Names what times depend on."""
    try:
        runtime = version("ai-edge-litert")
    except PackageNotFoundError:
        runtime = "tflite-runtime"
    facts = runner.describe()
    about = f"{facts['cpu']} {facts['cores']} {facts['machine']} {runtime} {threads} {ROUNDS}"
    return f"host-{hashlib.sha256(about.encode()).hexdigest()[:16]}"
