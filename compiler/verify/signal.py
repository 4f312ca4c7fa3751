"""Signal to noise of outputs: how much of each, and of each of its channels, a file keeps.

    SNR = 10 · log₁₀( Σ y² / Σ (y − ŷ)² )  in dB,  y of the network in fp32, ŷ of the file

Six dB are one bit. An output may be fine as a whole and useless in parts: scores beside boxes in
pixels lose everything before the whole loses anything. So slices are judged too, along dimension 1
and along the last, the two places where outputs have their channels. Probabilities share one unit:
there a slice counts as no smaller than PROBABLE, or every class that is not in the images would
look lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shrinkc.compiler.export import ops
from shrinkc.compiler.formats.runner import Array
from shrinkc.compiler.quantise.noise import decibels
from shrinkc.compiler.support.difference import channel_dimensions
from shrinkc.compiler.support.text import counted
from shrinkc.errors import VerificationError

LEAST_DB = 20.0  # of an output: a tenth of its size is noise; MobileNetV2's logits have 24
LEAST_CHANNEL_DB = 15.0  # of a slice …
BEHIND_DB = (
    15.0  # … that is this much worse than the whole; of 1000 classes one is 9 worse by chance
)
PROBABLE = 1 / 16  # root mean square of a slice of probabilities
SILENT = 1e-12  # of the mean energy: below it a slice is nothing but float32's own noise

Energies = NDArray[np.float64]


@dataclass(frozen=True)
class OutputSignal:
    """One output's signal to noise in dB, and that of its noisiest slice: `channel` counts along
    `dimension`; None where the output has one slice only. `broken`: numbers that are NaN or
    infinite where the network's are not."""

    output: str
    snr_db: float
    dimension: int | None = None
    channel: int | None = None
    channel_snr_db: float | None = None
    broken: int = 0

    @property
    def margin_db(self) -> float:
        """By which its worse place, the whole or a channel, is better than the least."""
        whole = self.snr_db - LEAST_DB
        if self.channel_snr_db is None:
            return whole
        least = min(LEAST_CHANNEL_DB, self.snr_db - BEHIND_DB)
        return min(whole, self.channel_snr_db - least)

    @property
    def poor(self) -> bool:
        """Too noisy as a whole or in a channel."""
        return self.margin_db < 0

    def __str__(self) -> str:
        where = ""
        if self.channel is not None and self.channel_snr_db is not None:
            place = f"{self.channel} of dimension {self.dimension}"
            where = f", {self.channel_snr_db:.1f} in its noisiest channel ({place})"
        return f"{self.output} {self.snr_db:.1f} dB{where}"


class Signal:
    """Running energies of all outputs over batches: of each whole, then of its slices."""

    def __init__(self, program: ops.Program) -> None:
        self.names = tuple(value.name for value in program.outputs)
        self.noise: list[Energies] = []
        self._signal: list[Energies] = []
        self._numbers: list[Energies] = []
        self._broken = [0] * len(self.names)
        self._places: list[list[tuple[int, int]]] = []
        self._probable = [is_probability(program, name) for name in self.names]

    def add(self, got: Sequence[Any], want: Sequence[Any]) -> Energies:
        """One batch of outputs, arrays or tensors in PyTorch's layout. Returns (outputs,): the
        noise that it brought."""
        pairs = [(np.asarray(g), np.asarray(w)) for g, w in zip(got, want, strict=True)]
        if not self._places:
            self._places = [_places(w) for _, w in pairs]
            for sums in (self.noise, self._signal, self._numbers):
                sums += [np.zeros(1 + len(places)) for places in self._places]
        brought = np.zeros(len(pairs))
        for at, (g, w) in enumerate(pairs):
            signal, noise, broken = _squares(g, w)
            brought[at] = noise.sum()
            self._signal[at] += _sums(signal)
            self._numbers[at] += _sums(np.ones_like(signal))
            self.noise[at] += _sums(noise)
            self._broken[at] += broken
        return brought

    @property
    def signal(self) -> list[Energies]:
        """Σ y² of every output: of the whole, then of its slices, none of them silent."""
        return [self._floored(at) for at in range(len(self._places))]

    def _floored(self, at: int) -> Energies:
        signal = self._signal[at]
        floor = SILENT * signal[0] * self._numbers[at] / self._numbers[at][0]
        if self._probable[at]:
            floor = np.maximum(floor, PROBABLE**2 * self._numbers[at])
        floor[0] = 0.0
        return np.maximum(signal, floor)

    def outputs(self) -> tuple[OutputSignal, ...]:
        """Of every output, in order."""
        return tuple(self._output(at) for at in range(len(self._places)))

    def _output(self, at: int) -> OutputSignal:
        places, broken = self._places[at], self._broken[at]
        db = ratios(self._floored(at), self.noise[at])
        if not places:
            return OutputSignal(self.names[at], float(db[0]), broken=broken)
        worst = int(db[1:].argmin())
        return OutputSignal(
            *(self.names[at], float(db[0]), *places[worst], float(db[1 + worst]), broken)
        )


