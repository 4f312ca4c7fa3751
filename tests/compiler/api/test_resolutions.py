"""`resolutions`: smaller images as a choice of a plan, of a small network that takes them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from hand_built import randomise
from small_networks import Classifier, InvertedResidual, conv
from torch import Tensor, nn

import shrinkc
from shrinkc import Goal
from shrinkc.compiler.api.plan import Planned

SIZE = 64
X = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def network() -> nn.Module:
    torch.manual_seed(0)
    net = Classifier(
        *(conv(3, 8, 3, 2), nn.ReLU6()),
        *(InvertedResidual(8, 8, expansion=6), InvertedResidual(8, 8, expansion=6)),
        channels=8,
    )
    for part in net.modules():
        if not list(part.children()):
            randomise(part, torch.Generator().manual_seed(0))
    return net.eval()


def smooth(count: int = 24, seed: int = 1) -> Tensor:
    """Images of which little is lost when they are made smaller."""
    coarse = torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, (SIZE, SIZE), mode="bicubic")


def planned_of(net: nn.Module, **options: Any) -> Planned:
    given: dict[str, Any] = {"target": "rpi4", "images": smooth(), "runs": 0, "precision": "fp32"}
    return shrinkc.plan(
        net, X, **{"goal": Goal.speedup(2), "resolutions": [48, 40], **given, **options}
    )


def test_it() -> None:
    net = network()
    found = planned_of(net)
    print(found, found.plan.resolution, found.plan.steps, found.notes)
    print(found.plan.promise)
    print(found.report.notes, found.report.input_shapes)
    assert 0
