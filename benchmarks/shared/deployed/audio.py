"""Speech and sound."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.shared.deployed import Builder
from benchmarks.shared.deployed.blocks import (
    Residual,
    SqueezeExcite,
    SqueezeExcite1d,
    TemporalResidual,
    conv_bn_act,
    conv_bn_relu_1d,
)
from benchmarks.shared.deployed.register import ids, listed

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


@listed(NETWORKS, (1, 24, 60))
class XVector(nn.Module):
    """Snyder et al., 2018: a TDNN, statistics pooled."""

    def __init__(self):
        super().__init__()

        def t(i, o, k, d):
            return nn.Sequential(nn.Conv1d(i, o, k, dilation=d), nn.ReLU(), nn.BatchNorm1d(o))

        self.t = nn.Sequential(t(24, 32, 5, 1), t(32, 32, 3, 2), t(32, 32, 3, 3), t(32, 48, 1, 1))
        self.a = nn.Linear(96, 32)
        self.o = nn.Linear(32, 10)

    def forward(self, x):
        y = self.t(x)
        e = self.a(torch.cat((y.mean(2), y.std(2)), 1))
        return (e, self.o(F.relu(e)))


@listed(NETWORKS, (1, 24, 60))
class CAMPlusPlus(nn.Module):
    """Wang et al., 2023: dense TDNN with context-aware masks, pooled by segments."""

    def __init__(self):
        super().__init__()
        self.i = conv_bn_relu_1d(24, 32, 5, 2)
        self.b = nn.Conv1d(32, 16, 3, padding=2, dilation=2)
        self.c = nn.Conv1d(32, 8, 1)
        self.d = nn.Conv1d(8, 16, 1)
        self.o = nn.Linear(96, 16)

    def forward(self, x):
        x = self.i(x)
        g = F.avg_pool1d(x, 10, 10, ceil_mode=True)
        sh = g.shape
        g = g.unsqueeze(-1).expand(*sh, 10).reshape(*sh[:-1], -1)[..., : x.shape[-1]]
        m = torch.sigmoid(self.d(F.relu(self.c(x.mean(-1, keepdim=True) + g))))
        y = torch.cat((x, self.b(x) * m), 1)
        return self.o(torch.cat((y.mean(-1), torch.sqrt(y.var(-1) + 1e-05)), 1))


@listed(NETWORKS, (1, 1, 40, 50))
class ResNetSE(nn.Module):
    """Chung et al., 2020: speakers by a 2-D ResNet with self-attentive pooling."""

    def __init__(self):
        super().__init__()
        self.i = nn.InstanceNorm1d(40)
        self.c = nn.Conv2d(1, 16, 3, 1, 1)
        self.a = Residual(16, 32, 2)
        self.se = SqueezeExcite(32)
        self.l = nn.Linear(640, 32)
        self.t = nn.Parameter(torch.randn(32, 1))
        self.o = nn.Linear(640, 16)

    def forward(self, x):
        x = self.i(x.squeeze(1)).unsqueeze(1).detach()
        x = self.se(self.a(F.relu(self.c(x))))
        x = x.reshape(x.size(0), -1, x.size(3)).permute(0, 2, 1)
        w = F.softmax(torch.matmul(torch.tanh(self.l(x)), self.t).squeeze(2), 1).unsqueeze(2)
        return self.o(torch.sum(x * w, 1))


@listed(NETWORKS, (1, 40, 50))
class MatchboxNet(nn.Module):
    """Majumdar and Ginsburg, 2020: separable 1-D convolutions, residual by a pointwise one."""

    def __init__(self):
        super().__init__()

        def q(i, o, k, d=1):
            return nn.Sequential(
                nn.Conv1d(i, i, k, padding=d * (k // 2), groups=i, dilation=d, bias=False),
                nn.Conv1d(i, o, 1, bias=False),
                nn.BatchNorm1d(o, eps=0.001),
            )

        self.i = q(40, 32, 11)
        self.b = nn.Sequential(q(32, 32, 13), nn.ReLU(), q(32, 32, 13))
        self.r = nn.Sequential(nn.Conv1d(32, 32, 1, bias=False), nn.BatchNorm1d(32))
        self.e = q(32, 48, 29, 2)
        self.o = nn.Conv1d(48, 12, 1)

    def forward(self, x):
        x = F.relu(self.i(x))
        x = F.relu(self.b(x) + self.r(x))
        return self.o(F.relu(self.e(x))).mean(2)


@listed(NETWORKS, (1, 40, 50))
class CitriNet(nn.Module):
    """Majumdar et al., 2021: squeeze and excite over the whole utterance, CTC."""

    def __init__(self):
        super().__init__()
        self.c = nn.Sequential(
            nn.Conv1d(40, 40, 5, 2, 2, groups=40),
            nn.Conv1d(40, 32, 1),
            nn.BatchNorm1d(32),
            nn.ReLU(),
        )
        self.a = nn.Linear(32, 8, bias=False)
        self.b = nn.Linear(8, 32, bias=False)
        self.o = nn.Conv1d(32, 30, 1)

    def forward(self, x):
        x = self.c(x)
        g = self.b(F.relu(self.a(x.mean(-1, keepdim=True).transpose(1, -1)))).transpose(1, -1)
        return self.o(x * g.sigmoid()).transpose(1, 2).log_softmax(-1)


class RelativeAttention(nn.Module):
    """Transformer-XL's: positions are keys too, shifted into place (Dai et al., 2019)."""

    def __init__(self, d=32, h=4):
        super().__init__()
        self.q, self.k, self.v, self.p, self.o = (nn.Linear(d, d) for _ in range(5))
        self.u = nn.Parameter(torch.randn(h, d // h) * 0.1)
        self.w = nn.Parameter(torch.randn(h, d // h) * 0.1)
        self.h = h

    def forward(self, x, pos):
        n, t, d = x.shape

        def f(m, y):
            return m(y).view(y.shape[0], -1, self.h, d // self.h)

        q = f(self.q, x)
        k, v, p = (f(m, y).transpose(1, 2) for m, y in ((self.k, x), (self.v, x), (self.p, pos)))
        a = torch.matmul((q + self.u).transpose(1, 2), k.transpose(-2, -1))
        b = torch.matmul((q + self.w).transpose(1, 2), p.transpose(-2, -1))
        z = F.pad(b, (1, 0)).view(n, self.h, -1, t)
        b = z[:, :, 1:].view_as(b)[:, :, :, :t]
        y = torch.matmul(((a + b) / math.sqrt(d // self.h)).softmax(-1), v)
        return self.o(y.transpose(1, 2).reshape(n, t, d))


@listed(NETWORKS, (1, 40, 40))
class Conformer(nn.Module):
    """Gulati et al., 2020: half-step feed-forwards, relative attention, gated convolutions."""

    def __init__(self, d=32):
        super().__init__()
        self.s = nn.Sequential(
            nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU()
        )
        self.l = nn.Linear(160, d)

        def ff():
            return nn.Sequential(
                nn.LayerNorm(d), nn.Linear(d, 2 * d), nn.SiLU(), nn.Linear(2 * d, d)
            )

        self.f, self.g = (ff(), ff())
        self.n = nn.ModuleList(nn.LayerNorm(d) for _ in range(3))
        self.a = RelativeAttention(d)
        self.p = nn.Conv1d(d, 2 * d, 1)
        self.d = nn.Conv1d(d, d, 15, padding=7, groups=d)
        self.b = nn.BatchNorm1d(d)
        self.q = nn.Conv1d(d, d, 1)
        self.o = nn.Linear(d, 30)
        k = torch.arange(9, -10, -1.0)[:, None] * torch.exp(
            torch.arange(0, d, 2) * (-math.log(10000.0) / d)
        )
        self.register_buffer("pe", torch.stack((k.sin(), k.cos()), 2).flatten(1)[None])

    def forward(self, x):
        y = self.s(x.transpose(1, 2).unsqueeze(1))
        n, c, t, f = y.shape
        y = self.l(y.transpose(1, 2).reshape(n, t, c * f))
        y = y + 0.5 * self.f(y)
        y = y + self.a(self.n[0](y), self.pe)
        z = F.glu(self.p(self.n[1](y).transpose(1, 2)), 1)
        y = y + self.q(F.silu(self.b(self.d(z)))).transpose(1, 2)
        return self.o(self.n[2](y + 0.5 * self.g(y))).log_softmax(-1)


@listed(NETWORKS, (1, 20, 40), (1, 2, 16), (1, 2, 16))
class TransducerEncoder(nn.Module):
    """RNN-T (He et al., 2019): projected LSTMs, time halved between them, state in and out."""

    def __init__(self):
        super().__init__()
        self.a = nn.LSTM(40, 16, batch_first=True)
        self.n = nn.LayerNorm(32)
        self.b = nn.LSTM(32, 16, batch_first=True)
        self.o = nn.Linear(16, 24)

    def forward(self, x, h, c):
        y, (ha, ca) = self.a(
            x, (h[:, :1].transpose(0, 1).contiguous(), c[:, :1].transpose(0, 1).contiguous())
        )
        n, t, d = y.shape
        y = self.n(y.reshape(n, t // 2, 2 * d))
        y, (hb, cb) = self.b(
            y, (h[:, 1:].transpose(0, 1).contiguous(), c[:, 1:].transpose(0, 1).contiguous())
        )
        return (self.o(y), torch.cat((ha, hb)).transpose(0, 1), torch.cat((ca, cb)).transpose(0, 1))


@listed(NETWORKS, (1, 8, 24), (1, 5, 16))
class TransducerJoint(nn.Module):
    """Graves, 2012: every frame with every label."""

    def __init__(self):
        super().__init__()
        self.e = nn.Linear(24, 32)
        self.p = nn.Linear(16, 32)
        self.o = nn.Linear(32, 30)

    def forward(self, e, p):
        return self.o(torch.tanh(self.e(e).unsqueeze(2) + self.p(p).unsqueeze(1))).log_softmax(-1)


@listed(NETWORKS, (1, 40, 48))
class WhisperEncoder(nn.Module):
    """Radford et al., 2022: two convolutions, sinusoids, pre-norm layers."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv1d(40, 32, 3, padding=1)
        self.b = nn.Conv1d(32, 32, 3, 2, 1)
        a = torch.arange(24)[:, None] * torch.exp(-math.log(10000.0) / 15 * torch.arange(16))[None]
        self.register_buffer("p", torch.cat([a.sin(), a.cos()], 1))
        self.t = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(32, 4, 64, 0.0, "gelu", batch_first=True, norm_first=True),
            2,
            nn.LayerNorm(32),
            enable_nested_tensor=False,
        )

    def forward(self, x):
        y = F.gelu(self.b(F.gelu(self.a(x)))).permute(0, 2, 1)
        return self.t(y + self.p)


@listed(NETWORKS, (1, 1, 48, 40))
class VGGish(nn.Module):
    """Hershey et al., 2017: patches of spectrograms, channels last before the flattening."""

    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(
            nn.Conv2d(1, 16, 3, 1, 1),
            nn.ReLU(True),
            nn.MaxPool2d(2, 2),
            nn.Conv2d(16, 32, 3, 1, 1),
            nn.ReLU(True),
            nn.MaxPool2d(2, 2),
        )
        self.e = nn.Sequential(
            nn.Linear(32 * 120, 32), nn.ReLU(True), nn.Linear(32, 16), nn.ReLU(True)
        )

    def forward(self, x):
        x = self.f(x)
        x = torch.transpose(x, 1, 3)
        x = torch.transpose(x, 1, 2).contiguous()
        return self.e(x.view(x.size(0), -1))


@listed(NETWORKS, (1, 1, 48, 40))
class YAMNet(nn.Module):
    """Google, 2019: MobileNetV1 of spectrograms, 'same' padding as TensorFlow pads."""

    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(1, 16, 3, 2, bias=False)
        self.n = nn.BatchNorm2d(16, eps=0.0001)
        self.d = nn.Conv2d(16, 16, 3, 2, groups=16, bias=False)
        self.m = nn.BatchNorm2d(16)
        self.p = conv_bn_act(16, 32, 1, act=nn.ReLU)
        self.o = nn.Linear(32, 21)

    def forward(self, x):
        x = F.relu(self.n(self.c(F.pad(x, (0, 1, 0, 1)))))
        x = self.p(F.relu(self.m(self.d(F.pad(x, (0, 1, 0, 1))))))
        return torch.sigmoid(self.o(x.mean((2, 3))))


@listed(NETWORKS, (1, 1, 64, 40))
class PANNs(nn.Module):
    """Kong et al., 2020: batch norm over mel bins, maximum and mean pooled and added."""

    def __init__(self):
        super().__init__()
        self.n = nn.BatchNorm2d(40)
        self.b = nn.Sequential(
            conv_bn_act(1, 16, act=nn.ReLU),
            nn.AvgPool2d(2),
            conv_bn_act(16, 32, act=nn.ReLU),
            nn.AvgPool2d(2),
        )
        self.f = nn.Linear(32, 32)
        self.a = nn.Conv1d(32, 10, 1)
        self.c = nn.Conv1d(32, 10, 1)

    def forward(self, x):
        x = self.b(self.n(x.transpose(1, 3)).transpose(1, 3)).mean(3)
        x = F.max_pool1d(x, 3, 1, 1) + F.avg_pool1d(x, 3, 1, 1)
        x = F.relu(self.f(x.transpose(1, 2))).transpose(1, 2)
        a = torch.softmax(torch.clamp(self.a(x), -10, 10), -1)
        c = torch.sigmoid(self.c(x))
        return ((a * c).sum(2), F.interpolate(c, scale_factor=4, mode="nearest"))


@listed(NETWORKS, (1, 1, 64, 40))
class CRNNEvents(nn.Module):
    """Cakir et al., 2017: gated convolutions, a bidirectional GRU, events of each frame."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(1, 16, 3, 1, 1)
        self.n = nn.BatchNorm2d(16, eps=0.001)
        self.g = nn.Linear(16, 16)
        self.p = nn.AvgPool2d((2, 4))
        self.r = nn.GRU(160, 24, batch_first=True, bidirectional=True)
        self.o = nn.Linear(48, 10)
        self.q = nn.Linear(48, 10)

    def forward(self, x):
        x = self.n(self.a(x))
        x = x * torch.sigmoid(self.g(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        x = self.p(x)
        x = x.permute(0, 2, 1, 3).flatten(2)
        y, _ = self.r(x)
        st = torch.sigmoid(self.o(y))
        w = torch.softmax(self.q(y), -1).clamp(1e-07, 1)
        return (st.transpose(1, 2), (st * w).sum(1) / w.sum(1))


@listed(NETWORKS, (1, 1, 640))
class Demucs(nn.Module):
    """Défossez et al., 2020: strided convolutions with GLU, an LSTM, a U of waveforms."""

    def __init__(self):
        super().__init__()
        self.a = nn.Sequential(
            nn.Conv1d(1, 16, 8, 4, 2), nn.ReLU(), nn.Conv1d(16, 32, 1), nn.GLU(1)
        )
        self.b = nn.Sequential(
            nn.Conv1d(16, 24, 8, 4, 2), nn.ReLU(), nn.Conv1d(24, 48, 1), nn.GLU(1)
        )
        self.l = nn.LSTM(24, 24, bidirectional=True)
        self.f = nn.Linear(48, 24)
        self.c = nn.Sequential(
            nn.Conv1d(24, 48, 1), nn.GLU(1), nn.ConvTranspose1d(24, 16, 8, 4, 2), nn.ReLU()
        )
        self.d = nn.Sequential(nn.Conv1d(16, 32, 1), nn.GLU(1), nn.ConvTranspose1d(16, 1, 8, 4, 2))

    def forward(self, x):
        m = x.mean(1, keepdim=True)
        sd = m.std(-1, keepdim=True)
        x = x / (0.001 + sd)
        a = self.a(x)
        b = self.b(a)
        y = self.f(self.l(b.permute(2, 0, 1))[0]).permute(1, 2, 0)
        y = self.c(y + b)
        return sd * self.d(y + a)


@listed(NETWORKS, (1, 1, 32, 33))
class DCCRNReal(nn.Module):
    """Hu et al., 2020: complex convolutions written as pairs of real ones, a complex mask."""

    def __init__(self):
        super().__init__()
        self.r = nn.Conv2d(1, 8, (5, 2), (2, 1), (2, 0))
        self.i = nn.Conv2d(1, 8, (5, 2), (2, 1), (2, 0))
        self.n = nn.BatchNorm2d(16)
        self.a = nn.PReLU()
        self.d = nn.ConvTranspose2d(16, 2, (5, 2), (2, 1), (2, 0), (1, 0))

    def forward(self, x):
        p = F.pad(x, (1, 0))
        im = torch.flip(p, [2])
        y = torch.cat((self.r(p) - self.i(im), self.r(im) + self.i(p)), 1)
        m = self.d(self.a(self.n(y)))[..., :-1]
        mag = (m.pow(2).sum(1, keepdim=True) + 1e-08).sqrt()
        ph = torch.atan2(m[:, 1:], m[:, :1])
        t = torch.tanh(mag) * x
        return torch.cat((t * torch.cos(ph), t * torch.sin(ph)), 1)


@listed(NETWORKS, (1, 20, 42))
class RNNoise(nn.Module):
    """Valin, 2018: three GRUs that read each other, gains of bands and a voice flag."""

    def __init__(self):
        super().__init__()
        self.i = nn.Linear(42, 24)
        self.v = nn.GRU(24, 24, batch_first=True)
        self.n = nn.GRU(90, 32, batch_first=True)
        self.d = nn.GRU(98, 48, batch_first=True)
        self.g = nn.Linear(48, 22)
        self.f = nn.Linear(24, 1)

    def forward(self, x):
        t = torch.tanh(self.i(x))
        v, _ = self.v(t)
        n, _ = self.n(torch.cat([t, v, x], -1))
        d, _ = self.d(torch.cat([v, n, x], -1))
        return (torch.sigmoid(self.g(d)), torch.sigmoid(self.f(v)))


@listed(NETWORKS, (1, 40, 32))
class HiFiGAN(nn.Module):
    """Kong et al., 2020: transposed convolutions, fields of several kernels averaged."""

    def __init__(self):
        super().__init__()
        w = nn.utils.parametrizations.weight_norm
        self.i = w(nn.Conv1d(40, 32, 7, padding=3))
        self.u = nn.ModuleList(
            (w(nn.ConvTranspose1d(32, 16, 8, 4, 2)), w(nn.ConvTranspose1d(16, 8, 4, 2, 1)))
        )
        self.r = nn.ModuleList(
            nn.ModuleList(
                (
                    w(nn.Conv1d(c, c, k, padding=d * (k // 2), dilation=d))
                    for k, d in ((3, 1), (7, 3))
                )
            )
            for c in (16, 8)
        )
        self.o = w(nn.Conv1d(8, 1, 7, padding=3))

    def forward(self, x):
        x = self.i(x)
        for u, rs in zip(self.u, self.r, strict=False):
            x = u(F.leaky_relu(x, 0.1))
            x = sum(x + r(F.leaky_relu(x, 0.1)) for r in rs) / 2
        return torch.tanh(self.o(F.leaky_relu(x)))


@listed(NETWORKS, (1, 40, 24))
class MelGAN(nn.Module):
    """Kumar et al., 2019: reflected borders, dilated residuals with a shortcut convolution."""

    def __init__(self):
        super().__init__()
        self.a = nn.Sequential(
            nn.ReflectionPad1d(3),
            nn.Conv1d(40, 32, 7),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose1d(32, 16, 16, 8, 4),
        )
        self.b = nn.Sequential(
            nn.LeakyReLU(0.2),
            nn.ReflectionPad1d(3),
            nn.Conv1d(16, 16, 3, dilation=3),
            nn.LeakyReLU(0.2),
            nn.Conv1d(16, 16, 1),
        )
        self.k = nn.Conv1d(16, 16, 1)
        self.o = nn.Sequential(
            nn.LeakyReLU(0.2), nn.ReflectionPad1d(3), nn.Conv1d(16, 1, 7), nn.Tanh()
        )

    def forward(self, x):
        x = self.a(x)
        return self.o(self.k(x) + self.b(x))


@listed(NETWORKS, ids(40, 1, 16))
class FastSpeechEncoder(nn.Module):
    """Ren et al., 2019: phonemes, convolutional feed-forward, durations."""

    def __init__(self):
        super().__init__()
        self.e = nn.Embedding(40, 32)
        self.a = nn.MultiheadAttention(32, 2, batch_first=True)
        self.n = nn.ModuleList(nn.LayerNorm(32) for _ in range(3))
        self.f = nn.Sequential(nn.Conv1d(32, 64, 9, padding=4), nn.ReLU(), nn.Conv1d(64, 32, 1))
        self.d = nn.Conv1d(32, 32, 3, padding=1)
        self.o = nn.Linear(32, 1)

    def forward(self, x):
        y = self.e(x)
        y = self.n[0](y + self.a(y, y, y)[0])
        y = self.n[1](y + self.f(y.transpose(1, 2)).transpose(1, 2))
        d = self.o(self.n[2](F.relu(self.d(y.transpose(1, 2))).transpose(1, 2))).squeeze(-1)
        return (y, torch.clamp(torch.round(torch.exp(d) - 1), min=0))
