"""Which values a network could as well read zeros of, for each channel of a group."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import Groups
from shrinkc.passes.analysis.channels.channel_ids import Ids, Use
from shrinkc.passes.channels.channel_cuts import indices


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


def _key(use: Use) -> tuple[str, str, int]:
    return use.node, use.source, use.axis
