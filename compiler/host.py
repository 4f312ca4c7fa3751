"""The `host` target: every operator is measured here, alone, when its price is first asked."""

from __future__ import annotations

from statistics import median
from typing import Any

from ..latency_tables.devices import runner
from ..latency_tables.devices.samples import Sample, settle
from ..latency_tables.key import OpKey
from ..latency_tables.table import OpEstimate
from .errors import DeviceError, TableError
from .op_files import NoFileError, op_file, tiny_file
from .op_sets import NETWORK_BYTES
from .quiet import silent

ROUNDS, SECONDS = (5, 30), 0.05  # of runs per operator
# Read in between, so that weights are not in the cache. Half of what a group of operators has
# between two runs of one: here nothing else warms what all operators share.
BALLAST_BYTES = NETWORK_BYTES // 2


class HostTable:
    """A cost table that runs one-operator TFLite files on this machine, one thread.

    fp32 only: an int8 file needs calibrated ranges. Raises TableError for other precisions,
    DeviceError where no TFLite runtime is installed.
    """

    target = "host"

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        self._measured: dict[OpKey, OpEstimate] = {}
        self._tiny: Any = None

    def estimate(self, key: OpKey) -> OpEstimate:
        self.network_overhead_ms(key.precision)
        known = self._measured.get(key)
        if known is None:
            known = self._measured[key] = self._measure(key)
        return known

    def network_overhead_ms(self, precision: str) -> float:
        if precision != "fp32":
            raise TableError(f"target host measures fp32 operators, not {precision}")
        return 0.0

    def _measure(self, key: OpKey) -> OpEstimate:
        try:
            data = op_file(key, "tflite").model
        except NoFileError:
            return OpEstimate(0.0, "not measured: no one-operator file", True)
        if self._tiny is None:
            self._tiny = self._loaded(tiny_file("fp32", "tflite"))
        models = {"op": self._loaded(data), "tiny": self._tiny}
        times, _ = runner.measure(models, 2, ROUNDS, SECONDS, BALLAST_BYTES, lambda _: None)
        own = {name: self._own_us(taken) for name, taken in times.items()}
        sample = Sample(tuple(own["op"]), median(own["tiny"]))
        return OpEstimate(settle((sample,), None).median_us / 1e3, "measured here", False)

    def _own_us(self, taken: list[runner.Clocked]) -> list[float]:
        shares = runner.own_shares(taken) if self._threads == 1 else [1.0] * len(taken)
        return [wall * share for (wall, _), share in zip(taken, shares, strict=True)]

    def _loaded(self, model: bytes) -> Any:
        try:
            with silent():  # announces its delegate from C++
                return runner.Tflite(model, self._threads, False)
        except runner.RefusedError as refusal:
            raise DeviceError(f"this Python has no {refusal}: pip install ai-edge-litert") from None
