"""Faces: detection, landmarks, embeddings."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.shared.deployed import Builder
from benchmarks.shared.deployed.blocks import (
    Backbone,
    FeaturePyramid,
    InvertedResidual,
    MobileBackbone,
    conv_bn_act,
)
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


@listed(NETWORKS)
class SCRFD(nn.Module):
    """Guo et al., 2021: distances to sides and landmarks of every anchor point, decoded."""

    def __init__(self):
        super().__init__()
        self.b = Backbone()
        self.f = FeaturePyramid()
        self.t = nn.Sequential(
            nn.Conv2d(16, 16, 3, 1, 1, bias=False), nn.GroupNorm(4, 16), nn.ReLU()
        )
        self.c = nn.Conv2d(16, 1, 1)
        self.r = nn.Conv2d(16, 4, 1)
        self.k = nn.Conv2d(16, 10, 1)
        self.sc = nn.Parameter(torch.ones(3))

    def forward(self, x):
        out = []
        for i, (f, st) in enumerate(zip(self.f(self.b(x)), (4, 8, 16), strict=False)):
            t = self.t(f)
            n, _, h, w = t.shape
            ys, xs = torch.meshgrid(
                torch.arange(h) * float(st), torch.arange(w) * float(st), indexing="ij"
            )
            p = torch.stack((xs, ys), -1).view(1, -1, 2)
            d = (self.r(t) * self.sc[i]).permute(0, 2, 3, 1).reshape(n, -1, 4) * st
            k = self.k(t).permute(0, 2, 3, 1).reshape(n, -1, 5, 2) * st + p.unsqueeze(2)
            out.append(
                torch.cat(
                    (
                        p - d[..., :2],
                        p + d[..., 2:],
                        self.c(t).permute(0, 2, 3, 1).reshape(n, -1, 1).sigmoid(),
                        k.flatten(2),
                    ),
                    -1,
                )
            )
        return torch.cat(out, 1)


@listed(NETWORKS)
class YuNet(nn.Module):
    """Wu et al., 2023: depthwise units, score as root of class times objectness."""

    def __init__(self):
        super().__init__()

        def u(i, o):
            return nn.Sequential(
                nn.Conv2d(i, o, 1),
                nn.Conv2d(o, o, 3, 1, 1, groups=o, bias=False),
                nn.BatchNorm2d(o),
                nn.ReLU(),
            )

        self.a = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), u(16, 32)
        )
        self.b = nn.Sequential(nn.MaxPool2d(2), u(32, 32))
        self.h = nn.ModuleList(u(32, 16) for _ in range(2))
        self.o = nn.ModuleList(nn.Conv2d(16, 16, 1) for _ in range(2))

    def forward(self, x):
        a = self.a(x)
        b = self.b(a)
        a = a + F.interpolate(b, scale_factor=2.0, mode="nearest")
        y = torch.cat(
            [
                o(h(f)).permute(0, 2, 3, 1).flatten(1, 2)
                for o, h, f in zip(self.o, self.h, (a, b), strict=False)
            ],
            1,
        )
        c, ob, bx, k = y.split((1, 1, 4, 10), 2)
        return (
            torch.sqrt(c.sigmoid() * ob.sigmoid()),
            torch.cat((bx[..., :2], bx[..., 2:].exp()), -1),
            k,
        )


@listed(NETWORKS)
class MTCNNProposal(nn.Module):
    """Zhang et al., 2016: P-Net, fully convolutional, ceiling of pooling, PReLU."""

    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(
            nn.Conv2d(3, 10, 3),
            nn.PReLU(10),
            nn.MaxPool2d(2, 2, ceil_mode=True),
            nn.Conv2d(10, 16, 3),
            nn.PReLU(16),
            nn.Conv2d(16, 32, 3),
            nn.PReLU(32),
        )
        self.c = nn.Conv2d(32, 2, 1)
        self.r = nn.Conv2d(32, 4, 1)

    def forward(self, x):
        f = self.f(x)
        return (self.r(f), F.softmax(self.c(f), 1))


@listed(NETWORKS, (1, 3, 48, 48))
class MTCNNOutput(nn.Module):
    """Zhang et al., 2016: O-Net, flattened with width and height exchanged."""

    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(
            nn.Conv2d(3, 16, 3),
            nn.PReLU(16),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(16, 32, 3),
            nn.PReLU(32),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(32, 32, 2),
            nn.PReLU(32),
        )
        self.d = nn.Linear(32 * 9 * 9, 32)
        self.p = nn.PReLU(32)
        self.c = nn.Linear(32, 2)
        self.r = nn.Linear(32, 4)
        self.k = nn.Linear(32, 10)

    def forward(self, x):
        x = self.f(x).permute(0, 3, 2, 1).contiguous()
        x = self.p(self.d(x.view(x.shape[0], -1)))
        return (self.r(x), self.k(x), F.softmax(self.c(x), dim=1))


@listed(NETWORKS, (1, 3, 56, 48))
class MobileFaceNet(nn.Module):
    """Chen et al., 2018: global depthwise convolution, PReLU."""

    def __init__(self):
        super().__init__()

        def p():
            return nn.PReLU()

        self.b = nn.Sequential(
            conv_bn_act(3, 16, 3, 2, act=p),
            conv_bn_act(16, 16, 3, 1, 16, act=p),
            InvertedResidual(16, 24, 2, 2, act=p),
            InvertedResidual(24, 24, 2, 1, act=p),
            conv_bn_act(24, 64, 1, act=p),
        )
        self.g = nn.Conv2d(64, 64, (14, 12), groups=64, bias=False)
        self.n = nn.BatchNorm2d(64)
        self.l = nn.Linear(64, 32, bias=False)
        self.m = nn.BatchNorm1d(32)

    def forward(self, x):
        return F.normalize(self.m(self.l(self.n(self.g(self.b(x))).flatten(1))))


@listed(NETWORKS)
class FaceNet(nn.Module):
    """Schroff et al., 2015, on Inception-ResNet: scaled residuals, L2 embedding."""

    def __init__(self):
        super().__init__()
        r = nn.ReLU
        self.a = nn.Sequential(conv_bn_act(3, 16, 3, 2, act=r), conv_bn_act(16, 32, 3, 2, act=r))
        self.p = conv_bn_act(32, 8, 1, act=r)
        self.q = nn.Sequential(conv_bn_act(32, 8, 1, act=r), conv_bn_act(8, 8, act=r))
        self.t = nn.Sequential(
            conv_bn_act(32, 8, 1, act=r),
            nn.Conv2d(8, 8, (1, 7), padding=(0, 3)),
            nn.Conv2d(8, 8, (7, 1), padding=(3, 0)),
        )
        self.u = nn.Conv2d(24, 32, 1)
        self.l = nn.Linear(32, 16, bias=False)
        self.n = nn.BatchNorm1d(16, eps=0.001)

    def forward(self, x):
        x = self.a(x)
        x = F.relu(self.u(torch.cat((self.p(x), self.q(x), self.t(x)), 1)) * 0.17 + x)
        return F.normalize(
            self.n(self.l(F.adaptive_avg_pool2d(x, 1).view(x.shape[0], -1))), p=2.0, dim=1
        )


@listed(NETWORKS)
class MagFace(nn.Module):
    """Meng et al., 2021: cosines to class centres, margin by length of the embedding."""

    def __init__(self):
        super().__init__()
        self.b = Backbone(8)
        self.l = nn.Linear(32, 16)
        self.w = nn.Parameter(torch.randn(16, 10))

    def forward(self, x):
        e = self.l(self.b(x)[2].mean((2, 3)))
        n = torch.norm(e, dim=1, keepdim=True).clamp(10, 110)
        c = torch.mm(F.normalize(e), F.normalize(self.w, dim=0)).clamp(-1, 1)
        m = 0.35 / 100 * (n - 10) + 0.45
        return (c * torch.cos(m) - torch.sqrt(1.0 - c.pow(2)) * torch.sin(m), n)


@listed(NETWORKS)
class FaceMesh(nn.Module):
    """Kartynnik et al., 2019: padded channels, PReLU, landmarks and a face flag."""

    def __init__(self):
        super().__init__()
        self.i = nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.PReLU(16))
        self.a = nn.Sequential(
            nn.Conv2d(16, 8, 1),
            nn.PReLU(8),
            nn.Conv2d(8, 8, 3, 1, 1, groups=8),
            nn.Conv2d(8, 16, 1),
        )
        self.p = nn.PReLU(16)
        self.d = nn.Conv2d(16, 32, 2, 2)
        self.q = nn.PReLU(32)
        self.h = nn.Sequential(nn.MaxPool2d(2, 2), nn.Conv2d(32, 48, 8))
        self.f = nn.Sequential(nn.Conv2d(32, 1, 16), nn.Sigmoid())

    def forward(self, x):
        x = self.i(F.pad(x, [0, 1, 0, 1], value=0))
        x = self.p(x + self.a(x))
        x = self.q(self.d(x) + F.pad(F.max_pool2d(x, 2), [0, 0, 0, 0, 0, 16]))
        return (self.h(x).reshape(-1, 16, 3), self.f(x).reshape(-1, 1))


@listed(NETWORKS, (1, 3, 64, 64))
class PFLD(nn.Module):
    """Guo et al., 2019: landmarks of three scales, an auxiliary pose."""

    def __init__(self):
        super().__init__()
        self.b = MobileBackbone()
        self.c = conv_bn_act(64, 64, 4, act=nn.ReLU)
        self.o = nn.Linear(96 + 36, 20)
        self.x = nn.Linear(32, 3)
        self.d = nn.Conv2d(64, 36, 4)

    def forward(self, x):
        _, b, c = self.b(x)
        a, d = (b.mean((2, 3)), F.avg_pool2d(c, c.size(2)).view(c.size(0), -1))
        return (self.x(a), self.o(torch.cat([a, d, self.d(c).flatten(1)], 1)))


@listed(NETWORKS)
class FANAlignment(nn.Module):
    """Bulat and Tzimiropoulos, 2017: batch norm in front, local soft-argmax."""

    def __init__(self):
        super().__init__()
        self.i = conv_bn_act(3, 16, 7, 2, act=nn.ReLU)
        self.n = nn.ModuleList(nn.BatchNorm2d(c) for c in (16, 8, 4))
        self.c = nn.ModuleList(
            (
                nn.Conv2d(16, 8, 3, 1, 1, bias=False),
                nn.Conv2d(8, 4, 3, 1, 1, bias=False),
                nn.Conv2d(4, 4, 3, 1, 1, bias=False),
            )
        )
        self.o = nn.Conv2d(16, 5, 1)

    def forward(self, x):
        x = self.i(x)
        a = self.c[0](F.relu(self.n[0](x), True))
        b = self.c[1](F.relu(self.n[1](a)))
        c = self.c[2](F.relu(self.n[2](b)))
        y = self.o(torch.cat((a, b, c), 1) + x)
        h = y.relu() ** 2
        _n, _k, H, W = h.shape
        m = h.sum((2, 3)) + 1e-06
        return (
            y,
            torch.stack(
                ((h.sum(2) * torch.arange(W)).sum(2) / m, (h.sum(3) * torch.arange(H)).sum(2) / m),
                2,
            ),
        )


@listed(NETWORKS, (1, 3, 64, 64))
class SSRNet(nn.Module):
    """Yang et al., 2018: age by stages of soft regression."""

    def __init__(self):
        super().__init__()

        def f(a, p):
            return nn.Sequential(
                nn.Conv2d(3, 16, 3, 2, 1),
                nn.BatchNorm2d(16),
                a,
                p(2),
                nn.Conv2d(16, 16, 3, 1, 1),
                nn.BatchNorm2d(16),
                a,
                p(2),
            )

        self.a = f(nn.ReLU(), nn.AvgPool2d)
        self.b = f(nn.Tanh(), nn.MaxPool2d)
        self.p = nn.Linear(1024, 3)
        self.d = nn.Linear(1024, 1)
        self.l = nn.Linear(1024, 3)

    def forward(self, x):
        y = (self.a(x) * self.b(x)).flatten(1)
        p, d, e = (F.softmax(self.p(y), 1), torch.tanh(self.d(y)), torch.tanh(self.l(y)))
        i = torch.arange(3)
        return ((p * (i + e)).sum(1, keepdim=True) / (3 * (1 + d)) * 101).squeeze(1)


@listed(NETWORKS)
class CDCN(nn.Module):
    """Yu et al., 2020: central difference convolutions against spoofing."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 16, 3, 2, 1, bias=False)
        self.n = nn.BatchNorm2d(16)
        self.b = nn.Conv2d(16, 8, 3, 1, 1, bias=False)
        self.o = nn.Conv2d(8, 1, 3, 1, 1)

    def cd(self, m, x, t):
        k = m.weight.sum(2).sum(2)[:, :, None, None]
        return m(x) - t * F.conv2d(x, k, stride=m.stride)

    def forward(self, x):
        y = F.relu(self.n(self.cd(self.a, x, 0.7)))
        y = F.relu(self.cd(self.b, y, 0.7))
        d = F.relu(self.o(y)).squeeze(1)
        return (d, d.mean((1, 2)))


@listed(NETWORKS, (1, 3, 32, 64))
class GazeNet(nn.Module):
    """Park et al., 2018: eye maps, gaze by angles turned into a vector."""

    def __init__(self):
        super().__init__()
        self.b = Backbone(8)
        self.f = nn.Linear(32, 2)

    def forward(self, x):
        a = torch.tanh(self.f(self.b(x)[2].amax((2, 3)))) * (math.pi / 2)
        p, y = a.unbind(1)
        return (
            a,
            torch.stack(
                (-torch.cos(p) * torch.sin(y), -torch.sin(p), -torch.cos(p) * torch.cos(y)), 1
            ),
        )
