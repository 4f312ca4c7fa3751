"""Blocks that networks of several families share."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

leaky = partial(nn.LeakyReLU, 0.1)  # as of Darknet


def conv_bn_act(i, o, k=3, s=1, g=1, act=nn.SiLU, d=1):
    """Convolution, batch norm, activation; padded to keep the size at stride 1."""
    return nn.Sequential(
        nn.Conv2d(i, o, k, s, d * (k // 2), d, g, bias=False), nn.BatchNorm2d(o), act()
    )


class Bottleneck(nn.Module):
    """YOLOv5's bottleneck."""

    def __init__(self, c, act=nn.SiLU):
        super().__init__()
        self.a = conv_bn_act(c, c, 1, act=act)
        self.b = conv_bn_act(c, c, 3, act=act)

    def forward(self, x):
        return x + self.b(self.a(x))


class C3(nn.Module):
    """Cross-stage partial block of YOLOv5."""

    def __init__(self, i, o, n=1):
        super().__init__()
        h = o // 2
        self.a = conv_bn_act(i, h, 1)
        self.b = conv_bn_act(i, h, 1)
        self.m = nn.Sequential(*[Bottleneck(h) for _ in range(n)])
        self.c = conv_bn_act(2 * h, o, 1)

    def forward(self, x):
        return self.c(torch.cat((self.m(self.a(x)), self.b(x)), 1))


class C2f(nn.Module):
    """Cross-stage partial block of YOLOv8."""

    def __init__(self, i, o, n=1):
        super().__init__()
        self.c = o // 2
        self.a = conv_bn_act(i, o, 1)
        self.b = conv_bn_act((2 + n) * self.c, o, 1)
        self.m = nn.ModuleList(Bottleneck(self.c) for _ in range(n))

    def forward(self, x):
        y = list(self.a(x).chunk(2, 1))
        y.extend(m(y[-1]) for m in self.m)
        return self.b(torch.cat(y, 1))


