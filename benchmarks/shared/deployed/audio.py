"""Speech and sound."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.shared.deployed import Builder
from benchmarks.shared.deployed.blocks import SqueezeExcite1d, TemporalResidual, conv_bn_relu_1d
from benchmarks.shared.deployed.register import listed

NETWORKS: dict[str, Builder] = {}


class SubSpectralNorm(nn.Module):
    def __init__(self, c, S=4):
        super().__init__()
        self.S = S
        self.bn = nn.BatchNorm2d(c * S)

    def forward(self, x):
        n, c, f, t = x.shape
        x = x.view(n, c, self.S, f // self.S, t).reshape(n, c * self.S, f // self.S, t)
        return self.bn(x).view(n, c, self.S, f // self.S, t).reshape(n, c, f, t)


class GlobalNorm(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, c, 1))
        self.b = nn.Parameter(torch.zeros(1, c, 1))

    def forward(self, y):
        m = y.mean(dim=1, keepdim=True).mean(dim=2, keepdim=True)
        v = torch.pow(y - m, 2).mean(dim=1, keepdim=True).mean(dim=2, keepdim=True)
        return self.g * (y - m) / torch.pow(v + 1e-08, 0.5) + self.b


class Mel(nn.Module):
    def __init__(self, n=256, h=128, m=20, **k):
        super().__init__()
        self.n, self.h, self.k = (n, h, k)
        self.register_buffer("w", torch.hann_window(k.get("win_length", n)))
        self.register_buffer("fb", torch.rand(n // 2 + 1, m))

    def forward(self, x):
        X = torch.stft(x, self.n, self.h, window=self.w, return_complex=True, **self.k)
        p = X.abs().pow(2.0)
        return torch.log(torch.matmul(p.transpose(-1, -2), self.fb).transpose(-1, -2) + 1e-06)


@listed(NETWORKS, (1, 40, 50))
class ConvGRUSpotter(nn.Module):
    """Convolutions and a GRU, the last state (Arik et al., 2017)."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv1d(40, 64, 5, padding=2), nn.BatchNorm1d(64), nn.ReLU(), nn.MaxPool1d(2)
        )
        self.gru = nn.GRU(64, 64, batch_first=True)
        self.fc = nn.Linear(64, 12)

    def forward(self, x):
        x = self.conv(x).transpose(1, 2)
        _, h = self.gru(x)
        return self.fc(h[-1])


@listed(NETWORKS, (1, 1, 49, 10))
class DSCNN(nn.Module):
    """Zhang et al., 2017: depthwise separable keyword spotter."""

    def __init__(self):
        super().__init__()
        L = [nn.Conv2d(1, 16, (10, 4), 2, (5, 1)), nn.BatchNorm2d(16), nn.ReLU()]
        for _ in range(2):
            L += [
                nn.Conv2d(16, 16, 3, 1, 1, groups=16),
                nn.BatchNorm2d(16),
                nn.ReLU(),
                nn.Conv2d(16, 16, 1),
                nn.BatchNorm2d(16),
                nn.ReLU(),
            ]
        self.f = nn.Sequential(*L, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 12))

    def forward(self, x):
        return self.f(x)


@listed(NETWORKS, (1, 40, 101))
class TCResNet(nn.Module):
    """Choi et al., 2019: temporal convolutions."""

    def __init__(self):
        super().__init__()
        self.c = nn.Conv1d(40, 16, 3, padding=1, bias=False)
        self.b = nn.Sequential(
            TemporalResidual(16, 24, 2), TemporalResidual(24, 24, 1), TemporalResidual(24, 32, 2)
        )
        self.p = nn.AdaptiveAvgPool1d(1)
        self.f = nn.Conv1d(32, 12, 1)

    def forward(self, x):
        return self.f(self.p(self.b(self.c(x)))).squeeze(2)


