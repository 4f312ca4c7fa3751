"""What a compilation is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from .calibrate import Range
from .images import ImageSet
from .picture import Preprocessing

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
    threads        of every measurement here
    runs           of each file when it is timed; 0 times nothing
    ranges         of activations for int8, where they are known: nothing is calibrated then
    """

    target: str = "rpi4"
    precision: str = "fp32"
    opset: int = 17
    merge: Merge = "auto"
    images: ImageSet | None = None
    calibration: ImageSet | None = None
    preprocessing: Preprocessing | None = None
    threads: int = 1
    runs: int = 30
    ranges: Mapping[str, Range] = field(default_factory=dict[str, Range])
