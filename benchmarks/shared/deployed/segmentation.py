"""Segmentation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.shared.deployed import Builder
from benchmarks.shared.deployed.blocks import Backbone, conv_bn_act
from benchmarks.shared.deployed.register import listed

NETWORKS: dict[str, Builder] = {}


class EffAttn(nn.Module):
    def __init__(self, d, h, sr):
        super().__init__()
        self.q = nn.Linear(d, d)
        self.kv = nn.Linear(d, 2 * d)
        self.p = nn.Linear(d, d)
        self.h = h
        self.sr = nn.Conv2d(d, d, sr, sr)
        self.n = nn.LayerNorm(d)

    def forward(self, x, H, W):
        B, N, C = x.shape
        q = self.q(x).reshape(B, N, self.h, C // self.h).permute(0, 2, 1, 3)
        y = self.n(
            self.sr(x.permute(0, 2, 1).reshape(B, C, H, W)).reshape(B, C, -1).permute(0, 2, 1)
        )
        k, v = self.kv(y).reshape(B, -1, 2, self.h, C // self.h).permute(2, 0, 3, 1, 4)
        a = (q @ k.transpose(-2, -1) * (C // self.h) ** (-0.5)).softmax(-1)
        return self.p((a @ v).transpose(1, 2).reshape(B, N, C))


@listed(NETWORKS)
class UNet(nn.Module):
    """Ronneberger et al., 2015, padded to its skips."""

    def __init__(self, w=8):
        super().__init__()

        def dc(i, o):
            return nn.Sequential(
                nn.Conv2d(i, o, 3, 1, 1),
                nn.BatchNorm2d(o),
                nn.ReLU(True),
                nn.Conv2d(o, o, 3, 1, 1),
                nn.BatchNorm2d(o),
                nn.ReLU(True),
            )

        self.a = dc(3, w)
        self.b = dc(w, 2 * w)
        self.c = dc(2 * w, 4 * w)
        self.u = nn.ConvTranspose2d(4 * w, 2 * w, 2, 2)
        self.d = dc(4 * w, 2 * w)
        self.v = nn.ConvTranspose2d(2 * w, w, 2, 2)
        self.e = dc(2 * w, w)
        self.o = nn.Conv2d(w, 2, 1)

    def forward(self, x):
        a = self.a(x)
        b = self.b(F.max_pool2d(a, 2))
        c = self.c(F.max_pool2d(b, 2))
        u = self.u(c)
        dy = b.size()[2] - u.size()[2]
        dx = b.size()[3] - u.size()[3]
        u = F.pad(u, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])
        d = self.d(torch.cat([b, u], 1))
        return self.o(self.e(torch.cat([a, self.v(d)], 1)))


@listed(NETWORKS)
class DeepLab(nn.Module):
    """DeepLabv3+ (Chen et al., 2018): atrous pyramid."""

    def __init__(self):
        super().__init__()
        self.b = Backbone()
        self.a = nn.ModuleList(
            [nn.Conv2d(64, 16, 1)]
            + [nn.Conv2d(64, 16, 3, padding=d, dilation=d) for d in (2, 3, 4)]
        )
        self.g = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(64, 16, 1), nn.ReLU())
        self.p = nn.Conv2d(80, 16, 1)
        self.l = nn.Conv2d(16, 8, 1)
        self.o = nn.Conv2d(24, 3, 3, 1, 1)

    def forward(self, x):
        lo, _, h = self.b(x)
        y = torch.cat(
            [F.relu(m(h)) for m in self.a]
            + [F.interpolate(self.g(h), size=h.shape[2:], mode="bilinear", align_corners=False)],
            1,
        )
        y = F.interpolate(self.p(y), size=lo.shape[2:], mode="bilinear", align_corners=False)
        y = self.o(torch.cat((y, self.l(lo)), 1))
        return F.interpolate(y, size=x.shape[2:], mode="bilinear", align_corners=False)


@listed(NETWORKS)
class PSPNet(nn.Module):
    """Zhao et al., 2017: pooling pyramid, labels by argmax."""

    def __init__(self):
        super().__init__()
        self.b = Backbone()
        self.s = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(k), nn.Conv2d(64, 16, 1, bias=False))
            for k in (1, 2, 3, 6)
        )
        self.o = nn.Conv2d(128, 3, 1)

    def forward(self, x):
        f = self.b(x)[2]
        h, w = (f.size(2), f.size(3))
        p = torch.cat(
            [F.interpolate(t(f), size=(h, w), mode="bilinear", align_corners=True) for t in self.s]
            + [f],
            1,
        )
        return F.interpolate(
            self.o(p), scale_factor=16, mode="bilinear", align_corners=True
        ).argmax(1)


@listed(NETWORKS)
class BiSeNet(nn.Module):
    """Yu et al., 2018: spatial and context paths."""

    def __init__(self):
        super().__init__()
        self.sp = nn.Sequential(
            conv_bn_act(3, 16, 7, 2, act=nn.ReLU),
            conv_bn_act(16, 16, 3, 2, act=nn.ReLU),
            conv_bn_act(16, 32, 3, 2, act=nn.ReLU),
        )
        self.b = Backbone()
        self.c = nn.Conv2d(64, 32, 3, 1, 1)
        self.at = nn.Sequential(nn.Conv2d(32, 32, 1, bias=False), nn.BatchNorm2d(32))
        self.ff = conv_bn_act(64, 32, 1, act=nn.ReLU)
        self.a1 = nn.Conv2d(32, 8, 1)
        self.a2 = nn.Conv2d(8, 32, 1)
        self.o = nn.Conv2d(32, 3, 1)

    def forward(self, x):
        f = self.c(self.b(x)[2])
        f = f * torch.sigmoid(self.at(F.avg_pool2d(f, f.size()[2:])))
        f = F.interpolate(f, scale_factor=2.0, mode="nearest")
        y = self.ff(torch.cat((self.sp(x), f), 1))
        a = torch.sigmoid(self.a2(F.relu(self.a1(F.avg_pool2d(y, y.size()[2:])))))
        return F.interpolate(self.o(y * a + y), x.size()[2:], mode="bilinear", align_corners=True)


@listed(NETWORKS)
class SegFormer(nn.Module):
    """Xie et al., 2021: reduced attention, mixed feed-forward."""

    def __init__(self):
        super().__init__()
        self.e = nn.ModuleList([nn.Conv2d(3, 16, 7, 4, 3), nn.Conv2d(16, 32, 3, 2, 1)])
        self.ln = nn.ModuleList([nn.LayerNorm(16), nn.LayerNorm(32)])
        self.at = nn.ModuleList([EffAttn(16, 1, 4), EffAttn(32, 2, 2)])
        self.f1 = nn.ModuleList([nn.Linear(16, 32), nn.Linear(32, 64)])
        self.dw = nn.ModuleList(
            [nn.Conv2d(32, 32, 3, 1, 1, groups=32), nn.Conv2d(64, 64, 3, 1, 1, groups=64)]
        )
        self.f2 = nn.ModuleList([nn.Linear(32, 16), nn.Linear(64, 32)])
        self.l = nn.ModuleList([nn.Linear(16, 24), nn.Linear(32, 24)])
        self.fu = conv_bn_act(48, 24, 1, act=nn.ReLU)
        self.o = nn.Conv2d(24, 3, 1)

    def forward(self, x):
        outs = []
        for i in range(2):
            x = self.e[i](x)
            B, _C, H, W = x.shape
            t = x.flatten(2).transpose(1, 2)
            t = t + self.at[i](self.ln[i](t), H, W)
            u = self.f1[i](t)
            u = self.dw[i](u.transpose(1, 2).view(B, -1, H, W)).flatten(2).transpose(1, 2)
            t = t + self.f2[i](F.gelu(u))
            x = t.reshape(B, H, W, -1).permute(0, 3, 1, 2).contiguous()
            outs.append(x)
        y = [
            F.interpolate(
                self.l[i](o.flatten(2).transpose(1, 2))
                .permute(0, 2, 1)
                .reshape(o.shape[0], -1, o.shape[2], o.shape[3]),
                size=outs[0].shape[2:],
                mode="bilinear",
                align_corners=False,
            )
            for i, o in enumerate(outs)
        ]
        return self.o(self.fu(torch.cat(y[::-1], 1)))


@listed(NETWORKS, (1, 3, 32, 32))
class SegNet(nn.Module):
    """Badrinarayanan et al., 2017: unpooling at the indices of pooling."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, 1, 1)
        self.b = nn.Conv2d(8, 16, 3, 1, 1)
        self.c = nn.Conv2d(16, 8, 3, 1, 1)
        self.d = nn.Conv2d(8, 3, 3, 1, 1)

    def forward(self, x):
        x = F.relu(self.a(x))
        y, i = F.max_pool2d(x, 2, 2, return_indices=True)
        y = F.relu(self.b(y))
        z, j = F.max_pool2d(y, 2, 2, return_indices=True)
        z = F.max_unpool2d(z, j, 2, 2, output_size=y.size())
        z = F.relu(self.c(z))
        return self.d(F.max_unpool2d(z, i, 2, 2, output_size=x.size()))


@listed(NETWORKS, (1, 3, 32, 32))
class CARAFE(nn.Module):
    """Wang et al., 2019: upsampling by predicted kernels."""

    def __init__(self, c=24):
        super().__init__()
        self.i = nn.Conv2d(3, c, 3, 1, 1)
        self.d = nn.Conv2d(c, 8, 1)
        self.e = nn.Conv2d(8, 4 * 25, 3, 1, 1)
        self.o = nn.Conv2d(c, 3, 1)

    def forward(self, x):
        x = self.i(x)
        b, c, h, w = x.size()
        k = F.pixel_shuffle(self.e(self.d(x)), 2)
        k = F.softmax(k, 1).view(b, 1, 25, 2 * h, 2 * w)
        u = F.interpolate(
            F.unfold(x, 5, padding=2).view(b, c * 25, h, w), scale_factor=2, mode="nearest"
        ).view(b, c, 25, 2 * h, 2 * w)
        return self.o((u * k).sum(2))
