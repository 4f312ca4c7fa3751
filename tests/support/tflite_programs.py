"""Builds deployment programs by hand and runs TFLite files, for the TFLite writer's tests."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from program_reference import run_reference

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.tflite.write import boundary_order, write_tflite

PLAIN = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES


class Net:
    """A program under construction; methods append an operator and return its output."""

    def __init__(self, *shapes: tuple[int, ...], seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.inputs = tuple(ops.Value(f"input{i}", shape) for i, shape in enumerate(shapes))
        self.ops: list[ops.Op] = []

    @property
    def x(self) -> ops.Value:
        return self.inputs[0]

    def array(self, *shape: int) -> np.ndarray:
        return self.random.standard_normal(shape).astype(np.float32)

    def const(self, *shape: int) -> ops.Const:
        return ops.Const(f"const{self.random.integers(1 << 30)}", self.array(*shape))

    def add(self, kind: type[ops.Op], shape: Sequence[int], *fields: object, **more: object):
        name = f"{kind.__name__.lower()}{len(self.ops)}"
        op = kind(name, ops.Value(name, tuple(shape)), *fields, **more)
        self.ops.append(op)
        return op.output

    def conv(self, x: ops.Value, channels: int, kernel=(3, 3), groups=1, **more: object):
        pads = more.get("pads", (0, 0, 0, 0))
        stride, dilation = more.get("stride", (1, 1)), more.get("dilation", (1, 1))
        size = _out_size(x.shape[2:], kernel, stride, pads, dilation)
        weight = self.array(channels, x.shape[1] // groups, *kernel)
        shape = (x.shape[0], channels, *size)
        return self.add(ops.Conv, shape, x, weight, self.array(channels), groups=groups, **more)

    def conv_transpose(self, x: ops.Value, channels: int, kernel=(3, 3), groups=1, **more: object):
        pads, extra = more.get("pads", (0, 0, 0, 0)), more.get("output_padding", (0, 0))
        stride, dilation = more.get("stride", (1, 1)), more.get("dilation", (1, 1))
        size = [
            (x.shape[2 + i] - 1) * stride[i]
            + dilation[i] * (kernel[i] - 1)
            + (extra[i] + 1 - pads[i] - pads[2 + i])
            for i in (0, 1)
        ]
        weight = self.array(x.shape[1], channels // groups, *kernel)
        shape = (x.shape[0], channels, *size)
        bias = self.array(channels)
        return self.add(ops.ConvTranspose, shape, x, weight, bias, groups=groups, **more)

    def pool(self, kind: type[ops.Op], x: ops.Value, kernel, stride, pads=(0, 0, 0, 0), **more):
        size = _out_size(x.shape[2:], kernel, stride, pads, (1, 1))
        return self.add(kind, (*x.shape[:2], *size), x, kernel, stride, pads, **more)

    def linear(self, x: ops.Value, features: int, **more: object):
        weight = self.array(features, x.shape[-1])
        shape = (*x.shape[:-1], features)
        return self.add(ops.Linear, shape, x, weight, self.array(features), **more)

    def affine(self, x: ops.Value, **more: object):
        vectors = self.array(x.shape[1]), self.array(x.shape[1])
        return self.add(ops.ChannelAffine, x.shape, x, *vectors, **more)

    def unary(self, x: ops.Value, kind: str, *parameters: float):
        return self.add(ops.Unary, x.shape, x, kind, parameters)

    def binary(self, a: ops.Operand, b: ops.Operand, kind: str = "add", **more: object):
        return self.add(ops.Binary, np.broadcast_shapes(a.shape, b.shape), a, b, kind, **more)

    def matmul(self, a: ops.Operand, b: ops.Operand):
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        return self.add(ops.MatMul, (*batch, a.shape[-2], b.shape[-1]), a, b)

    def reshape(self, x: ops.Value, *shape: int):
        return self.add(ops.Reshape, shape, x)

    def transpose(self, x: ops.Value, *perm: int):
        return self.add(ops.Transpose, [x.shape[p] for p in perm], x, perm)

    def concat(self, parts: Sequence[ops.Operand], axis: int):
        shape = list(parts[0].shape)
        shape[axis] = sum(part.shape[axis] for part in parts)
        return self.add(ops.Concat, shape, tuple(parts), axis)

    def slice(self, x: ops.Value, axis: int, start: int, stop: int, step: int = 1):
        shape = list(x.shape)
        shape[axis] = len(range(start, stop, step))
        return self.add(ops.Slice, shape, x, axis, start, stop, step)

    def pad(self, x: ops.Value, before, after, mode: str = "constant", value: float = 0.0):
        shape = np.add(np.add(x.shape, before), after).tolist()
        return self.add(ops.Pad, shape, x, tuple(before), tuple(after), mode, value)

    def reduce(self, x: ops.Value, kind: str, axes: tuple[int, ...], keepdims: bool = True):
        sizes = enumerate(x.shape)
        shape = [1 if d in axes else n for d, n in sizes if keepdims or d not in axes]
        return self.add(ops.Reduce, shape, x, kind, axes, keepdims)

    def layer_norm(self, x: ops.Value, dims: int = 1):
        shape = x.shape[len(x.shape) - dims :]
        arrays = self.array(*shape), self.array(*shape)
        return self.add(ops.LayerNorm, x.shape, x, *arrays, 1e-5)

    def softmax(self, x: ops.Value, axis: int):
        return self.add(ops.Softmax, x.shape, x, axis)

    def program(self, *outputs: ops.Value) -> ops.Program:
        return ops.Program(self.inputs, tuple(self.ops), outputs or (self.ops[-1].output,))


def _out_size(size, kernel, stride, pads, dilation):
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    return [(size[i] + pads[i] + pads[2 + i] - reach[i]) // stride[i] + 1 for i in (0, 1)]


def run_tflite(
    program: ops.Program, data: bytes, inputs: Sequence[np.ndarray], plain: bool = False
) -> list[np.ndarray]:
    """The file's outputs in PyTorch's layout; `plain`: without XNNPACK.

    Plain kernels keep all tensors: the runtime's memory planner (LiteRT 2.3) overwrites a tensor
    that two operators read if one of them is a RESHAPE in front of an in-place operator.
    """
    interpreter = Interpreter(
        model_content=data,
        num_threads=1,
        experimental_op_resolver_type=PLAIN if plain else OpResolverType.AUTO,
        experimental_preserve_all_tensors=plain,
    )
    interpreter.allocate_tensors()
    arriving = zip(interpreter.get_input_details(), program.inputs, inputs, strict=True)
    for detail, value, x in arriving:
        stored = np.ascontiguousarray(x.transpose(boundary_order(value)))
        interpreter.set_tensor(detail["index"], stored)
    interpreter.invoke()
    leaving = zip(interpreter.get_output_details(), program.outputs, strict=True)
    return [
        interpreter.get_tensor(detail["index"]).transpose(np.argsort(boundary_order(value)))
        for detail, value in leaving
    ]


def operand_counts(data: bytes, name: str) -> list[int]:
    """How many tensors each operator of this name reads."""
    interpreter = Interpreter(model_content=data, experimental_op_resolver_type=PLAIN)
    details = interpreter._get_ops_details()
    return [len(detail["inputs"]) for detail in details if detail["op_name"] == name]


def operators(data: bytes) -> Counter[str]:
    """Operator names in a file."""
    interpreter = Interpreter(model_content=data, experimental_op_resolver_type=PLAIN)
    return Counter(detail["op_name"] for detail in interpreter._get_ops_details())


def check(
    program: ops.Program, *, scale: float = 1.0, positive: bool = False, tolerance: float = 1e-5
) -> Counter[str]:
    """The file computes what the reference computes, with XNNPACK and without: every element
    within `tolerance` of the output's range. Returns the operators written."""
    random = np.random.default_rng(1)
    inputs = [
        (scale * random.standard_normal(value.shape)).astype(np.float32) for value in program.inputs
    ]
    if positive:
        inputs = [np.abs(x) + np.float32(0.1) for x in inputs]
    data = write_tflite(program)
    expected = run_reference(program, inputs)
    for plain in (False, True):
        for value, want, got in zip(
            program.outputs, expected, run_tflite(program, data, inputs, plain), strict=True
        ):
            assert got.shape == want.shape == value.shape
            error = np.abs(got - want).max() / max(np.abs(want).max(), 1e-6)
            assert error <= tolerance, f"{value.name}, plain={plain}: {error:.2e}"
    return operators(data)
