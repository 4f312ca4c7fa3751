"""Checks on tensors that came out of a file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from shrinkc.errors import LoadError

_SLACK = 64 << 20  # bytes that views onto few numbers (expanded buffers) may add


def check_sizes(path: Path, tensors: Iterable[Tensor], unpacked: int) -> None:
    """Raise LoadError where tensors claim more numbers than the `unpacked` bytes of the file hold.

    To be called before anything reads them: memory that is only claimed costs nothing yet.
    """
    storages: dict[int, int] = {}
    claimed = 0
    for tensor in tensors:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        claimed += tensor.numel() * tensor.element_size()
    if sum(storages.values()) > unpacked or claimed > unpacked + _SLACK:
        largest = max(claimed, sum(storages.values()))
        raise LoadError(
            f"{path}: damaged: its tensors claim {largest:,} bytes, the file holds {unpacked:,}; "
            "copy or save it again"
        )


def check_finite(path: Path, model: nn.Module) -> None:
    """Raise LoadError naming the first weight or running statistic that is NaN or infinite.

    Other buffers (attention masks) may hold −∞, but not NaN.
    """
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if not (tensor.is_floating_point() or tensor.is_complex()):
                continue
            strict = isinstance(tensor, nn.Parameter) or ".running_" in f".{name}"
            bad = ~torch.isfinite(tensor) if strict else torch.isnan(tensor)
            count = int(bad.sum())
            if count:
                raise LoadError(
                    f"{path}: {count:,} of {tensor.numel():,} values of '{name}' are NaN or "
                    "infinite; the training diverged, or the file is damaged: take an earlier "
                    "checkpoint"
                )
