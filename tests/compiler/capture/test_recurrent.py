"""Recurrent layers and cells: the canonical graph in float64 equals the module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from shrinkc.compiler.capture import capture
from shrinkc.errors import CaptureError
from shrinkc.passes import ir
from shrinkc.passes.recurrent import Recurrent

FEATURES, HIDDEN, STEPS = 5, 4, 3
KINDS: dict[str, type[nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class Network(nn.Module):
    """`layer` on (N, L, I): all that it returns, batch first."""

    def __init__(self, layer: nn.RNNBase, first: str) -> None:
        super().__init__()
        self.layer, self.first = layer, first
        rows = layer.num_layers * (2 if layer.bidirectional else 1)
        self.h = nn.Parameter(torch.randn(rows, 1, layer.proj_size or layer.hidden_size))
        self.c = nn.Parameter(torch.randn(rows, 1, layer.hidden_size))

    def states(self, batch: int) -> Any:
        h, c = (p.expand(-1, batch, -1) for p in (self.h, self.c))
        if self.first == "zeros":
            h, c = torch.zeros_like(h), torch.zeros_like(c)
        return (h, c) if self.layer.mode == "LSTM" else h

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        hx = None if self.first == "none" else self.states(x.shape[0])
        x = x if self.layer.batch_first else x.transpose(0, 1)
        if self.layer.mode == "LSTM":
            y, (h, c) = self.layer(x, hx)
            last = (h.transpose(0, 1), c.transpose(0, 1))
        else:
            y, h = self.layer(x, hx)
            last = (h.transpose(0, 1),)
        return (y if self.layer.batch_first else y.transpose(0, 1), *last)


def require_equal(model: nn.Module, inputs: Sequence[Tensor]) -> None:
    graph = capture(model.eval(), tuple(inputs))
    ir.check_legal(graph)
    wide = [x.double() for x in inputs]
    with torch.no_grad():
        got, want = graph.double()(*wide), model.double()(*wide)
    for a, b in zip(got, want if isinstance(want, tuple) else (want,), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    kind=st.sampled_from(sorted(KINDS)),
    layers=st.integers(1, 2),
    bidirectional=st.booleans(),
    bias=st.booleans(),
    batch_first=st.booleans(),
    projected=st.booleans(),
    first=st.sampled_from(("none", "zeros", "learned")),
)
def test_every_form(
    kind: str,
    layers: int,
    bidirectional: bool,
    bias: bool,
    batch_first: bool,
    projected: bool,
    first: str,
) -> None:
    torch.manual_seed(0)
    more: dict[str, Any] = {"proj_size": 2} if projected and kind == "lstm" else {}
    layer = KINDS[kind](
        *(FEATURES, HIDDEN, layers),
        bias=bias,
        batch_first=batch_first,
        bidirectional=bidirectional,
        **more,
    )
    require_equal(Network(layer, first), [torch.randn(2, STEPS, FEATURES)])


class Streaming(nn.Module):
    """State in, state out."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(FEATURES, HIDDEN, batch_first=True)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, (h, c) = self.layer(x, (h.transpose(0, 1), c.transpose(0, 1)))
        return y, h.transpose(0, 1), c.transpose(0, 1)


def test_states_are_inputs_and_outputs() -> None:
    states = torch.randn(2, 2, 1, HIDDEN)
    require_equal(Streaming(), [torch.randn(2, STEPS, FEATURES), *states])


class Cells(nn.Module):
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTMCell(FEATURES, HIDDEN, bias)
        self.gru = nn.GRUCell(HIDDEN, HIDDEN, bias)
        self.rnn = nn.RNNCell(HIDDEN, 2, bias, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        states = None
        g = x.new_zeros(x.shape[0], HIDDEN)
        r, found = None, []
        for step in range(STEPS):
            states = self.lstm(x[:, step], states)
            g = self.gru(states[0], g)
            r = self.rnn(g, r)
            found.append(r)
        return torch.stack(found, 1)


@pytest.mark.parametrize("bias", [True, False])
def test_cells_in_a_loop(bias: bool) -> None:
    require_equal(Cells(bias), [torch.randn(2, STEPS, FEATURES)])


def test_weights_are_the_model_s_own() -> None:
    """Names and numbers, so that a graph that was trained says which layer learned what."""
    layer = nn.LSTM(FEATURES, HIDDEN, batch_first=True)
    graph = capture(Network(layer, "none").eval(), (torch.randn(1, STEPS, FEATURES),))
    (found,) = (m for m in graph.modules() if isinstance(m, Recurrent))
    assert torch.equal(found.weight_ih, layer.weight_ih_l0)
    assert "layer.weight_ih" in graph.state_dict()


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(FEATURES, HIDDEN, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        lengths = torch.full((x.shape[0],), STEPS) if lengths is None else lengths
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        return self.layer(packed)[1][0]


@pytest.mark.parametrize("inputs", [1, 2], ids=["one length", "lengths of the input"])
def test_packed_sequences_are_refused_by_name(inputs: int) -> None:
    given = torch.randn(2, STEPS, FEATURES), torch.tensor([STEPS, STEPS - 1])
    message = r"pack_padded_sequence in 'inner': packed sequences follow .* padded sequences"
    with pytest.raises(CaptureError, match=message):
        capture(Inner(Packed()).eval(), given[:inputs])


class Inner(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.inner(x, lengths)


class TimeFirst(nn.Module):
    """Fed (L, N, I) as it is: its first dimension is no batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(FEATURES, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


def test_a_sequence_in_the_first_dimension_has_one_length() -> None:
    graph = capture(TimeFirst().eval(), (torch.randn(STEPS, 2, FEATURES),))
    assert not graph.meta["dynamic_batch"]
    assert "length of its sequence" in graph.meta["notes"][0]


@pytest.mark.parametrize("arguments", [("lstm", 0, 4), ("other", 3, 4), ("gru", 3, 4, 2)])
def test_impossible_layers(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"recurrent layer|neither projection"):
        Recurrent(*arguments)
