"""Reports that nothing was compiled for: a plain one, and one with all that a report can have."""

from __future__ import annotations

import json
from typing import Any

from shrinkc.compiler.cost.predict import LayerLatency, Prediction
from shrinkc.compiler.measure.layers import LayerTime
from shrinkc.compiler.pipeline.run import Step
from shrinkc.compiler.quantise.noise import LayerNoise
from shrinkc.compiler.report.report import NOT_CAPTURED, ArtefactReport, Network, Report
from shrinkc.compiler.report.sections import (
    ChoiceRow,
    FrontierPoint,
    Judged,
    PlanSection,
    TableSection,
)
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.tally import ErrorEstimate, Estimate, Judgement
from shrinkc.passes.base import Change, Skip

IN_TORCH = Judgement(
    images=400,
    errors=(ErrorEstimate(0.17, 0.14, 0.21, Estimate(0.17, 0.14, 0.21)),),
    agreement=0.912,
    score=0.865,
    original_score=0.8825,
    drop=Estimate(0.0175, -0.006, 0.041),
)

Layers = tuple[LayerLatency, ...]


def as_json(report: Report) -> dict[str, Any]:
    """As it is read back from report.json."""
    return json.loads(json.dumps(report.to_json()))


def plain() -> dict[str, Any]:
    """fp32, one exact merge (b and c are d), no images, nothing measured."""
    before = (_layer("a", 4.0, 40), _layer("b", 2.0, 20), _layer("c", 3.0, 30), _layer("e", 1.0, 9))
    after = (_layer("a", 4.0, 40), _layer("d", 3.5, 35), _layer("e", 1.0, 9))
    merge = Change("d", ("b", "c", "d"), "3 nodes are one 3×3 convolution, stride 1×1")
    steps = (
        Step("fold-batch-norm", (), (Skip("bn", "its input has 2 users"),), 1e-15, 0.02),
        Step("merge-linear", (merge,), (), 2e-15, 0.01),
    )
    files = (
        ArtefactReport("onnx", "model.onnx", 9_000, "fp32", "onnxruntime 1.0", 4e-7),
        ArtefactReport("tflite", "model.tflite", 8_000, "fp32", "ai-edge-litert 2.0", 5e-7),
    )
    return as_json(
        Report(
            model="net.pt",
            target="rpi4",
            precision="fp32",
            input_shapes={"x": (1, 3, 32, 32)},
            captured_by="symbolic_trace",
            before=Network(9, 99_000_000, 10_000),
            after=Network(7, 84_000_000, 9_000),
            predicted_before=Prediction("rpi4/tflite-xnnpack", "fp32", before, 0.5),
            predicted_after=Prediction("rpi4/tflite-xnnpack", "fp32", after, 0.5),
            artefacts=files,
            steps=steps,
            max_relative_error=5e-7,
            target_format="tflite",
        )
    )


def uncaptured() -> dict[str, Any]:
    """Written by torch.onnx alone."""
    size = Network(0, None, 9_000)
    return as_json(
        Report(
            model="odd.pt",
            target="rpi4",
            precision="fp32",
            input_shapes={"input_0": (1, 3, 32, 32)},
            captured_by=NOT_CAPTURED,
            before=size,
            after=size,
            predicted_before=None,
            predicted_after=None,
            artefacts=(ArtefactReport("onnx", "model.onnx", 9_000, "fp32", "onnxruntime", 1e-7),),
            steps=(),
            max_relative_error=1e-7,
            notes=("model.onnx was written by torch.onnx",),
            failures=("model.tflite: the network decides by its numbers",),
        )
    )


