"""One direction of one recurrent layer: what LSTMs, GRUs and RNNs of any depth are made of."""

from __future__ import annotations

import math
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

Kind = Literal["lstm", "gru", "rnn_tanh", "rnn_relu"]
GATES: dict[str, int] = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


class Recurrent(nn.Module):
    """PyTorch's equations and order of gates, one layer in one direction, batch first:

        x (N, L, input_size), h₀ (N, P), c₀ (N, H)  ↦  h (N, L, P)

    for H = hidden_size and P = proj_size, or H without a projection. States that are not given are
    zeros. `reverse` starts at the last step; what it makes of step t stands at t all the same.

    with_cell  of an LSTM: the last cell state (N, H) is a row more, (N, L + 1, H), the others
               filled up with zeros behind P
    has_bias   two biases, as PyTorch has them
    """

    weight_ih: nn.Parameter  # (gates · H, input_size)
    weight_hh: nn.Parameter  # (gates · H, P)
    bias_ih: nn.Parameter  # (gates · H,), as bias_hh
    bias_hh: nn.Parameter
    weight_hr: nn.Parameter  # (P, H)

    def __init__(
        self,
        kind: str,
        input_size: int,
        hidden_size: int,
        proj_size: int = 0,
        has_bias: bool = True,
        reverse: bool = False,
        with_cell: bool = False,
    ) -> None:
        super().__init__()
        if kind not in get_args(Kind) or min(input_size, hidden_size) < 1 or proj_size < 0:
            raise ValueError(f"a recurrent layer {kind} from {input_size} to {hidden_size}")
        if kind != "lstm" and (proj_size or with_cell):
            raise ValueError(f"{kind} has neither projection nor cell")
        self.kind, self.input_size, self.hidden_size = kind, input_size, hidden_size
        self.proj_size, self.has_bias = proj_size, has_bias
        self.reverse, self.with_cell = reverse, with_cell
        rows = GATES[kind] * hidden_size
        for name, shape in (
            ("weight_ih", (rows, input_size)),
            ("weight_hh", (rows, self.output_size)),
            *((b, (rows,)) for b in ("bias_ih", "bias_hh") if has_bias),
            *((("weight_hr", (proj_size, hidden_size)),) if proj_size else ()),
        ):
            self.register_parameter(name, nn.Parameter(torch.empty(shape)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As PyTorch starts them."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    @property
    def output_size(self) -> int:
        """Of h."""
        return self.proj_size or self.hidden_size

    def forward(self, x: Tensor, h: Tensor | None = None, c: Tensor | None = None) -> Tensor:
        h = x.new_zeros(len(x), self.output_size) if h is None else h
        x = x.flip(1) if self.reverse else x
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
        weights = [w for n in names if (w := self._parameters.get(n)) is not None]
        run = getattr(cast(Any, torch), self.kind)
        one = (self.has_bias, 1, 0.0, self.training, False, True)  # layer, direction; batch first
        if self.kind == "lstm":
            c = x.new_zeros(len(x), self.hidden_size) if c is None else c
            y, _, last = run(x, (h[None], c[None]), weights, *one)
        else:
            y, last = run(x, h[None], weights, *one)
        y = y.flip(1) if self.reverse else y
        if not self.with_cell:
            return y
        y = nn.functional.pad(y, (0, self.hidden_size - self.output_size))
        return torch.cat((y, last[0][:, None]), 1)

    def output_shape(self, x: tuple[int, ...]) -> tuple[int, ...]:
        """Of what it makes of an x of this shape."""
        batch, steps, _ = x
        if self.with_cell:
            return (batch, steps + 1, self.hidden_size)
        return (batch, steps, self.output_size)
