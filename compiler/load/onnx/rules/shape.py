"""What moves numbers about without choosing among them, and what is made of shapes."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from shrinkc.compiler.load.onnx.build import Shape, Value
from shrinkc.compiler.load.onnx.context import Context, Rule


def reshape(c: Context) -> Value:
    """0 keeps a size unless `allowzero`, −1 takes what is left."""
    x = c.x()
    wanted = c.numbers(1)
    sizes = zip(x.shapes, wanted, strict=True)
    return c.reshape(x, [_resolved(c, shape, target) for shape, target in sizes])


def _resolved(c: Context, shape: Shape, target: Shape) -> Shape:
    keeps = not c.int("allowzero")
    made = [shape[i] if n == 0 and keeps and i < len(shape) else n for i, n in enumerate(target)]
    if -1 in made:
        rest = math.prod(n for n in made if n != -1)
        if made.count(-1) > 1 or not rest or math.prod(shape) % rest:
            raise c.unsupported(f"a reshape of {shape} to {target}")
        made[made.index(-1)] = math.prod(shape) // rest
    if math.prod(made) != math.prod(shape):
        raise c.unsupported(f"a reshape of {shape} to {target}")
    return tuple(made)


def flatten(c: Context) -> Value:
    x = c.x()
    axis = c.int("axis", 1)
    axis += x.rank if axis < 0 else 0
    return c.reshape(x, [(math.prod(s[:axis]), math.prod(s[axis:])) for s in x.shapes])


def transpose(c: Context) -> Value:
    x = c.x()
    return c.permute(x, c.ints("perm", tuple(range(x.rank))[::-1]) or ())


def _axes(c: Context, rank: int) -> tuple[int, ...] | None:
    """An attribute before opset 13, an input since."""
    axes = c.fixed(1) if c.has(1) else c.ints("axes")
    return None if axes is None else tuple(c.normal(a, rank) for a in axes)


def squeeze(c: Context) -> Value:
    x = c.x()
    axes = _axes(c, x.rank)
    if axes is None:
        axes = tuple(i for i, n in enumerate(x.shapes[-1]) if n == 1)
    gone = set(axes)
    if any(n != 1 for i, n in enumerate(x.shape) if i in gone):
        raise c.unsupported(f"dimensions {axes} of {x.shape} are not 1")
    return c.reshape(x, [tuple(n for i, n in enumerate(s) if i not in gone) for s in x.shapes])


def unsqueeze(c: Context) -> Value:
    x = c.x()
    count = len(c.fixed(1) if c.has(1) else c.ints("axes") or ())
    new = set(_axes(c, x.rank + count) or ())
    shapes: list[Shape] = []
    for shape in x.shapes:
        sizes = iter(shape)
        shapes.append(tuple(1 if i in new else next(sizes) for i in range(x.rank + count)))
    return c.reshape(x, shapes)


def concat(c: Context) -> Value:
    parts = [c.x(i) for i in range(len(c.inputs)) if c.has(i)]
    axis = c.axis(1 if c.opset < 4 else 0)
    parts = [p for p in parts if p.shape != (0,)] or parts[:1]
    return parts[0] if len(parts) == 1 else c.call(torch.cat, parts, axis)


def split(c: Context) -> list[Value]:
    """Sizes are an attribute before opset 13; without them all parts are equal but the last."""
    x, axis = c.x(), c.axis(0)
    sizes = c.fixed(1) if c.has(1) else c.ints("split")
    if sizes is None:
        columns = {s[axis] for s in x.shapes}
        count = c.int("num_outputs", len(c.node.output))
        if len(columns) > 1:
            raise c.unsupported("parts of the batch")
        each = -(-x.shape[axis] // count)
        sizes = tuple(min(each, x.shape[axis] - i * each) for i in range(count))
    return c.call(torch.split, x, list(sizes), axis)


def expand(c: Context) -> Value:
    """Both shapes broadcast."""
    x = c.x()
    both: Any = cast(Any, torch).broadcast_shapes
    shapes = [tuple(both(s, t)) for s, t in zip(x.shapes, c.numbers(1), strict=True)]
    if x.known:
        made = [_expanded(c, t, s) for t, s in zip(x.tensors, shapes, strict=True)]
        return Value(tuple(made))
    if tuple(shapes) == x.shapes:
        return x
    target = [c.build.size(column) for column in zip(*shapes, strict=True)]
    return c.call(Tensor.expand, x, target)


def _expanded(c: Context, tensor: Tensor, shape: Shape) -> Tensor:
    _limit(c, shape)
    return tensor.expand(shape)


def _limit(c: Context, shape: Shape) -> None:
    if math.prod(shape) > MOST_NUMBERS or min(shape, default=0) < 0:
        raise c.unsupported(f"a constant of shape {shape}")


MOST_NUMBERS = 1 << 28


def tile(c: Context) -> Value:
    return c.call(torch.tile, c.x(), c.fixed(1)) if c.x().known else _tiled(c)


def _tiled(c: Context) -> Value:
    columns = zip(*c.numbers(1), strict=True)
    return c.call(Tensor.repeat, c.x(), [c.build.size(column) for column in columns])


def pad(c: Context) -> Value:
    """Amounts are an attribute before opset 11; `axes` since 18."""
    x, mode = c.x(), c.text("mode", "constant")
    amounts = c.fixed(1) if c.has(1) else c.ints("pads") or ()
    axes = [c.normal(a, x.rank) for a in c.fixed(3)] if c.has(3) else list(range(x.rank))
    if len(amounts) != 2 * len(axes):
        raise c.unsupported(f"{len(amounts)} amounts for {len(axes)} dimensions")
    sides = zip(amounts[: len(axes)], amounts[len(axes) :], strict=True)
    given = dict(zip(axes, sides, strict=True))
    around = [given.get(d, (0, 0)) for d in range(x.rank)]
    first = next((d for d, pair in enumerate(around) if any(pair)), x.rank)
    pads = [n for pair in around[first:][::-1] for n in pair]
    if not pads:
        return x
    if mode == "constant":
        value = c.number(2) if c.has(2) else c.float("value", 0.0)
        return c.call(F.pad, x, pads, "constant", value)
    names = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    if mode not in names:
        raise c.unsupported(f"padding by {mode}")
    if (first < x.rank - 2 and x.rank == 4) or first < 2 or min(pads) < 0:
        raise c.unsupported(f"padding of the batch or the channels by {mode}")
    whole = [n for pair in around[2:][::-1] for n in pair]
    return c.call(F.pad, x, whole, names[mode])


def shape_(c: Context) -> Value:
    """`start` and `end` since opset 15."""
    start, end = c.int("start"), c.attribute("end")
    cut = slice(start, None if end is None else int(end))
    return Value(tuple(torch.tensor(s[cut], dtype=torch.int64) for s in c.x().shapes))


def size(c: Context) -> Value:
    return Value(tuple(torch.tensor(math.prod(s)) for s in c.x().shapes))


def constant(c: Context) -> Value:
    a = c.attributes
    if "value" in a:
        return c.build.constant(a["value"], (c.node.output[0],))
    for name, dtype in (("float", torch.float32), ("int", torch.int64)):
        for kind in (f"value_{name}", f"value_{name}s"):
            if kind in a:
                return c.constant(a[kind], dtype)
    raise c.unsupported("text, or a sparse tensor")


def constant_of_shape(c: Context) -> Value:
    value = c.attribute("value", torch.zeros(1))
    for shape in c.numbers(0):
        _limit(c, shape)
    shapes = c.numbers(0)
    return Value(
        tuple(torch.full(s, value.reshape(-1)[0].item(), dtype=value.dtype) for s in shapes)
    )


def range_(c: Context) -> Value:
    made: list[Tensor] = []
    for index in range(c.build.count):
        limits = [c.x(i) for i in range(3)]
        if not all(one.known for one in limits):
            raise c.unsupported("its limits are computed from the network's input")
        start, stop, step = (one.tensors[index].item() for one in limits)
        _limit(c, (max(0, math.ceil((stop - start) / step)) if step else 0,))
        made.append(torch.arange(start, stop, step, dtype=limits[0].dtype))
    return Value(tuple(made))


def identity(c: Context) -> Value:
    return c.x()


def dropout(c: Context) -> Any:
    """In inference nothing; its mask, if it is read, is all true."""
    if c.has(2) and bool(c.number(2)):
        raise c.unsupported("training mode; export the network in eval mode")
    x = c.x()
    if not any(c.node.output[1:]):
        return x
    return [x, Value(tuple(torch.ones(s, dtype=torch.bool) for s in x.shapes))]


def depth_to_space(c: Context) -> Value:
    """DCR has the block in front of the channels, CRD (torch's) behind them."""
    x, block = c.x(), c.int("blocksize")
    if c.text("mode", "DCR") == "DCR":
        shapes = [(n, block * block, ch // block**2, h, w) for n, ch, h, w in x.shapes]
        swapped = c.permute(c.reshape(x, shapes), (0, 2, 1, 3, 4))
        x = c.reshape(swapped, x.shapes)
    return c.call(F.pixel_shuffle, x, block)


def space_to_depth(c: Context) -> Value:
    """The block in front of the channels, where torch's has it behind them."""
    x, block = c.x(), c.int("blocksize")
    y = c.call(F.pixel_unshuffle, x, block)
    channels = x.shape[1]
    apart = c.reshape(y, [(s[0], channels, block**2, *s[2:]) for s in y.shapes])
    return c.reshape(c.permute(apart, (0, 2, 1, 3, 4)), y.shapes)


RULES: dict[str, Rule] = {
    "Reshape": reshape,
    "Flatten": flatten,
    "Transpose": transpose,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Concat": concat,
    "Split": split,
    "Expand": expand,
    "Tile": tile,
    "Pad": pad,
    "Shape": shape_,
    "Size": size,
    "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "Range": range_,
    "Identity": identity,
    "Dropout": dropout,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
}
