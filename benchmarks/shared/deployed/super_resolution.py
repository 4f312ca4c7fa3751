"""Super-resolution, denoising, deblurring."""

from __future__ import annotations

import torch
import torch.nn.functional as F
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


@listed(NETWORKS, (1, 1, 24, 24))
class SRCNN(nn.Module):
    """Dong et al., 2014: bicubic first, then three convolutions."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(1, 32, 9, padding=4)
        self.b = nn.Conv2d(32, 16, 5, padding=2)
        self.c = nn.Conv2d(16, 1, 5, padding=2)

    def forward(self, x):
        x = F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
        return self.c(F.relu(self.b(F.relu(self.a(x)))))


@listed(NETWORKS, (1, 1, 24, 24))
class FSRCNN(nn.Module):
    """Dong et al., 2016: shrinking, PReLU, a transposed convolution of 9×9."""

    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(
            nn.Conv2d(1, 24, 5, padding=2),
            nn.PReLU(24),
            nn.Conv2d(24, 8, 1),
            nn.PReLU(8),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.PReLU(8),
            nn.Conv2d(8, 24, 1),
            nn.PReLU(24),
        )
        self.u = nn.ConvTranspose2d(24, 1, 9, 3, 4, 2)

    def forward(self, x):
        return self.u(self.f(x))


@listed(NETWORKS, (1, 1, 24, 24))
class VDSR(nn.Module):
    """Kim et al., 2016: a deep residual of the bilinear image."""

    def __init__(self):
        super().__init__()
        self.b = nn.Sequential(
            nn.Conv2d(1, 16, 3, 1, 1, bias=False),
            nn.ReLU(),
            *[m for _ in range(4) for m in (nn.Conv2d(16, 16, 3, 1, 1, bias=False), nn.ReLU())],
            nn.Conv2d(16, 1, 3, 1, 1, bias=False),
        )

    def forward(self, x):
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return x + self.b(x)


@listed(NETWORKS, (1, 3, 24, 24))
class LapSRN(nn.Module):
    """Lai et al., 2017: a pyramid of residuals, two scales returned."""

    def __init__(self):
        super().__init__()
        self.i = nn.Conv2d(3, 16, 3, 1, 1)
        self.f = nn.Sequential(
            nn.Conv2d(16, 16, 3, 1, 1),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(16, 16, 4, 2, 1),
            nn.LeakyReLU(0.2),
        )
        self.u = nn.ConvTranspose2d(3, 3, 4, 2, 1)
        self.r = nn.Conv2d(16, 3, 3, 1, 1)

    def forward(self, x):
        f = self.f(self.i(x))
        a = self.u(x) + self.r(f)
        f = self.f(f)
        return (a, self.u(a) + self.r(f))


@listed(NETWORKS, (1, 3, 24, 24))
class SRResNet(nn.Module):
    """Ledig et al., 2017: batch norm, PReLU, two pixel shuffles."""

    def __init__(self):
        super().__init__()
        self.i = nn.Sequential(nn.Conv2d(3, 16, 9, 1, 4), nn.PReLU())

        def r():
            return nn.Sequential(
                nn.Conv2d(16, 16, 3, 1, 1),
                nn.BatchNorm2d(16),
                nn.PReLU(),
                nn.Conv2d(16, 16, 3, 1, 1),
                nn.BatchNorm2d(16),
            )

        self.a, self.b = (r(), r())
        self.m = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1), nn.BatchNorm2d(16))

        def u():
            return [nn.Conv2d(16, 64, 3, 1, 1), nn.PixelShuffle(2), nn.PReLU()]

        self.u = nn.Sequential(*u(), *u(), nn.Conv2d(16, 3, 9, 1, 4))

    def forward(self, x):
        i = self.i(x)
        y = i + self.a(i)
        y = y + self.b(y)
        return torch.tanh(self.u(i + self.m(y)))


class DenseResidual(nn.Module):
    def __init__(self, c=16, g=8):
        super().__init__()
        self.c = nn.ModuleList(nn.Conv2d(c + i * g, g if i < 2 else c, 3, 1, 1) for i in range(3))
        self.a = nn.LeakyReLU(0.2, inplace=True)

    def forward(self, x):
        a = self.a(self.c[0](x))
        b = self.a(self.c[1](torch.cat((x, a), 1)))
        return self.c[2](torch.cat((x, a, b), 1)) * 0.2 + x


@listed(NETWORKS, (1, 12, 12, 12))
class RealESRGAN(nn.Module):
    """Wang et al., 2021: dense residuals, nearest upsampling, on unshuffled pixels."""

    def __init__(self):
        super().__init__()
        self.i = nn.Conv2d(12, 16, 3, 1, 1)
        self.b = nn.Sequential(DenseResidual(), DenseResidual())
        self.c = nn.Conv2d(16, 16, 3, 1, 1)
        self.u = nn.ModuleList(nn.Conv2d(16, 16, 3, 1, 1) for _ in range(2))
        self.o = nn.Conv2d(16, 3, 3, 1, 1)

    def forward(self, x):
        f = self.i(x)
        f = f + self.c(self.b(f)) * 0.2
        for u in self.u:
            f = F.leaky_relu(u(F.interpolate(f, scale_factor=2, mode="nearest")), 0.2)
        return self.o(f)


@listed(NETWORKS, (1, 3, 24, 24))
class SRVGGNetCompact(nn.Module):
    """Real-ESRGAN's compact network: PReLU, pixel shuffle, nearest base added."""

    def __init__(self):
        super().__init__()
        self.b = nn.Sequential(
            nn.Conv2d(3, 16, 3, 1, 1),
            nn.PReLU(16),
            nn.Conv2d(16, 16, 3, 1, 1),
            nn.PReLU(16),
            nn.Conv2d(16, 48, 3, 1, 1),
        )
        self.u = nn.PixelShuffle(4)

    def forward(self, x):
        return self.u(self.b(x)) + F.interpolate(x, scale_factor=4, mode="nearest")


