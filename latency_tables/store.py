"""Where latency tables lie: shipped ones, the user's own, short names; reading and writing them."""

from __future__ import annotations

import gzip
import os
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from difflib import get_close_matches
from functools import lru_cache, partial
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from platformdirs import user_data_dir

from shrinkc.errors import TableError, UnknownTargetError
from shrinkc.latency_tables.correct import corrections_text, read_corrections
from shrinkc.latency_tables.files import (
    coverage_text,
    mean_errors_percent,
    model_text,
    read_models,
    read_validation,
    validation_text,
)
from shrinkc.latency_tables.kernels.model import FittedModel
from shrinkc.latency_tables.key import PRECISIONS, OpKey
from shrinkc.latency_tables.measured import LazyOps, MeasuredOps, Measurement, ops_text, read_ops
from shrinkc.latency_tables.meta import TableMeta, meta_toml, read_meta
from shrinkc.latency_tables.table import LatencyTable
from shrinkc.latency_tables.target import Target

MANY_OPERATORS = 20_000  # more are packed, and read by precision


_PACKED = tuple(f"ops.{precision}.csv.gz" for precision in PRECISIONS)
_PLAIN = ("meta", "ops", "model", "coverage", "validation", "corrections")
TABLE_FILES = (*(f"{name}.{'toml' if name == 'meta' else 'csv'}" for name in _PLAIN), *_PACKED)


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


def shipped_table(target: str) -> str | None:
    """The shipped table that a name means without one of the user's; None where there is none."""
    name = _resolved(target)
    return name if name in _shipped_targets() else None


