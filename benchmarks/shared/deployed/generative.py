"""Generators and image translation."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.shared.deployed import Builder
from benchmarks.shared.deployed.register import ids, listed

NETWORKS: dict[str, Builder] = {}


@listed(NETWORKS, (1, 3, 32, 32))
class StyleTransfer(nn.Module):
    """Johnson et al., 2016: instance norm, reflected borders."""

    def __init__(self):
        super().__init__()

        def cl(i, o, k, st):
            return nn.Sequential(
                nn.ReflectionPad2d(k // 2),
                nn.Conv2d(i, o, k, st),
                nn.InstanceNorm2d(o, affine=True),
            )

        self.a = cl(3, 8, 9, 1)
        self.b = cl(8, 16, 3, 2)
        self.r = nn.ModuleList([cl(16, 16, 3, 1), cl(16, 16, 3, 1)])
        self.u = cl(16, 8, 3, 1)
        self.o = nn.Sequential(nn.ReflectionPad2d(4), nn.Conv2d(8, 3, 9, 1))

    def forward(self, x):
        y = F.relu(self.b(F.relu(self.a(x))))
        y = y + self.r[1](F.relu(self.r[0](y)))
        y = F.relu(self.u(F.interpolate(y, mode="nearest", scale_factor=2)))
        return self.o(y)


@listed(NETWORKS, (1, 32))
class DCGAN(nn.Module):
    """Radford et al., 2016."""

    def __init__(self):
        super().__init__()
        self.m = nn.Sequential(
            nn.ConvTranspose2d(32, 32, 4, 1, 0, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(True),
            nn.ConvTranspose2d(32, 16, 4, 2, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(True),
            nn.ConvTranspose2d(16, 3, 4, 2, 1, bias=False),
            nn.Tanh(),
        )

    def forward(self, z):
        return self.m(z.view(z.size(0), -1, 1, 1))


@listed(NETWORKS, (1, 16), (1, 4, 4, 4))
class StyleGAN(nn.Module):
    """StyleGAN2 (Karras et al., 2020): modulated convolution."""

    def __init__(self):
        super().__init__()
        self.map = nn.Sequential(nn.Linear(16, 16), nn.LeakyReLU(0.2))
        self.w = nn.Parameter(torch.randn(8, 4, 3, 3))
        self.st = nn.Linear(16, 4)
        self.rgb = nn.Conv2d(8, 3, 1)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)

    def forward(self, z, c):
        z = z * torch.rsqrt(torch.mean(z**2, dim=1, keepdim=True) + 1e-08)
        w = self.map(z)
        st = self.st(w) + 1
        b, _, h, ww = c.shape
        wt = self.w[None] * st[:, None, :, None, None]
        d = torch.rsqrt((wt**2).sum(dim=(2, 3, 4), keepdim=True) + 1e-08)
        wt = wt * d
        y = F.conv2d(
            c.reshape(1, -1, h, ww), wt.reshape(b * 8, 4, 3, 3), padding=1, groups=b
        ).reshape(b, 8, h, ww)
        return torch.tanh(self.rgb(self.up(F.leaky_relu(y, 0.2))))


@listed(NETWORKS, (1, 3, 32, 32))
class VAE(nn.Module):
    """Kingma and Welling, 2014, with mean and variance."""

    def __init__(self):
        super().__init__()
        self.e = nn.Sequential(
            nn.Conv2d(3, 16, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 4, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.mu = nn.Linear(32 * 64, 8)
        self.lv = nn.Linear(32 * 64, 8)
        self.d = nn.Linear(8, 32 * 64)
        self.g = nn.Sequential(
            nn.ConvTranspose2d(32, 16, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(16, 3, 4, 2, 1),
            nn.Sigmoid(),
        )

    def reparameterize(self, mu, lv):
        if self.training:
            return mu + torch.randn_like(mu) * torch.exp(0.5 * lv)
        return mu

    def forward(self, x):
        h = self.e(x)
        mu, lv = (self.mu(h), self.lv(h))
        z = self.reparameterize(mu, lv)
        return (self.g(self.d(z).view(-1, 32, 8, 8)), mu, lv)


class PixelNorm(nn.Module):
    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-08)


@listed(NETWORKS, (1, 32))
class ProGAN(nn.Module):
    """Karras et al., 2018: pixel norm, equalised rates, a fading blend of two resolutions."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(32, 32, 4, 4))
        self.c = nn.Conv2d(32, 16, 3, 1, 1)
        self.n = PixelNorm()
        self.o = nn.ModuleList((nn.Conv2d(32, 3, 1), nn.Conv2d(16, 3, 1)))

    def forward(self, z):
        y = F.conv_transpose2d(self.n(z)[:, :, None, None], self.w * (2 / (32 * 16)) ** 0.5)
        y = self.n(F.leaky_relu(y, 0.2))
        u = F.interpolate(y, scale_factor=2, mode="nearest")
        v = self.n(F.leaky_relu(self.c(u), 0.2))
        return 0.3 * self.o[0](u) + 0.7 * self.o[1](v)


