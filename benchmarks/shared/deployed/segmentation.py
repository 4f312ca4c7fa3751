"""Segmentation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.shared.deployed import Builder
from benchmarks.shared.deployed.blocks import (
    Backbone,
    InvertedResidual,
    MobileBackbone,
    conv_bn_act,
)
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


class DoubleConv(nn.Sequential):
    def __init__(self, i, o):
        super().__init__(conv_bn_act(i, o, act=nn.ReLU), conv_bn_act(o, o, act=nn.ReLU))


@listed(NETWORKS)
class UNetPlusPlus(nn.Module):
    """Zhou et al., 2018: nested skips, averaged outputs of deep supervision."""

    def __init__(self, w=8):
        super().__init__()
        self.p = nn.MaxPool2d(2, 2)
        self.u = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.a = DoubleConv(3, w)
        self.b = DoubleConv(w, 2 * w)
        self.c = DoubleConv(2 * w, 4 * w)
        self.a1 = DoubleConv(3 * w, w)
        self.b1 = DoubleConv(6 * w, 2 * w)
        self.a2 = DoubleConv(4 * w, w)
        self.o = nn.ModuleList(nn.Conv2d(w, 2, 1) for _ in range(2))

    def forward(self, x):
        a = self.a(x)
        b = self.b(self.p(a))
        c = self.c(self.p(b))
        a1 = self.a1(torch.cat([a, self.u(b)], 1))
        b1 = self.b1(torch.cat([b, self.u(c)], 1))
        a2 = self.a2(torch.cat([a, a1, self.u(b1)], 1))
        return torch.stack([o(f) for o, f in zip(self.o, (a1, a2), strict=False)]).mean(0)


@listed(NETWORKS)
class AttentionUNet(nn.Module):
    """Oktay et al., 2018: gates on the skips."""

    def __init__(self, w=8):
        super().__init__()
        self.a = DoubleConv(3, w)
        self.b = DoubleConv(w, 2 * w)
        self.u = nn.ConvTranspose2d(2 * w, w, 3, 2, 1, 1)
        self.g = nn.Sequential(nn.Conv2d(w, w, 1), nn.BatchNorm2d(w))
        self.x = nn.Sequential(nn.Conv2d(w, w, 1, bias=False), nn.BatchNorm2d(w))
        self.p = nn.Sequential(nn.Conv2d(w, 1, 1), nn.BatchNorm2d(1), nn.Sigmoid())
        self.d = DoubleConv(2 * w, w)
        self.o = nn.Conv2d(w, 1, 1)

    def forward(self, x):
        a = self.a(x)
        u = self.u(self.b(F.max_pool2d(a, 2)))
        return torch.sigmoid(
            self.o(self.d(torch.cat((a * self.p(F.relu(self.g(u) + self.x(a))), u), 1)))
        )


@listed(NETWORKS)
class FastSCNN(nn.Module):
    """Poudel et al., 2019: learning to downsample, pyramid, feature fusion."""

    def __init__(self):
        super().__init__()
        r = nn.ReLU
        self.a = nn.Sequential(
            conv_bn_act(3, 16, 3, 2, act=r),
            conv_bn_act(16, 16, 3, 2, 16, act=r),
            conv_bn_act(16, 24, 1, act=r),
        )
        self.g = nn.Sequential(InvertedResidual(24, 32, 3, 2), InvertedResidual(32, 32, 3))
        self.p = nn.ModuleList(conv_bn_act(32, 8, 1, act=r) for _ in range(4))
        self.q = conv_bn_act(64, 32, 1, act=r)
        self.l = conv_bn_act(24, 32, 1, act=nn.Identity)
        self.h = nn.Sequential(
            nn.Conv2d(32, 32, 3, 1, 4, 4, 32, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 32, 1),
        )
        self.o = nn.Sequential(nn.Dropout(0.1), nn.Conv2d(32, 3, 1))

    def forward(self, x):
        a = self.a(x)
        g = self.g(a)
        hw = g.shape[2:]
        ps = [
            F.interpolate(p(F.adaptive_avg_pool2d(g, k)), hw, mode="bilinear", align_corners=True)
            for p, k in zip(self.p, (1, 2, 3, 6), strict=False)
        ]
        g = self.q(torch.cat([g, *ps], 1))
        g = F.interpolate(g, scale_factor=2, mode="bilinear", align_corners=True)
        y = F.relu(self.l(a) + self.h(g))
        return F.interpolate(self.o(y), x.shape[2:], mode="bilinear", align_corners=True)


class ENetBottleneck(nn.Module):
    def __init__(self, c, kind, d=1):
        super().__init__()
        h = c // 4
        self.a = nn.Sequential(nn.Conv2d(c, h, 1, bias=False), nn.BatchNorm2d(h), nn.PReLU())
        self.b = (
            nn.Sequential(
                nn.Conv2d(h, h, (5, 1), padding=(2, 0), bias=False),
                nn.Conv2d(h, h, (1, 5), padding=(0, 2), bias=False),
            )
            if kind == "asymmetric"
            else nn.Conv2d(h, h, 3, padding=d, dilation=d)
        )
        self.c = nn.Sequential(
            nn.BatchNorm2d(h),
            nn.PReLU(),
            nn.Conv2d(h, c, 1, bias=False),
            nn.BatchNorm2d(c),
            nn.Dropout2d(0.1),
        )
        self.p = nn.PReLU()

    def forward(self, x):
        return self.p(x + self.c(self.b(self.a(x))))


@listed(NETWORKS)
class ENet(nn.Module):
    """Paszke et al., 2016: PReLU, dilated and asymmetric kernels, unpooling at pooled places."""

    def __init__(self):
        super().__init__()
        self.i = nn.Conv2d(3, 13, 3, 2, 1, bias=False)
        self.n = nn.Sequential(nn.BatchNorm2d(16), nn.PReLU())
        self.d = nn.Conv2d(16, 32, 2, 2, bias=False)
        self.b = nn.Sequential(
            ENetBottleneck(32, "plain"),
            ENetBottleneck(32, "dilated", 2),
            ENetBottleneck(32, "asymmetric"),
        )
        self.u = nn.Conv2d(32, 16, 1, bias=False)
        self.e = nn.ConvTranspose2d(32, 16, 3, 2, 1, 1, bias=False)
        self.o = nn.ConvTranspose2d(16, 3, 3, 2, 1, 1, bias=False)

    def forward(self, x):
        x = self.n(torch.cat((self.i(x), F.max_pool2d(x, 3, 2, 1)), 1))
        m, i = F.max_pool2d(x, 2, return_indices=True)
        m = F.pad(m, (0, 0, 0, 0, 0, 16))
        y = self.b(F.relu(self.d(x) + m))
        z = F.max_unpool2d(self.u(y), i, 2)
        return self.o(F.relu(z + self.e(y)))


@listed(NETWORKS)
class PPLiteSeg(nn.Module):
    """Peng et al., 2022: attention fusion by mean and maximum over channels."""

    def __init__(self):
        super().__init__()
        self.b = Backbone()
        self.p = nn.ModuleList(conv_bn_act(64, 16, 1, act=nn.ReLU) for _ in range(3))
        self.po = conv_bn_act(16, 32, act=nn.ReLU)
        self.x = conv_bn_act(32, 32, act=nn.ReLU)
        self.a = nn.Sequential(
            conv_bn_act(4, 2, act=nn.ReLU), nn.Conv2d(2, 1, 3, 1, 1, bias=False), nn.BatchNorm2d(1)
        )
        self.o = nn.Conv2d(32, 3, 1)

    def forward(self, x):
        _, b, c = self.b(x)
        t = sum(
            (
                F.interpolate(p(F.adaptive_avg_pool2d(c, k)), c.shape[2:], mode="bilinear")
                for p, k in zip(self.p, (1, 2, 4), strict=False)
            )
        )
        u = F.interpolate(self.po(t), b.shape[2:], mode="bilinear")
        v = self.x(b)

        def m(z):
            return [z.mean(1, keepdim=True), z.max(1, keepdim=True)[0]]

        a = torch.sigmoid(self.a(torch.cat(m(u) + m(v), 1)))
        return F.interpolate(self.o(u * a + v * (1 - a)), x.shape[2:], mode="bilinear")


@listed(NETWORKS)
class ICNet(nn.Module):
    """Zhao et al., 2018: the image at three scales, cascaded."""

    def __init__(self):
        super().__init__()
        self.h = nn.Sequential(
            conv_bn_act(3, 16, 3, 2, act=nn.ReLU), conv_bn_act(16, 16, 3, 2, act=nn.ReLU)
        )
        self.m = Backbone(8)
        self.c = nn.Conv2d(32, 16, 3, padding=2, dilation=2, bias=False)
        self.l = nn.Conv2d(16, 16, 1, bias=False)
        self.o = nn.Conv2d(16, 3, 1)

    def forward(self, x):
        lo = self.m(F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=True))[2]
        lo = F.interpolate(lo, size=(16, 16), mode="bilinear", align_corners=True)
        return self.o(F.relu(self.c(lo) + self.l(self.h(x))))


@listed(NETWORKS)
class LRASPP(nn.Module):
    """Howard et al., 2019: MobileNetV3's segmentation head."""

    def __init__(self):
        super().__init__()
        self.b = MobileBackbone(se=True, act=nn.Hardswish)
        self.c = conv_bn_act(64, 24, 1, act=nn.ReLU)
        self.s = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(64, 24, 1, bias=False), nn.Sigmoid()
        )
        self.lo = nn.Conv2d(32, 3, 1)
        self.hi = nn.Conv2d(24, 3, 1)

    def forward(self, x):
        _, b, c = self.b(x)
        y = F.interpolate(
            self.c(c) * self.s(c), size=b.shape[-2:], mode="bilinear", align_corners=False
        )
        return {
            "out": F.interpolate(
                self.lo(b) + self.hi(y), size=x.shape[-2:], mode="bilinear", align_corners=False
            )
        }


