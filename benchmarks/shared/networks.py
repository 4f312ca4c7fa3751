"""Networks that the speed benchmarks compile beside MobileNetV2; factories for `--arch`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.shared.mobilenet_v2 import mobilenet_v2, mobilenet_v2_bn


def _conv_bn(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (He et al., 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv_bn(inputs, outputs, 3, stride), nn.ReLU(), *_conv_bn(outputs, outputs, 3)
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = (
            nn.Identity() if same else nn.Sequential(*_conv_bn(inputs, outputs, 1, stride))
        )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.body(x) + self.shortcut(x))


def resnet18() -> nn.Sequential:
    """ResNet-18 for 224×224."""
    layers = [*_conv_bn(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [BasicBlock(channels, outputs, stride), BasicBlock(outputs, outputs)]
        channels = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


class SqueezeExcite(nn.Module):
    """Channel attention with hard sigmoid (Howard et al., 2019)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class BottleneckV3(nn.Module):
    """MobileNetV3's block."""

    def __init__(
        self, inputs: int, hidden: int, outputs: int, kernel: int, stride: int, se: bool, hs: bool
    ) -> None:
        super().__init__()
        self.residual = stride == 1 and inputs == outputs
        activation = nn.Hardswish if hs else nn.ReLU
        expand = [*_conv_bn(inputs, hidden, 1), activation()] if hidden != inputs else []
        squeeze = [SqueezeExcite(hidden, _eighths(hidden // 4))] if se else []
        self.layers = nn.Sequential(
            *expand,
            *_conv_bn(hidden, hidden, kernel, stride, groups=hidden),
            activation(),
            *squeeze,
            *_conv_bn(hidden, outputs, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


def _eighths(channels: int) -> int:
    """Rounded to a multiple of 8, never below 90 %."""
    rounded = max(8, (channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


# Inputs, hidden, outputs, kernel, stride, squeeze-excite, hard-swish (Howard et al., table 2).
_V3_SMALL = (
    (16, 16, 16, 3, 2, True, False),
    (16, 72, 24, 3, 2, False, False),
    (24, 88, 24, 3, 1, False, False),
    (24, 96, 40, 5, 2, True, True),
    (40, 240, 40, 5, 1, True, True),
    (40, 240, 40, 5, 1, True, True),
    (40, 120, 48, 5, 1, True, True),
    (48, 144, 48, 5, 1, True, True),
    (48, 288, 96, 5, 2, True, True),
    (96, 576, 96, 5, 1, True, True),
    (96, 576, 96, 5, 1, True, True),
)


def mobilenet_v3_small() -> nn.Sequential:
    """MobileNetV3-small for 224×224."""
    return nn.Sequential(
        *_conv_bn(3, 16, 3, 2),
        nn.Hardswish(),
        *(BottleneckV3(*row) for row in _V3_SMALL),
        *_conv_bn(96, 576, 1),
        nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(576, 1024),
        nn.Hardswish(),
        nn.Linear(1024, 1000),
    )


@dataclass(frozen=True)
class Network:
    """`arch` is what `shrinkc --arch` takes."""

    factory: Callable[[], nn.Module]
    arch: str
    input_shape: tuple[int, ...]


def _network(factory: Callable[[], nn.Module]) -> Network:
    return Network(factory, f"{factory.__module__}:{factory.__name__}", (1, 3, 224, 224))


NETWORKS = {
    factory.__name__: _network(factory)
    for factory in (mobilenet_v2, mobilenet_v2_bn, resnet18, mobilenet_v3_small)
}


def load(name: str, state_dict: str) -> nn.Module:
    """The network with the weights of a state-dict file, in eval mode."""
    model = NETWORKS[name].factory()
    model.load_state_dict(torch.load(state_dict, weights_only=True))
    return model.eval()
