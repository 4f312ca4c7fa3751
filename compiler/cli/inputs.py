"""Text of flags becomes values of the API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from shrinkc.compiler.support.atomic_files import check_folder
from shrinkc.errors import InputError

if TYPE_CHECKING:
    from shrinkc.compiler.api.steps.network import ModelFile, WholeShape
    from shrinkc.compiler.images.source import ImageFolder
    from shrinkc.compiler.support.choices import Precision
    from shrinkc.compiler.support.jobs import Parallel
    from shrinkc.compiler.tasks.asked import AskedTask


Fit = Literal["letterbox", "stretch"]  # beside pixels


def shapes_of(inputs: Sequence[str] | None) -> list[tuple[int, ...] | WholeShape] | None:
    """Of --input, once per input."""
    return [parse_shape(text) for text in inputs] if inputs else None


def parse_shape(text: str) -> tuple[int, ...] | WholeShape:
    """'1,3,224,224' → (1, 3, 224, 224); '1,128:int64' → whole numbers of that type"""
    from shrinkc.compiler.api.steps.network import WholeShape
    from shrinkc.passes.ir import INTEGERS

    sizes, colon, dtype = text.partition(":")
    try:
        shape = tuple(int(part) for part in sizes.replace("x", ",").split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1 or max(shape) > 1 << 20:
        raise InputError(f"`inputs` {text}: give positive integers like 1,3,224,224")
    if not colon or dtype == "float32":
        return shape
    if dtype not in INTEGERS:
        raise InputError(f"`inputs` {text}: give float32, {', '.join(INTEGERS)} behind the colon")
    return WholeShape(shape, dtype)


LABELS_READ = "class folders whose labels are read"


READ = "classes", "annotations", "resize", "mean", "std", "bgr", "scale"


class Reading:
    """How the images of a command line are read: --classes, --annotations, --resize, --mean, --std,
    --bgr, --scale and --cache-gb."""

    def __init__(
        self,
        classes: Path | None,
        resize: str | None,
        mean: str | None,
        std: str | None,
        bgr: bool = False,
        scale: float | None = None,
        cache_gb: float | None = None,
        *,
        annotations: Path | None = None,
    ) -> None:
        self.classes, self.annotations = classes, annotations
        self.resize: Any = int(resize) if resize and resize.isdecimal() else resize
        self.mean, self.std = _numbers("mean", mean), _numbers("std", std)
        self.bgr, self.scale, self.cache_gb = bgr, scale, cache_gb
        if isinstance(self.resize, str) and self.resize not in get_args(Fit):
            raise InputError(
                f"`resize` {self.resize}: give pixels of the shorter side, letterbox or stretch"
            )

    def refuse_unread(self, *paths: Path | None) -> None:
        """Raise InputError for one that is given where there are no images at `paths`."""
        from shrinkc.compiler.support.unread import refuse_unread

        some = any(path is not None for path in paths)
        for name in (*READ, "cache_gb"):
            given = getattr(self, name) not in (None, False)
            refuse_unread((name, given, some, "reading images: give `images`"))

    def folder(self, path: Path) -> ImageFolder:
        from shrinkc.compiler.images.source import ImageFolder

        return ImageFolder(
            *(path, self.resize, self.mean, self.std, self.classes),
            bgr=self.bgr,
            scale=self.scale,
            annotations=self.annotations,
            cache_gb=self.cache_gb,
        )

    def if_given(self, path: Path | None) -> ImageFolder | None:
        return None if path is None else self.folder(path)


def _numbers(name: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"`{name}` {text}: give numbers like 0.5,0.5,0.5") from error


def whole_numbers(name: str, text: str | None) -> tuple[int, ...] | None:
    """'192,160' → (192, 160)"""
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"`{name}` {text}: give whole numbers like 192,160") from error


@dataclass(frozen=True)
class Asked:
    """What every command is told that changes a network and makes files of it."""

    model: Path
    inputs: list[str] | None
    arch: str | None
    trust: bool
    target: str | None
    precision: Precision | None
    out: Path | None
    opset: int
    threads: int | None
    runs: int
    task: AskedTask

    @property
    def file(self) -> ModelFile:
        from shrinkc.compiler.api.steps.network import ModelFile

        return ModelFile(self.model, self.arch, self.trust)


def output_folder(out: Path | None, model: Path, target: str | None, done: str = "") -> Path:
    """--out, or the model's and the target's name, and what was done. Raises InputError where that
    is no folder; asked before the work, of which nothing would be left."""
    name = "" if target is None else f"-{Path(target).name}"
    folder = out or Path(f"{model.stem}{name}{done}")
    check_folder(folder)
    return folder


def work_folder(out: Path) -> Path:
    """What a stopped run needs to go on: images, what was measured, checkpoints."""
    return out.with_name(f"{out.name}.work")


def side_by_side(text: str | None, ray: str | None) -> Parallel:
    """Of --jobs, a number of processes or ray, and --ray, which says it. Raises InputError."""
    if text not in (None, "ray") and (not text.isdecimal() or int(text) < 1):
        raise InputError(f"`parallel` {text}: give a number of processes, or ray")
    if ray is None:
        return "ray" if text == "ray" else int(text or 1)
    if text not in (None, "ray"):
        raise InputError(f"`parallel` {text} and `ray` {ray} do not go together", "leave out one")
    from shrinkc.compiler.support.jobs import Ray

    return Ray(ray)