@listed(NETWORKS, (1, 32))
class StyleGAN1(nn.Module):
    """Karras et al., 2019: a constant start, adaptive instance norm, blurred upsampling."""

    def __init__(self):
        super().__init__()
        self.m = nn.Sequential(
            PixelNorm(), nn.Linear(32, 32), nn.LeakyReLU(0.2), nn.Linear(32, 32), nn.LeakyReLU(0.2)
        )
        self.k = nn.Parameter(torch.randn(1, 16, 4, 4))
        self.a = nn.ModuleList(nn.Linear(32, 32) for _ in range(2))
        self.c = nn.ModuleList(nn.Conv2d(16, 16, 3, 1, 1) for _ in range(2))
        self.n = nn.InstanceNorm2d(16)
        self.o = nn.Conv2d(16, 3, 1)
        b = torch.tensor([1.0, 2, 1])
        self.register_buffer("b", (b[:, None] * b / 16).repeat(16, 1, 1, 1))

    def forward(self, z):
        w = self.m(z)
        y = self.k.repeat(z.shape[0], 1, 1, 1)
        for a, c in zip(self.a, self.c, strict=False):
            y = F.conv2d(
                F.interpolate(y, scale_factor=2, mode="nearest"), self.b, padding=1, groups=16
            )
            g, h = a(w).unsqueeze(2).unsqueeze(3).chunk(2, 1)
            y = self.n(F.leaky_relu(c(y), 0.2)) * (g + 1) + h
        return self.o(y)


@listed(NETWORKS, (1, 24), ids(10, 1))
class BigGAN(nn.Module):
    """Brock et al., 2019: class-conditional batch norm, spectral norm, attention."""

    def __init__(self):
        super().__init__()
        sn = nn.utils.parametrizations.spectral_norm
        self.e = nn.Embedding(10, 8)
        self.l = nn.Linear(24, 16 * 16)
        self.n = nn.BatchNorm2d(16, affine=False)
        self.g = nn.Linear(8, 16, bias=False)
        self.b = nn.Linear(8, 16, bias=False)
        self.c = sn(nn.Conv2d(16, 16, 3, 1, 1))
        self.q, self.k = (sn(nn.Conv2d(16, 4, 1)), sn(nn.Conv2d(16, 4, 1)))
        self.v = sn(nn.Conv2d(16, 8, 1))
        self.o = sn(nn.Conv2d(8, 16, 1))
        self.t = nn.Parameter(torch.tensor(0.3))
        self.r = nn.Conv2d(16, 3, 3, 1, 1)

    def forward(self, z, y):
        e = self.e(y)
        x = self.l(z).view(-1, 16, 4, 4)
        x = F.relu(self.n(x) * (1 + self.g(e))[:, :, None, None] + self.b(e)[:, :, None, None])
        x = self.c(F.interpolate(x, scale_factor=2))
        q = self.q(x).flatten(2)
        k = F.max_pool2d(self.k(x), 2).flatten(2)
        v = F.max_pool2d(self.v(x), 2).flatten(2)
        a = F.softmax(torch.bmm(q.transpose(1, 2), k), -1)
        return torch.tanh(
            self.r(x + self.t * self.o(torch.bmm(v, a.transpose(1, 2)).view(-1, 8, 8, 8)))
        )


