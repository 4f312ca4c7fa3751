"""`shrinkc.compare`: two folders that shrinkc wrote, or two model files, side by side."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, cast

from shrinkc.compiler.formats.registry import open_runner
from shrinkc.compiler.formats.runner import random_inputs
from shrinkc.compiler.images.source import Given
from shrinkc.compiler.measure.bench import bench
from shrinkc.compiler.measure.compare_files import ComparedFiles, compare_files, of_other_sizes
from shrinkc.compiler.report.html.reading import part
from shrinkc.compiler.support.checks import check_whole, path_of
from shrinkc.compiler.support.difference import relative_error
from shrinkc.compiler.support.reading.regular_file import read_regular
from shrinkc.compiler.support.reading.strict_json import parse_json
from shrinkc.compiler.support.unread import refuse_unread
from shrinkc.errors import InputError, LoadError

MAX_BYTES = 8 << 20  # of a report.json; a thousand layers take one


@dataclass(frozen=True)
class FilePair:
    """Two files of one name.

    difference  of their outputs on random inputs, as a share of the first's range; None where they
                have other outputs, or read images of another size
    first_ms, second_ms, speedup  medians here, in turns, and of the ratios; None: not timed
    """

    difference: float | None
    first_ms: float | None = None
    second_ms: float | None = None
    speedup: float | None = None


@dataclass(frozen=True, repr=False)
class Compared:
    """Two compiled networks: what their reports say, and their files, by name."""

    folders: tuple[Path, Path]
    reports: tuple[dict[str, Any], dict[str, Any]]
    files: Mapping[str, FilePair]

    def __repr__(self) -> str:
        speedups = ", ".join(
            f"{name} {pair.speedup:.2f}×" if pair.speedup else name
            for name, pair in self.files.items()
        )
        first, second = (folder.name for folder in self.folders)
        return f"Compared({second} over {first}: {speedups})"


def compare(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    *,
    images: Given | None = None,
    threads: int = 1,
    runs: int = 50,
) -> Compared | ComparedFiles:
    """Two folders that shrinkc wrote, or two model files of any origin, side by side; files are
    timed in turns on this machine.

    Args:
        first: a folder with a report.json and model files; or a .onnx or .tflite file.
        second: another.
        images: for two files: what their outputs are compared on, of the first 32; otherwise one
            random input.
        threads: of the runtimes.
        runs: of each file; 0 times nothing.

    Raises:
        LoadError: a folder without a report of shrinkc's, a damaged file.
        InputError: no file of the same name in both, or inputs of other shapes.
    """
    check_whole("threads", threads, 1)
    check_whole("runs", runs, 0)
    refuse_unread(("threads", threads != 1, runs > 0, "timing: leave `runs` above 0"))
    folders = (path_of("first", first), path_of("second", second))
    if any(path.is_file() for path in folders):
        if any(path.is_dir() for path in folders):
            raise InputError(f"{first} and {second}: give two folders or two files")
        return compare_files(*folders, images, threads, runs)
    refuse_unread(("images", images is not None, False, "two files, not folders"))
    reports = (_report(folders[0]), _report(folders[1]))
    names = [artefact["file"] for artefact in reports[0]["artefacts"]]
    both = [name for name in names if all((folder / name).is_file() for folder in folders)]
    if not both:
        raise InputError(f"{first} and {second} have no file of the same format; compile both")
    pairs = {n: _pair(folders[0] / n, folders[1] / n, threads, runs) for n in reversed(both)}
    return Compared(folders, reports, pairs)


def _report(folder: Path) -> dict[str, Any]:
    path = folder / "report.json"
    try:
        report = parse_json(read_regular(path, MAX_BYTES))
        names = [artefact["file"] for artefact in report["artefacts"]]
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise LoadError(f"{path}: not a report of shrinkc's; give the folder it wrote") from error
    if not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise LoadError(f"{path}: names files outside its folder; give the folder shrinkc wrote")
    told = [report.get(name) for name in ("model", "target", "precision")]
    judged = [part(report, "task").get(name, "") for name in ("metric", "style")]
    if not all(isinstance(text, str | None) for text in (*told, *judged)):
        raise LoadError(f"{path}: damaged; compile again, or give another folder")
    return cast("dict[str, Any]", report)


def _pair(first: Path, second: Path, threads: int, runs: int) -> FilePair:
    pair = [open_runner(path, threads) for path in (first, second)]
    alike = pair[0].input_shapes == pair[1].input_shapes
    if not alike and not of_other_sizes(*pair):
        raise InputError(f"{first} and {second} read inputs of other shapes")
    inputs = random_inputs(pair[0])
    ours, theirs = (runner.run(inputs) for runner in pair) if alike else ([], None)
    difference = None
    if theirs is not None and len(ours) == len(theirs):
        both = zip(ours, theirs, strict=True)
        difference = max((relative_error(b, a) for a, b in both), default=0.0)
    if not runs:
        return FilePair(difference)
    a, b = bench(pair, runs=runs)
    ratios = [x / y for x, y in zip(a.times_ms, b.times_ms, strict=True)]
    return FilePair(difference, a.median_ms, b.median_ms, median(ratios))