@listed(NETWORKS)
class FCN8(nn.Module):
    """Long et al., 2015: scores of three strides added, transposed convolutions, crops."""

    def __init__(self):
        super().__init__()
        self.b = Backbone()
        self.o = nn.ModuleList(nn.Conv2d(c, 3, 1) for c in (16, 32, 64))
        self.u = nn.ModuleList(nn.ConvTranspose2d(3, 3, 4, 2, bias=False) for _ in range(2))
        self.v = nn.ConvTranspose2d(3, 3, 8, 4, bias=False)

    def forward(self, x):
        a, b, c = (o(f) for o, f in zip(self.o, self.b(x), strict=False))
        y = b + self.u[0](c)[:, :, 1 : 1 + b.size(2), 1 : 1 + b.size(3)]
        y = a + self.u[1](y)[:, :, 1 : 1 + a.size(2), 1 : 1 + a.size(3)]
        return self.v(y)[:, :, 2 : 2 + x.size(2), 2 : 2 + x.size(3)].contiguous()


@listed(NETWORKS)
class LinkNet(nn.Module):
    """Chaurasia and Culurciello, 2017: skips are added."""

    def __init__(self):
        super().__init__()
        self.b = Backbone()

        def d(i, o):
            return nn.Sequential(
                conv_bn_act(i, i // 4, 1, act=nn.ReLU),
                nn.ConvTranspose2d(i // 4, i // 4, 3, 2, 1, 1),
                nn.BatchNorm2d(i // 4),
                nn.ReLU(),
                conv_bn_act(i // 4, o, 1, act=nn.ReLU),
            )

        self.d = d(64, 32)
        self.e = d(32, 16)
        self.o = nn.ConvTranspose2d(16, 2, 4, 4)

    def forward(self, x):
        a, b, c = self.b(x)
        return self.o(self.e(self.d(c) + b) + a)


@listed(NETWORKS)
class DANet(nn.Module):
    """Fu et al., 2019: attention over places and over channels."""

    def __init__(self):
        super().__init__()
        self.b = Backbone(8)
        self.q = nn.Conv2d(32, 4, 1)
        self.k = nn.Conv2d(32, 4, 1)
        self.v = nn.Conv2d(32, 32, 1)
        self.ga = nn.Parameter(torch.tensor(0.5))
        self.be = nn.Parameter(torch.tensor(0.5))
        self.o = nn.Conv2d(32, 3, 1)

    def forward(self, x):
        f = self.b(x)[2]
        n, c, h, w = f.shape
        a = torch.bmm(
            self.q(f).view(n, -1, h * w).permute(0, 2, 1), self.k(f).view(n, -1, h * w)
        ).softmax(-1)
        p = (
            self.ga * torch.bmm(self.v(f).view(n, -1, h * w), a.permute(0, 2, 1)).view(n, c, h, w)
            + f
        )
        z = f.view(n, c, -1)
        e = torch.bmm(z, z.permute(0, 2, 1))
        e = torch.max(e, -1, keepdim=True)[0].expand_as(e) - e
        q = self.be * torch.bmm(e.softmax(-1), z).view(n, c, h, w) + f
        return self.o(p + q)


@listed(NETWORKS)
class CCNet(nn.Module):
    """Huang et al., 2019: attention along rows and columns."""

    def __init__(self):
        super().__init__()
        self.b = Backbone(8)
        self.q = nn.Conv2d(32, 4, 1)
        self.k = nn.Conv2d(32, 4, 1)
        self.v = nn.Conv2d(32, 32, 1)
        self.o = nn.Conv2d(32, 3, 1)

    def forward(self, x):
        f = self.b(x)[2]
        q, k, v = (self.q(f), self.k(f), self.v(f))
        h = q.shape[2]
        m = torch.diag(torch.full((h,), float("-inf"))).view(1, h, 1, h)
        eh = torch.einsum("bchw,bciw->bhwi", q, k) + m
        ew = torch.einsum("bchw,bchj->bhwj", q, k)
        a = torch.cat((eh, ew), 3).softmax(3)
        y = torch.einsum("bhwi,bciw->bchw", a[..., :h], v) + torch.einsum(
            "bhwj,bchj->bchw", a[..., h:], v
        )
        return self.o(y * 0.5 + f)


@listed(NETWORKS)
class OCRNet(nn.Module):
    """Yuan et al., 2020: object regions gather pixels, pixels read regions."""

    def __init__(self):
        super().__init__()
        self.b = Backbone(8)
        self.a = nn.Conv2d(32, 4, 1)
        self.f = conv_bn_act(32, 16, act=nn.ReLU)
        self.q = nn.Conv2d(16, 8, 1)
        self.k = nn.Conv1d(16, 8, 1)
        self.v = nn.Conv1d(16, 16, 1)
        self.o = nn.Conv2d(32, 4, 1)

    def forward(self, x):
        f = self.b(x)[2]
        a = self.a(f)
        f = self.f(f)
        n, c, h, w = f.shape
        r = torch.matmul(F.softmax(a.view(n, 4, -1), 2), f.view(n, c, -1).permute(0, 2, 1)).permute(
            0, 2, 1
        )
        q = self.q(f).view(n, 8, -1).permute(0, 2, 1)
        m = F.softmax(torch.matmul(q, self.k(r)) * 8 ** (-0.5), -1)
        y = (
            torch.matmul(m, self.v(r).permute(0, 2, 1))
            .permute(0, 2, 1)
            .contiguous()
            .view(n, 16, h, w)
        )
        return (a, self.o(torch.cat([y, f], 1)))


@listed(NETWORKS)
class PointRend(nn.Module):
    """Kirillov et al., 2020: the most uncertain points are sampled and classified again."""

    def __init__(self):
        super().__init__()
        self.b = Backbone(8)
        self.o = nn.Conv2d(32, 2, 1)
        self.m = nn.Conv1d(10, 2, 1)

    def forward(self, x):
        fs = self.b(x)
        c = self.o(fs[2])
        c = F.interpolate(c, scale_factor=2, mode="bilinear", align_corners=False)
        n, k, h, w = c.shape
        t = c.sort(1, descending=True)[0]
        u = -(t[:, 0] - t[:, 1])
        i = u.view(n, -1).topk(6, 1)[1]
        p = (
            torch.stack(
                ((i % w + 0.5) / w, torch.div(i, w, rounding_mode="floor") / h + 0.5 / h), -1
            )
            * 2
            - 1
        )

        def g(f):
            return F.grid_sample(f, p.unsqueeze(2).float(), align_corners=False).squeeze(3)

        r = self.m(torch.cat((g(c), g(fs[0])), 1))
        return c.view(n, k, -1).scatter(2, i.unsqueeze(1).expand(-1, k, -1), r).view(n, k, h, w)


@listed(NETWORKS)
class YOLACT(nn.Module):
    """Bolya et al., 2019: masks out of prototypes and coefficients."""

    def __init__(self):
        super().__init__()
        self.b = Backbone()
        self.p = nn.Sequential(
            nn.Conv2d(16, 16, 3, 1, 1),
            nn.ReLU(),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            nn.Conv2d(16, 8, 1),
            nn.ReLU(),
        )
        self.c = nn.Conv2d(64, 8, 3, 1, 1)
        self.o = nn.Conv2d(64, 1, 3, 1, 1)

    def forward(self, x):
        a, _, c = self.b(x)
        p = self.p(a).permute(0, 2, 3, 1).contiguous()
        k = self.c(c).tanh().permute(0, 2, 3, 1).reshape(x.shape[0], -1, 8)
        sc = self.o(c).flatten(1).sigmoid()
        return (torch.einsum("nhwk,nak->nahw", p, k).sigmoid(), sc)


@listed(NETWORKS)
class SOLOv2(nn.Module):
    """Wang et al., 2020: predicted kernels are convolved with mask features."""

    def __init__(self):
        super().__init__()
        self.b = Backbone(8)
        self.k = nn.Conv2d(34, 8, 3, 1, 1)
        self.m = nn.Conv2d(8, 8, 1)
        self.c = nn.Conv2d(32, 3, 3, 1, 1)

    def forward(self, x):
        a, _, c = self.b(x)
        n, _, h, w = c.shape
        ys, xs = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
        co = torch.stack((xs, ys)).expand(n, -1, -1, -1)
        k = F.adaptive_avg_pool2d(self.k(torch.cat((c, co), 1)), 2)
        m = self.m(a)
        return (
            torch.matmul(k.flatten(2).mT, m.flatten(2)).view(n, 4, *m.shape[2:]).sigmoid(),
            self.c(c).sigmoid(),
        )


@listed(NETWORKS)
class MaskFormer(nn.Module):
    """Cheng et al., 2021: queries give classes and mask embeddings."""

    def __init__(self, d=32):
        super().__init__()
        self.b = Backbone()
        self.p = nn.Conv2d(64, d, 1)
        self.q = nn.Embedding(5, d)
        self.d = nn.TransformerDecoderLayer(d, 4, 64, 0.0, batch_first=True)
        self.m = nn.Sequential(nn.Conv2d(16, d, 3, 1, 1), nn.GroupNorm(8, d), nn.ReLU())
        self.c = nn.Linear(d, 4)
        self.e = nn.Linear(d, d)

    def forward(self, x):
        a, _, c = self.b(x)
        y = self.d(
            self.q.weight.unsqueeze(0).repeat(x.shape[0], 1, 1),
            self.p(c).flatten(2).transpose(1, 2),
        )
        m = torch.einsum("bqc,bchw->bqhw", self.e(y), self.m(a)).sigmoid()
        return torch.einsum("bqk,bqhw->bkhw", self.c(y).softmax(-1)[..., :-1], m)


@listed(NETWORKS, (1, 1, 16, 16, 16))
class VNet(nn.Module):
    """Milletari et al., 2016: volumes, residual in 3-D."""

    def __init__(self):
        super().__init__()
        self.a = nn.Sequential(nn.Conv3d(1, 8, 5, padding=2), nn.BatchNorm3d(8), nn.PReLU(8))
        self.d = nn.Sequential(nn.Conv3d(8, 16, 2, 2), nn.PReLU(16))
        self.c = nn.Sequential(nn.Conv3d(16, 16, 3, padding=1), nn.InstanceNorm3d(16), nn.PReLU(16))
        self.u = nn.ConvTranspose3d(16, 8, 2, 2)
        self.o = nn.Conv3d(16, 2, 1)

    def forward(self, x):
        a = self.a(x) + x.repeat(1, 8, 1, 1, 1)
        d = self.d(a)
        return F.softmax(self.o(torch.cat((self.u(self.c(d) + d), a), 1)), 1)


@listed(NETWORKS)
class U2Net(nn.Module):
    """Qin et al., 2020: nested U-blocks, fused side outputs."""

    def __init__(self):
        super().__init__()
        r = nn.ReLU
        self.i = conv_bn_act(3, 16, act=r)
        self.a = conv_bn_act(16, 8, act=r)
        self.b = conv_bn_act(8, 8, act=r)
        self.c = conv_bn_act(8, 8, d=2, act=r)
        self.d = conv_bn_act(16, 8, d=2, act=r)
        self.e = conv_bn_act(16, 16, act=r)
        self.k = nn.Conv2d(16, 1, 3, 1, 1)
        self.l2 = nn.Conv2d(8, 1, 3, 1, 1)
        self.o = nn.Conv2d(2, 1, 1)

    def forward(self, x):
        i = self.i(x)
        a = self.a(i)
        b = self.b(F.max_pool2d(a, 2, 2, ceil_mode=True))
        c = self.d(torch.cat((self.c(b), b), 1))
        y = self.e(torch.cat((F.interpolate(c, size=a.shape[2:], mode="bilinear"), a), 1)) + i
        p = self.k(y)
        q = F.interpolate(self.l2(c), size=p.shape[2:], mode="bilinear")
        o = self.o(torch.cat((p, q), 1))
        return (torch.sigmoid(o), torch.sigmoid(p), torch.sigmoid(q))


@listed(NETWORKS)
class MODNet(nn.Module):
    """Ke et al., 2022: mattes, with half batch and half instance normalisation."""

    def __init__(self):
        super().__init__()
        self.b = MobileBackbone(8)
        self.c = nn.Conv2d(32, 16, 3, 1, 1)
        self.bn = nn.BatchNorm2d(8)
        self.inn = nn.InstanceNorm2d(8, affine=False)
        self.l = nn.Linear(16, 16, bias=False)
        self.m = nn.Conv2d(16, 1, 1)
        self.f = nn.Conv2d(20, 1, 3, 1, 1)

    def forward(self, x):
        c = self.c(self.b(x)[2])
        y = F.relu(torch.cat([self.bn(c[:, :8].contiguous()), self.inn(c[:, 8:].contiguous())], 1))
        w = torch.sigmoid(self.l(F.adaptive_avg_pool2d(y, 1).view(y.shape[0], 16))).view(
            -1, 16, 1, 1
        )
        y = y * w.expand_as(y)
        up = F.interpolate(y, scale_factor=16, mode="bilinear", align_corners=False)
        return (torch.sigmoid(self.m(y)), torch.sigmoid(self.f(torch.cat((up, x, x[:, :1]), 1))))
