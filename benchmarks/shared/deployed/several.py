"""Several inputs, several outputs, several tasks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.shared.deployed import Builder
from benchmarks.shared.deployed.blocks import (
    C3,
    Backbone,
    CSPBackbone,
    Residual,
    conv_bn_act,
    conv_bn_relu_1d,
)
from benchmarks.shared.deployed.register import ids, listed, mask

NETWORKS: dict[str, Builder] = {}


@listed(NETWORKS, (1, 3, 32, 32), (1, 3, 32, 32))
class TwoTower(nn.Module):
    """Siamese encoder, cosine similarity and distance."""

    def __init__(self):
        super().__init__()
        self.t = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, 2, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, 8),
        )
        self.l = nn.Parameter(torch.tensor(2.0))

    def forward(self, a, b):
        a, b = (F.normalize(self.t(a)), F.normalize(self.t(b)))
        return (F.cosine_similarity(a, b) * self.l.exp(), F.pairwise_distance(a, b))


@listed(NETWORKS, (1, 3, 32, 32))
class MultiTask(nn.Module):
    """A dictionary of age, gender, emotion and score."""

    def __init__(self):
        super().__init__()
        self.b = Backbone(8)
        self.a = nn.Linear(32, 1)
        self.g = nn.Linear(32, 2)
        self.e = nn.Linear(32, 7)

    def forward(self, x):
        f = self.b(x)[2].mean((2, 3))
        return {
            "age": (F.softmax(self.e(f), 1) * torch.arange(7.0)).sum(1),
            "gender": self.g(f).argmax(1),
            "emotion": F.log_softmax(self.e(f), -1),
            "score": self.a(f).squeeze(-1),
        }


@listed(NETWORKS, (1, 5, 8), mask(1, 5))
class Masked(nn.Module):
    """Attention with a mask that is an input."""

    def __init__(self):
        super().__init__()
        self.m = nn.MultiheadAttention(8, 2, batch_first=True)
        self.f = nn.Linear(8, 2)

    def forward(self, x, mask):
        y, _ = self.m(x, x, x, key_padding_mask=mask, need_weights=False)
        return self.f(y)


class Tower(nn.Sequential):
    def __init__(self, i=3, o=16):
        super().__init__(
            conv_bn_act(i, 16, 3, 2, act=nn.ReLU),
            conv_bn_act(16, 24, 3, 2, act=nn.ReLU),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(24, o),
        )


@listed(NETWORKS, (1, 3, 24, 24), (1, 3, 40, 40))
class SiamRPN(nn.Module):
    """Li et al., 2018: the template's features are kernels over the search image, depthwise."""

    def __init__(self):
        super().__init__()
        self.b = nn.Sequential(
            conv_bn_act(3, 16, 3, 2, act=nn.ReLU), conv_bn_act(16, 16, 3, 2, act=nn.ReLU)
        )
        self.k = nn.Conv2d(16, 16, 3, bias=False)
        self.x = nn.Conv2d(16, 16, 3, bias=False)
        self.c = nn.Conv2d(16, 10, 1)
        self.r = nn.Conv2d(16, 20, 1)

    def forward(self, z, x):
        k, y = (self.k(self.b(z)), self.x(self.b(x)))
        n, c = k.shape[:2]
        o = F.conv2d(
            y.reshape(1, n * c, *y.shape[2:]), k.reshape(n * c, 1, *k.shape[2:]), groups=n * c
        )
        o = o.reshape(n, c, *o.shape[2:])
        return (self.c(o), self.r(o))


@listed(NETWORKS, (1, 3, 24, 24), (1, 3, 40, 40))
class SiamFC(nn.Module):
    """Bertinetto et al., 2016: one map of cross-correlation."""

    def __init__(self):
        super().__init__()
        self.b = nn.Sequential(
            nn.Conv2d(3, 16, 5, 2),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(3, 1),
            nn.Conv2d(16, 16, 3),
        )
        self.s = nn.Parameter(torch.tensor(0.01))

    def forward(self, z, x):
        z, x = (self.b(z), self.b(x))
        n, c, h, w = x.shape
        o = F.conv2d(x.view(1, n * c, h, w), z, groups=n)
        return o.view(n, 1, o.size(-2), o.size(-1)) * self.s


@listed(NETWORKS, (1, 3, 32, 32), (1, 3, 32, 32), (1, 3, 32, 32))
class TripletNet(nn.Module):
    """Hoffer and Ailon, 2015: one tower three times, two distances."""

    def __init__(self):
        super().__init__()
        self.t = Tower()

    def forward(self, a, p, n):
        a, p, n = (self.t(a), self.t(p), self.t(n))
        return (F.pairwise_distance(a, p, 2), F.pairwise_distance(a, n, 2))


