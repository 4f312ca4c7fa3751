"""A device whose times follow from the files alone: what is measured on it, killed and measured on,
is the same every time."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from shrinkc.compiler.devices.jobs import REFERENCE, Failed, Measured, Method, Model, Ran, Setup

PAUSE_S = 0.003  # for each file: long enough to be killed in


@dataclass
class PlayedBoard:
    """Takes a µs for every 50 bytes of a file, and 20 more."""

    name: str = "played"
    runtimes: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"tflite": ("fp32",)})
    environment: Mapping[str, Any] = field(
        default_factory=lambda: {"cpu": "none", "runtime": "played", "runtime_version": "1"}
    )
    conditions: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @contextmanager
    def open(self, setup: Setup) -> Generator[PlayedBoard]:
        yield self

    def measure(self, models: Sequence[Model], method: Method) -> Iterator[Measured | Failed]:
        reference = (300.0,) * 6 if models[0].name == REFERENCE else ()
        for model in models:
            if model.name != REFERENCE:
                time.sleep(PAUSE_S)
                yield Measured(model.name, (20 + len(model.data) / 50,) * 6, reference)

    def run(self, model: Model, inputs: object) -> Ran | Failed:
        raise NotImplementedError
