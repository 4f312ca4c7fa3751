"""Inputs that reach the limits of a network: small, usual and large numbers, at several batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SCALES = (1.0, 0.05, 20.0)  # of normal numbers: N(0, 1) alone never reaches a limit at 6
SHARES = (0.5, 0.25, -0.5)  # of the example
NUMBERS = 1 << 20  # of a large batch
FIXED = range(4, 17)  # batches of each scale where their size is fixed, as many as NUMBERS allow
LARGE = (33, 17, 9, 5)


@dataclass(frozen=True, eq=False)
class Probe:
    """Inputs of one batch; `name` says which. Ranges of channels are taken over all probes of a
    group."""

    name: str
    group: str
    inputs: tuple[Tensor, ...]


def batch_sizes(inputs: tuple[Tensor, ...]) -> tuple[int, ...]:
    """That a network must compute the same at to be free in its batch: the captured size first,
    twice that, 1, and an odd one, as large as NUMBERS allows and no multiple of the captured.
    Inputs without a common first dimension have one size."""
    batch, numbers = len(inputs[0]), sum(x.numel() for x in inputs)
    if any(len(x) != batch for x in inputs):
        return (batch,)
    large = next((n for n in LARGE if n * numbers <= NUMBERS * batch), 3)
    return tuple(dict.fromkeys((batch, 2 * batch, 1, max(large, 2 * batch + 1))))


def probes(inputs: tuple[Tensor, ...], batches: Sequence[int]) -> Iterator[Probe]:
    """The example itself and smaller copies of it; usual numbers at each batch size, small and
    large ones at the last, which has enough samples to tell the range of a channel; all of them
    FIXED times where there is one size only; zeros and ones."""
    yield Probe("example", "example", inputs)
    for share in SHARES:  # one sample does not tell the range of a channel
        smaller = tuple(share * x if _is_float(x) else x for x in inputs)
        yield Probe(f"example × {share:g}", "example", smaller)
    for scale in SCALES:
        group, usual = f"normal × {scale:g}", scale == SCALES[0]
        sizes = _sizes(inputs, batches, usual)
        for seed, batch in enumerate(sizes, start=1):  # 0 has made many an example
            name = f"{group}, batch {batch}, {seed}"
            sized = inputs if batch == len(inputs[0]) else at_batch(inputs, batch)
            yield Probe(name, group, _normal(sized, scale, seed))
    for value in (0.0, 1.0):
        filled = tuple(torch.full_like(x, value) if _is_float(x) else x for x in inputs)
        yield Probe(f"{value:g}", f"normal × {SCALES[0]:g}", filled)  # judged by their ranges


def at_batch(inputs: tuple[Tensor, ...], batch: int) -> tuple[Tensor, ...]:
    """The inputs again and again, up to another batch size."""
    return tuple(x.repeat(-(-batch // len(x)), *(1,) * (x.ndim - 1))[:batch] for x in inputs)


def _sizes(inputs: tuple[Tensor, ...], batches: Sequence[int], usual: bool) -> Sequence[int]:
    if len(batches) > 1:
        return batches if usual else batches[-1:]
    allowed = NUMBERS // sum(x.numel() for x in inputs)
    return (*batches,) * min(max(allowed, FIXED.start), FIXED.stop - 1)


def _normal(inputs: tuple[Tensor, ...], scale: float, seed: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        scale * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        if _is_float(x)
        else _drawn_from(x, generator)
        for x in inputs
    )


def _drawn_from(x: Tensor, generator: torch.Generator) -> Tensor:
    """Whole numbers of the example's own, which are sure to be valid, in other places."""
    return x.flatten()[torch.randint(x.numel(), x.shape, generator=generator)]


def _is_float(x: Tensor) -> bool:
    return x.is_floating_point()
