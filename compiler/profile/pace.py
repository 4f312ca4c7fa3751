"""A device that gets hot slows its clock down: it is given rest, what was timed meanwhile is timed
again, and the user is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")
HOT_C = 80.0  # from where a Raspberry Pi throttles
WARM_C = 60.0  # a low clock below that is an idle one
SLOWED = 0.9  # of the fastest clock seen
RESTS_S = (15.0, 30.0, 60.0)  # one after the other, while it stays hot


@dataclass
class Pace:
    """Of one run that ends at `deadline` (of time.monotonic), or when `stop` is set."""

    deadline: float
    stop: threading.Event = field(default_factory=threading.Event)
    rests_s: tuple[float, ...] = field(default_factory=lambda: RESTS_S)
    rested_s: float = 0.0
    worst: str = ""  # what the device said when it was slowest
    still: int = 0  # measurements that were kept though it had not cooled down
    _fastest_mhz: float = 0.0

    @property
    def remaining_s(self) -> float:
        return self.deadline - time.monotonic()

    @property
    def over(self) -> bool:
        return self.stop.is_set() or self.remaining_s <= 0

    def settled(self, measure: Callable[[], T], conditions: Callable[[], Mapping[str, Any]]) -> T:
        """What `measure` gives once the device is not throttled, or when all rests were had."""
        found = measure()
        for rest_s in self.rests_s:
            if not self._throttled(conditions()):
                return found
            if self.over or rest_s >= self.remaining_s:
                break
            self.rested_s += rest_s
            self.stop.wait(rest_s)
            found = measure()
        self.still += self._throttled(conditions())
        return found

    def _throttled(self, conditions: Mapping[str, Any]) -> bool:
        celsius, mhz = conditions.get("temperature_c"), conditions.get("frequency_mhz")
        self._fastest_mhz = max(self._fastest_mhz, mhz or 0.0)
        hot = celsius is not None and celsius >= HOT_C
        warm = celsius is not None and celsius >= WARM_C
        slow = mhz is not None and mhz < SLOWED * self._fastest_mhz
        if not hot and not (warm and slow):
            return False
        units = ((celsius, "°C"), (mhz, "MHz"))
        self.worst = ", ".join(f"{value:.0f} {unit}" for value, unit in units if value is not None)
        return True

    def __str__(self) -> str:
        """Empty where it never was throttled."""
        if not self.worst:
            return ""
        kept = f"; {self.still} measurements are of the slow clock" if self.still else ""
        return f"throttled ({self.worst}): rested {self.rested_s:.0f} s{kept}"
