"""Deployment program → ONNX, one operator at a time, at any opset from 13 on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from shrinkc.compiler.export import ops
from shrinkc.errors import ExportError, InputError

OPSETS = range(13, onnx.defs.onnx_opset_version() + 1)
DEFAULT_OPSET = 17
MAX_BYTES = 2**31 - 2**20  # a protobuf message holds 2 GiB


def write_onnx(program: ops.Program, opset: int = DEFAULT_OPSET) -> onnx.ModelProto:
    """The program as an ONNX model; the batch dimension is dynamic where the program allows.

    Tensor names are the program's, so that a difference can be traced to a graph node.
    Raises InputError for an opset out of range, ExportError for weights beyond protobuf's 2 GiB.
    """
    if opset not in OPSETS:
        raise InputError(f"`opset` {opset}: give {OPSETS.start} to {OPSETS.stop - 1}")
    writer = _Writer(opset, program.dynamic_batch)
    for op in program.ops:
        _WRITERS[type(op)](writer, op)
    if writer.bytes > MAX_BYTES:
        raise ExportError("the weights exceed the 2 GiB that one ONNX file can hold")
    graph = helper.make_graph(
        writer.nodes,
        "shrinkc",
        [writer.info(v) for v in program.inputs],
        [writer.info(v) for v in program.outputs],
        writer.initializers,
    )
    imports = [helper.make_opsetid("", opset)]
    model = helper.make_model(
        graph,
        opset_imports=imports,
        ir_version=helper.find_min_ir_version_for(imports),
        producer_name="shrinkc",
    )
    return model


_TYPES: dict[ops.DType, int] = {
    "float32": TensorProto.FLOAT,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "bool": TensorProto.BOOL,
}


class _Writer:
    def __init__(self, opset: int, dynamic: bool) -> None:
        self.opset, self.dynamic = opset, dynamic
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.bytes = 0
        self.truths: dict[str, str] = {}  # 0 and 1 → the same as bool
        self._written: dict[tuple[int, str], str] = {}
        self._names: set[str] = set()
        self._alive: list[NDArray[Any]] = []  # ids stay unique while the arrays live

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        name = f"{output}/{kind}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name, **attributes))
        return output

    def array(self, name: str, array: NDArray[Any], view: str = "") -> str:
        """An initializer; the same array is written once. `view` tells reshaped uses apart."""
        known = self._written.get((id(array), view))
        if known is not None:
            return known
        unique, n = name, 0
        while unique in self._names:
            n += 1
            unique = f"{name}_{n}"
        self._names.add(unique)
        self._written[id(array), view] = unique
        self._alive.append(array)
        shaped = array.T.copy() if view == "T" else array
        self.initializers.append(numpy_helper.from_array(shaped, unique))
        self.bytes += array.nbytes
        return unique

    def numbers(self, name: str, values: Sequence[int] | Sequence[float], kind: Any) -> str:
        return self.array(name, np.asarray(values, kind))

    def operand(self, operand: ops.Operand) -> str:
        if isinstance(operand, ops.Const):
            return self.array(operand.name, operand.array)
        return operand.name

    def shape(self, value: ops.Value) -> list[int]:
        """With −1 for the dimension that follows the batch."""
        dims = list(value.shape)
        if self.dynamic and value.batch_axis is not None:
            dims[value.batch_axis] = -1
        return dims

    def info(self, value: ops.Value) -> onnx.ValueInfoProto:
        dims: list[int | str] = [*value.shape]
        axis = value.batch_axis
        if self.dynamic and axis is not None:
            dims[axis] = "batch"
        return helper.make_tensor_value_info(value.name, _TYPES[value.dtype], dims)

    def cast(self, x: str, out: str, dtype: ops.DType) -> str:
        return self.node("Cast", [x], out, to=_TYPES[dtype])

    def activated(self, op: Any, write: Callable[[str], object]) -> None:
        """`write` the operator, then its fused activation."""
        final = op.output.name
        if op.activation == "none":
            write(final)
            return
        before = f"{final}/linear"
        write(before)
        self.unary(final, before, op.activation, ())

    def unary(self, out: str, x: str, kind: str, p: tuple[float, ...]) -> None:
        simple = _UNARY.get(kind)
        if simple is not None:
            operator, attributes = simple
            names = dict(zip(attributes, p, strict=True))
            self.node(operator, [x], out, **names)
        else:
            _COMPOSED[kind](self, out, x, p)

    def scalar(self, out: str, name: str, value: float) -> str:
        return self.array(f"{out}/{name}", np.asarray(value, np.float32))


# --- element by element --------------------------------------------------------------------------

_UNARY: dict[str, tuple[str, tuple[str, ...]]] = {
    "relu": ("Relu", ()),
    "leaky_relu": ("LeakyRelu", ("alpha",)),
    "elu": ("Elu", ("alpha",)),
    "sigmoid": ("Sigmoid", ()),
    "tanh": ("Tanh", ()),
    "softplus": ("Softplus", ()),
    "sqrt": ("Sqrt", ()),
    "exp": ("Exp", ()),
    "log": ("Log", ()),
    "abs": ("Abs", ()),
    "neg": ("Neg", ()),
    "sign": ("Sign", ()),
    "erf": ("Erf", ()),
    "floor": ("Floor", ()),
    "ceil": ("Ceil", ()),
    "round": ("Round", ()),
    "sin": ("Sin", ()),
    "cos": ("Cos", ()),
}


def _relu6(w: _Writer, out: str, x: str, p: tuple[float, ...]) -> None:
    _clip(w, out, x, (0.0, 6.0))


def _clip(w: _Writer, out: str, x: str, p: tuple[float, ...]) -> None:
    low, high = p
    limits = [
        "" if math.isinf(low) else w.scalar(out, "low", low),
        "" if math.isinf(high) else w.scalar(out, "high", high),
    ]
    w.node("Clip", [x, *limits], out)


def _hard_sigmoid(w: _Writer, out: str, x: str, p: tuple[float, ...]) -> None:
    w.node("HardSigmoid", [x], out, alpha=1 / 6, beta=0.5)


def _hard_swish(w: _Writer, out: str, x: str, p: tuple[float, ...]) -> None:
    if w.opset >= 14:
        w.node("HardSwish", [x], out)
        return
    _hard_sigmoid(w, f"{out}/gate", x, ())
    w.node("Mul", [x, f"{out}/gate"], out)


def _silu(w: _Writer, out: str, x: str, p: tuple[float, ...]) -> None:
    gate = w.node("Sigmoid", [x], f"{out}/gate")
    w.node("Mul", [x, gate], out)


def _mish(w: _Writer, out: str, x: str, p: tuple[float, ...]) -> None:
    """x · tanh(ln(1 + eˣ)) = x · n / (n + 2), n = eˣ (eˣ + 2); the ratio is 1 from x = 20
    on. ONNX Runtime's own Softplus takes several times as long."""
    two = w.scalar(out, "two", 2.0)
    limited = w.node("Min", [x, w.scalar(out, "limit", 20.0)], f"{out}/limited")
    power = w.node("Exp", [limited], f"{out}/power")
    n = w.node("Mul", [power, w.node("Add", [power, two], f"{out}/sum")], f"{out}/n")
    gate = w.node("Div", [n, w.node("Add", [n, two], f"{out}/divisor")], f"{out}/gate")
    w.node("Mul", [x, gate], out)


