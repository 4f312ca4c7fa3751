"""What the translations want to know of the program around an operator."""

from __future__ import annotations

from collections import Counter

from shrinkc.compiler.export.ops import (
    AvgPool,
    Binary,
    ChannelAffine,
    Concat,
    Const,
    Conv,
    ConvTranspose,
    DepthToSpace,
    Linear,
    MaxPool,
    Op,
    Operand,
    Pad,
    Program,
    Reduce,
    Reshape,
    Resize,
    Slice,
    Softmax,
    Transpose,
    Unary,
)

_ACTIVATED = (Conv, ConvTranspose, Linear, ChannelAffine, Binary)
_KEEPS_SIGN = (
    *(MaxPool, AvgPool, Concat, Slice, Reshape, Transpose, Reduce, Resize, DepthToSpace),
)
_POSITIVE_KINDS = ("relu", "relu6", "sigmoid", "hard_sigmoid", "softplus", "sqrt", "exp", "abs")


def nonnegative_values(program: Program) -> frozenset[str]:
    """Names of values that cannot be negative, whatever the input."""
    known: set[str] = set()
    for op in program.ops:
        if _is_nonnegative(op, known):
            known.add(op.output.name)
    return frozenset(known)


def _is_nonnegative(op: Op, known: set[str]) -> bool:
    if isinstance(op, _ACTIVATED) and op.activation != "none":
        return True
    match op:
        case Unary(kind=kind, parameters=parameters):
            return kind in _POSITIVE_KINDS or (kind == "clip" and parameters[0] >= 0)
        case Binary(kind=kind):
            inherits = kind in ("add", "mul", "maximum", "minimum")
        case Pad(mode=mode, value=value):
            inherits = mode != "constant" or value >= 0
        case Softmax(log=log):
            return not log
        case _:
            inherits = isinstance(op, _KEEPS_SIGN)
    return inherits and all(_operand_is_nonnegative(x, known) for x in op.operands())


def _operand_is_nonnegative(operand: Operand, known: set[str]) -> bool:
    if isinstance(operand, Const):
        return bool((operand.array >= 0).all())
    return operand.name in known


def shuffled_convs(program: Program) -> dict[str, int]:
    """Output name → block size of the convolutions that only a DepthToSpace reads: they may
    write their channels in the order TFLite's DEPTH_TO_SPACE wants."""
    reads = Counter(x.name for op in program.ops for x in op.operands())
    reads.update(value.name for value in program.outputs)
    convs = {op.output.name for op in program.ops if isinstance(op, Conv) and op.groups == 1}
    return {
        op.x.name: op.block
        for op in program.ops
        if isinstance(op, DepthToSpace) and op.x.name in convs and reads[op.x.name] == 1
    }
