"""Operators as latency keys: what is folded into the batch is computed as often."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.cost.keys import keyed
from shrinkc.compiler.export.lower import lower
from shrinkc.latency_tables.key import OpKey


class Windows(nn.Module):
    """A linear layer on four patches of sixteen tokens, folded into the batch as Swin does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        batch = y.shape[0]
        tiles = y.reshape(batch, 8, 4, 2, 4, 2).permute(0, 3, 5, 2, 4, 1)
        return self.linear(tiles.reshape(batch * 4, 16, 8))


def keys(batch: int) -> dict[str, OpKey]:
    program = lower(capture(Windows(), (torch.zeros(batch, 3, 8, 8),)))
    return {key.op: key for _, key in keyed(program, "fp32")}


@pytest.mark.parametrize("batch", [1, 2])
def test_windows_are_rows_and_a_batch_is_none(batch: int) -> None:
    found = keys(batch)
    assert found["conv2d"].macs == 8 * 8 * 8 * 27
    assert found["linear"].macs == 4 * 16 * 8 * 8
    assert found["linear"].out_size == (64, 1)
    assert found["transpose"].output_elements == 8 * 64
