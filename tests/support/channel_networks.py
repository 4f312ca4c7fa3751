"""One small network for every way in which channels are coupled, moved or scaled."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from hand_built import randomise
from torch import Tensor, fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.passes.base import copy_graph


class Coupled(nn.Module):
    """Layers by name, and a function of them and the inputs."""

    def __init__(self, body: Callable[..., object], **layers: nn.Module) -> None:
        super().__init__()
        self.body = body
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> object:
        return self.body(self, x)


class TwoInputs(Coupled):
    def forward(self, x: Tensor, y: Tensor) -> object:
        return self.body(self, x, y)


def captured(model: nn.Module, *shapes: tuple[int, ...]) -> fx.GraphModule:
    """The canonical graph in float64, every number random; (2, 3, 8, 8) unless told otherwise."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if not list(module.children()):
            randomise(module, generator)
    inputs = tuple(torch.randn(s, generator=generator) for s in shapes or ((2, 3, 8, 8),))
    return capture(model.eval(), inputs).double()


def conv(inputs: int, outputs: int, kernel: int = 3, groups: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


def head(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))


def residual() -> nn.Module:
    def body(m: Coupled, x: Tensor) -> object:
        x = m.a(x)
        return m.head(F.relu(x + m.c(m.b(x))))

    return Coupled(body, a=conv(3, 8), b=conv(8, 6), c=nn.Conv2d(6, 8, 1), head=head(8))


def concat() -> nn.Module:
    def body(m: Coupled, x: Tensor) -> object:
        a = m.a(x)
        return m.head(m.c(torch.cat((a, m.b(a), a), 1)))

    return Coupled(body, a=conv(3, 4), b=conv(4, 6), c=conv(14, 8), head=head(8))


def chunk() -> nn.Module:
    def body(m: Coupled, x: Tensor) -> object:
        a, b = m.a(x).chunk(2, 1)
        return m.head(torch.cat((m.b(a), b), 1))

    return Coupled(body, a=conv(3, 8), b=conv(4, 6), head=head(10))


def shuffle() -> nn.Module:
    """ShuffleNetV2's unit, twice."""

    def body(m: Coupled, x: Tensor) -> object:
        x = m.a(x)
        for branch in (m.b, m.c):
            kept, changed = x.chunk(2, 1)
            x = torch.cat((kept, branch(changed)), 1)
            n, c, h, w = x.shape
            x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return m.head(x)

    return Coupled(body, a=conv(3, 16), b=conv(8, 8), c=conv(8, 8), head=head(16))


