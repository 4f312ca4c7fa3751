"""Clips."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.shared.deployed import Builder
from benchmarks.shared.deployed.blocks import Backbone, Residual, conv_bn_relu_1d
from benchmarks.shared.deployed.register import listed

NETWORKS: dict[str, Builder] = {}


V = (1, 3, 8, 24, 24)


@listed(NETWORKS, V)
class C3D(nn.Module):
    """Tran et al., 2015."""

    def __init__(self):
        super().__init__()
        self.m = nn.Sequential(
            nn.Conv3d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool3d((1, 2, 2), (1, 2, 2)),
            nn.Conv3d(8, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool3d(2, 2),
        )
        self.f = nn.Linear(16 * 4 * 36, 10)

    def forward(self, x):
        return self.f(self.m(x).view(x.shape[0], -1))


@listed(NETWORKS, V)
class R2Plus1D(nn.Module):
    """Tran et al., 2018: space and time apart."""

    def __init__(self):
        super().__init__()

        def b(i, o, st):
            return nn.Sequential(
                nn.Conv3d(i, o, (1, 3, 3), (1, st, st), (0, 1, 1), bias=False),
                nn.BatchNorm3d(o),
                nn.ReLU(),
                nn.Conv3d(o, o, (3, 1, 1), (st, 1, 1), (1, 0, 0), bias=False),
                nn.BatchNorm3d(o),
                nn.ReLU(),
            )

        self.a = b(3, 16, 1)
        self.b = b(16, 16, 1)
        self.c = b(16, 32, 2)
        self.f = nn.Linear(32, 5)
        self.p = nn.AdaptiveAvgPool3d(1)

    def forward(self, x):
        y = self.a(x)
        y = y + self.b(y)
        return self.f(self.p(self.c(y)).flatten(1))


@listed(NETWORKS, (8, 3, 24, 24))
class TSM(nn.Module):
    """Lin et al., 2019: shifts along time, clips as batches."""

    def __init__(self):
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.b = nn.Conv2d(16, 16, 3, 1, 1)
        self.f = nn.Linear(16, 5)

    def shift(self, x, n=4, d=8):
        nt, c, h, w = x.size()
        x = x.view(nt // n, n, c, h, w)
        f = c // d
        o = torch.zeros_like(x)
        o[:, :-1, :f] = x[:, 1:, :f]
        o[:, 1:, f : 2 * f] = x[:, :-1, f : 2 * f]
        o[:, :, 2 * f :] = x[:, :, 2 * f :]
        return o.view(nt, c, h, w)

    def forward(self, x):
        y = self.a(x)
        y = y + F.relu(self.b(self.shift(y)))
        y = self.f(y.mean((2, 3)))
        return y.view(-1, 4, 5).mean(1)


@listed(NETWORKS, V)
class X3D(nn.Module):
    """Feichtenhofer, 2020: depthwise 3-D convolutions, squeeze and excite."""

    def __init__(self):
        super().__init__()
        self.s = nn.Sequential(
            nn.Conv3d(3, 12, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False),
            nn.Conv3d(12, 12, (5, 1, 1), padding=(2, 0, 0), groups=12, bias=False),
            nn.BatchNorm3d(12),
            nn.ReLU(),
        )
        self.e = nn.Sequential(nn.Conv3d(12, 24, 1, bias=False), nn.BatchNorm3d(24), nn.ReLU())
        self.d = nn.Sequential(
            nn.Conv3d(24, 24, 3, (1, 2, 2), 1, groups=24, bias=False), nn.BatchNorm3d(24)
        )
        self.q = nn.AdaptiveAvgPool3d(1)
        self.f1 = nn.Conv3d(24, 8, 1)
        self.f2 = nn.Conv3d(8, 24, 1)
        self.p = nn.Conv3d(24, 12, 1, bias=False)
        self.o = nn.Linear(12, 5)

    def forward(self, x):
        y = self.d(self.e(self.s(x)))
        y = y * torch.sigmoid(self.f2(F.relu(self.f1(self.q(y)))))
        y = self.p(y * torch.sigmoid(y))
        return self.o(self.q(y).flatten(1)).softmax(1)


@listed(NETWORKS, V)
class SlowFast(nn.Module):
    """Feichtenhofer et al., 2019: two frame rates, lateral connections."""

    def __init__(self):
        super().__init__()
        self.sl = nn.Conv3d(3, 16, (1, 5, 5), (1, 2, 2), (0, 2, 2))
        self.fa = nn.Conv3d(3, 4, (5, 5, 5), (1, 2, 2), (2, 2, 2))
        self.la = nn.Conv3d(4, 8, (5, 1, 1), (4, 1, 1), (2, 0, 0))
        self.s2 = nn.Conv3d(24, 24, (1, 3, 3), padding=(0, 1, 1))
        self.f2 = nn.Conv3d(4, 8, (3, 1, 1), padding=(1, 0, 0))
        self.o = nn.Linear(32, 5)

    def forward(self, x):
        sl = x[:, :, ::4]
        a = F.relu(self.sl(sl))
        f = F.relu(self.fa(x))
        a = torch.cat((a, self.la(f)), 1)
        a = F.relu(self.s2(a))
        f = F.relu(self.f2(f))
        return self.o(torch.cat((a.mean((2, 3, 4)), f.mean(dim=[2, 3, 4])), 1))


@listed(NETWORKS, (1, 3, 8, 24, 24))
class R3D(nn.Module):
    """Hara et al., 2018: 3-D residual blocks, shortcut padded with zeros."""

    def __init__(self):
        super().__init__()
        self.i = nn.Sequential(
            nn.Conv3d(3, 16, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False),
            nn.BatchNorm3d(16),
            nn.ReLU(),
            nn.MaxPool3d(3, 2, 1),
        )
        self.a = nn.Sequential(
            nn.Conv3d(16, 32, 3, 2, 1, bias=False),
            nn.BatchNorm3d(32),
            nn.ReLU(),
            nn.Conv3d(32, 32, 3, 1, 1, bias=False),
            nn.BatchNorm3d(32),
        )
        self.o = nn.Linear(32, 5)

    def forward(self, x):
        x = self.i(x)
        k = F.avg_pool3d(x, 1, 2)
        x = F.relu(self.a(x) + torch.cat((k, torch.zeros_like(k)), 1))
        return self.o(F.adaptive_avg_pool3d(x, 1).view(x.size(0), -1))


@listed(NETWORKS, (1, 3, 8, 24, 24))
class I3D(nn.Module):
    """Carreira and Zisserman, 2017: inflated inception, logits averaged over time."""

    def __init__(self):
        super().__init__()

        def u(i, o, k):
            return nn.Sequential(
                nn.Conv3d(i, o, k, padding=k // 2, bias=False),
                nn.BatchNorm3d(o, eps=0.001),
                nn.ReLU(),
            )

        self.i = nn.Sequential(
            nn.Conv3d(3, 16, 7, 2, 3, bias=False),
            nn.BatchNorm3d(16),
            nn.ReLU(),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        )
        self.a = u(16, 8, 1)
        self.b = nn.Sequential(u(16, 8, 1), u(8, 16, 3))
        self.c = nn.Sequential(nn.MaxPool3d(3, 1, 1), u(16, 8, 1))
        self.o = nn.Conv3d(32, 5, 1)

    def forward(self, x):
        x = self.i(x)
        x = torch.cat((self.a(x), self.b(x), self.c(x)), 1)
        x = self.o(F.avg_pool3d(x, (2, 6, 6), 1))
        return x.squeeze(3).squeeze(3).mean(2)


@listed(NETWORKS, (1, 3, 8, 24, 24))
class S3D(nn.Module):
    """Xie et al., 2018: separable 3-D convolutions with feature gating."""

    def __init__(self):
        super().__init__()

        def u(i, o, st):
            return nn.Sequential(
                nn.Conv3d(i, o, (1, 3, 3), (1, st, st), (0, 1, 1), bias=False),
                nn.BatchNorm3d(o),
                nn.ReLU(),
                nn.Conv3d(o, o, (3, 1, 1), padding=(1, 0, 0), bias=False),
                nn.BatchNorm3d(o),
                nn.ReLU(),
            )

        self.a = u(3, 16, 2)
        self.b = u(16, 32, 2)
        self.g = nn.Linear(32, 32)
        self.o = nn.Linear(32, 5)

    def forward(self, x):
        x = self.b(self.a(x))
        x = x * torch.sigmoid(self.g(x.mean((2, 3, 4))))[:, :, None, None, None]
        return self.o(x.mean((2, 3, 4)))


@listed(NETWORKS, (1, 8, 3, 24, 24))
class TSN(nn.Module):
    """Wang et al., 2016: frames one by one, consensus by the mean."""

    def __init__(self):
        super().__init__()
        self.b = Backbone(8)
        self.o = nn.Linear(32, 5)

    def forward(self, x):
        n, t = x.shape[:2]
        f = self.b(x.reshape(n * t, *x.shape[2:]))[2].mean((2, 3))
        return self.o(f).view(n, t, -1).mean(1)


@listed(NETWORKS, (1, 6, 3, 24, 24))
class CNNLSTM(nn.Module):
    """Donahue et al., 2015: features of frames into an LSTM."""

    def __init__(self):
        super().__init__()
        self.b = Backbone(8)
        self.l = nn.LSTM(32, 16, batch_first=True)
        self.o = nn.Linear(16, 5)

    def forward(self, x):
        n, t, c, h, w = x.size()
        f = F.adaptive_avg_pool2d(self.b(x.view(n * t, c, h, w))[2], 1).view(n, t, -1)
        y, _ = self.l(f)
        return self.o(y[:, -1])


@listed(NETWORKS, (1, 4, 3, 16, 16))
class ConvLSTM(nn.Module):
    """Shi et al., 2015: a recurrent convolution, four steps, the next frame."""

    def __init__(self):
        super().__init__()
        self.g = nn.Conv2d(11, 32, 3, 1, 1)
        self.o = nn.Conv2d(8, 3, 1)

    def forward(self, x):
        n = x.shape[0]
        h = torch.zeros(n, 8, 16, 16)
        c = torch.zeros(n, 8, 16, 16)
        for t in range(4):
            i, f, o, g = torch.chunk(self.g(torch.cat((x[:, t], h), 1)), 4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return torch.sigmoid(self.o(h))


@listed(NETWORKS, (1, 3, 16, 16), (1, 8, 16, 16))
class ConvGRUStream(nn.Module):
    """RVM (Lin et al., 2021): mattes of a stream, the state goes in and out."""

    def __init__(self):
        super().__init__()
        self.i = nn.Conv2d(3, 8, 3, 1, 1)
        self.g = nn.Conv2d(16, 16, 3, 1, 1)
        self.h = nn.Conv2d(16, 8, 3, 1, 1)
        self.o = nn.Conv2d(8, 4, 1)

    def forward(self, x, h):
        f = F.hardswish(self.i(x))
        r, z = self.g(torch.cat([f, h], 1)).sigmoid().split(8, 1)
        c = self.h(torch.cat([f, r * h], 1)).tanh()
        h = (1 - z) * h + z * c
        y = self.o(h)
        return ((y[:, :3] + x).clamp(0, 1), y[:, 3:].clamp(0, 1), h)


@listed(NETWORKS, (1, 3, 4, 32, 32))
class TimeSformer(nn.Module):
    """Bertasius et al., 2021: attention over time, then over space."""

    def __init__(self):
        super().__init__()
        self.e = nn.Conv2d(3, 32, 8, 8)
        self.p = nn.Parameter(torch.zeros(1, 16, 32))
        self.q = nn.Parameter(torch.zeros(1, 4, 32))
        self.t = nn.MultiheadAttention(32, 4, batch_first=True)
        self.a = nn.MultiheadAttention(32, 4, batch_first=True)
        self.n = nn.ModuleList(nn.LayerNorm(32) for _ in range(3))
        self.o = nn.Linear(32, 5)

    def forward(self, x):
        n, c, t, h, w = x.shape
        y = self.e(x.transpose(1, 2).reshape(n * t, c, h, w)).flatten(2).transpose(1, 2) + self.p
        y = y.reshape(n, t, 16, 32).transpose(1, 2).reshape(n * 16, t, 32) + self.q
        z = self.n[0](y)
        y = y + self.t(z, z, z, need_weights=False)[0]
        y = y.reshape(n, 16, t, 32).transpose(1, 2).reshape(n * t, 16, 32)
        z = self.n[1](y)
        y = y + self.a(z, z, z, need_weights=False)[0]
        return self.o(self.n[2](y).reshape(n, t * 16, 32).mean(1))


@listed(NETWORKS, (1, 3, 4, 32, 32))
class ViViT(nn.Module):
    """Arnab et al., 2021: tubelets, joint attention, a class token."""

    def __init__(self):
        super().__init__()
        self.e = nn.Conv3d(3, 32, (2, 8, 8), (2, 8, 8))
        self.c = nn.Parameter(torch.randn(1, 1, 32))
        self.p = nn.Parameter(torch.randn(1, 33, 32) * 0.02)
        self.t = nn.TransformerEncoderLayer(
            32, 4, 64, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.o = nn.Linear(32, 5)

    def forward(self, x):
        y = self.e(x).flatten(2).transpose(1, 2)
        y = torch.cat((self.c.repeat(x.size(0), 1, 1), y), 1) + self.p
        return self.o(self.t(y)[:, 0])


@listed(NETWORKS, (1, 3, 8, 16, 16))
class MoViNetStream(nn.Module):
    """Kondratyuk et al., 2021: causal padding in time, squeeze by running means."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv3d(3, 12, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        self.d = nn.Conv3d(12, 12, (5, 3, 3), padding=(0, 1, 1), groups=12, bias=False)
        self.n = nn.BatchNorm3d(12)
        self.e = nn.Conv3d(12, 12, 1)
        self.o = nn.Linear(12, 5)

    def forward(self, x):
        x = F.hardswish(self.a(x))
        y = F.hardswish(self.n(self.d(F.pad(x, (0, 0, 0, 0, 4, 0)))))
        m = torch.cumsum(y.mean((3, 4), keepdim=True), 2) / torch.arange(1, 9).view(1, 1, 8, 1, 1)
        return self.o((y * torch.sigmoid(self.e(m))).mean((2, 3, 4)))


