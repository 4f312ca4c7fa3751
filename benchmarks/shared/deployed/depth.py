"""Depth, stereo and optical flow."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.shared.deployed import Builder
from benchmarks.shared.deployed.blocks import (
    Backbone,
    FeaturePyramid,
    MobileBackbone,
    PatchTransformer,
    conv_bn_act,
)
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


@listed(NETWORKS)
class MonoDepth2(nn.Module):
    """Godard et al., 2019: reflected borders, ELU, disparities of four scales to depth."""

    def __init__(self):
        super().__init__()
        self.b = Backbone()

        def c(i, o):
            return nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(i, o, 3), nn.ELU(inplace=True))

        self.u = nn.ModuleList((c(64, 32), c(32, 16), c(16, 16)))
        self.v = nn.ModuleList((c(64, 32), c(32, 16), c(16, 16)))
        self.o = nn.ModuleList(
            nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(k, 1, 3)) for k in (32, 16, 16)
        )

    def forward(self, x):
        a, b, y = self.b((x - 0.45) / 0.225)
        out = []
        for u, v, o, k in zip(self.u, self.v, self.o, (b, a, None), strict=False):
            y = F.interpolate(u(y), scale_factor=2, mode="nearest")
            y = v(torch.cat((y, k), 1) if k is not None else y)
            out.append(1 / (0.01 + 9.99 * torch.sigmoid(o(y))))
        return tuple(out)


@listed(NETWORKS)
class FastDepth(nn.Module):
    """Wofk et al., 2019: depthwise 5×5 decoder, nearest upsampling, added skips."""

    def __init__(self):
        super().__init__()
        self.b = MobileBackbone()

        def d(i, o):
            return nn.Sequential(
                conv_bn_act(i, i, 5, 1, i, act=nn.ReLU), conv_bn_act(i, o, 1, act=nn.ReLU)
            )

        self.d = nn.ModuleList((d(64, 32), d(32, 16), d(16, 8)))
        self.o = conv_bn_act(8, 1, 1, act=nn.ReLU)

    def forward(self, x):
        a, b, c = self.b(x)

        def up(f):
            return F.interpolate(f, scale_factor=2, mode="nearest")

        y = up(self.d[0](c)) + b
        y = up(self.d[1](y)) + a
        return self.o(up(self.d[2](y)))


@listed(NETWORKS)
class DORN(nn.Module):
    """Fu et al., 2018: ordinal regression, pairs of scores counted."""

    def __init__(self):
        super().__init__()
        self.b = Backbone()
        self.f = nn.Linear(64, 16)
        self.c = nn.Conv2d(64, 16, 1)
        self.d = nn.Conv2d(64, 16, 3, padding=6, dilation=6)
        self.o = nn.Conv2d(48, 16, 1)

    def forward(self, x):
        f = self.b(x)[2]
        e = F.relu(self.f(F.avg_pool2d(f, 4).flatten(1)))[:, :, None, None].expand(
            -1, -1, *f.shape[2:]
        )
        y = self.o(torch.cat((F.relu(self.c(f)), F.relu(self.d(f)), e), 1))
        a, b = (y[:, ::2].clone(), y[:, 1::2].clone())
        p = F.softmax(torch.stack((a, b), 1).clamp(1e-08, 10000.0), 1)[:, 1]
        return (torch.sum(p > 0.5, 1, keepdim=True).float(), p)


@listed(NETWORKS)
class AdaBins(nn.Module):
    """Bhat et al., 2021: bins adapted to the image, by a transformer."""

    def __init__(self):
        super().__init__()
        self.b = Backbone()
        self.e = nn.Conv2d(16, 32, 4, 4)
        self.p = nn.Parameter(torch.rand(16, 32))
        self.t = nn.TransformerEncoderLayer(32, 4, 64, 0.0)
        self.r = nn.Sequential(nn.Linear(32, 32), nn.LeakyReLU(), nn.Linear(32, 8))
        self.q = nn.Conv2d(16, 32, 3, 1, 1)
        self.o = nn.Conv2d(4, 8, 1)

    def forward(self, x):
        f = self.b(x)[0]
        t = self.t((self.e(f).flatten(2) + self.p.T.unsqueeze(0)).permute(2, 0, 1))
        y = F.relu(self.r(t[0])) + 0.1
        y = y / y.sum(1, keepdim=True)
        w = F.pad(9.9 * y, (1, 0), value=0.1)
        e = torch.cumsum(w, 1)
        c = 0.5 * (e[:, :-1] + e[:, 1:])
        q = self.q(f)
        n, k, h, ww = q.shape
        m = (
            torch.matmul(q.view(n, k, h * ww).permute(0, 2, 1), t[1:5].permute(1, 2, 0))
            .permute(0, 2, 1)
            .view(n, 4, h, ww)
        )
        p = self.o(m).softmax(1)
        return (e, torch.sum(p * c.view(n, 8, 1, 1), 1, keepdim=True))


@listed(NETWORKS)
class BTS(nn.Module):
    """Lee et al., 2019: planes of four numbers guide local depth."""

    def __init__(self):
        super().__init__()
        self.b = Backbone()
        self.r = nn.Conv2d(64, 3, 1)
        self.o = nn.Conv2d(17, 1, 3, 1, 1)
        u = (torch.arange(4).reshape(1, 1, 4).float() - 1.5) / 4
        self.register_buffer("u", u)
        self.register_buffer("v", u.reshape(1, 4, 1))

    def forward(self, x):
        a, _, c = self.b(x)
        p = torch.sigmoid(self.r(c))
        th = p[:, 0:1] * math.pi / 3
        ph = p[:, 1:2] * math.pi * 2
        d = p[:, 2:3] * 10
        n = torch.cat(
            (torch.sin(th) * torch.cos(ph), torch.sin(th) * torch.sin(ph), torch.cos(th), d), 1
        )
        n = torch.cat((F.normalize(n[:, :3], 2, 1), d), 1)
        e = n.repeat_interleave(4, 2).repeat_interleave(4, 3)
        u = self.u.repeat(n.size(0), 16, 4)
        v = self.v.repeat(n.size(0), 4, 16)
        level = e[:, 3] / (
            e[:, 0] * u.reshape(-1, 16, 16) + e[:, 1] * v.reshape(-1, 16, 16) + e[:, 2]
        )
        return (level, torch.sigmoid(self.o(torch.cat((a, level.unsqueeze(1) / 10), 1))))


@listed(NETWORKS)
class DPT(nn.Module):
    """Ranftl et al., 2021: tokens reassembled at two resolutions, read-out token projected."""

    def __init__(self):
        super().__init__()
        self.v = PatchTransformer(extra=1)
        self.p = nn.Sequential(nn.Linear(64, 32), nn.GELU())
        self.a = nn.ConvTranspose2d(32, 16, 2, 2)
        self.c = nn.Conv2d(32, 16, 3, 1, 1)
        self.r = nn.Sequential(
            nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1)
        )
        self.o = nn.Sequential(nn.Conv2d(16, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 1, 1), nn.ReLU())

    def forward(self, x):
        t = self.v(x)
        r = t[:, 0].unsqueeze(1).expand_as(t[:, 1:])
        f = self.p(torch.cat((t[:, 1:], r), -1)).transpose(1, 2).unflatten(2, torch.Size([8, 8]))
        y = F.interpolate(self.c(f), scale_factor=2, mode="bilinear", align_corners=True) + self.a(
            f
        )
        y = y + self.r(y)
        return self.o(
            F.interpolate(y, size=(64, 64), mode="bilinear", align_corners=False)
        ).squeeze(1)


class StereoFeatures(nn.Sequential):
    def __init__(self):
        super().__init__(
            conv_bn_act(3, 16, 3, 2, act=nn.ReLU),
            conv_bn_act(16, 16, 3, 2, act=nn.ReLU),
            nn.Conv2d(16, 16, 3, 1, 1),
        )


@listed(NETWORKS, (1, 3, 32, 64), (1, 3, 32, 64))
class PSMNet(nn.Module):
    """Chang and Chen, 2018: concatenated cost volume, 3-D convolutions, expected disparity."""

    def __init__(self, d=4):
        super().__init__()
        self.f = StereoFeatures()
        self.c = nn.Sequential(
            nn.Conv3d(32, 16, 3, padding=1, bias=False),
            nn.BatchNorm3d(16),
            nn.ReLU(),
            nn.Conv3d(16, 1, 3, padding=1),
        )
        self.d = d

    def forward(self, a, b):
        a, b = (self.f(a), self.f(b))
        n, c, h, w = a.shape
        v = a.new_zeros(n, 2 * c, self.d, h, w)
        for i in range(self.d):
            if i > 0:
                v[:, :c, i, :, i:] = a[:, :, :, i:]
                v[:, c:, i, :, i:] = b[:, :, :, :-i]
            else:
                v[:, :c, i] = a
                v[:, c:, i] = b
        y = F.interpolate(
            self.c(v.contiguous()), size=(16, 32, 64), mode="trilinear", align_corners=False
        ).squeeze(1)
        return torch.sum(F.softmax(y, 1) * torch.arange(16.0).view(1, -1, 1, 1), 1)


@listed(NETWORKS, (1, 3, 32, 64), (1, 3, 32, 64))
class GwcNet(nn.Module):
    """Guo et al., 2019: group-wise correlation, a 3-D hourglass."""

    def __init__(self, d=4):
        super().__init__()
        self.f = StereoFeatures()
        self.a = nn.Sequential(nn.Conv3d(4, 8, 3, 2, 1), nn.BatchNorm3d(8), nn.ReLU())
        self.u = nn.ConvTranspose3d(8, 4, 3, 2, 1, 1, bias=False)
        self.r = nn.Conv3d(4, 4, 1)
        self.o = nn.Conv3d(4, 1, 3, padding=1)
        self.d = d

    def forward(self, a, b):
        a, b = (self.f(a), self.f(b))
        n, c, h, w = a.shape

        def g(x, y):
            return (x * y).view(n, 4, c // 4, h, w).mean(2)

        v = torch.stack([g(a, F.pad(b, (i, 0, 0, 0))[..., :w]) for i in range(self.d)], 2)
        v = F.relu(self.u(self.a(v)) + self.r(v))
        p = F.softmax(self.o(v).squeeze(1), 1)
        return torch.sum(p * torch.arange(4, dtype=p.dtype).view(1, 4, 1, 1), 1, keepdim=True)


@listed(NETWORKS, (1, 3, 32, 64), (1, 3, 32, 64))
class AANet(nn.Module):
    """Xu and Zhang, 2020: correlation volume, refined by warping the right image."""

    def __init__(self, d=6):
        super().__init__()
        self.f = StereoFeatures()
        self.a = nn.Sequential(conv_bn_act(d, 16, act=nn.ReLU), nn.Conv2d(16, d, 3, 1, 1))
        self.r = nn.Conv2d(7, 1, 3, 1, 1)
        self.d = d

    def forward(self, a, b):
        f, g = (self.f(a), self.f(b))
        n, _, _h, w = f.shape
        v = torch.cat(
            [
                F.pad((f[..., i:] * g[..., : w - i]).mean(1, keepdim=True), (i, 0))
                for i in range(self.d)
            ],
            1,
        )
        p = F.softmax(self.a(v), 1)
        y = (p * torch.arange(float(self.d)).view(1, -1, 1, 1)).sum(1, keepdim=True)
        y = F.interpolate(y, scale_factor=4, mode="bilinear", align_corners=False) * 4
        ys, xs = torch.meshgrid(torch.arange(32.0), torch.arange(64.0), indexing="ij")
        gr = torch.stack((2 * (xs - y[:, 0]) / 63 - 1, (2 * ys / 31 - 1).expand(n, -1, -1)), -1)
        return F.relu(
            y
            + self.r(
                torch.cat(
                    (
                        a
                        - F.grid_sample(
                            b, gr, mode="bilinear", padding_mode="border", align_corners=True
                        ),
                        a,
                        y,
                    ),
                    1,
                )
            )
        )


@listed(NETWORKS, (1, 6, 48, 48))
class FlowNetS(nn.Module):
    """Dosovitskiy et al., 2015: two stacked images, flows refined and upsampled."""

    def __init__(self):
        super().__init__()

        def c(i, o, k):
            return nn.Sequential(nn.Conv2d(i, o, k, 2, k // 2), nn.LeakyReLU(0.1))

        self.a, self.b, self.c = (c(6, 16, 7), c(16, 32, 5), c(32, 48, 3))
        self.d = nn.Sequential(nn.ConvTranspose2d(48, 16, 4, 2, 1, bias=False), nn.LeakyReLU(0.1))
        self.p = nn.Conv2d(48, 2, 3, 1, 1, bias=False)
        self.q = nn.Conv2d(50, 2, 3, 1, 1, bias=False)
        self.u = nn.ConvTranspose2d(2, 2, 4, 2, 1, bias=False)

    def forward(self, x):
        b = self.b(self.a(x))
        c = self.c(b)
        f = self.p(c)
        g = self.q(torch.cat((b, self.d(c), self.u(f)), 1))
        return (g, f)


@listed(NETWORKS, (1, 3, 32, 32), (1, 1, 32, 32))
class SparseToDense(nn.Module):
    """Ma and Karaman, 2018: an image and sparse depth; normalised convolution of what is known."""

    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(1, 8, 3, 1, 1, bias=False)
        self.i = nn.Conv2d(3, 24, 3, 1, 1)
        self.b = nn.Sequential(
            conv_bn_act(32, 32, 3, 2, act=nn.ReLU), nn.ConvTranspose2d(32, 16, 2, 2)
        )
        self.o = nn.Conv2d(16, 1, 1)

    def forward(self, x, d):
        m = (d > 0).float()
        y = self.c(d * m) / (F.conv2d(m, torch.ones(1, 1, 3, 3), padding=1) + 1e-05)
        return F.softplus(self.o(self.b(torch.cat((self.i(x), y), 1)))) * (1 - m) + d * m


@listed(NETWORKS, (1, 3, 32, 32), (1, 3, 32, 32))
class PoseNetEgomotion(nn.Module):
    """Zhou et al., 2017: the camera's motion between two images, as a matrix (Rodrigues)."""

    def __init__(self):
        super().__init__()
        self.b = Backbone(8)
        self.b.s[0] = nn.Conv2d(6, 8, 7, 2, 3, bias=False)
        self.o = nn.Conv2d(32, 6, 1)

    def forward(self, a, b):
        y = 0.01 * self.o(self.b(torch.cat((a, b), 1))[2]).mean((2, 3))
        r, t = (y[:, :3], y[:, 3:])
        an = torch.norm(r, 2, 1, True)
        ax = r / (an + 1e-07)
        c, si = (torch.cos(an), torch.sin(an))
        x, yy, z = ax.split(1, 1)
        k = torch.stack(
            (torch.zeros_like(x), -z, yy, z, torch.zeros_like(x), -x, -yy, x, torch.zeros_like(x)),
            1,
        ).view(-1, 3, 3)
        m = torch.eye(3) + si.unsqueeze(2) * k + (1 - c).unsqueeze(2) * (k @ k)
        return torch.cat((m, t.unsqueeze(2)), 2)


@listed(NETWORKS)
class SurfaceNormals(nn.Module):
    """Bae et al., 2021: normals of length one with their concentration."""

    def __init__(self):
        super().__init__()
        self.b = Backbone()
        self.f = FeaturePyramid()
        self.o = nn.Conv2d(16, 4, 3, 1, 1)

    def forward(self, x):
        y = self.o(self.f(self.b(x))[0])
        n, k = (y[:, :3], y[:, 3:])
        n = n / (torch.sqrt((n**2).sum(1, keepdim=True)) + 1e-10)
        return torch.cat((n, F.elu(k) + 1.01), 1)
