"""Text: detection and recognition."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.shared.deployed import Builder
from benchmarks.shared.deployed.blocks import (
    Backbone,
    FeaturePyramid,
    InvertedResidual,
    Residual,
    conv_bn_act,
)
from benchmarks.shared.deployed.register import listed

NETWORKS: dict[str, Builder] = {}


@listed(NETWORKS)
class DBNet(nn.Module):
    """Liao et al., 2020: differentiable binarisation."""

    def __init__(self):
        super().__init__()
        self.b = Backbone()
        self.f = FeaturePyramid()
        self.r = nn.ModuleList(nn.Conv2d(16, 8, 3, 1, 1) for _ in range(3))

        def h():
            return nn.Sequential(
                nn.Conv2d(24, 8, 3, 1, 1, bias=False),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                nn.ConvTranspose2d(8, 8, 2, 2),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                nn.ConvTranspose2d(8, 1, 2, 2),
                nn.Sigmoid(),
            )

        self.p = h()
        self.t = h()

    def forward(self, x):
        fs = self.f(self.b(x))
        y = torch.cat(
            [
                F.interpolate(r(f), scale_factor=2**i, mode="nearest")
                for i, (r, f) in enumerate(zip(self.r, fs, strict=False))
            ],
            1,
        )
        p, t = (self.p(y), self.t(y))
        return torch.cat((p, t, torch.reciprocal(1 + torch.exp(-50 * (p - t)))), 1)


@listed(NETWORKS)
class EAST(nn.Module):
    """Zhou et al., 2017: scores, distances, angle."""

    def __init__(self):
        super().__init__()
        self.b = Backbone()
        self.u = nn.Conv2d(96, 32, 1)
        self.v = nn.Conv2d(48, 16, 3, 1, 1)
        self.sc = nn.Conv2d(16, 1, 1)
        self.ge = nn.Conv2d(16, 4, 1)
        self.an = nn.Conv2d(16, 1, 1)

    def forward(self, x):
        a, b, c = self.b(x)
        y = F.relu(
            self.u(
                torch.cat(
                    (F.interpolate(c, scale_factor=2, mode="bilinear", align_corners=True), b), 1
                )
            )
        )
        y = F.relu(
            self.v(
                torch.cat(
                    (F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=True), a), 1
                )[:, :48]
            )
        )
        return (
            torch.sigmoid(self.sc(y)),
            torch.cat(
                (torch.sigmoid(self.ge(y)) * 64, (torch.sigmoid(self.an(y)) - 0.5) * math.pi), 1
            ),
        )


@listed(NETWORKS, (1, 1, 32, 64))
class TPSSTN(nn.Module):
    """RARE (Shi et al., 2016): thin-plate-spline rectification."""

    def __init__(self, f=10):
        super().__init__()
        self.c = nn.Sequential(
            nn.Conv2d(1, 16, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
        )
        self.l = nn.Linear(32, f * 2)
        h = f // 2
        top = torch.stack((torch.linspace(-1, 1, h), -torch.ones(h)), 1)
        bot = torch.stack((torch.linspace(-1, 1, h), torch.ones(h)), 1)
        C = torch.cat((top, bot))
        self.l.bias.data = C.flatten().clone()
        self.l.weight.data *= 0.1
        d = torch.cdist(C, C)
        d.fill_diagonal_(1)
        hc = d**2 * torch.log(d)
        D = torch.cat(
            (
                torch.cat((torch.ones(f, 1), C, hc), 1),
                torch.cat((torch.zeros(2, 3), C.t()), 1),
                torch.cat((torch.zeros(1, 3), torch.ones(1, f)), 1),
            )
        )
        self.register_buffer("inv", torch.inverse(D))
        W, H = (32, 16)
        gx = (torch.arange(-W, W, 2) + 1.0) / W
        gy = (torch.arange(-H, H, 2) + 1.0) / H
        P = torch.stack(torch.meshgrid(gx, gy, indexing="xy"), 2).reshape(-1, 2)
        r = torch.norm(P[:, None] - C[None], dim=2)
        rb = r**2 * torch.log(r + 1e-06)
        self.register_buffer("ph", torch.cat((torch.ones(P.shape[0], 1), P, rb), 1))
        self.r = nn.Conv2d(1, 8, 3, 1, 1)
        self.f = f

    def forward(self, x):
        b = x.size(0)
        cp = self.l(self.c(x).view(b, -1)).view(b, self.f, 2)
        z = torch.cat((cp, torch.zeros(b, 3, 2)), 1)
        T = torch.bmm(self.inv.repeat(b, 1, 1), z)
        g = torch.bmm(self.ph.repeat(b, 1, 1), T).reshape(b, 16, 32, 2)
        return self.r(F.grid_sample(x, g, padding_mode="border", align_corners=True))


@listed(NETWORKS, (1, 1, 32, 64))
class CRNN(nn.Module):
    """Shi et al., 2015: bidirectional LSTM over columns, CTC scores."""

    def __init__(self, n=40, rnn=nn.LSTM):
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 32, 3, 1, 1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2, 2),
            nn.Conv2d(32, 64, 3, 1, 1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(2, 2),
            nn.Conv2d(64, 64, 3, 1, 1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d((2, 1)),
            nn.Conv2d(64, 64, (4, 1)),
            nn.BatchNorm2d(64),
            nn.ReLU(),
        )
        self.rnn = rnn(64, 48, 2, bidirectional=True)
        self.fc = nn.Linear(96, n)

    def forward(self, x):
        x = self.cnn(x)
        _b, _c, h, _w = x.size()
        assert h == 1
        x = x.squeeze(2).permute(2, 0, 1)
        y, _ = self.rnn(x)
        return F.log_softmax(self.fc(y), 2)


@listed(NETWORKS, (1, 3, 32, 64))
class SVTR(nn.Module):
    """Du et al., 2022: global mixing, height merged by strided convolutions."""

    def __init__(self):
        super().__init__()
        self.e = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1),
            nn.BatchNorm2d(16),
            nn.GELU(),
            nn.Conv2d(16, 32, 3, 2, 1),
            nn.BatchNorm2d(32),
            nn.GELU(),
        )
        self.p = nn.Parameter(torch.zeros(1, 128, 32))
        self.t = nn.TransformerEncoderLayer(
            32, 4, 64, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.m = nn.Conv2d(32, 48, 3, (2, 1), 1)
        self.n = nn.LayerNorm(48)
        self.c = nn.Sequential(nn.Conv2d(48, 48, 1, bias=False), nn.Hardswish())
        self.o = nn.Linear(48, 20)

    def forward(self, x):
        x = self.e(x)
        n, c, h, w = x.shape
        y = self.t(x.flatten(2).transpose(1, 2) + self.p)
        y = self.m(y.permute(0, 2, 1).reshape(n, c, h, w))
        z = self.n(y.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(y.shape)
        z = self.c(F.adaptive_avg_pool2d(z, (1, w))).squeeze(2).permute(0, 2, 1)
        return F.softmax(self.o(z), 2)


@listed(NETWORKS, (1, 3, 32, 64))
class CRNNGRU(nn.Module):
    """PP-OCR's recogniser (Du et al., 2020): MobileNetV3, bidirectional GRU, greedy indices."""

    def __init__(self):
        super().__init__()
        self.b = nn.Sequential(
            conv_bn_act(3, 16, 3, 2, act=nn.Hardswish),
            InvertedResidual(16, 24, 2, (2, 1), se=True, act=nn.Hardswish),
            nn.MaxPool2d((8, 1)),
        )
        self.g = nn.GRU(24, 24, bidirectional=True, batch_first=True)
        self.o = nn.Linear(48, 20)

    def forward(self, x):
        y, _ = self.g(self.b(x).squeeze(2).permute(0, 2, 1))
        p = self.o(y).softmax(2)
        c, i = p.max(2)
        return (i, c)


