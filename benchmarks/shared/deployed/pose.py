"""Poses: heat maps, coordinates, hands."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.shared.deployed import Builder
from benchmarks.shared.deployed.blocks import Backbone, Residual, conv_bn_act
from benchmarks.shared.deployed.register import listed

NETWORKS: dict[str, Builder] = {}


class HourglassLevel(nn.Module):
    def __init__(self, n, c):
        super().__init__()
        self.u = Residual(c, c)
        self.l = Residual(c, c)
        self.m = HourglassLevel(n - 1, c) if n > 1 else Residual(c, c)
        self.v = Residual(c, c)

    def forward(self, x):
        return self.u(x) + F.interpolate(
            self.v(self.m(self.l(F.max_pool2d(x, 2, 2)))), scale_factor=2, mode="nearest"
        )


@listed(NETWORKS)
class HRNet(nn.Module):
    """Sun et al., 2019: two resolutions that exchange."""

    def __init__(self):
        super().__init__()
        self.s = nn.Sequential(
            conv_bn_act(3, 16, 3, 2, act=nn.ReLU), conv_bn_act(16, 16, 3, 2, act=nn.ReLU)
        )
        self.t = conv_bn_act(16, 32, 3, 2, act=nn.ReLU)
        self.a = Residual(16, 16)
        self.b = Residual(32, 32)
        self.f21 = nn.Sequential(
            nn.Conv2d(32, 16, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.Upsample(scale_factor=2, mode="nearest"),
        )
        self.f12 = nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32))
        self.o = nn.Conv2d(48, 17, 1)

    def forward(self, x):
        a = self.s(x)
        b = self.t(a)
        a, b = (self.a(a), self.b(b))
        a, b = (F.relu(a + self.f21(b)), F.relu(b + self.f12(a)))
        return self.o(
            torch.cat(
                [a, F.interpolate(b, size=a.shape[-2:], mode="bilinear", align_corners=False)], 1
            )
        )


@listed(NETWORKS)
class Hourglass(nn.Module):
    """Newell et al., 2016: stacked hourglasses, intermediate maps."""

    def __init__(self):
        super().__init__()
        self.p = nn.Sequential(
            nn.Conv2d(3, 16, 7, 2, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.h = nn.ModuleList(HourglassLevel(2, 16) for _ in range(2))
        self.o = nn.ModuleList(nn.Conv2d(16, 4, 1) for _ in range(2))
        self.r = nn.Conv2d(4, 16, 1)
        self.q = nn.Conv2d(16, 16, 1)

    def forward(self, x):
        x = self.p(x)
        o = []
        for i in range(2):
            y = self.h[i](x)
            z = self.o[i](y)
            o.append(z)
            if i == 0:
                x = x + self.r(z) + self.q(y)
        return torch.stack(o, 1)


@listed(NETWORKS)
class SimCC(nn.Module):
    """Li et al., 2022 (RTMPose): coordinates as classes, decoded."""

    def __init__(self, k=5):
        super().__init__()
        self.b = Backbone()
        self.f = nn.Conv2d(64, k, 1)
        self.m = nn.Linear(16, 32)
        self.x = nn.Linear(32, 128)
        self.y = nn.Linear(32, 128)

    def forward(self, x):
        f = self.m(self.f(self.b(x)[2]).flatten(2))
        px = F.softmax(self.x(f) * 10, 2)
        py = F.softmax(self.y(f) * 10, 2)
        t = torch.linspace(0, 127, 128)
        return (torch.stack(((px * t).sum(-1) / 2, (py * t).sum(-1) / 2), -1), torch.max(px, 2)[1])


@listed(NETWORKS)
class IntegralPose(nn.Module):
    """Sun et al., 2018: soft-argmax of heat maps."""

    def __init__(self, k=5):
        super().__init__()
        self.b = Backbone()
        self.u = nn.ConvTranspose2d(64, 16, 4, 2, 1)
        self.o = nn.Conv2d(16, k, 1)

    def forward(self, x):
        h = self.o(F.relu(self.u(self.b(x)[2])))
        n, k, H, W = h.shape
        p = F.softmax(h.reshape(n, k, -1), 2).reshape(n, k, H, W)
        ax = p.sum(2) @ torch.arange(W).float()
        ay = torch.einsum("nkh,h->nk", p.sum(3), torch.arange(H).float())
        return (torch.stack((ax / W - 0.5, ay / H - 0.5), -1), p.flatten(2).max(2)[0])
