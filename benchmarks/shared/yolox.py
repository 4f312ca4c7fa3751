"""YOLOX (Ge 2021, arXiv 2107.08430) with random weights, as its authors' code builds it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SIZES = {"s": (0.33, 0.5), "m": (0.67, 0.75), "l": (1.0, 1.0)}  # depth, width


def _layer(inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.SiLU())


class _Bottleneck(nn.Module):
    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(_layer(channels, channels), _layer(channels, channels, 3))
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.shortcut else self.layers(x)


class _CrossStage(nn.Module):
    def __init__(self, inputs: int, outputs: int, blocks: int, shortcut: bool = True) -> None:
        super().__init__()
        half = outputs // 2
        self.first, self.second = _layer(inputs, half), _layer(inputs, half)
        self.blocks = nn.Sequential(*(_Bottleneck(half, shortcut) for _ in range(blocks)))
        self.last = _layer(2 * half, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cat((self.blocks(self.first(x)), self.second(x)), 1))


class _PyramidPool(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _layer(channels, channels // 2)
        self.pools = nn.ModuleList(nn.MaxPool2d(k, 1, k // 2) for k in (5, 9, 13))
        self.last = _layer(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(torch.cat((x, *(pool(x) for pool in self.pools)), 1))


class _Focus(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.layer = _layer(12, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows, others = x[..., ::2, :], x[..., 1::2, :]
        parts = (rows[..., ::2], others[..., ::2], rows[..., 1::2], others[..., 1::2])
        return self.layer(torch.cat(parts, 1))


class _Head(nn.Module):
    def __init__(self, inputs: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.stem = _layer(inputs, hidden)
        self.classes = nn.Sequential(_layer(hidden, hidden, 3), _layer(hidden, hidden, 3))
        self.boxes = nn.Sequential(_layer(hidden, hidden, 3), _layer(hidden, hidden, 3))
        self.of_class, self.of_box = nn.Conv2d(hidden, classes, 1), nn.Conv2d(hidden, 4, 1)
        self.of_object = nn.Conv2d(hidden, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        boxes, classes = self.boxes(x), self.of_class(self.classes(x))
        objects = self.of_object(boxes).sigmoid()
        return torch.cat((self.of_box(boxes), objects, classes.sigmoid()), 1)


class YOLOX(nn.Module):
    """The maps that its boxes are decoded from, one a scale."""

    def __init__(self, size: str, classes: int) -> None:
        super().__init__()
        depth, width = SIZES[size]
        w, blocks = int(64 * width), max(round(3 * depth), 1)
        self.stem = _Focus(w)
        self.dark2 = nn.Sequential(_layer(w, 2 * w, 3, 2), _CrossStage(2 * w, 2 * w, blocks))
        third, fourth = (_CrossStage(n * w, n * w, 3 * blocks) for n in (4, 8))
        self.dark3 = nn.Sequential(_layer(2 * w, 4 * w, 3, 2), third)
        self.dark4 = nn.Sequential(_layer(4 * w, 8 * w, 3, 2), fourth)
        self.dark5 = nn.Sequential(
            _layer(8 * w, 16 * w, 3, 2),
            _PyramidPool(16 * w),
            _CrossStage(16 * w, 16 * w, blocks, False),
        )
        self.up = nn.Upsample(scale_factor=2)
        self.lateral, self.reduce = _layer(16 * w, 8 * w), _layer(8 * w, 4 * w)
        self.p4 = _CrossStage(16 * w, 8 * w, blocks, False)
        self.p3 = _CrossStage(8 * w, 4 * w, blocks, False)
        self.down3, self.down4 = _layer(4 * w, 4 * w, 3, 2), _layer(8 * w, 8 * w, 3, 2)
        self.n3 = _CrossStage(8 * w, 8 * w, blocks, False)
        self.n4 = _CrossStage(16 * w, 16 * w, blocks, False)
        self.heads = nn.ModuleList(_Head(n * w, 4 * w, classes) for n in (4, 8, 16))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        c3 = self.dark3(self.dark2(self.stem(x)))
        c4 = self.dark4(c3)
        top = self.lateral(self.dark5(c4))
        middle = self.reduce(self.p4(torch.cat((self.up(top), c4), 1)))
        p3 = self.p3(torch.cat((self.up(middle), c3), 1))
        p4 = self.n3(torch.cat((self.down3(p3), middle), 1))
        p5 = self.n4(torch.cat((self.down4(p4), top), 1))
        return tuple(head(p) for head, p in zip(self.heads, (p3, p4, p5), strict=True))
