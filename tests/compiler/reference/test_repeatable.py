"""A model is a function of its inputs, or is refused in one line that says what else decides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shrinkc.compiler.reference.reference import Reference
from shrinkc.compiler.reference.repeatable import beside_tensors, require_function
from shrinkc.errors import ModelRunError

X = torch.randn(1, 1, 4, 10, generator=torch.Generator().manual_seed(5))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 4, 3)
        self.register_buffer("frames", torch.zeros(1, 1, 2, 10))
        self.register_buffer("seen", torch.zeros(()))
        self.count = 0
        self.past = list[Tensor]()


class Streaming(Net):
    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat((self.frames, x), 2)
        self.frames = y[:, :, -2:]
        self.seen += 1
        return self.conv(y)


class StreamingInPlace(Net):
    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat((self.frames, x), 2)
        self.frames.copy_(y[:, :, -2:])
        return self.conv(y)


class Average(Net):
    def forward(self, x: Tensor) -> Tensor:
        self.seen.lerp_(x.mean(), 0.01)
        return self.conv(x) - self.seen


class Listed(Net):
    def forward(self, x: Tensor) -> Tensor:
        self.past.append(x)
        return self.conv(sum(self.past))


class EveryThird(Net):
    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return self.conv(x) * (2.0 if self.count % 3 == 0 else 1.0)


class FirstOne(Net):
    """Set by the first input, as ActNorm is."""

    def forward(self, x: Tensor) -> Tensor:
        if self.seen == 0:
            self.seen.copy_(x.std())
        return self.conv(x) / self.seen


REMEMBERS = {
    Streaming: "its buffer 'frames' in",
    StreamingInPlace: "its buffer 'frames' in",
    Average: "its buffer 'seen' in",
    Listed: r"its attribute 'past\[0\]'",
    EveryThird: "its attribute 'count' in",
    FirstOne: "its buffer 'seen' in",
}


@pytest.mark.parametrize("kind", REMEMBERS)
def test_a_model_that_remembers_is_refused_by_what_it_remembers(kind: type[Net]) -> None:
    model = kind().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ModelRunError, match=REMEMBERS[kind]) as caught:
        require_function(Reference(model), (X,))
    assert "takes its state as an input and returns it" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.past
    assert model.count == 0


class Counting(Net):
    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        self.seen += 1
        self.past.append(x)
        return self.conv(x)


class Grid(Net):
    """Kept by size."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.past:
            self.past.append(torch.arange(float(x.shape[-1])))
        return self.conv(x + self.past[0])


class Renormalised(Net):
    """EEGNet: the weight is limited before every use."""

    def forward(self, x: Tensor) -> Tensor:
        self.conv.weight.data = torch.renorm(self.conv.weight.data, 2, 0, 0.5)
        return self.conv(x)


class Scratch(Net):
    def forward(self, x: Tensor) -> Tensor:
        self.seen.copy_(x.mean())
        return self.conv(x) - self.seen


@pytest.mark.parametrize("kind", [Counting, Grid, Renormalised, Scratch])
def test_what_changes_without_a_trace_in_the_outputs_is_fine(kind: type[Net]) -> None:
    require_function(Reference(kind().eval()), (X,))


class Head(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5)


class Dropping(Net):
    def __init__(self) -> None:
        super().__init__()
        self.head = Head()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x))


class Noisy(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x + torch.randn_like(x))


class NoisyElsewhere(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * float(np.random.default_rng().random())


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        (Dropping, r"random numbers \(aten::bernoulli_\) in 'head'"),
        (Noisy, r"random numbers \(aten::randn_like\) in its own forward"),
        (NoisyElsewhere, "is not deterministic: the same input gives other outputs"),
    ],
)
def test_random_numbers_are_refused_where_they_are_drawn(kind: type[Net], where: str) -> None:
    with pytest.raises(ModelRunError, match=where) as caught:
        require_function(Reference(kind().eval()), (X,))
    assert "training=self.training" in str(caught.value)
    require_function(Reference(Counting().eval()), (X,))  # no hook is left behind


class Beside(Net):
    def __init__(self, *values: Any) -> None:
        super().__init__()
        self.values = values

    def forward(self, x: Tensor) -> Any:
        return {"map": self.conv(x), "more": [f(x) if callable(f) else f for f in self.values]}


def test_numbers_that_follow_the_input_are_refused() -> None:
    for follow in (lambda x: x.mean().item(), lambda x: int((x > 0).sum())):
        with pytest.raises(ModelRunError, match=r"number, output\['more'\]\[1\], that follows"):
            require_function(Reference(Beside("name", follow).eval()), (X,))


def test_what_is_no_tensor_is_listed() -> None:
    reference = Reference(Beside(None, 3, float("nan"), "name", lambda x: x).eval())
    require_function(reference, (X,))
    assert beside_tensors(reference, (X,)) == (
        "output['more'][0] (None)",
        "output['more'][1] (int)",
        "output['more'][2] (float)",
        "output['more'][3] (str)",
    )


def test_state_that_is_not_put_back_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: a counter that decides, left where the last run put it."""
    monkeypatch.setattr(Reference, "restore", lambda *_: None)
    model = EveryThird().eval()
    reference = Reference(model)
    monkeypatch.setattr(reference._state, "restore", lambda *_: None)  # pyright: ignore
    with pytest.raises(ModelRunError):
        require_function(reference, (X,))
    assert model.count > 0  # what the tests above look at
