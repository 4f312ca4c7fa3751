"""Matrix products; with a known matrix they are linear layers."""

from __future__ import annotations

import torch
from torch import nn

from shrinkc.compiler.load.onnx.build import Value
from shrinkc.compiler.load.onnx.context import Context, Rule


def matmul(c: Context) -> Value:
    a, b = c.x(0), c.x(1)
    if not a.known and a.rank > 1 and b.same() and b.rank == 2:
        return _linear(c, a, _transposed(b), None)
    return c.call(torch.matmul, a, b)


def _linear(c: Context, x: Value, weight: Value, bias: Value | None) -> Value:
    rows, columns = weight.shape
    module = nn.Linear(columns, rows, bias is not None, device="meta")
    return c.layer(module, {"weight": weight, "bias": bias}, x)


def _transposed(matrix: Value) -> Value:
    key = None if matrix.key is None else (*matrix.key, "transposed")
    return Value(tuple(t.T for t in matrix.tensors), None, key)


def gemm(c: Context) -> Value:
    """α A B + β C"""
    a, b = c.x(0), c.x(1)
    alpha, beta = c.float("alpha", 1.0), c.float("beta", 1.0)
    offset = c.maybe(2)
    if c.int("transA"):
        a = c.permute(a, (1, 0))
    is_layer = not a.known and b.same() and alpha == 1
    if is_layer:
        weight = b if c.int("transB") else _transposed(b)
        rows = weight.shape[0]
        vector = offset is not None and offset.same() and offset.shape in ((rows,), (1, rows))
        if offset is None or (vector and beta == 1):
            bias = None if offset is None else c.reshape(offset, [(rows,)] * len(offset.tensors))
            return _linear(c, a, weight, bias)
        y = _linear(c, a, weight, None)
    else:
        y = c.call(torch.matmul, a, c.permute(b, (1, 0)) if c.int("transB") else b)
        y = y if alpha == 1 else c.call(torch.mul, y, alpha)
    if offset is None or beta == 0:
        return y
    return c.call(torch.add, y, offset if beta == 1 else c.call(torch.mul, offset, beta))


def einsum(c: Context) -> Value:
    return c.call(torch.einsum, c.text("equation"), *(c.x(i) for i in range(len(c.inputs))))


RULES: dict[str, Rule] = {"MatMul": matmul, "Gemm": gemm, "Einsum": einsum}
