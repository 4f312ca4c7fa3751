"""Weights that a criterion changed, put into a graph."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from shrinkc.passes.base import Skip
from shrinkc.passes.channels.channel_cuts import tensors


def set_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> tuple[Skip, ...]:
    """Overwrite parameters and buffers by path, in place; why not the rest."""
    known = dict(tensors(module))
    skipped: list[Skip] = []
    for path, values in weights.items():
        if path not in known:
            skipped.append(Skip(path, "there is no such parameter"))
        elif known[path].shape != values.shape:
            sizes = f"{tuple(values.shape)}, not {tuple(known[path].shape)}"
            skipped.append(Skip(path, f"its new weights are {sizes}"))
        else:
            with torch.no_grad():
                known[path].copy_(values)
    return tuple(skipped)
