"""What a compilation is asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

from shrinkc.compiler.export.onnx import OPSETS
from shrinkc.compiler.formats.base import FILE_PRECISIONS, Format
from shrinkc.compiler.formats.registry import FORMATS
from shrinkc.compiler.formats.tflite import TFLITE
from shrinkc.compiler.images.files import ImageSet
from shrinkc.compiler.images.preprocessing import Preprocessing
from shrinkc.compiler.images.source import ImageSource
from shrinkc.compiler.images.tensors import TensorImages
from shrinkc.compiler.quantise.options import Int8, check_int8
from shrinkc.compiler.quantise.stored import StoredCalibration
from shrinkc.compiler.support.checks import check_kind, check_whole
from shrinkc.compiler.support.choices import Int8Tuning, Io, Merge, Precision, is_host
from shrinkc.compiler.support.unread import refuse_unread
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.task import Task
from shrinkc.errors import InputError
from shrinkc.passes.base import Pass

OPSET = 17  # of ONNX files, by default


@dataclass(frozen=True)
class Options:
    """One compilation.

    target         a latency table's name or folder, or "host"
    precision      fp32 or int8 (which needs images to calibrate on)
    io             what int8 files read and return where the network has floats: those, or int8 or
                   uint8, quantised as the report says
    fold_normalisation  files read images of raw RGB, 0 to 255; what `preprocessing` does to the
                   numbers is in the files
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
    passes         exact ones of your own, run behind the base passes and verified like them
    """

    target: str = "rpi4"
    precision: Precision = "fp32"
    io: Io = "float32"
    fold_normalisation: bool = False
    opset: int = OPSET
    merge: Merge = "auto"
    images: ImageSet | TensorImages | None = None
    calibration: ImageSet | TensorImages | None = None
    preprocessing: Preprocessing | None = None
    int8_tuning: Int8Tuning = "bias"
    keep_fp32: tuple[str, ...] = ()
    min_snr_db: float | None = None
    threads: int = 1
    runs: int = 30
    stored: StoredCalibration | None = None
    task: Task = CLASSIFICATION
    formats: tuple[Format, ...] = FORMATS
    passes: tuple[Pass, ...] = ()

    def __post_init__(self) -> None:
        choices: tuple[tuple[str, str, tuple[str, ...]], ...] = (
            ("precision", self.precision, FILE_PRECISIONS),
            ("io", self.io, get_args(Io)),
            ("merge", self.merge, get_args(Merge)),
            ("int8_tuning", self.int8_tuning, get_args(Int8Tuning)),
        )
        for name, value, known in choices:
            if value not in known:
                raise InputError(f"`{name}` {value}: choose {', '.join(known)}")
        check_whole("threads", self.threads, 1)
        check_whole("runs", self.runs, 0)
        check_kind("task", self.task, Task, "an object that derives from Task")
        if self.opset not in OPSETS:
            raise InputError(f"`opset` {self.opset}: give {OPSETS.start} to {OPSETS.stop - 1}")
        for said in ("name", "file"):
            if len({getattr(one, said) for one in self.formats}) < max(1, len(self.formats)):
                raise InputError(f"`formats`: give one or more, each with a {said} of its own")
        for one in self.passes:
            if not callable(one) or not hasattr(one, "exact") or isinstance(one, type):
                raise InputError(f"`passes` holds a {type(one).__name__}; give objects of passes")
            if not one.exact:
                raise InputError(f"`passes`: '{one.name}' is lossy; only exact ones are run here")
        check_int8(self.int8, self.precision)
        if self.io != "float32" and self.precision != "int8":
            raise InputError(f"`io` {self.io} is for int8 files; give `precision` int8 too")
        timed = self.runs > 0 or is_host(self.target)
        written = any(one is not TFLITE for one in self.formats)
        refuse_unread(
            ("threads", self.threads != 1, timed, "measurements here: leave `runs` above 0"),
            ("opset", self.opset != OPSET, written, "ONNX files, of which none is written"),
        )

    @property
    def int8(self) -> Int8:
        """How the network becomes int8, where it does."""
        return Int8(self.int8_tuning, self.keep_fp32, self.min_snr_db)


def check_options(options: Options) -> None:
    """Raise InputError where int8 has nothing to be calibrated on."""
    images = options.images or options.calibration
    if options.precision == "int8" and images is None and options.stored is None:
        raise InputError("`precision` int8 needs images to calibrate on; give `images`")


def with_images(
    options: Options, images: ImageSource | None, calibration: ImageSource | None = None
) -> Options:
    """`options` for these images. Both become inputs in the same way.

    Raises InputError where they do not.
    """
    sources = [source for source in (images, calibration) if source is not None]
    ways = {source.preprocessing for source in sources if source.preprocessing is not None}
    if len(ways) > 1:
        raise InputError("`images` and `calibration` are resized or normalised differently")
    return replace(
        options,
        images=None if images is None else images.images,
        calibration=None if calibration is None else calibration.images,
        preprocessing=next(iter(ways), None),
    )
