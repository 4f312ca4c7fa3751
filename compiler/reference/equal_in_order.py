"""Top-k and sorting with equal numbers in the order in which they come.

PyTorch leaves their order open; ONNX and TFLite both say that the first comes first. Scores that a
sigmoid has saturated are equal by the dozen.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_aten: Any = torch.ops.aten


class EqualInOrder(TorchDispatchMode):
    """While it is entered, `topk` and `sort` are stable. `met`: there was one."""

    met: bool = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        self.met |= func in (_aten.topk.default, _aten.sort.default)
        if func is _aten.topk.default:
            return _topk(*args, **kwargs)
        if func is _aten.sort.default:
            return _sorted(*args, **kwargs)
        return func(*args, **kwargs)


def _topk(
    x: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[Tensor, Tensor]:
    values, indices = torch.sort(x, dim=dim, descending=largest, stable=True)
    return values.narrow(dim, 0, k).contiguous(), indices.narrow(dim, 0, k).contiguous()


def _sorted(x: Tensor, dim: int = -1, descending: bool = False) -> tuple[Tensor, Tensor]:
    values, indices = torch.sort(x, dim=dim, descending=descending, stable=True)
    return values, indices
