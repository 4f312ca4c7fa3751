"""Reductions over some dimensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from shrinkc.compiler.load.onnx.build import Value
from shrinkc.compiler.load.onnx.context import Context, Rule

Reduction = Callable[[Context, Value, tuple[int, ...], bool], Value]


def _over(reduction: Reduction) -> Rule:
    """Dimensions are an attribute before opset 18 (13 for sums), an input since."""

    def rule(c: Context) -> Value:
        x = c.x()
        axes = c.fixed(1) if c.has(1) else c.ints("axes")
        if not axes:
            if c.int("noop_with_empty_axes"):
                return x
            axes = tuple(range(x.rank))
        dims = tuple(sorted({c.normal(a, x.rank) for a in axes}))
        return reduction(c, x, dims, bool(c.int("keepdims", 1)))

    return rule


def _plain(function: Callable[..., Any]) -> Reduction:
    return lambda c, x, dims, keep: c.call(function, x, dims, keep)


def _prod(c: Context, x: Value, dims: tuple[int, ...], keep: bool) -> Value:
    for dim in sorted(dims, reverse=True):
        x = c.call(torch.prod, x, dim, keep)
    return x


def _l1(c: Context, x: Value, dims: tuple[int, ...], keep: bool) -> Value:
    return c.call(torch.sum, c.call(torch.abs, x), dims, keep)


def _squares(c: Context, x: Value, dims: tuple[int, ...], keep: bool) -> Value:
    return c.call(torch.sum, c.call(torch.mul, x, x), dims, keep)


def _l2(c: Context, x: Value, dims: tuple[int, ...], keep: bool) -> Value:
    return c.call(torch.sqrt, _squares(c, x, dims, keep))


def _log(c: Context, x: Value, dims: tuple[int, ...], keep: bool) -> Value:
    return c.call(torch.log, c.call(torch.sum, x, dims, keep))


RULES: dict[str, Rule] = {
    "ReduceMean": _over(_plain(torch.mean)),
    "ReduceSum": _over(_plain(torch.sum)),
    "ReduceMax": _over(_plain(torch.amax)),
    "ReduceMin": _over(_plain(torch.amin)),
    "ReduceLogSumExp": _over(_plain(torch.logsumexp)),
    "ReduceProd": _over(_prod),
    "ReduceL1": _over(_l1),
    "ReduceL2": _over(_l2),
    "ReduceSumSquare": _over(_squares),
    "ReduceLogSum": _over(_log),
}