class SPPF(nn.Module):
    """Spatial pyramid pooling by one pooling, repeated."""

    def __init__(self, c):
        super().__init__()
        self.a = conv_bn_act(c, c // 2, 1)
        self.b = conv_bn_act(c * 2, c, 1)
        self.m = nn.MaxPool2d(5, 1, 2)

    def forward(self, x):
        x = self.a(x)
        y = self.m(x)
        z = self.m(y)
        return self.b(torch.cat((x, y, z, self.m(z)), 1))


class CSPBackbone(nn.Module):
    """Four strides of cross-stage partial blocks; features at strides 4, 8 and 16."""

    def __init__(self, block=C3, w=16, act=nn.SiLU):
        super().__init__()
        self.stem = conv_bn_act(3, w, 3, 2)
        self.d1 = conv_bn_act(w, w, 3, 2)
        self.b1 = block(w, w)
        self.d2 = conv_bn_act(w, 2 * w, 3, 2)
        self.b2 = block(2 * w, 2 * w)
        self.d3 = conv_bn_act(2 * w, 4 * w, 3, 2)
        self.b3 = block(4 * w, 4 * w)
        self.sp = SPPF(4 * w)

    def forward(self, x):
        p1 = self.b1(self.d1(self.stem(x)))
        p2 = self.b2(self.d2(p1))
        p3 = self.sp(self.b3(self.d3(p2)))
        return (p1, p2, p3)


class PathAggregation(nn.Module):
    """A level up and a level down again (Liu et al., 2018)."""

    def __init__(self, w=16, block=C3):
        super().__init__()
        self.l = conv_bn_act(4 * w, 2 * w, 1)
        self.m = block(4 * w, 2 * w)
        self.up = nn.Upsample(scale_factor=2)
        self.d = conv_bn_act(2 * w, 2 * w, 3, 2)
        self.n = block(4 * w, 4 * w)

    def forward(self, p2, p3):
        q = self.l(p3)
        a = self.m(torch.cat((self.up(q), p2), 1))
        b = self.n(torch.cat((self.d(a), q), 1))
        return [a, b]


class Residual(nn.Module):
    """ResNet's basic block."""

    def __init__(self, i, o, st=1):
        super().__init__()
        self.a = nn.Conv2d(i, o, 3, st, 1, bias=False)
        self.n = nn.BatchNorm2d(o)
        self.b = nn.Conv2d(o, o, 3, 1, 1, bias=False)
        self.m = nn.BatchNorm2d(o)
        self.d = (
            nn.Sequential(nn.Conv2d(i, o, 1, st, bias=False), nn.BatchNorm2d(o))
            if st > 1 or i != o
            else None
        )

    def forward(self, x):
        y = self.m(self.b(F.relu(self.n(self.a(x)))))
        return F.relu(y + (x if self.d is None else self.d(x)))


class Backbone(nn.Module):
    """A short ResNet; features at strides 4, 8 and 16."""

    def __init__(self, w=16):
        super().__init__()
        self.s = nn.Sequential(
            nn.Conv2d(3, w, 7, 2, 3, bias=False),
            nn.BatchNorm2d(w),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )
        self.a = Residual(w, w)
        self.b = Residual(w, 2 * w, 2)
        self.c = Residual(2 * w, 4 * w, 2)

    def forward(self, x):
        a = self.a(self.s(x))
        b = self.b(a)
        return (a, b, self.c(b))


class FeaturePyramid(nn.Module):
    """Lin et al., 2017."""

    def __init__(self, w=16, o=16):
        super().__init__()
        self.l = nn.ModuleList(nn.Conv2d(c, o, 1) for c in (w, 2 * w, 4 * w))
        self.o = nn.ModuleList(nn.Conv2d(o, o, 3, 1, 1) for _ in range(3))

    def forward(self, fs):
        level = [m(f) for m, f in zip(self.l, fs, strict=False)]
        for i in (1, 0):
            level[i] = level[i] + F.interpolate(
                level[i + 1], size=level[i].shape[-2:], mode="nearest"
            )
        return [m(f) for m, f in zip(self.o, level, strict=False)]


class Separable(nn.Module):
    """Depthwise and pointwise convolution with batch norm."""

    def __init__(self, c):
        super().__init__()
        self.d = nn.Conv2d(c, c, 3, 1, 1, groups=c, bias=False)
        self.p = nn.Conv2d(c, c, 1)
        self.b = nn.BatchNorm2d(c)

    def forward(self, x):
        return self.b(self.p(self.d(x)))


def conv_bn_relu_1d(i, o, k, s=1, d=1, g=1):
    """In one dimension."""
    return nn.Sequential(
        nn.Conv1d(i, o, k, s, d * (k - 1) // 2, d, g, bias=False), nn.BatchNorm1d(o), nn.ReLU()
    )


class ChannelNorm(nn.Module):
    """Layer norm over channels, written out."""

    def __init__(self, c):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(c))
        self.bias = nn.Parameter(torch.zeros(c))

    def forward(self, x):
        mu = x.mean(1, keepdim=True)
        var = (x - mu).pow(2).mean(1, keepdim=True)
        return self.weight.view(1, -1, 1, 1) * ((x - mu) / (var + 1e-06).sqrt()) + self.bias.view(
            1, -1, 1, 1
        )


class RepVGG(nn.Module):
    """Three branches in training form (Ding et al., 2021)."""

    def __init__(self, i, o, st=1):
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(i, o, 3, st, 1, bias=False), nn.BatchNorm2d(o))
        self.b = nn.Sequential(nn.Conv2d(i, o, 1, st, bias=False), nn.BatchNorm2d(o))
        self.i = nn.BatchNorm2d(i) if i == o and st == 1 else None

    def forward(self, x):
        return F.relu(self.a(x) + self.b(x) + (0 if self.i is None else self.i(x)))


def anchor_points(feats, strides, off=0.5):
    """Centres of all cells of all levels, and their strides."""
    ap, st = ([], [])
    for f, s in zip(feats, strides, strict=False):
        _, _, h, w = f.shape
        sx = torch.arange(w, dtype=f.dtype) + off
        sy = torch.arange(h, dtype=f.dtype) + off
        sy, sx = torch.meshgrid(sy, sx, indexing="ij")
        ap.append(torch.stack((sx, sy), -1).view(-1, 2))
        st.append(torch.full((h * w, 1), s, dtype=f.dtype))
    return (torch.cat(ap), torch.cat(st))


