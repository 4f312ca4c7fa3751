"""The deployment operators: what a graph is lowered to and what the writers write.

One frozen dataclass an operator. Tensors are `Value`s (computed) or `Const`s (known); shapes are
PyTorch's (N, C, H, W); activations that runtimes fuse are already fused (`activation`). Layouts,
opset differences and explicit padding operators are the writers' business. `name` is the graph
node that the result belongs to, so every message can say where it came from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Pair = tuple[int, int]
Pads = tuple[int, int, int, int]  # top, left, bottom, right
FusedActivation = Literal["none", "relu", "relu6"]
UnaryKind = Literal[
    "relu",
    "relu6",
    "leaky_relu",  # parameters (slope,)
    "elu",  # (alpha,)
    "sigmoid",
    "tanh",
    "hard_sigmoid",
    "hard_swish",
    "silu",
    "mish",
    "gelu",
    "gelu_tanh",
    "softplus",
    "clip",  # (low, high), either may be infinite
    "sqrt",
    "rsqrt",
    "exp",
    "log",
    "abs",
    "neg",
    "sign",
    "erf",
    "floor",
    "ceil",
    "round",  # halves to the even neighbour
    "trunc",
    "sin",
    "cos",
    "log1p",
    "expm1",
    "atan",
]
BinaryKind = Literal["add", "sub", "mul", "div", "pow", "remainder", "atan2", "maximum", "minimum"]
ComparisonKind = Literal["greater", "greater_equal", "equal", "not_equal"]
ReduceKind = Literal["mean", "sum", "max", "min", "prod"]
DType = Literal["float32", "int64", "int32", "bool"]
RecurrentKind = Literal["lstm", "gru", "rnn_tanh", "rnn_relu"]
GATES: dict[RecurrentKind, int] = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


@dataclass(frozen=True)
class Value:
    """A computed tensor. `batch_axis` is the dimension that grows with the batch size
    (`shape` is the shape at the captured batch); None: it does not depend on the batch. Only what
    the network reads or returns may be of another type than float32."""

    name: str
    shape: tuple[int, ...]
    batch_axis: int | None = 0
    dtype: DType = "float32"


@dataclass(frozen=True, eq=False)
class Const:
    """A known float32 tensor."""

    name: str
    array: FloatArray

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)


Operand = Value | Const


@dataclass(frozen=True)
class Op:
    """An operator; `output` is its only result, `name` its graph node."""

    name: str
    output: Value

    def operands(self) -> Iterator[Operand]:
        """What it reads, in order; weights are not operands."""
        for field in fields(self):
            if field.name in ("x", "condition", "a", "b", "like"):
                yield getattr(self, field.name)
            elif field.name in ("parts", "states"):
                yield from getattr(self, field.name)


@dataclass(frozen=True, eq=False)
class Conv(Op):
    """Cross-correlation. `weight` (out, in/groups, kh, kw), `bias` (out,)."""

    x: Value
    weight: FloatArray
    bias: FloatArray
    stride: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    activation: FusedActivation = "none"


@dataclass(frozen=True, eq=False)
class ConvTranspose(Op):
    """Transposed convolution. `weight` (in, out/groups, kh, kw). Output size
    (in − 1)·stride − pads + dilation·(k − 1) + output_padding + 1."""

    x: Value
    weight: FloatArray
    bias: FloatArray
    stride: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    output_padding: Pair = (0, 0)
    activation: FusedActivation = "none"


@dataclass(frozen=True, eq=False)
class Linear(Op):
    """`x @ weight.T + bias` on the last dimension. `weight` (out, in)."""

    x: Value
    weight: FloatArray
    bias: FloatArray
    activation: FusedActivation = "none"


@dataclass(frozen=True, eq=False)
class ChannelAffine(Op):
    """`x · scale + shift` per channel of dimension 1: a batch norm that could not be folded."""

    x: Value
    scale: FloatArray
    shift: FloatArray
    activation: FusedActivation = "none"


@dataclass(frozen=True, eq=False)
class PRelu(Op):
    """`slope` is (1,) or one per channel of dimension 1."""

    x: Value
    slope: FloatArray


@dataclass(frozen=True)
class Unary(Op):
    """Element by element."""

    x: Value
    kind: UnaryKind
    parameters: tuple[float, ...] = ()


@dataclass(frozen=True)
class Binary(Op):
    """Element by element with NumPy broadcasting."""

    a: Operand
    b: Operand
    kind: BinaryKind
    activation: FusedActivation = "none"


@dataclass(frozen=True)
class Compare(Op):
    """1 where it holds, else 0; NumPy broadcasting."""

    a: Operand
    b: Operand
    kind: ComparisonKind


@dataclass(frozen=True)
class Where(Op):
    """`a` where the condition is not 0, else `b`; NumPy broadcasting."""

    condition: Operand
    a: Operand
    b: Operand


@dataclass(frozen=True)
class Integers(Op):
    """Whole numbers as integers, or as truth, for an output; or an input of such as floats."""

    x: Value


@dataclass(frozen=True, eq=False)
class Constant(Op):
    """An output that depends on no input."""

    array: FloatArray


@dataclass(frozen=True)
class MatMul(Op):
    """The last two dimensions are matrices, the others broadcast."""

    a: Operand
    b: Operand


@dataclass(frozen=True)
class Concat(Op):
    parts: tuple[Operand, ...]
    axis: int


@dataclass(frozen=True)
class Slice(Op):
    x: Value
    axis: int
    start: int
    stop: int
    step: int = 1


@dataclass(frozen=True)
class Gather(Op):
    """The slices at `indices` of one dimension."""

    x: Value
    axis: int
    indices: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Embedding(Op):
    """The rows of `weight` (rows, features) that x numbers, (…) ↦ (…, features)."""

    x: Value
    weight: FloatArray


@dataclass(frozen=True)
class Pick(Op):
    """Rows of `a` (B, L, …) at the whole numbers of `b` (B, K): (B, K, …)."""

    a: Operand
    b: Operand


@dataclass(frozen=True)
class GridSample(Op):
    """The image `a` (N, C, H, W) at the places of `b` (N, h, w, 2), (x, y) from −1 to 1, which
    are corners with `align_corners`, else the edges of the outermost pixels."""

    a: Operand
    b: Operand
    mode: Literal["bilinear", "nearest", "bicubic"]
    padding: Literal["zeros", "border", "reflection"]
    align_corners: bool


@dataclass(frozen=True)
class DynamicConv(Op):
    """`a` convolved with computed filters `b` (out, in/groups, kh, kw)."""

    a: Operand
    b: Operand
    stride: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1


@dataclass(frozen=True)
class Reshape(Op):
    """To `output.shape`, row-major."""

    x: Value


@dataclass(frozen=True)
class Transpose(Op):
    """`output` dimension i is `x` dimension `perm[i]`."""

    x: Value
    perm: tuple[int, ...]


@dataclass(frozen=True)
class BatchExpand(Op):
    """Repeat the constant `x` (batch 1) to the batch size of `like`."""

    x: Const
    like: Value


@dataclass(frozen=True)
class Pad(Op):
    """`before[i]`, `after[i]` elements added to dimension i."""

    x: Value
    before: tuple[int, ...]
    after: tuple[int, ...]
    mode: Literal["constant", "reflect", "replicate"] = "constant"
    value: float = 0.0


@dataclass(frozen=True)
class MaxPool(Op):
    """Padding never wins: it counts as −∞. `pads` already hold what ceil mode adds."""

    x: Value
    kernel: Pair
    stride: Pair
    pads: Pads = (0, 0, 0, 0)
    dilation: Pair = (1, 1)


@dataclass(frozen=True)
class AvgPool(Op):
    """`pads` already hold what ceil mode adds. With `count_padding` every window divides by
    kh·kw, else by the number of real elements in it."""

    x: Value
    kernel: Pair
    stride: Pair
    pads: Pads = (0, 0, 0, 0)
    count_padding: bool = True


@dataclass(frozen=True)
class Reduce(Op):
    x: Value
    kind: ReduceKind
    axes: tuple[int, ...]
    keepdims: bool


@dataclass(frozen=True)
class ArgMax(Op):
    """Where the maximum along `axis` is, the first of several."""

    x: Value
    axis: int
    keepdims: bool


@dataclass(frozen=True)
class CumSum(Op):
    """Running sums along `axis`."""

    x: Value
    axis: int


@dataclass(frozen=True)
class TopK(Op):
    """The largest along `axis`, the largest first: what they are, or where."""

    x: Value
    count: int
    axis: int
    part: Literal["values", "indices"]


@dataclass(frozen=True)
class Resize(Op):
    """Dimensions 2 and 3 to `output.shape[2:]`. nearest: source = floor(i · in/out). bilinear
    with `align_corners`: corners on corners; without: half-pixel centres."""

    x: Value
    mode: Literal["nearest", "bilinear"]
    align_corners: bool = False


@dataclass(frozen=True)
class DepthToSpace(Op):
    """PyTorch's pixel shuffle: (N, C·b², H, W) → (N, C, H·b, W·b), channel-major blocks."""

    x: Value
    block: int


