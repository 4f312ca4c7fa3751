"""What runs a model file in a process of its own; sent to a Python as text, so it imports nothing
of shrinkc's.

A job is a line of JSON and behind it so many `bytes`, of a file or of arrays; an answer is a line,
and behind it the bytes of its arrays. Arrays are {"dtype", "shape", "bytes"}; an output that is no
array of numbers is null.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any


class Loaded:
    """A file in its runtime. `inputs`: shape and type of each; `run` computes, `outputs` are of
    the last run."""

    def __init__(
        self,
        runtime: str,
        inputs: list[tuple[list[int], str]],
        run: Callable[[list[Any]], None],
        outputs: Callable[[], list[Any]],
    ) -> None:
        self.runtime, self.inputs, self.run, self.outputs = runtime, inputs, run, outputs


def _tflite(data: bytes, threads: int) -> Loaded:
    for package in ("ai_edge_litert", "tflite_runtime"):
        try:
            module: Any = importlib.import_module(f"{package}.interpreter")
        except ImportError:
            continue
        break
    else:
        raise RuntimeError("no runtime is installed")
    np: Any = importlib.import_module("numpy")
    model = module.Interpreter(model_content=data, num_threads=threads)
    model.allocate_tensors()
    outputs = [detail["index"] for detail in model.get_output_details()]
    details = model.get_input_details()
    indices = [detail["index"] for detail in details]

    def run(inputs: list[Any]) -> None:
        for index, array in zip(indices, inputs, strict=True):
            model.set_tensor(index, array)
        model.invoke()

    inputs = [([int(n) for n in d["shape"]], np.dtype(d["dtype"]).name) for d in details]
    runtime = _named(package.replace("_", "-"))
    return Loaded(runtime, inputs, run, lambda: [model.get_tensor(index) for index in outputs])


def _onnx(data: bytes, threads: int) -> Loaded:
    ort: Any = importlib.import_module("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # errors are raised
    model = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    given = model.get_inputs()
    try:
        names = [one.name for one in given]
    except UnicodeDecodeError as error:
        raise ValueError(f"its inputs have names that are no text ({error.reason})") from error
    kept: list[Any] = []

    def run(inputs: list[Any]) -> None:
        kept[:] = model.run(None, dict(zip(names, inputs, strict=True)))

    sizes = [[n if isinstance(n, int) else 1 for n in one.shape] for one in given]
    kinds = [one.type.removeprefix("tensor(").removesuffix(")") for one in given]
    inputs = list(zip(sizes, kinds, strict=True))
    return Loaded(_named("onnxruntime"), inputs, run, lambda: kept)


def _named(distribution: str) -> str:
    metadata = importlib.import_module("importlib.metadata")
    try:
        return f"{distribution} {metadata.version(distribution)}"
    except metadata.PackageNotFoundError:
        return distribution


RUNTIMES = {"tflite": _tflite, "onnxruntime": _onnx}


def _arrays(data: bytes, listed: list[dict[str, Any]]) -> list[Any]:
    np: Any = importlib.import_module("numpy")
    found, at = list[Any](), 0
    for one in listed:
        flat = np.frombuffer(data[at : at + one["bytes"]], one["dtype"])
        found.append(flat.reshape(one["shape"]))
        at += one["bytes"]
    return found


def _listed(outputs: list[Any]) -> tuple[list[Any], list[bytes]]:
    np: Any = importlib.import_module("numpy")
    told, parts = list[Any](), list[bytes]()
    for output in outputs:
        if not isinstance(output, np.ndarray) or output.dtype.kind not in "biuf":
            told.append(None)
            continue
        parts.append(output.tobytes())
        shape = list(output.shape)
        told.append({"dtype": output.dtype.str, "shape": shape, "bytes": len(parts[-1])})
    return told, parts


def _times_ms(run: Callable[[], None], job: dict[str, Any]) -> list[float]:
    """Of `count` runs, behind `settling` seconds of them that do not count."""
    until = time.perf_counter() + job["settling"]
    while job["settling"] and time.perf_counter() < until:
        run()
    times = list[float]()
    for _ in range(job["count"]):
        begun = time.perf_counter_ns()
        run()
        times.append((time.perf_counter_ns() - begun) / 1e6)
    return times


def answered(
    job: dict[str, Any], data: bytes, loaded: Loaded
) -> tuple[dict[str, Any], list[bytes]]:
    """What a file makes of one job."""
    arrays = _arrays(data, job["arrays"])
    if job["job"] == "time":
        return {"times_ms": _times_ms(lambda: loaded.run(arrays), job)}, []
    loaded.run(arrays)
    told, parts = _listed(loaded.outputs())
    return {"arrays": told}, parts


def serve(stream: Any, out: Any) -> None:
    """Answer jobs until the stream ends."""
    loaded: Loaded | None = None
    for line in iter(stream.readline, b""):
        job: dict[str, Any] = json.loads(line)
        data: bytes = stream.read(job["bytes"])
        answer: dict[str, Any] = {}
        parts = list[bytes]()
        _end_after(job["seconds"])
        try:
            if job["job"] == "load":
                sys.path[:], loaded = job["path"], None
                loaded = RUNTIMES[job["runtime"]](data, job["threads"])
                answer = {"runtime": loaded.runtime, "inputs": loaded.inputs}
            elif loaded is not None:
                answer, parts = answered(job, data, loaded)
        except Exception as error:  # a runtime's own; told to whoever asked
            answer, parts = {"error": str(error)[:1000] or type(error).__name__}, []
        _end_after(0)
        answer["cpu_seconds"] = time.process_time()
        out.write(json.dumps(answer).encode("ascii") + b"\n")
        out.writelines(parts)
        out.flush()


def _end_after(seconds: int) -> None:
    """End this process by a signal, whatever it is in then; 0: do not."""
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


def main() -> None:
    """Until stdin ends. What libraries print is nobody's, and a crash leaves no file."""
    out = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nowhere, number)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asked decides
    try:
        resource: Any = importlib.import_module("resource")
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except ImportError:  # Windows
        pass
    with contextlib.suppress(BrokenPipeError):
        serve(sys.stdin.buffer, out)
    os._exit(0)  # a runtime that has gone wrong must not crash while it is taken down


if __name__ == "__main__":
    main()
