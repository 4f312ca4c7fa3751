"""A network whose operators are as far off as those of another runtime may be.

A sum of n products that is added up in another order, or whose weights were folded, is off about as
if each of its terms were off by √n quarters of float32's last place. How much of that reaches the
outputs is the network's own doing: Monte Carlo arithmetic (Parker, 1997) tells it, for inputs that
hardly reach the outputs, too, and without relying on the one error that PyTorch happens to make.
Means and sums of a map, and norms by them, are added up in order as well (`in_order`).

PyTorch's sigmoid is right in its last bits however small the result is. ONNX Runtime's is a
rational function around a half, off by up to 1.7e-7 everywhere: of 2e-8 nothing is left. A score
that is small on all inputs tells no more than that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from shrinkc.compiler.reference.in_order import REDUCTIONS, dims_of, off_in_order

_aten: Any = torch.ops.aten
QUARTER = 2.0**-25  # of the last place of a number in float32, as a share of it
OFF = 2.0**-22  # about what ONNX Runtime's tanh is off, between −40 and 40
_OF_ONE = (_aten.sigmoid.default, _aten.sigmoid_.default, _aten.tanh.default, _aten.tanh_.default)
_TIMES_X = (_aten.silu.default, _aten.silu_.default, _aten.mish.default, _aten.mish_.default)


class Rounded(TorchDispatchMode):
    """While it is entered, operators are off like that, up or down. `met`: there was such a one."""

    met: bool = False
    _entered: ClassVar[list[Rounded]] = []

    def __init__(self, generator: torch.Generator) -> None:
        cast(Any, super()).__init__()
        self._generator, self._paused = generator, False

    @classmethod
    def entered(cls) -> Rounded | None:
        """The one that is."""
        return cls._entered[-1] if cls._entered else None

    @contextmanager
    def paused(self) -> Generator[None]:
        """Everything as it is."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def __enter__(self) -> Any:
        self._entered.append(self)
        return super().__enter__()

    def __exit__(self, *failure: Any) -> None:
        self._entered.pop()
        cast(Any, super()).__exit__(*failure)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        count = None if self._paused else _TERMS.get(func)
        if count is not None:
            self.met = True
            step = math.sqrt(max(1, count(args))) * QUARTER
            args = tuple(self._moved(x, step) for x in args)
        result: Any = func(*args, **kwargs)
        if count is not None:
            result = _plus(result, off_in_order(func, args))
        if not self._paused and func in _OF_ONE + _TIMES_X:
            self.met = True
            up = 2 * torch.randint(2, result.shape, generator=self._generator) - 1
            off = OFF * up.to(result.dtype)
            result = result.add_(off * args[0] if func in _TIMES_X else off)
        return result

    def _moved(self, x: Any, step: float) -> Any:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return x
        return x * (1 + step * torch.randn(x.shape, generator=self._generator, dtype=x.dtype))


def _plus(result: Any, off: Tensor | None) -> Any:
    """An operator's result, or the first of them, that much off."""
    if off is None:
        return result
    if isinstance(result, Tensor):
        return result + off.reshape(result.shape)
    first, *others = result
    return (first + off, *others)


# --- how many terms a sum has, by the operator's arguments ----------------------------------------


def _of_convolution(args: tuple[Any, ...]) -> int:
    weight, transposed = args[1], args[6]
    return (weight[:, 0] if transposed else weight[0]).numel()


def _of_reduction(args: tuple[Any, ...]) -> int:
    return math.prod(args[0].shape[one] for one in dims_of(args))


_TERMS: dict[Any, Callable[[tuple[Any, ...]], int]] = {
    _aten.convolution.default: _of_convolution,
    **dict.fromkeys((_aten.mm.default, _aten.bmm.default), lambda args: args[0].shape[-1]),
    **dict.fromkeys((_aten.addmm.default, _aten.baddbmm.default), lambda args: args[1].shape[-1]),
    **dict.fromkeys(REDUCTIONS, _of_reduction),
    _aten._adaptive_avg_pool2d.default: lambda args: args[0].shape[2:].numel(),
    _aten.avg_pool2d.default: lambda args: math.prod(args[1]),
    # of an instance norm, by its own input's statistics; otherwise a number times another
    _aten.native_batch_norm.default: lambda args: (
        args[0].numel() // args[0].shape[1] if args[5] else 1
    ),
    **dict.fromkeys(
        (_aten.var.correction, _aten.std.correction, _aten.var_mean.correction), _of_reduction
    ),
    _aten.linalg_vector_norm.default: lambda args: _of_reduction((args[0], *args[2:])),
    _aten.logsumexp.default: _of_reduction,
    _aten._softmax.default: lambda args: args[0].shape[args[1]],
    _aten.cumsum.default: lambda args: args[0].shape[args[1]],
    _aten.native_layer_norm.default: lambda args: math.prod(args[1]),
    _aten.native_group_norm.default: lambda args: args[4] * args[5] // args[6],
    _aten._scaled_dot_product_flash_attention_for_cpu.default: lambda args: args[1].shape[2],
}
