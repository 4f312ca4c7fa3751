"""Latency tables: what an operator costs on a target, and how the table knows it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from ..compiler.errors import TableError
from .files import (
    Measurement,
    Validation,
    coverage_text,
    model_text,
    ops_text,
    read_models,
    read_ops,
    read_validation,
    validation_text,
)
from .key import OpKey
from .meta import TableMeta, meta_toml, read_meta
from .model import FittedModel
from .target import Target

CACHED_ESTIMATES = 1 << 16


@dataclass(frozen=True, slots=True)
class OpEstimate:
    """Milliseconds of one operator. `source` says how they are known: "measured", "fitted", or
    "memory-bound" (a kind of operator the table knows nothing of, priced by the bytes it moves).
    `extrapolated`: outside what was measured or fitted."""

    ms: float
    source: str
    extrapolated: bool


@dataclass(frozen=True)
class LatencyTable:
    """One target's table. `models` are by precision; a measured table may have none."""

    target: str
    meta: TableMeta
    measured: Mapping[OpKey, Measurement] = field(default_factory=dict[OpKey, Measurement])
    models: Mapping[str, FittedModel] = field(default_factory=dict[str, FittedModel])
    validation: tuple[Validation, ...] = ()

    @property
    def precisions(self) -> tuple[str, ...]:
        return self.meta.precisions

    def estimate(self, key: OpKey) -> OpEstimate:
        """Measured if this very operator was, else by the table's model.

        Raises TableError for a precision the table lacks, and for an operator that was not
        measured when the table has no model.
        """
        return self._cached(key)

    def network_overhead_ms(self, precision: str) -> float:
        """What an inference costs besides its operators. Raises TableError like `estimate`."""
        self._check(precision)
        model = self.models.get(precision)
        return model.network_us() / 1e3 if model else 0.0

    def mean_error_percent(self, precision: str, held_out: str = "network") -> float | None:
        """Mean absolute relative error of `validation`; None where it has no such rows."""
        rows = [v for v in self.validation if (v.precision, v.held_out) == (precision, held_out)]
        return 100 * sum(abs(v.relative_error) for v in rows) / len(rows) if rows else None

    @cached_property
    def _cached(self) -> Callable[[OpKey], OpEstimate]:
        return lru_cache(CACHED_ESTIMATES)(self._estimate)

    def _estimate(self, key: OpKey) -> OpEstimate:
        self._check(key.precision)
        measured = self.measured.get(key)
        if measured is not None:
            return OpEstimate(measured.median_us / 1e3, "measured", False)
        model = self.models.get(key.precision)
        if model is None:
            raise TableError(
                f"target {self.target} has no measurement of {_described(key)} and no fitted "
                "model; measure this operator or choose another target"
            )
        source = "fitted" if model.knows(key) else "memory-bound"
        return OpEstimate(model.operator_us(key) / 1e3, source, not model.covers(key))

    def _check(self, precision: str) -> None:
        if precision not in self.precisions:
            raise TableError(
                f"target {self.target} has no figures for {precision}; "
                f"it has {', '.join(self.precisions)}"
            )


def _described(key: OpKey) -> str:
    height, width = key.in_size
    return (
        f"{key.op} {key.in_channels}→{key.out_channels} kernel {key.kernel[0]}×{key.kernel[1]} "
        f"on {height}×{width} in {key.precision}"
    )


def known_targets() -> tuple[str, ...]:
    """The shipped targets, sorted."""
    return tuple(sorted(_targets_in(_data(), "")))


def load_table(target: str, also: tuple[str, ...] = ()) -> LatencyTable:
    """A shipped target by name, or a table's folder by path.

    `also` names targets that the caller knows beside the shipped ones, for the error's list.

    Raises TableError: the target is unknown (lists those known), or a file of the table is
    missing or damaged (names file, line and what to do).
    """
    if target in known_targets():
        return _shipped(target)
    if target and _is_folder(Path(target)):
        return read_table(Path(target), Path(target).resolve().name)
    known = ", ".join((*also, *known_targets()))
    raise TableError(f"unknown target '{target}'; known: {known}, or the path of a table's folder")


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name too long to be one
        return False


@lru_cache
def _shipped(target: str) -> LatencyTable:
    parsed = Target.parse(target)
    return read_table(_data().joinpath(*parsed.folders), str(parsed))


def _data() -> Traversable:
    return files(__package__ or __name__).joinpath("data")


def _targets_in(folder: Traversable, prefix: str) -> list[str]:
    found: list[str] = []
    for entry in folder.iterdir():
        if entry.is_dir():
            name = f"{prefix}{entry.name}"
            if entry.joinpath("meta.toml").is_file():
                found.append(name)
            found += _targets_in(entry, f"{name}/")
    return found


def read_table(folder: Traversable, target: str) -> LatencyTable:
    """The table in a folder: a measured one needs ops.csv, a fitted one model.csv, coverage.csv
    and validation.csv. Raises TableError."""
    if not folder.joinpath("meta.toml").is_file():
        raise TableError(f"{folder}: no meta.toml; this folder is not a latency table")
    meta = read_meta(folder.joinpath("meta.toml"))
    needed = ("ops",) if meta.kind == "measured" else ("model", "coverage", "validation")
    for name in needed:
        if not folder.joinpath(f"{name}.csv").is_file():
            raise TableError(f"{folder}: no {name}.csv, which a {meta.kind} table must have")
    ops, validation = folder.joinpath("ops.csv"), folder.joinpath("validation.csv")
    return LatencyTable(
        target,
        meta,
        _measured(ops, meta) if ops.is_file() else {},
        _models(folder, meta),
        read_validation(validation) if validation.is_file() else (),
    )


def _measured(path: Traversable, meta: TableMeta) -> dict[OpKey, Measurement]:
    measured = read_ops(path)
    for key in measured:
        if key.precision not in meta.precisions:
            raise TableError(f"{path}: has {key.precision}, which meta.toml does not list")
    return measured


def _models(folder: Traversable, meta: TableMeta) -> dict[str, FittedModel]:
    model, coverage = folder.joinpath("model.csv"), folder.joinpath("coverage.csv")
    if not model.is_file():
        return {}
    if meta.model is None:
        raise TableError(f"{folder.joinpath('meta.toml')}: no [model] section for model.csv")
    return read_models(model, coverage, meta.model)


def write_table(table: LatencyTable, folder: Path) -> None:
    """Write every file of the table, all or nothing; an earlier table there is replaced.

    Raises TableError when the folder cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            complete = Path(scratch, "new")
            complete.mkdir()
            for name, text in _texts(table).items():
                (complete / name).write_text(text, "utf-8", newline="\n")
            _swap(complete, folder, Path(scratch, "earlier"))
    except OSError as error:
        raise TableError(f"{folder}: the table cannot be written: {error}") from error


def _texts(table: LatencyTable) -> dict[str, str]:
    texts = {"meta.toml": meta_toml(table.meta)}
    if table.measured:
        texts["ops.csv"] = ops_text(table.measured)
    if table.models:
        texts["model.csv"] = model_text(table.models)
        texts["coverage.csv"] = coverage_text(table.models)
    if table.validation:
        texts["validation.csv"] = validation_text(table.validation)
    return texts


def _swap(complete: Path, folder: Path, earlier: Path) -> None:
    """Put `complete` where `folder` is; on failure or interruption `folder` is as before."""
    try:
        if folder.exists():
            folder.rename(earlier)
        complete.rename(folder)
    except BaseException:
        if earlier.exists() and not folder.exists():
            earlier.rename(folder)
        raise