@listed(NETWORKS, (1, 1, 32, 64))
class Rosetta(nn.Module):
    """Borisyuk et al., 2018: fully convolutional CTC."""

    def __init__(self):
        super().__init__()
        self.b = nn.Sequential(
            Residual(1, 16), nn.MaxPool2d(2), Residual(16, 32, 2), nn.MaxPool2d((2, 1))
        )
        self.p = nn.AdaptiveAvgPool2d((None, 1))
        self.o = nn.Linear(32, 20)

    def forward(self, x):
        f = self.b(x)
        f = self.p(f.permute(0, 3, 1, 2)).squeeze(3)
        return self.o(f).log_softmax(2)


@listed(NETWORKS, (1, 1, 32, 64))
class ParallelAttention(nn.Module):
    """SRN (Yu et al., 2020): every character reads the map by its own attention."""

    def __init__(self):
        super().__init__()
        self.b = TextBackbone()
        self.f = nn.Embedding(6, 32)
        self.w = nn.Linear(32, 32)
        self.v = nn.Linear(32, 32)
        self.a = nn.Linear(32, 1, bias=False)
        self.o = nn.Linear(32, 20)

    def forward(self, x):
        y = self.b(x).flatten(2).permute(0, 2, 1)
        q = self.f(torch.arange(6)).unsqueeze(0).unsqueeze(2)
        a = self.a(torch.tanh(self.w(y).unsqueeze(1) + q)).squeeze(3).softmax(2)
        return self.o(self.v(torch.bmm(a, y)))


