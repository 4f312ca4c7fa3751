"""What int8 costs in accuracy, and what is done about it, on networks easy and hard to quantise.

    python -m benchmarks.int8 --data DIR [--networks mobilenet_v2,rescaled,cifar,merged]

* `mobilenet_v2`: ImageNet; its weights come from a file trained for int8.
* `rescaled`: the same function, its channels scaled at random by up to 2^±3 wherever that is exact.
* `cifar`: an inverted-residual network of width 0.5, trained in float32 on CIFAR-10.
* `merged`: MobileNetV2 with blocks merged into dense convolutions in closed form, for 1.15 times
  the speed on a Raspberry Pi 4, without training.

Every network is written as TFLite int8 as the quantiser leaves it (`plain`), and by `prepare` with
each tuning, and judged beside its own fp32 form: top-1, agreement, mean Kullback–Leibler divergence
of the classes in nats, signal to noise of the logits. Calibrated on 300 images (CIFAR-10: of the
training set), judged on 400 others (2,000 of the test set).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from benchmarks.closed_form import calibration, folded
from benchmarks.shared import cifar, results
from benchmarks.shared.common import add_data_argument, print_table
from benchmarks.shared.inverted_cifar import CLASSES, Block, conv_layers
from benchmarks.shared.mobilenet_v2 import IMAGES, images
from shrinkc.compiler.capture import capture
from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.depth.closed_form import ClosedForm, shrink_closed_form
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.formats.tflite import TFLITE
from shrinkc.compiler.images.cache import load_images
from shrinkc.compiler.images.files import find_images
from shrinkc.compiler.images.preprocessing import preprocessing_for
from shrinkc.compiler.measure.speedup import host_file
from shrinkc.compiler.pipeline.deployed import BASE_PASSES
from shrinkc.compiler.pipeline.run import run_exact_passes
from shrinkc.compiler.quantise.noise import decibels, energies
from shrinkc.compiler.quantise.ranges import calibrate
from shrinkc.compiler.quantise.simulate import Quantisation
from shrinkc.compiler.recover.distil import Tuning as Distillation
from shrinkc.compiler.recover.rebuild_span import Rebuilding
from shrinkc.compiler.support.choices import Int8Tuning
from shrinkc.compiler.verify.files import artefact
from shrinkc.latency_tables.store import load_table
from shrinkc.passes.analysis.joints import joints
from shrinkc.passes.fold.fold_affine import fold_into_input, fold_into_output
from shrinkc.passes.rewrite import Rewriter

TUNINGS: tuple[Int8Tuning, ...] = ("none", "equalise", "bias", "both")
OCTAVES = 3.0
IR_WEIGHTS = Path("weights/ir_cifar10/ir_w0.5_13epochs.pt")
# Expansion, channels, blocks, stride of the first.
IR_STAGES = (
    *((1, 8, 1, 1), (6, 16, 2, 1), (6, 16, 3, 2), (6, 32, 4, 2)),
    *((6, 48, 3, 1), (6, 80, 3, 2), (6, 160, 1, 1)),
)
IR_HEAD = 640
Batches = list[tuple[Tensor, ...]]


@dataclass(frozen=True, eq=False)
class Case:
    """A deployed network, what int8 is calibrated on, what it is judged on."""

    graph: fx.GraphModule
    calibration: Batches
    views: Tensor
    labels: list[int]


def imagenet(data: Path, graph: fx.GraphModule) -> Case:
    seen, _ = images(data / IMAGES / "calibration")
    views, labels = images(data / IMAGES / "validation")
    return Case(graph, [(x[None],) for x in seen], views, labels)


def mobilenet(data: Path) -> Case:
    return imagenet(data, folded(data))


def rescaled(data: Path) -> Case:
    """Scales move between the layers of every joint: the same function, other ranges."""
    generator = torch.Generator().manual_seed(0)
    rewriter = Rewriter(folded(data).double())
    for joint in joints(rewriter.graph_module)[0]:
        random = torch.rand(joint.channels, generator=generator, dtype=torch.float64)
        scale = 2 ** ((2 * random - 1) * OCTAVES)
        for writer in joint.writers:
            fold_into_output(rewriter, writer, 1 / scale, torch.zeros_like(scale))
        for reader in joint.readers:
            fold_into_input(rewriter, reader, scale, torch.zeros_like(scale))
    return imagenet(data, rewriter.finish().graph_module.float())


def merged(data: Path) -> Case:
    options = ClosedForm(
        kinds=("merge",), rebuilding=Rebuilding(steps=0), tuning=Distillation(steps=0)
    )
    table = load_table("rpi4")
    shrunk = shrink_closed_form(
        *(folded(data), calibration(data), table, "int8", Goal.speedup(1.15)), options=options
    )
    return imagenet(data, shrunk.graph_module)


def cifar_case(data: Path) -> Case:
    """MobileNetV2's blocks with batch norm, as `IR_WEIGHTS` has them in order."""
    layers, channels = [*conv_layers(3, 16, 3)], 16
    for expansion, outputs, count, stride in IR_STAGES:
        for index in range(count):
            layers.append(Block(channels, outputs, stride if index == 0 else 1, expansion))
            channels = outputs
    layers += conv_layers(channels, IR_HEAD, 1)
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(IR_HEAD, CLASSES)]
    model = nn.Sequential(*layers)
    state = torch.load(data / IR_WEIGHTS, map_location="cpu", weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), state.values(), strict=True)))
    graph = capture(model.eval(), (torch.randn(1, 3, cifar.SIZE, cifar.SIZE),))
    graph = run_exact_passes(graph, BASE_PASSES)[0].float()
    preprocessing = preprocessing_for((1, 3, 32, 32), mean=cifar.MEAN, std=cifar.STD)
    seen, test = (
        load_images(find_images(data / cifar.IMAGES / name).spread(count), preprocessing)
        for name, count in (("train.tar.gz", 300), ("test.tar.gz", 2000))
    )
    assert test.labels is not None
    batches = [(x[None],) for x in seen.inputs(seen.pixels)]
    return Case(graph, batches, test.inputs(test.pixels), test.labels.tolist())