def boxes_of_distances(d, ap, xywh=True, dim=-1):
    """Distances to four sides → boxes."""
    lt, rb = d.chunk(2, dim)
    a, b = (ap - lt, ap + rb)
    return torch.cat(((a + b) / 2, b - a), dim) if xywh else torch.cat((a, b), dim)


class DistributionToDistance(nn.Module):
    """Expectation of a distribution over distances (Li et al., 2020)."""

    def __init__(self, c1=8):
        super().__init__()
        self.conv = nn.Conv2d(c1, 1, 1, bias=False)
        self.conv.weight.data[:] = torch.arange(c1).float().view(1, c1, 1, 1)
        self.c1 = c1

    def forward(self, x):
        b, _c, a = x.shape
        return self.conv(x.view(b, 4, self.c1, a).transpose(2, 1).softmax(1)).view(b, 4, a)


class DistributionHead(nn.Module):
    """Anchor-free head of YOLOv8, with distributions over distances."""

    def __init__(self, ch, nc=3):
        super().__init__()
        self.nc = nc
        self.no = nc + 32
        self.cv2 = nn.ModuleList(
            nn.Sequential(conv_bn_act(c, 16), nn.Conv2d(16, 32, 1)) for c in ch
        )
        self.cv3 = nn.ModuleList(
            nn.Sequential(conv_bn_act(c, 16), nn.Conv2d(16, nc, 1)) for c in ch
        )
        self.dfl = DistributionToDistance(8)
        self.shape = None
        for h in self.cv3:
            h[1].weight.data *= 30

    def forward(self, x):
        shape = x[0].shape
        x = [torch.cat((a(f), b(f)), 1) for a, b, f in zip(self.cv2, self.cv3, x, strict=False)]
        ap, st = (t.transpose(0, 1) for t in anchor_points(x, (8, 16)))
        y = torch.cat([i.view(shape[0], self.no, -1) for i in x], 2)
        box, cls = y.split((32, self.nc), 1)
        return (
            torch.cat(
                (boxes_of_distances(self.dfl(box), ap.unsqueeze(0), dim=1) * st, cls.sigmoid()), 1
            ),
            x,
        )


class PSA(nn.Module):
    """Attention of YOLOv10, with a depthwise positional encoding."""

    def __init__(self, c, nh=2):
        super().__init__()
        self.nh = nh
        self.hd = c // nh
        self.kd = self.hd // 2
        self.sc = self.kd ** (-0.5)
        self.qkv = nn.Conv2d(c, c + self.kd * nh * 2, 1)
        self.proj = nn.Conv2d(c, c, 1)
        self.pe = nn.Conv2d(c, c, 3, 1, 1, groups=c)

    def forward(self, x):
        B, C, H, W = x.shape
        n = H * W
        q, k, v = (
            self.qkv(x)
            .view(B, self.nh, self.kd * 2 + self.hd, n)
            .split([self.kd, self.kd, self.hd], 2)
        )
        a = (q.transpose(-2, -1) @ k * self.sc).softmax(-1)
        x = (v @ a.transpose(-2, -1)).view(B, C, H, W) + self.pe(v.reshape(B, C, H, W))
        return self.proj(x)


