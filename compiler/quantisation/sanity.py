"""Calibration pictures that say too little: all of one colour, all of one class."""

from __future__ import annotations

from torch import Tensor

from ..export import ops

FEWEST = 8  # pictures, before all being alike means anything


class Sanity:
    """Watches a calibration."""

    def __init__(self, program: ops.Program) -> None:
        self._inputs = {value.name for value in program.inputs}
        self._output = program.outputs[0].name
        self._classes: set[int] = set()
        self._pictures, self._plain = 0, 0

    def see(self, name: str, value: Tensor) -> None:
        """A tensor's value for one batch."""
        if name in self._inputs and value.ndim == 4:
            self._pictures += len(value)
            self._plain += int((value.amax((2, 3)) == value.amin((2, 3))).all(1).sum())
        elif name == self._output and value.ndim == 2 and value.shape[1] > 1:
            self._classes.update(int(i) for i in value.argmax(1))

    def notes(self) -> tuple[str, ...]:
        """What is suspicious."""
        notes: list[str] = []
        if self._plain:
            notes.append(
                f"{self._plain} of {self._pictures} calibration pictures have one colour each; "
                "int8 ranges come from them: calibrate on real pictures"
            )
        if len(self._classes) == 1 and self._pictures >= FEWEST:
            notes.append(
                f"the network sees class {min(self._classes)} in all {self._pictures} calibration "
                "pictures; int8 ranges may not suit others: calibrate on pictures of many classes"
            )
        return tuple(notes)
