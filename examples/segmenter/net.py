"""A U-Net (Ronneberger et al., 2015) that says of every pixel which digit's ink it is, if any.

Nothing here depends on shrinkc.
"""

import torch
from torch import Tensor, nn

SIZE, CLASSES = 64, 11  # ground, and ten digits


def double(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two 3×3 convolutions, each with batch norm and ReLU."""
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers += [
            nn.Conv2d(channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """(N, 1, 64, 64) in 0–1 → (N, 11, 64, 64) scores."""

    def __init__(self, widths: tuple[int, ...] = (16, 24, 32, 48)) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            double(before, width) for before, width in zip((1, *widths), widths, strict=False)
        )
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.grow = nn.ModuleList(nn.ConvTranspose2d(deep, width, 2, 2) for deep, width in pairs)
        self.up = nn.ModuleList(double(2 * width, width) for _, width in pairs)
        self.pool = nn.MaxPool2d(2)
        self.scores = nn.Conv2d(widths[0], CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        skipped: list[Tensor] = []
        for block in self.down:
            x = block(self.pool(x) if skipped else x)
            skipped.append(x)
        for grow, block, skip in zip(self.grow, self.up, skipped[-2::-1], strict=True):
            x = block(torch.cat([skip, grow(x)], dim=1))
        return self.scores(x)


def unet() -> UNet:
    return UNet()
