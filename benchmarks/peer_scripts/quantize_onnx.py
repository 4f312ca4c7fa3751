"""`python -m benchmarks.peer_scripts.quantize_onnx FILE IMAGES PER OUT`.

By onnxruntime alone, static int8 as its documentation says: pre-processed, then QDQ with ranges
from the smallest and the largest value (its default). PER is "channel" or "tensor", the default.
IMAGES is an array (n, 3, height, width).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


class Reader(CalibrationDataReader):
    """Images one by one."""

    def __init__(self, name: str, images: np.ndarray) -> None:
        self._left = ({name: image[None]} for image in images)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._left, None)


def main() -> None:
    source, images, per, out = sys.argv[1:]
    prepared = Path(out).with_suffix(".prepared.onnx")
    quant_pre_process(source, str(prepared))
    name = onnx.load(prepared).graph.input[0].name
    reader = Reader(name, np.load(images, mmap_mode="r"))
    quantize_static(str(prepared), out, reader, per_channel=per == "channel")
    prepared.unlink()


if __name__ == "__main__":
    main()
