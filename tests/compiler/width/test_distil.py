"""Distillation of a pruned network on images without labels."""

from dataclasses import replace

import torch
from pass_checks import fingerprint
from prune_doubles import Steps
from small_networks import conv
from torch import Tensor, fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.recover.distil import Tuning, last_feature
from shrinkc.compiler.tasks.regression import Regression
from shrinkc.compiler.width.allocation import Allocation
from shrinkc.compiler.width.distil import distilled
from shrinkc.compiler.width.prune import Pruned, Pruning, prune
from shrinkc.passes.criteria.magnitude import FilterNorm

SIZE = 12
OPTIONS = Tuning(steps=30, batch=8, learning_rate=0.01)


class Net(nn.Module):
    def __init__(self, heads: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(3, 8, 3, 2), nn.ReLU(), conv(8, 16, 3), nn.ReLU())
        self.heads = nn.ModuleList(nn.Linear(16, 3) for _ in range(heads))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.body(x).mean((2, 3))
        return tuple(head(x) for head in self.heads)


def pruned(heads: int = 1) -> Pruned:
    torch.manual_seed(0)
    graph = capture(Net(heads).eval(), (torch.randn(1, 3, SIZE, SIZE),))
    options = Pruning(Allocation(multiple=1))
    return prune(graph, Steps(), "fp32", FilterNorm(), Goal.macs(0.6), options=options)


def images() -> Images:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 255, (24, SIZE, SIZE, 3), generator=generator, dtype=torch.uint8)
    return Images(pixels, None)


def distance(one: fx.GraphModule, other: fx.GraphModule, index: int = 0) -> float:
    x = images().inputs(images().pixels)
    with torch.no_grad():
        return float((one(x)[index] - other(x)[index]).square().mean())


def test_it_answers_nearer_to_the_original() -> None:
    before = pruned()
    known = fingerprint(before.graph_module)
    after = distilled(before, images(), OPTIONS)
    assert distance(after.graph_module, after.original) < 0.5 * distance(
        before.graph_module, before.original
    )
    assert fingerprint(before.graph_module) == known
    assert after.trainable is before.trainable


def test_features_that_became_narrower_are_not_compared() -> None:
    before = pruned()
    output = next(n for n in reversed(before.original.graph.nodes) if n.op == "output")
    logits = output.args[0][0].name
    assert last_feature(before.original, before.original) != logits
    assert last_feature(before.original, before.graph_module) == logits


def test_every_output_is_drawn_nearer() -> None:
    before = pruned(heads=2)
    x = images().inputs(images().pixels)
    with torch.no_grad():
        task = Regression().scaled(before.original(x), len(x))
    after = distilled(before, images(), replace(OPTIONS, steps=100), task=task)
    for index in (0, 1):
        assert distance(after.graph_module, after.original, index) < 0.7 * distance(
            before.graph_module, before.original, index
        )


def test_without_steps_it_is_left_alone() -> None:
    before = pruned()
    assert distilled(before, images(), replace(OPTIONS, steps=0)) is before
