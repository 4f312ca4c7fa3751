"""Small networks of sequences and sound, from module to both files."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from graph_files import check
from torch import Tensor, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.pipeline.deployed import BASE_PASSES
from shrinkc.compiler.pipeline.run import run_exact_passes


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv1d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm1d(outputs), nn.ReLU())


class TextReader(nn.Module):
    """A CRNN: convolutions, a recurrent layer over columns, CTC's log-probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.MaxPool2d((4, 1)))
        self.rnn, self.out = nn.LSTM(8, 6, bidirectional=True), nn.Linear(12, 9)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.rnn(self.conv(x).squeeze(2).permute(2, 0, 1))
        return F.log_softmax(self.out(y), 2).transpose(0, 1)


class KeywordSpotter(nn.Module):
    """Waveform, mel spectrogram, convolutions, the last state of a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(64))
        self.register_buffer("mel", torch.rand(33, 10))
        self.conv, self.gru = conv_norm(10, 8, 3, 2), nn.GRU(8, 6, batch_first=True)
        self.out = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.stft(x, 64, 32, window=self.window, return_complex=True)
        mel = torch.matmul(spectrum.abs().pow(2).transpose(1, 2), self.mel).transpose(1, 2)
        _, last = self.gru(self.conv(torch.log(mel + 1e-6)).transpose(1, 2))
        return self.out(last[-1])


class WaveNet(nn.Module):
    """Causal dilated convolutions and gates."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 6, 1)
        self.gates = nn.ModuleList(nn.Conv1d(6, 12, 2, dilation=2**i) for i in range(3))
        self.skips = nn.ModuleList(nn.Conv1d(6, 6, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.first(x), 0
        for i, (gate, skip) in enumerate(zip(self.gates, self.skips, strict=True)):
            a, b = gate(F.pad(x, (2**i, 0))).chunk(2, 1)
            x = x + (out := skip(torch.tanh(a) * torch.sigmoid(b)))
            total = total + out
        return total


class SincFilters(nn.Module):
    """Filters that are computed from parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Parameter(torch.linspace(0.01, 0.2, 6)[:, None])
        self.register_buffer("time", torch.arange(1, 9).float()[None])
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        half = torch.sin(2 * math.pi * torch.abs(self.low) * self.time) / self.time
        filters = torch.cat((torch.flip(half, [1]), self.low * 6, half), 1)
        return self.out(F.conv1d(x[:, None], filters[:, None], stride=2).abs().mean(-1))


class Tokens(nn.Module):
    """Word and position embeddings, a transformer layer, a mean over what is no padding."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(20, 8, padding_idx=0), nn.Embedding(16, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.out = nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1]).unsqueeze(0)
        y = self.layer(self.words(ids) + self.places(places))
        real = (ids != 0).unsqueeze(-1).float()
        return self.out((y * real).sum(1) / real.sum(1).clamp(min=1))


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.out = nn.Embedding(20, 8), nn.Linear(8, 20, bias=False)
        self.rnn = nn.GRU(8, 4, batch_first=True, bidirectional=True)
        self.out.weight = self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.rnn(self.words(ids))[0])


class Attention(nn.Module):
    """Over what a mask leaves, with nothing of the future."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.parts = nn.Linear(8, 24)

    def forward(self, x: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        y, _ = self.attention(x, x, x, key_padding_mask=padding, need_weights=False)
        q, k, v = (
            part.reshape(len(x), 5, 2, 4).transpose(1, 2) for part in self.parts(x).chunk(3, 2)
        )
        return y, F.scaled_dot_product_attention(q, k, v, is_causal=True)


class Signals(nn.Module):
    """1-D norms, pooling and resizing."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm = nn.ConvTranspose1d(4, 6, 4, 2, 1), nn.InstanceNorm1d(6, affine=True)
        self.group, self.pool = nn.GroupNorm(2, 6), nn.LPPool1d(2, 3, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.group(F.elu(self.norm(self.up(x))))
        y = self.pool(x)
        return (
            F.interpolate(y, size=20, mode="linear"),
            F.interpolate(x, scale_factor=2, mode="linear", align_corners=True),
            F.interpolate(x, scale_factor=2),
            F.adaptive_avg_pool1d(y, 4),
            F.adaptive_max_pool1d(x, 8),
        )


class Wave(nn.Module):
    """A waveform without a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv1d(1, 4, 16, 8), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.conv(x.view(1, 1, -1)).relu().mean(-1))


IDS = torch.tensor([[3, 7, 19, 0, 5, 0]])
PADDING = torch.tensor([[False, False, True, False, True]])
NETWORKS: dict[str, tuple[type[nn.Module], tuple[Any, ...]]] = {
    "text reader": (TextReader, (torch.randn(1, 1, 8, 20),)),
    "keyword spotter": (KeywordSpotter, (torch.randn(1, 600),)),
    "wavenet": (WaveNet, (torch.randn(1, 1, 24),)),
    "sinc filters": (SincFilters, (torch.randn(1, 60),)),
    "tokens": (Tokens, (IDS,)),
    "tagger": (Tagger, (IDS.int(),)),
    "attention": (Attention, (torch.randn(1, 5, 8), PADDING)),
    "signals": (Signals, (torch.randn(1, 4, 16),)),
    "a wave alone": (Wave, (torch.randn(200),)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_both_files(name: str) -> None:
    torch.manual_seed(0)
    network, inputs = NETWORKS[name]
    graph = capture(network().eval(), inputs)
    check(run_exact_passes(graph, BASE_PASSES)[0].float(), inputs)
