"""Which file tensor holds which value, and how its dimensions lie there.

Translations ask for a value in the order they need (`arrange`) and say in which order they left
their result (`define`). A TRANSPOSE or RESHAPE is written only between the two, and once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from shrinkc.compiler.export.ops import Const, Op, Operand, Program, Value
from shrinkc.compiler.export.tflite.builder import ModelBuilder
from shrinkc.compiler.export.tflite.emit import Emitter
from shrinkc.compiler.export.tflite.facts import nonnegative_values, shuffled_convs
from shrinkc.compiler.export.tflite.layout import (
    MAX_RANK,
    NHWC,
    Cuts,
    Layout,
    Order,
    logical,
    moves,
    natural_order,
    stored,
)
from shrinkc.errors import UnsupportedOperatorError


@dataclass(frozen=True)
class View:
    """A value as it lies in a file tensor. The tensor may have another shape than the layout's
    dimensions in any order: only its row-major elements count."""

    tensor: int
    layout: Layout


def boundary_order(value: Value) -> Order:
    """How a graph input or output is stored: its PyTorch dimensions in file order. Images,
    (N, C, H, W), are NHWC in a TFLite file; everything else is as in PyTorch."""
    return NHWC if len(value.shape) == 4 else logical(len(value.shape))


class Writer:
    """State of one translation: the operators written so far and where every value is."""

    def __init__(self, program: Program) -> None:
        self.emit = Emitter(ModelBuilder())
        self.nonnegative = nonnegative_values(program)
        self.shuffled_convs = shuffled_convs(program)
        self._views: dict[str, View] = {}
        self._constants: dict[str, Const] = {}
        self.joined: dict[tuple[int, tuple[int, ...]], int] = {}  # (axis, parts) → concatenation
        self.cut_out: dict[tuple[int, Cuts], int] = {}  # (tensor, cuts) → their result
        self.cut_from: dict[int, tuple[int, Cuts]] = {}  # and back
        self.truths: dict[int, int] = {}  # tensor of 0 and 1 → the same as bool
        self.whole: dict[int, int] = {}  # whole numbers as floats → the same as integers
        self._results: set[int] = set()
        self._place = ("", "")  # node and operator that is being translated

    def add_input(self, value: Value) -> int:
        """The tensor of a graph input."""
        order = boundary_order(value)
        shape = tuple(value.shape[d] for d in order)
        tensor = self.emit.builder.tensor(value.name, shape, value.dtype)
        self.define(value, tensor, order)
        self._results.add(tensor)
        return tensor

    def add_outputs(self, values: Sequence[Value], *, copied: bool = False) -> list[int]:
        """The tensors of the graph's outputs: each has one of its own, named after the value unless
        an input or another output is; `copied`: or one that operators read, other copies too."""
        tensors: list[int] = []
        for value in values:
            self._output(value)
            tensors.append(self.arrange_view(self.view(value), boundary_order(value)))
        often = Counter(tensors)
        return [
            self._add_output(value, tensor, copied=copied, shared=often[tensor] > 1)
            for value, tensor in zip(values, tensors, strict=True)
        ]

    def _add_output(self, value: Value, tensor: int, *, copied: bool, shared: bool) -> int:
        self._output(value)
        if copied and (shared or self.emit.builder.is_read(tensor)):
            tensor = self.emit.copy(tensor, self.emit.shape(tensor))
            self._results.add(tensor)
            return tensor  # the name is that of what the operators read, as ranges know it
        if tensor in self._results or isinstance(self.resolve(value), Const):
            tensor = self.emit.copy(tensor, self.emit.shape(tensor))
        self._results.add(tensor)
        if self.emit.builder.named(value.name) not in self._results:
            self.emit.builder.rename(tensor, value.name)
        return tensor

    def _output(self, value: Value) -> None:
        self._place = (value.name, "output")
        self.emit.enter(value.name)

    def enter(self, op: Op) -> None:
        """What follows translates `op`: it names tensors and errors."""
        self._place = (op.name, type(op).__name__)
        self.emit.enter(op.name)

    def unsupported(self, why: str) -> UnsupportedOperatorError:
        """The error for the current operator."""
        node, operator = self._place
        return UnsupportedOperatorError(node, operator, "TFLite", why)

    def resolve(self, operand: Operand) -> Operand:
        """The constant behind a value that has turned out to be one."""
        return self._constants.get(operand.name, operand)

    def view(self, operand: Operand, rank: int | None = None) -> View:
        """Where the operand is; with `rank`, broadcast to it by dimensions of size 1 in front."""
        operand = self.resolve(operand)
        if isinstance(operand, Const):
            tensor = self.emit.builder.constant(operand.name, operand.array)
            found = View(tensor, stored(operand.shape, logical(len(operand.shape))))
        else:
            found = self._views[operand.name]
        missing = 0 if rank is None else rank - len(found.layout.dims)
        if missing <= 0:
            return found
        return View(found.tensor, Layout(found.layout.factors, ((),) * missing + found.layout.dims))

    def order(self, operand: Operand, rank: int | None = None) -> Order:
        """The order in which the operand needs no TRANSPOSE, or the nearest to one."""
        view = self.view(operand, rank)
        return natural_order(view.layout, self.emit.shape(view.tensor))

    def arrange(self, operand: Operand, order: Order, *, exact: bool = True) -> int:
        """The tensor with the operand's dimensions (after broadcasting to the rank of `order`)
        stored in `order`. Not `exact`: leading dimensions of size 1 may be missing or too many,
        as for an operand of an operator that broadcasts."""
        if len(order) > MAX_RANK:
            raise self.unsupported(f"a tensor of {len(order)} dimensions, runtimes have {MAX_RANK}")
        operand = self.resolve(operand)
        if isinstance(operand, Const):
            return self._arranged_constant(operand, order)
        view = self.view(operand, len(order))
        if not exact and view.layout.is_stored_in(order):
            target = tuple(view.layout.shape[d] for d in order)
            if _without_ones(self.emit.shape(view.tensor)) == _without_ones(target):
                return view.tensor
        return self.arrange_view(view, order)

    def arrange_view(self, view: View, order: Order) -> int:
        """As `arrange`."""
        shape = view.layout.shape
        target = tuple(shape[d] for d in order)
        tensor = view.tensor
        for step in moves(view.layout, self.emit.shape(tensor), order):
            tensor = self.emit.transpose(self.emit.reshape(tensor, step.before), step.perm)
        return self.emit.reshape(tensor, target)

    def image(self, x: Value) -> View:
        """An (N, C, H, W) value in an NHWC tensor, the factors of C among themselves in any
        order: what treats all channels alike, or can permute its weights, need not sort them."""
        view = self.view(x)
        batch, channels, height, width = view.layout.dims
        places = (*batch, *height, *width, *sorted(channels))
        if places != tuple(range(len(places))):
            return View(self.arrange(x, NHWC), stored(x.shape, NHWC))
        shape = tuple(x.shape[d] for d in NHWC)
        return View(self.emit.reshape(view.tensor, shape), view.layout)

    def define_image(self, value: Value, tensor: int, like: View) -> None:
        """`value` is in an NHWC tensor, its channels ordered as those of the image `like`."""
        spatial = stored((value.shape[0], *value.shape[2:]), (0, 1, 2))
        channels = like.layout.dims[1]
        shift = len(spatial.factors) - (len(like.layout.factors) - len(channels))
        factors = (*spatial.factors, *(like.layout.factors[f] for f in sorted(channels)))
        batch, *size = spatial.dims
        dims = (batch, tuple(f + shift for f in channels), *size)
        self.define_view(value, View(tensor, Layout(factors, dims)))

    def _arranged_constant(self, constant: Const, order: Order) -> int:
        array = constant.array.reshape((1,) * (len(order) - constant.array.ndim) + constant.shape)
        return self.emit.builder.constant(constant.name, array.transpose(order))

    def common_order(self, operands: Sequence[Operand], rank: int) -> Order:
        """The order of one of the operands that moves the fewest elements of the others;
        channels last if that costs no more."""
        views = [self.view(x, rank) for x in map(self.resolve, operands) if isinstance(x, Value)]
        sizes = [prod(view.layout.factors) for view in views]
        candidates = [
            natural_order(view.layout, self.emit.shape(view.tensor))
            for _, view in sorted(
                zip(sizes, views, strict=True), key=lambda item: item[0], reverse=True
            )
        ]

        def cost(order: Order) -> tuple[int, bool]:
            moved = (
                n
                for n, view in zip(sizes, views, strict=True)
                if not view.layout.is_stored_in(order)
            )
            return sum(moved), order != NHWC

        return min(candidates, key=cost, default=logical(rank))

    def define(self, value: Value, tensor: int, order: Order) -> None:
        """`value` is in `tensor`, its dimensions in `order`."""
        self.define_view(value, View(tensor, stored(value.shape, order)))

    def define_view(self, value: Value, view: View) -> None:
        """`value` is there; a tensor computed for it takes its name."""
        assert view.layout.shape == value.shape
        assert prod(self.emit.shape(view.tensor)) == prod(value.shape)
        self._views[value.name] = view
        if self.emit.is_fresh(view.tensor):
            self.emit.builder.rename(view.tensor, value.name)

    def define_constant(self, value: Value, constant: Const) -> None:
        """`value` does not depend on the input."""
        self._constants[value.name] = constant


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[next((i for i, size in enumerate(shape) if size != 1), len(shape)) :]
