"""Super-resolution, denoising, deblurring."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.shared.deployed import Builder
from benchmarks.shared.deployed.blocks import ChannelNorm, from_windows, windows
from benchmarks.shared.deployed.register import listed

NETWORKS: dict[str, Builder] = {}


@listed(NETWORKS, (1, 1, 24, 24))
class ESPCN(nn.Module):
    """Shi et al., 2016: pixel shuffle."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(1, 32, 5, 1, 2)
        self.b = nn.Conv2d(32, 16, 3, 1, 1)
        self.c = nn.Conv2d(16, 9, 3, 1, 1)
        self.p = nn.PixelShuffle(3)

    def forward(self, x):
        return torch.clamp(self.p(self.c(torch.tanh(self.b(torch.tanh(self.a(x)))))), 0, 1)


@listed(NETWORKS, (1, 3, 24, 24))
class EDSR(nn.Module):
    """Lim et al., 2017: scaled residuals, mean shift."""

    def __init__(self):
        super().__init__()
        self.register_buffer("m", torch.tensor([0.45, 0.44, 0.4]).view(1, 3, 1, 1))
        self.h = nn.Conv2d(3, 16, 3, 1, 1)
        self.b = nn.ModuleList(
            nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1))
            for _ in range(3)
        )
        self.t = nn.Sequential(
            nn.Conv2d(16, 64, 3, 1, 1), nn.PixelShuffle(2), nn.Conv2d(16, 3, 3, 1, 1)
        )

    def forward(self, x):
        y = h = self.h((x - self.m) * 255)
        for b in self.b:
            y = y + b(y) * 0.1
        return self.t(y + h) / 255 + self.m


@listed(NETWORKS, (1, 3, 24, 24))
class RCAN(nn.Module):
    """Zhang et al., 2018: channel attention."""

    def __init__(self):
        super().__init__()
        self.h = nn.Conv2d(3, 16, 3, 1, 1)
        self.c = nn.ModuleList(
            nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1))
            for _ in range(2)
        )
        self.a = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(1),
                nn.Conv2d(16, 4, 1),
                nn.ReLU(),
                nn.Conv2d(4, 16, 1),
                nn.Sigmoid(),
            )
            for _ in range(2)
        )
        self.u = nn.Sequential(
            nn.Conv2d(16, 64, 3, 1, 1), nn.PixelShuffle(2), nn.Conv2d(16, 3, 3, 1, 1)
        )

    def forward(self, x):
        y = h = self.h(x)
        for c, a in zip(self.c, self.a, strict=False):
            t = c(y)
            y = y + t * a(t)
        return self.u(y + h)


@listed(NETWORKS, (1, 3, 16, 16))
class SwinIR(nn.Module):
    """Liang et al., 2021: shifted windows."""

    def __init__(self, d=24, h=2, w=4):
        super().__init__()
        self.h = nn.Conv2d(3, d, 3, 1, 1)
        self.qkv = nn.ModuleList(nn.Linear(d, 3 * d) for _ in range(2))
        self.pr = nn.ModuleList(nn.Linear(d, d) for _ in range(2))
        self.n = nn.ModuleList(nn.LayerNorm(d) for _ in range(4))
        self.m = nn.ModuleList(
            nn.Sequential(nn.Linear(d, 2 * d), nn.GELU(), nn.Linear(2 * d, d)) for _ in range(2)
        )
        self.rt = nn.Parameter(torch.randn((2 * w - 1) ** 2, h) * 0.02)
        self.w = w
        self.nh = h
        c = torch.stack(torch.meshgrid(torch.arange(w), torch.arange(w), indexing="ij")).flatten(1)
        r = (c[:, :, None] - c[:, None]).permute(1, 2, 0) + w - 1
        self.register_buffer("ri", r[..., 0] * (2 * w - 1) + r[..., 1])
        self.t = nn.Sequential(nn.Conv2d(d, 3 * 4, 3, 1, 1), nn.PixelShuffle(2))
        m = torch.zeros(1, 16, 16, 1)
        cnt = 0
        for hs in (slice(0, -4), slice(-4, -2), slice(-2, None)):
            for ws in (slice(0, -4), slice(-4, -2), slice(-2, None)):
                m[:, hs, ws] = cnt
                cnt += 1
        mw = windows(m, w).view(-1, w * w)
        am = mw.unsqueeze(1) - mw.unsqueeze(2)
        self.register_buffer("am", am.masked_fill(am != 0, -100.0).masked_fill(am == 0, 0.0))

    def forward(self, x):
        f = self.h(x)
        B, C, H, W = f.shape
        t = f.flatten(2).transpose(1, 2)
        w = self.w
        for i in range(2):
            y = self.n[2 * i](t).view(B, H, W, C)
            if i:
                y = torch.roll(y, shifts=(-w // 2, -w // 2), dims=(1, 2))
            y = windows(y, w).view(-1, w * w, C)
            Bn, N_, _ = y.shape
            q, k, v = (
                self.qkv[i](y)
                .reshape(Bn, N_, 3, self.nh, C // self.nh)
                .permute(2, 0, 3, 1, 4)
                .unbind(0)
            )
            a = q * (C // self.nh) ** (-0.5) @ k.transpose(-2, -1)
            a = a + self.rt[self.ri.view(-1)].view(N_, N_, -1).permute(2, 0, 1).unsqueeze(0)
            if i:
                nW = self.am.shape[0]
                a = a.view(Bn // nW, nW, self.nh, N_, N_) + self.am.unsqueeze(1).unsqueeze(0)
                a = a.view(-1, self.nh, N_, N_)
            y = (a.softmax(-1) @ v).transpose(1, 2).reshape(Bn, N_, C)
            y = from_windows(self.pr[i](y).view(-1, w, w, C), w, H, W)
            if i:
                y = torch.roll(y, shifts=(w // 2, w // 2), dims=(1, 2))
            t = t + y.view(B, H * W, C)
            t = t + self.m[i](self.n[2 * i + 1](t))
        return self.t(t.transpose(1, 2).view(B, C, H, W) + f)


@listed(NETWORKS, (1, 3, 24, 24))
class NAFNet(nn.Module):
    """Chen et al., 2022: gates in place of activations."""

    def __init__(self, c=16):
        super().__init__()
        self.i = nn.Conv2d(3, c, 3, 1, 1)
        self.n = ChannelNorm(c)
        self.a = nn.Conv2d(c, 2 * c, 1)
        self.d = nn.Conv2d(2 * c, 2 * c, 3, 1, 1, groups=2 * c)
        self.s = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, c, 1))
        self.b = nn.Conv2d(c, c, 1)
        self.m = ChannelNorm(c)
        self.e = nn.Conv2d(c, 2 * c, 1)
        self.f = nn.Conv2d(c, c, 1)
        self.be = nn.Parameter(torch.rand(1, c, 1, 1))
        self.ga = nn.Parameter(torch.rand(1, c, 1, 1))
        self.o = nn.Conv2d(c, 3, 3, 1, 1)

    def forward(self, x):
        y = self.i(x)
        p, q = self.d(self.a(self.n(y))).chunk(2, 1)
        t = p * q
        t = t * self.s(t)
        y = y + self.b(t) * self.be
        p, q = self.e(self.m(y)).chunk(2, 1)
        y = y + self.f(p * q) * self.ga
        return self.o(y) + x
