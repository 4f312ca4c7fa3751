"""Networks judged by what they are for, from what a user gives to the report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import shrinkc
from shrinkc import Goal, ImageFolder, Recipe
from shrinkc.compiler.api.steps.network import subject_of
from shrinkc.compiler.cli.main import main
from shrinkc.compiler.report.html.sections.verdict import verdict
from shrinkc.compiler.tasks.asked import asked_task
from shrinkc.compiler.width.prune import Pruning
from shrinkc.errors import InputError

X = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Quadrants(nn.Module):
    """Sees white quarters of an image: (n, 4 + 1, 4), a box and a probability of each."""

    def __init__(self) -> None:
        super().__init__()
        self.grey, self.pool = nn.Conv2d(3, 1, 1), nn.AvgPool2d(16)
        nn.init.constant_(self.grey.weight, 8 / 3)
        nn.init.constant_(self.grey.bias, -4.0)
        middle = torch.tensor([[8.0, 24, 8, 24], [8, 8, 24, 24]])
        self.register_buffer("boxes", torch.cat((middle, torch.full((2, 4), 16.0)))[None])

    def forward(self, x: Tensor) -> Tensor:
        scores = self.pool(self.grey(x)).sigmoid().flatten(2)
        boxes: Any = self.boxes
        return torch.cat((boxes + 0 * scores, scores), 1)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Twelve of 32×32, a quarter of each is white; YOLO's labels beside them, two of them wrong."""
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for index in range(12):
        top, left = divmod(index % 4, 2)
        pixels = np.zeros((32, 32, 3), np.uint8)
        pixels[16 * top : 16 * top + 16, 16 * left : 16 * left + 16] = 255
        Image.fromarray(pixels).save(tmp_path / "images" / f"{index:02}.png")
        x, y = (0.25 + 0.5 * place for place in ((left, top) if index < 10 else (1 - left, top)))
        (tmp_path / "labels" / f"{index:02}.txt").write_text(f"0 {x} {y} 0.5 0.5\n")
    return tmp_path / "images"


def test_a_detector_and_yolos_labels(images: Path) -> None:
    folder = ImageFolder(images, mean=(0,), std=(1,))
    task = shrinkc.Detection(layout="yolov8", scale="pixels")
    made = shrinkc.compile(Quadrants().eval(), X, target="rpi4", images=folder, task=task, runs=0)
    report = made.report
    assert report.task.name == "detection"
    found = [report.original_top1, *(file.top1 for file in report.artefacts)]
    assert found == pytest.approx([found[0]] * 3)
    assert 0.6 < (found[0] or 0) < 0.9  # ten of twelve
    assert set(report.artefacts[0].details) == {"mAP50"}
    written = json.loads(made.files["report.json"])
    assert (written["task"]["metric"], written["task"]["style"]) == ("mAP", "number")
    assert written["preprocessing"]["fit"] == "letterbox"
    said = verdict(written)
    assert "its mAP against your model's detections is 100.0% on 12 images, mAP 0." in said
    page = made.files["report.html"].decode()
    assert "MAP50, model.tflite" in page
    assert "op-1" not in page


def test_calibration_images_are_read_as_those_with_boxes(images: Path, tmp_path: Path) -> None:
    """They are letterboxed too, though they come without boxes."""
    shutil.copytree(images, tmp_path / "plain")
    folder, plain = (
        ImageFolder(path, mean=(0,), std=(1,)) for path in (images, tmp_path / "plain")
    )
    subject = subject_of(Quadrants().eval(), X)
    asked = asked_task(shrinkc.Detection(layout="yolov8", scale="pixels"))
    given: dict[str, Any] = {"images": (folder, "read"), "calibration": (plain, "unread")}
    _, sources = subject.images(given, asked)
    ways = {one.preprocessing for one in sources.values() if one is not None}
    assert [way.fit for way in ways if way is not None] == ["letterbox"]