CASES: dict[str, Callable[[Path], Case]] = {
    "mobilenet_v2": mobilenet,
    "rescaled": rescaled,
    "cifar": cifar_case,
    "merged": merged,
}


def plain(case: Case) -> bytes:
    """As the quantiser leaves it."""
    program = lower(case.graph)
    ranges = calibrate(case.graph, program.names, case.calibration, lambda: None)
    return TFLITE.write_int8(Quantisation(program, ranges), case.calibration[:8]).data


def logits(file: bytes, case: Case) -> Tensor:
    loaded = artefact(TFLITE, file, lower(case.graph))
    parts = [loaded.run((few,))[0] for few in case.views.split(100)]
    return torch.cat([torch.from_numpy(part) for part in parts])


def judged(got: Tensor, want: Tensor, labels: list[int]) -> dict[str, float]:
    p, q = want.log_softmax(1), got.log_softmax(1)
    signal, noise = energies(want, got)
    classes = got.argmax(1)
    return {
        "top1": int((classes == torch.tensor(labels)).sum()) / len(got),
        "agreement": int((classes == want.argmax(1)).sum()) / len(got),
        "divergence": float((p.exp() * (p - q)).sum(1).mean()),
        "snr_db": decibels(float(signal), float(noise)),
    }


def rows_of(name: str, case: Case) -> list[dict[str, Any]]:
    with torch.no_grad():
        want = torch.cat([case.graph(few)[0] for few in case.views.split(20)])
    rows: list[dict[str, Any]] = [
        {"network": name, "int8_tuning": "fp32", "seconds": 0.0, **judged(want, want, case.labels)}
    ]
    for tuning in ("plain", *TUNINGS):
        started = time.monotonic()
        if tuning == "plain":
            file = plain(case)
        else:
            file = host_file(case.graph, "int8", case.calibration, tuning)
        seconds = time.monotonic() - started
        result = judged(logits(file, case), want, case.labels)
        rows.append({"network": name, "int8_tuning": tuning, "seconds": seconds, **result})
        show(rows[-1:])
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    print_table(
        ("network", "int8", "top-1", "agrees", "divergence", "SNR, dB", "s"),
        [
            (
                *(row["network"], row["int8_tuning"]),
                *(f"{row['top1']:.2%}", f"{row['agreement']:.2%}"),
                *(f"{row['divergence']:.4f}", f"{row['snr_db']:.1f}", f"{row['seconds']:.0f}"),
            )
            for row in rows
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("--networks", default=",".join(CASES))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    path = results.result_path("int8")
    rows = results.earlier_rows(path)  # other networks' stay until they are measured again
    for name in arguments.networks.split(","):
        new = rows_of(name, CASES[name](arguments.data))
        rows = [row for row in rows if row["network"] != name] + new
        packages = ("torch", "ai-edge-litert", "ai-edge-quantizer")
        results.write(path, "int8", rows, packages)
    show(rows)


if __name__ == "__main__":
    main()
