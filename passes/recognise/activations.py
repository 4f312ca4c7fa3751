"""Which activation a function of one number is, however it is written.

Between two points where a clamp, a maximum or an absolute value inside switches, such a function is
analytic: two that agree on a stretch agree to its ends. So it is enough to find where anything
switches, and to compare on every stretch between. Inputs to what switches are straight lines in
every spelling that is in use, and a straight line changes its sign once, between two points
that are compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from shrinkc.passes import ir
from shrinkc.passes.ir import module_of
from shrinkc.passes.recognise.region import Numbers, Region

TOLERANCE = 1e-10  # a tenth of what an exact pass may change
GUARD = 1e-6  # less keeps what follows from dividing by 0 or its logarithm: 1e-12 is not 0 then
FINITE = 30.0  # up to here nothing may overflow: beyond, what is written out may, the operator not
# Without Softplus: runtimes take longer for it than for log(1 + exp(x)).
_KNOWN: tuple[nn.Module, ...] = (
    *(nn.ReLU(), nn.ReLU6(), nn.Hardsigmoid(), nn.Hardswish(), nn.Sigmoid(), nn.Tanh()),
    *(nn.SiLU(), nn.GELU(), nn.GELU("tanh"), nn.Mish()),
)
_SINGULAR = (torch.sqrt, torch.rsqrt, torch.log)  # analytic where they read what is positive
_MODULES = (*ir.ELEMENTWISE_MODULES, nn.Identity)
_FUNCTIONS = (
    *(*ir.ARITHMETIC, torch.maximum, torch.minimum, ir.clamp, *_SINGULAR),
    *(torch.exp, torch.abs, ir.neg, torch.erf),
)


def is_elementwise(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    module = module_of(graph_module, node)
    return isinstance(module, _MODULES) if module else node.target in _FUNCTIONS


@dataclass(frozen=True, eq=False)
class _Function:
    """What a region makes of a number."""

    graph_module: fx.GraphModule
    region: Region
    numbers: Numbers

    def __call__(self, x: Tensor) -> Tensor:
        return self._values(x)[self.region.sink]

    def switches(self, x: Tensor) -> Iterator[Tensor]:
        """Functions of x in whose zeros something inside switches or has a pole."""
        values = self._values(x)

        def value(operand: Any) -> Any:
            if not ir.is_node(operand):
                return operand
            return values[operand] if operand in values else self.numbers(operand)

        for node in self.region.nodes:
            args = [value(x) for x in node.args]
            if node.target in (torch.maximum, torch.minimum):
                yield x.new_zeros(x.shape) + args[0] - args[1]
            elif node.target is ir.div and isinstance(args[1], Tensor):
                yield args[1]
            elif node.target is ir.pow_ and isinstance(args[0], Tensor):
                yield args[0]
            else:
                for threshold in _thresholds(node, module_of(self.graph_module, node)):
                    yield args[0] - threshold

    def has_guard(self) -> bool:
        """Whether a number next to 0 is in it, which would pass for 0 here and not further on."""
        for node in self.region.nodes:
            module = module_of(self.graph_module, node)
            read = (self.numbers(x) if ir.is_node(x) else x for x in node.args)
            given = [x for x in read if isinstance(x, float)]
            if any(0 < abs(x) < GUARD for x in (*given, *_thresholds(node, module))):
                return True
        return False

    def is_regular(self, x: Tensor) -> bool:
        """Roots, logarithms and powers that are not whole read positive numbers alone."""
        values = self._values(x)
        for node in self.region.nodes:
            read = values.get(node.args[0]) if node.args else None
            if node.target is ir.pow_:
                base, power = node.args
                if not ir.is_node(base) or ir.is_node(power):
                    return False
                if float(cast(float, power)).is_integer():
                    continue
            elif node.target not in _SINGULAR:
                continue
            if read is None or not bool((read > 0).all()):
                return False
        return True

    def _values(self, x: Tensor) -> dict[Any, Tensor]:
        return self.region.run(self.graph_module, x, self.numbers)


def _thresholds(node: fx.Node, module: nn.Module | None) -> tuple[float, ...]:
    """Where the operator of the node switches."""
    match module:
        case nn.ReLU() | nn.LeakyReLU() | nn.ELU():
            return (0.0,)
        case nn.ReLU6():
            return 0.0, 6.0
        case nn.Hardtanh():
            return module.min_val, module.max_val
        case nn.Hardsigmoid() | nn.Hardswish():
            return -3.0, 3.0
        case nn.Softplus():
            return (module.threshold / module.beta,)
        case _ if node.target is ir.clamp:
            return tuple(float(x) for x in cast("tuple[Any, ...]", node.args[1:]) if x is not None)
        case _:
            return (0.0,) if node.target is torch.abs else ()


def activation(graph_module: fx.GraphModule, region: Region, numbers: Numbers) -> nn.Module | None:
    """The activation that the region is of its source, or None."""
    function = _Function(graph_module, region, numbers)
    probes, values = _PROBES, function(_PROBES)
    if function.has_guard() or not bool(values.isfinite().all()):
        return None
    for known in _candidates(function):
        if _agree(probes, values, known(probes)) and _same(function, known):
            return known
    return None


def is_activation(
    graph_module: fx.GraphModule, region: Region, numbers: Numbers, known: nn.Module
) -> bool:
    """Whether the region is this activation of its source."""
    function = _Function(graph_module, region, numbers)
    return not function.has_guard() and _same(function, known)


def _candidates(function: _Function) -> Iterator[nn.Module]:
    yield from _KNOWN
    left, right, low, high = (float(y) for y in function(_ENDS))
    if abs(right - 1) < TOLERANCE and left < 0:  # the parameter, without its rounding
        yield nn.LeakyReLU(_rounded(-left))
        yield nn.ELU(_rounded(-left / (1 - math.exp(-1))))
    if -_FAR < low < high < _FAR:
        yield nn.Hardtanh(_rounded(low), _rounded(high))


def _rounded(value: float) -> float:
    return float(f"{value:.12g}")


_FAR = 1e30
_ENDS = torch.tensor([-1.0, 1.0, -_FAR, _FAR]).double()
_NEAR = torch.linspace(-12, 12, 97, dtype=torch.float64) + 0.0137
_POWERS = 10.0 ** torch.linspace(-4, 30, 69, dtype=torch.float64)
_PROBES = torch.tensor([-20.0, -4.1, -2.3, -1.1, -0.3, 0.2, 1.7, 4.9, 7.3, 20.0]).double()
_ROUNDS = 4


def _same(function: _Function, known: nn.Module) -> bool:
    """Whether the two agree on both sides of every place where either switches."""
    points = torch.cat((_NEAR, _POWERS, -_POWERS, _around(torch.tensor([-3.0, 0.0, 3.0, 6.0]))))
    for _ in range(_ROUNDS):
        points = _ascending(points)
        if not function.is_regular(points) or not _agree(points, function(points), known(points)):
            return False
        zeros = [_zeros(points, y) for y in function.switches(points)]
        if not any(len(found) for found in zeros):
            return True
        points = torch.cat((points, _around(torch.cat(zeros))))
    return True


def _ascending(points: Tensor) -> Tensor:
    return torch.sort(points).values


def _zeros(x: Tensor, y: Tensor) -> Tensor:
    """Where straight lines between neighbouring points cross 0."""
    finite = y.isfinite()
    crosses = (y[:-1] * y[1:] <= 0) & (y[:-1] != y[1:]) & finite[:-1] & finite[1:]
    a, b, left, right = x[:-1][crosses], x[1:][crosses], y[:-1][crosses], y[1:][crosses]
    return a + (b - a) * (left / (left - right))


def _around(places: Tensor) -> Tensor:
    """Both sides of each place, close and closer, and points between neighbouring places."""
    places = _ascending(places.double())
    beside = [places + step * (1 + places.abs()) for step in (-1e-3, -1e-6, 1e-6, 1e-3)]
    shares = torch.linspace(0, 1, 7, dtype=torch.float64)[1:-1, None]
    between = places[:-1] + shares * (places[1:] - places[:-1])
    return torch.cat((places, *beside, between.reshape(-1)))


def _agree(x: Tensor, got: Tensor, want: Tensor) -> bool:
    """Within the tolerance of what is compared, wherever the written-out form does not overflow."""
    finite = got.isfinite()
    if not bool(finite[x.abs() <= FINITE].all()):
        return False
    error = (got - want).abs()[finite]
    scale = torch.maximum(x.abs(), want.abs()).clamp(min=1.0)[finite]
    return bool((error <= TOLERANCE * scale).all())