def group_shuffle() -> nn.Module:
    """ShuffleNet's: a grouped convolution, a shuffle, a grouped convolution."""

    def body(m: Coupled, x: Tensor) -> object:
        x = m.b(m.a(x))
        n, c, h, w = x.shape
        x = x.view(n, 3, c // 3, h, w).transpose(1, 2).reshape(n, c, h, w)
        return m.head(m.d(m.c(x)))

    return Coupled(
        body, a=conv(3, 12), b=conv(12, 18, 1, 3), c=conv(18, 18, 3, 18), d=conv(18, 12, 1, 3),
        head=head(12),
    )  # fmt: skip


def flatten() -> nn.Module:
    layers = conv(3, 6), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(96, 10), nn.ReLU()
    return nn.Sequential(*layers, nn.Linear(10, 4))


def pixel_shuffle() -> nn.Module:
    return nn.Sequential(conv(3, 16), nn.PixelShuffle(2), conv(4, 6), nn.Conv2d(6, 3, 1))


def pixel_unshuffle() -> nn.Module:
    return nn.Sequential(conv(3, 4), nn.PixelUnshuffle(2), conv(16, 6), nn.Conv2d(6, 3, 1))


def transposed() -> nn.Module:
    up = nn.ConvTranspose2d(8, 6, 2, 2)
    grouped = nn.ConvTranspose2d(6, 8, 2, 2, groups=2)
    return nn.Sequential(conv(3, 8), up, nn.BatchNorm2d(6), grouped, nn.ReLU(), nn.Conv2d(8, 2, 1))


def depthwise_multiplier() -> nn.Module:
    return nn.Sequential(conv(3, 5), conv(5, 15, 3, 5), conv(15, 6, 1), nn.Conv2d(6, 2, 1))


def grouped() -> nn.Module:
    """ResNeXt's bottleneck, 4 groups of 4."""

    def body(m: Coupled, x: Tensor) -> object:
        x = m.a(x)
        return m.head(x + m.d(m.c(m.b(x))))

    return Coupled(
        body, a=conv(3, 8), b=conv(8, 16, 1), c=conv(16, 16, 3, 4), d=nn.Conv2d(16, 8, 1),
        head=head(8),
    )  # fmt: skip


def squeeze_excite() -> nn.Module:
    def body(m: Coupled, x: Tensor) -> object:
        x = m.a(x)
        return m.head(x * torch.sigmoid(m.up(F.relu(m.down(x.mean((2, 3), keepdim=True))))))

    down, up = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
    return Coupled(body, a=conv(3, 8), down=down, up=up, head=head(8))


def broadcast() -> nn.Module:
    """Scaled by a parameter for each channel, by one map for all, by a vector from a linear."""

    def body(m: Coupled, x: Tensor) -> object:
        x = m.a(x)
        x = x * m.scale.weight + torch.sigmoid(m.map(x))
        return m.head(x * m.vector(x.mean((2, 3)))[:, :, None, None])

    scale = nn.Module()
    scale.register_parameter("weight", nn.Parameter(torch.randn(6, 1, 1)))
    vector, one = nn.Linear(6, 6), nn.Conv2d(6, 1, 1)
    return Coupled(body, a=conv(3, 6), scale=scale, vector=vector, map=one, head=head(6))


def layer_norm() -> nn.Module:
    """ConvNeXt's block: channels last, a residual around it."""

    def body(m: Coupled, x: Tensor) -> object:
        x = m.a(x)
        y = m.depth(x).permute(0, 2, 3, 1)
        y = m.down(F.gelu(m.up(m.norm(y)))).permute(0, 3, 1, 2)
        return m.head(x + y)

    depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
    up, down = nn.Linear(8, 20), nn.Linear(20, 8)
    return Coupled(
        body, a=conv(3, 8), depth=depth, norm=nn.LayerNorm(8), up=up, down=down, head=head(8)
    )


def group_norm() -> nn.Module:
    layers = nn.Conv2d(3, 12, 3), nn.GroupNorm(3, 12), nn.ReLU(), conv(12, 6)
    return nn.Sequential(*layers, nn.GroupNorm(6, 6), nn.Conv2d(6, 2, 1))


def pyramid() -> nn.Module:
    """FPN: three levels, lateral 1×1, upsampled and added, a head shared by all levels."""

    def body(m: Coupled, x: Tensor) -> object:
        c1 = m.c1(x)
        c2 = m.c2(F.max_pool2d(c1, 2))
        c3 = m.c3(F.max_pool2d(c2, 2))
        p3 = m.l3(c3)
        p2 = m.l2(c2) + F.interpolate(p3, scale_factor=2.0)
        p1 = m.l1(c1) + F.interpolate(p2, scale_factor=2.0)
        return tuple(m.out(m.shared(p)) for p in (p1, p2, p3))

    lateral = {"l1": nn.Conv2d(4, 6, 1), "l2": nn.Conv2d(6, 6, 1), "l3": nn.Conv2d(8, 6, 1)}
    levels = {"c1": conv(3, 4), "c2": conv(4, 6), "c3": conv(6, 8)}
    return Coupled(body, **levels, **lateral, shared=conv(6, 5), out=nn.Conv2d(5, 2, 1))


def two_inputs() -> nn.Module:
    """Two images, two outputs, a sum in the middle."""

    def body(m: Coupled, x: Tensor, y: Tensor) -> object:
        z = m.a(x) + m.b(y)
        return m.c(z), m.head(z)

    return TwoInputs(body, a=conv(3, 6), b=conv(4, 6), c=nn.Conv2d(6, 2, 1), head=head(6))


def called_twice() -> nn.Module:
    def body(m: Coupled, x: Tensor) -> object:
        x = m.a(x)
        return m.head(m.b(F.relu(m.b(x))) + m.c(x))

    return Coupled(body, a=conv(3, 6), b=nn.Conv2d(6, 6, 3, padding=1), c=conv(6, 6), head=head(6))


def shared_weight() -> nn.Module:
    """Two convolutions hold the same weight, each with a bias of its own."""

    def body(m: Coupled, x: Tensor) -> object:
        x = m.a(x)
        return m.head(m.b(x) * torch.sigmoid(m.c(x)))

    b, c = nn.Conv2d(6, 4, 1), nn.Conv2d(6, 4, 1)
    c.weight = b.weight
    return Coupled(body, a=conv(3, 6), b=b, c=c, head=head(4))


def attention() -> nn.Module:
    """Two heads over positions, with q, k and v from one linear layer."""

    def body(m: Coupled, x: Tensor) -> object:
        x = m.a(x).flatten(2).transpose(1, 2)
        n, t, c = x.shape
        q, k, v = m.qkv(m.norm(x)).reshape(n, t, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) * 0.5).softmax(-1)
        x = x + m.out((weights @ v).transpose(1, 2).reshape(n, t, c))
        return m.fc(x.mean(1))

    layers = {"qkv": nn.Linear(8, 24), "out": nn.Linear(8, 8), "fc": nn.Linear(8, 3)}
    return Coupled(body, a=conv(3, 8), norm=nn.LayerNorm(8), **layers)