@dataclass(frozen=True)
class Softmax(Op):
    """`log`: its logarithm."""

    x: Value
    axis: int
    log: bool = False


@dataclass(frozen=True, eq=False)
class LayerNorm(Op):
    """Over the last `weight.ndim` dimensions, biased variance."""

    x: Value
    weight: FloatArray
    bias: FloatArray
    eps: float


@dataclass(frozen=True, eq=False)
class Recurrent(Op):
    """One direction of an LSTM, GRU or RNN over x (N, L, I): `shrinkc.passes.recurrent.Recurrent`
    without a projection, with its equations and its order of gates. `states` (N, H): h₀, and c₀ of
    an LSTM; or none, which are zeros. `biases`: (bias_ih, bias_hh)."""

    x: Value
    kind: RecurrentKind
    weight_ih: FloatArray
    weight_hh: FloatArray
    biases: tuple[FloatArray, FloatArray]
    states: tuple[Operand, ...] = ()
    reverse: bool = False
    with_cell: bool = False

    @property
    def hidden(self) -> int:
        """H"""
        return self.weight_hh.shape[0] // GATES[self.kind]

    @property
    def steps(self) -> int:
        """L"""
        return self.x.shape[1]


@dataclass(frozen=True)
class Program:
    """Operators in execution order, what they start from and what they leave."""

    inputs: tuple[Value, ...]
    ops: tuple[Op, ...]
    outputs: tuple[Value, ...]

    @property
    def names(self) -> list[str]:
        """Of every value that is computed or given; nodes of the graph, but for inner ones."""
        return [value.name for value in self.inputs] + [op.output.name for op in self.ops]

    @property
    def dynamic_batch(self) -> bool:
        """The batch size may differ from the captured one."""
        fixed = {op.output.name for op in self.ops if isinstance(op, Constant)}
        outputs = [value for value in self.outputs if value.name not in fixed]
        return all(value.batch_axis is not None for value in (*self.inputs, *outputs))
