"""Depth, stereo and optical flow."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.shared.deployed import Builder
from benchmarks.shared.deployed.blocks import Backbone
from benchmarks.shared.deployed.register import listed

NETWORKS: dict[str, Builder] = {}


def bilinear_sampler(img, coords):
    H, W = img.shape[-2:]
    xg, yg = coords.split([1, 1], dim=-1)
    xg = 2 * xg / (W - 1) - 1
    yg = 2 * yg / (H - 1) - 1
    return F.grid_sample(img, torch.cat([xg, yg], dim=-1), align_corners=True)


@listed(NETWORKS)
class MiDaS(nn.Module):
    """Ranftl et al., 2020: fusion of levels, depth scaled by its maximum."""

    def __init__(self):
        super().__init__()
        self.b = Backbone()
        self.l = nn.ModuleList(nn.Conv2d(c, 16, 3, 1, 1, bias=False) for c in (16, 32, 64))
        self.r = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1)
            )
            for _ in range(3)
        )
        self.o = nn.Sequential(
            nn.Conv2d(16, 8, 3, 1, 1),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.Conv2d(8, 8, 3, 1, 1),
            nn.ReLU(True),
            nn.Conv2d(8, 1, 1),
            nn.ReLU(True),
        )

    def forward(self, x):
        fs = [level(f) for level, f in zip(self.l, self.b(x), strict=False)]
        y = fs[2]
        for i in (2, 1, 0):
            if i < 2:
                y = y + fs[i]
            y = y + self.r[i](y)
            y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=True)
        d = self.o(y).squeeze(1)
        return d / (d.amax((1, 2), keepdim=True) + 1e-06)


@listed(NETWORKS, (1, 3, 48, 48), (1, 3, 48, 48))
class RAFT(nn.Module):
    """Teed and Deng, 2020: optical flow, correlation pyramid looked up, convex upsampling."""

    def __init__(self, r=2):
        super().__init__()
        self.f = nn.Sequential(
            nn.Conv2d(3, 16, 7, 4, 3), nn.InstanceNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1)
        )
        self.r = r
        self.u = nn.Conv2d(2 * 25 + 2 + 16, 24, 3, 1, 1)
        self.fl = nn.Conv2d(24, 2, 3, 1, 1)
        self.z = nn.Conv2d(40, 24, 3, 1, 1)
        self.q = nn.Conv2d(40, 24, 3, 1, 1)
        self.m = nn.Conv2d(24, 9 * 16, 1)

    def forward(self, a, b):
        fa, fb = (self.f(a), self.f(b))
        B, D, H, W = fa.shape
        c = torch.matmul(fa.view(B, D, H * W).transpose(1, 2), fb.view(B, D, H * W)).view(
            B, H, W, 1, H, W
        ) / math.sqrt(D)
        pyr = [c.reshape(B * H * W, 1, H, W)]
        pyr.append(F.avg_pool2d(pyr[0], 2, 2))
        y, x = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
        c0 = torch.stack((x, y), 0).float()[None].repeat(B, 1, 1, 1)
        c1 = c0 + 0.0
        h = torch.tanh(torch.cat((fa, fa[:, :8]), 1))
        r = self.r
        for _ in range(2):
            out = []
            co = c1.permute(0, 2, 3, 1)
            for i, cr in enumerate(pyr):
                d = torch.linspace(-r, r, 2 * r + 1)
                delta = torch.stack(torch.meshgrid(d, d, indexing="ij"), -1).view(
                    1, 2 * r + 1, 2 * r + 1, 2
                )
                cl = co.reshape(B * H * W, 1, 1, 2) / 2**i + delta
                out.append(bilinear_sampler(cr, cl).view(B, H, W, -1))
            corr = torch.cat(out, -1).permute(0, 3, 1, 2).contiguous()
            inp = torch.cat((corr, c1 - c0, fa), 1)
            m = F.relu(self.u(inp))
            hx = torch.cat((h, m[:, :16]), 1)
            z = torch.sigmoid(self.z(hx))
            h = (1 - z) * h + z * torch.tanh(self.q(hx))
            c1 = c1 + self.fl(h) * 0.1
        flow = c1 - c0
        mask = self.m(h).view(B, 1, 9, 4, 4, H, W).softmax(2)
        up = F.unfold(4 * flow, [3, 3], padding=1).view(B, 2, 9, 1, 1, H, W)
        up = (mask * up).sum(2).permute(0, 1, 4, 2, 5, 3)
        return (flow, up.reshape(B, 2, 4 * H, 4 * W))


@listed(NETWORKS, (1, 3, 32, 32), (1, 3, 32, 32))
class PWCWarp(nn.Module):
    """PWC-Net (Sun et al., 2018): cost volume of a warped pyramid."""

    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(16, 16, 3, 2, 1),
            nn.LeakyReLU(0.1),
        )
        self.e = nn.Conv2d(25, 2, 3, 1, 1)
        self.r = nn.Conv2d(16 + 25 + 2, 2, 3, 1, 1)

    def corr(self, a, b, d=2):
        b = F.pad(b, (d, d, d, d))
        H, W = a.shape[2:]
        return torch.cat(
            [
                torch.mean(a * b[:, :, i : i + H, j : j + W], 1, keepdim=True)
                for i in range(2 * d + 1)
                for j in range(2 * d + 1)
            ],
            1,
        )

    def warp(self, x, flo):
        B, _C, H, W = x.size()
        xx = torch.arange(0, W).view(1, -1).repeat(H, 1).view(1, 1, H, W).repeat(B, 1, 1, 1)
        yy = torch.arange(0, H).view(-1, 1).repeat(1, W).view(1, 1, H, W).repeat(B, 1, 1, 1)
        g = torch.cat((xx, yy), 1).float()
        v = g + flo
        v = torch.stack(
            (2.0 * v[:, 0] / max(W - 1, 1) - 1.0, 2.0 * v[:, 1] / max(H - 1, 1) - 1.0), 1
        ).permute(0, 2, 3, 1)
        o = F.grid_sample(x, v, align_corners=True)
        m = F.grid_sample(torch.ones(x.size()), v, align_corners=True)
        m = (m > 0.999).float()
        return o * m

    def forward(self, a, b):
        fa, fb = (self.f(a), self.f(b))
        c = F.leaky_relu(self.corr(fa, fb), 0.1)
        fl = self.e(c)
        w = self.warp(fb, fl)
        c2 = F.leaky_relu(self.corr(fa, w), 0.1)
        fl = fl + self.r(torch.cat((fa, c2, fl), 1))
        return F.interpolate(fl, scale_factor=4, mode="bilinear", align_corners=False) * 4
