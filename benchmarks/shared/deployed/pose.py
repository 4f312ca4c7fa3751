"""Poses: heat maps, coordinates, hands."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.shared.deployed import Builder
from benchmarks.shared.deployed.blocks import (
    Backbone,
    C2f,
    CSPBackbone,
    DistributionHead,
    FeaturePyramid,
    MobileBackbone,
    PatchTransformer,
    RepVGG,
    Residual,
    anchor_points,
    conv_bn_act,
)
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


@listed(NETWORKS)
class SimpleBaseline(nn.Module):
    """Xiao et al., 2018: transposed convolutions, heat maps."""

    def __init__(self):
        super().__init__()
        self.b = Backbone()

        def u(i, o):
            return [
                nn.ConvTranspose2d(i, o, 4, 2, 1, bias=False),
                nn.BatchNorm2d(o),
                nn.ReLU(),
            ]

        self.u = nn.Sequential(*u(64, 32), *u(32, 32))
        self.o = nn.Conv2d(32, 17, 1)

    def forward(self, x):
        return self.o(self.u(self.b(x)[2]))


@listed(NETWORKS)
class OpenPose(nn.Module):
    """Cao et al., 2017: affinity fields and heat maps, refined in stages."""

    def __init__(self):
        super().__init__()
        self.b = nn.Sequential(
            nn.Conv2d(3, 16, 3, 1, 1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, 1, 1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )

        def st(i, o, k):
            return nn.Sequential(
                nn.Conv2d(i, 16, k, padding=k // 2),
                nn.ReLU(),
                nn.Conv2d(16, 16, 1),
                nn.ReLU(),
                nn.Conv2d(16, o, 1),
            )

        self.l1, self.s1 = (st(32, 8, 3), st(32, 5, 3))
        self.l2, self.s2 = (st(45, 8, 7), st(45, 5, 7))

    def forward(self, x):
        f = self.b(x)
        a, b = (self.l1(f), self.s1(f))
        z = torch.cat((a, b, f), 1)
        return (self.l2(z), self.s2(z))


@listed(NETWORKS)
class MoveNet(nn.Module):
    """Google, 2021: centre-weighted heat maps, arg-max and gathered offsets."""

    def __init__(self, k=5):
        super().__init__()
        self.b = MobileBackbone()
        self.f = FeaturePyramid()
        self.c = nn.Conv2d(16, 1, 1)
        self.h = nn.Conv2d(16, k, 1)
        self.o = nn.Conv2d(16, 2 * k, 1)
        w = torch.rand(16, 16)
        self.register_buffer("w", w)
        self.k = k

    def forward(self, x):
        f = self.f(self.b(x))[0]
        n, _, h, w = f.shape
        c = (self.c(f).sigmoid()[:, 0] * self.w).view(n, -1).argmax(1)
        cy, cx = (c // w, c % w)
        hm = self.h(f).sigmoid()
        ys = torch.arange(h).view(1, h, 1) - cy.view(n, 1, 1)
        xs = torch.arange(w).view(1, 1, w) - cx.view(n, 1, 1)
        d = (ys**2 + xs**2).float().sqrt() + 1.8
        i = (hm / d.unsqueeze(1)).flatten(2).argmax(2)
        o = (
            self.o(f)
            .view(n, self.k, 2, -1)
            .gather(3, i[:, :, None, None].expand(-1, -1, 2, 1))
            .squeeze(3)
        )
        sc = hm.flatten(2).gather(2, i.unsqueeze(2)).squeeze(2)
        return torch.stack(((i // w + o[:, :, 0]) / h, (i % w + o[:, :, 1]) / w, sc), 2)


@listed(NETWORKS)
class YOLOv8Pose(nn.Module):
    """Ultralytics, 2023: keypoints decoded for every anchor."""

    def __init__(self, k=5):
        super().__init__()
        self.b = CSPBackbone(C2f)
        self.h = DistributionHead((32, 64))
        self.k = nn.ModuleList(
            nn.Sequential(conv_bn_act(c, 16), nn.Conv2d(16, 3 * k, 1)) for c in (32, 64)
        )
        self.n = k

    def forward(self, x):
        fs = list(self.b(x)[1:])
        n = x.shape[0]
        kp = torch.cat([m(f).view(n, 3 * self.n, -1) for m, f in zip(self.k, fs, strict=False)], -1)
        det, raw = self.h(fs)
        ap, st = (t.transpose(0, 1) for t in anchor_points(raw, (8, 16)))
        y = kp.view(n, self.n, 3, -1)
        a = (y[:, :, :2] * 2.0 + (ap - 0.5)) * st
        y = torch.cat((a, y[:, :, 2:3].sigmoid()), 2)
        return torch.cat((det, y.view(n, 3 * self.n, -1)), 1)


@listed(NETWORKS)
class BlazePose(nn.Module):
    """Bazarevsky et al., 2020: heat maps supervise, landmarks are regressed."""

    def __init__(self):
        super().__init__()
        self.b = MobileBackbone(act=nn.ReLU)
        self.u = conv_bn_act(96, 32, 1, act=nn.ReLU)
        self.hm = nn.Conv2d(32, 3, 3, 1, 1)
        self.d = nn.Sequential(
            conv_bn_act(32, 32, 3, 2, 32, act=nn.ReLU), conv_bn_act(32, 32, 3, 2, act=nn.ReLU)
        )
        self.l = nn.Conv2d(32, 30, 2)
        self.f = nn.Conv2d(32, 1, 2)

    def forward(self, x):
        _, b, c = self.b(x)
        u = self.u(torch.cat((b, F.interpolate(c, scale_factor=2, mode="bilinear")), 1))
        d = self.d(u)
        return (self.l(d).reshape(-1, 10, 3), self.f(d).sigmoid().flatten(1), self.hm(u))


@listed(NETWORKS)
class HandLandmarks(nn.Module):
    """MediaPipe Hands (Zhang et al., 2020): landmarks, handedness, presence."""

    def __init__(self):
        super().__init__()
        self.b = MobileBackbone(act=nn.ReLU)
        self.c = nn.Sequential(
            nn.MaxPool2d(2, 2), conv_bn_act(64, 64, 2, act=nn.ReLU), nn.AdaptiveAvgPool2d(1)
        )
        self.x = nn.Linear(64, 63)
        self.h = nn.Linear(64, 1)
        self.p = nn.Linear(64, 1)

    def forward(self, x):
        f = self.c(self.b(x * 2 - 1)[2]).flatten(1)
        return (self.x(f) * 64, torch.sigmoid(self.p(f)), torch.sigmoid(self.h(f)))


@listed(NETWORKS)
class ViTPose(nn.Module):
    """Xu et al., 2022: a plain ViT, a light decoder."""

    def __init__(self):
        super().__init__()
        self.v = PatchTransformer(extra=0, patch=8)
        self.u = nn.Sequential(
            nn.ConvTranspose2d(32, 16, 4, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        )
        self.o = nn.Conv2d(16, 17, 1)

    def forward(self, x):
        return self.o(self.u(self.v(x).permute(0, 2, 1).reshape(x.shape[0], 32, 8, 8)))


@listed(NETWORKS)
class TokenPose(nn.Module):
    """Li et al., 2021: keypoint tokens give heat maps."""

    def __init__(self):
        super().__init__()
        self.b = Backbone()
        self.e = nn.Linear(16, 32)
        self.k = nn.Parameter(torch.randn(1, 5, 32) * 0.02)
        self.t = nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True)
        self.h = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 256))

    def forward(self, x):
        f = self.b(x)[0]
        n, c, h, w = f.shape
        p = (
            f.reshape(n, c, h // 4, 4, w // 4, 4)
            .permute(0, 2, 4, 1, 3, 5)
            .reshape(n, 16, 256)
            .reshape(n, 16, 16, 16)
            .mean(3)
        )
        y = self.t(torch.cat((self.k.repeat(n, 1, 1), self.e(p)), 1))[:, :5]
        return self.h(y).view(n, 5, 16, 16)


@listed(NETWORKS, (1, 2, 30, 17))
class STGCN(nn.Module):
    """Yan et al., 2018: graph convolutions of skeletons over time."""

    def __init__(self):
        super().__init__()
        self.register_buffer("A", torch.rand(3, 17, 17).softmax(-1))
        self.bn = nn.BatchNorm1d(34)
        self.c = nn.Conv2d(2, 3 * 16, 1)
        self.t = nn.Sequential(
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, (9, 1), (2, 1), (4, 0)),
            nn.BatchNorm2d(16),
        )
        self.r = nn.Conv2d(2, 16, 1, (2, 1))
        self.e = nn.Parameter(torch.ones(3, 17, 17))
        self.o = nn.Conv2d(16, 6, 1)

    def forward(self, x):
        n, c, t, v = x.size()
        x = x.permute(0, 3, 1, 2).contiguous().view(n, v * c, t)
        x = self.bn(x).view(n, v, c, t).permute(0, 2, 3, 1).contiguous()
        y = self.c(x)
        y = y.view(n, 3, 16, t, v)
        y = torch.einsum("nkctv,kvw->nctw", (y, self.A * self.e))
        y = F.relu(self.t(y) + self.r(x))
        y = F.avg_pool2d(y, y.size()[2:])
        return self.o(y).view(n, -1)


@listed(NETWORKS, (1, 27, 34))
class VideoPose3D(nn.Module):
    """Pavllo et al., 2019: 2-D joints to 3-D by dilated convolutions in time."""

    def __init__(self):
        super().__init__()
        self.e = nn.Sequential(nn.Conv1d(34, 32, 3, bias=False), nn.BatchNorm1d(32), nn.ReLU())
        self.a = nn.Sequential(
            nn.Conv1d(32, 32, 3, dilation=3, bias=False),
            nn.BatchNorm1d(32),
            nn.ReLU(),
            nn.Conv1d(32, 32, 1, bias=False),
            nn.BatchNorm1d(32),
            nn.ReLU(),
        )
        self.o = nn.Conv1d(32, 51, 1)

    def forward(self, x):
        x = self.e(x.permute(0, 2, 1))
        x = x[:, :, 3 : x.shape[2] - 3] + self.a(x)
        return self.o(x).permute(0, 2, 1).view(x.shape[0], -1, 17, 3)


@listed(NETWORKS)
class HopeNet(nn.Module):
    """Ruiz et al., 2018: head angles as expectations over bins."""

    def __init__(self):
        super().__init__()
        self.b = Backbone()
        self.f = nn.ModuleList(nn.Linear(64, 66) for _ in range(3))
        self.register_buffer("i", torch.arange(66.0))

    def forward(self, x):
        f = self.b(x)[2].mean((2, 3))
        return torch.stack([torch.sum(F.softmax(m(f), 1) * self.i, 1) * 3 - 99 for m in self.f], 1)


@listed(NETWORKS)
class SixDRepNet(nn.Module):
    """Hempel et al., 2022: a rotation matrix of six numbers, by Gram-Schmidt."""

    def __init__(self):
        super().__init__()
        self.b = nn.Sequential(RepVGG(3, 16, 2), RepVGG(16, 32, 2), RepVGG(32, 32))
        self.f = nn.Linear(32, 6)

    def forward(self, x):
        y = self.f(self.b(x).mean((2, 3)))
        a, b = (y[:, :3], y[:, 3:])
        u = a / torch.sqrt(a.pow(2).sum(1)).unsqueeze(1).clamp(min=1e-08)
        z = torch.cross(u, b, dim=1)
        z = z / torch.norm(z, dim=1, keepdim=True)
        return torch.stack((u, torch.cross(z, u, dim=1), z), 2)


@listed(NETWORKS)
class RLE(nn.Module):
    """Li et al., 2021: coordinates with their deviations."""

    def __init__(self):
        super().__init__()
        self.b = Backbone()
        self.c = nn.Linear(64, 10)
        self.g = nn.Linear(64, 10)

    def forward(self, x):
        f = F.adaptive_avg_pool2d(self.b(x)[2], 1).flatten(1)
        y = self.c(f).reshape(-1, 5, 2)
        w = self.g.weight
        sg = (
            F.linear(F.normalize(f, dim=1), F.normalize(w, dim=1), self.g.bias)
            .reshape(-1, 5, 2)
            .sigmoid()
        )
        return (y, (1 - sg).mean(2, keepdim=True))