@listed(NETWORKS, (1, 3, 8, 16, 16))
class NonLocal(nn.Module):
    """Wang et al., 2018: every place of a clip reads every other, keys pooled."""

    def __init__(self):
        super().__init__()
        self.i = nn.Conv3d(3, 16, 3, (1, 2, 2), 1)
        self.t = nn.Conv3d(16, 8, 1)
        self.p = nn.Conv3d(16, 8, 1)
        self.g = nn.Conv3d(16, 8, 1)
        self.w = nn.Sequential(nn.Conv3d(8, 16, 1), nn.BatchNorm3d(16))
        self.m = nn.MaxPool3d((1, 2, 2))
        self.o = nn.Linear(16, 5)

    def forward(self, x):
        x = F.relu(self.i(x))
        n = x.size(0)
        k = self.m(x)
        g = self.g(k).view(n, 8, -1).permute(0, 2, 1)
        f = torch.matmul(self.t(x).view(n, 8, -1).permute(0, 2, 1), self.p(k).view(n, 8, -1))
        y = (
            torch.matmul(F.softmax(f, -1), g)
            .permute(0, 2, 1)
            .contiguous()
            .view(n, 8, *x.size()[2:])
        )
        return self.o((self.w(y) + x).mean((2, 3, 4)))


@listed(NETWORKS, (1, 3, 32, 32), (1, 3, 32, 32))
class IFNet(nn.Module):
    """RIFE (Huang et al., 2022): flows of the frame between, two warps, a mask."""

    def __init__(self):
        super().__init__()
        self.c = nn.Sequential(
            nn.Conv2d(6, 16, 3, 2, 1), nn.PReLU(16), nn.Conv2d(16, 16, 3, 1, 1), nn.PReLU(16)
        )
        self.o = nn.ConvTranspose2d(16, 5, 4, 2, 1)

    def warp(self, x, f):
        n, _, h, w = x.shape
        g = torch.stack(
            torch.meshgrid(torch.linspace(-1, 1, w), torch.linspace(-1, 1, h), indexing="xy")
        )[None].expand(n, -1, -1, -1)
        f = torch.cat((f[:, :1] / ((w - 1) / 2), f[:, 1:] / ((h - 1) / 2)), 1)
        return F.grid_sample(
            x,
            (g + f).permute(0, 2, 3, 1),
            mode="bilinear",
            padding_mode="border",
            align_corners=True,
        )

    def forward(self, a, b):
        y = self.o(self.c(torch.cat((a, b), 1)))
        m = torch.sigmoid(y[:, 4:])
        return (self.warp(a, y[:, :2]) * m + self.warp(b, y[:, 2:4]) * (1 - m), y[:, :4])


@listed(NETWORKS, (1, 1, 12, 32, 32))
class LipReading(nn.Module):
    """Martinez et al., 2020: a 3-D stem, frames by a 2-D trunk, a temporal convolution."""

    def __init__(self):
        super().__init__()
        self.i = nn.Sequential(
            nn.Conv3d(1, 16, (5, 7, 7), (1, 2, 2), (2, 3, 3), bias=False),
            nn.BatchNorm3d(16),
            nn.PReLU(16),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        )
        self.b = Residual(16, 32, 2)
        self.t = conv_bn_relu_1d(32, 32, 3, 1, 2)
        self.o = nn.Linear(32, 10)

    def forward(self, x):
        n = x.shape[0]
        x = self.i(x)
        t = x.shape[2]
        x = x.transpose(1, 2).reshape(n * t, 16, 8, 8)
        x = self.b(x).mean((2, 3)).view(n, t, 32)
        return self.o(self.t(x.transpose(1, 2)).mean(2))