@listed(NETWORKS, (1, 3, 32, 32))
class Pix2Pix(nn.Module):
    """Isola et al., 2017: a U-Net generator with instance norm and tanh."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 16, 4, 2, 1)
        self.b = nn.Sequential(nn.LeakyReLU(0.2), nn.Conv2d(16, 32, 4, 2, 1), nn.InstanceNorm2d(32))
        self.c = nn.Sequential(
            nn.LeakyReLU(0.2),
            nn.Conv2d(32, 32, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 32, 4, 2, 1),
            nn.InstanceNorm2d(32),
        )
        self.d = nn.Sequential(
            nn.ReLU(), nn.ConvTranspose2d(64, 16, 4, 2, 1), nn.InstanceNorm2d(16), nn.Dropout(0.5)
        )
        self.e = nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(32, 3, 4, 2, 1), nn.Tanh())

    def forward(self, x):
        a = self.a(x)
        b = self.b(a)
        y = torch.cat([b, self.c(b)], 1)
        return self.e(torch.cat([a, self.d(y)], 1))


@listed(NETWORKS, (1, 6, 32, 32))
class PatchGAN(nn.Module):
    """Isola et al., 2017: the discriminator of patches."""

    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(
            nn.Conv2d(6, 16, 4, 2, 1),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(16, 32, 4, 2, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(32, 32, 4, 1, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(32, 1, 4, 1, 1),
        )

    def forward(self, x):
        return self.f(x)


@listed(NETWORKS, (1, 3, 32, 32))
class CycleGAN(nn.Module):
    """Zhu et al., 2017: residual blocks between reflected borders, transposed convolutions."""

    def __init__(self):
        super().__init__()
        n = nn.InstanceNorm2d
        self.a = nn.Sequential(
            nn.ReflectionPad2d(3),
            nn.Conv2d(3, 16, 7),
            n(16),
            nn.ReLU(True),
            nn.Conv2d(16, 32, 3, 2, 1),
            n(32),
            nn.ReLU(True),
        )
        self.r = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(32, 32, 3),
            n(32),
            nn.ReLU(True),
            nn.ReflectionPad2d(1),
            nn.Conv2d(32, 32, 3),
            n(32),
        )
        self.b = nn.Sequential(
            nn.ConvTranspose2d(32, 16, 3, 2, 1, 1),
            n(16),
            nn.ReLU(True),
            nn.ReflectionPad2d(3),
            nn.Conv2d(16, 3, 7),
            nn.Tanh(),
        )

    def forward(self, x):
        y = self.a(x)
        return self.b(y + self.r(y))


@listed(NETWORKS, (1, 3, 32, 32), (1, 5))
class StarGAN(nn.Module):
    """Choi et al., 2018: attributes as maps beside the image."""

    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(
            nn.Conv2d(8, 16, 7, 1, 3, bias=False),
            nn.InstanceNorm2d(16, affine=True, track_running_stats=True),
            nn.ReLU(),
            nn.Conv2d(16, 32, 4, 2, 1, bias=False),
            nn.InstanceNorm2d(32, affine=True, track_running_stats=True),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 16, 4, 2, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(16, 3, 7, 1, 3, bias=False),
            nn.Tanh(),
        )

    def forward(self, x, c):
        c = c.view(c.size(0), c.size(1), 1, 1).repeat(1, 1, x.size(2), x.size(3))
        return self.f(torch.cat([x, c], 1))


@listed(NETWORKS, (1, 5, 16, 16))
class SPADE(nn.Module):
    """Park et al., 2019: scales and shifts out of a label map."""

    def __init__(self):
        super().__init__()
        self.i = nn.Conv2d(5, 16, 3, 1, 1)
        self.n = nn.BatchNorm2d(16, affine=False)
        self.h = nn.Sequential(nn.Conv2d(5, 16, 3, 1, 1), nn.ReLU())
        self.g = nn.Conv2d(16, 16, 3, 1, 1)
        self.b = nn.Conv2d(16, 16, 3, 1, 1)
        self.c = nn.Conv2d(16, 16, 3, 1, 1)
        self.o = nn.Conv2d(16, 3, 3, 1, 1)

    def forward(self, m):
        m = m.softmax(1)
        x = self.i(F.interpolate(m, size=(8, 8), mode="nearest"))
        k = self.h(F.interpolate(m, size=x.size()[2:], mode="nearest"))
        y = self.n(x) * (1 + self.g(k)) + self.b(k)
        x = x + self.c(F.leaky_relu(y, 0.2))
        return torch.tanh(self.o(F.interpolate(x, scale_factor=2)))


@listed(NETWORKS, (1, 3, 32, 32), (1, 3, 32, 32))
class AdaIN(nn.Module):
    """Huang and Belongie, 2017: the style's mean and deviation put on the content."""

    def __init__(self):
        super().__init__()
        self.e = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(3, 16, 3),
            nn.ReLU(),
            nn.MaxPool2d(2, 2, ceil_mode=True),
            nn.ReflectionPad2d(1),
            nn.Conv2d(16, 32, 3),
            nn.ReLU(),
        )
        self.d = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(32, 16, 3),
            nn.ReLU(),
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.ReflectionPad2d(1),
            nn.Conv2d(16, 3, 3),
        )

    def stats(self, f):
        n, c = f.size()[:2]
        return (
            f.view(n, c, -1).mean(2).view(n, c, 1, 1),
            (f.view(n, c, -1).var(2) + 1e-05).sqrt().view(n, c, 1, 1),
        )

    def forward(self, a, b):
        a, b = (self.e(a), self.e(b))
        (m, d), (u, v) = (self.stats(a), self.stats(b))
        return self.d(
            (a - m.expand(a.size())) / d.expand(a.size()) * v.expand(a.size()) + u.expand(a.size())
        )


