"""What is asked of a compilation."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from shrinkc.compiler.images.files import ImageSet, find_images, read_classes
from shrinkc.compiler.quantise.options import Int8
from shrinkc.compiler.support.choices import Merge


@dataclass(frozen=True)
class CompileArguments:
    """The command line of `shrinkc compile`, as given; `command`: all of it, as it was typed."""

    model: Path
    target: str
    shapes: tuple[str, ...]
    images: Path | None
    calibration: Path | None
    classes: Path | None
    resize: int | None
    mean: str | None
    std: str | None
    out: Path | None
    precision: str
    opset: int
    merge: Merge
    arch: str | None
    trust: bool
    threads: int
    runs: int
    as_json: bool
    command: str | None = None
    int8: Int8 = field(default_factory=Int8)


def images_of(path: Path | None, classes: Path | None, labelled: bool = True) -> ImageSet | None:
    if path is None:
        return None
    return find_images(path, classes=read_classes(classes) if classes and labelled else None)