@listed(NETWORKS, (1, 3, 24, 24))
class IMDN(nn.Module):
    """Hui et al., 2019: features distilled by splits, contrast-aware attention."""

    def __init__(self):
        super().__init__()
        self.i = nn.Conv2d(3, 16, 3, 1, 1)
        self.c = nn.ModuleList(
            (nn.Conv2d(16, 16, 3, 1, 1), nn.Conv2d(12, 16, 3, 1, 1), nn.Conv2d(12, 4, 3, 1, 1))
        )
        self.a = nn.Sequential(nn.Conv2d(12, 4, 1), nn.ReLU(), nn.Conv2d(4, 12, 1), nn.Sigmoid())
        self.f = nn.Conv2d(12, 16, 1)
        self.u = nn.Sequential(nn.Conv2d(16, 12, 3, 1, 1), nn.PixelShuffle(2))

    def forward(self, x):
        i = self.i(x)
        d1, r = torch.split(F.leaky_relu(self.c[0](i), 0.05), (4, 12), 1)
        d2, r = torch.split(F.leaky_relu(self.c[1](r), 0.05), (4, 12), 1)
        y = torch.cat((d1, d2, self.c[2](r)), 1)
        m = y.mean((2, 3), keepdim=True)
        sd = (y - m).pow(2).mean((2, 3), keepdim=True).add(1e-06).pow(0.5)
        return self.u(self.f(y * self.a(sd + m)) + i)


@listed(NETWORKS, (1, 3, 24, 24))
class ECBSR(nn.Module):
    """Zhang et al., 2021: edge-oriented branches with Sobel masks, in training form."""

    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(3, 16, 3, 1, 1)
        self.e = nn.Conv2d(3, 32, 1)
        self.p = nn.Conv2d(32, 16, 3, 1, 1)
        self.k = nn.Conv2d(3, 16, 1)
        self.sc = nn.Parameter(torch.randn(16, 1, 1, 1) * 0.1)
        m = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
        self.register_buffer("m", m.repeat(16, 1, 1, 1))
        self.a = nn.PReLU(16)
        self.o = nn.Conv2d(16, 12, 3, 1, 1)

    def forward(self, x):
        y = (
            self.c(x)
            + self.p(self.e(x))
            + F.conv2d(self.k(x), self.sc * self.m, padding=1, groups=16)
        )
        return F.pixel_shuffle(self.o(self.a(y)) + x.repeat_interleave(4, 1), 2)


