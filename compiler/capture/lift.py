"""Functional layers become modules that hold the very same tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, fx, nn

from shrinkc.compiler.capture.builder import Constant
from shrinkc.compiler.capture.context import Context


def pair(value: Any) -> tuple[int, int]:
    """An int or a sequence of one or two as (height, width)."""
    if isinstance(value, int):
        return value, value
    items = tuple(int(v) for v in value)
    return (items[0], items[0]) if len(items) == 1 else (items[0], items[1])


def _home(weight: Constant, hint: str) -> str:
    """Where the model keeps the layer that a weight belongs to."""
    path = (weight.path or "").rpartition(".")[0]
    return path or f"{hint}_lifted"


def lift(
    c: Context,
    x: fx.Node,
    make: Callable[[], nn.Module],
    tensors: dict[str, Constant | None],
    config: tuple[Any, ...],
    *more: fx.Node,
) -> fx.Node:
    """A module holding the given tensors, the very ones, so that sharing and training go on;
    without any it shares nothing."""

    def build() -> nn.Module:
        module = make()
        for name, constant in tensors.items():
            if constant is not None:
                _assign(module, name, constant.tensor)
        return module

    if not (any(tensors.values()) or more):
        return c.b.new_module(c.hint, build(), x)
    key = (config, *(None if t is None else id(t.tensor) for t in tensors.values()))
    first = next((t for t in tensors.values() if t is not None), None)
    hint = c.hint if first is None else _home(first, c.hint)
    return c.b.lifted(key, hint, build, x, *more)


def _assign(module: nn.Module, name: str, tensor: Tensor) -> None:
    if name in module._parameters:  # pyright: ignore[reportPrivateUsage]
        parameter = tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor)
        module.register_parameter(name, parameter)
    else:
        module.register_buffer(name, tensor)


def raise_to_map(c: Context, x: fx.Node) -> fx.Node:
    """(N, C, L) → (N, C, 1, L)"""
    return c.b.reshape(x, [(*s[:-1], 1, s[-1]) for s in c.b.shapes(x)])