@listed(NETWORKS, (1, 1, 4000))
class M5(nn.Module):
    """Dai et al., 2017: raw waveforms."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv1d(1, 32, 80, stride=16)
        self.bn1 = nn.BatchNorm1d(32)
        self.pool1 = nn.MaxPool1d(4)
        self.conv2 = nn.Conv1d(32, 32, 3)
        self.bn2 = nn.BatchNorm1d(32)
        self.pool2 = nn.MaxPool1d(4)
        self.fc1 = nn.Linear(32, 35)

    def forward(self, x):
        x = self.pool1(F.relu(self.bn1(self.conv1(x))))
        x = self.pool2(F.relu(self.bn2(self.conv2(x))))
        x = F.avg_pool1d(x, x.shape[-1])
        x = x.permute(0, 2, 1)
        return F.log_softmax(self.fc1(x), dim=2)


@listed(NETWORKS, (1, 1, 40, 50))
class BCResNet(nn.Module):
    """Kim et al., 2021: broadcast residuals, sub-spectral norm."""

    def __init__(self):
        super().__init__()
        self.h = nn.Conv2d(1, 8, 5, (2, 1), 2)
        self.f2 = nn.Conv2d(8, 8, (3, 1), padding=(1, 0), groups=8)
        self.ssn = SubSpectralNorm(8)
        self.f1 = nn.Sequential(
            nn.Conv2d(8, 8, (1, 3), padding=(0, 1), groups=8),
            nn.BatchNorm2d(8),
            nn.SiLU(),
            nn.Conv2d(8, 8, 1),
            nn.Dropout2d(0.1),
        )
        self.c = nn.Conv2d(8, 12, 1)

    def forward(self, x):
        x = self.h(x)
        a = self.ssn(self.f2(x))
        y = self.f1(a.mean(2, keepdim=True))
        x = F.relu(y + a + x)
        return self.c(x.mean((2, 3), keepdim=True)).flatten(1)


@listed(NETWORKS, (1, 16, 64))
class VoiceActivity(nn.Module):
    """Voice activity by an LSTM, a score for each frame."""

    def __init__(self):
        super().__init__()
        self.c = conv_bn_relu_1d(16, 24, 3)
        self.g = nn.LSTM(24, 16, batch_first=True)
        self.f = nn.Linear(16, 1)

    def forward(self, x):
        y, _ = self.g(self.c(x).transpose(1, 2))
        return torch.sigmoid(self.f(y)).squeeze(-1)


@listed(NETWORKS, (1, 1, 40, 60))
class DeepSpeech(nn.Module):
    """Amodei et al., 2016: clipped convolutions, summed directions."""

    def __init__(self):
        super().__init__()
        self.c = nn.Sequential(
            nn.Conv2d(1, 8, (11, 5), (2, 2), (5, 2)),
            nn.BatchNorm2d(8),
            nn.Hardtanh(0, 20, inplace=True),
        )
        self.r = nn.GRU(160, 24, bidirectional=True)
        self.bn = nn.BatchNorm1d(24)
        self.f = nn.Linear(24, 29)

    def forward(self, x):
        x = self.c(x)
        b, c, d, t = x.size()
        x = x.view(b, c * d, t).permute(2, 0, 1).contiguous()
        y, _ = self.r(x)
        t, b = (y.size(0), y.size(1))
        y = y.view(t, b, 2, -1).sum(2).view(t, b, -1)
        y = self.bn(y.view(t * b, -1)).view(t, b, -1)
        return F.log_softmax(self.f(y), -1).transpose(0, 1)


@listed(NETWORKS, (1, 1, 96))
class WaveNet(nn.Module):
    """van den Oord et al., 2016: gated dilated convolutions."""

    def __init__(self):
        super().__init__()
        self.i = nn.Conv1d(1, 8, 1)
        self.f = nn.ModuleList(nn.Conv1d(8, 8, 2, dilation=2**i) for i in range(4))
        self.g = nn.ModuleList(nn.Conv1d(8, 8, 2, dilation=2**i) for i in range(4))
        self.s = nn.ModuleList(nn.Conv1d(8, 12, 1) for _ in range(4))
        self.r = nn.ModuleList(nn.Conv1d(8, 8, 1) for _ in range(4))
        self.o = nn.Conv1d(12, 16, 1)

    def forward(self, x):
        x = self.i(x)
        skip = 0
        for i, (f, g, k, r) in enumerate(zip(self.f, self.g, self.s, self.r, strict=False)):
            p = F.pad(x, (2**i, 0))
            z = torch.tanh(f(p)) * torch.sigmoid(g(p))
            skip = skip + k(z)
            x = x + r(z)
        return self.o(F.relu(skip))


@listed(NETWORKS, (1, 800))
class SincNet(nn.Module):
    """Ravanelli and Bengio, 2018: filters computed from cut-offs."""

    def __init__(self):
        super().__init__()
        self.low = nn.Parameter(torch.linspace(30, 3000, 16)[:, None])
        self.band = nn.Parameter(torch.full((16, 1), 100.0))
        self.k = 51
        n = torch.arange(-(51 // 2), 0).float()[None] * 2 * math.pi / 16000
        self.register_buffer("n_", n)
        self.register_buffer("w", torch.hamming_window(51)[:25])
        self.c = conv_bn_relu_1d(16, 16, 5, 2)
        self.f = nn.Linear(16, 4)

    def forward(self, x):
        x = x.unsqueeze(1)
        low = 50 + torch.abs(self.low)
        high = torch.clamp(low + 50 + torch.abs(self.band), 50, 8000)
        band = (high - low)[:, 0]
        ft = self.n_ * 1
        a = torch.matmul(low, ft)
        b = torch.matmul(high, ft)
        left = (torch.sin(b) - torch.sin(a)) / (ft / 2) * self.w
        filt = torch.cat([left, 2 * band.view(-1, 1), torch.flip(left, dims=[1])], 1) / (
            2 * band[:, None]
        )
        y = F.conv1d(x, filt.view(16, 1, 51), stride=4, padding=25)
        return self.f(F.max_pool1d(torch.abs(self.c(y)), 3).mean(-1))


@listed(NETWORKS, (1, 640))
class ConvTasNet(nn.Module):
    """Luo and Mesgarani, 2019: two sources by masks."""

    def __init__(self):
        super().__init__()
        self.enc = nn.Conv1d(1, 16, 16, 8, bias=False)
        self.ln = nn.GroupNorm(1, 16)
        self.b = nn.Sequential(
            nn.Conv1d(16, 32, 1),
            nn.PReLU(),
            GlobalNorm(32),
            nn.Conv1d(32, 32, 3, padding=2, dilation=2, groups=32),
            nn.PReLU(),
            GlobalNorm(32),
            nn.Conv1d(32, 16, 1),
        )
        self.m = nn.Conv1d(16, 32, 1)
        self.dec = nn.ConvTranspose1d(16, 1, 16, 8, bias=False)

    def forward(self, x):
        w = F.relu(self.enc(x.unsqueeze(1)))
        y = self.ln(w)
        y = y + self.b(y)
        m = torch.sigmoid(self.m(y)).view(x.shape[0], 2, 16, -1)
        z = w.unsqueeze(1) * m
        return self.dec(z.view(x.shape[0] * 2, 16, -1)).view(x.shape[0], 2, -1)


@listed(NETWORKS, (1, 24, 60))
class ECAPA(nn.Module):
    """Desplanques et al., 2020: Res2 blocks, attentive statistics."""

    def __init__(self):
        super().__init__()
        self.c = conv_bn_relu_1d(24, 32, 5)
        self.l = nn.ModuleList(
            nn.Sequential(
                conv_bn_relu_1d(32, 32, 1),
                Res2Block(32, d),
                conv_bn_relu_1d(32, 32, 1),
                SqueezeExcite1d(32),
            )
            for d in (2, 3)
        )
        self.m = nn.Conv1d(96, 48, 1)
        self.a = nn.Sequential(
            nn.Conv1d(144, 16, 1),
            nn.ReLU(),
            nn.BatchNorm1d(16),
            nn.Tanh(),
            nn.Conv1d(16, 48, 1),
            nn.Softmax(2),
        )
        self.bn = nn.BatchNorm1d(96)
        self.f = nn.Linear(96, 16)

    def forward(self, x):
        x = x - torch.mean(x, dim=-1, keepdim=True)
        x = self.c(x)
        a = self.l[0](x)
        b = self.l[1](x + a)
        x = F.relu(self.m(torch.cat((x, a, b), 1)))
        t = x.size(-1)
        g = torch.cat(
            (
                x,
                torch.mean(x, 2, keepdim=True).repeat(1, 1, t),
                torch.sqrt(torch.var(x, 2, keepdim=True).clamp(min=0.0001)).repeat(1, 1, t),
            ),
            1,
        )
        w = self.a(g)
        mu = torch.sum(x * w, 2)
        sg = torch.sqrt((torch.sum(x**2 * w, 2) - mu**2).clamp(min=0.0001))
        return F.normalize(self.f(self.bn(torch.cat((mu, sg), 1))))


@listed(NETWORKS, (1, 1, 1600))
class Wav2VecFE(nn.Module):
    """Baevski et al., 2020: the feature encoder."""

    def __init__(self):
        super().__init__()
        self.l = nn.Sequential(
            nn.Conv1d(1, 16, 10, 5, bias=False),
            nn.GroupNorm(16, 16),
            nn.GELU(),
            nn.Conv1d(16, 16, 3, 2, bias=False),
            nn.GELU(),
            nn.Conv1d(16, 16, 2, 2, bias=False),
            nn.GELU(),
        )
        self.n = nn.LayerNorm(16)
        self.p = nn.Linear(16, 24)

    def forward(self, x):
        return self.p(self.n(self.l(x).transpose(1, 2)))


@listed(NETWORKS, (1, 1, 32, 32))
class SpecUNet(nn.Module):
    """Jansson et al., 2017: masks of spectrograms."""

    def __init__(self):
        super().__init__()

        def c(i, o):
            return nn.Sequential(nn.Conv2d(i, o, 5, 2, 2), nn.BatchNorm2d(o), nn.LeakyReLU(0.2))

        def d(i, o):
            return nn.Sequential(nn.ConvTranspose2d(i, o, 5, 2, 2, 1), nn.BatchNorm2d(o), nn.ReLU())

        self.a = c(1, 8)
        self.b = c(8, 16)
        self.d = d(16, 8)
        self.e = d(16, 1)

    def forward(self, x):
        a = self.a(x)
        b = self.b(a)
        y = self.d(b)
        return x * torch.sigmoid(self.e(torch.cat([y, a], 1)))


@listed(NETWORKS, (1, 2000))
class MelKWS(nn.Module):
    """Mel spectrogram in the network, then a spotter."""

    def __init__(self):
        super().__init__()
        self.m = Mel()
        self.c = conv_bn_relu_1d(20, 16, 3, 2)
        self.f = nn.Linear(16, 4)

    def forward(self, x):
        return self.f(self.c(self.m(x)).mean(-1))


@listed(NETWORKS, (1, 2000))
class MelWindowed(nn.Module):
    """Mel spectrogram with a short window and no centring."""

    def __init__(self):
        super().__init__()
        self.m = Mel(win_length=200, center=False, normalized=True)
        self.c = nn.Conv2d(1, 4, 3, 2)
        self.f = nn.Linear(4, 4)

    def forward(self, x):
        return self.f(self.c(self.m(x).unsqueeze(1)).mean((2, 3)))


@listed(NETWORKS, (1, 1500))
class RealImag(nn.Module):
    """Real and imaginary part of a spectrum as channels."""

    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(2, 4, 3)
        self.register_buffer("w", torch.hamming_window(128))

    def forward(self, x):
        X = x.stft(128, 64, window=self.w, return_complex=True, pad_mode="constant")
        X = X[:, :-1]
        return (self.c(torch.stack([X.real, X.imag], 1)), torch.view_as_real(X), X.abs())


@listed(NETWORKS, (1, 1500))
class MFCC(nn.Module):
    """torchaudio's MFCC in the network."""

    def __init__(self):
        super().__init__()
        self.register_buffer("w", torch.hann_window(256))
        self.register_buffer("fb", torch.rand(129, 16))
        self.register_buffer("dct", torch.rand(16, 10))
        self.c = conv_bn_relu_1d(10, 8, 3)

    def forward(self, x):
        sh = x.size()
        x = x.reshape(-1, sh[-1])
        X = torch.stft(
            input=x,
            n_fft=256,
            hop_length=100,
            win_length=256,
            window=self.w,
            center=True,
            pad_mode="reflect",
            normalized=False,
            onesided=True,
            return_complex=True,
        )
        X = X.reshape(sh[:-1] + X.shape[-2:])
        p = X.abs().pow(2.0)
        mel = torch.matmul(p.transpose(-1, -2), self.fb).transpose(-1, -2)
        db = 10.0 * torch.log10(torch.clamp(mel, min=1e-10))
        return self.c(torch.matmul(db.transpose(-1, -2), self.dct).transpose(-1, -2))


