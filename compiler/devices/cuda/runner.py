"""The runner of the `cuda` device: PyTorch operators in CUDA graphs, ONNX files in TensorRT.

One operator alone is shorter than the GPU's clock can tell and than a launch takes. So a graph
holds `COPIES` of it, each with inputs and weights of its own, and their share of the time between
two CUDA events counts: what a kernel costs in a network whose launches are one graph.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from shrinkc.compiler.devices import runner
from shrinkc.compiler.devices.cuda.ops import Run, torch_operator
from shrinkc.compiler.devices.jobs import key_from_json
from shrinkc.compiler.devices.runner import RefusedError
from shrinkc.latency_tables.key import OpKey

COPIES = 20
WARMUPS = 3  # runs before a capture: libraries choose their kernels


def torch_on_gpu() -> Any:
    """PyTorch, if it sees a GPU. Raises RefusedError."""
    try:
        import torch
    except ImportError:
        raise RefusedError("no-runtime", "torch") from None
    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = f"is built for CUDA {built}; see nvidia-smi" if built else "is a build without CUDA"
        raise RefusedError("no-gpu", f"PyTorch {torch.__version__} sees no GPU: it {why}")
    torch.backends.cudnn.benchmark = True
    return torch


class Graph:
    """`work`, captured once, replayed between two events. `share` of the time counts."""

    def __init__(self, work: Callable[[], Any], share: float) -> None:
        torch = torch_on_gpu()
        self._cuda, self._share, self.given = torch.cuda, share, list[Any]()
        side = torch.cuda.Stream()
        with torch.cuda.stream(side), torch.no_grad():
            for _ in range(WARMUPS):
                work()
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.no_grad(), torch.cuda.graph(self._graph):
            # What it reads and writes lives as long as the graph: the next capture gives free
            # memory back, and a replay that touches it kills the process.
            self._kept = work, work()
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]

    def prepare(self) -> None:
        """Inputs stay on the GPU; nothing of the run before is still going on."""
        self._cuda.synchronize()

    def run(self) -> None:
        self._graph.replay()
        self._cuda.synchronize()

    def time_us(self) -> tuple[float, float]:
        begun, ended = self._events
        begun.record()
        self._graph.replay()
        ended.record()
        ended.synchronize()
        taken = begun.elapsed_time(ended) * 1e3 * self._share
        return taken, taken

    def kernel_times_us(self) -> None:
        return None

    def outputs(self) -> list[Any]:
        return []


def operator_graph(key: OpKey, copies: int = COPIES) -> Graph:
    """Copies of one PyTorch operator."""
    return Graph(copied(key, copies, "cuda"), 1 / copies)


def copied(key: OpKey, copies: int, device: str) -> Run:
    """All copies one after another; the last one's result."""
    runs = [torch_operator(key, device) for _ in range(copies)]

    def work() -> Any:
        result: Any = None
        for run in runs:
            result = run()
        return result

    return work


class TensorRt(Graph):
    """An ONNX file in TensorRT's engine, inputs and outputs on the GPU."""

    def __init__(self, data: bytes, half: bool) -> None:
        torch, trt = torch_on_gpu(), _tensorrt()
        engine = _engine(trt, data, half)
        self._context = engine.create_execution_context()
        self._inputs, self._outputs = list[Any](), list[Any]()
        for i in range(engine.num_io_tensors):
            name = engine.get_tensor_name(i)
            shape = tuple(engine.get_tensor_shape(name))
            dtype = _torch_type(torch, trt, engine.get_tensor_dtype(name))
            read = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            tensor = torch.zeros(shape, device="cuda", dtype=dtype)
            self._context.set_tensor_address(name, tensor.data_ptr())
            (self._inputs if read else self._outputs).append(tensor)
        context = self._context
        super().__init__(
            lambda: context.execute_async_v3(torch.cuda.current_stream().cuda_stream), 1.0
        )
        self._torch = torch
        self.given = [runner.random_array(t.shape, _numpy_type(t)) for t in self._inputs]

    def prepare(self) -> None:
        for tensor, array in zip(self._inputs, self.given, strict=True):
            tensor.copy_(self._torch.from_numpy(array))
        super().prepare()

    def outputs(self) -> list[Any]:
        return [tensor.cpu().numpy() for tensor in self._outputs]


def _tensorrt() -> Any:
    try:
        return importlib.import_module("tensorrt")
    except ImportError:
        raise RefusedError("no-runtime", "tensorrt") from None


def _engine(trt: Any, data: bytes, half: bool) -> Any:
    """Batch dimensions that the file leaves open become 1."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    old = int(trt.__version__.split(".")[0]) < 10
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH) if old else 0
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(data):
        raise ValueError(f"TensorRT cannot read the file: {parser.get_error(0)}")
    config = builder.create_builder_config()
    if half:
        if not hasattr(trt.BuilderFlag, "FP16"):
            raise RefusedError("no-runtime", f"fp16 in TensorRT {trt.__version__}; use version 10")
        config.set_flag(trt.BuilderFlag.FP16)
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        shape = tuple(max(int(d), 1) for d in tensor.shape)
        tensor.shape = shape
        profile.set_shape(tensor.name, shape, shape, shape)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ValueError("TensorRT cannot build an engine of the file")
    return trt.Runtime(logger).deserialize_cuda_engine(plan)


def _torch_type(torch: Any, trt: Any, dtype: Any) -> Any:
    known = {
        trt.float32: torch.float32,
        trt.float16: torch.float16,
        trt.int8: torch.int8,
        trt.int32: torch.int32,
    }
    return known[dtype]


def _numpy_type(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def load(job: dict[str, Any], model: dict[str, Any], data: bytes) -> Any:
    """As `runner.load`: an operator for PyTorch, a file for TensorRT."""
    key = model["key"] and key_from_json(model["key"])
    if model["runtime"] == "tensorrt":
        return TensorRt(data, half=key is not None and key.precision == "fp16")
    if key is None:
        raise ValueError("PyTorch times operators here, no files; use `runtime` tensorrt")
    return operator_graph(key)


def runtime_of(name: str) -> dict[str, Any]:
    """As `runner.runtime_of`, with the GPU as the device."""
    torch = torch_on_gpu()
    version = torch.__version__ if name == "pytorch" else _tensorrt().__version__
    gpu = torch.cuda.get_device_name()
    return {"device": gpu, "cpu": gpu, "runtime": name, "runtime_version": str(version)}


def main() -> None:
    """Serve jobs on stdin, as the runner does."""
    runner.main(load, runtime_of)
