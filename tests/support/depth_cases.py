"""A small network of inverted residuals, a table on which merging them pays, images."""

from __future__ import annotations

import math

import torch
from small_networks import InvertedResidual, conv
from torch import fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.images.decoded import Images
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.table import OpEstimate

SIZE, CLASSES = 12, 3


class ByWork:
    """A table: multiplications and values moved, so that merging inverted residuals pays."""

    target = "made up"

    def estimate(self, key: OpKey) -> OpEstimate:
        spec = key
        area = math.prod(spec.out_size)
        values = area * (spec.in_channels + spec.out_channels)
        work = 0.0
        if "conv" in spec.op or spec.op == "linear":
            dense = spec.in_channels * spec.out_channels / spec.groups
            work = area * dense * math.prod(spec.kernel)
        return OpEstimate((work / 40 + values) / 1e4, "made up", False)

    def network_overhead_ms(self, precision: str) -> float:
        return 0.0

    def spread(self, precision: str, unlike_share: float) -> float | None:
        return None


def small_network(seed: int = 0, blocks: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    body = [InvertedResidual(6, 6, expansion=6) for _ in range(blocks)]
    return nn.Sequential(
        *(conv(3, 6, 3, 2), nn.ReLU6(), *body, conv(6, 12, 1), nn.ReLU6()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, CLASSES)),
    )


def captured(seed: int = 0, blocks: int = 3) -> fx.GraphModule:
    """Of two blocks there are half as many options to try, each in half the time."""
    model = small_network(seed, blocks)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.running_mean, -1, 1)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.uniform_(norm.bias, -1, 1)
    return capture(model.eval(), (torch.randn(1, 3, SIZE, SIZE),))


def images(count: int = 48, labelled: bool = True) -> Images:
    """Classes that differ in brightness."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % CLASSES
    noise = torch.randint(0, 60, (count, SIZE, SIZE, 3), generator=generator)
    pixels = (noise + 80 * labels[:, None, None, None]).to(torch.uint8)
    return Images(pixels, labels if labelled else None)
