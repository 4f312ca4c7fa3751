"""UCP's excitations: by hand, where blocks stand, and what a training makes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from searches import SIDE, Chain, samples
from torch import Tensor, fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import channel_groups
from shrinkc.passes.criteria.spec import Given, Teaching
from shrinkc.passes.criteria.trained.mseb import MSEB, MSEB_SPEC, Excitation, with_excitations


def test_a_block_of_many_and_of_few_channels() -> None:
    for channels, hidden, biased in ((64, 4, False), (33, 2, False), (16, 1, True), (3, 1, True)):
        block = Excitation(channels)
        assert (block.down.out_features, block.up.in_features) == (hidden, hidden)
        assert (block.down.bias is not None, block.up.bias is not None) == (biased, biased)


class Plain(nn.Module):
    """Two channels that pass on the input's two, a batch norm that changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.act = (
            nn.Conv2d(2, 2, 1, bias=False),
            nn.BatchNorm2d(2),
            nn.ReLU(),
        )
        self.last = nn.Conv2d(2, 2, 1)
        self.norm.eps = 0.0
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(2)[:, :, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.act(self.norm(self.conv(x)))).mean((2, 3))


def images(*rows: tuple[float, float]) -> Tensor:
    """Each channel of an image has this mean: twice it in one half, 0 in the other."""
    halves = torch.tensor([2.0, 0.0]).reshape(1, 1, 1, 2)
    return torch.tensor(rows)[:, :, None, None] * halves


def test_a_score_is_the_mean_excitation_by_hand() -> None:
    graph, trained = capture(Plain().eval(), (torch.ones(1, 2, 1, 2),)), list[fx.GraphModule]()

    def fit(excited: fx.GraphModule) -> None:
        block = excited.get_submodule("excitation_0")
        assert isinstance(block, Excitation)
        trained.append(excited)
        with torch.no_grad():
            block.down.weight.copy_(torch.tensor([[1.0, -1.0]]))
            block.down.bias.fill_(0.5)
            block.up.weight.copy_(torch.tensor([[2.0], [-1.0]]))
            block.up.bias.copy_(torch.tensor([0.0, 1.0]))

    batches = [((images((3, 1), (1, 2)),), None), ((images((2, 2)),), None)]  # of unequal sizes
    scores = MSEB(Teaching(fit, batches)).scores(graph, channel_groups(graph))
    hidden = np.array([3 - 1 + 0.5, 0.0, 2 - 2 + 0.5])  # 1 − 2 + 0.5 < 0
    first, second = 1 / (1 + np.exp(-2 * hidden)), 1 / (1 + np.exp(hidden - 1))
    assert scores.keys() == {"conv"}
    assert scores["conv"] == pytest.approx([first.mean(), second.mean()], rel=1e-6)
    assert len(trained) == 1
    assert "excitation" not in str(graph.graph)


def test_channels_are_scaled_by_their_excitation() -> None:
    graph = capture(Plain().eval(), (torch.ones(1, 2, 1, 2),))
    excited, blocks = with_excitations(graph, 0)
    assert blocks.keys() == {"conv"}  # nothing normalises the last one
    block, x = excited.get_submodule("excitation_0"), images((3, 1))
    scaled = x * block(x)
    with torch.no_grad():
        torch.testing.assert_close(excited(x)[0], graph(scaled)[0])


