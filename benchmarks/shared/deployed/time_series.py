"""Time series and sensors."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.shared.deployed import Builder
from benchmarks.shared.deployed.blocks import TemporalResidual, conv_bn_relu_1d
from benchmarks.shared.deployed.register import listed

NETWORKS: dict[str, Builder] = {}


class Chomp1d(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c

    def forward(self, x):
        return x[:, :, : -self.c].contiguous()


class TemporalBlock(nn.Module):
    def __init__(self, i, o, k, d):
        super().__init__()
        p = (k - 1) * d
        wn = nn.utils.parametrizations.weight_norm
        self.net = nn.Sequential(
            wn(nn.Conv1d(i, o, k, padding=p, dilation=d)),
            Chomp1d(p),
            nn.ReLU(),
            nn.Dropout(0.2),
            wn(nn.Conv1d(o, o, k, padding=p, dilation=d)),
            Chomp1d(p),
            nn.ReLU(),
            nn.Dropout(0.2),
        )
        self.ds = nn.Conv1d(i, o, 1) if i != o else None

    def forward(self, x):
        return F.relu(self.net(x) + (x if self.ds is None else self.ds(x)))


class NBeatsBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        self.t = nn.Linear(32, 60, bias=False)

    def forward(self, x):
        t = self.t(self.f(x))
        return (t[..., :48], t[..., 48:])


class InceptionBlock(nn.Module):
    def __init__(self, i):
        super().__init__()
        self.b = nn.Conv1d(i, 8, 1, bias=False)
        self.c = nn.ModuleList(nn.Conv1d(8, 8, k, padding="same", bias=False) for k in (9, 19, 39))
        self.m = nn.Sequential(nn.MaxPool1d(3, 1, 1), nn.Conv1d(i, 8, 1, bias=False))
        self.n = nn.BatchNorm1d(32)

    def forward(self, x):
        z = self.b(x)
        return F.relu(self.n(torch.cat([c(z) for c in self.c] + [self.m(x)], 1)))


@listed(NETWORKS, (1, 2, 64))
class TCN(nn.Module):
    """Bai et al., 2018: causal, weight norm."""

    def __init__(self):
        super().__init__()
        self.t = nn.Sequential(
            TemporalBlock(2, 8, 3, 1), TemporalBlock(8, 8, 3, 2), TemporalBlock(8, 8, 3, 4)
        )
        self.l = nn.Linear(8, 3)

    def forward(self, x):
        return self.l(self.t(x)[:, :, -1])


@listed(NETWORKS, (1, 48))
class NBeats(nn.Module):
    """Oreshkin et al., 2020: backcasts subtracted."""

    def __init__(self):
        super().__init__()
        self.b = nn.ModuleList(NBeatsBlock() for _ in range(3))

    def forward(self, x):
        out = 0
        for b in self.b:
            back, f = b(x)
            x = x - back
            out = out + f
        return out


@listed(NETWORKS, (1, 20, 6))
class LSTMAE(nn.Module):
    """Autoencoder of two LSTMs (Srivastava et al., 2015)."""

    def __init__(self):
        super().__init__()
        self.e = nn.LSTM(6, 12, batch_first=True)
        self.d = nn.LSTM(12, 12, batch_first=True)
        self.o = nn.Linear(12, 6)

    def forward(self, x):
        _, (h, _) = self.e(x)
        z = h[-1].unsqueeze(1).repeat(1, x.shape[1], 1)
        y, _ = self.d(z)
        return self.o(y)


@listed(NETWORKS, (1, 24, 7))
class Seq2One(nn.Module):
    """GRU, the last step read."""

    def __init__(self):
        super().__init__()
        self.g = nn.GRU(7, 16, 2, batch_first=True)
        self.f = nn.Linear(16, 1)

    def forward(self, x):
        return self.f(self.g(x)[0][:, -1, :])


@listed(NETWORKS, (1, 64, 4))
class PatchTST(nn.Module):
    """Nie et al., 2023: patches, normalised per series."""

    def __init__(self):
        super().__init__()
        self.e = nn.Linear(16, 32)
        self.pos = nn.Parameter(torch.randn(1, 7, 32) * 0.02)
        level = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu")
        self.t = nn.TransformerEncoder(level, 2)
        self.h = nn.Linear(7 * 32, 12)

    def forward(self, x):
        m = x.mean(1, keepdim=True)
        sd = torch.sqrt(torch.var(x, dim=1, keepdim=True, unbiased=False) + 1e-05)
        x = (x - m) / sd
        x = x.permute(0, 2, 1)
        B, C, _L = x.shape
        x = x.unfold(-1, 16, 8)
        x = self.e(x).reshape(B * C, 7, 32) + self.pos
        x = self.t(x)
        x = self.h(x.flatten(1)).reshape(B, C, 12).permute(0, 2, 1)
        return x * sd + m


@listed(NETWORKS, (1, 36, 5))
class LSTNet(nn.Module):
    """Lai et al., 2018: skipping recurrence, autoregression."""

    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(1, 10, (6, 5))
        self.g = nn.GRU(10, 8)
        self.gs = nn.GRU(10, 3)
        self.l = nn.Linear(8 + 4 * 3, 5)
        self.h = nn.Linear(8, 1)

    def forward(self, x):
        b = x.size(0)
        c = x.view(-1, 1, 36, 5)
        c = F.relu(self.c(c)).squeeze(3)
        r = c.permute(2, 0, 1).contiguous()
        _, r = self.g(r)
        r = r.squeeze(0)
        q = (
            c[:, :, -28:]
            .contiguous()
            .view(b, 10, 7, 4)
            .permute(2, 0, 3, 1)
            .contiguous()
            .view(7, b * 4, 10)
        )
        _, q = self.gs(q)
        q = q.view(b, 12)
        res = self.l(torch.cat((r, q), 1))
        z = x[:, -8:, :].permute(0, 2, 1).contiguous().view(-1, 8)
        return res + self.h(z).view(-1, 5)


@listed(NETWORKS, (1, 3, 80))
class InceptionTime(nn.Module):
    """Fawaz et al., 2020."""

    def __init__(self):
        super().__init__()
        self.a = InceptionBlock(3)
        self.b = InceptionBlock(32)
        self.r = nn.Sequential(nn.Conv1d(3, 32, 1), nn.BatchNorm1d(32))
        self.f = nn.Linear(32, 5)

    def forward(self, x):
        y = F.relu(self.b(self.a(x)) + self.r(x))
        return self.f(y.mean(-1))


@listed(NETWORKS, (1, 10, 6))
class CellLoop(nn.Module):
    """LSTM, GRU and RNN cells in a loop over time."""

    def __init__(self):
        super().__init__()
        self.a = nn.LSTMCell(6, 8)
        self.b = nn.GRUCell(8, 8)
        self.c = nn.RNNCell(8, 4)
        self.o = nn.Linear(4, 2)

    def forward(self, x):
        h = torch.zeros(x.size(0), 8)
        c = torch.zeros(x.size(0), 8)
        g = torch.zeros(x.size(0), 8)
        r = None
        out = []
        for t in range(10):
            h, c = self.a(x[:, t], (h, c))
            g = self.b(h, g)
            r = self.c(g, r)
            out.append(self.o(r))
        return torch.stack(out, 1)


@listed(NETWORKS, (1, 12, 16))
class EncDec(nn.Module):
    """Transformer encoder, sinusoidal positions."""

    def __init__(self):
        super().__init__()
        self.t = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32), 1)
        pe = torch.zeros(50, 1, 16)
        p = torch.arange(50)[:, None]
        d = torch.exp(torch.arange(0, 16, 2) * (-math.log(10000.0) / 16))
        pe[:, 0, 0::2] = torch.sin(p * d)
        pe[:, 0, 1::2] = torch.cos(p * d)
        self.register_buffer("pe", pe)
        self.f = nn.Linear(16, 4)

    def forward(self, x):
        x = x.transpose(0, 1) * 4
        x = x + self.pe[: x.size(0)]
        return self.f(self.t(x).mean(0))


@listed(NETWORKS, (1, 2, 128))
class UNet1d(nn.Module):
    """U-Net of signals (Perslev et al., 2019)."""

    def __init__(self):
        super().__init__()
        self.a = conv_bn_relu_1d(2, 8, 3)
        self.b = conv_bn_relu_1d(8, 16, 3)
        self.p = nn.MaxPool1d(2)
        self.u = nn.ConvTranspose1d(16, 8, 2, 2)
        self.c = conv_bn_relu_1d(16, 8, 3)
        self.o = nn.Conv1d(8, 3, 1)

    def forward(self, x):
        a = self.a(x)
        b = self.b(self.p(a))
        return self.o(self.c(torch.cat([self.u(b), a], 1)))


@listed(NETWORKS, (1, 9, 128))
class HAR(nn.Module):
    """DeepConvLSTM (Ordóñez and Roggen, 2016): activities of a wearable."""

    def __init__(self):
        super().__init__()
        self.c = nn.Sequential(
            nn.Conv1d(9, 16, 5), nn.ReLU(), nn.Conv1d(16, 16, 5), nn.ReLU(), nn.MaxPool1d(4)
        )
        self.l = nn.LSTM(16, 24, 2, batch_first=True, dropout=0.5)
        self.f = nn.Linear(24, 6)

    def forward(self, x):
        y, _ = self.l(self.c(x).permute(0, 2, 1))
        return self.f(y[:, -1])


@listed(NETWORKS, (1, 12, 256))
class ECGNet(nn.Module):
    """ECG of twelve leads, attention over time."""

    def __init__(self):
        super().__init__()
        self.c = conv_bn_relu_1d(12, 16, 15, 2)
        self.r = TemporalResidual(16, 24, 2)
        self.a = nn.Linear(24, 1)
        self.f = nn.Linear(24, 5)

    def forward(self, x):
        y = self.r(self.c(x)).transpose(1, 2)
        w = torch.softmax(self.a(torch.tanh(y)), 1)
        return self.f((y * w).sum(1))


@listed(NETWORKS, (1, 3, 80))
class FCN1d(nn.Module):
    """Wang et al., 2017: three convolutions and a mean over time."""

    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(
            conv_bn_relu_1d(3, 16, 9), conv_bn_relu_1d(16, 32, 5), conv_bn_relu_1d(32, 16, 3)
        )
        self.o = nn.Linear(16, 4)

    def forward(self, x):
        return self.o(F.adaptive_avg_pool1d(self.f(x), 1).squeeze(-1)).softmax(-1)


@listed(NETWORKS, (1, 3, 80))
class LSTMFCN(nn.Module):
    """Karim et al., 2018: a convolutional path, and an LSTM that reads the series transposed."""

    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(conv_bn_relu_1d(3, 16, 7), conv_bn_relu_1d(16, 16, 3))
        self.l = nn.LSTM(80, 8, batch_first=True)
        self.o = nn.Linear(24, 4)

    def forward(self, x):
        _, (h, _) = self.l(x)
        return self.o(torch.cat((self.f(x).mean(2), h.squeeze(0)), 1))


@listed(NETWORKS, (1, 1, 96))
class MiniRocket(nn.Module):
    """Dempster et al., 2021: fixed kernels, shares of positive values, a linear head."""

    def __init__(self):
        super().__init__()
        i = torch.arange(12)[:, None] % 7
        j = torch.arange(9)
        k = torch.where((j >= i) & (j < i + 3), 2.0, -1.0).unsqueeze(1)
        self.register_buffer("k", k)
        self.register_buffer("b", torch.randn(12))
        self.o = nn.Linear(24, 4)

    def forward(self, x):
        f = [
            (F.conv1d(x, self.k, padding=4 * d, dilation=d) + self.b[:, None] > 0).float().mean(2)
            for d in (1, 3)
        ]
        return self.o(torch.cat(f, 1))


@listed(NETWORKS, (1, 48, 7))
class DLinear(nn.Module):
    """Zeng et al., 2023: trend by a moving average, two linear layers."""

    def __init__(self):
        super().__init__()
        self.a = nn.AvgPool1d(25, 1)
        self.t = nn.Linear(48, 12)
        self.r = nn.Linear(48, 12)

    def forward(self, x):
        y = torch.cat((x[:, :1].repeat(1, 12, 1), x, x[:, -1:].repeat(1, 12, 1)), 1)
        m = self.a(y.permute(0, 2, 1))
        return (self.t(m) + self.r(x.permute(0, 2, 1) - m)).permute(0, 2, 1)


@listed(NETWORKS, (1, 48, 7))
class NLinear(nn.Module):
    """Zeng et al., 2023: the last value subtracted, a linear layer for each series."""

    def __init__(self):
        super().__init__()
        self.l = nn.ModuleList(nn.Linear(48, 12) for _ in range(7))

    def forward(self, x):
        last = x[:, -1:].detach()
        z = x - last
        out = torch.zeros(x.size(0), 12, 7)
        for i in range(7):
            out[:, :, i] = self.l[i](z[:, :, i])
        return out + last


@listed(NETWORKS, (1, 48, 7))
class RevINMLP(nn.Module):
    """Kim et al., 2022, around TSMixer (Chen et al., 2023): mixing over time, then over series."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(7))
        self.b = nn.Parameter(torch.zeros(7))
        self.n = nn.BatchNorm1d(48)
        self.t = nn.Linear(48, 48)
        self.c = nn.Sequential(nn.Linear(7, 16), nn.ReLU(), nn.Linear(16, 7))
        self.o = nn.Linear(48, 12)

    def forward(self, x):
        m = x.mean(1, keepdim=True)
        d = torch.sqrt(x.var(1, keepdim=True, unbiased=False) + 1e-05)
        y = (x - m) / d * self.w + self.b
        y = y + F.relu(self.t(self.n(y).transpose(1, 2))).transpose(1, 2)
        y = y + self.c(y)
        y = self.o(y.transpose(1, 2)).transpose(1, 2)
        return (y - self.b) / (self.w + 1e-10) * d + m


