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
