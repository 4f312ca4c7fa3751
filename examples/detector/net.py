"""A detector of digits in the manner of YOLO (Redmon et al., 2016; Jocher et al., YOLOv8, 2023).

One grid of 8×8 cells, no anchors: each cell gives the distances from its centre to the four
sides of a box, as FCOS does (Tian et al., 2019), and a score for each class. The network ends with
its own decoding; what overlaps is suppressed outside. Nothing here depends on shrinkc.
"""

import torch
from torch import Tensor, nn

SIZE, STRIDE, CLASSES = 64, 8, 10


def conv(in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


class Split(nn.Module):
    """YOLOv8's C2f: half of the channels go through bottlenecks; everything is gathered by 1×1."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        half = channels // 2
        self.enter = conv(channels, channels, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(conv(half, half), conv(half, half)) for _ in range(depth)
        )
        self.leave = conv((2 + depth) * half, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.enter(x).chunk(2, dim=1))
        for block in self.blocks:
            parts.append(parts[-1] + block(parts[-1]))
        return self.leave(torch.cat(parts, dim=1))


class Detector(nn.Module):
    """(N, 1, 64, 64) in 0–1 → (N, 4 + 10, 64), YOLOv8's layout.

    Rows 0–3 are centre, width and height in pixels; the others are each class's probability.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            conv(1, 16, stride=2),
            conv(16, 32, stride=2),
            Split(32, 1),
            conv(32, 40, stride=2),
            Split(40, 2),
        )
        self.sides = nn.Sequential(conv(40, 24), nn.Conv2d(24, 4, 1))
        self.scores = nn.Sequential(conv(40, 24), nn.Conv2d(24, CLASSES, 1))
        at = (torch.arange(SIZE // STRIDE) + 0.5) * STRIDE
        rows, columns = torch.meshgrid(at, at, indexing="ij")
        centres = torch.stack([columns.flatten(), rows.flatten()])
        self.register_buffer("centres", centres, persistent=False)
        nn.init.constant_(self.sides[-1].bias, 1.5)  # cells: about half a digit
        nn.init.constant_(self.scores[-1].bias, -4.0)  # most cells see nothing

    def forward(self, x: Tensor) -> Tensor:
        features = self.backbone(x)
        sides = self.sides(features).relu().flatten(2) * STRIDE
        before, after = sides.chunk(2, dim=1)
        middles = self.centres + (after - before) / 2
        probabilities = self.scores(features).sigmoid().flatten(2)
        return torch.cat([middles, before + after, probabilities], dim=1)


def detector() -> Detector:
    return Detector()
