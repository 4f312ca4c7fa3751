"""Runs model files on the emulated Arm, where only numpy and one runtime are.

    python3 guest.py PACKAGE KERNELS JOBS.json

A job names a model file of one input and one output, an .npz of samples in the file's own layout,
an .npz to write their outputs into, and how many inferences of the first sample to count. Around
each of these the counting plugin of qemu is told, by a system call that no kernel has.
"""

import ctypes
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MARK = 0x5C0DE  # as in count_instructions.c
BEGIN, END = 0, 1
Infer = Callable[[Any], Any]
TFLITE = {"ai-edge-litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime"}


def load(package: str, kernels: str, model: str) -> tuple[Infer, bool]:
    """Sample → output; further inputs are ones. And whether a delegate, XNNPACK, took operators."""
    return onnx(model) if package == "onnxruntime" else tflite(TFLITE[package], kernels, model)


def tflite(package: str, kernels: str, model: str) -> tuple[Infer, bool]:
    module: Any = importlib.import_module(f"{package}.interpreter")
    resolvers = module.OpResolverType
    without = resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    resolver = without if kernels == "ruy" else resolvers.AUTO
    interpreter = module.Interpreter(model, num_threads=1, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    delegated = any(op["op_name"] == "DELEGATE" for op in interpreter._get_ops_details())
    (source, *others), (result,) = interpreter.get_input_details(), interpreter.get_output_details()

    def infer(sample: Any) -> Any:
        interpreter.set_tensor(source["index"], sample)
        for other in others:
            interpreter.set_tensor(other["index"], np.ones(other["shape"], other["dtype"]))
        interpreter.invoke()
        return interpreter.get_tensor(result["index"])

    return infer, delegated


def onnx(model: str) -> tuple[Infer, bool]:
    runtime: Any = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    source, *others = session.get_inputs()
    sizes = {o.name: [n if isinstance(n, int) else 1 for n in o.shape] for o in others}
    ones = {name: np.ones(size, np.float32) for name, size in sizes.items()}
    return lambda sample: session.run(None, {source.name: sample, **ones})[0], False


def main() -> None:
    package, kernels, listing = sys.argv[1:]
    kernel = ctypes.CDLL(None).syscall
    for job in json.loads(Path(listing).read_text()):
        with np.load(job["inputs"]) as file:
            samples = [file[f"arr_{i}"] for i in range(len(file.files))]
        infer, delegated = load(package, kernels, job["model"])
        outputs = [infer(sample) for sample in samples]
        np.savez(job["outputs"], *outputs, delegated=np.array(delegated))
        for _ in range(job["counted"]):
            kernel(ctypes.c_long(MARK), ctypes.c_long(BEGIN))
            infer(samples[0])
            kernel(ctypes.c_long(MARK), ctypes.c_long(END))


if __name__ == "__main__":
    main()
