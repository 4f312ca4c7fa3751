"""Conditions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx

from shrinkc.compiler.capture.builder import Constant
from shrinkc.compiler.capture.context import Context
from shrinkc.passes import ir


def where(c: Context, condition: Any, a: Any, b: Any) -> fx.Node:
    """With a known condition: cond · a + (1 − cond) · b."""
    mask = c.parameter(condition, "condition")
    if mask is None:
        raise c.unsupported("a condition is needed")
    keep = c.tensor(Constant(mask.tensor.float()))
    drop = c.tensor(Constant(1.0 - mask.tensor.float()))
    kept = c.b.call(ir.mul, keep, c.operand(_finite(a)))
    dropped = c.b.call(ir.mul, drop, c.operand(_finite(b)))
    return c.b.call(ir.add, kept, dropped)


def masked_fill(c: Context, x: Any, mask: Any, value: Any) -> fx.Node:
    return where(c, mask, value, x)


def _finite(value: Any) -> Any:
    """0 · ∞ is not a number, so masks use a large one."""
    if isinstance(value, Constant) and value.tensor.ndim == 0:
        value = float(value.tensor)
    if isinstance(value, (int, float)):
        return min(max(float(value), -1e30), 1e30)
    return value


RULES: dict[str, Callable[..., Any]] = {
    "where": where,
    "masked_fill": masked_fill,
}
