"""Leaf modules outside the closed set, each said with functions the rules know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from shrinkc.errors import CaptureError

# Class → (module, x) ↦ (function, args after x)
ModuleRule = Callable[[Any], tuple[Callable[..., Any], tuple[Any, ...]]]


def _pad(mode: str) -> ModuleRule:
    return lambda m: (F.pad, (m.padding, mode, getattr(m, "value", None)))


def _conv(function: Callable[..., Any]) -> ModuleRule:
    def rule(m: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        if m.padding_mode != "zeros":
            raise CaptureError(
                f"{type(m).__name__} pads with {m.padding_mode}; put `F.pad` in front"
            )
        return function, (m.weight, m.bias, m.stride, m.padding, m.dilation, m.groups)

    return rule


def _conv_transpose(function: Callable[..., Any]) -> ModuleRule:
    def rule(m: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        rest = (m.stride, m.padding, m.output_padding, m.groups, m.dilation)
        return function, (m.weight, m.bias, *rest)

    return rule


def _instance_norm(m: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    statistics = (m.running_mean, m.running_var, m.weight, m.bias)
    return F.instance_norm, (*statistics, m.running_mean is None, 0.0, m.eps)


def _embedding(m: nn.Embedding) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    return F.embedding, (m.weight, m.padding_idx, m.max_norm)


MODULE_RULES: dict[type[nn.Module], ModuleRule] = {
    nn.Flatten: lambda m: (torch.flatten, (m.start_dim, m.end_dim)),
    nn.Unflatten: lambda m: (torch.unflatten, (m.dim, m.unflattened_size)),
    **dict.fromkeys((nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d), _pad("constant")),
    **dict.fromkeys((nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d), _pad("constant")),
    **dict.fromkeys((nn.ReflectionPad1d, nn.ReflectionPad2d), _pad("reflect")),
    **dict.fromkeys((nn.ReplicationPad1d, nn.ReplicationPad2d), _pad("replicate")),
    nn.Dropout1d: lambda m: (F.dropout, (m.p, False)),
    nn.Dropout2d: lambda m: (F.dropout, (m.p, False)),
    nn.Dropout3d: lambda m: (F.dropout, (m.p, False)),
    nn.AlphaDropout: lambda m: (F.dropout, (m.p, False)),
    nn.Softmax2d: lambda m: (torch.softmax, (1,)),
    nn.Softmin: lambda m: (F.softmin, (m.dim,)),
    nn.SELU: lambda m: (F.selu, ()),
    nn.CELU: lambda m: (F.celu, (m.alpha,)),
    nn.GLU: lambda m: (F.glu, (m.dim,)),
    nn.LogSigmoid: lambda m: (F.logsigmoid, ()),
    nn.Softsign: lambda m: (F.softsign, ()),
    nn.Tanhshrink: lambda m: (F.tanhshrink, ()),
    nn.Hardshrink: lambda m: (F.hardshrink, (m.lambd,)),
    nn.Softshrink: lambda m: (F.softshrink, (m.lambd,)),
    nn.Threshold: lambda m: (F.threshold, (m.threshold, m.value)),
    nn.RReLU: lambda m: (F.rrelu, (m.lower, m.upper)),
    nn.ChannelShuffle: lambda m: (torch.channel_shuffle, (m.groups,)),
    nn.UpsamplingNearest2d: lambda m: (F.interpolate, (m.size, m.scale_factor, "nearest")),
    nn.UpsamplingBilinear2d: lambda m: (
        F.interpolate,
        (m.size, m.scale_factor, "bilinear", True),
    ),
    nn.LocalResponseNorm: lambda m: (F.local_response_norm, (m.size, m.alpha, m.beta, m.k)),
    nn.Conv1d: _conv(F.conv1d),
    nn.Conv3d: _conv(F.conv3d),
    nn.ConvTranspose1d: _conv_transpose(F.conv_transpose1d),
    nn.ConvTranspose3d: _conv_transpose(F.conv_transpose3d),
    nn.BatchNorm3d: lambda m: (
        F.batch_norm,
        (m.running_mean, m.running_var, m.weight, m.bias, False, m.momentum, m.eps),
    ),
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), _instance_norm),
    nn.RMSNorm: lambda m: (F.rms_norm, (m.normalized_shape, m.weight, m.eps)),
    nn.Embedding: _embedding,
    nn.LPPool1d: lambda m: (F.lp_pool1d, (m.norm_type, m.kernel_size, m.stride, m.ceil_mode)),
    nn.CosineSimilarity: lambda m: (F.cosine_similarity, (m.dim, m.eps)),
    nn.AvgPool1d: lambda m: (
        F.avg_pool1d,
        (m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad),
    ),
    nn.MaxPool1d: lambda m: (
        F.max_pool1d,
        (m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices),
    ),
    nn.AvgPool3d: lambda m: (
        F.avg_pool3d,
        (
            *(m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad),
            m.divisor_override,
        ),
    ),
    nn.MaxPool3d: lambda m: (
        F.max_pool3d,
        (m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices),
    ),
    nn.AdaptiveAvgPool1d: lambda m: (F.adaptive_avg_pool1d, (m.output_size,)),
    nn.AdaptiveMaxPool1d: lambda m: (F.adaptive_max_pool1d, (m.output_size, m.return_indices)),
    nn.AdaptiveAvgPool3d: lambda m: (F.adaptive_avg_pool3d, (m.output_size,)),
    nn.AdaptiveMaxPool3d: lambda m: (F.adaptive_max_pool3d, (m.output_size, m.return_indices)),
}
