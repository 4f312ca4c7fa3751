"""A changed network beside the original, in PyTorch, on pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from .data import split
from .options import Options


@dataclass(frozen=True)
class Judged:
    """Shares of the pictures. Top-1 is None without labels."""

    pictures: int
    agreement: float
    original_top1: float | None
    changed_top1: float | None

    def __str__(self) -> str:
        top1 = ""
        if self.original_top1 is not None and self.changed_top1 is not None:
            top1 = f"; top-1 {self.original_top1:.2%} before, {self.changed_top1:.2%} after"
        return (
            f"on {self.pictures} other pictures it agrees with the original on "
            f"{self.agreement:.1%}{top1} (PyTorch, fp32)"
        )


@torch.no_grad()
def judge(original: fx.GraphModule, changed: fx.GraphModule, options: Options) -> Judged:
    """On `options.images`."""
    pictures = same = right = right_now = 0
    labelled = True
    for (x,), labels in split(original, replace(options, precision="fp32")).batches():
        before, after = _classes(original, x), _classes(changed, x)
        pictures += len(x)
        same += int((before == after).sum())
        labelled = labelled and labels is not None
        if labels is not None:
            right += int((before == labels).sum())
            right_now += int((after == labels).sum())
    top1 = (right / pictures, right_now / pictures) if labelled else (None, None)
    return Judged(pictures, same / pictures, *top1)


def _classes(graph: fx.GraphModule, x: Tensor) -> Tensor:
    outputs: Any = graph(x)
    return outputs[0].flatten(1).argmax(1)
