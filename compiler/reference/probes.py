"""Inputs that reach the limits of a network: small, usual and large numbers, at several batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SCALES = (1.0, 0.05, 20.0)  # of normal numbers: N(0, 1) alone never reaches a limit at 6
FIXED = 4  # inputs of each scale where the batch is fixed
NUMBERS = 1 << 20  # of a large batch
LARGE = (33, 17, 9, 5)


@dataclass(frozen=True, eq=False)
class Probe:
    """Inputs of one batch. Ranges of channels are taken over all probes of a group."""

    group: str
    inputs: tuple[Tensor, ...]


def batch_sizes(inputs: tuple[Tensor, ...]) -> tuple[int, ...]:
    """That a network must compute the same at to be free in its batch: the captured size first,
    twice that, 1, and an odd one, as large as NUMBERS allows and no multiple of the captured."""
    batch, numbers = inputs[0].shape[0], sum(x.numel() for x in inputs)
    large = next((n for n in LARGE if n * numbers <= NUMBERS * batch), LARGE[-1])
    return tuple(dict.fromkeys((batch, 2 * batch, 1, max(large, 2 * batch + 1))))


def probes(inputs: tuple[Tensor, ...], batches: Sequence[int]) -> Iterator[Probe]:
    """The example itself; normal numbers of every scale at each batch size, at least FIXED samples;
    zeros and ones."""
    yield Probe("example", inputs)
    seeds = range(math.ceil(FIXED / len(batches)) if len(batches) < 2 else 1)
    for scale in SCALES:
        for seed in seeds:
            for batch in batches:
                yield Probe(f"normal × {scale:g}", _normal(inputs, batch, scale, seed))
    for value in (0.0, 1.0):
        filled = tuple(torch.full_like(x, value) if _is_float(x) else x for x in inputs)
        yield Probe(f"normal × {SCALES[0]:g}", filled)  # judged by the range of usual numbers


def _normal(inputs: tuple[Tensor, ...], batch: int, scale: float, seed: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        scale * torch.randn((batch, *x.shape[1:]), generator=generator, dtype=x.dtype)
        if _is_float(x)
        else _repeated(x, batch)
        for x in inputs
    )


def _repeated(x: Tensor, batch: int) -> Tensor:
    times = math.ceil(batch / x.shape[0])
    return torch.cat((x,) * times)[:batch]


def _is_float(x: Tensor) -> bool:
    return x.is_floating_point()
