"""Text: detection and recognition."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.shared.deployed import Builder
from benchmarks.shared.deployed.blocks import Backbone, FeaturePyramid
from benchmarks.shared.deployed.register import listed

NETWORKS: dict[str, Builder] = {}


@listed(NETWORKS)
class DBNet(nn.Module):
    """Liao et al., 2020: differentiable binarisation."""

    def __init__(self):
        super().__init__()
        self.b = Backbone()
        self.f = FeaturePyramid()
        self.r = nn.ModuleList(nn.Conv2d(16, 8, 3, 1, 1) for _ in range(3))

        def h():
            return nn.Sequential(
                nn.Conv2d(24, 8, 3, 1, 1, bias=False),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                nn.ConvTranspose2d(8, 8, 2, 2),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                nn.ConvTranspose2d(8, 1, 2, 2),
                nn.Sigmoid(),
            )

        self.p = h()
        self.t = h()

    def forward(self, x):
        fs = self.f(self.b(x))
        y = torch.cat(
            [
                F.interpolate(r(f), scale_factor=2**i, mode="nearest")
                for i, (r, f) in enumerate(zip(self.r, fs, strict=False))
            ],
            1,
        )
        p, t = (self.p(y), self.t(y))
        return torch.cat((p, t, torch.reciprocal(1 + torch.exp(-50 * (p - t)))), 1)


@listed(NETWORKS)
class EAST(nn.Module):
    """Zhou et al., 2017: scores, distances, angle."""

    def __init__(self):
        super().__init__()
        self.b = Backbone()
        self.u = nn.Conv2d(96, 32, 1)
        self.v = nn.Conv2d(48, 16, 3, 1, 1)
        self.sc = nn.Conv2d(16, 1, 1)
        self.ge = nn.Conv2d(16, 4, 1)
        self.an = nn.Conv2d(16, 1, 1)

    def forward(self, x):
        a, b, c = self.b(x)
        y = F.relu(
            self.u(
                torch.cat(
                    (F.interpolate(c, scale_factor=2, mode="bilinear", align_corners=True), b), 1
                )
            )
        )
        y = F.relu(
            self.v(
                torch.cat(
                    (F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=True), a), 1
                )[:, :48]
            )
        )
        return (
            torch.sigmoid(self.sc(y)),
            torch.cat(
                (torch.sigmoid(self.ge(y)) * 64, (torch.sigmoid(self.an(y)) - 0.5) * math.pi), 1
            ),
        )


@listed(NETWORKS, (1, 1, 32, 64))
class TPSSTN(nn.Module):
    """RARE (Shi et al., 2016): thin-plate-spline rectification."""

    def __init__(self, f=10):
        super().__init__()
        self.c = nn.Sequential(
            nn.Conv2d(1, 16, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
        )
        self.l = nn.Linear(32, f * 2)
        h = f // 2
        top = torch.stack((torch.linspace(-1, 1, h), -torch.ones(h)), 1)
        bot = torch.stack((torch.linspace(-1, 1, h), torch.ones(h)), 1)
        C = torch.cat((top, bot))
        self.l.bias.data = C.flatten().clone()
        self.l.weight.data *= 0.1
        d = torch.cdist(C, C)
        d.fill_diagonal_(1)
        hc = d**2 * torch.log(d)
        D = torch.cat(
            (
                torch.cat((torch.ones(f, 1), C, hc), 1),
                torch.cat((torch.zeros(2, 3), C.t()), 1),
                torch.cat((torch.zeros(1, 3), torch.ones(1, f)), 1),
            )
        )
        self.register_buffer("inv", torch.inverse(D))
        W, H = (32, 16)
        gx = (torch.arange(-W, W, 2) + 1.0) / W
        gy = (torch.arange(-H, H, 2) + 1.0) / H
        P = torch.stack(torch.meshgrid(gx, gy, indexing="xy"), 2).reshape(-1, 2)
        r = torch.norm(P[:, None] - C[None], dim=2)
        rb = r**2 * torch.log(r + 1e-06)
        self.register_buffer("ph", torch.cat((torch.ones(P.shape[0], 1), P, rb), 1))
        self.r = nn.Conv2d(1, 8, 3, 1, 1)
        self.f = f

    def forward(self, x):
        b = x.size(0)
        cp = self.l(self.c(x).view(b, -1)).view(b, self.f, 2)
        z = torch.cat((cp, torch.zeros(b, 3, 2)), 1)
        T = torch.bmm(self.inv.repeat(b, 1, 1), z)
        g = torch.bmm(self.ph.repeat(b, 1, 1), T).reshape(b, 16, 32, 2)
        return self.r(F.grid_sample(x, g, padding_mode="border", align_corners=True))


@listed(NETWORKS, (1, 1, 32, 64))
class CRNN(nn.Module):
    """Shi et al., 2015: bidirectional LSTM over columns, CTC scores."""

    def __init__(self, n=40, rnn=nn.LSTM):
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 32, 3, 1, 1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2, 2),
            nn.Conv2d(32, 64, 3, 1, 1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(2, 2),
            nn.Conv2d(64, 64, 3, 1, 1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d((2, 1)),
            nn.Conv2d(64, 64, (4, 1)),
            nn.BatchNorm2d(64),
            nn.ReLU(),
        )
        self.rnn = rnn(64, 48, 2, bidirectional=True)
        self.fc = nn.Linear(96, n)

    def forward(self, x):
        x = self.cnn(x)
        _b, _c, h, _w = x.size()
        assert h == 1
        x = x.squeeze(2).permute(2, 0, 1)
        y, _ = self.rnn(x)
        return F.log_softmax(self.fc(y), 2)
