"""Timed operators of the networks in qed-usc/mobile-ml-benchmark, from its listing of GPU kernels.

`tflite_cnn_ops_gpu.csv` lists convolutions, pooling, concatenation and linear layers of every
network in order, with their shapes as text and the GPU kernel that ran them. The kernel's name
tells what is merged into it: `convolution_2d_11_linked_:_add_12_linked_:_relu_13` is node 11 of the
graph with nodes 12 and 13.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shrinkc.errors import TableError
from shrinkc.latency_tables.key import OpKey
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
