"""What a compilation is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from shrinkc.compiler.formats.base import FILE_PRECISIONS, Format
from shrinkc.compiler.formats.registry import FORMATS
from shrinkc.compiler.images.files import ImageSet
from shrinkc.compiler.images.preprocessing import Preprocessing
from shrinkc.compiler.quantise.options import Int8, check_int8
from shrinkc.compiler.quantise.stored import StoredCalibration
from shrinkc.compiler.support.choices import Int8Tuning, Merge
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.task import Task
from shrinkc.errors import InputError


@dataclass(frozen=True)
class Options:
    """One compilation.

    target         a latency table's name or folder, or "host"
    precision      fp32 or int8 (which needs images to calibrate on)
    opset          of the ONNX file
    merge          linear segments: where the target's table says it pays, always, or never
    images         images to verify and, with labels, to judge accuracy on
    calibration    images for int8; without them every second one of `images` is used for it,
                   and only the others are judged
    preprocessing  how images become inputs
    int8_tuning    what is done to the numbers before int8: none, bias (correct biases on the
                   calibration images), equalise (the ranges of channels), both
    keep_fp32      layers that stay fp32 in int8 files
    min_snr_db     so do layers whose own signal to noise in int8 is less
    threads        of every measurement here
    runs           of each file when it is timed; 0 times nothing
    stored         what calibration told before: nothing is calibrated then
    task           what the network's outputs mean: how files and changed networks are judged
    formats        that files are written in; one of your own derives from `formats.base.Format`
    """

    target: str = "rpi4"
    precision: str = "fp32"
    opset: int = 17
    merge: Merge = "auto"
    images: ImageSet | None = None
    calibration: ImageSet | None = None
    preprocessing: Preprocessing | None = None
    int8_tuning: Int8Tuning = "bias"
    keep_fp32: tuple[str, ...] = ()
    min_snr_db: float | None = None
    threads: int = 1
    runs: int = 30
    stored: StoredCalibration | None = None
    task: Task = CLASSIFICATION
    formats: tuple[Format, ...] = FORMATS

    @property
    def int8(self) -> Int8:
        """How the network becomes int8, where it does."""
        return Int8(self.int8_tuning, self.keep_fp32, self.min_snr_db)


def check_options(options: Options) -> None:
    """Raise InputError for what can be known to fail before any work is done."""
    if options.precision not in FILE_PRECISIONS:
        raise InputError(f"`precision` {options.precision}: choose {' or '.join(FILE_PRECISIONS)}")
    for said in ("name", "file"):
        if len({getattr(one, said) for one in options.formats}) < max(1, len(options.formats)):
            raise InputError(f"`formats`: give one or more, each with a {said} of its own")
    images = options.images or options.calibration
    if options.precision == "int8" and images is None and options.stored is None:
        raise InputError("`precision` int8 needs images to calibrate on; give `images`")
    check_int8(options.int8, options.precision)
