"""Stand-ins for devices: runtimes that misbehave on demand, a phone."""

from __future__ import annotations

import os
import sys
from pathlib import Path

INTERPRETER = '''
"""A TFLite interpreter whose model file is a text: what to do when it runs."""
import os, time
import numpy as np

def unplug():
    """Kill what holds the connection: the nearest sshd above, else the parent. What was said
    before has arrived."""
    time.sleep(0.5)
    process = os.getppid()
    while process > 1:
        with open(f"/proc/{process}/stat") as file:
            name, _, rest = file.read().partition("(")[2].rpartition(")")
        if name.startswith("sshd"):
            break
        process = int(rest.split()[1])
    os.kill(process if process > 1 else os.getppid(), 9)


DETAIL = {"index": 0, "shape": np.array([1, 2]), "dtype": np.float32}


class Interpreter:
    runs = 0

    def __init__(self, model_content, num_threads):
        self.what = bytes(model_content).decode("ascii", "replace")
        if self.what == "refuse":
            raise ValueError("op code 999 is not known")
        self.array = np.zeros((1, 2), np.float32)

    def allocate_tensors(self):
        pass

    def get_input_details(self):
        return [DETAIL]

    get_output_details = get_input_details

    def tensor(self, index):
        return lambda: self.array

    def get_tensor(self, index):
        return self.array * (1.5 if os.environ.get("FAKE_WRONG") else 1)

    def invoke(self):
        Interpreter.runs += 1
        if Interpreter.runs == int(os.environ.get("FAKE_CRASH", "0")):
            os.kill(os.getpid(), 9)
        print("a library that prints")
        if self.what == "hang":
            time.sleep(60)
        if self.what == "crash":
            os.kill(os.getpid(), 11)
        if self.what == "starve":
            os.kill(os.getpid(), 9)
        if self.what == "illegal":
            os.kill(os.getpid(), 4)
        if self.what == "unplug":
            unplug()
        time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
'''


def package(folder: Path, name: str, init: str = "", interpreter: str | None = None) -> Path:
    """A Python package to put in front of the real one; returns what PYTHONPATH must name."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "__init__.py").write_text(init)
    if interpreter is not None:
        (folder / name / "interpreter.py").write_text(interpreter)
    return folder


def fake_runtime(folder: Path) -> Path:
    """The interpreter alone; the rest of the package is the real one's."""
    rest = "import pkgutil; __path__ = pkgutil.extend_path(__path__, __name__)"
    return package(folder, "ai_edge_litert", rest, INTERPRETER)


def no_runtime(folder: Path) -> Path:
    for name in ("ai_edge_litert", "tflite_runtime"):
        package(folder, name, f"raise ModuleNotFoundError('No module', name='{name}')")
    return folder


def old_runtime(folder: Path) -> Path:
    """tflite-runtime alone, which loads beside any NumPy."""
    no_runtime(folder)
    return package(folder, "tflite_runtime", "", INTERPRETER)


def foreign_runtime(folder: Path) -> Path:
    """Wheels of another processor."""
    return package(
        folder, "ai_edge_litert", "raise ImportError('x.so: wrong ELF class: ELFCLASS32')"
    )


def python(path: Path, **environment: str | Path) -> Path:
    """A Python with that environment, as a program at `path`."""
    settings = " ".join(f"{name}='{value}'" for name, value in environment.items())
    return program(path, f"exec env {settings} '{sys.executable}' \"$@\"")


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def in_front(folder: Path, variable: str = "PATH") -> str:
    """The variable's value with a folder in front."""
    return f"{folder}{os.pathsep}{os.environ.get(variable, '')}"