@listed(NETWORKS, (1, 48, 7))
class ITransformer(nn.Module):
    """Liu et al., 2024: every series is a token."""

    def __init__(self):
        super().__init__()
        self.e = nn.Linear(48, 32)
        self.t = nn.TransformerEncoderLayer(32, 4, 64, 0.0, "gelu", batch_first=True)
        self.o = nn.Linear(32, 12)

    def forward(self, x):
        m = x.mean(1, keepdim=True).detach()
        y = x - m
        d = torch.sqrt(torch.var(y, 1, keepdim=True, unbiased=False) + 1e-05)
        y = self.o(self.t(self.e((y / d).permute(0, 2, 1)))).permute(0, 2, 1)
        return y * d[:, 0].unsqueeze(1) + m


@listed(NETWORKS, (1, 48, 7))
class Autoformer(nn.Module):
    """Wu et al., 2021: delays of the largest autocorrelation, by FFT, are rolled and averaged."""

    def __init__(self):
        super().__init__()
        self.q = nn.Linear(7, 16)
        self.k = nn.Linear(7, 16)
        self.v = nn.Linear(7, 16)
        self.o = nn.Linear(16, 7)

    def forward(self, x):
        q, k, v = (m(x).transpose(1, 2) for m in (self.q, self.k, self.v))
        c = torch.fft.irfft(torch.fft.rfft(q) * torch.conj(torch.fft.rfft(k)), n=48).mean(1)
        w, i = torch.topk(c, 3, -1)
        w = w.softmax(-1)
        vv = v.repeat(1, 1, 2)
        pos = torch.arange(48).view(1, 1, -1).expand_as(v)
        out = sum(
            torch.gather(vv, -1, pos + i[:, j, None, None]) * w[:, j, None, None] for j in range(3)
        )
        return self.o(out.transpose(1, 2))


