"""Leaf modules outside the closed set, each said with functions the rules know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

# Class → (module, x) ↦ (function, args after x)
ModuleRule = Callable[[Any], tuple[Callable[..., Any], tuple[Any, ...]]]


def _pad(mode: str) -> ModuleRule:
    return lambda m: (F.pad, (m.padding, mode, getattr(m, "value", None)))


MODULE_RULES: dict[type[nn.Module], ModuleRule] = {
    nn.Flatten: lambda m: (torch.flatten, (m.start_dim, m.end_dim)),
    nn.Unflatten: lambda m: (torch.unflatten, (m.dim, m.unflattened_size)),
    nn.ZeroPad2d: lambda m: (F.pad, (m.padding, "constant", 0.0)),
    nn.ConstantPad2d: _pad("constant"),
    nn.ReflectionPad2d: _pad("reflect"),
    nn.ReplicationPad2d: _pad("replicate"),
    nn.Dropout1d: lambda m: (F.dropout, (m.p, False)),
    nn.Dropout2d: lambda m: (F.dropout, (m.p, False)),
    nn.AlphaDropout: lambda m: (F.dropout, (m.p, False)),
    nn.Softmax2d: lambda m: (torch.softmax, (1,)),
    nn.LogSoftmax: lambda m: (F.log_softmax, (m.dim,)),
    nn.SELU: lambda m: (F.selu, ()),
    nn.CELU: lambda m: (F.celu, (m.alpha,)),
    nn.GLU: lambda m: (F.glu, (m.dim,)),
    nn.LogSigmoid: lambda m: (F.logsigmoid, ()),
    nn.Softsign: lambda m: (F.softsign, ()),
    nn.Hardshrink: lambda m: (F.hardshrink, (m.lambd,)),
    nn.ChannelShuffle: lambda m: (torch.channel_shuffle, (m.groups,)),
    nn.UpsamplingNearest2d: lambda m: (F.interpolate, (m.size, m.scale_factor, "nearest")),
    nn.UpsamplingBilinear2d: lambda m: (
        F.interpolate,
        (m.size, m.scale_factor, "bilinear", True),
    ),
    nn.LocalResponseNorm: lambda m: (F.local_response_norm, (m.size, m.alpha, m.beta, m.k)),
    nn.Conv1d: lambda m: (
        F.conv1d,
        (m.weight, m.bias, m.stride, m.padding, m.dilation, m.groups),
    ),
    nn.Conv3d: lambda m: (
        F.conv3d,
        (m.weight, m.bias, m.stride, m.padding, m.dilation, m.groups),
    ),
    nn.InstanceNorm2d: lambda m: (
        F.instance_norm,
        (m.running_mean, m.running_var, m.weight, m.bias, m.running_mean is None, 0.0, m.eps),
    ),
    nn.AvgPool1d: lambda m: (
        F.avg_pool1d,
        (m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad),
    ),
    nn.MaxPool1d: lambda m: (
        F.max_pool1d,
        (m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode),
    ),
    nn.AdaptiveAvgPool1d: lambda m: (F.adaptive_avg_pool1d, (m.output_size,)),
}
