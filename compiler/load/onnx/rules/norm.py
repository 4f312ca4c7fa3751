"""Normalisation."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from shrinkc.compiler.load.onnx.build import Value
from shrinkc.compiler.load.onnx.context import Context, Rule

_BATCH: dict[int, Any] = {
    2: nn.BatchNorm1d,
    3: nn.BatchNorm1d,
    4: nn.BatchNorm2d,
    5: nn.BatchNorm3d,
}
_INSTANCE: dict[int, Any] = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}


def batch_norm(c: Context) -> Value:
    names = ("weight", "bias", "running_mean", "running_var")
    weights: dict[str, Value | None] = {n: c.weight(i) for i, n in enumerate(names, 1)}
    x = c.x()
    if c.int("training_mode") or (c.opset < 9 and not c.int("spatial", 1)) or x.rank not in _BATCH:
        raise c.unsupported("statistics of the batch; export the network in eval mode")
    channels, momentum = c.weight(1).shape[0], 1 - c.float("momentum", 0.9)
    module = _BATCH[x.rank](channels, c.float("epsilon", 1e-5), momentum)
    return c.layer(module, weights, x)


def instance_norm(c: Context) -> Value:
    x, weight, bias = c.x(), c.weight(1), c.weight(2)
    if x.rank not in _INSTANCE:
        raise c.unsupported(f"of {x.rank} dimensions")
    module = _INSTANCE[x.rank](weight.shape[0], c.float("epsilon", 1e-5), affine=True)
    return c.layer(module, {"weight": weight, "bias": bias}, x)


def layer_norm(c: Context) -> Value:
    if any(c.node.output[1:]):
        raise c.unsupported("it returns mean and deviation too")
    x, weight, bias = c.x(), c.weight(1), c.maybe_weight(2)
    shape = x.shape[c.axis(-1) :]
    weights = {"weight": _of_shape(c, weight, shape)}
    if bias is not None:
        weights["bias"] = _of_shape(c, bias, shape)
    module = nn.LayerNorm(list(shape), c.float("epsilon", 1e-5), bias=bias is not None)
    return c.layer(module, {**weights}, x)


def _of_shape(c: Context, weight: Value, shape: tuple[int, ...]) -> Value:
    if weight.shape == shape:
        return weight
    return c.call(torch.broadcast_to, weight, shape)


def group_norm(c: Context) -> Value:
    x, groups = c.x(), c.int("num_groups")
    channels = x.shape[1]
    weights = [c.weight(1), c.weight(2)]
    if c.opset < 21:  # of each group
        weights = [c.call(torch.repeat_interleave, w, channels // groups) for w in weights]
    module = nn.GroupNorm(groups, channels, c.float("epsilon", 1e-5))
    return c.layer(module, {"weight": weights[0], "bias": weights[1]}, x)


def rms_norm(c: Context) -> Value:
    x, weight = c.x(), c.weight(1)
    return c.call(F.rms_norm, x, x.shape[c.axis(-1) :], weight, c.float("epsilon", 1e-5))


def local_response_norm(c: Context) -> Value:
    size = c.int("size")
    if size % 2 == 0:
        raise c.unsupported(f"over an even number of channels ({size})")
    rest = (c.float("alpha", 1e-4), c.float("beta", 0.75), c.float("bias", 1.0))
    return c.call(F.local_response_norm, c.x(), size, *rest)


def lp_norm(c: Context) -> Value:
    return c.call(F.normalize, c.x(), float(c.int("p", 2)), c.axis(-1))


def mean_variance_norm(c: Context) -> Value:
    x, axes = c.x(), c.ints("axes", (0, 2, 3)) or ()
    if 0 in axes:
        raise c.unsupported("statistics of the batch")
    centred = c.call(torch.sub, x, c.call(torch.mean, x, axes, True))
    variance = c.call(torch.mean, c.call(torch.mul, centred, centred), axes, True)
    return c.call(torch.div, centred, c.call(torch.add, c.call(torch.sqrt, variance), 1e-9))


RULES: dict[str, Rule] = {
    "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm,
    "LayerNormalization": layer_norm,
    "GroupNormalization": group_norm,
    "RMSNormalization": rms_norm,
    "LRN": local_response_norm,
    "LpNormalization": lp_norm,
    "MeanVarianceNormalization": mean_variance_norm,
}