def ratios(signal: Energies, noise: Energies) -> NDArray[np.float64]:
    """dB of the whole and of its slices."""
    return np.array([decibels(float(s), float(n)) for s, n in zip(signal, noise, strict=True)])


def is_probability(program: ops.Program, output: str) -> bool:
    """The output comes from a softmax or sigmoid; in between it is at most moved."""
    makers = {op.output.name: op for op in program.ops}
    op = makers.get(output)
    while isinstance(op, ops.Reshape | ops.Transpose | ops.Slice):
        op = makers.get(op.x.name)
    if isinstance(op, ops.Concat):
        return all(is_probability(program, part.name) for part in op.parts)
    kinds = ("sigmoid", "hard_sigmoid")
    return isinstance(op, ops.Softmax) or (isinstance(op, ops.Unary) and op.kind in kinds)


def check_finite(file: str, outputs: Sequence[OutputSignal]) -> None:
    """Raise VerificationError for NaN and infinity where the network's numbers are finite."""
    for output in outputs:
        if output.broken:
            raise VerificationError(
                f"{file}: output '{output.output}' is NaN or infinite in "
                f"{counted(output.broken, 'number')} where the network's are finite"
            )


def notes(file: str, outputs: Sequence[OutputSignal]) -> tuple[str, ...]:
    """What is too noisy."""
    return tuple(
        f"{file}: low signal to noise (dB) of output {output}; good are {LEAST_DB:.0f} dB, and "
        f"{LEAST_CHANNEL_DB:.0f} in a channel: try --keep-fp32 LAYER or --min-snr DB"
        for output in outputs
        if output.poor
    )


def _places(output: Array) -> list[tuple[int, int]]:
    """(dimension, index) of every slice."""
    dimensions = channel_dimensions(output.ndim)
    return [(d, i) for d in dimensions for i in range(output.shape[d]) if output.shape[d] > 1]


def _squares(got: Array, want: Array) -> tuple[Array, Array, int]:
    """y², (y − ŷ)² and the number of ŷ that are broken, whose noise is infinite. Where y itself is
    infinite there is no signal, and no noise where ŷ is the same."""
    y, z = want.astype(np.float64), got.astype(np.float64)
    known, finite = np.isfinite(y), np.isfinite(z)
    both = known & finite
    error = np.where(both, y, 0.0) - np.where(both, z, 0.0)
    same = both | (y == z) | (np.isnan(y) & np.isnan(z))
    noise = np.where(same, error * error, np.inf)
    return np.where(known, y, 0.0) ** 2, noise, int((known & ~finite).sum())


def _sums(squares: Array) -> Energies:
    """Of the whole, then of the slices of `_places`."""
    sums = [squares.sum(keepdims=True).reshape(1)]
    for d in channel_dimensions(squares.ndim):
        if squares.shape[d] > 1:
            sums.append(squares.sum(tuple(i for i in range(squares.ndim) if i != d)))
    return np.concatenate(sums)