def windows(x, w):
    """(N, H, W, C) → (windows, size, size, C)."""
    B, H, W, C = x.shape
    return (
        x.view(B, H // w, w, W // w, w, C).permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, w, w, C)
    )


def from_windows(x, w, H, W):
    """The inverse of `windows`."""
    B = int(x.shape[0] / (H * W / w / w))
    return (
        x.view(B, H // w, W // w, w, w, -1).permute(0, 1, 3, 2, 4, 5).contiguous().view(B, H, W, -1)
    )


class TemporalResidual(nn.Module):
    """TC-ResNet's block."""

    def __init__(self, i, o, st):
        super().__init__()
        self.a = conv_bn_relu_1d(i, o, 9, st)
        self.b = nn.Sequential(nn.Conv1d(o, o, 9, 1, 4, bias=False), nn.BatchNorm1d(o))
        self.d = (
            nn.Sequential(nn.Conv1d(i, o, 1, st, bias=False), nn.BatchNorm1d(o), nn.ReLU())
            if st > 1
            else None
        )

    def forward(self, x):
        return F.relu(self.b(self.a(x)) + (self.d(x) if self.d is not None else x))


class SqueezeExcite1d(nn.Module):
    """In one dimension."""

    def __init__(self, c):
        super().__init__()
        self.s = nn.Sequential(
            nn.AdaptiveAvgPool1d(1), nn.Conv1d(c, 8, 1), nn.ReLU(), nn.Conv1d(8, c, 1), nn.Sigmoid()
        )

    def forward(self, x):
        return x * self.s(x)


class InvertedResidual(nn.Module):
    """MobileNetV2's block; V3's with squeeze and excite and h-swish."""

    def __init__(self, i, o, t=2, st=1, k=3, se=False, act=nn.ReLU6):
        super().__init__()
        h = i * t
        self.a = conv_bn_act(i, h, 1, act=act)
        self.d = conv_bn_act(h, h, k, st, h, act=act)
        self.se = SqueezeExcite(h) if se else nn.Identity()
        self.p = nn.Sequential(nn.Conv2d(h, o, 1, bias=False), nn.BatchNorm2d(o))
        self.skip = i == o and st == 1

    def forward(self, x):
        y = self.p(self.se(self.d(self.a(x))))
        return x + y if self.skip else y


class SqueezeExcite(nn.Module):
    """Hu et al., 2018, with a hard sigmoid."""

    def __init__(self, c):
        super().__init__()
        self.f = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(c, max(4, c // 4), 1),
            nn.ReLU(),
            nn.Conv2d(max(4, c // 4), c, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x):
        return x * self.f(x)


class GhostModule(nn.Module):
    """Han et al., 2020: half of the maps by a cheap convolution of the other half."""

    def __init__(self, i, o, relu=True):
        super().__init__()
        act = nn.ReLU if relu else nn.Identity
        self.a = conv_bn_act(i, o // 2, 1, act=act)
        self.b = conv_bn_act(o // 2, o // 2, 3, 1, o // 2, act=act)

    def forward(self, x):
        a = self.a(x)
        return torch.cat((a, self.b(a)), 1)


class ShuffleUnit(nn.Module):
    """ShuffleNetV2's unit: half passes, half is convolved, channels are shuffled."""

    def __init__(self, c):
        super().__init__()
        h = c // 2
        self.m = nn.Sequential(
            conv_bn_act(h, h, 1, act=nn.ReLU),
            conv_bn_act(h, h, 3, 1, h, act=nn.Identity),
            conv_bn_act(h, h, 1, act=nn.ReLU),
        )

    def forward(self, x):
        a, b = x.chunk(2, 1)
        x = torch.cat((a, self.m(b)), 1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class MobileBackbone(nn.Module):
    """Inverted residuals; features at strides 4, 8 and 16."""

    def __init__(self, w=16, se=False, act=nn.ReLU6):
        super().__init__()
        self.a = nn.Sequential(
            conv_bn_act(3, w, 3, 2, act=act), InvertedResidual(w, w, 2, 2, se=se, act=act)
        )
        self.b = nn.Sequential(
            InvertedResidual(w, 2 * w, 2, 2, 5, se, act),
            InvertedResidual(2 * w, 2 * w, 2, 1, 3, se, act),
        )
        self.c = nn.Sequential(
            InvertedResidual(2 * w, 4 * w, 2, 2, 5, se, act),
            InvertedResidual(4 * w, 4 * w, 2, 1, 3, se, act),
        )

    def forward(self, x):
        a = self.a(x)
        b = self.b(a)
        return (a, b, self.c(b))


class PatchTransformer(nn.Module):
    """A small ViT without a head: patches, positions, two pre-norm layers."""

    def __init__(self, size=64, patch=8, d=32, extra=1):
        super().__init__()
        self.e = nn.Conv2d(3, d, patch, patch)
        self.x = nn.Parameter(torch.randn(1, extra, d) * 0.02)
        self.p = nn.Parameter(torch.randn(1, (size // patch) ** 2 + extra, d) * 0.02)
        self.t = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(d, 4, 2 * d, 0.0, "gelu", batch_first=True, norm_first=True),
            2,
            enable_nested_tensor=False,
        )

    def forward(self, x):
        x = self.e(x).flatten(2).transpose(1, 2)
        return self.t(torch.cat((self.x.expand(x.shape[0], -1, -1), x), 1) + self.p)
