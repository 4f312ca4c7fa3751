"""Detectors."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.shared.deployed import Builder
from benchmarks.shared.deployed.blocks import (
    C3,
    PSA,
    Backbone,
    Bottleneck,
    C2f,
    CSPBackbone,
    DistributionHead,
    FeaturePyramid,
    GhostModule,
    MobileBackbone,
    PatchTransformer,
    PathAggregation,
    RepVGG,
    Separable,
    ShuffleUnit,
    anchor_points,
    boxes_of_distances,
    conv_bn_act,
    leaky,
)
from benchmarks.shared.deployed.register import listed

NETWORKS: dict[str, Builder] = {}


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.2))

    def forward(self, x):
        return x * self.scale


@listed(NETWORKS)
class YOLOv3(nn.Module):
    """Redmon and Farhadi, 2018: three anchors, boxes decoded."""

    def __init__(self, nc=3):
        super().__init__()
        self.b = nn.Sequential(
            conv_bn_act(3, 8, 3, 2, act=leaky),
            conv_bn_act(8, 16, 3, 2, act=leaky),
            conv_bn_act(16, 32, 3, 2, act=leaky),
        )
        self.h = nn.Conv2d(32, 3 * (5 + nc), 1)
        self.nc = nc
        self.anchors = torch.tensor([[10.0, 13], [16, 30], [33, 23]])

    def forward(self, x):
        p = self.h(self.b(x))
        n, _, g, _ = p.shape
        p = p.view(n, 3, 5 + self.nc, g, g).permute(0, 1, 3, 4, 2).contiguous()
        stride = x.shape[2] / g
        gx = torch.arange(g).repeat(g, 1).view(1, 1, g, g).float()
        gy = torch.arange(g).repeat(g, 1).t().view(1, 1, g, g).float()
        a = self.anchors / stride
        aw = a[:, 0].view(1, 3, 1, 1)
        ah = a[:, 1].view(1, 3, 1, 1)
        cx = torch.sigmoid(p[..., 0]) + gx
        cy = torch.sigmoid(p[..., 1]) + gy
        w = torch.exp(p[..., 2]) * aw
        h = torch.exp(p[..., 3]) * ah
        box = torch.stack((cx, cy, w, h), -1)
        return torch.cat(
            (
                box.view(n, -1, 4) * stride,
                torch.sigmoid(p[..., 4]).view(n, -1, 1),
                torch.sigmoid(p[..., 5:]).view(n, -1, self.nc),
            ),
            -1,
        )


@listed(NETWORKS)
class YOLOv5(nn.Module):
    """Ultralytics, 2020: CSP blocks, path aggregation, decoded anchors beside the raw maps."""

    def __init__(self, nc=3):
        super().__init__()
        self.b = CSPBackbone()
        self.p = PathAggregation()
        self.nc = nc
        self.no = nc + 5
        self.m = nn.ModuleList(nn.Conv2d(c, 3 * self.no, 1) for c in (32, 64))
        self.grid = [torch.empty(0)] * 2
        self.ag = [torch.empty(0)] * 2
        self.register_buffer("anchors", torch.rand(2, 3, 2) * 4)
        self.register_buffer("stride", torch.tensor([8.0, 16.0]))

    def _make(self, nx, ny, i):
        y, x = (torch.arange(ny).float(), torch.arange(nx).float())
        yv, xv = torch.meshgrid(y, x, indexing="ij")
        return (
            torch.stack((xv, yv), 2).expand(1, 3, ny, nx, 2) - 0.5,
            (self.anchors[i] * self.stride[i]).view(1, 3, 1, 1, 2).expand(1, 3, ny, nx, 2),
        )

    def forward(self, x):
        _, p2, p3 = self.b(x)
        f = self.p(p2, p3)
        z = []
        raw = []
        for i in range(2):
            y = self.m[i](f[i])
            bs, _, ny, nx = y.shape
            y = y.view(bs, 3, self.no, ny, nx).permute(0, 1, 3, 4, 2).contiguous()
            raw.append(y)
            if self.grid[i].shape[2:4] != y.shape[2:4]:
                self.grid[i], self.ag[i] = self._make(nx, ny, i)
            xy, wh, conf = y.sigmoid().split((2, 2, self.nc + 1), 4)
            xy = (xy * 2 + self.grid[i]) * self.stride[i]
            wh = (wh * 2) ** 2 * self.ag[i]
            z.append(torch.cat((xy, wh, conf), 4).view(bs, 3 * nx * ny, self.no))
        return (torch.cat(z, 1), raw)


@listed(NETWORKS)
class YOLOv6(nn.Module):
    """Li et al., 2022: RepVGG blocks in training form, no anchors."""

    def __init__(self, nc=3):
        super().__init__()
        self.b = nn.Sequential(RepVGG(3, 16, 2), RepVGG(16, 32, 2), RepVGG(32, 32))
        self.c = RepVGG(32, 64, 2)
        self.cls = nn.ModuleList(nn.Conv2d(c, nc, 1) for c in (32, 64))
        self.reg = nn.ModuleList(nn.Conv2d(c, 4, 1) for c in (32, 64))
        self.nc = nc
        self.st = nn.ModuleList(conv_bn_act(c, c, 1) for c in (32, 64))

    def forward(self, x):
        a = self.b(x)
        fs = [a, self.c(a)]
        ap, st = anchor_points(fs, (4, 8))
        cl, rg = ([], [])
        for i, f in enumerate(fs):
            b, _, h, w = f.shape
            f = self.st[i](f)
            cl.append(torch.sigmoid(self.cls[i](f)).reshape(b, self.nc, h * w))
            rg.append(self.reg[i](f).reshape(b, 4, h * w))
        cl = torch.cat(cl, -1).permute(0, 2, 1)
        rg = torch.cat(rg, -1).permute(0, 2, 1)
        box = boxes_of_distances(rg, ap) * st
        return torch.cat((box, torch.ones((box.shape[0], box.shape[1], 1)), cl), -1)


@listed(NETWORKS)
class YOLOv7(nn.Module):
    """Wang et al., 2022: ELAN, implicit knowledge, decoded anchors."""

    def __init__(self, nc=3):
        super().__init__()
        self.a = conv_bn_act(3, 16, 3, 2)
        self.e = nn.ModuleList(
            [
                conv_bn_act(16, 16, 1),
                conv_bn_act(16, 16, 1),
                conv_bn_act(16, 16),
                conv_bn_act(16, 16),
            ]
        )
        self.o = conv_bn_act(64, 32, 1)
        self.mp = nn.MaxPool2d(2, 2)
        self.h = nn.Conv2d(32, 3 * (nc + 5), 1)
        self.no = nc + 5
        self.ia = nn.Parameter(torch.randn(1, 32, 1, 1) * 0.02)
        self.im = nn.Parameter(1 + torch.randn(1, 3 * (nc + 5), 1, 1) * 0.02)
        self.register_buffer("ag", torch.rand(1, 3, 1, 1, 2) * 10)

    def forward(self, x):
        x = self.a(x)
        p = self.e[0](x)
        q = self.e[1](x)
        r = self.e[2](q)
        t = self.e[3](r)
        x = self.mp(self.o(torch.cat((t, r, q, p), 1)))
        y = self.h(x + self.ia) * self.im
        bs, _, ny, nx = y.shape
        y = y.view(bs, 3, self.no, ny, nx).permute(0, 1, 3, 4, 2).contiguous().sigmoid()
        yv, xv = torch.meshgrid([torch.arange(ny), torch.arange(nx)], indexing="ij")
        grid = torch.stack((xv, yv), 2).view((1, 1, ny, nx, 2)).float()
        xy = (y[..., 0:2] * 2.0 - 0.5 + grid) * 4
        wh = (y[..., 2:4] * 2) ** 2 * self.ag
        return torch.cat((xy, wh, y[..., 4:]), -1).view(bs, -1, self.no)


@listed(NETWORKS)
class YOLOv8(nn.Module):
    """Ultralytics, 2023: no anchors, distributions over distances."""

    def __init__(self):
        super().__init__()
        self.b = CSPBackbone(C2f)
        self.p = PathAggregation(block=C2f)
        self.h = DistributionHead((32, 64))

    def forward(self, x):
        _, a, b = self.b(x)
        return self.h(self.p(a, b))


@listed(NETWORKS)
class YOLOv10(nn.Module):
    """Wang et al., 2024: attention, and the best boxes by top-k instead of NMS."""

    def __init__(self):
        super().__init__()
        self.b = CSPBackbone(C2f)
        self.ps = PSA(64)
        self.p = PathAggregation(block=C2f)
        self.h = DistributionHead((32, 64))

    def forward(self, x):
        _, a, b = self.b(x)
        b = b + self.ps(b)
        y, _ = self.h(self.p(a, b))
        y = y.transpose(1, 2)
        box, sc = y.split((4, 3), -1)
        m = sc.amax(-1)
        m, i = torch.topk(m, 10, -1)
        i = i.unsqueeze(-1)
        box = torch.gather(box, 1, i.repeat(1, 1, 4))
        sc = torch.gather(sc, 1, i.repeat(1, 1, 3))
        sc, j = torch.topk(sc.flatten(1), 10, -1)
        lab = j % 3
        j = j // 3
        box = box.gather(1, j.unsqueeze(-1).repeat(1, 1, 4))
        return torch.cat((box, sc.unsqueeze(-1), lab.unsqueeze(-1).to(box.dtype)), -1)


@listed(NETWORKS)
class YOLOX(nn.Module):
    """Ge et al., 2021: Focus stem, decoupled heads, decoded in place."""

    def __init__(self, nc=3):
        super().__init__()
        self.b = CSPBackbone()
        self.p = PathAggregation()
        self.stems = nn.ModuleList(conv_bn_act(c, 16, 1) for c in (32, 64))
        self.c = nn.ModuleList(nn.Conv2d(16, nc, 1) for _ in range(2))
        self.r = nn.ModuleList(nn.Conv2d(16, 4, 1) for _ in range(2))
        self.o = nn.ModuleList(nn.Conv2d(16, 1, 1) for _ in range(2))
        self.focus = nn.Conv2d(12, 3, 3, 1, 1)

    def forward(self, x):
        x = torch.cat(
            (x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]), 1
        )
        x = self.focus(x)
        _, a, b = self.b(x)
        outs = []
        for i, f in enumerate(self.p(a, b)):
            f = self.stems[i](f)
            outs.append(
                torch.cat([self.r[i](f), self.o[i](f).sigmoid(), self.c[i](f).sigmoid()], 1)
            )
        self.hw = [x.shape[-2:] for x in outs]
        out = torch.cat([x.flatten(start_dim=2) for x in outs], dim=2).permute(0, 2, 1)
        grids, strides = ([], [])
        for (h, w), st in zip(self.hw, (16, 32), strict=False):
            yv, xv = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
            g = torch.stack((xv, yv), 2).view(1, -1, 2)
            grids.append(g)
            strides.append(torch.full((*g.shape[:2], 1), st))
        g = torch.cat(grids, 1).type(out.dtype)
        st = torch.cat(strides, 1).type(out.dtype)
        out[..., :2] = (out[..., :2] + g) * st
        out[..., 2:4] = torch.exp(out[..., 2:4]) * st
        return out


@listed(NETWORKS)
class SSD(nn.Module):
    """Liu et al., 2016: priors, L2-normalised features, decoded boxes."""

    def __init__(self, nc=4):
        super().__init__()
        self.b = Backbone()
        self.l = nn.ModuleList(nn.Conv2d(c, 4 * 4, 3, 1, 1) for c in (32, 64))
        self.c = nn.ModuleList(nn.Conv2d(c, 4 * nc, 3, 1, 1) for c in (32, 64))
        self.nc = nc
        self.g = nn.Parameter(torch.full((32,), 20.0))
        pr = [
            [((j + 0.5) / f, (i + 0.5) / f, 0.1 * k, 0.12 * k)]
            for f in (8, 4)
            for i in range(f)
            for j in range(f)
            for k in range(1, 5)
        ]
        self.register_buffer("priors", torch.tensor(pr).view(-1, 4))

    def forward(self, x):
        _, b, c = self.b(x)
        n = b.pow(2).sum(1, keepdim=True).sqrt() + 1e-10
        b = self.g.unsqueeze(0).unsqueeze(2).unsqueeze(3).expand_as(b) * (b / n)
        loc = torch.cat(
            [
                level(f).permute(0, 2, 3, 1).contiguous().view(f.size(0), -1)
                for level, f in zip(self.l, (b, c), strict=False)
            ],
            1,
        ).view(x.size(0), -1, 4)
        conf = torch.cat(
            [
                level(f).permute(0, 2, 3, 1).contiguous().view(f.size(0), -1)
                for level, f in zip(self.c, (b, c), strict=False)
            ],
            1,
        ).view(x.size(0), -1, self.nc)
        p = self.priors
        box = torch.cat(
            (p[:, :2] + loc[..., :2] * 0.1 * p[:, 2:], p[:, 2:] * torch.exp(loc[..., 2:] * 0.2)), 2
        )
        box = torch.cat((box[..., :2] - box[..., 2:] / 2, box[..., 2:] / 2 + box[..., :2]), 2)
        return (box, F.softmax(conf, -1))


@listed(NETWORKS)
class RetinaNet(nn.Module):
    """Lin et al., 2017: anchors computed in forward."""

    def __init__(self, nc=3, na=3):
        super().__init__()
        self.b = Backbone()
        self.f = FeaturePyramid()
        self.c = nn.Sequential(
            nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, na * nc, 3, 1, 1)
        )
        self.r = nn.Sequential(
            nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, na * 4, 3, 1, 1)
        )
        self.nc = nc
        self.na = na

    def forward(self, x):
        fs = self.f(self.b(x))
        cl, bx = ([], [])
        for f, st in zip(fs, (4, 8, 16), strict=False):
            c = self.c(f)
            n, _, h, w = c.shape
            cl.append(
                c.view(n, self.na, self.nc, h, w)
                .permute(0, 3, 4, 1, 2)
                .reshape(n, -1, self.nc)
                .sigmoid()
            )
            r = self.r(f).view(n, self.na, 4, h, w).permute(0, 3, 4, 1, 2).reshape(n, -1, 4)
            sx = torch.arange(w) * st
            sy = torch.arange(h) * st
            sy, sx = torch.meshgrid(sy, sx, indexing="ij")
            sh = torch.stack((sx.reshape(-1), sy.reshape(-1), sx.reshape(-1), sy.reshape(-1)), 1)
            base = torch.tensor([[-8.0, -8, 8, 8], [-12, -6, 12, 6], [-6, -12, 6, 12]])
            an = (sh.view(-1, 1, 4) + base.view(1, -1, 4)).reshape(-1, 4)
            wd = an[:, 2] - an[:, 0]
            hg = an[:, 3] - an[:, 1]
            cx = an[:, 0] + 0.5 * wd
            cy = an[:, 1] + 0.5 * hg
            px = r[..., 0] * wd + cx
            py = r[..., 1] * hg + cy
            pw = torch.exp(torch.clamp(r[..., 2], max=math.log(1000 / 16))) * wd
            ph = torch.exp(torch.clamp(r[..., 3], max=math.log(1000 / 16))) * hg
            bx.append(
                torch.stack((px - pw / 2, py - ph / 2, px + pw / 2, py + ph / 2), 2).clamp(0, 64)
            )
        return (torch.cat(bx, 1), torch.cat(cl, 1))


@listed(NETWORKS)
class FCOS(nn.Module):
    """Tian et al., 2019: centre-ness, a learned scale of each level."""

    def __init__(self, nc=3):
        super().__init__()
        self.b = Backbone()
        self.f = FeaturePyramid()
        self.t = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1), nn.GroupNorm(4, 16), nn.ReLU())
        self.c = nn.Conv2d(16, nc, 3, 1, 1)
        self.r = nn.Conv2d(16, 4, 3, 1, 1)
        self.n = nn.Conv2d(16, 1, 3, 1, 1)
        self.s = nn.ModuleList(Scale() for _ in range(3))
        self.nc = nc

    def forward(self, x):
        out = []
        for f, st, sc in zip(self.f(self.b(x)), (4, 8, 16), self.s, strict=False):
            t = self.t(f)
            n, _, h, w = t.shape
            cl = self.c(t).sigmoid().permute(0, 2, 3, 1).reshape(n, -1, self.nc)
            ct = self.n(t).permute(0, 2, 3, 1).reshape(n, -1, 1).sigmoid()
            r = F.relu(sc(self.r(t))).permute(0, 2, 3, 1).reshape(n, -1, 4) * st
            ys, xs = torch.meshgrid(
                torch.arange(0, h * st, st, dtype=torch.float32),
                torch.arange(0, w * st, st, dtype=torch.float32),
                indexing="ij",
            )
            p = torch.stack((xs.reshape(-1), ys.reshape(-1)), 1) + st // 2
            out.append(
                torch.cat(
                    (
                        p[:, 0] - r[..., 0],
                        p[:, 1] - r[..., 1],
                        p[:, 0] + r[..., 2],
                        p[:, 1] + r[..., 3],
                    ),
                    -1,
                )
                .view(n, 4, -1)
                .transpose(1, 2)
                if False
                else torch.cat(
                    (
                        torch.stack(
                            (
                                p[:, 0] - r[..., 0],
                                p[:, 1] - r[..., 1],
                                p[:, 0] + r[..., 2],
                                p[:, 1] + r[..., 3],
                            ),
                            -1,
                        ),
                        torch.sqrt(cl * ct),
                    ),
                    -1,
                )
            )
        return torch.cat(out, 1)


@listed(NETWORKS)
class CenterNet(nn.Module):
    """Zhou et al., 2019: peaks by max-pooling, top-k and gather."""

    def __init__(self, nc=3):
        super().__init__()
        self.b = Backbone()
        self.u = nn.Sequential(
            nn.ConvTranspose2d(64, 32, 4, 2, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 16, 4, 2, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
        )
        self.hm, self.wh, self.rg = (
            nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, k, 1))
            for k in (nc, 2, 2)
        )

    def forward(self, x):
        f = self.u(self.b(x)[2])
        hm = self.hm(f).sigmoid()
        wh = self.wh(f)
        rg = self.rg(f)
        b, c, h, w = hm.shape
        hm = hm * (F.max_pool2d(hm, 3, 1, 1) == hm).float()
        sc, ind = torch.topk(hm.view(b, c, -1), 8)
        ind = ind % (h * w)
        ys = (ind // w).float()
        xs = (ind % w).float()
        s2, i2 = torch.topk(sc.view(b, -1), 8)
        cl = (i2 // 8).float()

        def def_(t):
            return t.view(b, -1).gather(1, i2)

        ind = def_(ind)
        ys = def_(ys)
        xs = def_(xs)

        def g(t):
            return (
                t.permute(0, 2, 3, 1)
                .contiguous()
                .view(b, -1, 2)
                .gather(1, ind.unsqueeze(2).expand(b, 8, 2))
            )

        rg = g(rg)
        wh = g(wh)
        xs = xs.view(b, 8, 1) + rg[:, :, 0:1]
        ys = ys.view(b, 8, 1) + rg[:, :, 1:2]
        return torch.cat(
            (
                xs - wh[..., 0:1] / 2,
                ys - wh[..., 1:2] / 2,
                xs + wh[..., 0:1] / 2,
                ys + wh[..., 1:2] / 2,
                s2.view(b, 8, 1),
                cl.view(b, 8, 1),
            ),
            2,
        )


@listed(NETWORKS)
class EfficientDet(nn.Module):
    """Tan et al., 2020: BiFPN with normalised weights."""

    def __init__(self):
        super().__init__()
        self.b = Backbone()
        self.l = nn.ModuleList(nn.Conv2d(c, 16, 1) for c in (16, 32, 64))
        self.w1 = nn.Parameter(torch.ones(2, 2))
        self.w2 = nn.Parameter(torch.ones(3, 2))
        self.t = nn.ModuleList(Separable(16) for _ in range(4))
        self.h = Separable(16)
        self.o = nn.Conv2d(16, 6, 1)

    def forward(self, x):
        a, b, c = (level(f) for level, f in zip(self.l, self.b(x), strict=False))
        w1 = F.relu(self.w1)
        w1 = w1 / (w1.sum(0) + 0.0001)
        w2 = F.relu(self.w2)
        w2 = w2 / (w2.sum(0) + 0.0001)

        def sw(x):
            return x * x.sigmoid()

        b1 = self.t[0](
            sw(w1[0, 0] * b + w1[1, 0] * F.interpolate(c, scale_factor=2, mode="nearest"))
        )
        a1 = self.t[1](
            sw(w1[0, 1] * a + w1[1, 1] * F.interpolate(b1, scale_factor=2, mode="nearest"))
        )
        b2 = self.t[2](
            sw(
                w2[0, 0] * b
                + w2[1, 0] * b1
                + w2[2, 0] * F.max_pool2d(F.pad(a1, (0, 1, 0, 1)), 3, 2)
            )
        )
        c2 = self.t[3](sw(w2[0, 1] * c + w2[1, 1] * F.max_pool2d(F.pad(b2, (0, 1, 0, 1)), 3, 2)))
        return torch.cat(
            [
                self.o(sw(self.h(f))).permute(0, 2, 3, 1).reshape(f.shape[0], -1, 6)
                for f in (a1, b2, c2)
            ],
            1,
        )


@listed(NETWORKS)
class DETR(nn.Module):
    """Carion et al., 2020: transformer, learned queries."""

    def __init__(self, d=32):
        super().__init__()
        self.b = Backbone()
        self.p = nn.Conv2d(64, d, 1)
        self.t = nn.Transformer(d, 4, 1, 1, 64, 0.0, batch_first=False)
        self.c = nn.Linear(d, 4)
        self.x = nn.Linear(d, 4)
        self.q = nn.Parameter(torch.rand(10, d))
        self.r = nn.Parameter(torch.rand(50, d // 2))
        self.co = nn.Parameter(torch.rand(50, d // 2))

    def forward(self, x):
        h = self.p(self.b(x)[2])
        H, W = h.shape[-2:]
        pos = (
            torch.cat(
                [self.co[:W].unsqueeze(0).repeat(H, 1, 1), self.r[:H].unsqueeze(1).repeat(1, W, 1)],
                -1,
            )
            .flatten(0, 1)
            .unsqueeze(1)
        )
        h = self.t(
            pos + 0.1 * h.flatten(2).permute(2, 0, 1),
            self.q.unsqueeze(1).expand(-1, x.shape[0], -1),
        ).transpose(0, 1)
        return (self.c(h), self.x(h).sigmoid())


@listed(NETWORKS)
class RTDETR(nn.Module):
    """Zhao et al., 2023: queries are the best tokens of the encoder."""

    def __init__(self, d=32, nc=3):
        super().__init__()
        self.b = Backbone()
        self.pr = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, d, 1, bias=False), nn.BatchNorm2d(d)) for c in (32, 64)
        )
        self.e = nn.TransformerEncoderLayer(d, 4, 64, 0.0, "gelu", batch_first=True)
        self.eo = nn.Linear(d, d)
        self.n = nn.LayerNorm(d)
        self.cl = nn.Linear(d, nc)
        self.bx = nn.Linear(d, 4)
        self.de = nn.TransformerDecoderLayer(d, 4, 64, 0.0, batch_first=True)

    def forward(self, x):
        _, b, c = self.b(x)
        b = self.pr[0](b)
        c = self.pr[1](c)
        n, d, h, w = c.shape
        gw, gh = torch.meshgrid(torch.arange(w).float(), torch.arange(h).float(), indexing="ij")
        om = 1 / 10000 ** (torch.arange(d // 4) / (d // 4))
        ow = gw.flatten()[..., None] @ om[None]
        oh = gh.flatten()[..., None] @ om[None]
        pe = torch.cat([ow.sin(), ow.cos(), oh.sin(), oh.cos()], 1)[None]
        c = self.e(c.flatten(2).permute(0, 2, 1) + pe).permute(0, 2, 1).reshape(n, d, h, w)
        mem = torch.cat([b.flatten(2).permute(0, 2, 1), c.flatten(2).permute(0, 2, 1)], 1)
        an = []
        for (hh, ww), level in (((8, 8), 0), ((4, 4), 1)):
            gy, gx = torch.meshgrid(torch.arange(hh), torch.arange(ww), indexing="ij")
            g = (torch.stack([gx, gy], -1).unsqueeze(0) + 0.5) / torch.tensor([ww, hh])
            an.append(
                torch.cat([g, torch.ones_like(g) * 0.05 * 2**level], -1).reshape(-1, hh * ww, 4)
            )
        an = torch.cat(an, 1)
        valid = ((an > 0.01) * (an < 0.99)).all(-1, keepdim=True)
        an = torch.log(an / (1 - an))
        an = torch.where(valid, an, torch.tensor(10000.0).expand_as(an))
        mem = torch.where(valid, mem, torch.zeros_like(mem))
        o = self.n(self.eo(mem))
        cl = self.cl(o)
        co = self.bx(o) + an
        _, t = torch.topk(cl.max(-1).values, 6, dim=1)
        ref = co.gather(1, t.unsqueeze(-1).repeat(1, 1, 4))
        tg = o.gather(1, t.unsqueeze(-1).repeat(1, 1, d))
        y = self.de(tg, mem)
        return ((self.bx(y) + ref).sigmoid(), self.cl(y))


@listed(NETWORKS)
class YOLOv1(nn.Module):
    """Redmon et al., 2016: a grid out of fully connected layers."""

    def __init__(self):
        super().__init__()
        self.b = nn.Sequential(
            conv_bn_act(3, 16, 7, 2, act=leaky),
            nn.MaxPool2d(2),
            conv_bn_act(16, 32, 3, 2, act=leaky),
            nn.MaxPool2d(2),
        )
        self.f = nn.Sequential(
            nn.Flatten(),
            nn.Linear(32 * 16, 64),
            nn.LeakyReLU(0.1),
            nn.Dropout(),
            nn.Linear(64, 4 * 4 * 13),
        )

    def forward(self, x):
        y = self.f(self.b(x)).reshape(-1, 4, 4, 13)
        return torch.cat((y[..., :3].softmax(-1), y[..., 3:5].sigmoid(), y[..., 5:].pow(2)), -1)


@listed(NETWORKS)
class YOLOv2(nn.Module):
    """Redmon and Farhadi, 2017: passthrough layer, anchors."""

    def __init__(self):
        super().__init__()
        self.a = nn.Sequential(
            conv_bn_act(3, 8, act=leaky),
            nn.MaxPool2d(2),
            conv_bn_act(8, 16, act=leaky),
            nn.MaxPool2d(2),
            conv_bn_act(16, 16, 1, act=leaky),
        )
        self.b = nn.Sequential(nn.MaxPool2d(2), conv_bn_act(16, 32, act=leaky))
        self.o = nn.Conv2d(96, 5 * 8, 1)
        self.register_buffer("anchors", torch.rand(5, 2) * 4 + 1)

    def forward(self, x):
        f = self.a(x)
        n, c, h, w = f.shape
        p = (
            f.view(n, c, h // 2, 2, w // 2, 2)
            .permute(0, 3, 5, 1, 2, 4)
            .reshape(n, 4 * c, h // 2, w // 2)
        )
        y = self.o(torch.cat((p, self.b(f)), 1))
        y = y.view(n, 5, 8, -1).permute(0, 3, 1, 2)
        return torch.cat(
            (
                y[..., :2].sigmoid(),
                y[..., 2:4].exp() * self.anchors,
                y[..., 4:5].sigmoid(),
                y[..., 5:].softmax(-1),
            ),
            -1,
        )


@listed(NETWORKS)
class YOLOv3Tiny(nn.Module):
    """Redmon and Farhadi, 2018: pooling at stride 1 behind a padded border, two scales."""

    def __init__(self):
        super().__init__()
        self.a = nn.Sequential(
            conv_bn_act(3, 8, act=leaky),
            nn.MaxPool2d(2, 2),
            conv_bn_act(8, 16, act=leaky),
            nn.MaxPool2d(2, 2),
            conv_bn_act(16, 32, act=leaky),
        )
        self.b = nn.Sequential(
            nn.MaxPool2d(2, 2),
            conv_bn_act(32, 64, act=leaky),
            nn.ZeroPad2d((0, 1, 0, 1)),
            nn.MaxPool2d(2, 1),
            conv_bn_act(64, 32, 1, act=leaky),
        )
        self.l = conv_bn_act(32, 16, 1, act=leaky)
        self.u = nn.Upsample(scale_factor=2, mode="nearest")
        self.o1 = nn.Conv2d(32, 24, 1)
        self.o2 = nn.Conv2d(48, 24, 1)

    def forward(self, x):
        a = self.a(x)
        b = self.b(a)
        return (self.o1(b), self.o2(torch.cat((self.u(self.l(b)), a), 1)))


class SpatialPyramid(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.a = conv_bn_act(c, c // 2, 1, act=nn.Mish)
        self.m = nn.ModuleList(nn.MaxPool2d(k, 1, k // 2) for k in (5, 9, 13))
        self.b = conv_bn_act(2 * c, c, 1, act=nn.Mish)

    def forward(self, x):
        x = self.a(x)
        return self.b(torch.cat([m(x) for m in self.m] + [x], 1))


@listed(NETWORKS)
class YOLOv4(nn.Module):
    """Bochkovskiy et al., 2020: Mish, spatial pyramid, scaled sigmoid."""

    def __init__(self):
        super().__init__()
        self.a = nn.Sequential(
            conv_bn_act(3, 16, 3, 2, act=nn.Mish), conv_bn_act(16, 32, 3, 2, act=nn.Mish)
        )
        self.l = conv_bn_act(32, 16, 1, act=nn.Mish)
        self.r = conv_bn_act(32, 16, 1, act=nn.Mish)
        self.m = Bottleneck(16, nn.Mish)
        self.c = nn.Sequential(conv_bn_act(32, 64, 3, 2, act=nn.Mish), SpatialPyramid(64))
        self.o = nn.Conv2d(64, 24, 1)

    def forward(self, x):
        x = self.a(x)
        x = self.c(torch.cat((self.m(self.l(x)), self.r(x)), 1))
        y = self.o(x)
        n, _, h, w = y.shape
        y = y.view(n, 3, 8, h * w)
        xy = y[:, :, :2].sigmoid() * 1.05 - 0.025
        grid = torch.stack(
            (torch.arange(w).repeat(h), torch.arange(h).repeat_interleave(w))
        ).float()
        return (
            torch.cat(((xy + grid) / w, y[:, :, 2:4].exp() / w, y[:, :, 4:].sigmoid()), 2)
            .transpose(2, 3)
            .reshape(n, -1, 8)
        )


class ADown(nn.Module):
    """YOLOv9's: average pooling, then a convolution and a pooling of a half each."""

    def __init__(self, i, o):
        super().__init__()
        self.a = conv_bn_act(i // 2, o // 2, 3, 2)
        self.b = conv_bn_act(i // 2, o // 2, 1)

    def forward(self, x):
        x = F.avg_pool2d(x, 2, 1, 0, False, True)
        a, b = x.chunk(2, 1)
        return torch.cat((self.a(a), self.b(F.max_pool2d(b, 3, 2, 1))), 1)


class RepConv(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.a = conv_bn_act(c, c, 3, act=nn.Identity)
        self.b = conv_bn_act(c, c, 1, act=nn.Identity)

    def forward(self, x):
        return F.silu(self.a(x) + self.b(x))


class GELAN(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.a = conv_bn_act(i, o, 1)
        self.m = nn.ModuleList(
            nn.Sequential(RepConv(o // 2), conv_bn_act(o // 2, o // 2)) for _ in range(2)
        )
        self.o = conv_bn_act(2 * o, o, 1)

    def forward(self, x):
        y = list(self.a(x).chunk(2, 1))
        y.extend(m(y[-1]) for m in self.m)
        return self.o(torch.cat(y, 1))


@listed(NETWORKS)
class YOLOv9(nn.Module):
    """Wang et al., 2024: GELAN, ADown, distributions over distances."""

    def __init__(self):
        super().__init__()
        self.a = nn.Sequential(conv_bn_act(3, 16, 3, 2), conv_bn_act(16, 32, 3, 2), GELAN(32, 32))
        self.d = ADown(32, 32)
        self.b = GELAN(32, 32)
        self.e = ADown(32, 64)
        self.c = GELAN(64, 64)
        self.h = DistributionHead((32, 64))

    def forward(self, x):
        a = self.b(self.d(self.a(x)))
        return self.h([a, self.c(self.e(a))])[0]


class C3k2(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.a = conv_bn_act(i, o, 1)
        self.m = C3(o // 2, o // 2, 2)
        self.b = conv_bn_act(3 * o // 2, o, 1)

    def forward(self, x):
        y = list(self.a(x).split(self.a[0].out_channels // 2, 1))
        y.append(self.m(y[-1]))
        return self.b(torch.cat(y, 1))


class C2PSA(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.a = conv_bn_act(c, c, 1)
        self.p = PSA(c // 2)
        self.f = nn.Sequential(
            conv_bn_act(c // 2, c, 1), conv_bn_act(c, c // 2, 1, act=nn.Identity)
        )
        self.b = conv_bn_act(c, c, 1)

    def forward(self, x):
        a, b = self.a(x).chunk(2, 1)
        b = b + self.p(b)
        b = b + self.f(b)
        return self.b(torch.cat((a, b), 1))


@listed(NETWORKS)
class YOLO11(nn.Module):
    """Ultralytics, 2024: C3k2, C2PSA, depthwise class head."""

    def __init__(self):
        super().__init__()
        self.b = CSPBackbone(C3k2)
        self.p = C2PSA(64)
        self.n = PathAggregation(block=C3k2)
        self.h = DistributionHead((32, 64))
        self.h.cv3 = nn.ModuleList(
            nn.Sequential(
                conv_bn_act(c, c, 3, 1, c),
                conv_bn_act(c, 16, 1),
                conv_bn_act(16, 16, 3, 1, 16),
                nn.Conv2d(16, 3, 1),
            )
            for c in (32, 64)
        )

    def forward(self, x):
        _, a, b = self.b(x)
        return self.h(self.n(a, self.p(b)))


@listed(NETWORKS)
class YOLOv8OBB(nn.Module):
    """Ultralytics, 2024: rotated boxes, an angle for each."""

    def __init__(self):
        super().__init__()
        self.b = CSPBackbone(C2f)
        self.h = DistributionHead((32, 64))
        self.a = nn.ModuleList(
            nn.Sequential(conv_bn_act(c, 8), nn.Conv2d(8, 1, 1)) for c in (32, 64)
        )

    def forward(self, x):
        fs = self.b(x)[1:]
        n = x.shape[0]
        an = torch.cat([m(f).view(n, 1, -1) for m, f in zip(self.a, fs, strict=False)], 2)
        an = (an.sigmoid() - 0.25) * math.pi
        _, raw = self.h(list(fs))
        ap, st = (t.transpose(0, 1) for t in anchor_points(raw, (8, 16)))
        y = torch.cat([r.view(n, 35, -1) for r in raw], 2)
        d, c = y.split((32, 3), 1)
        lt, rb = self.h.dfl(d).split(2, 1)
        co, si = (an.cos(), an.sin())
        xf, yf = ((rb - lt) / 2).split(1, 1)
        xy = torch.cat((xf * co - yf * si, xf * si + yf * co), 1) + ap
        return torch.cat((torch.cat((xy, lt + rb), 1) * st, c.sigmoid(), an), 1)


@listed(NETWORKS)
class SSDLite(nn.Module):
    """Sandler et al., 2018: inverted residuals, separable heads."""

    def __init__(self):
        super().__init__()
        self.b = MobileBackbone()

        def h(c, k):
            return nn.Sequential(conv_bn_act(c, c, 3, 1, c, act=nn.ReLU6), nn.Conv2d(c, k, 1))

        self.l = nn.ModuleList(h(c, 24) for c in (32, 64))
        self.c = nn.ModuleList(h(c, 18) for c in (32, 64))

    def forward(self, x):
        fs = self.b(x)[1:]

        def f(ms, k):
            return torch.cat(
                [
                    m(a).permute(0, 2, 3, 1).reshape(a.shape[0], -1, k)
                    for m, a in zip(ms, fs, strict=False)
                ],
                1,
            )

        return (f(self.l, 4), f(self.c, 3).softmax(-1))


@listed(NETWORKS)
class NanoDet(nn.Module):
    """RangiLyu, 2021: shuffle units, ghost neck, integral over distances."""

    def __init__(self):
        super().__init__()
        self.a = nn.Sequential(
            conv_bn_act(3, 16, 3, 2, act=leaky),
            nn.MaxPool2d(3, 2, 1),
            ShuffleUnit(16),
            conv_bn_act(16, 32, 3, 2, act=leaky),
            ShuffleUnit(32),
        )
        self.b = nn.Sequential(conv_bn_act(32, 32, 3, 2, act=leaky), ShuffleUnit(32))
        self.g = GhostModule(64, 32)
        self.o = nn.Conv2d(32, 3 + 4 * 8, 1)
        self.register_buffer("p", torch.linspace(0, 7, 8))

    def forward(self, x):
        a = self.a(x)
        b = self.b(a)
        g = self.g(torch.cat((F.interpolate(b, scale_factor=2, mode="bilinear"), a), 1))
        y = torch.cat([self.o(f).flatten(2) for f in (g, b)], 2).permute(0, 2, 1)
        c, r = y.split([3, 32], -1)
        r = F.linear(r.reshape(*r.shape[:-1], 4, 8).softmax(-1), self.p[None]).squeeze(-1)
        return (c.sigmoid(), r)


class EffectiveSE(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.f = nn.Conv2d(c, c, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.f(x.mean((2, 3), keepdim=True)))


@listed(NETWORKS)
class PPYOLOE(nn.Module):
    """Xu et al., 2022: RepVGG branches weighted, effective squeeze, task-aligned head."""

    def __init__(self):
        super().__init__()
        self.a = nn.Sequential(conv_bn_act(3, 16, 3, 2), conv_bn_act(16, 32, 3, 2))
        self.r3 = conv_bn_act(32, 32, 3, act=nn.Identity)
        self.r1 = conv_bn_act(32, 32, 1, act=nn.Identity)
        self.al = nn.Parameter(torch.ones(1))
        self.e = EffectiveSE(32)
        self.d = conv_bn_act(32, 32, 3, 2)
        self.sc = nn.Conv2d(32, 32, 1)
        self.sr = nn.Conv2d(32, 32, 1)
        self.c = nn.Conv2d(32, 3, 3, 1, 1)
        self.g = nn.Conv2d(32, 4 * 8, 3, 1, 1)
        self.register_buffer("p", torch.arange(8.0).view(1, 8, 1, 1))

    def forward(self, x):
        x = self.a(x)
        x = self.e(F.silu(self.r3(x) + self.al * self.r1(x)))
        x = self.d(x)
        n, _, h, w = x.shape
        v = F.adaptive_avg_pool2d(x, (1, 1))
        c = self.c(x * self.sc(v).sigmoid() + x)
        g = self.g(x * self.sr(v).sigmoid())
        g = g.reshape(-1, 4, 8, h * w).permute(0, 2, 3, 1)
        return (c.sigmoid().reshape(n, 3, -1), F.conv2d(F.softmax(g, 1), self.p))


@listed(NETWORKS)
class CornerNet(nn.Module):
    """Law and Deng, 2018: corner pooling by running maxima."""

    def __init__(self):
        super().__init__()
        self.b = Backbone()
        self.t = nn.Conv2d(16, 16, 3, 1, 1)
        self.l = nn.Conv2d(16, 16, 3, 1, 1)
        self.o = nn.Conv2d(16, 3, 1)
        self.e = nn.Conv2d(16, 1, 1)

    def forward(self, x):
        f = self.b(x)[0]
        t = self.t(f).relu().flip(2).cummax(2)[0].flip(2)
        q = self.l(f).relu().flip(3).cummax(3)[0].flip(3)
        y = F.relu(t + q)
        return (self.o(y).sigmoid(), self.e(y))


@listed(NETWORKS)
class RegionProposals(nn.Module):
    """Faster R-CNN's first stage (Ren et al., 2015): decoded anchors, the best eight."""

    def __init__(self):
        super().__init__()
        self.b = Backbone()
        self.c = nn.Conv2d(64, 32, 3, 1, 1)
        self.o = nn.Conv2d(32, 3, 1)
        self.d = nn.Conv2d(32, 12, 1)

    def forward(self, x):
        f = F.relu(self.c(self.b(x)[2]))
        n, _, h, w = f.shape
        o = self.o(f).permute(0, 2, 3, 1).reshape(n, -1)
        d = self.d(f).view(n, 3, 4, h, w).permute(0, 3, 4, 1, 2).reshape(n, -1, 4)
        ys, xs = torch.meshgrid(torch.arange(h) * 16.0, torch.arange(w) * 16.0, indexing="ij")
        c = torch.stack((xs, ys), -1).reshape(-1, 1, 2) + 8
        sz = torch.tensor([[16.0, 16.0], [32.0, 16.0], [16.0, 32.0]])[None]
        c = c.expand(-1, 3, 2).reshape(-1, 2)
        sz = sz.expand(h * w, 3, 2).reshape(-1, 2)
        ctr = d[..., :2] * sz + c
        wh = torch.exp(d[..., 2:].clamp(max=4.0)) * sz
        box = torch.cat((ctr - wh / 2, ctr + wh / 2), -1).clamp(0, 64)
        sc, i = o.topk(8, 1)
        return (torch.take_along_dim(box, i.unsqueeze(-1), 1), sc.sigmoid())


@listed(NETWORKS)
class YOLOF(nn.Module):
    """Chen et al., 2021: one level, dilated residuals, classes normalised by objectness."""

    def __init__(self):
        super().__init__()
        self.b = Backbone()
        self.l = conv_bn_act(64, 32, 1, act=nn.Identity)
        self.d = nn.ModuleList(
            nn.Sequential(
                conv_bn_act(32, 16, 1, act=nn.ReLU),
                conv_bn_act(16, 16, 3, d=d, act=nn.ReLU),
                conv_bn_act(16, 32, 1, act=nn.ReLU),
            )
            for d in (1, 2, 3)
        )
        self.c = nn.Conv2d(32, 9, 3, 1, 1)
        self.o = nn.Conv2d(32, 3, 3, 1, 1)

    def forward(self, x):
        x = self.l(self.b(x)[2])
        for d in self.d:
            x = x + d(x)
        c, o = (self.c(x), self.o(x))
        n, _, h, w = c.shape
        c = c.view(n, 3, 3, h, w)
        o = o.view(n, 3, 1, h, w)
        return (
            (
                c
                + o
                - torch.log(
                    1.0
                    + torch.clamp(c.exp(), max=100000000.0)
                    + torch.clamp(o.exp(), max=100000000.0)
                )
            )
            .view(n, -1, h, w)
            .sigmoid()
        )


@listed(NETWORKS)
class DeformableDETR(nn.Module):
    """Zhu et al., 2021: values sampled at predicted places of two levels."""

    def __init__(self, d=32):
        super().__init__()
        self.b = Backbone()
        self.p = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, d, 1), nn.GroupNorm(8, d)) for c in (32, 64)
        )
        self.q = nn.Parameter(torch.randn(6, d))
        self.r = nn.Linear(d, 2)
        self.so = nn.Linear(d, 4 * 2 * 2 * 2)
        self.aw = nn.Linear(d, 4 * 4)
        self.v = nn.Linear(d, d)
        self.o = nn.Linear(d, d)
        self.n = nn.LayerNorm(d)
        self.c = nn.Linear(d, 3)
        self.x = nn.Linear(d, 4)

    def forward(self, x):
        fs = [p(f) for p, f in zip(self.p, self.b(x)[1:], strict=False)]
        n = x.shape[0]
        q = self.q[None].expand(n, -1, -1)
        ref = self.r(q).sigmoid()
        off = self.so(q).view(n, 6, 4, 2, 2, 2) * 0.1
        w = self.aw(q).view(n, 6, 4, 4).softmax(-1)
        out = []
        for i, f in enumerate(fs):
            h, wd = f.shape[-2:]
            v = (
                self.v(f.flatten(2).transpose(1, 2))
                .view(n, h * wd, 4, 8)
                .permute(0, 2, 3, 1)
                .reshape(n * 4, 8, h, wd)
            )
            loc = 2 * (ref[:, :, None, None] + off[:, :, :, i]) - 1
            g = loc.transpose(1, 2).flatten(0, 1)
            out.append(
                F.grid_sample(v, g, mode="bilinear", padding_mode="zeros", align_corners=False)
            )
        v = torch.cat(out, -1) * w.transpose(1, 2).reshape(n * 4, 1, 6, 4)
        y = self.n(q + self.o(v.sum(-1).view(n, 32, 6).transpose(1, 2)))
        return (
            self.c(y),
            (self.x(y) + torch.logit(F.pad(ref, (0, 2), value=0.5), eps=1e-05)).sigmoid(),
        )


@listed(NETWORKS)
class YOLOS(nn.Module):
    """Fang et al., 2021: detection tokens in a plain ViT."""

    def __init__(self):
        super().__init__()
        self.v = PatchTransformer(extra=6)
        self.n = nn.LayerNorm(32)

        def m(k):
            return nn.Sequential(
                nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, k)
            )

        self.c = m(4)
        self.b = m(4)

    def forward(self, x):
        y = self.n(self.v(x))[:, :6]
        return {"logits": self.c(y), "boxes": self.b(y).sigmoid()}


@listed(NETWORKS)
class PicoDet(nn.Module):
    """Yu et al., 2021: LCNet with h-swish and squeeze, depthwise neck of 5×5."""

    def __init__(self):
        super().__init__()
        h = nn.Hardswish
        self.b = MobileBackbone(se=True, act=h)
        self.r = nn.ModuleList(conv_bn_act(c, 24, 1, act=h) for c in (32, 64))
        self.d = nn.Sequential(conv_bn_act(48, 48, 5, 1, 48, act=h), conv_bn_act(48, 24, 1, act=h))
        self.u = nn.Sequential(conv_bn_act(24, 24, 5, 2, 24, act=h), conv_bn_act(24, 24, 1, act=h))
        self.o = nn.Conv2d(24, 3 + 32, 1)

    def forward(self, x):
        a, b = (r(f) for r, f in zip(self.r, self.b(x)[1:], strict=False))
        a = self.d(torch.cat((F.interpolate(b, scale_factor=2.0, mode="nearest"), a), 1))
        b = b + self.u(a)
        ys = [self.o(f) for f in (a, b)]
        return (
            torch.cat([y[:, :3].sigmoid().flatten(2) for y in ys], 2),
            torch.cat([y[:, 3:].flatten(2) for y in ys], 2),
        )


@listed(NETWORKS)
class RTMDet(nn.Module):
    """Lyu et al., 2022: large depthwise kernels, heads that share weights but not batch norms."""

    def __init__(self):
        super().__init__()
        self.a = nn.Sequential(
            conv_bn_act(3, 16, 3, 2),
            conv_bn_act(16, 32, 3, 2),
            conv_bn_act(32, 32, 5, 1, 32),
            conv_bn_act(32, 32, 1),
        )
        self.b = nn.Sequential(
            conv_bn_act(32, 32, 3, 2), conv_bn_act(32, 32, 5, 1, 32), conv_bn_act(32, 32, 1)
        )
        self.c = nn.Conv2d(32, 32, 3, 1, 1, bias=False)
        self.n = nn.ModuleList(nn.BatchNorm2d(32) for _ in range(2))
        self.o = nn.Conv2d(32, 3, 1)
        self.r = nn.Conv2d(32, 4, 1)

    def forward(self, x):
        a = self.a(x)
        out = []
        for f, bn, st in zip((a, self.b(a)), self.n, (4, 8), strict=False):
            y = F.silu(bn(self.c(f)))
            out += [self.o(y).sigmoid(), self.r(y).exp() * st]
        return tuple(out)