def _gelu(w: _Writer, out: str, x: str, p: tuple[float, ...]) -> None:
    """x/2 · (1 + erf(x/√2)), in the form that ONNX Runtime fuses"""
    scaled = w.node("Div", [x, w.scalar(out, "root2", math.sqrt(2))], f"{out}/scaled")
    _halved(w, out, x, w.node("Erf", [scaled], f"{out}/erf"))


def _gelu_tanh(w: _Writer, out: str, x: str, p: tuple[float, ...]) -> None:
    """x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³))), in the form that ONNX Runtime fuses"""
    cube = w.node("Pow", [x, w.scalar(out, "three", 3.0)], f"{out}/cube")
    small = w.node("Mul", [cube, w.scalar(out, "c3", 0.044715)], f"{out}/small")
    total = w.node("Add", [x, small], f"{out}/total")
    inner = w.node("Mul", [total, w.scalar(out, "c1", math.sqrt(2 / math.pi))], f"{out}/inner")
    _halved(w, out, x, w.node("Tanh", [inner], f"{out}/tanh"))


def _halved(w: _Writer, out: str, x: str, gate: str) -> None:
    half = w.node("Mul", [x, w.scalar(out, "half", 0.5)], f"{out}/halved")
    shifted = w.node("Add", [gate, w.scalar(out, "one", 1.0)], f"{out}/shifted")
    w.node("Mul", [half, shifted], out)