@listed(NETWORKS, (1, 3, 32, 32))
class VQVAE(nn.Module):
    """van den Oord et al., 2017: the nearest code of each place, decoded."""

    def __init__(self):
        super().__init__()
        self.e = nn.Sequential(nn.Conv2d(3, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 4, 2, 1))
        self.c = nn.Embedding(20, 16)
        self.d = nn.Sequential(
            nn.ConvTranspose2d(16, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 3, 4, 2, 1)
        )

    def forward(self, x):
        z = self.e(x).permute(0, 2, 3, 1).contiguous()
        f = z.view(-1, 16)
        d = f.pow(2).sum(1, keepdim=True) + self.c.weight.pow(2).sum(1) - 2 * f @ self.c.weight.t()
        i = d.argmin(1)
        q = self.c(i).view(z.shape).permute(0, 3, 1, 2).contiguous()
        return (self.d(q), i.view(z.shape[:3]))


@listed(NETWORKS, (1, 4, 8, 8))
class LatentDecoder(nn.Module):
    """Rombach et al., 2022 (TAESD-like): group norm, SiLU, one attention, nearest upsampling."""

    def __init__(self):
        super().__init__()
        self.i = nn.Conv2d(4, 32, 3, 1, 1)
        self.n = nn.GroupNorm(8, 32, eps=1e-06)
        self.q, self.k, self.v, self.p = (nn.Conv2d(32, 32, 1) for _ in range(4))
        self.u = nn.Sequential(
            nn.GroupNorm(8, 32),
            nn.SiLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(32, 16, 3, 1, 1),
            nn.GroupNorm(4, 16),
            nn.SiLU(),
            nn.Conv2d(16, 3, 3, 1, 1),
        )

    def forward(self, z):
        x = self.i(z / 0.18215)
        h = self.n(x)
        b, c, H, W = x.shape
        q, k, v = (m(h).reshape(b, c, H * W) for m in (self.q, self.k, self.v))
        a = torch.bmm(q.permute(0, 2, 1), k) * c ** (-0.5)
        x = x + self.p(torch.bmm(v, a.softmax(2).permute(0, 2, 1)).reshape(b, c, H, W))
        return self.u(x)


