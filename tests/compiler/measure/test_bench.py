"""Models are timed in turns whose first run does not count."""

from __future__ import annotations

from typing import Any

import pytest

from shrinkc.compiler.measure import bench as module
from shrinkc.compiler.measure.bench import FEWEST, TURN, bench


class Model:
    """Takes a second, the first run after another model two."""

    last = ""

    def __init__(self, name: str, clock: list[float]) -> None:
        self.name, self.clock = name, clock

    def run(self, arrays: Any) -> list[Any]:
        self.clock[0] += 1.0 if Model.last == self.name else 2.0
        Model.last = self.name
        return []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(module, "random_inputs", lambda runner: [])
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(module.time, "perf_counter_ns", lambda: now[0] * 1e9)
    return now


def test_what_another_model_left_in_the_caches_is_not_counted(clock: list[float]) -> None:
    ticks: list[int] = []
    models = [Model(name, clock) for name in "ab"]
    first, second = bench(models, 2 * TURN + 1, 0, 1e9, lambda: ticks.append(1))  # type: ignore[arg-type]
    assert first.times_ms == second.times_ms == (1e3,) * (2 * TURN + 1)
    assert len(ticks) == 2 * TURN + 1
    assert clock[0] == 2 * (2 * TURN + 1 + 3 * 2)  # three turns each, two seconds in front


def test_a_model_alone_has_no_run_that_does_not_count(clock: list[float]) -> None:
    (timing,) = bench([Model("a", clock)], 4, 1, 1e9)  # type: ignore[list-item]
    assert timing.times_ms == (1e3,) * 4
    assert clock[0] == 2 + 4


def test_time_ends_it_but_not_before_the_fewest(clock: list[float]) -> None:
    (timing,) = bench([Model("a", clock)], 100, 0, 0.5)  # type: ignore[list-item]
    assert FEWEST <= len(timing.times_ms) < FEWEST + TURN


def test_slow_models_have_short_turns(clock: list[float]) -> None:
    models = [Model(name, clock) for name in "ab"]
    timings = bench(models, 100, 1, 0.0)  # type: ignore[arg-type]
    assert [len(timing.times_ms) for timing in timings] == [FEWEST] * 2
