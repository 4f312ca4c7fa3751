"""Operator lists of the networks in qed-usc/mobile-ml-benchmark, from its listing of GPU kernels.

`tflite_cnn_ops_gpu.csv` lists convolutions, pooling, concatenation and linear layers of every
network in order, with their shapes as text and the GPU kernel that ran them. The kernel's name
tells what the listing leaves out: `convolution_2d_11_linked_:_add_12_linked_:_relu_13` is node 11
of the graph with nodes 12 and 13 merged into it. Numbers that are skipped belong to nodes with
kernels of their own: the padding in front of a window, and element-wise operators. On a CPU all of
them are operators, but for the activations that TFLite fuses. Padding is left to the window that it
stands in front of: every depthwise window is padded, so that the two costs cannot be told apart,
and a file that pads inside its convolutions would be priced too low without it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shrinkc.errors import TableError
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.makers.networks import OpList
from shrinkc.latency_tables.makers.script import read_csv

KERNEL_COLUMN = "pixel4|gpu|kernel"
_NODE = re.compile(r"([a-z_0-9]*?)_(\d+)(?:_linked_:_|$)")
_OPS = {
    "CONV_2D": "conv2d",
    "CONV_2D_GROUP": "conv2d",
    "DEPTHWISE_CONV_2D": "depthwise_conv2d",
    "MEAN": "mean",
    "FULLY_CONNECTED": "linear",
    "CONCATENATION": "concat",
    "MAX_POOL_2D": "max_pool",
    "AVERAGE_POOL_2D": "avg_pool",
}
_WINDOWED = ("conv2d", "depthwise_conv2d", "max_pool", "avg_pool")
_KEEPS_CHANNELS = ("depthwise_conv2d", "mean", "max_pool", "avg_pool")


def read_networks(path: Path, precision: str) -> dict[str, OpList]:
    """Network → what TFLite executes on a CPU. Raises TableError: unreadable."""
    listed: dict[str, list[_Listed]] = {}
    rows = read_csv(path, "operators")
    try:
        for row in rows:
            listed.setdefault(row["model"], []).append(_listed(row))
    except (KeyError, ValueError, SyntaxError) as error:
        raise TableError(f"{path}: not a list of operators: {error!r}") from error
    return {network: _executed(operators, precision) for network, operators in listed.items()}


def read_timed(path: Path, column: str, precision: str) -> dict[str, list[tuple[OpKey, float]]]:
    """Network → its listed operators as the GPU runs them, with the number in `column`; what is
    merged into an operator's kernel is no operator. Raises TableError: unreadable."""
    timed: dict[str, list[tuple[OpKey, float]]] = {}
    try:
        for row in read_csv(path, "operators"):
            listed = _listed(row)
            fused = any(kind == "relu" for kind, _ in listed.nodes[1:])
            key = _key(listed, "relu" if fused else "none", precision)
            timed.setdefault(row["model"], []).append((key, float(row[column])))
    except (KeyError, ValueError, SyntaxError) as error:
        raise TableError(f"{path}: not a list of operators: {error!r}") from error
    return timed


@dataclass(frozen=True)
class _Listed:
    """One row. Sizes are sides of square maps; `nodes` are (kind, number), the operator's first."""

    op: str
    in_size: int
    in_channels: int
    out_size: int
    out_channels: int
    kernel: int
    stride: int
    groups: int
    nodes: tuple[tuple[str, int], ...]

    @property
    def unpadded(self) -> int:
        """The side before padding that makes the output ⌈side / stride⌉; `in_size` where the
        window has not been padded."""
        window = self.op in _WINDOWED and self.kernel > 1
        valid = (self.in_size - self.kernel) // self.stride + 1 == self.out_size
        return min(self.in_size, self.out_size * self.stride) if window and valid else self.in_size


