"""Raw graph → canonical graph: every tensor node is handed to its rule."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from shrinkc.compiler.capture import refused
from shrinkc.compiler.capture.builder import Builder, Constant, Expanded
from shrinkc.compiler.capture.context import Context, target_name
from shrinkc.compiler.capture.lift import pair
from shrinkc.compiler.capture.module_rules import MODULE_RULES
from shrinkc.compiler.capture.observe import (
    BatchInt,
    Observation,
    TensorShape,
    TensorShapes,
    combine,
)
from shrinkc.compiler.capture.rules import (
    activation,
    arithmetic,
    conv,
    logic,
    matrix,
    norm,
    order,
    pool,
    reduce,
    resize,
    shape,
    volume,
)
from shrinkc.compiler.capture.rules.composed import einsum, functions, products, scans
from shrinkc.compiler.capture.rules.lookup import gather, sampling, unpool
from shrinkc.compiler.capture.rules.sequence import embedding, fourier, recurrent, spectrum
from shrinkc.compiler.capture.writes import Place
from shrinkc.compiler.reference.reference import leaves
from shrinkc.errors import CaptureError
from shrinkc.passes import ir

RULES: dict[str, Callable[..., Any]] = {
    **arithmetic.RULES,
    **logic.RULES,
    **order.RULES,
    **reduce.RULES,
    **matrix.RULES,
    **shape.RULES,
    **conv.RULES,
    **volume.RULES,
    **norm.RULES,
    **activation.RULES,
    **pool.RULES,
    **resize.RULES,
    **functions.RULES,
    **einsum.RULES,
    **products.RULES,
    **scans.RULES,
    **gather.RULES,
    **sampling.RULES,
    **unpool.RULES,
    **refused.RULES,
    **recurrent.RULES,
    **embedding.RULES,
    **spectrum.RULES,
    **fourier.RULES,
}
COMPLEX_RULES = spectrum.COMPLEX_RULES | fourier.COMPLEX_RULES

COMPLEX = "computes with complex numbers; take abs, real, imag or view_as_real of them first"
_op: Any = operator  # typeshed leaves some of its functions without types
# Functions whose __name__ does not say what they are.
_NAMED: dict[Any, str] = {
    F.max_pool2d: "max_pool2d",
    F.max_pool1d: "max_pool1d",
    F.adaptive_max_pool2d: "adaptive_max_pool2d",
    F.adaptive_max_pool1d: "adaptive_max_pool1d",
    F.max_pool3d: "max_pool3d",
    F.adaptive_max_pool3d: "adaptive_max_pool3d",
    _op.and_: "bitwise_and",  # an underscore behind a name says in place elsewhere
    _op.or_: "bitwise_or",
}
_IN_PLACE_OPERATORS = {
    f"i{name}": name
    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul")
}


def convert(
    raw: fx.GraphModule,
    seen: tuple[Observation, ...],
    batches: tuple[int, ...],
    reserved: frozenset[str],
    inputs: tuple[Tensor, ...],
) -> fx.GraphModule:
    """The canonical graph of a raw one that was observed at each of `batches`, first on `inputs`.

    Raises CaptureError that names the node and operator that no rule covers.
    """
    return _Converter(raw, seen, Builder(batches, reserved), inputs).run()


class _Converter:
    def __init__(
        self,
        raw: fx.GraphModule,
        seen: tuple[Observation, ...],
        builder: Builder,
        inputs: tuple[Tensor, ...],
    ) -> None:
        self.raw, self.seen, self.b = raw, seen, builder
        self.inputs = iter(inputs)
        self.writes = seen[0].writes
        self.env: dict[fx.Node, Any] = {}
        self.written: dict[tuple[Place, ...], Any] = {}  # what lies there now

    def run(self) -> fx.GraphModule:
        for node in self.raw.graph.nodes:
            if node.op == "output":
                self._output(node)
            else:
                self.env[node] = self._value(node)
                self._write(node)
        graph_module = fx.GraphModule(_own(self.b.attributes), self.b.graph)
        inputs = [n for n in self.b.graph.nodes if n.op == "placeholder"]
        graph_module.meta["input_shapes"] = {n.name: self.b.shape(n) for n in inputs}
        for node in self.b.graph.nodes:
            node.meta = {}
        return graph_module

    def _value(self, node: fx.Node) -> Any:
        try:
            observed = combine(tuple(o.values[node] for o in self.seen))
        except CaptureError as error:
            raise Context(self.b, node, None).unsupported(str(error)) from None
        if node.op == "placeholder":
            if not isinstance(observed, TensorShapes):
                return observed
            return self._input(node.name, observed)
        if node.op == "get_attr" and self.writes.at[node] in self.written:
            return self.written[self.writes.at[node]]
        if all(node in one.constants for one in self.seen):
            return self._constant(node)
        if not _holds_tensor(observed):
            return observed
        args = map_arg(node.args, lambda n: self.env[n])
        kwargs = dict(map_arg(node.kwargs, lambda n: self.env[n]))
        if node in self.writes.into:
            kwargs.pop("out", None)
        types = self._dtype_read(node), self._truth_read(node)
        return self._apply(Context(self.b, node, observed, *types), args, kwargs)

    def _input(self, name: str, seen: TensorShapes) -> fx.Node:
        """A placeholder; whole numbers are floats behind it."""
        node, example = self.b.placeholder(name, seen.shapes), next(self.inputs)
        if seen.dtype.is_floating_point:
            return node
        dtype = str(seen.dtype).removeprefix("torch.")
        limits = (int(example.min()), int(example.max()))
        return self.b.call(ir.numbers, node, dtype, *limits)

    def _write(self, node: fx.Node) -> None:
        """Whoever reads what it wrote into, under any name, reads its result from now on."""
        if node in self.writes.into:
            self.written[self.writes.into[node]] = self.env[node]
            for name in self.writes.names(node):
                self.env[name] = self.env[node]

    def _dtype_read(self, node: fx.Node) -> torch.dtype | None:
        """Of the first argument, where it is a tensor."""
        first = node.args[0] if node.args else None
        seen = self.seen[0].values.get(first) if isinstance(first, fx.Node) else None
        return seen.dtype if isinstance(seen, TensorShape) else None

    def _truth_read(self, node: fx.Node) -> bool:
        others = (n for n in node.all_input_nodes if n is not next(iter(node.args), None))
        seen = (self.seen[0].values.get(n) for n in others)
        return any(isinstance(x, TensorShape) and x.dtype == torch.bool for x in seen)

    def _apply(self, c: Context, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if c.node.op == "call_module":
            return self._module(c, args, kwargs)
        name = _operator(c.node)
        first = args[0] if args else kwargs.get("input")
        number = any(isinstance(x, spectrum.Complex) for x in (first, *args[1:2]))
        rule = (COMPLEX_RULES if number else RULES).get(name)
        if number and rule is None:
            raise c.unsupported(COMPLEX)
        if rule is None:
            raise c.unsupported("no rule for this operator")
        if c.node.target is getattr:  # x.mT
            args = args[:1]
        for first in ("input", "self"):  # given by name
            if first in kwargs:
                kwargs = dict(kwargs)
                args = (kwargs.pop(first), *args)
        try:
            made = rule(c, *args, **kwargs)
        except (TypeError, ValueError, KeyError, IndexError) as error:
            raise c.unsupported(f"called in a form no rule covers ({error})") from error
        return self._as_wide(c, made, args)

    def _as_wide(self, c: Context, made: Any, args: tuple[Any, ...]) -> Any:
        """What was computed of a value before it is broadcast is broadcast like it."""
        read_narrow = isinstance(made, fx.Node) and any(isinstance(a, Expanded) for a in args)
        if not read_narrow or self.b.shapes(made) == c.out_shapes:
            return made
        return Expanded(made, c.out_shapes)

    def _module(self, c: Context, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        path = cast(str, c.node.target)
        module = self.raw.get_submodule(path)
        if isinstance(module, recurrent.MODULES):
            return recurrent.module(c, path, module, *args, **kwargs)
        if type(module) in MODULE_RULES:
            function, rest = MODULE_RULES[type(module)](module)
            return self._apply_function(c, function, (args[0], *rest))
        x = c.tensor(args[0])
        if isinstance(module, nn.Conv2d) and module.padding_mode != "zeros":
            padded = _padded_conv(c, x, module)
            return self.b.module(path, padded[1], padded[0])
        if isinstance(module, nn.Conv2d) and isinstance(module.padding, str):
            return conv.conv2d(
                *(c, x, Constant(module.weight, f"{path}.weight")),
                None if module.bias is None else Constant(module.bias, f"{path}.bias"),
                *(module.stride, module.padding, module.dilation, module.groups),
            )
        if isinstance(module, nn.Upsample):
            return resize.upsample(c, x, module)
        if isinstance(module, nn.MaxPool2d) and module.return_indices:
            windows = (module.kernel_size, module.stride, module.padding, module.dilation)
            return unpool.with_indices(c, x, *windows, module.ceil_mode)
        if isinstance(module, nn.AdaptiveMaxPool2d) and module.return_indices:
            return unpool.adaptive_with_indices(c, x, module.output_size)
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and module.running_mean is None:
            raise c.unsupported("batch norm on the statistics of the batch")
        if isinstance(module, nn.Softmax):
            return activation.softmax(c, x, module.dim)
        if isinstance(module, nn.LogSoftmax):
            return activation.log_softmax(c, x, module.dim)
        if type(module) not in ir.MODULES:
            raise c.unsupported(f"module class {type(module).__name__}")
        return self.b.module(path, module, x)

    def _apply_function(
        self, c: Context, function: Callable[..., Any], args: tuple[Any, ...]
    ) -> Any:
        return RULES[function_name(function)](c, *args)

    def _constant(self, node: fx.Node) -> Constant | list[Constant]:
        if node.op == "get_attr":
            path = cast(str, node.target)
            owner, _, name = path.rpartition(".")
            return Constant(getattr(self.raw.get_submodule(owner), name), path)
        values = [o.constants[node] for o in self.seen]
        if isinstance(values[0], Tensor):
            return self._at_any_batch(node, values)
        return [self._at_any_batch(node, column) for column in zip(*values, strict=True)]

    def _at_any_batch(self, node: fx.Node, tensors: Sequence[Tensor]) -> Constant:
        """Made at the batch's size: one of it is enough where all are the same."""
        value = tensors[0]
        for dim, sizes in enumerate(zip(*(t.shape for t in tensors), strict=True)):
            if len(set(sizes)) > 1:
                value = value.narrow(dim, 0, 1)
        for tensor in tensors:
            if not torch.equal(value.expand_as(tensor).nan_to_num(), tensor.nan_to_num()):
                raise Context(self.b, node, None).unsupported("its numbers follow the batch size")
        return Constant(value)

    def _output(self, node: fx.Node) -> None:
        context = Context(self.b, node, None)
        found = [n for n in leaves(node.args[0]) if isinstance(n, fx.Node)]
        if any(isinstance(value, BatchInt) for n in found for value in leaves(self.env[n])):
            raise context.unsupported("returns a number that follows the batch size")
        outputs = [
            self._of_dtype(context.tensor(value), seen.dtype)
            for n in found
            for value, seen in _each(self.env[n], self.seen[0].values[n])
        ]
        if not outputs:
            raise CaptureError("the model returns no tensor")
        self.b.graph.output(tuple(outputs))

    def _of_dtype(self, x: fx.Node, dtype: torch.dtype) -> fx.Node:
        """Whole numbers go back to the type that the model returns."""
        if dtype.is_floating_point:
            return x
        name = str(dtype).removeprefix("torch.")
        if name not in ir.INTEGERS:
            raise CaptureError(f"the model returns {name}; return int64, int32 or bool")
        return self.b.call(ir.integers, x, name)


