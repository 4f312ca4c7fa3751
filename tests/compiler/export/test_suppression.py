"""Files that end with the suppression of boxes: what is left is what the task leaves."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

import shrinkc
from shrinkc.compiler.formats.onnx import ONNX
from shrinkc.compiler.formats.tflite import TFLITE
from shrinkc.compiler.tasks.detection.boxes import Suppression
from shrinkc.compiler.verify import detections
from shrinkc.errors import InputError, VerificationError

CELLS, CLASSES = 16, 3
X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


class Head(nn.Module):
    """One box and the scores of three classes in each of 4×4 cells, in a layout."""

    def __init__(self, layout: str, unit: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 5 + CLASSES, 8, 8)
        self.layout, self.unit = layout, unit
        rows, columns = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
        self.middles: Tensor
        self.register_buffer("middles", 8.0 * torch.stack((columns, rows)).reshape(1, 2, 16) + 4)

    def forward(self, x: Tensor) -> Any:
        y = self.conv(x).reshape(-1, 5 + CLASSES, CELLS)
        size = 60 * y[:, 2:4].sigmoid()
        boxes = torch.cat((self.middles + 8 * y[:, :2], size), 1)
        boxes = boxes / 32 if self.unit else boxes
        scores = y[:, 5:].sigmoid()
        if self.layout == "pair":
            corners = torch.cat(
                (boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), 1
            )
            return scores.transpose(1, 2), corners.transpose(1, 2)
        objects = [y[:, 4:5].sigmoid()] if self.layout == "yolov5" else []
        found = torch.cat((boxes, *objects, scores), 1)
        return found if self.layout == "yolov8" else found.transpose(1, 2)


HEADS: dict[str, tuple[Head, dict[str, Any]]] = {
    "yolov8": (Head("yolov8"), {"layout": "yolov8", "scale": "pixels", "overlap": 0.4}),
    "rows": (Head("rows", unit=True), {"layout": "rows", "scale": "unit", "overlap": 0.3}),
    "yolov5": (Head("yolov5"), {"layout": "yolov5", "scale": "pixels", "least": 0.1}),
    "pair": (Head("pair"), {"layout": "pair", "scale": "pixels", "background": 0, "overlap": 0.4}),
}


def rows_of(data: bytes, x: Tensor) -> Any:
    session = ort.InferenceSession(data)
    (rows,) = session.run(["detections"], {session.get_inputs()[0].name: x.numpy()})
    return rows


@pytest.mark.parametrize("layout", HEADS)
def test_the_file_leaves_what_the_task_leaves(layout: str) -> None:
    pytest.importorskip("pycocotools")
    model, how = HEADS[layout]
    task = shrinkc.Detection(nms=True, **how)
    made = shrinkc.compile(model.eval(), X, target="rpi4", task=task, runs=0)
    rows = rows_of(made.files["detections.onnx"], X)
    with torch.no_grad():
        answer = model(X)
    answer = answer if isinstance(answer, tuple) else (answer,)
    suppression = made.report.task.suppression  # pyright: ignore
    assert (rows[:-1, 5] >= rows[1:, 5]).all()
    for image, wanted in enumerate(suppression.detections(answer)):
        got = rows[rows[:, 0] == image, 1:]
        assert 3 < len(wanted) < CELLS * CLASSES
        np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-4, atol=1e-3)


def test_what_leaves_other_boxes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pycocotools")
    model, how = HEADS["yolov8"]
    task = shrinkc.Detection(nms=True, **how)
    with pytest.raises(InputError, match="`nms` is for ONNX files, of which none is written"):
        shrinkc.compile(model.eval(), X, target="rpi4", task=task, runs=0, formats=(TFLITE,))
    right = ONNX.with_suppression

    def wrong(data: bytes, suppression: Suppression) -> bytes | None:
        return right(data, Suppression(suppression.how, (64, 64), 0.001, 0.1))

    monkeypatch.setattr(type(ONNX), "with_suppression", lambda _, *given: wrong(*given))
    with pytest.raises(VerificationError, match=r"detections.onnx reaches an mAP of 0\.\d+ where"):
        shrinkc.compile(model.eval(), X, target="rpi4", task=task, runs=0, formats=(ONNX,))
    assert detections.SAME < 1
