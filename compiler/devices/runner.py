"""The program that runs on a device: one file, standard library and NumPy, Python 3.8 or newer.

It is sent to the device's Python over a pipe and writes nothing to the device's disk, but for ONNX
Runtime's profile, in a temporary folder that is removed. The host sends JSON objects, one a line,
each followed by the bytes of the model files it lists; the runner answers with JSON objects, one a
line, each behind the byte 0x1E so that nothing else on stdout can be taken for one.

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
from typing import Any, BinaryIO, Callable, Dict, Generator, Sequence, Tuple

PROTOCOL = 1
MARK = b"\x1e"
WORD_SECONDS = 0.25  # between two words about what is running
REFERENCE = "reference"  # the model that is timed in every round to follow the clock's drift


# --- the device ----------------------------------------------------------------------------------


ARM = "0x41"  # its cores by "CPU part" of /proc/cpuinfo
ARM_CORES = {
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd0d": "Cortex-A77",
    "0xd40": "Neoverse-V1",
    "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE",
    "0xd44": "Cortex-X1",
    "0xd46": "Cortex-A510",
    "0xd47": "Cortex-A710",
}


def cpu_name(cpuinfo: str) -> str | None:
    """The processor in the text of Linux's /proc/cpuinfo. Arm boards without a "model name" give
    their board's ("Raspberry Pi 4 Model B Rev 1.4") or their cores ("4 Cortex-A55, 4 Cortex-A76");
    None where none of these stands."""
    fields: dict[str, str] = {}
    cores: dict[str, int] = {}
    maker = ""
    for line in cpuinfo.splitlines():
        name, _, value = (part.strip() for part in line.partition(":"))
        fields.setdefault(name.lower(), value)
        if name == "CPU implementer":
            maker = value
        elif name == "CPU part" and maker == ARM and value in ARM_CORES:
            cores[ARM_CORES[value]] = cores.get(ARM_CORES[value], 0) + 1
    board = fields.get("model", "")  # on x86 a number
    named = fields.get("model name") or (None if board.isdecimal() else board)
    return named or ", ".join(f"{count} {core}" for core, count in cores.items()) or None


def describe() -> dict[str, Any]:
    """What does not change: `cpu`, `cores` this process may use, `machine`, `system`, `python`."""
    return {
        "cpu": cpu_name(_read("/proc/cpuinfo")) or platform.processor() or "unknown",
        "cores": _cores(),
        "machine": platform.machine() or "unknown",
        "system": f"{platform.system()} {platform.release()}".strip() or "unknown",
        "python": platform.python_version(),
    }


def board_name() -> str:
    """The machine: what its device tree calls it ("Raspberry Pi 4 Model B Rev 1.4"), else its
    processor."""
    return _read("/proc/device-tree/model").strip("\0 \n") or describe()["cpu"]


def conditions() -> dict[str, Any]:
    """What does change: `governor`, `frequency_mhz` of the fastest core, `temperature_c` of the
    hottest sensor, `load` of the last minute. None where the system does not say."""
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
    """Nothing can be run here. `kind`: no-numpy, new-numpy, no-runtime, broken-runtime,
    no-gpu or disk-full."""

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
        self.given = [random_array(d["shape"], d["dtype"]) for d in self._inputs]
        self.run: Callable[[], None] = self._interpreter.invoke

    def time_us(self) -> tuple[float, float]:
        return clocked_us(self.run)

    def prepare(self) -> None:
        """Inputs and outputs as the neighbours in a network leave them: the memory of the output
        used not long ago, the input written just now."""
        for detail in self._outputs:
            self._interpreter.tensor(detail["index"])().fill(0)
        for detail, array in zip(self._inputs, self.given):
            self._interpreter.tensor(detail["index"])()[...] = array

    def outputs(self) -> list[Any]:
        return [self._interpreter.get_tensor(d["index"]) for d in self._outputs]

    def kernel_times_us(self) -> tuple[list[float], int] | None:
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
        self.given = [random_array(i.shape, _ORT_TYPES[i.type]) for i in self._session.get_inputs()]
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

    def time_us(self) -> tuple[float, float]:
        return clocked_us(self.run)

    def prepare(self) -> None:
        """As `Tflite.prepare`."""
        for array in self._output_arrays:
            array.fill(0)
        for bound, array in zip(self._input_arrays, self.given):
            bound[...] = array

    def outputs(self) -> list[Any]:
        return self._output_arrays

    def kernel_times_us(self) -> tuple[list[float], int] | None:
        """Of every `run`, and of how many kernels; the run of the constructor is left out."""
        if self._folder is None:
            return None
        try:
            events = json.loads(Path(self._session.end_profiling()).read_text("utf-8"))
        except (OSError, ValueError):  # not written, or cut off
            raise RefusedError("disk-full", tempfile.gettempdir()) from None
        shutil.rmtree(self._folder, ignore_errors=True)
        times, count = kernel_times_us(events)
        return times[1:], count


_FOLDERS: list[str] = []


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


def kernel_times_us(events: Sequence[dict[str, Any]]) -> tuple[list[float], int]:
    """The time in kernels of every run in an ONNX Runtime profile, without those at the boundary,
    and how many kernels that are. The profile counts whole microseconds, cut off: half of one is
    added for every kernel."""
    runs = [e for e in events if e.get("cat") == "Session" and e["name"] == "model_run"]
    nodes = [
        (e["ts"], e["args"].get("op_name", ""), e["dur"])
        for e in events
        if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")
    ]
    nodes.sort()
    times: list[float] = []
    count = 0
    for run in sorted(runs, key=lambda e: e["ts"]):
        start, stop = run["ts"], run["ts"] + run["dur"]
        inside = [(name, dur) for ts, name, dur in nodes if start <= ts <= stop]
        kept = [i for i, (name, _) in enumerate(inside) if name not in BOUNDARY]
        kernels = inside[kept[0] : kept[-1] + 1] if kept else inside
        times.append(sum(dur + 0.5 for _, dur in kernels))
        count = len(kernels)
    return times, count


_ORT_TYPES = {
    **{"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"},
    **{"tensor(int8)": "int8", "tensor(uint8)": "uint8", "tensor(bool)": "bool"},
    **{"tensor(int32)": "int32", "tensor(int64)": "int64"},
}
RUNTIMES: dict[str, Any] = {"tflite": Tflite, "onnxruntime": Onnx}


def load(job: dict[str, Any], model: dict[str, Any], data: bytes) -> Any:
    """The model in the runtime that is listed with it."""
    return RUNTIMES[model["runtime"]](data, job["threads"], job.get("kernels", False))


def runtime_of(name: str) -> dict[str, Any]:
    """`runtime` and `runtime_version` as installed. Raises RefusedError."""
    _, runtime, version = {"tflite": _tflite, "onnxruntime": _onnxruntime}[name]()
    return {"runtime": runtime, "runtime_version": version}


def _tflite() -> tuple[Any, str, str]:
    packages = {"ai_edge_litert": "ai-edge-litert", "tflite_runtime": "tflite-runtime"}
    broken = ""
    for package, name in packages.items():
        try:
            module = importlib.import_module(f"{package}.interpreter")
            if package == "tflite_runtime" and _version("numpy").split(".")[0] not in ("0", "1"):
                raise RefusedError("new-numpy", name)  # it loads, and fails at the first model
            return module.Interpreter, name, _version(name)
        except ModuleNotFoundError as error:
            if error.name != package:
                broken = broken or f"{name} cannot be imported: {error}"
        except RefusedError:
            raise
        except Exception as error:
            broken = broken or f"{name} cannot be imported: {error}"
    if broken:
        raise RefusedError("broken-runtime", broken)
    raise RefusedError("no-runtime", " or ".join(packages.values()))


def _onnxruntime() -> tuple[Any, str, str]:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when it is imported
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


def random_array(shape: Sequence[Any], dtype: Any) -> Any:
    """Seeded values of any type; 1 for every dimension that the file leaves open."""
    import numpy as np

    sizes = [1 if isinstance(d, str) or d is None or d < 1 else int(d) for d in shape]
    generator, kind = np.random.default_rng(0), np.dtype(dtype)
    if kind.kind == "f":
        return generator.standard_normal(sizes, dtype=np.float32).astype(kind)
    low, high = {"int8": (-128, 128), "uint8": (0, 256), "bool": (0, 2)}.get(kind.name, (0, 2))
    return generator.integers(low, high, sizes).astype(kind)


# --- measuring -----------------------------------------------------------------------------------

TURN_SECONDS, SETTLING = 0.5, 0.01
Clocked = Tuple[float, float]  # microseconds on the wall, and of this thread on a processor


def measure(
    models: dict[str, Any],
    warmup: int,
    rounds: tuple[int, int],
    seconds: float,
    ballast_bytes: int,
    word: Callable[[str], None],
    turn: int = 1,
) -> tuple[dict[str, list[Clocked]], list[Clocked]]:
    """Time every model once a round: A B C A B C.

    With a longer `turn`, for whole networks, so many rounds of one before the next: A A A B B B;
    fewer where a turn would take over TURN_SECONDS. Runs of SETTLING seconds come before each turn
    and do not count: they find caches and clock as another model left them.

    In a network an operator finds its input in the cache, where its predecessor has just written
    it, but not its weights, which were last used one inference ago. So what lies between two runs
    of a model is as much memory as a network touches (the other models, and `ballast_bytes` on
    top), and `prepare` writes the inputs, untimed, right before the run.

    At least rounds[0], then until `seconds` have passed, at most rounds[1]. The model named
    "reference" is timed first in each turn, warm, to tell how fast the clock runs just then.
    Returns model → times of every round, and the reference's.
    """
    import numpy as np

    reference = models.get(REFERENCE)
    others = {name: model for name, model in models.items() if name != REFERENCE}
    ballast = np.ones(ballast_bytes // 8, np.int64)
    slowest = 0.0
    for _ in range(warmup):
        for name, model in models.items():
            word(name)
            slowest = max(slowest, _seconds(model))
    turn = max(1, min(turn, int(TURN_SECONDS / slowest))) if slowest else turn
    times: dict[str, list[Clocked]] = {name: [] for name in others}
    reference_times: list[Clocked] = []
    started = time.perf_counter()
    for count in range(0, rounds[1], turn):
        if count >= rounds[0] and time.perf_counter() - started > seconds:
            break
        several = min(turn, rounds[1] - count)
        if reference is not None:
            reference.prepare()
            reference.run()
            reference.prepare()
            reference_times += [reference.time_us()] * several
        ballast.sum()
        for name, model in others.items():
            word(name)
            if turn > 1:
                _settle(model)
            for _ in range(several):
                model.prepare()
                times[name].append(model.time_us())
    return times, reference_times


def _settle(model: Any) -> None:
    settled = time.perf_counter() + SETTLING
    while True:
        _seconds(model)
        if time.perf_counter() >= settled:
            return


def _seconds(model: Any) -> float:
    model.prepare()
    started = time.perf_counter()
    model.run()
    return time.perf_counter() - started


def clocked_us(run: Callable[[], None]) -> Clocked:
    """One run; nothing else is in between."""
    clock, own_clock = time.perf_counter_ns, time.thread_time_ns
    own = own_clock()
    begun = clock()
    run()
    ended = clock()
    return (ended - begun) / 1e3, (own_clock() - own) / 1e3


# --- the conversation ----------------------------------------------------------------------------


Say = Callable[..., None]
Load = Callable[[Dict[str, Any], Dict[str, Any], bytes], Any]
RuntimeOf = Callable[[str], Dict[str, Any]]


def _measure_job(job: dict[str, Any], files: list[bytes], say: Say, load: Load) -> None:
    said = [0.0]

    def word(name: str) -> None:
        now = time.perf_counter()
        if now - said[0] > WORD_SECONDS:
            said[0] = now
            say(event="at", model=name, doing="running")

    models: dict[str, Any] = {}
    for listed, data in zip(job["models"], files):
        name = listed["name"]
        say(event="at", model=name, doing="loading")
        try:
            model = load(job, listed, data)
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
        *(models, job["warmup"], tuple(job["rounds"]), job["seconds"], job["ballast_bytes"], word),
        turn=job["turn"],
    )
    after = conditions()
    own = bool(job["undisturbed"]) and job["threads"] == 1
    if REFERENCE in models:
        speeds, _ = _own_times(models[REFERENCE], reference, own, every=2)
    else:
        speeds = []
    for name, taken in times.items():
        kept, count = _own_times(models[name], taken, own)
        say(event="measured", model=name, times_us=kept, reference_us=speeds, kernels=count)
    say(event="done", before=before, after=after)


def _own_times(
    model: Any, taken: list[Clocked], own: bool, every: int = 1
) -> tuple[list[float], int]:
    """What counts of every timed run: the runtime's own kernel times where it was asked for them,
    else the clock's; with `own`, less the share that the system gave to other processes. And the
    number of kernels."""
    wall, count = [on_wall for on_wall, _ in taken], 0
    told = model.kernel_times_us()
    if told is not None:
        kernels, count = told
        wall = kernels[-every * len(taken) :][every - 1 :: every]
    if not own:
        return wall, count
    return [t * share for t, share in zip(wall, own_shares(taken))], count


def own_shares(taken: list[Clocked]) -> list[float]:
    """What part of every run, of one thread, was not given to other processes; 1 where the
    system's clock is too coarse to tell."""
    if time.get_clock_info("thread_time").resolution > 1e-6:
        return [1.0] * len(taken)
    return [min(on_processor / on_wall, 1.0) for on_wall, on_processor in taken]


