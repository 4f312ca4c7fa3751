"""Every operator that is translated computes what ONNX Runtime computes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_files import model_of, one_node, worst_difference

from shrinkc.compiler.load.onnx.translate import RULES

N = "N"
RNG = np.random.default_rng(0)


def rand(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


def scalar(value: float) -> Any:
    return np.array(value, np.float32)


IMAGE = (N, 4, 9, 11)
Case = tuple[str, onnx.ModelProto]


def convolutions() -> Iterator[Case]:
    weights = [rand(6, 4, 3, 3), rand(6)]
    yield "plain", one_node("Conv", IMAGE, weights, pads=[1, 1, 1, 1])
    yield "no bias", one_node("Conv", IMAGE, weights[:1], strides=[2, 1])
    yield "asymmetric", one_node("Conv", IMAGE, weights, pads=[0, 1, 2, 0], dilations=[2, 1])
    for auto in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        yield auto, one_node("Conv", IMAGE, weights, auto_pad=auto, strides=[2, 2])
    yield "groups", one_node("Conv", IMAGE, [rand(8, 2, 3, 3)], group=2)
    yield "depthwise", one_node("Conv", IMAGE, [rand(4, 1, 5, 5), rand(4)], group=4, opset=7)
    yield "1-D", one_node("Conv", (N, 4, 9), [rand(6, 4, 3), rand(6)], pads=[2, 1])
    yield "3-D", one_node("Conv", (N, 2, 4, 5, 6), [rand(3, 2, 2, 2, 2)], strides=[1, 2, 1])
    back = [rand(4, 6, 3, 3), rand(6)]
    yield "transposed", one_node("ConvTranspose", IMAGE, back, strides=[2, 2], pads=[1, 1, 1, 1])
    more: dict[str, Any] = {"strides": [2, 3], "output_padding": [1, 2]}
    yield "output padding", one_node("ConvTranspose", IMAGE, back, pads=[1, 1, 1, 1], **more)
    yield "uneven", one_node("ConvTranspose", IMAGE, back, strides=[2, 2], pads=[0, 0, 1, 1])
    yield "cut", one_node("ConvTranspose", IMAGE, back, strides=[1, 1], pads=[0, 1, 2, 0])
    yield "same", one_node("ConvTranspose", IMAGE, back, strides=[2, 2], auto_pad="SAME_UPPER")
    yield "shape", one_node("ConvTranspose", IMAGE, back, strides=[2, 2], output_shape=[18, 22])
    grouped = [rand(4, 3, 2, 2)]
    yield "tr. groups", one_node("ConvTranspose", IMAGE, grouped, group=2, dilations=[2, 2])
    yield "tr. 1-D", one_node("ConvTranspose", (N, 4, 9), [rand(4, 2, 3)], strides=[2])


def pools() -> Iterator[Case]:
    for kind in ("MaxPool", "AveragePool"):
        shape = {"kernel_shape": [3, 2]}
        yield f"{kind}", one_node(kind, IMAGE, strides=[2, 2], **shape)
        yield f"{kind} pads", one_node(kind, IMAGE, pads=[1, 1, 1, 1], **shape)
        yield f"{kind} uneven", one_node(kind, IMAGE, pads=[0, 1, 2, 0], strides=[2, 1], **shape)
        yield f"{kind} ceil", one_node(kind, IMAGE, strides=[2, 3], ceil_mode=1, **shape)
        for auto in ("SAME_UPPER", "SAME_LOWER"):
            yield f"{kind} {auto}", one_node(kind, IMAGE, auto_pad=auto, strides=[2, 2], **shape)
        yield f"{kind} 1-D", one_node(kind, (N, 4, 9), kernel_shape=[3], strides=[2])
        yield f"{kind} 3-D", one_node(kind, (N, 2, 5, 6, 7), kernel_shape=[2, 2, 2])
        yield f"{kind} opset 7", one_node(kind, IMAGE, strides=[2, 2], opset=7, **shape)
    kernel: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    yield "gaps", one_node("MaxPool", IMAGE, dilations=[2, 2], kernel_shape=[2, 2])
    yield "counted", one_node("AveragePool", IMAGE, count_include_pad=1, strides=[2, 2], **kernel)
    uneven: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [0, 0, 1, 1]}
    yield "uneven counted", one_node("AveragePool", IMAGE, count_include_pad=1, **uneven)
    yield (
        "counted ceil",
        one_node("AveragePool", IMAGE, count_include_pad=1, ceil_mode=1, strides=[2, 3], **kernel),
    )
    for kind in ("GlobalAveragePool", "GlobalMaxPool"):
        yield kind, one_node(kind, IMAGE)
        yield f"{kind} 1-D", one_node(kind, (N, 4, 9))


def norms() -> Iterator[Case]:
    four = [rand(4), rand(4)]
    batch = [*four, rand(4), np.abs(rand(4)) + 0.1]
    for shape in (IMAGE, (N, 4, 9), (N, 4)):
        yield f"batch {shape}", one_node("BatchNormalization", shape, batch, epsilon=1e-3)
    yield "batch, opset 7", one_node("BatchNormalization", IMAGE, batch, opset=7)
    yield "instance", one_node("InstanceNormalization", IMAGE, four, epsilon=1e-3)
    yield "layer", one_node("LayerNormalization", (N, 5, 8), [rand(8), rand(8)])
    yield "layer, no bias", one_node("LayerNormalization", (N, 5, 8), [rand(8)], epsilon=1e-2)
    whole = [rand(5, 8), rand(5, 8)]
    yield "layer, two", one_node("LayerNormalization", (N, 5, 8), whole, axis=1)
    two = [rand(2), rand(2)]
    yield "group 18", one_node("GroupNormalization", IMAGE, two, num_groups=2, opset=18)
    yield "group 21", one_node("GroupNormalization", IMAGE, four, num_groups=2, opset=21)
    yield "local response", one_node("LRN", IMAGE, size=3, alpha=0.5, beta=0.6, bias=1.5)
    yield "lp 2", one_node("LpNormalization", (N, 5, 8), p=2, axis=-1)
    yield "lp 1", one_node("LpNormalization", (N, 5, 8), p=1, axis=1)
    yield "mvn", one_node("MeanVarianceNormalization", IMAGE, axes=[2, 3])


def activations() -> Iterator[Case]:
    plain = "Relu Sigmoid Tanh HardSwish Mish Softplus Softsign LeakyRelu Elu Celu Selu"
    for kind in (*plain.split(), "ThresholdedRelu", "HardSigmoid"):
        yield kind, one_node(kind, IMAGE, opset=18)
    for kind in ("LeakyRelu", "Elu", "Celu", "ThresholdedRelu", "HardSigmoid"):
        yield f"{kind} alpha", one_node(kind, IMAGE, alpha=0.3)
    yield "torch's", one_node("HardSigmoid", IMAGE, alpha=1 / 6, beta=0.5)
    yield "selu", one_node("Selu", IMAGE, alpha=1.2, gamma=1.1)
    for how in ("none", "tanh"):
        yield f"gelu {how}", one_node("Gelu", IMAGE, approximate=how, opset=20)
    yield "clip 6", one_node("Clip", IMAGE, min=-0.5, max=0.7, opset=6 + 1)
    yield "clip both", one_node("Clip", IMAGE, [scalar(0), scalar(6)])
    yield "clip below", one_node("Clip", IMAGE, [scalar(0)])
    yield "clip above", one_node("Clip", IMAGE, [None, scalar(0.3)])
    yield "clip nothing", one_node("Clip", IMAGE)
    yield "prelu one", one_node("PRelu", IMAGE, [rand(1)])
    yield "prelu channels", one_node("PRelu", IMAGE, [rand(4, 1, 1)])
    yield "prelu width", one_node("PRelu", IMAGE, [rand(11)])
    yield "shrink hard", one_node("Shrink", IMAGE, lambd=0.4)
    yield "shrink soft", one_node("Shrink", IMAGE, lambd=0.4, bias=0.4)
    yield "shrink", one_node("Shrink", IMAGE, lambd=0.4, bias=0.1)
    for kind in ("Softmax", "LogSoftmax"):
        for opset in (11, 13):
            for axis in (1, 2, -1):
                yield f"{kind} {opset} {axis}", one_node(kind, IMAGE, opset=opset, axis=axis)
            yield f"{kind} {opset}", one_node(kind, (N, 5), opset=opset)


def two_inputs(kind: str, opset: int = 17, **attributes: Any) -> onnx.ModelProto:
    sizes = {"x": (N, 4, 5), "z": (N, 4, 5)}
    return model_of([(kind, ["x", "z"], ["y"], attributes)], sizes, ["y"], opset=opset)


def elementwise() -> Iterator[Case]:
    for kind in (
        "Abs",
        "Neg",
        "Exp",
        "Sign",
        "Floor",
        "Ceil",
        "Round",
        "Erf",
        "Sin",
        "Cos",
        "IsNaN",
    ):
        yield kind, one_node(kind, IMAGE, opset=18)
    for kind in ("Tan", "Atan", "Sinh", "Cosh", "Asinh"):
        yield kind, one_node(kind, (N, 3))
    for kind in ("Sqrt", "Log", "Reciprocal", "Acosh"):
        nodes = [
            ("Abs", ["x"], ["a"], {}),
            ("Add", ["a", "c"], ["b"], {}),
            (kind, ["b"], ["y"], {}),
        ]
        yield kind, model_of(nodes, {"x": (N, 3)}, ["y"], {"c": scalar(1.5)})
    for kind in ("Asin", "Acos", "Atanh"):
        nodes = [
            ("Tanh", ["x"], ["a"], {}),
            ("Mul", ["a", "c"], ["b"], {}),
            (kind, ["b"], ["y"], {}),
        ]
        yield kind, model_of(nodes, {"x": (N, 3)}, ["y"], {"c": scalar(0.9)})
    for kind in ("Add", "Sub", "Mul", "Div", "Min", "Max", "Sum", "Mean"):
        yield kind, two_inputs(kind)
        yield f"{kind} constant", one_node(kind, IMAGE, [rand(4, 1, 1) + 3])
    for kind in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"):
        yield kind, two_inputs(kind)
    for kind in ("And", "Or", "Xor"):
        truth = [("Greater", ["x", "z"], ["a"], {}), ("Less", ["x", "c"], ["b"], {})]
        nodes = [*truth, (kind, ["a", "b"], ["t"], {}), ("Not", ["t"], ["y"], {})]
        yield kind, model_of(nodes, {"x": (N, 4), "z": (N, 4)}, ["y"], {"c": scalar(0.2)})
    yield "pow", one_node("Pow", IMAGE, [scalar(2)])
    yield "pow 7", one_node("Pow", IMAGE, [scalar(3)], opset=7)
    yield "mod", one_node("Mod", IMAGE, [scalar(0.7)], fmod=1)
    chosen = [("Greater", ["x", "z"], ["t"], {}), ("Where", ["t", "x", "c"], ["y"], {})]
    yield "where", model_of(chosen, {"x": (N, 4), "z": (N, 4)}, ["y"], {"c": scalar(-2)})
    for target in (onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL):
        nodes = [("Cast", ["x"], ["t"], {"to": target}), ("Cast", ["t"], ["y"], {"to": 1})]
        yield f"cast {target}", model_of(nodes, {"x": (N, 4)}, ["y", "t"])
    nodes = [("Cast", ["x"], ["t"], {"to": 7}), ("CastLike", ["t", "x"], ["y"], {})]
    yield "cast like", model_of(nodes, {"x": (N, 4)}, ["y"])
    yield "isinf", one_node("IsInf", IMAGE)


def shapes() -> Iterator[Case]:
    for wanted in ((0, -1), (-1, 44, 9), (0, 0, 99), (0, 2, 2, -1)):
        yield f"reshape {wanted}", one_node("Reshape", IMAGE, [ints(*wanted)])
    for axis in (0, 1, 2, -1):
        yield f"flatten {axis}", one_node("Flatten", IMAGE, axis=axis)
    yield "transpose", one_node("Transpose", IMAGE, perm=[0, 2, 3, 1])
    yield "transpose all", one_node("Transpose", (2, 3, 4))
    flat = (N, 1, 5, 1)
    yield "squeeze 11", one_node("Squeeze", flat, axes=[1, -1], opset=11)
    yield "squeeze 13", one_node("Squeeze", flat, [ints(1, 3)])
    yield "unsqueeze 11", one_node("Unsqueeze", (N, 5), axes=[1, 3], opset=11)
    yield "unsqueeze 13", one_node("Unsqueeze", (N, 5), [ints(1, -1)])
    yield "concat", one_node("Concat", (1, *IMAGE[1:]), [rand(1, 4, 9, 11)], axis=1)
    yield "concat two", two_inputs("Concat", axis=-1)
    for opset, how in ((11, {"split": [1, 3]}), (13, {}), (18, {"num_outputs": 2})):
        yield f"split {opset}", one_node("Split", IMAGE, outputs=2, axis=1, opset=opset, **how)
    yield "split sizes", one_node("Split", IMAGE, [ints(3, 1)], outputs=2, axis=1)
    yield "split uneven", one_node("Split", IMAGE, outputs=2, axis=2, num_outputs=2, opset=18)
    yield "expand", one_node("Expand", (N, 4, 1), [ints(1, 4, 5)])
    yield "expand more", one_node("Expand", (2, 4, 1), [ints(3, 1, 4, 2)])
    yield "tile", one_node("Tile", IMAGE, [ints(1, 2, 1, 3)])
    for mode in ("constant", "reflect", "edge"):
        around = [0, 0, 1, 2, 0, 0, 3, 1]
        yield f"pad 10 {mode}", one_node("Pad", IMAGE, pads=around, mode=mode, opset=10)
        yield f"pad {mode}", one_node("Pad", IMAGE, [ints(*around)], mode=mode)
    yield "pad value", one_node("Pad", IMAGE, [ints(0, 1, 0, 2, 0, 0, 3, 1), scalar(0.5)])
    yield "pad cut", one_node("Pad", IMAGE, [ints(0, 0, -1, 0, 0, 0, 0, -2)])
    yield "pad axes", one_node("Pad", IMAGE, [ints(1, 2), None, ints(-1)], opset=18)
    for mode in ("DCR", "CRD"):
        yield mode, one_node("DepthToSpace", (N, 8, 3, 5), blocksize=2, mode=mode)
    yield "space to depth", one_node("SpaceToDepth", (N, 2, 6, 4), blocksize=2)
    yield "dropout", one_node("Dropout", IMAGE)
    yield "dropout 7", one_node("Dropout", IMAGE, opset=7, ratio=0.3)
    yield "identity", one_node("Identity", IMAGE)


def computed_shapes() -> Iterator[Case]:
    """What exporters write for `x.view(x.size(0), -1, …)` and the like."""
    weights = {"zero": ints(0)[0], "one": ints(0), "rest": ints(-1), "four": ints(4)}
    head = [("Shape", ["x"], ["s"], {}), ("Gather", ["s", "zero"], ["n"], {"axis": 0})]
    raised = [("Unsqueeze", ["n", "one"], ["n1"], {})]
    target = [("Concat", ["n1", "four", "rest"], ["t"], {"axis": 0})]
    nodes = [*head, *raised, *target, ("Reshape", ["x", "t"], ["y"], {})]
    yield "view", model_of(nodes, {"x": IMAGE}, ["y"], weights)
    ones = [("Slice", ["s", "one", "four"], ["s1"], {}), ("ConstantOfShape", ["s1"], ["o"], {})]
    nodes = [head[0], *ones, ("Add", ["x", "o"], ["y"], {})]
    yield "zeros like", model_of(nodes, {"x": IMAGE}, ["y"], weights)
    tokens = [("Concat", ["n1", "four", "four"], ["t"], {"axis": 0})]
    made = [("Expand", ["token", "t"], ["e"], {}), ("Concat", ["e", "x"], ["y"], {"axis": 1})]
    held = {**weights, "token": rand(1, 4, 4)}
    yield "class token", model_of([*head, *raised, *tokens, *made], {"x": (N, 3, 4)}, ["y"], held)
    numbers = [("Range", ["zero", "two", "step"], ["r"], {}), ("Cast", ["r"], ["f"], {"to": 1})]
    held = {**weights, "two": ints(1)[0], "step": ints(1)[0], "last": ints(3)[0]}
    size = [("Gather", ["s", "last"], ["two"], {"axis": 0})]
    del held["two"]
    nodes = [head[0], *size, *numbers, ("Mul", ["x", "f"], ["y"], {})]
    yield "range", model_of(nodes, {"x": IMAGE}, ["y"], held)
    yield (
        "size",
        model_of(
            [
                ("Size", ["x"], ["s"], {}),
                ("Cast", ["s"], ["f"], {"to": 1}),
                ("Div", ["x", "f"], ["y"], {}),
            ],
            {"x": (2, 3)},
            ["y"],
        ),
    )
    nodes = [*head, *raised, ("Concat", ["n1", "rest"], ["t"], {"axis": 0})]
    repeated = [*nodes, ("Reshape", ["x", "t"], ["y"], {"allowzero": 1})]
    yield "allow zero", model_of(repeated, {"x": IMAGE}, ["y"], weights)
    cut = [("Shape", ["x"], ["s"], {"start": 2, "end": 4}), ("Slice", ["s", "one", "b"], ["h"], {})]
    nodes = [*cut, ("Div", ["h", "b2"], ["half"], {})]
    nodes += [("Slice", ["x", "one", "half", "b2"], ["y"], {})]
    held = {"one": ints(0), "b": ints(1), "b2": ints(2)}
    yield "half of it", model_of(nodes, {"x": IMAGE}, ["y"], held)


def choices() -> Iterator[Case]:
    yield "slice 9", one_node("Slice", IMAGE, starts=[1, -5], ends=[3, 9999], axes=[1, 3], opset=9)
    yield "slice", one_node("Slice", IMAGE, [ints(1, 8), ints(-1, -100), ints(2, 3), ints(2, -3)])
    yield "slice all", one_node("Slice", IMAGE, [ints(0), ints(2**62), ints(0)])
    yield "reversed", one_node("Slice", IMAGE, [ints(-1), ints(-(2**62)), ints(1), ints(-1)])
    yield "gather one", one_node("Gather", IMAGE, [ints(-2)[0]], axis=1)
    yield "gather", one_node("Gather", IMAGE, [ints(0, 3, -1)], axis=1)
    yield "gather grid", one_node("Gather", IMAGE, [np.array([[0, 3], [2, 1]])], axis=2)
    places = np.array(RNG.integers(-5, 5, (2, 5)))
    yield "elements", one_node("GatherElements", (2, 5), [places], axis=1)
    steps = {"c": np.arange(7, dtype=np.float32) / 7, "k": ints(3)}  # no two are equal
    for how in ({"largest": 0}, {"largest": 1}):
        nodes = [("Add", ["x", "c"], ["d"], {}), ("TopK", ["d", "k"], ["y", "i"], how)]
        yield f"topk {how}", model_of(nodes, {"x": (N, 7)}, ["y", "i"], steps)
    nodes = [("Add", ["x", "c"], ["d"], {}), ("TopK", ["d"], ["y", "i"], {"k": 3})]
    yield "topk 9", model_of(nodes, {"x": (N, 7)}, ["y", "i"], steps, opset=9)
    for kind in ("ArgMax", "ArgMin"):
        yield kind, one_node(kind, IMAGE, axis=1)
        yield f"{kind} flat", one_node(kind, IMAGE, axis=-1, keepdims=0)
    for how in ({}, {"reverse": 1}, {"exclusive": 1}, {"reverse": 1, "exclusive": 1}):
        yield f"cumsum {how}", one_node("CumSum", (N, 7), [ints(1)[0]], **how)
    yield "trilu", one_node("Trilu", (N, 5, 5), upper=0)
    yield "trilu k", one_node("Trilu", (N, 5, 5), [ints(1)[0]])
    nodes = [("ArgMax", ["x"], ["i"], {"axis": 1}), ("OneHot", ["i", "d", "v"], ["y"], {"axis": 1})]
    held = {"d": ints(5), "v": np.array([0.0, 2.0], np.float32)}
    yield "one hot", model_of(nodes, {"x": (N, 5)}, ["y"], held)
    nodes = [("EyeLike", ["x"], ["e"], {"k": 1}), ("Add", ["x", "e"], ["y"], {})]
    yield "eye", model_of(nodes, {"x": (3, 5)}, ["y"])
    nodes = [("NonZero", ["c"], ["n"], {}), ("Squeeze", ["n", "z"], ["i"], {})]
    nodes += [("Gather", ["x", "i"], ["y"], {"axis": 1})]
    held = {"c": ints(0, 2, 0, 1, 5), "z": ints(0)}
    yield "known non-zero", model_of(nodes, {"x": (N, 5)}, ["y"], held)
    held = {"c": rand(3, 4), "i": np.array([[0, 1], [2, 3]])}
    nodes = [("GatherND", ["c", "i"], ["g"], {}), ("Add", ["x", "g"], ["y"], {})]
    yield "gather n-d", model_of(nodes, {"x": (N, 2)}, ["y"], held)
    where = np.array([[[0, 1], [0, 2]], [[1, 0], [1, 4]]])
    nodes = [("Exp", ["x"], ["e"], {}), ("Slice", ["e", "a", "b", "c"], ["n"], {})]
    nodes += [("ScatterND", ["x", "i", "n"], ["y"], {})]
    held = {"i": where, "a": ints(0), "b": ints(2), "c": ints(1)}
    yield "scatter n-d", model_of(nodes, {"x": (2, 5)}, ["y"], held)
    grid = np.clip(rand(1, 6, 5, 2), -1.2, 1.2)
    for corners in (0, 1):
        for padding in ("zeros", "border"):
            yield (
                f"grid {corners} {padding}",
                one_node(
                    "GridSample", (1, 3, 7, 8), [grid], align_corners=corners, padding_mode=padding
                ),
            )


def reductions() -> Iterator[Case]:
    kinds = "Mean Sum Max Min Prod L1 L2 SumSquare LogSumExp"
    for name in kinds.split():
        kind = f"Reduce{name}"
        opset = 18
        yield f"{kind} 11", one_node(kind, (N, 3, 5, 2), axes=[1, -1], opset=11)
        yield f"{kind} {opset}", one_node(kind, IMAGE, [ints(2, 3)], keepdims=0, opset=opset)
        yield f"{kind} all", one_node(kind, (2, 3), opset=11, keepdims=0)
    yield "sum 13", one_node("ReduceSum", IMAGE, [ints(1)], opset=13)
    yield "nothing", one_node("ReduceSum", IMAGE, opset=13, noop_with_empty_axes=1)
    nodes = [("Abs", ["x"], ["a"], {}), ("ReduceLogSum", ["a"], ["y"], {"axes": [1]})]
    yield "log sum", model_of(nodes, {"x": (N, 5)}, ["y"])


def matrices() -> Iterator[Case]:
    yield "linear", one_node("MatMul", (N, 5), [rand(5, 3)])
    yield "of tokens", one_node("MatMul", (N, 7, 5), [rand(5, 3)])
    yield "batched", one_node("MatMul", (N, 2, 7, 5), [rand(2, 5, 3)])
    nodes = [("MatMul", ["a", "x"], ["y"], {})]
    yield "in front", model_of(nodes, {"x": (N, 5, 3)}, ["y"], {"a": rand(4, 5)})
    nodes = [("Transpose", ["z"], ["t"], {"perm": [0, 2, 1]}), ("MatMul", ["x", "t"], ["y"], {})]
    yield "two", model_of(nodes, {"x": (N, 4, 5), "z": (N, 3, 5)}, ["y"])
    nodes = [("MatMul", ["x", "w"], ["m"], {}), ("Add", ["b", "m"], ["y"], {})]
    yield "with bias", model_of(nodes, {"x": (N, 5)}, ["y"], {"w": rand(5, 3), "b": rand(3)})
    held = {"w": rand(5, 3), "b": rand(3)}
    yield "bias read twice", model_of(nodes, {"x": (N, 5)}, ["y", "m"], held)
    twice = [*nodes, ("MatMul", ["y", "v"], ["n"], {}), ("MatMul", ["n", "w"], ["k"], {})]
    held = {**held, "v": rand(3, 5)}
    yield "shared", model_of([*twice, ("Add", ["k", "b"], ["l"], {})], {"x": (N, 5)}, ["l"], held)
    for a, b in ((0, 0), (0, 1)):
        weight = rand(3, 5) if b else rand(5, 3)
        how = {"transA": a, "transB": b}
        yield f"gemm {b}", one_node("Gemm", (N, 5), [weight, rand(3)], **how)
        yield (
            f"gemm αβ {b}",
            one_node("Gemm", (N, 5), [weight, rand(3)], alpha=0.5, beta=2.0, **how),
        )
        yield f"gemm β {b}", one_node("Gemm", (N, 5), [weight, rand(1)], beta=2.0, **how)
    yield "gemm aᵀ", one_node("Gemm", (4, 5), [rand(4, 3), rand(3)], transA=1)
    yield "gemm, no c", one_node("Gemm", (N, 5), [rand(5, 3)], opset=11)
    for equation in ("bij,bkj->bik", "bij,bjk->bki"):
        sizes = (
            {"x": (N, 4, 5), "z": (N, 4, 5)}
            if "bkj" in equation
            else {"x": (N, 4, 5), "z": (N, 5, 4)}
        )
        nodes = [("Einsum", ["x", "z"], ["y"], {"equation": equation})]
        yield f"einsum {equation}", model_of(nodes, sizes, ["y"])


PLACES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")


def resizing() -> Iterator[Case]:
    map_ = (N, 3, 5, 6)
    for place in PLACES:
        for mode in ("nearest", "linear", "cubic"):
            how: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": place}
            yield (
                f"{mode} {place} up",
                one_node("Resize", map_, [None, np.array([1, 1, 2, 2], np.float32)], **how),
            )
            yield (
                f"{mode} {place} odd",
                one_node("Resize", map_, [None, None, ints(1, 3, 7, 4)], **how),
            )
    for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
        how = {"coordinate_transformation_mode": "half_pixel", "nearest_mode": rounding}
        yield rounding, one_node("Resize", map_, [None, None, ints(1, 3, 8, 3)], **how)
    scales = np.array([1, 1, 1.7, 0.6], np.float32)
    for mode in ("nearest", "linear"):
        yield f"scales {mode}", one_node("Resize", map_, [None, scales], mode=mode)
        up = np.array([1, 1, 2, 3], np.float32)
        yield f"upsample 9 {mode}", one_node("Upsample", map_, [up], mode=mode, opset=9)
        yield (
            f"upsample 7 {mode}",
            one_node("Upsample", map_, mode=mode, scales=[1.0, 1.0, 2.0, 2.0], opset=7),
        )
        yield f"resize 10 {mode}", one_node("Resize", map_, [up], mode=mode, opset=10)
    yield "axes", one_node("Resize", map_, [None, None, ints(9, 4)], axes=[2, 3], opset=18)
    yield (
        "outside",
        one_node("Resize", map_, [None, None, ints(1, 3, 9, 4)], mode="cubic", exclude_outside=1),
    )
    yield "1-D", one_node("Resize", (N, 3, 6), [None, None, ints(1, 3, 9)], mode="linear")
    yield (
        "symmetric",
        one_node(
            "Resize",
            map_,
            [None, np.array([1, 1, 1.7, 1.7], np.float32)],
            mode="linear",
            coordinate_transformation_mode="half_pixel_symmetric",
            opset=19,
        ),
    )


def sequences() -> Iterator[Case]:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}
    for kind, count in gates.items():
        for directions in (1, 2):
            rows, hidden = count * 6, 6
            held = {
                "w": rand(directions, rows, 5) * 0.5,
                "r": rand(directions, rows, hidden) * 0.5,
                "b": rand(directions, 2 * rows) * 0.5,
                "perm": ints(0),
            }
            how: dict[str, Any] = {"hidden_size": hidden}
            how["direction"] = "bidirectional" if directions == 2 else "forward"
            if kind == "GRU":
                how["linear_before_reset"] = 1
            outputs = ["o", "h", *(["c"] if kind == "LSTM" else [])]
            nodes = [("Transpose", ["x"], ["t"], {"perm": [1, 0, 2]})]
            nodes += [(kind, ["t", "w", "r", "b"], outputs, how)]
            del held["perm"]
            nodes += [("Transpose", ["o"], ["y"], {"perm": [2, 0, 1, 3]})]
            nodes += [("Transpose", ["h"], ["z"], {"perm": [1, 0, 2]})]
            yield f"{kind} {directions}", model_of(nodes, {"x": (N, 7, 5)}, ["y", "z"], held)


FAMILIES = {
    "convolutions": convolutions,
    "pools": pools,
    "norms": norms,
    "activations": activations,
    "elementwise": elementwise,
    "shapes": shapes,
    "computed shapes": computed_shapes,
    "choices": choices,
    "reductions": reductions,
    "matrices": matrices,
    "resizing": resizing,
    "sequences": sequences,
}
CASES = {f"{family}: {name}": model for family, f in FAMILIES.items() for name, model in f()}
# ONNX Runtime has no kernel of them; they are tested by what they are made of.
WITHOUT_KERNEL = {"RMSNormalization", "Swish"}


@pytest.mark.parametrize("name", CASES)
def test_it_computes_what_onnx_runtime_does(name: str, tmp_path: Path) -> None:
    assert worst_difference(CASES[name], tmp_path) < 1e-4


def test_every_rule_has_a_case() -> None:
    used = {node.op_type for model in CASES.values() for node in model.graph.node}
    assert RULES.keys() - used - {"Constant"} == WITHOUT_KERNEL
