"""What runtimes approximate is no mistake of a file's; more than that is."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import shrinkc
from shrinkc.compiler.formats.onnx import ONNX
from shrinkc.compiler.reference.approximated import OFF, Approximated
from shrinkc.compiler.reference.original import Original
from shrinkc.compiler.support.difference import OutputError


class Scores(nn.Module):
    """Two classes, one of which is hardly ever seen; `times` of their scores."""

    def __init__(self, times: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.times = nn.Conv2d(3, 2, 3), times
        with torch.no_grad():
            assert self.conv.bias is not None
            self.conv.bias.copy_(torch.tensor([0.0, -14.0]))
            self.conv.weight[1] *= 0.01

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).sigmoid() * self.times


X = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))


FUNCTIONS = {
    "sigmoid": (torch.sigmoid, False),
    "tanh": (torch.tanh, False),
    "silu": (nn.functional.silu, True),
    "mish": (nn.functional.mish, True),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_off_both_ways_and_no_more(name: str) -> None:
    function, times_x = FUNCTIONS[name]
    x = torch.linspace(-30, 30, 999, dtype=torch.float64)
    with Approximated(torch.Generator().manual_seed(0)) as functions:
        moved = function(x)
    assert functions.met
    off = (moved - function(x)) / (x if times_x else 1)
    assert torch.allclose(off[x != 0].abs(), torch.tensor(OFF, dtype=torch.float64))
    assert 0.4 < float((off > 0).double().mean()) < 0.6
    with Approximated(torch.Generator()) as functions:
        x.relu().exp()
    assert not functions.met


@pytest.mark.parametrize("times", [1.0, 1e4])
def test_scores_that_are_always_small_are_no_finer_than_the_runtime(times: float) -> None:
    model = Scores(times).eval()
    made = shrinkc.compile(model, X, target="rpi4", formats=(ONNX,), runs=0)
    want = model(X).detach().numpy()
    (got,) = made.artefact.run((X,))
    share = np.abs(got - want).max((0, 2, 3)) / np.ptp(want, (0, 2, 3))
    assert share[1] > 1e-4  # what was refused


def test_more_than_that_is_not_forgiven() -> None:
    model = Scores().eval()

    def answer(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return (model(*inputs),)

    (want,) = (x.numpy() for x in answer((X,)))
    for wrong, allowed in ((OFF / 2, True), (OFF * 4, False)):
        error = OutputError()
        error.add(want + np.float32(wrong), want)
        for rounding in Original(answer).rounding([(X,)]):
            error.forgive(rounding[0])
        assert (error.relative() <= 1e-4) is allowed
