"""Functions that runtimes approximate, as far off as those may be.

PyTorch's sigmoid is right in its last bits however small the result is. ONNX Runtime's is a
rational function around a half, off by up to 1.7e-7 everywhere: of 2e-8 nothing is left. A score
that is small on all inputs tells no more than that.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_aten: Any = torch.ops.aten
OFF = 2.0**-21  # twice what ONNX Runtime's tanh is off, between −40 and 40
_OF_ONE = (_aten.sigmoid.default, _aten.sigmoid_.default, _aten.tanh.default, _aten.tanh_.default)
_TIMES_X = (_aten.silu.default, _aten.silu_.default, _aten.mish.default, _aten.mish_.default)


class Approximated(TorchDispatchMode):
    """While it is entered, such functions are off by OFF, up or down. `met`: there was one."""

    met: bool = False

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self._generator = generator

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func not in _OF_ONE + _TIMES_X:
            return func(*args, **(kwargs or {}))
        self.met = True
        (x,) = args
        off = OFF * (2 * torch.randint(2, x.shape, generator=self._generator) - 1).to(x.dtype)
        off = off * x if func in _TIMES_X else off
        return func(x).add_(off)