def _rsqrt(w: _Writer, out: str, x: str, p: tuple[float, ...]) -> None:
    w.node("Reciprocal", [w.node("Sqrt", [x], f"{out}/sqrt")], out)


def _trunc(w: _Writer, out: str, x: str, p: tuple[float, ...]) -> None:
    whole = w.node("Floor", [w.node("Abs", [x], f"{out}/abs")], f"{out}/floor")
    w.node("Mul", [whole, w.node("Sign", [x], f"{out}/sign")], out)


def _log1p(w: _Writer, out: str, x: str, p: tuple[float, ...]) -> None:
    """x · ln(u) / (u − 1) for u = 1 + x: its rounding is that of the quotient (Kahan); x where u
    is 1."""
    one = w.scalar(out, "one", 1.0)
    u = w.node("Add", [x, one], f"{out}/u")
    step = w.node("Sub", [u, one], f"{out}/step")
    none = w.node("Equal", [step, w.scalar(out, "zero", 0.0)], f"{out}/none")
    safe = w.node("Where", [none, one, step], f"{out}/safe")
    slope = w.node("Div", [w.node("Log", [u], f"{out}/log"), safe], f"{out}/slope")
    w.node("Mul", [x, w.node("Where", [none, one, slope], f"{out}/factor")], out)


def _expm1(w: _Writer, out: str, x: str, p: tuple[float, ...]) -> None:
    """exp(x) − 1 = tanh(x/2) · (exp(x) + 1): nothing cancels"""
    half = w.node("Mul", [x, w.scalar(out, "half", 0.5)], f"{out}/halved")
    more = w.node("Add", [w.node("Exp", [x], f"{out}/exp"), w.scalar(out, "one", 1.0)], f"{out}/p1")
    w.node("Mul", [w.node("Tanh", [half], f"{out}/tanh"), more], out)


_COMPOSED: dict[str, Callable[[_Writer, str, str, tuple[float, ...]], None]] = {
    "clip": _clip,
    "relu6": _relu6,
    "hard_sigmoid": _hard_sigmoid,
    "hard_swish": _hard_swish,
    "silu": _silu,
    "mish": _mish,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "rsqrt": _rsqrt,
    "trunc": _trunc,
    "log1p": _log1p,
    "expm1": _expm1,
}
_BINARY = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "pow": "Pow",
    "maximum": "Max",
    "minimum": "Min",
}


def _write_unary(w: _Writer, op: ops.Unary) -> None:
    w.unary(op.output.name, op.x.name, op.kind, op.parameters)


def _write_binary(w: _Writer, op: ops.Binary) -> None:
    operands = [w.operand(op.a), w.operand(op.b)]
    if op.kind == "remainder":
        w.activated(op, lambda out: _remainder(w, out, *operands))
    else:
        w.activated(op, lambda out: w.node(_BINARY[op.kind], operands, out))


def _remainder(w: _Writer, out: str, a: str, b: str) -> None:
    """Mod leaves the sign of a."""
    rest = w.node("Mod", [a, b], f"{out}/rest", fmod=1)
    signs = w.node("Mul", [w.node("Sign", [rest], f"{out}/sign"), b], f"{out}/signs")
    other = w.node("Less", [signs, w.scalar(out, "zero", 0.0)], f"{out}/other")
    w.node("Where", [other, w.node("Add", [rest, b], f"{out}/moved"), rest], out)


_COMPARISONS = {"greater": "Greater", "greater_equal": "GreaterOrEqual"}


def _compare(w: _Writer, op: ops.Compare) -> None:
    out, operands = op.output.name, [w.operand(op.a), w.operand(op.b)]
    truth = out if op.output.dtype == "bool" else f"{out}/truth"
    if op.kind == "not_equal":
        w.node("Not", [w.node("Equal", operands, f"{out}/equal")], truth)
    else:
        w.node(_COMPARISONS.get(op.kind, "Equal"), operands, truth)
    if truth != out:
        w.truths[out] = truth
        w.cast(truth, out, "float32")


