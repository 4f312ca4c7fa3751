"""A detector's ONNX file that ends with `NonMaxSuppression`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from shrinkc.compiler.tasks.detection.boxes import MOST_KEPT, Suppression

PREFIX = "suppression/"
RESULT = "detections"


def with_suppression(data: bytes, suppression: Suppression) -> bytes:
    """The file with one output, (count, 7): image, left, top, right, bottom, score and class, the
    surest first, at most MOST_KEPT of each class."""
    model = onnx.load_model_from_string(data)
    end = _End(model)
    boxes, scores = end.parts(suppression)
    end.suppress(boxes, scores, suppression)
    del model.graph.output[:]
    rows = helper.make_tensor_value_info(RESULT, TensorProto.FLOAT, ["count", 7])
    model.graph.output.append(rows)
    return model.SerializeToString()


class _End:
    """What is appended to a file."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph, self._count = model.graph, 0
        sizes = {
            o.name: [d.dim_value for d in o.type.tensor_type.shape.dim] for o in self.graph.output
        }
        self.outputs = {name: size for name, size in sizes.items() if len(size) == 3}

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        self._count += 1
        name = f"{PREFIX}{self._count}_{kind}"
        self.graph.node.append(helper.make_node(kind, list(inputs), [name], name, **attributes))
        return name

    def known(self, values: Any, kind: Any) -> str:
        self._count += 1
        name = f"{PREFIX}{self._count}"
        array: Any = np.asarray(values, kind)
        self.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def cut(self, x: str, start: int, end: int, axis: int) -> str:
        places = (self.known([n], np.int64) for n in (start, end, axis))
        return self.node("Slice", x, *places)

    def parts(self, suppression: Suppression) -> tuple[str, str]:
        """Boxes (N, A, 4), left, top, right, bottom in pixels, and scores (N, A, C)."""
        boxes, scores, classes = self._as_returned(suppression.how.layout)
        background = suppression.how.background
        if background is not None:
            kept = [i for i in range(classes) if i != background % classes]
            scores = self.node("Gather", scores, self.known(kept, np.int64), axis=2)
        if suppression.how.form == "xywh":
            middle, size = self.cut(boxes, 0, 2, 2), self.cut(boxes, 2, 4, 2)
            half = self.node("Mul", size, self.known(0.5, np.float32))
            ends = (self.node(kind, middle, half) for kind in ("Sub", "Add"))
            boxes = self.node("Concat", *ends, axis=2)
        if suppression.how.scale == "unit":
            height, width = suppression.size
            boxes = self.node("Mul", boxes, self.known([width, height] * 2, np.float32))
        return boxes, scores

    def _as_returned(self, layout: str) -> tuple[str, str, int]:
        """Boxes and scores as `tasks.detection.boxes.parts`, and how many classes there are."""
        if layout == "pair":
            boxes = next(name for name, size in self.outputs.items() if size[2] == 4)
            scores = next(name for name in self.outputs if name != boxes)
            return boxes, scores, self.outputs[scores][2]
        name, size = next(iter(self.outputs.items()))
        rows = self.node("Transpose", name, perm=[0, 2, 1]) if layout == "yolov8" else name
        numbers = size[1] if layout == "yolov8" else size[2]
        first = 5 if layout == "yolov5" else 4
        scores = self.cut(rows, first, numbers, 2)
        if layout == "yolov5":
            scores = self.node("Mul", scores, self.cut(rows, 4, 5, 2))
        return self.cut(rows, 0, 4, 2), scores, numbers - first

    def suppress(self, boxes: str, scores: str, suppression: Suppression) -> None:
        """The rows that are left, in order."""
        by_class = self.node("Transpose", scores, perm=[0, 2, 1])
        corners = self.node("Gather", boxes, self.known([1, 0, 3, 2], np.int64), axis=2)
        limits: Sequence[tuple[float, Any]] = (
            *((MOST_KEPT, np.int64), (suppression.overlap, np.float32)),
            (suppression.least, np.float32),
        )
        how = (self.known([value], kind) for value, kind in limits)
        chosen = self.node("NonMaxSuppression", corners, by_class, *how)  # image, class, box
        image, kind, place = (self.cut(chosen, i, i + 1, 1) for i in range(3))
        left = self.node("GatherND", boxes, self.node("Concat", image, place, axis=1))
        score = self.node("GatherND", by_class, chosen)
        column = self.node("Unsqueeze", score, self.known([1], np.int64))
        image, kind = (self.node("Cast", x, to=TensorProto.FLOAT) for x in (image, kind))
        rows = self.node("Concat", image, left, column, kind, axis=1)
        count = self.node("Shape", score)
        order = f"{PREFIX}order"
        self.graph.node.append(
            helper.make_node("TopK", [score, count], [f"{order}/scores", order], order)
        )
        self.graph.node.append(helper.make_node("Gather", [rows, order], [RESULT], RESULT))
