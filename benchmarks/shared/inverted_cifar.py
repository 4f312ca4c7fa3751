"""An inverted-residual network for CIFAR-10, small enough to be trained many times on two cores.

It needs torch alone, so that the environments of other tools can build it.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

CLASSES = 10
STEM, HEAD = 16, 160
# Expansion, channels, blocks, stride of the first.
STAGES = ((1, 16, 1, 1), (6, 24, 4, 2), (6, 40, 3, 2))


class Block(nn.Module):
    """An inverted residual (Sandler et al., 2018)."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        layers = list(conv_layers(inputs, hidden, 1)) if expansion > 1 else []
        layers += conv_layers(hidden, hidden, 3, stride, hidden)
        layers += [nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


def conv_layers(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> Iterator[nn.Module]:
    """A convolution, its batch norm and activation."""
    yield nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    yield nn.BatchNorm2d(outputs)
    yield nn.ReLU6()


def ir_net() -> nn.Sequential:
    """(N, 3, 32, 32) → (N, 10) logits. A factory for `--arch`."""
    blocks: list[nn.Module] = []
    channels = STEM
    for expansion, outputs, count, stride in STAGES:
        for index in range(count):
            blocks.append(Block(channels, outputs, stride if index == 0 else 1, expansion))
            channels = outputs
    return nn.Sequential(
        *conv_layers(3, STEM, 3, 2),
        *blocks,
        *conv_layers(channels, HEAD, 1),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(HEAD, CLASSES)),
    )
