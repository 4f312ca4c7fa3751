"""What runtimes round otherwise is no mistake of a file's; more than that is."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import shrinkc
from shrinkc.compiler.formats.onnx import ONNX
from shrinkc.compiler.reference.in_order import off_in_order
from shrinkc.compiler.reference.original import Original
from shrinkc.compiler.reference.rounded import OFF, Rounded
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
    with Rounded(torch.Generator().manual_seed(0)) as functions:
        moved = function(x)
    assert functions.met
    off = (moved - function(x)) / (x if times_x else 1)
    assert torch.allclose(off[x != 0].abs(), torch.tensor(OFF, dtype=torch.float64))
    assert 0.4 < float((off > 0).double().mean()) < 0.6
    with Rounded(torch.Generator()) as functions:
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


class Pooled(nn.Module):
    """Answers that hardly differ: the mean of large maps, times weights that nearly cancel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 48, 3, padding=1), nn.Linear(48, 4)
        with torch.no_grad():
            self.conv.weight *= 1e-3
            assert self.conv.bias is not None
            self.conv.bias.abs_().add_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).relu().mean((2, 3)))


def test_means_of_large_maps_are_no_finer_than_adding_in_order() -> None:
    model = Pooled().eval()
    x = torch.ones(1, 3, 64, 64)
    made = shrinkc.compile(model, x, target="rpi4", formats=(ONNX,), runs=0)
    maps = torch.full((1, 1, 64, 64), 0.1)
    (got,) = made.artefact.run((x,))
    with torch.no_grad():
        off = float(np.abs(got - model(x).numpy()).max())
        assert off > 1e-7  # what was refused
        with Rounded(torch.Generator().manual_seed(0)):
            one, two, three = maps.mean((2, 3)), maps.sum(), maps.double().mean()
    assert 1e-5 < abs(float(one) / 0.1 - 1) < 1e-3
    assert float(two) / 4096 == pytest.approx(float(one), rel=1e-6)
    assert float(three) == pytest.approx(float(maps[0, 0, 0, 0]), rel=1e-6)
    with Rounded(torch.Generator().manual_seed(0)):
        assert int(torch.ones(4, dtype=torch.bool).sum()) == 4
        assert not torch.ones(0, 3).sum(0).any()


NORMS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "instance": (nn.InstanceNorm2d(4, affine=True), (2, 4, 24, 24)),
    "group": (nn.GroupNorm(2, 4), (2, 4, 24, 24)),
    "layer": (nn.LayerNorm(900), (2, 3, 900)),
}


@pytest.mark.parametrize("name", NORMS)
def test_norms_are_off_as_by_sums_in_order(name: str) -> None:
    norm, shape = NORMS[name]
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.uniform_(0.5, 2)
        norm.bias.zero_()  # pyright: ignore
    x = 100 + 0.01 * torch.randn(shape)
    rows = {"instance": (8, -1), "group": (4, -1), "layer": (6, -1)}[name]
    flat = x.reshape(rows).numpy()
    mean = np.add.accumulate(flat, 1)[:, -1] / np.float32(flat.shape[1])
    centred = flat - mean[:, None]
    square = np.add.accumulate(centred**2, 1)[:, -1] / np.float32(flat.shape[1])
    wanted = torch.tensor(centred / np.sqrt(square + np.float32(norm.eps))[:, None]).reshape(shape)  # pyright: ignore
    weight = norm.weight if name == "layer" else norm.weight[:, None, None]  # pyright: ignore
    calls: list[tuple[Any, Any]] = []

    class Watched(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            calls.append((func, args))
            return func(*args, **(kwargs or {}))

    with torch.no_grad(), Watched():
        exact = norm(x)
    ((func, args),) = [one for one in calls if "norm" in str(one[0])]
    with torch.no_grad():
        off = off_in_order(func, args)
        assert off is not None
        precise = copy.deepcopy(norm).double()(x.double())
        torch.testing.assert_close(
            precise + off.reshape(shape).double(), (wanted * weight).double(), rtol=0, atol=1e-5
        )
    assert float(off.abs().max()) > 1e-3  # and PyTorch is nearer
    assert float((exact - precise).abs().max()) < 0.5 * float(off.abs().max())


class Styled(nn.Module):
    """Instance norms of maps that are nearly constant where the image is."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(3, 24, 3, 2, 1), nn.Conv2d(24, 24, 3, 1, 1)])
        self.norms = nn.ModuleList([nn.InstanceNorm2d(24) for _ in range(2)])
        self.head = nn.Conv2d(24, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = nn.functional.leaky_relu(norm(conv(x)), 0.2)
        x = nn.functional.interpolate(self.head(x), scale_factor=2, mode="bilinear")
        return x.sigmoid()


@pytest.mark.parametrize("seed", range(3))
def test_instance_norms_of_flat_images_are_no_finer_than_adding_in_order(seed: int) -> None:
    torch.manual_seed(seed)
    found = shrinkc.compile(Styled().eval(), torch.randn(1, 3, 32, 32), target="rpi4", runs=0)
    assert set(found.files) >= {"model.onnx", "model.tflite"}


def test_more_than_that_is_not_forgiven() -> None:
    model = Scores().eval()

    def answer(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return (model(*inputs),)

    (want,) = (x.numpy() for x in answer((X,)))
    for wrong, allowed in ((OFF, True), (OFF * 16, False)):
        error = OutputError()
        error.add(want + np.float32(wrong), want)
        for rounding in Original(answer).rounding([(X,)]):
            error.forgive(rounding[0])
        assert (error.relative() <= 1e-4) is allowed


def test_sums_in_another_order_are_forgiven_and_another_weight_is_not() -> None:
    """Outputs that hardly depend on the input say nothing of rounding where it is moved."""
    generator = torch.Generator().manual_seed(0)
    weight, known = (
        torch.randn(50, 4096, generator=generator),
        torch.randn(4096, generator=generator),
    )

    def answer(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (x,) = inputs
        return (nn.functional.linear(known + 1e-9 * x, weight),)

    x = torch.zeros(2, 4096)
    (want,) = (y.numpy() for y in answer((x,)))
    in_order = np.cumsum(known.numpy() * weight.numpy(), 1, dtype=np.float32)[None, :, -1]
    changed = weight.clone()
    changed[:, 0] += 1e-3
    other = nn.functional.linear(known + x, changed).numpy()
    for got, allowed in ((np.repeat(in_order, 2, 0), True), (other, False)):
        error = OutputError()
        error.add(got, want)
        before = error.relative()
        for rounding in Original(answer).rounding([(x,)]):
            error.forgive(rounding[0])
        assert before > 1e-5
        assert (error.relative() <= 1e-5) is allowed
