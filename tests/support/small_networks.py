"""Tiny members of known families, canonical, batch norms folded, in float64."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from hand_built import randomise
from torch import Tensor, fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.passes.fold.fold_batch_norm import FoldBatchNorm
from shrinkc.passes.simplify.simplify import Simplify

SIZE = 20
Activation = type[nn.Module]


def folded(model: nn.Module, seed: int = 0, size: int = SIZE, batch: int = 2) -> fx.GraphModule:
    """The captured network with random weights and statistics."""
    randomise(model, torch.Generator().manual_seed(seed))
    for module in model.modules():
        if not list(module.children()):
            randomise(module, torch.Generator().manual_seed(seed))
    graph = capture(model.eval(), (torch.randn(batch, 3, size, size),)).double()
    for exact_pass in (Simplify(), FoldBatchNorm(), Simplify()):
        graph = exact_pass(graph).graph_module
    return graph


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    padding = kernel // 2
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.body = nn.Sequential(
            *(nn.Conv2d(channels, 4, 1), nn.ReLU(), nn.Conv2d(4, channels, 1), nn.Hardsigmoid())
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.body(self.pool(x))


class InvertedResidual(nn.Module):
    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        stride: int = 1,
        expansion: int = 3,
        act: Activation = nn.ReLU6,
        excite: bool = False,
    ) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers += [conv(inputs, hidden, 1), act()]
        layers += [conv(hidden, hidden, kernel, stride, hidden), act()]
        if excite:
            layers.append(SqueezeExcite(hidden))
        self.body = nn.Sequential(*layers, conv(hidden, outputs, 1))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class Basic(nn.Module):
    """ResNet's, with a projection where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.one, self.two = conv(inputs, outputs, 3, stride), conv(outputs, outputs, 3)
        same = stride == 1 and inputs == outputs
        self.short = nn.Identity() if same else conv(inputs, outputs, 1, stride)
        self.act, self.last = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.two(self.act(self.one(x))) + self.short(x))


class CifarBasic(nn.Module):
    """ResNet-20's: the shortcut takes every second pixel and adds channels of zeros."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.one, self.two = conv(inputs, outputs, 3, stride), conv(outputs, outputs, 3)
        self.stride, self.extra = stride, (outputs - inputs) // 2
        self.act, self.last = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.two(self.act(self.one(x)))
        if self.stride > 1:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra, self.extra))
        return self.last(y + x)


class RepVgg(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.wide, self.point = conv(inputs, outputs, 3, stride), conv(inputs, outputs, 1, stride)
        self.same = nn.BatchNorm2d(inputs) if stride == 1 and inputs == outputs else None
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.wide(x) + self.point(x)
        return self.act(y if self.same is None else y + self.same(x))


class Classifier(nn.Module):
    def __init__(self, *body: nn.Module, channels: int) -> None:
        super().__init__()
        self.body, self.pool = nn.Sequential(*body), nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.body(x)).flatten(1))


def mobilenet_v2() -> nn.Module:
    return Classifier(
        *(conv(3, 4, 3, 2), nn.ReLU6(), InvertedResidual(4, 4, expansion=1)),
        *(InvertedResidual(4, 6, stride=2, expansion=6), InvertedResidual(6, 6, expansion=6)),
        *(InvertedResidual(6, 6), InvertedResidual(6, 8), conv(8, 12, 1), nn.ReLU6()),
        channels=12,
    )


def efficientnet_lite() -> nn.Module:
    return Classifier(
        *(conv(3, 4, 3, 2), nn.ReLU6(), InvertedResidual(4, 4, expansion=1)),
        *(InvertedResidual(4, 6, 5, 2), InvertedResidual(6, 6, 5), InvertedResidual(6, 8, 3)),
        *(InvertedResidual(8, 8, 3), InvertedResidual(8, 8, 5, expansion=2), nn.ReLU6()),
        channels=8,
    )


def mobilenet_v3() -> nn.Module:
    """Without squeeze-excite."""
    swish = {"act": nn.Hardswish}
    return Classifier(
        *(conv(3, 4, 3, 2), nn.Hardswish(), InvertedResidual(4, 4, act=nn.ReLU)),
        *(InvertedResidual(4, 6, 5, 2, 4, nn.ReLU), InvertedResidual(6, 6, 5, **swish)),
        *(InvertedResidual(6, 8, 7, **swish), InvertedResidual(8, 8, act=nn.SiLU)),
        *(conv(8, 12, 1), nn.Hardswish()),
        channels=12,
    )


def vgg() -> nn.Module:
    return Classifier(
        *(conv(3, 4, 3), nn.ReLU(), conv(4, 4, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(conv(4, 6, 3), nn.ReLU(), conv(6, 6, 3), nn.ReLU(), conv(6, 6, 3), nn.ReLU()),
        channels=6,
    )


def resnet_18() -> nn.Module:
    return Classifier(
        *(conv(3, 4, 7, 2), nn.ReLU(), Basic(4, 4), Basic(4, 4), Basic(4, 6, 2), Basic(6, 6)),
        channels=6,
    )


def resnet_20() -> nn.Module:
    return Classifier(
        *(conv(3, 4, 3), nn.ReLU(), CifarBasic(4, 4), CifarBasic(4, 4)),
        *(CifarBasic(4, 8, 2), CifarBasic(8, 8)),
        channels=8,
    )


def repvgg() -> nn.Module:
    return Classifier(
        RepVgg(3, 4, 2), RepVgg(4, 4), RepVgg(4, 4), RepVgg(4, 6, 2), RepVgg(6, 6), channels=6
    )


def excited() -> nn.Module:
    return Classifier(
        *(conv(3, 4, 3, 2), nn.ReLU(), InvertedResidual(4, 4, excite=True)),
        InvertedResidual(4, 4),
        channels=4,
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v2": mobilenet_v2,
    "efficientnet_lite": efficientnet_lite,
    "mobilenet_v3": mobilenet_v3,
    "vgg": vgg,
    "resnet_18": resnet_18,
    "resnet_20": resnet_20,
    "repvgg": repvgg,
}


def bare_block(channels: int) -> list[nn.Module]:
    """An inverted residual's layers without batch norms and shortcut."""
    return [
        *(nn.Conv2d(channels, 4 * channels, 1), nn.ReLU6()),
        *(nn.Conv2d(4 * channels, 4 * channels, 3, 1, 1, groups=4 * channels), nn.ReLU6()),
        nn.Conv2d(4 * channels, channels, 1),
    ]