@listed(NETWORKS, (1, 3, 32, 32), (1, 1, 32, 32))
class FuseNet(nn.Module):
    """Hazirbas et al., 2016: colour and depth, depth's features added at each level."""

    def __init__(self):
        super().__init__()
        self.a = Backbone()
        self.d = Backbone()
        self.d.s[0] = nn.Conv2d(1, 16, 7, 2, 3, bias=False)
        self.o = nn.Sequential(nn.ConvTranspose2d(64, 16, 8, 8), nn.ReLU(), nn.Conv2d(16, 4, 1))

    def forward(self, x, d):
        a, e = (self.a.s(x), self.d.s(d))
        a = a + e
        e = self.d.a(e)
        a = self.a.a(a) + e
        e = self.d.b(e)
        a = self.a.b(a) + e
        return self.o(self.a.c(a) + self.d.c(e))


@listed(NETWORKS, (1, 3, 32, 32), (1, 1, 32, 32))
class ACNet(nn.Module):
    """Hu et al., 2019: colour and depth weighed by attention into a third branch."""

    def __init__(self):
        super().__init__()
        self.a = conv_bn_act(3, 16, 3, 2, act=nn.ReLU)
        self.d = conv_bn_act(1, 16, 3, 2, act=nn.ReLU)
        self.u = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 16, 1), nn.Sigmoid())
            for _ in range(2)
        )
        self.b = Residual(16, 32, 2)
        self.o = nn.Conv2d(32, 4, 1)

    def forward(self, x, d):
        a, e = (self.a(x), self.d(d))
        return F.interpolate(
            self.o(self.b(a * self.u[0](a) + e * self.u[1](e))), scale_factor=4, mode="bilinear"
        )


@listed(NETWORKS, (1, 3, 32, 32), (1, 8))
class ImageAndTable(nn.Module):
    """An image beside numbers (TabularFusion): features modulated (FiLM, Perez et al., 2018)."""

    def __init__(self):
        super().__init__()
        self.a = conv_bn_act(3, 16, 3, 2, act=nn.ReLU)
        self.b = conv_bn_act(16, 16, 3, 2, act=nn.Identity)
        self.m = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 32))
        self.o = nn.Linear(16, 3)

    def forward(self, x, t):
        g, b = self.m(t).chunk(2, 1)
        y = F.relu(self.b(self.a(x)) * (1 + g[..., None, None]) + b[..., None, None])
        return self.o(y.mean((2, 3)))


@listed(NETWORKS, ids(50, 1, 4), (1, 6))
class DLRM(nn.Module):
    """Naumov et al., 2019: embeddings and numbers, all inner products, the lower triangle."""

    def __init__(self):
        super().__init__()
        self.e = nn.ModuleList(nn.Embedding(50, 8) for _ in range(4))
        self.b = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU())
        self.t = nn.Sequential(nn.Linear(18, 16), nn.ReLU(), nn.Linear(16, 1), nn.Sigmoid())
        i = torch.tril_indices(5, 5, -1)
        self.register_buffer("i", i[0])
        self.register_buffer("j", i[1])

    def forward(self, c, x):
        d = self.b(x)
        z = torch.stack([d] + [e(c[:, k]) for k, e in enumerate(self.e)], 1)
        z = torch.bmm(z, z.transpose(1, 2))
        return self.t(torch.cat((d, z[:, self.i, self.j]), 1))


@listed(NETWORKS, ids(50, 1, 5), (1, 4))
class WideAndDeep(nn.Module):
    """Cheng et al., 2016: a linear part and a deep one of the same features."""

    def __init__(self):
        super().__init__()
        self.w = nn.Embedding(50, 1)
        self.e = nn.Embedding(50, 8)
        self.l = nn.Linear(4, 1)
        self.d = nn.Sequential(
            nn.Linear(44, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 1)
        )

    def forward(self, c, x):
        return torch.sigmoid(
            self.w(c).sum(1) + self.l(x) + self.d(torch.cat((self.e(c).flatten(1), x), 1))
        ).squeeze(1)


@listed(NETWORKS, ids(50, 1, 6), (1, 4))
class DeepFM(nn.Module):
    """Guo et al., 2017: half of the squared sum less the sum of squares."""

    def __init__(self):
        super().__init__()
        self.e = nn.Embedding(50, 8)
        self.f = nn.Embedding(50, 1)
        self.x = nn.Linear(4, 8)
        self.d = nn.Sequential(nn.Linear(56, 24), nn.ReLU(), nn.Linear(24, 1))

    def forward(self, c, x):
        v = torch.cat((self.e(c), self.x(x).unsqueeze(1)), 1)
        fm = 0.5 * (v.sum(1).pow(2) - v.pow(2).sum(1)).sum(1, keepdim=True)
        return torch.sigmoid(fm + self.f(c).sum(1) + self.d(v.flatten(1)))


