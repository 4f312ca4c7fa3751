"""A .tflite file as a list of operators with their latency keys, read with the official schema.

Only shapes, types and options are read, never weights; every count is bounded before it is walked.
"""

from __future__ import annotations

import importlib
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from typing import Any

from shrinkc.compiler.support.text import counted, one_line, shown
from shrinkc.errors import DeviceError, ExportError, LoadError
from shrinkc.latency_tables.key import OpKey

MOST = 100_000  # tensors, operators
_MOST_OPERANDS, _MOST_DIMENSIONS = 4096, 8
_DAMAGE = (
    *(struct.error, IndexError, ValueError, TypeError, OverflowError, AttributeError),
    *(KeyError, MemoryError),
)
Shape = tuple[int, ...]


@dataclass(frozen=True)
class TfliteOperators:
    """What a file runs, in order.

    keys     name of the result and latency key, of what takes time
    counts   operator → how many there are, custom ones by their own names
    unknown  those of them that have no key
    batch    of the first input
    notes    what a user should know of the keys
    """

    keys: tuple[tuple[str, OpKey], ...]
    counts: dict[str, int]
    unknown: dict[str, int]
    batch: int
    notes: tuple[str, ...] = ()

    @property
    def precision(self) -> str:
        """Of what multiplies."""
        return "int8" if any(k.macs and k.precision == "int8" for _, k in self.keys) else "fp32"


@dataclass(frozen=True)
class _Tensor:
    name: str
    shape: Shape
    kind: str  # FLOAT32, INT8, …
    constant: bool

    @property
    def sizes(self) -> tuple[int, tuple[int, int]]:
        """(channels, (height, width)) of images; (features, (the rest, 1)) of anything else."""
        if len(self.shape) == 4:
            return self.shape[3], (self.shape[1], self.shape[2])
        if len(self.shape) < 2:
            return prod(self.shape), (1, 1)
        return self.shape[-1], (prod(self.shape[1:-1]), 1)

    @property
    def quantised(self) -> bool:
        return self.kind in ("INT8", "UINT8", "INT16")


@dataclass(frozen=True)
class _Op:
    kind: str  # CONV_2D, …; of custom ones their own name
    inputs: tuple[_Tensor | None, ...]
    outputs: tuple[_Tensor, ...]
    options: Any  # of the schema; None: none

    @property
    def operands(self) -> list[_Tensor]:
        return [x for x in self.inputs if x is not None]

    @property
    def largest(self) -> _Tensor:
        return max(self.operands, key=lambda x: prod(x.shape))


def read_operators(data: bytes) -> TfliteOperators:
    """The operators of the file's first subgraph.

    Raises LoadError, in one line, for bytes that are damaged, and DeviceError where
    ai-edge-litert, which has the schema, is not installed.
    """
    try:
        schema: Any = importlib.import_module("ai_edge_litert.schema_py_generated")
    except ImportError as error:
        raise DeviceError("reading a .tflite needs it: pip install ai-edge-litert") from error
    try:
        model = schema.Model.GetRootAs(data, 0)
        graphs = _bounded(model.SubgraphsLength(), 1, MOST)
        graph = model.Subgraphs(0)
        ops = tuple(_ops(schema, model, graph))
        first = _shape(graph.Tensors(graph.Inputs(0))) if graph.InputsLength() else (1,)
        others = sum(model.Subgraphs(i).OperatorsLength() for i in range(1, graphs))
        return _keyed(ops, first[0] if first else 1, others, graphs - 1)
    except _DAMAGE as error:
        raise LoadError(
            f"a damaged .tflite ({one_line(error)}); copy or convert it again"
        ) from error


def require_numbers(data: bytes) -> None:
    """Raise LoadError for a file that is damaged, or has tensors of texts or handles, which kernels
    made for numbers write into as if they were those."""
    read_operators(data)
    schema: Any = importlib.import_module("ai_edge_litert.schema_py_generated")
    kinds, model = names_of(schema.TensorType), schema.Model.GetRootAs(data, 0)
    try:
        graphs = [model.Subgraphs(i) for i in range(model.SubgraphsLength())]
        found = {kinds[g.Tensors(i).Type()] for g in graphs for i in range(g.TensorsLength())}
    except _DAMAGE as error:
        raise LoadError(
            f"a damaged .tflite ({one_line(error)}); copy or convert it again"
        ) from error
    others = sorted(found & {"STRING", "RESOURCE", "VARIANT"})
    if others:
        raise LoadError(
            f"it has tensors of kind {others[0]}; only files of numbers can be compared"
        )


