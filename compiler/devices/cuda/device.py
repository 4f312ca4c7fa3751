"""An NVIDIA GPU in this machine: PyTorch with CUDA graphs, or TensorRT."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from shrinkc.compiler.devices.jobs import Session, Setup
from shrinkc.compiler.devices.session import Place, open_session

_START = (
    "import sys; sys.path[:] = [p for p in sys.path if p]; "
    f"from {__package__}.runner import main; main()"
)


@dataclass(frozen=True)
class Cuda:
    """The GPU that CUDA_VISIBLE_DEVICES puts first."""

    name: str = "cuda"

    @property
    def runtimes(self) -> Mapping[str, tuple[str, ...]]:
        return {"pytorch": ("fp32", "fp16"), "tensorrt": ("fp32", "fp16")}

    def open(self, setup: Setup) -> AbstractContextManager[Session]:
        argv = (sys.executable, "-u", "-c", _START)
        place = Place(self.name, argv, "this Python", lambda _: None, send_runner=False)
        return open_session(place, setup)
