"""Images that say too little: all of one colour, nearly all of one class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from torch import Tensor

FEWEST = 8  # images, before all being alike means anything
ALIKE = 0.9  # of the images


class Sanity:
    """Watches what a network reads and answers. `inputs`, `output`: what its values are called;
    `images`: what they are for; `advice`: what comes of it, and what to do."""

    def __init__(self, inputs: Collection[str], output: str, images: str, advice: str) -> None:
        self._inputs, self._output = inputs, output
        self._name, self._advice = images, advice
        self._classes = Counter[int]()
        self._images, self._plain = 0, 0

    def see(self, name: str, value: Tensor) -> None:
        """A tensor's value for one batch."""
        if name in self._inputs and value.ndim == 4:
            self._images += len(value)
            self._plain += int((value.amax((2, 3)) == value.amin((2, 3))).all(1).sum())
        elif name == self._output and value.ndim == 2 and value.shape[1] > 1:
            self._classes.update(int(i) for i in value.argmax(1))

    def notes(self) -> tuple[str, ...]:
        """What is suspicious."""
        notes: list[str] = []
        count = self._images
        if self._plain:
            notes.append(
                f"{self._plain} of {count} {self._name} have one colour each; {self._advice}"
            )
        [(best, often)] = self._classes.most_common(1) or [(0, 0)]
        if count >= FEWEST and often >= ALIKE * count:
            notes.append(
                f"the network sees class {best} in {often} of {count} {self._name}; {self._advice}"
            )
        return tuple(notes)