def _listed(row: Mapping[str, str]) -> _Listed:
    shape: Mapping[str, object] = ast.literal_eval(row["feature"])
    nodes = tuple((kind, int(number)) for kind, number in _NODE.findall(row[KERNEL_COLUMN]))
    if not nodes:
        raise ValueError(f"kernel {row[KERNEL_COLUMN]!r} names no node")
    op, inputs = _OPS[row["operation"]], _number(shape["Input_channel"])
    outputs = inputs if op in _KEEPS_CHANNELS else _number(shape["Filter"])
    return _Listed(
        op=op,
        in_size=_number(shape["Input_shape"]),
        in_channels=outputs if op == "concat" else inputs,
        out_size=1 if op == "mean" else _number(shape["Output_shape"]),
        out_channels=outputs,
        kernel=_number(shape["Kernel"]) if op in _WINDOWED else 1,
        stride=_number(shape["Stride"]) if op in _WINDOWED else 1,
        groups=_number(shape["Group"]) if op == "conv2d" else 1,
        nodes=nodes,
    )


def _key(operator: _Listed, activation: str, precision: str) -> OpKey:
    depthwise = operator.op == "depthwise_conv2d"
    return OpKey(
        *(operator.op, operator.in_channels, operator.out_channels),
        kernel=(operator.kernel, operator.kernel),
        stride=(operator.stride, operator.stride),
        groups=operator.in_channels if depthwise else operator.groups,
        in_size=(operator.in_size, operator.in_size),
        out_size=(operator.out_size, operator.out_size),
        activation=activation,
        precision=precision,
    )


def _number(value: object) -> int:
    """A dash stands for what an operator does not have."""
    return 1 if value == "-" else int(str(value))


def _executed(listed: Iterable[_Listed], precision: str) -> OpList:
    replay = _Replay(precision)
    for operator in listed:
        replay.unlisted(operator)
        replay.run(operator)
    return tuple(replay.ops)


@dataclass
class _Replay:
    """`ran` is the last listed operator, `squeezed` the (channels, side) of the map that the last
    mean was taken of."""

    precision: str
    ops: list[OpKey] = field(default_factory=list[OpKey])
    ran: _Listed | None = None
    squeezed: tuple[int, int] = (1, 1)

    def unlisted(self, following: _Listed) -> None:
        """The nodes whose numbers are skipped before `following`."""
        last = self.ran.nodes[-1][1] if self.ran else -1
        missing = following.nodes[0][1] - last - 1
        side, channels = following.unpadded, following.in_channels
        padded = missing > 0 and side < following.in_size
        missing -= padded
        if missing and self.ran and self.ran.nodes[0][0] == "fully_connected":
            self._elementwise("mul", self.squeezed)  # squeeze-excite scales the map
            missing -= 1
        if missing == 3:  # a batch norm that could not be folded, and its ReLU
            self._elementwise("mul", (channels, side))
            self._elementwise("add", (channels, side), "relu")
        elif missing == 4:  # a residual sum and such a batch norm; its ReLU is fused
            self._elementwise("add", (channels, side))
            self._elementwise("mul", (channels, side))
            self._elementwise("add", (channels, side), "relu")
        else:  # sums (two nodes: a sum and its ReLU), and HRNet's upsampling, which costs alike
            for _ in range(missing - (missing == 2)):
                self._elementwise("add", (channels, side))

    def run(self, operator: _Listed) -> None:
        """The operator itself and the nodes merged into its kernel."""
        kinds = [kind for kind, _ in operator.nodes[1:]]
        fused = kinds[:1] == ["relu"] and operator.op != "concat"
        self._listed(operator, "relu" if fused else "none")
        rest = kinds[fused:]
        for kind, following in zip(rest, [*rest[1:], ""], strict=False):
            if kind != "relu":
                activation = "relu" if following == "relu" else "none"
                self._elementwise(kind, (operator.out_channels, operator.out_size), activation)
        self.ran = operator
        if operator.op == "mean":
            self.squeezed = operator.in_channels, operator.in_size

    def _listed(self, operator: _Listed, activation: str) -> None:
        self.ops.append(_key(operator, activation, self.precision))

    def _elementwise(self, op: str, shape: tuple[int, int], activation: str = "none") -> None:
        """`shape` is (channels, side)."""
        channels, side = shape
        key = OpKey(
            *(op, channels, channels),
            in_size=(side, side),
            out_size=(side, side),
            activation=activation,
            precision=self.precision,
        )
        self.ops.append(key)
