"""Conditions, truth and casts: the graph has truth as 0 and 1 and integers as whole numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from shrinkc.compiler.capture.builder import Constant
from shrinkc.compiler.capture.context import Context
from shrinkc.compiler.capture.rules.reduce import dims_of
from shrinkc.passes import ir


def cast(c: Context, x: Any, *args: Any, **kwargs: Any) -> Any:
    """Between float types nothing happens; integers are cut off behind the point."""
    source, target = c.dtype_read, c.out_dtype
    if target == source or target.is_floating_point:
        return x
    if target == torch.bool:
        return c.b.call(ir.not_equal, c.operand(x), 0)
    if source == torch.bool:
        return x
    if target not in (torch.int64, torch.int32):
        name = str(target).removeprefix("torch.")
        raise c.unsupported(f"a cast to {name}, which wraps large numbers around; cast to int32")
    is_whole = source is not None and not source.is_floating_point
    return x if is_whole else c.b.call(torch.trunc, c.tensor(x))


def _comparison(function: Callable[..., Any], swapped: bool = False) -> Callable[..., Any]:
    def rule(c: Context, a: Any, b: Any) -> fx.Node:
        a, b = c.operand(a), c.operand(b)
        return c.b.call(function, b, a) if swapped else c.b.call(function, a, b)

    return rule


def isnan(c: Context, x: Any) -> fx.Node:
    x = c.tensor(x)
    return c.b.call(ir.not_equal, x, x)


def truth_of(c: Context, value: Any) -> fx.Node:
    """0 and 1 of anything."""
    x = c.tensor(value)
    known = x.target in ir.COMPARISONS.values()
    return x if known or c.dtype_read == torch.bool else c.b.call(ir.not_equal, x, 0)


def _joined(function: Callable[..., Any]) -> Callable[..., Any]:
    """and, or, xor of truths."""

    def rule(c: Context, a: Any, b: Any) -> fx.Node:
        if c.out_dtype != torch.bool:
            raise c.unsupported("the bits of integers")
        return c.b.call(function, truth_of(c, a), truth_of(c, b))

    return rule


def not_(c: Context, x: Any) -> fx.Node:
    if c.out_dtype != torch.bool:
        raise c.unsupported("the bits of integers")
    return c.b.call(ir.sub, 1, truth_of(c, x))


def _any(function: Callable[..., Any]) -> Callable[..., Any]:
    def rule(c: Context, x: Any, dim: Any = None, keepdim: bool = False) -> fx.Node:
        x = truth_of(c, x)
        return c.b.call(function, x, dims_of(c, dim, c.b.rank(x)), keepdim)

    return rule


def where(c: Context, condition: Any, a: Any = None, b: Any = None) -> fx.Node:
    """With a known condition: cond · a + (1 − cond) · b."""
    if a is None or b is None:
        raise c.unsupported("its shape follows the numbers; give what stands where")
    if not isinstance(condition, (Constant, torch.Tensor)):
        return c.b.call(ir.where, c.operand(condition), c.operand(a), c.operand(b))
    mask = condition.tensor if isinstance(condition, Constant) else condition
    keep = c.tensor(Constant(mask.float()))
    drop = c.tensor(Constant(1.0 - mask.float()))
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


_CASTS = (
    "to type type_as float double half bfloat16 int long short char byte bool _to_copy "
    "convert_element_type"
)
RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(_CASTS.split(), cast),
    **dict.fromkeys(("gt", "greater"), _comparison(ir.greater)),
    **dict.fromkeys(("ge", "greater_equal"), _comparison(ir.greater_equal)),
    **dict.fromkeys(("lt", "less"), _comparison(ir.greater, swapped=True)),
    **dict.fromkeys(("le", "less_equal"), _comparison(ir.greater_equal, swapped=True)),
    "eq": _comparison(ir.equal),
    **dict.fromkeys(("ne", "not_equal"), _comparison(ir.not_equal)),
    "isnan": isnan,
    **dict.fromkeys(("logical_and", "bitwise_and", "__and__"), _joined(torch.minimum)),
    **dict.fromkeys(("logical_or", "bitwise_or", "__or__"), _joined(torch.maximum)),
    **dict.fromkeys(("logical_xor", "bitwise_xor", "xor", "__xor__"), _joined(ir.not_equal)),
    **dict.fromkeys(("logical_not", "bitwise_not", "invert"), not_),
    "any": _any(ir.amax),
    "all": _any(ir.amin),
    "where": where,
    "masked_fill": masked_fill,
}