class Residual(nn.Module):
    """A stem and two blocks whose shortcuts couple 20 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm0 = nn.Conv2d(3, 20, 3, padding=1, bias=False), nn.BatchNorm2d(20)
        self.a, self.norm1 = nn.Conv2d(20, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.b, self.norm2 = nn.Conv2d(8, 20, 1, bias=False), nn.BatchNorm2d(20)
        self.depthwise = nn.Conv2d(20, 20, 3, padding=1, groups=20, bias=False)
        self.norm3, self.act = nn.BatchNorm2d(20), nn.PReLU()
        self.head = nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm0(self.stem(x)).relu()
        x = self.norm2(self.b(self.norm1(self.a(x)).relu())) + x
        x = x.relu()
        return self.head((self.act(self.norm3(self.depthwise(x))) + x).mean((2, 3)))


def residual() -> fx.GraphModule:
    torch.manual_seed(0)
    return capture(Residual().eval(), (torch.zeros(1, 3, SIDE, SIDE),))


def test_blocks_stand_in_the_branches() -> None:
    """Behind the activation where there is one, before the sum where there is none."""
    excited, blocks = with_excitations(residual(), 0)
    nodes = {node.name: node for node in excited.graph.nodes}
    before = {conv: nodes[name].args[0].name for conv, name in blocks.items()}
    assert before == {"stem": "relu", "a": "relu_1", "b": "norm2", "depthwise": "act"}
    for conv, name in blocks.items():
        (reader,) = nodes[name].users
        end = nodes[before[conv]]
        assert list(end.users) == [nodes[name], reader]  # nothing reads what is not scaled
        assert reader.args == (end, nodes[name])


def test_a_stage_has_one_score_a_channel() -> None:
    graph = residual()

    def constant(value: float, channels: int) -> Callable[[Excitation], None]:
        def set_to(block: Excitation) -> None:
            block.up = nn.Linear(block.up.in_features, channels)
            with torch.no_grad():
                block.up.weight.zero_()
                places = torch.linspace(0, value, channels)
                block.up.bias.copy_(places)

        return set_to

    def fit(excited: fx.GraphModule) -> None:
        for number, value in enumerate((1.0, 2.0, 3.0, 6.0)):
            block = excited.get_submodule(f"excitation_{number}")
            assert isinstance(block, Excitation)
            constant(value, block.up.out_features)(block)

    batches = [((samples(4)[0],), None)]
    groups = channel_groups(graph)
    scores = MSEB(Teaching(fit, batches)).scores(graph, groups)
    stream = next(g for g in groups.groups if g.size == 20)
    sigmoid = [torch.linspace(0, value, 20).sigmoid().numpy() for value in (1.0, 3.0, 6.0)]
    assert scores[stream.name] == pytest.approx(np.mean(sigmoid, axis=0), rel=1e-6)
    inner = torch.linspace(0, 2, 8).sigmoid().numpy()
    assert scores["a"] == pytest.approx(inner, rel=1e-6)


def test_a_seed_is_the_same_blocks() -> None:
    graph, before = residual(), torch.random.get_rng_state()
    one, same, other = (with_excitations(graph, seed)[0].state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    name = "excitation_0.down.weight"
    assert torch.equal(one[name], same[name])
    assert not torch.equal(one[name], other[name])


def test_without_batch_norms_it_is_refused_before_anything_is_trained() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Flatten())
    graph = capture(model.eval(), (torch.zeros(1, 3, 2, 2),))

    def fit(_: object) -> None:
        raise AssertionError("trained")

    with pytest.raises(InputError, match="mseb needs batch norms behind the convolutions"):
        MSEB(Teaching(fit, [])).scores(graph, channel_groups(graph))


def test_what_no_convolution_with_a_norm_makes_is_not_judged() -> None:
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.Flatten()),
    )
    graph = capture(model.eval(), (torch.zeros(1, 3, 2, 2),))
    batches = [((torch.ones(2, 3, 2, 2),), None)]
    scores = MSEB(Teaching(lambda _: None, batches)).scores(graph, channel_groups(graph))
    assert scores.keys() == {"0"}


def test_it_is_built_with_a_training_alone() -> None:
    with pytest.raises(InputError, match="scores by a training of its own"):
        MSEB_SPEC.build(Given([], 0, True))


def test_excitations_learn_what_is_read() -> None:
    """Half of the last convolution's channels are always 0."""
    torch.manual_seed(0)
    model = Chain()
    dead = torch.arange(16) % 2 == 1
    x, labels = samples(256)

    def fit(excited: Any) -> None:
        optimiser = torch.optim.Adam(excited.parameters(), lr=1e-2)
        excited.train()
        for step in range(48):
            rows = slice(32 * (step % 8), 32 * (step % 8) + 32)
            optimiser.zero_grad()
            nn.functional.cross_entropy(excited(x[rows])[0], labels[rows]).backward()
            for path in ("6.weight", "7.weight", "7.bias"):  # what is dead stays dead
                excited.get_parameter(path).grad[dead] = 0
            optimiser.step()

    with torch.no_grad():
        model[6].weight[dead] = 0.0
        model[7].weight[dead] = 0.0
    graph = capture(model.eval(), (x[:1],))
    scores = MSEB(Teaching(fit, [((x,), labels)])).scores(graph, channel_groups(graph))
    mean = scores["6"]
    assert mean[~dead.numpy()].mean() > mean[dead.numpy()].mean() + 0.05
