"""Where a scale and shift per channel can go when no layer is next to them.

    s·cat(a, b) + t  =  cat(s₁·a + t₁, s₂·b + t₂)         s = (s₁, s₂), t = (t₁, t₂)
    s·x[i] + t       =  (ŝ·x + t̂)[i]                      ŝ = 1, t̂ = 0 outside of i
    s·f(x) + t       =  f(s·x + t)                        f moves positions, not channels

In front, each is followed until a layer takes over its share; behind, the last alone is, to the
layer that reads the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import cast

import torch
from torch import Tensor, fx, nn

from shrinkc.passes.analysis.shapes import Shapes
from shrinkc.passes.analysis.usage import Usage
from shrinkc.passes.fold.fold_affine import Layer, has_padding, layer_of, output_axis
from shrinkc.passes.ir import input_of, slice_dim
from shrinkc.passes.rewrite import Rewriter


@dataclass(frozen=True, eq=False)
class Part:
    """scale·y + shift of what `node` computes, or reads; both (channels,)."""

    node: fx.Node
    scale: Tensor
    shift: Tensor


@dataclass(frozen=True, eq=False)
class AffineParts:
    """The parts of one graph's affines. Both methods give a reason where there are none."""

    rewriter: Rewriter
    shapes: Shapes
    usage: Usage

    def in_front(self, value: fx.Node, axis: int, scale: Tensor, shift: Tensor) -> list[Part] | str:
        """What changes so that `value`, its channels on `axis`, becomes scale·value + shift: values
        on the way and, first of each branch, the layer. `value` must have one reader: whoever else
        reads it would see the change."""
        if len(value.users) > 1:
            return f"the output of '{value.name}' has {len(value.users)} users"
        return self._written(value, axis, scale, shift)

    def _written(self, value: fx.Node, axis: int, scale: Tensor, shift: Tensor) -> list[Part] | str:
        layer = layer_of(self.rewriter, value)
        part = Part(value, scale, shift)
        if layer is None:
            found = self._through(value, axis, scale, shift)
            return found if isinstance(found, str) else [*found, part]
        if output_axis(layer, self.shapes[value.name]) != axis:
            return f"batch norm normalises dimension {axis} of '{value.name}', not the features"
        shared = self.usage.why_shared(layer)
        return f"'{value.name}' cannot change: {shared}" if shared else [part]

    def _through(self, value: fx.Node, axis: int, scale: Tensor, shift: Tensor) -> list[Part] | str:
        if value.target is torch.cat and value.args[1] == axis:
            return self._concatenated(value, axis, scale, shift)
        if value.target is slice_dim and value.args[1] == axis:
            return self._cut(value, axis, scale, shift)
        before = self._axis_before(value, axis)
        if before is None:
            return f"in front is '{value.name}', no convolution or linear layer"
        return self.in_front(input_of(value), before, scale, shift)

    def _concatenated(
        self, value: fx.Node, axis: int, scale: Tensor, shift: Tensor
    ) -> list[Part] | str:
        parts = cast("tuple[fx.Node, ...]", value.args[0])
        twice = next((x for x in parts if parts.count(x) > 1), None)
        if twice is not None:
            return f"'{value.name}' concatenates '{twice.name}' twice"
        sizes = [self.shapes[x.name][axis] for x in parts]
        found: list[Part] = []
        starts = [0, *accumulate(sizes)]
        for x, start, stop in zip(parts, starts, starts[1:], strict=False):
            s, t = scale[start:stop], shift[start:stop]
            inner = self.in_front(x, axis, s, t)
            if isinstance(inner, str):
                return inner
            found += inner
        return found

    def _cut(self, value: fx.Node, axis: int, scale: Tensor, shift: Tensor) -> list[Part] | str:
        """Other readers of the whole take channels that this one does not."""
        source = input_of(value)
        channels = self.shapes[source.name][axis]
        mine = _channels(value, axis, channels)
        for user in source.users:
            if user is not value and not mine.isdisjoint(_channels(user, axis, channels)):
                return f"'{user.name}' reads channels of '{source.name}' that are normalised"
        index = sorted(mine)
        whole_scale, whole_shift = scale.new_ones(channels), shift.new_zeros(channels)
        whole_scale[index], whole_shift[index] = scale, shift
        return self._written(source, axis, whole_scale, whole_shift)

    def _axis_before(self, node: fx.Node, axis: int) -> int | None:
        """Where the channels on `axis` of `node` are in what it reads; None: they change."""
        if node.target is torch.permute:
            return cast("tuple[int, ...]", node.args[1])[axis]
        if node.target is slice_dim:
            return axis  # of another dimension
        if node.target is not torch.reshape:
            return None
        before, after = self.shapes[input_of(node).name], self.shapes[node.name]
        kept = len(before) > axis and before[: axis + 1] == after[: axis + 1]
        return axis if kept else None

    def behind(self, value: fx.Node, axis: int, scale: Tensor, shift: Tensor) -> list[Part] | str:
        """What changes so that readers of scale·value + shift may read `value`: first the layer,
        then values on the way to it."""
        if len(value.users) != 1:
            return f"its own output has {len(value.users)} users"
        reader = next(iter(value.users))
        layer = layer_of(self.rewriter, reader)
        if layer is not None:
            why_not = self._why_not_into(reader, layer, axis, value, shift)
            return why_not or [Part(reader, scale, shift)]
        part = self._moved(reader, axis, scale, shift)
        if part is None:
            return f"behind is '{reader.name}', no convolution or linear layer"
        further, at = part
        found = self.behind(reader, at, further.scale, further.shift)
        return found if isinstance(found, str) else [*found, further]

    def _moved(
        self, reader: fx.Node, axis: int, scale: Tensor, shift: Tensor
    ) -> tuple[Part, int] | None:
        """The part of what a permute or a reshape returns, and where its channels are."""
        before, after = self.shapes[input_of(reader).name], self.shapes.get(reader.name, ())
        if reader.target is torch.permute:
            order = cast("tuple[int, ...]", reader.args[1])
            return Part(reader, scale, shift), order.index(axis)
        if reader.target is not torch.reshape:
            return None
        if before[: axis + 1] == after[: axis + 1]:
            return Part(reader, scale, shift), axis
        if after != (*before[:axis], math.prod(before[axis:])):
            return None
        points = after[axis] // before[axis]  # of each channel, one behind the other
        return Part(reader, *(x.repeat_interleave(points) for x in (scale, shift))), axis

    def _why_not_into(
        self, reader: fx.Node, layer: Layer, axis: int, value: fx.Node, shift: Tensor
    ) -> str | None:
        rank = len(self.shapes[value.name])
        if isinstance(layer, nn.Linear) and axis != rank - 1:
            return f"batch norm normalises dimension {axis}, the linear layer behind reads the last"
        if not isinstance(layer, nn.Linear) and axis != rank - 3:
            return f"batch norm normalises dimension {axis}, not the channels of '{reader.name}'"
        if has_padding(layer) and bool(shift.any()):
            return f"the zero padding of '{reader.name}' would see the shift"
        shared = self.usage.why_shared(layer)
        return f"'{reader.name}' cannot change: {shared}" if shared else None


def _channels(node: fx.Node, axis: int, channels: int) -> set[int]:
    """What a reader takes of dimension `axis`."""
    if node.target is slice_dim and node.args[1] == axis:
        return set(range(*cast("tuple[int, int, int]", node.args[2:])))
    return set(range(channels))
