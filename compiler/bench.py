"""Latency of model files on this machine: warm-up, interleaved repeats, median and IQR."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from .crowd import watched
from .runtimes import Runner, random_inputs

NOISY = 0.10  # an IQR above this share of the median deserves a warning


@dataclass(frozen=True)
class Timing:
    """Raw times of one file, in milliseconds."""

    times_ms: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        return median(self.times_ms)

    @property
    def iqr_ms(self) -> float:
        if len(self.times_ms) < 2:
            return 0.0
        low, _, high = quantiles(self.times_ms, n=4)
        return high - low

    @property
    def noisy(self) -> bool:
        return self.iqr_ms > NOISY * self.median_ms


def bench(
    runners: Sequence[Runner],
    runs: int = 50,
    warmup: int = 5,
    max_seconds: float = 30.0,
    on_run: Callable[[], None] | None = None,
) -> tuple[Timing, ...]:
    """Time each runner on seeded random input, interleaved A B A B.

    Stops after `runs` rounds or, once there are five, after `max_seconds`. Warns on a machine that
    others use meanwhile.
    """
    inputs = [random_inputs(r) for r in runners]
    for runner, arrays in zip(runners, inputs, strict=True):
        for _ in range(warmup):
            runner.run(arrays)
    times: list[list[float]] = [[] for _ in runners]
    started = time.perf_counter()
    with watched():
        for round_ in range(runs):
            if round_ >= 5 and time.perf_counter() - started > max_seconds:
                break
            for kept, runner, arrays in zip(times, runners, inputs, strict=True):
                begun = time.perf_counter_ns()
                runner.run(arrays)
                kept.append((time.perf_counter_ns() - begun) / 1e6)
            if on_run is not None:
                on_run()
    return tuple(Timing(tuple(kept)) for kept in times)
