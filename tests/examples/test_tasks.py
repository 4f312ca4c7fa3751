"""The examples of other tasks: judged by their own metric in fp32, int8 and as planned, from files
as a user has them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from short_fits import as_shipped
from torch import nn

import shrinkc
from examples.blobs import data as blobs
from examples.blobs.net import blobs_net
from examples.detector import data as detector_data
from examples.detector.net import detector
from examples.segmenter import data as segmenter_data
from examples.segmenter.net import unet
from examples.spotter import data as spotter_data
from examples.spotter.net import spotter
from shrinkc import ImageFolder

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
COUNT = 40  # images
TRAINED = tuple(sorted(EXAMPLES.glob("*/*.pt")))


@dataclass(frozen=True)
class Example:
    """`least`: of the metric on held-out images; `lost`: of it by int8, at most, on so few."""

    build: Callable[[], nn.Module]
    write: Callable[[Path, int], None]
    shape: tuple[int, ...]
    task: Any
    labels: str
    metric: str
    least: float
    lost: float

    def images(self, folder: Path) -> Any:
        labels = folder / self.labels
        return ImageFolder(folder / "images", mean=(0,), std=(1,), annotations=labels)


KINDS = {
    "detector": Example(
        *(detector, detector_data.write, (1, 1, 64, 64)),
        *(shrinkc.Detection(layout="yolov8"), "labels", "mAP", 0.5, 0.02),
    ),
    "blobs": Example(
        *(blobs_net, blobs.write, (1, 1, 48, 48)),
        *(shrinkc.Regression(), "numbers", "R²", 0.8, 0.02),
    ),
    "segmenter": Example(
        *(unet, segmenter_data.write, (1, 1, 64, 64)),
        *(shrinkc.Segmentation(), "masks", "mIoU", 0.7, 0.02),
    ),
}


def network(name: str) -> nn.Module:
    net = KINDS[name].build()
    net.load_state_dict(torch.load(EXAMPLES / name / f"{name}.pt", weights_only=True))
    return net.eval()


@pytest.mark.parametrize("name", KINDS)
def test_judged_by_its_own_metric_in_fp32_and_int8(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    kind.write(tmp_path, COUNT)
    given: dict[str, Any] = {"target": "rpi4", "task": kind.task, "runs": 0}
    given["images"] = kind.images(tmp_path / "test")
    x = torch.rand(kind.shape)
    exact = shrinkc.compile(network(name), x, **given).report
    given["calibration"] = kind.images(tmp_path / "train")
    int8 = shrinkc.compile(network(name), x, precision="int8", **given).report
    assert exact.task.metric == kind.metric
    before = exact.original_top1
    assert before is not None
    assert before > kind.least
    for report, lost in ((exact, 1e-3), (int8, kind.lost)):
        assert [file.file for file in report.artefacts] == ["model.onnx", "model.tflite"]
        for file in report.artefacts:
            assert file.top1 == pytest.approx(before, abs=lost), file.file


def test_a_plan_is_judged_by_its_own_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_shipped(monkeypatch.setattr)  # the drop is what is tested
    kind, net = KINDS["blobs"], network("blobs")
    kind.write(tmp_path, COUNT)
    x = torch.rand(kind.shape)
    int8 = shrinkc.estimate(net, x, target="rpi4", precision="int8").total_ms
    planned = shrinkc.plan(
        *(net, x),
        target="rpi4",
        goal=shrinkc.Goal.budget_ms(int8 / 1.5),
        images=kind.images(tmp_path / "train"),
        evaluation=kind.images(tmp_path / "test"),
        task=kind.task,
        runs=0,
    )
    assert planned.plan.after_ms <= int8 / 1.5
    assert planned.plan.promise is not None
    drop = planned.plan.promise.drop
    assert drop is not None
    before = planned.report.original_top1
    assert before is not None
    for file in planned.report.artefacts:
        assert file.top1 == pytest.approx(before - drop, abs=1e-3), file.file
    assert drop < 0.1
    planned.save(tmp_path / "out")  # a block between two ReLUs is left out
    seen = kind.images(tmp_path / "test")  # tell what files say of their input
    again = shrinkc.apply(net, tmp_path / "out", x, images=seen, task=kind.task, runs=0)
    for name in ("model.onnx", "model.tflite"):
        assert again.files[name] == planned.files[name], name


def test_the_spotter_hears_words() -> None:
    net = spotter()
    net.load_state_dict(torch.load(EXAMPLES / "spotter" / "spotter.pt", weights_only=True))
    waves, words = spotter_data.draw(COUNT, np.random.default_rng(2))
    compiled = shrinkc.compile(net.eval(), (1, 4000), target="rpi4", images=(waves, words), runs=0)
    assert compiled.report.original_top1 is not None
    assert compiled.report.original_top1 > 0.8
    assert [file.top1 for file in compiled.report.artefacts] == [compiled.report.original_top1] * 2


@pytest.mark.parametrize("path", TRAINED, ids=lambda path: path.stem)
def test_the_weights_are_small(path: Path) -> None:
    assert path.stat().st_size < 600_000


def test_data_are_the_same_each_time() -> None:
    one, other = (detector_data.canvases(training=False, seed=1).batch(3)[0] for _ in range(2))
    assert torch.equal(one, other)
