"""Gradients that oneDNN would get wrong, without it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn


@contextmanager
def safe_gradients(model: nn.Module) -> Generator[None]:
    """Inside, gradients of `model` stay in their own memory: oneDNN is left where they would not.

    On processors with AVX2 alone, oneDNN (torch 2.13) writes beyond the gradients of strided 1×1
    convolutions whose channels do not fill its vectors of 8, channels innermost: 6 to 8 channels at
    stride 2 end in a corrupted heap.
    """
    onednn = cast(Any, torch.backends).mkldnn
    before = onednn.enabled
    try:
        onednn.enabled = before and not _writes_beyond(model)
        yield
    finally:
        onednn.enabled = before


def _writes_beyond(model: nn.Module) -> bool:
    return cast(Any, torch.backends).cpu.get_cpu_capability() == "AVX2" and any(
        isinstance(part, nn.Conv2d)
        and part.kernel_size == (1, 1)
        and part.stride != (1, 1)
        and (part.in_channels % 8 != 0 or part.out_channels % 8 != 0)
        for part in model.modules()
    )
