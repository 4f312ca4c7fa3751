"""Milliseconds by the target's table: what a network costs and what is asked for."""

from __future__ import annotations

from dataclasses import asdict

from torch import fx

from ...latency_tables.key import OpKey
from ...passes.op_spec import OpSpec, Price
from ..costs import CostTable, predict
from ..errors import InputError
from ..export.lower import lower


def predicted_ms(graph_module: fx.GraphModule, table: CostTable, precision: str) -> float:
    """Of the network as it is deployed."""
    return predict(lower(graph_module), table, precision).total_ms


def price_of(table: CostTable, precision: str) -> Price:
    def price(spec: OpSpec) -> float:
        return table.estimate(OpKey(**asdict(spec), precision=precision)).ms

    return price


def budget_of(before_ms: float, speedup: float | None, budget_ms: float | None) -> float:
    """In milliseconds. Raises InputError unless exactly one of the two is given, and sensible."""
    if (speedup is None) == (budget_ms is None):
        raise InputError("give either a speedup or a budget in milliseconds")
    if speedup is not None and not speedup > 1:
        raise InputError(f"a speedup of {speedup:g}; give more than 1")
    if budget_ms is not None and budget_ms >= before_ms:
        raise InputError(f"{before_ms:.4g} ms fit into {budget_ms:g} ms already; give less")
    return before_ms / speedup if speedup is not None else budget_ms or 0.0
