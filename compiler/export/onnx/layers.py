"""Convolutions, products, normalisation, pooling and what is found along a dimension as ONNX."""

from __future__ import annotations

import numpy as np

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.onnx.elementwise import activated
from shrinkc.compiler.export.onnx.writer import Writer


def write_conv(w: Writer, op: ops.Conv) -> None:
    _convolution(w, op, "Conv")


def write_conv_transpose(w: Writer, op: ops.ConvTranspose) -> None:
    _convolution(w, op, "ConvTranspose", output_padding=op.output_padding)


def _convolution(w: Writer, op: ops.Conv | ops.ConvTranspose, kind: str, **more: ops.Pair) -> None:
    inputs = [
        op.x.name,
        w.array(f"{op.name}.weight", op.weight),
        w.array(f"{op.name}.bias", op.bias),
    ]
    activated(
        *(w, op),
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


def write_linear(w: Writer, op: ops.Linear) -> None:
    bias = w.array(f"{op.name}.bias", op.bias)
    if len(op.x.shape) == 2:
        inputs = [op.x.name, w.array(f"{op.name}.weight", op.weight), bias]
        activated(w, op, lambda out: w.node("Gemm", inputs, out, transB=1))
        return
    weight = w.array(f"{op.name}.weight_t", op.weight, view="T")
    product = w.node("MatMul", [op.x.name, weight], f"{op.output.name}/product")
    activated(w, op, lambda out: w.node("Add", [product, bias], out))


def write_affine(w: Writer, op: ops.ChannelAffine) -> None:
    channels = op.scale.size
    inputs = [
        op.x.name,
        w.array(f"{op.name}.scale", op.scale),
        w.array(f"{op.name}.shift", op.shift),
        w.array(f"{op.name}.mean", np.zeros(channels, np.float32)),
        w.array(f"{op.name}.var", np.ones(channels, np.float32)),
    ]
    activated(w, op, lambda out: w.node("BatchNormalization", inputs, out, epsilon=0.0))


def write_layer_norm(w: Writer, op: ops.LayerNorm) -> None:
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


def write_matmul(w: Writer, op: ops.MatMul) -> None:
    w.node("MatMul", [w.operand(op.a), w.operand(op.b)], op.output.name)


def write_softmax(w: Writer, op: ops.Softmax) -> None:
    kind = "LogSoftmax" if op.log else "Softmax"
    w.node(kind, [op.x.name], op.output.name, axis=op.axis)


def write_max_pool(w: Writer, op: ops.MaxPool) -> None:
    w.node(
        "MaxPool",
        [op.x.name],
        op.output.name,
        kernel_shape=op.kernel,
        strides=op.stride,
        pads=op.pads,
        dilations=op.dilation,
    )


def write_avg_pool(w: Writer, op: ops.AvgPool) -> None:
    w.node(
        "AveragePool",
        [op.x.name],
        op.output.name,
        kernel_shape=op.kernel,
        strides=op.stride,
        pads=op.pads,
        count_include_pad=int(op.count_padding),
    )


def write_reduce(w: Writer, op: ops.Reduce) -> None:
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


def write_argmax(w: Writer, op: ops.ArgMax) -> None:
    out, dtype = op.output.name, op.output.dtype
    place = out if dtype == "int64" else f"{out}/place"
    w.node("ArgMax", [op.x.name], place, axis=op.axis, keepdims=int(op.keepdims))
    if place != out:
        w.cast(place, out, dtype)


def write_cumsum(w: Writer, op: ops.CumSum) -> None:
    axis = w.array(f"{op.output.name}/axis", np.asarray(op.axis, np.int64))
    w.node("CumSum", [op.x.name, axis], op.output.name)


def write_topk(w: Writer, op: ops.TopK) -> None:
    out = op.output.name
    inputs = [op.x.name, w.numbers(f"{out}/count", [op.count], np.int64)]
    names = [out if op.part == "values" else f"{out}/values", f"{out}/indices"]
    w.several("TopK", inputs, names, axis=op.axis)
    if op.part == "indices":
        w.cast(names[1], out, op.output.dtype)
