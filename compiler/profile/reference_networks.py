"""A dozen small networks of every kind, random weights: what `shrinkc calibrate` runs on a device.

Together they hold what convolutional networks are made of, at several sizes: depthwise-separable
and inverted residual blocks (MobileNetV1–V3), residual blocks (ResNet), plain 3×3 stacks (VGG),
fire modules with concatenation (SqueezeNet), grouped convolutions (RegNet), big linear layers.
Batch norms would be folded, so there are none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ReferenceNetwork:
    """`size`: height and width of the RGB input."""

    name: str
    size: int
    build: Callable[[], nn.Module]

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        return (1, 3, self.size, self.size)

    def model(self) -> nn.Module:
        """In eval mode; the weights are the same every time."""
        random: Any = torch.random
        with random.fork_rng(devices=()):
            random.manual_seed(0)
            return self.build().eval()


def _conv(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)


class _Residual(nn.Module):
    """body(x) + shortcut(x), then `after`."""

    def __init__(self, body: nn.Module, shortcut: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut, self.after = body, shortcut, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.body(x) + self.shortcut(x))


class _SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            *(_conv(channels, channels // 4), nn.ReLU()),
            *(_conv(channels // 4, channels), nn.Hardsigmoid()),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class _Fire(nn.Module):
    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(_conv(inputs, squeeze), nn.ReLU())
        self.narrow = nn.Sequential(_conv(squeeze, expand), nn.ReLU())
        self.wide = nn.Sequential(_conv(squeeze, expand, 3), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        y = self.squeeze(x)
        return torch.cat([self.narrow(y), self.wide(y)], 1)


def _classifier(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000)]


def _separable(width: float) -> nn.Module:
    """MobileNetV1."""
    channels = int(32 * width)
    layers: list[nn.Module] = [_conv(3, channels, 3, 2), nn.ReLU6()]
    for outputs, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (512, 2), (512, 1), (1024, 2)):
        out = int(outputs * width)
        layers += [_conv(channels, channels, 3, stride, channels), nn.ReLU6()]
        layers += [_conv(channels, out), nn.ReLU6()]
        channels = out
    return nn.Sequential(*layers, *_classifier(channels))


def _inverted(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int,
    activation: Callable[[], nn.Module],
    excite: bool,
) -> nn.Module:
    hidden = 4 * inputs
    body = nn.Sequential(
        *(_conv(inputs, hidden), activation()),
        *(_conv(hidden, hidden, kernel, stride, hidden), activation()),
        *([_SqueezeExcite(hidden)] if excite else []),
        _conv(hidden, outputs),
    )
    same = stride == 1 and inputs == outputs
    return _Residual(body, nn.Identity(), nn.Identity()) if same else body


def _mobile(width: float, kernel: int, swish: bool) -> nn.Module:
    """MobileNetV2, or V3 with hard-swish and squeeze-excite."""
    activation = nn.Hardswish if swish else nn.ReLU6
    channels = int(16 * width)
    layers: list[nn.Module] = [_conv(3, channels, 3, 2), activation()]
    for outputs, stride in ((24, 2), (24, 1), (40, 2), (40, 1), (80, 2), (80, 1), (160, 2)):
        out = int(outputs * width)
        layers.append(_inverted(channels, out, kernel, stride, activation, swish))
        channels = out
    head = int(640 * width)
    return nn.Sequential(*layers, _conv(channels, head), activation(), *_classifier(head))


def _residual(width: int, groups: int, bottleneck: bool) -> nn.Module:
    """ResNet with basic or bottleneck blocks; RegNet's with groups."""
    channels = width
    layers: list[nn.Module] = [_conv(3, width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    for outputs, stride in ((width, 1), (2 * width, 2), (4 * width, 2), (8 * width, 2)):
        if bottleneck:
            hidden = outputs // 2
            body = nn.Sequential(
                *(_conv(channels, hidden), nn.ReLU()),
                *(_conv(hidden, hidden, 3, stride, groups), nn.ReLU()),
                _conv(hidden, outputs),
            )
        else:
            body = nn.Sequential(
                *(_conv(channels, outputs, 3, stride, groups), nn.ReLU()),
                _conv(outputs, outputs, 3, 1, groups),
            )
        same = stride == 1 and channels == outputs
        shortcut = nn.Identity() if same else _conv(channels, outputs, 1, stride)
        layers.append(_Residual(body, shortcut, nn.ReLU()))
        channels = outputs
    return nn.Sequential(*layers, *_classifier(channels))


def _plain(width: int) -> nn.Module:
    """VGG."""
    layers: list[nn.Module] = []
    channels = 3
    for outputs, count in ((width, 1), (2 * width, 1), (4 * width, 2), (8 * width, 2)):
        for _ in range(count):
            layers += [_conv(channels, outputs, 3), nn.ReLU()]
            channels = outputs
        layers.append(nn.MaxPool2d(2))
    hidden = 32 * width
    head = (nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, hidden), nn.ReLU())
    return nn.Sequential(*layers, *head, nn.Linear(hidden, 1000))


def _fire() -> nn.Module:
    """SqueezeNet."""
    return nn.Sequential(
        *(_conv(3, 64, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(_Fire(64, 16, 64), _Fire(128, 16, 64), nn.MaxPool2d(3, 2)),
        *(_Fire(128, 32, 128), _Fire(256, 32, 128), nn.MaxPool2d(3, 2)),
        *(_Fire(256, 48, 192), _Fire(384, 64, 256), *_classifier(512)),
    )


REFERENCE_NETWORKS = (
    ReferenceNetwork("separable 0.5, 160", 160, lambda: _separable(0.5)),
    ReferenceNetwork("separable 1.0, 192", 192, lambda: _separable(1.0)),
    ReferenceNetwork("inverted 0.5, 128", 128, lambda: _mobile(0.5, 3, False)),
    ReferenceNetwork("inverted 1.0, 224", 224, lambda: _mobile(1.0, 3, False)),
    ReferenceNetwork("inverted 1.5 with 5×5, 160", 160, lambda: _mobile(1.5, 5, False)),
    ReferenceNetwork("inverted 1.0 with squeeze-excite, 192", 192, lambda: _mobile(1.0, 3, True)),
    ReferenceNetwork("residual 32, 160", 160, lambda: _residual(32, 1, False)),
    ReferenceNetwork("residual 64, 128", 128, lambda: _residual(64, 1, False)),
    ReferenceNetwork("bottleneck 64, 192", 192, lambda: _residual(64, 1, True)),
    ReferenceNetwork("grouped 64, 160", 160, lambda: _residual(64, 8, True)),
    ReferenceNetwork("plain 24, 96", 96, lambda: _plain(24)),
    ReferenceNetwork("fire, 160", 160, _fire),
)
