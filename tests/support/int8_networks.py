"""Small folded networks for int8, and images that look like something."""

from __future__ import annotations

import torch
from hand_built import randomise
from small_networks import NETWORKS
from torch import Tensor, fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.pipeline.run import run_exact_passes
from shrinkc.passes.fold.fold_batch_norm import FoldBatchNorm
from shrinkc.passes.simplify.simplify import Simplify

SIZE = 20
Batches = list[tuple[Tensor, ...]]


def images(count: int, seed: int = 0, size: int = SIZE) -> Batches:
    """Smooth random maps around different means, one a batch."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 5, 5, generator=generator)
    smooth = nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    means = torch.randn(count, 3, 1, 1, generator=generator)
    return [(x[None],) for x in smooth + means]


def deployed(model: nn.Module, size: int = SIZE) -> fx.GraphModule:
    graph = capture(model.eval(), (torch.randn(1, 3, size, size),))
    return run_exact_passes(graph, (Simplify(), FoldBatchNorm(), Simplify()))[0].float()


def family(name: str, seed: int = 0) -> fx.GraphModule:
    """A small member of a known family with random weights and statistics."""
    model = NETWORKS[name]()
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if not list(module.children()):
            randomise(module, generator)
    return deployed(model)


def skewed(size: int = SIZE) -> fx.GraphModule:
    """A depthwise network whose filters hold one large weight and many that int8 rounds to zero
    or to a level that is far off, so that rounding shifts means."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU6(), nn.Conv2d(16, 16, 3, 1, 1, groups=16)),
        *(nn.ReLU6(), nn.Conv2d(16, 24, 1), nn.ReLU(), nn.Conv2d(24, 24, 1)),
        *(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5)),
    )
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                weight = layer.weight.flatten(1)
                weight.copy_(weight.abs() * 0.03 / weight.abs().amax(1, keepdim=True))
                weight[:, 0] = torch.rand(len(weight)) * 4 - 1.5
    return deployed(model, size)