@listed(NETWORKS, (1, 3, 24, 24))
class MAN(nn.Module):
    """Wang et al., 2022: large kernel attention, gated by separable dilated kernels."""

    def __init__(self, c=16):
        super().__init__()
        self.i = nn.Conv2d(3, c, 3, 1, 1)
        self.n = ChannelNorm(c)
        self.p = nn.Conv2d(c, 2 * c, 1)
        self.l = nn.Sequential(
            nn.Conv2d(c, c, 5, 1, 2, groups=c),
            nn.Conv2d(c, c, 7, 1, 9, groups=c, dilation=3),
            nn.Conv2d(c, c, 1),
        )
        self.x = nn.Conv2d(c, c, 3, 1, 1, groups=c)
        self.q = nn.Conv2d(c, c, 1)
        self.sc = nn.Parameter(torch.ones(1, c, 1, 1))
        self.u = nn.Sequential(nn.Conv2d(c, 12, 3, 1, 1), nn.PixelShuffle(2))

    def forward(self, x):
        f = self.i(x)
        a, b = torch.chunk(self.p(self.n(f)), 2, 1)
        return self.u(f + self.q(a * self.l(b) * self.x(b)) * self.sc)


@listed(NETWORKS, (1, 1, 32, 32))
class DnCNN(nn.Module):
    """Zhang et al., 2017: the noise is predicted and subtracted."""

    def __init__(self):
        super().__init__()
        self.b = nn.Sequential(
            nn.Conv2d(1, 16, 3, 1, 1),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, 1, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, 1, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 1, 3, 1, 1, bias=False),
        )

    def forward(self, x):
        return x - self.b(x)


@listed(NETWORKS, (1, 3, 32, 32))
class FFDNet(nn.Module):
    """Zhang et al., 2018: pixels unshuffled, a noise level as a map."""

    def __init__(self):
        super().__init__()
        self.b = nn.Sequential(
            nn.Conv2d(13, 16, 3, 1, 1),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, 1, 1),
            nn.ReLU(),
            nn.Conv2d(16, 12, 3, 1, 1),
        )
        self.n = nn.Parameter(torch.tensor([[[[0.1]]]]))

    def forward(self, x):
        y = F.pixel_unshuffle(x, 2)
        m = self.n.repeat(y.size(0), 1, y.size(2), y.size(3))
        return F.pixel_shuffle(self.b(torch.cat((y, m), 1)), 2)


@listed(NETWORKS, (1, 3, 16, 16))
class Restormer(nn.Module):
    """Zamir et al., 2022: attention over channels, gated depthwise feed-forward."""

    def __init__(self, c=16):
        super().__init__()
        self.i = nn.Conv2d(3, c, 3, 1, 1, bias=False)
        self.n = ChannelNorm(c)
        self.q = nn.Conv2d(c, 3 * c, 1, bias=False)
        self.d = nn.Conv2d(3 * c, 3 * c, 3, 1, 1, groups=3 * c, bias=False)
        self.t = nn.Parameter(torch.ones(2, 1, 1))
        self.p = nn.Conv2d(c, c, 1)
        self.m = ChannelNorm(c)
        self.e = nn.Conv2d(c, 4 * c, 1)
        self.g = nn.Conv2d(4 * c, 4 * c, 3, 1, 1, groups=4 * c)
        self.f = nn.Conv2d(2 * c, c, 1)
        self.o = nn.Conv2d(c, 3, 3, 1, 1)

    def forward(self, x):
        y = self.i(x)
        n, c, h, w = y.shape
        q, k, v = (t.reshape(n, 2, c // 2, h * w) for t in self.d(self.q(self.n(y))).chunk(3, 1))
        a = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.t).softmax(-1)
        y = y + self.p((a @ v).reshape(n, c, h, w))
        a, b = self.g(self.e(self.m(y))).chunk(2, 1)
        return x + self.o(y + self.f(F.gelu(a) * b))


@listed(NETWORKS, (1, 3, 24, 24))
class ZeroDCE(nn.Module):
    """Guo et al., 2020: light curves applied eight times."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 16, 3, 1, 1)
        self.b = nn.Conv2d(16, 16, 3, 1, 1)
        self.c = nn.Conv2d(32, 24, 3, 1, 1)

    def forward(self, x):
        a = F.relu(self.a(x))
        r = torch.tanh(self.c(torch.cat((a, F.relu(self.b(a))), 1)))
        for k in torch.split(r, 3, 1):
            x = x + k * (torch.pow(x, 2) - x)
        return x
