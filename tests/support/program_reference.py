"""What a deployment program computes, in float64, by PyTorch's functions on PyTorch's layout."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from shrinkc.compiler.export import ops

_UNARY = {
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "hard_sigmoid": F.hardsigmoid,
    "hard_swish": F.hardswish,
    "silu": F.silu,
    "mish": F.mish,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "softplus": lambda x: torch.where(x > 0, x, 0) + torch.log1p(torch.exp(-x.abs())),
    "clip": torch.clamp,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "exp": torch.exp,
    "log": torch.log,
    "abs": torch.abs,
    "neg": torch.neg,
    "erf": torch.erf,
    **{name: getattr(torch, name) for name in ("sign", "floor", "ceil", "round", "trunc")},
    **{name: getattr(torch, name) for name in ("sin", "cos", "log1p", "expm1", "atan")},
}
_BINARY = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "pow": torch.pow,
    "remainder": torch.remainder,
    "atan2": torch.atan2,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
}
_ACTIVATIONS = {"none": lambda x: x, "relu": F.relu, "relu6": F.relu6}


def run_reference(program: ops.Program, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The program's outputs for `inputs` (PyTorch layout), float64."""
    values = {v.name: _tensor(x) for v, x in zip(program.inputs, inputs, strict=True)}

    def read(operand: ops.Operand) -> Tensor:
        is_const = isinstance(operand, ops.Const)
        return _tensor(operand.array) if is_const else values[operand.name]

    for op in program.ops:
        result = _compute(op, [read(operand) for operand in op.operands()])
        result = _ACTIVATIONS[getattr(op, "activation", "none")](result)
        assert tuple(result.shape) == op.output.shape, f"{op.name}: {tuple(result.shape)}"
        values[op.output.name] = result
    return [values[v.name].numpy() for v in program.outputs]


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array, np.float64))


def _compute(op: ops.Op, operands: list[Tensor]) -> Tensor:
    x = operands[0] if operands else torch.zeros(())
    match op:
        case ops.Conv():
            weight, bias = _tensor(op.weight), _tensor(op.bias)
            x = _around(x, op.pads)
            return F.conv2d(x, weight, bias, op.stride, 0, op.dilation, op.groups)
        case ops.ConvTranspose():
            return _conv_transpose(op, x)
        case ops.Linear():
            return F.linear(x, _tensor(op.weight), _tensor(op.bias))
        case ops.ChannelAffine():
            shape = (-1, *(1,) * (x.ndim - 2))
            return x * _tensor(op.scale).reshape(shape) + _tensor(op.shift).reshape(shape)
        case ops.PRelu():
            return F.prelu(x, _tensor(op.slope))
        case ops.Unary():
            return _UNARY[op.kind](x, *op.parameters)
        case ops.Binary():
            return _BINARY[op.kind](*operands)
        case ops.Compare():
            function = {"greater": torch.gt, "greater_equal": torch.ge, "equal": torch.eq}
            return function.get(op.kind, torch.ne)(*operands).double()
        case ops.Where():
            return torch.where(x != 0, *operands[1:])
        case ops.Integers():
            return x.to(getattr(torch, op.output.dtype))
        case ops.Constant():
            return torch.from_numpy(op.array.astype(op.output.dtype))
        case ops.Gather():
            return x.index_select(op.axis, torch.tensor(op.indices))
        case ops.Pick():
            rows = operands[1].long()
            return torch.stack([table[row] for table, row in zip(x, rows, strict=True)])
        case ops.GridSample():
            return F.grid_sample(x, operands[1], op.mode, op.padding, op.align_corners)
        case ops.DynamicConv():
            weight = operands[1]
            return F.conv2d(_around(x, op.pads), weight, None, op.stride, 0, op.dilation, op.groups)
        case ops.ArgMax():
            return x.argmax(op.axis, op.keepdims).double()
        case ops.CumSum():
            return x.cumsum(op.axis)
        case ops.TopK():
            return getattr(x.topk(op.count, op.axis), op.part).double()
        case ops.MatMul():
            return torch.matmul(*operands)
        case ops.Concat():
            return torch.cat(operands, op.axis)
        case ops.Slice():
            index = (slice(None),) * op.axis + (slice(op.start, op.stop, op.step),)
            return x[index]
        case ops.Reshape():
            return x.reshape(op.output.shape)
        case ops.Transpose():
            return x.permute(op.perm)
        case ops.BatchExpand():
            return x.expand(operands[1].shape[0], *x.shape[1:])
        case ops.Pad():
            return _pad(op, x)
        case ops.MaxPool():
            padded = _around(x, op.pads, -torch.inf)
            return F.max_pool2d(padded, op.kernel, op.stride, 0, op.dilation)
        case ops.AvgPool():
            return _avg_pool(op, x)
        case ops.Reduce():
            kinds = {"mean": torch.mean, "sum": torch.sum, "max": torch.amax, "min": torch.amin}
            if op.kind == "prod":
                for axis in sorted(op.axes, reverse=True):
                    x = x.prod(axis, op.keepdims)
                return x
            return kinds[op.kind](x, op.axes, op.keepdims)
        case ops.Resize():
            corners = op.align_corners if op.mode == "bilinear" else None
            size = op.output.shape[2:]
            return F.interpolate(x, size, mode=op.mode, align_corners=corners)
        case ops.DepthToSpace():
            return F.pixel_shuffle(x, op.block)
        case ops.Softmax():
            return F.log_softmax(x, op.axis) if op.log else F.softmax(x, op.axis)
        case ops.Embedding():
            return F.embedding(x.long(), _tensor(op.weight))
        case ops.Recurrent():
            return _recurrent(op, *operands)
        case ops.LayerNorm():
            weight, bias = _tensor(op.weight), _tensor(op.bias)
            return F.layer_norm(x, op.weight.shape, weight, bias, op.eps)
    raise NotImplementedError(type(op).__name__)


