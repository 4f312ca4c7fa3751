"""Readers compensated from sums of the network as it is, against plain regressions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.recover import from_sums
from shrinkc.compiler.recover.from_sums import compensated
from shrinkc.passes.analysis.channels.channel_groups import channel_groups
from shrinkc.passes.criteria.shared.data import Batch
from shrinkc.passes.criteria.shared.readers import ReaderSums, reader_sums

KEEP = np.arange(6) % 3 != 1


def reading(bias: bool, groups: int = 1) -> fx.GraphModule:
    torch.manual_seed(0)
    layers = (
        *(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(6, 4, 3, padding=1, bias=bias, groups=groups), nn.ReLU()),
    )
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * 25, 2)).double()
    return capture(net.eval(), (torch.randn(2, 3, 5, 5, dtype=torch.float64),))


def batches() -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    return [
        ((torch.randn(8, 3, 5, 5, generator=generator, dtype=torch.float64),), None)
        for _ in range(4)
    ]


def sums_of(graph: fx.GraphModule) -> list[ReaderSums]:
    group = channel_groups(graph)["0"]
    ((_, sums),) = reader_sums(graph, [group], batches(), most=1000)
    return sums


def rows(graph: fx.GraphModule) -> tuple[Tensor, Tensor]:
    """(patches that the second convolution reads, what it computes without its bias)."""
    first, second = graph.get_submodule("0"), graph.get_submodule("2")
    assert isinstance(first, nn.Conv2d)
    assert isinstance(second, nn.Conv2d)
    with torch.no_grad():
        x = torch.cat([first(inputs[0]).relu() for inputs, _ in batches()])
        y = nn.functional.conv2d(x, second.weight, padding=1, groups=second.groups)
    patches = nn.functional.unfold(x, 3, padding=1).transpose(1, 2).flatten(0, 1)
    return patches, y.flatten(2).transpose(1, 2).flatten(0, 1)


@pytest.mark.parametrize("bias", [True, False])
def test_like_a_regression_of_what_the_layer_computes(
    bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(from_sums, "RIDGE", 0.0)
    graph = reading(bias)
    new = compensated(graph, sums_of(graph), KEEP)
    x, y = rows(graph)
    stays = torch.from_numpy(KEEP.repeat(9))
    ones = [torch.ones(len(x), 1)] if bias else []
    design = torch.cat([x[:, stays], *ones], 1).numpy()
    want = np.linalg.lstsq(design, y.numpy(), rcond=None)[0]
    weight = new["2.weight"].flatten(1)
    assert (weight[:, ~stays] == 0).all()
    np.testing.assert_allclose(weight[:, stays].numpy(), want[: int(stays.sum())].T, atol=1e-5)
    if bias:
        layer = graph.get_submodule("2")
        assert isinstance(layer, nn.Conv2d)
        assert layer.bias is not None
        shift = (new["2.bias"] - layer.bias).detach().numpy()
        np.testing.assert_allclose(shift, want[-1], atol=1e-5)
    assert new.keys() == {"2.weight", "2.bias"} if bias else {"2.weight"}


def test_convolution_groups_are_fitted_each_for_itself() -> None:
    graph = reading(bias=True, groups=2)
    new = compensated(graph, sums_of(graph), KEEP)
    weight = new["2.weight"]
    x, y = rows(graph)
    for half in range(2):
        own = weight[2 * half : 2 * half + 2].flatten(1)
        patch = x[:, 27 * half : 27 * half + 27]
        got = patch @ own.T
        want = y[:, 2 * half : 2 * half + 2]
        zeroed = patch * torch.from_numpy(KEEP[3 * half : 3 * half + 3].repeat(9))
        layer = graph.get_submodule("2")
        assert isinstance(layer, nn.Conv2d)
        plain = zeroed @ layer.weight[2 * half : 2 * half + 2].flatten(1).T
        assert (got - want).var(0).sum() < 0.9 * (plain - want).var(0).sum()


def test_nothing_changes_where_all_stays() -> None:
    graph = reading(bias=True)
    assert compensated(graph, sums_of(graph), np.ones(6, dtype=bool)) == {}
