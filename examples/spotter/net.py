"""A DS-CNN keyword spotter (Zhang et al., Hello Edge, 2017) that reads the wave itself.

The spectrogram is part of the network: `torch.stft`, the power in triangular bands, its logarithm.
Nothing here depends on shrinkc.
"""

import torch
from torch import Tensor, nn

RATE, SAMPLES = 4000, 4000  # one second
FRAME, HOP, BANDS = 256, 128, 24


def bands() -> Tensor:
    """(BANDS, FRAME // 2 + 1): triangles that are evenly spaced on the mel scale."""
    bins = torch.linspace(0, RATE / 2, FRAME // 2 + 1)
    mel = torch.linspace(0, 2595 * torch.log10(torch.tensor(1 + RATE / 2 / 700)).item(), BANDS + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    return torch.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)).clamp(0)


class Spectrogram(nn.Module):
    """(N, 4000) → (N, 1, 24, 32): logarithm of the power in each band, about −1 to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(FRAME), persistent=False)
        self.register_buffer("bands", bands(), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        frames = torch.stft(wave, FRAME, HOP, window=self.window, center=True, return_complex=True)
        power = torch.view_as_real(frames).square().sum(-1)
        return ((self.bands @ power + 1e-2).log() / 5).unsqueeze(1)


def separable(channels: int) -> list[nn.Module]:
    """A depthwise 3×3 and a 1×1 convolution, each with batch norm and ReLU."""
    layers: list[nn.Module] = []
    for kernel, groups in ((3, channels), (1, 1)):
        layers += [
            nn.Conv2d(channels, channels, kernel, 1, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        ]
    return layers


def spotter(words: int = 8, channels: int = 48) -> nn.Sequential:
    """(N, 4000), a wave in −1 to 1 → (N, words) logits."""
    return nn.Sequential(
        Spectrogram(),
        nn.Conv2d(1, channels, (10, 4), 2, (4, 1), bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        *separable(channels),
        *separable(channels),
        *separable(channels),
        *separable(channels),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, words),
    )