@listed(NETWORKS, (1, 4, 16), (1, 2, 8), (1, 2, 8))
class Streaming(nn.Module):
    """An LSTM that takes and returns its state."""

    def __init__(self):
        super().__init__()
        self.c = nn.Linear(16, 8)
        self.l = nn.LSTM(8, 8, 2, batch_first=True)
        self.o = nn.Linear(8, 1)

    def forward(self, x, h, c):
        y, (hn, cn) = self.l(torch.relu(self.c(x)), (h.transpose(0, 1), c.transpose(0, 1)))
        return (torch.sigmoid(self.o(y)), hn.transpose(0, 1), cn.transpose(0, 1))


@listed(NETWORKS, (1, 20, 16), (1, 1, 8))
class StreamGRU(nn.Module):
    """A GRU that takes and returns its state."""

    def __init__(self):
        super().__init__()
        self.l = nn.GRU(16, 8, batch_first=True)

    def forward(self, x, h):
        y, hn = self.l(x, h.permute(1, 0, 2))
        return (y, hn.permute(1, 0, 2))


class Res2Block(nn.Module):
    def __init__(self, c, d):
        super().__init__()
        self.w = c // 4
        self.c = nn.ModuleList(
            nn.Conv1d(self.w, self.w, 3, padding=d, dilation=d) for _ in range(3)
        )
        self.b = nn.ModuleList(nn.BatchNorm1d(self.w) for _ in range(3))

    def forward(self, x):
        sp = torch.split(x, self.w, 1)
        y = self.b[0](F.relu(self.c[0](sp[0])))
        out = y
        for i in (1, 2):
            y = self.b[i](F.relu(self.c[i](y + sp[i])))
            out = torch.cat((out, y), 1)
        return torch.cat((out, sp[3]), 1)
