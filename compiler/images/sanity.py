"""Images that say too little: all of one colour, nearly all of one class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence

from torch import Tensor

from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.task import Answer, Task

FEWEST = 8  # images, before all being alike means anything
ALIKE = 0.9  # of the images


class Sanity:
    """Watches what a network reads and answers. `images`: what they are for; `advice`: what comes
    of it, and what to do."""

    def __init__(self, images: str, advice: str, *, task: Task = CLASSIFICATION) -> None:
        self._name, self._advice, self._task = images, advice, task
        self._classes = Counter[int]()
        self._images, self._plain = 0, 0
        self._answers, self._nothing = 0, 0

    def see_input(self, x: Tensor) -> None:
        """One batch; only images (n, channels, height, width) are looked at."""
        if x.ndim == 4:
            self._images += len(x)
            self._plain += int((x.amax((2, 3)) == x.amin((2, 3))).all(1).sum())

    def see_answer(self, answer: Answer) -> None:
        """Of one batch."""
        without = [x.isnan().reshape(len(x), -1).any(1) for x in answer if x.ndim and x.numel()]
        self._answers += len(answer[0]) if answer[0].ndim else 1
        self._nothing += max((int(one.sum()) for one in without), default=0)
        labels = self._task.labels(answer)
        if labels is not None:
            self._classes.update(int(label) for label in labels if label >= 0)

    def watch(
        self, inputs: Collection[str], outputs: Sequence[str]
    ) -> Callable[[str, Tensor], None]:
        """Takes values by name, batch after batch; an answer is there once all outputs are."""
        found: dict[str, Tensor] = {}

        def see(name: str, value: Tensor) -> None:
            if name in inputs:
                self.see_input(value)
            if name in outputs:
                found[name] = value
                if all(output in found for output in outputs):
                    self.see_answer(tuple(found[output] for output in outputs))
                    found.clear()

        return see

    def notes(self) -> tuple[str, ...]:
        """What is suspicious."""
        notes: list[str] = []
        count = self._images
        if self._plain:
            notes.append(
                f"{self._plain} of {count} {self._name} have one colour each; {self._advice}"
            )
        if self._nothing:
            notes.append(
                f"the network answers NaN on {self._nothing} of {self._answers} {self._name}, "
                "which tell nothing: give such as it was trained for"
            )
        [(best, often)] = self._classes.most_common(1) or [(0, 0)]
        if count >= FEWEST and often >= ALIKE * count:
            notes.append(
                f"the network sees class {best} in {often} of {count} {self._name}; {self._advice}"
            )
        return tuple(notes)