def rich() -> dict[str, Any]:
    """A network like MobileNetV2, shrunk to int8 by a plan, judged, measured, with a frontier."""
    before = mobile_layers()
    after, choices = _shrunk(before)
    frontier = tuple(
        FrontierPoint(62 / ms, ms, None, top1, agreement, precision, chosen)
        for ms, top1, agreement, precision, chosen in (
            (62.0, 0.8825, 1.0, "fp32", False),
            (52.1, 0.875, 0.94, "fp32", False),
            (45.4, 0.8475, 0.905, "fp32", False),
            (38.5, 0.7925, 0.84, "fp32", False),
            (33.9, 0.88, 0.97, "int8", False),
            (27.2, 0.86, 0.912, "int8", True),
            (22.4, 0.815, 0.853, "int8", False),
        )
    )
    refused = (
        Skip("features_18", "its output has 2 users"),
        Skip("features_3_conv", "a dense 3×3 convolution of 144 channels costs more than it saves"),
        Skip("features_5_conv", "a dense 3×3 convolution of 192 channels costs more than it saves"),
    )
    predicted = Prediction("rpi4/tflite-xnnpack", "int8", after, 0.4)
    return as_json(
        Report(
            model="mobilenet_v2.pt, shrunk,",
            target="rpi4",
            precision="int8",
            input_shapes={"x": (1, 3, 224, 224)},
            captured_by="symbolic_trace",
            before=Network(155, 300_774_272, 14_003_000),
            after=Network(131, 268_000_000, 3_560_000),
            predicted_before=Prediction("rpi4/tflite-xnnpack", "fp32", before, 0.5),
            predicted_after=predicted,
            artefacts=(
                _file("onnx", 3_560_000, (9.1, 6.2)),
                _file("tflite", 3_490_000, (8.4, 6.0)),
            ),
            steps=(
                Step("simplify", (), (), 0.0, 0.21),
                Step("fold-batch-norm", (), (Skip("bn_7", "its input has 2 users"),), 5e-15, 0.4),
            ),
            max_relative_error=6e-7,
            target_format="tflite",
            original_top1=0.8825,
            in_torch=IN_TORCH,
            images=400,
            calibration_images=300,
            preprocessing={"resize": 256, "size": [224, 224], "mean": [0.485], "std": [0.229]},
            host={"cpu": "AMD EPYC", "system": "Linux", "python": "3.11.7"},
            notes=("model.onnx was judged in exact arithmetic: int8 overflows on this machine",),
            predicted_ms_before_in_precision=0.55 * sum(x.ms for x in before) + 0.4,
            table=TableSection(
                "Raspberry Pi 4 Model B",
                "TensorFlow Lite, XNNPACK",
                "fitted",
                "XNNPACK's README",
                11.3,
            ),
            command="shrinkc shrink mobilenet_v2.pt --target rpi4 --images images --speedup 2.2 "
            "--precision int8 --evaluation other -o 'out folder'",
            changed="shrunk",
            judged=Judged.of(IN_TORCH, CLASSIFICATION),
            plan=PlanSection("closed-form", choices, refused),
            frontier=frontier,
            noise=tuple(
                LayerNoise(x.name, 38.0 - 0.37 * at + 6 * (at % 3), "int8")
                for at, x in enumerate(after)
                if x.op.endswith("conv2d")
            ),
            measured_layers=tuple(
                LayerTime(x.name, x.ms * (0.9 + 0.05 * (at % 5))) for at, x in enumerate(after)
            ),
        )
    )


def mobile_layers() -> Layers:
    """Stem, 17 inverted residuals, head; the milliseconds are made up."""
    layers = [_layer("features_0", 3.1, 11)]
    for at in range(1, 18):
        wide = 4.2 / (1 + 0.18 * at)
        layers.append(_layer(f"features_{at}_expand", wide, 9))
        layers.append(_layer(f"features_{at}_depthwise", wide / 2, 3, "depthwise_conv2d"))
        layers.append(_layer(f"features_{at}_project", wide * 0.7, 8))
        if at in (3, 5, 6, 8, 9, 10, 12, 13, 15, 16):
            layers.append(_layer(f"features_{at}_add", 0.2, 0, "add"))
    head = (_layer("features_18", 3.4, 20), _layer("mean", 0.1, 0, "mean"))
    return (*layers, *head, _layer("classifier", 1.4, 1, "linear"))


def _shrunk(before: Layers) -> tuple[Layers, tuple[ChoiceRow, ...]]:
    """Blocks 6 and 9 become one convolution each, 13 goes, 15 and 16 are narrowed."""
    after: list[LayerLatency] = []
    for x in before:
        block = x.name.split("_")[1] if x.name.startswith("features_") else ""
        if block in ("6", "9") and x.op == "add":
            after.append(_layer(x.name, 0.9, 20))
        elif block in ("6", "9", "13"):
            continue
        elif block in ("15", "16") and x.macs:
            after.append(_layer(x.name, x.ms * 0.4, x.macs / 2e6, x.op))
        else:
            after.append(_layer(x.name, x.ms * 0.55, x.macs / 1e6, x.op))
    return tuple(after), (
        ChoiceRow("features_5_add", "features_6_add", "merge", None, None, "int8", 1.4, 0.02, 0.97),
        ChoiceRow("features_8_add", "features_9_add", "merge", None, None, "int8", 0.9, 0.01, 0.98),
        ChoiceRow(
            "features_12_add", "features_13_add", "drop", None, None, "int8", 1.5, 0.05, 0.96
        ),
        *(
            ChoiceRow(
                *(f"features_{at - 1}_add", f"features_{at}_expand", "narrow", 960, 512),
                *("int8", 0.45, None, None),
            )
            for at in (15, 16)
        ),
    )


def _layer(name: str, ms: float, millions: float, op: str = "conv2d") -> LayerLatency:
    source = "fitted" if ms > 0.5 else "fitted, extrapolated"
    return LayerLatency(name, op, ms, source, round(millions * 1e6))


def _file(name: str, size: int, took: tuple[float, float]) -> ArtefactReport:
    before, after = took
    return ArtefactReport(
        name=name,
        file=f"model.{name}",
        bytes=size,
        precision="int8",
        runtime="onnxruntime 1.32.0" if name == "onnx" else "ai-edge-litert 2.3.0",
        max_relative_error=3.1e-2,
        top1=0.86,
        agreement=0.885,
        drop=Estimate(0.023, -0.004, 0.05),
        errors=(ErrorEstimate(0.21, 0.17, 0.26, Estimate(0.3, 0.2, 0.4)),),
        bytes_before=14_000_000,
        measured_ms=after,
        measured_iqr_ms=0.02 * after,
        measured_ms_before=before,
        measured_iqr_ms_before=0.13 * before,
        memory_bytes=21_000_000,
        memory_bytes_before=48_000_000,
    )
