"""Copies of graphs: what `copy.deepcopy` makes, and nothing in common with the original."""

from __future__ import annotations

import copy

import pytest
import torch
from small_networks import NETWORKS, folded
from torch import fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.passes.base import copy_graph


class Tied(nn.Module):
    """A module called twice, a weight that two layers share, a hook, a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.other, self.act = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.ReLU()
        self.other.weight = self.conv.weight
        self.register_buffer("shift", torch.ones(1, 3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.other(self.act(self.conv(x)))) + self.shift


def tied() -> fx.GraphModule:
    graph = capture(Tied().eval(), (torch.randn(1, 3, 8, 8),))
    conv = next(m for m in graph.modules() if isinstance(m, nn.Conv2d))
    conv.weight.requires_grad_(False)
    conv.register_forward_hook(lambda *_: None)
    return graph


@pytest.mark.parametrize("name", [*NETWORKS, "tied"])
def test_a_copy_is_what_deepcopy_makes(name: str) -> None:
    graph = tied() if name == "tied" else folded(NETWORKS[name]())
    got, want = copy_graph(graph), copy.deepcopy(graph)
    assert (str(got.graph), got.code, got.meta) == (str(want.graph), want.code, want.meta)
    modules = [dict(g.named_modules(remove_duplicate=False)) for g in (got, want)]
    assert list(modules[0]) == list(modules[1])
    for path, module in list(modules[1].items())[1:]:
        assert type(modules[0][path]) is type(module)
        mine, theirs = vars(modules[0][path]), vars(module)
        assert [
            (k, type(v), len(v) if isinstance(v, dict) else repr(v)) for k, v in mine.items()
        ] == [(k, type(v), len(v) if isinstance(v, dict) else repr(v)) for k, v in theirs.items()]
    first, second, original = (dict(g.state_dict()) for g in (got, want, graph))
    assert list(first) == list(second)
    for key, tensor in second.items():
        assert torch.equal(first[key], tensor)
        assert first[key].stride() == tensor.stride()
        assert first[key].data_ptr() not in {t.data_ptr() for t in original.values()}
    for a, b in zip(got.parameters(), want.parameters(), strict=True):  # each once
        assert a.requires_grad == b.requires_grad
