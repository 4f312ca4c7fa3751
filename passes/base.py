"""The pass contract: `GraphModule → PassResult`.

A pass is a frozen dataclass; its fields are its options. It never touches its input: it works on
`copy_graph(graph_module)`. Whatever it declines to do is a `Skip` with a reason, never an
exception. It does not verify itself: the pipeline (`shrinkc.compiler.pipeline`) runs an exact pass
on a float64 copy and compares, and checks that nothing changed that was not reported.
"""

from __future__ import annotations

import copy
import gc
from collections import OrderedDict
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import fx, nn

from shrinkc.passes.ir import MODULES


@dataclass(frozen=True)
class Change:
    """One rewrite.

    `node` (new graph) computes what `replaces[-1]` (old graph) computed; the other names in
    `replaces` are old nodes whose work it took over. Those names are gone, or report changed
    parameters. `node` may keep the name of a replaced node. `added` names helper nodes that
    the rewrite put in front of `node`, or nodes there that compute something else now.
    """

    node: str
    replaces: tuple[str, ...]
    detail: str
    added: tuple[str, ...] = ()


@dataclass(frozen=True)
class Skip:
    """A rewrite that was considered at `node` and declined, and why."""

    node: str
    reason: str


@dataclass(frozen=True)
class PassResult:
    """The rewritten copy, what was done and what was declined."""

    graph_module: fx.GraphModule
    changes: tuple[Change, ...] = ()
    skipped: tuple[Skip, ...] = ()

    @property
    def modified(self) -> bool:
        return bool(self.changes)


class Pass(Protocol):
    """What the pipeline runs.

    name   kebab-case, as reports and `Change`s show it
    exact  True: the network computes the same function, to float64 rounding
    """

    name: ClassVar[str]
    exact: ClassVar[bool]

    def __call__(self, graph_module: fx.GraphModule) -> PassResult: ...


def copy_graph(graph_module: fx.GraphModule) -> fx.GraphModule:
    """A deep copy: own parameters, own graph, `meta` kept."""
    with collector_waits():
        memo: dict[int, Any] = {}
        for module in reversed(list(graph_module.modules())):  # parts before their owners
            known = type(module) in MODULES or type(module) is nn.Module
            if known and id(module) not in memo:
                memo[id(module)] = _copy_module(module, memo)
        return copy.deepcopy(graph_module, memo)


@contextmanager
def collector_waits() -> Generator[None]:
    """Where a network is made: so many new objects make the collector look through all there are,
    twice as long as ResNet-50 takes to copy."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _copy_module(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """What `copy.deepcopy` makes of it, three times as fast: that looks into each of a module's
    dozen dictionaries of hooks, which are empty."""
    twin = object.__new__(type(module))
    for name, value in vars(module).items():
        twin.__dict__[name] = _copy_value(value, memo)
    return twin


_PLAIN, _CONTAINERS = (bool, int, float, str), (dict, OrderedDict, set)


def _copy_value(value: Any, memo: dict[int, Any]) -> Any:
    if type(value) in _PLAIN:
        return value
    if not value and type(value) in _CONTAINERS:
        return type(value)()
    return copy.deepcopy(value, memo)
