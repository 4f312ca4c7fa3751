"""What groups bear, on a network where one group matters and another does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from by_macs import ByMacs
from torch import Tensor, fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.width import measured_damage
from shrinkc.compiler.width.allocation import Allocation, Space, space_of
from shrinkc.compiler.width.measured_damage import MeasuredDamage
from shrinkc.compiler.width.prune import Pruning, Stages, prune
from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import channel_groups
from shrinkc.passes.criteria.magnitude import FilterNorm
from shrinkc.passes.criteria.shared.data import Batch


class TwoBranches(nn.Module):
    """The second branch hardly reaches the output, though its weights are as large."""

    def __init__(self) -> None:
        super().__init__()
        self.matters, self.idle = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(3, 16, 3, padding=1)
        self.one, self.two = nn.Conv2d(16, 4, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(torch.relu(self.matters(x))) + 1e-3 * self.two(torch.relu(self.idle(x)))
        return y.mean((2, 3))


def network() -> fx.GraphModule:
    torch.manual_seed(0)
    return capture(TwoBranches().eval(), (torch.randn(1, 3, 8, 8),))


def batches(count: int = 5) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    return [((torch.randn(6, 3, 8, 8, generator=generator),), None) for _ in range(count)]


def space(graph: fx.GraphModule) -> Space:
    groups = channel_groups(graph)
    scores = FilterNorm(1).scores(graph, groups)
    return space_of(groups, scores, Allocation(normalise="measured", candidates=16), 1)


def test_rises_as_groups_get_narrower_and_tells_them_apart() -> None:
    graph = network()
    found = MeasuredDamage(batches(), compensates=False).losses(graph, one := space(graph))
    assert found.keys() == one.candidates.keys() == {"matters", "idle"}
    for name, losses in found.items():
        assert len(losses) == len(one.candidates[name])
        assert losses[-1] == 0
        assert (np.diff(losses) <= 0).all()
    assert found["matters"][0] > 100 * found["idle"][0] > 0


def test_compensated_groups_lose_less() -> None:
    graph = network()
    one = space(graph)
    plain, fitted = (MeasuredDamage(batches(), c).losses(graph, one) for c in (False, True))
    assert fitted["matters"].sum() < plain["matters"].sum()


def test_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = network()
    one, damage = space(graph), MeasuredDamage(batches(), False, "l1", tmp_path)
    first = damage.losses(graph, one)
    monkeypatch.setattr(measured_damage, "mask_channels", None)
    again = damage.losses(graph, one)
    assert all((again[name] == first[name]).all() for name in first)


def test_the_allocation_spares_what_matters() -> None:
    graph, options = network(), Pruning(Allocation(normalise="measured", multiple=1))
    given = (graph, ByMacs(), "fp32", FilterNorm(1), Goal.macs(0.7))
    found = prune(*given, options=options, stages=Stages(damage=MeasuredDamage(batches(), False)))
    after = {width.group: width.after for width in found.widths}
    assert after["matters"] == 16
    assert after["idle"] < 16
    even = {width.group: width.after for width in prune(*given).widths}
    assert even["matters"] < 16


def test_needs_images() -> None:
    options = Pruning(Allocation(normalise="measured"))
    with pytest.raises(InputError, match="measured on images"):
        prune(network(), ByMacs(), "fp32", FilterNorm(1), Goal.macs(0.7), options=options)
