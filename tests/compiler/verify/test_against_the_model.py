"""What is verified is the user's model: a captured graph that is something else is found out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.api.steps.compilation import compile_graph
from shrinkc.compiler.capture import capture
from shrinkc.compiler.images.source import image_source
from shrinkc.compiler.options import Options, with_images
from shrinkc.compiler.reference.original import Original
from shrinkc.compiler.reference.reference import Reference
from shrinkc.errors import VerificationError

X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
OPTIONS = Options(target="rpi4", runs=0)


class Net(nn.Module):
    """A small network; `change` is done to its output, and captured without it."""

    def __init__(self, change: Callable[[Tensor], Any] = lambda y: y) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.change = nn.Conv2d(3, 6, 3), change

    def forward(self, x: Tensor) -> Any:
        return self.change(self.conv(x).mean((2, 3)))


@pytest.fixture(scope="module")
def graph() -> fx.GraphModule:
    return capture(Net(), (X,))


def _columns(y: Tensor) -> Tensor:
    """One column in another unit and rounded."""
    return torch.cat((y[:, :5], y[:, 5:].mul(1e-3).round().div(1e-3)), 1)


PLANTED: dict[str, Callable[[Tensor], Any]] = {
    "a limit that N(0, 1) never reaches": lambda y: y.clamp(max=3.0),
    "a cut that large numbers hide": lambda y: y * (y.abs() > 2e-3),
    "only zeros and ones differ": lambda y: y + 0.01 * (y.abs().sum() < 2.0),
    "another result from batch 3 on": lambda y: y * 2 if len(y) > 2 else y,
    "one column is rounded": _columns,
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_graph_that_is_not_the_model_is_found_out(graph: fx.GraphModule, name: str) -> None:
    model = Original.of_model(Reference(Net(PLANTED[name])))
    with pytest.raises(VerificationError, match="differs from the model"):
        compile_graph(graph, OPTIONS, reference=model)


def test_the_model_itself_passes(graph: fx.GraphModule) -> None:
    made = compile_graph(graph, OPTIONS, reference=Original.of_model(Reference(Net())))
    assert 0 < made.report.max_relative_error < 1e-4


def test_images_are_checked_against_the_model_too(graph: fx.GraphModule) -> None:
    """What no probe reaches, images do: numbers around 1000."""
    images = (1000 + np.random.default_rng(0).standard_normal((8, 3, 8, 8))).astype(np.float32)
    source = image_source(torch.as_tensor(images), ((1, 3, 8, 8),), "images")
    options = with_images(OPTIONS, source, None)
    model = Reference(Net(lambda y: y.clamp(-200, 200)))
    made = compile_graph(graph, OPTIONS, reference=Original.of_model(model))
    assert made.report.max_relative_error < 1e-4
    with pytest.raises(VerificationError, match="on the images"):  # an Original remembers batches
        compile_graph(graph, options, reference=Original.of_model(model))


def test_rounding_that_is_the_models_own_is_no_difference() -> None:
    """A column that is nearly constant: float32 leaves it no more digits."""

    class Fine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()

        def forward(self, x: Tensor) -> Tensor:
            return (self.net(x) + 1e4) - 1e4

    model = Fine().eval()
    made = compile_graph(
        capture(model, (X,)), OPTIONS, reference=Original.of_model(Reference(model))
    )
    assert made.report.max_relative_error < 1e-4


def test_so_is_that_of_a_changed_network() -> None:
    """An embedding of length one: where inputs are small, its columns hardly move."""

    class Unit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            layers = (nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU())
            self.body, self.head = nn.Sequential(*layers), nn.Linear(16, 32)
            nn.init.normal_(self.head.bias, std=30.0)

        def forward(self, x: Tensor) -> Tensor:
            y = self.head(self.body(x).mean((2, 3)))
            return y / y.square().sum(1, keepdim=True).sqrt()

    graph = capture(Unit().eval(), (X,))
    rounding = Original.of_graph(graph).rounding([(0.05 * X.repeat(4, 1, 1, 1),)])
    assert next(rounding)[0].relative() > 0
    assert compile_graph(graph, OPTIONS).report.max_relative_error < 1e-4
