"""Where latency tables lie: shipped ones, the user's own, short names; reading and writing them."""

from __future__ import annotations

import os
import tempfile
import tomllib
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from platformdirs import user_data_dir

from ..compiler.errors import TableError
from .files import (
    Measurement,
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
from .table import LatencyTable
from .target import Target


def user_tables() -> Path:
    """The folder of the user's own tables: `SHRINKC_TABLES`, else in the user's data folder."""
    given = os.environ.get("SHRINKC_TABLES")
    return Path(given) if given else Path(user_data_dir("shrinkc", appauthor=False), "tables")


def known_targets() -> tuple[str, ...]:
    """The user's targets, the shipped ones and the short names, sorted."""
    aliases = (a for a in _aliases() if _resolved(a) in _shipped_targets())
    return tuple(sorted({*_own_targets(), *_shipped_targets(), *aliases}))


def resolve(target: str) -> str:
    """The table that a target's name stands for: `rpi4` → `rpi4/tflite-xnnpack`. A table of the
    user's own goes before a short name, and what is no short name stays as it is."""
    return target if target in _own_targets() else _resolved(target)


def load_table(target: str, also: tuple[str, ...] = ()) -> LatencyTable:
    """A table by name, the user's own before a shipped one, or by its folder's path.

    `also` names targets that the caller knows beside the tables, for the error's list.

    Raises TableError: the target is unknown (lists those known), or a file of the table is
    missing or damaged (names file, line and what to do).
    """
    name = resolve(target)
    if name in _own_targets():
        return read_table(user_tables().joinpath(*Target.parse(name).folders), name)
    if name in _shipped_targets():
        return _shipped(name)
    if target and _is_folder(Path(target)):
        return read_table(Path(target), Path(target).resolve().name)
    known = ", ".join((*also, *known_targets()))
    raise TableError(f"unknown target '{target}'; known: {known}, or the path of a table's folder")


def _own_targets() -> frozenset[str]:
    folder = user_tables()
    return frozenset(_targets_in(folder, "")) if _is_folder(folder) else frozenset()


@lru_cache
def _shipped_targets() -> frozenset[str]:
    return frozenset(_targets_in(_data(), ""))


@lru_cache
def _aliases() -> dict[str, str]:
    return tomllib.loads(_data().joinpath("aliases.toml").read_text("utf-8"))


def _resolved(target: str) -> str:
    """Follows short names of short names; the shipped file has no circles (a test holds it)."""
    while target in _aliases() and target not in _shipped_targets():
        target = _aliases()[target]
    return target


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
