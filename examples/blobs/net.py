"""A regression: where a blob lies in a noisy image, and how large it is.

Nothing here depends on shrinkc.
"""

from torch import Tensor, nn

SIZE = 48


def conv(in_channels: int, out_channels: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    ]


class Residual(nn.Module):
    """ResNet's basic block (He et al., 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*conv(channels, channels), *conv(channels, channels)[:2])

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.layers(x)).relu()


def blobs_net() -> nn.Sequential:
    """(N, 1, 48, 48) in 0–1 → (N, 3): column, row and radius, in pixels over 10."""
    return nn.Sequential(
        *conv(1, 12, stride=2),
        Residual(12),
        *conv(12, 24, stride=2),
        Residual(24),
        *conv(24, 32, stride=2),
        nn.Conv2d(32, 8, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 36, 32),
        nn.ReLU(),
        nn.Linear(32, 3),
    )
