"""Networks that onnx_in.py exports to ONNX: classifiers, a segmenter, a detector, a sequence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.shared.models import load_torchvision, randomise


@dataclass(frozen=True)
class Exported:
    """`input_shape` without the batch."""

    library: str
    name: str
    factory: Callable[[], nn.Module]
    input_shape: tuple[int, ...]

    def build(self) -> nn.Module:
        """In eval mode, weights random and the same every time."""
        load_torchvision()
        torch.manual_seed(0)
        model = self.factory()
        randomise(model, torch.randn(2, *self.input_shape))
        return model.eval()


class UNet(nn.Module):
    """Down by pooling, up by a transposed convolution and by bilinear resizing; skips."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([_block(3, 16), _block(16, 32), _block(32, 64)])
        self.up = nn.ConvTranspose2d(64, 32, 2, 2)
        self.middle, self.last = _block(64, 32), _block(48, 16)
        self.head = nn.Conv2d(16, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down[0](x)
        b = self.down[1](F.max_pool2d(a, 2))
        c = self.down[2](F.max_pool2d(b, 2))
        b = self.middle(torch.cat((self.up(c), b), 1))
        b = F.interpolate(b, size=a.shape[2:], mode="bilinear", align_corners=False)
        return self.head(self.last(torch.cat((b, a), 1)))


class Detector(nn.Module):
    """A pyramid of two maps, boxes and scores of each place; what an NMS would read."""

    def __init__(self, classes: int = 7) -> None:
        super().__init__()
        self.classes = classes
        self.stem, self.middle, self.deep = _block(3, 16, 2), _block(16, 32, 2), _block(32, 64, 2)
        self.lateral = nn.Conv2d(64, 32, 1)
        self.heads = nn.ModuleList([nn.Conv2d(n, 4 + classes, 3, 1, 1) for n in (32, 64)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        middle = self.middle(self.stem(x))
        deep = self.deep(middle)
        middle = middle + F.interpolate(self.lateral(deep), scale_factor=2.0, mode="nearest")
        boxes, scores = list[Tensor](), list[Tensor]()
        for feature, head in zip((middle, deep), self.heads, strict=True):
            n, _, h, w = feature.shape
            y = head(feature).view(n, 4 + self.classes, h * w).permute(0, 2, 1)
            rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
            grid = torch.stack((columns, rows), -1).view(1, h * w, 2).to(y.dtype)
            centre = (y[..., :2].sigmoid() + grid) * (x.shape[3] / w)
            boxes.append(torch.cat((centre, y[..., 2:4].exp().clamp(max=10.0)), -1))
            scores.append(y[..., 4:].softmax(-1))
        return torch.cat(boxes, 1), torch.cat(scores, 1)


class Sequence(nn.Module):
    """Dilated 1-D convolutions over a spectrogram, and attention over its steps."""

    def __init__(self, bands: int = 20, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.stem = heads, nn.Conv2d(1, width, (bands, 3), padding=(0, 1))
        self.convs = nn.ModuleList(
            [nn.Conv1d(width, width, 3, padding=d, dilation=d) for d in (1, 2)]
        )
        self.norm, self.qkv = nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.out, self.head = nn.Linear(width, width), nn.Linear(width, 11)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.stem(x)).squeeze(2)
        for conv in self.convs:
            x = x + F.gelu(conv(x))
        x = x.transpose(1, 2)
        n, steps, width = x.shape
        qkv = self.qkv(self.norm(x)).view(n, steps, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-1, -2) / (width // self.heads) ** 0.5).softmax(-1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(n, steps, width))
        return F.log_softmax(self.head(x), -1)


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.SiLU()
    )


def _torchvision(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import torchvision

        return (
            torchvision.models.get_model(name, weights=None, weights_backbone=None)
            if ("lraspp" in name)
            else torchvision.models.get_model(name, weights=None)
        )

    return make


def _timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import timm

        return timm.create_model(name, pretrained=False, **options)

    return make


def _pytorchcv(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        from pytorchcv.model_provider import get_model

        return get_model(name, pretrained=False, **options)

    return make


_SMALL, _USUAL = (3, 64, 64), (3, 224, 224)
EXPORTED = (
    *(
        Exported("torchvision", name, _torchvision(name), _SMALL)
        for name in ("mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "mnasnet0_5")
    ),
    Exported("torchvision", "efficientnet_b0", _torchvision("efficientnet_b0"), _SMALL),
    Exported(
        "torchvision",
        "lraspp_mobilenet_v3_large",
        _torchvision("lraspp_mobilenet_v3_large"),
        _SMALL,
    ),
    *(
        Exported("timm", name, _timm(name), _SMALL)
        for name in (
            "ghostnet_050",
            "mobilevitv2_050",
            "convnext_atto",
            "lcnet_050",
            "regnetx_002",
            "resnet10t",
        )
    ),
    Exported("timm", "vit_tiny_patch16_224", _timm("vit_tiny_patch16_224", img_size=64), _SMALL),
    Exported("pytorchcv", "fdmobilenet_w1", _pytorchcv("fdmobilenet_w1"), _USUAL),
    Exported("own", "unet", UNet, _SMALL),
    Exported("own", "detector", Detector, _SMALL),
    Exported("own", "sequence", Sequence, (1, 20, 40)),
    Exported("timm", "repvgg_a0", _timm("repvgg_a0"), _SMALL),
)
