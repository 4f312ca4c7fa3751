"""Detectors."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.shared.deployed import Builder
from benchmarks.shared.deployed.blocks import (
    PSA,
    Backbone,
    C2f,
    CSPBackbone,
    DistributionHead,
    FeaturePyramid,
    PathAggregation,
    RepVGG,
    Separable,
    anchor_points,
    boxes_of_distances,
    conv_bn_act,
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
            conv_bn_act(3, 8, 3, 2, act=lambda: nn.LeakyReLU(0.1)),
            conv_bn_act(8, 16, 3, 2, act=lambda: nn.LeakyReLU(0.1)),
            conv_bn_act(16, 32, 3, 2, act=lambda: nn.LeakyReLU(0.1)),
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
