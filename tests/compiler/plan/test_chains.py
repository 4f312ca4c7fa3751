"""Convolutions in a row, as in VGG: the hidden channels of spans that share a layer."""

from __future__ import annotations

import pytest
import torch
from by_macs import ByMacs
from hand_built import randomise
from torch import nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.depth.closed_form import ClosedForm
from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.plan.planner import Planner, Planning, prepare_planning
from shrinkc.compiler.recover.distil import Tuning
from shrinkc.compiler.recover.rebuild_span import Rebuilding

SIZE, WIDTH = 12, 16
NARROWING = ClosedForm(("narrow",), Rebuilding(steps=0), Tuning(steps=0))


@pytest.fixture(scope="module")
def planner() -> Planner:
    """Four convolutions; the channels between the first two, the second two and the last two are
    hidden in three spans, of which two share the second and two the third convolution."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(i, WIDTH, 3, padding=1) for i in (3, WIDTH, WIDTH, WIDTH)]
    rows = [part for layer in layers for part in (layer, nn.ReLU())]
    model = nn.Sequential(*rows, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, 5))
    for part in layers:
        randomise(part, torch.Generator().manual_seed(0))
    pixels = torch.randint(0, 256, (40, SIZE, SIZE, 3), dtype=torch.uint8)
    images = Images(pixels, None, (0.5,), (0.25,))
    captured = capture(model.eval(), (torch.randn(1, 3, SIZE, SIZE),))
    return prepare_planning(captured, images, ByMacs(), Planning(("fp32",), NARROWING))


def test_channels_of_all_of_them_are_narrowed_in_one_plan(planner: Planner) -> None:
    spans = planner.candidates.priced["fp32"].of(())
    budget = 0.7 * spans.fastest_ms(1)
    planned = planner.within(budget)
    assert planned.plan.after_ms <= budget < spans.fastest_ms(1)
    widths = [
        layer.out_channels
        for layer in planned.graph_module.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    assert len(widths) == 4
    assert max(widths[:3]) < WIDTH
    assert {step.kind for step in planned.plan.steps} <= {"slice", "narrow"}