@listed(NETWORKS, ids(50, 1, 1), ids(50, 1, 8))
class DIN(nn.Module):
    """Zhou et al., 2018: a target attends to what was clicked; Dice-like gates."""

    def __init__(self):
        super().__init__()
        self.e = nn.Embedding(50, 8, padding_idx=0)
        self.a = nn.Sequential(nn.Linear(32, 16), nn.PReLU(), nn.Linear(16, 1))
        self.o = nn.Sequential(nn.Linear(16, 16), nn.PReLU(), nn.Linear(16, 1))

    def forward(self, t, h):
        q = self.e(t).expand(-1, 8, -1)
        k = self.e(h)
        a = self.a(torch.cat((q, k, q - k, q * k), -1)).squeeze(-1)
        a = a.masked_fill(h == 0, -1000000000.0).softmax(-1)
        return torch.sigmoid(
            self.o(torch.cat((self.e(t)[:, 0], torch.bmm(a.unsqueeze(1), k).squeeze(1)), 1))
        )


@listed(NETWORKS, (1, 12))
class MMoE(nn.Module):
    """Ma et al., 2018: experts mixed by a gate for each task."""

    def __init__(self):
        super().__init__()
        self.e = nn.ModuleList(nn.Sequential(nn.Linear(12, 16), nn.ReLU()) for _ in range(3))
        self.g = nn.ModuleList(nn.Linear(12, 3) for _ in range(2))
        self.t = nn.ModuleList(nn.Linear(16, 1) for _ in range(2))

    def forward(self, x):
        e = torch.stack([m(x) for m in self.e], 1)
        return tuple(
            (
                torch.sigmoid(t((g(x).softmax(-1).unsqueeze(-1) * e).sum(1)))
                for g, t in zip(self.g, self.t, strict=False)
            )
        )


@listed(NETWORKS, (1, 3, 64, 64))
class YOLOP(nn.Module):
    """Wu et al., 2022: traffic objects, drivable area and lanes of one image."""

    def __init__(self):
        super().__init__()
        self.b = CSPBackbone()
        self.l = conv_bn_act(64, 32, 1)
        self.c = C3(64, 32)
        self.d = nn.Conv2d(32, 18, 1)

        def g():
            return nn.Sequential(
                conv_bn_act(32, 16),
                nn.Upsample(scale_factor=2),
                C3(16, 8),
                nn.Upsample(scale_factor=4),
                nn.Conv2d(8, 2, 3, 1, 1),
                nn.Sigmoid(),
            )

        self.a, self.k = (g(), g())

    def forward(self, x):
        _, b, c = self.b(x)
        f = self.c(torch.cat((F.interpolate(self.l(c), scale_factor=2), b), 1))
        y = self.d(f)
        n, _, h, w = y.shape
        return (y.view(n, 3, 6, h, w).permute(0, 1, 3, 4, 2).contiguous(), self.a(f), self.k(f))


@listed(NETWORKS, (1, 3, 32, 32), (1, 40, 20))
class AudioVisual(nn.Module):
    """Arandjelovic and Zisserman, 2017: does the sound belong to the image?"""

    def __init__(self):
        super().__init__()
        self.v = Tower()
        self.a = nn.Sequential(
            conv_bn_relu_1d(40, 24, 3, 2), nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(24, 16)
        )
        self.o = nn.Linear(1, 2)

    def forward(self, x, a):
        return self.o(
            F.pairwise_distance(F.normalize(self.v(x)), F.normalize(self.a(a)), keepdim=True)
        ).softmax(1)