def test_on_the_command_line(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    (tmp_path / "own.py").write_text(
        "def found(outputs, labels):\n"
        "    best = outputs[:, 4].argmax(1)\n"
        "    middles = outputs[range(len(best)), :2, best]\n"
        "    wanted = [(one['boxes'][0, :2] + one['boxes'][0, 2:]) / 2 for one in labels]\n"
        "    near = [float((a - b).abs().max()) < 1 for a, b in zip(middles, wanted)]\n"
        "    return sum(near) / len(near)\n"
        "\n\n"
        "def worse(outputs, labels):\n"
        "    return -found(outputs, labels)\n"
    )
    shrinkc.save(Quadrants().eval(), tmp_path / "net.safetensors", X)
    monkeypatch.chdir(tmp_path)
    command = ["net.safetensors", "--target", "rpi4", "--images", "images", "--runs", "0"]
    command += ["--mean", "0", "--std", "1", "--task", "detect:layout=yolov8,scale=pixels"]
    assert main([*command, "--metric", "own:found", "--json", "-o", "out"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["original_top1"] == pytest.approx(10 / 12)
    assert report["task"]["metric"] == "own:found"
    for extra, message in (
        (["--metric", "own:worse"], "higher must be better"),
        (["--metric", "own:lost"], "--metric own:lost: own has no lost; check it"),
        (["--metric", "nowhere:found"], "--metric nowhere:found: cannot import nowhere"),
        (["--metric", "own"], "--metric own: give package.module:function"),
        (["--task", "detect:layout=ssd"], "layout ssd; choose yolov8, rows, yolov5, pair"),
        (["--task", "detect:nms=maybe"], "detect: nms maybe is neither yes nor no; give one"),
        (["--task", "detect:size=3"], "--task detect: no field size=3; it has layout, form"),
        (["--task", "segmant"], "--task segmant: choose auto, classify, segment, detect"),
        (["--output-weights", "1,x"], "--output-weights 1,x: give numbers like 1,0.5"),
        (["--output-weights", "1"], "--output-weights belong to a goal"),
        (["--loss", "own:found"], "--epochs, --loss, --resolutions"),
        (["--task", "classify"], "comes with boxes as labels; classification reads classes"),
    ):
        assert main([*command, *extra, "-o", "other"]) == 2, extra
        assert message in " ".join(capsys.readouterr().err.split()), extra


def test_labels_of_other_images_are_suspected() -> None:
    model = nn.Conv2d(3, 30, 1).eval()
    seen = torch.rand(24, 3, 8, 8), torch.randint(30, (24, 8, 8))
    given: dict[str, Any] = {"target": "rpi4", "task": shrinkc.Segmentation(), "runs": 0}
    notes = shrinkc.compile(model, seen[0][:1], images=seen, **given).report.notes
    assert any("mIoU of your own model is 0.0" in note for note in notes)
    right = seen[0], model(seen[0]).argmax(1)
    assert not shrinkc.compile(model, seen[0][:1], images=right, **given).report.notes


def test_a_metric_needs_labels() -> None:
    def any_metric(outputs: Tensor, labels: Tensor) -> float:
        return 0.0

    seen = torch.rand(4, 3, 32, 32)
    with pytest.raises(InputError, match="`metric` compares outputs with labels, and no images"):
        shrinkc.compile(Quadrants().eval(), X, target="rpi4", images=seen, metric=any_metric)


class Numbers(nn.Module):
    """Two numbers, in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)),
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"numbers": self.body(x)}


def test_pruned_and_trained_by_a_loss_of_ones_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inputs = torch.rand(80, 3, 32, 32) * torch.rand(80, 3, 1, 1)
    labels = inputs.mean((2, 3))[:, :2]
    net = Numbers()
    calls: list[tuple[int, ...]] = []

    def loss(network: nn.Module, batch: Any) -> Tensor:
        x, y = batch
        calls.append(tuple(y.shape))
        return F.mse_loss(network(x)["numbers"], y)

    pruned = shrinkc.prune(
        *(net.eval(), X),
        goal=Goal.macs(0.6),
        train=(inputs[:60], labels[:60]),
        evaluation=(inputs[60:], labels[60:]),
        epochs=20,
        options=Pruning(recipe=Recipe(distillation=0.0, batch=8)),
        loss=loss,
    )
    assert len(calls) > 2
    judged = pruned.judged
    assert judged is not None
    assert (judged.metric, judged.agreement) == ("R²", None)
    assert judged.original_top1 is not None
    assert judged.changed_top1 is not None
    assert judged.changed_top1 > judged.original_top1  # which was never trained
    with pytest.raises(InputError, match="`loss` has no effect here: it is for a training"):
        shrinkc.prune(net, X, goal=Goal.macs(0.6), loss=loss)


class Small(nn.Module):
    """Three convolutions and YOLOv8's layout: sixteen boxes, three classes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            *(nn.Conv2d(3, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 12, 3, 1, 1), nn.ReLU()),
            *(nn.Conv2d(12, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 7, 2, 2)),
        )
        rows, columns = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
        self.middles: Tensor
        self.register_buffer("middles", 8.0 * torch.stack((columns, rows)).reshape(1, 2, 16) + 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x).reshape(-1, 7, 16)
        middles, sizes = self.middles + 4 * y[:, :2].tanh(), 6 + 12 * y[:, 2:4].sigmoid()
        return torch.cat((middles, sizes, (24 * y[:, 4:]).sigmoid()), 1)


def test_a_plan_keeps_the_drop_of_map_that_it_is_given() -> None:
    """Counted by the labels of images that it is not fitted to."""
    pytest.importorskip("pycocotools")
    model = Small().eval()
    x = torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    task = shrinkc.Detection(layout="yolov8", scale="pixels", size=(32, 32))
    with torch.no_grad():
        found = [rows[rows[:, 4] > 0.95] for rows in task.suppression.detections((model(x),))]
    labels = [{"boxes": rows[:, :4], "labels": rows[:, 5].long()} for rows in found]
    judged = [(x[i : i + 1], [labels[i]]) for i in range(16, 32)]
    how: dict[str, Any] = {"target": "rpi4", "precision": "fp32", "task": task, "runs": 0}
    plan = shrinkc.plan(
        *(model, x[:1]), images=x[:16], evaluation=judged, goal=Goal.max_drop(25), **how
    )
    assert plan.report.original_top1 is not None
    assert plan.report.original_top1 > 0.5
    assert plan.report.after.macs < plan.report.before.macs  # pyright: ignore
    for file in plan.report.artefacts:
        assert file.drop is not None
        assert 0 < file.drop.value <= 0.25