def _where(w: _Writer, op: ops.Where) -> None:
    out, condition = op.output.name, w.operand(op.condition)
    truth = w.truths.get(condition) or w.cast(condition, f"{out}/truth", "bool")
    w.node("Where", [truth, w.operand(op.a), w.operand(op.b)], out)


def _integers(w: _Writer, op: ops.Integers) -> None:
    w.cast(op.x.name, op.output.name, op.output.dtype)


def _constant(w: _Writer, op: ops.Constant) -> None:
    array = op.array.astype(op.output.dtype)
    w.node("Identity", [w.array(f"{op.output.name}/value", array)], op.output.name)


def _prelu(w: _Writer, op: ops.PRelu) -> None:
    per_channel = op.slope.size > 1
    shape = (-1, *(1,) * (len(op.x.shape) - 2)) if per_channel else (1,)
    slope = w.array(f"{op.name}.slope", op.slope.reshape(shape))
    w.node("PRelu", [op.x.name, slope], op.output.name)


# --- layers --------------------------------------------------------------------------------------


def _conv(w: _Writer, op: ops.Conv) -> None:
    _convolution(w, op, "Conv")


def _conv_transpose(w: _Writer, op: ops.ConvTranspose) -> None:
    _convolution(w, op, "ConvTranspose", output_padding=op.output_padding)


def _convolution(w: _Writer, op: ops.Conv | ops.ConvTranspose, kind: str, **more: ops.Pair) -> None:
    inputs = [
        op.x.name,
        w.array(f"{op.name}.weight", op.weight),
        w.array(f"{op.name}.bias", op.bias),
    ]
    w.activated(
        op,
        lambda out: w.node(
            kind,
            inputs,
            out,
            kernel_shape=op.weight.shape[2:],
            strides=op.stride,
            pads=op.pads,
            dilations=op.dilation,
            group=op.groups,
            **more,
        ),
    )


def _linear(w: _Writer, op: ops.Linear) -> None:
    bias = w.array(f"{op.name}.bias", op.bias)
    if len(op.x.shape) == 2:
        inputs = [op.x.name, w.array(f"{op.name}.weight", op.weight), bias]
        w.activated(op, lambda out: w.node("Gemm", inputs, out, transB=1))
        return
    weight = w.array(f"{op.name}.weight_t", op.weight, view="T")
    product = w.node("MatMul", [op.x.name, weight], f"{op.output.name}/product")
    w.activated(op, lambda out: w.node("Add", [product, bias], out))


def _affine(w: _Writer, op: ops.ChannelAffine) -> None:
    channels = op.scale.size
    inputs = [
        op.x.name,
        w.array(f"{op.name}.scale", op.scale),
        w.array(f"{op.name}.shift", op.shift),
        w.array(f"{op.name}.mean", np.zeros(channels, np.float32)),
        w.array(f"{op.name}.var", np.ones(channels, np.float32)),
    ]
    w.activated(op, lambda out: w.node("BatchNormalization", inputs, out, epsilon=0.0))


def _layer_norm(w: _Writer, op: ops.LayerNorm) -> None:
    """One operator from opset 17 on. Written out where it would store a map of ones instead."""
    out, x = op.output.name, op.x.name
    axes = list(range(len(op.x.shape) - op.weight.ndim, len(op.x.shape)))
    scaled, shifted = bool(np.any(op.weight != 1)), bool(np.any(op.bias != 0))
    bias = w.array(f"{op.name}.bias", op.bias) if shifted else ""
    if w.opset >= 17 and (scaled or len(axes) == 1):
        operands = [x, w.array(f"{op.name}.weight", op.weight), *([bias] if shifted else [])]
        w.node("LayerNormalization", operands, out, axis=axes[0], epsilon=op.eps)
        return
    mean = w.node("ReduceMean", [x], f"{out}/mean", axes=axes, keepdims=1)
    centred = w.node("Sub", [x, mean], f"{out}/centred")
    square = w.node("Mul", [centred, centred], f"{out}/square")
    variance = w.node("ReduceMean", [square], f"{out}/variance", axes=axes, keepdims=1)
    padded = w.node("Add", [variance, w.scalar(out, "eps", op.eps)], f"{out}/padded")
    deviation = w.node("Sqrt", [padded], f"{out}/deviation")
    result = w.node("Div", [centred, deviation], f"{out}/normal" if scaled or shifted else out)
    if scaled:
        weight = w.array(f"{op.name}.weight", op.weight)
        result = w.node("Mul", [result, weight], f"{out}/scaled" if shifted else out)
    if shifted:
        w.node("Add", [result, bias], out)


