"""What moves elements about, and resizing, as ONNX."""

from __future__ import annotations

import numpy as np

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.onnx.writer import Writer


def write_concat(w: Writer, op: ops.Concat) -> None:
    w.node("Concat", [w.operand(p) for p in op.parts], op.output.name, axis=op.axis)


def write_slice(w: Writer, op: ops.Slice) -> None:
    out = op.output.name
    numbers = {"starts": op.start, "ends": op.stop, "axes": op.axis, "steps": op.step}
    inputs = [w.numbers(f"{out}/{k}", [v], np.int64) for k, v in numbers.items()]
    w.node("Slice", [op.x.name, *inputs], out)


def write_gather(w: Writer, op: ops.Gather) -> None:
    out = op.output.name
    indices = w.numbers(f"{out}/indices", op.indices, np.int64)
    w.node("Gather", [op.x.name, indices], out, axis=op.axis)


def write_reshape(w: Writer, op: ops.Reshape) -> None:
    out = op.output.name
    w.node("Reshape", [op.x.name, w.numbers(f"{out}/shape", w.shape(op.output), np.int64)], out)


def write_transpose(w: Writer, op: ops.Transpose) -> None:
    w.node("Transpose", [op.x.name], op.output.name, perm=op.perm)


def write_batch_expand(w: Writer, op: ops.BatchExpand) -> None:
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


def write_pad(w: Writer, op: ops.Pad) -> None:
    out = op.output.name
    mode = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}[op.mode]
    amounts = w.numbers(f"{out}/pads", [*op.before, *op.after], np.int64)
    inputs = [op.x.name, amounts]
    if op.mode == "constant":
        inputs.append(w.scalar(out, "value", op.value))
    w.node("Pad", inputs, out, mode=mode)


def write_resize(w: Writer, op: ops.Resize) -> None:
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


def _sizes(w: Writer, op: ops.Resize) -> str:
    out = op.output.name
    if not w.dynamic:
        return w.numbers(f"{out}/sizes", op.output.shape, np.int64)
    shape = w.node("Shape", [op.x.name], f"{out}/shape")
    index = w.numbers(f"{out}/index", [0], np.int64)
    batch = w.node("Gather", [shape, index], f"{out}/batch", axis=0)
    rest = w.numbers(f"{out}/rest", op.output.shape[1:], np.int64)
    return w.node("Concat", [batch, rest], f"{out}/sizes", axis=0)


def write_depth_to_space(w: Writer, op: ops.DepthToSpace) -> None:
    w.node("DepthToSpace", [op.x.name], op.output.name, blocksize=op.block, mode="CRD")
