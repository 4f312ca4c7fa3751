"""Whole networks on this machine, predicted from a table of operators measured here.

    shrinkc profile --target mine/tflite --on host                       # a grid of usual operators
    python -m benchmarks.host mine/tflite --runtime tflite               # 25 public networks
    python -m benchmarks.host mine/tflite --runtime tflite --variants    # 20 merged and sliced ones

None of the 25 networks (pytorchcv, random weights; benchmarks/requirements-coverage.txt) was
profiled, and the variants are MobileNetV2 and ResNet-18 with random blocks merged and random
widths. Networks are timed interleaved, one thread, medians; the exported files are those that
`shrinkc` writes.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
from collections.abc import Iterator

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn

from benchmarks.shared import results
from benchmarks.shared.common import print_table
from shrinkc.compiler.capture import capture
from shrinkc.compiler.cost.keys import keyed
from shrinkc.compiler.devices.jobs import Setup
from shrinkc.compiler.devices.parse import parse_device
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.pipeline.deployed import BASE_PASSES
from shrinkc.compiler.pipeline.run import run_exact_passes
from shrinkc.compiler.profile.calibrate import Network, time_networks
from shrinkc.latency_tables.store import load_table
from shrinkc.latency_tables.table import LatencyTable

PUBLIC = (
    *("mobilenet_w1", "mobilenet_wd2", "mobilenetv2_w1", "mobilenetv2_wd2", "mobilenetv2b_w3d4"),
    *("mobilenetv3_small_w1", "mobilenetv3_large_w1", "mnasnet_b1", "proxylessnas_mobile"),
    *("fbnet_cb", "fdmobilenet_w1", "resnet10", "resnet18", "resnet18_wd2", "resnet26"),
    *("preresnet18", "seresnet18", "regnetx002", "resnext14_32x4d", "squeezenet_v1_1"),
    *("squeezeresnet_v1_1", "vgg11", "darknet_ref", "efficientnet_edge_small_b", "diracnet18v2"),
)
SIZE = 224


def public_networks() -> Iterator[Network]:
    from benchmarks.shared.models import load_torchvision

    load_torchvision()
    from pytorchcv.model_provider import get_model

    for name in PUBLIC:
        torch.manual_seed(0)
        yield _lowered(name, get_model(name, pretrained=False).eval())


def _lowered(name: str, model: nn.Module) -> Network:
    graph = capture(model, (torch.randn(1, 3, SIZE, SIZE),))
    folded, _ = run_exact_passes(graph, BASE_PASSES)
    return Network(name, lower(folded.float()))


# --- variants ------------------------------------------------------------------------------------


class _Block(nn.Module):
    """An inverted residual, or the dense convolution that it merges into."""

    def __init__(self, inside: int, hidden: int, outside: int, stride: int, merged: bool) -> None:
        super().__init__()
        if merged:
            self.body: nn.Module = nn.Conv2d(inside, outside, 3, stride, 1)
        else:
            self.body = nn.Sequential(
                *(nn.Conv2d(inside, hidden, 1), nn.ReLU6()),
                *(nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden), nn.ReLU6()),
                nn.Conv2d(hidden, outside, 1),
            )
        self.after = nn.ReLU6() if merged else nn.Identity()
        self.residual = not merged and stride == 1 and inside == outside

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.body(x)
        return self.after(x + y if self.residual else y)


def _eight(value: float) -> int:
    return max(8, round(value / 8) * 8)


def inverted_variant(dice: random.Random) -> nn.Module:
    """MobileNetV2, its blocks merged and its layers sliced at random."""
    merged_share, narrow = dice.choice((0.0, 0.3, 0.6)), dice.choice((0.5, 0.75, 1.0))
    inside = _eight(32 * dice.uniform(narrow, 1))
    layers: list[nn.Module] = [nn.Conv2d(3, inside, 3, 2, 1), nn.ReLU6()]
    stages = ((16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
    for channels, repeats, stride in stages:
        outside = _eight(channels * dice.uniform(narrow, 1))
        for i in range(repeats):
            hidden = _eight(inside * dice.uniform(6 * narrow, 6))
            merged = dice.random() < merged_share and inside <= 160
            layers.append(_Block(inside, hidden, outside, stride if i == 0 else 1, merged))
            inside = outside
    head = _eight(1280 * dice.uniform(narrow, 1))
    return nn.Sequential(
        *layers,
        *(nn.Conv2d(inside, head, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(head, 1000),
    )


class _Basic(nn.Module):
    def __init__(self, inside: int, middle: int, outside: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inside, middle, 3, stride, 1), nn.ReLU(), nn.Conv2d(middle, outside, 3, 1, 1)
        )
        same = stride == 1 and inside == outside
        self.shortcut = nn.Identity() if same else nn.Conv2d(inside, outside, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def residual_variant(dice: random.Random) -> nn.Module:
    """ResNet-18 with random widths; a merged block is one 5×5 convolution."""
    narrow, inside = dice.choice((0.4, 0.7)), 64
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    for channels, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)):
        if inside == channels and dice.random() < 0.25 and channels <= 128:
            layers += [nn.Conv2d(inside, channels, 5, stride, 2), nn.ReLU()]
            continue
        middle = _eight(channels * dice.uniform(narrow, 1))
        layers.append(_Basic(inside, middle, channels, stride))
        inside = channels
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, 1000))


def variants(count: int = 20, seed: int = 0) -> Iterator[Network]:
    dice = random.Random(seed)
    for i in range(count):
        inverted = i % 4 != 3
        model = inverted_variant(dice) if inverted else residual_variant(dice)
        kind = "inverted" if inverted else "residual"
        yield _lowered(f"{kind} {i}", model.eval())


# --- the comparison ------------------------------------------------------------------------------


def predicted_us(table: LatencyTable, network: Network, precision: str) -> float:
    layers = sum(table.estimate(key).ms for _, key in keyed(network.program, precision))
    return 1e3 * (table.network_overhead_ms(precision) + layers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", help="a table profiled on this machine")
    parser.add_argument("--runtime", default="tflite", choices=("tflite", "onnxruntime"))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "int8"))
    parser.add_argument("--variants", action="store_true", help="merged and sliced networks")
    arguments = parser.parse_args()
    table = load_table(arguments.target)
    networks = list(variants() if arguments.variants else public_networks())
    setup = Setup(arguments.runtime)
    with parse_device("host").open(setup) as session:
        timed = time_networks(session, setup, networks, arguments.precision, lambda: None)
    measured, usual_us = timed.networks, timed.reference_us
    # both at the speed that the machine had when the table was measured
    speed = float(re.search(r"reference convolution ([\d.]+) µs", table.meta.note)[1]) / usual_us
    rows = [
        (n.name, measured[n.name].median_us * speed, predicted_us(table, n, arguments.precision))
        for n in networks
    ]
    print(f"clock: the reference takes {usual_us:.1f} µs now, {speed:.3f} times that for the table")
    rows.sort(key=lambda row: row[1])
    print_table(
        ("network", "measured ms", "predicted ms", "error"),
        [(n, f"{m / 1e3:.2f}", f"{p / 1e3:.2f}", f"{p / m - 1:+.1%}") for n, m, p in rows],
    )
    errors = np.array([abs(p / m - 1) for _, m, p in rows])
    rank = float(spearmanr([m for _, m, _ in rows], [p for _, _, p in rows]).statistic)
    what = "variants" if arguments.variants else "networks"
    print(
        f"{arguments.target}: mean error {errors.mean():.1%} of {len(rows)} {what}, median "
        f"{statistics.median(errors):.1%}, worst {errors.max():.1%}, Spearman {rank:.4f}"
    )
    name = f"host_{arguments.runtime}_{arguments.precision}_{what}"
    results.write(
        results.result_path(name),
        "host",
        [{"name": n, "measured_ms": m / 1e3, "predicted_ms": p / 1e3} for n, m, p in rows],
        ("ai-edge-litert", "onnxruntime"),
        summary={
            "mean_error": float(errors.mean()),
            "worst_error": float(errors.max()),
            "spearman": rank,
        },
    )


if __name__ == "__main__":
    main()