def _recurrent(op: ops.Recurrent, x: Tensor, *states: Tensor) -> Tensor:
    """Step by step, as the equations say it."""
    h = states[0] if states else x.new_zeros(len(x), op.hidden)
    c = states[1] if len(states) > 1 else x.new_zeros(len(x), op.hidden)
    w, u, (b, v) = _tensor(op.weight_ih), _tensor(op.weight_hh), map(_tensor, op.biases)
    steps = range(op.steps)
    found = [x] * op.steps
    for step in steps[::-1] if op.reverse else steps:
        given, kept = F.linear(x[:, step], w, b), F.linear(h, u, v)
        if op.kind == "lstm":
            i, f, g, o = (given + kept).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        elif op.kind == "gru":
            (xr, xz, xn), (hr, hz, hn) = given.chunk(3, 1), kept.chunk(3, 1)
            z = (xz + hz).sigmoid()
            h = (1 - z) * (xn + (xr + hr).sigmoid() * hn).tanh() + z * h
        else:
            h = (given + kept).tanh() if op.kind == "rnn_tanh" else (given + kept).relu()
        found[step] = h
    return torch.stack([*found, *([c] if op.with_cell else [])], 1)


def _around(x: Tensor, pads: ops.Pads, value: float = 0.0) -> Tensor:
    top, left, bottom, right = pads
    return F.pad(x, (left, right, top, bottom), value=value)


def _conv_transpose(op: ops.ConvTranspose, x: Tensor) -> Tensor:
    """PyTorch pads alike on both sides: compute all, then crop as `pads` says."""
    weight, bias = _tensor(op.weight), _tensor(op.bias)
    full = F.conv_transpose2d(x, weight, bias, op.stride, 0, 0, op.groups, op.dilation)
    grown = F.pad(full, (0, op.output_padding[1], 0, op.output_padding[0]), value=torch.nan)
    grown = torch.where(torch.isnan(grown), bias.reshape(-1, 1, 1), grown)
    top, left, bottom, right = op.pads
    height, width = grown.shape[2:]
    return grown[:, :, top : height - bottom, left : width - right]


def _avg_pool(op: ops.AvgPool, x: Tensor) -> Tensor:
    sums = F.avg_pool2d(_around(x, op.pads), op.kernel, op.stride, divisor_override=1)
    if op.count_padding:
        return sums / (op.kernel[0] * op.kernel[1])
    ones = _around(torch.ones_like(x), op.pads)
    return sums / F.avg_pool2d(ones, op.kernel, op.stride, divisor_override=1)


def _pad(op: ops.Pad, x: Tensor) -> Tensor:
    """NumPy's padding: PyTorch's reflects and replicates only some dimensions."""
    amounts = list(zip(op.before, op.after, strict=True))
    if op.mode == "constant":
        return torch.from_numpy(np.pad(x.numpy(), amounts, constant_values=op.value))
    mode = {"reflect": "reflect", "replicate": "edge"}[op.mode]
    return torch.from_numpy(np.pad(x.numpy(), amounts, mode=mode))