class TextBackbone(nn.Sequential):
    def __init__(self):
        super().__init__(
            conv_bn_act(1, 16, 3, 2, act=nn.ReLU), Residual(16, 32, 2), Residual(32, 32, 2)
        )


@listed(NETWORKS, (1, 1, 32, 64))
class ASTERDecoder(nn.Module):
    """Shi et al., 2018: an attentional GRU decoder, six greedy steps."""

    def __init__(self):
        super().__init__()
        self.b = TextBackbone()
        self.k = nn.Linear(32, 16)
        self.q = nn.Linear(16, 16)
        self.a = nn.Linear(16, 1)
        self.e = nn.Embedding(20, 8)
        self.g = nn.GRUCell(40, 16)
        self.o = nn.Linear(16, 20)

    def forward(self, x):
        f = self.b(x).flatten(2).transpose(1, 2)
        k = self.k(f)
        h = torch.zeros(x.shape[0], 16)
        t = torch.zeros(x.shape[0], dtype=torch.long)
        out = []
        for _ in range(6):
            a = F.softmax(self.a(torch.tanh(k + self.q(h).unsqueeze(1))), 1)
            c = (a * f).sum(1)
            h = self.g(torch.cat((c, self.e(t)), 1), h)
            y = self.o(h)
            out.append(y)
            t = y.argmax(1)
        return torch.stack(out, 1)


