"""Faces: detection, landmarks, embeddings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.shared.deployed import Builder
from benchmarks.shared.deployed.blocks import Backbone, FeaturePyramid
from benchmarks.shared.deployed.register import listed

NETWORKS: dict[str, Builder] = {}


class Blaze(nn.Module):
    def __init__(self, i, o, st=1):
        super().__init__()
        self.st = st
        self.cp = o - i
        self.c = nn.Sequential(
            nn.Conv2d(i, i, 3 if st == 2 else 5, st, 0 if st == 2 else 2, groups=i),
            nn.Conv2d(i, o, 1),
        )
        self.mp = nn.MaxPool2d(2, 2)

    def forward(self, x):
        if self.st == 2:
            h = F.pad(x, (0, 2, 0, 2))
            x = self.mp(x)
        else:
            h = x
        if self.cp > 0:
            x = F.pad(x, (0, 0, 0, 0, 0, self.cp))
        return F.relu(self.c(h) + x)


@listed(NETWORKS)
class BlazeFace(nn.Module):
    """Bazarevsky et al., 2019: boxes written in place."""

    def __init__(self):
        super().__init__()
        self.b = nn.Sequential(
            nn.Conv2d(3, 16, 5, 2, 0),
            nn.ReLU(),
            Blaze(16, 16),
            Blaze(16, 24, 2),
            Blaze(24, 28),
            Blaze(28, 32, 2),
        )
        self.c = nn.Conv2d(32, 2, 1)
        self.r = nn.Conv2d(32, 32, 1)
        a = torch.rand(128, 4)
        self.register_buffer("anchors", a)

    def forward(self, x):
        x = self.b(F.pad(x, (1, 2, 1, 2), "constant", 0))
        b = x.shape[0]
        c = self.c(x).permute(0, 2, 3, 1).reshape(b, -1, 1).clamp(-100, 100).sigmoid()
        r = self.r(x).permute(0, 2, 3, 1).reshape(b, -1, 16)
        A = self.anchors
        cx = r[..., 0] / 128 * A[:, 2] + A[:, 0]
        cy = r[..., 1] / 128 * A[:, 3] + A[:, 1]
        w = r[..., 2] / 128 * A[:, 2]
        h = r[..., 3] / 128 * A[:, 3]
        bx = torch.zeros_like(r)
        bx[..., 0] = cy - h / 2
        bx[..., 1] = cx - w / 2
        bx[..., 2] = cy + h / 2
        bx[..., 3] = cx + w / 2
        for k in range(6):
            o = 4 + k * 2
            bx[..., o] = r[..., o] / 128 * A[:, 2] + A[:, 0]
            bx[..., o + 1] = r[..., o + 1] / 128 * A[:, 3] + A[:, 1]
        return (bx, c.squeeze(-1))


@listed(NETWORKS)
class RetinaFace(nn.Module):
    """Deng et al., 2020: SSH context modules, landmarks."""

    def __init__(self):
        super().__init__()
        self.b = Backbone()
        self.f = FeaturePyramid()
        self.c3 = nn.Conv2d(16, 8, 3, 1, 1)
        self.c5 = nn.Conv2d(8, 4, 3, 1, 1)
        self.c7 = nn.Sequential(nn.Conv2d(4, 4, 3, 1, 1), nn.LeakyReLU(0))
        self.b_ = nn.ModuleList(nn.Conv2d(16, 2 * 4, 1) for _ in range(3))
        self.c_ = nn.ModuleList(nn.Conv2d(16, 2 * 2, 1) for _ in range(3))
        self.l_ = nn.ModuleList(nn.Conv2d(16, 2 * 10, 1) for _ in range(3))
        self.c7b = nn.Conv2d(4, 4, 3, 1, 1)

    def forward(self, x):
        fs = []
        for f in self.f(self.b(x)):
            a = self.c3(f)
            b = self.c5(a)
            fs.append(F.relu(torch.cat([a, b, self.c7b(self.c7(b))], 1)))

        def g(ms, k):
            return torch.cat(
                [
                    m(f).permute(0, 2, 3, 1).contiguous().view(f.shape[0], -1, k)
                    for m, f in zip(ms, fs, strict=False)
                ],
                1,
            )

        return (g(self.b_, 4), F.softmax(g(self.c_, 2), -1), g(self.l_, 10))


@listed(NETWORKS, (1, 3, 56, 56))
class ArcFace(nn.Module):
    """Deng et al., 2019 (iresnet): normalised embedding and its length."""

    def __init__(self):
        super().__init__()
        self.i = nn.Sequential(
            nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.PReLU(16)
        )
        self.b = nn.Sequential(
            nn.BatchNorm2d(16),
            nn.Conv2d(16, 32, 3, 1, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.PReLU(32),
            nn.Conv2d(32, 32, 3, 4, 1, bias=False),
            nn.BatchNorm2d(32),
        )
        self.sc = nn.Sequential(nn.Conv2d(16, 32, 1, 4, bias=False), nn.BatchNorm2d(32))
        self.o = nn.Sequential(
            nn.BatchNorm2d(32),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(32 * 14 * 14, 64),
            nn.BatchNorm1d(64),
        )

    def forward(self, x):
        x = self.i(x)
        x = self.b(x) + self.sc(x)
        x = self.o(x)
        n = torch.norm(x, 2, 1, True)
        return (torch.div(x, n), n)
