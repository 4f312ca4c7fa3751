"""ResNet for CIFAR-10 as He et al. (2016) draw it, shortcuts without parameters (option A)."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES, SIZE = 10, 32
WEIGHTS = Path("weights/resnet_cifar10")
FILES = {20: "resnet20-12fca82f.th", 56: "resnet56-4bfd9763.th"}


class Block(nn.Module):
    """Two 3×3 convolutions. Where the map shrinks, the shortcut skips pixels and adds channels of
    zeros."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.zeros = stride, (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.zeros, self.zeros))
        return F.relu(x + y)


class ResNet(nn.Module):
    """(N, 3, 32, 32) → (N, 10) logits; three stages of `blocks` blocks."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(blocks, 16, 16, 1)
        self.layer2 = self._stage(blocks, 16, 32, 2)
        self.layer3 = self._stage(blocks, 32, 64, 2)
        self.linear = nn.Linear(64, CLASSES)

    def _stage(self, blocks: int, inputs: int, outputs: int, stride: int) -> nn.Sequential:
        rest = [Block(outputs, outputs, 1) for _ in range(blocks - 1)]
        return nn.Sequential(Block(inputs, outputs, stride), *rest)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


def resnet20() -> ResNet:
    return ResNet(3)


def resnet56() -> ResNet:
    return ResNet(9)


def pretrained(data: Path, depth: int = 56) -> ResNet:
    """With the weights in `data`, which saw the original images."""
    path = data / WEIGHTS / FILES[depth]
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    model = ResNet((depth - 2) // 6)
    model.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
    return model.eval()