# What only moves numbers believes that its result has the type of what it reads.
_MOVES = frozenset(
    (
        *("RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "SLICE", "STRIDED_SLICE", "TILE"),
        *("PAD", "PADV2", "MIRROR_PAD", "GATHER", "GATHER_ND", "REVERSE_V2", "BROADCAST_TO"),
        *("CONCATENATION", "PACK", "UNPACK", "SPLIT", "SPLIT_V", "DEPTH_TO_SPACE"),
        *("SPACE_TO_DEPTH", "MAX_POOL_2D", "RESIZE_NEAREST_NEIGHBOR"),
    )
)


def require_types(data: bytes) -> None:
    """Raise ExportError where an operator that moves numbers has a result of another type: kernels
    then write as many bytes as they read, beyond the result's end."""
    schema: Any = importlib.import_module("ai_edge_litert.schema_py_generated")
    model = schema.Model.GetRootAs(data, 0)
    for op in _ops(schema, model, model.Subgraphs(0)):
        if op.kind not in _MOVES:
            continue
        reads = op.operands[-1:] if op.kind == "SPLIT" else op.operands[:1]
        reads = op.operands if op.kind in ("CONCATENATION", "PACK") else reads
        kinds = {one.kind for one in (*reads, *op.outputs)}
        if len(kinds) > 1:
            told = " and ".join(sorted(kinds))
            raise ExportError(f"the {op.kind} of '{op.outputs[0].name}' has types {told}")


def _ops(schema: Any, model: Any, graph: Any) -> Iterator[_Op]:
    kinds = names_of(schema.TensorType)
    tensors = [
        _tensor(model, graph.Tensors(i), kinds) for i in range(_bounded(graph.TensorsLength(), 1))
    ]
    codes = [
        _code(schema, model.OperatorCodes(i))
        for i in range(_bounded(model.OperatorCodesLength(), 0))
    ]
    for i in range(_bounded(graph.OperatorsLength(), 0)):
        op = graph.Operators(i)
        inputs: list[int] = [
            op.Inputs(j) for j in range(_bounded(op.InputsLength(), 0, _MOST_OPERANDS))
        ]
        outputs: list[int] = [
            op.Outputs(j) for j in range(_bounded(op.OutputsLength(), 0, _MOST_OPERANDS))
        ]
        if min((*inputs, *outputs), default=0) < -1 or min(outputs, default=0) < 0:
            raise ValueError("an operand that is no tensor")
        yield _Op(
            codes[_bounded(op.OpcodeIndex(), 0)],
            tuple(None if j < 0 else tensors[j] for j in inputs),
            tuple(tensors[j] for j in outputs),
            _options(schema, op),
        )


def _bounded(count: int, least: int, most: int = MOST) -> int:
    if not least <= count <= most:
        raise ValueError(f"a count of {count:,}")
    return count


def _tensor(model: Any, tensor: Any, kinds: dict[int, str]) -> _Tensor:
    name = (tensor.Name() or b"").decode("utf-8", "replace")
    buffer = model.Buffers(_bounded(tensor.Buffer(), 0)) if model.BuffersLength() else None
    constant = buffer is not None and (buffer.DataLength() > 0 or buffer.Size() > 0)
    return _Tensor(shown(name), _shape(tensor), kinds[tensor.Type()], constant)


def _shape(tensor: Any) -> Shape:
    rank = _bounded(tensor.ShapeLength(), 0, _MOST_DIMENSIONS)
    return tuple(_bounded(tensor.Shape(i), 0, 1 << 30) for i in range(rank))


@cache
def names_of(enum: Any) -> dict[int, str]:
    """Of the values of one of the schema's enumerations."""
    return {getattr(enum, name): name for name in dir(enum) if name.isupper()}


def _code(schema: Any, code: Any) -> str:
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    name = names_of(schema.BuiltinOperator)[number]
    custom = (code.CustomCode() or b"").decode("utf-8", "replace")
    return f"CUSTOM {shown(custom)}" if name == "CUSTOM" else name


def _options(schema: Any, op: Any) -> Any:
    table, kind = op.BuiltinOptions(), op.BuiltinOptionsType()
    if table is None or not kind:
        return None
    options = getattr(schema, _names_of_options(schema)[kind])()
    options.Init(table.Bytes, table.Pos)
    return options


@cache
def _names_of_options(schema: Any) -> dict[int, str]:
    kinds = schema.BuiltinOptions
    return {getattr(kinds, name): name for name in dir(kinds) if name[0] != "_"}


# --- keys ----------------------------------------------------------------------------------------

_FUSED = {0: "none", 1: "relu", 2: "relu6", 3: "relu6"}  # 2: between −1 and 1, which costs the same


def _keyed(ops: tuple[_Op, ...], batch: int, others: int, graphs: int) -> TfliteOperators:
    counts = Counter(op.kind for op in ops)
    unknown, keys = Counter[str](), list[tuple[str, OpKey]]()
    padded = _padded(ops)
    mixed = 0
    for op in ops:
        if op.kind in _FREE or _is_of_constants(op):
            continue
        if op.outputs and op.outputs[0].name in padded:
            continue
        make = _KEYS.get(op.kind)
        key = None if make is None else make(_unpadded(op, padded))
        if key is None or not op.outputs:
            unknown[op.kind] += 1
            continue
        weights = op.inputs[1] if key.macs and len(op.inputs) > 1 else None
        mixed += weights is not None and weights.quantised and not op.outputs[0].quantised
        whole = op.outputs[0].quantised and op.kind != "QUANTIZE"
        keys.append((op.outputs[0].name, replace(key, precision="int8" if whole else "fp32")))
    notes: list[str] = []
    if mixed:
        what = counted(mixed, "operator")
        notes.append(f"{what} with int8 weights and float inputs, priced in fp32")
    if others:
        unknown[f"operators of {graphs} more subgraphs"] += others
    return TfliteOperators(tuple(keys), dict(counts), dict(unknown), batch, tuple(notes))


def _is_of_constants(op: _Op) -> bool:
    """It is computed once, when the file is loaded, such as weights in float16."""
    return bool(op.operands) and all(x.constant for x in op.operands)


def _padded(ops: tuple[_Op, ...]) -> dict[str, _Op]:
    """Padding that runtimes make part of the convolution that alone reads it, by its result."""
    readers = Counter(x.name for op in ops for x in op.operands)
    first = {op.inputs[0].name for op in ops if op.kind in _CONVOLUTIONS and op.inputs[0]}
    pads = (op for op in ops if op.kind in ("PAD", "PADV2") and op.outputs)
    named = ((op.outputs[0].name, op) for op in pads)
    return {name: op for name, op in named if readers[name] == 1 and name in first}


def _unpadded(op: _Op, padded: dict[str, _Op]) -> _Op:
    """A convolution that reads what its padding reads."""
    first = op.inputs[0] if op.inputs else None
    if op.kind not in _CONVOLUTIONS or first is None or first.name not in padded:
        return op
    return replace(op, inputs=(padded[first.name].inputs[0], *op.inputs[1:]))


def _key(name: str, source: _Tensor, result: _Tensor, **fields: Any) -> OpKey:
    (inputs, in_size), (outputs, out_size) = source.sizes, result.sizes
    return OpKey(name, inputs, outputs, in_size=in_size, out_size=out_size, **fields)


def _conv(op: _Op) -> OpKey | None:
    x, weight = op.operands[:2]
    if len(x.shape) != 4 or len(weight.shape) != 4:
        return None
    depthwise = op.kind == "DEPTHWISE_CONV_2D"
    groups = x.shape[3] if depthwise else x.shape[3] // max(1, weight.shape[3])
    alone = depthwise or (groups == x.shape[3] and groups > 1)
    o = op.options
    return _key(
        "depthwise_conv2d" if alone else "conv2d",
        *(x, op.outputs[0]),
        kernel=(weight.shape[1], weight.shape[2]),
        stride=(o.StrideH(), o.StrideW()),
        dilation=(o.DilationHFactor(), o.DilationWFactor()),
        groups=max(1, groups),
        activation=_FUSED[o.FusedActivationFunction()],
    )


def _conv_transpose(op: _Op) -> OpKey:
    weight, x = op.operands[1:3]
    return _key(
        "conv_transpose2d",
        *(x, op.outputs[0]),
        kernel=(weight.shape[1], weight.shape[2]),
        stride=(op.options.StrideH(), op.options.StrideW()),
        activation=_FUSED[op.options.FusedActivationFunction()],
    )


def _linear(op: _Op) -> OpKey:
    outputs, inputs = op.operands[1].shape
    batch = op.outputs[0].shape[0] if op.outputs[0].shape else 1
    rows = max(1, prod(op.operands[0].shape) // max(1, inputs * batch))
    return OpKey(
        *("linear", inputs, outputs),
        in_size=(rows, 1),
        out_size=(rows, 1),
        activation=_FUSED[op.options.FusedActivationFunction()],
    )


def _matmul(op: _Op) -> OpKey:
    shape, a = op.outputs[0].shape, op.operands[0].shape
    depth = a[-2] if op.options is not None and op.options.AdjX() else a[-1]
    rows = prod(shape[1:-1])
    return OpKey("matmul", depth, shape[-1], in_size=(rows, 1), out_size=(rows, 1))


def _pool(name: str) -> Callable[[_Op], OpKey]:
    def key(op: _Op) -> OpKey:
        o = op.options
        kernel, stride = (o.FilterHeight(), o.FilterWidth()), (o.StrideH(), o.StrideW())
        return _key(name, op.operands[0], op.outputs[0], kernel=kernel, stride=stride)

    return key


def _binary(name: str) -> Callable[[_Op], OpKey]:
    def key(op: _Op) -> OpKey:
        fused = getattr(op.options, "FusedActivationFunction", lambda: 0)()
        return _key(name, op.largest, op.outputs[0], activation=_FUSED[fused])

    return key


def _plain(name: str) -> Callable[[_Op], OpKey]:
    return lambda op: _key(name, op.largest, op.outputs[0])


def _concat(op: _Op) -> OpKey:
    return _key("concat", op.outputs[0], op.outputs[0])


_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_FREE = frozenset({"RESHAPE", "SQUEEZE", "EXPAND_DIMS", "SHAPE"})  # they move nothing
_KEYS: dict[str, Callable[[_Op], OpKey | None]] = {
    **dict.fromkeys(_CONVOLUTIONS, _conv),
    "TRANSPOSE_CONV": _conv_transpose,
    "FULLY_CONNECTED": _linear,
    "BATCH_MATMUL": _matmul,
    **{name: _binary(name.lower()) for name in ("ADD", "SUB", "MUL", "DIV", "POW")},
    **{name: _binary(name.lower()) for name in ("MAXIMUM", "MINIMUM")},
    "FLOOR_MOD": _binary("remainder"),
    "SQUARED_DIFFERENCE": _binary("sub"),  # reads and writes what a difference does
    # a conversion moves about as much as an addition
    **dict.fromkeys(("QUANTIZE", "DEQUANTIZE"), _plain("add")),
    "MAX_POOL_2D": _pool("max_pool"),
    "AVERAGE_POOL_2D": _pool("avg_pool"),
    **{"MEAN": _plain("mean"), "SUM": _plain("sum"), "REDUCE_PROD": _plain("prod")},
    **{"REDUCE_MAX": _plain("max"), "REDUCE_MIN": _plain("min")},
    "CONCATENATION": _concat,
    **dict.fromkeys(("PACK", "TILE", "BROADCAST_TO"), _concat),
    **dict.fromkeys(("SLICE", "STRIDED_SLICE", "SPLIT", "SPLIT_V", "UNPACK"), _plain("slice")),
    **dict.fromkeys(("PAD", "PADV2", "MIRROR_PAD"), _plain("pad")),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), _plain("resize")),
    **{"TRANSPOSE": _plain("transpose"), "DEPTH_TO_SPACE": _plain("depth_to_space")},
    **{"SOFTMAX": _plain("softmax"), "LOG_SOFTMAX": _plain("softmax")},
    **{"PRELU": _plain("prelu"), "LOGISTIC": _plain("sigmoid"), "NOT_EQUAL": _plain("not_equal")},
    **{"RELU_N1_TO_1": _plain("relu6"), "RELU_0_TO_1": _plain("relu6")},
    **{
        name: _plain(name.lower())
        for name in (
            *("RELU", "RELU6", "LEAKY_RELU", "ELU", "TANH", "HARD_SWISH", "GELU", "SQRT", "RSQRT"),
            *("EXP", "LOG", "ABS", "NEG", "SIGN", "FLOOR", "CEIL", "ROUND", "SIN", "COS"),
            *("GREATER", "GREATER_EQUAL", "EQUAL", "CAST", "GATHER"),
        )
    },
    **{"SQUARE": _plain("mul"), "SELECT": _plain("where"), "SELECT_V2": _plain("where")},
    **{"ARG_MAX": _plain("argmax"), "TOPK_V2": _plain("topk")},
}
