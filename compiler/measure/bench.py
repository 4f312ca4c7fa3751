"""Latency of model files on this machine: warm-up, turns, median and IQR."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from shrinkc.compiler.formats.runner import Runner, random_inputs
from shrinkc.compiler.measure.crowd import watched
from shrinkc.compiler.support.apart.runner import ApartRunner

TURN, TURN_MS = 10, 500  # counted runs of one model before the next has its turn, at most
SETTLING = 0.01  # seconds before them; an int8 MobileNetV2 of 1.5 ms needs six runs
FEWEST = 5  # runs of each, whatever time they take
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
    inputs: Sequence[Sequence[Any]] | None = None,
) -> tuple[Timing, ...]:
    """Time each runner on its `inputs`, or seeded random ones, in turns A A A B B B A A A.

    The first runs of a turn are not counted: they find caches and clock as another model left
    them. Run by run an int8 MobileNetV2 was 13% slower beside its fp32 version, that 5%. Stops
    after `runs` runs of each or, once there are five, after `max_seconds`. Warns on a machine that
    others use meanwhile.
    """
    inputs = [random_inputs(r) for r in runners] if inputs is None else inputs
    warm = [
        time_ms
        for runner, arrays in zip(runners, inputs, strict=True)
        for time_ms in _times_ms(runner, arrays, warmup)
    ]
    slowest = max(warm, default=0.0)
    turn = max(1, min(TURN, int(TURN_MS / slowest))) if slowest else TURN
    times: list[list[float]] = [[] for _ in runners]
    started = time.perf_counter()
    apart = [runner for runner in runners if isinstance(runner, ApartRunner)]
    with watched(lambda: sum(runner.cpu_seconds for runner in apart)):
        while len(times[0]) < runs:
            if len(times[0]) >= FEWEST and time.perf_counter() - started > max_seconds:
                break
            count = min(turn, runs - len(times[0]))
            for kept, runner, arrays in zip(times, runners, inputs, strict=True):
                kept += _times_ms(runner, arrays, count, SETTLING if len(runners) > 1 else 0.0)
            if on_run is not None:
                for _ in range(count):
                    on_run()
    return tuple(Timing(tuple(kept)) for kept in times)


def _times_ms(
    runner: Runner, arrays: Sequence[Any], count: int, settling: float = 0.0
) -> list[float]:
    """Of `count` runs, by the clock where they are, behind `settling` seconds of uncounted ones."""
    if isinstance(runner, ApartRunner):
        return runner.times_ms(arrays, count, settling)
    started = time.perf_counter()
    while settling and time.perf_counter() - started < settling:
        runner.run(arrays)
    times: list[float] = []
    for _ in range(count):
        begun = time.perf_counter_ns()
        runner.run(arrays)
        times.append((time.perf_counter_ns() - begun) / 1e6)
    return times