def load_table(target: str, also: tuple[str, ...] = ()) -> LatencyTable:
    """A table by name, the user's own before a shipped one, or by its folder's path.

    `also` names targets that the caller knows beside the tables, for the error's list.

    Raises UnknownTargetError, which lists those known and the nearest, and TableError: a file of
    the table is missing or damaged (names file, line and what to do).
    """
    name = resolve(target)
    if name in _own_targets():
        return read_table(user_tables().joinpath(*Target.parse(name).folders), name)
    if name in _shipped_targets():
        return _shipped(name)
    if target and _is_folder(Path(target)):
        return read_table(Path(target), Path(target).resolve().name)
    names = (*also, *known_targets())
    near = get_close_matches(target, names, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    raise UnknownTargetError(
        f"unknown target '{target}'",
        f"{meant}known: {', '.join(names)}, or the path of a table's folder; "
        "`shrinkc profile` measures a device of your own",
    )


def read_statement(target: str) -> tuple[TableMeta, Mapping[tuple[str, str], float]]:
    """What a table says of itself: its description, and its mean errors in percent by precision and
    what was held out. Of a shipped one no operator is read; one of the user's own is read whole,
    since it may be damaged. Raises TableError."""
    name = resolve(target)
    own = name in _own_targets()
    if own:
        load_table(name)
    where = user_tables() if own else _data()
    folder = where.joinpath(*Target.parse(name).folders)
    validation = folder.joinpath("validation.csv")
    errors = mean_errors_percent(validation) if validation.is_file() else {}
    return read_meta(folder.joinpath("meta.toml")), errors


def _own_targets() -> frozenset[str]:
    folder = user_tables()
    return frozenset(_targets_in(folder)) if _is_folder(folder) else frozenset()


@lru_cache
def _shipped_targets() -> frozenset[str]:
    return frozenset(_targets_in(_data()))


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


def _targets_in(folder: Traversable, prefix: str = "") -> list[str]:
    """Devices and, within them, runtimes: a target's name has at most these two parts."""
    found: list[str] = []
    with suppress(OSError):  # a folder that cannot be read has no tables
        for entry in folder.iterdir():
            if entry.is_dir() and not entry.name.startswith("."):
                name = f"{prefix}{entry.name}"
                if entry.joinpath("meta.toml").is_file():
                    found.append(name)
                if not prefix:
                    found += _targets_in(entry, f"{name}/")
    return found


def read_table(folder: Traversable, target: str) -> LatencyTable:
    """The table in a folder: a measured one needs ops.csv, a fitted one model.csv, coverage.csv
    and validation.csv. Raises TableError."""
    if not folder.joinpath("meta.toml").is_file():
        raise TableError(f"{folder}: no meta.toml; this folder is not a latency table")
    meta = read_meta(folder.joinpath("meta.toml"))
    needed = () if meta.kind == "measured" else ("model", "coverage", "validation")
    for name in needed:
        if not folder.joinpath(f"{name}.csv").is_file():
            raise TableError(f"{folder}: no {name}.csv, which a {meta.kind} table must have")
    validation, corrections = (
        folder.joinpath(f"{name}.csv") for name in ("validation", "corrections")
    )
    return LatencyTable(
        target,
        meta,
        _measured(folder, meta),
        _models(folder, meta),
        read_validation(validation) if validation.is_file() else (),
        read_corrections(corrections) if corrections.is_file() else {},
    )


def _measured(folder: Traversable, meta: TableMeta) -> Mapping[OpKey, Measurement]:
    whole = folder.joinpath("ops.csv")
    if whole.is_file():
        return _read_part(whole, meta.precisions)
    parts = {p: folder.joinpath(_packed(p)) for p in meta.precisions}
    found = {p: path for p, path in parts.items() if path.is_file()}
    if meta.kind == "measured" and len(found) < len(parts):
        raise TableError(f"{folder}: no ops.csv, which a measured table must have")
    return LazyOps({p: partial(_read_part, path, (p,)) for p, path in found.items()})


def _packed(precision: str) -> str:
    return f"ops.{precision}.csv.gz"


def _read_part(path: Traversable, precisions: tuple[str, ...]) -> MeasuredOps:
    ops = read_ops(path)
    for precision in ops.precisions:
        if precision not in precisions:
            raise TableError(f"{path}: has {precision}, which meta.toml does not list")
    return ops


def _models(folder: Traversable, meta: TableMeta) -> dict[str, FittedModel]:
    model, coverage = folder.joinpath("model.csv"), folder.joinpath("coverage.csv")
    if not model.is_file():
        return {}
    if meta.model is None:
        raise TableError(f"{folder.joinpath('meta.toml')}: no [model] section for model.csv")
    return read_models(model, coverage, meta.model)


def write_table(table: LatencyTable, folder: Path) -> None:
    """Write every file of the table; those of an earlier table go.

    Raises TableError when the folder cannot be written.
    """
    files = table_files(table)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in TABLE_FILES:
            if name in files:
                folder.joinpath(name).write_bytes(files[name])
            else:
                folder.joinpath(name).unlink(missing_ok=True)
    except OSError as error:
        raise TableError(f"{folder}: the table cannot be written: {error}") from error


def table_files(table: LatencyTable) -> dict[str, bytes]:
    """Name → content, of TABLE_FILES those that the table needs."""
    data = {name: text.encode("utf-8") for name, text in _texts(table).items()}
    for name in data.keys() & _PACKED:  # without a time: the same table gives the same file
        data[name] = gzip.compress(data[name], mtime=0)
    return data


def _texts(table: LatencyTable) -> dict[str, str]:
    texts = {"meta.toml": meta_toml(table.meta)}
    ops = MeasuredOps.of(table.measured)
    if len(ops) > MANY_OPERATORS:
        for precision in table.precisions:
            texts[_packed(precision)] = ops_text(ops.of_precision(precision))
    elif ops:
        texts["ops.csv"] = ops_text(ops)
    if table.models:
        texts["model.csv"] = model_text(table.models)
        texts["coverage.csv"] = coverage_text(table.models)
    if table.validation:
        texts["validation.csv"] = validation_text(table.validation)
    if table.corrections:
        texts["corrections.csv"] = corrections_text(table.corrections)
    return texts
