"""Small networks, images and a table for closed-form shrinking."""

from __future__ import annotations

import torch
from by_macs import ByMacs
from small_networks import (
    folded,
)
from torch import Tensor, fx, nn

from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.recover.layer_problems import Sample
from shrinkc.compiler.recover.rebuild_span import Rebuilding
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.table import OpEstimate

SIZE = 20


FITTED = Rebuilding(steps=0)


class Dense(ByMacs):
    """A device on which depthwise convolutions are slow."""

    def estimate(self, key: OpKey) -> OpEstimate:
        slow = 50 if key.op == "depthwise_conv2d" else 1
        return OpEstimate(1e-3 + slow * key.macs * 1e-6, "measured", False)


def small(model: nn.Module, seed: int = 0) -> fx.GraphModule:
    return folded(model, seed, SIZE, batch=1).float()


def some_images(count: int = 24) -> Images:
    generator = torch.Generator().manual_seed(0)
    side = SIZE + 4
    coarse = torch.rand(count, 3, side // 4, side // 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")
    pixels = (smooth * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return Images(pixels, None, (0.5,), (0.25,))


def sample(count: int = 24) -> Sample:
    return Sample(some_images(count), (SIZE, SIZE))


def outputs(graph: fx.GraphModule) -> Tensor:
    with torch.no_grad():
        return torch.cat([graph(*x)[0] for x, _ in sample().batches()])


def distance(student: fx.GraphModule, teacher: fx.GraphModule) -> float:
    """Squared, of the outputs' variance over the images."""
    got, want = outputs(student), outputs(teacher)
    return float(((got - want) ** 2).mean() / want.var(0).mean())
