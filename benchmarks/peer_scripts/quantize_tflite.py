"""`python -m benchmarks.peer_scripts.quantize_tflite FILE IMAGES OUT`.

By ai-edge-quantizer alone: its recipe for static int8, but float32 at the boundary, as every other
file here has it. IMAGES is an array (n, 3, height, width); the file wants channels last.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe


def main() -> None:
    source, images, out = sys.argv[1:]
    ((signature, names),) = Interpreter(source).get_signature_list().items()
    (name,) = names["inputs"]
    quantize: Any = quantizer.Quantizer(source)
    quantize.load_quantization_recipe(recipe.static_wi8_ai8())
    for boundary in (recipe.TFLOperationName.INPUT, recipe.TFLOperationName.OUTPUT):
        quantize.update_quantization_recipe(
            regex=".*",
            operation_name=boundary,
            algorithm_key=recipe.AlgorithmName.NO_QUANTIZE,
        )
    samples = [
        {name: np.ascontiguousarray(image[None].transpose(0, 2, 3, 1))}
        for image in np.load(images, mmap_mode="r")
    ]
    ranges = quantize.calibrate({signature: samples})
    quantize.quantize(ranges).export_model(out, overwrite=True)


if __name__ == "__main__":
    main()