@listed(NETWORKS, (1, 48, 7))
class TimesNet(nn.Module):
    """Wu et al., 2023: the series folded by a period into two dimensions, inception kernels."""

    def __init__(self):
        super().__init__()
        self.e = nn.Conv1d(7, 16, 3, padding=1, padding_mode="circular", bias=False)
        self.c = nn.ModuleList(nn.Conv2d(16, 16, k, padding=k // 2) for k in (1, 3, 5))
        self.o = nn.Linear(16, 7)

    def forward(self, x):
        y = self.e(x.transpose(1, 2))
        out = 0
        for p in (8, 10):
            t = -(-48 // p) * p
            z = F.pad(y, (0, t - 48)).reshape(y.shape[0], 16, t // p, p).contiguous()
            z = torch.stack([F.gelu(c(z)) for c in self.c], -1).mean(-1)
            out = out + z.reshape(y.shape[0], 16, -1)[:, :, :48]
        return self.o((out + y).transpose(1, 2))


@listed(NETWORKS, (1, 48, 7))
class FEDformer(nn.Module):
    """Zhou et al., 2022: a few Fourier modes times complex weights; transforms as products."""

    def __init__(self):
        super().__init__()
        k = torch.arange(8)[:, None] * torch.arange(48) * 2 * math.pi / 48
        self.register_buffer("co", k.cos())
        self.register_buffer("si", k.sin())
        self.wr = nn.Parameter(torch.randn(8, 7, 7) * 0.1)
        self.wi = nn.Parameter(torch.randn(8, 7, 7) * 0.1)

    def forward(self, x):
        r = torch.einsum("btc,mt->bmc", x, self.co)
        i = -torch.einsum("btc,mt->bmc", x, self.si)

        def f(a, w):
            return torch.einsum("bmc,mco->bmo", a, w)

        a, b = (f(r, self.wr) - f(i, self.wi), f(r, self.wi) + f(i, self.wr))
        return (
            torch.einsum("bmo,mt->bto", a, self.co) - torch.einsum("bmo,mt->bto", b, self.si)
        ) / 48


@listed(NETWORKS, (1, 64, 4))
class Informer(nn.Module):
    """Zhou et al., 2021: attention distilled by convolution and pooling between layers."""

    def __init__(self):
        super().__init__()
        self.e = nn.Conv1d(4, 32, 3, padding=1, padding_mode="circular")
        self.a = nn.TransformerEncoderLayer(32, 4, 64, 0.0, "gelu", batch_first=True)
        self.c = nn.Conv1d(32, 32, 3, padding=1, padding_mode="circular")
        self.n = nn.BatchNorm1d(32)
        self.m = nn.MaxPool1d(3, 2, 1)
        self.b = nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True)
        self.o = nn.Linear(1024, 24)

    def forward(self, x):
        y = self.a(self.e(x.permute(0, 2, 1)).transpose(1, 2))
        y = self.m(F.elu(self.n(self.c(y.permute(0, 2, 1))))).transpose(1, 2)
        return self.o(self.b(y).flatten(1)).view(-1, 6, 4)


@listed(NETWORKS, (1, 24, 7), (1, 6, 3))
class TemporalFusion(nn.Module):
    """Lim et al., 2021: gated residuals, an LSTM over past and known future, attention."""

    def __init__(self, d=16):
        super().__init__()
        self.p = nn.Linear(7, d)
        self.f = nn.Linear(3, d)
        self.v = nn.Linear(7 * 1, 7)
        self.e = nn.LSTM(d, d, batch_first=True)
        self.d = nn.LSTM(d, d, batch_first=True)
        self.g = nn.Linear(d, 2 * d)
        self.n = nn.LayerNorm(d)
        self.a = nn.MultiheadAttention(d, 2, batch_first=True)
        self.o = nn.Linear(d, 3)

    def forward(self, x, u):
        x = x * F.softmax(self.v(x), -1)
        a, st = self.e(self.p(x))
        b, _ = self.d(self.f(u), st)
        y = torch.cat((a, b), 1)
        y = self.n(y + F.glu(self.g(F.elu(y)), -1))
        z, w = self.a(y[:, 24:], y, y)
        return (self.o(z + y[:, 24:]), w)


@listed(NETWORKS, (1, 30, 14))
class RemainingLife(nn.Module):
    """Li et al., 2018: turbines; convolutions over time of each sensor alone."""

    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(
            nn.ZeroPad2d((0, 0, 5, 4)),
            nn.Conv2d(1, 10, (10, 1)),
            nn.Tanh(),
            nn.ZeroPad2d((0, 0, 5, 4)),
            nn.Conv2d(10, 10, (10, 1)),
            nn.Tanh(),
            nn.Conv2d(10, 1, (3, 1), padding=(1, 0)),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(420, 32),
            nn.Tanh(),
            nn.Linear(32, 1),
        )

    def forward(self, x):
        return self.f(x.unsqueeze(1))


@listed(NETWORKS, (1, 640))
class AnomalyAutoencoder(nn.Module):
    """MLPerf Tiny (Banbury et al., 2021): ToyADMOS; dense layers with batch norm, the error."""

    def __init__(self):
        super().__init__()

        def d(i, o):
            return [nn.Linear(i, o), nn.BatchNorm1d(o), nn.ReLU()]

        self.f = nn.Sequential(
            *d(640, 64), *d(64, 64), *d(64, 8), *d(8, 64), *d(64, 64), nn.Linear(64, 640)
        )

    def forward(self, x):
        y = self.f(x)
        return (y, (x - y).pow(2).mean(1))


@listed(NETWORKS, (1, 32, 5))
class USAD(nn.Module):
    """Audibert et al., 2020: two decoders of one code, weighed errors."""

    def __init__(self):
        super().__init__()
        self.e = nn.Sequential(nn.Linear(160, 64), nn.ReLU(True), nn.Linear(64, 16), nn.ReLU(True))

        def d():
            return nn.Sequential(nn.Linear(16, 64), nn.ReLU(True), nn.Linear(64, 160), nn.Sigmoid())

        self.a, self.b = (d(), d())

    def forward(self, x):
        w = x.flatten(1)
        a = self.a(self.e(w))
        b = self.b(self.e(a))
        return 0.5 * torch.mean((w - a) ** 2, 1) + 0.5 * torch.mean((w - b) ** 2, 1)


@listed(NETWORKS, (1, 9, 64))
class TinyHAR(nn.Module):
    """Zhou et al., 2022: attention over channels, an LSTM, attention over time."""

    def __init__(self):
        super().__init__()
        self.c = nn.Sequential(
            nn.Conv2d(1, 8, (1, 5), (1, 2)),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, (1, 5), (1, 2)),
            nn.BatchNorm2d(8),
            nn.ReLU(),
        )
        self.q, self.k, self.v = (nn.Linear(8, 8, bias=False) for _ in range(3))
        self.f = nn.Linear(72, 24)
        self.l = nn.LSTM(24, 24, batch_first=True)
        self.w = nn.Linear(24, 1)
        self.g = nn.Parameter(torch.tensor([0.5]))
        self.o = nn.Linear(24, 6)

    def forward(self, x):
        y = self.c(x.unsqueeze(1))
        n, f, c, t = y.shape
        z = y.permute(0, 3, 2, 1).reshape(n * t, c, f)
        a = torch.bmm(self.q(z), self.k(z).transpose(1, 2)).softmax(1)
        z = torch.bmm(self.v(z).transpose(1, 2), a).transpose(1, 2) + z
        y, _ = self.l(F.relu(self.f(z.reshape(n, t, c * f))))
        w = torch.softmax(self.w(torch.tanh(y)), 1)
        return self.o(self.g * (w * y).sum(1) + y[:, -1])


@listed(NETWORKS, (1, 1, 22, 128))
class EEGNet(nn.Module):
    """Lawhern et al., 2018: depthwise over electrodes, separable over time, ELU."""

    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(
            nn.Conv2d(1, 8, (1, 64), padding="same", bias=False),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 16, (22, 1), groups=8, bias=False),
            nn.BatchNorm2d(16),
            nn.ELU(),
            nn.AvgPool2d((1, 4)),
            nn.Conv2d(16, 16, (1, 16), padding="same", groups=16, bias=False),
            nn.Conv2d(16, 16, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ELU(),
            nn.AvgPool2d((1, 8)),
            nn.Flatten(),
            nn.Linear(64, 4),
        )

    def forward(self, x):
        return self.f(x)


@listed(NETWORKS, (1, 1, 22, 128))
class ShallowConvNet(nn.Module):
    """Schirrmeister et al., 2017: squares, means and logarithms: band power."""

    def __init__(self):
        super().__init__()
        self.t = nn.Conv2d(1, 16, (1, 13))
        self.p = nn.Conv2d(16, 16, (22, 1), bias=False)
        self.n = nn.BatchNorm2d(16)
        self.o = nn.Conv2d(16, 4, (1, 6))

    def forward(self, x):
        y = self.n(self.p(self.t(x)))
        y = F.avg_pool2d(y * y, (1, 35), (1, 14))
        return self.o(torch.log(torch.clamp(y, min=1e-06))).squeeze(3).squeeze(2).log_softmax(1)
