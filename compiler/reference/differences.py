"""How far outputs are from the original's, by groups of batches; what rounding explains is not
counted."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from shrinkc.compiler.reference.original import Original
from shrinkc.compiler.support.difference import Array, OutputError

WORST = 8  # batches that are kept to look into


@dataclass(frozen=True)
class Excess:
    """An output that is further off than allowed: by what share of the range of a channel."""

    relative: float
    output: int
    group: str
    inputs: tuple[Tensor, ...]

    def __str__(self) -> str:
        return (
            f"{self.relative:.1e} of the range of a channel of output {self.output} on {self.group}"
        )


@dataclass
class Differences:
    """A running tally.

    errors  group of batches → the error of each output; every group is judged by its own ranges
    worst   group → a few batches, those on which the error grew last among them
    """

    errors: dict[str, list[OutputError]] = field(default_factory=dict[str, list[OutputError]])
    worst: dict[str, list[tuple[Tensor, ...]]] = field(
        default_factory=dict[str, list[tuple[Tensor, ...]]], repr=False
    )

    def add(
        self, group: str, inputs: tuple[Tensor, ...], got: list[Array], want: list[Array]
    ) -> None:
        """Count one batch."""
        known = self.errors.setdefault(group, [OutputError() for _ in want])
        before = self._relative(group)
        for one, g, w in zip(known, got, want, strict=True):
            one.add(g, w)
        kept = self.worst.get(group, [])
        if self._relative(group) > before or len(kept) < WORST:
            self.worst[group] = [*kept, inputs][-WORST:]

    @property
    def relative(self) -> float:
        """The largest of any output's channel, as a share of the channel's range."""
        return max((self._relative(group) for group in self.errors), default=0.0)

    @property
    def of_whole_range(self) -> float:
        """The largest of any output, as a share of the output's whole range."""
        found = (one.of_whole_range() for errors in self.errors.values() for one in errors)
        return max(found, default=0.0)

    def excess(self, original: Original, limit: float) -> Excess | None:
        """The first output that is off by more than `limit` and more than float32 explains; what
        it explains is taken out of the tally."""
        for group, errors in self.errors.items():
            if self._relative(group) <= limit:
                continue
            worst = self.worst[group][::-1]
            for rounding in original.rounding(worst):
                for error, unsure in zip(errors, rounding, strict=True):
                    error.forgive(unsure)
                if self._relative(group) <= limit:
                    break
            for index, error in enumerate(errors):
                if error.relative() > limit:
                    return Excess(error.relative(), index, group, worst[0])
        return None

    def _relative(self, group: str) -> float:
        return max((one.relative() for one in self.errors[group]), default=0.0)
