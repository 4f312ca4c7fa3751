"""What a compilation is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .images import ImageSet
from .picture import Preprocessing
from .quantisation.how import Int8

Merge = Literal["auto", "all", "none"]
PRECISIONS = ("fp32", "int8")


@dataclass(frozen=True)
class Options:
    """One compilation.

    target         a latency table's name or folder, or "host"
    precision      fp32 or int8 (which needs pictures to calibrate on)
    opset          of the ONNX file
    merge          linear segments: where the target's table says it pays, always, or never
    images         pictures to verify and, with labels, to judge accuracy on
    calibration    pictures for int8; without them every second one of `images` is used for it,
                   and only the others are judged
    preprocessing  how pictures become inputs
    int8           how, where precision is int8
    threads        of every measurement here
    runs           of each file when it is timed; 0 times nothing
    """

    target: str = "rpi4"
    precision: str = "fp32"
    opset: int = 17
    merge: Merge = "auto"
    images: ImageSet | None = None
    calibration: ImageSet | None = None
    preprocessing: Preprocessing | None = None
    int8: Int8 = field(default_factory=Int8)
    threads: int = 1
    runs: int = 30
