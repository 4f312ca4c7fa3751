"""ONNX Runtime and TFLite, both as: arrays in, arrays out."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import DeviceError, LoadError
from .quiet import silent
from .text import one_line

Array = NDArray[Any]


class Runner(Protocol):
    """A loaded model file. Arrays are in the file's own layout."""

    @property
    def runtime(self) -> str:
        """Name and version."""
        ...

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """With 1 where the file leaves a dimension open."""
        ...

    def run(self, inputs: Sequence[Array]) -> list[Array]: ...


class OnnxRunner:
    """A model in ONNX Runtime's CPU provider."""

    def __init__(self, model: bytes, threads: int = 1, optimise: bool = True) -> None:
        """Without `optimise`, a QDQ file runs in float between its quantisations."""
        import onnxruntime as ort

        options: Any = ort.SessionOptions()
        if not optimise:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        try:
            self._session: Any = ort.InferenceSession(
                model, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise LoadError(f"ONNX Runtime cannot load the file: {one_line(error)}") from error
        self._names = [i.name for i in self._session.get_inputs()]
        self.runtime = f"onnxruntime {ort.__version__}"

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        inputs: list[Any] = self._session.get_inputs()
        return tuple(tuple(d if isinstance(d, int) else 1 for d in i.shape) for i in inputs)

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        return self._session.run(None, dict(zip(self._names, inputs, strict=True)))


class TfliteRunner:
    """A model in the TFLite interpreter (ai-edge-litert, else tflite-runtime)."""

    def __init__(self, model: bytes, threads: int = 1, keep_all: bool = False) -> None:
        interpreter, self.runtime = _interpreter()
        try:
            with silent():  # announces its delegate from C++
                self._it: Any = interpreter(
                    model_content=model,
                    num_threads=threads,
                    experimental_preserve_all_tensors=keep_all,
                )
                self._it.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise LoadError(f"TFLite cannot load the file: {one_line(error)}") from error
        self._inputs: list[Any] = self._it.get_input_details()
        self._outputs: list[Any] = self._it.get_output_details()

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(int(d) for d in i["shape"]) for i in self._inputs)

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        for detail, array in zip(self._inputs, inputs, strict=True):
            self._it.set_tensor(detail["index"], array)
        self._it.invoke()
        return [self._it.get_tensor(o["index"]) for o in self._outputs]

    def tensor(self, name: str) -> Array | None:
        """An inner tensor after `run`, for a runner made with `keep_all`."""
        for detail in self._it.get_tensor_details():
            if detail["name"] == name:
                return self._it.get_tensor(detail["index"])
        return None


def _interpreter() -> tuple[Any, str]:
    for package in ("ai_edge_litert", "tflite_runtime"):
        try:
            module = importlib.import_module(f"{package}.interpreter")
        except ImportError:
            continue
        version = importlib.import_module("importlib.metadata").version(package.replace("_", "-"))
        return module.Interpreter, f"{package.replace('_', '-')} {version}"
    raise DeviceError("no TFLite runtime: pip install ai-edge-litert (or tflite-runtime)")


def open_runner(path: Path, threads: int = 1) -> Runner:
    """The runner for a .onnx or .tflite file, told by its content."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LoadError(f"cannot read {path}: {error.strerror}") from error
    if data[4:8] == b"TFL3":
        return TfliteRunner(data, threads)
    if path.suffix == ".onnx":
        return OnnxRunner(data, threads)
    raise LoadError(f"{path} is neither a .onnx nor a .tflite file")


def random_inputs(runner: Runner, seed: int = 0) -> list[Array]:
    """Seeded normal float32 inputs."""
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(s, dtype=np.float32) for s in runner.input_shapes]
