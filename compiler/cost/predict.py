"""Deployment operators → latency keys → milliseconds on a target."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from shrinkc.compiler.cost.keys import batch_of, op_keys, operand_sizes
from shrinkc.compiler.export import ops
from shrinkc.compiler.support.text import counted
from shrinkc.errors import InputError
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.table import OpEstimate


class CostTable(Protocol):
    """What prices operators: a latency table, or the machine itself."""

    @property
    def target(self) -> str: ...

    def estimate(self, key: OpKey) -> OpEstimate: ...

    def network_overhead_ms(self, precision: str) -> float: ...

    def spread(self, precision: str, unlike_share: float) -> float | None: ...


@dataclass(frozen=True)
class AsMeasured:
    """A table whose sums over operators come out as whole networks were measured.

    factors  precision → measured over summed up
    """

    table: CostTable
    factors: Mapping[str, float]

    @property
    def target(self) -> str:
        return self.table.target

    def estimate(self, key: OpKey) -> OpEstimate:
        known = self.table.estimate(key)
        return replace(known, ms=known.ms * self.factors[key.precision])

    def network_overhead_ms(self, precision: str) -> float:
        return self.table.network_overhead_ms(precision) * self.factors[precision]

    def spread(self, precision: str, unlike_share: float) -> float | None:
        return self.table.spread(precision, unlike_share)


@dataclass(frozen=True)
class LayerLatency:
    """One operator's share, and how the table knows it."""

    name: str
    op: str
    ms: float
    source: str
    macs: int


class NoTable:
    """Where no target is given: what counts milliseconds is refused."""

    target = ""

    def estimate(self, key: OpKey) -> OpEstimate:
        """Raises InputError."""
        raise InputError("milliseconds are counted by a target's latency table; give `target`")

    def network_overhead_ms(self, precision: str) -> float:
        """Raises InputError."""
        raise InputError("milliseconds are counted by a target's latency table; give `target`")

    def spread(self, precision: str, unlike_share: float) -> float | None:
        return None


@dataclass(frozen=True, repr=False)
class Prediction:
    """A network on a target.

    unpriced  operator → how many of them no key of a table stands for, so that the sum lacks them
    notes     what a user should know of how operators are priced
    spread    nine of ten such networks take no more than this many times as long, or as short; None
              where the table was never tested on networks
    """

    target: str
    precision: str
    layers: tuple[LayerLatency, ...]
    overhead_ms: float
    unpriced: Mapping[str, int] = field(default_factory=dict[str, int])
    notes: tuple[str, ...] = ()
    spread: float | None = None

    @property
    def total_ms(self) -> float:
        return self.overhead_ms + sum(layer.ms for layer in self.layers)

    @property
    def total_ms_low(self) -> float | None:
        return None if self.spread is None else self.total_ms / self.spread

    @property
    def total_ms_high(self) -> float | None:
        return None if self.spread is None else self.total_ms * self.spread

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)

    def __repr__(self) -> str:
        return (
            f"Prediction({self.total_ms:.4g} ms on {self.target} in {self.precision}: "
            f"{counted(len(self.layers), 'layer')}, {self.macs / 1e6:.4g} M multiply-accumulates)"
        )


def predict(
    program: ops.Program,
    table: CostTable,
    precision: str = "fp32",
    keep_fp32: Collection[str] = (),
) -> Prediction:
    """Price every operator of the program. Raises TableError when the table lacks `precision`.

    `keep_fp32`: names of operators that compute in fp32 within an int8 network. A conversion on the
    way in or out counts as an addition in fp32 of such a tensor, which moves about twice the bytes.
    """
    return predict_keys(_priced(program, precision, keep_fp32), table, precision)


def predict_keys(
    keys: Iterable[tuple[str, OpKey, int]],
    table: CostTable,
    precision: str,
    unpriced: Mapping[str, int] | None = None,
) -> Prediction:
    """The same of operators as (name, key, how often); `unpriced`: what has no key, counted."""
    layers: list[LayerLatency] = []
    unlike_ms = 0.0
    for name, key, times in keys:
        estimate = table.estimate(key)
        source = f"{estimate.source}, extrapolated" if estimate.extrapolated else estimate.source
        op = key.op if times == 1 else f"{key.op} × {times}"
        layers.append(LayerLatency(name, op, estimate.ms * times, source, key.macs * times))
        unlike_ms += estimate.extrapolated * estimate.ms * times
    overhead_ms = table.network_overhead_ms(precision)
    found = Prediction(table.target, precision, tuple(layers), overhead_ms, unpriced or {})
    unlike_share = unlike_ms / found.total_ms if unlike_ms else 0.0
    return replace(found, spread=table.spread(precision, unlike_share))


def _priced(
    program: ops.Program, precision: str, keep_fp32: Collection[str]
) -> Iterator[tuple[str, OpKey, int]]:
    """Name and key of what takes time, and how often it is computed, in execution order."""
    in_fp32 = {op.output.name: op.name in keep_fp32 for op in program.ops}
    converted: set[tuple[str, bool]] = set()
    batch = batch_of(program)
    for op in program.ops:
        here = in_fp32[op.output.name]
        for x in op.operands():
            if in_fp32.get(x.name, here) != here and (x.name, here) not in converted:
                converted.add((x.name, here))
                channels, size = operand_sizes(x)
                key = OpKey("add", channels, channels, in_size=size, out_size=size)
                yield f"{x.name} to {'fp32' if here else precision}", key, 1
        for key, times in op_keys(op, "fp32" if here else precision, batch):
            yield op.name, key, times
