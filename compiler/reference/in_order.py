"""How far off sums are that are added up one number after the other.

PyTorch adds up parts of a map and then those; other runtimes add to one number, in order. Of a
thousand equal numbers every addition rounds the same way, and a hundred thousandth of the mean is
lost, which no random order would lose. A norm of such a map divides by next to nothing what is left
of it without the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

_aten: Any = torch.ops.aten
_MEANS = (_aten.mean.default, _aten.mean.dim)
REDUCTIONS = (*_MEANS, _aten.sum.default, _aten.sum.dim_IntList)


def off_in_order(func: Any, args: tuple[Any, ...]) -> Tensor | None:
    """What to add to an operator's first result for sums in order; None for other operators, and in
    other types than float32."""
    x: Any = args[0] if args else None
    if not isinstance(x, Tensor) or x.dtype != torch.float32 or not x.numel():
        return None
    if func in REDUCTIONS:
        return _of_reduction(x, dims_of(args), mean=func in _MEANS)
    match func:
        case _aten.native_layer_norm.default:
            rows, eps = x.reshape(-1, torch.Size(args[1]).numel()), args[4]
            return _of_norm(rows, eps).reshape(x.shape) * _scale(args[2])
        case _aten.native_group_norm.default:
            rows, eps = x.reshape(x.shape[0] * args[6], -1), args[7]
            return _of_norm(rows, eps).reshape(x.shape) * _scale(args[1], x.ndim - 2)
        case _aten.native_batch_norm.default if args[5]:  # by its input's own statistics
            rows = x.transpose(0, 1)
            off = _of_norm(rows.reshape(len(rows), -1), args[7]).reshape(rows.shape)
            return off.transpose(0, 1) * _scale(args[1], x.ndim - 2)
        case _:
            return None


def dims_of(args: tuple[Any, ...]) -> list[int]:
    """Over which a reduction goes, counted from the front."""
    x, dims = args[0], (args[1] if len(args) > 1 else None)
    dims = [dims] if isinstance(dims, int) else dims or range(x.ndim)
    return [one % x.ndim for one in dims]


def _of_reduction(x: Tensor, dims: Sequence[int], mean: bool) -> Tensor:
    """Dimensions kept."""
    kept = [i for i in range(x.ndim) if i not in dims]
    rows = x.permute(*kept, *dims).reshape(*(x.shape[i] for i in kept), -1)
    off = (_summed(rows) - rows.double().sum(-1)) / (rows.shape[-1] if mean else 1)
    return off.to(x.dtype).reshape([1 if i in dims else n for i, n in enumerate(x.shape)])


def _of_norm(rows: Tensor, eps: float) -> Tensor:
    """Of each row's numbers without its mean, over its standard deviation."""
    count = rows.shape[-1]
    centred = rows - (_summed(rows) / count)[:, None]
    found = centred / (_summed(centred.square()) / count + eps).sqrt()[:, None]
    wide = rows.double()
    wide = wide - wide.mean(-1, keepdim=True)
    return (found - wide / (wide.square().mean(-1, keepdim=True) + eps).sqrt()).to(rows.dtype)


def _summed(rows: Tensor) -> Tensor:
    return torch.as_tensor(np.add.accumulate(rows.numpy(), -1)[..., -1])


def _scale(weight: Tensor | None, behind: int = 0) -> Any:
    """A norm's weight with as many dimensions behind it, or 1."""
    return 1.0 if weight is None else weight.reshape(*weight.shape, *(1,) * behind)
