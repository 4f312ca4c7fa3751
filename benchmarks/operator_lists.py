"""The operators of published networks as shrinkc compiles them, which tables are fitted to.

    python -m benchmarks.operator_lists [qed | netspresso]

Writes `latency_tables/makers/lists/*.csv.gz`: the networks that qed-usc timed on phones (pytorchcv)
and those that NetsPresso timed on Raspberry Pis (timm, transformers and `shared.yolox`), captured,
simplified, merged where the target's table says it pays, and lowered. Weights are random: operators
do not depend on them. Needs benchmarks/requirements-coverage.txt, and takes minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.shared.models import load_torchvision
from benchmarks.shared.yolox import YOLOX
from shrinkc.compiler.api.steps.optimise import optimise
from shrinkc.compiler.capture import capture
from shrinkc.compiler.cost.keys import keyed
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.options import Options
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.makers.sources.lists import read_lists, write_lists
from shrinkc.latency_tables.store import load_table

CLASSES, SEGMENTED, DETECTED = 3, 35, 4  # of NetsPresso's networks
Build = Callable[[], nn.Module]


class _SegFormer(nn.Module):
    """B0 and the resizing of its scores to the input's size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        import transformers

        config = transformers.SegformerConfig(num_labels=SEGMENTED)
        self.model = transformers.SegformerForSemanticSegmentation(config)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.model(pixel_values=x).logits
        return nn.functional.interpolate(scores, (self.size, self.size), mode="bilinear")


def _timm(name: str) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False, num_classes=CLASSES)


def _pytorchcv(name: str) -> nn.Module:
    from pytorchcv.model_provider import get_model

    return get_model(name, pretrained=False)


# name → how it is built, side of its input
NETSPRESSO: Mapping[str, tuple[Build, int]] = {
    "EfficientFormer-l1": (partial(_timm, "efficientformer_l1"), 224),
    "MixNet-s": (partial(_timm, "mixnet_s"), 224),
    "MixNet-m": (partial(_timm, "mixnet_m"), 224),
    "MixNet-l": (partial(_timm, "mixnet_l"), 224),
    "MobileNetV3-small": (partial(_timm, "mobilenetv3_small_100"), 224),
    "MobileNetV3-large": (partial(_timm, "mobilenetv3_large_100"), 224),
    "MobileViT-s": (partial(_timm, "mobilevit_s"), 256),
    "ResNet18": (partial(_timm, "resnet18"), 224),
    "ResNet34": (partial(_timm, "resnet34"), 224),
    "ResNet50": (partial(_timm, "resnet50"), 224),
    "ViT-tiny": (partial(_timm, "vit_tiny_patch16_224"), 224),
    "SegFormer-b0": (partial(_SegFormer, 512), 512),
    "YOLOX-s": (partial(YOLOX, "s", DETECTED), 640),
    "YOLOX-m": (partial(YOLOX, "m", DETECTED), 640),
    "YOLOX-l": (partial(YOLOX, "l", DETECTED), 640),
}


def qed() -> Mapping[str, tuple[Build, int]]:
    return {name: (partial(_pytorchcv, name), 224) for name in read_lists("qed")}


SOURCES = {"qed": (qed, "pixel4"), "netspresso": (lambda: NETSPRESSO, "rpi4")}


def operators(build: Build, side: int, target: str) -> list[OpKey]:
    """As `shrinkc estimate --target` prices them in float."""
    torch.manual_seed(0)
    graph = capture(build().eval(), (torch.zeros(1, 3, side, side),))
    final = optimise(graph, load_table(target), Options(target=target)).final
    return [key for _, key in keyed(lower(final), "fp32")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", choices=tuple(SOURCES), nargs="?")
    chosen = parser.parse_args().source
    load_torchvision()
    for name, (networks, target) in SOURCES.items():
        if chosen in (None, name):
            lists: dict[str, list[OpKey]] = {}
            for network, (build, side) in networks().items():
                lists[network] = operators(build, side, target)
                print(f"{network}: {len(lists[network])} operators")
            write_lists(name, lists)


if __name__ == "__main__":
    main()