def zero_shortcut() -> nn.Module:
    """ResNet for CIFAR: the shortcut takes every second pixel and adds channels of zeros."""

    def body(m: Coupled, x: Tensor) -> object:
        x = m.a(x)
        y = m.c(m.b(x))
        return m.head(F.relu(F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)) + y))

    b = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU())
    return Coupled(body, a=conv(3, 4), b=b, c=nn.Conv2d(6, 8, 1), head=head(8))


def conditions() -> nn.Module:
    """Channels compared, chosen from, rounded: with each other, with numbers, with a constant."""

    def body(m: Coupled, x: Tensor) -> object:
        x, y = m.a(x), m.b(x)
        z = torch.where(x > y, x, y % 2.0) * (x != 0.5) + torch.floor(y).cos()
        return m.head(torch.where(z.amin((2, 3), keepdim=True) > m.least, z, 0.5))

    model = Coupled(body, a=conv(3, 6), b=conv(3, 6), head=head(6))
    model.register_buffer("least", torch.randn(6, 1, 1))
    return model


def lookup() -> nn.Module:
    """Channels of a are read at computed places; where to, b says, and filters come of c."""

    def body(m: Coupled, x: Tensor) -> object:
        places = m.b(x).tanh().permute(0, 2, 3, 1)
        y = F.grid_sample(m.a(x), places, align_corners=False).flatten(2).mT
        best = y.sum(2).topk(9, 1)[1].unsqueeze(2).expand(-1, -1, y.shape[2])
        rows = y.gather(1, best).mT.reshape(x.shape[0], -1, 3, 3)
        filters = m.c(x).mean((0, 2, 3)).view(3, 1, 1, 1)
        return m.head(rows), F.conv2d(x, filters, groups=3), m.c(x).cumsum(1)

    return Coupled(body, a=conv(3, 6), b=conv(3, 2), c=conv(3, 3), head=head(6))


def windows() -> nn.Module:
    """Windows of the map, more positions than channels, weighed (CARAFE)."""

    def body(m: Coupled, x: Tensor) -> object:
        x = m.a(x)
        parts = F.unfold(x, 5, padding=2).view(x.shape[0], -1, 25, *x.shape[2:])
        return m.head((parts * m.b(x).softmax(1).unsqueeze(1)).sum(2))

    return Coupled(body, a=conv(3, 6), b=conv(6, 25), head=head(6))


def order() -> nn.Module:
    """Positions in order, channels in order: where those of a are asked for, they stay."""

    def body(m: Coupled, x: Tensor) -> object:
        y = m.b(x)
        tops = torch.cat((y.topk(3, 3)[0], y.flip(3), y.argmax(3, keepdim=True).float()), 3)
        return m.head(tops), m.a(x).argmax(1), y.amin(1)

    return Coupled(body, a=conv(3, 4), b=conv(3, 6), head=head(6))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    f.__name__: f
    for f in (
        *(residual, concat, chunk, shuffle, group_shuffle, flatten, pixel_shuffle),
        *(pixel_unshuffle, transposed, depthwise_multiplier, grouped, squeeze_excite, broadcast),
        *(layer_norm, group_norm, pyramid, two_inputs, called_twice, shared_weight, attention),
        *(zero_shortcut, conditions, order, lookup, windows),
    )
}
INPUTS: dict[str, tuple[tuple[int, ...], ...]] = {"two_inputs": ((2, 3, 8, 8), (2, 4, 8, 8))}


@cache
def _once(name: str) -> fx.GraphModule:
    return captured(NETWORKS[name](), *INPUTS.get(name, ()))


def graph_of(name: str) -> fx.GraphModule:
    """The captured network, to be changed at will."""
    return copy_graph(_once(name))
