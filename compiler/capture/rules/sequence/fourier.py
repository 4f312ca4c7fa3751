"""Discrete Fourier transforms of real numbers and back, as matrix products, and arithmetic with the
complex numbers between."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from shrinkc.compiler.capture.builder import Constant
from shrinkc.compiler.capture.context import Context
from shrinkc.compiler.capture.rules.sequence.spectrum import Complex, kernels
from shrinkc.passes import ir

# Of a transform forth, and of one back beside the usual 1/n.
_FACTORS: dict[str | None, Callable[[int], tuple[float, float]]] = {
    None: lambda n: (1.0, 1.0),
    "backward": lambda n: (1.0, 1.0),
    "ortho": lambda n: (1 / math.sqrt(n), math.sqrt(n)),
    "forward": lambda n: (1 / n, float(n)),
}


def rfft(
    c: Context, x: Any, n: int | None = None, dim: int = -1, norm: str | None = None
) -> Complex:
    """X_k = Σ_t x_t exp(−2πikt/n) for k up to n/2."""
    x = c.tensor(x)
    dim = dim % c.b.rank(x)
    size = c.b.fixed(c.b.shapes(x)[0][dim], "the length of a Fourier transform")
    if n is not None and n != size:
        raise c.unsupported("a Fourier transform of another length than its input's; pad or cut it")
    bins = size // 2 + 1
    both = kernels(torch.ones(size), bins) * _FACTORS[norm](size)[0]
    return Complex(_along(c, x, dim, both[:bins]), _along(c, x, dim, both[bins:]))


def irfft(
    c: Context, x: Complex, n: int | None = None, dim: int = -1, norm: str | None = None
) -> fx.Node:
    """x_t = 1/n Σ_k w_k (Re X_k cos(2πkt/n) − Im X_k sin(2πkt/n)): every frequency counts for its
    mirror image, too, w_k = 2, but 0 and, of an even n, n/2."""
    dim = dim % c.b.rank(x.real)
    bins = c.b.shapes(x.real)[0][dim]
    size = 2 * (bins - 1) if n is None else n
    if size // 2 + 1 != bins:
        raise c.unsupported(f"{size} numbers of {bins} frequencies, which have {2 * (bins - 1)}")
    weights = torch.full((bins,), 2.0, dtype=torch.float64)
    weights[0] = 1.0
    if size % 2 == 0:
        weights[-1] = 1.0
    scaled = kernels(torch.ones(size), bins) * (_FACTORS[norm](size)[1] / size)
    cosines, sines = scaled[:bins] * weights[:, None], scaled[bins:] * weights[:, None]
    real, imag = _along(c, x.real, dim, cosines.T), _along(c, x.imag, dim, sines.T)
    return c.b.call(ir.add, real, imag)


def _along(c: Context, x: fx.Node, dim: int, matrix: Tensor) -> fx.Node:
    """`matrix` (out, in) times x along a dimension."""
    order = list(range(c.b.rank(x)))
    order[dim], order[-1] = order[-1], order[dim]
    fixed = Constant(matrix.T.contiguous().to(torch.get_default_dtype()))
    last = c.b.permute(x, order)
    return c.b.permute(c.b.call(torch.matmul, last, c.b.constant(fixed, c.hint)), order)


def conj(c: Context, x: Complex) -> Complex:
    return Complex(x.real, c.b.call(ir.neg, x.imag))


def same(c: Context, x: Complex) -> Complex:
    return x


def neg(c: Context, x: Complex) -> Complex:
    return Complex(c.b.call(ir.neg, x.real), c.b.call(ir.neg, x.imag))


def mul(c: Context, a: Any, b: Any) -> Complex:
    """(a + bi)(c + di) = ac − bd + (ad + bc)i; a real factor scales both parts."""
    if not isinstance(a, Complex):
        a, b = b, a
    if not isinstance(b, Complex):
        return Complex(*(_binary(c, ir.mul, part, b) for part in (a.real, a.imag)))
    real = _binary(c, ir.mul, a.real, b.real), _binary(c, ir.mul, a.imag, b.imag)
    imag = _binary(c, ir.mul, a.real, b.imag), _binary(c, ir.mul, a.imag, b.real)
    return Complex(c.b.call(ir.sub, *real), c.b.call(ir.add, *imag))


def div(c: Context, a: Complex, b: Any) -> Complex:
    if isinstance(b, Complex):
        raise c.unsupported("a division by complex numbers; multiply with conj and divide by abs²")
    return Complex(*(_binary(c, ir.div, part, b) for part in (a.real, a.imag)))


def _sum(operator: Any) -> Callable[..., Complex]:
    def rule(c: Context, a: Any, b: Any) -> Complex:
        if not isinstance(a, Complex) or not isinstance(b, Complex):
            raise c.unsupported("a sum of complex and real numbers")
        pairs = (a.real, b.real), (a.imag, b.imag)
        return Complex(*(_binary(c, operator, *pair) for pair in pairs))

    return rule


def _binary(c: Context, operator: Any, a: Any, b: Any) -> fx.Node:
    given = (x if isinstance(x, int | float) else c.tensor(x) for x in (a, b))
    return c.b.call(operator, *given)


RULES: dict[str, Callable[..., Any]] = {"fft_rfft": rfft}
COMPLEX_RULES: dict[str, Callable[..., Any]] = {
    "fft_irfft": irfft,
    "conj": conj,
    "resolve_conj": same,
    "neg": neg,
    "mul": mul,
    "multiply": mul,
    "div": div,
    "truediv": div,
    "add": _sum(ir.add),
    "sub": _sum(ir.sub),
}