@listed(NETWORKS, (1, 3, 32, 64))
class ViTSTR(nn.Module):
    """Atienza, 2021: characters are the first tokens of a ViT."""

    def __init__(self):
        super().__init__()
        self.e = nn.Conv2d(3, 32, (8, 8), (8, 8))
        self.c = nn.Parameter(torch.zeros(1, 1, 32))
        self.p = nn.Parameter(torch.randn(1, 33, 32) * 0.02)
        self.t = nn.TransformerEncoderLayer(
            32, 4, 64, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.n = nn.LayerNorm(32)
        self.h = nn.Linear(32, 20)

    def forward(self, x):
        y = self.e(x).flatten(2).transpose(1, 2)
        y = torch.cat((self.c.expand(x.size(0), -1, -1), y), 1) + self.p
        y = self.n(self.t(y))[:, :8]
        n, k, d = y.size()
        return self.h(y.reshape(n * k, d)).view(n, k, 20)


@listed(NETWORKS, (1, 3, 32, 64))
class PARSeq(nn.Module):
    """Bautista and Atienza, 2022: positions query, in parallel, with a causal mask."""

    def __init__(self):
        super().__init__()
        self.e = nn.Conv2d(3, 32, 8, 8)
        self.q = nn.Parameter(torch.randn(1, 7, 32))
        self.d = nn.TransformerDecoderLayer(32, 4, 64, 0.0, "gelu", batch_first=True)
        self.h = nn.Linear(32, 20)
        self.register_buffer("m", torch.triu(torch.ones(7, 7, dtype=torch.bool), 1))

    def forward(self, x):
        m = self.e(x).flatten(2).transpose(1, 2)
        return self.h(self.d(self.q.expand(x.shape[0], -1, -1), m, tgt_mask=self.m))


@listed(NETWORKS)
class PSENet(nn.Module):
    """Wang et al., 2019: kernels of several sizes, those inside the text alone."""

    def __init__(self):
        super().__init__()
        self.b = Backbone()
        self.f = FeaturePyramid()
        self.c = conv_bn_act(48, 16, act=nn.ReLU)
        self.o = nn.Conv2d(16, 4, 1)

    def forward(self, x):
        fs = self.f(self.b(x))
        _, _, H, W = fs[0].size()
        y = self.c(torch.cat([F.interpolate(f, size=(H, W), mode="bilinear") for f in fs], 1))
        y = F.interpolate(self.o(y), size=x.shape[2:], mode="bilinear")
        t = (torch.sign(y[:, :1]) + 1) / 2
        return (torch.sigmoid(y[:, :1]), torch.sigmoid(y[:, 1:]) * t)


@listed(NETWORKS)
class PixelAggregation(nn.Module):
    """PAN (Wang et al., 2019): separable pyramid enhancement, similarity vectors."""

    def __init__(self):
        super().__init__()
        self.b = Backbone()
        self.r = nn.ModuleList(conv_bn_act(c, 16, 1, act=nn.ReLU) for c in (16, 32, 64))
        self.u = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(16, 16, 3, 1, 1, groups=16), conv_bn_act(16, 16, 1, act=nn.ReLU)
            )
            for _ in range(2)
        )
        self.d = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(16, 16, 3, 2, 1, groups=16), conv_bn_act(16, 16, 1, act=nn.ReLU)
            )
            for _ in range(2)
        )
        self.o = nn.Conv2d(48, 6, 1)

    def forward(self, x):
        a, b, c = (r(f) for r, f in zip(self.r, self.b(x), strict=False))

        def up(f, g):
            return F.interpolate(f, size=g.shape[2:], mode="bilinear")

        b = self.u[0](up(c, b) + b)
        a = self.u[1](up(b, a) + a)
        b = b + self.d[0](up(b, a) + a)
        c = c + self.d[1](b + up(c, b))
        y = self.o(torch.cat((a, up(b, a), up(c, a)), 1))
        return (y[:, :2].sigmoid(), F.normalize(y[:, 2:]))


@listed(NETWORKS)
class CRAFT(nn.Module):
    """Baek et al., 2019: region and affinity, channels last at the end."""

    def __init__(self):
        super().__init__()
        self.b = Backbone()

        def u(i, m, o):
            return nn.Sequential(
                nn.Conv2d(i, m, 1),
                nn.BatchNorm2d(m),
                nn.ReLU(True),
                nn.Conv2d(m, o, 3, padding=1),
                nn.BatchNorm2d(o),
                nn.ReLU(True),
            )

        self.f = nn.Sequential(
            nn.MaxPool2d(3, 1, 1), nn.Conv2d(64, 64, 3, padding=6, dilation=6), nn.Conv2d(64, 64, 1)
        )
        self.u = u(128, 32, 32)
        self.v = u(64, 32, 16)
        self.o = nn.Sequential(nn.Conv2d(16, 8, 3, padding=1), nn.ReLU(True), nn.Conv2d(8, 2, 1))

    def forward(self, x):
        _, b, c = self.b(x)
        y = self.u(torch.cat((self.f(c), c), 1))
        y = self.v(
            torch.cat(
                (F.interpolate(y, size=b.size()[2:], mode="bilinear", align_corners=False), b), 1
            )
        )
        return (self.o(y).permute(0, 2, 3, 1), y)