@listed(NETWORKS, (1, 3, 16, 16), ids(1000, 1))
class DiffusionUNet(nn.Module):
    """Ho et al., 2020: a U-Net that reads its time step by sinusoids."""

    def __init__(self):
        super().__init__()
        self.t = nn.Sequential(nn.Linear(16, 32), nn.SiLU(), nn.Linear(32, 32))
        self.i = nn.Conv2d(3, 16, 3, 1, 1)
        self.n = nn.ModuleList((nn.GroupNorm(4, 16), nn.GroupNorm(8, 32)))
        self.a = nn.Conv2d(16, 32, 3, 2, 1)
        self.e = nn.Linear(32, 32)
        self.b = nn.Conv2d(32, 32, 3, 1, 1)
        self.u = nn.Conv2d(48, 16, 3, 1, 1)
        self.o = nn.Conv2d(16, 3, 3, 1, 1)

    def forward(self, x, t):
        f = torch.exp(torch.arange(8) * (-math.log(10000.0) / 7))
        a = t.float()[:, None] * f[None]
        e = self.t(torch.cat([a.sin(), a.cos()], 1))
        i = self.i(x)
        y = self.a(F.silu(self.n[0](i))) + self.e(e)[:, :, None, None]
        y = y + self.b(F.silu(self.n[1](y)))
        return self.o(
            F.silu(self.u(torch.cat((F.interpolate(y, scale_factor=2.0, mode="nearest"), i), 1)))
        )


@listed(NETWORKS, (1, 6, 16, 16))
class RealNVP(nn.Module):
    """Dinh et al., 2017: coupling layers, the log-determinant."""

    def __init__(self):
        super().__init__()
        self.c = nn.ModuleList(
            nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 6, 3, 1, 1))
            for _ in range(2)
        )

    def forward(self, x):
        ld = 0
        for c in self.c:
            a, b = x.chunk(2, 1)
            sc, t = c(a).chunk(2, 1)
            sc = torch.tanh(sc)
            x = torch.cat((b * torch.exp(sc) + t, a), 1)
            ld = ld + sc.flatten(1).sum(1)
        return (x, ld)


@listed(NETWORKS, (1, 4, 32, 32))
class GatedInpainting(nn.Module):
    """Yu et al., 2019: gated convolutions, dilated in the middle, the mask merged at the end."""

    def __init__(self):
        super().__init__()

        def g(i, o, st=1, d=1):
            return nn.Conv2d(i, 2 * o, 3, st, d, d)

        self.a, self.b, self.c = (g(4, 16), g(16, 16, 2), g(16, 16, 1, 2))
        self.d = g(16, 16)
        self.o = nn.Conv2d(16, 3, 3, 1, 1)

    def gate(self, m, x):
        a, b = m(x).chunk(2, 1)
        return F.elu(a) * torch.sigmoid(b)

    def forward(self, x):
        m = (x[:, 3:] > 0).float()
        i = x[:, :3] * (1 - m)
        y = self.gate(self.c, self.gate(self.b, self.gate(self.a, torch.cat((i, m), 1))))
        y = self.gate(self.d, F.interpolate(y, scale_factor=2, mode="nearest"))
        return torch.clamp(self.o(y), -1, 1) * m + i