def _run_job(
    job: dict[str, Any], files: list[bytes], say: Say, load: Load, runtime_of: RuntimeOf
) -> None:
    (listed,), (data,) = job["models"], files
    name = listed["name"]
    say(event="at", model=name, doing="loading")
    idle = peak_memory_bytes()
    try:
        model = load(job, listed, data)
        if job["inputs"] is not None:
            model.given = [_decoded(array) for array in job["inputs"]]
        say(event="at", model=name, doing="running")
        model.prepare()
        model.run()
        outputs = [_encoded(array) for array in model.outputs()]
    except RefusedError:
        raise
    except Exception as error:
        say(event="failed", model=name, error=_text(error))
        return
    inputs = [_encoded(array) for array in model.given] if job["inputs"] is None else []
    memory = {"idle_memory_bytes": idle, "peak_memory_bytes": peak_memory_bytes()}
    used = runtime_of(listed["runtime"])
    say(event="ran", model=name, inputs=inputs, outputs=outputs, **memory, **used)


def _encoded(array: Any) -> dict[str, Any]:
    data = base64.b64encode(array.tobytes()).decode("ascii")
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": data}


def _decoded(value: dict[str, Any]) -> Any:
    import numpy as np

    flat = np.frombuffer(base64.b64decode(value["data"]), np.dtype(value["dtype"]))
    return flat.reshape(value["shape"])