@listed(NETWORKS)
class FCENet(nn.Module):
    """Zhu et al., 2021: contours by Fourier coefficients, turned into points."""

    def __init__(self):
        super().__init__()
        self.b = Backbone(8)
        self.c = nn.Conv2d(32, 4, 3, 1, 1)
        self.r = nn.Conv2d(32, 10, 3, 1, 1)
        k = torch.arange(-2, 3)[:, None] * torch.arange(8)[None] * 2 * math.pi / 8
        self.register_buffer("co", torch.cos(k))
        self.register_buffer("si", torch.sin(k))

    def forward(self, x):
        f = self.b(x)[2]
        c = self.c(f)
        r = self.r(f).permute(0, 2, 3, 1)
        a, b = (r[..., :5], r[..., 5:])
        px = a @ self.co - b @ self.si
        py = a @ self.si + b @ self.co
        return (
            torch.cat((F.softmax(c[:, :2], 1), F.softmax(c[:, 2:], 1)), 1),
            torch.stack((px, py), -1),
        )


@listed(NETWORKS)
class TableNet(nn.Module):
    """Paliwal et al., 2019: two decoders, of tables and of columns."""

    def __init__(self):
        super().__init__()
        self.b = Backbone()

        def d():
            return nn.Sequential(
                nn.Conv2d(64, 32, 1),
                nn.ReLU(),
                nn.Dropout(0.8),
                nn.Upsample(scale_factor=2),
                nn.Conv2d(32, 32, 1),
            )

        self.t = d()
        self.c = d()
        self.o = nn.ConvTranspose2d(64, 1, 8, 8)
        self.p = nn.ConvTranspose2d(64, 1, 8, 8)

    def forward(self, x):
        _, b, c = self.b(x)
        return (
            torch.sigmoid(self.o(torch.cat((self.t(c), b), 1))),
            torch.sigmoid(self.p(torch.cat((self.c(c), b), 1))),
        )


@listed(NETWORKS, (1, 1, 28, 28))
class LeNet(nn.Module):
    """LeCun et al., 1998: digits; average pooling and tanh."""

    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(400, 120),
            nn.Tanh(),
            nn.Linear(120, 84),
            nn.Tanh(),
            nn.Linear(84, 10),
        )

    def forward(self, x):
        return self.f(x)


@listed(NETWORKS, (1, 3, 24, 94))
class LPRNet(nn.Module):
    """Zherzdev and Gruzdev, 2018: plates; strides over channels by 3-D pooling, global context."""

    def __init__(self):
        super().__init__()
        self.a = nn.Sequential(
            nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool3d((1, 3, 3), (1, 1, 1))
        )
        self.p = nn.MaxPool3d((1, 3, 3), (2, 1, 2))
        self.b = nn.Sequential(
            nn.Conv2d(8, 16, (3, 1), padding=(1, 0)),
            nn.ReLU(),
            nn.Conv2d(16, 20, (1, 13)),
            nn.BatchNorm2d(20),
            nn.ReLU(),
        )
        self.o = nn.Conv2d(23, 20, 1)

    def forward(self, x):
        c = F.avg_pool2d(x, (7, 6), (1, 3))
        c = c / torch.mean(torch.pow(c, 2))
        y = self.b(self.p(self.a(x)))
        c = F.adaptive_avg_pool2d(c, y.shape[2:])
        return torch.mean(self.o(torch.cat((y, c), 1)), dim=2)
