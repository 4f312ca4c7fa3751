"""The program that runs on a device: one file, standard library and NumPy, Python 3.8 or newer.

It is sent to the device's Python over a pipe and writes nothing to the device's disk (ONNX Runtime's
profile excepted, in a temporary folder that is removed). Conversation: the host sends one JSON object
a line, each followed by the bytes of the model files it lists; the runner answers with JSON objects,
one a line, each behind the byte 0x1E so that nothing else on stdout can be taken for one.

    {"job": "measure", …, "models": [{"name", "bytes"}, …]}    → at*, (measured | failed)*, done
    {"job": "run", …, "models": [one], "inputs": [array, …]}   → ran | failed

`measure` holds the rules of a timing: what is warm, what is timed, in which order.
"""

from __future__ import annotations

import base64
import contextlib
import importlib
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, BinaryIO, Callable, Iterator, Sequence

PROTOCOL = 1
MARK = b"\x1e"
WORD_SECONDS = 0.25  # between two words about what is running
REFERENCE = "reference"  # the model that is timed in every round to follow the clock's drift


# --- the device ----------------------------------------------------------------------------------


def cpu_name(cpuinfo: str) -> str | None:
    """The processor in the text of Linux's /proc/cpuinfo. Arm boards without a "model name" give
    their board's ("Raspberry Pi 4 Model B Rev 1.4"); None where neither stands."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip().lower(), value.strip())
    board = fields.get("model", "")  # on x86 a number
    return fields.get("model name") or (None if board.isdecimal() else board) or None


def describe() -> dict[str, Any]:
    """What does not change: `cpu`, `cores` this process may use, `machine`, `system`, `python`."""
    return {
        "cpu": cpu_name(_read("/proc/cpuinfo")) or platform.processor() or "unknown",
        "cores": _cores(),
        "machine": platform.machine() or "unknown",
        "system": f"{platform.system()} {platform.release()}".strip() or "unknown",
        "python": platform.python_version(),
    }


def conditions() -> dict[str, Any]:
    """What does change: `governor`, the fastest core's `frequency_mhz`, the hottest `temperature_c`,
    `load` of the last minute. None where the system does not say."""
    cpus = "/sys/devices/system/cpu"
    frequencies = [_read(f"{cpus}/cpu{i}/cpufreq/scaling_cur_freq") for i in range(256)]
    zones = [_read(f"/sys/class/thermal/thermal_zone{i}/temp") for i in range(64)]
    return {
        "governor": _read(f"{cpus}/cpu0/cpufreq/scaling_governor").strip() or None,
        "frequency_mhz": max((int(f) / 1000 for f in frequencies if _integer(f)), default=None),
        "temperature_c": max((int(t) / 1000 for t in zones if _integer(t)), default=None),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def peak_memory_bytes() -> int | None:
    """The largest resident size this process ever had; None where the system does not say."""
    for line in _read("/proc/self/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""


def _integer(text: str) -> bool:
    return text.strip().lstrip("-").isdecimal()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# --- runtimes ------------------------------------------------------------------------------------


class RefusedError(Exception):
    """Nothing can be run here. `kind`: no-numpy, no-runtime, broken-runtime or disk-full."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Tflite:
    """A model in the TFLite interpreter."""

    def __init__(self, data: bytes, threads: int, kernels: bool) -> None:
        interpreter: Any = _tflite()[0]
        self._interpreter = interpreter(model_content=data, num_threads=threads)
        self._interpreter.allocate_tensors()
        self._inputs = self._interpreter.get_input_details()
        self._outputs = self._interpreter.get_output_details()
        self.given = [_random(d["shape"], d["dtype"]) for d in self._inputs]
        self.run: Callable[[], None] = self._interpreter.invoke

    def prepare(self) -> None:
        """Inputs and outputs as the neighbours in a network leave them: the memory of the output
        used not long ago, the input written just now."""
        for detail in self._outputs:
            self._interpreter.tensor(detail["index"])().fill(0)
        for detail, array in zip(self._inputs, self.given):
            self._interpreter.tensor(detail["index"])()[...] = array

    def outputs(self) -> list[Any]:
        return [self._interpreter.get_tensor(d["index"]) for d in self._outputs]

    def kernel_times_us(self) -> list[float] | None:
        return None