def _matmul(w: _Writer, op: ops.MatMul) -> None:
    w.node("MatMul", [w.operand(op.a), w.operand(op.b)], op.output.name)


def _softmax(w: _Writer, op: ops.Softmax) -> None:
    kind = "LogSoftmax" if op.log else "Softmax"
    w.node(kind, [op.x.name], op.output.name, axis=op.axis)


def _max_pool(w: _Writer, op: ops.MaxPool) -> None:
    w.node(
        "MaxPool",
        [op.x.name],
        op.output.name,
        kernel_shape=op.kernel,
        strides=op.stride,
        pads=op.pads,
        dilations=op.dilation,
    )


def _avg_pool(w: _Writer, op: ops.AvgPool) -> None:
    w.node(
        "AveragePool",
        [op.x.name],
        op.output.name,
        kernel_shape=op.kernel,
        strides=op.stride,
        pads=op.pads,
        count_include_pad=int(op.count_padding),
    )


def _reduce(w: _Writer, op: ops.Reduce) -> None:
    kind = f"Reduce{op.kind.capitalize()}"
    out, keep = op.output.name, int(op.keepdims)
    over_map = op.axes == (2, 3) and len(op.x.shape) == 4 and op.keepdims
    if over_map and op.kind in ("mean", "max"):
        w.node(f"Global{'Average' if op.kind == 'mean' else 'Max'}Pool", [op.x.name], out)
    elif op.kind == "sum" or w.opset >= 18:
        axes = w.numbers(f"{out}/axes", op.axes, np.int64)
        w.node(kind, [op.x.name, axes], out, keepdims=keep)
    else:
        w.node(kind, [op.x.name], out, axes=op.axes, keepdims=keep)


def _argmax(w: _Writer, op: ops.ArgMax) -> None:
    out, dtype = op.output.name, op.output.dtype
    place = out if dtype == "int64" else f"{out}/place"
    w.node("ArgMax", [op.x.name], place, axis=op.axis, keepdims=int(op.keepdims))
    if place != out:
        w.cast(place, out, dtype)


def _topk(w: _Writer, op: ops.TopK) -> None:
    out = op.output.name
    inputs = [op.x.name, w.numbers(f"{out}/count", [op.count], np.int64)]
    names = [out if op.part == "values" else f"{out}/values", f"{out}/indices"]
    w.nodes.append(helper.make_node("TopK", inputs, names, f"{out}/TopK", axis=op.axis))
    if op.part == "indices":
        w.cast(names[1], out, op.output.dtype)


# --- moving --------------------------------------------------------------------------------------


def _concat(w: _Writer, op: ops.Concat) -> None:
    w.node("Concat", [w.operand(p) for p in op.parts], op.output.name, axis=op.axis)


def _slice(w: _Writer, op: ops.Slice) -> None:
    out = op.output.name
    numbers = {"starts": op.start, "ends": op.stop, "axes": op.axis, "steps": op.step}
    inputs = [w.numbers(f"{out}/{k}", [v], np.int64) for k, v in numbers.items()]
    w.node("Slice", [op.x.name, *inputs], out)


def _gather(w: _Writer, op: ops.Gather) -> None:
    out = op.output.name
    indices = w.numbers(f"{out}/indices", op.indices, np.int64)
    w.node("Gather", [op.x.name, indices], out, axis=op.axis)


def _reshape(w: _Writer, op: ops.Reshape) -> None:
    out = op.output.name
    w.node("Reshape", [op.x.name, w.numbers(f"{out}/shape", w.shape(op.output), np.int64)], out)


def _transpose(w: _Writer, op: ops.Transpose) -> None:
    w.node("Transpose", [op.x.name], op.output.name, perm=op.perm)