def _text(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _hello_job(job: dict[str, Any], say: Say, runtime_of: RuntimeOf) -> None:
    try:
        importlib.import_module("numpy")
    except ImportError as error:
        raise RefusedError("no-numpy", _text(error)) from None
    here = {"device": board_name(), **describe(), **conditions()}
    here.update(runtime_of(job["runtime"]))
    say(event="hello", protocol=PROTOCOL, **here)


def serve(stream: BinaryIO, say: Say, load: Load, runtime_of: RuntimeOf) -> None:
    """Answer jobs until the host hangs up."""
    for line in iter(stream.readline, b""):
        job = json.loads(line)
        files = [stream.read(listed["bytes"]) for listed in job.get("models", ())]
        try:
            if job["job"] == "hello":
                _hello_job(job, say, runtime_of)
            elif job["job"] == "measure":
                _measure_job(job, files, say, load)
            else:
                _run_job(job, files, say, load, runtime_of)
        except RefusedError as refusal:
            say(event="refused", kind=refusal.kind, error=str(refusal))


@contextlib.contextmanager
def _own_stdout() -> Generator[Say, None, None]:
    """A function that says one object on stdout; what libraries print goes to stderr."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def say(**message: Any) -> None:
        out.write(MARK + json.dumps(message).encode("utf-8") + b"\n")
        out.flush()

    yield say


def _leave(number: int, frame: Any) -> None:
    sys.exit(128 + number)


def main(load: Load = load, runtime_of: RuntimeOf = runtime_of) -> None:
    """Until stdin ends, the host is gone, or a signal says so; nothing is left behind."""
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _leave)
    try:
        with _own_stdout() as say:
            serve(sys.stdin.buffer, say, load, runtime_of)
    except BrokenPipeError:
        os._exit(0)
    finally:
        for folder in _FOLDERS:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