def _own(attributes: dict[str, nn.Module | Tensor]) -> dict[str, Any]:
    """A deep copy with sharing kept, so that the user's model is never written to.

    Nothing works in place there: values that are kept for comparison must not change.
    """
    own = copy.deepcopy(dict(attributes))
    for value in own.values():
        if isinstance(value, nn.Module) and getattr(value, "inplace", False):
            setattr(value, "inplace", False)  # noqa: B010
    return own


def _each(value: Any, seen: Any) -> list[tuple[Any, TensorShape]]:
    """The tensors of an output, which may be a tuple of them, beside what was seen of each."""
    if isinstance(seen, TensorShape):
        return [(value, seen)]
    if not isinstance(seen, tuple):
        return []
    pairs = zip(value, cast("tuple[Any, ...]", seen), strict=True)
    return [found for pair in pairs for found in _each(*pair)]


def _holds_tensor(observed: Any) -> bool:
    if isinstance(observed, tuple):
        return any(_holds_tensor(item) for item in cast("tuple[Any, ...]", observed))
    return isinstance(observed, TensorShapes)


def function_name(function: Callable[..., Any]) -> str:
    """What rules call it."""
    return _NAMED.get(function) or getattr(function, "__name__", "")


def _operator(node: fx.Node) -> str:
    if node.op == "call_method":
        name = cast(str, node.target)
    elif isinstance(node.target, torch._ops.OpOverload):  # pyright: ignore
        name = node.target._schema.name.split("::")[1]  # pyright: ignore
    elif node.target is getattr:
        name = cast(str, node.args[1])
    else:
        name = _NAMED.get(node.target) or target_name(node)
    name = _IN_PLACE_OPERATORS.get(name, name)
    return name if name in RULES else name.rstrip("_")


def _padded_conv(c: Context, x: fx.Node, padded: nn.Conv2d) -> tuple[fx.Node, nn.Conv2d]:
    """Reflect, replicate, circular: the padding in front, the convolution without."""
    if isinstance(padded.padding, str):
        raise c.unsupported(f"padding mode {padded.padding_mode} by '{padded.padding}'")
    height, width = pair(padded.padding)
    amounts = (width, width, height, height)
    bare = copy.copy(padded)
    bare.padding_mode, bare.padding = "zeros", (0, 0)
    bare._reversed_padding_repeated_twice = [0, 0, 0, 0]  # pyright: ignore
    return shape.pad(c, x, amounts, padded.padding_mode), bare
