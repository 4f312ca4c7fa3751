"""A training that goes on after slicing is the training that goes on with the masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch
import torch.nn.functional as F
from channel_networks import graph_of
from pass_checks import random_inputs
from torch import Tensor, fx, nn
from torch.optim import SGD, Adafactor, AdamW, Optimizer

from shrinkc.errors import TrainingError
from shrinkc.passes.analysis.channels.channel_groups import channel_groups
from shrinkc.passes.channels.mask_channels import mask_channels
from shrinkc.passes.channels.slice_channels import SliceChannels, sliced_cuts
from shrinkc.passes.channels.slice_optimizer import slice_optimizer
from shrinkc.passes.criteria.base import uniform
from shrinkc.passes.criteria.magnitude import RandomScores

STEPS = 3
Make = Callable[[Iterable[Tensor]], Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda p: SGD(p, lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adamw": lambda p: AdamW(p, lr=1e-3, betas=(0.8, 0.99), weight_decay=1e-2, amsgrad=True),
}


def train(network: nn.Module, optimizer: Optimizer, inputs: tuple[Tensor, ...]) -> Tensor:
    """A few steps in training mode, batch statistics and all; the last output."""
    network.train()
    out = torch.zeros(())
    for step in range(STEPS):
        out = network(*inputs)[0]
        target = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape) * step
        loss = F.mse_loss(out, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return out


def slicing_of(graph: fx.GraphModule) -> SliceChannels:
    groups = channel_groups(graph)
    return SliceChannels(uniform(groups, RandomScores(3).scores(graph, groups), 0.6))


@pytest.mark.parametrize("name", ["residual", "grouped", "shared_weight", "layer_norm"])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_training_goes_on_as_with_masks(name: str, kind: str) -> None:
    graph = graph_of(name)
    inputs = random_inputs(graph)
    optimizer = OPTIMIZERS[kind](graph.parameters())
    train(graph, optimizer, inputs)  # dense, until here
    slicing = slicing_of(graph)
    sliced = slicing(graph).graph_module
    carried = slice_optimizer(optimizer, graph, sliced, sliced_cuts(graph, slicing))
    masked = mask_channels(graph, slicing)
    same = slice_optimizer(optimizer, graph, masked, {})
    got, want = train(sliced, carried, inputs), train(masked, same, inputs)
    assert type(carried) is type(optimizer)
    assert carried.param_groups[0]["weight_decay"] == optimizer.param_groups[0]["weight_decay"]
    torch.testing.assert_close(got, want, rtol=0, atol=1e-10)
    fresh = slicing(graph).graph_module
    forgotten = train(fresh, OPTIMIZERS[kind](fresh.parameters()), inputs)
    assert (forgotten - want).abs().max() > 1e-6, "the state makes no difference here"


def test_groups_of_parameters_and_options_stay() -> None:
    graph = graph_of("residual")
    few = list(graph.get_submodule("b.0").parameters())
    rest = [p for p in graph.parameters() if all(p is not q for q in few)]
    optimizer = SGD([{"params": few, "lr": 0.5}, {"params": rest}], lr=0.1, momentum=0.9)
    slicing = slicing_of(graph)
    sliced = slicing(graph).graph_module
    carried = slice_optimizer(optimizer, graph, sliced, sliced_cuts(graph, slicing))
    assert [g["lr"] for g in carried.param_groups] == [0.5, 0.1]
    weight, bias = carried.param_groups[0]["params"]
    assert weight is sliced.get_submodule("b.0").weight
    assert bias is sliced.get_submodule("b.0").bias


def test_a_parameter_of_another_network() -> None:
    graph, other = graph_of("residual"), graph_of("residual")
    optimizer = SGD(other.parameters(), lr=0.1)
    with pytest.raises(TrainingError, match="not the network's"):
        slice_optimizer(optimizer, graph, graph, {})


def test_state_without_channels() -> None:
    graph = graph_of("residual").float()
    optimizer = Adafactor(graph.parameters())
    inputs = tuple(x.float() for x in random_inputs(graph))
    train(graph, optimizer, inputs)
    slicing = slicing_of(graph)
    sliced = slicing(graph).graph_module
    with pytest.raises(TrainingError, match=r"'row_var' of 'a.0.weight' has shape"):
        slice_optimizer(optimizer, graph, sliced, sliced_cuts(graph, slicing))
