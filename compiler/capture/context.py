"""What a rule is handed: the raw node, its resolved arguments' helpers, the builder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.capture.builder import Builder, Constant, Expanded, Shape
from shrinkc.compiler.capture.observe import BatchInt, TensorShapes
from shrinkc.errors import CaptureError
from shrinkc.passes import ir


@dataclass(frozen=True)
class Context:
    """One raw node being rewritten.

    out         what the raw node computed: TensorShapes, or a tuple of them
    dtype_read  of the first argument, where that is a tensor
    truth_read  whether another argument is a tensor of truth
    """

    b: Builder
    node: fx.Node
    out: Any
    dtype_read: torch.dtype | None = None
    truth_read: bool = False

    @property
    def hint(self) -> str:
        return self.node.name.rstrip("_")

    @property
    def aten(self) -> bool:
        """The raw call is an ATen operator; some have other argument orders than torch's."""
        return isinstance(self.node.target, torch._ops.OpOverload)  # pyright: ignore

    @property
    def out_shapes(self) -> tuple[Shape, ...]:
        """The result's shape at each observed batch size."""
        return self._result.shapes

    @property
    def out_dtype(self) -> torch.dtype:
        """The type that the model computes the result in; the graph has floats all the same."""
        return self._result.dtype

    @property
    def _result(self) -> TensorShapes:
        out = self.out
        if isinstance(out, tuple):
            out = cast("tuple[Any, ...]", out)[0]
        if not isinstance(out, TensorShapes):
            raise self.unsupported("does not return a tensor")
        return out

    def unsupported(self, why: str) -> CaptureError:
        path, name = module_path(self.node), target_name(self.node)
        where = f" in '{path}'" if path not in ("", name) else ""
        return CaptureError(f"node '{self.node.name}' ({name}){where}: {why}")

    def tensor(self, value: Any) -> fx.Node:
        """A graph node for any tensor operand."""
        if isinstance(value, fx.Node):
            return value
        if isinstance(value, Expanded):
            return self._materialise(value)
        if isinstance(value, Constant):
            return self.b.constant(value, self.hint)
        if isinstance(value, Tensor):
            return self.b.constant(Constant(value), self.hint)
        raise self.unsupported(f"takes a tensor, not {type(value).__name__}")

    def operand(self, value: Any) -> fx.Node | float | int:
        """A node or a number for arithmetic: scalar tensors become numbers, unless they are
        parameters, which may still be trained; broadcasts stay."""
        if isinstance(value, Expanded):
            return value.node
        if isinstance(value, Constant) and is_number(value):
            return value.tensor.item()
        if isinstance(value, (int, float)):
            return value
        if isinstance(value, BatchInt):
            raise self.unsupported("computes with the batch size")
        return self.tensor(value)

    def parameter(self, value: Any, what: str) -> Constant | None:
        """A weight: a constant or None."""
        if value is None or isinstance(value, Constant):
            return value
        if isinstance(value, Tensor):
            return Constant(value)
        raise self.unsupported(f"its {what} is computed from the input")

    def weight(self, value: Any) -> Constant:
        """That of a layer, which has one."""
        found = self.parameter(value, "weight")
        if found is None:
            raise self.unsupported("a layer without weight")
        return found

    def refuse_indices(self, wanted: bool) -> None:
        """Of max pooling."""
        if wanted:
            raise self.unsupported("max pooling that returns indices")

    def activation(self, module: nn.Module, x: Any) -> fx.Node:
        return self.b.new_module(self.hint, module, self.tensor(x))

    def reshape_out(self, x: fx.Node) -> fx.Node:
        """To the shape that the raw node had."""
        return self.b.reshape(x, self.out_shapes)

    def _materialise(self, value: Expanded) -> fx.Node:
        # 1 where the batch is, so that the constant does not fix it
        columns = zip(*value.shapes, strict=True)
        shape = [c[0] if len(set(c)) == 1 else 1 for c in columns]
        ones = self.b.constant(Constant(torch.ones(shape)), self.hint)
        return self.b.call(ir.mul, value.node, ones)


def is_number(constant: Constant) -> bool:
    """A tensor without dimensions that is no parameter."""
    return constant.tensor.ndim == 0 and not isinstance(constant.tensor, nn.Parameter)


def target_name(node: fx.Node) -> str:
    target = node.target
    return target if isinstance(target, str) else getattr(target, "__name__", str(target))


def module_path(node: fx.Node) -> str:
    """Of the model's module whose forward calls it; "" is the model itself."""
    stack: Any = node.meta.get("nn_module_stack")
    return str(list(stack.values())[-1][0]) if stack else ""