class Onnx:
    """A model in ONNX Runtime's CPU provider, with inputs and outputs bound to fixed memory."""

    def __init__(self, data: bytes, threads: int, kernels: bool) -> None:
        """With `kernels`, the runtime's own profile gives the times."""
        import numpy as np

        ort: Any = _onnxruntime()[0]
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        self._folder = _folder() if kernels else None
        if self._folder:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(self._folder, "profile"))
        self._session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self.given = [_random(i.shape, _ORT_TYPES[i.type]) for i in self._session.get_inputs()]
        self._input_arrays = [np.array(array) for array in self.given]
        names = [i.name for i in self._session.get_inputs()]
        first = self._session.run(None, dict(zip(names, self._input_arrays)))
        self._output_arrays = [np.ascontiguousarray(array) for array in first]
        binding = self._session.io_binding()
        for name, array in zip(names, self._input_arrays):
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for detail, array in zip(self._session.get_outputs(), self._output_arrays):
            binding.bind_output(detail.name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        run = self._session.run_with_iobinding
        self.run: Callable[[], None] = lambda: run(binding)

    def prepare(self) -> None:
        """As `Tflite.prepare`."""
        for array in self._output_arrays:
            array.fill(0)
        for bound, array in zip(self._input_arrays, self.given):
            bound[...] = array

    def outputs(self) -> list[Any]:
        return self._output_arrays

    def kernel_times_us(self) -> list[float] | None:
        """Of every `run`; the one of the constructor is left out."""
        if self._folder is None:
            return None
        try:
            events = json.loads(Path(self._session.end_profiling()).read_text("utf-8"))
        except (OSError, ValueError):
            if shutil.disk_usage(self._folder).free < FREE_BYTES:
                raise RefusedError("disk-full", tempfile.gettempdir()) from None
            raise
        shutil.rmtree(self._folder, ignore_errors=True)
        return kernel_times_us(events)[1:]


_FOLDERS: list[str] = []
FREE_BYTES = 1 << 20  # with less, a profile that cannot be read was cut off


def _folder() -> str:
    """A temporary folder, gone when the runner ends. Raises RefusedError when the disk is full."""
    try:
        folder = tempfile.mkdtemp(prefix="shrinkc-")
    except OSError:  # not even a name to try with: nothing can be written anywhere
        raise RefusedError("disk-full", "its temporary folders") from None
    _FOLDERS.append(folder)
    return folder


# What stands between a model's boundary and its first and last kernel: layouts and number formats.
# Inside a network, neighbours hand over what the kernel wants.
BOUNDARY = ("ReorderInput", "ReorderOutput", "QuantizeLinear", "DequantizeLinear", "Transpose")


def kernel_times_us(events: Sequence[dict[str, Any]]) -> list[float]:
    """The time in kernels of every run in an ONNX Runtime profile, without those at the boundary.
    The profile counts whole microseconds, cut off: half of one is added for every kernel."""
    runs = [e for e in events if e.get("cat") == "Session" and e["name"] == "model_run"]
    nodes = [
        (e["ts"], e["args"].get("op_name", ""), e["dur"])
        for e in events
        if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")
    ]
    nodes.sort()
    times: list[float] = []
    for run in sorted(runs, key=lambda e: e["ts"]):
        start, stop = run["ts"], run["ts"] + run["dur"]
        inside = [(name, dur) for ts, name, dur in nodes if start <= ts <= stop]
        kept = [i for i, (name, _) in enumerate(inside) if name not in BOUNDARY]
        kernels = inside[kept[0] : kept[-1] + 1] if kept else inside
        times.append(sum(dur + 0.5 for _, dur in kernels))
    return times


_ORT_TYPES = {
    **{"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"},
    **{"tensor(int8)": "int8", "tensor(uint8)": "uint8", "tensor(bool)": "bool"},
    **{"tensor(int32)": "int32", "tensor(int64)": "int64"},
}
RUNTIMES: dict[str, Any] = {"tflite": Tflite, "onnxruntime": Onnx}


def runtime_of(name: str) -> dict[str, str]:
    """`runtime` and `runtime_version` as installed. Raises RefusedError."""
    _, runtime, version = {"tflite": _tflite, "onnxruntime": _onnxruntime}[name]()
    return {"runtime": runtime, "runtime_version": version}


def _tflite() -> tuple[Any, str, str]:
    packages = {"ai_edge_litert": "ai-edge-litert", "tflite_runtime": "tflite-runtime"}
    broken = ""
    for package, name in packages.items():
        try:
            module = importlib.import_module(f"{package}.interpreter")
            return module.Interpreter, name, _version(name)
        except ModuleNotFoundError as error:
            if error.name != package:
                broken = broken or f"{name} cannot be imported: {error}"
        except Exception as error:
            broken = broken or f"{name} cannot be imported: {error}"
    if broken:
        raise RefusedError("broken-runtime", broken)
    raise RefusedError("no-runtime", " or ".join(packages.values()))


def _onnxruntime() -> tuple[Any, str, str]:
    try:
        module = importlib.import_module("onnxruntime")
        return module, "onnxruntime", str(module.__version__)
    except ModuleNotFoundError as error:
        if error.name == "onnxruntime":
            raise RefusedError("no-runtime", "onnxruntime") from None
        raise RefusedError("broken-runtime", f"onnxruntime cannot be imported: {error}") from None
    except Exception as error:
        raise RefusedError("broken-runtime", f"onnxruntime cannot be imported: {error}") from None


def _version(distribution: str) -> str:
    try:
        return importlib.import_module("importlib.metadata").version(distribution)
    except Exception:
        return "unknown"


def _random(shape: Sequence[Any], dtype: Any) -> Any:
    """Seeded values of any type; 1 for every dimension that the file leaves open."""
    import numpy as np

    sizes = [int(d) if isinstance(d, (int, np.integer)) and d > 0 else 1 for d in shape]
    generator, kind = np.random.default_rng(0), np.dtype(dtype)
    if kind.kind == "f":
        return generator.standard_normal(sizes, dtype=np.float32).astype(kind)
    low, high = {"int8": (-128, 128), "uint8": (0, 256), "bool": (0, 2)}.get(kind.name, (0, 8))
    return generator.integers(low, high, sizes).astype(kind)


# --- measuring -----------------------------------------------------------------------------------


def measure(
    models: dict[str, Any],
    warmup: int,
    rounds: tuple[int, int],
    seconds: float,
    ballast_bytes: int,
    word: Callable[[str], None],
) -> tuple[dict[str, list[float]], list[float]]:
    """Time every model once a round: A B C A B C.

    In a network an operator finds its input in the cache, where its predecessor has just written it,
    but neither its weights nor its own bookkeeping, which were last used one inference ago. So what
    lies between two runs of one model is as much memory as a network touches (the other models, and
    `ballast_bytes` on top), and `prepare` writes the inputs, untimed, right before the run.

    At least rounds[0], then until `seconds` have passed, at most rounds[1]. The model named
    "reference" is timed first in each round, warm, to tell how fast the clock runs just then.
    Returns model → microseconds of every round, and the reference's.
    """
    import numpy as np

    reference = models.get(REFERENCE)
    others = {name: model for name, model in models.items() if name != REFERENCE}
    ballast = np.ones(ballast_bytes // 8, np.int64)
    for _ in range(warmup):
        for name, model in models.items():
            word(name)
            model.prepare()
            model.run()
    times: dict[str, list[float]] = {name: [] for name in others}
    reference_times: list[float] = []
    started = time.perf_counter()
    for count in range(rounds[1]):
        if count >= rounds[0] and time.perf_counter() - started > seconds:
            break
        if reference is not None:
            reference.prepare()
            reference.run()
            reference_times.append(_timed(reference))
        ballast.sum()
        for name, model in others.items():
            word(name)
            times[name].append(_timed(model))
    return times, reference_times


def _timed(model: Any) -> float:
    """Microseconds of one run; nothing else is in between."""
    model.prepare()
    run, clock = model.run, time.perf_counter_ns
    begun = clock()
    run()
    return (clock() - begun) / 1e3


# --- the conversation ----------------------------------------------------------------------------


def _measure_job(job: dict[str, Any], files: dict[str, bytes], say: Callable[..., None]) -> None:
    load, said = RUNTIMES[job["runtime"]], [0.0]

    def word(name: str) -> None:
        now = time.perf_counter()
        if now - said[0] > WORD_SECONDS:
            said[0] = now
            say(event="at", model=name, doing="running")

    models: dict[str, Any] = {}
    for name, data in files.items():
        say(event="at", model=name, doing="loading")
        try:
            model = load(data, job["threads"], job["kernels"])
            say(event="at", model=name, doing="running")
            model.prepare()
            model.run()
        except RefusedError:
            raise
        except Exception as error:
            say(event="failed", model=name, error=_text(error))
            continue
        models[name] = model
    before = conditions()
    times, reference = measure(
        *(models, job["warmup"], tuple(job["rounds"]), job["seconds"], job["ballast_bytes"], word)
    )
    after = conditions()
    if REFERENCE in models:
        reference = _own_times(models[REFERENCE], reference, every=2)
    for name, taken in times.items():
        kept = _own_times(models[name], taken)
        say(event="measured", model=name, times_us=kept, reference_us=reference)
    say(event="done", before=before, after=after)


def _own_times(model: Any, taken: list[float], every: int = 1) -> list[float]:
    """The runtime's own kernel times where it was asked for them, else what the clock took."""
    kernels = model.kernel_times_us()
    if kernels is None:
        return taken
    return kernels[-every * len(taken) :][every - 1 :: every]


def _run_job(job: dict[str, Any], files: dict[str, bytes], say: Callable[..., None]) -> None:
    ((name, data),) = files.items()
    say(event="at", model=name, doing="loading")
    idle = peak_memory_bytes()
    try:
        model = RUNTIMES[job["runtime"]](data, job["threads"], False)
        if job["inputs"] is not None:
            model.given = [_decoded(array) for array in job["inputs"]]
        say(event="at", model=name, doing="running")
        model.prepare()
        model.run()
        outputs = [_encoded(array) for array in model.outputs()]
    except Exception as error:
        say(event="failed", model=name, error=_text(error))
        return
    inputs = [_encoded(array) for array in model.given] if job["inputs"] is None else []
    memory = {"idle_memory_bytes": idle, "peak_memory_bytes": peak_memory_bytes()}
    say(event="ran", model=name, inputs=inputs, outputs=outputs, **memory)


def _encoded(array: Any) -> dict[str, Any]:
    data = base64.b64encode(array.tobytes()).decode("ascii")
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": data}


def _decoded(value: dict[str, Any]) -> Any:
    import numpy as np

    flat = np.frombuffer(base64.b64decode(value["data"]), np.dtype(value["dtype"]))
    return flat.reshape(value["shape"])


def _text(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _files(job: dict[str, Any], stream: BinaryIO) -> dict[str, bytes]:
    return {m["name"]: stream.read(m["bytes"]) for m in job.get("models", ())}


def serve(stream: BinaryIO, say: Callable[..., None]) -> None:
    """Answer jobs until the host hangs up."""
    jobs = {"hello": _hello_job, "measure": _measure_job, "run": _run_job}
    for line in iter(stream.readline, b""):
        job = json.loads(line)
        files = _files(job, stream)
        try:
            jobs[job["job"]](job, files, say)
        except RefusedError as refusal:
            say(event="refused", kind=refusal.kind, error=str(refusal))


def _hello_job(job: dict[str, Any], files: dict[str, bytes], say: Callable[..., None]) -> None:
    try:
        importlib.import_module("numpy")
    except ImportError as error:
        raise RefusedError("no-numpy", _text(error)) from None
    found = runtime_of(job["runtime"])
    say(event="hello", protocol=PROTOCOL, **describe(), **conditions(), **found)


@contextlib.contextmanager
def _own_stdout() -> Iterator[Callable[..., None]]:
    """A function that says one object on stdout; what libraries print goes to stderr."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def say(**message: Any) -> None:
        out.write(MARK + json.dumps(message).encode("utf-8") + b"\n")
        out.flush()

    yield say


def main() -> None:
    """Until stdin ends, the host is gone, or a signal says so; nothing is left behind."""
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: sys.exit(143))
    try:
        with _own_stdout() as say:
            serve(sys.stdin.buffer, say)
    except BrokenPipeError:
        os._exit(0)
    finally:
        for folder in _FOLDERS:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