def _batch_expand(w: _Writer, op: ops.BatchExpand) -> None:
    out, constant = op.output.name, w.operand(op.x)
    if w.dynamic:
        sizes = w.node("Shape", [op.like.name], f"{out}/sizes")
        index = w.numbers(f"{out}/index", [op.like.batch_axis or 0], np.int64)
        batch = w.node("Gather", [sizes, index], f"{out}/batch", axis=0)
        rest = w.numbers(f"{out}/rest", op.x.shape[1:], np.int64)
        shape = w.node("Concat", [batch, rest], f"{out}/shape", axis=0)
    else:
        shape = w.numbers(f"{out}/shape", op.output.shape, np.int64)
    w.node("Expand", [constant, shape], out)


def _pad(w: _Writer, op: ops.Pad) -> None:
    out = op.output.name
    mode = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}[op.mode]
    amounts = w.numbers(f"{out}/pads", [*op.before, *op.after], np.int64)
    inputs = [op.x.name, amounts]
    if op.mode == "constant":
        inputs.append(w.scalar(out, "value", op.value))
    w.node("Pad", inputs, out, mode=mode)


def _resize(w: _Writer, op: ops.Resize) -> None:
    out = op.output.name
    before, after = op.x.shape[2:], op.output.shape[2:]
    whole = all(b % a == 0 for a, b in zip(before, after, strict=True))
    if whole:
        factors = [1.0, 1.0, *(b // a for a, b in zip(before, after, strict=True))]
        inputs = [op.x.name, "", w.numbers(f"{out}/scales", factors, np.float32)]
    else:
        inputs = [op.x.name, "", "", _sizes(w, op)]
    if op.mode == "nearest":
        attributes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        w.node("Resize", inputs, out, mode="nearest", **attributes)
    else:
        mode = "align_corners" if op.align_corners else "half_pixel"
        w.node("Resize", inputs, out, mode="linear", coordinate_transformation_mode=mode)


def _sizes(w: _Writer, op: ops.Resize) -> str:
    out = op.output.name
    if not w.dynamic:
        return w.numbers(f"{out}/sizes", op.output.shape, np.int64)
    shape = w.node("Shape", [op.x.name], f"{out}/shape")
    index = w.numbers(f"{out}/index", [0], np.int64)
    batch = w.node("Gather", [shape, index], f"{out}/batch", axis=0)
    rest = w.numbers(f"{out}/rest", op.output.shape[1:], np.int64)
    return w.node("Concat", [batch, rest], f"{out}/sizes", axis=0)


def _depth_to_space(w: _Writer, op: ops.DepthToSpace) -> None:
    w.node("DepthToSpace", [op.x.name], op.output.name, blocksize=op.block, mode="CRD")


_WRITERS: dict[type[ops.Op], Callable[[_Writer, Any], None]] = {
    ops.Conv: _conv,
    ops.ConvTranspose: _conv_transpose,
    ops.Linear: _linear,
    ops.ChannelAffine: _affine,
    ops.PRelu: _prelu,
    ops.Unary: _write_unary,
    ops.Binary: _write_binary,
    ops.Compare: _compare,
    ops.Where: _where,
    ops.Integers: _integers,
    ops.Constant: _constant,
    ops.Gather: _gather,
    ops.ArgMax: _argmax,
    ops.TopK: _topk,
    ops.MatMul: _matmul,
    ops.Concat: _concat,
    ops.Slice: _slice,
    ops.Reshape: _reshape,
    ops.Transpose: _transpose,
    ops.BatchExpand: _batch_expand,
    ops.Pad: _pad,
    ops.MaxPool: _max_pool,
    ops.AvgPool: _avg_pool,
    ops.Reduce: _reduce,
    ops.Resize: _resize,
    ops.DepthToSpace: _depth_to_space,
    ops.Softmax: _softmax,
    ops.LayerNorm: _layer_norm,
}


def simplified(model: bytes) -> bytes:
    """onnxsim's version of the model; the caller keeps it only if it computes the same."""
    import onnxsim

    result: onnx.ModelProto = onnxsim.simplify(onnx.load_model_from_string(model))[0]
    return result.SerializeToString()
