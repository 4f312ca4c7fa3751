"""What a network costs at any widths, term by term: milliseconds, MACs, parameters or channels.

Along any axis the channels are a sum over groups: n(w) = n₀ + Σ_g s_g·(w_g − size_g). One look at
the network with group g alone narrower tells s_g of every operator and parameter. An operator's
cost is then a function of the few groups that it reads and makes; the network's is the sum:

    C(w) = c₀ + Σ_t f_t(n_t(w))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import fsum, prod

from shrinkc.compiler.cost.goal import Unit
from shrinkc.compiler.cost.predict import CostTable
from shrinkc.compiler.width.skeleton import Facts, Skeleton
from shrinkc.latency_tables.key import OpKey
from shrinkc.passes.analysis.channels.channel_groups import Groups

Numbers = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Term:
    """One operator, parameter or group: `cost` of its `numbers`.

    numbers  with every group whole
    slopes   group → by how much each number changes for every channel that the group keeps
    """

    numbers: Numbers
    slopes: Mapping[str, tuple[float, ...]]
    cost: Callable[[Numbers], float]
    _known: dict[Numbers, float] = field(default_factory=dict[Numbers, float])

    def at(self, less: Mapping[str, int]) -> float:
        """`less`: by how many channels each group is narrower."""
        numbers = list(map(float, self.numbers))
        for group, slopes in self.slopes.items():
            gone = less[group]
            if gone:
                numbers = [n - s * gone for n, s in zip(numbers, slopes, strict=True)]
        key = tuple(max(round(n), 1) for n in numbers)
        if key not in self._known:
            self._known[key] = self.cost(key)
        return self._known[key]


@dataclass(frozen=True, eq=False)
class Price:
    """A network's cost as a function of the widths of its groups (`sizes`: whole)."""

    sizes: Mapping[str, int]
    terms: tuple[Term, ...]
    constant: float = 0.0

    def total(self, widths: Mapping[str, int]) -> float:
        less = self._less(widths)
        return fsum([self.constant, *(term.at(less) for term in self.terms)])

    def changes(self, widths: Mapping[str, int], group: str, others: Sequence[int]) -> list[float]:
        """By how much the total changes when `group` alone gets each of the other widths."""
        less = self._less(widths)
        mine = self.touching[group]
        before = [term.at(less) for term in mine]
        found: list[float] = []
        for width in others:
            less[group] = self.sizes[group] - width
            found.append(fsum(t.at(less) - b for t, b in zip(mine, before, strict=True)))
        return found

    @cached_property
    def touching(self) -> Mapping[str, tuple[Term, ...]]:
        """Group → the terms that change with it."""
        return {name: tuple(t for t in self.terms if name in t.slopes) for name in self.sizes}

    @cached_property
    def neighbours(self) -> Mapping[str, frozenset[str]]:
        """Group → groups whose price depends on its width, itself included."""
        return {
            name: frozenset(g for term in terms for g in term.slopes) | {name}
            for name, terms in self.touching.items()
        }

    def _less(self, widths: Mapping[str, int]) -> dict[str, int]:
        return {name: size - widths.get(name, size) for name, size in self.sizes.items()}


@dataclass(frozen=True, eq=False)
class Layers:
    """A network's operators and parameters with the slopes of their numbers, for any `Price`."""

    sizes: Mapping[str, int]
    fixed: int  # channels of the groups that stay as they are
    operators: tuple[tuple[OpKey, Mapping[str, tuple[float, ...]]], ...]
    parameters: tuple[tuple[Numbers, Mapping[str, tuple[float, ...]]], ...]

    def price(self, unit: Unit, table: CostTable, precision: str) -> Price:
        """Raises TableError where the table lacks the precision."""
        if unit == "channels":
            terms = (_channels(name, size) for name, size in self.sizes.items())
            return Price(self.sizes, tuple(terms), self.fixed)
        if unit == "params":
            terms = (Term(shape, slopes, prod) for shape, slopes in self.parameters)
            return Price(self.sizes, tuple(terms))
        constant = table.network_overhead_ms(precision) if unit == "ms" else 0.0

        def ms(key: OpKey) -> float:
            return table.estimate(replace(key, precision=precision)).ms

        def macs(key: OpKey) -> float:
            return key.macs

        cost = ms if unit == "ms" else macs
        terms = (_operator(key, slopes, cost) for key, slopes in self.operators)
        return Price(self.sizes, tuple(terms), constant)


def _channels(name: str, size: int) -> Term:
    return Term((size,), {name: (1.0,)}, lambda n: float(n[0]))


def _operator(
    key: OpKey, slopes: Mapping[str, tuple[float, ...]], cost: Callable[[OpKey], float]
) -> Term:
    return Term(_numbers(key), slopes, lambda numbers: cost(_sized(key, numbers)))


def _numbers(key: OpKey) -> Numbers:
    return (key.in_channels, key.out_channels, key.groups, *key.in_size, *key.out_size)


def _sized(key: OpKey, numbers: Numbers) -> OpKey:
    inputs, outputs, groups, ih, iw, oh, ow = numbers
    return replace(
        key,
        in_channels=inputs,
        out_channels=outputs,
        groups=groups,
        in_size=(ih, iw),
        out_size=(oh, ow),
    )


def layers_of(skeleton: Skeleton, groups: Groups, narrow: Mapping[str, int]) -> Layers:
    """Look at the network once for every group. `narrow`: a smaller width of each group that may
    change; the others are taken as they are."""
    whole = skeleton.facts({})
    operators: list[dict[str, tuple[float, ...]]] = [{} for _ in whole.operators]
    parameters: dict[str, dict[str, tuple[float, ...]]] = {p: {} for p in whole.parameters}
    for name, width in narrow.items():
        less, gone = skeleton.facts({name: width}), groups[name].size - width
        for slopes, (_, a), (_, b) in zip(
            operators, whole.operators, _same(whole, less).operators, strict=True
        ):
            _note(slopes, name, _numbers(a), _numbers(b), gone)
        for path, shape in whole.parameters.items():
            _note(parameters[path], name, shape, less.parameters[path], gone)
    return Layers(
        {name: groups[name].size for name in narrow},
        sum(group.size for group in groups.groups if group.name not in narrow),
        tuple((key, s) for (_, key), s in zip(whole.operators, operators, strict=True)),
        tuple((shape, parameters[path]) for path, shape in whole.parameters.items()),
    )


def _same(whole: Facts, less: Facts) -> Facts:
    assert [n for n, _ in whole.operators] == [n for n, _ in less.operators]
    return less


def _note(
    slopes: dict[str, tuple[float, ...]], name: str, whole: Numbers, less: Numbers, gone: int
) -> None:
    if whole != less:
        slopes[name] = tuple((a - b) / gone for a, b in zip(whole, less, strict=True))