@listed(NETWORKS, (1, 3, 32, 32), ids(50, 1, 8))
class CLIP(nn.Module):
    """Radford et al., 2021: an image and a text in one space, logits scaled."""

    def __init__(self):
        super().__init__()
        self.v = Tower()
        self.e = nn.Embedding(50, 16)
        self.p = nn.Parameter(torch.randn(8, 16) * 0.01)
        self.t = nn.TransformerEncoderLayer(
            16, 2, 32, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.n = nn.LayerNorm(16)
        self.l = nn.Parameter(torch.tensor(2.66))
        self.register_buffer("m", torch.full((8, 8), float("-inf")).triu_(1))

    def forward(self, x, i):
        t = self.n(self.t(self.e(i) + self.p, src_mask=self.m))
        t = t[torch.arange(t.shape[0]), i.argmax(-1)]
        a, b = (self.v(x), t)
        a = a / a.norm(dim=1, keepdim=True)
        b = b / b.norm(dim=1, keepdim=True)
        y = self.l.exp() * a @ b.t()
        return (y, y.t())


@listed(NETWORKS, (1, 3, 32, 32), ids(50, 1, 6))
class VQA(nn.Module):
    """Antol et al., 2015: a question by an LSTM, an image, their product."""

    def __init__(self):
        super().__init__()
        self.v = Tower()
        self.e = nn.Embedding(50, 16)
        self.l = nn.LSTM(16, 16, batch_first=True)
        self.o = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 10))

    def forward(self, x, q):
        _, (h, _) = self.l(torch.tanh(self.e(q)))
        return self.o(F.normalize(self.v(x), p=2, dim=1) * h[-1])


@listed(NETWORKS, (1, 64, 3))
class PointNet(nn.Module):
    """Qi et al., 2017: points moved by a predicted matrix, a maximum over them."""

    def __init__(self):
        super().__init__()
        self.t = nn.Sequential(conv_bn_relu_1d(3, 16, 1), conv_bn_relu_1d(16, 32, 1))
        self.f = nn.Linear(32, 9)
        self.a = conv_bn_relu_1d(3, 16, 1)
        self.b = conv_bn_relu_1d(16, 32, 1)
        self.o = nn.Sequential(nn.Linear(32, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))
        self.g = nn.Conv1d(48, 5, 1)

    def forward(self, x):
        x = x.transpose(2, 1)
        m = self.f(torch.max(self.t(x), 2, keepdim=True)[0].view(-1, 32)) + torch.eye(
            3
        ).flatten().view(1, 9)
        x = torch.bmm(x.transpose(2, 1), m.view(-1, 3, 3)).transpose(2, 1)
        a = self.a(x)
        g = torch.max(self.b(a), 2)[0]
        return (
            F.log_softmax(self.o(g), 1),
            self.g(torch.cat((a, g.unsqueeze(2).repeat(1, 1, 64)), 1)).transpose(2, 1),
        )


@listed(NETWORKS, (1, 4, 16, 16), (1, 6))
class ActorCritic(nn.Module):
    """Mnih et al., 2016: frames and a vector, a policy and a value."""

    def __init__(self):
        super().__init__()
        self.c = nn.Sequential(
            nn.Conv2d(4, 16, 4, 2), nn.ReLU(), nn.Conv2d(16, 16, 3, 2), nn.ReLU(), nn.Flatten()
        )
        self.f = nn.Linear(16 * 9 + 6, 32)
        self.m = nn.Linear(32, 3)
        self.l = nn.Parameter(torch.zeros(3))
        self.v = nn.Linear(32, 1)

    def forward(self, x, k):
        f = torch.tanh(self.f(torch.cat((self.c(x / 255.0), k), 1)))
        return (
            torch.tanh(self.m(f)),
            self.l.clamp(-20, 2).exp().expand(x.shape[0], 3),
            self.v(f).squeeze(-1),
        )


@listed(NETWORKS, (1, 4, 24, 24))
class DuelingDQN(nn.Module):
    """Wang et al., 2016: value and advantages, their mean subtracted."""

    def __init__(self):
        super().__init__()
        self.c = nn.Sequential(
            nn.Conv2d(4, 16, 8, 4), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten()
        )
        self.v = nn.Sequential(nn.Linear(144, 32), nn.ReLU(), nn.Linear(32, 1))
        self.a = nn.Sequential(nn.Linear(144, 32), nn.ReLU(), nn.Linear(32, 6))

    def forward(self, x):
        f = self.c(x)
        a = self.a(f)
        q = self.v(f) + a - a.mean(1, keepdim=True)
        return (q, q.argmax(1))


@listed(NETWORKS, (1, 3, 48, 64), (1, 1))
class PilotNet(nn.Module):
    """Bojarski et al., 2016, with the car's speed: steering by an arctangent."""

    def __init__(self):
        super().__init__()
        self.c = nn.Sequential(
            nn.Conv2d(3, 16, 5, 2),
            nn.ELU(),
            nn.Conv2d(16, 24, 5, 2),
            nn.ELU(),
            nn.Conv2d(24, 24, 3),
            nn.ELU(),
            nn.Flatten(),
        )
        self.f = nn.Sequential(nn.Linear(24 * 77 + 1, 32), nn.ELU(), nn.Linear(32, 1))

    def forward(self, x, v):
        return 2 * torch.atan(self.f(torch.cat((self.c(x / 127.5 - 1), v), 1)))
