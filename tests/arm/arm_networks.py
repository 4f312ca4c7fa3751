"""The networks that run on the emulated Arm, and their files as shrinkc writes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from arm_emulator import Array
from torch import Tensor, nn

from examples import digits_data, digits_net
from examples.digits_net import InvertedResidual, LinearExpansion, conv_bn
from shrinkc.compiler.api.steps.optimise import optimise
from shrinkc.compiler.api.steps.target import cost_table
from shrinkc.compiler.capture import capture
from shrinkc.compiler.export import ops
from shrinkc.compiler.export.tflite.write import boundary_order
from shrinkc.compiler.formats.exported import export
from shrinkc.compiler.formats.onnx import quantize_onnx
from shrinkc.compiler.formats.tflite import quantize_tflite
from shrinkc.compiler.options import Options
from shrinkc.compiler.quantise.ranges import calibrate
from shrinkc.compiler.support.choices import Merge

WEIGHTS = Path(digits_net.__file__).parent / "digits.pt"
TARGET = "rpi4"
PRECISIONS = ("fp32", "int8")
SIZE = 64
CALIBRATION = 32  # inputs
SAMPLES = 2


@dataclass(frozen=True)
class Variant:
    """A network and what is done to its linear segments."""

    network: str
    merge: Merge

    def __str__(self) -> str:
        done = {"none": "", "all": ", merged", "auto": f", merged as {TARGET} likes"}
        return self.network + done[self.merge]


@dataclass(frozen=True)
class Built:
    """A variant's files by (format, precision); `samples` are (1, C, H, W) inputs, `step` is what
    one step of the int8 output is worth."""

    program: ops.Program
    files: dict[tuple[str, str], bytes]
    samples: tuple[Tensor, ...]
    step: float

    def stored_samples(self, kind: str) -> tuple[Array, ...]:
        """The samples in a file's own layout."""
        (value,) = self.program.inputs
        order = boundary_order(value) if kind == "tflite" else range(len(value.shape))
        return tuple(np.ascontiguousarray(x.numpy().transpose(order)) for x in self.samples)


def inverted_residuals(width: float, linear: bool, guarded: bool = True) -> nn.Sequential:
    """(N, 3, 64, 64) → (N, 10): a stem, three stages of an inverted residual at stride 2 and two at
    stride 1, a head. `linear` leaves those at stride 1 without activations inside, as DepthShrinker
    does, so that each is one dense 3×3 convolution once merged. `guarded` has an activation in
    front of them, without which the 1×1 there disappears in a convolution of six times the input.
    """
    channels, *stages = (round(channels * width) for channels in (16, 24, 32, 64))
    layers: list[nn.Module] = [*conv_bn(3, channels, 3, 2, padding=1), nn.ReLU6()]
    for outputs in stages:
        layers.append(InvertedResidual(channels, outputs, 2, 6))
        layers += [nn.ReLU6()] if guarded else []
        for _ in range(2):
            layers.append(
                LinearExpansion(outputs, 6) if linear else InvertedResidual(outputs, outputs, 1, 6)
            )
        channels = outputs
    return nn.Sequential(*layers, *_head(channels))


def separable() -> nn.Sequential:
    """(N, 3, 64, 64) → (N, 10): depthwise and 1×1 without activation between them. Merged, each
    pair has many times its multiplications."""
    layers: list[nn.Module] = [*conv_bn(3, 32, 3, 2, padding=1), nn.ReLU6()]
    for inputs, outputs, stride in ((32, 64, 2), (64, 64, 1), (64, 64, 1)):
        layers += conv_bn(inputs, inputs, 3, stride, padding=1, groups=inputs)
        layers += [*conv_bn(inputs, outputs, 1), nn.ReLU6()]
    return nn.Sequential(*layers, *_head(64))


def _head(channels: int) -> list[nn.Module]:
    pooled = [*conv_bn(channels, 128, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return [*pooled, nn.Linear(128, 10)]


NETWORKS: dict[str, Callable[[], nn.Sequential]] = {
    "wide": lambda: inverted_residuals(1.0, linear=False),
    "narrow": lambda: inverted_residuals(0.5, linear=False),
    "wide linear": lambda: inverted_residuals(1.0, linear=True),
    "narrow linear": lambda: inverted_residuals(0.5, linear=True),
    "unguarded linear": lambda: inverted_residuals(1.0, linear=True, guarded=False),
    "separable": separable,
}
DIGITS = tuple(Variant("digits", merge) for merge in ("none", "auto", "all"))
WIDE, NARROW = Variant("wide", "none"), Variant("narrow", "none")
MERGES = tuple(
    (Variant(network, "none"), Variant(network, "all"))
    for network in ("wide linear", "narrow linear", "unguarded linear", "separable")
)
VARIANTS = (*DIGITS, WIDE, NARROW, *(variant for pair in MERGES for variant in pair))


def build(variant: Variant) -> Built:
    """Compile a variant to all four files, in about two seconds."""
    model, calibration, samples = _inputs(variant.network)
    graph = capture(model, (samples[0],))
    final = optimise(graph, cost_table(TARGET), Options(TARGET, merge=variant.merge)).final
    exported = export(final, opset=17)
    program, onnx, tflite = exported.program, exported.files["onnx"], exported.files["tflite"]
    assert program is not None
    batches = [(x,) for x in calibration]
    ranges = calibrate(final, program.names, batches, lambda: None)
    low, high = ranges[program.outputs[0].name]
    few = batches[:4]
    return Built(
        program,
        {
            ("onnx", "fp32"): onnx,
            ("tflite", "fp32"): tflite,
            ("onnx", "int8"): quantize_onnx(onnx, few, ranges, seven_bits=False),
            ("tflite", "int8"): quantize_tflite(tflite, program, few, ranges),
        },
        samples,
        (high - low) / 255,
    )


def _inputs(network: str) -> tuple[nn.Module, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The model in eval mode, inputs to calibrate on and samples to compare."""
    if network == "digits":
        model = digits_net.digits_net()
        model.load_state_dict(torch.load(WEIGHTS, weights_only=True))
        return model.eval(), *_digit_images()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = NETWORKS[network]().train()
        inputs = torch.randn(CALIBRATION, 3, SIZE, SIZE)
        with torch.no_grad():
            for _ in range(20):  # batch norm's statistics, momentum 0.1
                model(inputs)
        samples = torch.randn(SAMPLES, 3, SIZE, SIZE).split(1)
    return model.eval(), inputs.split(1), samples


def _digit_images() -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Training images, and one test image of each digit, 0 first."""
    train, _, images, labels = digits_data.split()
    chosen = [images[labels.index(digit)] for digit in range(10)]
    calibration = digits_data.to_tensor(train[:CALIBRATION])
    return calibration.split(1), digits_data.to_tensor(chosen).split(1)
