"""Which values a network could as well read zeros of, for each channel of a group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, fx

from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import Groups
from shrinkc.passes.analysis.channels.channel_ids import Ids, Use
from shrinkc.passes.channels.channel_cuts import indices
from shrinkc.passes.criteria.shared.data import Loss, Observed


@dataclass(frozen=True, eq=False)
class MaskedRead:
    """`channels[i]` of a group, read at `positions[i]` along `axis`."""

    group: str
    axis: int
    positions: Ids
    channels: Ids

    def factor(self, mask: Tensor, value: Tensor) -> Tensor:
        """What to multiply `value` by: the masks (n, size) of its images, 1 elsewhere."""
        rows = mask.index_select(1, indices(self.channels).to(mask.device))
        if value.shape[0] % len(rows):
            raise InputError(
                f"channel group '{self.group}': a value of {tuple(value.shape)} does not hold the "
                "images of a batch along its first dimension"
            )
        rows = rows.repeat_interleave(value.shape[0] // len(rows), 0)
        whole = rows.new_ones(value.shape[0], value.shape[self.axis])
        whole = whole.index_copy(1, indices(self.positions).to(mask.device), rows)
        shape = [1] * value.ndim
        shape[0], shape[self.axis] = whole.shape
        return whole.reshape(shape)


def masked_reads(groups: Groups) -> dict[tuple[str, str], list[MaskedRead]]:
    """(reader, source) → the channels it reads that it could as well read zeros of: convolutions,
    linear layers, sums, matrix products; not the norms over channels."""
    zero = {_key(use) for use in groups.uses if use.how == "zero"}
    found: dict[tuple[str, str], list[MaskedRead]] = {}
    for group in groups.groups:
        for read in group.read:
            if (read.node, read.source, read.axis) in zero:
                one = MaskedRead(group.name, read.axis, read.positions, read.channels)
                found.setdefault((read.node, read.source), []).append(one)
    return found


def mask_gradients(
    graph_module: fx.GraphModule,
    sizes: Mapping[str, int],
    reads: Mapping[tuple[str, str], Sequence[MaskedRead]],
    batch: tuple[tuple[Tensor, ...], Tensor],
    loss: Loss,
) -> dict[str, Tensor]:
    """Group → (n, size): each image's ∂L/∂m, where every one of `reads` is times a mask m = 1.

    sizes  of the groups that `reads` are of
    """
    inputs, labels = batch
    floats = (x.dtype for x in inputs if x.is_floating_point())
    dtype = next(floats, torch.float32)  # words are whole numbers
    masks = {
        name: torch.ones(
            len(inputs[0]), size, dtype=dtype, device=inputs[0].device
        ).requires_grad_()
        for name, size in sizes.items()
    }

    def read(node: fx.Node, source: fx.Node, value: Tensor) -> Tensor:
        for one in reads.get((node.name, source.name), ()):
            value = value * one.factor(masks[one.group], value)
        return value

    with torch.enable_grad():
        lost = loss(Observed(graph_module, read=read).run(*inputs), labels)
    found = cast(
        "tuple[Tensor | None, ...]",
        torch.autograd.grad(lost, list(masks.values()), allow_unused=True),
    )
    return {
        name: torch.zeros_like(masks[name]) if gradient is None else gradient
        for name, gradient in zip(masks, found, strict=True)
    }


def _key(use: Use) -> tuple[str, str, int]:
    return use.node, use.source, use.axis
