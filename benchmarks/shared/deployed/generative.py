"""Generators and image translation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.shared.deployed import Builder
from benchmarks.shared.deployed.register import listed

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
