"""Clips."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.shared.deployed import Builder
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
